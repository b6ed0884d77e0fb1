-- pgbench: may a customer use one more of a quota, of which about 100 rows are not folded?
\set c random(1, :customers)
SELECT billing.entitled('gate-' || :c::int, 'gate-tokens');
