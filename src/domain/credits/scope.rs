//! Which usage a block may pay for, or a commitment counts.

use crate::domain::foundation::Fault;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::Node;
use crate::domain::foundation::money::Unit;
use crate::domain::metering::Dimensions;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What a piece of usage is of. `line` is the invoice line it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub line: String,
    pub product: String,
    pub meter: String,
    pub dimensions: Dimensions,
    pub bill_to: String,
    /// The currency or pricing unit that the usage is priced in; only blocks of this unit pay for it.
    pub unit: Unit,
}

/// `[from, until)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: Instant,
    pub until: Instant,
}

impl Window {
    pub fn holds(&self, at: Instant) -> bool {
        self.from <= at && at < self.until
    }
}

/// What is listed must fit; an empty list restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    pub products: BTreeSet<String>,
    pub meters: BTreeSet<String>,
    /// By dimension, the values that fit. Usage without the dimension does not.
    pub dimensions: BTreeMap<String, BTreeSet<String>>,
    pub bill_tos: BTreeSet<String>,
    /// Usage in any of them fits. Instants, since local times are resolved before they come here.
    pub windows: Vec<Window>,
}

/// How much a scope lets in; the smaller is the narrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Breadth {
    restrictions: Reverse<usize>,
    values: usize,
}

/// A scope restricts usage by a few values, not by thousands: every piece of usage is compared with them.
pub const SCOPE_VALUES_MAX: usize = 1000;

impl Scope {
    /// Reads what stored blocks have: the windows are instants.
    pub fn read(node: &Node) -> Result<Scope, Fault> {
        let (scope, windows) = Scope::read_with(node, |node| node.instant())?;
        let windows = windows.into_iter().map(|(from, until)| Window { from, until }).collect();
        Ok(Scope { windows, ..scope })
    }

    /// Reads a scope whose windows are written otherwise: in contracts they are local dates.
    pub fn read_with<T>(
        node: &Node,
        moment: impl Fn(&Node) -> Result<T, Fault>,
    ) -> Result<(Scope, Vec<(T, T)>), Fault> {
        let mut fields = node.fields_of(&["products", "meters", "dimensions", "bill_tos", "windows"])?;
        let mut keys = |name: &str| fields.optional(name).map_or(Ok(BTreeSet::new()), |list| values(&list));
        let (products, meters, bill_tos) = (keys("products")?, keys("meters")?, keys("bill_tos")?);
        let mut dimensions = BTreeMap::new();
        for (name, list) in fields.optional("dimensions").map_or(Ok(Vec::new()), |node| node.entries())? {
            let values = values(&list)?;
            if values.is_empty() {
                return Err(list
                    .fault("has no value that fits")
                    .with_hint("Leave the dimension out for any."));
            }
            dimensions.insert(name.to_string(), values);
        }
        let mut windows = Vec::new();
        let list = fields.optional("windows");
        for window in list.map_or(Ok(Vec::new()), |list| list.items_at_most(SCOPE_VALUES_MAX))? {
            let mut fields = window.fields_of(&["from", "until"])?;
            windows.push((moment(&fields.required("from")?)?, moment(&fields.required("until")?)?));
        }
        Ok((Scope { products, meters, dimensions, bill_tos, windows: Vec::new() }, windows))
    }

    pub fn matches(&self, subject: &Subject, at: Instant) -> bool {
        self.admits(subject) && self.holds(at)
    }

    /// Whether usage of this fits, at whatever time.
    pub fn admits(&self, subject: &Subject) -> bool {
        let fits = |list: &BTreeSet<String>, value: &String| list.is_empty() || list.contains(value);
        fits(&self.products, &subject.product)
            && fits(&self.meters, &subject.meter)
            && fits(&self.bill_tos, &subject.bill_to)
            && self.dimensions.iter().all(|(name, values)| {
                subject.dimensions.get(name).is_some_and(|value| values.contains(value))
            })
    }

