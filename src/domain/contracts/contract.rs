//! The contract document, and what it comes to together with its plan.

use super::charge::{Entry, Fee, PriceSource, UsageCharge, read_entry};
use super::overrides::{self, Override};
use super::plan::{Billing, Plan, check_every, read_interval, read_items, refuse_later, unique_keys};
use super::renewal::{Renewal, RenewalPrices};
use super::schedule::{Item, Scheduled};
use crate::domain::foundation::calendar::{Calendar, Interval};
use crate::domain::foundation::json::{Node, Tree, field_path, index_path};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Code, Exact, Fault};
use chrono::NaiveDate;

const FIELDS: [&str; 23] = [
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
    "purchase_order",
    "trial",
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
const LATER: [&str; 5] = ["commitments", "credits", "discounts", "add_ons", "entitlements"];
/// Longest purchase order number in bytes.
const PURCHASE_ORDER_MAX: usize = 200;

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
    pub purchase_order: Option<String>,
    pub trial: Option<Trial>,
    pub overrides: Vec<Override>,
    pub charges: Vec<Entry<Scheduled<UsageCharge>>>,
    pub fees: Vec<Entry<Scheduled<Fee>>>,
    pub renewal: Option<Renewal>,
}

/// How long usage costs nothing and fees have not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    For(Interval),
    Until(NaiveDate),
}

impl Trial {
    fn read(node: &Node) -> Result<Trial, Fault> {
        let mut fields = node.fields_of(&["duration", "until"])?;
        let trial = match (fields.optional("duration"), fields.optional("until")) {
            (Some(duration), None) => Trial::For(read_interval(&duration)?),
            (None, Some(until)) => Trial::Until(until.date()?),
            _ => return Err(fields.fault("must have either duration or until")),
        };
        fields.finish()?;
        Ok(trial)
    }

    fn to_tree(self) -> Tree<'static> {
        match self {
            Trial::For(interval) => Tree::object([("duration", Tree::text(interval.to_string()))]),
            Trial::Until(day) => Tree::object([("until", Tree::text(day.to_string()))]),
        }
    }
}

