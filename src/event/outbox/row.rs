//! From one inserted row to its event.

use crate::{
    change::{Transaction, Tuple},
    event::{
        ColumnAt, DatabaseIdentity, DomainEvent, ExtraHeaders, Field, FieldProblem, OwnHeader,
        Payload, Reason, Route,
        context::Context,
        id::{self, ID_BYTES, KeyIds, RowId},
        outbox::{
            PayloadForm,
            columns::{Columns, IdText},
            envelope::{self, Envelope},
            header_object, payload,
            table::Table,
        },
        route,
        timestamp::{self, INSTANT_BYTES, TimestampProblem},
    },
};

/// The version of an event that says nothing of it.
pub(super) const VERSION: &str = "1.0";

/// What is kept of the memory for decoded payloads between rows, in bytes. A bytea may hold
/// 1 GiB; typical payloads fit many times.
const DECODED_BYTES_KEPT: usize = 1 << 20;

/// What the settings, and the open transaction, say of all events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<'a> {
    /// The envelope's `source`.
    pub(crate) source: &'a str,
    pub(crate) identity: &'a DatabaseIdentity,
    pub(crate) routes: &'a [Route],
    pub(crate) context: &'a Context,
}

/// Memory for the texts that do not lie in a row's frame as they are needed. Reused by every row.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(super) id: [u8; ID_BYTES],
    /// The id that an envelope brings in another form.
    pub(super) envelope_id: [u8; ID_BYTES],
    pub(super) occurred_at: [u8; INSTANT_BYTES],
    pub(in crate::event) topic: String,
    /// A bytea payload.
    decoded: Vec<u8>,
    pub(super) envelope: envelope::Scratch,
    headers: Vec<(String, String)>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            id: [0; ID_BYTES],
            envelope_id: [0; ID_BYTES],
            occurred_at: [0; INSTANT_BYTES],
            topic: String::new(),
            decoded: Vec::new(),
            envelope: envelope::Scratch::default(),
            headers: Vec::new(),
        }
    }

    /// One large row must not hold its room for ever.
    pub(super) fn shrink(&mut self) {
        if self.decoded.capacity() > DECODED_BYTES_KEPT {
            self.decoded = Vec::new();
        }
        self.envelope.shrink(DECODED_BYTES_KEPT);
    }
}

impl Table {
    /// The event of an inserted row.
    pub(crate) fn map<'a>(
        &'a self,
        shared: Shared<'a>,
        tuple: Tuple<'a>,
        transaction: &Transaction,
        scratch: &'a mut Scratch,
    ) -> Result<DomainEvent<'a>, Reason> {
        scratch.shrink();
        let columns = &self.columns;
        let Scratch { id, envelope_id, occurred_at, topic, decoded, envelope: walk, headers } =
            scratch;

        let row_id = read_id(columns, &self.key_ids, tuple, id)?;
        let event_type = read_event_type(&columns.event_type, tuple)?;
        let payload_text = payload::read(columns, tuple, decoded)?;
        let envelope = match self.form {
            PayloadForm::Data | PayloadForm::Bare => None,
            PayloadForm::Envelope => {
                let null = || Reason::Null { column: columns.payload.owned_name() };
                let text = payload_text.ok_or_else(null)?;
                let column = columns.payload.name();
                Some((text, envelope::read(text, column, walk)?))
            }
        };
        if let Some((_, envelope)) = &envelope {
            check_agreement(envelope, row_id, event_type, columns)?;
        }
        let won = |field| envelope.as_ref().and_then(|(_, envelope)| envelope.text(field));
        let won_or_column = |field, column: &Option<ColumnAt>| match won(field) {
            Some(text) => Ok(Some(text)),
            None => optional_text(column, tuple),
        };
        let id = match (row_id, &envelope) {
            (RowId::Made(made), Some((_, envelope))) => {
                own_id(envelope, envelope_id)?.unwrap_or(made)
            }
            (row_id, _) => won(Field::Id).unwrap_or(row_id.text()),
        };
        let context = shared.context;
        let causation_id = won_or_column(Field::CausationId, &columns.causation_id)?;
        let traceparent = optional_text(&columns.traceparent, tuple)?;
        let is_own = |name: &str| {
            let own = OwnHeader::named(name);
            own.is_some_and(|own| is_carried(own, self.form, traceparent, causation_id))
        };
        header_object::read(columns, tuple, is_own, headers)?;
        // What the row says, in whatever way, wins over what its transaction says.
        let is_member = |own| headers.iter().any(|(name, _)| OwnHeader::named(name) == Some(own));
        let has_causation =
            OwnHeader::CausationId.belongs_to(self.form) && is_member(OwnHeader::CausationId);
        let causation_id = match causation_id {
            None if !has_causation => context.causation_id(),
            said => said,
        };
        let traceparent = match traceparent {
            None if !is_member(OwnHeader::Traceparent) => context.traceparent(),
            said => said,
        };
        Ok(DomainEvent {
            id,
            event_type,
            version: won_or_column(Field::Version, &columns.version)?.unwrap_or(VERSION),
            source: won(Field::Source).unwrap_or(shared.source),
            correlation_id: won_or_column(Field::CorrelationId, &columns.correlation_id)?
                .or_else(|| context.correlation_id())
                .unwrap_or(id),
            causation_id,
            occurred_at: match won(Field::OccurredAt) {
                Some(instant) => instant,
                None => read_occurred_at(&columns.created_at, tuple, transaction, occurred_at)?,
            },
            traceparent,
            key: columns.aggregate_id.bytes(tuple)?,
            topic: match route::find(shared.routes, event_type) {
                Some(route) => route.topic.resolve(event_type, topic)?,
                None => {
                    let text = |column: &ColumnAt| column.needed_text(tuple);
                    self.topic.resolve(event_type, text, topic)?
                }
            },
            payload: match (self.form, envelope) {
                (_, Some((text, envelope))) => to_payload(text, &envelope, causation_id),
                (PayloadForm::Bare, None) => Payload::Bare(payload_text),
                (PayloadForm::Data | PayloadForm::Envelope, None) => {
                    Payload::Data(payload_text.unwrap_or("null"))
                }
            },
            headers: ExtraHeaders::new(&columns.headers, tuple, headers),
            partition: None,
        })
    }
}

