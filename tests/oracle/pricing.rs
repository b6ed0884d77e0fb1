//! A deliberately naive oracle for the pricing maths, written from the rule texts
//! (rules.md 0, 1, 2, 10, 11; design.md; definitions.md) and from nothing else.
//!
//! Everything is an exact fraction, nothing is fast, nothing is shared with the engine.
//! Where the texts leave room, the reading taken here is marked `READING:`; where this module and the
//! engine first read a text differently, `DECIDED:` quotes the words that settled it.
//! Unknown fields are not refused here: this module judges amounts, not documents.
#![allow(dead_code)]

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};
use serde_json::Value;
use std::collections::BTreeMap;

type Number = BigRational;
type Answer = Result<BigRational, String>;
type Dimensions = BTreeMap<String, String>;

// ---------------------------------------------------------------- numbers

/// Exact value of a decimal text: sign, digits, at most one point, optional exponent.
/// Panics on anything else; `read` is the variant that does not.
pub fn dec(text: &str) -> BigRational {
    read(text).unwrap_or_else(|problem| panic!("{problem}"))
}

/// As `dec`, also takes a fraction `a/b`, and answers with an error instead of a panic.
pub fn read(text: &str) -> Answer {
    let bad = || format!("not a decimal number: {text:?}");
    if let Some((above, below)) = text.split_once('/') {
        let below = read(below)?;
        if below.is_zero() {
            return Err(bad());
        }
        return Ok(read(above)? / below);
    }
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], rest[at + 1..].parse::<i32>().map_err(|_| bad())?),
        None => (rest, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let digits = digits.parse::<BigInt>().map_err(|_| bad())?;
    let places = i32::try_from(part.len()).map_err(|_| bad())? - exponent;
    let power = BigInt::from(10).pow(places.unsigned_abs());
    let value = if places > 0 { Number::new(digits, power) } else { Number::from_integer(digits * power) };
    Ok(if negative { -value } else { value })
}

/// The shortest text of an exact number: a finite decimal if there is one, else `a/b`.
pub fn text(x: &BigRational) -> String {
    let mut places = 0;
    let mut below = x.denom().clone();
    // Each decimal place removes one factor 2 and one factor 5 from the denominator.
    while !below.is_one() {
        let two = (&below % BigInt::from(2)).is_zero();
        let five = (&below % BigInt::from(5)).is_zero();
        if !two && !five {
            return format!("{}/{}", x.numer(), x.denom());
        }
        if two {
            below /= BigInt::from(2);
        }
        if five {
            below /= BigInt::from(5);
        }
        places += 1;
    }
    fixed(x, places)
}

/// A number that lies on the grid of `scale` decimals, written with exactly that many.
pub fn fixed(x: &BigRational, scale: u32) -> String {
    let units = x * ten_to(scale);
    assert!(units.is_integer(), "{x} has more than {scale} decimals");
    let digits = format!("{:0>width$}", units.to_integer().abs().to_string(), width = scale as usize + 1);
    let (whole, part) = digits.split_at(digits.len() - scale as usize);
    let sign = if units.is_negative() { "-" } else { "" };
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

fn whole_number(n: u64) -> Number {
    Number::from_integer(BigInt::from(n))
}

fn ten_to(scale: u32) -> Number {
    Number::from_integer(BigInt::from(10).pow(scale))
}

fn smaller(a: &Number, b: &Number) -> Number {
    if a <= b { a.clone() } else { b.clone() }
}

fn larger(a: &Number, b: &Number) -> Number {
    if a >= b { a.clone() } else { b.clone() }
}

// ---------------------------------------------------------------- fields of a document

/// A number field: a JSON string (amounts) or a JSON number (counts). Absent or null = None.
fn field(document: &Value, name: &str) -> Result<Option<Number>, String> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(written)) => read(written).map(Some),
        Some(Value::Number(number)) => read(&number.to_string()).map(Some),
        Some(other) => Err(format!("{name} is not a number: {other}")),
    }
}

fn required(document: &Value, name: &str) -> Answer {
    field(document, name)?.ok_or_else(|| format!("{name} is missing"))
}

fn or_zero(document: &Value, name: &str) -> Answer {
    Ok(field(document, name)?.unwrap_or_else(Number::zero))
}

fn flag(document: &Value, name: &str) -> bool {
    document.get(name) == Some(&Value::Bool(true))
}

fn model_of(pricing: &Value) -> Result<&str, String> {
    pricing.get("model").and_then(Value::as_str).ok_or_else(|| "model is missing".to_string())
}

