//! Which tables are configured, how they stand in the stream, and what their rows become.

use std::sync::Arc;

use tracing::warn;

use crate::{
    change::{Oid, Place, Relation, RelationId, Transaction},
    event::{
        CONTEXT_PREFIX, DatabaseIdentity, EventError, Events, Happening, MessagePlace, Reason,
        Route,
        context::Context,
        outbox::{self, Withheld},
        table::{
            self, DescribedColumn, Description, EventShape, PrimaryKey, Questions, rules::OldValue,
        },
    },
    lsn::Lsn,
    value::{Kind, Type, Types},
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
        let by_name = |table: &&table::Settings| table.name.exact() == Some((schema, name));
        let by_pattern = |table: &&table::Settings| table.name.matches(schema, name);
        let tables = || self.tables.iter();
        tables().find(by_name).or_else(|| tables().find(by_pattern))
    }

    /// Whether a section names that table, and not only a pattern that it matches.
    pub fn is_named(&self, schema: &str, name: &str) -> bool {
        let is_exact = |table: &table::Settings| table.name.exact() == Some((schema, name));
        self.outbox(schema, name).is_some() || self.tables.iter().any(is_exact)
    }

    /// The kinds of events of a domain table as the catalog describes it; none of one that is not
    /// configured.
    ///
    /// # Errors
    /// [`EventError::Table`] for the first thing that does not fit.
    pub fn event_shapes(&self, description: &Description) -> Result<Vec<EventShape>, EventError> {
        let table = self.compile(description)?;
        Ok(table.map_or_else(Vec::new, |table| table.shapes(description)))
    }

    /// A domain table that is to be published from now on; none where it is not configured.
    fn compile(&self, description: &Description) -> Result<Option<table::Table>, EventError> {
        let Description { schema, name, .. } = description;
        let Some(settings) = self.table(schema, name) else { return Ok(None) };
        let compiled =
            table::Table::compile(settings, &self.routes, description, OldValue::Refused);
        let compiled = compiled.and_then(|table| {
            table.check_old_rows(description)?;
            Ok(table)
        });
        compiled.map(Some).map_err(|problem| EventError::Table {
            table: format!("{schema}.{name}"),
            problem: Box::new(problem),
        })
    }

    /// Whether rows of that table become events.
    pub fn is_configured(&self, schema: &str, name: &str) -> bool {
        self.outbox(schema, name).is_some() || self.table(schema, name).is_some()
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
    pub(super) fn locate(&self, transaction: &Transaction, reason: Reason) -> EventError {
        let Transaction { commit_lsn, xid, .. } = *transaction;
        let (prefix, message_lsn) = (self.prefix.to_owned(), self.message_lsn);
        let message = Box::new(MessagePlace { prefix, message_lsn, commit_lsn, xid });
        EventError::UnmappableMessage { message, reason }
    }
}

/// What is warned of once for a prefix, not once for a message.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Warned {
    pub(super) of_null_key: bool,
    of_non_transactional: bool,
}

/// A configured table as the stream described it last.
///
/// One that cannot serve is refused by its next row, not by its description: a restart reads the
/// descriptions of transactions that are published already, under shapes of then.
#[derive(Debug)]
pub(super) enum Known {
    Outbox(Result<outbox::Table, EventError>),
    Table(Result<table::Table, EventError>),
}

/// From rows and messages to events.
///
/// The stream describes a table before its first row and again after every change of it, so the
/// column positions of the latest description always are those of the row at hand.
#[derive(Debug)]
pub struct Mapping {
    pub(super) settings: Settings,
    pub(super) identity: DatabaseIdentity,
    /// Configured tables that the stream has described.
    pub(super) tables: Vec<(RelationId, Known)>,
    /// Theirs, close together: a search through them is faster than a hash, for some hundreds too.
    pub(super) table_ids: Vec<RelationId>,
    /// Tables whose changes are no events at present.
    pub(super) left_out: Vec<RelationId>,
    /// The table whose rows are read, as it was when they were.
    pub(super) snapshot: Option<(RelationId, Known)>,
    types: Types,
    /// Tables of which a value showed that a type is not what it was looked up as, since the stream
    /// described them: they are looked up again once.
    outdated: Vec<RelationId>,
    /// What was warned of, for each prefix of the settings.
    pub(super) warned: Vec<Warned>,
    /// Types that the catalog does not hold, which were told of.
    told_types: Vec<Oid>,
    /// Domain tables without a key, which were warned of.
    keyless: Vec<RelationId>,
    warned_of_lone_context: bool,
    /// What the open transaction says of the events that follow.
    pub(super) context: Context,
    pub(super) outbox_scratch: outbox::Scratch,
    pub(super) table_scratch: table::Scratch,
    /// The key of a message that cannot be an event.
    pub(super) unmapped_key: Option<String>,
}

