"""A small application that gates, meters and stores in one transaction, and shows the customer's billing page.

    POST /sign-up          {"customer", "name"}              a customer on the plan "team"
    POST /projects         {"customer", "project"}           402 beyond the plan's projects
    POST /answers          {"customer", "request", "model", "prompt"}
    GET  /billing?customer=acme                              the customer's billing page
    GET  /can?customer=acme&feature=sso                      may it?

DATABASE_URL names the database, PORT where to listen. Who the customer is would come from the session that your
application has signed in; here, for brevity, the request says it. A project or an answer asked for again with the same key (a
retry after a lost answer) has the same result and counts once: the key is billing's idempotency key, too. A second
sign-up of a customer is refused (400).
"""

import inspect
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg.types.json import Jsonb


class Denied(Exception):
    """The plan does not allow it; nothing was stored or counted."""


def consume(db, customer, feature, quantity, key, properties):
    """Asks and counts at once. The answer holds until the caller's transaction ends."""
    result, reason, used, quota = db.execute(
        "SELECT result, reason, used, quota FROM billing.consume(%s, %s, %s, %s, %s)",
        (customer, feature, quantity, key, Jsonb(properties)),
    ).fetchone()
    if result == "denied":
        raise Denied({"reason": reason, "used": text(used), "quota": text(quota)})


def text(number):
    return None if number is None else format(number.normalize(), "f")


def sign_up(db, customer, name):
    with db.transaction():
        db.execute(
            "SELECT billing.customer_upsert(%s)",
            (Jsonb({"key": customer, "name": name, "currency": "USD"}),),
        )
        contract = db.execute("SELECT billing.subscribe(%s, 'team')", (customer,)).fetchone()[0]
    return {"contract": contract}


def create_project(db, customer, project):
    with db.transaction():  # the gate, the count and our own row, or none of them
        consume(db, customer, "projects", 1, f"project:{project}", {})
        db.execute(
            "INSERT INTO writer.project VALUES (%s, %s) ON CONFLICT DO NOTHING", (customer, project)
        )
    return {"project": project}


def answer(db, customer, request, model, prompt):
    tokens = 1000 * len(prompt.split())  # what a model would have taken
    with db.transaction():
        consume(db, customer, "tokens", tokens, f"answer:{request}", {"model": model})
        db.execute(
            "INSERT INTO writer.answer VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (customer, request, model, tokens, prompt[::-1]),
        )
        # What was stored: a retry gets the answer that was counted, not another one.
        stored, tokens = db.execute(
            "SELECT answer, tokens FROM writer.answer WHERE customer = %s AND request = %s", (customer, request)
        ).fetchone()
    return {"answer": stored, "tokens": tokens}


def can(db, customer, feature):
    return {"can": db.execute("SELECT billing.entitled(%s, %s)", (customer, feature)).fetchone()[0]}


def billing_page(db, customer):
    return db.execute("SELECT billing.customer_page(%s)", (customer,)).fetchone()[0]


ROUTES = {
    ("POST", "/sign-up"): (sign_up, 201),
    ("POST", "/projects"): (create_project, 201),
    ("POST", "/answers"): (answer, 201),
    ("GET", "/can"): (can, 200),
    ("GET", "/billing"): (billing_page, 200),
}


class Handler(BaseHTTPRequestHandler):
    def handle_call(self):
        url = urlsplit(self.path)
        route = ROUTES.get((self.command, url.path))
        if route is None:
            return self.reply(404, {"error": "no such page"})
        call, status = route
        try:
            arguments = {name: values[0] for name, values in parse_qs(url.query).items()}
            if self.command == "POST":
                arguments = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            inspect.signature(call).bind(None, **arguments)
        except (TypeError, ValueError) as error:  # fields that are missing or too many, or no JSON
            return self.reply(400, {"error": str(error)})
        try:
            with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
                return self.reply(status, call(db, **arguments))
        except Denied as denied:
            return self.reply(402, denied.args[0])
        except psycopg.Error as error:
            # ZB001 and its like: the message says what is wrong, the hint what helps.
            hint = error.diag.message_hint
            status = 400 if (error.sqlstate or "").startswith("ZB") else 500
            return self.reply(status, {"error": str(error.diag.message_primary), "hint": hint})

    do_GET = do_POST = handle_call

    def reply(self, status, body):
        page = isinstance(body, str)
        data = (body if page else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8" if page else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Handler)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
