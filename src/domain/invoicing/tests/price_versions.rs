//! Prices that change inside a period.

use super::*;

const MIDDLE: &str = "2023-11-16T00:00:00Z";

/// 8,000 in the first half of November and 6,000 in the second, with a version of the price for each.
fn halves(first: &'static str, second: &'static str) -> Case {
    let at = |from: &'static str, quantity: &str| Used { from: Some(from), ..used("{}", quantity, 1) };
    let halves = [at("2023-11-01T00:00:00Z", "8000"), at(MIDDLE, "6000")];
    let mut case = november([priced("tokens", r#""price":"tokens""#, &halves)]);
    case.prices = vec![(None, Some(MIDDLE), first), (Some(MIDDLE), None, second)];
    case
}

const V1: &str =
    r#"{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.010"},{"unit_price":"0.006"}]}"#;
const V2: &str =
    r#"{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.008"},{"unit_price":"0.005"}]}"#;

/// rules.md 1: continue 116, reset 128, period_start 124.
#[test]
fn versions_of_tiers_go_on_begin_anew_or_wait() {
    let by = |continuity| halves(V1, V2).policy("tier_continuity", continuity);
    let second = line(&format!("tokens/2023-11-01/from={MIDDLE}"), "36.00");
    assert_eq!(by("continue").shown(), [line("tokens/2023-11-01", "80.00"), second]);
    assert_eq!(by("reset").amounts(), ["80.00", "48.00"]);
    let whole = Used { from: None, ..used("{}", "14000", 2) };
    let start = Case {
        prices: halves(V1, V2).prices,
        ..november([priced("tokens", r#""price":"tokens""#, &[whole])])
    };
    assert_eq!(
        start.policy("tier_continuity", "continue").policy("rate_at", "period_start").amounts(),
        ["124.00"]
    );
    // Billed before there was the policy: the price of the period's start.
    assert_eq!(halves(V1, V2).amounts(), ["124.00"]);

    let text = by("continue").text();
    assert!(text.contains(r#""after":"8000""#), "{text}");
    let document = json::parse(&text).unwrap();
    let told = explain(&Node::root(&document), &Vec::new()).unwrap();
    for leaf in ["for 14,000: 100", "less for the 8,000 before this version: 64"] {
        assert!(told.iter().any(|line| line.contains(leaf)), "{leaf}: {told:#?}");
    }
}

/// Each version's amount is rounded once and split over its lines; the next version goes on from all of them.
#[test]
fn versions_split_over_lines() {
    let at = |from: &'static str, model: &str, quantity: &str| Used {
        from: Some(from),
        ..used(&format!(r#"{{"model":"{model}"}}"#), quantity, 1)
    };
    let (first, second) = ("2023-11-01T00:00:00Z", MIDDLE);
    let usages =
        [at(first, "a", "5000"), at(first, "b", "3000"), at(second, "b", "5999"), at(second, "c", "1")];
    let mut case = november([priced("tokens", r#""price":"tokens","lines_by":["model"]"#, &usages)]);
    case.prices = halves(V1, V2).prices;
    let case = case.policy("tier_continuity", "continue");
    assert_eq!(
        case.shown(),
        [
            line("tokens/2023-11-01/model=a", "50.00"),
            line("tokens/2023-11-01/model=b", "30.00"),
            line("tokens/2023-11-01/model=b/from=2023-11-16T00:00:00Z", "35.99"),
            line("tokens/2023-11-01/model=c/from=2023-11-16T00:00:00Z", "0.01"),
        ]
    );
}

#[test]
fn what_can_not_be_cut_waits_for_the_next_period() {
    let amounts = |first, second| halves(first, second).policy("tier_continuity", "continue").amounts();
    let linear = r#"{"model":"per_unit","unit_price":"0.01"}"#;
    let (flat, dear) = (r#"{"model":"flat","amount":"7"}"#, r#"{"model":"flat","amount":"9"}"#);
    assert_eq!(amounts(flat, dear), ["7.00"]);
    assert_eq!(amounts(flat, linear), ["7.00"]);
    assert_eq!(amounts(linear, flat), ["140.00"]);
    let steps = r#"{"model":"stairstep","tiers":[{"up_to":"10000","amount":"50"},{"amount":"200"}]}"#;
    assert_eq!(amounts(V1, steps), ["124.00"]);
    // A linear version before tiers, and after them: 80 + (10,000 − 8,000) × .008 + 4,000 × .005; 80 + 60.
    assert_eq!(amounts(linear, V2), ["80.00", "36.00"]);
    assert_eq!(amounts(V1, linear), ["80.00", "60.00"]);
    // Minimum and maximum are those of the period's start and act on the lines of all versions.
    let least = r#"{"model":"per_unit","unit_price":"0.02","minimum":"250"}"#;
    let most = r#"{"model":"per_unit","unit_price":"0.02","maximum":"30"}"#;
    assert_eq!(amounts(least, linear), ["160.00", "60.00", "30.00"]);
    assert_eq!(amounts(linear, least), ["80.00", "120.00"]);
    assert_eq!(amounts(most, V2), ["160.00", "36.00", "-166.00"]);
    // An override that begins inside the period takes the place of tiers with the next one, of linear prices at once.
    let half = format!(r#"{{"scope":"contract","meter":"tokens","percent_off":"50","from":"{MIDDLE}"}}"#);
    let under = |first, second| {
        halves(first, second).policy("tier_continuity", "continue").overrides(&half).amounts()
    };
    assert_eq!(under(linear, linear), ["80.00", "30.00"]);
    assert_eq!(under(V1, V1), ["124.00"]);
    // One that holds all the time floats with the list: half of 80, and half of 36.
    let always = r#"{"scope":"contract","meter":"tokens","percent_off":"50"}"#;
    let off = halves(V1, V2).policy("tier_continuity", "continue").overrides(always);
    assert_eq!(off.amounts(), ["40.00", "18.00"]);
}

/// A retired list price is no matter where an override replaces it wholly.
#[test]
fn an_override_with_a_whole_pricing_needs_no_list() {
    let mut case = halves(V1, V1).policy("tier_continuity", "continue");
    case.prices = vec![(None, Some(MIDDLE), V1)];
    assert_eq!(case.compute().unwrap_err().code.sqlstate(), "ZB007");
    let whole =
        r#"{"scope":"contract","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.001"}}"#;
    assert_eq!(case.overrides(whole).amounts(), ["14.00"]);
}

/// Policy unpriced_usage = bill: what has no price is left out and named; once it has one, it can be told.
#[test]
fn what_has_no_price_can_be_left_out() {
    let usages = [used(r#"{"model":"gpt-4"}"#, "1000", 1), used(r#"{"model":"o1"}"#, "5", 2)];
    let case = |policy| november([usage("tokens", MATRIX, &usages)]).policy("unpriced_usage", policy);
    assert_eq!(case("hold").compute().unwrap_err().code.sqlstate(), "ZB007");
    assert_eq!(case("bill").shown(), [line("tokens/2023-11-01/model=gpt-4", "0.03")]);
    let text = case("bill").text();
    let left = r#""unpriced":[{"bill_to":"acme","charge":"tokens","dimensions":{"model":"o1"},"events":2,"from":"2023-11-01T00:00:00Z","meter":"tokens","quantity":"5","reason":"no row of the matrix matches"#;
    assert!(text.contains(left), "{text}");

    // Published since, as if from the middle on: it prices what was left out and nothing else.
    let listed = |known| {
        let at = |from: &'static str, model: &str| Used {
            from: Some(from),
            ..used(&format!(r#"{{"model":"{model}"}}"#), "1000", 1)
        };
        let usages = [at("2023-11-01T00:00:00Z", "gpt-4"), at(MIDDLE, "gpt-4"), at(MIDDLE, "o1")];
        let mut case = november([priced("tokens", r#""price":"tokens""#, &usages)]);
        case.prices = vec![
            (None, Some(MIDDLE), MATRIX),
            (
                Some(MIDDLE),
                None,
                r#"{"model":"matrix","dimensions":["model"],"per":1000,"rows":[{"match":{},"unit_price":"7"}]}"#,
            ),
        ];
        case.known = known;
        case.policy("unpriced_usage", "bill").policy("tier_continuity", "continue")
    };
    let billed = listed(Some(r#"{"list/tokens@1":null},"prices_now":true"#));
    assert_eq!(
        billed.shown(),
        [
            line("tokens/2023-11-01/model=gpt-4", "0.06"),
            line("tokens/2023-11-01/model=o1/from=2023-11-16T00:00:00Z", "7.00"),
        ]
    );
}

/// Before there was a continuity, a version that came inside the period was the next period's where tiers, amounts
/// or bounds run over it; what was billed so is computed so again.
#[test]
fn what_ran_over_the_period_kept_the_price_of_its_start() {
    let half = |at: &'static str| {
        [
            Used { from: Some(at), ..used("{}", "8000", 1) },
            Used { from: Some("2023-11-16T00:00:00Z"), ..used("{}", "6000", 1) },
        ]
    };
    let versions = |first, second| {
        let mut case = november([priced("tokens", r#""price":"tokens""#, &half("2023-11-01T00:00:00Z"))]);
        case.prices =
            vec![(None, Some("2023-11-16T00:00:00Z"), first), (Some("2023-11-16T00:00:00Z"), None, second)];
        case.amounts()
    };
    let graduated = [
        r#"{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.01"},{"unit_price":"0.008"}]}"#,
        r#"{"model":"graduated","tiers":[{"up_to":"10000","unit_price":"0.02"},{"unit_price":"0.016"}]}"#,
    ];
    assert_eq!(versions(graduated[0], graduated[1]), ["132.00"]);
    let linear =
        [r#"{"model":"per_unit","unit_price":"0.01"}"#, r#"{"model":"per_unit","unit_price":"0.02"}"#];
    assert_eq!(versions(linear[0], linear[1]), ["80.00", "120.00"]);
    // one of the two is enough
    assert_eq!(versions(linear[0], graduated[1]), ["140.00"]);
    assert_eq!(versions(graduated[0], linear[1]), ["132.00"]);
    let least = r#"{"model":"per_unit","unit_price":"0.02","minimum":"200"}"#;
    assert_eq!(versions(least, linear[0]), ["280.00"]);
    assert_eq!(versions(linear[0], least), ["140.00"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However usage falls into the versions and lines of a tiered price, the lines of a version sum to its amount,
    /// rounded once; and they hold all that was used.
    #[test]
    fn lines_of_versions_sum_to_their_amounts(
        quantities in proptest::collection::vec(0u64..9_000, 6), reset in any::<bool>(),
        prices in proptest::collection::vec(1u64..999, 6), ends in proptest::collection::vec(1u64..20_000, 3),
    ) {
        let starts = ["2023-11-01T00:00:00Z", "2023-11-11T00:00:00Z", "2023-11-21T00:00:00Z"];
        let usages: Vec<Used> = quantities.iter().enumerate().filter(|(_, units)| **units > 0)
            .map(|(at, units)| Used { from: Some(starts[at % 3]), ..used(&format!(r#"{{"model":"{}"}}"#, at / 3), &units.to_string(), 1) })
            .collect();
        let documents: Vec<&'static str> = (0..3).map(|at| {
            let (low, high) = (prices[at * 2], prices[at * 2 + 1]);
            let text = format!(r#"{{"model":"graduated","tiers":[{{"up_to":"{}","unit_price":"0.{low:03}"}},{{"unit_price":"0.{high:03}"}}]}}"#, ends[at]);
            &*text.leak()
        }).collect();
        let mut case = november([priced("tokens", r#""price":"tokens","lines_by":["model"]"#, &usages)]);
        case.prices = (0..3).map(|at| (starts.get(at).filter(|_| at > 0).copied(), starts.get(at + 1).copied(), documents[at])).collect();
        let lines = case.policy("tier_continuity", if reset { "reset" } else { "continue" }).lines();
        // By hand, in thousandths: what the first n units cost under a version.
        let cost = |version: usize, units: u64| {
            let low = units.min(ends[version]);
            low * prices[version * 2] + (units - low) * prices[version * 2 + 1]
        };
        let mut before = 0;
        for (version, start) in starts.iter().enumerate() {
            let units = quantities[version] + quantities[version + 3];
            let thousandths = if reset { cost(version, units) } else { cost(version, before + units) - cost(version, before) };
            before += units;
            let of_version: Vec<&Line> = lines.iter().filter(|line| line.from == instant(start)).collect();
            let posted = of_version.iter().fold(Exact::ZERO, |sum, line| sum.add(line.amount).unwrap());
            prop_assert_eq!(posted, Exact::from_parts(((thousandths + 5) / 10).into(), 2).unwrap());
            let counted = of_version.iter().fold(Exact::ZERO, |sum, line| sum.add(line.quantity.unwrap()).unwrap());
            prop_assert_eq!(counted, Exact::from_i64(units as i64));
        }
    }

    /// definitions 7 and 8: minimum and maximum stay under a percentage off and under a unit price, so the lines
    /// sum to the amounts between the bounds, whichever models were used.
    #[test]
    fn bounds_hold_under_overrides(
        used_cents in proptest::collection::vec(0i64..20_000, 3), percent in 0i64..=100, price_cents in 0i64..300,
        minimum in 0i64..200, above in 0i64..200,
    ) {
        let maximum = minimum + above;
        let list = format!(r#"{{"model":"per_unit","unit_price":"1","minimum":"{minimum}","maximum":"{maximum}"}}"#);
        let usages: Vec<Used> = ["a", "b", "c"].iter().zip(&used_cents).filter(|(_, cents)| **cents > 0)
            .map(|(model, cents)| used(&format!(r#"{{"model":"{model}"}}"#), &format!("{}.{:02}", cents / 100, cents % 100), 1)).collect();
        let overrides = format!(
            r#"{{"scope":"contract","meter":"m","match":{{"model":"a"}},"percent_off":"{percent}"}},
               {{"scope":"customer","meter":"m","match":{{"model":"b"}},"unit_price":"{}.{:02}"}}"#, price_cents / 100, price_cents % 100);
        let lines = november([usage("m", &list, &usages)]).overrides(&overrides).lines();
        // in units of 0.0001, half up to 0.01
        let cents = |amount: i64| (amount + 50) / 100;
        let posted = cents(used_cents[0] * (100 - percent)) + cents(used_cents[1] * price_cents) + used_cents[2];
        let expected = posted.clamp(minimum * 100, maximum * 100);
        let total = lines.iter().fold(Exact::ZERO, |sum, line| sum.add(line.amount).unwrap());
        prop_assert_eq!(total, Exact::from_parts(expected.into(), 2).unwrap());
        let keys: std::collections::BTreeSet<_> = lines.iter().map(|line| &line.key).collect();
        prop_assert_eq!(keys.len(), lines.len());
    }
}
