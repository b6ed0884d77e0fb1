//! Commitments on bills: instalments of prepaid ones, and true-ups of postpaid ones at the end of each period.
//!
//! A commitment is one or more rows of terms that follow each other. Its periods are counted from its own start; each
//! has the terms of the row in which it begins, and ends at the next one's start or with the last row. An instalment
//! stands on the first boundary on or after its date, a true-up on the first on or after the period's end.
//!
//! Commitments of money are tested against what usage lines cost, those in units against what they counted: each measure by
//! itself, and those of one measure one after the other (rules.md 3).

use super::compute::{Line, LineKind, label_of};
use super::purse::Credit;
use crate::domain::contracts::resolve::Agreed;
use crate::domain::credits::commitment::{self, Charge, waterfall};
use crate::domain::credits::{Scope, Subject, Window};
use crate::domain::foundation::calendar::{Alignment, Calendar, Interval};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::{Node, Tree};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Exact, Fault, Ratio, RoundingMode};
use crate::domain::metering::Dimensions;
use crate::domain::metering::dimensions::BILL_TO;
use crate::domain::rating::Pricing;
use chrono::NaiveDate;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// One row of a commitment's terms.
#[derive(Debug, Clone)]
pub struct Commitment {
    pub key: String,
    prepaid: bool,
    /// By period; the last holds for further ones. Money, but of a postpaid one in units its quantity.
    amounts: Vec<Exact>,
    /// Of a postpaid one in units: its meter, and what is asked for what is missing of it.
    units: Option<(String, Pricing)>,
    product: String,
    every: Interval,
    instalments: Option<Interval>,
    pub scope: Scope,
    priority: i32,
    /// The prices of what goes beyond it.
    pub overage: Vec<Agreed>,
    /// What its periods are counted from.
    anchor: NaiveDate,
    from: Instant,
    until: Option<Instant>,
    until_on: Option<NaiveDate>,
    /// Canonical, for the digest.
    pub terms: String,
}

/// What falls due on a bill's boundaries.
#[derive(Debug, Clone)]
pub struct Owed {
    /// Place of the row with the period's terms.
    row: usize,
    /// Of the period, or of the part that an instalment is for.
    pub starts_on: NaiveDate,
    pub ends_on: NaiveDate,
    /// Of an instalment: which, of how many, and how much; none = a true-up.
    instalment: Option<(usize, usize, Exact)>,
}

impl Commitment {
    /// `{"terms", "from", "until", "until_on"}`: the row's terms and instants, and the day at or after its end.
    pub fn read(node: &Node) -> Result<Commitment, Fault> {
        let mut row = node.fields()?;
        let terms = row.required("terms")?;
        let mut fields = terms.fields()?;
        let text = |node: Node| node.text().map(str::to_string);
        let amounts = match (fields.optional("shortfall_price"), fields.optional("amounts")) {
            (Some(_), _) => vec![fields.required("quantity")?.decimal()?],
            (None, Some(list)) => list.items()?.iter().map(Node::decimal).collect::<Result<_, _>>()?,
            (None, None) => vec![fields.required("amount")?.decimal()?],
        };
        let units = match fields.optional("shortfall_price") {
            None => None,
            Some(price) => Some((text(fields.required("meter")?)?, Pricing::read(&price)?)),
        };
        // Its windows are local days: the row has them as instants.
        let scope = match row.optional("scope") {
            Some(scope) => Some(scope),
            None => fields.optional("scope"),
        };
        let mut scope = scope.map_or(Ok(Scope::default()), |scope| Scope::read(&scope))?;
        scope.meters.extend(units.iter().map(|(meter, _)| meter.clone()));
        let interval = |node: Node| Interval::parse(node.text()?).map_err(|fault| node.rehint(fault));
        let overage = fields.optional("overage").map_or(Ok(Vec::new()), |list| {
            list.items()?.iter().map(Agreed::of_contract).collect::<Result<Vec<_>, Fault>>()
        })?;
        Ok(Commitment {
            key: text(fields.required("key")?)?,
            prepaid: fields.required("kind")?.word(&["prepaid", "postpaid"])? == "prepaid",
            amounts,
            units,
            product: text(fields.required("product")?)?,
            every: interval(fields.required("every")?)?,
            instalments: fields.optional("instalments").map(interval).transpose()?,
            scope,
            priority: match fields.optional("priority") {
                None => 100,
                Some(node) => i32::try_from(node.integer()?).unwrap_or(i32::MAX),
            },
            overage,
            anchor: fields.required("from")?.date()?,
            from: row.required("from")?.instant()?,
            until: row.optional("until").map(|node| node.instant()).transpose()?,
            until_on: row.optional("until_on").map(|node| node.date()).transpose()?,
            terms: terms.tree.canonical()?,
        })
    }

