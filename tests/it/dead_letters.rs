//! Events that cannot be published, in the middle of transactions of good ones: dead letters in
//! their place, or a stop behind which everything earlier is published.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::support::{
    PATIENCE,
    daemon::Daemon,
    kafka::{Broker, Record},
    let_pass,
    postgres::{Server, Session},
    scene::{init, publishing, stop, wait_until_published},
    settings::SettingsFile,
    wait_until,
};

/// Nothing keeps an application from writing anything into such a table.
const TABLE: &str = "CREATE TABLE outbox_events (id text, aggregate_id text, event_type text,
    payload text, created_at timestamptz)";

const DELIVERIES: [&str; 2] = ["exactly-once", "at-least-once"];

const EVENTS: &str = "order.events";
const DEAD_LETTERS: &str = "order.events.dlq";

/// Each guarantee with what is found while mapping and with what is found while publishing, and
/// everything that is found while mapping once.
const HALTS: [(&str, Poison); 5] = [
    ("exactly-once", Poison::NullId),
    ("exactly-once", Poison::Contradiction),
    ("exactly-once", Poison::TooLarge),
    ("at-least-once", Poison::InvalidJson),
    ("at-least-once", Poison::TooLarge),
];

/// What is wrong with a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Poison {
    NullId,
    Contradiction,
    InvalidJson,
    TooLarge,
}

const POISONS: [Poison; 4] =
    [Poison::NullId, Poison::Contradiction, Poison::InvalidJson, Poison::TooLarge];

impl Poison {
    fn code(self) -> &'static str {
        match self {
            Self::NullId | Self::Contradiction | Self::InvalidJson => "event_unmappable",
            Self::TooLarge => "event_too_large",
        }
    }

    fn stage(self) -> &'static str {
        match self {
            Self::NullId | Self::Contradiction | Self::InvalidJson => "map",
            Self::TooLarge => "publish",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::NullId => "column \"id\" is NULL",
            Self::Contradiction => "the payload's field \"id\" contradicts column \"id\"",
            Self::InvalidJson => "column \"payload\" is not valid JSON",
            Self::TooLarge => "max.message.bytes",
        }
    }

    /// A row of that kind. Its aggregate says which one it is.
    fn insert(self, aggregate: &str) -> String {
        let id = uuid(aggregate);
        let (column, payload) = match self {
            Self::NullId => ("NULL".to_owned(), envelope(&id, "''")),
            Self::Contradiction => (format!("'{id}'"), envelope(&uuid("another"), "''")),
            Self::InvalidJson => (format!("'{id}'"), "'{\"data\": '".to_owned()),
            Self::TooLarge => (format!("'{id}'"), envelope(&id, "repeat('x', 5000000)")),
        };
        row(&column, aggregate, &payload)
    }
}

/// The same one for the same name.
fn uuid(name: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, name).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    let bytes = (half(0) << 64 | half(1)).to_be_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

fn envelope(id: &str, filler: &str) -> String {
    format!("'{{\"id\": \"{id}\", \"data\": {{\"note\": \"' || {filler} || '\"}}}}'")
}

fn row(id: &str, aggregate: &str, payload: &str) -> String {
    format!(
        "INSERT INTO outbox_events VALUES ({id}, '{aggregate}', 'order.placed', {payload}, now());"
    )
}

fn good(aggregate: &str) -> String {
    let id = uuid(aggregate);
    row(&format!("'{id}'"), aggregate, &envelope(&id, "''"))
}

struct Shop {
    server: Server,
    broker: Broker,
    session: Session,
    settings: SettingsFile,
}

fn shop(delivery: &str, on_error: &str) -> Shop {
    let (server, broker) = (Server::start(), Broker::start());
    let session = server.create_database("shop");
    session.run(TABLE);
    let settings = SettingsFile::new(&server, &broker, "shop")
        .replaced("source =", &format!("on_error = \"{on_error}\"\nsource ="))
        .with("[[outbox]]", "payload = \"envelope\"")
        .with("[kafka]", &format!("delivery = \"{delivery}\""));
    init(&settings);
    Shop { server, broker, session, settings }
}

/// The aggregates of records by the topic that they are in, and by transaction the places that they
/// have there.
#[derive(Default, Debug)]
struct Found {
    records: BTreeMap<String, Vec<Record>>,
    sequences: BTreeMap<String, BTreeSet<u64>>,
}

fn found(broker: &Broker) -> Found {
    let mut found = Found::default();
    for topic in [EVENTS, DEAD_LETTERS] {
        if !broker.topics().iter().any(|known| known == topic) {
            continue;
        }
        for record in broker.read_committed(topic) {
            let xid = record.header("pg-xid").expect("pg-xid").to_owned();
            let sequence = record.header("pg-seq").expect("pg-seq").parse().expect("a number");
            found.sequences.entry(xid).or_default().insert(sequence);
            let key = String::from_utf8(record.key.clone().expect("a key")).expect("text");
            found.records.entry(key).or_default().push(record);
        }
    }
    found
}

