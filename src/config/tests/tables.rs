//! Domain tables in settings files.

use super::{FIRST_PIPELINE, file_with, mistakes, read};
use crate::{
    event::{
        self,
        table::{
            self, DataForm, Mask, Otherwise, RuleSettings, Salt, Settings, SnapshotMode,
            TablePattern,
        },
    },
    value::{ByteaForm, ColumnForm, Int8Form, NumericForm, Options},
};

const SALT: &str = "salt-0123456789-abcdef";

/// Ends in a section, which more lines go on with.
const ORDERS: &str = r#"source = "order-service"
[postgres]
url = "postgres://tailwater@db.internal/shop"
[kafka]
brokers = "kafka-1:9092"
[[table]]
name = "public.orders"
"#;

const WHOLE: &str = r#"source = "order-service"
mask_salt = "${SALT}"
types = { int8 = "string", numeric = "number" }

[postgres]
url = "postgres://tailwater@db.internal/shop"

[kafka]
brokers = "kafka-1:9092"

[[table]]
name = "public.orders"
topic = "shop.{schema}.{table}"
key = ["tenant", "id"]
data = "change"
tombstone = true
snapshot = "never"
types = { numeric = "string", bytea = "hex", columns = { total = "number", picture = "base64" } }
columns = { exclude = ["notes", "draft"], mask = { email = "sha256", card = "redact" } }
otherwise = "default"

[[table.event]]
type = "order.shipped"
when = "old.status != 'shipped' && new.status == 'shipped'"
version = "2.0"
data = { order = "new.id", at = "new.shipped_at", by = "new.carrier" }
topic = "shipments"

[[table.event]]
type = "order.deleted"
when = "op == 'delete'"

[[table]]
name = "public.*"
"#;

fn event_settings(text: &str) -> event::Settings {
    read(text, &[("SALT", SALT)]).expect("settings").pipeline.event
}

/// The settings of the one table that these lines are about.
fn orders(lines: &str) -> Settings {
    let tables = event_settings(&format!("{ORDERS}{lines}\n")).tables;
    tables.into_iter().next().expect("a table")
}

