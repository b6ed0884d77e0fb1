//! The catalogue document: products, meters, price books with prices, features, plans.
//!
//! Reading it gives one item per entity in the order of dependence, each in canonical form, so that
//! applying the same document twice changes nothing.

use super::contract::check_quantities;
use super::plan::Plan;
use crate::domain::entitlements;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::{Fields, Node, Tree};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Fault, hash};
use crate::domain::metering::meter::Meter;
use crate::domain::rating::Pricing;
use std::collections::HashSet;

/// Most entries of one kind in one document.
pub const ITEMS_MAX: usize = 10_000;

/// What is stored beside a pricing, so that nobody has to read it for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub splits: bool,
    pub cuts: bool,
    pub needs_events: bool,
}

/// One entity of the document.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// product, meter, price_book, price, feature or plan.
    pub kind: &'static str,
    pub key: String,
    /// The price book of a price.
    pub parent: Option<String>,
    /// Where it stands in the document.
    pub path: String,
    /// When a new version begins to hold; `None` = now.
    pub valid_from: Option<Instant>,
    pub retired: bool,
    /// Canonical document; `None` where only `"retired": true` was said.
    pub document: Option<Tree<'static>>,
    /// Of a price: SHA-256 of its canonical pricing, rows included.
    pub pricing_sha256: Option<String>,
    pub facts: Option<Facts>,
}

pub fn read(root: &Node) -> Result<Vec<Item>, Fault> {
    let mut fields = root.fields_of(&["products", "meters", "price_books", "features", "plans"])?;
    let mut items = Vec::new();
    section(&mut fields, "products", &mut items, read_product)?;
    section(&mut fields, "meters", &mut items, read_meter)?;
    // What a compound is made of comes before it, wherever it stands.
    items.sort_by_key(|item| {
        (item.kind == "meter", item.document.as_ref().is_some_and(|d| d.get("of").is_some()))
    });
    for node in fields.optional("price_books").map_or(Ok(Vec::new()), |n| n.items_at_most(ITEMS_MAX))? {
        read_book(&node, &mut items)?;
    }
    section(&mut fields, "features", &mut items, read_feature)?;
    section(&mut fields, "plans", &mut items, read_plan)?;
    fields.finish()?;
    let mut seen = HashSet::new();
    for item in &items {
        if !seen.insert((item.kind, item.parent.as_deref(), item.key.as_str())) {
            return Err(Fault::document(&item.path, format!("{} \"{}\" stands twice", item.kind, item.key)));
        }
    }
    Ok(items)
}

fn section<'t>(
    fields: &mut Fields<'t>,
    name: &str,
    items: &mut Vec<Item>,
    read: impl Fn(&Node<'t>) -> Result<Item, Fault>,
) -> Result<(), Fault> {
    for node in fields.optional(name).map_or(Ok(Vec::new()), |n| n.items_at_most(ITEMS_MAX))? {
        items.push(read(&node)?);
    }
    Ok(())
}

fn retired(fields: &mut Fields) -> Result<bool, Fault> {
    fields.optional("retired").map_or(Ok(false), |n| n.boolean())
}

fn valid_from(fields: &mut Fields) -> Result<Option<Instant>, Fault> {
    fields.optional("valid_from").map(|n| n.instant()).transpose()
}

fn item(kind: &'static str, key: String, path: &str) -> Item {
    Item {
        kind,
        key,
        parent: None,
        path: path.to_string(),
        valid_from: None,
        retired: false,
        document: None,
        pricing_sha256: None,
        facts: None,
    }
}

fn read_product(node: &Node) -> Result<Item, Fault> {
    let mut fields = node.fields_of(&["key", "name", "retired"])?;
    let key = fields.required("key")?.key()?.to_string();
    let name = fields.optional("name").map(|n| n.text().map(str::to_string)).transpose()?;
    let retired = retired(&mut fields)?;
    fields.finish()?;
    let document = match (&name, retired) {
        (None, true) => None,
        _ => Some(Tree::object([
            ("key", Tree::text(key.clone())),
            ("name", Tree::text(name.unwrap_or_else(|| key.clone()))),
        ])),
    };
    Ok(Item { retired, document, ..item("product", key, &node.path) })
}

