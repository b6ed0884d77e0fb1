//! What every client test shares: the checkout's cluster (target/cluster.env), a database of one's own copied
//! from billing_template, connections by role, and further servers that may be killed.
//!
//! Each test binary uses a part of it, so nothing here is dead because one of them has no use for it.
#![allow(dead_code)]

use postgres::{Client, Config, NoTls};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The values of target/cluster.env; `make cluster` or `scripts/cluster start` writes them.
pub fn cluster_env() -> &'static HashMap<String, String> {
    static ENV: OnceLock<HashMap<String, String>> = OnceLock::new();
    ENV.get_or_init(|| {
        let file = checkout().join("target/cluster.env");
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|e| panic!("{}: {e}; run scripts/cluster start", file.display()));
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').replace("'\\''", "'")))
            .collect()
    })
}

fn setting(name: &str) -> &'static str {
    cluster_env().get(name).unwrap_or_else(|| panic!("target/cluster.env has no {name}"))
}

/// The root of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program of the cluster's own Postgres (psql, pg_dump, pg_restore, pgbench …), not yet run.
pub fn pg_program(name: &str) -> Command {
    let mut command = Command::new(Path::new(setting("PG_BIN")).join(name));
    for variable in ["PGDATABASE", "PGUSER", "PGHOST", "PGPORT", "PGOPTIONS", "PGSERVICE"] {
        command.env_remove(variable);
    }
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// Runs a command to its end; panics with what it wrote unless it succeeds.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Where a server listens. All servers of a checkout use one port number, in directories of their own.
#[derive(Clone, Debug)]
pub struct Address {
    /// The directory of its socket.
    pub host: PathBuf,
}

impl Address {
    /// The checkout's main server, the one with billing_template.
    pub fn main() -> Address {
        Address { host: PathBuf::from(setting("PGHOST")) }
    }

    pub fn port(&self) -> u16 {
        setting("PGPORT").parse().expect("PGPORT is a number")
    }

    /// A connection to a database as the bootstrap superuser, with the settings of the golden tests.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host_path(&self.host)
            .port(self.port())
            .user(setting("PGUSER"))
            .dbname(database)
            .application_name("client test")
            .options("-c timezone=UTC -c datestyle=ISO,YMD -c client_min_messages=warning")
            .connect_timeout(Duration::from_secs(10));
        config
    }

    /// The options every program of Postgres takes to get here: -h, -p, -U.
    pub fn arguments(&self) -> Vec<String> {
        ["-h", &self.host.to_string_lossy(), "-p", setting("PGPORT"), "-U", setting("PGUSER")]
            .map(str::to_owned)
            .to_vec()
    }
}

fn open(config: &Config) -> Client {
    config.connect(NoTls).unwrap_or_else(|e| panic!("no connection ({e:?}); run scripts/cluster start"))
}

/// A database of one test. Dropped with it, unless the test fails: then it stays to be looked at.
pub struct Db {
    pub name: String,
    pub address: Address,
}

impl Db {
    /// A copy of billing_template on the main server: extension and `install('test')` done. A database of that
    /// name that an earlier run left is replaced. Names are unique per test binary and test.
    pub fn fresh(name: &str) -> Db {
        Db::create(Address::main(), name, "billing_template")
    }

    /// A database with nothing in it, on the main server.
    pub fn empty(name: &str) -> Db {
        Db::create(Address::main(), name, "template0")
    }

    fn create(address: Address, name: &str, template: &str) -> Db {
        assert!(
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "a test database's name is lower-case letters, digits and _: {name}"
        );
        let name = format!("client_{name}");
        assert!(name.len() < 64, "{name} is too long");
        let mut client = open(&address.config("postgres"));
        // One statement a call: neither may run in a transaction block.
        client
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .expect("drop the old database");
        client
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .expect("create the database");
        Db { name, address }
    }

    pub fn config(&self) -> Config {
        self.address.config(&self.name)
    }

    /// A connection as the bootstrap superuser.
    pub fn connect(&self) -> Client {
        open(&self.config())
    }

    /// A connection that acts as a role: logged in as it if it may log in, else by SET ROLE.
    pub fn connect_as(&self, role: &str) -> Client {
        let mut client = self.connect();
        let may_log_in: bool = client
            .query_one("SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = $1", &[&role])
            .unwrap_or_else(|e| panic!("there is no role {role}: {e}"))
            .get(0);
        if may_log_in {
            return open(self.config().user(role));
        }
        client.batch_execute(&format!("SET ROLE \"{role}\"")).expect("set role");
        client
    }

    /// psql, pg_dump … with the options that lead to this database.
    pub fn program(&self, name: &str) -> Command {
        let mut command = pg_program(name);
        command.args(self.address.arguments()).arg("-d").arg(&self.name);
        command
    }

