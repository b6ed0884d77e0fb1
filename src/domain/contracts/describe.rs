//! A contract in words: one sentence a term, with its dates and amounts, for the people who sign it.

use super::charge::{Fee, PriceSource, Timing, UsageCharge};
use super::contract::Contract;
use super::extras::{Commitment, Entitlement, Expires, Grant, ScopeTerms, Units};
use super::overrides::{Change as Agreed, Override, Target};
use super::plan::{Aligned, Billing, Plan};
use super::renewal::{Renewal, RenewalPrices, Uplift};
use super::timeline::{self, Change, Kind, Point, Row, Stretch, Timeline, What};
use crate::domain::entitlements::Kind as FeatureKind;
use crate::domain::entitlements::item::{Combine, Mode, Rate, Reset, Value};
use crate::domain::foundation::calendar::Interval;
use crate::domain::foundation::json::{Node, Tree};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::Dimensions;
use crate::domain::rating::{Pricing, number};
use chrono::{Datelike, NaiveDate};
use std::collections::{BTreeMap, BTreeSet};

/// What the catalogue says of what a document names.
#[derive(Debug, Default)]
pub struct Known {
    /// By book and key, as they are now.
    prices: BTreeMap<(String, String), Pricing>,
    /// By key, with the unit of what is used.
    features: BTreeMap<String, (FeatureKind, Option<String>)>,
}

impl Known {
    /// `{"prices": [{"book", "key", "pricing"}], "features": [{"key", "kind", "unit"}]}`
    pub fn read(node: &Node) -> Result<Known, Fault> {
        let mut fields = node.fields_of(&["prices", "features"])?;
        let mut known = Known::default();
        for node in fields.optional("prices").map_or(Ok(Vec::new()), |list| list.items())? {
            let mut fields = node.fields_of(&["book", "key", "pricing"])?;
            let (book, key) = (fields.required("book")?, fields.required("key")?);
            let pricing = Pricing::read(&fields.required("pricing")?)?;
            known.prices.insert((book.text()?.to_string(), key.text()?.to_string()), pricing);
        }
        for node in fields.optional("features").map_or(Ok(Vec::new()), |list| list.items())? {
            let mut fields = node.fields_of(&["key", "kind", "unit"])?;
            let (key, kind) = (fields.required("key")?.text()?.to_string(), fields.required("kind")?);
            let kind = FeatureKind::parse(kind.text()?).ok_or_else(|| kind.fault("is no kind of feature"))?;
            let unit = fields.optional("unit").map(|unit| unit.text().map(str::to_string)).transpose()?;
            known.features.insert(key, (kind, unit));
        }
        Ok(known)
    }
}

/// The sentences of a contract document with its plan, in the order in which people read a deal.
pub fn describe(contract: Contract, plan: Option<Plan>, known: &Known) -> Result<Vec<String>, Fault> {
    const PLAN: &str = "plan";
    let created = Change {
        version: 1,
        at: Point::midnight(contract.starts_on),
        plan: plan.as_ref().map(|_| PLAN.to_string()),
        what: What::Create(Box::new(contract)),
    };
    let currency = plan.as_ref().map(|plan| plan.currency.clone());
    let named = plan.as_ref().map(|plan| plan.name.clone());
    let plans: BTreeMap<String, Plan> = plan.into_iter().map(|plan| (PLAN.to_string(), plan)).collect();
    let line = timeline::fold(vec![created], &plans)?;
    let unit = line
        .document
        .currency
        .clone()
        .or(currency)
        .unwrap_or_else(|| "units of the customer's currency".into());
    let teller = Teller { line: &line, unit: &unit, known };
    let mut told = teller.frame(named.as_deref());
    let document = &line.document;
    let fees = document.all_items(plans.get(PLAN)).fees;
    let endless = |key: &str| {
        fees.iter()
            .filter(|fee| line.ends.is_none() && fee.until.is_none() && fee.item.key == key)
            .find_map(|fee| fee.step_up)
    };
    let mut stepping = BTreeSet::new();
    // Entitlements come last: first the plan's, then the contract's, then what add-ons add.
    let mut rows: Vec<&Row> = line.rows.iter().collect();
    rows.sort_by_key(|row| match row.kind {
        Kind::Entitlement if !row.key.starts_with("plan:") => 1 + usize::from(row.key.contains('/')),
        _ => 0,
    });
    for row in rows {
        match endless(&row.key).filter(|_| row.kind == Kind::Fee) {
            None => told.extend(teller.row(row)?),
            // One sentence for all its steps.
            Some(step_up) if stepping.insert(row.key.clone()) => {
                let first = Row { during: Stretch { until: None, ..row.during }, ..row.clone() };
                let rises =
                    format!(", and rises by {} percent every {}.", step_up.percent, per(step_up.every));
                told.extend(teller.row(&first)?.map(|text| text.trim_end_matches('.').to_string() + &rises));
            }
            Some(_) => (),
        }
    }
    if let Some(order) = &document.credit_order {
        told.push(format!(
            "Of several blocks of credit the first to be drawn has {}.",
            order.words().join(", then ")
        ));
    }
    if let Some(mode) = document.credit_mode.as_deref() {
        told.push(match mode {
            "credit_only" => "Usage is paid by credit alone: what no credit covers is refused where it is asked for, and shown on invoices, where it costs nothing.".to_string(),
            "allow_negative" => "When credit has ended, usage may draw blocks below zero as far as they allow it; the rest is billed.".to_string(),
            _ => "Usage that no credit covers is billed.".to_string(),
        });
    }
    if let Some(renewal) = &document.renewal {
        told.push(teller.renewal(renewal));
    }
    Ok(told)
}

