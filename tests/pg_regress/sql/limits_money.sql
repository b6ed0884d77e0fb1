-- Spend limits and budgets: what was used, what more would cost, what is denied; in money and units, per customer, legal entity and
-- dimension, by day, month and billing period.
\set ECHO none
\i tests/pg_regress/helpers.sql
CREATE FUNCTION pg_temp.ask(quantity numeric, dimensions jsonb DEFAULT '{}', meter text DEFAULT 'tokens', bill_to text DEFAULT NULL) RETURNS TABLE (allowed boolean, reason text, "limit" text, used text, asked text, amount text, resets_at text)
LANGUAGE sql AS $$
    SELECT c.allowed, c.reason, c.detail->>'key', c.detail->>'used', c.detail->>'asked', c.detail->>'amount', c.detail->>'resets_at'
    FROM billing_internal.limits_ask(billing_internal.find_customer('acme'), billing_internal.find_meter(meter), quantity, dimensions, bill_to) c
$$;
CREATE FUNCTION pg_temp.use(id text, tokens numeric, key text, model text DEFAULT 'a', bill_to text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
    SELECT billing.ingest_event('acme', 'request', id, billing.now(), jsonb_build_object('tokens', tokens, 'api_key', key, 'model', model), bill_to)
$$;
\set ECHO all
SELECT billing.test_clock_set('2026-03-02 12:00+00') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{"products":[{"key":"api","name":"API"}],
  "meters":[{"key":"tokens","event_type":"request","aggregation":"sum","value":"tokens","dimensions":["model","api_key"],"unit":"token"},
            {"key":"requests","event_type":"request","aggregation":"count","dimensions":["api_key"],"unit":"request"}],
  "price_books":[{"key":"list","currency":"USD","prices":[
    {"key":"tokens","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.002"}},
    {"key":"requests","meter":"requests","pricing":{"model":"graduated","tiers":[{"up_to":"3","unit_price":"0"},{"up_to":"5","unit_price":"1"},{"unit_price":"0.50"}]}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"api","meter":"tokens","price":"tokens"},{"key":"requests","product":"api","meter":"requests","price":"requests"}],
    "fees":[{"key":"platform","product":"api","pricing":{"model":"flat","amount":"49"}}]}]}');
SELECT billing.customer_upsert('{"key":"acme","currency":"USD","time_zone":"America/New_York","bill_tos":[{"key":"acme","name":"Acme"},{"key":"acme-de","name":"Acme DE"}]}') AS a \gset
SELECT billing.subscribe('acme', 'pro', '2026-03-01') AS a \gset
-- Without limits nothing is asked.
SELECT * FROM pg_temp.ask(1000000);

-- A limit of 1.00 at 0.002 a token holds 500, to the token: 499 used cost 0.998, which an invoice would round to 1.00.
SELECT billing.spend_limit_set('acme', '{"key":"monthly","amount":"1.00","period":"month","match":{"model":"a"}}');
SELECT * FROM pg_temp.ask(500, '{"model":"a"}');
SELECT * FROM pg_temp.ask(501, '{"model":"a"}');
SELECT pg_temp.use('r1', 499, 'k1');
SELECT * FROM pg_temp.ask(1, '{"model":"a"}');
SELECT * FROM pg_temp.ask(1.000001, '{"model":"a"}');
-- What is no business of the limit.
SELECT * FROM pg_temp.ask(1000, '{"model":"b"}');
SELECT key, mode, period, starts_at, ends_at, unit, amount, used, remaining, exceeded, used = 0.998 AS ok FROM billing.spend_limits('acme');

-- Soft: allowed, and said.
SELECT billing.spend_limit_set('acme', '{"key":"monthly","amount":"1.00","period":"month","match":{"model":"a"},"mode":"soft","reason":"they called"}');
SELECT * FROM pg_temp.ask(2, '{"model":"a"}');
SELECT billing.spend_limit_set('acme', '{"key":"monthly","end":true}');
SELECT * FROM pg_temp.ask(2, '{"model":"a"}');

