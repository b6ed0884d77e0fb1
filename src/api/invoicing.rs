//! Invoicing: a batch of bills between its statements, documents to text.
//!
//! The batch lives in this backend's memory under a handle; `billing_internal.bill_batch()` in
//! sql/ext/80_invoicing.sql shows the whole order.

use super::metering::read_meter;
use crate::domain::foundation::json::{self, DOCUMENT_DEPTH_MAX, Node, Tree};
use crate::domain::foundation::{Exact, Fault, instant};
use crate::domain::invoicing::batch::{Batch, Meter, Opened, Pending, Slot, UsageRow, Version};
use crate::domain::invoicing::document::{Document, Documents, Issue};
use crate::domain::invoicing::explain::explain;
use crate::domain::invoicing::purse::Credit;
use crate::domain::metering::Dimensions;
use crate::domain::rating::Pricing;
use crate::pg::instant::{from_date, from_timestamptz, to_date, to_timestamptz};
use crate::pg::{FaultJson, Numeric};
use pgrx::datum::{Array, Date, TimestampWithTimeZone, Uuid};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Batches kept at most: one is in flight, the others were left behind by errors.
const BATCHES_MAX: usize = 4;

thread_local! {
    static BATCHES: RefCell<BTreeMap<i64, Batch>> = const { RefCell::new(BTreeMap::new()) };
}

/// Takes the batch out while it is worked on, so that an error never leaves it half done.
fn with_batch<T>(handle: i64, work: impl FnOnce(&mut Batch) -> Result<T, Fault>) -> T {
    let Some(mut batch) = BATCHES.with_borrow_mut(|batches| batches.remove(&handle)) else {
        error!("bill batch {handle} is not open");
    };
    match work(&mut batch) {
        Ok(value) => {
            BATCHES.with_borrow_mut(|batches| batches.insert(handle, batch));
            value
        }
        Err(fault) => error!("bill batch {handle}: {fault}"),
    }
}

fn timestamp(at: instant::Instant) -> Result<TimestampWithTimeZone, Fault> {
    to_timestamptz(at).ok_or_else(|| Fault::value("a period is outside the range of timestamptz"))
}

fn instant_of(at: TimestampWithTimeZone) -> Result<instant::Instant, Fault> {
    from_timestamptz(at).ok_or_else(|| Fault::value("an instant is infinite"))
}

fn pg_uuid(id: uuid::Uuid) -> Uuid {
    Uuid::from_bytes(id.into_bytes())
}

fn domain_uuid(id: Uuid) -> uuid::Uuid {
    uuid::Uuid::from_bytes(*id.as_bytes())
}

/// Columns of one length, or an error.
fn same_length(lengths: &[usize]) -> Result<(), Fault> {
    match lengths.windows(2).all(|pair| pair[0] == pair[1]) {
        true => Ok(()),
        false => Err(Fault::value("the columns have different lengths")),
    }
}

/// Opens a batch of bills: contracts as JSON; who they are, whether only to be compared, and what stands beside.
#[pg_extern(sql = false)]
fn bill_open<'a>(
    customer_ids: Vec<i64>,
    contract_ids: Vec<Uuid>,
    contracts: Array<'a, &'a str>,
    earlier: Vec<bool>,
    standing: Array<'a, &'a str>,
) -> i64 {
    let lengths = [customer_ids.len(), contract_ids.len(), contracts.len(), earlier.len(), standing.len()];
    if let Err(fault) = same_length(&lengths) {
        error!("{fault}");
    }
    let ids = customer_ids.into_iter().zip(contract_ids.into_iter().map(domain_uuid));
    let texts = contracts.iter().zip(earlier).zip(standing.iter());
    let batch =
        Batch::open(ids.zip(texts).map(|((customer_id, contract_id), ((text, earlier), standing))| Opened {
            customer_id,
            contract_id,
            contract: text.unwrap_or(""),
            earlier,
            standing,
        }));
    BATCHES.with_borrow_mut(|batches| {
        let handle = batches.last_key_value().map_or(1, |(last, _)| last + 1);
        batches.insert(handle, batch);
        while batches.len() > BATCHES_MAX {
            batches.pop_first();
        }
        handle
    })
}

/// The batch is not to be issued: it only says what usage would draw now, by kept totals of periods or as bills do it.
#[pg_extern(sql = false)]
fn bill_pending(handle: i64, by_period: bool) {
    with_batch(handle, |batch| {
        batch.only_pending(if by_period { Pending::ByPeriod } else { Pending::ByHour });
        Ok(())
    });
}

#[pg_extern(sql = false)]
fn bill_meter_ids(handle: i64) -> SetOfIterator<'static, i32> {
    SetOfIterator::new(with_batch(handle, |batch| Ok(batch.meter_ids())))
}

/// One meter, by its canonical document.
#[pg_extern(sql = false)]
fn bill_add_meter(handle: i64, meter_id: i32, definition: &str) {
    with_batch(handle, |batch| {
        batch.add_meter(meter_id, Meter::from(&read_meter(definition)?));
        Ok(())
    });
}

