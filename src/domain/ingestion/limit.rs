//! How many events a customer may send: so many a second, and so many at once.
//!
//! GCRA with T = 1/rate allows an event at t iff max(t, TAT) + T − t ≤ burst × T, and then TAT = max(t, TAT) + T. What is
//! kept here is not TAT, which few rates can say exactly, but (TAT − t) ÷ T: the events that have not drained yet. With
//! six decimals of rate and of time it has twelve, so nothing is ever rounded. n events are n times the rule: all or none.

use crate::domain::foundation::decimal::Exact;
use crate::domain::foundation::fault::Fault;
use crate::domain::foundation::instant::Instant;

/// Most events a second.
pub const RATE_MAX: i64 = 1_000_000;
/// Decimals of a rate.
pub const RATE_SCALE: u32 = 6;
/// Most events at once.
pub const BURST_MAX: i64 = 10_000_000;
/// Decimals of a level.
const LEVEL_SCALE: u32 = 12;
const EVENT: i128 = 1_000_000_000_000;

/// A customer's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Events in a million seconds, which is also 10⁻¹² events in a microsecond.
    drain: i128,
    burst: i64,
}

/// What has not drained at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    pub events: Exact,
    pub at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All of them may pass; what stands then.
    Pass(Level),
    /// None may pass now; in so many milliseconds they all may, if nothing else comes.
    Wait(i64),
    /// More than fit at once, ever.
    Never,
}

impl Limit {
    pub fn new(events_per_second: Exact, burst: i64) -> Result<Limit, Fault> {
        let drain = scaled(events_per_second, RATE_SCALE)
            .filter(|drain| (1..=i128::from(RATE_MAX) * 1_000_000).contains(drain))
            .ok_or_else(|| {
                Fault::value(format!("{events_per_second} events a second can't be a limit"))
                    .with_hint("Give more than 0 and at most 1,000,000, with at most 6 decimals.")
            })?;
        if !(1..=BURST_MAX).contains(&burst) {
            return Err(Fault::value(format!("a burst of {burst} events can't be"))
                .with_hint("Give 1 to 10,000,000 events that may come at once."));
        }
        Ok(Limit { drain, burst })
    }

    /// Whether `events` more may pass at an instant. A clock that was set back makes nothing drain.
    pub fn check(&self, before: Option<Level>, now: Instant, events: i64) -> Verdict {
        let Ok(events) = u32::try_from(events) else { return Verdict::Never };
        let burst = i128::from(self.burst) * EVENT;
        let (left, at) = match before {
            None => (0, now),
            Some(level) => {
                let stood = scaled(level.events, LEVEL_SCALE).unwrap_or(burst);
                let elapsed = (i128::from(now.0) - i128::from(level.at.0)).max(0);
                ((stood - elapsed * self.drain).max(0), now.max(level.at))
            }
        };
        let added = i128::from(events) * EVENT;
        let excess = left + added - burst;
        if added > burst {
            Verdict::Never
        } else if excess > 0 {
            // A millisecond drains 1,000 microseconds' worth.
            let wait = (excess + self.drain * 1000 - 1) / (self.drain * 1000);
            Verdict::Wait(i64::try_from(wait).unwrap_or(i64::MAX))
        } else {
            let events = Exact::from_parts(left + added, LEVEL_SCALE).expect("a level is at most a burst");
            Verdict::Pass(Level { events, at })
        }
    }
}

