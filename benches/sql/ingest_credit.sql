-- Every customer gets a contract whose usage draws from a block of credit, and draws once itself: from then on the totals
-- of the open period are kept, which every fold has to add to.
\set ON_ERROR_STOP on
SELECT count(*) FROM billing.catalog_apply('{"plans": [{"key": "prepaid", "currency": "USD", "charges": [{"key": "tokens", "product": "ai-api", "meter": "tokens", "pricing": {"model": "per_unit", "unit_price": "0.000001"}}]}]}');
SELECT count(billing.subscribe(c.key, 'prepaid', '2026-06-01')) FROM billing.customer c;
SELECT count(billing.credit_grant_create(c.key, jsonb_build_object('key', c.key, 'amount', '1000000'))) FROM billing.customer c;
SELECT count(*) FROM billing.customer c CROSS JOIN LATERAL billing.draw_down(c.key, 1, 'first') d;
CALL billing.fold();
