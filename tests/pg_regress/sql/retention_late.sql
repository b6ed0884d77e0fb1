-- Late usage, voids, corrections and changed meters beside events that retention has removed, under a price that asks for
-- single events: nothing that is accepted needs them, what would is refused, and no contract is held up for ever.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T12:00:00Z') AS clock \gset
SELECT billing.policy_set('event_age_max', '60 days');
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p","name":"P"}],"meters":[{"key":"p50","event_type":"e","aggregation":"percentile","percentile":"50","value":"v"},
  {"key":"sum","event_type":"e","aggregation":"sum","value":"v"},{"key":"calls","event_type":"call","aggregation":"count"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"p50","meter":"p50","pricing":{"model":"per_unit","unit_price":"1"}},{"key":"sum","meter":"sum","pricing":{"model":"per_unit","unit_price":"1"}},
    {"key":"calls","meter":"calls","pricing":{"model":"per_unit","unit_price":"0.01"}}]}],
  "plans":[{"key":"mid","currency":"USD","price_book":"list","charges":[{"key":"p50","product":"p","meter":"p50","price":"p50"},{"key":"calls","product":"p","meter":"calls","price":"calls"}],
      "fees":[{"key":"f","product":"p","pricing":{"model":"flat","amount":"0.5"}}]},
    {"key":"all","currency":"USD","price_book":"list","charges":[{"key":"sum","product":"p","meter":"sum","price":"sum"}]}]}');
SELECT billing.customer_upsert(jsonb_build_object('key', k)), billing.subscribe(k, p, '2026-01-01') FROM (VALUES ('up', 'mid'), ('down', 'mid'), ('still', 'mid'), ('sums', 'all')) x (k, p);
CREATE FUNCTION pg_temp.sent(customer text, id text, at timestamptz, v int, type text DEFAULT 'e') RETURNS text LANGUAGE sql AS $$
  SELECT CASE WHEN i.accepted = 1 THEN 'accepted' ELSE i.errors->0->>'reason' END FROM billing.ingest(json_build_array(json_build_object('customer', customer, 'event_id', id, 'event_type', type, 'occurred_at', at, 'properties', json_build_object('v', v)))) i $$;
SELECT pg_temp.sent(c, id, at::timestamptz, v) FROM unnest('{up,down,still,sums}'::text[]) c, (VALUES ('1', '2026-01-01T10:00Z', 100), ('2', '2026-01-01T10:00Z', 50)) e (id, at, v);
SELECT billing.test_clock_set('2026-02-01T12:00:00Z') AS clock \gset
SELECT pg_temp.sent(c, '3', '2026-01-25T10:00Z', 1, 'call') FROM unnest('{up,still}'::text[]) c;
CALL billing.bill_run();
-- What comes late makes a difference on up's next invoice, and a credit note for down.
SELECT pg_temp.sent('up', 'late', '2026-01-01T10:30Z', 60), pg_temp.sent('down', 'late', '2026-01-01T10:30Z', 5), pg_temp.sent('down', 'later', '2026-01-01T10:30Z', 5);
SELECT billing.test_clock_set('2026-03-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.event_retention_set('e', '60 days');
-- January can still get events, so it stays whole, also for those that are 60 days old; they are billed.
SELECT billing.test_clock_set('2026-03-30T12:00:00Z') AS clock \gset
CALL billing.retention();
SELECT event_type, removed_until FROM billing.event_retention;
SELECT pg_temp.sent('up', 'in time', '2026-01-29T13:00Z', 70), pg_temp.sent('up', 'late call', '2026-01-29T13:00Z', 1, 'call'), pg_temp.sent('up', 'too late', '2026-01-29T11:00Z', 70);
-- A transaction that began two days ago may still bring one.
SELECT billing.test_clock_set('2026-04-03T11:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT i.key, l.key AS line, l.amount FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) WHERE l.kind = 'difference' ORDER BY 1, 2;
CALL billing.retention();
SELECT event_type, removed_until FROM billing.event_retention;
SELECT billing.test_clock_set('2026-04-10T12:00:00Z') AS clock \gset
CALL billing.retention();
SELECT event_type, removed_until, (SELECT count(*) FROM billing.usage_event WHERE event_type = 'e') AS left FROM billing.event_retention;

-- A document whose differences could not be computed again is void for good, or not at all: an invoice, a credit note.
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.invoice_void('up-1/2', 'x')$$, $$SELECT billing.invoice_void(number, 'x') FROM billing.invoice WHERE kind = 'credit_note'$$, $$SELECT billing.invoice_void('still-1/1', 'x')$$,
-- Nor is anything accepted or corrected that January would have to be computed for: whatever order policies are set in, and whoever sells.
  $$SELECT billing.event_void('still', '3', 'x')$$]) c;
