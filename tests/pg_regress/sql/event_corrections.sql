-- Corrections: what was sent wrongly is voided, amended or replaced as a stretch; usage and invoices follow, nothing stored is changed.
\set ECHO none
\i tests/pg_regress/helpers.sql
CREATE FUNCTION pg_temp.event(id text, at text, properties text, customer text DEFAULT 'acme', type text DEFAULT 'llm', bill_to text DEFAULT NULL) RETURNS json LANGUAGE sql AS $$
    SELECT json_strip_nulls(json_build_object('customer', customer, 'event_id', id, 'event_type', type, 'occurred_at', at, 'properties', properties::json, 'bill_to', bill_to))
$$;
CREATE FUNCTION pg_temp.sent(VARIADIC events json[]) RETURNS text LANGUAGE sql AS $$
    SELECT format('%s accepted, %s duplicate, %s conflicting, %s rejected', accepted, duplicate, conflicting, rejected) FROM billing.ingest(array_to_json(events))
$$;
-- Sum, count, maximum and distinct values of a stretch, on one line.
CREATE FUNCTION pg_temp.usage(from_at timestamptz, until_at timestamptz, customer text DEFAULT 'acme') RETURNS text LANGUAGE sql AS $$
    SELECT format('tokens %s, requests %s, peak %s, users %s', trim_scale(t.quantity), trim_scale(r.quantity), coalesce(trim_scale(p.quantity)::text, '-'), u.quantity)
    FROM billing.usage(customer, 'tokens', from_at, until_at) t, billing.usage(customer, 'requests', from_at, until_at) r, billing.usage(customer, 'peak', from_at, until_at) p,
        billing.usage(customer, 'users', from_at, until_at) u
$$;
\set ECHO all
SELECT billing.test_clock_set('2026-03-15T12:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model"]},{"key":"requests","event_type":"llm","aggregation":"count","dimensions":["model"]},
  {"key":"peak","event_type":"llm","aggregation":"max","value":"n"},{"key":"users","event_type":"llm","aggregation":"unique_count","value":"user"},{"key":"images","event_type":"image","aggregation":"sum","value":"n"}]}');
SELECT billing.customer_upsert('{"key":"acme","aliases":["acme-inc"],"bill_tos":[{"key":"us","name":"US"},{"key":"uk","name":"UK"}]}') AS a, billing.customer_upsert('{"key":"globex"}') AS g \gset
SELECT pg_temp.sent(pg_temp.event('a', '2026-03-01T10:10:00Z', '{"n":1,"model":"m","user":"ann"}'), pg_temp.event('b', '2026-03-01T10:20:00Z', '{"n":2.5,"model":"m","user":"bob"}'),
  pg_temp.event('c', '2026-03-01T11:00:00Z', '{"n":4,"model":"x","user":"ann"}'), pg_temp.event('d', '2026-03-02T11:00:00Z', '{"n":8,"model":"x","user":"cem"}'));
SELECT pg_temp.usage('2026-03-01Z', '2026-04-01Z'), pg_temp.usage('2026-03-01T10:00Z', '2026-03-01T11:00Z') AS hour;

-- Void: it counts no longer, the second time changes nothing; sent again it is a duplicate and stays void; other content conflicts
SELECT billing.event_void('acme', 'b', 'test traffic'), billing.event_void('acme-inc', 'b', 'again');
SELECT pg_temp.usage('2026-03-01Z', '2026-04-01Z'), pg_temp.usage('2026-03-01T10:00Z', '2026-03-01T11:00Z') AS hour, pg_temp.usage('2026-03-01T10:15Z', '2026-03-01T10:45Z') AS half_an_hour;
SELECT pg_temp.sent(pg_temp.event('b', '2026-03-01T10:20:00Z', '{"n":2.50,"model":"m","user":"bob"}'), pg_temp.event('b', '2026-03-01T10:20:00Z', '{"n":3,"model":"m","user":"bob"}'));
SELECT pg_temp.usage('2026-03-01Z', '2026-04-01Z');
SELECT billing.event_void('acme', 'd', 'wrong day');
SELECT pg_temp.usage('2026-03-01Z', '2026-04-01Z'), pg_temp.usage('2026-03-02Z', '2026-03-03Z') AS the_day;
-- a cell in which nothing counts is no group
SELECT * FROM billing.usage('acme', 'tokens', '2026-03-02Z', '2026-03-03Z', group_by => '{model}');

