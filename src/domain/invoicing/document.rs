//! The invoice document (definitions D3), canonical: the same inputs give the same bytes.
//!
//! What is computed is lines, totals, inputs; status, number and dates are known when it is issued. A recompute
//! compares the former.

use super::commitments::{Owed, Spent};
use super::compute::{Line, Position, Unpriced};
use super::difference::{Due, Earlier};
use super::inputs::{Header, Inputs};
use super::purse::{Credit, Purse};
use crate::domain::foundation::hash::sha256_hex;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::Tree;
use crate::domain::foundation::{Code, Exact, Fault, Ratio};
use chrono::NaiveDate;
use std::fmt::Write;

/// A computed bill: the documents of its legal entities, the default one first.
#[derive(Debug)]
pub struct Documents {
    header: Header,
    pub minor_units: u32,
    policies: Vec<(String, String)>,
    prices: Vec<String>,
    price_ends: Vec<(String, Instant)>,
    later_prices: Vec<(String, Option<Instant>)>,
    unpriced: Vec<Unpriced>,
    meters: Vec<String>,
    /// The earlier boundaries that it corrects.
    earlier: Vec<Earlier>,
    /// The earlier boundaries that have usage nothing prices yet, or differences that are not due yet.
    left_out: Vec<i64>,
    /// What credit was settled from, and the documents whose usage counts for commitments, as a recompute needs it.
    credits: Option<Tree<'static>>,
    counted: Vec<String>,
    /// Until when what changed terms make of later service was due, where some was not and no boundary says it.
    due_until: Option<Instant>,
    pub sha256: String,
    pub list: Vec<Document>,
}

/// What one legal entity gets.
#[derive(Debug)]
pub struct Document {
    pub bill_to: String,
    /// In the document's order.
    pub lines: Vec<Line>,
    pub total: Exact,
    /// What its lines draw from credit.
    pub credits: Vec<Credit>,
    /// What credit pays of its total.
    pub paid: Exact,
}

/// A bill's lines, before its documents.
#[derive(Debug)]
pub struct Rated {
    pub inputs: Inputs,
    pub lines: Vec<Line>,
    pub unpriced: Vec<Unpriced>,
    /// What falls due of commitments.
    pub dues: Vec<Owed>,
}

/// What credit and commitments add to a bill.
#[derive(Debug, Default)]
pub struct Funding {
    /// What has to be drawn for the bill's own boundary.
    pub own: Vec<Credit>,
    /// What it was settled from.
    pub purse: Option<Purse>,
    /// Which of its blocks mattered to the boundary.
    pub relevant: Vec<bool>,
    /// Of a bill with a true-up: what is spent on documents that stand.
    pub spent: Option<Spent>,
}

impl Document {
    fn new(bill_to: String) -> Document {
        Document { bill_to, lines: Vec::new(), total: Exact::ZERO, credits: Vec::new(), paid: Exact::ZERO }
    }

    /// The boundaries whose lines it corrects.
    pub fn corrects(&self) -> Vec<i64> {
        let of_lines = self.lines.iter().filter_map(|line| Some(line.difference.as_ref()?.boundary));
        let mut boundaries: Vec<i64> =
            of_lines.chain(self.credits.iter().filter_map(|credit| credit.boundary)).collect();
        boundaries.sort_unstable();
        boundaries.dedup();
        boundaries
    }
}

/// What is known once a document is issued.
#[derive(Debug, Default)]
pub struct Issue {
    pub status: Option<String>,
    pub number: Option<String>,
    pub issued_on: Option<NaiveDate>,
    pub due_on: Option<NaiveDate>,
}

