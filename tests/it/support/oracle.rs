//! Compares what a reader found with what was committed.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use tailwater::{lsn::Lsn, sink::kafka::Partitioner};

use super::{
    kafka::Record,
    postgres::Session,
    producer_log::ProducerLog,
    truth::{self, Committed},
    visibility::Visibility,
};

/// How many faults of a kind are told in words.
const FAULTS_TOLD: usize = 5;

/// The oldest commit that a test may compare, in milliseconds: two hours.
const AGE_MS_MAX: i64 = 2 * 3_600_000;

/// A transaction of up to that many of the workload's events is never split: they are below the
/// smallest `transaction_bytes`.
const WHOLE_EVENTS_MAX: u64 = 1_000;

/// What is wrong with what was read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// Committed, and not there.
    Lost,
    /// There more than once.
    Doubled,
    /// Never committed.
    Invented,
    /// Behind a later event of its aggregate, or behind a later position of its partition.
    OutOfOrder,
    /// Another key, topic, partition, type or header than it should have.
    Misplaced,
    /// A transaction of which only a part is there, or that became visible in parts.
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
    /// What did not come by yet.
    missing: HashMap<String, Committed>,
    /// By id, a hash of the record as it came first.
    found: HashMap<String, u64>,
    /// How many events each transaction has.
    sizes: HashMap<u32, u64>,
    /// The last version by topic and aggregate.
    versions: HashMap<(String, String), u32>,
    /// The last record of each partition.
    newest: HashMap<(String, i32), (Lsn, u64)>,
    transactions: HashMap<u32, Published>,
    visibility: Visibility,
    /// Transactions of up to that many events are never split.
    whole_events_max: u64,
    schema: jsonschema::Validator,
    partitions: u32,
    /// The partition of each key, where it is not the one of `murmur2`.
    partitions_of: Option<HashMap<String, i32>>,
    /// By partition: the latest record's position, and how often it was not above the one before.
    rewinds: HashMap<(String, i32), ((Lsn, u64), u64)>,
    records: u64,
    faults: HashMap<Fault, Vec<String>>,
}

