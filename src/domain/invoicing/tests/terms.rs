//! Terms that change inside a service period, and what becomes of what was billed ahead.

use super::*;

/// A fee of 30 a day in November, from and until days of it (0 = all of the contract's time).
fn fee_during(amount: &str, from: u32, until: u32) -> Charge {
    let edge = |name: &str, day: u32| match day {
        0 => String::new(),
        _ => format!(r#""{name}":["2023-11-{day:02}","2023-11-{day:02}T00:00:00Z",false],"#),
    };
    let terms =
        format!(r#"{{"key":"platform","product":"p","pricing":{{"model":"flat","amount":"{amount}"}}}}"#);
    let (from, until) = (edge("from", from), edge("until", until));
    Charge {
        row: format!(r#""product":"p","every":"1 month",{from}{until}"terms":{terms}"#),
        usage: Vec::new(),
    }
}

/// In advance for November.
fn paid(charges: impl IntoIterator<Item = Charge>) -> Case {
    Case { boundaries: "[0]", ..november(charges) }
}

fn served(documents: &Documents) -> Vec<(String, String, String, String)> {
    let lines = documents.list.iter().flat_map(|document| &document.lines);
    let day = |at: Instant| at.to_string()[5..10].to_string();
    let amount = |line: &Line| line.amount.to_fixed(2).unwrap();
    lines.map(|line| (line.kind.as_str().into(), day(line.from), day(line.until), amount(line))).collect()
}

fn service(kind: &str, from: &str, until: &str, amount: &str) -> (String, String, String, String) {
    (kind.into(), from.into(), until.into(), amount.into())
}

/// Upgrade on the 16th, then found to have been on the 11th: each time what is left of what was paid is given back for
/// the time it is not served, and what takes its place is charged.
#[test]
fn a_change_gives_back_the_rest_and_charges_what_takes_its_place() {
    let first = paid([fee_during("100", 0, 0)]);
    let second = paid([fee_during("100", 0, 16), fee_during("300", 16, 0)]);
    let third = paid([fee_during("100", 0, 11), fee_during("300", 11, 0)]);
    let (one, two) = (first.documents(), second.differences(&standing(&[&first.documents()])).unwrap());
    assert_eq!(
        served(&two),
        [service("proration", "11-16", "12-01", "-50.00"), service("proration", "11-16", "12-01", "150.00")]
    );
    let three = third.differences(&standing(&[&one, &two])).unwrap();
    assert_eq!(
        served(&three),
        [
            service("proration", "11-11", "11-16", "-16.67"),
            service("proration", "11-11", "12-01", "200.00"),
            service("proration", "11-16", "12-01", "-150.00"),
        ]
    );
    // Taken back altogether.
    let back = first.differences(&standing(&[&one, &two, &three])).unwrap();
    assert_eq!(
        served(&back),
        [service("proration", "11-11", "12-01", "66.67"), service("proration", "11-11", "12-01", "-200.00")]
    );
    assert!(first.differences(&standing(&[&one, &two, &three, &back])).unwrap().list.is_empty());
}

/// What a change to come makes of a fee that is paid for is due with its day, and until then it is said to be waiting.
#[test]
fn what_begins_later_is_not_due_yet() {
    let stands = standing(&[&paid([fee_during("100", 0, 0)]).documents()]);
    let now = paid([fee_during("100", 0, 16), fee_during("300", 16, 0)]);
    let due = |until: &str| {
        let main = now.contract_apart().replace(
            r#""boundaries":[]"#,
            &format!(r#""boundaries":[],"usage_until":"2023-11-{until}T00:00:00Z""#),
        );
        let contract = now.contract();
        now.around(Batch::open([opened(&main, false, None), opened(&contract, true, Some(&stands))]), false)
            .unwrap()
    };
    let (before, on) = (due("15"), due("16"));
    assert!(before.list.is_empty());
    assert_eq!((before.left_out(None), on.left_out(None)), (vec![0], vec![]));
    assert_eq!(served(&on).len(), 2);
}

/// Where nothing is prorated, what takes the place of other terms inside a period costs nothing in it.
#[test]
fn what_is_not_prorated_is_paid_once() {
    let case = paid([fee_during("100", 0, 16), fee_during("300", 16, 0)]).policy("proration_basis", "none");
    assert_eq!(case.amounts(), ["100.00"]);
    let begins = paid([fee_during("300", 16, 0)]).policy("proration_basis", "none");
    assert_eq!(begins.amounts(), ["300.00"]);
}

proptest! {
    /// However often terms change and whatever was billed in between, the documents sum to what the terms of now come to.
    #[test]
    fn prorations_sum_to_the_bill_of_now(changes in proptest::collection::vec((2u32..30, 0u32..500, 0u32..500), 1..6)) {
        let mut documents = vec![paid([fee_during("310", 0, 0)]).documents()];
        let mut now = Vec::new();
        for (day, before, after) in changes {
            let case = paid([fee_during(&before.to_string(), 0, day), fee_during(&after.to_string(), day, 0)]);
            let stands = standing(&documents.iter().collect::<Vec<_>>());
            documents.push(case.differences(&stands).unwrap());
            now = case.lines();
            let again = standing(&documents.iter().collect::<Vec<_>>());
            prop_assert!(case.differences(&again).unwrap().list.is_empty());
        }
        let sum = |lines: &mut dyn Iterator<Item = Exact>| lines.fold(Exact::ZERO, |sum, amount| sum.add(amount).unwrap());
        let billed = sum(&mut documents.iter().flat_map(|d| &d.list).flat_map(|d| &d.lines).map(|line| line.amount));
        prop_assert_eq!(billed, sum(&mut now.iter().map(|line| line.amount)));
        let lines = documents.iter().flat_map(|d| &d.list).flat_map(|d| &d.lines);
        for line in lines {
            prop_assert!(line.from < line.until);
            prop_assert!(line.from >= instant("2023-11-01T00:00:00Z") && line.until <= instant("2023-12-01T00:00:00Z"));
        }
    }

    /// Amounts off never take more than they are, nor a line below 0, and the shares sum to what is taken.
    #[test]
    fn amounts_off_take_what_they_are(fees in proptest::collection::vec(0u32..200, 1..5), off in 0u32..600, percent in 0u32..101) {
        let charge = |(n, amount): (usize, &u32)| Charge {
            row: format!(r#""product":"p","every":"1 month","terms":{{"key":"f{n}","product":"p","pricing":{{"model":"flat","amount":"{amount}"}}}}"#),
            usage: Vec::new(),
        };
        let case = paid(fees.iter().enumerate().map(charge));
        let discounts = format!(r#""discounts":[{{"terms":{{"key":"a","amount_off":"{off}"}}}},{{"terms":{{"key":"b","percent_off":"{percent}"}}}}],"charges""#);
        let contract = case.contract().replace(r#""charges""#, &discounts);
        let documents = case.around(Batch::open([opened(&contract, false, None)]), true).unwrap();
        let cents = |line: &Line| line.amount.mul(Exact::from_i64(100)).unwrap().to_i64().unwrap();
        let lines: Vec<i64> = documents.list.iter().flat_map(|d| &d.lines).map(cents).collect();
        let left: i64 = fees.iter().map(|fee| i64::from(*fee) * i64::from(100 - percent)).sum();
        prop_assert!(lines.iter().all(|line| *line >= 0));
        prop_assert_eq!(lines.iter().sum::<i64>(), (left - i64::from(off) * 100).max(0));
    }
}
