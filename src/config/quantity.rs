//! Times and sizes, with their units.

use std::time::Duration;

use serde_json::Value as Json;

use super::{
    document::Node,
    mistake::Mistakes,
    scalar::{noted, pattern, text},
    section::Read,
};

/// The longest time that a setting may say. More is a slip of the unit.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// The longest `kafka.transaction_interval`: readers wait for it, and a commit has to fit into the
/// rest of Kafka's time-out of a transaction, a minute unless said otherwise.
const TRANSACTION_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// The shortest `kafka.outage_grace`: at least once a checkpoint comes a second behind its events, and
/// a start waits for a predecessor's transaction to end.
const OUTAGE_GRACE_MIN: Duration = Duration::from_secs(5);

/// The largest size that a setting may say. More would not fit into a process that stays small.
const SIZE_BYTES_MAX: usize = 1 << 30;

/// A segment of the server's log, unless it was made with another size.
const WAL_SEGMENT_BYTES: u64 = 16 << 20;

/// The smallest `kafka.transaction_bytes`.
const TRANSACTION_BYTES_MIN: usize = 1 << 20;

/// `kafka.transaction_interval`, as `"50ms"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TransactionInterval(pub(super) Duration);

const INTERVAL_UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1_000), ("m", 60_000)];

/// The units once more, as the schema has them.
const INTERVAL_FORM: &str = "[0-9]+ ?(ms|s|m)";

/// What is expected of a time.
const INTERVAL_EXPECTED: &str = "a time with its unit (ms, s, m), as \"50ms\"";

/// Reads a time, as `"50ms"`; also for the command line.
///
/// # Errors
/// What it must be instead.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let duration = number_with_unit(text, &INTERVAL_UNITS).map(Duration::from_millis);
    match duration {
        None => Err(format!("must be {INTERVAL_EXPECTED}, not \"{text}\"")),
        Some(Duration::ZERO) => Err("must be longer than 0".to_owned()),
        Some(duration) if duration > DURATION_MAX => Err("must be an hour at most".to_owned()),
        Some(duration) => Ok(duration),
    }
}

impl Read for TransactionInterval {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let text = text(node, key, INTERVAL_EXPECTED, mistakes)?;
        let parsed = parse_interval(text).and_then(|interval| {
            let is_short = interval <= TRANSACTION_INTERVAL_MAX;
            is_short.then_some(Self(interval)).ok_or_else(|| {
                format!(
                    "must be {} s at most, not \"{text}\": Kafka gives up transactions that are \
                     open for long",
                    TRANSACTION_INTERVAL_MAX.as_secs()
                )
            })
        });
        noted(node, key, parsed, mistakes)
    }

    fn expected(_key: &str) -> String {
        INTERVAL_EXPECTED.to_owned()
    }

    fn schema() -> Json {
        pattern(INTERVAL_FORM)
    }
}

/// `kafka.outage_grace`, as `"60s"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OutageGrace(pub(super) Duration);

impl Read for OutageGrace {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let text = text(node, key, INTERVAL_EXPECTED, mistakes)?;
        let parsed = parse_interval(text).and_then(|grace| {
            (grace >= OUTAGE_GRACE_MIN).then_some(Self(grace)).ok_or_else(|| {
                format!("must be 5s at least, not \"{text}\": a delivery may take some of it")
            })
        });
        noted(node, key, parsed, mistakes)
    }

    fn expected(_key: &str) -> String {
        INTERVAL_EXPECTED.to_owned()
    }

    fn schema() -> Json {
        pattern(INTERVAL_FORM)
    }
}

/// `outbox.retention`, as `"7d"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RetentionAge(pub(super) Duration);

const AGE_UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

/// A longer one is a slip of the pen.
const AGE_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

const AGE_EXPECTED: &str = "a time with its unit (s, m, h, d), as \"7d\"";

impl Read for RetentionAge {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let text = text(node, key, AGE_EXPECTED, mistakes)?;
        let parsed = match number_with_unit(text, &AGE_UNITS).map(Duration::from_secs) {
            None => Err(format!("must be {AGE_EXPECTED}, not \"{text}\"")),
            Some(Duration::ZERO) => Err("must be longer than 0".to_owned()),
            Some(age) if age > AGE_MAX => Err("must be a hundred years at most".to_owned()),
            Some(age) => Ok(Self(age)),
        };
        noted(node, key, parsed, mistakes)
    }

    fn expected(_key: &str) -> String {
        AGE_EXPECTED.to_owned()
    }

    fn schema() -> Json {
        pattern("[0-9]+ ?(s|m|h|d)")
    }
}

/// `kafka.transaction_bytes`, as `"8MiB"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TransactionBytes(pub(super) usize);

const SIZE_UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// The units once more, as the schema has them.
const SIZE_FORM: &str = "[0-9]+ ?(B|KiB|MiB|GiB|kB|MB|GB)";

impl Read for TransactionBytes {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let expected = Self::expected(key);
        let text = text(node, key, &expected, mistakes)?;
        let parsed = number_with_unit(text, &SIZE_UNITS)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or_else(|| format!("must be {expected}, not \"{text}\""))
            .and_then(|bytes| match bytes {
                TRANSACTION_BYTES_MIN..=SIZE_BYTES_MAX => Ok(Self(bytes)),
                _ => Err(format!("must be from \"1MiB\" to \"1GiB\", not \"{text}\"")),
            });
        noted(node, key, parsed, mistakes)
    }

    fn expected(_key: &str) -> String {
        "a size with its unit (KiB, MiB, kB, MB), as \"8MiB\"".to_owned()
    }

    fn schema() -> Json {
        pattern(SIZE_FORM)
    }
}

/// `postgres.retained_wal_max`, as `"10GiB"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WalSize(pub(super) u64);

impl Read for WalSize {
    fn read(node: &Node, key: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let expected = Self::expected(key);
        let text = text(node, key, &expected, mistakes)?;
        let parsed = match number_with_unit(text, &SIZE_UNITS) {
            None => Err(format!("must be {expected}, not \"{text}\"")),
            Some(bytes) if bytes < WAL_SEGMENT_BYTES => Err(format!(
                "must be 16MiB at least, not \"{text}\": the server keeps whole segments"
            )),
            Some(bytes) => Ok(Self(bytes)),
        };
        noted(node, key, parsed, mistakes)
    }

    fn expected(_key: &str) -> String {
        "a size with its unit (MiB, GiB, MB, GB), as \"10GiB\"".to_owned()
    }

    fn schema() -> Json {
        pattern(SIZE_FORM)
    }
}

/// `"50ms"` in the smallest unit; nothing for another form or beyond 64 bits.
fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}
