//! What a server says of itself: who is logged in, what it is, how much there is.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use crate::error::PostgresError;
use crate::session::Session;
use crate::version::ServerVersion;

/// `pg_stat_activity` shows every login the number of everybody's sessions, and nothing more of others'
/// (PostgreSQL 14 to 18, "The Cumulative Statistics System"). Sessions on standbys are not seen.
const SESSIONS: &str = "SELECT DISTINCT usename::text FROM pg_stat_activity WHERE usename = ANY ($1)";

/// Those of `logins` that have sessions on this server.
///
/// # Errors
/// What the server says.
pub async fn logged_in(session: &mut Session, logins: &[String]) -> Result<Vec<String>, PostgresError> {
    let parameters = [(&logins as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT_ARRAY)];
    let rows = session.texts("look for sessions of former logins", SESSIONS, &parameters).await?;
    Ok(rows.into_iter().flatten().collect())
}

/// Of roles that are neither the database's owner nor act for it; a superuser does both, and is somebody else. Workers of the
/// server itself have no user.
const STRANGERS: &str = "SELECT DISTINCT usename::text FROM pg_stat_activity a JOIN pg_database d ON d.oid = a.datid \
       JOIN pg_roles r ON r.oid = a.usesysid \
     WHERE a.datname = $1 AND r.rolname <> ALL ($2) AND (r.rolsuper OR NOT pg_has_role(r.oid, d.datdba, 'MEMBER')) \
     UNION ALL SELECT format('%s (prepared transaction %L)', owner, gid) FROM pg_prepared_xacts WHERE database = $1";

/// Who is in a database, or has left a prepared transaction there, beside its owner and `logins`.
///
/// # Errors
/// What the server says.
pub async fn strangers(session: &mut Session, database: &str, logins: &[String]) -> Result<Vec<String>, PostgresError> {
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&database, Type::TEXT), (&logins, Type::TEXT_ARRAY)];
    let rows = session.texts("look for sessions of others", STRANGERS, &parameters).await?;
    Ok(rows.into_iter().flatten().collect())
}

/// What the server is.
///
/// # Errors
/// What the server says.
pub async fn server_version(session: &mut Session) -> Result<ServerVersion, PostgresError> {
    let what = "ask for the server's version";
    let rows = session.texts(what, "SELECT current_setting('server_version_num')", &[]).await?;
    let number = rows.into_iter().flatten().next().and_then(|text| text.parse().ok());
    let fault = || PostgresError::Answer { what: what.to_owned(), reason: "it is no number".to_owned() };
    number.map(ServerVersion::new).ok_or_else(fault)
}

pub(crate) const STARTED: &str = "SELECT pg_postmaster_start_time()::text || ' ' || coalesce(inet_server_port(), 0)";

/// When the server was started and where: another answer is given by another server, or after a restart.
///
/// # Errors
/// What the server says.
pub async fn server_started(session: &mut Session) -> Result<String, PostgresError> {
    let rows = session.texts("ask when the server was started", STARTED, &[]).await?;
    Ok(rows.into_iter().flatten().next().unwrap_or_default())
}

/// Bytes that each database takes on the server.
///
/// # Errors
/// What the server says.
pub async fn databases_bytes(session: &mut Session) -> Result<BTreeMap<String, u64>, PostgresError> {
    const SIZES: &str = "SELECT json_object_agg(d.datname, coalesce(pg_database_size(d.oid), 0))::text FROM pg_database d \
         WHERE has_database_privilege(d.oid, 'CONNECT')";
    let what = "ask for the databases' sizes";
    let rows = session.texts(what, SIZES, &[]).await?;
    let text = rows.into_iter().flatten().next().unwrap_or_else(|| "{}".to_owned());
    serde_json::from_str(&text)
        .map_err(|error| PostgresError::Answer { what: what.to_owned(), reason: error.to_string() })
}
