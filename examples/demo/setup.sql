-- Two meters over the same events, a rate card, a plan without fees, three customers, two of them with deals.
SELECT billing.test_clock_set('2023-12-01T00:00:00Z') AS clock \gset
SELECT count(*) AS changes FROM billing.catalog_apply('{
  "products": [{"key": "ai-api", "name": "AI API"}],
  "meters": [
    {"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "input_tokens + output_tokens", "dimensions": ["model"], "unit": "token"},
    {"key": "requests", "event_type": "llm.request", "aggregation": "count", "dimensions": ["model"], "unit": "request"}],
  "price_books": [{"key": "list", "currency": "USD", "prices": [
    {"key": "tokens", "meter": "tokens", "pricing": {"model": "matrix", "dimensions": ["model"], "per": 1000, "rows": [
      {"match": {"model": "gpt-4"}, "unit_price": "0.03"}, {"match": {"model": "gpt-3.5"}, "unit_price": "0.002"}]}},
    {"key": "requests", "meter": "requests", "pricing": {"model": "graduated", "tiers": [
      {"up_to": "1000", "unit_price": "0"}, {"up_to": "5000", "unit_price": "0.001"}, {"unit_price": "0.0005"}]}}]}],
  "plans": [{"key": "usage", "name": "Usage only", "currency": "USD", "price_book": "list",
    "billing": {"interval": "1 month", "alignment": "calendar", "net_days": 30},
    "charges": [
      {"key": "tokens", "product": "ai-api", "meter": "tokens", "price": "tokens"},
      {"key": "requests", "product": "ai-api", "meter": "requests", "price": "requests"}]}]}') \gset
SELECT billing.customer_upsert('{"key": "startup", "name": "Startup Inc", "currency": "USD", "time_zone": "UTC"}'),
    billing.customer_upsert('{"key": "acme", "name": "Acme Corp", "currency": "USD", "time_zone": "UTC"}'),
    billing.customer_upsert('{"key": "mega", "name": "Mega Enterprise", "currency": "USD", "time_zone": "UTC"}') \gset
SELECT billing.subscribe('startup', 'usage', '2023-11-01') AS startup,
    billing.subscribe('acme', 'usage', '2023-11-01', '{"overrides": [{"meter": "tokens", "match": {"model": "gpt-4"}, "unit_price": "0.02"}]}') AS acme,
    billing.subscribe('mega', 'usage', '2023-11-01', '{"overrides": [{"meter": "tokens", "match": {"model": "gpt-4"}, "unit_price": "0.015"},
        {"meter": "tokens", "match": {"model": "gpt-3.5"}, "unit_price": "0.001"}]}') AS mega \gset
