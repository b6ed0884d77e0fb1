//! The documents of limits and alerts: only their form; SQL resolves keys and defaults.

use crate::domain::foundation::Fault;
use crate::domain::foundation::json::{Fields, Node, Tree};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Exact, decimal};

const PERIODS: [&str; 4] = ["day", "week", "month", "billing_period"];
/// Most thresholds of a rule, and dimensions of a match.
pub const ITEMS_MAX: usize = 20;

/// The canonical text of a document whose form is right.
pub fn read(kind: &str, tree: &Tree) -> Result<String, Fault> {
    let root = Node::root(tree);
    match kind {
        "spend_limit" => {
            limit(root.fields_of(&[
                "key", "amount", "currency", "period", "mode", "bill_to", "match", "reason", "end",
            ])?)?;
        }
        "budget" => {
            let known =
                ["key", "amount", "currency", "meter", "period", "mode", "bill_to", "match", "reason", "end"];
            let mut fields = root.fields_of(&known)?;
            let meter = fields.optional("meter");
            if let Some(meter) = &meter {
                meter.text()?;
            }
            if let Some(other) = ["currency", "bill_to"]
                .iter()
                .find_map(|name| fields.optional(name).filter(|_| meter.is_some()))
            {
                return Err(other
                    .fault("is for money, and a meter counts units")
                    .with_hint("Leave one of them out; \"match\" may name a bill_to."));
            }
            if !ends(&mut fields)? {
                fields.required("match").map_err(|fault| {
                    fault.with_hint("Say whose budget it is: {\"match\": {\"api_key\": \"k1\"}}; a limit of all usage is a spend limit.")
                })?;
            }
            limit(fields)?;
        }
        "alert_rule" => rule(&root)?,
        other => return Err(Fault::value(format!("no documents of kind \"{other}\" are read"))),
    }
    tree.canonical()
}

fn ends(fields: &mut Fields) -> Result<bool, Fault> {
    fields.optional("end").map_or(Ok(false), |end| end.boolean())
}

fn limit(mut fields: Fields) -> Result<(), Fault> {
    fields.required("key")?.key()?;
    if ends(&mut fields)? {
        return fields.only(&["key", "end", "reason"]);
    }
    not_negative(&fields.required("amount")?)?;
    fields.required("period")?.word(&PERIODS)?;
    if let Some(mode) = fields.optional("mode") {
        mode.word(&["hard", "soft"])?;
    }
    if let Some(currency) = fields.optional("currency") {
        Unit::parse(currency.text()?).map_err(|fault| currency.rehint(fault))?;
    }
    shared(&mut fields)
}

/// What limits and rules have in common.
fn shared(fields: &mut Fields) -> Result<(), Fault> {
    for name in ["bill_to", "reason"] {
        if let Some(text) = fields.optional(name) {
            text.text()?;
        }
    }
    if let Some(values) = fields.optional("match") {
        let entries = values.entries()?;
        if entries.is_empty() || entries.len() > ITEMS_MAX {
            return Err(values
                .fault(format!("names {} dimensions", entries.len()))
                .with_hint("Name 1 to 20; without a match it is about all usage."));
        }
        for (_, value) in entries {
            value.text()?;
        }
    }
    Ok(())
}

fn not_negative(node: &Node) -> Result<Exact, Fault> {
    let value = node.decimal()?;
    if value.is_negative() {
        return Err(node.fault(format!("{value} is below 0")));
    }
    Ok(value)
}

