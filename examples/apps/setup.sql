-- What both applications have in their database: their own table beside billing's, a role to log in as, and a plan with a
-- quota of five projects and of a million tokens a month. Run once, by the owner of the database.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SELECT billing.catalog_apply('{
  "products": [{"key": "writer", "name": "Writer"}],
  "meters": [{"key": "projects", "event_type": "project.created", "aggregation": "count", "unit": "project"},
             {"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "tokens", "dimensions": ["model"], "unit": "token"}],
  "features": [{"key": "projects", "name": "Projects", "kind": "metered", "meter": "projects"}, {"key": "tokens", "name": "Tokens", "kind": "metered", "meter": "tokens"},
               {"key": "sso", "name": "Single sign-on", "kind": "boolean"}],
  "plans": [{"key": "team", "name": "Team", "currency": "USD",
    "charges": [{"key": "tokens", "product": "writer", "meter": "tokens", "pricing": {"model": "matrix", "dimensions": ["model"], "per": 1000,
      "rows": [{"match": {"model": "large"}, "unit_price": "0.03"}, {"match": {"model": "small"}, "unit_price": "0.002"}]}}],
    "fees": [{"key": "platform", "product": "writer", "pricing": {"model": "flat", "amount": "20.00"}}],
    "entitlements": [{"feature": "projects", "value": "5", "reset": "never"}, {"feature": "tokens", "value": "1000000"}, {"feature": "sso"}]}]}') \g /dev/null

-- The application's own data: what a customer made, and what it was answered. Rows and what they cost commit together.
CREATE SCHEMA writer;
CREATE TABLE writer.project (
    customer text NOT NULL,
    project text NOT NULL,
    PRIMARY KEY (customer, project)
);
CREATE TABLE writer.answer (
    customer text NOT NULL,
    request text NOT NULL,
    model text NOT NULL,
    tokens int NOT NULL,
    answer text NOT NULL,
    PRIMARY KEY (customer, request)
);
COMMENT ON TABLE writer.project IS 'Projects of customers; a plan says how many.';
COMMENT ON TABLE writer.answer IS 'Answers, one per request of a customer, with the tokens they took.';
DO $$ BEGIN CREATE ROLE writer_app LOGIN IN ROLE billing_app; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT USAGE ON SCHEMA writer TO writer_app;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA writer TO writer_app;
