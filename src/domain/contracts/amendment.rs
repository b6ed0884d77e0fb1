//! An amendment: what of a running contract is different from a day on. What it does not name stays.

use super::charge::{Entry, Fee, Keyed, UsageCharge, read_entry, read_quantity};
use super::contract::{
    Contract, Items, check_discount, check_quantities, no_charge, read_credit_mode, read_purchase_order,
};
use super::extras::{AddOn, Commitment, Discount, Entitlement, Grant};
use super::overrides::{self, Override, Target, read_target};
use super::plan::{Plan, read_interval, read_items};
use super::renewal::Renewal;
use super::schedule::{Item, Scheduled, StepAt};
use super::{EXTRAS_MAX, OVERRIDES_MAX};
use crate::domain::credits::Order;
use crate::domain::foundation::calendar::Interval;
use crate::domain::foundation::json::{Fields, Node, Tree, check_key, field_path, index_path};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::Dimensions;
use crate::domain::rating::Pricing;
use chrono::NaiveDate;

const FIELDS: [&str; 16] = [
    "charges",
    "fees",
    "overrides",
    "discounts",
    "commitments",
    "credits",
    "credit_order",
    "credit_mode",
    "add_ons",
    "entitlements",
    "quantities",
    "prices",
    "term",
    "renewal",
    "purchase_order",
    "bill_to",
];
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
    pub discounts: Vec<Entry<Discount>>,
    pub commitments: Vec<Entry<Commitment>>,
    pub credits: Vec<Entry<Grant>>,
    pub credit_order: Option<Order>,
    pub credit_mode: Option<String>,
    pub add_ons: Vec<Entry<AddOn>>,
    pub entitlements: Vec<Entry<Entitlement>>,
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
        let discounts = read_entries(&mut fields, Discount::read)?;
        let commitments = read_entries(&mut fields, Commitment::read)?;
        let credits = read_entries(&mut fields, Grant::read)?;
        let credit_order = fields.optional("credit_order").map(|n| Order::read(&n)).transpose()?;
        let credit_mode = fields.optional("credit_mode").map(|n| read_credit_mode(&n)).transpose()?;
        let add_ons = read_entries(&mut fields, AddOn::read)?;
        let entitlements = read_entries(&mut fields, Entitlement::read)?;
        fields.finish()?;
        let amendment = Amendment {
            charges,
            fees,
            overrides,
            discounts,
            commitments,
            credits,
            credit_order,
            credit_mode,
            add_ons,
            entitlements,
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
            ("discounts", self.discounts.iter().map(Entry::to_tree).collect()),
            ("commitments", self.commitments.iter().map(Entry::to_tree).collect()),
            ("credits", self.credits.iter().map(Entry::to_tree).collect()),
            ("add_ons", self.add_ons.iter().map(Entry::to_tree).collect()),
            ("entitlements", self.entitlements.iter().map(Entry::to_tree).collect()),
        ] {
            if !list.is_empty() {
                fields.push((name.into(), Tree::List(list)));
            }
        }
        if let Some(order) = &self.credit_order {
            fields.push(("credit_order".into(), order.to_tree()));
        }
        if let Some(mode) = &self.credit_mode {
            fields.push(("credit_mode".into(), Tree::text(mode.clone())));
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
        self.put_extras(contract, day)?;
        let start = contract.starts_on;
        for (key, quantity) in &self.quantities {
            let path = field_path("quantities", key);
            if contract.all_items(plan).charges.iter().any(|charge| charge.item.key == *key) {
                return Err(Fault::document(&path, "is a usage charge, which has no quantity of its own"));
            }
            let to = Restated { path: &path, day, quantity: Some(*quantity), pricing: None };
            match contract.add_ons.iter_mut().find_map(|add_on| add_on.fee_mut(key, start)) {
                Some((since, fee)) => to.put(fee, since.max(begins))?,
                None => to.put_own(&mut contract.fees, base.1, key, begins)?,
            }
        }
        for (key, pricing) in &self.prices {
            let path = field_path("prices", key);
            let to = Restated { path: &path, day, quantity: None, pricing: Some(pricing.clone()) };
            if let Some((since, charge)) = contract.add_ons.iter_mut().find_map(|a| a.charge_mut(key, start))
            {
                to.put(charge, since)?;
            } else if let Some((since, fee)) = contract.add_ons.iter_mut().find_map(|a| a.fee_mut(key, start))
            {
                to.put(fee, since.max(begins))?;
            } else if find(&contract.charges, base.0, key).is_some() {
                to.put_own(&mut contract.charges, base.0, key, start)?;
            } else {
                to.put_own(&mut contract.fees, base.1, key, begins)?;
            }
        }
        if let Some(renewal) = &self.renewal {
            contract.renewal = Some(renewal.clone());
        }
        if let Some(order) = &self.credit_order {
            contract.credit_order = Some(order.clone());
        }
        if let Some(mode) = &self.credit_mode {
            contract.credit_mode = Some(mode.clone());
        }
        if let Some(number) = &self.purchase_order {
            contract.purchase_order = Some(number.clone());
        }
        if let Some(key) = &self.bill_to {
            contract.bill_to = Some(key.clone());
        }
        contract.check_items(plan)?;
        self.check(contract, plan, ends)?;
        contract.settle(plan);
        Ok(())
    }

    /// The lists whose items are replaced by key.
    fn put_extras(&self, contract: &mut Contract, day: NaiveDate) -> Result<(), Fault> {
        put_keyed(&mut contract.discounts, &self.discounts, |item, old| {
            late("from", item.from, day, old.is_some())?;
            over("until", item.until, day)?;
            let from = item.from.or(item.duration.and(Some(day)));
            Ok(Discount { from, ..item.clone() })
        })?;
        put_keyed(&mut contract.commitments, &self.commitments, |item, old| {
            late("from", item.from, day, old.is_some())?;
            over("until", item.until, day)?;
            // The periods go on as they were counted; those that have begun keep their terms.
            let from = item.from.or(old.and_then(|old| old.from)).or(Some(day));
            let every = item.every.or(old.and_then(|old| old.every));
            Ok(Commitment { from, every, ..item.clone() })
        })?;
        let granted = |grant: &Grant| grant.every.is_none() && grant.effective_on.is_some_and(|on| on < day);
        for (at, entry) in self.credits.iter().enumerate() {
            if contract.credits.iter().any(|old| old.key == entry.key() && granted(old)) {
                let message = format!("\"{}\" was granted before {day}", entry.key());
                return Err(Fault::document(&index_path("credits", at), message)
                    .with_hint("billing.credit_void() takes it back; further credit has another key."));
            }
        }
        put_keyed(&mut contract.credits, &self.credits, |item, old| {
            late("effective_on", item.effective_on, day, old.is_some())?;
            let effective_on = item.effective_on.or(old.and_then(|old| old.effective_on)).or(Some(day));
            if item.every.is_none() && item.paid_by.is_none() && effective_on.is_some_and(|on| on < day) {
                return Err(Fault::document(
                    "effective_on",
                    format!("lies before {day}, when the change takes effect"),
                ));
            }
            Ok(Grant { effective_on, ..item.clone() })
        })?;
        put_keyed(&mut contract.add_ons, &self.add_ons, |item, old| {
            late("from", item.from, day, old.is_some())?;
            over("until", item.until, day)?;
            let from = item.from.or(old.and_then(|old| old.from)).or(Some(day));
            Ok(AddOn { from, ..item.clone() })
        })?;
        put_keyed(&mut contract.entitlements, &self.entitlements, |item, _| Ok(item.clone()))
    }

    /// Refuses quantities that count for nothing in the contract as it then is.
    fn check_quantities(&self, items: &Items) -> Result<(), Fault> {
        check_quantities("", self.fees.iter().map(Entry::item))?;
        for (n, add_on) in self.add_ons.iter().enumerate() {
            let fees = add_on.item().into_iter().flat_map(|add_on| add_on.fees.iter().map(Some));
            check_quantities(&index_path("add_ons", n), fees)?;
        }
        for (key, quantity) in self.quantities.iter().filter(|(_, quantity)| *quantity != Exact::ONE) {
            let mut fees = items.fees.iter().filter(|fee| fee.item.key == *key);
            if let Some(fault) = fees.find_map(|fee| fee.check_quantity().err()) {
                let message =
                    format!("{quantity} counts for nothing: the price of {key} is flat, for all of them");
                return Err(Fault {
                    hint: fault.hint,
                    ..Fault::document(&field_path("quantities", key), message)
                });
            }
        }
        Ok(())
    }

    /// What of it must stand for something in the contract as it then is.
    fn check(&self, contract: &Contract, plan: Option<&Plan>, ends: Option<NaiveDate>) -> Result<(), Fault> {
        let items = contract.all_items(plan);
        for (at, entry) in self.overrides.iter().enumerate() {
            if let OverrideEntry::Item(item) = entry
                && !items.charges.iter().any(|c| item.is_for(&c.item.key, &c.item.meter))
            {
                return Err(no_charge(&index_path("overrides", at), &items));
            }
        }
        let during = (contract.starts_on, contract.last_end(ends));
        each(&self.discounts, &contract.discounts, |discount| check_discount(discount, &items, during))?;
        self.check_quantities(&items)?;
        each(&self.add_ons, &contract.add_ons, |add_on| contract.check_add_on(add_on, ends))?;
        each(&self.commitments, &contract.commitments, |item| contract.check_commitment(item, plan, ends))?;
        each(&self.credits, &contract.credits, |grant| contract.check_grant(grant, ends))?;
        // What credits were paid by may have gone.
        contract.credits.iter().try_for_each(|grant| match &grant.paid_by {
            Some(by) if !contract.commitments.iter().any(|commitment| commitment.key == *by) => {
                Err(Fault::document("commitments", format!("\"{by}\" pays for credit \"{}\"", grant.key))
                    .with_hint("Remove the credit, too."))
            }
            _ => Ok(()),
        })
    }
}

