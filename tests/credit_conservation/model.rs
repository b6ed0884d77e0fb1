//! What a customer has of credit, as a person would keep it on paper.

use chrono::{Datelike, Duration, NaiveDate, NaiveDateTime};
use serde_json::Value;
use std::collections::BTreeMap;

/// All amounts are whole cents, of USD and of the customer's own unit alike.
pub(crate) type Cents = i64;

pub(crate) const CREDITS: &str = "credits";
pub(crate) const UNITS: [&str; 2] = ["USD", CREDITS];
pub(crate) const GRACE_DAYS: i64 = 2;
pub(crate) const CATEGORIES: [&str; 3] = ["promotional", "pilot", "paid"];

#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) key: String,
    pub(crate) unit: &'static str,
    pub(crate) granted: Cents,
    /// What of it came from other blocks.
    pub(crate) moved_in: Cents,
    pub(crate) left: Cents,
    pub(crate) burnt: Cents,
    pub(crate) expired: Cents,
    pub(crate) voided: Cents,
    pub(crate) refunded: Cents,
    pub(crate) rolled_out: Cents,
    pub(crate) priority: i64,
    /// Only for product `ai`.
    pub(crate) scoped: bool,
    pub(crate) category: usize,
    pub(crate) from: NaiveDateTime,
    pub(crate) until: Option<NaiveDateTime>,
    /// The most that lives on (none = all), and for how many months.
    pub(crate) rollover: Option<(Option<Cents>, u32)>,
    pub(crate) contract: Option<String>,
    pub(crate) pool: Option<usize>,
    pub(crate) ended: bool,
    pub(crate) void: bool,
}

impl Block {
    pub(crate) fn lives(&self, at: NaiveDateTime) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }

    pub(crate) fn standing(&self, now: NaiveDateTime) -> &'static str {
        match self.until {
            _ if self.void => "void",
            _ if self.ended => "expired",
            _ if now < self.from => "upcoming",
            Some(until) if until <= now => "pending_expiration",
            _ if self.left == 0 => "used",
            _ => "live",
        }
    }

    pub(crate) fn take(&mut self, amount: Cents) {
        self.left -= amount;
        self.burnt += amount;
    }
}

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) key: String,
    pub(crate) paid: Cents,
    pub(crate) credits: Cents,
    /// An invoice sold it, and stands.
    pub(crate) invoiced: bool,
}

#[derive(Debug)]
pub(crate) struct Used {
    pub(crate) at: NaiveDateTime,
    pub(crate) amount: Cents,
    pub(crate) billed: bool,
}

/// What the bill of a month drew.
#[derive(Debug)]
pub(crate) struct Bill {
    pub(crate) month: NaiveDateTime,
    pub(crate) amount: Cents,
    pub(crate) draws: Vec<(usize, Cents)>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) threshold: Cents,
    pub(crate) amount: Cents,
    pub(crate) price: Cents,
    pub(crate) lasts: Option<u32>,
    pub(crate) below: bool,
}

#[derive(Debug)]
pub(crate) struct Customer {
    pub(crate) key: String,
    /// It has a contract with usage, which credit pays for.
    pub(crate) uses: bool,
    pub(crate) contracts: Vec<String>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) pools: Vec<Pool>,
    pub(crate) used: Vec<Used>,
    pub(crate) bills: Vec<Bill>,
    pub(crate) billed_until: Option<NaiveDateTime>,
    pub(crate) rule: Option<Rule>,
    pub(crate) drawn: Option<(String, Cents, &'static str, Value)>,
}

impl Customer {
    /// The blocks that may pay, in the documented order, of which `left` is there.
    pub(crate) fn payers(
        &self,
        at: NaiveDateTime,
        unit: &str,
        ai: bool,
        contract: Option<&str>,
    ) -> Vec<usize> {
        let mut payers: Vec<usize> = (0..self.blocks.len())
            .filter(|n| {
                let b = &self.blocks[*n];
                b.unit == unit
                    && b.lives(at)
                    && (ai || !b.scoped)
                    && match (contract, &b.contract) {
                        (Some(asked), Some(own)) => asked == own,
                        _ => true,
                    }
            })
            .collect();
        payers.sort_by_key(|n| {
            let b = &self.blocks[*n];
            (b.priority, b.until.is_none(), b.until, !b.scoped, b.category, b.from, *n)
        });
        payers
    }

