//! The outbox without a table: each transactional message of a configured prefix is an event.
//!
//! Its content is an envelope, of which `type` and `data` must be there. It is published as it was
//! written; what is missing is added at its end.

use crate::{
    change::Transaction,
    event::{
        DomainEvent, ExtraHeaders, Field, FieldProblem, LogicalMessage, Reason, TypeTemplate, id,
        outbox::{
            Scratch, Shared, envelope, read_json,
            row::{VERSION, own_id, to_payload},
        },
        route, timestamp,
    },
};

/// One prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageSettings {
    /// The prefix of its messages.
    pub prefix: String,
    /// Where its events go.
    pub topic: TypeTemplate,
}

/// The event of a message.
pub(in crate::event) fn map<'a>(
    topic: &TypeTemplate,
    shared: Shared<'a>,
    message: LogicalMessage<'a>,
    transaction: &Transaction,
    scratch: &'a mut Scratch,
) -> Result<DomainEvent<'a>, Reason> {
    scratch.shrink();
    let Scratch { id, envelope_id, occurred_at, topic: topic_name, envelope: walk, .. } = scratch;
    let refuse = |field: Field, problem| Reason::MessageField { name: field.name(), problem };

    let text = read_json(message.content)?;
    let envelope = envelope::read_message(text, walk)?;
    let event_type = match envelope.text(Field::Type) {
        None => return Err(refuse(Field::Type, FieldProblem::Missing)),
        Some("") => return Err(refuse(Field::Type, FieldProblem::Empty)),
        Some(event_type) => event_type,
    };
    let own_id = own_id(&envelope, envelope_id);
    let id = match own_id.map_err(|_| refuse(Field::Id, FieldProblem::NotUuid))? {
        Some(own) => own,
        None => id::of_message(shared.identity, transaction, message.message_lsn, id),
    };
    let context = shared.context;
    let causation_id = envelope.text(Field::CausationId).or_else(|| context.causation_id());
    let correlation_id = envelope.text(Field::CorrelationId).or_else(|| context.correlation_id());
    Ok(DomainEvent {
        id,
        event_type,
        version: envelope.text(Field::Version).unwrap_or(VERSION),
        source: envelope.text(Field::Source).unwrap_or(shared.source),
        correlation_id: correlation_id.unwrap_or(id),
        causation_id,
        occurred_at: match envelope.text(Field::OccurredAt) {
            Some(instant) => instant,
            None => timestamp::from_timestamp(transaction.committed_at, occurred_at)
                .ok_or(Reason::CommitTimeOutOfRange)?,
        },
        traceparent: context.traceparent(),
        key: envelope.aggregate_id.map(str::as_bytes),
        topic: match route::find(shared.routes, event_type) {
            Some(route) => route.topic.resolve(event_type, topic_name)?,
            None => topic.resolve(event_type, topic_name)?,
        },
        payload: to_payload(text, &envelope, causation_id),
        headers: ExtraHeaders::none(),
        partition: None,
    })
}
