-- Two ways to keep usage while events are stored: a row added per call (what we do) and the bucket changed in place.
\set ON_ERROR_STOP on
CREATE TABLE bench.delta (customer_id bigint NOT NULL, meter int NOT NULL, hour timestamptz NOT NULL, dimensions text NOT NULL, quantity numeric NOT NULL, events bigint NOT NULL);
CREATE TABLE bench.bucket (LIKE bench.delta, PRIMARY KEY (customer_id, meter, hour, dimensions)) WITH (fillfactor = 70);
CREATE VIEW bench.cell AS
SELECT e.batch, e.customer_id, m.meter, date_trunc('hour', e.occurred_at) AS hour, concat_ws('/', e.properties::jsonb->>'model', e.properties::jsonb->>'region', e.properties::jsonb->>'tier') AS dimensions,
    sum((e.properties::jsonb->>'input_tokens')::numeric) AS quantity, count(*) AS events
FROM bench.event e, generate_series(1, 4) m (meter) GROUP BY 1, 2, 3, 4, 5;
CREATE FUNCTION bench.added(b int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bench.bare(b);
    INSERT INTO bench.delta SELECT c.customer_id, c.meter, c.hour, c.dimensions, c.quantity, c.events FROM bench.cell c WHERE c.batch = b;
END
$$;
CREATE FUNCTION bench.changed(b int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM bench.bare(b);
    INSERT INTO bench.bucket AS k SELECT c.customer_id, c.meter, c.hour, c.dimensions, c.quantity, c.events FROM bench.cell c WHERE c.batch = b ORDER BY 1, 2, 3, 4
    ON CONFLICT (customer_id, meter, hour, dimensions) DO UPDATE SET quantity = k.quantity + EXCLUDED.quantity, events = k.events + EXCLUDED.events;
END
$$;