impl Mapping {
    /// A mapping that has seen no table yet.
    pub fn new(settings: Settings, identity: DatabaseIdentity) -> Self {
        Self {
            warned: vec![Warned::default(); settings.messages.len()],
            settings,
            identity,
            tables: Vec::new(),
            table_ids: Vec::new(),
            left_out: Vec::new(),
            snapshot: None,
            types: Types::new(),
            outdated: Vec::new(),
            told_types: Vec::new(),
            keyless: Vec::new(),
            warned_of_lone_context: false,
            context: Context::default(),
            outbox_scratch: outbox::Scratch::new(),
            table_scratch: table::Scratch::new(),
            unmapped_key: None,
        }
    }

    /// What is configured.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Checks an outbox table as the catalog describes it: the columns that the publication delivers,
    /// by name and type (of a domain: its base type), and those that it does not. Warns of columns
    /// that events do without for that reason. A table that is no outbox passes.
    ///
    /// # Errors
    /// [`EventError::Column`] for the first column that is missing or can never do.
    pub fn check_outbox(
        &self,
        schema: &str,
        name: &str,
        columns: &[(&str, Oid)],
        withheld: &Withheld<'_>,
    ) -> Result<(), EventError> {
        let Some(outbox) = self.settings.outbox(schema, name) else { return Ok(()) };
        outbox::Table::compile(outbox, &self.identity, columns)
            .map_err(|error| withheld.explain(error))?;
        withheld.warn_of_unused(outbox);
        Ok(())
    }

    /// Checks a domain table as the catalog describes it. One that is not configured passes.
    ///
    /// # Errors
    /// [`EventError::Table`] for the first thing that does not fit.
    pub fn check_table(&self, description: &Description) -> Result<(), EventError> {
        self.settings.compile(description).map(drop)
    }

    /// What must be asked of the catalog before that table's rows can be mapped.
    pub fn questions(&self, relation: &Relation) -> Questions {
        if self.settings.table(&relation.schema, &relation.name).is_none() {
            return Questions::default();
        }
        Questions {
            types: self.types.missing(relation.columns.iter().map(|column| column.type_oid)),
            // Also where events have another key: their rows are read in the order of this one.
            primary_key: Questions::needs_primary_key(relation),
        }
    }

    /// What must be asked anew, where a value of the table shows that a composite has other fields
    /// than it was looked up with. None where that was done since the stream described the table:
    /// older values may go on to have others.
    pub fn questions_anew(&mut self, relation: &Relation) -> Option<Questions> {
        if self.outdated.contains(&relation.id) {
            return None;
        }
        self.outdated.push(relation.id);
        warn!(
            table = %relation,
            "a composite value has other fields than its type: it was altered, and until the type is \
             known again, or for older values, such values are written as PostgreSQL's text"
        );
        for column in &relation.columns {
            self.types.forget(column.type_oid);
        }
        Some(self.questions(relation))
    }

    /// The stream describes a table.
    pub fn observe_description(&mut self, relation: RelationId) {
        self.outdated.retain(|id| *id != relation);
    }

    /// Takes note of types.
    pub fn learn(&mut self, types: impl IntoIterator<Item = Arc<Type>>) {
        types.into_iter().for_each(|learnt| self.types.insert(learnt));
    }

