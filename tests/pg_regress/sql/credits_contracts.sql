-- What contracts grant: pools, blocks and periods of commitments, from the terms of the newest version; carried, changed, cancelled, renewed.
\set ECHO none
\i tests/pg_regress/helpers.sql
-- A version with its terms, as the contract's layer writes them: what is no longer said ends with the version before.
CREATE FUNCTION pg_temp.says(of_contract text, rows jsonb, of_kind text DEFAULT 'amend', at timestamptz DEFAULT NULL, end_on date DEFAULT NULL) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    k record;
BEGIN
    SELECT * INTO k FROM billing.contract c WHERE c.key = of_contract;
    UPDATE billing.contract c SET version = k.version + 1, ends_on = coalesce(end_on, k.ends_on), ends_at = coalesce(end_on::timestamp AT TIME ZONE k.time_zone, k.ends_at) WHERE c.contract_id = k.contract_id RETURNING * INTO k;
    INSERT INTO billing.contract_version (customer_id, contract_id, version, effective_at, recorded_at, kind, document, change, ends_on, ends_at)
    VALUES (k.customer_id, k.contract_id, k.version, coalesce(at, k.starts_at), clock_timestamp(), of_kind, '{}', '{}', k.ends_on, k.ends_at);
    UPDATE billing.contract_term t SET until_version = k.version WHERE t.contract_id = k.contract_id AND t.until_version IS NULL;
    INSERT INTO billing.contract_term (customer_id, contract_id, kind, term_key, valid_during, from_version, position, terms)
    SELECT k.customer_id, k.contract_id, r->>'kind', r->'terms'->>'key', tstzrange(coalesce((r->>'from')::timestamptz, k.starts_at), coalesce((r->>'until')::timestamptz, k.ends_at)), k.version, n, r->'terms'
    FROM jsonb_array_elements(rows) WITH ORDINALITY x (r, n);
    PERFORM billing_internal.contract_credits_apply(k.customer_id, k.contract_id);
    PERFORM billing_internal.contract_credits_apply(k.customer_id, k.contract_id);
    RETURN k.version;
END
$$;
CREATE TEMP VIEW blocks AS SELECT g.key, g.category, g.amount, b.posted, g.effective_at, g.expires_at, p.key AS pool, p.paid, p.credits, g.voided_at IS NOT NULL AS void
    FROM billing.credit_grant g JOIN billing.credit_block_balance b USING (customer_id, grant_id) LEFT JOIN billing.credit_pool p USING (customer_id, pool_id) ORDER BY g.grant_id;
CREATE TEMP VIEW periods AS SELECT k.key AS contract, m.key, c.n, c.starts_on, c.ends_on, c.kind, c.amount, c.unit, p.key AS pool, c.from_version AS v, c.until_version AS until_v
    FROM billing.commitment_period c JOIN billing.commitment m USING (customer_id, commitment_id) JOIN billing.contract k USING (customer_id, contract_id) LEFT JOIN billing.credit_pool p USING (customer_id, pool_id) ORDER BY k.key, m.key, c.starts_on, c.from_version;
\set ECHO all
SELECT billing.test_clock_set('2026-01-01 00:00+00') AS clock \gset
SELECT billing.customer_upsert('{"key":"acme","currency":"USD"}') AS a \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"ai"}],"plans":[{"key":"pro","currency":"USD","fees":[{"key":"platform","product":"ai","pricing":{"model":"flat","amount":"1"}}]}]}');
SELECT billing.subscribe('acme', 'pro', '2026-01-01', '{"term":"12 months"}');

-- 10.5: 100,000 with a 20% bonus: 120,000 credits in one pool. Periods and grants are made once.
SELECT pg_temp.says('acme-1', '[
  {"kind":"commitment","terms":{"key":"annual","kind":"prepaid","amount":"100000","product":"ai","every":"12 months","instalments":"3 months","priority":100,"from":"2026-01-01"}},
  {"kind":"credit","terms":{"key":"main","category":"paid","amount":"100000","paid_by":"annual","effective_on":"2026-01-01","expires":"contract_end","every":"12 months","priority":50}},
  {"kind":"credit","terms":{"key":"bonus","category":"promotional","amount":"20000","paid_by":"annual","effective_on":"2026-01-01","expires":"contract_end","every":"12 months","priority":50}}]');
SELECT * FROM blocks;
SELECT * FROM periods;
SELECT result, drawn FROM billing.draw_down('acme', 30000, 'd1');
-- 125,000 instead ("20% discount"), once 30,000 are used: what is left is taken back and granted anew.
SELECT pg_temp.says('acme-1', '[
  {"kind":"commitment","terms":{"key":"annual","kind":"prepaid","amount":"100000","product":"ai","every":"12 months","instalments":"3 months","priority":100,"from":"2026-01-01"}},
  {"kind":"credit","terms":{"key":"main","category":"paid","amount":"125000","paid_by":"annual","effective_on":"2026-01-01","expires":"contract_end","every":"12 months","priority":50}}]');
