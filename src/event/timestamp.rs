//! Instants in text: what PostgreSQL sends, what the envelope holds, what an envelope may bring.

use crate::change::PgTimestamp;

/// The length of `YYYY-MM-DDTHH:MM:SS.ffffffZ` in bytes.
pub(super) const INSTANT_BYTES: usize = 27;

/// The length of `YYYY-MM-DD HH:MM:SS` in bytes.
const SECONDS_BYTES: usize = 19;

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// Why a column's text is no instant of the envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimestampProblem {
    /// `infinity` or `-infinity`.
    Infinite,
    /// Before 0001 or after 9999.
    YearOutOfRange,
    /// No timestamp, or one of another zone.
    Malformed,
}

/// Rewrites the text of a timestamp, or of a timestamptz under TimeZone UTC, in DateStyle ISO.
pub(super) fn from_column<'a>(
    text: &[u8],
    scratch: &'a mut [u8; INSTANT_BYTES],
) -> Result<&'a str, TimestampProblem> {
    let parsed = text
        .split_first_chunk::<SECONDS_BYTES>()
        .filter(|(seconds, _)| DateTime::parse(seconds).is_some_and(|time| time.is_valid(b" ")))
        .and_then(|(seconds, rest)| Some((seconds, microseconds(without_zone(rest))?)));
    let Some((seconds, fraction)) = parsed else { return Err(problem_of(text)) };
    let (target, rest) =
        scratch.split_first_chunk_mut::<SECONDS_BYTES>().expect("an instant is longer");
    *target = *seconds;
    target[10] = b'T';
    let [point, digits @ .., zone] = rest else { unreachable!("an instant is longer") };
    *point = b'.';
    digits.copy_from_slice(&fraction);
    *zone = b'Z';
    Ok(std::str::from_utf8(scratch).expect("digits and marks are ASCII"))
}

fn without_zone(rest: &[u8]) -> &[u8] {
    rest.strip_suffix(b"+00").unwrap_or(rest)
}

/// Six digits of `.5` or of nothing at all; `None` for anything else.
fn microseconds(fraction: &[u8]) -> Option<[u8; 6]> {
    let mut digits = [b'0'; 6];
    let Some((point, given)) = fraction.split_first() else { return Some(digits) };
    if *point != b'.' || given.is_empty() || !given.iter().all(u8::is_ascii_digit) {
        return None;
    }
    digits.get_mut(..given.len())?.copy_from_slice(given);
    Some(digits)
}

fn problem_of(text: &[u8]) -> TimestampProblem {
    let year_digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match text {
        b"infinity" | b"-infinity" => TimestampProblem::Infinite,
        _ if year_digits > 4 && text.get(year_digits) == Some(&b'-') => {
            TimestampProblem::YearOutOfRange
        }
        _ if text.ends_with(b" BC") || text.starts_with(b"0000-") => {
            TimestampProblem::YearOutOfRange
        }
        _ => TimestampProblem::Malformed,
    }
}

/// Writes an instant; `None` outside the years 0001 to 9999.
pub(super) fn from_timestamp(
    timestamp: PgTimestamp,
    scratch: &mut [u8; INSTANT_BYTES],
) -> Option<&str> {
    let since_1970 = timestamp.unix_microseconds();
    let (year, month, day) = civil_date(since_1970.div_euclid(MICROSECONDS_PER_DAY));
    if !(1..=9999).contains(&year) {
        return None;
    }
    let of_day = since_1970.rem_euclid(MICROSECONDS_PER_DAY);
    let (seconds, microseconds) = (of_day / 1_000_000, of_day % 1_000_000);
    *scratch = *b"0000-00-00T00:00:00.000000Z";
    write_digits(&mut scratch[..4], year);
    write_digits(&mut scratch[5..7], month);
    write_digits(&mut scratch[8..10], day);
    write_digits(&mut scratch[11..13], seconds / 3600);
    write_digits(&mut scratch[14..16], seconds / 60 % 60);
    write_digits(&mut scratch[17..19], seconds % 60);
    write_digits(&mut scratch[20..26], microseconds);
    Some(std::str::from_utf8(scratch).expect("digits and marks are ASCII"))
}

