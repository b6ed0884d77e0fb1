//! Rating: calculators over `billing.pricing`. They never raise; `rate_error` says why there is no amount.

use crate::domain::foundation::json::{self, Node};
use crate::domain::foundation::{Exact, Fault, Ratio};
use crate::domain::metering::Dimensions;
use crate::domain::rating::{Pricing, Step, match_candidates, shown_steps};
use crate::pg::{FaultJson, Numeric};
use crate::types::pricing::compiled;
use pgrx::prelude::*;

fn dimensions_of(text: &str) -> Result<Dimensions, Fault> {
    if text == "{}" {
        return Ok(Dimensions::new());
    }
    Dimensions::read(&Node::root(&json::parse(text)?))
}

fn events_of(events: i64) -> Result<u64, Fault> {
    u64::try_from(events).map_err(|_| Fault::value(format!("{events} events can't be")))
}

fn rated(pricing: &str, quantity: Numeric, dimensions: &str, events: i64) -> Result<Ratio, Fault> {
    compiled(pricing)?.rate(&Ratio::from(quantity.value?), &dimensions_of(dimensions)?, events_of(events)?)
}

/// The amount to 18 places; NULL where `rate_error` says why.
#[pg_extern(sql = false)]
fn rate_value(pricing: &str, quantity: Numeric, dimensions: &str, events: i64) -> Option<Numeric> {
    rated(pricing, quantity, dimensions, events).ok().as_ref().map(Numeric::shown)
}

#[pg_extern(sql = false)]
fn rate_value_error(pricing: &str, quantity: Numeric, dimensions: &str, events: i64) -> Option<String> {
    rated(pricing, quantity, dimensions, events).err().as_ref().map(FaultJson::text)
}

fn rated_events(pricing: &str, amounts: Vec<Option<Numeric>>) -> Result<Ratio, Fault> {
    compiled(pricing)?.rate_events(&exact_amounts(amounts)?)
}

fn exact_amounts(amounts: Vec<Option<Numeric>>) -> Result<Vec<Exact>, Fault> {
    amounts
        .into_iter()
        .map(|amount| amount.ok_or_else(|| Fault::value("an event's amount is NULL"))?.value)
        .collect()
}

#[pg_extern(sql = false)]
fn rate_events_value(pricing: &str, amounts: Vec<Option<Numeric>>) -> Option<Numeric> {
    rated_events(pricing, amounts).ok().as_ref().map(Numeric::shown)
}

#[pg_extern(sql = false)]
fn rate_events_error(pricing: &str, amounts: Vec<Option<Numeric>>) -> Option<String> {
    rated_events(pricing, amounts).err().as_ref().map(FaultJson::text)
}

/// The working, step by step; no rows where `rate_value_error` says why.
#[pg_extern(sql = false)]
fn rate_steps(
    pricing: &str,
    quantity: Numeric,
    dimensions: &str,
    events: i64,
) -> TableIterator<
    'static,
    (
        name!(step, i32),
        name!(what, String),
        name!(quantity, Option<String>),
        name!(unit_price, Option<String>),
        name!(amount, Numeric),
    ),
> {
    let steps: Result<Vec<Step>, Fault> = (|| {
        compiled(pricing)?.explain(
            &Ratio::from(quantity.value?),
            &dimensions_of(dimensions)?,
            events_of(events)?,
        )
    })();
    let steps = shown_steps(steps.unwrap_or_default()).into_iter().enumerate();
    TableIterator::new(
        steps.map(|(n, s)| (n as i32 + 1, s.what, s.quantity, s.unit_price, Numeric::shown(&s.amount))),
    )
}

/// Every match a matrix row could have that holds for these dimensions, as JSON.
#[pg_extern(sql = false)]
fn price_candidates(names: Vec<String>, dimensions: &str) -> SetOfIterator<'static, String> {
    let candidates = dimensions_of(dimensions).map(|dimensions| match_candidates(&names, &dimensions));
    SetOfIterator::new(candidates.unwrap_or_default().into_iter().map(|c| c.canonical()))
}

/// What SQL has to know of a pricing document: whether usage may be priced apart at any instant, whether versions
/// of it may take each other's place inside a period, whether it needs single events, its dimensions.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of a set-returning function")]
fn pricing_facts(
    pricing: &str,
) -> TableIterator<
    'static,
    (name!(splits, bool), name!(cuts, bool), name!(needs_events, bool), name!(dimensions, Vec<String>)),
