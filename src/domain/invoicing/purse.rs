//! The customer's blocks as a bill opens them, how they are drawn, and what was drawn as documents record it. Drawing from
//! them is `settlement`.

use crate::domain::credits::draw::{Mode, Way};
use crate::domain::credits::{Block, Category, Order, Overdraft, Pool, Scope};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::{Node, Tree};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Exact, Fault};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What a customer's blocks hold when a bill is settled, and how they are drawn.
#[derive(Debug, Clone, Default)]
pub struct Purse {
    pub(super) blocks: Vec<Opened>,
    order: Order,
    /// As the contract says it; none = the default.
    order_tree: Option<Tree<'static>>,
    mode: Option<String>,
    /// The stretches of time for which it was agreed otherwise.
    amended: Vec<Amended>,
    /// Blocks hold only what the documents that stand drew: of a comparison that is not to depend on what else happened.
    frozen: bool,
    /// As a document recorded it: what is settled again is in it.
    opened: bool,
    /// The legal entities whose invoices of the boundary stand: what they drew stands, too, and nothing of theirs is settled.
    pub(super) held: BTreeSet<String>,
}

/// `[from, until)`, in which usage is paid in another order or mode than was signed.
#[derive(Debug, Clone)]
struct Amended {
    from: Instant,
    until: Option<Instant>,
    order: Option<Order>,
    mode: Option<String>,
}

impl Amended {
    fn read(node: &Node) -> Result<Amended, Fault> {
        let mut fields = node.fields_of(&["from", "until", "order", "mode"])?;
        let mode = fields.optional("mode").map(|node| node.text().map(str::to_string)).transpose()?;
        mode.as_deref().map(Mode::parse).transpose()?;
        Ok(Amended {
            from: fields.required("from")?.instant()?,
            until: fields.optional("until").map(|node| node.instant()).transpose()?,
            order: fields.optional("order").as_ref().map(Order::read).transpose()?,
            mode,
        })
    }

    fn to_tree(&self) -> Tree<'static> {
        let mut fields = vec![("from".into(), Tree::text(self.from.to_string()))];
        fields.extend(self.until.map(|until| ("until".into(), Tree::text(until.to_string()))));
        fields.extend(self.order.as_ref().map(|order| ("order".into(), order.to_tree())));
        fields.extend(self.mode.clone().map(|mode| ("mode".into(), Tree::text(mode))));
        Tree::Object(fields)
    }

    fn holds(&self, at: Instant) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }
}

/// A block as it is when a bill begins to draw. Its id is its place: only their order matters here.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) key: String,
    pub(super) unit: String,
    pub(super) block: Block,
    pub(super) left: Exact,
    /// Its terms, as documents record them.
    terms: Tree<'static>,
}

/// What a line drew from a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Credit {
    pub block: String,
    /// Of a block that is not in the bill's currency.
    pub unit: Option<String>,
    pub line: String,
    pub bill_to: String,
    /// Of an earlier boundary than the bill's own.
    pub boundary: Option<i64>,
    pub quantity: Exact,
    /// In the block's unit; below 0 where it is given back.
    pub amount: Exact,
}

// ── the purse ────────────────────────────────────────────────────────────────────────────────────

impl Purse {
    /// `{"blocks": [{"key", …the block, "left"}, …], "order", "mode", "amended": [{"from", "until", "order" | "mode"}],
    /// "frozen", "opened", "held"}`: blocks in order of their ids.
    pub fn read(node: &Node) -> Result<Purse, Fault> {
        let mut fields = node.fields()?;
        let blocks = fields.required("blocks")?.items()?;
        let blocks =
            blocks.iter().enumerate().map(|(at, node)| Opened::read(at, node)).collect::<Result<_, _>>()?;
        let order = fields.optional("order");
        let mode = fields.optional("mode").map(|node| node.text().map(str::to_string)).transpose()?;
        mode.as_deref().map(Mode::parse).transpose()?;
        let texts = |node: Node| node.items()?.iter().map(|node| node.text().map(str::to_string)).collect();
        let amended = fields.optional("amended");
        let read = |node: Node| node.items()?.iter().map(Amended::read).collect::<Result<Vec<_>, _>>();
        Ok(Purse {
            blocks,
            order: order.as_ref().map(Order::read).transpose()?.unwrap_or_default(),
            order_tree: order.map(|node| node.tree.clone().into_owned()),
            mode,
            amended: amended.map(read).transpose()?.unwrap_or_default(),
            frozen: fields.optional("frozen").map_or(Ok(false), |node| node.boolean())?,
            opened: fields.optional("opened").map_or(Ok(false), |node| node.boolean())?,
            held: fields.optional("held").map_or(Ok(BTreeSet::new()), texts)?,
        })
    }

