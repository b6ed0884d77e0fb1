-- The customer's side: the figures of customer_summary() are those of invoices, spend(), credit_balance() and the true-up;
-- forecasts follow their formula; a login sees itself; hostile texts stay texts on the page.
\set ECHO none
\i tests/pg_regress/helpers.sql
DROP ROLE IF EXISTS golden_side, golden_side_staff;
CREATE ROLE golden_side LOGIN IN ROLE billing_customer;
CREATE ROLE golden_side_staff LOGIN IN ROLE billing_success;
\set ECHO all
SELECT billing.test_clock_set('2025-12-15T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai"},{"key":"disk"}],"meters":[
  {"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","dimensions":["model","region"],"unit":"token"},{"key":"disk","event_type":"disk","aggregation":"sum","value":"gb","unit":"GB-day"}],
  "plans":[{"key":"pro","name":"Pro","currency":"USD","charges":[
      {"key":"tokens","product":"ai","meter":"tokens","pricing":{"model":"matrix","dimensions":["model"],"per":1000,"rows":[{"match":{"model":"big"},"unit_price":"0.03"},{"match":{},"unit_price":"0.001"}]}},
      {"key":"disk","product":"disk","meter":"disk","pricing":{"model":"per_unit","unit_price":"0.01"}}],
    "fees":[{"key":"platform","product":"ai","pricing":{"model":"flat","amount":"49"}}]}]}');
SELECT billing.customer_upsert('{"key":"acme","name":"Acme Corp","currency":"USD","time_zone":"America/New_York"}'), billing.customer_upsert('{"key":"other","name":"Other","currency":"USD"}'), billing.customer_upsert('{"key":"empty","name":"Empty","currency":"EUR"}');
SELECT billing.contract_create('{"key":"acme-26","customer":"acme","plan":"pro","currency":"USD","time_zone":"America/New_York","starts_on":"2026-01-01","term":"12 months",
  "commitments":[{"key":"year","kind":"postpaid","amount":"1200","product":"ai","every":"12 months","scope":{"products":["ai"]}},
                 {"key":"half","kind":"postpaid","amount":"100","product":"ai","every":"6 months","priority":10,"scope":{"meters":["tokens"]}},
                 {"key":"paid","kind":"prepaid","amount":"80","product":"disk","every":"12 months"}],
  "credits":[{"key":"disk-credits","category":"paid","amount":"100","paid_by":"paid","expires":"contract_end","scope":{"products":["disk"]}}],
  "renewal":{"auto":true,"notice_days":60}}'), billing.contract_activate('acme-26');
SELECT billing.credit_grant_create('acme', '{"key":"gift","amount":"10","unit":"USD","effective_on":"2026-01-01","expires":"2027-01-01","scope":{"products":["ai"]}}'), billing.subscribe('other', 'pro', '2026-01-01');
SELECT billing.customer_login_add('acme', 'golden_side');
CREATE FUNCTION pg_temp.llm(who text, on_day date, model text, n numeric) RETURNS text LANGUAGE sql AS $$
    SELECT billing.ingest_event(who, 'llm', who || on_day || model, (on_day + time '12:00') AT TIME ZONE 'America/New_York', jsonb_build_object('model', model, 'region', 'eu', 'n', n)) $$;
SELECT billing.test_clock_set('2026-01-31T20:00:00Z') AS clock \gset
SELECT count(*) FROM generate_series(date '2026-01-01', '2026-01-31', '1 day') d, pg_temp.llm('acme', d::date, 'big', 50000);
SELECT accepted FROM billing.ingest('[{"customer":"acme","event_id":"d1","event_type":"disk","occurred_at":"2026-01-20T12:00:00Z","properties":{"gb":2500}}]');
SELECT billing.test_clock_set('2026-02-01T06:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-02-11T23:00:00Z') AS clock \gset
SELECT count(*) FROM generate_series(date '2026-02-01', '2026-02-11', '1 day') d, pg_temp.llm('acme', d::date, 'big', 40000);
SELECT count(*) FROM generate_series(date '2026-02-04', '2026-02-11', '1 day') d, pg_temp.llm('acme', d::date, 'small', 333333);
SELECT count(*) FROM pg_temp.llm('other', '2026-02-10', 'big', 7777777);

