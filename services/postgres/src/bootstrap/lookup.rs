//! What PgBouncer asks for a login's verifier (its `auth_query`): one function in a database of its own, run as a superuser.
//!
//! Only superusers read `pg_authid`, and PgBouncer is none: the function gives it what it needs and nothing else. A database of its own
//! (PgBouncer's `auth_dbname`), since no tenant enters it, and PgBouncer's login enters no tenant's.

use super::{Bootstrap, PLAIN, Place, Script, create_unless_there};
use crate::comment::PREFIX;
use crate::sql::{ident, literal};

/// PgBouncer's `auth_dbname`. An underscore is in no claim's name.
pub const LOOKUP_DATABASE: &str = "pgtenant_pgbouncer";

/// Says what the login is for; who bears it is given nothing else.
pub(super) const COMMENT: &str = "looks up verifiers for PgBouncer";

/// Name and verifier of a login that a claim's read or write tier has, or no row.
///
/// `admin` is not among them: migrations need a session. Nor is whoever has, through any membership, an attribute that no tenant
/// has; a comment alone would make anybody a tenant. What expired is refused here, since PgBouncer would not ask; a login that was
/// locked likewise. Everything is qualified or from `pg_catalog`, whatever the caller's `search_path` is.
const USER_LOOKUP: &str = "CREATE OR REPLACE FUNCTION pgbouncer.user_lookup(i_username text) \
     RETURNS TABLE (uname text, phash text) LANGUAGE sql STABLE STRICT SECURITY DEFINER \
     SET search_path = pg_catalog, pg_temp AS $lookup$
    SELECT a.rolname::text, a.rolpassword
      FROM pg_catalog.pg_authid a
      JOIN pg_catalog.pg_shdescription d ON d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.objoid = a.oid,
           LATERAL pg_catalog.regexp_match(d.description, '@PREFIX@([a-z0-9-]+)/([a-z0-9-]+) (read|write)$') m (claim)
     WHERE a.rolname = i_username
       AND a.rolname IN (m.claim[1] || '-' || m.claim[2] || '-' || m.claim[3],
                         m.claim[1] || '-' || m.claim[2] || '-' || m.claim[3] || '-b')
       AND a.rolcanlogin
       AND (a.rolvaliduntil IS NULL OR a.rolvaliduntil > pg_catalog.now())
       AND a.rolpassword LIKE 'SCRAM-SHA-256$%'
       AND NOT EXISTS (
           WITH RECURSIVE acts (role) AS (
               SELECT a.oid UNION SELECT g.roleid FROM acts JOIN pg_catalog.pg_auth_members g ON g.member = acts.role)
           SELECT FROM acts JOIN pg_catalog.pg_authid p ON p.oid = acts.role
            WHERE p.rolsuper OR p.rolcreaterole OR p.rolcreatedb OR p.rolreplication OR p.rolbypassrls
               OR p.rolname LIKE 'pg\\_%')
$lookup$";

/// Run again it changes nothing but the login's password.
pub(super) fn scripts(bootstrap: &Bootstrap) -> Vec<Script> {
    let Some((login, verifier)) = &bootstrap.pgbouncer else { return Vec::new() };
    let (database, name) = (ident(LOOKUP_DATABASE), ident(login));
    let maintenance = |statements| Script { place: Place::Maintenance, unless: None, statements };
    vec![
        maintenance(vec![
            guard(login, &bootstrap.group),
            create_unless_there(login, PLAIN),
            format!("ALTER ROLE {name} LOGIN NOCREATEDB NOCREATEROLE PASSWORD {}", literal(verifier.expose())),
            format!("COMMENT ON ROLE {name} IS {}", literal(COMMENT)),
        ]),
        Script {
            place: Place::Maintenance,
            unless: Some(LOOKUP_DATABASE),
            statements: vec![format!("CREATE DATABASE {database} TEMPLATE template0")],
        },
        maintenance(vec![
            format!("ALTER DATABASE {database} OWNER TO CURRENT_USER"),
            format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"),
            format!("GRANT CONNECT ON DATABASE {database} TO {name}"),
            format!("COMMENT ON DATABASE {database} IS 'where PgBouncer asks for verifiers of pgtenant''s logins'"),
        ]),
        Script { place: Place::Lookup, unless: None, statements: inside(&name) },
    ]
}

/// Nobody is in this database yet but superusers and PgBouncer's login, so that nothing can come between two of these.
fn inside(login: &str) -> Vec<String> {
    vec![
        "REVOKE ALL ON SCHEMA public FROM PUBLIC".to_owned(),
        "CREATE SCHEMA IF NOT EXISTS pgbouncer".to_owned(),
        "ALTER SCHEMA pgbouncer OWNER TO CURRENT_USER".to_owned(),
        USER_LOOKUP.replace("@PREFIX@", &format!("^{PREFIX}")),
        "ALTER FUNCTION pgbouncer.user_lookup(text) OWNER TO CURRENT_USER".to_owned(),
        "REVOKE ALL ON FUNCTION pgbouncer.user_lookup(text) FROM PUBLIC".to_owned(),
        format!("GRANT USAGE ON SCHEMA pgbouncer TO {login}"),
        format!("GRANT EXECUTE ON FUNCTION pgbouncer.user_lookup(text) TO {login}"),
    ]
}

/// An administrator of a managed service would get a function that answers nothing; and whoever has more than this login needs would
/// lend it to PgBouncer.
fn guard(login: &str, group: &str) -> String {
    let (login, group) = (literal(login), literal(group));
    format!(
        "DO $do$ BEGIN IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN \
         RAISE EXCEPTION 'PgBouncer''s lookup needs a superuser, who alone may read pg_authid'; END IF; \
         IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = {login} AND (r.rolsuper OR r.rolreplication OR r.rolbypassrls \
         OR r.rolcreaterole OR r.rolcreatedb OR pg_has_role(r.oid, {group}, 'MEMBER') \
         OR coalesce(shobj_description(r.oid, 'pg_authid'), '') LIKE '{PREFIX}%')) THEN \
         RAISE EXCEPTION 'role % is there and is more than PgBouncer''s login: name another one', {login}; END IF; END $do$"
    )
}
