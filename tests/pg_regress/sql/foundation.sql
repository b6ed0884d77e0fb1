-- Foundation: clock, install, sellers, customers, policies, money, the audit log.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all

-- The clock stands still at the instant set, here and in new sessions; NULL is the real clock again
SELECT billing.test_clock_set('2026-01-01T00:00:00Z');
SELECT billing.now(), pg_sleep(0.01), billing.now() = '2026-01-01T00:00:00Z' AS stands_still;
\c
SELECT billing.now();
SELECT abs(extract(epoch FROM billing.test_clock_set(NULL) - now())) < 60 AS real;
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all

-- install and migrate are one idempotent walk
SELECT * FROM billing.install('test');
SELECT count(*) AS steps, count(*) FILTER (WHERE state = 'kept') AS kept FROM billing.migrate();
\a \t
SELECT pg_temp.fails($$SELECT billing.install('live')$$);
SELECT pg_temp.fails($$SELECT billing.install('production')$$);
SELECT pg_temp.fails($$SELECT billing.install(NULL)$$);
SELECT pg_temp.fails($$SELECT billing.test_clock_set('infinity')$$);
-- … for the owner only
DROP ROLE IF EXISTS billing_golden;
CREATE ROLE billing_golden IN ROLE billing_admin;
SET ROLE billing_golden;
SELECT pg_temp.fails($$SELECT billing.install('test')$$);
SELECT pg_temp.fails($$SELECT billing.migrate()$$);
SELECT pg_temp.fails($$SELECT billing.test_clock_set('2027-01-01Z')$$);
RESET ROLE;
DROP ROLE billing_golden;
-- Before install every function says what to do
DROP DATABASE IF EXISTS golden_bare;
CREATE DATABASE golden_bare TEMPLATE template0;
\set database :DBNAME
\c golden_bare
CREATE EXTENSION pg_billing;
DO $$ BEGIN PERFORM * FROM billing.verify(); EXCEPTION WHEN OTHERS THEN RAISE NOTICE '% %', SQLSTATE, SQLERRM; END $$;
DO $$ BEGIN PERFORM billing.migrate(); EXCEPTION WHEN OTHERS THEN RAISE NOTICE '% %', SQLSTATE, SQLERRM; END $$;
-- … and in a live installation the clock moves only in a transaction that rolls back
SELECT count(*) > 0 AS installed FROM billing.install();
SELECT mode FROM billing.installation;
BEGIN;
SELECT billing.test_clock_set('2027-01-01T00:00:00Z');
COMMIT;
SELECT billing.now() = now() AS real_again;
-- … nor in one that is prepared; what was done at that time and rolled back is no reason to refuse
BEGIN;
SELECT billing.test_clock_set('2030-01-01T00:00:00Z');
SELECT billing.customer_upsert('{"key":"later"}');
PREPARE TRANSACTION 'later';
BEGIN;
SELECT billing.customer_upsert('{"key":"now"}');
SAVEPOINT before;
SELECT billing.test_clock_set('2030-01-01T00:00:00Z');
SELECT billing.customer_upsert('{"key":"later"}');
ROLLBACK TO SAVEPOINT before;
COMMIT;
BEGIN;
SAVEPOINT before;
SELECT billing.test_clock_set('2030-01-01T00:00:00Z');
RELEASE SAVEPOINT before;
SELECT billing.test_clock_set(NULL) = now() AS real_again;
COMMIT;
SELECT key FROM billing.customer;
-- An installation that is rolled back was none
\c :database
DROP DATABASE golden_bare;
CREATE DATABASE golden_bare TEMPLATE template0;
\c golden_bare
CREATE EXTENSION pg_billing;
BEGIN;
SELECT count(*) > 0 AS installed FROM billing.install();
SELECT count(*) FROM billing.policies();
ROLLBACK;
SELECT count(*) FROM billing.policies();
BEGIN;
SAVEPOINT before;
SELECT count(*) > 0 AS installed FROM billing.install();
SELECT count(*) FROM billing.policies();
ROLLBACK TO SAVEPOINT before;
SELECT count(*) FROM billing.policies();
ROLLBACK;
\c :database
DROP DATABASE golden_bare;
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
\a \t

