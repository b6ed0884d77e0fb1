//! One bill of a batch: read from its contract, given what else it needs to know, computed.

use super::{Batch, Meter, Midnights, PriceKey, Version};
use crate::domain::contracts::CHARGES_MAX;
use crate::domain::contracts::charge::{Fee, PriceSource, UsageCharge};
use crate::domain::contracts::overrides::Target;
use crate::domain::contracts::resolve::{Agreed, CHARGE, ListPrice};
use crate::domain::foundation::calendar::{Alignment, Calendar, Interval, Period, Timing};
use crate::domain::foundation::hash::sha256_hex;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::{self, DOCUMENT_DEPTH_MAX, Fields, Node};
use crate::domain::foundation::proration::{Elapsed, ProrationBasis};
use crate::domain::foundation::{Code, Exact, Fault, Ratio, RoundingLevel, RoundingMode};
use crate::domain::invoicing::commitments::{self, Commitment, Owed, Promised, Spent};
use crate::domain::invoicing::compute::lines;
use crate::domain::invoicing::difference::Due;
use crate::domain::invoicing::document::Rated;
use crate::domain::invoicing::inputs::{
    AmountOff, Charge, ChargeKind, Cut, Header, Inputs, PercentOff, Scope, Segment, ServicePeriod, UsageTerms,
};
use crate::domain::invoicing::purse::Purse;
use crate::domain::invoicing::settlement::Hour;
use crate::domain::metering::Dimensions;
use crate::domain::metering::dimensions::BILL_TO;
use crate::domain::rating::TierContinuity;
use chrono::NaiveDate;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use uuid::Uuid;

/// What a bill is computed from, before its usage is there.
pub(super) struct Bill {
    header: Header,
    minor_units: u32,
    policies: BTreeMap<String, String>,
    pub(super) zone: String,
    pub(super) calendar: Calendar,
    interval: Interval,
    /// Instants that were fixed when a billing period was made: first and last day of each.
    pub(super) fixed: HashMap<NaiveDate, Instant>,
    pub(super) boundaries: Vec<i64>,
    pub(super) usage_until: Option<Instant>,
    /// Measure events recorded until then, not buckets.
    pub(super) recorded_until: Option<Instant>,
    /// Only these price versions are known: `book/key@version`, each until the next one or the end it had then.
    known_prices: Option<Ends>,
    /// What they don't price, today's versions may.
    prices_now: bool,
    /// Of a recompute: those of them that were known, with the ends they had.
    later_prices: Option<Ends>,
    /// Meters had so many versions then; those that are not named had one. None = as of now.
    pub(super) known_meters: Option<BTreeMap<String, usize>>,
    pinned: bool,
    signed_at: Instant,
    pub(super) charges: Vec<Item>,
    agreed: Vec<Agreed>,
    commitments: Vec<Commitment>,
    /// The customer's credit; none where there is no block.
    pub(super) purse: Option<Purse>,
    /// What of postpaid commitments is spent by documents that stand.
    pub(super) spent: Spent,
    /// What was used by hour, where credit may pay for it.
    pub(super) hours: Vec<Hour>,
    /// In the order in which they apply: percents, then amounts.
    discounts: Vec<Discount>,
    /// Where the contract ends inside a day.
    ends: Option<Edge>,
    /// Filled once meters, prices and midnights are there.
    pub(super) inputs: Option<Inputs>,
}

pub(super) struct Item {
    product: String,
    every: Interval,
    /// When it holds, where that is not all of the contract's time.
    during: Stretch,
    pub(super) terms: ItemTerms,
}

/// Where terms begin or end.
#[derive(Debug, Clone, Copy)]
struct Edge {
    /// Its local day, which belongs to what begins.
    on: NaiveDate,
    at: Instant,
    /// Whether it is not the midnight of that day.
    inside: bool,
}

/// When terms hold; none = as long as the contract.
#[derive(Debug, Clone, Copy, Default)]
struct Stretch {
    from: Option<Edge>,
    until: Option<Edge>,
}

