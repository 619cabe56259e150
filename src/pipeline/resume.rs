//! Where publishing goes on after a start.
//!
//! The slot re-sends everything above `confirmed_flush`, which lies at or below the checkpoint. A
//! transaction is published already if and only if its commit record begins *below* the
//! checkpoint's `commit_end_lsn`: the next commit record may begin exactly there. Of the
//! transaction that was published in part, the first changes are skipped, and their digest must be
//! the one that was kept.
//!
//! What is skipped must be what was published. A transaction that stands where `last` stood but is
//! another one, or one that stands between `last` and the checkpoint's end, or between that and the
//! transaction in progress, where none came by, is of another history: a restored backup whose log
//! grew anew, or a failover that lost the end of the log. So is one behind the checkpoint, a keepalive
//! from there, or a commit record that ends behind where that of `last` begins, before `last` itself
//! came by, where the slot's position says that it must: what was skipped until then was not what is
//! published. The transaction in progress must come in any case, because it ends above everything that
//! the slot may forget.
//!
//! What `reset --to-now` gave up is skipped without having been seen: the checkpoint says so for as
//! long as it has no `last`, so that the reset is done with its one record, wherever the slot
//! stands.
//!
//! Another publication than the checkpoint's sends other transactions of the same history: then
//! `last` need not come, and what comes below the checkpoint need not have come before.

use crate::{
    change::Transaction,
    checkpoint::{CheckpointRecord, Fingerprint, InProgress, LastTransaction},
    failure::{Code, Failure, Recovery},
    lsn::{CommitLsn, EndLsn, Lsn},
};

/// What happens to a transaction of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// It is published already: read for its relations only.
    Skip,
    /// None of it is out.
    Publish,
    /// A part of it is out.
    GoOn(InProgress),
}

/// The server's history is not the one that was published.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Another transaction stands where a published one stood.
    #[error(
        "transaction {xid} at {commit_lsn} is not of the history that was published: the \
         checkpoint ends with {expected}"
    )]
    Diverged {
        /// Where the other transaction's commit record begins.
        commit_lsn: CommitLsn,
        /// Its identifier.
        xid: u32,
        /// The last that was published, in words.
        expected: String,
    },
    /// A published transaction did not come again.
    #[error(
        "the checkpoint ends with {expected}, which the slot should send again, but the stream is \
         at {position} without it"
    )]
    Vanished {
        /// The last published transaction, in words.
        expected: String,
        /// How far the stream is.
        position: Lsn,
    },
    /// The transaction that was published in part does not come again as it was.
    #[error(
        "the transaction at {commit_lsn}, of which {changes} changes are published, came again \
         changed: {what}"
    )]
    TransactionChanged {
        /// Where its commit record begins.
        commit_lsn: CommitLsn,
        /// How many of its changes are out.
        changes: u64,
        /// What differs.
        what: &'static str,
    },
}

impl Failure for HistoryError {
    fn code(&self) -> Option<Code> {
        Some(match self {
            Self::Diverged { .. } | Self::Vanished { .. } => Code::HistoryDiverged,
            Self::TransactionChanged { .. } => Code::TransactionChanged,
        })
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Diverged { .. } | Self::Vanished { .. } => {
                "The database was restored or replaced: what it holds below the checkpoint is not \
                 what consumers have seen. Compare both, then run tailwater reset --to-slot, which \
                 publishes what the database has from the slot's position on, or tailwater reset \
                 --to-now, which goes on with what is committed from now on."
            }
            Self::TransactionChanged { .. } => {
                "Nothing of the rest was published. The publication or the database was changed \
                 under a transaction in the middle of being published. Compare the table with the \
                 topic, then run tailwater reset --replay-transaction, which publishes the \
                 transaction from its first change as it is now, and doubles what is out of it."
            }
        }
        .to_owned())
    }
}

/// The checkpoint, until the stream has passed it.
#[derive(Debug)]
pub(super) struct Resume {
    commit_end_lsn: EndLsn,
    last: Option<LastTransaction>,
    /// Not yet come by.
    in_progress: Option<InProgress>,
    /// `last` must come by before anything that is published, and did not yet.
    is_last_due: bool,
    /// The publication is the checkpoint's: it sends what it sent.
    is_same_publication: bool,
    /// What comes below the checkpoint was given up, without having been seen.
    is_given_up: bool,
}

impl Resume {
    /// Goes on from `checkpoint` with `publication`. The slot begins to send at `confirmed_flush`:
    /// a transaction whose commit record begins there or later is sent again.
    pub(super) fn new(
        checkpoint: &CheckpointRecord,
        confirmed_flush: Option<Lsn>,
        publication: &Fingerprint,
    ) -> Self {
        let is_same_publication = checkpoint.publication.oid == publication.oid;
        let is_resent = |last: LastTransaction| {
            confirmed_flush.is_some_and(|position| last.commit_lsn.lsn() >= position)
        };
        Self {
            commit_end_lsn: checkpoint.commit_end_lsn,
            last: checkpoint.last,
            in_progress: checkpoint.in_progress,
            is_last_due: is_same_publication && checkpoint.last.is_some_and(is_resent),
            is_same_publication,
            is_given_up: checkpoint.given_up_from.is_some(),
        }
    }