-- Sellers: absent is kept, null cleared, lists replaced
SELECT billing.seller_upsert('{"key":"gmbh","name":"Beispiel GmbH","currency":"EUR","time_zone":"Europe/Berlin","fiscal_year_start":4,"invoice_series":"DE","address":{"city":"Berlin"},"tax_ids":[{"type":"eu_vat","value":"DE1"}],"bank_accounts":[{"key":"main","currency":"EUR","holder":"Beispiel GmbH"},{"key":"old","currency":"EUR","holder":"Beispiel GmbH"}]}');
SELECT billing.seller_upsert('{"key":"gmbh","address":null,"bank_accounts":[{"key":"main","currency":"EUR","holder":"B"}]}');
SELECT key, name, currency, time_zone, fiscal_year_start, invoice_series, address, tax_ids FROM billing.seller ORDER BY key;
SELECT b.key, b.holder, b.closed_at IS NOT NULL AS closed FROM billing.seller_bank_account b ORDER BY b.key;
-- scalar nulls go back to their defaults
SELECT billing.seller_upsert('{"key":"gmbh","time_zone":null,"fiscal_year_start":null,"invoice_series":null}');
SELECT key, currency, time_zone, fiscal_year_start, invoice_series FROM billing.seller WHERE key = 'gmbh';
\a \t
SELECT pg_temp.fails(format('SELECT billing.seller_upsert(%L)', d)) FROM unnest(ARRAY['{"kye":"x"}', '{"key":"x","currency":"XXQ"}', '{"key":"x","time_zone":"Mars/Base"}',
  '{"key":"x","time_zone":"+02:00"}', '{"key":"x","fiscal_year_start":13}', '{"key":"x","invoice_series":"A-B"}', '{"key":"x","tax_ids":[{"type":"vat"}]}', '[]', '{"key":" x"}']) d;
SELECT pg_temp.fails('SELECT billing.seller_upsert(NULL)');

-- Customers: defaults, aliases, legal entities
\a \t
SELECT billing.customer_upsert('{"key":"acme"}');
SELECT billing.customer_upsert('{"key":"acme","name":"Acme Corp","currency":"EUR","time_zone":"America/New_York","aliases":["acme-inc"],"attributes":{"segment":"smb"},"bill_tos":[{"key":"us","name":"Acme US"},{"key":"uk","name":"Acme UK","time_zone":"Europe/London"}],"contacts":[{"role":"billing","name":"Ann","email":"ann@acme.example","bill_to":"uk"}]}');
SELECT billing_internal.customer_document(1);
-- an absent field stays, null clears
SELECT billing.customer_upsert('{"key":"acme","currency":null,"time_zone":null,"aliases":null,"attributes":null,"contacts":null,"bill_tos":[{"key":"us","name":"Acme US"}]}');
SELECT billing_internal.customer_document(1);
SELECT billing.customer_upsert('{"key":"globex","name":"Globex","aliases":["gx"]}');
\a \t
SELECT pg_temp.fails(format('SELECT billing.customer_upsert(%L)', d)) FROM unnest(ARRAY['{"name":"x"}', '{"kye":"x"}', '{"key":"x","currency":"ZZZ"}', '{"key":"x","seller":"nobody"}',
  '{"key":"x","time_zone":"EST5EDT4"}', '{"key":"x","aliases":["gx"]}', '{"key":"x","aliases":["globex"]}', '{"key":"gx"}', '{"key":"x","bill_tos":[]}', '{"key":"x","bill_tos":[{"key":"a","name":"A"},{"key":"a","name":"B"}]}',
  '{"key":"x","contacts":[{"role":"boss","name":"B"}]}', '{"key":"x","contacts":[{"role":"billing","name":"B","bill_to":"nowhere"}]}', '{"key":"x","overrides":[{"meter":"nope","unit_price":"1"}]}', '{"key":"x","overrides":[{"metre":"nope","unit_price":"1"}]}']) d;
