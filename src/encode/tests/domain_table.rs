//! From changes of a domain table to the bytes of their records.

use serde_json::{Value, json};

use super::{RECORD_BYTES_MAX, Written, subjects};
use crate::{
    change::ReplicaIdentity,
    encode::Encoder,
    event::{
        EventError, Route, TopicTemplate, TypeGlob, TypeTemplate,
        fixture::{
            INT8, NUMERIC, TEXT,
            domain_table::{
                Cell::{self, Null, Text, Unchanged},
                DomainTable, Happens, REQUEST, TABLE, rule, take_events,
            },
            transaction,
        },
        table::{DataForm, EventShape, Mask, PrimaryKey, Salt, ValueShape},
    },
    sink::{Batch, Headers, Subject},
    value::ColumnForm,
};

/// A record, and where it goes.
#[derive(Debug)]
struct Sent {
    topic: String,
    key: Option<String>,
    partition: Option<u32>,
    written: Written,
}

impl Sent {
    fn event_type(&self) -> &str {
        self.written.headers_of("event-type")[0]
    }

    fn id(&self) -> &str {
        self.written.headers_of("event-id")[0]
    }

    /// The envelope from `data` on.
    fn data(&self) -> &str {
        let value = self.written.value.as_deref().expect("a value");
        value.split_once("\"data\":").expect("data").1.strip_suffix('}').expect("a brace")
    }
}

/// The records of a change.
fn send(table: &DomainTable, happens: &Happens<'_>) -> Result<Vec<Sent>, EventError> {
    let (mut batch, mut encoder) = (Batch::default(), Encoder::new(RECORD_BYTES_MAX));
    let mut mapping = table.mapping();
    let is_snapshot = matches!(happens, Happens::Snapshot { .. });
    if is_snapshot {
        mapping.observe_snapshot(TABLE, &table.description());
    }
    take_events(&mut mapping, happens, |mut events| {
        for sequence in 5.. {
            let Some(event) = events.next()? else { break };
            let encoded = match is_snapshot {
                true => encoder.encode_snapshot(&event, &transaction(), &mut batch),
                false => encoder.encode(&event, &transaction(), sequence, &mut batch),
            };
            assert_eq!(encoded.expect("it has a JSON form"), crate::value::Written::AsDescribed);
        }
        Ok(())
    })?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let sent = |record: &crate::sink::Record| {
        let name = &batch.new_topics()[record.topic.0 as usize].name;
        let headers = Headers::new(batch.slice(record.headers));
        Sent {
            topic: name.to_string(),
            key: record.key.map(|span| text(batch.slice(span))),
            partition: record.partition,
            written: Written {
                value: record.value.map(|span| text(batch.slice(span))),
                headers: headers.map(|(name, value)| (text(name), text(value))).collect(),
            },
        }
    };
    let position = transaction().commit_lsn;
    let subject = match is_snapshot {
        true => Subject::Row { read_lsn: position.lsn(), request: Some(REQUEST.to_owned()) },
        false => Subject::Transaction(position),
    };
    assert!(subjects(&batch).iter().all(|found| found.as_ref() == Some(&subject)));
    let sent: Vec<Sent> = batch.records().iter().map(sent).collect();
    if let Ok(shapes) = table.shapes() {
        sent.iter().for_each(|sent| judge(sent, &shapes));
    }
    Ok(sent)
}

