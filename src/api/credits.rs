//! Credits: documents, which blocks a draw takes from, what credits are worth, top-ups.

use crate::domain::credits::top_up::{Amount, Memory, Rule, TopUp, absorb};
use crate::domain::credits::{
    Block, Draw, Mode, Open, Order, PLACES_MAX, Piece, Pool, Subject, Terms, document, settle,
};
use crate::domain::foundation::json::{self, Node, Tree};
use crate::domain::foundation::money::Unit;
use crate::domain::foundation::{Exact, Fault, RoundingMode};
use crate::domain::metering::Dimensions;
use crate::pg::instant::{from_date, to_date};
use crate::pg::{FaultJson, Numeric};
use pgrx::datum::Date;
use pgrx::prelude::*;
use uuid::Uuid;

/// The canonical text of a credit document whose form is right; NULL where `credit_document_error` says why not.
#[pg_extern(sql = false)]
fn credit_document(kind: &str, doc: &str) -> Option<String> {
    json::parse(doc).and_then(|tree| document::read(kind, &tree)).ok()
}

#[pg_extern(sql = false)]
fn credit_document_error(kind: &str, doc: &str) -> Option<String> {
    json::parse(doc).and_then(|tree| document::read(kind, &tree)).err().as_ref().map(FaultJson::text)
}

/// Why a block, as `credit_opens()` writes it, can't be; NULL if it can.
#[pg_extern(sql = false)]
fn credit_block_error(block: &str) -> Option<String> {
    let check = || {
        let (block, _) = Block::read(&Node::root(&json::parse(block)?))?;
        block.check()
    };
    check().err().as_ref().map(FaultJson::text)
}

fn read_order(order: Option<&str>) -> Result<Order, Fault> {
    let Some(order) = order else {
        return Ok(Order::default());
    };
    let tree = json::parse_nested(order, json::DOCUMENT_DEPTH_MAX, "credit_order")?;
    Order::read(&Node { tree: &tree, path: "credit_order".into() })
}

/// What a draw of `amount` takes from each of a list of blocks, in burn order: those that may pay for it, sorted, as the
/// bill does it. No row where they don't hold as much, or where `credit_allot_error` says why.
#[pg_extern(sql = false)]
fn credit_allot(
    order: Option<&str>,
    doc: &str,
    at: pgrx::datum::TimestampWithTimeZone,
    amount: Numeric,
    blocks: &str,
) -> TableIterator<'static, (name!(grant_id, pgrx::Uuid), name!(amount, Numeric))> {
    let rows = allot(order, doc, at, amount, blocks).unwrap_or_default().into_iter();
    TableIterator::new(
        rows.map(|(block, amount)| (pgrx::Uuid::from_bytes(block.into_bytes()), Numeric::from(amount))),
    )
}

#[pg_extern(sql = false)]
fn credit_allot_error(
    order: Option<&str>,
    doc: &str,
    at: pgrx::datum::TimestampWithTimeZone,
    amount: Numeric,
    blocks: &str,
) -> Option<String> {
    allot(order, doc, at, amount, blocks).err().as_ref().map(FaultJson::text)
}

fn allot(
    order: Option<&str>,
    doc: &str,
    at: pgrx::datum::TimestampWithTimeZone,
    amount: Numeric,
    blocks: &str,
) -> Result<Vec<(Uuid, Exact)>, Fault> {
    let amount = amount.value?;
    let at = crate::pg::instant::from_timestamptz(at)
        .ok_or_else(|| Fault::value("credit is drawn at an instant, not at infinity"))?;
    let tree = json::parse_nested(blocks, json::DOCUMENT_DEPTH_MAX, "blocks")?;
    let list = Node { tree: &tree, path: "blocks".into() };
    let blocks = list.items()?.iter().map(Block::read).collect::<Result<Vec<_>, Fault>>()?;
    let Some((first, _)) = blocks.first() else {
        return Ok(Vec::new());
    };
    let tree = json::parse(doc)?;
    let text = |name: &str| match tree.get(name) {
        Some(Tree::Text(text)) => text.to_string(),
        _ => String::new(),
    };
    let dimensions = tree
        .get("dimensions")
        .map_or(Ok(Dimensions::new()), |tree| Dimensions::read(&Node { tree, path: "dimensions".into() }))?;
    let subject = Subject {
        line: String::new(),
        product: text("product"),
        meter: text("meter"),
        dimensions,
        bill_to: text("bill_to"),
        unit: first.unit,
    };
    let piece = Piece { subject: 0, at, event_key: Uuid::nil(), quantity: amount, price: amount.into() };
    let open: Vec<Open> = blocks.iter().map(|(block, left)| Open { block, left: *left }).collect();
    // The whole amount or nothing; it is in credits already, so nothing is rounded.
    let terms = Terms { mode: Mode::CreditOnly, places: PLACES_MAX, rounding: RoundingMode::HalfUp };
    let settled = settle(&[subject], &[piece], &open, &read_order(order)?, &terms)?;
    Ok(settled.rows.draws.iter().map(|draw| (draw.block, draw.amount)).collect())
}

