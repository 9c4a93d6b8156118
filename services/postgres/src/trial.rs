//! What the control plane will need of a cluster, tried without leaving a trace: in a transaction that is rolled back, or in a
//! database that is dropped at once.

mod extensions;
mod logins;
mod statements;

use chrono::{DateTime, Utc};
use pgtenant_model::CheckResult;

use crate::error::PostgresError;
use crate::observed::HALF_MADE_LIMIT;
use crate::server::Server;
use crate::session::Session;
use crate::sql::{drop_unforced, ident};
use crate::version::ServerVersion;

use self::statements::Role;

pub use self::extensions::{extension_problems, try_extensions};
pub use self::logins::try_logins;

/// What a database is called in which things are tried, as a regular expression. No claim's name has an underscore.
pub(crate) const TRIAL_NAME: &str = "^pgtenant_preflight_[0-9a-f]{12}$";

/// How a capability's trial went, and what works; or what is missing, and the statement that mends it.
pub type Trial = (CheckResult, String);

/// What trials have to know of a server.
#[derive(Debug, Clone)]
pub struct ServerBasics {
    /// Its version.
    pub version: ServerVersion,
    /// Its clock.
    pub clock: DateTime<Utc>,
    /// Who makes roles and databases: the provisioner, or the group that it acts as.
    pub current_user: String,
}

/// A database in which things are tried; [`Sandbox::close`] drops it.
#[derive(Debug)]
pub struct Sandbox {
    database: String,
    inside: Session,
}

fn passed(what: impl Into<String>) -> Trial {
    (CheckResult::Passed, what.into())
}

/// Asks for what trials have to know.
///
/// # Errors
/// The server did not answer.
pub async fn server_basics(session: &mut Session) -> Result<ServerBasics, PostgresError> {
    const BASICS: &str = "SELECT current_setting('server_version_num') || ' ' || \
         (extract(epoch FROM clock_timestamp()) * 1000)::bigint || ' ' || current_user";
    let what = "ask for version and clock";
    let answer = session.texts(what, BASICS, &[]).await?.into_iter().flatten().next().unwrap_or_default();
    let mut parts = answer.splitn(3, ' ');
    let mut next = || parts.next().unwrap_or_default();
    let (version, clock, current_user) = (next().parse().ok(), next().parse().ok(), next().to_owned());
    let basics = version.map(ServerVersion::new).zip(clock.and_then(DateTime::from_timestamp_millis));
    let (version, clock) = basics
        .ok_or_else(|| PostgresError::Answer { what: what.to_owned(), reason: "it is not two numbers".to_owned() })?;
    Ok(ServerBasics { version, clock, current_user })
}

/// Logins with passwords, roles in roles, acting as another role: what each claim takes.
///
/// # Errors
/// The server did not answer; a refusal is the trial's outcome.
pub async fn try_roles(session: &mut Session, basics: &ServerBasics) -> Result<Trial, PostgresError> {
    let (role, second) = (Role::new(basics.version), Role::new(basics.version));
    let mut all = vec!["BEGIN".to_owned()];
    all.extend(role.make());
    all.push(second.create());
    all.extend([
        format!("COMMENT ON ROLE {} IS 'pgtenant: a trial'", role.name()),
        format!("GRANT {} TO {}", role.name(), second.name()),
        format!("ALTER ROLE {} SET role = {}", second.name(), role.name()),
        format!("ALTER ROLE {} CONNECTION LIMIT 1 VALID UNTIL 'infinity'", role.name()),
        format!("SET LOCAL ROLE {}", role.name()),
        "RESET ROLE".to_owned(),
        format!("ALTER ROLE {} NOLOGIN", role.name()),
        format!("DROP ROLE {}", second.name()),
        "ROLLBACK".to_owned(),
    ]);
    let deadline = session.timeouts().statement;
    let tried = statements::run(session, &all, deadline).await;
    // Whatever is refused ends the transaction, and with it all that was made; the session is not used again.
    session.spoil();
    Ok(match tried? {
        None => passed("logins, passwords, memberships and SET ROLE work"),
        Some(refusal) => refusal.told(basics),
    })
}

/// `CREATE DATABASE` can not be rolled back: it is made closed, with the mark of those that were never open, and open to the
/// provisioner alone. What a killed process leaves is [half made](crate::half_made), and dropped by the cluster's inspection.
///
/// # Errors
/// As [`try_roles`]; and the trial, where it was refused.
pub async fn try_database(
    server: &Server,
    session: &mut Session,
    basics: &ServerBasics,
) -> Result<Result<Sandbox, Trial>, PostgresError> {
    let database = format!("pgtenant_preflight_{:012x}", rand::random::<u64>() >> 16);
    let name = ident(&database);
    let create = format!(
        "CREATE DATABASE {name} TEMPLATE {} ALLOW_CONNECTIONS false CONNECTION LIMIT {HALF_MADE_LIMIT}",
        ident(basics.version.template())
    );
    let limits = session.timeouts();
    if let Some(refusal) = statements::run(session, &[create], limits.database).await? {
        return Ok(Err(refusal.told(basics)));
    }
    let opened = open(server, session, &database, basics).await;
    if !matches!(opened, Ok(Ok(_))) {
        drop_database(server, &database).await?;
    }
    opened
}

async fn open(
    server: &Server,
    session: &mut Session,
    database: &str,
    basics: &ServerBasics,
) -> Result<Result<Sandbox, Trial>, PostgresError> {
    let (name, limits) = (ident(database), session.timeouts());
    // In one transaction, so that there is no moment in which somebody else could enter.
    let open =
        [format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"), format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")];
    if let Some(refusal) = statements::run(session, &open, limits.statement).await? {
        return Ok(Err(refusal.told(basics)));
    }
    let mut inside = match server.inside(database).await {
        Ok(inside) => inside,
        Err(error) if error.sqlstate().is_some() => return Ok(Err(statements::told(&error))),
        Err(error) => return Err(error),
    };
    let (role, other) = (Role::new(basics.version), Role::new(basics.version));
    let mut all = vec!["BEGIN".to_owned()];
    all.extend(role.make());
    all.push(other.create());
    all.extend(role.own(database));
    all.extend([
        format!("GRANT USAGE ON SCHEMA public TO {}", other.name()),
        format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA public GRANT SELECT ON TABLES TO {}",
            role.name(),
            other.name()
        ),
        "ROLLBACK".to_owned(),
    ]);
    Ok(match statements::run(&mut inside, &all, limits.statement).await? {
        None => Ok(Sandbox { database: database.to_owned(), inside }),
        Some(refusal) => Err(refusal.told(basics)),
    })
}

impl Sandbox {
    /// Drops it.
    ///
    /// # Errors
    /// As [`try_roles`].
    pub async fn close(self, server: &Server) -> Result<Trial, PostgresError> {
        let Self { database, inside } = self;
        drop(inside);
        Ok(match drop_database(server, &database).await? {
            None => passed("the database was dropped, with all that was made in it"),
            Some(refused) => refused,
        })
    }
}

/// Waits for a session of ours that is still closing: the group that we act as could not end it by FORCE, and nobody else was let in.
async fn drop_database(server: &Server, database: &str) -> Result<Option<Trial>, PostgresError> {
    let mut session = server.maintenance().await?;
    let deadline = session.timeouts().database;
    let refusal = statements::run(&mut session, &[drop_unforced(database)], deadline).await?;
    Ok(refusal.map(|refusal| refusal.plain()))
}
