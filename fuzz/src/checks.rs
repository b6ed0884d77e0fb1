//! The properties, one function a reader, which says whether the text was read. One that is refused is as good; what is
//! not allowed is a panic, or that printing and reading again gives something else.

use pg_billing::domain::contracts::catalogue;
use pg_billing::domain::contracts::contract::Contract;
use pg_billing::domain::contracts::overrides::{Override, read_list};
use pg_billing::domain::contracts::plan::Plan;
use pg_billing::domain::contracts::timeline::{self, Change, Point, What};
use pg_billing::domain::foundation::calendar::{Alignment, Calendar, Interval};
use pg_billing::domain::foundation::hash::text_key;
use pg_billing::domain::foundation::instant::{Instant, parse_date};
use pg_billing::domain::foundation::json::{self, Node, Tree};
use pg_billing::domain::foundation::money::{Money, Unit};
use pg_billing::domain::foundation::party::{read_customer, read_seller};
use pg_billing::domain::foundation::proration::ProrationBasis;
use pg_billing::domain::foundation::{Exact, Fault, Ratio, RoundingLevel, RoundingMode};
use pg_billing::domain::ingestion::{self, EVENT_ID_BYTES_MAX, Format, Rejection, read_batch_of, read_event};
use pg_billing::domain::invoicing::explain::explain;
use pg_billing::domain::metering::aggregate::{Asked, Position, When};
use pg_billing::domain::metering::call::{Call, Row};
use pg_billing::domain::metering::meters::Version;
use pg_billing::domain::metering::{
    Contribution, Dimensions, Expression, Filter, Meter, Meters, Path, State,
};
use pg_billing::domain::rating::{Pricing, shown_steps};
use std::sync::{Arc, OnceLock};

/// A fault must have something to say, in text that Postgres can hold.
fn told(fault: &Fault) {
    assert!(!fault.message.is_empty());
    for text in [Some(&fault.message), fault.detail.as_ref(), fault.hint.as_ref()].into_iter().flatten() {
        assert!(!text.contains('\0'), "a message with a zero character");
    }
}

/// What was read, unless the text is refused.
fn good<T>(read: Result<T, Fault>) -> Option<T> {
    read.inspect_err(told).ok()
}

fn tree_of(text: &str) -> Option<Tree<'_>> {
    good(json::parse(text))
}

fn exact(text: &str) -> Exact {
    Exact::parse(text).expect("a number of ours")
}

/// Quantities that readers of prices and meters meet.
fn quantities() -> impl Iterator<Item = Exact> {
    [
        "0",
        "1",
        "-1",
        "0.5",
        "10",
        "10.000000000001",
        "100",
        "123456.789",
        "9999999999999999999999999999",
        "0.000000000001",
    ]
    .into_iter()
    .map(exact)
}

/// Properties that meters are tried on.
fn properties() -> &'static [Tree<'static>] {
    static TREES: OnceLock<Vec<Tree<'static>>> = OnceLock::new();
    TREES.get_or_init(|| {
        [
            "{}",
            r#"{"model":"gpt-4","input":1000,"output":2.5,"user":"u1","usage":{"input_tokens":7},"odd name":{"part":3}}"#,
            r#"{"model":1,"input":"5","output":-9999999999999999999999999999,"user":null,"nested":{"deep":[1]},"region":true}"#,
            r#"{"model":"a","input":9999999999999999999999999999,"output":0.000000000001,"region":"eu","test":false,"name":"ab"}"#,
        ]
        .into_iter()
        .map(|text| json::parse(text).expect("properties of ours").into_owned())
        .collect()
    })
}

fn meters_of(documents: &[&str]) -> Arc<Meters> {
    let read = |text: &&str| {
        Meter::read(&Node::root(&json::parse(text).expect("a document of ours"))).expect("a meter of ours")
    };
    Arc::new(Meters::new((1..).zip(documents.iter().map(read)).map(|(id, meter)| Version::only(id, meter))))
}

fn meters_at_hand() -> Arc<Meters> {
    static METERS: OnceLock<Arc<Meters>> = OnceLock::new();
    Arc::clone(METERS.get_or_init(|| meters_of(crate::text::METERS)))
}

fn check_rejection(rejection: &Rejection) {
    assert!(!rejection.reason.is_empty() && !rejection.message.is_empty());
    assert!(!rejection.message.contains('\0'), "a message with a zero character: {:?}", rejection.message);
    assert!(rejection.customer.as_ref().is_none_or(|key| json::check_key(key).is_ok()));
    assert!(rejection.event_id.as_ref().is_none_or(|id| !id.is_empty() && id.len() <= EVENT_ID_BYTES_MAX));
}

