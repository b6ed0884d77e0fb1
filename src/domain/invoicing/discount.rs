//! Discounts of lines (rules.md 1, order of adjustments): percents in order, then amounts, never below 0. They are inside
//! the line, so what is given back of it is what was really charged.

use super::compute::Line;
use super::inputs::{AmountOff, Inputs, PercentOff};
use crate::domain::foundation::json::Tree;
use crate::domain::foundation::{Exact, Fault, Ratio, allocate};

/// What a line is before its discounts, and which those are, in order.
#[derive(Debug, Clone)]
pub struct Undiscounted {
    pub exact: Ratio,
    pub amount: Exact,
    pub off: Vec<(String, Off)>,
}

#[derive(Debug, Clone)]
pub enum Off {
    Percent(Exact),
    Amount(Exact),
}

/// What percents leave of an amount.
pub fn net(gross: &Ratio, off: &[PercentOff]) -> Ratio {
    off.iter().fold(gross.clone(), |amount, off| amount.mul(&left(off.percent)))
}

/// 1 − percent/100.
fn left(percent: Exact) -> Ratio {
    Ratio::from(1i64).sub(&Ratio::from(percent).mul(&Ratio::new(1, 100)))
}

impl Undiscounted {
    pub fn of(exact: &Ratio, amount: Exact) -> Undiscounted {
        Undiscounted { exact: exact.clone(), amount, off: Vec::new() }
    }

    /// None where there is nothing off.
    pub fn by(
        exact: &Ratio,
        off: &[PercentOff],
        post: impl Fn(&Ratio) -> Result<Exact, Fault>,
    ) -> Result<Option<Box<Undiscounted>>, Fault> {
        if off.is_empty() {
            return Ok(None);
        }
        let percents = off.iter().map(|off| (off.key.clone(), Off::Percent(off.percent)));
        Ok(Some(Box::new(Undiscounted { off: percents.collect(), ..Undiscounted::of(exact, post(exact)?) })))
    }

    /// The fields of the document's line.
    pub fn fields(
        &self,
        line: &Line,
        minor_units: u32,
    ) -> Vec<(std::borrow::Cow<'static, str>, Tree<'static>)> {
        let off = self.off.iter().map(|(key, off)| {
            let how = match off {
                Off::Percent(percent) => ("percent_off", percent.to_string()),
                Off::Amount(amount) => ("amount_off", money(*amount, minor_units)),
            };
            Tree::object([("key", Tree::text(key.clone())), (how.0, Tree::text(how.1))])
        });
        let taken = self.amount.sub(line.amount).unwrap_or(Exact::ZERO);
        vec![
            ("list_exact".into(), Tree::text(self.exact.shown())),
            ("list_amount".into(), Tree::text(money(self.amount, minor_units))),
            ("discount".into(), Tree::text(money(taken, minor_units))),
            ("discounts".into(), Tree::List(off.collect())),
        ]
    }
}

fn money(amount: Exact, minor_units: u32) -> String {
    amount.to_fixed(minor_units).unwrap_or_else(|| amount.to_string())
}

/// Spreads amounts off over the lines in their scope and time, by what the lines have left, in the order of the lines.
pub fn spread_amounts<'l>(inputs: &Inputs, lines: impl Iterator<Item = &'l mut Line>) -> Result<(), Fault> {
    if inputs.amounts_off.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<&mut Line> = lines.collect();
    for AmountOff { key, scope, amount, from, until } in &inputs.amounts_off {
        let mut left = amount.round(inputs.minor_units, inputs.rounding_mode)?;
        // What is billed at the boundary before takes its part first.
        for elsewhere in [true, false] {
            let takes = |line: &Line| {
                line.elsewhere == elsewhere
                    && scope.holds(&line.charge, &line.product)
                    && line.from < *until
                    && line.until > *from
                    && !line.amount.is_negative()
                    && !line.amount.is_zero()
            };
            let places: Vec<usize> = (0..lines.len()).filter(|at| takes(lines[*at])).collect();
            let weights: Vec<Ratio> = places.iter().map(|at| Ratio::from(lines[*at].amount)).collect();
            let most = places.iter().try_fold(Exact::ZERO, |sum, at| sum.add(lines[*at].amount))?;
            let off = if Ratio::from(left) < Ratio::from(most) { left } else { most };
            for (at, part) in places.into_iter().zip(allocate(off, &weights, inputs.minor_units)?) {
                if !part.is_zero() {
                    lines[at].take_off(key, part)?;
                }
            }
            left = left.sub(off)?;
        }
    }
    Ok(())
}
