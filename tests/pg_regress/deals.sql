-- For golden files about amounts, after helpers.sql: four meters of event type use, contracts of one charge or two, usage of
-- 15 January 2026, and what came of them.
SELECT count(*) AS meters FROM billing.catalog_apply('{"products":[{"key":"p"}],"meters":[
  {"key":"q","event_type":"use","aggregation":"sum","value":"n","dimensions":["model","region","state"]},
  {"key":"users","event_type":"use","aggregation":"unique_count","value":"user","dimensions":["model"]},
  {"key":"peak","event_type":"use","aggregation":"max","value":"n","dimensions":["model"]},
  {"key":"calls","event_type":"use","aggregation":"count","dimensions":["model"]}]}') \gset
CREATE SEQUENCE event_n;
CREATE FUNCTION pg_temp.deal_of(key text, charges jsonb, extra jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT billing.contract_create(jsonb_build_object('key', key, 'customer', key, 'starts_on', '2026-01-01', 'charges',
      (SELECT jsonb_agg('{"product":"p","meter":"q"}'::jsonb || c ORDER BY c->>'key') FROM jsonb_array_elements(charges) c)) || extra);
    SELECT billing.contract_activate(key, '2026-01-01Z')
$$;
CREATE FUNCTION pg_temp.deal(key text, charges jsonb, extra jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
    SELECT billing.customer_upsert(jsonb_build_object('key', key));
    SELECT pg_temp.deal_of(key, charges, extra)
$$;
-- … of two legal entities, inc being the contract's own
CREATE FUNCTION pg_temp.deal2(key text, charges jsonb, extra jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
    SELECT billing.customer_upsert(jsonb_build_object('key', key, 'bill_tos', '[{"key":"inc","name":"Inc"},{"key":"gmbh","name":"GmbH"}]'::jsonb));
    SELECT pg_temp.deal_of(key, charges, extra)
$$;
CREATE FUNCTION pg_temp.use2(key text, n numeric, entity text, at timestamptz DEFAULT '2026-01-15Z') RETURNS text LANGUAGE sql AS $$
    SELECT billing.ingest_event(key, 'use', 'e' || nextval('event_n'), at, jsonb_build_object('n', n), entity)
$$;
CREATE FUNCTION pg_temp.use(key text, n numeric, properties jsonb DEFAULT '{}', at timestamptz DEFAULT '2026-01-15Z') RETURNS bigint LANGUAGE sql AS $$
    SELECT accepted FROM billing.ingest(json_build_object('customer', key, 'event_id', 'e' || nextval('event_n'), 'event_type', 'use', 'occurred_at', at, 'properties', jsonb_build_object('n', n) || properties))
$$;
CREATE TEMP VIEW lines AS SELECT k.key AS contract, l.line_n, l.key, l.kind, l.label, l.dimensions, trim_scale(l.quantity) AS quantity, trim_scale(l.exact) AS exact, l.amount
  FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id) WHERE i.state <> 'void' ORDER BY k.key, i.n, l.line_n;
CREATE TEMP VIEW totals AS SELECT k.key AS contract, i.number, i.currency, i.total FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id);
