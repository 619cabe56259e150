//! Frames: `u8 tag │ i32 length, itself included │ body`, read in place.
//!
//! One buffer for the life of a connection. A frame is a slice of it: no copy, no reference count,
//! no allocation for a row. A frame larger than the buffer makes it grow for the time being.
//! Manual page: protocol-message-formats.

/// The length field, which counts itself.
const LENGTH_BYTES: usize = 4;

/// Tag and length.
const HEADER_BYTES: usize = 1 + LENGTH_BYTES;

/// No frame is longer: the server allocates none above 1 GiB (C name `MaxAllocSize`), and a row is
/// one frame. A longer one is a broken stream, and must not make us allocate.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// How large the buffer is while frames are small. Less than a receive window, so that a read leaves
/// that nearly closed.
const BUFFER_BYTES: usize = 256 << 10;

/// A frame's length cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message of type {tag:#04x} claims a length of {length} bytes")]
pub struct FrameError {
    /// Its first byte.
    pub tag: u8,
    /// The length field.
    pub length: i32,
}

/// A whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message's type.
    pub tag: u8,
    /// What follows the length.
    pub body: &'a [u8],
}

/// Bytes as they came, handed out as frames.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// The first byte that no frame was made of.
    start: usize,
    /// One past the last byte that came.
    end: usize,
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self { bytes: vec![0; BUFFER_BYTES], start: 0, end: 0 }
    }

    /// Room to read into: never empty. Moves what is left to the front first.
    pub fn room(&mut self) -> &mut [u8] {
        let pending = self.end - self.start;
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = pending;
        }
        let needed = self.frame_bytes().unwrap_or(0).max(pending + 1);
        if self.end == self.bytes.len() {
            // As bytes come, not as a length claims: a broken stream must not take a gigabyte.
            self.bytes.resize(needed.min(2 * self.bytes.len()), 0);
        } else if self.bytes.len() > BUFFER_BYTES && needed <= BUFFER_BYTES {
            self.bytes.truncate(BUFFER_BYTES);
            self.bytes.shrink_to_fit();
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// True while there is room without moving or growing.
    pub fn has_room(&self) -> bool {
        self.end < self.bytes.len()
    }

    /// The room behind what came, as it is.
    pub fn spare(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// `count` bytes were read into the room.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// The next whole frame; none where more must be read.
    ///
    /// # Errors
    /// Where the length field is negative, too small for itself, or above 1 GiB. The buffer cannot
    /// be read on after that.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let Some((tag, length)) = self.header() else { return Ok(None) };
        let length_error = FrameError { tag, length };
        let length = usize::try_from(length).map_err(|_| length_error.clone())?;
        if !(LENGTH_BYTES..=FRAME_BYTES_MAX).contains(&length) {
            return Err(length_error);
        }
        let (body_start, body_end) = (self.start + HEADER_BYTES, self.start + 1 + length);
        if body_end > self.end {
            return Ok(None);
        }
        self.start = body_end;
        Ok(self.bytes.get(body_start..body_end).map(|body| Frame { tag, body }))
    }

    /// True where [`FrameBuffer::next_frame`] has an answer without more bytes: a whole frame, or
    /// an error.
    pub fn has_frame(&self) -> bool {
        match (self.header(), self.frame_bytes()) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(_), Some(bytes)) => self.end - self.start >= bytes,
        }
    }

    /// True where nothing came that no frame was made of.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The type of the frame that [`FrameBuffer::next_frame`] would return, as soon as it is known.
    pub fn next_tag(&self) -> Option<u8> {
        self.header().map(|(tag, _)| tag)
    }

    fn header(&self) -> Option<(u8, i32)> {
        let pending = self.bytes.get(self.start..self.end)?;
        let (tag, rest) = pending.split_first()?;
        let length = rest.first_chunk::<LENGTH_BYTES>()?;
        Some((*tag, i32::from_be_bytes(*length)))
    }

    /// How long the frame at hand is as a whole, where its length is one that can be.
    fn frame_bytes(&self) -> Option<usize> {
        let length = usize::try_from(self.header()?.1).ok()?;
        (length <= FRAME_BYTES_MAX).then_some(1 + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(buffer: &mut FrameBuffer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = buffer.room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            buffer.filled(count);
            bytes = &bytes[count..];
        }
    }

    fn encoded(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(body.len() + LENGTH_BYTES).expect("short");
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn frames_come_out_whole_whatever_the_pieces() {
        let stream =
            [encoded(b'd', b"first"), encoded(b'k', b""), encoded(b'd', b"third")].concat();
        for piece in 1..stream.len() {
            let mut buffer = FrameBuffer::new();
            let mut seen = Vec::new();
            for bytes in stream.chunks(piece) {
                feed(&mut buffer, bytes);
                while let Some(frame) = buffer.next_frame().expect("well formed") {
                    seen.push((frame.tag, frame.body.to_vec()));
                }
            }
            let expected =
                [(b'd', b"first".to_vec()), (b'k', Vec::new()), (b'd', b"third".to_vec())];
            assert_eq!(seen, expected, "pieces of {piece}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_large_frame_makes_room_and_gives_it_back() {
        let mut buffer = FrameBuffer::new();
        let body = vec![7; 3 * BUFFER_BYTES];
        feed(&mut buffer, &encoded(b'd', &body));
        let frame = buffer.next_frame().expect("well formed").expect("whole");
        assert_eq!(frame.body.len(), body.len());
        buffer.room();
        assert_eq!(buffer.bytes.len(), BUFFER_BYTES);
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_before_allocation() {
        for length in [-1, 0, 3, i32::MAX] {
            let mut buffer = FrameBuffer::new();
            feed(&mut buffer, &[&b"d"[..], &i32::to_be_bytes(length)].concat());
            assert_eq!(buffer.next_frame(), Err(FrameError { tag: b'd', length }));
            buffer.room();
            assert_eq!(buffer.bytes.len(), BUFFER_BYTES);
        }
    }
}
