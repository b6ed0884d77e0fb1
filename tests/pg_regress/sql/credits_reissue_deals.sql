-- As credits_reissue, of generated deals: boundaries issued again for some legal entities, late usage and void events before and after.
\set ECHO none
\i tests/pg_regress/helpers.sql
SELECT billing.test_clock_set('2026-08-10T00:00:00Z') AS clock \gset
\i tests/pg_regress/credit_deals.sql
\set ECHO all

-- Three legal entities, blocks that end inside a period, units, tiers, every mode, commitments, and usage that comes or goes before and after. Its
-- twin t has the same usage in time, and nothing voided: in the end both are billed, and draw, the same.
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
CREATE FUNCTION pg_temp.r(n int, what text, k int) RETURNS int LANGUAGE sql AS $$ SELECT ('x' || substr(md5('reissue' || n || what), 1, 7))::bit(28)::int % k $$;
CREATE TEMP TABLE deal AS SELECT n, pg_temp.r(n, 'tiers', 4) = 0 AS tiers, pg_temp.r(n, 'units', 3) = 0 AS units, (ARRAY[NULL, NULL, 'credit_only', 'allow_negative'])[pg_temp.r(n, 'mode', 4) + 1] AS mode,
  pg_temp.r(n, 'commitment', 3) = 0 AS commitment, pg_temp.r(n, 'beyond', 2) = 0 AS beyond FROM generate_series(1, 12) n;
CREATE TEMP TABLE used AS
SELECT n, 'e' || m || b AS id, make_timestamptz(2026, m, 3 + pg_temp.r(n, 'day' || m || b, 6), pg_temp.r(n, 'hour' || m || b, 24), 0, 0, 'UTC') AS at, pg_temp.r(n, 'n' || m || b, 7) AS q, b, 0 AS late,
  CASE WHEN m < 10 THEN pg_temp.r(n, 'void' || m || b, 8) END AS gone FROM deal, unnest(ARRAY['eu', 'us', 'ap']) b, generate_series(8, 10) m
UNION ALL
SELECT n, 'l' || k, make_timestamptz(2026, 8 + pg_temp.r(n, 'month' || k, 2), 1 + pg_temp.r(n, 'day' || k, 12), 0, 0, 0, 'UTC'), pg_temp.r(n, 'n' || k, 7), (ARRAY['eu', 'us', 'ap'])[pg_temp.r(n, 'who' || k, 3) + 1], k, NULL
FROM deal, generate_series(1, 2) k;
SELECT count(billing.customer_upsert(jsonb_build_object('key', w || n, 'bill_tos', '[{"key":"eu","name":"EU"},{"key":"us","name":"US"},{"key":"ap","name":"AP"}]'::jsonb))),
  count(billing.contract_create(jsonb_strip_nulls(jsonb_build_object('key', w || n || '-2', 'customer', w || n, 'plan', CASE WHEN tiers THEN 'tiers' ELSE 'one' END, 'starts_on', '2026-08-01', 'term', '12 months', 'credit_mode', mode,
    'commitments', CASE WHEN commitment THEN jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('key', 'c', 'kind', 'postpaid', 'amount', '12', 'every', '1 month',
      'overage', CASE WHEN beyond THEN '[{"meter":"tokens","match":{},"unit_price":"2"}]'::jsonb END))) END)))),
  count(billing.contract_activate(w || n || '-2')),
  count(billing.credit_grant_create(w || n, '{"key":"A","amount":"10","effective_on":"2026-08-01"}' || CASE WHEN mode = 'allow_negative' THEN '{"overdraft":"4"}'::jsonb ELSE '{}' END)),
  count(billing.credit_grant_create(w || n, jsonb_build_object('key', 'B', 'amount', '6', 'effective_on', '2026-08-01', 'expires', (ARRAY['2026-08-06T12:00:00Z', '2026-09-06T00:00:00Z', '2026-12-01'])[pg_temp.r(n, 'end', 3) + 1]))),
  count(CASE WHEN units THEN billing.credit_grant_create(w || n, '{"key":"T","amount":"5","unit":"token","effective_on":"2026-08-01"}') END)
