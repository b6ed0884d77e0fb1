//! Bill runs, and what they must leave.

use crate::deals::{Amounts, Instant, Key, Q, dec, fixed, q};
use crate::world::{DAY, Deal, Sim, at};
use num_traits::Zero;
use std::collections::BTreeMap;
use std::fmt::Write as _;

impl Sim {
    /// A bill run now; what it must leave is worked out and compared.
    pub(crate) fn bill(&mut self) {
        self.must("CALL billing.bill_run()");
        self.just_billed.clear();
        let said = self.say();
        let keys: Vec<String> = self.world.contracts.keys().cloned().collect();
        for key in keys {
            let contract = &self.world.contracts[&key];
            let zone = &self.world.zones[&contract.zone];
            let mut contract = contract.clone();
            let ended = contract.next_boundary().is_none();
            let mut regular = ended;
            while let Some(day) = contract.next_boundary()
                && zone.midnight(day) + contract.grace * DAY <= self.clock
            {
                contract.billed.push((day, said));
                regular = true;
            }
            let again = self.voided.remove(&key).unwrap_or_default();
            for n in &again {
                contract.billed[*n].1 = said;
            }
            // What is issued again with nothing else takes part in no comparison before the next bill, below.
            regular &= again.is_empty() || !ended;
            if ended && regular {
                contract.looked.push(said);
            }
            if regular || !again.is_empty() {
                self.world.contracts.insert(key.clone(), contract);
                if !regular {
                    // Issued again is what was void. Whether late usage of other boundaries comes with it or waits for
                    // the next boundary is not said anywhere: compared then.
                    self.waits.insert(key);
                    continue;
                }
                self.waits.remove(&key);
                self.just_billed.insert(key.clone());
                let expected = self.world.expected(&self.world.contracts[&key]);
                self.standing.insert(key, expected);
            }
        }
        self.compare();
        if self.credits {
            self.settle();
        }
    }

    /// An invoice is voided, to be issued again by the next run.
    pub(crate) fn void(&mut self, p: usize) {
        let party = &mut self.parties[p];
        let contract = party.contracts[party.rng.below(party.contracts.len())].clone();
        // Issued again is what is asked for now: whether that counts as billed before is not said.
        if self.world.contracts[&contract].policies.keeps {
            return;
        }
        let rows = self.must(&format!("SELECT i.key FROM billing.invoice i WHERE (i.state = 'open' OR i.state = 'paid' AND i.document->'totals'->>'credits' <> '0') AND i.key LIKE '{contract}/%' AND i.key NOT LIKE '%/credit:%' AND i.kind = 'invoice' ORDER BY i.key"));
        if rows.is_empty() {
            return;
        }
        let n = self.parties[p].rng.below(rows.len());
        let key = rows[n][0].clone().expect("a key");
        let of = |key: &str| -> usize {
            let n = key[contract.len() + 1..].split(['.', ':']).next().expect("a number");
            n.parse().expect("a number")
        };
        let boundary = of(&key);
        let deal = self.parties[p].deal;
        // What is drawn of credit is one settlement of all legal entities; of what was drawn since, the last boundary alone.
        let whole = deal == Some(Deal::Credits) || self.parties[p].rng.chance(40);
        if deal == Some(Deal::Credits)
            && self.parties[p].in_time
            && (boundary + 1 != self.world.contracts[&contract].billed.len()
                || self.voided.contains_key(&contract))
        {
            return;
        }
        let keys: Vec<String> = rows.iter().map(|r| r[0].clone().expect("a key")).collect();
        let of_it = keys.iter().filter(|one| **one == key || (whole && of(one) == boundary));
        let voids: Vec<String> =
            of_it.map(|one| format!("SELECT billing.invoice_void('{one}', 'wrong')")).collect();
        // All of them or none: what one gave back to a block others may have drawn since (ZB014).
        if self.may(&voids.join("; "), &["ZB005", "ZB014"]) {
            self.voided.entry(contract).or_default().push(boundary);
            if deal == Some(Deal::Credits) && self.parties[p].in_time {
                self.give_back(p);
            }
        }
    }

    /// The lines of documents summed; with what they were summed of.
    pub(crate) fn sum(&mut self, documents: &str) -> BTreeMap<String, BTreeMap<Key, (Q, Vec<String>)>> {
        let sql = format!(
            "SELECT i.document->>'contract', i.document->>'bill_to', l->>'charge', l->>'key',
                    extract(epoch FROM (l->>'from')::timestamptz)::bigint, (l->'dimensions')::text, l->>'amount', i.key
             FROM ({documents}) i, jsonb_array_elements(i.document->'lines') l WHERE i.document->>'contract' IS NOT NULL"
        );
        let mut found: BTreeMap<String, BTreeMap<Key, (Q, Vec<String>)>> = BTreeMap::new();
        for row in &self.client.query(&sql, &[]).unwrap_or_else(|e| panic!("{documents}: {e:?}")) {
            let contract: String = row.get(0);
            let line: &str = row.get(3);
            let (from, dimensions): (Instant, &str) = (row.get(4), row.get(5));
            let told = &self.world.contracts[&contract];
            let day = self.world.zones[&told.zone].day(from);
            let charge: String = row.get(2);
            let dimensions: BTreeMap<String, String> = serde_json::from_str(dimensions).expect("dimensions");
            let dimensions: Vec<String> =
                dimensions.iter().filter(|(k, _)| *k != "bill_to").map(|(k, v)| format!("{k}={v}")).collect();
            let part = if line.contains("/true_up") {
                "true_up"
            } else if line.contains("/cap") {
                "cap"
            } else {
                "line"
            };
            let period = self.world.period_of(told, &charge, day);
            let key = Key {
                contract: contract.clone(),
                bill_to: row.get(1),
                charge,
                period,
                part,
                dimensions: dimensions.join(","),
            };
            let key = self.world.gathered(told, key);
            let of = found.entry(contract).or_default().entry(key).or_insert_with(|| (q(0), Vec::new()));
            let amount: &str = row.get(6);
            of.0 += dec(amount);
            of.1.push(format!("{}: {line} {amount}", row.get::<_, &str>(7)));
        }
        found
    }

