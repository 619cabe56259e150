//! Rows for tests: an outbox table of the layout `tailwater`, and the event of a row in it.

use crate::{
    change::{
        Column, Oid, PgTimestamp, Relation, RelationId, ReplicaIdentity, Transaction, Tuple,
        ValueSlot, Xid,
    },
    event::{
        DatabaseIdentity, DomainEvent, EventError, Mapping, MessagePlace, Reason, Settings,
        TopicTemplate,
        outbox::{self, ColumnNames, PayloadForm},
    },
    lsn::{CommitLsn, Lsn},
};

/// The id of every row that says nothing else.
pub(crate) const ID: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";

/// 2026-03-01 12:00:00.123456 UTC.
pub(crate) const COMMITTED_AT: PgTimestamp = PgTimestamp(825_681_600_123_456);

pub(crate) const JSONB: Oid = Oid(3802);
pub(crate) const JSON: Oid = Oid(114);
pub(crate) const TEXT: Oid = Oid(25);
pub(crate) const BYTEA: Oid = Oid(17);
pub(crate) const UUID: Oid = Oid(2950);
pub(crate) const INT8: Oid = Oid(20);
pub(crate) const NUMERIC: Oid = Oid(1700);
pub(crate) const TIMESTAMP: Oid = Oid(1114);
pub(crate) const TIMESTAMPTZ: Oid = Oid(1184);
/// A domain: the stream names it by its own OID.
pub(crate) const USER_TYPE: Oid = Oid(16_500);

/// A table and its settings.
pub(crate) struct Outbox {
    settings: outbox::Settings,
    /// Name, type, and the value of a row that says nothing else.
    columns: Vec<(String, Oid, Option<String>)>,
}

impl Outbox {
    /// The columns that every layout has, and `created_at`.
    pub(crate) fn of(form: PayloadForm) -> Self {
        let settings = outbox::Settings {
            table: ("public".to_owned(), "outbox_events".to_owned()),
            topic: TopicTemplate::parse("{domain}.events").expect("a template"),
            payload: form,
            columns: ColumnNames::default(),
            headers: Vec::new(),
        };
        Self { settings, columns: Vec::new() }
            .with_column("id", UUID, ID)
            .with_column("aggregate_id", TEXT, "order-7")
            .with_column("event_type", TEXT, "order.placed")
            .with_column("payload", JSONB, r#"{"data": {}}"#)
            .with_column("created_at", TIMESTAMPTZ, "2026-03-01 11:59:59.5+00")
    }

    /// With a column more, or with another type and value of one.
    pub(crate) fn with_column(mut self, name: &str, type_oid: Oid, value: &str) -> Self {
        self.columns.retain(|(column, ..)| column != name);
        self.columns.push((name.to_owned(), type_oid, Some(value.to_owned())));
        self
    }

    /// With NULL in a column.
    pub(crate) fn with_null(mut self, name: &str) -> Self {
        let column = self.columns.iter_mut().find(|(column, ..)| column == name);
        column.expect("a column of the table").2 = None;
        self
    }

    pub(crate) fn with_settings(mut self, change: impl FnOnce(&mut outbox::Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Its settings as they are.
    pub(crate) fn settings(&self) -> outbox::Settings {
        self.settings.clone()
    }

    /// Maps the row, and hands the event over while the row is there.
    pub(crate) fn map<T>(&self, take: impl FnOnce(DomainEvent<'_>) -> T) -> Result<T, EventError> {
        let source = "order-service".to_owned();
        let settings = Settings {
            source,
            outboxes: vec![self.settings.clone()],
            messages: Vec::new(),
            tables: Vec::new(),
            routes: Vec::new(),
        };
        let mut mapping = Mapping::new(settings, database());
        mapping.observe_relation(&self.relation());
        let (mut frame, mut slots) = (Vec::new(), Vec::new());
        for (_, _, value) in &self.columns {
            slots.push(match value {
                None => ValueSlot::Null,
                Some(text) => {
                    let start = u32::try_from(frame.len()).expect("a short row");
                    frame.extend_from_slice(text.as_bytes());
                    ValueSlot::Text { start, length: u32::try_from(text.len()).expect("short") }
                }
            });
        }
        let tuple = Tuple::new(&frame, &slots);
        let event = mapping.insert(RelationId(1), tuple, &transaction())?;
        Ok(take(event.expect("the table is configured")))
    }

    fn relation(&self) -> Relation {
        let column = |(name, type_oid, _): &(String, Oid, Option<String>)| Column {
            name: name.clone(),
            type_oid: *type_oid,
            type_modifier: -1,
            is_replica_identity: name == "id",
        };
        let (schema, name) = self.settings.table.clone();
        Relation {
            id: RelationId(1),
            schema,
            name,
            replica_identity: ReplicaIdentity::Default,
            columns: self.columns.iter().map(column).collect(),
        }
    }
}

/// The error of a message that cannot be mapped for that reason.
pub(crate) fn message_error(reason: Reason) -> EventError {
    let Transaction { commit_lsn, xid, .. } = transaction();
    let (prefix, message_lsn) = ("outbox".to_owned(), None);
    let message = Box::new(MessagePlace { prefix, message_lsn, commit_lsn, xid });
    EventError::UnmappableMessage { message, reason }
}

/// The database of every row.
pub(crate) fn database() -> DatabaseIdentity {
    DatabaseIdentity { system_id: "7".to_owned(), database: "shop".to_owned() }
}

/// The transaction of every row.
pub(crate) fn transaction() -> Transaction {
    Transaction {
        commit_lsn: CommitLsn(Lsn::from_wire(0x16_B374_D848).expect("a position")),
        xid: Xid(742),
        committed_at: COMMITTED_AT,
    }
}
