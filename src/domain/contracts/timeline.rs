//! A contract is a fold over its changes. The document in force from a change on is that of all changes up to it, in the
//! order of their days: one that was recorded later with an earlier day applies under those that were there.
//!
//! The fold makes for every item the stretches of time in which it has which terms; ramps, trials, phases and pauses are
//! resolved into them, so that billing knows only terms and from when until when they hold.

use super::amendment::Amendment;
use super::charge::{Entry, Fee, Keyed, PriceSource, UsageCharge};
use super::contract::Contract;
use super::extras::{Discount, Phase, phase_windows};
use super::overrides::Override;
use super::plan::{Billing, Plan, read_interval};
use super::renewal::RenewalPrices;
use super::schedule::{Item, Scheduled, read_percent};
use crate::domain::credits::Order;
use crate::domain::foundation::calendar::{Alignment, Calendar, Interval};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::{Node, Tree};
use crate::domain::foundation::{Exact, Fault};
use chrono::{Days, NaiveDate};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Most changes of one contract.
pub const CHANGES_MAX: usize = 10_000;

/// The beginning of a local day, or an instant inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    pub day: NaiveDate,
    /// `None` = local midnight, which is before every instant of its day.
    pub at: Option<Instant>,
}

impl Point {
    pub fn midnight(day: NaiveDate) -> Point {
        Point { day, at: None }
    }

    /// The first day that begins at this point or after it.
    fn next_day(self) -> NaiveDate {
        match self.at {
            None => self.day,
            Some(_) => self.day.succ_opt().unwrap_or(NaiveDate::MAX),
        }
    }
}

/// One recorded change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub version: i64,
    pub at: Point,
    /// The plan that it puts in force, by its key among the plans.
    pub plan: Option<String>,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Create(Box<Contract>),
    Amend(Box<Amendment>),
    ChangePlan { plan: String },
    Pause,
    Resume { extend_term: bool },
    Cancel,
    Renew(Renew),
    Notice,
}

/// A renewal as it was done: the uplift is the final one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Renew {
    pub percent: Option<Exact>,
    pub term: Option<Interval>,
    pub prices: Option<RenewalPrices>,
}

impl What {
    pub const KINDS: [&str; 8] =
        ["create", "amend", "change_plan", "pause", "resume", "cancel", "renew", "notice"];

    /// Reads the document of a change of a kind.
    pub fn read(kind: &str, node: &Node) -> Result<What, Fault> {
        let nothing = |what: What| {
            node.fields_of(&[])?.finish()?;
            Ok(what)
        };
        match kind {
            "create" => Contract::read(node).map(|contract| What::Create(Box::new(contract))),
            "amend" => Amendment::read(node).map(|amendment| What::Amend(Box::new(amendment))),
            "change_plan" => {
                let mut fields = node.fields_of(&["plan"])?;
                let plan = fields.required("plan")?.key()?.to_string();
                fields.finish()?;
                Ok(What::ChangePlan { plan })
            }
            "pause" => nothing(What::Pause),
            "resume" => {
                let mut fields = node.fields_of(&["extend_term"])?;
                let extend_term = fields.optional("extend_term").map_or(Ok(false), |n| n.boolean())?;
                fields.finish()?;
                Ok(What::Resume { extend_term })
            }
            "cancel" => nothing(What::Cancel),
            "renew" => {
                let mut fields = node.fields_of(&["percent", "term", "prices"])?;
                let percent = fields.optional("percent").map(|n| read_percent(&n)).transpose()?;
                let term = fields.optional("term").map(|n| read_interval(&n)).transpose()?;
                let prices = fields.optional("prices").map(|n| RenewalPrices::read(&n)).transpose()?;
                fields.finish()?;
                Ok(What::Renew(Renew { percent, term, prices }))
            }
            "notice" => nothing(What::Notice),
            other => Err(Fault::value(format!("a change of kind \"{other}\" is not known"))
                .with_hint(format!("Use {}.", What::KINDS.join(", ")))),
        }
    }

    /// Canonical form.
    pub fn to_tree(&self) -> Tree<'static> {
        let mut fields = Vec::new();
        match self {
            What::Create(contract) => return contract.to_tree(),
            What::Amend(amendment) => return amendment.to_tree(),
            What::ChangePlan { plan } => fields.push(("plan".into(), Tree::text(plan.clone()))),
            What::Resume { extend_term: true } => fields.push(("extend_term".into(), Tree::Bool(true))),
            What::Renew(renew) => {
                let texts = [
                    ("percent", renew.percent.map(|percent| percent.to_string())),
                    ("term", renew.term.map(|term| term.to_string())),
                    ("prices", renew.prices.map(|prices| prices.as_str().to_string())),
                ];
                for (name, text) in texts {
                    if let Some(text) = text {
                        fields.push((name.into(), Tree::text(text)));
                    }
                }
            }
            What::Pause | What::Resume { .. } | What::Cancel | What::Notice => (),
        }
        Tree::Object(fields)
    }

    fn kind(&self) -> &'static str {
        What::KINDS[match self {
            What::Create(_) => 0,
            What::Amend(_) => 1,
            What::ChangePlan { .. } => 2,
            What::Pause => 3,
            What::Resume { .. } => 4,
            What::Cancel => 5,
            What::Renew(_) => 6,
            What::Notice => 7,
        }]
    }
}

