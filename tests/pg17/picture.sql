-- What must be the same wherever the database is: rows of every table, usage, invoices, verify().
SET client_min_messages = warning;
SET search_path = pg_catalog;
SELECT format('rows %s %s', c.oid::regclass, (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %s', c.oid::regclass), false, true, '')))[1])
FROM pg_class c WHERE c.relnamespace IN ('billing'::regnamespace, 'billing_internal'::regnamespace) AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1;
SELECT format('usage %s %s %s %s', c.key, m.key, u.quantity, u.events) FROM billing.customer c CROSS JOIN billing.meter m, billing.usage(c.key, m.key, '2024-01-01Z', '2024-04-01Z') u ORDER BY 1;
SELECT format('invoice %s %s %s', number, state, md5(document::text)) FROM billing.invoice ORDER BY number;
SELECT format('recomputed %s %s', i.number, md5(billing.invoice_recompute(i.number)::text)) FROM billing.invoice i WHERE i.number IS NOT NULL ORDER BY 1;
SELECT format('check %s %s', check_name, failed) FROM billing.verify('full') ORDER BY 1;
