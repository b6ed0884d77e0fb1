//! Billing periods on local dates (rules.md 2). Instants come later, from Postgres's time zone data.
//!
//! Boundary n is always the *original* anchor plus n intervals, its day clamped to the month's last:
//! 31 Jan → 28 Feb → 31 Mar. Adding a month to the previous boundary would drift to the 28th.

use super::decimal::quoted;
use super::fault::Fault;
use super::instant::parse_date;
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
        self.fits(other).is_some()
    }

    /// `anchor + n × interval`, month ends clamped. `None` outside the years 1–9999.
    fn times(self, anchor: NaiveDate, n: i64) -> Option<NaiveDate> {
        let date = match self {
            Interval::Days(days) => {
                anchor.checked_add_signed(chrono::Duration::try_days(i64::from(days).checked_mul(n)?)?)?
            }
            Interval::Months(months) => {
                let count = u32::try_from(n.unsigned_abs()).ok()?.checked_mul(months)?;
                match n {
                    0.. => anchor.checked_add_months(Months::new(count))?,
                    _ => anchor.checked_sub_months(Months::new(count))?,
                }
            }
        };
        (1..=9999).contains(&date.year()).then_some(date)
    }

    /// `n` of these in one; `None` where it would be longer than an interval may be.
    pub fn multiple(self, n: u32) -> Option<Interval> {
        let count = |size: u32| size.checked_mul(n).filter(|count| (1..=INTERVAL_COUNT_MAX).contains(count));
        Some(match self {
            Interval::Days(days) => Interval::Days(count(days)?),
            Interval::Months(months) => Interval::Months(count(months)?),
        })
    }

    /// `n` intervals after a day, month ends clamped from that day: 31 Jan, 28 Feb, 31 Mar.
    pub fn nth_after(self, day: NaiveDate, n: u32) -> Option<NaiveDate> {
        self.times(day, n.into())
    }

    /// The whole number of times that `self` fits `other` without a rest.
    pub fn fits(self, other: Interval) -> Option<u32> {
        match (self, other) {
            (Interval::Days(a), Interval::Days(b)) | (Interval::Months(a), Interval::Months(b)) => {
                (b % a == 0).then_some(b / a)
            }
            _ => None,
        }
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
///
/// Its text is what is stored, so that one column says all of it: `calendar`, `anniversary`, `anniversary of 2026-01-15`,
/// either with `, end of month`, or `fiscal 02-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alignment {
    /// Firsts of months (of quarters, of years) and Mondays; the first period is usually partial.
    Calendar,
    /// The contract's own start date and its anniversaries.
    Anniversary,
    /// Anniversaries of another day, such as the end of a trial; what lies before it is partial.
    AnniversaryOf(NaiveDate),
    /// Anniversaries of a day, the contract's start unless another is given. If it is the last of its month, so are they:
    /// from 30 November on to 28 February and 31 May.
    MonthEnds(Option<NaiveDate>),
    /// The customer's fiscal year, which starts on this day of every year: first a partial period up to it.
    Fiscal { month: u32, day: u32 },
}

impl fmt::Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alignment::Calendar => f.write_str("calendar"),
            Alignment::Anniversary => f.write_str("anniversary"),
            Alignment::AnniversaryOf(day) => write!(f, "anniversary of {day}"),
            Alignment::MonthEnds(None) => f.write_str("anniversary, end of month"),
            Alignment::MonthEnds(Some(day)) => write!(f, "anniversary of {day}, end of month"),
            Alignment::Fiscal { month, day } => write!(f, "fiscal {month:02}-{day:02}"),
        }
    }
}

