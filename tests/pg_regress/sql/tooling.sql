-- What every golden file may rely on: an own database made from billing_template, with the
-- extension in place, and settings that make output the same on every machine.
SELECT current_database();
SELECT extname FROM pg_extension WHERE extname = 'pg_billing';
SELECT name, setting FROM pg_settings
 WHERE name IN ('TimeZone', 'DateStyle', 'IntervalStyle', 'lc_messages', 'extra_float_digits', 'server_encoding',
                'fsync', 'listen_addresses')
 ORDER BY name COLLATE "C";
SELECT timestamptz '2023-12-01 00:00+00', interval '1 mon 2 days 03:04:05', 'ü' < 'z' COLLATE "C";
-- Errors: the text, then the code
SELECT 1/0;
\echo :SQLSTATE
