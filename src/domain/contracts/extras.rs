//! What a contract has beside charges and fees: discounts, commitments, credits, entitlements, add-ons and phases.

use super::charge::{Entry, Fee, Keyed, UsageCharge, read_entry};
use super::overrides::{self, Override};
use super::plan::{read_interval, read_items, unique_keys};
use super::schedule::{Item, Scheduled, read_dates};
use super::{CHARGES_MAX, EXTRAS_MAX};
use crate::domain::credits::Category;
pub use crate::domain::entitlements::item::Item as Entitlement;
use crate::domain::foundation::calendar::Interval;
use crate::domain::foundation::json::{Fields, Node, Tree};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::rating::Pricing;
use chrono::NaiveDate;
use std::borrow::Cow;

type Field = (Cow<'static, str>, Tree<'static>);

fn text_field(fields: &mut Vec<Field>, name: &'static str, value: Option<impl ToString>) {
    if let Some(value) = value {
        fields.push((name.into(), Tree::text(value.to_string())));
    }
}

fn list_field(fields: &mut Vec<Field>, name: &'static str, list: Vec<Tree<'static>>) {
    if !list.is_empty() {
        fields.push((name.into(), Tree::List(list)));
    }
}

fn texts(list: &[String]) -> Vec<Tree<'static>> {
    list.iter().map(|text| Tree::text(text.clone())).collect()
}

/// An amount of money or units that is more than nothing.
fn read_amount(node: &Node) -> Result<Exact, Fault> {
    let amount = node.decimal()?;
    if amount.is_negative() || amount.is_zero() {
        return Err(node.fault(format!("{amount} must be greater than 0")));
    }
    Ok(amount)
}

