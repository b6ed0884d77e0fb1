-- A large price book: seconds to apply it, to apply it again, and of the same rows alone; then price_resolve() on a book
-- of 20 prices and on the large one, in microseconds a call. Variables: prices, rows, calls.
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"bench-p"}],"meters":[{"key":"bench-q","event_type":"bench.use","aggregation":"sum","value":"n","dimensions":["model"]}]}');
CREATE FUNCTION bench.book(book text, prices int, rows int) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('price_books', jsonb_build_array(jsonb_build_object('key', book, 'currency', 'USD', 'prices', (SELECT jsonb_agg(jsonb_build_object('key', 'p' || p, 'meter', 'bench-q',
        'pricing', jsonb_build_object('model', 'matrix', 'dimensions', '["model"]'::jsonb, 'rows',
            (SELECT jsonb_agg(jsonb_build_object('match', jsonb_build_object('model', 'm' || r), 'unit_price', '0.0' || r)) FROM generate_series(1, rows) r)))) FROM generate_series(1, prices) p))))
$$;
CREATE TABLE bench.document AS SELECT bench.book('bench-big', :prices, :rows) AS big;
CREATE TABLE bench.bare (LIKE billing.price_row INCLUDING ALL);
CREATE FUNCTION bench.resolve(customer text, calls int) RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz;
BEGIN
    PERFORM FROM billing.price_resolve(customer, 'bench-q', '{"model":"m7"}');
    began := clock_timestamp();
    FOR n IN 1..calls LOOP
        PERFORM FROM billing.price_resolve(customer, 'bench-q', jsonb_build_object('model', 'm' || 1 + n % 20));
    END LOOP;
    RETURN extract(epoch FROM clock_timestamp() - began) * 1e6 / calls;
END
$$;
SELECT count(*) FROM billing.catalog_apply(bench.book('bench-small', 20, :rows));
CREATE FUNCTION bench.seconds(statement text) RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz := clock_timestamp();
BEGIN
    EXECUTE statement;
    RETURN extract(epoch FROM clock_timestamp() - began);
END
$$;
SELECT bench.seconds($$INSERT INTO bench.bare SELECT gen_random_uuid(), 0, r.value->'match', r.value - 'match'
    FROM bench.document d, jsonb_array_elements(d.big->'price_books'->0->'prices') p, jsonb_array_elements(p->'pricing'->'rows') r$$) AS bare,
  bench.seconds('SELECT count(*) FROM bench.document d, billing.catalog_apply(d.big)') AS applied, bench.seconds('SELECT count(*) FROM bench.document d, billing.catalog_apply(d.big)') AS again \gset
ANALYZE billing.price, billing.price_row;
SELECT billing.customer_upsert(jsonb_build_object('key', 'bench-' || b)), billing.contract_create(jsonb_build_object('key', 'bench-' || b, 'customer', 'bench-' || b, 'starts_on', '2020-01-01', 'price_book', 'bench-' || b,
    'charges', '[{"key":"m","product":"bench-p","meter":"bench-q","price":"p20"}]'::jsonb)), billing.contract_activate('bench-' || b) FROM unnest(ARRAY['small', 'big']) b;
SELECT bench.resolve('bench-small', :calls) AS warm \gset
SELECT :bare, :applied, :again, bench.resolve('bench-small', :calls), bench.resolve('bench-big', :calls), (SELECT count(*) FROM billing.price_row r JOIN billing.price p USING (price_id) JOIN billing.price_book b USING (price_book_id) WHERE b.key = 'bench-big');
