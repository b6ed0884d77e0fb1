//! Bills of customers with credit and commitments (rules.md 3, 10.5, 10.6).

use super::*;

/// A block as the database gives it; `more` says what is not usual of it.
fn block(key: &str, left: &str, more: &str) -> String {
    let usual = r#""category":"paid","priority":50,"effective_at":"2023-01-01T00:00:00Z""#;
    let more = if more.is_empty() { String::new() } else { format!(",{more}") };
    let unit = if more.contains("\"unit\"") { "" } else { r#","unit":"USD""# };
    format!(r#"{{"key":"{key}",{usual}{unit}{more},"left":"{left}"}}"#)
}

/// A bill of November 2023 with blocks.
fn paid(charges: impl IntoIterator<Item = Charge>, blocks: &[String]) -> Case {
    Case { more: format!(r#","credits":{{"blocks":[{}]}}"#, blocks.join(",")), ..november(charges) }
}

const PER_1000: &str = r#"{"model":"per_unit","unit_price":"0.0016","per":1000}"#;
const ONE: &str = r#"{"model":"per_unit","unit_price":"1"}"#;

fn tokens(pricing: &str, quantity: &str) -> Charge {
    usage("tokens", pricing, &[used("{}", quantity, 1)])
}

/// Line, block, quantity, amount.
fn draws(documents: &Documents) -> Vec<(String, String, String, String)> {
    let credits = documents.list.iter().flat_map(|document| &document.credits);
    let shown = |credit: &crate::domain::invoicing::purse::Credit| {
        let (quantity, amount) = (credit.quantity.to_string(), credit.amount.to_string());
        (credit.line.clone(), credit.block.clone(), quantity, amount)
    };
    credits.map(shown).collect()
}

fn drawn(list: &[(&str, &str, &str, &str)]) -> Vec<(String, String, String, String)> {
    let text = |text: &str| text.to_string();
    list.iter().map(|(a, b, c, d)| (text(a), text(b), text(c), text(d))).collect()
}

fn due(documents: &Documents) -> Vec<String> {
    let due = |document: &super::super::document::Document| {
        document.total.sub(document.paid).unwrap().to_fixed(2).unwrap()
    };
    documents.list.iter().map(due).collect()
}

fn lines_of(documents: &Documents) -> Vec<(String, String, String)> {
    let lines = documents.list.iter().flat_map(|document| &document.lines);
    let shown = |line: &Line| {
        let quantity = line.quantity.map_or(String::new(), |quantity| quantity.to_string());
        (line.key.clone(), quantity, line.amount.to_fixed(2).unwrap())
    };
    lines.map(shown).collect()
}

fn made(list: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    list.iter().map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string())).collect()
}

/// 3 A: in commit $0.0016 per 1,000, beyond it $0.002: 31.25 bn and 3.75 bn at $7,500; of a call with $0.30 left 187,500
/// tokens burn it and 212,500 are 0.425, rounded at the line.
#[test]
fn a_line_splits_at_the_exact_quantity_where_credit_ends() {
    let commitment = r#","commitments":[{"from":"2023-11-01T00:00:00Z","until":null,"until_on":null,"terms":{"key":"prepaid","kind":"prepaid","amount":"50000",
        "product":"p","every":"12 months","from":"2023-11-01","overage":[{"meter":"tokens","match":{},"unit_price":"0.002"}]}}]"#;
    let run = |left: &str, quantity: &'static str| {
        let mut case = paid([tokens(PER_1000, quantity)], &[block("tokens", left, "")]);
        case.more.push_str(commitment);
        case.hours = vec![(0, "2023-11-10T10:00:00Z", "{}", quantity)];
        case.documents()
    };
    let year = run("50000", "35000000000");
    assert_eq!(
        lines_of(&year),
        made(&[
            ("tokens/2023-11-01", "31250000000", "50000.00"),
            ("tokens/2023-11-01/overage", "3750000000", "7500.00")
        ])
    );
    assert_eq!(due(&year), ["7500.00"]);
    let call = run("0.30", "400000");
    assert_eq!(
        lines_of(&call),
        made(&[("tokens/2023-11-01", "187500", "0.30"), ("tokens/2023-11-01/overage", "212500", "0.43")])
    );
    assert_eq!(call.list[0].lines[1].exact.shown(), "0.425");
    assert_eq!(call.list[0].lines[1].price.as_deref(), Some("overage, charge"));
    assert_eq!(draws(&call), drawn(&[("tokens/2023-11-01", "tokens", "187500", "0.3")]));
    // Without credit all of it is beyond.
    assert_eq!(lines_of(&run("0", "1000000")), made(&[("tokens/2023-11-01/overage", "1000000", "2.00")]));
}