#[test]
fn dead_letters_lie_in_their_place_once_whatever_is_killed() {
    for delivery in DELIVERIES {
        let shop = shop(delivery, "dead-letter");
        let mut daemon = publishing(&shop.settings);
        let (mut poisoned, mut goods) = (BTreeMap::new(), Vec::new());
        for round in 0..6 {
            for (number, poison) in POISONS.into_iter().enumerate() {
                let name = |what: &str| format!("{what}-{round}-{number}");
                let (before, bad, after) = (name("before"), name("bad"), name("after"));
                let rows = [good(&before), poison.insert(&bad), good(&after)].concat();
                shop.session.run(&format!("BEGIN; {rows} COMMIT"));
                poisoned.insert(bad, poison);
                goods.extend([before, after]);
            }
            let_pass(Duration::from_millis(fastrand::u64(0..400)));
            // Not asked for its memory: each record of 5 MB is there four times over on its way.
            drop(daemon);
            daemon = Daemon::start(&shop.settings);
        }
        wait_until_published(&shop.session, "tailwater");
        daemon.signal(libc::SIGTERM);
        assert_eq!(daemon.wait(PATIENCE).code, Some(0));
        let Found { mut records, sequences } = found(&shop.broker);
        for (xid, sequences) in sequences {
            assert!(sequences.into_iter().eq(0..3), "{delivery}: transaction {xid} has gaps");
        }
        for name in goods {
            let found = records.remove(&name).unwrap_or_default();
            assert!(found.iter().all(|record| record.topic == EVENTS), "{delivery}: {name}");
            assert_count(delivery, &name, &found);
        }
        for (name, poison) in poisoned {
            let found = records.remove(&name).unwrap_or_default();
            assert_count(delivery, &name, &found);
            found.iter().for_each(|record| assert_dead_letter(record, poison));
        }
        assert!(records.is_empty(), "{delivery}: {records:?}");
    }
}

fn assert_count(delivery: &str, name: &str, found: &[Record]) {
    let is_right = match delivery {
        "exactly-once" => found.len() == 1,
        _ => !found.is_empty(),
    };
    assert!(is_right, "{delivery}: {name} is there {} times", found.len());
}

fn assert_dead_letter(record: &Record, poison: Poison) {
    assert_eq!(record.topic, DEAD_LETTERS, "{poison:?}");
    assert_eq!(record.header("failure-stage"), Some(poison.stage()), "{poison:?}");
    let reason = record.header("failure-reason").expect("a reason");
    assert!(reason.contains(poison.reason()), "{poison:?}: {reason}");
    assert_eq!(record.header("original-topic"), Some(EVENTS), "{poison:?}");
    assert_eq!(record.header("pg-seq"), Some("1"), "{poison:?}");
    assert!(record.header("pg-lsn").is_some(), "{poison:?}");
    let value = record.json();
    match poison {
        Poison::TooLarge => {
            assert_eq!(value["data"]["note"].as_str().map(str::len), Some(5_000_000));
            assert!(record.header("event-id").is_some(), "it is an event");
        }
        Poison::NullId => {
            assert!(value["id"].is_null() && value["event_type"] == "order.placed", "{value}");
            assert_eq!(record.header("original-table"), Some("public.outbox_events"));
        }
        Poison::Contradiction | Poison::InvalidJson => {
            let payload = value["payload"].as_str().expect("the column's text");
            assert!(payload.starts_with('{') && value["created_at"].is_string(), "{value}");
        }
    }
}