/// The charges and fees of a contract with its plan's, in the order of its invoices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Items {
    pub charges: Vec<Scheduled<UsageCharge>>,
    pub fees: Vec<Scheduled<Fee>>,
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
        let term = fields.optional("term").map(|n| read_interval(&n)).transpose()?;
        let pinned = match fields.optional("prices") {
            None => false,
            Some(n) => n.word(&["float", "pin"])? == "pin",
        };
        let billing = fields.optional("billing").map_or(Ok(Billing::default()), |n| Billing::read(&n))?;
        let purchase_order =
            fields.optional("purchase_order").map(|n| read_purchase_order(&n)).transpose()?;
        let trial = fields.optional("trial").map(|n| Trial::read(&n)).transpose()?;
        let overrides = fields.optional("overrides").map_or(Ok(Vec::new()), |n| overrides::read_list(&n))?;
        let charges = read_items(&mut fields, "charges", |n| read_entry(n, Scheduled::read))?;
        let fees = read_items(&mut fields, "fees", |n| read_entry(n, Scheduled::read))?;
        refuse_later(&mut fields, &LATER)?;
        let renewal = fields.optional("renewal").map(|n| Renewal::read(&n)).transpose()?;
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
            purchase_order,
            trial,
            overrides,
            charges,
            fees,
            renewal,
        })
    }

    /// Whether it can be billed on its plan: refuses what stands for nothing, by its path.
    pub fn check(&self, plan: Option<&Plan>) -> Result<(), Fault> {
        let billing = self.billing(plan);
        billing.check()?;
        self.removals(plan)?;
        let items = self.items(plan);
        if items.charges.is_empty() && items.fees.is_empty() {
            return Err(Fault::document("", "has neither charges nor fees, so it can't bill anything")
                .with_hint("Name a plan, or give charges or fees."));
        }
        self.check_items(plan)?;
        for (at, item) in self.overrides.iter().enumerate() {
            if !items.charges.iter().any(|c| item.is_for(&c.item.key, &c.item.meter)) {
                return Err(no_charge(&index_path("overrides", at), &items));
            }
        }
        let ends_on = self.ends_on(plan)?;
        let trial_until = self.trial_until()?;
        if let Some(end) = ends_on
            && trial_until.is_some_and(|until| until >= end)
        {
            return Err(Fault::document("trial", format!("lasts as long as the contract, until {end}")));
        }
        Calendar::new(self.starts_on, ends_on, billing.interval(), billing.alignment(trial_until))?;
        check_steps(&self.charges, self.starts_on, ends_on)?;
        check_steps(&self.fees, self.begins()?, ends_on)?;
        self.check_renewal()
    }

    /// What every state of a contract must keep: keys that are unique, intervals that fit, prices that are somewhere.
    pub fn check_items(&self, plan: Option<&Plan>) -> Result<(), Fault> {
        let items = self.items(plan);
        let keys = items.charges.iter().map(|c| c.item.key.as_str());
        unique_keys("", keys.chain(items.fees.iter().map(|f| f.item.key.as_str())))?;
        let (charges, fees) = (items.charges.iter().map(|c| &c.item), items.fees.iter().map(|f| &f.item));
        check_every("", &self.billing(plan), charges, fees)?;
        if self.price_book(plan).is_none()
            && items.charges.iter().any(|c| matches!(c.item.source, PriceSource::Book(_)))
        {
            return Err(Fault::document("price_book", "is missing, but charges name prices"));
        }
        Ok(())
    }

    pub fn check_renewal(&self) -> Result<(), Fault> {
        let Some(renewal) = &self.renewal else { return Ok(()) };
        if self.term.is_none() {
            return Err(Fault::document(
                "renewal",
                "is for contracts with a term; this one runs until it is cancelled",
            )
            .with_hint("Give the contract a term, or leave renewal out."));
        }
        if self.pinned && renewal.prices == RenewalPrices::List {
            return Err(Fault::document(
                "renewal.prices",
                "can't be list where prices are pinned for as long as the contract runs",
            )
            .with_hint("Let prices float, or keep them: \"prices\": \"keep\"."));
        }
        Ok(())
    }

    /// How it is billed: what it says, else what its plan says.
    pub fn billing(&self, plan: Option<&Plan>) -> Billing {
        match plan {
            Some(plan) => self.billing.clone().over(&plan.billing),
            None => self.billing.clone(),
        }
    }

    pub fn price_book<'a>(&'a self, plan: Option<&'a Plan>) -> Option<&'a String> {
        self.price_book.as_ref().or_else(|| plan.and_then(|plan| plan.price_book.as_ref()))
    }

    /// An item with a plan item's key replaces it, `remove` drops it.
    pub fn items(&self, plan: Option<&Plan>) -> Items {
        Items {
            charges: merge(plan.map_or(&[], |plan| &plan.charges), &self.charges),
            fees: merge(plan.map_or(&[], |plan| &plan.fees), &self.fees),
        }
    }

    /// Refuses to remove what the plan has not, and keys that stand twice in a list.
    fn removals(&self, plan: Option<&Plan>) -> Result<(), Fault> {
        check_removals("charges", plan.map_or(&[], |plan| &plan.charges), &self.charges)?;
        check_removals("fees", plan.map_or(&[], |plan| &plan.fees), &self.fees)
    }

    /// Forgets to remove what a new plan does not have.
    pub fn drop_removals(&mut self, plan: &Plan) {
        let has = |key: &str| {
            plan.charges.iter().any(|c| c.item.key == key) || plan.fees.iter().any(|f| f.item.key == key)
        };
        self.charges.retain(|entry| matches!(entry, Entry::Item(_)) || has(entry.key()));
        self.fees.retain(|entry| matches!(entry, Entry::Item(_)) || has(entry.key()));
    }

    /// Raises what the contract says of prices: its fees (the plan's, too, which become its own), its own pricings and
    /// the prices of its overrides. List prices and percentages off them are not the contract's to raise.
    pub fn raise(&mut self, plan: Option<&Plan>, percent: Exact) -> Result<(), Fault> {
        for fee in self.items(plan).fees {
            if !self.fees.iter().any(|entry| entry.key() == fee.item.key) && !fee.item.once {
                self.fees.push(Entry::Item(fee));
            }
        }
        for entry in &mut self.fees {
            if let Entry::Item(fee) = entry
                && !fee.item.once
            {
                fee.raise(percent)?;
            }
        }
        for entry in &mut self.charges {
            if let Entry::Item(charge) = entry {
                charge.raise(percent)?;
            }
        }
        self.overrides.iter_mut().try_for_each(|item| item.raise(percent))
    }

    /// From a day on list prices hold: what was agreed on beside them ends.
    pub fn end_agreed_prices(&mut self, day: NaiveDate) {
        self.overrides.retain(|item| item.from.is_some_and(|from| from > day));
    }

    /// First day after the term.
    pub fn ends_on(&self, plan: Option<&Plan>) -> Result<Option<NaiveDate>, Fault> {
        self.term.map(|term| self.billing(plan).term_end(self.starts_on, term)).transpose()
    }

    /// First day after the trial.
    pub fn trial_until(&self) -> Result<Option<NaiveDate>, Fault> {
        let Some(trial) = self.trial else { return Ok(None) };
        let until = match trial {
            Trial::For(interval) => interval
                .nth_after(self.starts_on, 1)
                .ok_or_else(|| Fault::document("trial.duration", "ends after year 9999"))?,
            Trial::Until(day) => day,
        };
        if until <= self.starts_on {
            return Err(Fault::document(
                "trial.until",
                format!("{until} is not after the start on {}", self.starts_on),
            ));
        }
        Ok(Some(until))
    }

    /// The day on which fees begin that say nothing else.
    pub fn begins(&self) -> Result<NaiveDate, Fault> {
        Ok(self.trial_until()?.unwrap_or(self.starts_on))
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
            ("purchase_order", &self.purchase_order),
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
        if let Some(trial) = self.trial {
            fields.push(("trial".into(), trial.to_tree()));
        }
        if let Some(renewal) = &self.renewal {
            fields.push(("renewal".into(), renewal.to_tree()));
        }
        for (name, list) in [
            ("overrides", self.overrides.iter().map(Override::to_tree).collect::<Vec<_>>()),
            ("charges", self.charges.iter().map(Entry::to_tree).collect()),
            ("fees", self.fees.iter().map(Entry::to_tree).collect()),
        ] {
            if !list.is_empty() {
                fields.push((name.into(), Tree::List(list)));
            }
        }
        Tree::Object(fields)
    }

    /// The terms this contract makes on its plan, for as long as they never change: what a timeline makes of it can't be
    /// billed by what reads these.
    pub fn terms(&self, plan: Option<&Plan>) -> Result<Terms, Fault> {
        let later = |path: &str| {
            Err(Fault::document(path, "is not billed by this version")
                .with_hint("Leave it out; CHANGELOG.md says which version brings it."))
        };
        self.check(plan)?;
        let billing = self.billing(plan);
        if billing.fiscal_year_starts.is_some() {
            return later("billing.fiscal_year_starts");
        }
        if billing.end_of_month.is_some() {
            return later("billing.end_of_month");
        }
        for (path, said) in [
            ("trial", self.trial.is_some()),
            ("renewal", self.renewal.is_some()),
            ("purchase_order", self.purchase_order.is_some()),
        ] {
            if said {
                return later(path);
            }
        }
        let items = self.items(plan);
        let interval = billing.interval();
        if let Some(charge) = items.charges.iter().find(|charge| !charge.is_plain()) {
            return later(&field_path("charges", charge.item.key()));
        }
        if let Some(fee) = items
            .fees
            .iter()
            .find(|fee| !fee.is_plain() || fee.item.every.is_some_and(|every| !every.divides(interval)))
        {
            return later(&field_path("fees", fee.item.key()));
        }
        Ok(Terms {
            price_book: self.price_book(plan).cloned(),
            ends_on: self.ends_on(plan)?,
            billing,
            charges: items.charges.into_iter().map(|charge| charge.item).collect(),
            fees: items.fees.into_iter().map(|fee| fee.item).collect(),
        })
    }
}

