//! One quantity under several versions of a price (rules.md 1, "Price versioning"), and which prices can be cut
//! in time at all.

use super::pricing::{Model, Pricing};
use super::tiers::TierKind;
use crate::domain::foundation::{Code, Exact, Fault, Ratio};
use std::cmp::max;

/// Policy `tier_continuity`: where a quantity stands in the tiers when a new version begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TierContinuity {
    /// It keeps its position.
    Continue,
    /// It begins at 0 again.
    Reset,
}

impl TierContinuity {
    pub fn parse(text: &str) -> Result<TierContinuity, Fault> {
        match text {
            "continue" => Ok(TierContinuity::Continue),
            "reset" => Ok(TierContinuity::Reset),
            _ => Err(Fault::new(Code::Value, format!("tier_continuity \"{text}\" is not known"))
                .with_hint("Use continue or reset.")),
        }
    }
}

/// What was used under one version, or up to the end of one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Used {
    pub quantity: Ratio,
    pub events: u64,
    /// The single events in order of time, where a version needs them.
    pub amounts: Option<Vec<EventAmount>>,
}

/// The amount of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventAmount {
    /// Its place among all events of the period, in (occurred_at, event_key) order, whatever their lines.
    pub place: u64,
    pub amount: Exact,
}

impl Used {
    /// This and what came beside or after it; events keep their order.
    pub fn append(&mut self, other: &Used) {
        self.quantity = self.quantity.add(&other.quantity);
        self.events += other.events;
        if let Some(amounts) = &other.amounts {
            let events = self.amounts.get_or_insert_default();
            events.extend(amounts);
            events.sort_by_key(|event| event.place);
        }
    }

    fn is_nothing(&self) -> bool {
        self.quantity.is_zero() && self.events == 0
    }

    /// As tiers see it: corrections don't take it below 0.
    fn not_below_zero(&self) -> Used {
        Used { quantity: max(self.quantity.clone(), Ratio::ZERO), ..self.clone() }
    }
}

impl Pricing {
    /// Whether usage of one period may be priced by this and by another version, each its part. A flat amount and
    /// a step are amounts for the period: no unit of the quantity has a price of its own. Of a matrix: all rows.
    pub fn can_be_cut(&self) -> bool {
        match self.model() {
            Model::Flat { .. } | Model::Tiered { kind: TierKind::Stairstep, .. } => false,
            Model::Matrix(matrix) => matrix.rows.iter().all(|row| row.pricing().can_be_cut()),
            _ => true,
        }
    }

    /// Whether usage may be priced apart at any instant, without regard to what came before: the amount is
    /// proportional to the quantity and has no bounds. Of a matrix: every row.
    pub fn splits_in_time(&self) -> bool {
        let bounded = |pricing: &Pricing| pricing.minimum().is_some() || pricing.maximum().is_some();
        self.is_linear() && !bounded(self) && !self.rows().iter().any(|row| bounded(row.pricing()))
    }

    /// Whether a quantity below 0 is a credit.
    fn mirrors(&self) -> bool {
        self.is_linear() || matches!(self.model(), Model::Percentage(_))
    }

    /// Whether one tier prices the whole quantity.
    pub fn prices_the_whole(&self) -> bool {
        matches!(self.model(), Model::Tiered { kind: TierKind::Volume, .. })
    }

    /// The exact amount of what was used, before minimum and maximum, as [`Pricing::rate_events_without_bounds`]
    /// where single events are needed; of a share of a period as [`Pricing::rate_share`].
    pub fn rate_used(&self, used: &Used, share: Option<&Ratio>) -> Result<Ratio, Fault> {
        match (share, &used.amounts) {
            (Some(share), _) => self.rate_share(&used.quantity, used.events, share),
            (None, Some(events)) if self.needs_events() => {
                let amounts: Vec<Exact> = events.iter().map(|event| event.amount).collect();
                self.rate_events_without_bounds(&amounts)
            }
            (None, _) => self.rate_without_bounds(&used.quantity, &Default::default(), used.events),
        }
    }
}