impl Change {
    /// `{"version", "kind", "on", "at"?, "plan"?, "change"}`. Faults of the change itself have their path in it.
    pub fn read(node: &Node) -> Result<Change, Fault> {
        let mut fields = node.fields_of(&["version", "kind", "on", "at", "plan", "change"])?;
        let version = fields.required("version")?.integer()?;
        let day = fields.required("on")?.date()?;
        let at = fields.optional("at").map(|n| n.instant()).transpose()?;
        let plan = fields.optional("plan").map(|n| n.text().map(str::to_string)).transpose()?;
        let kind = fields.required("kind")?.text()?;
        let change = fields.required("change")?;
        fields.finish()?;
        let what = What::read(kind, &Node::root(change.tree))?;
        Ok(Change { version, at: Point { day, at }, plan, what })
    }
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Usage,
    Fee,
    Override,
    Discount,
    Commitment,
    Credit,
    Entitlement,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::Fee => "fee",
            Kind::Override => "override",
            Kind::Discount => "discount",
            Kind::Commitment => "commitment",
            Kind::Credit => "credit",
            Kind::Entitlement => "entitlement",
        }
    }
}

/// `[from, until)`; no end = for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub from: Point,
    pub until: Option<Point>,
}

impl Stretch {
    fn cut(self, other: Stretch) -> Option<Stretch> {
        let from = self.from.max(other.from);
        let until = match (self.until, other.until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        until.is_none_or(|until| from < until).then_some(Stretch { from, until })
    }

    /// What is left of it without others that don't overlap and stand in order.
    fn without(self, others: &[Stretch]) -> Vec<Stretch> {
        let mut left = Vec::new();
        let mut from = self.from;
        for other in others {
            left.extend(
                Stretch { from, until: Some(other.from) }
                    .cut(self)
                    .filter(|s| s.until.is_some_and(|u| s.from < u)),
            );
            match other.until {
                None => return left,
                Some(until) => from = from.max(until),
            }
        }
        left.extend(Stretch { from, until: None }.cut(self));
        left
    }

    fn fields(self) -> Vec<(std::borrow::Cow<'static, str>, Tree<'static>)> {
        let mut fields = vec![
            ("from".into(), Tree::text(self.from.day.to_string())),
            ("until".into(), self.until.map_or(Tree::Null, |until| Tree::text(until.day.to_string()))),
        ];
        for (name, at) in [("from_at", self.from.at), ("until_at", self.until.and_then(|until| until.at))] {
            if let Some(at) = at {
                fields.push((name.into(), Tree::text(at.to_string())));
            }
        }
        fields
    }
}

/// Terms an item has for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub kind: Kind,
    pub key: String,
    /// Place among all items, in the order in which they first appear.
    pub position: usize,
    pub during: Stretch,
    pub every: Option<Interval>,
    pub price_book: Option<String>,
    /// Canonical.
    pub terms: Tree<'static>,
}

/// A value that the whole contract has for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact<T = String> {
    pub during: Stretch,
    pub value: Option<T>,
}

/// What changes come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    pub starts_on: NaiveDate,
    pub ends: Option<Point>,
    pub cancelled: Option<Point>,
    /// A notice since the last renewal.
    pub notice: Option<Point>,
    pub interval: Interval,
    pub alignment: Alignment,
    pub anchor_on: NaiveDate,
    pub billing: Billing,
    pub trial_until: Option<NaiveDate>,
    pub paused: Vec<Stretch>,
    pub bill_tos: Vec<Fact>,
    pub purchase_orders: Vec<Fact>,
    pub credit_modes: Vec<Fact>,
    pub credit_orders: Vec<Fact<Order>>,
    /// The legal entity, credit mode and credit order as they were signed.
    pub signed: (Option<String>, Option<String>, Option<Order>),
    /// The document in force after the last change.
    pub document: Contract,
    pub rows: Vec<Row>,
}

/// What a state says of one item: the parts of time and what it is in each.
type Source = Vec<Piece>;

#[derive(Debug, Clone, PartialEq)]
struct Piece {
    /// The contract's whole time, a phase's, an add-on's, or what phases leave.
    within: Vec<Stretch>,
    /// The day on which it begins unless it says a later one.
    begins: NaiveDate,
    said: Said,
}

#[derive(Debug, Clone, PartialEq)]
enum Said {
    Usage(Box<Scheduled<UsageCharge>>, Option<String>),
    Fee(Box<Scheduled<Fee>>),
    /// Terms that hold as they are, `[from, until)`.
    Plain(Option<NaiveDate>, Option<NaiveDate>, Tree<'static>),
}

type Id = (Kind, String);

/// The contract between two changes.
struct State<'p> {
    document: Contract,
    plan: Option<&'p Plan>,
    ends: Option<Point>,
    /// From which day and how long the end is counted, if it is a whole number of terms.
    counted: Option<(NaiveDate, Interval)>,
    /// First day of the current term.
    term_starts: NaiveDate,
    cancelled: Option<Point>,
    notice: Option<Point>,
}