/// The money that leaves a pool with `credits`, `before` of it having left already; NULL where `credit_release_error`
/// says why.
#[pg_extern(sql = false)]
fn credit_release(
    paid: Numeric,
    credits: Numeric,
    before: Numeric,
    leaving: Numeric,
    minor_units: i32,
    rounding: &str,
) -> Option<Numeric> {
    let scale = u32::try_from(minor_units).unwrap_or(0);
    release(paid, credits, before, leaving, minor_units, rounding)
        .ok()
        .map(|money| Numeric::fixed(money, scale))
}

#[pg_extern(sql = false)]
fn credit_release_error(
    paid: Numeric,
    credits: Numeric,
    before: Numeric,
    leaving: Numeric,
    minor_units: i32,
    rounding: &str,
) -> Option<String> {
    release(paid, credits, before, leaving, minor_units, rounding).err().as_ref().map(FaultJson::text)
}

fn release(
    paid: Numeric,
    credits: Numeric,
    before: Numeric,
    leaving: Numeric,
    minor_units: i32,
    rounding: &str,
) -> Result<Exact, Fault> {
    // What it is a pool of plays no part in its quotient.
    let pool = Pool::new(Uuid::nil(), Unit::NONE, paid.value?, credits.value?)?;
    let minor_units =
        u32::try_from(minor_units).map_err(|_| Fault::value("a currency has no minor units below 0"))?;
    pool.release(before.value?, leaving.value?, minor_units, RoundingMode::parse(rounding)?)
}

/// The draws that move from a block which owes `owed` to one that holds `left`: those that went furthest into debt, as
/// far as it holds. `draws` is what the block gave in burn order: `[["line", "quantity", "amount"], …]`. No row where
/// `credit_absorb_error` says why.
#[pg_extern(sql = false)]
fn credit_absorb(
    left: Numeric,
    owed: Numeric,
    draws: &str,
) -> TableIterator<'static, (name!(line, String), name!(quantity, Numeric), name!(amount, Numeric))> {
    TableIterator::new(debt_moved(left, owed, draws).unwrap_or_default())
}

#[pg_extern(sql = false)]
fn credit_absorb_error(left: Numeric, owed: Numeric, draws: &str) -> Option<String> {
    debt_moved(left, owed, draws).err().as_ref().map(FaultJson::text)
}

fn debt_moved(left: Numeric, owed: Numeric, draws: &str) -> Result<Vec<(String, Numeric, Numeric)>, Fault> {
    let (debtor, lender) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let tree = json::parse_nested(draws, json::DOCUMENT_DEPTH_MAX, "draws")?;
    let mut list = Vec::new();
    for draw in (Node { tree: &tree, path: "draws".into() }).items()? {
        let [line, quantity, amount] = &draw.items()?[..] else {
            return Err(draw.fault("must be [line, quantity, amount]"));
        };
        list.push(Draw {
            line: line.text()?.to_string(),
            block: debtor,
            quantity: quantity.decimal()?.into(),
            amount: amount.decimal()?,
        });
    }
    let moved = absorb(lender, left.value?, &[(owed.value?, list)])?;
    let here = moved.draws.iter().filter(|draw| draw.block == lender);
    here.map(|draw| {
        // A part of a quantity may have no decimal; it is for showing.
        let quantity = draw.quantity.round(PLACES_MAX, RoundingMode::HalfUp)?;
        Ok((draw.line.clone(), Numeric::from(quantity), Numeric::from(draw.amount)))
    })
    .collect()
}

