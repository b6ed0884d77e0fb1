//! Bills as people agreed on them, from inputs to documents.

use super::compute::{Line, lines};
use super::document::documents;
use super::explain::explain;
use super::inputs::Inputs;
use crate::domain::foundation::Fault;
use crate::domain::foundation::json::{self, Node};

fn inputs(text: &str) -> Inputs {
    Inputs::read(&Node::root(&json::parse(text).unwrap())).unwrap()
}

/// A bill of one contract with these charges, overrides and policies.
fn bill(charges: &str, overrides: &str, policies: &str) -> Inputs {
    inputs(&format!(
        r#"{{"contract":{{"key":"acme-1","customer":"acme","seller":"default","currency":"USD","bill_to":"acme","version":1,"terms_version":1}},
        "minor_units":2,"policies":{{{policies}}},"charges":[{charges}],"overrides":[{overrides}],"prices":["list/tokens@1"]}}"#
    ))
}

const NOVEMBER: &str = r#""starts_on":"2023-11-01","ends_on":"2023-12-01","whole_starts_on":"2023-11-01","whole_ends_on":"2023-12-01",
    "from":"2023-11-01T00:00:00Z","until":"2023-12-01T00:00:00Z","whole_from":"2023-11-01T00:00:00Z","whole_until":"2023-12-01T00:00:00Z""#;

/// A usage charge over November with one segment.
fn usage(key: &str, pricing: &str, usage: &str, more: &str) -> String {
    format!(
        r#"{{"kind":"usage","key":"{key}","product":"ai-api","every":"1 month","meter":"{key}","unit":"token","dimensions":["model","region"],
        "list":[{{"label":"{key}@1","pricing":{pricing}}}]{more},
        "periods":[{{{NOVEMBER},"segments":[{{"from":"2023-11-01T00:00:00Z","until":"2023-12-01T00:00:00Z","price_at":"2023-11-01T00:00:00Z","usage":[{usage}]}}]}}]}}"#
    )
}

