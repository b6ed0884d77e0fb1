//! The pricing document: a hand-written reader that carries the JSON path, and its canonical text.

use super::matrix::{MATRIX_DIMENSIONS_MAX, MATRIX_ROWS_MAX, Matrix, MatrixRow};
use super::percentage::Percentage;
use super::pricing::{Model, Package, Pricing, Terms};
use super::tiers::{TIERS_MAX, Tier, TierKind};
use crate::domain::foundation::json::{self, Fields, Node, Tree, field_path};
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::Dimensions;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The models and the fields that belong to each.
const MODELS: [(&str, &[&str]); 10] = [
    ("flat", &["amount"]),
    ("per_unit", &["unit_price", "per"]),
    ("graduated", &["tiers", "per"]),
    ("volume", &["tiers", "per"]),
    ("stairstep", &["tiers"]),
    ("package", &["package_size", "amount", "minimum_one_package"]),
    (
        "percentage",
        &["rate", "fixed", "free_events", "free_amount", "per_event_minimum", "per_event_maximum"],
    ),
    ("graduated_percentage", &["tiers"]),
    ("matrix", &["dimensions", "rows", "per"]),
    ("dynamic", &["amount_property", "multiplier"]),
];

/// The fields that any model may add.
const COMMON_FIELDS: [&str; 6] =
    ["model", "free_units", "minimum", "maximum", "first_flat_at_zero", "unit_price_floor"];

const ROW_FIELDS: [&str; 6] = ["match", "unit_price", "pricing", "free_units", "minimum", "maximum"];

/// Where a pricing document stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By itself or as a field of another document.
    Whole,
    /// Stored beside its rows: a matrix may have none.
    Header,
    /// Inside a row of a matrix: no matrix again.
    Row,
}

impl Pricing {
    /// Reads a pricing from its JSON text.
    pub fn parse(text: &str) -> Result<Pricing, Fault> {
        Pricing::read(&Node::root(&json::parse(text)?))
    }

    /// Reads a pricing document: unknown fields are refused, every rule is checked, and a fault starts
    /// with the JSON path.
    pub fn read(node: &Node) -> Result<Pricing, Fault> {
        read_at(node, Place::Whole)
    }

    /// As [`read`](Pricing::read), but a matrix may have no rows: the header alone.
    pub fn read_header(node: &Node) -> Result<Pricing, Fault> {
        read_at(node, Place::Header)
    }

    /// The document as canonical JSON text: sorted keys, trimmed numbers, defaults left out. Reading it
    /// again gives an equal pricing, and equal pricings have equal text.
    pub fn canonical(&self) -> String {
        self.to_tree().canonical().expect("a pricing holds nothing but valid numbers and texts")
    }

    /// The document as a tree, for use inside another document.
    pub fn to_tree(&self) -> Tree<'static> {
        let mut object = Object::new();
        object.put("model", Tree::text(self.model_name()));
        write_terms(&mut object, self.terms());
        match self.model() {
            Model::Flat { amount } => object.decimal("amount", *amount),
            Model::PerUnit { unit_price } => object.decimal("unit_price", *unit_price),
            Model::Dynamic { amount_property, multiplier } => {
                if let Some(property) = amount_property {
                    object.put("amount_property", Tree::text(property.as_str()));
                }
                object.decimal_unless("multiplier", *multiplier, Exact::ONE);
            }
            Model::Tiered { kind, tiers } => {
                let tiers = tiers.iter().map(|tier| write_tier(*kind, tier)).collect();
                object.put("tiers", Tree::List(tiers));
            }
            Model::Package(package) => {
                object.number("package_size", package.package_size);
                object.decimal("amount", package.amount);
                object.flag("minimum_one_package", package.minimum_one_package);
            }
            Model::Percentage(percentage) => write_percentage(&mut object, percentage),
            Model::Matrix(matrix) => {
                let names = matrix.dimensions.iter().map(|name| Tree::text(name.as_str())).collect();
                object.put("dimensions", Tree::List(names));
                let rows = matrix.rows.iter().map(|row| write_row(row, self.terms())).collect();
                object.put("rows", Tree::List(rows));
            }
        }
        object.into_tree()
    }
}

fn read_at(node: &Node, place: Place) -> Result<Pricing, Fault> {
    let mut fields = node.fields()?;
    if node.tree.get("model").is_none() {
        // Which fields there may be is not known yet; one that no model has may be a misspelled `model`.
        let any = MODELS.iter().flat_map(|(_, own)| own.iter().copied()).chain(COMMON_FIELDS);
        fields.only(&any.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>())?;
    }
    let model_node = fields.required("model")?;
    let name = model_node.word(&MODELS.map(|(name, _)| name))?;
    if name == "matrix" && place == Place::Row {
        return Err(model_node.fault("can't be a matrix inside a matrix"));
    }
    let own_fields = MODELS.iter().find(|(model, _)| *model == name).map_or(&[][..], |(_, fields)| fields);
    fields.only(&[&COMMON_FIELDS, own_fields].concat())?;
    let terms = read_terms(&mut fields)?;
    let model = match name {
        "flat" => Model::Flat { amount: fields.required("amount")?.decimal()? },
        "per_unit" => Model::PerUnit { unit_price: fields.required("unit_price")?.decimal()? },
        "graduated" => read_tiers(&mut fields, TierKind::Graduated, &terms)?,
        "volume" => read_tiers(&mut fields, TierKind::Volume, &terms)?,
        "stairstep" => read_tiers(&mut fields, TierKind::Stairstep, &terms)?,
        "graduated_percentage" => read_tiers(&mut fields, TierKind::GraduatedPercentage, &terms)?,
        "package" => read_package(&mut fields)?,
        "percentage" => read_percentage(&mut fields)?,
        "matrix" => read_matrix(&mut fields, &terms, place)?,
        "dynamic" => read_dynamic(&mut fields)?,
        _ => unreachable!("the model is one of the words"),
    };
    fields.finish()?;
    Ok(Pricing::assemble(model, terms))
}

