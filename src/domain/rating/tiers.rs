//! Tiered models: graduated, volume, stairstep and graduated percentage (rules.md 1).
//!
//! `up_to` is inclusive: tiers ≤ 1,000 and ≤ 10,000 hold (0, 1000] and (1000, 10000]. A quantity of 0
//! lies in no tier and costs 0, unless `first_flat_at_zero` makes the first tier's flat fee due.

use super::pricing::{Terms, reduced};
use crate::domain::foundation::{Code, Exact, Fault, Ratio};

/// Most tiers of one pricing.
pub const TIERS_MAX: usize = 100;

/// Which of the four tiered models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TierKind {
    /// Each unit at the price of the tier it falls in; the flat fee of every tier entered.
    Graduated,
    /// All units at the price, with the flat fee, of the tier that holds the total.
    Volume,
    /// The amount of the step that holds the total.
    Stairstep,
    /// As graduated, over an amount of money, with rates.
    GraduatedPercentage,
}

impl TierKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            TierKind::Graduated => "graduated",
            TierKind::Volume => "volume",
            TierKind::Stairstep => "stairstep",
            TierKind::GraduatedPercentage => "graduated_percentage",
        }
    }

    /// What people call one of its tiers.
    pub(super) fn noun(self) -> &'static str {
        if self == TierKind::Stairstep { "step" } else { "tier" }
    }

    /// Whether a quantity is spread over the tiers it passes, rather than placed in one.
    pub(super) fn is_graduated(self) -> bool {
        matches!(self, TierKind::Graduated | TierKind::GraduatedPercentage)
    }

    /// The document's field of [`Tier::price`].
    pub(super) fn price_field(self) -> &'static str {
        if self == TierKind::GraduatedPercentage { "rate" } else { "unit_price" }
    }

    /// The document's field of [`Tier::flat`].
    pub(super) fn flat_field(self) -> &'static str {
        if self == TierKind::Stairstep { "amount" } else { "flat_fee" }
    }
}

/// One tier as it stands in the document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tier {
    /// Last quantity of the tier; `None` for an open last tier.
    pub up_to: Option<Exact>,
    /// `unit_price` (of `per` units, or of one package) or `rate`.
    pub price: Option<Exact>,
    /// `flat_fee` of the tier or `amount` of the step.
    pub flat: Option<Exact>,
    /// The tier's units are sold in packages of this size, rounded up inside the tier.
    pub package_size: Option<Exact>,
    /// The most the tier may cost, flat fee included.
    pub maximum: Option<Exact>,
}

/// Tiers ready to rate: what the tiers below cost when full is summed once, so that rating looks at one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TierTable {
    noun: &'static str,
    /// Ends of all tiers but an open last one, ascending.
    ends: Vec<Ratio>,
    tiers: Vec<CompiledTier>,
    at_zero: Ratio,
}

#[derive(Debug, Clone, PartialEq)]
struct CompiledTier {
    /// End of the tier before, 0 where the tier prices all units.
    lower: Ratio,
    /// Amount of the full tiers before, 0 where the tier prices all units.
    below: Ratio,
    price: Ratio,
    flat: Ratio,
    package_size: Option<Ratio>,
    maximum: Option<Ratio>,
}

impl CompiledTier {
    fn new(kind: TierKind, tier: &Tier, terms: &Terms) -> CompiledTier {
        let price = tier.price.map(|price| terms.floored(price));
        let flat = tier.flat.unwrap_or(Exact::ZERO);
        CompiledTier {
            lower: Ratio::ZERO,
            below: Ratio::ZERO,
            price: match (price, tier.package_size) {
                (None, _) => Ratio::ZERO,
                (Some(price), Some(_)) => price.into(),
                (Some(price), None) => terms.for_one_unit(price),
            },
            flat: if kind == TierKind::Stairstep { terms.floored(flat) } else { flat }.into(),
            package_size: tier.package_size.map(Ratio::from),
            maximum: tier.maximum.map(Ratio::from),
        }
    }

    /// The amount of `quantity` > `lower`, the full tiers below included.
    fn amount(&self, quantity: &Ratio) -> Ratio {
        let inside = quantity.sub(&self.lower);
        let priced = match &self.package_size {
            None => inside.mul(&self.price),
            Some(size) => inside.div(size).expect("package_size is greater than 0").ceil().mul(&self.price),
        };
        self.below.add(&self.capped(priced.add(&self.flat)))
    }

    fn capped(&self, amount: Ratio) -> Ratio {
        match &self.maximum {
            Some(maximum) if amount > *maximum => maximum.clone(),
            _ => amount,
        }
    }
}

impl TierTable {
    pub(super) fn compile(kind: TierKind, tiers: &[Tier], terms: &Terms) -> TierTable {
        let mut table = TierTable {
            noun: kind.noun(),
            ends: Vec::with_capacity(tiers.len()),
            tiers: Vec::with_capacity(tiers.len()),
            at_zero: Ratio::ZERO,
        };
        let (mut lower, mut below) = (Ratio::ZERO, Ratio::ZERO);
        for tier in tiers {
            let mut compiled = CompiledTier::new(kind, tier, terms);
            if kind.is_graduated() {
                (compiled.lower, compiled.below) = (lower.clone(), below.clone());
            }
            if let Some(up_to) = tier.up_to {
                lower = up_to.into();
                below = reduced(&compiled.amount(&lower));
                table.ends.push(lower.clone());
            }
            table.tiers.push(compiled);
        }
        if terms.first_flat_at_zero {
            let first = &table.tiers[0];
            table.at_zero = first.capped(first.flat.clone());
        }
        table
    }