-- Amend: what is not given stays; the same again is unchanged; both contents are duplicates from then on
SELECT billing.event_amend('acme', 'a', 'wrong count', properties => '{"n":10,"model":"m","user":"ann"}'), billing.event_amend('acme', 'a', 'wrong count', properties => '{"n":10.0,"model":"m","user":"ann"}'), billing.event_amend('acme', 'a', 'nothing given');
SELECT pg_temp.usage('2026-03-01Z', '2026-04-01Z');
SELECT pg_temp.sent(pg_temp.event('a', '2026-03-01T10:10:00Z', '{"n":1,"model":"m","user":"ann"}'), pg_temp.event('a', '2026-03-01T10:10:00Z', '{"n":10,"model":"m","user":"ann"}'), pg_temp.event('a', '2026-03-01T10:10:00Z', '{"n":11,"model":"m","user":"ann"}'));
SELECT billing.ingest_event('acme', 'llm', 'a', '2026-03-01T10:10:00Z', '{"n":10,"model":"m","user":"ann"}') AS one_event;
-- … to another bucket, month (the first event there), dimension, legal entity, type; and back
SELECT billing.event_amend('acme', 'a', 'late clock', occurred_at => '2026-03-01T11:59:59.999999Z'), pg_temp.usage('2026-03-01T10:00Z', '2026-03-01T11:00Z'), pg_temp.usage('2026-03-01T11:00Z', '2026-03-01T12:00Z');
SELECT billing.event_amend('acme', 'a', 'wrong year', occurred_at => '2024-02-29T00:00:00Z', bill_to => 'uk'), pg_temp.usage('2026-03-01Z', '2026-04-01Z'), pg_temp.usage('2024-02-29Z', '2024-03-01Z');
SELECT * FROM billing.usage('acme', 'tokens', '2024-01-01Z', '2025-01-01Z', group_by => '{model,bill_to}');
SELECT billing.event_amend('acme', 'a', 'an image', event_type => 'image', occurred_at => '2026-03-01T10:10:00Z', bill_to => ''), pg_temp.usage('2024-01-01Z', '2026-04-01Z'), (SELECT quantity FROM billing.usage('acme', 'images', '2024-01-01Z', '2026-04-01Z')) AS images;
SELECT billing.event_amend('acme', 'a', 'not an image', event_type => 'llm'), pg_temp.usage('2024-01-01Z', '2026-04-01Z'), (SELECT quantity FROM billing.usage('acme', 'images', '2024-01-01Z', '2026-04-01Z')) AS images;
-- … of a void event: it counts again, with what is given
SELECT billing.event_amend('acme', 'b', 'was no test'), pg_temp.usage('2026-03-01Z', '2026-04-01Z');
SELECT billing.event_amend('acme', 'd', 'was the next day', occurred_at => '2026-03-03T00:00:00Z'), billing.event_void('acme', 'd', 'after all'), billing.event_amend('acme', 'd', 'counts', occurred_at => '2026-03-02T11:00:00Z'), pg_temp.usage('2026-03-01Z', '2026-04-01Z');
SELECT pg_temp.sent(pg_temp.event('d', '2026-03-03T00:00:00Z', '{"n":8,"model":"x","user":"cem"}'), pg_temp.event('d', '2026-03-02T11:00:00Z', '{"n":8,"model":"x","user":"cem"}'), pg_temp.event('d', '2026-03-04T11:00:00Z', '{"n":8,"model":"x","user":"cem"}'));
-- Every revision is kept, and says since when it counts no longer
SELECT e.event_id, e.revision, e.occurred_at, e.event_type, e.bill_to, e.properties->'n' AS n, v.reason, v.replaced_at, v.voided_at = x.recorded_at AS at_once
FROM billing.usage_event e LEFT JOIN billing.usage_event_void v USING (customer_id, event_key, revision)
LEFT JOIN billing.usage_event x ON (x.customer_id, x.event_key, x.revision, x.occurred_at) = (e.customer_id, e.event_key, e.revision + 1, v.replaced_at) ORDER BY e.event_id, e.revision;
SELECT key, action, actor, before->>'revision' AS before, after->>'revision' AS after, reason FROM billing.audit_log WHERE kind = 'event' ORDER BY audit_id;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
CALL billing.fold();
SELECT pg_temp.usage('2026-03-01Z', '2026-04-01Z'), pg_temp.usage('2026-03-01T10:00Z', '2026-03-01T11:00Z') AS hour;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
-- … also what is in buckets already, and where the buckets have become narrower since
SELECT billing.customer_upsert('{"key":"acme","time_zone":"Asia/Kathmandu"}') AS narrower, billing.event_amend('acme', 'a', 'again', properties => '{"n":1,"model":"m","user":"dee"}'), billing.event_void('acme', 'c', 'gone');
SELECT pg_temp.usage('2026-03-01Z', '2026-04-01Z'), pg_temp.usage('2026-03-01T10:00Z', '2026-03-01T11:00Z') AS hour, pg_temp.usage('2026-03-01T10:15Z', '2026-03-01T10:30Z') AS quarter;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
CALL billing.fold();
SELECT pg_temp.usage('2026-03-01Z', '2026-04-01Z'), pg_temp.usage('2026-03-01T10:00Z', '2026-03-01T11:00Z') AS hour, pg_temp.usage('2026-03-01T10:15Z', '2026-03-01T10:30Z') AS quarter;

