//! Which usage a block may pay for, or a commitment counts.

use crate::domain::foundation::instant::Instant;
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

impl Scope {
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
