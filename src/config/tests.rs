//! Settings files, good and bad.

mod tables;

use std::time::Duration;

use super::{Config, Environment, SettingsError, load::Need};
use crate::{
    admin,
    event::outbox::{self, PayloadForm},
    postgres::Host,
    sink::kafka::Partitioner,
};

const FIRST_PIPELINE: &str = r#"source = "order-service"

[postgres]
url = "postgres://tailwater@db.internal/shop"

[kafka]
brokers = "kafka-1:9092,kafka-2:9092"

[[outbox]]
table = "public.outbox_events"
"#;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, SettingsError> {
    Config::read(text, "tailwater.toml", &environment(variables))
}

fn mistakes(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let error = read(text, variables).expect_err("mistakes");
    error.mistakes.iter().map(ToString::to_string).collect()
}

#[test]
fn eight_lines_are_a_pipeline() {
    let Config { pipeline, admin, log } = read(FIRST_PIPELINE, &[]).expect("settings");
    assert_eq!(pipeline.slot.as_str(), "tailwater");
    assert_eq!(pipeline.kafka.transaction_interval, Duration::from_millis(50));
    assert_eq!(pipeline.kafka.transaction_bytes, 8 << 20);
    assert!(pipeline.failover && pipeline.kafka.create_topics);
    assert_eq!(pipeline.event.outboxes.len(), 1);
    assert_eq!(admin, admin::Socket::OfSlot("tailwater".to_owned()));
    assert_eq!(log.filter, "info");
}

#[test]
fn every_mistake_of_a_file_is_in_one_report() {
    let text = r#"source = ""
on_eror = "halt"

[postgres]
url = "postgres://db/shop"
slto = "orders"

[kafka]
brokers = ["kafka-1:9092"]
transaction_bytes = "64KiB"
transaction_interval = "50"
properties = { "acks" = "1", "linger" = 5 }

[[outbox]]
table = "outbox_events"
payload = "json"
topic = "{topic}.events"
"#;
    assert_eq!(
        mistakes(text, &[]),
        [
            "line 1: source must not be empty",
            "line 2: on_eror is not a setting; the nearest is on_error",
            "line 5: postgres.url names no user, as in postgres://user@host/database",
            "line 6: postgres.slto is not a setting; the nearest is postgres.slot",
            "line 9: kafka.brokers must be a text in quotes, not a list",
            "line 10: kafka.transaction_bytes must be from \"1MiB\" to \"1GiB\", not \"64KiB\"",
            "line 11: kafka.transaction_interval must be a time with its unit (ms, s, m), as \
             \"50ms\", not \"50\"",
            "line 12: kafka.properties.acks cannot be set: records that are not on all in-sync \
             replicas can be lost",
            "line 12: kafka.properties.linger is no property of librdkafka, or not of this build",
            "line 15: outbox.table needs its schema, as in public.outbox_events, not \
             \"outbox_events\"",
            "line 16: outbox.payload must be one of \"data\", \"envelope\", \"bare\", not \"json\"",
            "line 17: outbox.topic is no topic template: topic \"{topic}.events\" has {topic}, \
             which is none of {type}, {domain}, {aggregate_type}, {column:NAME}, {schema} and \
             {table}",
        ]
    );
}

#[test]
fn what_is_missing_is_named_with_its_place_and_what_is_expected() {
    let text = "\n[kafka]\n\n[[outbox]]\ntable = \"public.a\"\n\n[[outbox]]\npayload = \"bare\"\n";
    assert_eq!(
        mistakes(text, &[]),
        [
            "line 2: kafka.brokers is missing: a text in quotes",
            "line 7: outbox.table is missing: a table with its schema, as \"public.outbox_events\"",
            "postgres is missing: a section [postgres] with url",
            "source is missing: a text in quotes",
        ]
    );
    assert_eq!(
        mistakes("source = \"s\"\n", &[("TAILWATER_POSTGRES__SLOT", "orders")]),
        [
            "kafka is missing: a section [kafka] with brokers",
            "outbox is missing: a section [[outbox]] with table, a section [[message]] with \
             prefix, or a section [[table]] with name",
            "postgres.url is missing: a URL as \"postgres://user@host:5432/database\"",
        ]
    );
}

