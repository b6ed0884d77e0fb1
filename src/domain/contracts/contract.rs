//! The contract document and the terms it makes together with its plan.

use super::charge::{Entry, Fee, PriceSource, UsageCharge, read_entry};
use super::overrides::{self, Override, Target};
use super::plan::{Billing, Plan, check_every, read_items, refuse_later, unique_keys};
use crate::domain::foundation::calendar::{Calendar, Interval};
use crate::domain::foundation::json::{Node, Tree};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Code, Fault};
use chrono::NaiveDate;

const FIELDS: [&str; 21] = [
    "key",
    "customer",
    "seller",
    "currency",
    "time_zone",
    "starts_on",
    "term",
    "plan",
    "price_book",
    "prices",
    "billing",
    "bill_to",
    "overrides",
    "charges",
    "fees",
    "commitments",
    "credits",
    "discounts",
    "add_ons",
    "entitlements",
    "renewal",
];
/// Parts of the document that later versions bill; until then they must be empty.
const LATER: [&str; 6] = ["commitments", "credits", "discounts", "add_ons", "entitlements", "renewal"];

/// A contract as a document says it.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    pub key: String,
    pub customer: String,
    pub seller: Option<String>,
    pub currency: Option<String>,
    pub time_zone: Option<String>,
    pub starts_on: NaiveDate,
    /// How long it runs; `None` = evergreen.
    pub term: Option<Interval>,
    /// Plan key, `@version` optional.
    pub plan: Option<String>,
    pub price_book: Option<String>,
    /// Whether the list prices of signing hold for the whole term.
    pub pinned: bool,
    pub billing: Billing,
    pub bill_to: Option<String>,
    pub overrides: Vec<Override>,
    pub charges: Vec<Entry<UsageCharge>>,
    pub fees: Vec<Entry<Fee>>,
}

impl Contract {
    pub fn read(node: &Node) -> Result<Contract, Fault> {
        let mut fields = node.fields_of(&FIELDS)?;
        let key = fields.required("key")?.key()?.to_string();
        let customer = fields.required("customer")?.key()?.to_string();
        let mut text = |name: &str| fields.optional(name).map(|n| n.key().map(str::to_string)).transpose();
        let (seller, time_zone, plan) = (text("seller")?, text("time_zone")?, text("plan")?);
        let (price_book, bill_to) = (text("price_book")?, text("bill_to")?);
        let currency = match fields.optional("currency") {
            None => None,
            Some(n) => Some(Unit::parse(n.text()?).map_err(|fault| n.rehint(fault))?.as_str().to_string()),
        };
        let starts_on = fields.required("starts_on")?.date()?;
        let term = fields
            .optional("term")
            .map(|n| Interval::parse(n.text()?).map_err(|fault| n.rehint(fault)))
            .transpose()?;
        let pinned = match fields.optional("prices") {
            None => false,
            Some(n) => n.word(&["float", "pin"])? == "pin",
        };
        let billing = fields.optional("billing").map_or(Ok(Billing::default()), |n| Billing::read(&n))?;
        let overrides = fields.optional("overrides").map_or(Ok(Vec::new()), |n| overrides::read_list(&n))?;
        let charges = read_items(&mut fields, "charges", |n| read_entry(n, UsageCharge::read))?;
        let fees = read_items(&mut fields, "fees", |n| read_entry(n, Fee::read))?;
        refuse_later(&mut fields, &LATER)?;
        fields.finish()?;
        Ok(Contract {
            key,
            customer,
            seller,
            currency,
            time_zone,
            starts_on,
            term,
            plan,
            price_book,
            pinned,
            billing,
            bill_to,
            overrides,
            charges,
            fees,
        })
    }

    /// The terms this contract makes on its plan: an item with a plan item's key replaces it, `remove`
    /// drops it, what is not said is the plan's, then the default.
    pub fn terms(&self, plan: Option<&Plan>) -> Result<Terms, Fault> {
        let billing = match plan {
            Some(plan) => self.billing.clone().over(&plan.billing),
            None => self.billing.clone(),
        };
        billing.check()?;
        let charges = merge("charges", plan.map_or(&[], |p| &p.charges), &self.charges, |c| &c.key)?;
        let fees = merge("fees", plan.map_or(&[], |p| &p.fees), &self.fees, |f| &f.key)?;
        unique_keys("", charges.iter().map(|c| c.key.as_str()).chain(fees.iter().map(|f| f.key.as_str())))?;
        check_every("", &billing, &charges, &fees)?;
        if charges.is_empty() && fees.is_empty() {
            return Err(Fault::document("", "has neither charges nor fees, so it can't bill anything")
                .with_hint("Name a plan, or give charges or fees."));
        }
        let price_book = self.price_book.clone().or_else(|| plan.and_then(|p| p.price_book.clone()));
        if price_book.is_none() && charges.iter().any(|c| matches!(c.source, PriceSource::Book(_))) {
            return Err(Fault::document("price_book", "is missing, but charges name prices"));
        }
        for (at, item) in self.overrides.iter().enumerate() {
            let known = match &item.target {
                Target::Charge(key) => charges.iter().any(|c| c.key == *key),
                Target::Meter(key) => charges.iter().any(|c| c.meter == *key),
            };
            if !known {
                let shown: Vec<String> =
                    charges.iter().map(|c| format!("{} (meter {})", c.key, c.meter)).collect();
                return Err(Fault::document(
                    &format!("overrides[{at}]"),
                    "is for no charge of this contract",
                )
                .with_hint(format!("Its charges are {}.", shown.join(", "))));
            }
        }
        let ends_on = self.ends_on()?;
        Calendar::new(self.starts_on, ends_on, billing.interval(), billing.alignment(None))?;
        Ok(Terms { billing, price_book, ends_on, charges, fees })
    }