    pub fn holds(&self, at: Instant) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }

    /// Where it begins and ends, and its windows do.
    pub fn ends(&self) -> impl Iterator<Item = Instant> {
        let windows = self.scope.windows.iter().flat_map(|window| [window.from, window.until]);
        [Some(self.from), self.until].into_iter().flatten().chain(windows)
    }

    /// Where what it counts begins and ends inside its time: lines that it may count are cut there.
    pub fn cuts(&self, product: &str, meter: &str) -> impl Iterator<Item = Instant> {
        let fits = |list: &BTreeSet<String>, value: &str| list.is_empty() || list.contains(value);
        let counts = !self.prepaid && fits(&self.scope.products, product) && fits(&self.scope.meters, meter);
        let windows = self.scope.windows.iter().filter(move |_| counts);
        windows.flat_map(|window| [window.from, window.until])
    }

    /// Whether what goes beyond what was promised has prices of its own, and nothing is paid in advance.
    pub fn has_ceiling(&self) -> bool {
        !self.prepaid && !self.overage.is_empty()
    }

    /// What it is counted in.
    pub fn measure(&self) -> Option<&str> {
        self.units.as_ref().map(|(meter, _)| meter.as_str())
    }

    /// One line of the digest.
    pub fn describe(&self, out: &mut String) -> std::fmt::Result {
        use std::fmt::Write;
        let until = self.until.map_or("-".to_string(), |until| until.0.to_string());
        writeln!(out, "commitment {} {until} {}", self.from.0, self.terms)
    }

    fn committed(&self, n: u32) -> Exact {
        let last = self.amounts.len() - 1;
        self.amounts[(n as usize).min(last)]
    }
}

/// Runs of rows that are one commitment: places, in order of time.
fn chains(rows: &[Commitment]) -> Vec<Vec<usize>> {
    let mut chains: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        chains.entry(&row.key).or_default().push(at);
    }
    let mut chains: Vec<Vec<usize>> = chains.into_values().collect();
    for chain in &mut chains {
        chain.sort_by_key(|at| rows[*at].from);
    }
    chains
}

