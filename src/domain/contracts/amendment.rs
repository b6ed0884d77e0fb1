//! An amendment: what of a running contract is different from a day on. What it does not name stays.

use super::OVERRIDES_MAX;
use super::charge::{Entry, Fee, UsageCharge, read_entry, read_quantity};
use super::contract::{Contract, no_charge, read_purchase_order};
use super::overrides::{self, Override, Target, read_target};
use super::plan::{Plan, read_interval, read_items, refuse_later};
use super::renewal::Renewal;
use super::schedule::{Item, Scheduled, StepAt};
use crate::domain::foundation::calendar::Interval;
use crate::domain::foundation::json::{Node, Tree, check_key, field_path, index_path};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::Dimensions;
use crate::domain::rating::Pricing;
use chrono::NaiveDate;

const FIELDS: [&str; 14] = [
    "charges",
    "fees",
    "overrides",
    "discounts",
    "commitments",
    "credits",
    "add_ons",
    "entitlements",
    "quantities",
    "prices",
    "term",
    "renewal",
    "purchase_order",
    "bill_to",
];
const LATER: [&str; 5] = ["commitments", "credits", "discounts", "add_ons", "entitlements"];
/// What bills differently is another contract; of each what helps.
const FIXED: [(&str, &str); 11] = [
    ("plan", "Use billing.contract_change_plan()."),
    ("phases", "Amend the charges and fees themselves, or give them ramps."),
    ("trial", "A trial is agreed on before the contract begins. Give a discount of 100 percent instead."),
    ("key", "Make a new contract."),
    ("customer", "Make a new contract for the other customer, and cancel this one."),
    ("seller", "Make a new contract, and cancel this one."),
    ("currency", "Make a new contract in the other currency, and cancel this one."),
    ("time_zone", "Make a new contract in the other zone, and cancel this one."),
    ("starts_on", "Make a new contract that starts on the other day."),
    ("billing", "Make a new contract with the other interval, alignment or net days, and cancel this one."),
    ("price_book", "Make a new contract with the other book, or give overrides."),
];

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Amendment {
    pub charges: Vec<Entry<Scheduled<UsageCharge>>>,
    pub fees: Vec<Entry<Scheduled<Fee>>>,
    pub overrides: Vec<OverrideEntry>,
    pub quantities: Vec<(String, Exact)>,
    pub prices: Vec<(String, Pricing)>,
    pub term: Option<Interval>,
    pub renewal: Option<Renewal>,
    pub purchase_order: Option<String>,
    pub bill_to: Option<String>,
}

/// An override, or the end of the one for the same target and match.
#[derive(Debug, Clone, PartialEq)]
pub enum OverrideEntry {
    Item(Override),
    Remove(Target, Dimensions),
}

impl OverrideEntry {
    fn read(node: &Node) -> Result<OverrideEntry, Fault> {
        let mut fields = node.fields()?;
        let Some(remove) = fields.raw("remove") else {
            return Override::read(node).map(OverrideEntry::Item);
        };
        if !remove.boolean()? {
            return Err(remove.fault("must be true, or absent"));
        }
        fields.only(&["meter", "charge", "match", "remove"])?;
        let (target, matches) = read_target(&mut fields)?;
        fields.finish()?;
        Ok(OverrideEntry::Remove(target, matches))
    }

    fn to_tree(&self) -> Tree<'static> {
        match self {
            OverrideEntry::Item(item) => item.to_tree(),
            OverrideEntry::Remove(target, matches) => {
                let mut fields = vec![target.to_field()];
                if !matches.is_empty() {
                    fields.push(("match".into(), matches.to_tree()));
                }
                fields.push(("remove".into(), Tree::Bool(true)));
                Tree::Object(fields)
            }
        }
    }

    fn id(&self) -> String {
        match self {
            OverrideEntry::Item(item) => item.id(),
            OverrideEntry::Remove(target, matches) => overrides::id(target, matches),
        }
    }
}