/// 3 C: 400 of tokens take D 50, C 200, B 100, A 50; 350 of images, used later, E 300 and A 50.
#[test]
fn blocks_pay_in_their_order_whichever_line_stands_first() {
    let images = usage("images", ONE, &[used("{}", "350", 1)]);
    let ends = |day: &str, more: &str| format!(r#""expires_at":"{day}T00:00:00Z"{more}"#);
    let promotional = r#","category":"promotional""#;
    let blocks = [
        block("A", "500", &ends("2024-01-01", "")),
        block("B", "100", &ends("2024-01-01", promotional)).replacen(r#""category":"paid","#, "", 1),
        block("C", "200", &ends("2023-12-31", promotional)).replacen(r#""category":"paid","#, "", 1),
        block("D", "50", r#""scope":{"meters":["tokens"]}"#).replacen(
            r#""priority":50"#,
            r#""priority":10"#,
            1,
        ),
        block("E", "300", &ends("2023-12-31", r#","scope":{"meters":["images"]}"#)),
    ];
    let mut case = paid([images, tokens(ONE, "400")], &blocks);
    case.hours = vec![(0, "2023-11-11T10:00:00Z", "{}", "350"), (1, "2023-11-10T10:00:00Z", "{}", "400")];
    let documents = case.documents();
    assert_eq!(
        draws(&documents),
        drawn(&[
            ("images/2023-11-01", "E", "300", "300"),
            ("images/2023-11-01", "A", "50", "50"),
            ("tokens/2023-11-01", "D", "50", "50"),
            ("tokens/2023-11-01", "C", "200", "200"),
            ("tokens/2023-11-01", "B", "100", "100"),
            ("tokens/2023-11-01", "A", "50", "50"),
        ])
    );
    assert_eq!(due(&documents), ["0.00"]);
    let text = documents.text(&documents.list[0], &Issue::default()).unwrap();
    let tree = json::parse(&text).unwrap();
    assert_eq!(tree.get("totals").unwrap().get("credits").unwrap(), &json::Tree::text("-750.00"));
    let told = explain(&Node::root(&tree), &Vec::new()).unwrap();
    assert!(told.contains(&"├─ credits -750.00 USD".to_string()), "{told:#?}");
    // Computed again from what the document recorded.
    let recorded = tree.get("inputs").unwrap().get("credits").unwrap().canonical().unwrap();
    case.more = format!(r#","credits":{}"#, recorded.replacen('{', r#"{"opened":true,"#, 1));
    assert_eq!(case.text(), text);
}

/// 10.6: 1,000 are left; Inc's 1,200 on the 16th take them, GmbH's 2,300 on the 20th are all overage.
#[test]
fn legal_entities_share_a_pool_in_order_of_time() {
    let both = [used(r#"{"bill_to":"gmbh"}"#, "2300", 1), used("{}", "1200", 1)];
    let mut case = paid([usage("tokens", ONE, &both)], &[block("pool", "1000", "")]);
    case.hours = vec![
        (0, "2023-11-20T00:00:00Z", r#"{"bill_to":"gmbh"}"#, "2300"),
        (0, "2023-11-16T00:00:00Z", "{}", "1200"),
    ];
    let documents = case.documents();
    assert_eq!(draws(&documents), drawn(&[("tokens/2023-11-01", "pool", "1000", "1000")]));
    assert_eq!(due(&documents), ["200.00", "2300.00"]);
}

/// Where gmbh's invoice stands, only the rest is Inc's, who alone gets a document; it says so, and computes again to the same.
#[test]
fn what_stands_for_a_legal_entity_is_not_settled_again() {
    let both = [used(r#"{"bill_to":"gmbh"}"#, "2300", 1), used("{}", "1200", 1)];
    let mut case = paid([usage("tokens", ONE, &both)], &[block("pool", "700", "")]);
    case.more = case.more.replacen('{', r#"{"held":["gmbh"],"#, 1);
    case.hours = vec![
        (0, "2023-11-10T10:00:00Z", r#"{"bill_to":"gmbh"}"#, "2300"),
        (0, "2023-11-16T10:00:00Z", "{}", "1200"),
    ];
    let documents = case.documents();
    assert_eq!(draws(&documents), drawn(&[("tokens/2023-11-01", "pool", "700", "700")]));
    assert_eq!(due(&documents), ["500.00"]);
    let text = documents.text(&documents.list[0], &Issue::default()).unwrap();
    let tree = json::parse(&text).unwrap();
    let recorded = tree.get("inputs").unwrap().get("credits").unwrap().canonical().unwrap();
    assert!(recorded.contains(r#""held":["gmbh"]"#), "{recorded}");
    case.more = format!(r#","credits":{}"#, recorded.replacen('{', r#"{"opened":true,"#, 1));
    let again = case.documents();
    assert_eq!(again.text(&again.list[0], &Issue::default()).unwrap(), text);
}

/// A block pays for usage of its time, and of the dimensions it names, also where lines don't keep them apart; fees are
/// not paid from credit, and what a maximum takes off is not asked for.
#[test]
fn scope_is_that_of_the_usage() {
    let capped = r#"{"model":"per_unit","unit_price":"1","maximum":"80"}"#;
    let block = block(
        "gpt-4",
        "50",
        r#""expires_at":"2023-11-15T12:30:00Z","scope":{"dimensions":{"model":["gpt-4"]}}"#,
    );
    let mut case = paid(
        [tokens(capped, "100"), fee(r#""pricing":{"model":"flat","amount":"49"},"timing":"arrears""#)],
        &[block],
    );
    case.hours = vec![
        (0, "2023-11-10T00:00:00Z", r#"{"model":"gpt-4"}"#, "30"),
        (0, "2023-11-11T00:00:00Z", r#"{"model":"other"}"#, "30"),
        (0, "2023-11-15T12:30:00Z", r#"{"model":"gpt-4"}"#, "40"),
    ];
    // 30 of 100 at the 80 that are billed
    let documents = case.documents();
    assert_eq!(draws(&documents), drawn(&[("tokens/2023-11-01", "gpt-4", "30", "24")]));
    assert_eq!(due(&documents), ["105.00"]);
    let stretches: Vec<(String, String)> = {
        let contract = case.contract();
        let mut batch = Batch::open([opened(&contract, false, None)]);
        batch.add_meter(0, case_meter());
        batch.days().into_iter().for_each(|(zone, day)| batch.add_midnight(zone, day, midnight(day)));
        batch.stretches();
        let stretches = batch.hour_stretches();
        assert!(stretches.iter().all(|s| s.dropped == ["region"]), "the block looks at the model");
        stretches.iter().map(|s| (s.from.to_string(), s.until.to_string())).collect()
    };
    assert_eq!(stretches.len(), 2);
    assert_eq!(stretches[1].0, "2023-11-15T12:30:00Z");
}

fn case_meter() -> Meter {
    let meter = r#"{"key":"tokens","event_type":"e","aggregation":"sum","value":"n","dimensions":["model","region"],"unit":"token"}"#;
    Meter::from(&crate::domain::metering::Meter::read(&Node::root(&json::parse(meter).unwrap())).unwrap())
}

/// 1,200 tokens of their own unit cost nothing; the other 300 cost what they do in their tier, however usage was cut; then
/// money pays.
#[test]
fn units_come_first_and_tiers_cut_exactly() {
    let tiers =
        r#"{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.10"},{"unit_price":"0.05"}]}"#;
    let blocks = [block("tokens", "1200", r#""unit":"token""#), block("money", "10", "")];
    let cuts: [&[(usize, &str, &str, &str)]; 3] = [
        &[(0, "2023-11-10T00:00:00Z", "{}", "1500")],
        &[(0, "2023-11-11T00:00:00Z", "{}", "700"), (0, "2023-11-10T00:00:00Z", "{}", "800")],
        // Corrections that outweigh their hour are taken off what follows.
        &[
            (0, "2023-11-10T00:00:00Z", "{}", "1600"),
            (0, "2023-11-11T00:00:00Z", "{}", "-300"),
            (0, "2023-11-12T00:00:00Z", "{}", "200"),
        ],
    ];
    for hours in cuts {
        let mut case = paid([tokens(tiers, "1500")], &blocks);
        case.hours = hours.to_vec();
        let documents = case.documents();
        assert_eq!(
            lines_of(&documents),
            made(&[("tokens/2023-11-01", "1200", "0.00"), ("tokens/2023-11-01/overage", "300", "15.00")])
        );
        assert_eq!(
            draws(&documents),
            drawn(&[
                ("tokens/2023-11-01", "tokens", "1200", "1200"),
                ("tokens/2023-11-01/overage", "money", "200", "10")
            ])
        );
        assert_eq!(due(&documents), ["5.00"]);
    }
}

/// A boundary compared again draws the difference; frozen, blocks hold no more than what the documents drew.
#[test]
fn late_usage_draws_the_difference() {
    let month = |quantity: &'static str, left: &str, more: &str| {
        let mut case = paid([tokens(ONE, quantity)], &[block("b", left, "")]);
        case.more = case.more.replacen(r#"{"blocks""#, &format!(r#"{{{more}"blocks""#), 1);
        case.hours = vec![(0, "2023-11-10T00:00:00Z", "{}", quantity)];
        case
    };
    let was = month("60", "100", "").documents();
    let stands = {
        let text = was.text(&was.list[0], &Issue::default()).unwrap();
        let tree = json::parse(&text).unwrap();
        let part = |name: &str| tree.get(name).unwrap().canonical().unwrap();
        let (lines, credits) = (part("lines"), part("credits"));
        format!(r#"[{{"number":"INV-1","bill_to":"acme","own":true,"lines":{lines},"credits":{credits}}}]"#)
    };
    let differs = |quantity, left, more| month(quantity, left, more).differences(&stands).unwrap();
    let late = differs("110", "40", "");
    assert_eq!(draws(&late), drawn(&[("tokens/2023-11-01", "b", "40", "40")]));
    assert_eq!((due(&late), late.list[0].corrects()), (vec!["10.00".to_string()], vec![1]));
    let taken_back = differs("25", "40", "");
    assert_eq!(draws(&taken_back), drawn(&[("tokens/2023-11-01", "b", "-35", "-35")]));
    assert_eq!(due(&taken_back), ["0.00"]);
    assert!(differs("60", "40", "").list.is_empty());
    let frozen = differs("70", "40", r#""frozen":true,"#);
    assert_eq!((draws(&frozen), due(&frozen)), (drawn(&[]), vec!["10.00".to_string()]));
}

/// 3 D: what is missing to 120,000 is 22,500, credit paid not counted; instalments sum to what was promised.
#[test]
fn commitments_are_paid_and_tested_on_their_boundaries() {
    let commitment = |terms: &str| {
        format!(
            r#","commitments":[{{"from":"2023-11-01T00:00:00Z","until":null,"until_on":null,"terms":{{"key":"c","product":"p","from":"2023-11-01",{terms}}}}}]"#
        )
    };
    let standing = r#","spent":[{"number":"INV-1","boundary":0,"bill_to":"acme","lines":[{"key":"tokens/2023-10-01","kind":"usage","charge":"tokens","product":"ai-api",
        "meter":"tokens","from":"2023-11-01T00:00:00Z","amount":"50000.00"}],"credits":[{"block":"b","line":"tokens/2023-10-01","quantity":"1","amount":"2500.00"}]}]"#;
    let mut case = november([tokens(ONE, "50000")]);
    case.more = commitment(r#""kind":"postpaid","amount":"120000","every":"1 month""#) + standing;
    case.hours = vec![(0, "2023-11-10T00:00:00Z", "{}", "50000")];
    assert_eq!(case.shown()[1], line("c/2023-11-01/true_up", "22500.00"));
    let text = case.text();
    assert!(text.contains(r#""counted":["INV-1"]"#), "{text}");
    case.charges = vec![tokens(ONE, "131000")];
    assert_eq!(case.amounts(), ["131000.00"]);

    let mut prepaid = november([]);
    prepaid.boundaries = "[0, 1, 2, 3]";
    prepaid.more =
        commitment(r#""kind":"prepaid","amount":"100","every":"3 months","instalments":"1 month""#);
    assert_eq!(
        prepaid.shown(),
        [
            line("c/2023-11-01", "33.33"),
            line("c/2023-12-01", "33.34"),
            line("c/2024-01-01", "33.33"),
            line("c/2024-02-01", "33.33"),
        ]
    );
    assert_eq!(prepaid.lines()[1].label, "Commitment c 2/3");
}

proptest! {
    /// What is pending is the same by whole periods as by hours: two charges, fractions of cents, credit that may end. Where
    /// blocks end in between, hours are asked for all the same.
    #[test]
    fn pending_by_period_is_pending_by_hour(
        used in proptest::collection::vec((0i64..700, 1i64..4000, 0usize..2), 1..12), left in proptest::collection::vec(0i64..40, 1..4),
        price in proptest::sample::select(vec!["0.0137", "0.01", "0.001", "1", "0.333"]), ends in proptest::bool::ANY,
    ) {
        let blocks: Vec<String> = left.iter().enumerate().map(|(n, left)| {
            let end = format!(r#""expires_at":"2023-11-{:02}T00:00:00Z""#, 5 + n * 9);
            block(&format!("b{n}"), &left.to_string(), if ends { &end } else { "" })
        }).collect();
        let pricing = format!(r#"{{"model":"per_unit","unit_price":"{price}"}}"#);
        let charge = |at: usize, key: &str| {
            let total: i64 = used.iter().filter(|used| used.2 == at).map(|used| used.1).sum();
            usage(key, &pricing, &[self::used("{}", &total.to_string(), 1)])
        };
        let mut case = paid([charge(0, "tokens"), charge(1, "images")], &blocks);
        case.hours = used.iter().map(|(hour, quantity, at)| {
            let when = Instant(instant("2023-11-01T00:00:00Z").0 + hour * crate::domain::foundation::instant::HOUR);
            (*at, &*when.to_string().leak(), "{}", &*quantity.to_string().leak())
        }).collect();
        let contract = case.contract();
        let run = |by: Pending| {
            let mut batch = Batch::open([opened(&contract, false, None)]);
            batch.only_pending(by);
            let documents = case.computed(batch, true).one().unwrap();
            let mut drawn = std::collections::BTreeMap::new();
            for credit in documents.list.iter().flat_map(|document| &document.credits) {
                let sum = drawn.entry(credit.block.clone()).or_insert(Exact::ZERO);
                *sum = sum.add(credit.amount).unwrap();
            }
            drawn
        };
        prop_assert_eq!(run(Pending::ByHour), run(Pending::ByPeriod));
    }

    /// Whatever the order in which hours are given, the bytes are the same; no block gives more than it holds, and what is
    /// drawn and what is due sum to the lines.
    #[test]
    fn any_order_of_arrival_settles_to_the_same(
        used in proptest::collection::vec((0i64..700, 1i64..40), 1..12), left in proptest::collection::vec(0i64..200, 1..4), turn in 0usize..12
    ) {
        let total: i64 = used.iter().map(|(_, quantity)| quantity).sum();
        let blocks: Vec<String> = left.iter().enumerate().map(|(n, left)| {
            let ends = format!(r#""expires_at":"2023-11-{:02}T00:00:00Z""#, 5 + n * 9);
            block(&format!("b{n}"), &left.to_string(), &ends)
        }).collect();
        let charge = || usage("tokens", ONE, &[self::used("{}", &total.to_string(), 1)]);
        let run = |turned: &[(i64, i64)]| {
            let case = paid([charge()], &blocks);
            let contract = case.contract();
            let mut batch = Batch::open([opened(&contract, false, None)]);
            batch.add_meter(0, case_meter());
            batch.days().into_iter().for_each(|(zone, day)| batch.add_midnight(zone, day, midnight(day)));
            batch.stretches();
            batch.add_usage(UsageRow { stretch: 0, dimensions: Dimensions::new(), quantity: Exact::from_i64(total), events: 1, amounts: None, places: Vec::new() }).unwrap();
            let begins = instant("2023-11-01T00:00:00Z");
            // As the database has them: summed by hour.
            let mut hours = std::collections::HashMap::new();
            turned.iter().for_each(|(hour, quantity)| *hours.entry(*hour).or_insert(0) += quantity);
            let stretches = batch.hour_stretches();
            for (hour, quantity) in hours {
                let at = Instant(begins.0 + hour * crate::domain::foundation::instant::HOUR);
                let place = stretches.iter().position(|s| s.from <= at && at < s.until).unwrap();
                batch.add_hour(place, at, Dimensions::new(), Exact::from_i64(quantity)).unwrap();
            }
            batch.compute(true);
            batch.one().unwrap()
        };
        let mut turned = used.clone();
        turned.rotate_left(turn % used.len());
        let (one, other) = (run(&used), run(&turned));
        let text = |documents: &Documents| documents.text(&documents.list[0], &Issue::default()).unwrap();
        prop_assert_eq!(text(&one), text(&other));
        for (n, left) in left.iter().enumerate() {
            let of_block = one.list[0].credits.iter().filter(|credit| credit.block == format!("b{n}"));
            let sum = of_block.fold(Exact::ZERO, |sum, credit| sum.add(credit.amount).unwrap());
            prop_assert!(sum <= Exact::from_i64(*left));
        }
        prop_assert_eq!(one.list[0].total, Exact::from_i64(total));
        let paid = one.list[0].credits.iter().fold(Exact::ZERO, |sum, credit| sum.add(credit.amount).unwrap());
        prop_assert_eq!(paid, one.list[0].paid);
        prop_assert!(paid <= Exact::from_i64(total));
    }
}

fn postpaid(more: &str) -> String {
    format!(
        r#","commitments":[{{"from":"2023-10-01T00:00:00Z","until":null,"until_on":null,"terms":{{"key":"spend","kind":"postpaid","product":"p","every":"2 months","from":"2023-10-01",{more}}}}}]"#
    )
}

/// 400 of 500 were spent in October: in November 100 tokens fill the rest, and 300 cost 0.80; images that come between fill
/// it, too. However usage came, the same is billed.
#[test]
fn beyond_a_postpaid_commitment_usage_has_prices_of_its_own() {
    let spent = r#","spent":[{"number":"INV-1","boundary":1,"bill_to":"acme","lines":[{"key":"tokens/2023-10-01","kind":"usage","product":"ai-api","meter":"tokens",
        "from":"2023-10-01T00:00:00Z","quantity":"400","amount":"400.00","dimensions":{}}],"credits":null}]"#;
    let commitment =
        postpaid(r#""amount":"500","overage":[{"meter":"tokens","match":{},"unit_price":"0.8"}]"#);
    let images = usage("images", ONE, &[used("{}", "60", 1)]);
    let run = |hours: &[(usize, &'static str, &'static str, &'static str)]| {
        let mut case = november([images.clone(), tokens(ONE, "400")]);
        case.starts_on = "2023-10-01";
        case.boundaries = "[2]";
        case.more = format!("{commitment}{spent}");
        case.hours = hours.to_vec();
        case.documents()
    };
    let mut hours = vec![
        (0, "2023-11-10T00:00:00Z", "{}", "60"),
        (1, "2023-11-05T00:00:00Z", "{}", "10"),
        (1, "2023-11-20T00:00:00Z", "{}", "390"),
    ];
    let documents = run(&hours);
    assert_eq!(
        lines_of(&documents),
        made(&[
            ("images/2023-11-01", "60", "60.00"),
            ("tokens/2023-11-01", "40", "40.00"),
            ("tokens/2023-11-01/overage", "360", "288.00")
        ])
    );
    hours.reverse();
    assert_eq!(run(&hours).sha256, documents.sha256);
}

/// 1,000 a period, of which 100 and 400 were used: 500 are missing at 700 per 1,000. What credit covered does not count, nor
/// do other meters.
#[test]
fn what_is_missing_of_units_has_its_own_price() {
    let spent = r#","spent":[{"number":"INV-1","boundary":1,"bill_to":"acme","lines":[{"key":"tokens/2023-10-01","kind":"usage","product":"ai-api","meter":"tokens",
        "from":"2023-10-01T00:00:00Z","quantity":"150","amount":"150.00","dimensions":{}}],
        "credits":[{"block":"b","unit":"token","line":"tokens/2023-10-01","quantity":"50","amount":"50"}]}]"#;
    let commitment = postpaid(
        r#""quantity":"1000","meter":"tokens","shortfall_price":{"model":"per_unit","unit_price":"700","per":1000}"#,
    );
    let mut case = november([usage("images", ONE, &[used("{}", "60", 1)]), tokens(ONE, "400")]);
    case.starts_on = "2023-10-01";
    case.boundaries = "[2]";
    case.more = format!("{commitment}{spent}");
    case.hours = vec![(0, "2023-11-10T00:00:00Z", "{}", "60"), (1, "2023-11-05T00:00:00Z", "{}", "400")];
    let documents = case.documents();
    assert_eq!(
        lines_of(&documents)[2],
        ("spend/2023-10-01/true_up".to_string(), "500".to_string(), "350.00".to_string())
    );
    let line = &documents.list[0].lines[2];
    assert_eq!((line.unit.as_deref(), line.price.as_deref()), (Some("token"), Some("shortfall price")));
}

/// Lines are cut where a window begins and ends, so that each counts as a whole; tiers run on over them.
#[test]
fn windows_of_a_commitment_cut_lines() {
    let tiers = r#"{"model":"graduated","tiers":[{"up_to":"50","unit_price":"1"},{"unit_price":"0.5"}]}"#;
    let windows = r#""amount":"100","scope":{"windows":[{"from":"2023-11-10","until":"2023-11-20"}]}"#;
    let scope = r#""scope":{"windows":[{"from":"2023-11-10T00:00:00Z","until":"2023-11-20T00:00:00Z"}]},"from":"2023-10-01T00:00:00Z""#;
    let mut case = november([tokens(tiers, "0")]);
    let at = |from, quantity| Used { from: Some(from), ..used("{}", quantity, 1) };
    case.charges[0].usage = vec![
        at("2023-11-01T00:00:00Z", "40"),
        at("2023-11-10T00:00:00Z", "70"),
        at("2023-11-20T00:00:00Z", "30"),
    ];
    case.starts_on = "2023-10-01";
    case.boundaries = "[2]";
    case.more = postpaid(windows).replacen(r#""from":"2023-10-01T00:00:00Z""#, scope, 1);
    // 50 at 1 and 90 at 0.50 are 95.00, by quantity; 47.50 of them were used inside.
    assert_eq!(
        lines_of(&case.documents()),
        made(&[
            ("tokens/2023-11-01", "40", "27.14"),
            ("tokens/2023-11-01/from=2023-11-10T00:00:00Z", "70", "47.50"),
            ("tokens/2023-11-01/from=2023-11-20T00:00:00Z", "30", "20.36"),
            ("spend/2023-10-01/true_up", "", "52.50")
        ])
    );
}

/// credit_only: 30 of 100 are paid, the rest costs nothing; what a maximum takes off is not asked for, and no document falls
/// below what credit pays. Computed again it is the same, also without a block.
#[test]
fn under_credit_only_nothing_else_pays() {
    let run = |pricing: &str, blocks: &[String]| {
        let mut case = paid([tokens(pricing, "100")], blocks);
        case.more = case.more.replacen(r#"{"blocks""#, r#"{"mode":"credit_only","blocks""#, 1);
        case.hours = vec![(0, "2023-11-10T00:00:00Z", "{}", "40"), (0, "2023-11-20T00:00:00Z", "{}", "60")];
        let documents = case.documents();
        let text = case.text();
        let recorded =
            json::parse(&text).unwrap().get("inputs").unwrap().get("credits").unwrap().canonical().unwrap();
        case.more = format!(r#","credits":{}"#, recorded.replacen('{', r#"{"opened":true,"#, 1));
        assert_eq!(case.text(), text);
        assert_eq!(due(&documents), ["0.00"]);
        lines_of(&documents)
    };
    let key = "tokens/2023-11-01";
    let rest = format!("{key}/uncovered");
    assert_eq!(run(ONE, &[block("b", "30", "")]), made(&[(key, "30", "30.00"), (&rest, "70", "0.00")]));
    assert_eq!(run(ONE, &[block("b", "500", "")]), made(&[(key, "100", "100.00")]));
    assert_eq!(run(ONE, &[]), made(&[(&rest, "100", "0.00")]));
    assert_eq!(
        run(ONE, &[block("t", "80", r#""unit":"token""#), block("b", "5", "")]),
        made(&[(key, "80", "0.00"), (&format!("{key}/priced"), "5", "5.00"), (&rest, "15", "0.00")])
    );
    let capped = r#"{"model":"per_unit","unit_price":"1","maximum":"80"}"#;
    assert_eq!(
        run(capped, &[block("b", "40", "")]),
        made(&[(key, "50", "60.00"), (&rest, "50", "0.00"), ("tokens/2023-11-01/cap", "", "-20.00")])
    );
}

/// Units are covered, and what is beyond them has a price of its own; money pays between.
#[test]
fn units_and_prices_beyond_go_together() {
    let mut case = paid([tokens(ONE, "100")], &[block("t", "60", r#""unit":"token""#), block("b", "10", "")]);
    case.more.push_str(r#","commitments":[{"from":"2023-11-01T00:00:00Z","until":null,"until_on":null,"terms":{"key":"pack","kind":"prepaid","amount":"50",
        "product":"p","every":"12 months","from":"2023-11-01","quantity":"60","meter":"tokens","overage":[{"meter":"tokens","match":{},"unit_price":"0.9"}]}}]"#);
    case.hours = vec![(0, "2023-11-10T00:00:00Z", "{}", "100")];
    let documents = case.documents();
    assert_eq!(
        lines_of(&documents),
        made(&[
            ("tokens/2023-11-01", "60", "0.00"),
            ("tokens/2023-11-01/priced", "10", "10.00"),
            ("tokens/2023-11-01/overage", "30", "27.00")
        ])
    );
    assert_eq!(draws(&documents)[1].0, "tokens/2023-11-01/priced");
    assert_eq!(due(&documents), ["27.00"]);
}

/// What a maximum takes off is taken off once, whatever credit and commitments make of the line: 80.00 are asked for 100.
#[test]
fn a_maximum_takes_off_once() {
    let capped = r#"{"model":"per_unit","unit_price":"1","maximum":"80"}"#;
    let run = |blocks: &[String], more: &str| {
        let mut case = paid([tokens(capped, "100")], blocks);
        case.more.push_str(more);
        case.hours = vec![(0, "2023-11-10T00:00:00Z", "{}", "100")];
        let documents = case.documents();
        (lines_of(&documents), due(&documents).concat())
    };
    let (key, cap) = ("tokens/2023-11-01", ("tokens/2023-11-01/cap", "", "-20.00"));
    let beyond = format!("{key}/overage");
    assert_eq!(run(&[block("b", "60", "")], ""), (made(&[(key, "100", "100.00"), cap]), "20.00".into()));
    // 60.00 are three quarters of what is asked; the other 25 cost 0.90.
    let commitment = r#","commitments":[{"from":"2023-11-01T00:00:00Z","until":null,"until_on":null,"terms":{"key":"pre","kind":"prepaid","amount":"60",
        "product":"p","every":"12 months","from":"2023-11-01","overage":[{"meter":"tokens","match":{},"unit_price":"0.9"}]}}]"#;
    assert_eq!(
        run(&[block("b", "60", "")], commitment),
        (made(&[(key, "75", "80.00"), (&beyond, "25", "22.50"), cap]), "22.50".into())
    );
    // 40 of 100 are covered, and 40 percent of 80.00 with them.
    assert_eq!(
        run(&[block("t", "40", r#""unit":"token""#)], ""),
        (made(&[(key, "40", "0.00"), (&beyond, "60", "68.00"), cap]), "48.00".into())
    );
}

/// Usage of 10 and 20 November, 50 each at 1.00, with what was amended on the 15th. Computed again from what the document
/// records it is the same.
fn amended(pricing: &str, credits: &str, more: &str) -> Documents {
    let mut case = november([tokens(pricing, "100")]);
    case.more = format!(r#","credits":{credits}{more}"#);
    case.hours = vec![(0, "2023-11-10T00:00:00Z", "{}", "50"), (0, "2023-11-20T00:00:00Z", "{}", "50")];
    let (documents, text) = (case.documents(), case.text());
    let tree = json::parse(&text).unwrap();
    let recorded = tree.get("inputs").unwrap().get("credits").unwrap().canonical().unwrap();
    assert!(recorded.contains(r#""amended":[{"from":"2023-11-15T00:00:00Z","#), "{recorded}");
    case.more = format!(r#","credits":{}{more}"#, recorded.replacen('{', r#"{"opened":true,"#, 1));
    assert_eq!(case.text(), text);
    assert!(explain(&Node::root(&tree), &Vec::new()).is_ok());
    documents
}

fn with_mode(signed: &str, then: &str, blocks: &[String]) -> String {
    let amended = format!(r#"[{{"from":"2023-11-15T00:00:00Z","mode":"{then}"}}]"#);
    format!(r#"{{"mode":"{signed}","amended":{amended},"blocks":[{}]}}"#, blocks.join(","))
}

/// What no credit covers is billed, or is nobody's to pay, by the mode of the day on which it was used.
#[test]
fn the_mode_is_that_of_the_usage() {
    let key = "tokens/2023-11-01";
    let (rest, beyond, priced) =
        (format!("{key}/uncovered"), format!("{key}/overage"), format!("{key}/priced"));
    let run = |(signed, then), blocks: &[String], pricing: &str, more: &str| {
        let documents = amended(pricing, &with_mode(signed, then, blocks), more);
        (lines_of(&documents), due(&documents).concat())
    };
    let (to_credit_only, from_credit_only) =
        (("credit_then_invoice", "credit_only"), ("credit_only", "credit_then_invoice"));
    let b = [block("b", "30", "")];
    // 30 of the first 50 are paid, 20 billed; nobody pays for the other 50. The other way round 50 are billed.
    assert_eq!(
        run(to_credit_only, &b, ONE, ""),
        (made(&[(key, "50", "50.00"), (&rest, "50", "0.00")]), "20.00".into())
    );
    assert_eq!(
        run(from_credit_only, &b, ONE, ""),
        (made(&[(key, "80", "80.00"), (&rest, "20", "0.00")]), "50.00".into())
    );
    // Credit for all of the time in which it is alone.
    assert_eq!(
        run(from_credit_only, &[block("b", "60", "")], ONE, ""),
        (made(&[(key, "100", "100.00")]), "40.00".into())
    );
    assert_eq!(
        run(to_credit_only, &[], ONE, ""),
        (made(&[(key, "50", "50.00"), (&rest, "50", "0.00")]), "50.00".into())
    );
    // Tiers run on: 60 at 1.00 and 40 at 0.50 are 80.00, 50.00 of them by the 15th.
    let tiers = r#"{"model":"graduated","tiers":[{"up_to":"60","unit_price":"1"},{"unit_price":"0.5"}]}"#;
    assert_eq!(
        run(from_credit_only, &b, tiers, ""),
        (made(&[(key, "80", "60.00"), (&rest, "20", "0.00")]), "30.00".into())
    );
    // A maximum takes 20.00 off; each 50 asks for 40.00.
    let capped = r#"{"model":"per_unit","unit_price":"1","maximum":"80"}"#;
    assert_eq!(
        run(to_credit_only, &b, capped, ""),
        (
            made(&[(key, "50", "60.00"), (&rest, "50", "0.00"), ("tokens/2023-11-01/cap", "", "-20.00")]),
            "10.00".into()
        )
    );
    let units = [block("t", "30", r#""unit":"token""#)];
    assert_eq!(
        run(to_credit_only, &units, ONE, ""),
        (made(&[(key, "30", "0.00"), (&priced, "20", "20.00"), (&rest, "50", "0.00")]), "20.00".into())
    );
    // Beyond a commitment at 0.90, as long as it is billed at all.
    let commitment = r#","commitments":[{"from":"2023-11-01T00:00:00Z","until":null,"until_on":null,"terms":{"key":"prepaid","kind":"prepaid","amount":"30",
        "product":"p","every":"12 months","from":"2023-11-01","overage":[{"meter":"tokens","match":{},"unit_price":"0.9"}]}}]"#;
    assert_eq!(
        run(to_credit_only, &b, ONE, commitment),
        (made(&[(key, "30", "30.00"), (&beyond, "20", "18.00"), (&rest, "50", "0.00")]), "18.00".into())
    );
    // Debt is only made while it may be.
    let overdrawn = [block("o", "30", r#""overdraft":"unlimited""#)];
    assert_eq!(run(("allow_negative", "credit_then_invoice"), &overdrawn, ONE, "").1, "50.00");
    assert_eq!(run(("credit_then_invoice", "allow_negative"), &overdrawn, ONE, "").1, "20.00");
}

/// By end until the 15th, by priority from then on; the line goes on over both.
#[test]
fn the_order_is_that_of_the_usage() {
    let blocks = [
        block("soon", "100", r#""expires_at":"2023-12-31T00:00:00Z""#),
        block("first", "30", "").replacen(r#""priority":50"#, r#""priority":10"#, 1),
    ];
    let orders = r#""order":["expires_at"],"amended":[{"from":"2023-11-15T00:00:00Z","order":["priority"]}]"#;
    let documents = amended(ONE, &format!(r#"{{{orders},"blocks":[{}]}}"#, blocks.join(",")), "");
    assert_eq!(
        draws(&documents),
        drawn(&[("tokens/2023-11-01", "first", "30", "30"), ("tokens/2023-11-01", "soon", "70", "70")])
    );
    assert_eq!(due(&documents), ["0.00"]);
}
