use super::sum::UNITS;
use super::*;
use crate::domain::foundation::hash::text_key;
use num_bigint::BigInt;
use num_rational::BigRational;
use proptest::prelude::*;

fn x(text: &str) -> Exact {
    Exact::parse(text).unwrap()
}

fn sum(values: &[&str]) -> Sum {
    let mut sum = Sum::default();
    values.iter().for_each(|value| sum.add(x(value)).unwrap());
    sum
}

#[test]
fn sums_are_exact_at_every_size() {
    let most = "9999999999999999999999999999";
    for (values, expected) in [
        (vec![], "0"),
        (vec!["0.1", "0.2"], "0.3"),
        (vec!["-0.5"], "-0.5"),
        (vec!["-0.5", "-0.5"], "-1"),
        (vec!["-1.25", "1"], "-0.25"),
        (vec!["0.000000000001", "-0.000000000001"], "0"),
        (vec![most], most),
        (vec![most, most], "19999999999999999999999999998"),
        (vec![most, "0.000000000001"], "9999999999999999999999999999.000000000001"),
        (
            vec!["-9999999999999999999999999999", "-0.000000000001"],
            "-9999999999999999999999999999.000000000001",
        ),
        (vec![most, most, "-9999999999999999999999999999"], most),
    ] {
        let sum = sum(&values);
        assert_eq!(sum.to_string(), expected, "{values:?}");
        assert_eq!(sum.to_exact().map(|e| e.to_string()), Exact::parse(expected).ok().map(|e| e.to_string()));
        let parts = sum.to_parts();
        let mut again = Sum::default();
        parts.iter().for_each(|part| again.add(*part).unwrap());
        assert_eq!(again, sum);
        assert!(parts.len() <= values.len().max(1), "{parts:?}");
    }
    assert!(Sum::default().add(x("0.0000000000001")).unwrap_err().message.contains("12 digits"));
}

#[test]
fn a_sum_refuses_to_overflow() {
    for whole in [i128::MAX, i128::MIN] {
        let full = Sum { whole, fraction: 0 };
        let mut more = full;
        assert_eq!(more.merge(full).unwrap_err().code, Code::Bound);
        assert_eq!(more, full);
        assert_eq!(full.to_exact(), None);
        assert_eq!(full.to_string(), whole.to_string());
    }
    let mut brim = Sum { whole: i128::MAX, fraction: UNITS - 1 };
    assert!(brim.add(x("0.000000000001")).is_err());
    assert!(brim.add(x("-0.000000000001")).is_ok());
}

/// `n` minutes into an hour, by the event of that number.
fn when(n: u8) -> When {
    let into = i64::from(n) * 60_000_000;
    When { position: Position { at: Instant(into), event_key: text_key(&n.to_string()) }, into }
}

fn number(text: &str) -> Contribution {
    Contribution::Number(x(text))
}

fn state(kind: Kind, contributions: &[(Contribution, u8)]) -> State {
    let mut state = State::new(kind);
    contributions.iter().for_each(|(contribution, n)| state.add(*contribution, &when(*n)).unwrap());
    state
}

fn total(state: &State) -> Option<String> {
    state.quantity(&Asked::Total).unwrap().map(|quantity| quantity.to_string())
}

const KINDS: [Kind; 10] = [
    Kind::Count,
    Kind::Sum,
    Kind::Max,
    Kind::Unique,
    Kind::Min,
    Kind::Average,
    Kind::Latest,
    Kind::Level,
    Kind::Values,
    Kind::Presence,
];

fn asked(kind: Kind) -> Asked {
    match kind {
        Kind::Level => {
            Asked::Stretch { from: Instant(0), until: Instant(HOUR_MICROS as i64), unit: HOUR_MICROS }
        }
        Kind::Values => Asked::Percentile(Percentile::new(x("99")).unwrap()),
        _ => Asked::Total,
    }
}