    /// Takes note of a table's shape, in place of any earlier one. `primary_key` is what the catalog
    /// says where [`Mapping::questions`] asks for it.
    pub fn observe_relation(&mut self, relation: &Relation, primary_key: PrimaryKey) {
        // A table may have been renamed: what its OID meant before counts no more.
        let former = self.table_ids.iter().position(|id| *id == relation.id);
        let former = former.map(|index| {
            self.table_ids.swap_remove(index);
            self.tables.swap_remove(index)
        });
        let Relation { schema, name, .. } = relation;
        let known = if let Some(outbox) = self.settings.outbox(schema, name) {
            let columns = relation.columns.iter();
            let columns: Vec<_> =
                columns.map(|column| (column.name.as_str(), column.type_oid)).collect();
            let mut table = outbox::Table::compile(outbox, &self.identity, &columns);
            if let (Ok(table), Some((_, Known::Outbox(Ok(former))))) = (&mut table, &former) {
                table.succeed(former);
            }
            Known::Outbox(table)
        } else if let Some(settings) = self.settings.table(schema, name) {
            let description = self.describe(relation, primary_key);
            self.told_types.extend(unknown_types(&description, &self.told_types));
            let routes = &self.settings.routes;
            let table = table::Table::compile(settings, routes, &description, OldValue::Unknown);
            let table = table.map_err(|problem| EventError::Table {
                table: relation.to_string(),
                problem: Box::new(problem),
            });
            if let Ok(table) = &table {
                self.warn_of_null_keys(relation.id, table);
            }
            Known::Table(table)
        } else {
            return;
        };
        self.table_ids.push(relation.id);
        self.tables.push((relation.id, known));
    }

    /// Takes note of what a domain table is whose rows come as [`Happening::Snapshot`], in place of any
    /// earlier one.
    pub fn observe_snapshot(&mut self, relation: RelationId, description: &Description) {
        let Description { schema, name, .. } = description;
        let Some(settings) = self.settings.table(schema, name) else {
            self.snapshot = None;
            return;
        };
        let routes = &self.settings.routes;
        let table = table::Table::compile(settings, routes, description, OldValue::Unknown);
        let table = table.map_err(|problem| EventError::Table {
            table: format!("{schema}.{name}"),
            problem: Box::new(problem),
        });
        self.snapshot = Some((relation, Known::Table(table)));
    }

    fn describe(&self, relation: &Relation, primary_key: PrimaryKey) -> Description {
        let columns = relation.columns.iter();
        let columns = columns.map(|column| DescribedColumn {
            name: column.name.clone(),
            column_type: self
                .types
                .get(column.type_oid)
                .map_or_else(|| Type::unknown(column.type_oid), Arc::clone),
            is_replica_identity: column.is_replica_identity,
        });
        Description {
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            replica_identity: relation.replica_identity,
            columns: columns.collect(),
            primary_key,
        }
    }

    fn warn_of_null_keys(&mut self, relation: RelationId, table: &table::Table) {
        if table.is_keyless() && !self.keyless.contains(&relation) {
            self.keyless.push(relation);
            warn!(
                table = table.name(),
                "the table has no key: its events get null keys, and no order with others; name \
                 columns under key of its [[table]]"
            );
        }
    }

    /// A transaction begins, of which nothing is known.
    pub fn begin(&mut self) {
        self.context.clear();
    }

    /// What the stream brings of these tables is no event, until this is said again of others.
    pub fn leave_out(&mut self, relations: impl IntoIterator<Item = RelationId>) {
        self.left_out.clear();
        self.left_out.extend(relations);
    }

    /// Takes note of what a message says of the events that follow in its transaction. Must see
    /// each message, also of changes that are published already.
    pub fn observe_message(&mut self, message: LogicalMessage<'_>, transaction: &Transaction) {
        if message.prefix == CONTEXT_PREFIX {
            let locate = |reason| message.locate(transaction, reason);
            self.context.replace(message.content, locate);
        }
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

    /// The events of a change, one after the other; none where what it is of is not configured.
    pub fn events<'a>(
        &'a mut self,
        happening: Happening<'a>,
        transaction: &'a Transaction,
        place: Place,
    ) -> Events<'a> {
        Events::of(self, happening, transaction, place)
    }
}

/// Tells of the types of columns that nothing is known of, but for those that were told of.
fn unknown_types(table: &Description, told: &[Oid]) -> Vec<Oid> {
    let is_new = |column: &&DescribedColumn| {
        column.column_type.kind == Kind::Unknown && !told.contains(&column.column_type.oid)
    };
    let unknown = table.columns.iter().filter(is_new);
    let tell = |column: &DescribedColumn| {
        warn!(
            table = format!("{}.{}", table.schema, table.name),
            column = column.name,
            column_type = column.column_type.name,
            "a type is not known, or is gone: its values are written as PostgreSQL's text"
        );
        column.column_type.oid
    };
    unknown.map(tell).collect()
}
