//! Credit that comes back: each draw to its own block, never to "the wallet".

use super::block::Block;
use super::expire::Standing;
use super::ledger::{Balance, Entry, Kind};
use super::rows::Draw;
use crate::domain::foundation::{Code, Exact, Fault, Ratio, RoundingMode};

/// A void: all draws of the invoice, given back.
pub fn void(draws: &[Draw]) -> Vec<Draw> {
    draws.iter().map(Draw::negated).collect()
}

/// What a partial credit note of one line gives back.
#[derive(Debug, Clone, PartialEq)]
pub struct CreditNote {
    /// Of what was billed as overage.
    pub money: Exact,
    /// Of the draws, negative.
    pub draws: Vec<Draw>,
}

/// A partial credit note: in reverse burn order. `draws` are the line's as they stand, in burn order (less what
/// earlier notes gave back), `overage` what it billed beyond credit. Usage goes beyond credit when credit has ended, so
/// the overage was the last and is given back first.
pub fn credit_note(draws: &[Draw], overage: Exact, amount: Exact) -> Result<CreditNote, Fault> {
    let drawn = draws.iter().map(|draw| draw.amount).try_fold(Exact::ZERO, Exact::add)?;
    let whole = drawn.add(overage)?;
    if amount.is_negative() || amount > whole {
        return Err(Fault::value(format!("a credit note of {amount} is not within the line's {whole}")));
    }
    let money = amount.min(overage);
    let mut left = amount.sub(money)?;
    let mut back = Vec::new();
    for draw in draws.iter().rev().filter(|draw| !draw.amount.is_zero()) {
        if left.is_zero() {
            break;
        }
        let part = left.min(draw.amount);
        let share = Ratio::from(part).div(&draw.amount.into()).expect("the draw is not zero");
        back.push(Draw { quantity: draw.quantity.mul(&share).neg(), amount: part.neg(), ..draw.clone() });
        left = left.sub(part)?;
    }
    Ok(CreditNote { money, draws: back })
}

/// The entries that give a draw back to its block, which holds `left`. If the block's expiry has been posted, what comes
/// back expires at once, in the same transaction, but for what pays off the block's debt. Whoever grants an extension
/// moves `expires_at` first, and the block stands. What is reinstated so is not rolled over: that was settled when the
/// block ended.
pub fn reinstate(back: &Draw, left: Exact, standing: Standing) -> Result<Vec<Entry>, Fault> {
    let amount = back.amount.abs();
    let broken = match standing {
        Standing::Expired => left.add(amount)?.min(amount),
        Standing::Upcoming | Standing::Live | Standing::PendingExpiration => Exact::ZERO,
    };
    let entry = |(kind, amount)| Entry { block: back.block, kind, amount };
    let both = [(Kind::Reinstated, amount), (Kind::Expired, broken)].into_iter();
    Ok(both.filter(|(_, amount)| *amount > Exact::ZERO).map(entry).collect())
}

/// A refund of unused credits: they are worth their cost basis, never face value. `released` is how many credits of
/// the pool have left it before (burnt, expired or refunded), so that refunds and revenue sum to what was paid.
pub fn refund(
    block: &Block,
    balance: &Balance,
    credits: Exact,
    released: Exact,
    minor_units: u32,
    rounding: RoundingMode,
) -> Result<(Entry, Exact), Fault> {
    let Some(pool) = &block.pool else {
        return Err(Fault::new(Code::State, "credits that nobody paid for can't be refunded")
            .with_hint("Let them expire, or void the grant."));
    };
    let left = balance.left()?;
    if credits.is_negative() || credits.is_zero() || credits > left {
        return Err(Fault::value(format!("{credits} credits can't be refunded: {left} are unused")));
    }
    let money = pool.release(released, credits, minor_units, rounding)?;
    Ok((Entry { block: block.id, kind: Kind::Refunded, amount: credits }, money))
}

/// Takes back a grant that was never used. One that was used has been earned in part: what is left of it is refunded
/// or expires.
pub fn void_grant(block: &Block, balance: &Balance) -> Result<Entry, Fault> {
    let left = balance.left()?;
    if left != block.granted {
        return Err(Fault::new(
            Code::State,
            format!("a grant of {} can't be voided: {left} is left of it", block.granted),
        )
        .with_hint("Refund what is unused, or void the invoices that used it first."));
    }
    Ok(Entry { block: block.id, kind: Kind::Voided, amount: left })
}

