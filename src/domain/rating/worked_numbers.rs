//! Every worked number of rules.md 1 and 10.1–10.4 that rating decides, and the prices of definitions.md.

use super::Pricing;
use super::testing::{dimensions, exact, posted, pricing, quantity, rated};
use crate::domain::foundation::{Exact, Ratio};
use crate::domain::metering::Dimensions;

fn total(amounts: &[Ratio]) -> Ratio {
    amounts.iter().fold(Ratio::ZERO, |sum, amount| sum.add(amount))
}

fn amount(pricing: &Pricing, units: &str) -> Ratio {
    pricing.rate(&quantity(units), &Dimensions::new(), 1).unwrap()
}

const TIERS: &str =
    r#"[{"up_to":"1000","unit_price":"0.10"},{"up_to":"10000","unit_price":"0.05"},{"unit_price":"0.01"}]"#;

#[test]
fn graduated_volume_and_flat_fees() {
    let graduated = pricing(&format!(r#"{{"model":"graduated","tiers":{TIERS}}}"#));
    let volume = pricing(&format!(r#"{{"model":"volume","tiers":{TIERS}}}"#));
    for (units, spread, placed) in [
        ("1000", "100", "100"),
        ("1001", "100.05", "50.05"),
        ("15000", "600", "150"),
        ("0.5", "0.05", "0.05"),
    ] {
        assert_eq!(rated(&graduated, units), spread, "graduated {units}");
        assert_eq!(rated(&volume, units), placed, "volume {units}");
    }
    let fees = r#"[{"up_to":"100","unit_price":"1","flat_fee":"10"},{"up_to":"200","unit_price":"0.5","flat_fee":"5"},{"unit_price":"0.1"}]"#;
    let graduated = pricing(&format!(r#"{{"model":"graduated","tiers":{fees}}}"#));
    assert_eq!(rated(&graduated, "101"), "115.5");
    assert_eq!(rated(&graduated, "250"), "170");
    let volume = pricing(&format!(r#"{{"model":"volume","tiers":{fees}}}"#));
    assert_eq!(rated(&volume, "101"), "55.5");
}

#[test]
fn matrix() {
    let rows = r#"{"match":{"model":"gpt-4"},"unit_price":".03"},{"match":{"model":"gpt-4","region":"eu"},"unit_price":".033"},{"match":{"region":"eu"},"unit_price":".02"},{"match":{},"unit_price":".01"}"#;
    let with = |dims: &str, rows: &str| {
        let text = format!(r#"{{"model":"matrix","dimensions":{dims},"rows":[{rows}]}}"#);
        let matrix = pricing(&text);
        move |values: &str| matrix.rate(&quantity("1"), &dimensions(values), 1).unwrap().shown()
    };
    let full = with(r#"["model","region"]"#, rows);
    assert_eq!(full(r#"{"model":"gpt-4","region":"eu"}"#), "0.033");
    assert_eq!(full(r#"{"model":"gpt-4","region":"us"}"#), "0.03");
    assert_eq!(full(r#"{"model":"other","region":"eu"}"#), "0.02");
    assert_eq!(full(r#"{"model":"other","region":"us"}"#), "0.01");
    let without = rows.replace(r#"{"match":{"model":"gpt-4","region":"eu"},"unit_price":".033"},"#, "");
    assert_eq!(with(r#"["model","region"]"#, &without)(r#"{"model":"gpt-4","region":"eu"}"#), "0.03");
    assert_eq!(with(r#"["region","model"]"#, &without)(r#"{"model":"gpt-4","region":"eu"}"#), "0.02");
}

#[test]
fn minimum_and_maximum_of_a_row() {
    let states = pricing(
        r#"{"model":"matrix","dimensions":["state"],"rows":[
            {"match":{"state":"CA"},"unit_price":"10","minimum":"100","maximum":"200"},
            {"match":{"state":"NY"},"pricing":{"model":"per_unit","unit_price":"12","minimum":"120","maximum":"240"}}]}"#,
    );
    for (state, units, expected) in [("CA", "8", "100"), ("NY", "25", "240"), ("NY", "10", "120")] {
        let dimensions = dimensions(&format!(r#"{{"state":"{state}"}}"#));
        assert_eq!(states.rate(&quantity(units), &dimensions, 1).unwrap().shown(), expected);
    }
}

#[test]
fn packages_and_steps() {
    let package = |free: &str| {
        pricing(&format!(r#"{{"model":"package","package_size":1000000,"amount":"1.25"{free}}}"#))
    };
    assert_eq!(rated(&package(""), "10"), "1.25");
    assert_eq!(rated(&package(""), "1500000"), "2.5");
    assert_eq!(rated(&package(r#","free_units":"500000""#), "1500001"), "2.5");
    let steps = pricing(
        r#"{"model":"stairstep","tiers":[{"up_to":"100","amount":"50"},{"up_to":"500","amount":"200"},{"amount":"700"}]}"#,
    );
    for (units, expected) in [("100", "50"), ("101", "200"), ("501", "700")] {
        assert_eq!(rated(&steps, units), expected);
    }
}

#[test]
fn percentages() {
    let card = pricing(
        r#"{"model":"percentage","rate":"0.029","fixed":"0.30","per_event_minimum":"0.50","per_event_maximum":"10"}"#,
    );
    let amounts = ["5", "100", "500"].map(exact);
    assert_eq!(card.rate_events(&amounts).unwrap().shown(), "13.7");
    assert_eq!(card.rate_events(&amounts[..1]).unwrap().shown(), "0.5");
    assert_eq!(card.rate_events(&amounts[1..2]).unwrap().shown(), "3.2");
    assert_eq!(rated(&card, "500"), "10");

    let tiers = pricing(
        r#"{"model":"graduated_percentage","tiers":[{"up_to":"1000","rate":"0.01","flat_fee":"200"},{"up_to":"10000","rate":"0.02","flat_fee":"300"}]}"#,
    );
    let cumulative = ["500", "1050", "5050"].map(|sum| amount(&tiers, sum));
    assert_eq!(cumulative[0].shown(), "205");
    assert_eq!(cumulative[1].sub(&cumulative[0]).shown(), "306");
    assert_eq!(cumulative[2].sub(&cumulative[1]).shown(), "80");
    assert_eq!(cumulative[2].shown(), "591");
}

#[test]
fn minimum_after_and_before_a_discount() {
    let list = pricing(r#"{"model":"per_unit","unit_price":"0.10","free_units":"500","minimum":"100"}"#);
    assert_eq!(posted(&amount(&list.percent_off(exact("10")).unwrap(), "1400")), "100.00");
    assert_eq!(posted(&amount(&list, "1400").mul(&Ratio::new(90, 100))), "90.00");
    let exact = list.rate_without_bounds(&quantity("1400"), &Dimensions::new(), 1).unwrap();
    assert_eq!(exact.shown(), "90");
}

#[test]
fn price_changes() {
    let per_unit = |price: &str| pricing(&format!(r#"{{"model":"per_unit","unit_price":"{price}"}}"#));
    let (old, new) = (per_unit("0.010"), per_unit("0.008"));
    assert_eq!(posted(&total(&[amount(&old, "10000"), amount(&new, "12000")])), "196.00");
    assert_eq!(posted(&amount(&old, "22000")), "220.00");

    let tiers = |first: &str, then: &str| {
        pricing(&format!(
            r#"{{"model":"graduated","tiers":[{{"up_to":"10000","unit_price":"{first}"}},{{"unit_price":"{then}"}}]}}"#
        ))
    };
    let (v1, v2) = (tiers(".010", ".006"), tiers(".008", ".005"));
    let continued = amount(&v2, "14000").sub(&amount(&v2, "8000"));
    assert_eq!(continued.shown(), "36");
    assert_eq!(total(&[amount(&v1, "8000"), continued]).shown(), "116");
    assert_eq!(total(&[amount(&v1, "8000"), amount(&v2, "6000")]).shown(), "128");
    assert_eq!(amount(&v1, "14000").shown(), "124");
}

#[test]
fn small_prices_and_ramps() {
    let token = pricing(r#"{"model":"per_unit","unit_price":"0.0000025"}"#);
    assert_eq!(rated(&token, "1234567"), "3.0864175");
    assert_eq!(posted(&amount(&token, "1234567")), "3.09");
    let events = vec![exact("400"); 1000];
    assert_eq!(posted(&token.rate_events(&events).unwrap()), "1.00");
    let years = ["100000", "107000", "114490"]
        .map(|fee| amount(&pricing(&format!(r#"{{"model":"flat","amount":"{fee}"}}"#)), "1"));
    assert_eq!(posted(&total(&years)), "321490.00");
    let line = pricing(r#"{"model":"flat","amount":"33.335"}"#);
    assert_eq!(posted(&amount(&line, "1")), "33.34");
    assert_eq!(posted(&amount(&line, "1").mul(&Ratio::from(3i64))), "100.01");
}

/// rules.md 4: late usage and progressive invoices are differences of totals.
#[test]
fn differences_of_totals() {
    let tiers = r#"[{"up_to":"1000","unit_price":"1.00"},{"unit_price":"0.50"}]"#;
    let graduated = pricing(&format!(r#"{{"model":"graduated","tiers":{tiers}}}"#));
    assert_eq!(amount(&graduated, "1050").sub(&amount(&graduated, "950")).shown(), "75");
    assert_eq!(amount(&graduated, "1400").sub(&amount(&graduated, "500")).shown(), "700");
    let volume = pricing(&format!(r#"{{"model":"volume","tiers":{tiers}}}"#));
    assert_eq!(amount(&volume, "1600").sub(&amount(&volume, "900")).shown(), "-100");
}

/// rules.md 10.1.
#[test]
fn twilio() {
    let sms = pricing(r#"{"model":"per_unit","unit_price":"0.0083"}"#);
    assert_eq!(rated(&sms, "1234567"), "10246.9061");
    assert_eq!(posted(&amount(&sms, "1234567")), "10246.91");
    assert_eq!((rated(&sms, "3"), posted(&amount(&sms, "3"))), ("0.0249".into(), "0.02".into()));
}

/// rules.md 10.2.
#[test]
fn assembly_ai() {
    let hour = |price: &str| pricing(&format!(r#"{{"model":"per_unit","unit_price":"{price}","per":3600}}"#));
    let (best, stream) = (hour("0.15"), hour("0.45"));
    assert_eq!(posted(&amount(&best, "8263")), "0.34");
    assert_eq!(posted(&amount(&stream, "8263")), "1.03");
    assert_eq!(rated(&best, "4567890"), "190.32875");
    assert_eq!(rated(&stream, "1234567"), "154.320875");
    let lines = [posted(&amount(&best, "4567890")), posted(&amount(&stream, "1234567"))];
    assert_eq!(lines, ["190.33", "154.32"]);
    assert_eq!(exact(&lines[0]).add(exact(&lines[1])).unwrap(), exact("344.65"));
}

/// rules.md 10.3.
#[test]
fn datadog() {
    let host = |price: &str, hours: u32| {
        pricing(&format!(r#"{{"model":"per_unit","unit_price":"{price}","per":{hours}}}"#))
    };
    // 10 hosts all month, 90 more for 2 hours.
    assert_eq!(posted(&amount(&host("15", 720), "7380")), "153.75");
    assert_eq!(posted(&amount(&host("15", 720), "180")), "3.75");
    assert_eq!(posted(&amount(&host("23", 720), "7380")), "235.75");
    assert_eq!(posted(&amount(&host("15", 744), "7620")), "153.63");
    assert_eq!(posted(&amount(&host("15", 744), "180")), "3.63");
    let real = pricing(r#"{"model":"per_unit","unit_price":"15"}"#);
    assert_eq!([rated(&real, "10"), rated(&real, "100")], ["150", "1500"]);
}

/// The list price of definitions.md D1 and rules.md 10.4.
#[test]
fn rate_card() {
    let list = pricing(
        r#"{"model":"matrix","dimensions":["model"],"per":1000,
            "rows":[{"match":{"model":"gpt-4"},"unit_price":"0.03"},{"match":{"model":"gpt-3.5"},"unit_price":"0.002"}]}"#,
    );
    let gpt_4 = dimensions(r#"{"model":"gpt-4"}"#);
    let gpt_3 = dimensions(r#"{"model":"gpt-3.5"}"#);
    let override_of =
        |values: &Dimensions, price: &str| list.resolve(values).unwrap().with_unit_price(exact(price));
    let (tokens_4, tokens_3) = (quantity("1234567"), quantity("9876543"));
    for (four, three, expected) in [
        (None, None, ["37.03701", "37.04", "19.753086", "19.75", "56.79"]),
        (Some("0.02"), None, ["24.69134", "24.69", "19.753086", "19.75", "44.44"]),
        (Some("0.015"), Some("0.001"), ["18.518505", "18.52", "9.876543", "9.88", "28.4"]),
    ] {
        let price = |values: &Dimensions, fixed: Option<&str>| match fixed {
            Some(fixed) => override_of(values, fixed),
            None => list.clone(),
        };
        let lines = [
            price(&gpt_4, four).rate(&tokens_4, &gpt_4, 1).unwrap(),
            price(&gpt_3, three).rate(&tokens_3, &gpt_3, 1).unwrap(),
        ];
        let [line_4, line_3] = [posted(&lines[0]), posted(&lines[1])];
        let sum: Exact = exact(&line_4).add(exact(&line_3)).unwrap();
        assert_eq!([lines[0].shown(), line_4, lines[1].shown(), line_3, sum.to_string()], expected);
    }
    // definitions.md D3.
    let acme = override_of(&gpt_4, "0.02");
    assert_eq!(acme.canonical(), r#"{"model":"per_unit","per":1000,"unit_price":"0.02"}"#);
    assert_eq!(rated(&acme, "8779295"), "175.5859");
}

/// definitions.md 5: monthly and quarterly tiers of the `requests` price.
#[test]
fn requests_by_month_and_quarter() {
    let requests = pricing(
        r#"{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0"},{"up_to":"5000","unit_price":"0.001"},{"unit_price":"0.0005"}]}"#,
    );
    let month: Exact = exact(&posted(&amount(&requests, "9395")));
    assert_eq!(month, exact("6.20"));
    assert_eq!(month.mul(Exact::from_i64(3)).unwrap(), exact("18.60"));
    assert_eq!(posted(&amount(&requests, "28185")), "15.59");
    // definitions.md 4: free units in the place of the zero tier shift the tiers.
    let free = pricing(
        r#"{"model":"graduated","free_units":"1000","tiers":[{"up_to":"5000","unit_price":"0.001"},{"unit_price":"0.0005"}]}"#,
    );
    assert_eq!(posted(&amount(&free, "9395")), "6.70");
}
