//! The compacted topic that keeps checkpoints.
//!
//! One topic holds the records of all pipelines of a Kafka cluster, in one partition: their order
//! is the log's. The newest record under a key counts; what a rolled-back transaction wrote does
//! not. A record is looked for backwards from the end, in growing steps: the active segment is
//! never compacted and may hold very many records of a busy pipeline.
//!
//! A reader of committed records comes as far as the last stable offset. Where another pipeline
//! holds a transaction open, our own last record can lie behind it, although it was committed long
//! ago. [`Store::look`] says whether that may be so; [`Store::read`] waits until it is not.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    time::{Duration, Instant},
};

use serde::Deserialize;
use tracing::{info, warn};

use crate::{
    checkpoint::{CheckpointKey, CheckpointRecord, Intent, SnapshotRecord, TakeOver},
    sink::kafka::{Kafka, KafkaError, Offsets, Reader, StoredRecord},
};

/// The version of the records that we write, and the highest that we read.
const VERSION: u32 = 1;

/// How many offsets the first step looks at: some seconds of a busy pipeline.
const FIRST_STEP: i64 = 1_000;

/// Each step looks at this many times the offsets of the one before.
const STEP_FACTOR: i64 = 8;

/// How often it is said that another pipeline's transaction is waited for.
const SAY_INTERVAL: Duration = Duration::from_secs(10);

/// What the topic holds for one pipeline.
#[derive(Debug, Default)]
pub struct Look {
    /// The newest checkpoint.
    pub checkpoint: Option<CheckpointRecord>,
    /// The newest intent. Not looked for behind a checkpoint, which is always later.
    pub intent: Option<Intent>,
    /// How far the snapshots are that the checkpoint names, by table; with [`Store::look`] those that
    /// are there to be seen.
    pub snapshots: BTreeMap<String, SnapshotRecord>,
    /// Keys of other pipelines with the same source, without `/init`; known only where there is
    /// no checkpoint.
    pub others_of_source: Vec<String>,
    /// False where an open transaction may hide records of ours.
    pub complete: bool,
}

impl Look {
    /// The source that checkpoint or intent were written for, where it is another than `source`.
    pub fn foreign_source(&self, source: &str) -> Option<&str> {
        let of_checkpoint = self.checkpoint.as_ref().map(|record| record.source.as_str());
        let of_intent = self.intent.as_ref().map(|intent| intent.source.as_str());
        of_checkpoint.or(of_intent).filter(|found| *found != source)
    }
}

/// Reads checkpoints. Writing them is the sink's, with the events they speak of.
pub struct Store {
    reader: Reader,
}

impl Store {
    /// A store on the brokers of `kafka`.
    pub fn open(kafka: &Kafka) -> Result<Self, KafkaError> {
        Ok(Self { reader: kafka.reader()? })
    }

    /// Makes the topic where it is missing, and refuses one that could lose checkpoints.
    ///
    /// # Errors
    /// [`KafkaError::TopicMissing`] where it may not or cannot be made, and
    /// [`KafkaError::CheckpointTopicPolicy`] for more than one partition, or any policy beside
    /// compaction: deletion by time would take the checkpoint of a pipeline that was idle.
    pub fn ensure_topic(&self) -> Result<(), KafkaError> {
        if self.reader.partitions()?.is_none() {
            self.reader.create_topic(&topic_config())?;
            info!(topic = self.reader.topic(), "checkpoint topic created");
        }
        self.check_policy()
    }

    /// Refuses a topic that could lose checkpoints; one that is not there is none of these.
    pub fn check_policy(&self) -> Result<(), KafkaError> {
        let topic = self.reader.topic();
        let Some(partitions) = self.reader.partitions()? else { return Ok(()) };
        let policy = |found: String, wanted, mend: String| {
            let topic = topic.to_owned();
            Err(KafkaError::CheckpointTopicPolicy { topic, found, wanted, mend })
        };
        if !self.reader.is_administered() {
            return Ok(());
        }
        if partitions != 1 {
            let mend = format!(
                "Partitions cannot be taken away: name another kafka.checkpoint_topic, or delete \
                 \"{topic}\" if no pipeline has written to it yet."
            );
            return policy(format!("{partitions} partitions"), "one", mend);
        }
        let Some(entries) = self.reader.configuration()? else {
            warn!(topic, "cannot see whether the checkpoint topic is compacted");
            return Ok(());
        };
        match entries.get("cleanup.policy").map(String::as_str) {
            Some("compact") => Ok(()),
            found => policy(
                format!("cleanup.policy={}", found.unwrap_or_default()),
                "cleanup.policy=compact",
                format!(
                    "Set the policy: kafka-configs.sh --bootstrap-server <broker> --alter \
                     --entity-type topics --entity-name {topic} --add-config \
                     cleanup.policy=compact"
                ),
            ),
        }
    }

