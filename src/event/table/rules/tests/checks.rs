//! What is refused before any row.

use super::fixture::{QUOTED, Table, rule, rule_with_data};
use crate::{
    event::table::{
        RuleSettings,
        rules::{Mistake, Part, Place, RuleError},
    },
    failure::Code,
};

fn refused(table: &Table, settings: RuleSettings) -> RuleError {
    let text = format!("{settings:?}");
    let mistakes = table.compile(&[settings]).err().unwrap_or_default();
    match <[RuleError; 1]>::try_from(mistakes) {
        Ok([mistake]) => mistake,
        Err(mistakes) => panic!("{text}: {mistakes:?}"),
    }
}

/// Each condition is refused at that column of its first line, in these words.
fn expect(code: Code, conditions: &[(&str, u32, &str)]) {
    for (when, column, words) in conditions {
        let error = refused(&Table::orders(), rule("order.paid", when));
        let place = Place { line: 1, column: *column };
        assert_eq!(
            error.to_string(),
            format!("rule \"order.paid\", when, {place}: {words}"),
            "{when}"
        );
        assert_eq!(error.code(), code, "{when}");
    }
}

#[test]
fn names_that_nothing_has_are_refused() {
    expect(
        Code::Settings,
        &[
            ("status == 'a'", 1, "\"status\" is none of op, old and new"),
            ("new.paid && row.paid", 13, "\"row\" is none of op, old and new"),
            ("[1].all(x, y > 0)", 12, "\"y\" is none of op, old and new"),
            ("[1].all(x, true) && x > 0", 21, "\"x\" is none of op, old and new"),
            ("frobnicate(new.id)", 1, "there is no function frobnicate()"),
            (
                "new.note.startswith('a')",
                10,
                "there is no function startswith(); the nearest is startsWith()",
            ),
            ("new.tags.any(t, true)", 10, "there is no function any()"),
            (
                "new == null",
                1,
                "new is a row: name a column of it, as new.id; op says what happened",
            ),
            ("old", 1, "old is a row: name a column of it, as old.id; op says what happened"),
            (
                "size(new) > 1",
                6,
                "new is a row: name a column of it, as new.id; op says what happened",
            ),
            (
                "new[op] == 1",
                1,
                "new is a row: name a column of it, as new.id; op says what happened",
            ),
        ],
    );
}

#[test]
fn a_column_that_is_not_there_is_named_with_the_nearest() {
    let table = Table::orders();
    for (when, column, name, nearest) in [
        ("new.statu == 'paid'", 1, "statu", Some("status")),
        ("true && old.totl > 1", 9, "totl", Some("total")),
        ("new['order_no'] == 'x'", 1, "order_no", Some("order-no")),
        ("has(new.zzz)", 5, "zzz", None),
        ("new.zzz == null", 1, "zzz", None),
        ("new.zzz.a.b == 1", 1, "zzz", None),
    ] {
        let error = refused(&table, rule("order.paid", when));
        let expected =
            Mistake::Column { column: name.to_owned(), nearest: nearest.map(str::to_owned) };
        assert_eq!(error.mistake, expected, "{when}");
        assert_eq!(error.place, Place { line: 1, column }, "{when}");
        assert_eq!(error.code(), Code::ColumnMissing);
    }
    let error = refused(&table, rule("order.paid", "new.statu == 'paid'"));
    assert_eq!(
        error.to_string(),
        "rule \"order.paid\", when, line 1, column 1: column \"statu\" does not exist or is not \
         published"
    );
    let hint = error.hint("public.orders");
    assert!(
        hint.starts_with("Correct when of the [[table.event]] \"order.paid\" of \"public.orders\"")
    );
    assert!(hint.ends_with("The nearest name among the published ones is \"status\"."), "{hint}");
}

