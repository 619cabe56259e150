//! What a start refuses, and why: each of these would lose events or double them if it went on.

use std::fmt;

use super::{
    descendants::{difference, identity_sql, leaf_sql, namelessness},
    settings::Settings,
    tables::kind_of,
};
use crate::{
    checkpoint::CheckpointRecord,
    failure::{Code, Failure, Recovery},
    lsn::{CommitLsn, EndLsn, Lsn},
    postgres::{
        PublicationName, SlotName, TableName,
        identity::{DifferingLeaf, Nameless},
        publication::{self, Absence},
        slot::Holder,
    },
};

/// Why publishing does not start, or does not go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// `wal_level` is below logical.
    #[error("wal_level is \"{wal_level}\", logical replication needs \"logical\"")]
    WalLevel {
        /// The server's setting.
        wal_level: String,
    },
    /// The role may not replicate.
    #[error("role \"{role}\" may not replicate")]
    NoReplicationRole {
        /// The role.
        role: String,
    },
    /// The server is a standby.
    #[error("the server at {host} is a standby (pg_is_in_recovery)")]
    InRecovery {
        /// Where it is.
        host: String,
    },
    /// Another instance holds the slot.
    #[error("replication slot \"{slot}\" is in use by process {pid}")]
    SlotBusy {
        /// The slot.
        slot: SlotName,
        /// The walsender's process, 0 where the server does not say.
        pid: i32,
    },
    /// Somebody holds the slot that is to be reset or adopted.
    #[error(
        "replication slot \"{slot}\" is in use by process {} ({}{}), since {}",
        holder.pid,
        holder.application,
        from(holder),
        holder.since
    )]
    SlotHeld {
        /// The slot.
        slot: SlotName,
        /// Who it is.
        holder: Box<Holder>,
    },
    /// There is nothing that could be reset or adopted.
    #[error("replication slot \"{slot}\" does not exist, and neither does a checkpoint of it")]
    NoSlot {
        /// The slot.
        slot: SlotName,
    },
    /// A first start was interrupted, and there is no checkpoint yet.
    #[error("replication slot \"{slot}\" has no checkpoint yet: its first start was interrupted")]
    FirstStartUnfinished {
        /// The slot.
        slot: SlotName,
    },
    /// Rows that waited for a poller are not all published.
    #[error("taking over table {table} for replication slot \"{slot}\" is not finished")]
    TakeOverUnfinished {
        /// The slot.
        slot: SlotName,
        /// `schema.table`.
        table: String,
    },
    /// Some rows of a table without a key are out, and nobody can tell which.
    #[error(
        "publishing the rows of table {table}, which has no key, was interrupted after {rows} of them"
    )]
    SnapshotInterrupted {
        /// `schema.table`.
        table: String,
        /// How many are known to be out.
        rows: u64,
    },
    /// What is published of a table is not what this server has.
    #[error(
        "the rows of table {table} were read at {position} on timeline {timeline}, which is not in \
         the history of the server, which is on timeline {server_timeline}"
    )]
    RowsDiverged {
        /// `schema.table`.
        table: String,
        /// Where they were read.
        position: EndLsn,
        /// On which timeline.
        timeline: u32,
        /// The server's.
        server_timeline: u32,
    },
    /// Somebody else is at the first start of the same slot.
    #[error("another instance is making replication slot \"{slot}\" at this moment")]
    FirstStartRaced {
        /// The slot.
        slot: SlotName,
    },
    /// The checkpoint's slot is gone.
    #[error("replication slot \"{slot}\" does not exist, but its checkpoint does, at {checkpoint}")]
    SlotMissing {
        /// The slot.
        slot: SlotName,
        /// Where publishing had come to.
        checkpoint: EndLsn,
    },
    /// The server gave up the slot.
    #[error("replication slot \"{slot}\" is invalidated ({reason})")]
    SlotInvalidated {
        /// The slot.
        slot: SlotName,
        /// As `pg_replication_slots` has it.
        reason: String,
    },
    /// The slot is not ours to read.
    #[error("replication slot \"{slot}\" {what}")]
    SlotWrongPlugin {
        /// The slot.
        slot: SlotName,
        /// What it is instead.
        what: String,
    },
    /// The slot's checkpoint was written for another source.
    #[error("replication slot \"{slot}\" belongs to source \"{theirs}\", not to \"{ours}\"")]
    ForeignSlot {
        /// The slot.
        slot: SlotName,
        /// The source in the checkpoint.
        theirs: String,
        /// The setting.
        ours: String,
    },
    /// A slot that nobody's checkpoint or intent speaks of.
    #[error("replication slot \"{slot}\" exists, but the checkpoint topic knows nothing of it")]
    CheckpointMissing {
        /// The slot.
        slot: SlotName,
    },
    /// The slot has forgotten what was not published.
    #[error(
        "the checkpoint {checkpoint} lies below the position {confirmed_flush} of replication slot \
         \"{slot}\": the slot was advanced or created anew, and what lies between will not be sent"
    )]
    CheckpointBehindSlot {
        /// The slot.
        slot: SlotName,
        /// What is published.
        checkpoint: EndLsn,
        /// What the slot begins with.
        confirmed_flush: Lsn,
    },
    /// The database is older than what was published of it.
    #[error("{published} lies above the end {wal_end} of the server's WAL")]
    CheckpointAhead {
        /// What is published.
        published: PublishedPosition,
        /// The end of the server's log.
        wal_end: Lsn,
    },
    /// The checkpoint lies on a branch that this server never had.
    #[error(
        "{published} on timeline {timeline} is not in the history of the server, which is on \
         timeline {server_timeline}"
    )]
    TimelineDiverged {
        /// What is published.
        published: PublishedPosition,
        /// The timeline it was read on.
        timeline: u32,
        /// The server's.
        server_timeline: u32,
    },
    /// The source is known elsewhere.
    #[error("source \"{source_name}\" already has a checkpoint under another identity: {known}")]
    IdentityChanged {
        /// The setting `source`.
        source_name: String,
        /// The other keys, `<system id>/<database>/<slot>`.
        known: String,
        /// Ours.
        key: String,
    },
    /// No such publication.
    #[error("publication \"{publication}\" does not exist")]
    PublicationMissing {
        /// Its name.
        publication: PublicationName,
        /// The SQL that makes it.
        create_sql: String,
    },
    /// The publication lacks what a look at its events needs.
    #[error("publication \"{publication}\" {lack}")]
    NothingToShow {
        /// Its name.
        publication: PublicationName,
        /// What it lacks, and what comes of that.
        lack: String,
        /// The SQL that mends it.
        mend_sql: String,
    },
    /// With its updates published, the server would let nobody update a table's rows.
    #[error(
        "{}: were its updates published, the application's own UPDATE and DELETE would fail",
        namelessness(family)
    )]
    NoRowIdentity {
        /// The table, or partitions of one.
        family: Vec<Nameless>,
    },
    /// The server would send old rows of partitions with null for what it does not know of them.
    #[error("{}", difference(leaves))]
    LeafIdentity {
        /// Partitions of one table.
        leaves: Vec<DifferingLeaf>,
    },
    /// Changes of a table were not, or will not be, delivered.
    #[error("publication \"{publication}\": {what}")]
    PublicationGap {
        /// Its name.
        publication: String,
        /// What is missing or was away.
        what: String,
        /// What to do.
        mend: String,
    },
}

