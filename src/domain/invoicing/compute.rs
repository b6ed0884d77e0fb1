//! From inputs to lines (definitions 2, 5–9; rules.md 1 and 2).
//!
//! A usage line is (charge, service period, bill_to, line dimensions), cut where its price changes. Tiers,
//! packages, steps, free units and flat fees run over the whole quantity of one resolved price; such an
//! amount is computed once, rounded once and split over its lines. Where the price has versions inside the period,
//! each prices its part ([`rate_versions`]), rounded once and split. What is one amount for the period changes only
//! with the next one. Minimums and maximums are lines of their own.

use super::difference::Difference;
use super::discount::{Off, Undiscounted, net, spread_amounts};
use super::inputs::{Charge, ChargeKind, Inputs, PercentOff, Segment, ServicePeriod, Usage, UsageTerms};
use super::total::round_to_total;
use crate::domain::contracts::overrides::Change;
use crate::domain::contracts::resolve::{Bounds, Prices, Resolved};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::proration::ProrationBasis;
use crate::domain::foundation::{Code, Exact, Fault, Ratio, RoundingLevel, allocate};
use crate::domain::metering::dimensions::BILL_TO;
use crate::domain::metering::{Dimensions, Together};
use crate::domain::rating::{EventAmount, Pricing, TierContinuity, Used, rate_versions};
use std::collections::BTreeMap;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    Usage,
    Fee,
    TrueUp,
    Cap,
    /// An instalment of a prepaid commitment.
    Commitment,
    Difference,
    Proration,
}

impl LineKind {
    pub fn as_str(self) -> &'static str {
        match self {
            LineKind::Usage => "usage",
            LineKind::Fee => "fee",
            LineKind::TrueUp => "true_up",
            LineKind::Cap => "cap",
            LineKind::Commitment => "commitment",
            LineKind::Difference => "difference",
            LineKind::Proration => "proration",
        }
    }

    /// The kinds that are computed; a difference is of one of them.
    pub fn parse(word: &str) -> Option<LineKind> {
        [LineKind::Usage, LineKind::Fee, LineKind::TrueUp, LineKind::Cap, LineKind::Commitment]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

#[derive(Debug, Clone)]
pub struct Line {
    pub key: String,
    pub kind: LineKind,
    pub charge: String,
    pub product: String,
    pub meter: Option<String>,
    pub label: String,
    pub from: Instant,
    pub until: Instant,
    /// Without bill_to.
    pub dimensions: Dimensions,
    /// The names by which lines of this charge are kept apart.
    pub line_by: Vec<String>,
    pub matches: Dimensions,
    pub bill_to: String,
    pub quantity: Option<Exact>,
    pub unit: Option<String>,
    pub price: Option<String>,
    pub pricing: Option<Pricing>,
    /// The part of a whole period that was billed, where it was not 1.
    pub share: Option<Ratio>,
    /// Where versions of a price follow each other: what this one goes on from.
    pub position: Option<Position>,
    pub exact: Ratio,
    pub amount: Exact,
    /// Of a difference: what it corrects.
    pub difference: Option<Box<Difference>>,
    /// What it is without its discounts, and which those are.
    pub list: Option<Box<Undiscounted>>,
    /// Of a bill beside this one: it takes its part of amounts off, and goes.
    pub(super) elsewhere: bool,
    /// The scopes of the minimums and maximums that act on the line.
    pub(super) scopes: Vec<String>,
}

impl Line {
    /// Takes an amount off.
    pub(super) fn take_off(&mut self, key: &str, amount: Exact) -> Result<(), Fault> {
        let mut list =
            self.list.take().unwrap_or_else(|| Box::new(Undiscounted::of(&self.exact, self.amount)));
        list.off.push((key.to_string(), Off::Amount(amount)));
        self.list = Some(list);
        self.exact = self.exact.sub(&Ratio::from(amount));
        self.amount = self.amount.sub(amount)?;
        Ok(())
    }
}

/// A quantity in several versions of a price.
#[derive(Debug, Clone)]
pub enum Position {
    /// Used before this version began to hold.
    After(Exact),
    /// Used under all versions: it says which tier prices the line.
    Of(Exact),
}

/// Usage that was left out since nothing prices it (policy `unpriced_usage`).
#[derive(Debug, Clone)]
pub struct Unpriced {
    pub charge: String,
    pub meter: String,
    pub from: Instant,
    pub until: Instant,
    pub dimensions: Dimensions,
    pub bill_to: String,
    pub quantity: Exact,
    pub events: u64,
    pub reason: String,
}

/// All lines of a bill, in order: charges as the contract lists them, then periods, then dimensions; and what was
/// left out.
pub fn lines(inputs: &Inputs) -> Result<(Vec<Line>, Vec<Unpriced>), Fault> {
    let mut unpriced = Vec::new();
    let mut groups = Vec::new();
    for charge in &inputs.charges {
        let of_charge = match &charge.kind {
            ChargeKind::Usage(terms) => UsageBill::new(inputs, charge, terms).groups(&mut unpriced),
            ChargeKind::Fee { pricing, quantity, proration } => {
                let basis = proration.unwrap_or(inputs.proration_basis);
                fee_lines(inputs, charge, pricing, *quantity, basis)
                    .map(|lines| vec![Group { lines, bounded: None }])
            }
        };
        groups.extend(of_charge.map_err(|fault| in_charge(charge, fault))?);
    }
    // Percents are off already, amounts go over the lines of all charges, and what is left is held against minimums.
    spread_amounts(inputs, groups.iter_mut().flat_map(|group| &mut group.lines))?;
    let mut lines = Vec::new();
    for Group { lines: mut of_group, bounded } in groups {
        if let Some((bill, period, bounds)) = bounded {
            let bounded = bill.add_bounds(period, &bounds, &mut of_group);
            bounded.map_err(|fault| in_charge(bill.charge, fault))?;
        }
        lines.append(&mut of_group);
    }
    lines.retain(|line| {
        !(line.amount.is_zero() && line.exact.is_zero() && line.quantity.is_none_or(Exact::is_zero))
    });
    lines.retain(|line| !line.elsewhere);
    if inputs.rounding_level == RoundingLevel::Invoice {
        post_by_invoice(inputs, &mut lines)?;
    }
    Ok((lines, unpriced))
}

/// Lines that belong together, with the minimums and maximums that are still to be held against them.
struct Group<'a> {
    lines: Vec<Line>,
    bounded: Option<(UsageBill<'a>, &'a ServicePeriod, Vec<Bounds>)>,
}

