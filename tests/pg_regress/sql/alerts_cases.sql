-- Alerts where it goes wrong: what can't be priced, periods that ended, rules set anew, credit that never was.
\set ECHO none
\i tests/pg_regress/helpers.sql
CREATE TEMP VIEW look AS SELECT t.job, t.state, t.issues FROM billing.tick() t WHERE t.job = 'alerts';
-- What the feed told since the last look.
CREATE TEMP TABLE read AS SELECT 0::bigint AS n;
CREATE FUNCTION pg_temp.told() RETURNS TABLE (customer text, kind text, subject text, threshold text, used text, "of" text, starts text) LANGUAGE plpgsql AS $$
DECLARE
    after bigint := (SELECT n FROM read);
BEGIN
    UPDATE read SET n = coalesce((SELECT max(e.n) FROM billing.events_after(after, 1000) e), after);
    RETURN QUERY SELECT e.customer, e.kind, e.subject, e.payload->>'threshold', coalesce(e.payload->>'used', e.payload->>'available'), coalesce(e.payload->>'of', e.payload->>'granted'), e.payload->>'from'
    FROM billing.events_after(after, 1000) e ORDER BY e.n;
END $$;
\set ECHO all
SELECT billing.test_clock_set('2026-03-10 12:00+00') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{"products":[{"key":"api","name":"API"}],
  "meters":[{"key":"tokens","event_type":"request","aggregation":"sum","value":"tokens","dimensions":["api_key","model"],"unit":"token"},
            {"key":"calls","event_type":"request","aggregation":"count","dimensions":["api_key"]}],
  "features":[{"key":"tokens","kind":"metered","meter":"tokens"},{"key":"daily","kind":"metered","meter":"tokens"}],
  "price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"small"},"unit_price":"0.01"}]}}]}],
  "plans":[{"key":"pro","currency":"USD","price_book":"list","charges":[{"key":"tokens","product":"api","meter":"tokens","price":"tokens"}],
    "entitlements":[{"feature":"tokens","value":null},{"feature":"daily","value":"1000","reset":"day","mode":"soft"}]}]}');
SELECT c, billing.customer_upsert(jsonb_build_object('key', c, 'currency', 'USD')), billing.subscribe(c, 'pro', '2026-03-01') FROM unnest('{acme,globex}'::text[]) c;
SELECT billing.alert_rule_set(c, '{"key":"money","kind":"spend","period":"month","thresholds":["1"]}') FROM unnest('{acme,globex}'::text[]) c;

-- Nothing prices the model: acme may go on using it, and only its own alerts wait, as the job says.
SELECT result, allowed FROM billing.consume('acme', 'tokens', 500, 'a1', '{"model":"odd"}');
SELECT result FROM billing.reservation_create('acme', 'tokens', 10, 'r1', '5 minutes', '{"model":"odd"}');
SELECT billing.ingest_event('globex', 'request', 'g1', billing.now(), '{"tokens":100,"model":"small"}');
SELECT * FROM look;
SELECT * FROM pg_temp.told();
SELECT i.kind, i.key, i.sqlstate, i.message, i.hint FROM billing.job_issue i JOIN billing.job_run r USING (job_run_id) WHERE r.job = 'alerts';
CALL billing.alerts();
SELECT state, issues FROM billing.job_run WHERE job = 'alerts' ORDER BY job_run_id DESC LIMIT 1;
SELECT pg_temp.fails($$SELECT billing_internal.alerts_tell(billing_internal.find_customer('acme'), false)$$);
-- A rule that can't be asked now is set all the same.
SELECT billing.alert_rule_set('acme', '{"key":"more","kind":"spend","period":"month","thresholds":["2"]}');
SELECT count(*) AS changes FROM billing.catalog_apply('{"price_books":[{"key":"list","currency":"USD","prices":[{"key":"tokens","meter":"tokens","pricing":{"model":"matrix","dimensions":["model"],"rows":[{"match":{"model":"small"},"unit_price":"0.01"},{"match":{},"unit_price":"0.02"}]}}]}]}');
SELECT * FROM look;
SELECT * FROM pg_temp.told();

