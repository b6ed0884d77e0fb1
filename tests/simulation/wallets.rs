//! Credit in a unit of its own: an application draws, finance grants, sells, takes back; blocks end and roll over. Each answer
//! and each block is compared.

use crate::deals::{self, Instant, Lot, Pool, Q, Rule, Wallet, dec, q};
use crate::load::Rng;
use crate::world::{self, CURRENCIES, DAY, Sim, ZONES, at, money, quote};
use chrono::{Datelike, Days};
use num_traits::Signed;
use serde_json::{Value, json};

/// A wallet, with random numbers of its own.
pub(crate) struct Purse {
    rng: Rng,
    wallet: Wallet,
    /// Something was wrong with it.
    broken: bool,
}

fn credits(rng: &mut Rng, n: usize) -> String {
    let places = [0, 0, 2, 6][rng.below(4)];
    money((1 + rng.below(n) as i64) * 10_i64.pow(places) + rng.below(10_usize.pow(places)) as i64, places)
}

fn lot(key: String, from: Instant, amount: &str, category: u8) -> Lot {
    Lot {
        key,
        from,
        until: None,
        granted: dec(amount),
        left: dec(amount),
        burnt: q(0),
        expired: q(0),
        refunded: q(0),
        voided: q(0),
        rolled: q(0),
        priority: 50,
        category,
        product: None,
        rollover: None,
        pool: None,
        ended: false,
    }
}

impl Sim {
    pub(crate) fn purse(&mut self, n: usize, mut rng: Rng) {
        let customer = format!("w{n}");
        let zone = ZONES[rng.below(ZONES.len())].to_owned();
        let (currency, digits, _) = CURRENCIES[rng.below(CURRENCIES.len())];
        let doc = json!({"key": customer, "name": customer, "currency": currency, "time_zone": zone});
        self.must(&format!("SELECT billing.customer_upsert({})", quote(&doc.to_string())));
        let rule = rng.chance(70).then(|| {
            let (least, pack) = (10 + rng.below(90) as i64, 100 + rng.below(200) as i64);
            let target = rng.chance(50);
            // Of a purchase that the cap cuts short of the threshold it is open when the rest is bought.
            let cap = (!target || world::number("SIM_TARGET_CAP", 0) > 0) && rng.chance(60);
            let cap = cap.then(|| q(pack * (1 + rng.below(3) as i64) + rng.below(50) as i64));
            let never = (0, 0);
            Rule {
                least: q(least),
                amount: q(pack),
                target,
                cap,
                month: never,
                bought: q(0),
                below: false,
                waits: false,
                crossings: 0,
            }
        });
        let wallet = Wallet::new(customer, zone, (currency.to_owned(), digits), rule);
        self.purses.push(Purse { rng, wallet, broken: false });
        let last = self.purses.len() - 1;
        self.sell(last);
        let Purse { wallet, .. } = &self.purses[last];
        if let Some(rule) = &wallet.rule {
            let mode = if rule.target { "target" } else { "amount" };
            let mut doc = json!({"unit": "credits", "threshold": deals::decimal(&rule.least), mode: deals::decimal(&rule.amount), "price": "0.5"});
            if let Some(cap) = &rule.cap {
                doc["monthly_cap"] = json!(deals::decimal(cap));
            }
            let sql =
                format!("SELECT billing.top_up_rule_set('{}', {})", wallet.customer, quote(&doc.to_string()));
            self.must(&sql);
        }
    }

    /// Some days of wallets.
    pub(crate) fn purses(&mut self) {
        for p in 0..self.purses.len() {
            for _ in 0..self.purses[p].rng.below(6) {
                if self.purses[p].broken {
                    break;
                }
                match self.purses[p].rng.below(20) {
                    0 => self.sell(p),
                    1..3 => self.give(p),
                    3 => self.take_back(p),
                    4 => self.lengthen(p),
                    5 => {
                        self.expire_purses();
                        self.must("CALL billing.top_up()");
                        for p in 0..self.purses.len() {
                            self.top_up(p);
                        }
                    }
                    _ => self.draw(p),
                }
            }
            self.compare_purse(p);
        }
    }