fn in_charge(charge: &Charge, fault: Fault) -> Fault {
    Fault { message: format!("charge {}: {}", charge.key, fault.message), ..fault }
}

/// Invoice-level rounding acts on each document, that is on each bill_to.
fn post_by_invoice(inputs: &Inputs, lines: &mut [Line]) -> Result<(), Fault> {
    let mut of_bill_to: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        of_bill_to.entry(line.bill_to.clone()).or_default().push(at);
    }
    for places in of_bill_to.values() {
        let exact: Vec<Ratio> = places.iter().map(|at| lines[*at].exact.clone()).collect();
        let posted = round_to_total(&exact, inputs.minor_units, inputs.rounding_mode)?;
        for (at, amount) in places.iter().zip(posted) {
            lines[*at].amount = amount;
        }
    }
    Ok(())
}

/// `ai-api` → `Ai api`, `tokens` → `Tokens`.
pub(super) fn label_of(key: &str) -> String {
    let spaced = key.replace(['-', '_'], " ");
    let mut letters = spaced.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// `Tokens · gpt-4 · eu`.
fn label(key: &str, dimensions: &Dimensions) -> String {
    dimensions.iter().fold(label_of(key), |label, (_, value)| format!("{label} · {value}"))
}

/// `tokens/2023-11-01/model=gpt-4`. What joins its parts is escaped inside them, so no two lines share a key.
fn line_key(
    charge: &Charge,
    period: &ServicePeriod,
    dimensions: &Dimensions,
    bill_to: Option<&str>,
) -> String {
    let mut key = format!("{}/{}", charge.key, period.day());
    let bill_to = bill_to.map(|bill_to| (BILL_TO, bill_to));
    for (name, value) in dimensions.iter().chain(bill_to) {
        key.push_str(&format!("/{}={}", escaped(name), escaped(value)));
    }
    key
}

/// As in URLs: `a/b` → `a%2Fb`.
fn escaped(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F").replace('=', "%3D")
}

// ── fees ─────────────────────────────────────────────────────────────────────────────────────────

fn fee_lines(
    inputs: &Inputs,
    charge: &Charge,
    pricing: &Pricing,
    quantity: Exact,
    basis: ProrationBasis,
) -> Result<Vec<Line>, Fault> {
    let whole = pricing.rate(&Ratio::from(quantity), &Dimensions::new(), 1)?;
    // Where nothing is prorated, the terms that a period begins with have billed it whole.
    let is_due = |period: &&ServicePeriod| !(basis == ProrationBasis::None && period.cut.paid);
    charge
        .periods
        .iter()
        .filter(is_due)
        .map(|period| {
            let basis = if period.cut.by_month { ProrationBasis::Month } else { basis };
            let share = period.share(charge.every, basis);
            let gross = whole.mul(&share);
            let exact = net(&gross, &period.cut.off);
            let mut key = line_key(charge, period, &Dimensions::new(), None);
            if period.cut.begins_in.is_some() {
                key.push_str(&format!("/from={}", period.from));
            }
            Ok(Line {
                key,
                list: Undiscounted::by(&gross, &period.cut.off, |exact| {
                    exact.round(inputs.minor_units, inputs.rounding_mode)
                })?,
                elsewhere: period.cut.elsewhere,
                kind: LineKind::Fee,
                charge: charge.key.clone(),
                product: charge.product.clone(),
                meter: None,
                label: label_of(&charge.key),
                from: period.from,
                until: period.until,
                dimensions: Dimensions::new(),
                line_by: Vec::new(),
                matches: Dimensions::new(),
                bill_to: inputs.header.bill_to.clone(),
                quantity: Some(quantity),
                unit: None,
                price: Some("charge".into()),
                pricing: Some(pricing.clone()),
                share: partial(share),
                position: None,
                amount: exact.round(inputs.minor_units, inputs.rounding_mode)?,
                exact,
                difference: None,
                scopes: Vec::new(),
            })
        })
        .collect()
}

/// A share that is worth saying.
fn partial(share: Ratio) -> Option<Ratio> {
    (share != Ratio::from(1i64)).then_some(share)
}

// ── usage ────────────────────────────────────────────────────────────────────────────────────────

/// Usage of one line: a run of segments with one price.
struct Part {
    dimensions: Dimensions,
    bill_to: String,
    resolved: Resolved,
    from: Instant,
    until: Instant,
    off: Vec<PercentOff>,
    used: Used,
}

/// What was used in a segment; events of later segments are later.
fn used_in(segment: usize, usage: &Usage) -> Used {
    let place = |place: u32| ((segment as u64) << 32) + u64::from(place);
    let amounts = usage.amounts.as_ref().map(|amounts| {
        let events = usage.places.iter().zip(amounts);
        events.map(|(at, amount)| EventAmount { place: place(*at), amount: *amount }).collect()
    });
    Used { quantity: usage.quantity.into(), events: usage.events, amounts }
}

/// What a line costs.
type Priced = (Ratio, Exact);

/// Parts with one price: a version of it.
struct Version {
    identity: String,
    places: Vec<usize>,
}

/// Places of parts by list version and identity, in order of time.
type ByVersion<'p> = BTreeMap<(Option<usize>, &'p str), Vec<usize>>;

