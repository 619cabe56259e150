//! The kinds of events that a table has, as consumers are told of them: types, topics, and schemas of
//! keys and values.

use serde_json::{Map, Value, json};

use crate::{
    change::ReplicaIdentity,
    event::{
        TopicTemplate,
        table::{
            ColumnView, DataForm, Description, Mask, Otherwise, Table, TableChange, key::Key,
            kind::Kind, row_view::Shown, rules::Rule, table::VERSION,
        },
    },
    value::or_null,
};

/// One kind of a table's events. Schemas are JSON Schema, by the rules of draft 7 as of 2020-12.
#[derive(Clone, PartialEq, Debug)]
pub struct EventShape {
    /// The event's type.
    pub event_type: String,
    /// What makes records of it.
    pub occasion: Occasion,
    /// The envelope's version.
    pub version: String,
    /// Where it goes: only places of columns are left.
    pub topic: TopicTemplate,
    /// The record's key.
    pub key: Value,
    /// The record's value.
    pub value: ValueShape,
}

/// What makes records of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occasion {
    /// A change, which has a place in its transaction.
    Change,
    /// A row that was there before, which is of no transaction.
    Snapshot,
    /// The one or the other.
    Either,
}

/// What the value of a record is.
#[derive(Clone, PartialEq, Debug)]
pub enum ValueShape {
    /// An envelope.
    Envelope {
        /// Its `data`.
        data: Value,
        /// The columns that its `unavailable` may name; where there are none it is not there.
        unavailable: Vec<String>,
    },
    /// The null record behind a delete.
    Tombstone,
}

impl Table {
    /// The kinds of events that it has.
    pub(in crate::event) fn shapes(&self, table: &Description) -> Vec<EventShape> {
        Shapes { table: self, replica_identity: table.replica_identity }.all()
    }
}

/// A table whose events are told of.
struct Shapes<'t> {
    table: &'t Table,
    replica_identity: ReplicaIdentity,
}