    /// A provisional look: as far as committed records can be read at this moment. Never waits for
    /// another pipeline, and changes nothing, not even where the topic does not exist.
    pub fn look(&self, key: &CheckpointKey, source: &str) -> Result<Look, KafkaError> {
        self.look_within(Duration::ZERO, key, source)
    }

    /// As [`Store::look`], but where a transaction is open, waits up to `patience` for its end: that
    /// of a pipeline at work takes some milliseconds.
    ///
    /// # Errors
    /// Where the brokers do not answer, or what is there cannot be read.
    pub fn look_within(
        &self,
        patience: Duration,
        key: &CheckpointKey,
        source: &str,
    ) -> Result<Look, KafkaError> {
        if self.reader.partitions()?.is_none() {
            return Ok(Look { complete: true, ..Look::default() });
        }
        let offsets = self.reader.offsets_within(patience)?;
        let mut look = self.search(key, source, offsets.low, offsets.last_stable)?;
        look.complete = offsets.last_stable >= offsets.high_watermark;
        if let Some(checkpoint) = look.checkpoint.as_ref().filter(|_| look.complete) {
            // A daemon at work may write newer ones meanwhile, and the brokers forget the older.
            let (low, end) = (offsets.low, offsets.last_stable);
            look.snapshots = self.find_snapshots(key, &checkpoint.snapshots, low, end)?.0;
        }
        Ok(look)
    }

    /// Reads everything up to the high watermark as of this call, waiting for other pipelines'
    /// open transactions. After fencing, nothing of ours comes behind it.
    pub fn read(&self, key: &CheckpointKey, source: &str) -> Result<Look, KafkaError> {
        if self.reader.partitions()?.is_none() {
            return Ok(Look { complete: true, ..Look::default() });
        }
        let offsets = self.reader.offsets()?;
        let mut look = self.search(key, source, offsets.low, offsets.high_watermark)?;
        if let Some(checkpoint) = &look.checkpoint {
            let (low, end) = (offsets.low, offsets.high_watermark);
            let (found, missing) = self.find_snapshots(key, &checkpoint.snapshots, low, end)?;
            if let Some(key) = missing {
                // Written before the checkpoint, or with it.
                return Err(lost_snapshot(self.reader.topic(), &key, low));
            }
            look.snapshots = found;
        }
        look.complete = true;
        Ok(look)
    }

    /// The newest record of a table's snapshot, also of one that the checkpoint does not name. Reads as
    /// [`Store::read`] does.
    ///
    /// # Errors
    /// Where the brokers do not answer, or what is there cannot be read.
    pub fn read_snapshot(
        &self,
        key: &CheckpointKey,
        table: &str,
    ) -> Result<Option<SnapshotRecord>, KafkaError> {
        let offsets = self.reader.offsets()?;
        let tables = [table.to_owned()];
        let (mut found, _) =
            self.find_snapshots(key, &tables, offsets.low, offsets.high_watermark)?;
        Ok(found.remove(table))
    }

    /// The record of a table's take-over, also behind a checkpoint, as far as [`Store::look`] looks.
    ///
    /// # Errors
    /// Where the brokers do not answer, or what is there cannot be read.
    pub fn look_for_take_over(
        &self,
        key: &CheckpointKey,
        table: &str,
    ) -> Result<Option<TakeOver>, KafkaError> {
        self.find_take_over(key, table, |offsets| offsets.last_stable)
    }

