//! Instants and local dates from outside: strict RFC 3339 with an offset, read to the microsecond.

use super::decimal::quoted;
use super::fault::Fault;
use chrono::{DateTime, Datelike, NaiveDate, Timelike};
use std::fmt;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub i64);

const SECOND: i64 = 1_000_000;
pub const HOUR: i64 = 3600 * SECOND;

impl Instant {
    /// Reads `2026-03-01T10:00:00Z`, `2026-03-01T10:00:00.123456789+02:00`. Digits beyond the
    /// microsecond are cut, never rounded, so no instant moves into the next period. Second 60 counts
    /// as the second after, as Postgres reads it. Anything without an offset is refused: there is no
    /// session time zone here.
    pub fn parse(text: &str) -> Result<Instant, Fault> {
        parse_rfc3339(text).ok_or_else(|| {
            Fault::value(format!("{} is not an instant", quoted(text)))
                .with_hint("Write RFC 3339 with an offset: 2026-03-01T10:00:00Z or 2026-03-01T10:00:00+02:00")
        })
    }

    /// The first instant of its UTC month.
    pub fn month_start(self) -> Instant {
        let days = self.0.div_euclid(24 * HOUR);
        let date = NaiveDate::from_num_days_from_ce_opt(days as i32 + 719_163).unwrap_or(NaiveDate::MIN);
        let into_month = i64::from(date.day0());
        Instant((days - into_month) * 24 * HOUR)
    }
}

/// Seconds of 0001-01-01 and of 10000-01-01, UTC.
const YEAR_1: i64 = -62_135_596_800;
const YEAR_10000: i64 = 253_402_300_800;

fn parse_rfc3339(text: &str) -> Option<Instant> {
    let bytes = text.as_bytes();
    let number = |from: usize, until: usize| -> Option<i64> {
        let digits = bytes.get(from..until)?;
        digits.iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, expected: u8| bytes.get(at).is_some_and(|b| b.eq_ignore_ascii_case(&expected));
    if !(is(4, b'-') && is(7, b'-') && is(10, b't') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(number(0, 4)? as i32, number(5, 7)? as u32, number(8, 10)? as u32)?;
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if date.year() < 1 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut micros = 0;
    if is(at, b'.') {
        at += 1;
        let start = at;
        while let Some(b) = bytes.get(at).filter(|b| b.is_ascii_digit()) {
            if at - start < 6 {
                micros = micros * 10 + i64::from(b - b'0');
            }
            at += 1;
        }
        if at == start {
            return None;
        }
        for _ in (at - start)..6 {
            micros *= 10;
        }
    }
    let offset = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b':') => {
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let days = i64::from(date.num_days_from_ce()) - 719_163;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    // The offset may lead out of the years that can be written again.
    (YEAR_1..YEAR_10000).contains(&seconds).then_some(Instant(seconds * SECOND + micros))
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = DateTime::from_timestamp_micros(self.0) else {
            return write!(f, "{} µs", self.0);
        };
        write!(f, "{}T{:02}:{:02}:{:02}", at.date_naive(), at.hour(), at.minute(), at.second())?;
        let micros = self.0.rem_euclid(SECOND);
        if micros != 0 {
            write!(f, ".{}", format!("{micros:06}").trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// A local date, strictly `YYYY-MM-DD`.
pub fn parse_date(text: &str) -> Result<NaiveDate, Fault> {
    let strict = text.len() == 10
        && text.bytes().enumerate().all(
            |(i, b)| {
                if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() }
            },
        );
    strict.then(|| text.parse::<NaiveDate>().ok()).flatten().filter(|date| date.year() >= 1).ok_or_else(
        || {
            Fault::value(format!("{} is not a date", quoted(text)))
                .with_hint("Write a local date: 2026-03-01")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_strict_rfc3339() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("2026-03-01T10:00:00+02:00", "2026-03-01T08:00:00Z"),
            ("2026-03-01T10:00:00-05:30", "2026-03-01T15:30:00Z"),
            ("2023-11-16T18:17:03.9799600Z", "2023-11-16T18:17:03.97996Z"),
            ("2025-03-31T23:59:59.999999999Z", "2025-03-31T23:59:59.999999Z"),
            ("2024-02-29t12:00:00.5z", "2024-02-29T12:00:00.5Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59-00:00", "9999-12-31T23:59:59Z"),
            ("0001-01-01T00:00:00-14:00", "0001-01-01T14:00:00Z"),
            ("0001-01-01T14:00:00+14:00", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(Instant::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "2026-03-01",
            "2026-03-01T10:00:00",
            "2026-03-01 10:00:00Z",
            "2026-3-1T10:00:00Z",
            "2026-02-30T10:00:00Z",
            "2026-03-01T24:00:00Z",
            "2026-03-01T10:60:00Z",
            "2026-03-01T10:00:61Z",
            "10000-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T13:59:59.999999+14:00",
            "9999-12-31T23:59:60Z",
            "9999-12-31T12:00:00-12:00",
            "2026-03-01T10:00:00+0200",
            "2026-03-01T10:00:00+2:00",
            "2026-03-01T10:00:00.Z",
            "2026-03-01T10:00:00Z ",
            "infinity",
            "now",
            "2026-03-01T10:00:00+24:00",
            "2026-03-01T10:00Z",
            "２026-03-01T10:00:00Z",
        ] {
            assert!(Instant::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn months_start_at_midnight_utc() {
        for (at, month) in [
            ("2024-02-29T23:59:59Z", "2024-02-01T00:00:00Z"),
            ("1969-12-31T00:00:00Z", "1969-12-01T00:00:00Z"),
        ] {
            assert_eq!(Instant::parse(at).unwrap().month_start().to_string(), month);
        }
    }

    #[test]
    fn dates_are_strict() {
        assert_eq!(parse_date("2024-02-29").unwrap().to_string(), "2024-02-29");
        for bad in ["2025-02-29", "2024-2-29", "2024-02-29T00:00:00Z", "", "+2024-02-2", "0000-01-01"] {
            assert!(parse_date(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_chrono(micros in -60_000_000_000_000_000i64..250_000_000_000_000_000) {
            let at = DateTime::from_timestamp_micros(micros).unwrap();
            let text = Instant(micros).to_string();
            let years = 1..=9999;
            prop_assume!(years.contains(&at.year()));
            prop_assert_eq!(Instant::parse(&text).unwrap(), Instant(micros));
            prop_assert_eq!(DateTime::parse_from_rfc3339(&text).unwrap().timestamp_micros(), micros);
        }
    }
}
