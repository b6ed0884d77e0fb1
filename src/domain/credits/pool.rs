//! A pool: all credit that one purchase promised, and the price of it. It gives every credit the same cost basis.
//!
//! Paid, bonus, carried pilot and renewal credits of one purchase share its price, or revenue would depend on which
//! of them is drawn first. The basis is never a decimal (100,000 ÷ 120,000 has none): what is stored is the two
//! numbers it is made of.

use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Exact, Fault, Ratio, RoundingMode};
use uuid::Uuid;

/// What was paid, and the credits promised for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub id: Uuid,
    pub currency: Unit,
    paid: Exact,
    credits: Exact,
}

impl Pool {
    /// `credits` is the sum over all blocks of the purchase, free ones among them.
    pub fn new(id: Uuid, currency: Unit, paid: Exact, credits: Exact) -> Result<Pool, Fault> {
        if paid.is_negative() {
            return Err(Fault::value(format!("a pool can't be paid with {paid}")));
        }
        if credits.is_negative() || credits.is_zero() {
            return Err(Fault::value(format!("a pool of {credits} credits has no cost basis"))
                .with_hint("Sum the credits of all blocks that the purchase promised."));
        }
        Ok(Pool { id, currency, paid, credits })
    }

    pub fn paid(&self) -> Exact {
        self.paid
    }

    pub fn credits(&self) -> Exact {
        self.credits
    }

    /// Money per credit, exactly.
    pub fn basis(&self) -> Ratio {
        self.value(Exact::ONE)
    }

    /// What so many credits of the pool are worth.
    pub fn value(&self, credits: Exact) -> Ratio {
        let product = Ratio::from(credits).mul(&self.paid.into());
        product.div(&self.credits.into()).expect("a pool has credits")
    }

    /// The money that leaves the contract liability with `credits` (burnt, expired or refunded; negative where they
    /// come back), `before` of the pool having left already: the cumulative method (rules.md 0.7). So however the
    /// credits leave, the amounts sum to what was paid, to the minor unit.
    pub fn release(
        &self,
        before: Exact,
        credits: Exact,
        minor_units: u32,
        rounding: RoundingMode,
    ) -> Result<Exact, Fault> {
        let after = before.add(credits)?;
        if before.is_negative() || after.is_negative() || before > self.credits || after > self.credits {
            return Err(Fault::value(format!(
                "{credits} after {before} is not within the {} credits of the pool",
                self.credits
            )));
        }
        let posted = |credits| self.value(credits).round(minor_units, rounding);
        posted(after)?.sub(posted(before)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{exact, id, usd};
    use super::*;
    use proptest::prelude::*;

    fn pool(paid: &str, credits: &str) -> Pool {
        Pool::new(id(1), usd(), exact(paid), exact(credits)).unwrap()
    }

    /// rules.md 3: $8,500 for 10,000 → 0.85; a 20% discount is 125,000 at 0.80, a 20% bonus 120,000 at 0.8333….
    #[test]
    fn a_discount_is_no_bonus() {
        assert_eq!(pool("8500", "10000").basis(), Ratio::new(85, 100));
        assert_eq!(pool("100000", "125000").basis(), Ratio::new(4, 5));
        assert_eq!(pool("100000", "120000").basis(), Ratio::new(5, 6));
    }

    #[test]
    fn refuses_what_makes_no_pool() {
        for (paid, credits) in [("-1", "1"), ("1", "0"), ("1", "-1")] {
            assert!(Pool::new(id(1), usd(), exact(paid), exact(credits)).is_err(), "{paid} {credits}");
        }
        let two = pool("1", "2");
        for (before, more) in [("0", "3"), ("3", "-1"), ("-1", "1"), ("1", "-2")] {
            assert!(two.release(exact(before), exact(more), 2, RoundingMode::HalfUp).is_err());
        }
    }

    /// rules.md 3: 50,000 for 50,000 + 5,000 carried pilot credits; burning 11,000 earns 10,000 whichever goes first.
    #[test]
    fn carried_credits_share_the_price() {
        let mixed = pool("50000", "55000");
        assert_eq!(mixed.basis(), Ratio::new(10, 11));
        assert_eq!(mixed.basis().shown(), "0.909090909090909091");
        let release = |before: &str, credits: &str| {
            mixed.release(exact(before), exact(credits), 2, RoundingMode::HalfUp).unwrap()
        };
        assert_eq!(release("0", "11000"), exact("10000"));
        assert_eq!(release("0", "5000").add(release("5000", "6000")).unwrap(), exact("10000"));
    }

    proptest! {
        /// However the credits of a pool leave, and come back in between, the money sums to what was paid.
        #[test]
        fn releases_sum_to_the_price(
            paid in 0i128..1_000_000, steps in proptest::collection::vec((1i64..5000, 0i64..2500), 1..20)
        ) {
            let paid = Exact::from_parts(paid, 2).unwrap();
            let credits: i64 = steps.iter().map(|(out, back)| out - (*back).min(out - 1)).sum();
            let pool = Pool::new(id(1), usd(), paid, Exact::from_i64(credits + 2500)).unwrap();
            let (mut left, mut money) = (Exact::ZERO, Exact::ZERO);
            let mut leave = |credits: Exact| {
                money = money.add(pool.release(left, credits, 2, RoundingMode::HalfEven).unwrap()).unwrap();
                left = left.add(credits).unwrap();
            };
            for (out, back) in steps {
                let back = back.min(out - 1);
                leave(Exact::from_i64(out - back));
                leave(Exact::from_i64(back.min(2500)));
                leave(Exact::from_i64(-back.min(2500)));
            }
            leave(Exact::from_i64(2500));
            prop_assert_eq!(left, pool.credits());
            prop_assert_eq!(money, paid);
        }
    }
}