#[test]
fn old_columns_beyond_the_replica_identity_are_refused_with_the_sql() {
    let table = Table::orders().with_identity(&["id", "order-no"]);
    for when in ["old.id == 1", "old['order-no'] == 'a'", "new.status == 'a'", "has(old.id)"] {
        assert!(table.compile(&[rule("order.paid", when)]).is_ok(), "{when}");
    }
    for (when, column) in [
        ("new.status == 'paid' && old.status != 'paid'", 25),
        ("old.status == null", 1),
        ("has(old.status)", 5),
    ] {
        let error = refused(&table, rule("order.paid", when));
        let column_name = "status".to_owned();
        let expected =
            Mistake::NotDelivered { column: column_name, quoted_table: QUOTED.to_owned() };
        assert_eq!(error.mistake, expected, "{when}");
        assert_eq!(error.place, Place { line: 1, column }, "{when}");
        assert_eq!(error.code(), Code::ReplicaIdentity);
        let hint = error.hint("public.orders");
        assert!(
            hint.contains("ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL;"),
            "{hint}"
        );
    }
    let error = refused(&table, rule_with_data(&[("was", "old.status")]));
    assert_eq!(error.code(), Code::ReplicaIdentity);
    assert_eq!(error.part, Part::Data { member: "was".to_owned() });
}

#[test]
fn types_that_an_operation_does_not_take_are_refused() {
    let convert = ": string(…), int(…) and double(…) convert";
    let operands = |operation: &str, found: &str, advice: &str| {
        format!("{operation} cannot be applied to {found}{advice}")
    };
    for (when, column, words) in [
        ("new.status == 1", 12, operands("==", "string and int", convert)),
        ("1 != new.status", 3, operands("!=", "int and string", convert)),
        ("new.total > '100'", 11, operands(">", "double and string", convert)),
        ("new.paid > 1", 10, operands(">", "bool and int", "")),
        (
            "new.created_at > '2026-01-01'",
            16,
            operands(">", "timestamp and string", ": timestamp('2026-01-31T00:00:00Z') is one"),
        ),
        (
            "new.created_at - old.created_at > '1h'",
            33,
            operands(">", "duration and string", ": duration('24h') is one"),
        ),
        ("new.id > null", 8, operands(">", "int and null", ": only == and != compare with null")),
        ("new.note + 1 == 'a'", 10, operands("+", "string and int", convert)),
        ("new.created_at + new.created_at == 1", 16, operands("+", "timestamp and timestamp", "")),
        ("new.total % 2 == 1", 11, operands("%", "double and int", "")),
        ("-new.note == 'a'", 1, operands("-", "string", "")),
        ("'a' in new.note", 5, operands("in", "string and string", "")),
        ("1 in new.tags", 3, operands("in", "int and list(string)", "")),
        ("new.status in [1, 2]", 12, operands("in", "string and list(int)", "")),
        ("new.tags == new.prices", 10, operands("==", "list(string) and list(double)", "")),
        ("new.tags['a'] == 'a'", 9, operands("[]", "list(string) and string", "")),
        ("new.note[0] == 'a'", 9, operands("[]", "string and int", convert)),
        ("size(new.id) == 1", 1, operands("size()", "int", "")),
        ("new.id.startsWith('a')", 8, operands("startsWith()", "int and string", convert)),
        ("new.note.matches(1)", 10, operands("matches()", "string and int", convert)),
        ("timestamp(new.paid) == timestamp(0)", 1, operands("timestamp()", "bool", "")),
        ("new.note.getFullYear() == 1", 10, operands("getFullYear()", "string", "")),
        (
            "(new.created_at - old.created_at).getFullYear() == 1",
            35,
            operands("getFullYear()", "duration", ""),
        ),
        ("size(null) == 1", 1, operands("size()", "null", ": only == and != compare with null")),
        ("new.note.all(x, true)", 10, operands("all()", "string", "")),
        ("{1.5: 1} == {}", 2, operands("a map's key", "double", "")),
        ("new.tags.map(t, t > 1) == []", 19, operands(">", "string and int", convert)),
        ("new.prices.exists(p, p == 'a')", 24, operands("==", "double and string", convert)),
        ("{'a': 1}.a == 'x'", 12, operands("==", "int and string", convert)),
    ] {
        expect(Code::Settings, &[(when, column, &words)]);
    }
}

