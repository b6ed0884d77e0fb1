//! Credits on bills: what the usage lines of a bill draw from the customer's blocks, by the time of the usage (rules.md 3).
//!
//! Each line is cut into what was used by hour (and where a block begins, ends or a window changes), and all hours of all
//! lines and legal entities are settled in one order of time. Blocks of a meter's unit come first: what they cover costs
//! nothing. Then blocks of the currency pay. What is beyond credit, or beyond what a postpaid commitment promised, where a
//! commitment has a price for that, or where units were covered, is a line of its own.
//!
//! Under credit_only nothing else pays: what no credit covers is shown, and costs nothing. Where the contract was amended,
//! the order and the mode are those that were in force when the usage happened.

use super::commitments::{Commitment, Spent};
use super::compute::{Line, LineKind};
use super::inputs::{ChargeKind, Inputs};
use super::purse::{Credit, Opened, Purse};
use crate::domain::contracts::overrides::Target;
use crate::domain::contracts::resolve::{Prices, Resolved, Scope as AgreedIn};
use crate::domain::credits::commitment::Commitment as Promise;
use crate::domain::credits::draw::{Mode, Open, Piece, Settled, Terms, settle as draw, settle_by};
use crate::domain::credits::{Block, Category, Order, Overdraft, PLACES_MAX, Subject};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Exact, Fault, Ratio, RoundingMode, allocate};
use crate::domain::metering::Dimensions;
use crate::domain::metering::dimensions::BILL_TO;
use crate::domain::rating::Pricing;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// What was used in an hour, or in a part of one.
#[derive(Debug, Clone)]
pub struct Hour {
    pub charge: String,
    pub at: Instant,
    /// Those of lines and those that blocks look at; `bill_to` where it is not the contract's own.
    pub dimensions: Dimensions,
    pub quantity: Exact,
}

/// The lines of one boundary, to be settled with those of others.
pub struct Part<'a> {
    pub inputs: &'a Inputs,
    pub hours: &'a [Hour],
    pub lines: &'a mut Vec<Line>,
    /// Usage is only known until then.
    pub usage_until: Option<Instant>,
    /// Legal entities of which nothing is settled in this boundary.
    pub given_up: BTreeSet<String>,
}

/// A period of a postpaid commitment, which usage fills before anything is beyond it.
pub struct Ceiling {
    /// A meter whose units it is in; none = money.
    pub measure: Option<String>,
    pub of: Promise,
}

/// What a contract promised, and what documents that are not settled again have filled of it.
#[derive(Default)]
pub struct Ceilings {
    pub of: Vec<Ceiling>,
    pub stands: Spent,
}

/// What settlement leads to.
#[derive(Debug, Clone, Default)]
pub struct Settlement {
    /// By part, in the order of lines, then of burning.
    pub credits: Vec<Vec<Credit>>,
    /// What each block then holds.
    pub left: Vec<Exact>,
    /// By part: whether each block could have paid for anything of it.
    pub relevant: Vec<Vec<bool>>,
}

/// Usage of a line at a time, at one price: cut where a tier ends, so that credit ends at an exact quantity.
struct Item {
    at: Instant,
    dimensions: Dimensions,
    /// What of it no credit in its own unit has covered.
    quantity: Exact,
    /// What that asks of the currency.
    price: Ratio,
    /// The part of both that no money has covered.
    unpaid: Ratio,
    /// Nothing but credit pays for it.
    credit_only: bool,
    /// The part that is beyond what commitments promised, by their measure.
    beyond: BTreeMap<Option<String>, Ratio>,
}

impl Item {
    fn is_refused(&self) -> bool {
        self.credit_only && !self.price.is_zero() && !self.unpaid.is_zero()
    }

    /// Leaves what its own unit did not cover.
    fn without_units(&mut self) -> Result<(), Fault> {
        let rest = Ratio::from(self.quantity).mul(&self.unpaid);
        self.quantity = rest.round(PLACES_MAX, RoundingMode::HalfUp)?;
        self.price = self.price.mul(&self.unpaid);
        self.unpaid = Ratio::from(1i64);
        Ok(())
    }
}

/// A line on its way.
struct Settling {
    part: usize,
    place: usize,
    subject: Subject,
    unit: Option<String>,
    items: Vec<Item>,
    /// What was drawn for it: block, quantity, amount; of its unit, then of the currency.
    units: Vec<Taken>,
    money: Vec<Taken>,
    /// What it asks of credit, as posted.
    ask: Exact,
    /// What of it filled commitments of money, as posted.
    filled: Exact,
}

