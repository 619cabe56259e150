//! Whether Kafka takes anything, as far as no report says so yet.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A count that grows whenever records were answered that something waits for. All clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
