//! What a row becomes, all the way from an INSERT to a reader of Kafka.

use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    daemon::{Daemon, Ended, run},
    foreign,
    kafka::{Broker, Record},
    oracle::event_schema,
    postgres::{Server, Session},
    reader::high_watermarks,
    scene::{init, publishing, stop, wait_until_published},
    settings::SettingsFile,
    wait_until,
};

const ID: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";

/// The table of a row that has nothing but what must be there.
const BARE_MINIMUM: &str = "CREATE TABLE outbox_events (id uuid, aggregate_id text, \
                            event_type text, payload jsonb)";

/// A database of its own, and a pipeline from it to a topic of its own.
struct Scene {
    session: Session,
    settings: SettingsFile,
    topic: String,
}

impl Scene {
    /// Makes the tables, and the settings of `outboxes`: sections with what they say beside the
    /// topic.
    fn new(server: &Server, tables_sql: &str, outboxes: &[&str]) -> Self {
        let name = format!("events_{:08x}", fastrand::u32(..));
        let session = server.create_database(&name);
        session.run(tables_sql);
        let broker = Broker::shared();
        let mut text = format!(
            "source = \"{name}\"\n[postgres]\nurl = \"{}\"\nslot = \"{name}\"\n[kafka]\nbrokers = \
             \"{}\"\n",
            server.url(&name),
            broker.brokers()
        );
        for outbox in outboxes {
            let topic = if outbox.contains("topic = ") { "" } else { "topic = \"TOPIC\"\n" };
            text.push_str(&format!("[[outbox]]\n{topic}{outbox}\n"));
        }
        let settings = SettingsFile::of_text(text.replace("TOPIC", &name));
        Self { session, settings, topic: name }
    }

    /// One table called `outbox_events`.
    fn of_table(server: &Server, table_sql: &str, outbox: &str) -> Self {
        let outbox = format!("table = \"public.outbox_events\"\n{outbox}");
        Self::new(server, table_sql, &[&outbox])
    }

    /// Starts the pipeline, runs the application's SQL, and lets all of it be published.
    fn publish(&self, sql: &str) {
        init(&self.settings);
        self.session.run(sql);
        let daemon = publishing(&self.settings);
        wait_until_published(&self.session, &self.topic);
        stop(daemon);
    }

    /// What [`Scene::publish`] leaves in the scene's topic.
    fn records(&self, sql: &str) -> Vec<Record> {
        self.publish(sql);
        Broker::shared().read_committed(&self.topic)
    }

    fn record(&self, sql: &str) -> Record {
        let records = self.records(sql);
        let [record] = records.as_slice() else { panic!("{records:?}") };
        record.clone()
    }

    /// The daemon stops with that code, before or after the first row.
    fn refuse(&self, sql: &str, code: &str, words: &[&str]) -> Ended {
        self.session.run(sql);
        let ended = Daemon::start(&self.settings).wait(PATIENCE);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.is_code(code), "{}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
        }
        ended
    }
}

fn data_by_type(records: &[Record]) -> Vec<(String, Value)> {
    let mut found: Vec<_> = records
        .iter()
        .map(|record| {
            let event = record.json();
            event_schema().validate(&event).expect("an event of the schema");
            (event["type"].as_str().expect("a text").to_owned(), event["data"].clone())
        })
        .collect();
    found.sort_by(|left, right| left.0.cmp(&right.0));
    found
}

#[test]
fn payloads_of_every_column_type_become_data() {
    let server = Server::start();
    let types = ["jsonb", "json", "text", "varchar", "bytea", "document"];
    let tables: String = types
        .map(|name| {
            format!(
                "CREATE TABLE outbox_{name} (id uuid, aggregate_id text, event_type text, payload \
                 {name});"
            )
        })
        .concat();
    let outboxes = types.map(|name| format!("table = \"public.outbox_{name}\""));
    let outboxes: Vec<&str> = outboxes.iter().map(String::as_str).collect();
    let scene =
        Scene::new(&server, &format!("CREATE DOMAIN document AS jsonb; {tables}"), &outboxes);
    let text = "{\"n\": 1.10, \"ü\": [null, \"\\\\\"]}";
    let rows: String = types
        .map(|name| {
            let value = if name == "bytea" {
                format!("convert_to('{text}', 'UTF8')")
            } else {
                format!("'{text}'")
            };
            format!(
                "INSERT INTO outbox_{name} VALUES (gen_random_uuid(), 'a', 'of.{name}', {value});
                 INSERT INTO outbox_{name} VALUES (gen_random_uuid(), 'a', 'of.{name}.null', NULL);"
            )
        })
        .concat();
    let records = scene.records(&rows);
    let expected: Value = serde_json::from_str(text).expect("JSON");
    let mut all: Vec<_> = types
        .into_iter()
        .flat_map(|name| {
            [(format!("of.{name}"), expected.clone()), (format!("of.{name}.null"), Value::Null)]
        })
        .collect();
    all.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(data_by_type(&records), all);
    // Every digit and blank is the server's or the application's.
    let verbatim = |record: &&Record| {
        let value = String::from_utf8(record.value.clone().expect("a value")).expect("UTF-8");
        value.ends_with(&format!("\"data\":{text}}}"))
    };
    assert_eq!(records.iter().filter(verbatim).count(), types.len());
}