#[test]
fn a_value_that_is_overridden_needs_no_variable_of_its_own() {
    let text = FIRST_PIPELINE.replace("\"postgres://tailwater@db.internal/shop\"", "\"${URL}\"");
    let text = format!("{text}[kafka.properties]\n\"sasl.password\" = \"${{PASSWORD}}\"\n");
    let variables = [
        ("TAILWATER_POSTGRES__URL", "postgres://fox@db/shop"),
        ("TAILWATER_KAFKA__PROPERTIES__SASL_PASSWORD", "secret"),
    ];
    let settings = read(&text, &variables).expect("settings").pipeline;
    assert_eq!(settings.postgres.user, "fox");
    assert_eq!(settings.kafka.properties["sasl.password"], "secret");
}

#[test]
fn what_kafka_could_not_do_is_a_mistake_of_the_file() {
    let kafka = "[kafka]\ncheckpoint_topic = \"my topic\"\ntransaction_interval = \"11s\"";
    assert_eq!(
        mistakes(&FIRST_PIPELINE.replace("[kafka]", kafka), &[]),
        [
            "line 7: kafka.checkpoint_topic has a character other than a-z, A-Z, 0-9, '.', '_' \
             and '-', which Kafka does not allow in a topic name, not \"my topic\"",
            "line 8: kafka.transaction_interval must be 10 s at most, not \"11s\": Kafka gives up \
             transactions that are open for long",
        ]
    );
    let kafka = "[kafka]\ncheckpoint_topic = \"shop.public\"\ntransaction_interval = \"6s\"\n\
                 properties = { \"transaction.timeout.ms\" = 10000 }";
    let text = format!("{FIRST_PIPELINE}topic = \"shop.{{schema}}\"\n");
    assert_eq!(
        mistakes(&text.replace("[kafka]", kafka), &[]),
        [
            "line 8: kafka.transaction_interval must be at most half of \
             kafka.properties.transaction.timeout.ms, which is 10000 ms",
            "line 14: outbox.topic must be another topic than kafka.checkpoint_topic, \
             \"shop.public\": that holds checkpoints alone, and forgets",
        ]
    );
}

#[test]
fn a_table_in_quotes_of_sql_is_refused() {
    let text = FIRST_PIPELINE.replace("\"public.outbox_events\"", "'public.\"Outbox\"'");
    assert_eq!(
        mistakes(&text, &[]),
        ["line 10: outbox.table is written without SQL's quotes, as \"public.Outbox\""]
    );
}

/// What the program takes the schema takes, variables that nobody knows yet included.
#[test]
fn the_schema_takes_variables_in_the_place_of_values() {
    let schema = jsonschema::draft202012::new(&super::json_schema()).expect("a schema");
    let settings = |slot: &str, table: &str| {
        serde_json::json!({
            "source": "${SOURCE}",
            "postgres": { "url": "${URL}", "slot": slot, "publication": "${PUBLICATION}" },
            "kafka": {
                "brokers": "${BROKERS}",
                "checkpoint_topic": "${TOPIC}-checkpoints",
                "transaction_interval": "${INTERVAL}",
                "transaction_bytes": "${MIB}MiB",
                "partitioner": "${PARTITIONER}",
            },
            "outbox": [{ "table": table, "payload": "${PAYLOAD}" }],
        })
    };
    assert!(schema.is_valid(&settings("${SLOT}", "${SCHEMA}.outbox")));
    assert!(schema.is_valid(&settings("orders", "public.outbox")));
    assert!(!schema.is_valid(&settings("Orders", "public.outbox")));
    assert!(!schema.is_valid(&settings("orders", "outbox")));
}

