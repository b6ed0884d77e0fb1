\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
-- Checking and counting in one, windows and their anchors, reservations, seats, credit.
SELECT billing.test_clock_set('2026-01-31T12:00:00Z') IS NOT NULL AS clock;
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "app"}],
  "meters": [{"key": "projects", "event_type": "project.created", "aggregation": "count", "dimensions": ["team"]},
             {"key": "tokens", "event_type": "llm", "aggregation": "sum", "value": "usage.tokens", "dimensions": ["model"], "unit": "token"},
             {"key": "both", "event_type": "llm2", "aggregation": "sum", "value": "input + output"},
             {"key": "seats", "event_type": "seat", "aggregation": "unique_count", "value": "seat", "operation": "operation"},
             {"key": "peak-seats", "event_type": "seat", "aggregation": "max", "value": "seats"},
             {"key": "seat-time", "event_type": "seat", "aggregation": "weighted_sum", "value": "change", "weighting": "period"}],
  "features": [{"key": "projects", "kind": "metered", "meter": "projects"}, {"key": "tokens", "kind": "metered", "meter": "tokens"}, {"key": "both", "kind": "metered", "meter": "both"},
               {"key": "seats", "kind": "seat", "meter": "seats"}, {"key": "ai", "kind": "credit", "unit": "USD", "meter": "tokens"}, {"key": "sso", "kind": "boolean"}, {"key": "dry", "kind": "credit", "unit": "USD"}],
  "plans": [{"key": "p", "currency": "USD", "charges": [{"key": "tokens", "product": "app", "meter": "tokens", "pricing": {"model": "per_unit", "unit_price": "0.01"}}],
    "entitlements": [{"feature": "projects", "value": "5", "reset": "never"}, {"feature": "tokens", "value": "100"}, {"feature": "both", "value": null}, {"feature": "seats", "value": "2"},
      {"feature": "ai"}, {"feature": "dry"}, {"feature": "sso"}]}]}');
SELECT billing.customer_upsert('{"key": "acme", "currency": "USD"}');
SELECT billing.subscribe('acme', 'p', '2026-01-31', '{"billing": {"alignment": "anniversary"}}');

-- ── consume ──────────────────────────────────────────────────────────────────────────────────────
SELECT n, c.result, c.reason, c.used, c.quota, c.remaining FROM generate_series(1, 6) n CROSS JOIN LATERAL billing.consume('acme', 'projects', 1, 'project-' || n, '{"team": "a"}') c;
-- The same again counts once, other content is refused; a denial stores nothing, so the key is free.
SELECT result, allowed, used FROM billing.consume('acme', 'projects', 1, 'project-5', '{"team": "a"}');
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'projects', 1, 'project-5', '{"team": "b"}')$$);
SELECT billing.entitlement_override('acme', 'projects', '6', reason => 'one more') IS NOT NULL AS made;
SELECT result, used, remaining FROM billing.consume('acme', 'projects', 1, 'project-6', '{"team": "a"}');
SELECT result, reason, used, remaining FROM billing.consume('acme', 'projects', 1, 'project-7', '{"team": "a"}');
SELECT quantity, events FROM billing.usage('acme', 'projects', '2026-01-01Z', '2026-03-01Z');
SELECT event_id, event_type, properties FROM billing.usage_event ORDER BY event_id;
-- Sums get the quantity where the meter looks for it; others are measured; all or nothing.
SELECT result, reason, used, remaining FROM billing.consume('acme', 'tokens', 60, 't1', '{"model": "a"}');
SELECT result, reason, used, remaining FROM billing.consume('acme', 'tokens', 41, 't2', '{"model": "a"}');
SELECT result, reason, used, remaining FROM billing.consume('acme', 'tokens', 40, 't3');
SELECT result, reason, used, remaining, quota FROM billing.consume('acme', 'both', 1, 'b1', '{"input": 3, "output": 4}');
SELECT properties FROM billing.usage_event WHERE event_id IN ('consume:t1', 'consume:b1') ORDER BY event_id DESC;
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'both', 9, 'b2', '{"input": 3, "output": 4}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'projects', 2, 'x')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'projects', -1, 'x')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'projects')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'projects', 1, 'x', '[]')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'sso', 1, 'x')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'dry', 1, 'x')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'seats', 1, 'x')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'nope', 1, 'x')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.consume('nobody', 'projects', 1, 'x')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'both', 1, 'x', '{"input": 3, "output": 4}', 'nobody')$$);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM pg_temp.fails($$SELECT billing.consume('acme', 'projects', 1, 'x')$$);
ROLLBACK;
-- Billed by the day of the month it began on: 31 January, then 28 February.
SELECT used, resets_at FROM billing.entitlement_check('acme', 'tokens', 0);
SELECT billing.test_clock_set('2026-02-28T00:00:00Z') IS NOT NULL AS clock;
SELECT used, remaining, resets_at FROM billing.entitlement_check('acme', 'tokens', 0);

