//! The working of an amount, step by step, from the document itself: it shares no arithmetic with the
//! compiled form, and its steps sum exactly to what `rate` gives.

use super::percentage::{Percentage, Tally};
use super::pricing::{Model, Package, Pricing, at_most, sum};
use super::tiers::{Tier, TierKind};
use crate::domain::foundation::{Exact, Fault, Ratio};
use crate::domain::metering::Dimensions;

/// One step of the working. The amounts of all steps sum to the amount.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// For people: `tier 1: up to 1000`, `free units`, `floor`, `minimum`.
    pub what: String,
    /// The units, packages, events or money the step is about, in canonical decimals.
    pub quantity: Option<String>,
    /// The price of one, with `per` where it isn't 1: `0.15 per 3600`.
    pub unit_price: Option<String>,
    /// Exact and unrounded.
    pub amount: Ratio,
}

/// The steps for showing: amounts of at most 18 places, which sum to the amount rounded to as many, spread
/// cumulatively (rules.md 0.7). 1/3 + 1/3 is 0.666666666666666667, and so are its parts together.
pub fn shown_steps(mut steps: Vec<Step>) -> Vec<Step> {
    let (mut exact, mut shown) = (Ratio::ZERO, Ratio::ZERO);
    for step in &mut steps {
        exact = exact.add(&step.amount);
        let upto = exact.at_shown_places();
        step.amount = upto.sub(&shown);
        shown = upto;
    }
    steps
}

impl Pricing {
    /// The working of [`rate`](Pricing::rate) for the same arguments.
    pub fn explain(
        &self,
        quantity: &Ratio,
        dimensions: &Dimensions,
        events: u64,
    ) -> Result<Vec<Step>, Fault> {
        let total = self.rate(quantity, dimensions, events)?;
        let mut working = Working::default();
        let single = self.open_row(dimensions, &mut working)?;
        match (single.model(), single.percentage_rule()) {
            (Model::Percentage(percentage), Some(rule)) => {
                working.percentage(single, percentage, &rule.tally(quantity, events)?);
            }
            _ => working.quantity(single, quantity)?,
        }
        Ok(self.close(single, working, &total))
    }

    /// The working of [`rate_events`](Pricing::rate_events) for the same amounts, events summed up.
    pub fn explain_events(&self, amounts: &[Exact]) -> Result<Vec<Step>, Fault> {
        let total = self.rate_events(amounts)?;
        let mut working = Working::default();
        let single = self.open_row(&Dimensions::new(), &mut working)?;
        match (single.model(), single.percentage_rule()) {
            (Model::Percentage(percentage), Some(rule)) if rule.is_per_event() => {
                working.percentage(single, percentage, &rule.tally_events(amounts));
            }
            (Model::Percentage(percentage), Some(rule)) => {
                working.percentage(single, percentage, &rule.tally(&sum(amounts), amounts.len() as u64)?);
            }
            _ => working.quantity(single, &sum(amounts))?,
        }
        Ok(self.close(single, working, &total))
    }

    fn open_row(&self, dimensions: &Dimensions, working: &mut Working) -> Result<&Pricing, Fault> {
        if let Some((_, row)) = self.select(dimensions) {
            working.step(format!("row {}", row.matched().canonical()), Ratio::ZERO);
        }
        self.resolve(dimensions)
    }

    fn close(&self, single: &Pricing, mut working: Working, total: &Ratio) -> Vec<Step> {
        working.bounds(single);
        if self.is_matrix() {
            working.bounds(self);
        }
        debug_assert_eq!(working.sum(), *total, "the steps of {}", self.canonical());
        working.steps
    }
}

#[derive(Default)]
struct Working {
    steps: Vec<Step>,
}

impl Working {
    fn sum(&self) -> Ratio {
        self.steps.iter().fold(Ratio::ZERO, |sum, step| sum.add(&step.amount))
    }

    fn step(&mut self, what: impl Into<String>, amount: Ratio) {
        self.steps.push(Step { what: what.into(), quantity: None, unit_price: None, amount });
    }