#[test]
fn properties_are_checked_by_librdkafka_and_by_the_guarantee() {
    let text = format!(
        "{FIRST_PIPELINE}[kafka.properties]\nlinger.ms = 5\nacks = 1\n\"lingre.ms\" = 5\n\
         \"queue.buffering.max.kbytes\" = \"secret\"\n"
    );
    let found = mistakes(&text, &[]);
    let [acks, misspelt, value] = found.as_slice() else { panic!("{found:?}") };
    assert!(acks.starts_with("line 13: kafka.properties.acks cannot be set: records"), "{acks}");
    assert!(misspelt.starts_with("line 14: kafka.properties.lingre.ms is no property"));
    assert!(value.starts_with("line 15: kafka.properties.queue.buffering.max.kbytes has a value"));
}

#[test]
fn the_environment_fills_in_and_overrides() {
    let text = FIRST_PIPELINE.replace("db.internal", "${DB_HOST}").replace("order-", "$${x}-");
    let variables = [
        ("DB_HOST", "10.0.0.7"),
        ("TAILWATER_POSTGRES__SLOT", "orders"),
        ("TAILWATER_KAFKA__TOPIC__PARTITIONS", "12"),
        ("TAILWATER_KAFKA__CREATE_TOPICS", "false"),
        ("TAILWATER_KAFKA__PROPERTIES__SASL_PASSWORD", "secret"),
        // Kubernetes makes these for a service called tailwater.
        ("TAILWATER_SERVICE_HOST", "10.0.0.1"),
        ("TAILWATER_PORT", "tcp://10.0.0.1:80"),
    ];
    let settings = read(&text, &variables).expect("settings").pipeline;
    assert_eq!(settings.source, "${x}-service");
    assert_eq!(settings.postgres.host, Host::Tcp { host: "10.0.0.7".to_owned(), port: 5432 });
    assert_eq!(settings.slot.as_str(), "orders");
    assert_eq!(settings.kafka.topic.partitions, Some(12));
    assert!(!settings.kafka.create_topics);
    assert_eq!(settings.kafka.properties["sasl.password"], "secret");
}

#[test]
fn mistakes_of_the_environment_name_the_variable() {
    let text = FIRST_PIPELINE.replace("db.internal", "${DB_HOST}");
    let variables = [
        ("TAILWATER_POSTGRES__SLOTT", "orders"),
        ("TAILWATER_OUTBOX__TABLE", "a.b"),
        ("TAILWATER_KAFKA__TOPIC__PARTITIONS", "many"),
    ];
    assert_eq!(
        mistakes(&text, &variables),
        [
            "line 4: postgres.url needs the environment variable DB_HOST, which is not set",
            "environment variable TAILWATER_KAFKA__TOPIC__PARTITIONS: kafka.topic.partitions must \
             be a number of at least 1, without quotes",
            "environment variable TAILWATER_OUTBOX__TABLE: outbox is a list, which an environment \
             variable cannot reach into",
            "environment variable TAILWATER_POSTGRES__SLOTT: postgres.slott is not a setting; the \
             nearest is postgres.slot",
        ]
    );
}

#[test]
fn a_file_that_is_no_toml_is_said_with_its_lines() {
    let found = mistakes("source = \n[postgres\nurl = 5\n", &[]);
    assert!(
        found.iter().any(|mistake| mistake.starts_with("line 1: this is not TOML")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|mistake| mistake.starts_with("line 2: this is not TOML")),
        "{found:?}"
    );
}

#[test]
fn two_sections_for_one_table_are_refused() {
    let text = format!("{FIRST_PIPELINE}\n[[outbox]]\ntable = \"public.outbox_events\"\n");
    assert_eq!(
        mistakes(&text, &[]),
        ["line 13: outbox.table is named by two [[outbox]] sections: \"public.outbox_events\""]
    );
}