fn read_terms(fields: &mut Fields) -> Result<Terms, Fault> {
    let per = fields.optional("per").map(|node| node.positive()).transpose()?.unwrap_or(Exact::ONE);
    let (minimum, maximum) = read_bounds(fields, "minimum", "maximum")?;
    Ok(Terms {
        per,
        free_units: optional_amount(fields, "free_units")?.unwrap_or(Exact::ZERO),
        minimum,
        maximum,
        unit_price_floor: optional_amount(fields, "unit_price_floor")?,
        first_flat_at_zero: optional_flag(fields, "first_flat_at_zero")?,
    })
}

/// Two optional amounts, the first not above the second.
fn read_bounds(
    fields: &mut Fields,
    least: &str,
    most: &str,
) -> Result<(Option<Exact>, Option<Exact>), Fault> {
    let bounds = (optional_amount(fields, least)?, optional_amount(fields, most)?);
    if let (Some(minimum), Some(maximum)) = bounds
        && minimum > maximum
    {
        let path = field_path(fields.path(), least);
        return Err(Fault::document(&path, format!("{minimum} is more than the {most} {maximum}")));
    }
    Ok(bounds)
}

/// A decimal ≥ 0.
fn amount(node: &Node) -> Result<Exact, Fault> {
    let value = node.decimal()?;
    if value.is_negative() {
        return Err(node.fault(format!("{value} must not be negative")));
    }
    Ok(value)
}

fn optional_amount(fields: &mut Fields, key: &str) -> Result<Option<Exact>, Fault> {
    fields.optional(key).map(|node| amount(&node)).transpose()
}

fn optional_flag(fields: &mut Fields, key: &str) -> Result<bool, Fault> {
    Ok(fields.optional(key).map(|node| node.boolean()).transpose()?.unwrap_or(false))
}

fn read_tiers(fields: &mut Fields, kind: TierKind, terms: &Terms) -> Result<Model, Fault> {
    let node = fields.required("tiers")?;
    let items = node.items_at_most(TIERS_MAX)?;
    if items.is_empty() {
        return Err(node.fault("must have at least one tier"));
    }
    let mut tiers: Vec<Tier> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let tier = read_tier(item, kind, terms)?;
        let up_to = field_path(&item.path, "up_to");
        if tier.up_to.is_none() && at + 1 < items.len() {
            return Err(Fault::document(&up_to, "is missing; only the last tier may be open"));
        }
        if let (Some(end), Some(before)) = (tier.up_to, tiers.last().and_then(|tier| tier.up_to))
            && end <= before
        {
            let message = format!("{end} must be greater than {before}, where the tier before ends");
            return Err(Fault::document(&up_to, message));
        }
        tiers.push(tier);
    }
    Ok(Model::Tiered { kind, tiers })
}

fn read_tier(node: &Node, kind: TierKind, terms: &Terms) -> Result<Tier, Fault> {
    let mut fields = node.fields_of(match kind {
        TierKind::Stairstep => &["up_to", "amount", "maximum"],
        TierKind::GraduatedPercentage => &["up_to", "rate", "flat_fee", "maximum"],
        _ => &["up_to", "unit_price", "flat_fee", "package_size", "maximum"],
    })?;
    let up_to = fields
        .optional("up_to")
        .map(|node| match node.decimal()? {
            end if end > Exact::ZERO => Ok(end),
            end => Err(node.fault(format!("{end} must be greater than 0"))),
        })
        .transpose()?;
    let (price, flat) = match kind {
        TierKind::Graduated | TierKind::Volume => {
            let price = optional_amount(&mut fields, "unit_price")?;
            (price, optional_amount(&mut fields, "flat_fee")?)
        }
        TierKind::Stairstep => (None, Some(amount(&fields.required("amount")?)?)),
        TierKind::GraduatedPercentage => {
            let rate = amount(&fields.required("rate")?)?;
            (Some(rate), optional_amount(&mut fields, "flat_fee")?)
        }
    };
    let has_units = matches!(kind, TierKind::Graduated | TierKind::Volume);
    let size_node = if has_units { fields.optional("package_size") } else { None };
    let maximum = optional_amount(&mut fields, "maximum")?;
    if price.is_none() && flat.is_none() {
        return Err(fields.fault("needs a unit_price or a flat_fee"));
    }
    if let Some(node) = &size_node {
        if price.is_none() {
            return Err(node.fault("needs a unit_price: the price of one package"));
        }
        if terms.per != Exact::ONE {
            return Err(node.fault("can't be combined with per: unit_price is then the price of one package"));
        }
    }
    let package_size = size_node.map(|node| node.positive()).transpose()?;
    fields.finish()?;
    // A flat fee of 0 beside a price says nothing.
    let flat = flat.filter(|flat| price.is_none() || !flat.is_zero());
    Ok(Tier { up_to, price, flat, package_size, maximum })
}

