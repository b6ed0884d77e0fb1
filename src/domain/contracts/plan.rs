//! A plan: standard terms that customers subscribe to.

use super::CHARGES_MAX;
use super::charge::{Fee, Keyed, PriceSource, UsageCharge};
use super::extras::{Entitlement, read_keyed};
use super::schedule::{Item, Scheduled};
use crate::domain::foundation::calendar::{Alignment, Calendar, Interval, parse_month_day};
use crate::domain::foundation::json::{Fields, Node, Tree};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Code, Fault};
use chrono::NaiveDate;
use std::collections::HashSet;

/// What a document's `billing.alignment` says; the days come from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aligned {
    Calendar,
    Anniversary,
    Fiscal,
}

impl Aligned {
    const WORDS: [&str; 3] = ["calendar", "anniversary", "fiscal"];

    fn read(node: &Node) -> Result<Aligned, Fault> {
        Ok(match node.word(&Aligned::WORDS)? {
            "calendar" => Aligned::Calendar,
            "anniversary" => Aligned::Anniversary,
            _ => Aligned::Fiscal,
        })
    }

    fn as_str(self) -> &'static str {
        Aligned::WORDS[self as usize]
    }
}

/// How often and how a contract is billed. `None` = not said here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Billing {
    pub interval: Option<Interval>,
    pub aligned: Option<Aligned>,
    /// Month and day on which the customer's fiscal year starts.
    pub fiscal_year_starts: Option<(u32, u32)>,
    /// Whether an anchor at a month's end stays at months' ends.
    pub end_of_month: Option<bool>,
    pub net_days: Option<i64>,
    pub collection: Option<String>,
}

/// What holds where neither plan nor contract says: monthly, on the calendar, net 30, by invoice.
pub const DEFAULT_INTERVAL: Interval = Interval::Months(1);
pub const DEFAULT_NET_DAYS: i64 = 30;
pub const NET_DAYS_MAX: i64 = 3650;

impl Billing {
    pub fn read(node: &Node) -> Result<Billing, Fault> {
        const FIELDS: [&str; 6] =
            ["interval", "alignment", "fiscal_year_starts", "end_of_month", "net_days", "collection"];
        let mut fields = node.fields_of(&FIELDS)?;
        let interval = fields.optional("interval").map(|n| read_interval(&n)).transpose()?;
        let aligned = fields.optional("alignment").map(|n| Aligned::read(&n)).transpose()?;
        let fiscal_year_starts = fields
            .optional("fiscal_year_starts")
            .map(|n| parse_month_day(n.text()?).map_err(|fault| n.rehint(fault)))
            .transpose()?;
        let end_of_month = fields.optional("end_of_month").map(|n| n.boolean()).transpose()?;
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
        Ok(Billing { interval, aligned, fiscal_year_starts, end_of_month, net_days, collection })
    }

    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields = Vec::new();
        if let Some(interval) = self.interval {
            fields.push(("interval".into(), Tree::text(interval.to_string())));
        }
        if let Some(aligned) = self.aligned {
            fields.push(("alignment".into(), Tree::text(aligned.as_str())));
        }
        if let Some((month, day)) = self.fiscal_year_starts {
            fields.push(("fiscal_year_starts".into(), Tree::text(format!("{month:02}-{day:02}"))));
        }
        if let Some(flag) = self.end_of_month {
            fields.push(("end_of_month".into(), Tree::Bool(flag)));
        }
        if let Some(days) = self.net_days {
            fields.push(("net_days".into(), Tree::number(days)));
        }
        if let Some(collection) = &self.collection {
            fields.push(("collection".into(), Tree::text(collection.clone())));
        }
        Tree::Object(fields)
    }

    /// What this says, else what `base` says. What belongs to an alignment goes with it.
    pub fn over(self, base: &Billing) -> Billing {
        let same = self.aligned.is_none() || self.aligned == base.aligned;
        Billing {
            interval: self.interval.or(base.interval),
            aligned: self.aligned.or(base.aligned),
            fiscal_year_starts: self.fiscal_year_starts.or(base.fiscal_year_starts.filter(|_| same)),
            end_of_month: self.end_of_month.or(base.end_of_month.filter(|_| same)),
            net_days: self.net_days.or(base.net_days),
            collection: self.collection.or_else(|| base.collection.clone()),
        }
    }

    pub fn interval(&self) -> Interval {
        self.interval.unwrap_or(DEFAULT_INTERVAL)
    }

    pub fn net_days(&self) -> i64 {
        self.net_days.unwrap_or(DEFAULT_NET_DAYS)
    }

    pub fn collection(&self) -> &str {
        self.collection.as_deref().unwrap_or("send_invoice")
    }

    /// Where the boundaries lie; anniversaries are of the end of the trial, if there is one.
    pub fn alignment(&self, trial_until: Option<NaiveDate>) -> Alignment {
        match (self.aligned, self.fiscal_year_starts) {
            (Some(Aligned::Fiscal), Some((month, day))) => Alignment::Fiscal { month, day },
            (Some(Aligned::Anniversary), _) if self.end_of_month == Some(true) => {
                Alignment::MonthEnds(trial_until)
            }
            (Some(Aligned::Anniversary), _) => {
                trial_until.map_or(Alignment::Anniversary, Alignment::AnniversaryOf)
            }
            _ => Alignment::Calendar,
        }
    }

    /// First day after a term that is counted from a day: at a month's end where periods are.
    pub fn term_end(&self, from: NaiveDate, term: Interval) -> Result<NaiveDate, Fault> {
        let alignment = match self.end_of_month {
            Some(true) => Alignment::MonthEnds(None),
            _ => Alignment::Anniversary,
        };
        Calendar::new(from, None, term, alignment)?
            .boundary(1)
            .ok_or_else(|| Fault::document("term", format!("{term} from {from} ends after year 9999")))
    }

    pub fn is_empty(&self) -> bool {
        *self == Billing::default()
    }

    /// Whether periods of this rhythm exist at all.
    pub fn check(&self) -> Result<(), Fault> {
        let wrong = |field: &str, message: &str, hint: &str| {
            Err(Fault::document(&format!("billing.{field}"), message).with_hint(hint))
        };
        match (self.aligned, self.fiscal_year_starts) {
            (Some(Aligned::Fiscal), None) => {
                return wrong(
                    "fiscal_year_starts",
                    "is missing, but the alignment is fiscal",
                    "Say on which day the customer's fiscal year starts: \"fiscal_year_starts\": \"02-01\".",
                );
            }
            (Some(Aligned::Calendar | Aligned::Anniversary) | None, Some(_)) => {
                return wrong(
                    "fiscal_year_starts",
                    "is only for fiscal alignment",
                    "Add \"alignment\": \"fiscal\", or leave it out.",
                );
            }
            _ => (),
        }
        if self.end_of_month.is_some() && self.aligned != Some(Aligned::Anniversary) {
            return wrong(
                "end_of_month",
                "is only for anniversary alignment",
                "Add \"alignment\": \"anniversary\", or leave it out.",
            );
        }
        let any_day = NaiveDate::from_ymd_opt(2024, 1, 1).expect("a date");
        Calendar::new(any_day, None, self.interval(), self.alignment(None)).map(drop).map_err(|fault| Fault {
            code: Code::Document,
            message: format!("billing: {}", fault.message),
            ..fault
        })
    }
}

