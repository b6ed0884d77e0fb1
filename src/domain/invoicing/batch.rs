//! Many bills at once, from their contracts to their documents.
//!
//! The database is asked in few, large questions. [`Batch::open`] reads the contracts; then the batch says what
//! else it needs and takes the answers: meters ([`Batch::meter_ids`]), price versions ([`Batch::price_keys`]),
//! the instants of local midnights ([`Batch::days`]), usage ([`Batch::stretches`]), rows of large matrices
//! ([`Batch::wanted_rows`]). [`Batch::compute`] computes. What is wrong with one bill stays with that bill.

mod bill;

use super::commitments::{self, Spent};
use super::difference::{Earlier, Standing, given_up, read_standing};
use super::document::{Documents, Funding, Rated};
use super::inputs::{ChargeKind, Inputs, Usage};
use super::purse::{self, Credit, Purse};
use super::settlement::{self, Ceiling, Ceilings, Hour, Part};
use crate::domain::contracts::charge::PriceSource;
use crate::domain::contracts::overrides::Change;
use crate::domain::contracts::resolve::Agreed;
use crate::domain::foundation::calendar::Period;
use crate::domain::foundation::instant::{HOUR, Instant};
use crate::domain::foundation::json::{Node, Tree};
use crate::domain::foundation::{Code, Exact, Fault};
use crate::domain::metering::measure::{Compound, Read};
use crate::domain::metering::{Dimensions, Measure};
use crate::domain::rating::{Pricing, match_candidates};
use bill::{Bill, Item, ItemTerms};
use chrono::NaiveDate;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// A matrix with more rows comes without them: only the rows that the usage can match are fetched.
pub const ROWS_WHOLE_MAX: i64 = 64;

/// Bills on their way.
pub struct Batch {
    bills: Vec<Slot>,
    /// The versions of each meter, in order.
    meters: HashMap<i32, Vec<Meter>>,
    lists: HashMap<PriceKey, Vec<Version>>,
    midnights: Midnights,
    /// Where each stretch's usage goes, by its number.
    places: Vec<Place>,
    /// The bill and charge of each stretch that is asked for by hour.
    hours: Vec<(usize, String)>,
    pending: Option<Pending>,
}

/// What is asked of bills that are not issued, but only say what usage would draw from credit now. What adds up in time
/// is asked for over whole service periods: usage that is stored ahead of time, by an hour at most, counts already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// As bills do it.
    ByHour,
    /// Whole periods by their kept totals, and not by hour where the time of the usage leads to nothing else.
    ByPeriod,
}

/// By zone and day.
type Midnights = HashMap<(String, NaiveDate), Instant>;

/// A bill, or what is wrong with it.
pub struct Slot {
    pub customer_id: i64,
    pub contract_id: Uuid,
    bill: Result<Bill, Fault>,
    role: Role,
    made: Option<Documents>,
}

/// What a slot's bill is for.
enum Role {
    /// To be issued or looked at; with the documents that stand for its own boundary, where some do.
    Main(Vec<Standing>),
    /// Computed again, to be compared with the documents that stand: its differences go to the contract's bill.
    Earlier(Vec<Standing>),
}

/// How a bill is given to [`Batch::open`].
#[derive(Clone, Copy)]
pub struct Opened<'t> {
    pub customer_id: i64,
    pub contract_id: Uuid,
    /// JSON text.
    pub contract: &'t str,
    /// Whether it is an earlier boundary of a contract whose bill is in the batch, too.
    pub earlier: bool,
    /// The documents that stand for its boundary, as JSON text.
    pub standing: Option<&'t str>,
}

impl Slot {
    /// None until [`Batch::compute`] was called.
    pub fn documents(&self) -> Option<&Documents> {
        self.made.as_ref()
    }

    /// Whether it is only there for the differences of another bill.
    pub fn is_earlier(&self) -> bool {
        matches!(self.role, Role::Earlier(_))
    }

    /// Whether it bills no boundary, only differences.
    fn is_apart(&self) -> bool {
        matches!((&self.role, &self.bill), (Role::Main(_), Ok(bill)) if bill.boundaries.is_empty())
    }

    fn of(&self) -> (i64, Uuid) {
        (self.customer_id, self.contract_id)
    }

    /// What the documents that stand for its boundary drew.
    /// The legal entities of which nothing is settled in its boundary.
    fn given_up(&self) -> BTreeSet<String> {
        let (Role::Main(standing) | Role::Earlier(standing)) = &self.role;
        given_up(standing)
    }

    fn standing_credits(&self) -> Vec<Credit> {
        let (Role::Main(standing) | Role::Earlier(standing)) = &self.role;
        standing.iter().flat_map(|document| document.credits.iter().cloned()).collect()
    }

    pub fn fault(&self) -> Option<&Fault> {
        self.bill.as_ref().err()
    }

    /// The last boundary that is billed.
    pub fn boundary(&self) -> Option<i64> {
        self.bill.as_ref().ok()?.boundaries.last().copied()
    }

