//! Which events a meter looks at: a JSON object of conditions that must all hold.
//!
//! ```json
//! {"model": "gpt-4", "region": ["eu", "us"], "usage.input_tokens": {"gte": 1000, "lt": 5000}, "test": {"exists": false}}
//! ```
//!
//! Keys are property paths ([`Path::parse`]). Numbers compare by value (1 and 1.0 are equal), strings by
//! their bytes, and a value of another type is simply another value: `"1"` is not 1, nor before or after
//! it. As in SQL nothing holds for a property that is absent or null, `ne` included, but `{"exists": false}`.

use super::expression::Comparison;
use super::path::Path;
use super::scalar;
use crate::domain::foundation::decimal::{Exact, quoted};
use crate::domain::foundation::fault::{Code, Fault};
use crate::domain::foundation::json::{Node, Tree};
use std::borrow::Cow;

/// Most properties a filter may name.
pub const FILTER_CONDITIONS_MAX: usize = 100;
/// Most values in one list.
pub const FILTER_VALUES_MAX: usize = 1_000;

const OPERATORS: [&str; 8] = ["eq", "ne", "gt", "gte", "lt", "lte", "prefix", "exists"];

/// Conditions that must all hold. The default has none and lets every event through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(Vec<Condition>);

/// The tests of one property; sorted by path, paths unique.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    path: Path,
    tests: Vec<Test>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// Sorted, without repeats, at least one: `eq` has one value, a list may have more.
    OneOf(Vec<Scalar>),
    /// `ne` and the orderings; these only with numbers and texts.
    Compare(Comparison, Scalar),
    Prefix(String),
    Exists(bool),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Scalar {
    Bool(bool),
    Number(Exact),
    Text(String),
}

