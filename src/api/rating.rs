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

/// What SQL has to know of a pricing document: whether its amount is proportional to quantity and free of
/// bounds (so that it may be split in time), whether it needs single events, its dimensions.
#[pg_extern(sql = false)]
fn pricing_facts(
    pricing: &str,
) -> TableIterator<'static, (name!(splits, bool), name!(needs_events, bool), name!(dimensions, Vec<String>))>
{
    let facts = json::parse(pricing).and_then(|tree| Pricing::read_header(&Node::root(&tree))).map(|p| {
        let bounded = |p: &Pricing| p.minimum().is_some() || p.maximum().is_some();
        let splits = p.is_linear() && !bounded(&p) && !p.rows().iter().any(|row| bounded(row.pricing()));
        (splits, p.needs_events(), p.dimensions_named())
    });
    TableIterator::new(facts.ok())
}
