//! What `tailwater schema` prints describes the events that come, and no others.

use std::{fs, process::Command};

use serde_json::{Value as Json, json};

use crate::support::{
    daemon,
    kafka::{Broker, Record},
    postgres::Server,
    scene::{init, publishing, stop, wait_until_published},
    settings::SettingsFile,
    table_shop::TableShop,
    target_folder,
};

/// Each form of a payload, templates of each kind, headers, a route.
const SECTIONS: &str = r#"
[[outbox]]
table = "public.outbox_events"
headers = { tenant = "tenant_id" }

[[outbox]]
table = "public.envelopes"
payload = "envelope"
topic = "{table}.{column:tenant id}"

[[outbox]]
table = "public.outbox"
layout = "debezium"

[[message]]
prefix = "outbox"

[[route]]
type = "*.audited"
topic = "audit.{domain}"
"#;

const TABLES: &str = r#"
CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload jsonb,
    created_at timestamptz DEFAULT now(), tenant_id text, causation_id text, traceparent text);
CREATE TABLE envelopes (id uuid, aggregate_id text, event_type text, payload jsonb,
    "tenant id" text);
CREATE TABLE outbox (id uuid, aggregatetype text, aggregateid text, type text, payload jsonb);
"#;

const EVENTS: &str = r#"
INSERT INTO outbox_events (id, aggregate_id, event_type, payload, tenant_id, causation_id, traceparent)
VALUES
    (gen_random_uuid(), 'o-1', 'order.placed', '{"total": 1}', 'acme', NULL, NULL),
    (gen_random_uuid(), NULL, 'order.placed', NULL, NULL, 'cause', '00-a-b-01'),
    (gen_random_uuid(), 'o-1', 'order.audited', '[]', NULL, NULL, NULL),
    (gen_random_uuid(), 'o-1', NULL, '{}', NULL, NULL, NULL),
    (NULL, 'o-1', 'order.placed', '{}', NULL, NULL, NULL);
INSERT INTO envelopes VALUES
    ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'i-1', 'invoice.sent',
        '{"id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "type": "invoice.sent", "data": null,
          "source": "billing", "extra": true}', 'acme'),
    (gen_random_uuid(), 'i-1', 'invoice.audited', '{"data": 5}', 'acme');
INSERT INTO outbox VALUES
    (gen_random_uuid(), 'order', 'o-1', 'placed', '{"total": 1}'),
    (gen_random_uuid(), 'order', 'o-1', 'placed', NULL),
    (gen_random_uuid(), 'order', 'o-1', 'order.audited', '"text"');
SELECT pg_logical_emit_message(true, 'outbox',
    '{"aggregateId": "o-2", "type": "order.placed", "data": {"total": "19.90"}, "source": "other"}');
"#;

/// Of what has no type, and of what has no id.
const DEAD_LETTERS: [(&str, usize); 2] = [("order-service.dlq", 1), ("order.events.dlq", 1)];

const TOPICS: [(&str, usize); 5] = [
    ("order.events", 3),
    ("envelopes.acme", 1),
    ("outbox.event.order", 2),
    ("audit.order", 2),
    ("audit.invoice", 1),
];

fn print(settings: &SettingsFile, format: &str) -> Json {
    let ended = daemon::run(&["schema", "--format", format], settings);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr, "");
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// Settings of servers that are not there.
fn offline() -> SettingsFile {
    SettingsFile::of_text(format!(
        "source = \"order-service\"\n[postgres]\nurl = \"postgres://u@127.0.0.1:1/d\"\n[kafka]\n\
         brokers = \"127.0.0.1:1\"\n{SECTIONS}"
    ))
}

/// True where an address, with anything in its braces, is a topic.
fn makes(address: &str, topic: &str) -> bool {
    let mut rest = topic;
    let mut pieces = address.split('{');
    let Some(after) = rest.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    rest = after;
    for piece in pieces {
        let literal = piece.split_once('}').expect("a brace").1;
        let at = match literal {
            "" => rest.len(),
            literal => match rest.find(literal) {
                Some(at) => at,
                None => return false,
            },
        };
        if at == 0 {
            return false;
        }
        rest = &rest[at + literal.len()..];
    }
    rest.is_empty()
}

