//! Messages around the place where publishing goes on.

use crate::{
    change::{
        Column, Oid, PgTimestamp, Place, Relation, RelationId, ReplicaIdentity, RowChange,
        Transaction, Tuple, ValueSlot, Xid,
    },
    checkpoint::{CheckpointRecord, InProgress, Tracker},
    event::CONTEXT_PREFIX,
    lsn::{CommitLsn, EndLsn, Lsn},
    pipeline::{
        assembler::{Assembler, Bounds},
        lookup::Answers,
        on_error::OnError,
        resume::Resume,
        tests::rig::{MESSAGE_PREFIX, mapping},
    },
    postgres::transaction::{Change, ChangeDigest, ChangeKind},
    sink::Headers,
};

const TABLE: RelationId = RelationId(1);

fn lsn(position: u64) -> Lsn {
    Lsn::from_wire(position).expect("a position")
}

fn place(ordinal: u64) -> Place {
    Place { ordinal, lsn: Some(lsn(500 + ordinal)), ordinal_at_lsn: 0 }
}

fn relation() -> Relation {
    let columns = [("id", 2950), ("aggregate_id", 25), ("event_type", 25), ("payload", 3802)];
    let column = |(name, type_oid): (&str, u32)| Column {
        name: name.to_owned(),
        type_oid: Oid(type_oid),
        type_modifier: -1,
        is_replica_identity: false,
    };
    Relation {
        id: TABLE,
        schema: "public".to_owned(),
        name: "outbox_events".to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns: columns.map(column).to_vec(),
    }
}

fn context(content: &str) -> Change<'_> {
    let content = content.as_bytes();
    Change::Message { prefix: CONTEXT_PREFIX, content, message_lsn: None }
}

fn insert(assembler: &mut Assembler, ordinal: u64, tracker: &mut Tracker) -> Result<(), String> {
    let values = ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a", "order.placed", "{}"];
    let frame = values.concat();
    let mut start = 0;
    let slots = values.map(|value| {
        let length = u32::try_from(value.len()).expect("short");
        start += length;
        ValueSlot::Text { start: start - length, length }
    });
    let row = Tuple::new(frame.as_bytes(), &slots);
    let change = Change::Row { relation: TABLE, change: RowChange::Insert { new: row } };
    let inserted = assembler.change(place(ordinal), &change, tracker);
    inserted.map_err(|trouble| format!("{trouble:?}"))
}

/// Runs `changes` inside a transaction of which the first `skipped` are out; returns the correlation
/// ids of what is published of it.
fn correlations(
    skipped: &[ChangeKind],
    changes: impl FnOnce(&mut Assembler, &mut Tracker) -> Result<(), String>,
) -> Result<Vec<String>, String> {
    let mut checkpoint = CheckpointRecord::of_first_start(EndLsn(lsn(400)));
    let mut digest = ChangeDigest::default();
    for (ordinal, kind) in (0..).zip(skipped) {
        let relation = (*kind == ChangeKind::Insert).then_some(TABLE);
        digest.add(place(ordinal).lsn, *kind, relation);
    }
    let changes_out = skipped.len() as u64;
    let commit_lsn = CommitLsn(lsn(1_000));
    checkpoint.in_progress = (changes_out > 0).then_some(InProgress {
        commit_lsn,
        changes: changes_out,
        events: 1,
        digest: digest.value(),
    });
    let resume = Resume::new(&checkpoint, Some(lsn(400)), &checkpoint.publication);
    let mut tracker = Tracker::new(&checkpoint);
    let bounds = Bounds { transaction_bytes: 1 << 20, record_bytes: 1 << 24 };
    let mut assembler = Assembler::new(mapping(), resume, checkpoint, bounds, OnError::Halt);
    assembler.relation(&relation(), Answers::none());
    tracker.begin();
    let transaction = Transaction { commit_lsn, xid: Xid(7), committed_at: PgTimestamp(0) };
    assembler.begin(transaction).map_err(|trouble| format!("{trouble:?}"))?;
    changes(&mut assembler, &mut tracker)?;
    let ended = assembler.commit(EndLsn(lsn(1_048)), &mut tracker);
    ended.map_err(|trouble| format!("{trouble:?}"))?;
    assembler.hand_over_whole(&mut tracker);
    let mut found = Vec::new();
    while let Some(batch) = assembler.take_ready() {
        for record in batch.records() {
            let named = |(name, value): (&[u8], &[u8])| {
                (name == b"correlation-id").then(|| String::from_utf8_lossy(value).into_owned())
            };
            found.extend(Headers::new(batch.slice(record.headers)).find_map(named));
        }
    }
    Ok(found)
}

fn message(
    assembler: &mut Assembler,
    ordinal: u64,
    content: &str,
    tracker: &mut Tracker,
) -> Result<(), String> {
    let taken = assembler.change(place(ordinal), &context(content), tracker);
    taken.map_err(|trouble| format!("{trouble:?}"))
}

#[test]
fn a_context_among_skipped_changes_counts_for_what_follows() {
    let skipped = [ChangeKind::Message, ChangeKind::Insert, ChangeKind::Message];
    let found = correlations(&skipped, |assembler, tracker| {
        message(assembler, 0, r#"{"correlationId": "first"}"#, tracker)?;
        insert(assembler, 1, tracker)?;
        message(assembler, 2, r#"{"correlationId": "second"}"#, tracker)?;
        insert(assembler, 3, tracker)?;
        message(assembler, 4, r#"{"correlationId": "third"}"#, tracker)?;
        insert(assembler, 5, tracker)
    });
    assert_eq!(found.expect("published"), ["second", "third"]);
}

/// Messages are changes as rows are: those that are out are not published again.
#[test]
fn messages_that_are_out_are_skipped() {
    let found = correlations(&[ChangeKind::Message, ChangeKind::Message], |assembler, tracker| {
        for ordinal in 0..4 {
            let content = format!(
                "{{\"type\": \"a.b\", \"data\": 1, \"correlationId\": \"message {ordinal}\"}}"
            );
            let content = content.as_bytes();
            let message = Change::Message { prefix: MESSAGE_PREFIX, content, message_lsn: None };
            let taken = assembler.change(place(ordinal), &message, tracker);
            taken.map_err(|trouble| format!("{trouble:?}"))?;
        }
        Ok(())
    });
    assert_eq!(found.expect("published"), ["message 2", "message 3"]);
}

#[test]
fn a_context_that_cannot_be_read_halts_before_the_next_event_alone() {
    let without_events =
        correlations(&[], |assembler, tracker| message(assembler, 0, "{", tracker));
    assert_eq!(without_events.expect("published"), [""; 0]);
    let replaced = correlations(&[], |assembler, tracker| {
        message(assembler, 0, "{", tracker)?;
        message(assembler, 1, r#"{"correlationId": "mended"}"#, tracker)?;
        insert(assembler, 2, tracker)
    });
    assert_eq!(replaced.expect("published"), ["mended"]);
    let halted = correlations(&[], |assembler, tracker| {
        message(assembler, 0, r#"{"correlationId": 7}"#, tracker)?;
        insert(assembler, 1, tracker)
    });
    let trouble = halted.expect_err("no event");
    assert!(trouble.starts_with("Halt") && trouble.contains("correlationId"), "{trouble}");
}
