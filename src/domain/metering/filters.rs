//! Several filters in one meter, each with a name; the most specific one that an event matches has it.
//!
//! ```json
//! [{"name": "gpt4-eu", "filter": {"model": "gpt-4", "region": "eu"}}, {"name": "gpt4", "filter": {"model": "gpt-4"}}]
//! ```
//!
//! The name is the value of the dimension `filter`, so prices match it as they match any other. Of filters with
//! equally many conditions the first in the list wins. An event that matches none does not count.

use super::filter::Filter;
use crate::domain::foundation::fault::{Code, Fault};
use crate::domain::foundation::json::{Node, Tree};
use std::borrow::Cow;

/// Most filters in one meter.
pub const FILTERS_MAX: usize = 100;

/// The filters of a meter. The default has none: the meter does not tell them apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    named: Vec<(String, Filter)>,
    /// Places in `named`, the most specific first.
    order: Vec<usize>,
}

impl Filters {
    /// Reads the `filters` of a meter document.
    pub fn read(node: &Node<'_>) -> Result<Filters, Fault> {
        let items = node.items()?;
        if items.len() > FILTERS_MAX {
            return Err(Fault::new(
                Code::Bound,
                format!("{}: has {} filters; at most {FILTERS_MAX}", node.path, items.len()),
            ));
        }
        if items.is_empty() {
            return Err(node.fault("is an empty list, which no event can match").with_hint("Leave it out."));
        }
        let mut named: Vec<(String, Filter)> = Vec::with_capacity(items.len());
        for item in &items {
            let mut fields = item.fields_of(&["name", "filter"])?;
            let name = fields.required("name")?;
            let text = name.key()?;
            if named.iter().any(|(known, _)| known == text) {
                return Err(name.fault(format!("{text} stands twice")));
            }
            let filter = Filter::read(&fields.required("filter")?)?;
            fields.finish()?;
            named.push((text.to_string(), filter));
        }
        let mut order: Vec<usize> = (0..named.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(named[*at].1.conditions()));
        Ok(Filters { named, order })
    }

    /// The one form of these filters.
    pub fn to_tree(&self) -> Tree<'static> {
        let item = |(name, filter): &(String, Filter)| {
            Tree::Object(vec![
                (Cow::Borrowed("name"), Tree::text(name.clone())),
                (Cow::Borrowed("filter"), filter.to_tree()),
            ])
        };
        Tree::List(self.named.iter().map(item).collect())
    }

    /// Whether the meter has none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The name of the most specific filter that an event matches. A fault is a number that can't be compared.
    pub fn choose(&self, properties: &Tree<'_>) -> Result<Option<&str>, Fault> {
        for at in &self.order {
            let (name, filter) = &self.named[*at];
            if filter.matches(properties)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;

    fn read(text: &str) -> Result<Filters, Fault> {
        let tree = json::parse(text).unwrap();
        Filters::read(&Node { tree: &tree, path: "filters".into() })
    }

    #[test]
    fn the_most_specific_filter_wins() {
        let filters = read(
            r#"[{"name":"any","filter":{}},{"name":"gpt4","filter":{"model":"gpt-4"}},{"name":"eu","filter":{"region":["eu","uk"]}},
                {"name":"gpt4-eu","filter":{"model":"gpt-4","region":"eu"}},{"name":"long","filter":{"n":{"gte":10}}}]"#,
        )
        .unwrap();
        for (event, name) in [
            (r#"{"model":"gpt-4","region":"eu"}"#, "gpt4-eu"),
            (r#"{"model":"gpt-4","region":"uk"}"#, "gpt4"), // one condition each: the first in the list
            (r#"{"model":"gpt-3","region":"uk"}"#, "eu"),
            (r#"{"model":"gpt-3","n":10}"#, "long"),
            (r#"{"model":"gpt-3"}"#, "any"),
        ] {
            assert_eq!(filters.choose(&json::parse(event).unwrap()).unwrap(), Some(name), "{event}");
        }
        let some = read(r#"[{"name":"gpt4","filter":{"model":"gpt-4"}}]"#).unwrap();
        assert_eq!(some.choose(&json::parse("{}").unwrap()).unwrap(), None);
        let canonical = filters.to_tree().canonical().unwrap();
        assert_eq!(read(&canonical).unwrap(), filters);
    }

    #[test]
    fn refuses_with_the_path() {
        for (text, message) in [
            ("[]", "filters: is an empty list"),
            ("{}", "filters: must be an array"),
            (r#"[{"filter":{}}]"#, "filters[0].name: is missing"),
            (r#"[{"name":"a"}]"#, "filters[0].filter: is missing"),
            (
                r#"[{"name":"a","filter":{}},{"name":"a","filter":{"b":1}}]"#,
                "filters[1].name: a stands twice",
            ),
            (r#"[{"name":"a","filter":{"b":null}}]"#, "filters[0].filter.b: must have a value"),
            (r#"[{"name":"a","filter":{},"x":1}]"#, "filters[0].x: is not a field"),
        ] {
            let found = read(text).unwrap_err().message;
            assert!(found.starts_with(message), "{text}: {found}");
        }
        let many: Vec<String> =
            (0..=FILTERS_MAX).map(|i| format!(r#"{{"name":"{i}","filter":{{}}}}"#)).collect();
        assert_eq!(read(&format!("[{}]", many.join(","))).unwrap_err().code, Code::Bound);
        assert!(read(&format!("[{}]", many[1..].join(","))).is_ok());
    }
}