/// The only one of these addresses that makes the topic.
fn address_of<'a>(addresses: impl Iterator<Item = &'a String>, topic: &str) -> &'a str {
    let found: Vec<&String> = addresses.filter(|address| makes(address, topic)).collect();
    let [address] = found.as_slice() else { panic!("{topic}: {found:?}") };
    address
}

fn value_of(record: &Record) -> Json {
    record.value.as_deref().map_or(Json::Null, |value| serde_json::from_slice(value).expect("JSON"))
}

fn validator(document: &Json, pointer: &str) -> jsonschema::Validator {
    let mut document = document.clone();
    document["allOf"] = json!([{ "$ref": pointer }]);
    document.as_object_mut().expect("an object").remove("anyOf");
    jsonschema::options().should_validate_formats(true).build(&document).expect("a schema")
}

/// What is there must be valid where it belongs, and not valid elsewhere or spoilt.
fn judge_values(schema: &Json, records: &[Record]) {
    assert!(jsonschema::meta::is_valid(schema), "{schema:#}");
    let whole = jsonschema::draft202012::new(schema).expect("a schema");
    let definitions = schema["$defs"].as_object().expect("definitions");
    for record in records {
        let value = value_of(record);
        let topics = definitions.keys().filter(|name| *name != "DomainEvent");
        let address = address_of(topics, &record.topic);
        let encoded = address.replace('{', "%7B").replace('}', "%7D");
        let of_topic = validator(schema, &format!("#/$defs/{encoded}"));
        assert!(of_topic.is_valid(&value) && whole.is_valid(&value), "{address}: {value}");
        // Where bare values go, anything may come.
        let has_bare =
            record.topic.starts_with("outbox.event.") || record.topic.starts_with("audit.");
        let spoilt = |field: &str, by: Json| {
            let mut value = value.clone();
            value[field] = by;
            value
        };
        if !has_bare {
            assert!(!of_topic.is_valid(&spoilt("type", json!(7))), "{address}");
            assert!(!of_topic.is_valid(&spoilt("occurredAt", json!("yesterday"))), "{address}");
        }
    }
}

fn headers_of(record: &Record) -> Json {
    let texts = record.headers.iter().map(|(name, value)| {
        (name.clone(), json!(String::from_utf8(value.clone()).expect("UTF-8")))
    });
    Json::Object(texts.collect())
}

fn judge_messages(document: &Json, records: &[Record]) {
    let channels = document["channels"].as_object().expect("channels");
    let addresses: Vec<String> = channels
        .values()
        .map(|channel| channel["address"].as_str().expect("an address").to_owned())
        .collect();
    for record in records {
        let address = address_of(addresses.iter(), &record.topic);
        let channel = channels.values().find(|it| it["address"] == address).expect("a channel");
        let is_described = |message: &Json| {
            let pointer = message["$ref"].as_str().expect("a reference");
            let part = |name: &str| validator(document, &format!("{pointer}/{name}"));
            let key = record.key.clone().map(|key| String::from_utf8(key).expect("UTF-8"));
            let headers = headers_of(record);
            let mut short = headers.clone();
            short.as_object_mut().expect("an object").remove("pg-lsn");
            assert!(!part("headers").is_valid(&short), "{pointer}: {short}");
            part("payload").is_valid(&value_of(record))
                && part("headers").is_valid(&headers)
                && part("bindings/kafka/key").is_valid(&json!(key))
        };
        let messages = channel["messages"].as_object().expect("messages");
        assert!(messages.values().any(is_described), "{address}: {record:?}");
    }
}