SELECT key FROM billing.customer ORDER BY customer_id;
-- Logins of customers
CREATE ROLE billing_golden;
SELECT pg_temp.fails($$SELECT billing.customer_login_add('nobody', 'billing_golden')$$);
SELECT pg_temp.fails($$SELECT billing.customer_login_add('acme', 'no_such_role')$$);
SELECT pg_temp.fails($$SELECT billing.customer_login_add('acme', 'billing_golden')$$);
GRANT billing_customer TO billing_golden;
SELECT billing.customer_login_add('acme', 'billing_golden');
\a \t
SET ROLE billing_golden;
SELECT key FROM billing.customer;
RESET ROLE;

-- Policies: the default, global, seller, contract; the nearest holds
SELECT name, value, source FROM billing.policies() ORDER BY name;
SELECT billing.policy_set('invoice_grace', '3 days', reason => 'late collectors'), billing.policy_set('rounding_mode', 'half_even', 'seller:gmbh');
SELECT name, value, source FROM billing.policies() WHERE source <> 'default' ORDER BY name;
-- a seller by its id is the same seller
SELECT billing.policy_set('rounding_mode', 'half_up', 'seller:' || seller_id) FROM billing.seller WHERE key = 'gmbh';
SELECT scope, name, value FROM billing.policy ORDER BY scope, name;
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.policy_set('rounding', 'half_up')$$, $$SELECT billing.policy_set('rounding_mode', 'up')$$, $$SELECT billing.policy_set('rounding_mode', NULL)$$,
  $$SELECT billing.policy_set('rounding_mode', 'half_up', 'seller:nobody')$$, $$SELECT billing.policy_set('rounding_mode', 'half_up', 'contract:nobody')$$, $$SELECT billing.policy_set('rounding_mode', 'half_up', 'customer:acme')$$,
  $$SELECT billing.policy_set('invoice_grace', '0 days')$$, $$SELECT billing.policy_set('rounding_mode', 'half_up', NULL)$$, $$SELECT billing.policy_set('event_age_max', '1 day', 'contract:x')$$, $$SELECT billing.policies('nobody')$$, $$SELECT billing.policy_set('invoice_grace', '1 fortnight')$$]) c;
-- … lengths of time have a unit and a bound, beyond which instants end
SELECT v.name, v.value, s.* FROM (VALUES ('invoice_grace', '3'), ('invoice_grace', '0 days'), ('invoice_grace', '367 days'), ('invoice_grace', '9999 hours'), ('invoice_grace', '-1 days'), ('event_age_max', '9999 years'), ('event_age_max', '101 years'), ('event_age_max', '0 days'), ('event_age_max', '5'),
  ('event_future_max', '9999 days'), ('event_future_max', '01 hours'), ('event_future_max', '5'), ('rounding_mode', E'half_up\n'), ('event_age_max', E'5 years\n')) v (name, value), pg_temp.fails(format('SELECT billing.policy_set(%L, %L)', v.name, v.value)) s;
BEGIN;
SELECT billing.policy_set('invoice_grace', '0'), billing.policy_set('invoice_grace', '366 days'), billing.policy_set('invoice_grace', '8784 hours'), billing.policy_set('event_age_max', '100 years'), billing.policy_set('event_future_max', '366 days'), billing.policy_set('event_future_max', '0 minutes');
SELECT accepted, rejected FROM billing.ingest('{"customer":"acme","event_id":"e","event_type":"x","occurred_at":"2025-12-31T00:00:00Z","properties":{}}');
ROLLBACK;
\a \t