impl Settling {
    /// What a maximum takes off it, on a line of its own: that nobody asks for, and the line keeps it.
    fn capped(&self, line: &Line) -> Result<Exact, Fault> {
        line.amount.sub(self.ask)
    }
}

struct Taken {
    block: usize,
    quantity: Ratio,
    amount: Exact,
}

/// Settles the lines of some boundaries of one contract, splitting those that credit covers in part only.
pub fn settle(purse: &Purse, ceilings: &Ceilings, parts: &mut [Part]) -> Result<Settlement, Fault> {
    let mut left: Vec<Exact> = purse.blocks.iter().map(|opened| opened.left).collect();
    let mut relevant = vec![vec![false; left.len()]; parts.len()];
    let mut lines = Vec::new();
    for (part, of) in parts.iter().enumerate() {
        lines.extend(settling(purse, ceilings, part, of)?);
    }
    let Some(inputs) = parts.first().map(|part| part.inputs) else { return Ok(Settlement::default()) };
    let currency = inputs.header.currency.clone();
    let mut units: Vec<&str> = purse.blocks.iter().map(|opened| opened.unit.as_str()).collect();
    units.retain(|unit| *unit != currency);
    units.sort_unstable();
    units.dedup();
    // Of each piece it is that of its instant.
    let terms = |places, rounding| Terms { mode: Mode::CreditThenInvoice, places, rounding };
    for unit in units {
        let of = |line: &Settling| line.unit.as_deref() == Some(unit);
        let price = |item: &Item| Ratio::from(item.quantity).mul(&item.unpaid);
        let terms = terms(PLACES_MAX, RoundingMode::HalfUp);
        for (line, taken) in stage(purse, unit, &mut lines, (of, price), &terms, &mut left, &mut relevant)? {
            lines[line].units.push(taken);
        }
    }
    for line in lines.iter_mut().filter(|line| !line.units.is_empty()) {
        line.items.iter_mut().try_for_each(Item::without_units)?;
    }
    let of = |_: &Settling| true;
    let price = |item: &Item| item.price.mul(&item.unpaid);
    let terms = terms(inputs.minor_units, inputs.rounding_mode);
    for (line, taken) in stage(purse, &currency, &mut lines, (of, price), &terms, &mut left, &mut relevant)? {
        lines[line].money.push(taken);
    }
    fill(ceilings, &mut lines, (inputs.minor_units, inputs.rounding_mode))?;
    let mut credits = Vec::new();
    for (at, part) in parts.iter_mut().enumerate() {
        let of_part: HashMap<usize, &Settling> =
            lines.iter().filter(|line| line.part == at).map(|line| (line.place, line)).collect();
        credits.push(finish(purse, part, &of_part)?);
    }
    Ok(Settlement { credits, left, relevant })
}

/// What no credit paid fills the commitments that count it, in order of time, with what stands on other documents.
fn fill(
    ceilings: &Ceilings,
    lines: &mut [Settling],
    (places, rounding): (u32, RoundingMode),
) -> Result<(), Fault> {
    let measures: BTreeSet<&Option<String>> = ceilings.of.iter().map(|ceiling| &ceiling.measure).collect();
    for measure in measures {
        let mut of: Vec<&Promise> = Vec::new();
        of.extend(ceilings.of.iter().filter(|c| c.measure == *measure).map(|ceiling| &ceiling.of));
        of.sort_by_key(|promise| (promise.priority, promise.id));
        let blocks: Vec<Block> = of.iter().enumerate().map(|(at, promise)| as_block(at, promise)).collect();
        let opened: Vec<Open> =
            blocks.iter().zip(&of).map(|(block, promise)| Open { block, left: promise.committed }).collect();
        let (mut subjects, mut pieces, mut of_pieces) = (Vec::new(), Vec::new(), Vec::new());
        let mut add = |subject: Subject, at, quantity, price, of| {
            // What costs nothing fills nothing.
            if !Ratio::is_zero(&price) {
                let event_key = Uuid::from_u128(pieces.len() as u128);
                pieces.push(Piece { subject: subjects.len(), at, event_key, quantity, price });
                subjects.push(subject);
                of_pieces.push(of);
            }
        };
        for (n, charge) in ceilings.stands.charges(measure.as_deref())?.into_iter().enumerate() {
            let subject = Subject { line: format!("stands/{n}"), ..charge.subject };
            add(subject, charge.at, Exact::ZERO, charge.amount.into(), None);
        }
        let counts = |line: &Settling| measure.as_ref().is_none_or(|meter| line.subject.meter == *meter);
        for (line, at) in in_order_of_time(lines, counts) {
            let (of, item) = (&lines[line], &lines[line].items[at]);
            if item.credit_only {
                continue; // what no credit paid is paid by nothing
            }
            let quantity = Ratio::from(item.quantity).mul(&item.unpaid);
            let price = if measure.is_some() { quantity.clone() } else { item.price.mul(&item.unpaid) };
            let subject = Subject { dimensions: item.dimensions.clone(), ..of.subject.clone() };
            add(subject, item.at, quantity.round(PLACES_MAX, RoundingMode::HalfUp)?, price, Some((line, at)));
        }
        let places = if measure.is_some() { PLACES_MAX } else { places };
        let terms = Terms { mode: Mode::CreditThenInvoice, places, rounding };
        let settled = draw(&subjects, &pieces, &opened, &Order::default(), &terms)?;
        for (of, unpaid) in of_pieces.iter().zip(settled.unpaid) {
            let Some((line, at)) = *of else { continue };
            let item = &mut lines[line].items[at];
            item.beyond.insert(measure.clone(), item.unpaid.mul(&unpaid));
        }
        if measure.is_none() {
            for taken in settled.rows.draws {
                if let Some(line) = lines.iter_mut().find(|line| line.subject.line == taken.line) {
                    line.filled = line.filled.add(taken.amount)?;
                }
            }
        }
    }
    Ok(())
}

