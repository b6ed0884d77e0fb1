#!/usr/bin/env bash
# Redis doing what users would pick instead of a rate limit: INCR and compare, in a script on the server so that it is one round
# trip. It guarantees: nothing is installed (Debian's packages are unpacked in the directory given), the server listens on loopback
# only and is ended by its pid. Prints `clients|customers|requests a second`.
#
#   redis.sh <directory> <port> <requests> <clients>…
set -euo pipefail
dir=$1 port=$2 requests=$3
shift 3
mkdir -p "$dir"
cd "$dir"
if [ ! -x root/usr/bin/redis-server ]; then
  echo '==> unpacking Redis (Debian packages)' >&2
  apt-get download -qq redis-tools redis-server libhiredis0.14 liblzf1 libjemalloc2 liblua5.1-0 lua-cjson lua-bitop 2>/dev/null >&2
  for package in ./*.deb; do dpkg-deb -x "$package" root; done
fi
libraries=$(dirname "$(find root/usr/lib -name 'libjemalloc.so.2')")
LD_LIBRARY_PATH=$PWD/$libraries
export LD_LIBRARY_PATH
root/usr/bin/redis-server --bind 127.0.0.1 --port "$port" --save '' --appendonly no --daemonize yes --dir "$PWD" --pidfile "$PWD/pid" >/dev/null
for _ in $(seq 50); do
  if root/usr/bin/redis-cli -p "$port" PING >/dev/null 2>&1; then break; fi
  sleep 0.1
done
trap 'kill "$(cat "$PWD/pid")"' EXIT
# shellcheck disable=SC2016
gate='local n = redis.call("INCR", KEYS[1]) if n == 1 then redis.call("PEXPIRE", KEYS[1], 1000) end return n <= 1000'
for clients; do
  for customers in 1 1000; do
    root/usr/bin/redis-benchmark -h 127.0.0.1 -p "$port" -c "$clients" -n "$requests" -r "$customers" --csv EVAL "$gate" 1 rate:__rand_int__ |
      awk -F '","' -v clients="$clients" -v customers="$customers" 'END { printf "%s|%s|%s\n", clients, customers, $2 }'
  done
done
