//! How far the rows of a table are, said every few seconds.

use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use crate::checkpoint::SnapshotRecord;

/// How often it is said.
const INTERVAL: Duration = Duration::from_secs(10);

/// What was said last, or could have been.
#[derive(Debug)]
struct Said {
    request: String,
    rows: u64,
    at: Instant,
}

/// Measures the table that is being read.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Meter {
    said: Option<Said>,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Pace {
    rows_per_second: f64,
    /// Of 1; none where nobody knows how many there are.
    share: Option<f64>,
    seconds_left: Option<f64>,
}

impl Meter {
    /// Looks at the record of the table that is being read.
    pub(in crate::pipeline) fn look(&mut self, record: Option<&SnapshotRecord>) {
        let Some(record) = record else {
            self.said = None;
            return;
        };
        let now = Instant::now();
        let said = self.said.take().filter(|said| said.request == record.request);
        let Some(said) = said else {
            self.said = Some(Said { request: record.request.clone(), rows: record.rows, at: now });
            return;
        };
        if now - said.at < INTERVAL {
            self.said = Some(said);
            return;
        }
        let new = record.rows.saturating_sub(said.rows);
        let Pace { rows_per_second, share, seconds_left } =
            pace(record.rows, record.estimate, new as f64 / (now - said.at).as_secs_f64());
        info!(
            table = record.table,
            rows = record.rows,
            rows_per_second = rows_per_second.round(),
            percent = share.map(|share| (100. * share).round()),
            seconds_left = seconds_left.map(f64::round),
            "publishing the rows that a table has"
        );
        self.said = Some(Said { rows: record.rows, at: now, ..said });
    }
}

fn pace(rows: u64, estimate: Option<u64>, rows_per_second: f64) -> Pace {
    // More than there should be: nobody knows how many more.
    let known = estimate.filter(|estimate| *estimate > rows);
    let left = known.map(|estimate| (estimate - rows) as f64);
    Pace {
        rows_per_second,
        share: known.map(|estimate| rows as f64 / estimate as f64),
        seconds_left: left.filter(|_| rows_per_second > 0.).map(|left| left / rows_per_second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_where_it_is_known() {
        let of = |rows, estimate, rate| {
            let Pace { share, seconds_left, .. } = pace(rows, estimate, rate);
            (share, seconds_left)
        };
        assert_eq!(of(250, Some(1_000), 50.), (Some(0.25), Some(15.)));
        assert_eq!(of(250, Some(1_000), 0.), (Some(0.25), None));
        assert_eq!(of(1_200, Some(1_000), 50.), (None, None));
        assert_eq!(of(250, None, 50.), (None, None));
    }
}
