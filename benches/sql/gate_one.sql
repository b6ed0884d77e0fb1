-- pgbench: the round trip.
SELECT 1;
