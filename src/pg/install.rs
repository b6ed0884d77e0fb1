//! The schema files this library carries, and the cached answer to "is it installed?".

use crate::domain::foundation::hash::sha256_hex;
use crate::domain::foundation::{Code, Fault};
use pgrx::prelude::*;
use pgrx::{PgSubXactCallbackEvent, PgXactCallbackEvent, register_subxact_callback, register_xact_callback};
use std::cell::Cell;

/// One migration: `sql/schema/NNNN_name.sql`. Released files never change.
struct SchemaFile {
    version: i32,
    name: &'static str,
    body: &'static str,
}

macro_rules! schema_files {
    ($($version:literal $name:literal),* $(,)?) => {
        &[$(SchemaFile {
            version: $version,
            name: $name,
            body: include_str!(concat!("../../sql/schema/", $name, ".sql")),
        }),*]
    };
}

/// In order of version. The layer of a file is its name.
static SCHEMA_FILES: &[SchemaFile] = schema_files![
    1 "0001_foundation",
    2 "0002_ingestion",
    3 "0003_metering",
    4 "0004_rating",
    5 "0005_contracts",
    6 "0006_invoicing",
    7 "0007_analytics",
    8 "0008_event_corrections",
    9 "0009_meter_versions",
    10 "0010_price_versions",
    11 "0011_late_usage",
    12 "0012_contract_changes",
    13 "0013_credits",
    14 "0014_settlement",
    15 "0015_usage_totals",
    16 "0016_credit_sales",
    17 "0017_entitlements",
    18 "0018_limits",
    19 "0019_customer_side",
    20 "0020_credit_terms",
    21 "0021_cheap_checks",
];

/// The schema this library works with.
fn wanted_version() -> i32 {
    SCHEMA_FILES.last().map_or(0, |file| file.version)
}

const NO_WAY_BACK: &str =
    "Install the library that belongs to this database; there is no way back to an older one.";

/// Raises 55000 unless the extension's functions in this database are those of this library: after new files were
/// installed and before ALTER EXTENSION … UPDATE they pass arguments that the library no longer knows.
fn require_own_functions() {
    let found: Option<String> = Spi::connect(|client| {
        client
            .select(
                "SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pg_billing'",
                Some(1),
                &[],
            )?
            .first()
            .get_one::<String>()
    })
    .unwrap_or_else(|e: pgrx::spi::SpiError| error!("the extension's version can't be read: {e}"));
    let library = env!("CARGO_PKG_VERSION");
    let found = found.unwrap_or_default();
    if found == library {
        return;
    }
    let fault = Fault::new(
        Code::State,
        format!("pg_billing's functions in this database are of version {found}, the library is {library}"),
    );
    let number =
        |version: &str| -> Vec<u32> { version.split('.').map_while(|part| part.parse().ok()).collect() };
    let hint = if number(&found) > number(library) {
        NO_WAY_BACK
    } else {
        "Run: ALTER EXTENSION pg_billing UPDATE; then SELECT * FROM billing.migrate();"
    };
    super::raise(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, &fault.with_hint(hint));
}

/// The schema files for `billing.install()` and `billing.migrate()`.
#[pg_extern(sql = false)]
fn schema_files() -> TableIterator<
    'static,
    (name!(version, i32), name!(name, &'static str), name!(sha256, String), name!(body, &'static str)),
> {
    require_own_functions();
    TableIterator::new(
        SCHEMA_FILES.iter().map(|f| (f.version, f.name, sha256_hex(f.body.as_bytes()), f.body)),
    )
}

thread_local! {
    /// Set once this session has seen the schema at the wanted version.
    static SEEN: Cell<bool> = const { Cell::new(false) };
}

