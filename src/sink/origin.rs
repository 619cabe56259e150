//! What a record tells, by its headers.

use std::fmt;

use crate::lsn::CommitLsn;

/// What a record tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A change, or what took its place, in the transaction whose commit record begins there.
    Transaction(CommitLsn),
    /// A row that was there before.
    Row {
        /// At which position it was read.
        read_at: CommitLsn,
        /// Its `correlation-id`: of a domain table's row the request that it is read for. None of what
        /// took its place and has none.
        correlation_id: Option<String>,
    },
}

impl Origin {
    /// Of a record with these headers, by name and value; None where it is no event.
    pub fn of<'h>(headers: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Option<Self> {
        let (mut position, mut is_change, mut correlation_id) = (None, false, None);
        for (name, value) in headers {
            let text = || std::str::from_utf8(value).ok();
            // Those of ours come first, and a further one of the same name is somebody else's.
            match name {
                b"pg-lsn" if position.is_none() => position = text()?.parse().ok(),
                b"pg-seq" => is_change = true,
                b"correlation-id" if correlation_id.is_none() => {
                    correlation_id = text().map(str::to_owned);
                }
                _ => {}
            }
        }
        let position = CommitLsn(position?);
        Some(match is_change {
            true => Self::Transaction(position),
            false => Self::Row { read_at: position, correlation_id },
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction(commit_lsn) => {
                write!(formatter, "of the transaction at {commit_lsn}")
            }
            Self::Row { read_at, .. } => write!(formatter, "of a row read at {read_at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)]) -> Option<Origin> {
        Origin::of(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    #[test]
    fn a_change_has_a_place_in_its_transaction_and_a_row_that_was_there_has_none() {
        let lsn = CommitLsn("0/1F".parse().expect("a position"));
        let change = [("correlation-id", "c"), ("pg-lsn", "0/1F"), ("pg-seq", "0")];
        assert_eq!(of(&change), Some(Origin::Transaction(lsn)));
        let row = |correlation_id| Some(Origin::Row { read_at: lsn, correlation_id });
        assert_eq!(of(&change[..2]), row(Some("c".to_owned())));
        assert_eq!(of(&change[1..2]), row(None));
        assert_eq!(of(&change[..1]), None);
    }
}
