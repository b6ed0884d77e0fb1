//! Time zones as Postgres tells them, and the windows in which quotas are counted.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, TimeDelta, Utc};
use postgres::Client;
use std::fmt;
use std::rc::Rc;

pub type At = DateTime<Utc>;
pub type Stretch = (At, At);

pub const MICROSECOND: TimeDelta = TimeDelta::microseconds(1);

/// What a time zone's clocks show: local midnights, and from when on they are how far from UTC.
pub struct Zone {
    pub name: String,
    first: NaiveDate,
    midnights: Vec<At>,
    offsets: Vec<(At, TimeDelta)>,
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Zone {
    /// Four years before and after a day.
    pub fn read(client: &mut Client, name: &str, day: NaiveDate) -> Rc<Zone> {
        let (first, last) = (day - Months::new(48), day + Months::new(48));
        let instant = |micros: i64| DateTime::from_timestamp_micros(micros).expect("an instant");
        let ask = |client: &mut Client, query: &str| {
            client.query(query, &[&first.to_string(), &last.to_string(), &name]).expect("a zone")
        };
        let midnights = ask(
            client,
            "SELECT (extract(epoch FROM d AT TIME ZONE $3::text) * 1000000)::bigint FROM generate_series($1::text::timestamp, $2::text::timestamp, '1 day') d ORDER BY d",
        );
        let offsets = ask(
            client,
            "SELECT (extract(epoch FROM t) * 1000000)::bigint, seconds FROM (
                SELECT t, seconds, lag(seconds) OVER (ORDER BY t) AS before FROM (
                    SELECT t, extract(epoch FROM (t AT TIME ZONE $3::text) - (t AT TIME ZONE 'UTC'))::bigint AS seconds FROM generate_series($1::text::timestamptz, $2::text::timestamptz, '30 minutes') t) x) y
             WHERE seconds IS DISTINCT FROM before ORDER BY t",
        );
        Rc::new(Zone {
            name: name.to_owned(),
            first,
            midnights: midnights.iter().map(|row| instant(row.get(0))).collect(),
            offsets: offsets
                .iter()
                .map(|row| (instant(row.get(0)), TimeDelta::seconds(row.get(1))))
                .collect(),
        })
    }

    /// When a day begins.
    pub fn midnight(&self, day: NaiveDate) -> At {
        self.midnights[usize::try_from((day - self.first).num_days()).expect("a day of the table")]
    }

    pub fn day(&self, at: At) -> NaiveDate {
        self.first + Days::new(self.midnights.partition_point(|m| *m <= at) as u64 - 1)
    }

    fn days(&self, from: NaiveDate, until: NaiveDate) -> Stretch {
        (self.midnight(from), self.midnight(until))
    }

    /// From when the clock showed a full hour to when it does again.
    fn hour(&self, at: At) -> Stretch {
        let offset = self.offsets[self.offsets.partition_point(|(from, _)| *from <= at) - 1].1;
        let local = (at + offset).timestamp_micros();
        let from = at - TimeDelta::microseconds(local.rem_euclid(3_600_000_000));
        (from, from + TimeDelta::hours(1))
    }
}

/// When what is used begins at 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reset {
    BillingPeriod,
    Hour,
    Day,
    Week,
    Month,
    Year,
    /// Of the contract's start, every so many months or days.
    Anniversary(&'static str),
    Sliding(i64),
    FirstUse(i64),
    Never,
}

impl Reset {
    pub fn word(self) -> &'static str {
        match self {
            Reset::BillingPeriod => "billing_period",
            Reset::Hour => "hour",
            Reset::Day => "day",
            Reset::Week => "week",
            Reset::Month => "month",
            Reset::Year => "year",
            Reset::Anniversary(_) => "anniversary",
            Reset::Sliding(_) => "sliding",
            Reset::FirstUse(_) => "first_use",
            Reset::Never => "never",
        }
    }

    /// What is left can roll into the next window.
    pub fn on_a_calendar(self) -> bool {
        !matches!(self, Reset::Never | Reset::Sliding(_) | Reset::FirstUse(_))
    }
}

/// The contract whose periods count: when it starts, and whether it is billed by anniversaries.
#[derive(Debug, Clone)]
pub struct Grid {
    pub starts: NaiveDate,
    pub anniversary: bool,
    pub zone: Rc<Zone>,
}

impl Grid {
    /// The period that holds a day, of those that begin every so many months or days after the start.
    fn period(&self, day: NaiveDate, every: &str) -> Stretch {
        let (n, unit) = every.split_once(' ').expect("an interval");
        let n: u32 = n.parse().expect("a number");
        // Boundary k is the start and k intervals, clamped to the month's end.
        let boundary = |k: u32| match unit {
            "days" => self.starts + Days::new((k * n).into()),
            _ => self.starts + Months::new(k * n),
        };
        let k = (0..).find(|k| boundary(k + 1) > day).expect("a period");
        self.zone.days(boundary(k), boundary(k + 1))
    }
}

/// The window of a calendar that holds an instant.
pub fn window(reset: Reset, grid: Option<&Grid>, zone: &Zone, at: At) -> Stretch {
    let day = zone.day(at);
    let first = |day: NaiveDate| day.with_day(1).expect("a first");
    let month = |zone: &Zone, day| zone.days(first(day), first(day) + Months::new(1));
    match (reset, grid) {
        (Reset::Hour, _) => zone.hour(at),
        (Reset::Day, _) => zone.days(day, day + Days::new(1)),
        (Reset::Week, _) => {
            let monday = day - Days::new(day.weekday().num_days_from_monday().into());
            zone.days(monday, monday + Days::new(7))
        }
        (Reset::Year, _) => {
            let january = first(day).with_month(1).expect("a January");
            zone.days(january, january + Months::new(12))
        }
        (Reset::BillingPeriod, Some(grid)) if grid.anniversary => grid.period(grid.zone.day(at), "1 months"),
        (Reset::BillingPeriod, Some(grid)) => {
            let (from, until) = month(&grid.zone, grid.zone.day(at));
            (from.max(grid.zone.midnight(grid.starts)), until)
        }
        (Reset::Anniversary(every), Some(grid)) => grid.period(grid.zone.day(at), every),
        (Reset::Sliding(hours), _) => (at - TimeDelta::hours(hours) + MICROSECOND, at + MICROSECOND),
        (Reset::Never, _) => (At::MIN_UTC, At::MAX_UTC),
        (Reset::FirstUse(_), _) => panic!("not a window of a calendar"),
        (Reset::Month | Reset::BillingPeriod | Reset::Anniversary(_), _) => month(zone, day),
    }
}

/// As the engine takes it.
pub fn text(at: At) -> String {
    let micros = at.timestamp_micros().rem_euclid(86_400_000_000);
    let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
    format!(
        "{}T{:02}:{:02}:{:02}.{rest:06}Z",
        at.date_naive(),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}
