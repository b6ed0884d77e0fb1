-- Alerts: once per crossing and period; usage, spend, credit and commitments; the feed.
\set ECHO none
\i tests/pg_regress/helpers.sql
CREATE FUNCTION pg_temp.use(id text, tokens numeric) RETURNS text LANGUAGE sql AS $$
    SELECT billing.ingest_event('acme', 'request', id, billing.now(), jsonb_build_object('tokens', tokens, 'api_key', 'k1'))
$$;
CREATE TEMP VIEW look AS SELECT t.job, t.state, t.did FROM billing.tick() t WHERE t.job = 'alerts';
\set ECHO all
SELECT billing.test_clock_set('2026-03-02 12:00+00') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{"products":[{"key":"api","name":"API"}],
  "meters":[{"key":"tokens","event_type":"request","aggregation":"sum","value":"tokens","dimensions":["api_key"],"unit":"token"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"per_unit","unit_price":"0.01"}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"api","meter":"tokens","price":"tokens"}]}]}');
SELECT billing.customer_upsert('{"key":"acme","currency":"USD"}') AS a \gset
SELECT billing.subscribe('acme', 'pro', '2026-03-01', '{"key":"deal","commitments":[{"key":"spend","kind":"postpaid","amount":"40","every":"1 month"}]}') AS a \gset
SELECT * FROM look;
SELECT * FROM billing.events_after();

-- A budget of 1,000 tokens a month, told at 50%, 80% and 100%; spend at 5 and 80% of 10; a commitment of 40.
SELECT billing.budget_set('acme', '{"key":"k1","amount":"1000","period":"month","match":{"api_key":"k1"},"meter":"tokens","mode":"soft"}');
SELECT billing.alert_rule_set('acme', '{"key":"k1","kind":"usage","limit":"k1","thresholds":["50%","80%","100%"]}');
SELECT billing.alert_rule_set('acme', '{"key":"money","kind":"spend","period":"month","of":"10","thresholds":["5","80%"]}');
SELECT billing.alert_rule_set('acme', '{"key":"promise","kind":"commitment","contract":"deal","thresholds":["25%"]}');
SELECT pg_temp.use('r1', 499);
SELECT * FROM look;
SELECT * FROM billing.events_after();
SELECT pg_temp.use('r2', 1);
SELECT * FROM look;
SELECT * FROM billing.events_after();
-- Once: nothing new, however often it is looked at.
SELECT * FROM look;
CALL billing.alerts();
SELECT count(*) FROM billing.events_after();
-- Two at once, and what was read is not read again.
SELECT pg_temp.use('r3', 500);
SELECT billing_internal.alerts_look(1);
SELECT n, kind, subject, payload->>'threshold' AS threshold, payload->>'used' AS used FROM billing.events_after(2);
SELECT n FROM billing.events_after(2, 1);
-- A rule set anew is the same rule: nothing twice. Another 100% is another crossing.
SELECT billing.alert_rule_set('acme', '{"key":"k1","kind":"usage","limit":"k1","thresholds":["50%","100%","120%"]}');
SELECT count(*) FROM billing.events_after(6);
SELECT billing.budget_set('acme', '{"key":"k1","amount":"2000","period":"month","match":{"api_key":"k1"},"meter":"tokens"}');
SELECT * FROM look;
SELECT n, kind, subject, payload->>'threshold' AS threshold, payload->>'of' AS "of" FROM billing.events_after(6);

-- A time travel tells what will be told, and nothing of it stays; a rolled-back crossing was none.
BEGIN;
SELECT at, state FROM billing.time_travel('2026-04-01 00:00+00') WHERE job = 'alerts';
SELECT count(*) FROM billing.event_feed;
ROLLBACK;
BEGIN;
SELECT pg_temp.use('r4', 1000), billing_internal.alerts_look(1);
ROLLBACK;
SELECT count(*) FROM billing.event_feed;
-- The next period begins anew.
SELECT billing.test_clock_set('2026-04-01 00:00+00') AS clock \gset
CALL billing.bill_run();
SELECT pg_temp.use('r5', 1000);
SELECT * FROM look;
SELECT n, kind, subject, payload->>'threshold' AS threshold, payload->>'used' AS used, payload->>'from' AS "from" FROM billing.events_after(7);

