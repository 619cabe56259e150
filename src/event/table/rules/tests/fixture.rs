//! A table of orders with a column of each kind, rules for it, and changes of its rows.

use std::sync::Arc;

use serde_json::{Value, json};

pub(super) use crate::event::fixture::domain_table::rule;
use crate::{
    change::{Oid, OldTuple, Tuple, ValueSlot},
    event::{
        Reason,
        table::{
            RuleSettings,
            rules::{
                Column, Columns, NamedColumn, OldValue, Operation, Problem, Row, RuleError, Rules,
                Shown,
            },
        },
    },
    value::{Kind, Type, string},
};

/// A value that is large and unchanged.
pub(super) const UNCHANGED: &str = "\0unchanged";

/// Schema and name, as SQL has them.
pub(super) const QUOTED: &str = "\"public\".\"orders\"";

fn base(oid: u32, name: &str) -> Type {
    Type { oid: Oid(oid), name: name.to_owned(), kind: Kind::Base }
}

fn array(oid: u32, element: Type) -> Type {
    let name = format!("{}[]", element.name);
    let kind = Kind::Array { element: Arc::new(element), delimiter: b',' };
    Type { oid: Oid(oid), name, kind }
}

fn other(kind: Kind) -> Type {
    Type { oid: Oid(16_500), name: "other".to_owned(), kind }
}

/// The table.
pub(super) struct Table {
    columns: Vec<(&'static str, Type, Shown)>,
    /// Columns whose old values updates and deletes carry; all of them where there are none.
    identity: Vec<&'static str>,
}

impl Table {
    /// Under REPLICA IDENTITY FULL.
    pub(super) fn orders() -> Self {
        let domain = |over| other(Kind::Domain { base: Arc::new(over) });
        let columns = vec![
            ("id", base(20, "bigint")),
            ("status", other(Kind::Enum)),
            ("total", base(1700, "numeric")),
            ("quantity", base(23, "integer")),
            ("small", base(21, "smallint")),
            ("object", base(26, "oid")),
            ("ratio", base(701, "double precision")),
            ("paid", base(16, "boolean")),
            ("created_at", base(1184, "timestamp with time zone")),
            ("local_at", base(1114, "timestamp without time zone")),
            ("due", base(1082, "date")),
            ("payload", base(3802, "jsonb")),
            ("raw", base(114, "json")),
            ("tags", array(1009, base(25, "text"))),
            ("prices", array(1231, base(1700, "numeric"))),
            ("matrix", array(1007, base(23, "integer"))),
            ("documents", array(3807, base(3802, "jsonb"))),
            ("vector", array(22, base(21, "smallint"))),
            ("code", base(1042, "character(5)")),
            ("note", base(25, "text")),
            ("owner", domain(domain(base(23, "integer")))),
            ("periods", other(Kind::Range)),
            ("attributes", other(Kind::Hstore)),
            ("order-no", base(25, "text")),
            ("email", base(25, "text")),
            ("card", base(25, "text")),
        ];
        let shown = |name| match name {
            "email" => Shown::Masked,
            "card" => Shown::Never,
            _ => Shown::Plainly,
        };
        let columns =
            columns.into_iter().map(|(name, column_type)| (name, column_type, shown(name)));
        Self { columns: columns.collect(), identity: Vec::new() }
    }

    /// Under another replica identity.
    pub(super) fn with_identity(mut self, columns: &[&'static str]) -> Self {
        self.identity = columns.to_vec();
        self
    }

    pub(super) fn compile(&self, rules: &[RuleSettings]) -> Result<Rules, Vec<RuleError>> {
        let columns: Vec<Column<'_>> = self
            .columns
            .iter()
            .map(|(name, column_type, shown)| Column {
                name,
                column_type,
                old: match self.identity.is_empty() || self.identity.contains(name) {
                    true => OldValue::Delivered,
                    false => OldValue::Refused,
                },
                shown: *shown,
            })
            .collect();
        Rules::compile(rules, Columns { quoted_table: QUOTED, columns: &columns })
    }

    /// A row; columns that are not named are NULL.
    pub(super) fn row(&self, values: &[(&str, &str)]) -> Values {
        let mut row = Values { frame: Vec::new(), slots: Vec::new() };
        for (name, ..) in &self.columns {
            let value = values.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
            row.slots.push(match value {
                None => ValueSlot::Null,
                Some(UNCHANGED) => ValueSlot::UnchangedToast,
                Some(text) => {
                    let start = u32::try_from(row.frame.len()).expect("a short row");
                    row.frame.extend_from_slice(text.as_bytes());
                    ValueSlot::Text { start, length: u32::try_from(text.len()).expect("short") }
                }
            });
        }
        for (name, _) in values {
            assert!(self.columns.iter().any(|(known, ..)| known == name), "{name}");
        }
        row
    }

    /// The columns' names.
    pub(super) fn name(&self, index: usize) -> &'static str {
        self.columns[index].0
    }
}

/// What a row holds.
pub(super) struct Values {
    frame: Vec<u8>,
    slots: Vec<ValueSlot>,
}

impl Values {
    pub(super) fn tuple(&self) -> Tuple<'_> {
        Tuple::new(&self.frame, &self.slots)
    }
}

