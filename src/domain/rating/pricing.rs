//! A pricing: the validated document beside its compiled form, and the amount of a quantity.

use super::matrix::Matrix;
use super::percentage::{Percentage, PercentageRule};
use super::tiers::{Tier, TierKind, TierTable};
use crate::domain::foundation::{Code, Exact, Fault, Ratio};
use crate::domain::metering::Dimensions;
use num_traits::ToPrimitive;
use std::cmp::{max, min};

/// How a quantity is priced (rules.md 1; design.md 4, Rating): one model and the terms any model may add.
///
/// Amounts, unit prices, fees and bounds are in the currency or pricing unit of whoever holds the pricing;
/// quantities are in the unit of its meter. A value of this type is always valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Pricing {
    model: Model,
    terms: Terms,
    rule: Rule,
    free_units: Ratio,
    minimum: Option<Ratio>,
    maximum: Option<Ratio>,
}

/// The model as it stands in the document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Model {
    Flat { amount: Exact },
    PerUnit { unit_price: Exact },
    Tiered { kind: TierKind, tiers: Vec<Tier> },
    Package(Package),
    Percentage(Percentage),
    Matrix(Matrix),
    Dynamic { amount_property: Option<String>, multiplier: Exact },
}

/// Whole packages: ceil(quantity / package_size) × amount.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Package {
    pub package_size: Exact,
    /// Price of one package.
    pub amount: Exact,
    /// Whether a quantity of 0 still costs one package.
    pub minimum_one_package: bool,
}

/// What any model may add.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Terms {
    /// How many units a unit price buys: 0.15 per 3600.
    pub per: Exact,
    /// Taken off the quantity before the model sees it.
    pub free_units: Exact,
    pub minimum: Option<Exact>,
    pub maximum: Option<Exact>,
    /// The least that a price of the model may be, after discounts.
    pub unit_price_floor: Option<Exact>,
    /// Whether the first tier's flat fee (the first step's amount) is due at quantity 0.
    pub first_flat_at_zero: bool,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            per: Exact::ONE,
            free_units: Exact::ZERO,
            minimum: None,
            maximum: None,
            unit_price_floor: None,
            first_flat_at_zero: false,
        }
    }
}

impl Terms {
    /// The price after the floor (rules.md 1: "floor applies to the unit price after discounts").
    pub(super) fn floored(&self, price: Exact) -> Exact {
        self.unit_price_floor.map_or(price, |floor| max(price, floor))
    }

    /// What one unit costs where `price` buys `per` of them; exact, since it stays a fraction.
    pub(super) fn for_one_unit(&self, price: Exact) -> Ratio {
        let per = Ratio::from(self.per);
        reduced(&Ratio::from(price).div(&per).expect("per is validated as greater than 0"))
    }
}

/// The compiled model: every price a ready fraction, floors and `per` applied.
#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Flat(Ratio),
    /// Amount = quantity × this.
    Linear(Ratio),
    Tiers(TierTable),
    Packages {
        size: Ratio,
        price: Ratio,
        least: Ratio,
    },
    Percentage(PercentageRule),
    Matrix,
}

/// The same fraction in lowest terms, so that products of it stay in a ratio's small form.
pub(super) fn reduced(ratio: &Ratio) -> Ratio {
    let (num, den) = ratio.parts();
    match (num.to_i128(), den.to_i128()) {
        (Some(num), Some(den)) => Ratio::new(num, den),
        _ => ratio.clone(),
    }
}