/// A promise as what usage draws from, the `at`th in the order in which they are filled.
fn as_block(at: usize, promise: &Promise) -> Block {
    Block {
        id: Uuid::from_u128(at as u128),
        unit: Unit::NONE,
        category: Category::Paid,
        granted: Exact::ONE,
        pool: None,
        priority: at as i32,
        scope: promise.scope.clone(),
        effective_at: promise.period.from,
        expires_at: Some(promise.period.until),
        rollover: None,
        overdraft: Overdraft::None,
        rolled_from: None,
    }
}

/// The items of some lines, each by its places. Of one hour by line: the same whatever came first.
fn in_order_of_time(lines: &[Settling], of: impl Fn(&Settling) -> bool) -> Vec<(usize, usize)> {
    let mut order: Vec<(usize, usize)> = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| of(line)) {
        order.extend((0..line.items.len()).map(|item| (at, item)));
    }
    order.sort_by_key(|(line, item)| {
        let (of, item) = (&lines[*line], &lines[*line].items[*item]);
        (item.at, of.part, of.place, item.dimensions.clone())
    });
    order
}

/// The lines that credit or a commitment may have to do with.
fn settling(purse: &Purse, ceilings: &Ceilings, part: usize, of: &Part) -> Result<Vec<Settling>, Fault> {
    let asks = asks(of)?;
    let mut lines = Vec::new();
    for (place, line) in of.lines.iter().enumerate() {
        let (Some((posted, ask)), Some(meter)) = (&asks[place], &line.meter) else { continue };
        if purse.held.contains(&line.bill_to) || of.given_up.contains(&line.bill_to) {
            continue;
        }
        let currency = &of.inputs.header.currency;
        let what = (line.product.as_str(), meter.as_str(), line.unit.as_deref());
        let beyond = of.inputs.commitments.iter().any(|commitment| commitment.has_overage(line));
        let counted = !ceilings.of.is_empty() || purse.only_credit_in((line.from, line.until));
        if !purse.may_pay(currency, what, (line.from, line.until)) && !beyond && !counted {
            continue;
        }
        let subject = Subject {
            line: format!("{part}/{place}"),
            product: line.product.clone(),
            meter: meter.clone(),
            dimensions: Dimensions::new(),
            bill_to: line.bill_to.clone(),
            unit: Unit::NONE,
        };
        let mut items = items(of, line, ask)?;
        items.iter_mut().for_each(|item| item.credit_only = purse.mode_at(item.at) == Some("credit_only"));
        let unit = line.unit.clone();
        let (units, money, filled) = (Vec::new(), Vec::new(), Exact::ZERO);
        lines.push(Settling { part, place, subject, unit, items, units, money, ask: *posted, filled });
    }
    Ok(lines)
}

