//! Contracts: documents to canonical form, terms, checks.

use crate::domain::contracts::catalogue;
use crate::domain::contracts::charge::UsageCharge;
use crate::domain::contracts::contract::Contract;
use crate::domain::contracts::describe::{Known, describe};
use crate::domain::contracts::diff::{differences, fees_fall};
use crate::domain::contracts::overrides::{Override, read_list};
use crate::domain::contracts::plan::Plan;
use crate::domain::contracts::renewal::Renewal;
use crate::domain::contracts::resolve::Prices;
use crate::domain::contracts::timeline::{self, Change, What};
use crate::domain::foundation::json::{self, Node, Tree};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::Dimensions;
use crate::domain::rating::{Pricing, TierContinuity};
use crate::pg::FaultJson;
use crate::pg::instant::from_timestamptz;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

/// The items of a catalogue document as JSON; NULL where `catalogue_items_error` says why.
#[pg_extern(sql = false)]
fn catalogue_items(document: &str) -> Option<String> {
    items(document).ok()
}

#[pg_extern(sql = false)]
fn catalogue_items_error(document: &str) -> Option<String> {
    items(document).err().as_ref().map(FaultJson::text)
}

/// Catalogues may be larger than other documents: 2,000 prices with 50 values each.
const CATALOGUE_BYTES_MAX: usize = 64 << 20;

fn items(document: &str) -> Result<String, Fault> {
    if document.len() > CATALOGUE_BYTES_MAX {
        return Err(json::parse(document).expect_err("it is larger than any document may be"));
    }
    let tree = json::parse_nested(document, json::DOCUMENT_DEPTH_MAX, "")?;
    catalogue::to_tree(catalogue::read(&Node::root(&tree))?).canonical()
}

/// What the changes of a contract come to, of the changes and an object of the plans they name.
#[pg_extern(sql = false)]
fn contract_timeline(changes: &str, plans: &str) -> Option<String> {
    timeline_of(changes, plans).ok()
}

#[pg_extern(sql = false)]
fn contract_timeline_error(changes: &str, plans: &str) -> Option<String> {
    timeline_of(changes, plans).err().as_ref().map(FaultJson::text)
}

fn timeline_of(changes: &str, plans: &str) -> Result<String, Fault> {
    // Every change is a document of its own size.
    let changes = json::parse_nested(changes, json::DOCUMENT_DEPTH_MAX + 2, "")?;
    let changes =
        Node::root(&changes).items()?.iter().map(Change::read).collect::<Result<Vec<_>, Fault>>()?;
    let plans = json::parse_nested(plans, json::DOCUMENT_DEPTH_MAX + 1, "plans")?;
    let plans = Node { tree: &plans, path: "plans".into() };
    let plans = plans.entries()?.into_iter().map(|(key, plan)| Ok((key.to_string(), Plan::read(&plan)?)));
    timeline::fold(changes, &plans.collect::<Result<_, Fault>>()?)?.to_tree().canonical()
}

/// The canonical form of one change of a kind; NULL where `contract_change_read_error` says why not.
#[pg_extern(sql = false)]
fn contract_change_read(kind: &str, change: &str) -> Option<String> {
    change_of(kind, change).ok()
}

#[pg_extern(sql = false)]
fn contract_change_read_error(kind: &str, change: &str) -> Option<String> {
    change_of(kind, change).err().as_ref().map(FaultJson::text)
}

fn change_of(kind: &str, change: &str) -> Result<String, Fault> {
    let what = What::read(kind, &Node::root(&json::parse(change)?))?;
    if let What::Create(contract) = &what {
        contract.check_quantities()?;
    }
    what.to_tree().canonical()
}

/// A contract document with its plan in sentences; none where `contract_describe_error` says why.
#[pg_extern(sql = false)]
fn contract_describe(document: &str, plan: Option<&str>, known: &str) -> SetOfIterator<'static, String> {
    SetOfIterator::new(sentences(document, plan, known).unwrap_or_default())
}

#[pg_extern(sql = false)]
fn contract_describe_error(document: &str, plan: Option<&str>, known: &str) -> Option<String> {
    sentences(document, plan, known).err().as_ref().map(FaultJson::text)
}

