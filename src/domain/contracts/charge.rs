//! Usage charges (priced by a meter) and fees (priced by themselves). Plans and contracts share their form.

use super::overrides::{Change, Override};
use super::plan::read_interval;
use super::schedule::Item;
use crate::domain::foundation::calendar::Interval;
pub use crate::domain::foundation::calendar::Timing;
use crate::domain::foundation::json::{Fields, Node, Tree};
use crate::domain::foundation::proration::ProrationBasis;
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::dimensions::BILL_TO;
use crate::domain::metering::{Aggregation, Dimensions, Meter, Together};
use crate::domain::rating::Pricing;
use std::collections::BTreeSet;

const USAGE_FIELDS: [&str; 9] =
    ["key", "product", "meter", "price", "pricing", "match", "lines_by", "every", "prorate_units"];
const FEE_FIELDS: [&str; 8] =
    ["key", "product", "pricing", "quantity", "every", "timing", "proration", "once"];

/// Where a usage charge's list price comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum PriceSource {
    /// The key of a price in the plan's or contract's book; follows its versions.
    Book(String),
    /// The charge's own pricing.
    Own(Box<Pricing>),
}

/// A part of a meter and its price.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageCharge {
    pub key: String,
    pub product: String,
    pub meter: String,
    pub source: PriceSource,
    /// The part of the meter this charge takes; the empty match takes all of it.
    pub matches: Dimensions,
    /// More dimensions by which its lines are kept apart.
    pub lines_by: Vec<String>,
    /// Interval of its amounts, tiers and minimum; `None` = the billing interval.
    pub every: Option<Interval>,
    /// Whether a partial period also prorates tiers, free units and maximum.
    pub prorate_units: bool,
    /// Whether this is the time of a trial, which is metered and costs nothing. Never said by a document: the terms that
    /// a timeline makes say it.
    pub trial: bool,
}

/// A recurring amount.
#[derive(Debug, Clone, PartialEq)]
pub struct Fee {
    pub key: String,
    pub product: String,
    pub pricing: Pricing,
    pub quantity: Exact,
    pub every: Option<Interval>,
    pub timing: Timing,
    /// `None` = the policy `proration_basis`.
    pub proration: Option<ProrationBasis>,
    /// Billed once and whole, at the first boundary on or after it begins.
    pub once: bool,
}

/// An entry of a contract's `charges` or `fees`: an item, or the removal of the plan's item of that key.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<T> {
    Item(T),
    Remove(String),
}

/// What has a key in one of a contract's lists.
pub trait Keyed: Clone + PartialEq {
    /// The name of its list.
    const LIST: &'static str;
    /// The name of its key.
    const KEY: &'static str = "key";

    fn key(&self) -> &str;
    fn to_tree(&self) -> Tree<'static>;
}

impl<T> Entry<T> {
    pub fn item(&self) -> Option<&T> {
        match self {
            Entry::Item(item) => Some(item),
            Entry::Remove(_) => None,
        }
    }

    pub fn item_mut(&mut self) -> Option<&mut T> {
        match self {
            Entry::Item(item) => Some(item),
            Entry::Remove(_) => None,
        }
    }
}

impl<T: Keyed> Entry<T> {
    pub fn key(&self) -> &str {
        match self {
            Entry::Item(item) => item.key(),
            Entry::Remove(key) => key,
        }
    }

    pub fn to_tree(&self) -> Tree<'static> {
        match self {
            Entry::Item(item) => item.to_tree(),
            Entry::Remove(key) => {
                Tree::object([(T::KEY, Tree::text(key.clone())), ("remove", Tree::Bool(true))])
            }
        }
    }
}

/// Reads `{"key": …, "remove": true}` or an item.
pub fn read_entry<T: Keyed>(
    node: &Node,
    read: impl Fn(&Node) -> Result<T, Fault>,
) -> Result<Entry<T>, Fault> {
    let mut fields = node.fields()?;
    let Some(remove) = fields.raw("remove") else {
        return read(node).map(Entry::Item);
    };
    if !remove.boolean()? {
        return Err(remove.fault("must be true, or absent"));
    }
    fields.only(&[T::KEY, "remove"])?;
    let key = fields.required(T::KEY)?.key()?.to_string();
    fields.finish()?;
    Ok(Entry::Remove(key))
}

impl UsageCharge {
    /// As a document says it.
    pub fn read(node: &Node) -> Result<UsageCharge, Fault> {
        let mut fields = node.fields_of(&USAGE_FIELDS)?;
        let charge = UsageCharge::take(&mut fields)?;
        fields.finish()?;
        Ok(charge)
    }