-- ── modes, windows, rollover ─────────────────────────────────────────────────────────────────────
SELECT billing.contract_amend('acme-1', '{"entitlements": [{"feature": "tokens", "value": "100", "mode": "soft", "reset": "day"}]}', '2026-02-28') AS version;
SELECT result, reason, used, remaining, resets_at FROM billing.consume('acme', 'tokens', 150, 'soft');
SELECT billing.contract_amend('acme-1', '{"entitlements": [{"feature": "tokens", "value": "100", "mode": "overage", "reset": "hour"}]}', '2026-02-28') AS version;
SELECT result, reason, used, resets_at FROM billing.consume('acme', 'tokens', 1, 'overage');
SELECT billing.contract_amend('acme-1', '{"entitlements": [{"feature": "tokens", "value": "100", "reset": {"sliding": "24 hours"}}]}', '2026-02-28') AS version;
SELECT allowed, reason, used, resets_at FROM billing.entitlement_check('acme', 'tokens');
SELECT billing.test_clock_set('2026-02-28T23:59:59.999999Z') IS NOT NULL AS clock;
SELECT allowed, used FROM billing.entitlement_check('acme', 'tokens');
SELECT billing.test_clock_set('2026-03-01T00:00:00Z') IS NOT NULL AS clock;
SELECT allowed, used FROM billing.entitlement_check('acme', 'tokens');
-- The first use begins a window of seven days, whatever was used before; the next use after it begins another.
SELECT billing.contract_amend('acme-1', '{"entitlements": [{"feature": "tokens", "value": "100", "reset": {"first_use": "7 days"}}]}', '2026-03-01') AS version;
SELECT allowed, used, resets_at FROM billing.entitlement_check('acme', 'tokens');
SELECT billing.test_clock_set('2026-03-01T10:30:00Z') IS NOT NULL AS clock;
SELECT result, used, resets_at FROM billing.consume('acme', 'tokens', 70, 'first');
SELECT billing.test_clock_set('2026-03-08T10:29:59Z') IS NOT NULL AS clock;
SELECT result, used, resets_at FROM billing.consume('acme', 'tokens', 70, 'second');
SELECT billing.test_clock_set('2026-03-08T10:30:00Z') IS NOT NULL AS clock;
SELECT result, used, resets_at FROM billing.consume('acme', 'tokens', 70, 'third');
-- What a month's quota leaves is there once more in the next, up to the cap.
SELECT billing.contract_amend('acme-1', '{"entitlements": [{"feature": "tokens", "value": "300", "reset": "month", "rollover": {"cap": "50"}}]}', '2026-03-09') AS version;
SELECT billing.test_clock_set('2026-04-02T00:00:00Z') IS NOT NULL AS clock;
SELECT used, quota, resets_at FROM billing.entitlement_check('acme', 'tokens');
SELECT result, used, quota FROM billing.consume('acme', 'tokens', 330, 'april');
SELECT billing.test_clock_set('2026-05-02T00:00:00Z') IS NOT NULL AS clock;
SELECT used, quota, resets_at FROM billing.entitlement_check('acme', 'tokens');
-- What had rolled in rolls on, under the cap: 100 a month, up to 150 roll over, and 0, 0, 20, 300 and 100 are used from January to May.
SELECT billing.subscribe('rolls', 'p', '2027-01-01', '{"entitlements": [{"feature": "tokens", "value": "100", "reset": "month", "rollover": {"cap": "150"}}]}')
FROM billing.customer_upsert('{"key": "rolls", "currency": "USD"}');
CREATE TEMP TABLE rolled (month date, quota numeric, want numeric);
CREATE FUNCTION pg_temp.month(month date, n numeric, want numeric) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM billing.test_clock_set(month + interval '10 days');
    IF n > 0 THEN
        PERFORM billing.ingest_event('rolls', 'llm', 'rolls' || month, billing.now(), jsonb_build_object('usage', jsonb_build_object('tokens', n)));
    END IF;
    INSERT INTO rolled SELECT month, c.quota, want FROM billing.entitlement_check('rolls', 'tokens', 0) c;
