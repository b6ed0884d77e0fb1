//! Many bills at once, from their contracts to their documents.
//!
//! The database is asked in few, large questions. [`Batch::open`] reads the contracts; then the batch says what
//! else it needs and takes the answers: meters ([`Batch::meter_ids`]), price versions ([`Batch::price_keys`]),
//! the instants of local midnights ([`Batch::days`]), usage ([`Batch::stretches`]), rows of large matrices
//! ([`Batch::wanted_rows`]). [`Batch::documents`] computes. What is wrong with one bill stays with that bill.

use super::difference::{Earlier, Standing, read_standing};
use super::document::Documents;
use super::inputs::{Charge, ChargeKind, Header, Inputs, Segment, ServicePeriod, Usage, UsageTerms};
use crate::domain::contracts::CHARGES_MAX;
use crate::domain::contracts::charge::{Fee, PriceSource, Timing, UsageCharge};
use crate::domain::contracts::overrides::{Change, Target};
use crate::domain::contracts::resolve::{Agreed, CHARGE, ListPrice};
use crate::domain::foundation::calendar::{Alignment, Calendar, Interval, Period};
use crate::domain::foundation::hash::sha256_hex;
use crate::domain::foundation::instant::{HOUR, Instant};
use crate::domain::foundation::json::{self, DOCUMENT_DEPTH_MAX, Node, Tree};
use crate::domain::foundation::proration::{Elapsed, ProrationBasis};
use crate::domain::foundation::{Code, Exact, Fault, RoundingLevel, RoundingMode};
use crate::domain::metering::dimensions::BILL_TO;
use crate::domain::metering::measure::{Compound, Read};
use crate::domain::metering::{Dimensions, Measure};
use crate::domain::rating::{Pricing, TierContinuity, match_candidates};
use chrono::NaiveDate;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    midnights: HashMap<(String, NaiveDate), Instant>,
    /// Where each stretch's usage goes, by its number.
    places: Vec<Place>,
}

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

struct Bill {
    header: Header,
    minor_units: u32,
    policies: BTreeMap<String, String>,
    zone: String,
    calendar: Calendar,
    /// Instants that were fixed when a billing period was made: first and last day of each.
    fixed: HashMap<NaiveDate, Instant>,
    boundaries: Vec<i64>,
    usage_until: Option<Instant>,
    /// Measure events recorded until then, not buckets.
    recorded_until: Option<Instant>,
    /// Only these price versions are known: `book/key@version`, each until the next one or the end it had then.
    known_prices: Option<Ends>,
    /// What they don't price, today's versions may.
    prices_now: bool,
    /// Of a recompute: those of them that were known, with the ends they had.
    later_prices: Option<Ends>,
    /// Meters had so many versions then; those that are not named had one. None = as of now.
    known_meters: Option<BTreeMap<String, usize>>,
    pinned: bool,
    signed_at: Instant,
    charges: Vec<Item>,
    agreed: Vec<Agreed>,
    /// Filled once meters, prices and midnights are there.
    inputs: Option<Inputs>,
}

struct Item {
    product: String,
    every: Interval,
    terms: ItemTerms,
}

enum ItemTerms {
    Usage { charge: Box<UsageCharge>, meter_id: i32, book_id: Option<Uuid> },
    Fee(Box<Fee>),
}

/// Versions of prices by name, with their ends.
type Ends = BTreeMap<String, Option<Instant>>;

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
}

