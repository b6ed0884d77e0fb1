//! From the summary to what the template prints: every number and day written out, every chart laid out.

use super::chart::{self, Rect};
use super::figures::{
    amount, date, day, exact, fine, grouped, is_money, month, places, share, short_date, shown, span,
};
use super::summary::{Commitment, Contract, Credit, Entitlement, Invoice, NextInvoice, Part, Spend, Summary};
use crate::domain::foundation::{Exact, Fault};
use chrono::{Datelike, Days, NaiveDate};
use num_bigint::BigInt;
use num_traits::{Signed, Zero};
use serde::Serialize;
use std::collections::BTreeMap;

/// Series with a colour of their own; what is less is "Other".
const SERIES_MAX: usize = 5;
/// A longer period is drawn by month.
const DAYS_MAX: i64 = 62;
/// No calendar makes a longer period.
const PERIOD_DAYS_MAX: i64 = 4000;

#[derive(Serialize)]
pub struct Page {
    name: String,
    seller: String,
    plan: Option<String>,
    period: String,
    progress: String,
    as_of: String,
    zone: String,
    problem: bool,
    cards: Vec<Card>,
    columns: usize,
    spend: Vec<SpendView>,
    several_currencies: bool,
    commitments: Vec<CommitmentView>,
    credits: Vec<CreditView>,
    quotas: Vec<QuotaView>,
    usage: Vec<UsageView>,
    next: Vec<NextView>,
    contracts: Vec<ContractView>,
    invoices: Vec<InvoiceView>,
}

#[derive(Serialize)]
struct Card {
    title: String,
    figure: Figure,
    /// What the figure is made of.
    note: String,
    /// good, warn, bad or nothing.
    tone: &'static str,
}

/// A number with its unit apart, so that the unit may be small.
#[derive(Serialize)]
struct Figure {
    number: String,
    unit: String,
    unit_first: bool,
}

fn figure(number: &str, unit: &str) -> Figure {
    Figure { number: grouped(number), unit: unit.to_string(), unit_first: is_money(unit) }
}

#[derive(Serialize)]
struct SpendView {
    currency: String,
    total: String,
    dimension: String,
    by: &'static str,
    parts: Vec<PartView>,
    bars: Vec<Bar>,
    top: String,
    half: String,
    ticks: Vec<TickView>,
    today: Option<String>,
    columns: Vec<String>,
    rows: Vec<Row>,
    burn: Option<BurnView>,
}

#[derive(Serialize)]
struct PartView {
    name: String,
    amount: String,
    percent: i64,
    /// Of the bar, in thousandths of the largest.
    width: String,
    series: usize,
}

#[derive(Serialize)]
struct Bar {
    title: String,
    x: i64,
    width: i64,
    rects: Vec<Rect>,
}

#[derive(Serialize)]
struct TickView {
    at: String,
    label: String,
    /// Left out on a phone.
    minor: bool,
}

#[derive(Serialize)]
struct Row {
    label: String,
    total: String,
    cells: Vec<String>,
}

#[derive(Serialize)]
struct BurnView {
    per_day: String,
    so_far: String,
    line: String,
    area: String,
    forecast: Option<String>,
    forecast_line: Option<String>,
    formula: Option<String>,
    top: String,
    half: String,
    from: String,
    until: String,
}

#[derive(Serialize)]
struct CommitmentView {
    title: String,
    kind: &'static str,
    of: String,
    span: String,
    consumed: Option<String>,
    remaining: Option<String>,
    percent: Option<String>,
    width: String,
    time: Option<String>,
    time_at: String,
    projected: Option<String>,
    tone: &'static str,
    verdict: Option<String>,
}

#[derive(Serialize)]
struct CreditView {
    unit: String,
    available: String,
    note: String,
    blocks: Vec<BlockView>,
}

#[derive(Serialize)]
struct BlockView {
    name: String,
    category: String,
    standing: String,
    live: bool,
    granted: String,
    used: String,
    left: String,
    expires: String,
    width: String,
}

#[derive(Serialize)]
struct QuotaView {
    name: String,
    state: String,
    note: Option<String>,
    width: Option<String>,
    tone: &'static str,
}

#[derive(Serialize)]
struct UsageView {
    meter: String,
    quantity: Figure,
    events: String,
}

