//! Properties of settlement, and a second, naive settlement that it must agree with.
//!
//! Amounts are whole cents here unless said otherwise; times are small numbers.

use super::super::testing::{block, id, set, subject};
use super::super::{Category, Overdraft, Scope};
use super::tests::{CENTS, opened};
use super::*;
use crate::domain::foundation::json::{self, Node};
use proptest::prelude::*;

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
    let one = (0usize..3, 0i64..20, 0i128..30, 0i128..40, 1i128..12);
    proptest::collection::vec(one, 0..25).prop_map(move |list| {
        let piece = |(n, (subject, at, quantity, price, of)): (u128, _)| {
            let price = Ratio::new(price, if whole { 100 } else { 100 * of });
            let quantity = Exact::from_parts(quantity, 1).unwrap();
            Piece { subject, at: Instant(at), event_key: id(n * 7919 % 101), quantity, price }
        };
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

fn drawn_from(rows: &Rows, block: Uuid) -> Exact {
    let of_block = rows.draws.iter().filter(|draw| draw.block == block);
    of_block.fold(Exact::ZERO, |sum, draw| sum.add(draw.amount).unwrap())
}

/// By line and block (0 for the rest): amount and quantity.
type NaiveRows = BTreeMap<(String, u128), (Ratio, Ratio)>;

/// The naive settlement: cent by cent. For each cent that an event costs, every block is looked at again.
fn naive(pieces: &[Piece], blocks: &[Block], mode: Mode) -> (NaiveRows, Vec<i64>, usize) {
    let whole_cents = |amount: &Ratio| amount.mul(&Ratio::from(100i64)).truncate(0).0.try_into().unwrap();
    let mut left: Vec<i64> = blocks.iter().map(|block| whole_cents(&block.granted.into())).collect();
    let (mut rows, mut refused) = (NaiveRows::new(), 0);
    let mut events: Vec<&Piece> = pieces.iter().collect();
    events.sort_by_key(|event| (event.at.0, event.event_key));
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
        let mut count = |to: u128, amount: Ratio, part: Ratio| {
            let row = rows.entry((line.to_string(), to)).or_insert((Ratio::ZERO, Ratio::ZERO));
            *row = (row.0.add(&amount), row.1.add(&part.mul(&event.quantity.into())));
        };
        if price == 0 {
            count(0, Ratio::ZERO, Ratio::from(1i64));
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
            let part = Ratio::new(1, price.into());
            count(payer.map_or(0, |n| blocks[*n].id.as_u128()), Ratio::new(1, 100), part);
        }
    }
    (rows, left, refused)
}

proptest! {
    #[test]
    fn agrees_with_the_naive_settlement(blocks in any_blocks(), pieces in any_pieces(true), mode in any_mode()) {
        let result = run(&pieces, &opened(&blocks), &Terms { mode, ..CENTS });
        let (expected, left, refused) = naive(&pieces, &blocks, mode);
        let mut found = NaiveRows::new();
        for draw in &result.rows.draws {
            found.insert((draw.line.clone(), draw.block.as_u128()), (draw.amount.into(), draw.quantity.clone()));
        }
        for rest in &result.rows.rests {
            found.insert((rest.line.clone(), 0), (rest.amount.clone(), rest.quantity.clone()));
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

    /// An order and a mode that change at an instant are two settlements, the second of what the first left; and one
    /// that changes to the same changes nothing, also for lines that go on.
    #[test]
    fn a_change_of_order_and_mode_is_another_settlement(
        pieces in any_pieces(false), blocks in any_blocks(), terms in any_terms(), mode in any_mode(), cut in 0i64..20
    ) {
        let order = Order::read(&Node::root(&json::parse(r#"["category","effective_at"]"#).unwrap())).unwrap();
        let first = Order::default();
        let way = |at: Instant| match at.0 < cut {
            true => Way { order: &first, mode: terms.mode },
            false => Way { order: &order, mode },
        };
        let same = |_: Instant| Way { order: &first, mode: terms.mode };
        prop_assert_eq!(settle_by(&subjects(), &pieces, &opened(&blocks), same, &terms).unwrap(), run(&pieces, &opened(&blocks), &terms));
        let of_period = |n: usize| subjects().into_iter().map(move |s| Subject { line: format!("{}{n}", s.line), ..s });
        let both: Vec<Subject> = of_period(1).chain(of_period(2)).collect();
        let later = |piece: Piece| match piece.at.0 < cut {
            true => piece,
            false => Piece { subject: piece.subject + 3, ..piece },
        };
        let pieces: Vec<Piece> = pieces.into_iter().map(later).collect();
        let (before, after): (Vec<Piece>, Vec<Piece>) = pieces.iter().cloned().partition(|piece| piece.at.0 < cut);
        let one = settle(&both, &before, &opened(&blocks), &first, &terms).unwrap();
        let open: Vec<Open> = blocks.iter().zip(&one.left).map(|(block, left)| Open { block, left: *left }).collect();
        let two = settle(&both, &after, &open, &order, &Terms { mode, ..terms }).unwrap();
        let whole = settle_by(&both, &pieces, &opened(&blocks), way, &terms).unwrap();
        let normal = |rows: &Rows| by_key(&rows.plus(&Rows::default()).unwrap());
        prop_assert_eq!(normal(&one.rows.plus(&two.rows).unwrap()), normal(&whole.rows));
        prop_assert_eq!(two.left, whole.left);
    }

    /// Money and units to the last digit: a line's draws and rest are its quantity and its price rounded once; what
    /// left a block is what was drawn from it; nothing goes below 0 but an overdraft.
    #[test]
    fn nothing_is_lost_or_made(
        pieces in any_pieces(false), blocks in any_blocks(), terms in any_terms()
    ) {
        let result = run(&pieces, &opened(&blocks), &terms);
        for (n, subject) in subjects().iter().enumerate() {
            let line = &subject.line;
            let of_line = pieces.iter().filter(|piece| {
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
        }
        for (block, left) in blocks.iter().zip(&result.left) {
            prop_assert_eq!(block.granted.sub(drawn_from(&result.rows, block.id)).unwrap(), *left);
            let floor = match (terms.mode, block.overdraft) {
                (Mode::AllowNegative, Overdraft::Unlimited) => None,
                (Mode::AllowNegative, Overdraft::UpTo(limit)) => Some(limit.neg()),
                _ => Some(Exact::ZERO),
            };
            prop_assert!(floor.is_none_or(|floor| *left >= floor) && *left <= block.granted);
        }
    }
}