/// What each usage line asks of credit, posted and exact: its amount, less its part of what a maximum takes off.
fn asks(part: &Part) -> Result<Vec<Option<(Exact, Ratio)>>, Fault> {
    let usage = |line: &Line| line.kind == LineKind::Usage && !line.amount.is_negative();
    let mut posted: Vec<Option<Exact>> =
        part.lines.iter().map(|line| usage(line).then_some(line.amount)).collect();
    for cap in part.lines.iter().filter(|line| line.kind == LineKind::Cap) {
        let capped = |line: &Line| {
            line.charge == cap.charge
                && line.from >= cap.from
                && line.until <= cap.until
                && line.dimensions.matches(&cap.dimensions)
        };
        let places: Vec<usize> =
            (0..posted.len()).filter(|at| posted[*at].is_some() && capped(&part.lines[*at])).collect();
        let amounts: Vec<Exact> = places.iter().filter_map(|at| posted[*at]).collect();
        let whole = amounts.iter().try_fold(cap.amount, |sum, amount| sum.add(*amount))?.max(Exact::ZERO);
        let weights: Vec<Ratio> = amounts.into_iter().map(Ratio::from).collect();
        for (at, amount) in places.iter().zip(allocate(whole, &weights, part.inputs.minor_units)?) {
            posted[*at] = Some(amount);
        }
    }
    let (places, mode) = (part.inputs.minor_units, part.inputs.rounding_mode);
    let ask = |(line, posted): (&Line, Option<Exact>)| {
        let Some(posted) = posted else { return Ok(None) };
        // Exact, where rounding it leads to what is posted: a block ends at an exact quantity.
        let same = posted == line.amount && line.exact.round(places, mode)? == posted;
        Ok(Some((posted, if same { line.exact.clone() } else { posted.into() })))
    };
    part.lines.iter().zip(posted).map(ask).collect()
}

/// A line by time. What does not add up in time is known at its period's end, and counts there.
fn items(part: &Part, line: &Line, ask: &Ratio) -> Result<Vec<Item>, Fault> {
    let item = |at, dimensions, quantity, price| {
        let (unpaid, beyond) = (Ratio::from(1i64), BTreeMap::new());
        Item { at, dimensions, quantity, price, unpaid, credit_only: false, beyond }
    };
    let default = &part.inputs.header.bill_to;
    let mut used: Vec<(Instant, Dimensions, Exact)> = Vec::new();
    for hour in part.hours.iter().filter(|hour| hour.charge == line.charge) {
        let of_line = line.from <= hour.at
            && hour.at < line.until
            && hour.dimensions.get(BILL_TO).unwrap_or(default) == line.bill_to
            && hour.dimensions.project(&line.line_by) == line.dimensions;
        if of_line {
            used.push((hour.at, hour.dimensions.clone(), hour.quantity));
        }
    }
    used.sort();
    net(&mut used)?;
    let whole = used.iter().try_fold(Exact::ZERO, |sum, (_, _, quantity)| sum.add(*quantity))?;
    if whole.is_zero() || whole.is_negative() {
        let until = part.usage_until.map_or(line.until, |until| until.min(line.until));
        let last = Instant((until.0 - 1).max(line.from.0));
        let mut dimensions = line.dimensions.clone();
        dimensions.set(BILL_TO, line.bill_to.clone());
        let quantity = line.quantity.filter(|quantity| !quantity.is_negative()).unwrap_or(Exact::ZERO);
        return Ok(vec![item(last, dimensions, quantity, ask.clone())]);
    }
    let (used, prices) = match by_place(line, &used, whole, ask)? {
        Some(by_place) => by_place,
        None => {
            let part = |quantity: Exact| Ratio::from(quantity).div(&whole.into()).expect("not zero");
            let prices = used.iter().map(|(_, _, quantity)| ask.mul(&part(*quantity))).collect::<Vec<_>>();
            (used, prices)
        }
    };
    let used = used.into_iter().zip(prices);
    Ok(used.map(|((at, dimensions, quantity), price)| item(at, dimensions, quantity, price)).collect())
}

/// What corrections took away in one hour is taken off what was used after it, or else before.
fn net(used: &mut Vec<(Instant, Dimensions, Exact)>) -> Result<(), Fault> {
    for backwards in [false, true] {
        let mut owed = Exact::ZERO;
        let mut take = |quantity: &mut Exact| -> Result<(), Fault> {
            let sum = quantity.add(owed)?;
            (*quantity, owed) = (sum.max(Exact::ZERO), sum.min(Exact::ZERO));
            Ok(())
        };
        match backwards {
            false => used.iter_mut().try_for_each(|(_, _, quantity)| take(quantity))?,
            true => used.iter_mut().rev().try_for_each(|(_, _, quantity)| take(quantity))?,
        }
        if !backwards && !owed.is_zero() {
            // What is still owed at the end goes back from there.
            let at = used.last().map(|(at, dimensions, _)| (*at, dimensions.clone()));
            used.extend(at.map(|(at, dimensions)| (at, dimensions, owed)));
        }
    }
    used.retain(|(_, _, quantity)| !quantity.is_zero());
    Ok(())
}

