//! Asking the brokers about topics, and making them, on a client that is there anyway: rdkafka's
//! own administrative client would be another client with threads and connections of its own.

use std::{
    collections::BTreeMap,
    ptr,
    time::{Duration, Instant},
};

use rdkafka::{
    client::Client,
    error::{KafkaError as ClientError, RDKafkaErrorCode},
};
use rdkafka_sys as sys;

use crate::sink::kafka::{
    Cancel, KafkaError,
    context::Context,
    native::{self, CallError, Event, Queue},
    settings::Administration,
};

/// How long one request may take: the caller's cancellation is looked at in between.
const ATTEMPT: Duration = Duration::from_secs(1);

/// How long requests are repeated before the caller starts over: a broker's restart fits in.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at something that is about to be there.
const PAUSE_MS: i32 = 20;

/// The brokers, by way of a connected client.
pub(super) struct Brokers<'a> {
    pub(super) client: &'a Client<Context>,
    pub(super) cancel: &'a Cancel,
    pub(super) administration: Administration,
}

/// A topic to be made.
pub(super) struct NewTopic<'a> {
    pub(super) name: &'a str,
    /// -1 is the broker's default.
    pub(super) partitions: i32,
    /// -1 is the broker's default.
    pub(super) replication_factor: i32,
    pub(super) config: &'a BTreeMap<String, String>,
}

impl NewTopic<'_> {
    /// The command that makes the same topic.
    pub(super) fn command(&self) -> String {
        let mut command =
            format!("kafka-topics.sh --bootstrap-server <broker> --create --topic {}", self.name);
        if self.partitions > 0 {
            command.push_str(&format!(" --partitions {}", self.partitions));
        }
        if self.replication_factor > 0 {
            command.push_str(&format!(" --replication-factor {}", self.replication_factor));
        }
        for (key, value) in self.config {
            command.push_str(&format!(" --config {key}={value}"));
        }
        command
    }
}

