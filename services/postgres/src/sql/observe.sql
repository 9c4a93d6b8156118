-- What can be seen of claims from outside of their databases, one JSON document each.
-- $1: a JSON array of {"database": name, "roles": [names], "extensions": [names]}.
--
-- Columns that not all versions have are read through to_jsonb(row). A privilege that only some versions know is chosen
-- by CASE in pg_has_role's argument.
WITH me AS MATERIALIZED (
    SELECT r.oid,
           current_setting('server_version_num')::int AS version,
           r.rolsuper AS superuser,
           r.rolcreaterole AS createrole
      FROM pg_roles r
     WHERE r.rolname = current_user
), target AS (
    SELECT t.n, t.want, t.want ->> 'database' AS database
      FROM json_array_elements($1::json) WITH ORDINALITY AS t (want, n)
)
SELECT json_build_object(
    'server', json_build_object(
        'version', me.version,
        'clock', clock_timestamp(),
        'in_recovery', pg_is_in_recovery(),
        'current_user', current_user,
        'session_user', session_user,
        'superuser', me.superuser,
        'maintenance_database', current_database()),
    'database', (
        SELECT json_build_object(
            'owner', json_build_object(
                'name', o.rolname,
                'usable', pg_has_role(o.oid, 'USAGE') AND pg_has_role(o.oid, CASE WHEN me.version >= 160000 THEN 'SET' ELSE 'MEMBER' END),
                'manageable', me.superuser OR NOT o.rolsuper AND me.createrole
                    AND (me.version < 160000 OR pg_has_role(o.oid, 'MEMBER WITH ADMIN OPTION'))),
            'comment', shobj_description(d.oid, 'pg_database'),
            'allow_connections', d.datallowconn,
            'connection_limit', d.datconnlimit,
            'acl', (
                SELECT coalesce(json_agg(json_build_object(
                    'grantee', g.rolname,
                    'grantor', f.rolname,
                    'privilege', a.privilege_type,
                    'grantable', a.is_grantable) ORDER BY g.rolname, a.privilege_type), '[]')
                  FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                  JOIN pg_roles f ON f.oid = a.grantor
                  LEFT JOIN pg_roles g ON g.oid = a.grantee
                 WHERE a.grantee = 0 OR g.oid IS NOT NULL),
            'settings', (
                SELECT coalesce(json_agg(json_build_object(
                    'name', split_part(c.entry, '=', 1),
                    'value', substr(c.entry, strpos(c.entry, '=') + 1),
                    'resettable', me.superuser OR EXISTS (
                        SELECT FROM pg_settings g
                         WHERE g.name = split_part(c.entry, '=', 1) AND g.context IN ('user', 'backend')))), '[]')
                  FROM pg_db_role_setting s, unnest(s.setconfig) AS c (entry)
                 WHERE s.setdatabase = d.oid AND s.setrole = 0))
          FROM pg_database d
          JOIN pg_roles o ON o.oid = d.datdba
         WHERE d.datname = target.database),
    'roles', (
        SELECT coalesce(json_object_agg(r.rolname, json_build_object(
            'can_login', r.rolcanlogin,
            'superuser', r.rolsuper,
            'create_db', r.rolcreatedb,
            'create_role', r.rolcreaterole,
            'inherit', r.rolinherit,
            'replication', r.rolreplication,
            'bypass_rls', r.rolbypassrls,
            'connection_limit', r.rolconnlimit,
            'valid_until', r.rolvaliduntil::text,
            'comment', shobj_description(r.oid, 'pg_authid'),
            'manageable', me.superuser OR NOT r.rolsuper AND me.createrole AND CASE
                WHEN me.version < 160000 THEN NOT r.rolreplication
                ELSE pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION') END,
            'usable', pg_has_role(r.oid, 'USAGE') AND pg_has_role(r.oid, CASE WHEN me.version >= 160000 THEN 'SET' ELSE 'MEMBER' END),
            'members', (
                SELECT coalesce(json_agg(x.doc ORDER BY x.doc ->> 'member'), '[]')
                  FROM (SELECT m.roleid, m.member, m.grantor, m.admin_option, to_jsonb(m) AS row
                          FROM pg_auth_members m WHERE m.roleid = r.oid) m,
                LATERAL (
                    SELECT jsonb_build_object(
                        'role', r.rolname,
                        'member', u.rolname,
                        'grantor', coalesce(f.rolname, ''),
                        'admin', m.admin_option,
                        'inherit', coalesce((m.row ->> 'inherit_option')::bool, u.rolinherit),
                        'set', coalesce((m.row ->> 'set_option')::bool, true),
                        'revocable', me.superuser OR NOT r.rolsuper AND me.createrole AND (me.version < 160000
                            OR pg_has_role(m.roleid, 'MEMBER WITH ADMIN OPTION') AND pg_has_role(m.grantor, 'USAGE'))) AS doc
                      FROM pg_roles u LEFT JOIN pg_roles f ON f.oid = m.grantor
                     WHERE u.oid = m.member) x),
            'member_of', (
                SELECT coalesce(json_agg(x.doc ORDER BY x.doc ->> 'role'), '[]')
                  FROM (SELECT m.roleid, m.member, m.grantor, m.admin_option, to_jsonb(m) AS row
                          FROM pg_auth_members m WHERE m.member = r.oid) m,
                LATERAL (
                    SELECT jsonb_build_object(
                        'role', g.rolname,
                        'member', r.rolname,
                        'grantor', coalesce(f.rolname, ''),
                        'admin', m.admin_option,
                        'inherit', coalesce((m.row ->> 'inherit_option')::bool, r.rolinherit),
                        'set', coalesce((m.row ->> 'set_option')::bool, true),
                        'revocable', me.superuser OR NOT g.rolsuper AND me.createrole AND (me.version < 160000
                            OR pg_has_role(m.roleid, 'MEMBER WITH ADMIN OPTION') AND pg_has_role(m.grantor, 'USAGE'))) AS doc
                      FROM pg_roles g LEFT JOIN pg_roles f ON f.oid = m.grantor
                     WHERE g.oid = m.roleid) x),
            'role_settings', (
                SELECT coalesce(json_agg(json_build_object(
                    'database', d.datname,
                    'value', substr(c.entry, 6))), '[]')
                  FROM pg_db_role_setting s
                  LEFT JOIN pg_database d ON d.oid = s.setdatabase,
                  unnest(s.setconfig) AS c (entry)
                 WHERE s.setrole = r.oid AND c.entry LIKE 'role=%'),
            'elsewhere', (
                SELECT coalesce(json_agg(json_build_object('database', e.datname, 'owned', e.owned)), '[]')
                  FROM (SELECT DISTINCT d.datname, s.deptype = 'o' AS owned
                          FROM pg_shdepend s
                          LEFT JOIN pg_database d ON d.oid = s.dbid
                         WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid
                           AND d.datname IS DISTINCT FROM target.database
                           AND NOT (s.dbid = 0 AND s.classid = 'pg_database'::regclass AND EXISTS (
                               SELECT FROM pg_database own WHERE own.oid = s.objid AND own.datname = target.database))
                         ORDER BY 1, 2 LIMIT 100) e))), '{}')
          FROM pg_roles r
         WHERE r.rolname IN (SELECT json_array_elements_text(target.want -> 'roles'))),
    'extensions_available', (
        SELECT coalesce(json_agg(e.name), '[]')
          FROM json_array_elements_text(target.want -> 'extensions') AS w (name)
          JOIN pg_available_extensions() e ON e.name = w.name)
    )::text AS document
  FROM target, me
 ORDER BY target.n