/// Folds changes, in any order, with the plans they name.
pub fn fold(mut changes: Vec<Change>, plans: &BTreeMap<String, Plan>) -> Result<Timeline, Fault> {
    if changes.len() > CHANGES_MAX {
        return Err(Fault::new(
            crate::domain::foundation::Code::Bound,
            format!("the contract has {} changes; at most {CHANGES_MAX} are allowed", changes.len()),
        ));
    }
    let newest = changes.iter().map(|change| change.version).max();
    let first = changes.iter().position(|change| matches!(change.what, What::Create(_)));
    let Some(created) = first.map(|at| changes.remove(at)) else {
        return Err(Fault::value("the changes of a contract begin with its creation"));
    };
    let What::Create(contract) = created.what else { unreachable!("it was found by that") };
    let plan_of = |key: &Option<String>| match key {
        None => Ok(None),
        Some(key) => plans.get(key).map(Some).ok_or_else(|| Fault::value(format!("plan {key} is not given"))),
    };
    let plan = plan_of(&created.plan)?;
    contract.check(plan)?;
    let mut contract = contract;
    contract.settle(plan);
    let start = contract.starts_on;
    let signed = (contract.bill_to.clone(), contract.credit_mode.clone(), contract.credit_order.clone());
    let trial_until = contract.trial_until()?;
    let billing = contract.billing(plan);
    let alignment = billing.alignment(trial_until);
    let mut state = State::signed(*contract, plan)?;
    let mut log = Log::default();
    log.note(Point::midnight(start), &state)?;

    let mut turns = Turns::new(changes, Point::midnight(start));
    let mut paused: Vec<Stretch> = Vec::new();
    while let Some(change) = turns.next(&state) {
        let plan = plan_of(&change.plan)?;
        apply(&mut state, &change, plan, &billing, &mut paused).map_err(|fault| {
            if newest == Some(change.version) {
                return fault;
            }
            let place = format!("version {} ({} on {})", change.version, change.what.kind(), change.at.day);
            Fault { message: format!("{place}: {}", fault.message), ..fault }
        })?;
        log.note(change.at, &state)?;
    }

    let whole = Stretch { from: Point::midnight(start), until: state.ends };
    let context = Context { start, trial_until, interval: billing.interval(), paused: &paused };
    let rows = log.rows(whole, &context)?;
    // A contract that ends before it starts has no periods; nothing asks for its anchor.
    let calendar = Calendar::new(start, None, billing.interval(), alignment)?;
    let whole_of =
        |stretches: Vec<Stretch>| stretches.into_iter().filter_map(|s| s.cut(whole)).collect::<Vec<_>>();
    Ok(Timeline {
        starts_on: start,
        ends: state.ends,
        cancelled: state.cancelled,
        notice: state.notice,
        interval: billing.interval(),
        alignment,
        anchor_on: calendar.anchor(),
        trial_until,
        paused: whole_of(paused.clone()),
        bill_tos: log.bill_tos.facts(whole),
        purchase_orders: log.purchase_orders.facts(whole),
        credit_modes: log.credit_modes.facts(whole),
        credit_orders: log.credit_orders.facts(whole),
        signed,
        document: state.document,
        rows,
        billing,
    })
}

/// Changes in the order in which they happen.
struct Turns {
    renewals: VecDeque<Change>,
    others: VecDeque<Change>,
}

impl Turns {
    fn new(mut changes: Vec<Change>, start: Point) -> Turns {
        for change in &mut changes {
            // What was agreed on before the start holds from the start.
            change.at = change.at.max(start);
        }
        changes.sort_by_key(|change| (change.at, change.version));
        let (mut renewals, others): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| matches!(change.what, What::Renew(_)));
        renewals.sort_by_key(|change| change.version);
        Turns { renewals: renewals.into(), others: others.into() }
    }

    fn next(&mut self, state: &State) -> Option<Change> {
        loop {
            // A renewal is of the end that is there when its turn comes, wherever earlier changes have moved it.
            if let Some(end) = state.ends.filter(|end| state.cancelled.is_none() && self.renews_at(*end)) {
                return self.renewals.pop_front().map(|change| Change { at: end, ..change });
            }
            let change = self.others.pop_front()?;
            // What comes at the end or after it changes nothing; a cancellation at the very end keeps it from being renewed.
            let last = matches!(change.what, What::Cancel);
            if !state.ends.is_some_and(|end| change.at > end || (change.at == end && !last)) {
                return Some(change);
            }
        }
    }

    /// Whether a renewal at an end is before all else.
    fn renews_at(&self, end: Point) -> bool {
        self.renewals.front().is_some_and(|renewal| {
            self.others.front().is_none_or(|other| (end, renewal.version) < (other.at, other.version))
        })
    }
}