/// How far publishing has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PublishedPosition {
    /// Everything below is published.
    Checkpoint(EndLsn),
    /// A part of the transaction whose commit record begins here is published.
    InProgress(CommitLsn),
}

impl PublishedPosition {
    /// A checkpoint's positions.
    pub(super) fn of(checkpoint: &CheckpointRecord) -> impl Iterator<Item = Self> {
        let part = checkpoint.in_progress.map(|part| Self::InProgress(part.commit_lsn));
        std::iter::once(Self::Checkpoint(checkpoint.commit_end_lsn)).chain(part)
    }

    /// Whether a log that ends at `end`, or is left there, holds what is published. Of a
    /// transaction it must hold the commit record, which begins at its position.
    pub(super) fn is_within(self, end: Lsn) -> bool {
        match self {
            Self::Checkpoint(position) => position.lsn() <= end,
            Self::InProgress(position) => position.lsn() < end,
        }
    }
}

impl fmt::Display for PublishedPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint(position) => write!(formatter, "the checkpoint {position}"),
            Self::InProgress(position) => {
                write!(formatter, "the transaction at {position}, of which a part is published,")
            }
        }
    }
}

impl Refusal {
    /// Whether another server has gone on since: this one is the primary of before a failover.
    pub(super) fn is_of_former_primary(&self) -> bool {
        matches!(
            self,
            Self::TimelineDiverged { timeline, server_timeline, .. }
            | Self::RowsDiverged { timeline, server_timeline, .. } if server_timeline < timeline
        )
    }
}

