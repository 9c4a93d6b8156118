//! Who did what.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use crate::Result;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// As `token:ci`, `apps:idp-dev/orders/values.yaml`, `engine`.
    pub name: String,
    /// The request's id, where there is a request.
    pub request_id: Option<String>,
}

impl Actor {
    /// An actor without a request.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), request_id: None }
    }
}

/// A line of the audit.
#[derive(Debug, Clone, PartialEq, serde::Serialize, sqlx::FromRow)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Grows with time.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// What was done, as `database.create`.
    pub action: String,
    /// To which tenant.
    pub namespace: Option<String>,
    /// To which claim, token or cluster.
    pub name: Option<String>,
    /// In which request.
    pub request_id: Option<String>,
    /// Values before and after.
    pub detail: Value,
}

/// Writes a line in the transaction of the change that it tells of.
///
/// # Errors
/// The ledger did not answer.
pub async fn write_audit(
    db: &mut PgConnection,
    actor: &Actor,
    action: &str,
    target: (Option<&str>, Option<&str>),
    detail: &Value,
) -> Result<()> {
    sqlx::query(
        "insert into audit (actor, action, namespace, name, request_id, detail) values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&actor.name)
    .bind(action)
    .bind(target.0)
    .bind(target.1)
    .bind(&actor.request_id)
    .bind(detail)
    .execute(db)
    .await?;
    Ok(())
}

/// The newest lines first, below `before`; only those of `namespaces` where given.
///
/// # Errors
/// The ledger did not answer.
pub async fn audit_page(
    db: &mut PgConnection,
    namespaces: Option<&[String]>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<AuditEntry>> {
    Ok(sqlx::query_as(
        "select id, at, actor, action, namespace, name, request_id, detail from audit
         where ($1::text[] is null or namespace = any($1)) and ($2::bigint is null or id < $2)
         order by id desc limit $3",
    )
    .bind(namespaces)
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await?)
}
