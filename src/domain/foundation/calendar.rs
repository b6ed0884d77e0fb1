//! Billing periods on local dates (rules.md 2). Instants come later, from Postgres's time zone data.
//!
//! Boundary n is always the *original* anchor plus n intervals, its day clamped to the month's last:
//! 31 Jan → 28 Feb → 31 Mar. Adding a month to the previous boundary would drift to the 28th.

use super::fault::Fault;
use chrono::{Datelike, Days, Months, NaiveDate};
use std::fmt;

/// Longest interval, in its own unit.
pub const INTERVAL_COUNT_MAX: u32 = 1200;

/// How long a period is. Weeks are 7 days, years 12 months.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interval {
    Days(u32),
    Months(u32),
}

impl Interval {
    /// Reads `1 month`, `3 months`, `2 weeks`, `10 days`, `1 year`.
    pub fn parse(text: &str) -> Result<Interval, Fault> {
        let wrong = || {
            Fault::value(format!("\"{text}\" is not an interval"))
                .with_hint("Write a count and a unit: 1 month, 3 months, 1 year, 2 weeks or 10 days.")
        };
        let (count, unit) = text.split_once(' ').ok_or_else(wrong)?;
        if count.is_empty() || count.len() > 4 || !count.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let count: u32 = count.parse().map_err(|_| wrong())?;
        let interval = match unit {
            "day" | "days" => Interval::Days(count),
            "week" | "weeks" => Interval::Days(count * 7),
            "month" | "months" => Interval::Months(count),
            "year" | "years" => Interval::Months(count * 12),
            _ => return Err(wrong()),
        };
        let size = match interval {
            Interval::Days(n) | Interval::Months(n) => n,
        };
        if size == 0 || size > INTERVAL_COUNT_MAX {
            return Err(wrong());
        }
        Ok(interval)
    }

    /// Whether periods of this length tile one of the other length.
    pub fn divides(self, other: Interval) -> bool {
        match (self, other) {
            (Interval::Days(a), Interval::Days(b)) | (Interval::Months(a), Interval::Months(b)) => b % a == 0,
            _ => false,
        }
    }

    /// `anchor + n × interval`, month ends clamped. `None` outside the years 1–9999.
    fn times(self, anchor: NaiveDate, n: u32) -> Option<NaiveDate> {
        let date = match self {
            Interval::Days(days) => anchor.checked_add_days(Days::new(u64::from(days) * u64::from(n)))?,
            Interval::Months(months) => anchor.checked_add_months(Months::new(months.checked_mul(n)?))?,
        };
        (date.year() <= 9999).then_some(date)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self {
            Interval::Days(n) => (n, "day"),
            Interval::Months(n) => (n, "month"),
        };
        write!(f, "{count} {unit}{}", if *count == 1 { "" } else { "s" })
    }
}

/// Where the boundaries lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alignment {
    /// Firsts of months (of quarters, of years) and Mondays; the first period is usually partial.
    Calendar,
    /// The contract's own start date and its anniversaries.
    Anniversary,
}

impl Alignment {
    pub fn as_str(self) -> &'static str {
        match self {
            Alignment::Calendar => "calendar",
            Alignment::Anniversary => "anniversary",
        }
    }

    pub fn parse(text: &str) -> Result<Alignment, Fault> {
        match text {
            "calendar" => Ok(Alignment::Calendar),
            "anniversary" => Ok(Alignment::Anniversary),
            other => Err(Fault::value(format!("alignment \"{other}\" is not known"))
                .with_hint("Use calendar or anniversary.")),
        }
    }
}

/// A contract's rhythm: from which day, how often, aligned to what, until which day (exclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    starts_on: NaiveDate,
    ends_on: Option<NaiveDate>,
    interval: Interval,
    /// Start of the whole period that holds `starts_on`.
    anchor: NaiveDate,
}

/// One period `[starts_on, ends_on)` and the whole period it is part of, for proration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub n: u32,
    pub starts_on: NaiveDate,
    pub ends_on: NaiveDate,
    pub whole_starts_on: NaiveDate,
    pub whole_ends_on: NaiveDate,
}

impl Period {
    pub fn is_whole(&self) -> bool {
        self.starts_on == self.whole_starts_on && self.ends_on == self.whole_ends_on
    }
}

