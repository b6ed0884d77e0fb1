use super::*;
use crate::domain::foundation::hash::text_key;
use crate::domain::foundation::json::{self, Node, Tree};
use crate::domain::ingestion::reason;
use crate::domain::metering::meters::Version;
use crate::domain::metering::{Aggregation, Contribution, Kind, Measured, Meter};
use num_bigint::BigInt;
use num_rational::BigRational;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn meter(text: &str) -> Meter {
    let tree = json::parse(text).unwrap();
    Meter::read(&Node::root(&tree)).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn meters(texts: &[&str]) -> Arc<Meters> {
    Arc::new(Meters::new(texts.iter().zip(1..).map(|(text, id)| Version::only(id, meter(text)))))
}

const TOKENS: &str =
    r#"{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"]}"#;
const REQUESTS: &str =
    r#"{"key":"requests","event_type":"llm","aggregation":"count","dimensions":["model"]}"#;
const PEAK: &str =
    r#"{"key":"peak","event_type":"llm","aggregation":"max","value":"n","dimensions":["region","model"]}"#;
const USERS: &str = r#"{"key":"users","event_type":"llm","aggregation":"unique_count","value":"user","filter":{"user":{"exists":true}}}"#;
const REGIONS: &str = r#"{"key":"regions","event_type":"llm","aggregation":"count","dimensions":["region"]}"#;
const LOWEST: &str =
    r#"{"key":"lowest","event_type":"llm","aggregation":"min","value":"n","dimensions":["region","model"]}"#;
const MEAN: &str =
    r#"{"key":"mean","event_type":"llm","aggregation":"average","value":"n","dimensions":["model"]}"#;
const LAST: &str =
    r#"{"key":"last","event_type":"llm","aggregation":"latest","value":"n","dimensions":["model"]}"#;
const STORED: &str = r#"{"key":"stored","event_type":"llm","aggregation":"weighted_sum","value":"n"}"#;
const RANKED: &str =
    r#"{"key":"ranked","event_type":"llm","aggregation":"percentile","percentile":"99","value":"n"}"#;
const SEATS: &str =
    r#"{"key":"seats","event_type":"llm","aggregation":"unique_count","value":"user","operation":"op"}"#;
const PEAKS: &str = r#"{"key":"peaks","event_type":"llm","aggregation":"sum","per":{"bucket":"hour","aggregation":"max"},"value":"n"}"#;
const LABELLED: &str = r#"{"key":"labelled","event_type":"llm","aggregation":"count","filters":[{"name":"a","filter":{"model":"a"}},
    {"name":"a-eu","filter":{"model":"a","region":["a","b"]}},{"name":"rest","filter":{}}],"dimensions":["region"]}"#;
const OTHER: &str = r#"{"key":"other","event_type":"web","aggregation":"count"}"#;

fn event(id: &str, at: &str, properties: &str) -> String {
    format!(
        r#"{{"customer":"c","event_id":"{id}","event_type":"llm","occurred_at":"{at}","properties":{properties}}}"#
    )
}

fn accept(ordinals: &[usize]) -> Vec<Accepted> {
    let one = |ordinal: &usize| Accepted {
        ordinal: *ordinal,
        customer_id: 7,
        minutes: BucketMinutes::Sixty,
        event_key: text_key(&ordinal.to_string()),
    };
    ordinals.iter().map(one).collect()
}

/// `customer meter bucket minutes dimensions quantity events keys`, one row a line.
fn show(deltas: &Deltas) -> Vec<String> {
    let row = |row: &Delta| {
        let quantity = row.quantity.map_or("-".to_string(), |quantity| quantity.to_string());
        format!(
            "{} {} {} {} {} {quantity} {} {}",
            row.customer_id,
            row.meter_id,
            row.bucket_start,
            row.minutes.get(),
            row.dimensions,
            row.events,
            row.value_keys.len()
        )
    };
    deltas.rows.iter().map(row).collect()
}