impl Pricing {
    /// Compiles a model and terms that are already validated.
    pub(super) fn assemble(model: Model, terms: Terms) -> Pricing {
        let rule = match &model {
            Model::Flat { amount } => Rule::Flat(terms.floored(*amount).into()),
            Model::PerUnit { unit_price } => Rule::Linear(terms.for_one_unit(terms.floored(*unit_price))),
            Model::Dynamic { multiplier, .. } => Rule::Linear(terms.floored(*multiplier).into()),
            Model::Tiered { kind, tiers } => Rule::Tiers(TierTable::compile(*kind, tiers, &terms)),
            Model::Package(package) => Rule::Packages {
                size: package.package_size.into(),
                price: terms.floored(package.amount).into(),
                least: Ratio::from(i64::from(package.minimum_one_package)),
            },
            Model::Percentage(percentage) => Rule::Percentage(PercentageRule::compile(percentage, &terms)),
            Model::Matrix(_) => Rule::Matrix,
        };
        Pricing {
            free_units: terms.free_units.into(),
            minimum: terms.minimum.map(Ratio::from),
            maximum: terms.maximum.map(Ratio::from),
            model,
            terms,
            rule,
        }
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The quantities at which the price of a further unit changes, where it is known from the quantity alone: where free
    /// units end, and tiers.
    pub fn bends(&self) -> Vec<Exact> {
        let free = self.terms.free_units;
        let tiers = match &self.model {
            Model::Tiered { tiers, .. } => tiers.iter().filter_map(|tier| tier.up_to).collect(),
            _ => Vec::new(),
        };
        let ends = tiers.into_iter().filter_map(|up_to| up_to.add(free).ok());
        [free].into_iter().filter(|free| !free.is_zero()).chain(ends).collect()
    }

    /// The word of the `model` field, e.g. `graduated`.
    pub fn model_name(&self) -> &'static str {
        match &self.model {
            Model::Flat { .. } => "flat",
            Model::PerUnit { .. } => "per_unit",
            Model::Tiered { kind, .. } => kind.name(),
            Model::Package(_) => "package",
            Model::Percentage(_) => "percentage",
            Model::Matrix(_) => "matrix",
            Model::Dynamic { .. } => "dynamic",
        }
    }

    /// The pricing's own minimum, an amount. The invoice posts the shortfall as a `true_up` line
    /// (definitions 8). Of a matrix: the one beside `rows`.
    pub fn minimum(&self) -> Option<Exact> {
        self.terms.minimum
    }

    /// The pricing's own maximum, an amount. The invoice posts the excess as a `cap` line
    /// (definitions 8). Of a matrix: the one beside `rows`.
    pub fn maximum(&self) -> Option<Exact> {
        self.terms.maximum
    }

    /// How many units a unit price buys (default 1), in the meter's unit.
    pub fn per(&self) -> Exact {
        self.terms.per
    }

    /// Units that cost nothing, in the meter's unit (default 0).
    pub fn free_units(&self) -> Exact {
        self.terms.free_units
    }

    /// The event property a dynamic price is meant to sum, if it names one. The meter's value decides.
    pub fn amount_property(&self) -> Option<&str> {
        match &self.model {
            Model::Dynamic { amount_property, .. } => amount_property.as_deref(),
            _ => None,
        }
    }

    /// Whether the amount without bounds is proportional to the quantity: then each line is exact by
    /// itself, may be split in time, and a credit mirrors its charge. True for per_unit, dynamic and a
    /// percentage of nothing but a rate, all without free units, and for a matrix of such rows.
    ///
    /// Minimum and maximum don't count: they are lines of their own. A matrix knows only the rows it holds.
    pub fn is_linear(&self) -> bool {
        match &self.model {
            Model::PerUnit { .. } | Model::Dynamic { .. } => self.terms.free_units.is_zero(),
            Model::Percentage(percentage) => percentage.is_plain() && self.terms.free_units.is_zero(),
            Model::Matrix(matrix) => matrix.rows.iter().all(|row| row.pricing().is_linear()),
            Model::Flat { .. } | Model::Tiered { .. } | Model::Package(_) => false,
        }
    }

    /// Whether amounts of single events are needed ([`Pricing::rate_events`]): a percentage with
    /// `per_event_minimum` or `per_event_maximum`, or a matrix with such a row.
    pub fn needs_events(&self) -> bool {
        match &self.model {
            Model::Percentage(percentage) => percentage.is_per_event(),
            Model::Matrix(matrix) => matrix.rows.iter().any(|row| row.pricing().needs_events()),
            _ => false,
        }
    }

    /// Whether each event asks for itself: nothing is free first, so lines are priced apart, and the fixed part of
    /// one line's events is never another's.
    pub fn rates_events_apart(&self) -> bool {
        match &self.model {
            Model::Percentage(percentage) => percentage.nothing_is_free() && self.terms.free_units.is_zero(),
            _ => false,
        }
    }

