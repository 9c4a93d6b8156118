//! Who is logged in.

use tokio_postgres::types::Type;

use crate::error::PostgresError;
use crate::session::Session;

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
