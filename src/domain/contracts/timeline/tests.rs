//! Timelines of known changes.

use super::*;
use crate::domain::foundation::json;

pub(super) const PLAN: &str = r#"{"key":"pro","currency":"USD","price_book":"list",
    "charges":[{"key":"tokens","product":"ai","meter":"tokens","price":"tokens"}],
    "fees":[{"key":"platform","product":"ai","pricing":{"model":"flat","amount":"100"}},
            {"key":"seats","product":"ai","pricing":{"model":"per_unit","unit_price":"20"},"quantity":"5"}]}"#;
pub(super) const BIG: &str = r#"{"key":"big","currency":"USD","price_book":"list2",
    "charges":[{"key":"tokens","product":"ai","meter":"tokens","price":"tokens"}],
    "fees":[{"key":"platform","product":"ai","pricing":{"model":"flat","amount":"300"}}]}"#;

pub(super) fn plan(text: &str) -> Plan {
    Plan::read(&Node::root(&json::parse(text).unwrap())).unwrap()
}

pub(super) fn plans() -> BTreeMap<String, Plan> {
    let mut quarterly = plan(BIG);
    quarterly.billing.interval = Some(Interval::Months(3));
    [("pro", plan(PLAN)), ("big", plan(BIG)), ("quarterly", quarterly)]
        .map(|(k, p)| (k.to_string(), p))
        .into()
}

/// `kind on [at] document` and so on, versions in this order; the first is the contract's document.
pub(super) fn changes(contract: &str, more: &[(&str, &str, &str)]) -> Result<Vec<Change>, Fault> {
    let tree = json::parse(contract).unwrap();
    let created = What::read("create", &Node::root(&tree))?;
    let What::Create(document) = &created else { unreachable!() };
    let mut changes = vec![Change {
        version: 1,
        at: Point::midnight(document.starts_on),
        plan: document.plan.clone(),
        what: created,
    }];
    for (n, (kind, on, document)) in more.iter().enumerate() {
        let tree = json::parse(document).unwrap();
        let what = What::read(kind, &Node::root(&tree))?;
        let plan = match &what {
            What::ChangePlan { plan } => Some(plan.clone()),
            _ => None,
        };
        let at = match on.len() {
            10 => Point::midnight(on.parse().unwrap()),
            _ => Point { day: on[..10].parse().unwrap(), at: Some(Instant::parse(on).unwrap()) },
        };
        changes.push(Change { version: n as i64 + 2, at, plan, what });
    }
    Ok(changes)
}

fn timeline(contract: &str, more: &[(&str, &str, &str)]) -> Result<Timeline, Fault> {
    fold(changes(contract, more)?, &plans())
}

fn point(point: Option<Point>) -> String {
    match point {
        None => "…".into(),
        Some(Point { at: Some(at), .. }) => at.to_string(),
        Some(Point { day, .. }) => day.to_string(),
    }
}

/// `from until what`, `what` being the part of the terms that matters.
fn shown(timeline: &Timeline, kind: Kind, key: &str) -> Vec<String> {
    let of = timeline.rows.iter().filter(|row| row.kind == kind && row.key == key);
    of.map(|row| {
        let text = |name: &str| match row.terms.get(name) {
            Some(Tree::Text(text)) => Some(text.to_string()),
            Some(Tree::Bool(true)) => Some(name.to_string()),
            _ => None,
        };
        let amount = match row.terms.get("pricing").and_then(|p| p.get("amount").or(p.get("unit_price"))) {
            Some(Tree::Text(text)) => Some(text.to_string()),
            _ => None,
        };
        let parts = [
            row.price_book.clone(),
            amount,
            text("quantity"),
            text("trial"),
            text("once"),
            text("unit_price"),
            text("percent_off"),
        ];
        let what: Vec<String> = parts.into_iter().flatten().collect();
        format!("{} {} {}", point(Some(row.during.from)), point(row.during.until), what.join(" "))
    })
    .collect()
}

const DEAL: &str =
    r#"{"key":"a","customer":"acme","starts_on":"2026-01-01","term":"12 months","plan":"pro","#;

fn deal(more: &str) -> String {
    format!("{}{more}}}", if more.is_empty() { DEAL.trim_end_matches(',') } else { DEAL })
}

#[test]
fn what_is_not_changed_is_one_stretch() {
    let line = timeline(&deal(""), &[]).unwrap();
    assert_eq!(shown(&line, Kind::Usage, "tokens"), ["2026-01-01 2027-01-01 list"]);
    assert_eq!(shown(&line, Kind::Fee, "platform"), ["2026-01-01 2027-01-01 100"]);
    let rows: Vec<_> = line.rows.iter().map(|row| (row.key.as_str(), row.position)).collect();
    assert_eq!(rows, [("tokens", 1), ("platform", 2), ("seats", 3)]);
}

