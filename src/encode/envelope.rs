//! The record's value.

use std::ops::Range;

use super::row;
use crate::{
    event::{DomainEvent, Field, FieldSet, Payload, Reason},
    value::{Written, string},
};

/// Appends the value; none where it is null.
///
/// # Errors
/// Where a row's value has no JSON form.
pub(super) fn write(
    target: &mut Vec<u8>,
    event: &DomainEvent<'_>,
) -> Result<Option<Written>, Reason> {
    let mut written = Written::AsDescribed;
    match event.payload {
        Payload::Data(data) => {
            write_before_data(target, event);
            target.extend_from_slice(data.as_bytes());
            target.push(b'}');
        }
        Payload::Row(data) => {
            write_before_data(target, event);
            let outcome = row::write(target, data)?;
            written = outcome.written;
            if outcome.is_short {
                row::write_unavailable(target, data);
            }
            target.push(b'}');
        }
        Payload::Change { before, after } => {
            write_before_data(target, event);
            let outcome = row::write_change(target, before, after)?;
            written = outcome.written;
            if let Some(after) = after.filter(|_| outcome.is_short) {
                row::write_unavailable(target, after);
            }
            target.push(b'}');
        }
        Payload::Envelope { text, cuts, closing_brace, missing } => {
            write_completed(target, event, text, cuts, closing_brace, missing);
        }
        Payload::Bare(Some(text)) => target.extend_from_slice(text.as_bytes()),
        Payload::Bare(None) => return Ok(None),
    }
    Ok(Some(written))
}

/// The envelope up to its data, in the order of [`Field::ALL`].
fn write_before_data(target: &mut Vec<u8>, event: &DomainEvent<'_>) {
    // An id is hexadecimal digits and hyphens, an instant digits and marks: nothing to escape.
    target.extend_from_slice(b"{\"id\":\"");
    target.extend_from_slice(event.id.as_bytes());
    target.extend_from_slice(b"\",\"type\":");
    string::write(target, event.event_type);
    target.extend_from_slice(b",\"version\":");
    string::write(target, event.version);
    target.extend_from_slice(b",\"source\":");
    string::write(target, event.source);
    target.extend_from_slice(b",\"correlationId\":");
    string::write(target, event.correlation_id);
    if let Some(causation_id) = event.causation_id {
        target.extend_from_slice(b",\"causationId\":");
        string::write(target, causation_id);
    }
    target.extend_from_slice(b",\"occurredAt\":\"");
    target.extend_from_slice(event.occurred_at.as_bytes());
    target.extend_from_slice(b"\",\"data\":");
}

/// An envelope as it is, but for what is cut out of it and what is added at its end.
fn write_completed(
    target: &mut Vec<u8>,
    event: &DomainEvent<'_>,
    text: &str,
    cuts: &[Range<usize>],
    closing_brace: usize,
    missing: FieldSet,
) {
    let kept = |from: usize, to: usize| {
        let range = text.as_bytes().get(from..to);
        range.expect("cuts and brace lie in the text, in order and without overlap")
    };
    let mut kept_from = 0;
    for cut in cuts {
        target.extend_from_slice(kept(kept_from, cut.start));
        kept_from = cut.end;
    }
    target.extend_from_slice(kept(kept_from, closing_brace));
    for field in Field::ALL {
        let Some(value) = text_of(event, field).filter(|_| missing.contains(field)) else {
            continue;
        };
        // The members that stay hold `data` at least, so there is one before the comma.
        target.extend_from_slice(b",\"");
        target.extend_from_slice(field.name().as_bytes());
        target.extend_from_slice(b"\":");
        string::write(target, value);
    }
    target.extend_from_slice(kept(closing_brace, text.len()));
}

fn text_of<'a>(event: &DomainEvent<'a>, field: Field) -> Option<&'a str> {
    match field {
        Field::Id => Some(event.id),
        Field::Type => Some(event.event_type),
        Field::Version => Some(event.version),
        Field::Source => Some(event.source),
        Field::CorrelationId => Some(event.correlation_id),
        Field::CausationId => event.causation_id,
        Field::OccurredAt => Some(event.occurred_at),
        // Always in the payload.
        Field::Data => None,
    }
}