fn mistakes_of_orders(lines: &str) -> Vec<String> {
    mistakes(&format!("{ORDERS}{lines}\n"), &[])
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

#[test]
fn a_table_alone_is_a_pipeline_and_has_defaults() {
    let settings = event_settings(ORDERS);
    assert!(settings.outboxes.is_empty() && settings.messages.is_empty());
    let [orders] = settings.tables.as_slice() else { panic!("{settings:?}") };
    assert_eq!(
        *orders,
        Settings {
            name: TablePattern { schema: "public".to_owned(), table: "orders".to_owned() },
            topic: event::TopicTemplate::parse("{table}.events").expect("a template"),
            key: None,
            data: DataForm::Row,
            tombstone: false,
            types: Options::default(),
            column_types: Vec::new(),
            excluded: Vec::new(),
            masks: Vec::new(),
            rules: Vec::new(),
            otherwise: Otherwise::Default,
            snapshot: SnapshotMode::Initial,
        }
    );
}

#[test]
fn a_table_is_told_all_that_its_section_says() {
    let settings = event_settings(WHOLE);
    let [orders, all] = settings.tables.as_slice() else { panic!("{settings:?}") };
    let named = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let shipped = RuleSettings {
        event_type: "order.shipped".to_owned(),
        when: Some("old.status != 'shipped' && new.status == 'shipped'".to_owned()),
        version: Some("2.0".to_owned()),
        data: Some(vec![
            named("order", "new.id"),
            named("at", "new.shipped_at"),
            named("by", "new.carrier"),
        ]),
        topic: Some(event::TopicTemplate::parse("shipments").expect("a template")),
    };
    let deleted = RuleSettings {
        event_type: "order.deleted".to_owned(),
        when: Some("op == 'delete'".to_owned()),
        version: None,
        data: None,
        topic: None,
    };
    assert_eq!(
        *orders,
        Settings {
            name: TablePattern { schema: "public".to_owned(), table: "orders".to_owned() },
            topic: event::TopicTemplate::parse("shop.{schema}.{table}").expect("a template"),
            key: Some(texts(["tenant", "id"])),
            data: DataForm::Change,
            tombstone: true,
            types: Options {
                int8: Int8Form::String,
                numeric: NumericForm::String,
                bytea: ByteaForm::Hex,
            },
            column_types: vec![
                ("total".to_owned(), ColumnForm::Number),
                ("picture".to_owned(), ColumnForm::Base64),
            ],
            excluded: texts(["notes", "draft"]),
            masks: vec![
                ("email".to_owned(), Mask::Sha256(Salt::new(SALT))),
                ("card".to_owned(), Mask::Redact),
            ],
            rules: vec![shipped, deleted],
            otherwise: Otherwise::Default,
            snapshot: SnapshotMode::Never,
        }
    );
    // What a section does not say of types the file says.
    let of_file = Options { int8: Int8Form::String, numeric: NumericForm::Number, ..all.types };
    assert_eq!((all.types, all.types.bytea), (of_file, ByteaForm::Base64));
}

#[test]
fn the_schema_takes_what_the_program_takes() {
    let schema = jsonschema::draft202012::new(&super::super::json_schema()).expect("a schema");
    let file = |text: &str| toml::from_str::<serde_json::Value>(text).expect("TOML");
    assert!(schema.is_valid(&file(WHOLE)));
    for (right, wrong) in [
        ("${SALT}", "short"),
        ("\"hex\"", "\"octal\""),
        ("[\"tenant\", \"id\"]", "[]"),
        ("public.orders", "orders"),
        ("public.*", "*.orders"),
        ("type = \"order.deleted\"", ""),
        ("\"redact\"", "\"md5\""),
        ("tombstone", "tombstones"),
        ("\"never\"", "\"always\""),
    ] {
        let text = WHOLE.replacen(right, wrong, 1);
        assert!(!schema.is_valid(&file(&text)), "{wrong}");
        assert!(read(&text, &[("SALT", SALT)]).is_err(), "{wrong}");
    }
}

#[test]
fn members_of_data_stay_in_the_order_of_the_file() {
    let inline = "data = { zebra = \"1\", apple = \"2\", \"mango tree\" = \"3\" }";
    let dotted = "data.zebra = \"1\"\ndata.apple = \"2\"\ndata.\"mango tree\" = \"3\"";
    let section = "[table.event.data]\nzebra = \"1\"\napple = \"2\"\n\"mango tree\" = \"3\"";
    for form in [inline, dotted, section] {
        let orders = orders(&format!("[[table.event]]\ntype = \"order.seen\"\n{form}"));
        let data = orders.rules[0].data.as_deref().expect("members");
        let names: Vec<&str> = data.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["zebra", "apple", "mango tree"], "{form}");
    }
    let none = orders("[[table.event]]\ntype = \"order.seen\"\ndata = {}");
    assert_eq!(none.rules[0].data, Some(Vec::new()));
}

#[test]
fn rules_leave_nothing_for_the_rest_unless_told() {
    let rule = "[[table.event]]\ntype = \"order.seen\"\nwhen = \"true\"";
    assert_eq!(orders(rule).otherwise, Otherwise::Skip);
    let both = format!("otherwise = \"default\"\n{rule}");
    assert_eq!(orders(&both).otherwise, Otherwise::Default);
}

#[test]
fn the_section_that_names_a_table_counts_before_patterns() {
    let sections = ["public.order*", "public.*", "public.orders", "sales.*"]
        .map(|name| format!("[[table]]\nname = \"{name}\"\n"));
    let settings = event_settings(&format!("{FIRST_PIPELINE}{}", sections.concat()));
    let section = |schema: &str, name: &str| {
        settings.table(schema, name).map(|table: &table::Settings| table.name.to_string())
    };
    assert_eq!(section("public", "orders").as_deref(), Some("public.orders"));
    assert_eq!(section("public", "order_lines").as_deref(), Some("public.order*"));
    assert_eq!(section("public", "customers").as_deref(), Some("public.*"));
    assert_eq!(section("sales", "orders").as_deref(), Some("sales.*"));
    assert_eq!(section("public", "outbox_events"), None);
    assert_eq!(section("stock", "orders"), None);
}

#[test]
fn tables_that_two_sections_name_are_told() {
    let names = [
        "public.outbox_events",
        "public.orders",
        "public.orders",
        "public.o*",
        "public.o*",
        "public.or*",
    ];
    let sections = names.map(|name| format!("[[table]]\nname = \"{name}\"\n")).concat();
    assert_eq!(
        mistakes(&format!("{FIRST_PIPELINE}{sections}"), &[]),
        [
            "line 12: table.name is the table of an [[outbox]] too: \"public.outbox_events\"",
            "line 16: table.name is named by two [[table]] sections: \"public.orders\"",
            "line 20: table.name is named by two [[table]] sections: \"public.o*\"",
            "line 22: table.name never counts: a [[table]] before it is about all that it is about",
        ]
    );
}