    /// What usage that is not billed draws from each block, hour by hour, and from which months it is.
    pub(crate) fn settled(&self, before: NaiveDateTime) -> BTreeMap<NaiveDateTime, Bill> {
        let mut left: Vec<Cents> = self.blocks.iter().map(|b| b.left).collect();
        let mut used: Vec<&Used> = self.used.iter().filter(|u| !u.billed && u.at < before).collect();
        used.sort_by_key(|u| u.at);
        let mut bills: BTreeMap<NaiveDateTime, Bill> = BTreeMap::new();
        for usage in used {
            let month = month(usage.at);
            let bill = bills.entry(month).or_insert_with(|| Bill { month, amount: 0, draws: Vec::new() });
            bill.amount += usage.amount;
            let mut owed = usage.amount;
            for n in self.payers(usage.at, "USD", true, Some(&self.contracts[0])) {
                let part = owed.min(left[n]);
                if part > 0 {
                    left[n] -= part;
                    owed -= part;
                    bill.draws.push((n, part));
                }
            }
        }
        bills
    }

    pub(crate) fn pending(&self) -> Vec<Cents> {
        let mut pending = vec![0; self.blocks.len()];
        for bill in self.settled(NaiveDateTime::MAX).values() {
            bill.draws.iter().for_each(|(n, amount)| pending[*n] += amount);
        }
        pending
    }

    pub(crate) fn free(&self) -> Vec<Cents> {
        self.blocks.iter().zip(self.pending()).map(|(b, pending)| b.left - pending).collect()
    }

    pub(crate) fn available(&self, unit: &str, now: NaiveDateTime) -> Cents {
        self.blocks
            .iter()
            .zip(self.free())
            .filter(|(b, _)| b.unit == unit && b.lives(now) && !b.void)
            .map(|(_, free)| free)
            .sum()
    }

    /// All that is waited for before the end of a block is posted.
    pub(crate) fn ends(&self, block: &Block, now: NaiveDateTime) -> bool {
        let Some(until) = block.until else { return false };
        let waits = self.uses
            && block.contract.as_ref().is_none_or(|contract| *contract == self.contracts[0])
            && self.billed_until.is_none_or(|billed| billed < until);
        !block.ended && !block.void && until + Duration::days(GRACE_DAYS) <= now && !waits
    }

    /// What has left a pool.
    pub(crate) fn released(&self, pool: usize) -> Cents {
        let of = self.blocks.iter().filter(|b| b.pool == Some(pool));
        of.map(|b| b.burnt + b.expired + b.refunded + b.voided).sum()
    }

    /// Gives back what a bill drew; an ended block keeps nothing of it.
    pub(crate) fn give_back(&mut self, bill: &Bill) {
        for (n, amount) in &bill.draws {
            let block = &mut self.blocks[*n];
            block.burnt -= amount;
            if block.ended {
                block.expired += amount;
            } else {
                block.left += amount;
            }
        }
    }
}

pub(crate) fn month(at: NaiveDateTime) -> NaiveDateTime {
    midnight(at.date().with_day(1).expect("a first"))
}

pub(crate) fn midnight(day: NaiveDate) -> NaiveDateTime {
    day.and_hms_opt(0, 0, 0).expect("midnight")
}

pub(crate) fn stamp(at: NaiveDateTime) -> String {
    format!("{}T{}Z", at.date(), at.time())
}

pub(crate) fn fixed(amount: Cents) -> String {
    format!("{}.{:02}", amount / 100, amount % 100)
}

/// paid × credits ÷ all credits, to the cent, half up.
pub(crate) fn worth(pool: &Pool, credits: Cents) -> Cents {
    let (paid, credits, all) = (i128::from(pool.paid), i128::from(credits), i128::from(pool.credits));
    Cents::try_from((2 * paid * credits + all) / (2 * all)).expect("money")
}
