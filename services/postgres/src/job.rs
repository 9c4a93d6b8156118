//! A login for one restore or one dump: a member of the claim's roles and of nothing else. What a tenant has written, as the
//! function behind a CHECK, runs when data is loaded; under the provisioner's own login, `RESET ROLE` would make it the
//! provisioner.

use std::time::Duration;

use chrono::Utc;
use pgtenant_model::{ClaimKey, Tier};
use secrecy::SecretString;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::change::{Change, Object, ObjectChange, RoleChange};
use crate::error::PostgresError;
use crate::own_login::acts_as as acts_as_role;
use crate::server::Server;
use crate::session::Session;
use crate::sessions::server_version;
use crate::sql;
use crate::verifier::{Verifier, generate_password};
use crate::version::ServerVersion;

/// What a job's login begins with. No claim's name has an underscore.
const PREFIX: &str = "pgtenant_job_";

/// What ends the name of a login that another server follows this one with.
const FOLLOWS: &str = "_follows";

/// What a job's login is made with.
#[derive(Debug)]
pub struct JobOptions<'a> {
    /// Its name, as [`Job::name`] or [`Job::follower`] have it.
    pub login: String,
    /// The claim, of whose roles it is a member.
    pub key: &'a ClaimKey,
    /// What its sessions make belongs to this tier.
    pub acts_as: Option<Tier>,
    /// Whether it may replicate: needs a provisioner that may, and PostgreSQL 16 or newer.
    pub replicates: bool,
    /// How long its new password works.
    pub valid: Duration,
}

/// A login for one job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name.
    pub login: String,
    /// Its password.
    pub password: SecretString,
}

/// Whether a role is the login of a job.
pub(crate) fn is_job(role: &str) -> bool {
    role.starts_with(PREFIX)
}

impl Job {
    /// The login of job `id`.
    #[must_use]
    pub fn name(id: Uuid) -> String {
        format!("{PREFIX}{}", id.simple())
    }

    /// The login with which another server follows a database, for job `id`.
    #[must_use]
    pub fn follower(id: Uuid) -> String {
        format!("{}{FOLLOWS}", Self::name(id))
    }

    /// Makes the login, anew where it is there already: whoever had it is out.
    ///
    /// # Errors
    /// What the server says; 42704 where one of the claim's roles is not there.
    pub async fn begin(server: &Server, session: &mut Session, options: JobOptions<'_>) -> Result<Self, PostgresError> {
        let JobOptions { login, key, acts_as, replicates, valid } = options;
        let password = generate_password(&mut rand::rng());
        let version = server_version(session).await?;
        end_job(server, session, version, &login).await?;
        let until = Utc::now() + valid;
        let roles = Tier::ALL.map(|tier| key.role(tier));
        let provisioner = acts_as_role(session).await?;
        let mut statements = sql::create_job(&login, &Verifier::of(&password), until, &roles, replicates);
        let comment = format!("{}job of {provisioner}", crate::comment::PREFIX);
        let object = Object::Role(login.clone());
        statements.extend(Change::Object(ObjectChange::Comment { object, text: comment }).statements());
        if let Some(tier) = acts_as {
            let change = Change::Role(RoleChange::TakeOn { login: login.clone(), role: key.role(tier) });
            statements.extend(change.statements());
        }
        run(session, &statements, &format!("make the login {login:?}")).await?;
        Ok(Self { login, password })
    }
}

/// Ends a job's sessions and drops its login, with what a tenant's code has made under it in databases that anybody may enter; nothing
/// happens where it is not there.
///
/// # Errors
/// What the server says.
pub async fn end_job(
    server: &Server,
    session: &mut Session,
    version: ServerVersion,
    login: &str,
) -> Result<(), PostgresError> {
    const HAS_SOMETHING_IN: &str = "SELECT d.datname::text FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid \
         WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = to_regrole(quote_ident($1)) AND d.datallowconn \
         AND d.datname <> current_database() GROUP BY d.datname";
    if !jobs(session).await?.iter().any(|job| job == login) {
        return Ok(());
    }
    let role = || login.to_owned();
    let with_options = version.has_membership_options();
    let mut statements = Change::Role(RoleChange::Borrow { role: role(), with_options }).statements();
    statements.push(sql::end_sessions_of(login));
    run(session, &statements, &format!("end the sessions of {login:?}")).await?;
    let what = "look for what a job's login has";
    for database in session.texts(what, HAS_SOMETHING_IN, &[(&login, Type::TEXT)]).await?.into_iter().flatten() {
        let mut inside = server.inside(&database).await?;
        let drop = Change::Role(RoleChange::DropOwned { role: role() }).statements();
        run(&mut inside, &drop, &format!("drop what {login:?} has in database {database:?}")).await?;
    }
    let mut statements = Vec::new();
    statements.extend(Change::Role(RoleChange::DropOwned { role: role() }).statements());
    statements.extend(Change::Role(RoleChange::Drop { role: role() }).statements());
    run(session, &statements, &format!("drop the login {login:?}")).await
}

/// The logins of jobs that this provisioner has made.
///
/// # Errors
/// What the server says.
pub async fn jobs(session: &mut Session) -> Result<Vec<String>, PostgresError> {
    const JOBS: &str = "SELECT rolname::text FROM pg_roles WHERE rolname ~ '^pgtenant_job_[0-9a-f]{32}(_follows)?$' \
         AND shobj_description(oid, 'pg_authid') = 'pgtenant: job of ' || current_user ORDER BY 1";
    Ok(session.texts("look for logins of jobs", JOBS, &[]).await?.into_iter().flatten().collect())
}

async fn run(session: &mut Session, statements: &[String], what: &str) -> Result<(), PostgresError> {
    let deadline = session.timeouts().statement;
    let done = session.batch(&statements.join(";\n"), deadline).await;
    done.map_err(|failure| failure.cause.into_error(what))
}