/// A number as so many units of 10^−scale; none if it has more decimals.
fn scaled(value: Exact, scale: u32) -> Option<i128> {
    let missing = scale.checked_sub(value.scale())?;
    value.mantissa().checked_mul(10_i128.pow(missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limit(rate: &str, burst: i64) -> Limit {
        Limit::new(Exact::parse(rate).unwrap(), burst).unwrap()
    }

    /// What passes of arrivals (milliseconds, events), one after the other.
    fn passes(limit: Limit, arrivals: &[(i64, i64)]) -> Vec<bool> {
        let mut level = None;
        let pass = |&(ms, events): &(i64, i64)| match limit.check(level, Instant(ms * 1000), events) {
            Verdict::Pass(after) => {
                level = Some(after);
                true
            }
            _ => false,
        };
        arrivals.iter().map(pass).collect()
    }

    /// 10/s, burst 5, arrivals (ms) 0×6, 100, 150, 200 → ✓✓✓✓✓✗✓✗✓
    #[test]
    fn the_worked_numbers() {
        let arrivals = [0, 0, 0, 0, 0, 0, 100, 150, 200].map(|ms| (ms, 1));
        let expected = [true, true, true, true, true, false, true, false, true];
        assert_eq!(passes(limit("10", 5), &arrivals), expected);
        // all or none
        assert_eq!(
            passes(limit("10", 5), &[(0, 4), (0, 2), (0, 1), (499, 5), (500, 5)]),
            [true, false, true, false, true]
        );
    }

    #[test]
    fn a_refusal_says_when() {
        let limit = limit("10", 5);
        let Verdict::Pass(full) = limit.check(None, Instant(0), 5) else { panic!() };
        assert_eq!(full.events, Exact::from_i64(5));
        assert_eq!(limit.check(Some(full), Instant(0), 1), Verdict::Wait(100));
        assert_eq!(limit.check(Some(full), Instant(1), 1), Verdict::Wait(100));
        assert_eq!(limit.check(Some(full), Instant(99_999), 1), Verdict::Wait(1));
        assert!(matches!(limit.check(Some(full), Instant(100_000), 1), Verdict::Pass(_)));
        assert_eq!(limit.check(Some(full), Instant(0), 5), Verdict::Wait(500));
        assert_eq!(limit.check(None, Instant(0), 6), Verdict::Never);
        assert_eq!(limit.check(None, Instant(0), i64::MAX), Verdict::Never);
        // nothing drains while the clock is behind, and nothing is forgotten
        assert_eq!(limit.check(Some(full), Instant(-1_000_000), 1), Verdict::Wait(100));
        // nothing at all may pass also when full: a call of duplicates
        assert_eq!(limit.check(Some(full), Instant(0), 0), Verdict::Pass(full));
    }

    #[test]
    fn thirds_do_not_drift() {
        // 3/s for a thousand seconds, as near to thirds as microseconds come: what stands never grows
        let limit = limit("3", 2);
        let mut level = None;
        for second in 0..1000 {
            for micros in [0, 333_334, 666_667] {
                match limit.check(level, Instant(second * 1_000_000 + micros), 1) {
                    Verdict::Pass(after) => level = Some(after),
                    other => panic!("{second} {micros}: {other:?}"),
                }
            }
        }
        assert_eq!(level.unwrap().events, Exact::parse("1.000001").unwrap());
    }

    #[test]
    fn limits_have_bounds() {
        for (rate, burst, good) in [
            ("0.000001", 1, true),
            ("1000000", 10_000_000, true),
            ("0", 1, false),
            ("-1", 1, false),
            ("0.0000001", 1, false),
            ("1000000.000001", 1, false),
            ("1", 0, false),
            ("1", 10_000_001, false),
        ] {
            assert_eq!(Limit::new(Exact::parse(rate).unwrap(), burst).is_ok(), good, "{rate} {burst}");
        }
    }

    proptest! {
        /// The rule as it is written, in rational numbers: TAT in units of 1/drain microseconds.
        #[test]
        fn agrees_with_gcra(
            rate in 1i64..5_000_000, burst in 1i64..20,
            arrivals in prop::collection::vec((0i64..3_000_000, 1i64..6), 1..60),
        ) {
            let limit = Limit { drain: i128::from(rate), burst };
            let (mut level, mut tat, mut at) = (None, i128::MIN / 4, 0);
            for (gap, events) in arrivals {
                at += gap;
                let t = i128::from(at) * i128::from(rate);
                let then = tat.max(t) + i128::from(events) * EVENT;
                let allowed = then - t <= i128::from(burst) * EVENT;
                match limit.check(level, Instant(at), events) {
                    Verdict::Pass(after) => {
                        prop_assert!(allowed);
                        level = Some(after);
                        tat = then;
                    }
                    Verdict::Wait(ms) => {
                        prop_assert!(!allowed);
                        let later = |ms: i64| limit.check(level, Instant(at + ms * 1000), events);
                        prop_assert!(matches!(later(ms), Verdict::Pass(_)));
                        prop_assert!(!matches!(later(ms - 1), Verdict::Pass(_)) || ms == 0);
                    }
                    Verdict::Never => prop_assert!(events > burst),
                }
            }
        }
    }
}