impl Amendment {
    pub fn read(node: &Node) -> Result<Amendment, Fault> {
        let mut fields = node.fields()?;
        if let Some((name, hint)) = FIXED.iter().find(|(name, _)| fields.raw(name).is_some()) {
            return Err(Fault::document(&field_path(&node.path, name), "can't be amended").with_hint(*hint));
        }
        let mut fields = node.fields_of(&FIELDS)?;
        let charges = read_items(&mut fields, "charges", |n| read_entry(n, Scheduled::read))?;
        let fees = read_items(&mut fields, "fees", |n| read_entry(n, Scheduled::read))?;
        let mut overrides: Vec<OverrideEntry> = Vec::new();
        if let Some(list) = fields.optional("overrides") {
            for node in list.items_at_most(OVERRIDES_MAX)? {
                let next = OverrideEntry::read(&node)?;
                let collides = |other: &OverrideEntry| match (other, &next) {
                    (OverrideEntry::Item(a), OverrideEntry::Item(b)) => a.collides(b),
                    _ => other.id() == next.id(),
                };
                if let Some(at) = overrides.iter().position(collides) {
                    return Err(node.fault(format!(
                        "is for the same target, match and time as overrides[{at}]; only one can hold"
                    )));
                }
                overrides.push(next);
            }
        }
        let quantities = read_map(fields.optional("quantities"), read_quantity)?;
        let prices = read_map(fields.optional("prices"), Pricing::read)?;
        let term = fields.optional("term").map(|n| read_interval(&n)).transpose()?;
        let renewal = fields.optional("renewal").map(|n| Renewal::read(&n)).transpose()?;
        let purchase_order =
            fields.optional("purchase_order").map(|n| read_purchase_order(&n)).transpose()?;
        let bill_to = fields.optional("bill_to").map(|n| n.key().map(str::to_string)).transpose()?;
        refuse_later(&mut fields, &LATER)?;
        fields.finish()?;
        let amendment = Amendment {
            charges,
            fees,
            overrides,
            quantities,
            prices,
            term,
            renewal,
            purchase_order,
            bill_to,
        };
        if amendment == Amendment::default() {
            return Err(node
                .fault("changes nothing")
                .with_hint(format!("It may have: {}.", FIELDS.join(", "))));
        }
        Ok(amendment)
    }

