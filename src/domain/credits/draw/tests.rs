//! Settlement by example, and its properties against a second, naive one.

use super::super::testing::{block, exact, id, ratio, set, subject};
use super::super::{Balance, Category, Overdraft, Scope};
use super::*;
use proptest::prelude::*;

const CENTS: Terms = Terms { mode: Mode::CreditThenInvoice, places: 2, rounding: RoundingMode::HalfUp };

fn piece(subject: usize, at: i64, key: u128, quantity: &str, price: &str) -> Piece {
    Piece {
        subject,
        at: Instant(at),
        event_key: id(key),
        quantity: exact(quantity),
        price: ratio(price),
        beyond: Beyond::Same,
    }
}

fn tokens() -> Vec<Subject> {
    vec![subject("tokens", "ai", "tokens", "acme")]
}

fn opened(blocks: &[Block]) -> Vec<Open<'_>> {
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
fn one_rate_is_one_price() {
    let place = (0, Instant(0), id(1));
    let same = Piece::at_rates(place, exact("3"), &ratio("0.5"), &Ratio::new(1, 2));
    assert_eq!((same.price, same.beyond), (ratio("1.5"), Beyond::Same));
    let other = Piece::at_rates(place, exact("3"), &ratio("0.5"), &ratio("2"));
    assert_eq!(other.beyond, Beyond::Amount(ratio("6")));
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
    for bad in [
        Piece { quantity: exact("-1"), ..good.clone() },
        Piece { price: ratio("-1"), ..good.clone() },
        Piece { beyond: Beyond::Amount(ratio("-1")), ..good.clone() },
    ] {
        assert_eq!(refused(&tokens(), &[bad], &[], 2), format!("{event} is below 0"));
    }
    let free = Piece { price: Ratio::ZERO, beyond: Beyond::Amount(ratio("1")), ..good.clone() };
    assert!(refused(&tokens(), &[free], &[], 2).contains("no quantity would end the commit"));
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

// Properties. Amounts are whole cents here unless said otherwise; times are small numbers.

fn subjects() -> Vec<Subject> {
    [("a", "tokens"), ("b", "tokens"), ("c", "images")]
        .map(|(line, meter)| subject(line, "ai", meter, "acme"))
        .to_vec()
}

fn cents(n: i64) -> Exact {
    Exact::from_parts(n.into(), 2).unwrap()
}

prop_compose! {
    fn any_block()(
        granted in 1i64..60, priority in 0i32..2, category in 0usize..3, meter in 0usize..4,
        from in 0i64..10, lasts in proptest::option::of(1i64..15), overdraft in 0usize..4
    ) -> Block {
        let meters = [&[][..], &[], &["tokens"], &["images"]][meter];
        Block {
            granted: cents(granted),
            priority,
            category: [Category::Paid, Category::Promotional, Category::Pilot][category],
            scope: Scope { meters: set(meters), ..Scope::default() },
            effective_at: Instant(from),
            expires_at: lasts.map(|lasts| Instant(from + lasts)),
            overdraft: [Overdraft::None, Overdraft::None, Overdraft::UpTo(cents(20)), Overdraft::Unlimited][overdraft],
            ..block(0, "1")
        }
    }
}

fn any_blocks() -> impl Strategy<Value = Vec<Block>> {
    proptest::collection::vec(any_block(), 0..7).prop_map(|mut blocks| {
        blocks.iter_mut().zip(1..).for_each(|(block, n)| block.id = id(n));
        blocks
    })
}

/// Pieces whose event keys are in another order than the pieces; `price` in whole cents or any fraction of one.
fn any_pieces(whole: bool) -> impl Strategy<Value = Vec<Piece>> {
    let one = (0usize..3, 0i64..20, 0i64..30, 0i128..40, 1i128..12, proptest::option::of(0i64..80));
    proptest::collection::vec(one, 0..25).prop_map(move |list| {
        let piece =
            |(n, (subject, at, quantity, price, of, beyond)): (u128, (_, _, _, _, _, Option<i64>))| {
                let price = Ratio::new(price, if whole { 100 } else { 100 * of });
                let beyond = beyond
                    .filter(|_| !price.is_zero())
                    .map_or(Beyond::Same, |n| Beyond::Amount(cents(n).into()));
                let quantity = Exact::from_parts(quantity, 1).unwrap();
                Piece { subject, at: Instant(at), event_key: id(n * 7919 % 101), quantity, price, beyond }
            };
        let list = list.into_iter().map(|(s, at, q, p, of, b)| (s, at, i128::from(q), p, of, b));
        (0u128..).zip(list).map(piece).collect()
    })
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::CreditThenInvoice), Just(Mode::CreditOnly), Just(Mode::AllowNegative)]
}

