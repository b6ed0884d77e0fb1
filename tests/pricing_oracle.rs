//! The pricing engine against an independent oracle: `tests/oracle/pricing.rs` was written by somebody
//! else from the rule texts alone, walks documents naively and shares no code with the engine.
//!
//! Both price every vector of `tests/vectors` (made by `make_vectors.py`, each with its working) and
//! thousands of random documents; amounts must be equal as exact fractions, and where one errs the other
//! must. A failure prints the document, shrunk. Cases and seed of the random part are those of
//! `PRICING_ORACLE_CASES` (documents per model) and `PRICING_ORACLE_SEED`; it prints what it did:
//!
//! `PRICING_ORACLE_CASES=20000 PRICING_ORACLE_SEED=7 cargo test --release --no-default-features --test
//! pricing_oracle -- --nocapture`

// Nothing here needs Postgres; one run without it is enough.
#![cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18")))]

#[path = "oracle/documents.rs"]
mod documents;
#[path = "oracle/pricing.rs"]
mod oracle;

use documents::{Damage, Pick, Places};
use num_bigint::{BigInt, Sign};
use num_rational::BigRational;
use num_traits::{Signed, Zero};
use oracle::{dec, text};
use pg_billing::domain::foundation::calendar::{Interval, Period};
use pg_billing::domain::foundation::proration::{Elapsed, ProrationBasis, share};
use pg_billing::domain::foundation::{Code, Exact, Fault, Ratio, RoundingMode, allocate};
use pg_billing::domain::metering::Dimensions;
use pg_billing::domain::rating::{Pricing, Step, TierContinuity, Used, rate_versions};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use serde_json::Value;
use std::cell::Cell;
use std::collections::BTreeMap;

type Number = BigRational;

// ---------------------------------------------------------------- between the two number types

fn number(ratio: &Ratio) -> Number {
    let (num, den) = ratio.parts();
    Number::new(num, den)
}

fn ratio(number: &Number) -> Ratio {
    integer(number.numer()).div(&integer(number.denom())).expect("a denominator is not 0")
}

/// An integer of any size, put together from pieces that fit an i128.
fn integer(integer: &BigInt) -> Ratio {
    let (sign, digits) = integer.to_u32_digits();
    let base = Ratio::new(1 << 32, 1);
    let digits = digits.iter().rev();
    let size = digits.fold(Ratio::ZERO, |value, digit| value.mul(&base).add(&Ratio::from(u64::from(*digit))));
    if sign == Sign::Minus { size.neg() } else { size }
}

fn exact(written: &str) -> Exact {
    Exact::parse(written).unwrap_or_else(|fault| panic!("{fault}"))
}

fn mode_of(name: &str) -> RoundingMode {
    RoundingMode::parse(name).unwrap_or_else(|fault| panic!("{fault}"))
}

// ---------------------------------------------------------------- one question to both

/// What is asked of a pricing.
#[derive(Debug, Clone)]
enum Asked {
    Total { quantity: Number, dimensions: BTreeMap<String, String>, events: u64 },
    Events(Vec<Number>),
}

/// The engine's answer in all its forms.
#[derive(Debug)]
struct Answer {
    amount: Number,
    without_bounds: Number,
    steps: Vec<Step>,
}

fn engine_pricing(document: &Value, percent_off: Option<&str>) -> Result<Pricing, Fault> {
    let pricing = Pricing::parse(&document.to_string())?;
    match percent_off {
        Some(percent) => pricing.percent_off(Exact::parse(percent)?),
        None => Ok(pricing),
    }
}

fn engine(pricing: &Pricing, asked: &Asked) -> Result<Answer, Fault> {
    let (amount, without_bounds, steps) = match asked {
        Asked::Total { quantity, dimensions, events } => {
            let quantity = ratio(quantity);
            let mut set = Dimensions::new();
            dimensions.iter().for_each(|(name, value)| set.set(name, value));
            (
                pricing.rate(&quantity, &set, *events),
                pricing.rate_without_bounds(&quantity, &set, *events),
                pricing.explain(&quantity, &set, *events),
            )
        }
        Asked::Events(amounts) => {
            let amounts: Vec<Exact> = amounts.iter().map(|amount| exact(&text(amount))).collect();
            (
                pricing.rate_events(&amounts),
                pricing.rate_events_without_bounds(&amounts),
                pricing.explain_events(&amounts),
            )
        }
    };
    match (amount, without_bounds, steps) {
        (Ok(amount), Ok(without_bounds), Ok(steps)) => {
            Ok(Answer { amount: number(&amount), without_bounds: number(&without_bounds), steps })
        }
        (Err(fault), Err(second), Err(third)) if fault == second && fault == third => Err(fault),
        answers => panic!("rate, rate_without_bounds and explain disagree: {answers:?}"),
    }
}