    pub(crate) fn expire_purses(&mut self) {
        self.must("CALL billing.credit_expiry()");
        self.expire_blocks();
        for p in 0..self.purses.len() {
            self.expire(p);
        }
    }

    fn wrong(&mut self, p: usize, what: String) {
        let customer = self.purses[p].wallet.customer.clone();
        self.purses[p].broken = true;
        self.faults.push(format!("wallet {customer} at {}: {what}", at(self.clock)));
    }

    fn top_up(&mut self, p: usize) {
        let now = self.clock;
        let wallet = &mut self.purses[p].wallet;
        let available = wallet.available(now);
        let today = self.world.zones[&wallet.zone].day(now);
        let Some(rule) = &mut wallet.rule else { return };
        if let Some((crossing, pack)) = rule.look(&available, (today.year(), today.month())) {
            let price = deals::round(&(&pack / q(2)), wallet.digits, deals::Rounding::HalfUp);
            wallet.asked += &price;
            let sale = (
                format!("top-up/credits/{crossing}"),
                deals::decimal(&price),
                wallet.currency.clone(),
                today,
            );
            self.sales.push((wallet.customer.clone(), sale));
            wallet.pools.push(Pool { price, credits: pack.clone(), out: q(0) });
            let mut bought = lot(format!("top-up/credits/{crossing}"), now, &deals::decimal(&pack), 2);
            bought.pool = Some(wallet.pools.len() - 1);
            wallet.lots.push(bought);
        }
    }

    fn sell(&mut self, p: usize) {
        let now = self.clock;
        let Purse { rng, wallet, .. } = &mut self.purses[p];
        let zone = &self.world.zones[&wallet.zone];
        let key = format!("{}-buy-{}", wallet.customer, wallet.lots.len());
        let amount = credits(rng, 900);
        let price = money(1 + rng.below(90000) as i64, wallet.digits);
        let mut doc = json!({"key": key, "amount": amount, "price": price, "unit": "credits"});
        let until = zone.day(now) + Days::new(10 + rng.below(300) as u64);
        let mut bought = lot(key.clone(), now, &amount, 2);
        if rng.chance(70) {
            doc["expires"] = json!(until.to_string());
            bought.until = Some(zone.midnight(until));
            if rng.chance(60) {
                let cap = credits(rng, 300);
                let length = 1 + rng.below(6) as u32;
                doc["rollover"] = json!({"cap": cap, "for": format!("{length} month{}", if length == 1 { "" } else { "s" })});
                bought.rollover = Some((dec(&cap), length));
            }
        }
        let bonus = rng.chance(40).then(|| credits(rng, 200));
        let all = dec(&amount) + bonus.as_deref().map_or_else(|| q(0), dec);
        wallet.asked += dec(&price);
        let sale = (key.clone(), price.clone(), wallet.currency.clone(), zone.day(now));
        self.sales.push((wallet.customer.clone(), sale));
        wallet.pools.push(Pool { price: dec(&price), credits: all, out: q(0) });
        bought.pool = Some(wallet.pools.len() - 1);
        if let Some(bonus) = bonus {
            doc["bonus"] = json!(bonus);
            let mut gift = lot(format!("{key}-bonus"), now, &bonus, 0);
            gift.until = bought.until;
            gift.pool = bought.pool;
            wallet.lots.push(bought);
            wallet.lots.push(gift);
        } else {
            wallet.lots.push(bought);
        }
        let sql =
            format!("SELECT billing.credit_purchase('{}', {})", wallet.customer, quote(&doc.to_string()));
        self.must(&sql);
        self.top_up(p);
    }