/// One price that holds under several versions of the list (an override's) is one.
fn merged(versions: Vec<Version>) -> Vec<Version> {
    let mut merged: Vec<Version> = Vec::new();
    for version in versions {
        match merged.iter_mut().find(|other| other.identity == version.identity) {
            Some(other) => other.places.extend(version.places),
            None => merged.push(version),
        }
    }
    merged
}

/// The work on one usage charge.
#[derive(Clone)]
struct UsageBill<'a> {
    inputs: &'a Inputs,
    charge: &'a Charge,
    terms: &'a UsageTerms,
    prices: Prices,
    line_by: Vec<String>,
}

impl<'a> UsageBill<'a> {
    fn new(inputs: &'a Inputs, charge: &'a Charge, terms: &'a UsageTerms) -> UsageBill<'a> {
        let prices = inputs.prices(&charge.key, terms);
        let line_by = line_dimensions(&prices, &terms.matches, &terms.lines_by);
        UsageBill { inputs, charge, terms, prices, line_by }
    }

    fn groups(&self, unpriced: &mut Vec<Unpriced>) -> Result<Vec<Group<'a>>, Fault> {
        let before_discount = self.inputs.minimum_before_discount();
        let mut groups = Vec::new();
        for period in &self.charge.periods {
            if period.cut.free {
                groups.push(Group { lines: self.free_lines(period)?, bounded: None });
                continue;
            }
            let parts = self.parts(period, unpriced)?;
            let mut lines = self.price(period, &parts)?;
            let bounds = self.bounds(period, &parts);
            if before_discount {
                self.add_bounds(period, &bounds, &mut lines)?;
            }
            let bounded = (!before_discount && !bounds.is_empty()).then(|| (self.clone(), period, bounds));
            groups.push(Group { lines, bounded });
        }
        Ok(groups)
    }

    fn add_bounds(
        &self,
        period: &ServicePeriod,
        bounds: &[Bounds],
        lines: &mut Vec<Line>,
    ) -> Result<(), Fault> {
        for bounds in bounds {
            let line = self.bound_line(period, bounds, lines)?;
            lines.extend(line);
        }
        Ok(())
    }

    /// The period's usage by line: bill_to (the default one first), dimensions; and by segment.
    fn used(&self, period: &ServicePeriod) -> BTreeMap<(bool, String, Dimensions), BTreeMap<usize, Used>> {
        let default = &self.inputs.header.bill_to;
        let mut lines: BTreeMap<(bool, String, Dimensions), BTreeMap<usize, Used>> = BTreeMap::new();
        for (at, segment) in period.segments.iter().enumerate() {
            for usage in &segment.usage {
                let bill_to = usage.dimensions.get(BILL_TO).unwrap_or(default).to_string();
                let line = (bill_to != *default, bill_to, usage.dimensions.project(&self.line_by));
                lines.entry(line).or_default().entry(at).or_default().append(&used_in(at, usage));
            }
        }
        lines
    }

