-- Hostile input: every public function with every kind of nonsense in every argument. No backend dies, nothing is
-- half done, and what is refused is refused with a code of ours (ZB…) or of Postgres's input (22…), never by accident.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-02-15T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply(billing.catalog_example('llm-api'));
SELECT billing.customer_upsert('{"key":"acme"}'), billing.subscribe('acme', 'pro', '2026-01-01'), billing.ingest_event('acme', 'llm.request', 'e', '2026-01-02Z', '{"model":"gpt-4","input_tokens":1,"output_tokens":1}');
CALL billing.bill_run();
SELECT pid AS backend FROM pg_stat_activity WHERE pid = pg_backend_pid() \gset

-- The nonsense, by type, as SQL expressions
CREATE TEMP TABLE nonsense (type text, value text);
INSERT INTO nonsense SELECT 'text', v FROM unnest(ARRAY['NULL', $$''$$, $$' '$$, $$'no such thing'$$, $$'acme@1'$$, $$'%s%n$1\'$$, $$E'\u202e\uFFFF\U0010FFFF'$$, $$E'line\nbreak\ttab'$$, $$'99999999999999999999999999'$$, $$'-1'$$, $$'0'$$, $$'NaN'$$, $$'00000000-0000-0000-0000-000000000000'$$, $$repeat('x', 1000000)$$, $$repeat('[', 100000)$$, $$'; DROP TABLE billing.customer; --'$$]) v;
INSERT INTO nonsense SELECT 'jsonb', v FROM unnest(ARRAY['NULL', $$'null'$$, $$'5'$$, $$'"x"'$$, $$'[]'$$, $$'{}'$$, $$'[[]]'$$, $$'[null]'$$, $$'{"":""}'$$, $$'{"key":null}'$$, $$'{"key":{"key":{"key":1}}}'$$, $$'{"key":[1e131071]}'$$, $$'{"key":1e-16383}'$$, $$jsonb_build_object('key', repeat('x', 2000000))$$,
  $$(repeat('[', 6000) || repeat(']', 6000))::jsonb$$, $$(repeat('{"key":', 3000) || '1' || repeat('}', 3000))::jsonb$$, $$(SELECT jsonb_object_agg('k' || i, i) FROM generate_series(1, 50000) i)$$, $$(SELECT jsonb_agg(i) FROM generate_series(1, 50000) i)$$]) v;
INSERT INTO nonsense SELECT 'json', v FROM unnest(ARRAY['NULL', $$'null'$$, $$'[null]'$$, $$'[[[]]]'$$, $$'{"customer":"acme","customer":"acme"}'$$, $$'[{"customer":"\ud800","event_id":"\u0000"}]'$$, $$('"' || repeat('x', 17000000) || '"')::json$$, $$(repeat('[', 6000) || repeat(']', 6000))::json$$, $$'[1e999999,-0,1E+5,0.1e-999]'$$]) v;
INSERT INTO nonsense SELECT 'numeric', v FROM unnest(ARRAY['NULL', $$'NaN'$$, $$'Infinity'$$, $$'-Infinity'$$, '1e40', '-1e40', '1e-40', '1e131071', '1e-16383', '0', '-1', '12345678901234567890123456789', '0.0000000000001']) v;
INSERT INTO nonsense SELECT 'numeric[]', v FROM unnest(ARRAY['NULL', $$'{}'$$, $$'{NULL}'$$, $$'{NaN}'$$, $$'{Infinity,1}'$$, $$'{1e40}'$$, $$'{{1,2},{3,4}}'$$, $$'[5:6]={1,2}'$$, $$'{-1,1}'$$, $$array_fill(1e27, ARRAY[100000])$$]) v;
INSERT INTO nonsense SELECT 'timestamp with time zone', v FROM unnest(ARRAY['NULL', $$'infinity'$$, $$'-infinity'$$, $$'4713-01-01Z BC'$$, $$'294276-12-31Z'$$, $$'10000-01-01Z'$$, $$'0001-01-01Z BC'$$, $$'1970-01-01Z'$$]) v;
INSERT INTO nonsense SELECT 'date', v FROM unnest(ARRAY['NULL', $$'infinity'$$, $$'-infinity'$$, $$'4713-01-01 BC'$$, $$'5874897-12-31'$$, $$'10000-01-01'$$, $$'9999-12-31'$$, $$'0001-01-01'$$]) v;
INSERT INTO nonsense SELECT t, v FROM unnest(ARRAY['integer', 'bigint']) t, unnest(ARRAY['NULL', '0', '-1', '2147483647', '-2147483648']) v;
INSERT INTO nonsense VALUES ('boolean', 'NULL'), ('uuid', 'NULL'), ('uuid', $$'00000000-0000-0000-0000-000000000000'$$), ('regclass', 'NULL'), ('regclass', $$'pg_class'$$), ('regclass', $$'billing.customer'$$), ('regclass', $$'0'$$);
INSERT INTO nonsense SELECT 'text[]', v FROM unnest(ARRAY['NULL', $$'{NULL}'$$, $$'{""}'$$, $$'{{a,b},{c,d}}'$$, $$array_fill('x'::text, ARRAY[100000])$$, $$ARRAY[repeat('x', 1000000)]$$, $$'{"a.b.c","[0]","$"}'$$]) v;
INSERT INTO nonsense SELECT 'billing.pricing', v FROM unnest(ARRAY['NULL', $$''$$, $$'{}'$$, $$'{"model":"flat","amount":"-1e27"}'$$, $$'{"model":"per_unit","unit_price":"9999999999999999999999999999"}'$$, $$'{"model":"per_unit","unit_price":"0.0000000000000000000000000001","per":"9999999999999999999999999999"}'$$, $$('{"model":"graduated","tiers":[' || repeat('{"up_to":"1","unit_price":"1"},', 200) || '{"unit_price":"1"}]}')::billing.pricing$$, $$(repeat('[', 100000))::billing.pricing$$]) v;
INSERT INTO nonsense SELECT 'billing.money', v FROM unnest(ARRAY['NULL', $$'-0 USD'$$, $$'9999999999999999999999999999 USD'$$, $$'0.0000000000000000000000000001 JPY'$$, $$'1 credits_x'$$, $$' 1 USD '$$]) v;
-- … and what is right, by argument
CREATE TEMP TABLE sense (name text, value text, type text);
INSERT INTO sense VALUES ('customer', $$'acme'$$), ('contract', $$'acme-1'$$), ('plan', $$'pro'$$), ('meter', $$'tokens'$$), ('invoice', $$'INV-2026-000001'$$), ('from_at', $$'2026-01-01Z'$$), ('until_at', $$'2026-02-01Z'$$), ('at', $$'2026-01-15Z'$$), ('as_of', $$'2026-02-15Z'$$), ('grain', $$'day'$$), ('group_by', $$'{model}'$$), ('filter', $$'{}'$$),
  ('time_zone', $$'UTC'$$), ('event_type', $$'llm.request'$$), ('event_id', $$'new'$$), ('occurred_at', $$'2026-01-20Z'$$), ('properties', $$'{}'$$), ('bill_to', 'NULL'), ('pricing', $$'{"model":"per_unit","unit_price":"1"}'$$), ('quantity', '1'), ('dimensions', $$'{"model":"gpt-4"}'$$), ('events', '1'), ('name', $$'rounding_mode'$$), ('value', $$'half_up'$$), ('scope', $$'global'$$), ('reason', $$'why'$$),
  ('line_key', $$'tokens/2026-01-01/model=gpt-4'$$), ('max_rows', '10'), ('total', $$'1.00 USD'$$), ('weights', $$'{1,2}'$$), ('amounts', $$'{1,2}'$$), ('starts_on', $$'2026-01-01'$$), ('doc', $$'{}'$$), ('currency', $$'USD'$$), ('amount', '1'), ('format', $$'native'$$), ('login', $$'postgres'$$), ('since', $$'2026-01-01Z'$$), ('a', $$'1 USD'$$), ('b', $$'1 USD'$$), ('factor', '2'), ('document', $$'{}'$$), ('job', $$'fold'$$), ('arguments', $$'{}'$$);
UPDATE sense SET type = 'billing.money' WHERE name = 'total';
CREATE TEMP TABLE answer (function text, argument text, value text, code text, message text);
-- One bad argument among good ones, then all bad
CREATE FUNCTION pg_temp.attack() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    f record; bad record; call text; code text; message text; good text;
BEGIN
    FOR f IN SELECT p.oid, p.oid::regprocedure::text AS name, format('%I.%I', n.nspname, p.proname) AS called, p.proargtypes, p.proargnames, p.pronargs
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'billing' AND p.prokind = 'f' AND p.pronargs > 0 AND p.proname NOT IN ('install', 'test_clock_set') ORDER BY 2 LOOP
        FOR bad IN SELECT i, x.value FROM generate_series(0, f.pronargs - 1) i JOIN nonsense x ON x.type = format_type(f.proargtypes[i], NULL) ORDER BY i, x.value LOOP
            SELECT string_agg(CASE WHEN i = bad.i THEN '(' || bad.value || ')' WHEN f.proargtypes[i] = 'json'::regtype THEN $q$'[]'$q$ ELSE coalesce((SELECT s.value FROM sense s WHERE s.name = f.proargnames[i + 1] AND coalesce(s.type, format_type(f.proargtypes[i], NULL)) = format_type(f.proargtypes[i], NULL)), 'NULL') END || '::' || format_type(f.proargtypes[i], NULL), ', ' ORDER BY i)
            INTO call FROM generate_series(0, f.pronargs - 1) i;
            BEGIN
                EXECUTE format('SELECT * FROM %s(%s)', f.called, call);
                RAISE EXCEPTION USING ERRCODE = 'XX999';
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
                INSERT INTO answer VALUES (f.name, f.proargnames[bad.i + 1], left(bad.value, 60), code, left(message, 200));
            END;
        END LOOP;
    END LOOP;
END
$$;
SELECT pg_temp.attack();
SELECT function, string_agg(argument || ' ' || n, ', ' ORDER BY argument) AS attempts FROM (SELECT function, argument, count(*) AS n FROM answer GROUP BY 1, 2) x GROUP BY function ORDER BY function;
-- The codes by which it was refused (XX999: it was not)
SELECT DISTINCT code FROM answer ORDER BY 1;
-- … none of them by accident
SELECT function, argument, value, code, message FROM answer WHERE code !~ '^(ZB|22|XX999|54000|54001)' ORDER BY 1, 2, 3;
SELECT pid = :backend AS same_backend FROM pg_stat_activity WHERE pid = pg_backend_pid();
-- … and nothing changed
SELECT (SELECT count(*) FROM billing.customer) AS customers, (SELECT count(*) FROM billing.contract) AS contracts, (SELECT count(*) FROM billing.usage_event) AS events, (SELECT count(*) FROM billing.invoice) AS invoices;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed <> 0;