fn rule(root: &Node) -> Result<(), Fault> {
    let known = [
        "key",
        "kind",
        "thresholds",
        "limit",
        "feature",
        "meter",
        "match",
        "bill_to",
        "period",
        "unit",
        "of",
        "contract",
        "commitment",
        "reason",
        "end",
    ];
    let mut fields = root.fields_of(&known)?;
    fields.required("key")?.key()?;
    if ends(&mut fields)? {
        return fields.only(&["key", "end", "reason"]);
    }
    let kind = fields.required("kind")?.word(&["usage", "spend", "credit", "commitment"])?.to_owned();
    let of_a_limit = fields.optional("limit").is_some();
    let of_a_quota = kind == "usage" && fields.optional("feature").is_some();
    let mine: &[&str] = match (kind.as_str(), of_a_limit) {
        _ if of_a_quota => &["feature"],
        ("usage" | "spend", true) => &["limit"],
        ("usage", _) => &["feature", "meter", "match", "period", "of"],
        ("spend", _) => &["unit", "match", "bill_to", "period", "of"],
        ("credit", _) => &["unit", "of"],
        _ => &["contract", "commitment"],
    };
    fields
        .only(&[&["key", "kind", "thresholds", "reason", "end"], mine].concat())
        .map_err(|fault| fault.with_hint(format!("A rule of kind {kind} may have: {}.", mine.join(", "))))?;
    for name in ["limit", "feature", "meter", "contract", "commitment"] {
        if let Some(text) = fields.optional(name) {
            text.text()?;
        }
    }
    let says_itself = of_a_limit || of_a_quota;
    if kind == "usage" && !says_itself {
        fields.required("meter")?;
    }
    if matches!(kind.as_str(), "usage" | "spend") && !says_itself {
        fields.required("period")?.word(&PERIODS)?;
    }
    if let Some(unit) = fields.optional("unit") {
        Unit::parse(unit.text()?).map_err(|fault| unit.rehint(fault))?;
    }
    let base = fields.optional("of");
    if let Some(base) = &base {
        base.positive()?;
    }
    // Blocks of credit, limits, quotas and commitments say by themselves what 100 percent are.
    let has_whole = base.is_some() || says_itself || matches!(kind.as_str(), "credit" | "commitment");
    thresholds(&fields.required("thresholds")?, has_whole)?;
    shared(&mut fields)
}

/// Some, each once; percents only where it is known what 100 are.
fn thresholds(node: &Node, has_whole: bool) -> Result<(), Fault> {
    let items = node.items_at_most(ITEMS_MAX)?;
    if items.is_empty() {
        return Err(node.fault("is empty").with_hint("Write [\"80%\", \"100%\"] or [\"500\"]."));
    }
    let mut seen = Vec::new();
    for item in items {
        let text = item.text()?;
        threshold(text).map_err(|fault| item.rehint(fault))?;
        if text.ends_with('%') && !has_whole {
            return Err(item
                .fault(format!("{text} of what?"))
                .with_hint("Add \"of\": the amount that is 100%."));
        }
        if seen.contains(&text) {
            return Err(item.fault(format!("{text} stands there twice")));
        }
        seen.push(text);
    }
    Ok(())
}

