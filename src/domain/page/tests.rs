use super::chart::{ceiling, line, stacks};
use super::figures::{amount, fine, grouped, shown, span};
use super::{render, turns_text};
use chrono::NaiveDate;
use num_bigint::BigInt;

/// A summary with one of everything, and a hostile text wherever a customer or a seller may write one.
fn summary(hostile: &str) -> serde_json::Value {
    serde_json::json!({
        "customer": "acme", "name": hostile, "seller": hostile, "currency": "USD", "time_zone": "Europe/Berlin", "as_of": "2026-03-14T08:30:00Z",
        "as_of_local": "2026-03-14 09:30", "today": "2026-03-14", "problem": false,
        "contracts": [{"contract": hostile, "state": "active", "plan": hostile, "currency": "USD", "time_zone": "Europe/Berlin", "starts_on": "2026-01-01", "ends_on": "2027-01-01",
            "billed_every": "1 month", "net_days": 30, "collection": "send_invoice", "renews": true, "notice_deadline": "2026-11-02",
            "next_invoice": {"on": "2026-04-01", "currency": "USD", "problem": false, "total": "1234.50", "credits": "1000.00", "due": "234.50",
                "lines": [{"label": hostile, "kind": "usage", "quantity": "1234567", "unit": hostile, "amount": "1185.50"}]}}],
        "period": {"contract": hostile, "starts_on": "2026-03-01", "ends_on": "2026-04-01", "days": "31", "day": "14", "over": false},
        "usage": [{"meter": hostile, "unit": hostile, "quantity": "1234567.5", "events": "1200"}],
        "spend": [{"currency": "USD", "amount": "1234.50", "usage": "1185.50", "fees": "49.00", "other": "25.00", "billed": "49.00", "unbilled": "1185.50", "dimension": hostile,
            "by_part": [{"part": hostile, "dimension": true, "amount": "1185.50"}, {"part": hostile, "dimension": false, "amount": "49.00"}],
            "by_day": [{"day": "2026-03-01", "part": hostile, "dimension": false, "amount": "49"}, {"day": "2026-03-13", "part": hostile, "dimension": true, "amount": "1185.5"}],
            "burn": {"per_day": "169.36", "days": "7", "from": "2026-03-07", "until": "2026-03-14"},
            "forecast": {"amount": "4223.22", "days_left": "17.65", "formula": "1234.50 so far + 169.36 usage a day"}}],
        "commitments": [{"contract": hostile, "key": hostile, "kind": "postpaid", "unit": "USD", "amount": "12000.00", "starts_on": "2026-01-01", "ends_on": "2027-01-01",
            "consumed": "3000.00", "remaining": "9000.00", "percent": "25", "time_percent": "19", "projected": "15200.00"}],
        "credits": [{"unit": hostile, "posted": "1500", "reserved": "0", "pending": "1000", "available": "500", "upcoming": "0", "blocks": [
            {"block": hostile, "category": "paid", "standing": "live", "granted": "2000", "used": "1500", "ended": "0", "left": "500", "effective_on": "2026-01-01", "expires_on": null, "contract": null}]}],
        "entitlements": [
            {"name": hostile, "kind": "metered", "allowed": true, "reason": "allowed", "value": "5", "unit": null, "mode": "hard", "used": "4", "quota": "5", "remaining": "1", "resets_on": "2026-04-01"},
            {"name": "Tokens", "kind": "metered", "allowed": true, "reason": "overage", "value": "1000", "unit": "token", "mode": "overage", "used": "1200", "quota": "1000", "remaining": "0"},
            {"name": "Storage", "kind": "metered", "allowed": true, "reason": "unlimited", "value": null, "unit": "GB", "used": "12.5", "quota": null},
            {"name": "Support", "kind": "static", "allowed": true, "reason": "allowed", "value": hostile},
            {"name": "Renders", "kind": "credit", "allowed": false, "reason": "no_credit", "value": "true", "unit": "credits", "remaining": "0"},
            {"name": "API", "kind": "rate_limit", "allowed": true, "reason": "allowed", "value": "true"}],
        "balances": [{"currency": "USD", "open": "100.00", "overdue": "40.00", "invoices": "2"}],
        "invoices": [{"invoice": hostile, "kind": "invoice", "state": "open", "contract": hostile, "bill_to": hostile, "issued_on": "2026-02-01", "due_on": "2026-03-03", "currency": "USD",
            "total": "100.00", "credits": "0.00", "due": "100.00", "overdue": true}]
    })
}