impl Alignment {
    pub fn parse(text: &str) -> Result<Alignment, Fault> {
        let wrong = || {
            Fault::value(format!("alignment {} is not known", quoted(text))).with_hint(
                "Use calendar, anniversary, anniversary of 2026-01-15, either anniversary with \", end of month\", or fiscal 02-01.",
            )
        };
        let (body, month_ends) = match text.strip_suffix(", end of month") {
            Some(body) => (body, true),
            None => (text, false),
        };
        let day = body.strip_prefix("anniversary of ").map(parse_date).transpose().map_err(|_| wrong())?;
        match (body, day, month_ends) {
            (_, Some(day), false) => Ok(Alignment::AnniversaryOf(day)),
            (_, Some(day), true) => Ok(Alignment::MonthEnds(Some(day))),
            ("anniversary", None, false) => Ok(Alignment::Anniversary),
            ("anniversary", None, true) => Ok(Alignment::MonthEnds(None)),
            ("calendar", None, false) => Ok(Alignment::Calendar),
            (_, None, false) => body
                .strip_prefix("fiscal ")
                .and_then(|start| parse_month_day(start).ok())
                .map(|(month, day)| Alignment::Fiscal { month, day })
                .ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

/// A day of every year, `02-01`. 29 February is not in every year.
pub fn parse_month_day(text: &str) -> Result<(u32, u32), Fault> {
    let wrong = || {
        Fault::value(format!("{} is not a day of every year", quoted(text)))
            .with_hint("Write month and day: 02-01.")
    };
    // 2023 has no 29 February.
    let date = parse_date(&format!("2023-{text}")).map_err(|_| wrong())?;
    Ok((date.month(), date.day()))
}

/// When what recurs is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Timing {
    /// At the start of the period it is for.
    #[default]
    Advance,
    /// At its end.
    Arrears,
}

/// A contract's rhythm: from which day, how often, aligned to what, until which day (exclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    starts_on: NaiveDate,
    ends_on: Option<NaiveDate>,
    interval: Interval,
    /// The day from which boundaries are counted.
    anchor: NaiveDate,
    /// Whether every boundary is the last day of its month.
    month_ends: bool,
    /// Which cell of the grid from the anchor holds `starts_on`; negative before the anchor.
    first: i64,
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
        let no_grid = |word: &str, hint: &str| {
            Err(Fault::value(format!("an interval of {interval} has no {word} alignment"))
                .with_hint(format!("Use alignment anniversary, or {hint}.")))
        };
        let anchor = match (alignment, interval) {
            (Alignment::Anniversary | Alignment::MonthEnds(None), _) => starts_on,
            (Alignment::AnniversaryOf(day) | Alignment::MonthEnds(Some(day)), _) => day,
            (Alignment::Calendar, Interval::Months(months)) if months <= 12 && 12 % months == 0 => {
                let month0 = starts_on.month0() - starts_on.month0() % months;
                NaiveDate::from_ymd_opt(starts_on.year(), month0 + 1, 1).expect("a first of a month exists")
            }
            (Alignment::Calendar, Interval::Days(1)) => starts_on,
            (Alignment::Calendar, Interval::Days(7)) => {
                let back = starts_on.weekday().num_days_from_monday();
                starts_on.checked_sub_days(Days::new(back.into())).unwrap_or(starts_on)
            }
            (Alignment::Calendar, _) => {
                return no_grid("calendar", "1, 2, 3, 4, 6 or 12 months, 1 week or 1 day");
            }
            (Alignment::Fiscal { month, day }, Interval::Months(months))
                if months <= 12 && 12 % months == 0 =>
            {
                let in_year = |year: i32| NaiveDate::from_ymd_opt(year, month, day);
                in_year(starts_on.year())
                    .filter(|start| *start <= starts_on)
                    .or_else(|| in_year(starts_on.year() - 1))
                    .ok_or_else(|| Fault::value(format!("no year has a day {month:02}-{day:02}")))?
            }
            (Alignment::Fiscal { .. }, _) => return no_grid("fiscal", "1, 2, 3, 4, 6 or 12 months"),
        };
        let month_ends = matches!(alignment, Alignment::MonthEnds(_)) && is_month_end(anchor);
        let calendar = Calendar { starts_on, ends_on, interval, anchor, month_ends, first: 0 };
        Ok(calendar.per(interval))
    }