fn oracle_pricing(document: &Value, percent_off: Option<&str>) -> Result<Value, String> {
    match percent_off {
        Some(percent) => oracle::percent_off(document, &dec(percent)),
        None => Ok(document.clone()),
    }
}

fn naive(document: &Value, asked: &Asked) -> Result<Number, String> {
    match asked {
        Asked::Total { quantity, dimensions, events } => {
            oracle::rate(document, quantity, dimensions, *events)
        }
        Asked::Events(amounts) => oracle::rate_events(document, amounts),
    }
}

/// The document without the bounds that an invoice posts as lines of their own (definitions 8).
fn unbounded(document: &Value) -> Value {
    let mut document = document.clone();
    let fields = document.as_object_mut().expect("a pricing is an object");
    fields.remove("minimum");
    fields.remove("maximum");
    if let Some(pricing) = fields.get_mut("pricing") {
        *pricing = unbounded(pricing);
    }
    if let Some(rows) = fields.get_mut("rows") {
        *rows = rows.as_array().into_iter().flatten().map(unbounded).collect();
    }
    document
}

fn sum_of(steps: &[Step]) -> Number {
    steps.iter().map(|step| number(&step.amount)).sum()
}

/// What two answers to one question came to.
#[derive(Debug, PartialEq)]
enum Agreed {
    Amount(Number),
    Unrated,
}

/// Asks both, and says where they differ.
fn compare(pricing: &Pricing, document: &Value, asked: &Asked) -> Result<Agreed, String> {
    let differ = |what: &str, ours: String, theirs: String| {
        Err(format!("{what}: the engine says {ours}, the oracle {theirs}\n{document}\n{asked:?}"))
    };
    let (ours, theirs) = (engine(pricing, asked), naive(document, asked));
    let (ours, theirs) = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(fault), Err(_)) if fault.code == Code::Unrated => return Ok(Agreed::Unrated),
        (ours, theirs) => return differ("amount", format!("{ours:?}"), format!("{theirs:?}")),
    };
    if ours.amount != theirs {
        return differ("amount", text(&ours.amount), text(&theirs));
    }
    if sum_of(&ours.steps) != theirs {
        return differ("sum of the steps", text(&sum_of(&ours.steps)), text(&theirs));
    }
    let without_bounds = naive(&unbounded(document), asked)?;
    if ours.without_bounds != without_bounds {
        return differ("amount without bounds", text(&ours.without_bounds), text(&without_bounds));
    }
    if let Asked::Total { quantity, dimensions, events } = asked {
        let ask =
            |quantity: Number, events: u64| oracle::rate(&unbounded(document), &quantity, dimensions, events);
        if pricing.is_linear() && ask(-quantity, *events)? != -&without_bounds {
            return Err(format!("the engine calls linear what has no mirror\n{document}"));
        }
        if !pricing.counts_events() && ask(quantity.clone(), events + 3)? != without_bounds {
            return Err(format!("the engine ignores events that the oracle counts\n{document}"));
        }
    }
    Ok(Agreed::Amount(theirs))
}

/// Rounds on both sides; an amount past 28 digits is a fault of the engine alone.
fn compare_rounded(amount: &Number, scale: u32, mode: &str) -> Result<String, String> {
    let theirs = oracle::round(amount, scale, mode);
    match ratio(amount).round(scale, mode_of(mode)) {
        Ok(ours) => {
            let (ours, theirs) =
                (ours.to_fixed(scale).expect("rounded to the scale"), oracle::fixed(&theirs, scale));
            if ours == theirs { Ok(ours) } else { Err(format!("{ours} and {theirs} of {}", text(amount))) }
        }
        Err(_) if theirs.abs() >= dec(&format!("1e{}", 28 - scale)) => Ok(oracle::fixed(&theirs, scale)),
        Err(fault) => Err(fault.to_string()),
    }
}

// ---------------------------------------------------------------- vectors

fn vectors(json: &str) -> Vec<Value> {
    serde_json::from_str(json).expect("the vectors are JSON")
}

fn at<'v>(vector: &'v Value, name: &str) -> &'v str {
    vector[name].as_str().unwrap_or_else(|| panic!("{name} in {vector}"))
}