    fn give(&mut self, p: usize) {
        let now = self.clock;
        let Purse { rng, wallet, .. } = &mut self.purses[p];
        let zone = &self.world.zones[&wallet.zone];
        let key = format!("{}-gift-{}", wallet.customer, wallet.lots.len());
        let amount = credits(rng, 90);
        let mut doc = json!({"key": key, "amount": amount, "unit": "credits", "reason": "kindness"});
        let today = zone.day(now);
        let mut given = lot(key, now, &amount, 0);
        if rng.chance(40) {
            let from = today + Days::new(rng.below(30) as u64);
            doc["effective_on"] = json!(from.to_string());
            given.from = zone.midnight(from);
        }
        if rng.chance(60) {
            let until = today + Days::new(31 + rng.below(90) as u64);
            doc["expires"] = json!(until.to_string());
            given.until = Some(zone.midnight(until));
        }
        if rng.chance(50) {
            given.priority = 10 + rng.below(80) as i64;
            doc["priority"] = json!(given.priority);
        }
        if rng.chance(30) {
            given.product = Some("extra".to_owned());
            doc["scope"] = json!({"products": ["extra"]});
        }
        wallet.lots.push(given);
        let sql =
            format!("SELECT billing.credit_grant_create('{}', {})", wallet.customer, quote(&doc.to_string()));
        self.must(&sql);
        self.top_up(p);
    }

    fn draw(&mut self, p: usize) {
        let now = self.clock;
        let Purse { rng, wallet, .. } = &mut self.purses[p];
        let customer = wallet.customer.clone();
        let again = rng.chance(10) && !wallet.draws.is_empty();
        let (key, amount, product) = if again {
            wallet.draws[rng.below(wallet.draws.len())].clone()
        } else {
            let amount = dec(&credits(rng, 120));
            let product = [None, Some("ai"), Some("extra")][rng.below(3)].map(str::to_owned);
            (format!("d{}", wallet.draws.len()), amount, product)
        };
        let doc = product.as_ref().map_or(json!({}), |p| json!({"product": p}));
        let sql = format!(
            "SELECT result, drawn FROM billing.draw_down('{customer}', {}, '{key}', 'credits', {})",
            deals::decimal(&amount),
            quote(&doc.to_string())
        );
        let fits = wallet.fits(now, product.as_deref());
        let all = wallet.available(now); // what is for something else is told, too
        let want = if again { None } else { wallet.draw(now, &amount, product.as_deref()) };
        let answer = self.run(&sql);
        match (answer, again, want) {
            (Ok(rows), true, _) if rows[0][0].as_deref() == Some("duplicate") => {}
            (Ok(rows), false, Some(want)) if rows[0][0].as_deref() == Some("drawn") => {
                let told: Value = serde_json::from_str(rows[0][1].as_deref().expect("blocks")).expect("JSON");
                let told: Vec<(String, Q)> = (told.as_array().expect("a list").iter())
                    .map(|d| {
                        (
                            d["grant"].as_str().expect("a key").to_owned(),
                            dec(d["amount"].as_str().expect("an amount")),
                        )
                    })
                    .collect();
                self.compared += 1;
                self.purses[p].wallet.draws.push((key, amount, product));
                if told != want {
                    self.wrong(p, format!("{sql}: {told:?}, want {want:?}"));
                }
                self.top_up(p);
            }
            (Err(refusal), false, None)
                if refusal.code == "ZB014"
                    && refusal
                        .detail
                        .as_deref()
                        .and_then(|d| d.strip_prefix("available "))
                        .map(dec)
                        .is_some_and(|a| a == fits || a == all) =>
            {
                self.compared += 1;
            }
            (answer, _, want) => self.wrong(p, format!("{sql}: {answer:?}, want {want:?} of {fits}")),
        }
    }

    /// A refund, or a void.
    fn take_back(&mut self, p: usize) {
        let now = self.clock;
        let Purse { rng, wallet, .. } = &mut self.purses[p];
        let live: Vec<usize> = (0..wallet.lots.len())
            .filter(|n| {
                let l = &wallet.lots[*n];
                let own = l.key.starts_with(&wallet.customer); // packs of top-ups have the same name with each customer
                own && l.left.is_positive() && !l.ended && l.from <= now && l.until.is_none_or(|u| now < u)
            })
            .collect();
        if live.is_empty() {
            return;
        }
        let n = live[rng.below(live.len())];
        let key = wallet.lots[n].key.clone();
        if wallet.lots[n].pool.is_none() {
            if wallet.lots[n].left != wallet.lots[n].granted {
                return;
            }
            wallet.void(n);
            self.must(&format!("SELECT billing.credit_void('{key}', 'a mistake')"));
            return;
        }
        if wallet.lots[n].category != 2 {
            return;
        }
        let all = rng.chance(40);
        let part = if all {
            wallet.lots[n].left.clone()
        } else {
            wallet.lots[n].left.clone().min(dec(&credits(rng, 100)))
        };
        let want = wallet.refund(n, &part);
        wallet.asked -= &want;
        let told = self.must(&format!(
            "SELECT billing.amount(billing.credit_refund('{key}', {}, 'they leave'))",
            if all { "NULL".to_owned() } else { deals::decimal(&part) }
        ));
        let told = dec(told[0][0].as_deref().expect("money"));
        self.compared += 1;
        if told != want {
            self.wrong(p, format!("refund of {} of {key} gave {told}, want {want}", deals::decimal(&part)));
        }
    }

