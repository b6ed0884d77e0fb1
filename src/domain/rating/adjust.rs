//! Prices made from prices: a percentage off and an override's unit price (definitions 7).

use super::percentage::Percentage;
use super::pricing::{Model, Package, Pricing, Terms};
use super::tiers::Tier;
use crate::domain::foundation::decimal::SCALE_MAX;
use crate::domain::foundation::{Exact, Fault, Ratio, RoundingMode};

impl Pricing {
    /// The pricing with every price × (1 − percent/100), exactly; what doesn't fit 28 digits is a fault.
    ///
    /// Scaled, row by row for a matrix: amounts, unit prices, rates, multipliers, fixed parts, flat fees,
    /// package prices. Kept: `minimum`, `maximum` (a tier's and those per event too), `free_units`,
    /// `free_amount`, `free_events` and the floor, which applies to the scaled price. `percent` is in
    /// percent, 0 to 100.
    pub fn percent_off(&self, percent: Exact) -> Result<Pricing, Fault> {
        let hundred = Exact::from_i64(100);
        if percent.is_negative() || percent > hundred {
            return Err(Fault::value(format!("percent off {percent} is not between 0 and 100")));
        }
        let hundredth = Exact::from_parts(1, 2).expect("0.01 has one digit");
        self.scaled(hundred.sub(percent)?.mul(hundredth)?)
    }

    /// The pricing with every amount of money × (1 + percent/100): as [`percent_off`](Pricing::percent_off), and bounds
    /// and floors, too, since all of it is a price. Exact up to 28 digits, rounded to as many beyond, so that
    /// raising it year after year never ends in a fault; `percent` is not negative.
    pub fn raised(&self, percent: Exact) -> Result<Pricing, Fault> {
        self.repriced(&|value| raised(value, percent), true)
    }

    fn scaled(&self, factor: Exact) -> Result<Pricing, Fault> {
        self.repriced(&|value| value.mul(factor), false)
    }

    /// Every price through `reprice`, and with `bounds` the bounds in money.
    fn repriced(
        &self,
        reprice: &dyn Fn(Exact) -> Result<Exact, Fault>,
        bounds: bool,
    ) -> Result<Pricing, Fault> {
        let optional = |value: Option<Exact>| value.map(reprice).transpose();
        let bound = |value: Option<Exact>| if bounds { optional(value) } else { Ok(value) };
        let model = match self.model() {
            Model::Flat { amount } => Model::Flat { amount: reprice(*amount)? },
            Model::PerUnit { unit_price } => Model::PerUnit { unit_price: reprice(*unit_price)? },
            Model::Dynamic { amount_property, multiplier } => {
                Model::Dynamic { amount_property: amount_property.clone(), multiplier: reprice(*multiplier)? }
            }
            Model::Tiered { kind, tiers } => {
                let tier = |tier: &Tier| {
                    Ok(Tier {
                        price: optional(tier.price)?,
                        flat: optional(tier.flat)?,
                        maximum: bound(tier.maximum)?,
                        ..tier.clone()
                    })
                };
                Model::Tiered { kind: *kind, tiers: tiers.iter().map(tier).collect::<Result<_, Fault>>()? }
            }
            Model::Package(package) => {
                Model::Package(Package { amount: reprice(package.amount)?, ..package.clone() })
            }
            Model::Percentage(percentage) => Model::Percentage(Percentage {
                rate: reprice(percentage.rate)?,
                fixed: reprice(percentage.fixed)?,
                per_event_minimum: bound(percentage.per_event_minimum)?,
                per_event_maximum: bound(percentage.per_event_maximum)?,
                ..percentage.clone()
            }),
            Model::Matrix(matrix) => {
                Model::Matrix(matrix.with_prices(|pricing| pricing.repriced(reprice, bounds))?)
            }
        };
        let terms = self.terms();
        let terms = Terms {
            minimum: bound(terms.minimum)?,
            maximum: bound(terms.maximum)?,
            unit_price_floor: bound(terms.unit_price_floor)?,
            ..terms.clone()
        };
        Ok(Pricing::assemble(model, terms))
    }