fn not_negative(document: &Value, name: &str) -> Result<(), String> {
    match field(document, name)? {
        Some(value) if value.is_negative() => Err(format!("{name} is negative")),
        _ => Ok(()),
    }
}

// ---------------------------------------------------------------- rate

/// Exact amount of one pricing document for a whole quantity, minimum and maximum included.
pub fn rate(pricing: &Value, quantity: &BigRational, dimensions: &Dimensions, events: u64) -> Answer {
    check_document(pricing)?;
    let amount = model_amount(pricing, quantity, dimensions, events)?;
    minimum_and_maximum(pricing, amount)
}

/// rules 1: "min > max is invalid". Nested documents are checked as well, because
/// such a document is refused whole, whether or not the event selects the bad row.
/// READING: bounds, allowances and floors are never negative; of prices only a flat amount and a
/// per_unit price may be, since what a negative tier or package means is nowhere said.
fn check_document(pricing: &Value) -> Result<(), String> {
    for (low, high) in [("minimum", "maximum"), ("per_event_minimum", "per_event_maximum")] {
        if let (Some(low_value), Some(high_value)) = (field(pricing, low)?, field(pricing, high)?)
            && low_value > high_value
        {
            return Err(format!("{low} is above {high}"));
        }
    }
    for name in [
        "free_units",
        "free_amount",
        "free_events",
        "minimum",
        "maximum",
        "per_event_minimum",
        "per_event_maximum",
        "unit_price_floor",
        "rate",
        "fixed",
        "multiplier",
    ] {
        not_negative(pricing, name)?;
    }
    if !per(pricing)?.is_positive() {
        return Err("per is not positive".into());
    }
    match model_of(pricing)? {
        "matrix" => check_matrix(pricing),
        "graduated" | "volume" | "stairstep" | "graduated_percentage" => check_tiers(pricing),
        "package" => {
            not_negative(pricing, "amount")?;
            check_package_size(pricing)
        }
        // READING: a percentage without a rate is incomplete; one of nothing but a fixed part says "0".
        "percentage" => required(pricing, "rate").map(|_| ()),
        _ => Ok(()),
    }
}

fn check_package_size(document: &Value) -> Result<(), String> {
    if required(document, "package_size")?.is_positive() {
        Ok(())
    } else {
        Err("package_size is not positive".into())
    }
}

/// definitions 8. READING: minimum and maximum compare with the signed amount (the true-up is
/// "minimum − Σ posted lines"), so they are not mirrored for a negative quantity. The minimum
/// also holds at quantity 0.
fn minimum_and_maximum(document: &Value, amount: Number) -> Answer {
    let mut amount = amount;
    if let Some(minimum) = field(document, "minimum")? {
        amount = larger(&amount, &minimum);
    }
    if let Some(maximum) = field(document, "maximum")? {
        amount = smaller(&amount, &maximum);
    }
    Ok(amount)
}

/// The charge model alone: free units first (rules 1, order of adjustments: 1 free units,
/// 2 charge model, 4 minimum and maximum), then the model's own formula.
fn model_amount(pricing: &Value, quantity: &Number, dimensions: &Dimensions, events: u64) -> Answer {
    let model = model_of(pricing)?;
    match model {
        // The quantity is ignored, so zero and negative quantities bill the amount as well.
        // READING: free_units have nothing to act on here.
        "flat" => price(pricing, pricing, "amount"),
        "per_unit" => {
            let units = after_free_units(pricing, quantity)?;
            Ok(units * price(pricing, pricing, "unit_price")? / per(pricing)?)
        }
        "graduated" | "volume" | "graduated_percentage" | "stairstep" | "package" => {
            // Looked at before the free units, which would otherwise turn it into 0.
            if quantity.is_negative() {
                return Err(format!("negative quantity on {model}"));
            }
            let units = after_free_units(pricing, quantity)?;
            match model {
                "graduated" | "graduated_percentage" => graduated(pricing, &units),
                "volume" => volume(pricing, &units),
                "stairstep" => stairstep(pricing, &units),
                _ => package(pricing, &units),
            }
        }
        "percentage" => percentage(pricing, quantity, events),
        // definitions 11: "dynamic: the meter's value is the amount".
        // READING: multiplier defaults to 1.
        "dynamic" => {
            let amount = after_free_units(pricing, quantity)?;
            let multiplier = field(pricing, "multiplier")?.unwrap_or_else(Number::one);
            Ok(amount * floored(pricing, multiplier)?)
        }
        "matrix" => matrix(pricing, quantity, dimensions, events),
        other => Err(format!("unknown model {other}")),
    }
}

