"""usage() beside DuckDB and chDB (ClickHouse), each with the same events in a native table of its own, in one process.

Prints lines of `question|ours|theirs|ratio`, times in milliseconds, medians. Stops if the answers differ.
Arguments: CSV of the events (customer, at, model, tokens), a directory to work in.
"""

import os
import statistics
import sys
import time

import chdb.session
import duckdb
import psycopg

csv, directory = sys.argv[1], sys.argv[2]
ONE = "side-7"
FROM, UNTIL = "2026-06-01", "2026-07-01"


def timed(work, times):
    """The answer, and the median of the milliseconds it took, after one call to warm up."""
    answer, spent = work(), []
    for _ in range(times):
        started = time.perf_counter()
        work()
        spent.append(1000 * (time.perf_counter() - started))
    return answer, statistics.median(spent)


def rows(answer):
    return sorted((str(customer), str(model), int(tokens)) for customer, model, tokens in answer)


duck = duckdb.connect(os.path.join(directory, "duck.db"))
duck.execute("CREATE TABLE event (customer VARCHAR, happened_at TIMESTAMP, model VARCHAR, tokens INTEGER)")
duck.execute(f"INSERT INTO event SELECT * FROM read_csv('{csv}', header = false, columns = {{'customer': 'VARCHAR', 'happened_at': 'TIMESTAMP', 'model': 'VARCHAR', 'tokens': 'INTEGER'}}) ORDER BY customer, happened_at")
duck.execute("CHECKPOINT")

house = chdb.session.Session(os.path.join(directory, "house"))
house.query("CREATE DATABASE side ENGINE = Atomic")
house.query("CREATE TABLE side.event (customer LowCardinality(String), happened_at DateTime64(6, 'UTC'), model LowCardinality(String), tokens Int32) ENGINE = MergeTree ORDER BY (customer, happened_at)")
house.query(f"INSERT INTO side.event SELECT * FROM file('{csv}', 'CSV', 'customer String, happened_at DateTime64(6, ''UTC''), model String, tokens Int32')")
house.query("OPTIMIZE TABLE side.event FINAL")

ours = psycopg.connect("", autocommit=True)


def in_house(query):
    lines = str(house.query(query, "TabSeparated")).splitlines()
    return [line.split("\t") for line in lines]


PERIOD = f"happened_at >= '{FROM}' AND happened_at < '{UNTIL}'"
QUESTIONS = {
    "`usage()`, a customer-month by model": (
        30,
        lambda: ours.execute(
            "SELECT %s::text, u.dimensions->>'model', u.quantity FROM billing.usage(%s, 'tokens', %s, %s, 'month', '{model}') u",
            (ONE, ONE, FROM + "Z", UNTIL + "Z"),
        ).fetchall(),
        lambda: duck.execute(f"SELECT customer, model, sum(tokens) FROM event WHERE customer = '{ONE}' AND {PERIOD} GROUP BY ALL").fetchall(),
        lambda: in_house(f"SELECT customer, model, sum(tokens) FROM side.event WHERE customer = '{ONE}' AND {PERIOD} GROUP BY customer, model"),
    ),
    "`usage_daily`, all customer-months by model": (
        5,
        lambda: ours.execute(
            "SELECT customer, dimensions->>'model', sum(quantity) FROM billing.usage_daily WHERE meter = 'tokens' AND day >= %s AND day < %s GROUP BY 1, 2",
            (FROM, UNTIL),
        ).fetchall(),
        lambda: duck.execute(f"SELECT customer, model, sum(tokens) FROM event WHERE {PERIOD} GROUP BY ALL").fetchall(),
        lambda: in_house(f"SELECT customer, model, sum(tokens) FROM side.event WHERE {PERIOD} GROUP BY customer, model"),
    ),
}

for question, (times, us, by_duck, by_house) in QUESTIONS.items():
    answer, spent = timed(us, times)
    if not answer:
        sys.exit(f"no answer: {question}")
    for engine, work in (("DuckDB", by_duck), ("chDB", by_house)):
        theirs, their_spent = timed(work, times)
        if rows(theirs) != rows(answer):
            sys.exit(f"{engine} and usage() differ on {question}: {len(theirs)} and {len(answer)} rows")
        print(f"{question}, {engine}|{spent:.2f}|{their_spent:.2f}|{their_spent / spent:.2f}")
