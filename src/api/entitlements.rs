//! Entitlements: what sources come to over time, what becomes of a request, what an event that is consumed says.

use crate::domain::entitlements::Kind;
use crate::domain::entitlements::consumption::{self, Worth, worth};
use crate::domain::entitlements::fold::fold_document;
use crate::domain::entitlements::item::{Item, Mode};
use crate::domain::entitlements::quota;
use crate::domain::foundation::Fault;
use crate::domain::foundation::calendar::{Alignment, Calendar, Interval};
use crate::domain::foundation::json::{self, Node};
use crate::domain::metering::meter::Meter;
use crate::pg::FaultJson;
use crate::pg::instant::{from_date, local_day, midnight};
use crate::pg::numeric::Numeric;
use pgrx::datum::{Date, TimestampWithTimeZone};
use pgrx::prelude::*;

/// What a customer has of features over time, of what is said of them; NULL where `entitlements_folded_error` says why not.
#[pg_extern(sql = false)]
fn entitlements_folded(sources: &str) -> Option<String> {
    folded(sources).ok()
}

#[pg_extern(sql = false)]
fn entitlements_folded_error(sources: &str) -> Option<String> {
    folded(sources).err().as_ref().map(FaultJson::text)
}

fn folded(sources: &str) -> Result<String, Fault> {
    let tree = json::parse_nested(sources, json::DOCUMENT_DEPTH_MAX + 4, "")?;
    fold_document(&Node::root(&tree))?.canonical()
}

/// Why an entitlement does not suit a feature of a kind; `path` is where it stands.
#[pg_extern(sql = false)]
fn entitlement_error(item: &str, kind: &str, path: &str) -> Option<String> {
    let check = || {
        let tree = json::parse(item)?;
        let item = Item::read(&Node { tree: &tree, path: path.to_string() })?;
        let kind = Kind::parse(kind).ok_or_else(|| Fault::value(format!("no feature is a {kind}")))?;
        item.check(kind, path)
    };
    check().err().as_ref().map(FaultJson::text)
}

/// What becomes of a request for so much of a quota; NULL where the numbers are too long.
#[pg_extern(sql = false)]
fn quota_verdict(mode: &str, quota: Option<Numeric>, used: Numeric, asked: Numeric) -> Option<&'static str> {
    let quota = match quota {
        None => None,
        Some(quota) => Some(quota.value.ok()?),
    };
    let verdict = quota::decide(Mode::parse(mode)?, quota, used.value.ok()?, asked.value.ok()?);
    verdict.ok().map(quota::Verdict::as_str)
}

/// What is there once more of what was not used; NULL where the numbers are too long.
#[pg_extern(sql = false)]
fn quota_rolled(quota: Numeric, used: Numeric, cap: Option<Numeric>) -> Option<Numeric> {
    let cap = match cap {
        None => None,
        Some(cap) => Some(cap.value.ok()?),
    };
    quota::rolled(quota.value.ok()?, used.value.ok()?, cap).ok().map(Numeric::from)
}

/// The period of a rhythm that holds an instant: midnights of a zone, by Postgres' time zone data.
#[pg_extern(sql = false)]
fn quota_window(
    starts_on: Date,
    every: &str,
    alignment: &str,
    zone: &str,
    at: TimestampWithTimeZone,
) -> Option<Vec<TimestampWithTimeZone>> {
    let calendar = Calendar::new(
        from_date(starts_on)?,
        None,
        Interval::parse(every).ok()?,
        Alignment::parse(alignment).ok()?,
    );
    let period = calendar.ok()?.period_at(local_day(at, zone)?)?;
    Some(vec![midnight(period.starts_on, zone)?, midnight(period.ends_on, zone)?])
}

/// The event that consumes so much on a meter; no row where `consume_worth_error` says why.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of a set-returning function")]
fn consume_worth(
    definition: &str,
    quantity: Numeric,
    properties: &str,
    bill_to: Option<&str>,
) -> TableIterator<'static, (name!(properties, String), name!(quantity, Numeric), name!(dimensions, String))>
{
    TableIterator::new(worth_of(definition, quantity, properties, bill_to).ok())
}

