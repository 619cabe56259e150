//! When a condition holds.

use super::fixture::{
    Change, Table, UNCHANGED, decide, decide_on, inserted, rule, updated, with_row,
};
use crate::event::{
    Reason,
    table::{
        RuleSettings,
        rules::{Operation, Problem, Rule},
    },
};

/// What each condition says of one inserted row.
fn expect(new: &[(&str, &str)], conditions: &[(&str, bool)]) {
    for (when, expected) in conditions {
        assert_eq!(decide(when, inserted(new)), Ok(*expected), "{when}");
    }
}

fn problem(when: &str, new: &[(&str, &str)]) -> Problem {
    decide(when, inserted(new)).expect_err(when)
}

#[test]
fn a_transition_is_told_from_a_state() {
    let when = "old.status != 'shipped' && new.status == 'shipped'";
    for (old, new, expected) in
        [("paid", "shipped", true), ("shipped", "shipped", false), ("shipped", "paid", false)]
    {
        let (old, new) = ([("status", old)], [("status", new)]);
        assert_eq!(decide(when, updated(&old, &new)), Ok(expected), "{old:?} {new:?}");
    }
    // An order that comes shipped was in no state before.
    assert_eq!(decide(when, inserted(&[("status", "shipped")])), Ok(true));
    let deleted =
        Change { operation: Operation::Delete, old: Some(&[("status", "paid")]), new: None };
    assert_eq!(decide(when, deleted), Ok(false));
    assert_eq!(decide("old.status == 'paid' && new.status == null", deleted), Ok(true));
}

#[test]
fn op_says_what_happened() {
    for operation in Operation::ALL {
        let change = Change { operation, old: None, new: None };
        for other in Operation::ALL {
            let when = format!("op == '{}'", other.word());
            assert_eq!(decide(&when, change), Ok(operation == other), "{operation:?} {other:?}");
        }
        // Neither row is there.
        assert_eq!(decide("old.id == null && new.id == null", change), Ok(true));
    }
}

#[test]
fn columns_are_what_their_types_say() {
    expect(
        &[
            ("id", "9007199254740993"),
            ("status", "shipped"),
            ("total", "100.50"),
            ("quantity", "-3"),
            ("small", "7"),
            ("object", "4294967295"),
            ("ratio", "1e+300"),
            ("paid", "t"),
            ("due", "2026-05-31"),
            ("code", "AB   "),
            ("owner", "42"),
            ("periods", "[1,6)"),
            ("attributes", "\"a\"=>\"1\""),
            ("vector", "1 2"),
            ("order-no", "ü-7"),
            ("note", ""),
        ],
        &[
            ("new.id == 9007199254740993", true),
            ("new.id + 1 > 9007199254740993", true),
            ("new.status == 'shipped'", true),
            ("new.total > 100", true),
            ("new.total == 100.5", true),
            ("new.quantity < 0", true),
            ("new.small % 2 == 1", true),
            ("new.object == 4294967295", true),
            ("new.ratio > 1e299", true),
            ("new.paid", true),
            ("!new.paid", false),
            ("new.due < '2026-06-01'", true),
            ("new.code == 'AB' && size(new.code) == 2", true),
            ("new.owner == 42", true),
            ("new.periods == '[1,6)'", true),
            ("new.attributes.contains('a')", true),
            ("new.vector == '1 2'", true),
            ("new['order-no'] == 'ü-7'", true),
            ("new.note == ''", true),
            ("old.id == null", true),
            ("has(new.note) && !has(new.card)", true),
        ],
    );
}

#[test]
fn an_int_beside_a_double_counts_as_a_double() {
    expect(
        &[("total", "2.50"), ("quantity", "2"), ("id", "9007199254740993")],
        &[
            ("new.total > 2", true),
            ("2 < new.total", true),
            ("new.total * new.quantity == 5", true),
            ("new.quantity * new.total == 5.0", true),
            ("new.quantity / 4 == 0", true),
            ("new.quantity / 4.0 == 0.5", true),
            ("new.total - 1 == 1.5", true),
            ("new.quantity == 2.0", true),
            ("2.0 in [1, 2]", true),
            // Exactly: the double is the int below it.
            ("new.id > 9007199254740992.0", true),
            ("new.total / 0 > 1e308", true),
        ],
    );
}

