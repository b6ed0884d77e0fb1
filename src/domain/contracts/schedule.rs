//! When a charge or fee holds, and how its terms change by themselves: ramps and step-ups.
//!
//! What a document says once is here taken apart into stretches of plain terms, so that billing knows no ramps.

use super::charge::{Fee, Keyed, read_quantity};
use super::plan::read_interval;
use crate::domain::foundation::calendar::Interval;
use crate::domain::foundation::json::{Fields, Node, Tree, field_path, index_path};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::rating::Pricing;
use chrono::NaiveDate;

/// Most steps of one ramp, and most steps that a step-up takes.
pub const STEPS_MAX: usize = 1000;
/// A step-up of what has no end is taken for so long.
const STEP_UP_LASTS: Interval = Interval::Months(50 * 12);
const FIELDS: [&str; 3] = ["from", "until", "ramp"];

/// A charge or a fee.
pub trait Item: Clone + PartialEq + Sized {
    /// The fields of its plain document.
    const FIELDS: &'static [&'static str];
    /// The name of its list in a contract.
    const LIST: &'static str;
    /// Whether it has what a usage charge has not: a quantity, a step-up.
    const IS_FEE: bool;

    fn take(fields: &mut Fields) -> Result<Self, Fault>;
    fn key(&self) -> &str;
    fn to_tree(&self) -> Tree<'static>;
    fn every(&self) -> Option<Interval>;
    fn once(&self) -> bool;
    /// Its own pricing; `None` = a price of a book.
    fn pricing(&self) -> Option<&Pricing>;
    fn set_pricing(&mut self, pricing: Pricing);
    fn set_quantity(&mut self, quantity: Exact);
    /// Whether it can have this pricing.
    fn check_pricing(path: &str, pricing: &Pricing) -> Result<(), Fault>;
}

/// An item with the time it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduled<T> {
    pub item: T,
    /// First local day; `None` = as soon as what it is part of.
    pub from: Option<NaiveDate>,
    /// Day after the last.
    pub until: Option<NaiveDate>,
    pub ramp: Vec<Step>,
    pub step_up: Option<StepUp>,
}

/// What is different from a day on. What it does not name goes on as it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub at: StepAt,
    pub quantity: Option<Exact>,
    pub price: Option<StepPrice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepAt {
    From(NaiveDate),
    /// This long after the item begins.
    After(Interval),
}

#[derive(Debug, Clone, PartialEq)]
pub enum StepPrice {
    Pricing(Box<Pricing>),
    /// Every amount of the step before, raised by this.
    Percent(Exact),
}

/// A raise that comes again and again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepUp {
    pub percent: Exact,
    pub every: Interval,
}

impl<T: Item> Scheduled<T> {
    pub fn read(node: &Node) -> Result<Scheduled<T>, Fault> {
        let more: &[&str] = if T::IS_FEE { &["step_up"] } else { &[] };
        let mut fields = node.fields_of(&[T::FIELDS, &FIELDS, more].concat())?;
        let item = T::take(&mut fields)?;
        let (from, until) = read_dates(&mut fields)?;
        let ramp = read_ramp::<T>(&mut fields, &item)?;
        let step_up = fields.optional("step_up").map(|node| read_step_up(&node)).transpose()?;
        if !ramp.is_empty() && step_up.is_some() {
            return Err(fields
                .fault("has a ramp and a step_up, and the two don't say which comes first")
                .with_hint(
                    "Write the raises as steps of the ramp: {\"after\": \"12 months\", \"percent\": \"7\"}.",
                ));
        }
        if item.once() && (until.is_some() || !ramp.is_empty() || step_up.is_some()) {
            return Err(fields
                .fault("until, ramp and step_up don't go with once")
                .with_hint("What is billed once has a from and nothing after it."));
        }
        fields.finish()?;
        Ok(Scheduled { item, from, until, ramp, step_up })
    }