/// A list of keys, each once.
fn read_keys(fields: &mut Fields, name: &str) -> Result<Vec<String>, Fault> {
    let mut keys = Vec::new();
    for node in fields.optional(name).map_or(Ok(Vec::new()), |n| n.items_at_most(CHARGES_MAX))? {
        let key = node.key()?.to_string();
        if keys.contains(&key) {
            return Err(node.fault(format!("\"{key}\" stands twice")));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn read_priority(fields: &mut Fields, default: i32) -> Result<i32, Fault> {
    fields.optional("priority").map_or(Ok(default), |node| {
        i32::try_from(node.integer()?).map_err(|_| node.fault("is not between -2147483648 and 2147483647"))
    })
}

/// A list of keyed items, refusing a key that stands twice.
pub fn read_keyed<'t, T: Keyed>(
    fields: &mut Fields<'t>,
    read: impl Fn(&Node<'t>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut list: Vec<T> = Vec::new();
    for node in fields.optional(T::LIST).map_or(Ok(Vec::new()), |n| n.items_at_most(EXTRAS_MAX))? {
        let item = read(&node)?;
        if list.iter().any(|other| other.key() == item.key()) {
            return Err(node.fault(format!("\"{}\" stands twice", item.key())));
        }
        list.push(item);
    }
    Ok(list)
}

// ── discounts ───────────────────────────────────────────────────────────────────────────────────

/// Off the lines of some charges and fees, for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct Discount {
    pub key: String,
    pub off: Off,
    /// Keys of charges and fees; with `products` empty, too, all of them.
    pub charges: Vec<String>,
    pub products: Vec<String>,
    pub from: Option<NaiveDate>,
    pub until: Option<NaiveDate>,
    pub duration: Option<Interval>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Off {
    Percent(Exact),
    /// Of money, per billing interval.
    Amount(Exact),
}

impl Discount {
    pub fn read(node: &Node) -> Result<Discount, Fault> {
        let mut fields = node.fields_of(&[
            "key",
            "percent_off",
            "amount_off",
            "charges",
            "products",
            "from",
            "until",
            "duration",
        ])?;
        let key = fields.required("key")?.key()?.to_string();
        let off = match (fields.optional("percent_off"), fields.optional("amount_off")) {
            (Some(percent), None) => {
                let value = read_amount(&percent)?;
                if value > Exact::from_i64(100) {
                    return Err(percent.fault(format!("{value} is not between 0 and 100")));
                }
                Off::Percent(value)
            }
            (None, Some(amount)) => Off::Amount(read_amount(&amount)?),
            _ => return Err(fields.fault("must have either percent_off or amount_off")),
        };
        let (charges, products) = (read_keys(&mut fields, "charges")?, read_keys(&mut fields, "products")?);
        let (from, until) = read_dates(&mut fields)?;
        let duration = fields.optional("duration").map(|n| read_interval(&n)).transpose()?;
        if until.is_some() && duration.is_some() {
            return Err(fields.fault("must not have both until and duration"));
        }
        fields.finish()?;
        Ok(Discount { key, off, charges, products, from, until, duration })
    }

    /// What is the same as long as it holds.
    pub fn terms(&self) -> Tree<'static> {
        let mut fields = vec![("key".into(), Tree::text(self.key.clone()))];
        match self.off {
            Off::Percent(percent) => text_field(&mut fields, "percent_off", Some(percent)),
            Off::Amount(amount) => text_field(&mut fields, "amount_off", Some(amount)),
        }
        list_field(&mut fields, "charges", texts(&self.charges));
        list_field(&mut fields, "products", texts(&self.products));
        Tree::Object(fields)
    }

    /// First day after it, if it begins on a day.
    pub fn ends(&self, begins: NaiveDate) -> Option<NaiveDate> {
        self.until.or_else(|| self.duration.and_then(|duration| duration.nth_after(begins, 1)))
    }
}

impl Keyed for Discount {
    const LIST: &'static str = "discounts";

    fn key(&self) -> &str {
        &self.key
    }

    fn to_tree(&self) -> Tree<'static> {
        let Tree::Object(mut fields) = self.terms() else { unreachable!("a discount is an object") };
        text_field(&mut fields, "from", self.from);
        text_field(&mut fields, "until", self.until);
        text_field(&mut fields, "duration", self.duration);
        Tree::Object(fields)
    }
}

// ── what usage counts ───────────────────────────────────────────────────────────────────────────

/// What usage a commitment or a credit is for, as a document says it; what is listed must fit, what is absent restricts
/// nothing. Windows are local days, `[from, until)`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScopeTerms {
    pub products: Vec<String>,
    pub meters: Vec<String>,
    pub dimensions: Vec<(String, Vec<String>)>,
    pub bill_tos: Vec<String>,
    pub windows: Vec<(NaiveDate, NaiveDate)>,
}

impl ScopeTerms {
    fn read(node: &Node) -> Result<ScopeTerms, Fault> {
        let mut fields = node.fields_of(&["products", "meters", "dimensions", "bill_tos", "windows"])?;
        let mut scope = ScopeTerms {
            products: read_keys(&mut fields, "products")?,
            meters: read_keys(&mut fields, "meters")?,
            bill_tos: read_keys(&mut fields, "bill_tos")?,
            ..ScopeTerms::default()
        };
        if let Some(node) = fields.optional("dimensions") {
            for (name, values) in node.entries()? {
                let mut list = Vec::new();
                for value in values.items_at_most(CHARGES_MAX)? {
                    let text = value.text()?.to_string();
                    if list.contains(&text) {
                        return Err(value.fault(format!("\"{text}\" stands twice")));
                    }
                    list.push(text);
                }
                if list.is_empty() {
                    return Err(values
                        .fault("has no value, so that nothing would fit")
                        .with_hint("List values, or leave the dimension out."));
                }
                scope.dimensions.push((name.to_string(), list));
            }
            scope.dimensions.sort_by(|a, b| a.0.cmp(&b.0));
        }
        for node in fields.optional("windows").map_or(Ok(Vec::new()), |n| n.items_at_most(EXTRAS_MAX))? {
            let mut window = node.fields_of(&["from", "until"])?;
            window.required("from")?;
            window.required("until")?;
            let (Some(from), Some(until)) = read_dates(&mut window)? else {
                return Err(node.fault("must have from and until"));
            };
            window.finish()?;
            scope.windows.push((from, until));
        }
        fields.finish()?;
        Ok(scope)
    }

