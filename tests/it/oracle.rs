//! The oracle finds each fault where it is made on purpose: a judge that finds none proves nothing.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use sha2::{Digest, Sha256};
use tailwater::sink::kafka::Partitioner;

use crate::support::{
    kafka::Record,
    oracle::{Fault, Oracle, Value},
    producer_log::ProducerLog,
    truth::Committed,
};

const PARTITIONS: u32 = 3;

/// A transaction's events: aggregate, type, version.
type Transaction = &'static [(&'static str, &'static str, u32)];

const COMMITTED: [Transaction; 3] = [
    &[("order-1", "order.placed", 1), ("order-1", "order.paid", 2), ("order-2", "order.placed", 1)],
    &[("order-1", "invoice.issued", 3), ("order-2", "order.paid", 2)],
    &[("order-1", "order.shipped", 4)],
];

/// What was committed, and the records of a Tailwater without a fault.
fn exact() -> (HashMap<String, Committed>, Vec<Record>) {
    published(&COMMITTED, &[3, 5])
}

/// What was committed, and its records. Kafka transactions begin before those of `begins`.
fn published(
    transactions: &[Transaction],
    begins: &[usize],
) -> (HashMap<String, Committed>, Vec<Record>) {
    let (mut committed, mut records) = (HashMap::new(), Vec::new());
    let now = jiff::Timestamp::now().as_millisecond();
    let mut ends: HashMap<(String, i32), i64> = HashMap::new();
    let mut written: HashSet<(String, i32)> = HashSet::new();
    for (xid, events) in (700..).zip(transactions) {
        for (sequence, (aggregate, event_type, version)) in events.iter().enumerate() {
            if begins.contains(&records.len()) {
                // The markers of a transaction's end.
                for partition in written.drain() {
                    *ends.entry(partition).or_default() += 1;
                }
            }
            let id = format!("00000000-0000-4000-8000-{xid:06}{sequence:06}");
            let row = Committed {
                aggregate_id: aggregate.to_string(),
                event_type: event_type.to_string(),
                version: *version,
                xid,
                digest: Some(Sha256::digest(data(aggregate, *version)).into()),
            };
            let mut record = record(&id, &row, sequence);
            record.timestamp_ms = now + i64::from(xid) - 1_000;
            let partition = (record.topic.clone(), record.partition);
            let end = ends.entry(partition.clone()).or_default();
            record.offset = *end;
            *end += 1;
            written.insert(partition);
            records.push(record);
            committed.insert(id, row);
        }
    }
    (committed, records)
}

fn data(aggregate: &str, version: u32) -> String {
    json!({ "orderId": aggregate, "version": version }).to_string()
}

/// A row's record, at no place yet.
fn record(id: &str, row: &Committed, sequence: usize) -> Record {
    let Committed { aggregate_id, event_type, version, xid, .. } = row;
    let value = format!(
        "{{\"id\":\"{id}\",\"type\":\"{event_type}\",\"version\":\"1.0\",\"source\":\"s\",\
         \"correlationId\":\"{id}\",\"occurredAt\":\"2026-03-01T12:00:00.000000Z\",\
         \"data\":{}}}",
        data(aggregate_id, *version)
    );
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("schema-version", "1.0".to_owned()),
        ("event-id", id.to_owned()),
        ("event-type", event_type.clone()),
        ("correlation-id", id.to_owned()),
        ("pg-lsn", format!("0/{xid}")),
        ("pg-seq", sequence.to_string()),
        ("pg-xid", xid.to_string()),
    ];
    let (domain, _) = event_type.split_once('.').expect("a domain");
    Record {
        topic: format!("{domain}.events"),
        partition: Partitioner::Murmur2.partition(aggregate_id.as_bytes(), PARTITIONS),
        offset: 0,
        key: Some(aggregate_id.as_bytes().to_vec()),
        value: Some(value.into_bytes()),
        headers: headers.map(|(name, text)| (name.to_owned(), text.into_bytes())).to_vec(),
        timestamp_ms: 0,
    }
}

fn faults(committed: HashMap<String, Committed>, records: &[Record]) -> Vec<Fault> {
    let mut oracle = Oracle::of(committed, Value::Envelope, PARTITIONS);
    for record in records {
        oracle.take(record);
    }
    let verdict = oracle.verdict(&ProducerLog::of_one_producer(records));
    let all = [
        Fault::Lost,
        Fault::Doubled,
        Fault::Invented,
        Fault::OutOfOrder,
        Fault::Misplaced,
        Fault::Torn,
        Fault::Malformed,
    ];
    all.into_iter().filter(|fault| verdict.count(*fault) > 0).collect()
}

