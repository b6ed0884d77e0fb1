"""What both applications must do, asked over HTTP as their users would, and compared with the database.

    check.py <psql connection string of the owner> <command that starts the application…>

The application gets DATABASE_URL from the environment, listens on a free port (PORT=0) and says which. Only Python's own
library and psql are used. Each check is a line; the last is "N passed, N failed".
"""

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

owner, command = sys.argv[1], sys.argv[2:]
app = subprocess.Popen(command, env={**os.environ, "PORT": "0"}, stdout=subprocess.PIPE, text=True)
said = app.stdout.readline()
if not said.startswith("listening on "):
    sys.exit(f"the application did not start: {said!r}")
base = f"http://127.0.0.1:{said.split()[-1]}"
passed = failed = 0


def check(what, got, want):
    global passed, failed
    if got == want:
        passed += 1
        print(f"ok {what}")
    else:
        failed += 1
        print(f"FAILED {what}: got {got!r}, want {want!r}")


def sql(query):
    run = subprocess.run(
        [os.environ["PSQL"], "-XAtq", "-d", owner, "-c", query], capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def call(method, path, **fields):
    data = json.dumps(fields).encode() if method == "POST" else None
    query = "?" + urllib.parse.urlencode(fields) if method == "GET" else ""
    request = urllib.request.Request(base + path + query, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, body, kind = response.status, response.read().decode(), response.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        status, body, kind = error.code, error.read().decode(), error.headers["Content-Type"]
    return status, json.loads(body) if kind.startswith("application/json") else body


def used(meter):
    return sql(f"SELECT coalesce(trim_scale(sum(quantity)), 0) FROM billing.my_usage WHERE customer = 'acme' AND meter = '{meter}'")


try:
    check("a customer signs up", call("POST", "/sign-up", customer="acme", name="Acme & Sons <Ltd>"), (201, {"contract": "acme-1"}))
    check("what the plan includes", call("GET", "/can", customer="acme", feature="sso"), (200, {"can": True}))
    check("what a stranger has", call("GET", "/can", customer="nobody", feature="sso"), (200, {"can": False}))
    for n in range(1, 6):
        check(f"project {n}", call("POST", "/projects", customer="acme", project=f"p{n}"), (201, {"project": f"p{n}"}))
    check(
        "project 6 is refused, with why",
        call("POST", "/projects", customer="acme", project="p6"),
        (402, {"reason": "quota_exceeded", "used": "5", "quota": "5"}),
    )
    check("a repeated request has the same result", call("POST", "/projects", customer="acme", project="p5"), (201, {"project": "p5"}))
    check("rows of the application", sql("SELECT count(*) FROM writer.project"), "5")
    check("projects metered", used("projects"), "5")

    words = "how much is the fish"
    check(
        "an answer",
        call("POST", "/answers", customer="acme", request="r1", model="large", prompt=words),
        (201, {"answer": words[::-1], "tokens": 5000}),
    )
    check(
        "a retry gets what was stored, whatever would be answered now",
        call("POST", "/answers", customer="acme", request="r1", model="large", prompt="five words that are other"),
        (201, {"answer": words[::-1], "tokens": 5000}),
    )
    check("a retry counts once", (used("tokens"), sql("SELECT count(*) FROM writer.answer")), ("5000", "1"))
    call("POST", "/answers", customer="acme", request="r2", model="small", prompt=words * 2)

    check("a request without its fields is refused", call("POST", "/projects", customer="acme")[0], 400)

    # What fails after the gate undoes the count, too: a NUL is no text of Postgres.
    status, _ = call("POST", "/answers", customer="acme", request="r3", model="large", prompt="a \0 b")
    check("a request that can't be stored fails", status, 500)
    check("and counts nothing", used("tokens"), sql("SELECT sum(tokens) FROM writer.answer"))

    # Sixteen at once for what three are left of: the quota is exact.
    sql("SELECT billing.entitlement_override('acme', 'projects', '\"8\"', reason => 'a better deal')")
    outcomes = []
    threads = [
        threading.Thread(target=lambda n=n: outcomes.append(call("POST", "/projects", customer="acme", project=f"q{n}")[0]))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check("of 16 at once, 3 are let in", (outcomes.count(201), outcomes.count(402)), (3, 13))
    check("and 8 are stored and metered", (sql("SELECT count(*) FROM writer.project"), used("projects")), ("8", "8"))

    status, page = call("GET", "/billing", customer="acme")
    check("the billing page", (status, page.startswith("<!DOCTYPE html>")), (200, True))
    check("its customer is text", "Acme &amp; Sons &lt;Ltd&gt;" in page and "<Ltd>" not in page, True)
    amount = sql("SELECT s#>>'{spend,0,amount}' FROM billing.customer_summary('acme') s")
    preview = sql("SELECT billing.invoice_preview('acme-1')#>>'{totals,total}'")
    check("its spend is that of the summary", f"USD</small> {amount}" in page, True)
    check("and that is usage and fee of the period", float(preview) >= float(amount) > 0, True)
    check("its quota of projects", "8 of 8" in page, True)
    status, error = call("GET", "/billing", customer="nobody")
    check("somebody unknown", (status, error.get("error")), (400, "customer 'nobody' is not known"))
    check("nothing is wrong in the database", sql("SELECT count(*) FROM billing.verify('full') WHERE failed <> 0"), "0")
finally:
    app.terminate()
    app.wait()
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
