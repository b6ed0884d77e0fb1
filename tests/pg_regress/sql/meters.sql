-- Meters that change: versions for events since an instant, in the past too, usage measured again, and what invoices
-- that were issued before say.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p","name":"Product"}],"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n","dimensions":["model"],"unit":"token"},{"key":"peak","event_type":"use","aggregation":"max","value":"n"},{"key":"users","event_type":"use","aggregation":"unique_count","value":"user"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"q","meter":"q","pricing":{"model":"per_unit","unit_price":"0.01"}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"q","product":"p","meter":"q","price":"q"}]}]}');
SELECT billing.customer_upsert(jsonb_build_object('key', k)), billing.subscribe(k, 'pro', '2026-01-01') FROM unnest('{acme,globex}'::text[]) k;
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
-- 48 events a customer, one every 15 hours and 20 minutes, of 1, 2, 3 … tokens, cached ones beside.
SELECT accepted FROM billing.ingest((SELECT json_agg(json_build_object('customer', k, 'event_id', i::text, 'event_type', 'use', 'occurred_at', to_char(timestamp '2026-01-01' + i * interval '15 hours 20 minutes', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
  'properties', json_build_object('n', i, 'cached', i % 2, 'model', (ARRAY['a', 'b'])[i % 2 + 1], 'user', 'u' || i % 7))) FROM unnest('{acme,globex}'::text[]) k, generate_series(0, 47) i));
CALL billing.fold();
SELECT quantity, events FROM billing.usage('acme', 'q', '2026-01-01Z', '2026-02-01Z');
CALL billing.bill_run();
SELECT i.number, l.key, trim_scale(l.quantity) AS quantity, l.amount, i.document->'inputs'->'meters' AS meters FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) ORDER BY i.number, l.line_n;

-- A version for events since the 15th: cached tokens do not count. Usage is what it says at once, buckets and all.
SELECT action, before->'value' AS before, after->'value' AS after, after->'valid_from' AS valid_from, after->'version' AS version
FROM billing.catalog_apply('{"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n - cached","dimensions":["model"],"unit":"token","valid_from":"2026-01-15T10:30:00Z"}]}');
SELECT action FROM billing.catalog_apply('{"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n - cached","dimensions":["model"],"unit":"token","valid_from":"2026-01-15T10:30:00Z"}]}');
CREATE FUNCTION pg_temp.naive(of_meter text) RETURNS numeric LANGUAGE sql AS $$
    SELECT sum((e.properties->>'n')::numeric - CASE WHEN of_meter = 'q' AND e.occurred_at >= '2026-01-15T10:30:00Z' THEN (e.properties->>'cached')::numeric ELSE 0 END)
    FROM billing.usage_event e JOIN billing.customer c USING (customer_id) WHERE c.key = 'acme' $$;
SELECT quantity, events, quantity = pg_temp.naive('q') AS naive FROM billing.usage('acme', 'q', '2026-01-01Z', '2026-02-01Z');
SELECT dimensions, quantity, events FROM billing.usage('acme', 'q', '2026-01-15T10:00Z', '2026-01-16Z', group_by => '{model}');
SELECT v.version, v.valid_from, v.definition->>'value' AS value FROM billing.meter_version v JOIN billing.meter m USING (meter_id) WHERE m.key = 'q' ORDER BY 1;
SELECT (SELECT count(*) FROM billing.usage_dirty) AS dirty, count(*) AS open FROM billing.meter_rebuild WHERE finished_at IS NULL;
-- Issued invoices recompute to the same bytes, with the meter they were made with, and list the events as they counted then.
SELECT i.number, bool_and(r.same_bytes) AS same FROM billing.invoice i CROSS JOIN LATERAL billing.invoice_recompute(i.number) r GROUP BY i.number ORDER BY 1;
SELECT sum(e.value) FROM billing.invoice_line_events('INV-2026-000001', 'q/2026-01-01') e;
SELECT check_name, failed > 0 AS failed FROM billing.verify('full') WHERE failed > 0;

-- Where nothing may be shut out for long, the meter answers from events until the job has been there.
SELECT quantity, events FROM billing.usage('acme', 'users', '2026-01-01Z', '2026-02-01Z');
SELECT billing_internal.rebuild_ask(m.meter_id, '2026-01-10T00:20:00Z', '2026-01-20T00:40:00Z', 'test') IS NOT NULL AS asked FROM billing.meter m;
SELECT m.key, r.from_at, r.until_at, r.stripes_passed, r.finished_at IS NULL AS open FROM billing.meter_rebuild r JOIN billing.meter m USING (meter_id) WHERE r.reason = 'test' ORDER BY 1;
-- As a meter that counted otherwise would have left them:
UPDATE billing.usage_bucket SET quantity = quantity + 1000, events = events + 7 WHERE bucket_start >= '2026-01-10Z' AND bucket_start < '2026-01-20T01:00Z';
UPDATE billing.usage_value SET value_key = billing_internal.key_of_text('nobody') WHERE bucket_start >= '2026-01-10Z' AND bucket_start < '2026-01-20T01:00Z' AND value_key = billing_internal.key_of_text('u3');
CREATE FUNCTION pg_temp.answers() RETURNS TABLE (meter text, quantity numeric, events bigint) LANGUAGE sql AS $$
    SELECT m.key, u.quantity, u.events FROM billing.meter m CROSS JOIN LATERAL billing.usage('acme', m.key, '2026-01-01Z', '2026-02-01Z') u ORDER BY 1 $$;
