//! The contract document, and what it comes to together with its plan.

use super::charge::{Entry, Fee, Keyed, PriceSource, UsageCharge, read_entry};
use super::extras::{
    AddOn, Commitment, Discount, Entitlement, Expires, Grant, Phase, Units, phase_windows, read_keyed,
};
use super::overrides::{self, Override};
use super::plan::{Billing, Plan, check_every, read_interval, read_items, unique_keys};
use super::renewal::{Renewal, RenewalPrices};
use super::schedule::{Item, Scheduled};
use crate::domain::credits::Order;
use crate::domain::foundation::calendar::{Calendar, Interval};
use crate::domain::foundation::json::{Node, Tree, field_path, index_path};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Exact, Fault};
use chrono::NaiveDate;

const FIELDS: [&str; 26] = [
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
    "phases",
    "discounts",
    "commitments",
    "credits",
    "credit_order",
    "credit_mode",
    "add_ons",
    "entitlements",
    "renewal",
];
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
    pub phases: Vec<Phase>,
    pub discounts: Vec<Discount>,
    pub commitments: Vec<Commitment>,
    pub credits: Vec<Grant>,
    /// In which order credits are drawn down; `None` = the default of `credits::order`.
    pub credit_order: Option<Order>,
    /// What happens when credit ends: a word of `credits::Mode`.
    pub credit_mode: Option<String>,
    pub add_ons: Vec<AddOn>,
    pub entitlements: Vec<Entitlement>,
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
        let phases = read_keyed(&mut fields, Phase::read)?;
        let discounts = read_keyed(&mut fields, Discount::read)?;
        let commitments = read_keyed(&mut fields, Commitment::read)?;
        let credits = read_keyed(&mut fields, Grant::read)?;
        let credit_order = fields.optional("credit_order").map(|n| Order::read(&n)).transpose()?;
        let credit_mode = fields.optional("credit_mode").map(|n| read_credit_mode(&n)).transpose()?;
        let add_ons = read_keyed(&mut fields, AddOn::read)?;
        let entitlements = read_keyed(&mut fields, Entitlement::read)?;
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
            phases,
            discounts,
            commitments,
            credits,
            credit_order,
            credit_mode,
            add_ons,
            entitlements,
            renewal,
        })
    }

    /// Whether it can be billed on its plan: refuses what stands for nothing, by its path.
    pub fn check(&self, plan: Option<&Plan>) -> Result<(), Fault> {
        let billing = self.billing(plan);
        billing.check()?;
        check_removals("charges", "the plan", plan.map_or(&[], |plan| &plan.charges), &self.charges)?;
        check_removals("fees", "the plan", plan.map_or(&[], |plan| &plan.fees), &self.fees)?;
        let items = self.all_items(plan);
        // A free plan entitles to something, and bills nothing.
        let entitles = !self.entitlements.is_empty()
            || plan.is_some_and(|plan| !plan.entitlements.is_empty())
            || self.add_ons.iter().any(|add_on| !add_on.entitlements.is_empty());
        if items.charges.is_empty() && items.fees.is_empty() && !entitles {
            return Err(Fault::document("", "has neither charges nor fees, so it can't bill anything")
                .with_hint("Name a plan, or give charges or fees."));
        }
        self.check_items(plan)?;
        check_overrides("overrides", &self.overrides, &items)?;
        let ends_on = self.ends_on(plan)?;
        let trial_until = self.trial_until()?;
        if let Some(end) = ends_on
            && trial_until.is_some_and(|until| until >= end)
        {
            return Err(Fault::document("trial", format!("lasts as long as the contract, until {end}")));
        }
        Calendar::new(self.starts_on, ends_on, billing.interval(), billing.alignment(trial_until))?;
        let begins = self.begins()?;
        check_steps(&self.charges, self.starts_on, ends_on)?;
        check_steps(&self.fees, begins, ends_on)?;
        let windows = phase_windows(&self.phases, self.starts_on)?;
        for (n, (phase, (from, until))) in self.phases.iter().zip(windows).enumerate() {
            let path = index_path("phases", n);
            if ends_on.is_some_and(|end| from >= end) {
                return Err(Fault::document(&path, format!("begins on {from}, when the contract has ended")));
            }
            let until = [until, ends_on].into_iter().flatten().min();
            let place = |fault: Fault| fault.inside(&path);
            check_removals("charges", "the contract", &self.items(plan).charges, &phase.charges)
                .map_err(place)?;
            check_removals("fees", "the contract", &self.items(plan).fees, &phase.fees).map_err(place)?;
            check_steps(&phase.charges, from, until).map_err(place)?;
            check_steps(&phase.fees, from.max(begins), until).map_err(place)?;
            check_overrides("overrides", &phase.overrides, &items).map_err(place)?;
            check_discounts(&phase.discounts, &items, (from, until)).map_err(place)?;
        }
        for (n, add_on) in self.add_ons.iter().enumerate() {
            self.check_add_on(add_on, ends_on).map_err(|fault| fault.inside(&index_path("add_ons", n)))?;
        }
        check_discounts(&self.discounts, &items, (self.starts_on, self.last_end(ends_on)))?;
        for (n, commitment) in self.commitments.iter().enumerate() {
            self.check_commitment(commitment, plan, ends_on)
                .map_err(|fault| fault.inside(&index_path("commitments", n)))?;
        }
        for (n, grant) in self.credits.iter().enumerate() {
            self.check_grant(grant, ends_on).map_err(|fault| fault.inside(&index_path("credits", n)))?;
        }
        self.check_renewal()
    }

    /// What every state of a contract must keep: keys that are unique, intervals that fit, prices that are somewhere.
    pub fn check_items(&self, plan: Option<&Plan>) -> Result<(), Fault> {
        let mut items = self.items(plan);
        for add_on in &self.add_ons {
            items.charges.extend(add_on.charges.iter().cloned());
            items.fees.extend(add_on.fees.iter().cloned());
        }
        let keys = |items: &Items| -> Vec<String> {
            let charges = items.charges.iter().map(|c| c.item.key.clone());
            charges.chain(items.fees.iter().map(|f| f.item.key.clone())).collect()
        };
        unique_keys("", keys(&items).iter().map(String::as_str))?;
        for (n, phase) in self.phases.iter().enumerate() {
            let path = |list: &str, at: usize| index_path(&field_path(&index_path("phases", n), list), at);
            let clash = |path: String, key: &str| {
                Err(Fault::document(&path, format!("\"{key}\" is the key of two charges or fees")))
            };
            if let Some(at) =
                phase.charges.iter().position(|c| items.fees.iter().any(|f| f.item.key == c.key()))
            {
                return clash(path("charges", at), phase.charges[at].key());
            }
            if let Some(at) = phase.fees.iter().position(|f| {
                items.charges.iter().any(|c| c.item.key == f.key())
                    || phase.charges.iter().any(|c| c.key() == f.key())
            }) {
                return clash(path("fees", at), phase.fees[at].key());
            }
        }
        let all = self.all_items(plan);
        let interval = self.billing(plan).interval();
        let every =
            |path: &str, charges: &[Entry<Scheduled<UsageCharge>>], fees: &[Entry<Scheduled<Fee>>]| {
                check_entries_every(path, charges, interval)?;
                check_entries_every(path, fees, interval)
            };
        every("", &self.charges, &self.fees)?;
        for (n, phase) in self.phases.iter().enumerate() {
            every(&index_path("phases", n), &phase.charges, &phase.fees)?;
        }
        // What add-ons and the plan say, by its key.
        all.charges.iter().try_for_each(|charge| check_every("", &charge.item, interval))?;
        all.fees.iter().try_for_each(|fee| check_every("", &fee.item, interval))?;
        if self.price_book(plan).is_none()
            && all.charges.iter().any(|c| matches!(c.item.source, PriceSource::Book(_)))
        {
            return Err(Fault::document("price_book", "is missing, but charges name prices"));
        }
        Ok(())
    }

    /// Refuses quantities that count for nothing, in a document that is given anew.
    pub fn check_quantities(&self) -> Result<(), Fault> {
        check_quantities("", self.fees.iter().map(Entry::item))?;
        for (n, phase) in self.phases.iter().enumerate() {
            check_quantities(&index_path("phases", n), phase.fees.iter().map(Entry::item))?;
        }
        for (n, add_on) in self.add_ons.iter().enumerate() {
            check_quantities(&index_path("add_ons", n), add_on.fees.iter().map(Some))?;
        }
        Ok(())
    }

    /// Faults have their path inside the add-on.
    pub fn check_add_on(&self, add_on: &AddOn, ends_on: Option<NaiveDate>) -> Result<(), Fault> {
        let (from, until) = add_on.window(self.starts_on);
        if ends_on.is_some_and(|end| from >= end) {
            return Err(Fault::document("from", format!("{from} is when the contract has ended")));
        }
        let until = [until, ends_on].into_iter().flatten().min();
        for (at, charge) in add_on.charges.iter().enumerate() {
            charge.check_steps(from, until).map_err(|fault| fault.inside(&index_path("charges", at)))?;
        }
        let begins = from.max(self.begins()?);
        for (at, fee) in add_on.fees.iter().enumerate() {
            fee.check_steps(begins, until).map_err(|fault| fault.inside(&index_path("fees", at)))?;
        }
        Ok(())
    }

    /// Faults have their path inside the commitment.
    pub fn check_commitment(
        &self,
        commitment: &Commitment,
        plan: Option<&Plan>,
        ends_on: Option<NaiveDate>,
    ) -> Result<(), Fault> {
        let Some(every) = commitment.every.or(self.term) else {
            return Err(Fault::document(
                "every",
                "is missing: a contract without a term has no period of its own",
            )
            .with_hint("Say for which period the amount is: \"every\": \"12 months\"."));
        };
        let from = commitment.from.unwrap_or(self.starts_on);
        if from < self.starts_on || ends_on.is_some_and(|end| from >= end) {
            return Err(Fault::document("from", format!("{from} is outside the contract's term")));
        }
        let until = [commitment.until, ends_on].into_iter().flatten().min();
        if let (Some(until), 2..) = (until, commitment.amounts.len()) {
            let periods =
                (0..).take_while(|n| every.nth_after(from, *n).is_some_and(|at| at < until)).count();
            if periods != commitment.amounts.len() {
                let message =
                    format!("has {} amounts for {periods} periods of {every}", commitment.amounts.len());
                return Err(Fault::document("amounts", message));
            }
        }
        if let Some(instalments) = commitment.instalments {
            if !instalments.divides(every) {
                return Err(Fault::document(
                    "instalments",
                    format!("{instalments} does not divide the period of {every}"),
                ));
            }
            let interval = self.billing(plan).interval();
            if !interval.divides(instalments) {
                return Err(Fault::document(
                    "instalments",
                    format!("{instalments} is no multiple of the billing interval of {interval}"),
                ));
            }
        }
        if let Some(Units { meter, .. }) = &commitment.units {
            let items = self.all_items(plan);
            if !items.charges.iter().any(|charge| charge.item.meter == *meter) {
                return Err(no_charge("meter", &items));
            }
            if let Some(at) = commitment.scope.meters.iter().position(|named| named != meter) {
                return Err(Fault::document(
                    &index_path("scope.meters", at),
                    format!("is not {meter}, which the commitment is in units of"),
                ));
            }
            if commitment.prepaid && self.credits.iter().any(|grant| grant.key == commitment.key) {
                return Err(Fault::document(
                    "key",
                    format!("\"{}\" is the key of a credit, too", commitment.key),
                )
                .with_hint("What the quantity buys is a credit by the commitment's key."));
            }
        }
        check_overrides("overage", &commitment.overage, &self.all_items(plan))
    }

    /// Faults have their path inside the credit.
    pub fn check_grant(&self, grant: &Grant, ends_on: Option<NaiveDate>) -> Result<(), Fault> {
        if let Some(by) = &grant.paid_by {
            match self.commitments.iter().find(|commitment| commitment.key == *by) {
                None => {
                    return Err(Fault::document(
                        "paid_by",
                        format!("\"{by}\" is no commitment of this contract"),
                    ));
                }
                Some(Commitment { units: Some(_), .. }) => {
                    return Err(Fault::document(
                        "paid_by",
                        format!("\"{by}\" is in units, and its price is theirs"),
                    )
                    .with_hint("Let a commitment of money pay for credit."));
                }
                Some(commitment) if !commitment.prepaid => {
                    return Err(Fault::document(
                        "paid_by",
                        format!("\"{by}\" is not prepaid, so it pays for nothing in advance"),
                    ));
                }
                Some(_) => (),
            }
        }
        let begins = grant.effective_on.unwrap_or(self.starts_on);
        if begins < self.starts_on || ends_on.is_some_and(|end| begins >= end) {
            return Err(Fault::document("effective_on", format!("{begins} is outside the contract's term")));
        }
        if let Expires::On(day) = grant.expires
            && day <= begins
        {
            return Err(Fault::document("expires", format!("{day} is not after {begins}, when it begins")));
        }
        if grant.expires == Expires::ContractEnd && ends_on.is_none() {
            return Err(Fault::document("expires", "is missing, and this contract has no end")
                .with_hint("Say \"never\", \"period_end\" or a date."));
        }
        Ok(())
    }

    /// Writes down what is counted from the beginning or the contract's first terms, so that it stays when those change.
    pub fn settle(&mut self, plan: Option<&Plan>) {
        let (start, term) = (self.starts_on, self.term);
        let product = self.first_product(plan);
        for commitment in &mut self.commitments {
            commitment.from = commitment.from.or(Some(start));
            commitment.every = commitment.every.or(term);
            commitment.product = commitment.product.take().or_else(|| product.clone());
        }
        let commitments = &self.commitments;
        for grant in &mut self.credits {
            grant.effective_on = grant.effective_on.or(Some(start));
            let paid_by =
                commitments.iter().find(|commitment| Some(&commitment.key) == grant.paid_by.as_ref());
            if grant.carry_from.is_none() {
                // What each period of a commitment pays for is granted with each.
                grant.every = grant.every.or_else(|| paid_by.and_then(|commitment| commitment.every));
            }
        }
    }

    /// What a commitment is for that does not say.
    fn first_product(&self, plan: Option<&Plan>) -> Option<String> {
        let items = self.all_items(plan);
        let charge = items.charges.first().map(|charge| charge.item.product.clone());
        charge.or_else(|| items.fees.first().map(|fee| fee.item.product.clone()))
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

    /// Those, and the items of add-ons and phases; an item of a phase that takes another's place comes beside it.
    pub fn all_items(&self, plan: Option<&Plan>) -> Items {
        let mut items = self.items(plan);
        for add_on in &self.add_ons {
            items.charges.extend(add_on.charges.iter().cloned());
            items.fees.extend(add_on.fees.iter().cloned());
        }
        for phase in &self.phases {
            items.charges.extend(phase.charges.iter().filter_map(Entry::item).cloned());
            items.fees.extend(phase.fees.iter().filter_map(Entry::item).cloned());
        }
        items
    }

    /// Forgets to remove what a new plan does not have.
    pub fn drop_removals(&mut self, plan: &Plan) {
        let has = |key: &str| {
            plan.charges.iter().any(|c| c.item.key == key) || plan.fees.iter().any(|f| f.item.key == key)
        };
        self.charges.retain(|entry| entry.item().is_some() || has(entry.key()));
        self.fees.retain(|entry| entry.item().is_some() || has(entry.key()));
    }

    /// Raises what the contract says of prices: its fees (the plan's, too, which become its own), its own pricings and
    /// the prices of its overrides. List prices and percentages off them are not the contract's to raise.
    pub fn raise(&mut self, plan: Option<&Plan>, percent: Exact) -> Result<(), Fault> {
        for fee in self.items(plan).fees {
            if !self.fees.iter().any(|entry| entry.key() == fee.item.key) && !fee.item.once {
                self.fees.push(Entry::Item(fee));
            }
        }
        let phases = self.phases.iter_mut();
        let (mut fees, mut charges, mut agreed) = (Vec::new(), Vec::new(), Vec::new());
        for phase in phases {
            fees.extend(phase.fees.iter_mut().filter_map(Entry::item_mut));
            charges.extend(phase.charges.iter_mut().filter_map(Entry::item_mut));
            agreed.extend(phase.overrides.iter_mut());
        }
        for add_on in &mut self.add_ons {
            fees.extend(add_on.fees.iter_mut());
            charges.extend(add_on.charges.iter_mut());
        }
        fees.extend(self.fees.iter_mut().filter_map(Entry::item_mut));
        charges.extend(self.charges.iter_mut().filter_map(Entry::item_mut));
        fees.into_iter().filter(|fee| !fee.item.once).try_for_each(|fee| fee.raise(percent))?;
        charges.into_iter().try_for_each(|charge| charge.raise(percent))?;
        self.overrides.iter_mut().chain(agreed).try_for_each(|item| item.raise(percent))
    }

    /// From a day on list prices hold: what was agreed on beside them ends.
    pub fn end_agreed_prices(&mut self, day: NaiveDate) {
        self.overrides.retain(|item| item.from.is_some_and(|from| from > day));
        self.discounts.retain(|item| item.from.is_some_and(|from| from > day));
        for phase in &mut self.phases {
            phase.overrides.clear();
            phase.discounts.clear();
        }
    }

    /// First day after the term.
    pub fn ends_on(&self, plan: Option<&Plan>) -> Result<Option<NaiveDate>, Fault> {
        self.term.map(|term| self.billing(plan).term_end(self.starts_on, term)).transpose()
    }

    /// The day by which what is agreed must begin: a contract that can be renewed has none.
    pub fn last_end(&self, ends_on: Option<NaiveDate>) -> Option<NaiveDate> {
        ends_on.filter(|_| self.renewal.is_none())
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
        if let Some(order) = &self.credit_order {
            fields.push(("credit_order".into(), order.to_tree()));
        }
        if let Some(mode) = &self.credit_mode {
            fields.push(("credit_mode".into(), Tree::text(mode.clone())));
        }
        for (name, list) in [
            ("overrides", self.overrides.iter().map(Override::to_tree).collect::<Vec<_>>()),
            ("charges", self.charges.iter().map(Entry::to_tree).collect()),
            ("fees", self.fees.iter().map(Entry::to_tree).collect()),
            ("phases", self.phases.iter().map(Keyed::to_tree).collect()),
            ("discounts", self.discounts.iter().map(Keyed::to_tree).collect()),
            ("commitments", self.commitments.iter().map(Keyed::to_tree).collect()),
            ("credits", self.credits.iter().map(Keyed::to_tree).collect()),
            ("add_ons", self.add_ons.iter().map(Keyed::to_tree).collect()),
            ("entitlements", self.entitlements.iter().map(Keyed::to_tree).collect()),
        ] {
            if !list.is_empty() {
                fields.push((name.into(), Tree::List(list)));
            }
        }
        Tree::Object(fields)
    }
}