#[test]
fn headers_that_no_record_can_have_are_refused() {
    let name = "n".repeat(65_536);
    let text = format!("{FIRST_PIPELINE}headers = {{ {name} = \"tenant\" }}\n");
    assert_eq!(mistakes(&text, &[]), ["line 11: outbox.headers has a name above 65535 bytes"]);
    let names: String = (0..=1_000).map(|number| format!("h{number} = \"tenant\"\n")).collect();
    let text = format!("{FIRST_PIPELINE}[outbox.headers]\n{names}");
    let found = mistakes(&text, &[]);
    let [too_many] = found.as_slice() else { panic!("{found:?}") };
    assert!(too_many.ends_with("outbox.headers has more than 1000 names"), "{too_many}");
}

#[test]
fn headers_that_are_ours_cannot_be_set() {
    let lines = "headers = { traceparent = \"trace\", tenant = \"tenant_id\", pg-lsn = \"lsn\", \
                 source = \"service\" }\n";
    let why = "cannot be set: Tailwater writes this header itself, and a record must not have it \
               twice";
    let ours = |name: &str| format!("line 11: outbox.headers.{name} {why}");
    let text = format!("{FIRST_PIPELINE}{lines}");
    assert_eq!(mistakes(&text, &[]), [ours("pg-lsn"), ours("traceparent")]);
    // A bare value has the envelope's other fields in its headers.
    let text = format!("{text}payload = \"bare\"\n");
    assert_eq!(mistakes(&text, &[]), [ours("pg-lsn"), ours("source"), ours("traceparent")]);
}

#[test]
fn a_layout_presets_what_the_section_does_not_say() {
    let outbox = |lines: &str| {
        let text = format!("{FIRST_PIPELINE}{lines}\n");
        let settings = read(&text, &[]).expect("settings").pipeline.event.outboxes;
        settings.into_iter().next().expect("an outbox")
    };
    let names = |outbox: &outbox::Settings| {
        let names = &outbox.columns;
        [&names.id, &names.aggregate_type, &names.aggregate_id, &names.event_type, &names.payload]
            .map(|name| name.as_str().to_owned())
    };
    let plain = outbox("layout = \"tailwater\"");
    assert_eq!(plain, outbox(""));
    assert_eq!((plain.topic.as_str(), plain.payload), ("{domain}.events", PayloadForm::Data));
    assert_eq!(plain.headers, []);
    let preset = outbox("layout = \"debezium\"");
    assert_eq!(names(&preset), ["id", "aggregatetype", "aggregateid", "type", "payload"]);
    assert_eq!(preset.topic.as_str(), "outbox.event.{aggregate_type}");
    assert_eq!(preset.payload, PayloadForm::Bare);
    assert_eq!(preset.headers, [("id".to_owned(), "id".to_owned())]);
    let renamed = outbox(
        "layout = \"debezium\"\ntopic = \"{domain}.events\"\npayload = \"data\"\n\
         columns = { id = \"key\", event_type = \"event\" }",
    );
    assert_eq!(names(&renamed), ["key", "aggregatetype", "aggregateid", "event", "payload"]);
    assert_eq!((renamed.topic.as_str(), renamed.payload), ("{domain}.events", PayloadForm::Data));
    assert_eq!(renamed.headers, [("id".to_owned(), "key".to_owned())]);
    let own = outbox("layout = \"debezium\"\nheaders = { id = \"other\", x = \"y\" }");
    let headers: Vec<_> = own.headers.iter().map(|(name, column)| (&**name, &**column)).collect();
    assert_eq!(headers, [("id", "other"), ("x", "y")]);
    let text = format!("{FIRST_PIPELINE}layout = \"eventrouter\"\n");
    assert_eq!(
        mistakes(&text, &[]),
        ["line 11: outbox.layout must be one of \"tailwater\", \"debezium\", not \"eventrouter\""]
    );
    // The headers of a bare value are ours there.
    let text = format!("{FIRST_PIPELINE}layout = \"debezium\"\nheaders = {{ source = \"s\" }}\n");
    assert_eq!(mistakes(&text, &[]).len(), 1);
}