-- Tiers: three requests are free, two cost 1, the rest 0.50. One was made; three more cost 1, five 2.50.
SELECT billing.spend_limit_set('acme', '{"key":"all","amount":"3.00","period":"billing_period"}');
SELECT asked, asked = '2.5' AS ok, used, allowed, resets_at FROM pg_temp.ask(5, meter => 'requests');
SELECT a.currency, a.amount, a.amount = 1 AS ok FROM billing_internal.limit_cost(1, billing_internal.find_meter('requests'), '{3}', '{}', billing.now()) a;
-- A fee is no usage: 0.998 + 1 are used, not 49 more.
SELECT count(pg_temp.use('t' || n, 0, 'k2')) FROM generate_series(1, 3) n;
SELECT used, used = 1.998 AS ok, remaining FROM billing.spend_limits('acme');

-- Budgets: of an API key, in money by the day, and in units by the week. New York's day begins at 05:00 UTC. A key's part of what is
-- priced in tiers is its share of the quantity, as spend() splits it: 0.998 and a quarter of 1.00.
SELECT billing.budget_set('acme', '{"key":"k1-money","amount":"1.35","period":"day","match":{"api_key":"k1"}}');
SELECT billing.budget_set('acme', '{"key":"k1-tokens","amount":"600","period":"week","match":{"api_key":"k1"},"meter":"tokens"}');
SELECT billing.spend_limit_set('acme', '{"key":"all","end":true}');
SELECT key, match, period, starts_at, ends_at, unit, amount, used, remaining FROM billing.budgets('acme');
SELECT * FROM pg_temp.ask(52, '{"api_key":"k1"}');
SELECT * FROM pg_temp.ask(51, '{"api_key":"k1"}');
SELECT * FROM pg_temp.ask(1000, '{"api_key":"k2"}');
SELECT billing.test_clock_set('2026-03-03 05:00+00') AS clock \gset
SELECT * FROM pg_temp.ask(101, '{"api_key":"k1"}');
SELECT * FROM pg_temp.ask(102, '{"api_key":"k1"}');
SELECT pg_temp.use('r2', 101, 'k1');
SELECT key, starts_at, used, CASE key WHEN 'k1-money' THEN used = 0.202 + 2.00 / 5 ELSE used = 600 END AS ok FROM billing.budgets('acme');
SELECT * FROM pg_temp.ask(1, '{"api_key":"k1"}');
SELECT billing.test_clock_set('2026-03-09 04:00+00') AS clock \gset
SELECT * FROM pg_temp.ask(1, '{"api_key":"k1"}');

-- A legal entity's own limit: of what it pays, whoever asks without naming one asks for the contract's.
SELECT billing.spend_limit_set('acme', '{"key":"de","amount":"0.10","period":"month","bill_to":"acme-de"}');
SELECT * FROM pg_temp.ask(51, '{"api_key":"k3"}', bill_to => 'acme-de');
SELECT * FROM pg_temp.ask(50, '{"api_key":"k3"}', bill_to => 'acme-de');
SELECT * FROM pg_temp.ask(51, '{"api_key":"k3"}');
SELECT pg_temp.use('r3', 50, 'k3', bill_to => 'acme-de');
SELECT * FROM pg_temp.ask(0.5, '{"api_key":"k3"}', bill_to => 'acme-de');
SELECT key, bill_to, used, round(used, 12) = round(0.10 + 2.50 / 6, 12) AS ok, remaining FROM billing.spend_limits('acme');

-- What was billed in the meantime counts as before, and usage of the new period begins at nothing.
SELECT billing.spend_limit_set('acme', '{"key":"year","amount":"100","period":"billing_period"}');
SELECT used, used = 3.80 AS ok FROM billing.spend_limits('acme') WHERE key = 'year';
SELECT billing.test_clock_set('2026-04-01 05:00+00') AS clock \gset
SELECT used FROM billing.spend_limits('acme') WHERE key = 'year';
CALL billing.bill_run();
SELECT starts_at, used FROM billing.spend_limits('acme') WHERE key = 'year';
SELECT u.used, u.used = 650 * 0.002 + 2.50 AS ok FROM billing_internal.uses(1, '[{"id":"march","currency":"USD","from_at":"2026-03-01T05:00:00Z","until_at":"2026-04-01T04:00:00Z"}]') u;