#[test]
fn states_of_no_events() {
    let nothing =
        |kind| State::new(kind).quantity(&asked(kind)).unwrap().map(|quantity| quantity.to_string());
    for kind in KINDS {
        let expected = match kind {
            Kind::Count | Kind::Sum | Kind::Unique | Kind::Presence | Kind::Level => Some("0".to_string()),
            _ => None,
        };
        assert_eq!(nothing(kind), expected, "{kind:?}");
        assert_eq!(State::new(kind).kind(), kind);
    }
    assert_eq!(Aggregation::WORDS.map(|word| Aggregation::parse(word).unwrap().word()), Aggregation::WORDS);
    assert_eq!(Aggregation::parse("avg"), None);
}

#[test]
fn quantities() {
    let values = [("1", 5), ("-2", 1), ("10", 3), ("0.5", 2)].map(|(value, at)| (number(value), at));
    assert_eq!(total(&state(Kind::Sum, &values)).unwrap(), "9.5");
    assert_eq!(total(&state(Kind::Max, &values)).unwrap(), "10");
    assert_eq!(total(&state(Kind::Min, &values)).unwrap(), "-2");
    assert_eq!(total(&state(Kind::Average, &values)).unwrap(), "2.375");
    assert_eq!(total(&state(Kind::Latest, &values)).unwrap(), "1");
    assert_eq!(total(&state(Kind::Count, &values)).unwrap(), "4");
    // an average is divided once: 1/3 + 1/3 + 1/3 of 1 is not what it is
    let thirds = [(number("1"), 0), (number("0"), 1), (number("0"), 2)];
    assert_eq!(total(&state(Kind::Average, &thirds)).unwrap(), "0.333333333333");
    // more digits than an amount may have are still exact
    let most = "9999999999999999999999999999";
    assert_eq!(
        total(&state(Kind::Average, &[(number(most), 0), (number("0.5"), 1)])).unwrap(),
        "4999999999999999999999999999.75"
    );
    assert_eq!(state(Kind::Max, &[(number("0.0000000000000000000000000001"), 0)]).kind(), Kind::Max);
    assert!(State::new(Kind::Sum).quantity(&asked(Kind::Level)).is_err());
    assert!(State::new(Kind::Level).quantity(&Asked::Total).is_err());
}

#[test]
fn the_last_is_last_by_time_then_key_then_value() {
    let at = |minute: u8, key: &str| When {
        position: Position { at: Instant(i64::from(minute)), event_key: text_key(key) },
        into: 0,
    };
    let keys = if text_key("a") > text_key("b") { ["a", "b"] } else { ["b", "a"] };
    let mut last = State::new(Kind::Latest);
    for (value, when) in [("5", at(1, keys[0])), ("7", at(1, keys[1])), ("9", at(0, keys[0]))] {
        last.add(number(value), &when).unwrap();
    }
    assert_eq!(total(&last).unwrap(), "5");
    last.add(number("6"), &at(1, keys[0])).unwrap();
    assert_eq!(total(&last).unwrap(), "6");
}

#[test]
fn levels_are_weighted_by_time() {
    // 10 from the start, 5 more after 15 minutes, all gone after 45: 10·¼ + 15·½ + 0·¼
    let level = state(Kind::Level, &[(number("10"), 0), (number("5"), 15), (number("-15"), 45)]);
    let hour = HOUR_MICROS as i64;
    let over = |until: i64, unit: u64| {
        let asked = Asked::Stretch { from: Instant(0), until: Instant(until), unit };
        level.quantity(&asked).unwrap().unwrap().to_string()
    };
    assert_eq!(over(hour, HOUR_MICROS), "10");
    assert_eq!(over(2 * hour, HOUR_MICROS), "10");
    assert_eq!(over(hour, 1_000_000), "36000");
    // one more, and it stays
    let State::Level(mut more) = level.clone() else { panic!() };
    more.add(x("1"), hour).unwrap();
    assert_eq!(more.integral(3 * hour).over(HOUR_MICROS).to_string(), "12");
    // the same, wherever the stretch begins
    let later = Asked::Stretch { from: Instant(5 * hour), until: Instant(8 * hour), unit: HOUR_MICROS };
    assert_eq!(State::Level(more).quantity(&later).unwrap().unwrap().to_string(), "12");
}

