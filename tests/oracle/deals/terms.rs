//! What of a contract is in force when.

use super::calendar::month_end;
use super::documents::{change_items, current, date, expanded, list, maybe, put, text};
use super::rating::scale;
use super::{Change, Contract, Day, Grid, Instant, Kind, Q, World, Zone, months, months_after, q};
use serde_json::Value;
use std::collections::BTreeMap;

/// What of a contract is in force on a day: the plan's items replaced and extended by the contract's, and all changes
/// up to the day, in the order of their effective days.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    pub book: Option<String>,
    pub charges: BTreeMap<String, Value>,
    pub fees: BTreeMap<String, Value>,
    pub overrides: Vec<Value>,
    pub discounts: Vec<Value>,
    pub paused: bool,
    /// What fees come to times this, since renewals.
    pub uplift: Option<Q>,
}

impl Contract {
    /// The term in force at an instant, as the changes up to it leave it: after how many months it began, and its months.
    pub fn term(&self, at: Instant) -> Option<(u32, u32)> {
        let mut changes: Vec<&Change> = self.changes.iter().filter(|c| c.effective <= at).collect();
        changes.sort_by_key(|c| c.effective);
        let mut found = (0, text(&self.changes[0].doc, "term").map(months)?);
        for change in changes {
            match (change.kind, text(&change.doc, "term").map(months)) {
                (Kind::Amend, Some(term)) => found.1 = term,
                (Kind::Renew, Some(term)) => found = (found.0 + found.1, term),
                _ => {}
            }
        }
        Some(found)
    }

    /// A renewal holds from the end of the term before it, wherever that moved.
    pub fn move_renewals(&mut self, zone: &Zone) {
        let mut renewals: Vec<usize> =
            (0..self.changes.len()).filter(|n| self.changes[*n].kind == Kind::Renew).collect();
        renewals.sort_by_key(|n| self.changes[*n].effective);
        for n in renewals {
            let before = self.changes[n].effective - 1;
            let (began, length) = self.term(before).expect("a term");
            self.changes[n].effective = zone.midnight(self.day_of_term(began + length));
        }
    }

    /// So many months after the first day, as a term counts them: with `end_of_month` from a month's end to a month's end,
    /// also where periods are counted from a trial's end that is none.
    pub fn day_of_term(&self, n: u32) -> Day {
        let months_ends = self.changes[0].doc["billing"]["end_of_month"] == true;
        match month_end(self.starts, 0) == self.starts && months_ends {
            true => month_end(self.starts, n as i32),
            false => months_after(self.starts, n),
        }
    }

    /// The first day without it; None runs on. As all changes leave it, in the order of their effective instants.
    pub fn end(&self) -> Option<Day> {
        // All terms count from the contract's first day.
        let mut end = self.term(Instant::MAX).map(|(began, length)| self.day_of_term(began + length));
        for cancel in self.changes.iter().filter(|c| c.kind == Kind::Cancel) {
            let on = date(&cancel.doc, "on").expect("a day");
            end = Some(end.map_or(on, |e| e.min(on)));
        }
        end
    }

    /// How what is for more than a billing period is cut: in whole billing periods from the first.
    pub fn grid_of(&self, every: u32) -> Grid {
        match &self.grid {
            Grid::Calendar(_) if every > self.interval => {
                Grid::Anniversary(self.grid.period(self.starts, self.interval).0)
            }
            grid => grid.clone(),
        }
    }

    /// The boundary that is to be billed next, if there is one.
    pub fn next_boundary(&self) -> Option<Day> {
        let Some((last, _)) = self.billed.last() else { return Some(self.starts) };
        if self.end().is_some_and(|end| end <= *last) {
            return None;
        }
        let (_, next) = self.grid.period(*last, self.interval);
        Some(self.end().map_or(next, |end| end.min(next)))
    }

    /// The end of the billing period that holds a day.
    pub fn period_end(&self, day: Day) -> Day {
        let next = self.grid.period(day.max(self.starts), self.interval).1;
        self.end().map_or(next, |end| end.min(next))
    }
}