#[pg_extern(sql = false)]
fn consume_worth_error(
    definition: &str,
    quantity: Numeric,
    properties: &str,
    bill_to: Option<&str>,
) -> Option<String> {
    worth_of(definition, quantity, properties, bill_to).err().as_ref().map(FaultJson::text)
}

fn worth_of(
    definition: &str,
    quantity: Numeric,
    properties: &str,
    bill_to: Option<&str>,
) -> Result<(String, Numeric, String), Fault> {
    let meter = Meter::read(&Node::root(&json::parse(definition)?))?;
    let properties = json::parse_nested(properties, json::DOCUMENT_DEPTH_MAX, "properties")?;
    let Worth { properties, quantity, dimensions } = worth(&meter, quantity.value?, &properties, bill_to)?;
    Ok((properties.canonical()?, Numeric::from(quantity), dimensions.canonical()))
}

/// The properties of the event by which a seat is taken or left; NULL for a meter that does not count who is there.
#[pg_extern(sql = false)]
fn seat_event(definition: &str, seat_holder: &str, leaves: bool, seats: Numeric) -> Option<String> {
    let tree = json::parse(definition).ok()?;
    let meter = Meter::read(&Node::root(&tree)).ok()?;
    consumption::seat_event(&meter, seat_holder, leaves, seats.value.ok()?)?.canonical().ok()
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{fault, holds, rows, value};
    use pgrx::prelude::*;

    // What sources say is folded into rows; what can't be is a fault.
    #[pg_test]
    fn entitlements_fold_over_time() {
        let sources = r#"[{"feature_id":1,"kind":"metered","zone":"UTC","sources":[
            {"level":"plan","label":"plan of a","from":"2026-01-01T00:00:00Z","item":{"feature":"x","value":"100"}},
            {"level":"add_on","label":"add-on b of a","from":"2026-02-01T00:00:00Z","until":"2026-03-01T00:00:00Z","item":{"feature":"x","value":"50"}}]}]"#;
        assert_eq!(
            rows(&format!(
                "SELECT r->>'from_at' AS f, r->>'until_at' AS u, r->>'quota' AS q, r->>'source' AS s
                 FROM jsonb_array_elements(billing_internal.entitlements_folded('{sources}')::jsonb) r"
            )),
            [
                "2026-01-01T00:00:00Z|2026-02-01T00:00:00Z|100|plan of a",
                "2026-02-01T00:00:00Z|2026-03-01T00:00:00Z|150|plan of a, add-on b of a",
                "2026-03-01T00:00:00Z||100|plan of a"
            ]
        );
        assert!(holds("SELECT billing_internal.entitlements_folded('{}') IS NULL"));
        assert_eq!(
            fault("SELECT billing_internal.entitlements_folded_error('{}')"),
            "ZB003 document: must be an array, not an object"
        );
        assert!(holds("SELECT billing_internal.entitlements_folded_error('[]') IS NULL"));
    }

    // A quota's window is the period that holds the instant, from local midnight to local midnight, as SQL says it of any
    // zone, also where clocks change; before the first there is none.
    #[pg_test]
    fn a_window_lies_between_midnights() {
        assert_eq!(
            rows(
                "SELECT billing_internal.quota_window('2026-01-31', '1 month', 'anniversary', 'Europe/Berlin', x::timestamptz)::text
                 FROM unnest(ARRAY['2026-03-30 21:59:59.999999+00', '2026-03-30 22:00+00', '2026-01-30 22:59+00', 'infinity']) x"
            ),
            [
                r#"{"2026-02-27 23:00:00+00","2026-03-30 22:00:00+00"}"#,
                r#"{"2026-03-30 22:00:00+00","2026-04-29 22:00:00+00"}"#,
                "",
                ""
            ]
        );
        assert!(holds(
            "SELECT bool_and(billing_internal.quota_window('2020-02-29', e, a, z, t) IS NOT DISTINCT FROM
                (SELECT ARRAY[billing_internal.local_midnight(p.starts_on, z), billing_internal.local_midnight(p.ends_on, z)]
                 FROM billing_internal.calendar_period_at('2020-02-29', NULL, e, a, (t AT TIME ZONE z)::date) p)) AND count(billing_internal.quota_window('2020-02-29', e, a, z, t)) > 3000
             FROM unnest(ARRAY['1 day', '1 week', '1 month', '1 year']) e, unnest(ARRAY['calendar', 'anniversary']) a,
                unnest(ARRAY['UTC', 'Asia/Kathmandu', 'America/Santiago', 'Pacific/Apia']) z,
                generate_series(timestamptz '2020-02-28 00:00+00', timestamptz '2024-03-01 00:00+00', interval '11 days 5 hours') t"
        ));
    }

    // An item suits its feature's kind, or the fault has its path.
    #[pg_test]
    fn entitlements_suit_their_kind() {
        assert!(holds(
            r#"SELECT billing_internal.entitlement_error('{"feature":"a","value":"5"}', 'seat', '') IS NULL"#
        ));
        assert_eq!(
            fault(
                r#"SELECT billing_internal.entitlement_error('{"feature":"a","value":"5"}', 'boolean', 'entitlements[2]')"#
            ),
            "ZB003 entitlements[2].value: must be true or false: a is a boolean feature"
        );
    }

    // A quota is decided on all or nothing; what is too long for us is NULL.
    #[pg_test]
    fn quotas_decide_and_roll_over() {
        let verdict = |args: &str| value(&format!("SELECT billing_internal.quota_verdict({args})"));
        assert_eq!(verdict("'hard', 5, 4, 1").as_deref(), Some("allowed"));
        assert_eq!(verdict("'hard', 5, 4, 2").as_deref(), Some("quota_exceeded"));
        assert_eq!(verdict("'soft', 5, 4, 2").as_deref(), Some("soft_limit"));
        assert_eq!(verdict("'overage', 5, 4, 2").as_deref(), Some("overage"));
        assert_eq!(verdict("'hard', NULL, 4, 2").as_deref(), Some("unlimited"));
        assert_eq!(verdict("'hard', 'NaN', 4, 2"), None);
        assert_eq!(value("SELECT billing_internal.quota_rolled(100, 30, 50)").as_deref(), Some("50"));
        assert_eq!(value("SELECT billing_internal.quota_rolled(100, 30, NULL)").as_deref(), Some("70"));
    }

    // A seat's event says who, what, and how many there are then.
    #[pg_test]
    fn seats_are_events() {
        let meter =
            r#"{"key":"m","event_type":"t","aggregation":"unique_count","value":"who","operation":"what"}"#;
        assert_eq!(
            value(&format!("SELECT billing_internal.seat_event('{meter}', 'u1', false, 2)")).as_deref(),
            Some(r#"{"change":1,"seats":2,"what":"add","who":"u1"}"#)
        );
    }

    // The event counts what was asked for.
    #[pg_test]
    fn what_is_consumed_is_an_event() {
        let meter = r#"{"key":"m","event_type":"t","aggregation":"sum","value":"n","dimensions":["model"]}"#;
        assert_eq!(
            rows(&format!(
                r#"SELECT * FROM billing_internal.consume_worth('{meter}', 5, '{{"model":"a"}}', NULL)"#
            )),
            [r#"{"model":"a","n":5}|5|{"model":"a"}"#]
        );
        assert!(
            rows(&format!(r#"SELECT * FROM billing_internal.consume_worth('{meter}', -5, '{{}}', NULL)"#))
                .is_empty()
        );
        assert_eq!(
            fault(&format!(r#"SELECT billing_internal.consume_worth_error('{meter}', -5, '{{}}', NULL)"#)),
            "ZB004 -5 can't be consumed"
        );
    }
}
