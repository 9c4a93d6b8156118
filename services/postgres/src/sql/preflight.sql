-- What a provisioner has to know of a cluster before it makes anything, as one JSON document. $1: the template's name.
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
    'template', (
        SELECT json_build_object(
            'owned', pg_has_role(d.datdba, 'USAGE'),
            'allow_connections', d.datallowconn)
          FROM pg_database d WHERE d.datname = $1)
    )::text AS document
  FROM pg_roles r
 WHERE r.rolname = current_user
