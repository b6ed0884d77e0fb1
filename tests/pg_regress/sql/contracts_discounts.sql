-- Discounts, phases and add-ons on bills: percents in order, then amounts, before minimums; inside the line, for their time.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"},{"key":"q"}], "meters":[{"key":"calls","event_type":"call","aggregation":"sum","value":"n","dimensions":["model"],"unit":"call"}]}');
CREATE FUNCTION pg_temp.deal(key text, starts_on date, extra jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT billing.customer_upsert(jsonb_build_object('key', key, 'time_zone', coalesce(extra->>'time_zone', 'UTC')));
    SELECT billing.contract_create(jsonb_build_object('key', key, 'customer', key, 'starts_on', starts_on) || extra);
    SELECT billing.contract_activate(key)
$$;
CREATE FUNCTION pg_temp.use(customer text, id text, n numeric, at timestamptz, model text DEFAULT 'a') RETURNS text LANGUAGE sql AS $$
    SELECT billing.ingest_event(customer, 'call', id, at, jsonb_build_object('n', n, 'model', model), NULL)
$$;
CREATE FUNCTION pg_temp.billed(contract text) RETURNS TABLE (n int, kind text, key text, service_from date, service_until date, quantity numeric, listed text, off text, amount numeric) LANGUAGE sql AS $$
    SELECT i.n, l->>'kind', l->>'key', (l->>'from')::date, (l->>'until')::date, (l->>'quantity')::numeric, l->>'list_amount', (SELECT string_agg((d->>'key') || ' ' || coalesce((d->>'percent_off') || '%', d->>'amount_off'), ', ') FROM jsonb_array_elements(l->'discounts') d), (l->>'amount')::numeric
    FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id), jsonb_array_elements(i.document->'lines') WITH ORDINALITY x (l, place)
    WHERE k.key = billed.contract AND i.state <> 'void' ORDER BY i.n, i.created_at, place
