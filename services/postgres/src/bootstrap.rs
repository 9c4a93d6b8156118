//! What a superuser does once when a cluster is attached: a group that owns everything, and the logins that act as it.
//!
//! Two logins, so that the provisioner's own password can be changed without a moment in which none works. Both act as the
//! group from their first statement (`ALTER ROLE … SET role`), so neither ever owns anything.

use pgtenant_model::InvalidField;

use tokio_postgres::types::Type;

use crate::error::PostgresError;
use crate::server::Server;
use crate::session::Session;
use crate::sql::{ident, literal};
use crate::verifier::Verifier;
use crate::version::{OWN_TEMPLATE, ServerVersion};

mod lookup;

pub use lookup::LOOKUP_DATABASE;

/// The group that owns the tenants' databases.
pub const GROUP: &str = "pgtenant";

/// What a cluster is attached with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The group, as [`GROUP`].
    pub group: String,
    /// Login and verifier, as `prov_a` and `prov_b`.
    pub logins: Vec<(String, Verifier)>,
    /// Whether PUBLIC, and so every tenant, loses CONNECT to `postgres` and `template1`. Logins that are there and no tenant's keep it for
    /// `postgres`. Right for a cluster that serves nothing else.
    pub close_to_public: bool,
    /// The login with which PgBouncer asks for verifiers, where there is one. Needs a superuser.
    pub pgbouncer: Option<(String, Verifier)>,
    /// Whether databases may be moved by logical replication: the group may replicate and subscribe then. From PostgreSQL 16 on; needs a
    /// superuser.
    pub logical_replication: bool,
}

/// Statements that are sent together.
struct Script {
    place: Place,
    /// A database without which the script is not needed.
    unless: Option<&'static str>,
    statements: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Maintenance,
    Template,
    Lookup,
}