/// What a top-up rule remembers after it looked at a balance, and what it buys then. No row where `top_up_look_error` says
/// why.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "a row of top_up_rule")]
fn top_up_look(
    mode: &str,
    threshold: Numeric,
    amount: Numeric,
    monthly_cap: Option<Numeric>,
    crossings: i64,
    below: bool,
    waiting: bool,
    month: Option<Date>,
    bought: Numeric,
    balance: Numeric,
    today: Date,
) -> TableIterator<
    'static,
    (
        name!(crossings, i64),
        name!(below, bool),
        name!(waiting, bool),
        name!(month, Date),
        name!(bought, Numeric),
        name!(buys, Option<Numeric>),
        name!(crossing, Option<i64>),
    ),
> {
    let memory = (crossings, below, waiting, month, bought);
    let row = look((mode, threshold, amount, monthly_cap), memory, balance, today).ok();
    let number = |crossing: u64| i64::try_from(crossing).unwrap_or(i64::MAX);
    TableIterator::new(row.map(|(memory, buys)| {
        let month = memory.month.map_or(today, to_date);
        (
            number(memory.crossings),
            memory.below,
            memory.waiting,
            month,
            Numeric::from(memory.bought),
            buys.map(|top_up| Numeric::from(top_up.amount)),
            buys.map(|top_up| number(top_up.crossing)),
        )
    }))
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "a row of top_up_rule")]
fn top_up_look_error(
    mode: &str,
    threshold: Numeric,
    amount: Numeric,
    monthly_cap: Option<Numeric>,
    crossings: i64,
    below: bool,
    waiting: bool,
    month: Option<Date>,
    bought: Numeric,
    balance: Numeric,
    today: Date,
) -> Option<String> {
    let memory = (crossings, below, waiting, month, bought);
    look((mode, threshold, amount, monthly_cap), memory, balance, today).err().as_ref().map(FaultJson::text)
}

type Remembered = (i64, bool, bool, Option<Date>, Numeric);

