//! A block of credit: granted at once, drawn down by usage, never mixed with another block's.

use super::pool::Pool;
use super::scope::Scope;
use crate::domain::foundation::decimal::quoted;
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::json::{Node, or_list};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Exact, Fault, Ratio};
use uuid::Uuid;

/// Why the customer has it. It says nothing of its worth: that is the pool's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    Paid,
    Promotional,
    Pilot,
}

impl Category {
    pub const WORDS: [&str; 3] = ["promotional", "pilot", "paid"];

    pub fn as_str(self) -> &'static str {
        match self {
            Category::Paid => "paid",
            Category::Promotional => "promotional",
            Category::Pilot => "pilot",
        }
    }

    pub fn parse(text: &str) -> Result<Category, Fault> {
        match text {
            "paid" => Ok(Category::Paid),
            "promotional" => Ok(Category::Promotional),
            "pilot" => Ok(Category::Pilot),
            other => Err(Fault::value(format!("category {} is not known", quoted(other)))
                .with_hint(format!("Use {}.", or_list(&Category::WORDS)))),
        }
    }
}

/// What becomes of what is unused when the block expires: up to `cap` of it moves to a new block. The cap is a number
/// of credits, not a percentage: "20%" may mean of what was paid, granted or left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollover {
    /// `None` = all of it.
    pub cap: Option<Exact>,
    /// When the new block expires.
    pub expires_at: Option<Instant>,
}

/// How far below 0 a block may be drawn, under [`Mode::AllowNegative`](super::Mode).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overdraft {
    #[default]
    None,
    UpTo(Exact),
    Unlimited,
}

impl Overdraft {
    pub fn read(node: &Node) -> Result<Overdraft, Fault> {
        if node.text()? == "unlimited" {
            return Ok(Overdraft::Unlimited);
        }
        node.decimal()
            .map(Overdraft::UpTo)
            .map_err(|fault| fault.with_hint("Write \"100\", or \"unlimited\"."))
    }
}

/// A block's terms. What it holds at a time is the ledger's.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Ids are made in order of time, so the lower one is the older block.
    pub id: Uuid,
    /// A currency or pricing unit.
    pub unit: Unit,
    pub category: Category,
    pub granted: Exact,
    /// The purchase that promised it; `None` where it was given outside any purchase, so that its basis is 0.
    pub pool: Option<Pool>,
    /// Lower ones are drawn first.
    pub priority: i32,
    pub scope: Scope,
    /// It pays for usage of `[effective_at, expires_at)`, whenever that is rated and invoiced.
    pub effective_at: Instant,
    pub expires_at: Option<Instant>,
    pub rollover: Option<Rollover>,
    pub overdraft: Overdraft,
    /// The block whose unused credits these are.
    pub rolled_from: Option<Uuid>,
}

impl Block {
    /// Reads a stored block and what is left of it, as `billing_internal.credit_opens()` writes them.
    pub fn read(node: &Node) -> Result<(Block, Exact), Fault> {
        let mut fields = node.fields()?;
        let uuid = |node: Node| {
            let text = node.text()?;
            Uuid::parse_str(text).map_err(|_| node.fault(format!("{} is no id", quoted(text))))
        };
        let unit = |node: Node| Unit::parse(node.text()?).map_err(|fault| node.rehint(fault));
        let category = fields.required("category")?;
        let pool = |node: Node| {
            let mut fields = node.fields()?;
            let (paid, credits) =
                (fields.required("paid")?.decimal()?, fields.required("credits")?.decimal()?);
            Pool::new(uuid(fields.required("id")?)?, unit(fields.required("currency")?)?, paid, credits)
        };
        let rollover = |node: Node| {
            let mut fields = node.fields_of(&["cap", "expires_at"])?;
            Ok::<_, Fault>(Rollover {
                cap: fields.optional("cap").map(|cap| cap.decimal()).transpose()?,
                expires_at: fields.optional("expires_at").map(|at| at.instant()).transpose()?,
            })
        };
        let priority = fields.required("priority")?;
        let block = Block {
            id: uuid(fields.required("id")?)?,
            unit: unit(fields.required("unit")?)?,
            category: Category::parse(category.text()?).map_err(|fault| category.rehint(fault))?,
            granted: fields.required("granted")?.decimal()?,
            pool: fields.optional("pool").map(pool).transpose()?,
            priority: i32::try_from(priority.integer()?)
                .map_err(|_| priority.fault("is not from −2,147,483,648 to 2,147,483,647"))?,
            scope: fields.optional("scope").map_or(Ok(Scope::default()), |scope| Scope::read(&scope))?,
            effective_at: fields.required("effective_at")?.instant()?,
            expires_at: fields.optional("expires_at").map(|at| at.instant()).transpose()?,
            rollover: fields.optional("rollover").map(rollover).transpose()?,
            overdraft: fields
                .optional("overdraft")
                .map_or(Ok(Overdraft::None), |node| Overdraft::read(&node))?,
            rolled_from: fields.optional("rolled_from").map(uuid).transpose()?,
        };
        let left = fields.required("left")?.decimal()?;
        fields.finish()?;
        Ok((block, left))
    }