    /// As a timeline says it and contract_charge keeps it.
    pub fn read_terms(node: &Node) -> Result<UsageCharge, Fault> {
        let mut fields = node.fields()?;
        let trial = fields.optional("trial").map_or(Ok(false), |n| n.boolean())?;
        let charge = UsageCharge::take(&mut fields)?;
        fields.finish()?;
        Ok(UsageCharge { trial, ..charge })
    }

    fn take(fields: &mut Fields) -> Result<UsageCharge, Fault> {
        let key = fields.required("key")?.key()?.to_string();
        let product = fields.required("product")?.key()?.to_string();
        let meter = fields.required("meter")?.key()?.to_string();
        let source = match (fields.optional("price"), fields.optional("pricing")) {
            (Some(price), None) => PriceSource::Book(price.key()?.to_string()),
            (None, Some(pricing)) => PriceSource::Own(Box::new(Pricing::read(&pricing)?)),
            _ => {
                return Err(fields.fault("must have either price or pricing").with_hint(
                    "price is the key of a price in the plan's book and follows its versions; pricing is the charge's own.",
                ));
            }
        };
        let matches =
            fields.optional("match").map_or(Ok(Dimensions::new()), |node| Dimensions::read(&node))?;
        let mut lines_by = Vec::new();
        for name in fields.optional("lines_by").map_or(Ok(Vec::new()), |node| node.items())? {
            let text = name.text()?.to_string();
            if lines_by.contains(&text) {
                return Err(name.fault(format!("\"{text}\" stands twice")));
            }
            lines_by.push(text);
        }
        let every = fields.optional("every").map(|n| read_interval(&n)).transpose()?;
        let prorate_units = fields.optional("prorate_units").map_or(Ok(false), |node| node.boolean())?;
        if let PriceSource::Own(pricing) = &source
            && prorate_units
            && pricing.needs_events()
        {
            return Err(fields.fault("prorate_units does not go with per-event bounds"));
        }
        Ok(UsageCharge { key, product, meter, source, matches, lines_by, every, prorate_units, trial: false })
    }

    /// Canonical form; what equals its default is left out.
    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![
            ("key".into(), Tree::text(self.key.clone())),
            ("product".into(), Tree::text(self.product.clone())),
            ("meter".into(), Tree::text(self.meter.clone())),
        ];
        match &self.source {
            PriceSource::Book(price) => fields.push(("price".into(), Tree::text(price.clone()))),
            PriceSource::Own(pricing) => fields.push(("pricing".into(), pricing.to_tree())),
        }
        if !self.matches.is_empty() {
            fields.push(("match".into(), self.matches.to_tree()));
        }
        if !self.lines_by.is_empty() {
            let names = self.lines_by.iter().map(|name| Tree::text(name.clone())).collect();
            fields.push(("lines_by".into(), Tree::List(names)));
        }
        if let Some(every) = self.every {
            fields.push(("every".into(), Tree::text(every.to_string())));
        }
        if self.prorate_units {
            fields.push(("prorate_units".into(), Tree::Bool(true)));
        }
        if self.trial {
            fields.push(("trial".into(), Tree::Bool(true)));
        }
        Tree::Object(fields)
    }

    /// Whether this charge can price this meter with this list price and the overrides that target it. The price
    /// is the charge's own or its book's; a matrix may come without its rows.
    pub fn check(&self, meter: &Meter, list: &Pricing, overrides: &[Override]) -> Result<(), Fault> {
        let mut names: Vec<String> = meter.dimensions.iter().map(|path| path.to_string()).collect();
        names.push(BILL_TO.to_string());
        let declared = |name: &str| names.iter().any(|d| d == name);
        let wrong = |what: &str, name: &str| {
            let message = format!("{what} names \"{name}\", which is no dimension of meter {}", meter.key);
            Err(Fault::document(&format!("charge {}", self.key), message).with_hint(format!(
                "Dimensions of {}: {}.",
                meter.key,
                names.join(", ")
            )))
        };
        for (name, _) in self.matches.iter() {
            if !declared(name) {
                return wrong("match", name);
            }
        }
        if let Some(name) = self.lines_by.iter().find(|name| !declared(name)) {
            return wrong("lines_by", name);
        }
        if let Some(name) = list.dimensions_named().iter().find(|name| !declared(name)) {
            return wrong("its price", name);
        }
        check_model(self, meter, list)?;
        let overrides = overrides.iter().filter(|agreed| agreed.matches.compatible(&self.matches));
        let pricings = overrides.clone().filter_map(|agreed| match &agreed.change {
            Change::Pricing(pricing) => Some((pricing.as_ref(), &agreed.matches)),
            _ => None,
        });
        pricings.clone().try_for_each(|(pricing, _)| check_model(self, meter, pricing))?;
        if meter.together() == Together::Apart {
            let matches = overrides.flat_map(|agreed| agreed.matches.iter().map(|(name, _)| name));
            let mut lines_by: BTreeSet<&str> =
                self.lines_by.iter().map(String::as_str).chain(matches).collect();
            let named: Vec<String> = list
                .dimensions_named()
                .into_iter()
                .chain(pricings.clone().flat_map(|(p, _)| p.dimensions_named()))
                .collect();
            lines_by.extend(named.iter().map(String::as_str));
            lines_by.retain(|name| *name != BILL_TO && self.matches.get(name).is_none());
            check_whole(self, meter, list, &Dimensions::new(), &lines_by)?;
            pricings
                .clone()
                .try_for_each(|(pricing, matches)| check_whole(self, meter, pricing, matches, &lines_by))?;
        }
        Ok(())
    }
}