-- What can't be corrected, and to what; nothing is changed
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[
  $$SELECT billing.event_void('acme', 'zzz', 'x')$$, $$SELECT billing.event_void('nobody', 'a', 'x')$$, $$SELECT billing.event_void('acme', NULL, 'x')$$, $$SELECT billing.event_void('acme', 'a', ' ')$$, $$SELECT billing.event_void('acme', 'a', NULL)$$,
  $$SELECT billing.event_amend('acme', 'zzz', 'x')$$, $$SELECT billing.event_amend('acme', 'a', '')$$, $$SELECT billing.event_amend('globex', 'a', 'x')$$,
  $$SELECT billing.event_amend('acme', 'a', 'x', occurred_at => '2021-03-15T11:59:59Z')$$, $$SELECT billing.event_amend('acme', 'a', 'x', occurred_at => '2026-03-15T13:00:01Z')$$, $$SELECT billing.event_amend('acme', 'a', 'x', occurred_at => 'infinity')$$,
  $$SELECT billing.event_amend('acme', 'a', 'x', bill_to => 'fr')$$, $$SELECT billing.event_amend('acme', 'a', 'x', event_type => '')$$, $$SELECT billing.event_amend('acme', 'a', 'x', properties => '[]')$$,
  $$SELECT billing.event_amend('acme', 'a', 'x', properties => '{"n":"many"}')$$, $$SELECT billing.event_amend('acme', 'a', 'x', properties => '{"n":12345678901234567890123456789}')$$]) c;
\a \t
SELECT pg_temp.usage('2026-03-01Z', '2026-04-01Z');
BEGIN;
SET LOCAL ROLE billing_app;
SAVEPOINT s;
SELECT billing.event_void('acme', 'a', 'x');
ROLLBACK TO s;
RESET ROLE;
SET LOCAL ROLE billing_operator;
SELECT billing.event_void('acme', 'a', 'x'), billing.event_amend('acme', 'a', 'x');
ROLLBACK;

-- ── a stretch ──
-- rules.md 4: a meter that counted too much, 1,200k at 0.50 a thousand, was really 950k: 125.00 less. And in tiers: 950 billed, 100 more cost 75.00.
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"}],"meters":[{"key":"units","event_type":"use","aggregation":"sum","value":"n"},{"key":"jobs","event_type":"job","aggregation":"sum","value":"n"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"units","meter":"units","pricing":{"model":"per_unit","unit_price":"0.50","per":1000}},{"key":"jobs","meter":"jobs","pricing":{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"1.00"},{"unit_price":"0.50"}]}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"units","product":"p","meter":"units","price":"units"},{"key":"jobs","product":"p","meter":"jobs","price":"jobs"}]}]}');
SELECT billing.customer_upsert('{"key":"initech"}') AS c, billing.subscribe('initech', 'pro', '2026-01-01') AS contract \gset
SELECT billing.test_clock_set('2026-01-31T12:00:00Z') AS clock \gset
SELECT pg_temp.sent(pg_temp.event('u1', '2026-01-10T00:00:00Z', '{"n":500000}', 'initech', 'use'), pg_temp.event('u2', '2026-01-20T00:00:00Z', '{"n":300000}', 'initech', 'use'), pg_temp.event('u3', '2026-01-21T00:00:00Z', '{"n":400000}', 'initech', 'use'),
  pg_temp.event('j1', '2026-01-10T00:00:00Z', '{"n":950}', 'initech', 'job'));