/// max(0, q − free); "linear models mirror" (definitions 8), so without free units a negative quantity
/// keeps its sign.
///
/// READING: with free units it can't be rated. Definitions 29 sets linear models, whose lines may be
/// split at an instant, against tiered ones; free units, the zero tier of definitions 4, make a model
/// of the second kind, and no text says which of −(|q| − free), q and 0 a negative quantity would be.
fn after_free_units(document: &Value, quantity: &Number) -> Answer {
    let free = or_zero(document, "free_units")?;
    if free.is_zero() {
        return Ok(quantity.clone());
    }
    if quantity.is_negative() {
        return Err("negative quantity with free units".into());
    }
    Ok(larger(&(quantity - free), &Number::zero()))
}

/// definitions 8: "`per` (default 1) fits every model with unit prices".
fn per(document: &Value) -> Answer {
    Ok(field(document, "per")?.unwrap_or_else(Number::one))
}

/// The price called `name` that `holder` has, not below the document's floor.
fn price(document: &Value, holder: &Value, name: &str) -> Answer {
    floored(document, required(holder, name)?)
}

/// DECIDED: definitions 8, "`unit_price_floor` is a field of any model", so what it holds up is the price
/// of each model: unit_price (of a unit, or of a tier's package), amount (flat, a package, a step), rate,
/// multiplier. Not the fees beside a price (flat_fee, fixed): rules 1, "floor applies to the *unit price*
/// after discounts".
/// READING: it is a price for the same `per` as the unit price, and raises a price of 0 too.
fn floored(document: &Value, price: Number) -> Answer {
    Ok(match field(document, "unit_price_floor")? {
        Some(floor) => larger(&price, &floor),
        None => price,
    })
}

// ---------------------------------------------------------------- tiers

/// A tier holds (lower, upper]; upper = None is without end.
struct Tier<'a> {
    lower: Number,
    upper: Option<Number>,
    terms: &'a Value,
}

fn tiers(pricing: &Value) -> Result<Vec<Tier<'_>>, String> {
    let list = pricing.get("tiers").and_then(Value::as_array).ok_or("tiers are missing")?;
    let mut tiers = Vec::new();
    let mut lower = Number::zero();
    for (position, terms) in list.iter().enumerate() {
        let upper = field(terms, "up_to")?;
        match &upper {
            None if position + 1 < list.len() => return Err("only the last tier may lack up_to".into()),
            Some(end) if *end <= lower => return Err("up_to does not rise".into()),
            _ => {}
        }
        let next = upper.clone().unwrap_or_else(Number::zero);
        tiers.push(Tier { lower, upper, terms });
        lower = next;
    }
    if tiers.is_empty() {
        return Err("tiers are empty".into());
    }
    Ok(tiers)
}

fn check_tiers(pricing: &Value) -> Result<(), String> {
    for tier in tiers(pricing)? {
        for name in ["unit_price", "amount", "rate", "flat_fee", "maximum"] {
            not_negative(tier.terms, name)?;
        }
        if field(tier.terms, "package_size")?.is_some() {
            check_package_size(tier.terms)?;
            required(tier.terms, "unit_price")?;
            // READING: `per` would divide the price of a package; no text wants that.
            if !per(pricing)?.is_one() {
                return Err("package_size in a tier beside per".into());
            }
        }
        let needed: &[&str] = match model_of(pricing)? {
            "stairstep" => &["amount"],
            "graduated_percentage" => &["rate"],
            _ => &["unit_price", "flat_fee"],
        };
        if needed.iter().all(|name| tier.terms.get(name).is_none_or(Value::is_null)) {
            return Err("a tier without a price".into());
        }
    }
    Ok(())
}

/// The tier whose (lower, upper] contains the quantity; `up_to` is inclusive.
/// Quantity 0 lies below every tier and is looked up in the first.
fn tier_of<'a>(pricing: &'a Value, quantity: &Number) -> Result<Tier<'a>, String> {
    for tier in tiers(pricing)? {
        match &tier.upper {
            Some(upper) if quantity > upper => {}
            _ => return Ok(tier),
        }
    }
    Err("quantity above the last tier".into())
}