    fn to_tree(&self) -> Tree<'static> {
        let mut fields = Vec::new();
        list_field(&mut fields, "products", texts(&self.products));
        list_field(&mut fields, "meters", texts(&self.meters));
        list_field(&mut fields, "bill_tos", texts(&self.bill_tos));
        if !self.dimensions.is_empty() {
            let by_name =
                |(name, values): &(String, Vec<String>)| (name.clone().into(), Tree::List(texts(values)));
            fields.push(("dimensions".into(), Tree::Object(self.dimensions.iter().map(by_name).collect())));
        }
        let window = |(from, until): &(NaiveDate, NaiveDate)| {
            Tree::object([("from", Tree::text(from.to_string())), ("until", Tree::text(until.to_string()))])
        };
        list_field(&mut fields, "windows", self.windows.iter().map(window).collect());
        Tree::Object(fields)
    }

    pub fn is_empty(&self) -> bool {
        *self == ScopeTerms::default()
    }
}

fn read_scope(fields: &mut Fields) -> Result<ScopeTerms, Fault> {
    fields.optional("scope").map_or(Ok(ScopeTerms::default()), |node| ScopeTerms::read(&node))
}

// ── commitments ─────────────────────────────────────────────────────────────────────────────────

/// What the customer promises to spend, or to use: paid in advance, or made up for at the end of each period.
#[derive(Debug, Clone, PartialEq)]
pub struct Commitment {
    pub key: String,
    pub prepaid: bool,
    /// Money per period; the last holds for further ones. None for a postpaid one in units.
    pub amounts: Vec<Exact>,
    /// Of one in units.
    pub units: Option<Units>,
    /// What its lines are for; `None` = as the first charge.
    pub product: Option<String>,
    /// Length of a period; `None` = the contract's term.
    pub every: Option<Interval>,
    /// How often a part of a prepaid one is due; `None` = all of it when its period begins.
    pub instalments: Option<Interval>,
    pub scope: ScopeTerms,
    /// Of several that the same usage may count for, the lower first.
    pub priority: i32,
    /// The prices of what goes beyond it.
    pub overage: Vec<Override>,
    pub from: Option<NaiveDate>,
    pub until: Option<NaiveDate>,
}

/// So much of a meter, in its unit, per period: of a prepaid commitment bought for its amount, of a postpaid one the least.
#[derive(Debug, Clone, PartialEq)]
pub struct Units {
    pub meter: String,
    pub quantity: Exact,
    /// Of a postpaid one: what is missing at a period's end costs this. Usage that did not happen has no model, region or
    /// tier, so no price of the meter could be found for it.
    pub shortfall: Option<Box<Pricing>>,
}

const COMMITMENT_FIELDS: [&str; 15] = [
    "key",
    "kind",
    "amount",
    "amounts",
    "quantity",
    "meter",
    "shortfall_price",
    "product",
    "every",
    "instalments",
    "scope",
    "priority",
    "overage",
    "from",
    "until",
];