/// Takes in what other sessions committed to the catalogue. Postgres does so with every lock that is new to a
/// transaction; one that holds all its locks already would not learn of a partition made meanwhile: it could store
/// nothing there and, worse, would read past it.
#[pg_extern(sql = false)]
fn heed_changes() {
    // SAFETY: no argument, no result; we are inside a transaction, as its other callers are.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}

/// Raises 55000 with the command that helps unless functions and tables are of this library's version.
/// Answers from memory once a transaction that asked is committed; `install()` and `migrate()` forget the answer.
///
/// The name says since which version the arguments of C functions have been as they are. A session that loaded an
/// older library has no function of this name: the first call of every public function ends there, before one is
/// called with arguments that library does not know. A version that changes them gives this another name.
#[pg_extern(sql = false)]
fn require_installed_0_2() {
    heed_changes();
    if SEEN.get() {
        return;
    }
    require_own_functions();
    let found: Option<i32> = Spi::connect(|client| {
        let exists = client
            .select("SELECT pg_catalog.to_regclass('billing.installation') IS NOT NULL", Some(1), &[])?
            .first()
            .get_one::<bool>()?;
        if exists != Some(true) {
            return Ok(None);
        }
        client
            .select("SELECT schema_version FROM billing.installation", Some(1), &[])?
            .first()
            .get_one::<i32>()
    })
    .unwrap_or_else(|e: pgrx::spi::SpiError| error!("the installed schema version can't be read: {e}"));
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    let fault = match found {
        Some(version) if version == wanted_version() => {
            SEEN.set(true);
            // What was seen may be this transaction's own installation, and end with it.
            register_xact_callback(PgXactCallbackEvent::Abort, || SEEN.set(false));
            register_subxact_callback(PgSubXactCallbackEvent::AbortSub, |_, _| SEEN.set(false));
            return;
        }
        None => Fault::new(Code::State, "pg_billing's tables are not installed in this database")
            .with_hint("Run: SELECT * FROM billing.install();"),
        Some(version) => Fault::new(
            Code::State,
            format!(
                "pg_billing's tables are at version {version}; this library works with {}",
                wanted_version()
            ),
        )
        .with_hint(if version > wanted_version() {
            NO_WAY_BACK
        } else {
            "Run: SELECT * FROM billing.migrate();"
        }),
    };
    super::raise(code, &fault);
}

/// The name by which the functions of 0.1.0 ask: they are to be updated. Declared by nothing in sql/ext.
#[pg_extern(stable, sql = false)]
fn require_installed() {
    require_own_functions();
}

/// Forgets what `require_installed_0_2` remembers, in this session.
#[pg_extern(sql = false)]
fn forget_installed() {
    SEEN.set(false);
}

#[cfg(any(test, feature = "pg_test"))]
#[pg_schema]
mod tests {
    use crate::testing::{error_of, holds, other_session, rows};
    use pgrx::prelude::*;

    /// The library carries every schema file in order of version, with the checksum by which a database
    /// recognizes it.
    #[pg_test]
    fn schema_files_are_carried_whole() {
        let files = rows("SELECT version, name FROM billing_internal.schema_files()");
        assert_eq!(files.first().map(String::as_str), Some("1|0001_foundation"));
        let versions: Vec<i32> = super::SCHEMA_FILES.iter().map(|file| file.version).collect();
        assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
        for (file, version) in files.iter().zip(&versions) {
            assert!(file.starts_with(&format!("{version}|{version:04}_")), "{file}");
        }
        assert!(holds(
            "SELECT bool_and(sha256 = encode(sha256(convert_to(body, 'UTF8')), 'hex')) FROM billing_internal.schema_files()"
        ));
    }

    /// Functions refuse to work before the tables are there or when they are of another version, and say which
    /// command helps. The answer is remembered until forget_installed().
    #[pg_test]
    fn an_installation_is_required() {
        let required = || error_of("SELECT billing_internal.require_installed()");
        assert_eq!(
            required(),
            "55000 pg_billing's tables are not installed in this database HINT Run: SELECT * FROM billing.install();"
        );
        let steps = rows("SELECT step, state FROM billing.install('test')");
        assert_eq!(steps.last().map(|step| step.ends_with("|applied")), Some(true), "{steps:?}");
        assert_eq!(required(), "no error");
        assert!(rows("SELECT step, state FROM billing.migrate()").iter().all(|step| step.ends_with("|kept")));
        assert_eq!(required(), "no error");

        Spi::run("UPDATE billing.installation SET schema_version = 1").unwrap();
        assert_eq!(required(), "no error");
        rows("SELECT billing_internal.forget_installed()");
        let old = required();
        assert!(
            old.starts_with("55000 pg_billing's tables are at version 1; this library works with "),
            "{old}"
        );
        assert!(old.ends_with(" HINT Run: SELECT * FROM billing.migrate();"), "{old}");
        Spi::run("UPDATE billing.installation SET schema_version = 1000").unwrap();
        let newer = required();
        assert!(
            newer.ends_with(&format!("works with {} HINT {}", super::wanted_version(), super::NO_WAY_BACK)),
            "{newer}"
        );

        Spi::run("SET allow_system_table_mods = on").unwrap();
        for (version, hint) in [
            ("0.1.0", "Run: ALTER EXTENSION pg_billing UPDATE; then SELECT * FROM billing.migrate();"),
            ("0.10.0", super::NO_WAY_BACK),
        ] {
            Spi::run(&format!(
                "UPDATE pg_catalog.pg_extension SET extversion = '{version}' WHERE extname = 'pg_billing'"
            ))
            .unwrap();
            let message = format!(
                "55000 pg_billing's functions in this database are of version {version}, the library is {} HINT {hint}",
                env!("CARGO_PKG_VERSION")
            );
            assert_eq!(required(), message);
            assert_eq!(error_of("SELECT billing.migrate()"), message);
        }
    }

    /// A transaction that holds its locks learns of a partition that another session attached meanwhile.
    #[pg_test]
    fn partitions_made_meanwhile_are_seen() {
        let elsewhere = other_session();
        let parts = || rows("SELECT count(*) FROM public.heeded");
        elsewhere("DROP TABLE IF EXISTS public.heeded");
        elsewhere("CREATE TABLE public.heeded (n int) PARTITION BY LIST (n)");
        assert_eq!(parts(), ["0"]);
        elsewhere("CREATE TABLE public.heeded_1 (n int)");
        elsewhere("INSERT INTO public.heeded_1 VALUES (1)");
        elsewhere("ALTER TABLE public.heeded ATTACH PARTITION public.heeded_1 FOR VALUES IN (1)");
        // tests/races.rs shows what happens without.
        rows("SELECT billing_internal.heed_changes()");
        assert_eq!(parts(), ["1"]);
    }
}
