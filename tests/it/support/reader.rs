//! A read_committed reader of one topic that goes on where it ended, with librdkafka.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};

use super::{
    PATIENCE,
    kafka::{Broker, Record},
    wait_until,
};

/// How long a broker that runs may take to say where a partition ends.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Reads a topic from its beginning.
pub struct CommittedReader {
    topic: String,
    consumer: BaseConsumer,
    uncommitted: BaseConsumer,
    /// Where each partition began.
    begins: Vec<i64>,
}

impl CommittedReader {
    /// Opens a topic; one that does not exist has no partitions and no records.
    pub fn open(broker: &Broker, topic: &str) -> Self {
        let consumer = consumer(&broker.brokers(), "read_committed");
        let uncommitted = consumer_of_high_watermarks(&broker.brokers());
        let begins = watermarks(&uncommitted, topic).into_iter().map(|(low, _)| low).collect();
        let reader = Self { topic: topic.to_owned(), consumer, uncommitted, begins };
        let mut assignment = TopicPartitionList::new();
        for (partition, low) in (0..).zip(&reader.begins) {
            let begin = Offset::Offset(*low);
            assignment.add_partition_offset(topic, partition, begin).expect("a partition");
        }
        reader.consumer.assign(&assignment).expect("assigned");
        reader
    }

    /// Takes what was committed since the last time, each partition to the high watermark that it
    /// has now: an open transaction is waited for.
    ///
    /// # Errors
    /// Where that was not reached, in words. What was taken is not taken again.
    pub fn try_read(&self, deadline: Duration, mut take: impl FnMut(Record)) -> Result<(), String> {
        let until = Instant::now() + deadline;
        let mut ends = Vec::new();
        for partition in (0..).take(self.begins.len()) {
            let watermarks = self.uncommitted.fetch_watermarks(&self.topic, partition, ANSWER_MAX);
            let (_, high) = watermarks.map_err(|error| error.to_string())?;
            ends.push(high);
        }
        while !self.is_at(&ends) {
            if Instant::now() > until {
                return Err(format!("not at {ends:?} after {deadline:?}"));
            }
            loop {
                match self.consumer.poll(Duration::from_millis(50)) {
                    Some(Ok(message)) => {
                        let partition = usize::try_from(message.partition()).expect("a partition");
                        // Not on and on after a writer: a marker may take the last offset.
                        let is_end =
                            ends.get(partition).is_some_and(|e| message.offset() + 2 >= *e);
                        take(record(&message));
                        if is_end {
                            break;
                        }
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) | None => break,
                    Some(Err(error)) => return Err(error.to_string()),
                }
            }
        }
        Ok(())
    }

    /// Takes what was committed since the last time, as far as that can be read at this moment: nobody's
    /// open transaction is waited for, and nobody who writes on and on is followed for long.
    pub fn read_stable(&self, mut take: impl FnMut(Record)) {
        let until = Instant::now() + Duration::from_secs(2);
        // An end is told once.
        while Instant::now() < until
            && let Some(polled) = self.consumer.poll(Duration::from_millis(100))
        {
            match polled {
                Ok(message) => take(record(&message)),
                Err(KafkaError::PartitionEOF(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A commit marker takes an offset of its own and is no record: what tells the end is the
    /// reader's position, which passes markers.
    fn is_at(&self, ends: &[i64]) -> bool {
        let position = self.consumer.position().expect("positions");
        position.elements().iter().all(|element| {
            let at = usize::try_from(element.partition()).expect("a partition");
            match element.offset() {
                Offset::Offset(position) => position >= ends[at],
                _ => ends[at] == self.begins[at],
            }
        })
    }
}

/// Looks whether a topic holds records of a transaction that has not ended.
pub struct OpenTransactions {
    topic: String,
    stable: BaseConsumer,
    high: BaseConsumer,
}

impl OpenTransactions {
    /// The topic must be there.
    pub fn open(broker: &Broker, topic: &str) -> Self {
        let [stable, high] = ["read_committed", "read_uncommitted"]
            .map(|isolation| consumer(&broker.brokers(), isolation));
        Self { topic: topic.to_owned(), stable, high }
    }

    /// Whether the last stable offset lies below the high watermark of any partition.
    pub fn any(&self) -> bool {
        let stable = watermarks(&self.stable, &self.topic);
        let high = watermarks(&self.high, &self.topic);
        stable.into_iter().zip(high).any(|((_, stable), (_, high))| stable < high)
    }
}

fn consumer(brokers: &str, isolation: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", "tests")
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    config.create().expect("a consumer")
}

/// A read_committed client that asks where a partition ends is told the last stable offset.
fn consumer_of_high_watermarks(brokers: &str) -> BaseConsumer {
    consumer(brokers, "read_uncommitted")
}

/// Where each partition of a topic ends for those who read open transactions too.
pub fn high_watermarks(brokers: &str, topic: &str) -> Vec<i64> {
    let all = watermarks(&consumer_of_high_watermarks(brokers), topic);
    all.into_iter().map(|(_, high)| high).collect()
}

/// Where each partition of a topic ends for those who read what is committed.
pub fn last_stable_offsets(brokers: &str, topic: &str) -> Vec<i64> {
    let all = watermarks(&consumer(brokers, "read_committed"), topic);
    all.into_iter().map(|(_, stable)| stable).collect()
}

/// Where each partition of a topic begins and ends. The leader of a topic that was just made, or of
/// a broker that was just restarted, may not know yet that it is one.
fn watermarks(consumer: &BaseConsumer, topic: &str) -> Vec<(i64, i64)> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let leader = |partition: i32| {
        let mut found = None;
        wait_until(&format!("the leader of {topic}-{partition}"), PATIENCE, || {
            found = consumer.fetch_watermarks(topic, partition, ANSWER_MAX).ok();
            found.is_some()
        });
        found.expect("waited for")
    };
    (0..).take(partitions).map(leader).collect()
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or(Vec::new(), |headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
            .collect()
    });
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
    }
}