    /// First day after the term.
    fn ends_on(&self) -> Result<Option<NaiveDate>, Fault> {
        let Some(term) = self.term else { return Ok(None) };
        let whole = Calendar::new(
            self.starts_on,
            None,
            term,
            crate::domain::foundation::calendar::Alignment::Anniversary,
        )?;
        whole.boundary(1).map(Some).ok_or_else(|| {
            Fault::document("term", format!("{term} from {} ends after year 9999", self.starts_on))
        })
    }

    /// Canonical form; what is absent stays absent.
    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![
            ("key".into(), Tree::text(self.key.clone())),
            ("customer".into(), Tree::text(self.customer.clone())),
            ("starts_on".into(), Tree::text(self.starts_on.to_string())),
        ];
        for (name, value) in [
            ("seller", &self.seller),
            ("currency", &self.currency),
            ("time_zone", &self.time_zone),
            ("plan", &self.plan),
            ("price_book", &self.price_book),
            ("bill_to", &self.bill_to),
        ] {
            if let Some(value) = value {
                fields.push((name.into(), Tree::text(value.clone())));
            }
        }
        if let Some(term) = self.term {
            fields.push(("term".into(), Tree::text(term.to_string())));
        }
        if self.pinned {
            fields.push(("prices".into(), Tree::text("pin")));
        }
        if !self.billing.is_empty() {
            fields.push(("billing".into(), self.billing.to_tree()));
        }
        let removal =
            |key: &String| Tree::object([("key", Tree::text(key.clone())), ("remove", Tree::Bool(true))]);
        let charges: Vec<Tree> = self
            .charges
            .iter()
            .map(|e| match e {
                Entry::Item(charge) => charge.to_tree(),
                Entry::Remove(key) => removal(key),
            })
            .collect();
        let fees: Vec<Tree> = self
            .fees
            .iter()
            .map(|e| match e {
                Entry::Item(fee) => fee.to_tree(),
                Entry::Remove(key) => removal(key),
            })
            .collect();
        let overrides: Vec<Tree> = self.overrides.iter().map(Override::to_tree).collect();
        for (name, list) in [("overrides", overrides), ("charges", charges), ("fees", fees)] {
            if !list.is_empty() {
                fields.push((name.into(), Tree::List(list)));
            }
        }
        Tree::Object(fields)
    }
}

/// What a contract and its plan come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    pub billing: Billing,
    pub price_book: Option<String>,
    pub ends_on: Option<NaiveDate>,
    pub charges: Vec<UsageCharge>,
    pub fees: Vec<Fee>,
}

impl Terms {
    /// For SQL: every default filled in, every item with its interval.
    pub fn to_tree(&self) -> Tree<'static> {
        let interval = self.billing.interval();
        let item = |kind: &'static str, every: Option<Interval>, terms: Tree<'static>| {
            Tree::object([
                ("kind", Tree::text(kind)),
                ("every", Tree::text(every.unwrap_or(interval).to_string())),
                ("terms", terms),
            ])
        };
        let items = self
            .charges
            .iter()
            .map(|c| item("usage", c.every, c.to_tree()))
            .chain(self.fees.iter().map(|f| item("fee", f.every, f.to_tree())));
        let optional = |text: Option<String>| text.map_or(Tree::Null, Tree::text);
        Tree::object([
            ("interval", Tree::text(interval.to_string())),
            ("alignment", Tree::text(self.billing.alignment(None).to_string())),
            ("net_days", Tree::number(self.billing.net_days.unwrap_or(super::plan::DEFAULT_NET_DAYS))),
            (
                "collection",
                Tree::text(self.billing.collection.clone().unwrap_or_else(|| "send_invoice".into())),
            ),
            ("price_book", optional(self.price_book.clone())),
            ("ends_on", optional(self.ends_on.map(|d| d.to_string()))),
            ("items", Tree::List(items.collect())),
        ])
    }
}

fn merge<T: Clone>(
    list: &str,
    base: &[T],
    entries: &[Entry<T>],
    key: impl Fn(&T) -> &String,
) -> Result<Vec<T>, Fault> {
    let mut merged: Vec<T> = base.to_vec();
    let mut touched: Vec<&str> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let name = match entry {
            Entry::Item(item) => key(item),
            Entry::Remove(name) => name,
        };
        if touched.contains(&name.as_str()) {
            return Err(Fault::document(&format!("{list}[{at}].key"), format!("\"{name}\" stands twice")));
        }
        touched.push(name);
        let place = merged.iter().position(|item| key(item) == name);
        match (entry, place) {
            (Entry::Item(item), Some(place)) => merged[place] = item.clone(),
            (Entry::Item(item), None) => merged.push(item.clone()),
            (Entry::Remove(_), Some(place)) => drop(merged.remove(place)),
            (Entry::Remove(name), None) => {
                return Err(Fault::new(
                    Code::Document,
                    format!("{list}[{at}]: the plan has no \"{name}\" to remove"),
                ));
            }
        }
    }
    Ok(merged)
}
