-- A line for each table: name, rows, and a sum that does not depend on their order or on the session's settings.
SET row_security = off; -- an error in place of fewer rows
SET search_path = pg_catalog;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET extra_float_digits = 1;
SET bytea_output = 'hex';
-- Columns by name in a table that inherits: a restore puts the inherited ones first. Other sessions' temporary tables and
-- what an extension brings are no part of a dump.
SELECT format('SELECT %L, count(*), coalesce(sum((''x'' || substr(md5(ROW(%s)::text), 1, 15))::bit(60)::bigint::numeric), 0) FROM %I.%I',
  nspname || '.' || relname, columns, nspname, relname)
FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = relnamespace
CROSS JOIN LATERAL (
  SELECT string_agg(quote_ident(attname), ', ' ORDER BY CASE WHEN inherits THEN attname END COLLATE "C", attnum) AS columns
  FROM pg_attribute, (SELECT NOT relispartition AND EXISTS (SELECT FROM pg_inherits WHERE inhrelid = t.oid)) AS _ (inherits)
  WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped
) AS _
WHERE relkind IN ('r', 'p') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = t.oid AND deptype = 'e')
ORDER BY nspname, relname \gexec