/// What falls due on boundaries of a contract whose midnights are known by `midnight` (days that are not yet known are
/// asked for: it returns None).
pub fn dues(
    rows: &[Commitment],
    calendar: &Calendar,
    boundaries: &[i64],
    (minor_units, rounding): (u32, RoundingMode),
) -> Result<Vec<Owed>, Fault> {
    let mut dues = Vec::new();
    for boundary in boundaries.iter().filter_map(|n| u32::try_from(*n).ok()) {
        let Some(until) = calendar.boundary(boundary) else { continue };
        let after = boundary.checked_sub(1).and_then(|n| calendar.boundary(n));
        let falls = |day: NaiveDate| day <= until && after.is_none_or(|after| day > after);
        for chain in chains(rows) {
            let (first, last) = (&rows[chain[0]], &rows[*chain.last().expect("not empty")]);
            if last.until_on.is_some_and(|end| end <= first.anchor) {
                continue;
            }
            let periods = Calendar::new(first.anchor, last.until_on, first.every, Alignment::Anniversary)?;
            for period in (0..).map_while(|n| periods.period(n)).take_while(|p| p.starts_on <= until) {
                // The row in which it begins, by day: rows begin at midnights but for policy second.
                let begins = |at: &&usize| rows[**at].until_on.is_none_or(|end| period.starts_on < end);
                let Some(row) = chain.iter().find(begins).copied() else { continue };
                let terms = &rows[row];
                let committed = terms.committed(period.n);
                let due =
                    Owed { row, starts_on: period.starts_on, ends_on: period.ends_on, instalment: None };
                if !terms.prepaid {
                    dues.extend(falls(period.ends_on).then_some(due));
                    continue;
                }
                let whole = (period.whole_starts_on, Some(period.whole_ends_on));
                let every = terms.instalments.unwrap_or(terms.every);
                let parts = Calendar::new(whole.0, whole.1, every, Alignment::Anniversary)?;
                let parts: Vec<_> = (0..).map_while(|n| parts.period(n)).collect();
                let weights = vec![Ratio::from(1i64); parts.len()];
                let amounts = commitment::instalments(committed, &weights, minor_units, rounding)?;
                for (n, (part, amount)) in parts.iter().zip(amounts).enumerate() {
                    if part.starts_on < period.ends_on && falls(part.starts_on) {
                        dues.push(Owed {
                            starts_on: part.starts_on,
                            ends_on: part.ends_on.min(period.ends_on),
                            instalment: Some((n + 1, parts.len(), amount)),
                            ..due.clone()
                        });
                    }
                }
            }
        }
    }
    Ok(dues)
}

/// A line of the contract's own legal entity that is for no usage.
fn line(
    row: &Commitment,
    bill_to: &str,
    key: String,
    kind: LineKind,
    (from, until): (Instant, Instant),
) -> Line {
    Line {
        key,
        kind,
        charge: row.key.clone(),
        product: row.product.clone(),
        meter: None,
        label: format!("Commitment {}", label_of(&row.key).to_lowercase()),
        from,
        until,
        dimensions: Dimensions::new(),
        line_by: Vec::new(),
        matches: Dimensions::new(),
        bill_to: bill_to.to_string(),
        quantity: None,
        unit: None,
        price: Some("commitment".into()),
        pricing: None,
        share: None,
        position: None,
        exact: Ratio::ZERO,
        amount: Exact::ZERO,
        difference: None,
        list: None,
        elsewhere: false,
        scopes: Vec::new(),
    }
}

/// The lines of instalments; `at` knows midnights.
pub fn instalment_lines(
    rows: &[Commitment],
    dues: &[Owed],
    bill_to: &str,
    at: impl Fn(NaiveDate) -> Result<Instant, Fault>,
) -> Result<Vec<Line>, Fault> {
    let mut lines = Vec::new();
    for due in dues {
        let Some((n, of, amount)) = due.instalment else { continue };
        let row = &rows[due.row];
        let key = format!("{}/{}", row.key, due.starts_on);
        let span = (at(due.starts_on)?, at(due.ends_on)?);
        let line = line(row, bill_to, key, LineKind::Commitment, span);
        let label = if of > 1 { format!("{} {n}/{of}", line.label) } else { line.label.clone() };
        lines.push(Line { label, exact: amount.into(), amount, ..line });
    }
    Ok(lines)
}

// ── true-ups ─────────────────────────────────────────────────────────────────────────────────────

/// Usage on the documents that stand: what of commitments is spent.
#[derive(Debug, Clone, Default)]
pub struct Spent {
    /// The documents that it is from.
    pub numbers: Vec<String>,
    /// Meters whose units are counted, too.
    pub meters: BTreeSet<String>,
    lines: Vec<(i64, Counted)>,
}

/// What a line, or several, cost and counted.
#[derive(Debug, Clone)]
struct Counted {
    charge: Charge,
    quantity: Exact,
}

impl Counted {
    /// As a commitment counts it: the money, or units of a meter.
    fn by(&self, measure: Option<&str>) -> Option<Charge> {
        match measure {
            None => Some(self.charge.clone()),
            Some(meter) => (self.charge.subject.meter == meter)
                .then(|| Charge { amount: self.quantity, ..self.charge.clone() }),
        }
    }
}