#[test]
fn the_printed_schemas_describe_the_events_that_come() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = server.create_database("shop");
    session.run(TABLES);
    let settings = SettingsFile::of_text(format!(
        "source = \"order-service\"\non_error = \"dead-letter\"\n[postgres]\nurl = \"{}\"\n[kafka]\n\
         brokers = \"{}\"\n{SECTIONS}",
        server.url("shop"),
        broker.brokers()
    ));
    init(&settings);
    let daemon = publishing(&settings);
    session.run(EVENTS);
    wait_until_published(&session, "tailwater");
    stop(daemon);
    let read = |topics: &[(&str, usize)]| {
        let mut records = Vec::new();
        for (topic, count) in topics {
            let of_topic = broker.read_committed(topic);
            assert_eq!(of_topic.len(), *count, "{topic}");
            records.extend(of_topic);
        }
        records
    };
    let (records, dead_letters) = (read(&TOPICS), read(&DEAD_LETTERS));
    judge_values(&print(&settings, "json-schema"), &records);
    let document = print(&settings, "asyncapi");
    judge_messages(&document, &records);
    judge_messages(&document, &dead_letters);
}

/// Columns of many types, one that is kept apart from its row, masks, both forms of data, rules, and
/// topics of each kind.
const DOMAIN_TABLES: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE pair AS (a int, b text[]);
CREATE DOMAIN cents AS numeric(12, 2);
CREATE TABLE things (id int8 PRIMARY KEY, flag bool, small int2, ratio float8, amount numeric,
    bytes bytea, moment timestamptz, plain timestamp, day date, span interval, document jsonb,
    tags text[], matrix int[], mood mood, pair pair, pairs pair[], range int4range, address inet,
    token uuid, email text, card text, hidden text, large text, price cents);
ALTER TABLE things ALTER large SET STORAGE EXTERNAL;
CREATE TABLE changes (LIKE things INCLUDING ALL);
ALTER TABLE changes REPLICA IDENTITY FULL;
CREATE TABLE orders (tenant text, id int, status text, total numeric(10, 2), payload jsonb,
    placed_at timestamptz, PRIMARY KEY (tenant, id));
ALTER TABLE orders REPLICA IDENTITY FULL;
CREATE TABLE notes (text text);
ALTER TABLE notes REPLICA IDENTITY FULL;
"#;

const MASK_SALT: &str = "mask_salt = \"0123456789abcdef\"";

const DOMAIN_SECTIONS: &str = r#"
[[table]]
name = "public.things"
topic = "SOURCE.{table}"
tombstone = true
columns = { exclude = ["hidden"], mask = { email = "sha256", card = "redact" } }
types = { int8 = "string", columns = { amount = "number", bytes = "hex" } }

[[table]]
name = "public.changes"
topic = "SOURCE.{type}"
data = "change"

[[table]]
name = "public.orders"
topic = "SOURCE.{column:status}.orders"
otherwise = "default"

[[table.event]]
type = "order.placed"
when = "op == 'insert'"
version = "2.0"
topic = "SOURCE.placed"
data = { id = "new.id", total = "new.total", double = "new.total * 2", code = "new.payload.code", at = "new.placed_at", what = "{'op': op, 'status': [new.status]}" }

[[table.event]]
type = "order.touched"
when = "op != 'insert' && (op != 'delete' || old.id > 1)"
topic = "SOURCE.touched"

[[table]]
name = "public.note*"
topic = "SOURCE.notes"

[[route]]
type = "things.deleted"
topic = "SOURCE.gone"
"#;