#[test]
fn what_is_no_value_of_a_key_is_told_with_what_is_expected() {
    for (lines, expected) in [
        ("key = []", "table.key must be a list of columns, as [\"id\"], or be left out"),
        ("key = \"id\"", "table.key must be a list of columns, as [\"id\"], not a text"),
        ("key = [\"id\", 7]", "table.key must be a text in quotes, not a number"),
        ("key = [\"id\", \"id\"]", "table.key names the column \"id\" twice"),
        ("key = [\"\"]", "table.key must not be empty"),
        ("key = [\"${NONE}\"]", "table.key needs the environment variable NONE, which is not set"),
        (
            "columns.mask.email = \"${NONE}\"",
            "table.columns.mask.email needs the environment variable NONE, which is not set",
        ),
        (
            "columns.exclude = [\"a\", \"b\", \"a\"]",
            "table.columns.exclude names the column \"a\" twice",
        ),
        (
            "columns.mask = [\"email\"]",
            "table.columns.mask must be a table of names, each with one of \"sha256\", \"redact\", \
             not a list",
        ),
        (
            "columns.mask.email = \"md5\"",
            "table.columns.mask.email must be one of \"sha256\", \"redact\", not \"md5\"",
        ),
        (
            "types.columns.total = \"float\"",
            "table.types.columns.total must be one of \"number\", \"string\", \"base64\", \"hex\", \
             not \"float\"",
        ),
        ("types.int8 = 8", "table.types.int8 must be one of \"number\", \"string\", not a number"),
        ("data = \"both\"", "table.data must be one of \"row\", \"change\", not \"both\""),
        ("snapshot = \"no\"", "table.snapshot must be one of \"initial\", \"never\", not \"no\""),
        (
            "snapshot = true",
            "table.snapshot must be one of \"initial\", \"never\", not true or false",
        ),
        ("tombstone = \"yes\"", "table.tombstone must be true or false, not a text"),
        (
            "otherwise = \"drop\"",
            "table.otherwise must be one of \"skip\", \"default\", not \"drop\"",
        ),
        (
            "types.numeric = \"double\"",
            "table.types.numeric must be one of \"string\", \"number\", not \"double\"",
        ),
        (
            "types.bytea = \"octal\"",
            "table.types.bytea must be one of \"base64\", \"hex\", not \"octal\"",
        ),
        ("types.date = \"number\"", "table.types.date is not a setting"),
        (
            "types.columns = [\"total\"]",
            "table.types.columns must be a table of names, each with one of \"number\", \"string\", \
             \"base64\", \"hex\", not a list",
        ),
        (
            "columns.exclude = \"notes\"",
            "table.columns.exclude must be a list of columns, as [\"id\"], not a text",
        ),
        ("topic = 7", "table.topic must be a topic template, as \"{table}.events\", not a number"),
        ("colums = {}", "table.colums is not a setting; the nearest is table.columns"),
        (
            "topic = \"{aggregate_type}\"",
            "table.topic is no topic template: topic \"{aggregate_type}\" has {aggregate_type}, \
             which only rows of an outbox have: here it may have {type}, {domain}, {column:NAME}, \
             {schema} and {table}",
        ),
        ("event = { type = \"a\" }", "table.event must be written as [[table.event]], not a table"),
    ] {
        let found = mistakes_of_orders(lines);
        let [only] = found.as_slice() else { panic!("{lines}: {found:?}") };
        assert!(only.starts_with(&format!("line 8: {expected}")), "{lines}: {only}");
    }
    for (name, expected) in [
        ("orders", "is no schema and table, as in public.orders or public.*: \"orders\""),
        ("*.orders", "may have a star in the table's name only"),
        ("\\\"public\\\".orders", "is written without SQL's quotes, as \"public.orders\""),
    ] {
        let found = mistakes(&ORDERS.replace("public.orders", name), &[]);
        let [only] = found.as_slice() else { panic!("{name}: {found:?}") };
        assert!(only.starts_with(&format!("line 7: table.name {expected}")), "{name}: {only}");
    }
}