/// Checks those items of a list that an amendment gives, as they now are.
fn each<T: Keyed>(
    given: &[Entry<T>],
    now: &[T],
    check: impl Fn(&T) -> Result<(), Fault>,
) -> Result<(), Fault> {
    for (at, entry) in given.iter().enumerate() {
        if let Some(item) = entry.item().and(now.iter().find(|item| item.key() == entry.key())) {
            check(item).map_err(|fault| fault.inside(&index_path(T::LIST, at)))?;
        }
    }
    Ok(())
}

/// Refuses a beginning after the change for what takes another's place.
fn late(name: &str, from: Option<NaiveDate>, day: NaiveDate, known: bool) -> Result<(), Fault> {
    match from {
        Some(from) if known && from > day => Err(Fault::document(
            name,
            format!("{from} is after {day}, when the change takes the old one's place"),
        )
        .with_hint("Let the amendment take effect on that day.")),
        _ => Ok(()),
    }
}

/// Refuses an end before the change.
fn over(name: &str, until: Option<NaiveDate>, day: NaiveDate) -> Result<(), Fault> {
    match until {
        Some(until) if until <= day => {
            Err(Fault::document(name, format!("{until} lies before {day}, when the change takes effect")))
        }
        _ => Ok(()),
    }
}

fn read_entries<'t, T: Keyed>(
    fields: &mut Fields<'t>,
    read: impl Fn(&Node) -> Result<T, Fault>,
) -> Result<Vec<Entry<T>>, Fault> {
    let mut list: Vec<Entry<T>> = Vec::new();
    for node in fields.optional(T::LIST).map_or(Ok(Vec::new()), |n| n.items_at_most(EXTRAS_MAX))? {
        let entry = read_entry(&node, &read)?;
        if list.iter().any(|other| other.key() == entry.key()) {
            return Err(node.fault(format!("\"{}\" stands twice", entry.key())));
        }
        list.push(entry);
    }
    Ok(list)
}