/// A rule for each change, with data of these members.
pub(super) fn rule_with_data(members: &[(&str, &str)]) -> RuleSettings {
    let members = members.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    RuleSettings { when: None, data: Some(members.collect()), ..rule("order.told", "") }
}

/// A change by its texts.
#[derive(Clone, Copy)]
pub(super) struct Change<'c> {
    pub(super) operation: Operation,
    pub(super) old: Option<&'c [(&'c str, &'c str)]>,
    pub(super) new: Option<&'c [(&'c str, &'c str)]>,
}

/// An inserted row.
pub(super) fn inserted<'c>(new: &'c [(&'c str, &'c str)]) -> Change<'c> {
    Change { operation: Operation::Insert, old: None, new: Some(new) }
}

/// An update that carries the old row.
pub(super) fn updated<'c>(
    old: &'c [(&'c str, &'c str)],
    new: &'c [(&'c str, &'c str)],
) -> Change<'c> {
    Change { operation: Operation::Update, old: Some(old), new: Some(new) }
}

/// Hands over a change as it stands in the stream.
pub(super) fn with_row<T>(table: &Table, change: Change<'_>, take: impl FnOnce(Row<'_>) -> T) -> T {
    let (old, new) = (change.old.map(|old| table.row(old)), change.new.map(|new| table.row(new)));
    let old_tuple = old.as_ref().map(|old| match table.identity.is_empty() {
        true => OldTuple::Full(old.tuple()),
        false => OldTuple::Key(old.tuple()),
    });
    let new_tuple = new.as_ref().map(Values::tuple);
    take(Row { operation: change.operation, old: old_tuple, new: new_tuple })
}

/// Whether a condition holds for a change.
pub(super) fn decide_on(table: &Table, when: &str, change: Change<'_>) -> Result<bool, Problem> {
    let rules = table.compile(&[rule("order.told", when)]);
    let rules = rules.unwrap_or_else(|mistakes| panic!("{when}: {mistakes:?}"));
    with_row(table, change, |row| match rules.matching(row).next() {
        None => Ok(false),
        Some(Ok(_)) => Ok(true),
        Some(Err(failure)) => match failure.reason {
            Reason::Rule { answer } => Err(answer.problem),
            other => panic!("{when}: {other}"),
        },
    })
}

/// The same under REPLICA IDENTITY FULL.
pub(super) fn decide(when: &str, change: Change<'_>) -> Result<bool, Problem> {
    decide_on(&Table::orders(), when, change)
}

/// The data of an event of that one rule. Columns that are named alone are written as numbers where
/// their types are, JSON as it is, masks as such, else as strings.
pub(super) fn data_of(
    table: &Table,
    rule: RuleSettings,
    change: Change<'_>,
) -> Result<String, Reason> {
    let rules = table.compile(&[rule]).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    with_row(table, change, |row| {
        let mut matching = rules.matching(row);
        let rule = matching.next().expect("it matches").map_err(|failure| failure.reason)?;
        let mut target = Vec::new();
        matching.write_data(rule, &mut target, |named, target| {
            write_column(table, named, target);
            Ok(())
        })?;
        let data = String::from_utf8(target).expect("UTF-8");
        let schema = rules.data_schema(rule, |_| json!({})).expect("it has data");
        let schema = jsonschema::draft202012::new(&schema).expect("a schema");
        let value = serde_json::from_str(&data).expect("JSON");
        schema.validate(&value).unwrap_or_else(|error| panic!("{data}: {error}"));
        Ok(data)
    })
}

/// A JSON Schema of the data of an event of that one rule, in which each column is `column`.
pub(super) fn schema_of(rule: RuleSettings, column: &Value) -> Value {
    let rules = Table::orders().compile(&[rule]).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let rule = rules.iter().next().expect("a rule");
    rules.data_schema(rule, |_| column.clone()).expect("it has data")
}

fn write_column(table: &Table, named: NamedColumn<'_>, target: &mut Vec<u8>) {
    let text = std::str::from_utf8(named.text).expect("UTF-8");
    match table.name(named.index) {
        "paid" => target.extend_from_slice(if text == "t" { "true" } else { "false" }.as_bytes()),
        "email" => target.extend_from_slice(b"\"***\""),
        "id" | "quantity" | "small" | "payload" => target.extend_from_slice(named.text),
        _ => string::write(target, text),
    }
}
