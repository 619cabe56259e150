//! Kafka takes nothing: how long the slot is held all the same.
//!
//! A walsender that is asked to stop, by a fast shutdown of its server or a switchover, waits until
//! everything is acknowledged. While Kafka is away nothing is, so after a while the replication
//! connection is given up; the start order, which asks for Kafka before it takes the slot, takes it
//! again.

use std::time::Duration;

use tokio::time::Instant;

use crate::failure::{Code, Failure, Recovery};

/// Nothing was delivered for too long.
#[derive(Debug, thiserror::Error)]
#[error("Kafka took nothing for {} s while something waited for it", .grace.as_secs_f32())]
pub(super) struct Outage {
    /// `kafka.outage_grace`.
    pub(super) grace: Duration,
}

impl Failure for Outage {
    fn code(&self) -> Option<Code> {
        None
    }

    fn recovery(&self) -> Recovery {
        Recovery::Retry
    }

    fn hint(&self) -> Option<String> {
        Some(
            "The replication connection is closed, so that PostgreSQL can shut down meanwhile, and \
             taken again when Kafka answers (kafka.outage_grace)."
                .to_owned(),
        )
    }
}

/// Since when something has waited without anything going on.
#[derive(Debug)]
pub(super) struct Patience {
    grace: Duration,
    waiting_since: Option<Instant>,
    /// What the sink counted.
    progress: u64,
}

impl Patience {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, waiting_since: None, progress: 0 }
    }

    /// Kafka took something.
    pub(super) fn observe_progress(&mut self) {
        self.waiting_since = None;
    }

    /// Whether something waits at this moment, and what the sink counts of its progress.
    ///
    /// # Errors
    /// Where something has waited for longer than it may.
    pub(super) fn observe(&mut self, is_waiting: bool, progress: u64) -> Result<(), Outage> {
        let has_progressed = std::mem::replace(&mut self.progress, progress) != progress;
        if !is_waiting || has_progressed {
            self.waiting_since = None;
            return Ok(());
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.grace {
            return Err(Outage { grace: self.grace });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_waiting_without_progress_counts() {
        let grace = Duration::from_secs(60);
        let mut patience = Patience::new(grace);
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        for _ in 0..3 {
            assert!(patience.observe(true, 0).is_ok());
            pass(59).await;
            assert!(patience.observe(true, 0).is_ok());
            patience.observe_progress();
        }
        assert!(patience.observe(true, 0).is_ok());
        pass(59).await;
        assert!(patience.observe(false, 0).is_ok());
        assert!(patience.observe(true, 0).is_ok());
        pass(60).await;
        assert!(patience.observe(true, 1).is_ok(), "the sink gets on");
        assert!(patience.observe(true, 1).is_ok());
        pass(60).await;
        let outage = patience.observe(true, 1).expect_err("it is over");
        assert_eq!(outage.recovery(), Recovery::Retry);
        assert!(outage.to_string().contains("for 60 s"), "{outage}");
    }
}