#[test]
fn what_no_double_holds_is_infinite_and_nan_is_no_number() {
    let huge = format!("1{}", "0".repeat(400));
    let minus = format!("-{huge}");
    expect(&[("total", &huge)], &[("new.total > 1e308", true), ("new.total == 1.0", false)]);
    expect(&[("total", &minus)], &[("new.total < -1e308", true)]);
    expect(&[("total", "Infinity")], &[("new.total > 1e308", true)]);
    expect(
        &[("total", "NaN"), ("ratio", "NaN")],
        &[
            ("new.total > 1", false),
            ("new.total < 1", false),
            ("new.total == new.ratio", false),
            ("new.total != new.ratio", true),
            ("new.total != null", true),
        ],
    );
}

#[test]
fn timestamps_compare_as_in_sql() {
    let noon = "timestamp('2026-03-01T12:00:00Z')";
    for (at, expected) in [
        ("2026-03-01 12:00:00+00", [false, true, false]),
        ("2026-03-01 12:00:00.000001+00", [false, false, true]),
        ("0044-03-15 01:02:03+00 BC", [true, false, false]),
        ("20000-01-01 00:00:00+00", [false, false, true]),
        ("infinity", [false, false, true]),
        ("-infinity", [true, false, false]),
    ] {
        for (operator, expected) in ["<", "==", ">"].into_iter().zip(expected) {
            for column in ["created_at", "local_at"] {
                let at = at.replace("+00", if column == "local_at" { "" } else { "+00" });
                let when = format!("new.{column} {operator} {noon}");
                assert_eq!(decide(&when, inserted(&[(column, &at)])), Ok(expected), "{at} {when}");
            }
        }
    }
    expect(
        &[("created_at", "2026-03-01 12:00:00+00"), ("local_at", "2026-03-01 11:00:00")],
        &[
            ("new.created_at - new.local_at == duration('1h')", true),
            ("new.local_at + duration('60m') == new.created_at", true),
            ("duration('60m') + new.local_at >= new.created_at", true),
            ("new.created_at.getDayOfWeek() == 0", true),
            ("new.created_at.getHours('-13:00') == 23", true),
            ("int(new.created_at) == 1772366400", true),
            ("string(new.created_at) == '2026-03-01T12:00:00Z'", true),
            ("timestamp(1772366400) == new.created_at", true),
            ("duration('1h') - duration('30m') < duration('31m')", true),
        ],
    );
}

#[test]
fn arrays_are_lists_of_their_elements() {
    expect(
        &[
            ("tags", "{new,\"a b\",NULL}"),
            ("prices", "[5:6]={1.50,2}"),
            ("matrix", "{{1,2},{3,4}}"),
            ("documents", r#"{"{\"a\": 1}","[1]",NULL}"#),
        ],
        &[
            ("'new' in new.tags", true),
            ("'old' in new.tags", false),
            ("null in new.tags", true),
            ("new.tags[1] == 'a b'", true),
            ("size(new.tags) == 3", true),
            ("new.tags == ['new', 'a b', null]", true),
            ("new.tags.exists(tag, tag.startsWith('a'))", true),
            ("new.prices.all(price, price > 1)", true),
            ("new.prices[0] + new.prices[1] == 3.5", true),
            ("new.prices.map(price, price * 2) == [3, 4]", true),
            ("new.prices.filter(price, price > 1.7) == [2.0]", true),
            ("new.prices.exists_one(price, price == 2)", true),
            ("[1, 2] in dyn(new.matrix)", true),
            ("dyn(new.matrix)[1] == [3, 4] && size(new.matrix) == 2", true),
            ("new.documents[0].a == 1 && new.documents[1][0] == 1", true),
            ("new.tags.size() + [].size() == 3", true),
            ("new.prices + [9] == [1.5, 2, 9]", true),
        ],
    );
}

#[test]
fn json_is_what_its_values_are() {
    let payload = r#"{"n": 3, "r": 1.50, "t": "x\u00e9", "b": true, "z": null,
        "list": [1, {"qty": 2}], "map": {"a": {"b": "deep"}}, "big": 12345678901234567890}"#;
    expect(
        &[("payload", payload), ("raw", " [1, 2 ] ")],
        &[
            ("new.payload.n == 3 && new.payload.n + 1 == 4", true),
            ("new.payload.r > 1 && new.payload.r < 2", true),
            ("new.payload.t == 'xé' && new.payload.t + '!' == 'xé!'", true),
            ("new.payload.b && new.payload['b']", true),
            ("new.payload.z == null", true),
            ("has(new.payload.z) && !has(new.payload.y)", true),
            ("new.payload.map.a.b.matches('^de+p$')", true),
            ("new.payload.list[1].qty == 2", true),
            ("new.payload.list.exists(i, type(i) == map && i.qty == 2)", true),
            ("size(new.payload) == 8 && size(new.payload.list) == 2", true),
            ("'n' in new.payload && !('y' in new.payload)", true),
            ("new.payload.all(name, size(name) < 5)", true),
            ("new.payload.map.filter(name, name == 'a') == ['a']", true),
            ("new.payload.big > 9223372036854775807", true),
            ("type(new.payload.n) == int && type(new.payload.r) == double", true),
            ("type(new.payload.z) == null_type && type(new.payload.t) == string", true),
            ("type(new.payload.list) == list && type(new.payload.b) == bool", true),
            ("new.payload.list == [1, {'qty': 2}]", true),
            ("new.payload.map == {'a': {'b': 'deep'}}", true),
            ("new.raw == [1, 2]", true),
            ("2 in new.raw", true),
            ("new.payload.n in [1, 2, 3]", true),
            ("string(new.payload.n) == '3' && int(new.payload.r) == 1", true),
            ("dyn(new.payload.n) == 3.0", true),
        ],
    );
}