struct Teller<'t> {
    line: &'t Timeline,
    unit: &'t str,
    known: &'t Known,
}

/// `1 January 2026`.
fn date(day: NaiveDate) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    format!("{} {} {}", day.day(), MONTHS[day.month0() as usize], day.year())
}

/// The day before: people name the last day, documents the first one after.
fn last(day: NaiveDate) -> String {
    date(day.pred_opt().unwrap_or(day))
}

/// `month`, `3 months`: what stands after "per" or "every".
fn per(interval: Interval) -> String {
    match interval {
        Interval::Months(1) => "month".to_string(),
        Interval::Months(12) => "year".to_string(),
        Interval::Days(1) => "day".to_string(),
        other => other.to_string(),
    }
}

fn list(words: &[String], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., end] => format!("{} {last} {end}", init.join(", ")),
    }
}

/// ` with model gpt-4 and region eu`.
fn of(matches: &Dimensions) -> String {
    let matched: Vec<String> = matches.iter().map(|(name, value)| format!("{name} {value}")).collect();
    if matched.is_empty() { String::new() } else { format!(" with {}", list(&matched, "and")) }
}

impl Teller<'_> {
    fn money(&self, amount: Exact) -> String {
        format!("{} {}", self.unit, number(amount))
    }

    /// What holds for the whole contract.
    fn frame(&self, plan: Option<&str>) -> Vec<String> {
        let (line, document) = (self.line, &self.line.document);
        let until = match (line.ends, document.term) {
            (Some(end), Some(term)) => format!("to {} ({term})", last(end.day)),
            _ => "until it is cancelled".to_string(),
        };
        let on = plan.map_or(String::new(), |plan| format!(", on plan {plan}"));
        let mut told = vec![format!(
            "Contract {} with {} runs from {} {until}{on}.",
            document.key,
            document.customer,
            date(line.starts_on)
        )];
        told.push(self.billing(&line.billing));
        if document.pinned {
            told.push(
                "List prices are those in force when the contract is signed, for as long as it runs.".into(),
            );
        }
        if let Some(until) = line.trial_until {
            told.push(format!(
                "Until {} it is a trial: usage costs nothing, and fees have not begun.",
                last(until)
            ));
        }
        if let Some(number) = &document.purchase_order {
            told.push(format!("Invoices name purchase order {number}."));
        }
        if let Some(bill_to) = &document.bill_to {
            told.push(format!("Invoices are addressed to {bill_to}."));
        }
        for phase in super::extras::phase_windows(&document.phases, line.starts_on)
            .unwrap_or_default()
            .into_iter()
            .zip(&document.phases)
        {
            let ((from, until), phase) = phase;
            let until = until.or(line.ends.map(|end| end.day));
            let until = until.map_or(String::new(), |until| format!(" to {}", last(until)));
            told.push(format!("Phase {} is from {}{until}.", phase.key, date(from)));
        }
        told
    }

    fn billing(&self, billing: &Billing) -> String {
        let aligned = match (billing.aligned, billing.fiscal_year_starts) {
            (Some(Aligned::Anniversary), _) => {
                let ends = if billing.end_of_month == Some(true) {
                    ", at months' ends where it began at one"
                } else {
                    ""
                };
                format!("counted from {}{ends}", date(self.line.anchor_on))
            }
            (Some(Aligned::Fiscal), Some((month, day))) => {
                let start = NaiveDate::from_ymd_opt(2023, month, day).map_or(String::new(), date);
                format!("by the fiscal year that starts on {}", start.trim_end_matches(" 2023"))
            }
            _ => "by the calendar".to_string(),
        };
        let collected = match billing.collection() {
            "charge_automatically" => ", and charged automatically",
            _ => "",
        };
        format!(
            "It is billed every {} {aligned}, in {}; invoices are due after {} days{collected}.",
            per(billing.interval()),
            self.unit,
            billing.net_days()
        )
    }

    /// ` from 1 February 2026 to 30 April 2026`, or nothing where it is the contract's whole time.
    fn during(&self, from: NaiveDate, until: Option<NaiveDate>) -> String {
        let begins =
            if from == self.line.starts_on { String::new() } else { format!(" from {}", date(from)) };
        let ends = until.filter(|until| Some(Point::midnight(*until)) != self.line.ends);
        format!("{begins}{}", ends.map_or(String::new(), |until| format!(" until {}", last(until))))
    }

    fn row(&self, row: &Row) -> Result<Option<String>, Fault> {
        let node = Node::root(&row.terms);
        let (from, until) = (row.during.from.day, row.during.until.map(|until| until.day));
        let during = self.during(from, until);
        Ok(Some(match row.kind {
            Kind::Usage => self.usage(&UsageCharge::read_terms(&node)?, row, &during),
            Kind::Fee => self.fee(&Fee::read(&node)?, row, &during, from),
            Kind::Override => self.agreed(&Override::read(&node)?, &during),
            Kind::Discount => self.discount(&row.terms, &during),
            Kind::Commitment => self.commitment(&Commitment::read(&node)?, from, until)?,
            // What a commitment in units buys is said with it.
            Kind::Credit if row.terms.get("of_meter").is_some() => return Ok(None),
            Kind::Credit => self.grant(&Grant::read(&node)?),
            Kind::Entitlement if self.is_replaced(row) => return Ok(None),
            Kind::Entitlement => self.entitlement(&Entitlement::read(&node)?, &row.key, &during)?,
        }))
    }

    /// Whether the contract's own entitlement takes the place of the plan's.
    fn is_replaced(&self, row: &Row) -> bool {
        let Some(feature) = row.key.strip_prefix("plan:") else { return false };
        self.line.rows.iter().any(|other| {
            other.kind == Kind::Entitlement
                && other.key == feature
                && other
                    .terms
                    .get("combine")
                    .is_none_or(|word| matches!(word, Tree::Text(word) if word == "override"))
                && other.during.from <= row.during.from
                && (other.during.until.is_none()
                    || other.during.until >= row.during.until && row.during.until.is_some())
        })
    }

    fn entitlement(&self, item: &Entitlement, key: &str, during: &str) -> Result<String, Fault> {
        let (by, added) = match (key.starts_with("plan:"), key.split_once('/')) {
            (true, _) => (" by its plan".to_string(), false),
            (false, Some((add_on, _))) => (format!(" by add-on {add_on}"), true),
            (false, None) => (String::new(), false),
        };
        let feature = &item.feature;
        let found = self.known.features.get(feature);
        let unit = found.and_then(|(_, unit)| unit.as_deref());
        // Where the catalogue does not know it, as its entitlement looks.
        let kind = found.map_or_else(
            || match (&item.value, item.rate) {
                (_, Some(_)) => FeatureKind::RateLimit,
                (None | Some(Value::Flag(_)), _) => FeatureKind::Boolean,
                (Some(Value::Text(text)), _) if Exact::parse(text).is_err() => FeatureKind::Static,
                _ => FeatureKind::Metered,
            },
            |(kind, _)| *kind,
        );
        let may = if item.flag() { "may use" } else { "may not use" };
        let told = match kind {
            FeatureKind::Boolean => format!("The customer {may} {feature}{by}"),
            FeatureKind::Credit => {
                let credit =
                    unit.map_or("there is credit".to_string(), |unit| format!("there is credit in {unit}"));
                let while_there = if item.flag() { format!(" while {credit}") } else { String::new() };
                format!("The customer {may} {feature}{while_there}{by}")
            }
            FeatureKind::Static => {
                let value = match &item.value {
                    Some(Value::Text(text)) => text.as_str(),
                    _ => "nothing",
                };
                format!("{feature} is {value}{by}")
            }
            FeatureKind::RateLimit => match item.rate {
                Some(Rate { limit, per, burst }) => format!(
                    "The customer may use {feature} {} times in {per}, {} at once{by}",
                    number(limit),
                    number(burst)
                ),
                None => format!("The customer may use {feature}{by}"),
            },
            FeatureKind::Metered | FeatureKind::Seat => self.quota(item, kind, (&by, added))?,
        };
        Ok(format!("{told}{during}."))
    }

    fn quota(
        &self,
        item: &Entitlement,
        kind: FeatureKind,
        (by, added): (&str, bool),
    ) -> Result<String, Fault> {
        let matched: Vec<String> =
            item.matches.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let what = if matched.is_empty() {
            item.feature.clone()
        } else {
            format!("{} with {}", item.feature, list(&matched, "and"))
        };
        let Some(quota) = item.quota("")? else {
            return Ok(format!("The customer may use {what} without limit{by}"));
        };
        let of = format!("{} of {what}", number(quota));
        let combine = item.combine.unwrap_or(if added { Combine::Add } else { Combine::Override });
        let how_much = match combine {
            Combine::Max => format!("up to {of}, or what it has if that is more"),
            Combine::Add => format!("{of} more"),
            Combine::Override => format!("up to {of}"),
        };
        let when = match item.reset {
            _ if kind == FeatureKind::Seat => " at a time".to_string(),
            // What adds to a quota, and says no time, adds to it as it is.
            None if combine != Combine::Override => String::new(),
            None | Some(Reset::BillingPeriod) => " each billing period".to_string(),
            Some(Reset::Calendar(unit)) => format!(" each {}", unit.as_str()),
            Some(Reset::Anniversary(every)) => format!(" every {} from the contract's start", per(every)),
            Some(Reset::Sliding(length)) => format!(" in any {length}"),
            Some(Reset::FirstUse(length)) => format!(" in {length} from the first use on"),
            Some(Reset::Never) => " in all".to_string(),
        };
        let beyond = match item.mode {
            None if combine != Combine::Override => "",
            None | Some(Mode::Hard) => "; more is refused",
            Some(Mode::Soft) => "; more is allowed, and said",
            Some(Mode::Overage) => "; more is allowed, and billed",
        };
        let rest = item.rollover.map_or(String::new(), |cap| {
            let cap = cap.map_or("all".to_string(), |cap| format!("up to {}", number(cap)));
            format!("; {cap} of what is unused is there once more the next time")
        });
        Ok(format!("The customer may use {how_much}{when}{by}{beyond}{rest}"))
    }

    fn usage(&self, charge: &UsageCharge, row: &Row, during: &str) -> String {
        let what = format!("Usage of {}{} ({})", charge.meter, of(&charge.matches), charge.key);
        if charge.trial {
            return format!("{what} costs nothing{during}.");
        }
        let every = row.every.map_or(String::new(), |every| format!(", per {}", per(every)));
        match &charge.source {
            PriceSource::Book(price) => {
                let book = row.price_book.as_deref().unwrap_or("the price book");
                let now = self.known.prices.get(&(book.to_string(), price.clone()));
                let now = now.map_or(String::new(), |list| format!(" (now {})", list.in_words(self.unit)));
                format!("{what} costs the list price {price} of {book}{now}{every}{during}.")
            }
            PriceSource::Own(pricing) => {
                format!("{what} costs {}{every}{during}.", pricing.in_words(self.unit))
            }
        }
    }

    fn fee(&self, fee: &Fee, row: &Row, during: &str, from: NaiveDate) -> String {
        let price = self.fee_price(&fee.pricing, fee.quantity);
        if fee.once {
            return format!("Fee {} is {price}, once, on {}.", fee.key, date(from));
        }
        let every = row.every.map_or(String::new(), per);
        let timing = match fee.timing {
            Timing::Advance => "in advance",
            Timing::Arrears => "in arrears",
        };
        format!("Fee {} is {price} per {every}, billed {timing}{during}.", fee.key)
    }

    fn fee_price(&self, pricing: &Pricing, quantity: Exact) -> String {
        let words = pricing.in_words(self.unit);
        match (pricing.model_name(), quantity == Exact::ONE) {
            ("flat", _) | (_, true) => words.trim_end_matches(" each").to_string(),
            _ => format!("{} at {words}", number(quantity)),
        }
    }

    fn agreed(&self, item: &Override, during: &str) -> String {
        let what = match &item.target {
            Target::Meter(meter) => format!("Usage of {meter}{}", of(&item.matches)),
            Target::Charge(charge) => format!("Charge {charge}{}", of(&item.matches)),
        };
        match &item.change {
            Agreed::UnitPrice(price) => {
                format!("{what} costs {} for what the list prices as one unit{during}.", self.money(*price))
            }
            Agreed::PercentOff(percent) => {
                let stacked = if item.stackable { ", on top of the customer's own prices" } else { "" };
                format!("{what} costs {percent} percent less than the list price{stacked}{during}.")
            }
            Agreed::Pricing(pricing) => {
                format!("{what} costs {} instead of the list price{during}.", pricing.in_words(self.unit))
            }
        }
    }

    fn discount(&self, terms: &Tree, during: &str) -> String {
        let texts = |name: &str| -> Vec<String> {
            match terms.get(name) {
                Some(Tree::List(items)) => items
                    .iter()
                    .filter_map(|item| match item {
                        Tree::Text(text) => Some(text.to_string()),
                        _ => None,
                    })
                    .collect(),
                _ => Vec::new(),
            }
        };
        let text = |name: &str| match terms.get(name) {
            Some(Tree::Text(text)) => Some(text.to_string()),
            _ => None,
        };
        let off =
            match (text("percent_off"), text("amount_off").and_then(|amount| Exact::parse(&amount).ok())) {
                (Some(percent), _) => format!("{percent} percent"),
                (None, Some(amount)) => format!("{} per {}", self.money(amount), per(self.line.interval)),
                (None, None) => String::new(),
            };
        let (charges, products) = (texts("charges"), texts("products"));
        let scope = match (charges.is_empty(), products.is_empty()) {
            (true, true) => "all charges and fees".to_string(),
            (false, true) => list(&charges, "and"),
            (true, false) => format!("what is for {}", list(&products, "and")),
            (false, false) => {
                format!("{} where they are for {}", list(&charges, "and"), list(&products, "or"))
            }
        };
        format!("Discount {}: {off} off {scope}{during}.", text("key").unwrap_or_default())
    }

    fn scope(&self, scope: &ScopeTerms) -> String {
        let mut parts = Vec::new();
        if !scope.products.is_empty() {
            parts.push(list(&scope.products, "or"));
        }
        if !scope.meters.is_empty() {
            parts.push(format!("usage of {}", list(&scope.meters, "or")));
        }
        for (name, values) in &scope.dimensions {
            parts.push(format!("{name} {}", list(values, "or")));
        }
        if !scope.bill_tos.is_empty() {
            parts.push(format!("invoices to {}", list(&scope.bill_tos, "or")));
        }
        for (from, until) in &scope.windows {
            parts.push(format!("usage from {} to {}", date(*from), last(*until)));
        }
        if parts.is_empty() { "all usage".to_string() } else { list(&parts, "and") }
    }

    fn commitment(
        &self,
        commitment: &Commitment,
        from: NaiveDate,
        until: Option<NaiveDate>,
    ) -> Result<String, Fault> {
        let amounts: Vec<String> = commitment.amounts.iter().map(|amount| self.money(*amount)).collect();
        let every = commitment.every.map_or(String::new(), per);
        let how_much = match &amounts[..] {
            [] => format!("each {every}"),
            [one] => format!("{one} for each {every}"),
            many => format!("{} for one {every} after the other", list(many, "and")),
        };
        let units = commitment.units.as_ref().map(|Units { meter, quantity, shortfall }| {
            let price = shortfall.as_ref().map_or(String::new(), |price| price.in_words(self.unit));
            (format!("{} of {meter}", number(*quantity)), price)
        });
        let during = match until {
            Some(until) => format!("from {} to {}", date(from), last(until)),
            None => format!("from {}", date(from)),
        };
        let scope = self.scope(&commitment.scope);
        let mut told = if commitment.prepaid {
            let paid = match commitment.instalments {
                None => "paid in advance when each begins".to_string(),
                Some(instalments) => format!("paid in advance in equal parts every {}", per(instalments)),
            };
            let what = match units {
                Some((units, _)) => format!("{units} for {}", how_much.replace(" for each ", " each ")),
                None => how_much,
            };
            let of = if commitment.units.is_some() && !commitment.scope.is_empty() {
                format!(", for {scope}")
            } else {
                String::new()
            };
            format!("Commitment {}: the customer buys {what} {during}{of}, {paid}", commitment.key)
        } else if let Some((units, price)) = units {
            format!(
                "Commitment {}: the customer uses at least {units} {how_much} {during}, counting {scope}; what is missing is billed when each ends, at {price}",
                commitment.key
            )
        } else {
            format!(
                "Commitment {}: the customer spends at least {how_much} {during} on {scope}; what is missing is billed when each ends",
                commitment.key
            )
        };
        if !commitment.overage.is_empty() {
            let overage: Vec<String> = commitment
                .overage
                .iter()
                .map(|item| {
                    self.agreed(item, "")
                        .trim_end_matches('.')
                        .replacen("Usage", "usage", 1)
                        .replacen("Charge", "charge", 1)
                })
                .collect();
            told += &format!("; beyond it, {}", list(&overage, "and"));
        }
        if let (Some(every), Some(until)) = (commitment.every, until)
            && let Some(begins) = begins_short(from, every, until)
        {
            let whole = if commitment.prepaid && commitment.instalments.is_some() {
                "owed in the instalments that begin in it"
            } else {
                "owed whole"
            };
            told += &format!("; the last one is cut short ({} to {}) and {whole}", date(begins), last(until));
        }
        Ok(format!("{told}."))
    }

    fn grant(&self, grant: &Grant) -> String {
        let unit = grant.unit.as_deref().unwrap_or(self.unit);
        let carried =
            grant.carry_from.as_ref().map(|contract| format!("what is unused of contract {contract}"));
        let own = grant
            .amount
            .map(|amount| format!("{unit} {} of {} credit", number(amount), grant.category.as_str()));
        let what = list(&[own, carried].into_iter().flatten().collect::<Vec<_>>(), "and");
        let begins = grant.effective_on.unwrap_or(self.line.starts_on);
        let when = match grant.every {
            None => format!("on {}", date(begins)),
            Some(every) => format!("every {} from {}", per(every), date(begins)),
        };
        let expires = match grant.expires {
            Expires::ContractEnd => "it expires with the contract".to_string(),
            Expires::PeriodEnd => "it expires when its period ends".to_string(),
            Expires::Never => "it does not expire".to_string(),
            Expires::On(day) => format!("it expires after {}", last(day)),
        };
        let paid =
            grant.paid_by.as_ref().map_or(String::new(), |by| format!(", paid for by commitment {by}"));
        let rest = grant.rollover.map_or(String::new(), |rollover| {
            let cap = rollover.cap.map_or("all".to_string(), |cap| format!("up to {unit} {}", number(cap)));
            format!("; {cap} of what is unused then lives on for {}", rollover.lasts)
        });
        format!(
            "Credit {}: the customer gets {what} {when}{paid}, for {}; {expires}{rest}.",
            grant.key,
            self.scope(&grant.scope)
        )
    }

    fn renewal(&self, renewal: &Renewal) -> String {
        let Some(end) = self.line.ends else { return String::new() };
        let term =
            renewal.term.or(self.line.document.term).map_or(String::new(), |term| format!(" for {term}"));
        let deadline = date(renewal.notice_deadline(end.day));
        let mut told = match renewal.auto {
            true => format!("On {} it renews{term} unless notice is given by {deadline}", date(end.day)),
            false => format!("On {} it may be renewed{term}; notice is due by {deadline}", date(end.day)),
        };
        match &renewal.uplift {
            None => (),
            Some(Uplift::Percent(percent)) => {
                told += &format!("; fees and agreed prices rise by {percent} percent")
            }
            Some(Uplift::Index { index, min, max }) => {
                let name = index.as_deref().unwrap_or("an index");
                told += &format!("; fees and agreed prices rise by {name}");
                let bounds =
                    [min.map(|min| format!("at least {min}")), max.map(|max| format!("at most {max}"))];
                let bounds: Vec<String> = bounds.into_iter().flatten().collect();
                if !bounds.is_empty() {
                    told += &format!(", {} percent", list(&bounds, "and"));
                }
            }
        }
        if renewal.prices == RenewalPrices::List {
            told += "; agreed prices and discounts end, and list prices hold";
        }
        told + "."
    }
}

