//! A plan: standard terms that customers subscribe to.

use super::CHARGES_MAX;
use super::charge::{Fee, PriceSource, UsageCharge};
use crate::domain::foundation::calendar::{Alignment, Calendar, Interval};
use crate::domain::foundation::json::{Fields, Node, Tree};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Code, Fault};
use chrono::NaiveDate;
use std::collections::HashSet;

/// How often and how a contract is billed. `None` = not said here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Billing {
    pub interval: Option<Interval>,
    pub alignment: Option<Alignment>,
    pub net_days: Option<i64>,
    pub collection: Option<String>,
}

/// What holds where neither plan nor contract says: monthly, on the calendar, net 30, by invoice.
pub const DEFAULT_INTERVAL: Interval = Interval::Months(1);
pub const DEFAULT_NET_DAYS: i64 = 30;
pub const NET_DAYS_MAX: i64 = 3650;

impl Billing {
    pub fn read(node: &Node) -> Result<Billing, Fault> {
        let mut fields = node.fields_of(&["interval", "alignment", "net_days", "collection"])?;
        let interval = fields
            .optional("interval")
            .map(|n| Interval::parse(n.text()?).map_err(|fault| n.rehint(fault)))
            .transpose()?;
        let alignment = fields
            .optional("alignment")
            .map(|n| Alignment::parse(n.text()?).map_err(|fault| n.rehint(fault)))
            .transpose()?;
        let net_days = fields
            .optional("net_days")
            .map(|n| match n.integer()? {
                days if (0..=NET_DAYS_MAX).contains(&days) => Ok(days),
                days => Err(n.fault(format!("{days} is not between 0 and {NET_DAYS_MAX}"))),
            })
            .transpose()?;
        let collection = fields
            .optional("collection")
            .map(|n| n.word(&["send_invoice", "charge_automatically"]).map(str::to_string))
            .transpose()?;
        fields.finish()?;
        Ok(Billing { interval, alignment, net_days, collection })
    }

    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields = Vec::new();
        if let Some(interval) = self.interval {
            fields.push(("interval".into(), Tree::text(interval.to_string())));
        }
        if let Some(alignment) = self.alignment {
            fields.push(("alignment".into(), Tree::text(alignment.as_str())));
        }
        if let Some(days) = self.net_days {
            fields.push(("net_days".into(), Tree::number(days)));
        }
        if let Some(collection) = &self.collection {
            fields.push(("collection".into(), Tree::text(collection.clone())));
        }
        Tree::Object(fields)
    }

    /// What this says, else what `base` says.
    pub fn over(self, base: &Billing) -> Billing {
        Billing {
            interval: self.interval.or(base.interval),
            alignment: self.alignment.or(base.alignment),
            net_days: self.net_days.or(base.net_days),
            collection: self.collection.or_else(|| base.collection.clone()),
        }
    }

    pub fn interval(&self) -> Interval {
        self.interval.unwrap_or(DEFAULT_INTERVAL)
    }

    pub fn alignment(&self) -> Alignment {
        self.alignment.unwrap_or(Alignment::Calendar)
    }

    pub fn is_empty(&self) -> bool {
        *self == Billing::default()
    }

    /// Whether periods of this rhythm exist at all.
    pub fn check(&self) -> Result<(), Fault> {
        let any_day = NaiveDate::from_ymd_opt(2024, 1, 1).expect("a date");
        Calendar::new(any_day, None, self.interval(), self.alignment()).map(drop).map_err(|fault| Fault {
            code: Code::Document,
            message: format!("billing: {}", fault.message),
            ..fault
        })
    }
}

/// Refuses lists of later layers that are not empty: what can't be billed yet must not be signed.
pub fn refuse_later(fields: &mut Fields, names: &[&str]) -> Result<(), Fault> {
    for name in names {
        let Some(node) = fields.optional(name) else { continue };
        let empty = match node.tree {
            Tree::List(items) => items.is_empty(),
            Tree::Object(entries) => entries.is_empty(),
            _ => false,
        };
        if !empty {
            return Err(node.fault("is not billed by this version").with_hint(format!(
                "Leave {name} out or empty; CHANGELOG.md says which version brings it."
            )));
        }
    }
    Ok(())
}