/// What the units inside one tier cost, without its flat fee and its cap.
/// A tier with package_size sells whole packages, rounded up inside the tier (rules 1).
/// DECIDED: rules 1, "tier(up_to, unit_price, flat_fee, package_size)": a package costs the unit_price.
fn units_in_tier(pricing: &Value, terms: &Value, units: &Number) -> Answer {
    if field(terms, "rate")?.is_some() {
        return Ok(units * price(pricing, terms, "rate")?);
    }
    if let Some(size) = field(terms, "package_size")? {
        return Ok((units / size).ceil() * price(pricing, terms, "unit_price")?);
    }
    if field(terms, "unit_price")?.is_none() {
        // READING: a tier may be a flat fee only; its units are then free.
        return Ok(Number::zero());
    }
    Ok(units * price(pricing, terms, "unit_price")? / per(pricing)?)
}

/// READING: a tier's maximum caps that tier's whole amount, flat fee included.
fn capped_by_tier(terms: &Value, amount: Number) -> Answer {
    Ok(match field(terms, "maximum")? {
        Some(cap) => smaller(&amount, &cap),
        None => amount,
    })
}

/// Each unit at the price (or, graduated percentage, the rate) of the tier it falls in; the flat
/// fee of every tier entered, that is with quantity above its lower bound.
/// first_flat_at_zero also charges the first tier's fee when nothing (chargeable) was used.
fn graduated(pricing: &Value, quantity: &Number) -> Answer {
    tier_of(pricing, quantity)?; // a quantity above the last tier is an error
    let mut total = Number::zero();
    for (position, tier) in tiers(pricing)?.into_iter().enumerate() {
        let entered = *quantity > tier.lower;
        let top = match &tier.upper {
            Some(upper) => smaller(quantity, upper),
            None => quantity.clone(),
        };
        let units = if entered { top - &tier.lower } else { Number::zero() };
        let mut amount = units_in_tier(pricing, tier.terms, &units)?;
        let at_zero = position == 0 && quantity.is_zero() && flag(pricing, "first_flat_at_zero");
        if entered || at_zero {
            amount += or_zero(tier.terms, "flat_fee")?;
            total += capped_by_tier(tier.terms, amount)?;
        }
    }
    Ok(total)
}

/// The tier that contains the whole quantity prices all of it; only its flat fee counts.
/// READING: at quantity 0 no flat fee, unless first_flat_at_zero.
fn volume(pricing: &Value, quantity: &Number) -> Answer {
    let tier = tier_of(pricing, quantity)?;
    let mut amount = units_in_tier(pricing, tier.terms, quantity)?;
    if quantity.is_positive() || flag(pricing, "first_flat_at_zero") {
        amount += or_zero(tier.terms, "flat_fee")?;
    }
    capped_by_tier(tier.terms, amount)
}

/// The flat price of the step that contains the quantity.
/// READING: quantity 0 lies in no step (steps are (lower, upper]) but is no missing rate either:
/// nothing was used, so 0; the first step's amount with first_flat_at_zero.
/// DECIDED: definitions 8, "a tier may have `maximum`": steps are tiers.
fn stairstep(pricing: &Value, quantity: &Number) -> Answer {
    let step = tier_of(pricing, quantity)?;
    let amount = price(pricing, step.terms, "amount")?;
    if quantity.is_zero() && !flag(pricing, "first_flat_at_zero") {
        return Ok(Number::zero());
    }
    capped_by_tier(step.terms, amount)
}

/// ceil(max(0, q − free) / size) × price; the free units are already taken off.
/// READING: minimum_one_package also bills one package where free units cover everything.
fn package(pricing: &Value, units: &Number) -> Answer {
    let mut packages = (units / required(pricing, "package_size")?).ceil();
    if flag(pricing, "minimum_one_package") {
        packages = larger(&packages, &Number::one());
    }
    Ok(packages * price(pricing, pricing, "amount")?)
}

// ---------------------------------------------------------------- percentage

fn has_per_event(pricing: &Value) -> bool {
    ["per_event_minimum", "per_event_maximum"]
        .iter()
        .any(|name| pricing.get(*name).is_some_and(|v| !v.is_null()))
}