fn sentences(document: &str, plan: Option<&str>, known: &str) -> Result<Vec<String>, Fault> {
    let contract = Contract::read(&Node::root(&json::parse(document)?))?;
    let plan = plan
        .map(|plan| Plan::read(&Node::root(&json::parse_nested(plan, json::DOCUMENT_DEPTH_MAX, "plan")?)))
        .transpose()?;
    let known = Known::read(&Node::root(&json::parse_nested(known, json::DOCUMENT_DEPTH_MAX, "known")?))?;
    describe(contract, plan, &known)
}

/// The items of which two timelines speak differently.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of a set-returning function")]
fn contract_diff(
    before: &str,
    after: &str,
) -> TableIterator<
    'static,
    (
        name!(kind, String),
        name!(item, String),
        name!(change, String),
        name!(before, Option<String>),
        name!(after, Option<String>),
    ),
> {
    let parse = |text| json::parse_nested(text, json::DOCUMENT_DEPTH_MAX + 2, "");
    let compare = || differences(&Node::root(&parse(before)?), &Node::root(&parse(after)?));
    let rows = compare().unwrap_or_default();
    TableIterator::new(rows.into_iter().map(|row| {
        let change = row.change().to_string();
        (row.kind, row.item, change, row.before, row.after)
    }))
}

/// Whether the fees of a day (a date as text) sum to less in the second of two timelines.
#[pg_extern(sql = false)]
fn contract_fees_fall(before: &str, after: &str, day: &str) -> bool {
    let parse = |text| json::parse_nested(text, json::DOCUMENT_DEPTH_MAX + 2, "");
    let compare = || {
        let day = Node::root(&Tree::text(day.to_string())).date()?;
        fees_fall(&Node::root(&parse(before)?), &Node::root(&parse(after)?), day)
    };
    // Both were made by contract_timeline().
    compare().unwrap_or(false)
}

/// By how many percent a renewal raises prices, of a timeline's `renewal` and the value of the index it follows.
#[pg_extern(sql = false)]
fn contract_uplift(renewal: &str, index: Option<&str>) -> Option<String> {
    uplift_of(renewal, index).ok()
}

#[pg_extern(sql = false)]
fn contract_uplift_error(renewal: &str, index: Option<&str>) -> Option<String> {
    uplift_of(renewal, index).err().as_ref().map(FaultJson::text)
}

fn uplift_of(renewal: &str, index: Option<&str>) -> Result<String, Fault> {
    let renewal = Renewal::read_resolved(&Node::root(&json::parse(renewal)?))?;
    let index = index.map(Exact::parse).transpose()?;
    renewal.uplift_percent(index).map(|percent| percent.to_string())
}

/// Why a usage charge, as contract_charge keeps it, can't price a meter with a list price and a list of overrides; NULL if it can.
#[pg_extern(sql = false)]
fn charge_error(charge: &str, meter: &str, pricing: &str, overrides: &str) -> Option<String> {
    check_charge(charge, meter, pricing, overrides).err().as_ref().map(FaultJson::text)
}

fn check_charge(charge: &str, meter: &str, pricing: &str, overrides: &str) -> Result<(), Fault> {
    let charge = UsageCharge::read_terms(&Node::root(&json::parse(charge)?))?;
    let meter = super::metering::read_meter(meter)?;
    let pricing = json::parse_nested(pricing, json::DOCUMENT_DEPTH_MAX, "pricing")?;
    let overrides = json::parse_nested(overrides, json::DOCUMENT_DEPTH_MAX, "overrides")?;
    let overrides = Node { tree: &overrides, path: "overrides".into() };
    let overrides = overrides.items()?.iter().map(Override::read).collect::<Result<Vec<_>, Fault>>()?;
    charge.check(&meter, &Pricing::read_header(&Node::root(&pricing))?, &overrides)
}

/// A list of overrides in canonical form; NULL where `overrides_read_error` says why.
#[pg_extern(sql = false)]
fn overrides_read(overrides: &str) -> Option<String> {
    overrides_of(overrides).ok()
}

#[pg_extern(sql = false)]
fn overrides_read_error(overrides: &str) -> Option<String> {
    overrides_of(overrides).err().as_ref().map(FaultJson::text)
}

