//! The record's headers.

use super::number::{decimal, position};
use crate::{
    change::Transaction,
    event::{DomainEvent, EXTRA_HEADERS_MAX, HEADER_NAME_BYTES_MAX, Payload},
    sink::Headers,
};

/// The most headers that [`write`] adds of its own.
const OWN_HEADERS_MAX: usize = 12;

// What `event` lets through fits a record.
const _: () = assert!(OWN_HEADERS_MAX + EXTRA_HEADERS_MAX <= u16::MAX as usize);
const _: () = assert!(HEADER_NAME_BYTES_MAX <= u16::MAX as usize);

/// Appends the headers; returns how many they are, and where the event's id lies among them.
pub(super) fn write(
    arena: &mut Vec<u8>,
    event: &DomainEvent<'_>,
    transaction: &Transaction,
    sequence: u64,
) -> (u16, std::ops::Range<usize>) {
    let mut writer = Writer { arena, count: 0 };
    writer.write("content-type", b"application/json");
    writer.write("schema-version", event.version.as_bytes());
    writer.write("event-id", event.id.as_bytes());
    let id_end = writer.arena.len();
    writer.write("event-type", event.event_type.as_bytes());
    writer.write("correlation-id", event.correlation_id.as_bytes());
    if let Some(traceparent) = event.traceparent {
        writer.write("traceparent", traceparent.as_bytes());
    }
    writer.write("pg-lsn", position(transaction.commit_lsn).as_bytes());
    writer.write("pg-seq", decimal(sequence).as_bytes());
    writer.write("pg-xid", decimal(u64::from(transaction.xid.0)).as_bytes());
    match event.payload {
        Payload::Bare(_) => {
            writer.write("occurred-at", event.occurred_at.as_bytes());
            writer.write("source", event.source.as_bytes());
            if let Some(causation_id) = event.causation_id {
                writer.write("causation-id", causation_id.as_bytes());
            }
        }
        Payload::Data(_) | Payload::Envelope { .. } => {}
    }
    for (name, value) in event.headers.iter() {
        writer.write(name, value);
    }
    (writer.count, id_end - event.id.len()..id_end)
}

struct Writer<'w> {
    arena: &'w mut Vec<u8>,
    count: u16,
}

impl Writer<'_> {
    #[inline]
    fn write(&mut self, name: &str, value: &[u8]) {
        Headers::write(self.arena, name, value);
        self.count += 1;
    }
}