#[test]
fn ranks_are_the_nearest() {
    // rules.md 10.3: 713 of 720, 737 of 744
    for (percent, n, rank) in [
        ("99", 720, 713),
        ("99", 744, 737),
        ("99", 721, 714),
        ("50", 1, 1),
        ("100", 7, 7),
        ("0.000000000001", 7, 1),
        ("50", 4, 2),
        ("50", 5, 3),
    ] {
        assert_eq!(Percentile::new(x(percent)).unwrap().rank(n), rank, "{percent} of {n}");
    }
    for bad in ["0", "-1", "100.000000000001", "99.9999999999999"] {
        assert!(Percentile::new(x(bad)).is_err(), "{bad}");
    }
    let values = state(Kind::Values, &[3, 1, 2, 2, 9].map(|n| (number(&n.to_string()), 0)));
    let at = |percent: &str| {
        let asked = Asked::Percentile(Percentile::new(x(percent)).unwrap());
        values.quantity(&asked).unwrap().unwrap().to_string()
    };
    assert_eq!(["20", "21", "60", "61", "80", "81", "100"].map(at), ["1", "2", "2", "3", "3", "9", "9"]);
}

#[test]
fn the_last_operation_decides() {
    let key = |n: u8| text_key(&format!("seat {n}"));
    let add = |n| Contribution::Operation { key: key(n), removed: false };
    let remove = |n| Contribution::Operation { key: key(n), removed: true };
    let seats =
        [(remove(1), 9), (add(1), 3), (add(2), 4), (remove(2), 5), (add(2), 6), (remove(3), 1), (add(4), 0)];
    assert_eq!(total(&state(Kind::Presence, &seats)).unwrap(), "2");
    // at one position a removal is last, whichever came first
    assert_eq!(total(&state(Kind::Presence, &[(remove(1), 1), (add(1), 1)])).unwrap(), "0");
    assert_eq!(total(&state(Kind::Presence, &[(add(1), 1), (remove(1), 1)])).unwrap(), "0");
}

#[test]
fn kinds_do_not_mix() {
    let mut count = State::new(Kind::Count);
    assert!(
        count
            .merge(State::new(Kind::Max))
            .unwrap_err()
            .message
            .contains("a max can't be merged into a count")
    );
    assert!(State::new(Kind::Unique).add(Contribution::One, &when(0)).is_err());
    assert!(State::new(Kind::Latest).add(Contribution::One, &when(0)).is_err());
    assert!(State::new(Kind::Presence).add(number("1"), &when(0)).is_err());
    assert_eq!(count, State::new(Kind::Count));
    let mut full = State::Count(u64::MAX);
    assert!(full.add(Contribution::One, &when(0)).is_err() && full.merge(State::Count(1)).is_err());
    assert_eq!(full, State::Count(u64::MAX));
    let mut full = State::Values(BTreeMap::from([(x("1"), u64::MAX)]));
    assert!(full.merge(full.clone()).is_err() && full.add(number("1"), &when(0)).is_err());
    assert_eq!(full, State::Values(BTreeMap::from([(x("1"), u64::MAX)])));
}

#[test]
fn one_group_asks_one_thing() {
    let running = |asked: Asked, kind: Kind| Running { state: State::new(kind), asked };
    let percentile = |text: &str| Asked::Percentile(Percentile::new(x(text)).unwrap());
    let mut one = running(percentile("99"), Kind::Values);
    assert!(one.merge(running(percentile("99"), Kind::Values)).is_ok());
    let fault = one.merge(running(percentile("50"), Kind::Values)).unwrap_err();
    assert_eq!(fault.message, "one group asks for the percentiles 99 and 50");
    let hour = asked(Kind::Level);
    let other = Asked::Stretch { from: Instant(0), until: Instant(1), unit: HOUR_MICROS };
    let fault = running(hour, Kind::Level).merge(running(other, Kind::Level)).unwrap_err();
    assert!(
        fault.message.starts_with("one group asks for the stretches 1970-01-01T00:00:00Z to"),
        "{fault:?}"
    );
    assert!(running(hour, Kind::Level).merge(running(Asked::Total, Kind::Level)).is_err());
}

