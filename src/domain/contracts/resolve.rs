//! Which price holds for which usage (rules.md 1, "Override precedence"; definitions 7).
//!
//! contract override → customer override → the charge's own pricing or the book's. Scope beats specificity;
//! inside one scope the override with most matched dimensions wins alone. A percentage is off the list,
//! unless it stacks: then off what the next scope gives.

use super::overrides::{Change, Override, Target};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::Node;
use crate::domain::foundation::{Code, Exact, Fault};
use crate::domain::metering::Dimensions;
use crate::domain::rating::{Pricing, TierContinuity};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A version of the list price: of the book, or the charge's own.
#[derive(Debug, Clone, PartialEq)]
pub struct ListPrice {
    /// `tokens@1`, or `charge` for the charge's own pricing.
    pub label: String,
    pub from: Option<Instant>,
    pub until: Option<Instant>,
    /// Shared: many contracts are billed by one list.
    pub pricing: Arc<Pricing>,
    /// SHA-256 of the whole canonical pricing, also where a matrix comes pruned.
    pub sha256: Arc<str>,
}

/// Who agreed on an override.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Contract,
    Customer,
}

impl Scope {
    pub fn source(self) -> &'static str {
        match self {
            Scope::Contract => "contract override",
            Scope::Customer => "customer override",
        }
    }
}

/// An override in force, its dates resolved to instants.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreed {
    pub scope: Scope,
    pub target: Target,
    pub matches: Dimensions,
    pub change: Change,
    pub stackable: bool,
    pub from: Option<Instant>,
    pub until: Option<Instant>,
}

impl ListPrice {
    /// `{"label", "from", "until", "pricing"}`; a matrix may come pruned to the rows that can matter.
    pub fn read(node: &Node) -> Result<ListPrice, Fault> {
        let mut fields = node.fields_of(&["label", "from", "until", "pricing"])?;
        let price = ListPrice {
            label: fields.required("label")?.text()?.to_string(),
            from: fields.optional("from").map(|n| n.instant()).transpose()?,
            until: fields.optional("until").map(|n| n.instant()).transpose()?,
            pricing: Arc::new(Pricing::read_header(&fields.required("pricing")?)?),
            sha256: "".into(),
        };
        fields.finish()?;
        Ok(price)
    }
}

impl Agreed {
    /// An override without dates, agreed in a contract: what a commitment asks for beyond it.
    pub fn of_contract(node: &Node) -> Result<Agreed, Fault> {
        let Override { target, matches, change, stackable, .. } = Override::read(node)?;
        Ok(Agreed { scope: Scope::Contract, target, matches, change, stackable, from: None, until: None })
    }

    /// An override of a document, its scope beside it and its dates as instants.
    pub fn read(node: &Node) -> Result<Agreed, Fault> {
        let mut fields = node.fields_of(&[
            "scope",
            "meter",
            "charge",
            "match",
            "unit_price",
            "percent_off",
            "pricing",
            "stackable",
            "from",
            "until",
        ])?;
        let scope = match fields.required("scope")?.word(&["contract", "customer"])? {
            "contract" => Scope::Contract,
            _ => Scope::Customer,
        };
        let target = match fields.optional("meter") {
            Some(meter) => Target::Meter(meter.text()?.to_string()),
            None => Target::Charge(fields.required("charge")?.text()?.to_string()),
        };
        let matches = fields.optional("match").map_or(Ok(Dimensions::new()), |n| Dimensions::read(&n))?;
        let change = if let Some(price) = fields.optional("unit_price") {
            Change::UnitPrice(price.decimal()?)
        } else if let Some(percent) = fields.optional("percent_off") {
            Change::PercentOff(percent.decimal()?)
        } else {
            Change::Pricing(Box::new(Pricing::read(&fields.required("pricing")?)?))
        };
        let stackable = fields.optional("stackable").map_or(Ok(false), |n| n.boolean())?;
        let from = fields.optional("from").map(|n| n.instant()).transpose()?;
        let until = fields.optional("until").map(|n| n.instant()).transpose()?;
        fields.finish()?;
        Ok(Agreed { scope, target, matches, change, stackable, from, until })
    }
}