impl Documents {
    /// One document per legal entity that has lines; with `with_empty` the default one's also when it has none.
    /// What differs from what stands for earlier boundaries comes after the bill's own lines.
    pub fn compute(
        rated: Rated,
        funding: Funding,
        (earlier, due): (Vec<Earlier>, Option<Due>),
        with_empty: bool,
    ) -> Result<Documents, Fault> {
        let Rated { inputs, lines: own, unpriced, .. } = rated;
        let sha256 = inputs.sha256();
        let Inputs { header, minor_units, policies, prices, price_ends, later_prices, meters, .. } = inputs;
        let mut documents = Documents {
            header,
            minor_units,
            policies,
            prices,
            price_ends,
            later_prices,
            meters,
            unpriced,
            earlier: Vec::new(),
            left_out: Vec::new(),
            credits: None,
            counted: funding.spent.iter().flat_map(|spent| spent.numbers.clone()).collect(),
            due_until: None,
            sha256,
            list: Vec::new(),
        };
        documents.add(own);
        documents.credit(funding.own);
        let (mut purse, mut relevant) = (funding.purse, funding.relevant);
        let held = purse.as_ref().map(|purse| purse.held().clone()).unwrap_or_default();
        for mut boundary in earlier {
            let keeps = Inputs::keeps_decreases(&documents.policies);
            let (mut differences, waits) = boundary.lines(&documents.list, due, keeps)?;
            differences.retain(|line| !held.contains(&line.bill_to));
            if let Some(odd) = differences.iter().find(|line| line.amount.to_fixed(minor_units).is_none()) {
                let message =
                    format!("{} is billed in more than {minor_units} digits after the point", odd.key);
                return Err(Fault::new(Code::State, message));
            }
            if waits {
                documents.due_until = due.filter(|due| due.said).map(|due| due.until);
            }
            if waits || boundary.now.as_ref().is_some_and(|now| !now.unpriced.is_empty()) {
                documents.left_out.push(boundary.boundary);
            }
            // Of a boundary issued again, what stands for it is settled with it.
            let again = boundary.now.is_none() && boundary.standing.iter().any(|s| !s.credits.is_empty());
            if !differences.is_empty() || !boundary.credits.is_empty() || again {
                documents.add(differences);
                documents.credit(std::mem::take(&mut boundary.credits));
                relevant.iter_mut().zip(&boundary.relevant).for_each(|(all, of)| *all |= of);
                documents.earlier.push(boundary);
            } else if let Some(purse) = purse.as_mut() {
                for document in &boundary.standing {
                    purse.without(&document.credits)?;
                }
            }
        }
        documents.credits = purse.as_ref().and_then(|purse| purse.record(&relevant));
        documents.digest(funding.spent.as_ref())?;
        if documents.list.is_empty() && with_empty {
            documents.list.push(Document::new(documents.header.bill_to.clone()));
        }
        // What stands for a legal entity stands: what it should be now is for the contract's next bill.
        documents.list.retain(|document| !purse.as_ref().is_some_and(|p| p.leaves_out(&document.bill_to)));
        let default = &documents.header.bill_to;
        documents.list.sort_by(|Document { bill_to: a, .. }, Document { bill_to: b, .. }| {
            (a != default, a).cmp(&(b != default, b))
        });
        for document in &mut documents.list {
            document.total = document.lines.iter().try_fold(Exact::ZERO, |sum, line| sum.add(line.amount))?;
            let paid = document.credits.iter().filter(|credit| credit.unit.is_none());
            document.paid = paid.map(|credit| credit.amount).try_fold(Exact::ZERO, Exact::add)?;
        }
        Ok(documents)
    }

    /// Adds what the bill was settled from, and the earlier boundaries it was compared with, to the digest of its inputs.
    fn digest(&mut self, spent: Option<&Spent>) -> Result<(), Fault> {
        if self.credits.is_some() || spent.is_some() {
            let mut text = format!("{}\n", self.sha256);
            if let Some(credits) = &self.credits {
                writeln!(text, "credits {}", credits.canonical()?).expect("a string");
            }
            spent.iter().try_for_each(|spent| spent.describe(&mut text))?;
            self.sha256 = sha256_hex(text.as_bytes());
        }
        if !self.earlier.is_empty() {
            let mut text = format!("{}\n", self.sha256);
            self.earlier.iter().try_for_each(|boundary| boundary.describe(&mut text)).expect("a string");
            text.extend(self.due_until.map(|until| format!("due until {}\n", until.0)));
            self.sha256 = sha256_hex(text.as_bytes());
        }
        Ok(())
    }

    /// Credits go to the documents of their lines' legal entities.
    fn credit(&mut self, credits: Vec<Credit>) {
        for credit in credits {
            self.of_bill_to(&credit.bill_to).credits.push(credit);
        }
    }

    fn of_bill_to(&mut self, bill_to: &str) -> &mut Document {
        let at = self.list.iter().position(|document| document.bill_to == bill_to);
        let at = at.unwrap_or_else(|| {
            self.list.push(Document::new(bill_to.to_string()));
            self.list.len() - 1
        });
        &mut self.list[at]
    }

