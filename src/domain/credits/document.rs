//! The documents of calls: a grant, a purchase, a top-up rule, a draw. Only their form; SQL resolves keys, local dates and
//! defaults, and [`Block::check`](super::Block::check) refuses terms that can't hold together.

use super::block::{Category, Overdraft};
use super::scope::Scope;
use super::top_up::{Amount, Rule};
use crate::domain::foundation::json::{Fields, Node, Tree};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::Dimensions;

const GRANT: [&str; 12] = [
    "key",
    "amount",
    "unit",
    "category",
    "priority",
    "scope",
    "effective_on",
    "expires",
    "rollover",
    "overdraft",
    "contract",
    "reason",
];

/// The canonical text of a document whose form is right.
pub fn read(kind: &str, tree: &Tree) -> Result<String, Fault> {
    let root = Node::root(tree);
    match kind {
        "grant" => grant(root.fields_of(&GRANT)?)?,
        "purchase" => {
            let mut fields = root.fields_of(&[&GRANT[..], &["price", "bonus", "invoice"]].concat())?;
            not_negative(&fields.required("price")?)?;
            fields.optional("invoice").map(|invoice| invoice.boolean()).transpose()?;
            if let Some(bonus) = fields.optional("bonus") {
                bonus.positive()?;
            }
            if let Some(category) = fields.optional("category").filter(|node| node.text() != Ok("paid")) {
                return Err(category
                    .fault("what is bought is paid for")
                    .with_hint("Leave the category out; \"bonus\" are free credits of the same purchase."));
            }
            grant(fields)?;
        }
        "top_up_rule" => rule(&root)?,
        "draw" => draw(&root)?,
        other => return Err(Fault::value(format!("no credit documents of kind \"{other}\" are read"))),
    }
    tree.canonical()
}

fn not_negative(node: &Node) -> Result<Exact, Fault> {
    let value = node.decimal()?;
    if value.is_negative() {
        return Err(node.fault(format!("{value} is below 0")));
    }
    Ok(value)
}

/// A local date (its first instant), or an instant.
fn moment(node: &Node) -> Result<(), Fault> {
    match node.text()?.len() {
        10 => node.date().map(drop),
        _ => node.instant().map(drop),
    }
    .map_err(|fault| {
        fault.with_hint(
            "Write a date of the customer's zone (2026-12-31) or an instant (2026-12-31T00:00:00Z).",
        )
    })
}

/// What stands in the document of a grant, of those fields that nobody took before.
fn grant(mut fields: Fields) -> Result<(), Fault> {
    if let Some(key) = fields.optional("key") {
        key.key()?;
    }
    fields.required("amount")?.positive()?;
    terms(&mut fields)?;
    if let Some(category) = fields.optional("category") {
        category.word(&Category::WORDS)?;
    }
    for name in ["contract", "reason"] {
        if let Some(text) = fields.optional(name) {
            text.text()?;
        }
    }
    if let Some(at) = fields.optional("effective_on") {
        moment(&at)?;
    }
    if let Some(at) = fields.optional("expires").filter(|node| node.text() != Ok("never")) {
        moment(&at)?;
    }
    if let Some(rollover) = fields.optional("rollover") {
        let mut fields = rollover.fields_of(&["cap", "for"])?;
        if let Some(cap) = fields.optional("cap") {
            not_negative(&cap)?;
        }
        if let Some(length) = fields.optional("for") {
            length_of_time(&length)?;
        }
    }
    if let Some(overdraft) = fields.optional("overdraft") {
        Overdraft::read(&overdraft)?;
    }
    Ok(())
}

/// What blocks of a grant and of a top-up have in common.
fn terms(fields: &mut Fields) -> Result<(), Fault> {
    if let Some(unit) = fields.optional("unit") {
        Unit::parse(unit.text()?).map_err(|fault| unit.rehint(fault))?;
    }
    if let Some(priority) = fields.optional("priority") {
        let value = priority.integer()?;
        if i32::try_from(value).is_err() {
            return Err(priority.fault(format!("{value} is too large for a priority")));
        }
    }
    if let Some(scope) = fields.optional("scope") {
        Scope::read_with(&scope, moment)?;
    }
    Ok(())
}

