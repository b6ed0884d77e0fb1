//! Commitments: what a customer promised to spend, what is missing of it, and how it is paid.

use super::scope::{Scope, Subject, Window};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::{Exact, Fault, Ratio, RoundingMode};
use uuid::Uuid;

/// What is due where less was spent than was committed: max(0, commitment − eligible spend).
pub fn true_up(committed: Exact, spend: Exact) -> Result<Exact, Fault> {
    Ok(committed.sub(spend)?.max(Exact::ZERO))
}

/// The instalments of a commitment, in proportion to `weights` (equal ones for equal instalments): each is the rounded
/// total up to it less what was asked before (rules.md 0.7), so that they sum to the commitment and the last takes what
/// is left.
pub fn instalments(
    committed: Exact,
    weights: &[Ratio],
    minor_units: u32,
    rounding: RoundingMode,
) -> Result<Vec<Exact>, Fault> {
    let sum = weights.iter().fold(Ratio::ZERO, |sum, weight| sum.add(weight));
    if weights.iter().any(Ratio::is_negative) || sum.is_zero() {
        return Err(Fault::value("instalments need weights, none of them negative"));
    }
    if committed.scale() > minor_units {
        return Err(Fault::value(format!("{committed} has more than {minor_units} decimals to pay")));
    }
    let (mut progress, mut asked) = (Ratio::ZERO, Exact::ZERO);
    let next = |weight: &Ratio| {
        progress = progress.add(weight);
        let due = Ratio::from(committed).mul(&progress).div(&sum).expect("the weights' sum is not zero");
        let due = due.round(minor_units, rounding)?;
        due.sub(std::mem::replace(&mut asked, due))
    };
    weights.iter().map(next).collect()
}

/// One of several commitments that the same spend may count for.
#[derive(Debug, Clone, PartialEq)]
pub struct Commitment {
    pub id: Uuid,
    /// Lower ones are filled first; of equal ones the older.
    pub priority: i32,
    pub committed: Exact,
    pub scope: Scope,
    pub period: Window,
}

/// An amount that was charged.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    pub subject: Subject,
    pub at: Instant,
    pub amount: Exact,
}

/// A commitment after the waterfall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    pub commitment: Uuid,
    pub filled: Exact,
    pub true_up: Exact,
}