    /// Whether usage of this time fits.
    pub fn holds(&self, at: Instant) -> bool {
        self.windows.is_empty() || self.windows.iter().any(|window| window.holds(at))
    }

    /// Narrower is what restricts more: products, meters, legal entities, time and each dimension count one. Of two
    /// that restrict as much, the one that names fewer values. (Metronome compares the number of products alone.)
    pub fn breadth(&self) -> Breadth {
        let lists = [&self.products, &self.meters, &self.bill_tos];
        let sizes = lists.iter().map(|list| list.len()).chain([self.windows.len()]).filter(|size| *size > 0);
        let sizes: Vec<usize> = sizes.chain(self.dimensions.values().map(BTreeSet::len)).collect();
        Breadth { restrictions: Reverse(sizes.len()), values: sizes.iter().sum() }
    }
}

fn values(list: &Node) -> Result<BTreeSet<String>, Fault> {
    list.items_at_most(SCOPE_VALUES_MAX)?.iter().map(|item| item.text().map(str::to_string)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{set, subject};
    use super::*;

    fn with(change: impl FnOnce(&mut Scope)) -> Scope {
        let mut scope = Scope::default();
        change(&mut scope);
        scope
    }

    fn dimension(scope: &mut Scope, name: &str, values: &[&str]) {
        scope.dimensions.insert(name.into(), set(values));
    }

    #[test]
    fn everything_listed_must_fit() {
        let mut usage = subject("line", "ai-api", "tokens", "inc");
        usage.dimensions.set("model", "gpt-4");
        for (scope, fits) in [
            (Scope::default(), true),
            (with(|s| s.products = set(&["ai-api", "other"])), true),
            (with(|s| s.products = set(&["other"])), false),
            (with(|s| s.meters = set(&["tokens"])), true),
            (with(|s| s.meters = set(&["images"])), false),
            (with(|s| s.bill_tos = set(&["inc"])), true),
            (with(|s| s.bill_tos = set(&["gmbh"])), false),
            (with(|s| dimension(s, "model", &["gpt-3.5", "gpt-4"])), true),
            (with(|s| dimension(s, "model", &["gpt-3.5"])), false),
            (with(|s| dimension(s, "region", &["eu"])), false),
            (with(|s| (s.products, s.meters) = (set(&["ai-api"]), set(&["images"]))), false),
        ] {
            assert_eq!(scope.matches(&usage, Instant(0)), fits, "{scope:?}");
        }
    }

    #[test]
    fn windows_are_half_open() {
        let window = |from, until| Window { from: Instant(from), until: Instant(until) };
        let scope = with(|s| s.windows = vec![window(10, 20), window(30, 40)]);
        let usage = subject("line", "p", "m", "b");
        let held: Vec<i64> = [9, 10, 19, 20, 29, 30, 39, 40]
            .into_iter()
            .filter(|at| scope.matches(&usage, Instant(*at)))
            .collect();
        assert_eq!(held, [10, 19, 30, 39]);
    }

    #[test]
    fn narrower_is_what_restricts_more_then_what_names_fewer() {
        let narrow_to_wide = [
            with(|s| {
                s.meters = set(&["tokens"]);
                dimension(s, "model", &["a"]);
                dimension(s, "region", &["eu"]);
            }),
            with(|s| {
                s.meters = set(&["tokens"]);
                dimension(s, "model", &["a", "b", "c"]);
            }),
            with(|s| s.products = set(&["a"])),
            with(|s| s.products = set(&["a", "b"])),
            Scope::default(),
        ];
        for pair in narrow_to_wide.windows(2) {
            assert!(pair[0].breadth() < pair[1].breadth(), "{pair:?}");
        }
        let window = Window { from: Instant(0), until: Instant(1) };
        assert_eq!(narrow_to_wide[2].breadth(), with(|s| s.bill_tos = set(&["x"])).breadth());
        assert_eq!(narrow_to_wide[2].breadth(), with(|s| s.windows = vec![window]).breadth());
    }
}
