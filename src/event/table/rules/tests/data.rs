//! What an event's own data is.

use serde_json::{Value, json};

use super::fixture::{
    Change, Table, UNCHANGED, data_of, inserted, rule, rule_with_data, schema_of, updated, with_row,
};
use crate::event::{
    Reason,
    table::{
        RuleSettings,
        rules::{NoAnswer, Operation, Part, Place, Problem},
    },
};

fn data(members: &[(&str, &str)], change: Change<'_>) -> String {
    let data = data_of(&Table::orders(), rule_with_data(members), change);
    data.unwrap_or_else(|reason| panic!("{reason}"))
}

fn member(expression: &str, new: &[(&str, &str)]) -> String {
    let data = data(&[("m", expression)], inserted(new));
    data.strip_prefix("{\"m\":").and_then(|rest| rest.strip_suffix('}')).expect(&data).to_owned()
}

#[test]
fn members_come_in_the_order_of_the_file() {
    let members = [("z", "new.id"), ("a", "op"), ("\"ü", "1")];
    assert_eq!(data(&members, inserted(&[("id", "7")])), r#"{"z":7,"a":"insert","\"ü":1}"#);
    assert_eq!(data(&[], inserted(&[])), "{}");
}

#[test]
fn a_column_that_is_named_alone_is_written_by_the_caller() {
    let row = [("total", "12345678901234567890.10"), ("id", "7"), ("paid", "t")];
    for (expression, expected) in [
        ("new.total", r#""12345678901234567890.10""#),
        ("new['total']", r#""12345678901234567890.10""#),
        ("old.total", "null"),
        ("new.quantity", "null"),
        ("[new.total, [new.id]]", r#"["12345678901234567890.10",[7]]"#),
        ("{'a': new.total, 'b': {'c': new.id}}", r#"{"a":"12345678901234567890.10","b":{"c":7}}"#),
        ("new.paid ? new.total : new.id", r#""12345678901234567890.10""#),
        ("!new.paid ? new.total : [new.id]", "[7]"),
        ("new.quantity > 1 ? new.total : new.id", "null"),
        ("{'1': 1, 2: new.id, true: 3}", r#"{"1":1,"2":7,"true":3}"#),
        ("{}", "{}"),
        ("[]", "[]"),
        ("new.email", r#""***""#),
    ] {
        let mut row = row.to_vec();
        row.push(("email", "a@example.org"));
        assert_eq!(member(expression, &row), expected, "{expression}");
    }
}

#[test]
fn computed_values_are_written_as_what_they_are() {
    let row = [
        ("total", "1.10"),
        ("quantity", "2"),
        ("created_at", "2026-03-01 12:00:00.5+00"),
        ("tags", "{a,NULL}"),
        ("payload", r#"{"n": 1.10, "l": [1.0, "x"], "s": "é", "z": null}"#),
    ];
    for (expression, expected) in [
        ("new.quantity + 1", "3"),
        ("new.total * 2", "2.2"),
        ("new.total * 10", "11"),
        ("new.total / 0", r#""Infinity""#),
        ("'a\"' + new.tags[0]", r#""a\"a""#),
        ("new.quantity > 1", "true"),
        ("null", "null"),
        ("new.tags.map(tag, tag)", r#"["a",null]"#),
        ("new.created_at + duration('1s')", r#""2026-03-01T12:00:01.500000Z""#),
        ("new.created_at - timestamp('2026-03-01T00:00:00Z')", r#""PT12H0.5S""#),
        ("type(new.quantity)", r#""int""#),
        ("dyn({'a': [1, {'b': 2.5}]})", r#"{"a":[1,{"b":2.5}]}"#),
        // Out of JSON every digit stays.
        ("new.payload.n", "1.10"),
        ("new.payload.l", r#"[1.0, "x"]"#),
        ("new.payload.l.map(x, [x])", r#"[[1.0],["x"]]"#),
        ("new.payload.s", r#""é""#),
        ("new.payload.z", "null"),
        ("new.payload.s + '!'", r#""é!""#),
    ] {
        assert_eq!(member(expression, &row), expected, "{expression}");
    }
}

#[test]
fn what_is_unknown_is_null_where_it_stands() {
    let row = [("id", "7")];
    for (expression, expected) in [
        ("new.quantity + 1", "null"),
        ("{'a': new.quantity + 1, 'b': new.id}", r#"{"a":null,"b":7}"#),
        ("[size(new.note), 1]", "[null,1]"),
        ("[1].map(x, x + new.quantity)", "null"),
        ("{new.note: 1}", "null"),
        ("[{'a': 1, new.note: 1}, 2]", "[null,2]"),
        ("!(new.quantity > 1)", "null"),
    ] {
        assert_eq!(member(expression, &row), expected, "{expression}");
    }
}

#[test]
fn old_and_new_values_stand_side_by_side() {
    let (old, new) = ([("status", "paid"), ("id", "7")], [("status", "shipped"), ("id", "7")]);
    let members = [("from", "old.status"), ("to", "new.status"), ("moved", "old.id != new.id")];
    assert_eq!(
        data(&members, updated(&old, &new)),
        r#"{"from":"paid","to":"shipped","moved":false}"#
    );
}

#[test]
fn a_member_without_a_value_names_rule_member_and_place() {
    let table = Table::orders().with_identity(&["id"]);
    let new = [("note", UNCHANGED), ("quantity", "0")];
    let change = Change { operation: Operation::Update, old: None, new: Some(&new) };
    for (expression, column, problem) in [
        ("new.note", 1, Problem::NotSent { column: "note".to_owned() }),
        ("[op, new.note]", 6, Problem::NotSent { column: "note".to_owned() }),
        ("op + new.note", 6, Problem::NotSent { column: "note".to_owned() }),
        ("1 / new.quantity", 3, Problem::DivisionByZero { operation: "/" }),
        ("{op: 1, 'update': 2}", 9, Problem::DuplicateKey),
        ("dyn(1) ? 1 : 2", 1, Problem::NotBool { found: "int" }),
    ] {
        let rule = rule_with_data(&[("first", "1"), ("note", expression)]);
        let reason = data_of(&table, rule, change).expect_err(expression);
        let Reason::Rule { answer } = reason else { panic!("{reason}") };
        let expected = NoAnswer {
            event_type: "order.told".to_owned(),
            part: Part::Data { member: "note".to_owned() },
            place: Place { line: 1, column },
            problem,
        };
        assert_eq!(*answer, expected, "{expression}");
    }
}

#[test]
fn a_timestamp_beyond_the_calendar_has_no_json_but_where_it_is_a_column() {
    let row = [("created_at", "infinity")];
    assert_eq!(member("new.created_at", &row), r#""infinity""#);
    let computed = rule_with_data(&[("m", "dyn(new.created_at)")]);
    let reason = data_of(&Table::orders(), computed, inserted(&row)).expect_err("no instant");
    assert!(matches!(
        reason,
        Reason::Rule { answer } if answer.problem == Problem::BeyondCalendar { operation: "data" }
    ));
}

#[test]
fn what_the_caller_cannot_write_is_the_callers_reason() {
    let table = Table::orders();
    let settings =
        RuleSettings { when: Some("true".to_owned()), ..rule_with_data(&[("m", "new.id")]) };
    let rules = table.compile(&[settings, rule("order.other", "true")]).expect("rules");
    let reason = Reason::Null { column: "id".to_owned() };
    with_row(&table, inserted(&[("id", "7")]), |row| {
        let mut matching = rules.matching(row);
        let rule = matching.next().expect("a match").expect("an answer");
        assert!(rule.has_data());
        let written = matching.write_data(rule, &mut Vec::new(), |_, _| Err(reason.clone()));
        assert_eq!(written, Err(reason));
    });
}

/// That what is written is valid is said where it is written.
#[test]
fn a_schema_refuses_what_no_row_can_make_of_an_expression() {
    let column = json!({ "type": ["integer", "null"] });
    let string = || json!("x");
    for (expression, valid, other) in [
        ("new.total", json!(7), string()),
        ("[new.id, new.small]", json!([7, null]), json!([string()])),
        ("{'a': new.id, 2: op}", json!({ "a": 7, "2": "x" }), json!({ "a": 7 })),
        ("{'a': new.id}", json!({ "a": null }), json!({ "a": string() })),
        ("{op: new.id}", json!({ "insert": "anything" }), json!([])),
        ("new.paid ? new.id : 'none'", string(), json!(true)),
        ("new.paid ? null : new.id", json!(7), string()),
        ("null", Value::Null, json!(7)),
        ("[]", json!([]), json!([7])),
        ("new.quantity + 1", json!(7), json!(7.5)),
        ("new.total * 2", json!("-Infinity"), string()),
        ("new.quantity > 1", json!(true), json!(1)),
        ("string(new.id)", string(), json!(1)),
        ("new.created_at + duration('1s')", json!("2026-03-01T12:00:01.500000Z"), string()),
        ("duration('1s')", json!("PT1S"), json!("1s")),
    ] {
        let schema = schema_of(rule_with_data(&[("m", expression)]), &column);
        let schema = jsonschema::draft202012::new(&schema).expect("a schema");
        for value in [valid, Value::Null] {
            assert!(schema.is_valid(&json!({ "m": value })), "{expression}: {value}");
        }
        assert!(!schema.is_valid(&json!({ "m": other })), "{expression}: {other}");
        assert!(!schema.is_valid(&json!({})), "{expression}");
    }
    // What is within JSON or arrays shows its types in the row only.
    for expression in ["new.payload.n", "new.tags[0]", "new.tags.map(tag, tag)"] {
        let schema = schema_of(rule_with_data(&[("m", expression)]), &column);
        assert_eq!(schema["properties"]["m"], json!({}), "{expression}");
    }
}
