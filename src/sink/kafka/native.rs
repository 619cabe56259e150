//! Objects of librdkafka that rdkafka has no owner for, each released when it is dropped.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    ptr::{self, NonNull},
};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;

use crate::sink::{Headers, kafka::KafkaError};

/// What a transactional call says when it does not succeed.
#[derive(Debug)]
pub(super) struct CallError {
    pub(super) code: RDKafkaErrorCode,
    pub(super) reason: String,
    /// The call goes on in the background and is to be made again.
    pub(super) retriable: bool,
}

/// Takes over the error of a call.
///
/// # Safety
/// `error` is null or an error that nobody else destroys.
pub(super) unsafe fn check(error: *mut sys::rd_kafka_error_t) -> Result<(), CallError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: `error` is alive until the call of `rd_kafka_error_destroy` below.
    unsafe {
        let failure = CallError {
            code: sys::rd_kafka_error_code(error).into(),
            reason: text(sys::rd_kafka_error_string(error)),
            retriable: sys::rd_kafka_error_is_retriable(error) != 0,
        };
        sys::rd_kafka_error_destroy(error);
        Err(failure)
    }
}

/// A copy of a C string; empty for null.
///
/// # Safety
/// `string` is null or ends with a zero byte and is alive during the call.
pub(super) unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// A name for librdkafka.
pub(super) fn c_string(name: &str) -> Result<CString, KafkaError> {
    CString::new(name).map_err(|_| KafkaError::Call {
        action: format!("name \"{}\" to Kafka", name.escape_debug()),
        reason: "it holds a zero byte".to_owned(),
    })
}

/// A topic's handle. librdkafka finds a topic by name by walking a list under a lock, for each
/// record: the handle spares that.
///
/// Must be dropped before its client: librdkafka waits for handles when it ends.
#[derive(Debug)]
pub(super) struct Topic(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: topic handles are counted references that librdkafka lets any thread use.
unsafe impl Send for Topic {}

impl Topic {
    pub(super) fn new(client: *mut sys::rd_kafka_t, name: &str) -> Result<Self, KafkaError> {
        let c_name = c_string(name)?;
        // SAFETY: the client is alive, the name ends with a zero byte, and a null configuration
        // stands for the client's own.
        let topic = unsafe { sys::rd_kafka_topic_new(client, c_name.as_ptr(), ptr::null_mut()) };
        NonNull::new(topic).map(Self).ok_or_else(|| KafkaError::Call {
            action: format!("open topic \"{name}\""),
            reason: RDKafkaErrorCode::InvalidTopic.to_string(),
        })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_t {
        self.0.as_ptr()
    }

    pub(super) fn name(&self) -> String {
        // SAFETY: the handle is ours, and the name is its own, with a zero byte at the end.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.0.as_ptr())) };
        name.to_string_lossy().into_owned()
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is not used after this.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// The headers of one record in librdkafka's form. A record that was taken owns them.
#[derive(Debug)]
pub(super) struct HeaderList(*mut sys::rd_kafka_headers_t);

impl HeaderList {
    pub(super) fn new(headers: Headers<'_>, count: u16) -> Self {
        if count == 0 {
            return Self(ptr::null_mut());
        }
        // SAFETY: name and value are read within the call by the lengths given with them.
        unsafe {
            let list = sys::rd_kafka_headers_new(usize::from(count));
            for (name, value) in headers {
                sys::rd_kafka_header_add(
                    list,
                    name.as_ptr().cast::<c_char>(),
                    name.len().cast_signed(),
                    value.as_ptr().cast::<c_void>(),
                    value.len().cast_signed(),
                );
            }
            Self(list)
        }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_headers_t {
        self.0
    }

    /// The record was taken: librdkafka releases them.
    pub(super) fn given_away(self) {
        std::mem::forget(self);
    }
}

impl Drop for HeaderList {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: not given away, so they are ours alone.
            unsafe { sys::rd_kafka_headers_destroy(self.0) }
        }
    }
}

/// A queue of events. Must be dropped before its client.
#[derive(Debug)]
pub(super) struct Queue(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used by all threads; this is a counted reference to one.
unsafe impl Send for Queue {}
// SAFETY: see above.
unsafe impl Sync for Queue {}

impl Queue {
    /// One of its own, for one administrative request.
    pub(super) fn new(client: *mut sys::rd_kafka_t) -> Self {
        // SAFETY: the client is alive.
        Self::of(unsafe { sys::rd_kafka_queue_new(client) })
    }

    /// The client's own, which it is polled by.
    pub(super) fn main(client: *mut sys::rd_kafka_t) -> Self {
        // SAFETY: the client is alive.
        Self::of(unsafe { sys::rd_kafka_queue_get_main(client) })
    }

    fn of(queue: *mut sys::rd_kafka_queue_t) -> Self {
        Self(NonNull::new(queue).expect("librdkafka aborts when it has no memory for a queue"))
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_length(self.0.as_ptr()) }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.0.as_ptr()
    }

    /// The next event, if one comes in time.
    pub(super) fn poll(&self, timeout_ms: i32) -> Option<Event> {
        // SAFETY: the queue is alive.
        NonNull::new(unsafe { sys::rd_kafka_queue_poll(self.0.as_ptr(), timeout_ms) }).map(Event)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is ours and is not used after this.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// The result of an administrative request.
#[derive(Debug)]
pub(super) struct Event(NonNull<sys::rd_kafka_event_t>);

impl Event {
    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }

    /// Whether the request as a whole succeeded.
    pub(super) fn check(&self) -> Result<(), CallError> {
        // SAFETY: the event is alive.
        unsafe {
            let code = sys::rd_kafka_event_error(self.0.as_ptr()).into();
            if code == RDKafkaErrorCode::NoError {
                return Ok(());
            }
            let reason = text(sys::rd_kafka_event_error_string(self.0.as_ptr()));
            Err(CallError { code, reason, retriable: false })
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours and is not used after this.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}