#[pg_extern(sql = false)]
fn bill_price_keys(handle: i64) -> TableIterator<'static, (name!(book_id, Uuid), name!(key, String))> {
    let keys = with_batch(handle, |batch| Ok(batch.price_keys()));
    TableIterator::new(keys.into_iter().map(|(book, key)| (pg_uuid(book), key)))
}

/// One version of a price, in order; its pricing comes with its rows if there are at most 64.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn bill_add_version(
    handle: i64,
    book_id: Uuid,
    key: String,
    price_id: Uuid,
    name: String,
    label: String,
    from: Option<TimestampWithTimeZone>,
    until: Option<TimestampWithTimeZone>,
    pricing: &str,
    sha256: &str,
    needs_events: bool,
    row_count: i64,
) {
    with_batch(handle, |batch| {
        let pricing = json::parse_nested(pricing, DOCUMENT_DEPTH_MAX, &name)?;
        let version = Version {
            price_id: domain_uuid(price_id),
            name,
            label,
            from: from.map(instant_of).transpose()?,
            until: until.map(instant_of).transpose()?,
            pricing: Arc::new(Pricing::read_header(&Node::root(&pricing))?),
            sha256: sha256.into(),
            needs_events,
            row_count,
        };
        batch.add_version((domain_uuid(book_id), key), version);
        Ok(())
    });
}

#[pg_extern(sql = false)]
fn bill_days(handle: i64) -> TableIterator<'static, (name!(zone, String), name!(day, Date))> {
    let days = with_batch(handle, |batch| Ok(batch.days()));
    TableIterator::new(days.into_iter().map(|(zone, day)| (zone, to_date(day))))
}

#[pg_extern(sql = false)]
fn bill_add_midnight(handle: i64, zone: String, day: Date, at: TimestampWithTimeZone) {
    with_batch(handle, |batch| {
        let day = from_date(day).ok_or_else(|| Fault::value("a day is infinite"))?;
        batch.add_midnight(zone, day, instant_of(at)?);
        Ok(())
    });
}

/// The stretches of time whose usage is needed.
#[pg_extern(sql = false)]
fn bill_stretches(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(n, i32),
        name!(customer_id, i64),
        name!(meter_id, i32),
        name!(from_at, TimestampWithTimeZone),
        name!(until_at, TimestampWithTimeZone),
        name!(source, &'static str),
        name!(recorded_until, Option<TimestampWithTimeZone>),
        name!(meter_version, Option<i32>),
        name!(known_meters, Option<String>),
        name!(matches, String),
        name!(dropped, Vec<String>),
        name!(bill_to, String),
    ),
> {
    let rows = with_batch(handle, |batch| {
        let stretches = batch.stretches().into_iter().enumerate();
        stretches
            .map(|(n, s)| {
                let recorded_until = s.recorded_until.map(timestamp).transpose()?;
                let (from, until) = (timestamp(s.from)?, timestamp(s.until)?);
                let matches = s.matches.canonical();
                Ok((
                    n as i32,
                    s.customer_id,
                    s.meter_id,
                    from,
                    until,
                    s.source.as_str(),
                    recorded_until,
                    s.meter_version.map(|version| version as i32),
                    s.known_meters,
                    matches,
                    s.dropped,
                    s.bill_to,
                ))
            })
            .collect::<Result<Vec<_>, Fault>>()
    });
    TableIterator::new(rows)
}

/// The stretches of time whose usage is needed by hour.
#[pg_extern(sql = false)]
fn bill_hours(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(n, i32),
        name!(customer_id, i64),
        name!(meter_id, i32),
        name!(from_at, TimestampWithTimeZone),
        name!(until_at, TimestampWithTimeZone),
        name!(recorded_until, Option<TimestampWithTimeZone>),
        name!(meter_version, Option<i32>),
        name!(matches, String),
        name!(dropped, Vec<String>),
        name!(bill_to, String),
    ),
> {
    let rows = with_batch(handle, |batch| {
        let stretches = batch.hour_stretches().into_iter().enumerate();
        stretches
            .map(|(n, s)| {
                Ok((
                    n as i32,
                    s.customer_id,
                    s.meter_id,
                    timestamp(s.from)?,
                    timestamp(s.until)?,
                    s.recorded_until.map(timestamp).transpose()?,
                    s.meter_version.map(|version| version as i32),
                    s.matches.canonical(),
                    s.dropped,
                    s.bill_to,
                ))
            })
            .collect::<Result<Vec<_>, Fault>>()
    });
    TableIterator::new(rows)
}

/// Usage by hour: columns of equal length.
#[pg_extern(sql = false)]
fn bill_add_hours<'a>(
    handle: i64,
    stretches: Vec<i32>,
    at: Vec<TimestampWithTimeZone>,
    dimensions: Array<'a, &'a str>,
    quantities: Vec<Numeric>,
) {
    with_batch(handle, |batch| {
        same_length(&[stretches.len(), at.len(), dimensions.len(), quantities.len()])?;
        let places = stretches.into_iter().zip(at).zip(dimensions.iter());
        for (((stretch, at), dimensions), quantity) in places.zip(quantities) {
            let stretch =
                usize::try_from(stretch).map_err(|_| Fault::value("a stretch's number is negative"))?;
            let tree = json::parse_nested(dimensions.unwrap_or("{}"), DOCUMENT_DEPTH_MAX, "dimensions")?;
            let dimensions = Dimensions::read(&Node::root(&tree))?;
            match quantity.value {
                Ok(quantity) => batch.add_hour(stretch, instant_of(at)?, dimensions, quantity)?,
                Err(fault) => batch.refuse_hour(stretch, fault),
            }
        }
        Ok(())
    });
}