SELECT billing.test_clock_set('2026-02-10T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT number, total FROM billing.invoice ORDER BY number;
SELECT pg_temp.sent(pg_temp.event('u4', '2026-02-05T00:00:00Z', '{"n":100000}', 'initech', 'use'));
CREATE TEMP TABLE truth (doc json);
INSERT INTO truth VALUES (json_build_array(pg_temp.event('u1', '2026-01-10T00:00:00Z', '{"n":500000}', 'initech', 'use'), pg_temp.event('u2', '2026-01-20T00:00:00Z', '{"n":440000}', 'initech', 'use'), pg_temp.event('u5', '2026-01-22T00:00:00Z', '{"n":10000}', 'initech', 'use')));
-- … first as a dry run, which stores nothing and says the same
SELECT r.ingested, r.amended, r.voided, r.unchanged, r.changes FROM truth, billing.event_replace('initech', 'use', '2026-01-01Z', '2026-02-01Z', doc, 'meter fixed') r;
SELECT i.*, i.difference::numeric = -125.00 AS ok FROM truth, billing.event_replace('initech', 'use', '2026-01-01Z', '2026-02-01Z', doc, 'meter fixed') r,
  jsonb_to_recordset(r.invoices) i (contract text, boundary int, invoice text, line text, currency text, billed text, pending text, difference text, corrected text, quantity_billed text, quantity_difference text, quantity_corrected text);
SELECT count(*) FILTER (WHERE revision > 0) AS revisions, (SELECT count(*) FROM billing.usage_event_void WHERE reason = 'meter fixed') AS voids, (SELECT count(*) FROM billing.audit_log WHERE action = 'event_replace') AS audited FROM billing.usage_event JOIN billing.customer USING (customer_id) WHERE key = 'initech';
SELECT r.ingested, r.amended, r.voided, r.unchanged, r.changes, r.invoices->0->>'difference' AS difference FROM truth, billing.event_replace('initech', 'use', '2026-01-01Z', '2026-02-01Z', doc, 'meter fixed', false) r;
SELECT quantity, quantity = 950000 AS ok FROM billing.usage('initech', 'units', '2026-01-01Z', '2026-02-01Z');
SELECT line_key, trim_scale(quantity) AS quantity, amount, amount = -125.00 AS ok FROM billing.contract k, billing_internal.unbilled_usage(k.customer_id, k.contract_id, ARRAY[1]) WHERE k.key = 'initech-1';
-- … again: nothing is left to do; an empty document voids all
SELECT r.* FROM truth, billing.event_replace('initech', 'use', '2026-01-01Z', '2026-02-01Z', doc, 'meter fixed', false) r;
SELECT r.ingested, r.amended, r.voided, r.unchanged, r.changes FROM billing.event_replace('initech', 'use', '2026-01-20Z', '2026-01-22Z', '[]', 'none of it') r;
-- … what is missing on the invoice already is told apart; tiers
SELECT i.* FROM billing.event_replace('initech', 'job', '2026-01-01Z', '2026-02-01Z', json_build_array(pg_temp.event('j1', '2026-01-10T00:00:00Z', '{"n":1050}', 'initech', 'job')), 'meter fixed') r,
  jsonb_to_recordset(r.invoices) i (invoice text, line text, billed text, pending text, difference text, corrected text, quantity_billed text, quantity_difference text, quantity_corrected text);
SELECT pg_temp.sent(pg_temp.event('j2', '2026-01-11T00:00:00Z', '{"n":100}', 'initech', 'job'));
SELECT i.* FROM billing.event_replace('initech', 'job', '2026-01-01Z', '2026-01-11Z', json_build_array(pg_temp.event('j1', '2026-01-10T00:00:00Z', '{"n":1050}', 'initech', 'job')), 'meter fixed') r,
  jsonb_to_recordset(r.invoices) i (invoice text, line text, billed text, pending text, difference text, corrected text, quantity_billed text, quantity_difference text, quantity_corrected text);
-- … the open period by its preview; a void event is restored
SELECT r.ingested, r.amended, r.voided, r.unchanged, i.* FROM billing.event_replace('initech', 'use', '2026-02-01Z', '2026-03-01Z', json_build_array(pg_temp.event('u3', '2026-02-06T00:00:00Z', '{"n":7000}', 'initech', 'use')), 'really in February', false) r,
  jsonb_to_recordset(r.invoices) i (invoice text, bill_to text, line text, billed text, pending text, difference text, corrected text, quantity_billed text, quantity_difference text, quantity_corrected text);
SELECT pg_temp.sent(pg_temp.event('u3', '2026-01-21T00:00:00Z', '{"n":400000}', 'initech', 'use'), pg_temp.event('u3', '2026-02-06T00:00:00Z', '{"n":7000}', 'initech', 'use'));
-- Refused as a whole, with the place of the first event that can't be stored
\a \t
SELECT pg_temp.fails(format($$SELECT * FROM billing.event_replace('initech', 'use', '2026-01-01Z', '2026-02-01Z', %L, 'x', false)$$, d)) FROM (VALUES
  (json_build_array(pg_temp.event('n1', '2026-01-10T00:00:00Z', '{"n":1}', 'initech', 'use'), pg_temp.event('n2', '2026-02-01T00:00:00Z', '{"n":1}', 'initech', 'use'), pg_temp.event('n3', '2026-01-10T00:00:00Z', '{"n":1}', 'initech', 'job'))),
  (json_build_array(pg_temp.event('n1', '2026-01-10T00:00:00Z', '{"n":1}', 'acme', 'use'))), (json_build_array(pg_temp.event('n1', '2026-01-10T00:00:00Z', '{"n":1}', 'nobody', 'use'))),
  (json_build_array(pg_temp.event('n1', '2026-01-10T00:00:00Z', '{"n":1}', 'initech', 'use'), pg_temp.event('n1', '2026-01-10T00:00:00Z', '{"n":1}', 'initech', 'use'))),
  (json_build_array(pg_temp.event('u3', '2026-01-10T00:00:00Z', '{"n":1}', 'initech', 'use'))), (json_build_array(pg_temp.event('j1', '2026-01-10T00:00:00Z', '{"n":1}', 'initech', 'use'))),
  (json_build_array(pg_temp.event('n1', '2026-01-10T00:00:00Z', '{"n":"x"}', 'initech', 'use'))), ('[{}]'::json), ('"x"'::json)) x (d);
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT * FROM billing.event_replace('initech', 'use', '2026-01-01Z', '2026-01-01Z', '[]', 'x')$$, $$SELECT * FROM billing.event_replace('initech', 'use', '-infinity', '2026-01-01Z', '[]', 'x')$$,
  $$SELECT * FROM billing.event_replace('initech', 'use', '2026-01-01Z', '2026-02-01Z', NULL, 'x')$$, $$SELECT * FROM billing.event_replace('initech', NULL, '2026-01-01Z', '2026-02-01Z', '[]', 'x')$$,
  $$SELECT * FROM billing.event_replace('initech', 'use', '2026-01-01Z', '2026-02-01Z', '[]', NULL)$$, $$SELECT * FROM billing.event_replace('nobody', 'use', '2026-01-01Z', '2026-02-01Z', '[]', 'x')$$]) c;