-- Credit: 100 granted, told at 20% and at 0; what goes up again and falls again is told again.
SELECT billing.customer_upsert('{"key":"globex","currency":"USD"}') AS a \gset
SELECT billing.credit_grant_create('globex', '{"key":"first","amount":"100"}');
SELECT billing.alert_rule_set('globex', '{"key":"low","kind":"credit","thresholds":["20%","0"]}');
SELECT result, available FROM billing.draw_down('globex', 79.99, 'd1');
SELECT billing_internal.alerts_look(2);
SELECT result, available FROM billing.draw_down('globex', 0.01, 'd2');
SELECT billing_internal.alerts_look(2), billing_internal.alerts_look(2);
SELECT result, available FROM billing.draw_down('globex', 20, 'd3');
SELECT billing_internal.alerts_look(2);
SELECT billing.credit_grant_create('globex', '{"key":"second","amount":"100"}');
SELECT billing_internal.alerts_look(2);
SELECT result, available FROM billing.draw_down('globex', 70, 'd4');
SELECT billing_internal.alerts_look(2);
SELECT n, customer, kind, subject, payload FROM billing.events_after(11);

-- A prepaid commitment is used as its credits are drawn, by calls or by usage that is not billed yet.
SELECT billing.customer_upsert('{"key":"initech","currency":"USD"}') AS a \gset
SELECT billing.subscribe('initech', 'pro', '2026-04-01', '{"key":"prepaid","commitments":[{"key":"annual","kind":"prepaid","amount":"100","every":"12 months"}],"credits":[{"key":"c","category":"paid","amount":"100","paid_by":"annual","every":"12 months"}],"term":"12 months"}') AS a \gset
SELECT billing.alert_rule_set('initech', '{"key":"annual","kind":"commitment","thresholds":["50%"]}');
SELECT result, available FROM billing.draw_down('initech', 20, 'i1');
SELECT billing.ingest_event('initech', 'request', 'i2', billing.now(), '{"tokens":2999}');
SELECT billing.test_clock_set('2026-04-02 00:00+00') AS clock \gset
SELECT billing_internal.alerts_look(3);
SELECT billing.ingest_event('initech', 'request', 'i3', '2026-04-01 12:00+00', '{"tokens":1}');
SELECT billing_internal.alerts_look(3);
SELECT kind, subject, payload FROM billing.events_after(14);

-- What is refused.
SELECT pg_temp.fails($$SELECT billing.alert_rule_set('acme', '{"key":"x","kind":"spend","limit":"k1","thresholds":["1"]}')$$);
SELECT pg_temp.fails($$SELECT billing.alert_rule_set('acme', '{"key":"x","kind":"spend","limit":"k9","thresholds":["1"]}')$$);
SELECT pg_temp.fails($$SELECT billing.alert_rule_set('acme', '{"key":"x","kind":"spend","period":"month","thresholds":["10%"]}')$$);
SELECT pg_temp.fails($$SELECT billing.alert_rule_set('acme', '{"key":"x","kind":"commitment","commitment":"none","thresholds":["10%"]}')$$);
SELECT pg_temp.fails($$SELECT billing.alert_rule_set('acme', '{"key":"x","kind":"commitment","contract":"prepaid","thresholds":["10%"]}')$$);
SELECT pg_temp.fails($$SELECT billing.alert_rule_set('acme', '{"key":"x","end":true}')$$);
SELECT billing.alert_rule_set('acme', '{"key":"k1","end":true,"reason":"enough"}');
SELECT pg_temp.fails($$SELECT * FROM billing.events_after(0, 0)$$);
SELECT key, kind, ended_at IS NULL AS holds FROM billing.alert_rule ORDER BY rule_id;

-- ── quotas ───────────────────────────────────────────────────────────────────────────────────────
-- 80 and 100 percent of what a plan allows: once per crossing and window, by whoever uses, reserves or takes a seat, and by tick(); with what rolled over and what is reserved.
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "meters":[{"key":"seats","event_type":"seat","aggregation":"unique_count","value":"seat","operation":"operation","unit":"seat"}],
  "features":[{"key":"tokens","kind":"metered","meter":"tokens"},{"key":"team","kind":"seat","meter":"seats"},{"key":"sso","kind":"boolean"}],
  "plans":[{"key":"quota","currency":"USD","entitlements":[{"feature":"tokens","value":"1000","reset":"day","rollover":{"cap":"200"}},{"feature":"team","value":"2","mode":"soft"}]}]}');