/// Stored for ever, so these never change.
#[test]
fn golden_bytes() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let of = |state: State| hex(state.to_bytes());
    assert_eq!(of(State::Count(258)), "01000000000000000102");
    assert_eq!(of(State::Sum(sum(&["-0.5"]))), "0101ffffffffffffffffffffffffffffffff000000746a528800");
    assert_eq!(of(State::Max(None)), "0102");
    assert_eq!(of(State::Max(Some(x("1.5")))), "01020000000000000000000000000000000f01");
    let keys = BTreeSet::from([text_key("abc"), text_key("018f4e2a-7c1b-7def-8a2b-0123456789ab")]);
    assert_eq!(
        of(State::Unique(keys)),
        "0103018f4e2a7c1b7def8a2b0123456789abba7816bf8f018fea814140de5dae2223"
    );
    assert_eq!(of(State::Min(Some(x("-1.5")))), "0104fffffffffffffffffffffffffffffff101");
    let half = "00000000000000000000000000000000000000746a528800";
    assert_eq!(of(State::Average { events: 2, sum: sum(&["0.5"]) }), format!("01050000000000000002{half}"));
    let position = Position { at: Instant(258), event_key: text_key("abc") };
    let written = "0000000000000102ba7816bf8f018fea814140de5dae2223";
    assert_eq!(
        of(State::Latest(Some(Last { position, value: x("1.5") }))),
        format!("0106{written}0000000000000000000000000000000f01")
    );
    let when = When { position, into: 3 };
    let mut level = State::new(Kind::Level);
    assert_eq!(of(level.clone()), format!("0107{}", "00".repeat(24)));
    level.add(number("0.5"), &when).unwrap();
    // 3 × 0.5 in units of 10^-12
    assert_eq!(of(level), format!("0107{half}015d3ef79800"));
    assert_eq!(
        of(state(Kind::Values, &[(number("1.5"), 0), (number("1.50"), 1)])),
        "01080000000000000000000000000000000f010000000000000002"
    );
    let presence =
        State::Presence(BTreeMap::from([(text_key("abc"), Operation { position, removed: true })]));
    assert_eq!(of(presence), format!("0109ba7816bf8f018fea814140de5dae2223{written}01"));
    let of = |state: State, asked: Asked| hex(Running { state, asked }.to_bytes());
    assert_eq!(of(State::Count(1), Asked::Total), "0001000000000000000001");
    assert_eq!(
        of(State::new(Kind::Values), asked(Kind::Values)),
        "010000000000000000000000000000006300".to_string() + "0108"
    );
    assert_eq!(
        of(State::new(Kind::Latest), asked(Kind::Level)),
        "02000000000000000000000000d693a40000000000d693a4000106"
    );
}

#[test]
fn hostile_bytes_are_refused() {
    let good = State::Sum(sum(&["1.5"])).to_bytes();
    let mut negative = good.clone();
    negative[18] = 0x80;
    let mut large = good.clone();
    large[18..].copy_from_slice(&UNITS.to_be_bytes());
    let mut other_version = good.clone();
    other_version[0] = 2;
    let max = |mantissa: i128, scale: u8| [&[1, 2][..], &mantissa.to_be_bytes(), &[scale]].concat();
    let key = |n: u8| [n; 16];
    let value = |mantissa: i128, n: u64| [&mantissa.to_be_bytes()[..], &[0], &n.to_be_bytes()].concat();
    let operation = |n: u8, removed: u8| [&key(n)[..], &[0; 24], &[removed]].concat();
    for bytes in [
        vec![],
        vec![1],
        vec![1, 0],
        vec![1, 10],
        vec![1, 255, 0],
        good[..25].to_vec(),
        [&good[..], &[0]].concat(),
        other_version,
        negative,
        large,
        max(10, 1),
        max(1, 29),
        max(i128::MIN, 0),
        max(10i128.pow(28), 0),
        [&[1, 3][..], &key(1)[..15]].concat(),
        [&[1, 3][..], &key(2), &key(1)].concat(),
        [&[1, 3][..], &key(1), &key(1)].concat(),
        [&[1, 5][..], &[0; 8]].concat(),
        [&[1, 6][..], &[0; 24]].concat(),
        [&[1, 7][..], &[0; 24], &[0]].concat(),
        [&[1, 7][..], &[0; 24], &[0, 1]].concat(),
        [&[1, 8][..], &value(1, 0)].concat(),
        [&[1, 8][..], &value(2, 1), &value(1, 1)].concat(),
        [&[1, 8][..], &value(1, 1), &value(1, 1)].concat(),
        [&[1, 9][..], &operation(1, 2)].concat(),
        [&[1, 9][..], &operation(2, 0), &operation(1, 0)].concat(),
    ] {
        assert!(State::from_bytes(&bytes).is_err(), "{bytes:?}");
    }
    assert!(State::from_bytes(&good).is_ok() && State::from_bytes(&max(15, 1)).is_ok());
    assert!(State::from_bytes(&State::Sum(Sum { whole: i128::MIN, fraction: 0 }).to_bytes()).is_ok());
    let count = State::Count(1).to_bytes();
    let mut no_unit = Running { state: State::Count(1), asked: asked(Kind::Level) }.to_bytes();
    no_unit[17..25].fill(0);
    let mut no_percentile = Running { state: State::Count(1), asked: asked(Kind::Values) }.to_bytes();
    no_percentile[1..18].fill(0);
    for bytes in [vec![], count, vec![0], vec![3], vec![1, 0], vec![2, 0], no_unit, no_percentile] {
        assert!(Running::from_bytes(&bytes).is_err(), "{bytes:?}");
    }
}

