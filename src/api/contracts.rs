//! Contracts: documents to canonical form, terms, checks.

use crate::domain::contracts::catalogue;
use crate::domain::contracts::charge::UsageCharge;
use crate::domain::contracts::contract::Contract;
use crate::domain::contracts::overrides::{Override, read_list};
use crate::domain::contracts::plan::Plan;
use crate::domain::contracts::resolve::Prices;
use crate::domain::foundation::Fault;
use crate::domain::foundation::json::{self, Node, Tree};
use crate::domain::metering::Dimensions;
use crate::domain::rating::Pricing;
use crate::pg::FaultJson;
use crate::pg::instant::from_timestamptz;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

/// The items of a catalogue document as JSON; NULL where `catalogue_items_error` says why.
#[pg_extern(sql = false)]
fn catalogue_items(document: &str) -> Option<String> {
    items(document).ok()
}

#[pg_extern(sql = false)]
fn catalogue_items_error(document: &str) -> Option<String> {
    items(document).err().as_ref().map(FaultJson::text)
}

/// Catalogues may be larger than other documents: 2,000 prices with 50 values each.
const CATALOGUE_BYTES_MAX: usize = 64 << 20;

fn items(document: &str) -> Result<String, Fault> {
    if document.len() > CATALOGUE_BYTES_MAX {
        return Err(json::parse(document).expect_err("it is larger than any document may be"));
    }
    let tree = json::parse_nested(document, json::DOCUMENT_DEPTH_MAX, "")?;
    catalogue::to_tree(catalogue::read(&Node::root(&tree))?).canonical()
}

/// The canonical contract document and the terms it makes on its plan: `{"document", "terms"}`.
#[pg_extern(sql = false)]
fn contract_terms(document: &str, plan: Option<&str>) -> Option<String> {
    terms(document, plan).ok()
}

#[pg_extern(sql = false)]
fn contract_terms_error(document: &str, plan: Option<&str>) -> Option<String> {
    terms(document, plan).err().as_ref().map(FaultJson::text)
}

fn terms(document: &str, plan: Option<&str>) -> Result<String, Fault> {
    let tree = json::parse(document)?;
    let contract = Contract::read(&Node::root(&tree))?;
    let plan = plan
        .map(|plan| Plan::read(&Node::root(&json::parse_nested(plan, json::DOCUMENT_DEPTH_MAX, "plan")?)))
        .transpose()?;
    let terms = contract.terms(plan.as_ref())?;
    let overrides = contract.overrides.iter().map(Override::to_tree).collect();
    Tree::object([
        ("document", contract.to_tree()),
        ("terms", terms.to_tree()),
        ("overrides", Tree::List(overrides)),
    ])
    .canonical()
}

/// Why a usage charge can't price a meter with a list price; NULL if it can.
#[pg_extern(sql = false)]
fn charge_error(charge: &str, meter: &str, pricing: &str) -> Option<String> {
    check_charge(charge, meter, pricing).err().as_ref().map(FaultJson::text)
}

fn check_charge(charge: &str, meter: &str, pricing: &str) -> Result<(), Fault> {
    let charge = UsageCharge::read(&Node::root(&json::parse(charge)?))?;
    let meter = super::metering::read_meter(meter)?;
    let pricing = json::parse_nested(pricing, json::DOCUMENT_DEPTH_MAX, "pricing")?;
    charge.check(&meter, &Pricing::read_header(&Node::root(&pricing))?)
}

/// A list of overrides in canonical form; NULL where `overrides_read_error` says why.
#[pg_extern(sql = false)]
fn overrides_read(overrides: &str) -> Option<String> {
    overrides_of(overrides).ok()
}

#[pg_extern(sql = false)]
fn overrides_read_error(overrides: &str) -> Option<String> {
    overrides_of(overrides).err().as_ref().map(FaultJson::text)
}

fn overrides_of(overrides: &str) -> Result<String, Fault> {
    let tree = json::parse(overrides)?;
    let list = read_list(&Node { tree: &tree, path: "overrides".into() })?;
    Tree::List(list.iter().map(Override::to_tree).collect()).canonical()
}

/// Which price holds for these dimensions at this instant, of `{"list", "overrides", "dimensions"}`; no row where
/// `resolved_price_error` says why.
#[pg_extern(sql = false)]
fn resolved_price(
    prices: &str,
    dimensions: &str,
    at: TimestampWithTimeZone,
) -> TableIterator<
    'static,
    (name!(source, String), name!(label, String), name!(list_label, String), name!(pricing, String)),
> {
    TableIterator::new(resolved(prices, dimensions, at).ok())
}

#[pg_extern(sql = false)]
fn resolved_price_error(prices: &str, dimensions: &str, at: TimestampWithTimeZone) -> Option<String> {
    resolved(prices, dimensions, at).err().as_ref().map(FaultJson::text)
}

fn resolved(
    prices: &str,
    dimensions: &str,
    at: TimestampWithTimeZone,
) -> Result<(String, String, String, String), Fault> {
    let at = from_timestamptz(at).ok_or_else(|| Fault::value("prices hold at instants, not at infinity"))?;
    let prices = Prices::read(&Node::root(&json::parse_nested(prices, json::DOCUMENT_DEPTH_MAX, "")?))?;
    let found = prices.resolve(&Dimensions::read(&Node::root(&json::parse(dimensions)?))?, at)?;
    let list_label = prices.list[found.list].label.clone();
    Ok((found.source.to_string(), found.label, list_label, found.pricing.canonical()))
}