    /// The record of a table's take-over, also behind a checkpoint. Reads as [`Store::read`] does.
    ///
    /// # Errors
    /// Where the brokers do not answer, or what is there cannot be read.
    pub fn read_take_over(
        &self,
        key: &CheckpointKey,
        table: &str,
    ) -> Result<Option<TakeOver>, KafkaError> {
        self.find_take_over(key, table, |offsets| offsets.high_watermark)
    }

    fn find_take_over(
        &self,
        key: &CheckpointKey,
        table: &str,
        end: impl FnOnce(Offsets) -> i64,
    ) -> Result<Option<TakeOver>, KafkaError> {
        if self.reader.partitions()?.is_none() {
            return Ok(None);
        }
        let key = key.snapshot(table);
        let offsets = self.reader.offsets()?;
        let mut newest = None;
        self.search_windows(offsets.low, end(offsets), |mut window| {
            newest = window.remove(key.as_bytes());
            newest.is_some()
        })?;
        decode(self.reader.topic(), &key, newest)
    }

    /// The newest record of each of these tables' snapshots, and the key of one that is not there. Most
    /// often they are as near to the end as the checkpoint is.
    fn find_snapshots(
        &self,
        key: &CheckpointKey,
        tables: &[String],
        low: i64,
        end: i64,
    ) -> Result<(BTreeMap<String, SnapshotRecord>, Option<String>), KafkaError> {
        if tables.is_empty() {
            return Ok((BTreeMap::new(), None));
        }
        let mut missing: BTreeMap<String, &String> =
            tables.iter().map(|table| (key.snapshot(table), table)).collect();
        let mut found = Vec::new();
        self.search_windows(low, end, |mut window| {
            missing.retain(|key, table| match window.remove(key.as_bytes()) {
                Some(stored) => {
                    found.push((key.clone(), *table, stored));
                    false
                }
                None => true,
            });
            missing.is_empty()
        })?;
        let topic = self.reader.topic();
        let mut records = BTreeMap::new();
        for (key, table, stored) in found {
            let offset = stored.offset;
            let record = decode(topic, &key, Some(stored))?;
            let record = record.ok_or_else(|| lost_snapshot(topic, &key, offset))?;
            records.insert(table.clone(), record);
        }
        Ok((records, missing.into_keys().next()))
    }

    /// Looks backwards from `end`, until the checkpoint is found or `low` is reached.
    fn search(
        &self,
        key: &CheckpointKey,
        source: &str,
        low: i64,
        end: i64,
    ) -> Result<Look, KafkaError> {
        let mut newest = Newest::new(key, source);
        self.search_windows(low, end, |window| {
            newest.take(window);
            newest.has_checkpoint()
        })?;
        newest.into_look(self.reader.topic())
    }

    /// Reads backwards from `end` in growing steps, of each step the newest record of each key,
    /// until `is_found` says so or `low` is reached.
    fn search_windows(
        &self,
        low: i64,
        end: i64,
        mut is_found: impl FnMut(HashMap<Vec<u8>, Stored>) -> bool,
    ) -> Result<(), KafkaError> {
        let (mut until, mut step) = (end, FIRST_STEP);
        while until > low {
            let from = low.max(until.saturating_sub(step));
            let mut waiting =
                Waiting { topic: self.reader.topic(), high_watermark: end, said_at: None };
            let mut window = HashMap::new();
            self.reader.read(
                from,
                until,
                |record| {
                    // Of one key the later record replaces the earlier one.
                    window.insert(record.key.to_vec(), Stored::from(record));
                    Ok(())
                },
                |offset| waiting.say(offset),
            )?;
            if is_found(window) {
                break;
            }
            (until, step) = (from, step.saturating_mul(STEP_FACTOR));
        }
        Ok(())
    }
}

/// How the topic is configured where it is made.
pub fn topic_config() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("cleanup.policy".to_owned(), "compact".to_owned()),
        // What is not in the active segment is compacted, so the topic stays small. The least that
        // Kafka 4 takes.
        ("segment.bytes".to_owned(), (1 << 20).to_string()),
    ])
}

