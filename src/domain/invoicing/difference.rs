//! Late usage and corrections: what the lines of a boundary come to now, less what stands on invoices for them
//! (design 2.10, definitions 18). The difference is a line of its own, with the service period of the line it
//! corrects; with tiers it can be negative.

use super::compute::{Line, LineKind};
use super::document::{Document, Documents};
use super::purse::Credit;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::{self, DOCUMENT_DEPTH_MAX, Fields, Node, Tree};
use crate::domain::foundation::{Exact, Fault, Ratio};
use crate::domain::metering::Dimensions;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// A document that stands, with its lines of one boundary.
#[derive(Debug, Clone)]
pub struct Standing {
    pub number: String,
    pub bill_to: String,
    /// Whether it is the boundary's own invoice, not one that corrects it.
    pub own: bool,
    /// Voided for good: what it billed is settled elsewhere, and what it drew was given back.
    pub given_up: bool,
    pub lines: Vec<Billed>,
    /// What its lines of the boundary drew, or gave back.
    pub credits: Vec<Credit>,
}

/// A line that stands.
#[derive(Debug, Clone)]
pub struct Billed {
    /// As it would be computed again: of a difference, the line it corrects.
    line: Line,
    /// What it says of quantity and amounts.
    sums: Sums,
}

/// Quantity and amounts of a line, or of several together.
#[derive(Debug, Clone)]
pub struct Sums {
    pub quantity: Option<Exact>,
    /// As lines show it, to 18 places.
    pub exact: Ratio,
    pub amount: Exact,
}

/// What a line of kind `difference` says beyond its own quantity and amount.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The boundary that it belongs to.
    pub boundary: i64,
    /// The key of the line it corrects, and its kind.
    pub of: String,
    pub of_kind: LineKind,
    /// What the line comes to now.
    pub total: Sums,
    /// What was billed for it before, and on which documents.
    pub billed: Sums,
    pub billed_on: Vec<String>,
}

/// A boundary computed once more, beside what stands for it.
#[derive(Debug)]
pub struct Earlier {
    pub boundary: i64,
    /// None: the boundary of the bill itself, which is issued again while documents that correct it stand.
    pub now: Option<Documents>,
    pub standing: Vec<Standing>,
    /// What has to be drawn or given back so that its credits are what they should be.
    pub credits: Vec<Credit>,
    /// Which blocks could have paid for anything of it.
    pub relevant: Vec<bool>,
}

/// Up to when the service of what is made of changed terms may begin, to be due on a bill.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    pub until: Instant,
    /// Whether the document has to say it, since no boundary does.
    pub said: bool,
}

impl Sums {
    const NOTHING: Sums = Sums { quantity: None, exact: Ratio::ZERO, amount: Exact::ZERO };

    fn of(line: &Line) -> Sums {
        Sums { quantity: line.quantity, exact: line.exact.at_shown_places(), amount: line.amount }
    }

    fn add(&mut self, other: &Sums) -> Result<(), Fault> {
        self.quantity = match (self.quantity, other.quantity) {
            (Some(a), Some(b)) => Some(a.add(b)?),
            (a, b) => a.or(b),
        };
        self.exact = self.exact.add(&other.exact);
        self.amount = self.amount.add(other.amount)?;
        Ok(())
    }

    fn less(&self, other: &Sums) -> Result<Sums, Fault> {
        let zero = Exact::ZERO;
        Ok(Sums {
            quantity: match (self.quantity, other.quantity) {
                (None, None) => None,
                (a, b) => Some(a.unwrap_or(zero).sub(b.unwrap_or(zero))?),
            },
            exact: self.exact.sub(&other.exact),
            amount: self.amount.sub(other.amount)?,
        })
    }

    /// Nothing that anybody would see: amounts that differ only before rounding are the same.
    fn is_nothing(&self) -> bool {
        self.amount.is_zero() && self.quantity.is_none_or(Exact::is_zero)
    }

