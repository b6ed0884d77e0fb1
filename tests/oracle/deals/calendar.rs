//! Days, months, time zones, and how a contract's time is cut.

use chrono::{Datelike, Days, Months, NaiveDate};

pub type Day = NaiveDate;

/// Seconds since 1970 UTC. Nothing here happens between two seconds.
pub type Instant = i64;

/// Half-open.
pub type Stretch = (Instant, Instant);

/// The local midnights of a time zone, as Postgres tells them.
#[derive(Debug, Clone)]
pub struct Zone {
    pub name: String,
    pub first: Day,
    pub midnights: Vec<Instant>,
}

impl Zone {
    pub fn midnight(&self, day: Day) -> Instant {
        let n = (day - self.first).num_days();
        self.midnights[usize::try_from(n).unwrap_or_else(|_| panic!("{day} is before the table"))]
    }

    pub fn day(&self, at: Instant) -> Day {
        let n = self.midnights.partition_point(|m| *m <= at);
        self.first + Days::new(n as u64 - 1)
    }
}

/// Days of a calendar in which every month has 30.
pub(super) fn days30(from: Day, until: Day) -> i64 {
    let of = |d: Day| i64::from(d.year()) * 360 + i64::from(d.month0()) * 30 + i64::from(d.day().min(30));
    of(until) - of(from)
}

/// `n` months after a day, the day clamped to the month's last.
pub fn months_after(day: Day, n: u32) -> Day {
    day + Months::new(n)
}

/// `n` months before or after a day, the day clamped to the month's last.
fn months_from(day: Day, n: i32) -> Day {
    if n < 0 { day - Months::new(n.unsigned_abs()) } else { day + Months::new(n.unsigned_abs()) }
}

/// "14 days" or "3 months" after a day.
pub fn after(day: Day, interval: &str) -> Day {
    match interval.split_once(' ') {
        Some((n, "day" | "days")) => day + Days::new(n.parse().expect("a number of days")),
        _ => months_after(day, months(interval)),
    }
}

/// The last day of the month `n` months from that of a day.
pub fn month_end(day: Day, n: i32) -> Day {
    let first = months_from(day.with_day(1).expect("a first"), n + 1);
    first - Days::new(1)
}

/// "3 months" is 3.
pub fn months(text: &str) -> u32 {
    let (n, unit) = text.split_once(' ').unwrap_or_else(|| panic!("no interval: {text}"));
    let n: u32 = n.parse().unwrap_or_else(|_| panic!("no interval: {text}"));
    match unit {
        "month" | "months" => n,
        "year" | "years" => 12 * n,
        _ => panic!("no interval of months: {text}"),
    }
}

/// How a contract's time is cut: the grid of each `every`.
#[derive(Clone, Debug)]
pub enum Grid {
    /// Counted from this day.
    Anniversary(Day),
    /// Counted from this last day of a month, and always last days of months.
    MonthEnds(Day),
    /// The firsts of months; of several months, counted from this month (1 January unless fiscal).
    Calendar(u32),
}

/// The two neighbours among all steps of so many months of which the first is not after the day.
fn around(day: Day, every: i32, at: impl Fn(i32) -> Day) -> (Day, Day) {
    let mut n = 0;
    while at((n + 1) * every) <= day {
        n += 1;
    }
    while at(n * every) > day {
        n -= 1;
    }
    (at(n * every), at((n + 1) * every))
}

impl Grid {
    /// The whole period of `every` months that holds `day`.
    pub fn period(&self, day: Day, every: u32) -> (Day, Day) {
        match self {
            Grid::Anniversary(anchor) => around(day, every as i32, |n| months_from(*anchor, n)),
            Grid::MonthEnds(anchor) => around(day, every as i32, |n| month_end(*anchor, n)),
            Grid::Calendar(first) => {
                let months = day.year() * 12 + day.month0() as i32 - (*first as i32 - 1);
                let start = months - months.rem_euclid(every as i32) + (*first as i32 - 1);
                let of = |m: i32| {
                    Day::from_ymd_opt(m.div_euclid(12), m.rem_euclid(12) as u32 + 1, 1).expect("a first")
                };
                (of(start), of(start + every as i32))
            }
        }
    }
}

/// 00:00 UTC of a day.
pub(super) fn utc(day: Day) -> Instant {
    day.and_hms_opt(0, 0, 0).expect("midnight").and_utc().timestamp()
}
