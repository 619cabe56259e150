//! Walks one message in place. Every read is checked and names its field.

use crate::failure::{Code, Failure, Recovery};

/// A message is not what the protocol says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends inside a field.
    #[error("a pgoutput message ends inside its {field}")]
    Truncated {
        /// The field.
        field: &'static str,
    },
    /// Bytes are left over.
    #[error("{bytes} bytes are left over after a pgoutput {message} message")]
    Remainder {
        /// The message.
        message: &'static str,
        /// How many.
        bytes: usize,
    },
    /// A field holds what it never may.
    #[error("the {field} of a pgoutput message is {value}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// A name or text is not UTF-8.
    #[error("the {field} of a pgoutput message is not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// A message that was not asked for.
    #[error("a pgoutput message of type {tag:#04x} came, which was not asked for")]
    Tag {
        /// Its first byte.
        tag: u8,
    },
}

impl Failure for DecodeError {
    fn code(&self) -> Option<Code> {
        Some(Code::EventUnmappable)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(
            "Nothing was skipped. Look for a proxy between the daemon and PostgreSQL; without one \
             this is a defect of Tailwater: report it with the server's version."
                .to_owned(),
        )
    }
}

/// The rest of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    frame: &'a [u8],
    place: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(frame: &'a [u8]) -> Self {
        Self { frame, place: 0 }
    }

    pub(super) fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// Where the next byte lies in the frame.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    fn rest(&self) -> &'a [u8] {
        self.frame.get(self.place..).unwrap_or_default()
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.rest().first_chunk::<N>().ok_or(DecodeError::Truncated { field })?;
        self.place += N;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(super) fn i16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        self.array(field).map(i16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A count of 16 bits, never negative.
    pub(super) fn count(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let value = self.i16(field)?;
        usize::try_from(value).map_err(|_| DecodeError::Field { field, value: value.into() })
    }

    /// A length of 32 bits, never negative.
    pub(super) fn length(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let value = self.i32(field)?;
        usize::try_from(value).map_err(|_| DecodeError::Field { field, value: value.into() })
    }

    pub(super) fn bytes(
        &mut self,
        length: usize,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let bytes = self.rest().get(..length).ok_or(DecodeError::Truncated { field })?;
        self.place += length;
        Ok(bytes)
    }

    /// A text that ends with a zero byte.
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let rest = self.rest();
        let end = rest.iter().position(|byte| *byte == 0);
        let length = end.ok_or(DecodeError::Truncated { field })?;
        let bytes = self.bytes(length, field)?;
        self.place += 1;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8 { field })
    }

    /// Ends the message: nothing may be left.
    pub(super) fn finish(self, message: &'static str) -> Result<(), DecodeError> {
        match self.rest().len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Remainder { message, bytes }),
        }
    }
}
