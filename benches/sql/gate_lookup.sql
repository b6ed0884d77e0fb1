-- pgbench: a row by its primary key.
\set c random(1, :customers)
SELECT allowed FROM bench.flag WHERE customer = 'gate-' || :c::int AND feature = 'gate-static';
