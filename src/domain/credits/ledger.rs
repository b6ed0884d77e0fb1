//! The entries of a block and what they leave: granted − burnt + reinstated − expired − voided − refunded − rolled
//! out. Entries are only added; a correction is another entry.

use super::block::{Block, Overdraft};
use crate::domain::foundation::{Code, Exact, Fault};
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Granted,
    /// Drawn by usage, or spent on the debt of another block.
    Burnt,
    /// A burn taken back.
    Reinstated,
    Expired,
    /// The grant taken back before use.
    Voided,
    Refunded,
    /// Moved to a new block.
    RolledOut,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Granted => "granted",
            Kind::Burnt => "burnt",
            Kind::Reinstated => "reinstated",
            Kind::Expired => "expired",
            Kind::Voided => "voided",
            Kind::Refunded => "refunded",
            Kind::RolledOut => "rolled_out",
        }
    }

    /// The two accounts of the double entry, in units: debit, credit. A roll-over is one transaction of two blocks, from
    /// the old one's balance to the new one's, so the new block has no other grant.
    pub fn accounts(self) -> (Account, Account) {
        use Account::*;
        match self {
            Kind::Granted => (CustomerBalance, Issued),
            Kind::Burnt => (Consumed, CustomerBalance),
            Kind::Reinstated => (CustomerBalance, Consumed),
            Kind::Expired => (Expired, CustomerBalance),
            Kind::Voided | Kind::Refunded => (Issued, CustomerBalance),
            Kind::RolledOut => (CustomerBalance, CustomerBalance),
        }
    }
}

/// Where credits are, or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    CustomerBalance,
    Issued,
    Consumed,
    Expired,
}

/// One entry; the amount is positive, the kind says in which direction it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub block: Uuid,
    pub kind: Kind,
    pub amount: Exact,
}

/// The sums of a block's entries, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    pub granted: Exact,
    pub burnt: Exact,
    pub reinstated: Exact,
    pub expired: Exact,
    pub voided: Exact,
    pub refunded: Exact,
    pub rolled_out: Exact,
}

impl Balance {
    /// A block just granted.
    pub fn of(block: &Block) -> Balance {
        let zero = Exact::ZERO;
        Balance {
            granted: block.granted,
            burnt: zero,
            reinstated: zero,
            expired: zero,
            voided: zero,
            refunded: zero,
            rolled_out: zero,
        }
    }

    /// What is left; below 0 it is debt.
    pub fn left(&self) -> Result<Exact, Fault> {
        [self.burnt, self.expired, self.voided, self.refunded, self.rolled_out]
            .into_iter()
            .try_fold(self.granted.add(self.reinstated)?, Exact::sub)
    }

    /// What is burnt and was not given back.
    pub fn used(&self) -> Result<Exact, Fault> {
        self.burnt.sub(self.reinstated)
    }

