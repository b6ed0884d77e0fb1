//! Settles usage against blocks: a function of the usage and the blocks alone, so any order of arrival and any split
//! into batches leads to the same rows.
//!
//! What came late is not squeezed in behind: all usage since the balances were taken is settled again, and the
//! difference is posted. A block then opens with what it holds now plus what is settled again drew from it
//! (`invoicing::settlement`); so what has expired, or was refunded meanwhile, is not spent once more.

use super::PLACES_MAX;
use super::block::Block;
use super::order::Order;
use super::rows::{Draw, Rest, Rows};
use super::scope::Subject;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::{Code, Exact, Fault, Ratio, RoundingMode};
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

/// What happens when credit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What is not covered is billed.
    CreditThenInvoice,
    /// A piece that is not covered as a whole is refused as a whole: nothing is drawn or billed. For calls that are
    /// decided once; settled again, a late piece may have the credit that a later one had.
    CreditOnly,
    /// When credit has ended, overdrafts are used in the same order; what is beyond them is billed.
    AllowNegative,
}

impl Mode {
    pub fn parse(text: &str) -> Result<Mode, Fault> {
        match text {
            "credit_then_invoice" => Ok(Mode::CreditThenInvoice),
            "credit_only" => Ok(Mode::CreditOnly),
            "allow_negative" => Ok(Mode::AllowNegative),
            other => Err(Fault::value(format!("settlement mode \"{other}\" is not known"))
                .with_hint("Use credit_then_invoice, credit_only or allow_negative.")),
        }
    }
}

/// Priced usage: one event on one line, or what a line has at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Its place in the list of subjects.
    pub subject: usize,
    pub at: Instant,
    pub event_key: Uuid,
    pub quantity: Exact,
    /// What it asks of credit, in the subject's unit. Of tiered prices: by its place in the tiers.
    pub price: Ratio,
}

/// A block and what it holds when settlement begins.
#[derive(Debug, Clone)]
pub struct Open<'a> {
    pub block: &'a Block,
    pub left: Exact,
}

/// How credits are counted, and what happens at their end.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub mode: Mode,
    /// Digits after the point of the unit's smallest part. A line asks for its exact total so far, rounded, less what
    /// it asked for already (rules.md 0.7); so a thousand pieces below the smallest part are not lost, and a line is
    /// settled as a whole, from its first piece.
    pub places: u32,
    pub rounding: RoundingMode,
}

/// How a piece is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way<'o> {
    pub order: &'o Order,
    pub mode: Mode,
}

/// What settlement leads to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settled {
    pub rows: Rows,
    /// What each block holds then, in the order they were given.
    pub left: Vec<Exact>,
    /// Line and event of each piece that [`Mode::CreditOnly`] refused, in order of time.
    pub refused: Vec<(String, Uuid)>,
    /// The part of each piece that no credit covered, in the order they were given.
    pub unpaid: Vec<Ratio>,
}

/// Settles in the order of (time, event key, line). For each piece: filter (same unit, scope, usage time inside the
/// block's), then sort by the order, then draw. A piece splits where a block ends, in proportion to what it costs.
pub fn settle(
    subjects: &[Subject],
    pieces: &[Piece],
    blocks: &[Open],
    order: &Order,
    terms: &Terms,
) -> Result<Settled, Fault> {
    settle_by(subjects, pieces, blocks, |_| Way { order, mode: terms.mode }, terms)
}