/// Usage in order of time, with what each part of it asks.
type Placed = (Vec<(Instant, Dimensions, Exact)>, Vec<Ratio>);

/// Under tiers and packages each hour costs what it adds, where the line alone shows it; an hour in two tiers is two parts.
fn by_place(
    line: &Line,
    used: &[(Instant, Dimensions, Exact)],
    whole: Exact,
    ask: &Ratio,
) -> Result<Option<Placed>, Fault> {
    let shown = |pricing: &&Pricing| {
        !(pricing.is_linear()
            || pricing.needs_events()
            || pricing.counts_events()
            || pricing.prices_the_whole()
            || pricing.model_name() == "flat")
            && line.position.is_none()
            && line.share.is_none()
            && line.quantity == Some(whole)
    };
    let Some(pricing) = line.pricing.as_ref().filter(shown) else { return Ok(None) };
    let rate = |quantity: Exact| pricing.rate_without_bounds(&quantity.into(), &Dimensions::new(), 1);
    let total = rate(whole)?;
    if total != line.exact || total.is_zero() {
        return Ok(None);
    }
    let bends = pricing.bends();
    let (mut so_far, mut cost) = (Exact::ZERO, Ratio::ZERO);
    let (mut parts, mut prices) = (Vec::new(), Vec::new());
    for (at, dimensions, quantity) in used {
        let end = so_far.add(*quantity)?;
        let cuts = bends.iter().copied().filter(|bend| so_far < *bend && *bend < end);
        for next in cuts.chain([end]).collect::<Vec<_>>() {
            let up_to = rate(next)?;
            let adds = up_to.sub(&cost);
            if adds.is_negative() {
                return Ok(None);
            }
            parts.push((*at, dimensions.clone(), next.sub(so_far)?));
            prices.push(adds.mul(ask).div(&total).expect("not zero"));
            (so_far, cost) = (next, up_to);
        }
    }
    Ok(Some((parts, prices)))
}

/// One unit: all items of the lines it may pay for, in one order of time.
fn stage(
    purse: &Purse,
    unit: &str,
    lines: &mut [Settling],
    (of, price): (impl Fn(&Settling) -> bool, impl Fn(&Item) -> Ratio),
    terms: &Terms,
    left: &mut [Exact],
    relevant: &mut [Vec<bool>],
) -> Result<Vec<(usize, Taken)>, Fault> {
    let blocks: Vec<usize> = (0..left.len()).filter(|at| purse.blocks[*at].unit == unit).collect();
    if blocks.is_empty() {
        return Ok(Vec::new());
    }
    let order = in_order_of_time(lines, of);
    let mut subjects = Vec::new();
    let mut of_subject: HashMap<(usize, Dimensions), usize> = HashMap::new();
    let mut pieces = Vec::new();
    for (n, (line, item)) in order.iter().enumerate() {
        let (of, item) = (&lines[*line], &lines[*line].items[*item]);
        let subject = *of_subject.entry((*line, item.dimensions.clone())).or_insert_with(|| {
            subjects.push(Subject { dimensions: item.dimensions.clone(), ..of.subject.clone() });
            subjects.len() - 1
        });
        let covered = Ratio::from(item.quantity).mul(&item.unpaid);
        pieces.push(Piece {
            subject,
            at: item.at,
            event_key: Uuid::from_u128(n as u128),
            quantity: covered.round(PLACES_MAX, RoundingMode::HalfUp)?,
            price: price(item),
        });
    }
    // No document is asked for less than the smallest part of its currency.
    let whole = |left: Exact| -> Result<Exact, Fault> {
        let down = Ratio::from(left).truncate(terms.places).1;
        Ratio::from(left).sub(&down).round(terms.places, RoundingMode::HalfUp)
    };
    let opened: Vec<Open> = blocks
        .iter()
        .map(|at| Ok(Open { block: &purse.blocks[*at].block, left: whole(left[*at])? }))
        .collect::<Result<_, Fault>>()?;
    for (piece, (line, _)) in pieces.iter().zip(&order) {
        let of_part = &mut relevant[lines[*line].part];
        for (of, open) in blocks.iter().zip(&opened) {
            of_part[*of] |= open.block.holds(piece.at) && open.block.scope.admits(&subjects[piece.subject]);
        }
    }
    let way = |at: Instant| purse.way_at(at);
    let Settled { rows, left: after, unpaid, .. } = settle_by(&subjects, &pieces, &opened, way, terms)?;
    for ((of, open), after) in blocks.iter().zip(&opened).zip(after) {
        left[*of] = left[*of].sub(open.left.sub(after)?)?;
    }
    for ((line, item), unpaid) in order.iter().zip(unpaid) {
        let item = &mut lines[*line].items[*item];
        item.unpaid = item.unpaid.mul(&unpaid);
    }
    let places: HashMap<&str, usize> =
        lines.iter().enumerate().map(|(at, line)| (line.subject.line.as_str(), at)).collect();
    let taken = |draw: crate::domain::credits::Draw| {
        let block = draw.block.as_u128() as usize;
        (places[draw.line.as_str()], Taken { block, quantity: draw.quantity, amount: draw.amount })
    };
    Ok(rows.draws.into_iter().map(taken).collect())
}