/// What was found of a transaction.
struct Published {
    commit_lsn: Lsn,
    timestamp_ms: i64,
    sequences: BTreeSet<u64>,
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
        Self::of(truth::read(truth), value, partitions)
    }

    /// Expects exactly what was committed.
    pub fn of(committed: HashMap<String, Committed>, value: Value, partitions: u32) -> Self {
        let mut sizes: HashMap<u32, u64> = HashMap::new();
        for row in committed.values() {
            *sizes.entry(row.xid).or_default() += 1;
        }
        Self {
            value,
            topic_prefix: String::new(),
            found: HashMap::with_capacity(committed.len()),
            missing: committed,
            sizes,
            versions: HashMap::new(),
            newest: HashMap::new(),
            transactions: HashMap::new(),
            visibility: Visibility::default(),
            whole_events_max: WHOLE_EVENTS_MAX,
            schema: event_schema(),
            partitions,
            partitions_of: None,
            rewinds: HashMap::new(),
            records: 0,
            faults: HashMap::new(),
        }
    }

    /// For topics that are named `<prefix>.order.events`.
    pub fn with_topic_prefix(mut self, prefix: &str) -> Self {
        self.topic_prefix = format!("{prefix}.");
        self
    }

    /// Where no transaction may be split, however large it is.
    pub fn whole(mut self) -> Self {
        self.whole_events_max = u64::MAX;
        self
    }

    /// For keys that lie where somebody else says.
    pub fn with_partitions(mut self, partitions_of: HashMap<String, i32>) -> Self {
        self.partitions_of = Some(partitions_of);
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
        self.count_rewinds(record);
        let hash = hash_of(record);
        match self.found.get(&id) {
            None => {}
            Some(first) if *first == hash => {
                return self.fault(Fault::Doubled, format!("{id} at {place}"));
            }
            Some(_) => {
                return self.fault(Fault::Malformed, format!("{id} came as another at {place}"));
            }
        }
        let Some(row) = self.missing.remove(&id) else {
            return self.fault(Fault::Invented, format!("{id} at {place}"));
        };
        self.check_place(record, &id, &row, &place);
        self.check_version(record, &row, &place);
        self.check_transaction(record, row.xid, &place);
        self.check_value(record, &id, &row, &place);
        self.found.insert(id, hash);
    }

    fn count_rewinds(&mut self, record: &Record) {
        let Some(position) = position_of(record) else { return };
        let partition = (record.topic.clone(), record.partition);
        let (before, rewinds) = self.rewinds.entry(partition).or_insert((position, 0));
        *rewinds += u64::from(position < *before);
        *before = position;
    }

    fn check_place(&mut self, record: &Record, id: &str, row: &Committed, place: &str) {
        let domain = row.event_type.split('.').next().unwrap_or_default();
        let key = row.aggregate_id.as_bytes();
        let partition = match &self.partitions_of {
            Some(all) => all.get(&row.aggregate_id).copied(),
            None => Some(Partitioner::Murmur2.partition(key, self.partitions)),
        };
        // The time of the commit, not `occurredAt`: brokers delete by it.
        let age_ms = jiff::Timestamp::now().as_millisecond() - record.timestamp_ms;
        let is_right = (0..AGE_MS_MAX).contains(&age_ms)
            && record.topic == format!("{}{domain}.events", self.topic_prefix)
            && record.key.as_deref() == Some(key)
            && Some(record.partition) == partition
            && record.header("event-type") == Some(&row.event_type)
            && record.header("content-type") == Some("application/json")
            && record.header("schema-version") == Some("1.0")
            && record.header("correlation-id").is_some();
        if !is_right {
            self.fault(Fault::Misplaced, format!("{id} at {place}: {row:?}: {record:?}"));
        }
    }

    fn check_version(&mut self, record: &Record, row: &Committed, place: &str) {
        let Committed { aggregate_id, version, .. } = row;
        let aggregate = (record.topic.clone(), aggregate_id.clone());
        let before = self.versions.insert(aggregate, *version);
        if let Some(before) = before.filter(|before| before >= version) {
            let what = format!("{aggregate_id}: {version} behind {before} at {place}");
            self.fault(Fault::OutOfOrder, what);
        }
    }

    fn check_transaction(&mut self, record: &Record, xid: u32, place: &str) {
        let Some((commit_lsn, sequence)) = position_of(record) else {
            return self.fault(Fault::Misplaced, format!("{place} has no pg-lsn or no pg-seq"));
        };
        if record.header("pg-xid") != Some(xid.to_string().as_str()) {
            return self.fault(Fault::Misplaced, format!("{place} is not of transaction {xid}"));
        }
        let timestamp_ms = record.timestamp_ms;
        let published = self.transactions.entry(xid).or_insert_with(|| Published {
            commit_lsn,
            timestamp_ms,
            sequences: BTreeSet::new(),
        });
        let is_same = published.commit_lsn == commit_lsn && published.timestamp_ms == timestamp_ms;
        if !published.sequences.insert(sequence) || !is_same {
            let what = format!("{place}: {commit_lsn} {sequence} at {timestamp_ms} ms of {xid}");
            self.fault(Fault::Misplaced, what);
        }
        let partition = (record.topic.clone(), record.partition);
        let position = (commit_lsn, sequence);
        let before = self.newest.insert(partition.clone(), position);
        if let Some(before) = before.filter(|before| *before >= position) {
            self.fault(Fault::OutOfOrder, format!("{position:?} behind {before:?} at {place}"));
        }
        self.visibility.take(position, xid, partition, record.offset);
    }

    fn check_value(&mut self, record: &Record, id: &str, row: &Committed, place: &str) {
        let text = record.value.as_deref().unwrap_or_default();
        let Ok(value) = serde_json::from_slice(text) else {
            return self.fault(Fault::Malformed, format!("{place} is not JSON"));
        };
        let event = match self.value {
            Value::Envelope => value,
            Value::Bare => with_headers(value, record),
        };
        if let Err(error) = self.schema.validate(&event) {
            return self.fault(Fault::Malformed, format!("{place}: {error}"));
        }
        if event["id"] != id || event["type"] != row.event_type {
            self.fault(Fault::Malformed, format!("{place} is not {id} of {row:?}"));
        }
        let data = &event["data"];
        if data["orderId"] != row.aggregate_id || data["version"] != row.version {
            self.fault(Fault::Malformed, format!("{place}: data is not of {row:?}: {data}"));
        }
        if !row.is_payload(text) && !data_text(text).is_some_and(|data| row.is_payload(data)) {
            self.fault(Fault::Malformed, format!("{place}: not the payload's bytes: {event}"));
        }
    }

    /// What was wrong, all records taken that `log` holds.
    pub fn verdict(mut self, log: &ProducerLog) -> Verdict {
        let (sizes, whole_max) = (&self.sizes, self.whole_events_max);
        let may_be_split = |xid| sizes.get(&xid).is_none_or(|size| *size > whole_max);
        for what in std::mem::take(&mut self.visibility).torn(log, may_be_split) {
            self.fault(Fault::Torn, what);
        }
        self.verdict_without_transactions()
    }

    /// What was wrong, all records taken, whenever they became visible.
    pub fn verdict_without_transactions(mut self) -> Verdict {
        for (id, row) in std::mem::take(&mut self.missing) {
            self.fault(Fault::Lost, format!("{id} of transaction {}", row.xid));
        }
        for (xid, published) in std::mem::take(&mut self.transactions) {
            let size = self.sizes.get(&xid).copied().unwrap_or(0);
            if !published.sequences.iter().copied().eq(0..size) {
                let found = published.sequences.len();
                self.fault(Fault::Torn, format!("{xid}: {found} of {size} events"));
            }
        }
        let committed = self.sizes.values().sum();
        let rewinds = self.rewinds.values().map(|(_, rewinds)| *rewinds).max().unwrap_or(0);
        Verdict { committed, records: self.records, rewinds, faults: self.faults }
    }
}