    /// The day from which boundaries are counted.
    pub fn anchor(&self) -> NaiveDate {
        self.anchor
    }

    /// The same days counted in another interval: a grid from the same anchor.
    fn per(&self, interval: Interval) -> Calendar {
        let mut calendar = Calendar { interval, ..*self };
        calendar.first = calendar.cell_near(calendar.starts_on);
        // What is before year 1 is before the start, what is after year 9999 after it.
        while calendar.grid(calendar.first + 1).is_some_and(|next| next <= calendar.starts_on) {
            calendar.first += 1;
        }
        while calendar.grid(calendar.first).is_some_and(|at| at > calendar.starts_on) {
            calendar.first -= 1;
        }
        calendar
    }

    /// The cell of the grid that holds a day, or a neighbour of it.
    fn cell_near(&self, day: NaiveDate) -> i64 {
        match self.interval {
            Interval::Days(days) => (day - self.anchor).num_days().div_euclid(days.into()),
            Interval::Months(months) => {
                let of = |d: NaiveDate| i64::from(d.year()) * 12 + i64::from(d.month0());
                (of(day) - of(self.anchor)).div_euclid(months.into())
            }
        }
    }

    /// Start of a cell of the grid.
    fn grid(&self, cell: i64) -> Option<NaiveDate> {
        let at = self.interval.times(self.anchor, cell)?;
        match (self.month_ends, self.interval) {
            (true, Interval::Months(_)) => month_end(at),
            _ => Some(at),
        }
    }

    fn cell(&self, n: u32) -> i64 {
        self.first + i64::from(n)
    }

    /// Boundary n: the start of period n, the contract's end at the latest. `None` past that end or year 9999.
    pub fn boundary(&self, n: u32) -> Option<NaiveDate> {
        if n == 0 {
            return Some(self.starts_on);
        }
        match (self.grid(self.cell(n)), self.ends_on) {
            (Some(at), None) => Some(at),
            (Some(at), Some(end)) if at < end => Some(at),
            (_, Some(end)) => {
                // The end is a boundary once: only where the period before it starts inside the contract.
                let before = if n == 1 { Some(self.starts_on) } else { self.grid(self.cell(n) - 1) };
                before.filter(|b| *b < end).map(|_| end)
            }
            (None, None) => None,
        }
    }

    /// Period n, `None` past the contract's end.
    pub fn period(&self, n: u32) -> Option<Period> {
        Some(Period {
            n,
            starts_on: self.boundary(n)?,
            ends_on: self.boundary(n + 1)?,
            whole_starts_on: self.grid(self.cell(n))?,
            whole_ends_on: self.grid(self.cell(n) + 1)?,
        })
    }

    /// The period that holds a day; `None` before the start and from the end on.
    pub fn period_at(&self, day: NaiveDate) -> Option<Period> {
        if day < self.starts_on || self.ends_on.is_some_and(|end| day >= end) {
            return None;
        }
        let near = u32::try_from((self.cell_near(day) - self.first).max(0)).ok()?;
        (near.saturating_sub(1)..=near + 1)
            .filter_map(|n| self.period(n))
            .find(|p| p.starts_on <= day && day < p.ends_on)
    }

    /// The service periods of a charge billed `every` so often that begin in billing period n.
    pub fn service_periods(&self, every: Interval, n: u32) -> Vec<Period> {
        self.billed_service_periods(every, Timing::Advance, self.starts_on, None, n)
    }

