//! A copy of a whole cluster is for one restore alone: every login but the one that is connected is shut, and PUBLIC too.

use crate::error::PostgresError;
use crate::session::Session;
use crate::sql::ident;

/// Logins that could come in, apart from those of the platform: `rdsadmin` and its like, whose passwords nobody has. A tenant's role
/// has a hyphen in its name.
const LOGINS: &str = "SELECT rolname::text FROM pg_roles WHERE rolcanlogin AND NOT rolsuper AND rolname <> session_user \
     AND rolname !~ '^(pg_|rds)[a-z_]*$' ORDER BY 1";

/// Roles that manage others, that this login may manage, and whose rights it does not have yet. From 16 on CREATEROLE alone manages
/// only what it has made itself.
const MANAGERS: &str = "SELECT DISTINCT m.rolname::text FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member \
     WHERE a.admin_option AND NOT m.rolsuper AND m.rolname <> session_user \
     AND pg_has_role(session_user, m.oid, 'MEMBER WITH ADMIN OPTION') AND NOT pg_has_role(session_user, m.oid, 'USAGE') \
     ORDER BY 1";

/// Databases that PUBLIC may connect to.
const OPEN: &str = "SELECT d.datname::text FROM pg_database d WHERE d.datallowconn AND EXISTS (SELECT FROM \
     aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT') \
     ORDER BY 1";

/// Sessions of everybody but superusers and this login.
const END_SESSIONS: &str = "SELECT count(pg_terminate_backend(s.pid)) FROM pg_stat_activity s JOIN pg_roles r ON r.oid = s.usesysid \
     WHERE s.backend_type = 'client backend' AND NOT r.rolsuper AND r.rolname <> session_user AND r.rolname !~ '^(pg_|rds)[a-z_]*$'";

/// How often managers are looked for anew: each may show others.
const MOST_ROUNDS: usize = 4;

/// Takes the right to log in from every role but this login and the platform's own, CONNECT from PUBLIC where this login may, and
/// ends the sessions that there are. Says whose login could not be shut: then nothing may be read. It may be done again.
///
/// The login is one with CREATEROLE that the others were made by, or whose group they were made by, as RDS's master login.
///
/// # Errors
/// What the server says, apart from the refusal to change a role or a database.
pub async fn shut_logins(session: &mut Session) -> Result<Vec<String>, PostgresError> {
    let what = "shut the copy";
    for _ in 0..MOST_ROUNDS {
        let managers = session.texts("look for roles that manage others", MANAGERS, &[]).await?;
        if managers.is_empty() {
            break;
        }
        for manager in managers.into_iter().flatten() {
            allowed(run(session, what, &format!("GRANT {} TO SESSION_USER", ident(&manager))).await)?;
        }
    }
    for login in logins(session).await? {
        allowed(run(session, what, &format!("ALTER ROLE {} NOLOGIN", ident(&login))).await)?;
    }
    // Where this login does not own the database, that is a warning and no error, and changes nothing.
    for database in session.texts("look for open databases", OPEN, &[]).await?.into_iter().flatten() {
        allowed(run(session, what, &format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", ident(&database))).await)?;
    }
    run(session, "end the sessions on the copy", END_SESSIONS).await?;
    logins(session).await
}

async fn logins(session: &mut Session) -> Result<Vec<String>, PostgresError> {
    Ok(session.texts("look for logins", LOGINS, &[]).await?.into_iter().flatten().collect())
}

async fn run(session: &mut Session, what: &str, sql: &str) -> Result<(), PostgresError> {
    let deadline = session.timeouts().statement;
    session.batch(sql, deadline).await.map_err(|failure| failure.cause.into_error(what))
}

/// What is refused shows in what is left.
fn allowed(result: Result<(), PostgresError>) -> Result<(), PostgresError> {
    match result {
        Err(error) if error.sqlstate() == Some("42501") => Ok(()),
        result => result,
    }
}
