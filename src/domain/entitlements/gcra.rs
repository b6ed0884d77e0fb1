//! Rate limits by GCRA: so many a period, and so many at once.
//!
//! With T = period ÷ rate, a request at t passes iff max(t, TAT) + cost × T − t ≤ burst × T, and then TAT = max(t, TAT) + cost × T.
//! What is kept is not TAT, which few rates can say exactly (a third of a second), but (TAT − t) ÷ T: what has not drained yet, as
//! a whole number of parts of a request, 10⁶ × the period's microseconds to one. A microsecond then drains rate × 10⁶ of them, so
//! there is no division and nothing is ever rounded. A token bucket of `burst` tokens gives the same answers (a property test).

use crate::domain::foundation::decimal::Exact;
use crate::domain::foundation::fault::Fault;

/// Decimals of a rate, a burst and a cost.
pub const SCALE: u32 = 6;
/// Most requests a period, at once, and for one request.
pub const REQUESTS_MAX: i64 = 1_000_000_000;
/// The longest period: 366 days.
pub const PERIOD_MAX: i64 = 366 * 86_400 * 1_000_000;
const ONE: i128 = 1_000_000;

/// So many a period, so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The period, in microseconds.
    period: i64,
    /// Parts that drain in a microsecond: the rate × 10⁶.
    drain: i128,
    /// Parts that may stand.
    burst: i128,
}

/// What had not drained at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// In parts of a request, 10⁶ × period to one.
    pub level: i128,
    /// The period, in microseconds.
    pub period: i64,
    /// Microseconds, of whatever clock the caller reads.
    pub at: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub allowed: bool,
    /// What stands then: after the request if it was allowed, else what stood.
    pub state: State,
    /// Microseconds after which the same request passes if nothing else comes: 0 if it was allowed, none if it never can.
    pub wait: Option<i64>,
    /// What may still come at once, to 6 decimals, rounded down.
    pub remaining: Exact,
}

impl Limit {
    /// A rate with more than 6 decimals (100 ÷ 60) is taken over a longer period, as far as that makes it exact; what is left is rounded up.
    pub fn new(rate: Exact, period: i64, burst: Exact) -> Result<Limit, Fault> {
        if !(1..=PERIOD_MAX).contains(&period) {
            return Err(Fault::value(format!("a rate limit can't be per {period} microseconds"))
                .with_hint("Give a period of at most 366 days."));
        }
        let most = i128::from(REQUESTS_MAX) * ONE;
        let no_rate = || {
            Fault::value(format!("{rate} requests in {period} microseconds can't be a rate limit"))
                .with_hint("Give more than 0 and at most 1,000,000,000 a period.")
        };
        let (mut drain, mut scale, mut longer) = (rate.mantissa(), rate.scale(), period);
        while scale > SCALE && longer <= PERIOD_MAX / 10 {
            scale -= 1;
            longer *= 10;
        }
        if scale > SCALE {
            let cut = 10_i128.pow(scale - SCALE);
            drain = if drain < cut { 0 } else { (drain + cut - 1) / cut };
        } else {
            drain = drain.checked_mul(10_i128.pow(SCALE - scale)).ok_or_else(no_rate)?;
        }
        let stretched = i128::from(longer / period);
        if !(1..=most * stretched).contains(&drain) {
            return Err(no_rate());
        }
        let period = longer;
        match scaled(burst) {
            Some(burst) if (1..=most).contains(&burst) => {
                Ok(Limit { period, drain, burst: burst * i128::from(period) })
            }
            _ => Err(Fault::value(format!("a burst of {burst} requests can't be")).with_hint(
                "Give more than 0 and at most 1,000,000,000 that may come at once, with at most 6 decimals.",
            )),
        }
    }