    /// Whether no bill is otherwise for it.
    pub fn is_idle(&self) -> bool {
        self.blocks.is_empty() && !self.only_credit() && self.held.is_empty()
    }

    /// The legal entities of which nothing is settled.
    pub fn held(&self) -> &BTreeSet<String> {
        &self.held
    }

    /// Those of them that get no document, since it is not computed again for one.
    pub fn leaves_out(&self, bill_to: &str) -> bool {
        !self.opened && self.held.contains(bill_to)
    }

    /// Whether usage is, at some time, paid by credit alone.
    fn only_credit(&self) -> bool {
        let amended = self.amended.iter().map(|amended| &amended.mode);
        amended.chain([&self.mode]).any(|mode| mode.as_deref() == Some("credit_only"))
    }

    pub(super) fn mode_at(&self, at: Instant) -> Option<&str> {
        let amended = self.amended.iter().find(|amended| amended.mode.is_some() && amended.holds(at));
        amended.map_or(&self.mode, |amended| &amended.mode).as_deref()
    }

    /// Usage has happened: under credit_only, too, credit pays for as much of it as there is.
    pub(super) fn way_at(&self, at: Instant) -> Way<'_> {
        let amended = self.amended.iter().filter(|amended| amended.holds(at));
        let order = amended.filter_map(|amended| amended.order.as_ref()).next().unwrap_or(&self.order);
        let mode = match self.mode_at(at) {
            Some("allow_negative") => Mode::AllowNegative,
            _ => Mode::CreditThenInvoice,
        };
        Way { order, mode }
    }

    /// The instants at which it was agreed otherwise, or as before.
    fn turns(&self) -> impl Iterator<Item = Instant> {
        self.amended.iter().flat_map(|amended| [Some(amended.from), amended.until]).flatten()
    }

    pub(super) fn only_credit_in(&self, (from, until): (Instant, Instant)) -> bool {
        self.mode_at(from) == Some("credit_only") || self.turns_in((from, until))
    }

    /// Whether what nothing pays for depends on when in a stretch it was used.
    pub fn turns_in(&self, (from, until): (Instant, Instant)) -> bool {
        self.only_credit() && self.turns().any(|at| from < at && at < until)
    }

    /// What an earlier contract of the customer left.
    pub fn opens_with(&mut self, left: &BTreeMap<String, Exact>) {
        for opened in &mut self.blocks {
            if let Some(left) = left.get(&opened.key) {
                opened.left = *left;
            }
        }
    }

    /// Adds what the documents that stand drew, which is settled again.
    pub fn again(&mut self, standing: &[Credit]) -> Result<(), Fault> {
        if self.opened {
            return Ok(());
        }
        if self.frozen {
            for Opened { block, left, .. } in &mut self.blocks {
                // What was drawn into debt was drawn last; no more than that was.
                *left = (*left).min(Exact::ZERO);
                block.overdraft = if left.is_zero() { Overdraft::None } else { Overdraft::UpTo(left.neg()) };
            }
        }
        self.add(standing.iter(), false)
    }

    /// Takes off what is settled again and comes to the same, so that a document need not record it.
    pub fn without(&mut self, standing: &[Credit]) -> Result<(), Fault> {
        self.add(standing.iter(), true)
    }

    fn add<'c>(&mut self, credits: impl Iterator<Item = &'c Credit>, less: bool) -> Result<(), Fault> {
        for credit in credits {
            if let Some(opened) = self.blocks.iter_mut().find(|opened| opened.key == credit.block) {
                let amount = if less { credit.amount.neg() } else { credit.amount };
                opened.left = opened.left.add(amount)?;
            }
        }
        Ok(())
    }

    /// What is left of each block, by key.
    pub fn remains(&self, left: &[Exact]) -> BTreeMap<String, Exact> {
        self.blocks.iter().zip(left).map(|(opened, left)| (opened.key.clone(), *left)).collect()
    }

    /// The instants at which what blocks pay for changes, and the dimensions that decides it.
    pub fn looks_at(&self) -> (BTreeSet<Instant>, BTreeSet<String>) {
        let scopes = self.blocks.iter().map(|opened| &opened.block.scope);
        let windows = scopes.clone().flat_map(|scope| &scope.windows).flat_map(|w| [w.from, w.until]);
        let ends = self.blocks.iter().flat_map(|Opened { block, .. }| {
            [Some(block.effective_at), block.expires_at].into_iter().flatten()
        });
        let names = scopes.flat_map(|scope| scope.dimensions.keys().cloned());
        (ends.chain(windows).chain(self.turns()).collect(), names.collect())
    }

    /// Whether some block may pay for usage of a charge in a stretch of time.
    pub fn may_pay(
        &self,
        currency: &str,
        (product, meter, unit): (&str, &str, Option<&str>),
        (from, until): (Instant, Instant),
    ) -> bool {
        let fits = |list: &BTreeSet<String>, value: &str| list.is_empty() || list.contains(value);
        self.blocks.iter().any(|Opened { unit: of, block, .. }| {
            (of == currency || Some(of.as_str()) == unit)
                && fits(&block.scope.products, product)
                && fits(&block.scope.meters, meter)
                && block.effective_at < until
                && block.expires_at.is_none_or(|end| end > from)
        })
    }

    /// Whether every block pays for everything in that currency, all that time long, and none goes below zero.
    pub fn pays_for_all(&self, currency: &str, (from, until): (Instant, Instant)) -> bool {
        !self.frozen
            && !self.opened
            && self.amended.is_empty()
            && matches!(self.mode.as_deref(), None | Some("credit_then_invoice"))
            && self.blocks.iter().all(|Opened { unit, block, .. }| {
                unit == currency
                    && block.scope == Scope::default()
                    && block.overdraft == Overdraft::None
                    && block.effective_at <= from
                    && block.expires_at.is_none_or(|end| end >= until)
            })
    }

    /// Whether that is the same blocks in the same order.
    pub fn same_blocks(&self, other: &Purse) -> bool {
        self.order_tree == other.order_tree
            && self.blocks.iter().map(|opened| &opened.key).eq(other.blocks.iter().map(|opened| &opened.key))
    }

    /// What a recompute needs: the blocks that could have paid for something, as they were opened.
    pub fn record(&self, relevant: &[bool]) -> Option<Tree<'static>> {
        let matters = |(opened, relevant): &(&Opened, &bool)| {
            **relevant && (!opened.left.is_zero() || opened.block.overdraft != Overdraft::None)
        };
        let blocks: Vec<Tree> = (self.blocks.iter().zip(relevant).filter(matters))
            .map(|(opened, _)| {
                let Tree::Object(mut fields) = opened.terms.clone() else { unreachable!("an object") };
                fields.push(("left".into(), Tree::text(opened.left.to_string())));
                Tree::Object(fields)
            })
            .collect();
        if blocks.is_empty() && !self.only_credit() && self.held.is_empty() {
            return None;
        }
        let mut fields = vec![("blocks".into(), Tree::List(blocks))];
        if !self.held.is_empty() {
            let held = self.held.iter().map(|bill_to| Tree::text(bill_to.clone()));
            fields.push(("held".into(), Tree::List(held.collect())));
        }
        fields.extend(self.order_tree.clone().map(|order| ("order".into(), order)));
        fields.extend(self.mode.clone().map(|mode| ("mode".into(), Tree::text(mode))));
        if !self.amended.is_empty() {
            let amended = self.amended.iter().map(Amended::to_tree).collect();
            fields.push(("amended".into(), Tree::List(amended)));
        }
        Some(Tree::Object(fields))
    }
}