struct Discount {
    key: String,
    off: Off,
    scope: Scope,
    during: Stretch,
}

enum Off {
    Percent(Exact),
    /// Per billing interval.
    Amount(Exact),
}

/// A service period, or the part of one in which an item's terms hold.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) days: Period,
    /// Instants of its ends, where no midnight or boundary says them.
    pub(super) from: Option<Instant>,
    pub(super) until: Option<Instant>,
    cut: Cut,
}

pub(super) enum ItemTerms {
    Usage { charge: Box<UsageCharge>, meter_id: i32, book_id: Option<Uuid> },
    Fee(Box<Fee>),
}

/// Versions of prices by name, with their ends.
type Ends = BTreeMap<String, Option<Instant>>;

fn read_header(fields: &mut Fields) -> Result<Header, Fault> {
    let mut text = |name: &str| fields.required(name)?.text().map(str::to_string);
    let (contract, customer, seller) = (text("key")?, text("customer")?, text("seller")?);
    let (currency, bill_to) = (text("currency")?, text("bill_to")?);
    let purchase_order =
        fields.optional("purchase_order").map(|n| n.text().map(str::to_string)).transpose()?;
    Ok(Header {
        contract,
        customer,
        seller,
        currency,
        bill_to,
        purchase_order,
        contract_version: fields.required("version")?.integer()?,
        terms_version: fields.required("terms_version")?.integer()?,
    })
}

fn read_minor_units(node: &Node, currency: &str) -> Result<u32, Fault> {
    if node.is_null() {
        let message = format!("currency {currency} is not valid on the issue date");
        return Err(Fault::new(Code::Unknown, message));
    }
    u32::try_from(node.integer()?).map_err(|_| node.fault("is negative"))
}

/// A list that may be absent.
fn list<T>(node: Option<Node>, read: impl Fn(&Node) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    node.map_or(Ok(Vec::new()), |node| node.items()?.iter().map(read).collect())
}

fn read_ends(node: Node) -> Result<Ends, Fault> {
    let ends = node.entries()?.into_iter().map(|(name, end)| {
        let end = (!end.is_null()).then(|| end.instant()).transpose()?;
        Ok((name.to_string(), end))
    });
    ends.collect()
}

/// Versions of meters by key.
fn read_versions(node: Node) -> Result<BTreeMap<String, usize>, Fault> {
    let versions = node.entries()?.into_iter().map(|(name, version)| {
        let number = usize::try_from(version.integer()?);
        Ok((name.to_string(), number.map_err(|_| version.fault("is no number of a version"))?))
    });
    versions.collect()
}

impl Bill {
    pub(super) fn parse(text: &str) -> Result<Bill, Fault> {
        let tree = json::parse_nested(text, DOCUMENT_DEPTH_MAX, "")?;
        let mut fields = Node::root(&tree).fields()?;
        let header = read_header(&mut fields)?;
        let zone = fields.required("zone")?.text()?.to_string();
        let interval = Interval::parse(fields.required("every")?.text()?)?;
        let calendar = Calendar::new(
            fields.required("starts_on")?.date()?,
            fields.optional("ends_on").map(|n| n.date()).transpose()?,
            interval,
            Alignment::parse(fields.required("alignment")?.text()?)?,
        )?;
        let minor_units = read_minor_units(&fields.required("minor_units")?, &header.currency)?;
        let policy = |(name, node): (&str, Node)| Ok((name.to_string(), node.text()?.to_string()));
        let policies = fields.required("policies")?.entries()?.into_iter().map(policy);
        let policies = policies.collect::<Result<_, Fault>>()?;
        let mut discounts: Vec<Discount> = list(fields.optional("discounts"), Discount::read)?;
        discounts.sort_by_key(|discount| matches!(discount.off, Off::Amount(_)));
        let read_charges = |node: Node| node.items_at_most(CHARGES_MAX)?.iter().map(Item::read).collect();
        let purse = fields.optional("credits").map(|node| Purse::read(&node)).transpose()?;
        let spent = fields.optional("spent").map(|node| Spent::read(&node)).transpose()?;
        Ok(Bill {
            header,
            minor_units,
            policies,
            zone,
            calendar,
            interval,
            fixed: fields.optional("periods").map(|node| read_fixed(&node)).transpose()?.unwrap_or_default(),
            boundaries: list(Some(fields.required("boundaries")?), |n| n.integer())?,
            usage_until: fields.optional("usage_until").map(|n| n.instant()).transpose()?,
            recorded_until: fields.optional("recorded_until").map(|n| n.instant()).transpose()?,
            known_prices: fields.optional("known_prices").map(read_ends).transpose()?,
            prices_now: fields.optional("prices_now").map_or(Ok(false), |n| n.boolean())?,
            later_prices: fields.optional("later_prices").map(read_ends).transpose()?,
            known_meters: fields.optional("known_meters").map(read_versions).transpose()?,
            pinned: fields.required("pinned")?.boolean()?,
            signed_at: fields.required("signed_at")?.instant()?,
            charges: fields.optional("charges").map(read_charges).transpose()?.unwrap_or_default(),
            agreed: list(fields.optional("overrides"), Agreed::read)?,
            commitments: list(fields.optional("commitments"), Commitment::read)?,
            purse: purse.filter(|purse| !purse.is_idle()),
            spent: spent.unwrap_or_default(),
            hours: Vec::new(),
            discounts,
            ends: fields.optional("ends").map(|node| Edge::read(&node)).transpose()?,
            inputs: None,
        })
    }

