// A small application that gates, meters and stores in one transaction, and shows the customer's billing page.
// The same routes as ../python/app.py, which describes them. DATABASE_URL names the database, PORT where to listen.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import pg from "pg";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
// A connection that is lost while nobody uses it would otherwise end the process.
pool.on("error", (error) => console.error(error.message));

/** The plan does not allow it; nothing was stored or counted. */
class Denied extends Error {
  constructor(readonly answer: { reason: string; used: string | null; quota: string | null }) {
    super(answer.reason);
  }
}

/** Runs in one transaction: the gate, the count and our own row, or none of them. */
async function together<T>(work: (db: pg.PoolClient) => Promise<T>): Promise<T> {
  const db = await pool.connect();
  try {
    await db.query("BEGIN");
    const result = await work(db);
    await db.query("COMMIT");
    db.release();
    return result;
  } catch (error) {
    // Back to the pool only if it could be rolled back: a lost connection is thrown away, and the first error is the one told.
    await db.query("ROLLBACK").then(() => db.release(), (lost) => db.release(lost));
    throw error;
  }
}

/** The request is not what it has to be. */
class Invalid extends Error {}

/** Asks and counts at once. numeric comes as text, so no digit of it is lost. */
async function consume(db: pg.PoolClient, customer: string, feature: string, quantity: number, key: string, properties: object) {
  const { rows } = await db.query<{ result: string; reason: string; used: string | null; quota: string | null }>(
    `SELECT result, reason, trim_scale(used)::text AS used, trim_scale(quota)::text AS quota
     FROM billing.consume($1, $2, $3, $4, $5)`,
    [customer, feature, quantity, key, properties],
  );
  const { result, ...answer } = rows[0];
  if (result === "denied") throw new Denied(answer);
}

type Body = Record<string, unknown>;

/** The named fields of a request, all of them texts. */
function fields<K extends string>(body: Body, ...names: K[]): Record<K, string> {
  for (const name of names) {
    if (typeof body[name] !== "string") throw new Invalid(`${name} is missing or no text`);
  }
  return body as Record<K, string>;
}

async function signUp(body: Body) {
  const { customer, name } = fields(body, "customer", "name");
  return together(async (db) => {
    await db.query("SELECT billing.customer_upsert($1)", [{ key: customer, name, currency: "USD" }]);
    const { rows } = await db.query("SELECT billing.subscribe($1, 'team') AS contract", [customer]);
    return { contract: rows[0].contract };
  });
}

async function createProject(body: Body) {
  const { customer, project } = fields(body, "customer", "project");
  return together(async (db) => {
    await consume(db, customer, "projects", 1, `project:${project}`, {});
    await db.query("INSERT INTO writer.project VALUES ($1, $2) ON CONFLICT DO NOTHING", [customer, project]);
    return { project };
  });
}

async function answer(body: Body) {
  const { customer, request, model, prompt } = fields(body, "customer", "request", "model", "prompt");
  const tokens = 1000 * prompt.split(/\s+/).filter(Boolean).length; // what a model would have taken
  const text = [...prompt].reverse().join("");
  return together(async (db) => {
    await consume(db, customer, "tokens", tokens, `answer:${request}`, { model });
    await db.query("INSERT INTO writer.answer VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING", [customer, request, model, tokens, text]);
    // What was stored: a retry gets the answer that was counted, not another one.
    const { rows } = await db.query("SELECT answer, tokens FROM writer.answer WHERE customer = $1 AND request = $2", [customer, request]);
    return rows[0];
  });
}

async function can(body: Body) {
  const { customer, feature } = fields(body, "customer", "feature");
  const { rows } = await pool.query("SELECT billing.entitled($1, $2) AS can", [customer, feature]);
  return { can: rows[0].can };
}

async function billingPage(body: Body): Promise<string> {
  const { customer } = fields(body, "customer");
  const { rows } = await pool.query<{ page: string }>("SELECT billing.customer_page($1) AS page", [customer]);
  return rows[0].page;
}

const routes: Record<string, [(body: Body) => Promise<object | string>, number]> = {
  "POST /sign-up": [signUp, 201],
  "POST /projects": [createProject, 201],
  "POST /answers": [answer, 201],
  "GET /can": [can, 200],
  "GET /billing": [billingPage, 200],
};

function reply(response: ServerResponse, status: number, body: object | string) {
  const page = typeof body === "string";
  response.writeHead(status, { "Content-Type": page ? "text/html; charset=utf-8" : "application/json" });
  response.end(page ? body : JSON.stringify(body));
}

async function handle(request: IncomingMessage, response: ServerResponse) {
  const url = new URL(request.url ?? "/", "http://localhost");
  const route = routes[`${request.method} ${url.pathname}`];
  if (!route) return reply(response, 404, { error: "no such page" });
  const [call, status] = route;
  try {
    let body: Body = Object.fromEntries(url.searchParams);
    if (request.method === "POST") {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      body = JSON.parse(Buffer.concat(chunks).toString());
    }
    reply(response, status, await call(body));
  } catch (error) {
    if (error instanceof Denied) return reply(response, 402, error.answer);
    if (error instanceof Invalid || error instanceof SyntaxError) return reply(response, 400, { error: error.message });
    // ZB001 and its like: the message says what is wrong, the hint what helps.
    const { code = "", hint, message } = error as pg.DatabaseError;
    reply(response, code.startsWith("ZB") ? 400 : 500, { error: message, hint });
  }
}

const server = createServer((request, response) => void handle(request, response));
server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => {
  const address = server.address();
  console.log(`listening on ${typeof address === "object" ? address?.port : address}`);
});