#[cfg(test)]
mod tests {
    use super::super::block::Overdraft;
    use super::super::pool::Pool;
    use super::super::testing::{block, exact, id, ratio, usd};
    use super::*;

    fn draw(block: u128, quantity: &str, amount: &str) -> Draw {
        Draw { line: "tokens".into(), block: id(block), quantity: ratio(quantity), amount: exact(amount) }
    }

    #[test]
    fn overage_comes_back_before_credit() {
        let draws = [draw(1, "30", "3"), draw(3, "1", "0"), draw(2, "30", "6")];
        let note = |amount: &str| credit_note(&draws, exact("5"), exact(amount));
        let same = CreditNote { money: exact("4"), draws: vec![] };
        assert_eq!(note("4").unwrap(), same);
        let partial = CreditNote { money: exact("5"), draws: vec![draw(2, "-10", "-2")] };
        assert_eq!(note("7").unwrap(), partial);
        let whole = CreditNote { money: exact("5"), draws: vec![draw(2, "-30", "-6"), draw(1, "-30", "-3")] };
        assert_eq!(note("14").unwrap(), whole);
        for amount in ["14.01", "-1"] {
            assert!(note(amount).unwrap_err().message.contains("the line's 14"));
        }
    }

    #[test]
    fn what_comes_back_to_an_ended_block_ends_again() {
        let back = |amount: &str, left: &str, standing| -> Vec<(&str, String)> {
            let entries = reinstate(&draw(1, "-1", amount), exact(left), standing).unwrap();
            entries.iter().map(|entry| (entry.kind.as_str(), entry.amount.to_string())).collect()
        };
        let reinstated = || ("reinstated", "5".to_string());
        for standing in [Standing::Live, Standing::PendingExpiration, Standing::Upcoming] {
            assert_eq!(back("-5", "0", standing), [reinstated()]);
        }
        for (left, expired) in [("0", "5"), ("3", "5"), ("-2", "3")] {
            assert_eq!(
                back("-5", left, Standing::Expired),
                [reinstated(), ("expired", expired.to_string())],
                "{left}"
            );
        }
        // All of it pays off debt.
        for left in ["-5", "-7"] {
            assert_eq!(back("-5", left, Standing::Expired), [reinstated()]);
        }
        assert!(back("0", "0", Standing::Expired).is_empty());
    }

    /// rules.md 3: refund = credits × cost basis, never face value; 100,000 paid for 125,000.
    #[test]
    fn refunds_at_cost() {
        let mut paid = block(1, "125000");
        paid.pool = Some(Pool::new(id(9), usd(), exact("100000"), exact("125000")).unwrap());
        let mut balance = Balance::of(&paid);
        balance
            .post(Entry { block: paid.id, kind: Kind::Burnt, amount: exact("100000") }, Overdraft::None)
            .unwrap();
        let refund = |block: &Block, credits: &str| {
            refund(block, &balance, exact(credits), exact("100000"), 2, RoundingMode::HalfUp)
        };
        let (entry, money) = refund(&paid, "25000").unwrap();
        assert_eq!((entry.kind, entry.amount, money), (Kind::Refunded, exact("25000"), exact("20000")));
        for credits in ["25000.01", "0", "-1"] {
            assert!(refund(&paid, credits).unwrap_err().message.contains("25000 are unused"));
        }
        assert_eq!(refund(&block(1, "1"), "1").unwrap_err().code, Code::State);
    }

    #[test]
    fn only_an_unused_grant_is_voided() {
        let grant = block(1, "100");
        let mut balance = Balance::of(&grant);
        let voided = Entry { block: grant.id, kind: Kind::Voided, amount: exact("100") };
        assert_eq!(void_grant(&grant, &balance).unwrap(), voided);
        balance.post(Entry { kind: Kind::Burnt, amount: exact("1"), ..voided }, Overdraft::None).unwrap();
        assert!(void_grant(&grant, &balance).unwrap_err().message.contains("99 is left"));
        balance
            .post(Entry { kind: Kind::Reinstated, amount: exact("1"), ..voided }, Overdraft::None)
            .unwrap();
        assert_eq!(void_grant(&grant, &balance).unwrap(), voided);
    }
}