    fn policy(&self, name: &str) -> &str {
        self.policies.get(name).map_or("", String::as_str)
    }

    /// What this bill holds of an item: the service periods that belong to its boundaries (arrears of the period
    /// before each, advance of the one after), as far as its terms hold.
    pub(super) fn pieces(&self, item: &Item) -> Vec<Piece> {
        let timing = item.timing();
        let mut pieces = Vec::new();
        for boundary in &self.boundaries {
            if item.is_once() {
                pieces.extend(self.once(item, *boundary));
            } else {
                pieces.extend(self.pieces_of(item, timing, boundary - i64::from(timing == Timing::Arrears)));
            }
        }
        if timing == Timing::Advance && !item.is_once() {
            for before in self.shared_before(item) {
                let elsewhere = self.pieces_of(item, timing, before).into_iter();
                pieces.extend(
                    elsewhere.map(|piece| Piece { cut: Cut { elsewhere: true, ..piece.cut }, ..piece }),
                );
            }
        }
        pieces
    }

    fn starts_on(&self) -> NaiveDate {
        self.calendar.boundary(0).expect("a contract starts")
    }

    fn pieces_of(&self, item: &Item, timing: Timing, n: i64) -> Vec<Piece> {
        let Ok(n) = u32::try_from(n) else { return Vec::new() };
        let until = item.during.until.or(self.ends);
        let from_on = item.during.from.map_or(NaiveDate::MIN, |edge| edge.on);
        let until_on = until.map(|edge| if edge.inside { next_day(edge.on) } else { edge.on });
        let periods = self.calendar.billed_service_periods(item.every, timing, from_on, until_on, n);
        let pieces = periods.into_iter().map(|days| self.piece(item, until, days));
        match item.terms {
            ItemTerms::Fee(_) => pieces.flat_map(|piece| self.cut_by_discounts(item, piece)).collect(),
            ItemTerms::Usage { .. } => pieces.collect(),
        }
    }

    fn piece(&self, item: &Item, until: Option<Edge>, mut days: Period) -> Piece {
        let whole_from = days.whole_starts_on.max(self.starts_on());
        let begins = item
            .during
            .from
            .filter(|edge| edge.on == days.starts_on && (edge.inside || days.starts_on > whole_from));
        let ends = until.filter(|edge| match edge.inside {
            true => days.ends_on == next_day(edge.on),
            false => days.ends_on == edge.on && days.ends_on != days.whole_ends_on,
        });
        if let Some(edge) = ends {
            days.ends_on = edge.on;
        }
        let cut = Cut {
            begins_in: begins.map(|_| whole_from),
            inside_day: begins.is_some_and(|edge| edge.inside) || ends.is_some_and(|edge| edge.inside),
            free: matches!(&item.terms, ItemTerms::Usage { charge, .. } if charge.trial),
            paid: begins.is_some_and(|edge| self.follows(item, days.whole_starts_on, &edge)),
            by_month: !days.is_whole() && self.is_co_termed(item, days.whole_starts_on),
            ..Cut::default()
        };
        Piece { days, from: begins.map(|edge| edge.at), until: ends.map(|edge| edge.at), cut }
    }

