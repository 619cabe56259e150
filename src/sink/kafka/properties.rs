//! What librdkafka is told, with the reasons.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use crate::sink::kafka::{
    error::SizeLimit,
    settings::{Administration, Settings},
};

/// Properties that `kafka.properties` must not hold, each with what takes its place or what would
/// break.
pub const PROTECTED_PROPERTIES: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is kafka.brokers"),
    ("metadata.broker.list", "it is kafka.brokers"),
    ("transactional.id", "it is made of system id, database and slot, and fences other instances"),
    ("enable.idempotence", "without it a repeated request would double records"),
    ("acks", "records that are not on all in-sync replicas can be lost"),
    ("request.required.acks", "records that are not on all in-sync replicas can be lost"),
    ("max.in.flight", "with more than 5 requests in flight records are reordered"),
    (
        "max.in.flight.requests.per.connection",
        "with more than 5 requests in flight records are reordered",
    ),
    ("retries", "a record given up is a transaction lost"),
    ("message.send.max.retries", "a record given up is a transaction lost"),
    ("message.timeout.ms", "a record given up is a transaction lost"),
    ("delivery.timeout.ms", "a record given up is a transaction lost"),
    ("enable.gapless.guarantee", "behind a record that was not taken none may be"),
    ("partitioner", "it is kafka.partitioner"),
    ("isolation.level", "a checkpoint is read committed, or events are lost"),
    ("auto.offset.reset", "a checkpoint that is skipped doubles events"),
    ("delivery.report.only.error", "a commit is the report; all reports would stall it"),
    ("allow.auto.create.topics", "it is kafka.create_topics"),
    ("enable.partition.eof", "the end of the checkpoint topic is found by it"),
    ("log.queue", "logs go to Tailwater's log"),
    ("group.id", "nothing is read by a group"),
];

/// What the producer's queue takes unless said otherwise, in KiB of values: one of that size, and so
/// the largest dead letter. librdkafka's default is 1 GiB.
const QUEUE_KIB: usize = 16 * 1024;

/// How many bytes of keys, values and headers each producer gathers, however much its queue takes, and
/// behind them one record of any size: what is in flight to brokers, and as much again. With all of
/// 16 MiB, rows of some kilobytes took the daemon to 66 MiB at least once, and no less time.
const QUEUED_BYTES_MAX: usize = 8 << 20;

/// How many records the producer's queue holds. Each costs about 1 KiB beside its value, most of
/// it for its headers, so this bounds what `QUEUE_KIB` does not see. With 10,000 all of a table's
/// rows of 600 bytes took 72 MiB, and no less time.
const QUEUE_RECORDS: usize = 8_000;

/// The most that one request holds for a partition, in bytes. Must stay below the smallest
/// `max.message.bytes` of a topic, whose default is 1,048,588: a broker refuses a larger batch.
const BATCH_BYTES: usize = 1_000_000;

/// After this long a broker aborts an open transaction (Kafka's own default). A predecessor's is
/// aborted at our start at once, so it need not be short for our sake.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a record waits for others, at least once: nothing but this and the broker's answer lies
/// between a row and its reader. Under load requests fill up while others are under way.
const LINGER_MS_AT_LEAST_ONCE: &str = "0.5";

/// The largest `message.max.bytes` that librdkafka takes.
const MESSAGE_BYTES_MAX: usize = 1_000_000_000;

/// A producer's configuration but for its transactional id, and those of its bounds that we go by.
pub(super) struct ProducerProperties {
    pub(super) config: ClientConfig,
    pub(super) transaction_timeout: Duration,
    pub(super) batch_bytes: usize,
    /// How much may wait for brokers; the record that reaches it may be of any size.
    pub(super) queued_bytes_max: usize,
    pub(super) limits: RecordLimits,
}

/// What our own client takes of one record, whatever its topic does.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordLimits {
    /// The largest value that the queue takes.
    pub(super) queue_bytes: usize,
    /// `message.max.bytes`.
    pub(super) message_bytes: usize,
}

impl RecordLimits {
    /// The limit that a record to a topic meets first.
    pub(super) fn smallest(self, topic_bytes: usize) -> (usize, SizeLimit) {
        let Self { queue_bytes, message_bytes } = self;
        if message_bytes < topic_bytes.min(queue_bytes) {
            (message_bytes, SizeLimit::Message)
        } else if queue_bytes < topic_bytes {
            (queue_bytes, SizeLimit::Queue)
        } else {
            (topic_bytes, SizeLimit::Topic)
        }
    }
}