#[test]
fn payloads_that_are_no_json_cannot_be_mapped() {
    let server = Server::start();
    for (type_name, value, words) in [
        ("text", "'{\"secret\": }'", "is not valid JSON"),
        ("bytea", "'\\x7b7d7d'", "is not valid JSON"),
        ("bytea", "'\\x22ff22'", "is not valid UTF-8"),
    ] {
        let table = BARE_MINIMUM.replace("jsonb", type_name);
        let scene = Scene::of_table(&server, &table, "");
        init(&scene.settings);
        let row = format!("INSERT INTO outbox_events VALUES ('{ID}', 'a', 'b.c', {value})");
        let words = ["\"public.outbox_events\"", "\"payload\"", "committed at", words];
        let ended = scene.refuse(&row, "event_unmappable", &words);
        assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
    }
}

#[test]
fn a_null_payload_is_no_envelope_and_a_null_value_where_bare() {
    let server = Server::start();
    let row = format!("INSERT INTO outbox_events VALUES ('{ID}', 'a', 'b.c', NULL)");
    let bare = Scene::of_table(&server, BARE_MINIMUM, "payload = \"bare\"");
    let record = bare.record(&row);
    assert_eq!(record.value, None);
    assert_eq!(record.key.as_deref(), Some(&b"a"[..]));
    assert_eq!(record.header("event-id"), Some(ID));
    let envelope = Scene::of_table(&server, BARE_MINIMUM, "payload = \"envelope\"");
    init(&envelope.settings);
    envelope.refuse(&row, "event_unmappable", &["column \"payload\" is NULL"]);
}

#[test]
fn an_envelope_is_completed_and_otherwise_kept() {
    let server = Server::start();
    let scene = Scene::of_table(
        &server,
        "CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload json)",
        "payload = \"envelope\"",
    );
    let payload = format!(
        "{{\"version\": null, \"id\": \"{}\", \"data\": 1.0, \"mine\": [1, 2], \"source\": null}}",
        ID.to_uppercase()
    );
    let record = scene
        .record(&format!("INSERT INTO outbox_events VALUES ('{ID}', 'a', 'b.c', '{payload}')"));
    let value = String::from_utf8(record.value.clone().expect("a value")).expect("UTF-8");
    let kept = format!("{{\"id\": \"{}\", \"data\": 1.0, \"mine\": [1, 2],", ID.to_uppercase());
    assert!(value.starts_with(&kept), "{value}");
    let event = record.json();
    event_schema().validate(&event).expect("an event of the schema");
    assert_eq!((&event["version"], &event["source"]), (&json!("1.0"), &json!(scene.topic)));
}

#[test]
fn what_a_bare_value_leaves_out_is_in_the_headers() {
    let server = Server::start();
    let table = "CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload \
                 jsonb, created_at timestamptz, version text, correlation_id text, causation_id \
                 uuid, traceparent text, tenant_id int, headers jsonb)";
    let outbox = "payload = \"bare\"\nheaders = { tenant = \"tenant_id\" }";
    let scene = Scene::of_table(&server, table, outbox);
    let record = scene.record(&format!(
        "INSERT INTO outbox_events VALUES ('{ID}', 'a', 'b.c', '{{\"n\": 1.0}}', \
         '2026-03-01 13:00:00.5+01', '2.1', 'order-7', '{ID}', '00-1-2-01', 42, \
         '{{\"region\": \"eu\", \"event-id\": \"forged\", \"tenant\": \"other\"}}')"
    ));
    assert_eq!(record.value.as_deref(), Some(&b"{\"n\": 1.0}"[..]));
    for (name, value) in [
        ("content-type", "application/json"),
        ("schema-version", "2.1"),
        ("event-id", ID),
        ("event-type", "b.c"),
        ("correlation-id", "order-7"),
        ("causation-id", ID),
        ("occurred-at", "2026-03-01T12:00:00.500000Z"),
        ("source", scene.topic.as_str()),
        ("traceparent", "00-1-2-01"),
        ("pg-seq", "0"),
        ("tenant", "42"),
        ("region", "eu"),
    ] {
        let values: Vec<_> = record.headers.iter().filter(|(header, _)| header == name).collect();
        assert_eq!(values, [&(name.to_owned(), value.as_bytes().to_vec())], "{name}");
    }
    assert_eq!(record.headers.len(), 14, "{:?}", record.headers);
}

#[test]
fn a_domain_over_jsonb_holds_headers_and_a_name_beyond_bounds_stops() {
    let server = Server::start();
    let table = "CREATE DOMAIN attributes AS jsonb; CREATE TABLE outbox_events (id uuid, \
                 aggregate_id text, event_type text, payload jsonb, headers attributes)";
    let row = |headers: &str| {
        format!("INSERT INTO outbox_events VALUES (gen_random_uuid(), 'a', 'b.c', '1', {headers})")
    };
    let scene = Scene::of_table(&server, table, "columns = { headers = \"headers\" }");
    let record = scene.record(&row("'{\"tenant\": \"acme\"}'"));
    assert_eq!(record.header("tenant"), Some("acme"));
    for headers in [
        "jsonb_build_object(repeat('n', 70000), 1)",
        "(SELECT jsonb_object_agg('h' || n, 1) FROM generate_series(1, 70000) n)",
    ] {
        let scene = Scene::of_table(&server, table, "");
        init(&scene.settings);
        let words = ["\"public.outbox_events\"", "column \"headers\"", "committed at"];
        scene.refuse(&row(headers), "event_unmappable", &words);
    }
}