impl Brokers<'_> {
    /// How many partitions a topic has; none where there is no such topic.
    pub(super) fn partitions(&self, topic: &str) -> Result<Option<u32>, KafkaError> {
        let action = || format!("ask for topic \"{topic}\"");
        let deadline = Instant::now() + LIMIT;
        loop {
            self.cancel.check()?;
            let (code, reason) = match self.client.fetch_metadata(Some(topic), ATTEMPT) {
                Err(error) => (code_of(&error), error.to_string()),
                Ok(metadata) => {
                    let found = metadata.topics().iter().find(|found| found.name() == topic);
                    let code = found.map_or(RDKafkaErrorCode::UnknownTopicOrPartition, |found| {
                        found.error().map_or(RDKafkaErrorCode::NoError, RDKafkaErrorCode::from)
                    });
                    let count = found.map_or(0, |found| found.partitions().len());
                    if code == RDKafkaErrorCode::NoError && count > 0 {
                        return Ok(u32::try_from(count).ok());
                    }
                    (code, code.to_string())
                }
            };
            let missing = code == RDKafkaErrorCode::UnknownTopicOrPartition;
            if missing && self.administration == Administration::Full {
                return Ok(None);
            }
            if !is_passing(code) && !missing {
                return Err(failure(action(), CallError { code, reason, retriable: false }));
            }
            if Instant::now() > deadline {
                return Err(KafkaError::Call { action: action(), reason });
            }
            self.pause();
        }
    }

    /// Makes a topic and waits until it is there, whoever made it.
    pub(super) fn create(&self, topic: &NewTopic<'_>) -> Result<u32, KafkaError> {
        let refused = |reason: String| KafkaError::TopicMissing {
            topic: topic.name.to_owned(),
            reason: Some(reason),
            command: topic.command(),
        };
        let event = self.request(
            || format!("create topic \"{}\"", topic.name),
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS,
            |options, queue| self.request_creation(topic, options, queue),
        )?;
        match created(&event) {
            Ok(()) => {}
            Err(error) if error.code == RDKafkaErrorCode::TopicAlreadyExists => {}
            Err(error) if is_passing(error.code) => {
                return Err(failure(format!("create topic \"{}\"", topic.name), error));
            }
            Err(error) => return Err(refused(error.reason)),
        }
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(partitions) = self.partitions(topic.name)? {
                return Ok(partitions);
            }
            if Instant::now() > deadline {
                return Err(KafkaError::Call {
                    action: format!("find topic \"{}\" after its creation", topic.name),
                    reason: "the brokers do not know it yet".to_owned(),
                });
            }
            self.pause();
        }
    }

    pub(super) fn request_creation(
        &self,
        topic: &NewTopic<'_>,
        options: *mut sys::rd_kafka_AdminOptions_t,
        queue: &Queue,
    ) -> Result<(), KafkaError> {
        let name = native::c_string(topic.name)?;
        // SAFETY: names and values live through the calls that read them; librdkafka copies the
        // new topic, which is destroyed here.
        unsafe {
            let mut new = sys::rd_kafka_NewTopic_new(
                name.as_ptr(),
                topic.partitions,
                topic.replication_factor,
                ptr::null_mut(),
                0,
            );
            if new.is_null() {
                return Err(KafkaError::Call {
                    action: format!("create topic \"{}\"", topic.name),
                    reason: "its name, partitions or replicas are out of range".to_owned(),
                });
            }
            for (key, value) in topic.config {
                let (key, value) = (native::c_string(key)?, native::c_string(value)?);
                sys::rd_kafka_NewTopic_set_config(new, key.as_ptr(), value.as_ptr());
            }
            sys::rd_kafka_CreateTopics(
                self.client.native_ptr(),
                &raw mut new,
                1,
                options,
                queue.as_ptr(),
            );
            sys::rd_kafka_NewTopic_destroy(new);
        }
        Ok(())
    }

    /// A topic's configuration; none where the brokers do not tell us.
    pub(super) fn configuration(
        &self,
        topic: &str,
    ) -> Result<Option<BTreeMap<String, String>>, KafkaError> {
        if self.administration == Administration::Absent {
            return Ok(None);
        }
        let name = native::c_string(topic)?;
        let event = self.request(
            || format!("ask for the configuration of topic \"{topic}\""),
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS,
            |options, queue| {
                let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
                // SAFETY: librdkafka copies the resource, which is destroyed here.
                unsafe {
                    let mut resource = sys::rd_kafka_ConfigResource_new(kind, name.as_ptr());
                    sys::rd_kafka_DescribeConfigs(
                        self.client.native_ptr(),
                        &raw mut resource,
                        1,
                        options,
                        queue.as_ptr(),
                    );
                    sys::rd_kafka_ConfigResource_destroy(resource);
                }
                Ok(())
            },
        )?;
        match described(&event) {
            Ok(entries) => Ok(Some(entries)),
            Err(error) if is_denial(error.code) => Ok(None),
            Err(error) => {
                Err(failure(format!("ask for the configuration of topic \"{topic}\""), error))
            }
        }
    }

    /// The offset after the last record of partition 0, of open transactions too. A client that
    /// reads committed records only gets the last stable offset for an answer everywhere else.
    pub(super) fn high_watermark(&self, topic: &str) -> Result<i64, KafkaError> {
        let name = native::c_string(topic)?;
        let action = || format!("ask for the high watermark of topic \"{topic}\"");
        let event = self.request(
            action,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            |options, queue| {
                // SAFETY: librdkafka copies the list, which is destroyed here.
                unsafe {
                    let level =
                        sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED;
                    let set = sys::rd_kafka_AdminOptions_set_isolation_level(options, level);
                    native::check(set).map_err(|error| failure(action(), error))?;
                    let list = sys::rd_kafka_topic_partition_list_new(1);
                    let entry = sys::rd_kafka_topic_partition_list_add(list, name.as_ptr(), 0);
                    (*entry).offset =
                        sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64;
                    sys::rd_kafka_ListOffsets(
                        self.client.native_ptr(),
                        list,
                        options,
                        queue.as_ptr(),
                    );
                    sys::rd_kafka_topic_partition_list_destroy(list);
                }
                Ok(())
            },
        )?;
        listed_offset(&event).map_err(|error| failure(action(), error))
    }

    /// Makes a request and waits for its result, looking at the cancellation meanwhile.
    pub(super) fn request(
        &self,
        action: impl Fn() -> String,
        operation: sys::rd_kafka_admin_op_t,
        send: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t, &Queue) -> Result<(), KafkaError>,
    ) -> Result<Event, KafkaError> {
        let queue = Queue::new(self.client.native_ptr());
        // SAFETY: the options live until after the request was made, which copies them.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(self.client.native_ptr(), operation);
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options,
                milliseconds(LIMIT),
                ptr::null_mut(),
                0,
            );
            let sent = send(options, &queue);
            sys::rd_kafka_AdminOptions_destroy(options);
            sent?;
        }
        let deadline = Instant::now() + LIMIT + ATTEMPT;
        loop {
            self.cancel.check()?;
            if let Some(event) = queue.poll(milliseconds(ATTEMPT / 4)) {
                return match event.check() {
                    Ok(()) => Ok(event),
                    Err(error) if is_denial(error.code) => Ok(event),
                    Err(error) => Err(failure(action(), error)),
                };
            }
            if Instant::now() > deadline {
                let reason = self.client.context().last_error_or("no broker answered");
                return Err(KafkaError::TimedOut {
                    action: action(),
                    limit: LIMIT,
                    bytes: 0,
                    reason,
                });
            }
        }
    }

    /// Waits on a queue that nothing comes to.
    fn pause(&self) {
        Queue::new(self.client.native_ptr()).poll(PAUSE_MS);
    }
}