/// The entity without its bookkeeping fields, for the reader of its own layer.
fn without<'t>(node: &Node<'t>, names: &[&str]) -> Result<Tree<'t>, Fault> {
    Ok(Tree::Object(
        node.entries()?
            .into_iter()
            .filter(|(name, _)| !names.contains(name))
            .map(|(name, value)| (name.into(), value.tree.clone()))
            .collect(),
    ))
}

fn only_retired(node: &Node) -> Result<bool, Fault> {
    Ok(node.entries()?.iter().all(|(name, _)| matches!(*name, "key" | "retired")))
}

fn read_meter(node: &Node) -> Result<Item, Fault> {
    let mut fields = node.fields_of(&[&Meter::FIELDS[..], &["valid_from", "retired"]].concat())?;
    let key = fields.required("key")?.key()?.to_string();
    let retired = retired(&mut fields)?;
    let valid_from = valid_from(&mut fields)?;
    let document = if retired && only_retired(node)? {
        None
    } else {
        let tree = without(node, &["valid_from", "retired"])?;
        Some(Meter::read(&Node { tree: &tree, path: node.path.clone() })?.to_tree())
    };
    Ok(Item { retired, valid_from, document, ..item("meter", key, &node.path) })
}

fn read_book(node: &Node, items: &mut Vec<Item>) -> Result<(), Fault> {
    let mut fields = node.fields_of(&["key", "currency", "retired", "prices"])?;
    let key = fields.required("key")?.key()?.to_string();
    let currency = match fields.optional("currency") {
        None => None,
        Some(n) => Some(Unit::parse(n.text()?).map_err(|fault| n.rehint(fault))?.as_str().to_string()),
    };
    let retired = retired(&mut fields)?;
    let prices = fields.optional("prices").map_or(Ok(Vec::new()), |n| n.items_at_most(ITEMS_MAX))?;
    fields.finish()?;
    let document = currency
        .map(|currency| Tree::object([("key", Tree::text(key.clone())), ("currency", Tree::text(currency))]));
    items.push(Item { retired, document, ..item("price_book", key.clone(), &node.path) });
    for price in prices {
        items.push(Item { parent: Some(key.clone()), ..read_price(&price)? });
    }
    Ok(())
}

fn read_price(node: &Node) -> Result<Item, Fault> {
    let mut fields = node.fields_of(&["key", "meter", "pricing", "valid_from", "retired"])?;
    let key_node = fields.required("key")?;
    let key = key_node.key()?.to_string();
    if key.contains('@') {
        return Err(key_node.fault("must not contain @, which separates a price from its version"));
    }
    let retired = retired(&mut fields)?;
    let valid_from = valid_from(&mut fields)?;
    let meter = fields.optional("meter").map(|n| n.key().map(str::to_string)).transpose()?;
    let pricing_node = fields.optional("pricing");
    fields.finish()?;
    let (document, pricing_sha256, facts) = match (meter, pricing_node) {
        (None, None) if retired => (None, None, None),
        (Some(meter), Some(pricing)) => {
            let pricing = Pricing::read(&pricing)?;
            let document = Tree::object([
                ("key", Tree::text(key.clone())),
                ("meter", Tree::text(meter)),
                ("pricing", pricing.to_tree()),
            ]);
            let facts = Facts {
                splits: pricing.splits_in_time(),
                cuts: pricing.can_be_cut(),
                needs_events: pricing.needs_events(),
            };
            (Some(document), Some(hash::sha256_hex(pricing.canonical().as_bytes())), Some(facts))
        }
        (None, _) => return Err(Fault::document(&format!("{}.meter", node.path), "is missing")),
        (_, None) => return Err(Fault::document(&format!("{}.pricing", node.path), "is missing")),
    };
    Ok(Item { retired, valid_from, document, pricing_sha256, facts, ..item("price", key, &node.path) })
}

