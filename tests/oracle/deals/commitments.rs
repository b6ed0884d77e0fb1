//! Commitments: their instalments, and what is missing to them.

use super::documents::{list, maybe, text};
use super::rating::rate;
use super::{Amounts, BTreeMap, Contract, Day, Q, Rounding, World, dec, months, months_after, q, round};

impl World {
    /// Prepaid: the instalments of the periods begun, in equal parts. Postpaid: at each period's end what its usage
    /// leaves missing.
    /// `filled` is how much of a promise in units was used, by the first days of its periods.
    pub(super) fn commitments(
        &self,
        contract: &Contract,
        open: Day,
        last: Day,
        filled: Option<&BTreeMap<Day, Q>>,
        sums: &mut Amounts,
    ) {
        let Some(end) = contract.end() else { return }; // deals with commitments have one
        for one in list(&contract.changes[0].doc, "commitments") {
            let key = text(one, "key").expect("a key");
            let term = (0..).find(|n| months_after(contract.starts, *n) >= end).expect("months");
            let every = text(one, "every").map_or(term, months);
            for n in 0.. {
                let (from, until) = (
                    months_after(contract.starts, n * every),
                    months_after(contract.starts, (n + 1) * every),
                );
                if from >= end {
                    break;
                }
                let one = &self.commitment_on(contract, one, from);
                let amounts = list(one, "amounts");
                if let (Some(units), Some("postpaid")) = (maybe(one, "quantity"), text(one, "kind")) {
                    if until.min(end) <= last {
                        let used = filled.and_then(|f| f.get(&from)).cloned().unwrap_or_else(|| q(0));
                        let missing = rate(&one["shortfall_price"], &(units - used).max(q(0)));
                        let missing = round(&missing, self.digits(contract), contract.rounding);
                        sums.insert(self.key(contract, key, from, "true_up", ""), missing);
                    }
                    continue;
                }
                let amount = maybe(one, "amount")
                    .unwrap_or_else(|| dec(amounts[n as usize].as_str().expect("an amount")));
                if text(one, "kind") == Some("prepaid") {
                    let part = text(one, "instalments").map_or(every, months);
                    // Spread over time, so cumulatively (rules 0.7).
                    let (parts, digits) = (every / part, self.digits(contract));
                    let until =
                        |n: u32| round(&(&amount * q(n.into()) / q(parts.into())), digits, Rounding::HalfUp);
                    let parts: Vec<Q> = (0..parts).map(|n| until(n + 1) - until(n)).collect();
                    for (n, amount) in parts.into_iter().enumerate() {
                        let day = months_after(from, n as u32 * part);
                        if day < open {
                            sums.insert(self.key(contract, key, day, "line", ""), amount);
                        }
                    }
                } else if until.min(end) <= last {
                    let spent: Q = sums
                        .iter()
                        .filter(|(k, _)| {
                            k.period >= from && k.period < until && self.is_usage(contract, &k.charge)
                        })
                        .map(|(_, amount)| amount)
                        .sum();
                    sums.insert(self.key(contract, key, from, "true_up", ""), (amount - spent).max(q(0)));
                }
            }
        }
    }

    pub(super) fn is_usage(&self, contract: &Contract, charge: &str) -> bool {
        list(&contract.changes[0].doc, "charges").iter().any(|c| text(c, "key") == Some(charge))
    }

    /// Whether a line of this name is one of a commitment, whose periods are its own.
    pub fn is_commitment(&self, contract: &Contract, name: &str) -> bool {
        list(&contract.changes[0].doc, "commitments").iter().any(|c| text(c, "key") == Some(name))
    }
}
