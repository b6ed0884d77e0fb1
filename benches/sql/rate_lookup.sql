-- pgbench: what a rate limit is compared with, a row by its primary key.
\set c random(1, :customers)
SELECT level FROM bench.rate WHERE customer_id = :c;