END $$;
BEGIN;
SELECT pg_temp.month('2027-01-01', 0, 100), pg_temp.month('2027-02-01', 0, 200), pg_temp.month('2027-03-01', 20, 250), pg_temp.month('2027-04-01', 300, 250), pg_temp.month('2027-05-01', 100, 100), pg_temp.month('2027-06-01', 0, 100);
SELECT month, quota, want, quota = want AS ok FROM rolled;
-- Late usage of March moves what April had. A month whose contract was paused when it ended rolls nothing on.
SELECT billing.ingest_event('rolls', 'llm', 'late', '2027-03-02Z', '{"usage": {"tokens": 200}}');
SELECT billing.test_clock_set('2027-04-11Z') IS NOT NULL AS clock;
SELECT quota FROM billing.entitlement_check('rolls', 'tokens', 0);
SELECT billing.test_clock_set('2027-07-20Z') IS NOT NULL AS clock;
SELECT billing.contract_pause('rolls-1', '2027-07-31Z') + billing.contract_resume('rolls-1', '2027-08-03Z') AS version;
SELECT billing.test_clock_set('2027-08-10Z') IS NOT NULL AS clock;
SELECT quota FROM billing.entitlement_check('rolls', 'tokens', 0);
-- What was used of a quota is what it was for: January's 10 were for model b, which used 4, whatever February's are for.
SELECT billing.subscribe('some', 'p', '2027-01-01', '{"entitlements": [{"feature": "tokens", "value": "10", "reset": "month", "match": {"model": "b"}}]}')
FROM billing.customer_upsert('{"key": "some", "currency": "USD"}');
SELECT billing.contract_amend('some-1', '{"entitlements": [{"feature": "tokens", "value": "100", "reset": "month", "rollover": {}}]}', '2027-02-01') AS version;
SELECT billing.ingest_event('some', 'llm', 'some-' || m, '2027-01-05Z', jsonb_build_object('model', m, 'usage', jsonb_build_object('tokens', n))) FROM (VALUES ('a', 30), ('b', 4)) x (m, n);
SELECT billing.test_clock_set('2027-02-10Z') IS NOT NULL AS clock;
SELECT quota, 100 + 10 - 4 AS want, quota = 100 + 10 - 4 AS ok FROM billing.entitlement_check('some', 'tokens', 0);
ROLLBACK;
SELECT billing.test_clock_set('2026-05-02T00:00:00Z') IS NOT NULL AS clock;
-- Only some of the usage.
SELECT billing.contract_amend('acme-1', '{"entitlements": [{"feature": "tokens", "value": "10", "reset": "month", "match": {"model": "b"}}]}', '2026-05-02') AS version;
SELECT result, reason, used FROM billing.consume('acme', 'tokens', 5, 'a', '{"model": "a"}');
SELECT result, reason, used FROM billing.consume('acme', 'tokens', 5, 'b', '{"model": "b"}');
SELECT allowed, reason, used FROM billing.entitlement_check('acme', 'tokens', 6, '{"model": "b"}');

