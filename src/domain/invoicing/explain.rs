//! An invoice document as an indented tree that a person can check with a pocket calculator.

use crate::domain::foundation::json::{Node, Tree};
use crate::domain::foundation::{Exact, Fault, Ratio};
use crate::domain::metering::Dimensions;
use crate::domain::rating::{Pricing, Step, shown_steps};

/// The price of usage that no credit covers where nothing else pays.
pub const UNCOVERED: &str = "not covered by credit";

/// What is known about a line beyond the document: extra leaves under it, by line key.
pub type Notes = Vec<(String, Vec<String>)>;

/// Renders a document (preview, draft or final); `notes` add leaves to single lines.
pub fn explain(document: &Node, notes: &Notes) -> Result<Vec<String>, Fault> {
    let text = |name: &str| match document.tree.get(name) {
        Some(Tree::Text(text)) => text.to_string(),
        _ => String::new(),
    };
    let currency = text("currency");
    let total = document.tree.get("totals").and_then(|t| t.get("due")).map(leaf_text).unwrap_or_default();
    let mut branches = vec![Branch::leaf(dates(document))];
    let lines = document.fields()?.required("lines")?.items()?;
    for line in &lines {
        // A boundary issued again, less what stands for it elsewhere.
        let of_this = lines.iter().any(|other| self::text(other, "key") == self::text(line, "corrects"));
        branches.push(line_branch(line, &currency, notes, of_this)?);
    }
    let credits = credit_leaves(document, &currency)?;
    if !credits.is_empty() {
        let totals = |name: &str| {
            document.tree.get("totals").and_then(|totals| totals.get(name)).map(leaf_text).unwrap_or_default()
        };
        branches.push(Branch::leaf(format!("total {} {currency}", totals("total"))));
        branches.push(Branch { text: format!("credits {} {currency}", totals("credits")), leaves: credits });
        branches.push(Branch::leaf(format!("due {total} {currency}")));
    } else {
        branches.push(Branch::leaf(format!("total {total} {currency}")));
    }
    branches.push(Branch::leaf(inputs_leaf(document)));
    let number = match text("number") {
        number if number.is_empty() => String::new(),
        number => format!(" {number}"),
    };
    let status = match text("status") {
        status if status.is_empty() => "preview".to_string(),
        status => status,
    };
    let what = match text("kind").as_str() {
        "credit_note" => "Credit note",
        "correction" => "Correction invoice",
        "credit_sale" => "Invoice for credit",
        _ => "Invoice",
    };
    let credits = match text("credits") {
        credits if credits.is_empty() => String::new(),
        credits => format!(" for {credits}"),
    };
    let contract = match text("contract") {
        // Credit is sold by itself.
        contract if contract.is_empty() => String::new(),
        contract => format!(", contract {contract}"),
    };
    let mut out = vec![format!(
        "{what}{number} ({status}){credits} to {} of {}{contract}: {total} {currency}",
        text("bill_to"),
        text("customer")
    )];
    render(&branches, "", &mut out);
    Ok(out)
}

/// What lines draw from each block, in order of burning, or give back.
fn credit_leaves(document: &Node, currency: &str) -> Result<Vec<Branch>, Fault> {
    // Of a credit note it may be the number of what it credits.
    let Some(tree @ Tree::List(_)) = document.tree.get("credits") else { return Ok(Vec::new()) };
    let lines = document.tree.get("lines").and_then(|lines| match lines {
        Tree::List(lines) => Some(lines.as_slice()),
        _ => None,
    });
    let unit_of = |key: &str| {
        let line = lines
            .unwrap_or_default()
            .iter()
            .find(|line| line.get("key").is_some_and(|k| leaf_text(k) == key));
        line.and_then(|line| line.get("unit")).map(leaf_text).filter(|unit| !unit.is_empty())
    };
    let node = Node { tree, path: "credits".into() };
    let leaf = |credit: &Node| {
        let text = |name: &str| text(credit, name);
        let (amount, back) = match text("amount").strip_prefix('-') {
            Some(amount) => (amount.to_string(), true),
            None => (text("amount"), false),
        };
        let unit = text("unit");
        let unit = if unit.is_empty() { currency.to_string() } else { unit };
        let quantity = text("quantity");
        let quantity = quantity.trim_start_matches('-');
        let of = unit_of(&text("line")).map_or(String::new(), |unit| format!(" {unit}"));
        let verb = if back { "gives back to" } else { "draws from" };
        Branch::leaf(format!(
            "{} {verb} {}: {} {unit} for {}{of}",
            text("line"),
            text("block"),
            grouped(&amount),
            grouped(quantity)
        ))
    };
    Ok(node.items()?.iter().map(leaf).collect())
}