/// A record is what consumers are told of it.
fn judge(sent: &Sent, shapes: &[EventShape]) {
    let is_valid = |schema: &Value, value: &Value| {
        jsonschema::draft202012::new(schema).expect("a schema").is_valid(value)
    };
    let value: Option<Value> =
        sent.written.value.as_ref().map(|value| serde_json::from_str(value).expect("JSON"));
    let is_described = |shape: &EventShape| {
        let is_value = match (&shape.value, &value) {
            (ValueShape::Tombstone, None) => true,
            (ValueShape::Envelope { data, unavailable }, Some(value)) => {
                let named = value["unavailable"].as_array().into_iter().flatten();
                is_valid(data, &value["data"])
                    && named.clone().all(|name| unavailable.iter().any(|known| name == known))
            }
            (ValueShape::Tombstone, Some(_)) | (ValueShape::Envelope { .. }, None) => false,
        };
        is_value
            && shape.event_type == sent.event_type()
            && shape.version == sent.written.headers_of("schema-version")[0]
            && shape.topic.literal().is_none_or(|topic| topic == sent.topic)
            && is_valid(&shape.key, &json!(sent.key))
    };
    assert!(shapes.iter().any(is_described), "{sent:#?} {shapes:#?}");
}

#[track_caller]
fn send_one(table: &DomainTable, happens: &Happens<'_>) -> Sent {
    let mut sent = send(table, happens).expect("events");
    assert_eq!(sent.len(), 1, "{sent:#?}");
    sent.remove(0)
}