/// An interval of a document: `3 months`.
pub fn read_interval(node: &Node) -> Result<Interval, Fault> {
    Interval::parse(node.text()?).map_err(|fault| node.rehint(fault))
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
    pub charges: Vec<Scheduled<UsageCharge>>,
    pub fees: Vec<Scheduled<Fee>>,
    pub entitlements: Vec<Entitlement>,
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
        let charges: Vec<Scheduled<UsageCharge>> = read_items(&mut fields, "charges", read_undated)?;
        let fees: Vec<Scheduled<Fee>> = read_items(&mut fields, "fees", read_undated)?;
        unique_keys(
            &node.path,
            charges.iter().map(|c| c.item.key.as_str()).chain(fees.iter().map(|f| f.item.key.as_str())),
        )?;
        let interval = billing.interval();
        charges.iter().try_for_each(|charge| check_every(&node.path, &charge.item, interval))?;
        fees.iter().try_for_each(|fee| check_every(&node.path, &fee.item, interval))?;
        if price_book.is_none() && charges.iter().any(|c| matches!(c.item.source, PriceSource::Book(_))) {
            return Err(fields.fault("has charges with a price key, so it must name its price_book"));
        }
        let entitlements = read_keyed(&mut fields, Entitlement::read)?;
        fields.finish()?;
        Ok(Plan { key, name, currency, price_book, billing, charges, fees, entitlements })
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
            fields.push(("charges".into(), Tree::List(self.charges.iter().map(Keyed::to_tree).collect())));
        }
        if !self.fees.is_empty() {
            fields.push(("fees".into(), Tree::List(self.fees.iter().map(Keyed::to_tree).collect())));
        }
        if !self.entitlements.is_empty() {
            let entitlements = self.entitlements.iter().map(Keyed::to_tree);
            fields.push(("entitlements".into(), Tree::List(entitlements.collect())));
        }
        Tree::Object(fields)
    }
}

/// An item of a plan: it has no dates of its own, since contracts begin when they do.
fn read_undated<T: Item>(node: &Node) -> Result<Scheduled<T>, Fault> {
    let mut fields = node.fields()?;
    for name in ["from", "until"] {
        if let Some(date) = fields.optional(name) {
            return Err(date.fault("is for contracts; a plan's items hold as long as its contracts run"));
        }
    }
    if let Some(ramp) = fields.optional("ramp") {
        for step in ramp.items()? {
            if let Some(date) = step.fields()?.optional("from") {
                return Err(date
                    .fault("is for contracts")
                    .with_hint("Write after: \"after\": \"12 months\"."));
            }
        }
    }
    Scheduled::read(node)
}

/// `every` of a usage charge must divide the billing interval (definitions 5), that of a fee may be a multiple of it.
/// `path` is where the item stands.
pub fn check_every<T: Item>(path: &str, item: &T, interval: Interval) -> Result<(), Fault> {
    let Some(every) = item.every() else { return Ok(()) };
    if every.divides(interval) || (T::IS_FEE && interval.divides(every)) {
        return Ok(());
    }
    let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
    let (wrong, hint) = match T::IS_FEE {
        true => (
            format!("neither divides the billing interval of {interval} nor is a multiple of it"),
            "Use an interval that fits: 1 month, 6 months or 1 year with 3 months.",
        ),
        false => (
            format!("does not divide the billing interval of {interval}"),
            "Use an interval that divides it: 1 month or 3 months inside 3 months.",
        ),
    };
    let message = format!("{place}\"{}\" is per {every}, which {wrong}", item.key());
    Err(Fault::new(Code::Document, message).with_hint(hint))
}
