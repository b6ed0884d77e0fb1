//! What is consumed is an ordinary event: what it must say so that the meter counts what was asked for.

use crate::domain::foundation::json::Tree;
use crate::domain::foundation::{Exact, Fault};
use crate::domain::metering::Dimensions;
use crate::domain::metering::aggregate::{Aggregation, Contribution};
use crate::domain::metering::meter::{Measured, Meter};

/// The event's properties, and what it is on the meter.
#[derive(Debug, Clone, PartialEq)]
pub struct Worth {
    pub properties: Tree<'static>,
    pub quantity: Exact,
    pub dimensions: Dimensions,
}

/// `asked` is how much is consumed; 1 also stands for what is not said, so that properties may say more. A sum of one
/// property gets it where the properties don't have it.
pub fn worth(meter: &Meter, asked: Exact, properties: &Tree, bill_to: Option<&str>) -> Result<Worth, Fault> {
    if asked.is_negative() {
        return Err(Fault::value(format!("{asked} can't be consumed")).with_hint("Consume 0 or more."));
    }
    let counts =
        matches!(meter.aggregation, Aggregation::Count | Aggregation::Sum) && meter.adds_up_in_time();
    if !counts {
        let message = format!("meter {} is a {}, which does not add up", meter.key, meter.aggregation.word());
        return Err(Fault::value(message)
            .with_hint("Counts and sums are consumed; for others send events by billing.ingest(), for seats use billing.seat_assign()."));
    }
    let one = Exact::from_i64(1);
    let mut properties = properties.clone().into_owned();
    if let Some(path) = meter.value.as_ref().and_then(|value| value.as_property())
        && path.find(&properties).is_none()
    {
        properties = path.put(properties, Tree::number(asked)).ok_or_else(|| {
            Fault::value(format!("{path} can't be set in these properties"))
                .with_hint("Give it among the properties.")
        })?;
    }
    let (dimensions, value) = match meter.measure(&properties, bill_to) {
        Measured::Counted { dimensions, value } => (dimensions, value),
        Measured::Refused(fault) => return Err(fault),
        Measured::NotCounted => {
            return Err(Fault::value(format!("such an event does not count on meter {}", meter.key))
                .with_hint("Give the properties that its filter asks for."));
        }
        Measured::Skipped(_) => {
            return Err(Fault::value(format!("such an event has no value on meter {}", meter.key))
                .with_hint("Its value needs properties that are not given."));
        }
    };
    let quantity = match value {
        Contribution::Number(number) => number,
        _ => one,
    };
    if quantity.is_negative() {
        return Err(Fault::value(format!("{quantity} can't be consumed")).with_hint("Consume 0 or more."));
    }
    if asked != one && asked != quantity {
        let message =
            format!("{asked} is to be consumed, but the event counts {quantity} on meter {}", meter.key);
        let hint = match meter.aggregation {
            Aggregation::Count => {
                "A count takes 1 per event: call it once for each, or let a sum be the meter."
            }
            _ => "Leave the quantity out where the properties say it.",
        };
        return Err(Fault::value(message).with_hint(hint));
    }
    Ok(Worth { properties, quantity, dimensions })
}