fn write_digits(target: &mut [u8], mut value: i64) {
    for digit in target.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970-01-01.
///
/// Counted in years that begin in March, so that the leap day is the last day of its year and the
/// months before it follow one line: month m (0 is March) begins at day (153 m + 2) / 5.
pub(super) fn civil_date(days_since_1970: i64) -> (i64, i64, i64) {
    const DAYS_PER_400_YEARS: i64 = 146_097;
    const DAYS_FROM_MARCH_0000_TO_1970: i64 = 719_468;
    let days = days_since_1970 + DAYS_FROM_MARCH_0000_TO_1970;
    let (cycle, day) = (days.div_euclid(DAYS_PER_400_YEARS), days.rem_euclid(DAYS_PER_400_YEARS));
    // Take the leap days out (one in 1,461 days, none in 36,525, one in the cycle's last day).
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next_year, month, day_of_month)
}

/// True for an RFC 3339 instant of the years 0001 to 9999, in any zone.
pub(super) fn is_instant(text: &str) -> bool {
    let Some((seconds, rest)) = text.as_bytes().split_first_chunk::<SECONDS_BYTES>() else {
        return false;
    };
    let Some(time) = DateTime::parse(seconds) else { return false };
    let zone = match rest.split_first() {
        Some((b'.', fraction)) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            fraction.get(digits..).filter(|_| digits > 0)
        }
        Some(_) => Some(rest),
        None => None,
    };
    let Some(offset) = zone.and_then(offset_minutes) else { return false };
    // A leap second is inserted at the end of a UTC day only.
    let utc_minute = (i32::from(time.hour) * 60 + i32::from(time.minute) - offset).rem_euclid(1440);
    let leap = time.second == 60 && utc_minute == 1439;
    let time = DateTime { second: if leap { 59 } else { time.second }, ..time };
    time.is_valid(b"Tt")
}

/// Minutes east of UTC, of `Z` or `+05:30`.
pub(super) fn offset_minutes(zone: &[u8]) -> Option<i32> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), hours @ .., b':', ten, one] if hours.len() == 2 => {
            let (hours, minutes) = (two_digits(hours)?, two_digits(&[*ten, *one])?);
            let east = i32::from(hours) * 60 + i32::from(minutes);
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

/// The fields of `YYYY-MM-DD?HH:MM:SS`, of the right form but not yet of the right size.
#[derive(Clone, Copy)]
struct DateTime {
    year: u16,
    month: u8,
    day: u8,
    separator: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl DateTime {
    fn parse(text: &[u8; SECONDS_BYTES]) -> Option<Self> {
        let [
            y1,
            y2,
            y3,
            y4,
            b'-',
            mo1,
            mo2,
            b'-',
            d1,
            d2,
            separator,
            h1,
            h2,
            b':',
            mi1,
            mi2,
            b':',
            s1,
            s2,
        ] = *text
        else {
            return None;
        };
        let century = u16::from(two_digits(&[y1, y2])?);
        Some(Self {
            year: century * 100 + u16::from(two_digits(&[y3, y4])?),
            month: two_digits(&[mo1, mo2])?,
            day: two_digits(&[d1, d2])?,
            separator,
            hour: two_digits(&[h1, h2])?,
            minute: two_digits(&[mi1, mi2])?,
            second: two_digits(&[s1, s2])?,
        })
    }

    fn is_valid(&self, separators: &[u8]) -> bool {
        let days = match self.month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if self.year.is_multiple_of(4)
                && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400)) =>
            {
                29
            }
            2 => 28,
            _ => 0,
        };
        self.year > 0
            && (1..=days).contains(&self.day)
            && separators.contains(&self.separator)
            && self.hour < 24
            && self.minute < 60
            && self.second < 60
    }
}