    /// Canonical form.
    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields = Vec::new();
        for (name, list) in [
            ("charges", self.charges.iter().map(Entry::to_tree).collect::<Vec<_>>()),
            ("fees", self.fees.iter().map(Entry::to_tree).collect()),
            ("overrides", self.overrides.iter().map(OverrideEntry::to_tree).collect()),
        ] {
            if !list.is_empty() {
                fields.push((name.into(), Tree::List(list)));
            }
        }
        if !self.quantities.is_empty() {
            let entry =
                |(key, quantity): &(String, Exact)| (key.clone().into(), Tree::text(quantity.to_string()));
            fields.push(("quantities".into(), Tree::Object(self.quantities.iter().map(entry).collect())));
        }
        if !self.prices.is_empty() {
            let entry = |(key, pricing): &(String, Pricing)| (key.clone().into(), pricing.to_tree());
            fields.push(("prices".into(), Tree::Object(self.prices.iter().map(entry).collect())));
        }
        if let Some(term) = self.term {
            fields.push(("term".into(), Tree::text(term.to_string())));
        }
        if let Some(renewal) = &self.renewal {
            fields.push(("renewal".into(), renewal.to_tree()));
        }
        for (name, value) in [("purchase_order", &self.purchase_order), ("bill_to", &self.bill_to)] {
            if let Some(value) = value {
                fields.push((name.into(), Tree::text(value.clone())));
            }
        }
        Tree::Object(fields)
    }

    /// Makes the document in force from `day` on of the one before, of a contract that ends then. The term is the
    /// timeline's to change.
    pub fn apply(
        &self,
        contract: &mut Contract,
        plan: Option<&Plan>,
        day: NaiveDate,
        ends: Option<NaiveDate>,
    ) -> Result<(), Fault> {
        let base: (&[_], &[_]) = plan.map_or((&[], &[]), |plan| (&plan.charges, &plan.fees));
        let begins = contract.begins()?;
        put_items(&mut contract.charges, base.0, &self.charges, day, (contract.starts_on, ends))?;
        put_items(&mut contract.fees, base.1, &self.fees, day, (begins, ends))?;
        for (at, entry) in self.overrides.iter().enumerate() {
            put_override(&mut contract.overrides, entry, &index_path("overrides", at), day)?;
        }
        for (key, quantity) in &self.quantities {
            let path = field_path("quantities", key);
            if find(&contract.charges, base.0, key).is_some() {
                return Err(Fault::document(&path, "is a usage charge, which has no quantity of its own"));
            }
            restate(&mut contract.fees, base.1, key, &path, begins, day, Some(*quantity), None)?;
        }
        for (key, pricing) in &self.prices {
            let path = field_path("prices", key);
            let pricing = Some(pricing.clone());
            if find(&contract.charges, base.0, key).is_some() {
                restate(&mut contract.charges, base.0, key, &path, contract.starts_on, day, None, pricing)?;
            } else {
                restate(&mut contract.fees, base.1, key, &path, begins, day, None, pricing)?;
            }
        }
        if let Some(renewal) = &self.renewal {
            contract.renewal = Some(renewal.clone());
        }
        if let Some(number) = &self.purchase_order {
            contract.purchase_order = Some(number.clone());
        }
        if let Some(key) = &self.bill_to {
            contract.bill_to = Some(key.clone());
        }
        contract.check_items(plan)?;
        let items = contract.items(plan);
        for (at, entry) in self.overrides.iter().enumerate() {
            if let OverrideEntry::Item(item) = entry
                && !items.charges.iter().any(|c| item.is_for(&c.item.key, &c.item.meter))
            {
                return Err(no_charge(&index_path("overrides", at), &items));
            }
        }
        Ok(())
    }
}

fn read_map<T>(
    node: Option<Node>,
    read: impl Fn(&Node) -> Result<T, Fault>,
) -> Result<Vec<(String, T)>, Fault> {
    let Some(node) = node else { return Ok(Vec::new()) };
    let mut map = Vec::new();
    for (key, value) in node.entries()? {
        check_key(key).map_err(|why| node.fault(format!("key \"{key}\" {why}")))?;
        map.push((key.to_string(), read(&value)?));
    }
    map.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(map)
}

/// The item of this key in force: the contract's own, else the plan's.
fn find<'i, T: Item>(
    own: &'i [Entry<Scheduled<T>>],
    base: &'i [Scheduled<T>],
    key: &str,
) -> Option<&'i Scheduled<T>> {
    match own.iter().find(|entry| entry.key() == key) {
        Some(Entry::Item(item)) => Some(item),
        Some(Entry::Remove(_)) => None,
        None => base.iter().find(|item| item.item.key() == key),
    }
}

fn put<T: Item>(own: &mut Vec<Entry<Scheduled<T>>>, entry: Entry<Scheduled<T>>) {
    match own.iter_mut().find(|old| old.key() == entry.key()) {
        Some(old) => *old = entry,
        None => own.push(entry),
    }
}