fn put_keyed<T: Keyed>(
    own: &mut Vec<T>,
    entries: &[Entry<T>],
    prepare: impl Fn(&T, Option<&T>) -> Result<T, Fault>,
) -> Result<(), Fault> {
    for (at, entry) in entries.iter().enumerate() {
        let path = index_path(T::LIST, at);
        let place = own.iter().position(|old| old.key() == entry.key());
        match (entry, place) {
            (Entry::Remove(_), Some(place)) => drop(own.remove(place)),
            (Entry::Remove(key), None) => {
                return Err(Fault::document(&path, format!("the contract has no \"{key}\" to remove")));
            }
            (Entry::Item(item), place) => {
                let item =
                    prepare(item, place.map(|place| &own[place])).map_err(|fault| fault.inside(&path))?;
                match place {
                    Some(place) => own[place] = item,
                    None => own.push(item),
                }
            }
        }
    }
    Ok(())
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
    late("from", item.from, day, known)?;
    over("until", item.until, day)?;
    if item.item.once() && item.from.is_some_and(|from| from < day) {
        return Err(Fault::document("from", format!("lies before {day}, when the change takes effect")));
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

/// A quantity or a price in the place of what is in force.
struct Restated<'a> {
    path: &'a str,
    day: NaiveDate,
    quantity: Option<Exact>,
    pricing: Option<Pricing>,
}

impl Restated<'_> {
    /// For the item of this key, the contract's own or one of the plan's, that begins on a day unless it says a later one.
    fn put_own<T: Item>(
        self,
        own: &mut Vec<Entry<Scheduled<T>>>,
        base: &[Scheduled<T>],
        key: &str,
        begins: NaiveDate,
    ) -> Result<(), Fault> {
        let Some(item) = find(own, base, key) else {
            return Err(Fault::document(self.path, "is no charge or fee of this contract"));
        };
        let mut item = item.clone();
        self.put(&mut item, begins)?;
        put(own, Entry::Item(item));
        Ok(())
    }

    fn put<T: Item>(self, item: &mut Scheduled<T>, begins: NaiveDate) -> Result<(), Fault> {
        if item.item.once() {
            return Err(Fault::document(self.path, "is billed once, so that it has nothing to change")
                .with_hint("Add another fee, billed once, for the difference."));
        }
        if let Some(pricing) = &self.pricing {
            T::check_pricing(self.path, pricing)?;
        }
        let begins = item.from.map_or(begins, |from| from.max(begins));
        item.restate(begins, self.day, self.quantity, self.pricing).map_err(|fault| fault.inside(self.path))
    }
}