const ROW_CHANGES: [&str; 10] = [
    "INSERT INTO things VALUES (9007199254740993, true, 7, 'NaN', 12.50, '\\xff00', \
     '2026-02-03 04:05:06.5+00', '0044-03-15 00:00:00 BC', 'infinity', '1 day', '{\"a\": [null]}', \
     '{a,NULL}', '{{1,2},{3,NULL}}', 'sad', '(1,\"{x}\")', '{\"(1,\\\"{}\\\")\",NULL}', '[1,5)', \
     '10.0.0.0/8', gen_random_uuid(), 'a@example.org', '4711', 'never', repeat('x', 9000), 12.5), \
     (2, NULL, NULL, 'Infinity', 'NaN', '', '-infinity', '2026-02-03', NULL, NULL, 'null', '{}', \
     '[0:1]={5,6}', NULL, '(,)', '{}', 'empty', NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "INSERT INTO changes SELECT * FROM things",
    "UPDATE things SET flag = false",
    "UPDATE things SET id = 3 WHERE id <> 2",
    "UPDATE changes SET small = 1",
    "UPDATE changes SET flag = NOT flag, id = id + 1",
    "DELETE FROM things; DELETE FROM changes",
    "INSERT INTO orders VALUES ('a', 1, 'new', 10, '{\"code\": 7}', now()), \
     ('a', 2, 'new', 'NaN', '{\"code\": null}', NULL)",
    "UPDATE orders SET status = 'paid'; DELETE FROM orders; INSERT INTO notes VALUES ('a'), (NULL); \
     UPDATE notes SET text = 'b'",
    "TRUNCATE things, changes, orders, notes",
];

/// The topics of those changes, in which `changes` has one for each type.
const ROW_TOPICS: [(&str, usize); 10] = [
    ("things", 6),
    ("gone", 6),
    ("changes.created", 4),
    ("changes.deleted", 4),
    ("changes.truncated", 1),
    ("changes.updated", 2),
    ("placed", 2),
    ("paid.orders", 1),
    ("touched", 4),
    ("notes", 5),
];

/// Each member of each object is spoilt in its turn, those that may hold anything left out.
fn spoil_each_column(event: &Json, check: &mut dyn FnMut(String, Json)) {
    for row in ["/data", "/data/before", "/data/after"] {
        let Some(columns) = event.pointer(row).and_then(Json::as_object) else { continue };
        for name in
            columns.keys().filter(|name| !["document", "payload", "code"].contains(&name.as_str()))
        {
            let mut spoilt = event.clone();
            *spoilt.pointer_mut(&format!("{row}/{name}")).expect("a column") =
                json!({ "wrong": [true] });
            check(format!("{row}/{name}"), spoilt);
        }
    }
}

#[test]
fn the_printed_schemas_describe_what_is_done_to_rows_and_nothing_else() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = server.create_database("shop");
    session.run(DOMAIN_TABLES);
    let settings = SettingsFile::of_text(format!(
        "source = \"order-service\"\n{MASK_SALT}\n{}\n[postgres]\nurl = \"{}\"\n[kafka]\n\
         brokers = \"{}\"\n",
        DOMAIN_SECTIONS.replace("SOURCE", "rows"),
        server.url("shop"),
        broker.brokers()
    ));
    // Before there is a publication: the tables are described as they are.
    let schema = print(&settings, "json-schema");
    let document = print(&settings, "asyncapi");
    assert_async_api(&document);
    let mut patterns = Vec::new();
    collect("pattern", &schema, &mut patterns);
    matches_in_node(&patterns, "2026-02-03T04:05:06Z");
    let daemon = publishing(&settings);
    for sql in ROW_CHANGES {
        session.run(sql);
    }
    wait_until_published(&session, "tailwater");
    stop(daemon);
    assert_eq!(print(&settings, "json-schema"), schema);
    let mut records = Vec::new();
    for (topic, count) in ROW_TOPICS {
        let of_topic = broker.read_committed(&format!("rows.{topic}"));
        assert_eq!(of_topic.len(), count, "{topic}");
        records.extend(of_topic);
    }
    judge_values(&schema, &records);
    judge_messages(&document, &records);
    let whole = jsonschema::draft202012::new(&schema).expect("a schema");
    let mut spoilt_count = 0;
    for record in records.iter().filter(|record| record.value.is_some()) {
        let event = record.json();
        spoil_each_column(&event, &mut |what, spoilt| {
            spoilt_count += 1;
            assert!(!whole.is_valid(&spoilt), "{what} of {event}");
        });
        for (field, wrong) in [
            ("type", json!("orders.archived")),
            ("version", json!("3.0")),
            ("source", json!("other")),
            ("data", json!("row")),
            ("unavailable", json!(["flag"])),
            ("unavailable", json!([])),
        ] {
            let mut spoilt = event.clone();
            spoilt[field] = wrong;
            assert!(!whole.is_valid(&spoilt), "{field} of {event}");
        }
    }
    assert!(spoilt_count > 300, "{spoilt_count}");
    let unavailable = records.iter().filter(|record| record.value.is_some());
    let unavailable = unavailable.filter(|record| record.json()["unavailable"] == json!(["large"]));
    assert_eq!(unavailable.count(), 2, "an update and a key that changes");
}

