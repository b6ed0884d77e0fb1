# shellcheck shell=bash disable=SC2034
# What every script here shares; sourced, never run. It guarantees: work starts in the checkout's
# root whatever the caller's directory was, progress goes to stderr as "==> …" so that stdout holds
# results only, files are readable by the user the server runs as, and nothing of the caller's
# environment (libpq variables, RUST_BACKTRACE, cargo's target directory) leaks into what is tested.
set -euo pipefail
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$ROOT"

HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
USER=${USER:-$(id -un)} # pgrx-tests insists on it; containers often lack it
export HOME USER

# The versions that are installed when absent. cargo-pgrx must equal Cargo.toml's pgrx.
CARGO_PGRX_VERSION=0.18.1
CARGO_DENY_VERSION=0.20.2
RUST_VERSION=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/pg_billing/tools
ENV_FILE=$ROOT/target/cluster.env
if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH=$HOME/.cargo/bin:$PATH; fi

# A backtrace in the server's environment would be sent to clients as DETAIL; a target directory,
# Postgres or libpq settings of the caller would make results differ from machine to machine.
unset RUST_BACKTRACE RUST_LIB_BACKTRACE RUSTFLAGS CARGO_TARGET_DIR CARGO_BUILD_TARGET PGRX_PG_CONFIG_PATH PG_VERSION
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE PGDATA \
  PGOPTIONS PGAPPNAME PGSSLMODE PGREQUIREPEER PGTZ PGDATESTYLE PGCLIENTENCODING PGTARGETSESSIONATTRS

say() { printf '==> %s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# shell-quotes one value, for cluster.env
quoted() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

# Runs the calling script under a lock of this checkout; the lock's descriptor is not inherited
# (flock -o), so a server started under it does not keep it.
lock_or_wait() { # name, script, arguments…
  local name=$1 file=$ROOT/target/.$1.lock
  shift
  case ${PG_BILLING_LOCKS:-} in *":$name:"*) return 0 ;; esac # held by a caller of ours
  mkdir -p target
  flock -n "$file" true || say "another run in this checkout is at work ($name); waiting for it"
  PG_BILLING_LOCKS="${PG_BILLING_LOCKS:-}:$name:" exec flock -o "$file" "$@"
}

# Reads target/cluster.env if it belongs to this checkout and its directory is still there.
load_env() {
  [ -r "$ENV_FILE" ] || return 1
  local checkout
  # shellcheck source=/dev/null
  checkout=$(. "$ENV_FILE" && printf '%s' "$PG_BILLING_CHECKOUT") || return 1
  [ "$checkout" = "$ROOT" ] || return 1 # a checkout copied with its target/ directory
  set -a
  # shellcheck source=/dev/null
  . "$ENV_FILE"
  set +a
  [ -x "$PG_CONFIG" ] && [ -O "$PG_BILLING_DIR" ]
}

# Everything set up and loaded; nothing of it may read the caller's stdin.
ensure_env() {
  scripts/setup </dev/null
  load_env || die "scripts/setup left no usable target/cluster.env"
}

# Runs a command as the operating-system user that owns the server, with a clean environment and
# in a directory every user may be in (the checkout may be closed to all but root).
as_server() {
  local clean=(env -i "PATH=/usr/sbin:/usr/bin:/sbin:/bin" HOME=/ LC_ALL=C TZ=UTC)
  if [ "$SERVER_USER" = "$(id -un)" ]; then
    (cd / && "${clean[@]}" "$@")
  else
    (cd / && runuser -u "$SERVER_USER" -- "${clean[@]}" "$@")
  fi
}