/// Events in the form of another system: an adapter's line in `TARGETS` is all it takes.
pub fn events(format: Format, text: &str) -> bool {
    let Some(events) = good(read_batch_of(format, text)) else { return false };
    // What we take for JSON, others do too.
    serde_json::from_str::<serde::de::IgnoredAny>(text).expect("events are JSON");
    for read in &events {
        match read {
            Ok(event) => {
                // Its parts are the same event, and so is what is stored of it.
                let again =
                    read_event(event.parts()).unwrap_or_else(|r| panic!("read once, refused again: {r:?}"));
                assert_eq!(&again, event);
                assert_eq!(ingestion::content_hash(event), event.content_hash);
            }
            Err(rejection) => check_rejection(rejection),
        }
    }
    // Measured, each is accounted for: once, or rejected with a reason.
    let call = Call::read(format, text, meters_at_hand()).expect("what read_batch_of reads");
    assert_eq!(call.outcome().rejected as usize, call.rejections().len());
    assert!(call.rejections().len() >= events.iter().filter(|read| read.is_err()).count());
    call.rejections().iter().for_each(check_rejection);
    true
}

pub fn events_as_rows(text: &str) -> bool {
    // The text stands in each column by turns: a copied row may hold anything anywhere.
    let row = |n: usize| Row {
        customer: Some(if n == 0 { text } else { "acme" }),
        event_id: Some(if n == 1 { text } else { "e" }),
        event_type: Some(if n == 2 { text } else { "llm" }),
        occurred_at: Some(if n == 3 { text } else { "2026-01-01T00:00:00Z" }),
        bill_to: (n == 4).then_some(text),
        properties: (n == 5).then_some(text),
    };
    let call = Call::read_rows((0..6).map(row), meters_at_hand());
    call.rejections().iter().for_each(check_rejection);
    call.rejections().len() < 6
}

pub fn json(text: &str) -> bool {
    let Some(tree) = tree_of(text) else { return false };
    if let Some(canonical) = good(tree.canonical()) {
        let again = json::parse(&canonical).expect("canonical text is JSON");
        assert_eq!(again.canonical().expect("and stays so"), canonical);
        serde_json::from_str::<serde_json::Value>(&canonical).expect("and others read it");
    }
    true
}

pub fn expressions(text: &str) -> bool {
    let Some(expression) = good(Expression::parse(text)) else { return false };
    let canonical = expression.canonical();
    let again =
        Expression::parse(&canonical).unwrap_or_else(|e| panic!("{canonical:?} does not read back: {e}"));
    assert_eq!(again, expression, "{canonical:?}");
    for tree in properties() {
        assert_eq!(format!("{:?}", again.evaluate(tree)), format!("{:?}", expression.evaluate(tree)));
    }
    true
}

pub fn paths(text: &str) -> bool {
    let Some(path) = good(Path::parse(text)) else { return false };
    let printed = path.to_string();
    assert_eq!(good(Path::parse(&printed)).as_ref(), Some(&path), "{printed:?}");
    properties().iter().for_each(|tree| {
        path.find(tree);
    });
    true
}

pub fn filters(text: &str) -> bool {
    let Some(tree) = tree_of(text) else { return false };
    let Some(filter) = good(Filter::read(&Node::root(&tree))) else { return false };
    let printed = filter.to_tree();
    let again =
        Filter::read(&Node::root(&printed)).unwrap_or_else(|e| panic!("{printed:?} does not read back: {e}"));
    assert_eq!(again, filter, "{printed:?}");
    for tree in properties() {
        assert_eq!(good(again.matches(tree)), good(filter.matches(tree)));
    }
    true
}

pub fn meters(text: &str) -> bool {
    let Some(tree) = tree_of(text) else { return false };
    let Some(meter) = good(Meter::read(&Node::root(&tree))) else { return false };
    let printed = meter.to_tree();
    printed.canonical().expect("a stored meter");
    let again =
        Meter::read(&Node::root(&printed)).unwrap_or_else(|e| panic!("{printed:?} does not read back: {e}"));
    assert_eq!(again, meter);
    for tree in properties() {
        assert_eq!(meter.measure(tree, None), again.measure(tree, None));
        meter.measure(tree, Some("unit"));
    }
    true
}