/// The faults that the oracle finds where `spoil` was at the records.
fn found(spoil: impl FnOnce(&mut Vec<Record>)) -> Vec<Fault> {
    let (committed, mut records) = exact();
    spoil(&mut records);
    faults(committed, &records)
}

fn set_header(record: &mut Record, name: &str, text: &str) {
    let header = record.headers.iter_mut().find(|(header, _)| header == name);
    header.expect("a header").1 = text.as_bytes().to_vec();
}

fn replace(record: &mut Record, from: &str, to: &str) {
    let value = String::from_utf8(record.value.take().expect("a value")).expect("UTF-8");
    assert!(value.contains(from), "{value}");
    record.value = Some(value.replace(from, to).into_bytes());
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let (committed, records) = exact();
    let mut oracle = Oracle::of(committed, Value::Envelope, PARTITIONS);
    records.iter().for_each(|record| oracle.take(record));
    oracle.verdict(&ProducerLog::of_one_producer(&records)).assert_exact();
}

#[test]
#[should_panic(expected = "Lost 1:")]
fn a_verdict_tells_how_many_faults_there_are() {
    let (committed, records) = exact();
    let mut oracle = Oracle::of(committed, Value::Envelope, PARTITIONS);
    records[..5].iter().for_each(|record| oracle.take(record));
    oracle.verdict(&ProducerLog::of_one_producer(&records)).assert_exact();
}

#[test]
fn lost_events_are_found() {
    assert_eq!(found(|records| _ = records.pop()), [Fault::Lost]);
    assert_eq!(found(Vec::clear), [Fault::Lost]);
    // Of a transaction with others, so that is torn too.
    assert_eq!(found(|records| _ = records.remove(3)), [Fault::Lost, Fault::Torn]);
}

#[test]
fn doubled_events_are_found() {
    let again = |records: &mut Vec<Record>| {
        let mut record = records[0].clone();
        record.offset = 100;
        records.push(record);
    };
    assert_eq!(found(again), [Fault::Doubled]);
}

#[test]
fn events_that_were_rolled_back_are_found() {
    let (mut committed, records) = exact();
    let last = records[5].header("event-id").expect("an id");
    committed.remove(last);
    assert_eq!(faults(committed, &records), [Fault::Invented]);
}

#[test]
fn events_out_of_order_are_found() {
    // Two of an aggregate in one transaction, by their versions and by their positions.
    let swapped = |records: &mut Vec<Record>| {
        records.swap(0, 1);
        records[0].offset = 0;
        records[1].offset = 1;
    };
    assert_eq!(found(swapped), [Fault::OutOfOrder]);
    let early = |records: &mut Vec<Record>| set_header(&mut records[5], "pg-lsn", "0/1");
    assert_eq!(found(early), [Fault::OutOfOrder]);
}

#[test]
fn misplaced_events_are_found() {
    let spoilt: [fn(&mut Record); 10] = [
        |record| record.topic = "invoice.events".to_owned(),
        |record| record.partition = (record.partition + 1) % 3,
        |record| record.key = None,
        |record| record.timestamp_ms += 1,
        |record| record.timestamp_ms = 0,
        |record| set_header(record, "event-type", "order.paid"),
        |record| set_header(record, "pg-xid", "1"),
        |record| set_header(record, "pg-seq", "x"),
        |record| set_header(record, "schema-version", "2.0"),
        |record| record.headers.clear(),
    ];
    for (index, spoil) in spoilt.into_iter().enumerate() {
        let found = found(|records| spoil(&mut records[0]));
        assert!(found.contains(&Fault::Misplaced), "{index}: {found:?}");
    }
}

#[test]
fn torn_transactions_are_found() {
    // A gap in the sequence, all events there.
    let gap = |records: &mut Vec<Record>| set_header(&mut records[5], "pg-seq", "1");
    assert_eq!(found(gap), [Fault::Torn]);
    // Two transactions of Kafka: a marker lies between their records.
    let (committed, records) = published(&COMMITTED, &[1, 3, 5]);
    assert_eq!(faults(committed, &records), [Fault::Torn]);
}

/// No partition holds two of a transaction's events: only both together tell.
#[test]
fn transactions_torn_between_partitions_are_found() {
    let two: [Transaction; 2] = [
        &[("order-1", "order.placed", 1), ("order-2", "order.placed", 1)],
        &[("order-1", "order.paid", 2), ("order-2", "order.paid", 2)],
    ];
    let (_, records) = published(&two, &[]);
    assert_ne!(records[0].partition, records[1].partition);
    for (begins, expected) in
        [(&[][..], &[][..]), (&[2], &[]), (&[1], &[Fault::Torn]), (&[3], &[Fault::Torn])]
    {
        let (committed, records) = published(&two, begins);
        assert_eq!(faults(committed, &records), expected, "{begins:?}");
    }
}

