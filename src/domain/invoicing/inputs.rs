//! What one bill is computed from: a contract's charges with prices and quantities for one boundary.

use super::commitments::Commitment;
use crate::domain::contracts::overrides::{Change, Target};
use crate::domain::contracts::resolve::{Agreed, ListPrice, Prices};
use crate::domain::foundation::calendar::{Interval, Period};
use crate::domain::foundation::hash::sha256_hex;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::proration::{Elapsed, ProrationBasis, share};
use crate::domain::foundation::{Exact, Ratio, RoundingLevel, RoundingMode};
use crate::domain::metering::{Dimensions, Measure};
use crate::domain::rating::{Pricing, TierContinuity};
use chrono::{NaiveDate, NaiveTime};
use std::fmt::Write;

#[derive(Debug, Clone)]
pub struct Inputs {
    pub header: Header,
    pub minor_units: u32,
    pub rounding_mode: RoundingMode,
    pub rounding_level: RoundingLevel,
    pub proration_basis: ProrationBasis,
    /// None on what was billed before there was such a policy.
    pub tier_continuity: Option<TierContinuity>,
    /// Whether usage without a price is left out rather than a fault.
    pub bills_unpriced: bool,
    /// Policies in force, name and value, as the document records them.
    pub policies: Vec<(String, String)>,
    pub charges: Vec<Charge>,
    /// Overrides of both scopes; each charge takes those that target it.
    pub agreed: Vec<Agreed>,
    /// Rows of commitments, in order of their priority, key and time.
    pub commitments: Vec<Commitment>,
    /// Price versions in play, `book/key@version`, as the document records them.
    pub prices: Vec<String>,
    /// Meters that are not in their first version, `key@version`.
    pub meters: Vec<String>,
    /// Where one of them ends inside the bill's periods and no other follows.
    pub price_ends: Vec<(String, Instant)>,
    /// Versions that price what those don't, with their ends: of a bill that is compared.
    pub later_prices: Vec<(String, Option<Instant>)>,
    /// Amounts off, spread over the lines of a billing period.
    pub amounts_off: Vec<AmountOff>,
}

/// A discount of a percentage, where it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct PercentOff {
    pub key: String,
    pub percent: Exact,
}

/// A discount of an amount, for one billing period.
#[derive(Debug, Clone)]
pub struct AmountOff {
    pub key: String,
    pub scope: Scope,
    /// For a part of the period its share, as a fee.
    pub amount: Ratio,
    /// It is spread over the lines in scope whose service touches this time.
    pub from: Instant,
    pub until: Instant,
}

/// What a discount is for.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    pub charges: Vec<String>,
    pub products: Vec<String>,
}

impl Scope {
    /// Nothing named is everything.
    pub fn holds(&self, charge: &str, product: &str) -> bool {
        self.charges.is_empty() && self.products.is_empty()
            || self.charges.iter().any(|key| key == charge)
            || self.products.iter().any(|key| key == product)
    }
}

/// Whose bill it is.
#[derive(Debug, Clone)]
pub struct Header {
    pub contract: String,
    pub customer: String,
    pub seller: String,
    pub currency: String,
    /// The legal entity that gets what names none.
    pub bill_to: String,
    /// The customer's order in force at the boundary.
    pub purchase_order: Option<String>,
    pub contract_version: i64,
    pub terms_version: i64,
}

#[derive(Debug, Clone)]
pub struct Charge {
    pub key: String,
    pub product: String,
    pub every: Interval,
    pub periods: Vec<ServicePeriod>,
    pub kind: ChargeKind,
    /// Whether the contract says this for a part of its time only: where that is over, it is no input.
    pub bounded: bool,
}

#[derive(Debug, Clone)]
pub enum ChargeKind {
    Usage(Box<UsageTerms>),
    Fee { pricing: Box<Pricing>, quantity: Exact, proration: Option<ProrationBasis> },
}

