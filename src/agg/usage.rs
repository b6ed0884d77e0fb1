//! `usage_count`, `usage_sum`, `usage_max`, `usage_unique_count`: the aggregations of meters over any rows.
//!
//! All four keep the [`State`] that meters keep, on Rust's heap, dropped with the aggregate's memory context.
//! Only what takes in new numbers can fail for reasons that people have to read, so only that raises ZB codes.

use crate::domain::foundation::Fault;
use crate::domain::foundation::hash::text_key;
use crate::domain::metering::{Aggregation, Contribution, State};
use crate::pg::Numeric;
use crate::pg::raising::raising_function;
use pgrx::fcinfo::{pg_arg_is_null, pg_getarg, pg_getarg_datum};
use pgrx::prelude::*;
use pgrx::{Internal, PgMemoryContexts};
use std::ptr;

type Call = pg_sys::FunctionCallInfo;
type Outcome = Result<Option<pg_sys::Datum>, Fault>;

const HINT: &str = "Usage numbers have at most 28 digits, 12 of them after the point; round() them first.";

/// Keeps a state as long as the aggregate needs it.
fn kept(call: Call, state: State) -> pg_sys::Datum {
    let mut context = ptr::null_mut();
    // SAFETY: `call` is the running call; Postgres sets the context if it is an aggregate's.
    if unsafe { pg_sys::AggCheckCallContext(call, &mut context) } == 0 {
        error!("only aggregates call this function");
    }
    pg_sys::Datum::from(PgMemoryContexts::For(context).leak_and_drop_on_delete(state))
}

/// The state in an argument of type internal.
///
/// # Safety
/// The datum was made by [`kept`] or `usage_state_deserial`, in a context that outlives `'a`.
unsafe fn state<'a>(datum: pg_sys::Datum) -> &'a mut State {
    // SAFETY: see above.
    unsafe { &mut *datum.cast_mut_ptr::<State>() }
}

/// Adds one row to the state in argument 0. A row that contributes nothing (a NULL) leaves it as it is.
fn add(call: Call, aggregation: Aggregation, contribution: Option<Contribution>) -> Outcome {
    // SAFETY: argument 0 is the state that the last call returned.
    let before = unsafe { pg_getarg_datum(call, 0) };
    let Some(contribution) = contribution else {
        return Ok(before);
    };
    let datum = before.unwrap_or_else(|| kept(call, State::new(aggregation)));
    // SAFETY: made by this function, in the aggregate's context.
    unsafe { state(datum) }.add(contribution).map_err(|fault| fault.with_hint(HINT))?;
    Ok(Some(datum))
}

/// `usage_count(*)` counts rows, `usage_count(value)` those whose value is not NULL.
fn count_add(call: Call) -> Outcome {
    // SAFETY: the second argument is looked at only where there is one.
    let counts = unsafe { (*call).nargs < 2 || !pg_arg_is_null(call, 1) };
    add(call, Aggregation::Count, counts.then_some(Contribution::One))
}

fn number_add(call: Call, aggregation: Aggregation) -> Outcome {
    // SAFETY: argument 1 is declared numeric.
    let value = unsafe { pg_getarg::<Numeric>(call, 1) }.map(|numeric| numeric.value).transpose();
    let value = value.map_err(|fault| fault.with_hint(HINT))?;
    add(call, aggregation, value.map(Contribution::Number))
}

fn sum_add(call: Call) -> Outcome {
    number_add(call, Aggregation::Sum)
}

fn max_add(call: Call) -> Outcome {
    number_add(call, Aggregation::Max)
}

fn unique_add(call: Call) -> Outcome {
    // SAFETY: argument 1 is declared text.
    let value = unsafe { pg_getarg::<&str>(call, 1) };
    add(call, Aggregation::UniqueCount, value.map(|text| Contribution::Key(text_key(text))))
}

/// Two partial states into one: the rows of both.
fn combine(call: Call) -> Outcome {
    // SAFETY: both arguments are states or NULL.
    let (one, two) = unsafe { (pg_getarg_datum(call, 0), pg_getarg_datum(call, 1)) };
    let Some(two) = two else {
        return Ok(one);
    };
    // SAFETY: made by a transition or by deserialization; cloned, since it may live shorter than the first.
    let two = unsafe { state(two) }.clone();
    let Some(one) = one else {
        return Ok(Some(kept(call, two)));
    };
    // SAFETY: the first argument is what this function returned before.
    unsafe { state(one) }.merge(two)?;
    Ok(Some(one))
}

raising_function!(usage_count_add_wrapper, pg_finfo_usage_count_add_wrapper, count_add);
raising_function!(usage_sum_add_wrapper, pg_finfo_usage_sum_add_wrapper, sum_add);
raising_function!(usage_max_add_wrapper, pg_finfo_usage_max_add_wrapper, max_add);
raising_function!(usage_unique_add_wrapper, pg_finfo_usage_unique_add_wrapper, unique_add);
raising_function!(usage_state_combine_wrapper, pg_finfo_usage_state_combine_wrapper, combine);

/// A state on its way between processes, in its stored form.
#[pg_extern(sql = false)]
fn usage_state_serial(state: Internal) -> Vec<u8> {
    // SAFETY: the argument is a state.
    unsafe { state.get::<State>() }.expect("strict").to_bytes()
}

/// The state of its stored form. The second argument only keeps the function from being called by SQL.
#[pg_extern(sql = false)]
fn usage_state_deserial(bytes: &[u8], _internal: Internal) -> Internal {
    Internal::new(State::from_bytes(bytes).unwrap_or_else(|fault| error!("{fault}")))
}

fn quantity(state: &State) -> Option<Numeric> {
    match (state.result(), state) {
        (Ok(value), _) => value.map(Numeric::from),
        (Err(fault), State::Sum(sum)) => Some(Numeric::wide(sum.to_string(), fault)),
        (Err(fault), _) => error!("{fault}"),
    }
}

/// The quantity of a state; of no rows, 0.
#[pg_extern(sql = false)]
fn usage_state_total(state: Internal) -> Option<Numeric> {
    // SAFETY: the argument is a state or NULL.
    match unsafe { state.get::<State>() } {
        Some(state) => quantity(state),
        None => Some(Numeric::from(crate::domain::foundation::Exact::ZERO)),
    }
}

/// The quantity of a state; of no rows, NULL.
#[pg_extern(sql = false)]
fn usage_state_quantity(state: Internal) -> Option<Numeric> {
    // SAFETY: the argument is a state or NULL.
    unsafe { state.get::<State>() }.and_then(quantity)
}
