-- Every aggregation on numbers worked out by hand, in usage() and on invoices: what is carried over, what takes two
-- steps, what other meters make, what is rounded. tests/aggregations.rs compares them with plain SQL at random.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-08-01T00:00:00Z') AS clock;
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "p", "name": "P"}],
  "meters": [
    {"key": "hosts-p99", "event_type": "hosts", "aggregation": "percentile", "percentile": "99", "per": {"bucket": "hour", "aggregation": "max"}, "value": "hosts", "unit": "host"},
    {"key": "latency", "event_type": "call", "aggregation": "average", "value": "ms", "dimensions": ["model"], "unit": "ms"},
    {"key": "fastest", "event_type": "call", "aggregation": "min", "value": "ms"},
    {"key": "p50", "event_type": "call", "aggregation": "percentile", "percentile": "50", "value": "ms"},
    {"key": "last", "event_type": "call", "aggregation": "latest", "value": "ms"},
    {"key": "calls", "event_type": "call", "aggregation": "count", "dimensions": ["model"]},
    {"key": "ms", "event_type": "call", "aggregation": "sum", "value": "ms", "dimensions": ["model"]},
    {"key": "thousands", "event_type": "call", "aggregation": "sum", "value": "ms", "rounding": {"mode": "up", "to": "1000"}},
    {"key": "ms-a-call", "aggregation": "compound", "of": {"numerator": "ms", "denominator": "calls", "places": 2}, "dimensions": ["model"], "unit": "ms"},
    {"key": "weight", "aggregation": "compound", "of": [{"meter": "ms"}, {"meter": "calls", "factor": "-10"}], "unit": "unit"},
    {"key": "storage", "event_type": "volume", "aggregation": "weighted_sum", "value": "gb", "dimensions": ["region"], "unit": "gb-hour"},
    {"key": "storage-mean", "event_type": "volume", "aggregation": "weighted_sum", "weighting": "period", "value": "gb", "unit": "gb"},
    {"key": "seats", "event_type": "seat", "aggregation": "unique_count", "value": "user", "operation": "op", "unit": "seat"},
    {"key": "tiers", "event_type": "call", "aggregation": "count", "unit": "call", "filters": [
      {"name": "large", "filter": {"model": "l"}}, {"name": "large-slow", "filter": {"model": "l", "ms": {"gte": 300}}}, {"name": "other", "filter": {}}]}],
  "plans": [
    {"key": "hosts", "name": "Hosts", "currency": "USD", "charges": [{"key": "hosts", "product": "p", "meter": "hosts-p99", "pricing": {"model": "per_unit", "unit_price": "15"}}]},
    {"key": "all", "name": "All", "currency": "USD", "charges": [
      {"key": "latency", "product": "p", "meter": "latency", "lines_by": ["model"], "pricing": {"model": "per_unit", "unit_price": "1"}},
      {"key": "fastest", "product": "p", "meter": "fastest", "pricing": {"model": "per_unit", "unit_price": "1"}},
      {"key": "p50", "product": "p", "meter": "p50", "pricing": {"model": "per_unit", "unit_price": "1"}},
      {"key": "last", "product": "p", "meter": "last", "pricing": {"model": "per_unit", "unit_price": "1"}},
      {"key": "thousands", "product": "p", "meter": "thousands", "pricing": {"model": "graduated", "tiers": [{"up_to": "1000", "unit_price": "0.01"}, {"unit_price": "0.001"}]}},
      {"key": "ms-a-call", "product": "p", "meter": "ms-a-call", "pricing": {"model": "per_unit", "unit_price": "0.1"}},
      {"key": "weight", "product": "p", "meter": "weight", "pricing": {"model": "per_unit", "unit_price": "1"}},
      {"key": "storage", "product": "p", "meter": "storage", "lines_by": ["region"], "pricing": {"model": "graduated", "tiers": [{"up_to": "10000", "unit_price": "0.01"}, {"unit_price": "0.005"}]}},
      {"key": "storage-mean", "product": "p", "meter": "storage-mean", "pricing": {"model": "per_unit", "unit_price": "0.5"}},
      {"key": "seats", "product": "p", "meter": "seats", "pricing": {"model": "volume", "tiers": [{"up_to": "2", "unit_price": "10"}, {"unit_price": "8"}]}},
      {"key": "tiers", "product": "p", "meter": "tiers", "pricing": {"model": "matrix", "dimensions": ["filter"], "rows": [
        {"match": {"filter": "large"}, "unit_price": "1"}, {"match": {"filter": "large-slow"}, "unit_price": "2"}, {"match": {}, "unit_price": "0.1"}]}}]}]}');