impl Batch {
    /// Reads the contracts of a batch: of each at most one bill, and any number of earlier boundaries.
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
            for item in &bill.charges {
                for period in bill.periods(item) {
                    let ends = [period.starts_on, period.ends_on]
                        .into_iter()
                        .filter(|day| !bill.fixed.contains_key(day));
                    let wholes = [period.whole_starts_on, period.whole_ends_on];
                    days.extend(ends.chain(wholes).map(|day| (bill.zone.as_str(), day)));
                }
            }
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
            let read = meter.aggregation.read;
            for (period_at, period) in charge.periods.iter().enumerate() {
                for (segment_at, segment) in period.segments.iter().enumerate() {
                    let until = bill.usage_until.map_or(segment.until, |until| until.min(segment.until));
                    if segment.from >= until {
                        continue;
                    }
                    stretches.push(Stretch {
                        customer_id: self.bills[at].customer_id,
                        meter_id: *meter_id,
                        from: segment.from,
                        until,
                        source: source(by_event, bill.recorded_until, read, segment.from, until),
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
            let UsageRow { dimensions, quantity, events, amounts, .. } = row;
            segment.usage.push(Usage { dimensions, quantity, events, amounts });
        }
        Ok(())
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

    /// Computes every bill. With `with_empty` a bill without lines gives one document all the same.
    pub fn compute(&mut self, with_empty: bool) {
        let mut earlier: HashMap<(i64, Uuid), Vec<Result<Earlier, Fault>>> = HashMap::new();
        for slot in &mut self.bills {
            let Role::Earlier(standing) = &mut slot.role else { continue };
            let standing = std::mem::take(standing);
            let computed = match &mut slot.bill {
                Ok(bill) => bill.compute(Vec::new(), false).map(|now| Earlier {
                    boundary: bill.boundaries.last().copied().unwrap_or_default(),
                    now: Some(now),
                    standing,
                }),
                Err(fault) => Err(fault.clone()),
            };
            earlier.entry((slot.customer_id, slot.contract_id)).or_default().push(computed);
        }
        for slot in &mut self.bills {
            let (Role::Main(standing), Ok(bill)) = (&mut slot.role, &mut slot.bill) else { continue };
            let of_contract = earlier.remove(&(slot.customer_id, slot.contract_id)).unwrap_or_default();
            let computed = of_contract.into_iter().collect::<Result<Vec<_>, Fault>>().map_err(|fault| {
                Fault { message: format!("late usage of an earlier period: {}", fault.message), ..fault }
            });
            let computed = computed.and_then(|mut earlier| {
                earlier.sort_by_key(|earlier| earlier.boundary);
                if let (Some(boundary), false) = (bill.boundaries.last(), standing.is_empty()) {
                    let standing = std::mem::take(standing);
                    earlier.push(Earlier { boundary: *boundary, now: None, standing });
                }
                bill.compute(earlier, with_empty)
            });
            match computed {
                Ok(documents) => slot.made = Some(documents),
                Err(fault) => slot.bill = Err(fault),
            }
        }
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

// ── one bill ─────────────────────────────────────────────────────────────────────────────────────

impl Bill {
    fn parse(text: &str) -> Result<Bill, Fault> {
        let tree = json::parse_nested(text, DOCUMENT_DEPTH_MAX, "")?;
        let mut fields = Node::root(&tree).fields()?;
        let mut text = |name: &str| fields.required(name)?.text().map(str::to_string);
        let header = Header {
            contract: text("key")?,
            customer: text("customer")?,
            seller: text("seller")?,
            currency: text("currency")?,
            bill_to: text("bill_to")?,
            contract_version: 0,
            terms_version: 0,
        };
        let (zone, every, alignment) = (text("zone")?, text("every")?, text("alignment")?);
        let header = Header {
            contract_version: fields.required("version")?.integer()?,
            terms_version: fields.required("terms_version")?.integer()?,
            ..header
        };
        let calendar = Calendar::new(
            fields.required("starts_on")?.date()?,
            fields.optional("ends_on").map(|n| n.date()).transpose()?,
            Interval::parse(&every)?,
            Alignment::parse(&alignment)?,
        )?;
        let minor_units = fields.required("minor_units")?;
        let minor_units = match minor_units.is_null() {
            true => {
                return Err(Fault::new(
                    Code::Unknown,
                    format!("currency {} is not valid on the issue date", header.currency),
                ));
            }
            false => u32::try_from(minor_units.integer()?).map_err(|_| minor_units.fault("is negative"))?,
        };
        let mut policies = BTreeMap::new();
        for (name, node) in fields.required("policies")?.entries()? {
            policies.insert(name.to_string(), node.text()?.to_string());
        }
        let integers = |node: Node| node.items()?.iter().map(Node::integer).collect::<Result<Vec<_>, _>>();
        let (periods, charges, overrides) =
            (fields.optional("periods"), fields.optional("charges"), fields.optional("overrides"));
        let read_charges = |node: Node| node.items_at_most(CHARGES_MAX)?.iter().map(Item::read).collect();
        let read_agreed = |node: Node| node.items()?.iter().map(Agreed::read).collect();
        let known = |node: Node| {
            let ends = node.entries()?.into_iter().map(|(name, end)| {
                let end = (!end.is_null()).then(|| end.instant()).transpose()?;
                Ok((name.to_string(), end))
            });
            ends.collect::<Result<_, Fault>>()
        };
        let known_meters = |node: Node| {
            let versions = node.entries()?.into_iter().map(|(name, version)| {
                let number = usize::try_from(version.integer()?);
                Ok((name.to_string(), number.map_err(|_| version.fault("is no number of a version"))?))
            });
            versions.collect::<Result<_, Fault>>()
        };
        Ok(Bill {
            header,
            minor_units,
            policies,
            zone,
            calendar,
            fixed: periods.map(|node| read_fixed(&node)).transpose()?.unwrap_or_default(),
            boundaries: integers(fields.required("boundaries")?)?,
            usage_until: fields.optional("usage_until").map(|n| n.instant()).transpose()?,
            recorded_until: fields.optional("recorded_until").map(|n| n.instant()).transpose()?,
            known_prices: fields.optional("known_prices").map(known).transpose()?,
            prices_now: fields.optional("prices_now").map_or(Ok(false), |n| n.boolean())?,
            later_prices: fields.optional("later_prices").map(known).transpose()?,
            known_meters: fields.optional("known_meters").map(known_meters).transpose()?,
            pinned: fields.required("pinned")?.boolean()?,
            signed_at: fields.required("signed_at")?.instant()?,
            charges: charges.map(read_charges).transpose()?.unwrap_or_default(),
            agreed: overrides.map(read_agreed).transpose()?.unwrap_or_default(),
            inputs: None,
        })
    }

    fn policy(&self, name: &str) -> &str {
        self.policies.get(name).map_or("", String::as_str)
    }

    /// The service periods of an item that this bill holds: arrears of the period before each boundary,
    /// advance of the one after.
    fn periods(&self, item: &Item) -> Vec<Period> {
        let advance = matches!(&item.terms, ItemTerms::Fee(fee) if fee.timing == Timing::Advance);
        let numbers =
            self.boundaries.iter().filter_map(|n| u32::try_from(if advance { *n } else { *n - 1 }).ok());
        numbers.flat_map(|n| self.calendar.service_periods(item.every, n)).collect()
    }

    /// Dimensions with the bill_to filled in: prices may match on it.
    fn lookup(&self, dimensions: &Dimensions) -> Dimensions {
        let mut lookup = dimensions.clone();
        if lookup.get(BILL_TO).is_none() {
            lookup.set(BILL_TO, self.header.bill_to.clone());
        }
        lookup
    }

    /// A meter as this bill knows it, with the number of its version.
    fn meter<'b>(&self, batch: &'b Batch, meter_id: i32) -> Result<(usize, &'b Meter), Fault> {
        let versions = batch.meters.get(&meter_id).map_or(&[][..], Vec::as_slice);
        let newest = versions.last();
        let version = newest.map(|meter| match &self.known_meters {
            None => versions.len(),
            Some(known) => known.get(&meter.key).copied().unwrap_or(1),
        });
        let found = version.and_then(|version| Some((version, versions.get(version.checked_sub(1)?)?)));
        found.ok_or_else(|| Fault::new(Code::Unknown, format!("meter {meter_id} is not known")))
    }

    /// Everything but the usage.
    fn inputs(&self, batch: &Batch) -> Result<Inputs, Fault> {
        let mut prices = BTreeMap::new();
        let mut later = BTreeMap::new();
        let mut meters = BTreeSet::new();
        let charges = self
            .charges
            .iter()
            .map(|item| self.charge(item, batch, (&mut prices, &mut later), &mut meters))
            .collect::<Result<Vec<_>, Fault>>()?;
        Ok(Inputs {
            header: self.header.clone(),
            minor_units: self.minor_units,
            rounding_mode: RoundingMode::parse(self.policy("rounding_mode"))?,
            rounding_level: RoundingLevel::parse(self.policy("rounding_level"))?,
            proration_basis: ProrationBasis::parse(self.policy("proration_basis"))?,
            tier_continuity: match self.policy("tier_continuity") {
                "" => None,
                continuity => Some(TierContinuity::parse(continuity)?),
            },
            bills_unpriced: self.policy("unpriced_usage") == "bill",
            policies: self.policies.clone().into_iter().collect(),
            charges,
            agreed: self.agreed.clone(),
            price_ends: prices.iter().filter_map(|(name, end)| Some((name.clone(), (*end)?))).collect(),
            prices: prices.into_keys().collect(),
            later_prices: later.into_iter().collect(),
            meters: meters.into_iter().collect(),
        })
    }

    /// A charge with its periods; the price versions it has in play go to `prices`, with the end of those that no
    /// other version follows, and those that price what they don't beside; meters that are not in their first version go to `meters`.
    fn charge(
        &self,
        item: &Item,
        batch: &Batch,
        (prices, later): (&mut Ends, &mut Ends),
        meters: &mut BTreeSet<String>,
    ) -> Result<Charge, Fault> {
        let mut periods = self
            .periods(item)
            .into_iter()
            .map(|days| self.service_period(days, batch))
            .collect::<Result<Vec<_>, Fault>>()?;
        let (key, kind) = match &item.terms {
            ItemTerms::Fee(fee) => {
                let pricing = Box::new(fee.pricing.clone());
                (&fee.key, ChargeKind::Fee { pricing, quantity: fee.quantity, proration: fee.proration })
            }
            ItemTerms::Usage { charge, meter_id, .. } => {
                let (version, meter) = self.meter(batch, *meter_id)?;
                if version > 1 {
                    meters.insert(format!("{}@{version}", meter.key));
                }
                for component in &meter.components {
                    let id = batch.meters.iter().find(|(_, versions)| versions[0].key == *component);
                    let (version, _) = self.meter(batch, id.map_or(0, |(id, _)| *id))?;
                    if version > 1 {
                        meters.insert(format!("{component}@{version}"));
                    }
                }
                let terms = self.usage_terms(item, charge, meter, &periods, batch);
                for (price, name) in terms.list.iter().zip(&terms.list_names) {
                    let followed = terms.list.iter().any(|next| next.from == price.until);
                    let end = prices.entry(name.clone()).or_default();
                    *end = end.or(price.until.filter(|_| !followed));
                }
                let beside = terms.later.iter().zip(&terms.later_names);
                later.extend(beside.map(|(price, name)| (name.clone(), price.until)));
                for period in &mut periods {
                    period.segments = self.segments(period, &charge.key, meter, &terms);
                }
                (&charge.key, ChargeKind::Usage(Box::new(terms)))
            }
        };
        Ok(Charge { key: key.clone(), product: item.product.clone(), every: item.every, periods, kind })
    }

    fn service_period(&self, days: Period, batch: &Batch) -> Result<ServicePeriod, Fault> {
        let midnight = |day: NaiveDate| {
            let found = batch.midnights.get(&(self.zone.clone(), day)).copied();
            found.ok_or_else(|| {
                Fault::new(Code::State, format!("the midnight of {day} in {} was not given", self.zone))
            })
        };
        let end = |day: NaiveDate| self.fixed.get(&day).copied().map_or_else(|| midnight(day), Ok);
        let (from, until) = (end(days.starts_on)?, end(days.ends_on)?);
        let (whole_from, whole_until) = (midnight(days.whole_starts_on)?, midnight(days.whole_ends_on)?);
        let elapsed = Elapsed { part_micros: until.0 - from.0, whole_micros: whole_until.0 - whole_from.0 };
        Ok(ServicePeriod { from, until, days, elapsed, segments: Vec::new() })
    }

    fn usage_terms(
        &self,
        item: &Item,
        charge: &UsageCharge,
        meter: &Meter,
        periods: &[ServicePeriod],
        batch: &Batch,
    ) -> UsageTerms {
        let mut later = Vec::new();
        let (list, list_names) = match &charge.source {
            PriceSource::Own(pricing) => {
                let sha256 = sha256_hex(pricing.canonical().as_bytes()).into();
                let pricing = Arc::new((**pricing).clone());
                (
                    vec![ListPrice { label: CHARGE.into(), from: None, until: None, pricing, sha256 }],
                    Vec::new(),
                )
            }
            PriceSource::Book(_) => {
                let versions =
                    item.price_key().and_then(|key| batch.lists.get(&key)).map_or(&[][..], Vec::as_slice);
                let known: Vec<&Version> = versions.iter().filter(|version| self.knows(version)).collect();
                let others: Vec<&Version> =
                    versions.iter().filter(|version| self.prices_now && self.knows_later(version)).collect();
                later = self.versions(&others, periods);
                self.versions(&known, periods).into_iter().unzip()
            }
        };
        let (later, later_names) = later.into_iter().unzip();
        UsageTerms {
            meter: meter.key.clone(),
            aggregation: meter.aggregation.clone(),
            unit: meter.unit.clone(),
            matches: charge.matches.clone(),
            lines_by: charge.lines_by.clone(),
            dimensions: meter.dimensions.clone(),
            prorate_units: charge.prorate_units,
            list,
            list_names,
            later,
            later_names,
        }
    }

    /// Whether the bill is computed with this version: one published later must not change what a recompute sees.
    fn knows(&self, version: &Version) -> bool {
        self.known_prices.as_ref().is_none_or(|known| known.contains_key(&version.name))
    }

    /// Whether a version, published later, prices what those that are known don't.
    fn knows_later(&self, version: &Version) -> bool {
        let then = self.later_prices.as_ref().is_none_or(|later| later.contains_key(&version.name));
        then && !self.knows(version)
    }

    /// The versions in play, each with its name. Of what was known then, each holds until the next one or the end
    /// it had; and where it holds is only said as far as it cuts the bill's periods: what is published or ended
    /// later changes nothing here.
    fn versions(&self, known: &[&Version], periods: &[ServicePeriod]) -> Vec<(ListPrice, String)> {
        let (Some(first), Some(last)) =
            (periods.iter().map(|p| p.from).min(), periods.iter().map(|p| p.until).max())
        else {
            return Vec::new();
        };
        let at_signature = self.pinned || self.policy("rate_at") == "contract_signature";
        let mut list = Vec::new();
        for (at, version) in known.iter().enumerate() {
            let ends = [&self.known_prices, &self.later_prices].into_iter().flatten();
            let until = match ends.filter_map(|ends| ends.get(&version.name)).next() {
                None => version.until,
                Some(end) => end.or_else(|| known.get(at + 1).and_then(|next| next.from)),
            };
            let (start, end) = match at_signature {
                true => (self.signed_at, Instant(self.signed_at.0 + 1)),
                false => (first, last),
            };
            let starts_before_end = version.from.is_none_or(|from| from < end);
            let ends_after_start = until.is_none_or(|until| until > start);
            if !(starts_before_end && ends_after_start) {
                continue;
            }
            let (from, until) = match at_signature {
                true => (None, None),
                false => (version.from.filter(|at| *at > start), until.filter(|at| *at < end)),
            };
            let (pricing, sha256) = (version.pricing.clone(), version.sha256.clone());
            list.push((
                ListPrice { label: version.label.clone(), from, until, pricing, sha256 },
                version.name.clone(),
            ));
        }
        list
    }

    /// The period, cut where a price may change. What doesn't add up in time (all but counts and sums) has one
    /// price for the whole period, and so has everything where prices are taken at the period's start.
    fn segments(
        &self,
        period: &ServicePeriod,
        charge: &str,
        meter: &Meter,
        terms: &UsageTerms,
    ) -> Vec<Segment> {
        let one_price = self.policy("rate_at") == "period_start" || !meter.aggregation.adds_up_in_time;
        let mut starts = BTreeSet::from([period.from]);
        if !one_price {
            let mine = |a: &&Agreed| match &a.target {
                Target::Charge(key) => key == charge,
                Target::Meter(key) => *key == meter.key,
            };
            let agreed = self.agreed.iter().filter(mine).flat_map(|a| [a.from, a.until]);
            let list = terms.list.iter().chain(&terms.later).flat_map(|price| [price.from, price.until]);
            starts.extend(list.chain(agreed).flatten().filter(|at| *at > period.from && *at < period.until));
        }
        let starts: Vec<Instant> = starts.into_iter().collect();
        let segment = |(at, from): (usize, &Instant)| Segment {
            from: *from,
            until: starts.get(at + 1).copied().unwrap_or(period.until),
            price_at: if one_price { period.price_at() } else { *from },
            usage: Vec::new(),
        };
        starts.iter().enumerate().map(segment).collect()
    }

    fn compute(&mut self, earlier: Vec<Earlier>, with_empty: bool) -> Result<Documents, Fault> {
        let mut inputs = self
            .inputs
            .take()
            .ok_or_else(|| Fault::new(Code::State, "the usage of the bill was not asked for"))?;
        // Usage arrives in any order; the digest and the lines know one.
        for segment in inputs.charges.iter_mut().flat_map(|c| &mut c.periods).flat_map(|p| &mut p.segments) {
            segment.usage.sort_by(|a, b| a.dimensions.cmp(&b.dimensions));
        }
        Documents::compute(inputs, earlier, with_empty)
    }
}

/// `[[starts_on, starts_at, ends_on, ends_at], …]`.
fn read_fixed(node: &Node) -> Result<HashMap<NaiveDate, Instant>, Fault> {
    let mut fixed = HashMap::new();
    for period in node.items()? {
        let [starts_on, starts_at, ends_on, ends_at] = &period.items()?[..] else {
            return Err(period.fault("must be two days with their instants"));
        };
        fixed.insert(starts_on.date()?, starts_at.instant()?);
        fixed.insert(ends_on.date()?, ends_at.instant()?);
    }
    Ok(fixed)
}

fn uuid(node: &Node) -> Result<Uuid, Fault> {
    Uuid::try_parse(node.text()?).map_err(|_| node.fault("is no id"))
}

impl Item {
    fn read(node: &Node) -> Result<Item, Fault> {
        let mut fields = node.fields()?;
        let product = fields.required("product")?.text()?.to_string();
        let every = fields.required("every")?;
        let every = Interval::parse(every.text()?).map_err(|fault| every.rehint(fault))?;
        let terms = fields.required("terms")?;
        let terms = match fields.optional("meter_id") {
            None => ItemTerms::Fee(Box::new(Fee::read(&terms)?)),
            Some(meter_id) => ItemTerms::Usage {
                charge: Box::new(UsageCharge::read(&terms)?),
                meter_id: i32::try_from(meter_id.integer()?)
                    .map_err(|_| meter_id.fault("is no meter's id"))?,
                book_id: fields.optional("book_id").map(|n| uuid(&n)).transpose()?,
            },
        };
        Ok(Item { product, every, terms })
    }

    fn price_key(&self) -> Option<PriceKey> {
        match &self.terms {
            ItemTerms::Usage { charge, book_id: Some(book_id), .. } => match &charge.source {
                PriceSource::Book(key) => Some((*book_id, key.clone())),
                PriceSource::Own(_) => None,
            },
            _ => None,
        }
    }
}