fn from(holder: &Holder) -> String {
    match holder.address.as_str() {
        "" => String::new(),
        address => format!(" from {address}"),
    }
}

impl Failure for Refusal {
    fn code(&self) -> Option<Code> {
        match self {
            Self::WalLevel { .. } => Some(Code::WalLevel),
            Self::NoReplicationRole { .. } => Some(Code::NoReplicationRole),
            Self::InRecovery { .. } | Self::SlotBusy { .. } | Self::FirstStartRaced { .. } => None,
            Self::SlotHeld { .. } => Some(Code::NotConnected),
            Self::SlotMissing { .. } | Self::NoSlot { .. } => Some(Code::SlotMissing),
            Self::FirstStartUnfinished { .. } => Some(Code::CheckpointMissing),
            Self::TakeOverUnfinished { .. } | Self::SnapshotInterrupted { .. } => {
                Some(Code::SnapshotInterrupted)
            }
            Self::SlotInvalidated { .. } => Some(Code::SlotInvalidated),
            Self::SlotWrongPlugin { .. } => Some(Code::SlotWrongPlugin),
            Self::ForeignSlot { .. } => Some(Code::ForeignSlot),
            Self::CheckpointMissing { .. } => Some(Code::CheckpointMissing),
            Self::CheckpointBehindSlot { .. } => Some(Code::CheckpointBehindSlot),
            Self::CheckpointAhead { .. } => Some(Code::CheckpointAhead),
            Self::TimelineDiverged { .. } | Self::RowsDiverged { .. } => {
                Some(Code::TimelineDiverged)
            }
            Self::IdentityChanged { .. } => Some(Code::IdentityChanged),
            Self::PublicationMissing { .. } | Self::NothingToShow { .. } => {
                Some(Code::PublicationMissing)
            }
            Self::NoRowIdentity { .. } | Self::LeafIdentity { .. } => Some(Code::ReplicaIdentity),
            Self::PublicationGap { .. } => Some(Code::PublicationGap),
        }
    }

