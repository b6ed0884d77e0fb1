//! The end of a block. It is no billing event: no invoice, no receivable, no tax.

use super::block::Block;
use super::ledger::{Balance, Entry, Kind};
use crate::domain::foundation::instant::Instant;
use crate::domain::foundation::{Code, Exact, Fault};
use uuid::Uuid;

/// Where a block is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Upcoming,
    Live,
    /// It pays for no later usage, but late events of before may still come.
    PendingExpiration,
    /// Its expiry is due or posted.
    Expired,
}

/// Where it is at an instant. `closes_at` is when the late-event grace of the period ends in which the block does; a
/// block is never expired before its own end.
pub fn standing(block: &Block, at: Instant, closes_at: Instant) -> Standing {
    match block.expires_at {
        _ if at < block.effective_at => Standing::Upcoming,
        Some(end) if end <= at && at < closes_at => Standing::PendingExpiration,
        Some(end) if end <= at => Standing::Expired,
        _ => Standing::Live,
    }
}

/// What of the balance will expire unless late usage takes it.
pub fn pending_expiration(
    block: &Block,
    balance: &Balance,
    at: Instant,
    closes_at: Instant,
) -> Result<Exact, Fault> {
    let pending = standing(block, at, closes_at) == Standing::PendingExpiration;
    Ok(if pending { balance.left()?.max(Exact::ZERO) } else { Exact::ZERO })
}

/// What the end of a block posts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expiry {
    /// To the block itself: what moved, then what broke.
    pub entries: Vec<Entry>,
    /// The block that holds what moved.
    pub rolled: Option<Block>,
}

/// Ends a block: min(unused, cap) moves to a new block with a link and the same pool, so the same cost basis; only the
/// rest breaks. Nothing is posted for a block that is used up, nor for debt: that waits for a top-up.
///
/// The new block takes effect where the old one ended, with its scope, category and priority. It rolls over no more
/// (as Metronome's do): what was agreed for a block is not agreed again with each of its remains.
pub fn expire(
    block: &Block,
    balance: &Balance,
    at: Instant,
    closes_at: Instant,
    rolled_id: Uuid,
) -> Result<Expiry, Fault> {
    let Some(end) = block.expires_at.filter(|_| standing(block, at, closes_at) == Standing::Expired) else {
        return Err(Fault::new(Code::State, format!("block {} has not expired", block.id))
            .with_hint("A block expires when the grace for late events of its last period has ended."));
    };
    let left = balance.left()?.max(Exact::ZERO);
    let moved = match &block.rollover {
        None => Exact::ZERO,
        Some(rollover) => rollover.cap.map_or(left, |cap| left.min(cap)),
    };
    let entry = |kind, amount| Entry { block: block.id, kind, amount };
    let entries = [entry(Kind::RolledOut, moved), entry(Kind::Expired, left.sub(moved)?)];
    let rolled = (block.rollover.as_ref()).filter(|_| !moved.is_zero()).map(|rollover| Block {
        id: rolled_id,
        granted: moved,
        effective_at: end,
        expires_at: rollover.expires_at,
        rollover: None,
        rolled_from: Some(block.id),
        ..block.clone()
    });
    Ok(Expiry { entries: entries.into_iter().filter(|entry| !entry.amount.is_zero()).collect(), rolled })
}

#[cfg(test)]
mod tests {
    use super::super::block::{Overdraft, Rollover};
    use super::super::testing::{at, block, exact, id};
    use super::*;

    fn march() -> Block {
        Block { effective_at: at("2026-03-01"), expires_at: Some(at("2026-04-01")), ..block(1, "100") }
    }

    fn used(block: &Block, amount: &str) -> Balance {
        let mut balance = Balance::of(block);
        let burnt = Entry { block: block.id, kind: Kind::Burnt, amount: exact(amount) };
        balance.post(burnt, Overdraft::Unlimited).unwrap();
        balance
    }

    /// rules.md 3: a block ended 31 March still pays for usage of that day rated on 3 April.
    #[test]
    fn expiry_waits_for_late_events() {
        let (block, closes) = (march(), at("2026-04-04"));
        for (day, expected, pending) in [
            ("2026-02-28T23:59:59Z", Standing::Upcoming, "0"),
            ("2026-03-01", Standing::Live, "0"),
            ("2026-03-31T23:59:59.999999Z", Standing::Live, "0"),
            ("2026-04-01", Standing::PendingExpiration, "70"),
            ("2026-04-03", Standing::PendingExpiration, "70"),
            ("2026-04-04", Standing::Expired, "0"),
        ] {
            assert_eq!(standing(&block, at(day), closes), expected, "{day}");
            let amount = pending_expiration(&block, &used(&block, "30"), at(day), closes).unwrap();
            assert_eq!(amount, exact(pending), "{day}");
        }
        let debt = pending_expiration(&block, &used(&block, "130"), at("2026-04-02"), closes).unwrap();
        assert_eq!(debt, Exact::ZERO);
        // Without grace there is nothing pending, and no grace ends a block early.
        assert_eq!(standing(&block, at("2026-04-01"), at("2026-04-01")), Standing::Expired);
        assert_eq!(standing(&block, at("2026-03-20"), at("2026-03-10")), Standing::Live);
        let forever = Block { expires_at: None, ..block };
        assert_eq!(standing(&forever, at("2030-01-01"), closes), Standing::Live);
    }

    fn end(block: &Block, burnt: &str) -> Expiry {
        expire(block, &used(block, burnt), at("2026-04-04"), at("2026-04-04"), id(7)).unwrap()
    }

    #[test]
    fn only_what_is_not_rolled_over_breaks() {
        let plain = march();
        let entry = |kind, amount| Entry { block: id(1), kind, amount: exact(amount) };
        let expired = Expiry { entries: vec![entry(Kind::Expired, "70")], rolled: None };
        assert_eq!(end(&plain, "30"), expired);
        for burnt in ["100", "130"] {
            assert_eq!(end(&plain, burnt), Expiry::default(), "{burnt}");
        }
        let rolling = |cap: Option<&str>| Block {
            rollover: Some(Rollover { cap: cap.map(exact), expires_at: Some(at("2026-07-01")) }),
            ..march()
        };
        let capped = end(&rolling(Some("20")), "30");
        assert_eq!(capped.entries, [entry(Kind::RolledOut, "20"), entry(Kind::Expired, "50")]);
        let new = capped.rolled.unwrap();
        assert_eq!((new.id, new.granted, new.rolled_from), (id(7), exact("20"), Some(id(1))));
        assert_eq!((new.effective_at, new.expires_at), (at("2026-04-01"), Some(at("2026-07-01"))));
        assert_eq!((new.rollover.clone(), new.check()), (None, Ok(())));
        assert_eq!(end(&rolling(Some("200")), "30").entries, [entry(Kind::RolledOut, "70")]);
        assert_eq!(end(&rolling(None), "30").entries, [entry(Kind::RolledOut, "70")]);
        assert_eq!(end(&rolling(Some("0")), "30"), expired);
        assert_eq!(end(&rolling(None), "100"), Expiry::default());
    }

    #[test]
    fn nothing_expires_early() {
        let block = march();
        let ended = |at| expire(&block, &Balance::of(&block), at, self::at("2026-04-04"), id(7));
        assert_eq!(ended(at("2026-04-03")).unwrap_err().code, Code::State);
        let forever = Block { expires_at: None, ..block.clone() };
        let fault = expire(&forever, &Balance::of(&forever), at("2030-01-01"), at("2026-04-04"), id(7));
        assert!(fault.unwrap_err().message.contains("has not expired"));
    }
}