    /// Whether a fee, which says no basis of its own, began inside a whole period, so that it goes by the policy for those
    /// that end with the contract's periods.
    fn is_co_termed(&self, item: &Item, whole_from: NaiveDate) -> bool {
        let ItemTerms::Fee(fee) = &item.terms else { return false };
        let of_fee = |other: &&Item| matches!(&other.terms, ItemTerms::Fee(same) if same.key == fee.key);
        let begins = |other: &Item| other.during.from.map_or(NaiveDate::MIN, |edge| edge.on);
        let first = self.charges.iter().filter(of_fee).map(begins).min();
        self.policy("co_term") == "month"
            && fee.proration.is_none()
            && first.is_some_and(|first| first > whole_from.max(self.starts_on()))
    }

    /// Whether other terms of the same fee held in the whole period before these began.
    fn follows(&self, item: &Item, whole_from: NaiveDate, begins: &Edge) -> bool {
        let ItemTerms::Fee(fee) = &item.terms else { return false };
        self.charges.iter().any(|other| {
            matches!(&other.terms, ItemTerms::Fee(same) if same.key == fee.key)
                && other.during.until.is_some_and(|until| until.at <= begins.at && until.on > whole_from)
        })
    }

    /// Billed whole, at the first boundary on or after the day it is for.
    fn once(&self, item: &Item, boundary: i64) -> Option<Piece> {
        let boundary = u32::try_from(boundary).ok()?;
        let day = item.during.from.map_or(self.starts_on(), |edge| edge.on);
        let is_first = boundary
            .checked_sub(1)
            .is_none_or(|before| self.calendar.boundary(before).is_some_and(|before| before < day));
        let belongs = is_first && day <= self.calendar.boundary(boundary)?;
        let (starts_on, ends_on) = (day, next_day(day));
        let days =
            Period { n: boundary, starts_on, ends_on, whole_starts_on: starts_on, whole_ends_on: ends_on };
        belongs.then(|| Piece {
            days,
            from: item.during.from.map(|edge| edge.at),
            until: item.during.until.map(|edge| edge.at),
            cut: Cut { off: self.percents(item, day, None), ..Cut::default() },
        })
    }

    // ── discounts ────────────────────────────────────────────────────────────────────────────────

    fn discounts_of(&self, item: &Item) -> impl Iterator<Item = &Discount> {
        self.discounts.iter().filter(|discount| discount.scope.holds(item.key(), &item.product))
    }

    /// The percentages off that hold at an instant; none = the midnight of the day.
    fn percents(&self, item: &Item, on: NaiveDate, at: Option<Instant>) -> Vec<PercentOff> {
        let holds = |discount: &&Discount| discount.during.holds(on, at);
        let percent = |discount: &Discount| match discount.off {
            Off::Percent(percent) => Some(PercentOff { key: discount.key.clone(), percent }),
            Off::Amount(_) => None,
        };
        self.discounts_of(item).filter(holds).filter_map(percent).collect()
    }

    /// Where percentages off begin or end.
    fn percent_edges(&self, item: &Item) -> Vec<Edge> {
        let percents = self.discounts_of(item).filter(|discount| matches!(discount.off, Off::Percent(_)));
        percents.flat_map(|discount| [discount.during.from, discount.during.until]).flatten().collect()
    }