#[test]
fn what_decides_must_be_a_bool() {
    expect(
        Code::Settings,
        &[
            ("new.status", 1, "a bool is needed, and this is a string"),
            ("new.total * 2", 1, "a bool is needed, and this is a double"),
            ("null", 1, "a bool is needed, and this is a null"),
            ("new.paid && new.quantity", 13, "a bool is needed, and this is a int"),
            ("new.quantity || new.paid", 1, "a bool is needed, and this is a int"),
            ("!new.note", 2, "a bool is needed, and this is a string"),
            ("new.note ? true : false", 1, "a bool is needed, and this is a string"),
            ("new.tags.all(t, t)", 17, "a bool is needed, and this is a string"),
            ("new.paid ? 1 : 'a'", 10, "one branch is a int and the other a string"),
        ],
    );
}

#[test]
fn calls_in_another_way_are_refused_with_the_right_one() {
    expect(
        Code::Settings,
        &[
            ("size() == 1", 1, "it is called as size(x)"),
            ("size(1, 2) == 1", 1, "it is called as size(x)"),
            ("contains(new.note, 'a')", 1, "it is called as x.contains(y)"),
            ("new.note.string() == 'a'", 10, "it is called as string(x)"),
            ("new.note.matches()", 10, "it is called as matches(x, y)"),
            (
                "new.created_at.getHours(1, 2) == 1",
                16,
                "it is called as x.getHours() or x.getHours(y)",
            ),
            ("has(new)", 1, "it is called as has(new.column) or has(new.column.member)"),
            (
                "has(new.payload['a'])",
                1,
                "it is called as has(new.column) or has(new.column.member)",
            ),
            ("has(1)", 1, "it is called as has(new.column) or has(new.column.member)"),
            ("new.tags.all(t)", 10, "it is called as list.all(x, condition)"),
            ("new.tags.all(t + 'a', true)", 10, "it is called as list.all(x, condition)"),
            ("all(new.tags, true)", 1, "it is called as list.all(x, condition)"),
            (
                "new.tags.map(1, 2) == []",
                10,
                "it is called as list.map(x, …) or list.map(x, condition, …)",
            ),
        ],
    );
}

#[test]
fn texts_of_the_settings_are_read_at_once() {
    for (when, column) in [
        ("new.created_at > timestamp('2026-02-30T00:00:00Z')", 18),
        ("new.created_at > timestamp('2026-01-01')", 18),
        ("new.created_at - old.created_at > duration('1 day')", 35),
        ("new.id == int('x')", 11),
        ("new.created_at.getHours('Europe/Berlin') == timestamp(0).getHours('Mars')", 58),
    ] {
        let error = refused(&Table::orders(), rule("order.paid", when));
        assert!(matches!(error.mistake, Mistake::Literal { .. }), "{when}: {error}");
        assert_eq!(error.place, Place { line: 1, column }, "{when}");
    }
    for (pattern, detail) in [("(", "unclosed group"), ("a{2,1}", "invalid repetition count range")]
    {
        for when in [format!("new.note.matches('{pattern}')"), format!("matches('a', '{pattern}')")]
        {
            let error = refused(&Table::orders(), rule("order.paid", &when));
            let Mistake::Pattern { detail: found } = &error.mistake else { panic!("{error}") };
            assert!(found.starts_with(detail), "{found}");
        }
    }
    let large = refused(&Table::orders(), rule("a.b", "new.note.matches('((a{100}){100}){100}')"));
    assert!(matches!(large.mistake, Mistake::Pattern { detail } if detail == "it is too large"));
}

#[test]
fn what_rules_have_not_is_named() {
    expect(
        Code::Settings,
        &[
            ("new.id == 1u", 11, "rules have no uint: write 1, not 1u"),
            ("new.note == b'a'", 13, "rules have no bytes: a bytea is a string, as '\\\\x00ff'"),
            ("T{a: 1} == null", 2, "rules have no messages"),
            ("new.note.a == 1", 9, "a string has no members"),
            ("has(new.note.a)", 13, "a string has no members"),
            ("new.tags.a == 1", 9, "a list(string) has no members"),
            ("{'a': 1, 'a': 2} == {}", 10, "two entries of the map have the same key"),
            (
                "op == 'inserted'",
                7,
                "op is never \"inserted\": it is insert, update, delete, truncate or snapshot",
            ),
            (
                "'INSERT' != op",
                1,
                "op is never \"INSERT\": it is insert, update, delete, truncate or snapshot",
            ),
            (
                "op in ['insert', 'create']",
                7,
                "op is never \"create\": it is insert, update, delete, truncate or snapshot",
            ),
        ],
    );
}

