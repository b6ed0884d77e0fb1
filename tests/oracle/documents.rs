//! Random pricing documents and questions about them, for the engine and the oracle alike.
//!
//! Documents are valid as they are made; `Damage` makes them invalid. Quantities are drawn where prices
//! change: on the ends of tiers, whole packages, the ends of free parts, the amounts at which a bound
//! starts to hold, and a unit, half a unit or 1e-12 beside them.

use super::oracle::{dec, text};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

type Number = BigRational;
type Fields = Map<String, Value>;

// ---------------------------------------------------------------- numbers

/// `units / 10^places` as text, sometimes with an exponent or zeros that say nothing.
fn written(units: i128, places: u32, form: u8) -> String {
    let value = Number::new(BigInt::from(units), BigInt::from(10).pow(places));
    match form {
        0 => format!("{units}e-{places}"),
        1 if !value.is_integer() => format!("{}00", text(&value)),
        _ => text(&value),
    }
}

/// A decimal ≥ 0: `below` as an integer or with four places, or something with twelve places.
fn decimal(below: i128) -> impl Strategy<Value = String> + Clone {
    let units = prop_oneof![
        1 => Just((0, 0)),
        3 => (0..below).prop_map(|units| (units, 0)),
        4 => (0..below * 10_000).prop_map(|units| (units, 4)),
        1 => (0..1000i128).prop_map(|units| (units, 12)),
        1 => (0..below * 10i128.pow(12)).prop_map(|units| (units, 12)),
    ];
    (units, 0u8..8).prop_map(|((units, places), form)| written(units, places, form)).boxed()
}

fn positive(below: i128) -> impl Strategy<Value = String> + Clone {
    decimal(below).prop_map(|value| if dec(&value).is_zero() { "1".to_string() } else { value }).boxed()
}

/// A size or count as people write it: bare where it is an integer, now and then in quotes.
fn size(below: i128) -> impl Strategy<Value = Value> + Clone {
    (positive(below), any::<bool>())
        .prop_map(|(value, bare)| match dec(&value).to_integer().to_u64() {
            Some(integer) if bare && dec(&value).is_integer() => json!(integer),
            _ => json!(value),
        })
        .boxed()
}

fn per() -> impl Strategy<Value = Option<Value>> + Clone {
    weighted(0.4, prop_oneof![Just(json!(3600)), Just(json!("1000")), Just(json!(7)), size(50)]).boxed()
}

fn put<V: Into<Value>>(fields: &mut Fields, name: &str, value: Option<V>) {
    if let Some(value) = value {
        fields.insert(name.to_string(), value.into());
    }
}

fn optional(share: f64, below: i128) -> impl Strategy<Value = Option<String>> + Clone {
    weighted(share, decimal(below)).boxed()
}

/// Two bounds, the first not above the second, either of which may be absent.
fn bounds(below: i128) -> impl Strategy<Value = (Option<String>, Option<String>)> + Clone {
    (optional(0.3, below), optional(0.3, below))
        .prop_map(|bounds| match bounds {
            (Some(a), Some(b)) if dec(&a) > dec(&b) => (Some(b), Some(a)),
            bounds => bounds,
        })
        .boxed()
}

// ---------------------------------------------------------------- models

/// What any model may add, put into the fields of one.
fn with_terms(model: impl Strategy<Value = Fields> + 'static, floor: i128) -> BoxedStrategy<Value> {
    let terms = (optional(0.3, 500), bounds(3_000), optional(0.2, floor), weighted(0.4, any::<bool>()));
    (model, terms, prop::bool::weighted(0.1))
        .prop_map(|(mut fields, (free_units, (minimum, maximum), floor, first_flat), nulls)| {
            if nulls {
                for name in ["free_units", "minimum", "maximum", "unit_price_floor", "first_flat_at_zero"] {
                    fields.insert(name.to_string(), Value::Null);
                }
            }
            put(&mut fields, "free_units", free_units);
            put(&mut fields, "minimum", minimum);
            put(&mut fields, "maximum", maximum);
            put(&mut fields, "unit_price_floor", floor);
            put(&mut fields, "first_flat_at_zero", first_flat);
            Value::Object(fields)
        })
        .boxed()
}

fn model(name: &str) -> Fields {
    Fields::from_iter([("model".to_string(), json!(name))])
}

