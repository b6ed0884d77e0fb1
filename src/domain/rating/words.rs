//! A price in words, for people who read what they are about to sign.

use super::matrix::MatrixRow;
use super::percentage::Percentage;
use super::pricing::{Model, Pricing};
use super::tiers::{Tier, TierKind};
use crate::domain::foundation::Exact;

/// Most rows of a matrix that are told one by one.
const ROWS_TOLD: usize = 10;

/// `12345.5` as `12,345.50`: digits in threes, and two decimals where there is one.
pub fn number(value: Exact) -> String {
    let text = value.to_string();
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match fraction.len() {
        0 => format!("{sign}{grouped}"),
        1 => format!("{sign}{grouped}.{fraction}0"),
        _ => format!("{sign}{grouped}.{fraction}"),
    }
}

impl Pricing {
    /// What it costs, in the words of a sentence; `unit` is the currency of its amounts.
    pub fn in_words(&self, unit: &str) -> String {
        let money = |value: Exact| format!("{unit} {}", number(value));
        let terms = self.terms();
        let each =
            if terms.per == Exact::ONE { " each".to_string() } else { format!(" per {}", number(terms.per)) };
        let mut words = match self.model() {
            Model::Flat { amount } => money(*amount),
            Model::PerUnit { unit_price } => format!("{}{each}", money(*unit_price)),
            Model::Dynamic { multiplier, .. } if *multiplier == Exact::ONE => {
                "the amount of each event".to_string()
            }
            Model::Dynamic { multiplier, .. } => {
                format!("{} times the amount of each event", number(*multiplier))
            }
            Model::Package(package) => {
                format!(
                    "{} for every {}, in whole packages",
                    money(package.amount),
                    number(package.package_size)
                )
            }
            Model::Percentage(percentage) => percentage_in_words(percentage, &money),
            Model::Tiered { kind, tiers } => {
                let told: Vec<String> =
                    tiers.iter().map(|tier| tier_in_words(*kind, tier, &each, &money)).collect();
                let how = match kind {
                    TierKind::Volume => "for all units by their total, ",
                    TierKind::Stairstep => "by the total, ",
                    _ => "",
                };
                format!("{how}{}", told.join(", "))
            }
            Model::Matrix(_) => rows_in_words(self.rows(), unit),
        };
        if !terms.free_units.is_zero() {
            words += &format!(", the first {} free", number(terms.free_units));
        }
        if let Some(floor) = terms.unit_price_floor {
            words += &format!(", never below {} after discounts", money(floor));
        }
        if let Some(minimum) = terms.minimum {
            words += &format!(", at least {}", money(minimum));
        }
        if let Some(maximum) = terms.maximum {
            words += &format!(", at most {}", money(maximum));
        }
        words
    }
}

fn percentage_in_words(percentage: &Percentage, money: &impl Fn(Exact) -> String) -> String {
    let mut words = format!("{} percent", percent(percentage.rate));
    if !percentage.fixed.is_zero() {
        words += &format!(" plus {} per event", money(percentage.fixed));
    }
    if let Some(minimum) = percentage.per_event_minimum {
        words += &format!(", at least {} per event", money(minimum));
    }
    if let Some(maximum) = percentage.per_event_maximum {
        words += &format!(", at most {} per event", money(maximum));
    }
    if percentage.free_events > 0 {
        words += &format!(", the first {} events free of the fixed part", percentage.free_events);
    }
    if !percentage.free_amount.is_zero() {
        words += &format!(", the first {} free", money(percentage.free_amount));
    }
    words
}

fn rows_in_words(rows: &[MatrixRow], unit: &str) -> String {
    let told = rows.iter().take(ROWS_TOLD).map(|row| {
        let matched: Vec<String> =
            row.matched().iter().map(|(name, value)| format!("{name} {value}")).collect();
        let what = if matched.is_empty() { "otherwise".to_string() } else { matched.join(" and ") };
        format!("{what}: {}", row.pricing().in_words(unit))
    });
    let mut words = told.collect::<Vec<_>>().join("; ");
    if rows.len() > ROWS_TOLD {
        words += &format!("; and {} more prices", rows.len() - ROWS_TOLD);
    }
    words
}