impl World {
    /// The terms at an instant: after the changes whose effective instant is not after it.
    pub fn terms(&self, contract: &Contract, at: Instant) -> Terms {
        let mut terms = Terms::default();
        // The plan's items, and the contract's own over them: charges, fees.
        let (mut plans, mut own) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        let mut changes: Vec<&Change> = contract.changes.iter().filter(|c| c.effective <= at).collect();
        changes.sort_by_key(|c| c.effective); // stable: as they were said of one instant
        for change in changes {
            let doc = &change.doc;
            match change.kind {
                Kind::Create | Kind::ChangePlan => {
                    if let Some(plan) = text(doc, "plan") {
                        let plan = &self.plans[plan];
                        terms.book = text(plan, "price_book").map(str::to_owned);
                        plans = (list(plan, "charges").to_vec(), list(plan, "fees").to_vec());
                    }
                    own.0.extend(expanded(doc, "charges", None));
                    own.1.extend(expanded(doc, "fees", None));
                    terms.overrides.extend(list(doc, "overrides").iter().cloned());
                    change_items(&mut terms.discounts, list(doc, "discounts"));
                }
                Kind::Amend => {
                    let day = self.zone(contract).day(change.effective);
                    own.0.extend(expanded(doc, "charges", Some(day)));
                    own.1.extend(expanded(doc, "fees", Some(day)));
                    for gone in list(doc, "add_ons").iter().filter(|a| a["remove"] == Value::Bool(true)) {
                        let prefix = format!("{}/", text(gone, "key").expect("a key"));
                        for items in [&mut own.0, &mut own.1] {
                            let of: Vec<&str> = items.iter().filter_map(|i| text(i, "key")).collect();
                            let of = of.iter().filter(|k| k.starts_with(&prefix));
                            let ended: Vec<Value> =
                                of.map(|k| serde_json::json!({"key": k, "remove": true})).collect();
                            items.extend(ended);
                        }
                    }
                    change_items(&mut terms.discounts, list(doc, "discounts"));
                    for (name, field) in [("quantities", "quantity"), ("prices", "pricing")] {
                        for (key, value) in doc[name].as_object().into_iter().flatten() {
                            let fees =
                                [&plans.1, &own.1].iter().any(|of| of.iter().any(|i| i["key"] == **key));
                            let (plan, own) =
                                if fees { (&plans.1, &mut own.1) } else { (&plans.0, &mut own.0) };
                            let mut fee = current(plan, own, key);
                            if fee["ramp"].is_null() && fee["step_up"].is_null() {
                                fee[field] = value.clone();
                            } else {
                                // What the ramp says later still comes.
                                let step = serde_json::json!({"at": change.effective, field: value});
                                match fee["_steps"].as_array_mut() {
                                    Some(steps) => steps.push(step),
                                    None => fee["_steps"] = serde_json::json!([step]),
                                }
                            }
                            own.push(fee);
                        }
                    }
                }
                Kind::Pause => terms.paused = true,
                Kind::Resume => terms.paused = false,
                Kind::Renew => {
                    let factor = (q(100) + maybe(doc, "percent").unwrap_or_else(|| q(0))) / q(100);
                    // Fees rise, and what the contract fixes itself; list prices and percentages off do not.
                    for one in &mut terms.overrides {
                        if one["percent_off"].is_null() {
                            *one = scale(one, &factor);
                        }
                    }
                    for charge in &mut own.0 {
                        *charge = scale(charge, &factor);
                    }
                    terms.uplift = Some(terms.uplift.unwrap_or_else(|| q(1)) * factor);
                }
                Kind::Cancel => {}
            }
        }
        put(&mut terms.charges, &plans.0);
        put(&mut terms.charges, &own.0);
        put(&mut terms.fees, &plans.1);
        put(&mut terms.fees, &own.1);
        terms
    }
}