/// Prices of either sign, where a document may have them.
fn signed(below: i128) -> impl Strategy<Value = String> + Clone {
    (decimal(below), prop::bool::weighted(0.15))
        .prop_map(|(value, negative)| if negative { format!("-{value}") } else { value })
        .boxed()
}

pub fn flat() -> BoxedStrategy<Value> {
    let fields = signed(900).prop_map(|amount| {
        let mut fields = model("flat");
        put(&mut fields, "amount", Some(amount));
        fields
    });
    with_terms(fields, 900)
}

pub fn per_unit() -> BoxedStrategy<Value> {
    let fields = (signed(9), per()).prop_map(|(price, per)| {
        let mut fields = model("per_unit");
        put(&mut fields, "unit_price", Some(price));
        put(&mut fields, "per", per);
        fields
    });
    with_terms(fields, 9)
}

pub fn dynamic() -> BoxedStrategy<Value> {
    let fields = (optional(0.8, 3), any::<bool>()).prop_map(|(multiplier, named)| {
        let mut fields = model("dynamic");
        put(&mut fields, "multiplier", multiplier);
        put(&mut fields, "amount_property", named.then_some("cost"));
        fields
    });
    with_terms(fields, 3)
}

pub fn package() -> BoxedStrategy<Value> {
    let fields = (size(500), decimal(90), weighted(0.5, any::<bool>())).prop_map(|(size, amount, least)| {
        let mut fields = model("package");
        put(&mut fields, "package_size", Some(size));
        put(&mut fields, "amount", Some(amount));
        put(&mut fields, "minimum_one_package", least);
        fields
    });
    with_terms(fields, 90)
}

/// A percentage; `clamped` says how often it has bounds per event.
pub fn percentage(clamped: f64) -> BoxedStrategy<Value> {
    let rate = prop_oneof![1 => Just("0".to_string()), 5 => decimal(1)];
    let event = (bounds(9), prop::bool::weighted(clamped));
    let fields = (rate, optional(0.6, 3), weighted(0.5, 0u64..5), optional(0.5, 400), event).prop_map(
        |(rate, fixed, free_events, free_amount, ((least, most), clamped))| {
            let mut fields = model("percentage");
            put(&mut fields, "rate", Some(rate));
            put(&mut fields, "fixed", fixed);
            put(&mut fields, "free_events", free_events);
            put(&mut fields, "free_amount", free_amount);
            if clamped {
                let least = if least.is_none() && most.is_none() { Some("0.5".to_string()) } else { least };
                put(&mut fields, "per_event_minimum", least);
                put(&mut fields, "per_event_maximum", most);
            }
            fields
        },
    );
    with_terms(fields, 1)
}

/// Tiers with rising ends, the last open or not; `fields` draws what else each has.
fn tiers(fields: impl Strategy<Value = Fields> + 'static) -> BoxedStrategy<Value> {
    let tier = (positive(3_000), fields);
    (prop::collection::vec(tier, 1..6), prop::bool::weighted(0.6))
        .prop_map(|(tiers, open)| {
            let last = tiers.len() - 1;
            let mut end = Number::zero();
            let mut list = Vec::new();
            for (at, (width, mut fields)) in tiers.into_iter().enumerate() {
                end += dec(&width);
                if !(open && at == last) {
                    fields.insert("up_to".to_string(), json!(text(&end)));
                }
                list.push(Value::Object(fields));
            }
            Value::Array(list)
        })
        .boxed()
}

fn unit_tier(packages: bool) -> impl Strategy<Value = Fields> {
    let fee = (prop::bool::weighted(0.1), optional(0.5, 50), optional(0.2, 900));
    (decimal(5), fee, weighted(0.4, size(200))).prop_map(move |(price, (only_fee, fee, cap), size)| {
        let mut fields = Fields::new();
        if only_fee && fee.is_some() {
            put(&mut fields, "flat_fee", fee);
        } else {
            put(&mut fields, "unit_price", Some(price));
            put(&mut fields, "flat_fee", fee);
            put(&mut fields, "package_size", size.filter(|_| packages));
        }
        put(&mut fields, "maximum", cap);
        fields
    })
}