/// `12 months`, `30 days`.
fn length_of_time(node: &Node) -> Result<(), Fault> {
    let text = node.text()?;
    let fits = |(count, unit): (&str, &str)| {
        let count = !count.starts_with('0') && count.len() <= 4 && count.bytes().all(|b| b.is_ascii_digit());
        count && ["day", "days", "week", "weeks", "month", "months", "year", "years"].contains(&unit)
    };
    if text.split_once(' ').is_some_and(fits) {
        return Ok(());
    }
    Err(node
        .fault(format!("\"{text}\" is no length of time"))
        .with_hint("Write a count and day, week, month or year: 12 months."))
}

fn rule(root: &Node) -> Result<(), Fault> {
    let known = [
        "unit",
        "threshold",
        "amount",
        "target",
        "price",
        "monthly_cap",
        "priority",
        "scope",
        "lasts",
        "invoice",
        "end",
    ];
    let mut fields = root.fields_of(&known)?;
    terms(&mut fields)?;
    if fields.optional("end").map(|end| end.boolean()).transpose()? == Some(true) {
        return match known
            .iter()
            .find(|name| !["unit", "end"].contains(name) && fields.optional(name).is_some())
        {
            None => Ok(()),
            Some(name) => Err(fields
                .fault(format!("has {name} beside \"end\": true"))
                .with_hint("Pass the unit alone to end its rule.")),
        };
    }
    if let Some(lasts) = fields.optional("lasts") {
        length_of_time(&lasts)?;
    }
    if let Some(price) = fields.optional("price") {
        not_negative(&price)?;
    }
    fields.optional("invoice").map(|invoice| invoice.boolean()).transpose()?;
    let (amount, target) = (fields.optional("amount"), fields.optional("target"));
    let amount = match (&amount, &target) {
        (Some(amount), None) => Amount::Fixed(amount.decimal()?),
        (None, Some(target)) => Amount::Target(target.decimal()?),
        _ => {
            return Err(fields.fault("must have one of amount and target").with_hint(
                "\"amount\" is a pack that is always the same, \"target\" what the balance is brought up to.",
            ));
        }
    };
    let monthly_cap = fields.optional("monthly_cap").map(|cap| cap.decimal()).transpose()?;
    let rule = Rule { threshold: fields.required("threshold")?.decimal()?, amount, monthly_cap };
    rule.check().map_err(|fault| root.fault(fault))
}

