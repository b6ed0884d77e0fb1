//! The order in which blocks are drawn down: contract data, a list of sort keys.
//!
//! `["priority","expires_at","scope","category","effective_at","id"]` is the default, and what Stigg and Stripe do but
//! for the scope. Metronome's is `["priority","zero_basis","scope","expires_at","effective_at"]`, that of Kong and
//! OpenMeter `["priority","expires_at","id"]`. Blocks that still tie go by id, so that no order is left to chance.

use super::block::{Block, Category};
use crate::domain::foundation::Fault;
use crate::domain::foundation::json::{Node, Tree, or_list};
use std::cmp::Ordering;

const KEYS: [&str; 7] = ["priority", "expires_at", "scope", "category", "zero_basis", "effective_at", "id"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    /// Lower first.
    Priority,
    /// The one that ends soonest first, never-ending ones last.
    ExpiresAt,
    /// The narrowest first.
    Scope,
    /// In this order.
    Category([Category; 3]),
    /// Those that nobody paid for first.
    ZeroBasis,
    /// The one that began first.
    EffectiveAt,
    /// The oldest first.
    Id,
}

/// Unless the key says otherwise, free credit goes before what was paid for.
const CATEGORIES: [Category; 3] = [Category::Promotional, Category::Pilot, Category::Paid];

/// Sort keys, the first decides first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order(Vec<Key>);

impl Default for Order {
    fn default() -> Order {
        Order(vec![
            Key::Priority,
            Key::ExpiresAt,
            Key::Scope,
            Key::Category(CATEGORIES),
            Key::EffectiveAt,
            Key::Id,
        ])
    }
}

impl Order {
    /// Reads the list. Each key is a word; `{"category":["paid","pilot","promotional"]}` is the category in another
    /// order.
    pub fn read(node: &Node) -> Result<Order, Fault> {
        let mut keys: Vec<Key> = Vec::new();
        for item in node.items()? {
            let key = Key::read(&item)?;
            if keys.iter().any(|other| other.name() == key.name()) {
                return Err(item.fault(format!("\"{}\" stands twice", key.name())));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(node.fault("has no sort key").with_hint("Leave it out for the default order."));
        }
        Ok(Order(keys))
    }

    pub fn to_tree(&self) -> Tree<'static> {
        Tree::List(self.0.iter().map(Key::to_tree).collect())
    }

    /// What goes first, key by key, for people.
    pub fn words(&self) -> Vec<String> {
        self.0.iter().map(Key::words).collect()
    }

    /// Which of two blocks is drawn first. Never equal for two blocks.
    pub fn compare(&self, a: &Block, b: &Block) -> Ordering {
        self.0
            .iter()
            .fold(Ordering::Equal, |so_far, key| so_far.then_with(|| key.compare(a, b)))
            .then(a.id.cmp(&b.id))
    }
}

impl Key {
    fn read(node: &Node) -> Result<Key, Fault> {
        if let Tree::Object(_) = node.tree {
            let mut fields = node.fields_of(&["category"])?;
            let list = fields.required("category")?;
            return categories(&list).map(Key::Category);
        }
        Ok(match node.word(&KEYS)? {
            "priority" => Key::Priority,
            "expires_at" => Key::ExpiresAt,
            "scope" => Key::Scope,
            "category" => Key::Category(CATEGORIES),
            "zero_basis" => Key::ZeroBasis,
            "effective_at" => Key::EffectiveAt,
            _ => Key::Id,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Key::Priority => "priority",
            Key::ExpiresAt => "expires_at",
            Key::Scope => "scope",
            Key::Category(_) => "category",
            Key::ZeroBasis => "zero_basis",
            Key::EffectiveAt => "effective_at",
            Key::Id => "id",
        }
    }

    fn words(&self) -> String {
        let words = match self {
            Key::Priority => "the lower priority",
            Key::ExpiresAt => "the earlier end",
            Key::Scope => "the narrower scope",
            Key::Category(order) => {
                let words: Vec<&str> = order.iter().map(|category| category.as_str()).collect();
                return format!("the category ({})", words.join(" before "));
            }
            Key::ZeroBasis => "what nobody paid for",
            Key::EffectiveAt => "the earlier beginning",
            Key::Id => "the older one",
        };
        words.to_string()
    }

    fn to_tree(&self) -> Tree<'static> {
        match self {
            Key::Category(order) if *order != CATEGORIES => {
                let words = order.iter().map(|category| Tree::text(category.as_str())).collect();
                Tree::object([("category", Tree::List(words))])
            }
            key => Tree::text(key.name()),
        }
    }

    fn compare(&self, a: &Block, b: &Block) -> Ordering {
        match self {
            Key::Priority => a.priority.cmp(&b.priority),
            // Some before None.
            Key::ExpiresAt => {
                (a.expires_at.is_none(), a.expires_at).cmp(&(b.expires_at.is_none(), b.expires_at))
            }
            Key::Scope => a.scope.breadth().cmp(&b.scope.breadth()),
            Key::Category(order) => {
                let place = |block: &Block| order.iter().position(|category| *category == block.category);
                place(a).cmp(&place(b))
            }
            Key::ZeroBasis => b.basis().is_zero().cmp(&a.basis().is_zero()),
            Key::EffectiveAt => a.effective_at.cmp(&b.effective_at),
            Key::Id => a.id.cmp(&b.id),
        }
    }
}

