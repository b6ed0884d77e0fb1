//! Foundation: row ids and calendars.

use crate::domain::foundation::calendar::{Alignment, Calendar, Interval, Period};
use crate::domain::foundation::json::{self, Node};
use crate::domain::foundation::{Fault, party};
use crate::pg::FaultJson;
use crate::pg::instant::{from_date, to_date};
use pgrx::datum::{Date, Uuid};
use pgrx::prelude::*;

/// A UUIDv7 from the real clock: ids of rows made later sort later.
#[pg_extern(sql = false)]
// Row ids take the real clock; the domain never reads one.
#[allow(clippy::disallowed_methods)]
fn uuid_v7() -> Uuid {
    Uuid::from_bytes(*uuid::Uuid::now_v7().as_bytes())
}

fn calendar(
    starts_on: Date,
    ends_on: Option<Date>,
    interval: &str,
    alignment: &str,
) -> Result<Calendar, Fault> {
    let date = |d: Date| from_date(d).ok_or_else(|| Fault::value("infinite dates have no periods"));
    Calendar::new(
        date(starts_on)?,
        ends_on.map(date).transpose()?,
        Interval::parse(interval)?,
        Alignment::parse(alignment)?,
    )
}

type PeriodRow = (i32, Date, Date, Date, Date);

fn row(period: Period) -> PeriodRow {
    (
        period.n as i32,
        to_date(period.starts_on),
        to_date(period.ends_on),
        to_date(period.whole_starts_on),
        to_date(period.whole_ends_on),
    )
}

/// Billing period n; no row past the end or where `calendar_error` says why.
#[pg_extern(sql = false)]
fn calendar_period(
    starts_on: Date,
    ends_on: Option<Date>,
    interval: &str,
    alignment: &str,
    n: i32,
) -> TableIterator<
    'static,
    (
        name!(n, i32),
        name!(starts_on, Date),
        name!(ends_on, Date),
        name!(whole_starts_on, Date),
        name!(whole_ends_on, Date),
    ),
> {
    let period =
        u32::try_from(n).ok().and_then(|n| calendar(starts_on, ends_on, interval, alignment).ok()?.period(n));
    TableIterator::new(period.map(row))
}

/// The billing period that holds a local day.
#[pg_extern(sql = false)]
fn calendar_period_at(
    starts_on: Date,
    ends_on: Option<Date>,
    interval: &str,
    alignment: &str,
    day: Date,
) -> TableIterator<
    'static,
    (
        name!(n, i32),
        name!(starts_on, Date),
        name!(ends_on, Date),
        name!(whole_starts_on, Date),
        name!(whole_ends_on, Date),
    ),
> {
    let period =
        from_date(day).and_then(|day| calendar(starts_on, ends_on, interval, alignment).ok()?.period_at(day));
    TableIterator::new(period.map(row))
}

/// The service periods of a charge billed `every` so often inside billing period n.
#[pg_extern(sql = false)]
fn calendar_service_periods(
    starts_on: Date,
    ends_on: Option<Date>,
    interval: &str,
    alignment: &str,
    every: &str,
    n: i32,
) -> TableIterator<
    'static,
    (
        name!(n, i32),
        name!(starts_on, Date),
        name!(ends_on, Date),
        name!(whole_starts_on, Date),
        name!(whole_ends_on, Date),
    ),
> {
    let periods = (|| {
        let calendar = calendar(starts_on, ends_on, interval, alignment).ok()?;
        Some(calendar.service_periods(Interval::parse(every).ok()?, u32::try_from(n).ok()?))
    })();
    TableIterator::new(periods.unwrap_or_default().into_iter().map(row))
}

/// Why a contract's rhythm can't be; NULL if it can.
#[pg_extern(sql = false)]
fn calendar_error(starts_on: Date, ends_on: Option<Date>, interval: &str, alignment: &str) -> Option<String> {
    calendar(starts_on, ends_on, interval, alignment).err().as_ref().map(FaultJson::text)
}

/// The canonical form of a document whose form is right; NULL where `document_read_error` says why not.
#[pg_extern(sql = false)]
fn document_read(kind: &str, document: &str) -> Option<String> {
    read_document(kind, document).ok()
}

#[pg_extern(sql = false)]
fn document_read_error(kind: &str, document: &str) -> Option<String> {
    read_document(kind, document).err().as_ref().map(FaultJson::text)
}

fn read_document(kind: &str, document: &str) -> Result<String, Fault> {
    let tree = json::parse(document)?;
    let root = Node::root(&tree);
    match kind {
        "seller" => party::read_seller(&root)?,
        "customer" => party::read_customer(&root)?,
        other => return Err(Fault::value(format!("no documents of kind \"{other}\" are read"))),
    }
    tree.canonical()
}
