//! What a customer has of a feature, and when: plan, then add-ons, then contract, then the operator's exception; the last one that
//! holds at the moment wins, unless it adds.
//!
//! A pause takes away what its contract gives. Where only contracts that are paused would give the feature, it is
//! suspended, whatever an operator says of its value.

use super::Kind;
use super::item::{Combine, Item, Mode, Rate, Reset, Unit, Value};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::{Node, Tree};
use crate::domain::foundation::{Exact, Fault};

/// Who says it, in the order in which they are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Plan,
    AddOn,
    Contract,
    Operator,
}

impl Level {
    const WORDS: [&str; 4] = ["plan", "add_on", "contract", "override"];
    const ALL: [Level; 4] = [Level::Plan, Level::AddOn, Level::Contract, Level::Operator];
}

/// `[from, until)`; no end = for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub from: Instant,
    pub until: Option<Instant>,
}

impl Stretch {
    fn holds(&self, at: Instant) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }
}

/// Local days from which windows are counted, as `Calendar` takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    pub zone: String,
    pub starts_on: String,
    pub every: String,
    pub alignment: String,
}

impl Grid {
    /// Calendar units in a zone, counted from a Monday, the first of a month and of a year, long before any usage.
    fn calendar(zone: &str, every: &str) -> Grid {
        Grid {
            zone: zone.into(),
            starts_on: "1900-01-01".into(),
            every: every.into(),
            alignment: "calendar".into(),
        }
    }
}

/// One that says something about the feature.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub level: Level,
    /// For people: `contract acme-1`.
    pub label: String,
    pub during: Stretch,
    pub paused: Vec<Stretch>,
    /// The billing periods of its contract.
    pub grid: Option<Grid>,
    pub item: Item,
}

/// What one of them came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    pub label: String,
    pub value: Tree<'static>,
    /// set, added, raised, kept (it was less) or replaced.
    pub effect: &'static str,
}

/// What a customer has for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub suspended: bool,
    pub value: Value,
    /// Of metered and seat features; `None` = unlimited.
    pub quota: Option<Exact>,
    pub mode: Mode,
    pub reset: Reset,
    pub grid: Grid,
    pub matches: Tree<'static>,
    pub rollover: Option<Option<Exact>>,
    pub rate: Option<Rate>,
    pub heard: Vec<Heard>,
}

/// The states of a feature over time, in order; where there is none, the customer has nothing of it. `zone` is the customer's.
/// Sources of one level are heard in the order given.
pub fn states(kind: Kind, zone: &str, mut sources: Vec<Source>) -> Result<Vec<(Stretch, State)>, Fault> {
    sources.sort_by_key(|source| source.level);
    let mut bounds: Vec<Instant> = Vec::new();
    for source in &sources {
        source.item.check(kind, &format!("{} of {}", source.item.feature, source.label))?;
        for stretch in std::iter::once(&source.during).chain(&source.paused) {
            bounds.push(stretch.from);
            bounds.extend(stretch.until);
        }
    }
    bounds.sort();
    bounds.dedup();
    let mut list: Vec<(Stretch, State)> = Vec::new();
    for (n, from) in bounds.iter().enumerate() {
        let during = Stretch { from: *from, until: bounds.get(n + 1).copied() };
        let Some(state) = state_at(kind, zone, &sources, *from)? else { continue };
        match list.last_mut() {
            Some((last, same)) if last.until == Some(*from) && *same == state => last.until = during.until,
            _ => list.push((during, state)),
        }
    }
    Ok(list)
}

/// What holds at an instant.
fn state_at(kind: Kind, zone: &str, sources: &[Source], at: Instant) -> Result<Option<State>, Fault> {
    let held: Vec<&Source> = sources.iter().filter(|source| source.during.holds(at)).collect();
    let is_paused = |source: &Source| source.paused.iter().any(|pause| pause.holds(at));
    let of_contracts = |paused: bool| {
        held.iter().any(|source| source.level < Level::Operator && is_paused(source) == paused)
    };
    let suspended = of_contracts(true) && !of_contracts(false);
    let mut state: Option<State> = None;
    for source in held.into_iter().filter(|source| suspended || !is_paused(source)) {
        state = Some(match state {
            None => alone(kind, zone, source, suspended)?,
            Some(before) => after(kind, zone, before, source)?,
        });
    }
    Ok(state)
}