/// The outcome of a creation, of the topic or of the whole request.
pub(super) fn created(event: &Event) -> Result<(), CallError> {
    event.check()?;
    // SAFETY: the results live as long as the event.
    unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_CreateTopics_result(event.as_ptr());
        let topics = sys::rd_kafka_CreateTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count == 0 {
            return Err(empty_answer());
        }
        let code = RDKafkaErrorCode::from(sys::rd_kafka_topic_result_error(*topics));
        if code == RDKafkaErrorCode::NoError {
            return Ok(());
        }
        let words = native::text(sys::rd_kafka_topic_result_error_string(*topics));
        let reason = if words.is_empty() { code.to_string() } else { words };
        Err(CallError { code, reason, retriable: false })
    }
}

/// The entries of the one described resource.
fn described(event: &Event) -> Result<BTreeMap<String, String>, CallError> {
    event.check()?;
    let mut entries = BTreeMap::new();
    // SAFETY: the results live as long as the event; `count` bounds the entries.
    unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeConfigs_result(event.as_ptr());
        let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count);
        if resources.is_null() || count == 0 {
            return Err(empty_answer());
        }
        let code = sys::rd_kafka_ConfigResource_error(*resources).into();
        if code != RDKafkaErrorCode::NoError {
            let reason = native::text(sys::rd_kafka_ConfigResource_error_string(*resources));
            return Err(CallError { code, reason, retriable: false });
        }
        let configs = sys::rd_kafka_ConfigResource_configs(*resources, &raw mut count);
        for index in 0..count {
            let entry = *configs.add(index);
            entries.insert(
                native::text(sys::rd_kafka_ConfigEntry_name(entry)),
                native::text(sys::rd_kafka_ConfigEntry_value(entry)),
            );
        }
    }
    Ok(entries)
}

/// The offset of the one listed partition.
fn listed_offset(event: &Event) -> Result<i64, CallError> {
    event.check()?;
    // SAFETY: the results live as long as the event.
    unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_ListOffsets_result(event.as_ptr());
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        if infos.is_null() || count == 0 {
            return Err(empty_answer());
        }
        let partition = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos);
        let code = partition.err.into();
        if code == RDKafkaErrorCode::NoError {
            return Ok(partition.offset);
        }
        Err(CallError { code, reason: code.to_string(), retriable: false })
    }
}

fn empty_answer() -> CallError {
    let reason = "the answer is empty".to_owned();
    CallError { code: RDKafkaErrorCode::BadMessage, reason, retriable: false }
}

/// Makes an error of a code.
pub(super) fn failure(action: String, error: CallError) -> KafkaError {
    let reason = error.reason;
    if is_denial(error.code) {
        return KafkaError::Denied { action, reason };
    }
    KafkaError::Call { action, reason }
}

/// What a request may say on a cluster where nothing is wrong for good.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::TimedOutQueue
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotController
            | RDKafkaErrorCode::NetworkException
            | RDKafkaErrorCode::UnknownPartition
            // Too few brokers are registered, which is so while a cluster starts.
            | RDKafkaErrorCode::InvalidReplicationFactor
            | RDKafkaErrorCode::ThrottlingQuotaExceeded
            | RDKafkaErrorCode::NoError
    )
}

/// What a missing permission says.
pub(super) fn is_denial(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
    )
}

fn code_of(error: &ClientError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

/// A time-out as librdkafka takes it.
pub(super) fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
