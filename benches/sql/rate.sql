-- Seconds of :n calls of rate() on a graduated price of five tiers, and of :n calls of a function that does nothing.
\set ON_ERROR_STOP on
CREATE OR REPLACE FUNCTION pg_temp.nothing(pricing billing.pricing, quantity numeric) RETURNS numeric LANGUAGE plpgsql IMMUTABLE STRICT AS 'BEGIN RETURN quantity; END';
SET max_parallel_workers_per_gather = 0;
SELECT clock_timestamp() AS started \gset
SELECT sum(billing.rate('{"model":"graduated","tiers":[{"up_to":"1000","unit_price":"0.01"},{"up_to":"5000","unit_price":"0.005"},{"up_to":"20000","unit_price":"0.002"},{"up_to":"50000","unit_price":"0.001"},{"unit_price":"0.0005"}]}', n % 100000)) AS total
FROM generate_series(1, :n) n \gset
SELECT extract(epoch FROM clock_timestamp() - :'started') AS rated, clock_timestamp() AS started \gset
SELECT sum(pg_temp.nothing('{"model":"flat","amount":"1"}', n % 100000)) AS total FROM generate_series(1, :n) n \gset
SELECT :rated, extract(epoch FROM clock_timestamp() - :'started');
