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

/// Billing period n; no row past the end or where there is no such rhythm.
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

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{error_of, fault, holds, rows, value};
    use pgrx::prelude::*;

    /// Ids are UUIDs of version 7 that sort in the order they were made.
    #[pg_test]
    fn row_ids_are_ordered() {
        let ids = rows("SELECT billing_internal.uuid_v7() FROM generate_series(1, 100)");
        assert!(ids.iter().all(|id| id.as_bytes()[14] == b'7'), "{ids:?}");
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }

    /// Boundary n is the original anchor plus n intervals, clamped to the month (rules.md 2); a first or last
    /// period may be a stub, and its whole period stands beside it. Past the end there is no period.
    #[pg_test]
    fn billing_periods_keep_their_anchor() {
        let period = |calendar: &str, n: i32| {
            rows(&format!("SELECT * FROM billing_internal.calendar_period({calendar}, {n})"))
        };
        let anchored = "'2025-01-31', NULL, '1 month', 'anniversary'";
        assert_eq!(period(anchored, 0), ["0|2025-01-31|2025-02-28|2025-01-31|2025-02-28"]);
        assert_eq!(period(anchored, 1), ["1|2025-02-28|2025-03-31|2025-02-28|2025-03-31"]);
        assert_eq!(period(anchored, 2), ["2|2025-03-31|2025-04-30|2025-03-31|2025-04-30"]);
        let leap = "'2024-02-29', NULL, '1 year', 'anniversary'";
        assert_eq!(period(leap, 3), ["3|2027-02-28|2028-02-29|2027-02-28|2028-02-29"]);
        let stubs = "'2025-01-20', '2025-02-10', '1 month', 'calendar'";
        assert_eq!(period(stubs, 0), ["0|2025-01-20|2025-02-01|2025-01-01|2025-02-01"]);
        assert_eq!(period(stubs, 1), ["1|2025-02-01|2025-02-10|2025-02-01|2025-03-01"]);
        assert!(period(stubs, 2).is_empty() && period(stubs, -1).is_empty());
        assert!(period("'2025-01-20', NULL, '1 moon', 'calendar'", 0).is_empty());
    }

    /// A day belongs to exactly one period, half-open; a day before the contract to none. An anchor on day 30
    /// is no end of month: 2026-02-28 is followed by 05-30 (rules.md 2).
    #[pg_test]
    fn a_day_lies_in_one_period() {
        let at = |day: &str| {
            rows(&format!(
                "SELECT n, starts_on, ends_on FROM billing_internal.calendar_period_at('2025-11-30', NULL, '3 months', 'anniversary', '{day}')"
            ))
        };
        assert_eq!(at("2026-02-27"), ["0|2025-11-30|2026-02-28"]);
        assert_eq!(at("2026-02-28"), ["1|2026-02-28|2026-05-30"]);
        assert_eq!(at("2026-05-30"), ["2|2026-05-30|2026-08-30"]);
        assert!(at("2025-11-29").is_empty() && at("infinity").is_empty());
    }

    /// Each `every` inside a billing period is a service period of its own, and they tile it.
    #[pg_test]
    fn service_periods_tile_a_billing_period() {
        let periods = rows(
            "SELECT * FROM billing_internal.calendar_service_periods('2025-01-15', NULL, '3 months', 'calendar', '1 month', 0)",
        );
        assert_eq!(
            periods,
            [
                "0|2025-01-15|2025-02-01|2025-01-01|2025-02-01",
                "1|2025-02-01|2025-03-01|2025-02-01|2025-03-01",
                "2|2025-03-01|2025-04-01|2025-03-01|2025-04-01"
            ]
        );
    }

    /// A document comes out canonical: keys sorted, defaults as written. What is wrong in it is named by path,
    /// in the fault and in what the facade raises.
    #[pg_test]
    fn documents_are_read_or_refused_by_path() {
        let read = "SELECT billing_internal.document_read('customer', '{\"name\":\"Acme\", \"key\":\"acme\",\"currency\":\"USD\"}')";
        assert_eq!(value(read).as_deref(), Some(r#"{"currency":"USD","key":"acme","name":"Acme"}"#));
        let wrong = r#"'{"key":"acme","curency":"USD"}'"#;
        assert_eq!(value(&format!("SELECT billing_internal.document_read('customer', {wrong})")), None);
        let call = format!("SELECT billing_internal.document_read_error('customer', {wrong})");
        assert_eq!(fault(&call), "ZB003 curency: is not a field of this document");
        let raised = error_of(&format!("SELECT billing_internal.read_document('customer', {wrong})"));
        assert!(
            raised.starts_with("ZB003 curency: is not a field of this document HINT Known here: key, name,"),
            "{raised}"
        );
        assert_eq!(
            fault("SELECT billing_internal.document_read_error('plan', '{}')"),
            "ZB004 no documents of kind \"plan\" are read"
        );
        assert!(holds(
            "SELECT billing_internal.document_read_error('seller', '{\"key\":\"us\",\"name\":\"US\",\"currency\":\"USD\"}') IS NULL"
        ));
    }
}
