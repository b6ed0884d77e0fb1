-- Rating: products and what they cost.

CREATE TABLE billing.product (
    product_id uuid PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 200),
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz
);
COMMENT ON TABLE billing.product IS 'What is sold; charges and fees belong to one.';
COMMENT ON COLUMN billing.product.product_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.product.key IS 'Its key, unique.';
COMMENT ON COLUMN billing.product.name IS 'Its name on invoices.';
COMMENT ON COLUMN billing.product.created_at IS 'Real time.';
COMMENT ON COLUMN billing.product.retired_at IS 'When it was withdrawn; NULL = sold.';
SELECT billing_internal.declare_table('billing.product', 'catalogue', '{name, retired_at}', '{product_id, key, name, retired_at}');

CREATE TABLE billing.price_book (
    price_book_id uuid PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE CHECK (length(key) BETWEEN 1 AND 200),
    currency text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz
);
COMMENT ON TABLE billing.price_book IS 'A rate card in one currency.';
COMMENT ON COLUMN billing.price_book.price_book_id IS 'UUIDv7.';
COMMENT ON COLUMN billing.price_book.key IS 'Its key, unique.';
COMMENT ON COLUMN billing.price_book.currency IS 'Currency of all its prices. Never changes.';
COMMENT ON COLUMN billing.price_book.created_at IS 'Real time.';
COMMENT ON COLUMN billing.price_book.retired_at IS 'When it was withdrawn for new plans; NULL = usable.';
SELECT billing_internal.declare_table('billing.price_book', 'catalogue', '{retired_at}');

CREATE TABLE billing.price (
    price_id uuid PRIMARY KEY,
    price_book_id uuid NOT NULL REFERENCES billing.price_book,
    key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    version int NOT NULL CHECK (version > 0),
    meter_id int NOT NULL REFERENCES billing.meter,
    valid_during tstzrange NOT NULL CHECK (NOT isempty(valid_during)),
    pricing jsonb NOT NULL,
    row_count int NOT NULL DEFAULT 0,
    splits boolean NOT NULL,
    needs_events boolean NOT NULL,
    content_hash bytea NOT NULL,
    recorded_at timestamptz NOT NULL,
    UNIQUE (price_book_id, key, version),
    CONSTRAINT price_validity_excl EXCLUDE USING gist (price_book_id WITH =, key WITH =, valid_during WITH &&)
);
COMMENT ON TABLE billing.price IS 'Versions of a price. A new version ends the one before it; what was billed names the version it used.';
COMMENT ON COLUMN billing.price.price_id IS 'UUIDv7 of this version.';
COMMENT ON COLUMN billing.price.price_book_id IS 'The rate card.';
COMMENT ON COLUMN billing.price.key IS 'Key, unique in the book (over its versions).';
COMMENT ON COLUMN billing.price.version IS '1, 2, …';
COMMENT ON COLUMN billing.price.meter_id IS 'The meter whose quantity it prices.';
COMMENT ON COLUMN billing.price.valid_during IS 'When it is the list price, half-open; the first version has no beginning.';
COMMENT ON COLUMN billing.price.pricing IS 'The pricing document; a matrix without its rows, which are price_row.';
COMMENT ON COLUMN billing.price.row_count IS 'Rows of the matrix; 0 for other models.';
COMMENT ON COLUMN billing.price.splits IS 'Whether its amount is proportional to quantity and free of bounds, so that a period may be split at any instant.';
COMMENT ON COLUMN billing.price.needs_events IS 'Whether it is rated from single events (per-event minimum or maximum).';
COMMENT ON COLUMN billing.price.content_hash IS 'SHA-256 of the canonical pricing document with all rows.';
COMMENT ON COLUMN billing.price.recorded_at IS 'Real time it was published.';
SELECT billing_internal.declare_table('billing.price', 'catalogue', '{valid_during}');

CREATE TABLE billing.price_row (
    price_id uuid NOT NULL REFERENCES billing.price,
    n int NOT NULL CHECK (n >= 0),
    match jsonb NOT NULL,
    pricing jsonb NOT NULL,
    PRIMARY KEY (price_id, n)
);
CREATE UNIQUE INDEX price_row_match_idx ON billing.price_row (price_id, match);
COMMENT ON TABLE billing.price_row IS 'The rows of a matrix price: dimension values and what they cost.';
COMMENT ON COLUMN billing.price_row.price_id IS 'The price version.';
COMMENT ON COLUMN billing.price_row.n IS 'Position in the document, from 0.';
COMMENT ON COLUMN billing.price_row.match IS 'Dimension values it is for; an absent dimension matches any.';
COMMENT ON COLUMN billing.price_row.pricing IS 'The row as the document has it: {"unit_price"} or {"pricing"}.';
SELECT billing_internal.declare_table('billing.price_row', 'catalogue');