    fn to_tree(&self, minor_units: u32) -> Tree<'static> {
        let mut fields = vec![
            ("exact".into(), Tree::text(self.exact.shown())),
            (
                "amount".into(),
                Tree::text(self.amount.to_fixed(minor_units).unwrap_or_else(|| self.amount.to_string())),
            ),
        ];
        if let Some(quantity) = self.quantity {
            fields.push(("quantity".into(), Tree::text(quantity.to_string())));
        }
        Tree::Object(fields)
    }
}

impl Difference {
    /// The fields of the document's line.
    pub fn fields(&self, minor_units: u32) -> Vec<(&'static str, Tree<'static>)> {
        let numbers = self.billed_on.iter().map(|number| Tree::text(number.clone())).collect();
        vec![
            ("boundary", Tree::number(self.boundary)),
            ("corrects", Tree::text(self.of.clone())),
            ("corrects_kind", Tree::text(self.of_kind.as_str())),
            ("total", self.total.to_tree(minor_units)),
            ("billed", self.billed.to_tree(minor_units)),
            ("billed_on", Tree::List(numbers)),
        ]
    }
}

impl Earlier {
    /// The lines by which what stands differs from what it should be; `own` are the lines of the bill itself.
    /// And whether some of it is not due yet. Where decreases are kept, fees that come to less than was billed stay billed.
    pub fn lines(&self, own: &[Document], due: Option<Due>, keeps: bool) -> Result<(Vec<Line>, bool), Fault> {
        let stands_alone = |bill_to: &str| self.standing.iter().any(|s| s.own && s.bill_to == bill_to);
        let now = self.now.as_ref().map_or(own, |now| &now.list);
        let mut pairs: Vec<Pair> = Vec::new();
        for document in now {
            for line in document.lines.iter().filter(|line| line.difference.is_none()) {
                let mut pair = Pair::new(line.clone());
                pair.total = Sums::of(line);
                pair.is_now = true;
                if self.now.is_none() && !stands_alone(&document.bill_to) {
                    // Issued with this very document.
                    pair.billed = pair.total.clone();
                }
                pairs.push(pair);
            }
        }
        for document in &self.standing {
            for billed in &document.lines {
                let same = |pair: &&mut Pair| {
                    pair.line.key == billed.line.key && pair.line.bill_to == document.bill_to
                };
                let pair = match pairs.iter_mut().find(same) {
                    Some(pair) => pair,
                    None => {
                        pairs.push(Pair::new(Line {
                            bill_to: document.bill_to.clone(),
                            ..billed.line.clone()
                        }));
                        pairs.last_mut().expect("just pushed")
                    }
                };
                pair.billed.add(&billed.sums)?;
                pair.extend(billed.line.from, billed.line.until);
                if !pair.billed_on.contains(&document.number) {
                    pair.billed_on.push(document.number.clone());
                }
            }
        }
        let mut lines = Vec::new();
        let mut waits = false;
        for pair in pairs {
            let Some(line) = pair.difference(self.boundary)? else { continue };
            // Usage is told when it has come, a fee that will be less or more from some day on at the boundary of that day.
            // What stands elsewhere for the boundary of the bill itself is no news.
            let is_later = self.now.is_some() && due.is_some_and(|due| line.from > due.until);
            match line.kind == LineKind::Proration && is_later {
                true => waits = true,
                false => lines.push(line),
            }
        }
        if keeps {
            let mut sums: BTreeMap<(String, String), Exact> = BTreeMap::new();
            for line in lines.iter().filter(|line| line.kind == LineKind::Proration) {
                let sum = sums.entry((line.charge.clone(), line.bill_to.clone())).or_insert(Exact::ZERO);
                *sum = sum.add(line.amount)?;
            }
            let less = |line: &Line| {
                sums.get(&(line.charge.clone(), line.bill_to.clone())).is_some_and(|sum| sum.is_negative())
            };
            lines.retain(|line| !(line.kind == LineKind::Proration && less(line)));
        }
        Ok((lines, waits))
    }