fn read_package(fields: &mut Fields) -> Result<Model, Fault> {
    Ok(Model::Package(Package {
        package_size: fields.required("package_size")?.positive()?,
        amount: amount(&fields.required("amount")?)?,
        minimum_one_package: optional_flag(fields, "minimum_one_package")?,
    }))
}

fn read_percentage(fields: &mut Fields) -> Result<Model, Fault> {
    let rate = amount(&fields.required("rate")?)?;
    let fixed = optional_amount(fields, "fixed")?.unwrap_or(Exact::ZERO);
    let free_events = match fields.optional("free_events") {
        None => 0,
        Some(node) => {
            let count = node.integer()?;
            u64::try_from(count).map_err(|_| node.fault(format!("{count} must not be negative")))?
        }
    };
    let free_amount = optional_amount(fields, "free_amount")?.unwrap_or(Exact::ZERO);
    let (per_event_minimum, per_event_maximum) =
        read_bounds(fields, "per_event_minimum", "per_event_maximum")?;
    let percentage =
        Percentage { rate, fixed, free_events, free_amount, per_event_minimum, per_event_maximum };
    Ok(Model::Percentage(percentage))
}

fn read_dynamic(fields: &mut Fields) -> Result<Model, Fault> {
    let property = fields.optional("amount_property").map(|node| node.key().map(str::to_string));
    Ok(Model::Dynamic {
        amount_property: property.transpose()?,
        multiplier: optional_amount(fields, "multiplier")?.unwrap_or(Exact::ONE),
    })
}

fn read_matrix(fields: &mut Fields, terms: &Terms, place: Place) -> Result<Model, Fault> {
    if !terms.free_units.is_zero() {
        let path = field_path(fields.path(), "free_units");
        return Err(Fault::document(&path, "can't stand beside rows")
            .with_hint("Put free_units inside the rows they are for."));
    }
    let names = fields.required("dimensions")?;
    let mut dimensions: Vec<String> = Vec::new();
    for item in names.items_at_most(MATRIX_DIMENSIONS_MAX)? {
        let name = item.key()?;
        if dimensions.iter().any(|earlier| earlier == name) {
            return Err(item.fault(format!("\"{name}\" stands twice")));
        }
        dimensions.push(name.to_string());
    }
    if dimensions.is_empty() {
        return Err(names.fault("must have at least one dimension"));
    }
    let node = fields.required("rows")?;
    let items = node.items_at_most(MATRIX_ROWS_MAX)?;
    if items.is_empty() && place != Place::Header {
        return Err(node.fault("must have at least one row"));
    }
    let rows = items.iter().map(|item| read_row(item, terms)).collect::<Result<_, _>>()?;
    Matrix::new(dimensions, rows, &node.path).map(Model::Matrix)
}

fn read_row(node: &Node, header: &Terms) -> Result<MatrixRow, Fault> {
    let mut fields = node.fields_of(&ROW_FIELDS)?;
    let matched = Dimensions::read(&fields.required("match")?)?;
    let pricing = match (fields.optional("unit_price"), fields.optional("pricing")) {
        (Some(unit_price), None) => {
            let (minimum, maximum) = read_bounds(&mut fields, "minimum", "maximum")?;
            let terms = Terms {
                per: header.per,
                free_units: optional_amount(&mut fields, "free_units")?.unwrap_or(Exact::ZERO),
                minimum,
                maximum,
                unit_price_floor: header.unit_price_floor,
                first_flat_at_zero: false,
            };
            Pricing::assemble(Model::PerUnit { unit_price: unit_price.decimal()? }, terms)
        }
        (None, Some(pricing)) => read_beside(&mut fields, &pricing, read_at(&pricing, Place::Row)?)?,
        (Some(_), Some(_)) => return Err(fields.fault("has both a unit_price and a pricing")),
        (None, None) => return Err(fields.fault("needs a unit_price or a pricing")),
    };
    fields.finish()?;
    Ok(MatrixRow::new(matched, pricing))
}