    /// What the next bill would have, with the usage of now, on top of all that stands.
    pub(crate) fn preview(&mut self, key: &str) {
        let mut contract = self.world.contracts[key].clone();
        if self.voided.contains_key(key) || self.waits.contains(key) {
            return;
        }
        let Some(next) = contract.next_boundary() else { return };
        contract.billed.push((next, u64::MAX));
        // What a change takes off a fee that was paid for longer is not due before its day.
        let longer = self.world.mentions(&contract, "licence");
        let zone = &self.world.zones[&contract.zone];
        if longer && contract.next_boundary().is_some_and(|day| zone.midnight(day) <= self.clock) {
            return;
        }
        if contract.billed.len() == 1
            && let Some(next) = contract.next_boundary()
        {
            contract.billed.push((next, u64::MAX));
        }
        let expected = self.world.expected(&contract);
        let sql = format!(
            "SELECT 'preview' AS key, d AS document FROM jsonb_path_query(billing.invoice_preview('{key}'), '$[*]') d"
        );
        writeln!(self.log, "{sql};").expect("log");
        let mut found = self.sum(&sql).remove(key).unwrap_or_default();
        let stands = self.sum(&format!("SELECT key, document FROM billing.invoice WHERE state NOT IN ('void', 'draft') AND key LIKE '{key}/%'"));
        for (line, (amount, of)) in stands.into_values().flatten() {
            let sum = found.entry(line).or_insert_with(|| (q(0), Vec::new()));
            sum.0 += amount;
            sum.1.extend(of);
        }
        self.same(&expected, &found, key, "preview and ");
    }

    /// Compares sums with what they should be.
    pub(crate) fn same(
        &mut self,
        expected: &Amounts,
        found: &BTreeMap<Key, (Q, Vec<String>)>,
        contract: &str,
        what: &str,
    ) {
        let none = (q(0), Vec::new());
        if self.broken.contains(contract) {
            return;
        }
        let mut keys: Vec<&Key> = expected.keys().chain(found.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            self.compared += 1;
            let want = expected.get(key).cloned().unwrap_or_else(Q::zero);
            let (got, lines) = found.get(key).unwrap_or(&none);
            if want != *got {
                let digits = self.world.minor_units[&self.world.contracts[contract].currency];
                if self.broken.insert(contract.to_owned()) {
                    self.faults.push(format!("{contract} at {}", at(self.clock)));
                }
                self.faults.push(format!(
                    "{key:?}: {what}billed {}, want {} {lines:#?}",
                    fixed(got, digits),
                    fixed(&want, digits)
                ));
            }
        }
    }

    /// All documents that stand, summed, against the oracle.
    pub(crate) fn compare(&mut self) {
        let mut found =
            self.sum("SELECT key, document FROM billing.invoice WHERE state NOT IN ('void', 'draft')");
        let standing = std::mem::take(&mut self.standing);
        for (contract, expected) in &standing {
            let found = found.remove(contract).unwrap_or_default();
            if !self.waits.contains(contract) {
                self.same(expected, &found, contract, "");
            }
        }
        self.standing = standing;
        for (contract, found) in found {
            if !self.standing.contains_key(&contract) {
                self.faults.push(format!("{contract} is not to be billed yet: {found:?}"));
            }
        }
        // The next boundary of each contract.
        for row in self
            .client
            .query("SELECT key, extract(epoch FROM next_bill_at)::bigint FROM billing.contract", &[])
            .expect("contracts")
        {
            let (key, next): (&str, Option<Instant>) = (row.get(0), row.get(1));
            let contract = &self.world.contracts[key];
            let want = contract.next_boundary().map(|d| self.world.zones[&contract.zone].midnight(d));
            if next != want && !self.voided.contains_key(key) && self.broken.insert(key.to_owned()) {
                self.faults.push(format!("{key}: next_bill_at {:?}, want {:?}", next.map(at), want.map(at)));
            }
        }
        for row in self
            .client
            .query("SELECT kind, key, sqlstate, message FROM billing.job_issue", &[])
            .expect("issues")
        {
            self.faults.push(format!(
                "job issue: {} {} {} {}",
                row.get::<_, &str>(0),
                row.get::<_, &str>(1),
                row.get::<_, &str>(2),
                row.get::<_, &str>(3)
            ));
        }
    }

    pub(crate) fn verify(&mut self, scope: &str) {
        for row in self.must(&format!(
            "SELECT check_name, failed, example FROM billing.verify('{scope}') WHERE failed <> 0"
        )) {
            self.faults.push(format!("verify: {row:?}"));
        }
    }
}
