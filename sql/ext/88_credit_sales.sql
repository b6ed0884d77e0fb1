-- Credit that is sold by itself stands on an invoice of its own, what is refunded of it on a credit note. Issued at once, in
-- the transaction that sells; the lock of the number series is the last it takes.

CREATE FUNCTION billing_internal.credit_sale_document(of_customer_id bigint, of_pool_id uuid, of_minor_units int, recorded jsonb DEFAULT NULL) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    lines jsonb;
    total numeric;
    inputs jsonb;
    totals jsonb;
BEGIN
    SELECT * INTO p FROM billing.credit_pool x WHERE x.customer_id = of_customer_id AND x.pool_id = of_pool_id;
    IF recorded ? 'refunded' THEN
        total := -billing_internal.credit_release(p.paid, p.credits, (recorded->>'before')::numeric, (recorded->>'refunded')::numeric, of_minor_units, recorded->>'rounding_mode');
        SELECT jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('key', g.key, 'kind', 'credit', 'charge', p.key, 'label', format('Refund of credit: %s %s', recorded->>'refunded', g.unit),
            'from', recorded->>'at', 'until', recorded->>'at', 'quantity', '-' || (recorded->>'refunded'), 'unit', g.unit, 'exact', trim_scale(total)::text, 'amount', round(total, of_minor_units)::text)))
        INTO lines FROM billing.credit_grant g WHERE g.customer_id = of_customer_id AND g.key = recorded->>'block';
        inputs := recorded - 'sha256';
    ELSE
        total := p.paid;
        -- Where it ended when it was sold: an extension changes no invoice.
        inputs := coalesce(recorded - 'sha256', (SELECT jsonb_strip_nulls(jsonb_build_object('purchase', p.key, 'expires_at', replace(billing_internal.rfc3339(min(g.expires_at)), '.000000Z', 'Z')))
            FROM billing.credit_grant g WHERE g.customer_id = of_customer_id AND g.pool_id = of_pool_id AND g.rolled_from IS NULL));
        SELECT jsonb_agg(jsonb_build_object('key', g.key, 'kind', 'credit', 'charge', p.key, 'label', format('%s: %s %s', CASE g.category WHEN 'paid' THEN 'Credit' ELSE 'Bonus credit' END, trim_scale(g.amount), g.unit),
            'from', x.at, 'until', coalesce(inputs->>'expires_at', x.at), 'quantity', trim_scale(g.amount)::text, 'unit', g.unit,
            'exact', trim_scale(x.price)::text, 'amount', round(x.price, of_minor_units)::text) ORDER BY g.grant_id)
        INTO lines FROM billing.credit_grant g
        CROSS JOIN LATERAL (SELECT CASE g.category WHEN 'paid' THEN total ELSE 0 END AS price, replace(billing_internal.rfc3339(g.effective_at), '.000000Z', 'Z') AS at) x
        WHERE g.customer_id = of_customer_id AND g.pool_id = of_pool_id AND g.rolled_from IS NULL;
    END IF;
    SELECT jsonb_build_object('lines', round(total, of_minor_units)::text, 'discount', z.zero, 'tax', z.zero, 'total', round(total, of_minor_units)::text, 'credits', z.zero, 'due', round(total, of_minor_units)::text)
    INTO totals FROM (SELECT round(0::numeric, of_minor_units)::text AS zero) z;
    RETURN jsonb_build_object('lines', lines, 'totals', totals, 'inputs', inputs || jsonb_build_object('sha256', encode(sha256(convert_to(
        billing_internal.canonical_json(jsonb_build_object('currency', p.currency, 'lines', lines, 'inputs', inputs)::text), 'UTF8')), 'hex')));
END
$$;
COMMENT ON FUNCTION billing_internal.credit_sale_document(bigint, uuid, int, jsonb) IS
    'Lines, totals and inputs of the invoice of a purchase of credit, or by recorded inputs with "refunded" of the credit note of a refund, made from the purchase. recorded: the inputs of the document, where it is made again.';