/// definitions 11, without per_event_*: rate × max(0, Σ − free_amount) + fixed × max(0, n − free_events).
///
/// DECIDED: with a free amount a negative Σ pays no rate, by that formula. The fixed part counts events,
/// of which there are never fewer than none, and keeps its sign.
/// READING: without a free amount "linear models mirror" (definitions 8) and Σ keeps its sign.
/// READING: free_units of a percentage are units of its amount, on top of free_amount.
/// READING: a document with per_event_* cannot be rated from a sum: with one event the quantity
/// is that event's amount, with none the quantity must be 0, with more it is an error.
fn percentage(pricing: &Value, quantity: &Number, events: u64) -> Answer {
    if has_per_event(pricing) {
        return match events {
            0 if quantity.is_zero() => Ok(Number::zero()),
            1 => percentage_event_by_event(pricing, std::slice::from_ref(quantity)),
            _ => Err("per_event_minimum and per_event_maximum need the single amounts".into()),
        };
    }
    let rate = price(pricing, pricing, "rate")?;
    let fixed = or_zero(pricing, "fixed")?;
    let charged_events = whole_number(events) - or_zero(pricing, "free_events")?;
    let charged_events = larger(&charged_events, &Number::zero());
    Ok(rate * beyond_free_amount(pricing, quantity)? + fixed * charged_events)
}

/// The part of an amount that pays the rate.
fn beyond_free_amount(pricing: &Value, amount: &Number) -> Answer {
    let free = or_zero(pricing, "free_amount")? + or_zero(pricing, "free_units")?;
    if free.is_zero() {
        return Ok(amount.clone());
    }
    Ok(larger(&(amount - free), &Number::zero()))
}

/// Amount of events given one by one, in (occurred_at, event_key) order.
/// DECIDED: definitions 11, "A charge with `per_event_*` is rated from its events", also where such a
/// pricing stands in the row of a matrix. READING: rate_events has no dimensions, so that row is the one
/// that matches none.
pub fn rate_events(pricing: &Value, amounts: &[BigRational]) -> Answer {
    check_document(pricing)?;
    if model_of(pricing)? == "matrix" {
        let row = select_row(pricing, &Dimensions::new())?;
        return minimum_and_maximum(pricing, rate_events(&row_document(pricing, row)?, amounts)?);
    }
    if model_of(pricing)? == "percentage" && has_per_event(pricing) {
        let total = percentage_event_by_event(pricing, amounts)?;
        return minimum_and_maximum(pricing, total);
    }
    let mut sum = Number::zero();
    for amount in amounts {
        sum += amount;
    }
    rate(pricing, &sum, &Dimensions::new(), amounts.len() as u64)
}

/// definitions 11: "the first free_events pay no fixed part, the first free_amount of the running
/// amount no rate, an event wholly free is 0, the others are clamped".
///
/// DECIDED: an event is wholly free if an allowance applies to it (it is one of the first free_events, or
/// lies inside the free amount) and what remains due is nothing, whether because that is allowed too,
/// because the document has no such part (rate "0", no fixed) or because the event's amount is 0.
/// DECIDED: an amount of 0 without any allowance is one of "the others" and is clamped up.
/// READING: a negative event is the mirror of its charge (rules 0.3), clamps included: clamping −2.60 up
/// to a minimum of 0.50 would charge for a refund.
fn percentage_event_by_event(pricing: &Value, amounts: &[Number]) -> Answer {
    let rate = price(pricing, pricing, "rate")?;
    let fixed = or_zero(pricing, "fixed")?;
    let free_amount = or_zero(pricing, "free_amount")? + or_zero(pricing, "free_units")?;
    let free_events = or_zero(pricing, "free_events")?;
    let mut running = Number::zero();
    let mut total = Number::zero();
    for (position, amount) in amounts.iter().enumerate() {
        let before = beyond_free_amount(pricing, &running)?;
        running += amount;
        let after = beyond_free_amount(pricing, &running)?;
        let rate_part = &rate * (after - before);

        let inside_free_amount = free_amount.is_positive() && running <= free_amount;
        let inside_free_events = whole_number(position as u64 + 1) <= free_events;
        let fixed_part = if inside_free_events { Number::zero() } else { fixed.clone() };
        let nothing_due = rate_part.is_zero() && fixed_part.is_zero();
        if nothing_due && (inside_free_amount || inside_free_events) {
            continue; // wholly free
        }
        let mut charge = rate_part.abs() + fixed_part;
        if let Some(minimum) = field(pricing, "per_event_minimum")? {
            charge = larger(&charge, &minimum);
        }
        if let Some(maximum) = field(pricing, "per_event_maximum")? {
            charge = smaller(&charge, &maximum);
        }
        if amount.is_negative() {
            total -= charge;
        } else {
            total += charge;
        }
    }
    Ok(total)
}

// ---------------------------------------------------------------- matrix