impl Filter {
    /// Reads the `filter` of a meter document.
    pub fn read(node: &Node<'_>) -> Result<Filter, Fault> {
        let entries = node.entries()?;
        if entries.len() > FILTER_CONDITIONS_MAX {
            return Err(Fault::new(
                Code::Bound,
                format!("{}: has {} conditions; at most {FILTER_CONDITIONS_MAX}", node.path, entries.len()),
            ));
        }
        let mut conditions = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let path = Path::parse(key).map_err(|fault| value.rehint(fault))?;
            conditions.push(Condition { path, tests: read_tests(&value)? });
        }
        conditions.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(pair) = conditions.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(node.fault(format!("{} stands twice", pair[0].path)));
        }
        Ok(Filter(conditions))
    }

    /// The one form of this filter: [`read`](Filter::read) reads it back to an equal one.
    pub fn to_tree(&self) -> Tree<'static> {
        let fields = self.0.iter().map(|condition| {
            let value = match condition.tests.as_slice() {
                [Test::OneOf(values)] => match values.as_slice() {
                    [one] => one.to_tree(),
                    many => Tree::List(many.iter().map(Scalar::to_tree).collect()),
                },
                tests => Tree::Object(tests.iter().map(Test::to_field).collect()),
            };
            (Cow::Owned(condition.path.to_string()), value)
        });
        Tree::Object(fields.collect())
    }

    /// How many properties it has conditions on: the more, the more specific it is.
    pub fn conditions(&self) -> usize {
        self.0.len()
    }

    /// Whether every condition holds. A fault is a number that can't be compared: over 28 digits.
    pub fn matches(&self, properties: &Tree<'_>) -> Result<bool, Fault> {
        for condition in &self.0 {
            let found = condition.path.find(properties);
            for test in &condition.tests {
                if !test.holds(found).map_err(|why| Fault::value(format!("{} {why}", condition.path)))? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

fn read_tests(node: &Node<'_>) -> Result<Vec<Test>, Fault> {
    match node.tree {
        Tree::List(_) => {
            let items = node.items_at_most(FILTER_VALUES_MAX)?;
            if items.is_empty() {
                return Err(node.fault("is an empty list, which no event can match"));
            }
            let mut values = items.iter().map(Scalar::read).collect::<Result<Vec<_>, _>>()?;
            values.sort();
            values.dedup();
            Ok(vec![Test::OneOf(values)])
        }
        Tree::Object(_) => read_operators(node),
        _ => Ok(vec![Test::OneOf(vec![Scalar::read(node)?])]),
    }
}

fn read_operators(node: &Node<'_>) -> Result<Vec<Test>, Fault> {
    let mut fields = node.fields_of(&OPERATORS)?;
    let mut tests = Vec::new();
    // In this order whatever the document's, so that equal filters have equal forms.
    for operator in OPERATORS {
        let Some(operand) = fields.raw(operator) else { continue };
        tests.push(match operator {
            "eq" => Test::OneOf(vec![Scalar::read(&operand)?]),
            "ne" => Test::Compare(Comparison::NotEqual, Scalar::read(&operand)?),
            "gt" => Test::Compare(Comparison::Greater, Scalar::read_ordered(&operand)?),
            "gte" => Test::Compare(Comparison::GreaterOrEqual, Scalar::read_ordered(&operand)?),
            "lt" => Test::Compare(Comparison::Less, Scalar::read_ordered(&operand)?),
            "lte" => Test::Compare(Comparison::LessOrEqual, Scalar::read_ordered(&operand)?),
            "prefix" => Test::Prefix(operand.text()?.to_string()),
            _ => Test::Exists(operand.boolean()?),
        });
    }
    fields.finish()?;
    if tests.is_empty() {
        return Err(node
            .fault("has no operator")
            .with_hint("Use eq, ne, gt, gte, lt, lte, prefix or exists."));
    }
    if tests.len() > 1 && tests.contains(&Test::Exists(false)) {
        return Err(node.fault("asks an absent property for more, which no event can match"));
    }
    Ok(tests)
}

impl Scalar {
    fn read(node: &Node<'_>) -> Result<Scalar, Fault> {
        match node.tree {
            Tree::Bool(value) => Ok(Scalar::Bool(*value)),
            Tree::Text(text) => Ok(Scalar::Text(text.to_string())),
            Tree::Number(text) => Exact::parse(text).map(Scalar::Number).map_err(|fault| node.rehint(fault)),
            Tree::Null => Err(node
                .fault("must have a value")
                .with_hint("Nothing equals null; {\"exists\":false} matches what is absent or null.")),
            Tree::List(_) | Tree::Object(_) => Err(node.fault("must be a string, a number or a boolean")),
        }
    }

    fn read_ordered(node: &Node<'_>) -> Result<Scalar, Fault> {
        match Scalar::read(node)? {
            Scalar::Bool(_) => Err(node.fault("must be a number or a string: booleans have no order")),
            ordered => Ok(ordered),
        }
    }

    fn to_tree(&self) -> Tree<'static> {
        match self {
            Scalar::Bool(value) => Tree::Bool(*value),
            Scalar::Number(value) => Tree::number(value),
            Scalar::Text(text) => Tree::text(text.clone()),
        }
    }

    /// How a property compares with this; `None` if it is of another type.
    fn compare(&self, found: &Tree<'_>) -> Result<Option<std::cmp::Ordering>, String> {
        match (self, found) {
            (Scalar::Text(text), Tree::Text(found)) => Ok(Some(found.as_ref().cmp(text.as_str()))),
            (Scalar::Bool(value), Tree::Bool(found)) => Ok(Some(found.cmp(value))),
            (Scalar::Number(value), Tree::Number(found)) => {
                let number =
                    Exact::parse(found).map_err(|_| format!("{} {}", quoted(found), scalar::TOO_LONG))?;
                Ok(Some(number.cmp(value)))
            }
            _ => Ok(None),
        }
    }
}

impl Test {
    fn holds(&self, found: Option<&Tree<'_>>) -> Result<bool, String> {
        let Some(found) = found else { return Ok(*self == Test::Exists(false)) };
        match self {
            Test::OneOf(values) => {
                for value in values {
                    if value.compare(found)?.is_some_and(std::cmp::Ordering::is_eq) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Test::Compare(comparison, value) => {
                let order = value.compare(found)?;
                Ok(order.map_or(*comparison == Comparison::NotEqual, |order| comparison.holds(order)))
            }
            Test::Prefix(prefix) => {
                Ok(matches!(found, Tree::Text(text) if text.starts_with(prefix.as_str())))
            }
            Test::Exists(wanted) => Ok(*wanted),
        }
    }

    fn to_field(&self) -> (Cow<'static, str>, Tree<'static>) {
        let (name, value) = match self {
            Test::OneOf(values) => ("eq", values[0].to_tree()),
            Test::Compare(comparison, value) => {
                let name = match comparison {
                    Comparison::Equal => "eq",
                    Comparison::NotEqual => "ne",
                    Comparison::Less => "lt",
                    Comparison::LessOrEqual => "lte",
                    Comparison::Greater => "gt",
                    Comparison::GreaterOrEqual => "gte",
                };
                (name, value.to_tree())
            }
            Test::Prefix(prefix) => ("prefix", Tree::text(prefix.clone())),
            Test::Exists(wanted) => ("exists", Tree::Bool(*wanted)),
        };
        (Cow::Borrowed(name), value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Filter, Fault> {
        let tree = json::parse(text).unwrap();
        Filter::read(&Node { tree: &tree, path: "filter".into() })
    }

    fn matches(filter: &str, properties: &str) -> bool {
        read(filter).unwrap().matches(&json::parse(properties).unwrap()).unwrap()
    }

    #[test]
    fn all_conditions_must_hold() {
        let event = r#"{"model":"gpt-4","region":"eu","n":1000,"x":{"y":0.50,"null":null},"on":true,"odd.name":"z","list":["eu"]}"#;
        for (filter, expected) in [
            ("{}", true),
            (r#"{"model":"gpt-4"}"#, true),
            (r#"{"model":"gpt"}"#, false),
            (r#"{"model":"GPT-4"}"#, false),
            (r#"{"region":["us","eu"]}"#, true),
            (r#"{"region":["us","uk"]}"#, false),
            (r#"{"region":["us",1,true,"eu"]}"#, true),
            (r#"{"model":"gpt-4","region":"us"}"#, false),
            (r#"{"n":1000.0}"#, true),
            (r#"{"n":1e3}"#, true),
            (r#"{"n":"1000"}"#, false),
            (r#"{"n":{"gte":1000}}"#, true),
            (r#"{"n":{"gt":1000}}"#, false),
            (r#"{"n":{"gt":999.999999999999}}"#, true),
            (r#"{"n":{"gte":1000,"lt":1000.000000000001}}"#, true),
            (r#"{"n":{"gte":1,"lte":999}}"#, false),
            (r#"{"n":{"gte":"1"}}"#, false),
            (r#"{"n":{"lt":"2"}}"#, false),
            (r#"{"n":{"ne":"1000"}}"#, true),
            (r#"{"n":{"ne":1e3}}"#, false),
            (r#"{"n":{"prefix":"1"}}"#, false),
            (r#"{"model":{"prefix":"gpt-"}}"#, true),
            (r#"{"model":{"prefix":""}}"#, true),
            (r#"{"model":{"prefix":"gpt-44"}}"#, false),
            (r#"{"model":{"prefix":"gpt","ne":"gpt-4"}}"#, false),
            (r#"{"model":{"gt":"gpt-3.5","lt":"gpt-5"}}"#, true),
            (r#"{"model":{"eq":"gpt-4"}}"#, true),
            (r#"{"on":true}"#, true),
            (r#"{"on":"true"}"#, false),
            (r#"{"on":{"ne":false}}"#, true),
            (r#"{"x.y":0.5}"#, true),
            (r#"{"x.\"y\"":{"lte":0.5}}"#, true),
            (r#"{"x":{"exists":true}}"#, true),
            (r#"{"x.null":{"exists":true}}"#, false),
            (r#"{"x.null":{"exists":false}}"#, true),
            (r#"{"gone":{"exists":false}}"#, true),
            (r#"{"gone.deeper":{"exists":false}}"#, true),
            (r#"{"gone":{"ne":"a"}}"#, false),
            (r#"{"gone":{"lt":1}}"#, false),
            (r#"{"gone":"a"}"#, false),
            (r#"{"odd.name":"z"}"#, false),
            (r#"{"\"odd.name\"":"z"}"#, true),
            (r#"{"list":"eu"}"#, false),
            (r#"{"list":{"ne":"eu"}}"#, true),
        ] {
            assert_eq!(matches(filter, event), expected, "{filter}");
        }
        let hostile = json::parse(r#"{"n":1e400}"#).unwrap();
        let fault = read(r#"{"n":{"gt":1}}"#).unwrap().matches(&hostile).unwrap_err();
        assert_eq!(fault.message, "n \"1e400\" has more than 28 digits");
        assert!(read(r#"{"n":{"ne":"a"}}"#).unwrap().matches(&hostile).unwrap());
    }

    #[test]
    fn prints_one_form() {
        for (filter, canonical) in [
            ("{}", "{}"),
            (r#"{"b":"x","a":["y"]}"#, r#"{"a":"y","b":"x"}"#),
            (r#"{"a":{"eq":1.0}}"#, r#"{"a":1}"#),
            (r#"{"a":["b","a",2,"b",1.0,true]}"#, r#"{"a":[true,1,2,"a","b"]}"#),
            (r#"{"a":{"lt":2,"gte":1.50,"eq":"x"}}"#, r#"{"a":{"eq":"x","gte":1.5,"lt":2}}"#),
            (r#"{"\"a\".user-id":{"exists":true}}"#, r#"{"a.\"user-id\"":{"exists":true}}"#),
        ] {
            let tree = read(filter).unwrap().to_tree();
            assert_eq!(tree.canonical().unwrap(), canonical);
            assert_eq!(read(canonical).unwrap(), read(filter).unwrap());
        }
    }

    #[test]
    fn refuses_with_the_path() {
        for (filter, message) in [
            ("[]", "filter: must be an object, not an array"),
            (r#"{"a":null}"#, "filter.a: must have a value"),
            (r#"{"a":[]}"#, "filter.a: is an empty list"),
            (r#"{"a":[null]}"#, "filter.a[0]: must have a value"),
            (r#"{"a":[["b"]]}"#, "filter.a[0]: must be a string, a number or a boolean"),
            (r#"{"a":{}}"#, "filter.a: has no operator"),
            (r#"{"a":{"like":"x"}}"#, "filter.a.like: is not a field of this document"),
            (r#"{"a":{"eq":["x"]}}"#, "filter.a.eq: must be a string, a number or a boolean"),
            (r#"{"a":{"gt":true}}"#, "filter.a.gt: must be a number or a string"),
            (r#"{"a":{"gt":null}}"#, "filter.a.gt: must have a value"),
            (r#"{"a":{"prefix":1}}"#, "filter.a.prefix: must be a string"),
            (r#"{"a":{"exists":"yes"}}"#, "filter.a.exists: must be true or false"),
            (r#"{"a":{"exists":false,"eq":1}}"#, "filter.a: asks an absent property for more"),
            (r#"{"a":{"gt":1e40}}"#, "filter.a.gt: \"1e40\" needs more than 28 digits"),
            (r#"{"":1}"#, "filter.: \"\" has an empty part"),
            (r#"{"a..b":1}"#, "filter.a..b: \"a..b\" has an empty part"),
            (r#"{"a":1,"\"a\"":2}"#, "filter: a stands twice"),
        ] {
            let message_found = read(filter).unwrap_err().message;
            assert!(message_found.starts_with(message), "{filter}: {message_found}");
        }
    }

    #[test]
    fn bounds_hold_at_the_limit_and_one_beyond() {
        let conditions = |n: usize| {
            let fields: Vec<String> = (0..n).map(|i| format!("\"p{i}\":{i}")).collect();
            format!("{{{}}}", fields.join(","))
        };
        assert!(read(&conditions(FILTER_CONDITIONS_MAX)).is_ok());
        assert_eq!(read(&conditions(FILTER_CONDITIONS_MAX + 1)).unwrap_err().code, Code::Bound);
        let list = |n: usize| {
            let values: Vec<String> = (0..n).map(|i| i.to_string()).collect();
            format!("{{\"a\":[{}]}}", values.join(","))
        };
        assert!(read(&list(FILTER_VALUES_MAX)).is_ok());
        assert_eq!(read(&list(FILTER_VALUES_MAX + 1)).unwrap_err().code, Code::Bound);
    }

    fn any_scalar() -> impl Strategy<Value = Scalar> {
        prop_oneof![
            any::<bool>().prop_map(Scalar::Bool),
            (-50i64..50, 0u32..2).prop_map(|(m, s)| Scalar::Number(Exact::from_parts(m.into(), s).unwrap())),
            "[a-c]{0,2}".prop_map(Scalar::Text),
        ]
    }

    proptest! {
        /// One property of each kind against one test of each kind: what it means, written once more.
        #[test]
        fn means_what_it_says(value in any_scalar(), operand in any_scalar(), op in 0usize..8) {
            let name = ["eq", "ne", "gt", "gte", "lt", "lte", "prefix", "exists"][op];
            let document = |scalar: &Scalar| scalar.to_tree().canonical().unwrap();
            let operand_text = if name == "exists" { "true".to_string() } else { document(&operand) };
            let Ok(filter) = read(&format!(r#"{{"p":{{"{name}":{operand_text}}}}}"#)) else {
                prop_assert!(matches!(operand, Scalar::Bool(_)) || !matches!(operand, Scalar::Text(_)) && name == "prefix");
                return Ok(());
            };
            let same_type = std::mem::discriminant(&value) == std::mem::discriminant(&operand);
            let expected = match name {
                "eq" => value == operand,
                "ne" => value != operand,
                "gt" => same_type && value > operand,
                "gte" => same_type && value >= operand,
                "lt" => same_type && value < operand,
                "lte" => same_type && value <= operand,
                "prefix" => matches!((&value, &operand), (Scalar::Text(v), Scalar::Text(o)) if v.starts_with(o.as_str())),
                _ => true,
            };
            let properties = format!(r#"{{"p":{}}}"#, document(&value));
            prop_assert_eq!(filter.matches(&json::parse(&properties).unwrap()).unwrap(), expected);
            let again = filter.to_tree();
            prop_assert_eq!(Filter::read(&Node::root(&again)).unwrap(), filter);
        }
    }
}