fn apply<'p>(
    state: &mut State<'p>,
    change: &Change,
    plan: Option<&'p Plan>,
    billing: &Billing,
    paused: &mut Vec<Stretch>,
) -> Result<(), Fault> {
    let at = change.at;
    match &change.what {
        What::Create(_) => return Err(Fault::value("a contract is created once")),
        What::Amend(amendment) => state.amend(amendment, at, billing)?,
        What::ChangePlan { plan: named } => {
            let Some(plan) = plan else { return Err(Fault::document("plan", "is missing")) };
            state.change_plan(named, plan, billing)?;
        }
        What::Pause => {
            if paused.last().is_none_or(|last| last.until.is_some()) {
                paused.push(Stretch { from: at, until: None });
            }
        }
        What::Resume { extend_term } => state.resume(at, *extend_term, paused)?,
        What::Cancel => {
            state.ends = Some(at);
            state.cancelled = Some(at);
        }
        What::Notice => state.notice = Some(at),
        What::Renew(renew) => state.renew(renew, at, billing)?,
    }
    Ok(())
}

impl<'p> State<'p> {
    fn signed(contract: Contract, plan: Option<&'p Plan>) -> Result<State<'p>, Fault> {
        Ok(State {
            ends: contract.ends_on(plan)?.map(Point::midnight),
            counted: contract.term.map(|term| (contract.starts_on, term)),
            term_starts: contract.starts_on,
            document: contract,
            plan,
            cancelled: None,
            notice: None,
        })
    }

    fn amend(&mut self, amendment: &Amendment, at: Point, billing: &Billing) -> Result<(), Fault> {
        let ends = match amendment.term {
            None => self.ends.map(Point::next_day),
            Some(term) => Some(billing.term_end(self.term_starts, term)?),
        };
        amendment.apply(&mut self.document, self.plan, at.day, ends)?;
        if let Some(term) = amendment.term {
            let counted = (self.term_starts, term);
            let end = Point::midnight(billing.term_end(counted.0, counted.1)?);
            if end <= at {
                let message = format!(
                    "{term} from {} ends on {}, before the change on {}",
                    self.term_starts, end.day, at.day
                );
                return Err(
                    Fault::document("term", message).with_hint("billing.contract_cancel() ends a contract.")
                );
            }
            self.counted = Some(counted);
            self.ends = Some(end);
            self.document.term = Some(term);
        }
        if amendment.term.is_some() || amendment.renewal.is_some() {
            self.document.check_renewal()?;
        }
        Ok(())
    }

    fn change_plan(&mut self, named: &str, plan: &'p Plan, billing: &Billing) -> Result<(), Fault> {
        let document = &mut self.document;
        same_billing(document, named, plan, billing)?;
        // How it is billed stays the contract's own from here on.
        document.billing = billing.clone();
        document.plan = Some(named.to_string());
        document.drop_removals(plan);
        document.check_items(Some(plan))?;
        let items = document.all_items(Some(plan));
        let known = |item: &Override| items.charges.iter().any(|c| item.is_for(&c.item.key, &c.item.meter));
        document.overrides.retain(known);
        document.phases.iter_mut().for_each(|phase| phase.overrides.retain(known));
        self.plan = Some(plan);
        Ok(())
    }

    fn resume(&mut self, at: Point, extend_term: bool, paused: &mut Vec<Stretch>) -> Result<(), Fault> {
        let Some(last) = paused.last_mut().filter(|last| last.until.is_none()) else { return Ok(()) };
        last.until = Some(at);
        let days = (at.day - last.from.day).num_days();
        if last.from == at {
            paused.pop();
        }
        if extend_term && let Some(end) = self.ends {
            let later = end.day.checked_add_days(Days::new(days.unsigned_abs()));
            let later = later.ok_or_else(|| Fault::value("the term would end after year 9999"))?;
            self.ends = Some(Point { day: later, ..end });
            self.counted = None;
        }
        Ok(())
    }

    fn renew(&mut self, renew: &Renew, at: Point, billing: &Billing) -> Result<(), Fault> {
        let document = &mut self.document;
        let agreed = document.renewal.clone().unwrap_or_default();
        let Some(term) = renew.term.or(agreed.term).or(document.term) else {
            return Err(Fault::value("a contract without a term is not renewed"));
        };
        let counted = match (self.counted, term) {
            (Some((anchor, Interval::Months(so_far))), Interval::Months(more)) => {
                (anchor, Interval::Months(so_far + more))
            }
            (Some((anchor, Interval::Days(so_far))), Interval::Days(more)) => {
                (anchor, Interval::Days(so_far + more))
            }
            _ => (at.day, term),
        };
        // Counted from one day, so that a term from 31 January never ends on the 28th for good.
        self.ends = Some(Point::midnight(billing.term_end(counted.0, counted.1)?));
        self.counted = Some(counted);
        self.term_starts = at.day;
        self.notice = None;
        // The next renewal is as long as this one; the document's term reaches the new end.
        if let Some(renewal) = &mut document.renewal {
            renewal.term = Some(term);
        }
        if counted.0 == document.starts_on {
            document.term = Some(counted.1);
        }
        if renew.prices.unwrap_or(agreed.prices) == RenewalPrices::List {
            document.end_agreed_prices(at.day);
        }
        if let Some(percent) = renew.percent.filter(|percent| !percent.is_zero()) {
            document.raise(self.plan, percent)?;
        }
        Ok(())
    }
}

/// A contract is billed as it was signed, whatever plan it is on.
fn same_billing(document: &Contract, named: &str, plan: &Plan, billing: &Billing) -> Result<(), Fault> {
    let now = document.billing.clone().over(&plan.billing);
    if now.interval() == billing.interval() && now.alignment(None) == billing.alignment(None) {
        return Ok(());
    }
    let message = format!(
        "{named} is billed per {} ({}), the contract per {} ({})",
        now.interval(),
        now.alignment(None),
        billing.interval(),
        billing.alignment(None)
    );
    Err(Fault::document("plan", message).with_hint(
        "Make a new contract on the plan and cancel this one, or use a plan with the same billing.",
    ))
}

/// What every item said, change by change.
#[derive(Default)]
struct Log {
    /// In the order of their first appearance.
    ids: Vec<Id>,
    /// What an item says from a point on; `None` = it is gone.
    said: HashMap<Id, Vec<(Point, Option<Source>)>>,
    bill_tos: Facts<String>,
    purchase_orders: Facts<String>,
    credit_modes: Facts<String>,
    credit_orders: Facts<Order>,
}

struct Facts<T>(Vec<(Point, Option<T>)>);

impl<T> Default for Facts<T> {
    fn default() -> Facts<T> {
        Facts(Vec::new())
    }
}

impl<T: Clone + PartialEq> Facts<T> {
    fn note(&mut self, at: Point, value: &Option<T>) {
        if self.0.last().is_none_or(|(_, last)| last != value) {
            self.0.push((at, value.clone()));
        }
    }