-- What was crossed just before a period ended is told by the next look of the job; by no consume() in the period after.
SELECT billing.alert_rule_set('globex', '{"key":"day","kind":"usage","meter":"tokens","period":"day","thresholds":["1000"]}');
SELECT billing.alert_rule_set('globex', '{"key":"quota","kind":"usage","feature":"daily","thresholds":["100%"]}');
SELECT billing.test_clock_set('2026-03-11 23:59:50+00') AS clock \gset
SELECT billing.ingest_event('globex', 'request', 'g2', billing.now(), '{"tokens":1000,"model":"small"}');
SELECT billing.test_clock_set('2026-03-12 00:00:10+00') AS clock \gset
SELECT result FROM billing.consume('globex', 'tokens', 1, 'c1', '{"model":"small"}');
-- What is reserved today is not yesterday's.
SELECT result FROM billing.reservation_create('globex', 'daily', 900, 'r2', '5 minutes', '{"model":"small"}');
SELECT * FROM pg_temp.told();
SELECT * FROM look;
SELECT * FROM pg_temp.told();
SELECT * FROM look;
SELECT * FROM pg_temp.told();
-- So it is where usage comes late, but not by more than a day; and where nobody looked for days.
SELECT billing.test_clock_set('2026-03-12 23:00+00') AS clock \gset
SELECT billing.ingest_event('globex', 'request', 'g3', '2026-03-10 13:00+00', '{"tokens":5000,"model":"small"}'), billing.ingest_event('globex', 'request', 'g4', '2026-03-09 13:00+00', '{"tokens":7000,"model":"small"}');
SELECT billing.test_clock_set('2026-03-15 12:00+00') AS clock \gset
SELECT billing.ingest_event('globex', 'request', 'g5', '2026-03-13 13:00+00', '{"tokens":3000,"model":"small"}');
SELECT * FROM look;
SELECT * FROM pg_temp.told();
SELECT key, looked_until FROM billing.alert_rule WHERE key IN ('day', 'quota') ORDER BY key;
SELECT billing.ingest_event('globex', 'request', 'g6', '2026-03-14 13:00+00', '{"tokens":4000,"model":"small"}'), billing.ingest_event('globex', 'request', 'g7', '2026-03-12 13:00+00', '{"tokens":4000,"model":"small"}');
SELECT * FROM look;
SELECT * FROM pg_temp.told();
-- A budget, and a period of a commitment.
SELECT billing.customer_upsert('{"key":"initech","currency":"USD"}'), billing.subscribe('initech', 'pro', '2026-03-01', '{"key":"deal","commitments":[{"key":"promise","kind":"postpaid","amount":"40","every":"1 month"}]}');
SELECT billing.budget_set('initech', '{"key":"k1","amount":"9","period":"month","match":{"api_key":"k1"},"mode":"soft"}');
SELECT billing.alert_rule_set('initech', '{"key":"budget","kind":"spend","limit":"k1","thresholds":["100%"]}'), billing.alert_rule_set('initech', '{"key":"promise","kind":"commitment","thresholds":["25%"]}');
SELECT billing.test_clock_set('2026-03-31 23:59:59+00') AS clock \gset
SELECT billing.ingest_event('initech', 'request', 'i1', billing.now(), '{"tokens":1000,"model":"small","api_key":"k1"}');
SELECT billing.test_clock_set('2026-04-01 00:00+00') AS clock \gset
SELECT * FROM look;
SELECT * FROM pg_temp.told();
CALL billing.bill_run();
SELECT * FROM look;
SELECT * FROM pg_temp.told();