-- Money: one currency, exact; shares by largest remainder (rules 0.6), minor units by currency
SET search_path = billing, pg_catalog;
SELECT label, got, want, got = want AS ok FROM (VALUES
  ('100.00 in thirds', allocate('100.00 USD', ARRAY[1,1,1])::text, '{"33.34 USD","33.33 USD","33.33 USD"}'),
  ('10.00 at 1:2:4', allocate('10.00 USD', ARRAY[1,2,4])::text, '{"1.43 USD","2.86 USD","5.71 USD"}'),
  ('a discount of 20.00 over 100/50/33.33', allocate('20.00 USD', ARRAY[100,50,33.33])::text, '{"10.91 USD","5.45 USD","3.64 USD"}'),
  ('JPY has no minor unit', allocate('100 JPY', ARRAY[1,1,1])::text, '{"34 JPY","33 JPY","33 JPY"}'),
  ('KWD has three', allocate('0.100 KWD', ARRAY[1,1,1])::text, '{"0.034 KWD","0.033 KWD","0.033 KWD"}'),
  ('a credit mirrors', allocate('-100.00 USD', ARRAY[1,1,1])::text, '{"-33.34 USD","-33.33 USD","-33.33 USD"}'),
  ('nothing to weigh by: equally', allocate('1.00 USD', ARRAY[0,0])::text, '{"0.5 USD","0.5 USD"}'),
  ('plus', ('12345678901234567.89 USD'::billing.money + '0.11 USD')::text, '12345678901234568 USD'),
  ('minus', ('0.3 USD'::billing.money - '0.1 USD')::text, '0.2 USD'),
  ('times', ('0.30 USD'::billing.money * 0.1)::text, '0.03 USD'),
  ('as small as 1e-12', (SELECT sum(m)::text FROM (VALUES ('0.1 USD'::billing.money), ('0.2 USD'), ('0.000000000001 USD')) v (m)), '0.300000000001 USD'),
  ('equal whatever the zeros', ('0.10 USD'::billing.money = '0.1 USD')::text, 'true'),
  ('ordered by amount', ('2 USD'::billing.money > '10 USD')::text, 'false')) x (label, got, want);
RESET search_path;
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT '1 USD'::billing.money OPERATOR(billing.+) '1 EUR'$$, $$SELECT '1 USD'::billing.money OPERATOR(billing.<) '1 EUR'$$, $$SELECT 'NaN USD'::billing.money$$,
  $$SELECT '1'::billing.money$$, $$SELECT '1 U$'::billing.money$$, $$SELECT ''::billing.money$$, $$SELECT billing.to_money('NaN', 'USD')$$, $$SELECT billing.to_money(1, 'U S')$$, $$SELECT billing.to_money(1e40, 'USD')$$,
  $$SELECT '9999999999999999999999999999 USD'::billing.money OPERATOR(billing.+) '1 USD'$$, $$SELECT billing.allocate('1.001 USD', ARRAY[1])$$, $$SELECT billing.allocate('1 ZZZ', ARRAY[1])$$, $$SELECT billing.allocate('1 USD', '{}')$$,
  $$SELECT billing.allocate('1 USD', ARRAY[1,-1])$$, $$SELECT billing.allocate('1 USD', ARRAY['NaN'::numeric])$$]) c;
\a \t

-- Every business change is in the audit log; sealed in a hash chain; a change of history is found
SELECT action, kind, key, before IS NULL AS new FROM billing.audit_log ORDER BY audit_id;
CALL billing.audit_seal();
SELECT n, entries FROM billing.audit_seal ORDER BY n;
SELECT count(*) AS faults FROM billing.audit_verify();
CALL billing.audit_seal();
SELECT count(*) AS seals FROM billing.audit_seal;
BEGIN;
UPDATE billing.audit_log SET after = '"half_up"' WHERE action = 'policy_set' AND key = 'rounding_mode@seller:gmbh';
SELECT seal, fault FROM billing.audit_verify() ORDER BY fault;
ROLLBACK;
BEGIN;
DELETE FROM billing.audit_log WHERE action = 'customer_login_add';
SELECT seal, fault FROM billing.audit_verify();
ROLLBACK;

