//! `Idempotency-Key`: the answer to a request is stored in the transaction of its effect.

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Result;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Idempotency {
    /// Never seen: do the work, then [`finish_idempotent`] in the same transaction.
    Fresh,
    /// Seen with the same request: answer this again.
    Replay {
        /// HTTP status.
        status: u16,
        /// The body.
        response: Value,
    },
    /// Seen with another request.
    Mismatch,
}

/// Claims `key` for this transaction; a concurrent request with the same key waits here for the other's end.
///
/// # Errors
/// The ledger did not answer.
pub async fn begin_idempotent(db: &mut PgConnection, token: Uuid, key: &str, request: &[u8]) -> Result<Idempotency> {
    let fresh =
        sqlx::query("insert into idempotency_keys (token, key, request) values ($1, $2, $3) on conflict do nothing")
            .bind(token)
            .bind(key)
            .bind(request)
            .execute(&mut *db)
            .await?;
    if fresh.rows_affected() == 1 {
        return Ok(Idempotency::Fresh);
    }
    let (stored, status, response): (Vec<u8>, Option<i32>, Option<Value>) =
        sqlx::query_as("select request, status, response from idempotency_keys where token = $1 and key = $2")
            .bind(token)
            .bind(key)
            .fetch_one(db)
            .await?;
    Ok(match (stored == request, status, response) {
        (true, Some(status), Some(response)) => {
            Idempotency::Replay { status: u16::try_from(status).unwrap_or(500), response }
        }
        _ => Idempotency::Mismatch,
    })
}

/// Stores the answer under a key that is [`Idempotency::Fresh`].
///
/// # Errors
/// The ledger did not answer.
pub async fn finish_idempotent(
    db: &mut PgConnection,
    token: Uuid,
    key: &str,
    status: u16,
    response: &Value,
) -> Result<()> {
    sqlx::query("update idempotency_keys set status = $3, response = $4 where token = $1 and key = $2")
        .bind(token)
        .bind(key)
        .bind(i32::from(status))
        .bind(response)
        .execute(db)
        .await?;
    Ok(())
}
