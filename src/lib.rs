//! pg_billing: a complete billing system inside PostgreSQL. ARCHITECTURE.md has the map.
//!
//! `domain` is pure and always built. Everything else is the bridge to Postgres and stands behind one
//! `pgNN` feature: `pg`, `types` and `shmem` hold the unsafe code, `agg` the aggregates, `api` the functions.
#![deny(unsafe_code)]
// A function fits on a screen (clippy.toml has the number); a test may be a long table.
#![cfg_attr(not(test), deny(clippy::too_many_lines))]

pub mod domain;

#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
#[allow(unsafe_code)]
mod agg;
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
// Set-returning functions spell their columns out: pgrx takes no alias there.
#[allow(clippy::type_complexity)]
mod api;
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
#[allow(unsafe_code)]
mod pg;
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
#[allow(unsafe_code)]
mod shmem;
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
mod sql_manifest;
#[cfg(all(
    any(test, feature = "pg_test"),
    any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18")
))]
mod testing;
#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
#[allow(unsafe_code)]
mod types;

#[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17", feature = "pg18"))]
mod module {
    use pgrx::prelude::*;

    pgrx::pg_module_magic!(name, version);

    /// Runs when a backend loads the library, or the postmaster. Needs no preload; defines the settings.
    #[pg_guard]
    extern "C-unwind" fn _PG_init() {
        crate::shmem::init();
        crate::pg::clock::define_settings();
    }
}

/// Required by `cargo pgrx test`, at the root of the crate.
#[cfg(test)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["shared_preload_libraries = 'pg_billing'"]
    }
}
