-- A boundary issued again for some legal entities only, while others' invoices of it stand and all share credit: what stands
-- keeps what it drew, what is issued again gets what is left, and the next bill settles all of it by the time of the usage.
\set ECHO none
\i tests/pg_regress/helpers.sql
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
\i tests/pg_regress/credit_deals.sql
\set ECHO all

-- 10 for two legal entities: eu has 4 and us 3 of January, eu the last 3 of February. Then us used 5 more, on January 1, and its January is issued again
SELECT billing.customer_upsert('{"key":"acme","bill_tos":[{"key":"eu","name":"EU"},{"key":"us","name":"US"}]}'), billing.subscribe('acme', 'one', '2026-01-01'), billing.credit_grant_create('acme', '{"key":"G","amount":"10"}');
SELECT billing.test_clock_set('2026-02-20T00:00:00Z') AS clock \gset
SELECT billing.ingest_event('acme', 'llm', i, a::timestamptz, jsonb_build_object('n', n), b) FROM (VALUES ('e1', '2026-01-05Z', 4, 'eu'), ('e2', '2026-01-06Z', 3, 'us')) v (i, a, n, b);
CALL billing.bill_run();
SELECT billing.ingest_event('acme', 'llm', i, a::timestamptz, jsonb_build_object('n', n), b) FROM (VALUES ('f1', '2026-02-05Z', 4, 'eu'), ('f2', '2026-02-06Z', 3, 'us')) v (i, a, n, b);
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.ingest_event('acme', 'llm', 'late', '2026-01-01T12:00:00Z', '{"n":5}', 'us'), billing.invoice_void(number, 'wrong address') FROM billing.invoice WHERE key = 'acme-1/1:us';
-- what is pending is what all of it would draw: 10 in all, of which 3 are free
SELECT posted, pending, available FROM billing.credit_balance('acme');
CALL billing.bill_run();
-- us gets the 3 that are free; nothing is taken from eu, which gets no document
SELECT * FROM documents;
SELECT * FROM pg_temp.wrong();
SELECT check_name, example FROM billing.verify('full') WHERE example IS NOT NULL;
-- The next bill settles by time: 5 and 1 to us, 4 to eu, nothing of February
SELECT billing.test_clock_set('2026-04-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM documents OFFSET 5;
SELECT d.*, d.amount = w.want AS ok FROM drawn d LEFT JOIN (VALUES ('eu', 4), ('us', 6)) w (b, want) ON w.b = d.bill_to AND d.n = 1 ORDER BY 2, 3;
SELECT n, bill_to, amount, amount = want AS ok FROM billed JOIN (VALUES (1, 'eu', 4), (1, 'us', 8), (2, 'eu', 4), (2, 'us', 3)) w (n, bill_to, want) USING (n, bill_to) ORDER BY 1, 2;
SELECT * FROM pg_temp.wrong();
SELECT count(*) AS waits FROM billing.late_usage WHERE closed_at IS NULL;

-- Without credit: what eu no longer used is not forgotten because us' invoice alone is issued again
SELECT billing.customer_upsert('{"key":"cash","bill_tos":[{"key":"eu","name":"EU"},{"key":"us","name":"US"}]}'), billing.subscribe('cash', 'one', '2026-03-01');
SELECT billing.ingest_event('cash', 'llm', i, a::timestamptz, jsonb_build_object('n', n), b) FROM (VALUES ('e1', '2026-03-05Z', 4, 'eu'), ('e2', '2026-03-06Z', 3, 'us')) v (i, a, n, b);
CALL billing.bill_run();
SELECT billing.event_void('cash', 'e1', 'a test'), billing.invoice_void(number, 'wrong address') FROM billing.invoice WHERE key = 'cash-1/1:us';
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-05-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT key, kind, state, total FROM documents WHERE contract = 'cash-1';
SELECT * FROM pg_temp.wrong();

-- A document that gave credit back can't be voided while others have drawn that: theirs first, as it says
SELECT billing.customer_upsert('{"key":"back","bill_tos":[{"key":"eu","name":"EU"},{"key":"us","name":"US"}]}'), billing.subscribe('back', 'one', '2026-05-01'), billing.credit_grant_create('back', '{"key":"B","amount":"4"}');
SELECT billing.test_clock_set('2026-06-01T00:00:00Z') AS clock \gset
SELECT billing.ingest_event('back', 'llm', 'e1', '2026-05-05Z', '{"n":4}', 'eu');
CALL billing.bill_run();
SELECT billing.event_void('back', 'e1', 'a test'), billing.ingest_event('back', 'llm', 'e2', '2026-06-01Z', '{"n":3}', 'us');
SELECT billing.test_clock_set('2026-07-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT key, kind, state, total, credits FROM documents WHERE contract = 'back-1';
CREATE FUNCTION pg_temp.refused(of_key text) RETURNS SETOF text LANGUAGE sql AS $$ SELECT regexp_replace(e, '(INV|CN)-2026-[0-9]+', '\1-…', 'g') FROM billing.invoice i, pg_temp.fails(format('SELECT billing.invoice_void(%L, ''wrong'')', i.number)) e WHERE i.key = of_key $$;
SELECT pg_temp.refused('back-1/1.2') AS error;
CREATE FUNCTION pg_temp.by_hint(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE hint text; first text; voided int := 0;
BEGIN
  PERFORM billing.invoice_void(name, 'wrong');
  RETURN 'at once';
EXCEPTION WHEN SQLSTATE 'ZB014' THEN
  GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
  FOR first IN SELECT m[1] FROM regexp_matches(hint, '[A-Z]+-[0-9]{4}-[0-9]+', 'g') m LOOP
    PERFORM billing.invoice_void(first, 'it drew what comes back');
    voided := voided + 1;
  END LOOP;
  PERFORM billing.invoice_void(name, 'wrong');
  RETURN format('after %s others', voided);
END $$;
SELECT pg_temp.by_hint(number) FROM billing.invoice WHERE key = 'back-1/1.2';
CALL billing.bill_run();
SELECT key, kind, state, total, credits FROM documents WHERE contract = 'back-1';
SELECT n, bill_to, amount FROM drawn WHERE contract = 'back-1' ORDER BY 1, 2;
SELECT * FROM pg_temp.wrong();
-- … unless a call has it: then the invoice is corrected
SELECT billing.event_void('back', 'e2', 'a test');
SELECT billing.test_clock_set('2026-08-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT result FROM billing.draw_down('back', 4, 'a call');
SELECT key, kind, state, total, credits FROM documents WHERE contract = 'back-1' OFFSET 5;
SELECT pg_temp.refused('back-1/2.3:us') AS error;
SELECT line_key, billed, corrected, action FROM billing.invoice i, billing.invoice_correct(i.number) c WHERE i.key = 'back-1/2.2:us';
SELECT * FROM pg_temp.wrong();

-- Two legal entities, two boundaries: which is voided (bits 0 to 2), late usage or a void event of whom (3) and when (4, 5)
SELECT billing.test_clock_set('2026-08-10T00:00:00Z') AS clock \gset
SELECT count(billing.customer_upsert(jsonb_build_object('key', 'c' || n, 'bill_tos', '[{"key":"eu","name":"EU"},{"key":"us","name":"US"}]'::jsonb))), count(billing.subscribe('c' || n, 'one', '2026-06-01')),
  count(billing.credit_grant_create('c' || n, '{"key":"G","amount":"10","effective_on":"2026-06-01"}')) FROM generate_series(0, 63) n;
SELECT count(billing.ingest_event('c' || n, 'llm', i, a::timestamptz, jsonb_build_object('n', q), b)) FROM generate_series(0, 63) n,
  (VALUES ('e1', '2026-06-05Z', 4, 'eu'), ('e2', '2026-06-06Z', 3, 'us'), ('f1', '2026-07-05Z', 4, 'eu'), ('f2', '2026-07-06Z', 3, 'us')) v (i, a, q, b);
CALL billing.bill_run();
SELECT count(billing.ingest_event('c' || n, 'llm', 'late', CASE WHEN n & 16 = 0 THEN '2026-06-01T12:00:00Z' ELSE '2026-07-01T12:00:00Z' END::timestamptz, '{"n":5}', CASE WHEN n & 8 = 0 THEN 'eu' ELSE 'us' END))
FROM generate_series(0, 63) n WHERE n & 32 = 0;
SELECT count(*) FROM (SELECT billing.event_void('c' || n, (ARRAY['e1', 'e2', 'f1', 'f2'])[1 + (n & 24) / 8], 'a test') FROM generate_series(0, 63) n WHERE n & 32 <> 0) v;
SELECT count(*) FROM (SELECT billing.invoice_void(i.number, 'wrong address') FROM generate_series(0, 63) v JOIN billing.invoice i ON v & 3 < 3 AND i.key = ANY (ARRAY[CASE WHEN v & 1 = 0 THEN 'c' || v || '-1/' || 1 + (v & 4) / 4 END,
  CASE WHEN v & 3 > 0 THEN 'c' || v || '-1/' || 1 + (v & 4) / 4 || ':us' END])) v;
CALL billing.bill_run();
SELECT * FROM pg_temp.wrong();

-- Voided for good: what it drew is back, what it billed is settled elsewhere, and what changes about it is asked in money, and never given back in credit
SELECT billing.test_clock_set('2026-09-01T00:00:00Z') AS clock \gset
SELECT count(billing.customer_upsert(jsonb_build_object('key', c, 'bill_tos', '[{"key":"eu","name":"EU"},{"key":"us","name":"US"}]'::jsonb))), count(billing.subscribe(c, 'one', '2026-09-01')),
  count(billing.credit_grant_create(c, jsonb_build_object('key', 'G', 'amount', g))) FROM (VALUES ('less', 10), ('more', 4), ('before', 10), ('other', 10)) v (c, g);
SELECT billing.test_clock_set('2026-10-01T00:00:00Z') AS clock \gset
SELECT count(billing.ingest_event(c, 'llm', 'e1', '2026-09-05Z', '{"n":4}', 'eu')) FROM (VALUES ('less'), ('more'), ('before'), ('other')) v (c);
SELECT billing.ingest_event('other', 'llm', 'e2', '2026-09-06Z', '{"n":3}', 'us') AS x \gset
CALL billing.bill_run();
-- a difference that counted it while it stood
SELECT billing.ingest_event('before', 'llm', 'e2', '2026-09-02Z', '{"n":2}', 'eu') AS x \gset
SELECT billing.test_clock_set('2026-11-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT count(*) FROM (SELECT billing.invoice_void(i.number, 'settled elsewhere', false) FROM billing.invoice i WHERE i.key IN ('less-1/1', 'more-1/1', 'before-1/1', 'other-1/1')) v;
SELECT * FROM pg_temp.wrong();
SELECT billing.event_void('less', 'e1', 'a test'), billing.event_void('before', 'e1', 'a test'), billing.event_void('other', 'e1', 'a test') \g /dev/null
SELECT billing.ingest_event('more', 'llm', 'e2', '2026-09-02Z', '{"n":3}', 'eu'), billing.ingest_event('more', 'llm', 'e3', '2026-10-31Z', '{"n":3}', 'eu'), billing.ingest_event('other', 'llm', 'e3', '2026-09-07Z', '{"n":5}', 'us') \g /dev/null
SELECT billing.test_clock_set('2026-12-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT key, kind, state, total, credits FROM documents WHERE contract IN ('less-1', 'more-1', 'before-1', 'other-1');
SELECT c.key, b.posted FROM billing.credit_block_balance b JOIN billing.customer c USING (customer_id) WHERE c.key IN ('less', 'more', 'before', 'other') ORDER BY 1;
SELECT * FROM pg_temp.wrong();