pub fn dimensions(text: &str) -> bool {
    let Some(tree) = tree_of(text) else { return false };
    let Some(set) = good(Dimensions::read(&Node::root(&tree))) else { return false };
    let canonical = set.canonical();
    let again = Dimensions::read(&Node::root(&json::parse(&canonical).expect("canonical text is JSON")));
    assert_eq!(again.as_ref(), Ok(&set));
    assert_eq!(again.map(|set| set.id()), Ok(set.id()));
    true
}

pub fn pricing(text: &str) -> bool {
    let Some(tree) = tree_of(text) else { return false };
    good(Pricing::read_header(&Node::root(&tree)));
    let Some(pricing) = good(Pricing::read(&Node::root(&tree))) else { return false };
    let canonical = pricing.canonical();
    let again = Pricing::parse(&canonical).unwrap_or_else(|e| panic!("{canonical} does not read back: {e}"));
    assert_eq!(again, pricing, "{canonical}");
    assert_eq!(again.canonical(), canonical);
    let mut dimensions = Dimensions::new();
    dimensions.set("model", "a");
    for set in [Dimensions::new(), dimensions] {
        for quantity in quantities() {
            let quantity = Ratio::from(quantity);
            let rated = good(pricing.rate(&quantity, &set, 3));
            assert_eq!(rated, good(again.rate(&quantity, &set, 3)));
            if let (Some(rated), Some(steps)) = (rated, good(pricing.explain(&quantity, &set, 3))) {
                let sum = steps.iter().fold(Ratio::ZERO, |sum, step| sum.add(&step.amount));
                assert_eq!(sum, rated, "the working of {canonical} for {quantity}");
                shown_steps(steps);
            }
        }
    }
    let amounts: Vec<Exact> = quantities().take(6).collect();
    good(pricing.rate_events(&amounts));
    good(pricing.explain_events(&amounts));
    true
}

pub fn catalogue(text: &str) -> bool {
    let Some(tree) = tree_of(text) else { return false };
    let Some(items) = good(catalogue::read(&Node::root(&tree))) else { return false };
    for item in &items {
        let Some(document) = &item.document else { continue };
        document.canonical().unwrap_or_else(|e| panic!("{} {} can't be stored: {e}", item.kind, item.key));
        let again = match item.kind {
            "meter" => Meter::read(&Node::root(document)).map(|meter| meter.to_tree()),
            "plan" => Plan::read(&Node::root(document)).map(|plan| plan.to_tree()),
            _ => continue,
        };
        assert_eq!(again.as_ref(), Ok(document), "{} {}", item.kind, item.key);
    }
    catalogue::to_tree(items).canonical().expect("items go to SQL as JSON");
    true
}

pub fn plans(text: &str) -> bool {
    let Some(tree) = tree_of(text) else { return false };
    let Some(plan) = good(Plan::read(&Node::root(&tree))) else { return false };
    let printed = plan.to_tree();
    printed.canonical().expect("a stored plan");
    let again =
        Plan::read(&Node::root(&printed)).unwrap_or_else(|e| panic!("{printed:?} does not read back: {e}"));
    assert_eq!(again.to_tree(), printed);
    true
}

pub fn contracts(text: &str) -> bool {
    let Some(tree) = tree_of(text) else { return false };
    let Some(contract) = good(Contract::read(&Node::root(&tree))) else { return false };
    let printed = contract.to_tree();
    printed.canonical().expect("a stored contract");
    let again = Contract::read(&Node::root(&printed))
        .unwrap_or_else(|e| panic!("{printed:?} does not read back: {e}"));
    assert_eq!(again.to_tree(), printed);
    let plan = json::parse(crate::text::PLANS[0]).expect("a plan of ours");
    let plan = Plan::read(&Node::root(&plan)).expect("a plan of ours");
    let plans = [("pro".to_string(), plan)].into();
    for plan in [None, Some("pro".to_string())] {
        let created = Change {
            version: 1,
            at: Point::midnight(contract.starts_on),
            plan,
            what: What::Create(Box::new(contract.clone())),
        };
        if let Some(timeline) = good(timeline::fold(vec![created], &plans)) {
            timeline.to_tree().canonical().expect("a stored timeline");
        }
    }
    true
}

pub fn overrides(text: &str) -> bool {
    let Some(tree) = tree_of(text) else { return false };
    let Some(list) = good(read_list(&Node::root(&tree))) else { return false };
    let printed = Tree::List(list.iter().map(Override::to_tree).collect());
    printed.canonical().expect("stored overrides");
    assert_eq!(read_list(&Node::root(&printed)), Ok(list));
    true
}

