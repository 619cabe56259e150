//! What a demo came to, in one line.

use std::{fmt, time::Duration};

/// What a demo came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Events whose transaction was committed.
    pub committed: u64,
    /// Events that the reader saw.
    pub published: u64,
    /// Events that were committed and not seen.
    pub lost: u64,
    /// Events that were seen more than once.
    pub doubled: u64,
    /// Events that were seen although nobody committed them.
    pub uncommitted: u64,
    /// How many transactions the order service rolled back.
    pub transactions_rolled_back: u64,
    /// From the return of COMMIT to the sight of each committed event, in ascending order.
    pub latencies: Vec<Duration>,
}

impl Summary {
    /// Whether each committed event was seen once, and nothing else was.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.uncommitted == 0
    }

    /// The least latency that `percent` of all events do not exceed; none without events.
    fn latency(&self, percent: usize) -> Option<Duration> {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.checked_sub(1)?).copied()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { committed, published, lost, doubled, .. } = self;
        write!(
            formatter,
            "committed {committed}  published {published}  lost {lost}  doubled {doubled}  latency"
        )?;
        for (name, percent) in [(" p50", 50), ("  p99", 99), ("  max", 100)] {
            match self.latency(percent) {
                Some(latency) => write!(formatter, "{name} {:.1} ms", milliseconds(latency))?,
                None => write!(formatter, "{name} -")?,
            }
        }
        Ok(())
    }
}

/// For people: `12.34`.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_latencies(milliseconds: impl Iterator<Item = u64>) -> Summary {
        Summary {
            latencies: milliseconds.map(Duration::from_millis).collect(),
            ..Summary::default()
        }
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred = with_latencies(1..=100);
        for percent in [1, 50, 99, 100] {
            let expected = Duration::from_millis(u64::try_from(percent).expect("it is small"));
            assert_eq!(hundred.latency(percent), Some(expected));
        }
        let three = with_latencies([2, 4, 9].into_iter());
        assert_eq!(three.latency(50), Some(Duration::from_millis(4)));
        assert_eq!(three.latency(99), Some(Duration::from_millis(9)));
        let one = with_latencies([7].into_iter());
        assert_eq!(one.latency(50), Some(Duration::from_millis(7)));
        assert_eq!(with_latencies([].into_iter()).latency(50), None);
    }

    #[test]
    fn summary_is_one_line_of_fixed_form() {
        let mut summary = with_latencies([1, 3, 12].into_iter());
        summary.committed = 812;
        summary.published = 812;
        assert_eq!(
            summary.to_string(),
            "committed 812  published 812  lost 0  doubled 0  \
             latency p50 3.0 ms  p99 12.0 ms  max 12.0 ms"
        );
    }

    #[test]
    fn summary_without_events_has_no_latency() {
        let expected = "committed 0  published 0  lost 0  doubled 0  latency p50 -  p99 -  max -";
        assert_eq!(Summary::default().to_string(), expected);
    }
}