/// Usage of the stretches: columns of equal length; amounts are JSON arrays of [place, decimal in a string], or NULL.
#[pg_extern(sql = false)]
fn bill_add_usage<'a>(
    handle: i64,
    stretches: Vec<i32>,
    dimensions: Array<'a, &'a str>,
    events: Vec<i64>,
    quantities: Vec<Numeric>,
    amounts: Array<'a, &'a str>,
) {
    with_batch(handle, |batch| {
        same_length(&[stretches.len(), dimensions.len(), events.len(), quantities.len(), amounts.len()])?;
        let texts = dimensions.iter().zip(amounts.iter());
        let numbers = stretches.into_iter().zip(events).zip(quantities);
        for ((dimensions, amounts), ((stretch, count), quantity)) in texts.zip(numbers) {
            let stretch =
                usize::try_from(stretch).map_err(|_| Fault::value("a stretch's number is negative"))?;
            let read = || {
                let events = amounts.map(single_events).transpose()?;
                let dimensions =
                    json::parse_nested(dimensions.unwrap_or("{}"), DOCUMENT_DEPTH_MAX, "dimensions")?;
                Ok::<_, Fault>(UsageRow {
                    stretch,
                    dimensions: Dimensions::read(&Node::root(&dimensions))?,
                    quantity: quantity.value?,
                    events: u64::try_from(count)
                        .map_err(|_| Fault::value("a number of events is negative"))?,
                    places: events.iter().flatten().map(|(place, _)| *place).collect(),
                    amounts: events.map(|events| events.into_iter().map(|(_, amount)| amount).collect()),
                })
            };
            match read() {
                Ok(row) => batch.add_usage(row)?,
                Err(fault) => batch.refuse_usage(stretch, fault),
            }
        }
        Ok(())
    });
}

/// `[[place, "amount"], …]`.
fn single_events(text: &str) -> Result<Vec<(u32, Exact)>, Fault> {
    let tree = json::parse_nested(text, DOCUMENT_DEPTH_MAX, "amounts")?;
    let event = |node: &Node| match &node.items()?[..] {
        [place, amount] => {
            let place = u32::try_from(place.integer()?).map_err(|_| place.fault("is not a place"))?;
            Ok((place, amount.decimal()?))
        }
        _ => Err(node.fault("must be a place and an amount")),
    };
    Node::root(&tree).items()?.iter().map(event).collect()
}

#[pg_extern(sql = false)]
fn bill_wanted_rows(handle: i64) -> TableIterator<'static, (name!(price_id, Uuid), name!(matches, String))> {
    let rows = with_batch(handle, |batch| Ok(batch.wanted_rows()));
    TableIterator::new(rows.into_iter().map(|(price_id, matches)| (pg_uuid(price_id), matches.canonical())))
}

/// The wanted rows there are: their price and the row as the document has it.
#[pg_extern(sql = false)]
fn bill_add_rows<'a>(handle: i64, price_ids: Vec<Uuid>, rows: Array<'a, &'a str>) {
    with_batch(handle, |batch| {
        same_length(&[price_ids.len(), rows.len()])?;
        let mut of_price: HashMap<uuid::Uuid, Vec<Tree<'static>>> = HashMap::new();
        for (price_id, row) in price_ids.into_iter().zip(rows.iter()) {
            let row = json::parse_nested(row.unwrap_or("{}"), DOCUMENT_DEPTH_MAX, "row")?.into_owned();
            of_price.entry(domain_uuid(price_id)).or_default().push(row);
        }
        batch.add_rows(&of_price)
    });
}

/// Computes the bills of which everything is known.
#[pg_extern(sql = false)]
fn bill_compute(handle: i64, with_empty: bool) {
    with_batch(handle, |batch| {
        batch.compute(with_empty);
        Ok(())
    });
}

/// What came of each bill: how many documents, or the fault that says why there are none.
#[pg_extern(sql = false)]
fn bill_outcomes(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(bill, i32),
        name!(customer_id, i64),
        name!(contract_id, Uuid),
        name!(boundary, Option<i32>),
        name!(next_ends_on, Option<Date>),
        name!(documents, Option<i32>),
        name!(fault, Option<String>),
        name!(left_out, Vec<i32>),
    ),
> {
    let row = |(at, slot): (usize, &Slot)| {
        (
            at as i32,
            slot.customer_id,
            pg_uuid(slot.contract_id),
            slot.boundary().map(|boundary| boundary as i32),
            slot.next_ends_on().map(to_date),
            slot.documents().map(|documents| documents.list.len() as i32),
            slot.fault().map(FaultJson::text),
            slot.documents()
                .map(|documents| documents.left_out(slot.boundary()))
                .unwrap_or_default()
                .into_iter()
                .map(|boundary| boundary as i32)
                .collect(),
        )
    };
    TableIterator::new(with_batch(handle, |batch| {
        Ok(batch
            .slots()
            .iter()
            .enumerate()
            .filter(|(_, slot)| !slot.is_earlier())
            .map(row)
            .collect::<Vec<_>>())
    }))
}

