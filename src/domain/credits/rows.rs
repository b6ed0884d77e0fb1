//! Allocation rows: what each line drew from each block, and what is left of it to bill.

use super::ledger::{Entry, Kind};
use crate::domain::foundation::{Exact, Fault, Ratio, allocate};
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

/// The rows of settled usage, or a sum or difference of such sets; sorted by line. Settled, a line's draws stand in burn
/// order: that of its last draw from each block, so that the last is the first to be given back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub draws: Vec<Draw>,
    pub rests: Vec<Rest>,
}

impl Rows {
    /// What has to be posted where `was` stands and this should: rows of nothing left out.
    pub fn minus(&self, was: &Rows) -> Result<Rows, Fault> {
        self.plus(&was.negated())
    }

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

    fn negated(&self) -> Rows {
        Rows {
            draws: self.draws.iter().map(Draw::negated).collect(),
            rests: (self.rests.iter())
                .map(|rest| Rest {
                    quantity: rest.quantity.neg(),
                    amount: rest.amount.neg(),
                    line: rest.line.clone(),
                })
                .collect(),
        }
    }

    /// The ledger's entries for these rows, what is given back first: what one line gives back, another may need.
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |draw: &Draw| Entry {
            block: draw.block,
            kind: if draw.amount.is_negative() { Kind::Reinstated } else { Kind::Burnt },
            amount: draw.amount.abs(),
        };
        let moving = self.draws.iter().filter(|draw| !draw.amount.is_zero());
        let mut entries: Vec<Entry> = moving.map(entry).collect();
        entries.sort_by_key(|entry| entry.kind != Kind::Reinstated);
        entries
    }

    /// What one block gave.
    pub fn drawn_from(&self, block: Uuid) -> Result<Exact, Fault> {
        let of_block = self.draws.iter().filter(|draw| draw.block == block);
        of_block.map(|draw| draw.amount).try_fold(Exact::ZERO, Exact::add)
    }

    /// The quantities of a line's rows as decimals that sum to the line's (rules.md 0.6): its draws, then its rest.
    /// For settled rows; of differences, these are the differences.
    pub fn quantities(&self, line: &str, places: u32) -> Result<Vec<Exact>, Fault> {
        let draws = self.draws.iter().filter(|draw| draw.line == line).map(|draw| &draw.quantity);
        let rests = self.rests.iter().filter(|rest| rest.line == line).map(|rest| &rest.quantity);
        let parts: Vec<Ratio> = draws.chain(rests).cloned().collect();
        let whole = parts.iter().fold(Ratio::ZERO, |sum, part| sum.add(part));
        let total = whole.round(places, Default::default())?;
        if Ratio::from(total) != whole {
            return Err(Fault::value(format!("quantity {whole} has more than {places} decimals")));
        }
        allocate(total, &parts, places)
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
    fn a_difference_is_what_has_to_be_posted() {
        let was = Rows {
            draws: vec![draw("a", 1, "10", "5"), draw("b", 1, "4", "2"), draw("b", 2, "1", "1")],
            rests: vec![rest("b", "2", "3")],
        };
        let now = Rows {
            draws: vec![draw("a", 1, "12", "6"), draw("b", 1, "2", "1"), draw("b", 2, "1", "1")],
            rests: vec![rest("a", "1", "1"), rest("b", "4", "6")],
        };
        let difference = now.minus(&was).unwrap();
        let expected = Rows {
            draws: vec![draw("a", 1, "2", "1"), draw("b", 1, "-2", "-1")],
            rests: vec![rest("a", "1", "1"), rest("b", "2", "3")],
        };
        assert_eq!(difference, expected);
        assert_eq!(was.plus(&difference).unwrap(), now);
        assert_eq!(now.minus(&now).unwrap(), Rows::default());
        let entry = |kind, amount| Entry { block: id(1), kind, amount: exact(amount) };
        assert_eq!(difference.entries(), [entry(Kind::Reinstated, "1"), entry(Kind::Burnt, "1")]);
        assert_eq!(now.drawn_from(id(1)).unwrap(), exact("7"));
    }

    #[test]
    fn stored_quantities_sum_to_the_line() {
        let third = |block| Draw { quantity: Ratio::new(10, 3), ..draw("a", block, "0", "1") };
        let rows = Rows {
            draws: vec![third(1), third(2), draw("b", 1, "5", "5")],
            rests: vec![Rest { quantity: Ratio::new(10, 3), ..rest("a", "0", "1") }],
        };
        let texts = |line: &str| -> Vec<String> {
            rows.quantities(line, 4).unwrap().iter().map(Exact::to_string).collect()
        };
        assert_eq!(texts("a"), ["3.3334", "3.3333", "3.3333"]);
        assert_eq!(texts("b"), ["5"]);
        assert!(texts("none").is_empty());
        let odd = Rows { draws: vec![third(1)], rests: vec![] };
        assert!(odd.quantities("a", 4).unwrap_err().message.contains("more than 4 decimals"));
    }
}