#[test]
fn what_a_row_does_not_say_is_filled_in() {
    let server = Server::start();
    let scene = Scene::of_table(&server, BARE_MINIMUM, "");
    let row = format!("INSERT INTO outbox_events VALUES ('{ID}', 'a', 'b.c', '{{}}')");
    let record = scene.record(&row);
    let event = record.json();
    event_schema().validate(&event).expect("an event of the schema");
    let occurred_at = event["occurredAt"].as_str().expect("a text");
    assert_eq!(
        event,
        json!({ "id": ID, "type": "b.c", "version": "1.0", "source": scene.topic,
            "correlationId": ID, "occurredAt": occurred_at, "data": {} })
    );
    let instant: jiff::Timestamp = occurred_at.parse().expect("an instant");
    assert_eq!(instant.as_millisecond(), record.timestamp_ms);
    assert_eq!(occurred_at.len(), "2026-03-01T12:00:00.000000Z".len());
}

#[test]
fn keys_that_are_no_uuids_give_ids_that_stay() {
    let server = Server::start();
    let table = "CREATE TABLE outbox_events (id bigserial PRIMARY KEY, aggregate_id text, \
                 event_type text, payload jsonb)";
    let scene = Scene::of_table(&server, table, "");
    let row = |number: u32| {
        format!("INSERT INTO outbox_events VALUES ({number}, 'a', 'b.{number}', '{number}');")
    };
    let id = |record: &Record| {
        let id = record.json()["id"].as_str().expect("a text").to_owned();
        assert_eq!((record.header("event-id"), id.as_bytes()[14]), (Some(id.as_str()), b'8'));
        id
    };
    let records = scene.records(&(row(1) + &row(2)));
    assert_eq!(data_by_type(&records).len(), 2);
    // The same key in another transaction, after another start.
    let records = scene.records(&format!("DELETE FROM outbox_events; {}", row(2)));
    let ids: Vec<_> = records.iter().map(id).collect();
    let [first, second, again] = ids.as_slice() else { panic!("{ids:?}") };
    assert_eq!((first == second, second == again), (false, true));
    // Another database may have the same keys.
    let other = Scene::of_table(&server, &table.replace("bigserial", "text"), "");
    let text = "INSERT INTO outbox_events VALUES ('order-7/1', 'a', 'b.c', '1')";
    let records = other.records(&(row(2).replace("(2,", "('2',") + text));
    let others: Vec<_> = records.iter().map(id).collect();
    assert!(others.len() == 2 && others.iter().all(|id| !ids.contains(id)), "{others:?}");
}

#[test]
fn a_time_without_a_zone_is_read_as_utc() {
    let server = Server::start();
    let table = "CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload \
                 jsonb, created_at timestamp)";
    let scene = Scene::of_table(&server, table, "");
    let record = scene.record(&format!(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', \
         current_database()); END $$; SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; \
         INSERT INTO outbox_events VALUES ('{ID}', 'a', 'b.c', '{{}}', '2026-03-01 12:00:00')"
    ));
    assert_eq!(record.json()["occurredAt"], json!("2026-03-01T12:00:00.000000Z"));
}

#[test]
fn times_that_are_no_instants_cannot_be_mapped() {
    let server = Server::start();
    let table = "CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload \
                 jsonb, created_at timestamptz)";
    for (time, words) in [
        ("infinity", "is infinite"),
        ("0044-03-15 00:00:00 BC", "a year outside 0001 to 9999"),
        ("10000-01-01 00:00:00+00", "a year outside 0001 to 9999"),
    ] {
        let scene = Scene::of_table(&server, table, "");
        init(&scene.settings);
        let row =
            format!("INSERT INTO outbox_events VALUES ('{ID}', 'a', 'b.c', '{{}}', '{time}')");
        scene.refuse(&row, "event_unmappable", &["\"created_at\"", words]);
    }
}

#[test]
fn a_row_without_an_aggregate_goes_where_its_id_is_hashed_to() {
    let server = Server::start();
    let partitions = 7;
    for partitioner in ["murmur2", "kafkajs-legacy"] {
        let scene = Scene::of_table(&server, BARE_MINIMUM, "");
        let line = format!("partitioner = \"{partitioner}\"");
        let scene = Scene { settings: scene.settings.with("[kafka]", &line), ..scene };
        Broker::shared().create_topic(&scene.topic, partitions, &[]);
        let records = scene.records(
            "INSERT INTO outbox_events SELECT gen_random_uuid(), NULL, 'b.c', '{}' \
             FROM generate_series(1, 40)",
        );
        assert_eq!(records.len(), 40);
        let ids: Vec<Vec<u8>> = records
            .iter()
            .map(|record| record.header("event-id").expect("a header").as_bytes().to_vec())
            .collect();
        let answers = foreign::kafkajs_partitions(&ids, 7);
        let answers = if partitioner == "murmur2" { answers.default } else { answers.legacy };
        for (record, partition) in records.iter().zip(answers) {
            assert_eq!((record.key.as_deref(), record.partition), (None, partition));
        }
    }
}

#[test]
fn topics_are_made_of_columns_and_of_the_tables_name() {
    let server = Server::start();
    let columns = "(id uuid, aggregate_id text, event_type text, payload jsonb, aggregate_type \
                   text, tenant text)";
    let scene = Scene::new(
        &server,
        &format!(
            "CREATE SCHEMA sales; CREATE TABLE sales.one {columns}; CREATE TABLE two {columns}"
        ),
        &[
            "table = \"sales.one\"\ntopic = \"TOPIC.{schema}.{table}.{aggregate_type}\"",
            "table = \"public.two\"\ntopic = \"TOPIC.{column:tenant}.{type}.{domain}\"",
        ],
    );
    scene.publish(&format!(
        "INSERT INTO sales.one VALUES ('{ID}', 'a', 'b.c', '{{}}', 'order', 'acme'); \
         INSERT INTO two VALUES ('{ID}', 'a', 'b.c', '{{}}', 'order', 'acme')"
    ));
    for name in ["sales.one.order", "acme.b.c.b"] {
        let topic = format!("{}.{name}", scene.topic);
        assert_eq!(Broker::shared().read_committed(&topic).len(), 1, "{topic}");
    }
    let row = "INSERT INTO two VALUES (gen_random_uuid(), 'a', 'b.c', '{}', 'order', 'a b')";
    scene.refuse(row, "event_unmappable", &["{column:tenant}", "has a character other than"]);
}

