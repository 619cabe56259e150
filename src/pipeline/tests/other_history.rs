//! A stream that is not the history which was published.

use crate::{
    change::{PgTimestamp, Transaction, Xid},
    checkpoint::{CheckpointRecord, LastTransaction, Tracker},
    failure::Code,
    lsn::{CommitLsn, EndLsn, Lsn},
    pipeline::{
        assembler::{Assembler, Beginning, Bounds, Trouble},
        backfill::Backfills,
        on_error::OnError,
        resume::Resume,
        tests::rig::mapping,
    },
};

fn lsn(position: u64) -> Lsn {
    Lsn::from_wire(position).expect("a position")
}

/// A commit record that begins before the last published one and ends behind it was never beside it.
/// If the slot heard of the end first, the next start would not be sent what is missing.
#[test]
fn a_transaction_in_the_place_of_the_last_one_is_found_before_the_slot_moves() {
    for end in [200, 201, 240, 300] {
        let mut checkpoint = CheckpointRecord::of_first_start(EndLsn(lsn(240)));
        let (commit_lsn, commit_time) = (CommitLsn(lsn(200)), 0);
        checkpoint.last = Some(LastTransaction { commit_lsn, xid: Xid(7), commit_time });
        let resume = Resume::new(&checkpoint, Some(lsn(100)), &checkpoint.publication);
        let mut tracker = Tracker::new(&checkpoint);
        let bounds = Bounds { transaction_bytes: 1 << 20, record_bytes: 1 << 24 };
        let beginning = Beginning { checkpoint, resume, backfills: Backfills::default() };
        let mut assembler = Assembler::new(mapping(), beginning, bounds, OnError::Halt);
        let other = Transaction {
            commit_lsn: CommitLsn(lsn(180)),
            xid: Xid(8),
            committed_at: PgTimestamp(0),
        };
        assembler.begin(other, &mut tracker).expect("it may be one before the last");
        let ended = assembler.commit(EndLsn(lsn(end)), &mut tracker);
        match ended {
            Ok(()) => assert_eq!(end, 200, "the last one begins there, and is still to come"),
            Err(Trouble::Failed(failure)) => {
                assert!(end > 200);
                assert_eq!(failure.code(), Some(Code::HistoryDiverged), "{end}");
            }
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(tracker.flush_lsn(), None, "{end}");
    }
}