    /// The service periods of what is in force in `[from, until)` and belongs to billing period n: in advance those that
    /// begin in it, in arrears those that end in it (at its end, too). They are clipped to that time and to the contract;
    /// the whole ones are cells of a grid from the contract's anchor, so `every` may be a part or a multiple of the billing
    /// interval, and what begins late ends with the contract's own periods.
    pub fn billed_service_periods(
        &self,
        every: Interval,
        timing: Timing,
        from: NaiveDate,
        until: Option<NaiveDate>,
        n: u32,
    ) -> Vec<Period> {
        let Some(billing) = self.period(n) else { return Vec::new() };
        let inner = self.per(every);
        let Some(first) = inner.period_at(billing.starts_on.max(from)) else { return Vec::new() };
        let clipped = |cell: Period| Period {
            starts_on: cell.starts_on.max(from),
            ends_on: until.map_or(cell.ends_on, |until| cell.ends_on.min(until)),
            ..cell
        };
        let belongs = |period: &Period| match timing {
            Timing::Advance => period.starts_on >= billing.starts_on,
            Timing::Arrears => period.ends_on > billing.starts_on && period.ends_on <= billing.ends_on,
        };
        (first.n..)
            .map_while(|k| inner.period(k))
            .map(clipped)
            .take_while(|p| p.starts_on < billing.ends_on && p.starts_on < p.ends_on)
            .filter(belongs)
            .collect()
    }
}

/// The last day of a day's month.
fn month_end(day: NaiveDate) -> Option<NaiveDate> {
    day.with_day(1)?.checked_add_months(Months::new(1))?.pred_opt()
}

