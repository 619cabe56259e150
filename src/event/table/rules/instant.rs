//! Timestamps and durations: what PostgreSQL writes, what CEL reads, and what is asked of them.
//!
//! A timestamp is PostgreSQL's own: microseconds, from 4713 BC to 294276, and both infinities, so
//! that any two compare as they do in SQL. CEL's years are those from 0001 to 9999: what shows the
//! calendar refuses others.

use std::io::Write as _;

use crate::{
    change::PgTimestamp,
    event::{table::rules::Problem, timestamp},
};

const MICROSECONDS_PER_SECOND: i64 = 1_000_000;
const MICROSECONDS_PER_DAY: i64 = 86_400 * MICROSECONDS_PER_SECOND;

/// From 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_SECONDS: i64 = EPOCH_DAYS * 86_400;

/// Microseconds since 2000-01-01 00:00 UTC; the ends of the range are the infinities (C names
/// `DT_NOEND`, `DT_NOBEGIN`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Timestamp(i64);

/// Microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Duration(i64);

/// A field of the calendar or the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    FullYear,
    Month,
    DayOfYear,
    DayOfMonth,
    Date,
    DayOfWeek,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

impl Timestamp {
    pub(super) const INFINITY: Self = Self(i64::MAX);
    pub(super) const MINUS_INFINITY: Self = Self(i64::MIN);

    /// The instant so many microseconds after 2000; `None` for what is an infinity here.
    fn finite(microseconds: i64) -> Option<Self> {
        (microseconds != i64::MAX && microseconds != i64::MIN).then_some(Self(microseconds))
    }

    fn is_finite(self) -> bool {
        Self::finite(self.0).is_some()
    }

    /// Reads the text of a timestamp, or of a timestamptz under TimeZone UTC, in DateStyle ISO.
    pub(super) fn parse_column(text: &str) -> Option<Self> {
        match text {
            "infinity" => return Some(Self::INFINITY),
            "-infinity" => return Some(Self::MINUS_INFINITY),
            _ => {}
        }
        let (text, is_before_christ) = match text.strip_suffix(" BC") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (date, time) = text.split_once(' ')?;
        let mut date = date.split('-');
        // More digits than a year can have would not fit the sums below.
        let of_length = |length| move |text: &str| digits(text).filter(|_| text.len() <= length);
        let year = date.next().and_then(of_length(6))?;
        // 1 BC is the year 0.
        let year = if is_before_christ { 1 - year } else { year };
        let month = date.next().and_then(of_length(2))?;
        let days = days_since_1970(year, month, date.next().and_then(of_length(2))?);
        let time = time.strip_suffix("+00").unwrap_or(time);
        let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
        let mut time = time.split(':').map(of_length(2));
        let mut seconds = 0;
        for _ in 0..3 {
            seconds = seconds * 60 + time.next()??;
        }
        if time.next().is_some() || date.next().is_some() {
            return None;
        }
        let fraction = match fraction {
            "" => 0,
            _ => digits(fraction)? * 10_i64.pow(6_u32.checked_sub(length(fraction))?),
        };
        let of_day = seconds * MICROSECONDS_PER_SECOND + fraction;
        let days = days.checked_sub(EPOCH_DAYS)?;
        days.checked_mul(MICROSECONDS_PER_DAY)?.checked_add(of_day).and_then(Self::finite)
    }

