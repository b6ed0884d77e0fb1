//! Settlement by example.

use super::super::Overdraft;
use super::super::testing::{block, exact, id, ratio, set, subject};
use super::*;

pub const CENTS: Terms = Terms { mode: Mode::CreditThenInvoice, places: 2, rounding: RoundingMode::HalfUp };

fn piece(subject: usize, at: i64, key: u128, quantity: &str, price: &str) -> Piece {
    Piece { subject, at: Instant(at), event_key: id(key), quantity: exact(quantity), price: ratio(price) }
}

fn tokens() -> Vec<Subject> {
    vec![subject("tokens", "ai", "tokens", "acme")]
}

pub fn opened(blocks: &[Block]) -> Vec<Open<'_>> {
    blocks.iter().map(|block| Open { block, left: block.granted }).collect()
}

fn settled(blocks: &[Block], pieces: &[Piece], terms: &Terms) -> Settled {
    settle(&tokens(), pieces, &opened(blocks), &Order::default(), terms).unwrap()
}

/// (block or 0 for the rest, quantity, amount), in order.
fn shown(settled: &Settled) -> Vec<(u128, String, String)> {
    let draws = settled.rows.draws.iter();
    let draws = draws.map(|draw| (draw.block.as_u128(), draw.quantity.shown(), draw.amount.to_string()));
    let rests = settled.rows.rests.iter().map(|rest| (0, rest.quantity.shown(), rest.amount.shown()));
    draws.chain(rests).collect()
}

fn rows(list: &[(u128, &str, &str)]) -> Vec<(u128, String, String)> {
    list.iter().map(|(block, quantity, amount)| (*block, quantity.to_string(), amount.to_string())).collect()
}

#[test]
fn a_piece_burns_several_blocks_and_the_rest_is_billed() {
    let blocks = [block(1, "2"), block(2, "3")];
    let result = settled(&blocks, &[piece(0, 5, 1, "100", "10")], &CENTS);
    assert_eq!(shown(&result), rows(&[(1, "20", "2"), (2, "30", "3"), (0, "50", "5")]));
    assert_eq!(result.left, [Exact::ZERO, Exact::ZERO]);
    // A third of a unit has no decimal, and is not lost.
    let thirds = settled(&[block(1, "1")], &[piece(0, 5, 1, "1", "3")], &CENTS);
    assert_eq!(thirds.rows.draws[0].quantity, Ratio::new(1, 3));
    assert_eq!(thirds.rows.rests[0].quantity, Ratio::new(2, 3));
}

#[test]
fn time_of_usage_decides_not_that_of_settlement() {
    let of = |n, from, until| Block {
        effective_at: Instant(from),
        expires_at: Some(Instant(until)),
        ..block(n, "10")
    };
    let blocks = [of(1, 0, 10), of(2, 10, 20)];
    let pieces = [piece(0, 20, 3, "1", "1"), piece(0, 10, 2, "1", "1"), piece(0, 9, 1, "1", "1")];
    assert_eq!(
        shown(&settled(&blocks, &pieces, &CENTS)),
        rows(&[(1, "1", "1"), (2, "1", "1"), (0, "1", "1")])
    );
}

#[test]
fn another_unit_or_scope_is_left_alone() {
    let mut other = block(1, "10");
    other.unit = crate::domain::foundation::money::Unit::parse("EUR").unwrap();
    let mut images = block(2, "10");
    images.scope.meters = set(&["images"]);
    let result = settled(&[other, images], &[piece(0, 5, 1, "1", "1")], &CENTS);
    assert_eq!(shown(&result), rows(&[(0, "1", "1")]));
}

/// rules.md 3: when empty, credit_then_invoice, credit_only (whole charge), allow_negative.
#[test]
fn modes_say_what_happens_when_credit_ends() {
    let pieces = [piece(0, 1, 1, "6", "6"), piece(0, 2, 2, "6", "6"), piece(0, 3, 3, "4", "4")];
    let blocks = |overdraft| [Block { overdraft, ..block(1, "10") }, block(2, "0.5")];
    let run = |mode, overdraft| settled(&blocks(overdraft), &pieces, &Terms { mode, ..CENTS });
    let invoice = run(Mode::CreditThenInvoice, Overdraft::Unlimited);
    assert_eq!(shown(&invoice), rows(&[(1, "10", "10"), (2, "0.5", "0.5"), (0, "5.5", "5.5")]));
    let only = run(Mode::CreditOnly, Overdraft::Unlimited);
    assert_eq!(shown(&only), rows(&[(1, "10", "10")]));
    assert_eq!(only.refused, [("tokens".to_string(), id(2))]);
    let negative = run(Mode::AllowNegative, Overdraft::Unlimited);
    // The overdraft is used last, so its block is the last in burn order.
    assert_eq!(shown(&negative), rows(&[(2, "0.5", "0.5"), (1, "15.5", "15.5")]));
    assert_eq!(negative.left, [exact("-5.5"), Exact::ZERO]);
    let limited = run(Mode::AllowNegative, Overdraft::UpTo(exact("5")));
    assert_eq!(shown(&limited), rows(&[(2, "0.5", "0.5"), (1, "15", "15"), (0, "0.5", "0.5")]));
    let both = [Overdraft::UpTo(exact("3")), Overdraft::Unlimited];
    let both =
        [Block { overdraft: both[0], ..block(1, "10") }, Block { overdraft: both[1], ..block(2, "0.5") }];
    let both = settled(&both, &pieces, &Terms { mode: Mode::AllowNegative, ..CENTS });
    assert_eq!(both.left, [exact("-3"), exact("-2.5")]);
    let none = run(Mode::AllowNegative, Overdraft::None);
    assert_eq!(shown(&none), shown(&invoice));
    for (word, mode) in [
        ("credit_then_invoice", Mode::CreditThenInvoice),
        ("credit_only", Mode::CreditOnly),
        ("allow_negative", Mode::AllowNegative),
    ] {
        assert_eq!(Mode::parse(word).unwrap(), mode);
    }
    assert!(Mode::parse("prepaid").is_err());
}