/// The lines of a part, those that credit covers in part only split, and its credits.
fn finish(purse: &Purse, part: &mut Part, settled: &HashMap<usize, &Settling>) -> Result<Vec<Credit>, Fault> {
    let mut credits = Vec::new();
    let mut lines = Vec::with_capacity(part.lines.len());
    for (place, line) in std::mem::take(part.lines).into_iter().enumerate() {
        let Some(settled) = settled.get(&place) else {
            lines.push(line);
            continue;
        };
        let of_units = settled.units.iter().fold(Ratio::ZERO, |sum, taken| sum.add(&taken.quantity));
        // What money pays, or is billed, and what is beyond: the first of them is what money is drawn for.
        let beyond = beyond(part.inputs, &line, settled)?;
        let mut made = match beyond {
            _ if settled.items.iter().all(|item| item.credit_only) => refuse(&line, settled)?,
            beyond if settled.items.iter().any(Item::is_refused) => {
                refuse_in_part(part.inputs, &line, settled, beyond)?
            }
            beyond if !beyond.is_empty() => split_beyond(part.inputs, &line, settled, beyond)?,
            _ if of_units.is_zero() => vec![line.clone()],
            _ => vec![rest_of(part.inputs, &line, settled)?],
        };
        let paid = usize::from(!of_units.is_zero());
        if paid > 0 {
            split_units(&line, &mut made, &of_units)?;
        }
        for (taken, place) in [(&settled.units, 0), (&settled.money, paid)] {
            credits.extend(entries(purse, part.inputs, &line, &made[place].key, taken)?);
        }
        made.retain(|line| !(line.amount.is_zero() && line.quantity.is_none_or(Exact::is_zero)));
        lines.append(&mut made);
    }
    *part.lines = lines;
    Ok(credits)
}

/// Quantities in decimals whose sum is that of the exact ones (rules.md 0.7).
fn entries(
    purse: &Purse,
    inputs: &Inputs,
    line: &Line,
    key: &str,
    taken: &[Taken],
) -> Result<Vec<Credit>, Fault> {
    let (mut exact, mut said) = (Ratio::ZERO, Exact::ZERO);
    let credit = |taken: &Taken| {
        exact = exact.add(&taken.quantity);
        let so_far = exact.round(PLACES_MAX, RoundingMode::HalfUp)?;
        let quantity = so_far.sub(std::mem::replace(&mut said, so_far))?;
        let Opened { key: block, unit, .. } = &purse.blocks[taken.block];
        Ok(Credit {
            block: block.clone(),
            unit: (*unit != inputs.header.currency).then(|| unit.clone()),
            line: key.to_string(),
            bill_to: line.bill_to.clone(),
            boundary: None,
            quantity,
            amount: taken.amount,
        })
    };
    let credits: Vec<Credit> = taken.iter().map(credit).collect::<Result<_, Fault>>()?;
    Ok(credits.into_iter().filter(|credit| !credit.amount.is_zero() || !credit.quantity.is_zero()).collect())
}

/// What units cover costs nothing, and stands before the others; the first of those takes a key of its own.
fn split_units(line: &Line, made: &mut Vec<Line>, covered: &Ratio) -> Result<(), Fault> {
    let covered = covered.round(PLACES_MAX, RoundingMode::HalfUp)?;
    let named = if made.len() > 1 { "priced" } else { "overage" };
    let rest = &mut made[0];
    rest.key = format!("{}/{named}", line.key);
    rest.label = format!("{} · {named}", line.label);
    rest.quantity = Some(rest.quantity.unwrap_or(covered).sub(covered)?);
    let base = Line {
        quantity: Some(covered),
        price: Some("credits".into()),
        pricing: None,
        list: None,
        exact: Ratio::ZERO,
        amount: Exact::ZERO,
        ..line.clone()
    };
    made.insert(0, base);
    Ok(())
}