fn alone(kind: Kind, zone: &str, source: &Source, suspended: bool) -> Result<State, Fault> {
    let item = &source.item;
    let reset = item.reset.unwrap_or(Reset::BillingPeriod);
    let months = || Grid::calendar(zone, "1 month");
    let grid = match reset {
        Reset::BillingPeriod => source.grid.clone().unwrap_or_else(months),
        Reset::Anniversary(every) => match &source.grid {
            Some(grid) => Grid { every: every.to_string(), alignment: "anniversary".into(), ..grid.clone() },
            None => months(),
        },
        Reset::Calendar(Unit::Day) => Grid::calendar(zone, "1 day"),
        Reset::Calendar(Unit::Week) => Grid::calendar(zone, "1 week"),
        Reset::Calendar(Unit::Year) => Grid::calendar(zone, "12 months"),
        Reset::Calendar(Unit::Month | Unit::Hour) | Reset::Sliding(_) | Reset::FirstUse(_) | Reset::Never => {
            months()
        }
    };
    let quota = if kind.has_quota() { item.quota("")? } else { None };
    let value = value_of(kind, item, quota);
    Ok(State {
        suspended,
        quota,
        mode: item.mode.unwrap_or_default(),
        reset,
        grid,
        matches: item.match_tree(),
        rollover: item.rollover,
        rate: item.rate,
        heard: vec![Heard { label: source.label.clone(), value: said(kind, item, &value), effect: "set" }],
        value,
    })
}

fn value_of(kind: Kind, item: &Item, quota: Option<Exact>) -> Value {
    match kind {
        Kind::Boolean | Kind::Credit => Value::Flag(item.flag()),
        Kind::Metered | Kind::Seat => quota.map_or(Value::Unlimited, |quota| Value::Text(quota.to_string())),
        Kind::Static => item.value.clone().unwrap_or(Value::Unlimited),
        Kind::RateLimit => Value::Unlimited,
    }
}

/// What an item says, for people.
fn said(kind: Kind, item: &Item, value: &Value) -> Tree<'static> {
    match (kind, item.rate) {
        (Kind::RateLimit, Some(rate)) => rate.to_tree(),
        _ => value.to_tree(),
    }
}

fn after(kind: Kind, zone: &str, before: State, source: &Source) -> Result<State, Fault> {
    let item = &source.item;
    let combine = item.combine.unwrap_or(match source.level {
        Level::AddOn if !matches!(kind, Kind::Static | Kind::RateLimit) => Combine::Add,
        _ => Combine::Override,
    });
    let mut heard = before.heard.clone();
    if combine == Combine::Override {
        heard.iter_mut().for_each(|earlier| earlier.effect = "replaced");
        let mut state = alone(kind, zone, source, before.suspended)?;
        heard.append(&mut state.heard);
        if source.level == Level::Operator {
            // The exception is of the value; how it is counted stays.
            return Ok(State { value: state.value, quota: state.quota, rate: state.rate, heard, ..before });
        }
        return Ok(State { heard, ..state });
    }
    let mut effect = if combine == Combine::Add { "added" } else { "raised" };
    let mut state = before;
    let own = if kind.has_quota() { item.quota("")? } else { None };
    if kind.has_quota() {
        state.quota = match (state.quota, own, combine) {
            (Some(a), Some(b), Combine::Add) => Some(a.add(b)?),
            (Some(a), Some(b), _) => {
                if b <= a {
                    effect = "kept";
                }
                Some(a.max(b))
            }
            _ => None,
        };
        state.value = state.quota.map_or(Value::Unlimited, |quota| Value::Text(quota.to_string()));
    } else {
        state.value = Value::Flag(item.flag() || state.value == Value::Flag(true));
    }
    let own_value = value_of(kind, item, own);
    heard.push(Heard { label: source.label.clone(), value: said(kind, item, &own_value), effect });
    Ok(State { heard, ..state })
}

// ── at the boundary of SQL ──────────────────────────────────────────────────────────────────────