/// Whatever a customer is called, it is text: no tag, attribute or entity of it is in the page.
#[test]
fn hostile_texts_are_text() {
    for hostile in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' style='position:fixed",
        "</style></title><script>",
        "{{ 7 * 7 }}{% raw %}",
        "&lt;b&gt;",
        "日本語 мир שלום 🎉",
    ] {
        let page = render(&summary(hostile).to_string()).unwrap();
        let escaped = hostile
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;")
            .replace('\'', "&#x27;")
            .replace('/', "&#x2f;");
        assert!(page.contains(&escaped), "{hostile} is not shown as {escaped}");
        if escaped != hostile {
            assert!(!page.contains(hostile), "{hostile} stands in the page as it is");
        }
        assert_eq!(page.matches("<script").count(), 0);
        assert_eq!(page.matches("<style").count(), 1);
    }
}

/// A name turns no figure beside it around: "22.00" after U+202E would be read "00.22".
#[test]
fn names_turn_nothing_around() {
    let page = render(&summary("x\u{202e}y\u{2067}z\u{2069}\u{202d}\u{202c}").to_string()).unwrap();
    assert!(page.contains("xyz") && !page.contains(turns_text));
}

/// The document stands alone: nothing is loaded, nothing runs.
#[test]
fn the_page_loads_nothing() {
    let page = render(&summary("Acme").to_string()).unwrap();
    for forbidden in [
        "http://",
        "https://",
        "url(",
        "@import",
        "<link",
        "<iframe",
        "<script",
        "javascript:",
        " onload",
        " onclick",
        "src=",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
    assert!(page.ends_with("</html>\n") || page.ends_with("</html>"));
}

/// What stands on the page are the figures of the summary, written by the rule of the locale.
#[test]
fn figures_are_those_of_the_summary() {
    let page = render(&summary("Acme").to_string()).unwrap();
    for shown in [
        "<small>USD</small> 1,234.50",
        "usage 1,185.50 + fees 49.00; apart from 25.00 for commitments",
        "USD\u{a0}4,223.22",
        "<small>USD</small> 234.50",
        "1,234,567.5 <small>Acme</small>",
        "USD\u{a0}1,234.50 so far + USD\u{a0}169.36 of usage a day (average of the last 7 complete days) × 17.65 days left",
        "1–31\u{a0}Mar\u{a0}2026",
        "day 14 of 31",
        "14\u{a0}Mar\u{a0}2026, 09:30",
        "USD\u{a0}3,000.00</strong> of USD\u{a0}12,000.00",
        "2 open documents, USD\u{a0}40.00 overdue",
        "4 of 5</span>",
        "1 left · resets 1\u{a0}Apr\u{a0}2026",
        "1,200 of 1,000\u{a0}token",
        "0\u{a0}token left · more is billed",
        "12.5\u{a0}GB used, unlimited",
        "no credit left",
        "renews, unless notice is given by 2\u{a0}Nov\u{a0}2026",
    ] {
        assert!(page.contains(shown), "{shown} is not on the page");
    }
}

/// Nothing at all is a page, too; what can't be a summary is a fault that says so.
#[test]
fn little_is_enough_and_nonsense_is_refused() {
    let mut little = summary("Acme");
    for list in ["contracts", "usage", "spend", "commitments", "credits", "balances", "invoices"] {
        little[list] = serde_json::json!([]);
    }
    let page = render(&little.to_string()).unwrap();
    for shown in ["No contract yet.", "No invoice yet.", "nothing so far", "no open invoice"] {
        assert!(page.contains(shown), "{shown}");
    }
    for gone in ["spend", "commitments", "credits"] {
        little[gone] = serde_json::Value::Null;
    }
    little["problem"] = true.into();
    assert!(render(&little.to_string()).unwrap().contains("Some figures are missing."));

    for (field, value) in [("today", "14 March"), ("as_of_local", "2026-02-30 10:00"), ("name", "")] {
        let mut wrong = summary("Acme");
        wrong[field] = value.into();
        assert_eq!(render(&wrong.to_string()).is_ok(), field == "name", "{field}");
    }
    let mut backwards = summary("Acme");
    backwards["period"]["ends_on"] = "2026-03-01".into();
    assert!(render(&backwards.to_string()).unwrap_err().message.contains("period"));
    let mut words = summary("Acme");
    words["spend"][0]["by_part"][0]["amount"] = "many".into();
    assert!(render(&words.to_string()).unwrap_err().message.contains("\"many\" is no decimal"));
    for text in ["", "[]", "{}", "{\"name\": 1}"] {
        assert_eq!(render(text).unwrap_err().code.sqlstate(), "ZB003", "{text}");
    }
}

/// A year by day is drawn by month; seven parts have six colours, and no figure is lost.
#[test]
fn long_periods_and_many_parts() {
    let mut s = summary("Acme");
    s["period"] = serde_json::json!({"starts_on": "2025-07-15", "ends_on": "2026-07-15", "days": "365", "day": "243", "over": false});
    let parts: Vec<_> = (0..7).map(|n| serde_json::json!({"part": format!("m{n}"), "dimension": true, "amount": format!("{}.00", 70 - 10 * n)})).collect();
    let days: Vec<_> = (0..7).map(|n| serde_json::json!({"day": format!("2025-{:02}-20", 7 + n % 6), "part": format!("m{n}"), "dimension": true, "amount": format!("{}", 70 - 10 * n)})).collect();
    s["spend"][0]["by_part"] = parts.into();
    s["spend"][0]["by_day"] = days.into();
    let page = render(&s.to_string()).unwrap();
    assert!(page.contains("Spend by month") && page.contains("<li><i class=\"f5\"></i>Other</li>"));
    assert!(
        page.contains("Jul\u{a0}2025: USD\u{a0}80.00 (m0 70.00, Other 10.00)"),
        "the seventh part is in Other"
    );
    for n in 0..7 {
        assert!(page.contains(&format!(">m{n}<")));
    }
}

/// Of forty parts eight are seen at once, the others on demand; each stands once, and the total is of all.
#[test]
fn many_parts_do_not_fill_the_page() {
    let mut s = summary("Acme");
    let parts: Vec<_> = (0..40)
        .map(|n| serde_json::json!({"part": format!("m{n}"), "dimension": true, "amount": "2.00"}))
        .collect();
    s["spend"][0]["by_part"] = parts.into();
    s["spend"][0]["by_day"] = serde_json::json!([]);
    s["spend"][0]["amount"] = "80.00".into();
    let page = render(&s.to_string()).unwrap();
    let (seen, more) = page.split_once("32 more, in the total").unwrap();
    for n in 0..40 {
        let name = format!("<span class=\"name\">m{n}</span>");
        assert_eq!(
            (seen.matches(&name).count(), more.matches(&name).count()),
            if n < 8 { (1, 0) } else { (0, 1) }
        );
    }
    assert!(seen.contains("data-total=\"USD\">USD\u{a0}80.00<"));
}

#[test]
fn numbers_and_days_are_written_by_one_rule() {
    for (number, written) in [
        ("0", "0"),
        ("-1234567.50", "−1,234,567.50"),
        ("123", "123"),
        ("1234", "1,234"),
        ("0.000001", "0.000001"),
    ] {
        assert_eq!(grouped(number), written);
    }
    assert_eq!(amount("-5.00", "EUR"), "EUR\u{a0}−5.00");
    assert_eq!(amount("5", "credits"), "5\u{a0}credits");
    for (value, places, written) in [
        ("1.005", 2, "1.01"),
        ("-1.005", 2, "−1.01"),
        ("-0.001", 2, "0.00"),
        ("1999.999", 2, "2,000.00"),
        ("12.5", 0, "13"),
    ] {
        assert_eq!(shown(&fine(value).unwrap(), places), written, "{value}");
    }
    for wrong in ["", "-", "1.", "1e5", ".5", "1,000", "0.1234567890123", "NaN", "+1"] {
        assert_eq!(fine(wrong).is_err(), wrong != "1.", "{wrong}");
    }
    let day = |y, m, d| NaiveDate::from_ymd_opt(y, m, d).unwrap();
    assert_eq!(span(day(2026, 3, 1), day(2026, 4, 1)), "1–31\u{a0}Mar\u{a0}2026");
    assert_eq!(span(day(2026, 3, 15), day(2026, 4, 15)), "15\u{a0}Mar – 14\u{a0}Apr\u{a0}2026");
    assert_eq!(span(day(2025, 12, 15), day(2026, 1, 15)), "15\u{a0}Dec\u{a0}2025 – 14\u{a0}Jan\u{a0}2026");
    assert_eq!(span(day(2026, 3, 1), day(2026, 3, 2)), "1\u{a0}Mar\u{a0}2026");
}

/// Scales end on round numbers, stacks fill what they are of, and what is there is at least a hair high.
#[test]
fn charts_are_to_scale() {
    let number = |text: &str| fine(text).unwrap();
    for (value, top) in [
        ("0", "1"),
        ("0.03", "0.03"),
        ("1", "1"),
        ("1.01", "1.2"),
        ("2.2", "2.5"),
        ("573.4", "600"),
        ("9000", "10000"),
    ] {
        assert_eq!(ceiling(&number(value)), number(top), "{value}");
    }
    let rects = stacks(
        &[
            vec![number("5"), number("2.5")],
            vec![number("0"), number("0.000001")],
            vec![number("-3"), number("10")],
        ],
        &number("10"),
    );
    let drawn: Vec<_> = rects.iter().map(|r| (r.series, r.y, r.height)).collect();
    assert_eq!(drawn, [(0, 500, 500), (1, 250, 250), (1, 999, 1), (1, 0, 1000)]);
    assert_eq!(line(&[number("5"), number("10")], 4, &number("10")), "0,1000 250,500 500,0");
    assert_eq!(line(&[], 0, &BigInt::from(0)), "0,1000");
}

// ── whatever comes ───────────────────────────────────────────────────────────────────────────────

use proptest::prelude::*;
use serde_json::Value;

/// Values that may stand anywhere: of other kinds, at the ends of what can be, and with markup.
fn anything() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "-",
        ".",
        "0",
        "-0",
        "-1.5",
        "1e9",
        "NaN",
        "99999999999999999999999999999999999999999999.999999999999",
        "0.0000000000001",
        "USD",
        "token",
        "2026-03-14",
        "2026-02-30",
        "0000-01-01",
        "-0001-12-31",
        "9999-12-31",
        "+262142-12-31",
        "-262143-01-01",
        "2026-03-14 24:00",
        "2026-03-14 09:30",
        "true",
        "live",
        "prepaid",
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "{{ 7 * 7 }}{% raw %}",
        "\u{0}\u{7f}\u{202e}日本",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(serde_json::json!([])),
        Just(serde_json::json!({})),
        Just(serde_json::json!([null, {"a": "<b>"}])),
        "\\PC{0,12}".prop_map(Value::from),
        "-?[0-9]{1,60}(\\.[0-9]{0,14})?".prop_map(Value::from),
        "[0-9]{4}-[01][0-9]-[0-3][0-9]".prop_map(Value::from),
        prop::sample::select(texts.to_vec()).prop_map(Value::from),
        prop::sample::select(texts.to_vec()).prop_map(Value::from),
    ]
}