    /// What the difference is computed from, for the digest of the bill: one line a fact.
    pub fn describe(&self, out: &mut String) -> std::fmt::Result {
        let sha256 = self.now.as_ref().map_or("-", |now| &now.sha256);
        writeln!(out, "boundary {} {sha256}", self.boundary)?;
        for document in &self.standing {
            writeln!(out, "stands {:?} {:?} {}", document.number, document.bill_to, document.own)?;
            if document.given_up {
                writeln!(out, "given up")?;
            }
            for Billed { line, sums } in &document.lines {
                let quantity = sums.quantity.map_or("-".to_string(), |quantity| quantity.to_string());
                writeln!(out, "line {:?} {quantity} {} {}", line.key, sums.exact.shown(), sums.amount)?;
            }
            for Credit { line, block, quantity, amount, .. } in &document.credits {
                writeln!(out, "credit {line:?} {block:?} {quantity} {amount}")?;
            }
        }
        Ok(())
    }
}

/// A line now and on the documents that stand.
struct Pair {
    line: Line,
    /// Whether there is such a line now.
    is_now: bool,
    total: Sums,
    billed: Sums,
    billed_on: Vec<String>,
    /// The service that was billed, differences applied.
    served: Option<(Instant, Instant)>,
}

impl Pair {
    fn new(line: Line) -> Pair {
        Pair {
            line,
            is_now: false,
            total: Sums::NOTHING,
            billed: Sums::NOTHING,
            billed_on: Vec::new(),
            served: None,
        }
    }

    /// What a document says of the service: of a fee, a proration cuts its end off or adds to it.
    fn extend(&mut self, from: Instant, until: Instant) {
        self.served = Some(match self.served {
            None => (from, until),
            Some((begins, ends)) if until == ends && from > begins => (begins, from),
            Some((begins, ends)) if from == ends => (begins, until),
            Some(served) => served,
        });
    }

    /// The service that a difference of a fee is for: the rest, where what stays begins with what was billed, or what was
    /// billed begins with what it is now.
    fn changed(&self) -> (Instant, Instant) {
        let now = (self.line.from, self.line.until);
        match self.served {
            None => now,
            Some(served) if !self.is_now => served,
            Some((from, until)) if from == now.0 && until != now.1 => (until.min(now.1), until.max(now.1)),
            Some(_) => now,
        }
    }

    fn difference(self, boundary: i64) -> Result<Option<Line>, Fault> {
        let changed = self.changed();
        let Pair { line, mut total, billed, billed_on, .. } = self;
        let mut left = total.less(&billed)?;
        if left.is_nothing() {
            return Ok(None);
        }
        if line.quantity.is_some() {
            total.quantity = total.quantity.or(Some(Exact::ZERO));
        }
        let difference =
            Difference { boundary, of: line.key.clone(), of_kind: line.kind, total, billed, billed_on };
        let (kind, word, (from, until)) = match line.kind {
            LineKind::Fee => (LineKind::Proration, "proration", changed),
            _ => (LineKind::Difference, "difference", (line.from, line.until)),
        };
        if kind == LineKind::Proration {
            // As many seats as before, for less of the time.
            left.quantity = left.quantity.filter(|quantity| !quantity.is_zero());
        }
        Ok(Some(Line {
            key: format!("{}/{word}", line.key),
            kind,
            from,
            until,
            list: None,
            quantity: left.quantity,
            exact: left.exact,
            amount: left.amount,
            difference: Some(Box::new(difference)),
            ..line
        }))
    }
}

// ── reading what stands ──────────────────────────────────────────────────────────────────────────

/// `[{"number", "bill_to", "own", "given_up", "lines": [lines of the document]}, …]`.
pub fn read_standing(text: &str) -> Result<Vec<Standing>, Fault> {
    let tree = json::parse_nested(text, DOCUMENT_DEPTH_MAX, "standing")?;
    let root = Node { tree: &tree, path: "standing".into() };
    let mut standing: Vec<Standing> = root.items()?.iter().map(Standing::read).collect::<Result<_, _>>()?;
    let given_up = given_up(&standing);
    let apart = standing.iter_mut().filter(|document| given_up.contains(&document.bill_to));
    apart.for_each(|document| document.credits.clear());
    Ok(standing)
}