/// Everything that can price one charge.
#[derive(Debug, Clone, PartialEq)]
pub struct Prices {
    pub list: Vec<ListPrice>,
    /// Where the list has no price, these may: versions published after a bill that left usage out.
    pub later: Vec<ListPrice>,
    /// Only those that target this charge or its meter.
    pub agreed: Vec<Agreed>,
    /// The meter's dimensions in order of priority.
    pub priority: Vec<String>,
}

/// Minimum and maximum of a price, or of a row of one: they act on all lines priced through it, also where an
/// override takes a percentage off or puts in a unit price (definitions 7 and 8).
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Lines with the same scope are bounded together.
    pub scope: String,
    /// Of a row: the scope of its matrix, whose bounds include what this one adds or takes.
    pub enclosing: Option<String>,
    pub minimum: Option<Exact>,
    pub maximum: Option<Exact>,
    /// The price they stand in, for people.
    pub label: String,
    /// What the row or the override matches.
    pub matches: Dimensions,
}

/// The price of some usage.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Usage with the same identity runs through the same tiers.
    pub identity: String,
    /// The identity without the list's version: where a quantity goes on when the version changes.
    pub track: String,
    /// The overrides it is made by, the outermost first; none for the list price.
    pub overrides: Vec<usize>,
    /// `contract override`, `customer override`, `price book` or `charge`.
    pub source: &'static str,
    /// For people: `contract override, tokens@1`.
    pub label: String,
    /// The list version in force; an override with a whole pricing needs none.
    pub list: Option<usize>,
    /// One price, never a matrix.
    pub pricing: Pricing,
    /// The minimums and maximums it is under, innermost first.
    pub bounds: Vec<Bounds>,
}

impl Resolved {
    /// Whether usage before and after an instant may be priced apart: nothing runs over the whole period.
    pub fn splits_in_time(&self) -> bool {
        self.pricing.is_linear() && self.bounds.is_empty()
    }

    /// Whether another price may take the place of this one inside a period. Linear prices stand for themselves;
    /// others go on where the version before left off, so both must be under the same overrides.
    fn may_become(&self, next: &Resolved) -> bool {
        match (self.pricing.is_linear(), next.pricing.is_linear()) {
            (true, true) => true,
            _ => self.overrides == next.overrides && self.pricing.can_be_cut() && next.pricing.can_be_cut(),
        }
    }
}

/// A price on the way through the scopes.
struct Candidate {
    source: &'static str,
    label: String,
    overrides: Vec<usize>,
    row: Row,
}

/// One price, never a matrix, and where it stood.
struct Row {
    identity: String,
    track: String,
    pricing: Pricing,
    bounds: Vec<Bounds>,
}

fn holds(from: Option<Instant>, until: Option<Instant>, at: Instant) -> bool {
    from.is_none_or(|from| from <= at) && until.is_none_or(|until| at < until)
}

impl Prices {
    /// `{"list": […], "overrides": […], "dimensions": […]}`: the overrides are those for this charge.
    pub fn read(node: &Node) -> Result<Prices, Fault> {
        let mut fields = node.fields_of(&["list", "overrides", "dimensions"])?;
        let list = fields.required("list")?.items()?.iter().map(ListPrice::read).collect::<Result<_, _>>()?;
        let agreed =
            fields.required("overrides")?.items()?.iter().map(Agreed::read).collect::<Result<_, _>>()?;
        let priority = fields
            .required("dimensions")?
            .items()?
            .iter()
            .map(|name| name.text().map(str::to_string))
            .collect::<Result<_, _>>()?;
        fields.finish()?;
        Ok(Prices { list, later: Vec::new(), agreed, priority })
    }

    /// The list version in force at an instant.
    pub fn list_at(&self, at: Instant) -> Option<usize> {
        self.list.iter().position(|price| holds(price.from, price.until, at))
    }

    /// The price of usage with these dimensions at this instant.
    pub fn resolve(&self, dimensions: &Dimensions, at: Instant) -> Result<Resolved, Fault> {
        self.resolve_listed(dimensions, at).or_else(|fault| match fault.code {
            Code::Unrated if !self.later.is_empty() => {
                let later = Prices { list: self.later.clone(), later: Vec::new(), ..self.clone() };
                let found = later.resolve_listed(dimensions, at).map_err(|_| fault)?;
                // Behind the versions of the list, which it comes after.
                Ok(Resolved { list: found.list.map(|at| self.list.len() + at), ..found })
            }
            _ => Err(fault),
        })
    }