    /// Last day, exclusive, of the billing period after the one that begins at the boundary; none at the end.
    pub fn next_ends_on(&self) -> Option<NaiveDate> {
        let next = u32::try_from(self.boundary()? + 1).ok()?;
        Some(self.bill.as_ref().ok()?.calendar.period(next)?.ends_on)
    }
}

/// Key of a price: its book's id and its own key.
pub type PriceKey = (Uuid, String);

/// What a bill needs to know of a meter as one of its versions has it.
#[derive(Debug, Clone)]
pub struct Meter {
    pub key: String,
    pub aggregation: Measure,
    /// Names of its dimensions, in order of priority.
    pub dimensions: Vec<String>,
    pub unit: Option<String>,
    /// Keys of the meters that a compound is made of.
    pub components: Vec<String>,
}

impl From<&crate::domain::metering::Meter> for Meter {
    fn from(meter: &crate::domain::metering::Meter) -> Meter {
        Meter {
            key: meter.key.clone(),
            aggregation: Measure::of(meter),
            dimensions: meter.dimensions.iter().map(ToString::to_string).collect(),
            unit: Some(meter.unit.clone()),
            components: meter.compound.iter().flat_map(Compound::meters).map(str::to_string).collect(),
        }
    }
}

/// A version of a price, as the database has it.
#[derive(Debug, Clone)]
pub struct Version {
    pub price_id: Uuid,
    /// `book/key@version`.
    pub name: String,
    pub label: String,
    pub from: Option<Instant>,
    pub until: Option<Instant>,
    /// With its rows if it has at most [`ROWS_WHOLE_MAX`].
    pub pricing: Arc<Pricing>,
    pub sha256: Arc<str>,
    pub needs_events: bool,
    /// Rows of the whole matrix.
    pub row_count: i64,
}

/// Where the usage of a stretch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Whole buckets.
    Buckets,
    /// The same, of a whole period, whose total may be kept.
    Totals,
    /// Distinct values of whole buckets.
    Values,
    /// Buckets, and events where a boundary cuts one.
    Cells,
    /// Events, one by one: the price needs their amounts.
    Amounts,
    /// Events recorded until an instant.
    Events,
    /// Whatever the meter takes: history, events, two steps, other meters.
    Composed,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Buckets => "buckets",
            Source::Totals => "totals",
            Source::Values => "values",
            Source::Cells => "cells",
            Source::Amounts => "amounts",
            Source::Events => "events",
            Source::Composed => "composed",
        }
    }
}

/// A stretch of time for which usage is asked.
#[derive(Debug, Clone)]
pub struct Stretch {
    pub customer_id: i64,
    pub meter_id: i32,
    pub from: Instant,
    pub until: Instant,
    pub source: Source,
    pub recorded_until: Option<Instant>,
    /// How many versions the meter had when they were measured; none = as of now.
    pub meter_version: Option<usize>,
    /// The same of all meters that had more than one, as JSON.
    pub known_meters: Option<String>,
    /// Only usage that has these values counts.
    pub matches: Dimensions,
    /// Dimensions that lines do not look at: summed away.
    pub dropped: Vec<String>,
    /// The legal entity of usage that names none; naming it is the same.
    pub bill_to: String,
}

struct Place {
    bill: usize,
    charge: usize,
    period: usize,
    segment: usize,
}

/// Usage of a stretch, by its line dimensions.
#[derive(Debug, Clone)]
pub struct UsageRow {
    /// Number of the stretch.
    pub stretch: usize,
    pub dimensions: Dimensions,
    pub quantity: Exact,
    pub events: u64,
    pub amounts: Option<Vec<Exact>>,
    /// The places of these events among all of the stretch.
    pub places: Vec<u32>,
}