fn tiered(
    name: &'static str,
    tiers: BoxedStrategy<Value>,
    per: BoxedStrategy<Option<Value>>,
    floor: i128,
) -> BoxedStrategy<Value> {
    let fields = (tiers, per).prop_map(move |(tiers, per)| {
        let mut fields = model(name);
        put(&mut fields, "tiers", Some(tiers));
        put(&mut fields, "per", per);
        fields
    });
    with_terms(fields, floor)
}

/// Tiers with unit prices: either some are sold in packages, or `per` divides the prices.
fn unit_tiers(name: &'static str) -> BoxedStrategy<Value> {
    prop_oneof![
        tiered(name, tiers(unit_tier(true)), Just(None).boxed(), 5),
        tiered(name, tiers(unit_tier(false)), per().boxed(), 5),
    ]
    .boxed()
}

pub fn graduated() -> BoxedStrategy<Value> {
    unit_tiers("graduated")
}

pub fn volume() -> BoxedStrategy<Value> {
    unit_tiers("volume")
}

pub fn stairstep() -> BoxedStrategy<Value> {
    let step = (decimal(900), optional(0.2, 900)).prop_map(|(amount, cap)| {
        let mut fields = Fields::new();
        put(&mut fields, "amount", Some(amount));
        put(&mut fields, "maximum", cap);
        fields
    });
    tiered("stairstep", tiers(step), Just(None).boxed(), 900)
}

pub fn graduated_percentage() -> BoxedStrategy<Value> {
    let tier = (decimal(1), optional(0.5, 50), optional(0.2, 900)).prop_map(|(rate, fee, cap)| {
        let mut fields = Fields::new();
        put(&mut fields, "rate", Some(rate));
        put(&mut fields, "flat_fee", fee);
        put(&mut fields, "maximum", cap);
        fields
    });
    tiered("graduated_percentage", tiers(tier), Just(None).boxed(), 1)
}

/// Any model that may stand in a row.
pub fn single() -> BoxedStrategy<Value> {
    prop_oneof![
        flat(),
        per_unit(),
        dynamic(),
        package(),
        percentage(0.0),
        percentage(1.0),
        graduated(),
        volume(),
        stairstep(),
        graduated_percentage(),
    ]
    .boxed()
}

// ---------------------------------------------------------------- matrices