pub fn read_purchase_order(node: &Node) -> Result<String, Fault> {
    let text = node.text()?;
    if text.is_empty() || text.len() > PURCHASE_ORDER_MAX {
        return Err(node.fault(format!("must have 1 to {PURCHASE_ORDER_MAX} bytes")));
    }
    Ok(text.to_string())
}

/// That an override is for nothing, with what there is.
pub fn no_charge(path: &str, items: &Items) -> Fault {
    let shown: Vec<String> =
        items.charges.iter().map(|c| format!("{} (meter {})", c.item.key, c.item.meter)).collect();
    Fault::document(path, "is for no charge of this contract")
        .with_hint(format!("Its charges are {}.", shown.join(", ")))
}

fn merge<T: Item>(base: &[Scheduled<T>], entries: &[Entry<Scheduled<T>>]) -> Vec<Scheduled<T>> {
    let mut merged: Vec<Scheduled<T>> = base.to_vec();
    for entry in entries {
        let place = merged.iter().position(|item| item.item.key() == entry.key());
        match (entry, place) {
            (Entry::Item(item), Some(place)) => merged[place] = item.clone(),
            (Entry::Item(item), None) => merged.push(item.clone()),
            (Entry::Remove(_), Some(place)) => drop(merged.remove(place)),
            (Entry::Remove(_), None) => (),
        }
    }
    merged
}

/// Whether the steps of items can be taken, for items that begin on a day unless they say a later one.
pub fn check_steps<T: Item>(
    entries: &[Entry<Scheduled<T>>],
    begins: NaiveDate,
    ends: Option<NaiveDate>,
) -> Result<(), Fault> {
    for (at, entry) in entries.iter().enumerate() {
        let Entry::Item(item) = entry else { continue };
        item.check_steps(begins, ends).map_err(|fault| fault.inside(&index_path(T::LIST, at)))?;
    }
    Ok(())
}

fn check_removals<T: Item>(
    list: &str,
    base: &[Scheduled<T>],
    entries: &[Entry<Scheduled<T>>],
) -> Result<(), Fault> {
    for (at, entry) in entries.iter().enumerate() {
        let name = entry.key();
        if entries[..at].iter().any(|other| other.key() == name) {
            return Err(Fault::document(&format!("{list}[{at}].key"), format!("\"{name}\" stands twice")));
        }
        if matches!(entry, Entry::Remove(_)) && !base.iter().any(|item| item.item.key() == name) {
            return Err(Fault::new(
                Code::Document,
                format!("{list}[{at}]: the plan has no \"{name}\" to remove"),
            ));
        }
    }
    Ok(())
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
            ("net_days", Tree::number(self.billing.net_days())),
            ("collection", Tree::text(self.billing.collection().to_string())),
            ("price_book", optional(self.price_book.clone())),
            ("ends_on", optional(self.ends_on.map(|d| d.to_string()))),
            ("items", Tree::List(items.collect())),
        ])
    }
}
