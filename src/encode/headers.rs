//! The record's headers.

use super::{
    DeadLetter,
    number::{decimal, position},
};
use crate::{
    change::Transaction,
    event::{DomainEvent, EXTRA_HEADERS_MAX, HEADER_NAME_BYTES_MAX, OwnHeader, Payload, Raw},
    sink::{
        FAILURE_REASON, FAILURE_STAGE, Headers, ORIGINAL_PREFIX, ORIGINAL_TABLE, ORIGINAL_TOPIC,
    },
};

// What `event` lets through fits a record.
const _: () = assert!(OwnHeader::ALL.len() + EXTRA_HEADERS_MAX <= u16::MAX as usize);
const _: () = assert!(HEADER_NAME_BYTES_MAX <= u16::MAX as usize);

/// Where an event comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// The stream: its ordinal among the events of its transaction.
    Stream { sequence: u64 },
    /// A row that was there before the stream: it is of no transaction.
    Snapshot,
}

/// Appends the headers; returns how many they are, and where the event's id lies among them.
pub(super) fn write(
    arena: &mut Vec<u8>,
    event: &DomainEvent<'_>,
    transaction: &Transaction,
    origin: Origin,
) -> (u16, std::ops::Range<usize>) {
    let mut writer = Writer { arena, count: 0 };
    writer.write(OwnHeader::ContentType.name(), b"application/json");
    writer.write(OwnHeader::SchemaVersion.name(), event.version.as_bytes());
    writer.write(OwnHeader::EventId.name(), event.id.as_bytes());
    let id_end = writer.arena.len();
    writer.write(OwnHeader::EventType.name(), event.event_type.as_bytes());
    writer.write(OwnHeader::CorrelationId.name(), event.correlation_id.as_bytes());
    if let Some(traceparent) = event.traceparent {
        writer.write(OwnHeader::Traceparent.name(), traceparent.as_bytes());
    }
    writer.write(OwnHeader::PgLsn.name(), position(transaction.commit_lsn).as_bytes());
    writer.write_place(transaction, origin);
    match event.payload {
        Payload::Bare(_) => {
            writer.write(OwnHeader::OccurredAt.name(), event.occurred_at.as_bytes());
            writer.write(OwnHeader::Source.name(), event.source.as_bytes());
            if let Some(causation_id) = event.causation_id {
                writer.write(OwnHeader::CausationId.name(), causation_id.as_bytes());
            }
        }
        Payload::Data(_) | Payload::Envelope { .. } | Payload::Row(_) | Payload::Change { .. } => {}
    }
    for (name, value) in event.headers.iter() {
        writer.write(name, value);
    }
    (writer.count, id_end - event.id.len()..id_end)
}

/// Appends a dead letter's headers; returns how many they are, and where what stands for an event's
/// id lies among them.
pub(super) fn write_of_dead_letter(
    arena: &mut Vec<u8>,
    letter: &DeadLetter<'_>,
    transaction: &Transaction,
    origin: Origin,
) -> (u16, std::ops::Range<usize>) {
    let mut writer = Writer { arena, count: 0 };
    writer.write(OwnHeader::ContentType.name(), b"application/json");
    writer.write(FAILURE_REASON, letter.reason.as_bytes());
    writer.write(FAILURE_STAGE, letter.stage.word().as_bytes());
    if let Some(topic) = letter.unmapped.topic {
        writer.write(ORIGINAL_TOPIC, topic.as_bytes());
    }
    match letter.unmapped.raw {
        Raw::Row { table, .. } | Raw::Change { table, .. } => {
            writer.write(ORIGINAL_TABLE, table.as_bytes())
        }
        Raw::Message { prefix, .. } => writer.write(ORIGINAL_PREFIX, prefix.as_bytes()),
    }
    if let Some(request) = letter.request {
        writer.write(OwnHeader::CorrelationId.name(), request.as_bytes());
    }
    let commit_lsn = position(transaction.commit_lsn);
    writer.write(OwnHeader::PgLsn.name(), commit_lsn.as_bytes());
    let lsn_end = writer.arena.len();
    writer.write_place(transaction, origin);
    (writer.count, lsn_end - commit_lsn.as_bytes().len()..lsn_end)
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

    /// Where in its transaction, where it is of one.
    #[inline]
    fn write_place(&mut self, transaction: &Transaction, origin: Origin) {
        match origin {
            Origin::Stream { sequence } => {
                let xid = u64::from(transaction.xid.0);
                self.write(OwnHeader::PgSeq.name(), decimal(sequence).as_bytes());
                self.write(OwnHeader::PgXid.name(), decimal(xid).as_bytes());
            }
            Origin::Snapshot => {}
        }
    }
}