fn overrides_of(overrides: &str) -> Result<String, Fault> {
    let tree = json::parse(overrides)?;
    let list = read_list(&Node { tree: &tree, path: "overrides".into() })?;
    Tree::List(list.iter().map(Override::to_tree).collect()).canonical()
}

/// Which price bills these dimensions at this instant, of `{"list", "overrides", "dimensions"}`: the service period is
/// from `starts`, `begins` counts as its start for what runs over all of it, and `ends` as the next one's. No row where
/// `resolved_price_error` says why.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "a row of a set-returning function")]
fn resolved_price(
    prices: &str,
    dimensions: &str,
    at: TimestampWithTimeZone,
    starts: TimestampWithTimeZone,
    begins: TimestampWithTimeZone,
    ends: TimestampWithTimeZone,
    continuity: &str,
) -> TableIterator<
    'static,
    (name!(source, String), name!(label, String), name!(list_label, Option<String>), name!(pricing, String)),
> {
    TableIterator::new(resolved(prices, dimensions, at, starts, begins, ends, continuity).ok())
}

#[pg_extern(sql = false)]
fn resolved_price_error(
    prices: &str,
    dimensions: &str,
    at: TimestampWithTimeZone,
    starts: TimestampWithTimeZone,
    begins: TimestampWithTimeZone,
    ends: TimestampWithTimeZone,
    continuity: &str,
) -> Option<String> {
    resolved(prices, dimensions, at, starts, begins, ends, continuity).err().as_ref().map(FaultJson::text)
}