-- A rule set anew tells what it measures now, though its key and thresholds are what they were.
SELECT billing.ingest_event('initech', 'request', 'i2', billing.now(), '{"tokens":1000,"model":"small","api_key":"k1"}'), billing.ingest_event('initech', 'request', 'i3', billing.now(), '{"tokens":1,"model":"small","api_key":"k2"}');
SELECT n, billing.alert_rule_set('initech', doc::jsonb) FROM (VALUES (1, '{"key":"x","kind":"usage","meter":"tokens","period":"month","thresholds":["1"]}'), (2, '{"key":"x","kind":"usage","meter":"calls","period":"month","thresholds":["1"]}'),
  (3, '{"key":"x","kind":"usage","meter":"calls","period":"month","match":{"api_key":"k2"},"thresholds":["1"]}'), (4, '{"key":"x","kind":"usage","meter":"calls","period":"week","match":{"api_key":"k2"},"thresholds":["1"]}'),
  (5, '{"key":"x","kind":"usage","meter":"calls","period":"day","match":{"api_key":"k2"},"thresholds":["1"]}'), (6, '{"key":"x","kind":"spend","period":"month","thresholds":["1"]}'), (7, '{"key":"x","kind":"spend","period":"month","match":{"api_key":"k1"},"thresholds":["1"]}'),
  (8, '{"key":"x/1","kind":"spend","period":"month","thresholds":["1"]}')) d (n, doc) ORDER BY n;
SELECT * FROM pg_temp.told();
-- The same once more tells nothing.
SELECT billing.alert_rule_set('initech', '{"key":"x/1","kind":"spend","period":"month","thresholds":["1"]}');
SELECT * FROM pg_temp.told();

-- Credit: who never had any has not fallen to a part of it; the draw that crosses tells; the same rule once more tells nothing; what expires has fallen.
SELECT billing.customer_upsert('{"key":"hooli","currency":"USD"}') AS a \gset
SELECT billing.alert_rule_set('hooli', '{"key":"low","kind":"credit","thresholds":["20%"]}');
SELECT * FROM look;
SELECT * FROM pg_temp.told();
SELECT billing.credit_grant_create('hooli', '{"key":"first","amount":"100","expires":"2026-04-03"}');
SELECT * FROM look;
SELECT result, available FROM billing.draw_down('hooli', 90, 'd1');
SELECT * FROM pg_temp.told();
SELECT * FROM look;
SELECT * FROM pg_temp.told();
SELECT billing.alert_rule_set('hooli', '{"key":"low","kind":"credit","thresholds":["20%"]}'), billing.alert_rule_set('hooli', '{"key":"low","kind":"credit","thresholds":["20%","5%"]}');
SELECT * FROM look;
SELECT * FROM pg_temp.told();
SELECT billing.test_clock_set('2026-04-03 00:00+00') AS clock \gset
SELECT * FROM look;
SELECT * FROM pg_temp.told();
-- Set anew while it is above, it tells the next crossing, counted on; ended and set again, it begins anew.
SELECT billing.credit_grant_create('hooli', '{"key":"second","amount":"100"}');
SELECT * FROM look;
SELECT billing.alert_rule_set('hooli', '{"key":"low","kind":"credit","thresholds":["20%"]}');
SELECT result, available FROM billing.draw_down('hooli', 80, 'd2');
SELECT * FROM look;
SELECT payload->>'crossing' AS crossing, payload->>'available' AS available FROM billing.events_after((SELECT n FROM read));
SELECT count(*) FROM pg_temp.told();
SELECT billing.alert_rule_set('hooli', '{"key":"low","end":true}'), billing.alert_rule_set('hooli', '{"key":"low","kind":"credit","thresholds":["20%"]}');
SELECT * FROM pg_temp.told();

-- A rule set anew tells of the period that ended before it, which the job had not looked at: what it measured is what it measures. One that measures something
-- else does not.
SELECT billing.alert_rule_set('globex', doc::jsonb) FROM (VALUES ('{"key":"day","kind":"usage","meter":"tokens","period":"day","thresholds":["100","5000"]}'), ('{"key":"other","kind":"usage","meter":"calls","period":"day","thresholds":["3"]}'),
  ('{"key":"part","kind":"usage","feature":"daily","thresholds":["300","30%"]}')) d (doc);