fn matrix_rows(pricing: &Value) -> Result<&Vec<Value>, String> {
    pricing.get("rows").and_then(Value::as_array).ok_or_else(|| "rows are missing".to_string())
}

/// The dimensions a row names, with the value each must have; definitions 22: "the string itself, a
/// number or boolean its canonical text".
fn match_of(row: &Value) -> Result<Dimensions, String> {
    let mut wanted = Dimensions::new();
    let given = row.get("match").and_then(Value::as_object).ok_or("match is not an object")?;
    for (name, value) in given {
        let value = match value {
            Value::String(written) => written.clone(),
            Value::Number(number) => text(&read(&number.to_string())?),
            Value::Bool(flag) => flag.to_string(),
            _ => return Err("a match value is no text, number or boolean".into()),
        };
        wanted.insert(name.clone(), value);
    }
    Ok(wanted)
}

fn declared_dimensions(pricing: &Value) -> Vec<String> {
    let list = pricing.get("dimensions").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_string)).collect()
}

fn check_matrix(pricing: &Value) -> Result<(), String> {
    if field(pricing, "free_units")?.is_some() {
        return Err("free_units beside rows".into()); // definitions 8
    }
    let declared = declared_dimensions(pricing);
    if declared.is_empty() {
        return Err("a matrix without dimensions".into());
    }
    let mut seen: Vec<Dimensions> = Vec::new();
    for row in matrix_rows(pricing)? {
        let wanted = match_of(row)?;
        for name in wanted.keys() {
            if !declared.contains(name) {
                return Err(format!("match names {name}, which is not declared"));
            }
        }
        // Two rows that match one event with the same set of dimensions name the same values:
        // exactly these rows still tie after the priority, and are refused.
        if seen.contains(&wanted) {
            return Err("two rows tie".into());
        }
        seen.push(wanted);
        check_document(&row_document(pricing, row)?)?;
    }
    Ok(())
}

/// The one row that prices an event: all dimensions it names equal the event's, most of them
/// named; ties go to the row naming the dimension that is declared first.
fn select_row<'a>(pricing: &'a Value, dimensions: &Dimensions) -> Result<&'a Value, String> {
    let mut candidates = Vec::new();
    for row in matrix_rows(pricing)? {
        let wanted = match_of(row)?;
        if wanted.iter().all(|(name, value)| dimensions.get(name) == Some(value)) {
            candidates.push((row, wanted));
        }
    }
    let most = candidates.iter().map(|(_, wanted)| wanted.len()).max();
    candidates.retain(|(_, wanted)| Some(wanted.len()) == most);
    for name in declared_dimensions(pricing) {
        if candidates.iter().any(|(_, wanted)| wanted.contains_key(&name)) {
            candidates.retain(|(_, wanted)| wanted.contains_key(&name));
        }
    }
    match candidates.as_slice() {
        [] => Err("no row matches: unrated".into()),
        [(row, _)] => Ok(row),
        _ => Err("two rows tie".into()),
    }
}

/// The row written out as the document it stands for: a unit_price is a per_unit document with the `per`
/// and the floor beside the rows; a whole pricing stands on its own, so that `per`, `unit_price_floor` and
/// `first_flat_at_zero` beside the rows do not reach into it.
///
/// DECIDED: definitions 8, "`minimum`, `maximum`, `free_units` beside `rows` act on the charge […], inside
/// a row on that row's lines; a row may hold a whole `pricing`": they may stand beside either.
/// READING: beside a pricing they are fields of it, so the same field can't stand in both.
fn row_document(pricing: &Value, row: &Value) -> Result<Value, String> {
    let mut document = serde_json::Map::new();
    match (row.get("unit_price"), row.get("pricing")) {
        (Some(unit_price), None) => {
            document.insert("model".into(), "per_unit".into());
            document.insert("unit_price".into(), unit_price.clone());
            for name in ["per", "unit_price_floor"] {
                if let Some(value) = pricing.get(name) {
                    document.insert(name.into(), value.clone());
                }
            }
        }
        (None, Some(Value::Object(inner))) => document = inner.clone(),
        _ => return Err("a row holds either unit_price or pricing".into()),
    }
    for name in ["minimum", "maximum", "free_units"] {
        if let Some(value) = row.get(name).filter(|value| !value.is_null())
            && document.insert(name.into(), value.clone()).is_some_and(|inside| !inside.is_null())
        {
            return Err(format!("{name} beside a pricing that has it"));
        }
    }
    let document = Value::Object(document);
    if model_of(&document)? == "matrix" {
        return Err("a matrix inside a matrix".into());
    }
    Ok(document)
}

