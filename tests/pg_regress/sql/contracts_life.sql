-- The life of contracts: trials, ramps, one-off fees, pauses, cancellations, notice and renewal, what was known when, and
-- how bills follow. Every step is a version; nothing is edited.
\set ECHO none
\i tests/pg_regress/helpers.sql
\set ECHO all
SELECT billing.test_clock_set('2026-01-01T00:00:00Z') AS clock \gset
SELECT count(*) FROM billing.catalog_apply('{"products":[{"key":"p"},{"key":"q"}], "meters":[{"key":"calls","event_type":"call","aggregation":"sum","value":"n","dimensions":["model"],"unit":"call"}],
  "plans":[{"key":"base","name":"Base","currency":"USD","charges":[{"key":"calls","product":"q","meter":"calls","pricing":{"model":"per_unit","unit_price":"0.10"}}],
    "fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"310"}}]}]}');
CREATE FUNCTION pg_temp.deal(key text, starts_on date, extra jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT billing.customer_upsert(jsonb_build_object('key', key, 'bill_tos', '[{"key":"inc","name":"Inc"},{"key":"gmbh","name":"GmbH"}]'::jsonb));
    SELECT billing.contract_create(jsonb_build_object('key', key, 'customer', key, 'starts_on', starts_on) || extra);
    SELECT billing.contract_activate(key)
$$;
CREATE FUNCTION pg_temp.use(customer text, id text, n numeric, at timestamptz, model text DEFAULT 'a') RETURNS text LANGUAGE sql AS $$
    SELECT billing.ingest_event(customer, 'call', id, at, jsonb_build_object('n', n, 'model', model), NULL)
$$;
CREATE FUNCTION pg_temp.billed(contract text) RETURNS TABLE (n int, bill_to text, kind text, key text, service_from date, service_until date, quantity numeric, amount numeric) LANGUAGE sql AS $$
    SELECT i.n, i.document->>'bill_to', l.kind, l.key, (l.service_from AT TIME ZONE 'UTC')::date, (l.service_until AT TIME ZONE 'UTC')::date, trim_scale(l.quantity), l.amount
    FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id)
    WHERE k.key = billed.contract AND i.state <> 'void' ORDER BY i.n, i.created_at, i.number, l.line_n
$$;
CREATE TEMP VIEW state AS SELECT k.key, k.state, k.version AS v, k.ends_on, k.next_n, k.next_bill_at, k.cancelled_at, (SELECT string_agg(p.n || ' ' || to_char(p.starts_on, 'MM-DD') || '–' || to_char(p.ends_on, 'MM-DD') || ' ' || p.state, ', ' ORDER BY p.n) FROM billing.billing_period p WHERE p.contract_id = k.contract_id) AS periods FROM billing.contract k;

-- A trial: metered and free, fees begin at its end; in anniversary alignment that is the anchor
SELECT pg_temp.deal('trial', '2026-01-01', '{"plan":"base","trial":{"duration":"14 days"}}'), pg_temp.deal('trial-anniversary', '2026-01-01', '{"plan":"base","trial":{"until":"2026-01-15"},"billing":{"alignment":"anniversary"}}');
SELECT pg_temp.use('trial', 't1', 100, '2026-01-05Z'), pg_temp.use('trial', 't2', 50, '2026-01-20Z'), pg_temp.use('trial-anniversary', 't1', 100, '2026-01-05Z'), pg_temp.use('trial-anniversary', 't2', 50, '2026-01-20Z') FROM (SELECT billing.test_clock_set('2026-02-16T12:00:00Z') OFFSET 0) c;
-- A fee billed once, at the first boundary on or after its day; one for a year among months; a ramp; a step-up
SELECT pg_temp.deal('once', '2026-01-01', '{"fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"10"}},{"key":"setup","product":"p","pricing":{"model":"flat","amount":"500"},"once":true},
  {"key":"training","product":"p","pricing":{"model":"flat","amount":"99"},"once":true,"from":"2026-01-20"},{"key":"support","product":"p","pricing":{"model":"flat","amount":"1200"},"every":"12 months"}]}');
SELECT pg_temp.deal('ramp', '2026-01-01', '{"term":"36 months","billing":{"interval":"12 months"},"fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"100000"},"step_up":{"percent":"7","every":"12 months"}}]}');
SELECT pg_temp.deal('ramp-456', '2026-02-01', '{"term":"36 months","billing":{"interval":"12 months","alignment":"anniversary"},"fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"40000"},
  "ramp":[{"after":"12 months","pricing":{"model":"flat","amount":"50000"}},{"after":"24 months","pricing":{"model":"flat","amount":"60000"}}]}]}');
