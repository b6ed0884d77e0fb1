//! A dimension set: declared dimension names and the values one event has on them.

use crate::domain::foundation::fault::Fault;
use crate::domain::foundation::hash::sha256_i53;
use crate::domain::foundation::json::{Node, Tree};
use crate::domain::metering::scalar;
use std::borrow::Cow;

/// The reserved dimension of every meter: the legal entity inside the customer that is invoiced.
pub const BILL_TO: &str = "bill_to";
/// The dimension of a meter with several filters: the name of the one that an event matched.
pub const FILTER: &str = "filter";
/// Longest dimension value in bytes.
pub const VALUE_BYTES_MAX: usize = 256;

/// Names and values, sorted by name, names unique. A dimension that is absent is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dimensions(Vec<(String, String)>);

impl Dimensions {
    /// The empty set.
    pub fn new() -> Dimensions {
        Dimensions(Vec::new())
    }

    /// Sets the value of a name.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        match self.0.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(at) => self.0[at].1 = value.into(),
            Err(at) => self.0.insert(at, (name.to_string(), value.into())),
        }
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Only the named dimensions.
    pub fn project(&self, names: &[String]) -> Dimensions {
        Dimensions(self.0.iter().filter(|(n, _)| names.contains(n)).cloned().collect())
    }

    /// Whether every given dimension has exactly the given value here. The empty match holds for all.
    pub fn matches(&self, wanted: &Dimensions) -> bool {
        wanted.iter().all(|(name, value)| self.get(name) == Some(value))
    }

    /// Whether one event could match both: no dimension is asked for with two values.
    pub fn compatible(&self, other: &Dimensions) -> bool {
        self.iter().all(|(name, value)| other.get(name).is_none_or(|theirs| theirs == value))
    }

    /// Canonical JSON: `{"model":"gpt-4","region":"eu"}`.
    pub fn canonical(&self) -> String {
        self.to_tree().canonical().expect("a set of strings is always canonical")
    }

    /// The set's id: 53 bits of SHA-256 of its canonical JSON.
    pub fn id(&self) -> i64 {
        sha256_i53(self.canonical().as_bytes())
    }

    /// The set as an object of strings.
    pub fn to_tree(&self) -> Tree<'static> {
        Tree::Object(self.0.iter().map(|(n, v)| (Cow::Owned(n.clone()), Tree::text(v.clone()))).collect())
    }

    /// Reads `{"model":"gpt-4"}`: an object of strings, numbers and booleans (as their canonical text).
    pub fn read(node: &Node) -> Result<Dimensions, Fault> {
        let mut set = Dimensions::new();
        for (name, value) in node.entries()? {
            let text = value_text(value.tree).map_err(|why| value.fault(why))?;
            set.set(name, text.ok_or_else(|| value.fault("must have a value"))?.into_owned());
        }
        Ok(set)
    }
}

/// The text of a dimension value: the string itself, a number or boolean its canonical text, `None` for
/// null. Objects, arrays and values over 256 bytes are refused with a reason.
pub fn value_text<'t>(tree: &'t Tree<'_>) -> Result<Option<Cow<'t, str>>, String> {
    let text = match tree {
        Tree::List(_) | Tree::Object(_) => {
            return Err("a dimension value must be a string, a number or a boolean".into());
        }
        scalar => scalar::text(scalar)?,
    };
    match text {
        Some(text) if text.len() > VALUE_BYTES_MAX => {
            Err(format!("a dimension value has at most {VALUE_BYTES_MAX} bytes, this one has {}", text.len()))
        }
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;

    fn set(text: &str) -> Dimensions {
        Dimensions::read(&Node::root(&json::parse(text).unwrap())).unwrap()
    }

    #[test]
    fn matches_projects_and_compares() {
        assert!(Dimensions::new().is_empty() && !set(r#"{"a":"1"}"#).is_empty());
        let full = set(r#"{"region":"eu","model":"gpt-4","n":1.50,"b":true}"#);
        assert_eq!(full.canonical(), r#"{"b":"true","model":"gpt-4","n":"1.5","region":"eu"}"#);
        assert!(full.matches(&set("{}")) && full.matches(&set(r#"{"model":"gpt-4"}"#)));
        assert!(!full.matches(&set(r#"{"model":"gpt-3.5"}"#)) && !set("{}").matches(&full));
        assert_eq!(full.project(&["model".into(), "absent".into()]).canonical(), r#"{"model":"gpt-4"}"#);
        assert!(set(r#"{"model":"a"}"#).compatible(&set(r#"{"region":"eu"}"#)));
        assert!(!set(r#"{"model":"a"}"#).compatible(&set(r#"{"model":"b","region":"eu"}"#)));
    }

    /// Ids are stored, so they never change.
    #[test]
    fn golden_ids() {
        assert_eq!(set("{}").id(), crate::domain::foundation::hash::sha256_i53(b"{}"));
        assert_eq!(set(r#"{"model":"gpt-4"}"#).id(), sha256_i53(br#"{"model":"gpt-4"}"#));
        assert!(set(r#"{"model":"gpt-4"}"#).id() < 1 << 53);
    }

    #[test]
    fn refuses_values_that_are_not_scalar_or_too_long() {
        let read = |text: &str| Dimensions::read(&Node::root(&json::parse(text).unwrap()));
        assert!(read(r#"{"a":[1]}"#).is_err() && read(r#"{"a":null}"#).is_err());
        assert!(read(&format!(r#"{{"a":"{}"}}"#, "x".repeat(256))).is_ok());
        assert!(read(&format!(r#"{{"a":"{}"}}"#, "x".repeat(257))).is_err());
    }
}