    fn recovery(&self) -> Recovery {
        match self {
            Self::InRecovery { .. } | Self::SlotBusy { .. } | Self::FirstStartRaced { .. } => {
                Recovery::Retry
            }
            Self::WalLevel { .. }
            | Self::NoReplicationRole { .. }
            | Self::SlotHeld { .. }
            | Self::NoSlot { .. }
            | Self::FirstStartUnfinished { .. }
            | Self::TakeOverUnfinished { .. }
            | Self::SnapshotInterrupted { .. }
            | Self::RowsDiverged { .. }
            | Self::SlotMissing { .. }
            | Self::SlotInvalidated { .. }
            | Self::SlotWrongPlugin { .. }
            | Self::ForeignSlot { .. }
            | Self::CheckpointMissing { .. }
            | Self::CheckpointBehindSlot { .. }
            | Self::CheckpointAhead { .. }
            | Self::TimelineDiverged { .. }
            | Self::IdentityChanged { .. }
            | Self::PublicationMissing { .. }
            | Self::NothingToShow { .. }
            | Self::NoRowIdentity { .. }
            | Self::LeafIdentity { .. }
            | Self::PublicationGap { .. } => Recovery::Stop,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::WalLevel { .. } => "Run ALTER SYSTEM SET wal_level = 'logical', then restart \
                PostgreSQL (managed services have a parameter of their own for it)."
                .to_owned(),
            Self::NoReplicationRole { role } => format!(
                "Run ALTER ROLE {} REPLICATION (Amazon RDS: GRANT rds_replication TO it).",
                crate::postgres::quote_identifier(role)
            ),
            Self::InRecovery { .. } => {
                "Point postgres.url at the primary; it is tried again.".to_owned()
            }
            Self::SlotBusy { slot, .. } => format!(
                "It is tried again until the slot is free. Two pipelines need two slots: if the \
                 other one is not an instance of this pipeline, set another postgres.slot than \
                 \"{slot}\"."
            ),
            Self::SlotHeld { .. } => {
                "Nothing was changed. Stop the daemon, and every standby of it, \
                and run the command again."
                    .to_owned()
            }
            Self::NoSlot { .. } | Self::FirstStartUnfinished { .. } => {
                "Run tailwater init, or tailwater run: it makes what is missing.".to_owned()
            }
            Self::TakeOverUnfinished { table, .. } => format!(
                "Run tailwater init --take-over {table} --where … again, with the condition that \
                 it was begun with: it goes on where it was."
            ),
            Self::SnapshotInterrupted { table, .. } => format!(
                "Rows of a table without a key have no order in which they could be gone on with. Run \
                 tailwater reset --snapshot {table}, which has all of them published again under other \
                 ids, and start; have consumers drop what they have of the table, or those ids, first."
            ),
            Self::RowsDiverged { table, .. } => format!(
                "Either this server is a former primary: point postgres.url at the present one. Or a \
                 failover, or a restored backup, lost what rows that are on Kafka hold: run tailwater \
                 reset --snapshot {table}, which has all of them published again under other ids, and \
                 start."
            ),
            Self::FirstStartRaced { .. } => {
                "It is looked at again; one of the two goes on.".to_owned()
            }
            Self::SlotMissing { slot, checkpoint } => format!(
                "Somebody dropped the slot; what was committed after {checkpoint} is no longer \
                 in reach of a slot. {}",
                new_slot_hint(slot)
            ),
            Self::SlotInvalidated { slot, .. } => format!(
                "Raise max_slot_wal_keep_size, so that it does not happen again, and run SELECT \
                 pg_drop_replication_slot('{slot}'). {}",
                new_slot_hint(slot)
            ),
            Self::SlotWrongPlugin { .. } => {
                "Set another postgres.slot, then run tailwater init.".to_owned()
            }
            Self::ForeignSlot { theirs, .. } => format!(
                "Set another postgres.slot for this source; or, if the source was renamed, run \
                 tailwater init --adopt-slot, which goes on where \"{theirs}\" stopped; or set \
                 source = \"{theirs}\" again."
            ),
            Self::CheckpointMissing { slot } => format!(
                "See that kafka.brokers and kafka.checkpoint_topic are those of this pipeline. If the \
                 checkpoint topic was deleted, or if the slot is to be gone on with as it is, run \
                 tailwater init --adopt-slot: everything behind the slot's position is published, \
                 also what was published before. Only if the slot was made by hand, and nothing was \
                 ever published from it, run SELECT pg_drop_replication_slot('{slot}') and start \
                 again."
            ),
            Self::CheckpointBehindSlot { slot, checkpoint, .. } => format!(
                "Look with SELECT * FROM pg_replication_slots WHERE slot_name = '{slot}' who else \
                 uses it. What was committed after {checkpoint} and before the slot's position \
                 is not on Kafka, and is not sent any more. If that is accepted, run tailwater \
                 reset --to-slot, compare the table with the topics, and insert the missing rows \
                 anew."
            ),
            Self::CheckpointAhead { .. } => "The database was restored from a backup, or it is \
                another server. Consumers have seen events that it does not hold. If that is \
                understood, run tailwater reset --to-slot, which publishes what the database has \
                from the slot's position on, or tailwater reset --to-now, which goes on with what \
                is committed from now on."
                .to_owned(),
            Self::TimelineDiverged { .. } => "Either this server is a former primary: point \
                postgres.url at the present one. Or a failover lost transactions that are on Kafka \
                already: compare the tables with the topics, then run tailwater reset --to-slot, \
                which publishes what the database has from the slot's position on, or tailwater \
                reset --to-now, which goes on with what is committed from now on."
                .to_owned(),
            Self::IdentityChanged { key, .. } => format!(
                "After an upgrade, a restored database or a renamed slot, what was committed in \
                 between is not on Kafka under {key}. If that is understood, or if this is a \
                 second pipeline of the source, run tailwater init; it starts from now on."
            ),
            Self::PublicationMissing { create_sql, .. } => format!(
                "Run {create_sql}; then tailwater reset --to-now: rows that were inserted while it \
                 was missing are never sent, and what the slot still holds cannot be decoded. \
                 {AFTER_RESET}"
            ),
            Self::NothingToShow { mend_sql, .. } => format!(
                "Run {mend_sql} as the owner of the tables, or tailwater init; then events that \
                 are committed from then on are shown."
            ),
            Self::NoRowIdentity { family } => format!(
                "Give the table a primary key that is not DEFERRABLE, or run {}. A publication that \
                 holds a [[table]] publishes the updates of all its tables: an outbox without a key \
                 can have a pipeline of its own.",
                identity_sql(family)
            ),
            Self::LeafIdentity { leaves } => format!(
                "Run {}, and start; a partition that is made later needs the same.",
                leaf_sql(leaves)
            ),
            Self::PublicationGap { mend, .. } => mend.clone(),
        })
    }
}