#[test]
fn a_halt_publishes_everything_earlier_and_nothing_of_the_transaction() {
    for (delivery, poison) in HALTS {
        let shop = shop(delivery, "halt");
        for number in 0..50 {
            shop.session.run(&good(&format!("early-{number}")));
        }
        let rows = [good("before"), poison.insert("bad"), good("after")].concat();
        shop.session.run(&format!("BEGIN; {rows} COMMIT"));
        shop.session.run(&good("late"));
        // Asked twice, and killed in between at any moment.
        let daemon = Daemon::start(&shop.settings);
        let_pass(Duration::from_millis(fastrand::u64(0..1_500)));
        drop(daemon);
        for _ in 0..2 {
            let ended = Daemon::start(&shop.settings).wait(PATIENCE);
            assert_eq!(ended.code, Some(1), "{delivery}, {poison:?}: {}", ended.stderr);
            assert!(ended.is_code(poison.code()), "{delivery}, {poison:?}: {}", ended.stderr);
        }
        let Found { records, .. } = found(&shop.broker);
        // At least once knows no whole transactions: what stands before the event may be out,
        // and is not sent again.
        let may_be_out = |name: &str| delivery == "at-least-once" && name == "before";
        let early = records.keys().filter(|name| name.starts_with("early-")).count();
        assert_eq!(early, 50, "{delivery}, {poison:?}: {:?}", records.keys());
        for (name, found) in &records {
            let is_expected = name.starts_with("early-") || may_be_out(name);
            assert!(is_expected, "{delivery}, {poison:?}: {name}");
            assert_count(delivery, name, found);
        }
        // The way past it that the hint need not name: the other policy.
        let settings = shop.settings.replaced("\"halt\"", "\"dead-letter\"");
        let daemon = publishing(&settings);
        wait_until_published(&shop.session, "tailwater");
        stop(daemon);
        let Found { records, .. } = found(&shop.broker);
        assert_eq!(records.len(), 54, "{delivery}, {poison:?}: {:?}", records.keys());
        let bad = records.get("bad").expect("a dead letter");
        bad.iter().for_each(|record| assert_dead_letter(record, poison));
        drop(shop.server);
    }
}

#[test]
fn what_has_no_topic_lies_in_the_dead_letters_of_the_source() {
    let (server, broker) = (Server::start(), Broker::start());
    let session = server.create_database("shop");
    session.run(TABLE);
    let settings = SettingsFile::new(&server, &broker, "shop")
        .replaced("source =", "on_error = \"dead-letter\"\nsource =")
        .replaced("[[outbox]]", "[[message]]\nprefix = \"outbox\"\n\n[[outbox]]");
    init(&settings);
    let daemon = publishing(&settings);
    session.run(
        "BEGIN;
        INSERT INTO outbox_events VALUES ('a', 'order-1', NULL, '1', now());
        SELECT pg_logical_emit_message(true, 'outbox', 'no JSON');
        SELECT pg_logical_emit_message(true, 'outbox',
            '{\"type\": \"order.paid\", \"aggregateId\": 7}');
        SELECT pg_logical_emit_message(true, 'outbox', '\\xff'::bytea);
        COMMIT",
    );
    wait_until_published(&session, "tailwater");
    let letters = |topic: &str, count: usize| {
        wait_until(topic, PATIENCE, || broker.topics().iter().any(|known| known == topic));
        let letters = broker.read_committed(topic);
        assert_eq!(letters.len(), count, "{letters:?}");
        letters
    };
    let of_source = letters("order-service.dlq", 3);
    assert!(of_source.iter().all(|letter| letter.header("original-topic").is_none()));
    let by_sequence = |sequence: &str| {
        let is_it = |letter: &&Record| letter.header("pg-seq") == Some(sequence);
        of_source.iter().find(is_it).expect("a letter")
    };
    let row = by_sequence("0");
    assert_eq!(row.key.as_deref(), Some("order-1".as_bytes()));
    assert!(row.json()["event_type"].is_null());
    let message = by_sequence("1");
    assert_eq!(message.json()["content"], "no JSON");
    assert_eq!((message.header("original-prefix"), &message.key), (Some("outbox"), &None));
    assert_eq!(by_sequence("3").json()["content"]["hex"], "ff");
    // The type of a message without data can be read, and so its topic and key.
    let [known] = letters(DEAD_LETTERS, 1).try_into().expect("one");
    assert_eq!(known.header("original-topic"), Some(EVENTS));
    assert_eq!((known.key.as_deref(), known.header("pg-seq")), (Some("7".as_bytes()), Some("2")));
    stop(daemon);
}

/// A table that does not fit the settings is no matter of single events.
#[test]
fn a_column_that_is_gone_stops_under_either_policy() {
    let shop = shop("exactly-once", "dead-letter");
    let daemon = publishing(&shop.settings);
    shop.session.run("ALTER TABLE outbox_events RENAME COLUMN payload TO body");
    shop.session.run(&good("late"));
    let ended = daemon.wait(PATIENCE);
    assert!(ended.is_code("column_missing"), "{}", ended.stderr);
}

#[test]
fn a_dead_letter_that_fits_nowhere_stops() {
    let shop = shop("exactly-once", "dead-letter");
    shop.broker.create_topic(DEAD_LETTERS, 1, &[("max.message.bytes", "1000000")]);
    let daemon = publishing(&shop.settings);
    shop.session.run(&good("early"));
    shop.session.run(&Poison::TooLarge.insert("bad"));
    let ended = daemon.wait(PATIENCE);
    assert!(ended.is_code("dead_letter_too_large"), "{}", ended.stderr);
    assert!(ended.stderr.contains(DEAD_LETTERS), "{}", ended.stderr);
    let Found { records, .. } = found(&shop.broker);
    assert_eq!(records.into_keys().collect::<Vec<_>>(), ["early"]);
}