    fn counted(&mut self, what: impl Into<String>, quantity: &Ratio, amount: Ratio) {
        self.steps.push(Step {
            what: what.into(),
            quantity: Some(quantity.shown()),
            unit_price: None,
            amount,
        });
    }

    /// `quantity` at a price of one; the floor, where it raises the price, is a step of its own.
    fn priced(&mut self, pricing: &Pricing, priced: Priced) {
        let Priced { label, quantity, price, per } = priced;
        let cost = |price: Exact| {
            quantity.mul(&price.into()).div(&per.into()).expect("per and sizes are greater than 0")
        };
        let shown = |price: Exact| {
            if per == Exact::ONE { price.to_string() } else { format!("{price} per {per}") }
        };
        let amount = cost(price);
        self.steps.push(Step {
            what: label.to_string(),
            quantity: Some(quantity.shown()),
            unit_price: Some(shown(price)),
            amount: amount.clone(),
        });
        let floored = pricing.terms().floored(price);
        if floored != price {
            self.steps.push(Step {
                what: format!("{label}: floor"),
                quantity: Some(quantity.shown()),
                unit_price: Some(shown(floored)),
                amount: cost(floored).sub(&amount),
            });
        }
    }

    /// An amount for whatever quantity, floored too.
    fn flat(&mut self, pricing: &Pricing, label: &str, amount: Exact) {
        self.step(label, amount.into());
        let floored = pricing.terms().floored(amount);
        if floored != amount {
            self.step(format!("{label}: floor"), Ratio::from(floored).sub(&amount.into()));
        }
    }

    fn bounds(&mut self, pricing: &Pricing) {
        let sum = self.sum();
        let bounded = pricing.clamp(sum.clone());
        if bounded != sum {
            let what = if bounded > sum { "minimum" } else { "maximum" };
            self.step(what, bounded.sub(&sum));
        }
    }

    fn quantity(&mut self, pricing: &Pricing, quantity: &Ratio) -> Result<(), Fault> {
        if let Model::Flat { amount } = pricing.model() {
            self.flat(pricing, "amount", *amount);
            return Ok(());
        }
        let billable = pricing.billable(quantity)?;
        let free_units = pricing.free_units();
        if !free_units.is_zero() {
            self.counted("free units", &at_most(quantity, Some(free_units)), Ratio::ZERO);
        }
        let label = |label| Priced { label, quantity: &billable, price: Exact::ZERO, per: Exact::ONE };
        match pricing.model() {
            Model::PerUnit { unit_price } => {
                let priced = Priced { price: *unit_price, per: pricing.per(), ..label("unit price") };
                self.priced(pricing, priced);
            }
            Model::Dynamic { multiplier, .. } => {
                self.priced(pricing, Priced { price: *multiplier, ..label("multiplier") });
            }
            Model::Package(package) => self.packages(pricing, package, &billable),
            Model::Tiered { kind, tiers } => {
                Tiers { pricing, kind: *kind, tiers }.explain(&billable, self);
            }
            Model::Flat { .. } | Model::Percentage(_) | Model::Matrix(_) => {
                unreachable!("flat returned above; percentages have their own steps; rows are no matrix")
            }
        }
        Ok(())
    }

    fn packages(&mut self, pricing: &Pricing, package: &Package, quantity: &Ratio) {
        let size = package.package_size;
        let least = Ratio::from(i64::from(package.minimum_one_package));
        let packages = packages(quantity, size).max(least);
        let label = format!("packages of {size}");
        let priced = Priced { label: &label, quantity: &packages, price: package.amount, per: Exact::ONE };
        self.priced(pricing, priced);
    }

    fn percentage(&mut self, pricing: &Pricing, percentage: &Percentage, tally: &Tally) {
        if !tally.free_amount.is_zero() {
            self.counted("free amount", &tally.free_amount, Ratio::ZERO);
        }
        let rate = Priced { label: "rate", quantity: &tally.rated, price: percentage.rate, per: Exact::ONE };
        self.priced(pricing, rate);
        if !percentage.fixed.is_zero() {
            if tally.free_events > 0 {
                self.counted("free events", &tally.free_events.into(), Ratio::ZERO);
            }
            let events = Ratio::new(tally.fixed_events, 1);
            self.steps.push(Step {
                what: "fixed part of each event".to_string(),
                quantity: Some(events.shown()),
                unit_price: Some(percentage.fixed.to_string()),
                amount: events.mul(&percentage.fixed.into()),
            });
        }
        if tally.raised_events > 0 {
            self.counted("minimum per event", &tally.raised_events.into(), tally.raised.clone());
        }
        if tally.cut_events > 0 {
            self.counted("maximum per event", &tally.cut_events.into(), tally.cut.clone());
        }
    }
}

