//! Proration of recurring amounts over partial periods (rules.md 2): multiply, then divide, round once.

use super::calendar::{Interval, Period};
use super::fault::Fault;
use super::ratio::Ratio;
use chrono::{Datelike, NaiveDate};

/// Policy `proration_basis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProrationBasis {
    /// Local days of the partial period over those of the whole one.
    #[default]
    Day,
    /// Elapsed seconds over those of the whole period (a 743 h month has 743 h).
    Second,
    /// Local days over 30 a month.
    ThirtyActual,
    /// Days of a 30-day month (30/360) over 30 a month.
    ThirtyStrict,
    /// Months over those of the whole period, counted from its first day, and the days of a part of a month over its days.
    /// Said by policy `co_term`, for what begins inside a period of several months.
    Month,
    /// Partial periods cost as much as whole ones.
    None,
}

impl ProrationBasis {
    pub fn as_str(self) -> &'static str {
        match self {
            ProrationBasis::Day => "day",
            ProrationBasis::Second => "second",
            ProrationBasis::ThirtyActual => "30_actual",
            ProrationBasis::ThirtyStrict => "30_strict",
            ProrationBasis::Month => "month",
            ProrationBasis::None => "none",
        }
    }

    pub fn parse(text: &str) -> Result<ProrationBasis, Fault> {
        Ok(match text {
            "day" => ProrationBasis::Day,
            "second" => ProrationBasis::Second,
            "30_actual" => ProrationBasis::ThirtyActual,
            "30_strict" => ProrationBasis::ThirtyStrict,
            "none" => ProrationBasis::None,
            other => {
                return Err(Fault::value(format!("proration basis \"{other}\" is not known"))
                    .with_hint("Use day, second, 30_actual, 30_strict or none."));
            }
        })
    }
}

/// Elapsed seconds of a partial period and of its whole one, from real instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed {
    pub part_micros: i64,
    pub whole_micros: i64,
}

/// The share of a whole period that a partial one is. A whole period is 1 on every basis.
pub fn share(period: &Period, interval: Interval, basis: ProrationBasis, elapsed: Elapsed) -> Ratio {
    if period.is_whole() {
        return Ratio::from(1i64);
    }
    let days = |from: NaiveDate, until: NaiveDate| i128::from((until - from).num_days());
    let part = days(period.starts_on, period.ends_on);
    let whole = days(period.whole_starts_on, period.whole_ends_on);
    match (basis, interval) {
        (ProrationBasis::None, _) => Ratio::from(1i64),
        (ProrationBasis::Second, _) => Ratio::new(elapsed.part_micros.into(), elapsed.whole_micros.into()),
        (ProrationBasis::ThirtyActual, Interval::Months(months)) => Ratio::new(part, 30 * i128::from(months)),
        (ProrationBasis::ThirtyStrict, Interval::Months(months)) => {
            Ratio::new(days_360(period.starts_on, period.ends_on), 30 * i128::from(months))
        }
        (ProrationBasis::Month, Interval::Months(_)) => {
            let months = |day| months_until(period.whole_starts_on, day);
            let part = months(period.ends_on).sub(&months(period.starts_on));
            part.div(&months(period.whole_ends_on)).unwrap_or(Ratio::ZERO)
        }
        _ => Ratio::new(part, whole),
    }
}

/// Months from a day to a later one, counted from the first (rules.md 2, anchor rule); of the last its part by days.
fn months_until(from: NaiveDate, until: NaiveDate) -> Ratio {
    let month = |n: u32| if n == 0 { Some(from) } else { Interval::Months(1).nth_after(from, n) };
    let passed = (1..).take_while(|n| month(*n).is_some_and(|day| day <= until)).count() as u32;
    let days = |from: NaiveDate, until: NaiveDate| i128::from((until - from).num_days());
    let begun = month(passed).unwrap_or(from);
    let whole = month(passed + 1).map_or(30, |next| days(begun, next));
    Ratio::from(i64::from(passed)).add(&Ratio::new(days(begun, until), whole))
}

