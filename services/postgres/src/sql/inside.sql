-- What can be seen of a claim only from within its database, as one JSON document. Any login may ask.
-- $1: {"provisioner", "admin", "read", "write", "second_admin", "seconds": [names], "schemas": [names], "adopt": bool}; $2: most rows of a list.
WITH want AS MATERIALIZED (
    SELECT $1::json AS doc
), me AS MATERIALIZED (
    SELECT p.oid, p.rolsuper AS superuser, p.rolcreaterole AS createrole,
           current_setting('server_version_num')::int AS version
      FROM want JOIN pg_roles p ON p.rolname = want.doc ->> 'provisioner'
), tier AS MATERIALIZED (
    SELECT (SELECT oid FROM pg_roles WHERE rolname = doc ->> 'admin') AS admin,
           (SELECT oid FROM pg_roles WHERE rolname = doc ->> 'read') AS read,
           (SELECT oid FROM pg_roles WHERE rolname = doc ->> 'write') AS write,
           (SELECT oid FROM pg_roles WHERE rolname = doc ->> 'second_admin') AS second_admin,
           ARRAY(SELECT oid FROM pg_roles
                  WHERE rolname IN (SELECT json_array_elements_text(doc -> 'seconds'))) AS seconds
      FROM want
), claimed AS MATERIALIZED (
    SELECT n.oid, n.nspname, n.nspowner, n.nspacl
      FROM pg_namespace n, want
     WHERE n.nspname IN (SELECT json_array_elements_text(want.doc -> 'schemas'))
), relation AS (
    SELECT c.oid, claimed.nspname, c.relname, c.relowner,
           CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind
      FROM pg_class c JOIN claimed ON claimed.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
), seen AS (
    -- A NULL is a relation that was dropped meanwhile; a tier whose role is missing lacks everything.
    SELECT r.nspname, r.relname, r.kind,
           tier.read IS NULL OR NOT coalesce(CASE r.kind
               WHEN 'table' THEN has_table_privilege(tier.read, r.oid, 'SELECT')
               ELSE has_sequence_privilege(tier.read, r.oid, 'SELECT') END, true) AS read,
           tier.write IS NULL OR NOT coalesce(CASE r.kind
               WHEN 'table' THEN has_table_privilege(tier.write, r.oid, 'SELECT')
                   AND has_table_privilege(tier.write, r.oid, 'INSERT')
                   AND has_table_privilege(tier.write, r.oid, 'UPDATE')
                   AND has_table_privilege(tier.write, r.oid, 'DELETE')
                   AND has_table_privilege(tier.write, r.oid, 'TRUNCATE')
               ELSE has_sequence_privilege(tier.write, r.oid, 'SELECT')
                   AND has_sequence_privilege(tier.write, r.oid, 'USAGE') END, true) AS write
      FROM relation r, tier
     WHERE r.relowner IN (tier.admin, tier.second_admin)
), owner AS (
    SELECT o.oid, json_build_object(
        'name', o.rolname,
        'usable', pg_has_role(me.oid, o.oid, 'USAGE')
            AND pg_has_role(me.oid, o.oid, CASE WHEN me.version >= 160000 THEN 'SET' ELSE 'MEMBER' END),
        'manageable', me.superuser OR NOT o.rolsuper AND me.createrole
            AND (me.version < 160000 OR pg_has_role(me.oid, o.oid, 'MEMBER WITH ADMIN OPTION'))) AS doc
      FROM pg_roles o, me
     WHERE o.oid IN (SELECT nspowner FROM claimed UNION
                     SELECT relowner FROM relation, want WHERE (want.doc ->> 'adopt')::bool)
)
SELECT json_build_object(
    'schemas', (
        SELECT coalesce(json_object_agg(claimed.nspname, json_build_object(
            'owner', owner.doc,
            'acl', (
                SELECT coalesce(json_agg(json_build_object(
                    'grantee', g.rolname,
                    'grantor', f.rolname,
                    'privilege', a.privilege_type,
                    'grantable', a.is_grantable) ORDER BY g.rolname, a.privilege_type), '[]')
                  FROM aclexplode(coalesce(claimed.nspacl, acldefault('n', claimed.nspowner))) a
                  JOIN pg_roles f ON f.oid = a.grantor
                  LEFT JOIN pg_roles g ON g.oid = a.grantee
                 WHERE a.grantee = 0 OR g.oid IS NOT NULL))), '{}')
          FROM claimed JOIN owner ON owner.oid = claimed.nspowner),
    'default_acls', (
        SELECT coalesce(json_agg(json_build_object(
            'owner', o.rolname,
            'schema', claimed.nspname,
            'kind', CASE d.defaclobjtype WHEN 'S' THEN 'sequence' ELSE 'table' END,
            'acl', (
                SELECT coalesce(json_agg(json_build_object(
                    'grantee', g.rolname,
                    'grantor', f.rolname,
                    'privilege', a.privilege_type,
                    'grantable', a.is_grantable) ORDER BY g.rolname, a.privilege_type), '[]')
                  FROM aclexplode(d.defaclacl) a
                  JOIN pg_roles f ON f.oid = a.grantor
                  LEFT JOIN pg_roles g ON g.oid = a.grantee
                 WHERE a.grantee = 0 OR g.oid IS NOT NULL))), '[]')
          FROM pg_default_acl d
          JOIN claimed ON claimed.oid = d.defaclnamespace
          JOIN pg_roles o ON o.oid = d.defaclrole, tier
         WHERE d.defaclobjtype IN ('r', 'S') AND d.defaclrole IN (tier.admin, tier.second_admin)),
    'extensions', (SELECT coalesce(json_agg(e.extname), '[]') FROM pg_extension e),
    'lacking', (
        SELECT coalesce(json_agg(json_build_object(
            'schema', l.nspname, 'name', l.relname, 'kind', l.kind, 'read', l.read, 'write', l.write)), '[]')
          FROM (SELECT * FROM seen WHERE read OR write LIMIT $2::text::int) l),
    'owned_by_second', (
        SELECT coalesce(json_object_agg(o.rolname, o.count), '{}')
          FROM (SELECT r.rolname, count(*)
                  FROM pg_shdepend s
                  JOIN pg_roles r ON r.oid = s.refobjid, tier
                 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY (tier.seconds) AND s.deptype = 'o'
                   AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                   -- Default privileges are not owned: REASSIGN OWNED leaves them.
                   AND s.classid <> 'pg_default_acl'::regclass
                 GROUP BY r.rolname) o),
    'foreign', (
        SELECT coalesce(json_agg(json_build_object(
            'schema', f.nspname, 'name', f.relname, 'kind', f.kind, 'owner', f.owner, 'linked', f.linked)), '[]')
          FROM (SELECT r.nspname, r.relname, r.kind, owner.doc AS owner, EXISTS (
                           SELECT FROM pg_depend p
                            WHERE p.classid = 'pg_class'::regclass AND p.objid = r.oid AND p.objsubid = 0
                              AND p.refclassid = 'pg_class'::regclass AND p.deptype IN ('a', 'i')
                              AND r.kind = 'sequence') AS linked
                  FROM relation r JOIN owner ON owner.oid = r.relowner, tier, want
                 WHERE (want.doc ->> 'adopt')::bool
                   AND r.relowner IS DISTINCT FROM tier.admin
                   AND r.relowner IS DISTINCT FROM tier.read
                   AND r.relowner IS DISTINCT FROM tier.write
                   AND NOT r.relowner = ANY (tier.seconds)
                   AND NOT EXISTS (
                       SELECT FROM pg_depend p
                        WHERE p.classid = 'pg_class'::regclass AND p.objid = r.oid AND p.deptype = 'e')
                 LIMIT $2::text::int) f)
    )::text AS document
  FROM want