fn any_terms() -> impl Strategy<Value = Terms> {
    (any_mode(), 2u32..5).prop_map(|(mode, places)| Terms { mode, places, rounding: RoundingMode::HalfEven })
}

fn run(pieces: &[Piece], blocks: &[Open], terms: &Terms) -> Settled {
    settle(&subjects(), pieces, blocks, &Order::default(), terms).unwrap()
}

/// By line and block, whatever the order.
fn by_key(rows: &Rows) -> Rows {
    let mut sorted = rows.clone();
    sorted.draws.sort_by_key(|draw| (draw.line.clone(), draw.block));
    sorted
}

/// The naive settlement: cent by cent. For each cent that an event costs, every block is looked at again.
/// Per (line, block; 0 for the rest): cents, and cents as parts of their events.
fn naive(
    pieces: &[Piece],
    blocks: &[Block],
    mode: Mode,
) -> (BTreeMap<(String, u128), (i64, Ratio)>, Vec<i64>, usize) {
    let whole_cents = |amount: &Ratio| amount.mul(&Ratio::from(100i64)).truncate(0).0.try_into().unwrap();
    let mut left: Vec<i64> = blocks.iter().map(|block| whole_cents(&block.granted.into())).collect();
    let (mut rows, mut refused) = (BTreeMap::new(), 0);
    let mut events: Vec<&Piece> = pieces.iter().collect();
    events.sort_by(|a, b| (a.at.0, a.event_key).cmp(&(b.at.0, b.event_key)));
    for event in events {
        let (line, meter) = [("a", "tokens"), ("b", "tokens"), ("c", "images")][event.subject];
        let mut fitting: Vec<usize> = (0..blocks.len())
            .filter(|n| {
                let block = &blocks[*n];
                block.effective_at.0 <= event.at.0
                    && block.expires_at.is_none_or(|end| event.at.0 < end.0)
                    && (block.scope.meters.is_empty() || block.scope.meters.contains(meter))
            })
            .collect();
        fitting.sort_by_key(|n| {
            let block = &blocks[*n];
            let category = match block.category {
                Category::Promotional => 0,
                Category::Pilot => 1,
                Category::Paid => 2,
            };
            let ends = block.expires_at.map_or(i64::MAX, |end| end.0);
            (block.priority, ends, block.scope.meters.is_empty(), category, block.effective_at.0, *n)
        });
        let price: i64 = whole_cents(&event.price);
        let credit: i64 = fitting.iter().map(|n| left[*n].max(0)).sum();
        if mode == Mode::CreditOnly && credit < price {
            refused += 1;
            continue;
        }
        let mut count = |to: u128, cents: i64, part: Ratio| {
            let row = rows.entry((line.to_string(), to)).or_insert((0, Ratio::ZERO));
            *row = (row.0 + cents, row.1.add(&part.mul(&event.quantity.into())));
        };
        if price == 0 {
            count(0, 0, Ratio::from(1i64));
        }
        for _ in 0..price {
            let debtor = fitting.iter().find(|n| match blocks[**n].overdraft {
                Overdraft::None => false,
                Overdraft::UpTo(_) => mode == Mode::AllowNegative && left[**n] > -20,
                Overdraft::Unlimited => mode == Mode::AllowNegative,
            });
            let payer = fitting.iter().find(|n| left[**n] > 0).or(debtor);
            if let Some(n) = payer {
                left[*n] -= 1;
            }
            count(payer.map_or(0, |n| blocks[*n].id.as_u128()), 1, Ratio::new(1, price.into()));
        }
    }
    (rows, left, refused)
}