/// Every place of a document, the whole first.
fn places_of(at: String, value: &Value, all: &mut Vec<String>) {
    all.push(at.clone());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| places_of(format!("{at}/{n}"), item, all))
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, item)| places_of(format!("{at}/{name}"), item, all))
        }
        _ => (),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// No document of any shape breaks the page: it is refused with a fault, or becomes a page in which all texts are text.
    #[test]
    fn no_document_breaks_the_page(changes in prop::collection::vec((any::<prop::sample::Index>(), anything(), any::<bool>()), 1..6)) {
        let mut document = summary("Acme");
        for (place, value, twice) in changes {
            let mut all = Vec::new();
            places_of(String::new(), &document, &mut all);
            let at = document.pointer_mut(&all[place.index(all.len())]).expect("a place of it");
            match at {
                // A list may also be longer than it was.
                Value::Array(items) if twice => items.push(value),
                at => *at = value,
            }
        }
        let text = document.to_string();
        match render(&text) {
            Err(fault) => prop_assert!(!fault.message.is_empty() && fault.message.len() < 1000),
            Ok(page) => {
                prop_assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
                for tag in ["<script", "<img", "<b>", "onerror=alert(1)>"] {
                    prop_assert!(!page.contains(tag), "{tag}: {text}");
                }
                prop_assert_eq!(page.matches("<style").count(), 1);
                prop_assert!(page.len() < 200_000 + 100 * text.len());
            }
        }
    }

    /// Nor does a text that is no document.
    #[test]
    fn no_text_breaks_the_page(text in "\\PC{0,200}") {
        prop_assert!(render(&text).is_err());
    }
}

/// An amount takes time in proportion to its length.
#[test]
fn long_numbers_are_written_at_once() {
    let long = "1".repeat(300_000);
    assert_eq!(grouped(&long).len(), 399_999);
}