/// The dimensions of an event or a match: some of m, r, t with few values, so that rows meet events.
pub fn dimensions() -> impl Strategy<Value = BTreeMap<String, String>> + Clone {
    let value = select(vec!["a", "b", "1.5", "true"]);
    prop::collection::btree_map(select(vec!["m", "r", "t"]), value, 0..4)
        .prop_map(|map| map.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
        .boxed()
}

/// Numbers and booleans may stand in a match as such.
fn match_value(value: &str, bare: bool) -> Value {
    match value {
        "1.5" if bare => json!(1.5),
        "true" if bare => json!(true),
        text => json!(text),
    }
}

/// A row's price: a unit price, or a whole pricing some of whose terms stand beside it.
fn row() -> BoxedStrategy<Fields> {
    let plain = (signed(9), bounds(300), optional(0.2, 50)).prop_map(|(price, (least, most), free)| {
        let mut fields = Fields::new();
        put(&mut fields, "unit_price", Some(price));
        put(&mut fields, "minimum", least);
        put(&mut fields, "maximum", most);
        put(&mut fields, "free_units", free);
        fields
    });
    let whole = (single(), prop::array::uniform3(any::<bool>())).prop_map(|(mut pricing, beside)| {
        let mut fields = Fields::new();
        let inside = pricing.as_object_mut().expect("a pricing is an object");
        for (name, beside) in ["minimum", "maximum", "free_units"].iter().zip(beside) {
            if beside {
                put(&mut fields, name, inside.remove(*name));
            }
        }
        fields.insert("pricing".to_string(), pricing);
        fields
    });
    prop_oneof![plain, whole].boxed()
}

pub fn matrix() -> BoxedStrategy<Value> {
    let rows = prop::collection::btree_map(dimensions(), (row(), any::<bool>()), 1..10);
    let names = Just(vec!["m", "r", "t"]).prop_shuffle();
    let beside = (per(), bounds(3_000), optional(0.2, 2));
    (names, rows, beside)
        .prop_map(|(names, rows, (per, (least, most), floor))| {
            let row = |(matched, (mut fields, bare)): (BTreeMap<String, String>, (Fields, bool))| {
                let values = matched.iter().map(|(name, value)| (name.clone(), match_value(value, bare)));
                fields.insert("match".to_string(), Value::Object(values.collect()));
                Value::Object(fields)
            };
            let mut fields = model("matrix");
            put(&mut fields, "dimensions", Some(json!(names)));
            put(&mut fields, "rows", Some(rows.into_iter().map(row).collect::<Vec<Value>>()));
            put(&mut fields, "per", per);
            put(&mut fields, "minimum", least);
            put(&mut fields, "maximum", most);
            put(&mut fields, "unit_price_floor", floor);
            Value::Object(fields)
        })
        .boxed()
}

// ---------------------------------------------------------------- percent off

/// Percents of at most four places, so that no price of sixteen digits outgrows the engine's 28.
pub fn percent_off() -> impl Strategy<Value = Option<String>> {
    let some = select(vec!["0", "100", "50", "33.3333", "12.5", "0.0001", "99.9999"]);
    let percent =
        prop_oneof![some.prop_map(str::to_string), (0..=1_000_000i128).prop_map(|n| written(n, 4, 2))];
    weighted(0.4, percent)
}

// ---------------------------------------------------------------- quantities

/// A quantity as a place in a document still to be known.
#[derive(Debug, Clone)]
pub struct Pick {
    place: Index,
    times: i64,
    past_free: bool,
    beside: Beside,
    negative: bool,
}

#[derive(Debug, Clone)]
enum Beside {
    /// So many 1e-12 after the place.
    Hairs(i64),
    /// Half units after the place.
    Halves(i64),
    /// Something else altogether.
    Elsewhere(String),
}

pub fn pick() -> impl Strategy<Value = Pick> {
    let elsewhere = prop_oneof![
        4 => decimal(10_000),
        1 => (0..10i128.pow(28)).prop_map(|units| written(units, 12, 2)),
        1 => (0..10i128.pow(28)).prop_map(|units| written(units, 0, 2)),
        1 => (1i64..1000, select(vec![3i64, 7, 744])).prop_map(|(num, den)| format!("{num}/{den}")),
    ];
    let beside = prop_oneof![
        4 => Just(Beside::Hairs(0)),
        2 => Just(Beside::Hairs(1)),
        2 => Just(Beside::Hairs(-1)),
        3 => (-2i64..=2).prop_map(Beside::Halves),
        5 => elsewhere.prop_map(Beside::Elsewhere),
    ];
    let times = prop_oneof![4 => Just(1i64), 1 => 0i64..9];
    (any::<Index>(), times, any::<bool>(), beside, prop::bool::weighted(0.12)).prop_map(
        |(place, times, past_free, beside, negative)| Pick { place, times, past_free, beside, negative },
    )
}

/// The numbers of a document by the name of their field, wherever they stand in it.
#[derive(Default)]
struct Numbers(BTreeMap<String, Vec<Number>>);

impl Numbers {
    fn collect(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(written) if name != "model" && name != "amount_property" => {
                            self.add(name, written);
                        }
                        Value::Number(number) => self.add(name, &number.to_string()),
                        _ if name == "match" || name == "dimensions" => {}
                        value => self.collect(value),
                    }
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, name: &str, written: &str) {
        self.0.entry(name.to_string()).or_default().push(dec(written));
    }

    fn named<'n>(&'n self, names: &'n [&str]) -> impl Iterator<Item = &'n Number> {
        names.iter().flat_map(|name| self.0.get(*name).into_iter().flatten())
    }
}

/// Where the amounts of a document change their rule.
pub struct Places {
    places: Vec<Number>,
    free: Number,
}

impl Places {
    pub fn of(document: &Value) -> Places {
        let mut numbers = Numbers::default();
        numbers.collect(document);
        let mut places = vec![Number::zero()];
        places.extend(numbers.named(&["up_to", "package_size", "free_units", "free_amount", "per"]).cloned());
        let per = numbers.named(&["per"]).next().cloned().unwrap_or_else(|| dec("1"));
        for bound in numbers.named(&["minimum", "maximum", "per_event_minimum", "per_event_maximum"]) {
            for price in numbers.named(&["unit_price", "rate", "multiplier", "unit_price_floor"]) {
                if price.is_positive() && places.len() < 200 {
                    places.push(bound / price * &per);
                }
            }
        }
        let free = numbers.named(&["free_units", "free_amount"]).sum();
        Places { places, free }
    }