fn list(vector: &Value, name: &str) -> Vec<Number> {
    let items = vector[name].as_array().unwrap_or_else(|| panic!("{name} in {vector}"));
    items.iter().map(|item| dec(item.as_str().expect("a decimal in a string"))).collect()
}

fn scale_of(vector: &Value, name: &str) -> u32 {
    vector[name].as_u64().and_then(|scale| u32::try_from(scale).ok()).expect("a scale")
}

fn asked_by(vector: &Value) -> Asked {
    if vector.get("amounts").is_some() {
        return Asked::Events(list(vector, "amounts"));
    }
    let dimensions = vector.get("dimensions").and_then(Value::as_object);
    Asked::Total {
        quantity: dec(at(vector, "quantity")),
        dimensions: dimensions
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().expect("a value is text").to_string()))
            .collect(),
        events: vector.get("events").map_or(1, |events| events.as_u64().expect("a count")),
    }
}

#[test]
fn pricing_vectors() {
    let vectors = vectors(include_str!("vectors/pricing.json"));
    assert!(vectors.len() > 500);
    for vector in &vectors {
        let name = at(vector, "name");
        let percent_off = vector.get("percent_off").and_then(Value::as_str);
        let asked = asked_by(vector);
        let ours = engine_pricing(&vector["pricing"], percent_off);
        let theirs = oracle_pricing(&vector["pricing"], percent_off);
        if vector.get("error").is_some() {
            assert!(
                ours.and_then(|pricing| engine(&pricing, &asked)).is_err(),
                "{name}: the engine rates it"
            );
            assert!(theirs.and_then(|document| naive(&document, &asked)).is_err(), "{name}: the oracle does");
            continue;
        }
        let ours = ours.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let agreed = compare(&ours, &theirs.unwrap(), &asked).unwrap_or_else(|why| panic!("{name}: {why}"));
        let amount = dec(at(vector, "exact"));
        assert_eq!(agreed, Agreed::Amount(amount.clone()), "{name}");
        let mode = vector.get("mode").and_then(Value::as_str).unwrap_or("half_up");
        let rounded = compare_rounded(&amount, scale_of(vector, "minor_units"), mode);
        assert_eq!(rounded.as_deref(), Ok(at(vector, "rounded")), "{name}");
    }
}

#[test]
fn proration_vectors() {
    for vector in vectors(include_str!("vectors/proration.json")) {
        let name = at(&vector, "name");
        let [amount, quantity, part, whole] =
            ["amount", "quantity", "days", "total"].map(|name| dec(at(&vector, name)));
        let naive = oracle::prorate(&amount, &quantity, &part, &whole);
        assert_eq!(naive, dec(at(&vector, "exact")), "{name}");
        let share = match share_of(at(&vector, "basis"), &part, &whole) {
            Some(share) => share,
            // No policy: co-terming by month.
            None => ratio(&part).div(&ratio(&whole)).expect("a period has a length"),
        };
        let prorated = ratio(&amount).mul(&ratio(&quantity)).mul(&share);
        assert_eq!(number(&prorated), naive, "{name}");
        let rounded = compare_rounded(&naive, scale_of(&vector, "minor_units"), at(&vector, "mode"));
        assert_eq!(rounded.as_deref(), Ok(at(&vector, "rounded")), "{name}");
    }
}

/// The engine's share of a period that has `part` of `whole` days or seconds. The bases of 30 days are of
/// the stub from 20 January.
fn share_of(basis: &str, part: &Number, whole: &Number) -> Option<Ratio> {
    let count = |number: &Number| -> u64 { number.to_integer().try_into().expect("a count of days") };
    let day = |text: &str| text.parse::<chrono::NaiveDate>().expect("a date");
    let first = day("2025-01-01");
    let (starts_on, ends_on, whole_ends_on) = match basis {
        "30_actual" | "30_strict" => (day("2025-01-20"), day("2025-02-01"), day("2025-02-01")),
        "second" => (first, day("2025-01-15"), day("2025-02-01")),
        _ => (
            first,
            first + chrono::Days::new(count(part).min(10_000)),
            first + chrono::Days::new(count(whole).min(10_000)),
        ),
    };
    let period = Period { n: 0, starts_on, ends_on, whole_starts_on: first, whole_ends_on };
    let micros = |number: &Number| i64::try_from(count(number)).expect("seconds") * 1_000_000;
    let elapsed = Elapsed { part_micros: micros(part), whole_micros: micros(whole) };
    Some(share(&period, Interval::Months(1), ProrationBasis::parse(basis).ok()?, elapsed))
}