/// The event by which a seat is taken or left, on a meter that counts who is there: who and what where the meter looks
/// for them, how many there are then, and the change. `None` where the meter looks at what can't be set.
pub fn seat_event(meter: &Meter, holder: &str, leaves: bool, seats: Exact) -> Option<Tree<'static>> {
    let who = meter.value.as_ref()?.as_property()?;
    let what = meter.operation.as_ref()?;
    let change = if leaves { -1 } else { 1 };
    let properties = Tree::object([("seats", Tree::number(seats)), ("change", Tree::number(change))]);
    let properties = who.put(properties, Tree::text(holder))?;
    what.put(properties, Tree::text(if leaves { "remove" } else { "add" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json::{self, Node};

    fn meter(fields: &str) -> Meter {
        let text = format!(r#"{{"key":"m","event_type":"t",{fields}}}"#);
        Meter::read(&Node::root(&json::parse(&text).unwrap())).unwrap()
    }

    fn ask(meter: &Meter, asked: &str, properties: &str) -> Result<(String, String), String> {
        let asked = Exact::parse(asked).unwrap();
        worth(meter, asked, &json::parse(properties).unwrap(), None)
            .map(|w| (w.properties.canonical().unwrap(), w.quantity.to_string()))
            .map_err(|fault| fault.message)
    }

    fn ok(properties: &str, quantity: &str) -> Result<(String, String), String> {
        Ok((properties.into(), quantity.into()))
    }

    #[test]
    fn sums_of_a_property_get_it() {
        let plain = meter(r#""aggregation":"sum","value":"tokens""#);
        assert_eq!(ask(&plain, "812", "{}"), ok(r#"{"tokens":812}"#, "812"));
        assert_eq!(ask(&plain, "0.5", r#"{"a":1}"#), ok(r#"{"a":1,"tokens":0.5}"#, "0.5"));
        assert_eq!(ask(&plain, "1", r#"{"tokens":7}"#), ok(r#"{"tokens":7}"#, "7"));
        assert_eq!(ask(&plain, "7", r#"{"tokens":7}"#), ok(r#"{"tokens":7}"#, "7"));
        assert_eq!(
            ask(&plain, "8", r#"{"tokens":7}"#),
            Err("8 is to be consumed, but the event counts 7 on meter m".into())
        );
        assert_eq!(ask(&plain, "1", r#"{"tokens":-7}"#), Err("-7 can't be consumed".into()));
        let nested = meter(r#""aggregation":"sum","value":"usage.\"in put\"""#);
        assert_eq!(ask(&nested, "3", r#"{"usage":{"b":1}}"#), ok(r#"{"usage":{"b":1,"in put":3}}"#, "3"));
        assert_eq!(ask(&nested, "3", r#"{"usage":{"in put":null}}"#), ok(r#"{"usage":{"in put":3}}"#, "3"));
        assert_eq!(ask(&nested, "3", "{}"), ok(r#"{"usage":{"in put":3}}"#, "3"));
        assert_eq!(
            ask(&nested, "3", r#"{"usage":5}"#),
            Err("usage.\"in put\" can't be set in these properties".into())
        );
    }

    #[test]
    fn other_sums_are_measured() {
        let both = meter(r#""aggregation":"sum","value":"input + output""#);
        assert_eq!(ask(&both, "1", r#"{"input":3,"output":4}"#), ok(r#"{"input":3,"output":4}"#, "7"));
        assert_eq!(ask(&both, "9", "{}"), Err("such an event has no value on meter m".into()));
    }

    #[test]
    fn seats_say_who_came_and_how_many_there_are() {
        let seats = meter(r#""aggregation":"unique_count","value":"user.id","operation":"operation""#);
        let say = |meter: &Meter, leaves| {
            seat_event(meter, "u1", leaves, Exact::from_i64(3)).map(|event| event.canonical().unwrap())
        };
        assert_eq!(
            say(&seats, false).unwrap(),
            r#"{"change":1,"operation":"add","seats":3,"user":{"id":"u1"}}"#
        );
        assert_eq!(
            say(&seats, true).unwrap(),
            r#"{"change":-1,"operation":"remove","seats":3,"user":{"id":"u1"}}"#
        );
        assert_eq!(say(&meter(r#""aggregation":"unique_count","value":"user""#), true), None);
        assert_eq!(
            say(&meter(r#""aggregation":"unique_count","value":"change.x","operation":"o""#), true),
            None
        );
    }

    #[test]
    fn counts_take_one() {
        let count = meter(r#""aggregation":"count","filter":{"kind":"a"}"#);
        assert_eq!(ask(&count, "1", r#"{"kind":"a"}"#), ok(r#"{"kind":"a"}"#, "1"));
        assert_eq!(
            ask(&count, "2", r#"{"kind":"a"}"#),
            Err("2 is to be consumed, but the event counts 1 on meter m".into())
        );
        assert_eq!(ask(&count, "1", "{}"), Err("such an event does not count on meter m".into()));
        let max = meter(r#""aggregation":"max","value":"n""#);
        assert_eq!(ask(&max, "1", "{}"), Err("meter m is a max, which does not add up".into()));
    }
}
