//! Percentage prices (definitions 11): a rate on an amount of money and a fixed part per event, with
//! free amounts and events, and bounds per event that ask for the single events.

use super::pricing::{Terms, reduced, sum};
use crate::domain::foundation::{Code, Exact, Fault, Ratio};
use std::cmp::max;

/// The model as it stands in the document. `rate` is a fraction: 2.9% is 0.029.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Percentage {
    pub rate: Exact,
    pub fixed: Exact,
    pub free_events: u64,
    pub free_amount: Exact,
    pub per_event_minimum: Option<Exact>,
    pub per_event_maximum: Option<Exact>,
}

impl Percentage {
    pub(super) fn is_per_event(&self) -> bool {
        self.per_event_minimum.is_some() || self.per_event_maximum.is_some()
    }

    pub(super) fn counts_events(&self) -> bool {
        self.is_per_event() || !self.fixed.is_zero()
    }

    pub(super) fn nothing_is_free(&self) -> bool {
        self.free_events == 0 && self.free_amount.is_zero()
    }

    /// Nothing but a rate.
    pub(super) fn is_plain(&self) -> bool {
        !self.counts_events() && self.free_amount.is_zero()
    }
}

/// The compiled model. Free units of a percentage are part of its free amount.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PercentageRule {
    rate: Ratio,
    fixed: Ratio,
    free_events: u64,
    free_amount: Ratio,
    minimum: Option<Ratio>,
    maximum: Option<Ratio>,
}

/// What a percentage is charged on: everything its amount is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tally {
    /// The amount that pays no rate.
    pub free_amount: Ratio,
    /// The amount that pays the rate.
    pub rated: Ratio,
    /// Events that pay no fixed part.
    pub free_events: u64,
    /// Events that pay the fixed part; an event of negative amount counts −1 where events are single.
    pub fixed_events: i128,
    /// Events brought to the minimum, and by how much in all.
    pub raised_events: u64,
    pub raised: Ratio,
    /// Events brought to the maximum, and by how much in all (below 0).
    pub cut_events: u64,
    pub cut: Ratio,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            free_amount: Ratio::ZERO,
            rated: Ratio::ZERO,
            free_events: 0,
            fixed_events: 0,
            raised_events: 0,
            raised: Ratio::ZERO,
            cut_events: 0,
            cut: Ratio::ZERO,
        }
    }

    pub(super) fn amount(&self, rule: &PercentageRule) -> Ratio {
        let unbounded = rule.rate.mul(&self.rated).add(&rule.fixed.mul(&Ratio::new(self.fixed_events, 1)));
        unbounded.add(&self.raised).add(&self.cut)
    }
}

impl PercentageRule {
    pub(super) fn compile(document: &Percentage, terms: &Terms) -> PercentageRule {
        PercentageRule {
            rate: terms.floored(document.rate).into(),
            fixed: document.fixed.into(),
            free_events: document.free_events,
            free_amount: reduced(&sum(&[document.free_amount, terms.free_units])),
            minimum: document.per_event_minimum.map(Ratio::from),
            maximum: document.per_event_maximum.map(Ratio::from),
        }
    }

    pub(super) fn is_per_event(&self) -> bool {
        self.minimum.is_some() || self.maximum.is_some()
    }

    /// From a total: rate × max(0, Σ − free_amount) + fixed × max(0, n − free_events). Without a free
    /// amount a negative total keeps its sign, as linear models do. With bounds per event one event only.
    pub(super) fn tally(&self, total: &Ratio, events: u64) -> Result<Tally, Fault> {
        if self.is_per_event() {
            return match events {
                0 if total.is_zero() => Ok(Tally::new()),
                1 => Ok(self.tally_each(std::iter::once(total.clone()))),
                _ => Err(needs_single_events(total, events)),
            };
        }
        let rated = self.beyond_free(total);
        let free_events = events.min(self.free_events);
        Ok(Tally {
            free_amount: total.sub(&rated),
            rated,
            free_events,
            fixed_events: i128::from(events - free_events),
            ..Tally::new()
        })
    }

    /// The amount where only a share of what is free is free.
    pub(super) fn amount_in_share(&self, total: &Ratio, events: u64, share: &Ratio) -> Result<Ratio, Fault> {
        if self.is_per_event() {
            return Ok(self.tally(total, events)?.amount(self));
        }
        let rated =
            PercentageRule { free_amount: self.free_amount.mul(share), ..self.clone() }.beyond_free(total);
        let free_events = Ratio::from(self.free_events).mul(share);
        let paying = max(Ratio::from(events).sub(&free_events), Ratio::ZERO);
        Ok(self.rate.mul(&rated).add(&self.fixed.mul(&paying)))
    }

