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
            -- From whom a schema is to be taken; from the admin tier it is not, and pg_has_role is slow (see observe.sql).
            'owner', json_build_object(
                'name', o.rolname,
                'usable', o.oid IS DISTINCT FROM me.admin AND pg_has_role($1, o.oid, 'USAGE') AND pg_has_role($1, o.oid, me.set_role),
                'manageable', o.oid IS DISTINCT FROM me.admin AND (me.superuser OR NOT o.rolsuper AND me.createrole
                    AND (me.version < 160000 OR pg_has_role($1, o.oid, 'MEMBER WITH ADMIN OPTION')))),
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
    -- What a tier was granted itself: what it has by way of PUBLIC or a membership may go. A role that is missing lacks
    -- everything. Letters as in aclitem: r SELECT, a INSERT, w UPDATE, d DELETE, D TRUNCATE, U USAGE.
    'lacking', (
        SELECT coalesce(json_agg(json_build_object(
            'schema', l.nspname, 'name', l.relname, 'kind', l.kind, 'read', l.read, 'write', l.write)), '[]')
          FROM (SELECT claimed.nspname, c.relname, o.kind,
                       NOT coalesce(c.relacl @> o.read, false) AS read,
                       NOT coalesce(c.relacl @> o.write, false) AS write
                  FROM (SELECT owner.oid, g.kind, g.relkinds,
                               CASE WHEN me.read IS NOT NULL
                                   THEN (me.read || '=' || g.read || '/' || owner.oid::regrole)::aclitem END AS read,
                               CASE WHEN me.write IS NOT NULL
                                   THEN (me.write || '=' || g.write || '/' || owner.oid::regrole)::aclitem END AS write
                          FROM (VALUES (me.admin::oid), (me.second_admin::oid)) AS owner (oid),
                               (VALUES ('table', 'r', 'arwdD', '{r,p,v,m,f}'::"char"[]),
                                       ('sequence', 'r', 'rU', '{S}')) AS g (kind, read, write, relkinds)
                         WHERE owner.oid IS NOT NULL) o
                  JOIN pg_class c ON c.relowner = o.oid AND c.relkind = ANY (o.relkinds)
                  JOIN claimed ON claimed.oid = c.relnamespace
                 WHERE NOT coalesce(c.relacl @> o.read, false) OR NOT coalesce(c.relacl @> o.write, false)
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