/// The same, where order and mode are those of the instant of a piece; lines go on over a change of them.
pub fn settle_by<'o>(
    subjects: &[Subject],
    pieces: &[Piece],
    blocks: &[Open],
    way: impl Fn(Instant) -> Way<'o>,
    terms: &Terms,
) -> Result<Settled, Fault> {
    check(subjects, pieces, blocks, terms)?;
    let payers_by = |order: &Order| -> Vec<Vec<usize>> {
        let mut by_order: Vec<usize> = (0..blocks.len()).collect();
        by_order.sort_by(|a, b| order.compare(blocks[*a].block, blocks[*b].block));
        let payers = |subject: &Subject| {
            let pays = |block: &Block| block.unit == subject.unit && block.scope.admits(subject);
            by_order.iter().copied().filter(|at| pays(blocks[*at].block)).collect()
        };
        subjects.iter().map(payers).collect()
    };

    let mut by_time: Vec<(usize, &Piece)> = pieces.iter().enumerate().collect();
    by_time.sort_by_key(|(_, piece)| (piece.at, piece.event_key, &subjects[piece.subject].line));
    let left = blocks.iter().map(|open| open.left).collect();
    let mut till = Till { blocks, left, lines: BTreeMap::new(), terms };
    let mut payers: Option<(&Order, Vec<Vec<usize>>)> = None;
    let mut refused = Vec::new();
    let mut unpaid = vec![Ratio::from(1i64); pieces.len()];
    for (place, piece) in by_time {
        let line = &subjects[piece.subject].line;
        let Way { order, mode } = way(piece.at);
        let (_, of_subjects) = match payers.take().filter(|(of, _)| *of == order) {
            Some(same) => payers.insert(same),
            None => payers.insert((order, payers_by(order))),
        };
        match till.draw(line, piece, &of_subjects[piece.subject], mode)? {
            Some(share) => unpaid[place] = share,
            None => refused.push((line.clone(), piece.event_key)),
        }
    }
    Ok(Settled { refused, unpaid, ..till.settled() })
}

/// What would settle to something, but not to what was meant.
fn check(subjects: &[Subject], pieces: &[Piece], blocks: &[Open], terms: &Terms) -> Result<(), Fault> {
    if terms.places > PLACES_MAX {
        return Err(Fault::value(format!(
            "credits have at most {PLACES_MAX} decimals, not {}",
            terms.places
        )));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = blocks.iter().find(|open| !seen.insert(open.block.id)) {
        return Err(Fault::value(format!("block {} stands twice", twice.block.id)));
    }
    if let Some(other) = subjects.iter().find(|subject| subject.unit != subjects[0].unit) {
        let units = format!("{:?} and {:?}", subjects[0].unit, other.unit);
        return Err(Fault::new(Code::Currency, format!("usage in {units} can't be settled together"))
            .with_hint("Settle each unit by itself: no block pays for two."));
    }
    let mut seen = HashSet::with_capacity(pieces.len());
    for piece in pieces {
        let line = &subjects.get(piece.subject).ok_or_else(|| Fault::value("a piece is of no subject"))?.line;
        let refuse = |why: &str| Fault::value(format!("event {} on line \"{line}\" {why}", piece.event_key));
        if !seen.insert((line, piece.event_key)) {
            return Err(refuse("stands twice"));
        }
        if piece.quantity.is_negative() || piece.price.is_negative() {
            return Err(refuse("is below 0").with_hint(
                "Events that were taken back are not settled at all; a line below 0 is credited by reversing draws.",
            ));
        }
    }
    Ok(())
}

/// What a line has asked for and drawn so far.
struct Line {
    exact: Ratio,
    posted: Exact,
    draws: Vec<Taken>,
    rest: Option<(Ratio, Ratio)>,
}

struct Taken {
    block: usize,
    amount: Exact,
    quantity: Ratio,
    /// When it was drawn from last.
    last: usize,
}

struct Till<'a> {
    blocks: &'a [Open<'a>],
    left: Vec<Exact>,
    lines: BTreeMap<&'a str, Line>,
    terms: &'a Terms,
}

/// What of a piece is not paid yet.
struct Unpaid {
    due: Exact,
    /// The part of the piece.
    share: Ratio,
}