#[derive(Debug, Clone)]
pub struct UsageTerms {
    pub meter: String,
    pub aggregation: Measure,
    pub unit: Option<String>,
    pub matches: Dimensions,
    pub lines_by: Vec<String>,
    /// The meter's dimensions in order of priority.
    pub dimensions: Vec<String>,
    pub prorate_units: bool,
    pub list: Vec<ListPrice>,
    /// Names of the list's versions, `book/key@version`, in its order; empty for the charge's own pricing.
    pub list_names: Vec<String>,
    /// Versions published since the bill, for what it left out: they price what no version of the list does.
    pub later: Vec<ListPrice>,
    pub later_names: Vec<String>,
}

/// One service period of a charge.
#[derive(Debug, Clone)]
pub struct ServicePeriod {
    pub from: Instant,
    pub until: Instant,
    /// Local dates, with the whole period this one is part of.
    pub days: Period,
    pub elapsed: Elapsed,
    /// Stretches inside which no price changes, in order. None for fees.
    pub segments: Vec<Segment>,
    pub cut: Cut,
}

/// What a change of terms makes of a service period; nothing where the terms hold for all of it.
#[derive(Debug, Clone, Default)]
pub struct Cut {
    /// The first day of the whole period, where the terms begin inside it.
    pub begins_in: Option<NaiveDate>,
    /// Whether it begins or ends inside a local day, so that days don't say its length.
    pub inside_day: bool,
    /// A trial: metered, and costs nothing.
    pub free: bool,
    /// Of a fee that other terms have billed whole (proration basis none).
    pub paid: bool,
    /// Of a fee that begins inside a whole period, and ends with the others: by months.
    pub by_month: bool,
    /// Of a fee: the percentages off, in order.
    pub off: Vec<PercentOff>,
    /// Billed at another boundary: here only to see what amounts off its lines take.
    pub elsewhere: bool,
}

#[derive(Debug, Clone)]
pub struct Segment {
    pub from: Instant,
    pub until: Instant,
    /// The instant whose prices hold.
    pub price_at: Instant,
    /// Whether a commitment begins or ends to count usage where it begins: a line is counted as a whole.
    pub counts_anew: bool,
    /// The percentages off, in order.
    pub off: Vec<PercentOff>,
    pub usage: Vec<Usage>,
}

#[derive(Debug, Clone)]
pub struct Usage {
    /// `bill_to` is one of them where the events named it.
    pub dimensions: Dimensions,
    pub quantity: Exact,
    pub events: u64,
    /// Amounts of the single events in (occurred_at, event_key) order, where the price needs them.
    pub amounts: Option<Vec<Exact>>,
    /// The places of these events among all of the segment.
    pub places: Vec<u32>,
}

impl Inputs {
    /// Everything that can price one usage charge.
    pub fn prices(&self, charge: &str, terms: &UsageTerms) -> Prices {
        let mine = |agreed: &&Agreed| match &agreed.target {
            Target::Charge(key) => key == charge,
            Target::Meter(key) => *key == terms.meter,
        };
        Prices {
            list: terms.list.clone(),
            later: terms.later.clone(),
            agreed: self.agreed.iter().filter(mine).cloned().collect(),
            priority: terms.dimensions.clone(),
        }
    }
}

impl Inputs {
    /// The unit that usage of a meter is counted in.
    pub fn unit_of(&self, meter: &str) -> String {
        let of_charge = |charge: &Charge| match &charge.kind {
            ChargeKind::Usage(terms) if terms.meter == meter => terms.unit.clone(),
            _ => None,
        };
        self.charges.iter().find_map(of_charge).unwrap_or_else(|| meter.to_string())
    }

    /// Policy `credit_on_decrease`: whether what was billed in advance stays billed where a fee becomes less.
    pub fn keeps_decreases(policies: &[(String, String)]) -> bool {
        policies.iter().any(|(name, value)| name == "credit_on_decrease" && value == "none")
    }