impl Commitment {
    pub fn read(node: &Node) -> Result<Commitment, Fault> {
        let mut fields = node.fields_of(&COMMITMENT_FIELDS)?;
        let key = fields.required("key")?.key()?.to_string();
        let prepaid = fields.required("kind")?.word(&["prepaid", "postpaid"])? == "prepaid";
        let units = Units::read(&mut fields, prepaid)?;
        let amounts = match (fields.optional("amount"), fields.optional("amounts")) {
            (Some(amount), None) => vec![read_amount(&amount)?],
            (None, Some(list)) => {
                let amounts: Vec<Exact> =
                    list.items_at_most(EXTRAS_MAX)?.iter().map(read_amount).collect::<Result<_, _>>()?;
                if amounts.is_empty() {
                    return Err(list.fault("has no amount"));
                }
                amounts
            }
            (None, None) if units.is_some() && !prepaid => Vec::new(),
            (None, None) if units.is_some() => {
                return Err(fields
                    .fault("must have an amount: what its quantity is bought for")
                    .with_hint("Give the price of a period: \"amount\": \"20000\"."));
            }
            _ => {
                return Err(fields
                    .fault("must have either amount or amounts")
                    .with_hint("amounts has one for each period: [\"40000\", \"50000\", \"60000\"]."));
            }
        };
        if !amounts.is_empty() && units.is_some() && !prepaid {
            return Err(fields
                .fault("has an amount and a quantity, and what is missing can't be both")
                .with_hint("Make it two commitments: each is tested by itself."));
        }
        let product = fields.optional("product").map(|n| n.key().map(str::to_string)).transpose()?;
        let every = fields.optional("every").map(|n| read_interval(&n)).transpose()?;
        let instalments = match fields.optional("instalments") {
            None => None,
            Some(node) if !prepaid => return Err(node.fault("is for prepaid commitments")),
            Some(node) => Some(read_interval(&node)?),
        };
        let scope = read_scope(&mut fields)?;
        let priority = read_priority(&mut fields, 100)?;
        let mut overage = Vec::new();
        if let Some(node) = fields.optional("overage") {
            overage = overrides::read_list(&node)?;
            if let Some(at) = overage.iter().position(|item| item.from.is_some() || item.until.is_some()) {
                return Err(Fault::document(
                    &format!("{}[{at}]", node.path),
                    "has dates of its own; it holds as long as the commitment",
                ));
            }
        }
        let (from, until) = read_dates(&mut fields)?;
        fields.finish()?;
        Ok(Commitment {
            key,
            prepaid,
            amounts,
            units,
            product,
            every,
            instalments,
            scope,
            priority,
            overage,
            from,
            until,
        })
    }
}

impl Units {
    fn read(fields: &mut Fields, prepaid: bool) -> Result<Option<Units>, Fault> {
        let quantity = fields.optional("quantity").map(|n| read_amount(&n)).transpose()?;
        let meter = fields.optional("meter").map(|n| n.key().map(str::to_string)).transpose()?;
        let shortfall = match fields.optional("shortfall_price") {
            None => None,
            Some(node) if prepaid || quantity.is_none() => {
                return Err(node.fault("is for postpaid commitments in units"));
            }
            Some(node) => {
                let pricing = Pricing::read(&node)?;
                Fee::check_pricing(&node.path, &pricing)?;
                Some(Box::new(pricing))
            }
        };
        match (quantity, meter) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) if !prepaid && shortfall.is_none() => Err(fields
                .fault("must have a shortfall_price: what a unit that is missing costs")
                .with_hint("\"shortfall_price\": {\"model\": \"per_unit\", \"unit_price\": \"0.002\", \"per\": 1000}")),
            (Some(quantity), Some(meter)) => Ok(Some(Units { meter, quantity, shortfall })),
            _ => Err(fields.fault("must have both quantity and meter, or none of them")),
        }
    }
}

impl Commitment {
    /// What a prepaid one in units buys, as credit in the meter's unit: that of each period expires with it.
    pub fn bought(&self) -> Option<Grant> {
        let Units { meter, quantity, .. } = self.units.as_ref().filter(|_| self.prepaid)?;
        let scope = ScopeTerms { meters: vec![meter.clone()], ..self.scope.clone() };
        Some(Grant {
            key: self.key.clone(),
            category: Category::Paid,
            amount: Some(*quantity),
            unit: None,
            of_meter: Some(meter.clone()),
            paid_by: Some(self.key.clone()),
            effective_on: self.from,
            expires: Expires::PeriodEnd,
            every: self.every,
            scope,
            priority: self.priority,
            rollover: None,
            carry_from: None,
        })
    }
}

impl Keyed for Commitment {
    const LIST: &'static str = "commitments";

    fn key(&self) -> &str {
        &self.key
    }

    fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![
            ("key".into(), Tree::text(self.key.clone())),
            ("kind".into(), Tree::text(if self.prepaid { "prepaid" } else { "postpaid" })),
        ];
        match &self.amounts[..] {
            [] => (),
            [amount] => text_field(&mut fields, "amount", Some(amount)),
            amounts => list_field(
                &mut fields,
                "amounts",
                amounts.iter().map(|a| Tree::text(a.to_string())).collect(),
            ),
        }
        if let Some(Units { meter, quantity, shortfall }) = &self.units {
            text_field(&mut fields, "quantity", Some(quantity));
            text_field(&mut fields, "meter", Some(meter));
            fields.extend(shortfall.as_ref().map(|pricing| ("shortfall_price".into(), pricing.to_tree())));
        }
        text_field(&mut fields, "product", self.product.as_ref());
        text_field(&mut fields, "every", self.every);
        text_field(&mut fields, "instalments", self.instalments);
        if !self.scope.is_empty() {
            fields.push(("scope".into(), self.scope.to_tree()));
        }
        fields.push(("priority".into(), Tree::number(self.priority)));
        list_field(&mut fields, "overage", self.overage.iter().map(Override::to_tree).collect());
        text_field(&mut fields, "from", self.from);
        text_field(&mut fields, "until", self.until);
        Tree::Object(fields)
    }
}

// ── credits ─────────────────────────────────────────────────────────────────────────────────────

/// Credit that the contract grants, once or again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    pub key: String,
    pub category: Category,
    /// `None` = only what `carry_from` brings.
    pub amount: Option<Exact>,
    /// A currency, a pricing unit or a meter's unit; `None` = the contract's currency.
    pub unit: Option<String>,
    /// What a commitment in units buys: the meter whose unit it is in. No document says it.
    pub of_meter: Option<String>,
    /// The prepaid commitment whose price is the price of all credits paid by it.
    pub paid_by: Option<String>,
    pub effective_on: Option<NaiveDate>,
    pub expires: Expires,
    pub every: Option<Interval>,
    pub scope: ScopeTerms,
    pub priority: i32,
    pub rollover: Option<RolloverTerms>,
    /// The contract whose unused credit it takes over.
    pub carry_from: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    ContractEnd,
    /// With the next grant, or the period of the commitment that pays for it.
    PeriodEnd,
    Never,
    On(NaiveDate),
}

/// How much of what is unused lives on, and how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RolloverTerms {
    pub cap: Option<Exact>,
    pub lasts: Interval,
}

const GRANT_FIELDS: [&str; 12] = [
    "key",
    "category",
    "amount",
    "unit",
    "paid_by",
    "effective_on",
    "expires",
    "every",
    "scope",
    "priority",
    "rollover",
    "carry_from",
];