impl<'a> Till<'a> {
    /// The part of the piece that nobody paid; none if it was refused.
    fn draw(
        &mut self,
        key: &'a str,
        piece: &Piece,
        payers: &[usize],
        mode: Mode,
    ) -> Result<Option<Ratio>, Fault> {
        let payers = || payers.iter().copied().filter(|at| self.blocks[*at].block.holds(piece.at));
        let funded: Vec<usize> = payers().filter(|at| self.left[*at] > Exact::ZERO).collect();
        let nothing = || Line { exact: Ratio::ZERO, posted: Exact::ZERO, draws: Vec::new(), rest: None };
        let line = self.lines.entry(key).or_insert_with(nothing);
        let exact = line.exact.add(&piece.price);
        let posted = exact.round(self.terms.places, self.terms.rounding)?;
        let mut unpaid = Unpaid { due: posted.sub(line.posted)?, share: Ratio::from(1i64) };
        if piece.price.is_zero() {
            unpaid.rest(piece, line);
            return Ok(Some(Ratio::from(1i64)));
        }
        if mode == Mode::CreditOnly {
            let credit = funded.iter().map(|at| self.left[*at]).try_fold(Exact::ZERO, Exact::add)?;
            // Credit that is used up pays for nothing, not even for what is too small to ask for any.
            if funded.is_empty() || credit < unpaid.due {
                return Ok(None);
            }
        }
        (line.exact, line.posted) = (exact, posted);
        for at in funded {
            let taken = unpaid.pay(piece, at, Some(self.left[at]), line)?;
            self.left[at] = self.left[at].sub(taken)?;
        }
        for at in payers().filter(|_| mode == Mode::AllowNegative) {
            let room = self.blocks[at].block.room_below(self.left[at])?;
            let taken = unpaid.pay(piece, at, room, line)?;
            self.left[at] = self.left[at].sub(taken)?;
        }
        let share = unpaid.share.clone();
        unpaid.rest(piece, line);
        Ok(Some(share))
    }

    fn settled(self) -> Settled {
        let mut rows = Rows::default();
        for (key, mut line) in self.lines {
            line.draws.sort_by_key(|taken| taken.last);
            rows.draws.extend(line.draws.into_iter().map(|taken| Draw {
                line: key.into(),
                block: self.blocks[taken.block].block.id,
                quantity: taken.quantity,
                amount: taken.amount,
            }));
            let rest = |(quantity, amount)| Rest { line: key.into(), quantity, amount };
            rows.rests.extend(line.rest.map(rest));
        }
        Settled { rows, left: self.left, ..Settled::default() }
    }
}

impl Unpaid {
    /// Draws as much as a block has room for (`None` = without end), and says how much that was.
    fn pay(
        &mut self,
        piece: &Piece,
        at: usize,
        room: Option<Exact>,
        line: &mut Line,
    ) -> Result<Exact, Fault> {
        if self.share.is_zero() || room == Some(Exact::ZERO) {
            return Ok(Exact::ZERO);
        }
        let amount = room.map_or(self.due, |room| room.min(self.due));
        let part = if amount == self.due {
            self.share.clone()
        } else {
            // The block ends here. Its last credit buys what it costs; only where rounding made more due than the
            // piece costs, and credit for all that it costs is there, the part is that of what is due.
            let part = Ratio::from(amount).div(&piece.price).expect("free pieces are not paid for");
            let of_due = || Ratio::from(amount).mul(&self.share).div(&self.due.into()).expect("more is due");
            if part < self.share { part } else { of_due() }
        };
        self.due = self.due.sub(amount)?;
        self.share = self.share.sub(&part);
        let quantity = Ratio::from(piece.quantity).mul(&part);
        let last = line.draws.iter().map(|taken| taken.last + 1).max().unwrap_or(0);
        match line.draws.iter_mut().find(|taken| taken.block == at) {
            None => line.draws.push(Taken { block: at, amount, quantity, last }),
            Some(taken) => {
                taken.amount = taken.amount.add(amount)?;
                taken.quantity = taken.quantity.add(&quantity);
                taken.last = last;
            }
        }
        Ok(amount)
    }

    /// What nobody paid is billed: at the same price what is still due, so that both parts sum to the line.
    fn rest(self, piece: &Piece, line: &mut Line) {
        if self.share.is_zero() {
            return;
        }
        let quantity = Ratio::from(piece.quantity).mul(&self.share);
        let (quantities, amounts) = line.rest.get_or_insert_default();
        (*quantities, *amounts) = (quantities.add(&quantity), amounts.add(&self.due.into()));
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