-- ── plain tables, as the customer's login ────────────────────────────────────────────────────────
SET ROLE golden_side;
SELECT contract, state, plan_name, starts_on, ends_on, period_starts_on, period_ends_on, next_invoice_on, renews, notice_deadline FROM billing.my_contract;
SELECT invoice, kind, state, bill_to, issued_on, due_on, service_from, service_until, total, credits_applied, due, open_amount FROM billing.my_invoices ORDER BY invoice;
SELECT customer, meter, min(day) AS first, max(day) AS last, trim_scale(sum(quantity)) AS quantity, sum(events) AS events FROM billing.my_usage GROUP BY 1, 2 ORDER BY 2;
SELECT * FROM billing.my_spend('2026-02-01', '2026-03-01', '{model}') WHERE day IN ('2026-02-01', '2026-02-11');
SELECT min(day) AS first, max(day) AS last, sum(amount) AS amount FROM billing.my_spend();
SELECT block, unit, category, granted, used, ended, posted, pending, available, standing, expires_at, contract FROM billing.my_credits();
SELECT pg_temp.fails($$SELECT * FROM billing.my_spend('2026-02-01', '2026-02-01')$$);
-- It sees nobody else, by no way.
SELECT (SELECT count(*) FROM billing.my_contract WHERE customer <> 'acme') + (SELECT count(*) FROM billing.my_usage WHERE customer <> 'acme') + (SELECT count(*) FROM billing.my_invoices WHERE customer <> 'acme')
    + (SELECT count(*) FROM billing.my_spend() WHERE customer <> 'acme') + (SELECT count(*) FROM billing.my_credits() WHERE customer <> 'acme') AS of_others;
SELECT c.call, f FROM unnest('{customer_summary,customer_page,my_credits}'::text[]) c (call), pg_temp.fails(format('SELECT * FROM billing.%I(%L)', c.call, 'other')) f;
SELECT (SELECT count(*) FROM billing_internal.customer_bills(2)) + (SELECT count(*) FROM billing_internal.customer_spend(2, '2026-01-01Z', '2027-01-01Z', '{}')) + (SELECT count(*) FROM billing_internal.customer_pending(2)) AS told;
SELECT billing.customer_summary('acme') AS mine \gset
RESET ROLE;
SET ROLE golden_side_staff;
SELECT customer, contract FROM billing.my_contract ORDER BY 1;
SELECT customer, sum(amount) FROM billing.my_spend('2026-02-01', '2026-03-01') GROUP BY 1 ORDER BY 1;
SELECT DISTINCT customer FROM billing.my_credits();
SELECT billing.customer_summary('acme') = :'mine'::jsonb AS staff_sees_what_the_customer_sees;
RESET ROLE;

-- ── worked numbers ───────────────────────────────────────────────────────────────────────────────
-- February until the 11th, 23:00Z = 18:00 in New York: big 11 × 40 × 0.03 = 13.20; small 8 × 333.333 × 0.001 = 2.666664, a line of 2.67; fee 49.
SELECT jsonb_pretty(((:'mine'::jsonb)->'spend'->0) - 'by_day') AS spend;
-- The last 7 complete days, 4 to 10 February: big 7 × 1.20 = 8.40, small 7/8 of 2.67; a day 1.53. 17.25 days are left: 64.87 + 17.25 × 1.53.
SELECT round((8.40 + 2.67 * 7 / 8) / 7, 2) AS a_day, round(64.87 + 17.25 * 1.53, 2) AS forecast;
-- What the parts say is what spend() says, and what they sum to.
WITH s AS (SELECT (:'mine'::jsonb)->'spend'->0 AS spend)
SELECT (spend->>'amount')::numeric AS total, (SELECT sum((p->>'amount')::numeric) FROM jsonb_array_elements(spend->'by_part') p) AS parts, (SELECT sum((d->>'amount')::numeric) FROM jsonb_array_elements(spend->'by_day') d) AS days,
    (SELECT sum(x.amount) FROM billing.spend('acme', '2026-02-01 05:00Z', '2026-03-01 05:00Z') x) AS spend_says FROM s;
