//! Each sender's documented shape, what is refused in it, and that an event is the same in every format.

use super::*;
use crate::domain::foundation::fault::Code;
use crate::domain::foundation::json::{self, write_text};
use crate::domain::ingestion::{Event, Rejection, read_batch, read_batch_of};
use proptest::prelude::*;

fn all(format: Format, text: &str) -> Vec<Result<Event<'_>, Rejection>> {
    read_batch_of(format, text).unwrap()
}

fn one(format: Format, text: &str) -> Result<Event<'_>, Rejection> {
    let mut events = all(format, text);
    assert_eq!(events.len(), 1, "{text}");
    events.remove(0)
}

/// An event in a line: customer, id, type, time, legal entity, properties.
fn line(event: &Event<'_>) -> String {
    let bill_to = event.bill_to.as_deref().unwrap_or("-");
    format!(
        "{} | {} | {} | {} | {bill_to} | {}",
        event.customer, event.event_id, event.event_type, event.occurred_at, event.properties
    )
}

fn lines(format: Format, text: &str) -> Vec<String> {
    all(format, text).into_iter().map(|read| line(&read.unwrap())).collect()
}

fn refusal(format: Format, text: &str) -> (&'static str, String) {
    let refused = one(format, text).unwrap_err();
    assert_eq!((refused.raw.as_str(), refused.format), (text, format));
    (refused.reason, refused.message)
}

#[test]
fn names_name_formats() {
    for format in Format::ALL {
        assert_eq!(Format::named(format.name()), Some(format));
    }
    assert_eq!(Format::named("Native"), None);
    assert_eq!(Format::named(""), None);
}

const CLOUD: &str = r#"{"specversion":"1.0","type":"com.example.llm.request","source":"/gateway/eu-1","subject":"acme",
    "id":"A234-1234-1234","time":"2026-03-01T17:31:00+02:00","datacontenttype":"application/json; charset=utf-8",
    "dataschema":"https://example.com/llm.json","traceparent":"00-0af7","billto":"labs",
    "data":{"model":"gpt-4","tokens":"812","cost":0.25}}"#;