    /// Refuses terms that can't hold.
    pub fn check(&self) -> Result<(), Fault> {
        if self.granted.is_negative() || self.granted.is_zero() {
            return Err(Fault::value(format!("a block of {} credits is none", self.granted)));
        }
        if let Some(pool) = self.pool.as_ref().filter(|pool| pool.credits() < self.granted) {
            return Err(Fault::value(format!(
                "a block of {} credits is more than its pool of {}",
                self.granted,
                pool.credits()
            )));
        }
        let after = |later: Option<Instant>, earlier: Instant| later.is_none_or(|later| earlier < later);
        if !after(self.expires_at, self.effective_at) {
            return Err(Fault::value("a block must expire after it takes effect"));
        }
        if self.scope.windows.iter().any(|window| window.until <= window.from) {
            return Err(Fault::value("a window of the scope must end after it begins"));
        }
        if let Some((name, _)) = self.scope.dimensions.iter().find(|(_, values)| values.is_empty()) {
            return Err(Fault::value(format!("dimension \"{name}\" of the scope has no value that fits")));
        }
        if let Overdraft::UpTo(limit) = self.overdraft
            && limit.is_negative()
        {
            return Err(Fault::value(format!("an overdraft up to {limit} is negative")));
        }
        match (&self.rollover, self.expires_at) {
            (Some(_), None) => Err(Fault::value("a block that never expires has nothing to roll over")),
            (Some(rollover), Some(expires_at)) if !after(rollover.expires_at, expires_at) => {
                Err(Fault::value("what is rolled over must expire after the block it comes from"))
            }
            (Some(Rollover { cap: Some(cap), .. }), _) if cap.is_negative() => {
                Err(Fault::value(format!("a roll-over cap of {cap} is negative")))
            }
            _ => Ok(()),
        }
    }

    /// Money per credit.
    pub fn basis(&self) -> Ratio {
        self.pool.as_ref().map_or(Ratio::ZERO, Pool::basis)
    }

    /// Whether usage of this time is inside the block's own.
    pub fn holds(&self, at: Instant) -> bool {
        self.effective_at <= at && self.expires_at.is_none_or(|end| at < end) && self.scope.holds(at)
    }

    /// How much can still be drawn where `left` is there, with the overdraft; `None` = without end.
    pub fn room_below(&self, left: Exact) -> Result<Option<Exact>, Fault> {
        Ok(match self.overdraft {
            Overdraft::None => Some(if left.is_negative() { Exact::ZERO } else { left }),
            Overdraft::UpTo(limit) => Some(left.add(limit)?).map(|room| room.max(Exact::ZERO)),
            Overdraft::Unlimited => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::scope::Window;
    use super::super::testing::{block, exact, id, usd};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn categories_are_words() {
        for word in Category::WORDS {
            assert_eq!(Category::parse(word).unwrap().as_str(), word);
        }
        let fault = Category::parse("free").unwrap_err();
        assert_eq!(fault.message, "category \"free\" is not known");
        assert_eq!(fault.hint.unwrap(), "Use promotional, pilot or paid.");
    }

    #[test]
    fn refuses_terms_that_cant_hold() {
        let refused = |change: fn(&mut Block)| {
            let mut block = block(1, "100");
            block.expires_at = Some(Instant(100));
            assert_eq!(block.check(), Ok(()));
            change(&mut block);
            block.check().unwrap_err().message
        };
        let roll = |cap: &str, at: Option<i64>| {
            Some(Rollover { cap: Some(exact(cap)), expires_at: at.map(Instant) })
        };
        for (message, expected) in [
            (refused(|b| b.granted = Exact::ZERO), "credits is none"),
            (refused(|b| b.granted = exact("-1")), "credits is none"),
            (
                refused(|b| b.pool = Some(Pool::new(id(1), usd(), exact("1"), exact("99")).unwrap())),
                "more than its pool of 99",
            ),
            (refused(|b| b.expires_at = Some(b.effective_at)), "expire after it takes effect"),
            (
                refused(|b| b.scope.windows = vec![Window { from: Instant(5), until: Instant(5) }]),
                "must end after it begins",
            ),
            (
                refused(|b| drop(b.scope.dimensions.insert("model".into(), BTreeSet::new()))),
                "dimension \"model\"",
            ),
            (refused(|b| b.overdraft = Overdraft::UpTo(exact("-1"))), "overdraft up to -1"),
            (refused(|b| b.rollover = Some(Rollover { cap: None, expires_at: Some(Instant(100)) })), "roll"),
        ] {
            assert!(message.contains(expected), "{message}");
        }
        let mut forever = block(1, "100");
        forever.rollover = roll("5", None);
        assert!(forever.check().unwrap_err().message.contains("never expires"));
        forever.expires_at = Some(Instant(100));
        assert_eq!(forever.check(), Ok(()));
        forever.rollover = roll("-5", None);
        assert!(forever.check().unwrap_err().message.contains("cap of -5"));
    }

    #[test]
    fn time_is_half_open_and_room_ends_at_the_overdraft() {
        let mut block = block(1, "100");
        (block.effective_at, block.expires_at) = (Instant(10), Some(Instant(20)));
        assert_eq!([9, 10, 19, 20].map(|at| block.holds(Instant(at))), [false, true, true, false]);
        block.scope.windows = vec![Window { from: Instant(12), until: Instant(13) }];
        assert_eq!([11, 12, 13].map(|at| block.holds(Instant(at))), [false, true, false]);
        let room = |overdraft: Overdraft, left: &str| {
            Block { overdraft, ..block.clone() }.room_below(exact(left)).unwrap()
        };
        assert_eq!(room(Overdraft::None, "5"), Some(exact("5")));
        assert_eq!(room(Overdraft::None, "-5"), Some(Exact::ZERO));
        assert_eq!(room(Overdraft::UpTo(exact("7")), "-5"), Some(exact("2")));
        assert_eq!(room(Overdraft::UpTo(exact("7")), "-9"), Some(Exact::ZERO));
        assert_eq!(room(Overdraft::Unlimited, "-9"), None);
        assert_eq!(block.basis(), Ratio::ZERO);
    }
}