#[test]
fn routes_take_events_to_topics_of_their_own() {
    let server = Server::start();
    let scene = Scene::of_table(&server, BARE_MINIMUM, "");
    let routes = format!(
        "[[route]]\ntype = \"order.*\"\ntopic = \"{0}.orders\"\n[[route]]\ntype = \
         \"*.placed\"\ntopic = \"{0}.{{domain}}\"\n[[outbox]]\n",
        scene.topic
    );
    let scene = Scene { settings: scene.settings.replaced("[[outbox]]\n", &routes), ..scene };
    let records = scene.records(
        "INSERT INTO outbox_events SELECT gen_random_uuid(), 'a', type, '{}' FROM (VALUES \
         ('order.placed'), ('invoice.placed'), ('invoice.paid')) row (type)",
    );
    let types = |records: &[Record]| -> Vec<(String, Option<String>)> {
        let found = data_by_type(records).into_iter().map(|(name, _)| name);
        let sequences = records.iter().map(|record| record.header("pg-seq").map(str::to_owned));
        found.zip(sequences).collect()
    };
    let one = |name: &str, sequence: &str| [(name.to_owned(), Some(sequence.to_owned()))];
    assert_eq!(types(&records), one("invoice.paid", "2"));
    for (topic, name, sequence) in
        [("orders", "order.placed", "0"), ("invoice", "invoice.placed", "1")]
    {
        let records = Broker::shared().read_committed(&format!("{}.{topic}", scene.topic));
        assert_eq!(types(&records), one(name, sequence));
    }
    let row = "INSERT INTO outbox_events VALUES (gen_random_uuid(), 'a', 'a b.placed', '1')";
    scene.refuse(row, "event_unmappable", &["{domain}", "has a character other than"]);
}

fn context(content: &str) -> String {
    format!("SELECT pg_logical_emit_message(true, 'tailwater.context', '{content}');")
}

#[test]
fn a_context_holds_for_later_events_of_its_transaction() {
    let server = Server::start();
    let table = "CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload \
                 jsonb, correlation_id text, causation_id text, traceparent text); CREATE TABLE \
                 whole (id uuid, aggregate_id text, event_type text, payload jsonb)";
    let sections =
        ["table = \"public.outbox_events\"", "table = \"public.whole\"\npayload = \"envelope\""];
    let scene = Scene::new(&server, table, &sections);
    let row = |name: &str, columns: &str| {
        format!(
            "INSERT INTO outbox_events VALUES (gen_random_uuid(), 'a', '{name}', '1', {columns});"
        )
    };
    let full =
        context("{\"correlationId\": \"c\", \"causationId\": \"d\", \"traceparent\": \"t\"}");
    let sql = [
        "BEGIN;".to_owned(),
        row("t.1", "NULL, NULL, NULL"),
        full.clone(),
        row("t.2", "NULL, NULL, NULL"),
        row("t.3", "'mine', 'my cause', 'my trace'"),
        "INSERT INTO whole VALUES (gen_random_uuid(), 'a', 't.4', '{\"data\": 1}'), \
         (gen_random_uuid(), 'a', 't.5', '{\"data\": 1, \"correlationId\": \"mine\"}');"
            .to_owned(),
        format!("SAVEPOINT s; {} ROLLBACK TO s;", context("{\"correlationId\": \"gone\"}")),
        row("t.6", "NULL, NULL, NULL"),
        context("{\"correlationId\": \"e\"}"),
        row("t.7", "NULL, NULL, NULL"),
        "COMMIT;".to_owned(),
        row("t.8", "NULL, NULL, NULL"),
    ];
    let records = scene.records(&sql.concat());
    let found: Vec<_> = records
        .iter()
        .map(|record| {
            let event = record.json();
            event_schema().validate(&event).expect("an event of the schema");
            let own =
                |value: &Value| if *value == event["id"] { "own".into() } else { value.clone() };
            assert_eq!(record.header("correlation-id"), event["correlationId"].as_str());
            let trace = record.header("traceparent").unwrap_or("-").to_owned();
            (own(&event["correlationId"]), event["causationId"].clone(), trace)
        })
        .collect();
    let cause = || json!("d");
    assert_eq!(
        found,
        [
            (json!("own"), Value::Null, "-".to_owned()),
            (json!("c"), cause(), "t".to_owned()),
            (json!("mine"), json!("my cause"), "my trace".to_owned()),
            (json!("c"), cause(), "t".to_owned()),
            (json!("mine"), cause(), "t".to_owned()),
            (json!("c"), cause(), "t".to_owned()),
            (json!("e"), Value::Null, "-".to_owned()),
            (json!("own"), Value::Null, "-".to_owned()),
        ]
    );
    let malformed = format!(
        "BEGIN; {} {} COMMIT",
        context("{\"traceparent\": 1}"),
        row("x", "NULL, NULL, NULL")
    );
    let words = [
        "prefix \"tailwater.context\" at ",
        "field \"traceparent\" is not a string",
        "committed at",
    ];
    scene.refuse(&malformed, "event_unmappable", &words);
}