\a \t
SELECT quantity, quantity = 950000 AS ok FROM billing.usage('initech', 'units', '2026-01-01Z', '2026-02-01Z');
SELECT billing.test_clock_set('2026-03-15T12:00:00Z') AS clock \gset
CALL billing.fold();
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0 AND check_name <> 'invoices: late usage is billed';

-- ── beside retention ──
-- Where events of a type are removed, nothing of that time can be corrected; what says which contents an id had stays.
SELECT billing.policy_set('event_age_max', '7 days'), billing.event_retention_set('use', '7 days');
CREATE TEMP TABLE kept AS SELECT event_id, event_key, revision FROM billing.usage_event_void JOIN billing.usage_event USING (customer_id, event_key, revision) WHERE event_type = 'use';
SELECT billing.test_clock_set('2027-03-15T12:00:00Z') AS clock \gset
CALL billing.bill_run();
CALL billing.retention();
SELECT count(*) AS stored, (SELECT count(*) FROM kept k JOIN billing.usage_event_void v USING (event_key, revision)) = (SELECT count(*) FROM kept) AS voids_stay FROM billing.usage_event WHERE event_type = 'use';
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.event_void('initech', 'u1', 'x')$$, $$SELECT billing.event_amend('initech', 'u2', 'x', properties => '{"n":1}')$$, $$SELECT billing.event_void('initech', 'u3', 'x')$$]) c;
\a \t
SELECT billing.event_retention_set('use', NULL);
\a \t
SELECT pg_temp.fails($$SELECT billing.policy_set('event_age_max', '5 years')$$);
\a \t
-- Only somebody who goes past policy_set() can send them again.
UPDATE billing.policy SET value = '5 years' WHERE name = 'event_age_max';
SELECT pg_temp.sent(pg_temp.event('u2', '2026-01-20T00:00:00Z', '{"n":300000}', 'initech', 'use'), pg_temp.event('u2', '2026-01-20T00:00:00Z', '{"n":440000}', 'initech', 'use'), pg_temp.event('u2', '2026-01-20T00:00:00Z', '{"n":1}', 'initech', 'use'));
SELECT quantity, quantity = 950000 AS ok FROM billing.usage('initech', 'units', '2026-01-01Z', '2026-02-01Z');
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0 AND check_name NOT LIKE 'invoices: %';