    fn resolve_listed(&self, dimensions: &Dimensions, at: Instant) -> Result<Resolved, Fault> {
        let list = self.list_at(at);
        let listed = list.ok_or_else(|| {
            Fault::new(Code::Unrated, format!("no price is in force at {at}"))
                .with_hint("Publish a price version that holds then, with billing.catalog_apply().")
        });
        let customer = self.best(Scope::Customer, dimensions, at);
        let contract = self.best(Scope::Contract, dimensions, at);
        let resolved = match (contract, customer) {
            (None, None) => self.list_price(listed?, dimensions)?,
            (Some(agreed), None) | (None, Some(agreed)) => self.apply(agreed, None, listed, dimensions)?,
            (Some(agreed), Some(next)) => self.apply(agreed, Some(next), listed, dimensions)?,
        };
        let Candidate { source, label, overrides, row } = resolved;
        let Row { identity, track, pricing, bounds } = row;
        Ok(Resolved { identity, track, overrides, source, label, list, pricing, bounds })
    }

    /// The price of each stretch of one service period, `found` being what holds by itself in each, `first` the
    /// one that counts as the period's start and `next` the one where the next period counts as begun. None where
    /// nothing holds.
    ///
    /// Without a continuity (as before there was one) a price that runs over the whole period is that of its start.
    /// With one, a price takes the place of the one before where both can be cut, and else waits for the next
    /// period. Minimum and maximum are those of the start, at the instant `begins_at`.
    pub fn over_time(
        &self,
        found: Vec<Option<Resolved>>,
        (first, begins_at): (usize, Instant),
        next: usize,
        continuity: Option<TierContinuity>,
    ) -> Vec<Option<Resolved>> {
        let mut prices = found;
        let Some(start) =
            (first..prices.len()).chain(0..first.min(prices.len())).find(|at| prices[*at].is_some())
        else {
            return prices;
        };
        let begins = prices[start].clone().expect("it was found");
        let Some(continuity) = continuity else {
            if !prices.iter().flatten().all(Resolved::splits_in_time) {
                prices.iter_mut().flatten().for_each(|price| price.clone_from(&begins));
            }
            return prices;
        };
        // A version valid from 00:00 UTC of the first day counts from the start, where it can't be cut or would
        // have tiers restart for time zones' sake.
        let head: Vec<&Resolved> = prices[..=start].iter().flatten().collect();
        let restarts =
            continuity == TierContinuity::Reset && head.iter().any(|price| !price.pricing.is_linear());
        if restarts || head.windows(2).any(|pair| !pair[0].may_become(pair[1])) {
            prices[..start].iter_mut().flatten().for_each(|price| price.clone_from(&begins));
        }
        // One valid from 00:00 UTC of the next period's first day is the next period's, where it would restart tiers for
        // the hours that are left of this one.
        if continuity == TierContinuity::Reset && start < next && next < prices.len() {
            let (held, rest) = prices.split_at_mut(next);
            let last = held.iter().flatten().next_back().expect("the start is before");
            let restarts = |price: &Resolved| !(price.pricing.is_linear() && last.pricing.is_linear());
            if rest.iter().flatten().any(restarts) {
                rest.iter_mut().flatten().for_each(|price| price.clone_from(last));
            }
        }
        let mut before: Option<Resolved> = None;
        for price in prices.iter_mut().flatten() {
            if let Some(before) = before.as_ref().filter(|before| !before.may_become(price)) {
                price.clone_from(before);
            }
            before = Some(price.clone());
        }
        // Bounds that stand beside the rows are of the version that holds when the period begins, also for what only
        // a later version has a row for.
        let replaces = |at: &usize| matches!(self.agreed[*at].change, Change::Pricing(_));
        let own = begins.overrides.last().is_some_and(replaces);
        let mut bounds = begins.bounds;
        if let Some(list) = self.list_at(begins_at).filter(|_| start != first && !own) {
            bounds.retain(|bounds| bounds.enclosing.is_some() || bounds.scope != LIST);
            let ListPrice { label, pricing, .. } = &self.list[list];
            bounds.extend(Home { scope: LIST, label, matches: &Dimensions::new() }.bounds(pricing));
        }
        prices.iter_mut().flatten().for_each(|price| price.bounds.clone_from(&bounds));
        prices
    }