    /// Of a trial: what was used, for nothing.
    fn free_lines(&self, period: &ServicePeriod) -> Result<Vec<Line>, Fault> {
        let lines = self.used(period).into_iter().map(|((is_other, bill_to, dimensions), segments)| {
            let mut used = Used::default();
            segments.values().for_each(|of_segment| used.append(of_segment));
            let key = self.key(period, &dimensions, is_other.then_some(bill_to.as_str()), period.from);
            Ok(Line {
                label: label(&self.charge.key, &dimensions),
                dimensions,
                bill_to,
                quantity: Some(quantity_of(&used.quantity)?),
                unit: self.terms.unit.clone(),
                price: Some("trial".into()),
                ..self.line(period, key, Ratio::ZERO, Exact::ZERO)
            })
        });
        lines.collect()
    }

    /// The period's usage by line, a new part where the line's price changes. In order of bill_to (the
    /// default one first), dimensions, time.
    fn parts(&self, period: &ServicePeriod, unpriced: &mut Vec<Unpriced>) -> Result<Vec<Part>, Fault> {
        let mut parts = Vec::new();
        for ((_, bill_to, dimensions), used) in self.used(period) {
            parts.extend(self.runs(period, &bill_to, &dimensions, used, unpriced)?);
        }
        if parts.is_empty() {
            parts.extend(self.unused(period));
        }
        Ok(parts)
    }

    /// Consecutive segments with the same price become one part.
    fn runs(
        &self,
        period: &ServicePeriod,
        bill_to: &str,
        dimensions: &Dimensions,
        mut used: BTreeMap<usize, Used>,
        unpriced: &mut Vec<Unpriced>,
    ) -> Result<Vec<Part>, Fault> {
        // Matches may name bill_to, so it is there when the price is looked up.
        let mut lookup = dimensions.clone();
        lookup.set(BILL_TO, bill_to);
        let mut parts: Vec<Part> = Vec::new();
        let mut open = false;
        let leaves_out = self.inputs.bills_unpriced;
        let prices = self.prices_of(period, &lookup, |at, fault| {
            !used.contains_key(&at) || (leaves_out && fault.code == Code::Unrated)
        })?;
        for (at, (segment, resolved)) in period.segments.iter().zip(prices).enumerate() {
            let Some(resolved) = resolved else {
                open = false;
                if let Some(used) = used.remove(&at) {
                    unpriced.push(self.unpriced(segment, dimensions, bill_to, &lookup, &used)?);
                }
                continue;
            };
            let goes_on = |part: &&mut Part| {
                open && part.resolved.identity == resolved.identity
                    && part.off == segment.off
                    && !segment.counts_anew
            };
            match parts.last_mut().filter(goes_on) {
                Some(part) => part.until = segment.until,
                None => parts.push(Part {
                    dimensions: dimensions.clone(),
                    bill_to: bill_to.to_string(),
                    resolved,
                    from: segment.from,
                    until: segment.until,
                    off: segment.off.clone(),
                    used: Used::default(),
                }),
            }
            open = true;
            if let (Some(part), Some(used)) = (parts.last_mut(), used.remove(&at)) {
                part.used.append(&used);
            }
        }
        Ok(parts)
    }

    fn unpriced(
        &self,
        segment: &Segment,
        dimensions: &Dimensions,
        bill_to: &str,
        lookup: &Dimensions,
        used: &Used,
    ) -> Result<Unpriced, Fault> {
        let reason = self.prices.resolve(lookup, segment.price_at).err().map(|fault| fault.message);
        Ok(Unpriced {
            charge: self.charge.key.clone(),
            meter: self.terms.meter.clone(),
            from: segment.from,
            until: segment.until,
            dimensions: dimensions.clone(),
            bill_to: bill_to.to_string(),
            quantity: quantity_of(&used.quantity)?,
            events: used.events,
            reason: reason.unwrap_or_default(),
        })
    }

    /// The price of each segment. A stretch without a price is only a fault if `bears` says that it can't be borne.
    fn prices_of(
        &self,
        period: &ServicePeriod,
        lookup: &Dimensions,
        bears: impl Fn(usize, &Fault) -> bool,
    ) -> Result<Vec<Option<Resolved>>, Fault> {
        let of_segment =
            |(at, segment): (usize, &Segment)| match self.prices.resolve(lookup, segment.price_at) {
                Ok(resolved) => Ok(Some(resolved)),
                Err(fault) if bears(at, &fault) => Ok(None),
                Err(fault) => Err(fault),
            };
        let found = period.segments.iter().enumerate().map(of_segment).collect::<Result<Vec<_>, Fault>>()?;
        let first = period.first_segment();
        let begins = (first, period.segments[first].price_at);
        Ok(self.prices.over_time(found, begins, period.next_segment(), self.inputs.tier_continuity))
    }

