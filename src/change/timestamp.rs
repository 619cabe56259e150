//! The server's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

/// Microseconds since 2000-01-01 00:00 UTC (C name `TimestampTz`). Not monotonic over commits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// Microseconds since 1970-01-01 00:00 UTC; saturates at the ends of the range.
    pub fn unix_microseconds(self) -> i64 {
        self.0.saturating_add(POSTGRES_EPOCH_SECONDS * 1_000_000)
    }

    /// Milliseconds since 1970-01-01 00:00 UTC, as a Kafka record's timestamp.
    pub fn unix_milliseconds(self) -> i64 {
        self.unix_microseconds().div_euclid(1_000)
    }

    /// The same instant, from microseconds since 1970-01-01 00:00 UTC.
    pub fn from_unix_microseconds(microseconds: i64) -> Self {
        Self(microseconds.saturating_sub(POSTGRES_EPOCH_SECONDS * 1_000_000))
    }

    /// The local clock's time, for status updates.
    pub fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::from_unix_microseconds(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_differ_by_thirty_years() {
        assert_eq!(PgTimestamp(0).unix_milliseconds(), 946_684_800_000);
        assert_eq!(PgTimestamp::from_unix_microseconds(946_684_800_000_001), PgTimestamp(1));
    }

    #[test]
    fn milliseconds_round_down_before_1970() {
        let one_microsecond_before = PgTimestamp::from_unix_microseconds(-1);
        assert_eq!(one_microsecond_before.unix_milliseconds(), -1);
    }
}