/// Whether the record of a row has that header.
fn is_carried(
    header: OwnHeader,
    form: PayloadForm,
    traceparent: Option<&str>,
    causation_id: Option<&str>,
) -> bool {
    let has_value = match header {
        OwnHeader::Traceparent => traceparent.is_some(),
        OwnHeader::CausationId => causation_id.is_some(),
        OwnHeader::ContentType
        | OwnHeader::SchemaVersion
        | OwnHeader::EventId
        | OwnHeader::EventType
        | OwnHeader::CorrelationId
        | OwnHeader::PgLsn
        | OwnHeader::PgSeq
        | OwnHeader::PgXid
        | OwnHeader::OccurredAt
        | OwnHeader::Source => true,
    };
    has_value && header.belongs_to(form)
}

fn optional_text<'a>(
    column: &Option<ColumnAt>,
    tuple: Tuple<'a>,
) -> Result<Option<&'a str>, Reason> {
    column.as_ref().map_or(Ok(None), |column| column.text(tuple))
}

/// The UUID that the column holds, or else the one that is made of the key.
fn read_id<'a>(
    columns: &Columns,
    key_ids: &KeyIds,
    tuple: Tuple<'a>,
    scratch: &'a mut [u8; ID_BYTES],
) -> Result<RowId<'a>, Reason> {
    let text = match columns.id.needed_text(tuple)? {
        "" => return Err(Reason::Empty { column: columns.id.owned_name() }),
        text => text,
    };
    Ok(match columns.id_text {
        IdText::Uuid => key_ids.of_text(text, scratch),
        IdText::Other => key_ids.of_key(text, scratch),
    })
}

fn read_event_type<'a>(column: &ColumnAt, tuple: Tuple<'a>) -> Result<&'a str, Reason> {
    match column.needed_text(tuple)? {
        "" => Err(Reason::Empty { column: column.owned_name() }),
        event_type => Ok(event_type),
    }
}

/// The column's time, or else the commit's.
fn read_occurred_at<'a>(
    column: &Option<ColumnAt>,
    tuple: Tuple<'_>,
    transaction: &Transaction,
    scratch: &'a mut [u8; INSTANT_BYTES],
) -> Result<&'a str, Reason> {
    if let Some(column) = column
        && let Some(text) = column.bytes(tuple)?
    {
        let name = column.name();
        return timestamp::from_column(text, scratch).map_err(|problem| {
            let column = name.to_owned();
            match problem {
                TimestampProblem::Infinite => Reason::Infinite { column },
                TimestampProblem::YearOutOfRange => Reason::YearOutOfRange { column },
                TimestampProblem::Malformed => Reason::NotTimestamp { column },
            }
        });
    }
    timestamp::from_timestamp(transaction.committed_at, scratch).ok_or(Reason::CommitTimeOutOfRange)
}

/// The id that an envelope brings, which must be a UUID.
pub(super) fn own_id<'a>(
    envelope: &Envelope<'a>,
    scratch: &'a mut [u8; ID_BYTES],
) -> Result<Option<&'a str>, Reason> {
    let not_uuid = || Reason::Field { field: Field::Id, problem: FieldProblem::NotUuid };
    match (envelope.text(Field::Id), envelope.written(Field::Id)) {
        (Some(kept), _) if id::is_hyphenated(kept) => Ok(Some(kept)),
        (Some(_), _) => Err(not_uuid()),
        (None, Some(written)) => id::canonical(written, scratch).ok_or_else(not_uuid).map(Some),
        (None, None) => Ok(None),
    }
}

/// Id and type must not contradict the columns: the record's key and topic follow those.
fn check_agreement(
    envelope: &Envelope<'_>,
    row_id: RowId<'_>,
    event_type: &str,
    columns: &Columns,
) -> Result<(), Reason> {
    let contradicts = |field, column: &ColumnAt| {
        let problem = FieldProblem::Contradicts { column: column.owned_name() };
        Err(Reason::Field { field, problem })
    };
    // What is made of a key agrees with no id, and contradicts none.
    if let (RowId::Own(row_id), Some(id)) = (row_id, envelope.written(Field::Id))
        && !id.eq_ignore_ascii_case(row_id)
    {
        let mut scratch = [0; ID_BYTES];
        let Some(id) = id::canonical(id, &mut scratch) else {
            return Err(Reason::Field { field: Field::Id, problem: FieldProblem::NotUuid });
        };
        if id != row_id {
            return contradicts(Field::Id, &columns.id);
        }
    }
    if envelope.text(Field::Type).is_some_and(|text| text != event_type) {
        return contradicts(Field::Type, &columns.event_type);
    }
    Ok(())
}

pub(super) fn to_payload<'a>(
    text: &'a str,
    envelope: &Envelope<'a>,
    causation_id: Option<&str>,
) -> Payload<'a> {
    let missing = envelope.missing;
    Payload::Envelope {
        text,
        cuts: envelope.cuts,
        closing_brace: envelope.closing_brace,
        // What nothing caused stays without a cause.
        missing: match causation_id {
            Some(_) => missing,
            None => missing.without(Field::CausationId),
        },
    }
}