> {
    let facts = json::parse_nested(pricing, json::DOCUMENT_DEPTH_MAX, "")
        .and_then(|tree| Pricing::read_header(&Node::root(&tree)))
        .map(|p| (p.splits_in_time(), p.can_be_cut(), p.needs_events(), p.dimensions_named()));
    TableIterator::new(facts.ok())
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{error_of, fault, rows, value};
    use pgrx::prelude::*;

    const GRADUATED: &str = r#"'{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]}'"#;
    const STAIRS: &str =
        r#"'{"model":"stairstep","tiers":[{"up_to":"100","amount":"50"},{"up_to":"500","amount":"200"}]}'"#;
    const MATRIX: &str = r#"'{"model":"matrix","dimensions":["model","region"],"rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},
        {"match":{"model":"gpt-4","region":"eu"},"unit_price":"0.033"},{"match":{"region":"eu"},"unit_price":"0.02"},{"match":{},"unit_price":"0.01"}]}'"#;
    const TRANSACTIONS: &str = r#"'{"model":"percentage","rate":"0.029","fixed":"0.30","per_event_minimum":"0.50","per_event_maximum":"10"}'"#;

    /// The amount of a quantity is exact, by the worked numbers of rules.md 1.
    #[pg_test]
    fn rates_by_the_worked_numbers() {
        for (pricing, quantity, dimensions, amount) in [
            (GRADUATED, "1000", "{}", "100"),
            (GRADUATED, "1001", "{}", "100.05"),
            (GRADUATED, "15000", "{}", "600"),
            (STAIRS, "100", "{}", "50"),
            (STAIRS, "101", "{}", "200"),
            (MATRIX, "1", r#"{"model":"gpt-4","region":"eu"}"#, "0.033"),
            (MATRIX, "1", r#"{"model":"gpt-4","region":"us"}"#, "0.03"),
            (MATRIX, "1", r#"{"model":"other","region":"eu"}"#, "0.02"),
            (MATRIX, "1", r#"{"model":"other","region":"us"}"#, "0.01"),
        ] {
            let call = format!("billing_internal.rate_value({pricing}, {quantity}, '{dimensions}', 1)");
            assert_eq!(value(&format!("SELECT {call}")).as_deref(), Some(amount), "{call}");
        }
    }

    /// A quantity that can't be rated gives NULL, never 0; the reason is in rate_value_error() and raised by rate().
    #[pg_test]
    fn unrated_quantities_say_why() {
        assert_eq!(value(&format!("SELECT billing_internal.rate_value({STAIRS}, 501, '{{}}', 1)")), None);
        for (arguments, says) in [
            (
                format!("{STAIRS}, 501, '{{}}', 1"),
                "ZB007 quantity 501 is above 500, where the last step ends",
            ),
            (format!("{STAIRS}, 1, '{{}}', -1"), "ZB004 -1 events can't be"),
            (format!("{STAIRS}, 'NaN', '{{}}', 1"), "ZB004 NaN is not an amount or a quantity"),
        ] {
            assert_eq!(fault(&format!("SELECT billing_internal.rate_value_error({arguments})")), says);
            assert!(error_of(&format!("SELECT billing.rate({arguments})")).starts_with(says));
        }
        let rated = format!("SELECT billing_internal.rate_value_error({STAIRS}, 500, '{{}}', 1)");
        assert_eq!(value(&rated), None);
    }

    /// Single events are rated one by one: 0.445 → 0.50, 3.20, 14.80 → 10 (rules.md 1).
    #[pg_test]
    fn events_are_rated_one_by_one() {
        let call =
            |amounts: &str| format!("SELECT billing_internal.rate_events_value({TRANSACTIONS}, '{amounts}')");
        assert_eq!(value(&call("{5,100,500}")).as_deref(), Some("13.7"));
        assert_eq!(value(&call("{}")).as_deref(), Some("0"));
        assert_eq!(value(&call("{5,NULL}")), None);
        let why =
            |amounts: &str| format!("SELECT billing_internal.rate_events_error({TRANSACTIONS}, '{amounts}')");
        assert_eq!(fault(&why("{5,NULL}")), "ZB004 an event's amount is NULL");
        assert_eq!(value(&why("{5}")), None);
        assert!(
            error_of(&format!("SELECT billing.rate_events({TRANSACTIONS}, '{{5,NULL}}')"))
                .starts_with("ZB004 an event's amount")
        );
    }

    /// The working shows each tier, and its amounts sum to the rate; what can't be rated has none.
    #[pg_test]
    fn the_working_sums_to_the_rate() {
        let steps = |quantity: &str| {
            rows(&format!("SELECT * FROM billing_internal.rate_steps({GRADUATED}, {quantity}, '{{}}', 1)"))
        };
        assert_eq!(
            steps("15000"),
            [
                "1|tier 1: up to 1000|1000|0.1|100",
                "2|tier 2: up to 10000|9000|0.05|450",
                "3|tier 3: above 10000|5000|0.01|50"
            ]
        );
        assert!(steps("'NaN'").is_empty());
    }

    /// All matches a row could have for these dimensions, the most specific first; others do not count.
    #[pg_test]
    fn candidates_are_every_subset() {
        let of = |dimensions: &str| {
            rows(&format!(
                "SELECT * FROM billing_internal.price_candidates('{{model,region}}', '{dimensions}')"
            ))
        };
        assert_eq!(
            of(r#"{"model":"gpt-4","region":"eu","user":"7"}"#),
            [r#"{"model":"gpt-4","region":"eu"}"#, r#"{"model":"gpt-4"}"#, r#"{"region":"eu"}"#, "{}"]
        );
        assert_eq!(of(r#"{"user":"7"}"#), ["{}"]);
    }

    /// An amount may be split anywhere in time only if it is proportional and unbounded, and over versions unless it is one
    /// amount for the period; per-event bounds need events.
    #[pg_test]
    fn facts_of_a_price() {
        let facts = |pricing: &str| rows(&format!("SELECT * FROM billing_internal.pricing_facts({pricing})"));
        assert_eq!(facts(r#"'{"model":"per_unit","unit_price":"0.03"}'"#), ["true|true|false|[]"]);
        assert_eq!(
            facts(r#"'{"model":"per_unit","unit_price":"0.03","minimum":"10"}'"#),
            ["false|true|false|[]"]
        );
        assert_eq!(facts(GRADUATED), ["false|true|false|[]"]);
        assert_eq!(facts(STAIRS), ["false|false|false|[]"]);
        assert_eq!(facts(TRANSACTIONS), ["false|true|true|[]"]);
        assert_eq!(facts(MATRIX), [r#"true|true|false|["model","region"]"#]);
        assert!(facts(r#"'{"model":"unknown"}'"#).is_empty());
    }
}
