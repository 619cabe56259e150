//! Timestamps: DateStyle ISO, which is ISO 8601 but for a blank, and TimeZone UTC.

use super::form::{Malformed, write_plain};

/// Whether a zone belongs to the type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Zone {
    /// `timestamp`
    None,
    /// `timestamptz`, of a session in UTC.
    Utc,
}

/// Appends a timestamp. A year before Christ and an infinite one have no ISO 8601 that PostgreSQL
/// reads: those stay its text. A year above 9999 has five or six digits and no sign, for with the
/// sign that ISO 8601 wants PostgreSQL does not read it.
pub(super) fn write(text: &[u8], zone: Zone, target: &mut Vec<u8>) -> Result<(), Malformed> {
    let (instant, is_before_christ) =
        text.strip_suffix(b" BC").map_or((text, false), |instant| (instant, true));
    let Some((date, time)) = parts(instant, zone) else {
        if matches!(text, b"infinity" | b"-infinity") {
            write_plain(text, target);
            return Ok(());
        }
        return Err(Malformed::not(match zone {
            Zone::None => "a timestamp in ISO style",
            Zone::Utc => "a timestamp in ISO style and UTC",
        }));
    };
    if is_before_christ {
        write_plain(text, target);
        return Ok(());
    }
    target.push(b'"');
    target.extend_from_slice(date);
    target.push(b'T');
    target.extend_from_slice(time);
    target.extend_from_slice(match zone {
        Zone::None => b"\"",
        Zone::Utc => b"Z\"",
    });
    Ok(())
}

/// Date, and time without its zone; none where it is neither.
fn parts(instant: &[u8], zone: Zone) -> Option<(&[u8], &[u8])> {
    let instant = match zone {
        Zone::None => instant,
        Zone::Utc => instant.strip_suffix(b"+00")?,
    };
    let blank = instant.iter().position(|byte| *byte == b' ')?;
    let (date, time) = (instant.get(..blank)?, instant.get(blank + 1..)?);
    (is_date(date) && is_time(time)).then_some((date, time))
}

/// `2026-02-03`, with a year of four digits or more.
fn is_date(text: &[u8]) -> bool {
    let Some((year, rest)) = text.split_last_chunk::<6>() else { return false };
    (4..=6).contains(&year.len())
        && year.iter().all(u8::is_ascii_digit)
        && has_pattern(rest, b"-00-00")
}

/// `04:05:06` or `04:05:06.789`
fn is_time(text: &[u8]) -> bool {
    let Some((seconds, fraction)) = text.split_first_chunk::<8>() else { return false };
    let is_fraction = match fraction {
        [] => true,
        [b'.', digits @ ..] => {
            (1..=6).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    is_fraction && has_pattern(seconds, b"00:00:00")
}

/// Whether a digit stands wherever the pattern has one, and else what the pattern has.
fn has_pattern<const LENGTH: usize>(text: &[u8; LENGTH], pattern: &[u8; LENGTH]) -> bool {
    text.iter().zip(pattern).all(|(byte, expected)| match expected {
        b'0' => byte.is_ascii_digit(),
        mark => byte == mark,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, zone: Zone) -> Result<String, Malformed> {
        let mut target = Vec::new();
        write(text.as_bytes(), zone, &mut target)?;
        Ok(String::from_utf8(target).expect("ASCII"))
    }

    #[test]
    fn timestamps_get_their_t_and_those_with_a_zone_their_z() {
        for (text, expected) in [
            ("2026-02-03 04:05:06", "\"2026-02-03T04:05:06\""),
            ("2026-02-03 04:05:06.789", "\"2026-02-03T04:05:06.789\""),
            ("294276-12-31 23:59:59.999999", "\"294276-12-31T23:59:59.999999\""),
            ("0044-03-15 00:00:00 BC", "\"0044-03-15 00:00:00 BC\""),
            ("-infinity", "\"-infinity\""),
        ] {
            assert_eq!(written(text, Zone::None).as_deref(), Ok(expected));
        }
        for (text, expected) in [
            ("2026-02-03 04:05:06.5+00", "\"2026-02-03T04:05:06.5Z\""),
            ("0044-03-15 01:02:03+00 BC", "\"0044-03-15 01:02:03+00 BC\""),
            ("infinity", "\"infinity\""),
        ] {
            assert_eq!(written(text, Zone::Utc).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_sessions_with_other_settings_write_is_refused() {
        for (text, zone) in [
            ("2026-02-03 04:05:06+01", Zone::Utc),
            ("2026-02-03 04:05:06", Zone::Utc),
            ("2026-02-03 04:05:06+00", Zone::None),
            ("03.02.2026 04:05:06", Zone::None),
            ("Tue Feb 03 04:05:06 2026", Zone::None),
            ("2026-02-03T04:05:06", Zone::None),
            ("2026-02-03 04:05", Zone::None),
            ("2026-02-03 04:05:06.", Zone::None),
            ("2026-02-03 04:05:06.1234567", Zone::None),
            ("226-02-03 04:05:06", Zone::None),
            (" BC", Zone::None),
            ("", Zone::None),
        ] {
            assert!(written(text, zone).is_err(), "{text}");
        }
    }
}