/// `80%`, or an amount.
fn threshold(text: &str) -> Result<Exact, Fault> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match Exact::parse(number) {
        Ok(value) if !value.is_negative() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            Ok(value)
        }
        _ => Err(Fault::value(format!("{} is no threshold", decimal::quoted(text)))
            .with_hint("Write \"80%\" or \"500\".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;

    fn fault(kind: &str, doc: &str) -> String {
        json::parse(doc).and_then(|tree| read(kind, &tree)).unwrap_err().message
    }

    #[test]
    fn forms_are_read() {
        for (kind, doc) in [
            ("spend_limit", r#"{"key":"m","amount":"500","period":"month"}"#),
            (
                "spend_limit",
                r#"{"key":"m","amount":"0","period":"day","mode":"soft","bill_to":"de","match":{"model":"gpt-4"},"currency":"EUR","reason":"r"}"#,
            ),
            ("spend_limit", r#"{"key":"m","end":true}"#),
            (
                "budget",
                r#"{"key":"k1","amount":"10","period":"billing_period","match":{"api_key":"k1"},"bill_to":"de"}"#,
            ),
            (
                "budget",
                r#"{"key":"k1","amount":"10","period":"week","match":{"api_key":"k1"},"meter":"tokens"}"#,
            ),
            ("budget", r#"{"key":"k1","end":true,"reason":"gone"}"#),
            (
                "alert_rule",
                r#"{"key":"a","kind":"usage","meter":"tokens","period":"month","thresholds":["500"]}"#,
            ),
            (
                "alert_rule",
                r#"{"key":"a","kind":"usage","meter":"tokens","period":"month","of":"1000","thresholds":["80%","100%","2000"]}"#,
            ),
            ("alert_rule", r#"{"key":"a","kind":"spend","limit":"m","thresholds":["80%"]}"#),
            (
                "alert_rule",
                r#"{"key":"a","kind":"spend","period":"month","unit":"USD","bill_to":"de","match":{"project":"p"},"thresholds":["99.5"]}"#,
            ),
            ("alert_rule", r#"{"key":"a","kind":"usage","feature":"tokens","thresholds":["80%","500"]}"#),
            ("alert_rule", r#"{"key":"a","kind":"credit","thresholds":["20%","0"]}"#),
            (
                "alert_rule",
                r#"{"key":"a","kind":"commitment","contract":"c","commitment":"annual","thresholds":["50%"]}"#,
            ),
            ("alert_rule", r#"{"key":"a","end":true}"#),
        ] {
            let read = json::parse(doc).and_then(|tree| read(kind, &tree));
            assert!(read.is_ok(), "{doc}: {read:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_where() {
        for (kind, doc, want) in [
            ("spend_limit", r#"{"key":"m","period":"month"}"#, "amount: is missing"),
            ("spend_limit", r#"{"key":"m","amount":"-1","period":"month"}"#, "amount: -1 is below 0"),
            ("spend_limit", r#"{"key":"m","amount":"1","period":"year"}"#, "period: "),
            ("spend_limit", r#"{"key":"m","amount":"1","period":"day","mode":"firm"}"#, "mode: "),
            ("spend_limit", r#"{"key":"m","amount":"1","period":"day","meter":"tokens"}"#, "meter: "),
            (
                "spend_limit",
                r#"{"key":"m","amount":"1","period":"day","match":{}}"#,
                "match: names 0 dimensions",
            ),
            ("spend_limit", r#"{"key":"m","amount":"1","end":true}"#, "amount: "),
            ("budget", r#"{"key":"m","amount":"1","period":"day"}"#, "match: is missing"),
            (
                "budget",
                r#"{"key":"m","amount":"1","period":"day","match":{"a":"b"},"meter":"t","currency":"USD"}"#,
                "currency: is for money",
            ),
            ("alert_rule", r#"{"key":"a","kind":"noise","thresholds":["1"]}"#, "kind: "),
            (
                "alert_rule",
                r#"{"key":"a","kind":"usage","period":"month","thresholds":["1"]}"#,
                "meter: is missing",
            ),
            ("alert_rule", r#"{"key":"a","kind":"spend","thresholds":["1"]}"#, "period: is missing"),
            (
                "alert_rule",
                r#"{"key":"a","kind":"spend","period":"month","thresholds":["80%"]}"#,
                "thresholds[0]: 80% of what?",
            ),
            (
                "alert_rule",
                r#"{"key":"a","kind":"usage","feature":"t","period":"month","thresholds":["80%"]}"#,
                "period: ",
            ),
            ("alert_rule", r#"{"key":"a","kind":"spend","feature":"t","thresholds":["80%"]}"#, "feature: "),
            (
                "alert_rule",
                r#"{"key":"a","kind":"spend","limit":"m","period":"month","thresholds":["80%"]}"#,
                "period: ",
            ),
            (
                "alert_rule",
                r#"{"key":"a","kind":"credit","period":"month","thresholds":["80%"]}"#,
                "period: ",
            ),
            ("alert_rule", r#"{"key":"a","kind":"credit","thresholds":[]}"#, "thresholds: is empty"),
            ("alert_rule", r#"{"key":"a","kind":"credit","thresholds":["-1"]}"#, "thresholds[0]: "),
            (
                "alert_rule",
                r#"{"key":"a","kind":"credit","thresholds":["1","1"]}"#,
                "thresholds[1]: 1 stands there twice",
            ),
            ("alert_rule", r#"{"key":"a","kind":"credit","thresholds":["1e3"]}"#, "thresholds[0]: "),
            ("invoice", r#"{}"#, "no documents of kind"),
        ] {
            assert!(fault(kind, doc).starts_with(want), "{doc}: {}", fault(kind, doc));
        }
    }
}