impl Shapes<'_> {
    /// All kinds: those of rules in the order of the file, then those without.
    fn all(&self) -> Vec<EventShape> {
        let Table { rules, rule_kinds, kinds, otherwise, tombstone, .. } = self.table;
        let on_truncate: Vec<&Rule> =
            rules.matching(TableChange::Truncate.row()).filter_map(Result::ok).collect();
        let mut shapes = Vec::new();
        for (rule, kind) in rules.iter().zip(rule_kinds) {
            let is_of_truncate = on_truncate.iter().any(|known| std::ptr::eq(*known, rule));
            let value = self.of_rule(rule, is_of_truncate);
            let version = rule.version().unwrap_or(VERSION);
            let key = self.key(is_of_truncate);
            shapes.extend(shape((kind, Occasion::Either), version, key, value));
        }
        let key = || self.key(false);
        if *otherwise == Otherwise::Default {
            let of_change = |kind, key, value| shape((kind, Occasion::Change), VERSION, key, value);
            shapes.extend(of_change(&kinds.created, key(), self.of_created()));
            shapes.extend(of_change(&kinds.updated, key(), self.of_updated()));
            shapes.extend(of_change(&kinds.deleted, key(), self.of_deleted()));
            let nothing =
                ValueShape::Envelope { data: json!({ "type": "null" }), unavailable: Vec::new() };
            let no_key = json!({ "type": "null", "description": "No row's." });
            shapes.extend(of_change(&kinds.truncated, no_key, nothing));
            let kind = (&kinds.snapshot, Occasion::Snapshot);
            shapes.extend(shape(kind, VERSION, key(), self.of_snapshot()));
        }
        if *tombstone {
            let own = (*otherwise == Otherwise::Default).then_some((&kinds.deleted, VERSION));
            let of_rules = rules.iter().zip(rule_kinds);
            let of_rules = of_rules.map(|(rule, kind)| (kind, rule.version().unwrap_or(VERSION)));
            for (kind, version) in of_rules.chain(own) {
                let kind = (kind, Occasion::Change);
                shapes.extend(shape(kind, version, key(), ValueShape::Tombstone));
            }
        }
        shapes
    }

    /// Whether a column is in each row that comes as a new one.
    fn is_always_new(&self, column: &ColumnView) -> bool {
        self.has_whole_old_rows() || column.form.is_always_sent()
    }

    fn has_whole_old_rows(&self) -> bool {
        match self.replica_identity {
            ReplicaIdentity::Full => true,
            ReplicaIdentity::Default | ReplicaIdentity::Index | ReplicaIdentity::Nothing => false,
        }
    }

    /// The columns that an update may leave out.
    fn unavailable(&self) -> Vec<String> {
        let columns = self.shown().filter(|column| !self.is_always_new(column));
        columns.map(|column| column.name().to_owned()).collect()
    }

    fn shown(&self) -> impl Iterator<Item = &ColumnView> {
        self.table.columns.iter().filter(|column| column.is_shown())
    }

    /// Rows with columns that are there at times, and those that always are.
    fn row(
        &self,
        at_times: impl Fn(&ColumnView) -> bool,
        always: impl Fn(&ColumnView) -> bool,
    ) -> Value {
        let of_column = |column: &ColumnView| (column.name().to_owned(), of_column(column));
        let columns = || self.shown().filter(|column| at_times(column));
        let properties: Map<String, Value> = columns().map(of_column).collect();
        let required: Vec<&str> =
            columns().filter(|column| always(column)).map(ColumnView::name).collect();
        json!({ "type": "object", "required": required, "properties": properties })
    }

    fn new_row(&self) -> Value {
        self.row(|_| true, |column| self.is_always_new(column))
    }

    /// What is sent of an old row is sent whole.
    fn old_row(&self) -> Value {
        self.row(|column| column.is_identity, |_| true)
    }

    /// A key that changes makes a row anew by an update, which may leave columns out.
    fn of_created(&self) -> ValueShape {
        let is_moved = !self.table.is_keyless();
        let row = if is_moved { self.new_row() } else { self.row(|_| true, |_| true) };
        let unavailable = if is_moved { self.unavailable() } else { Vec::new() };
        let data = match self.table.data {
            DataForm::Row => row,
            DataForm::Change => change(json!({ "type": "null" }), row, None),
        };
        ValueShape::Envelope { data, unavailable }
    }

    /// A row that was there is read whole.
    fn of_snapshot(&self) -> ValueShape {
        let row = self.row(|_| true, |_| true);
        let data = match self.table.data {
            DataForm::Row => row,
            DataForm::Change => change(json!({ "type": "null" }), row, None),
        };
        ValueShape::Envelope { data, unavailable: Vec::new() }
    }

    fn of_updated(&self) -> ValueShape {
        let data = match self.table.data {
            DataForm::Row => self.new_row(),
            DataForm::Change if self.has_whole_old_rows() => {
                let mut data = change(self.old_row(), self.new_row(), Some(self.changed()));
                data["required"] = json!(["before", "after", "changed"]);
                data
            }
            DataForm::Change => change(or_null(self.old_row()), self.new_row(), None),
        };
        ValueShape::Envelope { data, unavailable: self.unavailable() }
    }

    fn of_deleted(&self) -> ValueShape {
        let data = match self.table.data {
            DataForm::Row => self.old_row(),
            DataForm::Change => change(self.old_row(), json!({ "type": "null" }), None),
        };
        ValueShape::Envelope { data, unavailable: Vec::new() }
    }

    /// Which changes a rule matches is only known of TRUNCATE, which has no rows.
    fn of_rule(&self, rule: &Rule, is_of_truncate: bool) -> ValueShape {
        let table = self.table;
        let column = |index: usize| table.columns.get(index).map_or_else(|| json!({}), of_column);
        if let Some(data) = table.rules.data_schema(rule, column) {
            return ValueShape::Envelope { data, unavailable: Vec::new() };
        }
        let data = match table.data {
            DataForm::Row => {
                self.row(|_| true, |column| column.is_identity && self.is_always_new(column))
            }
            DataForm::Change => {
                let changed = self.has_whole_old_rows().then(|| self.changed());
                change(or_null(self.old_row()), or_null(self.new_row()), changed)
            }
        };
        let data = if is_of_truncate { or_null(data) } else { data };
        ValueShape::Envelope { data, unavailable: self.unavailable() }
    }

    fn changed(&self) -> Value {
        let names: Vec<&str> = self.shown().map(ColumnView::name).collect();
        json!({ "type": "array", "items": { "enum": names } })
    }

    fn key(&self, is_of_truncate: bool) -> Value {
        match &self.table.key {
            Key::None => json!({ "type": "null", "description": "The table has no key." }),
            Key::Text(column) => json!({
                "type": ["string", "null"],
                "description": format!("The text of column \"{}\". Null where that is.", column.name()),
            }),
            Key::Array(columns) => {
                let names: Vec<String> =
                    columns.iter().map(|column| format!("\"{}\"", column.name())).collect();
                let key = json!({
                    "type": "string",
                    "contentMediaType": "application/json",
                    "pattern": "^\\[",
                    "description": format!("A JSON array of columns {}.", names.join(", ")),
                });
                if is_of_truncate { or_null(key) } else { key }
            }
        }
    }
}

