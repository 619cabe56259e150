//! What a doctor asks the brokers: topics with their replicas and our rights on them, and whether a
//! topic could be made. Nothing is made, written or fenced by it.

use std::{
    collections::BTreeSet,
    ffi::{CString, c_char},
    ptr,
};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

use crate::sink::kafka::{
    Kafka, KafkaError, TopicSettings,
    administration::{self, Brokers, NewTopic},
    native::{self, CallError, Event},
};

/// What we may do with a topic, as far as anything here needs it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Right {
    /// Reading its records.
    Read,
    /// Producing to it.
    Write,
    /// Asking for its configuration.
    DescribeConfigs,
}

impl Right {
    /// As `kafka-acls.sh --operation` has it.
    pub fn operation(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::DescribeConfigs => "DescribeConfigs",
        }
    }
}

/// A topic as the brokers describe it to us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicReport {
    /// How many partitions it has.
    pub partitions: usize,
    /// Replicas of the partition that has the fewest.
    pub replicas: usize,
    /// Replicas in sync of the partition that has the fewest.
    pub in_sync: usize,
    /// What we may do; none where the brokers do not tell (before Kafka 2.3).
    pub rights: Option<BTreeSet<Right>>,
    /// `min.insync.replicas`; none where its configuration is not told to us.
    pub in_sync_min: Option<usize>,
    /// `max.message.bytes`; none likewise.
    pub bytes_max: Option<usize>,
    /// Whether `cleanup.policy` has `compact`; none likewise.
    pub is_compacted: Option<bool>,
}

/// What there is under a topic's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopicState {
    /// Nothing.
    Missing,
    /// Nothing that we may see.
    Hidden,
    /// A topic.
    There(TopicReport),
}

/// Whether a topic could be made; where not, [`KafkaError::TopicMissing`] has the reason.
#[derive(Debug)]
pub enum Creation {
    /// It could.
    Possible,
    /// Not by us: `kafka.create_topics` is false, or the right is missing.
    NotAllowed(KafkaError),
    /// Not with so many replicas.
    TooFewBrokers(KafkaError),
    /// Not as it is wanted.
    Refused(KafkaError),
}

impl Kafka {
    /// Looks a topic up.
    ///
    /// # Errors
    /// Where no broker answers.
    pub fn survey_topic(&self, name: &str) -> Result<TopicState, KafkaError> {
        let brokers = self.brokers();
        let Some(mut report) = (match brokers.describe(name) {
            Ok(report) => report,
            Err(error) if administration::is_denial(error.code) => return Ok(TopicState::Hidden),
            Err(error) => {
                return Err(administration::failure(format!("ask for topic \"{name}\""), error));
            }
        }) else {
            return Ok(TopicState::Missing);
        };
        if let Some(entries) = brokers.configuration(name)? {
            let number = |key: &str| entries.get(key)?.parse().ok();
            report.in_sync_min = number("min.insync.replicas");
            report.bytes_max = number("max.message.bytes");
            report.is_compacted =
                entries.get("cleanup.policy").map(|policy| policy.contains("compact"));
        }
        Ok(TopicState::There(report))
    }

    /// The names of all topics that we may see, Kafka's own excepted.
    ///
    /// # Errors
    /// Where no broker answers.
    pub fn topic_names(&self) -> Result<Vec<String>, KafkaError> {
        let metadata = self.brokers().client.fetch_metadata(None, administration::LIMIT);
        let metadata = metadata.map_err(|error| KafkaError::Call {
            action: "list the topics".to_owned(),
            reason: error.to_string(),
        })?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        Ok(names.filter(|name| !name.starts_with("__")).collect())
    }

    /// Has the brokers judge the creation of a topic, and not make it.
    ///
    /// # Errors
    /// Where no broker answers.
    pub fn try_creation(&self, name: &str, wanted: &TopicSettings) -> Result<Creation, KafkaError> {
        let topic = new_topic(name, wanted);
        let missing = |reason: Option<String>| KafkaError::TopicMissing {
            topic: name.to_owned(),
            reason,
            command: topic.command(),
        };
        if !self.settings.create_topics {
            return Ok(Creation::NotAllowed(missing(None)));
        }
        let Err(CallError { code, reason, .. }) = self.brokers().validate(&topic)? else {
            return Ok(Creation::Possible);
        };
        Ok(match code {
            RDKafkaErrorCode::TopicAlreadyExists => Creation::Possible,
            RDKafkaErrorCode::InvalidReplicationFactor => {
                Creation::TooFewBrokers(missing(Some(reason)))
            }
            code if administration::is_denial(code) => Creation::NotAllowed(missing(Some(reason))),
            _ => Creation::Refused(missing(Some(reason))),
        })
    }

