//! What a record tells of, by its headers.

use std::fmt;

use crate::lsn::{CommitLsn, Lsn};

/// What a record tells of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A change, in the transaction whose commit record begins there.
    Transaction(CommitLsn),
    /// A row that was there before.
    Row {
        /// At which position it was read.
        read_lsn: Lsn,
        /// Its `correlation-id`, which is the request that a domain table's row is read for.
        request: Option<String>,
    },
}

impl Subject {
    /// Of a record with these headers, by name and value, each name once; None of what is neither an
    /// event nor a dead letter. What has no `pg-seq` is of no transaction.
    pub fn of<'h>(headers: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Option<Self> {
        let (mut position, mut is_change, mut request) = (None, false, None);
        for (name, value) in headers {
            let text = || std::str::from_utf8(value).ok();
            match name {
                b"pg-lsn" => position = text().and_then(|text| text.parse().ok()),
                b"pg-seq" => is_change = true,
                b"correlation-id" => request = text().map(str::to_owned),
                _ => {}
            }
        }
        let position: Lsn = position?;
        Some(match is_change {
            true => Self::Transaction(CommitLsn(position)),
            false => Self::Row { read_lsn: position, request },
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction(commit_lsn) => write!(formatter, "the transaction at {commit_lsn}"),
            Self::Row { read_lsn, request: Some(request) } => {
                write!(formatter, "the rows of request {request}, read at {read_lsn}")
            }
            Self::Row { read_lsn, request: None } => {
                write!(formatter, "the rows read at {read_lsn}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)]) -> Option<Subject> {
        Subject::of(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    #[test]
    fn a_change_has_a_place_in_its_transaction_and_a_row_that_was_there_has_none() {
        let read_lsn: Lsn = "0/1F".parse().expect("a position");
        let change = [("correlation-id", "c"), ("pg-lsn", "0/1F"), ("pg-seq", "0")];
        let told =
            |headers: &[(&str, &str)]| of(headers).map(|subject| (subject.to_string(), subject));
        let of_change = Subject::Transaction(CommitLsn(read_lsn));
        assert_eq!(told(&change), Some(("the transaction at 0/1F".to_owned(), of_change)));
        let row = Subject::Row { read_lsn, request: Some("c".to_owned()) };
        let words = "the rows of request c, read at 0/1F".to_owned();
        assert_eq!(told(&change[..2]), Some((words, row)));
        let row = Subject::Row { read_lsn, request: None };
        assert_eq!(told(&change[1..2]), Some(("the rows read at 0/1F".to_owned(), row)));
        assert_eq!(told(&change[..1]), None);
        assert_eq!(told(&[("pg-lsn", "x")]), None);
    }
}