    /// A fee costs what it costs under each discount, for its part of the period.
    fn cut_by_discounts(&self, item: &Item, piece: Piece) -> Vec<Piece> {
        let whole = |fee: &Fee| fee.proration.unwrap_or_default();
        let none = matches!(&item.terms, ItemTerms::Fee(fee) if match fee.proration {
            Some(_) => whole(fee) == ProrationBasis::None,
            None => self.policy("proration_basis") == "none",
        });
        let mut edges: Vec<Edge> =
            self.percent_edges(item).into_iter().filter(|edge| !none && piece.holds(edge)).collect();
        edges.sort_by_key(|edge| edge.at);
        edges.dedup_by_key(|edge| edge.at);
        let named = piece.cut.begins_in.unwrap_or(piece.days.starts_on);
        let mut pieces = Vec::new();
        let mut rest = piece;
        for edge in edges {
            let mut first = rest.clone();
            (first.days.ends_on, first.until) = (edge.on, Some(edge.at));
            (rest.days.starts_on, rest.from) = (edge.on, Some(edge.at));
            rest.cut.begins_in = Some(named);
            first.cut.inside_day |= edge.inside;
            rest.cut.inside_day |= edge.inside;
            pieces.push(first);
        }
        pieces.push(rest);
        for piece in &mut pieces {
            piece.cut.off = self.percents(item, piece.days.starts_on, piece.from);
        }
        pieces
    }

    /// Amounts off are for a billing period: its arrears get what its advance has left. So the numbers of periods
    /// before this bill's boundaries whose advance shares one with their arrears.
    fn shared_before(&self, item: &Item) -> Vec<i64> {
        let before =
            self.boundaries.iter().map(|boundary| boundary - 1).filter(|n| !self.boundaries.contains(n));
        let shared = |n: &i64| {
            let Some(period) = u32::try_from(*n).ok().and_then(|n| self.calendar.period(n)) else {
                return false;
            };
            let amounts = self.discounts_of(item).filter(|discount| matches!(discount.off, Off::Amount(_)));
            amounts.filter(|discount| discount.during.touches(period.starts_on, period.ends_on)).any(
                |discount| {
                    self.charges.iter().any(|other| {
                        other.timing() == Timing::Arrears && discount.scope.holds(other.key(), &other.product)
                    })
                },
            )
        };
        before.filter(shared).collect()
    }

    /// The billing periods whose lines are on this bill, where an amount is off.
    pub(super) fn periods_off(&self) -> Vec<Period> {
        if !self.discounts.iter().any(|discount| matches!(discount.off, Off::Amount(_))) {
            return Vec::new();
        }
        let numbers: BTreeSet<i64> =
            self.boundaries.iter().flat_map(|boundary| [boundary - 1, *boundary]).collect();
        numbers.into_iter().filter_map(|n| self.calendar.period(u32::try_from(n).ok()?)).collect()
    }

    fn amounts_off(&self, batch: &Batch) -> Result<Vec<AmountOff>, Fault> {
        let basis = ProrationBasis::parse(self.policy("proration_basis"))?;
        let mut amounts = Vec::new();
        for discount in &self.discounts {
            let Off::Amount(amount) = discount.off else { continue };
            for days in self.periods_off() {
                let Some(piece) = discount.during.of(days) else { continue };
                let period = self.service_period(&piece, batch)?;
                amounts.push(AmountOff {
                    key: discount.key.clone(),
                    scope: discount.scope.clone(),
                    amount: Ratio::from(amount).mul(&period.share(self.interval, basis)),
                    from: period.from,
                    until: period.until,
                });
            }
        }
        Ok(amounts)
    }

    /// Dimensions with the bill_to filled in: prices may match on it.
    pub(super) fn lookup(&self, dimensions: &Dimensions) -> Dimensions {
        let mut lookup = dimensions.clone();
        if lookup.get(BILL_TO).is_none() {
            lookup.set(BILL_TO, self.header.bill_to.clone());
        }
        lookup
    }