struct Branch {
    text: String,
    leaves: Vec<Branch>,
}

impl Branch {
    fn leaf(text: String) -> Branch {
        Branch { text, leaves: Vec::new() }
    }
}

fn render(branches: &[Branch], indent: &str, out: &mut Vec<String>) {
    let shown: Vec<&Branch> = branches.iter().filter(|branch| !branch.text.is_empty()).collect();
    for (at, branch) in shown.iter().enumerate() {
        let last = at + 1 == shown.len();
        let (joint, deeper) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        out.push(format!("{indent}{joint}{}", branch.text));
        render(&branch.leaves, &format!("{indent}{deeper}"), out);
    }
}

fn leaf_text(tree: &Tree) -> String {
    match tree {
        Tree::Text(text) | Tree::Number(text) => text.to_string(),
        _ => String::new(),
    }
}

fn dates(document: &Node) -> String {
    let date = |name: &str| document.tree.get(name).map(leaf_text);
    match (date("issued_on"), date("due_on")) {
        (Some(issued), Some(due)) => format!("issued {issued}, due {due}"),
        (Some(issued), None) => format!("issued {issued}"),
        _ => String::new(),
    }
}

fn inputs_leaf(document: &Node) -> String {
    let Some(inputs) = document.tree.get("inputs") else { return String::new() };
    let field = |name: &str| inputs.get(name).map(leaf_text).unwrap_or_default();
    let prices = match inputs.get("prices") {
        Some(Tree::List(prices)) if !prices.is_empty() => {
            let names: Vec<String> = prices.iter().map(leaf_text).collect();
            format!(", prices {}", names.join(" "))
        }
        _ => String::new(),
    };
    let sha256 = field("sha256");
    let short = sha256.get(..12).unwrap_or(&sha256);
    match field("contract_version") {
        version if version.is_empty() => format!("inputs {short}"),
        version => format!("from contract version {version}{prices}; inputs {short}"),
    }
}

fn line_branch(line: &Node, currency: &str, notes: &Notes, of_this: bool) -> Result<Branch, Fault> {
    let text = |name: &str| text(line, name);
    let key = text("key");
    let mut leaves = vec![Branch::leaf(format!("for {} until {}", text("from"), text("until")))];
    let extra = notes.iter().filter(|(of, _)| *of == key).flat_map(|(_, notes)| notes.clone());
    let kind = text("kind");
    if matches!(kind.as_str(), "difference" | "proration") {
        leaves.extend(difference_leaves(line, of_this)?);
        leaves.extend(extra.map(Branch::leaf));
        return Ok(Branch {
            text: format!("{}, {kind}: {} {currency}   [{key}]", text("label"), text("amount")),
            leaves,
        });
    }
    if let Some(quantity) = line.tree.get("quantity") {
        let unit = text("unit");
        let of = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        leaves.push(Branch::leaf(format!("quantity {}{of}", grouped(&leaf_text(quantity)))));
    }
    if let Some(price) = line.tree.get("price") {
        leaves.push(Branch { text: format!("price: {}", leaf_text(price)), leaves: working(line, line)? });
    }
    let discounts = discount_leaves(line);
    // What is off comes after the price has been worked out.
    let exact = if discounts.is_empty() { text("exact") } else { text("list_exact") };
    let share = text("share");
    let part = if share.is_empty() { "the" } else { &format!("{share} of the") };
    leaves.push(Branch::leaf(match (text("kind").as_str(), share.as_str()) {
        ("true_up", _) if line.tree.get("meter").is_none() => {
            "what is missing to what was committed for the period".into()
        }
        ("true_up", _) => format!("what this charge's other lines leave missing to {part} minimum"),
        ("commitment" | "credit", _) => String::new(),
        _ if text("price") == UNCOVERED => {
            "no credit covers it, and the contract lets nothing else pay (credit_only)".into()
        }
        ("cap", _) => format!("what this charge's other lines exceed {part} maximum by"),
        (_, "") if exact == text("amount") || !discounts.is_empty() => String::new(),
        (_, "") => format!("exact {exact}, rounded once"),
        ("usage", share) if model(line) == "percentage" => {
            format!("for {share} of the period: exact {exact}, rounded once")
        }
        (_, share) => format!("× {share} of the period = exact {exact}, rounded once"),
    }));
    leaves.extend(discounts);
    leaves.extend(extra.map(Branch::leaf));
    Ok(Branch { text: format!("{}: {} {currency}   [{key}]", text("label"), text("amount")), leaves })
}

