//! A flag that ends blocking calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::sink::kafka::KafkaError;

/// Ends calls that wait for Kafka: each looks at it at least once a second. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    is_set: AtomicBool,
    /// Cancelled with it.
    parent: Option<Cancel>,
    /// Cancelled from then on.
    deadline: Option<Instant>,
}

impl Cancel {
    /// Another one, which this one cancels too.
    pub fn child(&self) -> Self {
        Self(Arc::new(Flag { parent: Some(self.clone()), ..Flag::default() }))
    }

    /// One that is cancelled by itself after a while.
    pub(super) fn after(limit: Duration) -> Self {
        Self(Arc::new(Flag { deadline: Some(Instant::now() + limit), ..Flag::default() }))
    }

    /// From here on every call that waits returns [`KafkaError::Cancelled`].
    pub fn cancel(&self) {
        self.0.is_set.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_set.load(Ordering::Relaxed)
            || self.0.parent.as_ref().is_some_and(Self::is_cancelled)
            || self.0.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }

    pub(super) fn check(&self) -> Result<(), KafkaError> {
        if self.is_cancelled() { Err(KafkaError::Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_cancelled_with_its_parent_and_not_the_other_way() {
        let parent = Cancel::default();
        let (one, other) = (parent.child(), parent.child());
        one.cancel();
        assert!(one.is_cancelled() && !parent.is_cancelled() && !other.is_cancelled());
        parent.cancel();
        assert!(other.check().is_err());
    }
}