#[test]
fn messages_alone_are_a_pipeline() {
    let (before, _) = FIRST_PIPELINE.split_once("[[outbox]]").expect("an outbox");
    let text = format!(
        "{before}[[message]]\nprefix = \"outbox\"\n[[message]]\nprefix = \"audit\"\ntopic = \"audit\"\n"
    );
    let pipeline = read(&text, &[]).expect("settings").pipeline;
    assert!(pipeline.tables.is_empty() && pipeline.event.outboxes.is_empty());
    let found: Vec<_> = pipeline
        .event
        .messages
        .iter()
        .map(|message| (message.prefix.as_str(), message.topic.literal()))
        .collect();
    assert_eq!(found, [("outbox", None), ("audit", Some("audit"))]);
    let text = format!(
        "{before}[[message]]\nprefix = \"tailwater.context\"\n[[message]]\nprefix = \"a\"\ntopic = \
         \"__tailwater_checkpoints\"\n[[message]]\nprefix = \"a\"\ntopic = \"{{table}}\"\n[[message]]\n\
         prefix = \"\"\n"
    );
    let found = mistakes(&text, &[]);
    for (mistake, words) in found.iter().zip([
        "line 16: message.topic is no topic template: topic \"{table}\" has {table}, which only",
        "line 18: message.prefix must not be empty",
    ]) {
        assert!(mistake.starts_with(words), "{words}: {found:?}");
    }
    assert_eq!(found.len(), 2, "{found:?}");
    let text = text.replace("{table}", "b").replace("\"\"", "\"c\"");
    let found = mistakes(&text, &[]);
    for (mistake, words) in found.iter().zip([
        "line 10: message.prefix cannot be \"tailwater.context\", which gives a transaction",
        "line 13: message.topic must be another topic than kafka.checkpoint_topic",
        "line 15: message.prefix is named by two [[message]] sections: \"a\"",
    ]) {
        assert!(mistake.starts_with(words), "{words}: {found:?}");
    }
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn routes_are_checked_as_topics_and_patterns() {
    let text = format!(
        "{FIRST_PIPELINE}[[route]]\ntype = \"order.*\"\ntopic = \"orders\"\n[[route]]\ntype = \
         \"*\"\ntopic = \"all.{{domain}}\"\n"
    );
    let event = read(&text, &[]).expect("settings").pipeline.event;
    let found: Vec<_> = event
        .routes
        .iter()
        .map(|route| (route.event_type.matches("order.placed"), route.topic.literal()))
        .collect();
    assert_eq!(found, [(true, Some("orders")), (true, None)]);
    let text = format!(
        "{FIRST_PIPELINE}[[route]]\ntype = \"order.[ab]\"\ntopic = \"my topic\"\n[[route]]\n\
         topic = \"{{table}}\"\ntypes = \"a\"\n[[route]]\ntype = \"\"\ntopic = \
         \"{{aggregate_type}}.events\"\n"
    );
    assert_eq!(
        mistakes(&text, &[]),
        [
            "line 12: route.type is no pattern for types: it knows * for any characters and ? for \
             one, not '['",
            "line 13: route.topic is no topic template: topic \"my topic\" has a character other \
             than a-z, A-Z, 0-9, '.', '_' and '-', which Kafka does not allow in a topic name",
            "line 14: route.type is missing: a pattern for types, as \"order.*\"",
            "line 15: route.topic is no topic template: topic \"{table}\" has {table}, which only \
             rows of a table have: here it may have {type} and {domain}",
            "line 16: route.types is not a setting; the nearest is route.type",
            "line 18: route.type must not be empty",
            "line 19: route.topic is no topic template: topic \"{aggregate_type}.events\" has \
             {aggregate_type}, which only rows of a table have: here it may have {type} and \
             {domain}",
        ]
    );
    let text =
        format!("{FIRST_PIPELINE}[[route]]\ntype = \"*\"\ntopic = \"__tailwater_checkpoints\"\n");
    let found = mistakes(&text, &[]);
    assert!(found[0].starts_with("line 13: route.topic must be another topic"), "{found:?}");
}

#[test]
fn each_partitioner_is_known_by_its_name() {
    for (name, partitioner) in [
        ("murmur2", Partitioner::Murmur2),
        ("kafkajs-legacy", Partitioner::KafkajsLegacy),
        ("crc32", Partitioner::Crc32),
        ("fnv1a", Partitioner::Fnv1a),
    ] {
        let variables = [("TAILWATER_KAFKA__PARTITIONER", name)];
        let settings = read(FIRST_PIPELINE, &variables).expect(name).pipeline;
        assert_eq!(settings.kafka.partitioner, partitioner);
    }
}

/// Sections of a file that has all of them, with what they cannot do without.
const SECTIONS: [(&str, &[(&str, &str)]); 11] = [
    ("", &[("source", "\"order-service\"")]),
    ("[postgres]", &[("url", "\"postgres://tailwater@db.internal/shop\"")]),
    ("[kafka]", &[("brokers", "\"kafka-1:9092\"")]),
    ("[[outbox]]", &[("table", "\"public.outbox_events\"")]),
    ("[[message]]", &[("prefix", "\"outbox\"")]),
    ("[types]", &[]),
    ("[[table]]", &[("name", "\"public.orders\"")]),
    ("[[table.event]]", &[("type", "\"shop.opened\"")]),
    ("[[route]]", &[("type", "\"order.*\""), ("topic", "\"orders\"")]),
    ("[admin]", &[]),
    ("[log]", &[]),
];

/// The file with one key more, or with another value of one.
fn file_with(section: &str, key: &str, value: &str) -> String {
    let mut text = String::new();
    for (heading, lines) in SECTIONS {
        text.push_str(&format!("{heading}\n"));
        let name = heading.trim_matches(['[', ']']);
        for (other, given) in lines.iter().filter(|(other, _)| name != section || *other != key) {
            text.push_str(&format!("{other} = {given}\n"));
        }
        if name == section {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    text
}

/// The keys of a schema's objects, lists and all, joined by dots.
fn leaves(schema: &serde_json::Value, path: &str, found: &mut Vec<String>) {
    let object = schema.get("items").unwrap_or(schema);
    match object.get("properties").and_then(|properties| properties.as_object()) {
        None => found.push(path.to_owned()),
        Some(properties) => {
            for (name, inner) in properties {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(inner, &path, found);
            }
        }
    }
}

#[test]
fn a_wrong_value_of_any_key_is_told_with_its_key_and_line() {
    let mut keys = Vec::new();
    leaves(&super::schema::json_schema(), "", &mut keys);
    assert!(keys.len() > 40, "{keys:?}");
    for path in keys {
        let is_section = |section: &str| !section.is_empty() && path.starts_with(section);
        let names = SECTIONS.map(|(heading, _)| heading.trim_matches(['[', ']']));
        let sections = names.into_iter().filter(|name| is_section(&format!("{name}.")));
        let section = sections.max_by_key(|name| name.len()).unwrap_or("");
        let key = path.strip_prefix(&format!("{section}.")).unwrap_or(&path);
        // No setting is a list of lists.
        let text = file_with(section, key, "[[7]]");
        let found = mistakes(&text, &[]);
        let [only] = found.as_slice() else { panic!("{path}: {found:?}") };
        assert!(only.starts_with("line ") && only.contains(&path), "{path}: {only}");
        assert!(only.contains("must be "), "{path}: {only}");
    }
}

#[test]
fn what_has_no_effect_or_cannot_be_is_told() {
    for (section, key, value, words) in [
        ("", "on_error", "\"skip\"", "must be one of \"halt\", \"dead-letter\", not \"skip\""),
        ("", "dead_letter_topic", "\"dead letters\"", "has a character other than"),
        ("", "dead_letter_topic", "\"{domain}.dlq\"", "{topic} is the only place to fill"),
        ("", "dead_letter_topic", "\"{topic}\"", "must not be the topic of the events"),
        ("", "dead_letter_topic", "\"dead\"", "has no effect without on_error"),
        (
            "kafka",
            "delivery",
            "\"at-most-once\"",
            "must be one of \"exactly-once\", \"at-least-once\"",
        ),
        ("kafka", "large_transactions", "\"hold\"", "must be one of \"split\", \"atomic\""),
        ("kafka", "outage_grace", "\"60\"", "must be a time with its unit"),
        ("kafka", "outage_grace", "\"200ms\"", "must be 5s at least"),
        ("postgres", "retained_wal_max", "\"10\"", "must be a size with its unit"),
        ("postgres", "retained_wal_max", "\"1MiB\"", "must be 16MiB at least"),
    ] {
        let found = mistakes(&file_with(section, key, value), &[]);
        assert!(found.iter().any(|mistake| mistake.contains(words)), "{key}: {found:?}");
    }
    let text = file_with("kafka", "large_transactions", "\"atomic\"\ndelivery = \"at-least-once\"");
    let found = mistakes(&text, &[]);
    assert!(found[0].contains("cannot be \"atomic\" with kafka.delivery"), "{found:?}");
    let text = file_with("", "source", "\"order service\"\non_error = \"dead-letter\"");
    let found = mistakes(&text, &[]);
    assert!(found[0].contains("makes \"order service.dlq\" of the source"), "{found:?}");
    let of_events = "\"dead-letter\"\ndead_letter_topic = \"orders\"";
    let found = mistakes(&file_with("", "on_error", of_events), &[]);
    assert!(found[0].contains("a topic of the events themselves"), "{found:?}");
    let checkpoints = "\"dead-letter\"\ndead_letter_topic = \"__tailwater_checkpoints\"";
    let found = mistakes(&file_with("", "on_error", checkpoints), &[]);
    assert!(found[0].contains("must be another topic than kafka.checkpoint_topic"), "{found:?}");
}

#[test]
fn the_socket_is_where_the_settings_say() {
    let socket =
        |value: &str| read(&file_with("admin", "socket", value), &[]).map(|found| found.admin);
    assert_eq!(socket("\"off\"").expect("off"), admin::Socket::Off);
    let at = admin::Socket::At("/run/shop/tailwater.sock".into());
    assert_eq!(socket("\"/run/shop/tailwater.sock\"").expect("a path"), at);
    let long = format!("/run/{}", "s".repeat(103));
    for (value, words) in [
        ("\"tailwater.sock\"", "must be an absolute path, or \"off\", not \"tailwater.sock\""),
        ("\"\"", "must be an absolute path, or \"off\", not \"\""),
        ("\"/run/tailwater/\"", "must be a file's path, not \"/run/tailwater/\""),
        ("\"/run/a\\u0000b\"", "must not hold a zero byte"),
        ("false", "must be an absolute path, or \"off\", not true or false"),
        (&format!("\"{long}\""), "must have 107 bytes at most"),
    ] {
        let found = mistakes(&file_with("admin", "socket", value), &[]);
        let [only] = found.as_slice() else { panic!("{value}: {found:?}") };
        assert!(only.contains("admin.socket ") && only.contains(words), "{value}: {only}");
    }
    let text = file_with("admin", "listen", "\"127.0.0.1:8474\"");
    assert!(mistakes(&text, &[])[0].contains("admin.listen is not a setting"));
    assert!(socket(&format!("\"{}\"", &long[..107])).is_ok());
}

#[test]
fn a_route_or_a_password_that_never_counts_is_told() {
    for (first, second) in [("*", "order.*"), ("order.*", "order.*")] {
        let text = file_with(
            "route",
            "type",
            &format!("\"{first}\"\n[[route]]\ntype = \"{second}\"\ntopic = \"others\""),
        );
        let text = text.replacen("topic = \"orders\"\n", "", 1);
        let text = text.replacen("[[route]]\n", "[[route]]\ntopic = \"orders\"\n", 1);
        let found = mistakes(&text, &[]);
        assert!(found[0].contains("route.type never counts"), "{found:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "secret").expect("written");
    let file = format!("\"{}\"", file.display());
    let found = mistakes(&file_with("kafka", "password_file", &file), &[]);
    assert!(found[0].contains("has no effect without kafka.properties.security.protocol"));
    let both = format!(
        "{file}\nproperties = {{ \"security.protocol\" = \"sasl_ssl\", \"sasl.password\" = \"x\" }}"
    );
    let found = mistakes(&file_with("kafka", "password_file", &both), &[]);
    assert!(found[0].contains("cannot be beside kafka.properties.sasl.password"), "{found:?}");
}

#[test]
fn dead_letters_go_where_the_settings_say() {
    let text = file_with("", "on_error", "\"dead-letter\"");
    let topics = read(&text, &[]).expect("settings").pipeline.dead_letters.expect("topics");
    assert_eq!(topics.of(Some("order.events")), "order.events.dlq");
    assert!(read(FIRST_PIPELINE, &[]).expect("settings").pipeline.dead_letters.is_none());
}

#[test]
fn a_command_that_never_goes_to_kafka_needs_no_word_of_it() {
    let read =
        |text: &str| Config::read_as(Need::Database, text, "tailwater.toml", &environment(&[]));
    let kafka = "[kafka]\nbrokers = \"kafka-1:9092,kafka-2:9092\"\n\n";
    let without = FIRST_PIPELINE.replace(kafka, "");
    assert_ne!(without, FIRST_PIPELINE);
    let pipeline = read(&without).expect("settings").pipeline;
    assert_eq!(pipeline.source, "order-service");
    assert_eq!(mistakes(&without, &[]), ["kafka is missing: a section [kafka] with brokers"]);
    // What is there is read, and must be right.
    let with = read(FIRST_PIPELINE).expect("settings").pipeline;
    assert_eq!(with.kafka.brokers, "kafka-1:9092,kafka-2:9092");
    let mistaken = without.replace("[[outbox]]", "[kafka]\nbroker = \"kafka-1\"\n[[outbox]]");
    let error = read(&mistaken).expect_err("a mistake");
    assert_eq!(error.mistakes.len(), 1, "{error:?}");
}

#[test]
fn oauthbearer_without_anything_that_fetches_tokens_is_a_mistake() {
    let with = |rest: &str| {
        let properties =
            format!("[kafka]\nproperties = {{ \"sasl.mechanism\" = \"OAUTHBEARER\"{rest} }}");
        mistakes_of(&FIRST_PIPELINE.replace("[kafka]", &properties))
    };
    let found = with("");
    let [mistake] = found.as_slice() else { panic!("{found:?}") };
    assert!(mistake.starts_with("line 7: kafka.properties.sasl.mechanism cannot be"), "{mistake}");
    assert_eq!(with(", \"enable.sasl.oauthbearer.unsecure.jwt\" = true"), [""; 0]);
    // What a build knows of providers is librdkafka's to say, and no secret is said with it.
    let provider = ", \"sasl.oauthbearer.method\" = \"oidc\", \
                    \"sasl.oauthbearer.client.secret\" = \"sesame\"";
    let found = with(provider).join("\n");
    assert_eq!(found.is_empty(), cfg!(feature = "oidc"), "{found}");
    assert!(!found.contains("sesame"), "{found}");
}

fn mistakes_of(text: &str) -> Vec<String> {
    let mistakes = read(text, &[]).err().map(|error| error.mistakes).unwrap_or_default();
    mistakes.iter().map(ToString::to_string).collect()
}