/// What is off a line, in order, from what to what.
fn discount_leaves(line: &Node) -> Vec<Branch> {
    let Some(Tree::List(discounts)) = line.tree.get("discounts") else { return Vec::new() };
    let field = |tree: &Tree, name: &str| tree.get(name).map(leaf_text);
    let off = |discount: &Tree| {
        let how = match (field(discount, "percent_off"), field(discount, "amount_off")) {
            (Some(percent), _) => format!("{percent}%"),
            (None, amount) => amount.unwrap_or_default(),
        };
        format!("{} {how} off", field(discount, "key").unwrap_or_default())
    };
    let all = discounts.iter().map(off).collect::<Vec<_>>().join(", ");
    vec![Branch::leaf(format!(
        "{} less discounts: {all} = exact {}",
        text(line, "list_amount"),
        text(line, "exact")
    ))]
}

/// What a difference is between: what its line comes to now, and what was billed for it before.
fn difference_leaves(line: &Node, of_this: bool) -> Result<Vec<Branch>, Fault> {
    let field = |name: &str| line.tree.get(name).map(|tree| Node { tree, path: line.path.clone() });
    let (Some(total), Some(billed)) = (field("total"), field("billed")) else { return Ok(Vec::new()) };
    let unit = text(line, "unit");
    let sums = |sums: &Node| {
        let quantity = text(sums, "quantity");
        let of = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        match quantity.is_empty() {
            true => text(sums, "amount"),
            false => format!("{} for {}{of}", text(sums, "amount"), grouped(&quantity)),
        }
    };
    let on = match line.tree.get("billed_on") {
        Some(Tree::List(numbers)) if !numbers.is_empty() => {
            let this = if of_this { "this document and " } else { "" };
            format!(", on {this}{}", numbers.iter().map(leaf_text).collect::<Vec<_>>().join(", "))
        }
        _ => String::new(),
    };
    let price =
        line.tree.get("price").map(|price| format!(", price: {}", leaf_text(price))).unwrap_or_default();
    let now = format!("{} comes to {} now{price}", text(line, "corrects"), sums(&total));
    Ok(vec![
        Branch { text: now, leaves: working(line, &total)? },
        Branch::leaf(format!("billed before: {}{on}", sums(&billed))),
    ])
}

/// The working of a line's price, if it can be shown from the line alone; `sums` has the quantity and the exact
/// amount: the line itself, or what it comes to in total.
fn working(line: &Node, sums: &Node) -> Result<Vec<Branch>, Fault> {
    let (Some(pricing), Some(Tree::Text(quantity))) = (line.tree.get("pricing"), sums.tree.get("quantity"))
    else {
        return Ok(Vec::new());
    };
    let pricing = Pricing::read(&Node { tree: pricing, path: format!("{}.pricing", line.path) })?;
    let quantity = Ratio::from(Exact::parse(quantity)?);
    let list = sums.tree.get("list_exact").or(sums.tree.get("exact"));
    let exact = list.map(leaf_text).unwrap_or_default();
    let kind = Some(text(line, "corrects_kind"))
        .filter(|kind| !kind.is_empty())
        .unwrap_or_else(|| text(line, "kind"));
    if pricing.needs_events() {
        return Ok(vec![Branch::leaf("rated event by event, in order of time".into())]);
    }
    // A partial period counts as its share of a whole one: usage at a whole period's rate, fees by the period.
    let share = share(line)?;
    if share.is_some() && pricing.model_name() == "percentage" {
        return Ok(vec![Branch::leaf(
            "rate on the amount beyond this share of what is free, and a fixed part for each such event"
                .into(),
        )]);
    }
    let by_rate = share.is_some() && !matches!(pricing.model_name(), "flat") && kind == "usage";
    let share = share.unwrap_or(Ratio::from(1i64));
    let quantity = if by_rate { quantity.div(&share).unwrap_or(Ratio::ZERO) } else { quantity };
    if let Some(part) = part_of_versions(line, &pricing, &quantity, by_rate.then_some(&share), &exact)? {
        return Ok(part);
    }
    let steps = pricing.explain(&quantity, &Dimensions::new(), 1)?;
    let whole = pricing.rate_without_bounds(&quantity, &Dimensions::new(), 1)?;
    let fits = whole.mul(&share).shown() == exact;
    if pricing.counts_events() && !fits {
        // The line doesn't say how many events there were, and a working with another number would be wrong.
        return Ok(vec![Branch::leaf("rate on the amount, and a fixed part for each event".into())]);
    }
    if !fits && kind == "fee" {
        return Ok(Vec::new()); // discounts are in what it comes to
    }
    if !fits {
        return Ok(vec![Branch::leaf(format!(
            "its part, by quantity, of the {} price over the whole quantity of the period",
            pricing.model_name()
        ))]);
    }
    let at_whole = by_rate.then(|| {
        Branch::leaf(format!(
            "at the rate of a whole period: {} for the quantity",
            grouped(&quantity.shown())
        ))
    });
    let steps = shown_steps(steps);
    let steps =
        steps.iter().filter(|step| !matches!(step.what.as_str(), "minimum" | "maximum")).map(step_leaf);
    Ok(at_whole.into_iter().chain(steps).collect())
}

