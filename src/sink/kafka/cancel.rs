//! A flag that ends blocking calls.

use std::{
    sync::{
        Arc, OnceLock,
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
    /// Cancelled with it, or that long after it.
    parent: Option<Cancel>,
    lingers: Duration,
    /// When it was first seen that the parent is.
    parent_cancelled_at: OnceLock<Instant>,
}

impl Cancel {
    /// Another one, which this one cancels too.
    pub fn child(&self) -> Self {
        Self(Arc::new(Flag { parent: Some(self.clone()), ..Flag::default() }))
    }

    /// Another one, which is cancelled that long after this one.
    pub(super) fn lingering(&self, lingers: Duration) -> Self {
        Self(Arc::new(Flag { parent: Some(self.clone()), lingers, ..Flag::default() }))
    }

    /// From here on every call that waits returns [`KafkaError::Cancelled`].
    pub fn cancel(&self) {
        self.0.is_set.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_set.load(Ordering::Relaxed) || self.is_parent_cancelled()
    }

    fn is_parent_cancelled(&self) -> bool {
        if !self.0.parent.as_ref().is_some_and(Self::is_cancelled) {
            return false;
        }
        let since = self.0.parent_cancelled_at.get_or_init(Instant::now);
        self.0.lingers.is_zero() || since.elapsed() > self.0.lingers
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

    #[test]
    fn one_that_lingers_is_cancelled_a_while_after_its_parent() {
        let parent = Cancel::default();
        let [short, long, ended] =
            [1, 600, 600].map(|seconds| parent.lingering(Duration::from_secs(seconds)));
        parent.cancel();
        ended.cancel();
        assert!(!short.is_cancelled() && !long.is_cancelled() && ended.is_cancelled());
        let until = Instant::now() + Duration::from_secs(60);
        while !short.is_cancelled() {
            assert!(Instant::now() < until, "it lingers for ever");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        assert!(!long.is_cancelled());
    }
}
