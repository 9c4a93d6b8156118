-- What can be seen of claims from outside of their databases, one JSON document each.
-- $1: a JSON array of {"database": name, "roles": [names], "extensions": [names]}.
--
-- Names of roles come from pg_get_userbyid rather than from joins: on a new session planning takes longer than running.
-- pg_has_role is asked only where the provisioner's own memberships do not tell: it first collects all of them, which from 16
-- on are as many as there are roles, and takes 50 ms with 9,000.
-- Columns that not all versions have are read through to_jsonb(row), and a privilege that not all versions know is chosen in
-- pg_has_role's argument.
WITH me AS MATERIALIZED (
    SELECT r.oid,
           current_setting('server_version_num')::int AS version,
           CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END AS set_role,
           r.rolsuper AS superuser,
           r.rolcreaterole AS createrole
      FROM pg_roles r
     WHERE r.rolname = current_user
)
SELECT json_build_object(
    'server', json_build_object(
        'version', me.version,
        'clock', clock_timestamp(),
        'in_recovery', pg_is_in_recovery(),
        'current_user', current_user,
        'session_user', session_user,
        'superuser', me.superuser,
        'maintenance_database', current_database(),
        'has_template', me.version >= 150000 OR EXISTS (
            SELECT FROM pg_database d WHERE d.datname = 'pgtenant_template')),
    'database', (
        SELECT json_build_object(
            'owner', json_build_object(
                'name', o.rolname,
                'usable', pg_has_role(o.oid, 'USAGE') AND pg_has_role(o.oid, me.set_role),
                'manageable', me.superuser OR NOT o.rolsuper AND me.createrole
                    AND (me.version < 160000 OR pg_has_role(o.oid, 'MEMBER WITH ADMIN OPTION'))),
            'comment', shobj_description(d.oid, 'pg_database'),
            'allow_connections', d.datallowconn,
            'connection_limit', d.datconnlimit,
            'acl', (
                SELECT coalesce(json_agg(json_build_object(
                    'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END,
                    'grantor', pg_get_userbyid(a.grantor),
                    'privilege', a.privilege_type,
                    'grantable', a.is_grantable)), '[]')
                  FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a),
            'settings', (
                SELECT coalesce(json_agg(json_build_object(
                    'name', split_part(c.entry, '=', 1),
                    'value', substr(c.entry, strpos(c.entry, '=') + 1),
                    'resettable', me.superuser OR EXISTS (
                        SELECT FROM pg_show_all_settings() g
                         WHERE g.name = split_part(c.entry, '=', 1) AND g.context IN ('user', 'backend')))), '[]')
                  FROM pg_db_role_setting s, unnest(s.setconfig) AS c (entry)
                 WHERE s.setdatabase = d.oid AND s.setrole = 0))
          FROM pg_database d
          JOIN pg_roles o ON o.oid = d.datdba
         WHERE d.datname = target.want ->> 'database'),
    'roles', (
        SELECT coalesce(json_object_agg(r.rolname, json_build_object(
            'oid', r.oid::bigint,
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
                ELSE own.admin OR pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION') END,
            'usable', me.superuser OR own.member OR CASE
                WHEN me.version < 160000 OR own.admin THEN false
                ELSE pg_has_role(r.oid, 'USAGE') AND pg_has_role(r.oid, 'SET') END,
            -- A membership is revoked by who may grant the role; from 16 on also in the grantor's name.
            'memberships', (
                SELECT coalesce(json_agg(json_build_object(
                    'role', pg_get_userbyid(m.roleid),
                    'member', pg_get_userbyid(m.member),
                    'grantor', pg_get_userbyid(m.grantor),
                    'admin', m.admin_option,
                    'inherit', (to_jsonb(m) ->> 'inherit_option')::bool,
                    'set', (to_jsonb(m) ->> 'set_option')::bool,
                    'revocable', me.superuser OR me.createrole AND CASE
                        WHEN m.member = me.oid THEN false
                        WHEN me.version < 160000 THEN NOT (SELECT g.rolsuper FROM pg_roles g WHERE g.oid = m.roleid)
                        ELSE pg_has_role(m.roleid, 'MEMBER WITH ADMIN OPTION') AND pg_has_role(m.grantor, 'USAGE')
                        END)), '[]')
                  FROM pg_auth_members m
                 WHERE m.roleid = r.oid OR m.member = r.oid),
            'role_settings', (
                SELECT coalesce(json_agg(json_build_object(
                    'database', (SELECT d.datname FROM pg_database d WHERE d.oid = s.setdatabase),
                    'value', substr(c.entry, 6))), '[]')
                  FROM pg_db_role_setting s, unnest(s.setconfig) AS c (entry)
                 WHERE s.setrole = r.oid AND c.entry LIKE 'role=%'),
            -- A mapping of the user on a foreign server counts as owned, and is made by the server's owner, not by the user.
            'elsewhere', (
                SELECT coalesce(json_agg(DISTINCT jsonb_build_object(
                    'database', CASE WHEN s.dbid <> 0 THEN d.datname END,
                    'owned', s.deptype = 'o' AND s.classid <> 'pg_user_mapping'::regclass)), '[]')
                  FROM pg_shdepend s
                  LEFT JOIN pg_database d ON d.oid = CASE
                      WHEN s.dbid = 0 AND s.classid = 'pg_database'::regclass THEN s.objid ELSE s.dbid END
                 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid
                   AND d.datname IS DISTINCT FROM target.want ->> 'database'))), '{}')
          FROM pg_roles r,
          LATERAL (
            SELECT coalesce(bool_or(m.admin_option), false) AS admin,
                   coalesce(bool_or(coalesce((to_jsonb(m) ->> 'inherit_option')::bool, true)
                       AND coalesce((to_jsonb(m) ->> 'set_option')::bool, true)), false) AS member
              FROM pg_auth_members m
             WHERE m.roleid = r.oid AND m.member = me.oid) own
         WHERE r.rolname IN (SELECT json_array_elements_text(target.want -> 'roles'))),
    'extensions_available', (
        SELECT coalesce(json_agg(e.name), '[]')
          FROM json_array_elements_text(target.want -> 'extensions') AS w (name)
          JOIN pg_available_extensions() e ON e.name = w.name)
    )::text
  FROM json_array_elements($1::json) WITH ORDINALITY AS target (want, n), me
 ORDER BY target.n