#[test]
fn json_null_is_null() {
    let row = [("payload", r#"{"z": null}"#)];
    expect(&row, &[("new.payload.z > 1", false), ("!(new.payload.z > 1)", false)]);
    expect(&row, &[("new.payload.z.deeper == 1", false), ("'a' in new.payload.z", false)]);
}

#[test]
fn an_unknown_condition_does_not_hold_as_in_sql() {
    expect(
        &[("status", "paid"), ("paid", "t")],
        &[
            ("new.quantity > 1", false),
            ("!(new.quantity > 1)", false),
            ("!!(new.quantity > 1)", false),
            ("new.quantity > 1 || new.status == 'paid'", true),
            ("new.status == 'paid' || new.quantity > 1", true),
            ("new.quantity > 1 || new.status == 'new'", false),
            ("!(new.quantity > 1 || new.status == 'new')", false),
            ("new.quantity > 1 && new.status == 'new'", false),
            ("!(new.quantity > 1 && new.status == 'new')", true),
            ("!(new.status == 'new' && new.quantity > 1)", true),
            ("!(new.quantity > 1 && new.status == 'paid')", false),
            ("new.quantity > 1 ? true : true", false),
            ("(new.quantity > 1) == false", false),
            ("new.quantity + 1 == 2", false),
            ("new.quantity + 1 != 2", false),
            ("-new.quantity == 1", false),
            ("size(new.note) == 0 || size(new.tags) == 0", false),
            ("new.note.startsWith('a') || new.note.matches('a')", false),
            ("new.tags.all(tag, tag == 'a')", false),
            ("new.tags.exists(tag, tag == 'a')", false),
            ("'a' in new.tags", false),
            ("new.payload.code == 'a'", false),
            ("has(new.payload.code)", false),
            ("string(new.quantity) == ''", false),
            ("{'a': new.quantity}.a == null", true),
            ("[new.quantity] == [null]", true),
            ("type(new.quantity) == null_type", true),
            ("dyn(new.quantity) == null", true),
            ("{new.note: 1} == {}", false),
            ("[1, 2][new.quantity] == 1", false),
        ],
    );
}

#[test]
fn null_equals_null_and_nothing_else() {
    expect(
        &[("status", "paid")],
        &[
            ("new.status != null", true),
            ("new.quantity == null", true),
            ("null == new.quantity", true),
            ("new.quantity != null", false),
            ("new.quantity == 1", false),
            ("new.quantity != 1", true),
            ("new.quantity in [1, null]", true),
            ("new.quantity in [1, 2]", false),
            ("new.quantity == new.total", true),
            ("new.quantity == old.quantity", true),
            ("null == null", true),
            ("has(new.quantity)", false),
        ],
    );
}

#[test]
fn all_and_exists_are_decided_by_one_element() {
    expect(
        &[("tags", "{a,NULL,b}")],
        &[
            ("new.tags.exists(tag, size(tag) == 1)", true),
            ("new.tags.exists(tag, size(tag) == 2)", false),
            ("!new.tags.exists(tag, size(tag) == 2)", false),
            ("new.tags.all(tag, size(tag) == 1)", false),
            ("!new.tags.all(tag, size(tag) == 1)", false),
            ("!new.tags.all(tag, size(tag) == 2)", true),
            ("new.tags.exists_one(tag, size(tag) == 1)", false),
            ("[].all(x, false) && ![].exists(x, true)", true),
            ("[0, 1].exists(x, 1 / x == 1)", true),
            ("![0, 2].all(x, 1 / x == 1)", true),
        ],
    );
    assert!(matches!(problem("[0, 2].exists(x, 1 / x == 1)", &[]), Problem::DivisionByZero { .. }));
}

#[test]
fn variables_of_macros_lie_within_each_other() {
    expect(
        &[("matrix", "{{1,2},{3,4}}"), ("quantity", "4")],
        &[
            ("dyn(new.matrix).exists(row, row.exists(x, x == new.quantity))", true),
            ("[1, 2].map(x, [10, 20].map(y, x + y)) == [[11, 21], [12, 22]]", true),
            ("[1, 2].map(x, [10].map(x, x)) == [[10], [10]]", true),
            ("[1].map(x, [2].map(y, x)[0] + x) == [2]", true),
            ("[[1], [2]].map(x, x.map(y, y + size(x)))[1][0] == 3", true),
            ("[1, 2, 3].map(x, x > 1, x * 2) == [4, 6]", true),
            ("{'a': 1, 'b': 2}.all(key, key in ['a', 'b'])", true),
            // A variable may be called as what it hides; a dot before a name means what is global.
            ("['x'].exists(new, new == 'x')", true),
            ("['x'].exists(op, .op == 'insert' && op == 'x')", true),
            ("['x'].exists(new, .new.quantity == 4)", true),
        ],
    );
}

#[test]
fn unchanged_toast_is_that_of_the_old_row_or_a_problem() {
    let old = [("note", "long"), ("status", "paid")];
    let new = [("note", UNCHANGED), ("status", "paid")];
    assert_eq!(decide("new.note == 'long' && old.note == 'long'", updated(&old, &new)), Ok(true));
    let table = Table::orders().with_identity(&["id"]);
    let change = Change { operation: Operation::Update, old: None, new: Some(&new) };
    let not_sent = Err(Problem::NotSent { column: "note".to_owned() });
    for (when, expected) in [
        ("new.note == 'long'", not_sent.clone()),
        ("new.note != 'long'", not_sent.clone()),
        ("size(new.note) > 1", not_sent.clone()),
        ("new.note in ['long']", not_sent.clone()),
        ("new.note == 'long' || new.status == 'paid'", Ok(true)),
        ("new.status == 'paid' || new.note == 'long'", Ok(true)),
        ("new.note == 'long' || new.status == 'new'", not_sent.clone()),
        ("new.note == 'long' && new.status == 'new'", Ok(false)),
        ("new.status == 'paid' && new.note == 'long'", not_sent.clone()),
        // Beside what is unknown it stays a problem: with the value, this could hold.
        ("new.note == 'long' || new.quantity > 1", not_sent.clone()),
        ("new.quantity > 1 || new.note == 'long'", not_sent.clone()),
        ("new.status == 'new' ? new.note == 'long' : true", Ok(true)),
        // That it is not NULL is known.
        ("new.note == null", Ok(false)),
        ("null != new.note", Ok(true)),
        ("has(new.note)", Ok(true)),
    ] {
        assert_eq!(decide_on(&table, when, change), expected, "{when}");
    }
}

#[test]
fn the_old_key_is_known_without_full() {
    let table = Table::orders().with_identity(&["id"]);
    let when = "old.id != new.id";
    // Where the server sends no old row, the key has not changed.
    let new = [("id", "7"), ("status", "paid")];
    let change = Change { operation: Operation::Update, old: None, new: Some(&new) };
    assert_eq!(decide_on(&table, when, change), Ok(false));
    assert_eq!(decide_on(&table, "old.id == 7", change), Ok(true));
    let moved = Change { old: Some(&[("id", "6")]), ..change };
    assert_eq!(decide_on(&table, when, moved), Ok(true));
    let deleted = Change { operation: Operation::Delete, old: Some(&[("id", "6")]), new: None };
    assert_eq!(decide_on(&table, "old.id == 6 && new.id == null", deleted), Ok(true));
    assert_eq!(decide_on(&table, "old.id == null", inserted(&new)), Ok(true));
}

#[test]
fn what_a_row_shows_to_be_wrong_is_a_problem() {
    let row = [
        ("quantity", "0"),
        ("id", "9223372036854775807"),
        ("note", "("),
        ("payload", r#"{"a": {}, "t": "x", "n": 1}"#),
        ("tags", "{a}"),
        ("created_at", "infinity"),
    ];
    let operands =
        |operation, found: &str| Problem::Operands { operation, found: found.to_owned() };
    for (when, expected) in [
        ("1 / new.quantity == 1", Problem::DivisionByZero { operation: "/" }),
        ("1 % new.quantity == 1", Problem::DivisionByZero { operation: "%" }),
        ("new.id + 1 > 0", Problem::OutOfRange { operation: "+" }),
        ("new.id * 2 > 0", Problem::OutOfRange { operation: "*" }),
        ("-new.id - 2 < 0", Problem::OutOfRange { operation: "-" }),
        (
            "new.created_at + duration('1s') > new.created_at",
            Problem::OutOfRange { operation: "+" },
        ),
        ("new.payload.b == 1", Problem::NoMember { name: "b".to_owned() }),
        ("has(new.payload.b.c)", Problem::NoMember { name: "b".to_owned() }),
        ("new.payload['b'] == 1", Problem::NoElement),
        ("new.tags[1] == 'a'", Problem::NoElement),
        ("new.tags[-1] == 'a'", Problem::NoElement),
        ("new.payload.t.b == 1", operands("a member's name", "string")),
        ("new.payload.t + 1 == 1", operands("+", "string and int")),
        ("new.payload.t > new.payload.n", operands(">", "string and int")),
        ("new.payload.n.startsWith('a')", operands("startsWith()", "int and string")),
        ("new.payload.n.all(x, true)", operands("a macro", "int")),
        ("1 in new.payload.n", operands("in", "int and int")),
        ("size(new.payload.n) == 1", operands("size()", "int")),
        ("-new.payload.t == 1", operands("-", "string")),
        ("new.payload.a", Problem::NotBool { found: "map" }),
        ("new.payload.n && true", Problem::NotBool { found: "int" }),
        ("!new.payload.t", Problem::NotBool { found: "string" }),
        ("'a'.matches(new.note)", Problem::NotA { wanted: "regular expression" }),
        ("int(new.note) == 1", Problem::NotA { wanted: "int" }),
        ("double(new.note) == 1.0", Problem::NotA { wanted: "double" }),
        ("bool(new.note)", Problem::NotA { wanted: "bool" }),
        ("int(1e30 * new.id) == 1", Problem::OutOfRange { operation: "int()" }),
        (
            "new.created_at.getFullYear() == 1",
            Problem::BeyondCalendar { operation: "getFullYear()" },
        ),
        ("int(new.created_at) == 1", Problem::BeyondCalendar { operation: "int()" }),
        ("string(new.created_at) == ''", Problem::BeyondCalendar { operation: "string()" }),
        ("{new.note: 1, '(': 2} == {}", Problem::DuplicateKey),
    ] {
        assert_eq!(problem(when, &row), expected, "{when}");
        // It decides nothing where the other side does.
        assert_eq!(decide(&format!("{when} && false"), inserted(&row)), Ok(false), "{when}");
    }
}

#[test]
fn what_a_column_cannot_hold_is_a_problem_and_no_panic() {
    for (column, text, when, expected) in [
        ("quantity", "x", "new.quantity == 1", "int"),
        ("total", "", "new.total == 1.0", "double"),
        ("paid", "true", "new.paid", "bool"),
        ("created_at", "2026", "new.created_at == timestamp(0)", "timestamp"),
        ("tags", "{a", "size(new.tags) == 0", "list"),
        ("prices", "{a}", "size(new.prices) == 0", "list"),
    ] {
        let expected = Problem::Malformed { column: column.to_owned(), expected };
        assert_eq!(problem(when, &[(column, text)]), expected, "{when}");
    }
    let rules = Table::orders().compile(&[rule("a.b", "new.note == 'x'")]).expect("a rule");
    let (frame, slot) = ([0xFF], crate::change::ValueSlot::Text { start: 0, length: 1 });
    let slots = [slot; 26];
    let new = Some(crate::change::Tuple::new(&frame, &slots));
    let row = crate::event::table::rules::Row { operation: Operation::Insert, old: None, new };
    let failure = rules.matching(row).next().expect("an answer").expect_err("not UTF-8");
    assert_eq!(
        failure.reason.to_string(),
        "rule \"a.b\", when, line 1, column 1: column \"note\" is not valid UTF-8"
    );
}

#[test]
fn each_rule_that_matches_makes_one_event_in_the_order_of_the_file() {
    let rules = [
        rule("order.paid", "new.status == 'paid'"),
        rule("order.large", "new.total > 1000"),
        RuleSettings { when: None, ..rule("order.any", "") },
        rule("order.odd", "1 / new.quantity == 1"),
        rule("order.cheap", "new.total < 10"),
    ];
    let table = Table::orders();
    let rules = table.compile(&rules).expect("rules");
    assert!(!rules.is_empty());
    let change = inserted(&[("status", "paid"), ("total", "5"), ("quantity", "0")]);
    let told = with_row(&table, change, |row| {
        rules
            .matching(row)
            .map(|matching| match matching {
                Ok(rule) => Ok(rule.event_type()),
                Err(failure) => {
                    assert!(matches!(failure.reason, Reason::Rule { .. }));
                    Err(failure.rule.event_type())
                }
            })
            .collect::<Vec<_>>()
    });
    assert_eq!(told, [Ok("order.paid"), Ok("order.any"), Err("order.odd"), Ok("order.cheap")]);
}

#[test]
fn a_rule_says_what_its_settings_say() {
    let topic = crate::event::TopicTemplate::parse("shipped.{schema}").expect("a template");
    let settings = RuleSettings {
        version: Some("2.0".to_owned()),
        topic: Some(topic.clone()),
        ..rule("order.paid", "true")
    };
    let bare = RuleSettings { when: None, ..rule("order.any", "") };
    let rules = Table::orders().compile(&[settings, bare]).expect("rules");
    let rules: Vec<&Rule> = rules.iter().collect();
    let [full, bare] = rules.as_slice() else { panic!("two rules") };
    assert_eq!((full.event_type(), full.condition()), ("order.paid", "true"));
    assert_eq!((full.version(), full.topic()), (Some("2.0"), Some(&topic)));
    assert!(!full.has_data());
    assert_eq!((bare.condition(), bare.version(), bare.topic()), ("", None, None));
}

#[test]
fn without_rules_nothing_matches() {
    let table = Table::orders();
    let rules = table.compile(&[]).expect("no rules");
    assert!(rules.is_empty());
    assert!(with_row(&table, inserted(&[]), |row| rules.matching(row).next().is_none()));
}

#[test]
fn texts_that_no_server_writes_are_problems_and_no_crash() {
    let conditions = [
        "new.id + new.object > 0",
        "new.total > 1 && new.ratio < 1",
        "new.paid",
        "new.created_at > timestamp('2026-01-01T00:00:00Z')",
        "new.local_at.getDayOfYear() == 1",
        "new.payload.a[0].b == 'x' || has(new.payload.a)",
        "new.payload.exists(x, x == 'a') || new.payload == new.raw",
        "new.tags.exists(t, t == 'a') && new.prices.all(p, p > 1)",
        "new.documents.exists(d, d.a == 1)",
        "timestamp(new.note) > timestamp(0) || duration(new.note) > duration('1s')",
        "int(new.note) == 1 || double(new.note) > 1",
        "new.code.matches(new.note)",
    ];
    let table = Table::orders();
    let rules = table.compile(&conditions.map(|when| rule("a.b", when))).expect("rules");
    let pieces = [
        "1",
        "9",
        "-",
        ".",
        ":",
        " ",
        "{",
        "}",
        "[",
        "]",
        "=",
        ",",
        "\"",
        "\\",
        "a",
        "t",
        "é",
        "NULL",
        "null",
        "Infinity",
        "e",
        "+00",
        " BC",
        "2026-01-01 10:00:00",
        "99999999999999999999",
        "(",
        "*",
        "{\"a\":",
        "h",
        "ms",
        "T",
        "Z",
    ];
    let mut random = fastrand::Rng::with_seed(23);
    let mut text =
        || -> String { (0..random.usize(0..6)).filter_map(|_| random.choice(pieces)).collect() };
    for _ in 0..3_000 {
        let row: Vec<(&str, String)> = [
            "id",
            "object",
            "total",
            "ratio",
            "paid",
            "created_at",
            "local_at",
            "payload",
            "raw",
            "tags",
            "prices",
            "documents",
            "note",
            "code",
        ]
        .map(|column| (column, text()))
        .to_vec();
        let row: Vec<(&str, &str)> = row.iter().map(|(column, text)| (*column, &**text)).collect();
        let told = with_row(&table, inserted(&row), |row| rules.matching(row).count());
        assert!(told <= conditions.len());
    }
}
