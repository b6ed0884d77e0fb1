//! Where a value stands in an event's properties: `model`, `usage.input_tokens`, `"odd name".part`.

use crate::domain::foundation::decimal::quoted;
use crate::domain::foundation::fault::Fault;
use crate::domain::foundation::json::{KEY_BYTES_MAX, Tree};
use crate::domain::ingestion::PROPERTIES_DEPTH_MAX;
use std::fmt;

/// Longest path in bytes of its canonical text.
pub const PATH_BYTES_MAX: usize = KEY_BYTES_MAX;
/// Most parts of a path: properties have no more levels.
pub const PATH_PARTS_MAX: usize = PROPERTIES_DEPTH_MAX;

/// The keys from the properties' object down to one value. Dots nest; a key that holds a dot, a quote or
/// anything else odd stands in double quotes, with quotes inside doubled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Vec<String>);

impl Path {
    /// A path of the given keys. At least one.
    pub(super) fn of(parts: Vec<String>) -> Result<Path, Fault> {
        let path = Path(parts);
        if path.0.len() > PATH_PARTS_MAX {
            return Err(Fault::value(format!(
                "{} has {} parts; properties have at most {PATH_PARTS_MAX} levels",
                quoted(&path.to_string()),
                path.0.len()
            )));
        }
        let text = path.to_string();
        if text.len() > PATH_BYTES_MAX {
            return Err(Fault::value(format!(
                "{} has {} bytes; a property path has at most {PATH_BYTES_MAX}",
                quoted(&text),
                text.len()
            )));
        }
        Ok(path)
    }

    /// Reads the key of a filter or the name of a dimension. Unquoted parts may hold anything but a dot
    /// and a double quote (`user-id` is one part here; in an expression it is a subtraction).
    pub fn parse(text: &str) -> Result<Path, Fault> {
        let wrong = |what: &str| {
            Fault::value(format!("{} {what}", quoted(text))).with_hint(
                "Write property, nested.property or \"odd.name\", with quotes inside the quotes doubled.",
            )
        };
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = if rest.starts_with('"') {
                let (part, after) =
                    unquote(rest, '"').ok_or_else(|| wrong("has a quote that is not closed"))?;
                (part, after)
            } else {
                let end = rest.find(['.', '"']).unwrap_or(rest.len());
                if end == 0 {
                    return Err(wrong("has an empty part"));
                }
                (rest[..end].to_string(), &rest[end..])
            };
            parts.push(part);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => return Path::of(parts),
                None => return Err(wrong("has a quote in the middle of a part")),
            }
        }
    }

    /// The value at this path; `None` if it, or anything above it, is absent, null or no object.
    pub fn find<'t>(&self, properties: &'t Tree<'t>) -> Option<&'t Tree<'t>> {
        let mut tree = properties;
        for part in &self.0 {
            tree = tree.get(part)?;
        }
        (!matches!(tree, Tree::Null)).then_some(tree)
    }

    /// The properties with a value at this path, where there was none; `None` if something above it is no object.
    pub fn put(&self, properties: Tree<'static>, value: Tree<'static>) -> Option<Tree<'static>> {
        fn put(parts: &[String], tree: Tree<'static>, value: Tree<'static>) -> Option<Tree<'static>> {
            let Some((part, rest)) = parts.split_first() else { return Some(value) };
            let mut fields = match tree {
                Tree::Object(fields) => fields,
                Tree::Null => Vec::new(),
                _ => return None,
            };
            let at = fields.iter().position(|(key, _)| key == part);
            let (_, below) = at.map_or((part.clone().into(), Tree::Null), |at| fields.swap_remove(at));
            fields.push((part.clone().into(), put(rest, below, value)?));
            Some(Tree::Object(fields))
        }
        put(&self.0, properties, value)
    }
}

/// The text inside the quotes that open `text`, and what follows them. Doubled quotes stand for one.
pub(super) fn unquote(text: &str, quote: char) -> Option<(String, &str)> {
    let mut inside = String::new();
    let mut rest = text.strip_prefix(quote)?;
    loop {
        let end = rest.find(quote)?;
        inside.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(quote) {
            Some(more) => {
                inside.push(quote);
                rest = more;
            }
            None => return Some((inside, rest)),
        }
    }
}

/// Whether a key can stand unquoted in an expression: a letter or `_`, then letters, digits and `_`.
pub(super) fn is_plain(key: &str) -> bool {
    let mut bytes = key.bytes();
    bytes.next().is_some_and(|first| first == b'_' || first.is_ascii_alphabetic())
        && bytes.all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

impl fmt::Display for Path {
    /// Canonical text: quotes only where an expression needs them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            if is_plain(part) {
                f.write_str(part)?;
            } else {
                write!(f, "\"{}\"", part.replace('"', "\"\""))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::foundation::json;
    use proptest::prelude::*;

    #[test]
    fn reads_and_prints() {
        for (text, canonical) in [
            ("a", "a"),
            ("a.b.c", "a.b.c"),
            ("\"a\"", "a"),
            ("a.\"b c\".d", "a.\"b c\".d"),
            ("user-id", "\"user-id\""),
            ("a b. c", "\"a b\".\" c\""),
            ("\"gen_ai.model\"", "\"gen_ai.model\""),
            ("\"say \"\"hi\"\"\"", "\"say \"\"hi\"\"\""),
            ("\"\"", "\"\""),
            ("größe", "\"größe\""),
            ("1st", "\"1st\""),
        ] {
            let path = Path::parse(text).unwrap();
            assert_eq!(path.to_string(), canonical);
            assert_eq!(Path::parse(canonical).unwrap(), path);
        }
        for bad in ["", ".", "a.", ".a", "a..b", "\"a", "a\"b\"", "\"a\"b", "\"a\"\"", "a.\"b\".", "\""] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bounds_hold_at_the_limit_and_one_beyond() {
        let parts = |n: usize| vec!["a"; n].join(".");
        assert!(Path::parse(&parts(PATH_PARTS_MAX)).is_ok());
        assert!(Path::parse(&parts(PATH_PARTS_MAX + 1)).unwrap_err().message.contains("at most 8 levels"));
        assert!(Path::parse(&"a".repeat(PATH_BYTES_MAX)).is_ok());
        assert!(Path::parse(&"a".repeat(PATH_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn finds_what_is_there() {
        let tree = json::parse(r#"{"a":{"b":1,"c":null,"":{"x.y":true}},"a.b":2,"l":[1]}"#).unwrap();
        let find = |path: &str| Path::parse(path).unwrap().find(&tree).map(|t| t.canonical().unwrap());
        for (path, found) in [
            ("a.b", Some("1")),
            ("\"a.b\"", Some("2")),
            ("a.\"\".\"x.y\"", Some("true")),
            ("l", Some("[1]")),
            ("a.c", None),
            ("a.c.d", None),
            ("a.b.d", None),
            ("l.0", None),
            ("A", None),
        ] {
            assert_eq!(find(path).as_deref(), found, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_keys_round_trip(parts in prop::collection::vec("[^\u{0}]{0,8}", 1..6)) {
            let path = Path::of(parts).unwrap();
            prop_assert_eq!(Path::parse(&path.to_string()).unwrap(), path);
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            if let Ok(path) = Path::parse(&text) {
                prop_assert_eq!(Path::parse(&path.to_string()).unwrap(), path);
            }
        }
    }
}
