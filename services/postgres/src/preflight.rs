//! What would bite later on a cluster.

use pgtenant_model::InvalidField;
use serde::Deserialize;
use tokio_postgres::types::Type;

use crate::bootstrap::{GROUP, template_problem};
use crate::comment::PREFIX;
use crate::error::{PostgresError, chain};
use crate::session::{Parameter, Session};
use crate::sql::ident;
use crate::version::{OWN_TEMPLATE, ServerVersion};

const PREFLIGHT: &str = include_str!("sql/preflight.sql");

#[derive(Debug, Clone, Deserialize)]
struct Facts {
    version: ServerVersion,
    in_recovery: bool,
    current_user: String,
    session_user: String,
    superuser: bool,
    create_db: bool,
    create_role: bool,
    inherit: bool,
    can_login: bool,
    encoding: String,
    password_encryption: String,
    ssl: Option<bool>,
    public_databases: Vec<String>,
    template: Option<TemplateFacts>,
    /// RDS lets only members of `rds_password` set passwords, and the provisioner is none.
    restricted: bool,
    /// The provisioner's and tenants' roles that have what RDS's administrators have.
    rds_superusers: Vec<Holder>,
}

/// A member of `rds_superuser`, and of which role it is one directly.
#[derive(Debug, Clone, Deserialize)]
struct Holder {
    role: String,
    through: String,
    provisioner: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct TemplateFacts {
    owned: bool,
    allow_connections: bool,
}

/// What is wrong or worth knowing about the cluster and the provisioner. An empty list: nothing.
///
/// What `pg_hba.conf` allows can not be seen by a provisioner; the first login of a tier shows it.
///
/// # Errors
/// What the server says.
pub async fn preflight(session: &mut Session) -> Result<Vec<InvalidField>, PostgresError> {
    let what = "run the preflight";
    let parameters: [Parameter<'_>; 2] = [(&OWN_TEMPLATE, Type::TEXT), (&PREFIX, Type::TEXT)];
    let text = session.texts(what, PREFLIGHT, &parameters).await?.into_iter().next().flatten();
    let facts: Facts = serde_json::from_str(&text.unwrap_or_default())
        .map_err(|error| PostgresError::Answer { what: what.to_owned(), reason: chain(&error) })?;
    let mut problems = Vec::new();
    of_server(&facts, &mut problems);
    of_provisioner(&facts, &mut problems);
    of_rds(&facts, &mut problems);
    Ok(problems)
}

/// Connections that the server takes of logins that are no superusers: `max_connections` less those that are kept for superusers and,
/// from 16 on, for members of `pg_use_reserved_connections`.
///
/// # Errors
/// What the server says.
pub async fn max_connections(session: &mut Session) -> Result<u32, PostgresError> {
    const QUESTION: &str =
        "select (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', true)::int, 0))::text";
    let what = "read max_connections";
    let answer = session.texts(what, QUESTION, &[]).await?.into_iter().next().flatten();
    let number = answer.as_ref().and_then(|text| text.parse().ok());
    number.ok_or_else(|| PostgresError::Answer { what: what.to_owned(), reason: format!("{answer:?} is no number") })
}

fn of_rds(facts: &Facts, problems: &mut Vec<InvalidField>) {
    if facts.restricted {
        let message = format!(
            "rds.restrict_password_commands is on: only members of rds_password set passwords; the master login gives it \
             with: GRANT rds_password TO {};",
            ident(&facts.current_user)
        );
        problems.push(InvalidField::new("provisioner", message));
    }
    for Holder { role, through, provisioner } in &facts.rds_superusers {
        let (field, why) = match provisioner {
            true => ("provisioner", "CREATEDB and CREATEROLE are enough"),
            false => ("databases", "a tenant gets into every other tenant's database with it"),
        };
        let message = format!(
            "{role:?} is a member of rds_superuser: {why}; the master login takes it away with: REVOKE {} FROM {};",
            ident(through),
            ident(role)
        );
        problems.push(InvalidField::new(field, message));
    }
}

fn of_server(facts: &Facts, problems: &mut Vec<InvalidField>) {
    let mut say = |field: &str, message: String| problems.push(InvalidField::new(field, message));
    let version = facts.version;
    if !version.supported() {
        let (oldest, newest) = (ServerVersion::OLDEST, ServerVersion::NEWEST);
        say("topology", format!("PostgreSQL {version} is not supported: {oldest} to {newest} are"));
    }
    if facts.in_recovery {
        say("topology", "the server is a standby: nothing can be made there".to_owned());
    }
    if facts.encoding != "UTF8" {
        let encoding = &facts.encoding;
        say("topology", format!("the cluster's encoding is {encoding}; tenants' databases get the same: use UTF8"));
    }
    if facts.ssl == Some(false) {
        say("tls", "this connection is not encrypted".to_owned());
    }
    if facts.password_encryption != "scram-sha-256" {
        say(
            "tls",
            format!(
                "password_encryption is {}: passwords that tenants set themselves are weaker than scram-sha-256",
                facts.password_encryption
            ),
        );
    }
    for database in &facts.public_databases {
        say(
            "provisioner",
            format!(
                "every tenant may connect to database {database:?}; a superuser stops that with: \
                 REVOKE CONNECT ON DATABASE {0} FROM PUBLIC; GRANT CONNECT ON DATABASE {0} TO {1}; \
                 other logins that use it, such as those of pgpool's checks, need the same GRANT before",
                ident(database),
                ident(&facts.session_user)
            ),
        );
    }
}

fn of_provisioner(facts: &Facts, problems: &mut Vec<InvalidField>) {
    let Facts { current_user, session_user, .. } = facts;
    let mut say = |message: String| problems.push(InvalidField::new("provisioner", message));
    let attributes = [(facts.create_db, "CREATEDB"), (facts.create_role, "CREATEROLE"), (facts.inherit, "INHERIT")];
    for (has, attribute) in attributes {
        if !has && !facts.superuser {
            say(format!(
                "{current_user:?} lacks {attribute}; a superuser gives it with: ALTER ROLE {} {attribute};",
                ident(current_user)
            ));
        }
    }
    if facts.superuser {
        say(format!("{current_user:?} is a superuser: CREATEDB and CREATEROLE are enough"));
    }
    if facts.can_login && current_user == session_user {
        say(format!(
            "{session_user:?} owns what it makes itself, so that no second login can take over from it: \
             let it act as a group, as {GROUP:?} of the bootstrap script"
        ));
    }
    if facts.version.needs_own_template() {
        match &facts.template {
            None => problems.push(template_problem("there is none")),
            Some(template) if !template.owned => problems.push(template_problem("it is not the provisioner's")),
            Some(template) if template.allow_connections => {
                problems.push(template_problem("it is open to connections"));
            }
            Some(_) => {}
        }
    }
}