/// Days between two dates where every month has 30 (30E/360): [20 Jan, 1 Feb) has 11.
fn days_360(from: NaiveDate, until: NaiveDate) -> i128 {
    let count =
        |d: NaiveDate| i128::from(d.year()) * 360 + i128::from(d.month()) * 30 + i128::from(d.day().min(30));
    count(until) - count(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::calendar::{Alignment, Calendar};
    use crate::domain::foundation::{Exact, RoundingMode};

    fn prorate(amount: &str, part: i128, whole: i128) -> String {
        Ratio::from(Exact::parse(amount).unwrap())
            .mul(&Ratio::new(part, whole))
            .round(2, RoundingMode::HalfUp)
            .unwrap()
            .to_fixed(2)
            .unwrap()
    }

    /// The table of rules.md 2.
    #[test]
    fn worked_numbers() {
        assert_eq!(prorate("310", 12, 31), "120.00");
        assert_eq!((prorate("-100", 15, 30), prorate("300", 15, 30)), ("-50.00".into(), "150.00".into()));
        assert_eq!((prorate("-100", 21, 31), prorate("300", 21, 31)), ("-67.74".into(), "203.23".into()));
        assert_eq!((prorate("-100", 372, 743), prorate("300", 372, 743)), ("-50.07".into(), "150.20".into()));
        assert_eq!(prorate("-80", 15, 30), "-40.00");
        assert_eq!(prorate("100", 20, 30), "66.67"); // 5 seats × 20 × 20/30
        assert_eq!(
            (prorate("12000", 275, 365), prorate("12000", 9, 12)),
            ("9041.10".into(), "9000.00".into())
        );
        assert_eq!(prorate("120000", 78, 365), "25643.84");
        assert_eq!(prorate("1200", 184, 365), "604.93");
        assert_eq!(prorate("9000", 50, 90), "5000.00");
    }

    /// rules.md 2, co-term: 12,000 a year from 1 April until the year's end is 9/12; the parts of a year sum to 1.
    #[test]
    fn months_of_a_year() {
        let day = |text: &str| -> NaiveDate { text.parse().unwrap() };
        let year = |from: &str, until: &str| {
            let (whole_starts_on, whole_ends_on) = (day("2025-01-01"), day("2026-01-01"));
            let part =
                Period { n: 0, starts_on: day(from), ends_on: day(until), whole_starts_on, whole_ends_on };
            share(
                &part,
                Interval::Months(12),
                ProrationBasis::Month,
                Elapsed { part_micros: 1, whole_micros: 2 },
            )
        };
        assert_eq!(year("2025-04-01", "2026-01-01"), Ratio::new(9, 12));
        assert_eq!(year("2025-04-11", "2026-01-01"), Ratio::new(26, 36)); // 8 months and 20 of 30 days
        assert_eq!(
            year("2025-01-01", "2025-04-11").add(&year("2025-04-11", "2026-01-01")),
            Ratio::from(1i64)
        );
        assert_eq!(year("2025-01-01", "2026-01-01"), Ratio::from(1i64));
        // Counted from the 31st: 28 February is a month after it.
        assert_eq!(months_until(day("2025-01-31"), day("2025-02-28")), Ratio::from(1i64));
        assert_eq!(months_until(day("2025-01-31"), day("2025-03-30")), Ratio::new(61, 31));
    }

    #[test]
    fn bases_of_a_stub() {
        let calendar =
            Calendar::new("2025-01-20".parse().unwrap(), None, Interval::Months(1), Alignment::Calendar)
                .unwrap();
        let (stub, month) = (calendar.period(0).unwrap(), calendar.period(1).unwrap());
        let elapsed = Elapsed { part_micros: 12 * 24, whole_micros: 31 * 24 };
        let amount = |basis| {
            Ratio::from(310i64)
                .mul(&share(&stub, Interval::Months(1), basis, elapsed))
                .round(2, RoundingMode::HalfUp)
                .unwrap()
                .to_fixed(2)
                .unwrap()
        };
        assert_eq!(amount(ProrationBasis::Day), "120.00");
        assert_eq!(amount(ProrationBasis::Second), "120.00");
        assert_eq!(amount(ProrationBasis::ThirtyActual), "124.00");
        assert_eq!(amount(ProrationBasis::ThirtyStrict), "113.67");
        assert_eq!(amount(ProrationBasis::None), "310.00");
        for basis in [ProrationBasis::Day, ProrationBasis::ThirtyActual, ProrationBasis::ThirtyStrict] {
            assert_eq!(share(&month, Interval::Months(1), basis, elapsed), Ratio::from(1i64));
        }
        assert_eq!(days_360("2025-02-15".parse().unwrap(), "2025-03-01".parse().unwrap()), 16);
    }
}
