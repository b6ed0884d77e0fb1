-- pgbench: a request of one of :customers customers, as an application asks.
\set c random(1, :customers)
SELECT allowed FROM billing.rate_limit('rate-' || :c::int, 'rate-api');
