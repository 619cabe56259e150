//! What every error says of itself.
//!
//! Each module has its own error enum; all of them implement [`Failure`], so that the supervisor
//! decides between retrying and stopping in one place, and `main` prints code and hint alike.

use std::fmt;

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// It may succeed later: start over from the checkpoint after a pause.
    Retry,
    /// It never succeeds without somebody's doing.
    Stop,
}

macro_rules! codes {
    ($($(#[$documentation:meta])* $name:ident = $word:literal,)+) => {
        /// The word of an error, as `docs/errors.md` lists it. Part of the interface.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$documentation])* $name,)+
        }

        impl Code {
            /// Every word, in the order of `docs/errors.md`.
            pub const ALL: &'static [Code] = &[$(Code::$name,)+];

            /// The word itself, as in `code=slot_missing`.
            pub fn word(self) -> &'static str {
                match self {
                    $(Code::$name => $word,)+
                }
            }
        }
    };
}

codes! {
    /// The settings file has mistakes.
    Settings = "settings",
    /// A server did not answer in time.
    NotConnected = "not_connected",
    /// The server refused the role or its password.
    AuthFailed = "auth_failed",
    /// The connection cannot be encrypted as the settings ask for.
    TlsFailed = "tls_failed",
    /// The role may not replicate.
    NoReplicationRole = "no_replication_role",
    /// `wal_level` is not `logical`.
    WalLevel = "wal_level",
    /// All replication slots are in use.
    NoFreeSlot = "no_free_slot",
    /// The checkpoint's slot is gone.
    SlotMissing = "slot_missing",
    /// The server gave up the slot's WAL.
    SlotInvalidated = "slot_invalidated",
    /// The slot is not a pgoutput slot of this database.
    SlotWrongPlugin = "slot_wrong_plugin",
    /// The slot belongs to another source.
    ForeignSlot = "foreign_slot",
    /// There is a slot but no checkpoint.
    CheckpointMissing = "checkpoint_missing",
    /// The slot is ahead of the checkpoint.
    CheckpointBehindSlot = "checkpoint_behind_slot",
    /// The checkpoint is ahead of the server's WAL.
    CheckpointAhead = "checkpoint_ahead",
    /// The checkpoint topic could lose checkpoints.
    CheckpointTopicPolicy = "checkpoint_topic_policy",
    /// The checkpoint is not on the server's timeline history.
    TimelineDiverged = "timeline_diverged",
    /// Another transaction stands where the last published one stood.
    HistoryDiverged = "history_diverged",
    /// The source is known under another system, database or slot.
    IdentityChanged = "identity_changed",
    /// The publication does not exist.
    PublicationMissing = "publication_missing",
    /// A table was outside the publication for a while.
    PublicationGap = "publication_gap",
    /// Updates and deletes do not carry an old value that is asked for.
    ReplicaIdentity = "replica_identity",
    /// A configured column does not exist, or its type can never do.
    ColumnMissing = "column_missing",
    /// A topic does not exist and may not be made.
    TopicMissing = "topic_missing",
    /// The brokers do not allow what is needed.
    KafkaDenied = "kafka_denied",
    /// Another instance took over.
    Fenced = "fenced",
    /// Kafka gave up the same transaction twice.
    TransactionTooSlow = "transaction_too_slow",
    /// The partly published transaction came back changed.
    TransactionChanged = "transaction_changed",
    /// A row cannot be made an event.
    EventUnmappable = "event_unmappable",
    /// An event is larger than its topic allows.
    EventTooLarge = "event_too_large",
    /// A dead letter is larger than its topic allows.
    DeadLetterTooLarge = "dead_letter_too_large",
    /// What was there before the stream is not all published.
    SnapshotInterrupted = "snapshot_interrupted",
    /// A back-fill that was asked for is not begun, or did not come to its end.
    SnapshotRefused = "snapshot_refused",
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// An error that knows what to do about itself.
///
/// `Display` says what failed and why, without a full stop and without its source; the source
/// chain holds the rest.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// The word that `docs/errors.md` explains; `None` for what only ever is retried.
    fn code(&self) -> Option<Code>;

    /// Whether trying again can help. In doubt, for servers and networks: [`Recovery::Retry`].
    fn recovery(&self) -> Recovery;

    /// What to do, as full sentences, with the command or SQL that mends it.
    fn hint(&self) -> Option<String>;
}

impl<F: Failure> From<F> for Box<dyn Failure> {
    fn from(failure: F) -> Self {
        Box::new(failure)
    }
}