#[test]
fn cloudevents_are_read() {
    let expected = r#"acme | /gateway/eu-1 A234-1234-1234 | com.example.llm.request | 2026-03-01T15:31:00Z | labs | {"cost":0.25,"model":"gpt-4","tokens":"812"}"#;
    assert_eq!(lines(Format::CloudEvents, CLOUD), [expected]);
    let other = CLOUD.replace("/gateway/eu-1", "urn:b");
    let batch = lines(Format::CloudEvents, &format!("[{CLOUD},{other}]"));
    assert_eq!(batch[0], expected);
    // the same id of another source is another event
    assert!(batch[1].starts_with("acme | urn:b A234-1234-1234 | "));
    let without = |field: &str| {
        let mut tree = serde_json::from_str::<serde_json::Value>(CLOUD).unwrap();
        tree.as_object_mut().unwrap().remove(field).unwrap();
        tree.to_string()
    };
    for (field, place) in [
        ("specversion", "specversion"),
        ("type", "type"),
        ("source", "source"),
        ("id", "id"),
        ("subject", "subject"),
        ("time", "time"),
    ] {
        let (reason, message) = refusal(Format::CloudEvents, &without(field));
        assert_eq!((reason, message), (reason::MISSING_FIELD, format!("{place}: is missing")));
    }
    assert!(one(Format::CloudEvents, &without("data")).unwrap().properties == "{}");
    assert!(one(Format::CloudEvents, &without("datacontenttype")).is_ok());
    for (from, to, reason, start) in [
        ("\"1.0\"", "\"0.3\"", reason::BAD_VALUE, "specversion: is \"0.3\""),
        ("\"data\":{", "\"data_base64\":\"e30=\",\"x\":{", reason::BAD_VALUE, "data_base64: "),
        ("application/json", "text/xml", reason::BAD_VALUE, "datacontenttype: "),
        ("/gateway/eu-1", "a b", reason::BAD_VALUE, "source: \"a b\" is not a URI"),
        ("/gateway/eu-1", "", reason::BAD_VALUE, "source: "),
        ("A234-1234-1234", "", reason::BAD_VALUE, "id: is empty"),
        ("2026-03-01T17:31:00+02:00", "yesterday", reason::BAD_TIME, "time: \"yesterday\" is not an instant"),
        ("\"acme\"", "7", reason::BAD_VALUE, "subject: must be a string"),
        ("\"labs\"", "\" labs\"", reason::BAD_VALUE, "billto: "),
        ("0.25", "\"\\u0000\"", reason::BAD_JSON, "data.cost: contains"),
    ] {
        let (word, message) = refusal(Format::CloudEvents, &CLOUD.replace(from, to));
        assert_eq!(word, reason, "{message}");
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn stripe_meter_events_are_read() {
    let v1 = r#"{"object":"billing.meter_event","created":1704824589,"event_name":"ai_search_api","identifier":"identifier_123","livemode":true,
        "payload":{"value":"25","stripe_customer_id":"cus_NciAYcXfLnqBoz","model":"v1.10","region":"007"},"timestamp":1680210639}"#;
    let v2 = r#"{"object":"v2.billing.meter_event","created":"2024-06-01T12:10:00.000Z","livemode":false,"identifier":"idmp_12345678",
        "event_name":"ai_search_api","timestamp":"2024-06-01T12:00:00.000Z","payload":{"stripe_customer_id":"cus_12345678","value":"10.50"}}"#;
    let first = r#"cus_NciAYcXfLnqBoz | identifier_123 | ai_search_api | 2023-03-30T21:10:39Z | - | {"model":"v1.10","region":"007","value":25}"#;
    let second =
        r#"cus_12345678 | idmp_12345678 | ai_search_api | 2024-06-01T12:00:00Z | - | {"value":10.5}"#;
    assert_eq!(lines(Format::Stripe, v1), [first]);
    assert_eq!(lines(Format::Stripe, &format!("[{v1},{v2}]")), [first, second]);
    assert_eq!(lines(Format::Stripe, &format!("{{ \"events\" : [{v2} , {v1}] }}")), [second, first]);
    assert_eq!(lines(Format::Stripe, &v1.replace("1680210639", "\"1680210639\"")), [first]);
    for (from, to, reason, start) in [
        (
            "\"stripe_customer_id\"",
            "\"customer\"",
            reason::MISSING_FIELD,
            "payload.stripe_customer_id: is missing",
        ),
        ("\"payload\"", "\"object2\"", reason::MISSING_FIELD, "payload: is missing"),
        (
            "\"identifier\"",
            "\"identifer\"",
            reason::UNKNOWN_FIELD,
            "\"identifer\": is not a field of an event (event_name",
        ),
        ("\"identifier\":\"identifier_123\",", "", reason::MISSING_FIELD, "identifier: is missing"),
        ("1680210639", "null", reason::MISSING_FIELD, "timestamp: is missing"),
        (
            "1680210639",
            "1680210639000",
            reason::BAD_TIME,
            "timestamp: \"1680210639000\" is not a number of seconds",
        ),
        ("1680210639", "1.680210639e9", reason::BAD_TIME, "timestamp: "),
        ("1680210639", "true", reason::BAD_VALUE, "timestamp: must be a string, not true"),
        ("\"25\"", "{\"a\":1e99}", reason::NUMBER_OUT_OF_BOUNDS, "payload.value.a: "),
    ] {
        let (word, message) = refusal(Format::Stripe, &v1.replace(from, to));
        assert_eq!(word, reason, "{message}");
        assert!(message.starts_with(start), "{message}");
    }
    let refused = one(Format::Stripe, &v1.replace("1680210639", "null")).unwrap_err();
    let named = (refused.customer.as_deref(), refused.event_id.as_deref());
    assert_eq!(named, (Some("cus_NciAYcXfLnqBoz"), Some("identifier_123")));
}