    pub fn quantity(&self, pick: &Pick) -> Number {
        let place = pick.place.get(&self.places) * Number::from_integer(pick.times.into());
        let place = if pick.past_free { place + &self.free } else { place };
        let quantity = match &pick.beside {
            Beside::Hairs(hairs) => place + Number::from_integer((*hairs).into()) * dec("1e-12"),
            Beside::Halves(halves) => place + Number::new((*halves).into(), 2.into()),
            Beside::Elsewhere(written) => dec(written),
        };
        if pick.negative { -quantity } else { quantity }
    }

    /// As `quantity`, cut to a decimal of at most 28 digits: the amount of an event.
    pub fn amount(&self, pick: &Pick) -> Number {
        let quantity = self.quantity(pick);
        let unit = dec(if quantity.abs() < dec("1e15") { "1e12" } else { "1" });
        (quantity * &unit).trunc() / unit
    }
}

// ---------------------------------------------------------------- damage

/// What makes a document invalid.
#[derive(Debug, Clone)]
pub struct Damage(Index);

pub fn damage() -> impl Strategy<Value = Damage> {
    any::<Index>().prop_map(Damage)
}

type Blow = Box<dyn Fn(&mut Value)>;

impl Damage {
    /// The document with one rule broken.
    pub fn done_to(&self, document: &Value) -> Value {
        let mut blows = anywhere();
        let object = document.as_object().expect("a pricing is an object");
        if object.contains_key("tiers") {
            blows.extend(to_tiers());
        }
        if object.contains_key("rows") {
            blows.extend(to_rows());
        }
        for name in ["amount", "unit_price", "package_size", "rate"] {
            if object.contains_key(name) {
                blows.push(Box::new(move |document| remove(document, name)));
                blows.push(set(name, json!("1,5")));
            }
        }
        for name in ["per", "package_size"] {
            if object.contains_key(name) {
                blows.push(set(name, json!(0)));
                blows.push(set(name, json!("-2")));
            }
        }
        if object["model"] == "percentage" {
            for name in ["rate", "fixed", "free_amount", "per_event_minimum", "per_event_maximum"] {
                blows.push(set(name, json!("-0.1")));
            }
            blows.push(set("free_events", json!(-1)));
            blows.push(Box::new(|document| {
                document["per_event_minimum"] = json!("2.01");
                document["per_event_maximum"] = json!("2");
            }));
        }
        let mut damaged = document.clone();
        self.0.get(&blows)(&mut damaged);
        damaged
    }
}

fn set(name: &'static str, value: Value) -> Blow {
    Box::new(move |document| document[name] = value.clone())
}

fn remove(document: &mut Value, name: &str) {
    document.as_object_mut().expect("a document is an object").remove(name);
}

fn anywhere() -> Vec<Blow> {
    let mut blows: Vec<Blow> = vec![
        Box::new(|document| {
            document["minimum"] = json!("5.001");
            document["maximum"] = json!("5");
        }),
        Box::new(|document| remove(document, "model")),
        set("model", json!("tiered")),
    ];
    for name in ["minimum", "maximum", "free_units", "unit_price_floor"] {
        blows.push(set(name, json!("-1")));
    }
    blows
}

fn to_tiers() -> Vec<Blow> {
    let mut blows: Vec<Blow> = vec![
        set("tiers", json!([])),
        Box::new(|document| remove(document, "tiers")),
        Box::new(|document| document["tiers"][0]["up_to"] = json!("0")),
        // The last tier once more, after its end or after an open one.
        Box::new(|document| {
            let tiers = document["tiers"].as_array_mut().expect("tiers are a list");
            tiers.extend(tiers.last().cloned());
        }),
        Box::new(|document| {
            for name in ["unit_price", "flat_fee", "amount", "rate"] {
                remove(&mut document["tiers"][0], name);
            }
        }),
    ];
    for name in ["unit_price", "flat_fee", "amount", "rate", "maximum"] {
        blows.push(Box::new(move |document| document["tiers"][0][name] = json!("-0.5")));
    }
    blows
}

