//! Bills as people agreed on them: contracts in, as the database gives them, documents out.

use super::batch::{Batch, Meter, Opened, Pending, UsageRow, Version};
use super::compute::Line;
use super::document::{Documents, Issue};
use super::explain::explain;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::{self, Node};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::Dimensions;
use crate::domain::rating::Pricing;
use chrono::NaiveDate;
use proptest::prelude::*;
use std::sync::Arc;
use uuid::Uuid;

mod credits;
mod difference;
mod price_versions;
mod terms;

/// A charge with what its meter holds. Meters have the charge's key and the dimensions model and region.
#[derive(Clone)]
struct Charge {
    /// As the table has it.
    row: String,
    usage: Vec<Used>,
}

#[derive(Clone)]
struct Used {
    /// Of the stretch it lies in; any, if there is one.
    from: Option<&'static str>,
    dimensions: String,
    quantity: String,
    events: u64,
    /// Of single events, with their places among those of all lines.
    amounts: Option<Vec<(u32, &'static str)>>,
}

fn used(dimensions: &str, quantity: &str, events: u64) -> Used {
    Used { from: None, dimensions: dimensions.into(), quantity: quantity.into(), events, amounts: None }
}

/// A usage charge with its own pricing.
fn usage(key: &str, pricing: &str, used: &[Used]) -> Charge {
    priced(key, &format!(r#""pricing":{pricing}"#), used)
}

/// A usage charge; `more` says its price, and more terms.
fn priced(key: &str, more: &str, used: &[Used]) -> Charge {
    let terms = format!(r#"{{"key":"{key}","product":"ai-api","meter":"{key}",{more}}}"#);
    let book = BOOK.to_string();
    Charge {
        row: format!(r#""product":"ai-api","every":"1 month","book_id":"{book}","terms":{terms}"#),
        usage: used.to_vec(),
    }
}

fn fee(terms: &str) -> Charge {
    let terms = format!(r#"{{"key":"platform","product":"p",{terms}}}"#);
    Charge { row: format!(r#""product":"p","every":"1 month","terms":{terms}"#), usage: Vec::new() }
}

const BOOK: Uuid = Uuid::from_u128(7);

/// A bill of one contract over calendar months in UTC.
struct Case {
    starts_on: &'static str,
    boundaries: &'static str,
    charges: Vec<Charge>,
    overrides: String,
    policies: Vec<(&'static str, &'static str)>,
    /// Versions of the price "tokens": from, until, pricing.
    prices: Vec<(Option<&'static str>, Option<&'static str>, &'static str)>,
    /// Of a recompute: which of them were known, and their ends then.
    known: Option<&'static str>,
    /// More fields of the contract: credit, commitments.
    more: String,
    /// What was used when: charge, instant, dimensions, quantity.
    hours: Vec<(usize, &'static str, &'static str, &'static str)>,
}

/// Charges of November 2023.
fn november(charges: impl IntoIterator<Item = Charge>) -> Case {
    Case {
        starts_on: "2023-11-01",
        boundaries: "[1]",
        charges: charges.into_iter().collect(),
        overrides: String::new(),
        policies: Vec::new(),
        prices: Vec::new(),
        known: None,
        more: String::new(),
        hours: Vec::new(),
    }
}

fn instant(text: &str) -> Instant {
    Node::root(&json::Tree::text(text.to_string())).instant().unwrap()
}

fn midnight(day: NaiveDate) -> Instant {
    instant(&format!("{day}T00:00:00Z"))
}

fn dimensions(text: &str) -> Dimensions {
    Dimensions::read(&Node::root(&json::parse(text).unwrap())).unwrap()
}

impl Case {
    fn overrides(mut self, overrides: &str) -> Case {
        self.overrides = overrides.into();
        self
    }

    fn policy(mut self, name: &'static str, value: &'static str) -> Case {
        self.policies.push((name, value));
        self
    }

    fn contract(&self) -> String {
        let mut policies = std::collections::BTreeMap::from([
            ("rounding_mode", "half_up"),
            ("rounding_level", "line"),
            ("proration_basis", "day"),
            ("minimum_basis", "undiscounted"),
            ("rate_at", "usage_time"),
        ]);
        policies.extend(self.policies.iter().copied());
        let policies: Vec<String> = policies.iter().map(|(k, v)| format!(r#""{k}":"{v}""#)).collect();
        let charge = |(at, charge): (usize, &Charge)| match charge.row.contains(r#""meter""#) {
            true => format!(r#"{{"meter_id":{at},{}}}"#, charge.row),
            false => format!(r#"{{"meter_id":null,{}}}"#, charge.row),
        };
        let charges: Vec<String> = self.charges.iter().enumerate().map(charge).collect();
        format!(
            r#"{{"key":"acme-1","customer":"acme","seller":"default","currency":"USD","bill_to":"acme","zone":"UTC",
            "starts_on":"{}","ends_on":null,"every":"1 month","alignment":"calendar","pinned":false,"signed_at":"{}T00:00:00Z",
            "version":1,"terms_version":1,"boundaries":{},"minor_units":2,"policies":{{{}}},"charges":[{}],"overrides":[{}],"known_prices":{}{}}}"#,
            self.starts_on,
            self.starts_on,
            self.boundaries,
            policies.join(","),
            charges.join(","),
            self.overrides,
            self.known.unwrap_or("null"),
            self.more
        )
    }

    /// What the database does around a batch.
    fn compute(&self) -> Result<Documents, Fault> {
        let contract = self.contract();
        self.around(Batch::open([opened(&contract, false, None)]), true)
    }

    /// The contract with a bill of no boundary.
    fn contract_apart(&self) -> String {
        self.contract().replace(&format!(r#""boundaries":{}"#, self.boundaries), r#""boundaries":[]"#)
    }

    /// What the documents that stand for it lack, as a bill of corrections alone.
    fn differences(&self, standing: &str) -> Result<Documents, Fault> {
        let (contract, main) = (self.contract(), self.contract_apart());
        self.around(Batch::open([opened(&main, false, None), opened(&contract, true, Some(standing))]), false)
    }

    /// The bill issued again while documents that correct it stand.
    fn again(&self, standing: &str) -> Documents {
        let contract = self.contract();
        self.around(Batch::open([opened(&contract, false, Some(standing))]), true).unwrap()
    }

    fn around(&self, batch: Batch, with_empty: bool) -> Result<Documents, Fault> {
        self.computed(batch, with_empty).one()
    }

    fn computed(&self, mut batch: Batch, with_empty: bool) -> Batch {
        for id in batch.meter_ids() {
            let terms = self.charges[id as usize].row.split(r#""meter":""#).nth(1).unwrap();
            let key = terms.split('"').next().unwrap().to_string();
            let meter = format!(
                r#"{{"key":"{key}","event_type":"e","aggregation":"sum","value":"n","dimensions":["model","region"],"unit":"token"}}"#
            );
            let meter = json::parse(&meter).unwrap();
            batch.add_meter(
                id,
                Meter::from(&crate::domain::metering::Meter::read(&Node::root(&meter)).unwrap()),
            );
        }
        for key in batch.price_keys() {
            assert_eq!(key, (BOOK, "tokens".to_string()));
            for (at, (from, until, pricing)) in self.prices.iter().enumerate() {
                let pricing = Pricing::read(&Node::root(&json::parse(pricing).unwrap())).unwrap();
                let version = Version {
                    price_id: Uuid::from_u128(100 + at as u128),
                    name: format!("list/tokens@{}", at + 1),
                    label: format!("tokens@{}", at + 1),
                    from: from.map(instant),
                    until: until.map(instant),
                    sha256: "".into(),
                    needs_events: pricing.needs_events(),
                    row_count: 0,
                    pricing: Arc::new(pricing),
                };
                batch.add_version(key.clone(), version);
            }
        }
        for (zone, day) in batch.days() {
            batch.add_midnight(zone, day, midnight(day));
        }
        for (n, stretch) in batch.stretches().into_iter().enumerate() {
            for used in &self.charges[stretch.meter_id as usize].usage {
                if used.from.is_none_or(|from| instant(from) == stretch.from) {
                    batch
                        .add_usage(UsageRow {
                            stretch: n,
                            dimensions: dimensions(&used.dimensions),
                            quantity: Exact::parse(&used.quantity).unwrap(),
                            events: used.events,
                            amounts: used
                                .amounts
                                .as_ref()
                                .map(|list| list.iter().map(|(_, a)| Exact::parse(a).unwrap()).collect()),
                            places: used.amounts.iter().flatten().map(|(place, _)| *place).collect(),
                        })
                        .unwrap();
                }
            }
        }
        for (n, stretch) in batch.hour_stretches().into_iter().enumerate() {
            for (charge, at, of, quantity) in &self.hours {
                let at = instant(at);
                if *charge == stretch.meter_id as usize && stretch.from <= at && at < stretch.until {
                    batch.add_hour(n, at, dimensions(of), Exact::parse(quantity).unwrap()).unwrap();
                }
            }
        }
        assert_eq!(batch.wanted_rows(), []);
        batch.compute(with_empty);
        batch
    }

    fn documents(&self) -> Documents {
        self.compute().unwrap()
    }

    fn lines(&self) -> Vec<Line> {
        self.documents().list.into_iter().flat_map(|document| document.lines).collect()
    }

    fn amounts(&self) -> Vec<String> {
        self.lines().iter().map(|line| line.amount.to_fixed(2).unwrap()).collect()
    }

    /// Keys and amounts.
    fn shown(&self) -> Vec<(String, String)> {
        self.lines().iter().map(|line| (line.key.clone(), line.amount.to_fixed(2).unwrap())).collect()
    }

    fn text(&self) -> String {
        let documents = self.documents();
        documents.text(&documents.list[0], &Issue::default()).unwrap()
    }
}

fn opened<'t>(contract: &'t str, earlier: bool, standing: Option<&'t str>) -> Opened<'t> {
    Opened { customer_id: 1, contract_id: Uuid::nil(), contract, earlier, standing }
}

/// Documents as the database hands on those that stand: under numbers, the boundary's own first.
fn standing(documents: &[&Documents]) -> String {
    let mut list = Vec::new();
    for (at, documents) in documents.iter().enumerate() {
        for document in &documents.list {
            let text = documents.text(document, &Issue::default()).unwrap();
            let tree = json::parse(&text).unwrap();
            let lines = tree.get("lines").unwrap().canonical().unwrap();
            let bill_to = &document.bill_to;
            list.push(format!(
                r#"{{"number":"INV-{}{bill_to}","bill_to":"{bill_to}","own":{},"lines":{lines}}}"#,
                at + 1,
                at == 0
            ));
        }
    }
    format!("[{}]", list.join(","))
}

fn line(key: &str, amount: &str) -> (String, String) {
    (key.to_string(), amount.to_string())
}

const MATRIX: &str = r#"{"model":"matrix","dimensions":["model"],"per":1000,"rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{"model":"gpt-3.5"},"unit_price":"0.002"}]}"#;
const REQUESTS: &str = r#"{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0"},{"up_to":"5000","unit_price":"0.001"},{"unit_price":"0.0005"}]}"#;

fn by_model(turbo: &str, four: &str) -> [Used; 2] {
    [used(r#"{"model":"gpt-3.5"}"#, turbo, 2939), used(r#"{"model":"gpt-4"}"#, four, 6456)]
}

/// The demo's acme: 8,779,295 and 6,210,011 tokens, 9,395 requests → 175.59 + 12.42 + 6.20.
#[test]
fn acme_of_the_demo() {
    let demo = |four: &str, deal: &str| {
        november([
            usage("tokens", MATRIX, &by_model("6210011", four)),
            usage("requests", REQUESTS, &by_model("2939", "6456")),
        ])
        .overrides(&format!(
            r#"{{"scope":"contract","meter":"tokens","match":{{"model":"gpt-4"}},"unit_price":"{deal}"}}"#
        ))
    };
    let case = demo("8779295", "0.02");
    assert_eq!(
        case.shown(),
        [
            line("tokens/2023-11-01/model=gpt-3.5", "12.42"),
            line("tokens/2023-11-01/model=gpt-4", "175.59"),
            line("requests/2023-11-01", "6.20"),
        ]
    );
    assert_eq!(case.lines()[1].price.as_deref(), Some("contract override, charge"));
    let text = case.text();
    let document = json::parse(&text).unwrap();
    assert_eq!(document.get("totals").unwrap().get("due").unwrap(), &json::Tree::text("194.21"));
    let notes = vec![("requests/2023-11-01".into(), vec!["a note".into()])];
    let told = explain(&Node::root(&document), &notes).unwrap();
    assert_eq!(told[0], "Invoice (preview) to acme of acme, contract acme-1: 194.21 USD");
    assert!(told.iter().any(|line| line.contains("tier 3") && line.contains("4,395")), "{told:#?}");
    assert!(told.contains(&"│  └─ a note".to_string()), "{told:#?}");

    // the same facts in another spelling and order give the same bytes
    let mut again = demo("8779295.0", "0.020");
    again.charges[0].usage.reverse();
    assert_eq!(again.text(), text);
    // and another fact gives another digest
    assert_ne!(demo("8779296", "0.02").documents().sha256, case.documents().sha256);
}

/// definitions 2: tiers run over the whole price, 6.20, not 6.67 per model; parts by largest remainder.
#[test]
fn tiers_run_over_the_whole_price_and_are_split() {
    let terms = format!(r#""pricing":{REQUESTS},"lines_by":["model"]"#);
    let split = november([priced("requests", &terms, &by_model("2939", "6456"))]);
    assert_eq!(split.amounts(), ["1.94", "4.26"]);
}

/// definitions 8: 90.01 of a minimum of 100 → true-up 9.99, so the sum is the minimum exactly.
#[test]
fn minimum_and_maximum_are_lines_of_their_own() {
    let with = |bounds: &str, quantity: &str| {
        let pricing = format!(r#"{{"model":"per_unit","unit_price":"0.010001"{bounds}}}"#);
        november([usage("tokens", &pricing, &[used("{}", quantity, 1)])])
    };
    let low = with(r#","minimum":"100""#, "9000");
    assert_eq!(low.amounts(), ["90.01", "9.99"]);
    assert_eq!(low.lines()[1].key, "tokens/2023-11-01/true_up");
    assert_eq!(with(r#","minimum":"100""#, "10000").amounts(), ["100.01"]);
    let high = with(r#","maximum":"100""#, "20000");
    assert_eq!(high.amounts(), ["200.02", "-100.02"]);
    assert_eq!(high.lines()[1].key, "tokens/2023-11-01/cap");
    // nothing used: the minimum is due all the same
    let unused = november([usage("tokens", r#"{"model":"per_unit","unit_price":"1","minimum":"100"}"#, &[])]);
    assert_eq!(unused.shown(), [line("tokens/2023-11-01/true_up", "100.00")]);
}

/// rules.md 1, charge min/max: CA 10, 100–200; NY 12, 120–240, as rows; beside the rows it acts on the charge.
#[test]
fn bounds_of_rows_and_of_the_matrix() {
    let rows = r#"{"model":"matrix","dimensions":["region"],"minimum":"250","rows":[
        {"match":{"region":"ca"},"unit_price":"10","minimum":"100","maximum":"200"},
        {"match":{"region":"ny"},"unit_price":"12","minimum":"120","maximum":"240"}]}"#;
    let of = |ca: &str, ny: &str| {
        let used = [used(r#"{"region":"ca"}"#, ca, 1), used(r#"{"region":"ny"}"#, ny, 1)];
        november([usage("seats", rows, &used)]).shown()
    };
    let line = |key: &str, amount: &str| line(&format!("seats/2023-11-01/{key}"), amount);
    assert_eq!(
        of("8", "25"),
        [
            line("region=ca", "80.00"),
            line("region=ny", "300.00"),
            line("region=ca/true_up", "20.00"),
            line("region=ny/cap", "-60.00")
        ]
    );
    assert_eq!(
        of("8", "10"),
        [
            line("region=ca", "80.00"),
            line("region=ny", "120.00"),
            line("region=ca/true_up", "20.00"),
            line("true_up", "30.00")
        ]
    );
    // What usage of nothing in particular has is due whatever was used: usage elsewhere makes the bill no smaller.
    let default = r#"{"model":"matrix","dimensions":["region"],"rows":[
        {"match":{},"unit_price":"10","minimum":"100"},{"match":{"region":"ny"},"unit_price":"12","minimum":"120"}]}"#;
    assert_eq!(november([usage("seats", default, &[])]).shown(), [line("true_up", "100.00")]);
    let elsewhere = november([usage("seats", default, &[used(r#"{"region":"ny"}"#, "11", 1)])]);
    assert_eq!(elsewhere.shown(), [line("region=ny", "132.00"), line("true_up", "100.00")]);
}

#[test]
fn a_price_change_splits_the_line_of_a_linear_model() {
    let at = |from: &'static str, quantity: &str| Used { from: Some(from), ..used("{}", quantity, 1) };
    let (first, second) = ("2023-11-01T00:00:00Z", "2023-11-16T00:00:00Z");
    let case = || Case {
        prices: vec![
            (None, Some(second), r#"{"model":"per_unit","unit_price":"0.010"}"#),
            (Some(second), None, r#"{"model":"per_unit","unit_price":"0.008"}"#),
        ],
        ..november([priced("tokens", r#""price":"tokens""#, &[at(first, "10000"), at(second, "12000")])])
    };
    // rules.md 1: 100 + 96
    assert_eq!(
        case().shown(),
        [line("tokens/2023-11-01", "100.00"), line("tokens/2023-11-01/from=2023-11-16T00:00:00Z", "96.00")]
    );
    // two segments with one price are one line
    let same = case().overrides(r#"{"scope":"contract","meter":"tokens","unit_price":"0.01"}"#);
    assert_eq!(same.amounts(), ["220.00"]);
}

#[test]
fn a_recompute_ends_prices_where_they_ended_then() {
    let (middle, per_unit) = ("2023-11-16T00:00:00Z", r#"{"model":"per_unit","unit_price":"0.010"}"#);
    let early = Used { from: Some("2023-11-01T00:00:00Z"), ..used("{}", "100", 1) };
    let case = |until, known| Case {
        prices: vec![(None, until, per_unit)],
        known,
        ..november([priced("tokens", r#""price":"tokens""#, std::slice::from_ref(&early))])
    };
    let issued = |until, known| {
        let documents = case(until, known).documents();
        documents.text(&documents.list[0], &Issue::default()).unwrap()
    };
    // Issued while it had no end: an end recorded later, before the period or in it, changes nothing.
    let open = issued(None, None);
    assert!(!open.contains("price_ends"));
    for end in [middle, "2023-10-01T00:00:00Z"] {
        assert_eq!(issued(Some(end), Some(r#"{"list/tokens@1":null}"#)), open);
    }
    // Issued when it had ended: the document says so, and it stays so whatever came after it.
    let ended = issued(Some(middle), None);
    assert!(ended.contains(r#""price_ends":{"list/tokens@1":"2023-11-16T00:00:00Z"}"#), "{ended}");
    let known = Some(r#"{"list/tokens@1":"2023-11-16T00:00:00Z"}"#);
    assert_eq!(issued(Some("2023-11-10T00:00:00Z"), known), ended);
}

/// definitions 9 and rules.md 1: 3 × 33.335 is 100.02 by line and 100.01 by invoice.
#[test]
fn rounding_levels() {
    let charge = |key| usage(key, r#"{"model":"per_unit","unit_price":"33.335"}"#, &[used("{}", "1", 1)]);
    let three = || november(["a", "b", "c"].map(charge));
    assert_eq!(three().amounts(), ["33.34", "33.34", "33.34"]);
    assert_eq!(three().policy("rounding_level", "invoice").amounts(), ["33.34", "33.34", "33.33"]);
}

/// rules.md 2: 310 a month from 20 January is 120.00; a whole month is 310.00.
#[test]
fn fees_prorate_by_policy() {
    let from_20_january = |proration: &str| Case {
        starts_on: "2025-01-20",
        boundaries: "[0, 1]",
        ..november([fee(&format!(r#""pricing":{{"model":"flat","amount":"310"}}{proration}"#))])
    };
    assert_eq!(from_20_january("").amounts(), ["120.00", "310.00"]);
    assert_eq!(from_20_january(r#","proration":"none""#).amounts(), ["310.00", "310.00"]);
    let thirty = from_20_january("").policy("proration_basis", "30_strict");
    assert_eq!(thirty.amounts(), ["113.67", "310.00"]);
    let first = &from_20_january("").lines()[0];
    assert_eq!(
        (first.key.as_str(), first.share.as_ref().unwrap().parts().0.to_string()),
        ("platform/2025-01-20", "12".into())
    );
}

#[test]
fn each_legal_entity_gets_its_own_document() {
    let case = november([usage(
        "tokens",
        MATRIX,
        &[
            used(r#"{"model":"gpt-4"}"#, "1000", 1),
            used(r#"{"bill_to":"gmbh","model":"gpt-4"}"#, "3000", 1),
            used(r#"{"bill_to":"acme","model":"gpt-4"}"#, "1000", 1),
        ],
    )]);
    assert_eq!(
        case.shown(),
        [
            line("tokens/2023-11-01/model=gpt-4", "0.06"),
            line("tokens/2023-11-01/model=gpt-4/bill_to=gmbh", "0.09")
        ]
    );
    let documents = case.documents();
    let of: Vec<&str> = documents.list.iter().map(|document| document.bill_to.as_str()).collect();
    assert_eq!(of, ["acme", "gmbh"]);
}

#[test]
fn what_no_price_matches_is_a_fault_never_zero() {
    let fault = |case: Case| case.compute().unwrap_err();
    let o1 = fault(november([usage("tokens", MATRIX, &[used(r#"{"model":"o1"}"#, "5", 1)])]));
    assert_eq!(o1.code.sqlstate(), "ZB007");
    assert!(o1.message.starts_with("charge tokens: "), "{}", o1.message);
    let steps = r#"{"model":"stairstep","tiers":[{"up_to":"10","amount":"50"}]}"#;
    let eleven = fault(november([usage("seats", steps, &[used("{}", "11", 1)])]));
    assert_eq!(eleven.code.sqlstate(), "ZB007");
}

#[test]
fn per_event_prices_take_single_amounts() {
    let pricing = r#"{"model":"percentage","rate":"0.029","fixed":"0.30","per_event_minimum":"0.50","per_event_maximum":"10"}"#;
    let payments = Used { amounts: Some(vec![(1, "5"), (2, "100"), (3, "500")]), ..used("{}", "605", 3) };
    assert_eq!(november([usage("payments", pricing, &[payments])]).amounts(), ["13.70"]);
}

/// A rate and a fixed part per event: each line has the fixed parts of its own events, as in rules.md 1, so what one
/// legal entity is asked never depends on another's.
#[test]
fn fixed_parts_belong_to_the_events_of_their_line() {
    let pricing = r#"{"model":"percentage","rate":"0.01","fixed":"0.30"}"#;
    let many = used("{}", "10", 20);
    let one = used(r#"{"bill_to":"labs"}"#, "990", 1);
    assert_eq!(november([usage("payments", pricing, &[many.clone(), one])]).amounts(), ["6.10", "10.20"]);
    assert_eq!(november([usage("payments", pricing, &[many])]).amounts(), ["6.10"]);
    let free = r#"{"model":"percentage","rate":"0.01","fixed":"0.30","free_events":1}"#;
    let halves = [used("{}", "10", 2), used(r#"{"bill_to":"labs"}"#, "10", 2)];
    assert_eq!(november([usage("payments", free, &halves)]).amounts(), ["0.55", "0.55"]);
}

/// The order of events over lines is in the digest, but of a bill recorded before there was `tier_continuity`: it is stored.
#[test]
fn places_of_events_are_in_the_digest_of_new_bills() {
    let pricing = r#"{"model":"percentage","rate":"0.1","per_event_maximum":"5"}"#;
    let bill = |visa: [u32; 2], amex: u32| {
        let line = |dimensions: &str, quantity: &str, events: &[(u32, &'static str)]| Used {
            amounts: Some(events.to_vec()),
            ..used(dimensions, quantity, events.len() as u64)
        };
        let visa = line(r#"{"card":"visa"}"#, "130", &[(visa[0], "40"), (visa[1], "90")]);
        let amex = line(r#"{"card":"amex"}"#, "20", &[(amex, "20")]);
        november([priced("payments", &format!(r#""pricing":{pricing},"lines_by":["card"]"#), &[visa, amex])])
    };
    let (apart, between) = (bill([1, 2], 3), bill([1, 3], 2));
    assert_eq!(apart.documents().sha256, between.documents().sha256);
    let now = |case: Case| case.policy("tier_continuity", "continue").documents().sha256;
    assert_ne!(now(apart), now(between));
}

/// One price over several lines: what is free goes by the order of all events, the amount is computed once and split
/// by quantity (definitions 2 and 11).
#[test]
fn per_event_prices_run_over_the_lines_of_all() {
    let pricing = r#"{"model":"percentage","rate":"0.1","free_events":1,"free_amount":"50","fixed":"1","per_event_maximum":"5"}"#;
    let line = |dimensions: &str, quantity: &str, events: &[(u32, &'static str)]| Used {
        amounts: Some(events.to_vec()),
        ..used(dimensions, quantity, events.len() as u64)
    };
    // In order: 40 is free; 20 asks 1 + 10 × 0.1 = 2; 30 asks 1 + 3 = 4; 90 would ask 10, so 5. Together 11 over 180.
    let visa = line(r#"{"card":"visa"}"#, "130", &[(1, "40"), (4, "90")]);
    let amex = line(r#"{"card":"amex"}"#, "20", &[(2, "20")]);
    let other = line(r#"{"card":"visa","bill_to":"labs"}"#, "30", &[(3, "30")]);
    let terms = format!(r#""pricing":{pricing},"lines_by":["card"]"#);
    let lines = november([priced("payments", &terms, &[visa, amex, other])]);
    assert_eq!(lines.amounts(), ["1.22", "7.95", "1.83"]);
}

#[test]
fn lines_of_nothing_are_left_out() {
    assert_eq!(november([usage("tokens", MATRIX, &[])]).amounts(), [""; 0]);
    let zero = used(r#"{"model":"gpt-4"}"#, "0", 0);
    assert_eq!(november([usage("tokens", MATRIX, &[zero])]).amounts(), [""; 0]);
    let free = r#"{"model":"per_unit","unit_price":"0"}"#;
    assert_eq!(november([usage("tokens", free, &[used("{}", "7", 1)])]).amounts(), ["0.00"]);
}

#[test]
fn a_contract_of_nothing_gives_an_empty_document() {
    let documents = november([]).documents();
    assert_eq!((documents.list.len(), documents.list[0].total), (1, Exact::ZERO));
}