    /// With no usage at all, a price may still ask for something: a flat amount, a minimum, a first flat fee.
    fn unused(&self, period: &ServicePeriod) -> Option<Part> {
        let segment = period.segments.get(period.first_segment())?;
        let nothing = self.nothing();
        let resolved = self.prices.resolve(&nothing, segment.price_at).ok()?;
        Some(Part {
            dimensions: self.terms.matches.project(&self.line_by),
            bill_to: self.bill_to(&nothing),
            resolved,
            from: period.from,
            until: period.until,
            off: segment.off.clone(),
            used: Used::default(),
        })
    }

    /// The dimensions of usage of nothing in particular: what the charge matches, for the contract's own entity.
    fn nothing(&self) -> Dimensions {
        let mut nothing = self.terms.matches.clone();
        nothing.set(BILL_TO, self.bill_to(&self.terms.matches));
        nothing
    }

    /// The legal entity that dimensions name, or else the contract's own.
    fn bill_to(&self, dimensions: &Dimensions) -> String {
        dimensions.get(BILL_TO).unwrap_or(&self.inputs.header.bill_to).to_string()
    }

    /// Parts become lines: linear prices each by itself, all others once per resolved price and then split.
    fn price(&self, period: &ServicePeriod, parts: &[Part]) -> Result<Vec<Line>, Fault> {
        let mut priced: Vec<Option<Priced>> = vec![None; parts.len()];
        let mut positions: Vec<Option<Position>> = vec![None; parts.len()];
        for versions in self.tracks(parts) {
            if let [only] = &versions[..] {
                let members: Vec<&Part> = only.places.iter().map(|at| &parts[*at]).collect();
                for (at, price) in only.places.iter().zip(self.price_group(period, &members)?) {
                    priced[*at] = Some(price);
                }
            } else {
                for (at, price, position) in self.price_versions(period, parts, &versions)? {
                    (priced[at], positions[at]) = (Some(price), position);
                }
            }
        }
        let gross: Vec<Priced> =
            priced.into_iter().map(|price| price.expect("every part was priced")).collect();
        let net = self.discounted(parts, &gross)?;
        let line = |((part, gross), (price, position)): ((&Part, &Priced), (Priced, Option<Position>))| {
            let list = Undiscounted::by(&gross.0, &part.off, |exact| self.post(exact))?;
            let list = list.map(|list| Box::new(Undiscounted { amount: gross.1, ..*list }));
            Ok(Line { position, list, ..self.usage_line(period, part, price)? })
        };
        parts.iter().zip(&gross).zip(net.into_iter().zip(positions)).map(line).collect()
    }

    /// The prices with percents off: what was one amount over several parts stays one, rounded once.
    fn discounted(&self, parts: &[Part], gross: &[Priced]) -> Result<Vec<Priced>, Fault> {
        let mut prices = gross.to_vec();
        if parts.iter().all(|part| part.off.is_empty()) {
            return Ok(prices);
        }
        let net_of = |at: usize| net(&gross[at].0, &parts[at].off);
        for Version { places, .. } in self.tracks(parts).into_iter().flatten() {
            let exact: Vec<Ratio> = places.iter().map(|at| net_of(*at)).collect();
            let posted = match Self::stands_alone(&parts[places[0]].resolved.pricing) {
                true => exact.iter().map(|exact| self.post(exact)).collect::<Result<_, _>>()?,
                false => round_to_total(&exact, self.inputs.minor_units, self.inputs.rounding_mode)?,
            };
            for (at, price) in places.into_iter().zip(exact.into_iter().zip(posted)) {
                prices[at] = price;
            }
        }
        Ok(prices)
    }

    /// The key of a line that begins at an instant.
    fn key(
        &self,
        period: &ServicePeriod,
        dimensions: &Dimensions,
        other: Option<&str>,
        from: Instant,
    ) -> String {
        let key = line_key(self.charge, period, dimensions, other);
        match from == period.from && period.cut.begins_in.is_none() {
            true => key,
            false => format!("{key}/from={from}"),
        }
    }

    /// What runs through the same tiers, each with the versions of its price in order of time.
    fn tracks(&self, parts: &[Part]) -> Vec<Vec<Version>> {
        let mut tracks: BTreeMap<(&str, &str), ByVersion> = BTreeMap::new();
        for (at, part) in parts.iter().enumerate() {
            let price = &part.resolved;
            // What two legal entities have does not always come to a whole; then each has its own.
            let apart = self.terms.aggregation.together == Together::Apart;
            let entity = if apart { &part.bill_to } else { "" };
            let (track, version) = match self.inputs.tier_continuity {
                None => (&price.identity, None),
                Some(_) => (&price.track, price.list),
            };
            let versions = tracks.entry((track, entity)).or_default();
            versions.entry((version, &price.identity)).or_default().push(at);
        }
        let version = |((_, identity), places): ((_, &str), Vec<usize>)| Version {
            identity: identity.to_string(),
            places,
        };
        tracks.into_values().map(|versions| merged(versions.into_iter().map(version).collect())).collect()
    }