/// The newest records found so far, going backwards.
struct Newest<'a> {
    source: &'a str,
    checkpoint_key: String,
    intent_key: String,
    checkpoint: Option<Stored>,
    intent: Option<Stored>,
    /// By key: whether the newest record under it is of our source.
    others: BTreeMap<String, bool>,
}

/// A record, kept.
struct Stored {
    offset: i64,
    value: Option<Vec<u8>>,
}

impl From<StoredRecord<'_>> for Stored {
    fn from(record: StoredRecord<'_>) -> Self {
        Self { offset: record.offset, value: record.value.map(<[u8]>::to_vec) }
    }
}

impl<'a> Newest<'a> {
    fn new(key: &CheckpointKey, source: &'a str) -> Self {
        Self {
            source,
            checkpoint_key: key.to_string(),
            intent_key: key.intent(),
            checkpoint: None,
            intent: None,
            others: BTreeMap::new(),
        }
    }

    fn has_checkpoint(&self) -> bool {
        self.checkpoint.as_ref().is_some_and(|stored| stored.value.is_some())
    }

    /// Takes what a step found, the newest of each key: it counts only for keys that no later step
    /// had.
    fn take(&mut self, window: HashMap<Vec<u8>, Stored>) {
        for (key, stored) in window {
            if key == self.checkpoint_key.as_bytes() {
                self.checkpoint.get_or_insert(stored);
            } else if key == self.intent_key.as_bytes() {
                self.intent.get_or_insert(stored);
            } else if let Entry::Vacant(entry) =
                self.others.entry(String::from_utf8_lossy(&key).into_owned())
            {
                entry.insert(source_of(&stored).as_deref() == Some(self.source));
            }
        }
    }

    fn into_look(self, topic: &str) -> Result<Look, KafkaError> {
        let own_keys = format!("{}/", self.checkpoint_key);
        let mut others: Vec<String> = self
            .others
            .into_iter()
            .filter(|(key, of_source)| *of_source && !key.starts_with(&own_keys))
            .map(|(key, _)| pipeline_of(&key).to_owned())
            .collect();
        others.dedup();
        Ok(Look {
            checkpoint: decode(topic, &self.checkpoint_key, self.checkpoint)?,
            intent: decode(topic, &self.intent_key, self.intent)?,
            snapshots: BTreeMap::new(),
            others_of_source: others,
            complete: false,
        })
    }
}

/// `<system id>/<database>/<slot>` of a key of any kind of record.
fn pipeline_of(key: &str) -> &str {
    let without_snapshot = key.split_once("/snapshot/").map_or(key, |(pipeline, _)| pipeline);
    without_snapshot.strip_suffix("/init").unwrap_or(without_snapshot)
}

/// The source of another pipeline's record, of whatever version; none for what is not a record.
fn source_of(stored: &Stored) -> Option<String> {
    #[derive(Deserialize)]
    struct Sourced {
        source: String,
    }
    let value = stored.value.as_deref()?;
    serde_json::from_slice::<Sourced>(value).ok().map(|sourced| sourced.source)
}

/// Reads a record of ours. One that is there and cannot be read is never taken for none: that
/// would start anew where events were published already.
fn decode<T: serde::de::DeserializeOwned>(
    topic: &str,
    key: &str,
    stored: Option<Stored>,
) -> Result<Option<T>, KafkaError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Some(Stored { offset, value: Some(value) }) = stored else { return Ok(None) };
    let unreadable = |reason: String| KafkaError::CheckpointUnreadable {
        topic: topic.to_owned(),
        key: key.to_owned(),
        offset,
        reason,
    };
    let versioned: Versioned =
        serde_json::from_slice(&value).map_err(|error| unreadable(error.to_string()))?;
    if versioned.version != VERSION {
        return Err(unreadable(format!(
            "it has version {}, and this Tailwater reads version {VERSION}",
            versioned.version
        )));
    }
    serde_json::from_slice(&value).map(Some).map_err(|error| unreadable(error.to_string()))
}

/// To begin such a snapshot anew would double what is out.
fn lost_snapshot(topic: &str, key: &str, offset: i64) -> KafkaError {
    KafkaError::CheckpointUnreadable {
        topic: topic.to_owned(),
        key: key.to_owned(),
        offset,
        reason: "the checkpoint names it, and it is gone".to_owned(),
    }
}

