//! What is on a cluster that no claim asks for any more.

use pgtenant_model::ClaimKey;
use tokio_postgres::types::Type;

use crate::change::{Change, DatabaseChange, RoleChange};
use crate::comment::{PUT_ASIDE, parse_database_comment};
use crate::error::PostgresError;
use crate::observed::HALF_MADE_LIMIT;
use crate::session::{Parameter, Session};
use crate::sql::DEPENDED_ON;
use crate::version::OWN_TEMPLATE;

/// Databases that a `CREATE DATABASE` left which was not followed by the rest: closed, without comment, the provisioner's,
/// and with the mark of those that were never open, or of those (-2) of which an interrupted drop has left nothing that
/// could be used. Those that no claim is being made for may be dropped.
///
/// # Errors
/// What the server says.
pub async fn half_made(session: &mut Session) -> Result<Vec<String>, PostgresError> {
    const HALF_MADE: &str = "SELECT d.datname::text FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba \
         WHERE r.rolname = current_user AND NOT d.datallowconn AND d.datname <> $1 \
         AND d.datconnlimit IN ($2, -2) AND shobj_description(d.oid, 'pg_database') IS NULL ORDER BY 1";
    let parameters: [Parameter<'_>; 2] = [(&OWN_TEMPLATE, Type::TEXT), (&HALF_MADE_LIMIT, Type::INT4)];
    let names = session.texts("look for half-made databases", HALF_MADE, &parameters).await?;
    Ok(names.into_iter().flatten().collect())
}

/// Drops a database that [`half_made`] named and that nobody claims. It was never open, so nothing is in it.
///
/// # Errors
/// What the server says.
pub async fn drop_half_made(session: &mut Session, database: &str) -> Result<(), PostgresError> {
    let change = Change::Database(DatabaseChange::Drop { database: database.to_owned() });
    let deadline = session.timeouts().database;
    let dropped = session.batch(&change.statements().join(";\n"), deadline).await;
    dropped.map_err(|failure| failure.cause.into_error(&change.text()))
}

/// Every claim that a database of the cluster says it is, so that a ledger can be rebuilt.
///
/// # Errors
/// What the server says.
pub async fn claims_on_cluster(session: &mut Session) -> Result<Vec<ClaimKey>, PostgresError> {
    const COMMENTS: &str = "SELECT shobj_description(d.oid, 'pg_database') FROM pg_database d ORDER BY d.datname";
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
