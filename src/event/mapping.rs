//! Which tables are configured, how they stand in the stream, and what their rows become.

use tracing::warn;

use crate::{
    change::{Oid, Relation, RelationId, Transaction, Tuple},
    event::{
        CONTEXT_PREFIX, DatabaseIdentity, DomainEvent, EventError, MessagePlace, Raw, Reason,
        Route, Unmapped,
        context::Context,
        outbox::{self, Scratch, Shared, Table, Withheld},
        route, table,
        unmapped::type_and_key,
    },
    lsn::Lsn,
};

/// What the events are made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The envelope's `source`.
    pub source: String,
    /// The outbox tables.
    pub outboxes: Vec<outbox::Settings>,
    /// The outboxes without a table.
    pub messages: Vec<outbox::MessageSettings>,
    /// The domain tables.
    pub tables: Vec<table::Settings>,
    /// Where events of some types go instead; the first one that matches counts.
    pub routes: Vec<Route>,
}

impl Settings {
    /// The outbox of that table, where it is one.
    pub fn outbox(&self, schema: &str, name: &str) -> Option<&outbox::Settings> {
        let is_table = |outbox: &&outbox::Settings| {
            outbox.table.0.as_str() == schema && outbox.table.1.as_str() == name
        };
        self.outboxes.iter().find(is_table)
    }

    /// What is said of that table, where it is a domain table: by the section that names it, else by
    /// the first one whose pattern it matches. An outbox is none.
    pub fn table(&self, schema: &str, name: &str) -> Option<&table::Settings> {
        if self.outbox(schema, name).is_some() {
            return None;
        }
        let exact = self.tables.iter().find(|table| table.name.exact() == Some((schema, name)));
        exact.or_else(|| self.tables.iter().find(|table| table.name.matches(schema, name)))
    }
}

/// A transactional message of the stream.
#[derive(Clone, Copy, Debug)]
pub struct LogicalMessage<'a> {
    /// Its prefix.
    pub prefix: &'a str,
    /// Its content.
    pub content: &'a [u8],
    /// Its place in the log, where the server says it.
    pub message_lsn: Option<Lsn>,
}

impl LogicalMessage<'_> {
    /// The error of this message.
    fn locate(&self, transaction: &Transaction, reason: Reason) -> EventError {
        let Transaction { commit_lsn, xid, .. } = *transaction;
        let (prefix, message_lsn) = (self.prefix.to_owned(), self.message_lsn);
        let message = Box::new(MessagePlace { prefix, message_lsn, commit_lsn, xid });
        EventError::UnmappableMessage { message, reason }
    }
}

/// What is warned of once for a prefix, not once for a message.
#[derive(Clone, Copy, Default, Debug)]
struct Warned {
    of_null_key: bool,
    of_non_transactional: bool,
}

/// From rows and messages to events.
///
/// The stream describes a table before its first row and again after every change of it, so the
/// column positions of the latest description always are those of the row at hand.
#[derive(Debug)]
pub struct Mapping {
    settings: Settings,
    identity: DatabaseIdentity,
    /// Configured tables that the stream has described. A handful: a search through them is faster
    /// than a hash.
    ///
    /// One that cannot serve is refused by its next row, not by its description: a restart reads the
    /// descriptions of transactions that are published already, under shapes of then.
    tables: Vec<(RelationId, Result<Table, EventError>)>,
    /// What was warned of, for each prefix of the settings.
    warned: Vec<Warned>,
    warned_of_lone_context: bool,
    /// What the open transaction says of the events that follow.
    context: Context,
    scratch: Scratch,
    /// The key of a message that cannot be an event.
    unmapped_key: Option<String>,
}

impl Mapping {
    /// A mapping that has seen no table yet.
    pub fn new(settings: Settings, identity: DatabaseIdentity) -> Self {
        Self {
            warned: vec![Warned::default(); settings.messages.len()],
            settings,
            identity,
            tables: Vec::new(),
            warned_of_lone_context: false,
            context: Context::default(),
            scratch: Scratch::new(),
            unmapped_key: None,
        }
    }

    /// Whether rows of that table become events.
    pub fn is_configured(&self, schema: &str, name: &str) -> bool {
        self.settings.outbox(schema, name).is_some()
    }

    /// Checks a table as the catalog describes it: the columns that the publication delivers, by
    /// name and type (of a domain: its base type), and those that it does not. Warns of columns
    /// that events do without for that reason. A table that is not configured passes.
    ///
    /// # Errors
    /// [`EventError::Column`] for the first column that is missing or can never do.
    pub fn check_table(
        &self,
        schema: &str,
        name: &str,
        columns: &[(&str, Oid)],
        withheld: &Withheld<'_>,
    ) -> Result<(), EventError> {
        let Some(outbox) = self.settings.outbox(schema, name) else { return Ok(()) };
        Table::compile(outbox, &self.identity, columns).map_err(|error| withheld.explain(error))?;
        withheld.warn_of_unused(outbox);
        Ok(())
    }

    /// Takes note of a table's shape, in place of any earlier one.
    pub fn observe_relation(&mut self, relation: &Relation) {
        // A table may have been renamed: what its OID meant before counts no more.
        let former = self.tables.iter().position(|(id, _)| *id == relation.id);
        let former = former.map(|index| self.tables.swap_remove(index));
        let Some(outbox) = self.settings.outbox(&relation.schema, &relation.name) else { return };
        let columns: Vec<_> =
            relation.columns.iter().map(|column| (column.name.as_str(), column.type_oid)).collect();
        let mut table = Table::compile(outbox, &self.identity, &columns);
        if let (Ok(table), Some((_, Ok(former)))) = (&mut table, &former) {
            table.succeed(former);
        }
        self.tables.push((relation.id, table));
    }