fn percent(rate: Exact) -> String {
    let hundred = rate.mul(Exact::from_i64(100));
    hundred.map_or_else(|_| format!("{rate} × 100"), |percent| percent.to_string())
}

fn tier_in_words(kind: TierKind, tier: &Tier, each: &str, money: &dyn Fn(Exact) -> String) -> String {
    let mut parts = Vec::new();
    if let Some(price) = tier.price {
        parts.push(match (kind, tier.package_size) {
            (TierKind::GraduatedPercentage, _) => format!("{} percent", percent(price)),
            (_, Some(size)) => format!("{} for every {}", money(price), number(size)),
            _ => format!("{}{each}", money(price)),
        });
    }
    if let Some(flat) = tier.flat {
        parts.push(money(flat));
    }
    let mut words = match tier.up_to {
        Some(up_to) => format!("up to {} {}", number(up_to), parts.join(" plus ")),
        None => format!("above {}", parts.join(" plus ")),
    };
    if let Some(maximum) = tier.maximum {
        words += &format!(" (at most {})", money(maximum));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::testing::{exact, pricing};
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (value, words) in [
            ("0", "0"),
            ("999", "999"),
            ("1000", "1,000"),
            ("100000", "100,000"),
            ("1234567.5", "1,234,567.50"),
            ("0.0025", "0.0025"),
            ("-12345.25", "-12,345.25"),
        ] {
            assert_eq!(number(exact(value)), words);
        }
    }

    #[test]
    fn prices_are_told_by_model() {
        for (document, words) in [
            (r#"{"model":"flat","amount":"40000"}"#, "USD 40,000"),
            (
                r#"{"model":"per_unit","unit_price":"0.15","per":3600,"free_units":"5"}"#,
                "USD 0.15 per 3,600, the first 5 free",
            ),
            (
                r#"{"model":"per_unit","unit_price":"20","minimum":"100","maximum":"1000"}"#,
                "USD 20 each, at least USD 100, at most USD 1,000",
            ),
            (
                r#"{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05","flat_fee":"5"},{"unit_price":"0.01"}]}"#,
                "up to 1,000 USD 0.10 each, up to 10,000 USD 0.05 each plus USD 5, above USD 0.01 each",
            ),
            (
                r#"{"model":"volume","tiers":[{"up_to":"100","unit_price":"2"},{"unit_price":"1"}]}"#,
                "for all units by their total, up to 100 USD 2 each, above USD 1 each",
            ),
            (
                r#"{"model":"stairstep","tiers":[{"up_to":"25","amount":"100"}]}"#,
                "by the total, up to 25 USD 100",
            ),
            (
                r#"{"model":"package","package_size":"250","amount":"4"}"#,
                "USD 4 for every 250, in whole packages",
            ),
            (
                r#"{"model":"percentage","rate":"0.029","fixed":"0.3","per_event_minimum":"0.5","per_event_maximum":"25"}"#,
                "2.9 percent plus USD 0.30 per event, at least USD 0.50 per event, at most USD 25 per event",
            ),
            (
                r#"{"model":"graduated_percentage","tiers":[{"up_to":"2000","rate":"0.015","flat_fee":"5"},{"rate":"0.01"}]}"#,
                "up to 2,000 1.5 percent plus USD 5, above 1 percent",
            ),
            (
                r#"{"model":"matrix","dimensions":["model"],"per":1000,"rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{},"unit_price":"0.01"}]}"#,
                "model gpt-4: USD 0.03 per 1,000; otherwise: USD 0.01 per 1,000",
            ),
            (
                r#"{"model":"dynamic","amount_property":"cost","multiplier":"1.2"}"#,
                "1.20 times the amount of each event",
            ),
        ] {
            assert_eq!(pricing(document).in_words("USD"), words, "{document}");
        }
    }
}