#[derive(Serialize)]
struct NextView {
    contract: String,
    on: String,
    lines: Vec<(String, String, String)>,
    total: String,
    credits: Option<String>,
    due: String,
}

#[derive(Serialize)]
struct ContractView {
    contract: String,
    plan: String,
    state: String,
    term: String,
    billing: String,
    renewal: String,
}

#[derive(Serialize)]
struct InvoiceView {
    number: String,
    kind: &'static str,
    bill_to: String,
    issued: String,
    due_on: String,
    total: String,
    credits: Option<String>,
    due: String,
    state: String,
    tone: &'static str,
}

pub fn page(s: &Summary) -> Result<Page, Fault> {
    let (from, until) = (day(&s.period.starts_on)?, day(&s.period.ends_on)?);
    if until <= from || (until - from).num_days() > PERIOD_DAYS_MAX {
        return Err(Fault::document("period", "is empty or too long"));
    }
    let today = day(&s.today)?;
    let live: Vec<&Contract> =
        s.contracts.iter().filter(|c| !matches!(c.state.as_str(), "ended" | "cancelled")).collect();
    let progress = if s.period.over {
        "closed, its invoice is being made".to_string()
    } else if today < from {
        format!("begins {}", date(from))
    } else {
        format!("day {} of {}", grouped(&s.period.day), grouped(&s.period.days))
    };
    let cards = cards(s, &live)?;
    let spend = s.spend.as_deref().unwrap_or_default();
    let shown_spend: Vec<SpendView> =
        spend.iter().map(|one| spend_view(one, from, until, today)).collect::<Result<_, _>>()?;
    Ok(Page {
        name: s.name.clone(),
        seller: s.seller.clone(),
        plan: live.first().and_then(|c| c.plan.clone()),
        period: span(from, until),
        progress,
        as_of: local_time(&s.as_of_local)?,
        zone: s.time_zone.clone(),
        problem: s.problem,
        columns: match cards.len() {
            few @ 0..=5 => few,
            6 => 3,
            _ => 4,
        },
        cards,
        several_currencies: spend.len() > 1,
        spend: shown_spend,
        commitments: each(s.commitments.as_deref().unwrap_or_default(), commitment_view)?,
        credits: each(s.credits.as_deref().unwrap_or_default(), credit_view)?,
        quotas: each(&s.entitlements, quota_view)?,
        usage: s
            .usage
            .iter()
            .map(|usage| UsageView {
                meter: usage.meter.clone(),
                quantity: figure(usage.quantity.as_deref().unwrap_or("0"), &usage.unit),
                events: usage.events.as_deref().map_or(String::new(), grouped),
            })
            .collect(),
        next: live
            .iter()
            .filter_map(|c| c.next_invoice.as_ref().map(|next| next_view(c, next)))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect(),
        contracts: each(&s.contracts, contract_view)?,
        invoices: each(&s.invoices, invoice_view)?,
    })
}

fn each<T, V>(of: &[T], view: impl Fn(&T) -> Result<V, Fault>) -> Result<Vec<V>, Fault> {
    of.iter().map(view).collect()
}

/// `2026-03-14 09:30` as `14 Mar 2026, 09:30`.
fn local_time(text: &str) -> Result<String, Fault> {
    let (day_text, time) = text.split_once(' ').unwrap_or((text, ""));
    Ok(format!("{}, {time}", date(day(day_text)?)))
}

/// Thousandths as per cent of CSS.
fn percent(thousandths: i64) -> String {
    format!("{}.{}", thousandths / 10, thousandths % 10)
}

