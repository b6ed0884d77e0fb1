//! Whatever happens to blocks in whatever order, no credit is lost or made: a random history of grants, usage, voids,
//! credit notes, refunds, expiry, roll-over, debt and top-ups, checked after every step against sums of its own.

use super::block::Rollover;
use super::expire::{Standing, expire, standing};
use super::reverse::{credit_note, refund, reinstate, void, void_grant};
use super::testing::{block, id, subject, usd};
use super::top_up::absorb;
use super::*;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::{Exact, Ratio, RoundingMode};
use proptest::prelude::*;
use std::collections::BTreeMap;
use uuid::Uuid;

#[derive(Debug, Clone)]
enum Step {
    Grant { credits: i64, paid: Option<i64>, lasts: Option<i64>, cap: Option<i64>, overdraft: usize },
    Use { price: i64, mode: Mode },
    Void { line: usize },
    Note { line: usize, percent: i64 },
    Refund { block: usize, percent: i64 },
    VoidGrant { block: usize },
    Wait { time: i64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    let mode = prop_oneof![Just(Mode::CreditThenInvoice), Just(Mode::CreditOnly), Just(Mode::AllowNegative)];
    let some = |range: std::ops::Range<i64>| proptest::option::of(range);
    prop_oneof![
        3 => (1i64..5000, some(0..9000), some(1..40), some(0..3000), 0usize..3).prop_map(
            |(credits, paid, lasts, cap, overdraft)| Step::Grant { credits, paid, lasts, cap, overdraft }
        ),
        6 => (0i64..4000, mode).prop_map(|(price, mode)| Step::Use { price, mode }),
        2 => (0usize..30).prop_map(|line| Step::Void { line }),
        2 => (0usize..30, 1i64..=100).prop_map(|(line, percent)| Step::Note { line, percent }),
        1 => (0usize..10, 1i64..=100).prop_map(|(block, percent)| Step::Refund { block, percent }),
        1 => (0usize..10).prop_map(|block| Step::VoidGrant { block }),
        3 => (1i64..15).prop_map(|time| Step::Wait { time }),
    ]
}

fn cents(n: i64) -> Exact {
    Exact::from_parts(n.into(), 2).unwrap()
}

fn percent(amount: Exact, percent: i64) -> Exact {
    Ratio::from(amount).mul(&Ratio::new(percent.into(), 100)).round(2, RoundingMode::HalfUp).unwrap()
}

/// Late events of a block may come for so long.
const GRACE: i64 = 5;

#[derive(Default)]
struct World {
    now: i64,
    blocks: Vec<Block>,
    balances: Vec<Balance>,
    ended: Vec<bool>,
    /// The draws of all lines that stand, and their names.
    posted: Rows,
    lines: Vec<String>,
    /// Every entry ever made.
    journal: Vec<Entry>,
    /// Per pool: credits that left it, and the money.
    released: BTreeMap<Uuid, (Exact, Exact)>,
}

impl World {
    fn post(&mut self, entry: Entry) {
        let at = self.blocks.iter().position(|block| block.id == entry.block).unwrap();
        self.balances[at].post(entry, self.blocks[at].overdraft).unwrap();
        self.journal.push(entry);
        let sign = match entry.kind {
            Kind::Granted | Kind::RolledOut | Kind::Voided => return,
            Kind::Reinstated => entry.amount.neg(),
            Kind::Burnt | Kind::Expired | Kind::Refunded => entry.amount,
        };
        // Debt is beyond the pool: it has no liability to release.
        let overdrawn = self.blocks[at].overdraft != Overdraft::None;
        if let Some(pool) = self.blocks[at].pool.as_ref().filter(|_| !overdrawn) {
            let (credits, money) = self.released.entry(pool.id).or_insert((Exact::ZERO, Exact::ZERO));
            let more = pool.release(*credits, sign, 2, RoundingMode::HalfUp).unwrap();
            (*credits, *money) = (credits.add(sign).unwrap(), money.add(more).unwrap());
        }
    }

    fn grant(&mut self, block: Block) {
        block.check().unwrap();
        self.journal.push(Entry { block: block.id, kind: Kind::Granted, amount: block.granted });
        self.balances.push(Balance::of(&block));
        self.blocks.push(block);
        self.ended.push(false);
    }

