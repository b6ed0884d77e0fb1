//! Boundaries compared again: what differs from the documents that stand.

use super::*;

const TIERS: &str =
    r#"{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"1"},{"unit_price":"0.5"}]}"#;

/// Differences that are to be apart are on the bill of no boundary, in whatever order the database gives the bills.
#[test]
fn differences_go_to_the_bill_of_no_boundary() {
    let case = |quantity: &str| november([usage("q", TIERS, &[used("{}", quantity, 1)])]);
    let standing = standing(&[&case("950").documents()]);
    let now = case("1050");
    let (main, apart) = (now.contract(), now.contract_apart());
    let bills =
        [opened(&main, false, None), opened(&apart, false, None), opened(&main, true, Some(&standing))];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let batch = now.computed(Batch::open(order.map(|at| bills[at])), false);
        let mut lines: Vec<(Option<i64>, Vec<String>)> = batch
            .slots()
            .iter()
            .filter(|slot| !slot.is_earlier())
            .map(|slot| {
                let lines = slot.documents().unwrap().list.iter().flat_map(|document| &document.lines);
                (slot.boundary(), lines.map(|line| line.key.clone()).collect())
            })
            .collect();
        lines.sort();
        let expected = [(None, "q/2023-11-01/difference"), (Some(1), "q/2023-11-01")];
        assert_eq!(lines, expected.map(|(at, key)| (at, vec![key.to_string()])), "{order:?}");
    }
}

/// rules.md 4: 950 billed, 100 late: 1,050 cost 1,025, so 75.00, not 100.00. What was billed may be on several
/// documents; where nothing differs there is no document, and nothing to record.
#[test]
fn late_usage_is_the_difference_of_totals() {
    let used = |quantity: &str| november([usage("q", TIERS, &[used("{}", quantity, 1)])]);
    let billed = used("950").documents();
    let late = used("1050").differences(&standing(&[&billed])).unwrap();
    let of = &late.list[0].lines[0];
    assert_eq!((of.key.as_str(), of.kind.as_str()), ("q/2023-11-01/difference", "difference"));
    assert_eq!(
        (of.amount.to_fixed(2).unwrap(), of.quantity.unwrap().to_string()),
        ("75.00".into(), "100".into())
    );
    let text = late.text(&late.list[0], &Issue::default()).unwrap();
    let tree = json::parse(&text).unwrap();
    let recorded = tree.get("inputs").unwrap().get("differences").unwrap().canonical().unwrap();
    assert!(
        recorded
            .contains(r#""billed_on":["INV-1acme"],"boundary":1,"terms":{"inputs":{"contract_version":1"#),
        "{recorded}"
    );
    let explained = explain(&Node::root(&tree), &Vec::new()).unwrap().join("\n");
    for leaf in [
        "Q, difference: 75.00 USD   [q/2023-11-01/difference]",
        "q/2023-11-01 comes to 1025.00 for 1,050 token now, price: charge",
        "tier 2: above 1000: 50 at 0.5 = 25",
        "billed before: 950.00 for 950 token, on INV-1acme",
    ] {
        assert!(explained.contains(leaf), "{leaf} is not in\n{explained}");
    }

    let nothing = used("1050").differences(&standing(&[&billed, &late])).unwrap();
    assert!(nothing.list.is_empty());
    assert!(!nothing.terms_tree().canonical().unwrap().contains("differences"));
    // All of it is taken back: the line is gone, and its difference is what was billed.
    let gone = november([usage("q", TIERS, &[])]).differences(&standing(&[&billed, &late])).unwrap();
    let of = &gone.list[0].lines[0];
    assert_eq!(
        (of.amount.to_fixed(2).unwrap(), of.quantity.unwrap().to_string()),
        ("-1025.00".into(), "-1050".into())
    );
    // Issued again while the difference stands: the whole, less what stands elsewhere.
    let elsewhere = standing(&[&billed, &late]).replacen(r#""own":true"#, r#""own":false"#, 1);
    let again = used("1050").again(&elsewhere);
    let amounts: Vec<String> =
        again.list[0].lines.iter().map(|line| line.amount.to_fixed(2).unwrap()).collect();
    assert_eq!(amounts, ["1025.00", "-1025.00"]);
}

/// The digest covers what was counted as billed.
#[test]
fn what_stands_is_part_of_the_inputs() {
    let used = |quantity: &str| november([usage("q", TIERS, &[used("{}", quantity, 1)])]);
    let late =
        |billed: &str| used("1050").differences(&standing(&[&used(billed).documents()])).unwrap().sha256;
    assert_ne!(late("950"), late("951"));
    assert_eq!(late("950"), late("950"));
}

#[test]
fn what_stands_is_read_with_its_faults() {
    let case = november([usage("q", TIERS, &[])]);
    for (standing, message) in [
        ("[{}]", "standing[0].bill_to: is missing"),
        (
            r#"[{"bill_to":"a","number":"1","own":true,"lines":[{"key":"k","kind":"odd"}]}]"#,
            "lines of kind odd are not known",
        ),
    ] {
        let fault = case.differences(standing).unwrap_err();
        assert!(fault.message.contains(message), "{}", fault.message);
    }
}

proptest! {
    /// Whatever was billed before and in however many steps, all documents together come to the bill of now, for
    /// every line, entity, minimum and maximum.
    #[test]
    fn documents_sum_to_the_bill_of_now(
        steps in proptest::collection::vec((0u32..2500, 0u32..2500, 0u32..900), 1..6),
        pricing in prop_oneof![
            Just(TIERS),
            Just(r#"{"model":"volume","tiers":[{"up_to":"1000","unit_price":"1"},{"unit_price":"0.7333"}]}"#),
            Just(r#"{"model":"per_unit","unit_price":"0.333","minimum":"700","maximum":"900"}"#),
            Just(r#"{"model":"package","package_size":"250","amount":"3.335"}"#),
        ],
        rounding in prop_oneof![Just("line"), Just("invoice")],
    ) {
        let case = |(a, b, other): (u32, u32, u32)| {
            let used = |dimensions: &str, quantity: u32| used(dimensions, &quantity.to_string(), 1);
            november([priced("q", &format!(r#""pricing":{pricing},"lines_by":["model"]"#), &[
                used(r#"{"model":"a"}"#, a), used(r#"{"model":"b"}"#, b), used(r#"{"model":"a","bill_to":"uk"}"#, other)])])
                .policy("rounding_level", rounding)
        };
        let mut issued = vec![case(steps[0]).documents()];
        for step in &steps[1..] {
            let text = standing(&issued.iter().collect::<Vec<_>>());
            let late = case(*step).differences(&text).unwrap();
            for document in &late.list {
                prop_assert_eq!(document.corrects(), vec![1]);
            }
            issued.push(late);
        }
        let mut sums: std::collections::BTreeMap<String, Exact> = Default::default();
        for line in issued.iter().flat_map(|documents| &documents.list).flat_map(|document| &document.lines) {
            let key = line.difference.as_ref().map_or(&line.key, |difference| &difference.of);
            let sum = sums.entry(key.clone()).or_insert(Exact::ZERO);
            *sum = sum.add(line.amount).unwrap();
        }
        sums.retain(|_, sum| !sum.is_zero());
        let now = case(*steps.last().unwrap()).lines();
        let now = now.iter().filter(|line| !line.amount.is_zero()).map(|line| (line.key.clone(), line.amount)).collect();
        prop_assert_eq!(sums, now);
    }
}
