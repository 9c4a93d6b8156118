-- What a provisioner has to know of a cluster before it makes anything, as one JSON document. $1: the template's name; $2: what
-- the comment of a tenant's role begins with.
SELECT json_build_object(
    'version', current_setting('server_version_num')::int,
    'in_recovery', pg_is_in_recovery(),
    'current_user', current_user,
    'session_user', session_user,
    'superuser', r.rolsuper,
    'create_db', r.rolcreatedb,
    'create_role', r.rolcreaterole,
    'inherit', r.rolinherit,
    'can_login', r.rolcanlogin,
    'encoding', current_setting('server_encoding'),
    'password_encryption', current_setting('password_encryption'),
    'ssl', (SELECT s.ssl FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()),
    'public_databases', (
        SELECT coalesce(json_agg(d.datname ORDER BY d.datname), '[]')
          FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
         WHERE d.datname IN (current_database(), 'postgres', 'template1')
           AND a.grantee = 0 AND a.privilege_type = 'CONNECT'),
    'restricted', coalesce(current_setting('rds.restrict_password_commands', true), '') IN ('on', '1', 'true')
        AND NOT coalesce(
            (SELECT pg_has_role(p.oid, 'MEMBER') FROM pg_roles p WHERE p.rolname = 'rds_password'), false),
    'rds_superusers', (
        WITH RECURSIVE holders (oid, through) AS (
            SELECT m.member, m.roleid FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
             WHERE g.rolname = 'rds_superuser'
            UNION
            SELECT m.member, m.roleid FROM pg_auth_members m JOIN holders h ON h.oid = m.roleid)
        SELECT coalesce(json_agg(json_build_object(
                   'role', o.rolname,
                   'through', t.rolname,
                   'provisioner', o.rolname IN (session_user, current_user)) ORDER BY o.rolname, t.rolname), '[]')
          FROM holders h JOIN pg_roles o ON o.oid = h.oid JOIN pg_roles t ON t.oid = h.through
         WHERE o.rolname IN (session_user, current_user)
            OR starts_with(shobj_description(o.oid, 'pg_authid'), $2)),
    'template', (
        SELECT json_build_object(
            'owned', pg_has_role(d.datdba, 'USAGE'),
            'allow_connections', d.datallowconn)
          FROM pg_database d WHERE d.datname = $1)
    )::text AS document
  FROM pg_roles r
 WHERE r.rolname = current_user