fn capital(word: &str) -> String {
    let word = word.replace(['_', '-'], " ");
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn is_zero(number: &str) -> bool {
    exact(number).is_ok_and(Exact::is_zero)
}

// ── the figures on top ───────────────────────────────────────────────────────────────────────────

fn cards(s: &Summary, live: &[&Contract]) -> Result<Vec<Card>, Fault> {
    let mut cards = Vec::new();
    let card =
        |title: &str, figure: Figure, note: String, tone| Card { title: title.into(), figure, note, tone };
    for spend in s.spend.as_deref().unwrap_or_default() {
        let money = |number: &str| amount(number, &spend.currency);
        let mut note = format!("usage {} + fees {}", grouped(&spend.usage), grouped(&spend.fees));
        if !is_zero(&spend.other) {
            note.push_str(&format!("; apart from {} for commitments", grouped(&spend.other)));
        }
        cards.push(card("Spend this period", figure(&spend.amount, &spend.currency), note, ""));
        if let (Some(forecast), Some(burn)) = (&spend.forecast, &spend.burn) {
            let note = format!("at {} of usage a day", money(&burn.per_day));
            cards.push(card("Forecast for the period", figure(&forecast.amount, &spend.currency), note, ""));
        }
    }
    if s.spend.as_ref().is_some_and(Vec::is_empty) {
        cards.push(card("Spend this period", figure("0", &s.currency), "nothing so far".into(), ""));
    }
    let next = live.iter().filter_map(|c| c.next_invoice.as_ref().map(|next| (c, next)));
    let mut by_day: Vec<_> =
        next.filter_map(|(c, n)| n.due.as_ref().map(|due| (n.on.clone(), c, n, due))).collect();
    by_day.sort_by_key(|(on, c, ..)| (on.clone(), c.contract.clone()));
    for (on, contract, next, due) in by_day.into_iter().take(if live.len() > 2 { 1 } else { 2 }) {
        let mut note = on.as_deref().map_or(Ok("so far".to_string()), |on| {
            day(on).map(|on| format!("so far, issued on {}", date(on)))
        })?;
        if live.len() > 1 {
            note = format!("{}, {note}", contract.contract);
        }
        cards.push(card("Next invoice", figure(due, &next.currency), note, ""));
    }
    for credit in s.credits.as_deref().unwrap_or_default().iter().take(2) {
        let note = if is_zero(&credit.pending) {
            "all usage is counted".to_string()
        } else {
            format!("after {} for usage not billed yet", amount(&credit.pending, &credit.unit))
        };
        let empty = exact(&credit.available).is_ok_and(|left| left.is_zero() || left.is_negative());
        cards.push(card(
            "Credit available",
            figure(&credit.available, &credit.unit),
            note,
            if empty { "warn" } else { "" },
        ));
    }
    for balance in &s.balances {
        let overdue = !is_zero(&balance.overdue);
        let count = format!(
            "{} open document{}",
            grouped(&balance.invoices),
            if balance.invoices == "1" { "" } else { "s" }
        );
        let note = if overdue {
            format!("{count}, {} overdue", amount(&balance.overdue, &balance.currency))
        } else {
            format!("{count}, none overdue")
        };
        cards.push(card(
            "To pay",
            figure(&balance.open, &balance.currency),
            note,
            if overdue { "bad" } else { "" },
        ));
    }
    if s.balances.is_empty() {
        cards.push(card("To pay", figure("0", &s.currency), "no open invoice".into(), "good"));
    }
    Ok(cards)
}

// ── spend ────────────────────────────────────────────────────────────────────────────────────────

/// The first day of a bar, and what it is called, in short and whole.
type Bucket = (NaiveDate, String, String);

fn buckets(from: NaiveDate, until: NaiveDate) -> Vec<Bucket> {
    if (until - from).num_days() <= DAYS_MAX {
        return from
            .iter_days()
            .take_while(|at| *at < until)
            .map(|at| (at, short_date(at), date(at)))
            .collect();
    }
    let mut all = Vec::new();
    let mut at = from;
    while at < until {
        all.push((at, month(at), month(at)));
        let (year, next) = if at.month() == 12 { (at.year() + 1, 1) } else { (at.year(), at.month() + 1) };
        let Some(first) = NaiveDate::from_ymd_opt(year, next, 1) else { break };
        at = first;
    }
    all
}

fn spend_view(s: &Spend, from: NaiveDate, until: NaiveDate, today: NaiveDate) -> Result<SpendView, Fault> {
    let buckets = buckets(from, until);
    let (stacks, daily) = stacks(s, (from, until), &buckets)?;
    let positive = |stack: &Vec<BigInt>| stack.iter().filter(|own| own.is_positive()).sum::<BigInt>();
    let top = chart::ceiling(&stacks.iter().map(positive).max().unwrap_or_default());
    let money_places = places(&s.amount);
    let parts = s.by_part.as_deref().unwrap_or_default();
    let columns: Vec<String> = parts
        .iter()
        .take(SERIES_MAX)
        .map(|p| p.part.clone())
        .chain((parts.len() > SERIES_MAX).then(|| "Other".to_string()))
        .collect();
    let (top_label, half_label) = scale(&top, money_places);
    let by_month = (until - from).num_days() > DAYS_MAX;
    let today_at = (today >= from && today < until && !by_month)
        .then(|| percent(chart::along(2 * (today - from).num_days() as usize + 1, 2 * buckets.len())));
    Ok(SpendView {
        currency: s.currency.clone(),
        total: amount(&s.amount, &s.currency),
        dimension: s.dimension.as_deref().map_or("charge".into(), |d| d.replace('_', " ")),
        by: if by_month { "month" } else { "day" },
        parts: part_views(s)?,
        bars: bars(s, &buckets, &stacks, &top, &columns),
        top: top_label,
        half: half_label,
        ticks: ticks(&buckets),
        today: today_at,
        rows: spend_rows(&buckets, &stacks, money_places),
        columns,
        burn: burn_view(s, from, until, today, &daily)?,
    })
}

fn part_views(s: &Spend) -> Result<Vec<PartView>, Fault> {
    let parts = s.by_part.as_deref().unwrap_or_default();
    let amounts = parts.iter().map(|part| fine(&part.amount)).collect::<Result<Vec<_>, _>>()?;
    let largest = amounts.iter().max().cloned().unwrap_or_default();
    let total = fine(&s.amount)?;
    let view = |(n, (part, own)): (usize, (&Part, &BigInt))| PartView {
        name: part.part.clone(),
        amount: grouped(&part.amount),
        percent: (share(own, &total, 200) + 1) / 2,
        width: percent(share(own, &largest, 1000)),
        series: n.min(SERIES_MAX),
    };
    Ok(parts.iter().zip(&amounts).enumerate().map(view).collect())
}

/// What each bar is made of, by series, and what was spent by day.
type Stacks = (Vec<Vec<BigInt>>, BTreeMap<NaiveDate, BigInt>);

fn stacks(s: &Spend, (from, until): (NaiveDate, NaiveDate), buckets: &[Bucket]) -> Result<Stacks, Fault> {
    let parts = s.by_part.as_deref().unwrap_or_default();
    // Each part has its colour; a fee and a value of the dimension may have one name.
    let place: BTreeMap<(bool, &str), usize> =
        parts.iter().enumerate().map(|(n, p)| ((p.dimension, p.part.as_str()), n.min(SERIES_MAX))).collect();
    let mut stacks = vec![vec![BigInt::zero(); parts.len().min(SERIES_MAX + 1)]; buckets.len()];
    let mut daily: BTreeMap<NaiveDate, BigInt> = BTreeMap::new();
    for entry in s.by_day.as_deref().unwrap_or_default() {
        let at = day(&entry.day)?;
        if at < from || at >= until {
            continue;
        }
        let own = fine(&entry.amount)?;
        let bucket = buckets.partition_point(|(first, ..)| *first <= at) - 1;
        let Some(series) = place.get(&(entry.dimension, entry.part.as_str())) else {
            return Err(Fault::document("spend", "by_day has a part that by_part has not"));
        };
        stacks[bucket][*series] += &own;
        *daily.entry(at).or_default() += own;
    }
    Ok((stacks, daily))
}

fn bars(s: &Spend, buckets: &[Bucket], stacks: &[Vec<BigInt>], top: &BigInt, names: &[String]) -> Vec<Bar> {
    let money_places = places(&s.amount);
    let mut rects = chart::stacks(stacks, top);
    let count = buckets.len() as i64;
    let mut bars = Vec::new();
    for (n, ((_, _, long), stack)) in buckets.iter().zip(stacks).enumerate() {
        let (left, next) = (chart::SIDE * n as i64 / count, chart::SIDE * (n as i64 + 1) / count);
        let (own, rest): (Vec<Rect>, Vec<Rect>) =
            rects.into_iter().partition(|rect| rect.x >= left && rect.x < next);
        rects = rest;
        let detail = names.iter().zip(stack).filter(|(_, own)| !own.is_zero());
        let detail: Vec<String> =
            detail.map(|(name, own)| format!("{name} {}", shown(own, money_places))).collect();
        let title = if detail.is_empty() {
            format!("{long}: nothing")
        } else {
            let sum = shown(&stack.iter().sum(), money_places);
            format!("{long}: {}\u{a0}{sum} ({})", s.currency, detail.join(", "))
        };
        bars.push(Bar { title, x: left, width: next - left, rects: own });
    }
    bars
}

/// The bars as a table, without those of nothing.
fn spend_rows(buckets: &[Bucket], stacks: &[Vec<BigInt>], money_places: usize) -> Vec<Row> {
    let some = |(_, stack): &(&Bucket, &Vec<BigInt>)| stack.iter().any(|own| !own.is_zero());
    let row = |((_, _, long), stack): (&Bucket, &Vec<BigInt>)| Row {
        label: long.clone(),
        total: shown(&stack.iter().sum(), money_places),
        cells: stack.iter().map(|own| shown(own, money_places)).collect(),
    };
    buckets.iter().zip(stacks).filter(some).map(row).collect()
}

/// The labels of a scale's end and middle.
fn scale(top: &BigInt, money_places: usize) -> (String, String) {
    let small = *top < BigInt::from(10_000_000_000_000i64); // ten
    let (places, half) = (if small { money_places.max(2) } else { 0 }, top / 2);
    let half_places =
        if small || &half % BigInt::from(1_000_000_000_000i64) == BigInt::zero() { places } else { 1 };
    (shown(top, places), shown(&half, half_places))
}

/// At most seven labels, in the middle of their bars.
fn ticks(buckets: &[Bucket]) -> Vec<TickView> {
    let step = buckets.len().div_ceil(7).max(1);
    buckets
        .iter()
        .enumerate()
        .step_by(step)
        .map(|(n, (_, short, _))| TickView {
            at: percent(chart::along(2 * n + 1, 2 * buckets.len())),
            label: short.clone(),
            minor: !(n / step).is_multiple_of(2),
        })
        .collect()
}

fn burn_view(
    s: &Spend,
    from: NaiveDate,
    until: NaiveDate,
    today: NaiveDate,
    daily: &BTreeMap<NaiveDate, BigInt>,
) -> Result<Option<BurnView>, Fault> {
    let Some(burn) = &s.burn else { return Ok(None) };
    if today < from {
        return Ok(None);
    }
    let steps = (until - from).num_days() as usize;
    let last = today.min(until.pred_opt().unwrap_or(until));
    let mut sum = BigInt::zero();
    let mut sums = Vec::with_capacity(steps);
    let mut at = from;
    while at <= last {
        sum += daily.get(&at).cloned().unwrap_or_default();
        sums.push(sum.clone());
        let Some(next) = at.checked_add_days(Days::new(1)) else { break };
        at = next;
    }
    let forecast = s.forecast.as_ref().map(|f| fine(&f.amount)).transpose()?;
    let most = sums.iter().chain(&forecast).max().cloned().unwrap_or_default();
    let top = chart::ceiling(&most);
    let line = chart::line(&sums, steps, &top);
    let now = chart::along(sums.len(), steps);
    let (top_label, half_label) = scale(&top, places(&s.amount));
    let height = |value: &BigInt| chart::SIDE - share(value, &top, chart::SIDE);
    Ok(Some(BurnView {
        per_day: amount(&burn.per_day, &s.currency),
        so_far: amount(&s.amount, &s.currency),
        area: format!("{line} {now},{}", chart::SIDE),
        line,
        forecast: s.forecast.as_ref().map(|f| amount(&f.amount, &s.currency)),
        forecast_line: forecast
            .filter(|_| now < chart::SIDE)
            .map(|end| format!("{now},{} {},{}", height(&sum), chart::SIDE, height(&end))),
        formula: s.forecast.as_ref().map(|f| {
            format!(
                "{} so far + {} of usage a day (average of the last {} complete days) × {} days left",
                amount(&s.amount, &s.currency),
                amount(&burn.per_day, &s.currency),
                burn.days,
                f.days_left
            )
        }),
        top: top_label,
        half: half_label,
        from: short_date(from),
        until: short_date(until.pred_opt().unwrap_or(until)),
    }))
}

// ── what was agreed, bought and issued ───────────────────────────────────────────────────────────

fn commitment_view(c: &Commitment) -> Result<CommitmentView, Fault> {
    let (from, until) = (day(&c.starts_on)?, c.ends_on.as_deref().map(day).transpose()?);
    let (promised, consumed) = (fine(&c.amount)?, c.consumed.as_deref().map(fine).transpose()?);
    let time: i64 = c.time_percent.as_deref().unwrap_or("0").parse().unwrap_or(0);
    let projected = c.projected.as_deref().map(fine).transpose()?;
    let places = places(&c.amount);
    let unit = |value: &BigInt| match is_money(&c.unit) {
        true => format!("{}\u{a0}{}", c.unit, shown(value, places)),
        false => format!("{}\u{a0}{}", shown(value, places), c.unit),
    };
    let prepaid = c.kind == "prepaid";
    let (tone, verdict) = match (&consumed, &projected) {
        (Some(own), _) if *own >= promised => ("good", Some("reached".to_string())),
        (_, Some(end)) if *end >= promised => ("good", Some("on the way to all of it".to_string())),
        (_, Some(end)) if prepaid => ("warn", Some(format!("{} would be left", unit(&(&promised - end))))),
        (_, Some(end)) => {
            ("warn", Some(format!("{} would be missing, and billed at its end", unit(&(&promised - end)))))
        }
        _ => ("", None),
    };
    Ok(CommitmentView {
        title: capital(&c.key),
        kind: match (prepaid, is_money(&c.unit)) {
            (true, _) => "prepaid",
            (false, true) => "minimum spend",
            (false, false) => "minimum usage",
        },
        of: amount(&c.amount, &c.unit),
        span: until.map_or(format!("from {}", date(from)), |until| span(from, until)),
        width: percent(consumed.as_ref().map_or(0, |own| share(own, &promised, 1000))),
        consumed: c.consumed.as_deref().map(|own| amount(own, &c.unit)),
        remaining: c.remaining.as_deref().map(|left| amount(left, &c.unit)),
        percent: c.percent.as_deref().map(grouped),
        time: c.time_percent.clone(),
        time_at: time.clamp(0, 100).to_string(),
        projected: c.projected.as_deref().map(|end| amount(end, &c.unit)),
        tone,
        verdict,
    })
}

fn credit_view(c: &Credit) -> Result<CreditView, Fault> {
    let mut note = format!("{} held", amount(&c.posted, &c.unit));
    if !is_zero(&c.pending) {
        note.push_str(&format!(", {} of it for usage not billed yet", amount(&c.pending, &c.unit)));
    }
    if !is_zero(&c.upcoming) {
        note.push_str(&format!("; {} to come", amount(&c.upcoming, &c.unit)));
    }
    let block = |b: &super::summary::Block| {
        let live = b.standing == "live";
        Ok(BlockView {
            name: b.block.clone(),
            category: b.category.clone(),
            standing: if live { String::new() } else { b.standing.replace('_', " ") },
            live,
            granted: amount(&b.granted, &c.unit),
            used: amount(&b.used, &c.unit),
            left: amount(&b.left, &c.unit),
            expires: match &b.expires_on {
                _ if b.standing == "upcoming" => format!("from {}", date(day(&b.effective_on)?)),
                None => "never".into(),
                Some(on) => date(day(on)?),
            },
            width: percent(share(&fine(&b.left)?, &fine(&b.granted)?, 1000)),
        })
    };
    Ok(CreditView {
        unit: c.unit.clone(),
        available: amount(&c.available, &c.unit),
        note,
        blocks: each(&c.blocks, block)?,
    })
}

fn quota_view(e: &Entitlement) -> Result<QuotaView, Fault> {
    let unit = e.unit.as_deref().unwrap_or("");
    let with_unit = |number: &str| if unit.is_empty() { grouped(number) } else { amount(number, unit) };
    let resets =
        e.resets_on.as_deref().map(|on| day(on).map(|on| format!("resets {}", date(on)))).transpose()?;
    if e.reason.as_deref() == Some("suspended") {
        return Ok(QuotaView {
            name: e.name.clone(),
            state: "suspended".into(),
            note: None,
            width: None,
            tone: "warn",
        });
    }
    let (Some(used), Some(quota)) = (&e.used, &e.quota) else {
        let (state, tone) = match (e.kind.as_str(), e.value.as_deref(), &e.used) {
            ("credit", ..) if e.allowed == Some(false) => ("no credit left".into(), "bad"),
            ("credit", ..) => (
                e.remaining
                    .as_deref()
                    .map_or("while credit remains".into(), |left| format!("{} left", with_unit(left))),
                "",
            ),
            (_, _, Some(used)) => (format!("{} used, unlimited", with_unit(used)), ""),
            (_, Some("false"), None) => ("not included".into(), ""),
            // A text is for people; a limit of a rate is not.
            ("static", Some(value), None) => (value.to_string(), ""),
            _ => ("included".into(), ""),
        };
        return Ok(QuotaView { name: e.name.clone(), state, note: resets, width: None, tone });
    };
    let (own, all) = (fine(used)?, fine(quota)?);
    let tone = match &own {
        own if *own >= all => "bad",
        own if own * 10 >= &all * 8 => "warn",
        _ => "",
    };
    let left = e.remaining.as_deref().map(|left| format!("{} left", with_unit(left)));
    let beyond = match e.mode.as_deref() {
        Some("soft") => Some("more is allowed".to_string()),
        Some("overage") => Some("more is billed".to_string()),
        _ => None,
    };
    let note: Vec<String> = [left, resets, beyond].into_iter().flatten().collect();
    Ok(QuotaView {
        name: e.name.clone(),
        state: format!("{} of {}", grouped(used), with_unit(quota)),
        note: (!note.is_empty()).then(|| note.join(" · ")),
        width: Some(percent(share(&own, &all, 1000))),
        tone,
    })
}

fn next_view(c: &Contract, next: &NextInvoice) -> Result<Option<NextView>, Fault> {
    let (Some(total), Some(due)) = (&next.total, &next.due) else { return Ok(None) };
    let lines = next.lines.as_deref().unwrap_or_default().iter().map(|line| {
        let quantity = line.quantity.as_deref().map_or(String::new(), |quantity| match &line.unit {
            Some(unit) => amount(quantity, unit),
            None if quantity == "1" => String::new(),
            None => grouped(quantity),
        });
        (line.label.clone(), quantity, grouped(&line.amount))
    });
    Ok(Some(NextView {
        contract: c.contract.clone(),
        on: next.on.as_deref().map_or(Ok(String::new()), |on| day(on).map(date))?,
        lines: lines.collect(),
        total: amount(total, &next.currency),
        credits: next
            .credits
            .as_ref()
            .filter(|credits| !is_zero(credits))
            .map(|credits| amount(credits, &next.currency)),
        due: amount(due, &next.currency),
    }))
}

fn contract_view(c: &Contract) -> Result<ContractView, Fault> {
    let from = day(&c.starts_on)?;
    let until = c.ends_on.as_deref().map(day).transpose()?;
    let renewal = match (&c.ends_on, c.renews, &c.notice_deadline) {
        (None, ..) => "no end agreed".to_string(),
        (_, true, Some(notice)) => format!("renews, unless notice is given by {}", date(day(notice)?)),
        (_, true, None) => "renews".into(),
        (_, false, _) => "ends then".into(),
    };
    Ok(ContractView {
        contract: c.contract.clone(),
        plan: c.plan.clone().unwrap_or_default(),
        state: capital(&c.state),
        term: until.map_or(format!("since {}", date(from)), |until| span(from, until)),
        billing: format!(
            "every {} in {}, net {} days",
            c.billed_every.trim_start_matches("1 "),
            c.currency,
            c.net_days
        ),
        renewal,
    })
}

fn invoice_view(i: &Invoice) -> Result<InvoiceView, Fault> {
    let state = if i.overdue { "Overdue".to_string() } else { capital(&i.state) };
    Ok(InvoiceView {
        number: i.invoice.clone(),
        kind: match i.kind.as_str() {
            "credit_note" => "Credit note",
            "correction" => "Correction",
            "credit_sale" => "Credit sale",
            _ => "Invoice",
        },
        bill_to: i.bill_to.clone(),
        issued: date(day(&i.issued_on)?),
        due_on: date(day(&i.due_on)?),
        total: amount(&i.total, &i.currency),
        credits: (!is_zero(&i.credits)).then(|| amount(&i.credits, &i.currency)),
        due: amount(&i.due, &i.currency),
        tone: match (i.overdue, i.state.as_str()) {
            (true, _) => "bad",
            (_, "paid") => "good",
            (_, "open") => "warn",
            _ => "",
        },
        state,
    })
}