/// A row's whole pricing with what stands beside it in the row, which is as if it stood in the pricing
/// (definitions 8: "inside a row on that row's lines"); so nothing may stand in both.
fn read_beside(fields: &mut Fields, node: &Node, pricing: Pricing) -> Result<Pricing, Fault> {
    let inside = pricing.terms();
    for (key, stands_inside) in [
        ("free_units", !inside.free_units.is_zero()),
        ("minimum", inside.minimum.is_some()),
        ("maximum", inside.maximum.is_some()),
    ] {
        if stands_inside && let Some(beside) = fields.optional(key) {
            return Err(beside.fault(format!("stands in {} too", node.path)));
        }
    }
    let (minimum, maximum) = read_bounds(fields, "minimum", "maximum")?;
    let terms = Terms {
        free_units: optional_amount(fields, "free_units")?.unwrap_or(inside.free_units),
        minimum: minimum.or(inside.minimum),
        maximum: maximum.or(inside.maximum),
        ..inside.clone()
    };
    if let (Some(minimum), Some(maximum)) = (terms.minimum, terms.maximum)
        && minimum > maximum
    {
        return Err(fields.fault(format!("the minimum {minimum} is more than the maximum {maximum}")));
    }
    Ok(Pricing::assemble(pricing.model().clone(), terms))
}

/// An object in the making; the tree sorts its keys.
struct Object(Vec<(Cow<'static, str>, Tree<'static>)>);

impl Object {
    fn new() -> Object {
        Object(Vec::new())
    }

    fn put(&mut self, key: &'static str, value: Tree<'static>) {
        self.0.push((Cow::Borrowed(key), value));
    }

    fn decimal(&mut self, key: &'static str, value: Exact) {
        self.put(key, Tree::text(value.to_string()));
    }

    fn decimal_unless(&mut self, key: &'static str, value: Exact, default: Exact) {
        if value != default {
            self.decimal(key, value);
        }
    }

    fn optional(&mut self, key: &'static str, value: Option<Exact>) {
        if let Some(value) = value {
            self.decimal(key, value);
        }
    }

    /// A size or count: bare where it is a plain integer, as people write it.
    fn number(&mut self, key: &'static str, value: Exact) {
        match value.to_i64() {
            Some(integer) => self.put(key, Tree::number(integer)),
            None => self.decimal(key, value),
        }
    }

    fn flag(&mut self, key: &'static str, value: bool) {
        if value {
            self.put(key, Tree::Bool(true));
        }
    }

    fn into_tree(self) -> Tree<'static> {
        Tree::Object(self.0)
    }
}

fn write_terms(object: &mut Object, terms: &Terms) {
    if terms.per != Exact::ONE {
        object.number("per", terms.per);
    }
    object.decimal_unless("free_units", terms.free_units, Exact::ZERO);
    object.optional("minimum", terms.minimum);
    object.optional("maximum", terms.maximum);
    object.optional("unit_price_floor", terms.unit_price_floor);
    object.flag("first_flat_at_zero", terms.first_flat_at_zero);
}

fn write_tier(kind: TierKind, tier: &Tier) -> Tree<'static> {
    let mut object = Object::new();
    object.optional("up_to", tier.up_to);
    object.optional(kind.price_field(), tier.price);
    object.optional(kind.flat_field(), tier.flat);
    if let Some(size) = tier.package_size {
        object.number("package_size", size);
    }
    object.optional("maximum", tier.maximum);
    object.into_tree()
}

fn write_percentage(object: &mut Object, percentage: &Percentage) {
    object.decimal("rate", percentage.rate);
    object.decimal_unless("fixed", percentage.fixed, Exact::ZERO);
    if percentage.free_events != 0 {
        object.put("free_events", Tree::number(percentage.free_events));
    }
    object.decimal_unless("free_amount", percentage.free_amount, Exact::ZERO);
    object.optional("per_event_minimum", percentage.per_event_minimum);
    object.optional("per_event_maximum", percentage.per_event_maximum);
}

