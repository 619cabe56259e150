//! How far the rows of a table are that were there before: a record of its own beside the
//! checkpoint's, written with the rows.

use serde::{Deserialize, Serialize};

use super::CheckpointKey;
use crate::{
    change::{Oid, RelationId},
    lsn::{CommitLsn, EndLsn},
};

impl CheckpointKey {
    /// The key of the record of a table's rows, those of a take-over included.
    pub fn snapshot(&self, table: &str) -> String {
        format!("{self}/snapshot/{table}")
    }
}

/// The value of the record. Field names are part of the interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// 1.
    pub version: u32,
    /// The setting `source` of the pipeline.
    pub source: String,
    /// `schema.table`.
    pub table: String,
    /// The table's OID.
    pub oid: RelationId,
    /// Who asked for the rows: each request has another one, and its rows other ids.
    pub request: String,
    /// Which rows, as an SQL condition; all of them where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Asked for by `tailwater snapshot`: what cannot be published ends the request and not the daemon.
    /// Others are due because the table was taken on, or reset.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_requested: bool,
    /// Changes of the table came since, or rows for a former request, and may be out. So its rows
    /// cannot be read at once any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_events: bool,
    /// How far it is.
    pub state: SnapshotState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The columns that rows are ordered by; empty before the first row was looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<SnapshotKeyColumn>,
    /// The key of the last row in their order below which everything is out, or among those that are
    /// outstanding: the texts of its columns. None before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Vec<String>>,
    /// Whether the cursor is behind the last row.
    #[serde(default)]
    pub is_at_end: bool,
    /// Keys up to the cursor of which the row is still to be looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outstanding: Vec<OutstandingKey>,
    /// All rows are read at once, ahead of the stream, because the table has no key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_at_once: bool,
    /// What the stream still brings of the table and the rows contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained: Option<Contained>,
    /// How many rows are out.
    pub rows: u64,
    /// About how many there are, as far as the server knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<u64>,
    /// When it was asked for, RFC 3339 in UTC.
    pub requested_at: String,
    /// When the record was written, RFC 3339 in UTC.
    pub written_at: String,
}

/// How far a table's rows are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    /// None was read.
    Due,
    /// Some are out.
    Running,
    /// All are out.
    Done,
    /// The rest never will be.
    Failed,
}

/// What the stream brings of a table and is not published, because rows contain it that are out
/// already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contained {
    /// Every transaction whose commit record begins below.
    pub below: EndLsn,
    /// The timeline of that position.
    pub timeline: u32,
}

impl SnapshotRecord {
    /// Whether rows are still to come, or the stream has still to be told from them.
    pub fn is_kept(&self) -> bool {
        self.state.is_unfinished() || self.contained.is_some()
    }

    /// Whether its rows are due as they are when a table is taken on: all of them, none of which was
    /// read, and nothing else of it is out. Of a table without a key they can be read at once then.
    pub fn is_untouched(&self) -> bool {
        self.state == SnapshotState::Due
            && self.condition.is_none()
            && self.key.is_empty()
            && !self.is_requested
            && !self.has_events
    }

    /// Whether some of its rows are out, and which others are not, nobody knows.
    pub fn is_interrupted(&self) -> bool {
        self.is_at_once && self.state == SnapshotState::Running
    }
}

impl SnapshotState {
    /// Whether rows are still to come.
    pub fn is_unfinished(self) -> bool {
        match self {
            Self::Due | Self::Running => true,
            Self::Done | Self::Failed => false,
        }
    }
}

/// A column that rows are ordered by. With another type or collation the order may be another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotKeyColumn {
    /// Its name.
    pub name: String,
    /// Its number in the table, which a new name leaves as it is.
    pub number: i16,
    /// Its type.
    #[serde(rename = "type")]
    pub type_oid: Oid,
    /// Its collation; 0 where the type has none.
    pub collation: Oid,
}

/// A key of which the row is looked for by itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutstandingKey {
    /// The texts of its columns.
    pub key: Vec<String>,
    /// Where the transaction was committed that moved the row to this key; none where the row was
    /// left out because somebody changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_at: Option<CommitLsn>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_it_was_written() {
        let text = r#"{"version":1,"source":"shop","table":"public.orders","oid":16384,"request":"r","condition":"total > 5","state":"running","key":[{"name":"id","number":1,"type":23,"collation":0}],"cursor":["7"],"is_at_end":false,"outstanding":[{"key":["3"]},{"key":["4"],"moved_at":"0/1F"}],"rows":5,"estimate":9,"requested_at":"a","written_at":"b"}"#;
        let record: SnapshotRecord = serde_json::from_str(text).expect("a record");
        assert_eq!(serde_json::to_string(&record).expect("JSON"), text);
        assert!(record.state.is_unfinished());
    }

    #[test]
    fn rows_that_were_read_at_once_say_what_they_contain() {
        let text = r#"{"version":1,"source":"shop","table":"public.log","oid":16384,"request":"r","state":"running","is_at_end":false,"is_at_once":true,"contained":{"below":"0/1F","timeline":2},"rows":5,"requested_at":"a","written_at":"b"}"#;
        let record: SnapshotRecord = serde_json::from_str(text).expect("a record");
        assert_eq!(serde_json::to_string(&record).expect("JSON"), text);
        assert!(record.is_interrupted() && record.is_kept());
        let done = SnapshotRecord { state: SnapshotState::Done, ..record };
        assert!(!done.is_interrupted() && done.is_kept());
        assert!(!SnapshotRecord { contained: None, ..done }.is_kept());
    }

    #[test]
    fn a_record_of_a_table_that_is_due_says_little() {
        let text = r#"{"version":1,"source":"shop","table":"public.orders","oid":16384,"request":"r","state":"due","is_at_end":false,"rows":0,"requested_at":"a","written_at":"b"}"#;
        let record: SnapshotRecord = serde_json::from_str(text).expect("a record");
        assert_eq!((record.state, record.cursor), (SnapshotState::Due, None));
    }
}
