//! Wishes for new passwords.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgtenant_model::{ClaimKey, OperationKind, ProvisionerStatus, Tier};
use serde_json::json;
use sqlx::PgConnection;

use crate::claim::{ClaimRow, claim_columns};
use crate::wish::{locked, record};
use crate::{Actor, Claim, LedgerError, Refused, Wish, Written, announce, write_audit};

/// Asks for new passwords of `tiers`.
///
/// # Errors
/// See [`Refused`].
pub async fn rotate(db: &mut PgConnection, key: &ClaimKey, tiers: &[Tier], actor: &Actor) -> Result<Written, Refused> {
    let claim = locked(db, key).await?.ok_or_else(|| Refused::NotFound(key.clone()))?;
    match claim.wish {
        Wish::Present => {}
        Wish::Retained => return Err(Refused::Retained(claim.key)),
        Wish::Absent => return Err(Refused::Deleting(claim.key)),
    }
    let names: Vec<&str> = tiers.iter().map(|tier| tier.as_str()).collect();
    let before = claim.clone();
    let row: ClaimRow = sqlx::query_as(concat!(
        "update claims set rotate = (select array_agg(distinct tier) from unnest(rotate || $2) tier),
                rotate_at = null, asked_at = now(), generation = generation + 1, urgent = true, due_at = now(), attempts = 0,
                wished_at = now()
         where id = $1 returning ",
        claim_columns!()
    ))
    .bind(claim.id)
    .bind(&names)
    .fetch_one(&mut *db)
    .await?;
    record(db, &before, Claim::try_from(row)?, OperationKind::Rotate, actor).await
}

/// How far a cluster is with its new passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Rotating {
    /// Claims that wait for new ones.
    pub left: i64,
    /// Those of them whose last try has failed.
    pub failing: i64,
}

/// Asks for new passwords of every claim of `cluster`, one claim each `pace`. Those that wait already keep their turn. Says for
/// how many.
///
/// # Errors
/// The ledger did not answer.
pub async fn rotate_cluster(
    db: &mut PgConnection,
    cluster: &str,
    pace: Duration,
    actor: &Actor,
) -> Result<u64, LedgerError> {
    let done = sqlx::query(
        "with asked as (
             select id as asked_id, row_number() over (order by namespace, name) - 1 as place from claims
             where cluster = $1 and wish = 'present' and not rotate @> $2)
         update claims set rotate = $2, asked_at = now(),
                woken = woken or (rotate <> '{}' and rotate_at is null and coalesce(lease_until > now(), false)),
                rotate_at = case when rotate = '{}' or rotate_at is not null then now() + place * $3 * interval '1 second' end
         from asked where id = asked_id",
    )
    .bind(cluster)
    .bind(Tier::ALL.map(Tier::as_str))
    .bind(pace.as_secs_f64())
    .execute(&mut *db)
    .await?;
    let detail = json!({"claims": done.rows_affected(), "seconds": pace.as_secs_f64()});
    write_audit(db, actor, "cluster.rotate", (None, Some(cluster)), &detail).await?;
    announce(db, true, None).await?;
    Ok(done.rows_affected())
}

/// Asks for another password of the control plane's own login to `cluster`; says when.
///
/// # Errors
/// The ledger did not answer, or there is no such cluster.
pub async fn ask_for_login(db: &mut PgConnection, cluster: &str, actor: &Actor) -> Result<DateTime<Utc>, LedgerError> {
    let asked =
        sqlx::query_scalar("update clusters set login_asked_at = now() where name = $1 returning login_asked_at")
            .bind(cluster)
            .fetch_one(&mut *db)
            .await?;
    write_audit(db, actor, "cluster.rotateProvisioner", (None, Some(cluster)), &json!({})).await?;
    Ok(asked)
}

/// What is known of the control plane's own login to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LoginWish {
    /// When somebody last asked for another password.
    pub asked_at: Option<DateTime<Utc>>,
    /// The ledger's clock.
    pub now: DateTime<Utc>,
    /// The login that some replica has last seen in use.
    #[sqlx(json(nullable))]
    pub seen: Option<ProvisionerStatus>,
}

/// What is known of the control plane's own login to `cluster`; none: there is no such cluster.
///
/// # Errors
/// The ledger did not answer.
pub async fn login_wish(db: &mut PgConnection, cluster: &str) -> Result<Option<LoginWish>, LedgerError> {
    Ok(sqlx::query_as(
        "select login_asked_at as asked_at, now() as now, status -> 'provisioner' as seen from clusters where name = $1",
    )
    .bind(cluster)
    .fetch_optional(db)
    .await?)
}

/// How far a cluster is with its new passwords.
///
/// # Errors
/// The ledger did not answer.
pub async fn rotating(db: &mut PgConnection, cluster: &str) -> Result<Rotating, LedgerError> {
    Ok(sqlx::query_as(
        "select count(*) as left, count(*) filter (where attempts > 0) as failing from claims
         where cluster = $1 and wish = 'present' and rotate <> '{}'",
    )
    .bind(cluster)
    .fetch_one(db)
    .await?)
}