/// None where no topic can have the name that the type makes: its events are errors.
fn shape(
    (kind, occasion): (&Kind, Occasion),
    version: &str,
    key: Value,
    value: ValueShape,
) -> Option<EventShape> {
    let (event_type, version) = (kind.event_type.clone(), version.to_owned());
    Some(EventShape { event_type, occasion, version, topic: kind.template()?, key, value })
}

fn change(before: Value, after: Value, changed: Option<Value>) -> Value {
    let mut change = json!({
        "type": "object",
        "required": ["before", "after"],
        "properties": { "before": before, "after": after },
    });
    if let Some(changed) = changed {
        change["properties"]["changed"] = changed;
    }
    change
}

/// A column's value in events that show it.
fn of_column(column: &ColumnView) -> Value {
    or_null(match &column.shown {
        Shown::Plainly | Shown::Never => column.form.schema(),
        Shown::Masked(Mask::Sha256(_)) => json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        Shown::Masked(Mask::Redact) => json!({ "type": "string", "pattern": "^\\*\\*\\*$" }),
    })
}

/// That events are what is told of them is said where they are written.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{
        Route, TypeGlob, TypeTemplate,
        fixture::domain_table::{DomainTable, rule},
        table::Salt,
    };

    fn shapes(table: &DomainTable) -> Vec<EventShape> {
        table.shapes().expect("it fits")
    }

    /// Type, topic, and the columns that data always has; `-` where there is no envelope.
    fn told(table: &DomainTable) -> Vec<String> {
        let of = |shape: &EventShape| {
            let required = match &shape.value {
                ValueShape::Envelope { data, .. } => data["required"].to_string(),
                ValueShape::Tombstone => "-".to_owned(),
            };
            format!("{} {} {required}", shape.event_type, shape.topic.literal().unwrap_or("…"))
        };
        shapes(table).iter().map(of).collect()
    }

    fn data<'s>(shapes: &'s [EventShape], event_type: &str) -> &'s Value {
        let shape = shapes.iter().find(|shape| shape.event_type == event_type);
        match &shape.expect("a kind of that type").value {
            ValueShape::Envelope { data, .. } => data,
            ValueShape::Tombstone => panic!("{event_type} has no data"),
        }
    }

    #[test]
    fn each_kind_has_the_columns_that_the_identity_delivers() {
        let orders = DomainTable::orders().with(|table| table.settings.tombstone = true);
        assert_eq!(
            told(&orders),
            [
                "orders.created orders.events [\"id\"]",
                "orders.updated orders.events [\"id\"]",
                "orders.deleted orders.events [\"id\"]",
                "orders.truncated orders.events null",
                "orders.snapshot orders.events [\"id\",\"status\",\"note\"]",
                "orders.deleted orders.events -",
            ]
        );
        let whole = "orders.events [\"id\",\"status\",\"note\"]";
        assert_eq!(
            told(&DomainTable::orders().full())[..3],
            [
                format!("orders.created {whole}"),
                format!("orders.updated {whole}"),
                format!("orders.deleted {whole}"),
            ]
        );
        let keyless = DomainTable::orders().with(|table| {
            table.columns.iter_mut().for_each(|(_, _, is_identity)| *is_identity = false);
        });
        // Without a key no update makes a row anew.
        assert_eq!(told(&keyless)[0], format!("orders.created {whole}"));
        assert_eq!(told(&keyless)[1], "orders.updated orders.events [\"id\"]");
        assert_eq!(shapes(&keyless)[0].key["type"], "null");
    }

    #[test]
    fn rules_come_first_and_alone_unless_the_defaults_are_wanted() {
        let table = DomainTable::orders().full().with(|table| {
            table.settings.rules =
                vec![rule("order.shipped", "new.status == 'shipped'"), rule("orders.gone", "true")];
            table.settings.otherwise = Otherwise::Skip;
            table.routes = vec![Route {
                event_type: TypeGlob::parse("*.gone").expect("a pattern"),
                topic: TypeTemplate::parse("{type}.audit").expect("a template"),
            }];
        });
        let whole = "[\"id\",\"status\",\"note\"]";
        let rules = [
            format!("order.shipped orders.events {whole}"),
            format!("orders.gone orders.gone.audit {whole}"),
        ];
        assert_eq!(told(&table), rules);
        let told_with = told(&table.with(|table| table.settings.otherwise = Otherwise::Default));
        assert_eq!(told_with[..2], rules);
        assert_eq!(told_with.len(), 7);
    }

    #[test]
    fn only_a_rule_that_matches_truncate_has_null_for_data() {
        let table = DomainTable::orders().full().with(|table| {
            table.settings.rules =
                vec![rule("order.gone", "op != 'insert'"), rule("order.new", "new.id > 0")];
        });
        let shapes = shapes(&table);
        assert_eq!(data(&shapes, "order.gone")["type"], json!(["object", "null"]));
        assert_eq!(data(&shapes, "order.new")["type"], json!("object"));
    }

    #[test]
    fn a_change_has_what_changed_where_the_old_row_is_whole() {
        let changes = |table: DomainTable| {
            shapes(&table.with(|table| table.settings.data = DataForm::Change))
        };
        let full = changes(DomainTable::orders().full());
        let updated = data(&full, "orders.updated");
        assert_eq!(updated["required"], json!(["before", "after", "changed"]));
        assert_eq!(
            updated["properties"]["changed"]["items"]["enum"],
            json!(["id", "status", "note"])
        );
        assert_eq!(data(&full, "orders.created")["properties"]["before"]["type"], "null");
        let default = changes(DomainTable::orders());
        let updated = data(&default, "orders.updated");
        assert_eq!(updated["required"], json!(["before", "after"]));
        assert_eq!(updated["properties"]["before"]["type"], json!(["object", "null"]));
        assert_eq!(updated["properties"]["before"]["required"], json!(["id"]));
    }

    #[test]
    fn hidden_columns_are_not_told_of_and_masked_ones_are_texts() {
        let table = DomainTable::orders().full().with(|table| {
            table.settings.excluded = vec!["note".to_owned()];
            let salt = Salt::new("0123456789abcdef");
            table.settings.masks = vec![("status".to_owned(), Mask::Sha256(salt))];
        });
        let shapes = shapes(&table);
        let columns = &data(&shapes, "orders.created")["properties"];
        assert!(columns.get("note").is_none(), "{columns}");
        assert_eq!(columns["status"]["pattern"], "^[0-9a-f]{64}$");
        assert_eq!(columns["id"]["type"], json!(["integer", "null"]));
    }

    #[test]
    fn a_topic_keeps_the_places_of_columns_alone() {
        let table = DomainTable::orders().full().with(|table| {
            table.settings.topic =
                TopicTemplate::parse("{schema}.{table}.{domain}.{column:status}")
                    .expect("a template");
        });
        let pieces: Vec<_> = shapes(&table)[0].topic.pieces().map(|it| format!("{it:?}")).collect();
        assert_eq!(pieces, ["Text(\"public.orders.orders.\")", "Column(\"status\")"]);
    }
}