fn look(
    (mode, threshold, amount, monthly_cap): (&str, Numeric, Numeric, Option<Numeric>),
    (crossings, below, waiting, month, bought): Remembered,
    balance: Numeric,
    today: Date,
) -> Result<(Memory, Option<TopUp>), Fault> {
    let amount = match mode {
        "target" => Amount::Target(amount.value?),
        _ => Amount::Fixed(amount.value?),
    };
    let rule = Rule {
        threshold: threshold.value?,
        amount,
        monthly_cap: monthly_cap.map(|cap| cap.value).transpose()?,
    };
    rule.check()?;
    let memory = Memory {
        crossings: u64::try_from(crossings).map_err(|_| Fault::value("crossings are counted from 0"))?,
        below,
        waiting,
        month: month.and_then(from_date),
        bought: bought.value?,
    };
    let today = from_date(today).ok_or_else(|| Fault::value("a rule looks on a day, not at infinity"))?;
    rule.look(memory, balance.value?, today)
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{fault, rows, value};
    use pgrx::prelude::*;

    /// Credit documents are read into their canonical form; a fault names the path.
    #[pg_test]
    fn credit_documents_are_read() {
        let read = r#"SELECT billing_internal.credit_document('grant', '{"unit":"USD", "amount":"100"}')"#;
        assert_eq!(value(read).as_deref(), Some(r#"{"amount":"100","unit":"USD"}"#));
        let wrong = r#"SELECT billing_internal.credit_document('grant', '{"amount":"a hundred"}')"#;
        assert_eq!(value(wrong), None);
        let error = wrong.replace("credit_document", "credit_document_error");
        assert!(fault(&error).starts_with("ZB003 "), "{}", fault(&error));
    }

    const BLOCK: &str = r#"{"id":"00000000-0000-0000-0000-00000000000N","unit":"USD","category":"paid","granted":"100","priority":P,"effective_at":"2026-01-01T00:00:00Z","left":"L"}"#;

    fn block(n: u8, priority: u8, left: &str) -> String {
        BLOCK.replace("00N", &format!("00{n}")).replace('P', &priority.to_string()).replace('L', left)
    }

    /// A block that may not be says why; a draw takes from blocks in their order, or from none where they hold too little.
    #[pg_test]
    fn draws_take_from_blocks_in_their_order() {
        let check = |block: &str| format!("SELECT billing_internal.credit_block_error('{block}')");
        assert_eq!(value(&check(&block(1, 50, "100"))), None);
        let wrong = block(1, 50, "100").replace(r#""granted":"100""#, r#""granted":"0""#);
        assert_eq!(fault(&check(&wrong)), "ZB004 a block of 0 credits is none");
        let draw = |function: &str, amount: &str, blocks: &str| {
            format!("billing_internal.{function}(NULL, '{{}}', '2026-02-01 00:00+00', {amount}, '{blocks}')")
        };
        let blocks = format!("[{},{}]", block(1, 50, "100"), block(2, 10, "30"));
        let drawn = |amount: &str| {
            rows(&format!(
                "SELECT right(grant_id::text, 1) AS block, amount FROM {}",
                draw("credit_allot", amount, &blocks)
            ))
        };
        assert_eq!(drawn("50"), ["2|30", "1|20"]);
        assert_eq!(drawn("130.01"), Vec::<String>::new());
        assert_eq!(value(&format!("SELECT {}", draw("credit_allot_error", "130.01", &blocks))), None);
        assert_eq!(
            fault(&format!("SELECT {}", draw("credit_allot_error", "1", "{}"))),
            "ZB003 blocks: must be an array, not an object"
        );
        let order = draw("credit_allot_error", "1", &blocks).replacen("NULL", r#"'["size"]'"#, 1);
        let said = fault(&format!("SELECT {order}"));
        assert!(said.starts_with("ZB003 credit_order[0]: \"size\" is not known"), "{said}");
    }

    /// Credits are worth their part of what was paid, to the minor unit: 100,000 for 120,000, after 110,000.
    #[pg_test]
    fn credits_are_worth_what_was_paid() {
        let of = |function: &str, leaving: &str| {
            format!("SELECT billing_internal.{function}(100000, 120000, 110000, {leaving}, 2, 'half_up')")
        };
        assert_eq!(value(&of("credit_release", "10000")).as_deref(), Some("8333.33"));
        assert_eq!(value(&of("credit_release_error", "10000")), None);
        assert_eq!(value(&of("credit_release", "10001")), None);
        assert_eq!(
            fault(&of("credit_release_error", "10001")),
            "ZB004 10001 after 110000 is not within the 120000 credits of the pool"
        );
    }

    /// A debt is paid off from the draw that went furthest into it, as far as the new block holds.
    #[pg_test]
    fn debt_moves_with_its_lines() {
        let absorb = |function: &str, left: &str, owed: &str| {
            format!(r#"billing_internal.{function}({left}, {owed}, '[["a", "80", "8"], ["b", "6", "6"]]')"#)
        };
        let moved = |left: &str, owed: &str| {
            rows(&format!("SELECT * FROM {} ORDER BY line", absorb("credit_absorb", left, owed)))
        };
        assert_eq!(moved("100", "10"), ["a|40|4", "b|6|6"]);
        assert_eq!(moved("4", "10"), ["b|4|4"]);
        assert_eq!(moved("100", "0"), Vec::<String>::new());
        assert_eq!(moved("100", "15"), Vec::<String>::new());
        let error = |owed: &str| format!("SELECT {}", absorb("credit_absorb_error", "100", owed));
        assert_eq!(fault(&error("15")), "ZB004 a debt of 15 is more than the 14 that was drawn");
        assert_eq!(value(&error("10")), None);
    }

    /// A rule fires once where the balance falls below its threshold, and remembers that it did.
    #[pg_test]
    fn top_ups_fire_once_a_crossing() {
        let look = |function: &str, state: &str, balance: &str| {
            format!("billing_internal.{function}('fixed', 20, 100, 150, {state}, {balance}, '2026-02-03')")
        };
        let row = |state: &str, balance: &str| {
            rows(&format!("SELECT * FROM {}", look("top_up_look", state, balance)))
        };
        assert_eq!(row("0, false, false, NULL, 0", "19.99"), ["1|true|false|2026-02-01|100|100|1"]);
        assert_eq!(row("1, true, false, '2026-02-01', 100", "10"), ["1|true|false|2026-02-01|100||"]);
        assert_eq!(row("1, true, false, '2026-02-01', 100", "20"), ["1|false|false|2026-02-01|100||"]);
        // The cap keeps the second crossing of the month from firing.
        assert_eq!(row("1, false, false, '2026-02-01', 100", "5"), ["2|true|true|2026-02-01|100||"]);
        assert!(row("-1, false, false, NULL, 0", "5").is_empty());
        let error = format!("SELECT {}", look("top_up_look_error", "-1, false, false, NULL, 0", "5"));
        assert_eq!(fault(&error), "ZB004 crossings are counted from 0");
    }
}