/// All three, each once: an order that leaves one out would not say where it goes.
fn categories(list: &Node) -> Result<[Category; 3], Fault> {
    let mut order = Vec::new();
    for item in list.items()? {
        let category = Category::parse(item.word(&Category::WORDS)?)?;
        if order.contains(&category) {
            return Err(item.fault(format!("\"{}\" stands twice", category.as_str())));
        }
        order.push(category);
    }
    order.try_into().map_err(|_| {
        list.fault("must name every category")
            .with_hint(format!("List {}.", or_list(&Category::WORDS).replace(" or ", " and ")))
    })
}

#[cfg(test)]
mod tests {
    use super::super::pool::Pool;
    use super::super::testing::{block, exact, id, set, usd};
    use super::*;
    use crate::domain::foundation::instant::Instant;
    use crate::domain::foundation::json;

    fn read(text: &str) -> Result<Order, Fault> {
        Order::read(&Node { tree: &json::parse(text).unwrap(), path: "draw_down".into() })
    }

    fn sorted(order: &Order, mut blocks: Vec<Block>) -> Vec<u128> {
        blocks.sort_by(|a, b| order.compare(a, b));
        blocks.iter().map(|block| block.id.as_u128()).collect()
    }

    #[test]
    fn reads_what_it_writes() {
        let default = r#"["priority","expires_at","scope","category","effective_at","id"]"#;
        assert_eq!(read(default).unwrap(), Order::default());
        for text in [
            default,
            r#"["priority","zero_basis","scope","expires_at","effective_at"]"#,
            r#"["priority","expires_at","id"]"#,
            r#"["expires_at",{"category":["paid","pilot","promotional"]}]"#,
        ] {
            assert_eq!(read(text).unwrap().to_tree().canonical().unwrap(), text);
        }
        let same = read(r#"[{"category":["promotional","pilot","paid"]}]"#).unwrap();
        assert_eq!(same, read(r#"["category"]"#).unwrap());
    }

    #[test]
    fn names_the_place_of_a_fault() {
        for (text, message) in [
            (r#"["priority","expiry"]"#, "draw_down[1]: \"expiry\" is not known"),
            (r#"["id","priority","id"]"#, "draw_down[2]: \"id\" stands twice"),
            (
                r#"["category",{"category":["paid","pilot","promotional"]}]"#,
                "draw_down[1]: \"category\" stands twice",
            ),
            ("[]", "draw_down: has no sort key"),
            (r#""priority""#, "draw_down: must be an array, not a string"),
            ("[1]", "draw_down[0]: must be a string, not a number"),
            (r#"[{"scope":[]}]"#, "draw_down[0].scope: is not a field of this document"),
            (r#"[{}]"#, "draw_down[0].category: is missing"),
            (r#"[{"category":["paid","free"]}]"#, "draw_down[0].category[1]: \"free\" is not known"),
            (r#"[{"category":["paid","paid"]}]"#, "draw_down[0].category[1]: \"paid\" stands twice"),
            (r#"[{"category":["paid","pilot"]}]"#, "draw_down[0].category: must name every category"),
        ] {
            assert_eq!(read(text).unwrap_err().message, message, "{text}");
        }
    }

    #[test]
    fn each_key_decides_where_those_before_tie() {
        let with = |n: u128, change: &dyn Fn(&mut Block)| {
            let mut block = block(n, "100");
            change(&mut block);
            block
        };
        let paid = |b: &mut Block| {
            b.category = Category::Paid;
            b.pool = Some(Pool::new(id(1), usd(), exact("1"), exact("100")).unwrap());
        };
        let blocks = vec![
            with(1, &|_| ()),
            with(2, &|b| b.effective_at = Instant(-5)),
            with(3, &paid),
            with(4, &|b| b.category = Category::Pilot),
            with(5, &|b| b.scope.meters = set(&["tokens"])),
            with(6, &|b| b.expires_at = Some(Instant(90))),
            with(7, &|b| b.expires_at = Some(Instant(80))),
            with(8, &|b| b.priority = 1),
            with(9, &|_| ()),
        ];
        assert_eq!(sorted(&Order::default(), blocks.clone()), [8, 7, 6, 5, 2, 1, 9, 4, 3]);
        let by = |text: &str| sorted(&read(text).unwrap(), blocks.clone());
        assert_eq!(by(r#"["id"]"#), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(by(r#"["zero_basis"]"#), [1, 2, 4, 5, 6, 7, 8, 9, 3]);
        assert_eq!(by(r#"[{"category":["paid","pilot","promotional"]}]"#), [3, 4, 1, 2, 5, 6, 7, 8, 9]);
        assert_eq!(by(r#"["effective_at","expires_at"]"#), [2, 7, 6, 1, 3, 4, 5, 8, 9]);
    }
}
