-- pgbench: may a customer use a feature, one of 1,000?
\set c random(1, :customers)
SELECT billing.entitled('gate-' || :c::int, 'gate-static');
