//! What two timelines say differently: every item that changed, as it was and as it is.

use super::charge::Fee;
use crate::domain::foundation::calendar::Interval;
use crate::domain::foundation::json::{Node, Tree};
use crate::domain::foundation::{Fault, Ratio};
use crate::domain::metering::Dimensions;
use chrono::NaiveDate;
use std::collections::HashMap;

/// One item, or one fact of the whole contract, of which two timelines speak differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// A row's kind, or `contract`.
    pub kind: String,
    /// The row's key, or the fact's name.
    pub item: String,
    /// Canonical JSON; `None` = the timeline does not have it.
    pub before: Option<String>,
    pub after: Option<String>,
}

impl Difference {
    pub fn change(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }
}

/// Facts that say how the contract as a whole goes on.
const FACTS: [&str; 7] = ["ends_on", "ends_at", "cancelled", "notice", "paused", "term", "renewal"];
/// Facts with stretches of their own.
const VALUES: [&str; 4] = ["bill_tos", "purchase_orders", "credit_modes", "credit_orders"];

/// Whether the fees of a day, each over its own time, sum to less in the second of two timelines: a downgrade.
pub fn fees_fall(before: &Node, after: &Node, day: NaiveDate) -> Result<bool, Fault> {
    let fees = |timeline: &Node| -> Result<Ratio, Fault> {
        let mut sum = Ratio::ZERO;
        for node in timeline.fields()?.required("rows")?.items()? {
            let mut row = node.fields()?;
            if row.required("kind")?.text()? != "fee" {
                continue;
            }
            let (from, until) =
                (row.required("from")?.date()?, row.optional("until").map(|n| n.date()).transpose()?);
            let fee = Fee::read(&row.required("terms")?)?;
            if day < from || until.is_some_and(|until| day >= until) || fee.once {
                continue;
            }
            let days = match Interval::parse(row.required("every")?.text()?)? {
                Interval::Months(months) => Ratio::new(i128::from(months) * 365, 12),
                Interval::Days(days) => Ratio::from(i64::from(days)),
            };
            let price = fee.pricing.rate(&Ratio::from(fee.quantity), &Dimensions::new(), 1)?;
            sum = sum.add(&price.div(&days).unwrap_or(Ratio::ZERO));
        }
        Ok(sum)
    };
    Ok(fees(after)?.sub(&fees(before)?).is_negative())
}

/// Compares timelines as [`Timeline::to_tree`](super::timeline::Timeline::to_tree) writes them.
pub fn differences(before: &Node, after: &Node) -> Result<Vec<Difference>, Fault> {
    let mut found = Vec::new();
    for name in FACTS {
        let fact = |node: &Node| {
            node.tree.get(name).filter(|tree| **tree != Tree::Null).map(Tree::canonical).transpose()
        };
        let (was, is) = (fact(before)?, fact(after)?);
        if was != is {
            found.push(Difference { kind: "contract".into(), item: name.into(), before: was, after: is });
        }
    }
    for name in VALUES {
        let (was, is) = (values(before, name)?, values(after, name)?);
        if was != is {
            found.push(Difference { kind: "contract".into(), item: name.into(), before: was, after: is });
        }
    }
    let (was, is) = (Items::of(before)?, Items::of(after)?);
    for id in is.order.iter().chain(was.order.iter().filter(|id| !is.said.contains_key(*id))) {
        let (before, after) = (was.said.get(id).cloned(), is.said.get(id).cloned());
        if before != after {
            found.push(Difference { kind: id.0.clone(), item: id.1.clone(), before, after });
        }
    }
    Ok(found)
}

/// Whether a row's field says something beyond what the whole contract says: not who it is, nor that it ends with it.
fn says(timeline: &Node, row: &Tree, name: &str) -> bool {
    let same = |of_row: &str, of_contract: &str| row.get(of_row) == timeline.tree.get(of_contract);
    match name {
        "kind" | "key" | "position" | "amended" => false,
        "until" => match (row.get("until_at"), timeline.tree.get("ends_at")) {
            (None, None) => !same("until", "ends_on"),
            (at, end) => at != end,
        },
        "until_at" => !same("until_at", "ends_at"),
        _ => true,
    }
}

/// The stretches of a fact that has a value at some time.
fn values(timeline: &Node, name: &str) -> Result<Option<String>, Fault> {
    let Some(Tree::List(list)) = timeline.tree.get(name) else { return Ok(None) };
    if list.iter().all(|fact| fact.get("value") == Some(&Tree::Null)) {
        return Ok(None);
    }
    let said = list.iter().map(|fact| told(timeline, fact)).collect();
    Tree::List(said).canonical().map(Some)
}

fn told<'t>(timeline: &Node, row: &Tree<'t>) -> Tree<'t> {
    let Tree::Object(entries) = row else { return row.clone() };
    Tree::Object(entries.iter().filter(|(name, _)| says(timeline, row, name)).cloned().collect())
}

/// The stretches of each item as one canonical list. One that ends with the contract has no end of its own, so that a
/// longer term is one difference.
struct Items {
    order: Vec<(String, String)>,
    said: HashMap<(String, String), String>,
}

impl Items {
    fn of(timeline: &Node) -> Result<Items, Fault> {
        let mut order: Vec<(String, String)> = Vec::new();
        let mut rows: HashMap<(String, String), Vec<Tree>> = HashMap::new();
        for node in timeline.fields()?.required("rows")?.items()? {
            let mut fields = node.fields()?;
            let id =
                (fields.required("kind")?.text()?.to_string(), fields.required("key")?.text()?.to_string());
            if !rows.contains_key(&id) {
                order.push(id.clone());
            }
            rows.entry(id).or_default().push(told(timeline, node.tree));
        }
        let said = rows.into_iter().map(|(id, list)| Ok((id, Tree::List(list).canonical()?)));
        Ok(Items { order, said: said.collect::<Result<_, Fault>>()? })
    }
}