pub(super) fn producer(settings: &Settings) -> ProducerProperties {
    let mut all = common(settings);
    // 5 ms let batches fill under load; a commit sends what there is at once.
    all.insert("linger.ms", "5".to_owned());
    // The best of all in rate and in CPU of both sides (docs/benchmarks.md).
    all.insert("compression.type", "lz4".to_owned());
    all.insert("batch.size", BATCH_BYTES.to_string());
    all.insert("batch.num.messages", "100000".to_owned());
    all.insert("queue.buffering.max.messages", QUEUE_RECORDS.to_string());
    all.insert("queue.buffering.max.kbytes", queue_kib(settings).to_string());
    all.insert("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
    let mut all = with_users(all, settings);
    let number = |all: &BTreeMap<&str, String>, name, otherwise: usize| {
        all.get(name).and_then(|text| text.trim().parse().ok()).unwrap_or(otherwise)
    };
    let queue_bytes = number(&all, "queue.buffering.max.kbytes", QUEUE_KIB).saturating_mul(1024);
    // Unless it is set, a record is refused by its topic's limit or by the queue's, never by this.
    let unlimited = queue_bytes.saturating_add(BATCH_BYTES).min(MESSAGE_BYTES_MAX);
    all.entry("message.max.bytes").or_insert_with(|| unlimited.to_string());
    let message_bytes = number(&all, "message.max.bytes", unlimited);
    let timeout_ms = number(&all, "transaction.timeout.ms", 60_000);
    let batch_bytes = number(&all, "batch.size", BATCH_BYTES);

    all.insert("enable.idempotence", "true".to_owned());
    all.insert("acks", "all".to_owned());
    // Inside a transaction the commit is the report. Without this a commit waits until somebody
    // has fetched a report for each record.
    all.insert("delivery.report.only.error", "true".to_owned());
    let create = match settings.administration {
        // A topic made by being asked for would have the broker's partitions and policy.
        Administration::Full => "false",
        Administration::Absent => "true",
    };
    all.insert("allow.auto.create.topics", create.to_owned());
    ProducerProperties {
        config: client_config(all),
        transaction_timeout: Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(u64::MAX)),
        batch_bytes,
        queued_bytes_max: queue_bytes.min(QUEUED_BYTES_MAX),
        limits: RecordLimits { queue_bytes, message_bytes },
    }
}

/// The configuration of a producer without transactions, beside those that have them.
pub(super) fn without_transactions(
    transactional: &ProducerProperties,
    settings: &Settings,
) -> ClientConfig {
    let mut config = transactional.config.clone();
    if !["linger.ms", "queue.buffering.max.ms"]
        .iter()
        .any(|name| settings.properties.contains_key(*name))
    {
        config.set("linger.ms", LINGER_MS_AT_LEAST_ONCE);
    }
    // A record that is given up while those behind it are delivered comes behind them when it is
    // sent anew. So none is given up alone: neither by its age …
    config.set("message.timeout.ms", "0");
    // … nor by being refused: that ends the producer, with all that it holds.
    config.set("enable.gapless.guarantee", "true");
    config
}

pub(super) fn reader(settings: &Settings) -> ClientConfig {
    let mut all = with_users(common(settings), settings);
    // What a rolled-back transaction wrote is no checkpoint.
    all.insert("isolation.level", "read_committed".to_owned());
    // The broker's answer at the end of the log, which is how we know of the end, comes after
    // this time; its default is 500 ms.
    all.insert("fetch.wait.max.ms", "10".to_owned());
    all.insert("fetch.min.bytes", "1".to_owned());
    // A thousand records of about 600 bytes are read, not 64 MiB ahead of what is asked for.
    all.insert("fetch.message.max.bytes", "262144".to_owned());
    all.insert("queued.max.messages.kbytes", "1024".to_owned());
    all.insert("enable.partition.eof", "true".to_owned());
    all.insert("auto.offset.reset", "error".to_owned());
    all.insert("enable.auto.commit", "false".to_owned());
    all.insert("enable.auto.offset.store", "false".to_owned());
    client_config(all)
}

/// What both clients start from; the user may override it.
fn common(settings: &Settings) -> BTreeMap<&str, String> {
    BTreeMap::from([
        ("bootstrap.servers", settings.brokers.clone()),
        ("client.id", "tailwater".to_owned()),
        // A connection through a firewall that forgot it must not take minutes to be noticed.
        ("socket.keepalive.enable", "true".to_owned()),
        // Nothing is sent to brokers about this process that nobody asked for.
        ("enable.metrics.push", "false".to_owned()),
        // The default grows to 10 s, which a broker's restart would pay for.
        ("reconnect.backoff.max.ms", "1000".to_owned()),
        // One of the machine's first addresses may not be listening: do not wait 30 s for it.
        ("socket.connection.setup.timeout.ms", "5000".to_owned()),
    ])
}

fn with_users<'a>(
    mut all: BTreeMap<&'a str, String>,
    settings: &'a Settings,
) -> BTreeMap<&'a str, String> {
    for (name, value) in &settings.properties {
        // librdkafka has two names for some; with both given either may win.
        let name = match name.as_str() {
            "compression.codec" => "compression.type",
            "queue.buffering.max.ms" => "linger.ms",
            other => other,
        };
        all.insert(name, value.clone());
    }
    all
}

fn client_config(all: BTreeMap<&str, String>) -> ClientConfig {
    let mut config: ClientConfig =
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    // The context decides what is shown.
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Takes the largest records of the topics that we make.
fn queue_kib(settings: &Settings) -> usize {
    let largest = settings.topic.config.get("max.message.bytes");
    let bytes: usize = largest.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    QUEUE_KIB.max(bytes.saturating_mul(2).div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_of_a_record_is_the_one_that_is_named() {
        let limits = RecordLimits { queue_bytes: 300, message_bytes: 200 };
        assert_eq!(limits.smallest(100), (100, SizeLimit::Topic));
        assert_eq!(limits.smallest(200), (200, SizeLimit::Topic));
        assert_eq!(limits.smallest(250), (200, SizeLimit::Message));
        let limits = RecordLimits { queue_bytes: 300, message_bytes: 400 };
        assert_eq!(limits.smallest(350), (300, SizeLimit::Queue));
    }
}
