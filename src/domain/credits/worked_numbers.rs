//! The worked numbers of rules.md 3 (A, B without its journal, C), 10.5 and 10.6 that credits decide. Those of D are
//! beside `commitment`, those of cost bases beside `pool`.

use super::testing::{at, block, exact, id, ratio, set, subject, usd};
use super::*;
use crate::domain::foundation::{Exact, Ratio, RoundingMode};

fn terms() -> Terms {
    Terms { mode: Mode::CreditThenInvoice, places: PLACES_MAX, rounding: RoundingMode::HalfUp }
}

fn priced(subject: usize, on: &str, quantity: &str, rate: &Ratio) -> Piece {
    let key = id(on.bytes().fold(subject as u128, |key, byte| key * 256 % (1 << 100) + u128::from(byte)));
    let quantity = exact(quantity);
    Piece { subject, at: at(on), event_key: key, quantity, price: Ratio::from(quantity).mul(rate) }
}

/// An amount of one line, as a piece of one unit.
fn amount(subject: usize, on: &str, amount: &str) -> Piece {
    priced(subject, on, "1", &ratio(amount))
}

fn settled(subjects: &[Subject], pieces: &[Piece], blocks: &[(&Block, Exact)]) -> Settled {
    let open: Vec<Open> = blocks.iter().map(|(block, left)| Open { block, left: *left }).collect();
    settle(subjects, pieces, &open, &Order::default(), &terms()).unwrap()
}

fn draws(rows: &[Draw]) -> Vec<(u128, String)> {
    rows.iter().map(|draw| (draw.block.as_u128(), draw.amount.to_string())).collect()
}

fn amounts(list: &[(u128, &str)]) -> Vec<(u128, String)> {
    list.iter().map(|(block, amount)| (*block, amount.to_string())).collect()
}

/// A: $50,000 prepaid against tokens at $0.002 per 1,000, and a call of 400,000 where $0.30 is left at $0.0016: what is
/// beyond is so many tokens, at a price of its own (`invoicing::settlement`).
#[test]
fn a_prepaid_tokens() {
    let tokens = [subject("tokens", "ai-api", "tokens", "acme")];
    let per_1000 = |price: &str| ratio(price).mul(&Ratio::new(1, 1000));
    let run = |left: &str, rate: &str, quantity: &str| {
        let piece = priced(0, "2026-03-01", quantity, &per_1000(rate));
        let (prepaid, left) = (block(1, "50000"), exact(left));
        let rows = settled(&tokens, &[piece], &[(&prepaid, left)]).rows;
        assert_eq!((rows.draws.len(), rows.rests.len()), (1, 1));
        let (draw, rest) = (&rows.draws[0], &rows.rests[0]);
        [draw.quantity.shown(), draw.amount.to_string(), rest.quantity.shown()]
    };
    assert_eq!(run("50000", "0.002", "27500000000"), ["25000000000", "50000", "2500000000"]);
    assert_eq!(run("50000", "0.0016", "35000000000"), ["31250000000", "50000", "3750000000"]);
    assert_eq!(run("0.30", "0.0016", "400000"), ["187500", "0.3", "212500"]);
}

fn year(n: u128, granted: &str, pool: Pool) -> Block {
    Block {
        category: Category::Paid,
        pool: Some(pool),
        effective_at: at("2026-01-01"),
        expires_at: Some(at("2027-01-01")),
        ..block(n, granted)
    }
}

fn money(pool: &Pool, before: &str, credits: &str) -> String {
    pool.release(exact(before), exact(credits), 2, RoundingMode::HalfUp).unwrap().to_string()
}

