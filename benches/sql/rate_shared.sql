-- pgbench: a request of one of :customers customers, in shared memory where the server preloads pg_billing.
\set c random(1, :customers)
SELECT allowed FROM billing_internal.rate_take(:c, 1, 1000000, 1000);
