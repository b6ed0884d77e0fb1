//! Events, their corrections, and new prices.

use crate::catalogue::{PRICES, book, pricing};
use crate::deals::{Event, Instant, PriceVersion};
use crate::world::{CURRENCIES, DAY, Deal, MODELS, REGIONS, Sim, at, money, quote};
use chrono::Datelike;
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl Sim {
    // -----------------------------------------------------------------------------------------------------------
    // What happens

    /// Events of a customer since an instant: most of the stretch just gone, some late, some on a midnight's second.
    pub(crate) fn usage(&mut self, p: usize, since: Instant) {
        let now = self.clock;
        let party = &mut self.parties[p];
        let rng = &mut party.rng;
        let zone = &self.world.zones[&party.zone];
        let begun = party
            .contracts
            .iter()
            .map(|k| zone.midnight(self.world.contracts[k].starts))
            .min()
            .expect("a contract");
        let mut batch: Vec<Event> = Vec::new();
        let in_time = party.in_time;
        let apart = matches!(party.deal, Some(Deal::Credits | Deal::Promise));
        for _ in 0..rng.below(12) {
            let mut when = since + (rng.next() % (now - since).max(1) as u64) as i64;
            if rng.chance(12) && !in_time {
                when -= rng.below(150) as i64 * DAY;
            }
            if rng.chance(15) {
                let day = zone.day(when);
                let first = if rng.chance(50) { day.with_day(1).expect("a first") } else { day };
                when = zone.midnight(first) + rng.below(3) as i64 - 1;
            }
            when = when.max(begun - 2 * DAY).min(now - 1);
            // Of two events at one instant either may draw first.
            if in_time && (when < since || batch.iter().any(|e| e.at == when)) {
                continue;
            }
            let known = &self.world.customers[&party.key].events;
            if apart && known.iter().chain(&batch).any(|e| e.at / 3600 == when / 3600) {
                continue;
            }
            party.events += 1;
            let mut properties = BTreeMap::new();
            if rng.chance(92) {
                properties.insert("region".to_owned(), REGIONS[rng.below(2)].to_owned());
            }
            let mail = party.deal == Some(Deal::Shapes) && rng.chance(20);
            let event_type = if mail {
                "mail"
            } else if rng.chance(70) {
                "llm"
            } else {
                "store"
            };
            if event_type == "llm" {
                properties.insert("model".to_owned(), MODELS[rng.below(3)].to_owned());
                let tokens = 1 + rng.below(9000) as i64;
                properties.insert(
                    "tokens".to_owned(),
                    if rng.chance(10) && !party.exact { money(tokens, 3) } else { tokens.to_string() },
                );
            } else if event_type == "store" {
                let gb = 1 + rng.below(90000) as i64;
                let gb = if party.exact { (1 + gb / 1000).to_string() } else { money(gb, 3) };
                properties.insert("gb".to_owned(), gb);
            }
            let bill_to = rng.chance(40).then(|| party.entities[rng.below(party.entities.len())].clone());
            batch.push(Event {
                id: format!("e{}", party.events),
                event_type: event_type.to_owned(),
                at: when,
                bill_to,
                properties,
                live: true,
            });
        }
        if batch.is_empty() {
            return;
        }
        let mut documents: Vec<Value> = batch.iter().map(|e| event_document(&party.key, e)).collect();
        let known = &mut self.world.customers.get_mut(&party.key).expect("a customer").events;
        if let Some(again) = known.get(rng.below(known.len().max(1)))
            && again.live
        {
            documents.push(event_document(&party.key, again));
        }
        let (new, all) = (batch.len(), documents.len());
        known.extend(batch);
        let sql = format!(
            "SELECT accepted, duplicate FROM billing.ingest({})",
            quote(&Value::Array(documents).to_string())
        );
        let told = self.must(&sql);
        let expected = vec![Some(new.to_string()), Some((all - new).to_string())];
        if told != [expected] {
            self.faults.push(format!("ingest told {told:?}: {sql}"));
        }
    }

    /// An event is voided, or amended.
    pub(crate) fn correct(&mut self, p: usize) {
        let now = self.clock;
        let party = &mut self.parties[p];
        let rng = &mut party.rng;
        let apart = matches!(party.deal, Some(Deal::Credits | Deal::Promise));
        let events = &mut self.world.customers.get_mut(&party.key).expect("a customer").events;
        if events.is_empty() {
            return;
        }
        let n = rng.below(events.len());
        let event = &mut events[n];
        let sql = if event.live && rng.chance(50) {
            event.live = false;
            format!("SELECT billing.event_void('{}', '{}', 'wrong')", party.key, event.id)
        } else {
            event.live = true;
            let field = match event.event_type.as_str() {
                "llm" => Some("tokens"),
                "store" => Some("gb"),
                _ => None,
            };
            if let Some(field) = field {
                event.properties.insert(field.to_owned(), (1 + rng.below(5000)).to_string());
            }
            if !apart && rng.chance(30) {
                event.at = (event.at - rng.below(40) as i64 * DAY).min(now - 1);
            }
            let properties = event_document("", event)["properties"].to_string();
            format!(
                "SELECT billing.event_amend('{}', '{}', 'wrong', properties => {}, occurred_at => '{}')",
                party.key,
                event.id,
                quote(&properties),
                at(event.at)
            )
        };
        self.must(&sql);
    }

    /// A new version of a list price, from an instant near now.
    pub(crate) fn publish(&mut self) {
        let now = self.clock;
        let c = self.rng.below(CURRENCIES.len());
        if self.rng.chance(15) {
            return self.new_plan(c);
        }
        let price = PRICES[self.rng.below(PRICES.len())].0;
        let mut from = now + (self.rng.below(60) as i64 - 10) * DAY;
        if self.rng.chance(60) {
            from -= from.rem_euclid(DAY);
        }
        if self.rng.chance(40) {
            let day = chrono::DateTime::from_timestamp(from, 0).expect("an instant").date_naive();
            from = day
                .with_day(1)
                .expect("a first")
                .and_hms_opt(0, 0, 0)
                .expect("midnight")
                .and_utc()
                .timestamp();
        }
        let mut rng = self.rng.fork();
        let pricing = pricing(&mut rng, price, c);
        let said = self.say();
        let versions = &self.world.prices[&(book(c), price.to_owned())];
        if price.starts_with("peak") {
            return; // only where a period begins
        }
        if let Some(n) = versions.len().checked_sub(1)
            && versions[n].from.is_some_and(|f| f > now)
            && self.rng.chance(40)
        {
            // Not begun: withdrawn.
            self.must(&format!("SELECT billing.price_withdraw('{}/{price}', max(version), 'not approved') FROM billing.price JOIN billing.price_book b USING (price_book_id) WHERE price.key = '{price}' AND b.key = '{}'", book(c), book(c)));
            self.world.prices.get_mut(&(book(c), price.to_owned())).expect("a price").pop();
            return;
        }
        if versions.last().and_then(|v| v.from).is_some_and(|last| last >= from) {
            return;
        }
        // The same bounds and shape: a version that can take the place of the one before inside a period.
        let doc = json!({"price_books": [{"key": book(c), "prices": [{"key": price, "meter": PRICES.iter().find(|x| x.0 == price).map(|x| x.1), "pricing": pricing}]}]});
        let sql = if self.rng.chance(50) {
            let mut doc = doc;
            doc["price_books"][0]["prices"][0]["valid_from"] = json!(at(from));
            format!("SELECT count(*) FROM billing.catalog_apply({})", quote(&doc.to_string()))
        } else {
            format!(
                "SELECT count(*) FROM billing.price_publish({}, '{}', dry_run => false)",
                quote(&doc.to_string()),
                at(from)
            )
        };
        self.must(&sql);
        let versions = self.world.prices.get_mut(&(book(c), price.to_owned())).expect("a price");
        versions.push(PriceVersion { from: Some(from), said, pricing });
    }
}

pub(crate) fn event_document(customer: &str, event: &Event) -> Value {
    let mut properties = serde_json::Map::new();
    for (name, value) in &event.properties {
        let value = if name == "tokens" || name == "gb" {
            Value::Number(serde_json::from_str(value).expect("a number"))
        } else {
            json!(value)
        };
        properties.insert(name.clone(), value);
    }
    let mut doc = json!({"customer": customer, "event_id": event.id, "event_type": event.event_type, "occurred_at": at(event.at), "properties": properties});
    if let Some(bill_to) = &event.bill_to {
        doc["bill_to"] = json!(bill_to);
    }
    doc
}