    /// Whether a request that costs so much passes at an instant. A clock that was set back makes nothing drain.
    pub fn take(&self, before: Option<State>, now: i64, cost: Exact) -> Result<Outcome, Fault> {
        let cost = scaled(cost)
            .filter(|cost| (0..=i128::from(REQUESTS_MAX) * ONE).contains(cost))
            .ok_or_else(|| {
                Fault::value(format!("a request can't cost {cost}"))
                    .with_hint("Give 0 to 1,000,000,000, with at most 6 decimals.")
            })?
            * i128::from(self.period);
        let (stood, at) = match before {
            None => (0, now),
            Some(state) => {
                let elapsed = (i128::from(now) - i128::from(state.at)).max(0);
                let level = in_period(state.level, state.period, self.period);
                ((level - elapsed.saturating_mul(self.drain)).max(0), now.max(state.at))
            }
        };
        let allowed = stood + cost <= self.burst;
        let level = if allowed { stood + cost } else { stood };
        let wait = if allowed {
            Some(0)
        } else if cost > self.burst {
            None
        } else {
            let excess = stood + cost - self.burst;
            let behind = i128::from(at) - i128::from(now);
            i64::try_from(behind + (excess + self.drain - 1) / self.drain).ok()
        };
        let left = (self.burst - level).max(0) / i128::from(self.period);
        let remaining = Exact::from_parts(left, SCALE).unwrap_or(Exact::ZERO);
        Ok(Outcome { allowed, state: State { level, period: self.period, at }, wait, remaining })
    }

    /// The instant from which a state says nothing any more: TAT, rounded up.
    pub fn drained_at(&self, state: &State) -> i64 {
        let level = in_period(state.level, state.period, self.period);
        let after = i128::from(state.at) + (level + self.drain - 1) / self.drain;
        i64::try_from(after).unwrap_or(i64::MAX)
    }
}

/// A level in the parts of another period, rounded down. In two steps, so that nothing overflows.
fn in_period(level: i128, from: i64, to: i64) -> i128 {
    if from == to {
        return level;
    }
    let (from, to) = (i128::from(from.max(1)), i128::from(to));
    level / from * to + level % from * to / from
}