fn draw(root: &Node) -> Result<(), Fault> {
    let texts = ["product", "meter", "bill_to", "contract", "reference"];
    let mut fields = root.fields_of(&[&texts[..], &["dimensions", "occurred_at"]].concat())?;
    for name in texts {
        if let Some(text) = fields.optional(name) {
            text.text()?;
        }
    }
    if let Some(dimensions) = fields.optional("dimensions") {
        Dimensions::read(&dimensions)?;
    }
    if let Some(at) = fields.optional("occurred_at") {
        at.instant()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;

    fn of(kind: &str, text: &str) -> Result<String, String> {
        let tree = json::parse(text).unwrap();
        read(kind, &tree).map_err(|fault| fault.message)
    }

    #[test]
    fn grants_and_purchases_have_their_form() {
        let whole = r#"{"amount":"100","category":"pilot","contract":"c","effective_on":"2026-01-01","expires":"2027-01-01T00:00:00+01:00",
            "key":"g","overdraft":"unlimited","priority":10,"reason":"r","rollover":{"cap":"20","for":"12 months"},
            "scope":{"bill_tos":["inc"],"dimensions":{"model":["gpt-4"]},"meters":["tokens"],"products":["ai"],"windows":[{"from":"2026-02-01","until":"2026-03-01"}]},"unit":"USD"}"#;
        assert!(of("grant", whole).unwrap().contains(r#""priority":10"#));
        let bought =
            r#"{"amount":"120000","bonus":"1","category":"paid","expires":"never","price":"100000"}"#;
        assert_eq!(of("purchase", bought).as_deref(), Ok(bought));
        for (kind, text, expected) in [
            ("grant", r#"{}"#, "amount: is missing"),
            ("grant", r#"{"amount":"0"}"#, "amount: 0 must be greater than 0"),
            ("grant", r#"{"amount":"1","price":"1"}"#, "price: is not a field of this document"),
            ("grant", r#"{"amount":"1","unit":"1"}"#, "unit: \"1\" is not a currency or unit code"),
            ("grant", r#"{"amount":"1","category":"free"}"#, "category: \"free\" is not known"),
            (
                "grant",
                r#"{"amount":"1","priority":3000000000}"#,
                "priority: 3000000000 is too large for a priority",
            ),
            ("grant", r#"{"amount":"1","key":" g"}"#, "key: "),
            ("grant", r#"{"amount":"1","reason":1}"#, "reason: must be a string"),
            ("grant", r#"{"amount":"1","expires":"31.12.2026"}"#, "expires: "),
            ("grant", r#"{"amount":"1","effective_on":"never"}"#, "effective_on: "),
            ("grant", r#"{"amount":"1","rollover":{"cap":"-1"}}"#, "rollover.cap: -1 is below 0"),
            (
                "grant",
                r#"{"amount":"1","rollover":{"for":"a year"}}"#,
                "rollover.for: \"a year\" is no length of time",
            ),
            ("grant", r#"{"amount":"1","rollover":{"for":"012 days"}}"#, "rollover.for: "),
            ("grant", r#"{"amount":"1","rollover":{"for":"12345 days"}}"#, "rollover.for: "),
            (
                "grant",
                r#"{"amount":"1","rollover":{"until":"2027-01-01"}}"#,
                "rollover.until: is not a field",
            ),
            ("grant", r#"{"amount":"1","overdraft":"much"}"#, "overdraft: "),
            ("grant", r#"{"amount":"1","scope":{"meter":["t"]}}"#, "scope.meter: is not a field"),
            (
                "grant",
                r#"{"amount":"1","scope":{"dimensions":{"model":[]}}}"#,
                "scope.dimensions.model: has no value that fits",
            ),
            (
                "grant",
                r#"{"amount":"1","scope":{"windows":[{"from":"2026-01-01"}]}}"#,
                "scope.windows[0].until: is missing",
            ),
            ("purchase", r#"{"amount":"1"}"#, "price: is missing"),
            ("purchase", r#"{"amount":"1","price":"-1"}"#, "price: -1 is below 0"),
            ("purchase", r#"{"amount":"1","price":"1","bonus":"0"}"#, "bonus: 0 must be greater than 0"),
            (
                "purchase",
                r#"{"amount":"1","price":"1","category":"pilot"}"#,
                "category: what is bought is paid for",
            ),
            ("loan", "{}", "no credit documents of kind \"loan\" are read"),
        ] {
            let message = of(kind, text).unwrap_err();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }

    #[test]
    fn rules_and_draws_have_their_form() {
        let rule = r#"{"amount":"100","lasts":"1 year","monthly_cap":"300","price":"0.01","priority":1,"scope":{},"threshold":"20","unit":"credits"}"#;
        assert_eq!(of("top_up_rule", rule).as_deref(), Ok(rule));
        assert!(of("top_up_rule", r#"{"threshold":"20","target":"50"}"#).is_ok());
        assert!(of("top_up_rule", r#"{"end":true,"unit":"credits"}"#).is_ok());
        let draw = r#"{"bill_to":"inc","contract":"c","dimensions":{"model":"gpt-4"},"meter":"t","occurred_at":"2026-01-01T00:00:00Z","product":"p","reference":"r"}"#;
        assert_eq!(of("draw", draw).as_deref(), Ok(draw));
        for (kind, text, expected) in [
            ("top_up_rule", r#"{"threshold":"1"}"#, "document: must have one of amount and target"),
            (
                "top_up_rule",
                r#"{"threshold":"1","amount":"1","target":"2"}"#,
                "document: must have one of amount and target",
            ),
            ("top_up_rule", r#"{"amount":"1"}"#, "threshold: is missing"),
            (
                "top_up_rule",
                r#"{"threshold":"20","target":"10"}"#,
                "document: target 10 is below the threshold 20",
            ),
            (
                "top_up_rule",
                r#"{"threshold":"20","amount":"10","lasts":"1 hour"}"#,
                "lasts: \"1 hour\" is no length of time",
            ),
            ("top_up_rule", r#"{"threshold":"20","amount":"10","price":"-1"}"#, "price: -1 is below 0"),
            (
                "top_up_rule",
                r#"{"end":true,"threshold":"20"}"#,
                "document: has threshold beside \"end\": true",
            ),
            ("draw", r#"{"event":"e"}"#, "event: is not a field"),
            ("draw", r#"{"meter":1}"#, "meter: must be a string"),
            ("draw", r#"{"dimensions":[]}"#, "dimensions: "),
            ("draw", r#"{"occurred_at":"today"}"#, "occurred_at: \"today\" is not an instant"),
        ] {
            let message = of(kind, text).unwrap_err();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }
}