#[test]
fn what_a_row_says_in_its_headers_wins_over_its_context() {
    let server = Server::start();
    let table = "CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload \
                 jsonb, headers jsonb)";
    let section = "table = \"public.outbox_events\"\npayload = \"bare\"";
    let scene = Scene::new(&server, table, &[section]);
    let row = |headers: &str| {
        format!("INSERT INTO outbox_events VALUES (gen_random_uuid(), 'a', 't', '1', {headers});")
    };
    let sql = [
        "BEGIN;".to_owned(),
        context("{\"causationId\": \"d\", \"traceparent\": \"t\"}"),
        row("'{\"traceparent\": \"mine\"}'"),
        row("'{\"causation-id\": \"mine\"}'"),
        row("NULL"),
        "COMMIT;".to_owned(),
    ];
    let said: Vec<_> = scene
        .records(&sql.concat())
        .iter()
        .map(|record| {
            let header = |name| record.header(name).unwrap_or("-").to_owned();
            (header("traceparent"), header("causation-id"))
        })
        .collect();
    let pair = |trace: &str, cause: &str| (trace.to_owned(), cause.to_owned());
    assert_eq!(said, [pair("mine", "d"), pair("t", "mine"), pair("t", "d")]);
}

fn message(content: &str) -> String {
    format!("SELECT pg_logical_emit_message(true, 'outbox', '{content}');")
}

/// A pipeline without a table: messages of prefix `outbox`.
fn messages_alone(server: &Server) -> Scene {
    let scene = Scene::of_table(server, "SELECT 1", "");
    let outbox =
        format!("[[outbox]]\ntopic = \"{}\"\ntable = \"public.outbox_events\"\n", scene.topic);
    let messages = format!("[[message]]\nprefix = \"outbox\"\ntopic = \"{}\"\n", scene.topic);
    Scene { settings: scene.settings.replaced(&outbox, &messages), ..scene }
}

#[test]
fn messages_are_events_without_any_table() {
    let server = Server::start();
    let scene = messages_alone(&server);
    let whole = format!(
        "{{\"occurredAt\": \"2026-03-01T13:00:00+01:00\", \"id\": \"{ID}\", \"type\": \"order.placed\", \
         \"version\": \"2.0\", \"source\": \"shop\", \"correlationId\": \"c\", \"causationId\": \"d\", \
         \"data\": {{\"n\": 1.10}}, \"tenant\": \"x\", \"aggregateId\": \"order-7\"}}"
    );
    let sql = [
        "BEGIN;".to_owned(),
        message(
            "{\"aggregateId\": \"order-7\", \"type\": \"order.placed\", \"data\": {\"n\": 1.10}, \"mine\": [1 , 2]}",
        ),
        message(&whole),
        "COMMIT; BEGIN;".to_owned(),
        context("{\"correlationId\": \"request-7\"}"),
        message("{\"type\": \"order.paid\", \"data\": null, \"id\": null, \"aggregateId\": 7}"),
        format!("SAVEPOINT s; {} ROLLBACK TO s;", message("{\"type\": \"gone\", \"data\": 1}")),
        "SELECT pg_logical_emit_message(true, 'other', 'no json');".to_owned(),
        message("{\"type\": \"order.paid\", \"data\": 2}"),
        "COMMIT;".to_owned(),
    ];
    let records = scene.records(&sql.concat());
    let of = |data: &Value| {
        let found = records.iter().find(|record| record.json()["data"] == *data);
        found.unwrap_or_else(|| panic!("{data}: {records:?}"))
    };
    assert_eq!(records.len(), 4, "{records:?}");
    for record in &records {
        event_schema().validate(&record.json()).expect("an event of the schema");
    }
    let keys =
        |record: &Record| record.key.clone().map(|key| String::from_utf8(key).expect("text"));
    let value =
        |record: &Record| String::from_utf8(record.value.clone().expect("a value")).expect("UTF-8");
    let placed: Vec<_> = records
        .iter()
        .filter(|record| record.header("event-type") == Some("order.placed"))
        .collect();
    let [first, second] = placed.as_slice() else { panic!("{placed:?}") };
    let kept = "{\"aggregateId\": \"order-7\", \"type\": \"order.placed\", \"data\": {\"n\": 1.10}, \
                \"mine\": [1 , 2],\"id\":\"";
    assert!(value(first).starts_with(kept), "{}", value(first));
    assert_eq!((value(second), second.header("event-id")), (whole, Some(ID)));
    assert_eq!(
        (keys(first), keys(second)),
        (Some("order-7".to_owned()), Some("order-7".to_owned()))
    );
    let (seventh, keyless) = (of(&Value::Null), of(&json!(2)));
    assert_eq!((keys(seventh), keys(keyless)), (Some("7".to_owned()), None));
    assert_eq!(keyless.header("correlation-id"), Some("request-7"));
    assert_eq!((seventh.header("pg-seq"), keyless.header("pg-seq")), (Some("0"), Some("1")));
    let ids: std::collections::BTreeSet<_> =
        records.iter().map(|record| record.header("event-id").expect("a header")).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(seventh.header("event-id").map(|id| id.as_bytes()[14]), Some(b'8'));
    assert_eq!(
        scene.session.value("SELECT count(*) FROM pg_publication_tables").as_deref(),
        Some("0")
    );
}

#[test]
fn a_message_outside_of_transactions_is_warned_of_and_not_published() {
    let server = Server::start();
    let scene = messages_alone(&server);
    init(&scene.settings);
    let daemon = publishing(&scene.settings);
    let content = "{\"type\": \"order.placed\", \"data\": 1}";
    scene.session.run(&format!(
        "SELECT pg_logical_emit_message(false, 'outbox', '{content}'); {}",
        message(&content.replace('1', "2"))
    ));
    wait_until_published(&scene.session, &scene.topic);
    wait_until("a warning", PATIENCE, || {
        daemon.stderr().contains("a non-transactional message is not published")
    });
    stop(daemon);
    let records = Broker::shared().read_committed(&scene.topic);
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(record.json()["data"], 2);
}

