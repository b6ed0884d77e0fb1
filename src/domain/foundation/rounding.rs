//! Rounding policies (rules.md 0.2, 0.3). An amount is rounded once, at the invoice line, from an exact ratio.

use super::fault::Fault;
use std::cmp::Ordering;

/// Policy `rounding_mode`. Both are symmetric: a credit is the mirror of its charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RoundingMode {
    /// Half away from zero, as `round(numeric, n)` of Postgres: 0.125 → 0.13, −0.125 → −0.13.
    #[default]
    HalfUp,
    /// Half to even: 0.125 → 0.12, 2.355 → 2.36.
    HalfEven,
}

impl RoundingMode {
    pub fn parse(text: &str) -> Result<RoundingMode, Fault> {
        match text {
            "half_up" => Ok(RoundingMode::HalfUp),
            "half_even" => Ok(RoundingMode::HalfEven),
            other => Err(Fault::value(format!("rounding mode \"{other}\" is not known"))
                .with_hint("Use half_up or half_even.")),
        }
    }

    /// `half` compares twice the remainder with the unit; `odd` says whether the kept digit is odd.
    pub(crate) fn rounds_away(self, half: Ordering, odd: bool) -> bool {
        match (half, self) {
            (Ordering::Greater, _) => true,
            (Ordering::Less, _) => false,
            (Ordering::Equal, RoundingMode::HalfUp) => true,
            (Ordering::Equal, RoundingMode::HalfEven) => odd,
        }
    }
}

/// Policy `rounding_level`: each line rounded by itself, or the invoice's total rounded and split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RoundingLevel {
    #[default]
    Line,
    Invoice,
}

impl RoundingLevel {
    pub fn parse(text: &str) -> Result<RoundingLevel, Fault> {
        match text {
            "line" => Ok(RoundingLevel::Line),
            "invoice" => Ok(RoundingLevel::Invoice),
            other => Err(Fault::value(format!("rounding level \"{other}\" is not known"))
                .with_hint("Use line or invoice.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::{Exact, Ratio};

    /// rules.md 1, "half-up vs half-even" and the yen and dinar cases.
    #[test]
    fn worked_numbers() {
        for (text, scale, up, even) in [
            ("0.125", 2, "0.13", "0.12"),
            ("-0.125", 2, "-0.13", "-0.12"),
            ("2.345", 2, "2.35", "2.34"),
            ("2.355", 2, "2.36", "2.36"),
            ("1234.5", 0, "1235", "1234"),
            ("1.2345", 3, "1.235", "1.234"),
            ("3.0864175", 2, "3.09", "3.09"),
        ] {
            let ratio = Ratio::from(Exact::parse(text).unwrap());
            assert_eq!(ratio.round(scale, RoundingMode::HalfUp).unwrap().to_string(), up);
            assert_eq!(ratio.round(scale, RoundingMode::HalfEven).unwrap().to_string(), even);
        }
    }
}
