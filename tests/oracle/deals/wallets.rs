//! Credit in a unit of its own, movement by movement: what is granted, bought, drawn, given back, rolled over and expired,
//! by docs/credits.md and rules.md 3.

use super::{Instant, Q, Rounding, q, round};
use num_traits::{Signed, Zero};

/// A block: granted at once, with terms of its own.
#[derive(Clone, Debug)]
pub struct Lot {
    pub key: String,
    pub from: Instant,
    pub until: Option<Instant>,
    pub granted: Q,
    pub left: Q,
    pub burnt: Q,
    pub expired: Q,
    pub refunded: Q,
    pub voided: Q,
    pub rolled: Q,
    pub priority: i64,
    /// promotional 0, pilot 1, paid 2.
    pub category: u8,
    /// None is for all.
    pub product: Option<String>,
    /// At most so much goes on, for so many months.
    pub rollover: Option<(Q, u32)>,
    pub pool: Option<usize>,
    pub ended: bool,
}

/// What a purchase cost, and promised; and what of it is gone.
#[derive(Clone, Debug)]
pub struct Pool {
    pub price: Q,
    pub credits: Q,
    pub out: Q,
}

/// When credit is bought by itself: below a threshold, a pack or up to a target, at most so much a month.
#[derive(Clone, Debug)]
pub struct Rule {
    pub least: Q,
    pub amount: Q,
    pub target: bool,
    pub cap: Option<Q>,
    /// The month looked at last, and what was bought in it.
    pub month: (i32, u32),
    pub bought: Q,
    /// Below the threshold when it was looked at last; and what could not be bought then.
    pub below: bool,
    pub waits: bool,
    pub crossings: usize,
}

impl Rule {
    /// What is bought now, with the number of its crossing.
    pub fn look(&mut self, available: &Q, month: (i32, u32)) -> Option<(usize, Q)> {
        if self.month != month {
            self.month = month;
            self.bought = q(0);
        }
        if *available >= self.least {
            self.below = false;
            self.waits = false;
            return None;
        }
        if self.below && !self.waits {
            return None;
        }
        if !self.below {
            self.crossings += 1;
            self.below = true;
        }
        let all = if self.target { &self.amount - available } else { self.amount.clone() };
        let room = self.cap.as_ref().map_or_else(|| all.clone(), |cap| cap - &self.bought);
        // A pack is bought whole, or next month; up to a target, what there is room for.
        let now = if self.target { all.min(room) } else { all };
        let fits = self.cap.as_ref().is_none_or(|cap| &self.bought + &now <= *cap) && now.is_positive();
        self.waits = !fits || available + &now < self.least;
        if !fits {
            return None;
        }
        self.bought += &now;
        self.below = self.waits;
        Some((self.crossings, now))
    }
}

#[derive(Clone, Debug)]
pub struct Wallet {
    pub customer: String,
    pub zone: String,
    pub currency: String,
    pub digits: u32,
    pub lots: Vec<Lot>,
    pub pools: Vec<Pool>,
    /// Keys of draws, with what they took.
    pub draws: Vec<(String, Q, Option<String>)>,
    pub rule: Option<Rule>,
    /// What was asked for credit, less what was given back.
    pub asked: Q,
}

impl Wallet {
    pub fn new(
        customer: String,
        zone: String,
        (currency, digits): (String, u32),
        rule: Option<Rule>,
    ) -> Wallet {
        let (lots, pools, draws) = (Vec::new(), Vec::new(), Vec::new());
        Wallet { customer, zone, currency, digits, lots, pools, draws, rule, asked: q(0) }
    }

    fn leave(&mut self, lot: usize, amount: &Q) {
        self.lots[lot].left -= amount;
        if let Some(pool) = self.lots[lot].pool {
            self.pools[pool].out += amount;
        }
    }

