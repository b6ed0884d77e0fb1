-- What the goldens of credit on bills share: a plan at 1 a token and one with tiers, what documents and blocks came to, and
-- what must be right after each of them. They set the clock first.
SELECT count(*) AS catalogue FROM billing.catalog_apply('{"products":[{"key":"ai-api"}],"meters":[{"key":"tokens","event_type":"llm","aggregation":"sum","value":"n","unit":"token"}],
  "plans":[{"key":"one","currency":"USD","charges":[{"key":"tokens","product":"ai-api","meter":"tokens","pricing":{"model":"per_unit","unit_price":"1"}}]},
    {"key":"tiers","currency":"USD","charges":[{"key":"tokens","product":"ai-api","meter":"tokens","pricing":{"model":"graduated","tiers":[{"up_to":"9","unit_price":"1"},{"unit_price":"0.5"}]}}]}]}') \gset
CREATE FUNCTION pg_temp.used(customer text, id text, at timestamptz, n numeric) RETURNS text LANGUAGE sql AS $$ SELECT billing.ingest_event(customer, 'llm', id, at, jsonb_build_object('n', n)) $$;
CREATE TEMP VIEW documents AS SELECT k.key AS contract, i.key, i.kind, i.state, i.total, i.credits_applied AS credits, i.document->'inputs'->'credits'->>'held' AS held
  FROM billing.invoice i JOIN billing.contract k USING (customer_id, contract_id) ORDER BY k.key, i.cut_at, i.key;
-- By contract, boundary, legal entity and line: what its documents that stand come to, and what it draws.
CREATE TEMP VIEW billed AS SELECT k.key AS contract, coalesce(l.of_n, i.n) AS n, b.key AS bill_to, coalesce(l.of_key, l.key) AS line, sum(l.amount) AS amount, trim_scale(sum(l.quantity)) AS quantity
  FROM billing.invoice i JOIN billing.invoice_line l USING (customer_id, invoice_id) JOIN billing.contract k USING (customer_id, contract_id) JOIN billing.bill_to b ON b.customer_id = i.customer_id AND b.bill_to_id = i.bill_to_id
  WHERE i.state <> 'void' GROUP BY 1, 2, 3, 4 HAVING sum(l.amount) <> 0 OR sum(l.quantity) <> 0;
CREATE TEMP VIEW drawn AS SELECT k.key AS contract, a.n, a.bill_to, a.line_key AS line, coalesce(o.key, g.key) AS block, trim_scale(sum(a.amount)) AS amount
  FROM billing.credit_allocation a JOIN billing.contract k USING (customer_id, contract_id) JOIN billing.credit_grant g ON g.customer_id = a.customer_id AND g.grant_id = a.grant_id
  LEFT JOIN billing.credit_grant o ON o.customer_id = a.customer_id AND o.grant_id = a.absorbed_from GROUP BY 1, 2, 3, 4, 5 HAVING sum(a.amount) <> 0;
-- Blocks that don't hold what was granted less what was drawn.
CREATE TEMP VIEW odd_blocks AS SELECT c.key AS customer, g.key FROM billing.credit_block_balance b JOIN billing.credit_grant g USING (customer_id, grant_id) JOIN billing.customer c USING (customer_id)
  WHERE b.posted <> g.amount - (SELECT coalesce(sum(a.amount), 0) FROM billing.credit_allocation a WHERE a.customer_id = g.customer_id AND a.grant_id = g.grant_id)
      - (SELECT coalesce(sum(d.amount), 0) FROM billing.credit_draw d WHERE d.customer_id = g.customer_id) OR b.posted NOT BETWEEN -coalesce(g.overdraft, 0) AND g.amount;
-- As well() without notes, and no bill met an issue, no block is odd.
CREATE FUNCTION pg_temp.wrong() RETURNS TABLE (what text) LANGUAGE sql AS $$
  SELECT w.what FROM pg_temp.well(false) w
  UNION ALL SELECT 'issue: ' || key || ' ' || message FROM billing.job_issue
  UNION ALL SELECT 'block: ' || customer || ' ' || key FROM odd_blocks $$;