/// What is used up names the meter that says how much was; what credit pays for, its unit.
fn read_feature(node: &Node) -> Result<Item, Fault> {
    let mut fields = node.fields_of(&["key", "name", "kind", "meter", "unit", "retired"])?;
    let key = entitlements::item::read_feature(&fields.required("key")?)?;
    let name = fields.optional("name").map(|n| n.text().map(str::to_string)).transpose()?;
    let kind = fields.optional("kind").map(|n| n.word(&entitlements::Kind::WORDS)).transpose()?;
    let meter = fields.optional("meter");
    let unit = fields.optional("unit");
    let retired = retired(&mut fields)?;
    let document = match kind.and_then(entitlements::Kind::parse) {
        None if retired && only_retired(node)? => None,
        None => return Err(Fault::document(&format!("{}.kind", node.path), "is missing")),
        Some(kind) => {
            let mut document = vec![
                ("key".into(), Tree::text(key.clone())),
                ("name".into(), Tree::text(name.unwrap_or_else(|| key.clone()))),
                ("kind".into(), Tree::text(kind.as_str())),
            ];
            let is_credit = kind == entitlements::Kind::Credit;
            let at = |field: &str| format!("{}.{field}", node.path);
            match meter {
                None if kind.has_quota() => return Err(Fault::document(&at("meter"), "is missing")),
                None => (),
                // What credit pays for may be counted, too: then it can be consumed.
                Some(meter) if kind.has_quota() || is_credit => {
                    document.push(("meter".into(), Tree::text(meter.key()?)));
                }
                Some(meter) => return Err(meter.fault("is for metered, seat and credit features")),
            }
            match unit {
                None if is_credit => return Err(Fault::document(&at("unit"), "is missing")),
                None => (),
                Some(unit) if is_credit => {
                    let parsed = Unit::parse(unit.text()?).map_err(|fault| unit.rehint(fault))?;
                    document.push(("unit".into(), Tree::text(parsed.as_str())));
                }
                Some(unit) => return Err(unit.fault("is for credit features")),
            }
            Some(Tree::Object(document))
        }
    };
    fields.finish()?;
    Ok(Item { retired, document, ..item("feature", key, &node.path) })
}

fn read_plan(node: &Node) -> Result<Item, Fault> {
    let mut fields = node.fields_of(&[&Plan::FIELDS[..], &["retired"]].concat())?;
    let key = fields.required("key")?.key()?.to_string();
    let retired = retired(&mut fields)?;
    let document = if retired && only_retired(node)? {
        None
    } else {
        let tree = without(node, &["retired"])?;
        let plan = Plan::read(&Node { tree: &tree, path: node.path.clone() })?;
        check_quantities(&node.path, plan.fees.iter().map(Some))?;
        Some(plan.to_tree())
    };
    Ok(Item { retired, document, ..item("plan", key, &node.path) })
}

/// For SQL: the items as JSON.
pub fn to_tree(items: Vec<Item>) -> Tree<'static> {
    let optional = |text: Option<String>| text.map_or(Tree::Null, Tree::text);
    let fact = |fact: Option<bool>| fact.map_or(Tree::Null, Tree::Bool);
    Tree::List(
        items
            .into_iter()
            .map(|i| {
                Tree::object([
                    ("kind", Tree::text(i.kind)),
                    ("key", Tree::text(i.key)),
                    ("parent", optional(i.parent)),
                    ("path", Tree::text(i.path)),
                    ("valid_from", optional(i.valid_from.map(|at| at.to_string()))),
                    ("retired", Tree::Bool(i.retired)),
                    ("document", i.document.unwrap_or(Tree::Null)),
                    ("pricing_sha256", optional(i.pricing_sha256)),
                    ("splits", fact(i.facts.map(|facts| facts.splits))),
                    ("cuts", fact(i.facts.map(|facts| facts.cuts))),
                    ("needs_events", fact(i.facts.map(|facts| facts.needs_events))),
                ])
            })
            .collect(),
    )
}
