-- One hour of real LLM traffic, spread over three customers: row n of a file goes to startup, acme, mega in turn.
CREATE TEMP TABLE trace (n bigint GENERATED ALWAYS AS IDENTITY, at text, context bigint, generated bigint);
CREATE TEMP TABLE batch (LIKE billing.usage_event_input);
\copy trace (at, context, generated) from '../data/llm_trace/code.csv' with (format csv, header)
INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
SELECT (ARRAY['mega', 'startup', 'acme'])[n % 3 + 1], 'llm.request', 'code-' || n, replace(at, ' ', 'T') || 'Z',
    json_build_object('model', 'gpt-3.5', 'input_tokens', context, 'output_tokens', generated)
FROM trace ORDER BY n;
TRUNCATE trace RESTART IDENTITY;
\copy trace (at, context, generated) from '../data/llm_trace/conv.csv' with (format csv, header)
INSERT INTO batch (customer, event_type, event_id, occurred_at, properties)
SELECT (ARRAY['mega', 'startup', 'acme'])[n % 3 + 1], 'llm.request', 'conv-' || n, replace(at, ' ', 'T') || 'Z',
    json_build_object('model', 'gpt-4', 'input_tokens', context, 'output_tokens', generated)
FROM trace ORDER BY n;