impl Grant {
    pub fn read(node: &Node) -> Result<Grant, Fault> {
        let mut fields = node.fields_of(&GRANT_FIELDS)?;
        let key = fields.required("key")?.key()?.to_string();
        let category = Category::parse(fields.required("category")?.word(&Category::WORDS)?)?;
        let amount = fields.optional("amount").map(|n| read_amount(&n)).transpose()?;
        let unit = fields.optional("unit").map(|n| n.key().map(str::to_string)).transpose()?;
        let paid_by = fields.optional("paid_by").map(|n| n.key().map(str::to_string)).transpose()?;
        let effective_on = fields.optional("effective_on").map(|n| n.date()).transpose()?;
        let every = fields.optional("every").map(|n| read_interval(&n)).transpose()?;
        let expires = match fields.optional("expires") {
            None => Expires::ContractEnd,
            Some(node) => match node.text()? {
                "contract_end" => Expires::ContractEnd,
                "never" => Expires::Never,
                "period_end" if every.is_none() && paid_by.is_none() => {
                    return Err(node
                        .fault("needs a period")
                        .with_hint("Give the credit an every, or a commitment that it is paid_by."));
                }
                "period_end" => Expires::PeriodEnd,
                _ => Expires::On(node.date().map_err(|fault| {
                    fault.with_hint("Write contract_end, period_end, never, or a local date: 2026-03-01.")
                })?),
            },
        };
        if let (Expires::On(day), Some(begins)) = (expires, effective_on)
            && day <= begins
        {
            return Err(fields.fault(format!("expires {day} must be after effective_on {begins}")));
        }
        let scope = read_scope(&mut fields)?;
        let priority = read_priority(&mut fields, 50)?;
        let rollover = fields.optional("rollover").map(|n| RolloverTerms::read(&n)).transpose()?;
        let carry_from = match fields.optional("carry_from") {
            None => None,
            Some(node) => {
                let mut fields = node.fields_of(&["contract"])?;
                let contract = fields.required("contract")?.key()?.to_string();
                fields.finish()?;
                Some(contract)
            }
        };
        if amount.is_none() && carry_from.is_none() {
            return Err(fields.fault("must have an amount, or a contract to carry_from"));
        }
        if category == Category::Paid && paid_by.is_none() {
            return Err(fields.fault("is paid, but nothing pays for it").with_hint(
                "Name the prepaid commitment it is paid_by, or make it promotional or pilot. billing.credit_purchase() sells credit by itself.",
            ));
        }
        if carry_from.is_some() && every.is_some() {
            return Err(fields.fault("carry_from happens once, so it does not go with every"));
        }
        fields.finish()?;
        Ok(Grant {
            key,
            category,
            amount,
            unit,
            of_meter: None,
            paid_by,
            effective_on,
            expires,
            every,
            scope,
            priority,
            rollover,
            carry_from,
        })
    }
}

impl RolloverTerms {
    fn read(node: &Node) -> Result<RolloverTerms, Fault> {
        let mut fields = node.fields_of(&["cap", "for"])?;
        let cap = fields.optional("cap").map(|n| read_amount(&n)).transpose()?;
        let lasts = read_interval(&fields.required("for")?)?;
        fields.finish()?;
        Ok(RolloverTerms { cap, lasts })
    }
}

impl Keyed for Grant {
    const LIST: &'static str = "credits";

    fn key(&self) -> &str {
        &self.key
    }

    fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![
            ("key".into(), Tree::text(self.key.clone())),
            ("category".into(), Tree::text(self.category.as_str())),
            (
                "expires".into(),
                Tree::text(match self.expires {
                    Expires::ContractEnd => "contract_end".to_string(),
                    Expires::PeriodEnd => "period_end".to_string(),
                    Expires::Never => "never".to_string(),
                    Expires::On(day) => day.to_string(),
                }),
            ),
            ("priority".into(), Tree::number(self.priority)),
        ];
        text_field(&mut fields, "amount", self.amount);
        text_field(&mut fields, "unit", self.unit.as_ref());
        text_field(&mut fields, "of_meter", self.of_meter.as_ref());
        text_field(&mut fields, "paid_by", self.paid_by.as_ref());
        text_field(&mut fields, "effective_on", self.effective_on);
        text_field(&mut fields, "every", self.every);
        if !self.scope.is_empty() {
            fields.push(("scope".into(), self.scope.to_tree()));
        }
        if let Some(rollover) = self.rollover {
            let mut of = Vec::new();
            text_field(&mut of, "cap", rollover.cap);
            text_field(&mut of, "for", Some(rollover.lasts));
            fields.push(("rollover".into(), Tree::Object(of)));
        }
        if let Some(contract) = &self.carry_from {
            fields.push(("carry_from".into(), Tree::object([("contract", Tree::text(contract.clone()))])));
        }
        Tree::Object(fields)
    }
}

// ── entitlements ────────────────────────────────────────────────────────────────────────────────

/// What the customer may use.
impl Keyed for Entitlement {
    const LIST: &'static str = "entitlements";
    const KEY: &'static str = "feature";

    fn key(&self) -> &str {
        &self.feature
    }

    fn to_tree(&self) -> Tree<'static> {
        Entitlement::to_tree(self)
    }
}

// ── add-ons and phases ──────────────────────────────────────────────────────────────────────────