/// Reads `[{"feature_id","kind","zone","sources":[{"level","label","from","until","paused":[{"from","until"}],"grid"?,"item"}]}]` and gives
/// a list of `{"feature_id","from","until", …}` for the table.
pub fn fold_document(node: &Node) -> Result<Tree<'static>, Fault> {
    let mut rows = Vec::new();
    for feature in node.items()? {
        let mut fields = feature.fields()?;
        let id = fields.required("feature_id")?.integer()?;
        let word = fields.required("kind")?.word(&Kind::WORDS)?;
        let kind = Kind::parse(word).expect("a word of the list");
        let zone = fields.required("zone")?.text()?;
        let sources =
            fields.required("sources")?.items()?.iter().map(read_source).collect::<Result<_, _>>()?;
        for (during, state) in states(kind, zone, sources)? {
            rows.push(row(id, during, &state));
        }
    }
    Ok(Tree::List(rows))
}

fn read_stretch(node: &Node) -> Result<Stretch, Fault> {
    let mut fields = node.fields()?;
    let from = fields.required("from")?.instant()?;
    let until = fields.optional("until").map(|n| n.instant()).transpose()?;
    Ok(Stretch { from, until })
}

fn read_source(node: &Node) -> Result<Source, Fault> {
    let mut fields = node.fields()?;
    let word = fields.required("level")?.word(&Level::WORDS)?;
    let level = Level::ALL[Level::WORDS.iter().position(|w| *w == word).expect("a word of the list")];
    let label = fields.required("label")?.text()?.to_string();
    let paused = fields.optional("paused").map_or(Ok(Vec::new()), |n| n.items())?;
    let paused = paused.iter().map(read_stretch).collect::<Result<_, _>>()?;
    let grid = fields
        .optional("grid")
        .map(|n| {
            let mut fields = n.fields()?;
            let mut text = |name: &str| fields.required(name).and_then(|n| n.text().map(str::to_string));
            Ok::<_, Fault>(Grid {
                zone: text("zone")?,
                starts_on: text("starts_on")?,
                every: text("every")?,
                alignment: text("alignment")?,
            })
        })
        .transpose()?;
    let item = Item::read(&Node::root(fields.required("item")?.tree))?;
    Ok(Source { level, label, during: read_stretch(node)?, paused, grid, item })
}

fn row(feature_id: i64, during: Stretch, state: &State) -> Tree<'static> {
    let text = |text: &str| Tree::text(text.to_string());
    let length = match state.reset {
        Reset::Sliding(length) | Reset::FirstUse(length) => text(&length.to_string()),
        _ => Tree::Null,
    };
    let heard = |h: &Heard| {
        Tree::object([("source", text(&h.label)), ("value", h.value.clone()), ("effect", text(h.effect))])
    };
    // What there is no cap for is as large as the quota, which is no limit either.
    let rollover = match state.rollover {
        None => Tree::Null,
        Some(None) => text("Infinity"),
        Some(Some(cap)) => text(&cap.to_string()),
    };
    let source = state.heard.iter().filter(|h| h.effect != "replaced").map(|h| h.label.as_str());
    Tree::object([
        ("feature_id", Tree::number(feature_id)),
        ("from_at", text(&during.from.to_string())),
        ("until_at", during.until.map_or(Tree::Null, |until| text(&until.to_string()))),
        ("suspended", Tree::Bool(state.suspended)),
        ("value", state.value.to_tree()),
        ("quota", state.quota.map_or(Tree::Null, |quota| text(&quota.to_string()))),
        ("mode", text(state.mode.as_str())),
        ("resets", text(state.reset.word())),
        ("length", length),
        ("zone", text(&state.grid.zone)),
        ("starts_on", text(&state.grid.starts_on)),
        ("every", text(&state.grid.every)),
        ("alignment", text(&state.grid.alignment)),
        ("match", state.matches.clone()),
        ("rollover", rollover),
        ("rate", state.rate.map_or(Tree::Null, Rate::to_tree)),
        ("source", text(&source.collect::<Vec<_>>().join(", "))),
        ("heard", Tree::List(state.heard.iter().map(heard).collect())),
    ])
}

#[cfg(test)]
mod tests;