-- ── reservations ─────────────────────────────────────────────────────────────────────────────────
SELECT billing.contract_amend('acme-1', '{"entitlements": [{"feature": "tokens", "value": "100", "reset": "week"}]}', '2026-05-02') AS version;
SELECT billing.test_clock_set('2026-05-04T00:00:00Z') IS NOT NULL AS clock;
SELECT result, expires_at, used, remaining, reservation_id AS r1 FROM billing.reservation_create('acme', 'tokens', 60, 'job-1', '10 minutes', '{"model": "b"}') \gset r_
SELECT :'r_result' AS result, :'r_expires_at' AS expires_at, :'r_used' AS used, :'r_remaining' AS remaining;
SELECT result, reason, used, remaining FROM billing.reservation_create('acme', 'tokens', 41, 'job-2');
SELECT result, expires_at FROM billing.reservation_create('acme', 'tokens', 60, 'job-1', '1 hour', '{"model": "b"}');
SELECT * FROM pg_temp.fails($$SELECT billing.reservation_create('acme', 'tokens', 61, 'job-1')$$);
SELECT result, used, remaining FROM billing.consume('acme', 'tokens', 40, 'beside');
SELECT result, reason FROM billing.consume('acme', 'tokens', 1, 'no more');
SELECT * FROM billing.reservation_confirm(:'r_r1', 25);
SELECT * FROM billing.reservation_confirm(:'r_r1', 25);
SELECT replace(f, :'r_r1', '<id>') AS fails FROM pg_temp.fails(format('SELECT billing.reservation_confirm(%L, 26)', :'r_r1')) f;
SELECT replace(f, :'r_r1', '<id>') AS fails FROM pg_temp.fails(format('SELECT billing.reservation_release(%L)', :'r_r1')) f;
SELECT result, reservation_id AS r2 FROM billing.reservation_create('acme', 'tokens', 30, 'job-3', '10 minutes') \gset r_
SELECT billing.reservation_release(:'r_r2'), billing.reservation_release(:'r_r2');
SELECT replace(f, :'r_r2', '<id>') AS fails FROM pg_temp.fails(format('SELECT billing.reservation_confirm(%L)', :'r_r2')) f;
-- One that expires is free by its instant; what was used all the same counts, and says so.
SELECT result, reservation_id AS r3 FROM billing.reservation_create('acme', 'tokens', 35, 'job-4', '10 minutes') \gset r_
SELECT remaining FROM billing.entitlement_check('acme', 'tokens');
SELECT billing.test_clock_set('2026-05-04T00:10:00Z') IS NOT NULL AS clock;
SELECT remaining FROM billing.entitlement_check('acme', 'tokens');
SELECT billing.reservation_expiry_step(), billing.reservation_expiry_step();
SELECT * FROM billing.reservation_confirm(:'r_r3', 40);
SELECT idempotency_key, quantity, outcome, actual, was_late FROM billing.reservation ORDER BY made_at, reservation_id;
SELECT * FROM pg_temp.fails($$SELECT billing.reservation_create('acme', 'tokens', 0, 'x')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.reservation_create('acme', 'tokens', 1, 'x', '8 days')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.reservation_confirm('00000000-0000-7000-8000-000000000000')$$);

-- ── seats ────────────────────────────────────────────────────────────────────────────────────────
SELECT u, s.* FROM unnest('{ann,bob,ann,cem}'::text[]) u CROSS JOIN LATERAL billing.seat_assign('acme', 'seats', u) s;
SELECT u, s.* FROM unnest('{bob,bob}'::text[]) u CROSS JOIN LATERAL billing.seat_release('acme', 'seats', u) s;
SELECT * FROM billing.seat_assign('acme', 'seats', 'cem');
-- More seats than the quota by now: who has one keeps it or leaves, nobody comes.
SELECT billing.entitlement_override('acme', 'seats', '0', NULL, 'fewer') IS NOT NULL AS made;
SELECT s.result, s.allowed, s.reason, s.used FROM (VALUES ('ann', false), ('eve', false), ('ann', true), ('ann', true)) c (who, leaves) CROSS JOIN LATERAL (SELECT * FROM billing.seat_assign('acme', 'seats', c.who) WHERE NOT c.leaves UNION ALL SELECT * FROM billing.seat_release('acme', 'seats', c.who) WHERE c.leaves) s;
SELECT billing.entitlement_override_end('acme', 'seats', 'as agreed') AS ended;
SELECT result FROM billing.seat_assign('acme', 'seats', 'ann');
SELECT billing.contract_amend('acme-1', '{"entitlements": [{"feature": "seats", "value": "2", "mode": "soft"}]}', '2026-05-04') AS version;
SELECT * FROM billing.seat_assign('acme', 'seats', 'dan');
SELECT billing.test_clock_set('2026-05-14T00:00:00Z') IS NOT NULL AS clock;
SELECT u, s.result, s.used FROM unnest('{dan,cem}'::text[]) u CROSS JOIN LATERAL billing.seat_release('acme', 'seats', u) s;
-- May by end of period, by the most of a change, and by time: 2 + 1 + … as each meter counts it.
SELECT occurred_at, properties->>'operation' AS operation, properties->>'seat' AS seat, properties->'seats' AS seats, properties->'change' AS change FROM billing.usage_event WHERE event_type = 'seat' ORDER BY recorded_at;
SELECT m AS meter, round(u.quantity, 4) AS quantity FROM unnest('{seats,peak-seats,seat-time}'::text[]) m CROSS JOIN LATERAL billing.usage('acme', m, '2026-05-01Z', '2026-06-01Z') u;
SELECT * FROM pg_temp.fails($$SELECT * FROM billing.seat_assign('acme', 'tokens', 'ann')$$);
SELECT * FROM pg_temp.fails($$SELECT * FROM billing.seat_assign('acme', 'seats', '')$$);

