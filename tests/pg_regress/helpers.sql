-- For every golden file: SET ECHO none, \i, ECHO all.
SET client_min_messages = warning;
-- The error of a statement, as its caller sees it; the lines that are empty are left out. What it did is undone.
CREATE FUNCTION pg_temp.fails(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    code text; message text; detail text; hint text;
BEGIN
    BEGIN
        EXECUTE statement;
        RAISE EXCEPTION USING ERRCODE = 'XX999', MESSAGE = 'no error';
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    END;
    RETURN NEXT CASE code WHEN 'XX999' THEN 'NO ERROR' ELSE code || ': ' || message END;
    IF detail <> '' THEN RETURN NEXT '  DETAIL ' || detail; END IF;
    IF hint <> '' THEN RETURN NEXT '  HINT   ' || hint; END IF;
END
$$;
-- The lines of an invoice document, and its total.
CREATE FUNCTION pg_temp.lines(document jsonb) RETURNS TABLE (key text, kind text, quantity text, exact text, amount text) LANGUAGE sql AS $$
    SELECT l->>'key', l->>'kind', l->>'quantity', l->>'exact', l->>'amount'
    FROM jsonb_array_elements(CASE jsonb_typeof(document) WHEN 'array' THEN document ELSE jsonb_build_array(document) END) d, jsonb_array_elements(d->'lines') l
    UNION ALL
    SELECT 'total', NULL, NULL, NULL, d->'totals'->>'total' FROM jsonb_array_elements(CASE jsonb_typeof(document) WHEN 'array' THEN document ELSE jsonb_build_array(document) END) d
$$;
-- Some files begin with nothing installed.
SET check_function_bodies = off;
-- What verify() says (notes: also of what is no fault), and the documents that do not compute again. Nothing, where all is well.
CREATE FUNCTION pg_temp.well(notes boolean DEFAULT true) RETURNS TABLE (what text) LANGUAGE sql AS $$
  SELECT CASE WHEN v.failed > 0 THEN 'FAILED ' ELSE '' END || v.check_name || coalesce(': ' || v.example, '') FROM billing.verify('full') v WHERE v.failed > 0 OR (notes AND v.example IS NOT NULL)
  UNION ALL SELECT 'not the same bytes: ' || i.key FROM billing.invoice i WHERE i.number IS NOT NULL AND NOT coalesce((SELECT bool_and(r.same_bytes) FROM billing.invoice_recompute(i.number) r), true) $$;
RESET check_function_bodies;