fn any_number() -> impl Strategy<Value = Exact> {
    prop_oneof![
        (-1000i64..1000, 0u32..=12).prop_map(|(m, s)| Exact::from_parts(m.into(), s).unwrap()),
        (-(10i128.pow(28) - 1)..10i128.pow(28), 0u32..=12)
            .prop_map(|(m, s)| Exact::from_parts(m, s).unwrap()),
    ]
}

fn any_contributions() -> impl Strategy<Value = (Kind, Vec<(Contribution, u8)>)> {
    let key = |n: u8| text_key(&n.to_string());
    let one = move |kind: Kind| match kind {
        Kind::Count => Just(Contribution::One).boxed(),
        Kind::Unique => (0u8..10).prop_map(move |n| Contribution::Key(key(n))).boxed(),
        Kind::Presence => (0u8..4, any::<bool>())
            .prop_map(move |(n, removed)| Contribution::Operation { key: key(n), removed })
            .boxed(),
        _ => any_number().prop_map(Contribution::Number).boxed(),
    };
    (0..KINDS.len())
        .prop_flat_map(move |at| (Just(KINDS[at]), prop::collection::vec((one(KINDS[at]), 0u8..60), 0..20)))
}

fn rational(value: Exact) -> BigRational {
    BigRational::new(value.mantissa().into(), BigInt::from(10).pow(value.scale()))
}