/// A quantity and the price of `per` of it.
struct Priced<'p> {
    label: &'p str,
    quantity: &'p Ratio,
    price: Exact,
    per: Exact,
}

fn packages(quantity: &Ratio, size: Exact) -> Ratio {
    quantity.div(&size.into()).expect("package_size is greater than 0").ceil()
}

/// The tiers of one pricing.
struct Tiers<'p> {
    pricing: &'p Pricing,
    kind: TierKind,
    tiers: &'p [Tier],
}

impl Tiers<'_> {
    fn explain(&self, quantity: &Ratio, working: &mut Working) {
        if quantity.is_zero() {
            if self.pricing.terms().first_flat_at_zero {
                self.tier(0, None, working);
            }
            return;
        }
        let mut lower = Ratio::ZERO;
        for (at, tier) in self.tiers.iter().enumerate() {
            let upto = at_most(quantity, tier.up_to);
            if self.kind.is_graduated() {
                self.tier(at, Some(&upto.sub(&lower)), working);
            } else if upto == *quantity {
                self.tier(at, Some(quantity), working);
            }
            if upto == *quantity {
                return;
            }
            lower = upto;
        }
    }

    /// The steps of one tier for the units priced in it; `None` where only its flat fee is due.
    fn tier(&self, at: usize, units: Option<&Ratio>, working: &mut Working) {
        let tier = &self.tiers[at];
        let label = self.label(at);
        let before = working.sum();
        if let (Some(price), Some(units)) = (tier.price, units) {
            match tier.package_size {
                None => {
                    let per = self.pricing.per();
                    working.priced(self.pricing, Priced { label: &label, quantity: units, price, per });
                }
                Some(size) => {
                    let (label, packages) = (format!("{label}, packages of {size}"), packages(units, size));
                    let priced = Priced { label: &label, quantity: &packages, price, per: Exact::ONE };
                    working.priced(self.pricing, priced);
                }
            }
        }
        match (self.kind, tier.flat) {
            (TierKind::Stairstep, Some(amount)) => working.flat(self.pricing, &label, amount),
            (_, Some(fee)) => working.step(format!("{label}: flat fee"), fee.into()),
            (_, None) => {}
        }
        let inside = working.sum().sub(&before);
        if let Some(maximum) = tier.maximum.map(Ratio::from).filter(|maximum| inside > *maximum) {
            working.step(format!("{label}: maximum"), maximum.sub(&inside));
        }
    }

    fn label(&self, at: usize) -> String {
        let noun = self.kind.noun();
        let range = match (self.tiers[at].up_to, at.checked_sub(1).and_then(|at| self.tiers[at].up_to)) {
            (Some(end), _) => format!("up to {end}"),
            (None, Some(before)) => format!("above {before}"),
            (None, None) => "all".to_string(),
        };
        let all = if self.kind == TierKind::Volume { ", all units" } else { "" };
        format!("{noun} {}: {range}{all}", at + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        any_dimensions, any_pricing, decimal_below, dimensions, exact, pricing, quantity, quantity_up_to,
    };
    use super::*;
    use proptest::prelude::*;

    fn lines(steps: &[Step]) -> Vec<String> {
        let shown = |text: &Option<String>| text.clone().unwrap_or("-".into());
        steps
            .iter()
            .map(|s| format!("{} | {} | {} | {}", s.what, shown(&s.quantity), shown(&s.unit_price), s.amount))
            .collect()
    }

    fn explained(document: &str, units: &str) -> Vec<String> {
        lines(&pricing(document).explain(&quantity(units), &Dimensions::new(), 1).unwrap())
    }

    #[test]
    fn tells_the_tiers() {
        let tiers = r#""tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05","flat_fee":"5","maximum":"300"},{"unit_price":"0.01","package_size":1000}]"#;
        assert_eq!(
            explained(
                &format!(r#"{{"model":"graduated",{tiers},"free_units":"500","maximum":"400"}}"#),
                "15500"
            ),
            [
                "free units | 500 | - | 0",
                "tier 1: up to 1000 | 1000 | 0.1 | 100",
                "tier 2: up to 10000 | 9000 | 0.05 | 450",
                "tier 2: up to 10000: flat fee | - | - | 5",
                "tier 2: up to 10000: maximum | - | - | -155",
                "tier 3: above 10000, packages of 1000 | 5 | 0.01 | 0.05",
                "maximum | - | - | -0.05",
            ]
        );
        assert_eq!(
            explained(
                r#"{"model":"volume","per":10,"unit_price_floor":"2","tiers":[{"up_to":"5","unit_price":"9"},{"unit_price":"1"}]}"#,
                "20"
            ),
            [
                "tier 2: above 5, all units | 20 | 1 per 10 | 2",
                "tier 2: above 5, all units: floor | 20 | 2 per 10 | 2"
            ]
        );
        assert_eq!(
            explained(
                r#"{"model":"stairstep","tiers":[{"up_to":"100","amount":"50"},{"amount":"200"}]}"#,
                "101"
            ),
            ["step 2: above 100 | - | - | 200"]
        );
        assert_eq!(
            explained(
                r#"{"model":"graduated","first_flat_at_zero":true,"tiers":[{"unit_price":"1","flat_fee":"3"}]}"#,
                "0"
            ),
            ["tier 1: all: flat fee | - | - | 3"]
        );
    }

    #[test]
    fn tells_the_other_models() {
        assert_eq!(
            explained(r#"{"model":"flat","amount":"5","unit_price_floor":"7"}"#, "3"),
            ["amount | - | - | 5", "amount: floor | - | - | 2"]
        );
        assert_eq!(
            explained(r#"{"model":"per_unit","unit_price":"0.15","per":3600,"minimum":"1"}"#, "7200"),
            ["unit price | 7200 | 0.15 per 3600 | 0.3", "minimum | - | - | 0.7"]
        );
        assert_eq!(
            explained(r#"{"model":"dynamic","multiplier":"1.2"}"#, "10"),
            ["multiplier | 10 | 1.2 | 12"]
        );
        assert_eq!(
            explained(r#"{"model":"package","package_size":250,"amount":"4"}"#, "501"),
            ["packages of 250 | 3 | 4 | 12"]
        );
        let matrix = pricing(
            r#"{"model":"matrix","dimensions":["m"],"minimum":"9","rows":[{"match":{"m":"a"},"unit_price":"1","maximum":"5"}]}"#,
        );
        assert_eq!(
            lines(&matrix.explain(&quantity("7"), &dimensions(r#"{"m":"a"}"#), 1).unwrap()),
            [
                r#"row {"m":"a"} | - | - | 0"#,
                "unit price | 7 | 1 | 7",
                "maximum | - | - | -2",
                "minimum | - | - | 4"
            ]
        );
    }

    #[test]
    fn sums_up_single_events() {
        let card = pricing(
            r#"{"model":"percentage","rate":"0.029","fixed":"0.30","free_events":1,"free_amount":"50","per_event_minimum":"0.50","per_event_maximum":"10"}"#,
        );
        let steps = card.explain_events(&["50", "5", "100", "500"].map(exact)).unwrap();
        assert_eq!(
            lines(&steps),
            [
                "free amount | 50 | - | 0",
                "rate | 605 | 0.029 | 17.545",
                "free events | 1 | - | 0",
                "fixed part of each event | 3 | 0.3 | 0.9",
                "minimum per event | 1 | - | 0.055",
                "maximum per event | 1 | - | -4.8",
            ]
        );
    }

    #[test]
    fn an_event_at_a_bound_is_neither_raised_nor_cut() {
        let card =
            pricing(r#"{"model":"percentage","rate":"0.1","per_event_minimum":"1","per_event_maximum":"5"}"#);
        let steps = card.explain_events(&["10", "50"].map(exact)).unwrap();
        assert_eq!(lines(&steps), ["rate | 60 | 0.1 | 6"]);
    }

    #[test]
    fn says_nothing_of_what_has_no_effect() {
        let card = pricing(r#"{"model":"percentage","rate":"0.1","fixed":"0.30"}"#);
        let steps = card.explain_events(&["10", "20"].map(exact)).unwrap();
        assert_eq!(lines(&steps), ["rate | 30 | 0.1 | 3", "fixed part of each event | 2 | 0.3 | 0.6"]);
        let capped = r#"{"model":"graduated","tiers":[{"up_to":"10","unit_price":"2","maximum":"6"},{"unit_price":"1"}]}"#;
        assert_eq!(explained(capped, "3"), ["tier 1: up to 10 | 3 | 2 | 6"]);
    }

    #[test]
    fn shows_what_of_a_total_is_free() {
        let card = pricing(r#"{"model":"percentage","rate":"0.1","free_amount":"100"}"#);
        let steps = card.explain(&quantity("150"), &Dimensions::new(), 2).unwrap();
        assert_eq!(lines(&steps), ["free amount | 100 | - | 0", "rate | 50 | 0.1 | 5"]);
    }

    #[test]
    fn shown_steps_sum_to_the_shown_amount() {
        let thirds = pricing(
            r#"{"model":"graduated","per":3,"tiers":[{"up_to":"1","unit_price":"1"},{"unit_price":"1"}]}"#,
        );
        let steps = shown_steps(thirds.explain(&quantity("2"), &Dimensions::new(), 1).unwrap());
        let shown: Vec<String> = steps.iter().map(|step| step.amount.shown()).collect();
        assert_eq!(shown, ["0.333333333333333333", "0.333333333333333334"]);
        let card = pricing(r#"{"model":"percentage","rate":"0.029","fixed":"0.30","free_events":1}"#);
        let steps = shown_steps(card.explain(&quantity("605"), &Dimensions::new(), 4).unwrap());
        assert_eq!(steps.iter().map(|s| s.amount.shown()).collect::<Vec<_>>(), ["17.545", "0", "0.9"]);
    }

    proptest! {
        #[test]
        fn the_steps_sum_to_the_amount(
            pricing in any_pricing(), values in any_dimensions(), units in quantity_up_to(30_000), events in 0u64..6
        ) {
            let (amount, steps) = (pricing.rate(&units, &values, events), pricing.explain(&units, &values, events));
            match (amount, steps) {
                (Ok(amount), Ok(steps)) => {
                    let sum = |steps: &[Step]| steps.iter().fold(Ratio::ZERO, |sum, step| sum.add(&step.amount));
                    prop_assert_eq!(sum(&steps), amount.clone());
                    // As they are shown, too: each to 18 places, and the sum is the amount to 18 places.
                    let shown = shown_steps(steps);
                    prop_assert!(shown.iter().all(|step| step.amount == step.amount.at_shown_places()));
                    prop_assert_eq!(sum(&shown).shown(), amount.shown());
                }
                (amount, steps) => prop_assert_eq!(amount.unwrap_err(), steps.unwrap_err()),
            }
        }

        #[test]
        fn the_steps_of_events_sum_to_the_amount(
            pricing in any_pricing(), amounts in proptest::collection::vec((decimal_below(900), any::<bool>()), 0..9)
        ) {
            let amounts: Vec<Exact> = amounts
                .iter()
                .map(|(text, negative)| if *negative { exact(text).neg() } else { exact(text) })
                .collect();
            match (pricing.rate_events(&amounts), pricing.explain_events(&amounts)) {
                (Ok(amount), Ok(steps)) => {
                    let sum = steps.iter().fold(Ratio::ZERO, |sum, step| sum.add(&step.amount));
                    prop_assert_eq!(sum, amount);
                }
                (amount, steps) => prop_assert_eq!(amount.unwrap_err(), steps.unwrap_err()),
            }
        }
    }
}
