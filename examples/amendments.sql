-- Deals that change while they run, lived through in order of time: upgrade, seats, cancellation, pause, co-terming, fiscal years,
-- an amendment found late, renewal. Jobs run by tick(). What is credited is what was charged, in lines with service periods of
-- their own, each rounded once.
SELECT billing.test_clock_set('2025-01-01T00:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "suite", "name": "Suite"}],
  "plans": [
    {"key": "starter", "name": "Starter", "currency": "USD", "fees": [{"key": "platform", "product": "suite", "pricing": {"model": "flat", "amount": "100"}}]},
    {"key": "growth", "name": "Growth", "currency": "USD", "fees": [{"key": "platform", "product": "suite", "pricing": {"model": "flat", "amount": "300"}}]}]}') \gset
-- Time goes on to an instant, where what is due is done.
CREATE PROCEDURE pg_temp.live_until(at timestamptz) LANGUAGE sql AS $$ SELECT billing.test_clock_set(at); SELECT * FROM billing.tick(); $$;
-- A deal on one fee of the product suite, or on a plan.
CREATE FUNCTION pg_temp.sign(key text, starts_on text, amount text, every text DEFAULT '1 month', doc jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
    SELECT billing.customer_upsert(jsonb_build_object('key', key, 'time_zone', coalesce(doc->>'time_zone', 'UTC')));
    SELECT billing.contract_create(jsonb_build_object('key', key || '-1', 'customer', key, 'currency', 'USD', 'starts_on', starts_on, 'billing', jsonb_build_object('interval', every) || coalesce(doc->'billing', '{}'))
        || CASE WHEN amount IS NOT NULL THEN jsonb_build_object('fees', jsonb_build_array(jsonb_build_object('key', 'platform', 'product', 'suite', 'pricing', jsonb_build_object('model', 'flat', 'amount', amount)))) ELSE '{}' END
        || (doc - '{time_zone,billing}'::text[]));
    SELECT billing.contract_activate(key || '-1'); $$;
-- What was billed to a customer on a day, with local service periods.
CREATE FUNCTION pg_temp.billed(customer text, issued_on date) RETURNS TABLE (document text, kind text, line text, starts text, ends text, quantity numeric, amount numeric) LANGUAGE sql AS $$
    SELECT i.number, l.kind, l.key, to_char(l.service_from AT TIME ZONE k.time_zone, 'YYYY-MM-DD HH24:MI'), to_char(l.service_until AT TIME ZONE k.time_zone, 'YYYY-MM-DD HH24:MI'), trim_scale(l.quantity), l.amount
    FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.customer c USING (customer_id) JOIN billing.contract k USING (customer_id, contract_id)
    WHERE c.key = customer AND i.issued_on = billed.issued_on ORDER BY i.number, l.line_n $$;
CREATE TEMP TABLE worked (n int GENERATED ALWAYS AS IDENTITY, what text, working text, got numeric, want numeric);

\echo January to March: what begins inside a period is charged by its days, as each deal counts them
SELECT pg_temp.sign('upgrade', '2025-01-01', NULL, doc => '{"plan": "starter"}'), pg_temp.sign('annual', '2025-01-01', '1200', '12 months'),
    pg_temp.sign('coterm', '2025-01-01', '50000', '12 months', '{"term": "12 months"}') \g /dev/null
CALL pg_temp.live_until('2025-01-20T00:00:00Z');
SELECT pg_temp.sign('stub-' || basis, '2025-01-20', '310'), billing.policy_set('proration_basis', basis, 'contract:stub-' || basis || '-1') FROM unnest('{day,30_actual,30_strict}'::text[]) basis \g /dev/null
CALL pg_temp.live_until('2025-02-01T00:00:00Z');
SELECT pg_temp.sign('renewal', '2025-02-01', '50000', '12 months', '{"term": "12 months", "billing": {"alignment": "anniversary"}, "renewal": {"auto": true, "notice_days": 60, "uplift": {"index": "cpi", "min": "3", "max": "7"}}}') \g /dev/null
CALL pg_temp.live_until('2025-02-10T00:00:00Z');
SELECT pg_temp.sign('quarter', '2025-02-10', '9000', '3 months') \g /dev/null
CALL pg_temp.live_until('2025-02-10T00:00:00Z');
INSERT INTO worked (what, working, got, want)
SELECT '310 a month, 20 to 31 January, ' || w.basis, w.working, b.amount, w.want
FROM (VALUES ('day', '310*12/31', 120.00), ('30_actual', '310*12/30', 124.00), ('30_strict', '310*11/30', 113.67)) w (basis, working, want), pg_temp.billed('stub-' || w.basis, '2025-02-01') b WHERE b.starts LIKE '2025-01-20%';
INSERT INTO worked (what, working, got, want) SELECT '9,000 a calendar quarter, from 10 February', '9000*50/90', sum(amount), 5000.00 FROM pg_temp.billed('quarter', '2025-02-10');
SELECT what, working, got FROM worked ORDER BY n;

\echo 11 March: from 100 to 300 a month. What is left of March is credited at the old price and charged at the new; net in one line would be 135.48
CALL pg_temp.live_until('2025-03-01T05:00:00Z');
SELECT pg_temp.sign('second', '2025-03-01', NULL, doc => '{"plan": "starter", "time_zone": "America/New_York"}'), billing.policy_set('proration_basis', 'second', 'contract:second-1') \g /dev/null
CALL pg_temp.live_until('2025-03-11T09:30:00Z');
SELECT billing.contract_change_plan('upgrade', 'growth', reason => 'they grew') AS version;
\echo 16 March, noon in New York: the same by the second; 372 of the 743 hours of that March are left
CALL pg_temp.live_until('2025-03-16T12:00:00-04:00');
SELECT billing.contract_change_plan('second', 'growth') AS version;
CALL pg_temp.live_until('2025-04-01T00:00:00Z');
SELECT * FROM pg_temp.billed('upgrade', '2025-04-01');
INSERT INTO worked (what, working, got, want) SELECT 'upgrade 100 to 300, 11 March', '-100*21/31 + 300*21/31', sum(amount), 135.49 FROM pg_temp.billed('upgrade', '2025-04-01') WHERE kind = 'proration';

\echo April: seats added on the 11th, an upgrade and a cancellation half way, an add-on that ends with its contract
SELECT pg_temp.sign('half', '2025-04-01', NULL, doc => '{"plan": "starter"}'), pg_temp.sign('cancel', '2025-04-01', NULL, doc => '{"plan": "starter", "discounts": [{"key": "launch", "percent_off": "20"}]}'),
    pg_temp.sign('seats', '2025-04-01', NULL, doc => '{"fees": [{"key": "seats", "product": "suite", "quantity": "10", "pricing": {"model": "per_unit", "unit_price": "20"}}]}') \g /dev/null
SELECT billing.contract_amend('coterm', '{"add_ons": [{"key": "audit", "fees": [{"key": "log", "product": "suite", "pricing": {"model": "flat", "amount": "12000"}}]}]}') AS version;
CALL pg_temp.live_until('2025-04-01T04:00:00Z');
SELECT * FROM pg_temp.billed('second', '2025-04-01');
INSERT INTO worked (what, working, got, want) SELECT 'the same by the second, 16 March at noon', '-100*372/743 + 300*372/743', sum(amount), 100.13 FROM pg_temp.billed('second', '2025-04-01') WHERE kind = 'proration';
CALL pg_temp.live_until('2025-04-11T08:00:00Z');
SELECT billing.contract_amend('seats', '{"quantities": {"seats": "15"}}', reason => 'five more people') AS version;
CALL pg_temp.live_until('2025-04-16T00:00:00Z');
SELECT billing.contract_change_plan('half', 'growth') AS version;
SELECT billing.contract_cancel('cancel', 'now', 'moved on') AS version;
CALL pg_temp.live_until('2025-04-16T00:00:00Z');
\echo Half of a month at 100 less 20 percent: what was charged was 80, so 40 come back, at once, since nothing else will be billed
SELECT * FROM pg_temp.billed('cancel', '2025-04-16');
SELECT key, state, ends_on FROM billing.contract WHERE key = 'cancel-1';
INSERT INTO worked (what, working, got, want) SELECT '100 less 20 %, cancelled half way', '-80*15/30', sum(amount), -40.00 FROM pg_temp.billed('cancel', '2025-04-16');
CALL pg_temp.live_until('2025-05-01T00:00:00Z');
\echo Five seats more: quantity times price times share, rounded once (13.33 a seat would be 66.65)
SELECT * FROM pg_temp.billed('seats', '2025-05-01');
INSERT INTO worked (what, working, got, want) SELECT 'upgrade 100 to 300, 16 April', '-50.00 + 150.00', sum(amount), 100.00 FROM pg_temp.billed('half', '2025-05-01') WHERE kind = 'proration';
INSERT INTO worked (what, working, got, want) SELECT '5 seats at 20 for 20 of 30 days', '15*20*20/30 - 10*20*20/30', sum(amount), 66.67 FROM pg_temp.billed('seats', '2025-05-01') WHERE kind = 'proration';

\echo June: paused from the 11th to the 21st; and an amendment that should have held since 1 May is found on the 20th
CALL pg_temp.live_until('2025-06-01T00:00:00Z');
SELECT pg_temp.sign('pause', '2025-06-01', '300') \g /dev/null
CALL pg_temp.live_until('2025-06-11T00:00:00Z');
SELECT billing.contract_pause('pause') AS version;
CALL pg_temp.live_until('2025-06-20T00:00:00Z');
SELECT clock_timestamp() AS before \gset
SELECT billing.contract_amend('seats', '{"quantities": {"seats": "10"}}', '2025-05-01T00:00:00Z', 'found in the mail') AS version;
CALL pg_temp.live_until('2025-06-21T00:00:00Z');
SELECT billing.contract_resume('pause') AS version;
CALL pg_temp.live_until('2025-07-01T00:00:00Z');
SELECT * FROM pg_temp.billed('pause', '2025-07-01');
\echo What was billed for May and June stands; the difference is on the invoice of July
SELECT * FROM pg_temp.billed('seats', '2025-07-01');
SELECT billing.contract_as_of('seats', '2025-05-15Z', :'before')#>>'{fees,0,quantity}' AS seats_in_may_as_known_before, billing.contract_as_of('seats', '2025-05-15Z')#>>'{fees,0,quantity}' AS as_known_now;
INSERT INTO worked (what, working, got, want) SELECT '300 a month, paused for 10 of 30 days', '-300*20/30 + 300*10/30', sum(amount), -100.00 FROM pg_temp.billed('pause', '2025-07-01') WHERE kind = 'proration';
INSERT INTO worked (what, working, got, want) SELECT '5 seats at 20 fewer, in May and June', '-2*5*20', sum(amount), -200.00 FROM pg_temp.billed('seats', '2025-07-01') WHERE kind = 'proration';

\echo 1 July: a year of 1,200 is cancelled; 184 of its 365 days come back
SELECT billing.contract_cancel('annual', 'now') AS version;
CALL pg_temp.live_until('2025-07-01T00:00:00Z');
SELECT * FROM pg_temp.billed('annual', '2025-07-01');
INSERT INTO worked (what, working, got, want) SELECT 'a year of 1,200 cancelled on 1 July', '-1200*184/365', sum(amount), -604.93 FROM pg_temp.billed('annual', '2025-07-01');

\echo 15 November: a fiscal year from 1 February; first a stub, then whole years
CALL pg_temp.live_until('2025-11-15T00:00:00Z');
SELECT pg_temp.sign('fiscal', '2025-11-15', '120000', '12 months', '{"billing": {"alignment": "fiscal", "fiscal_year_starts": "02-01"}}') \g /dev/null
CALL pg_temp.live_until('2025-11-15T00:00:00Z');
SELECT * FROM pg_temp.billed('fiscal', '2025-11-15');
INSERT INTO worked (what, working, got, want) SELECT '120,000 a year from 15 November, fiscal year from February', '120000*78/365', sum(amount), 25643.84 FROM pg_temp.billed('fiscal', '2025-11-15');

\echo 1 December: what will renew? Notice counts until the 3rd. The index it follows rose by 8.1 percent
SELECT contract, ends_on, notice_deadline, renews_on, uplift FROM billing.renewals_due('90 days');
SELECT billing.policy_set('renewal_index', '8.1') \g /dev/null
CALL pg_temp.live_until('2025-12-03T23:59:59Z');
SELECT k.key, v.version, v.kind, v.ends_on FROM billing.contract_version v JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'renewal-1' ORDER BY v.version;
CALL pg_temp.live_until('2025-12-04T00:00:00Z');
SELECT k.key, v.version, v.kind, v.change, v.ends_on FROM billing.contract_version v JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'renewal-1' AND v.version > 1 ORDER BY v.version;

\echo New year: the add-on was for 275 of 365 days and ended with its contract; February: the renewed year at 7 percent more
CALL pg_temp.live_until('2026-01-01T00:00:00Z');
SELECT * FROM pg_temp.billed('coterm', '2026-01-01');
SELECT key, state, ends_on FROM billing.contract WHERE key = 'coterm-1';
CALL pg_temp.live_until('2026-02-01T00:00:00Z');
SELECT * FROM pg_temp.billed('renewal', '2026-02-01');
INSERT INTO worked (what, working, got, want) SELECT 'add-on 12,000 a year from 1 April, co-termed', '12000*275/365', sum(amount), 9041.10 FROM pg_temp.billed('coterm', '2026-01-01');
INSERT INTO worked (what, working, got, want) SELECT '50,000 renewed with 8.1 %, kept between 3 and 7', '50000*1.07', sum(amount), 53500.00 FROM pg_temp.billed('renewal', '2026-02-01');

\echo All of it
SELECT what, working, got, want, got = want AS ok FROM worked ORDER BY n;
DO $$
DECLARE
    wrong text;
BEGIN
    SELECT string_agg(format('%s: %s, not %s', what, got, want), '; ') INTO wrong FROM worked WHERE got IS DISTINCT FROM want;
    SELECT concat_ws('; ', wrong, string_agg(v.check_name || ': ' || v.example, '; ')) INTO wrong FROM billing.verify('full') v WHERE v.failed > 0;
    IF wrong <> '' THEN RAISE EXCEPTION '%', wrong; END IF;
END
$$;
