//! What is left of a quota, and what becomes of a request for some of it.

use super::item::Mode;
use crate::domain::foundation::{Exact, Fault};

/// What becomes of a request, as `entitlement_check()` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Unlimited,
    SoftLimit,
    Overage,
    QuotaExceeded,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Unlimited => "unlimited",
            Verdict::SoftLimit => "soft_limit",
            Verdict::Overage => "overage",
            Verdict::QuotaExceeded => "quota_exceeded",
        }
    }
}

/// All or nothing: a request that would exceed the quota by one unit is refused whole where the limit is hard. What is reserved
/// counts as used.
pub fn decide(mode: Mode, quota: Option<Exact>, used: Exact, asked: Exact) -> Result<Verdict, Fault> {
    let Some(quota) = quota else { return Ok(Verdict::Unlimited) };
    Ok(match mode {
        _ if used.add(asked)? <= quota => Verdict::Allowed,
        Mode::Hard => Verdict::QuotaExceeded,
        Mode::Soft => Verdict::SoftLimit,
        Mode::Overage => Verdict::Overage,
    })
}

/// What of a window's quota was not used and rolls into the next one: not more than `cap`. `quota` is with what had rolled into the
/// window, so what is left of that rolls on, under the same cap.
pub fn rolled(quota: Exact, used: Exact, cap: Option<Exact>) -> Result<Exact, Fault> {
    let unused = quota.sub(used)?.max(Exact::from_i64(0));
    Ok(cap.map_or(unused, |cap| unused.min(cap)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn n(value: i64) -> Exact {
        Exact::from_i64(value)
    }

    #[test]
    fn the_last_unit_is_given_and_none_after_it() {
        let ask = |mode, used, asked| decide(mode, Some(n(5)), n(used), n(asked)).unwrap();
        assert_eq!(ask(Mode::Hard, 4, 1), Verdict::Allowed);
        assert_eq!(ask(Mode::Hard, 5, 1), Verdict::QuotaExceeded);
        assert_eq!(ask(Mode::Hard, 3, 3), Verdict::QuotaExceeded, "all or nothing");
        assert_eq!(ask(Mode::Soft, 5, 1), Verdict::SoftLimit);
        assert_eq!(ask(Mode::Overage, 5, 1), Verdict::Overage);
        assert_eq!(decide(Mode::Hard, Some(n(0)), n(0), n(1)).unwrap(), Verdict::QuotaExceeded, "0 = none");
        assert_eq!(decide(Mode::Hard, None, n(1_000_000), n(1)).unwrap(), Verdict::Unlimited);
    }

    #[test]
    fn what_was_not_used_rolls_over_up_to_the_cap() {
        assert_eq!(rolled(n(100), n(30), Some(n(50))).unwrap(), n(50));
        assert_eq!(rolled(n(100), n(70), Some(n(50))).unwrap(), n(30));
        assert_eq!(rolled(n(100), n(30), None).unwrap(), n(70));
        assert_eq!(rolled(n(100), n(130), Some(n(50))).unwrap(), n(0));
    }

    /// 100 a month, of which up to 150 roll over: 80, 50, 280 and 30 are used.
    #[test]
    fn what_had_rolled_over_rolls_on_under_the_cap() {
        let mut over = n(0);
        let mut quotas = Vec::new();
        for used in [80, 50, 280, 30] {
            quotas.push(n(100).add(over).unwrap());
            over = rolled(*quotas.last().unwrap(), n(used), Some(n(150))).unwrap();
        }
        assert_eq!((quotas, over), (vec![n(100), n(120), n(170), n(100)], n(70)));
    }

    proptest! {
        #[test]
        fn a_hard_quota_is_never_exceeded(quota in 0i64..1000, asks in prop::collection::vec(0i64..100, 0..60)) {
            let mut used = 0;
            for asked in asks {
                let verdict = decide(Mode::Hard, Some(n(quota)), n(used), n(asked)).unwrap();
                prop_assert_eq!(verdict == Verdict::Allowed, used + asked <= quota);
                if verdict == Verdict::Allowed {
                    used += asked;
                }
            }
            prop_assert!(used <= quota);
        }

        #[test]
        fn rolled_over_and_used_are_no_more_than_the_quota(quota in 0i64..1000, used in 0i64..2000, cap in 0i64..1000) {
            let over = rolled(n(quota), n(used), Some(n(cap))).unwrap();
            prop_assert!(!over.is_negative() && over <= n(cap));
            prop_assert!(over.add(n(used.min(quota))).unwrap() <= n(quota));
        }
    }
}