    fn left(&self, at: usize) -> Exact {
        self.balances[at].left().unwrap()
    }

    fn closes_at(&self, at: usize) -> Instant {
        Instant(self.blocks[at].expires_at.map_or(0, |end| end.0 + GRACE))
    }

    /// Posts draws that were given back.
    fn give_back(&mut self, draws: Vec<Draw>) {
        for draw in &draws {
            let at = self.blocks.iter().position(|block| block.id == draw.block).unwrap();
            let now = standing(&self.blocks[at], Instant(self.now), self.closes_at(at));
            // Pending in this world is what nobody has ended yet.
            let now = if self.ended[at] { now } else { Standing::Live };
            let entries = reinstate(draw, self.left(at), now).unwrap();
            entries.into_iter().for_each(|entry| self.post(entry));
        }
        self.posted = self.posted.plus(&Rows { draws, rests: vec![] }).unwrap();
    }

    fn line_draws(&self, line: usize) -> Vec<Draw> {
        let key = &self.lines[line];
        self.posted.draws.iter().filter(|draw| draw.line == *key).cloned().collect()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Grant { credits, paid, lasts, cap, overdraft } => {
                let n = self.journal.len() as u128 + 1;
                let pool = paid.map(|paid| Pool::new(id(n), usd(), cents(paid), cents(credits)).unwrap());
                let end = lasts.map(|lasts| Instant(self.now + lasts));
                let rollover = cap.zip(end).map(|(cap, end)| Rollover {
                    cap: Some(cents(cap)),
                    expires_at: Some(Instant(end.0 + 20)),
                });
                let overdraft = [Overdraft::None, Overdraft::None, Overdraft::UpTo(cents(500))][overdraft];
                self.grant(Block {
                    granted: cents(credits),
                    pool,
                    effective_at: Instant(self.now),
                    expires_at: end,
                    rollover,
                    overdraft,
                    ..block(n, "1")
                });
                self.pay_debts();
            }
            Step::Use { price, mode } => self.draw(price, mode),
            Step::Void { line } if line < self.lines.len() => self.give_back(void(&self.line_draws(line))),
            Step::Note { line, percent: share } if line < self.lines.len() => {
                let draws = self.line_draws(line);
                let whole = draws.iter().fold(Exact::ZERO, |sum, draw| sum.add(draw.amount).unwrap());
                let note = credit_note(&draws, Exact::ZERO, percent(whole, share)).unwrap();
                self.give_back(note.draws);
            }
            Step::Refund { block, percent: share } if block < self.blocks.len() => {
                let credits = percent(self.left(block), share);
                let pool = self.blocks[block].pool.clone();
                let released = pool.and_then(|pool| self.released.get(&pool.id)).map_or(Exact::ZERO, |r| r.0);
                let (block, balance) = (&self.blocks[block], &self.balances[block]);
                if let Ok((entry, _)) = refund(block, balance, credits, released, 2, RoundingMode::HalfUp) {
                    self.post(entry);
                }
            }
            Step::VoidGrant { block } if block < self.blocks.len() => {
                if let Ok(entry) = void_grant(&self.blocks[block], &self.balances[block]) {
                    self.post(entry);
                }
            }
            Step::Wait { time } => self.wait(time),
            _ => {}
        }
    }

    fn draw(&mut self, price: i64, mode: Mode) {
        let line = format!("line {:03}", self.lines.len());
        let subjects = [subject(&line, "ai", "tokens", "acme")];
        let (amount, key) = (Ratio::from(cents(price)), id(self.lines.len() as u128));
        let piece = Piece::at_rates((0, Instant(self.now), key), Exact::ONE, &amount, &amount);
        let open: Vec<Open> =
            (0..self.blocks.len()).map(|at| Open { block: &self.blocks[at], left: self.left(at) }).collect();
        let terms = Terms { mode, places: 2, rounding: RoundingMode::HalfUp };
        let settled = settle(&subjects, &[piece], &open, &Order::default(), &terms).unwrap();
        settled.rows.entries().into_iter().for_each(|entry| self.post(entry));
        let draws = Rows { draws: settled.rows.draws, rests: vec![] };
        self.posted = self.posted.plus(&draws).unwrap();
        self.lines.push(line);
    }