impl Calendar {
    pub fn new(
        starts_on: NaiveDate,
        ends_on: Option<NaiveDate>,
        interval: Interval,
        alignment: Alignment,
    ) -> Result<Calendar, Fault> {
        if let Some(ends_on) = ends_on.filter(|end| *end <= starts_on) {
            return Err(Fault::value(format!("end {ends_on} is not after start {starts_on}")));
        }
        let anchor = match (alignment, interval) {
            (Alignment::Anniversary, _) => starts_on,
            (Alignment::Calendar, Interval::Months(months)) if months <= 12 && 12 % months == 0 => {
                let month0 = starts_on.month0() - starts_on.month0() % months;
                NaiveDate::from_ymd_opt(starts_on.year(), month0 + 1, 1).expect("a first of a month exists")
            }
            (Alignment::Calendar, Interval::Days(1)) => starts_on,
            (Alignment::Calendar, Interval::Days(7)) => {
                let back = starts_on.weekday().num_days_from_monday();
                starts_on.checked_sub_days(Days::new(back.into())).unwrap_or(starts_on)
            }
            (Alignment::Calendar, other) => {
                return Err(Fault::value(format!("an interval of {other} has no calendar alignment"))
                    .with_hint(
                        "Use alignment anniversary, or 1, 2, 3, 4, 6 or 12 months, 1 week or 1 day.",
                    ));
            }
        };
        Ok(Calendar { starts_on, ends_on, interval, anchor })
    }

    /// Boundary n: the start of period n, the contract's end at the latest. `None` past that end or year 9999.
    pub fn boundary(&self, n: u32) -> Option<NaiveDate> {
        if n == 0 {
            return Some(self.starts_on);
        }
        match (self.grid(n), self.ends_on) {
            (Some(at), None) => Some(at),
            (Some(at), Some(end)) if at < end => Some(at),
            (_, Some(end)) => {
                // The end is a boundary once: only where the period before it starts inside the contract.
                let before = if n == 1 { Some(self.starts_on) } else { self.grid(n - 1) };
                before.filter(|b| *b < end).map(|_| end)
            }
            (None, None) => None,
        }
    }

    fn grid(&self, n: u32) -> Option<NaiveDate> {
        self.interval.times(self.anchor, n)
    }

    /// Period n, `None` past the contract's end.
    pub fn period(&self, n: u32) -> Option<Period> {
        Some(Period {
            n,
            starts_on: self.boundary(n)?,
            ends_on: self.boundary(n + 1)?,
            whole_starts_on: self.grid(n)?,
            whole_ends_on: self.grid(n + 1)?,
        })
    }

    /// The period that holds a day; `None` before the start and from the end on.
    pub fn period_at(&self, day: NaiveDate) -> Option<Period> {
        if day < self.starts_on || self.ends_on.is_some_and(|end| day >= end) {
            return None;
        }
        let guess = match self.interval {
            Interval::Days(days) => u32::try_from((day - self.anchor).num_days()).ok()? / days,
            Interval::Months(months) => {
                let of = |d: NaiveDate| d.year() * 12 + d.month0() as i32;
                u32::try_from(of(day) - of(self.anchor)).ok()? / months
            }
        };
        (guess.saturating_sub(1)..=guess + 1)
            .filter_map(|n| self.period(n))
            .find(|p| p.starts_on <= day && day < p.ends_on)
    }

    /// The service periods of a charge billed `every` so often, inside billing period n.
    pub fn service_periods(&self, every: Interval, n: u32) -> Vec<Period> {
        let Some(billing) = self.period(n) else { return Vec::new() };
        let inner = Calendar { interval: every, anchor: self.service_anchor(every), ..*self };
        let Some(first) = inner.period_at(billing.starts_on) else { return Vec::new() };
        (first.n..).map_while(|k| inner.period(k)).take_while(|p| p.starts_on < billing.ends_on).collect()
    }