    /// Whether the number of events changes the amount: a percentage with a fixed part or bounds per
    /// event, or a matrix with such a row.
    pub fn counts_events(&self) -> bool {
        match &self.model {
            Model::Percentage(percentage) => percentage.counts_events(),
            Model::Matrix(matrix) => matrix.rows.iter().any(|row| row.pricing().counts_events()),
            _ => false,
        }
    }

    /// The exact, unrounded amount of a quantity: with free units, floor, minimum and maximum.
    ///
    /// A matrix selects its row by `dimensions`; the row's own bounds apply first, then those beside the
    /// rows. Of a percentage the quantity is the amount (money) and `events` the number of events; other
    /// models ignore `events`. What can't be rated is `ZB007`, never 0 (definitions 8).
    pub fn rate(&self, quantity: &Ratio, dimensions: &Dimensions, events: u64) -> Result<Ratio, Fault> {
        let single = self.resolve(dimensions)?;
        Ok(self.bounded(single, single.measure(quantity, events)?))
    }

    /// As [`rate`](Pricing::rate), before any minimum and maximum of the pricing or of its selected row:
    /// the invoice posts those as lines of their own (definitions 8). Tier maximums and bounds per event
    /// belong to the model and stay.
    pub fn rate_without_bounds(
        &self,
        quantity: &Ratio,
        dimensions: &Dimensions,
        events: u64,
    ) -> Result<Ratio, Fault> {
        self.resolve(dimensions)?.measure(quantity, events)
    }

    /// As [`rate_without_bounds`](Pricing::rate_without_bounds) for a share of a whole period, whose free
    /// parts, tiers, packages and flat amounts shrink to that share. A fixed part per event does not shrink.
    pub fn rate_share(&self, quantity: &Ratio, events: u64, share: &Ratio) -> Result<Ratio, Fault> {
        let single = self.resolve(&Dimensions::new())?;
        match &single.rule {
            Rule::Percentage(rule) => rule.amount_in_share(quantity, events, share),
            _ => {
                let as_whole = quantity.div(share).unwrap_or(Ratio::ZERO);
                Ok(single.measure(&as_whole, events)?.mul(share))
            }
        }
    }

    /// The exact amount of single event amounts in (occurred_at, event_key) order (definitions 11), with
    /// minimum and maximum. Pricings that don't need events rate the sum; a matrix its default row, so
    /// select the row first where there are dimensions.
    pub fn rate_events(&self, amounts: &[Exact]) -> Result<Ratio, Fault> {
        let single = self.resolve(&Dimensions::new())?;
        Ok(self.bounded(single, single.measure_events(amounts)?))
    }

    /// As [`rate_events`](Pricing::rate_events), before minimum and maximum.
    pub fn rate_events_without_bounds(&self, amounts: &[Exact]) -> Result<Ratio, Fault> {
        self.resolve(&Dimensions::new())?.measure_events(amounts)
    }

    /// The pricing that rates these dimensions: the selected row's of a matrix, else this one.
    pub fn resolve(&self, dimensions: &Dimensions) -> Result<&Pricing, Fault> {
        match &self.model {
            Model::Matrix(matrix) => match matrix.select(dimensions) {
                Some(at) => Ok(matrix.rows[at].pricing()),
                None => Err(matrix.no_row(dimensions)),
            },
            _ => Ok(self),
        }
    }

    /// `single` is what [`resolve`](Pricing::resolve) gave.
    fn bounded(&self, single: &Pricing, amount: Ratio) -> Ratio {
        let amount = single.clamp(amount);
        if std::ptr::eq(single, self) { amount } else { self.clamp(amount) }
    }

    pub(super) fn clamp(&self, amount: Ratio) -> Ratio {
        let amount = match &self.minimum {
            Some(minimum) if amount < *minimum => minimum.clone(),
            _ => amount,
        };
        match &self.maximum {
            Some(maximum) if amount > *maximum => maximum.clone(),
            _ => amount,
        }
    }