\echo 'Datadog (rules.md 10.3): hourly counts, the top 1 % dropped: rank 713 of 720. A spike of 7 hours is free, the 8th hour is not'
SELECT billing.customer_upsert(jsonb_build_object('key', k)), billing.subscribe(k, 'hosts', '2026-06-01', '{"term": "1 month"}') FROM (VALUES ('spike-2'), ('spike-7'), ('spike-8')) c (k) \g /dev/null
SELECT sum(i.accepted) AS accepted FROM (VALUES ('spike-2', 2), ('spike-7', 7), ('spike-8', 8)) c (k, spike)
CROSS JOIN LATERAL billing.ingest((SELECT json_agg(json_build_object('customer', c.k, 'event_id', h || '/' || n, 'event_type', 'hosts', 'occurred_at', timestamptz '2026-06-01Z' + h * interval '1 hour' + n * interval '20 minutes',
    'properties', json_build_object('hosts', CASE WHEN n = 1 AND h BETWEEN 228 AND 227 + c.spike THEN 100 ELSE 10 END))) FROM generate_series(0, 719) h, generate_series(0, 1) n)) i;
SELECT c.k AS customer, u.quantity, c.hosts AS want, u.quantity = c.hosts AS ok
FROM (VALUES ('spike-2', 10), ('spike-7', 10), ('spike-8', 100)) c (k, hosts), billing.usage(c.k, 'hosts-p99', '2026-06-01Z', '2026-07-01Z') u ORDER BY 1;
\echo 'an empty hour counts as 0: in June and July together rank ceil(0.99 × 1464) = 1450 of 1464, and 744 of them are empty'
SELECT u.quantity FROM billing.usage('spike-8', 'hosts-p99', '2026-06-01Z', '2026-08-01Z') u;

SELECT billing.customer_upsert('{"key": "acme", "time_zone": "America/New_York"}') AS customer, billing.subscribe('acme', 'all', '2026-06-01', '{"term": "1 month", "time_zone": "UTC"}') AS contract \g /dev/null
SELECT accepted, rejected, errors FROM billing.ingest('[
  {"customer": "acme", "event_id": "c1", "event_type": "call", "occurred_at": "2026-06-02T10:00:00Z", "properties": {"model": "l", "ms": 100}},
  {"customer": "acme", "event_id": "c2", "event_type": "call", "occurred_at": "2026-06-02T10:30:00Z", "properties": {"model": "l", "ms": 300}},
  {"customer": "acme", "event_id": "c3", "event_type": "call", "occurred_at": "2026-06-20T10:00:00Z", "properties": {"model": "l", "ms": 600.5}},
  {"customer": "acme", "event_id": "c4", "event_type": "call", "occurred_at": "2026-06-03T10:00:00Z", "properties": {"model": "s", "ms": 50}},
  {"customer": "acme", "event_id": "v1", "event_type": "volume", "occurred_at": "2026-05-20T00:00:00Z", "properties": {"region": "eu", "gb": 10}},
  {"customer": "acme", "event_id": "v2", "event_type": "volume", "occurred_at": "2026-06-11T00:00:00Z", "properties": {"region": "eu", "gb": 20}},
  {"customer": "acme", "event_id": "v3", "event_type": "volume", "occurred_at": "2026-06-21T06:30:00Z", "properties": {"region": "eu", "gb": -30}},
  {"customer": "acme", "event_id": "v4", "event_type": "volume", "occurred_at": "2026-06-30T23:59:59.999999Z", "properties": {"region": "us", "gb": 3600}},
  {"customer": "acme", "event_id": "s1", "event_type": "seat", "occurred_at": "2026-05-01T00:00:00Z", "properties": {"user": "ann", "op": "add"}},
  {"customer": "acme", "event_id": "s2", "event_type": "seat", "occurred_at": "2026-06-05T00:00:00Z", "properties": {"user": "bob", "op": "add"}},
  {"customer": "acme", "event_id": "s3", "event_type": "seat", "occurred_at": "2026-06-06T00:00:00Z", "properties": {"user": "cyd", "op": "add"}},
  {"customer": "acme", "event_id": "s4", "event_type": "seat", "occurred_at": "2026-06-07T00:00:00Z", "properties": {"user": "bob", "op": "remove"}},
  {"customer": "acme", "event_id": "s5", "event_type": "seat", "occurred_at": "2026-06-06T12:00:00Z", "properties": {"user": "bob", "op": "add"}},
  {"customer": "acme", "event_id": "s6", "event_type": "seat", "occurred_at": "2026-06-08T00:00:00Z", "properties": {"user": "dan", "op": "join"}}]');