/// Whether they come at the start or because somebody asks for them.
#[test]
fn the_printed_schemas_describe_rows_that_were_there() {
    let rows = [ROW_CHANGES[0], ROW_CHANGES[1], ROW_CHANGES[7]].join("; ");
    let sections = DOMAIN_SECTIONS.replace("SOURCE", "{source}");
    let shop =
        TableShop::open_with_rows(Server::start(), &format!("{DOMAIN_TABLES}; {rows}"), &sections)
            .with_head(MASK_SALT);
    let schema = print(&shop.settings, "json-schema");
    let document = print(&shop.settings, "asyncapi");
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    for table in ["things", "changes", "orders"] {
        shop.await_rows(&mut daemon, &format!("public.{table}"));
    }
    shop.finish(daemon);
    let records = shop.records();
    judge_values(&schema, &records);
    judge_messages(&document, &records);
    let mut types: Vec<&str> =
        records.iter().map(|record| record.header("event-type").expect("a type")).collect();
    types.sort_unstable();
    let expected = ["changes.snapshot", "order.touched", "things.snapshot"];
    assert_eq!(types, expected.map(|kind| [kind; 2]).concat());
    let whole = jsonschema::draft202012::new(&schema).expect("a schema");
    for event in records.iter().map(Record::json) {
        spoil_each_column(&event, &mut |what, spoilt| {
            assert!(!whole.is_valid(&spoilt), "{what} of {event}");
        });
        // Nothing of such a row is unavailable.
        let mut spoilt = event.clone();
        spoilt["unavailable"] = json!(["large"]);
        assert!(!whole.is_valid(&spoilt), "{event}");
    }
    let text = fs::read_to_string(shop.settings.path()).expect("the settings");
    let never = text.replace("[[table]]\n", "[[table]]\nsnapshot = \"never\"\n");
    assert_eq!(print(&SettingsFile::of_text(never), "json-schema"), schema);
}

#[test]
fn a_schema_of_tables_is_asked_of_the_database_alone() {
    let server = Server::start();
    let session = server.create_database("shop");
    let settings = SettingsFile::of_text(format!(
        "source = \"order-service\"\n[postgres]\nurl = \"{}\"\n[[table]]\nname = \
         \"public.orders\"\n",
        server.url("shop")
    ));
    let missing = daemon::run(&["schema"], &settings);
    assert!(missing.is_code("settings"), "{}", missing.stderr);
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(2), ""));
    session.run("CREATE TABLE orders (id int PRIMARY KEY, status text)");
    let kinds = print(&settings, "json-schema")["$defs"]["orders.events"]["anyOf"].clone();
    assert_eq!(kinds.as_array().map(Vec::len), Some(5), "{kinds:#}");
    let properties = &kinds[0]["allOf"][1]["properties"];
    assert_eq!(properties["data"]["properties"]["id"], json!({ "type": ["integer", "null"] }));
    // A publication that leaves a column out: events have what it delivers.
    session.run("CREATE PUBLICATION tailwater FOR TABLE orders (id)");
    let kinds = print(&settings, "json-schema")["$defs"]["orders.events"]["anyOf"].clone();
    let columns = &kinds[0]["allOf"][1]["properties"]["data"]["properties"];
    assert_eq!(*columns, json!({ "id": { "type": ["integer", "null"] } }));
    let misfit = settings.replaced("[[table]]", "[[table]]\nkey = [\"number\"]");
    let ended = daemon::run(&["schema"], &misfit);
    assert!(ended.is_code("column_missing"), "{}", ended.stderr);
}