    /// An override's fixed unit price in the place of this pricing: per_unit, with this pricing's `per`
    /// and nothing else of it. A negotiated price is what was agreed, so no floor or free units of the list
    /// carry over; its minimum and maximum act on the charge's lines and stay there. Of a matrix, select the
    /// row first: rows may differ in `per`.
    pub fn with_unit_price(&self, unit_price: Exact) -> Pricing {
        Pricing::assemble(Model::PerUnit { unit_price }, Terms { per: self.per(), ..Terms::default() })
    }
}

/// An amount × (1 + percent/100), with as many decimals as fit.
pub fn raised(value: Exact, percent: Exact) -> Result<Exact, Fault> {
    if percent.is_negative() {
        return Err(Fault::value(format!("a raise of {percent} percent is negative")));
    }
    let hundred = Ratio::from(100i64);
    let factor = Ratio::from(percent).add(&hundred).div(&hundred).expect("100 is not zero");
    let exact = Ratio::from(value).mul(&factor);
    let mut scale = SCALE_MAX;
    loop {
        match exact.round(scale, RoundingMode::HalfUp) {
            Err(_) if scale > 0 => scale -= 1,
            rounded => return rounded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_dimensions, any_linear, any_pricing, exact, pricing, quantity_up_to};
    use super::*;
    use crate::domain::metering::Dimensions;
    use proptest::prelude::*;

    /// rules.md 1, ramp: 100,000 and 7% a year: 107,000 and 114,490, and 28 digits of what comes later.
    #[test]
    fn raises_compound_exactly_as_far_as_digits_go() {
        let mut fee = pricing(r#"{"model":"flat","amount":"100000"}"#);
        let seven = exact("7");
        let mut amounts = Vec::new();
        for _ in 0..30 {
            fee = fee.raised(seven).unwrap();
            amounts.push(fee.canonical());
        }
        assert_eq!(amounts[0], r#"{"amount":"107000","model":"flat"}"#);
        assert_eq!(amounts[1], r#"{"amount":"114490","model":"flat"}"#);
        // 100000 × 1.07^30 = 761225.5042662029206648128983396…
        assert!(amounts[29].starts_with(r#"{"amount":"761225.504266202920664812"#), "{}", amounts[29]);
        let all = pricing(
            r#"{"model":"graduated","unit_price_floor":"0.1","minimum":"10","maximum":"100","free_units":"3","tiers":[{"up_to":"10","unit_price":"1","flat_fee":"4","maximum":"9"},{"unit_price":"0.5"}]}"#,
        );
        assert_eq!(
            all.raised(exact("10")).unwrap().canonical(),
            r#"{"free_units":"3","maximum":"110","minimum":"11","model":"graduated","tiers":[{"flat_fee":"4.4","maximum":"9.9","unit_price":"1.1","up_to":"10"},{"unit_price":"0.55"}],"unit_price_floor":"0.11"}"#
        );
        assert!(all.raised(exact("-1")).unwrap_err().message.contains("negative"));
    }

    #[test]
    fn scales_every_price_and_keeps_every_bound() {
        for (document, percent, expected) in [
            (
                r#"{"model":"flat","amount":"149","minimum":"10"}"#,
                "50",
                r#"{"amount":"74.5","minimum":"10","model":"flat"}"#,
            ),
            (
                r#"{"model":"per_unit","unit_price":"0.15","per":3600,"free_units":"5","unit_price_floor":"0.1"}"#,
                "33.3",
                r#"{"free_units":"5","model":"per_unit","per":3600,"unit_price":"0.10005","unit_price_floor":"0.1"}"#,
            ),
            (
                r#"{"model":"graduated","tiers":[{"up_to":"10","unit_price":"1","flat_fee":"4","maximum":"9"},{"unit_price":"0.5"}]}"#,
                "25",
                r#"{"model":"graduated","tiers":[{"flat_fee":"3","maximum":"9","unit_price":"0.75","up_to":"10"},{"unit_price":"0.375"}]}"#,
            ),
            (
                r#"{"model":"stairstep","tiers":[{"up_to":"10","amount":"50"}]}"#,
                "10",
                r#"{"model":"stairstep","tiers":[{"amount":"45","up_to":"10"}]}"#,
            ),
            (
                r#"{"model":"package","package_size":250,"amount":"4"}"#,
                "10",
                r#"{"amount":"3.6","model":"package","package_size":250}"#,
            ),
            (
                r#"{"model":"percentage","rate":"0.03","fixed":"0.3","free_amount":"7","per_event_minimum":"0.5","per_event_maximum":"2"}"#,
                "10",
                r#"{"fixed":"0.27","free_amount":"7","model":"percentage","per_event_maximum":"2","per_event_minimum":"0.5","rate":"0.027"}"#,
            ),
            (r#"{"model":"dynamic"}"#, "10", r#"{"model":"dynamic","multiplier":"0.9"}"#),
            (
                r#"{"model":"matrix","dimensions":["m"],"per":1000,"rows":[{"match":{"m":"a"},"unit_price":"0.03"},{"match":{},"pricing":{"model":"flat","amount":"2"}}]}"#,
                "50",
                r#"{"dimensions":["m"],"model":"matrix","per":1000,"rows":[{"match":{"m":"a"},"unit_price":"0.015"},{"match":{},"pricing":{"amount":"1","model":"flat"}}]}"#,
            ),
        ] {
            assert_eq!(pricing(document).percent_off(exact(percent)).unwrap().canonical(), expected);
        }
    }

    #[test]
    fn the_floor_applies_after_the_discount() {
        let list = pricing(r#"{"model":"per_unit","unit_price":"0.03","unit_price_floor":"0.02"}"#);
        let rate = |pricing: &Pricing| pricing.rate(&Ratio::from(100i64), &Dimensions::new(), 1).unwrap();
        assert_eq!(rate(&list.percent_off(exact("20")).unwrap()).shown(), "2.4");
        let half = list.percent_off(exact("50")).unwrap();
        assert_eq!(rate(&half).shown(), "2");
        // Stacked discounts scale the price itself, not the floored one.
        assert_eq!(
            half.percent_off(exact("10")).unwrap().canonical(),
            r#"{"model":"per_unit","unit_price":"0.0135","unit_price_floor":"0.02"}"#
        );
    }

    #[test]
    fn refuses_percents_outside_0_to_100_and_lost_digits() {
        let list = pricing(r#"{"model":"flat","amount":"1234567890123456789012345678"}"#);
        for percent in ["-1", "100.01"] {
            assert!(list.percent_off(exact(percent)).unwrap_err().message.contains("not between 0 and 100"));
        }
        assert!(list.percent_off(exact("50")).is_ok());
        assert!(list.percent_off(exact("0.5")).unwrap_err().message.contains("28 digits"));
        assert_eq!(list.percent_off(exact("100")).unwrap().canonical(), r#"{"amount":"0","model":"flat"}"#);
    }

    #[test]
    fn an_override_price_keeps_per_and_nothing_else() {
        let list = pricing(
            r#"{"model":"graduated","per":1000,"tiers":[{"unit_price":"1"}],"minimum":"5","free_units":"9","unit_price_floor":"3"}"#,
        );
        assert_eq!(
            list.with_unit_price(exact("0.02")).canonical(),
            r#"{"model":"per_unit","per":1000,"unit_price":"0.02"}"#
        );
    }

    proptest! {
        #[test]
        fn nothing_off_changes_nothing(pricing in any_pricing()) {
            prop_assert_eq!(&pricing.percent_off(Exact::ZERO).unwrap(), &pricing);
        }

        #[test]
        fn scales_linear_amounts(
            list in any_linear(), dimensions in any_dimensions(),
            quantity in quantity_up_to(100_000), percent in 0i64..=100
        ) {
            let off = list.percent_off(Exact::from_i64(percent)).unwrap();
            let factor = Ratio::new((100 - percent).into(), 100);
            if let Ok(full) = list.rate_without_bounds(&quantity, &dimensions, 1) {
                let cut = off.rate_without_bounds(&quantity, &dimensions, 1).unwrap();
                prop_assert_eq!(cut, full.mul(&factor));
            }
        }
    }
}