/// What happens when credit ends.
pub(super) fn read_credit_mode(node: &Node) -> Result<String, Fault> {
    node.word(&["credit_then_invoice", "credit_only", "allow_negative"]).map(str::to_string)
}

pub fn read_purchase_order(node: &Node) -> Result<String, Fault> {
    let text = node.text()?;
    if text.is_empty() || text.len() > PURCHASE_ORDER_MAX {
        return Err(node.fault(format!("must have 1 to {PURCHASE_ORDER_MAX} bytes")));
    }
    Ok(text.to_string())
}

/// Whether the quantities of a list of fees count for something.
pub fn check_quantities<'f>(
    path: &str,
    fees: impl Iterator<Item = Option<&'f Scheduled<Fee>>>,
) -> Result<(), Fault> {
    for (at, fee) in fees.enumerate() {
        let place = |fault: Fault| fault.inside(&index_path(&field_path(path, "fees"), at));
        fee.map_or(Ok(()), Scheduled::check_quantity).map_err(place)?;
    }
    Ok(())
}

/// Refuses overrides that are for no charge.
pub fn check_overrides(list: &str, overrides: &[Override], items: &Items) -> Result<(), Fault> {
    match overrides
        .iter()
        .position(|item| !items.charges.iter().any(|c| item.is_for(&c.item.key, &c.item.meter)))
    {
        Some(at) => Err(no_charge(&index_path(list, at), items)),
        None => Ok(()),
    }
}