    /// A meter as this bill knows it, with the number of its version.
    pub(super) fn meter<'b>(&self, batch: &'b Batch, meter_id: i32) -> Result<(usize, &'b Meter), Fault> {
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
    pub(super) fn inputs(&self, batch: &Batch) -> Result<Inputs, Fault> {
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
            commitments: self.commitments.clone(),
            price_ends: prices.iter().filter_map(|(name, end)| Some((name.clone(), (*end)?))).collect(),
            prices: prices.into_keys().collect(),
            later_prices: later.into_iter().collect(),
            meters: meters.into_iter().collect(),
            amounts_off: self.amounts_off(batch)?,
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
            .pieces(item)
            .iter()
            .map(|piece| self.service_period(piece, batch))
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
                    period.segments = self.segments(period, item, &charge.key, meter, &terms);
                }
                (&charge.key, ChargeKind::Usage(Box::new(terms)))
            }
        };
        let bounded = item.during.from.is_some() || item.during.until.is_some();
        Ok(Charge {
            key: key.clone(),
            product: item.product.clone(),
            every: item.every,
            periods,
            kind,
            bounded,
        })
    }

    fn service_period(&self, piece: &Piece, batch: &Batch) -> Result<ServicePeriod, Fault> {
        let days = piece.days;
        let midnight = |day: NaiveDate| {
            let found = batch.midnights.get(&(self.zone.clone(), day)).copied();
            found.ok_or_else(|| {
                Fault::new(Code::State, format!("the midnight of {day} in {} was not given", self.zone))
            })
        };
        let end = |day: NaiveDate| self.fixed.get(&day).copied().map_or_else(|| midnight(day), Ok);
        let from = piece.from.map_or_else(|| end(days.starts_on), Ok)?;
        let until = piece.until.map_or_else(|| end(days.ends_on), Ok)?;
        let (whole_from, whole_until) = (midnight(days.whole_starts_on)?, midnight(days.whole_ends_on)?);
        let elapsed = Elapsed { part_micros: until.0 - from.0, whole_micros: whole_until.0 - whole_from.0 };
        Ok(ServicePeriod { from, until, days, elapsed, segments: Vec::new(), cut: piece.cut.clone() })
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
        item: &Item,
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
        let mut counted = BTreeSet::new();
        if meter.aggregation.adds_up_in_time {
            let inside = |at: &Instant| *at > period.from && *at < period.until;
            starts.extend(self.percent_edges(item).into_iter().map(|edge| edge.at).filter(inside));
            let windows = self.commitments.iter().flat_map(|row| row.cuts(&item.product, &meter.key));
            counted.extend(windows.filter(inside));
            starts.extend(counted.iter().copied());
        }
        let starts: Vec<Instant> = starts.into_iter().collect();
        let segment = |(at, from): (usize, &Instant)| Segment {
            from: *from,
            until: starts.get(at + 1).copied().unwrap_or(period.until),
            price_at: if one_price { period.price_at() } else { *from },
            counts_anew: counted.contains(from),
            off: self.percents(item, period.days.starts_on, Some(*from)),
            usage: Vec::new(),
        };
        starts.iter().enumerate().map(segment).collect()
    }

    /// The day of the last boundary that is billed, where earlier ones may be compared.
    pub(super) fn boundary_on(&self) -> Option<NaiveDate> {
        self.calendar.boundary(u32::try_from(*self.boundaries.last()?).ok()?)
    }

    /// What changed terms make of service that begins later is not due on this bill, unless it is the last one.
    pub(super) fn due_until(&self, midnights: &HashMap<(String, NaiveDate), Instant>) -> Option<Due> {
        if self.boundaries.is_empty() {
            return self.usage_until.map(|until| Due { until, said: true });
        }
        let last = u32::try_from(*self.boundaries.last()?).ok()?;
        self.calendar.period(last)?;
        let day = self.boundary_on()?;
        let until = self.fixed.get(&day).or_else(|| midnights.get(&(self.zone.clone(), day)))?;
        Some(Due { until: *until, said: false })
    }

    /// Whether credit or commitments have to do with it.
    pub(super) fn settles(&self) -> bool {
        self.purse.is_some() || !self.commitments.is_empty()
    }

    /// What falls due of its commitments.
    pub(super) fn dues(&self) -> Result<Vec<Owed>, Fault> {
        let rounding = RoundingMode::parse(self.policy("rounding_mode"))?;
        commitments::dues(&self.commitments, &self.calendar, &self.boundaries, (self.minor_units, rounding))
    }

    /// The days whose midnights that needs; what is wrong with them is said when they are billed.
    pub(super) fn due_days(&self) -> Vec<NaiveDate> {
        let days = self.dues().and_then(|dues| commitments::days(&self.commitments, &dues));
        let found = std::cell::RefCell::new(days.unwrap_or_default());
        let promised = self.promised(&|day| {
            found.borrow_mut().push(day);
            Ok(Instant(0))
        });
        drop(promised);
        found.into_inner()
    }

    /// The periods of postpaid commitments that its usage may fill, where what goes beyond one has prices of its own.
    pub(super) fn promised(
        &self,
        at: &impl Fn(NaiveDate) -> Result<Instant, Fault>,
    ) -> Result<Vec<Promised>, Fault> {
        let mut found = Vec::new();
        if self.commitments.iter().any(Commitment::has_ceiling) {
            for boundary in &self.boundaries {
                let ends = [boundary - 1, *boundary].map(|n| self.calendar.boundary(u32::try_from(n).ok()?));
                if let [Some(from), Some(until)] = ends {
                    found.extend(commitments::periods(&self.commitments, (from, until), at)?);
                }
            }
        }
        Ok(found)
    }

    /// The rows of its commitments.
    pub(super) fn commitments(&self) -> &[Commitment] {
        &self.commitments
    }

    /// Its lines by themselves: before credit, true-ups, and what stands on other documents.
    pub(super) fn rated(&mut self, midnights: &Midnights) -> Result<Rated, Fault> {
        let mut inputs = self
            .inputs
            .take()
            .ok_or_else(|| Fault::new(Code::State, "the usage of the bill was not asked for"))?;
        // Usage arrives in any order; the digest and the lines know one.
        for segment in inputs.charges.iter_mut().flat_map(|c| &mut c.periods).flat_map(|p| &mut p.segments) {
            segment.usage.sort_by(|a, b| a.dimensions.cmp(&b.dimensions));
        }
        let (of_charges, unpriced) = lines(&inputs)?;
        let dues = self.dues()?;
        let midnight = |day| self.midnight(midnights, day);
        let mut lines =
            commitments::instalment_lines(&inputs.commitments, &dues, &inputs.header.bill_to, midnight)?;
        lines.extend(of_charges);
        Ok(Rated { inputs, lines, unpriced, dues })
    }

    pub(super) fn midnight(&self, midnights: &Midnights, day: NaiveDate) -> Result<Instant, Fault> {
        let known = || midnights.get(&(self.zone.clone(), day)).copied();
        self.fixed.get(&day).copied().or_else(known).ok_or_else(|| {
            Fault::new(Code::State, format!("the midnight of {day} in {} was not given", self.zone))
        })
    }
}

