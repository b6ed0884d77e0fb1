//! Splitting a rounded total so that the parts sum to it exactly (rules.md 0.6, largest remainder).

use super::decimal::Exact;
use super::fault::Fault;
use super::ratio::Ratio;
use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive};

/// Splits `total` over `weights` to `scale` digits. Each part is the exact share cut towards zero;
/// the units left over go to the largest remainders, ties by position. Negative totals mirror.
///
/// Weights that sum to zero (nothing to weigh by) count as equal. Negative weights are refused,
/// except that all may be negative (then their absolute values count).
pub fn allocate(total: Exact, weights: &[Ratio], scale: u32) -> Result<Vec<Exact>, Fault> {
    if weights.is_empty() {
        return if total.is_zero() {
            Ok(Vec::new())
        } else {
            Err(Fault::value(format!("{total} can't be split over no weights")))
        };
    }
    if total.scale() > scale {
        return Err(Fault::value(format!("{total} has more than {scale} digits after the point")));
    }
    let negative = weights.iter().any(Ratio::is_negative);
    if negative && weights.iter().any(|w| !w.is_negative() && !w.is_zero()) {
        return Err(Fault::value("weights of both signs can't split a total"));
    }
    let sum = weights.iter().fold(Ratio::ZERO, |sum, w| sum.add(w));
    let equal = vec![Ratio::from(1i64); if sum.is_zero() { weights.len() } else { 0 }];
    let (weights, sum) =
        if sum.is_zero() { (&equal[..], Ratio::from(weights.len() as u64)) } else { (weights, sum) };

    let sign = if total.is_negative() { -1 } else { 1 };
    let whole = Ratio::from(total.abs());
    let mut parts: Vec<(BigInt, Ratio)> = weights
        .iter()
        .map(|weight| whole.mul(weight).div(&sum).expect("the weights' sum is not zero").truncate(scale))
        .collect();
    let (units, _) = whole.truncate(scale);
    let given: BigInt = parts.iter().map(|(part, _)| part).sum();
    let mut left = (units - given).to_usize().expect("fewer units are left over than there are parts");
    debug_assert!(left < parts.len().max(1) && parts.iter().all(|(part, _)| !part.is_negative()));

    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|a, b| parts[*b].1.cmp(&parts[*a].1).then(a.cmp(b)));
    for i in order {
        if left == 0 {
            break;
        }
        parts[i].0 += 1;
        left -= 1;
    }
    parts
        .into_iter()
        .map(|(part, _)| {
            part.to_i128()
                .and_then(|m| Exact::from_parts(sign * m, scale))
                .ok_or_else(|| Fault::value("a part has more than 28 digits"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(total: &str, weights: &[i64]) -> Vec<String> {
        let weights: Vec<Ratio> = weights.iter().map(|w| Ratio::from(*w)).collect();
        allocate(Exact::parse(total).unwrap(), &weights, 2)
            .unwrap()
            .iter()
            .map(|part| part.to_fixed(2).unwrap())
            .collect()
    }

    /// rules.md 0.6, 4 and 6.
    #[test]
    fn worked_numbers() {
        assert_eq!(split("100.00", &[1, 1, 1]), ["33.34", "33.33", "33.33"]);
        assert_eq!(split("10.00", &[1, 2, 4]), ["1.43", "2.86", "5.71"]);
        assert_eq!(split("-10.00", &[1, 2, 4]), ["-1.43", "-2.86", "-5.71"]);
        assert_eq!(split("100000", &[50000, 30000, 25000]), ["47619.05", "28571.43", "23809.52"]);
        assert_eq!(split("20.00", &[10000, 5000, 3333]), ["10.91", "5.45", "3.64"]);
        assert_eq!(split("0.05", &[0, 0, 0]), ["0.02", "0.02", "0.01"]);
        assert_eq!(split("1.00", &[0, 5]), ["0.00", "1.00"]);
        assert!(allocate(Exact::ONE, &[Ratio::from(1i64), Ratio::from(-1i64)], 2).is_err());
        assert!(allocate(Exact::ONE, &[], 2).is_err());
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_whole_and_stay_within_a_unit(
            total in -1_000_000_000i128..1_000_000_000, scale in 0u32..6,
            weights in proptest::collection::vec(0i64..1_000_000, 1..40)
        ) {
            let total = Exact::from_parts(total, scale).unwrap();
            let ratios: Vec<Ratio> = weights.iter().map(|w| Ratio::from(*w)).collect();
            let parts = allocate(total, &ratios, scale).unwrap();
            let sum = parts.iter().fold(Exact::ZERO, |sum, p| sum.add(*p).unwrap());
            prop_assert_eq!(sum, total);
            let all: i64 = weights.iter().sum();
            if all > 0 {
                for (part, weight) in parts.iter().zip(&weights) {
                    let exact = Ratio::from(total).mul(&Ratio::new((*weight).into(), all.into()));
                    let error = exact.sub(&Ratio::from(*part));
                    let error = if error.is_negative() { error.neg() } else { error };
                    prop_assert!(error < Ratio::new(1, 10i128.pow(scale)));
                    prop_assert!(*weight != 0 || part.is_zero());
                }
            }
        }
    }
}
