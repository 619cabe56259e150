//! Begin … Commit: every change gets its transaction and its ordinal.
//!
//! A change outside a transaction cannot be expressed: [`Step::Change`] is made only between a Begin
//! and its Commit. Ordinals count what the slot delivers (insert, update, delete, a truncate
//! whatever its relations, a transactional message of any prefix), because that is what a restart
//! in the middle of a transaction can count again.

use super::pgoutput::Message;
use crate::{
    change::{Place, Relation, RelationId, RowChange, Transaction},
    failure::{Code, Failure, Recovery},
    lsn::{CommitLsn, EndLsn, Lsn},
};

/// The stream is out of order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// A change came outside a transaction.
    #[error("a change of kind {kind:?} came outside a transaction")]
    ChangeOutside {
        /// What it was.
        kind: ChangeKind,
    },
    /// A transaction began inside another.
    #[error("a transaction began at {inner} inside the one at {outer}")]
    Nested {
        /// The open one.
        outer: CommitLsn,
        /// The one that began.
        inner: CommitLsn,
    },
    /// A Commit without, or of another, Begin.
    #[error("a commit at {commit_lsn} came, but {open}")]
    Commit {
        /// The Commit's position.
        commit_lsn: CommitLsn,
        /// What is open instead.
        open: String,
    },
}

impl Failure for TransactionError {
    fn code(&self) -> Option<Code> {
        Some(Code::EventUnmappable)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(
            "Nothing was skipped. This is a defect of Tailwater or of the server: report it with \
             the server's version."
                .to_owned(),
        )
    }
}

/// What a change does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// A row was inserted.
    Insert,
    /// A row was updated.
    Update,
    /// A row was deleted.
    Delete,
    /// Tables were truncated.
    Truncate,
    /// A transactional message.
    Message,
}

/// A change, borrowing from its frame.
#[derive(Debug)]
pub enum Change<'a> {
    /// Of a row.
    Row {
        /// Its table.
        relation: RelationId,
        /// What happened to it.
        change: RowChange<'a>,
    },
    /// Tables were truncated.
    Truncate {
        /// Which ones, at least one.
        relations: &'a [RelationId],
    },
    /// A transactional message.
    Message {
        /// The prefix.
        prefix: &'a str,
        /// The content.
        content: &'a [u8],
        /// Where it stands in the log, as the message itself says.
        message_lsn: Option<Lsn>,
    },
}

impl Change<'_> {
    /// What it does.
    pub fn kind(&self) -> ChangeKind {
        match self {
            Self::Row { change: RowChange::Insert { .. }, .. } => ChangeKind::Insert,
            Self::Row { change: RowChange::Update { .. }, .. } => ChangeKind::Update,
            Self::Row { change: RowChange::Delete { .. }, .. } => ChangeKind::Delete,
            Self::Truncate { .. } => ChangeKind::Truncate,
            Self::Message { .. } => ChangeKind::Message,
        }
    }

    /// The table, or the first one truncated; none for a message.
    pub fn relation(&self) -> Option<RelationId> {
        match self {
            Self::Row { relation, .. } => Some(*relation),
            Self::Truncate { relations } => relations.first().copied(),
            Self::Message { .. } => None,
        }
    }
}

/// What a message means for the one who follows the stream.
#[derive(Debug)]
pub enum Step<'a> {
    /// A transaction begins.
    Begin(Transaction),
    /// A change of the open transaction.
    Change {
        /// Where it stands.
        place: Place,
        /// What it does.
        change: Change<'a>,
    },
    /// The open transaction ends.
    Commit {
        /// Where its commit record ends.
        end_lsn: EndLsn,
    },
    /// A table as the changes that follow know it.
    Relation(Relation),
    /// A message that stands outside every transaction: it is there even if the transaction that
    /// wrote it rolls back.
    NonTransactionalMessage {
        /// Its prefix.
        prefix: &'a str,
    },
    /// Nothing to act upon: Origin, Type.
    Nothing,
}

/// Where the stream stands.
#[derive(Clone, Copy, Debug)]
enum State {
    Outside,
    Inside { commit_lsn: CommitLsn, next: Place },
}

/// Follows one stream from its start.
#[derive(Debug)]
pub struct TransactionReader {
    state: State,
}

impl Default for TransactionReader {
    fn default() -> Self {
        Self::new()
    }
}

impl TransactionReader {
    /// A reader at the start of a stream: outside every transaction.
    pub fn new() -> Self {
        Self { state: State::Outside }
    }