    /// Every failing row of `billing.verify('full')`, as text; empty is clean.
    pub fn verify(&self) -> Vec<String> {
        verify(&mut self.connect())
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("database {} stays to be looked at", self.name);
            return;
        }
        if let Ok(mut client) = self.address.config("postgres").connect(NoTls) {
            let _ = client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}

/// Every failing row of `billing.verify('full')`, as text; empty is clean.
pub fn verify(client: &mut Client) -> Vec<String> {
    client
        .query("SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0", &[])
        .expect("verify")
        .iter()
        .map(|row| {
            format!(
                "{}: {} ({})",
                row.get::<_, &str>(0),
                row.get::<_, i64>(1),
                row.get::<_, Option<&str>>(2).unwrap_or("")
            )
        })
        .collect()
}

/// What a server said when it refused, in a form to compare.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// Takes the server's error out of a result; panics if it succeeded or the connection broke.
#[track_caller]
pub fn refusal<T>(result: Result<T, postgres::Error>) -> Refusal {
    match result {
        Ok(_) => panic!("the server did what it should have refused"),
        Err(error) => {
            let server =
                error.as_db_error().unwrap_or_else(|| panic!("not an error of the server: {error:?}"));
            Refusal {
                code: server.code().code().to_owned(),
                message: server.message().to_owned(),
                detail: server.detail().map(str::to_owned),
                hint: server.hint().map(str::to_owned),
            }
        }
    }
}

/// A server of its own on the same binaries, for crashes and restores. Stopped and deleted at the end.
pub struct Server {
    name: String,
    pub address: Address,
    preloads: bool,
}

impl Server {
    /// Makes (anew) and starts a server `test-<name>` with nothing in it; names are lower-case letters, digits and -.
    pub fn spawn(name: &str) -> Server {
        Server::made(name, true)
    }

    /// One that does not preload the library.
    pub fn spawn_without_preload(name: &str) -> Server {
        Server::made(name, false)
    }

    fn made(name: &str, preloads: bool) -> Server {
        let name = format!("test-{name}");
        run(cluster().arg("destroy").arg(&name));
        let host = PathBuf::from(spawned(&name, preloads));
        Server { name, address: Address { host }, preloads }
    }

    /// A copy of it, `test-<name>`, that streams from it until it is promoted.
    pub fn standby(&self, name: &str) -> Server {
        let name = format!("test-{name}");
        run(cluster().arg("destroy").arg(&name));
        let output = run(cluster().args(["standby", &name, &self.name]));
        Server {
            name,
            address: Address { host: String::from_utf8_lossy(&output.stdout).trim().into() },
            preloads: true,
        }
    }

    /// The name by which it is known to `scripts/cluster`, and as a standby to its primary.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a line to its settings, which holds from the next start on.
    pub fn configure(&self, line: &str) {
        let mut settings = std::fs::OpenOptions::new()
            .append(true)
            .open(self.data().join("postgresql.conf"))
            .expect("settings");
        std::io::Write::write_all(&mut settings, format!("\n{line}\n").as_bytes()).expect("settings");
    }

    /// The database of this name, as another server made it: of a standby, the primary's.
    pub fn existing(&self, db: &Db) -> Db {
        Db { name: db.name.clone(), address: self.address.clone() }
    }

    /// A database on it: with the extension, `install('test')` done.
    pub fn fresh(&self, name: &str) -> Db {
        let db = self.empty(name);
        db.connect()
            .batch_execute("CREATE EXTENSION pg_billing; SELECT billing.install('test')")
            .expect("create and install the extension");
        db
    }

    /// A database on it with nothing in it.
    pub fn empty(&self, name: &str) -> Db {
        Db::create(self.address.clone(), name, "template0")
    }

    pub fn data(&self) -> PathBuf {
        self.address.host.join("data")
    }

    /// The postmaster, by its pid file.
    pub fn pid(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let data = self.data();
        let data = data.to_string_lossy();
        command.split(|b| *b == 0).any(|part| part == data.as_bytes()).then_some(pid)
    }

    /// kill -9 of the whole server at once, as a power cut would; waits until every process is gone.
    pub fn kill9(&self) {
        let postmaster = self.pid().expect("the server runs");
        let mut pids = vec![postmaster];
        pids.extend(children(postmaster));
        let mut kill = Command::new("kill");
        kill.arg("-9").args(pids.iter().map(u32::to_string));
        let _ = kill.output(); // a backend may have ended by itself
        for _ in 0..3000 {
            if !pids.iter().any(|pid| runs(*pid)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!pids.iter().any(|pid| runs(*pid)), "the killed server does not go away");
        // What is dead but not yet reaped (init of some containers takes its time) still counts as running for
        // the next postmaster, which goes by the pid in these files alone.
        if Path::new(&format!("/proc/{postmaster}")).exists() {
            let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
            let _ = std::fs::remove_file(
                self.address.host.join(format!(".s.PGSQL.{}.lock", self.address.port())),
            );
        }
    }

    /// kill9() as soon as so many calls were acknowledged (or after a minute), and start() again.
    pub fn crash_after(&self, acknowledged: &AtomicUsize, count: usize) {
        for _ in 0..300_000 {
            if acknowledged.load(Ordering::SeqCst) >= count {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        self.kill9();
        self.start();
    }

    /// Starts it again after kill9() or stop(); it recovers by itself.
    pub fn start(&self) {
        spawned(&self.name, self.preloads);
    }

    /// Stops it in good order.
    pub fn stop(&self) {
        run(cluster().arg("stop").arg(&self.name));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Kept, but stopped, after a failure.
        let verb = if std::thread::panicking() { "stop" } else { "destroy" };
        let _ = cluster().arg(verb).arg(&self.name).output();
    }
}

fn cluster() -> Command {
    let mut command = Command::new(checkout().join("scripts/cluster"));
    // PROFILE chooses how to build; nothing is built here.
    command.stdin(std::process::Stdio::null()).env_remove("PROFILE");
    command
}

fn spawned(name: &str, preloads: bool) -> String {
    let mut command = cluster();
    if !preloads {
        command.env("NO_PRELOAD", "1");
    }
    let output = run(command.arg("spawn").arg(name));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// State and parent of a process, from /proc/<pid>/stat; its name may hold anything, so from the last ')'.
fn stat(pid: u32) -> Option<(String, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z" && state != "X")
}

fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent))
        .collect()
}
