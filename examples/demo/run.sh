#!/usr/bin/env bash
# Bills a real hour of LLM traffic for three customers and explains every cent; then lives through a year of one of them on a
# signed deal. Runs in a fresh test database
# (PGDATABASE); what it prints is compared with expected.out. Figures of this machine go to stderr.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export PGOPTIONS='-c client_min_messages=warning' PGTZ=UTC
sql() { psql -XqAt -v ON_ERROR_STOP=1 "$@"; }
table() { psql -Xq -v ON_ERROR_STOP=1 -P footer=off "$@"; }
title() { printf '\n%s\n%s\n' "$1" "$(printf '%*s' "${#1}" '' | tr ' ' '-')"; }

echo 'pg_billing: one hour of real LLM traffic (28,185 requests of 16 November 2023), three customers, billed'
echo 'and explained inside one PostgreSQL database.'

title '1. Customers and what they agreed on'
sql -f setup.sql
table -c "SELECT c.customer, c.customer_name AS name, k.key AS contract, p.key AS plan,
    coalesce(string_agg(format('%s at %s', o.match->>'model', o.terms->>'unit_price'), ', ' ORDER BY o.match) FILTER (WHERE o.match IS NOT NULL), 'list prices') AS deal
  FROM billing.dim_customer c JOIN billing.contract k USING (customer_id) JOIN billing.plan p USING (plan_id)
  LEFT JOIN billing.price_override o USING (customer_id, contract_id)
  GROUP BY c.customer_id, c.customer, c.customer_name, k.key, p.key ORDER BY c.customer_id"
echo 'List prices per 1,000 tokens: gpt-4 0.03, gpt-3.5 0.002. Requests: the first 1,000 free, up to 5,000 at'
echo '0.001, then 0.0005, counted over all models.'

title '2. The hour is ingested'
timed=$(sql <<'SQL'
\i load.sql
SELECT clock_timestamp() AS started \gset
BEGIN;
SELECT accepted, duplicate, conflicting, rejected FROM billing.ingest_from('batch') \gset
COMMIT;
SELECT :accepted, :duplicate, :conflicting, :rejected, (:accepted / extract(epoch FROM clock_timestamp() - :'started'))::int;
SQL
)
IFS='|' read -r accepted duplicate conflicting rejected speed <<<"$timed"
echo "accepted $accepted, duplicate $duplicate, conflicting $conflicting, rejected $rejected"
echo "ingested $speed events per second (one session, measured, priced by two meters, durable)" >&2
table -c "SELECT u.customer, u.meter, u.dimensions->>'model' AS model, trim_scale(u.quantity) AS quantity, u.events FROM billing.usage_daily u ORDER BY u.customer_id, u.meter DESC, model"
sql -c "SELECT 'All together ' || to_char(sum(quantity), 'FM999,999,999') || ' tokens.' FROM billing.usage_daily WHERE meter = 'tokens'"

title '3. The bill run issues November'
sql -c 'CALL billing.bill_run()'
for number in $(sql -c 'SELECT number FROM billing.invoice ORDER BY number'); do
  sql -v number="$number" <<'SQL'
SELECT format(E'%s\n  %s\n  from %s, to %s\n  issued %s, due %s, contract %s\n', i.number, repeat('=', 96), s.name, b.name, i.issued_on, i.due_on, k.key)
FROM billing.invoice i JOIN billing.seller s USING (seller_id) JOIN billing.bill_to b USING (customer_id, bill_to_id) JOIN billing.contract k USING (customer_id, contract_id)
WHERE i.number = :'number';
SELECT format('  %s %s %s   %s %s', rpad(l.label, 22), lpad(to_char(l.quantity, 'FM999,999,999'), 12), rpad(l.unit || 's', 9), rpad(l.price, 34), lpad(to_char(l.amount, 'FM999,990.00'), 10))
FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) WHERE i.number = :'number' ORDER BY l.line_n;
SELECT format('  %s', repeat('-', 96)) || E'\n' || format('  %s %s %s', rpad('due', 81), i.currency, lpad(to_char(i.total, 'FM999,990.00'), 10)) || E'\n' FROM billing.invoice i WHERE i.number = :'number';
SQL
done

title '4. One line, down to its events'
acme=$(sql -c "SELECT i.number FROM billing.invoice i JOIN billing.customer c USING (customer_id) WHERE c.key = 'acme'")
sql -c "SELECT billing.invoice_explain('$acme')"
echo
echo 'Ten of the 6,455 events behind the gpt-4 line:'
table -c "SELECT to_char(occurred_at, 'HH24:MI:SS.US') AS at, event_id, value AS tokens, properties->>'input_tokens' AS input, properties->>'output_tokens' AS output
  FROM billing.invoice_line_events('$acme', 'tokens/2023-11-01/model=gpt-4', 10)"
sql -c "SELECT format('All %s of them sum to %s tokens, × 0.02 / 1,000 = %s, rounded once: %s.', to_char(count(*), 'FM9,999'), to_char(sum(e.value), 'FM99,999,999'),
    trim_scale(billing.rate('{\"model\":\"per_unit\",\"unit_price\":\"0.02\",\"per\":1000}', sum(e.value))), round(billing.rate('{\"model\":\"per_unit\",\"unit_price\":\"0.02\",\"per\":1000}', sum(e.value)), 2))
  FROM billing.invoice_line_events('$acme', 'tokens/2023-11-01/model=gpt-4') e"