/// Whether a line counts as spend: usage, with what minimums and maximums add to it or take off.
fn counts(kind: &str, meter: bool) -> bool {
    meter && ["usage", "cap", "true_up"].contains(&kind)
}

fn charge(
    (key, product, meter): (String, String, String),
    (mut dimensions, bill_to): (Dimensions, String),
    at: Instant,
    amount: Exact,
) -> Charge {
    dimensions.set(BILL_TO, bill_to.clone());
    let unit = Unit::NONE;
    Charge { subject: Subject { line: key, product, meter, dimensions, bill_to, unit }, at, amount }
}

impl Spent {
    /// `[{"number", "boundary", "bill_to", "lines", "credits"}, …]`; those without a number are not named.
    pub fn read(root: &Node) -> Result<Spent, Fault> {
        let mut spent = Spent::default();
        for document in root.items()? {
            let mut fields = document.fields()?;
            let own = fields.required("boundary")?.integer()?;
            let bill_to = fields.required("bill_to")?.text()?.to_string();
            let number = fields.optional("number").map(|node| node.text().map(str::to_string));
            spent.numbers.extend(number.transpose()?);
            let mut places: BTreeMap<String, usize> = BTreeMap::new();
            for node in fields.required("lines")?.items()? {
                let text = |name: &str| match node.tree.get(name) {
                    Some(Tree::Text(text)) => Some(text.to_string()),
                    _ => None,
                };
                let kind = text("corrects_kind").or(text("kind")).unwrap_or_default();
                let Some(meter) = text("meter").filter(|_| counts(&kind, true)) else { continue };
                let mut line = node.fields()?;
                let boundary = line.optional("boundary").map_or(Ok(own), |node| node.integer())?;
                let key = text("corrects").or(text("key")).unwrap_or_default();
                let product = text("product").unwrap_or_default();
                let dimensions = line
                    .optional("dimensions")
                    .map_or(Ok(Dimensions::new()), |node| Dimensions::read(&node))?;
                let (at, amount) = (line.required("from")?.instant()?, line.required("amount")?.decimal()?);
                let quantity = line.optional("quantity").map_or(Ok(Exact::ZERO), |node| node.decimal())?;
                places.insert(key.clone(), spent.lines.len());
                let what = (key, product, meter);
                let charge = charge(what, (dimensions, bill_to.clone()), at, amount);
                spent.lines.push((boundary, Counted { charge, quantity }));
            }
            // Of a credit note it may be the number of what it credits.
            let credits = fields.optional("credits").filter(|node| matches!(node.tree, Tree::List(_)));
            for node in credits.map_or(Ok(Vec::new()), |node| node.items())? {
                let credit = Credit::read(&node, &bill_to)?;
                let place = places.get(&credit.line).copied();
                spent.credited(&credit, place, credit.boundary.unwrap_or(own))?;
            }
        }
        Ok(spent)
    }

    /// What credits paid is not spent once more. A credit of a line on another document finds it by its key.
    fn credited(&mut self, credit: &Credit, place: Option<usize>, boundary: i64) -> Result<(), Fault> {
        let same =
            |(n, counted): &(i64, Counted)| *n == boundary && counted.charge.subject.line == credit.line;
        if let Some(at) = place.or_else(|| self.lines.iter().position(same)) {
            let Counted { charge, quantity } = &mut self.lines[at].1;
            if credit.unit.is_none() {
                charge.amount = charge.amount.sub(credit.amount)?;
            }
            *quantity = quantity.sub(credit.quantity)?;
        }
        Ok(())
    }

    /// One line a fact, for the digest: the same whether a line was computed again or read from its documents.
    pub fn describe(&self, out: &mut String) -> Result<(), Fault> {
        let measures = std::iter::once(None).chain(self.meters.iter().map(|meter| Some(meter.as_str())));
        for measure in measures {
            let word = if measure.is_none() { "spent" } else { "counted" };
            for Charge { subject, at, amount } in self.charges(measure)? {
                out.push_str(&format!("{word} {:?} {:?} {} {amount}\n", subject.line, subject.bill_to, at.0));
            }
        }
        Ok(())
    }