#[test]
fn allocation_vectors() {
    for vector in vectors(include_str!("vectors/allocation.json")) {
        let name = at(&vector, "name");
        let (total, scale) = (at(&vector, "total"), scale_of(&vector, "scale"));
        let agreed = compare_split(&dec(total), &list(&vector, "weights"), scale)
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        let wanted = vector.get("error").is_none().then(|| list(&vector, "parts"));
        assert_eq!(agreed, wanted, "{name}");
    }
}

/// The parts of a total on both sides, `None` where both refuse to split it.
fn compare_split(total: &Number, weights: &[Number], scale: u32) -> Result<Option<Vec<Number>>, String> {
    let ratios: Vec<Ratio> = weights.iter().map(ratio).collect();
    let ours = allocate(exact(&text(total)), &ratios, scale);
    let ours = ours.map(|parts| parts.iter().map(|part| dec(&part.to_string())).collect::<Vec<Number>>());
    match (ours, oracle::allocate(total, weights, scale)) {
        (Ok(ours), Ok(theirs)) if ours == theirs => Ok(Some(ours)),
        (Err(_), Err(_)) => Ok(None),
        (ours, theirs) => Err(format!("{ours:?} and {theirs:?} for {} over {weights:?}", text(total))),
    }
}

// ---------------------------------------------------------------- random documents

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

/// Runs a property over random values; the seed and the property's name decide them all.
fn run<S: Strategy>(name: &str, strategy: S, test: impl Fn(S::Value) -> Result<(), String>)
where
    S::Value: std::fmt::Debug,
{
    let cases = u32::try_from(setting("PRICING_ORACLE_CASES", 400)).expect("a number of cases");
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&setting("PRICING_ORACLE_SEED", 2026).to_le_bytes());
    name.bytes().take(24).enumerate().for_each(|(at, byte)| seed[8 + at] = byte);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    match runner.run(&strategy, |value| test(value).map_err(TestCaseError::fail)) {
        Ok(()) => {}
        Err(TestError::Fail(why, value)) => panic!("{name}: {why}\n{value:#?}"),
        Err(TestError::Abort(why)) => panic!("{name}: {why}"),
    }
}

/// One document and what is asked of it: four totals and a list of events.
fn case(documents: BoxedStrategy<Value>) -> impl Strategy<Value = Case> {
    let total = (documents::pick(), documents::dimensions(), prop_oneof![3 => Just(1u64), 2 => 0u64..7]);
    let totals = prop::collection::vec(total, 4);
    let events = prop::collection::vec(documents::pick(), 0..7);
    (documents, documents::percent_off(), totals, events)
        .prop_map(|(document, percent_off, totals, events)| Case { document, percent_off, totals, events })
}

#[derive(Debug, Clone)]
struct Case {
    document: Value,
    percent_off: Option<String>,
    totals: Vec<(Pick, BTreeMap<String, String>, u64)>,
    events: Vec<Pick>,
}