SELECT billing.test_clock_set('2026-07-01 12:00+00') AS clock \gset
SELECT billing.customer_upsert('{"key":"quota","currency":"USD"}') AS a, billing.subscribe('quota', 'quota', '2026-07-01') AS b \gset
SELECT coalesce(max(n), 0) AS cursor FROM billing.events_after(0, 1000) \gset
CREATE FUNCTION pg_temp.told(after bigint) RETURNS TABLE (subject text, threshold text, at text, used text, "of" text, feature text, unit text, starts text, ends text) LANGUAGE sql AS $$
    SELECT e.subject, p->>'threshold', p->>'at', p->>'used', p->>'of', p->>'feature', p->>'unit', p->>'from', p->>'until' FROM billing.events_after(after, 1000) e, LATERAL (SELECT e.payload AS p) x WHERE e.customer = 'quota' ORDER BY e.n $$;
SELECT billing.alert_rule_set('quota', '{"key":"tokens","kind":"usage","feature":"tokens","thresholds":["80%","100%"]}'), billing.alert_rule_set('quota', '{"key":"team","kind":"usage","feature":"team","thresholds":["100%"]}');
SELECT result, used FROM billing.consume('quota', 'tokens', 799, 'a', '{"api_key":"k1"}');
SELECT * FROM pg_temp.told(:cursor);
SELECT result, used FROM billing.consume('quota', 'tokens', 1, 'b', '{"api_key":"k1"}');
SELECT result, used FROM billing.reservation_create('quota', 'tokens', 200, 'job', '10 minutes', '{"api_key":"k1"}');
SELECT * FROM pg_temp.told(:cursor);
SELECT * FROM look;
SELECT count(*) FROM pg_temp.told(:cursor);
-- The day after: 1,000 and the 200 that were left. Nothing is told twice; the reservation is over.
SELECT billing.test_clock_set('2026-07-02 12:00+00') AS clock \gset
SELECT coalesce(max(n), 0) AS cursor FROM billing.events_after(0, 1000) \gset
SELECT result, used, quota FROM billing.consume('quota', 'tokens', 959, 'c', '{"api_key":"k1"}');
SELECT * FROM pg_temp.told(:cursor);
SELECT result, used, quota FROM billing.consume('quota', 'tokens', 1, 'd', '{"api_key":"k1"}');
SELECT * FROM pg_temp.told(:cursor);
-- Seats have no window: once a month of the customer's zone, however often they come and go.
SELECT u, s.result FROM unnest('{ann,bob}'::text[]) u, billing.seat_assign('quota', 'team', u) s;
SELECT * FROM pg_temp.told(:cursor) OFFSET 1;
SELECT s.result FROM billing.seat_release('quota', 'team', 'bob') s;
SELECT s.result FROM billing.seat_assign('quota', 'team', 'cem') s;
SELECT * FROM look;
SELECT * FROM pg_temp.told(:cursor) OFFSET 1;
SELECT coalesce(max(n), 0) AS cursor FROM billing.events_after(0, 1000) \gset
SELECT billing.test_clock_set('2026-08-01 12:00+00') AS clock \gset
SELECT * FROM look;
SELECT * FROM pg_temp.told(:cursor);
-- Other windows: a sliding one tells once in its length, one of the first use from there, one that never resets once. Unlimited is never reached.
SELECT coalesce(max(n), 0) AS cursor FROM billing.events_after(0, 1000) \gset
SELECT billing.contract_amend('quota-1', '{"entitlements":[{"feature":"tokens","value":"100","reset":{"sliding":"24 hours"}}]}') AS version;
SELECT result FROM billing.consume('quota', 'tokens', 90, 'e', '{"api_key":"k1"}');
SELECT billing.test_clock_set('2026-08-01 13:00+00') AS clock \gset
SELECT * FROM look;
SELECT * FROM pg_temp.told(:cursor);
SELECT billing.contract_amend('quota-1', '{"entitlements":[{"feature":"tokens","value":"200","reset":{"first_use":"7 days"}}]}') AS version;
SELECT * FROM look;
SELECT result, resets_at FROM billing.consume('quota', 'tokens', 160, 'f', '{"api_key":"k1"}');
SELECT billing.contract_amend('quota-1', '{"entitlements":[{"feature":"tokens","value":"300","reset":"never"}]}') AS version;
SELECT * FROM look;
SELECT billing.contract_amend('quota-1', '{"entitlements":[{"feature":"tokens","value":null}]}') AS version;
SELECT * FROM look;
SELECT * FROM pg_temp.told(:cursor) OFFSET 1;
SELECT * FROM pg_temp.fails($$SELECT billing.alert_rule_set('quota', '{"key":"x","kind":"usage","feature":"sso","thresholds":["80%"]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.alert_rule_set('quota', '{"key":"x","kind":"usage","feature":"none","thresholds":["80%"]}')$$);
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