    fn pay_debts(&mut self) {
        let newest = self.blocks.len() - 1;
        let debts: Vec<(Exact, Vec<Draw>)> = (0..newest)
            .map(|at| {
                let draws = self.posted.draws.iter().filter(|draw| draw.block == self.blocks[at].id);
                (self.left(at).neg(), draws.cloned().collect())
            })
            .collect();
        let moved = absorb(self.blocks[newest].id, self.left(newest), &debts).unwrap();
        moved.entries().into_iter().for_each(|entry| self.post(entry));
        self.posted = self.posted.plus(&moved).unwrap();
    }

    fn wait(&mut self, time: i64) {
        self.now += time;
        for at in 0..self.blocks.len() {
            let rolled_id = id(self.journal.len() as u128 + 1);
            let (now, closes) = (Instant(self.now), self.closes_at(at));
            if self.ended[at] {
                continue;
            }
            if let Ok(end) = expire(&self.blocks[at], &self.balances[at], now, closes, rolled_id) {
                self.ended[at] = true;
                end.entries.into_iter().for_each(|entry| self.post(entry));
                if let Some(block) = end.rolled {
                    self.grant(block);
                }
            }
        }
    }

    fn sum(&self, block: Option<Uuid>, kind: Kind) -> Exact {
        let of_kind = self.journal.iter().filter(|entry| entry.kind == kind);
        of_kind
            .filter(|entry| block.is_none_or(|block| block == entry.block))
            .fold(Exact::ZERO, |sum, entry| sum.add(entry.amount).unwrap())
    }

    fn check(&self) {
        let mut whole = Exact::ZERO;
        for at in 0..self.blocks.len() {
            let (block, left) = (&self.blocks[at], self.left(at));
            let sum = |kind| self.sum(Some(block.id), kind);
            let credit = sum(Kind::Granted).add(sum(Kind::Reinstated)).unwrap();
            let debit = [Kind::Burnt, Kind::Expired, Kind::Voided, Kind::Refunded, Kind::RolledOut]
                .into_iter()
                .fold(Exact::ZERO, |all, kind| all.add(sum(kind)).unwrap());
            assert_eq!(left, credit.sub(debit).unwrap());
            let floor = if block.overdraft == Overdraft::None { Exact::ZERO } else { cents(-500) };
            assert!(floor <= left && left <= block.granted, "{left} of {}", block.granted);
            assert!(!self.ended[at] || left <= Exact::ZERO, "{left} after the end");
            // A block gave what stands in the rows: a void finds every credit at its own block.
            let used = self.balances[at].used().unwrap();
            assert_eq!(used, self.posted.drawn_from(block.id).unwrap());
            whole = whole.add(left).unwrap().add(used).unwrap();
        }
        // What moved to another block was granted there again.
        let rolled = self.blocks.iter().filter(|block| block.rolled_from.is_some());
        let rolled = rolled.fold(Exact::ZERO, |sum, block| sum.add(block.granted).unwrap());
        assert_eq!(self.sum(None, Kind::RolledOut), rolled);
        let gone = [Kind::Expired, Kind::Voided, Kind::Refunded].map(|kind| self.sum(None, kind));
        let gone = gone.into_iter().fold(Exact::ZERO, |sum, amount| sum.add(amount).unwrap());
        let granted = self.sum(None, Kind::Granted).sub(rolled).unwrap();
        assert_eq!(whole.add(gone).unwrap(), granted);
        // Money left each pool as its credits did, to the cent, in however many parts.
        for block in &self.blocks {
            if let Some((pool, (credits, money))) =
                block.pool.as_ref().and_then(|pool| Some((pool, self.released.get(&pool.id)?)))
            {
                assert_eq!(*money, pool.value(*credits).round(2, RoundingMode::HalfUp).unwrap());
            }
        }
    }
}

proptest! {
    #[test]
    fn no_credit_is_lost_or_made(steps in proptest::collection::vec(any_step(), 1..60)) {
        let mut world = World::default();
        for step in steps {
            world.step(step);
            world.check();
        }
    }
}