#[test]
fn buckets_are_half_open() {
    for (at, minutes, start) in [
        ("2026-03-01T10:00:00Z", 60, "2026-03-01T10:00:00Z"),
        ("2026-03-01T10:59:59.999999Z", 60, "2026-03-01T10:00:00Z"),
        ("2026-03-01T10:59:59.999999Z", 15, "2026-03-01T10:45:00Z"),
        ("2026-03-01T10:15:00+05:45", 15, "2026-03-01T04:30:00Z"),
        ("1969-12-31T23:59:59.999999Z", 60, "1969-12-31T23:00:00Z"),
        ("1969-12-31T23:59:59.999999Z", 15, "1969-12-31T23:45:00Z"),
        ("0001-01-01T00:00:00Z", 60, "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59Z", 15, "9999-12-31T23:45:00Z"),
    ] {
        let found = BucketMinutes::new(minutes).unwrap().floor(Instant::parse(at).unwrap());
        assert_eq!(found.to_string(), start);
    }
    for bad in [0, -60, 30, 14, 16, i16::MAX, i16::MIN] {
        assert!(BucketMinutes::new(bad).is_err());
    }
}

#[test]
fn one_call_adds_one_row_per_cell() {
    let text = format!(
        "[{}]",
        [
            event("a", "2026-03-01T10:59:00Z", r#"{"n":1.5,"model":"x","user":"u1"}"#),
            event("b", "2026-03-01T10:00:00Z", r#"{"n":2,"model":"x","region":"eu","user":"u2"}"#),
            event("c", "2026-03-01T11:00:00Z", r#"{"n":-4,"model":"y"}"#),
            event("d", "2026-03-01T10:30:00Z", r#"{"n":null,"model":"x","user":"u1"}"#),
            event("e", "2026-03-01T10:31:00Z", r#"{"n":100,"model":"x"}"#),
            event("f", "2026-03-01T10:31:00Z", r#"{"n":1,"bill_to":"p"}"#)
                .replace("{\"customer\"", "{\"bill_to\":\"eu\",\"customer\""),
        ]
        .join(",")
    );
    let (events, measurements) =
        ingest(Format::Native, &text, meters(&[TOKENS, REQUESTS, PEAK, USERS, OTHER])).unwrap();
    assert!(events.iter().all(Result::is_ok));
    // e was a duplicate; the order in which the database names the new ones does not matter
    let deltas = measurements.deltas(&accept(&[5, 3, 0, 1, 2])).unwrap();
    assert_eq!(deltas, measurements.deltas(&accept(&[0, 1, 2, 3, 5])).unwrap());
    let mut shown = show(&deltas);
    shown.sort();
    let mut expected = [
        r#"7 1 2026-03-01T10:00:00Z 60 {"bill_to":"eu"} 1 1 0"#,
        r#"7 1 2026-03-01T10:00:00Z 60 {"model":"x"} 3.5 2 0"#,
        r#"7 1 2026-03-01T11:00:00Z 60 {"model":"y"} -4 1 0"#,
        r#"7 2 2026-03-01T10:00:00Z 60 {"bill_to":"eu"} - 1 0"#,
        r#"7 2 2026-03-01T10:00:00Z 60 {"model":"x"} - 3 0"#,
        r#"7 2 2026-03-01T11:00:00Z 60 {"model":"y"} - 1 0"#,
        r#"7 3 2026-03-01T10:00:00Z 60 {"bill_to":"eu"} 1 1 0"#,
        r#"7 3 2026-03-01T10:00:00Z 60 {"model":"x","region":"eu"} 2 1 0"#,
        r#"7 3 2026-03-01T10:00:00Z 60 {"model":"x"} 1.5 1 0"#,
        r#"7 3 2026-03-01T11:00:00Z 60 {"model":"y"} -4 1 0"#,
        r#"7 4 2026-03-01T10:00:00Z 60 {} - 3 2"#,
    ];
    expected.sort_unstable();
    assert_eq!(shown, expected);
    assert!(deltas.rows.is_sorted_by(|a, b| order(a) < order(b)));
    let skipped: Vec<_> = deltas.uncounted.iter().map(|u| (u.meter_id, u.skipped, u.refused)).collect();
    assert_eq!(skipped, [(1, 1, 0), (3, 1, 0)]);
    let users = deltas.rows.last().unwrap();
    assert_eq!(
        users.value_keys.iter().copied().collect::<BTreeSet<_>>(),
        BTreeSet::from([text_key("u1"), text_key("u2")])
    );
    assert!(users.value_keys.is_sorted());
}

#[test]
fn an_event_that_any_meter_refuses_is_rejected_and_leaves_nothing() {
    let text = format!(
        "[{},{},{}]",
        event("a", "2026-03-01T10:00:00Z", r#"{"n":1,"model":{}}"#),
        event("b", "2026-03-01T10:00:00Z", r#"{"n":"1"}"#),
        event("c", "2026-03-01T10:00:00Z", r#"{"n":2}"#),
    );
    let (events, measurements) = ingest(Format::Native, &text, meters(&[USERS, REQUESTS, TOKENS])).unwrap();
    let rejection = |i: usize| events[i].as_ref().unwrap_err();
    assert_eq!(rejection(0).reason, reason::METER_REFUSED);
    assert_eq!(
        rejection(0).message,
        "meter requests: model: a dimension value must be a string, a number or a boolean"
    );
    assert_eq!(rejection(1).message, "meter tokens: n must be a number, not the string \"1\"");
    assert_eq!(show(&measurements.deltas(&accept(&[2])).unwrap()).len(), 2);
    assert!(measurements.deltas(&[]).unwrap().rows.is_empty());
    for wrong in [&[0][..], &[1], &[3], &[usize::MAX], &[2, 2]] {
        assert_eq!(measurements.deltas(&accept(wrong)).unwrap_err().code, Code::State, "{wrong:?}");
    }
    let all_bad = format!("[{}]", event("b", "2026-03-01T10:00:00Z", r#"{"n":"1"}"#));
    assert!(ingest(Format::Native, &all_bad, meters(&[TOKENS])).unwrap().1.deltas(&accept(&[0])).is_err());
}

#[test]
fn a_single_event_is_measured_like_a_batch_of_one() {
    let parts = EventParts {
        customer: "c",
        event_id: "a",
        event_type: "llm",
        occurred_at: Instant::parse("2026-03-01T10:59:00Z").unwrap(),
        bill_to: Some("eu"),
        properties: r#"{"n":1.5,"model":"x"}"#,
    };
    let all = meters(&[TOKENS, REQUESTS, PEAK, USERS]);
    let (event, measurements) = ingest_event(parts, all.clone()).unwrap();
    let deltas = measurements.deltas(&accept(&[0])).unwrap();
    assert_eq!(show(&deltas)[0], r#"7 1 2026-03-01T10:00:00Z 60 {"bill_to":"eu","model":"x"} 1.5 1 0"#);
    let text = format!(
        r#"{{"customer":"c","event_id":"a","event_type":"llm","occurred_at":"{}","bill_to":"eu","properties":{}}}"#,
        parts.occurred_at, parts.properties
    );
    let (events, batch) = ingest(Format::Native, &text, all.clone()).unwrap();
    assert_eq!(events[0].as_ref().unwrap(), &event);
    assert_eq!(batch.deltas(&accept(&[0])).unwrap(), deltas);
    let refused = ingest_event(EventParts { properties: r#"{"n":[]}"#, ..parts }, all).unwrap_err();
    assert_eq!((refused.reason, refused.event_id.as_deref()), (reason::METER_REFUSED, Some("a")));
}

#[test]
fn a_sum_that_outgrows_a_decimal_continues_in_another_row() {
    let most = "9".repeat(28);
    let texts: Vec<String> = [most.as_str(), &most, "0.000000000001"]
        .iter()
        .map(|n| event(n, "2026-03-01T10:00:00Z", &format!("{{\"n\":{n}}}")))
        .collect();
    let (_, measurements) =
        ingest(Format::Native, &format!("[{}]", texts.join(",")), meters(&[TOKENS])).unwrap();
    let deltas = measurements.deltas(&accept(&[0, 1, 2])).unwrap();
    assert_eq!(
        show(&deltas),
        [
            format!("7 1 2026-03-01T10:00:00Z 60 {{}} {most} 3 0"),
            format!("7 1 2026-03-01T10:00:00Z 60 {{}} {most} 0 0"),
            "7 1 2026-03-01T10:00:00Z 60 {} 0.000000000001 0 0".to_string(),
        ]
    );
    let mut sum = crate::domain::metering::Sum::default();
    deltas.rows.iter().for_each(|row| sum.add(row.quantity.unwrap()).unwrap());
    assert_eq!(sum.to_string(), "19999999999999999999999999998.000000000001");
}

#[test]
fn stored_events_that_a_later_meter_refuses_are_reported() {
    let stored = |key: &str, properties: &'static str| StoredEvent {
        customer_id: 7,
        minutes: BucketMinutes::Fifteen,
        event_key: text_key(key),
        event_type: "llm",
        occurred_at: Instant::parse("2026-03-01T10:50:00Z").unwrap(),
        bill_to: None,
        properties,
    };
    let events = [
        stored("a", r#"{"n":"x","model":"m"}"#),
        stored("b", r#"{"n":[]}"#),
        stored("c", r#"{"n": 1.0}"#),
        stored("d", "{}"),
    ];
    let deltas = stored_deltas(events, &meters(&[TOKENS, REQUESTS])).unwrap();
    let mut shown = show(&deltas);
    shown.sort();
    assert_eq!(
        shown,
        [
            r#"7 1 2026-03-01T10:45:00Z 15 {} 1 1 0"#,
            r#"7 2 2026-03-01T10:45:00Z 15 {"model":"m"} - 1 0"#,
            r#"7 2 2026-03-01T10:45:00Z 15 {} - 3 0"#,
        ]
    );
    let example = Some((text_key("a"), "meter tokens: n must be a number, not the string \"x\"".to_string()));
    assert_eq!(deltas.uncounted, [Uncounted { meter_id: 1, skipped: 1, refused: 2, example }]);
    let broken = stored_deltas([stored("e", "{\"a\":{")], &meters(&[TOKENS])).unwrap_err();
    assert!(broken.message.contains(&text_key("e").to_string()), "{broken}");
}

#[test]
fn only_meters_of_the_event_type_are_asked() {
    let mut all: Vec<Version> = (0..2_000)
        .map(|i| {
            let usual = meter(r#"{"key":"k","event_type":"t","aggregation":"sum","value":"n"}"#);
            Version::only(i, Meter { event_type: format!("type {i}"), ..usual })
        })
        .collect();
    all.push(Version::only(2_000, meter(TOKENS)));
    let all = Arc::new(Meters::new(all));
    assert!(all.len() == 2_001 && !all.is_empty());
    let (_, measurements) =
        ingest(Format::Native, &event("a", "2026-03-01T10:00:00Z", r#"{"n":1}"#), all.clone()).unwrap();
    assert_eq!(show(&measurements.deltas(&accept(&[0])).unwrap()).len(), 1);
    let unknown = event("a", "2026-03-01T10:00:00Z", r#"{"n":[]}"#).replace("llm", "nobody's");
    let (events, measurements) = ingest(Format::Native, &unknown, all).unwrap();
    assert!(events[0].is_ok() && measurements.deltas(&accept(&[0])).unwrap().rows.is_empty());
    assert!(Meters::new([]).is_empty());
}

/// A meter's versions divide time: each event is measured by the one in force when it happened.
#[test]
fn versions_hold_in_their_stretch() {
    let at = |text: &str| Some(Instant::parse(text).unwrap());
    let first = Version { until: at("2026-03-01T10:30:00Z"), ..Version::only(1, meter(TOKENS)) };
    let doubled = meter(&TOKENS.replace(r#""n""#, r#""n * 2""#));
    let second = Version { from: at("2026-03-01T10:30:00Z"), ..Version::only(1, doubled) };
    let versions = Arc::new(Meters::new([first, second]));
    let events: Vec<String> = ["10:00:00", "10:29:59.999999", "10:30:00", "11:00:00"]
        .iter()
        .map(|time| event(time, &format!("2026-03-01T{time}Z"), r#"{"n":1,"model":"m"}"#))
        .collect();
    let text = format!("[{}]", events.join(","));
    let (_, measurements) = ingest(Format::Native, &text, versions).unwrap();
    // Rows of one cell add up, in whatever order.
    let mut rows = show(&measurements.deltas(&accept(&[0, 1, 2, 3])).unwrap());
    rows.sort();
    assert_eq!(
        rows,
        [
            r#"7 1 2026-03-01T10:00:00Z 60 {"model":"m"} 2 1 0"#,
            r#"7 1 2026-03-01T10:00:00Z 60 {"model":"m"} 2 2 0"#,
            r#"7 1 2026-03-01T11:00:00Z 60 {"model":"m"} 2 1 0"#,
        ]
    );
}

/// An event of the model: everything that can differ between two events of a batch.
#[derive(Debug, Clone)]
struct Any {
    customer_id: i64,
    minute: i64,
    event_type: &'static str,
    bill_to: Option<&'static str>,
    properties: String,
    id: u16,
}

impl Any {
    fn minutes(&self) -> BucketMinutes {
        if self.customer_id == 1 { BucketMinutes::Fifteen } else { BucketMinutes::Sixty }
    }

    fn at(&self) -> Instant {
        Instant(self.minute * 60_000_000)
    }

    fn key(&self) -> Uuid {
        text_key(&self.id.to_string())
    }

    fn text(&self) -> String {
        let bill_to = self.bill_to.map_or("null".to_string(), |text| format!("\"{text}\""));
        format!(
            r#"{{"customer":"c{}","event_id":"{}","event_type":"{}","occurred_at":"{}","bill_to":{bill_to},"properties":{}}}"#,
            self.customer_id,
            self.id,
            self.event_type,
            self.at(),
            self.properties
        )
    }

    fn stored(&self) -> StoredEvent<'_> {
        StoredEvent {
            customer_id: self.customer_id,
            minutes: self.minutes(),
            event_key: self.key(),
            event_type: self.event_type,
            occurred_at: self.at(),
            bill_to: self.bill_to,
            properties: &self.properties,
        }
    }
}

fn any_event() -> impl Strategy<Value = Any> {
    let number = prop_oneof![
        4 => (-50i64..50, 0u32..3).prop_map(|(m, s)| Exact::from_parts(m.into(), s).unwrap().to_string()),
        1 => Just("9".repeat(28)),
        1 => Just("null".to_string()),
        1 => Just("\"text\"".to_string()),
    ];
    let word = prop_oneof![
        Just("\"a\""),
        Just("\"b\""),
        Just("1"),
        Just("\"1\""),
        Just("1.0"),
        Just("null"),
        Just("[]")
    ];
    let types = prop_oneof![4 => Just("llm"), 1 => Just("web")];
    let bill_to = prop_oneof![3 => Just(None), 1 => Just(Some("eu"))];
    let operation = prop_oneof![3 => Just("\"add\""), 2 => Just("\"remove\""), 1 => Just("null")];
    let words = (word.clone(), word.clone(), word, operation);
    (1i64..4, -90i64..90, types, bill_to, number, words, any::<u16>()).prop_map(
        |(customer_id, minute, event_type, bill_to, n, (model, region, user, operation), id)| Any {
            customer_id,
            minute,
            event_type,
            bill_to,
            properties: format!(
                r#"{{"n":{n},"model":{model},"region":{region},"user":{user},"op":{operation}}}"#
            ),
            id,
        },
    )
}

type Totals = BTreeMap<(i64, i32, Instant, i16, String), Cell>;

/// What the rows of a cell come to, whatever the meter.
#[derive(Debug, Clone, Default, PartialEq)]
struct Cell {
    events: i64,
    quantity: Option<BigRational>,
    moment: Option<BigRational>,
    last: Option<(Position, BigRational)>,
    keys: BTreeSet<Uuid>,
    operations: BTreeMap<Uuid, (Position, bool)>,
}

impl Cell {
    fn take(&mut self, kind: Kind, value: BigRational, position: Option<Position>) {
        let so_far = self.quantity.take();
        self.quantity = match (kind, so_far) {
            (Kind::Latest, _) => {
                self.last = self.last.take().max(Some((position.unwrap(), value)));
                None
            }
            (Kind::Count, _) => None,
            (_, None) => Some(value),
            (Kind::Max, Some(so_far)) => Some(so_far.max(value)),
            (Kind::Min, Some(so_far)) => Some(so_far.min(value)),
            (_, Some(so_far)) => Some(so_far + value),
        };
    }

    fn operate(&mut self, key: Uuid, position: Position, removed: bool) {
        let known = self.operations.entry(key).or_insert((position, removed));
        *known = (*known).max((position, removed));
    }
}

fn rational(value: Exact) -> BigRational {
    BigRational::new(value.mantissa().into(), BigInt::from(10).pow(value.scale()))
}

/// What rows of any number of calls add up to.
fn totals<'d>(all: impl IntoIterator<Item = &'d Deltas>, meters: &[Meter]) -> Totals {
    let mut totals = Totals::new();
    for row in all.into_iter().flat_map(|deltas| &deltas.rows) {
        let cell =
            (row.customer_id, row.meter_id, row.bucket_start, row.minutes.get(), row.dimensions.to_string());
        let cell = totals.entry(cell).or_default();
        cell.events += row.events;
        match meters[row.meter_id as usize - 1].kept() {
            Kind::Presence => {
                cell.operate(row.value_keys[0], row.position.unwrap(), row.quantity.unwrap().is_zero());
            }
            kind => {
                cell.keys.extend(&row.value_keys);
                if let Some(value) = row.quantity {
                    cell.take(kind, rational(value), row.position);
                }
            }
        }
        if let Some(moment) = &row.moment {
            let text = moment.to_string();
            let places = text.split_once('.').map_or(0, |(_, fraction)| fraction.len() as u32);
            let number =
                BigRational::new(text.replace('.', "").parse().unwrap(), BigInt::from(10).pow(places));
            cell.moment = Some(cell.moment.take().map_or(number.clone(), |so_far| so_far + number));
        }
    }
    totals
}

/// The same, event by event and meter by meter, from `Meter::measure` alone.
fn naive(events: &[&Any], meters: &[Meter]) -> Totals {
    let mut totals = Totals::new();
    for event in events {
        let properties: Tree = json::parse(&event.properties).unwrap();
        for (meter, id) in meters.iter().zip(1..).filter(|(meter, _)| meter.event_type == event.event_type) {
            let Measured::Counted { dimensions, value } = meter.measure(&properties, event.bill_to) else {
                continue;
            };
            let width = i64::from(event.minutes().get());
            let start = Instant(event.minute.div_euclid(width) * width * 60_000_000);
            let cell = (event.customer_id, id, start, event.minutes().get(), dimensions.canonical());
            let cell = totals.entry(cell).or_default();
            cell.events += 1;
            let position = Position { at: event.at(), event_key: event.key() };
            match value {
                Contribution::One => {}
                Contribution::Key(key) => {
                    cell.keys.insert(key);
                }
                Contribution::Operation { key, removed } => cell.operate(key, position, removed),
                Contribution::Number(number) => {
                    let number = rational(number);
                    if meter.aggregation == Aggregation::WeightedSum {
                        let moment = &number * BigInt::from(event.at().0 - start.0);
                        cell.moment =
                            Some(cell.moment.take().map_or(moment.clone(), |so_far| so_far + moment));
                    }
                    cell.take(meter.kept(), number, Some(position));
                }
            }
        }
    }
    totals
}

proptest! {
    /// One call or many, any split, any order, one pass or from stored events: the same usage.
    #[test]
    fn any_split_gives_the_same_usage(events in prop::collection::vec((any_event(), 0usize..4, any::<bool>()), 0..40)) {
        let texts = [TOKENS, REQUESTS, PEAK, REGIONS, USERS, OTHER, LOWEST, MEAN, LAST, STORED, RANKED, SEATS, PEAKS, LABELLED];
        let list: Vec<Meter> = texts.iter().map(|text| meter(text)).collect();
        let compiled = meters(&texts);
        let mut accepted_events = Vec::new();
        let mut calls = Vec::new();
        for call in 0..4 {
            let mine: Vec<&(Any, usize, bool)> = events.iter().filter(|(_, part, _)| *part == call).collect();
            let text: Vec<String> = mine.iter().map(|(event, _, _)| event.text()).collect();
            let text = format!("[{}]", text.join(","));
            let (read, measurements) = ingest(Format::Native, &text, compiled.clone()).unwrap();
            let mut accepted = Vec::new();
            for (ordinal, ((event, _, new), read)) in mine.iter().zip(&read).enumerate() {
                let properties = json::parse(&event.properties).unwrap();
                let refused = list.iter().filter(|meter| meter.event_type == event.event_type)
                    .any(|meter| matches!(meter.measure(&properties, event.bill_to), Measured::Refused(_)));
                prop_assert_eq!(read.is_err(), refused);
                if *new && read.is_ok() {
                    accepted.push(Accepted {
                        ordinal,
                        customer_id: event.customer_id,
                        minutes: event.minutes(),
                        event_key: event.key(),
                    });
                    accepted_events.push(event);
                }
            }
            accepted.reverse();
            calls.push(measurements.deltas(&accepted).unwrap());
        }
        let expected = naive(&accepted_events, &list);
        prop_assert_eq!(totals(&calls, &list), expected.clone());
        let stored = stored_deltas(accepted_events.iter().map(|event| event.stored()), &compiled).unwrap();
        prop_assert_eq!(totals([&stored], &list), expected);
        let again = stored_deltas(accepted_events.iter().rev().map(|event| event.stored()), &compiled).unwrap();
        prop_assert_eq!(&again, &stored);
        let skipped: u64 = calls.iter().flat_map(|call| &call.uncounted).map(|u| u.skipped).sum();
        prop_assert_eq!(skipped, stored.uncounted.iter().map(|u| u.skipped).sum::<u64>());
    }
}
