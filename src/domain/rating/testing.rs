//! Helpers and generators for this layer's tests. Pricings are generated as JSON text and read, so every
//! property also exercises the reader.

use super::Pricing;
use crate::domain::foundation::json::{self, Node};
use crate::domain::foundation::{Exact, Fault, Ratio, RoundingMode};
use crate::domain::metering::Dimensions;
use proptest::prelude::*;

pub fn exact(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

pub fn quantity(text: &str) -> Ratio {
    exact(text).into()
}

pub fn pricing(text: &str) -> Pricing {
    Pricing::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

pub fn dimensions(text: &str) -> Dimensions {
    Dimensions::read(&Node::root(&json::parse(text).unwrap())).unwrap()
}

/// The exact amount of a quantity, as text.
pub fn rated(pricing: &Pricing, amount: &str) -> String {
    rate(pricing, amount).unwrap_or_else(|fault| panic!("{amount}: {fault}")).shown()
}

pub fn rate(pricing: &Pricing, amount: &str) -> Result<Ratio, Fault> {
    pricing.rate(&quantity(amount), &Dimensions::new(), 1)
}

/// What an invoice line would post: half up to the cent.
pub fn posted(amount: &Ratio) -> String {
    amount.round(2, RoundingMode::HalfUp).unwrap().to_fixed(2).unwrap()
}

/// A non-negative decimal text below `limit` with up to four places.
pub fn decimal_below(limit: i64) -> impl Strategy<Value = String> {
    (0..limit * 10_000, 0u32..=4)
        .prop_map(|(mantissa, scale)| Exact::from_parts((mantissa / 10i64.pow(4 - scale)).into(), scale))
        .prop_map(|value| value.unwrap().to_string())
}

pub fn quantity_up_to(limit: i64) -> impl Strategy<Value = Ratio> {
    decimal_below(limit).prop_map(|text| quantity(&text))
}

/// `,"key":"value"` or nothing.
fn maybe(key: &'static str, limit: i64) -> impl Strategy<Value = String> {
    proptest::option::of(decimal_below(limit))
        .prop_map(move |value| value.map_or(String::new(), |v| format!(r#","{key}":"{v}""#)))
}

/// `,"least":"…","most":"…"` in order, or parts of it.
fn maybe_bounds(least: &'static str, most: &'static str, limit: i64) -> impl Strategy<Value = String> {
    let bound = || proptest::option::weighted(0.3, 0..limit * 100);
    (bound(), bound()).prop_map(move |(a, b)| {
        let (minimum, maximum) = match (a, b) {
            (Some(a), Some(b)) => (Some(a.min(b)), Some(a.max(b))),
            other => other,
        };
        let field = |key: &str, value: Option<i64>| {
            value.map_or(String::new(), |v| {
                format!(r#","{key}":"{}""#, Exact::from_parts(v.into(), 2).unwrap())
            })
        };
        field(least, minimum) + &field(most, maximum)
    })
}

fn per() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::new()),
        1 => Just(r#","per":1000"#.to_string()),
        1 => Just(r#","per":"3600""#.to_string()),
        1 => Just(r#","per":"0.7""#.to_string()),
    ]
}

/// Tiers with ascending ends; `fields` draws what else a tier has.
fn tiers(
    fields: impl Strategy<Value = String> + Clone,
    open: impl Strategy<Value = bool>,
) -> impl Strategy<Value = String> {
    (proptest::collection::vec((1i64..2_000_000, fields), 1..7), open).prop_map(|(tiers, open)| {
        let last = tiers.len() - 1;
        let mut end = 0;
        let mut items = Vec::new();
        for (at, (width, fields)) in tiers.into_iter().enumerate() {
            end += width;
            items.push(if open && at == last {
                format!("{{{fields}}}")
            } else {
                format!(r#"{{"up_to":"{}",{fields}}}"#, Exact::from_parts(end.into(), 2).unwrap())
            });
        }
        format!(r#""tiers":[{}]"#, items.join(","))
    })
}

fn unit_tier() -> impl Strategy<Value = String> + Clone {
    let package = prop_oneof![
        4 => Just(String::new()),
        1 => (1..500i64).prop_map(|size| format!(r#","package_size":{size}"#)),
    ];
    (decimal_below(5), maybe("flat_fee", 50), maybe("maximum", 9_000), package)
        .prop_map(|(price, fee, cap, package)| format!(r#""unit_price":"{price}"{fee}{cap}{package}"#))
        .boxed()
}

fn plain_tier() -> impl Strategy<Value = String> + Clone {
    (decimal_below(5), maybe("flat_fee", 50))
        .prop_map(|(price, fee)| format!(r#""unit_price":"{price}"{fee}"#))
        .boxed()
}

/// The text of a model that is no matrix, without the terms any model may add; tiers are open when told.
fn model_text(open: bool) -> BoxedStrategy<String> {
    let open = move || if open { Just(true).boxed() } else { any::<bool>().boxed() };
    let rate_tier = (decimal_below(1), maybe("flat_fee", 50), maybe("maximum", 900))
        .prop_map(|(rate, fee, cap)| format!(r#""rate":"{rate}"{fee}{cap}"#))
        .boxed();
    let step = decimal_below(900).prop_map(|amount| format!(r#""amount":"{amount}""#)).boxed();
    let percentage = (
        decimal_below(1),
        maybe("fixed", 2),
        maybe("free_amount", 300),
        0u64..4,
        maybe_bounds("per_event_minimum", "per_event_maximum", 9),
    );
    prop_oneof![
        decimal_below(900).prop_map(|amount| format!(r#""model":"flat","amount":"{amount}""#)),
        (decimal_below(9), per())
            .prop_map(|(price, per)| format!(r#""model":"per_unit","unit_price":"{price}"{per}"#)),
        tiers(unit_tier(), open()).prop_map(|tiers| format!(r#""model":"graduated",{tiers}"#)),
        tiers(unit_tier(), open()).prop_map(|tiers| format!(r#""model":"volume",{tiers}"#)),
        (tiers(plain_tier(), open()), per())
            .prop_map(|(tiers, per)| format!(r#""model":"graduated",{tiers}{per}"#)),
        tiers(step, open()).prop_map(|tiers| format!(r#""model":"stairstep",{tiers}"#)),
        tiers(rate_tier, open()).prop_map(|tiers| format!(r#""model":"graduated_percentage",{tiers}"#)),
        (decimal_below(90), 1..500i64, any::<bool>()).prop_map(|(amount, size, least)| format!(
            r#""model":"package","package_size":"{size}","amount":"{amount}","minimum_one_package":{least}"#
        )),
        percentage.prop_map(|(rate, fixed, free, events, bounds)| format!(
            r#""model":"percentage","rate":"{rate}"{fixed}{free},"free_events":{events}{bounds}"#
        )),
        maybe("multiplier", 3).prop_map(|multiplier| format!(r#""model":"dynamic"{multiplier}"#)),
    ]
    .boxed()
}

fn terms_text() -> impl Strategy<Value = String> {
    (
        proptest::option::weighted(0.3, decimal_below(500)),
        maybe_bounds("minimum", "maximum", 3_000),
        proptest::option::weighted(0.2, decimal_below(2)),
        any::<bool>(),
    )
        .prop_map(|(free, bounds, floor, first)| {
            let field = |key: &str, value: Option<String>| {
                value.map_or(String::new(), |v| format!(r#","{key}":"{v}""#))
            };
            let first = if first { r#","first_flat_at_zero":true"# } else { "" };
            field("free_units", free) + &bounds + &field("unit_price_floor", floor) + first
        })
}

fn single_text(open: bool) -> BoxedStrategy<String> {
    (model_text(open), terms_text()).prop_map(|(model, terms)| format!("{{{model}{terms}}}")).boxed()
}

/// A match or an event's dimensions: a subset of m, r, t with values a and b.
fn values_text() -> impl Strategy<Value = String> + Clone {
    proptest::collection::btree_map("[mrt]", "[ab]", 0..4).prop_map(|map| {
        let fields: Vec<String> = map.iter().map(|(name, value)| format!(r#""{name}":"{value}""#)).collect();
        format!("{{{}}}", fields.join(","))
    })
}

fn matrix_text() -> BoxedStrategy<String> {
    let row = prop_oneof![
        3 => (decimal_below(9), maybe_bounds("minimum", "maximum", 300), maybe("free_units", 50))
            .prop_map(|(price, bounds, free)| format!(r#""unit_price":"{price}"{bounds}{free}"#)),
        1 => single_text(true).prop_map(|pricing| format!(r#""pricing":{pricing}"#)),
    ];
    let rows = proptest::collection::btree_map(values_text(), row, 1..12);
    let names = Just(vec!["m", "r", "t"]).prop_shuffle();
    (names, rows, per(), maybe_bounds("minimum", "maximum", 3_000), maybe("unit_price_floor", 1))
        .prop_map(|(names, rows, per, bounds, floor)| {
            let rows: Vec<String> =
                rows.iter().map(|(matched, row)| format!(r#"{{"match":{matched},{row}}}"#)).collect();
            let (rows, names) = (rows.join(","), names.join(r#"",""#));
            format!(r#"{{"model":"matrix","dimensions":["{names}"],"rows":[{rows}]{per}{bounds}{floor}}}"#)
        })
        .boxed()
}

/// Any valid pricing.
pub fn any_pricing() -> BoxedStrategy<Pricing> {
    prop_oneof![5 => single_text(false), 1 => matrix_text()].prop_map(|text| pricing(&text)).boxed()
}

pub fn any_matrix() -> BoxedStrategy<Pricing> {
    matrix_text().prop_map(|text| pricing(&text)).boxed()
}

/// Graduated with an open last tier, and nothing that any model may add.
pub fn any_graduated() -> BoxedStrategy<Pricing> {
    prop_oneof![
        tiers(unit_tier(), Just(true)).prop_map(|tiers| format!(r#"{{"model":"graduated",{tiers}}}"#)),
        (tiers(plain_tier(), Just(true)), per())
            .prop_map(|(tiers, per)| format!(r#"{{"model":"graduated",{tiers}{per}}}"#)),
    ]
    .prop_map(|text| pricing(&text))
    .boxed()
}

pub fn any_dimensions() -> BoxedStrategy<Dimensions> {
    values_text().prop_map(|text| dimensions(&text)).boxed()
}

/// Linear pricings without a floor: with bounds now and then, prices of either sign where allowed.
pub fn any_linear() -> BoxedStrategy<Pricing> {
    let sign = || prop_oneof![Just(""), Just("-")];
    let row = (values_text(), sign(), decimal_below(9)).prop_map(|(matched, sign, price)| {
        (matched.clone(), format!(r#"{{"match":{matched},"unit_price":"{sign}{price}"}}"#))
    });
    let rows = proptest::collection::vec(row, 1..8).prop_map(|rows| {
        let unique: std::collections::BTreeMap<String, String> = rows.into_iter().collect();
        unique.into_values().collect::<Vec<_>>().join(",")
    });
    let model = prop_oneof![
        (sign(), decimal_below(9), per()).prop_map(|(sign, price, per)| format!(
            r#""model":"per_unit","unit_price":"{sign}{price}"{per}"#
        )),
        decimal_below(1).prop_map(|rate| format!(r#""model":"percentage","rate":"{rate}""#)),
        maybe("multiplier", 3).prop_map(|multiplier| format!(r#""model":"dynamic"{multiplier}"#)),
        (rows, per()).prop_map(|(rows, per)| format!(
            r#""model":"matrix","dimensions":["m","r","t"],"rows":[{rows}]{per}"#
        )),
    ];
    (model, maybe_bounds("minimum", "maximum", 3_000))
        .prop_map(|(model, bounds)| pricing(&format!("{{{model}{bounds}}}")))
        .boxed()
}