# psql of the private Postgres, without the caller's ~/.psqlrc
sql() { "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 "$@"; }

# What makes psql's output the same on every machine. Settings an ordinary role may not change
# (lc_messages) are in the server's own configuration.
stable_env() {
  export PGTZ=UTC PGDATESTYLE='ISO, YMD' PGCLIENTENCODING=UTF8 LC_ALL=C.UTF-8 PAGER=cat PSQL_PAGER=cat
  export PGOPTIONS='-c intervalstyle=postgres -c extra_float_digits=1 -c client_min_messages=notice'
  unset COLUMNS PSQLRC PSQL_HISTORY PSQL_EDITOR LANGUAGE
}

# A database of its own for one test file: from the template, or empty when $2 is "empty".
fresh_database() {
  local from=billing_template
  [ "${2:-}" != empty ] || from=template0
  sql -d postgres -c 'SET client_min_messages = warning' -c "DROP DATABASE IF EXISTS \"$1\" WITH (FORCE)" \
    -c "CREATE DATABASE \"$1\" TEMPLATE $from" </dev/null
}
drop_database() {
  sql -d postgres -c 'SET client_min_messages = warning' -c "DROP DATABASE IF EXISTS \"$1\" WITH (FORCE)" </dev/null
}

# A name a database may have, from a path
database_name() { printf '%s' "$1" | tr -c 'A-Za-z0-9_' _ | tail -c 60; }

# Waits until the server answers: a test may have crashed it, and it recovers by itself.
wait_ready() {
  local i
  for ((i = 0; i < 300; i++)); do
    if "$PG_BIN/pg_isready" -q </dev/null; then return 0; fi
    sleep 0.1
  done
  return 1
}

now_ms() { printf '%s' "$((${EPOCHREALTIME/./} / 1000))"; }
seconds_since() { # a now_ms() value → "1.2 s"
  local ms=$(($(now_ms) - $1))
  printf '%d.%d s' "$((ms / 1000))" "$((ms % 1000 / 100))"
}

# The last line of every script that tests something
tally() { printf '%d passed, %d failed\n' "$1" "$2"; }

# Sums the results cargo's test harness printed into a log; a failure that left no count (it did
# not compile) counts as one failed test.
cargo_tally() { # log, exit status
  awk -v status="$2" '/^test result:/ { p += $4; f += $6 }
    END { if (status != 0 && f == 0) f = 1; printf "%d %d\n", p, f }' "$1"
}

# --- servers of this checkout: directory $PG_BILLING_DIR/<name>, data in its data/ --------------

# The pid of the live postmaster of a data directory, or nothing. The pid file alone is no proof:
# after a crash or a reboot its number may belong to another process.
server_pid() { # data directory
  local pid
  pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null) || return 0
  if tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF -e "$1"; then printf '%s' "$pid"; fi
}

# Stops the server of a data directory by its pid: fast shutdown, then immediate.
stop_server() { # data directory
  local pid i
  pid=$(server_pid "$1")
  [ -n "$pid" ] || return 0
  kill -INT "$pid"
  for ((i = 0; i < 600; i++)); do
    if ! kill -0 "$pid" 2>/dev/null; then return 0; fi
    if [ "$i" -eq 300 ]; then kill -QUIT "$pid" 2>/dev/null || true; fi
    sleep 0.1
  done
  die "server $pid of $1 does not stop"
}

# Every data directory of this checkout: named clusters, and what an interrupted `cargo pgrx test` left.
data_directories() {
  local f
  for f in "$PG_BILLING_DIR"/*/data/PG_VERSION "$PG_BILLING_DIR"/*/data/*/PG_VERSION; do
    if [ -f "$f" ]; then dirname "$f"; fi
  done
}

stop_all() {
  local d stopped=
  while read -r d; do
    [ -n "$(server_pid "$d")" ] || continue
    stop_server "$d"
    say "stopped the server of $d"
    stopped=1
  done < <(data_directories)
  [ -n "$stopped" ] || say "no server of this checkout was running"
}

# The cluster, running and holding the current build; at exit it is left as it was found.
# A script called by another one that did this already only loads the environment.
with_cluster() {
  if [ -n "${PG_BILLING_CLUSTER_UP:-}" ]; then
    load_env || die "target/cluster.env is gone"
    return 0
  fi
  if ! load_env || [ -z "$(server_pid "$PG_BILLING_DIR/main/data")" ]; then
    trap 'scripts/cluster stop main || true' EXIT
  fi
  scripts/cluster start </dev/null >/dev/null || return 1
  load_env || die "target/cluster.env is gone"
  export PG_BILLING_CLUSTER_UP=1
}

# For `cargo pgrx test`: its server's data in the private directory (a socket path below the checkout
# may be too long), and as root run by the server's user, through setup's sudo.
pgrx_test_env() {
  export CARGO_TARGET_DIR=$ROOT/target/pgrx CARGO_PGRX_TEST_PGDATA=$PG_BILLING_DIR/pgtest/data
  if is_root; then export CARGO_PGRX_TEST_RUNAS=$SERVER_USER PATH="$PG_BILLING_DIR/bin:$PATH"; fi
}
