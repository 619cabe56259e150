//! Whatever stands in a stream's frames: decoded or refused, and in the order of transactions.
//!
//! The input is a row of messages, each after its length in two bytes, big-endian.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailwater::{
    change::TupleValue,
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
                if let Change::Insert { new } = change {
                    let bytes: usize = new
                        .iter()
                        .map(|value| match value {
                            TupleValue::Text(text) => text.len(),
                            TupleValue::Null | TupleValue::UnchangedToast => 0,
                        })
                        .sum();
                    assert!(bytes <= frame.len());
                }
            }
            Step::Relation(_) | Step::NonTransactionalMessage { .. } | Step::Nothing => {}
        }
    }
});
