-- A quarter of usage, as much every day at noon in New York; the rest on the last day.
CREATE FUNCTION pg_temp.use(first date, gpt4 numeric, gpt35 numeric) RETURNS bigint LANGUAGE sql AS $$
    WITH day AS (SELECT d::date AS day, row_number() OVER (ORDER BY d) AS n, count(*) OVER () AS days FROM generate_series(first, first + interval '3 months' - interval '1 day', interval '1 day') d)
    SELECT r.accepted FROM billing.ingest((SELECT json_agg(json_build_object('customer', 'acme', 'event_type', 'llm.request', 'event_id', m.model || '/' || day, 'occurred_at', (day + time '12:00') AT TIME ZONE 'America/New_York',
        'properties', json_build_object('model', m.model, 'input_tokens', 0, 'output_tokens', CASE WHEN n < days THEN trunc(m.tokens / days) ELSE m.tokens - trunc(m.tokens / days) * (days - 1) END)))
      FROM day, (VALUES ('gpt-4', gpt4), ('gpt-3.5', gpt35)) m (model, tokens))) r $$;