/// What remains to be done after a loss was accepted.
pub(super) const AFTER_RESET: &str = "Then start, compare the table with the topics, and insert \
    the missing rows anew.";

/// What remains to be done after a start from now under another slot.
const AFTER_ANOTHER_SLOT: &str = "Then drop the old slot with SELECT \
    pg_drop_replication_slot('<old slot>'), compare the table with the topics, and insert the \
    missing rows anew.";

fn new_slot_hint(slot: &SlotName) -> String {
    format!(
        "To go on from now, set another postgres.slot than \"{slot}\" and run tailwater init. \
         {AFTER_ANOTHER_SLOT}"
    )
}

/// The refusal of a configured table whose rows do not come under its name.
pub(super) fn not_published(settings: &Settings, table: &TableName, absence: &Absence) -> Refusal {
    let (publication, kind) = (&settings.publication, kind_of(settings, table));
    let (what, mend) = match absence {
        Absence::NotMember => {
            let sql = publication::add_table_sql(publication, table);
            let mend = format!(
                "Run {sql}; or tailwater init, which does it; and start. If rows of {table} were \
                 published before, that start is refused too, because those that were inserted \
                 meanwhile are never sent: then run tailwater reset --to-slot. {AFTER_RESET}"
            );
            (format!("table {table} is not in it"), mend)
        }
        Absence::AsPartitions => {
            let sql = publication::via_root_sql(publication);
            let mend = format!(
                "Run {sql}, which holds for all tables of the publication, and start. Rows that \
                 were inserted before are never sent as rows of {table}, and no later start \
                 notices: compare the table with the topics, and insert the missing rows anew."
            );
            (format!("rows of {table} come under the names of its partitions"), mend)
        }
        Absence::AsAncestor(ancestor) => {
            let mend = format!(
                "Write \"{ancestor}\" in the place of \"{table}\" in the settings, and start; then \
                 compare the table with the topics, and insert rows anew that were left out \
                 meanwhile."
            );
            (format!("rows of {table} come under the name of {ancestor}"), mend)
        }
        Absence::Unfit(what) => {
            let remedy = match *what {
                "an unlogged table" => {
                    format!("Run ALTER TABLE {} SET LOGGED, and start", table.quoted())
                }
                _ => {
                    format!("Name an ordinary or partitioned table under {}, and start", kind.key())
                }
            };
            let mend = format!(
                "{remedy}. What was done to {table} meanwhile is never sent, and no later start \
                 notices: compare the table with the topics, and write the missing rows anew."
            );
            (format!("{table} is {what}, which PostgreSQL cannot publish"), mend)
        }
    };
    Refusal::PublicationGap { publication: publication.to_string(), what, mend }
}