/// The server does not convert a message's content, as it does with rows.
#[test]
fn messages_of_a_database_in_another_encoding_are_refused() {
    let server = Server::start();
    let scene = messages_alone(&server);
    let sql = "CREATE DATABASE latin ENCODING LATIN1 LOCALE \"C\" TEMPLATE template0";
    server.session("postgres").run(sql);
    let settings = scene.settings.replaced(&server.url(&scene.topic), &server.url("latin"));
    let ended = run(&["run"], &settings);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.is_code("settings") && ended.stderr.contains("LATIN1"), "{}", ended.stderr);
}

#[test]
fn a_message_that_is_no_event_stops_with_its_prefix_and_field() {
    let server = Server::start();
    for (content, words) in [
        ("no json", "its content is not valid JSON"),
        ("[1]", "its content is not a JSON object"),
        ("{\"type\": \"a.b\"}", "its field \"data\" is missing"),
        ("{\"data\": 1}", "its field \"type\" is missing"),
        ("{\"type\": \"\", \"data\": 1}", "its field \"type\" is empty"),
        ("{\"type\": \"a.b\", \"data\": 1, \"id\": \"42\"}", "its field \"id\" is not a UUID"),
        ("{\"type\": \"a.b\", \"data\": 1, \"aggregateId\": [1]}", "\"aggregateId\" is neither"),
    ] {
        let scene = messages_alone(&server);
        init(&scene.settings);
        let words = ["the message of prefix \"outbox\" at ", "committed at", words];
        scene.refuse(&message(content), "event_unmappable", &words);
    }
}

/// One large transaction, published in many parts, between kills. Its context stands in the first.
#[test]
fn messages_come_exactly_once_through_kills_inside_a_transaction() {
    const MESSAGES: u64 = 30_000;
    let server = Server::start();
    let scene = messages_alone(&server);
    let settings = scene.settings.with("[kafka]", "transaction_bytes = \"1MiB\"");
    init(&settings);
    scene.session.run(&format!(
        "BEGIN; {} SELECT count(pg_logical_emit_message(true, 'outbox', jsonb_build_object('type', \
         'a.b', 'aggregateId', n % 7, 'data', n, 'filler', repeat('x', 2000))::text)) FROM \
         generate_series(0, {MESSAGES} - 1) n; COMMIT",
        context("{\"correlationId\": \"whole\"}")
    ));
    let brokers = Broker::shared().brokers();
    let published = || high_watermarks(&brokers, &scene.topic).iter().sum::<i64>();
    for _ in 0..2 {
        let before = published();
        let daemon = publishing(&settings);
        wait_until("more of the transaction", PATIENCE, || published() > before);
        daemon.kill();
    }
    assert!(published() < i64::try_from(MESSAGES).expect("few"), "no kill came in the middle");
    let daemon = publishing(&settings);
    wait_until_published(&scene.session, &scene.topic);
    stop(daemon);
    let records = Broker::shared().read_committed(&scene.topic);
    let mut found: Vec<_> = records
        .iter()
        .map(|record| {
            assert_eq!(record.header("correlation-id"), Some("whole"));
            let data = record.json()["data"].as_u64().expect("a number");
            assert_eq!(record.header("pg-seq"), Some(data.to_string().as_str()));
            data
        })
        .collect();
    found.sort_unstable();
    assert!(found.iter().copied().eq(0..MESSAGES), "{} events", found.len());
}

#[test]
fn messages_and_rows_share_a_transaction_and_its_order() {
    let server = Server::start();
    let scene = Scene::of_table(&server, BARE_MINIMUM, "");
    let section =
        format!("[[message]]\nprefix = \"outbox\"\ntopic = \"{}\"\n[[outbox]]\n", scene.topic);
    let scene = Scene { settings: scene.settings.replaced("[[outbox]]\n", &section), ..scene };
    let row = |data: u32| {
        format!("INSERT INTO outbox_events VALUES (gen_random_uuid(), 'a', 'b.c', '{data}');")
    };
    let emitted = |data: u32| {
        message(&format!("{{\"aggregateId\": \"a\", \"type\": \"b.c\", \"data\": {data}}}"))
    };
    let records =
        scene.records(&["BEGIN;", &row(1), &emitted(2), &row(3), &emitted(4), "COMMIT"].concat());
    let found: Vec<_> = records
        .iter()
        .map(|record| (record.json()["data"].as_u64(), record.header("pg-seq").map(str::to_owned)))
        .collect();
    let expected = [1, 2, 3, 4].map(|data: u64| (Some(data), Some((data - 1).to_string())));
    assert_eq!(found, expected);
}

const DEBEZIUM: &str = "(id uuid PRIMARY KEY, aggregatetype varchar(255) NOT NULL, aggregateid \
                        varchar(255) NOT NULL, type varchar(255) NOT NULL, payload jsonb)";