    /// Adds an entry, and refuses one that would spend a credit twice: below 0 (or the overdraft, which only burning
    /// may use), or reinstating more than was burnt, which would leave more than was granted.
    pub fn post(&mut self, entry: Entry, overdraft: Overdraft) -> Result<(), Fault> {
        if entry.amount.is_negative() || entry.amount.is_zero() {
            return Err(Fault::value(format!("an entry of {} moves nothing", entry.amount)));
        }
        let mut next = *self;
        let sum = match entry.kind {
            Kind::Granted => {
                return Err(Fault::new(Code::State, "a block is granted once")
                    .with_hint("Grant another block instead."));
            }
            Kind::Burnt => &mut next.burnt,
            Kind::Reinstated => &mut next.reinstated,
            Kind::Expired => &mut next.expired,
            Kind::Voided => &mut next.voided,
            Kind::Refunded => &mut next.refunded,
            Kind::RolledOut => &mut next.rolled_out,
        };
        *sum = sum.add(entry.amount)?;
        if next.used()?.is_negative() {
            return Err(Fault::new(
                Code::State,
                format!("{} can't be reinstated: {} is all that was burnt", entry.amount, self.used()?),
            ));
        }
        let left = next.left()?;
        let floor = match (entry.kind, overdraft) {
            (Kind::Burnt, Overdraft::Unlimited) | (Kind::Reinstated, _) => None,
            (Kind::Burnt, Overdraft::UpTo(limit)) => Some(limit.neg()),
            _ => Some(Exact::ZERO),
        };
        if floor.is_some_and(|floor| left < floor) {
            return Err(Fault::new(
                Code::State,
                format!("{} can't be {}: {} is left", entry.amount, entry.kind.as_str(), self.left()?),
            ));
        }
        *self = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{block, exact, id};
    use super::*;

    fn posted(entries: &[(Kind, &str)], overdraft: Overdraft) -> Result<Exact, Fault> {
        let mut balance = Balance::of(&block(1, "100"));
        for (kind, amount) in entries {
            balance.post(Entry { block: id(1), kind: *kind, amount: exact(amount) }, overdraft)?;
        }
        balance.left()
    }

    #[test]
    fn every_kind_has_its_direction() {
        use Kind::*;
        for (kind, left) in
            [(Burnt, "65"), (Expired, "65"), (Voided, "65"), (Refunded, "65"), (RolledOut, "65")]
        {
            assert_eq!(posted(&[(kind, "35")], Overdraft::None).unwrap(), exact(left), "{}", kind.as_str());
        }
        let all = [
            (Burnt, "50"),
            (Reinstated, "20"),
            (Expired, "5"),
            (Voided, "6"),
            (Refunded, "7"),
            (RolledOut, "8"),
        ];
        assert_eq!(posted(&all, Overdraft::None).unwrap(), exact("44"));
    }

    /// rules.md 3, "Postings", the credit ledger's side.
    #[test]
    fn entries_are_double() {
        use Account::*;
        for (kind, debit, credit) in [
            (Kind::Granted, CustomerBalance, Issued),
            (Kind::Burnt, Consumed, CustomerBalance),
            (Kind::Reinstated, CustomerBalance, Consumed),
            (Kind::Expired, Expired, CustomerBalance),
            (Kind::RolledOut, CustomerBalance, CustomerBalance),
            (Kind::Refunded, Issued, CustomerBalance),
            (Kind::Voided, Issued, CustomerBalance),
        ] {
            assert_eq!(kind.accounts(), (debit, credit), "{}", kind.as_str());
        }
    }

    #[test]
    fn no_credit_is_spent_twice() {
        use Kind::*;
        let message = |entries: &[(Kind, &str)], overdraft| posted(entries, overdraft).unwrap_err().message;
        assert_eq!(message(&[(Burnt, "100.01")], Overdraft::None), "100.01 can't be burnt: 100 is left");
        assert_eq!(
            message(&[(Burnt, "60"), (Reinstated, "60.5")], Overdraft::None),
            "60.5 can't be reinstated: 60 is all that was burnt"
        );
        assert_eq!(message(&[(Granted, "1")], Overdraft::None), "a block is granted once");
        for amount in ["0", "-1"] {
            assert!(message(&[(Burnt, amount)], Overdraft::None).contains("moves nothing"));
        }
        let ten = Overdraft::UpTo(exact("10"));
        assert_eq!(posted(&[(Burnt, "110")], ten).unwrap(), exact("-10"));
        assert!(message(&[(Burnt, "110.01")], ten).contains("can't be burnt"));
        assert_eq!(posted(&[(Burnt, "500")], Overdraft::Unlimited).unwrap(), exact("-400"));
        // Only usage goes into debt; paying it back by parts is no new debt.
        for kind in [Expired, Voided, Refunded, RolledOut] {
            assert!(message(&[(kind, "101")], Overdraft::Unlimited).contains("100 is left"));
        }
        assert_eq!(
            posted(&[(Burnt, "500"), (Reinstated, "1")], Overdraft::Unlimited).unwrap(),
            exact("-399")
        );
        assert_eq!(posted(&[(Burnt, "110"), (Reinstated, "1")], ten).unwrap(), exact("-9"));
    }
}