    /// Reads an RFC 3339 instant of the years 0001 to 9999, no finer than microseconds.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let malformed = Problem::NotA { wanted: "timestamp, as 2026-01-31T12:00:00Z" };
        if !timestamp::is_instant(text) {
            return Err(malformed);
        }
        let Ok(instant) = text.parse::<jiff::Timestamp>() else { return Err(malformed) };
        if instant.subsec_nanosecond() % 1_000 != 0 {
            return Err(Problem::NotA { wanted: "timestamp in whole microseconds" });
        }
        Ok(Self(PgTimestamp::from_unix_microseconds(instant.as_microsecond()).0))
    }

    pub(super) fn from_seconds(seconds: i64) -> Result<Self, Problem> {
        let seconds = seconds.checked_sub(EPOCH_SECONDS);
        let microseconds = seconds.and_then(|seconds| seconds.checked_mul(MICROSECONDS_PER_SECOND));
        let timestamp = microseconds.and_then(Self::finite);
        let is_of_calendar = |timestamp: &Self| timestamp.rfc_3339(&mut [0; 27]).is_some();
        timestamp.filter(is_of_calendar).ok_or(Problem::OutOfRange { operation: "timestamp()" })
    }

    /// Seconds since 1970, rounded down.
    pub(super) fn seconds(self) -> Result<i64, Problem> {
        match self.is_finite() {
            true => Ok(self.0.div_euclid(MICROSECONDS_PER_SECOND) + EPOCH_SECONDS),
            false => Err(Problem::BeyondCalendar { operation: "int()" }),
        }
    }

    /// `None` where there is no such instant, or this one is infinite.
    pub(super) fn plus(self, duration: Duration) -> Option<Self> {
        self.is_finite().then_some(())?;
        self.0.checked_add(duration.0).and_then(Self::finite)
    }

    /// `None` as of [`Timestamp::plus`].
    pub(super) fn minus(self, duration: Duration) -> Option<Self> {
        self.is_finite().then_some(())?;
        self.0.checked_sub(duration.0).and_then(Self::finite)
    }

    /// `None` where one of both is infinite, or they are too far apart.
    pub(super) fn since(self, earlier: Self) -> Option<Duration> {
        (self.is_finite() && earlier.is_finite()).then_some(())?;
        self.0.checked_sub(earlier.0).map(Duration)
    }

    /// `YYYY-MM-DDTHH:MM:SS.ffffffZ`; `None` outside the years 0001 to 9999.
    pub(super) fn rfc_3339(self, scratch: &mut [u8; 27]) -> Option<&str> {
        self.is_finite().then_some(())?;
        timestamp::from_timestamp(PgTimestamp(self.0), scratch)
    }

    /// The field, so many minutes east of UTC. `operation` asks for it.
    pub(super) fn field(
        self,
        field: Field,
        minutes_east: i64,
        operation: &'static str,
    ) -> Result<i64, Problem> {
        let beyond = Problem::BeyondCalendar { operation };
        let shift = Duration(minutes_east * 60 * MICROSECONDS_PER_SECOND);
        let Some(local) = self.plus(shift) else { return Err(beyond) };
        if local.rfc_3339(&mut [0; 27]).is_none() {
            return Err(beyond);
        }
        let days = local.0.div_euclid(MICROSECONDS_PER_DAY) + EPOCH_DAYS;
        let of_day = local.0.rem_euclid(MICROSECONDS_PER_DAY);
        let (year, month, day) = timestamp::civil_date(days);
        Ok(match field {
            Field::FullYear => year,
            Field::Month => month - 1,
            Field::DayOfYear => days - days_since_1970(year, 1, 1),
            Field::DayOfMonth => day - 1,
            Field::Date => day,
            // 1970-01-01 was a Thursday.
            Field::DayOfWeek => (days + 4).rem_euclid(7),
            Field::Hours => of_day / (3600 * MICROSECONDS_PER_SECOND),
            Field::Minutes => of_day / (60 * MICROSECONDS_PER_SECOND) % 60,
            Field::Seconds => of_day / MICROSECONDS_PER_SECOND % 60,
            Field::Milliseconds => of_day / 1_000 % 1_000,
        })
    }
}

/// Minutes east of UTC, of `UTC`, `Z` or `+05:30`. Zones by name are not known here.
pub(super) fn minutes_east(zone: &str) -> Result<i64, Problem> {
    match zone {
        "UTC" => Ok(0),
        _ => timestamp::offset_minutes(zone.as_bytes())
            .map(i64::from)
            .ok_or(Problem::NotA { wanted: "time zone that is known here, as UTC or +02:00" }),
    }
}

/// Days of the proleptic Gregorian calendar; the inverse of [`timestamp::civil_date`].
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_FROM_MARCH_0000_TO_1970: i64 = 719_468;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - DAYS_FROM_MARCH_0000_TO_1970
}