/// The documents of the computed bills; `place` counts them within a bill, the default legal entity first.
#[pg_extern(sql = false)]
fn bill_documents(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(bill, i32),
        name!(place, i32),
        name!(customer_id, i64),
        name!(contract_id, Uuid),
        name!(boundary, Option<i32>),
        name!(bill_to, String),
        name!(minor_units, i16),
        name!(contract_version, i32),
        name!(terms_version, i32),
        name!(starts_at, Option<TimestampWithTimeZone>),
        name!(ends_at, Option<TimestampWithTimeZone>),
        name!(total, Numeric),
        name!(credits, Numeric),
        name!(sha256, String),
        name!(corrects, Vec<i32>),
    ),
> {
    let rows = with_batch(handle, |batch| {
        each_document(batch)
            .map(|(bill, place, slot, documents, document)| {
                Ok((
                    bill,
                    place,
                    slot.customer_id,
                    pg_uuid(slot.contract_id),
                    slot.boundary().map(|boundary| boundary as i32),
                    document.bill_to.clone(),
                    documents.minor_units as i16,
                    documents.contract_version() as i32,
                    documents.terms_version() as i32,
                    document.lines.iter().map(|line| line.from).min().map(timestamp).transpose()?,
                    document.lines.iter().map(|line| line.until).max().map(timestamp).transpose()?,
                    Numeric::fixed(document.total, documents.minor_units),
                    Numeric::fixed(document.paid, documents.minor_units),
                    documents.sha256.clone(),
                    document.corrects().into_iter().map(|boundary| boundary as i32).collect(),
                ))
            })
            .collect::<Result<Vec<_>, Fault>>()
    });
    TableIterator::new(rows)
}