SELECT * FROM blocks;
SELECT unit, posted, available FROM billing.credit_balance('acme');
-- Renewed for a year: another period, another pool; the blocks of the first year end with it.
SELECT pg_temp.says('acme-1', '[
  {"kind":"commitment","terms":{"key":"annual","kind":"prepaid","amounts":["100000","60000"],"product":"ai","every":"12 months","instalments":"3 months","priority":100,"from":"2026-01-01"}},
  {"kind":"credit","terms":{"key":"main","category":"paid","amount":"125000","paid_by":"annual","effective_on":"2026-01-01","expires":"contract_end","every":"12 months","priority":50}}]', 'renew', '2027-01-01', '2028-01-01');
SELECT * FROM blocks WHERE NOT void;
SELECT * FROM periods;
-- Cancelled to the end of June 2027: that year's block ends there.
SELECT pg_temp.says('acme-1', '[
  {"kind":"commitment","terms":{"key":"annual","kind":"prepaid","amounts":["100000","60000"],"product":"ai","every":"12 months","instalments":"3 months","priority":100,"from":"2026-01-01"}},
  {"kind":"credit","terms":{"key":"main","category":"paid","amount":"125000","paid_by":"annual","effective_on":"2026-01-01","expires":"contract_end","every":"12 months","priority":50}}]', 'cancel', '2027-07-01', '2027-07-01');
SELECT * FROM blocks WHERE NOT void;
SELECT * FROM periods WHERE until_v IS NULL;
-- Cancelled before that year begins: it is not granted at all.
SELECT pg_temp.says('acme-1', '[
  {"kind":"commitment","terms":{"key":"annual","kind":"prepaid","amounts":["100000","60000"],"product":"ai","every":"12 months","instalments":"3 months","priority":100,"from":"2026-01-01"}},
  {"kind":"credit","terms":{"key":"main","category":"paid","amount":"125000","paid_by":"annual","effective_on":"2026-01-01","expires":"contract_end","every":"12 months","priority":50}}]', 'cancel', '2026-12-01', '2026-12-01');
SELECT * FROM blocks;

-- A pilot's unused credits move into the contract's pool: 50,000 paid for 50,000 + 5,000, so 11,000 burnt are worth 10,000.00 whichever goes first.
SELECT billing.customer_upsert('{"key":"beta","currency":"USD"}') AS a, billing.subscribe('beta', 'pro', '2026-01-01', '{"term":"3 months"}') AS pilot,
  billing.subscribe('beta', 'pro', '2026-04-01', '{"term":"12 months"}') AS real \gset
SELECT pg_temp.says('beta-1', '[{"kind":"credit","terms":{"key":"trial","category":"pilot","amount":"8000","effective_on":"2026-01-01","expires":"never","priority":50}}]');
SELECT billing.test_clock_set('2026-04-01 00:00+00') AS clock, result FROM billing.draw_down('beta', 3000, 'p1') \gset
SELECT pg_temp.says('beta-2', '[
  {"kind":"commitment","terms":{"key":"commit","kind":"prepaid","amount":"50000","product":"ai","every":"12 months","priority":100,"from":"2026-04-01"}},
  {"kind":"credit","terms":{"key":"main","category":"paid","amount":"50000","paid_by":"commit","effective_on":"2026-04-01","expires":"contract_end","every":"12 months","priority":50}},
  {"kind":"credit","terms":{"key":"pilot","category":"pilot","paid_by":"commit","carry_from":{"contract":"beta-1"},"effective_on":"2026-04-01","expires":"contract_end","every":"12 months","priority":50}}]');
SELECT * FROM blocks WHERE key LIKE 'beta%';
SELECT key, basis, credits, worth, worth = 10000.00 AS ok FROM billing.credit_blocks('beta') b JOIN LATERAL (SELECT p.credits, billing_internal.credit_release(p.paid, p.credits, 0, 11000, 2, 'half_up') AS worth
  FROM billing.credit_grant g JOIN billing.credit_pool p USING (customer_id, pool_id) WHERE g.key = b.key) p ON true;
SELECT occurred_at, kind, block, amount, balance FROM billing.credit_statement('beta');

-- Every month 1,000, for the month; an evergreen contract has those of a year, and the job makes more.
SELECT billing.customer_upsert('{"key":"gamma","currency":"USD","time_zone":"America/New_York"}') AS a, billing.subscribe('gamma', 'pro', '2026-04-01') AS b \gset
SELECT pg_temp.says('gamma-1', '[{"kind":"credit","terms":{"key":"monthly","category":"promotional","amount":"1000","unit":"credits","effective_on":"2026-04-30","expires":"period_end","every":"1 month","priority":50,
  "scope":{"windows":[{"from":"2026-05-01","until":"2026-06-01"}]},"rollover":{"cap":"200","for":"1 month"}}}]');
SELECT key, amount, effective_at, expires_at FROM blocks WHERE key LIKE 'gamma%' ORDER BY effective_at LIMIT 3;
SELECT scope, rollover, count(*) FROM billing.credit_grant WHERE key LIKE 'gamma%' GROUP BY scope, rollover;
SELECT billing.test_clock_set('2026-07-15 00:00+00') AS clock \gset
CALL billing.credit_expiry();
SELECT key, amount, posted, effective_at, expires_at FROM blocks WHERE key LIKE 'gamma%' ORDER BY effective_at, key LIMIT 8;
SELECT count(*), max(effective_at) FROM billing.credit_grant WHERE key LIKE 'gamma%';
SELECT job, result FROM billing.job_run;
SELECT * FROM billing.verify('full') WHERE failed > 0;