/// Charges, fees and entitlements with a term of their own, in the contract as `<add-on>/<item>`.
#[derive(Debug, Clone, PartialEq)]
pub struct AddOn {
    pub key: String,
    /// As they are in the contract, with the add-on's key before their own.
    pub charges: Vec<Scheduled<UsageCharge>>,
    pub fees: Vec<Scheduled<Fee>>,
    pub entitlements: Vec<Entitlement>,
    pub from: Option<NaiveDate>,
    /// Day after the last; without it and `term` it ends with the contract.
    pub until: Option<NaiveDate>,
    pub term: Option<Interval>,
}

impl AddOn {
    pub fn read(node: &Node) -> Result<AddOn, Fault> {
        let mut fields =
            node.fields_of(&["key", "charges", "fees", "entitlements", "from", "until", "term"])?;
        let key = fields.required("key")?.key()?.to_string();
        let mut charges: Vec<Scheduled<UsageCharge>> = read_items(&mut fields, "charges", Scheduled::read)?;
        let mut fees: Vec<Scheduled<Fee>> = read_items(&mut fields, "fees", Scheduled::read)?;
        let entitlements = read_keyed(&mut fields, Entitlement::read)?;
        if charges.is_empty() && fees.is_empty() && entitlements.is_empty() {
            return Err(fields.fault("has neither charges, fees nor entitlements"));
        }
        let keys = charges.iter().map(|c| c.item.key.as_str());
        unique_keys(&node.path, keys.chain(fees.iter().map(|f| f.item.key.as_str())))?;
        charges.iter_mut().for_each(|charge| charge.item.key = format!("{key}/{}", charge.item.key));
        fees.iter_mut().for_each(|fee| fee.item.key = format!("{key}/{}", fee.item.key));
        let (from, until) = read_dates(&mut fields)?;
        let term = fields.optional("term").map(|n| read_interval(&n)).transpose()?;
        if until.is_some() && term.is_some() {
            return Err(fields.fault("must not have both until and term"));
        }
        fields.finish()?;
        Ok(AddOn { key, charges, fees, entitlements, from, until, term })
    }

    /// Its charge of a key, with the day on which it begins in a contract that starts on a day.
    pub fn charge_mut(
        &mut self,
        key: &str,
        start: NaiveDate,
    ) -> Option<(NaiveDate, &mut Scheduled<UsageCharge>)> {
        let (from, _) = self.window(start);
        self.charges.iter_mut().find(|charge| charge.item.key == key).map(|charge| (from, charge))
    }

    /// As [`charge_mut`](AddOn::charge_mut), of a fee.
    pub fn fee_mut(&mut self, key: &str, start: NaiveDate) -> Option<(NaiveDate, &mut Scheduled<Fee>)> {
        let (from, _) = self.window(start);
        self.fees.iter_mut().find(|fee| fee.item.key == key).map(|fee| (from, fee))
    }

    /// From when until when it holds in a contract that starts on a day.
    pub fn window(&self, start: NaiveDate) -> (NaiveDate, Option<NaiveDate>) {
        let from = self.from.map_or(start, |from| from.max(start));
        (from, self.until.or_else(|| self.term.and_then(|term| term.nth_after(from, 1))))
    }
}

impl Keyed for AddOn {
    const LIST: &'static str = "add_ons";

    fn key(&self) -> &str {
        &self.key
    }

    fn to_tree(&self) -> Tree<'static> {
        // Inside the add-on its items have their own keys.
        let own = |tree: Tree<'static>| {
            let Tree::Object(mut fields) = tree else { unreachable!("an item is an object") };
            for (name, value) in &mut fields {
                if let ("key", Tree::Text(key)) = (name.as_ref(), value) {
                    *key = key[self.key.len() + 1..].to_string().into();
                }
            }
            Tree::Object(fields)
        };
        let mut fields = vec![("key".into(), Tree::text(self.key.clone()))];
        list_field(&mut fields, "charges", self.charges.iter().map(|c| own(c.to_tree())).collect());
        list_field(&mut fields, "fees", self.fees.iter().map(|f| own(f.to_tree())).collect());
        list_field(&mut fields, "entitlements", self.entitlements.iter().map(Keyed::to_tree).collect());
        text_field(&mut fields, "from", self.from);
        text_field(&mut fields, "until", self.until);
        text_field(&mut fields, "term", self.term);
        Tree::Object(fields)
    }
}

