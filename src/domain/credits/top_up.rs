//! Automatic top-ups, and debt that the next credit pays off.

use super::rows::{Draw, Rows};
use crate::domain::foundation::{Exact, Fault, Ratio};
use chrono::{Datelike, NaiveDate};
use uuid::Uuid;

/// How much is bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// What brings the balance up to this.
    Target(Exact),
    /// Always this.
    Fixed(Exact),
}

/// A top-up rule; all amounts in the balance's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// It fires where the balance, that was not, is below this (as Stigg's and most; others fire at it, too).
    pub threshold: Exact,
    pub amount: Amount,
    /// Most in a calendar month of the customer's zone.
    pub monthly_cap: Option<Exact>,
}

/// What a rule remembers from one balance to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Downward crossings so far. The number of a crossing, with the rule's id, is the idempotency key of its top-up.
    pub crossings: u64,
    /// The balance was below the threshold when it was last seen.
    pub below: bool,
    /// The cap kept the last crossing from firing.
    pub waiting: bool,
    /// The first of the month that `bought` is of.
    pub month: Option<NaiveDate>,
    pub bought: Exact,
}

/// A top-up to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopUp {
    pub crossing: u64,
    pub amount: Exact,
}

impl Rule {
    /// Refuses a rule that could never bring the balance back up, or would fire with nothing to buy.
    pub fn check(&self) -> Result<(), Fault> {
        let wrong = match self.amount {
            Amount::Target(target) if target < self.threshold => {
                format!("target {target} is below the threshold {}", self.threshold)
            }
            Amount::Fixed(amount) if amount <= Exact::ZERO => format!("a top-up of {amount} buys nothing"),
            Amount::Fixed(amount) if self.monthly_cap.is_some_and(|cap| cap < amount) => {
                format!("a top-up of {amount} is above its monthly cap")
            }
            _ if self.monthly_cap.is_some_and(|cap| cap <= Exact::ZERO) => {
                "a monthly cap must be above 0".into()
            }
            _ => return Ok(()),
        };
        Err(Fault::value(wrong))
    }

    /// Looks at a balance: what is remembered then, and the top-up to make, if any. It fires once a crossing, however
    /// often one and the same balance is looked at, and not again before the balance was at the threshold or above:
    /// a payment may take days. A crossing that the cap kept from firing fires when a new month makes room, if the
    /// balance is still below. A target takes what the cap leaves, and where that leaves it below the threshold the rest
    /// is a crossing of its own, which waits for room; a fixed pack is bought whole or not.
    pub fn look(
        &self,
        memory: Memory,
        balance: Exact,
        today: NaiveDate,
    ) -> Result<(Memory, Option<TopUp>), Fault> {
        let mut next = memory.in_month(today);
        if balance >= self.threshold {
            (next.below, next.waiting) = (false, false);
            return Ok((next, None));
        }
        if !next.below {
            (next.below, next.waiting) = (true, true);
            next.crossings += 1;
        }
        if !next.waiting {
            return Ok((next, None));
        }
        let room = self.monthly_cap.map(|cap| cap.sub(next.bought)).transpose()?;
        let amount = match self.amount {
            Amount::Target(target) => {
                let wanted = target.sub(balance)?;
                room.map_or(wanted, |room| wanted.min(room))
            }
            Amount::Fixed(amount) if room.is_some_and(|room| room < amount) => Exact::ZERO,
            Amount::Fixed(amount) => amount,
        };
        if amount <= Exact::ZERO {
            return Ok((next, None));
        }
        let crossing = next.crossings;
        next.bought = next.bought.add(amount)?;
        next.waiting = matches!(self.amount, Amount::Target(_)) && balance.add(amount)? < self.threshold;
        next.crossings += u64::from(next.waiting);
        Ok((next, Some(TopUp { crossing, amount })))
    }
}

#[expect(clippy::new_without_default)]
impl Memory {
    /// Of a rule that has not looked yet: a balance that is low already is a crossing.
    pub fn new() -> Memory {
        Memory { crossings: 0, below: false, waiting: false, month: None, bought: Exact::ZERO }
    }

    /// A new month begins with nothing bought; a day of an earlier one, seen late, opens none again.
    fn in_month(self, today: NaiveDate) -> Memory {
        let month = today.with_day(1).expect("every month has a first");
        match self.month {
            Some(known) if month <= known => self,
            _ => Memory { month: Some(month), bought: Exact::ZERO, ..self },
        }
    }
}

