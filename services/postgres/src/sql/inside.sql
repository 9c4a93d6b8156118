-- What can be seen of a claim only from within its database, as one JSON document. Any login may ask.
-- $1: the provisioner's role; $2, $3, $4: roles of read, write and admin; $5: the second login of admin; $6: all second logins;
-- $7: public and the claim's schemas; $8: most rows of a list.
WITH me AS MATERIALIZED (
    SELECT current_setting('server_version_num')::int AS version,
           CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END AS set_role,
           p.rolsuper AS superuser,
           p.rolcreaterole AS createrole,
           to_regrole(quote_ident($2)) AS read,
           to_regrole(quote_ident($3)) AS write,
           to_regrole(quote_ident($4)) AS admin,
           to_regrole(quote_ident($5)) AS second_admin
      FROM pg_roles p
     WHERE p.rolname = $1
), claimed AS MATERIALIZED (
    SELECT n.oid, n.nspname, n.nspowner, n.nspacl
      FROM pg_namespace n
     WHERE n.nspname = ANY ($7)
)
SELECT json_build_object(
    'schemas', (
        SELECT coalesce(json_object_agg(claimed.nspname, json_build_object(
            'owner', json_build_object(
                'name', o.rolname,
                'usable', pg_has_role($1, o.oid, 'USAGE') AND pg_has_role($1, o.oid, me.set_role),
                'manageable', me.superuser OR NOT o.rolsuper AND me.createrole
                    AND (me.version < 160000 OR pg_has_role($1, o.oid, 'MEMBER WITH ADMIN OPTION'))),
            'acl', (
                SELECT coalesce(json_agg(json_build_object(
                    'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END,
                    'grantor', pg_get_userbyid(a.grantor),
                    'privilege', a.privilege_type,
                    'grantable', a.is_grantable)), '[]')
                  FROM aclexplode(coalesce(claimed.nspacl, acldefault('n', claimed.nspowner))) a))), '{}')
          FROM claimed JOIN pg_roles o ON o.oid = claimed.nspowner),
    'default_acls', (
        SELECT coalesce(json_agg(json_build_object(
            'owner', pg_get_userbyid(d.defaclrole),
            'schema', claimed.nspname,
            'kind', CASE d.defaclobjtype WHEN 'S' THEN 'sequence' ELSE 'table' END,
            'acl', (
                SELECT coalesce(json_agg(json_build_object(
                    'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END,
                    'grantor', pg_get_userbyid(a.grantor),
                    'privilege', a.privilege_type,
                    'grantable', a.is_grantable)), '[]')
                  FROM aclexplode(d.defaclacl) a))), '[]')
          FROM pg_default_acl d
          JOIN claimed ON claimed.oid = d.defaclnamespace
         WHERE d.defaclobjtype IN ('r', 'S') AND d.defaclrole IN (me.admin, me.second_admin)),
    'extensions', (SELECT coalesce(json_agg(e.extname), '[]') FROM pg_extension e),
    -- A NULL is a relation that was dropped meanwhile; a tier whose role is missing lacks everything.
    'lacking', (
        SELECT coalesce(json_agg(json_build_object(
            'schema', l.nspname, 'name', l.relname, 'kind', l.kind, 'read', l.read, 'write', l.write)), '[]')
          FROM (SELECT claimed.nspname, c.relname, g.kind, g.read, g.write
                  FROM claimed
                  JOIN pg_class c ON c.relnamespace = claimed.oid,
                  LATERAL (
                    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind,
                           me.read IS NULL OR NOT coalesce(CASE c.relkind
                               WHEN 'S' THEN has_sequence_privilege(me.read, c.oid, 'SELECT')
                               ELSE has_table_privilege(me.read, c.oid, 'SELECT') END, true) AS read,
                           me.write IS NULL OR NOT coalesce(CASE c.relkind
                               WHEN 'S' THEN has_sequence_privilege(me.write, c.oid, 'SELECT')
                                   AND has_sequence_privilege(me.write, c.oid, 'USAGE')
                               ELSE has_table_privilege(me.write, c.oid, 'SELECT')
                                   AND has_table_privilege(me.write, c.oid, 'INSERT')
                                   AND has_table_privilege(me.write, c.oid, 'UPDATE')
                                   AND has_table_privilege(me.write, c.oid, 'DELETE')
                                   AND has_table_privilege(me.write, c.oid, 'TRUNCATE') END, true) AS write
                    OFFSET 0) g
                 WHERE c.relowner IN (me.admin, me.second_admin)
                   AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
                   AND (g.read OR g.write)
                 LIMIT $8) l),
    -- Default privileges are not owned: REASSIGN OWNED leaves them.
    'owned_by_second', (
        SELECT coalesce(json_object_agg(pg_get_userbyid(o.refobjid), o.count), '{}')
          FROM (SELECT s.refobjid, count(*)
                  FROM pg_shdepend s
                 WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o'
                   AND s.refobjid IN (SELECT to_regrole(quote_ident(b.name)) FROM unnest($6) AS b (name))
                   AND s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                   AND s.classid <> 'pg_default_acl'::regclass
                 GROUP BY s.refobjid) o)
    )::text
  FROM me