/// The same words for the whole file, and for what is not there at all.
#[test]
fn a_table_needs_its_name_and_the_file_has_types_too() {
    let head = "types = { int8 = \"text\", numeric = 1, bytea = \"octal\", columns = {} }";
    let text = format!("{head}\n{}", ORDERS.replace("name = \"public.orders\"", "data = \"row\""));
    assert_eq!(
        mistakes(&text, &[]),
        [
            "line 1: types.bytea must be one of \"base64\", \"hex\", not \"octal\"",
            "line 1: types.columns is not a setting; there are int8, numeric, bytea",
            "line 1: types.int8 must be one of \"number\", \"string\", not \"text\"",
            "line 1: types.numeric must be one of \"string\", \"number\", not a number",
            "line 7: table.name is missing: a table with its schema, or a pattern for several, as \
             \"public.orders\" or \"public.*\"",
        ]
    );
}

#[test]
fn each_mistake_of_a_rule_is_in_one_report() {
    let lines = "[[table.event]]\ntype = \"\"\nwhen = \" \"\nversion = \"\"\ntopic = \"a b\"\n\
                 [table.event.data]\nb = \"\"\na = 7\nc = { d = \"new.d\" }\n[[table.event]]\n\
                 wen = \"true\"";
    assert_eq!(
        mistakes_of_orders(lines),
        [
            "line 9: table.event.type must not be empty",
            "line 10: table.event.when must not be empty",
            "line 11: table.event.version must not be empty",
            "line 12: table.event.topic is no topic template: topic \"a b\" has a character other \
             than a-z, A-Z, 0-9, '.', '_' and '-', which Kafka does not allow in a topic name",
            "line 14: table.event.data.b must not be empty",
            "line 15: table.event.data.a must be an expression in CEL, as \"new.total > 0\", not a \
             number",
            "line 16: table.event.data.c must be an expression in CEL, as \"new.total > 0\", not a \
             table",
            "line 17: table.event.type is missing: a text in quotes",
            "line 18: table.event.wen is not a setting; the nearest is table.event.when",
        ]
    );
}

#[test]
fn what_a_column_hides_must_not_show_elsewhere() {
    let lines = "columns = { exclude = [\"notes\", \"card\"], mask = { email = \"redact\", card = \
                 \"redact\" } }\nkey = [\"id\", \"email\", \"notes\"]\ntypes.columns = { email = \
                 \"hex\", notes = \"hex\" }\ntopic = \"{column:email}\"\n[[table.event]]\ntype = \
                 \"a\"\nwhen = \"true\"\ntopic = \"{column:notes}\"\n[[table.event]]\ntype = \"b\"";
    assert_eq!(
        mistakes_of_orders(lines),
        [
            "line 8: table.columns.mask.card has no effect on a column that columns.exclude hides",
            "line 9: table.key cannot have \"email\", which columns.mask hides: the record's key \
             would show it",
            "line 9: table.key cannot have \"notes\", which columns.exclude hides: the record's \
             key would show it",
            "line 10: table.types.columns.email has no effect on a column that columns.mask hides",
            "line 10: table.types.columns.notes has no effect on a column that columns.exclude \
             hides",
            "line 11: table.topic cannot have {column:email}, which columns.mask hides: the \
             topic's name would show it",
            "line 15: table.event.topic cannot have {column:notes}, which columns.exclude hides: \
             the topic's name would show it",
        ]
    );
}