echo
echo 'The requests, tier by tier:'
table -c "SELECT what, quantity, unit_price, amount FROM billing.rate_explain((SELECT pricing FROM billing.fact_invoice_line f JOIN billing.invoice_line l USING (customer_id, line_n)
    WHERE f.invoice = '$acme' AND l.key = 'requests/2023-11-01' AND f.line_key = l.key), 9395)"

title '5. The same files are sent again'
sql <<'SQL'
\i load.sql
SELECT format('accepted %s, duplicate %s, conflicting %s, rejected %s', accepted, duplicate, conflicting, rejected) FROM billing.ingest_from('batch');
SELECT 'Still ' || to_char(sum(quantity), 'FM999,999,999') || ' tokens.' FROM billing.usage_daily WHERE meter = 'tokens';
SQL

title '6. Every invoice is computed again from its events'
table -c "SELECT i.number, r.line_key, r.billed, r.recomputed, r.difference, r.same_bytes FROM billing.invoice i, billing.invoice_recompute(i.number) r ORDER BY i.number, r.line_key"

title '7. Spend by model and day'
table -c "SELECT c.key AS customer, s.starts_at::date AS day, coalesce(s.dimensions->>'model', '') AS model, s.dimensions->>'charge' AS charge, s.amount, s.currency, s.state
  FROM billing.customer c, billing.spend(c.key, '2023-11-01Z', '2023-12-01Z', 'day', '{model,charge}') s ORDER BY c.customer_id, day, charge DESC, model"