/// A line at what its items cost that no unit covered.
fn rest_of(inputs: &Inputs, line: &Line, settled: &Settling) -> Result<Line, Fault> {
    let exact = sum_of(settled, |_| Ratio::from(1i64));
    let (amount, capped) = (exact.round(inputs.minor_units, inputs.rounding_mode)?, settled.capped(line)?);
    Ok(Line { list: None, amount: amount.add(capped)?, exact: exact.add(&capped.into()), ..line.clone() })
}

/// What nothing paid for under credit_only.
fn refused(settled: &Settling) -> Result<Exact, Fault> {
    let items = settled.items.iter().filter(|item| item.is_refused());
    let refused = items.fold(Ratio::ZERO, |sum, item| sum.add(&Ratio::from(item.quantity).mul(&item.unpaid)));
    refused.round(PLACES_MAX, RoundingMode::HalfUp)
}

/// Where credit_only held for a part of the time: the other part is billed as ever.
fn refuse_in_part(
    inputs: &Inputs,
    line: &Line,
    settled: &Settling,
    beyond: BeyondOf,
) -> Result<Vec<Line>, Fault> {
    let refused = refused(settled)?;
    let mut made = split_beyond(inputs, line, settled, beyond)?;
    made[0].quantity = made[0].quantity.map(|quantity| quantity.sub(refused)).transpose()?;
    made.push(uncovered(line, refused));
    Ok(made)
}

/// Under credit_only: what credit paid, and what nothing did, which costs nothing.
fn refuse(line: &Line, settled: &Settling) -> Result<Vec<Line>, Fault> {
    let refused = refused(settled)?;
    let drawn = settled.money.iter().try_fold(Exact::ZERO, |sum, taken| sum.add(taken.amount))?;
    let kept = line.quantity.unwrap_or(refused).sub(refused)?;
    if refused.is_zero() && drawn == settled.ask {
        return Ok(vec![line.clone()]);
    }
    let capped = settled.capped(line)?;
    let paid = sum_of(settled, |item| Ratio::from(1i64).sub(&item.unpaid)).add(&capped.into());
    let base =
        Line { quantity: Some(kept), list: None, exact: paid, amount: drawn.add(capped)?, ..line.clone() };
    Ok(vec![base, uncovered(line, refused)])
}

fn uncovered(line: &Line, refused: Exact) -> Line {
    Line {
        key: format!("{}/uncovered", line.key),
        label: format!("{} · uncovered", line.label),
        quantity: Some(refused),
        price: Some(super::explain::UNCOVERED.into()),
        pricing: None,
        share: None,
        position: None,
        list: None,
        exact: Ratio::ZERO,
        amount: Exact::ZERO,
        ..line.clone()
    }
}

/// What parts of a line's items cost.
fn sum_of(settled: &Settling, part: impl Fn(&Item) -> Ratio) -> Ratio {
    settled.items.iter().fold(Ratio::ZERO, |sum, item| sum.add(&item.price.mul(&part(item))))
}

/// What of a line is beyond credit under commitments that have a price for it: price, quantity and what it would have
/// cost at the line's own.
type BeyondOf = Vec<(Resolved, Ratio, Ratio)>;

fn beyond(inputs: &Inputs, line: &Line, settled: &Settling) -> Result<BeyondOf, Fault> {
    let mut of_commitment: BTreeMap<usize, (Ratio, Ratio)> = BTreeMap::new();
    for item in settled.items.iter().filter(|item| !item.unpaid.is_zero() && !item.credit_only) {
        let subject = Subject { dimensions: item.dimensions.clone(), ..settled.subject.clone() };
        let holds =
            |c: &Commitment| c.has_overage(line) && c.holds(item.at) && c.scope.matches(&subject, item.at);
        if let Some(at) = inputs.commitments.iter().position(holds) {
            let commitment = &inputs.commitments[at];
            let part = match commitment.has_ceiling() {
                false => Some(&item.unpaid),
                true => item.beyond.get(&commitment.measure().map(str::to_string)),
            };
            let Some(part) = part.filter(|part| !part.is_zero()) else { continue };
            let (quantity, price) = of_commitment.entry(at).or_insert((Ratio::ZERO, Ratio::ZERO));
            *quantity = quantity.add(&Ratio::from(item.quantity).mul(part));
            *price = price.add(&item.price.mul(part));
        }
    }
    let resolved = |(at, (quantity, price)): (usize, (Ratio, Ratio))| {
        Ok((commitment_price(inputs, line, &inputs.commitments[at])?, quantity, price))
    };
    of_commitment.into_iter().map(resolved).collect()
}