fn next_day(day: NaiveDate) -> NaiveDate {
    day.succ_opt().unwrap_or(day)
}

impl Edge {
    /// `[local day, instant, whether it is inside the day]`.
    fn read(node: &Node) -> Result<Edge, Fault> {
        let [on, at, inside] = &node.items()?[..] else {
            return Err(node.fault("must be a day, an instant, and whether that is inside the day"));
        };
        Ok(Edge { on: on.date()?, at: at.instant()?, inside: inside.boolean()? })
    }
}

impl Stretch {
    /// Whether it holds at an instant; none = the midnight of the day.
    fn holds(&self, on: NaiveDate, at: Option<Instant>) -> bool {
        let begun = |edge: Edge| match at {
            Some(at) => edge.at <= at,
            None => edge.on < on || edge.on == on && !edge.inside,
        };
        self.from.is_none_or(begun) && !self.until.is_some_and(begun)
    }

    fn touches(&self, from: NaiveDate, until: NaiveDate) -> bool {
        self.from.is_none_or(|edge| edge.on < until)
            && self.until.is_none_or(|edge| edge.on > from || edge.on == from && edge.inside)
    }

    /// The part of a billing period in which it holds.
    fn of(&self, mut days: Period) -> Option<Piece> {
        if !self.touches(days.starts_on, days.ends_on) {
            return None;
        }
        let begins =
            self.from.filter(|edge| edge.on > days.starts_on || edge.on == days.starts_on && edge.inside);
        let ends = self.until.filter(|edge| edge.on < days.ends_on);
        days.starts_on = begins.map_or(days.starts_on, |edge| edge.on);
        days.ends_on = ends.map_or(days.ends_on, |edge| edge.on);
        let inside_day = begins.into_iter().chain(ends).any(|edge| edge.inside);
        let cut = Cut { inside_day, ..Cut::default() };
        Some(Piece { days, from: begins.map(|edge| edge.at), until: ends.map(|edge| edge.at), cut })
    }