fn used(dimensions: &str, quantity: &str, events: u64) -> String {
    format!(r#"{{"dimensions":{dimensions},"quantity":"{quantity}","events":{events}}}"#)
}

const MATRIX: &str = r#"{"model":"matrix","dimensions":["model"],"per":1000,"rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{"model":"gpt-3.5"},"unit_price":"0.002"}]}"#;
const REQUESTS: &str = r#"{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0"},{"up_to":"5000","unit_price":"0.001"},{"unit_price":"0.0005"}]}"#;

fn shown(lines: &[Line]) -> Vec<(String, String)> {
    lines.iter().map(|line| (line.key.clone(), line.amount.to_fixed(2).unwrap())).collect()
}

fn amounts(inputs: &Inputs) -> Vec<String> {
    lines(inputs).unwrap().iter().map(|line| line.amount.to_fixed(2).unwrap()).collect()
}

fn fault(inputs: &Inputs) -> Fault {
    lines(inputs).unwrap_err()
}

/// The demo's acme: 8,779,295 and 6,210,011 tokens, 9,395 requests → 175.59 + 12.42 + 6.20.
#[test]
fn acme_of_the_demo() {
    let tokens =
        [used(r#"{"model":"gpt-3.5"}"#, "6210011", 2939), used(r#"{"model":"gpt-4"}"#, "8779295", 6456)]
            .join(",");
    let requests =
        [used(r#"{"model":"gpt-3.5"}"#, "2939", 2939), used(r#"{"model":"gpt-4"}"#, "6456", 6456)].join(",");
    let charges =
        [usage("tokens", MATRIX, &tokens, ""), usage("requests", REQUESTS, &requests, "")].join(",");
    let deal = r#"{"scope":"contract","meter":"tokens","match":{"model":"gpt-4"},"unit_price":"0.02"}"#;
    let inputs = bill(&charges, deal, "");
    let lines = lines(&inputs).unwrap();
    assert_eq!(
        shown(&lines),
        [
            ("tokens/2023-11-01/model=gpt-3.5".to_string(), "12.42".to_string()),
            ("tokens/2023-11-01/model=gpt-4".to_string(), "175.59".to_string()),
            ("requests/2023-11-01".to_string(), "6.20".to_string()),
        ]
    );
    assert_eq!(lines[1].price.as_deref(), Some("contract override, tokens@1"));
    let documents = documents(&inputs, &lines).unwrap();
    assert_eq!(documents.len(), 1);
    let total = documents[0].get("totals").unwrap().get("due").unwrap().clone();
    assert_eq!(total, json::Tree::text("194.21"));
    let text =
        explain(&Node::root(&documents[0]), &vec![("requests/2023-11-01".into(), vec!["a note".into()])])
            .unwrap();
    assert_eq!(text[0], "Invoice (preview) to acme of acme, contract acme-1: 194.21 USD");
    assert!(text.iter().any(|line| line.contains("tier 3") && line.contains("4,395")), "{text:#?}");
    assert!(text.contains(&"│  └─ a note".to_string()), "{text:#?}");
    // the same inputs in another spelling give the same bytes
    let again = bill(&charges.replace("\"8779295\"", "\"8779295.0\""), deal, "");
    assert_ne!(again.sha256, "");
    let bytes = |inputs: &Inputs| {
        super::document::documents(inputs, &super::compute::lines(inputs).unwrap()).unwrap()[0]
            .canonical()
            .unwrap()
    };
    assert_eq!(
        bytes(&inputs),
        bytes(&bill(&charges.replace(":", " : ").replace("T00 : 00 : 00Z", "T00:00:00Z"), deal, ""))
    );
}

/// definitions 2: tiers run over the whole price, 6.20, not 6.67 per model; parts by largest remainder.
#[test]
fn tiers_run_over_the_whole_price_and_are_split() {
    let requests =
        [used(r#"{"model":"gpt-3.5"}"#, "2939", 2939), used(r#"{"model":"gpt-4"}"#, "6456", 6456)].join(",");
    let split = bill(&usage("requests", REQUESTS, &requests, r#","lines_by":["model"]"#), "", "");
    assert_eq!(amounts(&split), ["1.94", "4.26"]);
}

/// definitions 8: 90.01 of a minimum of 100 → true-up 9.99, so the sum is the minimum exactly.
#[test]
fn minimum_and_maximum_are_lines_of_their_own() {
    let with = |bounds: &str, quantity: &str| {
        let pricing = format!(r#"{{"model":"per_unit","unit_price":"0.010001"{bounds}}}"#);
        bill(&usage("tokens", &pricing, &used("{}", quantity, 1), ""), "", "")
    };
    let low = with(r#","minimum":"100""#, "9000");
    assert_eq!(amounts(&low), ["90.01", "9.99"]);
    assert_eq!(lines(&low).unwrap()[1].key, "tokens/2023-11-01/true_up");
    assert_eq!(amounts(&with(r#","minimum":"100""#, "10000")), ["100.01"]);
    let high = with(r#","maximum":"100""#, "20000");
    assert_eq!(amounts(&high), ["200.02", "-100.02"]);
    assert_eq!(lines(&high).unwrap()[1].key, "tokens/2023-11-01/cap");
    // nothing used: the minimum is due all the same
    let unused =
        bill(&usage("tokens", r#"{"model":"per_unit","unit_price":"1","minimum":"100"}"#, "", ""), "", "");
    assert_eq!(
        shown(&lines(&unused).unwrap()),
        [("tokens/2023-11-01/true_up".to_string(), "100.00".to_string())]
    );
}

/// rules.md 1, charge min/max: CA 10, 100–200; NY 12, 120–240, as rows; beside the rows it acts on the charge.
#[test]
fn bounds_of_rows_and_of_the_matrix() {
    let rows = r#"{"model":"matrix","dimensions":["region"],"minimum":"250","rows":[
        {"match":{"region":"ca"},"unit_price":"10","minimum":"100","maximum":"200"},
        {"match":{"region":"ny"},"unit_price":"12","minimum":"120","maximum":"240"}]}"#;
    let of = |ca: &str, ny: &str| {
        let used = [used(r#"{"region":"ca"}"#, ca, 1), used(r#"{"region":"ny"}"#, ny, 1)].join(",");
        shown(&lines(&bill(&usage("seats", rows, &used, ""), "", "")).unwrap())
    };
    let line = |key: &str, amount: &str| (format!("seats/2023-11-01/{key}"), amount.to_string());
    assert_eq!(
        of("8", "25"),
        [
            line("region=ca", "80.00"),
            line("region=ny", "300.00"),
            line("region=ca/true_up", "20.00"),
            line("region=ny/cap", "-60.00")
        ]
    );
    assert_eq!(
        of("8", "10"),
        [
            line("region=ca", "80.00"),
            line("region=ny", "120.00"),
            line("region=ca/true_up", "20.00"),
            line("true_up", "30.00")
        ]
    );
}

#[test]
fn a_price_change_splits_the_line_of_a_linear_model() {
    let list = r#"[{"label":"tokens@1","until":"2023-11-16T00:00:00Z","pricing":{"model":"per_unit","unit_price":"0.010"}},
        {"label":"tokens@2","from":"2023-11-16T00:00:00Z","pricing":{"model":"per_unit","unit_price":"0.008"}}]"#;
    let segment = |from: &str, until: &str, quantity: &str| {
        format!(
            r#"{{"from":"{from}","until":"{until}","price_at":"{from}","usage":[{}]}}"#,
            used("{}", quantity, 1)
        )
    };
    let charge = format!(
        r#"{{"kind":"usage","key":"tokens","product":"p","every":"1 month","meter":"tokens","list":{list},
        "periods":[{{{NOVEMBER},"segments":[{},{}]}}]}}"#,
        segment("2023-11-01T00:00:00Z", "2023-11-16T00:00:00Z", "10000"),
        segment("2023-11-16T00:00:00Z", "2023-12-01T00:00:00Z", "12000"),
    );
    let lines = lines(&bill(&charge, "", "")).unwrap();
    // rules.md 1: 100 + 96
    assert_eq!(
        shown(&lines),
        [
            ("tokens/2023-11-01".to_string(), "100.00".to_string()),
            ("tokens/2023-11-01/from=2023-11-16T00:00:00Z".to_string(), "96.00".to_string())
        ]
    );
    // two segments with one price are one line
    let same = bill(&charge, r#"{"scope":"contract","meter":"tokens","unit_price":"0.01"}"#, "");
    assert_eq!(amounts(&same), ["220.00"]);
}

/// definitions 9 and rules.md 1: 3 × 33.335 is 100.02 by line and 100.01 by invoice.
#[test]
fn rounding_levels() {
    let charges: Vec<String> = ["a", "b", "c"]
        .iter()
        .map(|key| usage(key, r#"{"model":"per_unit","unit_price":"33.335"}"#, &used("{}", "1", 1), ""))
        .collect();
    assert_eq!(amounts(&bill(&charges.join(","), "", "")), ["33.34", "33.34", "33.34"]);
    assert_eq!(
        amounts(&bill(&charges.join(","), "", r#""rounding_level":"invoice""#)),
        ["33.34", "33.34", "33.33"]
    );
}

/// rules.md 2: 310 a month from 20 January is 120.00; a whole month is 310.00.
#[test]
fn fees_prorate_by_policy() {
    let fee = |proration: &str| {
        format!(
            r#"{{"kind":"fee","key":"platform","product":"p","every":"1 month","quantity":"1","pricing":{{"model":"flat","amount":"310"}}{proration},
            "periods":[{{"starts_on":"2025-01-20","ends_on":"2025-02-01","whole_starts_on":"2025-01-01","whole_ends_on":"2025-02-01",
            "from":"2025-01-20T00:00:00Z","until":"2025-02-01T00:00:00Z","whole_from":"2025-01-01T00:00:00Z","whole_until":"2025-02-01T00:00:00Z"}},{{{NOVEMBER}}}]}}"#
        )
    };
    assert_eq!(amounts(&bill(&fee(""), "", "")), ["120.00", "310.00"]);
    assert_eq!(amounts(&bill(&fee(r#","proration":"none""#), "", "")), ["310.00", "310.00"]);
    assert_eq!(amounts(&bill(&fee(""), "", r#""proration_basis":"30_strict""#)), ["113.67", "310.00"]);
    let first = &lines(&bill(&fee(""), "", "")).unwrap()[0];
    assert_eq!(
        (first.key.as_str(), first.share.as_ref().unwrap().parts().0.to_string()),
        ("platform/2025-01-20", "12".into())
    );
}

#[test]
fn each_legal_entity_gets_its_own_document() {
    let used = [
        used(r#"{"model":"gpt-4"}"#, "1000", 1),
        used(r#"{"bill_to":"gmbh","model":"gpt-4"}"#, "3000", 1),
        used(r#"{"bill_to":"acme","model":"gpt-4"}"#, "1000", 1),
    ]
    .join(",");
    let inputs = bill(&usage("tokens", MATRIX, &used, ""), "", "");
    let lines = lines(&inputs).unwrap();
    assert_eq!(
        shown(&lines),
        [
            ("tokens/2023-11-01/model=gpt-4".to_string(), "0.06".to_string()),
            ("tokens/2023-11-01/model=gpt-4/bill_to=gmbh".to_string(), "0.09".to_string())
        ]
    );
    assert_eq!(documents(&inputs, &lines).unwrap().len(), 2);
}

#[test]
fn what_no_price_matches_is_a_fault_never_zero() {
    let o1 = bill(&usage("tokens", MATRIX, &used(r#"{"model":"o1"}"#, "5", 1), ""), "", "");
    assert_eq!(fault(&o1).code.sqlstate(), "ZB007");
    assert!(fault(&o1).message.starts_with("charge tokens: "), "{}", fault(&o1).message);
    let steps = r#"{"model":"stairstep","tiers":[{"up_to":"10","amount":"50"}]}"#;
    assert_eq!(
        fault(&bill(&usage("seats", steps, &used("{}", "11", 1), ""), "", "")).code.sqlstate(),
        "ZB007"
    );
}

#[test]
fn per_event_prices_take_single_amounts() {
    let pricing = r#"{"model":"percentage","rate":"0.029","fixed":"0.30","per_event_minimum":"0.50","per_event_maximum":"10"}"#;
    let used = r#"{"dimensions":{},"quantity":"605","events":3,"amounts":["5","100","500"]}"#;
    assert_eq!(amounts(&bill(&usage("payments", pricing, used, ""), "", "")), ["13.70"]);
}

#[test]
fn lines_of_nothing_are_left_out() {
    assert_eq!(amounts(&bill(&usage("tokens", MATRIX, "", ""), "", "")), [""; 0]);
    assert_eq!(
        amounts(&bill(&usage("tokens", MATRIX, &used(r#"{"model":"gpt-4"}"#, "0", 0), ""), "", "")),
        [""; 0]
    );
    let free = r#"{"model":"per_unit","unit_price":"0"}"#;
    assert_eq!(amounts(&bill(&usage("tokens", free, &used("{}", "7", 1), ""), "", "")), ["0.00"]);
}