    fn brokers(&self) -> Brokers<'_> {
        let [producer, _] = &self.producers;
        Brokers {
            client: producer.client(),
            cancel: &self.cancel,
            administration: self.settings.administration,
        }
    }
}

fn new_topic<'a>(name: &'a str, wanted: &'a TopicSettings) -> NewTopic<'a> {
    NewTopic {
        name,
        partitions: wanted.partitions.unwrap_or(-1),
        replication_factor: wanted.replication_factor.unwrap_or(-1),
        config: &wanted.config,
    }
}

impl Brokers<'_> {
    /// A topic with its replicas and our rights; none where there is no such topic.
    fn describe(&self, name: &str) -> Result<Option<TopicReport>, CallError> {
        let unasked = |error: KafkaError| CallError {
            code: RDKafkaErrorCode::Fail,
            reason: error.to_string(),
            retriable: false,
        };
        let c_name = native::c_string(name).map_err(unasked)?;
        let event = self.request(
            || format!("ask for topic \"{name}\""),
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            |options, queue| {
                // SAFETY: librdkafka copies the collection, which is destroyed here, and the
                // options outlive the call.
                unsafe {
                    let asked = native::check(
                        sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1),
                    );
                    asked
                        .map_err(|error| administration::failure("ask for rights".into(), error))?;
                    let topics = collection(&c_name);
                    sys::rd_kafka_DescribeTopics(
                        self.client.native_ptr(),
                        topics,
                        options,
                        queue.as_ptr(),
                    );
                    sys::rd_kafka_TopicCollection_destroy(topics);
                }
                Ok(())
            },
        );
        described(&event.map_err(unasked)?)
    }

    /// Whether a topic could be made. The outer error is that nobody answered.
    fn validate(&self, topic: &NewTopic<'_>) -> Result<Result<(), CallError>, KafkaError> {
        let event = self.request(
            || format!("ask whether topic \"{}\" can be made", topic.name),
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS,
            |options, queue| {
                // SAFETY: the options outlive the call; there is no buffer for its words.
                let code = unsafe {
                    sys::rd_kafka_AdminOptions_set_validate_only(options, 1, ptr::null_mut(), 0)
                };
                debug_assert_eq!(RDKafkaErrorCode::from(code), RDKafkaErrorCode::NoError);
                self.request_creation(topic, options, queue)
            },
        )?;
        Ok(administration::created(&event))
    }
}

/// A collection of one topic.
///
/// # Safety
/// The caller destroys it.
unsafe fn collection(name: &CString) -> *mut sys::rd_kafka_TopicCollection_t {
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    // SAFETY: the name lives through the call, which copies it.
    unsafe { sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()) }
}

/// The one described topic; none where there is no such topic.
fn described(event: &Event) -> Result<Option<TopicReport>, CallError> {
    event.check()?;
    // SAFETY: the results live as long as the event; each count bounds its list.
    unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.as_ptr());
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count == 0 {
            return Ok(None);
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        let code = if error.is_null() {
            RDKafkaErrorCode::NoError
        } else {
            sys::rd_kafka_error_code(error).into()
        };
        match code {
            RDKafkaErrorCode::NoError => {}
            RDKafkaErrorCode::UnknownTopicOrPartition => return Ok(None),
            code => {
                let reason = native::text(sys::rd_kafka_error_string(error));
                return Err(CallError { code, reason, retriable: false });
            }
        }
        let partitions = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let (partition_count, mut replicas, mut in_sync) = (count, usize::MAX, usize::MAX);
        for index in 0..partition_count {
            let partition = *partitions.add(index);
            sys::rd_kafka_TopicPartitionInfo_replicas(partition, &raw mut count);
            replicas = replicas.min(count);
            sys::rd_kafka_TopicPartitionInfo_isr(partition, &raw mut count);
            in_sync = in_sync.min(count);
        }
        let operations =
            sys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
        let rights = (!operations.is_null())
            .then(|| (0..count).filter_map(|index| right(*operations.add(index))).collect());
        Ok(Some(TopicReport {
            partitions: partition_count,
            replicas,
            in_sync,
            rights,
            in_sync_min: None,
            bytes_max: None,
            is_compacted: None,
        }))
    }
}

fn right(operation: sys::rd_kafka_AclOperation_t) -> Option<Right> {
    use sys::rd_kafka_AclOperation_t as Operation;
    match operation {
        Operation::RD_KAFKA_ACL_OPERATION_READ => Some(Right::Read),
        Operation::RD_KAFKA_ACL_OPERATION_WRITE => Some(Right::Write),
        Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Right::DescribeConfigs),
        _ => None,
    }
}