/// The legal entities of whose documents for a boundary one was voided for good: no credit is drawn for them, or given
/// back, any more. What differs is asked in money.
pub fn given_up(standing: &[Standing]) -> BTreeSet<String> {
    standing.iter().filter(|document| document.given_up).map(|document| document.bill_to.clone()).collect()
}

impl Standing {
    fn read(node: &Node) -> Result<Standing, Fault> {
        let mut fields = node.fields()?;
        let bill_to = fields.required("bill_to")?.text()?.to_string();
        let lines = fields.required("lines")?;
        let credits = fields.optional("credits").map_or(Ok(Vec::new()), |node| node.items())?;
        Ok(Standing {
            credits: credits.iter().map(|node| Credit::read(node, &bill_to)).collect::<Result<_, _>>()?,
            number: fields.required("number")?.text()?.to_string(),
            own: fields.required("own")?.boolean()?,
            given_up: fields.optional("given_up").map_or(Ok(false), |node| node.boolean())?,
            lines: lines
                .items()?
                .iter()
                .map(|line| Billed::read(line, &bill_to))
                .collect::<Result<_, _>>()?,
            bill_to,
        })
    }
}

impl Billed {
    fn read(node: &Node, bill_to: &str) -> Result<Billed, Fault> {
        let mut fields = node.fields()?;
        let text = |fields: &mut Fields, name: &str| fields.required(name)?.text().map(str::to_string);
        let maybe = |fields: &mut Fields, name: &str| {
            fields.optional(name).map(|node| node.text().map(str::to_string)).transpose()
        };
        let key = maybe(&mut fields, "corrects")?.map_or_else(|| text(&mut fields, "key"), Ok)?;
        let kind = maybe(&mut fields, "corrects_kind")?.map_or_else(|| text(&mut fields, "kind"), Ok)?;
        let kind = LineKind::parse(&kind)
            .ok_or_else(|| Fault::value(format!("lines of kind {kind} are not known")))?;
        let instant = |fields: &mut Fields, name: &str| fields.required(name)?.instant();
        let dimensions =
            |node: Option<Node>| node.map_or_else(|| Ok(Dimensions::new()), |node| Dimensions::read(&node));
        let names = |node: Node| {
            node.items()?.iter().map(|name| name.text().map(str::to_string)).collect::<Result<Vec<_>, _>>()
        };
        let quantity = fields.optional("quantity").map(|node| node.decimal()).transpose()?;
        let (from, until): (Instant, Instant) =
            (instant(&mut fields, "from")?, instant(&mut fields, "until")?);
        let exact = ratio(&text(&mut fields, "exact")?)?;
        let amount = fields.required("amount")?.decimal()?;
        let line = Line {
            key,
            kind,
            charge: text(&mut fields, "charge")?,
            product: text(&mut fields, "product")?,
            meter: maybe(&mut fields, "meter")?,
            label: text(&mut fields, "label")?,
            from,
            until,
            dimensions: dimensions(fields.optional("dimensions"))?,
            line_by: fields.optional("line_by").map(names).transpose()?.unwrap_or_default(),
            matches: dimensions(fields.optional("match"))?,
            bill_to: bill_to.to_string(),
            quantity,
            unit: maybe(&mut fields, "unit")?,
            price: maybe(&mut fields, "price")?,
            exact: exact.clone(),
            amount,
            pricing: None,
            position: None,
            share: None,
            difference: None,
            list: None,
            elsewhere: false,
            scopes: Vec::new(),
        };
        Ok(Billed { line, sums: Sums { quantity, exact, amount } })
    }
}

/// A decimal of any length, as lines show exact amounts.
fn ratio(text: &str) -> Result<Ratio, Fault> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let part = |text: String| Exact::parse(&text).map(Ratio::from);
    Ok(part(format!("{sign}{whole}"))?.add(&part(format!("{sign}0.{fraction}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_amounts_of_any_length_are_read() {
        for text in ["0", "12.5", "-12.5", "-0.000000000000000001", "123456789012345678.123456789012345678"] {
            assert_eq!(ratio(text).unwrap().shown(), text);
        }
        assert!(ratio("x").is_err());
    }
}