    /// The price that bills usage at an instant of the service period that begins at `from`; `begins` is the instant
    /// that counts as its start for what runs over all of it, `ends` the one that counts as the next one's.
    pub fn billed_at(
        &self,
        dimensions: &Dimensions,
        at: Instant,
        (from, begins, ends): (Instant, Instant, Instant),
        continuity: TierContinuity,
    ) -> Result<Resolved, Fault> {
        let list = self.list.iter().flat_map(|price| [price.from, price.until]);
        let agreed = self.agreed.iter().flat_map(|agreed| [agreed.from, agreed.until]);
        let inside = list.chain(agreed).flatten().filter(|cut| *cut > from && *cut <= at.max(begins));
        let starts: BTreeSet<Instant> = inside.chain([from]).collect();
        let found = starts.iter().map(|start| self.resolve(dimensions, *start).ok()).collect();
        let place = |of: Instant| starts.iter().rposition(|start| *start <= of).unwrap_or(0);
        let next = starts.range(..ends).count();
        let mut prices = self.over_time(found, (place(begins), begins), next, Some(continuity));
        match prices.swap_remove(place(at)) {
            Some(price) => Ok(price),
            None => self.resolve(dimensions, at),
        }
    }

    /// The minimum and maximum that are due whatever was used: those of the price that usage of nothing in
    /// particular has, those of its row among them. A matrix without a row for it has its own all the same.
    pub fn bounds_due(&self, nothing: &Dimensions, at: Instant) -> Vec<Bounds> {
        if let Ok(resolved) = self.resolve(nothing, at) {
            return resolved.bounds;
        }
        let wins =
            self.best(Scope::Contract, nothing, at).or_else(|| self.best(Scope::Customer, nothing, at));
        if let Some((position, Agreed { change: Change::Pricing(pricing), scope, matches, .. })) = wins {
            let name = format!("override {position}");
            return Home { scope: &name, label: scope.source(), matches }
                .bounds(pricing)
                .into_iter()
                .collect();
        }
        let Some(list) = self.list_at(at).map(|at| &self.list[at]) else { return Vec::new() };
        let home = Home { scope: LIST, label: &list.label, matches: &Dimensions::new() };
        home.bounds(&list.pricing).into_iter().collect()
    }

    /// The override of one scope that wins alone: most matched dimensions, then one for the charge itself,
    /// then the meter's dimension priority.
    fn best(&self, scope: Scope, dimensions: &Dimensions, at: Instant) -> Option<(usize, &Agreed)> {
        self.agreed
            .iter()
            .enumerate()
            .filter(|(_, a)| a.scope == scope && holds(a.from, a.until, at) && dimensions.matches(&a.matches))
            .max_by_key(|(position, a)| {
                let priority: Vec<bool> =
                    self.priority.iter().map(|name| a.matches.get(name).is_some()).collect();
                (a.matches.len(), matches!(a.target, Target::Charge(_)), priority, Reverse(*position))
            })
    }

    fn list_price(&self, list: usize, dimensions: &Dimensions) -> Result<Candidate, Fault> {
        let price = &self.list[list];
        let source = if price.label == CHARGE { CHARGE } else { "price book" };
        let home = Home { scope: LIST, label: &price.label, matches: &Dimensions::new() };
        let row = home.narrow(&price.pricing, &price.label, dimensions)?;
        Ok(Candidate { source, label: price.label.clone(), overrides: Vec::new(), row })
    }

    fn apply(
        &self,
        (position, agreed): (usize, &Agreed),
        next: Option<(usize, &Agreed)>,
        list: Result<usize, Fault>,
        dimensions: &Dimensions,
    ) -> Result<Candidate, Fault> {
        let source = agreed.scope.source();
        let name = format!("override {position}");
        match &agreed.change {
            Change::Pricing(pricing) => {
                let home = Home { scope: &name, label: source, matches: &agreed.matches };
                let row = home.narrow(pricing, &name, dimensions)?;
                Ok(Candidate { source, label: source.to_string(), overrides: vec![position], row })
            }
            Change::UnitPrice(unit_price) => {
                let list = list?;
                let list_label = &self.list[list].label;
                let (pricing, bounds) = match self.list_price(list, dimensions) {
                    Ok(list) => (list.row.pricing.with_unit_price(*unit_price), list.row.bounds),
                    // No row of the list matches: the agreed price, per what the list says.
                    Err(_) => {
                        let home = Home { scope: LIST, label: list_label, matches: &Dimensions::new() };
                        let list = &self.list[list].pricing;
                        (list.with_unit_price(*unit_price), home.bounds(list).into_iter().collect())
                    }
                };
                let identity = format!("{name} per {}", pricing.per());
                let row = Row { identity, track: name, pricing, bounds };
                let label = format!("{source}, {list_label}");
                Ok(Candidate { source, label, overrides: vec![position], row })
            }
            Change::PercentOff(percent) => {
                let base = match next.filter(|_| agreed.stackable) {
                    Some(next) => self.apply(next, None, list, dimensions)?,
                    None => self.list_price(list?, dimensions)?,
                };
                let row = Row {
                    identity: format!("{name} of {}", base.row.identity),
                    track: format!("{name} of {}", base.row.track),
                    pricing: base.row.pricing.percent_off(*percent)?,
                    bounds: base.row.bounds,
                };
                let overrides = [vec![position], base.overrides].concat();
                let label = format!("{source} {percent}% off, {}", base.label);
                Ok(Candidate { source, label, overrides, row })
            }
        }
    }
}