impl Opened {
    fn read(at: usize, node: &Node) -> Result<Opened, Fault> {
        let mut fields = node.fields()?;
        let (key, unit) = (fields.required("key")?.text()?.to_string(), fields.required("unit")?.text()?);
        let unit = unit.to_string();
        let pool = fields.optional("pool").map(|node| {
            let mut pool = node.fields()?;
            let amount = |node: Node| node.decimal();
            Pool::new(
                Uuid::nil(),
                Unit::NONE,
                amount(pool.required("paid")?)?,
                amount(pool.required("credits")?)?,
            )
        });
        let instant = |node: Node| node.instant();
        let overdraft =
            fields.optional("overdraft").map_or(Ok(Overdraft::None), |node| Overdraft::read(&node))?;
        let block = Block {
            id: Uuid::from_u128(at as u128),
            unit: Unit::NONE,
            category: Category::parse(fields.required("category")?.text()?)?,
            granted: Exact::ONE,
            pool: pool.transpose()?,
            priority: i32::try_from(fields.required("priority")?.integer()?).unwrap_or(i32::MAX),
            scope: fields.optional("scope").map_or(Ok(Scope::default()), |node| Scope::read(&node))?,
            effective_at: instant(fields.required("effective_at")?)?,
            expires_at: fields.optional("expires_at").map(instant).transpose()?,
            rollover: None,
            overdraft,
            rolled_from: None,
        };
        let said = ["key", "unit", "category", "priority", "effective_at", "expires_at", "overdraft"];
        let mut terms: Vec<_> = said
            .into_iter()
            .filter_map(|name| Some((name, node.tree.get(name)?)))
            .filter(|(_, tree)| **tree != Tree::Null)
            .map(|(name, tree)| (name.into(), tree.clone().into_owned()))
            .collect();
        if let Some(scope) = node.tree.get("scope").filter(|_| block.scope != Scope::default()) {
            terms.push(("scope".into(), scope.clone().into_owned()));
        }
        if let Some(pool) = &block.pool {
            let both = [("paid", pool.paid()), ("credits", pool.credits())];
            let both = both.map(|(name, amount)| (name, Tree::text(amount.to_string())));
            terms.push(("pool".into(), Tree::object(both)));
        }
        Ok(Opened { key, unit, block, left: fields.required("left")?.decimal()?, terms: Tree::Object(terms) })
    }
}