proptest! {
    /// However the events are dealt out to states and in whatever order these merge, the bytes are the same.
    #[test]
    fn any_split_and_order_gives_the_same(
        (kind, contributions) in any_contributions(),
        deal in prop::collection::vec(0usize..5, 20),
        order in Just([0usize, 1, 2, 3, 4]).prop_shuffle(),
        shuffled in Just((0..20usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let whole = state(kind, &contributions);
        let mut parts = vec![State::new(kind); 5];
        // the parts see the events in another order, too
        for i in shuffled.into_iter().filter(|i| *i < contributions.len()) {
            let (contribution, n) = contributions[i];
            parts[deal[i]].add(contribution, &when(n)).unwrap();
        }
        let mut merged = Running { state: State::new(kind), asked: asked(kind) };
        for i in order {
            // every part takes the way through its stored form
            let part = Running { state: parts[i].clone(), asked: asked(kind) };
            merged.merge(Running::from_bytes(&part.to_bytes()).unwrap()).unwrap();
        }
        prop_assert_eq!(merged.state.to_bytes(), whole.to_bytes());
        prop_assert_eq!(merged.state.quantity(&asked(kind)).unwrap(), whole.quantity(&asked(kind)).unwrap());
        prop_assert_eq!(merged.state, whole);
    }

    /// Merging is associative and commutative on any three parts.
    #[test]
    fn merging_has_no_order(
        (kind, contributions) in any_contributions(),
        cuts in (0usize..20, 0usize..20),
    ) {
        let (a, b) = (cuts.0.min(cuts.1).min(contributions.len()), cuts.0.max(cuts.1).min(contributions.len()));
        let parts = [&contributions[..a], &contributions[a..b], &contributions[b..]].map(|part| state(kind, part));
        let merge = |one: &State, two: &State| {
            let mut merged = one.clone();
            merged.merge(two.clone()).unwrap();
            merged
        };
        let [one, two, three] = &parts;
        prop_assert_eq!(merge(&merge(one, two), three), merge(one, &merge(two, three)));
        prop_assert_eq!(merge(one, two), merge(two, one));
    }

    /// A level over a stretch is the sum over its pieces, and what is taken off again was never there.
    #[test]
    fn levels_add_over_time_and_can_be_taken_back(
        changes in prop::collection::vec((-1000i64..1000, 0u32..=3, 0i64..1000), 0..20),
        cut in 0i64..2000,
        taken in 0usize..20,
    ) {
        let value = |m: i64, s: u32| Exact::from_parts(m.into(), s).unwrap();
        let mut level = Level::default();
        let mut area = BigRational::from_integer(0.into());
        for (m, s, into) in &changes {
            level.add(value(*m, *s), *into).unwrap();
            area += rational(value(*m, *s)) * BigInt::from((2000 - into).max(0));
        }
        let whole = level.integral(2000);
        prop_assert_eq!(BigRational::new(whole.to_string().replace('.', "").parse().unwrap(),
            BigInt::from(10).pow(whole.to_string().split_once('.').map_or(0, |(_, f)| f.len() as u32))), area);
        // up to the cut, and from it on with everything before counted at the cut
        let mut first = Level::default();
        let mut second = Level::default();
        for (m, s, into) in &changes {
            if *into < cut {
                first.add(value(*m, *s), *into).unwrap();
            }
            second.add(value(*m, *s), (*into).max(cut) - cut).unwrap();
        }
        let mut sum = first.integral(cut);
        sum.add(&second.integral(2000 - cut));
        prop_assert_eq!(sum, whole.clone());
        let mut without = level.clone();
        for (m, s, into) in changes.iter().skip(taken) {
            without.add(value(*m, *s).neg(), *into).unwrap();
        }
        let mut kept = Level::default();
        changes.iter().take(taken).for_each(|(m, s, into)| kept.add(value(*m, *s), *into).unwrap());
        prop_assert_eq!(without, kept);
    }

    /// The value at a rank is the one that stands there when all are sorted.
    #[test]
    fn percentiles_agree_with_sorting(values in prop::collection::vec(any_number(), 1..40), percent in 1u32..=1000) {
        let percentile = Percentile::new(Exact::from_parts(percent.into(), 1).unwrap()).unwrap();
        let contributions: Vec<_> = values.iter().map(|value| (Contribution::Number(*value), 0)).collect();
        let found = state(Kind::Values, &contributions).quantity(&Asked::Percentile(percentile)).unwrap();
        let mut sorted = values.clone();
        sorted.sort();
        let rank = (percent as usize * values.len()).div_ceil(1000);
        prop_assert_eq!(found, Some(Quantity::Exact(sorted[rank - 1])));
    }

    #[test]
    fn sums_agree_with_rationals(values in prop::collection::vec(any_number(), 0..20)) {
        let mut sum = Sum::default();
        let mut exact = BigRational::from_integer(0.into());
        for value in values {
            sum.add(value).unwrap();
            exact += rational(value);
        }
        let parts: BigRational = sum.to_parts().into_iter().map(rational).sum();
        prop_assert_eq!(&parts, &exact);
        if let Some(one) = sum.to_exact() {
            prop_assert_eq!(sum.to_parts().len(), 1);
            prop_assert_eq!(sum.to_string(), one.to_string());
            prop_assert_eq!(rational(one), exact);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (0u8..12, prop::collection::vec(any::<u8>(), 0..80)).prop_map(|(kind, rest)| [&[1, kind][..], &rest].concat()),
    ]) {
        if let Ok(state) = State::from_bytes(&bytes) {
            let _ = (state.quantity(&asked(state.kind())), format!("{state:?}"));
            prop_assert_eq!(state.to_bytes(), bytes.clone());
        }
        if let Ok(running) = Running::from_bytes(&bytes) {
            prop_assert_eq!(running.to_bytes(), bytes);
        }
    }
}