    /// Policy `minimum_basis`: whether minimums are held against lines without their discounts.
    pub fn minimum_before_discount(&self) -> bool {
        self.policies.iter().any(|(name, value)| name == "minimum_basis" && value == "before_discount")
    }
}

impl ServicePeriod {
    /// The local day that names the period in line keys.
    pub fn day(&self) -> NaiveDate {
        self.cut.begins_in.unwrap_or(self.days.starts_on)
    }

    /// The share of a whole period that it is.
    pub fn share(&self, every: Interval, basis: ProrationBasis) -> Ratio {
        match basis {
            ProrationBasis::Second if self.cut.inside_day => {
                Ratio::new(self.elapsed.part_micros.into(), self.elapsed.whole_micros.into())
            }
            _ => share(&self.days, every, basis, self.elapsed),
        }
    }

    /// The instant whose prices hold for what runs over the whole period: its start, but a price valid from
    /// 00:00 UTC of its first day counts as valid from its start, so that one instant suits all time zones.
    pub fn price_at(&self) -> Instant {
        let utc_midnight = Instant(self.days.starts_on.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
        if utc_midnight < self.until { self.from.max(utc_midnight) } else { self.from }
    }

    /// The segment in which that instant is.
    pub fn first_segment(&self) -> usize {
        let begins = self.price_at();
        self.segments.iter().rposition(|segment| segment.from <= begins).unwrap_or(0)
    }

    /// The first segment from 00:00 UTC of the next period's first day on, where that is before this one's end, as it is
    /// west of UTC; else behind the last.
    pub fn next_segment(&self) -> usize {
        let next = Instant(self.days.ends_on.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
        self.segments.partition_point(|segment| segment.from < next)
    }
}

// ── the digest ───────────────────────────────────────────────────────────────────────────────────

impl Inputs {
    /// SHA-256 of everything the bill is computed from. The text behind it is this function: one line a fact,
    /// texts quoted, in the order of the inputs. It is stored on invoices, so it never changes for them.
    pub fn sha256(&self) -> String {
        let mut text = String::with_capacity(2048);
        self.describe(&mut text).expect("writing to a string can't fail");
        sha256_hex(text.as_bytes())
    }

    fn describe(&self, out: &mut String) -> std::fmt::Result {
        let h = &self.header;
        writeln!(
            out,
            "bill 1 {:?} {:?} {:?} {:?} {:?} {} {} {}",
            h.contract,
            h.customer,
            h.seller,
            h.currency,
            h.bill_to,
            h.contract_version,
            h.terms_version,
            self.minor_units
        )?;
        for (name, value) in &self.policies {
            writeln!(out, "policy {name:?} {value:?}")?;
        }
        for price in &self.prices {
            writeln!(out, "price {price:?}")?;
        }
        for (price, end) in &self.later_prices {
            writeln!(out, "later {price:?} {}", span(None, *end))?;
        }
        for meter in &self.meters {
            writeln!(out, "meter {meter:?}")?;
        }
        for agreed in &self.agreed {
            describe_agreed(agreed, out)?;
        }
        self.commitments.iter().try_for_each(|commitment| commitment.describe(out))?;
        for off in &self.amounts_off {
            let AmountOff { key, scope: Scope { charges, products }, amount, from, until } = off;
            writeln!(
                out,
                "off {key:?} amount {} {charges:?} {products:?} {} {}",
                amount.shown(),
                from.0,
                until.0
            )?;
        }
        // Bills of before there was tier_continuity never asked for the order of events over lines, and never said it.
        let with_places = self.tier_continuity.is_some();
        let said = self.charges.iter().filter(|charge| !(charge.bounded && charge.periods.is_empty()));
        said.into_iter().try_for_each(|charge| charge.describe(with_places, out))
    }
}

fn span(from: Option<Instant>, until: Option<Instant>) -> String {
    let end = |at: Option<Instant>| at.map_or("-".to_string(), |at| at.0.to_string());
    format!("{} {}", end(from), end(until))
}

fn describe_agreed(agreed: &Agreed, out: &mut String) -> std::fmt::Result {
    let (kind, target) = match &agreed.target {
        Target::Meter(key) => ("meter", key),
        Target::Charge(key) => ("charge", key),
    };
    let change = match &agreed.change {
        Change::UnitPrice(price) => format!("unit_price {price}"),
        Change::PercentOff(percent) => format!("percent_off {percent} {}", agreed.stackable),
        Change::Pricing(pricing) => pricing.canonical(),
    };
    let (source, span) = (agreed.scope.source(), span(agreed.from, agreed.until));
    writeln!(out, "{source} {kind} {target:?} {} {span} {change}", agreed.matches.canonical())
}

impl Charge {
    fn describe(&self, with_places: bool, out: &mut String) -> std::fmt::Result {
        writeln!(out, "charge {:?} {:?} {}", self.key, self.product, self.every)?;
        match &self.kind {
            ChargeKind::Fee { pricing, quantity, proration } => {
                let proration = proration.map_or("-", |basis| basis.as_str());
                writeln!(out, "fee {quantity} {proration} {}", pricing.canonical())?;
            }
            ChargeKind::Usage(terms) => {
                writeln!(
                    out,
                    "usage {:?} {} {:?} {} {:?} {:?} {}",
                    terms.meter,
                    terms.aggregation.word(),
                    terms.unit,
                    terms.matches.canonical(),
                    terms.lines_by,
                    terms.dimensions,
                    terms.prorate_units
                )?;
                for list in &terms.list {
                    writeln!(out, "list {:?} {} {}", list.label, span(list.from, list.until), list.sha256)?;
                }
            }
        }
        self.periods.iter().try_for_each(|period| period.describe(with_places, out))
    }
}

impl ServicePeriod {
    fn describe(&self, with_places: bool, out: &mut String) -> std::fmt::Result {
        let (d, e) = (&self.days, &self.elapsed);
        writeln!(
            out,
            "period {} {} {} {} {} {} {} {}",
            d.starts_on,
            d.ends_on,
            d.whole_starts_on,
            d.whole_ends_on,
            self.from.0,
            self.until.0,
            e.part_micros,
            e.whole_micros
        )?;
        self.cut.describe(out)?;
        for segment in &self.segments {
            writeln!(out, "segment {} {} {}", segment.from.0, segment.until.0, segment.price_at.0)?;
            if segment.counts_anew {
                writeln!(out, "counts anew")?;
            }
            describe_off(&segment.off, out)?;
            for usage in &segment.usage {
                writeln!(
                    out,
                    "used {} {} {} {:?}",
                    usage.dimensions.canonical(),
                    usage.quantity,
                    usage.events,
                    usage.amounts
                )?;
                // Of one line the order of its amounts says it.
                if with_places && segment.usage.len() > 1 && !usage.places.is_empty() {
                    writeln!(out, "places {:?}", usage.places)?;
                }
            }
        }
        Ok(())
    }
}

fn describe_off(off: &[PercentOff], out: &mut String) -> std::fmt::Result {
    off.iter().try_for_each(|PercentOff { key, percent }| writeln!(out, "off {key:?} {percent}"))
}

impl Cut {
    fn describe(&self, out: &mut String) -> std::fmt::Result {
        if let Some(day) = self.begins_in {
            writeln!(out, "begins in {day}")?;
        }
        let facts = [
            (self.inside_day, "inside a day"),
            (self.free, "free"),
            (self.paid, "paid"),
            (self.by_month, "by month"),
            (self.elsewhere, "elsewhere"),
        ];
        facts.into_iter().filter(|(holds, _)| *holds).try_for_each(|(_, fact)| writeln!(out, "{fact}"))?;
        describe_off(&self.off, out)
    }
}