#[test]
fn hashes_need_a_salt_and_a_salt_needs_hashes() {
    let masked = format!("{ORDERS}columns.mask = {{ email = \"sha256\", card = \"redact\" }}\n");
    assert_eq!(
        mistakes(&masked, &[]),
        ["line 8: table.columns.mask.email cannot be \"sha256\" without mask_salt at the head of \
             the file: hashes of values that can be guessed hide nothing"]
    );
    let salted = |text: &str, salt: &str| {
        let text = format!("mask_salt = {salt}\n{text}");
        let error = read(&text, &[]).expect_err(salt);
        error.mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let short = "line 1: mask_salt must have 16 characters at least: who can try out all of a \
                 short one finds the values behind it";
    assert_eq!(salted(&masked, "\"sésame-7-sésame\""), [short]);
    assert_eq!(salted(&masked, "\"\""), [short]);
    assert_eq!(
        salted(&masked, "4711"),
        ["line 1: mask_salt must be a secret text of at least 16 characters, not a number"]
    );
    let idle = "line 1: mask_salt has no effect without a column that columns.mask of a [[table]] \
                masks by \"sha256\"";
    let redacted = masked.replace("sha256", "redact");
    assert_eq!(salted(&redacted, "\"${NONE}\"").len(), 1);
    for text in [&redacted, ORDERS, FIRST_PIPELINE] {
        assert_eq!(salted(text, &format!("\"{SALT}\"")), [idle]);
    }
    let config = read(&format!("mask_salt = \"{SALT}\"\n{masked}"), &[]).expect("settings");
    let shown = format!("{config:?} {config:#?}");
    assert!(shown.contains("Sha256(***)") && !shown.contains(SALT), "{shown}");
}

#[test]
fn rules_that_would_share_ids_or_leave_settings_idle_are_told() {
    let rule = |lines: &str| format!("[[table.event]]\ntype = \"order.seen\"\n{lines}\n");
    let (all, some) = (rule(""), rule("when = \"true\""));
    let same = "is that of an earlier rule with the same `when`, \"order.seen\": the events of \
                both would have one id";
    let other = rule("when = \"op == 'delete'\"");
    for (lines, expected) in [
        (format!("{all}{all}"), format!("line 12: table.event.type {same}")),
        (format!("{some}{other}{some}"), format!("line 15: table.event.type {same}")),
        (
            "otherwise = \"skip\"".to_owned(),
            "line 8: table.otherwise cannot be \"skip\" without a [[table.event]]: nothing would \
             be published"
                .to_owned(),
        ),
        (
            "otherwise = \"default\"".to_owned(),
            "line 8: table.otherwise has no effect without a [[table.event]]".to_owned(),
        ),
        (
            format!("otherwise = \"default\"\n{some}{all}"),
            "line 8: table.otherwise has no effect: a [[table.event]] without `when` matches each \
             change"
                .to_owned(),
        ),
        (
            format!("data = \"change\"\n{some}data = {{ id = \"new.id\" }}"),
            "line 8: table.data has no effect: each event is one of a rule with its own `data`"
                .to_owned(),
        ),
        (
            format!("topic = \"orders\"\n{all}topic = \"seen\""),
            "line 8: table.topic has no effect: each event is one of a rule with its own `topic`"
                .to_owned(),
        ),
    ] {
        assert_eq!(mistakes_of_orders(&lines), [expected], "{lines}");
    }
    for lines in [
        format!("{all}{some}"),
        format!("data = \"change\"\n{some}data = {{ id = \"new.id\" }}\n{other}"),
        format!("data = \"change\"\notherwise = \"default\"\n{some}data = {{ id = \"new.id\" }}"),
    ] {
        orders(&lines);
    }
    let idle = format!("types.bytea = \"hex\"\n{FIRST_PIPELINE}");
    assert_eq!(mistakes(&idle, &[]), ["line 1: types.bytea has no effect without a [[table]]"]);
}

#[test]
fn topics_that_kafka_refuses_are_told_where_they_are_known() {
    let character = "has a character other than a-z, A-Z, 0-9, '.', '_' and '-', which Kafka does \
                     not allow in a topic name";
    let found = |name: &str, lines: &str| {
        mistakes(&format!("{}{lines}\n", ORDERS.replace("public.orders", name)), &[])
    };
    for (name, lines, expected) in [
        (
            "public.my orders",
            "",
            "line 7: table.topic does not do for public.my orders: topic \"{table}.events\"",
        ),
        (
            "public.my *",
            "topic = \"{table}\"",
            "line 8: table.topic does not do for public.my *: topic \"{table}\"",
        ),
        (
            "my schema.*",
            "topic = \"{schema}\"",
            "line 8: table.topic does not do for my schema.*: topic \"{schema}\"",
        ),
        (
            "public.my orders",
            "topic = \"{domain}\"",
            "line 8: table.topic does not do for events of the type \"my orders.created\": topic \
             \"{domain}\"",
        ),
        (
            "public.orders",
            "topic = \"{type}\"\n[[table.event]]\ntype = \"order seen\"",
            "line 10: table.event.type is \"order seen\", of which no topic can be made: topic \
             \"{type}\"",
        ),
        (
            "public.my orders",
            "[[table.event]]\ntype = \"order.seen\"\ntopic = \"{table}\"",
            "line 10: table.event.topic does not do for public.my orders: topic \"{table}\"",
        ),
        (
            "public.orders",
            "[[table.event]]\ntype = \"order seen\"\n[[route]]\ntype = \"*seen\"\ntopic = \
             \"{type}\"",
            "line 9: table.event.type is \"order seen\", of which no topic can be made: topic \
             \"{type}\"",
        ),
    ] {
        assert_eq!(found(name, lines), [format!("{expected} {character}")], "{name} {lines}");
    }
    let taken = "[[table.event]]\ntype = \"order.seen\"\ntopic = \"seen\"\n[[route]]\ntype = \
                 \"order.*\"\ntopic = \"orders\"";
    assert_eq!(
        found("public.orders", taken),
        ["line 10: table.event.topic has no effect: the [[route]] of \"order.*\" takes \
             \"order.seen\""]
    );
    // A route takes its events elsewhere, and so does a topic of the rule's own.
    let routed = "topic = \"{type}\"\n[[route]]\ntype = \"*.created\"\ntopic = \"made\"";
    let own = "[[table.event]]\ntype = \"order seen\"\ntopic = \"seen\"";
    for (name, lines) in [("public.my orders", routed), ("public.my orders", own)] {
        event_settings(&format!("{}{lines}\n", ORDERS.replace("public.orders", name)));
    }
    event_settings(&format!("{}topic = \"{{table}}\"\n", ORDERS.replace("public.orders", "a.*")));
}

#[test]
fn no_event_goes_where_checkpoints_or_dead_letters_are() {
    let found = |checkpoints: &str, lines: &str| {
        let kafka = format!("[kafka]\ncheckpoint_topic = \"{checkpoints}\"");
        mistakes(&format!("{}{lines}\n", ORDERS.replace("[kafka]", &kafka)), &[])
    };
    let rule = "[[table.event]]\ntype = \"order.seen\"\n";
    let forgets = |topic: &str| {
        format!(
            "must be another topic than kafka.checkpoint_topic, \"{topic}\": that holds \
             checkpoints alone, and forgets"
        )
    };
    assert_eq!(
        found("orders.events", ""),
        [format!("line 8: table.topic {}", forgets("orders.events"))]
    );
    assert_eq!(
        found("seen", &format!("{rule}topic = \"seen\"")),
        [format!("line 11: table.event.topic {}", forgets("seen"))]
    );
    let made =
        "table.event.type is \"order.seen\", which makes kafka.checkpoint_topic of its topic";
    assert_eq!(
        found("order.x", &format!("topic = \"{{domain}}.x\"\n{rule}")),
        [format!("line 11: {made}")]
    );
    let route = "[[route]]\ntype = \"*\"\ntopic = \"{domain}\"";
    assert_eq!(found("order", &format!("{rule}{route}")), [format!("line 10: {made}")]);
    for (topic, lines) in [
        ("orders.events", ""),
        ("seen", "[[table.event]]\ntype = \"order.seen\"\ntopic = \"seen\""),
        ("order", "topic = \"{domain}\"\n[[table.event]]\ntype = \"order.seen\""),
    ] {
        let dead = format!("on_error = \"dead-letter\"\ndead_letter_topic = \"{topic}\"\n{ORDERS}");
        assert_eq!(
            mistakes(&format!("{dead}{lines}\n"), &[]),
            [format!(
                "line 2: dead_letter_topic must not be \"{topic}\", a topic of the events \
                 themselves"
            )],
            "{lines}"
        );
        let other = dead.replace(&format!("\"{topic}\""), "\"{topic}.dead\"");
        assert!(read(&format!("{other}{lines}\n"), &[]).is_ok(), "{lines}");
    }
}

#[test]
fn the_environment_reaches_the_types_and_the_salt_but_no_section() {
    let text = file_with("table", "columns.mask.email", "\"sha256\"");
    let text = format!("mask_salt = \"${{SALT}}\"\n{}", text.trim_start());
    let variables = [("SALT", SALT), ("TAILWATER_TYPES__INT8", "string")];
    let tables = read(&text, &variables).expect("settings").pipeline.event.tables;
    assert_eq!(tables[0].types.int8, Int8Form::String);
    assert_eq!(tables[0].masks, [("email".to_owned(), Mask::Sha256(Salt::new(SALT)))]);
    assert_eq!(
        mistakes(&text, &[("SALT", "salt"), ("TAILWATER_TABLE__NAME", "public.orders")]),
        [
            "line 1: mask_salt must have 16 characters at least: who can try out all of a short \
             one finds the values behind it",
            "environment variable TAILWATER_TABLE__NAME: table is a list, which an environment \
             variable cannot reach into",
        ]
    );
}