    /// Lines go to the documents of their legal entities.
    fn add(&mut self, lines: Vec<Line>) {
        for line in lines {
            self.of_bill_to(&line.bill_to.clone()).lines.push(line);
        }
    }

    pub fn contract_version(&self) -> i64 {
        self.header.contract_version
    }

    pub fn terms_version(&self) -> i64 {
        self.header.terms_version
    }

    /// A document's canonical JSON.
    pub fn text(&self, document: &Document, issue: &Issue) -> Result<String, Fault> {
        let money = |amount: Exact| {
            Tree::text(amount.to_fixed(self.minor_units).expect("posted amounts have the currency's digits"))
        };
        let total = document.total;
        let header = &self.header;
        let lines = document.lines.iter().map(|line| line_tree(line, self.minor_units)).collect();
        let mut fields = vec![
            ("seller".into(), Tree::text(header.seller.clone())),
            ("customer".into(), Tree::text(header.customer.clone())),
            ("bill_to".into(), Tree::text(document.bill_to.clone())),
            ("contract".into(), Tree::text(header.contract.clone())),
            ("currency".into(), Tree::text(header.currency.clone())),
            ("minor_units".into(), Tree::number(self.minor_units)),
            ("lines".into(), Tree::List(lines)),
            (
                "totals".into(),
                Tree::object([
                    ("lines", money(total)),
                    ("discount", money(Exact::ZERO)),
                    ("tax", money(Exact::ZERO)),
                    ("total", money(total)),
                    ("credits", money(document.paid.neg())),
                    ("due", money(total.sub(document.paid)?)),
                ]),
            ),
            ("inputs".into(), self.inputs_tree()),
        ];
        if !document.credits.is_empty() {
            let credits = document.credits.iter().map(|credit| credit.to_tree(self.minor_units)).collect();
            fields.push(("credits".into(), Tree::List(credits)));
        }
        let issued = [
            ("purchase_order", header.purchase_order.clone()),
            ("status", issue.status.clone()),
            ("number", issue.number.clone()),
            ("issued_on", issue.issued_on.map(|day| day.to_string())),
            ("due_on", issue.due_on.map(|day| day.to_string())),
        ];
        let known = issued.into_iter().filter_map(|(name, value)| Some((name.into(), Tree::text(value?))));
        fields.extend(known);
        Tree::Object(fields).canonical()
    }

    /// The boundaries with usage that was left out, of which this bill is `boundary`.
    pub fn left_out(&self, boundary: Option<i64>) -> Vec<i64> {
        let own = boundary.filter(|_| !self.unpriced.is_empty());
        self.left_out.iter().copied().chain(own).collect()
    }

    /// By what the bill can be computed again.
    pub fn terms_tree(&self) -> Tree<'static> {
        Tree::object([("minor_units", Tree::number(self.minor_units)), ("inputs", self.inputs_tree())])
    }

    /// What a recompute needs to know: of the bill, and of each boundary it corrects.
    fn inputs_tree(&self) -> Tree<'static> {
        let policies =
            self.policies.iter().map(|(name, value)| (name.clone().into(), Tree::text(value.clone())));
        let mut fields = vec![
            ("contract_version", Tree::number(self.header.contract_version)),
            ("terms_version", Tree::number(self.header.terms_version)),
            ("prices", Tree::List(self.prices.iter().map(|price| Tree::text(price.clone())).collect())),
            ("policies", Tree::Object(policies.collect())),
            ("sha256", Tree::text(self.sha256.clone())),
        ];
        if !self.meters.is_empty() {
            let meters = self.meters.iter().map(|meter| Tree::text(meter.clone()));
            fields.push(("meters", Tree::List(meters.collect())));
        }
        if !self.price_ends.is_empty() {
            let ends =
                self.price_ends.iter().map(|(name, at)| (name.clone().into(), Tree::text(at.to_string())));
            fields.push(("price_ends", Tree::Object(ends.collect())));
        }
        if !self.later_prices.is_empty() {
            let later = self.later_prices.iter().map(|(name, end)| {
                (name.clone().into(), end.map_or(Tree::Null, |at| Tree::text(at.to_string())))
            });
            fields.push(("later_prices", Tree::Object(later.collect())));
        }
        fields.extend(self.credits.clone().map(|credits| ("credits", credits)));
        if !self.counted.is_empty() {
            let numbers = self.counted.iter().map(|number| Tree::text(number.clone()));
            fields.push(("counted", Tree::List(numbers.collect())));
        }
        if let Some(until) = self.due_until {
            fields.push(("due_until", Tree::text(until.to_string())));
        }
        if !self.unpriced.is_empty() {
            fields.push(("unpriced", Tree::List(self.unpriced.iter().map(unpriced_tree).collect())));
        }
        if !self.earlier.is_empty() {
            fields.push((
                "differences",
                Tree::List(self.earlier.iter().map(Documents::earlier_tree).collect()),
            ));
        }
        Tree::Object(fields.into_iter().map(|(name, tree)| (name.into(), tree)).collect())
    }
}

