//! Positions in the write-ahead log.
//!
//! A position never is a bare integer past the wire, and `0/0` is no position: what the server
//! sends as 0 becomes `None` at the edge ([`Lsn::from_wire`]). The begin of a commit record and
//! its end are two types, because a resumption that mixes them up loses or doubles a transaction.

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte position in the write-ahead log (C name `XLogRecPtr`), never `0/0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(NonZeroU64);

impl Lsn {
    /// `None` for 0 (C name `InvalidXLogRecPtr`).
    pub fn from_wire(position: u64) -> Option<Self> {
        NonZeroU64::new(position).map(Self)
    }

    /// The position as the protocol sends it: bytes since the start of the log.
    pub fn to_wire(self) -> u64 {
        self.0.get()
    }

    /// Bytes from `earlier` to here; 0 where `earlier` is the later one.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0.get() >> 32, self.0.get() & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A text is not an LSN of the form `16/B374D848`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a WAL position like 16/B374D848")]
pub struct LsnParseError {
    /// The text as it was given.
    pub text: String,
}

impl FromStr for Lsn {
    type Err = LsnParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            let valid = (1..=8).contains(&digits.len())
                && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            valid.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some((half(high)?, half(low)?)))
            .and_then(|(high, low)| Self::from_wire(u64::from(high) << 32 | u64::from(low)))
            .ok_or_else(|| LsnParseError { text: text.to_owned() })
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! position {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Lsn);

        impl $name {
            /// The position itself.
            pub fn lsn(self) -> Lsn {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }
    };
}

position! {
    /// Where a transaction's commit record begins (`final_lsn` of Begin, `commit_lsn` of Commit).
    CommitLsn
}

position! {
    /// Where a transaction's commit record ends (`end_lsn` of Commit), or another position below
    /// which every transaction is known. The next commit record may begin exactly here.
    EndLsn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let lsn: Lsn = "16/B374D848".parse().expect("a position");
        assert_eq!(lsn.to_wire(), 0x16_B374_D848);
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!(serde_json::to_string(&lsn).expect("JSON"), "\"16/B374D848\"");
    }

    #[test]
    fn zero_is_no_position() {
        assert_eq!(Lsn::from_wire(0), None);
        assert!("0/0".parse::<Lsn>().is_err());
    }

    #[test]
    fn malformed_text_is_refused() {
        for text in ["", "/", "1", "1/", "/1", "+1/1", "1/123456789", "1/2/3", "g/1", " 1/1"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn distance_never_wraps() {
        let (low, high): (Lsn, Lsn) = ("0/10".parse().expect("low"), "0/30".parse().expect("high"));
        assert_eq!(high.bytes_since(low), 0x20);
        assert_eq!(low.bytes_since(high), 0);
    }
}