title '8. A meter was wrong for two weeks'
echo 'Since 15 November prompts are cut at 4,000 tokens, but the meter went on counting what was sent. The meter is'
echo 'mended for events since that day; usage is measured again in the same call:'
table -c "SELECT action, key, before->>'value' AS counted, after->>'value' AS counts, after->>'version' AS version FROM billing.catalog_apply('{\"meters\": [
  {\"key\": \"tokens\", \"event_type\": \"llm.request\", \"aggregation\": \"sum\", \"value\": \"min(input_tokens, 4000) + output_tokens\", \"dimensions\": [\"model\"], \"unit\": \"token\",
   \"valid_from\": \"2023-11-15T00:00:00Z\"}]}')"
table -c "SELECT c.key AS customer, u.dimensions->>'model' AS model, trim_scale(u.quantity) AS tokens, trim_scale(l.quantity) AS billed, trim_scale(u.quantity - l.quantity) AS difference
  FROM billing.customer c CROSS JOIN LATERAL billing.usage(c.key, 'tokens', '2023-11-01Z', '2023-12-01Z', group_by => '{model}') u
  JOIN billing.fact_invoice_line l ON l.customer_id = c.customer_id AND l.line_key = 'tokens/2023-11-01/model=' || (u.dimensions->>'model') ORDER BY c.customer_id, model"
echo "What that is in money, line by line, before anything is done (Acme's invoice):"
table -c "SELECT line_key, billed, corrected, difference, action FROM billing.invoice_correct('$acme')"
echo 'Acme gets a credit note at once; the others get theirs with their next bill.'
table -c "SELECT line_key, difference, action, document FROM billing.invoice_correct('$acme', 'credit_note', 'the meter counted prompts beyond 4,000 tokens', dry_run => false) WHERE action <> 'none'"
sql -c "SELECT billing.invoice_explain('CN-2023-000001')"
sql -c "SELECT billing.test_clock_set('2024-01-01T00:00:00Z')" >/dev/null
sql -c 'CALL billing.bill_run()'
table -c "SELECT l.invoice, c.key AS customer, l.kind, l.line_key, trim_scale(l.quantity) AS quantity, l.amount FROM billing.fact_invoice_line l JOIN billing.customer c USING (customer_id)
  WHERE l.kind = 'difference' ORDER BY l.invoice, l.line_key"
echo 'Every line still traces to its events: those of the credit note, as they count now and counted then.'
table -c "SELECT to_char(occurred_at, 'HH24:MI:SS.US') AS at, event_id, properties->>'input_tokens' AS input, properties->>'output_tokens' AS output, change, value AS tokens
  FROM billing.invoice_line_events('CN-2023-000001', 'tokens/2023-11-01/model=gpt-4/difference') ORDER BY occurred_at, event_id, change LIMIT 4"
echo 'And every document, old and new, computes again to the same bytes:'
table -c "SELECT i.number, i.kind, i.total, bool_and(r.same_bytes) AS same_bytes FROM billing.invoice i, billing.invoice_recompute(i.number) r GROUP BY i.invoice_id, i.number, i.kind, i.total ORDER BY i.number"

title '9. Two years later Acme signs for a year'
cat <<'TEXT'
100,000 committed and invoiced in four parts, a bonus of 20 %: 120,000 of credit until the year ends. Half of list price,
also for what goes beyond. Net 45, periods of New York. It renews by itself unless notice is given 60 days before. The old
contract ends with 2025. What will be billed without any usage, before anyone signs:
TEXT
begin=$SECONDS
sql -c "SELECT billing.test_clock_set('2025-12-15T15:00:00Z')" >/dev/null
sql -c 'CALL billing.bill_run()' # two years in which nobody used anything
table -v deal="$(<deal.json)" <<'SQL'
SELECT count(*) AS changes FROM billing.catalog_apply('{"plans": [{"key": "enterprise", "name": "Enterprise", "currency": "USD", "price_book": "list", "charges": [{"key": "tokens", "product": "ai-api", "meter": "tokens", "price": "tokens"}]}]}') \gset
SELECT billing.contract_cancel('acme-1', '2026-01-01', 'a better deal') AS version \gset
SELECT boundary, issued_on, due_on, document#>>'{totals,due}' AS due FROM billing.contract_preview(:'deal');
SELECT billing.contract_create(:'deal') AS c, billing.contract_activate('acme-2026', '2025-12-15T15:00:00Z', 'https://acme.example/order-form.pdf', repeat('a', 64)) AS a \gset
SELECT key, state, starts_on, ends_on, billed_every, net_days FROM billing.contract WHERE key LIKE 'acme-%' ORDER BY key;
SQL

title '10. Three quarters go by: usage every day, a round of the jobs at each boundary'
table -f year.sql

title '11. Will it renew?'
sql -c "SELECT billing.test_clock_set('2026-11-01T14:00:00Z')" >/dev/null
table -c "SELECT contract, ends_on, notice_deadline, auto, renews_on, new_term, uplift FROM billing.renewals_due('90 days')"
echo 'If nothing happens, looked at on the real data, in a transaction that can only be rolled back:'
table <<'SQL'
SELECT billing.policy_set('renewal_index', '8.1') \gset
BEGIN;
SELECT at, job, state, did, issues FROM billing.time_travel('2027-01-02Z') WHERE did > 0;
SELECT i.number, c.key AS customer, i.issued_on, i.document#>>'{totals,due}' AS due FROM billing.invoice i JOIN billing.customer c USING (customer_id) WHERE i.number LIKE 'PREVIEW-%' ORDER BY i.issued_on;
ROLLBACK;
SQL
echo 'Acme gives notice a day before the deadline, so the contract ends with its year.'
table -c "SELECT billing.contract_notice('acme-2026', reason => 'going to tender') AS version"

title '12. The last quarter: the credit ends, the rest is owed'
table <<'SQL'
SELECT billing.test_clock_set('2026-12-31T23:59:59-05:00') AS clock \gset
\i use.sql
SELECT pg_temp.use('2026-10-01', 2400000000, 5500000000) AS events \gset
SELECT trim_scale(posted) AS posted, trim_scale(pending) AS pending, trim_scale(available) AS available FROM billing.credit_balance('acme');
SELECT billing.test_clock_set('2027-01-01T00:00:00-05:00') AS clock \gset
SELECT job, state, did, issues FROM billing.tick() WHERE state <> 'idle' AND job <> 'audit_seal';
SELECT i.number, i.issued_on, i.document#>>'{totals,lines}' AS lines, i.document#>>'{totals,credits}' AS credits, i.document#>>'{totals,due}' AS due, i.due_on
FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'acme-2026' ORDER BY i.issued_on;
SELECT sum((i.document#>>'{totals,due}')::numeric) AS billed, sum((i.document#>>'{totals,due}')::numeric) = 107500 AS as_worked_by_hand FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'acme-2026';
SQL
sql -c "SELECT t FROM billing.invoice_explain((SELECT i.number FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) WHERE k.key = 'acme-2026' ORDER BY i.issued_on DESC LIMIT 1)) t WHERE t !~ ' bucket'"
table -c "SELECT key, granted, trim_scale(burnt) AS burnt, trim_scale(expired) AS expired, trim_scale(posted) AS posted FROM billing.credit_blocks('acme')"
echo "Acme's year took $((SECONDS - begin)) s" >&2

title '13. What always holds, checked'
sql -c 'CALL billing.audit_seal()'
table -c "SELECT check_name, checked, failed FROM billing.verify('full')"