/// Refuses discounts of what is no charge or fee.
pub fn check_discounts(
    discounts: &[Discount],
    items: &Items,
    during: (NaiveDate, Option<NaiveDate>),
) -> Result<(), Fault> {
    for (n, discount) in discounts.iter().enumerate() {
        check_discount(discount, items, during).map_err(|fault| fault.inside(&index_path("discounts", n)))?;
    }
    Ok(())
}

/// Whether it is off something, at some time of what it is part of.
pub fn check_discount(
    discount: &Discount,
    items: &Items,
    (from, until): (NaiveDate, Option<NaiveDate>),
) -> Result<(), Fault> {
    let begins = discount.from.unwrap_or(from);
    if let Some(until) = until.filter(|until| begins >= *until) {
        let message = format!("{begins} is not before the end on {until}, so it would never hold");
        return Err(Fault::document("from", message)
            .with_hint("Give the contract a longer term or a renewal, or the discount an earlier from."));
    }
    if let Some(ends) = discount.ends(begins).filter(|ends| *ends <= from) {
        let name = if discount.until.is_some() { "until" } else { "duration" };
        let message = format!("ends on {ends}, not after the start on {from}, so it would never hold");
        return Err(Fault::document(name, message));
    }
    let keys = items
        .charges
        .iter()
        .map(|c| c.item.key.as_str())
        .chain(items.fees.iter().map(|f| f.item.key.as_str()));
    let keys: Vec<&str> = keys.collect();
    let products = items.charges.iter().map(|c| c.item.product.as_str());
    let products: Vec<&str> = products.chain(items.fees.iter().map(|f| f.item.product.as_str())).collect();
    for (name, named, known) in
        [("charges", &discount.charges, keys), ("products", &discount.products, products)]
    {
        if let Some(at) = named.iter().position(|key| !known.contains(&key.as_str())) {
            let what = if name == "charges" { "charge or fee" } else { "product of a charge or fee" };
            return Err(Fault::document(
                &index_path(name, at),
                format!("\"{}\" is no {what} of this contract", named[at]),
            ));
        }
    }
    Ok(())
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

fn check_entries_every<T: Item>(
    path: &str,
    entries: &[Entry<Scheduled<T>>],
    interval: Interval,
) -> Result<(), Fault> {
    entries.iter().enumerate().try_for_each(|(at, entry)| match entry {
        Entry::Item(item) => {
            let path = field_path(&index_path(&field_path(path, T::LIST), at), "every");
            check_every(&path, &item.item, interval)
        }
        Entry::Remove(_) => Ok(()),
    })
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
    owner: &str,
    base: &[Scheduled<T>],
    entries: &[Entry<Scheduled<T>>],
) -> Result<(), Fault> {
    for (at, entry) in entries.iter().enumerate() {
        let name = entry.key();
        if entries[..at].iter().any(|other| other.key() == name) {
            return Err(Fault::document(&format!("{list}[{at}].key"), format!("\"{name}\" stands twice")));
        }
        if matches!(entry, Entry::Remove(_)) && !base.iter().any(|item| item.item.key() == name) {
            let message = format!("{owner} has no \"{name}\" to remove");
            return Err(Fault::document(&index_path(list, at), message));
        }
    }
    Ok(())
}
