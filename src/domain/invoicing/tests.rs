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

const MIDDLE: &str = "2023-11-16T00:00:00Z";

/// 8,000 in the first half of November and 6,000 in the second, with a version of the price for each.
fn halves(first: &'static str, second: &'static str) -> Case {
    let at = |from: &'static str, quantity: &str| Used { from: Some(from), ..used("{}", quantity, 1) };
    let halves = [at("2023-11-01T00:00:00Z", "8000"), at(MIDDLE, "6000")];
    let mut case = november([priced("tokens", r#""price":"tokens""#, &halves)]);
    case.prices = vec![(None, Some(MIDDLE), first), (Some(MIDDLE), None, second)];
    case
}

const V1: &str =
    r#"{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.010"},{"unit_price":"0.006"}]}"#;
const V2: &str =
    r#"{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.008"},{"unit_price":"0.005"}]}"#;

/// rules.md 1: continue 116, reset 128, period_start 124.
#[test]
fn versions_of_tiers_go_on_begin_anew_or_wait() {
    let by = |continuity| halves(V1, V2).policy("tier_continuity", continuity);
    let second = line(&format!("tokens/2023-11-01/from={MIDDLE}"), "36.00");
    assert_eq!(by("continue").shown(), [line("tokens/2023-11-01", "80.00"), second]);
    assert_eq!(by("reset").amounts(), ["80.00", "48.00"]);
    let whole = Used { from: None, ..used("{}", "14000", 2) };
    let start = Case {
        prices: halves(V1, V2).prices,
        ..november([priced("tokens", r#""price":"tokens""#, &[whole])])
    };
    assert_eq!(
        start.policy("tier_continuity", "continue").policy("rate_at", "period_start").amounts(),
        ["124.00"]
    );
    // Billed before there was the policy: the price of the period's start.
    assert_eq!(halves(V1, V2).amounts(), ["124.00"]);

    let text = by("continue").text();
    assert!(text.contains(r#""after":"8000""#), "{text}");
    let document = json::parse(&text).unwrap();
    let told = explain(&Node::root(&document), &Vec::new()).unwrap();
    for leaf in ["for 14,000: 100", "less for the 8,000 before this version: 64"] {
        assert!(told.iter().any(|line| line.contains(leaf)), "{leaf}: {told:#?}");
    }
}

/// Each version's amount is rounded once and split over its lines; the next version goes on from all of them.
#[test]
fn versions_split_over_lines() {
    let at = |from: &'static str, model: &str, quantity: &str| Used {
        from: Some(from),
        ..used(&format!(r#"{{"model":"{model}"}}"#), quantity, 1)
    };
    let (first, second) = ("2023-11-01T00:00:00Z", MIDDLE);
    let usages =
        [at(first, "a", "5000"), at(first, "b", "3000"), at(second, "b", "5999"), at(second, "c", "1")];
    let mut case = november([priced("tokens", r#""price":"tokens","lines_by":["model"]"#, &usages)]);
    case.prices = halves(V1, V2).prices;
    let case = case.policy("tier_continuity", "continue");
    assert_eq!(
        case.shown(),
        [
            line("tokens/2023-11-01/model=a", "50.00"),
            line("tokens/2023-11-01/model=b", "30.00"),
            line("tokens/2023-11-01/model=b/from=2023-11-16T00:00:00Z", "35.99"),
            line("tokens/2023-11-01/model=c/from=2023-11-16T00:00:00Z", "0.01"),
        ]
    );
}

#[test]
fn what_can_not_be_cut_waits_for_the_next_period() {
    let amounts = |first, second| halves(first, second).policy("tier_continuity", "continue").amounts();
    let linear = r#"{"model":"per_unit","unit_price":"0.01"}"#;
    let (flat, dear) = (r#"{"model":"flat","amount":"7"}"#, r#"{"model":"flat","amount":"9"}"#);
    assert_eq!(amounts(flat, dear), ["7.00"]);
    assert_eq!(amounts(flat, linear), ["7.00"]);
    assert_eq!(amounts(linear, flat), ["140.00"]);
    let steps = r#"{"model":"stairstep","tiers":[{"up_to":"10000","amount":"50"},{"amount":"200"}]}"#;
    assert_eq!(amounts(V1, steps), ["124.00"]);
    // A linear version before tiers, and after them: 80 + (10,000 − 8,000) × .008 + 4,000 × .005; 80 + 60.
    assert_eq!(amounts(linear, V2), ["80.00", "36.00"]);
    assert_eq!(amounts(V1, linear), ["80.00", "60.00"]);
    // Minimum and maximum are those of the period's start and act on the lines of all versions.
    let least = r#"{"model":"per_unit","unit_price":"0.02","minimum":"250"}"#;
    let most = r#"{"model":"per_unit","unit_price":"0.02","maximum":"30"}"#;
    assert_eq!(amounts(least, linear), ["160.00", "60.00", "30.00"]);
    assert_eq!(amounts(linear, least), ["80.00", "120.00"]);
    assert_eq!(amounts(most, V2), ["160.00", "36.00", "-166.00"]);
    // An override that begins inside the period takes the place of tiers with the next one, of linear prices at once.
    let half = format!(r#"{{"scope":"contract","meter":"tokens","percent_off":"50","from":"{MIDDLE}"}}"#);
    let under = |first, second| {
        halves(first, second).policy("tier_continuity", "continue").overrides(&half).amounts()
    };
    assert_eq!(under(linear, linear), ["80.00", "30.00"]);
    assert_eq!(under(V1, V1), ["124.00"]);
    // One that holds all the time floats with the list: half of 80, and half of 36.
    let always = r#"{"scope":"contract","meter":"tokens","percent_off":"50"}"#;
    let off = halves(V1, V2).policy("tier_continuity", "continue").overrides(always);
    assert_eq!(off.amounts(), ["40.00", "18.00"]);
}

/// A retired list price is no matter where an override replaces it wholly.
#[test]
fn an_override_with_a_whole_pricing_needs_no_list() {
    let mut case = halves(V1, V1).policy("tier_continuity", "continue");
    case.prices = vec![(None, Some(MIDDLE), V1)];
    assert_eq!(case.compute().unwrap_err().code.sqlstate(), "ZB007");
    let whole =
        r#"{"scope":"contract","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.001"}}"#;
    assert_eq!(case.overrides(whole).amounts(), ["14.00"]);
}

/// Policy unpriced_usage = bill: what has no price is left out and named; once it has one, it can be told.
#[test]
fn what_has_no_price_can_be_left_out() {
    let usages = [used(r#"{"model":"gpt-4"}"#, "1000", 1), used(r#"{"model":"o1"}"#, "5", 2)];
    let case = |policy| november([usage("tokens", MATRIX, &usages)]).policy("unpriced_usage", policy);
    assert_eq!(case("hold").compute().unwrap_err().code.sqlstate(), "ZB007");
    assert_eq!(case("bill").shown(), [line("tokens/2023-11-01/model=gpt-4", "0.03")]);
    let text = case("bill").text();
    let left = r#""unpriced":[{"bill_to":"acme","charge":"tokens","dimensions":{"model":"o1"},"events":2,"from":"2023-11-01T00:00:00Z","meter":"tokens","quantity":"5","reason":"no row of the matrix matches"#;
    assert!(text.contains(left), "{text}");

    // Published since, as if from the middle on: it prices what was left out and nothing else.
    let listed = |known| {
        let at = |from: &'static str, model: &str| Used {
            from: Some(from),
            ..used(&format!(r#"{{"model":"{model}"}}"#), "1000", 1)
        };
        let usages = [at("2023-11-01T00:00:00Z", "gpt-4"), at(MIDDLE, "gpt-4"), at(MIDDLE, "o1")];
        let mut case = november([priced("tokens", r#""price":"tokens""#, &usages)]);
        case.prices = vec![
            (None, Some(MIDDLE), MATRIX),
            (
                Some(MIDDLE),
                None,
                r#"{"model":"matrix","dimensions":["model"],"per":1000,"rows":[{"match":{},"unit_price":"7"}]}"#,
            ),
        ];
        case.known = known;
        case.policy("unpriced_usage", "bill").policy("tier_continuity", "continue")
    };
    let billed = listed(Some(r#"{"list/tokens@1":null},"prices_now":true"#));
    assert_eq!(
        billed.shown(),
        [
            line("tokens/2023-11-01/model=gpt-4", "0.06"),
            line("tokens/2023-11-01/model=o1/from=2023-11-16T00:00:00Z", "7.00"),
        ]
    );
}

/// Before there was a continuity, a version that came inside the period was the next period's where tiers, amounts
/// or bounds run over it; what was billed so is computed so again.
#[test]
fn what_ran_over_the_period_kept_the_price_of_its_start() {
    let half = |at: &'static str| {
        [
            Used { from: Some(at), ..used("{}", "8000", 1) },
            Used { from: Some("2023-11-16T00:00:00Z"), ..used("{}", "6000", 1) },
        ]
    };
    let versions = |first, second| {
        let mut case = november([priced("tokens", r#""price":"tokens""#, &half("2023-11-01T00:00:00Z"))]);
        case.prices =
            vec![(None, Some("2023-11-16T00:00:00Z"), first), (Some("2023-11-16T00:00:00Z"), None, second)];
        case.amounts()
    };
    let graduated = [
        r#"{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.01"},{"unit_price":"0.008"}]}"#,
        r#"{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.02"},{"unit_price":"0.016"}]}"#,
    ];
    assert_eq!(versions(graduated[0], graduated[1]), ["132.00"]);
    let linear =
        [r#"{"model":"per_unit","unit_price":"0.01"}"#, r#"{"model":"per_unit","unit_price":"0.02"}"#];
    assert_eq!(versions(linear[0], linear[1]), ["80.00", "120.00"]);
    // one of the two is enough
    assert_eq!(versions(linear[0], graduated[1]), ["140.00"]);
    assert_eq!(versions(graduated[0], linear[1]), ["132.00"]);
    let least = r#"{"model":"per_unit","unit_price":"0.02","minimum":"200"}"#;
    assert_eq!(versions(least, linear[0]), ["280.00"]);
    assert_eq!(versions(linear[0], least), ["140.00"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However usage falls into the versions and lines of a tiered price, the lines of a version sum to its amount,
    /// rounded once; and they hold all that was used.
    #[test]
    fn lines_of_versions_sum_to_their_amounts(
        quantities in proptest::collection::vec(0u64..9_000, 6), reset in any::<bool>(),
        prices in proptest::collection::vec(1u64..999, 6), ends in proptest::collection::vec(1u64..20_000, 3),
    ) {
        let starts = ["2023-11-01T00:00:00Z", "2023-11-11T00:00:00Z", "2023-11-21T00:00:00Z"];
        let usages: Vec<Used> = quantities.iter().enumerate().filter(|(_, units)| **units > 0)
            .map(|(at, units)| Used { from: Some(starts[at % 3]), ..used(&format!(r#"{{"model":"{}"}}"#, at / 3), &units.to_string(), 1) })
            .collect();
        let documents: Vec<&'static str> = (0..3).map(|at| {
            let (low, high) = (prices[at * 2], prices[at * 2 + 1]);
            let text = format!(r#"{{"model":"graduated","tiers":[{{"up_to":"{}","unit_price":"0.{low:03}"}},{{"unit_price":"0.{high:03}"}}]}}"#, ends[at]);
            &*text.leak()
        }).collect();
        let mut case = november([priced("tokens", r#""price":"tokens","lines_by":["model"]"#, &usages)]);
        case.prices = (0..3).map(|at| (starts.get(at).filter(|_| at > 0).copied(), starts.get(at + 1).copied(), documents[at])).collect();
        let lines = case.policy("tier_continuity", if reset { "reset" } else { "continue" }).lines();
        // By hand, in thousandths: what the first n units cost under a version.
        let cost = |version: usize, units: u64| {
            let low = units.min(ends[version]);
            low * prices[version * 2] + (units - low) * prices[version * 2 + 1]
        };
        let mut before = 0;
        for (version, start) in starts.iter().enumerate() {
            let units = quantities[version] + quantities[version + 3];
            let thousandths = if reset { cost(version, units) } else { cost(version, before + units) - cost(version, before) };
            before += units;
            let of_version: Vec<&Line> = lines.iter().filter(|line| line.from == instant(start)).collect();
            let posted = of_version.iter().fold(Exact::ZERO, |sum, line| sum.add(line.amount).unwrap());
            prop_assert_eq!(posted, Exact::from_parts(((thousandths + 5) / 10).into(), 2).unwrap());
            let counted = of_version.iter().fold(Exact::ZERO, |sum, line| sum.add(line.quantity.unwrap()).unwrap());
            prop_assert_eq!(counted, Exact::from_i64(units as i64));
        }
    }

    /// definitions 7 and 8: minimum and maximum stay under a percentage off and under a unit price, so the lines
    /// sum to the amounts between the bounds, whichever models were used.
    #[test]
    fn bounds_hold_under_overrides(
        used_cents in proptest::collection::vec(0i64..20_000, 3), percent in 0i64..=100, price_cents in 0i64..300,
        minimum in 0i64..200, above in 0i64..200,
    ) {
        let maximum = minimum + above;
        let list = format!(r#"{{"model":"per_unit","unit_price":"1","minimum":"{minimum}","maximum":"{maximum}"}}"#);
        let usages: Vec<Used> = ["a", "b", "c"].iter().zip(&used_cents).filter(|(_, cents)| **cents > 0)
            .map(|(model, cents)| used(&format!(r#"{{"model":"{model}"}}"#), &format!("{}.{:02}", cents / 100, cents % 100), 1)).collect();
        let overrides = format!(
            r#"{{"scope":"contract","meter":"m","match":{{"model":"a"}},"percent_off":"{percent}"}},
               {{"scope":"customer","meter":"m","match":{{"model":"b"}},"unit_price":"{}.{:02}"}}"#, price_cents / 100, price_cents % 100);
        let lines = november([usage("m", &list, &usages)]).overrides(&overrides).lines();
        // in units of 0.0001, half up to 0.01
        let cents = |amount: i64| (amount + 50) / 100;
        let posted = cents(used_cents[0] * (100 - percent)) + cents(used_cents[1] * price_cents) + used_cents[2];
        let expected = posted.clamp(minimum * 100, maximum * 100);
        let total = lines.iter().fold(Exact::ZERO, |sum, line| sum.add(line.amount).unwrap());
        prop_assert_eq!(total, Exact::from_parts(expected.into(), 2).unwrap());
        let keys: std::collections::BTreeSet<_> = lines.iter().map(|line| &line.key).collect();
        prop_assert_eq!(keys.len(), lines.len());
    }
}

// ── differences ──────────────────────────────────────────────────────────────────────────────────

const TIERS: &str =
    r#"{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"1"},{"unit_price":"0.5"}]}"#;

/// Differences that are to be apart are on the bill of no boundary, in whatever order the database gives the bills.
#[test]
fn differences_go_to_the_bill_of_no_boundary() {
    let case = |quantity: &str| november([usage("q", TIERS, &[used("{}", quantity, 1)])]);
    let standing = standing(&[&case("950").documents()]);
    let now = case("1050");
    let (main, apart) = (now.contract(), now.contract_apart());
    let bills =
        [opened(&main, false, None), opened(&apart, false, None), opened(&main, true, Some(&standing))];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let batch = now.computed(Batch::open(order.map(|at| bills[at])), false);
        let mut lines: Vec<(Option<i64>, Vec<String>)> = batch
            .slots()
            .iter()
            .filter(|slot| !slot.is_earlier())
            .map(|slot| {
                let lines = slot.documents().unwrap().list.iter().flat_map(|document| &document.lines);
                (slot.boundary(), lines.map(|line| line.key.clone()).collect())
            })
            .collect();
        lines.sort();
        let expected = [(None, "q/2023-11-01/difference"), (Some(1), "q/2023-11-01")];
        assert_eq!(lines, expected.map(|(at, key)| (at, vec![key.to_string()])), "{order:?}");
    }
}

/// rules.md 4: 950 billed, 100 late: 1,050 cost 1,025, so 75.00, not 100.00. What was billed may be on several
/// documents; where nothing differs there is no document, and nothing to record.
#[test]
fn late_usage_is_the_difference_of_totals() {
    let used = |quantity: &str| november([usage("q", TIERS, &[used("{}", quantity, 1)])]);
    let billed = used("950").documents();
    let late = used("1050").differences(&standing(&[&billed])).unwrap();
    let of = &late.list[0].lines[0];
    assert_eq!((of.key.as_str(), of.kind.as_str()), ("q/2023-11-01/difference", "difference"));
    assert_eq!(
        (of.amount.to_fixed(2).unwrap(), of.quantity.unwrap().to_string()),
        ("75.00".into(), "100".into())
    );
    let text = late.text(&late.list[0], &Issue::default()).unwrap();
    let tree = json::parse(&text).unwrap();
    let recorded = tree.get("inputs").unwrap().get("differences").unwrap().canonical().unwrap();
    assert!(
        recorded
            .contains(r#""billed_on":["INV-1acme"],"boundary":1,"terms":{"inputs":{"contract_version":1"#),
        "{recorded}"
    );
    let explained = explain(&Node::root(&tree), &Vec::new()).unwrap().join("\n");
    for leaf in [
        "Q, difference: 75.00 USD   [q/2023-11-01/difference]",
        "q/2023-11-01 comes to 1025.00 for 1,050 token now, price: charge",
        "tier 2: above 1000: 50 at 0.5 = 25",
        "billed before: 950.00 for 950 token, on INV-1acme",
    ] {
        assert!(explained.contains(leaf), "{leaf} is not in\n{explained}");
    }

    let nothing = used("1050").differences(&standing(&[&billed, &late])).unwrap();
    assert!(nothing.list.is_empty());
    assert!(!nothing.terms_tree().canonical().unwrap().contains("differences"));
    // All of it is taken back: the line is gone, and its difference is what was billed.
    let gone = november([usage("q", TIERS, &[])]).differences(&standing(&[&billed, &late])).unwrap();
    let of = &gone.list[0].lines[0];
    assert_eq!(
        (of.amount.to_fixed(2).unwrap(), of.quantity.unwrap().to_string()),
        ("-1025.00".into(), "-1050".into())
    );
    // Issued again while the difference stands: the whole, less what stands elsewhere.
    let elsewhere = standing(&[&billed, &late]).replacen(r#""own":true"#, r#""own":false"#, 1);
    let again = used("1050").again(&elsewhere);
    let amounts: Vec<String> =
        again.list[0].lines.iter().map(|line| line.amount.to_fixed(2).unwrap()).collect();
    assert_eq!(amounts, ["1025.00", "-1025.00"]);
}

/// The digest covers what was counted as billed.
#[test]
fn what_stands_is_part_of_the_inputs() {
    let used = |quantity: &str| november([usage("q", TIERS, &[used("{}", quantity, 1)])]);
    let late =
        |billed: &str| used("1050").differences(&standing(&[&used(billed).documents()])).unwrap().sha256;
    assert_ne!(late("950"), late("951"));
    assert_eq!(late("950"), late("950"));
}

#[test]
fn what_stands_is_read_with_its_faults() {
    let case = november([usage("q", TIERS, &[])]);
    for (standing, message) in [
        ("[{}]", "standing[0].bill_to: is missing"),
        (
            r#"[{"bill_to":"a","number":"1","own":true,"lines":[{"key":"k","kind":"odd"}]}]"#,
            "lines of kind odd are not known",
        ),
    ] {
        let fault = case.differences(standing).unwrap_err();
        assert!(fault.message.contains(message), "{}", fault.message);
    }
}

proptest! {
    /// Whatever was billed before and in however many steps, all documents together come to the bill of now, for
    /// every line, entity, minimum and maximum.
    #[test]
    fn documents_sum_to_the_bill_of_now(
        steps in proptest::collection::vec((0u32..2500, 0u32..2500, 0u32..900), 1..6),
        pricing in prop_oneof![
            Just(TIERS),
            Just(r#"{"model":"volume","tiers":[{"up_to":"1000","unit_price":"1"},{"unit_price":"0.7333"}]}"#),
            Just(r#"{"model":"per_unit","unit_price":"0.333","minimum":"700","maximum":"900"}"#),
            Just(r#"{"model":"package","package_size":"250","amount":"3.335"}"#),
        ],
        rounding in prop_oneof![Just("line"), Just("invoice")],
    ) {
        let case = |(a, b, other): (u32, u32, u32)| {
            let used = |dimensions: &str, quantity: u32| used(dimensions, &quantity.to_string(), 1);
            november([priced("q", &format!(r#""pricing":{pricing},"lines_by":["model"]"#), &[
                used(r#"{"model":"a"}"#, a), used(r#"{"model":"b"}"#, b), used(r#"{"model":"a","bill_to":"uk"}"#, other)])])
                .policy("rounding_level", rounding)
        };
        let mut issued = vec![case(steps[0]).documents()];
        for step in &steps[1..] {
            let text = standing(&issued.iter().collect::<Vec<_>>());
            let late = case(*step).differences(&text).unwrap();
            for document in &late.list {
                prop_assert_eq!(document.corrects(), vec![1]);
            }
            issued.push(late);
        }
        let mut sums: std::collections::BTreeMap<String, Exact> = Default::default();
        for line in issued.iter().flat_map(|documents| &documents.list).flat_map(|document| &document.lines) {
            let key = line.difference.as_ref().map_or(&line.key, |difference| &difference.of);
            let sum = sums.entry(key.clone()).or_insert(Exact::ZERO);
            *sum = sum.add(line.amount).unwrap();
        }
        sums.retain(|_, sum| !sum.is_zero());
        let now = case(*steps.last().unwrap()).lines();
        let now = now.iter().filter(|line| !line.amount.is_zero()).map(|line| (line.key.clone(), line.amount)).collect();
        prop_assert_eq!(sums, now);
    }
}

// ── terms that change ────────────────────────────────────────────────────────────────────────────

/// A fee of 30 a day in November, from and until days of it (0 = all of the contract's time).
fn fee_during(amount: &str, from: u32, until: u32) -> Charge {
    let edge = |name: &str, day: u32| match day {
        0 => String::new(),
        _ => format!(r#""{name}":["2023-11-{day:02}","2023-11-{day:02}T00:00:00Z",false],"#),
    };
    let terms =
        format!(r#"{{"key":"platform","product":"p","pricing":{{"model":"flat","amount":"{amount}"}}}}"#);
    let (from, until) = (edge("from", from), edge("until", until));
    Charge {
        row: format!(r#""product":"p","every":"1 month",{from}{until}"terms":{terms}"#),
        usage: Vec::new(),
    }
}

/// In advance for November.
fn paid(charges: impl IntoIterator<Item = Charge>) -> Case {
    Case { boundaries: "[0]", ..november(charges) }
}

fn served(documents: &Documents) -> Vec<(String, String, String, String)> {
    let lines = documents.list.iter().flat_map(|document| &document.lines);
    let day = |at: Instant| at.to_string()[5..10].to_string();
    let amount = |line: &Line| line.amount.to_fixed(2).unwrap();
    lines.map(|line| (line.kind.as_str().into(), day(line.from), day(line.until), amount(line))).collect()
}

fn service(kind: &str, from: &str, until: &str, amount: &str) -> (String, String, String, String) {
    (kind.into(), from.into(), until.into(), amount.into())
}

/// Upgrade on the 16th, then found to have been on the 11th: each time what is left of what was paid is given back for
/// the time it is not served, and what takes its place is charged.
#[test]
fn a_change_gives_back_the_rest_and_charges_what_takes_its_place() {
    let first = paid([fee_during("100", 0, 0)]);
    let second = paid([fee_during("100", 0, 16), fee_during("300", 16, 0)]);
    let third = paid([fee_during("100", 0, 11), fee_during("300", 11, 0)]);
    let (one, two) = (first.documents(), second.differences(&standing(&[&first.documents()])).unwrap());
    assert_eq!(
        served(&two),
        [service("proration", "11-16", "12-01", "-50.00"), service("proration", "11-16", "12-01", "150.00")]
    );
    let three = third.differences(&standing(&[&one, &two])).unwrap();
    assert_eq!(
        served(&three),
        [
            service("proration", "11-11", "11-16", "-16.67"),
            service("proration", "11-11", "12-01", "200.00"),
            service("proration", "11-16", "12-01", "-150.00"),
        ]
    );
    // Taken back altogether.
    let back = first.differences(&standing(&[&one, &two, &three])).unwrap();
    assert_eq!(
        served(&back),
        [service("proration", "11-11", "12-01", "66.67"), service("proration", "11-11", "12-01", "-200.00")]
    );
    assert!(first.differences(&standing(&[&one, &two, &three, &back])).unwrap().list.is_empty());
}

/// What a change to come makes of a fee that is paid for is due with its day, and until then it is said to be waiting.
#[test]
fn what_begins_later_is_not_due_yet() {
    let stands = standing(&[&paid([fee_during("100", 0, 0)]).documents()]);
    let now = paid([fee_during("100", 0, 16), fee_during("300", 16, 0)]);
    let due = |until: &str| {
        let main = now.contract_apart().replace(
            r#""boundaries":[]"#,
            &format!(r#""boundaries":[],"usage_until":"2023-11-{until}T00:00:00Z""#),
        );
        let contract = now.contract();
        now.around(Batch::open([opened(&main, false, None), opened(&contract, true, Some(&stands))]), false)
            .unwrap()
    };
    let (before, on) = (due("15"), due("16"));
    assert!(before.list.is_empty());
    assert_eq!((before.left_out(None), on.left_out(None)), (vec![0], vec![]));
    assert_eq!(served(&on).len(), 2);
}

/// Where nothing is prorated, what takes the place of other terms inside a period costs nothing in it.
#[test]
fn what_is_not_prorated_is_paid_once() {
    let case = paid([fee_during("100", 0, 16), fee_during("300", 16, 0)]).policy("proration_basis", "none");
    assert_eq!(case.amounts(), ["100.00"]);
    let begins = paid([fee_during("300", 16, 0)]).policy("proration_basis", "none");
    assert_eq!(begins.amounts(), ["300.00"]);
}

proptest! {
    /// However often terms change and whatever was billed in between, the documents sum to what the terms of now come to.
    #[test]
    fn prorations_sum_to_the_bill_of_now(changes in proptest::collection::vec((2u32..30, 0u32..500, 0u32..500), 1..6)) {
        let mut documents = vec![paid([fee_during("310", 0, 0)]).documents()];
        let mut now = Vec::new();
        for (day, before, after) in changes {
            let case = paid([fee_during(&before.to_string(), 0, day), fee_during(&after.to_string(), day, 0)]);
            let stands = standing(&documents.iter().collect::<Vec<_>>());
            documents.push(case.differences(&stands).unwrap());
            now = case.lines();
            let again = standing(&documents.iter().collect::<Vec<_>>());
            prop_assert!(case.differences(&again).unwrap().list.is_empty());
        }
        let sum = |lines: &mut dyn Iterator<Item = Exact>| lines.fold(Exact::ZERO, |sum, amount| sum.add(amount).unwrap());
        let billed = sum(&mut documents.iter().flat_map(|d| &d.list).flat_map(|d| &d.lines).map(|line| line.amount));
        prop_assert_eq!(billed, sum(&mut now.iter().map(|line| line.amount)));
        let lines = documents.iter().flat_map(|d| &d.list).flat_map(|d| &d.lines);
        for line in lines {
            prop_assert!(line.from < line.until);
            prop_assert!(line.from >= instant("2023-11-01T00:00:00Z") && line.until <= instant("2023-12-01T00:00:00Z"));
        }
    }

    /// Amounts off never take more than they are, nor a line below 0, and the shares sum to what is taken.
    #[test]
    fn amounts_off_take_what_they_are(fees in proptest::collection::vec(0u32..200, 1..5), off in 0u32..600, percent in 0u32..101) {
        let charge = |(n, amount): (usize, &u32)| Charge {
            row: format!(r#""product":"p","every":"1 month","terms":{{"key":"f{n}","product":"p","pricing":{{"model":"flat","amount":"{amount}"}}}}"#),
            usage: Vec::new(),
        };
        let case = paid(fees.iter().enumerate().map(charge));
        let discounts = format!(r#""discounts":[{{"terms":{{"key":"a","amount_off":"{off}"}}}},{{"terms":{{"key":"b","percent_off":"{percent}"}}}}],"charges""#);
        let contract = case.contract().replace(r#""charges""#, &discounts);
        let documents = case.around(Batch::open([opened(&contract, false, None)]), true).unwrap();
        let cents = |line: &Line| line.amount.mul(Exact::from_i64(100)).unwrap().to_i64().unwrap();
        let lines: Vec<i64> = documents.list.iter().flat_map(|d| &d.lines).map(cents).collect();
        let left: i64 = fees.iter().map(|fee| i64::from(*fee) * i64::from(100 - percent)).sum();
        prop_assert!(lines.iter().all(|line| *line >= 0));
        prop_assert_eq!(lines.iter().sum::<i64>(), (left - i64::from(off) * 100).max(0));
    }
}