    fn measure(&self, quantity: &Ratio, events: u64) -> Result<Ratio, Fault> {
        match &self.rule {
            Rule::Flat(amount) => Ok(amount.clone()),
            Rule::Linear(price) => Ok(self.billable(quantity)?.mul(price)),
            Rule::Tiers(table) => table.amount(&self.billable(quantity)?),
            Rule::Packages { size, price, least } => {
                let packages = self.billable(quantity)?.div(size).expect("package_size is greater than 0");
                Ok(max(packages.ceil(), least.clone()).mul(price))
            }
            Rule::Percentage(rule) => Ok(rule.tally(quantity, events)?.amount(rule)),
            Rule::Matrix => unreachable!("a matrix is resolved to a row, which is never a matrix"),
        }
    }

    fn measure_events(&self, amounts: &[Exact]) -> Result<Ratio, Fault> {
        match &self.rule {
            Rule::Percentage(rule) if rule.is_per_event() => Ok(rule.tally_events(amounts).amount(rule)),
            _ => self.measure(&sum(amounts), amounts.len() as u64),
        }
    }

    /// The quantity left after the free units. Negative quantities pass only where they mirror.
    pub(super) fn billable(&self, quantity: &Ratio) -> Result<Ratio, Fault> {
        let mirrors = matches!(self.rule, Rule::Linear(_)) && self.free_units.is_zero();
        if quantity.is_negative() && !mirrors {
            return Err(self.negative(quantity));
        }
        if self.free_units.is_zero() {
            return Ok(quantity.clone());
        }
        Ok(max(quantity.sub(&self.free_units), Ratio::ZERO))
    }

    fn negative(&self, quantity: &Ratio) -> Fault {
        let free = if self.free_units.is_zero() { "" } else { " with free units" };
        Fault::new(
            Code::Unrated,
            format!("quantity {quantity} is negative; a {} price{free} can't rate it", self.model_name()),
        )
        .with_hint(
            "Correct the period's usage so that it is not below 0. Only per_unit, dynamic and percentage \
             prices without free units turn a negative quantity into a credit.",
        )
    }

    pub(super) fn percentage_rule(&self) -> Option<&PercentageRule> {
        match &self.rule {
            Rule::Percentage(rule) => Some(rule),
            _ => None,
        }
    }
}

/// The exact sum of amounts or quantities.
pub(super) fn sum(amounts: &[Exact]) -> Ratio {
    amounts.iter().fold(Ratio::ZERO, |sum, amount| sum.add(&Ratio::from(*amount)))
}

