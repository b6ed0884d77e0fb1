//! Policy `rounding_level = invoice`: the exact total is rounded once, and the lines sum to it.

use crate::domain::foundation::{Exact, Fault, Ratio, RoundingMode};

/// Rounds each line so that the lines sum to the rounded exact total: 3 × 33.335 → 33.34, 33.34, 33.33.
///
/// Every line starts at its own rounding; the few units that are then missing or too many go to the lines
/// whose rounding was furthest off. Ties: a unit goes to lines that it makes larger, the first one first, before
/// lines that it makes smaller, the last one first, so a credit mirrors its charge. Lines of both signs are fine.
pub fn round_to_total(exact: &[Ratio], scale: u32, mode: RoundingMode) -> Result<Vec<Exact>, Fault> {
    let total = exact.iter().fold(Ratio::ZERO, |sum, line| sum.add(line)).round(scale, mode)?;
    let mut lines = exact.iter().map(|line| line.round(scale, mode)).collect::<Result<Vec<_>, _>>()?;
    let sum = lines.iter().try_fold(Exact::ZERO, |sum, line| sum.add(*line))?;
    let missing = total.sub(sum)?;
    if missing.is_zero() {
        return Ok(lines);
    }
    let unit = Exact::from_parts(if missing.is_negative() { -1 } else { 1 }, scale).expect("a minor unit");
    let units = Ratio::from(missing).div(&Ratio::from(unit)).expect("a unit is not zero");
    let units = units.round(0, mode)?.to_i64().expect("as many units as lines at most");
    // How far each line is from its exact value in the direction of the correction.
    let gain = |at: usize| {
        let error = exact[at].sub(&Ratio::from(lines[at]));
        if missing.is_negative() { error.neg() } else { error }
    };
    let grows = |at: usize| exact[at].is_negative() == missing.is_negative();
    let mut order: Vec<(usize, Ratio)> = (0..lines.len()).map(|at| (at, gain(at))).collect();
    // Lines that grow come before those that shrink; the latter from the last.
    let place = |at: usize| if grows(at) { (false, at) } else { (true, usize::MAX - at) };
    order.sort_by(|(a, gain_a), (b, gain_b)| gain_b.cmp(gain_a).then(place(*a).cmp(&place(*b))));
    for (at, _) in order.iter().cycle().take(units as usize) {
        lines[*at] = lines[*at].add(unit)?;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rounded(lines: &[&str]) -> Vec<String> {
        let exact: Vec<Ratio> = lines.iter().map(|l| Ratio::from(Exact::parse(l).unwrap())).collect();
        round_to_total(&exact, 2, RoundingMode::HalfUp)
            .unwrap()
            .iter()
            .map(|l| l.to_fixed(2).unwrap())
            .collect()
    }

    /// definitions 9.
    #[test]
    fn worked_numbers() {
        assert_eq!(rounded(&["33.335", "33.335", "33.335"]), ["33.34", "33.34", "33.33"]);
        assert_eq!(rounded(&["-33.335", "-33.335", "-33.335"]), ["-33.34", "-33.34", "-33.33"]);
        assert_eq!(rounded(&["0.004", "0.004", "0.004"]), ["0.01", "0.00", "0.00"]);
        assert_eq!(rounded(&["0.01", "-0.01"]), ["0.01", "-0.01"]);
        assert_eq!(rounded(&["10.004", "-5.004", "0.004"]), ["10.00", "-5.00", "0.00"]);
        assert_eq!(rounded(&[]), [""; 0]);
    }

    proptest! {
        #[test]
        fn lines_sum_to_the_rounded_total(
            parts in proptest::collection::vec(-100_000i128..100_000, 0..60),
            of in prop_oneof![Just(7000), Just(200)], // in two hundredths every other line is a tie
        ) {
            let exact: Vec<Ratio> = parts.iter().map(|p| Ratio::new(*p, of)).collect();
            let total = exact.iter().fold(Ratio::ZERO, |s, l| s.add(l)).round(2, RoundingMode::HalfUp).unwrap();
            let lines = round_to_total(&exact, 2, RoundingMode::HalfUp).unwrap();
            prop_assert_eq!(lines.iter().fold(Exact::ZERO, |s, l| s.add(*l).unwrap()), total);
            for (line, exact) in lines.iter().zip(&exact) {
                let error = Ratio::from(*line).sub(exact);
                let error = if error.is_negative() { error.neg() } else { error };
                prop_assert!(error <= Ratio::new(1, 100));
            }
            let mirrored: Vec<Ratio> = exact.iter().map(Ratio::neg).collect();
            let mirrored = round_to_total(&mirrored, 2, RoundingMode::HalfUp).unwrap();
            prop_assert!(lines.iter().zip(&mirrored).all(|(a, b)| a.neg() == *b));
        }
    }
}
