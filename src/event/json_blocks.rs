//! Where a nested JSON value ends, found in blocks of 64 bytes without a branch per byte.
//!
//! A payload's `data` is nearly all of a row, and in another shape for every type of event: a loop
//! that branches on each quote and bracket mispredicts most of them. Here each block becomes four
//! bit sets, one bit a byte, and arithmetic tells which brackets stand outside of strings.

use super::json::Malformed;

const BLOCK_BYTES: usize = 64;

type Block = [u8; BLOCK_BYTES];

/// One past the bracket that closes the one at `start`.
pub(super) fn nested_end(text: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut scan = Scan { depth: 0, in_string: 0, escapes_next: false };
    let mut position = start;
    loop {
        let rest = text.get(position..).ok_or(Malformed)?;
        let end = match rest.split_first_chunk::<BLOCK_BYTES>() {
            Some((block, _)) => scan.closing_bracket(block),
            None if rest.is_empty() => return Err(Malformed),
            None => {
                let mut block = [b' '; BLOCK_BYTES];
                let (used, _) = block.split_at_mut(rest.len());
                used.copy_from_slice(rest);
                scan.closing_bracket(&block)
            }
        };
        if let Some(index) = end {
            return Ok(position + index + 1);
        }
        position += BLOCK_BYTES;
    }
}

/// What one block hands on to the next.
struct Scan {
    /// Brackets that are open.
    depth: u32,
    /// All ones inside a string, else zero.
    in_string: u64,
    /// The last byte was a backslash that escapes the first of the next block.
    escapes_next: bool,
}

impl Scan {
    /// The place of the bracket that closes the outermost one, where it is in this block.
    fn closing_bracket(&mut self, block: &Block) -> Option<usize> {
        // The braces differ from the square brackets in this bit alone.
        let folded = block.map(|byte| byte | 0x20);
        let quotes = bits_equal(block, b'"') & !self.escaped(bits_equal(block, b'\\'));
        let in_string = prefix_xor(quotes) ^ self.in_string;
        let opening = bits_equal(&folded, b'{') & !in_string;
        let closing = bits_equal(&folded, b'}') & !in_string;
        self.in_string = (in_string as i64 >> 63) as u64;
        if closing.count_ones() < self.depth {
            self.depth = self.depth + opening.count_ones() - closing.count_ones();
            return None;
        }
        self.count_brackets(opening, closing)
    }

    /// One bracket after the other, for the blocks in which the last one may be.
    fn count_brackets(&mut self, opening: u64, closing: u64) -> Option<usize> {
        let mut brackets = opening | closing;
        while brackets != 0 {
            let bracket = brackets & brackets.wrapping_neg();
            brackets ^= bracket;
            if opening & bracket != 0 {
                self.depth += 1;
            } else {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return Some(bracket.trailing_zeros() as usize);
                }
            }
        }
        None
    }

    /// The bytes that a backslash before them escapes.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        if backslashes == 0 && !self.escapes_next {
            return 0;
        }
        let mut escaped = u64::from(self.escapes_next);
        self.escapes_next = false;
        let mut rest = backslashes & !escaped;
        while rest != 0 {
            let backslash = rest & rest.wrapping_neg();
            self.escapes_next = backslash == 1 << 63;
            let next = backslash << 1;
            escaped |= next;
            rest &= !(backslash | next);
        }
        escaped
    }
}

/// Each bit is the xor of itself and all bits below it: set from an opening quote up to the byte
/// before its closing one.
fn prefix_xor(bits: u64) -> u64 {
    [1, 2, 4, 8, 16, 32].into_iter().fold(bits, |bits, shift| bits ^ bits << shift)
}

/// The bytes of the block that equal `byte`, eight at a time.
fn bits_equal(block: &Block, byte: u8) -> u64 {
    const LOW_BITS: u64 = u64::from_ne_bytes([0x7f; 8]);
    // Multiplied by it, the top bits of eight bytes end up side by side in the topmost byte.
    const GATHER: u64 = 0x0002_0408_1020_4081;
    let (words, _) = block.as_chunks::<8>();
    // No byte of the sum overflows; an overflow check per word would cost as much as the rest.
    words.iter().rev().fold(0, |bits, word| {
        let differing = u64::from_le_bytes(*word) ^ u64::from_ne_bytes([byte; 8]);
        let not_zero = (differing & LOW_BITS).wrapping_add(LOW_BITS) | differing;
        let equal = !not_zero & !LOW_BITS;
        bits << 8 | equal.wrapping_mul(GATHER) >> 56
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_block_that_equal_one_are_found() {
        let mut random = fastrand::Rng::with_seed(17);
        for _ in 0..5_000 {
            let block: Block = std::array::from_fn(|_| {
                random.choice(*b"\"\\{}[] a\x00\x80\xff\x7f\x21\xa2").unwrap_or(0)
            });
            for byte in *b"\"\\{}\x00\x80\xff" {
                let expected = (0..BLOCK_BYTES)
                    .fold(0, |bits, index| bits | u64::from(block[index] == byte) << index);
                assert_eq!(bits_equal(&block, byte), expected);
            }
        }
    }

    #[test]
    fn the_end_is_found_at_every_place_of_a_block() {
        for length in 0..200 {
            let filler = "x".repeat(length);
            for text in [
                format!("[\"{filler}\"]"),
                format!("{{\"{filler}\\\"]}}\\\\\":[[],{{}}]}}"),
                format!("[[\"{filler}\\\\\\\\\",\"\\\\\"],\"[\"]"),
            ] {
                let padded = format!("{text}]}},\"\\");
                assert_eq!(nested_end(padded.as_bytes(), 0), Ok(text.len()), "{text}");
                let unclosed = &text.as_bytes()[..text.len() - 1];
                assert_eq!(nested_end(unclosed, 0), Err(Malformed), "{text}");
            }
        }
    }
}