/// The script for psql, run by a superuser in the maintenance database. It may be run again. A [`Verifier::withheld`] is
/// printed as such and must be filled in.
#[must_use]
pub fn bootstrap_sql(version: ServerVersion, bootstrap: &Bootstrap) -> String {
    let mut lines = vec!["SELECT current_database() AS maintenance \\gset".to_owned()];
    let mut place = Place::Maintenance;
    for script in scripts(version, bootstrap) {
        if place != script.place {
            place = script.place;
            lines.push(match place {
                Place::Maintenance => "\\connect :\"maintenance\"".to_owned(),
                Place::Template => format!("\\connect {OWN_TEMPLATE}"),
                Place::Lookup => format!("\\connect {LOOKUP_DATABASE}"),
            });
        }
        let line = |statement: String| match script.unless {
            None => format!("{statement};"),
            Some(database) => format!(
                "SELECT {} WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = {}) \\gexec",
                literal(statement),
                literal(database)
            ),
        };
        lines.extend(script.statements.into_iter().map(line));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Does what [`bootstrap_sql`] says. `server` logs in as a superuser, or from PostgreSQL 15 on as a login with CREATEDB and CREATEROLE
/// that owns `postgres` and `template1`, as RDS's master login: 14 needs [`OWN_TEMPLATE`], which only a superuser makes.
///
/// # Errors
/// What the server says; it may be tried again.
pub async fn bootstrap(server: &Server, bootstrap: &Bootstrap) -> Result<(), PostgresError> {
    const EXISTS: &str = "SELECT datname::text FROM pg_database WHERE datname = $1";
    let mut logins = bootstrap.logins.iter().chain(&bootstrap.pgbouncer);
    if let Some((login, _)) = logins.find(|(_, verifier)| verifier.is_withheld()) {
        return Err(PostgresError::NoPassword { role: login.clone() });
    }
    let mut session = server.maintenance().await?;
    let version = version(&mut session).await?;
    for script in scripts(version, bootstrap) {
        if let Some(database) = script.unless
            && !session.texts("look for a database", EXISTS, &[(&database, Type::TEXT)]).await?.is_empty()
        {
            continue;
        }
        match script.place {
            Place::Maintenance => run(&mut session, script).await?,
            Place::Template => run(&mut server.inside(OWN_TEMPLATE).await?, script).await?,
            Place::Lookup => run(&mut server.inside(LOOKUP_DATABASE).await?, script).await?,
        }
    }
    Ok(())
}

async fn run(session: &mut Session, script: Script) -> Result<(), PostgresError> {
    let deadline = session.timeouts().database;
    let result = session.batch(&script.statements.join(";\n"), deadline).await;
    result.map_err(|failure| failure.cause.into_error("prepare the cluster"))
}

pub(crate) async fn version(session: &mut Session) -> Result<ServerVersion, PostgresError> {
    const VERSION: &str = "SELECT current_setting('server_version_num')";
    let what = "ask for the server's version";
    let answer = session.texts(what, VERSION, &[]).await?;
    let number = answer.into_iter().flatten().find_map(|text| text.parse().ok());
    number
        .map(ServerVersion::new)
        .ok_or_else(|| PostgresError::Answer { what: what.to_owned(), reason: "it is not a number".to_owned() })
}

fn scripts(version: ServerVersion, bootstrap: &Bootstrap) -> Vec<Script> {
    let mut scripts = vec![Script { place: Place::Maintenance, unless: None, statements: roles(bootstrap) }];
    if bootstrap.logical_replication && version.replicates_without_superuser() {
        scripts.push(Script { place: Place::Maintenance, unless: None, statements: replication(&bootstrap.group) });
    }
    if version.needs_own_template() {
        scripts.extend(template(bootstrap));
    }
    scripts.extend(lookup::scripts(bootstrap));
    scripts
}

/// Only a superuser may name these in ALTER ROLE, so they are said when a role is made: on a managed server the administrator is none.
const PLAIN: &str = "NOSUPERUSER NOREPLICATION NOBYPASSRLS";

fn roles(bootstrap: &Bootstrap) -> Vec<String> {
    let group = ident(&bootstrap.group);
    let mut statements = vec![
        create_unless_there(&bootstrap.group, PLAIN),
        format!("ALTER ROLE {group} NOLOGIN CREATEDB CREATEROLE INHERIT"),
        format!("COMMENT ON ROLE {group} IS 'owns the databases of pgtenant'"),
    ];
    for (login, verifier) in &bootstrap.logins {
        let (name, password) = (ident(login), literal(verifier.expose()));
        statements.extend([
            create_unless_there(login, PLAIN),
            format!("ALTER ROLE {name} LOGIN NOCREATEDB NOCREATEROLE INHERIT PASSWORD {password}"),
            format!("GRANT {group} TO {name}"),
            format!("ALTER ROLE {name} SET role = {}", literal(&bootstrap.group)),
            format!("COMMENT ON ROLE {name} IS 'login of the pgtenant control plane'"),
        ]);
    }
    statements.push(give_if_there(RDS_PASSWORD, &bootstrap.group));
    if bootstrap.close_to_public {
        statements.extend([
            keep_logins(&bootstrap.group),
            format!("GRANT CONNECT ON DATABASE postgres TO {group}"),
            "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC".to_owned(),
        ]);
    }
    statements
}

/// Nobody logs in as the group, and its logins do not have its attributes: they make logins that may replicate, and can not themselves.
fn replication(group: &str) -> Vec<String> {
    let group = ident(group);
    vec![format!("ALTER ROLE {group} REPLICATION"), format!("GRANT pg_create_subscription TO {group}")]
}

/// Logins that are no tenant's keep what they may: pgpool takes every server out of use when its checks can not connect.
fn keep_logins(group: &str) -> String {
    let (group, lookup) = (literal(group), literal(lookup::COMMENT));
    format!(
        "DO $do$ DECLARE login text; BEGIN FOR login IN SELECT rolname FROM pg_roles \
         WHERE rolcanlogin AND NOT rolsuper AND has_database_privilege(oid, 'postgres', 'CONNECT') \
         AND NOT pg_has_role(oid, {group}, 'MEMBER') \
         AND coalesce(shobj_description(oid, 'pg_authid'), '') NOT LIKE 'pgtenant: %' \
         AND shobj_description(oid, 'pg_authid') IS DISTINCT FROM {lookup} \
         LOOP EXECUTE format('GRANT CONNECT ON DATABASE postgres TO %I', login); END LOOP; END $do$"
    )
}

/// There is no `CREATE ROLE IF NOT EXISTS`.
fn create_unless_there(role: &str, attributes: &str) -> String {
    let (name, value) = (ident(role), literal(role));
    format!(
        "DO $do$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {value}) THEN \
         CREATE ROLE {name} {attributes}; END IF; END $do$"
    )
}

/// On RDS with `rds.restrict_password_commands` only members of this role set passwords; it is on every RDS server.
const RDS_PASSWORD: &str = "rds_password";

fn give_if_there(role: &str, member: &str) -> String {
    let (value, role, member) = (literal(role), ident(role), ident(member));
    format!(
        "DO $do$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = {value}) THEN \
         GRANT {role} TO {member}; END IF; END $do$"
    )
}

/// A copy of `template0` in which `public` is as it is from 15 on, and nothing for PUBLIC. It is closed at the end, so that
/// copying it never has to wait; until then nobody but superusers enters it.
fn template(bootstrap: &Bootstrap) -> Vec<Script> {
    let (name, group) = (ident(OWN_TEMPLATE), ident(&bootstrap.group));
    let maintenance = |statements| Script { place: Place::Maintenance, unless: None, statements };
    vec![
        Script {
            place: Place::Maintenance,
            unless: Some(OWN_TEMPLATE),
            statements: vec![format!("CREATE DATABASE {name} TEMPLATE template0 OWNER {group} CONNECTION LIMIT 0")],
        },
        maintenance(vec![
            format!("ALTER DATABASE {name} OWNER TO {group}"),
            format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"),
        ]),
        Script {
            place: Place::Template,
            unless: None,
            statements: vec![
                "ALTER SCHEMA public OWNER TO pg_database_owner".to_owned(),
                "REVOKE ALL ON SCHEMA public FROM PUBLIC".to_owned(),
            ],
        },
        maintenance(vec![format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")]),
    ]
}

/// What a preflight says where the template is not as [`bootstrap`] makes it.
pub(crate) fn template_problem(problem: &str) -> InvalidField {
    InvalidField::new(
        "provisioner",
        format!(
            "PostgreSQL 14 needs the template database {OWN_TEMPLATE:?}, and {problem}: run the bootstrap script again"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_script_has_no_verifier_unless_it_was_given() {
        let bootstrap = Bootstrap {
            group: GROUP.into(),
            logins: vec![("prov_a".into(), Verifier::withheld())],
            close_to_public: true,
            pgbouncer: None,
            logical_replication: false,
        };
        let script = bootstrap_sql(ServerVersion::new(150_018), &bootstrap);
        assert!(script.contains("PASSWORD '<withheld>'"), "{script}");
        assert!(!script.contains(OWN_TEMPLATE));
        assert!(bootstrap_sql(ServerVersion::new(140_023), &bootstrap).contains("\\gexec"));
    }
}