/// The records of one lie before the marker of the other: gaps alone would tell nothing.
#[test]
fn transactions_of_two_producers_are_told_apart() {
    let found = |writers: [i64; 6], markers: [&[i64]; 6]| {
        let (committed, mut records) = exact();
        let mut log = ProducerLog::default();
        for ((record, producer), ended) in records.iter_mut().zip(writers).zip(markers) {
            let partition = (record.topic.clone(), record.partition);
            ended.iter().for_each(|producer| log.add_marker(partition.clone(), *producer));
            record.offset = log.end(&partition);
            log.add(record, producer);
        }
        let mut oracle = Oracle::of(committed, Value::Envelope, PARTITIONS);
        records.iter().for_each(|record| oracle.take(record));
        oracle.verdict(&log).count(Fault::Torn)
    };
    // Transactions of the database have 3, 2 and 1 events.
    assert_eq!(found([1, 1, 1, 2, 2, 1], [&[], &[], &[], &[], &[1], &[1, 2]]), 0);
    assert_ne!(found([1, 1, 2, 2, 2, 1], [&[], &[], &[], &[], &[1], &[1, 2]]), 0);
    assert_ne!(found([1, 1, 1, 2, 2, 1], [&[], &[1], &[], &[], &[], &[]]), 0);
}

/// All but the payload is in headers then, and must be an event together with it.
#[test]
fn bare_payloads_are_judged_with_their_headers() {
    let (committed, mut records) = exact();
    for (index, record) in records.iter_mut().enumerate() {
        let (_, data) = std::str::from_utf8(record.value.as_deref().expect("a value"))
            .expect("UTF-8")
            .split_once("\"data\":")
            .expect("data");
        record.value = Some(data.trim_end_matches('}').as_bytes().to_vec());
        record.value.as_mut().expect("a value").push(b'}');
        record.headers.push(("source".to_owned(), b"s".to_vec()));
        let time: &[u8] = if index == 5 { b"today" } else { b"2026-03-01T12:00:00.000000Z" };
        record.headers.push(("occurred-at".to_owned(), time.to_vec()));
    }
    let mut oracle = Oracle::of(committed, Value::Bare, PARTITIONS);
    records.iter().for_each(|record| oracle.take(record));
    let verdict = oracle.verdict(&ProducerLog::of_one_producer(&records));
    assert_eq!(verdict.count(Fault::Malformed), 1, "{verdict:?}");
}

#[test]
fn malformed_events_are_found_however_late_they_come() {
    let (mut committed, mut records) = (HashMap::new(), Vec::new());
    // A hundred thousand, of which the last but one is malformed.
    for index in 0..100_000_u32 {
        let id = format!("00000000-0000-4000-8000-{index:012}");
        let row = Committed {
            aggregate_id: format!("order-{index}"),
            event_type: "order.placed".to_owned(),
            version: 1,
            xid: 1_000 + index,
            digest: None,
        };
        let mut record = record(&id, &row, 0);
        record.offset = i64::from(index);
        record.timestamp_ms = jiff::Timestamp::now().as_millisecond() - 1_000;
        set_header(&mut record, "pg-lsn", &format!("1/{index:X}"));
        records.push(record);
        committed.insert(id, row);
    }
    replace(&mut records[99_998], "\"source\":\"s\",", "");
    assert_eq!(faults(committed, &records), [Fault::Malformed]);
}

#[test]
fn malformed_events_are_found() {
    let spoilt: [fn(&mut Record); 7] = [
        |record| record.value = None,
        |record| record.value = Some(b"{".to_vec()),
        |record| replace(record, "\"source\":\"s\",", ""),
        |record| replace(record, "\"type\":\"order.placed\"", "\"type\":\"order.paid\""),
        |record| replace(record, "\"orderId\":\"order-1\"", "\"orderId\":\"order-2\""),
        |record| replace(record, "{\"orderId\"", "{\"more\":null,\"orderId\""),
        |record| replace(record, "\"orderId\":\"", "\"orderId\": \""),
    ];
    for (index, spoil) in spoilt.into_iter().enumerate() {
        assert_eq!(found(|records| spoil(&mut records[0])), [Fault::Malformed], "{index}");
    }
}