/// The beginning of the last period of a length, counted from a day, where an end cuts it short.
fn begins_short(from: NaiveDate, every: Interval, until: NaiveDate) -> Option<NaiveDate> {
    let begins = |n: u32| if n == 0 { Some(from) } else { every.nth_after(from, n) };
    let n = (0..).take_while(|n| begins(*n).is_some_and(|day| day < until)).last()?;
    begins(n).filter(|_| begins(n + 1).is_none_or(|next| next > until))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;

    fn told(contract: &str, plan: Option<&str>) -> Vec<String> {
        let tree = json::parse(contract).unwrap();
        let contract = Contract::read(&Node::root(&tree)).unwrap();
        let plan = plan.map(|plan| Plan::read(&Node::root(&json::parse(plan).unwrap())).unwrap());
        describe(contract, plan, &Known::default()).unwrap()
    }

    /// rules.md 10.5, as its signers read it.
    #[test]
    fn acmes_deal_in_words() {
        let plan = r#"{"key":"enterprise","name":"Enterprise","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"ai-api","meter":"tokens","price":"tokens"}]}"#;
        let contract = r#"{"key":"acme-2026","customer":"acme","starts_on":"2026-01-01","term":"12 months","plan":"enterprise","prices":"pin","billing":{"interval":"3 months","net_days":45},
            "overrides":[{"meter":"tokens","percent_off":"50"}],
            "commitments":[{"key":"annual","kind":"prepaid","amount":"100000","instalments":"3 months"}],
            "credits":[{"key":"annual-credits","category":"paid","amount":"120000","paid_by":"annual","scope":{"products":["ai-api"]}}],
            "renewal":{"auto":true,"notice_days":60,"uplift":{"index":"cpi","min":"3","max":"7"}}}"#;
        assert_eq!(
            told(contract, Some(plan)),
            [
                "Contract acme-2026 with acme runs from 1 January 2026 to 31 December 2026 (12 months), on plan Enterprise.",
                "It is billed every 3 months by the calendar, in USD; invoices are due after 45 days.",
                "List prices are those in force when the contract is signed, for as long as it runs.",
                "Usage of tokens (tokens) costs the list price tokens of list, per 3 months.",
                "Usage of tokens costs 50 percent less than the list price.",
                "Commitment annual: the customer buys USD 100,000 for each year from 1 January 2026 to 31 December 2026, paid in advance in equal parts every 3 months.",
                "Credit annual-credits: the customer gets USD 120,000 of paid credit every year from 1 January 2026, paid for by commitment annual, for ai-api; it expires with the contract.",
                "On 1 January 2027 it renews for 12 months unless notice is given by 2 November 2026; fees and agreed prices rise by cpi, at least 3 and at most 7 percent.",
            ]
        );
    }

    #[test]
    fn every_term_is_a_sentence() {
        let contract = r#"{"key":"c","customer":"acme","currency":"USD","starts_on":"2026-01-15","plan":null,"term":"24 months","trial":{"duration":"14 days"},"purchase_order":"PO-1","bill_to":"inc",
            "billing":{"alignment":"anniversary","end_of_month":true,"collection":"charge_automatically"},
            "charges":[{"key":"calls","product":"api","meter":"calls","match":{"region":"eu"},"pricing":{"model":"per_unit","unit_price":"0.5","per":1000}}],
            "fees":[{"key":"seats","product":"p","pricing":{"model":"per_unit","unit_price":"20"},"quantity":"5","timing":"arrears","until":"2027-01-15"},
                {"key":"platform","product":"p","every":"12 months","pricing":{"model":"flat","amount":"40000"},"ramp":[{"after":"12 months","percent":"25"}]},
                {"key":"setup","product":"p","pricing":{"model":"flat","amount":"500"},"once":true}],
            "phases":[{"key":"pilot","duration":"3 months","overrides":[{"charge":"calls","match":{"region":"eu"},"unit_price":"0.1"}]}],
            "discounts":[{"key":"launch","percent_off":"20","charges":["seats","platform"],"duration":"6 months"},{"key":"flat","amount_off":"10"}],
            "commitments":[{"key":"spend","kind":"postpaid","amounts":["1000","2000"],"every":"12 months","overage":[{"meter":"calls","unit_price":"0.4"}]}],
            "credits":[{"key":"pilot","category":"pilot","carry_from":{"contract":"pilot-1"},"expires":"never"},
                {"key":"monthly","category":"promotional","amount":"100","unit":"call","every":"1 month","expires":"period_end","rollover":{"cap":"50","for":"1 month"},"scope":{"meters":["calls"],"dimensions":{"region":["eu","us"]}}}],
            "credit_order":["priority",{"category":["paid","pilot","promotional"]},"id"],"credit_mode":"credit_only","entitlements":[{"feature":"sso"},{"feature":"api_rate","value":"100"}],
            "renewal":{"term":"12 months","uplift":{"percent":"5"},"prices":"list"}}"#;
        assert_eq!(
            told(contract, None),
            [
                "Contract c with acme runs from 15 January 2026 to 14 January 2028 (24 months).",
                "It is billed every month counted from 29 January 2026, at months' ends where it began at one, in USD; invoices are due after 30 days, and charged automatically.",
                "Until 28 January 2026 it is a trial: usage costs nothing, and fees have not begun.",
                "Invoices name purchase order PO-1.",
                "Invoices are addressed to inc.",
                "Phase pilot is from 15 January 2026 to 14 April 2026.",
                "Usage of calls with region eu (calls) costs nothing until 28 January 2026.",
                "Usage of calls with region eu (calls) costs USD 0.50 per 1,000, per month from 29 January 2026.",
                "Fee seats is 5 at USD 20 each per month, billed in arrears from 29 January 2026 until 14 January 2027.",
                "Fee platform is USD 40,000 per year, billed in advance from 29 January 2026 until 28 January 2027.",
                "Fee platform is USD 50,000 per year, billed in advance from 29 January 2027.",
                "Fee setup is USD 500, once, on 29 January 2026.",
                "Discount launch: 20 percent off seats and platform until 14 July 2026.",
                "Discount flat: USD 10 per month off all charges and fees.",
                "Charge calls with region eu costs USD 0.10 for what the list prices as one unit until 14 April 2026.",
                "Commitment spend: the customer spends at least USD 1,000 and USD 2,000 for one year after the other from 15 January 2026 to 14 January 2028 on all usage; what is missing is billed when each ends; beyond it, usage of calls costs USD 0.40 for what the list prices as one unit.",
                "Credit pilot: the customer gets what is unused of contract pilot-1 on 15 January 2026, for all usage; it does not expire.",
                "Credit monthly: the customer gets call 100 of promotional credit every month from 15 January 2026, for usage of calls and region eu or us; it expires when its period ends; up to call 50 of what is unused then lives on for 1 month.",
                "The customer may use sso.",
                "The customer may use up to 100 of api_rate each billing period; more is refused.",
                "Of several blocks of credit the first to be drawn has the lower priority, then the category (paid before pilot before promotional), then the older one.",
                "Usage is paid by credit alone: what no credit covers is refused where it is asked for, and shown on invoices, where it costs nothing.",
                "On 15 January 2028 it may be renewed for 12 months; notice is due by 15 January 2028; fees and agreed prices rise by 5 percent; agreed prices and discounts end, and list prices hold.",
            ]
        );
    }

    /// A period that the contract's end cuts short is owed whole: who signs it reads it.
    #[test]
    fn a_short_last_period_is_told() {
        let deal = |kind: &str| {
            let contract = format!(
                r#"{{"key":"c","customer":"acme","currency":"USD","starts_on":"2026-01-01","term":"18 months","charges":[{{"key":"calls","product":"p","meter":"calls","pricing":{{"model":"per_unit","unit_price":"1"}}}}],
                "commitments":[{{"key":"year","amount":"12000","every":"12 months",{kind}}}]}}"#
            );
            told(&contract, None).into_iter().find(|line| line.starts_with("Commitment")).unwrap()
        };
        let ends = |line: &str, end: &str| assert!(line.ends_with(end), "{line}");
        let short = "; the last one is cut short (1 January 2027 to 30 June 2027) and";
        ends(&deal(r#""kind":"postpaid""#), &format!("{short} owed whole."));
        ends(
            &deal(r#""kind":"prepaid","instalments":"3 months""#),
            &format!("{short} owed in the instalments that begin in it."),
        );
        ends(&deal(r#""kind":"prepaid","until":"2027-01-01""#), "paid in advance when each begins.");
    }

    #[test]
    fn what_the_catalogue_says_is_told() {
        let known = r#"{"prices":[{"book":"list","key":"tokens","pricing":{"model":"per_unit","unit_price":"0.03","per":1000}}],
            "features":[{"key":"tokens","kind":"metered","unit":"token"},{"key":"seats","kind":"seat","unit":"unit"},{"key":"size","kind":"static"},
                {"key":"api","kind":"rate_limit"},{"key":"ai","kind":"credit","unit":"USD"},{"key":"sso","kind":"boolean"}]}"#;
        let tree = json::parse(known).unwrap();
        let known = Known::read(&Node::root(&tree)).unwrap();
        let plan = r#"{"key":"pro","name":"Pro","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"ai","meter":"tokens","price":"tokens"}],
            "entitlements":[{"feature":"tokens","value":"100"},{"feature":"size","value":"10"},{"feature":"seats","value":"5"},{"feature":"ai"},
                {"feature":"api","rate":{"limit":"10","per":"1 second","burst":"5"}},{"feature":"sso","value":false}]}"#;
        let contract = r#"{"key":"k","customer":"acme","starts_on":"2026-01-01","term":"12 months","plan":"pro",
            "entitlements":[{"feature":"tokens","value":"300000","reset":"month","mode":"overage","match":{"model":"gpt-4"},"rollover":{"cap":"1000"}},{"feature":"seats","value":"2","combine":"add"},{"feature":"sso"}],
            "add_ons":[{"key":"more","from":"2026-03-01","entitlements":[{"feature":"tokens","value":"50"},{"feature":"size","value":"12"}]}]}"#;
        let tree = json::parse(contract).unwrap();
        let contract = Contract::read(&Node::root(&tree)).unwrap();
        let plan = Plan::read(&Node::root(&json::parse(plan).unwrap())).unwrap();
        let told = describe(contract, Some(plan), &known).unwrap();
        assert_eq!(
            told[2..],
            [
                "Usage of tokens (tokens) costs the list price tokens of list (now USD 0.03 per 1,000), per month.",
                "size is 10 by its plan.",
                "The customer may use up to 5 of seats at a time by its plan; more is refused.",
                "The customer may use ai while there is credit in USD by its plan.",
                "The customer may use api 10 times in 1 second, 5 at once by its plan.",
                "The customer may use up to 300,000 of tokens with model gpt-4 each month; more is allowed, and billed; up to 1,000 of what is unused is there once more the next time.",
                "The customer may use 2 of seats more at a time.",
                "The customer may use sso.",
                "The customer may use 50 of tokens more by add-on more from 1 March 2026.",
                "size is 12 by add-on more from 1 March 2026.",
            ]
        );
    }
}