/// The price of what goes beyond a commitment.
fn commitment_price(inputs: &Inputs, line: &Line, commitment: &Commitment) -> Result<Resolved, Fault> {
    let terms = inputs.charges.iter().filter(|charge| charge.key == line.charge).find_map(|charge| {
        let holds = charge.periods.iter().any(|period| period.from <= line.from && line.from < period.until);
        match &charge.kind {
            ChargeKind::Usage(terms) if holds => Some(terms),
            _ => None,
        }
    });
    let terms = terms.ok_or_else(|| Fault::value(format!("line {} is of no charge", line.key)))?;
    let prices = inputs.prices(&line.charge, terms);
    let of_customer = prices.agreed.iter().filter(|agreed| agreed.scope == AgreedIn::Customer);
    let agreed = commitment.overage.iter().filter(|agreed| targets(&agreed.target, line)).chain(of_customer);
    let prices = Prices { agreed: agreed.cloned().collect(), ..prices };
    let mut lookup = line.dimensions.clone();
    lookup.set(BILL_TO, line.bill_to.clone());
    prices.resolve(&lookup, line.from)
}

fn targets(target: &Target, line: &Line) -> bool {
    match target {
        Target::Charge(key) => *key == line.charge,
        Target::Meter(key) => Some(key) == line.meter.as_ref(),
    }
}

impl Commitment {
    /// Whether what goes beyond it has a price of its own on this line.
    fn has_overage(&self, line: &Line) -> bool {
        let mut lookup = line.dimensions.clone();
        lookup.set(BILL_TO, line.bill_to.clone());
        self.overage.iter().any(|agreed| targets(&agreed.target, line) && lookup.matches(&agreed.matches))
    }
}

/// What credit paid stays on the line; what is beyond stands on a line at the price for that.
fn split_beyond(
    inputs: &Inputs,
    line: &Line,
    settled: &Settling,
    beyond: BeyondOf,
) -> Result<Vec<Line>, Fault> {
    let mut kept = line.quantity.unwrap_or(Exact::ZERO);
    // What is beyond credit, but not under such a commitment, stays at the line's price.
    let billed = |item: &Item| if item.credit_only { Ratio::ZERO } else { item.unpaid.clone() };
    let mut elsewhere = sum_of(settled, billed);
    let mut made = Vec::new();
    for (n, (price, quantity, at_own)) in beyond.into_iter().enumerate() {
        let shown = quantity.round(PLACES_MAX, RoundingMode::HalfUp)?;
        (kept, elsewhere) = (kept.sub(shown)?, elsewhere.sub(&at_own));
        let exact = price.pricing.rate_without_bounds(&quantity, &Dimensions::new(), 1)?;
        let suffix = if n == 0 { String::new() } else { format!("/{}", n + 1) };
        made.push(Line {
            key: format!("{}/overage{suffix}", line.key),
            label: format!("{} · overage", line.label),
            quantity: Some(shown),
            price: Some(price.label.replacen("contract override", "overage", 1)),
            pricing: Some(price.pricing),
            share: None,
            position: None,
            list: None,
            amount: exact.round(inputs.minor_units, inputs.rounding_mode)?,
            exact,
            ..line.clone()
        });
    }
    let mut posted = settled.money.iter().try_fold(Exact::ZERO, |sum, taken| sum.add(taken.amount))?;
    let paid = sum_of(settled, |item| Ratio::from(1i64).sub(&item.unpaid));
    let exact = paid.add(&elsewhere);
    // What filled a commitment of money is what it counted.
    let by_money = settled.items.iter().all(|item| item.beyond.keys().all(Option::is_none));
    if by_money && !settled.filled.is_zero() {
        let filled =
            sum_of(settled, |item| item.beyond.get(&None).map_or(Ratio::ZERO, |part| item.unpaid.sub(part)));
        posted = posted.add(settled.filled)?;
        elsewhere = elsewhere.sub(&filled);
    }
    let capped = settled.capped(line)?;
    let base = Line {
        quantity: Some(kept),
        list: None,
        exact: exact.add(&capped.into()),
        amount: posted.add(elsewhere.round(inputs.minor_units, inputs.rounding_mode)?)?.add(capped)?,
        ..line.clone()
    };
    made.insert(0, base);
    Ok(made)
}
