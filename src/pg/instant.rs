//! `timestamptz` and `date` to and from the domain's instants and local dates.

use crate::domain::foundation::instant::Instant;
use chrono::{Datelike, NaiveDate};
use pgrx::datum::{Date, TimestampWithTimeZone};
use pgrx::{IntoDatum, direct_function_call, pg_sys};

/// Microseconds from 1970-01-01 to Postgres's epoch, 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800 * 1_000_000;
const DAY_MICROS: i64 = 86_400 * 1_000_000;
/// Days from the common era's day 1 to Postgres's epoch.
const EPOCH_DAYS: i32 = 730_120;

/// `None` for ±infinity: no event happens there.
pub fn from_timestamptz(at: TimestampWithTimeZone) -> Option<Instant> {
    let micros: i64 = at.into();
    if micros == i64::MAX || micros == i64::MIN {
        None
    } else {
        micros.checked_add(EPOCH_MICROS).map(Instant)
    }
}

/// `None` outside the range of timestamptz.
pub fn to_timestamptz(at: Instant) -> Option<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(at.0.checked_sub(EPOCH_MICROS)?).ok()
}

/// `None` for ±infinity and years that chrono does not have.
pub fn from_date(date: Date) -> Option<NaiveDate> {
    let days = date.to_pg_epoch_days();
    if days == i32::MAX || days == i32::MIN {
        return None;
    }
    NaiveDate::from_num_days_from_ce_opt(days.checked_add(EPOCH_DAYS)?)
}

/// The day on which an instant lies in a zone, by Postgres' time zone data; `None` for ±infinity.
pub fn local_day(at: TimestampWithTimeZone, zone: &str) -> Option<NaiveDate> {
    let at: i64 = from_timestamptz(at)?.0 - EPOCH_MICROS;
    // SAFETY: a function of (text, timestamptz), that raises where there is no such zone.
    let local: i64 =
        unsafe { direct_function_call(pg_sys::timestamptz_zone, &[zone.into_datum(), at.into_datum()]) }?;
    let days = i32::try_from(local.div_euclid(DAY_MICROS)).ok()?;
    NaiveDate::from_num_days_from_ce_opt(days.checked_add(EPOCH_DAYS)?)
}

/// The instant at which a day begins in a zone: of two midnights the standard-time one, of none the transition.
pub fn midnight(day: NaiveDate, zone: &str) -> Option<TimestampWithTimeZone> {
    let local = i64::from(day.num_days_from_ce() - EPOCH_DAYS) * DAY_MICROS;
    // SAFETY: as above, of (text, timestamp).
    let at: i64 =
        unsafe { direct_function_call(pg_sys::timestamp_zone, &[zone.into_datum(), local.into_datum()]) }?;
    TimestampWithTimeZone::try_from(at).ok()
}

pub fn to_date(date: NaiveDate) -> Date {
    // SAFETY: chrono's years lie inside those of a Postgres date.
    unsafe { Date::from_pg_epoch_days(date.num_days_from_ce() - EPOCH_DAYS) }
}