pub fn customers(text: &str) -> bool {
    tree_of(text).is_some_and(|tree| good(read_customer(&Node::root(&tree))).is_some())
}

pub fn sellers(text: &str) -> bool {
    tree_of(text).is_some_and(|tree| good(read_seller(&Node::root(&tree))).is_some())
}

pub fn invoice_documents(text: &str) -> bool {
    tree_of(text).is_some_and(|tree| good(explain(&Node::root(&tree), &Vec::new())).is_some())
}

pub fn money(text: &str) -> bool {
    let money = good(Money::parse(text));
    if let Some(money) = money {
        assert_eq!(good(Money::parse(&money.to_string())), Some(money));
        good(money.add(money));
        good(money.mul(exact("3.5")));
    }
    if let Some(unit) = good(Unit::parse(text)) {
        assert_eq!(good(Unit::from_bytes(unit.to_bytes())), Some(unit));
    }
    money.is_some()
}

pub fn decimals(text: &str) -> bool {
    let Some(number) = good(Exact::parse(text)) else { return false };
    let printed = number.to_string();
    assert_eq!(good(Exact::parse(&printed)), Some(number), "{printed}");
    serde_json::from_str::<serde_json::Number>(&printed).expect("a decimal prints as JSON does");
    good(number.add(number));
    good(number.mul(number));
    let ratio = Ratio::from(number);
    for mode in [RoundingMode::HalfUp, RoundingMode::HalfEven] {
        for places in [0, 2, 12] {
            good(ratio.round(places, mode));
        }
    }
    true
}

pub fn instants(text: &str) -> bool {
    let (instant, date) = (good(Instant::parse(text)), good(parse_date(text)));
    if let Some(instant) = instant {
        assert_eq!(good(Instant::parse(&instant.to_string())), Some(instant), "{instant}");
    }
    if let Some(date) = date {
        assert_eq!(good(parse_date(&date.to_string())), Some(date), "{date}");
    }
    instant.is_some() || date.is_some()
}

pub fn calendars(text: &str) -> bool {
    if let Some(alignment) = good(Alignment::parse(text)) {
        assert_eq!(good(Alignment::parse(&alignment.to_string())), Some(alignment), "{alignment}");
        return true;
    }
    let Some(interval) = good(Interval::parse(text)) else { return false };
    assert_eq!(good(Interval::parse(&interval.to_string())), Some(interval), "{interval}");
    for start in ["2024-01-31", "2024-02-29", "9999-12-31", "0001-01-01"] {
        let start = parse_date(start).expect("a date of ours");
        for alignment in [Alignment::Anniversary, Alignment::Calendar] {
            let Some(calendar) = good(Calendar::new(start, None, interval, alignment)) else { continue };
            for n in [0, 1, 12, u32::MAX] {
                calendar.period(n);
            }
            calendar.period_at(start);
        }
    }
    true
}

pub fn words(text: &str) -> bool {
    let _ = json::check_key(text);
    good(RoundingMode::parse(text)).is_some()
        || good(RoundingLevel::parse(text)).is_some()
        || good(ProrationBasis::parse(text)).is_some()
}

/// The text is hexadecimal where it can be, else it is the bytes.
pub fn aggregate_states(text: &str) -> bool {
    let digits = text.trim();
    let hex = (0..digits.len() / 2)
        .map(|i| digits.get(2 * i..2 * i + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect::<Option<Vec<u8>>>();
    let bytes = hex.unwrap_or_else(|| text.as_bytes().to_vec());
    let Some(state) = good(State::from_bytes(&bytes)) else { return false };
    assert_eq!(state.to_bytes(), bytes);
    let stretch = Asked::Stretch {
        from: Instant::parse("2026-01-01T00:00:00Z").expect("an instant of ours"),
        until: Instant::parse("2026-02-01T00:00:00Z").expect("an instant of ours"),
        unit: 3_600_000_000,
    };
    for asked in [Asked::Total, stretch] {
        good(state.quantity(&asked));
    }
    let mut sum = state.clone();
    if good(sum.merge(state.clone())).is_none() {
        assert_eq!(sum, state, "a fault changes nothing");
    }
    let position = Position {
        at: Instant::parse("2026-01-01T00:00:00Z").expect("an instant of ours"),
        event_key: text_key("e"),
    };
    let when = When { position, into: 1_000_000 };
    for contribution in [Contribution::One, Contribution::Number(exact("-1.5"))] {
        let mut more = state.clone();
        if good(more.add(contribution, &when)).is_none() {
            assert_eq!(more, state, "a fault changes nothing");
        }
    }
    true
}