/// Reads `charges` or `fees`: at most [`CHARGES_MAX`].
pub fn read_items<'t, T>(
    fields: &mut Fields<'t>,
    name: &str,
    read: impl Fn(&Node<'t>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    fields
        .optional(name)
        .map_or(Ok(Vec::new()), |node| node.items_at_most(CHARGES_MAX))?
        .iter()
        .map(read)
        .collect()
}

/// Refuses a key that two items have.
pub fn unique_keys<'k>(path: &str, keys: impl Iterator<Item = &'k str>) -> Result<(), Fault> {
    let mut seen = HashSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(Fault::document(path, format!("\"{key}\" is the key of two charges or fees")));
        }
    }
    Ok(())
}

#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub key: String,
    pub name: String,
    pub currency: String,
    pub price_book: Option<String>,
    pub billing: Billing,
    pub charges: Vec<UsageCharge>,
    pub fees: Vec<Fee>,
}

impl Plan {
    /// The fields of a plan document.
    pub const FIELDS: [&str; 8] =
        ["key", "name", "currency", "price_book", "billing", "charges", "fees", "entitlements"];

    pub fn read(node: &Node) -> Result<Plan, Fault> {
        let mut fields = node.fields_of(&Plan::FIELDS)?;
        let key_node = fields.required("key")?;
        let key = key_node.key()?.to_string();
        if key.contains('@') {
            return Err(key_node.fault("must not contain @, which separates a plan from its version"));
        }
        let name = fields.optional("name").map_or(Ok(key.clone()), |n| n.text().map(str::to_string))?;
        let currency_node = fields.required("currency")?;
        let currency = currency_node.text()?.to_string();
        Unit::parse(&currency).map_err(|fault| currency_node.rehint(fault))?;
        let price_book = fields.optional("price_book").map(|n| n.key().map(str::to_string)).transpose()?;
        let billing = fields.optional("billing").map_or(Ok(Billing::default()), |n| Billing::read(&n))?;
        billing.check()?;
        let charges = read_items(&mut fields, "charges", UsageCharge::read)?;
        let fees = read_items(&mut fields, "fees", Fee::read)?;
        unique_keys(
            &node.path,
            charges.iter().map(|c| c.key.as_str()).chain(fees.iter().map(|f| f.key.as_str())),
        )?;
        check_every(&node.path, &billing, &charges, &fees)?;
        if price_book.is_none() && charges.iter().any(|c| matches!(c.source, PriceSource::Book(_))) {
            return Err(fields.fault("has charges with a price key, so it must name its price_book"));
        }
        refuse_later(&mut fields, &["entitlements"])?;
        fields.finish()?;
        Ok(Plan { key, name, currency, price_book, billing, charges, fees })
    }

    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![
            ("key".into(), Tree::text(self.key.clone())),
            ("name".into(), Tree::text(self.name.clone())),
            ("currency".into(), Tree::text(self.currency.clone())),
        ];
        if let Some(book) = &self.price_book {
            fields.push(("price_book".into(), Tree::text(book.clone())));
        }
        if !self.billing.is_empty() {
            fields.push(("billing".into(), self.billing.to_tree()));
        }
        if !self.charges.is_empty() {
            fields.push((
                "charges".into(),
                Tree::List(self.charges.iter().map(UsageCharge::to_tree).collect()),
            ));
        }
        if !self.fees.is_empty() {
            fields.push(("fees".into(), Tree::List(self.fees.iter().map(Fee::to_tree).collect())));
        }
        Tree::Object(fields)
    }
}

/// `every` must divide the billing interval (definitions 5).
pub fn check_every(
    path: &str,
    billing: &Billing,
    charges: &[UsageCharge],
    fees: &[Fee],
) -> Result<(), Fault> {
    let all = charges.iter().map(|c| (&c.key, c.every)).chain(fees.iter().map(|f| (&f.key, f.every)));
    for (key, every) in all {
        if let Some(every) = every
            && !every.divides(billing.interval())
        {
            let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
            return Err(Fault::new(
                Code::Document,
                format!(
                    "{place}\"{key}\" is per {every}, which does not divide the billing interval of {}",
                    billing.interval()
                ),
            )
            .with_hint("Use an interval that divides it: 1 month or 3 months inside 3 months."));
        }
    }
    Ok(())
}
