-- Credit of a pilot that the contract after it takes over: when it begins, what is unused then, whenever it was signed.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai"}],"meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","unit":"token"}],
  "plans":[{"key":"one","currency":"USD","charges":[{"key":"tokens","product":"ai","meter":"tokens","pricing":{"model":"per_unit","unit_price":"1"}}]}]}');
CREATE FUNCTION pg_temp.pilot(customer text, credits jsonb DEFAULT '[{"key":"pilot","category":"pilot","amount":"100"}]') RETURNS text LANGUAGE sql AS $$
  SELECT billing.customer_upsert(jsonb_build_object('key', customer));
  SELECT billing.contract_create(jsonb_build_object('key', customer || '-pilot', 'customer', customer, 'plan', 'one', 'starts_on', '2026-01-01', 'term', '2 months', 'credits', credits));
  SELECT billing.contract_activate(customer || '-pilot') $$;
CREATE FUNCTION pg_temp.deal(customer text, starts_on date, extra jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
  SELECT billing.contract_create(jsonb_build_object('key', customer || '-1', 'customer', customer, 'plan', 'one', 'starts_on', starts_on, 'term', '12 months', 'commitments', '[{"key":"year","kind":"prepaid","amount":"1000"}]'::jsonb,
    'credits', jsonb_build_array('{"key":"main","category":"paid","amount":"940","paid_by":"year"}'::jsonb,
      jsonb_build_object('key', 'carried', 'category', 'pilot', 'paid_by', 'year', 'carry_from', jsonb_build_object('contract', customer || '-pilot')) || extra)));
  SELECT billing.contract_activate(customer || '-1') $$;
CREATE FUNCTION pg_temp.used(customer text, id text, at timestamptz, n numeric) RETURNS text LANGUAGE sql AS $$ SELECT billing.ingest_event(customer, 'llm', id, at, jsonb_build_object('n', n)) $$;
CREATE TEMP VIEW blocks AS SELECT g.key, g.amount, b.posted, g.effective_at::date AS begins, g.expires_at::date AS ends, g.expired_at IS NOT NULL AS ended, p.paid, p.credits AS pool
  FROM billing.credit_grant g JOIN billing.credit_block_balance b USING (customer_id, grant_id) LEFT JOIN billing.credit_pool p USING (customer_id, pool_id) ORDER BY g.key;

-- Signed while the pilot runs: until the contract begins the pilot's credit pays for the pilot's usage, 10 and 30; 60 are carried, and share the price of 1,000 with 940.
-- Of monthly credit what began and has not ended by then is carried; the new contract's own 5 are there from its signing. A gap of two days: what ended before has expired, though nobody has posted it yet.
SELECT pg_temp.pilot(c) FROM unnest('{early,gap}'::text[]) c;
SELECT pg_temp.pilot('monthly', '[{"key":"pilot","category":"pilot","amount":"20","every":"1 month","expires":"period_end"}]');
SELECT billing.test_clock_set('2026-02-20T00:00:00Z') AS clock \gset
SELECT pg_temp.used('early', '1', '2026-02-10Z', 10);
SELECT pg_temp.deal('early', '2026-03-01'), pg_temp.deal('monthly', '2026-03-01', '{"amount":"5"}');
SELECT * FROM blocks WHERE key ~ '^(early|monthly)';
SELECT * FROM billing.credit_balance('early');
SELECT billing.test_clock_set('2026-02-26T00:00:00Z') AS clock \gset
SELECT pg_temp.used('early', '2', '2026-02-24Z', 30);
-- Its own amount is agreed otherwise before it begins: 6 for 5.
SELECT billing.contract_amend('monthly-1', '{"credits":[{"key":"carried","category":"pilot","amount":"6","paid_by":"year","carry_from":{"contract":"monthly-pilot"}}]}', '2026-03-01', 'one more') AS version;
-- What is due is known before: a time travel sees it, and so does the job.
SELECT job, due_at FROM billing_internal.jobs() j CROSS JOIN LATERAL (SELECT billing_internal.credit_expiry_due('2026-02-26Z', '2026-03-01Z') AS due_at) d WHERE job = 'credit_expiry';
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') AS clock \gset
SELECT billing.credit_expiry_step() AS made;
SELECT * FROM blocks WHERE key ~ '^(early|monthly)';
CALL billing.bill_run();
SELECT i.key, i.total, i.credits_applied, i.state FROM billing.invoice i WHERE i.key = 'early-pilot/2';
CALL billing.credit_expiry();
SELECT * FROM blocks WHERE key ~ '^(early|monthly)';
SELECT billing.test_clock_set('2026-03-03T00:00:00Z') AS clock \gset
SELECT pg_temp.pilot('unposted');
SELECT pg_temp.deal('gap', '2026-03-03'), pg_temp.deal('unposted', '2026-03-01');
SELECT * FROM blocks WHERE key ~ '^(gap|unposted)';
CALL billing.credit_expiry();
SELECT * FROM blocks WHERE key ~ '^(gap|unposted)';
SELECT billing.credit_expiry_step() AS made;
-- Its own amount is agreed otherwise again, 8 for 6, and what was carried stays. Asked again, nothing changes.
SELECT billing.contract_amend('monthly-1', '{"credits":[{"key":"carried","category":"pilot","amount":"8","paid_by":"year","carry_from":{"contract":"monthly-pilot"}}]}', '2026-03-01', 'two more') AS version;
SELECT billing.credit_expiry_step() AS made;
SELECT * FROM blocks WHERE key ~ '^monthly-1';
SELECT posted = 940 + 8 + 20 AS ok FROM billing.credit_balance('monthly');
SELECT * FROM billing.verify('full') WHERE failed > 0;

-- A last period that is cut short is owed whole: 300 where it is paid at once; of instalments the two that begin in it, 200, which is what its 300 credits cost. Amounts by period say it otherwise.
SELECT billing.test_clock_set('2026-04-01T00:00:00Z') AS clock \gset
CREATE FUNCTION pg_temp.short(customer text, commitment jsonb) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT billing.customer_upsert(jsonb_build_object('key', customer));
  SELECT billing.contract_create(d.doc) FROM (SELECT jsonb_build_object('key', customer || '-1', 'customer', customer, 'plan', 'one', 'starts_on', '2026-04-01', 'term', '5 months', 'commitments', jsonb_build_array('{"key":"c","kind":"prepaid","every":"3 months"}'::jsonb || commitment),
    'credits', '[{"key":"cr","category":"paid","amount":"300","paid_by":"c","expires":"period_end"}]'::jsonb) AS doc) d;
  SELECT billing.contract_activate(customer || '-1');
  SELECT t FROM billing.contract_describe(billing.contract_document(customer || '-1')) t WHERE t LIKE 'Commitment%' $$;
SELECT x.c, pg_temp.short(x.c, x.terms) FROM (VALUES ('once', '{"amount":"300"}'::jsonb), ('parts', '{"amount":"300","instalments":"1 month"}'), ('listed', '{"amounts":["300","200"]}')) x (c, terms);
SELECT billing.test_clock_set('2026-09-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
CALL billing.bill_run();
CALL billing.bill_run();
CALL billing.bill_run();
CALL billing.bill_run();
SELECT k.key, sum(l.amount) FILTER (WHERE l.service_from < '2026-07-01') AS first, sum(l.amount) FILTER (WHERE l.service_from >= '2026-07-01') AS short FROM billing.invoice_line l JOIN billing.invoice i USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id)
WHERE l.kind = 'commitment' AND l.charge_key = 'c' GROUP BY 1 ORDER BY 1;
SELECT key, paid, credits FROM billing.credit_pool WHERE key LIKE '%/c/%' ORDER BY 1;
SELECT * FROM billing.verify('full') WHERE failed > 0;