    /// What a draw may take: of those blocks that hold now and fit, in the order they are drawn.
    fn order(&self, now: Instant, product: Option<&str>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.lots.len())
            .filter(|n| {
                let lot = &self.lots[*n];
                lot.from <= now
                    && lot.until.is_none_or(|u| now < u)
                    && !lot.ended
                    && lot.left.is_positive()
                    && (lot.product.is_none() || lot.product.as_deref() == product)
            })
            .collect();
        order.sort_by_key(|n| {
            let l = &self.lots[*n];
            (l.priority, l.until.unwrap_or(Instant::MAX), l.product.is_none(), l.category, l.from, *n)
        });
        order
    }

    pub fn fits(&self, now: Instant, product: Option<&str>) -> Q {
        self.order(now, product).iter().map(|n| self.lots[*n].left.clone()).sum()
    }

    /// All that holds now, whatever it is for.
    pub fn available(&self, now: Instant) -> Q {
        let holds = |l: &&Lot| l.from <= now && l.until.is_none_or(|u| now < u);
        self.lots.iter().filter(holds).map(|l| l.left.clone()).sum()
    }

    /// Takes all of an amount, or says that there is not enough.
    pub fn draw(&mut self, now: Instant, amount: &Q, product: Option<&str>) -> Option<Vec<(String, Q)>> {
        if self.fits(now, product) < *amount {
            return None;
        }
        let mut left = amount.clone();
        let mut drawn = Vec::new();
        for n in self.order(now, product) {
            let part = left.clone().min(self.lots[n].left.clone());
            if part.is_positive() {
                self.leave(n, &part);
                self.lots[n].burnt += &part;
                drawn.push((self.lots[n].key.clone(), part.clone()));
                left -= part;
            }
        }
        Some(drawn)
    }

    /// What is given back in money for unused credits: their cost, so that all that ever leaves a pool sums to its price.
    pub fn refund(&mut self, lot: usize, amount: &Q) -> Q {
        let pool = self.lots[lot].pool.expect("what was paid for");
        let worth = |p: &Pool| round(&(&p.price * &p.out / &p.credits), self.digits, Rounding::HalfUp);
        let before = worth(&self.pools[pool]);
        let mut after = self.pools[pool].clone();
        after.out += amount;
        let money = worth(&after) - before;
        self.leave(lot, amount);
        self.lots[lot].refunded += amount;
        money
    }

    pub fn void(&mut self, lot: usize) {
        let amount = self.lots[lot].left.clone();
        self.leave(lot, &amount);
        self.lots[lot].voided = amount;
        self.lots[lot].ended = true;
    }

    /// Ends what is past its end; `months` tells when so many months after an instant are over.
    pub fn expire(&mut self, now: Instant, months: impl Fn(Instant, u32) -> Instant) {
        for n in 0..self.lots.len() {
            let lot = self.lots[n].clone();
            let Some(until) = lot.until.filter(|u| *u <= now && !lot.ended) else { continue };
            self.lots[n].ended = true;
            if lot.left.is_zero() {
                continue;
            }
            let mut rest = lot.left.clone();
            if let Some((cap, length)) = &lot.rollover {
                let on = cap.clone().min(lot.left.clone());
                rest -= &on;
                self.lots[n].rolled = on.clone();
                self.lots[n].left -= &on;
                let mut next = Lot {
                    key: format!("{}/rolled", lot.key),
                    from: until,
                    until: Some(months(until, *length)),
                    granted: on.clone(),
                    left: on,
                    rollover: None,
                    ended: false,
                    ..lot.clone()
                };
                for gone in [
                    &mut next.burnt,
                    &mut next.expired,
                    &mut next.refunded,
                    &mut next.voided,
                    &mut next.rolled,
                ] {
                    *gone = q(0);
                }
                self.lots.push(next);
            }
            self.leave(n, &rest);
            self.lots[n].expired = rest;
        }
        // What was rolled over may be past its new end, too.
        if self.lots.iter().any(|l| !l.ended && !l.left.is_zero() && l.until.is_some_and(|u| u <= now)) {
            self.expire(now, months);
        }
    }
}