    /// Takes the next message; `wal_start` is its XLogData's.
    ///
    /// # Errors
    /// Where the message cannot come here.
    pub fn accept<'a>(
        &mut self,
        wal_start: Option<Lsn>,
        message: Message<'a>,
    ) -> Result<Step<'a>, TransactionError> {
        let change = match message {
            Message::Insert { relation, new } => {
                Change::Row { relation, change: RowChange::Insert { new } }
            }
            Message::Update { relation, old, new } => {
                Change::Row { relation, change: RowChange::Update { old, new } }
            }
            Message::Delete { relation, old } => {
                Change::Row { relation, change: RowChange::Delete { old } }
            }
            Message::Truncate { relations, .. } => Change::Truncate { relations },
            Message::Message { transactional: true, prefix, content, lsn: message_lsn } => {
                Change::Message { prefix, content, message_lsn }
            }
            Message::Message { transactional: false, prefix, .. } => {
                return Ok(Step::NonTransactionalMessage { prefix });
            }
            Message::Begin(transaction) => return self.begin(transaction),
            Message::Commit { commit_lsn, end_lsn, .. } => return self.commit(commit_lsn, end_lsn),
            Message::Relation(relation) => return Ok(Step::Relation(relation)),
            Message::Origin | Message::Type { .. } => return Ok(Step::Nothing),
        };
        let State::Inside { next, .. } = &mut self.state else {
            return Err(TransactionError::ChangeOutside { kind: change.kind() });
        };
        let ordinal_at_lsn = if next.lsn == wal_start { next.ordinal_at_lsn } else { 0 };
        let place = Place { lsn: wal_start, ordinal_at_lsn, ..*next };
        *next =
            Place { ordinal: place.ordinal + 1, ordinal_at_lsn: place.ordinal_at_lsn + 1, ..place };
        Ok(Step::Change { place, change })
    }

    fn begin<'a>(&mut self, transaction: Transaction) -> Result<Step<'a>, TransactionError> {
        if let State::Inside { commit_lsn: outer, .. } = self.state {
            return Err(TransactionError::Nested { outer, inner: transaction.commit_lsn });
        }
        let next = Place { ordinal: 0, lsn: None, ordinal_at_lsn: 0 };
        self.state = State::Inside { commit_lsn: transaction.commit_lsn, next };
        Ok(Step::Begin(transaction))
    }

    fn commit<'a>(
        &mut self,
        commit_lsn: CommitLsn,
        end_lsn: EndLsn,
    ) -> Result<Step<'a>, TransactionError> {
        match self.state {
            State::Inside { commit_lsn: open, .. } if open == commit_lsn => {
                self.state = State::Outside;
                Ok(Step::Commit { end_lsn })
            }
            State::Inside { commit_lsn: open, .. } => {
                let open = format!("the open transaction is the one at {open}");
                Err(TransactionError::Commit { commit_lsn, open })
            }
            State::Outside => {
                let open = "no transaction is open".to_owned();
                Err(TransactionError::Commit { commit_lsn, open })
            }
        }
    }
}

/// A running hash over the changes of a transaction: 64-bit FNV-1a, word by word, over (LSN, kind,
/// relation OID), each word folded with a multiplication. It is kept in the checkpoint, so the
/// recipe is fixed: `h = (h XOR word) * 0x100000001b3`, then `h = h XOR (h >> 29)`, beginning with
/// 0xcbf29ce484222325; words are the LSN (0 where there is none), then kind * 2^32 + OID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangeDigest(u64);

impl Default for ChangeDigest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl ChangeDigest {
    /// Takes one change in.
    pub fn add(&mut self, lsn: Option<Lsn>, kind: ChangeKind, relation: Option<RelationId>) {
        let number: u64 = match kind {
            ChangeKind::Insert => 1,
            ChangeKind::Update => 2,
            ChangeKind::Delete => 3,
            ChangeKind::Truncate => 4,
            ChangeKind::Message => 5,
        };
        self.fold(lsn.map_or(0, Lsn::to_wire));
        self.fold(number << 32 | u64::from(relation.map_or(0, |relation| relation.0)));
    }

