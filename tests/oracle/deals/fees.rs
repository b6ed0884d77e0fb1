//! Fees, day by day.

use super::documents::maybe;
use super::rating::rate;
use super::{Contract, Day, Instant, Proration, Q, Rc, Stretch, Terms, World, days30, q, round};
use serde_json::Value;

/// What is billed of a fee: what begins before a day, or ends until a day.
#[derive(Clone, Copy)]
pub(super) enum Billed {
    Advance(Day),
    Arrears(Day),
}

impl World {
    /// A fee of one service period: each stretch of equal terms is its share, rounded once, and billed by itself: in
    /// advance where it begins, in arrears where it ends.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn fee(
        &self,
        contract: &Contract,
        key: &str,
        every: u32,
        whole: (Day, Day),
        days: (Day, Day),
        billed: Billed,
        terms_at: &mut dyn FnMut(Instant) -> Rc<Terms>,
    ) -> Q {
        let zone = self.zone(contract);
        let mut stretches: Vec<((Value, Q), Stretch)> = Vec::new();
        for (at, next) in self.moments(contract, days) {
            let (terms, day) = (terms_at(at), zone.day(at));
            let Some(fee) = self.item_on(contract, &terms, "fees", key, at) else { continue };
            let uplift = terms.uplift.clone().unwrap_or_else(|| q(1));
            let off = self.off(contract, &terms, &fee, day);
            let own = (fee, uplift * off);
            match stretches.last_mut() {
                Some((same, (_, end))) if *same == own && *end == at => *end = next,
                _ => stretches.push((own, (at, next))),
            }
        }
        // What is taken off for a time cuts the amount, not what is billed at once.
        let mut wholes: Vec<Stretch> = Vec::new();
        for n in 0..stretches.len() {
            let ((fee, _), (begins, ends)) = &stretches[n];
            match wholes.last() {
                Some(whole) if stretches[n - 1].0.0 == *fee && whole.1 == *begins => {
                    let whole = (whole.0, *ends);
                    let first = wholes.iter().position(|w| w.0 == whole.0).expect("it");
                    wholes[first..].fill(whole);
                    wholes.push(whole);
                }
                _ => wholes.push((*begins, *ends)),
            }
        }
        stretches
            .into_iter()
            .zip(wholes)
            .filter(|(_, (begins, ends))| match billed {
                Billed::Advance(open) => *begins < zone.midnight(open),
                Billed::Arrears(last) => *ends <= zone.midnight(last),
            })
            .map(|(stretch, _)| stretch)
            .map(|((fee, factor), stretch)| {
                let amount = rate(&fee["pricing"], &maybe(&fee, "quantity").unwrap_or_else(|| q(1)));
                let share = self.share(contract, stretch, whole, every);
                round(&(amount * factor * share), self.digits(contract), contract.rounding)
            })
            .sum()
    }

    /// The share of a stretch in its whole service period (rules 2).
    pub(super) fn share(
        &self,
        contract: &Contract,
        (start, end): Stretch,
        whole: (Day, Day),
        every: u32,
    ) -> Q {
        let over = |a: i64, b: i64| Q::new(a.into(), b.into());
        let zone = self.zone(contract);
        let all = (zone.midnight(whole.0), zone.midnight(whole.1));
        if (start, end) == all {
            return q(1);
        }
        let (first, last) = (zone.day(start), zone.day(end));
        match contract.proration {
            Proration::Day => over((last - first).num_days(), (whole.1 - whole.0).num_days()),
            Proration::Second => over(end - start, all.1 - all.0),
            Proration::Thirty => over((last - first).num_days(), 30 * i64::from(every)).min(q(1)),
            Proration::ThirtyStrict => over(days30(first, last), 30 * i64::from(every)),
            Proration::None => q(1),
        }
    }

    /// Every instant in a stretch of days at which terms may change: its midnights, and the instants of changes.
    pub(super) fn moments(&self, contract: &Contract, (from, until): (Day, Day)) -> Vec<Stretch> {
        let zone = self.zone(contract);
        let (start, end) = (zone.midnight(from), zone.midnight(until));
        let midnights = from.iter_days().take_while(|d| *d < until).map(|d| zone.midnight(d));
        let changes = contract.changes.iter().map(|c| c.effective).filter(|at| start < *at && *at < end);
        let mut found: Vec<Instant> = midnights.chain(changes).chain([end]).collect();
        found.sort_unstable();
        found.dedup();
        found.windows(2).map(|w| (w[0], w[1])).collect()
    }
}
