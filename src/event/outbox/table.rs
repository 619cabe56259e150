//! An outbox table as it stands in the stream: settings, compiled against its columns.

use tracing::warn;

use crate::{
    change::{Oid, Transaction, Tuple},
    event::{
        ColumnAt, DatabaseIdentity, EventError, Raw, Route, Row, RowOrigin, Unmapped,
        id::KeyIds,
        outbox::{
            PayloadForm, Settings,
            columns::{self, Columns, Listing},
        },
        route,
        topic_name::{TopicName, Wanted},
    },
};

/// Ready to map rows.
#[derive(Debug)]
pub(crate) struct Table {
    /// `schema.table`.
    name: String,
    pub(super) form: PayloadForm,
    pub(super) columns: Columns,
    pub(super) key_ids: KeyIds,
    pub(super) topic: TopicName,
    /// The names of all its columns.
    column_names: Vec<String>,
    /// Null keys are warned of once, not once a row.
    warned_of_null_key: bool,
}

impl Table {
    /// Compiles `settings` against the table's columns: name and type, in tuple order.
    pub(crate) fn compile(
        settings: &Settings,
        identity: &DatabaseIdentity,
        columns: &[(&str, Oid)],
    ) -> Result<Self, EventError> {
        let (schema, table) = &settings.table;
        let name = format!("{schema}.{table}");
        let column_names = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let listing = Listing { table: &name, columns };
        let columns = columns::read(listing, settings)?;
        let template = settings.topic.filled(schema, table);
        let topic =
            TopicName::compile(&template, |wanted| match (wanted, &columns.aggregate_type) {
                (Wanted::AggregateType, Some(column)) => Ok(column.clone()),
                (Wanted::AggregateType, None) => {
                    let name = settings.columns.aggregate_type.as_str();
                    Ok(listing.needed(name, "columns.aggregate_type")?.0)
                }
                (Wanted::Named(name), _) => Ok(listing.needed(name, "topic")?.0),
            })?;
        let key_ids = KeyIds::new(identity, schema, table);
        let form = settings.payload;
        Ok(Self { form, columns, key_ids, topic, column_names, warned_of_null_key: false, name })
    }

    /// Carries over what the table's former shape knew.
    pub(crate) fn succeed(&mut self, former: &Table) {
        self.warned_of_null_key = former.warned_of_null_key;
    }

    /// Which row it is, for errors.
    pub(crate) fn locate(&self, tuple: Tuple<'_>, transaction: &Transaction) -> Box<Row> {
        Box::new(Row {
            table: self.name.clone(),
            id: self.columns.id.text(tuple).ok().flatten().map(str::to_owned),
            origin: RowOrigin::of(transaction),
        })
    }

    /// What is known of a row that cannot be an event. `topic_name` is memory for its topic.
    pub(crate) fn unmapped<'a>(
        &'a self,
        routes: &'a [Route],
        tuple: Tuple<'a>,
        topic_name: &'a mut String,
    ) -> Unmapped<'a> {
        let event_type = self.columns.event_type.text(tuple).ok().flatten();
        let topic = match event_type.filter(|event_type| !event_type.is_empty()) {
            None => self.topic.literal(),
            Some(event_type) => match route::find(routes, event_type) {
                Some(route) => route.topic.resolve(event_type, topic_name).ok(),
                None => {
                    let text = |column: &ColumnAt| column.needed_text(tuple);
                    self.topic.resolve(event_type, text, topic_name).ok()
                }
            },
        };
        let raw = Raw::Row { table: &self.name, columns: &self.column_names, tuple };
        Unmapped { topic, key: self.columns.aggregate_id.bytes(tuple).ok().flatten(), raw }
    }

    /// Warns of the first row whose key is null.
    pub(crate) fn observe_key(&mut self, tuple: Tuple<'_>) {
        let column = &self.columns.aggregate_id;
        if !self.warned_of_null_key && matches!(column.bytes(tuple), Ok(None)) {
            self.warned_of_null_key = true;
            warn!(
                table = self.name,
                column = column.name(),
                "a row has no aggregate id: its event gets a null key, and no order with others"
            );
        }
    }
}