    /// Reads `from` and `until`.
    fn read(fields: &mut Fields) -> Result<Stretch, Fault> {
        let mut edge = |name: &str| fields.optional(name).map(|node| Edge::read(&node)).transpose();
        Ok(Stretch { from: edge("from")?, until: edge("until")? })
    }
}

impl Piece {
    /// Whether something begins or ends inside it.
    fn holds(&self, edge: &Edge) -> bool {
        let after = edge.on > self.days.starts_on
            || edge.on == self.days.starts_on && edge.inside && self.from.is_none_or(|from| edge.at > from);
        let before = edge.on < self.days.ends_on
            || edge.on == self.days.ends_on && self.until.is_some_and(|until| edge.at < until);
        after && before
    }
}

impl Discount {
    fn read(node: &Node) -> Result<Discount, Fault> {
        let mut fields = node.fields()?;
        let during = Stretch::read(&mut fields)?;
        let terms = fields.required("terms")?;
        let mut terms = terms.fields()?;
        let texts = |node: Node| {
            node.items()?.iter().map(|n| n.text().map(str::to_string)).collect::<Result<Vec<_>, Fault>>()
        };
        let mut list = |name: &str| terms.optional(name).map_or(Ok(Vec::new()), texts);
        let scope = Scope { charges: list("charges")?, products: list("products")? };
        let off = match terms.optional("percent_off") {
            Some(percent) => Off::Percent(percent.decimal()?),
            None => Off::Amount(terms.required("amount_off")?.decimal()?),
        };
        Ok(Discount { key: terms.required("key")?.text()?.to_string(), off, scope, during })
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
        let during = Stretch::read(&mut fields)?;
        let terms = fields.required("terms")?;
        let terms = match fields.optional("meter_id") {
            None => ItemTerms::Fee(Box::new(Fee::read(&terms)?)),
            Some(meter_id) => ItemTerms::Usage {
                charge: Box::new(UsageCharge::read_terms(&terms)?),
                meter_id: i32::try_from(meter_id.integer()?)
                    .map_err(|_| meter_id.fault("is no meter's id"))?,
                book_id: fields.optional("book_id").map(|n| uuid(&n)).transpose()?,
            },
        };
        Ok(Item { product, every, during, terms })
    }

    fn key(&self) -> &str {
        match &self.terms {
            ItemTerms::Fee(fee) => &fee.key,
            ItemTerms::Usage { charge, .. } => &charge.key,
        }
    }

    /// Usage is billed once it has happened.
    fn timing(&self) -> Timing {
        match &self.terms {
            ItemTerms::Fee(fee) => fee.timing,
            ItemTerms::Usage { .. } => Timing::Arrears,
        }
    }

    fn is_once(&self) -> bool {
        matches!(&self.terms, ItemTerms::Fee(fee) if fee.once)
    }

    pub(super) fn price_key(&self) -> Option<PriceKey> {
        match &self.terms {
            ItemTerms::Usage { charge, book_id: Some(book_id), .. } => match &charge.source {
                PriceSource::Book(key) => Some((*book_id, key.clone())),
                PriceSource::Own(_) => None,
            },
            _ => None,
        }
    }
}