/// What the questions of one model came to.
#[derive(Default)]
struct Count {
    amounts: Cell<u64>,
    not_zero: Cell<u64>,
    unrated: Cell<u64>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Case {
    fn asked(&self) -> impl Iterator<Item = Asked> {
        let places = Places::of(&self.document);
        let events = Asked::Events(self.events.iter().map(|pick| places.amount(pick)).collect());
        let total = move |(pick, dimensions, events): &(Pick, BTreeMap<String, String>, u64)| Asked::Total {
            quantity: places.quantity(pick),
            dimensions: dimensions.clone(),
            events: *events,
        };
        self.totals.iter().map(total).chain([events])
    }

    fn check(&self, seen: &Count) -> Result<(), String> {
        let percent_off = self.percent_off.as_deref();
        let ours = engine_pricing(&self.document, percent_off)
            .map_err(|fault| format!("the engine refuses {}: {fault}", self.document))?;
        let theirs = oracle_pricing(&self.document, percent_off)?;
        for (at, asked) in self.asked().enumerate() {
            match compare(&ours, &theirs, &asked)? {
                Agreed::Unrated => count(&seen.unrated),
                Agreed::Amount(amount) => {
                    count(&seen.amounts);
                    if !amount.is_zero() {
                        count(&seen.not_zero);
                    }
                    let mode = if at % 2 == 0 { "half_up" } else { "half_even" };
                    compare_rounded(&amount, u32::try_from(at).expect("few questions"), mode)?;
                }
            }
        }
        Ok(())
    }
}

/// Both rate random documents of one model alike.
fn same_amounts(name: &str, documents: BoxedStrategy<Value>) {
    let seen = Count::default();
    run(name, case(documents), |case| case.check(&seen));
    let (amounts, not_zero, unrated) = (seen.amounts.get(), seen.not_zero.get(), seen.unrated.get());
    println!("{name}: {amounts} equal amounts ({not_zero} not zero), {unrated} unrated by both");
    assert!(not_zero > unrated && not_zero * 3 > amounts, "{name}: the cases say little");
}

#[test]
fn flat() {
    same_amounts("flat", documents::flat());
}

#[test]
fn per_unit() {
    same_amounts("per_unit", documents::per_unit());
}

#[test]
fn dynamic() {
    same_amounts("dynamic", documents::dynamic());
}

#[test]
fn package() {
    same_amounts("package", documents::package());
}

#[test]
fn graduated() {
    same_amounts("graduated", documents::graduated());
}

#[test]
fn volume() {
    same_amounts("volume", documents::volume());
}

#[test]
fn stairstep() {
    same_amounts("stairstep", documents::stairstep());
}

#[test]
fn percentage_of_totals() {
    same_amounts("percentage_of_totals", documents::percentage(0.0));
}

#[test]
fn percentage_of_events() {
    same_amounts("percentage_of_events", documents::percentage(1.0));
}

#[test]
fn graduated_percentage() {
    same_amounts("graduated_percentage", documents::graduated_percentage());
}

#[test]
fn matrix() {
    same_amounts("matrix", documents::matrix());
}

/// A document that breaks a rule is refused by both, whatever is asked of it.
#[test]
fn damaged_documents() {
    let document = prop_oneof![2 => documents::single(), 1 => documents::matrix()];
    run("damaged_documents", (document, documents::damage()), |(document, damage): (Value, Damage)| {
        let damaged = damage.done_to(&document);
        let ours = Pricing::parse(&damaged.to_string());
        let theirs = oracle::rate(&damaged, &Number::zero(), &BTreeMap::new(), 1);
        match (ours, theirs) {
            (Err(fault), Err(_)) if fault.code == Code::Document => Ok(()),
            (ours, theirs) => Err(format!("not refused: {ours:?}, {theirs:?}\n{damaged}")),
        }
    });
}

/// Totals on and off the grid over weights of one sign, of both, or none.
#[test]
fn splits() {
    let weight = (0i64..10_000, 0u32..5).prop_map(|(units, places)| dec(&format!("{units}e-{places}")));
    let weight = prop_oneof![3 => (0i64..3).prop_map(|few| Number::from_integer(few.into())), 5 => weight];
    let sign = prop_oneof![6 => Just("1"), 2 => Just("-1")];
    let weights = prop_oneof![
        5 => (prop::collection::vec(weight.clone(), 0..12), sign.clone())
            .prop_map(|(weights, sign)| weights.iter().map(|weight| weight * dec(sign)).collect()),
        1 => prop::collection::vec((weight, sign).prop_map(|(weight, sign)| weight * dec(sign)), 0..12),
    ];
    let places = prop_oneof![9 => Just(0u32), 1 => Just(1u32)];
    run("splits", (-10_000_000i64..10_000_000, 0u32..5, places, weights), |(units, scale, more, weights)| {
        let total = dec(&format!("{units}e-{}", scale + more));
        compare_split(&total, &weights, scale).map(|_: Option<Vec<Number>>| ())
    });
}

/// Versions of a price over one quantity, cut anywhere, are what the units cost one by one.
#[test]
fn versions() {
    let versions = prop::collection::vec((documents::followed(), 0u64..60), 1..5);
    run("versions", (versions, any::<bool>()), |(versions, continues): (Vec<(Value, u64)>, bool)| {
        let read: Vec<Pricing> =
            versions.iter().map(|(document, _)| Pricing::parse(&document.to_string()).unwrap()).collect();
        let used = |units: u64| Used { quantity: Ratio::from(units), events: units, amounts: None };
        let asked: Vec<(&Pricing, Used)> =
            read.iter().zip(&versions).map(|(pricing, (_, units))| (pricing, used(*units))).collect();
        let continuity = if continues { TierContinuity::Continue } else { TierContinuity::Reset };
        let ours =
            rate_versions(&asked, continuity, None).map(|amounts| amounts.iter().map(number).collect());
        let theirs = oracle::rate_versions(&versions, continues);
        match (ours, theirs) {
            (Ok::<Vec<Number>, _>(ours), Ok(theirs)) if ours == theirs => Ok(()),
            (ours, theirs) => {
                Err(format!("{ours:?} and {theirs:?} for {versions:?}, continues: {continues}"))
            }
        }
    });
}
