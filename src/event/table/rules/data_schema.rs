//! An event's own `data` as JSON Schema, as far as it is known before any row.

use serde_json::{Map, Value, json};

use crate::{
    event::table::rules::{
        cel_type::CelType,
        columns::Slot,
        data::{Member, Written},
        node::NodeKind,
        write,
    },
    value::or_null,
};

/// What schemas are made of. Each of them takes null: what is unknown is null.
pub(super) struct DataSchema<'r, F> {
    pub(super) slots: &'r [Slot],
    /// That of a column, by its place in the tuple.
    pub(super) column: F,
}

impl<F: Fn(usize) -> Value> DataSchema<'_, F> {
    /// The object of all members.
    pub(super) fn of_members(&self, members: &[Member]) -> Value {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        let of_member = |member: &Member| (member.name.clone(), self.of(&member.value));
        let properties: Map<String, Value> = members.iter().map(of_member).collect();
        json!({ "type": "object", "required": names, "properties": properties })
    }

    fn of(&self, written: &Written) -> Value {
        match written {
            Written::Column { slot, .. } => {
                let slot = self.slots.get(*slot);
                slot.map_or_else(|| json!({}), |slot| (self.column)(slot.index))
            }
            Written::List(elements) => {
                let elements = elements.iter().map(|element| self.of(element));
                or_null(json!({ "type": "array", "items": any_of(elements) }))
            }
            Written::Map(entries) => {
                let mut properties = Map::new();
                for (key, value) in entries {
                    let NodeKind::Constant(key) = &key.kind else {
                        return json!({ "type": ["object", "null"] });
                    };
                    if let Ok(name) = write::name(key) {
                        properties.insert(name, self.of(value));
                    }
                }
                let names: Vec<String> = properties.keys().cloned().collect();
                or_null(json!({ "type": "object", "required": names, "properties": properties }))
            }
            // The condition may be unknown, and so the value; each of the two takes null.
            Written::Choice { one, other, .. } => any_of([self.of(one), self.of(other)]),
            Written::Computed(_, cel_type) => of_type(cel_type),
        }
    }
}

/// What is one of these, each of which takes null: each once, and anything where one of them is.
fn any_of(schemas: impl IntoIterator<Item = Value>) -> Value {
    let null = json!({ "type": "null" });
    let mut different: Vec<Value> = Vec::new();
    for schema in schemas {
        if schema != null && !different.contains(&schema) {
            different.push(schema);
        }
    }
    match different.as_slice() {
        [] => null,
        [one] => one.clone(),
        several if several.contains(&json!({})) => json!({}),
        several => json!({ "anyOf": several }),
    }
}

fn of_type(cel_type: &CelType) -> Value {
    match cel_type {
        CelType::Dynamic => json!({}),
        CelType::Null => json!({ "type": "null" }),
        CelType::Bool => json!({ "type": ["boolean", "null"] }),
        CelType::Int => json!({ "type": ["integer", "null"] }),
        CelType::Double => {
            json!({ "type": ["number", "string", "null"], "pattern": "^(NaN|-?Infinity)$" })
        }
        CelType::String | CelType::Type => json!({ "type": ["string", "null"] }),
        CelType::Timestamp => json!({
            "type": ["string", "null"],
            "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z$",
        }),
        CelType::Duration => json!({ "type": ["string", "null"], "pattern": "^PT" }),
        CelType::List(element) => json!({ "type": ["array", "null"], "items": of_type(element) }),
        CelType::Map(_, value) => {
            json!({ "type": ["object", "null"], "additionalProperties": of_type(value) })
        }
    }
}