-- Commitments: "half" (priority 10) is filled first: January 46.50 less the gift of 10 = 36.50, February 15.87, together 52.37 of 100; so "year" has none yet. "paid" bought 100 of
-- credit for 80: 25 of it went to disk in January, which is 20.00.
SELECT c->>'key' AS key, c->>'kind' AS kind, c->>'consumed' AS consumed, c->>'amount' AS amount, c->>'remaining' AS remaining, c->>'percent' AS percent, c->>'time_percent' AS time_percent, c->>'projected' AS projected, c->>'starts_on' AS starts_on, c->>'ends_on' AS ends_on
FROM jsonb_array_elements((:'mine'::jsonb)->'commitments') c;
-- What the commitments would say is what the bill at their end says: the true-up is what is missing.
BEGIN;
SELECT count(*) > 0 AS travelled FROM billing.time_travel('2026-07-01T06:00:00Z');
SELECT l.charge_key, l.amount AS true_up, 100 - 52.37 AS want FROM billing.invoice_line l WHERE l.kind = 'true_up' ORDER BY 1;
ROLLBACK;
-- Credit is what credit_balance() says.
SELECT c->>'unit' AS unit, c->>'posted' AS posted, c->>'pending' AS pending, c->>'available' AS available, b.posted, b.pending, b.available, (c->>'available')::numeric = b.available AS ok
FROM jsonb_array_elements((:'mine'::jsonb)->'credits') c JOIN billing.credit_balance('acme') b ON b.unit = c->>'unit';
-- The next invoice is the preview, open amounts those of the invoices.
SELECT c#>>'{next_invoice,total}' AS total, billing.invoice_preview('acme-26')#>>'{totals,total}' AS preview, c#>>'{next_invoice,due}' AS due, c#>>'{next_invoice,on}' AS "on" FROM jsonb_array_elements((:'mine'::jsonb)->'contracts') c;
SELECT (:'mine'::jsonb)->'balances' AS balances, (SELECT sum(total - credits_applied) FROM billing.invoice i WHERE i.state = 'open' AND i.customer_id = 1) AS invoices;
SELECT (:'mine'::jsonb)->'period' AS period, (:'mine'::jsonb)->'usage' AS usage;

-- ── little, and what can't be priced ─────────────────────────────────────────────────────────────
SELECT billing.customer_summary('empty') - '{as_of,as_of_local}'::text[] AS empty;
SELECT billing.customer_page('empty') ~ 'No invoice yet' AS page_of_nothing;
SELECT pg_temp.fails($$SELECT billing.customer_page('nobody')$$);
-- A contract that can't be billed as it stands says so, and hides neither invoices nor usage.
SELECT count(*) FROM billing.catalog_apply('{"plans":[{"key":"steps","currency":"EUR","charges":[{"key":"disk","product":"disk","meter":"disk","pricing":{"model":"stairstep","tiers":[{"up_to":"10","amount":"5"}]}}]}]}');
SELECT billing.customer_upsert('{"key":"stuck","name":"Stuck","currency":"EUR"}'), billing.subscribe('stuck', 'steps', '2026-02-01');
SELECT accepted FROM billing.ingest('[{"customer":"stuck","event_id":"s1","event_type":"disk","occurred_at":"2026-02-03T12:00:00Z","properties":{"gb":11}}]');
SELECT s->'problem' AS problem, s->'spend' AS spend, s->'credits' AS credits, s->'commitments' AS commitments, s#>'{contracts,0,next_invoice,problem}' AS of_contract, s->'usage' AS usage FROM billing.customer_summary('stuck') s;
SELECT billing.customer_page('stuck') ~ 'Some figures are missing' AS page_says_so, billing.customer_page('stuck') ~ 'ZB0|above' AS and_why;