FROM deal, unnest(ARRAY['x', 't']) w;
CREATE FUNCTION pg_temp.send(w text, month int, of_late int) RETURNS bigint LANGUAGE sql AS $$
  SELECT count(billing.ingest_event(w || n, 'llm', id, at, jsonb_build_object('n', q), b)) FROM used WHERE extract(month FROM at AT TIME ZONE 'UTC') = month AND q > 0
    AND CASE w WHEN 't' THEN coalesce(gone, 0) NOT IN (1, 2) ELSE late = of_late END $$;
CREATE FUNCTION pg_temp.take(which int) RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM (SELECT billing.event_void('x' || n, id, 'a test') FROM used WHERE gone = which AND q > 0) v $$;
SELECT billing.test_clock_set('2026-09-01T00:00:00Z') AS clock \gset
SELECT pg_temp.send('x', 8, 0) > 0, pg_temp.send('t', 8, 0) > 0;
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-10-01T00:00:00Z') AS clock \gset
SELECT pg_temp.send('x', 9, 0) > 0, pg_temp.send('t', 9, 0) > 0;
CALL billing.bill_run();
SELECT pg_temp.send('x', 8, 1) > 0, pg_temp.send('x', 9, 1) > 0, pg_temp.take(1) > 0;
SELECT count(*) > 20 AS voided FROM (SELECT billing.invoice_void(i.number, 'wrong address') FROM deal d JOIN billing.contract k ON k.key = 'x' || d.n || '-2' JOIN billing.invoice i USING (customer_id, contract_id)
  WHERE i.kind = 'invoice' AND pg_temp.r(d.n, 'again' || i.key, 2) = 0 ORDER BY i.number) v;
CALL billing.bill_run();
SELECT pg_temp.send('x', 8, 2) > 0, pg_temp.send('x', 9, 2) > 0, pg_temp.take(2) > 0;
SELECT count(pg_temp.by_hint(i.number)) > 5 AS voided FROM deal d JOIN billing.contract k ON k.key = 'x' || d.n || '-2' JOIN billing.invoice i USING (customer_id, contract_id)
WHERE i.kind = 'invoice' AND i.state <> 'void' AND pg_temp.r(d.n, 'again' || i.key, 5) = 0;
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-11-01T00:00:00Z') AS clock \gset
SELECT pg_temp.send('x', 10, 0) > 0, pg_temp.send('t', 10, 0) > 0;
CALL billing.bill_run();
SELECT * FROM pg_temp.wrong();
SELECT count(*) AS waits FROM billing.late_usage WHERE closed_at IS NULL;
CREATE TEMP VIEW of_both AS SELECT substr(contract, 2) AS deal, n, bill_to, line, x, t FROM (SELECT * FROM (SELECT contract, n, bill_to, line, format('%s for %s', amount, quantity) AS x FROM billed UNION ALL SELECT contract, n, bill_to, line || ' of ' || block, amount::text FROM drawn) b WHERE contract LIKE 'x%') x
  FULL JOIN (SELECT 'x' || substr(contract, 2) AS contract, n, bill_to, line, format('%s for %s', amount, quantity) AS t FROM billed WHERE contract LIKE 't%'
    UNION ALL SELECT 'x' || substr(contract, 2), n, bill_to, line || ' of ' || block, amount::text FROM drawn WHERE contract LIKE 't%') t USING (contract, n, bill_to, line);
SELECT count(*) > 150 AS many, count(*) FILTER (WHERE line LIKE '% of %') > 60 AS draws, count(DISTINCT deal) FROM of_both;
SELECT * FROM of_both WHERE x IS DISTINCT FROM t;
-- The whole, where it is the plain price of what was used
SELECT count(*) > 0 AS some, count(*) FILTER (WHERE billed IS DISTINCT FROM want) AS wrong FROM (
  SELECT d.n, (SELECT sum(amount) FROM billed WHERE contract = 'x' || d.n || '-2') AS billed, (SELECT sum(q) FROM used u WHERE u.n = d.n AND coalesce(u.gone, 0) NOT IN (1, 2)) AS want
  FROM deal d WHERE NOT (tiers OR units OR commitment OR coalesce(mode = 'credit_only', false))) d;