/// Bytes.
fn length(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

/// A number of digits alone.
fn digits(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

impl Duration {
    /// Reads numbers with units, as `1h30m`, `-1.5s` or `100ms`, no finer than microseconds.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let malformed = Problem::NotA { wanted: "duration, as 1h30m or 1.5s" };
        let (is_negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest.is_empty() {
            return Err(malformed);
        }
        let mut nanoseconds: i128 = 0;
        while !rest.is_empty() && rest != "0" {
            let Some((part, behind)) = duration_part(rest) else { return Err(malformed) };
            let Some(sum) = nanoseconds.checked_add(part) else { return Err(malformed) };
            nanoseconds = sum;
            rest = behind;
        }
        if nanoseconds % 1_000 != 0 {
            return Err(Problem::NotA { wanted: "duration in whole microseconds" });
        }
        let microseconds = nanoseconds / if is_negative { -1_000 } else { 1_000 };
        let out_of_range = Problem::OutOfRange { operation: "duration()" };
        i64::try_from(microseconds).map(Self).map_err(|_| out_of_range)
    }

    pub(super) fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    pub(super) fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The whole of it in that unit, towards zero; `None` for a field of the calendar.
    pub(super) fn field(self, field: Field) -> Option<i64> {
        Some(match field {
            Field::Hours => self.0 / (3600 * MICROSECONDS_PER_SECOND),
            Field::Minutes => self.0 / (60 * MICROSECONDS_PER_SECOND),
            Field::Seconds => self.0 / MICROSECONDS_PER_SECOND,
            Field::Milliseconds => self.0 / 1_000,
            Field::FullYear
            | Field::Month
            | Field::DayOfYear
            | Field::DayOfMonth
            | Field::Date
            | Field::DayOfWeek => return None,
        })
    }

    /// Seconds, as CEL's `string()` has them: `-1.5s`.
    pub(super) fn text(self) -> String {
        let magnitude = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        format!("{sign}{}s", seconds_text(magnitude))
    }

    /// ISO 8601, as PostgreSQL writes an interval: `PT1H30M`, `PT-1.5S`.
    pub(super) fn write_iso_8601(self, target: &mut Vec<u8>) {
        let magnitude = self.0.unsigned_abs();
        let per_second = MICROSECONDS_PER_SECOND.unsigned_abs();
        let (hours, minutes) =
            (magnitude / (3600 * per_second), magnitude / (60 * per_second) % 60);
        let seconds = magnitude % (60 * per_second);
        let sign = if self.0 < 0 { "-" } else { "" };
        target.extend_from_slice(b"PT");
        let parts = [
            (hours != 0, hours.to_string(), 'H'),
            (minutes != 0, minutes.to_string(), 'M'),
            (seconds != 0 || magnitude == 0, seconds_text(seconds), 'S'),
        ];
        for (_, number, unit) in parts.iter().filter(|(is_there, ..)| *is_there) {
            write!(target, "{sign}{number}{unit}").expect("a vector takes all");
        }
    }
}

/// Seconds with their fraction, of microseconds.
fn seconds_text(microseconds: u64) -> String {
    let per_second = MICROSECONDS_PER_SECOND.unsigned_abs();
    let (seconds, fraction) = (microseconds / per_second, microseconds % per_second);
    match fraction {
        0 => seconds.to_string(),
        _ => format!("{seconds}.{fraction:06}").trim_end_matches('0').to_owned(),
    }
}

/// The nanoseconds of a number and its unit, and what follows them.
fn duration_part(text: &str) -> Option<(i128, &str)> {
    // No more digits than i128 holds with the largest unit, by far.
    const DIGITS_MAX: usize = 18;
    let number_end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, rest) = text.split_at_checked(number_end)?;
    let units = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000_i128),
    ];
    let (unit, rest) =
        units.iter().find_map(|(name, unit)| Some((*unit, rest.strip_prefix(name)?)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() > DIGITS_MAX || whole.len() + fraction.len() == 0 {
        return None;
    }
    let part = |text: &str| if text.is_empty() { Some(0) } else { digits(text).map(i128::from) };
    let scale = 10_i128.pow(length(fraction));
    let scaled = (part(whole)? * scale + part(fraction)?) * unit;
    // What is finer than a nanosecond stays visible as a remainder that no microsecond has.
    let rounded = scaled / scale + i128::from(scaled % scale != 0);
    Some((rounded, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(text: &str) -> Option<i64> {
        Timestamp::parse_column(text).map(|timestamp| timestamp.0)
    }

    fn of_unix(microseconds: i64) -> Timestamp {
        Timestamp(PgTimestamp::from_unix_microseconds(microseconds).0)
    }

    #[test]
    fn column_texts_agree_with_a_calendar_library() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let microseconds = random.i64(-62_135_596_800_000_000..=253_402_207_199_999_999);
            let instant = jiff::Timestamp::from_microsecond(microseconds).expect("in range");
            let text = instant.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
            let trimmed = text.trim_end_matches('0').trim_end_matches('.');
            let trimmed = if text.ends_with(".000000") { &text[..19] } else { trimmed };
            let expected = Some(of_unix(microseconds).0);
            assert_eq!(column(trimmed), expected, "{trimmed}");
            assert_eq!(column(&format!("{trimmed}+00")), expected, "{trimmed}");
        }
    }

    #[test]
    fn timestamps_order_as_in_postgresql_up_to_both_infinities() {
        let texts = [
            "-infinity",
            "4713-01-01 00:00:00 BC",
            "0044-03-15 01:02:03.5+00 BC",
            "0001-12-31 23:59:59 BC",
            "0001-01-01 00:00:00",
            "1969-12-31 23:59:59.999999",
            "1970-01-01 00:00:00+00",
            "9999-12-31 23:59:59.999999",
            "10000-01-01 00:00:00",
            "294276-12-31 23:59:59.999999+00",
            "infinity",
        ];
        let parsed: Vec<i64> = texts.iter().map(|text| column(text).expect(text)).collect();
        assert!(parsed.is_sorted_by(|one, next| one < next), "{parsed:?}");
        // C names `END_TIMESTAMP` and `MIN_TIMESTAMP`.
        assert_eq!(column("294276-12-31 23:59:59.999999+00"), Some(9_223_371_331_200_000_000 - 1));
        assert_eq!(column("4714-11-24 00:00:00 BC"), Some(-211_813_488_000_000_000));
    }

    #[test]
    fn other_texts_are_no_timestamps_of_a_column() {
        for text in [
            "",
            "2024-01-01",
            "2024-01-01 10:00",
            "2024-01-01T10:00:00",
            "x-01-01 10:00:00",
            "2024-01-01 10:00:00+02",
            "2024-01-01 10:00:00.1234567",
            "2024-01-01 10:00:00:00",
            "2024-01-01-01 10:00:00",
            "999999999999999999-01-01 00:00:00",
            "2024-999999999999999999-01 00:00:00",
            "2024-01-01 999999999999999999:00:00",
            "99999999999999999999-1-1 0:0:0",
        ] {
            assert_eq!(column(text), None, "{text}");
        }
    }

    #[test]
    fn fields_agree_with_a_calendar_library() {
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..5_000 {
            let microseconds = random.i64(-62_100_000_000_000_000..=253_402_000_000_000_000);
            let minutes = random.i32(-1439..=1439);
            let offset = jiff::tz::Offset::from_seconds(minutes * 60).expect("in range");
            let instant = jiff::Timestamp::from_microsecond(microseconds).expect("in range");
            let local = offset.to_datetime(instant);
            let field = |field| {
                of_unix(microseconds).field(field, i64::from(minutes), "f()").expect("in range")
            };
            assert_eq!(field(Field::FullYear), i64::from(local.year()));
            assert_eq!(field(Field::Month), i64::from(local.month()) - 1);
            assert_eq!(field(Field::DayOfYear), i64::from(local.day_of_year()) - 1);
            assert_eq!(field(Field::DayOfMonth), i64::from(local.day()) - 1);
            assert_eq!(field(Field::Date), i64::from(local.day()));
            let sunday_based = local.weekday().to_sunday_zero_offset();
            assert_eq!(field(Field::DayOfWeek), i64::from(sunday_based));
            assert_eq!(field(Field::Hours), i64::from(local.hour()));
            assert_eq!(field(Field::Minutes), i64::from(local.minute()));
            assert_eq!(field(Field::Seconds), i64::from(local.second()));
            assert_eq!(field(Field::Milliseconds), i64::from(local.millisecond()));
        }
    }

    #[test]
    fn beyond_the_calendar_there_are_no_fields_and_no_sums() {
        for timestamp in [Timestamp::INFINITY, Timestamp::MINUS_INFINITY] {
            assert_eq!(timestamp.plus(Duration(1)), None);
            assert_eq!(timestamp.minus(Duration(1)), None);
            assert_eq!(timestamp.since(Timestamp(0)), None);
            assert_eq!(Timestamp(0).since(timestamp), None);
            assert!(timestamp.seconds().is_err());
            assert!(timestamp.field(Field::FullYear, 0, "f()").is_err());
        }
        let year_10000 = of_unix(253_402_300_800_000_000);
        assert_eq!(
            year_10000.field(Field::FullYear, 0, "getFullYear()"),
            Err(Problem::BeyondCalendar { operation: "getFullYear()" })
        );
        assert_eq!(year_10000.field(Field::FullYear, -1, "f()"), Ok(9999));
        assert_eq!(year_10000.rfc_3339(&mut [0; 27]), None);
        assert_eq!(Timestamp(i64::MAX - 1).plus(Duration(1)), None);
        assert!(Timestamp::from_seconds(253_402_300_799).is_ok());
        assert!(Timestamp::from_seconds(253_402_300_800).is_err());
        assert!(Timestamp::from_seconds(i64::MAX).is_err());
    }

    #[test]
    fn rfc_3339_texts_are_read_to_the_microsecond() {
        let read = |text: &str| Timestamp::parse(text).map(|timestamp| timestamp.0);
        assert_eq!(read("2000-01-01T02:00:00.5+02:00"), Ok(500_000));
        assert_eq!(read("2000-01-01T00:00:00.000001000Z"), Ok(1));
        assert!(read("1970-01-01T00:00:00.0000001Z").is_err());
        for text in ["", "1970-01-01", "1970-01-01 00:00:00Z", "1970-01-01T00:00:00", "infinity"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_their_units_to_the_microsecond() {
        let read = |text: &str| Duration::parse(text).map(|duration| duration.0);
        for (text, microseconds) in [
            ("0", 0),
            ("1s", 1_000_000),
            ("-1.5s", -1_500_000),
            ("1h30m", 5_400_000_000),
            ("100ms", 100_000),
            ("7us", 7),
            ("1000ns", 1),
            ("+.5s", 500_000),
            ("2562047788h", 9_223_372_036_800_000_000),
        ] {
            assert_eq!(read(text), Ok(microseconds), "{text}");
        }
        for text in [
            "",
            "-",
            "1",
            "s",
            "1d",
            "1.5",
            "1h ",
            "1ns",
            "0.0000001s",
            "0.0000000000001s",
            "1..5s",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read("25620477880h").is_err());
        assert!(read("999999999999999999999999999999999999999h").is_err());
    }

    #[test]
    fn durations_are_written_as_seconds_and_as_intervals() {
        for (microseconds, text, interval) in [
            (0, "0s", "PT0S"),
            (5_400_000_000, "5400s", "PT1H30M"),
            (-1_500_000, "-1.5s", "PT-1.5S"),
            (-3_661_000_001, "-3661.000001s", "PT-1H-1M-1.000001S"),
            (i64::MIN, "-9223372036854.775808s", "PT-2562047788H-54.775808S"),
        ] {
            let duration = Duration(microseconds);
            assert_eq!(duration.text(), text);
            let mut written = Vec::new();
            duration.write_iso_8601(&mut written);
            assert_eq!(String::from_utf8(written).as_deref(), Ok(interval));
        }
    }
}