-- ── hostile texts ────────────────────────────────────────────────────────────────────────────────
SELECT billing.customer_upsert(jsonb_build_object('key', 'evil', 'name', '<script>alert("x")</script>', 'currency', 'USD', 'bill_tos', jsonb_build_array(jsonb_build_object('key', '"><b>', 'name', '</td><h1>''Ünï')))) AS evil,
    billing.subscribe('evil', 'pro', '2026-02-01') AS contract;
SELECT accepted FROM billing.ingest('[{"customer":"evil","event_id":"e1","event_type":"llm","occurred_at":"2026-02-03T12:00:00Z","properties":{"model":"</svg><img src=x onerror=alert(1)>","n":5000000}}]');
CALL billing.bill_run('2026-02-11 23:00Z');
SELECT p ~ '<script|<img|<h1>''|<b>|onerror=alert\(1\)>' AS executable, p ~ '&lt;script&gt;alert\(&quot;x&quot;\)&lt;&#x2f;script&gt;' AS as_text, p ~ '&lt;&#x2f;td&gt;&lt;h1&gt;&#x27;Ünï' AS of_the_invoice, p ~ '&lt;img src=x onerror=alert\(1\)&gt;' AS of_the_chart FROM billing.customer_page('evil') p;

-- ── a minimum in units ───────────────────────────────────────────────────────────────────────────
-- January 4 × 50,000, billed, and February 2 × 30,000: 260,000 of 900,000. The true-up of the quarter is of what is missing.
SELECT billing.customer_upsert('{"key":"volume","name":"Volume","currency":"USD"}'), billing.contract_create('{"key":"volume-26","customer":"volume","plan":"pro","currency":"USD","starts_on":"2026-01-01","term":"12 months",
  "commitments":[{"key":"tokens","kind":"postpaid","quantity":"900000","meter":"tokens","product":"ai","every":"3 months","shortfall_price":{"model":"per_unit","unit_price":"1","per":1000}},
                 {"key":"money","kind":"postpaid","amount":"1000","product":"ai","every":"12 months"}]}'), billing.contract_activate('volume-26');
SELECT count(*) FROM generate_series(date '2026-01-10', '2026-01-13', '1 day') d, pg_temp.llm('volume', d::date, 'big', 50000);
CALL billing.bill_run('2026-02-11 23:00Z');
SELECT count(*) FROM generate_series(date '2026-02-03', '2026-02-04', '1 day') d, pg_temp.llm('volume', d::date, 'big', 30000);
SELECT c->>'key' AS key, c->>'unit' AS unit, c->>'consumed' AS consumed, c->>'amount' AS amount, c->>'remaining' AS remaining, c->>'percent' AS percent, c->>'projected' AS projected, c->>'ends_on' AS ends_on
FROM jsonb_array_elements(billing.customer_summary('volume')->'commitments') c;
SELECT p ~ 'minimum usage' AND p ~ '260,000' AND p ~ '640,000' AS page_says_so FROM billing.customer_page('volume') p;
BEGIN;
SELECT count(*) > 0 AS travelled FROM billing.time_travel('2026-04-01T06:00:00Z');
SELECT l.charge_key, l.quantity, l.amount AS true_up, 900000 - 260000 AS want FROM billing.invoice_line l JOIN billing.contract k USING (customer_id) JOIN billing.invoice i USING (customer_id, invoice_id) WHERE l.kind = 'true_up' AND k.key = 'volume-26';
ROLLBACK;
SELECT check_name, failed FROM billing.verify('full') WHERE failed <> 0;