-- What is personal can be erased, and the chain still verifies; emptied by other means it does not
BEGIN;
UPDATE billing.audit_log SET before = NULL, after = NULL WHERE key = 'globex';
SELECT seal, fault FROM billing.audit_verify();
ROLLBACK;
BEGIN;
SELECT billing.audit_erase(array_agg(audit_id), 'request 17 of Ann') AS erased FROM billing.audit_log WHERE key = 'acme';
SELECT billing.audit_erase(array_agg(audit_id), 'once more') AS erased FROM billing.audit_log WHERE key = 'acme';
SELECT action, key, actor, before IS NULL AS no_before, after IS NULL AS no_after, before_hash IS NOT NULL AS had_before, after_hash IS NOT NULL AS had_after, erased_by IS NOT NULL AS erased, seal_n FROM billing.audit_log WHERE key = 'acme' ORDER BY audit_id;
SELECT action, kind, after, reason FROM billing.audit_log WHERE action = 'audit_erase';
SELECT count(*) AS faults FROM billing.audit_verify();
SELECT billing.audit_seal_step() AS sealed;
SELECT count(*) AS faults FROM billing.audit_verify();
SELECT check_name, failed FROM billing.verify('full') WHERE failed <> 0;
-- … by a stranger to the record of it, and with a content made up afterwards
SAVEPOINT erased;
UPDATE billing.audit_log SET erased_by = gen_random_uuid() WHERE erased_by IS NOT NULL;
SELECT DISTINCT fault FROM billing.audit_verify();
ROLLBACK TO SAVEPOINT erased;
UPDATE billing.audit_log SET before_hash = sha256('x') WHERE before_hash IS NOT NULL;
SELECT DISTINCT fault FROM billing.audit_verify();
ROLLBACK TO SAVEPOINT erased;
ALTER TABLE billing.audit_log DROP CONSTRAINT audit_log_check;
UPDATE billing.audit_log SET after = '{"key":"made up"}' WHERE key = 'acme' AND erased_by IS NOT NULL;
SELECT DISTINCT fault FROM billing.audit_verify();
ROLLBACK;
\a \t
SELECT pg_temp.fails(c) FROM unnest(ARRAY[$$SELECT billing.audit_erase(NULL, 'x')$$, $$SELECT billing.audit_erase('{}', '')$$, $$SELECT billing.audit_erase('{}', NULL)$$, $$SELECT billing.audit_erase(array_fill(gen_random_uuid(), ARRAY[10001]), 'x')$$]) c;
\a \t

-- Schemas and roles that are not ours alone: nothing installs on them, and verify() says so
CREATE FUNCTION pg_temp.ground(change text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    said text[];
BEGIN
    BEGIN
        EXECUTE change;
        SELECT array_agg(v.failed || ' ' || v.example) INTO said FROM billing.verify() v WHERE v.failed <> 0 AND v.check_name = 'security: schemas and roles are ours alone';
        said := said || ARRAY(SELECT pg_temp.fails('SELECT billing.install(''test'')'));
        RAISE EXCEPTION USING ERRCODE = 'XX998';
    EXCEPTION WHEN SQLSTATE 'XX998' THEN
        RETURN QUERY SELECT unnest(said);
    END;
END
$$;
\a \t
SELECT pg_temp.ground(c) FROM unnest(ARRAY['ALTER SCHEMA billing OWNER TO billing_golden', 'ALTER SCHEMA billing_internal OWNER TO billing_golden', 'GRANT CREATE ON SCHEMA billing TO billing_golden', 'GRANT CREATE ON SCHEMA billing_internal TO PUBLIC',
  $$CREATE FUNCTION billing.customer_upsert(doc text) RETURNS text LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION billing.customer_upsert(text) OWNER TO billing_golden$$, 'CREATE VIEW billing_internal.mine AS SELECT 1; ALTER VIEW billing_internal.mine OWNER TO billing_golden',
  'CREATE TYPE billing.mine AS ENUM (); ALTER TYPE billing.mine OWNER TO billing_golden', 'ALTER ROLE billing_owner LOGIN', 'ALTER ROLE billing_engine BYPASSRLS', 'ALTER ROLE billing_customer BYPASSRLS', 'ALTER ROLE billing_admin CREATEROLE', 'ALTER ROLE billing_app SUPERUSER',
  'GRANT billing_owner TO billing_golden', 'GRANT billing_engine TO billing_admin',
  'ALTER DEFAULT PRIVILEGES FOR ROLE billing_owner GRANT SELECT ON TABLES TO billing_golden']) c;
\a \t

SELECT check_name, failed, example FROM billing.verify('full');
SELECT billing.customer_login_remove('acme', 'billing_golden');
DROP OWNED BY billing_golden;
DROP ROLE billing_golden;