CREATE FUNCTION billing_internal.credit_document_issue(of_customer_id bigint, of_pool_id uuid, of_kind text, recorded jsonb DEFAULT NULL, of_invoice uuid DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
    d jsonb;
    id uuid := billing_internal.uuid_v7();
    today timestamptz := billing.now();
    of_number text;
    counter bigint;
    total numeric;
    of_key text;
BEGIN
    -- For whom and by whose terms: of the contract it was sold for as they are now, else of the customer's only live contract, else the customer's; a credit note is for whom the invoice was.
    SELECT o.key, o.currency, c.key AS customer, c.terms_version, n.key AS contract, s.seller_id, s.key AS seller, CASE of_kind WHEN 'credit_note' THEN 'CN' ELSE s.invoice_series END AS series,
        billing_internal.fiscal_year(today, s.time_zone, s.fiscal_year_start) AS fiscal_year, t.bill_to_id, t.key AS bill_to, i.issued_on,
        CASE of_kind WHEN 'credit_note' THEN i.issued_on ELSE i.issued_on + coalesce(k.net_days, 30) END AS due_on, billing_internal.unit_places(o.currency, i.issued_on) AS minor_units INTO p
    FROM billing.credit_pool o
    JOIN billing.customer c USING (customer_id)
    LEFT JOIN billing.contract n ON n.customer_id = o.customer_id AND n.contract_id = o.contract_id
    LEFT JOIN LATERAL (
        SELECT (array_agg(x.seller_id))[1] AS seller_id, (array_agg(x.contract_id))[1] AS contract_id, (array_agg(x.net_days))[1] AS net_days, (array_agg(x.time_zone))[1] AS time_zone
        FROM billing.contract x WHERE x.customer_id = o.customer_id AND x.currency = o.currency AND CASE WHEN o.contract_id IS NULL THEN x.state IN ('scheduled', 'active', 'paused') ELSE x.contract_id = o.contract_id END
        HAVING count(*) = 1
    ) k ON true
    JOIN billing.seller s ON s.seller_id = coalesce(k.seller_id, c.seller_id)
    JOIN LATERAL (
        SELECT b.* FROM billing.bill_to b WHERE b.customer_id = o.customer_id AND CASE
            WHEN of_invoice IS NOT NULL THEN b.bill_to_id = (SELECT x.bill_to_id FROM billing.invoice x WHERE x.customer_id = o.customer_id AND x.invoice_id = of_invoice)
            WHEN k.contract_id IS NOT NULL THEN b.key = billing_internal.contract_bill_to(o.customer_id, k.contract_id, NULL)
            ELSE b.retired_at IS NULL END ORDER BY b.position LIMIT 1) t ON true
    CROSS JOIN LATERAL (SELECT (today AT TIME ZONE coalesce(t.time_zone, k.time_zone, c.time_zone))::date AS issued_on) i
    WHERE o.customer_id = of_customer_id AND o.pool_id = of_pool_id;
    d := billing_internal.credit_sale_document(of_customer_id, of_pool_id, p.minor_units, recorded);
    total := (d->'totals'->>'total')::numeric;
    -- Keys of contracts' invoices end with a boundary, which begins with a digit.
    of_key := p.customer || '/' || CASE of_kind WHEN 'credit_note' THEN 'refund-' || (SELECT count(*) + 1 FROM billing.invoice x WHERE x.customer_id = of_customer_id AND x.pool_id = of_pool_id AND x.kind = of_kind)
        ELSE 'credit' END || ':' || replace(replace(p.key, '%', '%25'), '/', '%2F');
    IF billing_internal.travelling() THEN
        of_number := 'PREVIEW-' || billing_internal.preview_number();
    ELSE
        INSERT INTO billing.invoice_number_series AS x (seller_id, series, fiscal_year, last_number) VALUES (p.seller_id, p.series, p.fiscal_year, 1)
        ON CONFLICT (seller_id, series, fiscal_year) DO UPDATE SET last_number = x.last_number + 1 RETURNING x.last_number INTO counter;
        of_number := p.series || '-' || p.fiscal_year || '-' || lpad(counter::text, greatest(6, length(counter::text)), '0');
    END IF;
    d := d || jsonb_strip_nulls(jsonb_build_object('kind', of_kind, 'status', CASE WHEN total = 0 THEN 'paid' ELSE 'open' END, 'number', of_number, 'seller', p.seller, 'customer', p.customer, 'bill_to', p.bill_to,
        'contract', p.contract, 'currency', p.currency, 'minor_units', p.minor_units, 'issued_on', p.issued_on, 'due_on', CASE WHEN of_kind <> 'credit_note' THEN p.due_on END,
        'credits', (SELECT x.number FROM billing.invoice x WHERE x.customer_id = of_customer_id AND x.invoice_id = of_invoice)));
    INSERT INTO billing.invoice (customer_id, invoice_id, pool_id, seller_id, bill_to_id, kind, key, state, number, currency, minor_units, period_starts_at, period_ends_at, issued_on, due_on,
        lines_total, total, terms_version, cut_at, input_sha256, document, created_at, credits)
    SELECT of_customer_id, id, of_pool_id, p.seller_id, p.bill_to_id, of_kind, of_key, d->>'status', of_number, p.currency, p.minor_units, min((l->>'from')::timestamptz), max((l->>'until')::timestamptz), p.issued_on, p.due_on,
        total, total, p.terms_version, clock_timestamp(), d->'inputs'->>'sha256', d, clock_timestamp(), of_invoice
    FROM jsonb_array_elements(d->'lines') l;
    INSERT INTO billing.invoice_line (customer_id, invoice_id, line_n, key, kind, charge_key, label, service_from, service_until, quantity, unit, exact, amount)
    SELECT of_customer_id, id, x.place, x.l->>'key', x.l->>'kind', x.l->>'charge', x.l->>'label', (x.l->>'from')::timestamptz, (x.l->>'until')::timestamptz, (x.l->>'quantity')::numeric, x.l->>'unit',
        (x.l->>'exact')::numeric, (x.l->>'amount')::numeric
    FROM jsonb_array_elements(d->'lines') WITH ORDINALITY x (l, place);
    IF NOT billing_internal.travelling() THEN
        INSERT INTO billing.invoice_number (number, seller_id, series, fiscal_year, counter, customer_id, invoice_id) VALUES (of_number, p.seller_id, p.series, p.fiscal_year, counter, of_customer_id, id);
    END IF;
    PERFORM billing_internal.audit('invoice_finalize', 'invoice', of_number, of_customer_id, NULL, jsonb_build_object('key', of_key, 'total', total, 'currency', p.currency, 'sha256', d->'inputs'->>'sha256'));
    RETURN of_number;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_document_issue(bigint, uuid, text, jsonb, uuid) IS
    'Issues the invoice of a purchase (credit_sale), or the credit note of a refund for that invoice: dated today in the bill_to''s zone, due after the contract''s net days (30 without one), with the next number of its series. Takes the lock of the series: the last one. A time travel gives a preview number. Returns the number.';

CREATE FUNCTION billing_internal.credit_sales_issue(of_customers bigint[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
BEGIN
    PERFORM billing_internal.credit_document_issue(p.customer_id, p.pool_id, 'credit_sale')
    -- Seller by seller: number series are locked in that order everywhere.
    FROM (SELECT o.customer_id, o.pool_id FROM billing.credit_pool o JOIN billing.customer c USING (customer_id) WHERE o.customer_id = ANY (of_customers) AND o.invoiced
        AND NOT EXISTS (SELECT FROM billing.invoice i WHERE i.customer_id = o.customer_id AND i.pool_id = o.pool_id AND i.kind = 'credit_sale') ORDER BY c.seller_id, o.customer_id, o.pool_id) p;
END
$$;
COMMENT ON FUNCTION billing_internal.credit_sales_issue(bigint[]) IS 'Issues the invoices of what was sold to some customers in this transaction. Whoever sells calls it last.';

CREATE FUNCTION billing_internal.credit_sale_void(of_customer_id bigint, of_invoice_id uuid, reason text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    i record;
    used text;
    blocks uuid[];
BEGIN
    PERFORM FROM billing.customer c WHERE c.customer_id = of_customer_id FOR NO KEY UPDATE;
    SELECT * INTO i FROM billing.invoice x WHERE x.customer_id = of_customer_id AND x.invoice_id = of_invoice_id;
    SELECT array_agg(b.grant_id) INTO blocks FROM (SELECT l.grant_id FROM billing.credit_block_balance l JOIN billing.credit_grant g USING (customer_id, grant_id)
        WHERE g.customer_id = of_customer_id AND g.pool_id = i.pool_id ORDER BY l.grant_id FOR UPDATE OF l) b;
    IF i.kind = 'credit_note' THEN
        PERFORM billing_internal.fail('ZB005', format('credit note %s is of credit that was refunded, and can''t be voided', i.number), 'Sell the credit again: SELECT billing.credit_purchase(…);');
    ELSIF i.state = 'void' OR (i.state = 'paid' AND i.total <> 0) THEN
        PERFORM billing_internal.fail('ZB005', format('invoice %s is %s and can''t be voided', i.number, i.state), CASE i.state WHEN 'paid' THEN 'Refund what is unused: SELECT billing.credit_refund(…);' ELSE 'It is void already.' END);
    ELSIF coalesce(trim(reason), '') = '' THEN
        PERFORM billing_internal.fail('ZB004', 'a void needs a reason', 'Say why: the number stays used for ever.');
    END IF;
    SELECT g.key INTO used FROM billing.credit_grant g LEFT JOIN billing_internal.credit_free(of_customer_id, blocks) f USING (grant_id)
    WHERE g.customer_id = of_customer_id AND g.grant_id = ANY (blocks) AND g.voided_at IS NULL AND (f.amount IS DISTINCT FROM g.amount OR g.expired_at IS NOT NULL) ORDER BY g.grant_id LIMIT 1;
    IF FOUND THEN
        PERFORM billing_internal.fail('ZB005', format('invoice %s can''t be voided: credit %s that it sold was used, refunded or has expired', i.number, used),
            format('A credit note is for what is unused: SELECT billing.credit_refund(%L, reason => ''…'');', used));
    END IF;
    PERFORM billing_internal.credit_take_back(of_customer_id, blocks, reason);
    UPDATE billing.invoice x SET state = 'void', voided_at = clock_timestamp(), void_reason = reason, reissue = false WHERE x.customer_id = of_customer_id AND x.invoice_id = of_invoice_id;
    PERFORM billing_internal.audit('invoice_void', 'invoice', i.number, of_customer_id, jsonb_build_object('state', i.state), jsonb_build_object('state', 'void', 'reissue', false), reason);
END
$$;
COMMENT ON FUNCTION billing_internal.credit_sale_void(bigint, uuid, text) IS
    'Voids the invoice of a purchase of credit, and with it the credit. Nothing is issued again: sell anew. Errors: ZB004 no reason, ZB005 some of it was used (nor is about to be), refunded or has expired; it is paid, void or a credit note.';