    /// The finer grid starts where the cell of the contract's first day starts.
    fn service_anchor(&self, every: Interval) -> NaiveDate {
        let mut k = 0;
        while let Some(next) = every.times(self.anchor, k + 1).filter(|next| *next <= self.starts_on) {
            debug_assert!(next > self.anchor);
            k += 1;
        }
        // Counting stays on the original anchor: only a calendar grid has cells before the start,
        // and those begin on firsts and Mondays, which no clamping moves.
        every.times(self.anchor, k).unwrap_or(self.anchor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn d(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn boundaries(start: &str, interval: &str, alignment: Alignment, n: u32) -> Vec<String> {
        let calendar = Calendar::new(d(start), None, Interval::parse(interval).unwrap(), alignment).unwrap();
        (0..=n).map(|n| calendar.boundary(n).unwrap().to_string()).collect()
    }

    /// rules.md 2, anchor rule.
    #[test]
    fn anniversaries_clamp_from_the_original_anchor() {
        use Alignment::Anniversary;
        assert_eq!(
            boundaries("2025-01-31", "1 month", Anniversary, 3),
            ["2025-01-31", "2025-02-28", "2025-03-31", "2025-04-30"]
        );
        assert_eq!(
            boundaries("2024-01-31", "1 month", Anniversary, 2),
            ["2024-01-31", "2024-02-29", "2024-03-31"]
        );
        assert_eq!(
            boundaries("2025-11-30", "3 months", Anniversary, 3),
            ["2025-11-30", "2026-02-28", "2026-05-30", "2026-08-30"]
        );
        assert_eq!(
            boundaries("2024-02-29", "1 year", Anniversary, 4),
            ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]
        );
        assert_eq!(
            boundaries("2025-01-01", "10 days", Anniversary, 2),
            ["2025-01-01", "2025-01-11", "2025-01-21"]
        );
    }

    #[test]
    fn calendar_periods_start_with_a_partial_one() {
        use Alignment::Calendar as C;
        assert_eq!(boundaries("2025-01-20", "1 month", C, 2), ["2025-01-20", "2025-02-01", "2025-03-01"]);
        assert_eq!(boundaries("2025-02-10", "3 months", C, 2), ["2025-02-10", "2025-04-01", "2025-07-01"]);
        assert_eq!(boundaries("2025-04-01", "3 months", C, 1), ["2025-04-01", "2025-07-01"]);
        assert_eq!(boundaries("2025-04-03", "1 year", C, 2), ["2025-04-03", "2026-01-01", "2027-01-01"]);
        assert_eq!(boundaries("2025-11-20", "1 week", C, 2), ["2025-11-20", "2025-11-24", "2025-12-01"]);
        let five = Calendar::new(d("2025-01-01"), None, Interval::Months(5), C);
        assert!(five.unwrap_err().message.contains("no calendar alignment"));
        let period = Calendar::new(d("2025-02-10"), None, Interval::Months(3), C).unwrap().period(0).unwrap();
        assert_eq!((period.whole_starts_on, period.whole_ends_on), (d("2025-01-01"), d("2025-04-01")));
        assert!(!period.is_whole());
    }

    #[test]
    fn the_end_is_the_last_boundary() {
        let calendar =
            Calendar::new(d("2025-01-01"), Some(d("2025-03-15")), Interval::Months(1), Alignment::Calendar)
                .unwrap();
        assert_eq!(calendar.boundary(2), Some(d("2025-03-01")));
        assert_eq!(calendar.boundary(3), Some(d("2025-03-15")));
        assert_eq!(calendar.boundary(4), None);
        assert_eq!(calendar.period(3), None);
        let last = calendar.period(2).unwrap();
        assert_eq!((last.ends_on, last.whole_ends_on), (d("2025-03-15"), d("2025-04-01")));
        let exact =
            Calendar::new(d("2025-01-01"), Some(d("2025-03-01")), Interval::Months(1), Alignment::Calendar)
                .unwrap();
        assert_eq!(exact.boundary(2), Some(d("2025-03-01")));
        assert_eq!(exact.boundary(3), None);
        assert!(exact.period(1).unwrap().is_whole());
    }

    #[test]
    fn service_periods_tile_a_billing_period() {
        let calendar =
            Calendar::new(d("2025-02-10"), None, Interval::Months(3), Alignment::Calendar).unwrap();
        let starts = |n| {
            calendar
                .service_periods(Interval::Months(1), n)
                .iter()
                .map(|p| (p.starts_on.to_string(), p.whole_starts_on.to_string()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            starts(0),
            [("2025-02-10".into(), "2025-02-01".into()), ("2025-03-01".into(), "2025-03-01".to_string())]
        );
        assert_eq!(starts(1).len(), 3);
        let anniversary =
            Calendar::new(d("2025-01-31"), None, Interval::Months(3), Alignment::Anniversary).unwrap();
        let inner: Vec<_> =
            anniversary.service_periods(Interval::Months(1), 1).iter().map(|p| p.starts_on).collect();
        assert_eq!(inner, [d("2025-04-30"), d("2025-05-31"), d("2025-06-30")]);
    }

    proptest! {
        #[test]
        fn periods_tile_time(day in 0i64..20_000, months in 1u32..13, length in proptest::option::of(1i64..2000), calendar in any::<bool>()) {
            let start = NaiveDate::from_num_days_from_ce_opt(719_163 + day as i32).unwrap();
            let end = length.map(|l| start + chrono::Duration::days(l));
            let alignment = if calendar && 12 % months == 0 { Alignment::Calendar } else { Alignment::Anniversary };
            let calendar = Calendar::new(start, end, Interval::Months(months), alignment).unwrap();
            let mut at = start;
            for n in 0..40 {
                let Some(period) = calendar.period(n) else {
                    prop_assert_eq!(Some(at), end);
                    break;
                };
                prop_assert_eq!(period.starts_on, at);
                prop_assert!(period.ends_on > at);
                prop_assert!(period.whole_starts_on <= at && period.whole_ends_on >= period.ends_on);
                let middle = at + chrono::Duration::days((period.ends_on - at).num_days() / 2);
                prop_assert_eq!(calendar.period_at(middle), Some(period));
                let every = Interval::Months(if months % 2 == 0 { months / 2 } else { 1 });
                prop_assume!(every.divides(Interval::Months(months)));
                let mut inner = at;
                for cell in calendar.service_periods(every, n) {
                    prop_assert_eq!(cell.starts_on, inner);
                    inner = cell.ends_on;
                }
                prop_assert_eq!(inner, period.ends_on);
                at = period.ends_on;
            }
        }
    }
}