    fn lengthen(&mut self, p: usize) {
        let now = self.clock;
        let Purse { rng, wallet, .. } = &mut self.purses[p];
        let ends: Vec<usize> = (0..wallet.lots.len())
            .filter(|n| wallet.lots[*n].key.starts_with(&wallet.customer))
            .filter(|n| !wallet.lots[*n].ended && wallet.lots[*n].until.is_some_and(|u| u > now))
            .collect();
        if ends.is_empty() {
            return;
        }
        let lot = &mut wallet.lots[ends[rng.below(ends.len())]];
        let until = lot.until.expect("an end") + (1 + rng.below(40) as i64) * DAY;
        lot.until = Some(until);
        let sql = format!("SELECT billing.credit_extend('{}', '{}', 'asked')", lot.key, at(until));
        self.must(&sql);
    }

    fn expire(&mut self, p: usize) {
        let now = self.clock - self.credit_grace;
        let Purse { wallet, .. } = &mut self.purses[p];
        let zone = &self.world.zones[&wallet.zone];
        wallet.expire(now, |from, n| {
            // Local months; an end that was moved keeps its hour.
            let day = zone.day(from);
            zone.midnight(deals::months_after(day, n)) + (from - zone.midnight(day))
        });
    }

    fn compare_purse(&mut self, p: usize) {
        if self.purses[p].broken {
            return;
        }
        let now = self.clock;
        let wallet = self.purses[p].wallet.clone();
        let rows = self.must(&format!(
            "SELECT key, granted, burnt, expired, voided, refunded, rolled_out, extract(epoch FROM effective_at)::bigint, extract(epoch FROM expires_at)::bigint
             FROM billing.credit_blocks('{}')",
            wallet.customer
        ));
        let number = |x: &Option<String>| x.as_deref().map_or_else(|| q(0), dec);
        for lot in &wallet.lots {
            let Some(row) = rows.iter().find(|r| r[0].as_deref() == Some(&lot.key)) else {
                return self.wrong(p, format!("no block {}", lot.key));
            };
            let told: Vec<Q> = row[1..7].iter().map(number).collect();
            let want = [&lot.granted, &lot.burnt, &lot.expired, &lot.voided, &lot.refunded, &lot.rolled];
            let want: Vec<Q> = want.into_iter().cloned().collect();
            let times = row[7].as_deref() == Some(&lot.from.to_string())
                && row[8] == lot.until.map(|u| u.to_string());
            self.compared += 1;
            if told != want || !times {
                return self.wrong(p, format!("block {row:?}, want {lot:?}"));
            }
        }
        if rows.len() != wallet.lots.len() {
            return self.wrong(p, format!("{} blocks, want {}", rows.len(), wallet.lots.len()));
        }
        let documents = self.must(&format!(
            "SELECT coalesce(sum(i.total), 0) FROM billing.invoice i JOIN billing.customer c USING (customer_id) WHERE c.key = '{}' AND i.state NOT IN ('void', 'draft')",
            wallet.customer
        ));
        if number(&documents[0][0]) != wallet.asked {
            return self.wrong(p, format!("documents sum to {documents:?}, want {}", wallet.asked));
        }
        let told = self
            .must(&format!("SELECT available FROM billing.credit_balance('{}', 'credits')", wallet.customer));
        let told = told.first().map_or_else(|| q(0), |r| number(&r[0]));
        if told != wallet.available(now) {
            self.wrong(p, format!("available {told}, want {}", wallet.available(now)));
        }
    }
}