    /// The last transaction, as the next checkpoint may hold it. One that this publication does not
    /// send must not be waited for by the next start.
    pub(super) fn last_of_publication(&self) -> Option<LastTransaction> {
        self.last.filter(|_| self.is_same_publication)
    }

    /// Everything that was committed below `position` came by.
    ///
    /// # Errors
    /// Where `last`, or the transaction in progress, should have been among it.
    pub(super) fn observe_passed(&self, position: Lsn) -> Result<(), HistoryError> {
        if let Some(last) = self.last.filter(|_| self.is_last_due)
            && position > last.commit_lsn.lsn()
        {
            return Err(HistoryError::Vanished { expected: describe(last), position });
        }
        match self.in_progress {
            Some(part) if position > part.commit_lsn.lsn() => {
                Err(changed(part, "the stream passed its place without it"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Decides over a transaction at its Begin.
    ///
    /// # Errors
    /// Where the stream is not the history that the checkpoint was written for.
    pub(super) fn admit(&mut self, transaction: &Transaction) -> Result<Admission, HistoryError> {
        if transaction.commit_lsn.lsn() < self.commit_end_lsn.lsn() {
            return self.skip(transaction);
        }
        self.observe_passed(transaction.commit_lsn.lsn())?;
        match self.in_progress {
            None => Ok(Admission::Publish),
            Some(part) if transaction.commit_lsn == part.commit_lsn => {
                self.in_progress = None;
                Ok(Admission::GoOn(part))
            }
            Some(_) if self.is_same_publication => Err(self.diverged(transaction)),
            Some(part) => Err(changed(part, "another transaction came first")),
        }
    }

    fn skip(&mut self, transaction: &Transaction) -> Result<Admission, HistoryError> {
        let is_known = match self.last {
            Some(last) if transaction.commit_lsn == last.commit_lsn => {
                self.is_last_due = false;
                transaction.xid == last.xid && transaction.committed_at.0 == last.commit_time
            }
            Some(last) if transaction.commit_lsn < last.commit_lsn => true,
            Some(_) => !self.is_same_publication,
            None => self.is_given_up || !self.is_same_publication,
        };
        if is_known { Ok(Admission::Skip) } else { Err(self.diverged(transaction)) }
    }

    fn diverged(&self, transaction: &Transaction) -> HistoryError {
        let expected = match (self.in_progress, self.last) {
            (Some(part), _) => format!("a part of the transaction at {}", part.commit_lsn),
            (None, Some(last)) => describe(last),
            (None, None) => "no transaction".to_owned(),
        };
        let xid = transaction.xid.0;
        HistoryError::Diverged { commit_lsn: transaction.commit_lsn, xid, expected }
    }
}

fn changed(part: InProgress, what: &'static str) -> HistoryError {
    let InProgress { commit_lsn, changes, .. } = part;
    HistoryError::TransactionChanged { commit_lsn, changes, what }
}

fn describe(last: LastTransaction) -> String {
    format!("transaction {} at {}", last.xid, last.commit_lsn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::{PgTimestamp, Xid},
        lsn::Lsn,
    };

    fn commit(position: u64) -> CommitLsn {
        CommitLsn(Lsn::from_wire(position).expect("a position"))
    }

    fn transaction(position: u64, xid: u32) -> Transaction {
        Transaction { commit_lsn: commit(position), xid: Xid(xid), committed_at: PgTimestamp(7) }
    }

    fn last(position: u64, xid: u32) -> LastTransaction {
        LastTransaction { commit_lsn: commit(position), xid: Xid(xid), commit_time: 7 }
    }

    fn resume(end: u64, last: Option<LastTransaction>, part: Option<InProgress>) -> Resume {
        let commit_end_lsn = EndLsn(commit(end).lsn());
        Resume {
            commit_end_lsn,
            last,
            in_progress: part,
            is_last_due: false,
            is_same_publication: true,
            is_given_up: false,
        }
    }

    fn part() -> InProgress {
        InProgress { commit_lsn: commit(300), changes: 5, events: 4, digest: 6 }
    }

    #[test]
    fn a_last_transaction_that_is_due_and_does_not_come_again_is_another_history() {
        let due = || Resume { is_last_due: true, ..resume(200, Some(last(150, 1)), None) };
        assert_eq!(due().admit(&transaction(120, 7)).expect("earlier"), Admission::Skip);
        let error = due().admit(&transaction(200, 2)).expect_err("the last one is missing");
        assert_eq!(error.code(), Some(Code::HistoryDiverged));
        assert!(due().observe_passed(commit(150).lsn()).is_ok());
        assert!(due().observe_passed(commit(151).lsn()).is_err());
        let mut known = due();
        assert_eq!(known.admit(&transaction(150, 1)).expect("known"), Admission::Skip);
        assert_eq!(known.admit(&transaction(200, 2)).expect("next"), Admission::Publish);
        assert!(known.observe_passed(commit(300).lsn()).is_ok());
    }

    #[test]
    fn a_commit_record_that_begins_at_the_checkpoint_is_published() {
        let mut resume = resume(200, Some(last(150, 1)), None);
        assert_eq!(resume.admit(&transaction(150, 1)).expect("known"), Admission::Skip);
        assert_eq!(resume.admit(&transaction(200, 2)).expect("next"), Admission::Publish);
    }

    #[test]
    fn another_transaction_in_the_place_of_the_last_is_another_history() {
        let mut resume = resume(200, Some(last(150, 1)), None);
        let error = resume.admit(&transaction(150, 9)).expect_err("another xid");
        assert_eq!(error.code(), Some(Code::HistoryDiverged));
        assert_eq!(error.recovery(), Recovery::Stop);
        assert_eq!(
            error.to_string(),
            "transaction 9 at 0/96 is not of the history that was published: the checkpoint ends \
             with transaction 1 at 0/96"
        );
    }

    #[test]
    fn a_transaction_between_the_last_and_the_checkpoint_is_another_history() {
        let mut resume = resume(200, Some(last(150, 1)), None);
        assert!(resume.admit(&transaction(180, 2)).is_err());
    }

    #[test]
    fn the_transaction_in_progress_goes_on_and_those_before_are_skipped() {
        let mut resume = resume(200, Some(last(150, 1)), Some(part()));
        assert_eq!(resume.admit(&transaction(150, 1)).expect("known"), Admission::Skip);
        assert_eq!(resume.admit(&transaction(300, 2)).expect("part"), Admission::GoOn(part()));
        assert_eq!(resume.admit(&transaction(400, 3)).expect("next"), Admission::Publish);
    }

    #[test]
    fn a_transaction_in_progress_that_does_not_come_again_stops() {
        let mut resume = resume(200, None, Some(part()));
        assert!(resume.observe_passed(commit(300).lsn()).is_ok());
        let by_keepalive = resume.observe_passed(commit(301).lsn()).expect_err("passed over");
        let error = resume.admit(&transaction(400, 3)).expect_err("passed over");
        assert_eq!(error.code(), Some(Code::TransactionChanged));
        assert_eq!(by_keepalive.code(), Some(Code::TransactionChanged));
    }

    #[test]
    fn a_transaction_between_the_checkpoint_and_the_one_in_progress_is_another_history() {
        for last in [None, Some(last(150, 1))] {
            let mut resume = resume(200, last, Some(part()));
            let error = resume.admit(&transaction(200, 2)).expect_err("none was there");
            assert_eq!(error.code(), Some(Code::HistoryDiverged));
        }
    }

    #[test]
    fn a_transaction_below_a_checkpoint_without_a_last_one_is_another_history() {
        let error =
            resume(200, None, None).admit(&transaction(150, 2)).expect_err("none was there");
        assert_eq!(
            error.to_string(),
            "transaction 2 at 0/96 is not of the history that was published: the checkpoint ends \
             with no transaction"
        );
    }

    #[test]
    fn what_was_given_up_is_skipped_and_nothing_else_is() {
        let mut checkpoint = CheckpointRecord::of_first_start(EndLsn(commit(200).lsn()));
        let resume = |checkpoint: &CheckpointRecord| {
            Resume::new(checkpoint, Some(commit(100).lsn()), &checkpoint.publication)
        };
        assert!(resume(&checkpoint).admit(&transaction(120, 7)).is_err(), "not given up");
        checkpoint.given_up_from = Some(commit(100).lsn());
        assert_eq!(resume(&checkpoint).admit(&transaction(199, 7)).expect("up"), Admission::Skip);
        assert_eq!(
            resume(&checkpoint).admit(&transaction(200, 8)).expect("on"),
            Admission::Publish
        );
    }

    #[test]
    fn another_publication_may_send_others_below_the_checkpoint() {
        let mut checkpoint = CheckpointRecord::of_first_start(EndLsn(commit(200).lsn()));
        checkpoint.last = Some(last(150, 1));
        let mut publication = checkpoint.publication.clone();
        publication.oid.0 += 1;
        let resume = || Resume::new(&checkpoint, Some(commit(100).lsn()), &publication);
        assert_eq!(resume().admit(&transaction(120, 7)).expect("earlier"), Admission::Skip);
        assert_eq!(resume().admit(&transaction(180, 2)).expect("another's"), Admission::Skip);
        assert_eq!(resume().admit(&transaction(200, 3)).expect("next"), Admission::Publish);
        assert!(resume().observe_passed(commit(200).lsn()).is_ok());
        assert!(resume().admit(&transaction(150, 9)).is_err(), "another one in its place");
        // What this publication does not send is not waited for by the next start.
        assert_eq!(resume().last_of_publication(), None);
    }
}