fn two_digits(digits: &[u8]) -> Option<u8> {
    match digits {
        [ten @ b'0'..=b'9', one @ b'0'..=b'9'] => Some((ten - b'0') * 10 + one - b'0'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(text: &str) -> Result<String, TimestampProblem> {
        from_column(text.as_bytes(), &mut [0; INSTANT_BYTES]).map(str::to_owned)
    }

    fn commit_time(unix_microseconds: i64) -> Option<String> {
        let timestamp = PgTimestamp::from_unix_microseconds(unix_microseconds);
        from_timestamp(timestamp, &mut [0; INSTANT_BYTES]).map(str::to_owned)
    }

    #[test]
    fn column_text_becomes_an_instant_with_six_digits() {
        for (text, instant) in [
            ("2024-07-01 10:34:56.5+00", "2024-07-01T10:34:56.500000Z"),
            ("2024-02-29 00:00:00+00", "2024-02-29T00:00:00.000000Z"),
            ("2024-02-29 12:34:56.123456", "2024-02-29T12:34:56.123456Z"),
            ("0001-01-01 00:00:00+00", "0001-01-01T00:00:00.000000Z"),
            ("9999-12-31 23:59:59.999999+00", "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(column(text).as_deref(), Ok(instant), "{text}");
        }
    }

    #[test]
    fn column_text_without_an_instant_is_told_apart() {
        use TimestampProblem::{Infinite, Malformed, YearOutOfRange};
        for (text, problem) in [
            ("infinity", Infinite),
            ("-infinity", Infinite),
            ("10000-01-01 00:00:00+00", YearOutOfRange),
            ("294276-12-31 23:59:59.999999", YearOutOfRange),
            ("0044-03-15 01:02:03+00 BC", YearOutOfRange),
            ("0000-01-01 00:00:00", YearOutOfRange),
            ("2024-07-01 10:34:56+02", Malformed),
            ("2024-07-01 10:34:56.1234567", Malformed),
            ("2024-07-01 10:34:56.", Malformed),
            ("2023-02-29 00:00:00", Malformed),
            ("2024-07-01T10:34:56", Malformed),
            ("2024-07-01", Malformed),
            ("1719830096", Malformed),
            ("", Malformed),
        ] {
            assert_eq!(column(text), Err(problem), "{text}");
        }
    }

    #[test]
    fn commit_times_agree_with_a_calendar_library() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let microseconds = random.i64(-62_135_596_800_000_000..=253_402_207_199_999_999);
            let timestamp = jiff::Timestamp::from_microsecond(microseconds).expect("in range");
            assert_eq!(
                commit_time(microseconds),
                Some(format!("{timestamp:.6}")),
                "{microseconds}"
            );
        }
    }

    #[test]
    fn every_day_of_two_cycles_follows_the_one_before() {
        let mut before = civil_date(-500_000);
        for day in -499_999..-100_000 {
            let (year, month, day_of_month) = civil_date(day);
            let follows = match before {
                (y, m, d) if (y, m) == (year, month) => day_of_month == d + 1,
                (y, 12, 31) => (year, month, day_of_month) == (y + 1, 1, 1),
                (y, m, d) => (year, month, day_of_month) == (y, m + 1, 1) && d >= 28,
            };
            assert!(follows, "{before:?} then {:?}", (year, month, day_of_month));
            before = (year, month, day_of_month);
        }
    }

    #[test]
    fn commit_times_outside_four_digit_years_are_none() {
        assert_eq!(commit_time(-62_135_596_800_000_001), None);
        assert_eq!(commit_time(253_402_300_800_000_000), None);
        assert_eq!(
            commit_time(253_402_300_799_999_999).as_deref(),
            Some("9999-12-31T23:59:59.999999Z")
        );
    }

    #[test]
    fn rfc_3339_instants_are_told_from_other_text() {
        for text in [
            "2024-07-01T10:34:56Z",
            "2024-07-01t10:34:56.123456789z",
            "2024-07-01T10:34:56+05:30",
            "2024-07-01T10:34:56.1-00:00",
            "1990-12-31T15:59:60-08:00",
        ] {
            assert!(is_instant(text), "{text}");
        }
        for text in [
            "",
            "2024-07-01",
            "2024-07-01T10:34:56",
            "2024-07-01 10:34:56Z",
            "2024-07-01T10:34:56.Z",
            "2024-07-01T10:34:56+0530",
            "2024-07-01T10:34:56+24:00",
            "2024-02-30T10:34:56Z",
            "0000-07-01T10:34:56Z",
            "2024-07-01T10:34:60Z",
            "2024-07-01T24:00:00Z",
            "2024-07-01T10:34:56ZZ",
        ] {
            assert!(!is_instant(text), "{text}");
        }
    }
}
