//! The checkpoint record: what the compacted topic holds for each pipeline.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    change::{Oid, PgTimestamp, RelationId, Xid},
    lsn::{CommitLsn, EndLsn, Lsn},
};

/// The record's key: `<system id>/<database>/<slot>`. One pipeline has one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CheckpointKey {
    /// The cluster's system identifier, decimal (`IDENTIFY_SYSTEM`).
    pub system_id: String,
    /// The database of the slot.
    pub database: String,
    /// The slot.
    pub slot: String,
}

impl fmt::Display for CheckpointKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.system_id, self.database, self.slot)
    }
}

impl CheckpointKey {
    /// The key of the intent record, written before the slot is created.
    pub fn intent(&self) -> String {
        format!("{self}/init")
    }
}

/// The value of a checkpoint record. Field names are part of the interface. `P` is the publication, or
/// its JSON, where that is the same in many records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckpointRecord<P = Fingerprint> {
    /// 1.
    pub version: u32,
    /// The setting `source` of the pipeline.
    pub source: String,
    /// The cluster's system identifier.
    pub system_id: String,
    /// The timeline that `commit_end_lsn` was read on.
    pub timeline: u32,
    /// The database.
    pub database: String,
    /// The slot.
    pub slot: String,
    /// Every transaction whose commit record begins below is published.
    pub commit_end_lsn: EndLsn,
    /// The last transaction that came by, to recognise another history.
    pub last: Option<LastTransaction>,
    /// The transaction that is published in part.
    pub in_progress: Option<InProgress>,
    /// What the slot still sends from here on, below `commit_end_lsn`, was given up by
    /// `reset --to-now`: it is skipped, and was never published. None where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_from: Option<Lsn>,
    /// The tables, `schema.table`, whose snapshot is not finished: each has a record of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<String>,
    /// What the publication consisted of.
    pub publication: P,
    /// When the pipeline began or was last reset, by the server's clock, RFC 3339 in UTC: rows that
    /// were made before need not be published. None where the record does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<String>,
    /// When the record was written, RFC 3339 in UTC.
    pub written_at: String,
}

impl<P> CheckpointRecord<P> {
    /// The same record with its publication in another form.
    pub fn map_publication<Q>(self, form: impl FnOnce(P) -> Q) -> CheckpointRecord<Q> {
        CheckpointRecord {
            version: self.version,
            source: self.source,
            system_id: self.system_id,
            timeline: self.timeline,
            database: self.database,
            slot: self.slot,
            commit_end_lsn: self.commit_end_lsn,
            last: self.last,
            in_progress: self.in_progress,
            given_up_from: self.given_up_from,
            snapshots: self.snapshots,
            publication: form(self.publication),
            begun_at: self.begun_at,
            written_at: self.written_at,
        }
    }
}

#[cfg(test)]
impl CheckpointRecord {
    /// The checkpoint of a first start at a position.
    pub(crate) fn of_first_start(position: EndLsn) -> Self {
        Self {
            version: 1,
            source: "orders".to_owned(),
            system_id: "7".to_owned(),
            timeline: 1,
            database: "shop".to_owned(),
            slot: "tailwater".to_owned(),
            commit_end_lsn: position,
            last: None,
            in_progress: None,
            given_up_from: None,
            snapshots: Vec::new(),
            publication: Fingerprint {
                name: "tailwater".to_owned(),
                oid: Oid(16_400),
                options: String::new(),
                altered_by: None,
                tables: BTreeMap::new(),
            },
            begun_at: None,
            written_at: String::new(),
        }
    }
}

/// A transaction by its place and its identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastTransaction {
    /// Where its commit record begins.
    pub commit_lsn: CommitLsn,
    /// Its identifier.
    pub xid: Xid,
    /// Commit time: microseconds since 2000-01-01.
    pub commit_time: i64,
}

impl LastTransaction {
    /// Seconds since it was committed; 0 where its clock is ahead of `now`.
    pub fn age_seconds(self, now: PgTimestamp) -> f64 {
        now.0.saturating_sub(self.commit_time).max(0) as f64 / 1e6
    }
}

/// A transaction of which a part is published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InProgress {
    /// Where its commit record begins.
    pub commit_lsn: CommitLsn,
    /// How many of its changes, as the slot delivers them, are out.
    pub changes: u64,
    /// The next `pg-seq`: how many of this pipeline's events are out.
    pub events: u64,
    /// A running hash over (LSN, kind, relation OID) of the changes that are out.
    #[serde(with = "hexadecimal")]
    pub digest: u64,
}

/// What the publication consisted of when the checkpoint was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The publication's name.
    pub name: String,
    /// Its OID: another one means that it was dropped and made anew.
    pub oid: Oid,
    /// `publish` and `publish_via_partition_root` in text.
    pub options: String,
    /// The transaction that wrote the publication's own row: another one after each ALTER of its
    /// options, name or owner. None where the record does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altered_by: Option<Xid>,
    /// The configured tables, by `schema.table`.
    pub tables: BTreeMap<String, TableFingerprint>,
}

impl Fingerprint {
    /// With each table there since the instant that `before` has for it, where nothing shows that
    /// rows of it were left out meanwhile; the others have none.
    pub fn continuing(mut self, before: &Self) -> Self {
        let is_same = before.oid == self.oid
            && before.options == self.options
            && before.altered_by.is_some()
            && before.altered_by == self.altered_by;
        for (name, table) in &mut self.tables {
            let then = before.tables.get(name).filter(|then| is_same && then.is_same(table));
            table.since = then.and_then(|then| then.since.clone());
        }
        self
    }

    /// Whether it says of each table since when it is there.
    pub fn is_dated(&self) -> bool {
        self.tables.values().all(|table| table.since.is_some())
    }

    /// With that instant, RFC 3339, for each table that has none.
    pub fn dated(mut self, at: &str) -> Self {
        for table in self.tables.values_mut() {
            table.since.get_or_insert_with(|| at.to_owned());
        }
        self
    }

    /// Whether inserts were published: the options are as ALTER PUBLICATION takes them.
    pub fn publishes_inserts(&self) -> bool {
        self.options.contains("insert")
    }
}

/// A table of the publication by its identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableFingerprint {
    /// The table's OID.
    pub oid: RelationId,
    /// The OID of its `pg_publication_rel` row; none where it comes by ALL TABLES or IN SCHEMA.
    pub member: Option<Oid>,
    /// The OID of its schema's `pg_publication_namespace` row; none where it does not come by
    /// IN SCHEMA, or the record does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_member: Option<Oid>,
    /// Since when its inserts are known to be in the slot's stream, by the server's clock, RFC 3339
    /// in UTC. None where the record does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

impl TableFingerprint {
    /// The same table by the same membership.
    fn is_same(&self, other: &Self) -> bool {
        let identity = |table: &Self| (table.oid, table.member, table.schema_member);
        identity(self) == identity(other)
    }
}

/// The value of an intent record: a slot is about to be created.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Intent {
    /// 1.
    pub version: u32,
    /// The setting `source` of the pipeline.
    pub source: String,
    /// Tables whose snapshot is due.
    pub snapshots: Vec<String>,
    /// When the record was written, RFC 3339 in UTC.
    pub written_at: String,
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}