    /// From single events, in order.
    pub(super) fn tally_events(&self, amounts: &[Exact]) -> Tally {
        self.tally_each(amounts.iter().map(|amount| Ratio::from(*amount)))
    }

    fn tally_each(&self, amounts: impl Iterator<Item = Ratio>) -> Tally {
        let mut tally = Tally::new();
        let mut running = Ratio::ZERO;
        let mut rated_before = Ratio::ZERO;
        for (n, amount) in (0u64..).zip(amounts) {
            running = running.add(&amount);
            let rated_after = self.beyond_free(&running);
            let rated = rated_after.sub(&rated_before);
            let pays_no_fixed = n < self.free_events;
            let inside_free = !self.free_amount.is_zero() && rated_after.is_zero();
            let sign = if amount.is_negative() { -1 } else { 1 };

            tally.rated = tally.rated.add(&rated);
            tally.free_amount = tally.free_amount.add(&amount.sub(&rated));
            let mut raw = self.rate.mul(&rated);
            if pays_no_fixed {
                tally.free_events += 1;
            } else {
                tally.fixed_events += sign;
                raw = raw.add(&self.fixed.mul(&Ratio::new(sign, 1)));
            }
            // Definitions 11, "an event wholly free is 0": an allowance holds for it and nothing else of it
            // is due, be it that the document charges no rate or that the event's amount is 0.
            let nothing_due = self.rate.mul(&rated).is_zero() && (pays_no_fixed || self.fixed.is_zero());
            let wholly_free = nothing_due && (pays_no_fixed || inside_free);
            if !wholly_free {
                self.clamp_event(&raw, sign, &mut tally);
            }
            rated_before = rated_after;
        }
        tally
    }

    /// Notes what the bounds add to or take from one event. A negative event is the mirror of its charge.
    fn clamp_event(&self, raw: &Ratio, sign: i128, tally: &mut Tally) {
        let sign = Ratio::new(sign, 1);
        let size = raw.mul(&sign);
        if let Some(minimum) = self.minimum.as_ref().filter(|minimum| size < **minimum) {
            tally.raised_events += 1;
            tally.raised = tally.raised.add(&minimum.sub(&size).mul(&sign));
        } else if let Some(maximum) = self.maximum.as_ref().filter(|maximum| size > **maximum) {
            tally.cut_events += 1;
            tally.cut = tally.cut.add(&maximum.sub(&size).mul(&sign));
        }
    }

    /// The part of a running amount that pays the rate.
    fn beyond_free(&self, amount: &Ratio) -> Ratio {
        if self.free_amount.is_zero() {
            return amount.clone();
        }
        std::cmp::max(amount.sub(&self.free_amount), Ratio::ZERO)
    }
}

