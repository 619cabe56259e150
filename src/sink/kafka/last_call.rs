//! The last call: transactions begin at a pace, and what waits for its turn need not be joined by
//! one row after the other. The caller leaves rows in its socket until it is called, and hands over
//! all of them at once. To read, hand over and be woken for each costs more CPU time than all the
//! rest of a row's path, and no row gets out any sooner for it.

use std::sync::atomic::{AtomicU8, Ordering};

/// None is to come.
const NONE: u8 = 0;
/// One is to come, whatever happens.
const ANNOUNCED: u8 = 1;
/// It was made, and what the caller has is waited for.
const MADE: u8 = 2;

/// Where the next last call stands, as both ends see it. The thread that produces announces and makes
/// it, the caller answers. An answer that comes late, after the next announcement, is none.
#[derive(Debug, Default)]
pub(super) struct LastCall(AtomicU8);

impl LastCall {
    /// Nothing that is handed over before the call gets out sooner for it. Who announces it must
    /// make it, or end: the caller does not read until then.
    pub(super) fn announce(&self) {
        self.0.store(ANNOUNCED, Ordering::Release);
    }

    pub(super) fn is_announced(&self) -> bool {
        self.0.load(Ordering::Acquire) == ANNOUNCED
    }

    pub(super) fn make(&self) {
        self.0.store(MADE, Ordering::Release);
    }

    pub(super) fn is_unanswered(&self) -> bool {
        self.0.load(Ordering::Acquire) == MADE
    }

    pub(super) fn answer(&self) {
        let _ = self.0.compare_exchange(MADE, NONE, Ordering::AcqRel, Ordering::Relaxed);
    }
}
