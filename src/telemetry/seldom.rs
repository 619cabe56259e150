//! Warnings that could come with every row.

use std::time::{Duration, Instant};

/// Lets the first one pass, then one in an interval, and counts the rest.
#[derive(Debug)]
pub struct Seldom {
    interval: Duration,
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// With the shortest time between two.
    pub const fn every(interval: Duration) -> Self {
        Self { interval, said_at: None, unsaid: 0 }
    }

    /// Whether it is to be said, and of how many before it nothing was said.
    pub fn is_due(&mut self) -> Option<u64> {
        if self.said_at.is_some_and(|at| at.elapsed() < self.interval) {
            self.unsaid += 1;
            return None;
        }
        self.said_at = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_counted() {
        let interval = Duration::from_secs(10);
        let mut seldom = Seldom::every(interval);
        assert_eq!(seldom.is_due(), Some(0));
        assert_eq!(seldom.is_due(), None);
        assert_eq!(seldom.is_due(), None);
        seldom.said_at = seldom.said_at.and_then(|at| at.checked_sub(interval));
        assert_eq!(seldom.is_due(), Some(2));
    }
}