SELECT * FROM pg_temp.answers();
SELECT sum(quantity), count(*) FROM billing.usage('acme', 'q', '2026-01-01Z', '2026-02-01Z', 'hour');
SELECT check_name, failed FROM billing.verify('full') WHERE check_name LIKE 'usage%' AND failed > 0;
CALL billing.meter_rebuild();
SELECT * FROM pg_temp.answers();
SELECT job, state, total, done FROM billing.job_run WHERE job = 'meter_rebuild';
SELECT (SELECT count(*) FROM billing.usage_dirty) AS dirty, count(*) FILTER (WHERE finished_at IS NULL) AS open, count(DISTINCT stripes_passed) FROM billing.meter_rebuild;
SELECT check_name, failed FROM billing.verify('full') WHERE check_name LIKE 'usage%' AND failed > 0;
-- Asked for by name; what stands outside the stretch is not looked at.
UPDATE billing.usage_bucket SET quantity = quantity + 1000;
CALL billing.meter_rebuild('q', '2026-01-10Z', '2026-01-20Z', 'a disk lied');
CALL billing.meter_rebuild('peak');
SELECT check_name, failed > 0 AS failed FROM billing.verify('full') WHERE check_name LIKE 'usage%' AND failed > 0;
CALL billing.meter_rebuild('q');
SELECT check_name, failed FROM billing.verify('full') WHERE check_name LIKE 'usage%' AND failed > 0;
SELECT action, kind, key, after FROM billing.audit_log WHERE action = 'meter_rebuild' ORDER BY audit_id;

-- Another event type, and the filter of before: versions replace each other where both are valid.
SELECT accepted FROM billing.ingest('[{"customer":"acme","event_id":"call","event_type":"call","occurred_at":"2026-01-20T00:00:00Z","properties":{"n":5}}]');
SELECT action FROM billing.catalog_apply('{"meters":[{"key":"q","event_type":"call","aggregation":"sum","value":"n","unit":"call","valid_from":"2026-01-20T00:00:00Z"}]}');
SELECT starts_at, quantity, events FROM billing.usage('acme', 'q', '2026-01-18Z', '2026-01-22Z', 'day');
SELECT action FROM billing.catalog_apply('{"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n","dimensions":["model"],"unit":"token","valid_from":"2026-01-01T00:00:00Z"}]}');
SELECT starts_at, quantity, events FROM billing.usage('acme', 'q', '2026-01-18Z', '2026-01-22Z', 'day');
SELECT s.as_of_version, s.version, s.from_at, s.until_at FROM billing_internal.meter_stretch s JOIN billing.meter m USING (meter_id) WHERE m.key = 'q' ORDER BY 1, 3;

-- A dimension that a version adds is a property like any other before it.
SELECT billing.catalog_apply('{"meters":[{"key":"s","event_type":"use","aggregation":"sum","value":"n","dimensions":["model"]}]}') IS NOT NULL AS made;
SELECT dimensions, quantity FROM billing.usage('acme', 's', '2026-01-01Z', '2026-02-01Z', group_by => '{cached}');
SELECT billing.catalog_apply('{"meters":[{"key":"s","event_type":"use","aggregation":"sum","value":"n","dimensions":["model","cached"],"valid_from":"2026-01-16T00:00:00Z"}]}') IS NOT NULL AS changed;
SELECT dimensions, quantity FROM billing.usage('acme', 's', '2026-01-01Z', '2026-02-01Z', group_by => '{cached}');
SELECT quantity FROM billing.usage('acme', 's', '2026-01-01Z', '2026-02-01Z', filter => '{"cached":"1"}');
SELECT dimensions, quantity FROM billing.usage('acme', 's', '2026-01-20Z', '2026-02-01Z', group_by => '{cached}');

-- The same definition since an earlier instant is a version, too; since the instant it holds, or a later one, it says nothing new.
CREATE FUNCTION pg_temp.again(value text, since timestamptz) RETURNS TABLE (action text, version int, quantity numeric) LANGUAGE plpgsql AS $$
BEGIN
    SELECT string_agg(a.action, ', '), max((a.after->>'version')::int) INTO action, version FROM billing.catalog_apply(jsonb_build_object('meters', jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'key', 'again', 'event_type', 'use', 'aggregation', 'sum', 'value', value, 'valid_from', since))))) a;
    SELECT u.quantity INTO quantity FROM billing.usage('acme', 'again', '2026-01-05Z', '2026-01-25Z') u;
    RETURN NEXT;
END
$$;
SELECT * FROM pg_temp.again('n', NULL);
SELECT * FROM pg_temp.again('n + 1000', '2026-01-20Z');
SELECT * FROM pg_temp.again('n + 1000', '2026-01-20Z');
SELECT * FROM pg_temp.again('n + 1000', '2026-01-25Z');
SELECT * FROM pg_temp.again('n + 1000', NULL);
SELECT * FROM pg_temp.again('n + 1000', '2026-01-10Z');
SELECT count(*) AS since_10, count(*) FILTER (WHERE e.occurred_at >= '2026-01-20Z') AS since_20 FROM billing.usage_event e JOIN billing.customer c USING (customer_id) WHERE c.key = 'acme' AND e.event_type = 'use' AND e.occurred_at >= '2026-01-10Z' AND e.occurred_at < '2026-01-25Z';

-- Errors
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[
  $$SELECT billing.catalog_apply('{"meters":[{"key":"q","event_type":"use","aggregation":"max","value":"n"}]}')$$,
  $$SELECT billing.catalog_apply('{"meters":[{"key":"q","event_type":"use","aggregation":"sum","value":"n","valid_from":"yesterday"}]}')$$,
  $$SELECT billing.meter_rebuild_start('nothing')$$, $$SELECT billing.meter_rebuild_start('q', '2026-01-02Z', '2026-01-01Z')$$, $$SELECT billing.meter_rebuild_start('q', NULL)$$]) c;
\a \t
SELECT check_name, failed FROM billing.verify('full') WHERE check_name LIKE 'usage%' AND failed > 0;