/// The lines of the documents, in order.
#[pg_extern(sql = false)]
fn bill_lines(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(bill, i32),
        name!(place, i32),
        name!(line_n, i32),
        name!(key, String),
        name!(kind, &'static str),
        name!(charge, String),
        name!(product, String),
        name!(meter, Option<String>),
        name!(label, String),
        name!(from_at, TimestampWithTimeZone),
        name!(until_at, TimestampWithTimeZone),
        name!(dimensions, String),
        name!(line_by, Vec<String>),
        name!(matches, String),
        name!(quantity, Option<Numeric>),
        name!(unit, Option<String>),
        name!(price, Option<String>),
        name!(pricing, Option<String>),
        name!(exact, Numeric),
        name!(amount, Numeric),
        name!(of_n, Option<i32>),
        name!(of_key, Option<String>),
        name!(of_kind, Option<&'static str>),
    ),
> {
    let rows = with_batch(handle, |batch| {
        let mut rows = Vec::new();
        for (bill, place, _, documents, document) in each_document(batch) {
            for (at, line) in document.lines.iter().enumerate() {
                let of = line.difference.as_ref();
                rows.push((
                    bill,
                    place,
                    at as i32 + 1,
                    line.key.clone(),
                    line.kind.as_str(),
                    line.charge.clone(),
                    line.product.clone(),
                    line.meter.clone(),
                    line.label.clone(),
                    timestamp(line.from)?,
                    timestamp(line.until)?,
                    line.dimensions.canonical(),
                    line.line_by.clone(),
                    line.matches.canonical(),
                    line.quantity.map(Numeric::from),
                    line.unit.clone(),
                    line.price.clone(),
                    line.pricing.as_ref().map(Pricing::canonical),
                    Numeric::shown(&line.exact),
                    Numeric::fixed(line.amount, documents.minor_units),
                    of.map(|difference| difference.boundary as i32),
                    of.map(|difference| difference.of.clone()),
                    of.map(|difference| difference.of_kind.as_str()),
                ));
            }
        }
        Ok(rows)
    });
    TableIterator::new(rows)
}

/// Every document of a computed batch: its bill's number, its place in it, and both.
fn each_document(batch: &Batch) -> impl Iterator<Item = (i32, i32, &Slot, &Documents, &Document)> {
    batch.slots().iter().enumerate().flat_map(|(bill, slot)| {
        let documents = slot.documents().into_iter().filter(|_| !slot.is_earlier());
        documents.flat_map(move |documents| {
            let list = documents.list.iter().enumerate();
            list.map(move |(place, document)| (bill as i32, place as i32, slot, documents, document))
        })
    })
}

/// What the documents draw from blocks, in order.
#[pg_extern(sql = false)]
fn bill_credits(
    handle: i64,
) -> TableIterator<
    'static,
    (
        name!(bill, i32),
        name!(place, i32),
        name!(credit_n, i32),
        name!(boundary, Option<i32>),
        name!(bill_to, String),
        name!(line_key, String),
        name!(block, String),
        name!(unit, Option<String>),
        name!(quantity, Numeric),
        name!(amount, Numeric),
    ),
> {
    let rows = with_batch(handle, |batch| {
        let row = |(bill, place, _, _, document): (i32, i32, &Slot, &Documents, &Document)| {
            let credits = document.credits.clone().into_iter().enumerate();
            let row = move |(n, credit): (usize, Credit)| {
                (
                    bill,
                    place,
                    n as i32 + 1,
                    credit.boundary.map(|boundary| boundary as i32),
                    credit.bill_to,
                    credit.line,
                    credit.block,
                    credit.unit,
                    Numeric::from(credit.quantity),
                    Numeric::from(credit.amount),
                )
            };
            credits.map(row).collect::<Vec<_>>()
        };
        Ok(each_document(batch).flat_map(row).collect::<Vec<_>>())
    });
    TableIterator::new(rows)
}

/// A document's canonical JSON, with what is known once it is issued.
#[pg_extern(sql = false)]
fn bill_document(
    handle: i64,
    bill: i32,
    place: i32,
    status: Option<String>,
    number: Option<String>,
    issued_on: Option<Date>,
    due_on: Option<Date>,
) -> String {
    with_batch(handle, |batch| {
        let slot = usize::try_from(bill).ok().and_then(|at| batch.slots().get(at));
        let documents = slot.and_then(Slot::documents);
        let document = documents.zip(usize::try_from(place).ok()).and_then(|(d, at)| d.list.get(at));
        let (Some(documents), Some(document)) = (documents, document) else {
            return Err(Fault::value(format!("bill {bill} has no document {place}")));
        };
        let issue = Issue {
            status,
            number,
            issued_on: issued_on.and_then(from_date),
            due_on: due_on.and_then(from_date),
        };
        documents.text(document, &issue)
    })
}

/// By what a bill was computed, as canonical JSON: its inputs as documents have them, and its minor units.
#[pg_extern(sql = false)]
fn bill_terms(handle: i64, bill: i32) -> Option<String> {
    with_batch(handle, |batch| {
        let slot = usize::try_from(bill).ok().and_then(|at| batch.slots().get(at));
        slot.and_then(Slot::documents).map(|documents| documents.terms_tree().canonical()).transpose()
    })
}

/// Closes a batch.
#[pg_extern(sql = false)]
fn bill_close(handle: i64) {
    BATCHES.with_borrow_mut(|batches| batches.remove(&handle));
}

fn explained(document: &str, notes: &str) -> Result<Vec<String>, Fault> {
    let notes = json::parse_nested(notes, DOCUMENT_DEPTH_MAX, "")?;
    let notes = Node::root(&notes)
        .entries()?
        .into_iter()
        .map(|(key, leaves)| {
            let leaves =
                leaves.items()?.iter().map(|l| l.text().map(str::to_string)).collect::<Result<_, _>>()?;
            Ok((key.to_string(), leaves))
        })
        .collect::<Result<Vec<_>, Fault>>()?;
    let tree = json::parse_nested(document, DOCUMENT_DEPTH_MAX, "")?;
    explain(&Node::root(&tree), &notes)
}

/// A document as text lines; `notes` is `{"line key": ["leaf", …]}`.
#[pg_extern(sql = false)]
fn explain_document(document: &str, notes: &str) -> SetOfIterator<'static, String> {
    SetOfIterator::new(explained(document, notes).unwrap_or_default())
}

#[pg_extern(sql = false)]
fn explain_document_error(document: &str) -> Option<String> {
    explained(document, "{}").err().as_ref().map(FaultJson::text)
}

/// Canonical JSON of a document; NULL if it is not one.
#[pg_extern(sql = false)]
fn canonical_json(document: &str) -> Option<String> {
    json::parse_nested(document, DOCUMENT_DEPTH_MAX, "").ok()?.canonical().ok()
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{error_of, fault, rows, value};
    use pgrx::prelude::*;

    const BOOK: &str = "00000000-0000-0000-0000-000000000007";
    const PRICE: &str = "00000000-0000-0000-0000-000000000100";

    /// The demo's acme in November 2023, in New York: tokens by a large matrix with an override for gpt-4,
    /// requests in tiers, a fee in arrears.
    const ACME: &str = r#"{"key":"acme-1","customer":"acme","seller":"default","currency":"USD","bill_to":"acme","zone":"America/New_York",
        "starts_on":"2023-11-01","ends_on":null,"every":"1 month","alignment":"calendar","pinned":false,"signed_at":"2023-11-01T00:00:00Z",
        "version":3,"terms_version":2,"boundaries":[1],"minor_units":2,
        "policies":{"rounding_mode":"half_up","rounding_level":"line","proration_basis":"day","minimum_basis":"undiscounted","rate_at":"usage_time"},
        "charges":[
            {"meter_id":1,"product":"ai-api","every":"1 month","book_id":"00000000-0000-0000-0000-000000000007","terms":{"key":"tokens","product":"ai-api","meter":"tokens","price":"tokens"}},
            {"meter_id":2,"product":"ai-api","every":"1 month","terms":{"key":"requests","product":"ai-api","meter":"requests",
                "pricing":{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0"},{"up_to":"5000","unit_price":"0.001"},{"unit_price":"0.0005"}]}}},
            {"meter_id":null,"product":"ai-api","every":"1 month","terms":{"key":"platform","product":"ai-api","pricing":{"model":"flat","amount":"49.00"},"timing":"arrears"}}],
        "overrides":[{"scope":"contract","meter":"tokens","match":{"model":"gpt-4"},"unit_price":"0.02"}]}"#;

    /// A batch of acme and of a contract whose text is broken.
    fn open() -> String {
        value(&format!(
            "SELECT billing_internal.bill_open('{{7,8}}', '{{00000000-0000-0000-0000-000000000001,00000000-0000-0000-0000-000000000002}}',
             ARRAY['{ACME}', '{{\"key\":'], '{{f,f}}', '{{NULL,NULL}}')"
        ))
        .unwrap()
    }

    fn ask(function: &str, handle: &str) -> Vec<String> {
        rows(&format!("SELECT * FROM billing_internal.{function}({handle})"))
    }

    fn give_meters(handle: &str) {
        rows(&format!(
            r#"SELECT billing_internal.bill_add_meter({handle}, 1,
                '{{"key":"tokens","event_type":"e","aggregation":"sum","value":"n","dimensions":["model","region"],"unit":"token"}}')"#
        ));
        rows(&format!(
            r#"SELECT billing_internal.bill_add_meter({handle}, 2, '{{"key":"requests","event_type":"e","aggregation":"count","dimensions":["model"]}}')"#
        ));
    }

    fn give_prices_and_midnights(handle: &str) {
        rows(&format!(
            "SELECT billing_internal.bill_add_version({handle}, '{BOOK}', 'tokens', '{PRICE}', 'list/tokens@1', 'tokens@1', NULL, NULL,
             '{{\"model\":\"matrix\",\"dimensions\":[\"model\"],\"per\":1000,\"rows\":[]}}', 'ab', false, 200)"
        ));
        rows(&format!(
            "SELECT billing_internal.bill_add_midnight({handle}, d.zone, d.day, d.day::timestamp AT TIME ZONE d.zone) FROM billing_internal.bill_days({handle}) d"
        ));
    }

    fn give_usage_and_rows(handle: &str) {
        rows(&format!(
            "SELECT billing_internal.bill_add_usage({handle}, '{{0,0,1}}', ARRAY['{{\"model\":\"gpt-4\"}}','{{\"model\":\"gpt-3.5\"}}','{{}}'],
             '{{6456,2939,9395}}', '{{8779295,6210011,9395}}', ARRAY[NULL,NULL,NULL]::text[])"
        ));
        rows(&format!(
            "SELECT billing_internal.bill_add_rows({handle}, '{{{PRICE},{PRICE}}}',
             ARRAY['{{\"match\":{{\"model\":\"gpt-4\"}},\"unit_price\":\"0.03\"}}','{{\"match\":{{\"model\":\"gpt-3.5\"}},\"unit_price\":\"0.002\"}}'])"
        ));
    }

    /// A batch that has been computed.
    fn computed() -> String {
        let handle = open();
        give_meters(&handle);
        give_prices_and_midnights(&handle);
        rows(&format!("SELECT * FROM billing_internal.bill_stretches({handle})"));
        give_usage_and_rows(&handle);
        rows(&format!("SELECT billing_internal.bill_compute({handle}, false)"));
        handle
    }

    /// A batch asks for just what its contracts need, in an order in which each answer leads to the next
    /// question: meters, prices, local midnights, stretches of usage (30 days and an hour in New York, whose
    /// clocks change in between; dimensions without a price are summed away), rows of matrices too large to
    /// come whole.
    #[pg_test]
    fn a_bill_batch_asks_for_what_it_needs() {
        let handle = open();
        assert_eq!(ask("bill_meter_ids", &handle), ["1", "2"]);
        // bill_add_meter
        give_meters(&handle);
        assert_eq!(ask("bill_price_keys", &handle), [format!("{BOOK}|tokens")]);
        assert_eq!(ask("bill_days", &handle), ["America/New_York|2023-11-01", "America/New_York|2023-12-01"]);
        // bill_add_version, bill_add_midnight
        give_prices_and_midnights(&handle);
        let month = "2023-11-01T04:00:00+00:00|2023-12-01T05:00:00+00:00";
        assert_eq!(
            ask("bill_stretches", &handle),
            [
                format!(r#"0|7|1|{month}|buckets||||{{}}|["region"]|acme"#),
                format!(r#"1|7|2|{month}|buckets||||{{}}|["model"]|acme"#)
            ]
        );
        // bill_add_usage, bill_add_rows
        give_usage_and_rows(&handle);
        assert_eq!(
            ask("bill_wanted_rows", &handle),
            [
                format!("{PRICE}|{{}}"),
                format!(r#"{PRICE}|{{"model":"gpt-3.5"}}"#),
                format!(r#"{PRICE}|{{"model":"gpt-4"}}"#)
            ]
        );
    }

    /// What a batch can't take is refused with its reason, and a batch that failed is closed.
    #[pg_test]
    fn a_bill_batch_refuses_what_does_not_fit() {
        // bill_add_meter, bill_add_usage, bill_open
        let handle = open();
        let average = format!(
            r#"SELECT billing_internal.bill_add_meter({handle}, 1, '{{"key":"tokens","aggregation":"avg"}}')"#
        );
        assert_eq!(
            error_of(&average),
            format!("XX000 bill batch {handle}: aggregation: \"avg\" is not known")
        );
        assert_eq!(error_of(&average), format!("XX000 bill batch {handle} is not open"));
        let handle = open();
        let usage = format!(
            "SELECT billing_internal.bill_add_usage({handle}, '{{0}}', '{{}}', '{{}}', '{{}}', '{{}}')"
        );
        assert_eq!(
            error_of(&usage),
            format!("XX000 bill batch {handle}: the columns have different lengths")
        );
        let lengths = error_of("SELECT billing_internal.bill_open('{7,8}', '{}', '{}', '{}', '{}')");
        assert_eq!(lengths, "XX000 the columns have different lengths");
    }

    /// Of a computed batch each bill has its documents or its fault, never both: acme's demo gives 12.42 +
    /// 175.59 + 6.20 + 49.00 = 243.21 (each line rounded once), the broken contract is described.
    #[pg_test]
    fn a_computed_batch_has_documents_or_faults() {
        // bill_compute
        let handle = computed();
        let outcomes = rows(&format!(
            "SELECT bill, customer_id, boundary, next_ends_on, documents, CAST(fault AS json)->>'code' AS code FROM billing_internal.bill_outcomes({handle})"
        ));
        assert_eq!(outcomes, ["0|7|1|2024-02-01|1|", "1|8||||ZB003"]);
        let documents = rows(&format!(
            "SELECT bill, place, boundary, bill_to, minor_units, contract_version, terms_version, starts_at, ends_at, total, length(sha256)
             FROM billing_internal.bill_documents({handle})"
        ));
        assert_eq!(
            documents,
            ["0|0|1|acme|2|3|2|2023-11-01T04:00:00+00:00|2023-12-01T05:00:00+00:00|243.21|64"]
        );
        let lines = rows(&format!(
            "SELECT line_n, key, kind, quantity, unit, price, exact, amount FROM billing_internal.bill_lines({handle})"
        ));
        assert_eq!(
            lines,
            [
                "1|tokens/2023-11-01/model=gpt-3.5|usage|6210011|token|tokens@1|12.420022|12.42",
                "2|tokens/2023-11-01/model=gpt-4|usage|8779295|token|contract override, tokens@1|175.5859|175.59",
                "3|requests/2023-11-01|usage|9395|unit|charge|6.1975|6.20",
                "4|platform/2023-11-01|fee|1||charge|49|49.00"
            ]
        );
    }

    /// A document holds what is known of it, nothing else: a preview has no status, number or dates. It reads
    /// as a text tree with the tiers and added notes; the batch is gone once closed.
    #[pg_test]
    fn documents_are_issued_and_explained() {
        let handle = computed();
        let document =
            |issue: &str| format!("SELECT billing_internal.bill_document({handle}, 0, 0, {issue})");
        let facts = |document: &str| {
            rows(&format!(
                "SELECT d->>'status' AS status, d->>'number' AS number, d->>'due_on' AS due_on, d->'totals'->>'due' AS due, json_array_length(d->'lines') AS lines
                 FROM CAST(({document}) AS json) d"
            ))
        };
        assert_eq!(facts(&document("NULL, NULL, NULL, NULL")), ["|||243.21|4"]);
        let issued = document("'open', 'INV-2023-000001', '2023-12-01', '2023-12-31'");
        assert_eq!(facts(&issued), ["open|INV-2023-000001|2023-12-31|243.21|4"]);
        // canonical_json: the document is canonical already
        let canonical = format!("SELECT billing_internal.canonical_json(({issued})) = ({issued})");
        assert_eq!(value(&canonical).as_deref(), Some("true"));

        let explained = rows(&format!(
            "SELECT * FROM billing_internal.explain_document(({issued}), '{{\"requests/2023-11-01\":[\"a note\"]}}')"
        ));
        assert_eq!(
            explained[0],
            "Invoice INV-2023-000001 (open) to acme of acme, contract acme-1: 243.21 USD"
        );
        for line in [
            "├─ Tokens · gpt-4: 175.59 USD   [tokens/2023-11-01/model=gpt-4]",
            "│  │  └─ tier 3: above 5000: 4,395 at 0.0005 = 2.1975",
            "│  └─ a note",
            "├─ total 243.21 USD",
        ] {
            assert!(explained.iter().any(|l| l == line), "{line} is not in {explained:#?}");
        }
        assert!(rows("SELECT * FROM billing_internal.explain_document('{}', '{}')").is_empty());
        assert_eq!(fault("SELECT billing_internal.explain_document_error('{}')"), "ZB003 lines: is missing");
        assert_eq!(value(&format!("SELECT billing_internal.explain_document_error(({issued}))")), None);

        // bill_terms: what the document says of them
        let inputs = format!(
            "SELECT CAST(billing_internal.bill_terms({handle}, 0) AS jsonb)->'inputs' = CAST(({issued}) AS jsonb)->'inputs'"
        );
        assert_eq!(value(&inputs).as_deref(), Some("true"));
        assert_eq!(value(&format!("SELECT billing_internal.bill_terms({handle}, 99)")), None);
        rows(&format!("SELECT billing_internal.bill_close({handle})"));
        let closed = error_of(&document("NULL, NULL, NULL, NULL"));
        assert_eq!(closed, format!("XX000 bill batch {handle} is not open"));
    }

    /// Where a block may pay, usage is asked for by hour, cut where the block ends; what lines draw from it stands on the
    /// document, in order. Other charges are not asked for.
    #[pg_test]
    fn credit_is_asked_for_by_hour_and_drawn() {
        let credits = r#""credits":{"blocks":[{"key":"requests","unit":"USD","category":"paid","granted":"5","priority":50,"scope":{"meters":["requests"]},
            "effective_at":"2023-11-01T04:00:00Z","expires_at":"2023-11-10T10:30:00Z","left":"5"}]}}"#;
        let acme = ACME.strip_suffix('}').unwrap();
        let handle = value(&format!(
            "SELECT billing_internal.bill_open('{{7}}', '{{00000000-0000-0000-0000-000000000001}}', ARRAY['{acme},{credits}'], '{{f}}', '{{NULL}}')"
        ))
        .unwrap();
        give_meters(&handle);
        give_prices_and_midnights(&handle);
        rows(&format!("SELECT * FROM billing_internal.bill_stretches({handle})"));
        give_usage_and_rows(&handle);
        assert_eq!(
            rows(&format!(
                "SELECT n, customer_id, meter_id, to_char(from_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), to_char(until_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
                    recorded_until, meter_version, matches, array_to_string(dropped, ','), bill_to FROM billing_internal.bill_hours({handle})"
            )),
            [
                "0|7|2|2023-11-01 04:00:00|2023-11-10 10:30:00|||{}|model|acme",
                "1|7|2|2023-11-10 10:30:00|2023-12-01 05:00:00|||{}|model|acme"
            ]
        );
        rows(&format!(
            "SELECT billing_internal.bill_add_hours({handle}, '{{0,1}}', '{{2023-11-02 10:00Z,2023-11-20 10:00Z}}', ARRAY['{{}}','{{}}'], '{{5000,4395}}')"
        ));
        rows(&format!("SELECT billing_internal.bill_compute({handle}, false)"));
        // The first thousand are free, so no credit pays for them.
        assert_eq!(ask("bill_credits", &handle), ["0|0|1||acme|requests/2023-11-01|requests||4000|4"]);
        assert_eq!(
            rows(&format!("SELECT total, credits FROM billing_internal.bill_documents({handle})")),
            ["243.21|4.00"]
        );
        let twice = error_of(&format!(
            "SELECT billing_internal.bill_add_hours({handle}, '{{9}}', '{{2023-11-02 10:00Z}}', ARRAY['{{}}'], '{{1}}')"
        ));
        assert!(twice.contains("no stretch 9 was asked for by hour"), "{twice}");
    }

    /// What only asks what is pending asks for whole periods, by their totals, and for no hours where the block is there
    /// all the time and pays for everything; the same is drawn.
    #[pg_test]
    fn pending_credit_is_asked_for_by_period() {
        let credits = r#""credits":{"blocks":[{"key":"money","unit":"USD","category":"paid","granted":"5","priority":50,"scope":{},"effective_at":"2023-10-01T04:00:00Z","left":"5"}]}}"#;
        let acme = ACME.strip_suffix('}').unwrap();
        let drawn = [true, false].map(|by_period| {
            let handle = value(&format!(
                "SELECT billing_internal.bill_open('{{7}}', '{{00000000-0000-0000-0000-000000000001}}', ARRAY['{acme},{credits}'], '{{f}}', '{{NULL}}')"
            ))
            .unwrap();
            rows(&format!("SELECT billing_internal.bill_pending({handle}, {by_period})"));
            give_meters(&handle);
            give_prices_and_midnights(&handle);
            let sources = rows(&format!("SELECT DISTINCT source FROM billing_internal.bill_stretches({handle})"));
            assert_eq!(sources, [if by_period { "totals" } else { "buckets" }]);
            give_usage_and_rows(&handle);
            let hours: i64 =
                value(&format!("SELECT count(*) FROM billing_internal.bill_hours({handle})")).unwrap().parse().unwrap();
            assert_eq!(hours > 0, !by_period);
            rows(&format!("SELECT billing_internal.bill_compute({handle}, false)"));
            rows(&format!("SELECT sum(amount) FROM billing_internal.bill_credits({handle})"))
        });
        assert_eq!(drawn[0], ["5"]);
        assert_eq!(drawn[0], drawn[1]);
    }

    /// Documents that mean the same have the same bytes: keys sorted, numbers trimmed; what is no JSON is NULL.
    #[pg_test]
    fn canonical_json_is_one_text() {
        let canonical =
            |document: &str| value(&format!("SELECT billing_internal.canonical_json('{document}')"));
        let bytes = r#"{"a":[100,"x"],"b":1.5,"c":{"y":true,"z":null}}"#;
        assert_eq!(
            canonical(r#"{"b":1.50, "a":[1e2,"x"], "c":{"z":null,"y":true}}"#).as_deref(),
            Some(bytes)
        );
        assert_eq!(canonical(bytes).as_deref(), Some(bytes));
        assert_eq!(canonical("{"), None);
        assert_eq!(canonical(r#"{"a":1,"a":2}"#), None);
    }
}