#[test]
fn orb_events_are_read() {
    let event = r#"{"event_name":"compute","idempotency_key":"f-1","timestamp":"2020-12-09T16:09:53Z","external_customer_id":"acme","customer_id":null,
        "properties":{"region":"us-east-1","seconds":3.50,"count":"12"}}"#;
    let expected = r#"acme | f-1 | compute | 2020-12-09T16:09:53Z | - | {"count":"12","region":"us-east-1","seconds":3.5}"#;
    assert_eq!(lines(Format::Orb, &format!("{{\"events\":[{event}]}}")), [expected]);
    assert_eq!(lines(Format::Orb, &format!("[{event}]")), [expected]);
    assert_eq!(lines(Format::Orb, event), [expected]);
    assert_eq!(all(Format::Orb, r#"{"events":[]}"#), []);
    let own =
        event.replace("\"external_customer_id\":\"acme\",\"customer_id\":null", "\"customer_id\":\"orb_7\"");
    assert!(lines(Format::Orb, &own)[0].starts_with("orb_7 | "));
    for (from, to, reason, start) in [
        ("null", "\"orb_7\"", reason::BAD_VALUE, "customer_id: stands beside external_customer_id"),
        ("\"acme\"", "null", reason::MISSING_FIELD, "external_customer_id: is missing"),
        ("\"f-1\"", "1", reason::BAD_VALUE, "idempotency_key: must be a string"),
        ("\"timestamp\"", "\"time\"", reason::UNKNOWN_FIELD, "\"time\": is not a field"),
        ("2020-12-09T16:09:53Z", "2020-12-09 16:09", reason::BAD_TIME, "timestamp: "),
        ("\"compute\"", "\"\"", reason::BAD_VALUE, "event_name: \"\" is empty"),
    ] {
        let (word, message) = refusal(Format::Orb, &event.replace(from, to));
        assert_eq!(word, reason, "{message}");
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn metronome_events_are_read() {
    let text = r#"[{"transaction_id":"2021-01-01T00:00:00Z_cluster42","customer_id":"team@example.com","event_type":"heartbeat",
        "timestamp":"2021-01-01T00:00:00Z","properties":{"cluster_id":"42","cpu_seconds":"60","bytes":"1024.5","version":"1.10","zone":"e1","nested":{"n":"1"}}}]"#;
    let expected = r#"team@example.com | 2021-01-01T00:00:00Z_cluster42 | heartbeat | 2021-01-01T00:00:00Z | - | {"bytes":1024.5,"cluster_id":42,"cpu_seconds":60,"nested":{"n":"1"},"version":"1.10","zone":"e1"}"#;
    assert_eq!(lines(Format::Metronome, text), [expected]);
    // an object is one event: Metronome has no wrapper
    let wrapped = format!("{{\"events\":{text}}}");
    assert_eq!(refusal(Format::Metronome, &wrapped).0, reason::UNKNOWN_FIELD);
    let element = &text[1..text.len() - 1];
    let missing = element.replace("\"customer_id\":\"team@example.com\",", "");
    let expected = (reason::MISSING_FIELD, "customer_id: is missing".to_string());
    assert_eq!(refusal(Format::Metronome, &missing), expected);
}

#[test]
fn lago_events_are_read() {
    let event = r#"{"transaction_id":"transaction_1234567890","external_subscription_id":"sub_1234567890","code":"storage","timestamp":1651240791,
        "precise_total_amount_cents":"1234.50","properties":{"gb":10,"seats":"3"}}"#;
    let expected = |time: &str| {
        format!(
            r#"sub_1234567890 | transaction_1234567890 | storage | {time} | - | {{"gb":10,"precise_total_amount_cents":1234.5,"seats":3}}"#
        )
    };
    let at = expected("2022-04-29T13:59:51Z");
    assert_eq!(lines(Format::Lago, event), [at.as_str()]);
    assert_eq!(lines(Format::Lago, &format!("{{\"event\": {event} }}")), [at.as_str()]);
    assert_eq!(lines(Format::Lago, &format!("{{\"events\":[{event},{event}]}}")), [at.as_str(), at.as_str()]);
    for (time, expected_time) in [
        ("1651240791.123", "2022-04-29T13:59:51.123Z"),
        ("\"1651240791.123456789\"", "2022-04-29T13:59:51.123456Z"),
        ("\"2022-04-29T08:59:51.123Z\"", "2022-04-29T08:59:51.123Z"),
    ] {
        let text = event.replace("1651240791", time);
        assert_eq!(lines(Format::Lago, &text), [expected(expected_time)]);
    }
    let customer = event.replace("\"code\"", "\"external_customer_id\":\"acme\",\"code\"");
    assert!(lines(Format::Lago, &customer)[0].starts_with("acme | "));
    let answer = event.replace(
        "\"code\"",
        "\"lago_id\":\"1a9\",\"lago_customer_id\":null,\"created_at\":\"2022-04-29T08:59:51Z\",\"code\"",
    );
    assert_eq!(lines(Format::Lago, &answer), [at.as_str()]);
    let twice = event.replace("\"gb\"", "\"precise_total_amount_cents\"");
    let (reason, message) = refusal(Format::Lago, &twice);
    assert_eq!(
        (reason, message.as_str()),
        (reason::BAD_VALUE, "precise_total_amount_cents: stands in properties, too")
    );
    let missing = event.replace("external_subscription_id", "lago_id");
    assert_eq!(refusal(Format::Lago, &missing).1, "external_subscription_id: is missing");
}