proptest! {
    #[test]
    fn agrees_with_the_naive_settlement(blocks in any_blocks(), pieces in any_pieces(true), mode in any_mode()) {
        let result = run(&pieces, &opened(&blocks), &Terms { mode, ..CENTS });
        let (expected, left, refused) = naive(&pieces, &blocks, mode);
        let mut found: BTreeMap<(String, u128), (i64, Ratio)> = BTreeMap::new();
        for draw in &result.rows.draws {
            let cents = draw.amount.mul(Exact::from_i64(100)).unwrap().to_i64().unwrap();
            found.insert((draw.line.clone(), draw.block.as_u128()), (cents, draw.quantity.clone()));
        }
        // What the rest costs is looked at elsewhere: its price may be another.
        for rest in &result.rows.rests {
            let cents = expected.get(&(rest.line.clone(), 0)).map_or(-1, |row| row.0);
            found.insert((rest.line.clone(), 0), (cents, rest.quantity.clone()));
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(result.left, left.into_iter().map(cents).collect::<Vec<_>>());
        prop_assert_eq!(result.refused.len(), refused);
    }

    /// Any order of arrival settles to the same rows.
    #[test]
    fn order_of_arrival_changes_nothing(
        (pieces, shuffled) in any_pieces(false).prop_flat_map(|p| (Just(p.clone()), Just(p).prop_shuffle())),
        (blocks, again) in any_blocks().prop_flat_map(|b| (Just(b.clone()), Just(b).prop_shuffle())),
        terms in any_terms()
    ) {
        let (first, second) = (run(&pieces, &opened(&blocks), &terms), run(&shuffled, &opened(&again), &terms));
        prop_assert_eq!(&first.rows, &second.rows);
        prop_assert_eq!(&first.refused, &second.refused);
    }

    /// Settled batch by batch as it arrives, late events among them, posting only differences: the rows are those of
    /// all usage at once, and no entry on the way spends a credit that is not there.
    #[test]
    fn any_split_into_batches_changes_nothing(
        pieces in any_pieces(false).prop_shuffle(), blocks in any_blocks(), terms in any_terms(),
        sizes in proptest::collection::vec(1usize..9, 1..8)
    ) {
        let mut balances: Vec<Balance> = blocks.iter().map(Balance::of).collect();
        let (mut posted, mut seen) = (Rows::default(), 0);
        for size in sizes.into_iter().chain([pieces.len()]) {
            seen = (seen + size).min(pieces.len());
            let open: Vec<Open> = blocks.iter().zip(&balances)
                .map(|(block, balance)| Open::again(block, balance.left().unwrap(), &posted).unwrap()).collect();
            let now = run(&pieces[..seen], &open, &terms);
            let difference = now.rows.minus(&posted).unwrap();
            for entry in difference.entries() {
                let at = blocks.iter().position(|block| block.id == entry.block).unwrap();
                balances[at].post(entry, blocks[at].overdraft).unwrap();
            }
            posted = posted.plus(&difference).unwrap();
            // Rows of nothing (a free piece of no quantity) are not posted.
            prop_assert_eq!(by_key(&posted), by_key(&now.rows.plus(&Rows::default()).unwrap()));
        }
        let whole = run(&pieces, &opened(&blocks), &terms);
        prop_assert_eq!(by_key(&posted), by_key(&whole.rows.plus(&Rows::default()).unwrap()));
        let left: Vec<Exact> = balances.iter().map(|balance| balance.left().unwrap()).collect();
        prop_assert_eq!(left, whole.left);
    }

    /// Period by period, each beginning with what the one before left, is as all at once: lines end with a period.
    #[test]
    fn settling_period_by_period_changes_nothing(
        pieces in any_pieces(false), blocks in any_blocks(), terms in any_terms(), cut in 0i64..20
    ) {
        let of_period = |n: usize| subjects().into_iter().map(move |s| Subject { line: format!("{}{n}", s.line), ..s });
        let both: Vec<Subject> = of_period(1).chain(of_period(2)).collect();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for piece in pieces {
            if piece.at.0 < cut {
                before.push(piece);
            } else {
                after.push(Piece { subject: piece.subject + 3, ..piece });
            }
        }
        let settle = |pieces: &[Piece], open: &[Open]| settle(&both, pieces, open, &Order::default(), &terms).unwrap();
        let first = settle(&before, &opened(&blocks));
        let open: Vec<Open> = blocks.iter().zip(&first.left).map(|(block, left)| Open { block, left: *left }).collect();
        let second = settle(&after, &open);
        let whole = settle(&[before, after].concat(), &opened(&blocks));
        let normal = |rows: &Rows| by_key(&rows.plus(&Rows::default()).unwrap());
        prop_assert_eq!(normal(&first.rows.plus(&second.rows).unwrap()), normal(&whole.rows));
        prop_assert_eq!(second.left, whole.left);
    }

    /// Money and units to the last digit: a line's draws and rest are its quantity and its price rounded once; what
    /// left a block is what was drawn from it; nothing goes below 0 but an overdraft.
    #[test]
    fn nothing_is_lost_or_made(
        pieces in any_pieces(false), blocks in any_blocks(), terms in any_terms()
    ) {
        let same: Vec<Piece> = pieces.into_iter().map(|piece| Piece { beyond: Beyond::Same, ..piece }).collect();
        let result = run(&same, &opened(&blocks), &terms);
        for (n, subject) in subjects().iter().enumerate() {
            let line = &subject.line;
            let of_line = same.iter().filter(|piece| {
                piece.subject == n && !result.refused.contains(&(line.clone(), piece.event_key))
            });
            let (mut quantity, mut price) = (Ratio::ZERO, Ratio::ZERO);
            of_line.for_each(|piece| {
                quantity = quantity.add(&piece.quantity.into());
                price = price.add(&piece.price);
            });
            let (mut quantities, mut amounts) = (Ratio::ZERO, Ratio::ZERO);
            for draw in result.rows.draws.iter().filter(|draw| draw.line == *line) {
                prop_assert!(!draw.quantity.is_negative() && !draw.amount.is_negative());
                quantities = quantities.add(&draw.quantity);
                amounts = amounts.add(&draw.amount.into());
            }
            for rest in result.rows.rests.iter().filter(|rest| rest.line == *line) {
                prop_assert!(!rest.quantity.is_negative() && !rest.amount.is_negative());
                quantities = quantities.add(&rest.quantity);
                amounts = amounts.add(&rest.amount);
            }
            prop_assert_eq!(&quantities, &quantity);
            prop_assert_eq!(amounts, price.round(terms.places, terms.rounding).unwrap().into());
            let stored = result.rows.quantities(line, 1).unwrap();
            let sum = stored.iter().fold(Exact::ZERO, |sum, part| sum.add(*part).unwrap());
            prop_assert_eq!(Ratio::from(sum), quantity);
        }
        for (block, left) in blocks.iter().zip(&result.left) {
            prop_assert_eq!(block.granted.sub(result.rows.drawn_from(block.id).unwrap()).unwrap(), *left);
            let floor = match (terms.mode, block.overdraft) {
                (Mode::AllowNegative, Overdraft::Unlimited) => None,
                (Mode::AllowNegative, Overdraft::UpTo(limit)) => Some(limit.neg()),
                _ => Some(Exact::ZERO),
            };
            prop_assert!(floor.is_none_or(|floor| *left >= floor) && *left <= block.granted);
        }
    }
}
