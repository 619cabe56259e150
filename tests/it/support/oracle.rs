//! Compares what a reader found with what was committed.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use tailwater::sink::kafka::Partitioner;

use super::{kafka::Record, postgres::Session};

/// Up to here every record is checked against the schema, then one in `SCHEMA_STRIDE`.
const SCHEMA_ALL: u64 = 50_000;
const SCHEMA_STRIDE: u64 = 20;

/// The oldest commit that a test may compare, in milliseconds: two hours.
const AGE_MS_MAX: i64 = 2 * 3_600_000;

/// How many faults of a kind are told in words.
const FAULTS_TOLD: usize = 5;

/// What was committed: one row of the outbox.
struct Committed {
    aggregate_id: String,
    event_type: String,
    version: u32,
    xid: u32,
    seen: bool,
}

/// What is wrong with what was read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// Committed, and not there.
    Lost,
    /// There more than once.
    Doubled,
    /// Never committed.
    Invented,
    /// Behind a later event of its aggregate.
    OutOfOrder,
    /// Another key, topic, partition, type or header than it should have.
    Misplaced,
    /// A transaction of which only a part is there.
    Torn,
    /// Not what the schema says.
    Malformed,
}

/// What is expected of the records beside their content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// The envelope of the schema.
    Envelope,
    /// The payload as it is.
    Bare,
}

/// Takes records in the order of their partitions, then says what was wrong.
pub struct Oracle {
    value: Value,
    topic_prefix: String,
    committed: HashMap<String, Committed>,
    /// The last version by topic and aggregate.
    versions: HashMap<(String, String), u32>,
    /// By transaction: where it was committed, and the `pg-seq` of its events.
    transactions: HashMap<u32, (String, BTreeSet<u64>)>,
    schema: jsonschema::Validator,
    partitions: u32,
    records: u64,
    faults: HashMap<Fault, Vec<String>>,
}

/// The schema of an event, as it is published.
pub fn event_schema() -> jsonschema::Validator {
    let text = include_str!("../../../schemas/domain-event.schema.json");
    let schema = serde_json::from_str(text).expect("JSON");
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("a schema")
}

impl Oracle {
    /// Reads what was committed so far. Topics have `partitions`.
    pub fn new(truth: &Session, value: Value, partitions: u32) -> Self {
        let mut committed = HashMap::new();
        for row in truth.rows("SELECT id, aggregate_id, event_type, version, xid FROM truth") {
            let [Some(id), Some(aggregate), Some(event_type), Some(version), Some(xid)] =
                row.as_slice()
            else {
                panic!("truth has no NULL: {row:?}");
            };
            let entry = Committed {
                aggregate_id: aggregate.clone(),
                event_type: event_type.clone(),
                version: version.parse().expect("a number"),
                xid: xid.parse().expect("a number"),
                seen: false,
            };
            committed.insert(id.clone(), entry);
        }
        Self {
            value,
            topic_prefix: String::new(),
            committed,
            versions: HashMap::new(),
            transactions: HashMap::new(),
            schema: event_schema(),
            partitions,
            records: 0,
            faults: HashMap::new(),
        }
    }

    /// For topics that are named `<prefix>.order.events`.
    pub fn with_topic_prefix(mut self, prefix: &str) -> Self {
        self.topic_prefix = format!("{prefix}.");
        self
    }

    fn fault(&mut self, fault: Fault, what: impl fmt::Display) {
        self.faults.entry(fault).or_default().push(what.to_string());
    }

    /// The next record of its partition.
    pub fn take(&mut self, record: &Record) {
        self.records += 1;
        let place = format!("{}/{}@{}", record.topic, record.partition, record.offset);
        let Some(id) = record.header("event-id").map(str::to_owned) else {
            return self.fault(Fault::Misplaced, format!("{place} has no event-id"));
        };
        let Some(entry) = self.committed.get_mut(&id) else {
            return self.fault(Fault::Invented, format!("{id} at {place}"));
        };
        if std::mem::replace(&mut entry.seen, true) {
            return self.fault(Fault::Doubled, format!("{id} at {place}"));
        }
        let (aggregate, event_type, version, xid) =
            (entry.aggregate_id.clone(), entry.event_type.clone(), entry.version, entry.xid);
        self.check_place(record, &id, &aggregate, &event_type, &place);
        let before = self.versions.insert((record.topic.clone(), aggregate.clone()), version);
        if before.is_some_and(|before| before >= version) {
            let what = format!("{aggregate}: {version} behind {} at {place}", before.unwrap_or(0));
            self.fault(Fault::OutOfOrder, what);
        }
        self.check_transaction(record, xid, &place);
        if self.records <= SCHEMA_ALL || self.records.is_multiple_of(SCHEMA_STRIDE) {
            self.check_value(record, &id, &event_type, &aggregate, version, &place);
        }
    }