$$;
CREATE FUNCTION pg_temp.fee(amount text, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('fees', jsonb_build_array(jsonb_build_object('key', 'platform', 'product', 'p', 'pricing', jsonb_build_object('model', 'flat', 'amount', amount)) || more))
$$;
CREATE FUNCTION pg_temp.calls(pricing jsonb, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('charges', jsonb_build_array(jsonb_build_object('key', 'calls', 'product', 'q', 'meter', 'calls', 'pricing', pricing) || more))
$$;

-- Percents follow each other; an amount comes after them, whatever the order of the list; each only on what it is for
SELECT pg_temp.deal('order', '2026-01-01', '{"fees":[{"key":"a","product":"p","pricing":{"model":"flat","amount":"100"}},{"key":"b","product":"q","pricing":{"model":"flat","amount":"50"}}],
  "discounts":[{"key":"ten","amount_off":"10"},{"key":"half","percent_off":"50","charges":["a"]},{"key":"tenth","percent_off":"10","products":["p"]}]}');
-- Never below 0; and what the fees of a month leave of it, its usage gets
SELECT pg_temp.deal('amount', '2026-01-01', pg_temp.fee('30') || pg_temp.calls('{"model":"per_unit","unit_price":"1"}') || '{"discounts":[{"key":"fifty","amount_off":"50"}]}');
-- For its time only: a fee is cut, tiers go on; a stub has its share of an amount
SELECT pg_temp.deal('until', '2026-01-01', pg_temp.fee('310') || pg_temp.calls('{"model":"graduated","tiers":[{"up_to":"100","unit_price":"1"},{"unit_price":"0.5"}]}')
    || '{"discounts":[{"key":"start","percent_off":"20","until":"2026-01-16"},{"key":"fees","amount_off":"31","charges":["platform"],"until":"2026-02-15"}]}');
-- Minimums are held against what is left, or the other way round: rules 1
SELECT pg_temp.deal('after', '2026-01-01', pg_temp.calls('{"model":"per_unit","unit_price":"0.10","free_units":"500","minimum":"100"}') || '{"discounts":[{"key":"d","percent_off":"10"}]}'),
  pg_temp.deal('before', '2026-01-01', pg_temp.calls('{"model":"per_unit","unit_price":"0.10","free_units":"500","minimum":"100"}') || '{"discounts":[{"key":"d","percent_off":"10"}]}');
SELECT billing.policy_set('minimum_basis', 'before_discount', 'contract:before');
-- Phases: what a pilot costs, and then the deal; an add-on for three months
SELECT pg_temp.deal('phases', '2026-01-01', pg_temp.fee('1000') || '{"phases":[{"key":"pilot","duration":"2 months","fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"100"}}]},{"key":"run","discounts":[{"key":"early","percent_off":"25"}]}],
  "add_ons":[{"key":"sso","fees":[{"key":"fee","product":"q","pricing":{"model":"flat","amount":"62"}}],"from":"2026-01-16","term":"1 month"}]}');
-- Ended inside a day, by the second; and not prorated at all
SELECT pg_temp.deal('second', '2026-03-01', pg_temp.fee('100') || '{"time_zone":"America/New_York"}'), pg_temp.deal('none', '2026-03-01', pg_temp.fee('100'));
SELECT billing.policy_set('proration_basis', 'second', 'contract:second'), billing.policy_set('proration_basis', 'none', 'contract:none');
CALL billing.bill_run();
SELECT pg_temp.use('amount', 'a1', 40, '2026-01-10Z'), pg_temp.use('until', 'u1', 80, '2026-01-10Z'), pg_temp.use('until', 'u2', 80, '2026-01-20Z'), pg_temp.use('after', 'x', 1400, '2026-01-10Z'), pg_temp.use('before', 'x', 1400, '2026-01-10Z')
FROM (SELECT billing.test_clock_set('2026-02-01T00:00:00Z') OFFSET 0) c;
SELECT pg_temp.use('amount', 'a2', 15, '2026-01-11Z');
CALL billing.bill_run();
SELECT * FROM pg_temp.billed('order') WHERE n = 0;
SELECT * FROM pg_temp.billed('amount');
SELECT * FROM pg_temp.billed('until');
SELECT * FROM pg_temp.billed('after');
SELECT * FROM pg_temp.billed('before');
SELECT x.label, x.got, x.want, x.got = x.want AS ok FROM (
    SELECT 1 AS n, 'a: 100 × 0.5 × 0.9 = 45, b: 50; 10 off 95 in all' AS label, sum(amount) AS got, 85.00 AS want FROM pg_temp.billed('order') WHERE n = 0
    UNION ALL SELECT 2, 'January: 30 + 55 − 50', sum(amount), 35.00 FROM pg_temp.billed('amount') WHERE service_from < '2026-02-01'
    UNION ALL SELECT 3, 'January fee: 310 × 15/31 × 0.8 + 310 × 16/31 − 31', sum(amount), 249.00 FROM pg_temp.billed('until') WHERE key LIKE 'platform/2026-01%'
    UNION ALL SELECT 4, 'February fee: 310 − 31 × 14/28', sum(amount), 294.50 FROM pg_temp.billed('until') WHERE key LIKE 'platform/2026-02%'
    UNION ALL SELECT 5, '130 over 160 calls, half of it at 0.8', sum(amount), 117.00 FROM pg_temp.billed('until') WHERE key LIKE 'calls/%'
    UNION ALL SELECT 6, '90 × 0.9 = 81, up to 100', sum(amount), 100.00 FROM pg_temp.billed('after')
    UNION ALL SELECT 7, 'up to 100, × 0.9', sum(amount), 90.00 FROM pg_temp.billed('before')) x ORDER BY x.n;
SELECT e FROM billing.invoice i, billing.invoice_explain(i.number) e WHERE i.n = 0 AND i.document->>'contract' = 'until';
SELECT billing.test_clock_set('2026-03-16T18:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.contract_cancel('second', '2026-03-16 16:00:00Z') AS cancelled, billing.contract_amend('none', '{"prices":{"platform":{"model":"flat","amount":"300"}}}') AS amended;
SELECT p.n, p.starts_on, p.ends_on, p.starts_at, p.ends_at, p.state, k.ends_at AS contract_ends_at, k.state AS contract_is FROM billing.billing_period p JOIN billing.contract k USING (contract_id) WHERE k.key = 'second' ORDER BY p.n;
SELECT billing.test_clock_set('2026-04-01T06:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM pg_temp.billed('second');
SELECT * FROM pg_temp.billed('none');
SELECT * FROM pg_temp.billed('phases') WHERE n < 4;
SELECT count(*) AS documents, count(*) FILTER (WHERE NOT r.same) AS differ FROM billing.invoice i CROSS JOIN LATERAL (SELECT bool_and(x.same_bytes) AS same FROM billing.invoice_recompute(i.number) x) r;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
