//! Allocation rows: what each line drew from each block, and what is left of it to bill.

use crate::domain::foundation::{Exact, Fault, Ratio};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What one line drew from one block.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    pub line: String,
    pub block: Uuid,
    /// Exact: a block may end inside a unit, at a place that no decimal has.
    pub quantity: Ratio,
    pub amount: Exact,
}

/// What of one line no credit covered: it is billed.
#[derive(Debug, Clone, PartialEq)]
pub struct Rest {
    pub line: String,
    pub quantity: Ratio,
    /// Rounded once, at the invoice line.
    pub amount: Ratio,
}

/// The rows of settled usage, or a sum of such sets; sorted by line. Settled, a line's draws stand in burn
/// order: that of its last draw from each block, so that the last is the first to be given back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub draws: Vec<Draw>,
    pub rests: Vec<Rest>,
}

impl Rows {
    /// Both, summed by line and block.
    pub fn plus(&self, other: &Rows) -> Result<Rows, Fault> {
        let (mut draws, mut rests): (Vec<Draw>, Vec<Rest>) = Default::default();
        let (mut of_draws, mut of_rests) = (BTreeMap::new(), BTreeMap::new());
        for draw in self.draws.iter().chain(&other.draws) {
            let place = *of_draws.entry((&draw.line, draw.block)).or_insert(draws.len());
            match draws.get_mut(place) {
                None => draws.push(draw.clone()),
                Some(sum) => {
                    sum.quantity = sum.quantity.add(&draw.quantity);
                    sum.amount = sum.amount.add(draw.amount)?;
                }
            }
        }
        for rest in self.rests.iter().chain(&other.rests) {
            let place = *of_rests.entry(&rest.line).or_insert(rests.len());
            match rests.get_mut(place) {
                None => rests.push(rest.clone()),
                Some(sum) => {
                    sum.quantity = sum.quantity.add(&rest.quantity);
                    sum.amount = sum.amount.add(&rest.amount);
                }
            }
        }
        draws.retain(|draw| !draw.quantity.is_zero() || !draw.amount.is_zero());
        rests.retain(|rest| !rest.quantity.is_zero() || !rest.amount.is_zero());
        // Stable, so the order inside a line is kept.
        draws.sort_by(|a, b| a.line.cmp(&b.line));
        rests.sort_by(|a, b| a.line.cmp(&b.line));
        Ok(Rows { draws, rests })
    }
}

impl Draw {
    /// The same, given back.
    pub fn negated(&self) -> Draw {
        Draw { quantity: self.quantity.neg(), amount: self.amount.neg(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{exact, id, ratio};
    use super::*;

    fn draw(line: &str, block: u128, quantity: &str, amount: &str) -> Draw {
        Draw { line: line.into(), block: id(block), quantity: ratio(quantity), amount: exact(amount) }
    }

    fn rest(line: &str, quantity: &str, amount: &str) -> Rest {
        Rest { line: line.into(), quantity: ratio(quantity), amount: ratio(amount) }
    }

    #[test]
    fn rows_sum_by_line_and_block() {
        let one = Rows {
            draws: vec![draw("b", 2, "1", "1"), draw("b", 1, "4", "2"), draw("a", 1, "10", "5")],
            rests: vec![rest("b", "2", "3")],
        };
        let other = Rows {
            draws: vec![draw("b", 2, "1", "1").negated(), draw("a", 1, "2", "1")],
            rests: vec![rest("a", "1", "1"), rest("b", "2", "3")],
        };
        let sum = Rows {
            draws: vec![draw("a", 1, "12", "6"), draw("b", 1, "4", "2")],
            rests: vec![rest("a", "1", "1"), rest("b", "4", "6")],
        };
        assert_eq!(one.plus(&other).unwrap(), sum);
    }
}