/// New credit pays off debt first: what has to be posted where `block`, which holds `left`, comes after debts, the
/// oldest first. Each is what a block of the same unit owes, and the draws from it in burn order. The draws that went
/// furthest into debt move to the new block with their lines: so a void later gives it back there.
pub fn absorb(block: Uuid, left: Exact, debts: &[(Exact, Vec<Draw>)]) -> Result<Rows, Fault> {
    let (mut left, mut moved) = (left, Rows::default());
    for (owed, draws) in debts {
        let amount = left.min(*owed);
        if amount > Exact::ZERO {
            let back = last_drawn(draws, amount)?;
            let here = back.iter().map(|draw| Draw { block, ..draw.negated() });
            let rows = Rows { draws: here.chain(back.iter().cloned()).collect(), rests: Vec::new() };
            moved = moved.plus(&rows)?;
            left = left.sub(amount)?;
        }
    }
    Ok(moved)
}

/// What of draws, in burn order, is given back where an amount of them is: the last first. Negative.
fn last_drawn(draws: &[Draw], amount: Exact) -> Result<Vec<Draw>, Fault> {
    let whole = draws.iter().map(|draw| draw.amount).try_fold(Exact::ZERO, Exact::add)?;
    if amount > whole {
        return Err(Fault::value(format!("a debt of {amount} is more than the {whole} that was drawn")));
    }
    let mut left = amount;
    let mut back = Vec::new();
    for draw in draws.iter().rev().filter(|draw| !draw.amount.is_zero()) {
        if left.is_zero() {
            break;
        }
        let part = left.min(draw.amount);
        let share = Ratio::from(part).div(&draw.amount.into()).expect("the draw is not zero");
        back.push(Draw { quantity: draw.quantity.mul(&share).neg(), amount: part.neg(), ..draw.clone() });
        left = left.sub(part)?;
    }
    Ok(back)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{exact, id, ratio};
    use super::*;
    use proptest::prelude::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn rule(threshold: &str, amount: Amount, cap: Option<&str>) -> Rule {
        Rule { threshold: exact(threshold), amount, monthly_cap: cap.map(exact) }
    }

    /// What a rule buys over balances in turn: (crossing, amount).
    fn run(rule: Rule, balances: &[(&str, &str)]) -> Vec<(u64, String)> {
        assert_eq!(rule.check(), Ok(()));
        let mut memory = Memory::new();
        let look = |(date, balance): &(&str, &str)| {
            let (next, top_up) = rule.look(memory, exact(balance), day(date)).unwrap();
            memory = next;
            top_up.map(|t| (t.crossing, t.amount.to_string()))
        };
        balances.iter().filter_map(look).collect()
    }

    fn march(balances: &[&'static str]) -> Vec<(&'static str, &'static str)> {
        balances.iter().map(|balance| ("2026-03-05", *balance)).collect()
    }

    fn bought(list: &[(u64, &str)]) -> Vec<(u64, String)> {
        list.iter().map(|(crossing, amount)| (*crossing, amount.to_string())).collect()
    }

    #[test]
    fn fires_once_a_crossing() {
        let target = rule("20", Amount::Target(exact("50")), None);
        let balances = march(&["60", "20", "19.5", "15", "15", "-3", "19.99", "20", "10"]);
        assert_eq!(run(target, &balances), bought(&[(1, "30.5"), (2, "40")]));
        let fixed = rule("20", Amount::Fixed(exact("25")), None);
        assert_eq!(run(fixed, &balances), bought(&[(1, "25"), (2, "25")]));
        // A rule made when the balance is low already fires at once.
        assert_eq!(run(fixed, &march(&["5", "5"])), bought(&[(1, "25")]));
    }

    #[test]
    fn the_cap_holds_for_the_month() {
        let target = rule("20", Amount::Target(exact("50")), Some("45"));
        let both = [("2026-03-05", "10"), ("2026-03-06", "50"), ("2026-03-31", "10"), ("2026-03-31", "9")];
        assert_eq!(run(target, &both), bought(&[(1, "40"), (2, "5")]));
        // Cut so short that it is below still: the rest in April.
        let cut = [("2026-03-05", "10"), ("2026-03-06", "50"), ("2026-03-31", "10"), ("2026-03-31", "15")];
        let rest = [&cut[..], &[("2026-04-01", "15"), ("2026-04-02", "50"), ("2026-04-03", "19")]].concat();
        assert_eq!(run(target, &rest), bought(&[(1, "40"), (2, "5"), (3, "35"), (4, "10")]));
        let fixed = rule("20", Amount::Fixed(exact("25")), Some("40"));
        let april = [("2026-03-30", "11"), ("2026-04-01", "10"), ("2026-04-02", "10")];
        assert_eq!(run(fixed, &[&both[..3], &april[..]].concat()), bought(&[(1, "25"), (2, "25")]));
        // Back up before there was room: that crossing buys nothing any more.
        let back = [&both[..3], &[("2026-03-31", "30"), ("2026-04-01", "30"), ("2026-04-01", "10")]].concat();
        assert_eq!(run(fixed, &back), bought(&[(1, "25"), (3, "25")]));
        // A day of the month before, seen late, gives no new room.
        let late = [("2026-04-01", "10"), ("2026-04-01", "30"), ("2026-03-31", "10"), ("2026-04-02", "10")];
        assert_eq!(run(fixed, &late), bought(&[(1, "25")]));
    }

    #[test]
    fn refuses_rules_that_help_nobody() {
        for (rule, message) in [
            (rule("20", Amount::Target(exact("19")), None), "below the threshold 20"),
            (rule("20", Amount::Fixed(exact("0")), None), "buys nothing"),
            (rule("20", Amount::Fixed(exact("30")), Some("29")), "above its monthly cap"),
            (rule("20", Amount::Target(exact("30")), Some("0")), "must be above 0"),
        ] {
            assert!(rule.check().unwrap_err().message.contains(message), "{rule:?}");
        }
    }

    #[test]
    fn new_credit_pays_the_oldest_debt_first() {
        let draw = |line: &str, block: u128, amount: &str| Draw {
            line: line.into(),
            block: id(block),
            quantity: ratio(amount),
            amount: exact(amount),
        };
        // Block 1 held 4 and gave 14; block 2 held nothing.
        let debts = [
            (exact("10"), vec![draw("a", 1, "8"), draw("b", 1, "6")]),
            (exact("0"), vec![draw("a", 3, "1")]),
            (exact("5"), vec![draw("b", 2, "5")]),
        ];
        let moved = |left: &str| absorb(id(9), exact(left), &debts).unwrap().draws;
        let all = [
            draw("a", 9, "4"),
            draw("a", 1, "-4"),
            draw("b", 9, "11"),
            draw("b", 1, "-6"),
            draw("b", 2, "-5"),
        ];
        assert_eq!(moved("100"), all);
        assert_eq!(
            moved("7"),
            [draw("a", 9, "1"), draw("a", 1, "-1"), draw("b", 9, "6"), draw("b", 1, "-6")]
        );
        assert!(moved("0").is_empty());
    }

    proptest! {
        /// As many top-ups as crossings (what a cap cut off being one), each once, whatever is looked at twice, and never above the cap in a month.
        #[test]
        fn one_top_up_a_crossing(
            steps in proptest::collection::vec((-30i64..60, 0u64..20, 1usize..3), 1..60),
            fixed in any::<bool>(), cap in proptest::option::of(40i64..120)
        ) {
            let amount = if fixed { Amount::Fixed(exact("25")) } else { Amount::Target(exact("40")) };
            let rule = Rule { threshold: exact("20"), amount, monthly_cap: cap.map(Exact::from_i64) };
            let (mut memory, mut date) = (Memory::new(), day("2026-01-01"));
            let (mut crossings, mut was_below) = (0u64, false);
            let mut of_month = std::collections::BTreeMap::new();
            let mut fired = Vec::new();
            for (balance, days, times) in steps {
                date = date + chrono::Days::new(days);
                let below = balance < 20;
                crossings += u64::from(below && !was_below);
                was_below = below;
                for _ in 0..times {
                    let (next, top_up) = rule.look(memory, Exact::from_i64(balance), date).unwrap();
                    memory = next;
                    if let Some(top_up) = top_up {
                        prop_assert!(below && top_up.crossing == crossings);
                        fired.push(top_up.crossing);
                        let sum = of_month.entry((date.year(), date.month())).or_insert(Exact::ZERO);
                        *sum = sum.add(top_up.amount).unwrap();
                        // What the cap cut off is a crossing to come.
                        crossings += u64::from(
                            !fixed && top_up.amount.add(Exact::from_i64(balance)).unwrap() < exact("20"),
                        );
                    }
                }
                prop_assert_eq!(memory.crossings, crossings);
            }
            let mut once = fired.clone();
            once.dedup();
            prop_assert_eq!(&fired, &once);
            match cap {
                Some(cap) => prop_assert!(of_month.values().all(|sum| *sum <= Exact::from_i64(cap))),
                None => prop_assert_eq!(fired.len() as u64, crossings),
            }
        }
    }
}