fn matrix(pricing: &Value, quantity: &Number, dimensions: &Dimensions, events: u64) -> Answer {
    let row = select_row(pricing, dimensions)?;
    rate(&row_document(pricing, row)?, quantity, dimensions, events)
}

// ---------------------------------------------------------------- percent off

// ---------------------------------------------------------------- versions

/// rules 1, "Price versioning": what each version of a price asks for the whole units used under it, by looking at
/// them one by one, in order of time. Only for documents whose tiers, packages and free units are whole numbers and
/// which have no maximum of a tier, nothing per event and nothing fixed.
///
/// "continue (default: quantity keeps its position across versions) or reset".
/// READING: a flat fee is asked by the version under which the quantity enters the tier; what is due at quantity 0
/// is due once, when the first version begins (reset: where units begin anew); a volume tier is that of the quantity
/// under all versions, and its flat fee is spread over the units.
pub fn rate_versions(versions: &[(Value, u64)], continues: bool) -> Result<Vec<Number>, String> {
    let whole: u64 = versions.iter().map(|(_, units)| units).sum();
    let mut position = 0;
    let mut amounts = Vec::new();
    for (place, (pricing, units)) in versions.iter().enumerate() {
        check_document(pricing)?;
        position = if continues { position } else { 0 };
        let begins = place == 0 || (!continues && *units > 0);
        let of = if continues { whole } else { *units };
        let amount = if model_of(pricing)? == "volume" && of > 0 {
            let all = volume(pricing, &after_free_units(pricing, &whole_number(of))?)?;
            all / whole_number(of) * whole_number(*units)
        } else {
            let mut amount = Number::zero();
            if begins {
                amount += model_amount(pricing, &Number::zero(), &Dimensions::new(), 0)?;
            }
            for unit in position..position + units {
                amount += one_unit(pricing, unit)?;
            }
            amount
        };
        position += units;
        amounts.push(amount);
    }
    Ok(amounts)
}

/// What the unit after the first `before` ones costs, beyond what is due at quantity 0.
fn one_unit(pricing: &Value, before: u64) -> Answer {
    let free = or_zero(pricing, "free_units")? + or_zero(pricing, "free_amount")?;
    let before = whole_number(before) - free;
    if before.is_negative() {
        return Ok(Number::zero());
    }
    let begins = |place: &Number, size: &Number| (place / size).is_integer();
    match model_of(pricing)? {
        "per_unit" => Ok(price(pricing, pricing, "unit_price")? / per(pricing)?),
        "percentage" => price(pricing, pricing, "rate"),
        "package" => {
            let due = before.is_zero() && flag(pricing, "minimum_one_package");
            let begins = begins(&before, &required(pricing, "package_size")?) && !due;
            Ok(if begins { price(pricing, pricing, "amount")? } else { Number::zero() })
        }
        "graduated" | "graduated_percentage" => {
            let tier = tier_of(pricing, &(&before + Number::one()))?;
            let inside = &before - &tier.lower;
            let mut amount = match field(tier.terms, "package_size")? {
                Some(size) if !begins(&inside, &size) => Number::zero(),
                _ => units_in_tier(pricing, tier.terms, &Number::one())?,
            };
            if inside.is_zero() && !(before.is_zero() && flag(pricing, "first_flat_at_zero")) {
                amount += or_zero(tier.terms, "flat_fee")?;
            }
            Ok(amount)
        }
        other => Err(format!("{other} is not priced unit by unit")),
    }
}

/// definitions 7: ×(1 − p/100) on every rate, amount, flat fee and package, row by row.
/// minimum, maximum, free_* stay, unit_price_floor stays (and so acts after the discount).
/// READING: `fixed` and `multiplier` are rates and amounts and are scaled; per_event_minimum,
/// per_event_maximum and a tier's maximum are minimums and maximums and stay.
/// READING: a percent off is 0 to 100; more than the list price is an `uplift` (definitions 11), less than
/// nothing no price.
pub fn percent_off(pricing: &Value, percent: &BigRational) -> Result<Value, String> {
    let factor = Number::one() - percent / whole_number(100);
    if factor.is_negative() || factor > Number::one() {
        return Err("percent off is not between 0 and 100".into());
    }
    Ok(scaled(pricing, &factor))
}

