//! Price overrides: prices agreed for one contract or one customer.

use super::OVERRIDES_MAX;
use super::schedule::read_dates;
use crate::domain::foundation::json::{Fields, Node, Tree};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::Dimensions;
use crate::domain::rating::{Pricing, raised};
use chrono::NaiveDate;
use std::borrow::Cow;

const FIELDS: [&str; 9] =
    ["meter", "charge", "match", "unit_price", "percent_off", "pricing", "from", "until", "stackable"];

/// What an override is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    Meter(String),
    Charge(String),
}

/// What it puts in the place of the price.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A unit price that keeps the `per` of the price it replaces.
    UnitPrice(Exact),
    /// Percent off the list price (or, stackable, off the next scope's).
    PercentOff(Exact),
    /// A whole pricing.
    Pricing(Box<Pricing>),
}

/// An override as a document says it; dates are local, `until` is exclusive.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    pub target: Target,
    pub matches: Dimensions,
    pub change: Change,
    pub from: Option<NaiveDate>,
    pub until: Option<NaiveDate>,
    pub stackable: bool,
}

/// Reads an `overrides` list, refusing two for the same target and match at the same time.
pub fn read_list(node: &Node) -> Result<Vec<Override>, Fault> {
    let mut list: Vec<Override> = Vec::new();
    for item in node.items_at_most(OVERRIDES_MAX)? {
        let next = Override::read(&item)?;
        if let Some(at) = list.iter().position(|other| other.collides(&next)) {
            return Err(item.fault(format!(
                "is for the same target, match and time as {}[{at}]; only one can hold",
                node.path
            )));
        }
        list.push(next);
    }
    Ok(list)
}

impl Target {
    pub fn to_field(&self) -> (Cow<'static, str>, Tree<'static>) {
        match self {
            Target::Meter(key) => ("meter".into(), Tree::text(key.clone())),
            Target::Charge(key) => ("charge".into(), Tree::text(key.clone())),
        }
    }
}

/// `meter:tokens{"model":"gpt-4"}`.
pub fn id(target: &Target, matches: &Dimensions) -> String {
    let matched = match matches.is_empty() {
        true => String::new(),
        false => matches.to_tree().canonical().expect("dimensions are text"),
    };
    match target {
        Target::Meter(key) => format!("meter:{key}{matched}"),
        Target::Charge(key) => format!("charge:{key}{matched}"),
    }
}

/// What an override is for: the first two fields of its document.
pub fn read_target(fields: &mut Fields) -> Result<(Target, Dimensions), Fault> {
    let target = match (fields.optional("meter"), fields.optional("charge")) {
        (Some(meter), None) => Target::Meter(meter.key()?.to_string()),
        (None, Some(charge)) => Target::Charge(charge.key()?.to_string()),
        _ => return Err(fields.fault("must name either a meter or a charge")),
    };
    let matches = fields.optional("match").map_or(Ok(Dimensions::new()), |n| Dimensions::read(&n))?;
    Ok((target, matches))
}

impl Override {
    pub fn read(node: &Node) -> Result<Override, Fault> {
        let mut fields = node.fields_of(&FIELDS)?;
        let (target, matches) = read_target(&mut fields)?;
        let change =
            match (fields.optional("unit_price"), fields.optional("percent_off"), fields.optional("pricing"))
            {
                (Some(price), None, None) => Change::UnitPrice(price.decimal()?),
                (None, Some(percent), None) => {
                    let value = percent.decimal()?;
                    if value.is_negative() || value > Exact::from_i64(100) {
                        return Err(percent.fault(format!("{value} is not between 0 and 100")));
                    }
                    Change::PercentOff(value)
                }
                (None, None, Some(pricing)) => Change::Pricing(Box::new(Pricing::read(&pricing)?)),
                _ => return Err(fields.fault("must have one of unit_price, percent_off and pricing")),
            };
        let (from, until) = read_dates(&mut fields)?;
        let stackable = match fields.optional("stackable") {
            None => false,
            Some(node) => {
                let stackable = node.boolean()?;
                if stackable && !matches!(change, Change::PercentOff(_)) {
                    return Err(node.fault("is only for percent_off"));
                }
                stackable
            }
        };
        fields.finish()?;
        Ok(Override { target, matches, change, from, until, stackable })
    }

    /// What makes two overrides each other's replacement: target and match.
    pub fn id(&self) -> String {
        id(&self.target, &self.matches)
    }

    /// Same target and match, and a day on which both hold.
    pub fn collides(&self, other: &Override) -> bool {
        let before = |until: Option<NaiveDate>, from: Option<NaiveDate>| match (until, from) {
            (Some(until), Some(from)) => until <= from,
            _ => false,
        };
        self.target == other.target
            && self.matches == other.matches
            && !before(self.until, other.from)
            && !before(other.until, self.from)
    }

    /// Whether it is for this charge.
    pub fn is_for(&self, charge: &str, meter: &str) -> bool {
        match &self.target {
            Target::Charge(key) => key == charge,
            Target::Meter(key) => key == meter,
        }
    }

    /// With every price of its own raised by `percent`; a percentage off the list stays.
    pub fn raise(&mut self, percent: Exact) -> Result<(), Fault> {
        match &mut self.change {
            Change::UnitPrice(price) => *price = raised(*price, percent)?,
            Change::Pricing(pricing) => **pricing = pricing.raised(percent)?,
            Change::PercentOff(_) => (),
        }
        Ok(())
    }

    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![self.target.to_field()];
        if !self.matches.is_empty() {
            fields.push(("match".into(), self.matches.to_tree()));
        }
        fields.push(match &self.change {
            Change::UnitPrice(price) => ("unit_price".into(), Tree::text(price.to_string())),
            Change::PercentOff(percent) => ("percent_off".into(), Tree::text(percent.to_string())),
            Change::Pricing(pricing) => ("pricing".into(), pricing.to_tree()),
        });
        for (name, date) in [("from", self.from), ("until", self.until)] {
            if let Some(date) = date {
                fields.push((name.into(), Tree::text(date.to_string())));
            }
        }
        if self.stackable {
            fields.push(("stackable".into(), Tree::Bool(true)));
        }
        Tree::Object(fields)
    }
}