-- ── credit ───────────────────────────────────────────────────────────────────────────────────────
SELECT allowed, reason, remaining FROM billing.entitlement_check('acme', 'ai');
CALL billing.bill_run();
SELECT billing.credit_grant_create('acme', '{"key": "pack", "amount": "1.00"}');
SELECT allowed, reason, remaining FROM billing.entitlement_check('acme', 'ai');
SELECT result, reason, remaining FROM billing.consume('acme', 'ai', 60, 'c1');
SELECT billing.test_clock_set('2026-05-14T00:00:02Z') IS NOT NULL AS clock;
SELECT result, reason, remaining FROM billing.consume('acme', 'ai', 60, 'c2');
SELECT billing.test_clock_set('2026-05-14T00:00:03Z') IS NOT NULL AS clock;
SELECT result, reason, remaining FROM billing.consume('acme', 'ai', 40, 'c3');
SELECT billing.test_clock_set('2026-05-14T00:00:04Z') IS NOT NULL AS clock;
SELECT result, reason, remaining FROM billing.consume('acme', 'ai', 1, 'c4');
SELECT billing.test_clock_set('2026-05-14T00:00:05Z') IS NOT NULL AS clock;
SELECT result, remaining FROM billing.consume('acme', 'ai', 60, 'c1');
SELECT available FROM billing.credit_balance('acme');
-- So it is where nothing but credit pays.
SELECT billing.customer_upsert('{"key": "solo", "currency": "USD"}'), billing.credit_grant_create('solo', '{"key": "pack", "amount": "0.50"}');
SELECT billing.subscribe('solo', 'p', '2026-05-01', '{"credit_mode": "credit_only"}');
SELECT q, c.result, c.reason FROM unnest('{40,11,10,1}'::int[]) WITH ORDINALITY x (q, n) CROSS JOIN LATERAL billing.consume('solo', 'ai', q, 's' || n) c ORDER BY n;
-- A paused contract's customer is suspended; what it consumes is refused.
SELECT billing.contract_pause('acme-1') AS version;
SELECT result, reason FROM billing.consume('acme', 'projects', 1, 'paused');
-- ── seats on bills ───────────────────────────────────────────────────────────────────────────────
-- The end of the period, its peak, and time, at 10 each; what was before is carried in, so a month in which nobody comes or goes bills the seats that are held.
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "meters": [{"key": "crew", "event_type": "crew", "aggregation": "unique_count", "value": "who", "operation": "what"},
             {"key": "crew-peak", "event_type": "crew", "aggregation": "unique_count", "value": "who", "operation": "what", "counted": "peak"},
             {"key": "crew-time", "event_type": "crew", "aggregation": "weighted_sum", "value": "change", "weighting": "period"},
             {"key": "crew-max", "event_type": "crew", "aggregation": "max", "value": "seats"}],
  "features": [{"key": "crew", "kind": "seat", "meter": "crew"}],
  "plans": [{"key": "crew", "currency": "USD", "entitlements": [{"feature": "crew", "value": null}], "charges": [
    {"key": "end", "product": "app", "meter": "crew", "pricing": {"model": "per_unit", "unit_price": "10"}},
    {"key": "peak", "product": "app", "meter": "crew-peak", "pricing": {"model": "per_unit", "unit_price": "10"}},
    {"key": "time", "product": "app", "meter": "crew-time", "pricing": {"model": "per_unit", "unit_price": "10"}}]}]}');