    fn stands_alone(pricing: &Pricing) -> bool {
        pricing.is_linear() || pricing.rates_events_apart()
    }

    /// The amount of a part that has nothing to do with others.
    fn alone(&self, part: &Part) -> Result<Priced, Fault> {
        let exact = part.resolved.pricing.rate_used(&part.used, None)?;
        let amount = self.post(&exact)?;
        Ok((exact, amount))
    }

    /// Several versions of a price over one quantity: each version's amount is rounded once and split by quantity.
    fn price_versions(
        &self,
        period: &ServicePeriod,
        parts: &[Part],
        versions: &[Version],
    ) -> Result<Vec<(usize, Priced, Option<Position>)>, Fault> {
        let pricing = |version: &Version| &parts[version.places[0]].resolved.pricing;
        let everything = || versions.iter().flat_map(|version| version.places.iter().copied());
        if versions.iter().all(|version| Self::stands_alone(pricing(version))) {
            return everything().map(|at| Ok((at, self.alone(&parts[at])?, None))).collect();
        }
        let mut whole = Used::default();
        let used: Vec<(&Pricing, Used)> = versions
            .iter()
            .map(|version| {
                let mut used = Used::default();
                version.places.iter().for_each(|at| used.append(&parts[*at].used));
                whole.append(&used);
                (pricing(version), used)
            })
            .collect();
        let continuity = self.inputs.tier_continuity.unwrap_or(TierContinuity::Continue);
        let share = self.terms.prorate_units.then(|| self.share(period));
        let amounts = rate_versions(&used, continuity, share.as_ref())?;
        let mut before = Ratio::ZERO;
        let mut priced = Vec::new();
        for ((version, (pricing, used)), exact) in versions.iter().zip(&used).zip(amounts) {
            let members: Vec<&Part> = version.places.iter().map(|at| &parts[*at]).collect();
            let alone = members.iter().map(|part| self.alone(part));
            let prices = match Self::stands_alone(pricing) {
                true => {
                    let alone = alone.collect::<Result<Vec<_>, Fault>>()?;
                    match alone.iter().fold(Ratio::ZERO, |sum, (exact, _)| sum.add(exact)) == exact {
                        true => alone,
                        false => self.split(&exact, &members)?,
                    }
                }
                false => self.split(&exact, &members)?,
            };
            let position = match continuity {
                TierContinuity::Continue if pricing.prices_the_whole() => {
                    Some(Position::Of(quantity_of(&whole.quantity)?))
                }
                TierContinuity::Continue if !before.is_zero() && !Self::stands_alone(pricing) => {
                    Some(Position::After(quantity_of(&before)?))
                }
                _ => None,
            };
            before = before.add(&used.quantity);
            priced
                .extend(version.places.iter().zip(prices).map(|(at, price)| (*at, price, position.clone())));
        }
        Ok(priced)
    }

    /// One amount over the whole quantity, rounded once, split by quantity.
    fn price_group(&self, period: &ServicePeriod, members: &[&Part]) -> Result<Vec<Priced>, Fault> {
        if Self::stands_alone(&members[0].resolved.pricing) {
            return members.iter().map(|part| self.alone(part)).collect();
        }
        self.split(&self.group_amount(period, members)?, members)
    }

    fn split(&self, exact: &Ratio, members: &[&Part]) -> Result<Vec<Priced>, Fault> {
        let weights: Vec<Ratio> = members.iter().map(|part| part.used.quantity.clone()).collect();
        let whole = weights.iter().fold(Ratio::ZERO, |sum, weight| sum.add(weight));
        let portion =
            |weight: &Ratio| weight.div(&whole).unwrap_or_else(|| Ratio::new(1, members.len() as i128));
        let portions: Vec<Ratio> = weights.iter().map(|weight| exact.mul(&portion(weight))).collect();
        let (scale, mode) = (self.inputs.minor_units, self.inputs.rounding_mode);
        // A line of corrections can be below 0 where others are not.
        let below = weights.iter().any(Ratio::is_negative);
        let split = match below && weights.iter().any(|weight| !weight.is_negative() && !weight.is_zero()) {
            true => round_to_total(&portions, scale, mode)?,
            false => allocate(self.post(exact)?, &weights, scale)?,
        };
        Ok(portions.into_iter().zip(split).collect())
    }

