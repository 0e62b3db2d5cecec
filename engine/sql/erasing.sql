-- What may change in rows that are otherwise written once: a person's words, when they are erased.
-- Owner: engine. Installed by engine's migrations; safe to run again.
--
-- The named columns of the row become nothing, 'erased', or 'erased:<id>' where the column is
-- unique; everything else of the row stays as it is.
CREATE OR REPLACE FUNCTION laisee_erases(p_old jsonb, p_new jsonb, p_columns text[])
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p_old - p_columns = p_new - p_columns
       AND (SELECT bool_and(COALESCE(p_new ->> name, '') IN ('', 'erased')
                            OR p_new ->> name = 'erased:' || (p_new ->> 'id'))
              FROM unnest(p_columns) AS name)
$$;
