//! Which databases are due to be dumped, and how old their dumps are.

use chrono::{DateTime, Utc};
use pgtenant_model::ClaimKey;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{LedgerError, Result};

/// A claim that is due to be dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueBackup {
    /// The claim.
    pub claim: Uuid,
    /// Who it is.
    pub key: ClaimKey,
    /// Nobody has said yet when it is due.
    pub first: bool,
    /// A dump of it was made, on whoever's wish.
    pub dumped: bool,
}

/// Claims of `cluster` that can be used and whose dump is due, or of which nobody has said when; each to one caller alone until the
/// end of the transaction.
///
/// # Errors
/// The ledger did not answer.
pub async fn due_backups(db: &mut PgConnection, cluster: &str, limit: i64) -> Result<Vec<DueBackup>> {
    let rows: Vec<(Uuid, String, String, bool, bool)> = sqlx::query_as(
        "select id, namespace, name, backup_at is null, dumped_at is not null from claims
         where cluster = $1 and wish = 'present' and roles is not null and held_by is null
           and state in ('Ready', 'Degraded')
           and (backup_at is null or backup_at <= now())
         order by backup_at nulls first limit $2 for update skip locked",
    )
    .bind(cluster)
    .bind(limit)
    .fetch_all(db)
    .await?;
    let due = |(claim, namespace, name, first, dumped)| {
        let key = ClaimKey::new(namespace, name);
        let key = key.map_err(|error| LedgerError::Unknown { what: "claim", value: error.value })?;
        Ok(DueBackup { claim, key, first, dumped })
    };
    rows.into_iter().map(due).collect()
}

/// Says when a claim's next dump is due.
///
/// # Errors
/// The ledger did not answer.
pub async fn set_backup_at(db: &mut PgConnection, claim: Uuid, at: DateTime<Utc>) -> Result<()> {
    sqlx::query("update claims set backup_at = $2 where id = $1").bind(claim).bind(at).execute(db).await?;
    Ok(())
}

/// Claims of `cluster` that were removed before an instant, and are not there again.
///
/// # Errors
/// The ledger did not answer.
pub async fn removed_before(db: &mut PgConnection, cluster: &str, before: DateTime<Utc>) -> Result<Vec<ClaimKey>> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select namespace, name from claims_removed r where cluster = $1 and removed_at < $2
           and not exists (select from claims c where (c.namespace, c.name) = (r.namespace, r.name) and c.cluster = $1)",
    )
    .bind(cluster)
    .bind(before)
    .fetch_all(db)
    .await?;
    let key = |(namespace, name)| {
        ClaimKey::new(namespace, name).map_err(|error| LedgerError::Unknown { what: "claim", value: error.value })
    };
    rows.into_iter().map(key).collect()
}

/// Nothing is left of a removed claim, nor is there anything to remember.
///
/// # Errors
/// The ledger did not answer.
pub async fn forget_removed(db: &mut PgConnection, cluster: &str, key: &ClaimKey) -> Result<()> {
    let done = sqlx::query("delete from claims_removed where cluster = $1 and namespace = $2 and name = $3");
    done.bind(cluster).bind(key.namespace()).bind(key.name()).execute(db).await?;
    Ok(())
}

/// How old a database's dumps are.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct BackupAge {
    /// The cluster.
    pub cluster: String,
    /// The tenant.
    pub namespace: String,
    /// The claim.
    pub name: String,
    /// When the claim was made.
    pub created_at: DateTime<Utc>,
    /// What the newest dump shows.
    pub dumped_at: Option<DateTime<Utc>>,
    /// What the newest dump shows that was restored for a try.
    pub verified_at: Option<DateTime<Utc>>,
}

/// Of every claim of these clusters that is managed.
///
/// # Errors
/// The ledger did not answer.
pub async fn backup_ages(db: &mut PgConnection, clusters: &[String]) -> Result<Vec<BackupAge>> {
    Ok(sqlx::query_as(
        "select cluster, namespace, name, created_at, dumped_at, verified_at from claims
         where cluster = any($1) and wish = 'present'",
    )
    .bind(clusters)
    .fetch_all(db)
    .await?)
}

/// A dump that was made, or (`verified`) restored for a try, shows the database as it was `at`.
///
/// # Errors
/// The ledger did not answer.
pub async fn note_dump(db: &mut PgConnection, claim: Uuid, at: DateTime<Utc>, verified: bool) -> Result<()> {
    sqlx::query(
        "update claims set dumped_at = greatest(dumped_at, $2),
                verified_at = case when $3 then greatest(verified_at, $2) else verified_at end
         where id = $1",
    )
    .bind(claim)
    .bind(at)
    .bind(verified)
    .execute(db)
    .await?;
    Ok(())
}