fn resolved(
    prices: &str,
    dimensions: &str,
    at: TimestampWithTimeZone,
    starts: TimestampWithTimeZone,
    begins: TimestampWithTimeZone,
    ends: TimestampWithTimeZone,
    continuity: &str,
) -> Result<(String, String, Option<String>, String), Fault> {
    let instant =
        |at| from_timestamptz(at).ok_or_else(|| Fault::value("prices hold at instants, not at infinity"));
    let prices = Prices::read(&Node::root(&json::parse_nested(prices, json::DOCUMENT_DEPTH_MAX, "")?))?;
    let dimensions = Dimensions::read(&Node::root(&json::parse(dimensions)?))?;
    let period = (instant(starts)?, instant(begins)?, instant(ends)?);
    let found = prices.billed_at(&dimensions, instant(at)?, period, TierContinuity::parse(continuity)?)?;
    let list_label = found.list.map(|list| prices.list[list].label.clone());
    Ok((found.source.to_string(), found.label, list_label, found.pricing.canonical()))
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{fault, rows, value};
    use pgrx::prelude::*;

    /// A catalogue is read item by item, each canonical and with its place; a fault names the path.
    #[pg_test]
    fn catalogues_are_read_item_by_item() {
        let catalogue = r#"'{"products":[{"name":"AI API","key":"ai-api"}],
            "meters":[{"key":"tokens","event_type":"llm.request","aggregation":"sum","value":"a + b","dimensions":["model"]}]}'"#;
        let items = format!(
            "SELECT i->>'kind' AS kind, i->>'key' AS key, i->>'path' AS path, i->'document'->>'value' AS value, i->'document'->>'name' AS name
             FROM json_array_elements(CAST(billing_internal.catalogue_items({catalogue}) AS json)) i"
        );
        assert_eq!(rows(&items), ["product|ai-api|products[0]||AI API", "meter|tokens|meters[0]|a + b|"]);
        assert_eq!(value(&format!("SELECT billing_internal.catalogue_items_error({catalogue})")), None);
        let wrong = r#"'{"meters":[{"key":"t","event_type":"e","aggregation":"avg"}]}'"#;
        assert_eq!(value(&format!("SELECT billing_internal.catalogue_items({wrong})")), None);
        let call = format!("SELECT billing_internal.catalogue_items_error({wrong})");
        assert_eq!(fault(&call), "ZB003 meters[0].aggregation: \"avg\" is not known");
    }

    const PLAN: &str = r#"'{"key":"pro","name":"Pro","currency":"USD","price_book":"list","billing":{"interval":"1 month"},
        "charges":[{"key":"tokens","product":"ai-api","meter":"tokens","price":"tokens"},{"key":"requests","product":"ai-api","meter":"requests","price":"requests"}]}'"#;

    /// A contract created in January whose seats change in March has the fee in two stretches; a change that can't be is
    /// named by its path.
    #[pg_test]
    fn timelines_fold_changes() {
        let timeline = |amendment: &str| {
            format!(
                r#"('[{{"version":1,"kind":"create","on":"2026-01-01","plan":"pro@1","change":{{"key":"a","customer":"acme","starts_on":"2026-01-01","plan":"pro","term":"12 months",
                "fees":[{{"key":"seats","product":"ai-api","pricing":{{"model":"per_unit","unit_price":"20"}},"quantity":"5"}}]}}}},
                {{"version":2,"kind":"amend","on":"2026-03-11","at":"2026-03-11T12:00:00Z","change":{amendment}}}]', '{{"pro@1":' || {PLAN} || '}}')"#
            )
        };
        let seats = timeline(r#"{"quantities":{"seats":"10"}}"#);
        let shown = format!(
            "SELECT r->>'kind' AS kind, r->>'key' AS key, r->>'from' AS from_on, r->>'from_at' AS from_at, r->>'until' AS until_on, r->'terms'->>'quantity' AS quantity
             FROM json_array_elements(CAST(billing_internal.contract_timeline{seats} AS json)->'rows') r"
        );
        assert_eq!(
            rows(&shown),
            [
                "usage|tokens|2026-01-01||2027-01-01|",
                "usage|requests|2026-01-01||2027-01-01|",
                "fee|seats|2026-01-01||2026-03-11|5",
                "fee|seats|2026-03-11|2026-03-11T12:00:00Z|2027-01-01|10"
            ]
        );
        assert_eq!(value(&format!("SELECT billing_internal.contract_timeline_error{seats}")), None);
        let wrong = timeline(r#"{"quantities":{"seat":"10"}}"#);
        assert_eq!(value(&format!("SELECT billing_internal.contract_timeline{wrong}")), None);
        assert_eq!(
            fault(&format!("SELECT billing_internal.contract_timeline_error{wrong}")),
            "ZB003 quantities.seat: is no charge or fee of this contract"
        );
    }

    /// Changes of each kind come out canonical, or name the place of their fault.
    #[pg_test]
    fn changes_are_read_by_kind() {
        let read = |function: &str, kind: &str, change: &str| {
            format!("SELECT billing_internal.{function}('{kind}', '{change}')")
        };
        let amend = r#"{"quantities":{"seats":"10.0"}, "term":"1 year"}"#;
        assert_eq!(
            value(&read("contract_change_read", "amend", amend)).as_deref(),
            Some(r#"{"quantities":{"seats":"10"},"term":"12 months"}"#)
        );
        assert_eq!(value(&read("contract_change_read_error", "amend", amend)), None);
        let wrong = r#"{"currency":"EUR"}"#;
        assert_eq!(value(&read("contract_change_read", "amend", wrong)), None);
        assert_eq!(
            fault(&read("contract_change_read_error", "amend", wrong)),
            "ZB003 currency: can't be amended"
        );
    }

    /// Each term is a sentence; a document with a fault has none.
    #[pg_test]
    fn deals_are_told_in_sentences() {
        let deal = r#"'{"key":"a","customer":"acme","starts_on":"2026-01-01","term":"12 months","plan":"pro","fees":[{"key":"platform","product":"ai-api","pricing":{"model":"flat","amount":"49"}}]}'"#;
        let known = r#"'{"prices":[{"book":"list","key":"tokens","pricing":{"model":"per_unit","unit_price":"0.03"}}]}'"#;
        let told = format!("SELECT s FROM billing_internal.contract_describe({deal}, {PLAN}, {known}) s");
        assert_eq!(
            rows(&told),
            [
                "Contract a with acme runs from 1 January 2026 to 31 December 2026 (12 months), on plan Pro.",
                "It is billed every month by the calendar, in USD; invoices are due after 30 days.",
                "Usage of tokens (tokens) costs the list price tokens of list (now USD 0.03 each), per month.",
                "Usage of requests (requests) costs the list price requests of list, per month.",
                "Fee platform is USD 49 per month, billed in advance."
            ]
        );
        assert_eq!(
            value(&format!("SELECT billing_internal.contract_describe_error({deal}, {PLAN}, {known})")),
            None
        );
        let wrong = "'{\"key\":\"a\"}'";
        assert!(
            rows(&format!("SELECT s FROM billing_internal.contract_describe({wrong}, NULL, '{{}}') s"))
                .is_empty()
        );
        assert_eq!(
            fault(&format!("SELECT billing_internal.contract_describe_error({wrong}, NULL, '{{}}')")),
            "ZB003 customer: is missing"
        );
    }

    /// What is new, gone and otherwise between two timelines, item by item.
    #[pg_test]
    fn timelines_are_compared() {
        let timeline = |fees: &str, term: &str| {
            format!(
                r#"billing_internal.contract_timeline('[{{"version":1,"kind":"create","on":"2026-01-01","change":{{"key":"a","customer":"acme","starts_on":"2026-01-01","term":"{term}","fees":[{fees}]}}}}]', '{{}}')"#
            )
        };
        let fee = |key: &str, amount: &str| {
            format!(r#"{{"key":"{key}","product":"p","pricing":{{"model":"flat","amount":"{amount}"}}}}"#)
        };
        let (was, is) =
            (format!("{},{}", fee("a", "1"), fee("b", "2")), format!("{},{}", fee("a", "3"), fee("c", "4")));
        let compare = format!(
            "SELECT kind, item, change, CAST(before_terms AS json)->0->'terms'->'pricing'->>'amount' AS before, CAST(after_terms AS json)->0->'terms'->'pricing'->>'amount' AS after
             FROM billing_internal.contract_diff({}, {}) WHERE kind <> 'contract'",
            timeline(&was, "12 months"),
            timeline(&is, "12 months")
        );
        assert_eq!(rows(&compare), ["fee|a|changed|1|3", "fee|c|added||4", "fee|b|removed|2|"]);
        let longer = format!(
            "SELECT kind, item, change, before_terms, after_terms FROM billing_internal.contract_diff({}, {}) WHERE item = 'ends_on'",
            timeline(&was, "12 months"),
            timeline(&was, "24 months")
        );
        assert_eq!(rows(&longer), [r#"contract|ends_on|changed|"2027-01-01"|"2028-01-01""#]);
    }

    /// rules.md 7: CPI 8.1 between 3 and 7 is 7; without its value there is no uplift.
    /// Fees are compared by the day: 120 a year are less than 11 a month, and what is billed once or ends by then is none.
    #[pg_test]
    fn fees_fall_by_the_day() {
        let fee = |amount: &str, every: &str, until: &str| {
            format!(
                r#"{{"rows":[{{"kind":"fee","key":"f","from":"2026-01-01","until":{until},"every":"{every}","terms":{{"key":"f","product":"p","pricing":{{"model":"flat","amount":"{amount}"}}}}}}]}}"#
            )
        };
        let falls = |before: &str, after: &str| {
            Spi::get_one::<bool>(&format!(
                "SELECT billing_internal.contract_fees_fall('{before}', '{after}', '2026-03-01')"
            ))
            .unwrap()
            .unwrap()
        };
        let (year, month) = (fee("120", "12 months", "null"), fee("11", "1 month", "null"));
        assert!(falls(&month, &year) && !falls(&year, &month) && !falls(&year, &year));
        assert!(falls(&year, &fee("500", "1 month", r#""2026-03-01""#)));
    }

    #[pg_test]
    fn uplifts_are_clamped() {
        let renewal = r#"{"auto":true,"notice_days":60,"uplift":{"index":"cpi","min":"3","max":"7"},"renews_on":"2027-01-01"}"#;
        let of =
            |function: &str, index: &str| format!("SELECT billing_internal.{function}('{renewal}', {index})");
        assert_eq!(value(&of("contract_uplift", "'8.1'")).as_deref(), Some("7"));
        assert_eq!(value(&of("contract_uplift_error", "'8.1'")), None);
        assert_eq!(value(&of("contract_uplift", "NULL")), None);
        assert_eq!(
            fault(&of("contract_uplift_error", "NULL")),
            "ZB004 the renewal's uplift follows cpi, and its value is not given"
        );
    }

    /// A charge may match only what its meter declares; one that fits gives NULL.
    #[pg_test]
    fn charges_fit_their_meter() {
        let call = |dimension: &str| {
            format!(
                r#"SELECT billing_internal.charge_error('{{"key":"tokens","product":"ai","meter":"tokens","match":{{"{dimension}":"x"}},"pricing":{{"model":"per_unit","unit_price":"1"}}}}',
                   '{{"key":"tokens","event_type":"e","aggregation":"count","dimensions":["model"]}}', '{{"model":"per_unit","unit_price":"1"}}',
                   '[{{"charge":"tokens","match":{{"model":"y"}},"percent_off":"5"}}]')"#
            )
        };
        assert_eq!(value(&call("model")), None);
        assert_eq!(
            fault(&call("region")),
            "ZB003 charge tokens: match names \"region\", which is no dimension of meter tokens"
        );
    }

    /// Overrides come out canonical; one that changes nothing is refused by its place in the list.
    #[pg_test]
    fn overrides_change_one_thing() {
        let read = r#"SELECT billing_internal.overrides_read('[{"meter":"tokens","unit_price":"0.0200","match":{"model":"gpt-4"}}]')"#;
        assert_eq!(
            value(read).as_deref(),
            Some(r#"[{"match":{"model":"gpt-4"},"meter":"tokens","unit_price":"0.02"}]"#)
        );
        assert_eq!(value(&read.replace("overrides_read", "overrides_read_error")), None);
        let wrong = r#"'[{"meter":"tokens"}]'"#;
        assert_eq!(value(&format!("SELECT billing_internal.overrides_read({wrong})")), None);
        assert_eq!(
            fault(&format!("SELECT billing_internal.overrides_read_error({wrong})")),
            "ZB003 overrides[0]: must have one of unit_price, percent_off and pricing"
        );
    }

    const PRICES: &str = r#"'{"list":[{"label":"tokens@1","from":"2023-11-01T00:00:00Z","until":"2023-11-16T00:00:00Z","pricing":{"model":"per_unit","unit_price":"0.03"}},
        {"label":"tokens@2","from":"2023-11-16T00:00:00Z","pricing":{"model":"per_unit","unit_price":"0.04"}}],
        "overrides":[{"scope":"customer","meter":"tokens","match":{"model":"gpt-4"},"percent_off":"50"}],"dimensions":["model"]}'"#;

    /// The price at an instant is the list version in force then, under the override that matches: half of the
    /// list for gpt-4, the list for others; versions are half-open. Where none is in force there is no price.
    #[pg_test]
    fn prices_resolve_by_time_and_match() {
        let at = |model: &str, instant: &str| {
            rows(&format!(
                r#"SELECT source, list_label, CAST(pricing AS json)->>'unit_price' AS unit_price FROM billing_internal.resolved_price({PRICES}, '{{"model":"{model}"}}', '{instant}', '{instant}', '{instant}', '{instant}', 'continue')"#
            ))
        };
        assert_eq!(at("gpt-4", "2023-11-15 23:59:59.999999+00"), ["customer override|tokens@1|0.015"]);
        assert_eq!(at("gpt-4", "2023-11-16 00:00+00"), ["customer override|tokens@2|0.02"]);
        assert_eq!(at("gpt-3.5", "2023-11-16 00:00+00"), ["price book|tokens@2|0.04"]);
        assert!(at("gpt-4", "2023-10-31 00:00+00").is_empty());
        let why = |instant: &str| {
            format!(
                "SELECT billing_internal.resolved_price_error({PRICES}, '{{}}', '{instant}', '{instant}', '{instant}', '{instant}', 'continue')"
            )
        };
        assert_eq!(fault(&why("2023-10-31 00:00+00")), "ZB007 no price is in force at 2023-10-31T00:00:00Z");
        assert_eq!(fault(&why("infinity")), "ZB004 prices hold at instants, not at infinity");
        assert_eq!(value(&why("2023-11-16 00:00+00")), None);
    }
}