    fn check_place(
        &mut self,
        record: &Record,
        id: &str,
        aggregate: &str,
        event_type: &str,
        place: &str,
    ) {
        let domain = event_type.split('.').next().unwrap_or_default();
        let partition = Partitioner::Murmur2.partition(aggregate.as_bytes(), self.partitions);
        // The time of the commit, not `occurredAt`: brokers delete by it.
        let age_ms = jiff::Timestamp::now().as_millisecond() - record.timestamp_ms;
        let is_right = (0..AGE_MS_MAX).contains(&age_ms)
            && record.topic == format!("{}{domain}.events", self.topic_prefix)
            && record.key.as_deref() == Some(aggregate.as_bytes())
            && record.partition == partition
            && record.header("event-type") == Some(event_type)
            && record.header("content-type") == Some("application/json")
            && record.header("schema-version") == Some("1.0")
            && record.header("correlation-id").is_some();
        if !is_right {
            self.fault(Fault::Misplaced, format!("{id} of {aggregate} at {place}: {record:?}"));
        }
    }

    fn check_transaction(&mut self, record: &Record, xid: u32, place: &str) {
        let sequence = record.header("pg-seq").and_then(|text| text.parse::<u64>().ok());
        let (Some(lsn), Some(sequence)) = (record.header("pg-lsn"), sequence) else {
            return self.fault(Fault::Misplaced, format!("{place} has no pg-lsn or no pg-seq"));
        };
        if record.header("pg-xid") != Some(xid.to_string().as_str()) {
            return self.fault(Fault::Misplaced, format!("{place} is not of transaction {xid}"));
        }
        let (commit_lsn, sequences) =
            self.transactions.entry(xid).or_insert_with(|| (lsn.to_owned(), BTreeSet::new()));
        if commit_lsn != lsn || !sequences.insert(sequence) {
            self.fault(Fault::Misplaced, format!("{place}: {lsn} {sequence} of {xid}"));
        }
    }

    fn check_value(
        &mut self,
        record: &Record,
        id: &str,
        event_type: &str,
        aggregate: &str,
        version: u32,
        place: &str,
    ) {
        let value: serde_json::Value =
            record.value.as_deref().map_or(serde_json::Value::Null, |value| {
                serde_json::from_slice(value).unwrap_or_default()
            });
        let data = match self.value {
            Value::Bare => &value,
            Value::Envelope => {
                if let Err(error) = self.schema.validate(&value) {
                    let what = format!("{place}: {error}");
                    return self.fault(Fault::Malformed, what);
                }
                if value["id"] != id || value["type"] != event_type {
                    self.fault(Fault::Malformed, format!("{place} is not {id} of {event_type}"));
                }
                &value["data"]
            }
        };
        if data["orderId"] != aggregate || data["version"] != version {
            let what = format!("{place}: data is not that of {aggregate} {version}: {data}");
            self.fault(Fault::Malformed, what);
        }
    }

    /// What was wrong, all records taken.
    pub fn verdict(mut self) -> Verdict {
        let lost: Vec<String> = self
            .committed
            .iter()
            .filter(|(_, entry)| !entry.seen)
            .map(|(id, entry)| format!("{id} of transaction {}", entry.xid))
            .collect();
        if !lost.is_empty() {
            self.faults.insert(Fault::Lost, lost);
        }
        let mut events: HashMap<u32, u64> = HashMap::new();
        for entry in self.committed.values() {
            *events.entry(entry.xid).or_default() += 1;
        }
        let torn: Vec<String> = self
            .transactions
            .iter()
            .filter_map(|(xid, (_, sequences))| {
                let expected = events.get(xid).copied().unwrap_or(0);
                let is_whole = sequences.iter().copied().eq(0..expected);
                (!is_whole).then(|| format!("{xid}: {} of {expected} events", sequences.len()))
            })
            .collect();
        if !torn.is_empty() {
            self.faults.insert(Fault::Torn, torn);
        }
        let (committed, records) = (self.committed.len(), self.records);
        Verdict { committed, records, faults: self.faults }
    }
}

/// The outcome.
#[derive(Debug)]
pub struct Verdict {
    pub committed: usize,
    pub records: u64,
    faults: HashMap<Fault, Vec<String>>,
}

impl Verdict {
    /// How many faults of that kind there are.
    pub fn count(&self, fault: Fault) -> usize {
        self.faults.get(&fault).map_or(0, Vec::len)
    }

    /// Nothing lost, nothing doubled, nothing out of order.
    pub fn assert_exact(&self) {
        let mut words = String::new();
        for (fault, all) in &self.faults {
            words.push_str(&format!("{fault:?} {}:\n", all.len()));
            for what in all.iter().take(FAULTS_TOLD) {
                words.push_str(&format!("    {what}\n"));
            }
        }
        let Self { committed, records, .. } = self;
        assert!(self.faults.is_empty(), "{committed} committed, {records} read\n{words}");
        assert_eq!(*committed as u64, *records);
    }
}