/// A part of the contract's time in which some of it is otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    pub key: String,
    pub from: Option<NaiveDate>,
    pub duration: Option<Interval>,
    pub charges: Vec<Entry<Scheduled<UsageCharge>>>,
    pub fees: Vec<Entry<Scheduled<Fee>>>,
    pub overrides: Vec<Override>,
    pub discounts: Vec<Discount>,
}

impl Phase {
    pub fn read(node: &Node) -> Result<Phase, Fault> {
        let mut fields =
            node.fields_of(&["key", "from", "duration", "charges", "fees", "overrides", "discounts"])?;
        let key = fields.required("key")?.key()?.to_string();
        let from = fields.optional("from").map(|n| n.date()).transpose()?;
        let duration = fields.optional("duration").map(|n| read_interval(&n)).transpose()?;
        let charges = read_items(&mut fields, "charges", |n| read_entry(n, Scheduled::read))?;
        let fees = read_items(&mut fields, "fees", |n| read_entry(n, Scheduled::read))?;
        let overrides = fields.optional("overrides").map_or(Ok(Vec::new()), |n| overrides::read_list(&n))?;
        let discounts = read_keyed(&mut fields, Discount::read)?;
        fields.finish()?;
        Ok(Phase { key, from, duration, charges, fees, overrides, discounts })
    }
}

impl Keyed for Phase {
    const LIST: &'static str = "phases";

    fn key(&self) -> &str {
        &self.key
    }

    fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![("key".into(), Tree::text(self.key.clone()))];
        text_field(&mut fields, "from", self.from);
        text_field(&mut fields, "duration", self.duration);
        list_field(&mut fields, "charges", self.charges.iter().map(Entry::to_tree).collect());
        list_field(&mut fields, "fees", self.fees.iter().map(Entry::to_tree).collect());
        list_field(&mut fields, "overrides", self.overrides.iter().map(Override::to_tree).collect());
        list_field(&mut fields, "discounts", self.discounts.iter().map(Keyed::to_tree).collect());
        Tree::Object(fields)
    }
}

/// From when until when each phase holds: one after the other, the first from the contract's start, the last until its end.
pub fn phase_windows(
    phases: &[Phase],
    start: NaiveDate,
) -> Result<Vec<(NaiveDate, Option<NaiveDate>)>, Fault> {
    let mut windows: Vec<(NaiveDate, Option<NaiveDate>)> = Vec::new();
    for (n, phase) in phases.iter().enumerate() {
        let path = format!("phases[{n}]");
        let next = windows.last_mut();
        let from = match (phase.from, next) {
            (Some(from), None) if from < start => {
                return Err(Fault::document(
                    &format!("{path}.from"),
                    format!("{from} is before the contract starts on {start}"),
                ));
            }
            (from, None) => from.unwrap_or(start),
            (Some(from), Some((begun, until))) => {
                if from <= *begun || until.is_some_and(|until| from < until) {
                    return Err(Fault::document(
                        &format!("{path}.from"),
                        format!("{from} is before the phase before it ends"),
                    ));
                }
                *until = until.or(Some(from));
                from
            }
            (None, Some((_, Some(until)))) => *until,
            (None, Some((_, None))) => {
                return Err(Fault::document(
                    &path,
                    "begins when the phase before it ends, and that has no duration",
                )
                .with_hint("Give the phase before it a duration, or this one a from."));
            }
        };
        let until = match phase.duration {
            None => None,
            Some(duration) => Some(
                duration
                    .nth_after(from, 1)
                    .ok_or_else(|| Fault::document(&format!("{path}.duration"), "ends after year 9999"))?,
            ),
        };
        windows.push((from, until));
    }
    Ok(windows)
}
