-- pgbench: the same request on its row.
\set c random(1, :customers)
SELECT allowed FROM billing_internal.rate_row(:c, 1, 1000000, 1000000, 1000, 1, false);
