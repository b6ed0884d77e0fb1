//! What there is to be bought.

use crate::deals::{Meter, PriceVersion};
use crate::load::Rng;
use crate::world::{CURRENCIES, Sim, money, quote};
use serde_json::{Value, json};

pub(crate) const PRICES: [(&str, &str); 11] = [
    ("peak-flat", "peak"),
    ("peak-steps", "peak"),
    ("tokens-flat", "tokens"),
    ("tokens-matrix", "tokens"),
    ("tokens-minimum", "tokens"),
    ("tokens-tiers", "tokens"),
    ("calls-graduated", "calls"),
    ("calls-volume", "calls"),
    ("calls-package", "calls"),
    ("storage-free", "storage"),
    ("storage-flat", "storage"),
];

pub(crate) fn meters() -> Vec<Meter> {
    let dims = |d: &[&str]| d.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>();
    let meter = |key: &str, of: &str, value: Option<&str>, d: &[&str]| Meter {
        key: key.into(),
        event_type: of.into(),
        value: value.map(Into::into),
        greatest: key == "peak",
        dimensions: dims(d),
    };
    vec![
        meter("tokens", "llm", Some("tokens"), &["model", "region"]),
        meter("calls", "llm", None, &["model"]),
        meter("peak", "llm", Some("tokens"), &["model"]),
        meter("storage", "store", Some("gb"), &["region"]),
        meter("mails", "mail", None, &[]),
    ]
}

/// An amount about `n` hundredths of a dollar, in the currency, with more places than it can pay.
pub(crate) fn some(rng: &mut Rng, n: i64, currency: usize) -> String {
    let scaled = n * CURRENCIES[currency].2;
    money(scaled + rng.below(1 + (scaled / 2) as usize) as i64, 4)
}

pub(crate) fn tiers(rng: &mut Rng, n: i64, bounds: [i64; 2], fees: bool, currency: usize) -> Value {
    let mut tiers = vec![
        json!({"up_to": bounds[0].to_string(), "unit_price": some(rng, n, currency)}),
        json!({"up_to": bounds[1].to_string(), "unit_price": some(rng, n / 2 + 1, currency)}),
        json!({"unit_price": some(rng, n / 5 + 1, currency)}),
    ];
    if fees {
        tiers[0]["flat_fee"] = json!(some(rng, 10 * n, currency));
        tiers[1]["flat_fee"] = json!(some(rng, 5 * n, currency));
    }
    json!(tiers)
}

/// The prices of one book: what a version of each looks like.
pub(crate) fn pricing(rng: &mut Rng, price: &str, c: usize) -> Value {
    match price {
        "tokens-flat" => json!({"model": "per_unit", "unit_price": some(rng, 7, c), "per": 1000}),
        "tokens-matrix" => {
            json!({"model": "matrix", "dimensions": ["model", "region"], "per": 1000, "rows": [
            {"match": {"model": "gpt-4"}, "unit_price": some(rng, 30, c)},
            {"match": {"model": "gpt-4", "region": "eu"}, "unit_price": some(rng, 33, c)},
            {"match": {"region": "eu"}, "unit_price": some(rng, 5, c)},
            {"match": {}, "unit_price": some(rng, 3, c)}]})
        }
        "tokens-minimum" => json!({"model": "per_unit", "unit_price": some(rng, 6, c), "per": 1000,
            "minimum": some(rng, 3000, c), "maximum": some(rng, 9000, c)}),
        "tokens-tiers" => {
            json!({"model": "graduated", "per": 1000, "tiers": tiers(rng, 9, [20000, 60000], false, c)})
        }
        "calls-graduated" => json!({"model": "graduated", "tiers": tiers(rng, 40, [10, 40], true, c)}),
        "calls-volume" => json!({"model": "volume", "tiers": tiers(rng, 40, [15, 30], false, c)}),
        "calls-package" => json!({"model": "package", "package_size": "7", "amount": some(rng, 210, c)}),
        "storage-free" => json!({"model": "per_unit", "unit_price": some(rng, 12, c), "free_units": "150.5"}),
        "storage-flat" => {
            json!({"model": "per_unit", "unit_price": some(rng, 9, c), "minimum": some(rng, 2500, c)})
        }
        "peak-flat" => json!({"model": "per_unit", "unit_price": some(rng, 20, c), "per": 100}),
        "peak-steps" => {
            json!({"model": "stairstep", "tiers": [{"up_to": "3000", "amount": some(rng, 1000, c)}, {"up_to": "7000", "amount": some(rng, 2500, c)}, {"amount": some(rng, 3333, c)}]})
        }
        other => panic!("no price {other}"),
    }
}

pub(crate) fn book(c: usize) -> String {
    format!("list-{}", CURRENCIES[c].0.to_lowercase())
}

