-- Terms that would count for nothing are refused where they are said; an amendment notes the billed periods that it changes, and no others.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"}],"meters":[{"key":"calls","event_type":"call","aggregation":"count"}],
  "plans":[{"key":"one","currency":"USD","charges":[{"key":"calls","product":"p","meter":"calls","pricing":{"model":"per_unit","unit_price":"1"}}],
    "fees":[{"key":"seats","product":"p","pricing":{"model":"per_unit","unit_price":"20"},"quantity":"5"},{"key":"platform","product":"p","pricing":{"model":"flat","amount":"100"}}]}]}');
SELECT billing.customer_upsert('{"key":"acme","bill_tos":[{"key":"inc","name":"Inc"},{"key":"gmbh","name":"GmbH"}]}');

-- Three of a flat price would be billed as one; a discount would never hold
CREATE FUNCTION pg_temp.refused(extra jsonb) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT pg_temp.fails(format('SELECT billing.contract_create(%L)', '{"key":"no","customer":"acme","plan":"one","starts_on":"2026-01-01","term":"12 months"}'::jsonb || extra)) $$;
SELECT r.n, pg_temp.refused(r.extra) FROM (VALUES
  (1, '{"fees":[{"key":"f","product":"p","pricing":{"model":"flat","amount":"100"},"quantity":"3"}]}'::jsonb),
  (2, '{"phases":[{"key":"a","fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"50"},"ramp":[{"after":"1 month","percent":"5","quantity":"2"}]}]}]}'),
  (3, '{"discounts":[{"key":"d","percent_off":"10","from":"2027-01-01"}]}'), (4, '{"discounts":[{"key":"d","percent_off":"10"},{"key":"e","amount_off":"5","until":"2025-12-01"}]}'),
  (5, '{"discounts":[{"key":"d","percent_off":"10","from":"2026-05-01","until":"2026-05-01"}]}'),
  (6, '{"phases":[{"key":"a","duration":"2 months","discounts":[{"key":"d","percent_off":"10","from":"2026-06-01"}]}]}')) r (n, extra) ORDER BY 1;
SELECT pg_temp.fails($$SELECT * FROM billing.catalog_apply('{"plans":[{"key":"two","currency":"USD","fees":[{"key":"f","product":"p","pricing":{"model":"flat","amount":"1"},"quantity":"2"}]}]}')$$);
-- With a renewal it may be agreed on for the next term
SELECT billing.contract_create('{"key":"acme-1","customer":"acme","plan":"one","starts_on":"2026-01-01","term":"12 months","bill_to":"inc","renewal":{"auto":true},"discounts":[{"key":"next","percent_off":"10","from":"2027-01-01"}]}');
SELECT billing.contract_activate('acme-1');
SELECT pg_temp.fails($$SELECT billing.contract_amend('acme-1', '{"quantities":{"platform":"3"}}')$$);
SELECT pg_temp.fails($$SELECT billing.contract_amend('acme-1', '{"fees":[{"key":"f","product":"p","pricing":{"model":"flat","amount":"100"},"quantity":"3"}]}')$$);
SELECT billing.contract_amend('acme-1', '{"quantities":{"seats":"6"}}', '2026-01-01') AS version;

-- Another legal entity from 15 April on: January to April's boundaries stay as they were billed
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-04-20T00:00:00Z') AS clock \gset
CALL billing.bill_run();
CREATE TEMP VIEW noted AS SELECT DISTINCT p.n, p.starts_on FROM billing.late_usage u JOIN billing.billing_period p USING (customer_id, contract_id, n) WHERE u.closed_at IS NULL ORDER BY 1;
SELECT billing.contract_amend('acme-1', '{"bill_to":"gmbh"}', '2026-04-15') AS version;
SELECT * FROM noted;
SELECT billing.contract_amend('acme-1', '{"bill_to":"gmbh","purchase_order":"77"}', '2026-04-16') AS version;
SELECT * FROM noted;
SELECT billing.contract_amend('acme-1', '{"bill_to":"inc"}', '2026-06-01') AS version;
SELECT * FROM noted;
SELECT billing.test_clock_set('2026-06-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT i.n, i.kind, i.document->>'bill_to' AS bill_to, i.total FROM billing.invoice i ORDER BY i.n, i.created_at;
SELECT * FROM billing.verify('full') WHERE failed > 0;
SELECT count(*) AS invoices, bool_and(r.same_bytes) AS same FROM billing.invoice i CROSS JOIN LATERAL billing.invoice_recompute(i.number) r;