CREATE VIEW pg_temp.want AS SELECT * FROM (VALUES
    ('latency', 262.625), ('fastest', 50), ('p50', 100), ('last', 600.5), ('thousands', 2000), ('ms-a-call', 262.63), ('weight', 1010.5),
    -- eu: 10 GB for 10 days, 30 GB for 10 days 6.5 hours; us: 3600 GB for a microsecond
    ('storage', 2400 + 30 * 246.5 + 0.000001), ('storage-mean', 13.604166668056), ('seats', 2), ('tiers', 4)) w (meter, want);
SELECT w.meter, trim_scale(u.quantity) AS got, trim_scale(w.want) AS want, u.quantity = w.want AS ok
FROM pg_temp.want w, billing.usage('acme', w.meter, '2026-06-01Z', '2026-07-01Z') u ORDER BY 1;
CALL billing.fold();
SELECT count(*) AS meters, bool_and(u.quantity = w.want) AS the_same_when_folded FROM pg_temp.want w, billing.usage('acme', w.meter, '2026-06-01Z', '2026-07-01Z') u;

\echo 'what is carried over goes on in cells without events'
SELECT u.starts_at, trim_scale(u.quantity) AS gb_hours, u.events FROM billing.usage('acme', 'storage', '2026-06-20 12:00Z', '2026-06-23Z', 'day', filter => '{"region": "eu"}', time_zone => 'UTC') u;
SELECT u.starts_at, u.quantity AS seats, u.events FROM billing.usage('acme', 'seats', '2026-06-04Z', '2026-06-08Z', 'day', time_zone => 'UTC') u;
\echo 'a level before any event is none; a stretch without usage has no average'
SELECT m AS meter, u.quantity, u.events FROM unnest('{storage,seats,latency,last,ms-a-call,hosts-p99}'::text[]) m, billing.usage('acme', m, '2020-01-01Z', '2020-02-01Z') u;
SELECT u.dimensions->>'filter' AS filter, u.quantity FROM billing.usage('acme', 'tiers', '2026-06-01Z', '2026-07-01Z', group_by => '{filter}') u;
SELECT u.dimensions->>'model' AS model, u.quantity FROM billing.usage('acme', 'ms-a-call', '2026-06-01Z', '2026-07-01Z', group_by => '{model}') u;

\echo 'on invoices: the period has one price, quantities stand as usage() says'
CALL billing.bill_run();
SELECT c.key AS customer, i.total, w.total AS want, i.total = w.total AS ok FROM (VALUES ('spike-2', 150.00), ('spike-7', 150.00), ('spike-8', 1500.00)) w (key, total)
JOIN billing.customer c USING (key) JOIN billing.invoice i USING (customer_id) ORDER BY 1;
-- storage: (9795.000001 → 97.95 over both lines); seats: 2 × 10; tiers: 1 × 1 + 2 × 2 + 1 × 0.1; thousands: 1000 × 0.01 + 1000 × 0.001
SELECT l.charge_key, l.dimensions, trim_scale(l.quantity) AS quantity, l.amount, w.want, l.amount = w.want AS ok
FROM (VALUES ('latency', 'l', 333.50), ('latency', 's', 50.00), ('fastest', '', 50.00), ('p50', '', 100.00), ('last', '', 600.50), ('thousands', '', 11.00), ('ms-a-call', '', 26.26), ('weight', '', 1010.50),
    ('storage', 'eu', 97.95), ('storage', 'us', 0.00), ('storage-mean', '', 6.80), ('seats', '', 20.00), ('tiers', 'large', 1.00), ('tiers', 'large-slow', 4.00), ('tiers', 'other', 0.10)) w (charge_key, value, want)
JOIN billing.invoice_line l ON l.charge_key = w.charge_key AND coalesce(l.dimensions->>'model', l.dimensions->>'region', l.dimensions->>'filter', '') = w.value ORDER BY l.line_n;
SELECT count(*) AS lines, bool_and(r.same_bytes) AS same_bytes, bool_and(r.difference = 0) AS same_amounts FROM billing.invoice i CROSS JOIN LATERAL billing.invoice_recompute(i.number) r;
\echo 'every line leads to its events: a level to all changes before, a compound to the events of its meters'
SELECT l.charge_key, string_agg(e.event_id, ' ' ORDER BY e.event_id) AS events FROM billing.invoice i JOIN billing.customer c USING (customer_id) JOIN billing.invoice_line l USING (customer_id, invoice_id)
CROSS JOIN LATERAL billing.invoice_line_events(i.number, l.key) e WHERE c.key = 'acme' GROUP BY l.line_n, l.charge_key, l.dimensions ORDER BY l.line_n;
\echo 'spend() splits by events what does not add up'
SELECT sum(s.amount) AS spent, (SELECT i.total FROM billing.invoice i JOIN billing.customer c USING (customer_id) WHERE c.key = 'acme') AS invoiced FROM billing.spend('acme', '2026-06-01Z', '2026-07-01Z') s;