fn to_rows() -> Vec<Blow> {
    vec![
        set("free_units", json!("3")),
        set("dimensions", json!([])),
        Box::new(|document| remove(document, "rows")),
        Box::new(|document| remove(&mut document["rows"][0], "match")),
        Box::new(|document| document["rows"][0]["match"]["planet"] = json!("earth")),
        Box::new(|document| {
            remove(&mut document["rows"][0], "unit_price");
            remove(&mut document["rows"][0], "pricing");
        }),
        Box::new(|document| {
            document["rows"][0]["unit_price"] = json!("1");
            document["rows"][0]["pricing"] = json!({"model": "flat", "amount": "1"});
        }),
        Box::new(|document| {
            let mut inner = document.clone();
            remove(&mut inner, "minimum");
            let row = &mut document["rows"][0];
            remove(row, "unit_price");
            row["pricing"] = inner;
        }),
        Box::new(|document| {
            let rows = document["rows"].as_array_mut().expect("rows are a list");
            rows.push(rows[0].clone());
        }),
        Box::new(|document| {
            document["rows"][0] = json!({"match": {}, "pricing": {"model": "flat", "amount": "1", "minimum": "1"}, "minimum": "1"});
        }),
        Box::new(|document| {
            document["rows"][0] = json!({"match": {}, "pricing": {"model": "flat", "amount": "1", "minimum": "3"}, "maximum": "2"});
        }),
    ]
}

/// A price that can be followed unit by unit: whole tiers, packages and free units, no maximum, nothing per event.
pub fn followed() -> BoxedStrategy<Value> {
    let tier = (1u64..40, decimal(5), optional(0.5, 50), weighted(0.3, 1u64..9));
    let tiers = (prop::collection::vec(tier, 1..5), any::<bool>()).prop_map(|(tiers, percent)| {
        let (last, mut end) = (tiers.len() - 1, 0);
        let tier = |(at, (width, price, fee, size)): (usize, (u64, String, Option<String>, Option<u64>))| {
            let mut fields = Fields::new();
            end += width;
            put(&mut fields, "up_to", (at < last).then(|| end.to_string()));
            put(&mut fields, if percent { "rate" } else { "unit_price" }, Some(price));
            put(&mut fields, "flat_fee", fee);
            put(&mut fields, "package_size", size.filter(|_| !percent));
            Value::Object(fields)
        };
        (percent, tiers.into_iter().enumerate().map(tier).collect::<Vec<_>>())
    });
    let named = (tiers, any::<bool>()).prop_map(|((percent, tiers), volume)| {
        let mut fields = model(match (percent, volume) {
            (true, _) => "graduated_percentage",
            (false, true) => "volume",
            (false, false) => "graduated",
        });
        put(&mut fields, "tiers", Some(Value::Array(tiers)));
        fields
    });
    let package = (1u64..20, decimal(90), any::<bool>()).prop_map(|(size, amount, least)| {
        let mut fields = model("package");
        put(&mut fields, "package_size", Some(size));
        put(&mut fields, "amount", Some(amount));
        put(&mut fields, "minimum_one_package", Some(least));
        fields
    });
    let unit = decimal(9).prop_map(|price| {
        let mut fields = model("per_unit");
        put(&mut fields, "unit_price", Some(price));
        fields
    });
    let percentage = (decimal(1), weighted(0.5, 0u64..60)).prop_map(|(rate, free)| {
        let mut fields = model("percentage");
        put(&mut fields, "rate", Some(rate));
        put(&mut fields, "free_amount", free.map(|free| free.to_string()));
        fields
    });
    let fields = prop_oneof![4 => named, 1 => package, 1 => unit, 1 => percentage];
    let terms = (weighted(0.3, 0u64..50), any::<bool>(), optional(0.2, 2));
    (fields, terms)
        .prop_map(|(mut fields, (free, at_zero, floor))| {
            put(&mut fields, "free_units", free.map(|free| free.to_string()));
            let at_zero = (at_zero && fields.contains_key("tiers")).then_some(true);
            put(&mut fields, "first_flat_at_zero", at_zero);
            put(&mut fields, "unit_price_floor", floor);
            Value::Object(fields)
        })
        .boxed()
}