/// `quantity` cut to at most `bound`.
pub(super) fn at_most(quantity: &Ratio, bound: Option<Exact>) -> Ratio {
    match bound {
        Some(bound) => min(quantity.clone(), bound.into()),
        None => quantity.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        any_dimensions, any_linear, any_pricing, decimal_below, exact, pricing, quantity, quantity_up_to,
        rate, rated,
    };
    use super::*;
    use proptest::prelude::*;

    /// `prorate_units`: tiers and what is free shrink to the share, a fixed part per event does not.
    #[test]
    fn a_share_of_a_period() {
        let tiers = r#"{"model":"graduated","tiers":[{"up_to":"10","unit_price":"1"},{"unit_price":"0.5"}]}"#;
        let percentage =
            r#"{"model":"percentage","rate":"0.1","fixed":"0.30","free_amount":"100","free_events":2}"#;
        for (document, used, events, expected) in [
            (tiers, "8", 8, "6.5"),       // as 16 in the whole: (10 + 6 × 0.5) ÷ 2
            (tiers, "4", 4, "4"),         // as 8 in the whole
            (percentage, "80", 4, "3.9"), // 50 and one event are free: 30 × 0.1 + 3 × 0.30
            (percentage, "50", 1, "0"),   // all of it is free
            (percentage, "40", 3, "0.6"), // an amount below what is free is no credit
        ] {
            let half = Ratio::new(1, 2);
            let amount = pricing(document).rate_share(&quantity(used), events, &half).unwrap();
            assert_eq!(amount.shown(), expected, "{used} of {document}");
        }
    }

    #[test]
    fn events_priced_apart() {
        for (beside, apart) in [
            (r#""fixed":"0.30""#, true),
            (r#""per_event_minimum":"1""#, true),
            (r#""fixed":"0.30","free_events":1"#, false),
            (r#""fixed":"0.30","free_amount":"10""#, false),
            (r#""fixed":"0.30","free_units":"10""#, false),
        ] {
            let card = pricing(&format!(r#"{{"model":"percentage","rate":"0.1",{beside}}}"#));
            assert_eq!(card.rates_events_apart(), apart, "{beside}");
        }
        assert!(!pricing(r#"{"model":"per_unit","unit_price":"1"}"#).rates_events_apart());
    }

    #[test]
    fn a_quantity_of_zero() {
        let tiers = r#""tiers":[{"up_to":"10","unit_price":"1","flat_fee":"5"}]"#;
        for (document, expected) in [
            (r#"{"model":"flat","amount":"49"}"#.to_string(), "49"),
            (r#"{"model":"per_unit","unit_price":"2"}"#.to_string(), "0"),
            (r#"{"model":"per_unit","unit_price":"2","minimum":"10"}"#.to_string(), "10"),
            (format!(r#"{{"model":"graduated",{tiers}}}"#), "0"),
            (format!(r#"{{"model":"graduated",{tiers},"first_flat_at_zero":true}}"#), "5"),
            (format!(r#"{{"model":"volume",{tiers}}}"#), "0"),
            (format!(r#"{{"model":"volume",{tiers},"first_flat_at_zero":true}}"#), "5"),
            (r#"{"model":"stairstep","tiers":[{"up_to":"10","amount":"7"}]}"#.to_string(), "0"),
            (
                r#"{"model":"stairstep","tiers":[{"up_to":"10","amount":"7"}],"first_flat_at_zero":true}"#
                    .to_string(),
                "7",
            ),
            (r#"{"model":"package","package_size":10,"amount":"3"}"#.to_string(), "0"),
            (
                r#"{"model":"package","package_size":10,"amount":"3","minimum_one_package":true}"#
                    .to_string(),
                "3",
            ),
            (r#"{"model":"dynamic"}"#.to_string(), "0"),
        ] {
            assert_eq!(rated(&pricing(&document), "0"), expected, "{document}");
        }
    }

    #[test]
    fn free_units_come_off_first() {
        let package = r#"{"model":"package","package_size":100,"amount":"2","free_units":"50","minimum_one_package":true}"#;
        for (units, expected) in [("20", "2"), ("150", "2"), ("150.5", "4")] {
            assert_eq!(rated(&pricing(package), units), expected);
        }
        let dynamic = pricing(r#"{"model":"dynamic","multiplier":"1.2","free_units":"10"}"#);
        assert_eq!([rated(&dynamic, "5"), rated(&dynamic, "15")], ["0", "6"]);
        let flat = pricing(r#"{"model":"flat","amount":"3","free_units":"10"}"#);
        assert_eq!(rated(&flat, "5"), "3");
    }

    #[test]
    fn every_model_has_its_floor() {
        for (document, expected) in [
            (r#"{"model":"flat","amount":"4","unit_price_floor":"5"}"#, "5"),
            (r#"{"model":"per_unit","unit_price":"1","per":10,"unit_price_floor":"2"}"#, "20"),
            (r#"{"model":"per_unit","unit_price":"3","per":10,"unit_price_floor":"2"}"#, "30"),
            (
                r#"{"model":"volume","tiers":[{"unit_price":"1","flat_fee":"1"}],"unit_price_floor":"2"}"#,
                "201",
            ),
            (r#"{"model":"stairstep","tiers":[{"amount":"1"}],"unit_price_floor":"2"}"#, "2"),
            (r#"{"model":"package","package_size":60,"amount":"1","unit_price_floor":"2"}"#, "4"),
            (r#"{"model":"percentage","rate":"0.01","fixed":"1","unit_price_floor":"0.02"}"#, "3"),
            (r#"{"model":"graduated_percentage","tiers":[{"rate":"0.01"}],"unit_price_floor":"0.02"}"#, "2"),
            (r#"{"model":"dynamic","multiplier":"0.5","unit_price_floor":"1"}"#, "100"),
            (
                r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"unit_price":"1"}],"unit_price_floor":"2"}"#,
                "200",
            ),
            (
                r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"pricing":{"model":"per_unit","unit_price":"1"}}],"unit_price_floor":"2"}"#,
                "100",
            ),
        ] {
            assert_eq!(rated(&pricing(document), "100"), expected, "{document}");
        }
    }

    #[test]
    fn what_cannot_be_rated_is_a_fault_with_its_numbers() {
        let tiers = r#"[{"up_to":"100","unit_price":"1"},{"up_to":"500","unit_price":"1"}]"#;
        let graduated = format!(r#"{{"model":"graduated","tiers":{tiers}}}"#);
        let steps = r#"{"model":"stairstep","tiers":[{"up_to":"100","amount":"1"}]}"#;
        let package = r#"{"model":"package","package_size":5,"amount":"1"}"#;
        let free = r#"{"model":"per_unit","unit_price":"1","free_units":"5"}"#;
        let per_event = r#"{"model":"percentage","rate":"0.1","per_event_minimum":"1"}"#;
        for (document, units, events, message, hint) in [
            (
                graduated.as_str(),
                "500.5",
                1,
                "quantity 500.5 is above 500, where the last tier ends",
                "Raise its up_to",
            ),
            (
                graduated.as_str(),
                "-1",
                1,
                "quantity -1 is negative; a graduated price can't",
                "Correct the period's usage",
            ),
            (steps, "101", 1, "quantity 101 is above 100, where the last step ends", "Raise its up_to"),
            (steps, "-0.5", 1, "quantity -0.5 is negative; a stairstep price", "Correct"),
            (package, "-5", 1, "quantity -5 is negative; a package price", "Correct"),
            (free, "-5", 1, "quantity -5 is negative; a per_unit price with free units", "Correct"),
            (per_event, "605", 3, "the amount 605 of 3 events can't be rated as a sum", "Use rate_events"),
            (per_event, "605", 0, "the amount 605 of 0 events", "Use rate_events"),
        ] {
            let pricing = pricing(document);
            let fault = pricing.rate(&quantity(units), &Dimensions::new(), events).unwrap_err();
            assert_eq!(fault.code, Code::Unrated);
            assert!(fault.message.starts_with(message), "{}", fault.message);
            assert!(fault.hint.as_ref().is_some_and(|h| h.starts_with(hint)), "{:?}", fault.hint);
            assert_eq!(pricing.explain(&quantity(units), &Dimensions::new(), events).unwrap_err(), fault);
        }
        // Free units move the end of the last tier.
        let moved = pricing(&graduated.replace("{\"model\"", r#"{"free_units":"9","model""#));
        assert_eq!(rated(&moved, "509"), "500");
        assert!(rate(&moved, "510").is_err());
    }

    #[test]
    fn knows_what_it_depends_on() {
        let linear = |text: &str| pricing(text).is_linear();
        assert!(linear(r#"{"model":"per_unit","unit_price":"-1","minimum":"5"}"#));
        assert!(linear(r#"{"model":"percentage","rate":"0.1","unit_price_floor":"0.2"}"#));
        assert!(linear(r#"{"model":"dynamic"}"#));
        for text in [
            r#"{"model":"flat","amount":"1"}"#,
            r#"{"model":"per_unit","unit_price":"1","free_units":"1"}"#,
            r#"{"model":"graduated","tiers":[{"unit_price":"1"}]}"#,
            r#"{"model":"percentage","rate":"0.1","fixed":"1"}"#,
            r#"{"model":"percentage","rate":"0.1","free_amount":"1"}"#,
            r#"{"model":"percentage","rate":"0.1","per_event_maximum":"1"}"#,
        ] {
            assert!(!linear(text), "{text}");
        }
        let matrix = |row: &str| {
            pricing(&format!(
                r#"{{"model":"matrix","dimensions":["m"],"rows":[{{"match":{{}},"unit_price":"1"}},{{"match":{{"m":"a"}},"pricing":{row}}}]}}"#
            ))
        };
        let flags = |p: &Pricing| [p.is_linear(), p.needs_events(), p.counts_events()];
        assert_eq!(flags(&matrix(r#"{"model":"dynamic"}"#)), [true, false, false]);
        assert_eq!(flags(&matrix(r#"{"model":"percentage","rate":"0","fixed":"1"}"#)), [false, false, true]);
        assert_eq!(
            flags(&matrix(r#"{"model":"percentage","rate":"0","per_event_minimum":"1"}"#)),
            [false, true, true]
        );
        let named = pricing(r#"{"model":"dynamic","amount_property":"cost"}"#);
        assert_eq!(named.amount_property(), Some("cost"));
        assert_eq!((named.minimum(), named.maximum(), named.model_name()), (None, None, "dynamic"));
    }

    #[test]
    fn bounds_of_the_row_come_before_those_of_the_matrix() {
        let matrix = pricing(
            r#"{"model":"matrix","dimensions":["m"],"minimum":"10","maximum":"50","rows":[{"match":{},"unit_price":"1","minimum":"20"},{"match":{"m":"a"},"unit_price":"1","maximum":"5"}]}"#,
        );
        let rate = |units: &str, values: &str| {
            let values = super::super::testing::dimensions(values);
            let without = matrix.rate_without_bounds(&quantity(units), &values, 1).unwrap();
            assert_eq!(without, quantity(units));
            matrix.rate(&quantity(units), &values, 1).unwrap().shown()
        };
        assert_eq!([rate("3", "{}"), rate("30", "{}"), rate("300", "{}")], ["20", "30", "50"]);
        assert_eq!([rate("3", r#"{"m":"a"}"#), rate("30", r#"{"m":"a"}"#)], ["10", "10"]);
    }

    #[test]
    fn stays_exact_beyond_28_digits() {
        let wide = pricing(r#"{"model":"per_unit","unit_price":"0.1234567890123456789012345678","per":7}"#);
        let amount = rate(&wide, "9999999999999999999999999999").unwrap();
        assert_eq!(
            amount.mul(&Ratio::from(7i64)).div(&quantity("9999999999999999999999999999")).unwrap(),
            quantity("0.1234567890123456789012345678")
        );
    }

    proptest! {
        #[test]
        fn credits_mirror_charges(
            pricing in any_linear(), values in any_dimensions(), units in quantity_up_to(100_000)
        ) {
            prop_assert!(pricing.is_linear());
            if let Ok(charge) = pricing.rate_without_bounds(&units, &values, 1) {
                prop_assert_eq!(pricing.rate_without_bounds(&units.neg(), &values, 1).unwrap(), charge.neg());
            }
        }

        #[test]
        fn linear_amounts_may_be_split(
            pricing in any_linear(), values in any_dimensions(),
            a in quantity_up_to(100_000), b in quantity_up_to(100_000)
        ) {
            if let Ok(whole) = pricing.rate_without_bounds(&a.add(&b), &values, 2) {
                let part = |units| pricing.rate_without_bounds(units, &values, 1).unwrap();
                prop_assert_eq!(part(&a).add(&part(&b)), whole);
            }
        }

        #[test]
        fn bounds_hold(pricing in any_pricing(), values in any_dimensions(), units in quantity_up_to(30_000)) {
            if let Ok(amount) = pricing.rate(&units, &values, 1) {
                prop_assert!(pricing.minimum().is_none_or(|minimum| amount >= minimum.into()));
                prop_assert!(pricing.maximum().is_none_or(|maximum| amount <= maximum.into()));
            }
        }

        #[test]
        fn events_without_bounds_of_their_own_are_their_sum(
            pricing in any_pricing(), amounts in proptest::collection::vec(decimal_below(500), 0..9)
        ) {
            let amounts: Vec<Exact> = amounts.iter().map(|text| exact(text)).collect();
            let of_sum = pricing.rate(&sum(&amounts), &Dimensions::new(), amounts.len() as u64);
            if !pricing.needs_events() {
                prop_assert_eq!(pricing.rate_events(&amounts), of_sum);
            }
        }
    }
}
