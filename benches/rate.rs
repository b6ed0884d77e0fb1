//! How many quantities a second one core rates with a graduated price of five tiers; prints the best of five runs.

use pg_billing::domain::foundation::json::{self, Node};
use pg_billing::domain::foundation::{Exact, Ratio};
use pg_billing::domain::metering::Dimensions;
use pg_billing::domain::rating::Pricing;
use std::hint::black_box;
use std::time::Instant;

const PRICING: &str = r#"{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.01"},{"up_to":"5000","unit_price":"0.005"},
    {"up_to":"20000","unit_price":"0.002"},{"up_to":"50000","unit_price":"0.001"},{"unit_price":"0.0005"}]}"#;
const CALLS: i64 = 1_000_000;

#[allow(clippy::disallowed_methods, reason = "durations are measured in benches")]
fn main() {
    let pricing =
        Pricing::read(&Node::root(&json::parse(PRICING).expect("it is JSON"))).expect("it is a pricing");
    let none = Dimensions::new();
    let best = (0..5)
        .map(|_| {
            let started = Instant::now();
            for n in 0..CALLS {
                let quantity = Ratio::from(Exact::from_i64(black_box(n % 100_000)));
                black_box(pricing.rate(&quantity, &none, 1).expect("every quantity has a tier"));
            }
            started.elapsed()
        })
        .min()
        .expect("five runs");
    println!("{}", CALLS as u128 * 1_000_000_000 / best.as_nanos());
}