impl Batch {
    /// Reads the contracts of a batch: of each at most one bill of boundaries, one of none, and any number of earlier
    /// boundaries.
    pub fn open<'t>(contracts: impl IntoIterator<Item = Opened<'t>>) -> Batch {
        let slot = |opened: Opened| {
            let (standing, fault) = match opened.standing.map(read_standing).transpose() {
                Ok(standing) => (standing.unwrap_or_default(), None),
                Err(fault) => (Vec::new(), Some(fault)),
            };
            Slot {
                customer_id: opened.customer_id,
                contract_id: opened.contract_id,
                bill: fault.map_or_else(|| Bill::parse(opened.contract), Err),
                role: if opened.earlier { Role::Earlier(standing) } else { Role::Main(standing) },
                made: None,
            }
        };
        let bills = contracts.into_iter().map(slot).collect();
        Batch {
            bills,
            meters: HashMap::new(),
            lists: HashMap::new(),
            midnights: HashMap::new(),
            places: Vec::new(),
            hours: Vec::new(),
            pending: None,
        }
    }

    fn good(&self) -> impl Iterator<Item = &Bill> {
        self.bills.iter().filter_map(|slot| slot.bill.as_ref().ok())
    }

    pub fn meter_ids(&self) -> Vec<i32> {
        let items = self.good().flat_map(|bill| &bill.charges);
        let ids: BTreeSet<i32> = items
            .filter_map(|item| match &item.terms {
                ItemTerms::Usage { meter_id, .. } => Some(*meter_id),
                ItemTerms::Fee(_) => None,
            })
            .collect();
        ids.into_iter().collect()
    }

    /// Versions come in order, all of them.
    pub fn add_meter(&mut self, meter_id: i32, meter: Meter) {
        self.meters.entry(meter_id).or_default().push(meter);
    }

    /// The prices whose versions are needed.
    pub fn price_keys(&self) -> Vec<PriceKey> {
        let keys: BTreeSet<PriceKey> =
            self.good().flat_map(|bill| bill.charges.iter().filter_map(Item::price_key)).collect();
        keys.into_iter().collect()
    }

    /// Versions come in order.
    pub fn add_version(&mut self, key: PriceKey, version: Version) {
        self.lists.entry(key).or_default().push(version);
    }

    /// The local days whose midnights are needed, with their zone.
    pub fn days(&self) -> Vec<(String, NaiveDate)> {
        let mut days: BTreeSet<(&str, NaiveDate)> = BTreeSet::new();
        for bill in self.good() {
            let unknown = bill.due_days().into_iter().filter(|day| !bill.fixed.contains_key(day));
            days.extend(unknown.map(|day| (bill.zone.as_str(), day)));
            let pieces = bill.charges.iter().flat_map(|item| bill.pieces(item));
            let mut of_bill = |period: Period, ends: &[NaiveDate]| {
                let ends = ends.iter().copied().filter(|day| !bill.fixed.contains_key(day));
                let wholes = [period.whole_starts_on, period.whole_ends_on];
                days.extend(ends.chain(wholes).map(|day| (bill.zone.as_str(), day)));
            };
            for piece in pieces {
                let from = piece.from.is_none().then_some(piece.days.starts_on);
                let until = piece.until.is_none().then_some(piece.days.ends_on);
                let ends: Vec<NaiveDate> = from.into_iter().chain(until).collect();
                of_bill(piece.days, &ends);
            }
            for period in bill.periods_off() {
                of_bill(period, &[period.starts_on, period.ends_on]);
            }
            let boundary = bill.boundary_on().filter(|day| !bill.fixed.contains_key(day));
            days.extend(boundary.map(|day| (bill.zone.as_str(), day)));
        }
        days.into_iter().map(|(zone, day)| (zone.to_string(), day)).collect()
    }

    pub fn add_midnight(&mut self, zone: String, day: NaiveDate, at: Instant) {
        self.midnights.insert((zone, day), at);
    }

    /// With meters, prices and midnights known: the stretches of time whose usage is needed, by number.
    pub fn stretches(&mut self) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        self.places.clear();
        for at in 0..self.bills.len() {
            let Ok(bill) = &self.bills[at].bill else { continue };
            match bill.inputs(self) {
                Ok(inputs) => {
                    self.ask(at, &inputs, &mut stretches);
                    if let Ok(bill) = &mut self.bills[at].bill {
                        bill.inputs = Some(inputs);
                    }
                }
                Err(fault) => self.bills[at].bill = Err(fault),
            }
        }
        stretches
    }

    /// The stretches of one bill.
    fn ask(&mut self, at: usize, inputs: &Inputs, stretches: &mut Vec<Stretch>) {
        let Ok(bill) = &self.bills[at].bill else { return };
        for (charge_at, (item, charge)) in bill.charges.iter().zip(&inputs.charges).enumerate() {
            let (ItemTerms::Usage { charge: usage, meter_id, .. }, ChargeKind::Usage(terms)) =
                (&item.terms, &charge.kind)
            else {
                continue;
            };
            let Ok((version, meter)) = bill.meter(self, *meter_id) else { continue };
            let prices = inputs.prices(&charge.key, terms);
            let looked_at = super::compute::line_dimensions(&prices, &terms.matches, &terms.lines_by);
            let dropped: Vec<String> =
                meter.dimensions.iter().filter(|name| !looked_at.contains(name)).cloned().collect();
            let in_play: Vec<&String> = terms.list_names.iter().chain(&terms.later_names).collect();
            let by_event = self.needs_events(item, &in_play, &prices.agreed);
            let (read, adds_up) = (meter.aggregation.read, meter.aggregation.adds_up_in_time);
            for (period_at, period) in charge.periods.iter().enumerate() {
                for (segment_at, segment) in period.segments.iter().enumerate() {
                    let mut until = bill.usage_until.map_or(segment.until, |until| until.min(segment.until));
                    if segment.from >= until {
                        continue;
                    }
                    if self.pending.is_some() && adds_up {
                        until = segment.until;
                    }
                    let mut source = source(by_event, bill.recorded_until, read, segment.from, until);
                    if self.pending == Some(Pending::ByPeriod) && source == Source::Buckets {
                        source = Source::Totals;
                    }
                    stretches.push(Stretch {
                        customer_id: self.bills[at].customer_id,
                        meter_id: *meter_id,
                        from: segment.from,
                        until,
                        source,
                        recorded_until: bill.recorded_until,
                        meter_version: bill.known_meters.as_ref().map(|_| version),
                        known_meters: bill.known_meters.as_ref().map(versions_text),
                        matches: usage.matches.clone(),
                        dropped: dropped.clone(),
                        bill_to: inputs.header.bill_to.clone(),
                    });
                    self.places.push(Place {
                        bill: at,
                        charge: charge_at,
                        period: period_at,
                        segment: segment_at,
                    });
                }
            }
        }
    }

    /// Only versions in play count: one published later must not change what a recompute sees.
    fn needs_events(&self, item: &Item, in_play: &[&String], agreed: &[Agreed]) -> bool {
        let own = match &item.terms {
            ItemTerms::Usage { charge, .. } => match &charge.source {
                PriceSource::Own(pricing) => pricing.needs_events(),
                PriceSource::Book(_) => false,
            },
            ItemTerms::Fee(_) => false,
        };
        let versions = item.price_key().and_then(|key| self.lists.get(&key));
        own || versions
            .is_some_and(|versions| versions.iter().any(|v| v.needs_events && in_play.contains(&&v.name)))
            || agreed.iter().any(|a| matches!(&a.change, Change::Pricing(pricing) if pricing.needs_events()))
    }

    /// Usage of the stretches, one row for each line's dimensions.
    pub fn add_usage(&mut self, row: UsageRow) -> Result<(), Fault> {
        let place = self
            .places
            .get(row.stretch)
            .ok_or_else(|| Fault::new(Code::State, format!("no stretch {} was asked for", row.stretch)))?;
        if let Ok(Bill { inputs: Some(inputs), .. }) = &mut self.bills[place.bill].bill {
            let segment = &mut inputs.charges[place.charge].periods[place.period].segments[place.segment];
            let UsageRow { dimensions, quantity, events, amounts, places, .. } = row;
            segment.usage.push(Usage { dimensions, quantity, events, amounts, places });
        }
        Ok(())
    }

    /// What can't be billed of a stretch's usage is wrong with its bill, and with no other.
    pub fn refuse_usage(&mut self, stretch: usize, fault: Fault) {
        let Some(place) = self.places.get(stretch) else { return };
        if let Ok(Bill { inputs: Some(inputs), .. }) = &self.bills[place.bill].bill {
            let charge = &inputs.charges[place.charge].key;
            let message = format!("the usage of charge {charge} can't be billed: {}", fault.message);
            let hint =
                "Amend the events that say too much (billing.event_amend), or give the meter a rounding.";
            self.bills[place.bill].bill = Err(Fault { message, ..fault }.with_hint(hint));
        }
    }

    /// Rows of large matrices that the usage can match: price id and match.
    pub fn wanted_rows(&self) -> Vec<(Uuid, Dimensions)> {
        let mut wanted = BTreeSet::new();
        for bill in self.good() {
            let Some(inputs) = &bill.inputs else { continue };
            for (item, charge) in bill.charges.iter().zip(&inputs.charges) {
                let Some(versions) = item.price_key().and_then(|key| self.lists.get(&key)) else { continue };
                for version in versions.iter().filter(|version| version.row_count > ROWS_WHOLE_MAX) {
                    let names = version.pricing.dimensions_named();
                    wanted.insert((version.price_id, Dimensions::new()));
                    let used = charge.periods.iter().flat_map(|p| &p.segments).flat_map(|s| &s.usage);
                    for usage in used {
                        let candidates = match_candidates(&names, &bill.lookup(&usage.dimensions));
                        wanted.extend(candidates.into_iter().map(|c| (version.price_id, c)));
                    }
                }
            }
        }
        wanted.into_iter().collect()
    }

    /// The rows there are of the wanted ones, by price id: their match and their JSON text.
    pub fn add_rows(&mut self, rows: &HashMap<Uuid, Vec<Tree<'static>>>) -> Result<(), Fault> {
        let mut full: HashMap<String, Arc<Pricing>> = HashMap::new();
        for version in self.lists.values_mut().flatten().filter(|version| version.row_count > ROWS_WHOLE_MAX)
        {
            let Tree::Object(mut fields) = version.pricing.to_tree() else { continue };
            fields.retain(|(name, _)| name != "rows");
            fields
                .push(("rows".into(), Tree::List(rows.get(&version.price_id).cloned().unwrap_or_default())));
            let tree = Tree::Object(fields);
            version.pricing = Arc::new(Pricing::read_header(&Node::root(&tree))?);
            full.insert(version.name.clone(), version.pricing.clone());
        }
        let bills = self.bills.iter_mut().filter_map(|slot| slot.bill.as_mut().ok()?.inputs.as_mut());
        for terms in
            bills.flat_map(|inputs| &mut inputs.charges).filter_map(|charge| match &mut charge.kind {
                ChargeKind::Usage(terms) => Some(terms),
                ChargeKind::Fee { .. } => None,
            })
        {
            let later = terms.later.iter_mut().zip(&terms.later_names);
            for (list, name) in terms.list.iter_mut().zip(&terms.list_names).chain(later) {
                if let Some(pricing) = full.get(name) {
                    list.pricing = pricing.clone();
                }
            }
        }
        Ok(())
    }

    /// Says that the bills are not to be issued: before anything is asked.
    pub fn only_pending(&mut self, pending: Pending) {
        self.pending = Some(pending);
    }

    /// Whether the hours of the usage lead to nothing else: all blocks are in the bills' currency, pay for everything, and
    /// were there before the first period and will be after the last; so each line takes what is left in the same order
    /// of blocks, and it does not matter which line comes first.
    fn times_are_one(&self) -> bool {
        let mut all = self.bills.iter();
        let mut purse: Option<&Purse> = None;
        all.all(|slot| {
            let (Role::Main(standing), Ok(bill)) = (&slot.role, &slot.bill) else { return false };
            let Some(inputs) = bill.inputs.as_ref() else { return false };
            let Some(own) = bill.purse.as_ref() else { return false };
            let periods = inputs.charges.iter().flat_map(|charge| &charge.periods);
            let span = periods.fold(None, |span: Option<(Instant, Instant)>, period| {
                Some(span.map_or((period.from, period.until), |(from, until)| {
                    (from.min(period.from), until.max(period.until))
                }))
            });
            standing.is_empty()
                && bill.recorded_until.is_none()
                && inputs.commitments.is_empty()
                && span.is_none_or(|span| own.pays_for_all(&inputs.header.currency, span))
                && purse.replace(own).is_none_or(|other| other.same_blocks(own))
        })
    }

    /// The stretches whose usage is needed by hour, since credit or a commitment's price for what goes beyond it may have
    /// to do with it: cut where what blocks pay for changes.
    pub fn hour_stretches(&mut self) -> Vec<Stretch> {
        let (mut stretches, mut hours) = (Vec::new(), Vec::new());
        if self.pending == Some(Pending::ByPeriod) && self.times_are_one() {
            return stretches;
        }
        for (at, slot) in self.bills.iter().enumerate() {
            let Ok(bill) = &slot.bill else { continue };
            let Some(inputs) = bill.inputs.as_ref().filter(|_| bill.settles()) else { continue };
            let purse = bill.purse.as_ref();
            let (mut cuts, names) = purse.map(Purse::looks_at).unwrap_or_default();
            cuts.extend(inputs.commitments.iter().flat_map(|row| row.ends()));
            for (item, charge) in bill.charges.iter().zip(&inputs.charges) {
                let (ItemTerms::Usage { charge: usage, meter_id, .. }, ChargeKind::Usage(terms)) =
                    (&item.terms, &charge.kind)
                else {
                    continue;
                };
                let Ok((version, meter)) = bill.meter(self, *meter_id) else { continue };
                if !meter.aggregation.adds_up_in_time || meter.aggregation.read != Read::Numbers {
                    continue;
                }
                let prices = inputs.prices(&charge.key, terms);
                let mut looked_at = super::compute::line_dimensions(&prices, &terms.matches, &terms.lines_by);
                looked_at.extend(names.iter().cloned());
                looked_at
                    .extend(inputs.commitments.iter().flat_map(|row| row.scope.dimensions.keys().cloned()));
                let what = (charge.product.as_str(), terms.meter.as_str(), terms.unit.as_deref());
                for period in &charge.periods {
                    let mut until = bill.usage_until.map_or(period.until, |until| until.min(period.until));
                    if period.from < until && self.pending.is_some() {
                        until = period.until;
                    }
                    let span = (period.from, until);
                    let paid = purse.is_some_and(|p| p.may_pay(&inputs.header.currency, what, span));
                    let beyond = inputs.commitments.iter().any(|row| !row.overage.is_empty());
                    let turns = purse.is_some_and(|purse| purse.turns_in(span));
                    if period.from >= until || !(paid || beyond || turns) {
                        continue;
                    }
                    let inside = cuts.iter().copied().filter(|cut| *cut > period.from && *cut < until);
                    let mut starts: Vec<Instant> = [period.from].into_iter().chain(inside).collect();
                    starts.push(until);
                    for ends in starts.windows(2) {
                        hours.push((at, charge.key.clone()));
                        stretches.push(Stretch {
                            customer_id: slot.customer_id,
                            meter_id: *meter_id,
                            from: ends[0],
                            until: ends[1],
                            source: bill.recorded_until.map_or(Source::Cells, |_| Source::Events),
                            recorded_until: bill.recorded_until,
                            meter_version: bill.known_meters.as_ref().map(|_| version),
                            known_meters: None,
                            matches: usage.matches.clone(),
                            dropped: (meter.dimensions.iter())
                                .filter(|name| !looked_at.contains(name))
                                .cloned()
                                .collect(),
                            bill_to: inputs.header.bill_to.clone(),
                        });
                    }
                }
            }
        }
        self.hours = hours;
        stretches
    }

    /// Usage of one of those stretches in an hour, by what lines and blocks look at.
    pub fn add_hour(
        &mut self,
        stretch: usize,
        at: Instant,
        dimensions: Dimensions,
        quantity: Exact,
    ) -> Result<(), Fault> {
        let (bill, charge) = self
            .hours
            .get(stretch)
            .ok_or_else(|| Fault::new(Code::State, format!("no stretch {stretch} was asked for by hour")))?;
        if let Ok(bill) = &mut self.bills[*bill].bill {
            bill.hours.push(Hour { charge: charge.clone(), at, dimensions, quantity });
        }
        Ok(())
    }

    /// Usage of an hour that can't be billed is wrong with its bill, and with no other.
    pub fn refuse_hour(&mut self, stretch: usize, fault: Fault) {
        let Some((bill, charge)) = self.hours.get(stretch) else { return };
        let message = format!("the usage of charge {charge} can't be settled: {}", fault.message);
        self.bills[*bill].bill = Err(Fault { message, ..fault });
    }

    /// Computes every bill. With `with_empty` a bill without lines gives one document all the same. The differences
    /// of earlier boundaries go to the contract's bill of no boundary, if it has one, whatever the order of the bills.
    pub fn compute(&mut self, with_empty: bool) {
        self.hold();
        let mut rated = Vec::with_capacity(self.bills.len());
        for slot in &mut self.bills {
            let made = match &mut slot.bill {
                Ok(bill) => bill.rated(&self.midnights),
                Err(fault) => Err(fault.clone()),
            };
            rated.push(made.map_err(|fault| slot.bill = Err(fault)).ok());
        }
        let mut funding = self.fund(&mut rated);
        let mut earlier: HashMap<(i64, Uuid), Vec<Result<Earlier, Fault>>> = HashMap::new();
        for (at, slot) in self.bills.iter_mut().enumerate() {
            let Role::Earlier(standing) = &mut slot.role else { continue };
            let standing = std::mem::take(standing);
            let computed = match (&slot.bill, rated[at].take()) {
                (Ok(bill), Some(rated)) => {
                    let Funding { own: credits, spent, relevant, .. } = std::mem::take(&mut funding[at]);
                    let now = Funding { spent, ..Funding::default() };
                    Documents::compute(rated, now, (Vec::new(), None), false).map(|now| Earlier {
                        boundary: bill.boundaries.last().copied().unwrap_or_default(),
                        now: Some(now),
                        standing,
                        credits,
                        relevant,
                    })
                }
                (Ok(_), None) => unreachable!("what was not rated has a fault"),
                (Err(fault), _) => Err(fault.clone()),
            };
            earlier.entry(slot.of()).or_default().push(computed);
        }
        let apart: HashSet<(i64, Uuid)> =
            self.bills.iter().filter(|slot| slot.is_apart()).map(Slot::of).collect();
        for (at, slot) in self.bills.iter_mut().enumerate() {
            let (of, is_apart) = (slot.of(), slot.is_apart());
            let (Role::Main(standing), Ok(bill)) = (&mut slot.role, &mut slot.bill) else { continue };
            let due = bill.due_until(&self.midnights);
            let takes = is_apart || !apart.contains(&of);
            let of_contract = if takes { earlier.remove(&of).unwrap_or_default() } else { Vec::new() };
            let computed = of_contract.into_iter().collect::<Result<Vec<_>, Fault>>().map_err(|fault| {
                Fault { message: format!("late usage of an earlier period: {}", fault.message), ..fault }
            });
            let computed = computed.and_then(|mut earlier| {
                earlier.sort_by_key(|earlier| earlier.boundary);
                if let (Some(boundary), false) = (bill.boundaries.last(), standing.is_empty()) {
                    let standing = std::mem::take(standing);
                    let (credits, relevant) = (Vec::new(), Vec::new());
                    earlier.push(Earlier { boundary: *boundary, now: None, standing, credits, relevant });
                }
                let rated = rated[at].take().expect("what was not rated has a fault");
                Documents::compute(rated, std::mem::take(&mut funding[at]), (earlier, due), with_empty)
            });
            match computed {
                Ok(documents) => slot.made = Some(documents),
                Err(fault) => slot.bill = Err(fault),
            }
        }
    }

    /// What documents drew that are held is in no settlement: nothing of it is given back.
    fn hold(&mut self) {
        let held: HashMap<(i64, Uuid), BTreeSet<String>> = (self.bills.iter())
            .filter(|slot| !slot.is_earlier())
            .filter_map(|slot| Some((slot.of(), slot.bill.as_ref().ok()?.purse.as_ref()?.held().clone())))
            .filter(|(_, held)| !held.is_empty())
            .collect();
        for slot in &mut self.bills {
            let Some(held) = held.get(&slot.of()) else { continue };
            let (Role::Main(standing) | Role::Earlier(standing)) = &mut slot.role;
            let of_held = standing.iter_mut().filter(|document| held.contains(&document.bill_to));
            of_held.for_each(|document| document.credits.clear());
        }
    }

    /// Credit and true-ups, contract by contract in order of their ids, so that contracts that share blocks never spend
    /// one credit twice. Inside a contract the boundaries that are compared come before the bill's own.
    fn fund(&mut self, rated: &mut [Option<Rated>]) -> Vec<Funding> {
        let mut funding: Vec<Funding> = self.bills.iter().map(|_| Funding::default()).collect();
        let mut contracts: BTreeMap<(i64, Uuid), Vec<usize>> = BTreeMap::new();
        // What was drawn may come back where nothing could be drawn now.
        let drawn: HashSet<(i64, Uuid)> =
            self.bills.iter().filter(|slot| !slot.standing_credits().is_empty()).map(Slot::of).collect();
        for (at, slot) in self.bills.iter().enumerate() {
            if slot.bill.as_ref().is_ok_and(|bill| bill.settles() || drawn.contains(&slot.of())) {
                contracts.entry(slot.of()).or_default().push(at);
            }
        }
        let mut left: HashMap<i64, BTreeMap<String, Exact>> = HashMap::new();
        for ((customer_id, contract_id), mut places) in contracts {
            let of = |slot: &&Slot| slot.of() == (customer_id, contract_id);
            if self.bills.iter().filter(of).any(|slot| slot.bill.is_err()) {
                continue; // nothing of the contract is billed
            }
            places.sort_by_key(|at| {
                let slot = &self.bills[*at];
                (!slot.is_earlier(), !slot.is_apart(), slot.boundary())
            });
            let funded = self.fund_contract(&places, rated, left.entry(customer_id).or_default());
            match funded {
                Ok(funds) => places.iter().zip(funds).for_each(|(at, funds)| funding[*at] = funds),
                Err(fault) => {
                    for at in places {
                        self.bills[at].bill = Err(fault.clone());
                    }
                }
            }
        }
        funding
    }

    fn fund_contract(
        &self,
        places: &[usize],
        rated: &mut [Option<Rated>],
        left: &mut BTreeMap<String, Exact>,
    ) -> Result<Vec<Funding>, Fault> {
        let bills: Vec<&Bill> = places
            .iter()
            .map(|at| self.bills[*at].bill.as_ref().expect("no fault in the contract"))
            .collect();
        let standing: Vec<Vec<Credit>> = places.iter().map(|at| self.bills[*at].standing_credits()).collect();
        let last = *places.last().expect("a contract in the batch");
        let mut purse = bills[places.len() - 1].purse.clone();
        debug_assert!(!self.bills[last].is_earlier(), "a boundary is compared for a bill of its contract");
        let mut now: Vec<Vec<Credit>> = vec![Vec::new(); places.len()];
        let mut relevant: Vec<Vec<bool>> = vec![Vec::new(); places.len()];
        let mut of_places: Vec<Rated> = places.iter().map(|at| rated[*at].take().expect("rated")).collect();
        if let Some(purse) = &mut purse {
            purse.opens_with(left);
            purse.again(&standing.concat())?;
        }
        // Commitments may have prices for what no credit covers, also where there is none.
        let none = Purse::default();
        let held = purse.as_ref().unwrap_or(&none).held().clone();
        let mut parts: Vec<Part> = (of_places.iter_mut().zip(&bills).zip(places))
            .map(|((rated, bill), at)| Part {
                inputs: &rated.inputs,
                hours: &bill.hours,
                lines: &mut rated.lines,
                usage_until: bill.usage_until,
                given_up: self.bills[*at].given_up(),
            })
            .collect();
        let promised = self.ceilings(&bills)?;
        let boundaries: Vec<i64> = bills.iter().flat_map(|bill| bill.boundaries.iter().copied()).collect();
        // A recompute has them where they were counted.
        let mut stands =
            bills.iter().map(|bill| &bill.spent).max_by_key(|spent| spent.numbers.len()).cloned();
        stands.iter_mut().for_each(|spent| spent.without(&boundaries, &held));
        let ceilings = Ceilings { of: promised, stands: stands.unwrap_or_default() };
        let settlement = settlement::settle(purse.as_ref().unwrap_or(&none), &ceilings, &mut parts)?;
        if let Some(purse) = &purse {
            now = settlement.credits;
            relevant = settlement.relevant;
            left.extend(purse.remains(&settlement.left));
        }
        let apart = places.iter().any(|at| self.bills[*at].is_apart()) && places.len() > 1;
        let mut settled = Settled { bills, rated: of_places, now, boundaries, held };
        let mut funds = Vec::new();
        for at in 0..places.len() {
            let spent = settled.spent(at, &self.midnights)?;
            if let Some(spent) = &spent {
                settled.true_up(at, spent, &self.midnights)?;
            }
            let slot = &self.bills[places[at]];
            let boundary = slot.boundary().filter(|_| slot.is_earlier());
            let own = purse::difference(settled.now[at].clone(), &standing[at], boundary)?;
            // What it was settled from stands on the bill, without what another bill of the contract has: a bill of
            // differences alone those of the boundary, and the other way round.
            let mut purse = purse.clone().filter(|_| !slot.is_earlier());
            if let Some(purse) = purse.as_mut().filter(|_| apart) {
                let elsewhere = |other: &usize| self.bills[*other].is_earlier() != slot.is_apart();
                let elsewhere = places.iter().zip(&settled.now).filter(|(other, _)| elsewhere(other));
                elsewhere.into_iter().try_for_each(|(_, credits)| purse.without(credits))?;
            }
            funds.push(Funding { own, purse, relevant: std::mem::take(&mut relevant[at]), spent });
        }
        for (at, of_place) in places.iter().zip(settled.rated) {
            rated[*at] = Some(of_place);
        }
        Ok(funds)
    }

    /// What usage may fill of the commitments of one contract, each once.
    fn ceilings(&self, bills: &[&Bill]) -> Result<Vec<Ceiling>, Fault> {
        let mut found: BTreeMap<Uuid, Ceiling> = BTreeMap::new();
        for bill in bills {
            let rows = bill.commitments();
            let priced: Vec<_> =
                rows.iter().filter(|row| row.has_ceiling()).map(|row| row.measure()).collect();
            for promised in bill.promised(&|day| bill.midnight(&self.midnights, day))? {
                let measure = rows[promised.row].measure();
                if priced.contains(&measure) {
                    let ceiling = Ceiling { measure: measure.map(str::to_string), of: promised.of };
                    found.insert(ceiling.of.id, ceiling);
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// The bills in the order they were opened, earlier boundaries among them.
    pub fn slots(&self) -> &[Slot] {
        &self.bills
    }

    /// The first bill's documents, or why there are none.
    #[cfg(test)]
    pub fn one(mut self) -> Result<Documents, Fault> {
        let Slot { bill, made, .. } = self.bills.remove(0);
        bill.map(|_| made.expect("compute() makes documents or a fault"))
    }
}

/// The bills of one contract, in the order in which they were settled.
struct Settled<'b> {
    bills: Vec<&'b Bill>,
    rated: Vec<Rated>,
    /// What the lines of each draw.
    now: Vec<Vec<Credit>>,
    /// All of them.
    boundaries: Vec<i64>,
    /// Legal entities of which nothing is settled.
    held: BTreeSet<String>,
}

impl Settled<'_> {
    /// What is spent of commitments, where a bill is held against that: one falls due in it, or its usage fills one.
    fn spent(&self, at: usize, midnights: &Midnights) -> Result<Option<Spent>, Fault> {
        let (bill, Rated { dues, lines, .. }) = (self.bills[at], &self.rated[at]);
        let midnight = |day| bill.midnight(midnights, day);
        let ends = commitments::true_up_days(dues).max().map(midnight).transpose()?;
        // Its own usage is held against what was spent before it.
        let usage = lines.iter().filter(|line| line.meter.is_some()).map(|line| line.until);
        let filled = if bill.promised(&midnight)?.is_empty() { None } else { usage.max() };
        let Some(end) = ends.max(filled) else { return Ok(None) };
        let mut spent = bill.spent.clone();
        spent.without(&self.boundaries, &self.held);
        spent.meters =
            bill.commitments().iter().filter_map(|row| row.measure().map(str::to_string)).collect();
        // All of them: what was used after its period does not count for it.
        for (earlier, credits) in self.rated.iter().zip(&self.now) {
            let n = bill.boundaries.last().copied().unwrap_or_default();
            spent.add(n, &earlier.lines, credits, &self.held)?;
        }
        // Nothing later: that may stand on documents that this bill does not know.
        spent.until(end);
        Ok(Some(spent))
    }

    /// Bills what commitments that fall due lack.
    fn true_up(&mut self, at: usize, spent: &Spent, midnights: &Midnights) -> Result<(), Fault> {
        let bill = self.bills[at];
        let Rated { inputs, dues, lines, .. } = &mut self.rated[at];
        let unit_of = |meter: &str| inputs.unit_of(meter);
        let of_bill = (inputs.header.bill_to.as_str(), unit_of, inputs.minor_units, inputs.rounding_mode);
        let midnight = |day| bill.midnight(midnights, day);
        lines.extend(commitments::true_up_lines(&inputs.commitments, dues, spent, of_bill, midnight)?);
        Ok(())
    }
}

fn versions_text(versions: &BTreeMap<String, usize>) -> String {
    let fields = versions.iter().map(|(key, version)| (key.clone().into(), Tree::number(version)));
    Tree::Object(fields.collect()).canonical().expect("keys and numbers are canonical")
}

/// Whole buckets answer, unless a boundary cuts one or the price needs more than sums.
fn source(
    by_event: bool,
    recorded_until: Option<Instant>,
    read: Read,
    from: Instant,
    until: Instant,
) -> Source {
    let aligned = |at: Instant| at.0.rem_euclid(HOUR) == 0;
    match (by_event, recorded_until) {
        (true, _) => Source::Amounts,
        (false, _) if read == Read::Composed => Source::Composed,
        (false, Some(_)) => Source::Events,
        (false, None) if !(aligned(from) && aligned(until)) => Source::Cells,
        (false, None) if read == Read::Values => Source::Values,
        (false, None) => Source::Buckets,
    }
}