/// Which of these patterns match a text, by JavaScript's rules under the flag `u`.
fn matches_in_node(patterns: &[String], text: &str) -> Vec<bool> {
    let program = "const [, text, ...patterns] = process.argv.slice(1); \
                   const matches = patterns.map((pattern) => new RegExp(pattern, 'u').test(text)); \
                   console.log(JSON.stringify(matches));";
    let mut node = Command::new("node");
    let node = node.args(["-e", program, "--", "patterns", text]).args(patterns).output();
    let node = node.expect("node starts");
    assert!(node.status.success(), "{}", String::from_utf8_lossy(&node.stderr));
    serde_json::from_slice(&node.stdout).expect("the program's answer")
}

/// JSON Schema's patterns are those of ECMA-262 with the flag `u`, of which Rust's are none: by node,
/// as Ajv does it.
#[test]
fn every_printed_pattern_is_one_of_ecma_262_and_means_what_the_glob_does() {
    let settings = offline().replaced("\"*.audited\"", "\"order-a/b.?+$^|().*\"");
    let mut patterns = Vec::new();
    for format in ["json-schema", "asyncapi"] {
        collect("pattern", &print(&settings, format), &mut patterns);
    }
    assert!(patterns.iter().any(|pattern| pattern.contains("order-a/b")), "{patterns:?}");
    let matches = matches_in_node(&patterns, "order-a/b.X+$^|().\nlate");
    let expected: Vec<bool> = patterns.iter().map(|it| it.contains("order-a/b")).collect();
    assert_eq!(matches, expected, "{patterns:?}");
}

#[test]
fn a_schema_needs_no_server_and_json_schema_is_the_one_that_is_meant() {
    let settings = offline();
    let ended = daemon::run(&["schema"], &settings);
    let printed: Json = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(printed, print(&settings, "json-schema"));
    assert_eq!(printed["$schema"], "https://json-schema.org/draft/2020-12/schema");
    // The envelope is the published one, word for word.
    let text = include_str!("../../schemas/domain-event.schema.json");
    let mut published: Json = serde_json::from_str(text).expect("JSON");
    published.as_object_mut().expect("an object").remove("$schema");
    assert_eq!(printed["$defs"]["DomainEvent"], published);
    assert_eq!(daemon::run(&["schema", "--format", "avro"], &settings).code, Some(2));
}

/// AsyncAPI's own JSON Schema.
fn async_api() -> jsonschema::Validator {
    let path = target_folder().join("node/node_modules/@asyncapi/specs/schemas/3.0.0.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|_| {
        panic!("{}: run the tests by `make test`, which fetches it", path.display())
    });
    let schema: Json = serde_json::from_str(&text).expect("JSON");
    let options = jsonschema::options().with_draft(jsonschema::Draft::Draft7);
    options.build(&schema).expect("a schema")
}

fn assert_async_api(document: &Json) {
    let schema = async_api();
    let errors: Vec<String> = schema
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    // Every reference leads somewhere in the document.
    let mut references = Vec::new();
    collect("$ref", document, &mut references);
    assert!(references.len() > 10, "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn the_printed_document_is_asyncapi() {
    let settings = offline().replaced("[postgres]", "on_error = \"dead-letter\"\n[postgres]");
    let document = print(&settings, "asyncapi");
    assert_async_api(&document);
    let mut spoilt = document.clone();
    spoilt["channels"]["domain.events"]["adress"] = json!("misspelt");
    assert!(spoilt["channels"]["domain.events"]["address"].is_string());
    assert!(!async_api().is_valid(&spoilt));
}

/// All texts under this name, wherever they are.
fn collect(name: &str, value: &Json, found: &mut Vec<String>) {
    match value {
        Json::Object(members) => {
            for (of_member, member) in members {
                match member {
                    Json::String(text) if of_member == name => found.push(text.clone()),
                    member => collect(name, member, found),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| collect(name, item, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}