/// A plan of some interval; `n` chooses the prices so that all are sold.
pub(crate) fn plan(rng: &mut Rng, n: usize, c: usize) -> Value {
    let (interval, inner) = [(1, 1), (3, 1), (3, 3), (12, 3), (6, 1), (12, 12)][rng.below(6)];
    let pick = |n: usize, of: &str| {
        let fitting: Vec<_> = PRICES.iter().filter(|(_, m)| *m == of).collect();
        fitting[n % fitting.len()].0
    };
    let every = |m: usize| json!(format!("{m} month{}", if m == 1 { "" } else { "s" }));
    let mut charges = vec![
        json!({"key": "tokens", "product": "ai", "meter": "tokens", "price": pick(n, "tokens"), "lines_by": ["model"], "every": every(inner)}),
        json!({"key": "calls", "product": "ai", "meter": "calls", "price": pick(n, "calls"), "every": every(inner)}),
        json!({"key": "storage", "product": "ai", "meter": "storage", "price": pick(n, "storage"), "every": every(interval)}),
    ];
    if rng.chance(50) {
        charges[1]["lines_by"] = json!(["model"]);
    }
    if rng.chance(40) {
        charges.push(json!({"key": "peak", "product": "ai", "meter": "peak", "price": pick(n / 2, "peak"), "every": every(inner)}));
    }
    if rng.chance(30) {
        // Two charges share a meter.
        charges[2]["match"] = json!({"region": "eu"});
        let other = if rng.chance(50) { "storage-free" } else { "storage-flat" };
        charges.push(json!({"key": "storage-us", "product": "ai", "meter": "storage", "price": other, "match": {"region": "us"}, "every": every(inner)}));
    }
    let mut fees = vec![
        json!({"key": "platform", "product": "ai", "pricing": {"model": "flat", "amount": some(rng, 9999, c)}, "every": every(interval), "timing": "advance"}),
        json!({"key": "seats", "product": "ai", "pricing": {"model": "per_unit", "unit_price": some(rng, 2000, c)}, "quantity": (1 + rng.below(9)).to_string(), "every": every(inner),
            "timing": if rng.chance(50) { "advance" } else { "arrears" }}),
    ];
    if rng.chance(50) {
        fees.push(json!({"key": "support", "product": "ai", "pricing": {"model": "graduated", "tiers": tiers(rng, 900, [3, 6], true, c)}, "quantity": (1 + rng.below(9)).to_string(), "every": every(inner),
            "timing": "arrears"}));
    }
    json!({"key": format!("plan-{}-{n}", CURRENCIES[c].0.to_lowercase()), "name": "A plan", "currency": CURRENCIES[c].0, "price_book": book(c),
        "billing": {"interval": every(interval), "alignment": if rng.chance(50) { "calendar" } else { "anniversary" }, "net_days": 30},
        "charges": charges, "fees": fees})
}

/// A plan billed alike, with other prices: one may change from one to the other.
pub(crate) fn other_plan(rng: &mut Rng, plan: &Value, c: usize) -> Value {
    let mut other = plan.clone();
    other["key"] = json!(format!("{}b", plan["key"].as_str().expect("a key")));
    other["fees"][0]["pricing"] = json!({"model": "flat", "amount": some(rng, 15000, c)});
    other["charges"][0]["price"] = json!("tokens-flat");
    let fitting = ["calls-graduated", "calls-volume", "calls-package"];
    other["charges"][1]["price"] = json!(fitting[rng.below(3)]);
    if rng.chance(50) {
        other["fees"].as_array_mut().expect("fees").remove(1);
    }
    other
}

impl Sim {
    /// The newest version of a plan, as the oracle names it.
    pub(crate) fn newest(&self, plan: &str) -> String {
        let later = (2..).map(|n| format!("{plan}@{n}"));
        later.take_while(|name| self.world.plans.contains_key(name)).last().unwrap_or_else(|| plan.to_owned())
    }

    /// A new version of a plan: for who signs it from now on.
    pub(crate) fn new_plan(&mut self, c: usize) {
        let mut rng = self.rng.fork();
        let suffix = if rng.chance(50) { "b" } else { "" };
        let key = format!("plan-{}-{}{suffix}", CURRENCIES[c].0.to_lowercase(), rng.below(4));
        let newest = self.newest(&key);
        let mut plan = self.world.plans[&newest].clone();
        plan["fees"][0]["pricing"] = json!({"model": "flat", "amount": some(&mut rng, 12000, c)});
        let fitting = ["calls-graduated", "calls-volume", "calls-package"];
        plan["charges"][1]["price"] = json!(fitting[rng.below(3)]);
        let number = newest.split_once('@').map_or(1, |(_, n)| n.parse::<usize>().expect("a number"));
        self.must(&format!(
            "SELECT count(*) FROM billing.catalog_apply({})",
            quote(&json!({"plans": [plan]}).to_string())
        ));
        self.world.plans.insert(format!("{key}@{}", number + 1), plan);
    }

    pub(crate) fn catalogue(&mut self) {
        let mut rng = self.rng.fork();
        let mut books = Vec::new();
        let mut plans = Vec::new();
        for (c, (currency, _, _)) in CURRENCIES.iter().enumerate() {
            let mut prices = Vec::new();
            for (key, meter) in PRICES {
                let pricing = pricing(&mut rng, key, c);
                prices.push(json!({"key": key, "meter": meter, "pricing": pricing}));
                let first = PriceVersion { from: None, said: 0, pricing };
                self.world.prices.insert((book(c), key.to_owned()), vec![first]);
            }
            books.push(json!({"key": book(c), "currency": currency, "prices": prices}));
            let mut all = Vec::new();
            for n in 0..4 {
                let plan = plan(&mut rng, n, c);
                all.push(other_plan(&mut rng, &plan, c));
                all.push(plan);
            }
            for plan in all {
                self.world.plans.insert(plan["key"].as_str().expect("a key").to_owned(), plan.clone());
                plans.push(plan);
            }
        }
        let mut documents = Vec::new();
        for meter in meters() {
            let mut doc = json!({"key": meter.key, "event_type": meter.event_type, "dimensions": meter.dimensions,
                "aggregation": if meter.greatest { "max" } else if meter.value.is_some() { "sum" } else { "count" }});
            if let Some(value) = &meter.value {
                doc["value"] = json!(value);
            }
            documents.push(doc);
            self.world.meters.insert(meter.key.clone(), meter);
        }
        let doc = json!({"products": [{"key": "ai", "name": "AI"}, {"key": "extra", "name": "Extra"}], "meters": documents, "price_books": books, "plans": plans});
        self.must(&format!("SELECT count(*) FROM billing.catalog_apply({})", quote(&doc.to_string())));
    }
}