    fn facts(self, whole: Stretch) -> Vec<Fact<T>> {
        let mut facts: Vec<Fact<T>> = Vec::new();
        for (n, (from, value)) in self.0.iter().enumerate() {
            let until = self.0.get(n + 1).map(|(until, _)| *until);
            let Some(during) = (Stretch { from: *from, until }).cut(whole) else { continue };
            match facts.last_mut() {
                Some(last) if last.value == *value => last.during.until = during.until,
                _ => facts.push(Fact { during, value: value.clone() }),
            }
        }
        facts
    }
}

struct Context<'c> {
    start: NaiveDate,
    trial_until: Option<NaiveDate>,
    interval: Interval,
    paused: &'c [Stretch],
}

impl Log {
    fn note(&mut self, at: Point, state: &State) -> Result<(), Fault> {
        let document = &state.document;
        let mut now = said_by(document, state.plan)?;
        for id in now.order {
            if !self.said.contains_key(&id) {
                self.ids.push(id.clone());
                self.said.insert(id, Vec::new());
            }
        }
        for (id, said) in &mut self.said {
            let source = now.sources.remove(id);
            if said.last().map_or(source.is_some(), |(_, last)| *last != source) {
                said.push((at, source));
            }
        }
        self.bill_tos.note(at, &document.bill_to);
        self.purchase_orders.note(at, &document.purchase_order);
        self.credit_modes.note(at, &document.credit_mode);
        self.credit_orders.note(at, &document.credit_order);
        Ok(())
    }

    fn rows(&self, whole: Stretch, context: &Context) -> Result<Vec<Row>, Fault> {
        let mut rows: Vec<Row> = Vec::new();
        for (position, id) in self.ids.iter().enumerate() {
            let said = &self.said[id];
            let mut of_item: Vec<Row> = Vec::new();
            for (n, (from, source)) in said.iter().enumerate() {
                let until = said.get(n + 1).map(|(until, _)| *until);
                let (Some(source), Some(run)) = (source, Stretch { from: *from, until }.cut(whole)) else {
                    continue;
                };
                for piece in source {
                    for (during, every, price_book, terms) in piece.rows(context, run, whole)? {
                        let key = id.1.clone();
                        let position = position + 1;
                        of_item.push(Row { kind: id.0, key, position, during, every, price_book, terms });
                    }
                }
            }
            of_item.sort_by_key(|row| row.during.from);
            for row in of_item {
                match rows.last_mut() {
                    Some(last)
                        if last.position == row.position
                            && last.during.until == Some(row.during.from)
                            && (&last.every, &last.price_book, &last.terms) == (&row.every, &row.price_book, &row.terms)
                            // Each is billed once.
                            && last.terms.get("once").is_none() =>
                    {
                        last.during.until = row.during.until;
                    }
                    _ => rows.push(row),
                }
            }
        }
        Ok(rows)
    }
}

/// What a document says of every item.
#[derive(Default)]
struct Now {
    order: Vec<Id>,
    sources: HashMap<Id, Source>,
}

fn said_by(document: &Contract, plan: Option<&Plan>) -> Result<Now, Fault> {
    let mut now = Now::default();
    let times = Times::of(document)?;
    now.say_items(document, plan, &times);
    now.say_overrides_and_discounts(document, &times);
    now.say_credits_and_entitlements(document, plan, &times);
    Ok(now)
}