/// Where several lines don't add up (distinct values, averages, …) what runs over a whole quantity must be one line:
/// its match fixes every dimension by which lines are kept apart.
fn check_whole(
    charge: &UsageCharge,
    meter: &Meter,
    pricing: &Pricing,
    matches: &Dimensions,
    lines_by: &BTreeSet<&str>,
) -> Result<(), Fault> {
    if pricing.is_matrix() {
        return pricing.rows().iter().try_for_each(|row| {
            let mut of_row = matches.clone();
            row.matched().iter().for_each(|(name, value)| of_row.set(name, value));
            check_whole(charge, meter, row.pricing(), &of_row, lines_by)
        });
    }
    let apart = lines_by.iter().find(|name| matches.get(name).is_none());
    let Some(apart) = apart.filter(|_| !pricing.is_linear() && pricing.model_name() != "flat") else {
        return Ok(());
    };
    let message = format!(
        "a {} price of meter {} ({}) needs the whole quantity, but lines are kept apart by {apart}",
        pricing.model_name(),
        meter.key,
        meter.in_words()
    );
    Err(Fault::document(&format!("charge {}", charge.key), message)
        .with_hint("Use a per_unit price, or leave out lines_by and matches by that dimension."))
}

/// Whether a model fits what the meter counts.
fn check_model(charge: &UsageCharge, meter: &Meter, pricing: &Pricing) -> Result<(), Fault> {
    let place = format!("charge {}", charge.key);
    if charge.prorate_units && pricing.needs_events() {
        return Err(Fault::document(
            &place,
            "prorate_units does not go with per-event bounds: what is free is free event by event",
        )
        .with_hint("Leave prorate_units out."));
    }
    if pricing.needs_events() && !(meter.aggregation == Aggregation::Sum && meter.adds_up_in_time()) {
        return Err(Fault::document(
            &place,
            format!("per-event bounds need the amounts of a sum meter; {} is not one", meter.key),
        ));
    }
    if let (Some(property), Some(value)) = (pricing.amount_property(), &meter.value)
        && value.canonical() != property
    {
        return Err(Fault::document(
            &place,
            format!(
                "its dynamic price says amount_property \"{property}\", but meter {} counts \"{}\"",
                meter.key,
                value.canonical()
            ),
        )
        .with_hint("A dynamic price multiplies the meter's value. Make the meter count that property."));
    }
    Ok(())
}

impl Fee {
    pub fn read(node: &Node) -> Result<Fee, Fault> {
        let mut fields = node.fields_of(&FEE_FIELDS)?;
        let fee = Fee::take(&mut fields)?;
        fields.finish()?;
        Ok(fee)
    }

