-- Relations in the claim's schemas that belong to none of the claim's roles, as one JSON document. Any login may ask.
-- $1: the provisioner's role; $2: the claim's roles and second logins; $3: public and the claim's schemas; $4: most rows.
WITH me AS MATERIALIZED (
    SELECT current_setting('server_version_num')::int AS version,
           CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END AS set_role,
           p.rolsuper AS superuser,
           p.rolcreaterole AS createrole
      FROM pg_roles p
     WHERE p.rolname = $1
)
SELECT coalesce(json_agg(json_build_object(
           'schema', f.nspname,
           'name', f.relname,
           'kind', CASE f.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END,
           'owner', json_build_object(
               'name', f.rolname,
               'usable', pg_has_role($1, f.relowner, 'USAGE') AND pg_has_role($1, f.relowner, me.set_role),
               'manageable', me.superuser OR NOT f.rolsuper AND me.createrole
                   AND (me.version < 160000 OR pg_has_role($1, f.relowner, 'MEMBER WITH ADMIN OPTION'))),
           'linked', f.linked)), '[]')::text
  FROM me, (
    SELECT n.nspname, c.relname, c.relkind, c.relowner, o.rolname, o.rolsuper,
           -- Of a serial or identity column: its owner follows the table's.
           c.relkind = 'S' AND EXISTS (
               SELECT FROM pg_depend p
                WHERE p.classid = 'pg_class'::regclass AND p.objid = c.oid AND p.objsubid = 0
                  AND p.refclassid = 'pg_class'::regclass AND p.deptype IN ('a', 'i')) AS linked
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_roles o ON o.oid = c.relowner
     WHERE n.nspname = ANY ($3)
       AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
       AND o.rolname <> ALL ($2)
       -- What an extension made is the extension's.
       AND NOT EXISTS (
           SELECT FROM pg_depend p
            WHERE p.classid = 'pg_class'::regclass AND p.objid = c.oid AND p.deptype = 'e')
     LIMIT $4) f