/// Says that another pipeline is waited for: at once, and then every ten seconds, with what to do where
/// it does not end.
struct Waiting<'a> {
    topic: &'a str,
    high_watermark: i64,
    said_at: Option<Instant>,
}

impl Waiting<'_> {
    fn say(&mut self, offset: i64) {
        let Self { topic, high_watermark, .. } = *self;
        match self.said_at {
            Some(said_at) if said_at.elapsed() < SAY_INTERVAL => return,
            Some(_) => warn!(
                topic,
                offset,
                high_watermark,
                hint = "Where no pipeline is at work that long, brokers have lost its end: \
                        kafka-transactions.sh --bootstrap-server <broker> find-hanging --broker-id \
                        <id> names it (docs/operations.md).",
                "still waiting for another pipeline's open transaction, which hides checkpoints behind it"
            ),
            None => info!(
                topic,
                offset,
                high_watermark,
                "waiting for another pipeline's open transaction, which hides checkpoints behind it"
            ),
        }
        self.said_at = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> CheckpointKey {
        CheckpointKey {
            system_id: "7311".to_owned(),
            database: "shop".to_owned(),
            slot: "tailwater".to_owned(),
        }
    }

    fn stored(offset: i64, value: &str) -> Stored {
        Stored { offset, value: Some(value.as_bytes().to_vec()) }
    }

    fn window(records: &[(&str, i64, &str)]) -> HashMap<Vec<u8>, Stored> {
        let entry = |(key, offset, value): &(&str, i64, &str)| {
            (key.as_bytes().to_vec(), stored(*offset, value))
        };
        records.iter().map(entry).collect()
    }

    const INTENT: &str = r#"{"version":1,"source":"orders","snapshots":[],"written_at":"x"}"#;

    #[test]
    fn a_later_record_counts_before_an_earlier_one() {
        let mut newest = Newest::new(&key(), "orders");
        newest.take(window(&[("7311/shop/tailwater/init", 9, INTENT)]));
        newest.take(window(&[("7311/shop/tailwater/init", 3, "not even JSON")]));
        let look = newest.into_look("checkpoints").expect("readable");
        assert_eq!(look.intent.as_ref().map(|intent| intent.source.as_str()), Some("orders"));
        assert_eq!(look.foreign_source("invoices"), Some("orders"));
        assert_eq!(look.foreign_source("orders"), None);
    }

    #[test]
    fn an_unreadable_record_of_ours_is_an_error() {
        for (value, words) in [
            ("{", "EOF while parsing"),
            (r#"{"version":2,"new":true}"#, "it has version 2"),
            (r#"{"version":1}"#, "missing field"),
        ] {
            let mut newest = Newest::new(&key(), "orders");
            newest.take(window(&[("7311/shop/tailwater", 12, value)]));
            let error = newest.into_look("checkpoints").expect_err(value).to_string();
            assert!(error.contains(words) && error.contains("offset 12"), "{error}");
        }
    }

    #[test]
    fn a_tombstone_is_no_checkpoint() {
        let mut newest = Newest::new(&key(), "orders");
        let tombstone = Stored { offset: 5, value: None };
        newest.take(HashMap::from([(b"7311/shop/tailwater".to_vec(), tombstone)]));
        assert!(newest.into_look("checkpoints").expect("readable").checkpoint.is_none());
    }

    #[test]
    fn other_pipelines_of_the_source_are_named_once() {
        let mut newest = Newest::new(&key(), "orders");
        newest.take(window(&[
            ("7311/shop/tailwater/snapshot/public.a", 1, r#"{"source":"orders"}"#),
            ("9000/shop/tailwater", 2, r#"{"version":7,"source":"orders"}"#),
            ("9000/shop/tailwater/init", 3, r#"{"source":"orders"}"#),
            ("9001/shop/tailwater", 4, r#"{"source":"invoices"}"#),
            ("9002/shop/tailwater", 5, "garbage of somebody else"),
        ]));
        let look = newest.into_look("checkpoints").expect("readable");
        assert_eq!(look.others_of_source, ["9000/shop/tailwater"]);
    }
}
