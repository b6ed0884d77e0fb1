//! Single property values as text: for dimensions, distinct counts and comparisons with 'text'.

use crate::domain::foundation::decimal::quoted;
use crate::domain::foundation::json::Tree;
use std::borrow::Cow;

pub(super) const TOO_LONG: &str = "has more than 28 digits";
pub(super) const TOO_FINE: &str = "has more than 12 digits after the point";

/// The string itself, a number or boolean its canonical text, `None` for null; else why there is none.
pub(super) fn text<'t>(tree: &'t Tree<'_>) -> Result<Option<Cow<'t, str>>, String> {
    match tree {
        Tree::Null => Ok(None),
        Tree::Text(text) => Ok(Some(Cow::Borrowed(text))),
        Tree::Bool(true) => Ok(Some(Cow::Borrowed("true"))),
        Tree::Bool(false) => Ok(Some(Cow::Borrowed("false"))),
        Tree::Number(number) => match tree.canonical() {
            Ok(text) => Ok(Some(Cow::Owned(text))),
            Err(_) => Err(format!("{} {TOO_LONG}", quoted(number))),
        },
        Tree::List(_) | Tree::Object(_) => {
            Err(format!("must be a string, a number or a boolean, not {}", shown(tree)))
        }
    }
}

/// A value as it stands in a message.
pub(super) fn shown(tree: &Tree<'_>) -> String {
    match tree {
        Tree::Null => "null".to_string(),
        Tree::Bool(value) => value.to_string(),
        Tree::Number(text) => text.chars().take(80).collect(),
        Tree::Text(text) => format!("the string {}", quoted(text)),
        Tree::List(_) => "an array".to_string(),
        Tree::Object(_) => "an object".to_string(),
    }
}