    /// A transaction begins, of which nothing is known.
    pub fn begin(&mut self) {
        self.context.clear();
    }

    /// Takes note of what a message says of the events that follow in its transaction. Must see
    /// each message, also of changes that are published already.
    pub fn observe_message(&mut self, message: LogicalMessage<'_>, transaction: &Transaction) {
        if message.prefix == CONTEXT_PREFIX {
            let locate = |reason| message.locate(transaction, reason);
            self.context.replace(message.content, locate);
        }
    }

    /// The event of a message; none where its prefix is not configured.
    ///
    /// # Errors
    /// [`EventError::UnmappableMessage`] where it cannot be an event, or its transaction's context
    /// cannot be read.
    pub fn message<'a>(
        &'a mut self,
        message: LogicalMessage<'a>,
        transaction: &Transaction,
    ) -> Result<Option<DomainEvent<'a>>, EventError> {
        let Self { settings, identity, warned, context, scratch, .. } = self;
        let mut configured = settings.messages.iter().zip(warned);
        let found = configured.find(|(settings, _)| settings.prefix == message.prefix);
        let Some((outbox, warned)) = found else { return Ok(None) };
        context.check()?;
        let shared = Shared { source: &settings.source, routes: &settings.routes, context };
        let event =
            outbox::map_message((&outbox.topic, identity), shared, message, transaction, scratch)
                .map_err(|reason| message.locate(transaction, reason))?;
        if event.key.is_none() && !std::mem::replace(&mut warned.of_null_key, true) {
            warn!(
                prefix = message.prefix,
                "a message has no aggregateId: its event gets a null key, and no order with others"
            );
        }
        Ok(Some(event))
    }

    /// What is known of a row that [`Mapping::insert`] makes no event of, for a reason that other
    /// rows of its table need not have.
    pub fn unmapped_row<'a>(
        &'a mut self,
        relation: RelationId,
        tuple: Tuple<'a>,
    ) -> Option<Unmapped<'a>> {
        let Self { settings, tables, scratch, .. } = self;
        let (_, table) = tables.iter().find(|(id, _)| *id == relation)?;
        let table = table.as_ref().ok()?;
        Some(table.unmapped(&settings.routes, tuple, &mut scratch.topic))
    }

    /// What is known of a message that [`Mapping::message`] makes no event of.
    pub fn unmapped_message<'a>(&'a mut self, message: LogicalMessage<'a>) -> Option<Unmapped<'a>> {
        let Self { settings, scratch, unmapped_key, .. } = self;
        let LogicalMessage { prefix, content, .. } = message;
        let outbox = settings.messages.iter().find(|outbox| outbox.prefix == prefix)?;
        let (event_type, key) = type_and_key(content);
        *unmapped_key = key;
        let topic = match event_type {
            None => outbox.topic.literal(),
            Some(event_type) => {
                let route = route::find(&settings.routes, &event_type);
                let topic = route.map_or(&outbox.topic, |route| &route.topic);
                topic.resolve(&event_type, &mut scratch.topic).ok()
            }
        };
        let key = unmapped_key.as_deref().map(str::as_bytes);
        Some(Unmapped { topic, key, raw: Raw::Message { prefix, content } })
    }

    /// A message outside of transactions, which is no event. Says whether one was expected of it.
    pub fn observe_non_transactional(&mut self, prefix: &str) -> bool {
        if prefix == CONTEXT_PREFIX && !std::mem::replace(&mut self.warned_of_lone_context, true) {
            warn!(prefix, "a context outside of transactions has no effect");
        }
        let mut configured = self.settings.messages.iter().zip(&mut self.warned);
        let found = configured.find(|(settings, _)| settings.prefix == prefix);
        let Some((_, warned)) = found else { return false };
        if !std::mem::replace(&mut warned.of_non_transactional, true) {
            warn!(
                prefix,
                "a non-transactional message is not published: it is there even if the transaction \
                 that wrote it rolls back; write it by pg_logical_emit_message(true, …)"
            );
        }
        true
    }

    /// The event of an inserted row; none where its table is not configured.
    ///
    /// # Errors
    /// [`EventError::Unmappable`] where the row cannot be an event, [`EventError::UnmappableMessage`]
    /// where its transaction's context cannot be read, [`EventError::Column`] where no
    /// row of its table's present shape can.
    pub fn insert<'a>(
        &'a mut self,
        relation: RelationId,
        tuple: Tuple<'a>,
        transaction: &Transaction,
    ) -> Result<Option<DomainEvent<'a>>, EventError> {
        let Some(index) = self.tables.iter().position(|(id, _)| *id == relation) else {
            return Ok(None);
        };
        let Self { settings, tables, context, scratch, .. } = self;
        let Some((_, table)) = tables.get_mut(index) else { return Ok(None) };
        let table = table.as_mut().map_err(|error| error.clone())?;
        context.check()?;
        table.observe_key(tuple);
        let table = &*table;
        let shared = Shared { source: &settings.source, routes: &settings.routes, context };
        table.map(shared, tuple, transaction, scratch).map(Some).map_err(|reason| {
            EventError::Unmappable { row: table.locate(tuple, transaction), reason }
        })
    }
}