/// A row in its shortest form: a per_unit pricing with the header's `per` and floor is a `unit_price`.
fn write_row(row: &MatrixRow, header: &Terms) -> Tree<'static> {
    let (pricing, terms) = (row.pricing(), row.pricing().terms());
    let mut object = Object::new();
    object.put("match", row.matched().to_tree());
    match pricing.model() {
        Model::PerUnit { unit_price }
            if terms.per == header.per
                && terms.unit_price_floor == header.unit_price_floor
                && !terms.first_flat_at_zero =>
        {
            object.decimal("unit_price", *unit_price);
            object.decimal_unless("free_units", terms.free_units, Exact::ZERO);
            object.optional("minimum", terms.minimum);
            object.optional("maximum", terms.maximum);
        }
        _ => object.put("pricing", pricing.to_tree()),
    }
    object.into_tree()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_pricing, pricing};
    use super::*;
    use crate::domain::foundation::Code;
    use proptest::prelude::*;

    /// (document, start of the message, start of the hint or "").
    const REFUSED: &[(&str, &str, &str)] = &[
        ("[]", "document: must be an object, not an array", ""),
        ("{}", "model: is missing", ""),
        (r#"{"model":"tiered"}"#, "model: \"tiered\" is not known", "Use flat, per_unit, graduated, volume,"),
        (
            r#"{"model":"flat","amount":149}"#,
            "amount: must be a decimal in a string, not a number",
            "Write \"149\" in quotes",
        ),
        (r#"{"model":"flat","amount":"x"}"#, "amount: \"x\" is not a decimal number", ""),
        (r#"{"model":"flat"}"#, "amount: is missing", ""),
        (r#"{"model":"flat","amount":null}"#, "amount: must be a decimal in a string, not null", ""),
        (
            r#"{"model":"flat","amount":"1","amout":"2"}"#,
            "amout: is not a field of this document",
            "Known here: model, free_units, minimum",
        ),
        (r#"{"model":"flat","amount":"1","amount":"2"}"#, "amount: stands twice", ""),
        (r#"{"model":"flat","amount":"1","per":2}"#, "per: is not a field of this document", "Known here: "),
        (
            r#"{"model":"flat","amount":"1","minimum":"3","maximum":"2"}"#,
            "minimum: 3 is more than the maximum 2",
            "",
        ),
        (r#"{"model":"flat","amount":"1","minimum":"-3"}"#, "minimum: -3 must not be negative", ""),
        (r#"{"model":"flat","amount":"1","maximum":"-3"}"#, "maximum: -3 must not be negative", ""),
        (r#"{"model":"flat","amount":"1","free_units":"-3"}"#, "free_units: -3 must not be negative", ""),
        (
            r#"{"model":"flat","amount":"1","free_units":3}"#,
            "free_units: must be a decimal in a string, not a number",
            "Write \"3\" in quotes",
        ),
        (
            r#"{"model":"flat","amount":"1","unit_price_floor":"-3"}"#,
            "unit_price_floor: -3 must not be negative",
            "",
        ),
        (
            r#"{"model":"flat","amount":"1","first_flat_at_zero":"yes"}"#,
            "first_flat_at_zero: must be true or false, not a string",
            "",
        ),
        (r#"{"model":"per_unit","unit_price":"1","per":0}"#, "per: 0 must be greater than 0", ""),
        (r#"{"model":"per_unit","unit_price":"1","per":"-1"}"#, "per: -1 must be greater than 0", ""),
        (r#"{"model":"per_unit","unit_price":"1","per":0.5}"#, "per: \"0.5\" is not an integer", ""),
        (r#"{"model":"graduated"}"#, "tiers: is missing", ""),
        (r#"{"model":"graduated","tiers":[]}"#, "tiers: must have at least one tier", ""),
        (
            r#"{"model":"graduated","tiers":[{"up_to":"1"}]}"#,
            "tiers[0]: needs a unit_price or a flat_fee",
            "",
        ),
        (
            r#"{"model":"graduated","tiers":[{"unit_pric":"1"}]}"#,
            "tiers[0].unit_pric: is not a field of this document",
            "Known here: up_to, unit_price",
        ),
        (
            r#"{"model":"graduated","tiers":[{"up_to":"1"}]}"#,
            "tiers[0]: needs a unit_price or a flat_fee",
            "",
        ),
        (r#"{"modle":"flat","amount":"1"}"#, "modle: is not a field of this document", "Known here: amount,"),
        (
            r#"{"model":"graduated","tiers":[{"unit_price":"1","rate":"1"}]}"#,
            "tiers[0].rate: is not a field of this document",
            "Known here: up_to, unit_price,",
        ),
        (
            r#"{"model":"graduated","tiers":[{"unit_price":"-1"}]}"#,
            "tiers[0].unit_price: -1 must not be negative",
            "",
        ),
        (
            r#"{"model":"graduated","tiers":[{"unit_price":"1","flat_fee":"-1"}]}"#,
            "tiers[0].flat_fee: -1 must not be negative",
            "",
        ),
        (
            r#"{"model":"graduated","tiers":[{"unit_price":"1","maximum":"-1"}]}"#,
            "tiers[0].maximum: -1 must not be negative",
            "",
        ),
        (
            r#"{"model":"graduated","tiers":[{"up_to":"0","unit_price":"1"}]}"#,
            "tiers[0].up_to: 0 must be greater than 0",
            "",
        ),
        (
            r#"{"model":"graduated","tiers":[{"up_to":1000,"unit_price":"1"}]}"#,
            "tiers[0].up_to: must be a decimal in a string, not a number",
            "Write \"1000\" in quotes",
        ),
        (
            r#"{"model":"volume","tiers":[{"unit_price":"1"},{"unit_price":"1"}]}"#,
            "tiers[0].up_to: is missing; only the last tier may be open",
            "",
        ),
        (
            r#"{"model":"volume","tiers":[{"up_to":"9","unit_price":"1"},{"up_to":"9.0","unit_price":"1"}]}"#,
            "tiers[1].up_to: 9 must be greater than 9, where the tier before ends",
            "",
        ),
        (
            r#"{"model":"volume","tiers":[{"unit_price":"1","package_size":0}]}"#,
            "tiers[0].package_size: 0 must be greater than 0",
            "",
        ),
        (
            r#"{"model":"volume","tiers":[{"flat_fee":"1","package_size":5}]}"#,
            "tiers[0].package_size: needs a unit_price: the price of one package",
            "",
        ),
        (
            r#"{"model":"volume","per":10,"tiers":[{"unit_price":"1","package_size":5}]}"#,
            "tiers[0].package_size: can't be combined with per",
            "",
        ),
        (r#"{"model":"stairstep","tiers":[{"up_to":"5"}]}"#, "tiers[0].amount: is missing", ""),
        (
            r#"{"model":"stairstep","tiers":[{"amount":"5","unit_price":"1"}]}"#,
            "tiers[0].unit_price: is not a field of this document",
            "Known here: up_to, amount, maximum.",
        ),
        (
            r#"{"model":"stairstep","tiers":[{"amount":"-5"}]}"#,
            "tiers[0].amount: -5 must not be negative",
            "",
        ),
        (
            r#"{"model":"stairstep","tiers":[{"amount":"5"}],"per":10}"#,
            "per: is not a field of this document",
            "Known here: ",
        ),
        (
            r#"{"model":"graduated_percentage","tiers":[{"unit_price":"1"}]}"#,
            "tiers[0].unit_price: is not a field of this document",
            "Known here: up_to, rate",
        ),
        (
            r#"{"model":"graduated_percentage","tiers":[{"rate":"-0.1"}]}"#,
            "tiers[0].rate: -0.1 must not be negative",
            "",
        ),
        (r#"{"model":"package","amount":"1"}"#, "package_size: is missing", ""),
        (
            r#"{"model":"package","amount":"1","package_size":"0"}"#,
            "package_size: 0 must be greater than 0",
            "",
        ),
        (r#"{"model":"package","amount":"-1","package_size":5}"#, "amount: -1 must not be negative", ""),
        (r#"{"model":"percentage"}"#, "rate: is missing", ""),
        (r#"{"model":"percentage","rate":"-0.01"}"#, "rate: -0.01 must not be negative", ""),
        (r#"{"model":"percentage","rate":"0.1","fixed":"-1"}"#, "fixed: -1 must not be negative", ""),
        (
            r#"{"model":"percentage","rate":"0.1","free_events":-1}"#,
            "free_events: -1 must not be negative",
            "",
        ),
        (
            r#"{"model":"percentage","rate":"0.1","free_events":1.5}"#,
            "free_events: \"1.5\" is not an integer",
            "",
        ),
        (
            r#"{"model":"percentage","rate":"0.1","free_amount":"-1"}"#,
            "free_amount: -1 must not be negative",
            "",
        ),
        (
            r#"{"model":"percentage","rate":"0.1","per_event_minimum":"2","per_event_maximum":"1"}"#,
            "per_event_minimum: 2 is more than the per_event_maximum 1",
            "",
        ),
        (r#"{"model":"dynamic","multiplier":"-1"}"#, "multiplier: -1 must not be negative", ""),
        (r#"{"model":"dynamic","amount_property":""}"#, "amount_property: \"\" is empty", ""),
        (r#"{"model":"matrix","rows":[]}"#, "dimensions: is missing", ""),
        (
            r#"{"model":"matrix","dimensions":[],"rows":[]}"#,
            "dimensions: must have at least one dimension",
            "",
        ),
        (r#"{"model":"matrix","dimensions":["m","m"],"rows":[]}"#, "dimensions[1]: \"m\" stands twice", ""),
        (r#"{"model":"matrix","dimensions":["m"]}"#, "rows: is missing", ""),
        (r#"{"model":"matrix","dimensions":["m"],"rows":[]}"#, "rows: must have at least one row", ""),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"unit_price":"1"}]}"#,
            "rows[0].match: is missing",
            "",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{}}]}"#,
            "rows[0]: needs a unit_price or a pricing",
            "",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{"m":null},"unit_price":"1"}]}"#,
            "rows[0].match.m: must have a value",
            "",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{"r":"eu"},"unit_price":"1"}]}"#,
            "rows[0].match.r: is not one of the pricing's dimensions",
            "Declared: m.",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"unit_price":"1","pricing":{"model":"flat","amount":"1"}}]}"#,
            "rows[0]: has both a unit_price and a pricing",
            "",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"minimum":"1","pricing":{"model":"flat","amount":"1","minimum":"1"}}]}"#,
            "rows[0].minimum: stands in rows[0].pricing too",
            "",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"free_units":"1","pricing":{"model":"flat","amount":"1","free_units":"2"}}]}"#,
            "rows[0].free_units: stands in rows[0].pricing too",
            "",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"minimum":"3","pricing":{"model":"flat","amount":"1","maximum":"2"}}]}"#,
            "rows[0]: the minimum 3 is more than the maximum 2",
            "",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"maximum":"2","pricing":{"model":"flat","amount":"1","minimum":"3"}}]}"#,
            "rows[0]: the minimum 3 is more than the maximum 2",
            "",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"unit_price":"1","minimum":"3","maximum":"2"}]}"#,
            "rows[0].minimum: 3 is more than the maximum 2",
            "",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"unit_price":"1","per":5}]}"#,
            "rows[0].per: is not a field of this document",
            "Known here: match, unit_price,",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"pricing":{"model":"matrix"}}]}"#,
            "rows[0].pricing.model: can't be a matrix inside a matrix",
            "",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"pricing":{"model":"graduated","tiers":[{"unit_price":"1","x":1}]}}]}"#,
            "rows[0].pricing.tiers[0].x: is not a field",
            "Known here: up_to,",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{},"unit_price":"1"}],"free_units":"5"}"#,
            "free_units: can't stand beside rows",
            "Put free_units inside the rows",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{"m":"a"},"unit_price":"1"},{"match":{},"unit_price":"1"},{"match":{"m":"a"},"unit_price":"2"}]}"#,
            "rows[2].match: ties with rows[0].match: both match {\"m\":\"a\"}",
            "Remove one of the two rows.",
        ),
        (
            r#"{"model":"matrix","dimensions":["m"],"rows":[{"match":{"m":1.50},"unit_price":"1"},{"match":{"m":"1.5"},"unit_price":"1"}]}"#,
            "rows[1].match: ties with rows[0].match",
            "Remove one",
        ),
    ];

    #[test]
    fn refuses_what_breaks_a_rule_at_its_place() {
        for (document, message, hint) in REFUSED {
            let fault = Pricing::parse(document).expect_err(document);
            assert_eq!(fault.code, Code::Document, "{document}");
            assert!(fault.message.starts_with(message), "{document}\n{}", fault.message);
            assert!(fault.hint.as_deref().unwrap_or("").starts_with(hint), "{document}\n{:?}", fault.hint);
            assert_eq!(fault.hint.is_none(), hint.is_empty(), "{document}\n{:?}", fault.hint);
        }
    }

    #[test]
    fn the_path_goes_on_from_the_document_around() {
        let tree = json::parse(r#"{"prices":[{"pricing":{"model":"flat","amount":"x"}}]}"#).unwrap();
        let prices = Node::root(&tree).fields().unwrap().required("prices").unwrap();
        let node = prices.items().unwrap()[0].fields().unwrap().required("pricing").unwrap();
        let message = Pricing::read(&node).unwrap_err().message;
        assert!(message.starts_with("prices[0].pricing.amount: "), "{message}");
    }

    #[test]
    fn canonical_text_leaves_defaults_out() {
        for (document, expected) in [
            (
                r#"{"unit_price":"0.150","model":"per_unit","per":"3600.0","minimum":null,"free_units":"0","first_flat_at_zero":false}"#,
                r#"{"model":"per_unit","per":3600,"unit_price":"0.15"}"#,
            ),
            (
                r#"{"model":"per_unit","unit_price":"1","per":"0.5"}"#,
                r#"{"model":"per_unit","per":"0.5","unit_price":"1"}"#,
            ),
            (
                r#"{"model":"per_unit","unit_price":"1","per":"100000000000000000000"}"#,
                r#"{"model":"per_unit","per":"100000000000000000000","unit_price":"1"}"#,
            ),
            (
                r#"{"model":"volume","tiers":[{"up_to":"1e3","unit_price":"0.10","flat_fee":"0.00"},{"flat_fee":"0"}]}"#,
                r#"{"model":"volume","tiers":[{"unit_price":"0.1","up_to":"1000"},{"flat_fee":"0"}]}"#,
            ),
            (
                r#"{"model":"percentage","rate":"0.029","fixed":"0","free_events":"0","free_amount":"0"}"#,
                r#"{"model":"percentage","rate":"0.029"}"#,
            ),
            (
                r#"{"model":"dynamic","amount_property":"cost","multiplier":"1.0"}"#,
                r#"{"amount_property":"cost","model":"dynamic"}"#,
            ),
            (
                r#"{"model":"package","package_size":"250","amount":"4.00","minimum_one_package":false}"#,
                r#"{"amount":"4","model":"package","package_size":250}"#,
            ),
            // A row's own per_unit pricing with the header's per and floor is a unit price.
            (
                r#"{"model":"matrix","dimensions":["m"],"per":10,"rows":[{"match":{},"pricing":{"model":"per_unit","unit_price":"1","per":10,"minimum":"2"}},{"match":{"m":"a"},"pricing":{"model":"per_unit","unit_price":"1"}}]}"#,
                r#"{"dimensions":["m"],"model":"matrix","per":10,"rows":[{"match":{},"minimum":"2","unit_price":"1"},{"match":{"m":"a"},"pricing":{"model":"per_unit","unit_price":"1"}}]}"#,
            ),
            (
                r#"{"dimensions":["m"],"model":"matrix","rows":[{"match":{},"pricing":{"model":"per_unit","unit_price":"1","unit_price_floor":"2"}},{"match":{"m":"a"},"pricing":{"first_flat_at_zero":true,"model":"per_unit","unit_price":"1"}}]}"#,
                r#"{"dimensions":["m"],"model":"matrix","rows":[{"match":{},"pricing":{"model":"per_unit","unit_price":"1","unit_price_floor":"2"}},{"match":{"m":"a"},"pricing":{"first_flat_at_zero":true,"model":"per_unit","unit_price":"1"}}]}"#,
            ),
            // What stands beside a row's pricing is a field of it.
            (
                r#"{"dimensions":["m"],"model":"matrix","rows":[{"match":{},"minimum":"2","maximum":"9","free_units":"5","pricing":{"model":"package","package_size":10,"amount":"1"}},{"match":{"m":"a"},"maximum":"7","pricing":{"model":"per_unit","unit_price":"1","minimum":"3"}}]}"#,
                r#"{"dimensions":["m"],"model":"matrix","rows":[{"match":{},"pricing":{"amount":"1","free_units":"5","maximum":"9","minimum":"2","model":"package","package_size":10}},{"match":{"m":"a"},"maximum":"7","minimum":"3","unit_price":"1"}]}"#,
            ),
            (
                r#"{"model":"flat","amount":"1","minimum":"2","maximum":"2.0"}"#,
                r#"{"amount":"1","maximum":"2","minimum":"2","model":"flat"}"#,
            ),
        ] {
            assert_eq!(pricing(document).canonical(), expected);
        }
    }

    /// A charge bounded to one amount, inside and beside a row's pricing.
    #[test]
    fn a_minimum_may_equal_the_maximum() {
        let row = |text: &str| {
            pricing(&format!(r#"{{"model":"matrix","dimensions":["m"],"rows":[{{"match":{{}},{text}}}]}}"#))
                .canonical()
        };
        let inside = row(r#""pricing":{"model":"flat","amount":"1","minimum":"2","maximum":"2"}"#);
        assert_eq!(row(r#""minimum":"2","pricing":{"model":"flat","amount":"1","maximum":"2"}"#), inside);
        assert_eq!(row(r#""maximum":"2","pricing":{"model":"flat","amount":"1","minimum":"2"}"#), inside);
    }

    #[test]
    fn negative_prices_where_they_are_clear() {
        for document in [
            r#"{"model":"flat","amount":"-10"}"#,
            r#"{"model":"per_unit","unit_price":"-0.5"}"#,
            r#"{"dimensions":["m"],"model":"matrix","rows":[{"match":{},"unit_price":"-1"}]}"#,
        ] {
            assert!(Pricing::parse(document).is_ok(), "{document}");
        }
    }

    #[test]
    fn a_header_may_have_no_rows() {
        let text = r#"{"dimensions":["m"],"model":"matrix","rows":[]}"#;
        let tree = json::parse(text).unwrap();
        let header = Pricing::read_header(&Node::root(&tree)).unwrap();
        assert_eq!(header.canonical(), text);
        assert!(header.rows().is_empty() && header.is_matrix());
    }

    #[test]
    fn bounds_tiers_rows_and_dimensions() {
        let tiers = |n: usize| {
            let tiers: Vec<String> =
                (1..=n).map(|i| format!(r#"{{"up_to":"{i}","unit_price":"1"}}"#)).collect();
            Pricing::parse(&format!(r#"{{"model":"graduated","tiers":[{}]}}"#, tiers.join(",")))
        };
        assert!(tiers(TIERS_MAX).is_ok());
        let fault = tiers(TIERS_MAX + 1).unwrap_err();
        assert_eq!(
            (fault.code, fault.message.as_str()),
            (Code::Bound, "tiers: has 101 entries; at most 100 are allowed")
        );

        let rows = |n: usize| {
            let rows: Vec<String> =
                (0..n).map(|i| format!(r#"{{"match":{{"m":"{i}"}},"unit_price":"1"}}"#)).collect();
            Pricing::parse(&format!(r#"{{"model":"matrix","dimensions":["m"],"rows":[{}]}}"#, rows.join(",")))
        };
        let full = rows(MATRIX_ROWS_MAX).unwrap();
        let fault = rows(MATRIX_ROWS_MAX + 1).unwrap_err();
        assert_eq!(
            (fault.code, fault.message.as_str()),
            (Code::Bound, "rows: has 10001 entries; at most 10000 are allowed")
        );
        let taken = full.rows().iter().map(|row| (row.matched().clone(), row.pricing().clone()));
        let one_more = (Dimensions::new(), full.rows()[0].pricing().clone());
        let fault = Pricing::from_rows(&full.without_rows(), taken.chain([one_more])).unwrap_err();
        assert_eq!(fault.code, Code::Bound);

        let dimensions = |n: usize| {
            let names: Vec<String> = (0..n).map(|i| format!(r#""d{i}""#)).collect();
            Pricing::parse(&format!(
                r#"{{"model":"matrix","dimensions":[{}],"rows":[{{"match":{{}},"unit_price":"1"}}]}}"#,
                names.join(",")
            ))
        };
        assert!(dimensions(MATRIX_DIMENSIONS_MAX).is_ok());
        assert_eq!(dimensions(MATRIX_DIMENSIONS_MAX + 1).unwrap_err().code, Code::Bound);
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back_as_itself(pricing in any_pricing()) {
            let text = pricing.canonical();
            let again = Pricing::parse(&text).unwrap();
            prop_assert_eq!(again.canonical(), text);
            prop_assert_eq!(again, pricing);
        }

        #[test]
        fn reading_never_panics(text in r#"\{"model":"(flat|graduated|matrix|percentage)"(,"(tiers|rows|rate|match|amount)":(\[\]|\{\}|"1"|null|\[\{\}\])){0,3}\}"#) {
            let _ = Pricing::parse(&text);
        }
    }
}