#[test]
fn data_shows_masked_columns_alone_and_excluded_ones_not_at_all() {
    let table = Table::orders();
    for expression in
        ["new.email", "[new.email]", "{'a': new.email}", "new.paid ? new.email : null"]
    {
        assert!(table.compile(&[rule_with_data(&[("m", expression)])]).is_ok(), "{expression}");
    }
    let masked = Mistake::Masked { column: "email".to_owned() };
    let excluded = Mistake::Excluded { column: "card".to_owned() };
    for (expression, column, mistake) in [
        ("new.email + ''", 1, &masked),
        ("size(new.email)", 6, &masked),
        ("new.email == null", 1, &masked),
        ("has(new.email)", 5, &masked),
        ("new.email == 'a' ? 1 : 2", 1, &masked),
        ("dyn(old.email)", 5, &masked),
        ("[1].map(x, new.email)", 12, &masked),
        ("{new.email: 1}", 2, &masked),
        ("new.card", 1, &excluded),
        ("[new.card]", 2, &excluded),
        ("new.card == null", 1, &excluded),
    ] {
        let error = refused(&table, rule_with_data(&[("m", expression)]));
        assert_eq!(error.mistake, *mistake, "{expression}");
        assert_eq!(error.place, Place { line: 1, column }, "{expression}");
        assert_eq!(error.code(), Code::Settings);
    }
    // A condition shows nothing of them but its answer.
    assert!(table.compile(&[rule("a.b", "new.email == 'a' && new.card != null")]).is_ok());
}

#[test]
fn types_within_json_pass_until_there_is_a_row() {
    let table = Table::orders();
    for when in [
        "new.payload.a",
        "new.payload.a > 1 && new.payload.a.startsWith('x')",
        "new.payload.a + 1 == new.payload.b + 'x'",
        "new.payload.a == 'x' || new.payload.a in new.payload.b",
        "new.payload.a.all(x, x > 1)",
        "timestamp(new.payload.at) < new.created_at",
        "new.payload[0][new.payload.i] == new.tags[new.payload.i]",
        "(new.payload.a ? new.payload.b : 'x') == 'x'",
        "new.payload.a.getHours() == 1",
        "dyn(new.id) == 'x'",
    ] {
        assert!(table.compile(&[rule("a.b", when)]).is_ok(), "{when}");
    }
}

#[test]
fn every_mistake_of_a_table_comes_in_one_report() {
    let rules = [
        RuleSettings {
            data: Some(vec![
                ("good".to_owned(), "new.id".to_owned()),
                ("bad".to_owned(), "new.idd".to_owned()),
                ("worse".to_owned(), "new.".to_owned()),
            ]),
            ..rule("order.one", "new.status = 'x'")
        },
        rule("order.two", "new.id > 1\n  && new.statu == 'x'"),
    ];
    let mistakes = Table::orders().compile(&rules).expect_err("four mistakes");
    let texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "rule \"order.one\", when, line 1, column 12: '=' is not expected here: == compares",
            "rule \"order.one\", data.bad, line 1, column 1: column \"idd\" does not exist or is not \
             published",
            "rule \"order.one\", data.worse, line 1, column 5: the expression ends too early",
            "rule \"order.two\", when, line 2, column 6: column \"statu\" does not exist or is not \
             published",
        ]
    );
    let hint = mistakes[0].hint("public.orders");
    assert_eq!(
        hint,
        "Correct when of the [[table.event]] \"order.one\" of \"public.orders\". docs/rules.md says \
         what expressions can hold."
    );
}
