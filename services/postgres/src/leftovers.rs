//! What is on a cluster that no claim asks for any more.

use std::time::Duration;

use pgtenant_model::ClaimKey;
use tokio_postgres::types::Type;

use crate::change::{Change, RoleChange};
use crate::comment::{PUT_ASIDE, parse_database_comment};
use crate::error::PostgresError;
use crate::observed::HALF_MADE_LIMIT;
use crate::session::{Parameter, Session};
use crate::sql::{DEPENDED_ON, drop_unforced, idle_session_timeout};
use crate::trial::TRIAL_NAME;
use crate::version::OWN_TEMPLATE;

/// How long the answer is believed that nobody claims a database.
const LONGEST_DOUBT: Duration = Duration::from_secs(2);

/// Databases that a `CREATE DATABASE` left which was not followed by the rest: closed, without comment, the provisioner's,
/// and with the mark of those that were never open, or of those (-2) of which an interrupted drop has left nothing that
/// could be used. Those that no claim is being made for may be dropped. And what a [trial](crate::try_database) left that was
/// killed: its name is no claim's, and only the provisioner was let in.
///
/// # Errors
/// What the server says.
pub async fn half_made(session: &mut Session) -> Result<Vec<String>, PostgresError> {
    const HALF_MADE: &str = "SELECT d.datname::text FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba \
         WHERE r.rolname = current_user AND shobj_description(d.oid, 'pg_database') IS NULL \
         AND (NOT d.datallowconn AND d.datname <> $1 AND d.datconnlimit IN ($2, -2) OR d.datname ~ $3) ORDER BY 1";
    let parameters: [Parameter<'_>; 3] =
        [(&OWN_TEMPLATE, Type::TEXT), (&HALF_MADE_LIMIT, Type::INT4), (&TRIAL_NAME, Type::TEXT)];
    let names = session.texts("look for half-made databases", HALF_MADE, &parameters).await?;
    Ok(names.into_iter().flatten().collect())
}

/// Drops a database that [`half_made`] named, unless somebody claims it. No tenant was ever let in, so nothing is in it. False: it
/// is claimed. `session` is not used again after this.
///
/// `DROP DATABASE` can not be in a transaction, so nothing that is sent with it can look whether it still may be dropped.
/// Before the question the server is told to end the session when nothing arrives: a process that stalls after the answer
/// drops nothing that was claimed meanwhile. FORCE would end the sessions of those who did.
///
/// # Errors
/// What the server says, and why `claimed` has no answer.
pub async fn drop_half_made<E: From<PostgresError>>(
    session: &mut Session,
    database: &str,
    claimed: impl Future<Output = Result<bool, E>>,
) -> Result<bool, E> {
    let timeouts = session.timeouts();
    let what = format!("drop the half-made database {database:?}");
    session.spoil();
    let fenced = session.batch(&idle_session_timeout(LONGEST_DOUBT), timeouts.statement).await;
    fenced.map_err(|failure| failure.cause.into_error(&what))?;
    if claimed.await? {
        return Ok(false);
    }
    let dropped = session.batch(&drop_unforced(database), timeouts.database).await;
    dropped.map_err(|failure| failure.cause.into_error(&what))?;
    Ok(true)
}

/// Every claim that a database of the provisioner's says it is, so that a ledger can be rebuilt, or compared.
///
/// # Errors
/// What the server says.
pub async fn claims_on_cluster(session: &mut Session) -> Result<Vec<ClaimKey>, PostgresError> {
    const COMMENTS: &str = "SELECT shobj_description(d.oid, 'pg_database') FROM pg_database d \
         JOIN pg_roles r ON r.oid = d.datdba WHERE r.rolname = current_user ORDER BY d.datname";
    let comments = session.texts("read the databases' comments", COMMENTS, &[]).await?;
    Ok(comments.iter().flatten().filter_map(|text| parse_database_comment(text)).collect())
}

/// Drops the roles that a removal has put aside, since others had given them privileges, and that have none any more.
/// Says which.
///
/// # Errors
/// What the server says.
pub async fn drop_roles_put_aside(session: &mut Session) -> Result<Vec<String>, PostgresError> {
    // The name is made of the number, so that no other role is taken for one of these.
    const FREE: &str = "SELECT r.rolname::text FROM pg_roles r \
         WHERE r.rolname = 'pgtenant_dropped_' || r.oid AND starts_with(shobj_description(r.oid, 'pg_authid'), $1) \
         AND NOT EXISTS (SELECT FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid) \
         ORDER BY r.oid";
    let free = session.texts("look for roles that were put aside", FREE, &[(&PUT_ASIDE, Type::TEXT)]).await?;
    let mut dropped = Vec::new();
    for role in free.into_iter().flatten() {
        let change = Change::Role(RoleChange::Drop { role: role.clone() });
        let deadline = session.timeouts().statement;
        match session.batch(&change.statements().join(";\n"), deadline).await {
            Ok(()) => dropped.push(role),
            // Given a privilege again meanwhile.
            Err(failure) if failure.cause.sqlstate() == Some(DEPENDED_ON) => {}
            Err(failure) => return Err(failure.cause.into_error(&change.text())),
        }
    }
    Ok(dropped)
}