/// B: $100,000 with a 20% discount → 125,000 credits at 0.80. 45,000 burnt are 36,000; 100,000 are 80,000; the 25,000
/// left expire as 20,000.
#[test]
fn b_burn_and_breakage() {
    let pool = Pool::new(id(9), usd(), exact("100000"), exact("125000")).unwrap();
    assert_eq!(
        (money(&pool, "0", "45000"), money(&pool, "45000", "55000")),
        ("36000".into(), "44000".into())
    );
    assert_eq!(pool.value(exact("100000")).shown(), "80000");
    assert_eq!(money(&pool, "100000", "25000"), "20000");
    // Or 20,000 of 30,000 live on: the 10,000 that expire are 8,000, and 16,000 stay a liability.
    assert_eq!(money(&pool, "95000", "10000"), "8000");
    assert_eq!(pool.value(exact("20000")).shown(), "16000");
}

/// C: 400 of tokens on 10 May → D 50, C 200, B 100, A 50; then 350 of images → E 300, A 50.
#[test]
fn c_draw_down() {
    let ends = |n, granted, category, day: &str| Block {
        category,
        effective_at: at("2026-01-01"),
        expires_at: Some(at(day)),
        ..block(n, granted)
    };
    // "exp 31 Dec" pays for that day: it ends where the next begins.
    let a = ends(1, "500", Category::Paid, "2027-01-01");
    let b = ends(2, "100", Category::Promotional, "2027-01-01");
    let c = ends(3, "200", Category::Promotional, "2026-07-01");
    let mut d = Block { category: Category::Paid, priority: 10, ..block(4, "50") };
    d.scope.meters = set(&["tokens"]);
    let mut e = ends(5, "300", Category::Paid, "2026-07-01");
    e.scope.meters = set(&["images"]);
    let subjects = [subject("tokens", "ai", "tokens", "acme"), subject("images", "ai", "images", "acme")];
    let blocks = [&a, &b, &c, &d, &e];
    let full: Vec<(&Block, Exact)> = blocks.iter().map(|block| (*block, block.granted)).collect();

    let first = settled(&subjects, &[amount(0, "2026-05-10", "400")], &full);
    assert_eq!(draws(&first.rows.draws), amounts(&[(4, "50"), (3, "200"), (2, "100"), (1, "50")]));
    assert!(first.rows.rests.is_empty());
    let left: Vec<(&Block, Exact)> = blocks.into_iter().zip(first.left).collect();
    let second = settled(&subjects, &[amount(1, "2026-05-11", "350")], &left);
    assert_eq!(draws(&second.rows.draws), amounts(&[(5, "300"), (1, "50")]));
}

/// A quarter of 10.5: when it is settled, its lines, what credit pays and what is due beyond.
struct Quarter {
    used_on: &'static str,
    gpt_4: &'static str,
    gpt_35: &'static str,
}

const QUARTERS: [Quarter; 4] = [
    Quarter { used_on: "2026-02-01", gpt_4: "1200000000", gpt_35: "2000000000" },
    Quarter { used_on: "2026-05-01", gpt_4: "1800000000", gpt_35: "3000000000" },
    Quarter { used_on: "2026-08-01", gpt_4: "2100000000", gpt_35: "4500000000" },
    Quarter { used_on: "2026-12-31T23:59:59Z", gpt_4: "2400000000", gpt_35: "5500000000" },
];

/// Per quarter: credits, overage, revenue of the burn.
fn acme(pool: &Pool) -> Vec<[String; 3]> {
    let credits = year(1, &pool.credits().to_string(), pool.clone());
    let subjects =
        [subject("gpt-4", "ai-api", "tokens", "acme"), subject("gpt-3.5", "ai-api", "tokens", "acme")];
    let rates = [Ratio::new(15, 1_000_000), Ratio::new(1, 1_000_000)];
    let (mut left, mut burnt) = (credits.granted, Exact::ZERO);
    let mut quarter = |q: &Quarter| {
        let piece = |n: usize, quantity| priced(n, q.used_on, quantity, &rates[n]);
        let result = settled(&subjects, &[piece(0, q.gpt_4), piece(1, q.gpt_35)], &[(&credits, left)]);
        let drawn = result.rows.draws.iter().fold(Exact::ZERO, |sum, draw| sum.add(draw.amount).unwrap());
        let revenue = pool.release(burnt, drawn, 2, RoundingMode::HalfUp).unwrap();
        (left, burnt) = (result.left[0], burnt.add(drawn).unwrap());
        let overage = result.rows.rests.iter().fold(Ratio::ZERO, |sum, rest| sum.add(&rest.amount));
        [drawn.to_string(), overage.shown(), revenue.to_string()]
    };
    QUARTERS.iter().map(&mut quarter).collect()
}