/// When items of a document hold that say nothing of their own.
struct Times<'d> {
    phases: &'d [Phase],
    windows: Vec<Stretch>,
    start: NaiveDate,
    fees_begin: NaiveDate,
    whole: Stretch,
}

impl Times<'_> {
    fn of(document: &Contract) -> Result<Times<'_>, Fault> {
        let (start, fees_begin) = (document.starts_on, document.begins()?);
        let windows = phase_windows(&document.phases, start)?.into_iter().map(days).collect();
        let whole = Stretch { from: Point::midnight(start), until: None };
        Ok(Times { phases: &document.phases, windows, start, fees_begin, whole })
    }

    fn phases(&self) -> impl Iterator<Item = (&Phase, Stretch)> {
        self.phases.iter().zip(self.windows.iter().copied())
    }

    /// The time that phases leave to what they say otherwise.
    fn beside(&self, says: impl Fn(&Phase) -> bool) -> Vec<Stretch> {
        let taken = self.phases().filter(|(phase, _)| says(phase));
        self.whole.without(&taken.map(|(_, window)| window).collect::<Vec<_>>())
    }
}

impl Now {
    fn say(&mut self, kind: Kind, key: &str, within: Vec<Stretch>, begins: NaiveDate, said: Said) {
        let id = (kind, key.to_string());
        let pieces = self.sources.entry(id.clone()).or_default();
        if pieces.is_empty() {
            self.order.push(id);
        }
        pieces.push(Piece { within, begins, said });
    }

    /// Charges and fees of contract and plan, of phases, of add-ons; what add-ons let people use stands with them.
    fn say_items(&mut self, document: &Contract, plan: Option<&Plan>, times: &Times) {
        let usage = |charge: &Scheduled<UsageCharge>| {
            Said::Usage(Box::new(charge.clone()), document.price_book(plan).cloned())
        };
        let fixed = |fee: &Scheduled<Fee>| Said::Fee(Box::new(fee.clone()));
        let items = document.items(plan);
        for charge in &items.charges {
            let key = &charge.item.key;
            let within = times.beside(|phase| phase.charges.iter().any(|entry| entry.key() == key));
            self.say(Kind::Usage, key, within, times.start, usage(charge));
        }
        for fee in &items.fees {
            let key = &fee.item.key;
            let within = times.beside(|phase| phase.fees.iter().any(|entry| entry.key() == key));
            self.say(Kind::Fee, key, within, times.fees_begin, fixed(fee));
        }
        for (phase, window) in times.phases() {
            let begins = window.from.day;
            for charge in phase.charges.iter().filter_map(Entry::item) {
                self.say(Kind::Usage, &charge.item.key, vec![window], begins, usage(charge));
            }
            for fee in phase.fees.iter().filter_map(Entry::item) {
                self.say(Kind::Fee, &fee.item.key, vec![window], begins.max(times.fees_begin), fixed(fee));
            }
        }
        for add_on in &document.add_ons {
            let window = days(add_on.window(times.start));
            let begins = window.from.day;
            for charge in &add_on.charges {
                self.say(Kind::Usage, &charge.item.key, vec![window], begins, usage(charge));
            }
            for fee in &add_on.fees {
                self.say(Kind::Fee, &fee.item.key, vec![window], begins.max(times.fees_begin), fixed(fee));
            }
            for item in &add_on.entitlements {
                let key = format!("{}/{}", add_on.key, item.feature);
                self.say(
                    Kind::Entitlement,
                    &key,
                    vec![window],
                    begins,
                    Said::Plain(None, None, item.to_tree()),
                );
            }
        }
    }

    fn say_overrides_and_discounts(&mut self, document: &Contract, times: &Times) {
        let agreed = |item: &Override| {
            Said::Plain(item.from, item.until, Override { from: None, until: None, ..item.clone() }.to_tree())
        };
        for item in &document.overrides {
            let id = item.id();
            let within = times.beside(|phase| phase.overrides.iter().any(|other| other.id() == id));
            self.say(Kind::Override, &id, within, times.start, agreed(item));
        }
        let off = |item: &Discount, begins: NaiveDate| {
            let from = item.from.unwrap_or(begins);
            Said::Plain(Some(from), item.ends(from), item.terms())
        };
        for item in &document.discounts {
            let within = times.beside(|phase| phase.discounts.iter().any(|other| other.key == item.key));
            self.say(Kind::Discount, &item.key, within, times.start, off(item, times.start));
        }
        for (phase, window) in times.phases() {
            let begins = window.from.day;
            for item in &phase.overrides {
                self.say(Kind::Override, &item.id(), vec![window], begins, agreed(item));
            }
            for item in &phase.discounts {
                self.say(Kind::Discount, &item.key, vec![window], begins, off(item, begins));
            }
        }
    }