    /// The quantity a price runs over: of what does not add up, that of the one line there is.
    fn whole(&self, members: &[&Part]) -> Result<Ratio, Fault> {
        let quantities = members.iter().map(|part| &part.used.quantity);
        match self.terms.aggregation.together {
            Together::Sum => Ok(quantities.fold(Ratio::ZERO, |sum, q| sum.add(q))),
            Together::Largest => Ok(quantities.max().cloned().unwrap_or(Ratio::ZERO)),
            Together::Apart => match members {
                [only] => Ok(only.used.quantity.clone()),
                [first, ..] if first.resolved.pricing.model_name() == "flat" => Ok(Ratio::ZERO),
                _ => Err(not_additive(&members[0].resolved.pricing, self.terms)),
            },
        }
    }

    /// The exact amount of one resolved price over its whole quantity in the service period.
    fn group_amount(&self, period: &ServicePeriod, members: &[&Part]) -> Result<Ratio, Fault> {
        let pricing = &members[0].resolved.pricing;
        if pricing.needs_events() {
            // What is free goes by the order of all events, whatever their lines.
            let mut used = Used { amounts: Some(Vec::new()), ..Used::default() };
            members.iter().for_each(|part| used.append(&part.used));
            return pricing.rate_used(&used, None);
        }
        let quantity = self.whole(members)?;
        let events = members.iter().map(|part| part.used.events).sum();
        let share = self.share(period);
        if self.terms.prorate_units {
            return pricing.rate_share(&quantity, events, &share);
        }
        let amount = pricing.rate_without_bounds(&quantity, &Dimensions::new(), events)?;
        Ok(if self.prorates(pricing) { amount.mul(&share) } else { amount })
    }

    /// Of usage prices only the flat amount is a recurring one, so only it is prorated, unless the charge
    /// says that a partial period counts as its share of a whole one (definitions 44).
    fn prorates(&self, pricing: &Pricing) -> bool {
        pricing.model_name() == "flat" || (self.terms.prorate_units && !pricing.is_linear())
    }

    fn share(&self, period: &ServicePeriod) -> Ratio {
        period.share(self.charge.every, self.inputs.proration_basis)
    }

    fn post(&self, exact: &Ratio) -> Result<Exact, Fault> {
        exact.round(self.inputs.minor_units, self.inputs.rounding_mode)
    }

    fn usage_line(
        &self,
        period: &ServicePeriod,
        part: &Part,
        (exact, amount): Priced,
    ) -> Result<Line, Fault> {
        let other = (part.bill_to != self.inputs.header.bill_to).then_some(part.bill_to.as_str());
        let key = self.key(period, &part.dimensions, other, part.from);
        let resolved = &part.resolved;
        Ok(Line {
            kind: LineKind::Usage,
            label: label(&self.charge.key, &part.dimensions),
            from: part.from,
            until: part.until,
            dimensions: part.dimensions.clone(),
            bill_to: part.bill_to.clone(),
            quantity: Some(quantity_of(&part.used.quantity)?),
            unit: self.terms.unit.clone(),
            price: Some(resolved.label.clone()),
            pricing: Some(resolved.pricing.clone()),
            share: self.prorates(&resolved.pricing).then(|| self.share(period)).and_then(partial),
            scopes: resolved.bounds.iter().map(|bounds| bounds.scope.clone()).collect(),
            ..self.line(period, key, exact, amount)
        })
    }

    /// What all lines of the charge have in common.
    fn line(&self, period: &ServicePeriod, key: String, exact: Ratio, amount: Exact) -> Line {
        Line {
            key,
            kind: LineKind::Usage,
            charge: self.charge.key.clone(),
            product: self.charge.product.clone(),
            meter: Some(self.terms.meter.clone()),
            label: String::new(),
            from: period.from,
            until: period.until,
            dimensions: Dimensions::new(),
            line_by: self.line_by.clone(),
            matches: self.terms.matches.clone(),
            bill_to: self.inputs.header.bill_to.clone(),
            quantity: None,
            unit: None,
            price: None,
            pricing: None,
            share: None,
            position: None,
            exact,
            amount,
            difference: None,
            list: None,
            elsewhere: period.cut.elsewhere,
            scopes: Vec::new(),
        }
    }

    /// The minimums and maximums in play, those of rows first, each once. Those of the price that nothing in
    /// particular has are due whatever was used, as they are when nothing was.
    fn bounds(&self, period: &ServicePeriod, parts: &[Part]) -> Vec<Bounds> {
        let begins = period.segments.get(period.first_segment());
        let due = begins.map(|segment| self.prices.bounds_due(&self.nothing(), segment.price_at));
        let of_parts = parts.iter().flat_map(|part| part.resolved.bounds.iter().cloned());
        let mut bounds = BTreeMap::new();
        for found in due.into_iter().flatten().chain(of_parts) {
            bounds.entry((found.enclosing.is_none(), found.scope.clone())).or_insert(found);
        }
        bounds.into_values().collect()
    }