#[test]
fn the_layout_debezium_gives_what_the_event_router_gave() {
    let server = Server::start();
    // The layout's topic has no name of the scene in it, so the aggregate's type has.
    let outbox = "topic = \"TOPIC\"\nlayout = \"debezium\"";
    let scene = Scene::of_table(&server, &format!("CREATE TABLE outbox_events {DEBEZIUM}"), outbox);
    let line = format!("topic = \"{}\"\n", scene.topic);
    let scene = Scene { settings: scene.settings.replaced(&line, ""), ..scene };
    scene.publish(&format!(
        "INSERT INTO outbox_events VALUES ('{ID}', '{}', 'order-7', 'OrderPlaced', \
         '{{\"n\": 1.0}}'), (gen_random_uuid(), '{}', 'order-7', 'OrderGone', NULL)",
        scene.topic, scene.topic
    ));
    let records = Broker::shared().read_committed(&format!("outbox.event.{}", scene.topic));
    let [placed, gone] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(placed.value.as_deref(), Some(&b"{\"n\": 1.0}"[..]));
    assert_eq!(
        (placed.key.as_deref(), gone.key.as_deref()),
        (Some(&b"order-7"[..]), placed.key.as_deref())
    );
    assert_eq!((placed.header("id"), placed.header("event-id")), (Some(ID), Some(ID)));
    assert_eq!(placed.header("event-type"), Some("OrderPlaced"));
    assert_eq!(gone.value, None);
    let (renamed, what) = (DEBEZIUM.replace(" type ", " event "), "\"type\" does not exist");
    let scene = Scene::of_table(&server, &format!("CREATE TABLE outbox_events {renamed}"), outbox);
    scene.refuse("SELECT 1", "column_missing", &[what, "columns.event_type"]);
}

#[test]
fn outboxes_of_different_layouts_share_a_pipeline() {
    let server = Server::start();
    let scene = Scene::new(
        &server,
        &format!(
            "CREATE TABLE routed {}; CREATE TABLE wrapped (id uuid, aggregate_id text, event_type \
             text, payload jsonb); CREATE TABLE whole (LIKE wrapped)",
            DEBEZIUM.replace(" aggregateid ", " key ")
        ),
        &[
            "table = \"public.routed\"\nlayout = \"debezium\"\ncolumns = { aggregate_id = \"key\" }",
            "table = \"public.wrapped\"",
            "table = \"public.whole\"\npayload = \"envelope\"",
        ],
    );
    let records = scene.records(&format!(
        "BEGIN; INSERT INTO routed VALUES (gen_random_uuid(), 'order', 'a', 'of.routed', '1'); \
         INSERT INTO wrapped VALUES (gen_random_uuid(), 'a', 'of.wrapped', '2'); \
         INSERT INTO whole VALUES ('{ID}', 'a', 'of.whole', '{{\"data\": 3, \"id\": \"{ID}\"}}'); \
         COMMIT"
    ));
    // One key, so one partition and the transaction's order.
    let found: Vec<_> = records
        .iter()
        .map(|record| (record.header("event-type"), record.header("pg-seq")))
        .collect();
    assert_eq!(
        found,
        [
            (Some("of.routed"), Some("0")),
            (Some("of.wrapped"), Some("1")),
            (Some("of.whole"), Some("2")),
        ]
    );
    assert_eq!(records[0].value.as_deref(), Some(&b"1"[..]));
    assert_eq!(data_by_type(&records[1..]).len(), 2);
    assert_eq!((records[1].header("id"), records[2].json()["data"].as_i64()), (None, Some(3)));
}

#[test]
fn columns_and_tables_may_have_any_name() {
    let server = Server::start();
    let scene = Scene::new(
        &server,
        "CREATE TABLE \"Ausgänge \"\"neu\"\"\" (\"Kennung\" uuid, \"für\" text, \"Art des \
         Ereignisses\" text, \"körper\" jsonb, \"wann?\" timestamptz, \"v\" int)",
        &[
            "table = 'public.Ausgänge \"neu\"'\ncolumns = { id = \"Kennung\", aggregate_id = \"für\", \
           event_type = \"Art des Ereignisses\", payload = \"körper\", created_at = \"wann?\", \
           version = \"v\" }",
        ],
    );
    let record = scene.record(&format!(
        "INSERT INTO \"Ausgänge \"\"neu\"\"\" VALUES ('{ID}', 'Jürgen', 'b.c', '1', \
         '2026-03-01 12:00:00Z', 2)"
    ));
    assert_eq!(record.key.as_deref(), Some("Jürgen".as_bytes()));
    let event = record.json();
    assert_eq!((&event["id"], &event["version"]), (&json!(ID), &json!("2")));
    assert_eq!(event["occurredAt"], json!("2026-03-01T12:00:00.000000Z"));
}

#[test]
fn rows_of_a_partitioned_outbox_come_under_its_root() {
    let server = Server::start();
    let scene = Scene::of_table(
        &server,
        "CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, payload jsonb) \
         PARTITION BY HASH (aggregate_id); \
         CREATE TABLE leaf_0 PARTITION OF outbox_events FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
         CREATE TABLE leaf_1 (payload jsonb, gone int, event_type text, aggregate_id text, id uuid); \
         ALTER TABLE leaf_1 DROP COLUMN gone; \
         ALTER TABLE outbox_events ATTACH PARTITION leaf_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "",
    );
    let records = scene.records(
        "INSERT INTO outbox_events SELECT gen_random_uuid(), 'a-' || n, 'by.root', to_jsonb(n) \
         FROM generate_series(1, 20) n; \
         INSERT INTO leaf_1 (id, aggregate_id, event_type, payload) \
         SELECT gen_random_uuid(), aggregate_id, 'by.leaf', payload FROM leaf_1",
    );
    let by_leaf = scene.session.value("SELECT count(*) / 2 FROM leaf_1").expect("a count");
    let by_leaf: usize = by_leaf.parse().expect("a number");
    assert!(by_leaf > 0);
    let events = data_by_type(&records);
    assert_eq!(events.iter().filter(|(name, _)| name == "by.root").count(), 20);
    assert_eq!(events.iter().filter(|(name, _)| name == "by.leaf").count(), by_leaf);
    for record in &records {
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("UTF-8");
        assert_eq!(key, format!("a-{}", record.json()["data"]));
    }
}