fn needs_single_events(total: &Ratio, events: u64) -> Fault {
    Fault::new(
        Code::Unrated,
        format!(
            "the amount {total} of {events} events can't be rated as a sum: the price has a minimum or \
             maximum per event"
        ),
    )
    .with_hint("Use rate_events with the amount of each event.")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{exact, pricing, quantity};
    use crate::domain::foundation::{Exact, Ratio};
    use crate::domain::metering::Dimensions;
    use proptest::prelude::*;

    fn events(document: &str, amounts: &[&str]) -> String {
        let amounts: Vec<Exact> = amounts.iter().map(|text| exact(text)).collect();
        pricing(document).rate_events(&amounts).unwrap().shown()
    }

    /// Definitions 11: rate × max(0, Σ − free_amount) + fixed × max(0, n − free_events).
    #[test]
    fn from_a_total() {
        let document =
            r#"{"model":"percentage","rate":"0.029","fixed":"0.30","free_events":2,"free_amount":"1000"}"#;
        let card = pricing(document);
        for (sum, n, expected) in [
            ("900", 1, "0"),
            ("900", 5, "0.9"),
            ("1100", 5, "3.8"),
            ("1100", 2, "2.9"),
            ("0", 0, "0"),
            ("-50", 0, "0"),
        ] {
            assert_eq!(card.rate(&quantity(sum), &Dimensions::new(), n).unwrap().shown(), expected);
        }
        assert_eq!(events(document, &["600", "500"]), "2.9");
        let plain = pricing(r#"{"model":"percentage","rate":"0.029","fixed":"0.30"}"#);
        assert_eq!(plain.rate(&quantity("-100"), &Dimensions::new(), 1).unwrap().shown(), "-2.6");
        // Free units of a percentage are part of its free amount.
        let free = r#"{"model":"percentage","rate":"0.1","free_units":"30","free_amount":"70"}"#;
        assert_eq!(events(free, &["60", "60"]), "2");
    }

    #[test]
    fn free_events_and_amounts_of_single_events() {
        // The document of design.md 4: events 1 and 2 pay no fixed part, the first 1000 no rate.
        let card = r#"{"model":"percentage","rate":"0.029","fixed":"0.30","free_events":2,"free_amount":"1000","per_event_minimum":"0.50","per_event_maximum":"25"}"#;
        assert_eq!(events(card, &["400"]), "0");
        assert_eq!(events(card, &["400", "500"]), "0");
        // Third event: 100 more are free, 100 pay 2.90, and 0.30.
        assert_eq!(events(card, &["400", "500", "200"]), "3.2");
        // Third event inside the free amount: 0.30, raised to 0.50.
        assert_eq!(events(card, &["400", "500", "50"]), "0.5");
        // A free event beyond the free amount pays the rate, within the bounds.
        assert_eq!(events(card, &["1010"]), "0.5");
        assert_eq!(events(card, &["1000", "5000"]), "25");
        assert_eq!(events(card, &[]), "0");
    }

    #[test]
    fn an_event_is_free_only_by_an_allowance() {
        let least = r#"{"model":"percentage","rate":"0.1","per_event_minimum":"1"}"#;
        assert_eq!(events(least, &["0", "5", "20"]), "4");
        let free = r#"{"model":"percentage","rate":"0.1","per_event_minimum":"1","free_amount":"5"}"#;
        assert_eq!(events(free, &["0", "5", "1"]), "1");
        let first =
            r#"{"model":"percentage","rate":"0.1","fixed":"2","per_event_minimum":"3","free_events":1}"#;
        assert_eq!(events(first, &["0", "0"]), "3");
        // Where the price is nothing but a fixed part, an event without it is wholly free.
        let fixed =
            r#"{"model":"percentage","rate":"0","fixed":"0.30","per_event_minimum":"0.50","free_events":2}"#;
        assert_eq!(events(fixed, &["7", "7"]), "0");
        assert_eq!(events(fixed, &["7", "7", "7"]), "0.5");
    }

    #[test]
    fn a_negative_event_is_the_mirror_of_its_charge() {
        let card = r#"{"model":"percentage","rate":"0.029","fixed":"0.30","per_event_minimum":"0.50","per_event_maximum":"10"}"#;
        for amount in ["5", "100", "500"] {
            assert_eq!(events(card, &[amount, &format!("-{amount}")]), "0", "{amount}");
        }
        assert_eq!(events(card, &["-5"]), "-0.5");
    }

    proptest! {
        #[test]
        fn bounds_that_never_bind_change_nothing(
            rate in 0i64..1000, fixed in 0i64..100, free in 0i64..3000, free_events in 0u64..5,
            amounts in proptest::collection::vec(0i64..100_000, 0..12)
        ) {
            let document = |bounds: &str| format!(
                r#"{{"model":"percentage","rate":"{rate}e-4","fixed":"{fixed}e-2","free_amount":"{free}","free_events":{free_events}{bounds}}}"#
            );
            let amounts: Vec<Exact> = amounts.iter().map(|a| Exact::from_parts((*a).into(), 2).unwrap()).collect();
            let bounded = pricing(&document(r#","per_event_minimum":"0","per_event_maximum":"1e9""#));
            prop_assert!(bounded.needs_events());
            prop_assert_eq!(
                bounded.rate_events(&amounts).unwrap(),
                pricing(&document("")).rate_events(&amounts).unwrap()
            );
        }

        #[test]
        fn single_events_are_rated_one_by_one(
            rate in 0i64..1000, fixed in 0i64..100, least in 0i64..500, more in 0i64..900,
            amounts in proptest::collection::vec(-100_000i64..100_000, 0..12)
        ) {
            let card = pricing(&format!(
                r#"{{"model":"percentage","rate":"{rate}e-4","fixed":"{fixed}e-2","per_event_minimum":"{least}e-2","per_event_maximum":"{}e-2"}}"#,
                least + more
            ));
            let amounts: Vec<Exact> = amounts.iter().map(|a| Exact::from_parts((*a).into(), 2).unwrap()).collect();
            let each = amounts.iter().fold(Ratio::ZERO, |sum, amount| {
                sum.add(&card.rate(&(*amount).into(), &Dimensions::new(), 1).unwrap())
            });
            prop_assert_eq!(card.rate_events(&amounts).unwrap(), each);
        }
    }
}