\echo 'rounding: away from zero and its mirror'
SELECT q, r->>'mode' AS mode, trim_scale(billing_internal.rounded_quantity(q, r)) AS rounded FROM unnest('{0,1000,1000.1,-1000.1,1499.9,1500,-1500}'::numeric[]) q,
    unnest('{"{\"mode\":\"up\",\"to\":\"1000\"}","{\"mode\":\"down\",\"to\":\"1000\"}","{\"mode\":\"half_up\",\"to\":\"1000\"}"}'::jsonb[]) r ORDER BY 2, 1;
SELECT billing_internal.quotient(2, 3), billing_internal.quotient(-2, 3, 2), billing_internal.quotient(1, -8, 2), billing_internal.quotient(9999999999999999999999999999, 7, 1), billing_internal.quotient(1, 0);

\echo 'what can''t be'
SELECT pg_temp.fails(format($$SELECT * FROM billing.catalog_apply('{"meters": [%s]}')$$, m)) FROM (VALUES
    ('{"key": "x", "event_type": "e", "aggregation": "percentile", "value": "v"}'),
    ('{"key": "x", "event_type": "e", "aggregation": "percentile", "percentile": "101", "value": "v"}'),
    ('{"key": "x", "event_type": "e", "aggregation": "sum", "percentile": "99", "value": "v"}'),
    ('{"key": "x", "event_type": "e", "aggregation": "latest", "per": {"bucket": "hour", "aggregation": "sum"}, "value": "v"}'),
    ('{"key": "x", "event_type": "e", "aggregation": "sum", "per": {"bucket": "week", "aggregation": "sum"}, "value": "v"}'),
    ('{"key": "x", "event_type": "e", "aggregation": "sum", "weighting": "hour", "value": "v"}'),
    ('{"key": "x", "event_type": "e", "aggregation": "sum", "operation": "op", "value": "v"}'),
    ('{"key": "x", "event_type": "e", "aggregation": "sum", "value": "v", "rounding": {"mode": "near"}}'),
    ('{"key": "x", "event_type": "e", "aggregation": "sum", "value": "v", "filters": []}'),
    ('{"key": "x", "event_type": "e", "aggregation": "compound", "of": [{"meter": "ms"}]}'),
    ('{"key": "x", "aggregation": "compound", "of": [{"meter": "nothing"}]}'),
    ('{"key": "x", "aggregation": "compound", "of": [{"meter": "weight"}]}'),
    ('{"key": "x", "aggregation": "compound", "of": [{"meter": "ms"}, {"meter": "ms"}]}'),
    ('{"key": "x", "aggregation": "compound", "of": [{"meter": "ms"}], "dimensions": ["region"]}'),
    ('{"key": "x", "aggregation": "compound", "of": {"numerator": "ms", "denominator": "calls", "places": 13}}'),
    ('{"key": "ms", "retired": true}'),
    ('{"key": "ms", "event_type": "call", "aggregation": "sum", "value": "ms"}'),
    ('{"key": "thousands", "event_type": "call", "aggregation": "sum", "value": "ms", "per": {"bucket": "hour", "aggregation": "max"}}')) x (m);
\echo 'a price over the whole quantity of what does not add up needs one line'
SELECT pg_temp.fails($$SELECT * FROM billing.catalog_apply('{"plans": [{"key": "bad", "name": "Bad", "currency": "USD", "charges": [
    {"key": "latency", "product": "p", "meter": "latency", "lines_by": ["model"], "pricing": {"model": "graduated", "tiers": [{"unit_price": "1"}]}}]}]}')$$);
SELECT pg_temp.fails($$SELECT * FROM billing.usage('acme', 'storage', '2026-06-01Z', '2026-06-01Z')$$);

\echo 'a changed rounding is a version: the invoice keeps what it was made with'
SELECT action, key FROM billing.catalog_apply('{"meters": [{"key": "thousands", "event_type": "call", "aggregation": "sum", "value": "ms", "rounding": {"mode": "up", "to": "500"}, "valid_from": "2026-06-01T00:00:00Z"},
    {"key": "calls", "event_type": "call", "aggregation": "count", "dimensions": ["model"], "filter": {"model": "l"}, "valid_from": "2026-06-01T00:00:00Z"}]}');
SELECT m AS meter, trim_scale(u.quantity) AS now FROM unnest('{thousands,ms-a-call}'::text[]) m, billing.usage('acme', m, '2026-06-01Z', '2026-07-01Z') u;
SELECT r.line_key, r.billed, r.recomputed FROM billing.invoice i JOIN billing.customer c USING (customer_id) CROSS JOIN LATERAL billing.invoice_recompute(i.number) r WHERE c.key = 'acme' AND NOT r.same_bytes;
SELECT * FROM billing.verify('full') v WHERE v.failed > 0;
