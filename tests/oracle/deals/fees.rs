//! Fees, day by day.

use super::documents::{date, maybe, text};
use super::rating::rate;
use super::{Contract, Day, Instant, Proration, Q, Rc, Stretch, Terms, World, days30, months, q, round};
use chrono::Months;
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
        // Only what begins inside a period, not with the contract, is co-termed.
        let joins = terms_at(zone.midnight(days.1) - 1).fees.get(key).is_some_and(|fee| {
            let added = date(fee, "_since").filter(|day| {
                // What takes the place of another of its key does not begin with it.
                let before = zone.midnight(*day) - 1;
                zone.midnight(days.0) <= before && !self.terms(contract, before).fees.contains_key(key)
            });
            date(fee, "from").or(added).is_some_and(|begins| days.0 < begins)
        });
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
                let share = if contract.policies.by_month && joins {
                    self.share_by_months(contract, stretch, whole, every)
                } else {
                    self.share(contract, stretch, whole, every)
                };
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

    /// Co-termed by months (policy `co_term`): the share in whole months before the period's end, and days of the month before them.
    fn share_by_months(
        &self,
        contract: &Contract,
        (start, end): Stretch,
        whole: (Day, Day),
        every: u32,
    ) -> Q {
        let zone = self.zone(contract);
        let left = |day: Day| {
            let back = |n: u32| whole.1 - Months::new(n);
            let months = (0..every).take_while(|n| back(n + 1) >= day).count() as u32;
            let days = (back(months) - day).num_days();
            q(months.into()) + Q::new(days.into(), (back(months) - back(months + 1)).num_days().into())
        };
        (left(zone.day(start)) - left(zone.day(end))) / q(every.into())
    }

    /// What the fees of an instant come to in a month.
    pub fn recurring(&self, contract: &Contract, at: Instant) -> Q {
        let terms = self.terms(contract, at);
        let uplift = terms.uplift.clone().unwrap_or_else(|| q(1));
        let fees = terms.fees.keys().filter_map(|key| self.item_on(contract, &terms, "fees", key, at));
        let cost = |fee: Value| {
            let every = text(&fee, "every").map_or(contract.interval, months);
            rate(&fee["pricing"], &maybe(&fee, "quantity").unwrap_or_else(|| q(1))) / q(every.into())
        };
        fees.map(cost).sum::<Q>() * uplift
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