fn scaled(document: &Value, factor: &Number) -> Value {
    let Value::Object(fields) = document else {
        return document.clone();
    };
    let mut result = serde_json::Map::new();
    for (name, value) in fields {
        let new = match name.as_str() {
            "unit_price" | "amount" | "flat_fee" | "rate" | "fixed" | "multiplier" => {
                match field(document, name) {
                    Ok(Some(number)) => Value::String(text(&(number * factor))),
                    _ => value.clone(),
                }
            }
            "tiers" | "rows" => match value {
                Value::Array(list) => Value::Array(list.iter().map(|item| scaled(item, factor)).collect()),
                other => other.clone(),
            },
            "pricing" => scaled(value, factor),
            _ => value.clone(),
        };
        result.insert(name.clone(), new);
    }
    // An absent multiplier is 1 and has to be written down to be scaled.
    if fields.get("model").and_then(Value::as_str) == Some("dynamic") && !fields.contains_key("multiplier") {
        result.insert("multiplier".into(), Value::String(text(factor)));
    }
    Value::Object(result)
}

// ---------------------------------------------------------------- rounding, splitting, proration

/// Rounds to `scale` decimals. "half_up": ties away from zero; "half_even": ties to the even digit.
/// Both are mirrors: round(−x) = −round(x) (rules 0.3).
pub fn round(x: &BigRational, scale: u32, mode: &str) -> BigRational {
    if x.is_negative() {
        return -round(&-x, scale, mode);
    }
    let units = x * ten_to(scale);
    let down = units.floor();
    let rest = &units - &down;
    let half = Number::new(BigInt::one(), BigInt::from(2));
    let down_is_even = (down.to_integer() % BigInt::from(2)).is_zero();
    let up = match mode {
        "half_up" => rest >= half,
        "half_even" => rest > half || (rest == half && !down_is_even),
        other => panic!("unknown rounding mode {other}"),
    };
    (if up { down + Number::one() } else { down }) / ten_to(scale)
}

/// Largest remainder (rules 0.6): everybody gets the share rounded down, the units left over go
/// one each to the largest remainders, ties to the earlier line. A negative total is the mirror
/// of the positive one. The total has to be on the grid of `scale` ("split a rounded total").
///
/// READING: weights that are all zero are no proportion and count as equal; weights of both signs are
/// refused; no weights can split nothing but 0.
pub fn allocate(
    total: &BigRational,
    weights: &[BigRational],
    scale: u32,
) -> Result<Vec<BigRational>, String> {
    if !(total * ten_to(scale)).is_integer() {
        return Err(format!("the total is not rounded to {scale} decimals"));
    }
    if weights.iter().any(Number::is_positive) && weights.iter().any(Number::is_negative) {
        return Err("weights of both signs".into());
    }
    if weights.is_empty() {
        return if total.is_zero() { Ok(Vec::new()) } else { Err("no weights".into()) };
    }
    if total.is_negative() {
        let mirror = allocate(&-total, weights, scale)?;
        return Ok(mirror.into_iter().map(|part| -part).collect());
    }
    let mut sum = Number::zero();
    for weight in weights {
        sum += weight;
    }
    if sum.is_zero() {
        return allocate(total, &vec![Number::one(); weights.len()], scale);
    }
    let shares: Vec<Number> = weights.iter().map(|weight| total * ten_to(scale) * weight / &sum).collect();
    let mut parts: Vec<Number> = shares.iter().map(Number::floor).collect();
    let mut given = Number::zero();
    for part in &parts {
        given += part;
    }
    let mut served = vec![false; parts.len()];
    let mut left = total * ten_to(scale) - given;
    while left.is_positive() {
        let mut best: Option<usize> = None;
        for line in 0..parts.len() {
            if served[line] {
                continue;
            }
            let remainder = &shares[line] - shares[line].floor();
            if best.is_none_or(|b| remainder > &shares[b] - shares[b].floor()) {
                best = Some(line);
            }
        }
        let line = best.expect("fewer units are left than there are lines");
        parts[line] += Number::one();
        served[line] = true;
        left -= Number::one();
    }
    Ok(parts.into_iter().map(|part| part / ten_to(scale)).collect())
}

/// rules 2: amount × quantity × days / total, one fraction, to be rounded once by the caller.
/// `days` and `total` may as well be hours or seconds (second basis) or months. Panics on total 0.
pub fn prorate(
    amount: &BigRational,
    quantity: &BigRational,
    days: &BigRational,
    total: &BigRational,
) -> BigRational {
    assert!(total.is_positive(), "a period without length");
    amount * quantity * days / total
}