    /// Leaves out what is used at an instant or later.
    pub fn until(&mut self, end: Instant) {
        self.lines.retain(|(_, counted)| counted.charge.at < end);
    }

    /// Leaves out boundaries that are computed anew, but for legal entities whose documents are not.
    pub fn without(&mut self, boundaries: &[i64], held: &BTreeSet<String>) {
        self.lines.retain(|(boundary, counted)| {
            !boundaries.contains(boundary) || held.contains(&counted.charge.subject.bill_to)
        });
    }

    /// Adds the lines of a boundary as computed, of those that are.
    pub fn add(
        &mut self,
        boundary: i64,
        lines: &[Line],
        credits: &[Credit],
        held: &BTreeSet<String>,
    ) -> Result<(), Fault> {
        for line in lines.iter().filter(|line| !held.contains(&line.bill_to)) {
            let Some(meter) = line.meter.clone().filter(|_| counts(line.kind.as_str(), true)) else {
                continue;
            };
            let what = (line.key.clone(), line.product.clone(), meter);
            let of = (line.dimensions.clone(), line.bill_to.clone());
            let charge = charge(what, of, line.from, line.amount);
            self.lines.push((boundary, Counted { charge, quantity: line.quantity.unwrap_or(Exact::ZERO) }));
        }
        credits.iter().try_for_each(|credit| self.credited(credit, None, boundary))?;
        Ok(())
    }

    /// Each line with what corrects it, in order of time; what is below 0 is taken off what follows, then what precedes.
    pub fn charges(&self, measure: Option<&str>) -> Result<Vec<Charge>, Fault> {
        let mut by_line: BTreeMap<(Instant, String, String), Charge> = BTreeMap::new();
        for charge in self.lines.iter().filter_map(|(_, counted)| counted.by(measure)) {
            let key = (charge.at, charge.subject.line.clone(), charge.subject.bill_to.clone());
            match by_line.get_mut(&key) {
                Some(sum) => sum.amount = sum.amount.add(charge.amount)?,
                None => drop(by_line.insert(key, charge.clone())),
            }
        }
        let mut charges: Vec<Charge> = by_line.into_values().collect();
        for _ in 0..2 {
            let mut owed = Exact::ZERO;
            for charge in &mut charges {
                let sum = charge.amount.add(owed)?;
                (charge.amount, owed) = (sum.max(Exact::ZERO), sum.min(Exact::ZERO));
            }
            if let Some(last) = charges.last_mut() {
                last.amount = last.amount.add(owed)?;
            }
            charges.reverse();
        }
        charges.retain(|charge| !charge.amount.is_zero() && !charge.amount.is_negative());
        Ok(charges)
    }
}

/// The days on which the periods of those dues end that are true-ups.
pub fn true_up_days(dues: &[Owed]) -> impl Iterator<Item = NaiveDate> {
    dues.iter().filter(|due| due.instalment.is_none()).map(|due| due.ends_on)
}

