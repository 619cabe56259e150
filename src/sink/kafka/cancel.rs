//! A flag that ends blocking calls.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::sink::kafka::KafkaError;

/// Ends calls that wait for Kafka: each looks at it at least once a second. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// From here on every call that waits returns [`KafkaError::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn check(&self) -> Result<(), KafkaError> {
        if self.is_cancelled() { Err(KafkaError::Cancelled) } else { Ok(()) }
    }
}