/// As rules.md 1's 1,000 × 400 tokens: what is below the smallest part is asked for once it has become one.
#[test]
fn pieces_below_the_smallest_part_are_not_lost() {
    let dust: Vec<Piece> = (0..1000).map(|n| piece(0, n, n as u128, "400", "0.001")).collect();
    let result = settled(&[block(1, "5")], &dust, &CENTS);
    assert_eq!(shown(&result), rows(&[(1, "400000", "1")]));
    // Where credit ends, both parts sum to the line rounded once.
    let two = [piece(0, 1, 1, "1", "0.006"), piece(0, 2, 2, "1", "0.006")];
    assert_eq!(shown(&settled(&[block(1, "0.01")], &two, &CENTS)), rows(&[(1, "1", "0.01"), (0, "1", "0")]));
    // Used-up credit pays for nothing; with credit_only what is too small to ask for any is refused, too.
    let only = Terms { mode: Mode::CreditOnly, ..CENTS };
    let small = [piece(0, 1, 1, "1", "0.01"), piece(0, 2, 2, "1", "0.001"), piece(0, 3, 3, "1", "0")];
    let refused = settled(&[block(1, "0.01")], &small, &only);
    assert_eq!(shown(&refused), rows(&[(1, "1", "0.01"), (0, "1", "0")]));
    assert_eq!(refused.refused, [("tokens".to_string(), id(2))]);
    // Rounding can ask for more than the piece costs, and for less.
    let up = settled(&[block(1, "0.30"), block(2, "9")], &[piece(0, 1, 1, "725", "0.725")], &CENTS);
    assert_eq!(shown(&up), rows(&[(1, "300", "0.3"), (2, "425", "0.43")]));
    let down = settled(&[block(1, "0.72")], &[piece(0, 1, 1, "724", "0.724")], &CENTS);
    assert_eq!(shown(&down), rows(&[(1, "724", "0.72")]));
    let part =
        settled(&[block(1, "0.01")], &[piece(0, 1, 1, "6", "0.006"), piece(0, 2, 2, "9", "0.009")], &CENTS);
    assert_eq!(shown(&part), rows(&[(1, "6", "0.01"), (0, "9", "0.01")]));
    // A balance finer than the smallest part may be more than the piece costs, and less than is due.
    let finer = [piece(0, 1, 1, "49", "0.0049"), piece(0, 2, 2, "101", "0.0101")];
    let finer = settled(&[block(1, "0.015"), block(2, "9")], &finer, &CENTS);
    assert_eq!(shown(&finer), rows(&[(1, "124.75", "0.015"), (2, "25.25", "0.005")]));
}

#[test]
fn refuses_what_can_only_be_a_mistake() {
    let refused = |subjects: &[Subject], pieces: &[Piece], blocks: &[Block], places| {
        settle(subjects, pieces, &opened(blocks), &Order::default(), &Terms { places, ..CENTS })
            .unwrap_err()
            .message
    };
    let good = piece(0, 1, 7, "1", "1");
    let event = "event 00000000-0000-0000-0000-000000000007 on line \"tokens\"";
    let twice = [good.clone(), Piece { at: Instant(2), ..good.clone() }];
    assert_eq!(refused(&tokens(), &twice, &[], 2), format!("{event} stands twice"));
    for bad in [Piece { quantity: exact("-1"), ..good.clone() }, Piece { price: ratio("-1"), ..good.clone() }]
    {
        assert_eq!(refused(&tokens(), &[bad], &[], 2), format!("{event} is below 0"));
    }
    assert!(refused(&[], &[good], &[], 2).contains("of no subject"));
    assert!(refused(&tokens(), &[], &[block(1, "1"), block(1, "2")], 2).ends_with("stands twice"));
    assert!(refused(&tokens(), &[], &[], 13).contains("at most 12 decimals"));
    let mut euros = subject("tokens", "ai", "images", "acme");
    euros.unit = crate::domain::foundation::money::Unit::parse("EUR").unwrap();
    assert!(
        refused(&[tokens(), vec![euros]].concat(), &[], &[], 2)
            == "usage in USD and EUR can't be settled together"
    );
}