/// The lines of true-ups: what was committed for a period less what of it was spent, overlapping commitments filled one
/// after the other.
pub fn true_up_lines(
    rows: &[Commitment],
    dues: &[Owed],
    spent: &Spent,
    (bill_to, unit_of, minor_units, rounding): (&str, impl Fn(&str) -> String, u32, RoundingMode),
    at: impl Fn(NaiveDate) -> Result<Instant, Fault>,
) -> Result<Vec<Line>, Fault> {
    let mut lines = Vec::new();
    for due in dues.iter().filter(|due| due.instalment.is_none()) {
        let row = &rows[due.row];
        let span = (at(due.starts_on)?, at(due.ends_on)?);
        let overlapping = overlapping(rows, due, &at)?;
        let charges = spent.charges(row.measure())?;
        let charges: Vec<Charge> = charges.into_iter().filter(|charge| charge.at < span.1).collect();
        let filled = waterfall(&overlapping, &charges)?;
        let mine = filled.iter().find(|filled| filled.commitment == Uuid::nil()).expect("it is one of them");
        if mine.true_up.is_zero() {
            continue;
        }
        let key = format!("{}/{}/true_up", row.key, due.starts_on);
        let line = line(row, bill_to, key, LineKind::TrueUp, span);
        let line = Line { label: format!("{} · true-up", line.label), ..line };
        lines.push(match &row.units {
            None => Line { exact: mine.true_up.into(), amount: mine.true_up, ..line },
            Some((meter, pricing)) => {
                let exact = pricing.rate(&mine.true_up.into(), &Dimensions::new(), 1)?;
                Line {
                    quantity: Some(mine.true_up),
                    unit: Some(unit_of(meter)),
                    price: Some("shortfall price".into()),
                    pricing: Some(pricing.clone()),
                    amount: exact.round(minor_units, rounding)?,
                    exact,
                    ..line
                }
            }
        });
    }
    Ok(lines)
}

/// The due period (with the nil id) and all periods of postpaid commitments of its measure that share time with it.
fn overlapping(
    rows: &[Commitment],
    due: &Owed,
    at: &impl Fn(NaiveDate) -> Result<Instant, Fault>,
) -> Result<Vec<commitment::Commitment>, Fault> {
    let mut all = Vec::new();
    let measure = rows[due.row].measure();
    for mut period in periods(rows, (due.starts_on, due.ends_on), at)? {
        let own = rows[period.row].key == rows[due.row].key;
        let is_due = own && period.starts_on == due.starts_on;
        if rows[period.row].measure() == measure && (!own || is_due) {
            if is_due {
                period.of.id = Uuid::nil();
            }
            all.push(period.of);
        }
    }
    Ok(all)
}

/// A period of a postpaid commitment, with the place of the row whose terms it has.
pub struct Promised {
    pub row: usize,
    starts_on: NaiveDate,
    pub of: commitment::Commitment,
}

/// All periods of postpaid commitments that share time with some days.
pub fn periods(
    rows: &[Commitment],
    (from, until): (NaiveDate, NaiveDate),
    at: &impl Fn(NaiveDate) -> Result<Instant, Fault>,
) -> Result<Vec<Promised>, Fault> {
    let mut all = Vec::new();
    for (place, chain) in chains(rows).into_iter().enumerate() {
        let (first, last) = (&rows[chain[0]], &rows[*chain.last().expect("not empty")]);
        if first.prepaid || last.until_on.is_some_and(|end| end <= first.anchor) {
            continue;
        }
        let periods = Calendar::new(first.anchor, last.until_on, first.every, Alignment::Anniversary)?;
        for period in (0..).map_while(|n| periods.period(n)).take_while(|p| p.starts_on < until) {
            if period.ends_on <= from {
                continue;
            }
            let begins = |at: &&usize| rows[**at].until_on.is_none_or(|end| period.starts_on < end);
            let Some(at_row) = chain.iter().find(begins).copied() else { continue };
            let row = &rows[at_row];
            let of = commitment::Commitment {
                id: Uuid::from_u128((place as u128 + 1) << 32 | u128::from(period.n)),
                priority: row.priority,
                committed: row.committed(period.n),
                scope: row.scope.clone(),
                period: Window { from: at(period.starts_on)?, until: at(period.ends_on)? },
            };
            all.push(Promised { row: at_row, starts_on: period.starts_on, of });
        }
    }
    Ok(all)
}

/// The days whose midnights the lines of some dues need.
pub fn days(rows: &[Commitment], dues: &[Owed]) -> Result<Vec<NaiveDate>, Fault> {
    let found = std::cell::RefCell::new(Vec::new());
    for due in dues {
        found.borrow_mut().extend([due.starts_on, due.ends_on]);
        if due.instalment.is_none() {
            overlapping(rows, due, &|day| {
                found.borrow_mut().push(day);
                Ok(Instant(0))
            })?;
        }
    }
    Ok(found.into_inner())
}