    fn fold(&mut self, word: u64) {
        let folded = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3);
        self.0 = folded ^ (folded >> 29);
    }

    /// The hash so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{PgTimestamp, Xid};

    fn lsn(position: u64) -> Lsn {
        Lsn::from_wire(position).expect("a position")
    }

    fn begin(position: u64) -> Message<'static> {
        Message::Begin(Transaction {
            commit_lsn: CommitLsn(lsn(position)),
            xid: Xid(7),
            committed_at: PgTimestamp(0),
        })
    }

    fn commit(position: u64) -> Message<'static> {
        Message::Commit {
            commit_lsn: CommitLsn(lsn(position)),
            end_lsn: EndLsn(lsn(position + 48)),
            committed_at: PgTimestamp(0),
        }
    }

    fn truncate(relations: usize) -> Message<'static> {
        const RELATIONS: [RelationId; 3] = [RelationId(1), RelationId(2), RelationId(3)];
        let relations = &RELATIONS[..relations];
        Message::Truncate { relations, cascade: false, restart_identity: false }
    }

    fn emitted(transactional: bool) -> Message<'static> {
        let lsn = Some(lsn(90));
        Message::Message { transactional, lsn, prefix: "outbox", content: b"{}" }
    }

    #[test]
    fn changes_count_from_zero_in_each_transaction() {
        let mut reader = TransactionReader::new();
        for position in [100, 200] {
            assert!(matches!(reader.accept(None, begin(position)), Ok(Step::Begin(_))));
            // A truncate is one change whatever its relations; a message of any prefix is one.
            for (expected, message) in [(0, truncate(3)), (1, emitted(true)), (2, truncate(1))] {
                let Ok(Step::Change { place, .. }) = reader.accept(Some(lsn(90)), message) else {
                    panic!("a change")
                };
                let lsn = Some(lsn(90));
                assert_eq!(place, Place { ordinal: expected, lsn, ordinal_at_lsn: expected });
            }
            assert!(matches!(reader.accept(None, commit(position)), Ok(Step::Commit { .. })));
        }
    }

    #[test]
    fn changes_of_one_place_in_the_log_are_told_apart() {
        let mut reader = TransactionReader::new();
        reader.accept(None, begin(100)).expect("begun");
        let ordinals = [90, 90, 91, 92, 92, 92].map(|position| {
            match reader.accept(Some(lsn(position)), truncate(1)) {
                Ok(Step::Change { place, .. }) => place.ordinal_at_lsn,
                other => panic!("a change, not {other:?}"),
            }
        });
        assert_eq!(ordinals, [0, 1, 0, 0, 1, 2]);
    }

    #[test]
    fn a_message_outside_of_transactions_is_no_change() {
        let mut reader = TransactionReader::new();
        let step = reader.accept(None, emitted(false));
        assert!(matches!(step, Ok(Step::NonTransactionalMessage { prefix: "outbox" })));
        reader.accept(None, begin(100)).expect("begun");
        let step = reader.accept(None, emitted(false));
        assert!(matches!(step, Ok(Step::NonTransactionalMessage { prefix: "outbox" })));
        let Ok(Step::Change { place, .. }) = reader.accept(None, truncate(1)) else {
            panic!("a change")
        };
        assert_eq!(place.ordinal, 0);
    }

    #[test]
    fn what_cannot_come_here_is_refused() {
        let mut reader = TransactionReader::new();
        assert!(reader.accept(None, truncate(1)).is_err());
        assert!(reader.accept(None, commit(100)).is_err());
        let mut reader = TransactionReader::new();
        reader.accept(None, begin(100)).expect("begun");
        assert!(reader.accept(None, begin(200)).is_err());
        let mut reader = TransactionReader::new();
        reader.accept(None, begin(100)).expect("begun");
        assert!(reader.accept(None, commit(101)).is_err());
    }

    #[test]
    fn a_digest_tells_order_kind_table_and_place_apart() {
        let digest = |changes: &[(Option<Lsn>, ChangeKind, Option<RelationId>)]| {
            let mut digest = ChangeDigest::default();
            changes.iter().for_each(|(lsn, kind, relation)| digest.add(*lsn, *kind, *relation));
            digest.value()
        };
        let insert = (Some(lsn(90)), ChangeKind::Insert, Some(RelationId(1)));
        let message = (Some(lsn(95)), ChangeKind::Message, None);
        let original = digest(&[insert, message]);
        for others in [
            vec![message, insert],
            vec![insert],
            vec![insert, message, message],
            vec![(Some(lsn(91)), insert.1, insert.2), message],
            vec![(insert.0, ChangeKind::Update, insert.2), message],
            vec![(insert.0, insert.1, Some(RelationId(2))), message],
        ] {
            assert_ne!(digest(&others), original, "{others:?}");
        }
        assert_eq!(digest(&[insert, message]), original);
    }
}