impl Documents {
    fn earlier_tree(earlier: &Earlier) -> Tree<'static> {
        let standing = earlier.standing.iter().map(|document| Tree::text(document.number.clone())).collect();
        let mut fields = vec![
            ("boundary".into(), Tree::number(earlier.boundary)),
            ("billed_on".into(), Tree::List(standing)),
        ];
        let given_up = earlier.standing.iter().filter(|document| document.given_up);
        let given_up: Vec<_> = given_up.map(|document| Tree::text(document.number.clone())).collect();
        if !given_up.is_empty() {
            fields.push(("given_up".into(), Tree::List(given_up)));
        }
        if let Some(now) = &earlier.now {
            fields.push(("terms".into(), now.terms_tree()));
        }
        Tree::Object(fields)
    }
}

fn line_tree(line: &Line, minor_units: u32) -> Tree<'static> {
    let mut fields = vec![
        ("key".into(), Tree::text(line.key.clone())),
        ("kind".into(), Tree::text(line.kind.as_str())),
        ("charge".into(), Tree::text(line.charge.clone())),
        ("product".into(), Tree::text(line.product.clone())),
        ("label".into(), Tree::text(line.label.clone())),
        ("from".into(), Tree::text(line.from.to_string())),
        ("until".into(), Tree::text(line.until.to_string())),
        ("dimensions".into(), line.dimensions.to_tree()),
        ("exact".into(), Tree::text(line.exact.shown())),
        (
            "amount".into(),
            Tree::text(line.amount.to_fixed(minor_units).expect("posted amounts have the currency's digits")),
        ),
    ];
    let mut optional = |name: &'static str, value: Option<Tree<'static>>| {
        if let Some(value) = value {
            fields.push((name.into(), value));
        }
    };
    optional("quantity", line.quantity.map(|quantity| Tree::text(quantity.to_string())));
    optional("meter", line.meter.clone().map(Tree::text));
    optional("unit", line.unit.clone().map(Tree::text));
    optional("price", line.price.clone().map(Tree::text));
    match &line.position {
        Some(Position::After(quantity)) => optional("after", Some(Tree::text(quantity.to_string()))),
        Some(Position::Of(quantity)) => optional("of", Some(Tree::text(quantity.to_string()))),
        None => {}
    }
    optional("share", line.share.as_ref().map(|share| Tree::text(fraction(share))));
    optional("pricing", line.pricing.as_ref().map(|pricing| pricing.to_tree()));
    if !line.line_by.is_empty() {
        let names = line.line_by.iter().map(|name| Tree::text(name.clone())).collect();
        fields.push(("line_by".into(), Tree::List(names)));
    }
    if !line.matches.is_empty() {
        fields.push(("match".into(), line.matches.to_tree()));
    }
    if let Some(list) = &line.list {
        fields.extend(list.fields(line, minor_units));
    }
    if let Some(difference) = &line.difference {
        fields.extend(difference.fields(minor_units).into_iter().map(|(name, tree)| (name.into(), tree)));
    }
    Tree::Object(fields)
}

fn unpriced_tree(unpriced: &Unpriced) -> Tree<'static> {
    Tree::object([
        ("charge", Tree::text(unpriced.charge.clone())),
        ("meter", Tree::text(unpriced.meter.clone())),
        ("from", Tree::text(unpriced.from.to_string())),
        ("until", Tree::text(unpriced.until.to_string())),
        ("dimensions", unpriced.dimensions.to_tree()),
        ("bill_to", Tree::text(unpriced.bill_to.clone())),
        ("quantity", Tree::text(unpriced.quantity.to_string())),
        ("events", Tree::number(unpriced.events)),
        ("reason", Tree::text(unpriced.reason.clone())),
    ])
}

/// `12/31`, reduced.
fn fraction(share: &Ratio) -> String {
    let (part, whole) = share.parts();
    format!("{part}/{whole}")
}