#[test]
fn wrappers_hold_nothing_else() {
    let event = r#"{"idempotency_key":"a"}"#;
    for text in [
        format!(r#"{{"events":[{event}],"events":[{event}]}}"#),
        format!(r#"{{"events":[{event}],"more":1}}"#),
        format!(r#"{{"events":[{event}]"#),
        format!(r#"{{"events":[{event}]}} x"#),
    ] {
        assert_eq!(read_batch_of(Format::Orb, &text).unwrap_err().code, Code::Document, "{text}");
    }
    // what is no wrapper is one event, and kept whole
    for text in [r#"{"more":1,"events":[]}"#, r#"{"events":{}}"#, r#"{"event":{}}"#] {
        assert_eq!(refusal(Format::Orb, text).0, reason::UNKNOWN_FIELD, "{text}");
    }
    // a bad element stops no other
    let read = all(Format::Orb, r#"{"events":[7,{"x":"\ud800"},{}]}"#);
    let reasons: Vec<_> = read.into_iter().map(|read| read.unwrap_err().reason).collect();
    assert_eq!(reasons, [reason::BAD_JSON, reason::BAD_JSON, reason::MISSING_FIELD]);
}

#[test]
fn unix_time_is_read_digit_by_digit() {
    for (text, expected) in [
        ("0", "1970-01-01T00:00:00Z"),
        ("1680210639", "2023-03-30T21:10:39Z"),
        ("1680210639.9999999", "2023-03-30T21:10:39.999999Z"),
        ("1680210639.000001", "2023-03-30T21:10:39.000001Z"),
        ("-1", "1969-12-31T23:59:59Z"),
        ("-0.0000001", "1969-12-31T23:59:59.999999Z"),
        ("-62135596800", "0001-01-01T00:00:00Z"),
        ("253402300799.999999", "9999-12-31T23:59:59.999999Z"),
    ] {
        assert_eq!(unix_instant(text).unwrap().to_string(), expected, "{text}");
    }
    for text in [
        "",
        "-",
        ".5",
        "5.",
        "01",
        "1e9",
        "+1",
        "1 ",
        "253402300800",
        "-62135596800.1",
        "9999999999999999999",
    ] {
        assert_eq!(unix_instant(text), None, "{text}");
    }
}

#[derive(Debug, Clone)]
struct Sample {
    customer: String,
    source: String,
    id: String,
    event_type: String,
    micros: i64,
    properties: Vec<(String, String)>,
}

impl Sample {
    fn time(&self) -> String {
        Instant(self.micros).to_string()
    }

    /// Seconds since 1970 with six places.
    fn unix(&self) -> String {
        format!("{}.{:06}", self.micros / 1_000_000, self.micros % 1_000_000)
    }

    fn properties(&self) -> String {
        let fields: Vec<String> =
            self.properties.iter().map(|(key, value)| format!("{}:{value}", text(key))).collect();
        format!("{{{}}}", fields.join(","))
    }

    /// Numbers as the strings that some senders write.
    fn stringly(&self) -> Vec<String> {
        let canonical = |value: &String| json::parse(value).unwrap().canonical().unwrap();
        self.properties
            .iter()
            .map(|(key, value)| {
                let value = if value.starts_with('"') { value.clone() } else { text(&canonical(value)) };
                format!("{}:{value}", text(key))
            })
            .collect()
    }

    fn native(&self, event_id: &str) -> String {
        format!(
            r#"{{"customer":{},"event_id":{},"event_type":{},"occurred_at":"{}","properties":{}}}"#,
            text(&self.customer),
            text(event_id),
            text(&self.event_type),
            self.time(),
            self.properties()
        )
    }

    fn written(&self, format: Format) -> String {
        let (customer, id, kind, time) =
            (text(&self.customer), text(&self.id), text(&self.event_type), self.time());
        let properties = self.properties();
        let strings = self.stringly();
        match format {
            Format::Native => self.native(&self.id),
            Format::CloudEvents => format!(
                r#"{{"specversion":"1.0","id":{id},"source":{},"type":{kind},"subject":{customer},"time":"{time}","data":{properties}}}"#,
                text(&self.source)
            ),
            Format::Stripe => {
                let mut payload = strings;
                payload.push(format!("\"stripe_customer_id\":{customer}"));
                let payload = payload.join(",");
                format!(
                    r#"{{"event_name":{kind},"identifier":{id},"timestamp":{},"payload":{{{payload}}}}}"#,
                    self.unix()
                )
            }
            Format::Orb => format!(
                r#"{{"event_name":{kind},"idempotency_key":{id},"timestamp":"{time}","external_customer_id":{customer},"properties":{properties}}}"#
            ),
            Format::Metronome => format!(
                r#"{{"transaction_id":{id},"customer_id":{customer},"event_type":{kind},"timestamp":"{time}","properties":{{{}}}}}"#,
                strings.join(",")
            ),
            Format::Lago => format!(
                r#"{{"transaction_id":{id},"external_subscription_id":{customer},"code":{kind},"timestamp":"{}","properties":{{{}}}}}"#,
                self.unix(),
                strings.join(",")
            ),
        }
    }
}

fn text(value: &str) -> String {
    let mut out = String::new();
    write_text(&mut out, value);
    out
}

prop_compose! {
    fn any_sample()(
        customer in "[a-z]{1,8}", source in "[a-z/:]{1,8}", id in "[ -~é]{1,20}", event_type in "[a-z.]{1,8}",
        micros in 0i64..4_102_444_800_000_000,
        properties in prop::collection::btree_map("[a-z]{1,6}", prop_oneof![
            "-?[1-9][0-9]{0,12}(\\.[0-9]{0,5}[1-9])?", "(0|[1-9][0-9]{0,3})\\.0", "\"[a-z]{0,8}\"", Just("\"1.50\"".to_string())
        ], 0..5),
    ) -> Sample {
        // `value` of Stripe is always a number
        let properties = properties.into_iter().filter(|(key, _)| key != "value").collect();
        Sample { customer, source, id, event_type, micros, properties }
    }
}

proptest! {
    /// An event is the same event, with the same identity and content hash, in every format that can say it.
    #[test]
    fn the_same_event_in_every_format(sample in any_sample()) {
        for format in Format::ALL {
            let event_id = match format {
                Format::CloudEvents => format!("{} {}", sample.source, sample.id),
                _ => sample.id.clone(),
            };
            let native = sample.native(&event_id);
            let native = read_batch(&native).unwrap().remove(0).unwrap().into_owned();
            let written = sample.written(format);
            prop_assert_eq!(one(format, &written).map(Event::into_owned), Ok(native), "{}", written);
        }
    }

    /// A string that becomes a number reads as before wherever text is read.
    #[test]
    fn numbers_from_strings_read_the_same(value in "-?[0-9]{1,30}(\\.[0-9]{0,4})?") {
        let made = canonical_numbers(Some(Tree::Object(vec![("n".into(), Tree::text(value.clone()))])));
        let Some(Tree::Object(fields)) = made else { panic!("an object") };
        match &fields[0].1 {
            Tree::Text(text) => prop_assert_eq!(text.as_ref(), value.as_str()),
            number => prop_assert_eq!(number.canonical().unwrap(), value),
        }
    }

    /// Whatever stands in a document, its events are taken or refused, whole, or it is no document.
    #[test]
    fn hostile_documents_are_taken_or_refused(
        format in 0usize..6, sample in any_sample(),
        patches in prop::collection::vec((0usize..400, r#"[\[\]{}",:0-9eE.\-a-z\\u ]{0,3}"#, 0usize..3), 0..4),
    ) {
        let format = Format::ALL[format];
        let mut text = format!("{{\"events\":[{}]}}", sample.written(format));
        for (at, patch, length) in patches {
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let end = (at..=(at + length).min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap();
            text.replace_range(at..end, &patch);
        }
        if let Ok(events) = read_batch_of(format, &text) {
            for refused in events.into_iter().filter_map(Result::err) {
                prop_assert!(text.contains(&refused.raw));
                prop_assert_eq!(refused.format, format);
            }
        }
    }
}