/// The commit's position, and the event's place in its transaction.
fn position_of(record: &Record) -> Option<(Lsn, u64)> {
    let commit_lsn = record.header("pg-lsn")?.parse().ok()?;
    Some((commit_lsn, record.header("pg-seq")?.parse().ok()?))
}

/// Of all that a record is made of, its offset apart.
fn hash_of(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Record { topic, partition, key, value, headers, timestamp_ms, .. } = record;
    (topic, partition, key, value, headers, timestamp_ms).hash(&mut hasher);
    hasher.finish()
}

/// The event of a record whose value is the payload alone: its other fields are headers.
fn with_headers(data: serde_json::Value, record: &Record) -> serde_json::Value {
    let mut event = serde_json::Map::new();
    for (field, header) in [
        ("id", "event-id"),
        ("type", "event-type"),
        ("version", "schema-version"),
        ("source", "source"),
        ("correlationId", "correlation-id"),
        ("causationId", "causation-id"),
        ("occurredAt", "occurred-at"),
    ] {
        if let Some(text) = record.header(header) {
            event.insert(field.to_owned(), text.into());
        }
    }
    event.insert("data".to_owned(), data);
    event.into()
}

/// The text of `data`, which Tailwater writes last around a payload.
fn data_text(value: &[u8]) -> Option<&[u8]> {
    let name = b",\"data\":";
    let at = value.windows(name.len()).position(|window| window == name)?;
    value.strip_suffix(b"}")?.get(at + name.len()..)
}

/// The outcome.
#[derive(Debug)]
pub struct Verdict {
    pub committed: u64,
    pub records: u64,
    /// How often a partition went back to an earlier position, of the one that did so most often.
    pub rewinds: u64,
    faults: HashMap<Fault, Vec<String>>,
}

impl Verdict {
    /// How many faults of that kind there are.
    pub fn count(&self, fault: Fault) -> usize {
        self.faults.get(&fault).map_or(0, Vec::len)
    }

    /// Nothing lost, nothing doubled, nothing out of order.
    pub fn assert_exact(&self) {
        self.assert_none_but(&[]);
        assert_eq!(self.committed, self.records);
    }

    /// Nothing lost; what came again came as it was, and went back so often at most.
    pub fn assert_at_least_once(&self, rewinds_max: u64) {
        self.assert_none_but(&[Fault::Doubled]);
        let doubled = self.count(Fault::Doubled);
        eprintln!("{} committed, {doubled} doubled, {} rewinds", self.committed, self.rewinds);
        assert_eq!(self.committed + doubled as u64, self.records);
        assert!(self.rewinds <= rewinds_max, "{} rewinds", self.rewinds);
    }

    fn assert_none_but(&self, allowed: &[Fault]) {
        let mut words = String::new();
        for (fault, all) in self.faults.iter().filter(|(fault, _)| !allowed.contains(fault)) {
            words.push_str(&format!("{fault:?} {}:\n", all.len()));
            for what in all.iter().take(FAULTS_TOLD) {
                words.push_str(&format!("    {what}\n"));
            }
        }
        let Self { committed, records, .. } = self;
        assert!(words.is_empty(), "{committed} committed, {records} read\n{words}");
    }
}