/// The exact amount of each version's part of one quantity, in order of time; bounds are none of its business. No
/// pricing is a matrix.
///
/// `Continue`: what was used under version k costs A_k(all up to its end) − A_k(all before it), A being what the
/// version asks for a whole quantity: tiers go on, flat fees of tiers entered before are not asked again, packages
/// are the difference, and so are free units, events and amounts. Where one tier prices the whole quantity (volume),
/// the part has that tier's price by its own version: A_k(whole) × part ÷ whole. `Reset`: each part by itself.
///
/// What is due at quantity 0 is due once, by the first version. A quantity that corrections took below 0 under a
/// version that can't credit them is made up for by what follows.
pub fn rate_versions(
    versions: &[(&Pricing, Used)],
    continuity: TierContinuity,
    share: Option<&Ratio>,
) -> Result<Vec<Ratio>, Fault> {
    let mut whole = Used::default();
    versions.iter().for_each(|(_, used)| whole.append(used));
    let mut amounts = Vec::with_capacity(versions.len());
    // Everything before a version, and up to where it is priced: corrections may be below what could be credited.
    let (mut before, mut priced) = (Used::default(), Used::default());
    for (at, (pricing, used)) in versions.iter().enumerate() {
        let (first, mirrors) = (at == 0, pricing.mirrors());
        if !mirrors && priced.quantity.is_negative() {
            before = before.not_below_zero(); // what was credited is settled
            priced = priced.not_below_zero();
        }
        let mut until = before.clone();
        until.append(used);
        let end = if mirrors { until.clone() } else { until.not_below_zero() };
        amounts.push(if continuity == TierContinuity::Reset {
            if first || !used.is_nothing() { pricing.rate_used(used, share)? } else { Ratio::ZERO }
        } else if pricing.is_linear() {
            let part = Used { quantity: end.quantity.sub(&priced.quantity), ..used.clone() };
            pricing.rate_used(&part, share)?
        } else if !first && used.is_nothing() {
            Ratio::ZERO
        } else if pricing.prices_the_whole() {
            let amount = pricing.rate_used(&whole, share)?;
            let part = end.quantity.sub(&priced.quantity).div(&whole.quantity);
            part.map_or(if first { amount.clone() } else { Ratio::ZERO }, |part| amount.mul(&part))
        } else if first {
            pricing.rate_used(&end, share)?
        } else {
            pricing.rate_used(&end, share)?.sub(&pricing.rate_used(&priced, share)?)
        });
        (before, priced) = (until, end);
    }
    if continuity == TierContinuity::Continue && before.quantity.is_negative() {
        // In the end it is below 0: whoever can't rate that says so.
        versions
            .iter()
            .filter(|(p, _)| !p.mirrors())
            .try_for_each(|(p, _)| p.rate_used(&before, share).map(drop))?;
    }
    Ok(amounts)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_graduated, exact, pricing, quantity, quantity_up_to};
    use super::*;
    use proptest::prelude::*;

    fn used(units: &str, events: u64) -> Used {
        Used { quantity: quantity(units), events, amounts: None }
    }

    /// The amounts of versions, each with its quantity from so many events.
    fn amounts_of(versions: &[(&str, &str, u64)], continuity: TierContinuity) -> Result<Vec<String>, Fault> {
        let read: Vec<Pricing> = versions.iter().map(|(document, ..)| pricing(document)).collect();
        let asked: Vec<(&Pricing, Used)> = read
            .iter()
            .zip(versions)
            .map(|(pricing, (_, units, events))| (pricing, used(units, *events)))
            .collect();
        Ok(rate_versions(&asked, continuity, None)?.iter().map(Ratio::shown).collect())
    }

    /// The amounts of versions, each with its quantity from one event.
    fn amounts(versions: &[(&str, &str)], continuity: TierContinuity) -> Result<Vec<String>, Fault> {
        let versions: Vec<_> = versions.iter().map(|(document, units)| (*document, *units, 1)).collect();
        amounts_of(&versions, continuity)
    }

    fn continued(versions: &[(&str, &str)]) -> Vec<String> {
        amounts(versions, TierContinuity::Continue).unwrap()
    }

    const V1: &str =
        r#"{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.010"},{"unit_price":"0.006"}]}"#;
    const V2: &str =
        r#"{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.008"},{"unit_price":"0.005"}]}"#;

    /// rules.md 1: 8,000 then 6,000 → continue 80 + 36, reset 80 + 48; 10,000 @.010 then 12,000 @.008 → 100 + 96.
    #[test]
    fn worked_numbers() {
        let versions = [(V1, "8000"), (V2, "6000")];
        assert_eq!(continued(&versions), ["80", "36"]);
        assert_eq!(amounts(&versions, TierContinuity::Reset).unwrap(), ["80", "48"]);
        let linear = [
            (r#"{"model":"per_unit","unit_price":"0.010"}"#, "10000"),
            (r#"{"model":"per_unit","unit_price":"0.008"}"#, "12000"),
        ];
        for continuity in [TierContinuity::Continue, TierContinuity::Reset] {
            assert_eq!(amounts(&linear, continuity).unwrap(), ["100", "96"]);
        }
    }

    #[test]
    fn what_was_entered_is_not_asked_again() {
        let fees = r#"{"model":"graduated","tiers":[{"up_to":"100","unit_price":"1","flat_fee":"10"},{"unit_price":"0.5","flat_fee":"5"}]}"#;
        assert_eq!(continued(&[(fees, "50"), (fees, "40"), (fees, "20")]), ["60", "40", "20"]);
        let package = r#"{"model":"package","package_size":"500","amount":"4"}"#;
        assert_eq!(continued(&[(package, "250"), (package, "250"), (package, "1")]), ["4", "0", "4"]);
        let least = r#"{"model":"package","package_size":"500","amount":"4","minimum_one_package":true}"#;
        assert_eq!(continued(&[(least, "0"), (least, "100"), (least, "0")]), ["4", "0", "0"]);
        let free = r#"{"model":"per_unit","unit_price":"1","free_units":"100"}"#;
        assert_eq!(continued(&[(free, "80"), (free, "30")]), ["0", "10"]);
        // A linear version before one with tiers counts for the position.
        assert_eq!(
            continued(&[(r#"{"model":"per_unit","unit_price":"1"}"#, "9000"), (V2, "2000")]),
            ["9000", "13"]
        );
    }

    #[test]
    fn volume_asks_which_tier_holds_the_whole() {
        let at = |low: &str, high: &str| {
            format!(
                r#"{{"model":"volume","tiers":[{{"up_to":"100","unit_price":"{low}"}},{{"unit_price":"{high}"}}]}}"#
            )
        };
        let (v1, v2) = (at("10", "8"), at("6", "5"));
        assert_eq!(continued(&[(&v1, "80"), (&v2, "40")]), ["640", "200"]);
        assert_eq!(amounts(&[(&v1, "80"), (&v2, "40")], TierContinuity::Reset).unwrap(), ["800", "240"]);
    }

    #[test]
    fn events_and_amounts_that_are_free_are_free_once() {
        let card = pricing(
            r#"{"model":"percentage","rate":"0.1","fixed":"0.30","free_events":3,"free_amount":"100"}"#,
        );
        let versions = [(&card, used("80", 2)), (&card, used("50", 2))];
        let rated = rate_versions(&versions, TierContinuity::Continue, None).unwrap();
        assert_eq!(rated.iter().map(Ratio::shown).collect::<Vec<_>>(), ["0", "3.3"]);
        let single = pricing(
            r#"{"model":"percentage","rate":"0.1","fixed":"0.30","free_events":1,"per_event_minimum":"1","per_event_maximum":"3"}"#,
        );
        let amounts = |list: &[(u64, &str)]| -> Used {
            let event = |&(place, amount): &(u64, &str)| EventAmount { place, amount: exact(amount) };
            let amounts: Vec<EventAmount> = list.iter().map(event).collect();
            let quantity = amounts.iter().fold(Ratio::ZERO, |sum, event| sum.add(&event.amount.into()));
            Used { quantity, events: list.len() as u64, amounts: Some(amounts) }
        };
        let versions = [(&single, amounts(&[(1, "5")])), (&single, amounts(&[(2, "5"), (3, "100")]))];
        let rated = rate_versions(&versions, TierContinuity::Continue, None).unwrap();
        assert_eq!(rated.iter().map(Ratio::shown).collect::<Vec<_>>(), ["1", "4"]);
        // Lines that are put together keep the order of time: the first event of all is the free one, and asks its rate.
        let mut both = amounts(&[(2, "20"), (4, "1")]);
        both.append(&amounts(&[(1, "5"), (3, "100")]));
        assert_eq!(single.rate_used(&both, None).unwrap().shown(), "7.3");
    }

    /// Corrections below 0 are made up for by what follows, or can't be rated at all.
    #[test]
    fn corrections_below_nothing() {
        assert_eq!(continued(&[(V1, "-20"), (V2, "100")]), ["0", "0.64"]);
        assert_eq!(continued(&[(V1, "100"), (V2, "-20")]), ["1", "-0.16"]);
        let linear = r#"{"model":"per_unit","unit_price":"1"}"#;
        assert_eq!(continued(&[(linear, "-20"), (V2, "100")]), ["-20", "0.8"]);
        assert_eq!(continued(&[(V1, "-20"), (linear, "100")]), ["0", "80"]);
        for versions in [[(V1, "10"), (V2, "-20")], [(V1, "-20"), (V2, "0")]] {
            let fault = amounts(&versions, TierContinuity::Continue).unwrap_err();
            assert_eq!(fault.code, Code::Unrated, "{}", fault.message);
        }
    }

    /// What is due at quantity 0 is due once, by the first version; events of 0 and a level carried over without an
    /// event are something.
    #[test]
    fn nothing_used_is_neither_quantity_nor_events() {
        let both = |versions: &[(&str, &str, u64)]| {
            [TierContinuity::Continue, TierContinuity::Reset].map(|c| amounts_of(versions, c).unwrap())
        };
        let least = r#"{"model":"package","package_size":"500","amount":"4","minimum_one_package":true}"#;
        assert_eq!(both(&[(least, "0", 0), (least, "0", 0)]), [["4", "0"], ["4", "0"]]);
        assert_eq!(both(&[(least, "10", 1), (least, "0", 0)]), [["4", "0"], ["4", "0"]]);
        let fixed = r#"{"model":"percentage","rate":"0.1","fixed":"0.30"}"#;
        assert_eq!(both(&[(fixed, "0", 1), (fixed, "0", 2)]), [["0.3", "0.6"], ["0.3", "0.6"]]);
        assert_eq!(both(&[(V1, "8000", 1), (V2, "6000", 0)]), [["80", "36"], ["80", "48"]]);
    }

    #[test]
    fn reset_versions_are_credited_by_themselves() {
        let linear = r#"{"model":"per_unit","unit_price":"1"}"#;
        assert_eq!(amounts(&[(V1, "10"), (linear, "-20")], TierContinuity::Reset).unwrap(), ["0.1", "-20"]);
    }

    #[test]
    fn one_amount_for_a_period_is_not_cut() {
        for (document, cuts, splits) in [
            (r#"{"model":"flat","amount":"1"}"#, false, false),
            (r#"{"model":"stairstep","tiers":[{"amount":"1"}]}"#, false, false),
            (V1, true, false),
            (r#"{"model":"per_unit","unit_price":"1"}"#, true, true),
            (r#"{"model":"per_unit","unit_price":"1","minimum":"5"}"#, true, false),
            (
                r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"unit_price":"1"},{"match":{"m":"a"},"pricing":{"model":"flat","amount":"1"}}]}"#,
                false,
                false,
            ),
            (
                r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"unit_price":"1","minimum":"5"}]}"#,
                true,
                false,
            ),
        ] {
            let read = pricing(document);
            assert_eq!((read.can_be_cut(), read.splits_in_time()), (cuts, splits), "{document}");
        }
    }

    proptest! {
        /// However often one and the same price is cut, the parts sum to the whole.
        #[test]
        fn versions_that_say_the_same_change_nothing(
            pricing in any_graduated(), parts in proptest::collection::vec(quantity_up_to(20_000), 1..6)
        ) {
            let whole = parts.iter().fold(Ratio::ZERO, |sum, part| sum.add(part));
            let versions: Vec<(&Pricing, Used)> = parts.into_iter()
                .map(|quantity| (&pricing, Used { quantity, events: 1, amounts: None })).collect();
            let rated = rate_versions(&versions, TierContinuity::Continue, None).unwrap();
            let sum = rated.iter().fold(Ratio::ZERO, |sum, amount| sum.add(amount));
            prop_assert_eq!(sum, pricing.rate_without_bounds(&whole, &Default::default(), 1).unwrap());
        }
    }
}