/// The working of one version's part of a quantity, if it can be shown from this line alone.
fn part_of_versions(
    line: &Node,
    pricing: &Pricing,
    quantity: &Ratio,
    share: Option<&Ratio>,
    exact: &str,
) -> Result<Option<Vec<Branch>>, Fault> {
    let at_rate = |text: String| -> Result<Option<Ratio>, Fault> {
        if text.is_empty() {
            return Ok(None);
        }
        let quantity = Ratio::from(Exact::parse(&text)?);
        Ok(Some(share.and_then(|share| quantity.div(share)).unwrap_or(quantity)))
    };
    let rate = |quantity: &Ratio| pricing.rate_without_bounds(quantity, &Dimensions::new(), 1);
    let steps = |quantity: &Ratio| -> Result<Vec<Branch>, Fault> {
        let steps = shown_steps(pricing.explain(quantity, &Dimensions::new(), 1)?);
        let priced = steps.iter().filter(|step| !matches!(step.what.as_str(), "minimum" | "maximum"));
        Ok(priced.map(step_leaf).collect())
    };
    let fits = |amount: &Ratio| share.map_or(amount.clone(), |share| amount.mul(share)).shown() == exact;
    let cut = || Branch::leaf("its part, by quantity, of what this version of the price adds".into());
    if let Some(after) = at_rate(text(line, "after"))? {
        let until = after.add(quantity);
        if pricing.counts_events() || until.is_negative() || after.is_negative() {
            return Ok(Some(vec![cut()]));
        }
        let (begins, ends) = (rate(&after)?, rate(&until)?);
        if !fits(&ends.sub(&begins)) {
            return Ok(Some(vec![cut()]));
        }
        let upto = format!("for {}: {}", grouped(&until.shown()), ends.shown());
        let less =
            format!("less for the {} before this version: {}", grouped(&after.shown()), begins.shown());
        return Ok(Some(vec![
            Branch { text: upto, leaves: steps(&until)? },
            Branch { text: less, leaves: steps(&after)? },
        ]));
    }
    let Some(of) = at_rate(text(line, "of"))? else { return Ok(None) };
    let amount = rate(&of)?;
    let part = quantity.div(&of).map(|part| amount.mul(&part));
    let whole = format!("for {} under all versions: {}", grouped(&of.shown()), amount.shown());
    let branch = Branch { text: whole, leaves: steps(&of)? };
    Ok(Some(match part.filter(|part| fits(part)) {
        Some(_) => {
            let (quantity, of) = (grouped(&quantity.shown()), grouped(&of.shown()));
            vec![branch, Branch::leaf(format!("of which {quantity} of {of}"))]
        }
        None => vec![branch, cut()],
    }))
}

fn model(line: &Node) -> String {
    line.tree.get("pricing").and_then(|pricing| pricing.get("model")).map(leaf_text).unwrap_or_default()
}

fn text(line: &Node, name: &str) -> String {
    line.tree.get(name).map(leaf_text).unwrap_or_default()
}

/// The share of a whole period that a line is for, as it stands in the document: `12/31`.
fn share(line: &Node) -> Result<Option<Ratio>, Fault> {
    let share = text(line, "share");
    let Some((part, whole)) = share.split_once('/') else { return Ok(None) };
    Ok(Ratio::from(Exact::parse(part)?).div(&Exact::parse(whole)?.into()))
}

fn step_leaf(step: &Step) -> Branch {
    let quantity = step.quantity.as_deref().map(grouped);
    let working = match (quantity, step.unit_price.as_deref()) {
        (Some(quantity), Some(price)) => format!("{quantity} at {price} = "),
        (Some(quantity), None) => format!("{quantity}: "),
        (None, Some(price)) => format!("{price} = "),
        (None, None) => String::new(),
    };
    Branch::leaf(format!("{}: {working}{}", step.what, step.amount.shown()))
}

/// `8779295.5` → `8,779,295.5`.
fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
    if !whole.bytes().all(|b| b.is_ascii_digit()) {
        return number.to_string();
    }
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    match fraction {
        Some(fraction) => format!("{sign}{out}.{fraction}"),
        None => format!("{sign}{out}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_digits() {
        for (number, expected) in [
            ("0", "0"),
            ("999", "999"),
            ("1000", "1,000"),
            ("-8779295.5", "-8,779,295.5"),
            ("8779295", "8,779,295"),
            ("1e9", "1e9"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }
}