#[test]
fn columns_may_be_dropped_and_added_while_the_daemon_runs() {
    let server = Server::start();
    let scene = Scene::of_table(
        &server,
        "CREATE TABLE outbox_events (before int, id uuid, aggregate_id text, between int, \
         event_type text, payload jsonb); ALTER TABLE outbox_events DROP COLUMN between",
        "",
    );
    init(&scene.settings);
    let daemon = publishing(&scene.settings);
    let row = "INSERT INTO outbox_events (id, aggregate_id, event_type, payload";
    scene.session.run(&format!(
        "{row}) VALUES (gen_random_uuid(), 'a', 'b.1', '1'); \
         BEGIN; ALTER TABLE outbox_events DROP COLUMN before, ADD correlation_id text; \
         {row}, correlation_id) VALUES (gen_random_uuid(), 'a', 'b.2', '2', 'order-7'); COMMIT; \
         ALTER TABLE outbox_events ADD more int DEFAULT 7; \
         {row}, correlation_id) VALUES (gen_random_uuid(), 'a', 'b.3', '3', 'order-8')"
    ));
    wait_until_published(&scene.session, &scene.topic);
    stop(daemon);
    let records = Broker::shared().read_committed(&scene.topic);
    let data = data_by_type(&records);
    assert_eq!(data.iter().map(|(_, data)| data.clone()).collect::<Vec<_>>(), [1, 2, 3]);
    let mut correlations: Vec<_> =
        records.iter().filter_map(|record| record.header("correlation-id")).collect();
    correlations.sort_unstable();
    assert!(correlations.ends_with(&["order-7", "order-8"]), "{correlations:?}");
}

const GENERATED: &str = "CREATE TABLE outbox_events (id uuid, aggregate_id text, raw text, \
     event_type text GENERATED ALWAYS AS (raw || '.placed') STORED, payload jsonb)";

/// The SQL of the hint, up to the end of its sentence.
fn mend(ended: &Ended) -> String {
    let hint = ended.stderr.trim_end().lines().last().unwrap_or_default();
    let start = ["BEGIN;", "ALTER "].iter().filter_map(|word| hint.find(word)).min();
    let sql = &hint[start.unwrap_or_else(|| panic!("no SQL: {hint}"))..];
    sql.split(". ").next().and_then(|sql| sql.split(", and let").next()).expect("SQL").to_owned()
}

#[test]
fn a_generated_column_is_refused_at_start_where_no_change_carries_it() {
    let server = Server::start_version(15);
    let scene = Scene::of_table(&server, GENERATED, "");
    let words = ["\"event_type\" is not delivered by publication \"tailwater\""];
    let ended = scene.refuse("SELECT 1", "column_missing", &words);
    assert!(mend(&ended).ends_with("DROP EXPRESSION"), "{}", ended.stderr);
    scene.session.run(&mend(&ended));
    let row = format!("INSERT INTO outbox_events VALUES ('{ID}', 'a', 'x', 'order.placed', '1')");
    assert_eq!(scene.record(&row).header("event-type"), Some("order.placed"));
}

#[test]
fn a_generated_column_is_taken_where_the_publication_delivers_it() {
    let server = Server::start_version(18);
    let row = format!("INSERT INTO outbox_events (id, raw, payload) VALUES ('{ID}', 'order', '1')");
    let scene = Scene::of_table(&server, GENERATED, "");
    let ended = scene.refuse("SELECT 1", "column_missing", &["\"event_type\" is not delivered"]);
    scene.session.run(&mend(&ended));
    assert_eq!(scene.record(&row).header("event-type"), Some("order.placed"));
    // A virtual one has to become a stored one first.
    let scene = Scene::of_table(&server, &GENERATED.replace("STORED", "VIRTUAL"), "");
    for _ in 0..2 {
        let ended =
            scene.refuse("SELECT 1", "column_missing", &["\"event_type\" is not delivered"]);
        scene.session.run(&mend(&ended));
    }
    assert_eq!(scene.record(&row).header("event-type"), Some("order.placed"));
}

#[test]
fn a_column_that_the_publication_leaves_out_is_refused_or_warned_of() {
    let server = Server::start();
    let table = "CREATE TABLE outbox_events (id uuid, aggregate_id text, event_type text, \
                 payload jsonb, correlation_id text); CREATE PUBLICATION tailwater FOR TABLE \
                 outbox_events (id, aggregate_id, event_type) WHERE (event_type <> 'b.hidden') \
                 WITH (publish = 'insert')";
    let scene = Scene::of_table(&server, table, "");
    let words = ["\"payload\" is not delivered by publication \"tailwater\""];
    let ended = scene.refuse("SELECT 1", "column_missing", &words);
    scene.session.run(&mend(&ended));
    init(&scene.settings);
    scene.session.run(&format!(
        "INSERT INTO outbox_events VALUES (gen_random_uuid(), 'a', 'b.hidden', '1', 'order-7'), \
         ('{ID}', 'a', 'b.c', '2', 'order-7')"
    ));
    let daemon = publishing(&scene.settings);
    wait_until_published(&scene.session, &scene.topic);
    wait_until("a warning", PATIENCE, || {
        let log = daemon.stderr();
        log.contains("does not deliver a column") && log.contains("correlation_id")
    });
    stop(daemon);
    let records = Broker::shared().read_committed(&scene.topic);
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(
        (record.header("event-type"), record.header("correlation-id")),
        (Some("b.c"), Some(ID))
    );
}
