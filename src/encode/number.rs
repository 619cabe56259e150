//! Numbers as text, without the formatting machinery.

use crate::lsn::CommitLsn;

/// The digits of `u64::MAX`.
const DECIMAL_BYTES_MAX: usize = 20;

/// Two halves of eight hexadecimal digits and a slash.
const LSN_BYTES_MAX: usize = 17;

/// A short text in its own memory.
#[derive(Clone, Copy)]
pub(super) struct Digits<const N: usize> {
    bytes: [u8; N],
    start: usize,
}

impl<const N: usize> Digits<N> {
    fn new() -> Self {
        Self { bytes: [0; N], start: N }
    }

    fn push_front(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).expect("a text starts within its memory")
    }
}

/// The number in decimal.
pub(super) fn decimal(mut value: u64) -> Digits<DECIMAL_BYTES_MAX> {
    let mut digits = Digits::new();
    loop {
        digits.push_front(b'0' + (value % 10) as u8);
        value /= 10;
        if value == 0 {
            return digits;
        }
    }
}

/// The position as PostgreSQL writes it (`%X/%X`).
pub(super) fn position(commit_lsn: CommitLsn) -> Digits<LSN_BYTES_MAX> {
    let position = commit_lsn.lsn().to_wire();
    let mut digits = Digits::new();
    push_hexadecimal(&mut digits, position & 0xFFFF_FFFF);
    digits.push_front(b'/');
    push_hexadecimal(&mut digits, position >> 32);
    digits
}

fn push_hexadecimal(digits: &mut Digits<LSN_BYTES_MAX>, mut value: u64) {
    loop {
        let digit = (value & 0xF) as u8;
        digits.push_front(if digit < 10 { b'0' + digit } else { b'A' + digit - 10 });
        value >>= 4;
        if value == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    #[test]
    fn numbers_read_as_the_formatting_machinery_writes_them() {
        let mut random = fastrand::Rng::with_seed(3);
        let edges = [1, 9, 10, 99, 0xFFFF_FFFF, 1 << 32, u64::MAX];
        let some = std::iter::repeat_with(|| random.u64(1..) >> random.u32(0..64)).take(10_000);
        for value in edges.into_iter().chain(some) {
            assert_eq!(decimal(value).as_bytes(), value.to_string().as_bytes());
            let Some(lsn) = Lsn::from_wire(value) else { continue };
            assert_eq!(position(CommitLsn(lsn)).as_bytes(), lsn.to_string().as_bytes());
        }
        assert_eq!(decimal(0).as_bytes(), b"0");
    }
}