/// Lets each charge fill the first commitment that it counts for, then the next with what is left of it (Zuora's
/// waterfall); so no charge counts twice. Charges go in order of time, then line; results by priority.
pub fn waterfall(commitments: &[Commitment], charges: &[Charge]) -> Result<Vec<Filled>, Fault> {
    let mut in_priority: Vec<&Commitment> = commitments.iter().collect();
    in_priority.sort_by_key(|commitment| (commitment.priority, commitment.id));
    let mut filled = vec![Exact::ZERO; in_priority.len()];
    let mut in_time: Vec<&Charge> = charges.iter().collect();
    in_time.sort_by_key(|charge| (charge.at, &charge.subject.line));
    for charge in in_time {
        if charge.amount.is_negative() {
            return Err(Fault::value(format!(
                "{} on line \"{}\" is below 0",
                charge.amount, charge.subject.line
            ))
            .with_hint("Take credits off the charge they are for first."));
        }
        let mut left = charge.amount;
        for (commitment, filled) in in_priority.iter().zip(&mut filled) {
            if commitment.period.holds(charge.at) && commitment.scope.matches(&charge.subject, charge.at) {
                let part = true_up(commitment.committed, *filled)?.min(left);
                (*filled, left) = (filled.add(part)?, left.sub(part)?);
            }
        }
    }
    let result = |(commitment, filled): (&&Commitment, Exact)| {
        let true_up = true_up(commitment.committed, filled)?;
        Ok(Filled { commitment: commitment.id, filled, true_up })
    };
    in_priority.iter().zip(filled).map(result).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, exact, id, ratio, set, subject};
    use super::*;
    use proptest::prelude::*;

    /// rules.md 3 D: 120,000 committed, 97,500 spent → 22,500; 131,000 → 0.
    #[test]
    fn worked_true_up() {
        assert_eq!(true_up(exact("120000"), exact("97500")).unwrap(), exact("22500"));
        assert_eq!(true_up(exact("120000"), exact("131000")).unwrap(), Exact::ZERO);
    }

    fn pay(committed: &str, weights: &[i64], minor_units: u32) -> Vec<String> {
        let weights: Vec<Ratio> = weights.iter().map(|weight| Ratio::from(*weight)).collect();
        let parts = instalments(exact(committed), &weights, minor_units, RoundingMode::HalfUp).unwrap();
        parts.iter().map(Exact::to_string).collect()
    }

    /// rules.md 10.5: 100,000 in 4 × 25,000; and 10.6's ramp of tokens.
    #[test]
    fn worked_instalments() {
        assert_eq!(pay("100000", &[1; 4], 2), ["25000"; 4]);
        assert_eq!(pay("150000", &[30, 50, 70], 2), ["30000", "50000", "70000"]);
        assert_eq!(pay("100", &[1; 3], 2), ["33.33", "33.34", "33.33"]);
        assert_eq!(pay("100", &[1; 3], 0), ["33", "34", "33"]);
        assert_eq!(pay("100", &[0, 1, 0], 2), ["0", "100", "0"]);
        let refused = |committed: &str, weights: &[Ratio]| {
            instalments(exact(committed), weights, 2, RoundingMode::HalfUp).unwrap_err().message
        };
        for weights in [&[][..], &[Ratio::ZERO], &[ratio("2"), ratio("-1")]] {
            assert!(refused("100", weights).contains("need weights"));
        }
        assert!(refused("0.001", &[ratio("1")]).contains("more than 2 decimals"));
    }

    fn commitment(n: u128, priority: i32, committed: &str) -> Commitment {
        Commitment {
            id: id(n),
            priority,
            committed: exact(committed),
            scope: Scope::default(),
            period: Window { from: at("2026-01-01"), until: at("2027-01-01") },
        }
    }

    fn charge(line: &str, on: &str, amount: &str) -> Charge {
        Charge { subject: subject(line, line, "tokens", "acme"), at: at(on), amount: exact(amount) }
    }

    fn fills(commitments: &[Commitment], charges: &[Charge]) -> Vec<(u128, String, String)> {
        let filled = waterfall(commitments, charges).unwrap();
        let texts = |f: &Filled| (f.commitment.as_u128(), f.filled.to_string(), f.true_up.to_string());
        filled.iter().map(texts).collect()
    }

    /// rules.md 3 D: A 1,000 first, B 200; charges 1,100 → A full, B 100, true-up 100, bill 1,200.
    #[test]
    fn worked_waterfall() {
        let commitments = [commitment(2, 2, "200"), commitment(1, 1, "1000")];
        let charges = [charge("a", "2026-02-01", "700"), charge("b", "2026-03-01", "400")];
        let filled = fills(&commitments, &charges);
        assert_eq!(filled, [(1, "1000".into(), "0".into()), (2, "100".into(), "100".into())]);
    }

    #[test]
    fn a_charge_fills_only_what_it_counts_for() {
        let mut narrow = commitment(1, 1, "100");
        narrow.scope.products = set(&["a"]);
        let commitments = [narrow, commitment(3, 2, "50"), commitment(2, 2, "50")];
        let charges = [
            charge("b", "2026-02-01", "70"),
            charge("a", "2026-02-01", "30"),
            charge("a", "2027-01-01", "1000"),
        ];
        assert_eq!(
            fills(&commitments, &charges),
            [(1, "30".into(), "70".into()), (2, "50".into(), "0".into()), (3, "20".into(), "30".into())]
        );
        assert!(waterfall(&commitments, &[charge("a", "2026-02-01", "-1")]).is_err());
        // Time decides who fills what is wanted by both.
        let mut order = [charge("b", "2026-02-02", "70"), charge("a", "2026-02-01", "130")];
        let filled = fills(&commitments, &order);
        assert_eq!(filled[0], (1, "100".into(), "0".into()));
        order.reverse();
        assert_eq!(fills(&commitments, &order), filled);
    }

    proptest! {
        #[test]
        fn instalments_sum_to_the_commitment(
            mantissa in 0i128..1_000_000_000, minor_units in 0u32..4, places in 0u32..4,
            weights in proptest::collection::vec(1i64..1000, 1..40)
        ) {
            let committed = Exact::from_parts(mantissa, minor_units.min(places)).unwrap();
            let weights: Vec<Ratio> = weights.iter().map(|weight| Ratio::from(*weight)).collect();
            let parts = instalments(committed, &weights, minor_units, RoundingMode::HalfEven).unwrap();
            prop_assert!(parts.iter().all(|part| !part.is_negative() && part.scale() <= minor_units));
            prop_assert_eq!(parts.iter().fold(Exact::ZERO, |sum, part| sum.add(*part).unwrap()), committed);
        }

        /// No charge counts twice, and where every charge counts for all, the bill is max(commitments, charges).
        #[test]
        fn the_bill_is_what_was_promised_or_spent(
            promised in proptest::collection::vec((0i64..500, 0i32..4), 1..6),
            spent in proptest::collection::vec(0i64..300, 0..10)
        ) {
            let commitments: Vec<Commitment> = promised.iter().enumerate()
                .map(|(n, (amount, priority))| commitment(n as u128, *priority, &amount.to_string())).collect();
            let charges: Vec<Charge> = spent.iter().enumerate()
                .map(|(n, amount)| charge(&n.to_string(), "2026-02-01", &amount.to_string())).collect();
            let filled = waterfall(&commitments, &charges).unwrap();
            let sum = |amounts: Vec<Exact>| amounts.into_iter().fold(Exact::ZERO, |sum, a| sum.add(a).unwrap());
            let (all, spend) = (promised.iter().map(|(amount, _)| amount).sum::<i64>(), spent.iter().sum::<i64>());
            prop_assert_eq!(sum(filled.iter().map(|f| f.filled).collect()), Exact::from_i64(all.min(spend)));
            let short = sum(filled.iter().map(|f| f.true_up).collect());
            prop_assert_eq!(short, Exact::from_i64((all - spend).max(0)));
        }
    }
}
