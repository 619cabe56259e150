//! Whatever stands in a stream's frames: decoded or refused, and in the order of transactions.
//!
//! The input is a row of messages, each after its length in two bytes, big-endian.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailwater::{
    change::{OldTuple, RowChange, Tuple, TupleValue},
    lsn::Lsn,
    postgres::{
        pgoutput::Decoder,
        transaction::{Change, Step, TransactionReader},
    },
};

fuzz_target!(|input: &[u8]| {
    let mut decoder = Decoder::new();
    let mut reader = TransactionReader::new();
    let mut rest = input;
    let mut is_inside = false;
    let mut position = 1;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (frame, behind) = behind.split_at(length);
        rest = behind;
        position += 1;
        let Ok(message) = decoder.decode(frame) else { return };
        let Ok(step) = reader.accept(Lsn::from_wire(position), message) else { return };
        match step {
            Step::Begin(_) => {
                assert!(!is_inside);
                is_inside = true;
            }
            Step::Commit { .. } => {
                assert!(is_inside);
                is_inside = false;
            }
            Step::Change { change, .. } => {
                assert!(is_inside);
                if let Change::Row { change, .. } = change {
                    assert!(bytes_of(change) <= frame.len());
                }
            }
            Step::Relation(_) | Step::NonTransactionalMessage { .. } | Step::Nothing => {}
        }
    }
});

/// What the values of a row change take, all of them lying in its frame.
fn bytes_of(change: RowChange<'_>) -> usize {
    let of_old = |old| match old {
        OldTuple::Key(row) | OldTuple::Full(row) => row,
    };
    let rows = match change {
        RowChange::Insert { new } => [Some(new), None],
        RowChange::Update { old, new } => [Some(new), old.map(of_old)],
        RowChange::Delete { old } => [Some(of_old(old)), None],
    };
    let values = rows.iter().flatten().flat_map(Tuple::iter);
    let bytes = values.map(|value| match value {
        TupleValue::Text(text) => text.len(),
        TupleValue::Null | TupleValue::UnchangedToast => 0,
    });
    bytes.sum()
}