    fn document(&self) -> Tree<'static> {
        let Tree::Object(mut fields) = self.item.to_tree() else { unreachable!("an item is an object") };
        for (name, date) in [("from", self.from), ("until", self.until)] {
            if let Some(date) = date {
                fields.push((name.into(), Tree::text(date.to_string())));
            }
        }
        if !self.ramp.is_empty() {
            fields.push(("ramp".into(), Tree::List(self.ramp.iter().map(Step::to_tree).collect())));
        }
        if let Some(StepUp { percent, every }) = self.step_up {
            fields.push((
                "step_up".into(),
                Tree::object([
                    ("percent", Tree::text(percent.to_string())),
                    ("every", Tree::text(every.to_string())),
                ]),
            ));
        }
        Tree::Object(fields)
    }

    /// The item's plain terms from each day on which they change, the first on `begins`, the last before `ends`.
    /// Faults name their place inside the item.
    pub fn stretches(
        &self,
        begins: NaiveDate,
        ends: Option<NaiveDate>,
    ) -> Result<Vec<(NaiveDate, T)>, Fault> {
        let mut stretches = vec![(begins, self.item.clone())];
        let inside = |day: NaiveDate| ends.is_none_or(|ends| day < ends);
        for (n, step) in self.ramp.iter().enumerate() {
            let path = index_path("ramp", n);
            let day = step.day(begins).ok_or_else(|| Fault::document(&path, "is after year 9999"))?;
            let (last, mut item) = stretches[stretches.len() - 1].clone();
            if day <= last {
                let what = if n == 0 { "the item begins" } else { "the step before it" };
                return Err(Fault::document(&path, format!("is on {day}, not after {what} on {last}"))
                    .with_hint("Steps stand in the order of their days, the first after the item begins."));
            }
            step.apply(&mut item).map_err(|fault| Fault::document(&path, fault))?;
            stretches.push((day, item));
        }
        stretches.retain(|(day, _)| *day == begins || inside(*day));
        if let Some(step_up) = self.step_up {
            let ends = ends.or_else(|| STEP_UP_LASTS.nth_after(begins, 1)).unwrap_or(NaiveDate::MAX);
            for n in 1.. {
                let Some(day) = step_up.every.nth_after(begins, n).filter(|day| *day < ends) else { break };
                if n as usize > STEPS_MAX {
                    return Err(Fault::document("step_up", format!("takes more than {STEPS_MAX} steps")));
                }
                let mut item = stretches[stretches.len() - 1].1.clone();
                raise(&mut item, step_up.percent).map_err(|fault| Fault::document("step_up", fault))?;
                stretches.push((day, item));
            }
        }
        Ok(stretches)
    }

    /// Whether its steps can be taken where it begins on a day unless it says a later one.
    pub fn check_steps(&self, begins: NaiveDate, ends: Option<NaiveDate>) -> Result<(), Fault> {
        let begins = self.from.map_or(begins, |from| from.max(begins));
        let ends = match (self.until, ends) {
            (Some(until), Some(ends)) => Some(until.min(ends)),
            (until, ends) => until.or(ends),
        };
        self.stretches(begins, ends).map(drop)
    }

    /// The item with `percent` on all its prices: its own and those of its steps. A price of a book stays.
    pub fn raise(&mut self, percent: Exact) -> Result<(), Fault> {
        if self.item.pricing().is_some() {
            raise(&mut self.item, percent)?;
        }
        for step in &mut self.ramp {
            if let Some(StepPrice::Pricing(pricing)) = &mut step.price {
                **pricing = pricing.raised(percent)?;
            }
        }
        Ok(())
    }

    /// Puts a quantity or a price in the place of those in force from `day` on; steps that come later still come.
    /// `begins` is when the item began.
    pub fn restate(
        &mut self,
        begins: NaiveDate,
        day: NaiveDate,
        quantity: Option<Exact>,
        pricing: Option<Pricing>,
    ) -> Result<(), Fault> {
        for step in &mut self.ramp {
            let at = step.day(begins).filter(|at| *at <= day);
            let Some(_) = at else { continue };
            if quantity.is_some() {
                step.quantity = None;
            }
            if pricing.is_some() {
                step.price = None;
            }
        }
        if pricing.is_some()
            && let Some(StepUp { every, .. }) = self.step_up
        {
            // The next raise is of the new price, on its own day: the fee begins anew on the last day that raised it.
            let passed = (0..).take_while(|n| every.nth_after(begins, *n).is_some_and(|at| at <= day)).last();
            let passed = passed.unwrap_or(0);
            let since = every.nth_after(begins, passed).unwrap_or(begins);
            if (1..=12).any(|n| every.nth_after(since, n) != every.nth_after(begins, passed + n)) {
                let message = format!("counted from {begins} can't go on from {since}");
                return Err(Fault::document("step_up", message)
                    .with_hint("Amend the whole fee instead, with the step_up from here on."));
            }
            self.from = Some(since);
        }
        // A step with nothing left to say is none.
        self.ramp.retain(|step| step.quantity.is_some() || step.price.is_some());
        if let Some(quantity) = quantity {
            self.item.set_quantity(quantity);
        }
        if let Some(pricing) = pricing {
            self.item.set_pricing(pricing);
        }
        Ok(())
    }
}