SELECT * FROM look;
SELECT * FROM pg_temp.told();
SELECT billing.test_clock_set('2026-04-03 23:59:59+00') AS clock \gset
SELECT billing.ingest_event('globex', 'request', 'h1', billing.now(), '{"tokens":500,"model":"small"}');
SELECT billing.test_clock_set('2026-04-04 00:00:01+00') AS clock \gset
SELECT billing.alert_rule_set('globex', doc::jsonb) FROM (VALUES ('{"key":"day","kind":"usage","meter":"tokens","period":"day","thresholds":["100","6000"]}'), ('{"key":"other","kind":"usage","meter":"tokens","period":"day","thresholds":["3"]}')) d (doc);
SELECT * FROM look;
SELECT * FROM pg_temp.told();
-- An amount of a quota is told once, whatever it is a part of; a percentage of another quota is another crossing.
SELECT result FROM billing.consume('globex', 'daily', 300, 'h2', '{"model":"small"}');
SELECT * FROM pg_temp.told();
SELECT billing.entitlement_override('globex', 'daily', '900', NULL, 'less') IS NOT NULL AS made;
SELECT * FROM look;
SELECT * FROM pg_temp.told();
-- What can't be: money in a currency that is none would never be reached; a place in the feed that is none would read nothing, for ever.
SELECT pg_temp.fails($$SELECT billing.alert_rule_set('globex', '{"key":"typo","kind":"spend","period":"month","unit":"USDD","thresholds":["1"]}')$$);
SELECT pg_temp.fails($$SELECT * FROM billing.events_after(NULL)$$);
SELECT pg_temp.fails($$SELECT * FROM billing.alerts_step(0, NULL)$$);

-- A window that no other follows is looked at when it is over, too: of the first use, and of a contract that ended.
SELECT billing.test_clock_set('2026-05-01 10:00+00') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{"features":[{"key":"burst","kind":"metered","meter":"tokens"},{"key":"day","kind":"metered","meter":"tokens"},{"key":"once","kind":"metered","meter":"tokens"}],
  "plans":[{"key":"odd","currency":"USD","entitlements":[{"feature":"burst","value":"100","reset":{"first_use":"1 hour"},"mode":"soft"},{"feature":"day","value":"1000","reset":"day","mode":"soft"},{"feature":"once","value":"1000","reset":"never","mode":"soft"}]}]}');
SELECT billing.customer_upsert('{"key":"umbrella","currency":"USD"}'), billing.subscribe('umbrella', 'odd', '2026-05-01');
SELECT billing.alert_rule_set('umbrella', '{"key":"burst","kind":"usage","feature":"burst","thresholds":["60%"]}'),
    billing.alert_rule_set('umbrella', '{"key":"quota","kind":"usage","feature":"day","thresholds":["100%"]}'), billing.alert_rule_set('umbrella', '{"key":"once","kind":"usage","feature":"once","thresholds":["100%"]}');
SELECT result, resets_at FROM billing.consume('umbrella', 'burst', 10, 'u1');
SELECT billing.ingest_event('umbrella', 'request', 'u2', '2026-05-01 10:00+00', '{"tokens":60}');
SELECT billing.test_clock_set('2026-05-01 12:30+00') AS clock \gset
SELECT * FROM look;
SELECT * FROM pg_temp.told();
-- The window of before the one that runs.
SELECT result, resets_at FROM billing.consume('umbrella', 'burst', 10, 'u3');
SELECT billing.test_clock_set('2026-05-01 13:30+00') AS clock \gset
SELECT result, resets_at FROM billing.consume('umbrella', 'burst', 5, 'u4');
SELECT billing.ingest_event('umbrella', 'request', 'u5', '2026-05-01 13:00+00', '{"tokens":50}');
SELECT * FROM look;
SELECT * FROM pg_temp.told();
SELECT billing.test_clock_set('2026-05-01 23:59:50+00') AS clock \gset
SELECT billing.ingest_event('umbrella', 'request', 'u6', billing.now(), '{"tokens":1000}');
SELECT billing.contract_cancel('umbrella-1', '2026-05-02');
SELECT billing.test_clock_set('2026-05-02 00:00:10+00') AS clock \gset
SELECT allowed, reason FROM billing.entitlement_check('umbrella', 'day');
SELECT * FROM look;
SELECT * FROM pg_temp.told();
SELECT * FROM look;
SELECT * FROM pg_temp.told();
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