#[test]
fn amendments_begin_where_they_take_effect() {
    let line = timeline(
        &deal(""),
        &[
            ("amend", "2026-03-11", r#"{"prices":{"platform":{"model":"flat","amount":"300"}},"quantities":{"seats":"10"}}"#),
            ("amend", "2026-05-16T16:00:00Z", r#"{"quantities":{"seats":"12"},"fees":[{"key":"support","product":"ai","pricing":{"model":"flat","amount":"50"}}]}"#),
            ("amend", "2026-07-01", r#"{"fees":[{"key":"seats","remove":true}],"purchase_order":"PO-7","bill_to":"gmbh"}"#),
        ],
    )
    .unwrap();
    assert_eq!(
        shown(&line, Kind::Fee, "platform"),
        ["2026-01-01 2026-03-11 100", "2026-03-11 2027-01-01 300"]
    );
    assert_eq!(
        shown(&line, Kind::Fee, "seats"),
        [
            "2026-01-01 2026-03-11 20 5",
            "2026-03-11 2026-05-16T16:00:00Z 20 10",
            "2026-05-16T16:00:00Z 2026-07-01 20 12"
        ]
    );
    assert_eq!(shown(&line, Kind::Fee, "support"), ["2026-05-16T16:00:00Z 2027-01-01 50"]);
    assert_eq!(shown(&line, Kind::Usage, "tokens"), ["2026-01-01 2027-01-01 list"]);
    let facts = |facts: &[Fact]| -> Vec<String> {
        facts
            .iter()
            .map(|f| {
                format!(
                    "{} {} {}",
                    point(Some(f.during.from)),
                    point(f.during.until),
                    f.value.clone().unwrap_or_default()
                )
            })
            .collect()
    };
    assert_eq!(facts(&line.purchase_orders), ["2026-01-01 2026-07-01 ", "2026-07-01 2027-01-01 PO-7"]);
    assert_eq!(facts(&line.bill_tos), ["2026-01-01 2026-07-01 ", "2026-07-01 2027-01-01 gmbh"]);
}

/// A change recorded later with an earlier day applies under the later ones.
#[test]
fn backdated_changes_apply_under_later_ones() {
    let line = timeline(
        &deal(""),
        &[
            ("amend", "2026-06-01", r#"{"quantities":{"seats":"20"}}"#),
            (
                "amend",
                "2026-03-01",
                r#"{"quantities":{"seats":"8"},"prices":{"seats":{"model":"per_unit","unit_price":"30"}}}"#,
            ),
            ("amend", "2025-06-01", r#"{"prices":{"platform":{"model":"flat","amount":"90"}}}"#),
        ],
    )
    .unwrap();
    assert_eq!(
        shown(&line, Kind::Fee, "seats"),
        ["2026-01-01 2026-03-01 20 5", "2026-03-01 2026-06-01 30 8", "2026-06-01 2027-01-01 30 20"],
        "the amendment of June says a quantity, no price"
    );
    assert_eq!(shown(&line, Kind::Fee, "platform"), ["2026-01-01 2027-01-01 90"]);
}

#[test]
fn pauses_stop_fees_and_may_extend_the_term() {
    let changes = |extend: &'static str| {
        [("pause", "2026-03-01", "{}"), ("pause", "2026-03-15", "{}"), ("resume", "2026-04-11", extend)]
    };
    let line = timeline(&deal(""), &changes("{}")).unwrap();
    assert_eq!(
        shown(&line, Kind::Fee, "platform"),
        ["2026-01-01 2026-03-01 100", "2026-04-11 2027-01-01 100"]
    );
    assert_eq!(shown(&line, Kind::Usage, "tokens"), ["2026-01-01 2027-01-01 list"]);
    let line = timeline(&deal(""), &changes(r#"{"extend_term":true}"#)).unwrap();
    // 41 days later.
    assert_eq!(
        shown(&line, Kind::Fee, "platform"),
        ["2026-01-01 2026-03-01 100", "2026-04-11 2027-02-11 100"]
    );
    let open = timeline(&deal(""), &[("pause", "2026-03-01", "{}"), ("cancel", "2026-05-01", "{}")]).unwrap();
    assert_eq!(shown(&open, Kind::Fee, "platform"), ["2026-01-01 2026-03-01 100"]);
    assert_eq!(shown(&open, Kind::Usage, "tokens"), ["2026-01-01 2026-05-01 list"]);
}

#[test]
fn a_cancellation_ends_everything() {
    let line = timeline(
        &deal(r#""renewal":{"auto":true,"notice_days":30}"#),
        &[
            ("amend", "2026-06-01", r#"{"quantities":{"seats":"20"}}"#),
            ("cancel", "2026-04-10T12:00:00Z", "{}"),
            ("amend", "2026-02-01", r#"{"quantities":{"seats":"7"}}"#),
            ("renew", "2027-01-01", r#"{"percent":"5"}"#),
        ],
    )
    .unwrap();
    assert_eq!(
        shown(&line, Kind::Fee, "seats"),
        ["2026-01-01 2026-02-01 20 5", "2026-02-01 2026-04-10T12:00:00Z 20 7"]
    );
    let tree = line.to_tree();
    let text = |name: &str| tree.get(name).unwrap().canonical().unwrap();
    assert_eq!(text("ends_on"), r#""2026-04-11""#);
    assert_eq!(text("ends_at"), r#""2026-04-10T12:00:00Z""#);
    assert_eq!(text("cancelled"), r#"{"at":"2026-04-10T12:00:00Z","on":"2026-04-10"}"#);
    assert_eq!(text("renewal"), "null");
}

/// Cancelled at the end of its term it is not renewed, whichever was recorded first.
#[test]
fn a_cancellation_at_the_end_forbids_renewal() {
    let renewed = ("renew", "2027-01-01", r#"{"term":"12 months"}"#);
    for more in [[("cancel", "2027-01-01", "{}"), renewed], [renewed, ("cancel", "2027-01-01", "{}")]] {
        let line = timeline(&deal(""), &more).unwrap();
        assert_eq!(shown(&line, Kind::Fee, "platform"), ["2026-01-01 2027-01-01 100"]);
        assert_eq!(point(line.cancelled), "2027-01-01");
    }
}

/// rules.md 7: 50,000 and 7 percent: 53,500; the term goes on from where it ends, counted from the first day.
#[test]
fn renewals_extend_the_term_and_raise_prices() {
    let contract = r#"{"key":"a","customer":"acme","starts_on":"2025-01-31","term":"1 month","plan":"pro",
        "fees":[{"key":"licence","product":"ai","pricing":{"model":"flat","amount":"50000"}}],
        "charges":[{"key":"calls","product":"ai","meter":"calls","pricing":{"model":"per_unit","unit_price":"0.01"}}],
        "overrides":[{"meter":"tokens","unit_price":"2"},{"charge":"tokens","match":{"model":"x"},"percent_off":"50"}],
        "renewal":{"auto":true,"notice_days":10,"uplift":{"index":"cpi","min":"3","max":"7"}}}"#;
    let line = timeline(
        contract,
        &[
            ("renew", "2025-02-28", r#"{"percent":"7"}"#),
            ("notice", "2025-03-01", "{}"),
            ("renew", "2025-03-31", "{}"),
        ],
    )
    .unwrap();
    assert_eq!(
        shown(&line, Kind::Fee, "licence"),
        ["2025-01-31 2025-02-28 50000", "2025-02-28 2025-04-30 53500"]
    );
    assert_eq!(
        shown(&line, Kind::Fee, "platform"),
        ["2025-01-31 2025-02-28 100", "2025-02-28 2025-04-30 107"]
    );
    assert_eq!(
        shown(&line, Kind::Usage, "calls"),
        ["2025-01-31 2025-02-28 0.01", "2025-02-28 2025-04-30 0.0107"]
    );
    assert_eq!(shown(&line, Kind::Usage, "tokens"), ["2025-01-31 2025-04-30 list"]);
    assert_eq!(
        shown(&line, Kind::Override, "meter:tokens"),
        ["2025-01-31 2025-02-28 2", "2025-02-28 2025-04-30 2.14"]
    );
    assert_eq!(shown(&line, Kind::Override, r#"charge:tokens{"model":"x"}"#), ["2025-01-31 2025-04-30 50"]);
    assert_eq!(line.notice, None, "a notice is of the term in which it was given");
    let renewal = line.renewal_tree().canonical().unwrap();
    assert_eq!(
        renewal,
        r#"{"auto":true,"notice_days":10,"notice_deadline":"2025-04-20","prices":"keep","renews_on":"2025-04-30","term":"1 month","uplift":{"index":"cpi","max":"7","min":"3"}}"#
    );
    assert_eq!(line.document.term, Some(Interval::Months(3)));
    // List prices: what was agreed on beside them ends.
    let list =
        timeline(contract, &[("renew", "2025-02-28", r#"{"prices":"list","term":"6 months"}"#)]).unwrap();
    assert_eq!(shown(&list, Kind::Override, "meter:tokens"), ["2025-01-31 2025-02-28 2"]);
    assert_eq!(shown(&list, Kind::Usage, "tokens"), ["2025-01-31 2025-08-31 list"]);
    // An earlier change that moves the end moves the renewal with it.
    let moved = timeline(
        contract,
        &[("renew", "2025-02-28", r#"{"percent":"7"}"#), ("amend", "2025-02-10", r#"{"term":"2 months"}"#)],
    )
    .unwrap();
    assert_eq!(
        shown(&moved, Kind::Fee, "licence"),
        ["2025-01-31 2025-03-31 50000", "2025-03-31 2025-05-31 53500"]
    );
}

#[test]
fn a_plan_change_keeps_what_the_contract_says() {
    let contract = deal(
        r#""fees":[{"key":"support","product":"ai","pricing":{"model":"flat","amount":"9"}},{"key":"seats","remove":true}],
           "overrides":[{"meter":"tokens","percent_off":"10"}]"#,
    );
    let line = timeline(&contract, &[("change_plan", "2026-04-01", r#"{"plan":"big"}"#)]).unwrap();
    assert_eq!(
        shown(&line, Kind::Fee, "platform"),
        ["2026-01-01 2026-04-01 100", "2026-04-01 2027-01-01 300"]
    );
    assert_eq!(shown(&line, Kind::Fee, "support"), ["2026-01-01 2027-01-01 9"]);
    assert_eq!(
        shown(&line, Kind::Usage, "tokens"),
        ["2026-01-01 2026-04-01 list", "2026-04-01 2027-01-01 list2"]
    );
    assert_eq!(shown(&line, Kind::Override, "meter:tokens"), ["2026-01-01 2027-01-01 10"]);
    assert!(line.document.fees.iter().all(|entry| entry.key() != "seats"));
    let fault = timeline(&contract, &[("change_plan", "2026-04-01", r#"{"plan":"quarterly"}"#)]).unwrap_err();
    assert_eq!(
        fault.message,
        "plan: quarterly is billed per 3 months (calendar), the contract per 1 month (calendar)"
    );
}

#[test]
fn ramps_and_step_ups_become_stretches() {
    let line = timeline(
        r#"{"key":"a","customer":"acme","starts_on":"2026-02-01","term":"36 months","fees":[
            {"key":"platform","product":"ai","every":"12 months","pricing":{"model":"flat","amount":"40000"},
             "ramp":[{"from":"2027-02-01","pricing":{"model":"flat","amount":"50000"}},{"after":"24 months","percent":"20"}]},
            {"key":"licence","product":"ai","pricing":{"model":"flat","amount":"100000"},"step_up":{"percent":"7","every":"12 months"}},
            {"key":"seats","product":"ai","pricing":{"model":"per_unit","unit_price":"20"},"quantity":"5","from":"2026-03-01","until":"2026-06-01",
             "ramp":[{"after":"1 month","quantity":"7"}]},
            {"key":"setup","product":"ai","pricing":{"model":"flat","amount":"500"},"once":true,"from":"2026-02-10"}]}"#,
        &[("amend", "2026-07-01", r#"{"fees":[{"key":"extra","product":"ai","pricing":{"model":"flat","amount":"10"},"ramp":[{"after":"1 month","percent":"50"}]},
            {"key":"second","product":"ai","pricing":{"model":"flat","amount":"1"},"once":true}]}"#)],
    )
    .unwrap();
    let fee = |key: &str| shown(&line, Kind::Fee, key);
    assert_eq!(
        fee("platform"),
        ["2026-02-01 2027-02-01 40000", "2027-02-01 2028-02-01 50000", "2028-02-01 2029-02-01 60000"]
    );
    assert_eq!(
        fee("licence"),
        ["2026-02-01 2027-02-01 100000", "2027-02-01 2028-02-01 107000", "2028-02-01 2029-02-01 114490"]
    );
    assert_eq!(fee("seats"), ["2026-03-01 2026-04-01 20 5", "2026-04-01 2026-06-01 20 7"]);
    assert_eq!(fee("setup"), ["2026-02-10 2026-02-11 500 once"]);
    assert_eq!(fee("extra"), ["2026-07-01 2026-08-01 10", "2026-08-01 2029-02-01 15"]);
    assert_eq!(fee("second"), ["2026-07-01 2026-07-02 1 once"]);
}

/// A new price takes the place of the one in force; what comes later by a ramp still comes, the next step-up raises it.
#[test]
fn restated_prices_keep_the_steps_to_come() {
    let line = timeline(
        r#"{"key":"a","customer":"acme","starts_on":"2026-01-31","term":"36 months","fees":[
            {"key":"platform","product":"ai","pricing":{"model":"flat","amount":"100"},"step_up":{"percent":"10","every":"12 months"}},
            {"key":"seats","product":"ai","pricing":{"model":"per_unit","unit_price":"20"},"quantity":"5",
             "ramp":[{"after":"3 months","quantity":"7"},{"after":"6 months","quantity":"9","percent":"50"}]}]}"#,
        &[("amend", "2027-03-01", r#"{"prices":{"platform":{"model":"flat","amount":"200"}}}"#), ("amend", "2026-05-10", r#"{"quantities":{"seats":"6"}}"#)],
    )
    .unwrap();
    assert_eq!(
        shown(&line, Kind::Fee, "platform"),
        [
            "2026-01-31 2027-01-31 100",
            "2027-01-31 2027-03-01 110",
            "2027-03-01 2028-01-31 200",
            "2028-01-31 2029-01-31 220"
        ]
    );
    assert_eq!(
        shown(&line, Kind::Fee, "seats"),
        [
            "2026-01-31 2026-04-30 20 5",
            "2026-04-30 2026-05-10 20 7",
            "2026-05-10 2026-07-31 20 6",
            "2026-07-31 2029-01-31 30 9"
        ]
    );
}

#[test]
fn a_trial_costs_nothing_and_fees_wait() {
    let line =
        timeline(&deal(r#""trial":{"duration":"14 days"},"billing":{"alignment":"anniversary"}"#), &[])
            .unwrap();
    assert_eq!(
        shown(&line, Kind::Usage, "tokens"),
        ["2026-01-01 2026-01-15 list trial", "2026-01-15 2027-01-01 list"]
    );
    assert_eq!(shown(&line, Kind::Fee, "platform"), ["2026-01-15 2027-01-01 100"]);
    assert_eq!(
        (line.alignment.to_string(), line.anchor_on.to_string()),
        ("anniversary of 2026-01-15".into(), "2026-01-15".into())
    );
}

#[test]
fn overrides_have_their_dates() {
    let contract = deal(
        r#""overrides":[{"meter":"tokens","unit_price":"2","until":"2026-03-01"},{"meter":"tokens","unit_price":"3","from":"2026-04-01"}]"#,
    );
    let line = timeline(
        &contract,
        &[(
            "amend",
            "2026-05-01",
            r#"{"overrides":[{"meter":"tokens","unit_price":"4","from":"2026-06-01"}]}"#,
        )],
    )
    .unwrap();
    let agreed = |line| shown(line, Kind::Override, "meter:tokens");
    assert_eq!(
        agreed(&line),
        ["2026-01-01 2026-03-01 2", "2026-04-01 2026-06-01 3", "2026-06-01 2027-01-01 4"]
    );
    let removed = timeline(
        &contract,
        &[("amend", "2026-05-01", r#"{"overrides":[{"meter":"tokens","remove":true}]}"#)],
    )
    .unwrap();
    assert_eq!(agreed(&removed), ["2026-01-01 2026-03-01 2", "2026-04-01 2026-05-01 3"]);
}

#[test]
fn faults_name_their_place() {
    for (kind, change, message) in [
        ("amend", r#"{"fees":[{"key":"x","remove":true}]}"#, "fees[0]: the contract has no \"x\" to remove"),
        (
            "amend",
            r#"{"quantities":{"tokens":"1"}}"#,
            "quantities.tokens: is a usage charge, which has no quantity of its own",
        ),
        (
            "amend",
            r#"{"prices":{"platform":{"model":"percentage","rate":"0.1"}}}"#,
            "prices.platform: a percentage price needs usage",
        ),
        (
            "amend",
            r#"{"overrides":[{"meter":"x","unit_price":"1"}]}"#,
            "overrides[0]: is for no charge of this contract",
        ),
        (
            "amend",
            r#"{"overrides":[{"meter":"tokens","remove":true}]}"#,
            "overrides[0]: the contract has no such override to remove",
        ),
        (
            "amend",
            r#"{"term":"1 month"}"#,
            "term: 1 month from 2026-01-01 ends on 2026-02-01, before the change on 2026-03-01",
        ),
        (
            "amend",
            r#"{"fees":[{"key":"platform","product":"ai","pricing":{"model":"flat","amount":"1"},"from":"2026-04-01"}]}"#,
            "fees[0].from: 2026-04-01 is after 2026-03-01, when the change takes the old one's place",
        ),
        (
            "amend",
            r#"{"fees":[{"key":"tokens","product":"ai","pricing":{"model":"flat","amount":"1"}}]}"#,
            "document: \"tokens\" is the key of two charges or fees",
        ),
        ("amend", r#"{"credit_mode":"debt"}"#, "credit_mode: \"debt\" is not known"),
        ("amend", r#"{"credit_order":[]}"#, "credit_order: has no sort key"),
        ("amend", r#"{"billing":{"interval":"1 year"}}"#, "billing: can't be amended"),
        ("amend", r#"{"time_zone":"UTC"}"#, "time_zone: can't be amended"),
        ("amend", "{}", "document: changes nothing"),
        ("amend", r#"{"quantities":{"seats":"-1"}}"#, "quantities.seats: must not be negative"),
        ("pause", r#"{"at":"now"}"#, "at: is not a field of this document"),
        ("resume", r#"{"extend_term":1}"#, "extend_term: must be true or false, not a number"),
        ("explode", "{}", "a change of kind \"explode\" is not known"),
    ] {
        assert_eq!(
            timeline(&deal(""), &[(kind, "2026-03-01", change)]).unwrap_err().message,
            message,
            "{change}"
        );
    }
    for (more, message) in [
        (
            r#""fees":[{"key":"f","product":"ai","pricing":{"model":"flat","amount":"1"},"ramp":[{"after":"2 months","percent":"1"},{"after":"1 month","percent":"1"}]}]"#,
            "fees[0].ramp[1]: is on 2026-02-01, not after the step before it on 2026-03-01",
        ),
        (
            r#""fees":[{"key":"f","product":"ai","pricing":{"model":"flat","amount":"1"},"ramp":[{"percent":"1"}]}]"#,
            "fees[0].ramp[0]: must have either from (a date) or after (an interval)",
        ),
        (
            r#""fees":[{"key":"f","product":"ai","pricing":{"model":"flat","amount":"1"},"once":true,"every":"1 month"}]"#,
            "fees[0]: every does not go with once",
        ),
        (
            r#""fees":[{"key":"f","product":"ai","pricing":{"model":"flat","amount":"1"},"every":"5 weeks"}]"#,
            "fees[0].every: \"f\" is per 35 days, which neither divides the billing interval of 1 month nor is a multiple of it",
        ),
        (
            r#""charges":[{"key":"c","product":"ai","meter":"calls","price":"calls","ramp":[{"after":"2 months","percent":"1"}]}]"#,
            "charges[0].ramp[0].percent: raises a price of a book",
        ),
        (r#""trial":{"duration":"24 months"}"#, "trial: lasts as long as the contract, until 2027-01-01"),
        (
            r#""billing":{"alignment":"fiscal"}"#,
            "billing.fiscal_year_starts: is missing, but the alignment is fiscal",
        ),
        (r#""billing":{"end_of_month":true}"#, "billing.end_of_month: is only for anniversary alignment"),
        (
            r#""prices":"pin","renewal":{"prices":"list"}"#,
            "renewal.prices: can't be list where prices are pinned for as long as the contract runs",
        ),
    ] {
        assert_eq!(timeline(&deal(more), &[]).unwrap_err().message, message, "{more}");
    }
    // A change that was there before and no longer fits says which one it is.
    let fault = timeline(
        &deal(""),
        &[
            ("amend", "2026-06-01", r#"{"quantities":{"seats":"9"}}"#),
            ("amend", "2026-03-01", r#"{"fees":[{"key":"seats","remove":true}]}"#),
        ],
    );
    assert_eq!(
        fault.unwrap_err().message,
        "version 2 (amend on 2026-06-01): quantities.seats: is no charge or fee of this contract"
    );
}

fn terms(timeline: &Timeline, kind: Kind) -> Vec<String> {
    let of = timeline.rows.iter().filter(|row| row.kind == kind);
    of.map(|row| {
        let (from, until) = (point(Some(row.during.from)), point(row.during.until));
        format!("{from} {until} {}", row.terms.canonical().unwrap())
    })
    .collect()
}

/// rules.md 10.5: what Acme signed, as a document.
const ACME: &str = r#"{"key":"acme-2026","customer":"acme","starts_on":"2026-01-01","term":"12 months","plan":"pro","billing":{"interval":"3 months","net_days":45},
    "fees":[{"key":"platform","remove":true},{"key":"seats","remove":true}],
    "overrides":[{"meter":"tokens","percent_off":"50"}],
    "commitments":[{"key":"annual","kind":"prepaid","amount":"100000","instalments":"3 months"}],
    "credits":[{"key":"annual-credits","category":"paid","amount":"120000","paid_by":"annual","scope":{"products":["ai"]}}],
    "renewal":{"auto":true,"notice_days":60,"uplift":{"min":"3","max":"7"}}}"#;

#[test]
fn acmes_order_form_is_complete() {
    let line = timeline(ACME, &[]).unwrap();
    assert_eq!(
        terms(&line, Kind::Commitment),
        [
            r#"2026-01-01 2027-01-01 {"amount":"100000","every":"12 months","from":"2026-01-01","instalments":"3 months","key":"annual","kind":"prepaid","priority":100,"product":"ai"}"#
        ]
    );
    assert_eq!(
        terms(&line, Kind::Credit),
        [
            r#"2026-01-01 2027-01-01 {"amount":"120000","category":"paid","effective_on":"2026-01-01","every":"12 months","expires":"contract_end","key":"annual-credits","paid_by":"annual","priority":50,"scope":{"products":["ai"]}}"#
        ]
    );
    // The document in force is one that can be read again, and then is the same.
    let again = line.document.to_tree().canonical().unwrap();
    let read = Contract::read(&Node::root(&json::parse(&again).unwrap())).unwrap();
    assert_eq!(read, line.document);
    // Renewed, the commitment goes on with another period of the same length.
    let renewed = timeline(ACME, &[("renew", "2027-01-01", "{}"), ("renew", "2028-01-01", "{}")]).unwrap();
    assert_eq!(terms(&renewed, Kind::Commitment)[0][..21], *"2026-01-01 2029-01-01");
    assert!(terms(&renewed, Kind::Commitment)[0].contains(r#""every":"12 months""#));
}

/// rules.md 10.6: 40/50/60 for the platform as a ramp, 30/50/70 of tokens as a commitment of three years.
#[test]
fn a_deal_of_three_years() {
    let line = timeline(
        r#"{"key":"globex","customer":"globex","starts_on":"2026-02-01","term":"36 months","plan":"pro","billing":{"interval":"12 months","alignment":"anniversary"},
        "fees":[{"key":"seats","remove":true},{"key":"platform","product":"ai","pricing":{"model":"flat","amount":"40000"},
            "ramp":[{"after":"12 months","pricing":{"model":"flat","amount":"50000"}},{"after":"24 months","pricing":{"model":"flat","amount":"60000"}}]}],
        "commitments":[{"key":"tokens","kind":"prepaid","amounts":["30000","50000","70000"],"every":"12 months"}]}"#,
        &[],
    )
    .unwrap();
    assert_eq!(
        shown(&line, Kind::Fee, "platform"),
        ["2026-02-01 2027-02-01 40000", "2027-02-01 2028-02-01 50000", "2028-02-01 2029-02-01 60000"]
    );
    assert_eq!(
        terms(&line, Kind::Commitment),
        [
            r#"2026-02-01 2029-02-01 {"amounts":["30000","50000","70000"],"every":"12 months","from":"2026-02-01","key":"tokens","kind":"prepaid","priority":100,"product":"ai"}"#
        ]
    );
}

#[test]
fn phases_take_the_place_of_what_has_their_keys() {
    let line = timeline(
        &deal(
            r#""overrides":[{"meter":"tokens","percent_off":"10"}],
            "discounts":[{"key":"early","percent_off":"5"}],
            "phases":[{"key":"pilot","duration":"2 months","fees":[{"key":"platform","product":"ai","pricing":{"model":"flat","amount":"10"}},{"key":"seats","remove":true}],
                "overrides":[{"meter":"tokens","percent_off":"90"}],"discounts":[{"key":"early","percent_off":"50"},{"key":"more","amount_off":"3","duration":"1 month"}]},
               {"key":"ramp-up","duration":"3 months"},
               {"key":"late","from":"2026-09-01","fees":[{"key":"extra","product":"ai","pricing":{"model":"flat","amount":"7"}}]}]"#,
        ),
        &[("amend", "2026-02-01", r#"{"prices":{"platform":{"model":"flat","amount":"120"}}}"#)],
    )
    .unwrap();
    assert_eq!(
        shown(&line, Kind::Fee, "platform"),
        ["2026-01-01 2026-03-01 10", "2026-03-01 2027-01-01 120"]
    );
    assert_eq!(shown(&line, Kind::Fee, "seats"), ["2026-03-01 2027-01-01 20 5"]);
    assert_eq!(shown(&line, Kind::Fee, "extra"), ["2026-09-01 2027-01-01 7"]);
    assert_eq!(
        shown(&line, Kind::Override, "meter:tokens"),
        ["2026-01-01 2026-03-01 90", "2026-03-01 2027-01-01 10"]
    );
    assert_eq!(
        terms(&line, Kind::Discount),
        [
            r#"2026-01-01 2026-03-01 {"key":"early","percent_off":"50"}"#,
            r#"2026-03-01 2027-01-01 {"key":"early","percent_off":"5"}"#,
            r#"2026-01-01 2026-02-01 {"amount_off":"3","key":"more"}"#
        ]
    );
}

#[test]
fn add_ons_have_their_own_term_or_the_contracts() {
    let line = timeline(
        &deal(
            r#""add_ons":[{"key":"sso","fees":[{"key":"fee","product":"ai","pricing":{"model":"flat","amount":"12000"},"every":"12 months"}],"from":"2026-04-01"},
                {"key":"boost","charges":[{"key":"calls","product":"ai","meter":"calls","pricing":{"model":"per_unit","unit_price":"1"}}],"from":"2026-02-01","term":"3 months"}],
               "overrides":[{"charge":"boost/calls","unit_price":"2"}],"discounts":[{"key":"d","percent_off":"20","charges":["sso/fee"],"from":"2026-05-01","duration":"2 months"}]"#,
        ),
        &[
            ("amend", "2026-06-01", r#"{"prices":{"sso/fee":{"model":"flat","amount":"15000"}},"add_ons":[{"key":"later","fees":[{"key":"fee","product":"ai","pricing":{"model":"flat","amount":"1"}}],"term":"1 month"}]}"#),
            ("amend", "2026-10-01", r#"{"add_ons":[{"key":"sso","remove":true}]}"#),
        ],
    )
    .unwrap();
    assert_eq!(
        shown(&line, Kind::Fee, "sso/fee"),
        ["2026-04-01 2026-06-01 12000", "2026-06-01 2026-10-01 15000"]
    );
    assert_eq!(shown(&line, Kind::Fee, "later/fee"), ["2026-06-01 2026-07-01 1"]);
    assert_eq!(shown(&line, Kind::Usage, "boost/calls"), ["2026-02-01 2026-05-01 1"]);
    assert_eq!(
        terms(&line, Kind::Discount),
        [r#"2026-05-01 2026-07-01 {"charges":["sso/fee"],"key":"d","percent_off":"20"}"#]
    );
    let tree = line.document.to_tree().canonical().unwrap();
    assert!(tree.contains(r#""add_ons":[{"charges":[{"key":"calls""#), "{tree}");
}

#[test]
fn commitments_and_credits_change_from_their_next_period_on() {
    let contract = r#"{"key":"a","customer":"acme","starts_on":"2026-01-01","term":"24 months","plan":"pro",
        "commitments":[{"key":"spend","kind":"postpaid","amount":"120000","every":"12 months"}],
        "credits":[{"key":"gift","category":"promotional","amount":"100","every":"1 month","expires":"period_end"},{"key":"welcome","category":"promotional","amount":"5","effective_on":"2026-02-01"}]}"#;
    let line = timeline(
        contract,
        &[("amend", "2026-06-15", r#"{"commitments":[{"key":"spend","kind":"postpaid","amount":"90000"}],"credits":[{"key":"gift","category":"promotional","amount":"50","every":"1 month","expires":"period_end"}]}"#)],
    )
    .unwrap();
    assert_eq!(
        terms(&line, Kind::Commitment),
        [
            r#"2026-01-01 2026-06-15 {"amount":"120000","every":"12 months","from":"2026-01-01","key":"spend","kind":"postpaid","priority":100,"product":"ai"}"#,
            r#"2026-06-15 2028-01-01 {"amount":"90000","every":"12 months","from":"2026-01-01","key":"spend","kind":"postpaid","priority":100,"product":"ai"}"#
        ]
    );
    let credits = terms(&line, Kind::Credit);
    assert_eq!(credits[0][..21], *"2026-01-01 2026-06-15");
    assert!(
        credits[1].starts_with("2026-06-15 2028-01-01")
            && credits[1].contains(r#""effective_on":"2026-01-01""#),
        "{}",
        credits[1]
    );
    assert!(credits[2].starts_with("2026-02-01 2028-01-01"), "{}", credits[2]);
    let fault =
        timeline(contract, &[("amend", "2026-06-15", r#"{"credits":[{"key":"welcome","remove":true}]}"#)])
            .unwrap_err();
    assert_eq!(fault.message, "credits[0]: \"welcome\" was granted before 2026-06-15");
}

#[test]
fn what_can_not_be_billed_is_refused_by_its_path() {
    for (more, message) in [
        (
            r#""commitments":[{"key":"c","kind":"prepaid","quantity":"10","meter":"tokens"}]"#,
            "commitments[0]: must have an amount: what its quantity is bought for",
        ),
        (
            r#""commitments":[{"key":"c","kind":"postpaid","quantity":"10","meter":"tokens"}]"#,
            "commitments[0]: must have a shortfall_price: what a unit that is missing costs",
        ),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","quantity":"10","amount":"1"}]"#,
            "commitments[0]: must have both quantity and meter, or none of them",
        ),
        (
            r#""commitments":[{"key":"c","kind":"postpaid","quantity":"10","meter":"tokens","amount":"1","shortfall_price":{"model":"per_unit","unit_price":"1"}}]"#,
            "commitments[0]: has an amount and a quantity, and what is missing can't be both",
        ),
        (
            r#""commitments":[{"key":"c","kind":"postpaid","amount":"1","shortfall_price":{"model":"per_unit","unit_price":"1"}}]"#,
            "commitments[0].shortfall_price: is for postpaid commitments in units",
        ),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","quantity":"10","meter":"images","amount":"1"}]"#,
            "commitments[0].meter: is for no charge of this contract",
        ),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","quantity":"10","meter":"tokens","amount":"1","scope":{"meters":["other"]}}]"#,
            "commitments[0].scope.meters[0]: is not tokens, which the commitment is in units of",
        ),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","quantity":"10","meter":"tokens","amount":"1"}],"credits":[{"key":"c","category":"pilot","amount":"1"}]"#,
            "commitments[0].key: \"c\" is the key of a credit, too",
        ),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","quantity":"10","meter":"tokens","amount":"1"}],"credits":[{"key":"d","category":"paid","amount":"1","paid_by":"c"}]"#,
            "credits[0].paid_by: \"c\" is in units, and its price is theirs",
        ),
        (r#""commitments":[{"key":"c","amount":"1"}]"#, "commitments[0].kind: is missing"),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","amount":"0"}]"#,
            "commitments[0].amount: 0 must be greater than 0",
        ),
        (
            r#""commitments":[{"key":"c","kind":"postpaid","amount":"9","instalments":"1 month"}]"#,
            "commitments[0].instalments: is for prepaid commitments",
        ),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","amount":"9","instalments":"5 months"}]"#,
            "commitments[0].instalments: 5 months does not divide the period of 12 months",
        ),
        (
            r#""billing":{"interval":"3 months"},"commitments":[{"key":"c","kind":"prepaid","amount":"9","instalments":"1 month"}]"#,
            "commitments[0].instalments: 1 month is no multiple of the billing interval of 3 months",
        ),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","amounts":["1","2"],"every":"4 months"}]"#,
            "commitments[0].amounts: has 2 amounts for 3 periods of 4 months",
        ),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","amount":"9","overage":[{"meter":"x","unit_price":"1"}]}]"#,
            "commitments[0].overage[0]: is for no charge of this contract",
        ),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","amount":"9","overage":[{"meter":"tokens","unit_price":"1","from":"2026-02-01"}]}]"#,
            "commitments[0].overage[0]: has dates of its own; it holds as long as the commitment",
        ),
        (
            r#""commitments":[{"key":"c","kind":"prepaid","amount":"9","from":"2027-01-01"}]"#,
            "commitments[0].from: 2027-01-01 is outside the contract's term",
        ),
        (
            r#""credits":[{"key":"c","category":"paid","amount":"1"}]"#,
            "credits[0]: is paid, but nothing pays for it",
        ),
        (
            r#""credits":[{"key":"c","category":"pilot","amount":"1","paid_by":"x"}]"#,
            "credits[0].paid_by: \"x\" is no commitment of this contract",
        ),
        (
            r#""commitments":[{"key":"x","kind":"postpaid","amount":"9"}],"credits":[{"key":"c","category":"pilot","amount":"1","paid_by":"x"}]"#,
            "credits[0].paid_by: \"x\" is not prepaid, so it pays for nothing in advance",
        ),
        (
            r#""credits":[{"key":"c","category":"pilot"}]"#,
            "credits[0]: must have an amount, or a contract to carry_from",
        ),
        (
            r#""credits":[{"key":"c","category":"pilot","amount":"1","expires":"period_end"}]"#,
            "credits[0].expires: needs a period",
        ),
        (
            r#""credits":[{"key":"c","category":"pilot","amount":"1","expires":"soon"}]"#,
            "credits[0].expires: \"soon\" is not a date",
        ),
        (
            r#""credits":[{"key":"c","category":"pilot","amount":"1","scope":{"windows":[{"from":"2026-02-01","until":"2026-01-01"}]}}]"#,
            "credits[0].scope.windows[0]: until 2026-01-01 must be after from 2026-02-01",
        ),
        (
            r#""credits":[{"key":"c","category":"pilot","amount":"1","scope":{"dimensions":{"model":[]}}}]"#,
            "credits[0].scope.dimensions.model: has no value, so that nothing would fit",
        ),
        (
            r#""credits":[{"key":"c","category":"pilot","amount":"1"},{"key":"c","category":"pilot","amount":"1"}]"#,
            "credits[1]: \"c\" stands twice",
        ),
        (r#""credit_order":["expiry"]"#, "credit_order[0]: \"expiry\" is not known"),
        (r#""credit_mode":"debt""#, "credit_mode: \"debt\" is not known"),
        (r#""discounts":[{"key":"d"}]"#, "discounts[0]: must have either percent_off or amount_off"),
        (
            r#""discounts":[{"key":"d","percent_off":"101"}]"#,
            "discounts[0].percent_off: 101 is not between 0 and 100",
        ),
        (
            r#""discounts":[{"key":"d","percent_off":"10","charges":["seats","x"]}]"#,
            "discounts[0].charges[1]: \"x\" is no charge or fee of this contract",
        ),
        (
            r#""discounts":[{"key":"d","percent_off":"10","products":["x"]}]"#,
            "discounts[0].products[0]: \"x\" is no product of a charge or fee of this contract",
        ),
        (
            r#""discounts":[{"key":"d","percent_off":"10","until":"2026-05-01","duration":"1 month"}]"#,
            "discounts[0]: must not have both until and duration",
        ),
        (
            r#""discounts":[{"key":"d","percent_off":"10","from":"2027-01-01"}]"#,
            "discounts[0].from: 2027-01-01 is not before the end on 2027-01-01, so it would never hold",
        ),
        (
            r#""discounts":[{"key":"d","percent_off":"10","from":"2026-05-01","until":"2026-05-01"}]"#,
            "discounts[0]: until 2026-05-01 must be after from 2026-05-01",
        ),
        (
            r#""discounts":[{"key":"d","percent_off":"10","until":"2026-01-01"}]"#,
            "discounts[0].until: ends on 2026-01-01, not after the start on 2026-01-01, so it would never hold",
        ),
        (
            r#""discounts":[{"key":"d","percent_off":"10","from":"2025-01-01","duration":"12 months"}]"#,
            "discounts[0].duration: ends on 2026-01-01, not after the start on 2026-01-01, so it would never hold",
        ),
        (
            r#""phases":[{"key":"a","duration":"2 months","discounts":[{"key":"d","percent_off":"10","from":"2026-03-01"}]}]"#,
            "phases[0].discounts[0].from: 2026-03-01 is not before the end on 2026-03-01, so it would never hold",
        ),
        (r#""add_ons":[{"key":"a"}]"#, "add_ons[0]: has neither charges, fees nor entitlements"),
        (
            r#""add_ons":[{"key":"a","fees":[{"key":"f","product":"ai","pricing":{"model":"flat","amount":"1"}}],"from":"2027-01-01"}]"#,
            "add_ons[0].from: 2027-01-01 is when the contract has ended",
        ),
        (
            r#""phases":[{"key":"a"},{"key":"b"}]"#,
            "phases[1]: begins when the phase before it ends, and that has no duration",
        ),
        (
            r#""phases":[{"key":"a","duration":"3 months"},{"key":"b","from":"2026-02-01"}]"#,
            "phases[1].from: 2026-02-01 is before the phase before it ends",
        ),
        (
            r#""phases":[{"key":"a","fees":[{"key":"x","remove":true}]}]"#,
            "phases[0].fees[0]: the contract has no \"x\" to remove",
        ),
        (
            r#""phases":[{"key":"a","fees":[{"key":"tokens","product":"ai","pricing":{"model":"flat","amount":"1"}}]}]"#,
            "phases[0].fees[0]: \"tokens\" is the key of two charges or fees",
        ),
        (r#""entitlements":[{"value":1}]"#, "entitlements[0].feature: is missing"),
    ] {
        assert_eq!(timeline(&deal(more), &[]).unwrap_err().message, message, "{more}");
    }
    let evergreen = r#"{"key":"a","customer":"acme","starts_on":"2026-01-01","plan":"pro","#;
    for (more, message) in [
        (
            r#""commitments":[{"key":"c","kind":"prepaid","amount":"9"}]"#,
            "commitments[0].every: is missing: a contract without a term has no period of its own",
        ),
        (
            r#""credits":[{"key":"c","category":"pilot","amount":"1"}]"#,
            "credits[0].expires: is missing, and this contract has no end",
        ),
        (
            r#""renewal":{"auto":true}"#,
            "renewal: is for contracts with a term; this one runs until it is cancelled",
        ),
    ] {
        assert_eq!(timeline(&format!("{evergreen}{more}}}"), &[]).unwrap_err().message, message, "{more}");
    }
}

/// 3 of a flat price would be billed as one: such a quantity is refused where it is said anew.
#[test]
fn a_flat_price_has_no_quantity() {
    let flat = r#""pricing":{"model":"flat","amount":"9"}"#;
    let fees = |fees: &str| {
        let text = deal(&format!(r#""fees":[{{"key":"f","product":"ai",{fees}}}]"#));
        let contract = Contract::read(&Node::root(&json::parse(&text).unwrap())).unwrap();
        contract.check_quantities().map_err(|fault| fault.message)
    };
    let nothing =
        |path: &str, n: u32| Err(format!("{path}: {n} counts for nothing: a flat price is for all of them"));
    assert_eq!(fees(&format!(r#"{flat},"quantity":"3""#)), nothing("fees[0].quantity", 3));
    assert_eq!(fees(&format!(r#"{flat},"quantity":"1.0""#)), Ok(()));
    let ramp = format!(r#"{flat},"ramp":[{{"after":"1 month","percent":"5","quantity":"2"}}]"#);
    assert_eq!(fees(&ramp), nothing("fees[0].ramp[0].quantity", 2));
    // Here it counts later.
    let each =
        r#""quantity":"3","ramp":[{"after":"1 month","pricing":{"model":"per_unit","unit_price":"5"}}]"#;
    assert_eq!(fees(&format!("{flat},{each}")), Ok(()));
    let phase = deal(&format!(
        r#""phases":[{{"key":"p","fees":[{{"key":"f","product":"ai",{flat},"quantity":"3"}}]}}]"#
    ));
    let phase = Contract::read(&Node::root(&json::parse(&phase).unwrap())).unwrap();
    assert!(
        phase.check_quantities().unwrap_err().message.starts_with("phases[0].fees[0].quantity: 3 counts")
    );
    let amended =
        |change: &str| timeline(&deal(""), &[("amend", "2026-03-01", change)]).map_err(|fault| fault.message);
    let message = "quantities.platform: 3 counts for nothing: the price of platform is flat, for all of them";
    assert_eq!(amended(r#"{"quantities":{"platform":"3"}}"#).unwrap_err(), message);
    assert!(amended(r#"{"quantities":{"platform":"1","seats":"3"}}"#).is_ok());
    let fee = format!(r#"{{"fees":[{{"key":"f","product":"ai",{flat},"quantity":"3"}}]}}"#);
    assert_eq!(amended(&fee).unwrap_err(), nothing("fees[0].quantity", 3).unwrap_err());
}

/// How credit is drawn goes by the days of its changes, those recorded late among them; what is not as it was signed says so.
#[test]
fn credit_terms_have_their_time() {
    let mode = |mode: &str| format!(r#"{{"credit_mode":"{mode}"}}"#);
    let contract = deal(r#""credit_order":["expires_at"]"#);
    let shown = |more: &[(&str, &str, &str)]| -> Vec<String> {
        let tree = timeline(&contract, more).unwrap().to_tree();
        let of = |name: &str| match tree.get(name) {
            Some(Tree::List(list)) => list.iter().map(|fact| fact.canonical().unwrap()).collect::<Vec<_>>(),
            _ => panic!("{name}"),
        };
        [of("credit_modes"), of("credit_orders")].concat()
    };
    let order = r#"{"from":"2026-01-01","until":"2027-01-01","value":["expires_at"]}"#;
    assert_eq!(shown(&[]), [r#"{"from":"2026-01-01","until":"2027-01-01","value":null}"#, order]);
    let (only, back) = (mode("credit_only"), mode("credit_then_invoice"));
    assert_eq!(
        shown(&[("amend", "2026-06-01", &back), ("amend", "2026-03-01", &only)]),
        [
            r#"{"from":"2026-01-01","until":"2026-03-01","value":null}"#,
            r#"{"amended":true,"from":"2026-03-01","until":"2026-06-01","value":"credit_only"}"#,
            r#"{"from":"2026-06-01","until":"2027-01-01","value":"credit_then_invoice"}"#,
            order,
        ]
    );
    assert_eq!(
        shown(&[("amend", "2026-01-01", r#"{"credit_mode":"allow_negative","credit_order":["priority"]}"#)]),
        [
            r#"{"amended":true,"from":"2026-01-01","until":"2027-01-01","value":"allow_negative"}"#,
            r#"{"amended":true,"from":"2026-01-01","until":"2027-01-01","value":["priority"]}"#,
        ]
    );
    // They say no item differently, and the newest stand in the document.
    let line = timeline(&contract, &[("amend", "2026-03-01", &only)]).unwrap();
    assert_eq!(line.rows, timeline(&contract, &[]).unwrap().rows);
    assert_eq!(line.document.credit_mode.as_deref(), Some("credit_only"));
    let what = What::read("amend", &Node::root(&json::parse(&only).unwrap())).unwrap();
    assert_eq!(what.to_tree().canonical().unwrap(), only);
}