impl Scheduled<Fee> {
    /// Refuses a quantity that no price ever multiplies, since all of them are flat. Only what is said anew is asked: such
    /// fees were taken before.
    pub fn check_quantity(&self) -> Result<(), Fault> {
        let prices = self.ramp.iter().filter_map(|step| match &step.price {
            Some(StepPrice::Pricing(pricing)) => Some(pricing.as_ref()),
            _ => None,
        });
        if !prices.chain([&self.item.pricing]).all(|pricing| pricing.model_name() == "flat") {
            return Ok(());
        }
        let step = |(n, step): (usize, &Step)| {
            Some((field_path(&index_path("ramp", n), "quantity"), step.quantity?))
        };
        let quantities = self.ramp.iter().enumerate().filter_map(step);
        let first = ("quantity".to_string(), self.item.quantity);
        match [first].into_iter().chain(quantities).find(|(_, quantity)| *quantity != Exact::ONE) {
            None => Ok(()),
            Some((path, quantity)) => Err(Fault::document(
                &path,
                format!("{quantity} counts for nothing: a flat price is for all of them"),
            )
            .with_hint("Use a per_unit price for a price each, or leave the quantity out.")),
        }
    }
}

impl<T: Item> Keyed for Scheduled<T> {
    const LIST: &'static str = T::LIST;

    fn key(&self) -> &str {
        self.item.key()
    }

    /// Canonical form; what is absent stays absent.
    fn to_tree(&self) -> Tree<'static> {
        self.document()
    }
}

fn raise<T: Item>(item: &mut T, percent: Exact) -> Result<(), Fault> {
    let Some(pricing) = item.pricing() else {
        return Err(Fault::value("a price of a book is not raised by the contract")
            .with_hint("Give the charge a pricing of its own."));
    };
    let raised = pricing.raised(percent)?;
    item.set_pricing(raised);
    Ok(())
}

impl Step {
    fn day(&self, begins: NaiveDate) -> Option<NaiveDate> {
        match self.at {
            StepAt::From(day) => Some(day),
            StepAt::After(interval) => interval.nth_after(begins, 1),
        }
    }

    fn apply<T: Item>(&self, item: &mut T) -> Result<(), Fault> {
        if let Some(quantity) = self.quantity {
            item.set_quantity(quantity);
        }
        match &self.price {
            None => Ok(()),
            Some(StepPrice::Pricing(pricing)) => {
                item.set_pricing(pricing.as_ref().clone());
                Ok(())
            }
            Some(StepPrice::Percent(percent)) => raise(item, *percent),
        }
    }

    fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![match self.at {
            StepAt::From(day) => ("from".into(), Tree::text(day.to_string())),
            StepAt::After(interval) => ("after".into(), Tree::text(interval.to_string())),
        }];
        if let Some(quantity) = self.quantity {
            fields.push(("quantity".into(), Tree::text(quantity.to_string())));
        }
        match &self.price {
            None => (),
            Some(StepPrice::Pricing(pricing)) => fields.push(("pricing".into(), pricing.to_tree())),
            Some(StepPrice::Percent(percent)) => {
                fields.push(("percent".into(), Tree::text(percent.to_string())));
            }
        }
        Tree::Object(fields)
    }
}

/// `from` and `until`, the second after the first.
pub fn read_dates(fields: &mut Fields) -> Result<(Option<NaiveDate>, Option<NaiveDate>), Fault> {
    let from = fields.optional("from").map(|n| n.date()).transpose()?;
    let until = fields.optional("until").map(|n| n.date()).transpose()?;
    if let (Some(from), Some(until)) = (from, until)
        && until <= from
    {
        return Err(fields.fault(format!("until {until} must be after from {from}")));
    }
    Ok((from, until))
}

/// A raise in percent: not negative.
pub fn read_percent(node: &Node) -> Result<Exact, Fault> {
    let percent = node.decimal()?;
    if percent.is_negative() {
        return Err(node
            .fault(format!("{percent} is negative"))
            .with_hint("Percentages raise; give a pricing to lower a price."));
    }
    Ok(percent)
}

fn read_ramp<T: Item>(fields: &mut Fields, item: &T) -> Result<Vec<Step>, Fault> {
    let Some(list) = fields.optional("ramp") else { return Ok(Vec::new()) };
    let known: &[&str] = if T::IS_FEE {
        &["from", "after", "quantity", "pricing", "percent"]
    } else {
        &["from", "after", "pricing", "percent"]
    };
    let mut has_pricing = item.pricing().is_some();
    let mut ramp = Vec::new();
    for node in list.items_at_most(STEPS_MAX)? {
        let mut fields = node.fields_of(known)?;
        let at = match (fields.optional("from"), fields.optional("after")) {
            (Some(from), None) => StepAt::From(from.date()?),
            (None, Some(after)) => StepAt::After(read_interval(&after)?),
            _ => return Err(fields.fault("must have either from (a date) or after (an interval)")),
        };
        let quantity = fields.optional("quantity").map(|n| read_quantity(&n)).transpose()?;
        let price = match (fields.optional("pricing"), fields.optional("percent")) {
            (None, None) => None,
            (Some(pricing_node), None) => {
                let pricing = Pricing::read(&pricing_node)?;
                T::check_pricing(&pricing_node.path, &pricing)?;
                has_pricing = true;
                Some(StepPrice::Pricing(Box::new(pricing)))
            }
            (None, Some(percent)) => {
                if !has_pricing {
                    return Err(percent.fault("raises a price of a book").with_hint(
                        "A list price changes by its versions. Give the charge a pricing of its own, or this step a pricing.",
                    ));
                }
                Some(StepPrice::Percent(read_percent(&percent)?))
            }
            _ => return Err(fields.fault("must not have both pricing and percent")),
        };
        if quantity.is_none() && price.is_none() {
            let what = if T::IS_FEE { "quantity, pricing or percent" } else { "pricing or percent" };
            return Err(fields.fault(format!("changes nothing: give {what}")));
        }
        fields.finish()?;
        ramp.push(Step { at, quantity, price });
    }
    Ok(ramp)
}

fn read_step_up(node: &Node) -> Result<StepUp, Fault> {
    let mut fields = node.fields_of(&["percent", "every"])?;
    let percent = read_percent(&fields.required("percent")?)?;
    let every = read_interval(&fields.required("every")?)?;
    fields.finish()?;
    Ok(StepUp { percent, every })
}
