//! Numbers and days as the page writes them.

use crate::domain::foundation::{Exact, Fault};
use chrono::{Datelike, NaiveDate};
use num_bigint::BigInt;
use num_traits::{Signed, ToPrimitive, Zero};

/// A decimal of any length, as an integer of 10^-12.
const PLACES: usize = 12;

pub fn exact(text: &str) -> Result<Exact, Fault> {
    Exact::parse(text)
}

/// A number as it stands in the summary, in 10^-12: sums of usage may have more digits than an amount.
pub fn fine(text: &str) -> Result<BigInt, Fault> {
    let bad = || {
        Fault::document(
            "",
            format!(
                "{} is no decimal of at most {PLACES} places",
                crate::domain::foundation::decimal::quoted(text)
            ),
        )
    };
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(part) || part.len() > PLACES || whole.len() > 100 {
        return Err(bad());
    }
    let value: BigInt = format!("{whole}{part:0<PLACES$}").parse().map_err(|_| bad())?;
    Ok(if negative { -value } else { value })
}

/// `part` of `whole` as an integer from 0 to `scale`: a length, so it may be rounded.
pub fn share(part: &BigInt, whole: &BigInt, scale: i64) -> i64 {
    if !whole.is_positive() || part.is_negative() {
        return 0;
    }
    (part * scale / whole).to_i64().unwrap_or(scale).min(scale)
}

/// `-1234567.50` as `−1,234,567.50`.
pub fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |rest| ("−", rest));
    let (whole, part) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    let mut out = String::from(sign);
    let length = whole.chars().count();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (length - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(part) = part {
        out.push('.');
        out.push_str(part);
    }
    out
}

/// Whether a unit is a currency, as its code looks.
pub fn is_money(unit: &str) -> bool {
    unit.len() == 3 && unit.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// `USD 12.00`, `12 credits`, with a space that does not break.
pub fn amount(number: &str, unit: &str) -> String {
    let number = grouped(number);
    if is_money(unit) { format!("{unit}\u{a0}{number}") } else { format!("{number}\u{a0}{unit}") }
}

/// A number of 10^-12 at so many places, half away from 0: for days and labels of axes, never for what is owed.
pub fn shown(value: &BigInt, places: usize) -> String {
    let unit = BigInt::from(10).pow((PLACES - places.min(PLACES)) as u32);
    let half = &unit / 2;
    let rounded: BigInt = (value.abs() + half) / &unit;
    let digits = format!("{:0>width$}", rounded.to_string(), width = places + 1);
    let (whole, part) = digits.split_at(digits.len() - places);
    let sign = if value.is_negative() && !rounded.is_zero() { "-" } else { "" };
    grouped(&if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") })
}

/// How many decimals a text has.
pub fn places(number: &str) -> usize {
    number.split_once('.').map_or(0, |(_, part)| part.len())
}

pub fn day(text: &str) -> Result<NaiveDate, Fault> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| Fault::document("", "a day is no date"))
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `14 Mar 2026`.
pub fn date(day: NaiveDate) -> String {
    format!("{}\u{a0}{}\u{a0}{}", day.day(), MONTHS[day.month0() as usize], day.year())
}

/// `14 Mar`.
pub fn short_date(day: NaiveDate) -> String {
    format!("{}\u{a0}{}", day.day(), MONTHS[day.month0() as usize])
}

/// `Mar 2026`.
pub fn month(day: NaiveDate) -> String {
    format!("{}\u{a0}{}", MONTHS[day.month0() as usize], day.year())
}

/// From the first day to the last one, of `[from, until)`: `1–31 Mar 2026`, `15 Mar – 14 Apr 2026`.
pub fn span(from: NaiveDate, until: NaiveDate) -> String {
    let last = until.pred_opt().unwrap_or(until).max(from);
    if from == last {
        date(from)
    } else if (from.year(), from.month()) == (last.year(), last.month()) {
        format!("{}–{}", from.day(), date(last))
    } else if from.year() == last.year() {
        format!("{} – {}", short_date(from), date(last))
    } else {
        format!("{} – {}", date(from), date(last))
    }
}