fn put_items<T: Item>(
    own: &mut Vec<Entry<Scheduled<T>>>,
    base: &[Scheduled<T>],
    entries: &[Entry<Scheduled<T>>],
    day: NaiveDate,
    (begins, ends): (NaiveDate, Option<NaiveDate>),
) -> Result<(), Fault> {
    for (at, entry) in entries.iter().enumerate() {
        let path = index_path(T::LIST, at);
        if entries[..at].iter().any(|other| other.key() == entry.key()) {
            return Err(Fault::document(
                &field_path(&path, "key"),
                format!("\"{}\" stands twice", entry.key()),
            ));
        }
        let known = find(own, base, entry.key()).is_some();
        match entry {
            Entry::Remove(key) if !known => {
                return Err(Fault::document(&path, format!("the contract has no \"{key}\" to remove")));
            }
            Entry::Remove(key) => {
                own.retain(|old| old.key() != key);
                if base.iter().any(|item| item.item.key() == key) {
                    own.push(entry.clone());
                }
            }
            Entry::Item(item) => {
                let item = dated(item, day, known).map_err(|fault| fault.inside(&path))?;
                item.check_steps(begins, ends).map_err(|fault| fault.inside(&path))?;
                put(own, Entry::Item(item));
            }
        }
    }
    Ok(())
}

/// An item of an amendment: what it counts from its beginning, it counts from the day of the change.
fn dated<T: Item>(item: &Scheduled<T>, day: NaiveDate, known: bool) -> Result<Scheduled<T>, Fault> {
    let mut item = item.clone();
    if let Some(from) = item.from {
        if known && from > day {
            return Err(Fault::document(
                "from",
                format!("{from} is after {day}, when the change takes the old one's place"),
            )
            .with_hint("Let the amendment take effect on that day."));
        }
        if item.item.once() && from < day {
            return Err(Fault::document(
                "from",
                format!("{from} is before {day}, when the change takes effect"),
            ));
        }
    }
    if item.until.is_some_and(|until| until <= day) {
        return Err(Fault::document("until", format!("lies before {day}, when the change takes effect")));
    }
    let counts = item.step_up.is_some() || item.ramp.iter().any(|step| matches!(step.at, StepAt::After(_)));
    if counts || item.item.once() {
        item.from = item.from.or(Some(day));
    }
    Ok(item)
}

fn put_override(
    own: &mut Vec<Override>,
    entry: &OverrideEntry,
    path: &str,
    day: NaiveDate,
) -> Result<(), Fault> {
    let id = entry.id();
    match entry {
        OverrideEntry::Remove(..) => {
            let before = own.len();
            own.retain(|old| old.id() != id);
            if own.len() == before {
                return Err(Fault::document(path, "the contract has no such override to remove"));
            }
        }
        OverrideEntry::Item(item) => {
            if item.until.is_some_and(|until| until <= day) {
                return Err(Fault::document(
                    path,
                    format!("ends before {day}, when the change takes effect"),
                ));
            }
            // What was agreed before holds until this begins, then no more.
            let begins = item.from.filter(|from| *from > day);
            own.retain_mut(|old| {
                if old.id() != id || !old.collides(item) {
                    return true;
                }
                let Some(begins) = begins else { return false };
                old.until = Some(old.until.map_or(begins, |until| until.min(begins)));
                old.from.is_none_or(|from| from < begins)
            });
            own.push(item.clone());
        }
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one call for quantities, one for prices")]
fn restate<T: Item>(
    own: &mut Vec<Entry<Scheduled<T>>>,
    base: &[Scheduled<T>],
    key: &str,
    path: &str,
    begins: NaiveDate,
    day: NaiveDate,
    quantity: Option<Exact>,
    pricing: Option<Pricing>,
) -> Result<(), Fault> {
    let Some(item) = find(own, base, key) else {
        return Err(Fault::document(path, "is no charge or fee of this contract"));
    };
    if item.item.once() {
        return Err(Fault::document(path, "is billed once, so that it has nothing to change")
            .with_hint("Add another fee, billed once, for the difference."));
    }
    if let Some(pricing) = &pricing {
        T::check_pricing(path, pricing)?;
    }
    let mut item = item.clone();
    let begins = item.from.unwrap_or(begins).max(begins);
    item.restate(begins, day, quantity, pricing).map_err(|fault| fault.inside(path))?;
    put(own, Entry::Item(item));
    Ok(())
}
