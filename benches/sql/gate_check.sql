-- pgbench: the same, and why.
\set c random(1, :customers)
SELECT * FROM billing.entitlement_check('gate-' || :c::int, 'gate-tokens');