    /// The amount of a quantity ≥ 0.
    pub(super) fn amount(&self, quantity: &Ratio) -> Result<Ratio, Fault> {
        if quantity.is_zero() {
            return Ok(self.at_zero.clone());
        }
        let at = self.ends.partition_point(|end| end < quantity);
        match self.tiers.get(at) {
            Some(tier) => Ok(tier.amount(quantity)),
            None => Err(self.above(quantity)),
        }
    }

    fn above(&self, quantity: &Ratio) -> Fault {
        let noun = self.noun;
        let end = self.ends.last().expect("a table without an open tier has an end");
        Fault::new(Code::Unrated, format!("quantity {quantity} is above {end}, where the last {noun} ends"))
            .with_hint(format!("Raise its up_to, or add a last {noun} without up_to."))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_graduated, exact, pricing, quantity_up_to, rated};
    use crate::domain::foundation::Ratio;
    use crate::domain::metering::Dimensions;
    use proptest::prelude::*;

    #[test]
    fn packages_are_rounded_up_inside_each_tier() {
        let tiers = r#""tiers":[{"up_to":"1000","unit_price":"3","package_size":300},{"unit_price":"2","package_size":"500"}]"#;
        let graduated = pricing(&format!(r#"{{"model":"graduated",{tiers}}}"#));
        // 1000 units are 4 packages of 300, however far the quantity goes on.
        for (units, expected) in [
            ("1", "3"),
            ("300", "3"),
            ("301", "6"),
            ("1000", "12"),
            ("1001", "14"),
            ("1500", "14"),
            ("1501", "16"),
        ] {
            assert_eq!(rated(&graduated, units), expected, "{units}");
        }
        let volume = pricing(&format!(r#"{{"model":"volume",{tiers}}}"#));
        assert_eq!([rated(&volume, "1000"), rated(&volume, "1001")], ["12", "6"]);
    }

    #[test]
    fn a_tier_maximum_caps_its_tier_with_the_flat_fee() {
        let tiers = r#""tiers":[{"up_to":"100","unit_price":"1","flat_fee":"10","maximum":"60"},{"unit_price":"2","flat_fee":"1"}]"#;
        let graduated = pricing(&format!(r#"{{"model":"graduated",{tiers},"first_flat_at_zero":true}}"#));
        for (units, expected) in [("0", "10"), ("40", "50"), ("50", "60"), ("100", "60"), ("101", "63")] {
            assert_eq!(rated(&graduated, units), expected, "{units}");
        }
        let percentage = pricing(
            r#"{"model":"graduated_percentage","tiers":[{"up_to":"100","rate":"0.5","maximum":"20"},{"rate":"0.1"}]}"#,
        );
        assert_eq!([rated(&percentage, "30"), rated(&percentage, "110")], ["15", "21"]);
        let steps = pricing(
            r#"{"model":"stairstep","unit_price_floor":"70","tiers":[{"up_to":"100","amount":"50","maximum":"60"},{"amount":"80"}]}"#,
        );
        assert_eq!([rated(&steps, "100"), rated(&steps, "101")], ["60", "80"]);
    }

    #[test]
    fn a_tier_may_be_nothing_but_a_flat_fee() {
        let flat = pricing(
            r#"{"model":"graduated","per":10,"tiers":[{"up_to":"100","flat_fee":"25"},{"unit_price":"3"}]}"#,
        );
        assert_eq!([rated(&flat, "1"), rated(&flat, "100"), rated(&flat, "105")], ["25", "25", "26.5"]);
    }

    proptest! {
        #[test]
        fn more_is_never_cheaper(
            pricing in any_graduated(), a in quantity_up_to(100_000), b in quantity_up_to(100_000)
        ) {
            let rate = |units: &Ratio| pricing.rate(units, &Dimensions::new(), 1).unwrap();
            let (less, more) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(rate(&less) <= rate(&more));
        }

        /// A quantity cut at any ends costs the sum of its parts: plain tiers are a sum over tiers of
        /// (units inside) × price and, once entered, the flat fee.
        #[test]
        fn plain_tiers_add_up_over_ranges(
            widths in proptest::collection::vec(1i64..5_000, 1..8),
            prices in proptest::collection::vec(0i64..900, 9), fees in proptest::collection::vec(0i64..90, 9),
            units in quantity_up_to(50_000)
        ) {
            let mut end = 0;
            let mut items: Vec<String> = Vec::new();
            let mut expected = Ratio::ZERO;
            for (at, width) in widths.iter().map(Some).chain([None]).enumerate() {
                let (price, fee) = (exact(&format!("{}e-4", prices[at])), exact(&fees[at].to_string()));
                let start = Ratio::from(end);
                if let Some(width) = width {
                    end += width;
                }
                let stop = if width.is_some() { Ratio::from(end).min(units.clone()) } else { units.clone() };
                if units > start {
                    expected = expected.add(&stop.sub(&start).mul(&price.into())).add(&fee.into());
                }
                let up_to = width.map_or(String::new(), |_| format!(r#""up_to":"{end}","#));
                items.push(format!(r#"{{{up_to}"unit_price":"{price}","flat_fee":"{fee}"}}"#));
            }
            let graduated = pricing(&format!(r#"{{"model":"graduated","tiers":[{}]}}"#, items.join(",")));
            prop_assert_eq!(graduated.rate(&units, &Dimensions::new(), 1).unwrap(), expected);
        }
    }
}