fn is_month_end(day: NaiveDate) -> bool {
    month_end(day) == Some(day)
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

    /// rules.md 2: with the flag, an anchor at a month's end stays at months' ends; day 30 alone is not one.
    #[test]
    fn anchors_at_month_ends_stay_there() {
        let ends = Alignment::MonthEnds(None);
        assert_eq!(
            boundaries("2025-11-30", "3 months", ends, 3),
            ["2025-11-30", "2026-02-28", "2026-05-31", "2026-08-31"]
        );
        assert_eq!(boundaries("2025-02-28", "1 month", ends, 2), ["2025-02-28", "2025-03-31", "2025-04-30"]);
        assert_eq!(
            boundaries("2024-02-29", "1 year", ends, 4),
            ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]
        );
        // The flag says nothing of other days, and nothing of days.
        assert_eq!(boundaries("2025-11-15", "3 months", ends, 1), ["2025-11-15", "2026-02-15"]);
        assert_eq!(boundaries("2025-11-30", "30 days", ends, 1), ["2025-11-30", "2025-12-30"]);
        assert_eq!(
            boundaries("2025-11-30", "3 months", Alignment::MonthEnds(Some(d("2026-01-31"))), 2),
            ["2025-11-30", "2026-01-31", "2026-04-30"]
        );
    }

    /// rules.md 2: 120,000 a year from 15 November, fiscal year from 1 February: 78 of 365 days, then full years.
    #[test]
    fn fiscal_periods_start_with_a_stub() {
        let fiscal = Alignment::Fiscal { month: 2, day: 1 };
        let start = d("2025-11-15");
        assert_eq!(
            boundaries("2025-11-15", "1 year", fiscal, 3),
            ["2025-11-15", "2026-02-01", "2027-02-01", "2028-02-01"]
        );
        let years = Calendar::new(start, None, Interval::Months(12), fiscal).unwrap();
        let stub = years.period(0).unwrap();
        assert_eq!((stub.ends_on - stub.starts_on).num_days(), 78);
        assert_eq!((stub.whole_starts_on, stub.whole_ends_on), (d("2025-02-01"), d("2026-02-01")));
        assert_eq!((stub.whole_ends_on - stub.whole_starts_on).num_days(), 365);
        assert_eq!(
            boundaries("2025-11-15", "3 months", fiscal, 3),
            ["2025-11-15", "2026-02-01", "2026-05-01", "2026-08-01"]
        );
        // A yearly fee of a contract billed by the month keeps the fiscal year, too.
        let months = Calendar::new(start, None, Interval::Months(1), fiscal).unwrap();
        let fees = |n| {
            let of = months.service_periods(Interval::Months(12), n);
            of.iter().map(|p| (p.starts_on.to_string(), p.ends_on.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(fees(0), [("2025-11-15".to_string(), "2026-02-01".to_string())]);
        assert_eq!((fees(1), fees(2)), (vec![], vec![]));
        assert_eq!(fees(3), [("2026-02-01".to_string(), "2027-02-01".to_string())]);
        assert_eq!(boundaries("2026-02-01", "1 year", fiscal, 1), ["2026-02-01", "2027-02-01"]);
        assert_eq!(boundaries("2026-01-31", "1 year", fiscal, 1), ["2026-01-31", "2026-02-01"]);
        for (interval, alignment) in [(Interval::Months(5), fiscal), (Interval::Days(7), fiscal)] {
            let fault = Calendar::new(start, None, interval, alignment).unwrap_err();
            assert!(fault.message.contains("has no fiscal alignment"), "{}", fault.message);
        }
    }

    /// rules.md 2: with anniversaries the anchor is the trial's end; the trial before it is a period of its own.
    #[test]
    fn the_end_of_a_trial_is_an_anchor() {
        let after = |day| Alignment::AnniversaryOf(d(day));
        assert_eq!(
            boundaries("2026-01-10", "1 month", after("2026-01-24"), 2),
            ["2026-01-10", "2026-01-24", "2026-02-24"]
        );
        assert_eq!(
            boundaries("2025-12-03", "1 month", after("2026-01-31"), 4),
            ["2025-12-03", "2025-12-31", "2026-01-31", "2026-02-28", "2026-03-31"]
        );
        let calendar =
            Calendar::new(d("2026-01-10"), None, Interval::Months(1), after("2026-01-24")).unwrap();
        let trial = calendar.period(0).unwrap();
        assert_eq!((trial.whole_starts_on, trial.whole_ends_on), (d("2025-12-24"), d("2026-01-24")));
        assert_eq!(calendar.period_at(d("2026-01-23")).unwrap().n, 0);
        assert_eq!(calendar.period_at(d("2026-01-24")).unwrap().n, 1);
        assert_eq!(calendar.anchor(), d("2026-01-24"));
    }

    /// rules.md 2, co-term: an add-on of 12,000 a year from 1 April ends with the parent's year: 275 of 365 days, or 9 of
    /// 12 months.
    #[test]
    fn an_add_on_ends_with_its_contract() {
        use super::super::proration::{Elapsed, ProrationBasis, share};
        use super::super::{Ratio, RoundingMode};
        let year = Interval::Months(12);
        let elapsed = Elapsed { part_micros: 275 * 24, whole_micros: 365 * 24 };
        for interval in [Interval::Months(1), year] {
            let parent =
                Calendar::new(d("2025-01-01"), Some(d("2026-01-01")), interval, Alignment::Calendar).unwrap();
            let at = |day: &str| parent.period_at(d(day)).unwrap().n;
            let fee = |n| parent.billed_service_periods(year, Timing::Advance, d("2025-04-01"), None, n);
            let [period] = fee(at("2025-04-01"))[..] else { panic!("one period") };
            assert_eq!((period.starts_on, period.ends_on), (d("2025-04-01"), d("2026-01-01")));
            let amount = |basis| {
                let exact = Ratio::from(12_000i64).mul(&share(&period, year, basis, elapsed));
                exact.round(2, RoundingMode::HalfUp).unwrap().to_fixed(2).unwrap()
            };
            assert_eq!(amount(ProrationBasis::Day), "9041.10");
            assert_eq!(amount(ProrationBasis::ThirtyStrict), "9000.00");
            if interval != year {
                assert!(fee(at("2025-01-01")).is_empty() && fee(at("2025-05-01")).is_empty());
            }
        }
    }

    /// A long fee belongs to the billing period where it begins, in arrears to the one where it ends.
    #[test]
    fn long_fees_belong_to_one_billing_period() {
        let calendar = Calendar::new(
            d("2025-01-31"),
            Some(d("2026-01-31")),
            Interval::Months(1),
            Alignment::Anniversary,
        )
        .unwrap();
        let all = |timing, from: &str, until: Option<&str>| -> Vec<String> {
            let of = |n| {
                calendar
                    .billed_service_periods(Interval::Months(6), timing, d(from), until.map(d), n)
                    .into_iter()
                    .map(move |p| format!("{n}: {} {}", p.starts_on, p.ends_on))
            };
            (0..13).flat_map(of).collect()
        };
        use Timing::{Advance, Arrears};
        assert_eq!(
            all(Advance, "2025-01-31", None),
            ["0: 2025-01-31 2025-07-31", "6: 2025-07-31 2026-01-31"]
        );
        assert_eq!(
            all(Arrears, "2025-01-31", None),
            ["5: 2025-01-31 2025-07-31", "11: 2025-07-31 2026-01-31"]
        );
        assert_eq!(
            all(Advance, "2025-03-15", Some("2025-09-10")),
            ["1: 2025-03-15 2025-07-31", "6: 2025-07-31 2025-09-10"]
        );
        assert_eq!(
            all(Arrears, "2025-03-15", Some("2025-09-10")),
            ["5: 2025-03-15 2025-07-31", "7: 2025-07-31 2025-09-10"]
        );
    }

    #[test]
    fn alignments_read_what_they_write() {
        for text in [
            "calendar",
            "anniversary",
            "anniversary of 2026-01-15",
            "anniversary, end of month",
            "anniversary of 2025-11-30, end of month",
            "fiscal 02-01",
            "fiscal 12-31",
        ] {
            assert_eq!(Alignment::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "Calendar",
            "calendar, end of month",
            "anniversary of 2026-02-29",
            "anniversary of ",
            "fiscal",
            "fiscal 2-1",
            "fiscal 02-29",
            "fiscal 02-01, end of month",
        ] {
            assert!(Alignment::parse(text).unwrap_err().message.contains("is not known"), "{text}");
        }
    }

    proptest! {
        /// However often a fee recurs, its service periods tile the time it is in force, each in one billing period.
        #[test]
        fn fees_tile_the_time_they_are_in_force(
            day in 0i64..3_000, months in 1u32..4, times in 1u32..13, arrears in any::<bool>(),
            kind in 0usize..6, trial in 1i64..200, from in 0i64..500, length in 1i64..900,
        ) {
            let start = d("2019-01-01") + chrono::Duration::days(day);
            let later = |days: i64| start + chrono::Duration::days(days);
            let alignment = [
                Alignment::Calendar, Alignment::Anniversary, Alignment::AnniversaryOf(later(trial)),
                Alignment::MonthEnds(None), Alignment::MonthEnds(Some(later(trial))), Alignment::Fiscal { month: 2, day: 1 },
            ][kind];
            let calendar = Calendar::new(start, None, Interval::Months(months), alignment).unwrap();
            let every = Interval::Months(months).multiple(times).unwrap();
            let (from, until) = (later(from), later(from + length));
            let timing = if arrears { Timing::Arrears } else { Timing::Advance };
            let mut at = from;
            let last = calendar.period_at(until).unwrap().n;
            for n in 0..=last {
                let billing = calendar.period(n).unwrap();
                for period in calendar.billed_service_periods(every, timing, from, Some(until), n) {
                    prop_assert_eq!(period.starts_on, at);
                    prop_assert!(period.whole_starts_on <= at && period.ends_on <= period.whole_ends_on);
                    let marks = if arrears { period.ends_on.pred_opt().unwrap() } else { period.starts_on };
                    prop_assert!(billing.starts_on <= marks && marks < billing.ends_on);
                    at = period.ends_on;
                }
            }
            prop_assert_eq!(at, until);
        }

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
