-- What an upgrade must not change, asked by the code before and by the code after it: every row there was, what views and
-- functions make of them, and that every invoice computes again to what was billed.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET search_path = pg_catalog;
SET timezone = 'UTC';
-- Rows, without what 0.2.0 added.
CREATE TEMP TABLE added (name text, columns text[]);
INSERT INTO added VALUES ('billing.rejected_event', '{format, retried_at, resolution}'), ('billing.meter', '{version, state, additive}'),
    ('billing.usage_delta', '{moment, placed_at, event_key}'), ('billing.usage_bucket', '{moment, placed_at, event_key}'), ('billing.usage_value', '{placed_at, event_key, present}'),
    ('billing.price', '{cuts, withdrawn_at, withdrawn_by, withdrawn_reason}'), ('billing.contract', '{billed_until, cancelled_at, notice_given_at, renewal}'), ('billing.contract_version', '{change, plan, ends_on, ends_at}'), ('billing.billing_period', '{terms}'),
    ('billing.invoice', '{kind, corrects, credits, credits_applied, pool_id}'), ('billing.invoice_line', '{of_n, of_key, of_kind}');
CREATE TEMP TABLE picture (n bigint GENERATED ALWAYS AS IDENTITY, line text);
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT k.table_name, coalesce(a.columns, '{}') AS added FROM billing_internal.table_kind k LEFT JOIN added a ON a.name = k.table_name
        WHERE k.table_name NOT IN ('billing.usage_event_void', 'billing.ingest_limit', 'billing_internal.ingest_limit_state', 'billing.event_retention', 'billing.usage_source',
            'billing.meter_version', 'billing.meter_rebuild', 'billing.usage_dirty', 'billing.late_usage', 'billing.contract_term',
            'billing.credit_pool', 'billing.credit_grant', 'billing.credit_block_balance', 'billing.credit_ledger_entry', 'billing.credit_allocation', 'billing.credit_draw',
            'billing.top_up_rule', 'billing.top_up', 'billing.commitment', 'billing.commitment_period', 'billing.usage_window_kept', 'billing.usage_total',
            'billing.feature', 'billing.entitlement_override', 'billing.entitlement_state', 'billing.entitlement_window', 'billing.reservation',
            'billing.rate_state', 'billing.spend_limit', 'billing.alert_rule', 'billing.alert_state', 'billing.event_feed',
            'billing.installation', 'billing.schema_migration', 'billing_internal.table_kind', 'billing_internal.counter') ORDER BY 1 LOOP
        EXECUTE format('INSERT INTO picture (line) SELECT format(''%%s: %%s rows %%s'', %L, count(*), md5(string_agg(r, E''\n'' ORDER BY r COLLATE "C"))) FROM (SELECT (to_jsonb(t) - %L::text[])::text AS r FROM %s t) x',
            t.table_name, t.added, t.table_name);
    END LOOP;
END
$$;
SELECT line FROM picture ORDER BY n;
SELECT format('counter %s %s', name, value) FROM billing_internal.counter WHERE name NOT LIKE 'bills/%' AND name NOT IN ('catalogue', 'feature_id') ORDER BY name;
-- Views
SELECT format('invoice %s %s %s %s %s', i.key, i.number, i.state, i.total, i.currency) FROM billing.invoice i ORDER BY i.key;
SELECT format('line %s %s %s %s', f.invoice, f.line_key, f.quantity, f.amount) FROM billing.fact_invoice_line f ORDER BY f.invoice, f.line_key;
SELECT format('usage_daily %s %s: %s days %s', u.customer, u.meter, count(*), md5(string_agg(u::text, ' ' ORDER BY u::text COLLATE "C"))) FROM billing.usage_daily u GROUP BY u.customer, u.meter ORDER BY 1;
SELECT format('usage_hourly %s %s: %s hours %s', u.customer, u.meter, count(*), md5(string_agg(u::text, ' ' ORDER BY u::text COLLATE "C"))) FROM billing.usage_hourly u GROUP BY u.customer, u.meter ORDER BY 1;
SELECT format('fact_usage_daily %s', md5(string_agg(u::text, ' ' ORDER BY u::text COLLATE "C"))) FROM billing.fact_usage_daily u;
SELECT format('unpriced_usage %s %s %s %s %s', u.customer, u.meter, u.day, u.dimensions, u.quantity) FROM billing.unpriced_usage u ORDER BY 1;
-- Functions
SELECT format('usage %s %s %s', c.key, m.key, u) FROM billing.customer c CROSS JOIN billing.meter m, billing.usage(c.key, m.key, '2023-09-01Z', '2024-01-01Z') u ORDER BY 1;
SELECT format('usage cut %s %s %s', c.key, m.key, u) FROM billing.customer c CROSS JOIN billing.meter m, billing.usage(c.key, m.key, '2023-11-16 18:20Z', '2023-11-16 19:05:30Z') u ORDER BY 1;
SELECT format('spend %s %s', c.key, s) FROM billing.customer c, billing.spend(c.key, '2023-11-01Z', '2023-12-01Z', 'month') s WHERE s.state = 'billed' ORDER BY 1; -- what was late is unbilled now, and was nowhere before
SELECT format('explained %s %s', i.key, md5(string_agg(l, E'\n' ORDER BY x.n))) FROM billing.invoice i, billing.invoice_explain(i.key) WITH ORDINALITY x (l, n) GROUP BY i.key ORDER BY 1;
SELECT format('events %s %s: %s', i.key, l.key, (SELECT count(*) || ' ' || coalesce(sum(e.value), 0) FROM billing.invoice_line_events(i.key, l.key) e))
FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) WHERE i.number IS NOT NULL AND l.kind = 'usage' ORDER BY 1;
SELECT format('recomputed %s %s %s %s %s', i.key, r.line_key, r.billed, r.difference, r.same_bytes) FROM billing.invoice i, billing.invoice_recompute(i.key) r WHERE i.number IS NOT NULL ORDER BY 1;
SELECT format('catalogue %s', md5((billing.catalog_export() - 'features')::text));
SELECT format('audit %s', a) FROM billing.audit_verify() a;