/// A number as so many millionths; none if it has more decimals.
fn scaled(value: Exact) -> Option<i128> {
    let missing = SCALE.checked_sub(value.scale())?;
    value.mantissa().checked_mul(10_i128.pow(missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::Ratio;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000;

    fn exact(text: &str) -> Exact {
        Exact::parse(text).unwrap()
    }

    fn limit(rate: &str, period: i64, burst: &str) -> Limit {
        Limit::new(exact(rate), period, exact(burst)).unwrap()
    }

    /// What passes of arrivals (milliseconds, cost), one after the other.
    fn passes(limit: Limit, arrivals: &[(i64, &str)]) -> Vec<bool> {
        let mut state = None;
        let pass = |&(ms, cost): &(i64, &str)| {
            let outcome = limit.take(state, ms * 1000, exact(cost)).unwrap();
            state = Some(outcome.state);
            outcome.allowed
        };
        arrivals.iter().map(pass).collect()
    }

    /// rules.md 9: 10/s, burst 5, arrivals (ms) 0×6, 100, 150, 200 → ✓✓✓✓✓✗✓✗✓
    #[test]
    fn the_worked_numbers() {
        let arrivals = [0, 0, 0, 0, 0, 0, 100, 150, 200].map(|ms| (ms, "1"));
        let expected = [true, true, true, true, true, false, true, false, true];
        assert_eq!(passes(limit("10", SECOND, "5"), &arrivals), expected);
        // the same rate, said otherwise
        assert_eq!(passes(limit("600", 60 * SECOND, "5"), &arrivals), expected);
        assert_eq!(passes(limit("0.01", 1000, "5"), &arrivals), expected);
        // all or none, and parts
        let parts = [
            (0, "4"),
            (0, "1.5"),
            (0, "1"),
            (25, "0.25"),
            (25, "0.000001"),
            (500, "4.75"),
            (500, "0.000001"),
        ];
        assert_eq!(passes(limit("10", SECOND, "5"), &parts), [true, false, true, true, false, true, false]);
    }

    #[test]
    fn a_refusal_says_when() {
        let limit = limit("10", SECOND, "5");
        let full = limit.take(None, 0, exact("5")).unwrap();
        assert_eq!((full.allowed, full.wait, full.remaining), (true, Some(0), Exact::ZERO));
        assert_eq!(limit.drained_at(&full.state), 500_000);
        let take = |now, cost| limit.take(Some(full.state), now, exact(cost)).unwrap();
        assert_eq!((take(0, "1").allowed, take(0, "1").wait), (false, Some(100_000)));
        assert_eq!(take(0, "1").state, full.state, "a refusal changes nothing");
        assert_eq!(take(99_999, "1").wait, Some(1));
        assert_eq!(take(100_000, "1").wait, Some(0));
        assert_eq!(take(50_000, "0").remaining, exact("0.5"));
        assert_eq!(take(0, "5").wait, Some(500_000));
        // more than fit at once never pass
        assert_eq!((take(0, "5.000001").allowed, take(0, "5.000001").wait), (false, None));
        // a clock that is behind: nothing drains, nothing is forgotten, and the wait counts from where it is
        assert_eq!(take(-SECOND, "1").wait, Some(1_100_000));
        assert_eq!(take(-SECOND, "0").state, full.state);
    }

    /// 100 a minute is 1.666… a second: exact as written, and near enough as a quotient.
    #[test]
    fn odd_rates_do_not_drift() {
        let whole = limit("100", 60 * SECOND, "1");
        let quotient = limit("1.6666666666666667", SECOND, "1");
        for (limit, first) in [(whole, 600_000), (quotient, 600_000)] {
            let mut state = limit.take(None, 0, exact("1")).unwrap().state;
            for n in 1..=10_000 {
                let early = limit.take(Some(state), n * first - 1, exact("1")).unwrap();
                let due = limit.take(Some(state), n * first, exact("1")).unwrap();
                assert!(!early.allowed && due.allowed, "{n}");
                state = due.state;
            }
        }
        let third = limit("3", SECOND, "2");
        let mut state = None;
        for second in 0..1000 {
            for micros in [0, 333_334, 666_667] {
                let outcome = third.take(state, second * SECOND + micros, Exact::ONE).unwrap();
                assert!(outcome.allowed, "{second} {micros}");
                state = Some(outcome.state);
            }
        }
    }

    /// A limit that is set anew keeps what has not drained, in requests.
    #[test]
    fn a_changed_limit_keeps_what_stands() {
        let before = limit("10", SECOND, "5").take(None, 0, exact("4")).unwrap().state;
        let minute = limit("60", 60 * SECOND, "5");
        assert_eq!(minute.take(Some(before), 0, exact("2")).unwrap().wait, Some(SECOND));
        assert!(minute.take(Some(before), 0, exact("1")).unwrap().allowed);
        // below what stands already: nothing passes until enough has drained
        let low = limit("1", SECOND, "1").take(Some(before), 0, exact("1")).unwrap();
        assert_eq!((low.allowed, low.wait, low.remaining), (false, Some(4 * SECOND), Exact::ZERO));
        let long = limit("1", PERIOD_MAX, "1000000000");
        let most = long.take(None, i64::MAX - 1, exact("999999999.999999")).unwrap().state;
        assert_eq!(long.drained_at(&most), i64::MAX);
        assert!(limit("1", 7, "1000000000").take(Some(most), i64::MAX, exact("0.000001")).unwrap().allowed);
    }

    #[test]
    fn limits_have_bounds() {
        for (rate, period, burst, good) in [
            ("0.000001", SECOND, "0.000001", true),
            ("1000000000", 1, "1000000000", true),
            ("1", PERIOD_MAX, "1", true),
            ("1.666666666666666666666666667", SECOND, "1", true),
            ("0", SECOND, "1", false),
            ("-1", SECOND, "1", false),
            ("1", 0, "1", false),
            ("1", -1, "1", false),
            ("1", PERIOD_MAX + 1, "1", false),
            ("0.0000001", PERIOD_MAX, "1", false),
            ("10000000000000000", SECOND, "1", false),
            ("1", SECOND, "0", false),
            ("1", SECOND, "0.0000001", false),
            ("1", SECOND, "1000000000.000001", false),
        ] {
            assert_eq!(
                Limit::new(exact(rate), period, exact(burst)).is_ok(),
                good,
                "{rate} {period} {burst}"
            );
        }
        for (cost, good) in [
            ("0", true),
            ("1000000000", true),
            ("-0.1", false),
            ("0.0000001", false),
            ("1000000000.1", false),
        ] {
            assert_eq!(limit("1", SECOND, "1").take(None, 0, exact(cost)).is_ok(), good, "{cost}");
        }
    }

    proptest! {
        /// A token bucket of `burst` tokens that refills at the rate, and the rule as it is written, both in fractions.
        #[test]
        fn equals_a_token_bucket_and_the_rule(
            rate in 1i64..5_000_000, period in 1i64..100_000_000, burst in 1i64..20_000_000,
            arrivals in prop::collection::vec((0i64..3_000_000, 0i64..6_000_000), 1..60),
        ) {
            let of = |millionths: i64| Exact::from_parts(i128::from(millionths), SCALE).unwrap();
            let limit = Limit::new(of(rate), period, of(burst)).unwrap();
            let ratio = |millionths: i64| Ratio::new(i128::from(millionths), ONE);
            let a_micro = ratio(rate).div(&Ratio::new(i128::from(period), 1)).unwrap();
            let t_of = |millionths: i64| ratio(millionths).div(&a_micro).unwrap();
            let (mut state, mut at) = (None, 0);
            let (mut tokens, mut filled_at) = (ratio(burst), 0);
            let mut tat: Option<Ratio> = None;
            for (gap, cost) in arrivals {
                at += gap;
                let outcome = limit.take(state, at, of(cost)).unwrap();
                // the bucket
                tokens = tokens.add(&a_micro.mul(&Ratio::new(i128::from(at - filled_at), 1)));
                filled_at = at;
                if ratio(burst).sub(&tokens).is_negative() {
                    tokens = ratio(burst);
                }
                let allowed = !tokens.sub(&ratio(cost)).is_negative();
                if allowed {
                    tokens = tokens.sub(&ratio(cost));
                }
                prop_assert_eq!(outcome.allowed, allowed);
                // the rule
                let t = Ratio::new(i128::from(at), 1);
                let from = match &tat {
                    Some(tat) if !tat.sub(&t).is_negative() => tat.clone(),
                    _ => t.clone(),
                };
                let then = from.add(&t_of(cost));
                let by_rule = !t_of(burst).sub(&then.sub(&t)).is_negative();
                prop_assert_eq!(outcome.allowed, by_rule);
                if by_rule {
                    tat = Some(then);
                }
                match outcome.wait {
                    Some(0) => prop_assert!(allowed),
                    Some(wait) => {
                        prop_assert!(!allowed);
                        let later = |wait| limit.take(Some(outcome.state), at + wait, of(cost)).unwrap().allowed;
                        prop_assert!(later(wait) && !later(wait - 1));
                    }
                    None => prop_assert!(cost > burst),
                }
                state = Some(outcome.state);
            }
        }

        /// Once a state has drained it may be forgotten: the answers are the same without it, and not a microsecond before.
        #[test]
        fn what_has_drained_says_nothing(
            rate in 1i64..5_000_000, period in 1i64..100_000_000, burst in 1i64..20_000_000, cost in 1i64..20_000_000, more in 1i64..20_000_000,
        ) {
            let of = |millionths: i64| Exact::from_parts(i128::from(millionths), SCALE).unwrap();
            let limit = Limit::new(of(rate), period, of(burst)).unwrap();
            let state = limit.take(None, 0, of(cost.min(burst))).unwrap().state;
            let free = limit.drained_at(&state);
            prop_assert_eq!(limit.take(Some(state), free, of(more)).unwrap(), limit.take(None, free, of(more)).unwrap());
            prop_assert!(limit.take(Some(state), free - 1, Exact::ZERO).unwrap().state.level > 0);
        }
    }
}
