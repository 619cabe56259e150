//! Memory for the texts that do not lie in a row's frame as they are needed.

use std::fmt::Write as _;

use crate::{
    change::{PgTimestamp, Transaction},
    event::{
        Reason,
        id::ID_BYTES,
        table::Step,
        timestamp::{self, INSTANT_BYTES},
    },
    lsn::CommitLsn,
    value::Written,
};

/// What is kept of the memory for keys between rows, in bytes: typical ones fit many times.
const KEY_BYTES_KEPT: usize = 64 << 10;

/// What is kept of the memory for what rules write, in bytes.
const DATA_BYTES_KEPT: usize = 1 << 20;

/// Reused by every row.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(super) id: [u8; ID_BYTES],
    pub(super) topic: String,
    pub(super) key: Vec<u8>,
    /// The events of the change at hand.
    pub(in crate::event) steps: Vec<Step>,
    /// What a rule writes as `data` of the event at hand.
    pub(super) data: Vec<u8>,
    /// In which forms it did.
    pub(in crate::event) written: Written,
    pub(super) of_transaction: OfTransaction,
}

/// What all events of a transaction share.
#[derive(Debug)]
pub(super) struct OfTransaction {
    /// Of which one. What was read is given a commit record's place without having one.
    of: Option<(CommitLsn, PgTimestamp)>,
    /// `tx-<commit LSN>`
    correlation_id: String,
    occurred_at: [u8; INSTANT_BYTES],
    has_instant: bool,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            id: [0; ID_BYTES],
            topic: String::new(),
            key: Vec::new(),
            steps: Vec::new(),
            data: Vec::new(),
            written: Written::AsDescribed,
            of_transaction: OfTransaction {
                of: None,
                correlation_id: String::new(),
                occurred_at: [0; INSTANT_BYTES],
                has_instant: false,
            },
        }
    }

    /// Another change comes.
    pub(super) fn begin(&mut self) {
        self.steps.clear();
    }

    /// Another event comes. One large key, or one large `data`, must not hold its room for ever.
    pub(super) fn shrink(&mut self) {
        self.written = Written::AsDescribed;
        self.data.clear();
        self.data.shrink_to(DATA_BYTES_KEPT);
        self.key.clear();
        self.key.shrink_to(KEY_BYTES_KEPT);
    }
}

impl OfTransaction {
    /// Makes what is said of that transaction; for the same one again it is there already.
    pub(super) fn enter(&mut self, transaction: &Transaction) {
        let of = Some((transaction.commit_lsn, transaction.committed_at));
        if self.of == of {
            return;
        }
        self.of = of;
        self.correlation_id.clear();
        // Writing to a String never fails.
        let _ = write!(self.correlation_id, "tx-{}", transaction.commit_lsn);
        let instant = timestamp::from_timestamp(transaction.committed_at, &mut self.occurred_at);
        self.has_instant = instant.is_some();
    }

    pub(super) fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    pub(super) fn occurred_at(&self) -> Result<&str, Reason> {
        let instant = std::str::from_utf8(&self.occurred_at);
        match (self.has_instant, instant) {
            (true, Ok(instant)) => Ok(instant),
            (false, _) | (_, Err(_)) => Err(Reason::CommitTimeOutOfRange),
        }
    }
}