    fn take(fields: &mut Fields) -> Result<Fee, Fault> {
        let key = fields.required("key")?.key()?.to_string();
        let product = fields.required("product")?.key()?.to_string();
        let pricing_node = fields.required("pricing")?;
        let pricing = Pricing::read(&pricing_node)?;
        Fee::check_pricing(&pricing_node.path, &pricing)?;
        let quantity = fields.optional("quantity").map_or(Ok(Exact::ONE), |n| read_quantity(&n))?;
        let once = fields.optional("once").map_or(Ok(false), |node| node.boolean())?;
        if once
            && let Some(name) =
                ["every", "timing", "proration"].into_iter().find(|name| fields.raw(name).is_some())
        {
            return Err(fields.fault(format!("{name} does not go with once")).with_hint(
                "What is billed once is billed whole, at the first boundary on or after its from. Leave one of them out.",
            ));
        }
        let every = fields.optional("every").map(|n| read_interval(&n)).transpose()?;
        let timing = match fields.optional("timing") {
            None => Timing::Advance,
            Some(node) => match node.word(&["advance", "arrears"])? {
                "arrears" => Timing::Arrears,
                _ => Timing::Advance,
            },
        };
        let proration = fields
            .optional("proration")
            .map(|node| ProrationBasis::parse(node.text()?).map_err(|fault| node.rehint(fault)))
            .transpose()?;
        Ok(Fee { key, product, pricing, quantity, every, timing, proration, once })
    }

    /// Canonical form; what equals its default is left out.
    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![
            ("key".into(), Tree::text(self.key.clone())),
            ("product".into(), Tree::text(self.product.clone())),
            ("pricing".into(), self.pricing.to_tree()),
        ];
        if self.quantity != Exact::ONE {
            fields.push(("quantity".into(), Tree::text(self.quantity.to_string())));
        }
        if let Some(every) = self.every {
            fields.push(("every".into(), Tree::text(every.to_string())));
        }
        if self.timing == Timing::Arrears {
            fields.push(("timing".into(), Tree::text("arrears")));
        }
        if let Some(proration) = self.proration {
            fields.push(("proration".into(), Tree::text(proration.as_str())));
        }
        if self.once {
            fields.push(("once".into(), Tree::Bool(true)));
        }
        Tree::Object(fields)
    }
}

/// How many: not negative.
pub fn read_quantity(node: &Node) -> Result<Exact, Fault> {
    let quantity = node.decimal()?;
    if quantity.is_negative() {
        return Err(node.fault("must not be negative"));
    }
    Ok(quantity)
}

impl Item for UsageCharge {
    const FIELDS: &'static [&'static str] = &USAGE_FIELDS;
    const LIST: &'static str = "charges";
    const IS_FEE: bool = false;

    fn take(fields: &mut Fields) -> Result<UsageCharge, Fault> {
        UsageCharge::take(fields)
    }

    fn key(&self) -> &str {
        &self.key
    }

    fn to_tree(&self) -> Tree<'static> {
        UsageCharge::to_tree(self)
    }

    fn every(&self) -> Option<Interval> {
        self.every
    }

    fn once(&self) -> bool {
        false
    }

    fn pricing(&self) -> Option<&Pricing> {
        match &self.source {
            PriceSource::Own(pricing) => Some(pricing),
            PriceSource::Book(_) => None,
        }
    }

    fn set_pricing(&mut self, pricing: Pricing) {
        self.source = PriceSource::Own(Box::new(pricing));
    }

    fn set_quantity(&mut self, _: Exact) {}

    fn check_pricing(_: &str, _: &Pricing) -> Result<(), Fault> {
        Ok(())
    }
}

impl Item for Fee {
    const FIELDS: &'static [&'static str] = &FEE_FIELDS;
    const LIST: &'static str = "fees";
    const IS_FEE: bool = true;

    fn take(fields: &mut Fields) -> Result<Fee, Fault> {
        Fee::take(fields)
    }

    fn key(&self) -> &str {
        &self.key
    }

    fn to_tree(&self) -> Tree<'static> {
        Fee::to_tree(self)
    }

    fn every(&self) -> Option<Interval> {
        self.every
    }

    fn once(&self) -> bool {
        self.once
    }

    fn pricing(&self) -> Option<&Pricing> {
        Some(&self.pricing)
    }

    fn set_pricing(&mut self, pricing: Pricing) {
        self.pricing = pricing;
    }

    fn set_quantity(&mut self, quantity: Exact) {
        self.quantity = quantity;
    }

    fn check_pricing(path: &str, pricing: &Pricing) -> Result<(), Fault> {
        if matches!(pricing.model_name(), "matrix" | "percentage" | "graduated_percentage" | "dynamic") {
            return Err(Fault::document(path, format!("a {} price needs usage", pricing.model_name()))
                .with_hint("Use flat, per_unit, graduated, volume, stairstep or package, with a quantity; or make it a usage charge."));
        }
        Ok(())
    }
}