    /// What phases never say otherwise.
    fn say_credits_and_entitlements(&mut self, document: &Contract, plan: Option<&Plan>, times: &Times) {
        let mut say = |kind, key: &str, said| self.say(kind, key, vec![times.whole], times.start, said);
        for item in &document.commitments {
            say(Kind::Commitment, &item.key, Said::Plain(item.from, item.until, item.to_tree()));
            if let Some(bought) = item.bought() {
                say(Kind::Credit, &bought.key, Said::Plain(item.from, item.until, bought.to_tree()));
            }
        }
        for item in &document.credits {
            say(Kind::Credit, &item.key, Said::Plain(item.effective_on, None, item.to_tree()));
        }
        // The plan's beside the contract's own: how they combine is for src/domain/entitlements.
        for item in plan.map_or(&[][..], |plan| &plan.entitlements) {
            let key = format!("plan:{}", item.feature);
            say(Kind::Entitlement, &key, Said::Plain(None, None, item.to_tree()));
        }
        for item in &document.entitlements {
            say(Kind::Entitlement, &item.feature, Said::Plain(None, None, item.to_tree()));
        }
    }
}

fn days((from, until): (NaiveDate, Option<NaiveDate>)) -> Stretch {
    Stretch { from: Point::midnight(from), until: until.map(Point::midnight) }
}

type Part = (Stretch, Option<Interval>, Option<String>, Tree<'static>);

impl Piece {
    /// What it comes to in `run`, the time in which it was said.
    fn rows(&self, context: &Context, run: Stretch, whole: Stretch) -> Result<Vec<Part>, Fault> {
        let mut parts: Vec<Part> = Vec::new();
        // A stretch as far as it is said and lies where the piece holds.
        let cut =
            |during: Stretch| self.within.iter().filter_map(move |within| during.cut(run)?.cut(*within));
        match &self.said {
            Said::Usage(charge, book) => {
                // The trial's share costs nothing.
                let paid = days((context.trial_until.unwrap_or(context.start), None));
                let free = Stretch { from: Point::midnight(context.start), until: Some(paid.from) };
                for (during, item) in stretches(charge, self.begins, whole)? {
                    let every = Some(item.every.unwrap_or(context.interval));
                    let book = book.clone().filter(|_| matches!(item.source, PriceSource::Book(_)));
                    let tried = UsageCharge { trial: true, ..item.clone() };
                    for (part, item) in [(free, tried), (paid, item)] {
                        let during = part.cut(during).into_iter().flat_map(&cut);
                        parts.extend(during.map(|during| (during, every, book.clone(), item.to_tree())));
                    }
                }
            }
            Said::Fee(fee) if fee.item.once => {
                let begins = fee.from.map_or(self.begins, |from| from.max(self.begins));
                let day = days((begins, begins.succ_opt()));
                // What was said at the end of its day decides, or when the contract ended on it.
                let decides = run.from.day <= begins
                    && run.until.is_none_or(|until| {
                        until.day > begins || (run.until == whole.until && day.from < until)
                    });
                if decides && self.within.iter().any(|within| day.cut(*within).is_some()) {
                    parts.push((day, Some(context.interval), None, fee.item.to_tree()));
                }
            }
            Said::Fee(fee) => {
                for (during, item) in stretches(fee, self.begins, whole)? {
                    let every = Some(item.every.unwrap_or(context.interval));
                    for during in cut(during).flat_map(|during| during.without(context.paused)) {
                        parts.push((during, every, None, item.to_tree()));
                    }
                }
            }
            Said::Plain(from, until, terms) => {
                let during = days((from.unwrap_or(context.start).max(context.start), *until));
                parts.extend(cut(during).map(|during| (during, None, None, terms.clone())));
            }
        }
        Ok(parts)
    }
}

/// The stretches of a scheduled item that begins on `begins` unless it says a later day.
fn stretches<T: Item>(
    scheduled: &Scheduled<T>,
    begins: NaiveDate,
    whole: Stretch,
) -> Result<Vec<(Stretch, T)>, Fault> {
    let begins = scheduled.from.map_or(begins, |from| from.max(begins));
    let ends = whole.until.map(Point::next_day);
    let ends = match (scheduled.until, ends) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    if ends.is_some_and(|ends| ends <= begins) {
        return Ok(Vec::new());
    }
    let list = scheduled
        .stretches(begins, ends)
        .map_err(|fault| fault.inside(&format!("{}.{}", T::LIST, scheduled.item.key())))?;
    let until = |n: usize| list.get(n + 1).map(|(day, _)| *day).or(scheduled.until).map(Point::midnight);
    Ok(list
        .iter()
        .enumerate()
        .map(|(n, (day, item))| (Stretch { from: Point::midnight(*day), until: until(n) }, item.clone()))
        .collect())
}

/// A credit mode that is not said is the default.
fn word(mode: &Option<String>) -> &str {
    mode.as_deref().unwrap_or("credit_then_invoice")
}

/// The stretches of a fact; those that have another value than was signed say so.
fn stretches_of<T>(
    facts: &[Fact<T>],
    to_tree: impl Fn(&T) -> Tree<'static>,
    amended: impl Fn(&Option<T>) -> bool,
) -> Tree<'static> {
    let fact = |fact: &Fact<T>| {
        let mut fields = fact.during.fields();
        fields.push(("value".into(), fact.value.as_ref().map_or(Tree::Null, &to_tree)));
        if amended(&fact.value) {
            fields.push(("amended".into(), Tree::Bool(true)));
        }
        Tree::Object(fields)
    };
    Tree::List(facts.iter().map(fact).collect())
}