// ── credits as documents have them ───────────────────────────────────────────────────────────────

impl Credit {
    pub fn to_tree(&self, minor_units: u32) -> Tree<'static> {
        let amount = match self.unit {
            None => self.amount.to_fixed(minor_units).unwrap_or_else(|| self.amount.to_string()),
            Some(_) => self.amount.to_string(),
        };
        let mut fields = vec![
            ("block".into(), Tree::text(self.block.clone())),
            ("line".into(), Tree::text(self.line.clone())),
            ("quantity".into(), Tree::text(self.quantity.to_string())),
            ("amount".into(), Tree::text(amount)),
        ];
        fields.extend(self.unit.clone().map(|unit| ("unit".into(), Tree::text(unit))));
        fields.extend(self.boundary.map(|boundary| ("boundary".into(), Tree::number(boundary))));
        Tree::Object(fields)
    }

    pub fn read(node: &Node, bill_to: &str) -> Result<Credit, Fault> {
        let mut fields = node.fields()?;
        let text = |node: Node| node.text().map(str::to_string);
        Ok(Credit {
            block: text(fields.required("block")?)?,
            unit: fields.optional("unit").map(text).transpose()?,
            line: text(fields.required("line")?)?,
            bill_to: bill_to.to_string(),
            boundary: fields.optional("boundary").map(|node| node.integer()).transpose()?,
            quantity: fields.required("quantity")?.decimal()?,
            amount: fields.required("amount")?.decimal()?,
        })
    }

    fn is_of(&self, other: &Credit) -> bool {
        (&self.line, &self.block, &self.bill_to) == (&other.line, &other.block, &other.bill_to)
    }
}

/// What has to be posted where `standing` was drawn and `now` should be, for a boundary.
pub fn difference(
    now: Vec<Credit>,
    standing: &[Credit],
    boundary: Option<i64>,
) -> Result<Vec<Credit>, Fault> {
    let mut credits = now;
    for was in standing {
        match credits.iter_mut().find(|credit| credit.is_of(was)) {
            Some(credit) => {
                credit.quantity = credit.quantity.sub(was.quantity)?;
                credit.amount = credit.amount.sub(was.amount)?;
            }
            None => {
                credits.push(Credit { quantity: was.quantity.neg(), amount: was.amount.neg(), ..was.clone() })
            }
        }
    }
    credits.retain(|credit| !credit.amount.is_zero() || !credit.quantity.is_zero());
    credits.iter_mut().for_each(|credit| credit.boundary = boundary);
    Ok(credits)
}
