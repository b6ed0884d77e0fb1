-- pgbench: one draw a transaction, of one of :customers customers.
\set c random(1, :customers)
SELECT result FROM billing.draw_down('draw-' || :c::int, 0.05, gen_random_uuid()::text, 'credits');