impl Timeline {
    pub fn to_tree(&self) -> Tree<'static> {
        let date = |day: Option<NaiveDate>| day.map_or(Tree::Null, |day| Tree::text(day.to_string()));
        let point = |point: Option<Point>| match point {
            None => Tree::Null,
            Some(Point { day, at: None }) => Tree::object([("on", Tree::text(day.to_string()))]),
            Some(Point { day, at: Some(at) }) => {
                Tree::object([("on", Tree::text(day.to_string())), ("at", Tree::text(at.to_string()))])
            }
        };
        let facts = |list: &[Fact]| stretches_of(list, |value| Tree::text(value.clone()), |_| false);
        let (bill_to, mode, order) = &self.signed;
        let other_mode = |value: &Option<String>| word(value) != word(mode);
        let other_order =
            |value: &Option<Order>| value.clone().unwrap_or_default() != order.clone().unwrap_or_default();
        let mut fields = vec![
            ("starts_on".into(), Tree::text(self.starts_on.to_string())),
            ("ends_on".into(), date(self.ends.map(Point::next_day))),
            ("cancelled".into(), point(self.cancelled)),
            ("notice".into(), point(self.notice)),
            ("interval".into(), Tree::text(self.interval.to_string())),
            ("alignment".into(), Tree::text(self.alignment.to_string())),
            ("anchor_on".into(), Tree::text(self.anchor_on.to_string())),
            ("net_days".into(), Tree::number(self.billing.net_days())),
            ("collection".into(), Tree::text(self.billing.collection().to_string())),
            ("prices".into(), Tree::text(if self.document.pinned { "pin" } else { "float" })),
            ("credit_mode".into(), self.document.credit_mode.clone().map_or(Tree::Null, Tree::text)),
            ("credit_order".into(), self.document.credit_order.as_ref().map_or(Tree::Null, Order::to_tree)),
            ("trial_until".into(), date(self.trial_until)),
            ("term".into(), self.document.term.map_or(Tree::Null, |term| Tree::text(term.to_string()))),
            ("renewal".into(), self.renewal_tree()),
            ("paused".into(), Tree::List(self.paused.iter().map(|s| Tree::Object(s.fields())).collect())),
            (
                "bill_tos".into(),
                stretches_of(&self.bill_tos, |key| Tree::text(key.clone()), |value| value != bill_to),
            ),
            ("purchase_orders".into(), facts(&self.purchase_orders)),
            (
                "credit_modes".into(),
                stretches_of(&self.credit_modes, |mode| Tree::text(mode.clone()), other_mode),
            ),
            ("credit_orders".into(), stretches_of(&self.credit_orders, Order::to_tree, other_order)),
            ("document".into(), self.document.to_tree()),
            ("rows".into(), Tree::List(self.rows.iter().map(Row::to_tree).collect())),
        ];
        if let Some(at) = self.ends.and_then(|ends| ends.at) {
            fields.push(("ends_at".into(), Tree::text(at.to_string())));
        }
        Tree::Object(fields)
    }

    fn renewal_tree(&self) -> Tree<'static> {
        let (Some(renewal), Some(ends), None) = (&self.document.renewal, self.ends, self.cancelled) else {
            return Tree::Null;
        };
        let Tree::Object(mut fields) = renewal.to_tree() else { unreachable!("a renewal is an object") };
        let known =
            |fields: &[(std::borrow::Cow<str>, Tree)], name: &str| fields.iter().any(|(key, _)| key == name);
        if let (false, Some(term)) = (known(&fields, "term"), self.document.term) {
            fields.push(("term".into(), Tree::text(term.to_string())));
        }
        for (name, value) in [("uplift", Tree::Null), ("prices", Tree::text(renewal.prices.as_str()))] {
            if !known(&fields, name) {
                fields.push((name.into(), value));
            }
        }
        let deadline = renewal.notice_deadline(ends.day);
        fields.push(("notice_deadline".into(), Tree::text(deadline.to_string())));
        fields.push(("renews_on".into(), Tree::text(ends.day.to_string())));
        Tree::Object(fields)
    }
}

impl Row {
    fn to_tree(&self) -> Tree<'static> {
        let mut fields = self.during.fields();
        fields.push(("kind".into(), Tree::text(self.kind.as_str())));
        fields.push(("key".into(), Tree::text(self.key.clone())));
        fields.push(("position".into(), Tree::number(self.position)));
        if let Some(every) = self.every {
            fields.push(("every".into(), Tree::text(every.to_string())));
        }
        if let Some(book) = &self.price_book {
            fields.push(("price_book".into(), Tree::text(book.clone())));
        }
        fields.push(("terms".into(), self.terms.clone()));
        Tree::Object(fields)
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