-- What is refused.
SELECT pg_temp.fails($$SELECT billing.spend_limit_set('acme', '{"key":"x","amount":"1","period":"month","match":{"colour":"red"}}')$$);
SELECT pg_temp.fails($$SELECT billing.budget_set('acme', '{"key":"x","amount":"1","period":"month","match":{"model":"a"},"meter":"requests"}')$$);
SELECT pg_temp.fails($$SELECT billing.spend_limit_set('acme', '{"key":"x","amount":"1","period":"month","bill_to":"acme-fr"}')$$);
SELECT pg_temp.fails($$SELECT billing.spend_limit_set('acme', '{"key":"x","amount":"1","period":"month","currency":"USDD"}')$$);
SELECT pg_temp.fails($$SELECT billing.spend_limit_set('acme', '{"key":"x","end":true}')$$);
SELECT pg_temp.fails($$SELECT billing.spend_limit_set('acme', '{"key":"k1-money","end":true}')$$);
SELECT pg_temp.fails($$SELECT billing.budget_set('acme', '{"key":"x","amount":"1","period":"month"}')$$);
SELECT pg_temp.fails($$SELECT billing.spend_limit_set('nobody', '{"key":"x","amount":"1","period":"month"}')$$);
SELECT pg_temp.fails($$SELECT billing.spend_limit_set('acme', NULL)$$);
SELECT action, key, before, after, reason FROM billing.audit_log WHERE action IN ('spend_limit_set', 'budget_set') ORDER BY audit_id LIMIT 4;
-- The contract's percentages off: 1000 × 0.002 × 0.75 × 0.9 by charge and product; tiers the same way; not one for another charge, nor one that begins later. An amount
-- off is not: it is taken from what is used, as the next bill says. What was asked is what is used afterwards.
SELECT billing.customer_upsert('{"key":"off","currency":"USD"}') AS a, billing.subscribe('off', 'pro', '2026-04-01', '{"discounts":[{"key":"api","percent_off":"25","products":["api"]},{"key":"tokens","percent_off":"10","charges":["tokens"]},
    {"key":"other","percent_off":"50","charges":["platform"]},{"key":"later","percent_off":"50","from":"2026-05-01"}]}') AS b \gset
SELECT m, a.amount, w, a.amount = w AS ok FROM (VALUES ('tokens', 1000, 1.35), ('requests', 5, 1.5)) x (m, n, w), billing_internal.limit_cost(billing_internal.find_customer('off'), billing_internal.find_meter(m), ARRAY[n::numeric], '{}', billing.now()) a;
SELECT billing.spend_limit_set('off', '{"key":"all","amount":"1.35","period":"month"}');
SELECT a.allowed, a.reason, a.detail->>'asked' AS asked FROM unnest('{1000,1001}'::int[]) n, billing_internal.limits_ask(billing_internal.find_customer('off'), billing_internal.find_meter('tokens'), n) a;
SELECT billing.ingest_event('off', 'request', 'o1', billing.now(), '{"tokens":1000,"api_key":"k"}');
SELECT used, used = 1.35 AS ok FROM billing.spend_limits('off');
SELECT billing.contract_amend('off-1', '{"discounts":[{"key":"gift","amount_off":"1","charges":["tokens"]}]}', '2026-04-01T00:00:00Z') AS version;
SELECT used, used = 0.35 AS ok FROM billing.spend_limits('off');
SELECT a.detail->>'asked' AS asked, a.allowed FROM billing_internal.limits_ask(billing_internal.find_customer('off'), billing_internal.find_meter('tokens'), 1000) a;
SELECT check_name, failed FROM billing.verify('full') WHERE failed > 0;