const ROW: [Cell<'static>; 3] = [Text("7"), Text("placed"), Null];
const KEY: [Cell<'static>; 3] = [Text("7"), Null, Null];

#[test]
fn an_insert_is_created_with_the_row_under_its_key() {
    let sent = send_one(&DomainTable::orders(), &Happens::Insert(&ROW));
    assert_eq!((sent.topic.as_str(), sent.key.as_deref()), ("orders.events", Some("7")));
    let id = sent.id();
    assert_eq!(
        sent.written.value.as_deref().expect("a value"),
        format!(
            "{{\"id\":\"{id}\",\"type\":\"orders.created\",\"version\":\"1.0\",\"source\":\
             \"order-service\",\"correlationId\":\"tx-16/B374D848\",\"occurredAt\":\
             \"2026-03-01T12:00:00.123456Z\",\"data\":{{\"id\":7,\"status\":\"placed\",\"note\":\
             null}}}}"
        )
    );
    let of = |name| sent.written.headers_of(name);
    assert_eq!(of("event-type"), ["orders.created"]);
    assert_eq!(
        (of("pg-lsn"), of("pg-seq"), of("pg-xid")),
        (vec!["16/B374D848"], vec!["5"], vec!["742"])
    );
    assert_eq!(sent.partition, None);
}

/// Made by Python: hashlib.sha256(b"".join(len(s).to_bytes(8, "big") + s for s in [b"tailwater
/// snapshot", b"7", the request, b"public.orders", (1).to_bytes(8, "big") + b"7", b"",
/// b"orders.snapshot", b""])), the first 16 bytes, then version 8 and variant 1.
#[test]
fn a_row_that_was_there_is_a_snapshot_of_no_transaction() {
    let row = Happens::Snapshot { row: &ROW, key: "7", moved_at: None };
    let sent = send_one(&DomainTable::orders(), &row);
    assert_eq!((sent.topic.as_str(), sent.key.as_deref()), ("orders.events", Some("7")));
    assert_eq!(sent.data(), r#"{"id":7,"status":"placed","note":null}"#);
    assert_eq!(sent.id(), "665b35e5-648c-85df-9ec4-fedaea028651");
    let of = |name| sent.written.headers_of(name);
    assert_eq!((of("event-type"), of("correlation-id")), (vec!["orders.snapshot"], vec![REQUEST]));
    assert_eq!(of("pg-lsn"), ["16/B374D848"]);
    assert!(of("pg-seq").is_empty() && of("pg-xid").is_empty());
    let change = DomainTable::orders().with(|table| table.settings.data = DataForm::Change);
    assert_eq!(
        send_one(&change, &row).data(),
        r#"{"before":null,"after":{"id":7,"status":"placed","note":null}}"#
    );
}

#[test]
fn the_id_of_a_row_that_was_there_is_that_of_its_key_and_of_how_it_got_there() {
    let id = |key, moved_at| {
        let row = Happens::Snapshot { row: &ROW, key, moved_at };
        send_one(&DomainTable::orders(), &row).id().to_owned()
    };
    let moved_at = Some(transaction().commit_lsn);
    let ids = [id("7", None), id("8", None), id("7", moved_at)];
    assert_eq!(ids[0], id("7", None));
    assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");
}

#[test]
fn an_update_is_updated_with_the_new_row() {
    let new = [Text("7"), Text("shipped"), Text("fast")];
    let sent = send_one(&DomainTable::orders(), &Happens::Update { key: None, new: &new });
    assert_eq!(sent.event_type(), "orders.updated");
    assert_eq!(sent.data(), r#"{"id":7,"status":"shipped","note":"fast"}"#);
}

#[test]
fn a_delete_is_deleted_with_what_the_identity_delivers() {
    let sent = send_one(&DomainTable::orders(), &Happens::Delete { key: &KEY });
    assert_eq!((sent.event_type(), sent.key.as_deref()), ("orders.deleted", Some("7")));
    assert_eq!(sent.data(), r#"{"id":7}"#);
    let sent = send_one(&DomainTable::orders().full(), &Happens::DeleteOf { whole: &ROW });
    assert_eq!(sent.data(), r#"{"id":7,"status":"placed","note":null}"#);
    assert_eq!(sent.key.as_deref(), Some("7"));
}

#[test]
fn a_truncate_is_one_record_without_key_and_data_in_the_first_partition() {
    let sent = send_one(&DomainTable::orders(), &Happens::Truncate);
    assert_eq!((sent.event_type(), sent.data()), ("orders.truncated", "null"));
    assert_eq!((sent.key, sent.partition), (None, Some(0)));
}

#[test]
fn a_key_that_changes_is_deleted_and_created() {
    let new = [Text("8"), Text("placed"), Null];
    for (table, happens) in [
        (DomainTable::orders(), Happens::Update { key: Some(&KEY), new: &new }),
        (DomainTable::orders().full(), Happens::UpdateOf { whole: &ROW, new: &new }),
    ] {
        let sent = send(&table, &happens).expect("events");
        let [deleted, created] = &sent[..] else { panic!("{sent:#?}") };
        assert_eq!((deleted.event_type(), deleted.key.as_deref()), ("orders.deleted", Some("7")));
        assert_eq!((created.event_type(), created.key.as_deref()), ("orders.created", Some("8")));
        assert_eq!(created.data(), r#"{"id":8,"status":"placed","note":null}"#);
        assert_ne!(deleted.id(), created.id());
        let sequences = sent.iter().map(|sent| sent.written.headers_of("pg-seq")[0]);
        assert_eq!(sequences.collect::<Vec<_>>(), ["5", "6"]);
    }
}

#[test]
fn the_same_key_sent_again_is_no_move() {
    let happens = Happens::Update { key: Some(&KEY), new: &ROW };
    assert_eq!(send_one(&DomainTable::orders(), &happens).event_type(), "orders.updated");
}

#[test]
fn a_tombstone_follows_each_delete() {
    let table = DomainTable::orders().with(|table| table.settings.tombstone = true);
    let new = [Text("8"), Text("placed"), Null];
    let moves = Happens::Update { key: Some(&KEY), new: &new };
    let sent = send(&table, &moves).expect("events");
    let [deleted, tombstone, created] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((tombstone.key.as_deref(), tombstone.written.value.as_deref()), (Some("7"), None));
    assert_eq!(tombstone.id(), deleted.id());
    assert_eq!(created.key.as_deref(), Some("8"));
    assert_eq!(send(&table, &Happens::Delete { key: &KEY }).expect("events").len(), 2);
    assert_eq!(send(&table, &Happens::Truncate).expect("events").len(), 1);
}

#[test]
fn an_unchanged_large_value_is_named_and_never_null() {
    let new = [Text("7"), Text("paid"), Unchanged];
    let sent = send_one(&DomainTable::orders(), &Happens::Update { key: None, new: &new });
    assert_eq!(sent.data(), r#"{"id":7,"status":"paid"},"unavailable":["note"]"#);
}

/// The server sends the old key of such a row with each update, and NULL for all beside it.
#[test]
fn an_unchanged_large_key_is_taken_from_the_old_one() {
    let new = [Unchanged, Text("paid"), Unchanged];
    let sent = send_one(&DomainTable::orders(), &Happens::Update { key: Some(&KEY), new: &new });
    assert_eq!((sent.event_type(), sent.key.as_deref()), ("orders.updated", Some("7")));
    assert!(
        sent.data().ends_with(r#","status":"paid"},"unavailable":["note"]"#),
        "{}",
        sent.data()
    );
}

#[test]
fn an_unchanged_large_value_is_taken_from_the_whole_old_row() {
    let whole = [Text("7"), Text("placed"), Text("large")];
    let new = [Text("7"), Text("paid"), Unchanged];
    let happens = Happens::UpdateOf { whole: &whole, new: &new };
    let sent = send_one(&DomainTable::orders().full(), &happens);
    assert_eq!(sent.data(), r#"{"id":7,"status":"paid","note":"large"}"#);
    let table = DomainTable::orders().full().with(|table| table.settings.data = DataForm::Change);
    let sent = send_one(&table, &happens);
    assert!(sent.data().ends_with(r#","changed":["status"]}"#), "{}", sent.data());
}

#[test]
fn a_change_says_what_was_before_as_far_as_it_was_sent() {
    let of = |table: DomainTable| table.with(|table| table.settings.data = DataForm::Change);
    let (small, full) = (of(DomainTable::orders()), of(DomainTable::orders().full()));
    let new = [Text("7"), Text("paid"), Text("n")];
    for (table, happens, data) in [
        (
            &small,
            Happens::Insert(&ROW),
            r#"{"before":null,"after":{"id":7,"status":"placed","note":null}}"#,
        ),
        (
            &small,
            Happens::Update { key: None, new: &new },
            r#"{"before":null,"after":{"id":7,"status":"paid","note":"n"}}"#,
        ),
        (
            &full,
            Happens::UpdateOf { whole: &ROW, new: &new },
            r#"{"before":{"id":7,"status":"placed","note":null},"after":{"id":7,"status":"paid","note":"n"},"changed":["status","note"]}"#,
        ),
        (&small, Happens::Delete { key: &KEY }, r#"{"before":{"id":7},"after":null}"#),
        (
            &full,
            Happens::DeleteOf { whole: &ROW },
            r#"{"before":{"id":7,"status":"placed","note":null},"after":null}"#,
        ),
        (&full, Happens::Truncate, "null"),
    ] {
        assert_eq!(send_one(table, &happens).data(), data);
    }
}

#[test]
fn hidden_columns_are_left_out_and_masked_ones_replaced() {
    let salt = Salt::new("a salt of sixteen");
    let table = DomainTable::orders().full().with(|table| {
        table.settings.data = DataForm::Change;
        table.settings.excluded = vec!["note".to_owned()];
        table.settings.masks = vec![("status".to_owned(), Mask::Sha256(salt))];
    });
    let new = [Text("7"), Text("paid"), Text("secret")];
    let sent = send_one(&table, &Happens::UpdateOf { whole: &ROW, new: &new });
    let data: serde_json::Value = serde_json::from_str(sent.data()).expect("JSON");
    assert!(!sent.data().contains("note") && !sent.data().contains("paid"), "{data}");
    let of = |side: &str| data[side]["status"].as_str().expect("a hash").to_owned();
    assert_eq!((of("before").len(), of("after").len()), (64, 64));
    assert_ne!(of("before"), of("after"));
    let table = table.with(|table| {
        table.settings.masks = vec![("status".to_owned(), Mask::Redact)];
        table.settings.data = DataForm::Row;
    });
    let null = [Text("7"), Null, Null];
    assert_eq!(send_one(&table, &Happens::Insert(&new)).data(), r#"{"id":7,"status":"***"}"#);
    assert_eq!(send_one(&table, &Happens::Insert(&null)).data(), r#"{"id":7,"status":null}"#);
}

#[test]
fn a_key_of_several_columns_is_an_array_of_their_forms() {
    let table = DomainTable::orders().full();
    let table = table.with(|table| {
        table.settings.key = Some(vec!["status".to_owned(), "id".to_owned(), "note".to_owned()]);
    });
    let sent = send_one(&table, &Happens::Insert(&ROW));
    assert_eq!(sent.key.as_deref(), Some(r#"["placed",7,null]"#));
}

#[test]
fn a_table_without_a_key_has_null_keys() {
    let table = DomainTable::orders().with(|table| {
        table.identity = ReplicaIdentity::Nothing;
        table.columns[0].2 = false;
    });
    assert_eq!(send_one(&table, &Happens::Insert(&ROW)).key, None);
}

#[test]
fn a_unique_index_is_the_key_where_deletes_carry_only_it() {
    let table = DomainTable::orders().with(|table| {
        table.identity = ReplicaIdentity::Index;
        table.columns = vec![("id", INT8, false), ("status", TEXT, true), ("note", TEXT, false)];
    });
    assert_eq!(send_one(&table, &Happens::Insert(&ROW)).key.as_deref(), Some("placed"));
    let key = [Null, Text("placed"), Null];
    let sent = send_one(&table, &Happens::Delete { key: &key });
    assert_eq!((sent.key.as_deref(), sent.data()), (Some("placed"), r#"{"status":"placed"}"#));
}

#[test]
fn a_topic_may_be_made_of_a_column_and_a_route_goes_before_it() {
    let template = TopicTemplate::parse("{column:status}.{domain}").expect("a template");
    let table = DomainTable::orders().full().with(|table| table.settings.topic = template);
    assert_eq!(send_one(&table, &Happens::Insert(&ROW)).topic, "placed.orders");
    let unnamed = [Text("7"), Null, Null];
    let error = send(&table, &Happens::Insert(&unnamed)).expect_err("no topic").to_string();
    assert!(error.contains("public.orders") && error.contains("\"status\" is NULL"), "{error}");
    let route = Route {
        event_type: TypeGlob::parse("*.created").expect("a pattern"),
        topic: TypeTemplate::parse("new.{domain}").expect("a template"),
    };
    let table = table.with(|table| table.routes = vec![route]);
    assert_eq!(send_one(&table, &Happens::Insert(&ROW)).topic, "new.orders");
}

#[test]
fn a_column_may_be_written_otherwise_than_its_type() {
    let table = DomainTable::orders().with(|table| {
        table.columns[1] = ("total", NUMERIC, false);
        table.settings.column_types =
            vec![("total".to_owned(), ColumnForm::Number), ("id".to_owned(), ColumnForm::String)];
    });
    let row = [Text("7"), Text("12.50"), Null];
    let sent = send_one(&table, &Happens::Insert(&row));
    assert_eq!(sent.data(), r#"{"id":"7","total":12.50,"note":null}"#);
    assert_eq!(sent.key.as_deref(), Some("7"));
}

#[test]
fn a_table_that_does_not_fit_is_refused_by_its_next_row() {
    let wrong = |change: fn(&mut DomainTable)| {
        let error = send(&DomainTable::orders().with(change), &Happens::Insert(&ROW));
        error.expect_err("refused").to_string()
    };
    let error = wrong(|table| table.settings.excluded = vec!["notes".to_owned()]);
    assert!(error.contains("\"notes\" does not exist"), "{error}");
    let error = wrong(|table| table.settings.key = Some(vec!["nr".to_owned()]));
    assert!(error.contains("\"nr\"") && error.contains("under key"), "{error}");
    let error = wrong(|table| table.settings.masks = vec![("id".to_owned(), Mask::Redact)]);
    assert!(error.contains("part of the key"), "{error}");
}

/// The catalog says what the key is by now; a row may be older.
#[test]
fn a_key_that_is_not_the_rows_is_refused_and_never_null() {
    let renamed = DomainTable::orders().full().with(|table| table.primary_key = vec!["order_id"]);
    let error = send(&renamed, &Happens::Insert(&ROW)).expect_err("another key").to_string();
    assert!(error.contains("\"order_id\"") && error.contains("primary key"), "{error}");
    let grown = DomainTable::orders().full().with(|table| table.primary_key = vec!["id", "state"]);
    assert!(send(&grown, &Happens::Insert(&ROW)).is_err());
    let named = renamed.with(|table| table.settings.key = Some(vec!["id".to_owned()]));
    assert_eq!(send_one(&named, &Happens::Insert(&ROW)).key.as_deref(), Some("7"));
    let mut mapping = DomainTable::orders().full().mapping();
    let relation = DomainTable::orders().full().relation();
    mapping.observe_relation(&relation, PrimaryKey::Unknown);
    let refused = take_events(&mut mapping, &Happens::Insert(&ROW), |mut events| {
        events.next().map(|event| event.is_some())
    });
    assert!(refused.expect_err("no table").to_string().contains("dropped"));
}

/// A partition whose identity is not its root's: the server sends NULL for what it has no value of.
#[test]
fn a_key_without_its_columns_is_refused_and_never_null() {
    let nothing = [Null, Null, Null];
    let error = send(&DomainTable::orders(), &Happens::Delete { key: &nothing });
    let error = error.expect_err("no key").to_string();
    assert!(error.contains("did not send") && error.contains("\"id\""), "{error}");
}

#[test]
fn an_update_must_show_whether_the_key_changed() {
    let table = DomainTable::orders().with(|table| {
        table.settings.key = Some(vec!["status".to_owned()]);
    });
    let new = [Text("7"), Text("paid"), Null];
    let error = send(&table, &Happens::Update { key: None, new: &new }).expect_err("unknown");
    assert!(error.to_string().contains("\"status\""), "{error}");
    assert_eq!(send_one(&table, &Happens::Insert(&ROW)).key.as_deref(), Some("placed"));
    let table = table.full();
    let sent = send(&table, &Happens::UpdateOf { whole: &ROW, new: &new }).expect("events");
    let keys: Vec<_> = sent.iter().map(|sent| sent.key.as_deref()).collect();
    assert_eq!(keys, [Some("placed"), Some("paid")]);
}

#[test]
fn what_no_event_shows_makes_none_too_large() {
    let table =
        DomainTable::orders().with(|table| table.settings.excluded = vec!["note".to_owned()]);
    let large = "x".repeat(2 * RECORD_BYTES_MAX);
    let row = [Text("7"), Text("placed"), Text(&large)];
    assert_eq!(send_one(&table, &Happens::Insert(&row)).data(), r#"{"id":7,"status":"placed"}"#);
}

#[test]
fn ids_are_the_same_for_ever() {
    let sent = send_one(&DomainTable::orders(), &Happens::Insert(&ROW));
    assert_eq!(sent.id(), "019ca945-0a7b-8aad-9e0c-24578433d99d");
}

mod rules {
    use super::*;
    use crate::event::table::{Otherwise, RuleSettings};

    fn orders(rules: Vec<RuleSettings>) -> DomainTable {
        DomainTable::orders().with(|table| {
            table.settings.rules = rules;
            table.settings.otherwise = Otherwise::Skip;
        })
    }

    fn types(sent: &[Sent]) -> Vec<&str> {
        sent.iter().map(Sent::event_type).collect()
    }

    #[test]
    fn each_rule_that_matches_is_an_event_in_the_order_of_the_file() {
        let table = orders(vec![
            rule("order.seen", "new.id > 5"),
            rule("order.placed", "op == 'insert'"),
            rule("order.large", "new.id > 100"),
        ]);
        let sent = send(&table, &Happens::Insert(&ROW)).expect("events");
        assert_eq!(types(&sent), ["order.seen", "order.placed"]);
        let keys: Vec<_> = sent.iter().map(|sent| sent.key.as_deref()).collect();
        assert_eq!(keys, [Some("7"), Some("7")]);
        assert_eq!(sent[0].data(), r#"{"id":7,"status":"placed","note":null}"#);
        assert_ne!(sent[0].id(), sent[1].id());
        let sequences = sent.iter().map(|sent| sent.written.headers_of("pg-seq")[0]);
        assert_eq!(sequences.collect::<Vec<_>>(), ["5", "6"]);
        assert!(send(&table, &Happens::Truncate).expect("no event").is_empty());
    }

    #[test]
    fn rules_of_one_type_have_ids_by_their_conditions() {
        let one = rule("order.seen", "new.id > 5");
        let table = orders(vec![one.clone(), rule("order.seen", "new.id > 6")]);
        let sent = send(&table, &Happens::Insert(&ROW)).expect("events");
        assert_ne!(sent[0].id(), sent[1].id());
        let alone = send_one(&orders(vec![one]), &Happens::Insert(&ROW));
        assert_eq!(alone.id(), sent[0].id());
    }

    #[test]
    fn what_no_rule_matches_is_skipped_or_as_without_rules() {
        let table = orders(vec![rule("order.paid", "new.status == 'paid'")]);
        assert!(send(&table, &Happens::Insert(&ROW)).expect("no event").is_empty());
        let table = table.with(|table| table.settings.otherwise = Otherwise::Default);
        assert_eq!(send_one(&table, &Happens::Insert(&ROW)).event_type(), "orders.created");
        let new = [Text("8"), Text("paid"), Null];
        let moves = Happens::Update { key: Some(&KEY), new: &new };
        let sent = send_one(&table, &moves);
        assert_eq!((sent.event_type(), sent.key.as_deref()), ("order.paid", Some("8")));
    }

    #[test]
    fn a_rule_has_a_version_a_topic_and_data_of_its_own() {
        let table = orders(vec![RuleSettings {
            version: Some("2.1".to_owned()),
            data: Some(vec![
                ("order".to_owned(), "new.id".to_owned()),
                ("next".to_owned(), "new.id + 1".to_owned()),
                ("state".to_owned(), "new.status + '!'".to_owned()),
            ]),
            topic: Some(TopicTemplate::parse("{domain}.{table}").expect("a template")),
            ..rule("order.placed", "op == 'insert'")
        }]);
        let sent = send_one(&table, &Happens::Insert(&ROW));
        assert_eq!(sent.topic, "order.orders");
        assert_eq!(sent.written.headers_of("schema-version"), ["2.1"]);
        assert_eq!(sent.data(), r#"{"order":7,"next":8,"state":"placed!"}"#);
    }

    #[test]
    fn a_delete_of_a_rule_is_under_the_old_key_with_its_tombstone() {
        let table = orders(vec![rule("order.gone", "op == 'delete'")])
            .with(|table| table.settings.tombstone = true);
        let sent = send(&table, &Happens::Delete { key: &KEY }).expect("events");
        let [gone, tombstone] = &sent[..] else { panic!("{sent:#?}") };
        assert_eq!((gone.key.as_deref(), gone.data()), (Some("7"), r#"{"id":7}"#));
        assert_eq!(
            (tombstone.key.as_deref(), tombstone.written.value.as_deref()),
            (Some("7"), None)
        );
        assert!(send(&table, &Happens::Insert(&ROW)).expect("no event").is_empty());
    }

    #[test]
    fn each_topic_of_a_deletes_events_gets_one_tombstone() {
        let elsewhere = |event_type: &str| RuleSettings {
            topic: Some(TopicTemplate::parse("gone").expect("a template")),
            ..rule(event_type, "op == 'delete'")
        };
        let table = orders(vec![
            elsewhere("order.cancelled"),
            elsewhere("order.forgotten"),
            rule("order.gone", "op == 'delete'"),
        ]);
        let table = table.with(|table| table.settings.tombstone = true);
        let sent = send(&table, &Happens::Delete { key: &KEY }).expect("events");
        let told = sent
            .iter()
            .map(|sent| (sent.topic.as_str(), sent.event_type(), sent.written.value.is_some()));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                ("gone", "order.cancelled", true),
                ("gone", "order.forgotten", true),
                ("orders.events", "order.gone", true),
                ("gone", "order.cancelled", false),
                ("orders.events", "order.gone", false),
            ]
        );
    }

    #[test]
    fn a_rule_for_truncate_has_no_key_and_goes_to_the_first_partition() {
        let table = orders(vec![rule("orders.emptied", "op == 'truncate'")]);
        let sent = send_one(&table, &Happens::Truncate);
        assert_eq!((sent.key.as_deref(), sent.partition, sent.data()), (None, Some(0), "null"));
    }

    /// A rule that is younger than what the log holds: each row that needs what is not there is an
    /// error of its own, and no row of the others.
    #[test]
    fn an_old_value_that_was_not_logged_is_an_error_of_its_event_alone() {
        let table = orders(vec![
            rule("order.shipped", "new.status == 'shipped' && old.status != 'shipped'"),
            rule("order.moved", "op == 'update' && old.id != new.id"),
        ]);
        let shipped = [Text("7"), Text("shipped"), Null];
        let error =
            send(&table, &Happens::Update { key: None, new: &shipped }).expect_err("unknown");
        let words = "order.shipped";
        assert!(matches!(error, EventError::Unmappable { .. }), "{error}");
        assert!(
            error.to_string().contains(words) && error.to_string().contains("\"status\""),
            "{error}"
        );
        assert!(
            send(&table, &Happens::Update { key: None, new: &ROW }).expect("no event").is_empty()
        );
        let new = [Text("8"), Text("placed"), Null];
        let sent = send_one(&table, &Happens::Update { key: Some(&KEY), new: &new });
        assert_eq!(sent.event_type(), "order.moved");
        assert_eq!(
            types(&send(&table, &Happens::Insert(&shipped)).expect("events")),
            ["order.shipped"]
        );
    }

    #[test]
    fn a_rule_that_fails_takes_the_place_of_its_event_alone() {
        let table = orders(vec![
            rule("order.parsed", "int(new.note) > 1"),
            rule("order.placed", "op == 'insert'"),
        ]);
        let row = [Text("7"), Text("placed"), Text("x")];
        let mut mapping = table.mapping();
        let outcomes = take_events(&mut mapping, &Happens::Insert(&row), |mut events| {
            let mut outcomes = Vec::new();
            loop {
                match events.next() {
                    Ok(None) => return Ok(outcomes),
                    Ok(Some(event)) => outcomes.push(event.event_type.to_owned()),
                    Err(error) => {
                        assert!(error.to_string().contains("order.parsed"), "{error}");
                        let unmapped = events.unmapped().expect("what is known");
                        outcomes.push(format!("{:?} {:?}", unmapped.topic, unmapped.key));
                    }
                }
            }
        });
        let outcomes = outcomes.expect("outcomes");
        assert_eq!(outcomes, ["Some(\"orders.events\") Some([55])", "order.placed"]);
    }

    #[test]
    fn mistaken_rules_are_all_told_at_once() {
        let table =
            orders(vec![rule("order.a", "new.stat == 'x'"), rule("order.b", "new.id > 'x'")]);
        let error = send(&table, &Happens::Insert(&ROW)).expect_err("refused").to_string();
        for words in ["order.a", "\"stat\"", "order.b", "line 1, column"] {
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