CALL billing.bill_run();
SELECT * FROM pg_temp.billed('trial');
SELECT * FROM pg_temp.billed('trial-anniversary');
SELECT * FROM pg_temp.billed('once');
SELECT d.boundary, d.issued_on, d.due_on, d.document->'totals'->>'total' AS total FROM billing.contract_preview('{"key":"x","customer":"ramp","starts_on":"2026-01-01","term":"36 months","billing":{"interval":"12 months","net_days":45},
  "fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"100000"},"step_up":{"percent":"7","every":"12 months"}}]}', 48) d;
SELECT count(*) AS left_by_previews FROM billing.contract WHERE key LIKE 'preview%';

-- Pause: no fees, usage goes on; it is given back on the next bill, and the term may be extended
SELECT pg_temp.deal('pause', '2026-01-01', '{"plan":"base","term":"12 months"}');
CALL billing.bill_run();
SELECT billing.contract_pause('pause', '2026-02-08T15:00:00Z', 'holidays') AS version;
SELECT pg_temp.fails($$SELECT billing.contract_pause('pause')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_resume('trial')$$);
SELECT * FROM state WHERE key = 'pause';
SELECT pg_temp.use('pause', 'p1', 7, '2026-02-10Z');
SELECT billing.test_clock_set('2026-03-22T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT billing.contract_resume('pause', extend_term => true) AS version;
SELECT * FROM state WHERE key = 'pause';
SELECT billing.test_clock_set('2026-04-01T12:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM pg_temp.billed('pause') WHERE n > 0;
-- What is to go on some day goes on sooner, and only then: 10 and 18 days of April are served, of 30.
SELECT pg_temp.deal('sooner', '2026-04-01', '{"plan":"base"}');
SELECT billing.contract_pause('sooner', '2026-04-11Z') + billing.contract_resume('sooner', '2026-04-21Z', true) AS version;
SELECT billing.contract_resume('sooner', '2026-04-13Z') AS version;
SELECT lower(valid_during) AS paused_from, upper(valid_during) AS until FROM billing.contract_term t JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'sooner' AND t.kind = 'pause' AND until_version IS NULL;
SELECT pg_temp.fails($$SELECT billing.contract_resume('sooner', '2026-04-13Z')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_resume('sooner', '2026-04-20Z')$$);
SELECT l->>'key' AS line, l->>'exact' AS exact FROM jsonb_array_elements(billing.invoice_preview('sooner')->'lines') l;

-- Cancel: at the period's end, at once, in the past, before it starts, a draft; what is left is billed to the day
SELECT billing.test_clock_set('2026-05-01T00:00:00Z') AS clock \gset
SELECT pg_temp.deal(k, '2026-05-01', '{"plan":"base"}') FROM unnest('{c-end,c-now,c-past,c-month,c-twice,c-included}'::text[]) k;
SELECT pg_temp.deal('c-future', '2026-09-01', '{"plan":"base"}');
SELECT billing.customer_upsert('{"key":"c-draft"}'), billing.contract_create('{"key":"c-draft","customer":"c-draft","starts_on":"2026-09-01","plan":"base"}');
SELECT billing.policy_set('termination_day', 'included', 'contract:c-included');
CALL billing.bill_run();
SELECT pg_temp.use(k, k, 1000, '2026-05-05Z') FROM unnest('{c-end,c-now,c-past,c-month,c-twice,c-included}'::text[]) k, (SELECT billing.test_clock_set('2026-05-16T18:00:00Z') OFFSET 0) c;
SELECT pg_temp.use(k, k || '2', 10, '2026-05-16 10:00Z') FROM unnest('{c-end,c-now,c-included}'::text[]) k;
SELECT billing.contract_cancel('c-end') AS period_end, billing.contract_cancel('c-now', 'now') AS now, billing.contract_cancel('c-past', '2026-05-04') AS past, billing.contract_cancel('c-included', 'now', 'they moved') AS included,
  billing.contract_cancel('c-future', 'now') AS future, billing.contract_cancel('c-draft') AS draft, billing.contract_cancel('c-twice', '2026-05-20') AS twice, billing.contract_cancel('c-twice', '2026-05-18') AS again;
SELECT pg_temp.fails($$SELECT billing.contract_cancel('c-twice', '2026-05-19')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_cancel('c-draft')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_cancel('c-month', 'tomorrow')$$)
UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_amend('c-now', '{"quantities":{"platform":"2"}}')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_cancel('c-month', 'term_end')$$);
SELECT * FROM state WHERE key LIKE 'c-%' ORDER BY key;
CALL billing.bill_run();
SELECT billing.test_clock_set('2026-06-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
-- Backdated to before a boundary that is billed: nothing is left to bill but what is given back
SELECT billing.contract_cancel('c-month', '2026-05-11') AS version;
CALL billing.bill_run();
SELECT c.contract, b.* FROM unnest('{c-end,c-included,c-month,c-now,c-past,c-twice,c-future}'::text[]) c (contract) CROSS JOIN LATERAL pg_temp.billed(c.contract) b;
SELECT * FROM state WHERE key LIKE 'c-%' ORDER BY key;
SELECT customer, meter, day, quantity, reason FROM billing.unpriced_usage ORDER BY 1, 3;

-- Amendments in time: one recorded later with an earlier day applies under the later ones
SELECT pg_temp.deal('fold', '2026-06-01', '{"plan":"base","purchase_order":"PO-1","fees":[{"key":"platform","product":"p","pricing":{"model":"per_unit","unit_price":"310"}}]}');
CALL billing.bill_run();
SELECT billing.contract_amend('fold', '{"prices":{"platform":{"model":"per_unit","unit_price":"620"}},"purchase_order":"PO-2"}', '2026-06-21') AS later;
SELECT billing.contract_amend('fold', '{"quantities":{"platform":"2"},"bill_to":"gmbh"}', '2026-06-11', 'signed late') AS earlier;
SELECT item, kind, from_at, until_at, quantity, terms->'pricing'->>'unit_price' AS unit_price FROM billing.contract_item WHERE contract = 'fold' AND kind IN ('fee', 'purchase_order', 'bill_to') ORDER BY kind, from_at;
SELECT version, kind, effective_at, change, reason FROM billing.contract_change WHERE contract = 'fold' ORDER BY version;
SELECT at::date, billing.contract_as_of('fold', at)->'fees' AS fees, billing.contract_as_of('fold', at)->>'purchase_order' AS po FROM unnest('{2026-06-05Z,2026-06-15Z,2026-06-25Z}'::timestamptz[]) at;
SELECT billing.test_clock_set('2026-07-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM pg_temp.billed('fold');
SELECT i.n, i.document->>'purchase_order' AS po FROM billing.invoice i JOIN billing.contract k USING (contract_id) WHERE k.key = 'fold' ORDER BY 1;
-- What would bill otherwise is another contract
SELECT pg_temp.fails($$SELECT billing.contract_amend('fold', '{"billing":{"interval":"3 months"}}')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_amend('fold', '{"quantities":{"nothing":"1"}}')$$)
UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_amend('fold', '{"bill_to":"nobody"}')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_amend('fold', '{"charges":[{"key":"more","product":"q","meter":"calls","pricing":{"model":"per_unit","unit_price":"1"}}]}')$$)
UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_amend('fold', '{"fees":[{"key":"more","product":"none","pricing":{"model":"flat","amount":"1"}}]}')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_amend('fold', NULL)$$)
UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_change_plan('fold', 'nothing')$$);

-- At a glance; and what a contract says now makes the same deal again
SELECT jsonb_pretty(billing.contract_summary('fold') - 'billed' - 'signed_at') AS summary;
SELECT billing.contract_create(billing.contract_document('fold') || '{"key":"copy"}');
SELECT billing.contract_document('fold') - 'key' = billing.contract_document('copy') - 'key' AS same;
-- An amendment for later: what is paid in advance is given back when its day has come, not before
SELECT pg_temp.deal('ahead', '2026-07-01', '{"term":"12 months","fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"1200"},"every":"12 months"}]}');
CALL billing.bill_run();
SELECT billing.contract_amend('ahead', '{"prices":{"platform":{"model":"flat","amount":"2400"}}}', '2026-10-01') AS version;
SELECT billing.test_clock_set('2026-09-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT count(*) AS so_far FROM pg_temp.billed('ahead');
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
SELECT billing.test_clock_set('2026-10-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM pg_temp.billed('ahead');

-- Usage under changed terms: each has the quantity of its time, tiers begin anew, minimums are for their part
SELECT pg_temp.deal('usage', '2026-10-01', '{"charges":[{"key":"calls","product":"q","meter":"calls","pricing":{"model":"graduated","tiers":[{"up_to":"100","unit_price":"1"},{"unit_price":"0.5"}],"minimum":"310"}}]}');
SELECT pg_temp.use('usage', 'u1', 150, '2026-10-05Z'), pg_temp.use('usage', 'u2', 150, '2026-10-25Z') FROM (SELECT billing.test_clock_set('2026-10-26T00:00:00Z') OFFSET 0) c;
SELECT billing.contract_amend('usage', '{"charges":[{"key":"calls","product":"q","meter":"calls","pricing":{"model":"per_unit","unit_price":"2"}}]}', '2026-10-21') AS version;
SELECT billing.test_clock_set('2026-11-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM pg_temp.billed('usage');
-- and what was billed is billed anew by them, where they are backdated
SELECT billing.contract_amend('usage', '{"charges":[{"key":"calls","product":"q","meter":"calls","pricing":{"model":"per_unit","unit_price":"3"}}]}', '2026-10-21') AS version;
SELECT l.* FROM pg_temp.lines(billing.invoice_preview('usage')) l;
SELECT billing.test_clock_set('2026-12-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM pg_temp.billed('usage') WHERE n > 1;

-- Renewal: 60 days' notice, the index kept between 3 and 7 percent
SELECT billing.test_clock_set('2025-02-01T00:00:00Z') AS clock \gset
SELECT pg_temp.deal(k, '2025-02-01', '{"term":"12 months","billing":{"interval":"12 months","alignment":"anniversary"},"fees":[{"key":"platform","product":"p","pricing":{"model":"flat","amount":"50000"}}],
  "renewal":{"auto":true,"notice_days":60,"term":"12 months","uplift":{"index":"cpi","min":"3","max":"7"}}}') FROM unnest('{r-auto,r-notice,r-late,r-hand,r-cancel}'::text[]) k;
CALL billing.bill_run();
SELECT * FROM billing.renewals_due('365 days') WHERE contract LIKE 'r-%';
SELECT billing.test_clock_set('2025-12-03T10:00:00Z') AS clock \gset
SELECT billing.contract_notice('r-notice', reason => 'too dear') AS version;
SELECT pg_temp.fails($$SELECT billing.contract_notice('r-notice')$$) UNION ALL SELECT pg_temp.fails($$SELECT billing.contract_notice('fold', '2026-07-01')$$);
CALL billing.renewal();
SELECT billing.test_clock_set('2025-12-04T10:00:00Z') AS clock \gset
SELECT billing.contract_notice('r-late', reason => 'a day late') AS version, billing.contract_cancel('r-cancel', 'term_end') AS cancelled, billing.contract_renew('r-hand', 2) AS by_hand;
CALL billing.renewal();
SELECT i.key, i.sqlstate, i.message FROM billing.job_issue i JOIN billing.job_run r USING (job_run_id) WHERE r.job = 'renewal' ORDER BY 1;
SELECT billing.policy_set('renewal_index', '8.1');
CALL billing.renewal();
SELECT contract, ends_on, notice_deadline, notice_given_at::date AS notice, auto, renews_on, new_term, uplift FROM billing.renewals_due('400 days') WHERE contract LIKE 'r-%' ORDER BY contract;
SELECT billing.test_clock_set('2026-02-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT c.contract, b.n, b.key, b.amount FROM unnest('{r-auto,r-notice,r-late,r-hand,r-cancel}'::text[]) c (contract) CROSS JOIN LATERAL pg_temp.billed(c.contract) b;
SELECT * FROM state WHERE key LIKE 'r-%' ORDER BY key;
-- Renewed after it has ended: it goes on, and what was due is billed
SELECT billing.contract_renew('r-notice', 5, 'they came back') AS version;
SELECT * FROM state WHERE key = 'r-notice';
CALL billing.bill_run();
SELECT b.* FROM pg_temp.billed('r-notice') b;

-- Every document comes out again as it is, by the version it names; and nothing is left unbilled
SELECT billing.test_clock_set('2026-12-02T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT count(*) AS documents, count(*) FILTER (WHERE NOT r.same) AS differ FROM billing.invoice i CROSS JOIN LATERAL (SELECT bool_and(x.same_bytes) AS same FROM billing.invoice_recompute(i.number) x) r WHERE i.state <> 'draft';
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;
-- Another legal entity is billed from its day on: usage that names none is its, on the bill, in its events and in spend()
SELECT pg_temp.deal('moved', '2026-12-01', '{"plan":"base"}');
SELECT pg_temp.use('moved', 'm1', 100, '2026-12-01 10:00Z');
SELECT billing.contract_amend('moved', '{"bill_to":"gmbh"}', '2026-12-02') AS version;
SELECT billing.test_clock_set('2027-01-01T00:00:00Z') AS clock \gset
CALL billing.bill_run();
SELECT * FROM pg_temp.billed('moved');
SELECT e.event_id, e.value FROM billing.invoice i, billing.invoice_line_events(i.number, 'calls/2026-12-01') e WHERE i.document->>'contract' = 'moved' AND i.n = 1;
SELECT starts_at, dimensions, amount FROM billing.spend('moved', '2026-12-01Z', '2027-01-01Z', 'day', '{charge,bill_to}') WHERE state = 'billed' ORDER BY 1, 2;
SELECT check_name, failed, example FROM billing.verify('full') WHERE failed > 0;

-- What can't be billed is told by its preview, too.
SELECT pg_temp.fails($$SELECT * FROM billing.contract_preview('{"customer": "nobody", "starts_on": "2026-01-01", "plan": "base"}')$$) UNION ALL
SELECT pg_temp.fails($$SELECT * FROM billing.contract_preview('{"customer": "fold", "starts_on": "2026-01-01", "plan": "base", "term": "0 months"}')$$) UNION ALL
SELECT pg_temp.fails($$SELECT * FROM billing.contract_preview('{"customer": "fold", "starts_on": "2026-01-01", "plan": "base", "fees": [{"key": "x", "product": "nope", "pricing": {"model": "flat", "amount": "1"}}]}')$$);
-- So is what a commitment or a credit is for, where nothing has that name: it would never count.
SELECT f FROM unnest(ARRAY['"meters": ["nope"]', '"products": ["nope"]', '"meters": ["calls"], "dimensions": {"nope": ["x"]}', '"bill_tos": ["nope"]']) s,
  pg_temp.fails(format($$SELECT billing.contract_create('{"key": "refused", "customer": "fold", "starts_on": "2026-01-01", "plan": "base", "term": "12 months", "commitments": [{"key": "c", "kind": "postpaid", "amount": "100", "scope": {%s}}]}')$$, s)) f;
SELECT pg_temp.fails($$SELECT billing.contract_create('{"key": "refused", "customer": "fold", "starts_on": "2026-01-01", "plan": "base", "term": "12 months", "credits": [{"key": "c", "category": "pilot", "carry_from": {"contract": "nope"}}]}')$$);
SELECT pg_temp.deal('scoped', '2026-01-01', '{"plan": "base"}');
SELECT pg_temp.fails($$SELECT billing.contract_amend('scoped', '{"credits": [{"key": "c", "category": "pilot", "amount": "1", "expires": "never", "scope": {"meters": ["nope"]}}]}')$$);