    /// minimum − Σ lines as a true-up, maximum − Σ lines as a cap: the sum is then the bound exactly.
    fn bound_line(
        &self,
        period: &ServicePeriod,
        bounds: &Bounds,
        lines: &[Line],
    ) -> Result<Option<Line>, Fault> {
        let by_line = self.inputs.rounding_level == RoundingLevel::Line;
        let before_discount = self.inputs.minimum_before_discount();
        let posted =
            lines.iter().filter(|line| line.scopes.contains(&bounds.scope)).fold(Ratio::ZERO, |sum, line| {
                let list = line.list.as_ref().filter(|_| before_discount);
                let (exact, amount) =
                    list.map_or((&line.exact, line.amount), |list| (&list.exact, list.amount));
                if by_line { sum.add(&Ratio::from(amount)) } else { sum.add(exact) }
            });
        let share = self.share(period);
        let minimum = bounds.minimum.map(|minimum| Ratio::from(minimum).mul(&share));
        let maximum = bounds.maximum.map(|maximum| match self.terms.prorate_units {
            true => Ratio::from(maximum).mul(&share),
            false => Ratio::from(maximum),
        });
        let (kind, word, target) = match (minimum, maximum) {
            (Some(minimum), _) if posted < minimum => (LineKind::TrueUp, "minimum", minimum),
            (_, Some(maximum)) if posted > maximum => (LineKind::Cap, "maximum", maximum),
            _ => return Ok(None),
        };
        // The bound is rounded as an amount is, then what is posted is taken off: 90.01 + 9.99 = 100.00.
        let target = if by_line { Ratio::from(self.post(&target)?) } else { target };
        let gross = target.sub(&posted);
        let off = match period.segments.get(period.first_segment()) {
            Some(segment) if before_discount => &segment.off[..],
            _ => &[],
        };
        let exact = net(&gross, off);
        let list = Undiscounted::by(&gross, off, |exact| self.post(exact))?;
        let amount = self.post(&exact)?;
        let of = if bounds.matches.get(BILL_TO).is_some() { bounds.matches.clone() } else { self.nothing() };
        let bill_to = self.bill_to(&of);
        let other = (bill_to != self.inputs.header.bill_to).then_some(bill_to.as_str());
        let names: Vec<String> =
            bounds.matches.iter().map(|(name, _)| name.to_string()).filter(|name| name != BILL_TO).collect();
        let dimensions = bounds.matches.project(&names);
        let mut key = format!("{}/{}", self.key(period, &dimensions, other, period.from), kind.as_str());
        while lines.iter().any(|line| line.key == key) {
            key.push_str("/2"); // a row of the list and one of an override can match the same
        }
        Ok(Some(Line {
            kind,
            label: format!("{} · {word}", label(&self.charge.key, &dimensions)),
            share: (kind == LineKind::TrueUp || self.terms.prorate_units).then_some(share).and_then(partial),
            dimensions,
            bill_to,
            price: Some(bounds.label.clone()),
            list,
            scopes: bounds.enclosing.iter().cloned().collect(),
            ..self.line(period, key, exact, amount)
        }))
    }
}

/// The dimensions by which lines are kept apart (definitions 2): those of the matrix and of the matches, plus
/// `lines_by`. bill_to is kept apart in any case and not among them.
pub fn line_dimensions(prices: &Prices, matches: &Dimensions, lines_by: &[String]) -> Vec<String> {
    let mut names: Vec<String> =
        prices.list.iter().flat_map(|price| price.pricing.dimensions_named()).collect();
    for agreed in &prices.agreed {
        names.extend(agreed.matches.iter().map(|(name, _)| name.to_string()));
        if let Change::Pricing(pricing) = &agreed.change {
            names.extend(pricing.dimensions_named());
        }
    }
    names.extend(matches.iter().map(|(name, _)| name.to_string()));
    names.extend(lines_by.iter().cloned());
    names.retain(|name| name != BILL_TO);
    names.sort();
    names.dedup();
    names
}

/// Quantities are sums of decimals, so they are decimals: rounding to 28 places changes nothing.
fn quantity_of(quantity: &Ratio) -> Result<Exact, Fault> {
    let shown = quantity.shown();
    Exact::parse(&shown)
        .map_err(|_| Fault::new(Code::Unrated, format!("quantity {shown} has more than 28 digits")))
}

fn not_additive(pricing: &Pricing, terms: &UsageTerms) -> Fault {
    let message = format!(
        "a {} price of meter {} ({}) is over several lines, and their quantities do not add up",
        pricing.model_name(),
        terms.meter,
        terms.aggregation.word()
    );
    Fault::new(Code::Unrated, message)
        .with_hint("Use a per_unit price, or drop lines_by and the matches of overrides.")
}