/// The label of a charge's own pricing.
pub const CHARGE: &str = "charge";

/// The scope of the list price's bounds.
const LIST: &str = "list";

/// Where a pricing stands: in the list or in an override.
struct Home<'a> {
    scope: &'a str,
    label: &'a str,
    /// What the override matches.
    matches: &'a Dimensions,
}

impl Home<'_> {
    /// Selects the row of a matrix; other models stay as they are.
    fn narrow(&self, pricing: &Pricing, identity: &str, dimensions: &Dimensions) -> Result<Row, Fault> {
        let single = pricing.resolve(dimensions)?.clone();
        let whole = self.bounds(pricing);
        let Some((_, row)) = pricing.select(dimensions) else {
            let bounds = whole.into_iter().collect();
            let (identity, track) = (identity.to_string(), self.scope.to_string());
            return Ok(Row { identity, track, pricing: single, bounds });
        };
        // Rows are named by what they match, not by position: a pruned matrix has other positions.
        let name = row.matched().canonical();
        let mut matches = self.matches.clone();
        row.matched().iter().for_each(|(name, value)| matches.set(name, value));
        let track = format!("{} {name}", self.scope);
        let of_row = Home { scope: &track, matches: &matches, ..*self };
        let of_row =
            of_row.bounds(&single).map(|bounds| Bounds { enclosing: Some(self.scope.to_string()), ..bounds });
        let bounds = of_row.into_iter().chain(whole).collect();
        Ok(Row { identity: format!("{identity} {name}"), track, pricing: single, bounds })
    }

    /// Its own minimum and maximum, if it has any.
    fn bounds(&self, pricing: &Pricing) -> Option<Bounds> {
        let (minimum, maximum) = (pricing.minimum(), pricing.maximum());
        (minimum.is_some() || maximum.is_some()).then(|| Bounds {
            scope: self.scope.to_string(),
            enclosing: None,
            minimum,
            maximum,
            label: self.label.to_string(),
            matches: self.matches.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;
    use crate::domain::foundation::{Ratio, RoundingMode};

    fn dims(text: &str) -> Dimensions {
        Dimensions::read(&Node::root(&json::parse(text).unwrap())).unwrap()
    }

    fn exact(text: &str) -> Exact {
        Exact::parse(text).unwrap()
    }

    fn list() -> ListPrice {
        let pricing = Pricing::parse(
            r#"{"model":"matrix","dimensions":["model","region"],"per":1000,"rows":[
                {"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{"model":"gpt-4","region":"eu"},"unit_price":"0.033"},
                {"match":{"model":"gpt-3.5"},"unit_price":"0.002"}]}"#,
        )
        .unwrap();
        ListPrice {
            label: "tokens@1".into(),
            from: None,
            until: None,
            pricing: Arc::new(pricing),
            sha256: "".into(),
        }
    }

    fn agreed(scope: Scope, matches: &str, change: Change) -> Agreed {
        let target = Target::Meter("tokens".into());
        Agreed { scope, target, matches: dims(matches), change, stackable: false, from: None, until: None }
    }

    fn prices(agreed: Vec<Agreed>) -> Prices {
        Prices {
            list: vec![list()],
            later: Vec::new(),
            agreed,
            priority: vec!["model".into(), "region".into()],
        }
    }

    fn price_of(prices: &Prices, dimensions: &str) -> (String, String) {
        let resolved = prices.resolve(&dims(dimensions), Instant(0)).unwrap();
        let amount = resolved.pricing.rate(&Ratio::from(1000i64), &Dimensions::new(), 1).unwrap();
        (resolved.label, amount.to_string())
    }

    /// rules.md 10.4 and "scope beats specificity".
    #[test]
    fn contract_beats_customer_beats_list() {
        let none = prices(vec![]);
        assert_eq!(price_of(&none, r#"{"model":"gpt-4"}"#), ("tokens@1".into(), "0.03".into()));
        assert_eq!(
            price_of(&none, r#"{"model":"gpt-4","region":"eu"}"#),
            ("tokens@1".into(), "0.033".into())
        );
        let both = prices(vec![
            agreed(Scope::Contract, r#"{"model":"gpt-4"}"#, Change::UnitPrice(exact("0.015"))),
            agreed(Scope::Customer, r#"{"model":"gpt-4","region":"eu"}"#, Change::UnitPrice(exact("0.02"))),
            agreed(Scope::Customer, "{}", Change::UnitPrice(exact("0.001"))),
        ]);
        let eu = price_of(&both, r#"{"model":"gpt-4","region":"eu"}"#);
        assert_eq!(eu, ("contract override, tokens@1".into(), "0.015".into()));
        assert_eq!(
            price_of(&both, r#"{"model":"gpt-3.5"}"#),
            ("customer override, tokens@1".into(), "0.001".into())
        );
        // no row of the list matches, an agreed price stands alone
        assert_eq!(price_of(&both, r#"{"model":"o1"}"#).1, "0.001");
        assert_eq!(none.resolve(&dims(r#"{"model":"o1"}"#), Instant(0)).unwrap_err().code, Code::Unrated);
    }

    /// definitions 7: list .03, customer .02, contract 50% → .015; stackable → .01.
    #[test]
    fn percent_off_is_off_the_list_unless_it_stacks() {
        let half = |stackable| Agreed {
            stackable,
            ..agreed(Scope::Contract, "{}", Change::PercentOff(exact("50")))
        };
        let customer = agreed(Scope::Customer, r#"{"model":"gpt-4"}"#, Change::UnitPrice(exact("0.02")));
        let plain = prices(vec![half(false), customer.clone()]);
        let label = "contract override 50% off, tokens@1".to_string();
        assert_eq!(price_of(&plain, r#"{"model":"gpt-4"}"#), (label, "0.015".into()));
        let stacked = prices(vec![half(true), customer]);
        let label = "contract override 50% off, customer override, tokens@1".to_string();
        assert_eq!(price_of(&stacked, r#"{"model":"gpt-4"}"#), (label, "0.01".into()));
        assert_eq!(price_of(&stacked, r#"{"model":"gpt-3.5"}"#).1, "0.001");
    }

    #[test]
    fn time_bounds_are_half_open_and_expired_overrides_fall_through() {
        let mut timed = prices(vec![Agreed {
            from: Some(Instant(10)),
            until: Some(Instant(20)),
            ..agreed(Scope::Contract, "{}", Change::UnitPrice(exact("1")))
        }]);
        let at = |prices: &Prices, micros| {
            prices.resolve(&dims(r#"{"model":"gpt-4"}"#), Instant(micros)).map(|r| r.label)
        };
        assert_eq!(at(&timed, 9).unwrap(), "tokens@1");
        assert_eq!(at(&timed, 10).unwrap(), "contract override, tokens@1");
        assert_eq!(at(&timed, 20).unwrap(), "tokens@1");
        timed.list[0].until = Some(Instant(30));
        assert!(
            at(&timed, 30)
                .unwrap_err()
                .message
                .starts_with("no price is in force at 1970-01-01T00:00:00.00003Z")
        );
    }

    #[test]
    fn a_whole_pricing_is_one_identity_and_rows_of_a_pruned_matrix_keep_theirs() {
        let graduated = Pricing::parse(
            r#"{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"1"},{"unit_price":"0.5"}]}"#,
        )
        .unwrap();
        let whole = prices(vec![agreed(Scope::Contract, "{}", Change::Pricing(Box::new(graduated)))]);
        let identity = |prices: &Prices, d: &str| prices.resolve(&dims(d), Instant(0)).unwrap().identity;
        assert_eq!(identity(&whole, r#"{"model":"gpt-4"}"#), identity(&whole, r#"{"model":"o1"}"#));
        let full = prices(vec![]);
        let mut pruned = full.clone();
        let header = full.list[0].pricing.without_rows();
        let row = &full.list[0].pricing.rows()[2];
        pruned.list[0].pricing =
            Arc::new(Pricing::from_rows(&header, [(row.matched().clone(), row.pricing().clone())]).unwrap());
        let d = r#"{"model":"gpt-3.5"}"#;
        assert_eq!(identity(&full, d), identity(&pruned, d));
        let amount = full
            .resolve(&dims(d), Instant(0))
            .unwrap()
            .pricing
            .rate(&Ratio::from(9_876_543i64), &Dimensions::new(), 1)
            .unwrap();
        assert_eq!(amount.round(2, RoundingMode::HalfUp).unwrap().to_fixed(2).unwrap(), "19.75");
    }

    /// Versions from 10, 20 and 30 on, in a period from 0 on whose first day begins at 10 in UTC.
    fn over_a_period(pricings: [&str; 4], at: i64, continuity: TierContinuity) -> String {
        let starts = [None, Some(10), Some(20), Some(30), None];
        let version = |(n, pricing): (usize, &str)| ListPrice {
            label: format!("v{n}"),
            from: starts[n].map(Instant),
            until: starts[n + 1].map(Instant),
            pricing: Arc::new(Pricing::parse(pricing).unwrap()),
            sha256: "".into(),
        };
        let prices =
            Prices { list: pricings.into_iter().enumerate().map(version).collect(), ..prices(vec![]) };
        let period = (Instant(0), Instant(10), Instant(30));
        prices.billed_at(&Dimensions::new(), Instant(at), period, continuity).unwrap().label
    }

    #[test]
    fn a_version_takes_the_place_of_the_one_before_or_waits() {
        const TIERS: &str = r#"{"model":"graduated","tiers":[{"unit_price":"1"}]}"#;
        const FLAT: &str = r#"{"model":"flat","amount":"1"}"#;
        const UNIT: &str = r#"{"model":"per_unit","unit_price":"1"}"#;
        let told = |pricings: [&str; 4], continuity| -> Vec<String> {
            [5, 15, 25, 35].into_iter().map(|at| over_a_period(pricings, at, continuity)).collect()
        };
        let (goes_on, anew) = (TierContinuity::Continue, TierContinuity::Reset);
        assert_eq!(told([TIERS; 4], goes_on), ["v0", "v1", "v2", "v3"]);
        // The first day's 00:00 UTC counts as the start where tiers would begin anew, or can't be cut at all.
        // So does that of the day on which the next period begins: its version is the next period's.
        assert_eq!(told([TIERS; 4], anew), ["v1", "v1", "v2", "v2"]);
        assert_eq!(told([TIERS, TIERS, UNIT, UNIT], anew), ["v1", "v1", "v2", "v3"]);
        assert_eq!(told([TIERS, TIERS, UNIT, TIERS], anew), ["v1", "v1", "v2", "v2"]);
        assert_eq!(told([UNIT; 4], anew), ["v0", "v1", "v2", "v3"]);
        assert_eq!(told([FLAT; 4], goes_on), ["v1"; 4]);
        assert_eq!(told([TIERS, FLAT, TIERS, UNIT], goes_on), ["v1"; 4]);
        // One amount for the period is passed over; what comes after it is not.
        assert_eq!(told([TIERS, UNIT, FLAT, TIERS], goes_on), ["v0", "v1", "v1", "v3"]);
    }

    #[test]
    fn the_charge_beats_its_meter_and_priority_breaks_ties() {
        let mut by_charge = agreed(Scope::Contract, r#"{"region":"eu"}"#, Change::UnitPrice(exact("7")));
        by_charge.target = Target::Charge("tokens".into());
        let by_model = agreed(Scope::Contract, r#"{"model":"gpt-4"}"#, Change::UnitPrice(exact("8")));
        let by_region = agreed(Scope::Contract, r#"{"region":"eu"}"#, Change::UnitPrice(exact("9")));
        let eu = r#"{"model":"gpt-4","region":"eu"}"#;
        assert_eq!(price_of(&prices(vec![by_region.clone(), by_model.clone()]), eu).1, "8");
        assert_eq!(price_of(&prices(vec![by_region, by_model, by_charge]), eu).1, "7");
    }
}