SELECT billing.customer_upsert('{"key": "ship", "currency": "USD"}'), billing.subscribe('ship', 'crew', '2028-01-01');
CREATE FUNCTION pg_temp.crew(at timestamptz, who text, leaves boolean DEFAULT false) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM billing.test_clock_set(at);
    RETURN (SELECT s.result FROM billing.seat_assign('ship', 'crew', who) s WHERE NOT leaves UNION ALL SELECT s.result FROM billing.seat_release('ship', 'crew', who) s WHERE leaves);
END $$;
-- Two from the 10th; a third from the 20th to the 25th, and at that instant another until the 26th: never four. March: one leaves on the 5th, and two come for ten minutes.
SELECT pg_temp.crew('2028-01-10Z', 'ann'), pg_temp.crew('2028-01-10Z', 'bob'), pg_temp.crew('2028-01-20Z', 'cem'), pg_temp.crew('2028-01-25Z', 'cem', true), pg_temp.crew('2028-01-25Z', 'dan'), pg_temp.crew('2028-01-26Z', 'dan', true);
SELECT billing.test_clock_set('2028-03-01Z') IS NOT NULL AS clock;
CALL billing.bill_run();
SELECT pg_temp.crew('2028-03-05Z', 'bob', true), pg_temp.crew('2028-03-08 10:10Z', 'eve'), pg_temp.crew('2028-03-08 10:10Z', 'fay'), pg_temp.crew('2028-03-08 10:20Z', 'eve', true), pg_temp.crew('2028-03-08 10:20Z', 'fay', true);
SELECT billing.test_clock_set('2028-05-01Z') IS NOT NULL AS clock;
CALL billing.bill_run();
SELECT l.service_from::date AS from, l.charge_key, l.quantity, l.amount, w.want, l.amount = w.want AS ok
FROM billing.customer c JOIN billing.invoice_line l USING (customer_id)
JOIN (VALUES ('2028-01-01', 'end', 20), ('2028-01-01', 'peak', 30), ('2028-01-01', 'time', round(10 * (2 * 22 + 5 + 1) / 31.0, 2)), ('2028-02-01', 'end', 20), ('2028-02-01', 'peak', 20), ('2028-02-01', 'time', 20),
    ('2028-03-01', 'end', 10), ('2028-03-01', 'peak', 30), ('2028-03-01', 'time', round(10 * (31 + 4 + 20 / 1440.0) / 31, 2)), ('2028-04-01', 'end', 10), ('2028-04-01', 'peak', 10), ('2028-04-01', 'time', 10)) w (day, charge, want)
    ON l.service_from::date = w.day::date AND l.charge_key = w.charge
WHERE c.key = 'ship' ORDER BY 1, 2;
SELECT count(*) AS lines, bool_and(r.same_bytes) AS as_issued FROM billing.invoice i JOIN billing.customer c USING (customer_id) CROSS JOIN LATERAL billing.invoice_recompute(i.number) r WHERE c.key = 'ship';
-- By day, by what is left of the first; and in February, of which no bucket knows anything.
SELECT u.starts_at, u.quantity FROM billing.usage('ship', 'crew-peak', '2028-01-24Z', '2028-01-28Z', 'day') u;
SELECT m, u.quantity FROM unnest('{crew,crew-peak,crew-time,crew-max}'::text[]) m, billing.usage('ship', m, '2028-02-01Z', '2028-03-01Z') u;
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"plans": [{"key": "wrong", "currency": "USD", "charges": [{"key": "max", "product": "app", "meter": "crew-max", "pricing": {"model": "per_unit", "unit_price": "10"}}]}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"features": [{"key": "most", "kind": "seat", "meter": "crew-peak"}]}')$$);
SELECT * FROM pg_temp.fails($$SELECT billing.catalog_apply('{"meters": [{"key": "crew", "event_type": "crew", "aggregation": "unique_count", "value": "who", "operation": "what", "counted": "peak"}]}')$$);
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
