//! Shared memory, when the server preloads the library (`shared_preload_libraries = 'pg_billing'`): what rate limits have not
//! drained. Without it everything works, from tables.
//!
//! The memory is asked for in the postmaster and inherited by every backend. It is a header and 64 parts of the table, each behind
//! a lock of its own that is held for the few instructions of one look-up: nothing is allocated, raised or waited for under it.
//! All of it is gone at a restart or crash, which gives each customer one burst at most.

use crate::domain::entitlements::gcra::{Limit, Outcome};
use crate::domain::entitlements::rate_table::{self, Key, Slot};
use crate::domain::foundation::{Exact, Fault};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::prelude::*;
use std::ffi::CStr;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

const NAME: &CStr = c"pg_billing";
const PARTS: usize = 64;

/// 65,536 pairs of customer and feature that sent something lately: 4 MB.
static SLOTS: GucSetting<i32> = GucSetting::<i32>::new(65_536);
static SHARED: AtomicPtr<Header> = AtomicPtr::new(std::ptr::null_mut());

type Hook = Option<unsafe extern "C-unwind" fn()>;
static mut REQUEST_BEFORE: Hook = None;
static mut STARTUP_BEFORE: Hook = None;

/// Followed by the slots, PARTS × part_size of them.
#[repr(C, align(128))]
struct Header {
    locks: *mut pg_sys::LWLockPadded,
    part_size: usize,
    /// How often there was no room.
    full: AtomicI64,
}

/// How much of the table is in use.
pub struct Use {
    pub used: i64,
    pub size: i64,
    pub full: i64,
}

/// Asks for the memory, if this is the postmaster reading its configuration. To be called before the prefix of settings is reserved.
pub fn init() {
    // SAFETY: reads flags that are set before a library is loaded.
    if unsafe { !pg_sys::process_shared_preload_libraries_in_progress || pg_sys::IsBinaryUpgrade } {
        return;
    }
    GucRegistry::define_int_guc(
        c"billing.rate_limit_slots",
        c"Pairs of customer and rate-limited feature that shared memory has room for.",
        c"64 bytes each. A pair needs its slot until what it sent has drained; those that find none are kept in a table.",
        &SLOTS,
        64,
        16_777_216,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    // SAFETY: the postmaster has one thread; the hooks before ours are kept and called.
    unsafe {
        STARTUP_BEFORE = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
        REQUEST_BEFORE = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
    }
}

fn part_size() -> usize {
    usize::try_from(SLOTS.get()).unwrap_or(0).div_ceil(PARTS)
}

fn bytes() -> usize {
    size_of::<Header>() + PARTS * part_size() * size_of::<Slot>()
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster when memory may be asked for.
    unsafe {
        if let Some(before) = REQUEST_BEFORE {
            pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| before());
        }
        pg_sys::RequestAddinShmemSpace(bytes());
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), PARTS as i32);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: called by the postmaster, alone, when there is memory, and again after a crash; backends inherit what it sets.
    // ShmemInitStruct gives memory of that size, aligned to a cache line of 128 bytes.
    unsafe {
        if let Some(before) = STARTUP_BEFORE {
            pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| before());
        }
        let mut found = false;
        let header = pg_sys::ShmemInitStruct(NAME.as_ptr(), bytes(), &mut found).cast::<Header>();
        if !found {
            let locks = pg_sys::GetNamedLWLockTranche(NAME.as_ptr());
            header.write(Header { locks, part_size: part_size(), full: AtomicI64::new(0) });
            let slots = header.add(1).cast::<Slot>();
            for n in 0..PARTS * part_size() {
                slots.add(n).write(Slot::EMPTY);
            }
        }
        SHARED.store(header, Ordering::Release);
    }
}

fn header() -> Option<&'static Header> {
    // SAFETY: null, or what startup() wrote; it lives as long as the process, and only its atomic changes.
    unsafe { SHARED.load(Ordering::Acquire).as_ref() }
}

/// Runs `work` on one part of the table, under its lock. It must not raise an error of Postgres.
fn with_part<T>(
    header: &Header,
    part: usize,
    mode: pg_sys::LWLockMode::Type,
    work: impl FnOnce(&mut [Slot]) -> T,
) -> T {
    // SAFETY: part < PARTS. The lock lets nobody else into these slots; a shared one only readers (rates_use()), which change
    // nothing. An error or panic between releases it, as it does all locks of the transaction.
    unsafe {
        let lock = &raw mut (*header.locks.add(part)).lock;
        let first = std::ptr::from_ref(header).add(1).cast::<Slot>().cast_mut().add(part * header.part_size);
        pg_sys::LWLockAcquire(lock, mode);
        let result = work(std::slice::from_raw_parts_mut(first, header.part_size));
        pg_sys::LWLockRelease(lock);
        result
    }
}

/// As [`rate_table::take`] in shared memory; none where the library is not preloaded or there is no room.
pub fn rate_take(
    customer: i64,
    feature: i32,
    limit: &Limit,
    now: i64,
    cost: Exact,
    dry: bool,
) -> Result<Option<Outcome>, Fault> {
    let Some(header) = header() else { return Ok(None) };
    // SAFETY: set when the backend connected.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let key = Key { database, feature, customer };
    let part = usize::try_from(key.hash() % PARTS as u64).unwrap_or(0);
    let outcome = with_part(header, part, pg_sys::LWLockMode::LW_EXCLUSIVE, |slots| {
        rate_table::take(slots, key, limit, now, cost, dry)
    })?;
    if outcome.is_none() && !dry {
        header.full.fetch_add(1, Ordering::Relaxed);
    }
    Ok(outcome)
}

/// How much of the table is in use by all databases; none where the library is not preloaded.
pub fn rates_use(now: i64) -> Option<Use> {
    let header = header()?;
    let count = |part| {
        with_part(header, part, pg_sys::LWLockMode::LW_SHARED, |slots| {
            slots.iter().filter(|slot| slot.is_used(now)).count()
        })
    };
    let used: usize = (0..PARTS).map(count).sum();
    Some(Use {
        used: i64::try_from(used).unwrap_or(i64::MAX),
        size: i64::try_from(PARTS * header.part_size).unwrap_or(i64::MAX),
        full: header.full.load(Ordering::Relaxed),
    })
}
