//! docs/rules.md says what is so: each of its examples is carried out.

use serde_json::Value as Json;

use super::fixture::{Change, Table, data_of, decide, inserted, rule_with_data, with_row};
use crate::event::table::{RuleSettings, rules::Operation};

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.md");
    std::fs::read_to_string(path).expect("docs/rules.md")
}

/// The rows of each table that has this head, as their cells without code marks.
fn rows(document: &str, head: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut lines = document.lines();
    while lines.any(|line| line == head) {
        let table = lines.by_ref().skip(1).take_while(|line| line.starts_with('|'));
        rows.extend(table.map(|line| {
            let line = line.replace("\\|", "\0");
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('\0', "|")).collect()
        }));
    }
    rows
}

fn code(cell: &str) -> &str {
    cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).unwrap_or(cell)
}

/// A row as the document has it; NULL where it is null or not named.
fn row(cell: &str) -> Vec<(String, String)> {
    let text = match code(cell) {
        "" => "{}",
        text => text,
    };
    let row: serde_json::Map<String, Json> = serde_json::from_str(text).expect(text);
    let values = row.into_iter().filter_map(|(name, value)| match value {
        Json::String(text) => Some((name, text)),
        Json::Null => None,
        other => panic!("{other} is no text"),
    });
    values.collect()
}

fn borrowed(row: &[(String, String)]) -> Vec<(&str, &str)> {
    row.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect()
}

#[test]
fn expressions_give_what_the_document_says() {
    let rows = rows(&document(), "| expression | new | gives |");
    assert!(rows.len() > 40, "{}", rows.len());
    for cells in rows {
        let [expression, new, expected] = cells.as_slice() else { panic!("{cells:?}") };
        let (new, rule) = (row(new), rule_with_data(&[("m", code(expression))]));
        let data = data_of(&Table::orders(), rule, inserted(&borrowed(&new)));
        let data = data.unwrap_or_else(|reason| panic!("{expression}: {reason}"));
        assert_eq!(data, format!("{{\"m\":{}}}", code(expected)), "{expression}");
    }
}

#[test]
fn conditions_match_where_the_document_says() {
    let rows = rows(&document(), "| when | new | matches |");
    assert!(rows.len() > 7, "{}", rows.len());
    for cells in rows {
        let [when, new, expected] = cells.as_slice() else { panic!("{cells:?}") };
        let new = row(new);
        let matches = decide(code(when), inserted(&borrowed(&new)));
        assert_eq!(matches, Ok(expected == "yes"), "{when}");
    }
}

/// The rules of the document's settings.
fn rules(document: &str) -> Vec<RuleSettings> {
    let (_, toml) = document.split_once("```toml\n").expect("settings");
    let (toml, _) = toml.split_once("```").expect("their end");
    let settings: toml::Table = toml.parse().expect("TOML");
    let text = |value: &toml::Value| value.as_str().expect("a text").to_owned();
    let rule = |rule: &toml::Value| RuleSettings {
        event_type: text(&rule["type"]),
        when: rule.get("when").map(text),
        version: rule.get("version").map(text),
        data: rule.get("data").map(|data| {
            let members = data.as_table().expect("a table").iter();
            members.map(|(name, expression)| (name.clone(), text(expression))).collect()
        }),
        topic: None,
    };
    let rules = settings["table"][0]["event"].as_array().expect("rules");
    rules.iter().map(rule).collect()
}

#[test]
fn an_orders_life_is_told_as_the_document_says() {
    let document = document();
    let table = Table::orders();
    let rules = table.compile(&rules(&document)).expect("rules");
    let rows = rows(&document, "| op | old | new | events |");
    assert!(rows.len() > 6, "{}", rows.len());
    for cells in rows {
        let [op, old, new, expected] = cells.as_slice() else { panic!("{cells:?}") };
        let operation = Operation::ALL.into_iter().find(|known| known.word() == code(op));
        let (old_row, new_row) = (row(old), row(new));
        let (old_row, new_row) = (borrowed(&old_row), borrowed(&new_row));
        let change = Change {
            operation: operation.expect(op),
            old: (!old.is_empty()).then_some(&*old_row),
            new: (!new.is_empty()).then_some(&*new_row),
        };
        let told = with_row(&table, change, |row| {
            let mut matching = rules.matching(row);
            let mut told = Vec::new();
            while let Some(rule) = matching.next() {
                let rule = rule.unwrap_or_else(|failure| panic!("{}", failure.reason));
                told.push(format!("`{}`", rule.event_type()));
                if rule.has_data() {
                    let mut data = Vec::new();
                    let write = |named: super::super::NamedColumn<'_>, target: &mut Vec<u8>| {
                        match table.name(named.index) {
                            "id" => target.extend_from_slice(named.text),
                            _ => crate::value::string::write(
                                target,
                                std::str::from_utf8(named.text).expect("UTF-8"),
                            ),
                        }
                        Ok(())
                    };
                    matching.write_data(rule, &mut data, write).expect("data");
                    let data: Json = serde_json::from_slice(&data).expect("JSON");
                    told.push(format!("`{data}`"));
                }
            }
            told.join(" ")
        });
        // The document's TOML does not say in which order an inline table's keys are read here.
        let sorted = |text: &str| {
            let mut parts: Vec<char> = text.chars().collect();
            parts.sort_unstable();
            parts
        };
        assert_eq!(sorted(&told), sorted(expected), "{cells:?}: {told}");
    }
}