SELECT billing.event_retention_set('e', '4 years');
SELECT billing.seller_upsert('{"key":"other","name":"Other","currency":"USD"}');
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.policy_set('event_age_max', '4 years')$$, $$SELECT billing.policy_set('event_age_max', '4 years', 'seller:other')$$, $$SELECT billing.policy_set('event_age_max', '100 days')$$]) c;
\a \t
SELECT billing.policy_set('event_age_max', '61 days');
-- For good it can be; what has no such price can be issued again.
SELECT billing.invoice_void('up-1/2', 'x', false), billing.invoice_void(number, 'x', false) FROM billing.invoice WHERE kind = 'credit_note';
SELECT billing.invoice_void('sums-1/1', 'x');
SELECT pg_temp.sent(c, id, '2026-03-25T10:00Z', v) FROM unnest('{up,sums}'::text[]) c, (VALUES ('4', 10), ('5', 30), ('6', 50)) e (id, v);
SELECT billing.test_clock_set('2026-05-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT key, kind, state, reissue, total FROM billing.invoice ORDER BY key, created_at;
SELECT count(*) FROM billing.job_issue;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

-- ── a period of which a part is gone ─────────────────────────────────────────────────────────────
SELECT billing.test_clock_set('2026-05-20T12:00:00Z') AS clock \gset
SELECT billing.policy_set('event_age_max', '10 days'), billing.event_retention_set('e', '60 days');
CALL billing.retention();
SELECT event_type, removed_until FROM billing.event_retention;
\a \t
-- What is left of March can't be corrected where the price asks for all of it,
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.event_void('up', '5', 'x')$$, $$SELECT billing.event_amend('up', '5', 'x', occurred_at => '2026-05-15T00:00Z')$$, $$SELECT * FROM billing.event_replace('up', 'e', '2026-03-25Z', '2026-03-26Z', '[]', 'x')$$,
-- and March would have to be whole to accept more of it.
  $$SELECT billing.policy_set('event_age_max', '51 days')$$]) c;
\a \t
SELECT billing.policy_set('event_age_max', '49 days');
SELECT billing.event_void('sums', '5', 'x');
-- A meter that changes for a time of which events are gone says from when on it does.
SET client_min_messages = notice;
SELECT kind, key, action FROM billing.catalog_apply('{"meters":[{"key":"p50","event_type":"e","aggregation":"percentile","percentile":"50","value":"2*v","valid_from":"2026-03-01T00:00:00Z"},
  {"key":"most","event_type":"e","aggregation":"max","value":"v"}]}');
RESET client_min_messages;
SELECT k.key, l.n FROM billing.late_usage l JOIN billing.contract k USING (customer_id, contract_id) WHERE l.closed_at IS NULL ORDER BY 1, 2;
-- One rule for what is noted: it waits, also where it can't be told.
SELECT check_name, checked, failed, example FROM billing.verify('full') WHERE failed > 0 OR check_name LIKE '%late usage%';
-- The next run bills what is due, and tells once what can't be compared any more.
SELECT billing.test_clock_set('2026-06-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT i.key, l.key AS line, l.amount FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) WHERE i.n = 5 OR l.kind = 'difference' ORDER BY 1, 2;
SELECT kind, key, sqlstate, message, detail, hint FROM billing.job_issue;
SELECT count(*) FROM billing.late_usage WHERE closed_at IS NULL;
SELECT billing.test_clock_set('2026-07-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT count(*) AS issues, (SELECT count(*) FROM billing.invoice WHERE n = 6) AS invoices FROM billing.job_issue;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

-- ── late usage that no price matches ─────────────────────────────────────────────────────────────
SELECT count(*) FROM billing.catalog_apply('{"meters":[{"key":"jobs","event_type":"job","aggregation":"count","dimensions":["size"]}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"jobs","meter":"jobs","pricing":{"model":"matrix","dimensions":["size"],"rows":[{"match":{"size":"s"},"unit_price":"1"}]}}]}],
  "plans":[{"key":"gap","currency":"USD","price_book":"list","charges":[{"key":"jobs","product":"p","meter":"jobs","price":"jobs"}]}]}');
SELECT billing.customer_upsert('{"key":"gap"}'), billing.subscribe('gap', 'gap', '2026-06-01');
CALL billing.bill_run();
SELECT accepted FROM billing.ingest('{"customer":"gap","event_id":"1","event_type":"job","occurred_at":"2026-06-15T00:00:00Z","properties":{"size":"m"}}');
SELECT check_name, checked, failed, example FROM billing.verify('full') WHERE failed > 0 OR check_name LIKE '%late usage that%';