/// 10.5: 100,000 with a 20% bonus is 120,000 credits: −20,000, −30,000, −36,000, −34,000 and 7,500 due; revenue
/// 16,666.67, 25,000.00, 30,000.00, 28,333.33. Read as a discount: 125,000, 2,500 due.
#[test]
fn acme_corp() {
    let paid = exact("100000");
    let bonus = Pool::new(id(9), usd(), paid, exact("120000")).unwrap();
    assert_eq!(
        acme(&bonus),
        [
            ["20000", "0", "16666.67"],
            ["30000", "0", "25000"],
            ["36000", "0", "30000"],
            ["34000", "7500", "28333.33"]
        ]
    );
    let discount = Pool::new(id(9), usd(), paid, exact("125000")).unwrap();
    assert_eq!(
        acme(&discount),
        [
            ["20000", "0", "16000"],
            ["30000", "0", "24000"],
            ["36000", "0", "28800"],
            ["39000", "2500", "31200"]
        ]
    );
    // Contract liability before the next instalment: billed so far less what was released.
    let instalments = commitment::instalments(
        paid,
        &[ratio("1"), ratio("1"), ratio("1"), ratio("1")],
        2,
        RoundingMode::HalfUp,
    );
    let (mut billed, mut burnt, mut liability) = (Exact::ZERO, Exact::ZERO, Vec::new());
    for (instalment, [drawn, ..]) in instalments.unwrap().into_iter().zip(acme(&bonus)) {
        (billed, burnt) = (billed.add(instalment).unwrap(), burnt.add(exact(&drawn)).unwrap());
        let earned = bonus.release(Exact::ZERO, burnt, 2, RoundingMode::HalfUp).unwrap();
        liability.push(billed.sub(earned).unwrap().to_string());
    }
    assert_eq!(liability, ["8333.33", "8333.33", "3333.33", "0"]);
    // If only 110,000 were used, 10,000 expire: breakage 8,333.33.
    assert_eq!(money(&bonus, "110000", "10000"), "8333.33");
}

/// 10.6: a token pool of 30,000 a year, shared by two legal entities, no roll-over. 1,000 left on 15 January; Inc's
/// 1,200 takes them and owes 200, all of GmbH's 2,300 is overage. Next year's credits pay for nothing of it.
#[test]
fn globex_shares_a_pool() {
    let pool = |n| Pool::new(id(n), usd(), exact("30000"), exact("30000")).unwrap();
    let ends = |n, from, until| Block {
        effective_at: at(from),
        expires_at: Some(at(until)),
        ..year(n, "30000", pool(n))
    };
    let (first, next) = (
        ends(1, "2026-02-01", "2027-02-01"),
        Block { granted: exact("30000"), ..ends(2, "2027-02-01", "2028-02-01") },
    );
    let subjects = [subject("inc", "tokens", "tokens", "inc"), subject("gmbh", "tokens", "tokens", "gmbh")];
    let usage = [amount(1, "2027-01-20", "2300"), amount(0, "2027-01-16", "1200")];
    let result = settled(&subjects, &usage, &[(&next, exact("30000")), (&first, exact("1000"))]);
    assert_eq!(draws(&result.rows.draws), amounts(&[(1, "1000")]));
    assert_eq!(result.rows.draws[0].line, "inc");
    let rests: Vec<(&str, String)> =
        result.rows.rests.iter().map(|rest| (rest.line.as_str(), rest.amount.shown())).collect();
    assert_eq!(rests, [("gmbh", "2300".to_string()), ("inc", "200".to_string())]);
    assert_eq!(result.left, [exact("30000"), Exact::ZERO]);
}
