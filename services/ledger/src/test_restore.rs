//! Tests of what is kept of a whole cluster: by the schedule one database of it is restored, another one each time.

use chrono::{DateTime, Utc};
use pgtenant_model::{ClaimKey, RestorePhase, RestorePoint, RestoreSpec, RestoreStrategy, SnapshotId, SnapshotKind};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::event::json_name;
use crate::restore::announce;
use crate::{Actor, LedgerError, Result, write_audit};

/// What became of a cluster's tests by the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, sqlx::FromRow)]
pub struct LastTest {
    /// One is under way, or somebody waits for a restore: now is no time for another one.
    pub busy: bool,
    /// When the first one was asked for.
    pub first: Option<DateTime<Utc>>,
    /// When the last one was asked for that was good.
    pub good: Option<DateTime<Utc>>,
    /// When the last one was asked for.
    pub last: Option<DateTime<Utc>>,
}

/// What became of a cluster's tests by the schedule. The cluster is locked until the end of the transaction: whoever wants to ask for a
/// test meanwhile waits here.
///
/// # Errors
/// The ledger did not answer.
pub async fn last_test(db: &mut PgConnection, cluster: &str) -> Result<LastTest> {
    sqlx::query("select from clusters where name = $1 for update").bind(cluster).execute(&mut *db).await?;
    Ok(sqlx::query_as(concat!(
        "select coalesce(bool_or(finished_at is null), false) or ",
        crate::restore_work::somebody_waits!("$1"),
        " as busy, min(created_at) as first, max(created_at) filter (where phase = 'Succeeded') as good,
                max(created_at) as last
         from restores where cluster = $1 and scheduled"
    ))
    .bind(cluster)
    .fetch_one(db)
    .await?)
}

/// Asks for a test of a snapshot of the whole cluster that shows it as it was `at`, of the database that was tested least lately. None:
/// no claim that can be used is as old as the snapshot.
///
/// # Errors
/// The ledger did not answer.
pub async fn ask_test(
    db: &mut PgConnection,
    cluster: &str,
    snapshot: &SnapshotId,
    at: DateTime<Utc>,
    actor: &Actor,
) -> Result<Option<ClaimKey>> {
    let spec = RestoreSpec {
        from: RestorePoint { snapshot: Some(snapshot.clone()), time: None, latest: false },
        strategy: RestoreStrategy::Test,
        copy_name: None,
        reason: None,
    };
    let id = Uuid::now_v7();
    let asked: Option<(String, String)> = sqlx::query_as(
        "insert into restores (id, claim, namespace, name, cluster, spec, phase, requested_by, scheduled)
         select $1, c.id, c.namespace, c.name, c.cluster, $3, $4, $5, true from claims c
         where c.cluster = $2 and c.wish = 'present' and c.roles is not null and c.state in ('Ready', 'Degraded')
           and c.created_at <= $6
         order by (select max(r.created_at) from restores r
                   where r.cluster = $2 and r.claim = c.id and r.scheduled) nulls first, c.id
         limit 1
         on conflict (claim, (spec ->> 'strategy' = 'test')) where finished_at is null do nothing returning namespace, name",
    )
    .bind(id)
    .bind(cluster)
    .bind(Json(&spec))
    .bind(json_name(RestorePhase::Approved))
    .bind(&actor.name)
    .bind(at)
    .fetch_optional(&mut *db)
    .await?;
    let Some((namespace, name)) = asked else { return Ok(None) };
    let detail = serde_json::json!({"restore": id, "spec": spec});
    write_audit(db, actor, "restore.request", (Some(&namespace), Some(&name)), &detail).await?;
    announce(db, id).await?;
    let key = ClaimKey::new(namespace, name);
    Ok(Some(key.map_err(|error| LedgerError::Unknown { what: "claim", value: error.value })?))
}

/// What is kept of a whole cluster and was restored and found whole, of one claim or of any, and when that was last done, on whoever's
/// wish.
///
/// # Errors
/// The ledger did not answer.
pub async fn tested(
    db: &mut PgConnection,
    cluster: &str,
    claim: Option<&ClaimKey>,
) -> Result<Vec<(SnapshotId, DateTime<Utc>)>> {
    let rows: Vec<(String, DateTime<Utc>)> = sqlx::query_as(
        "select snapshot, max(finished_at) from restores
         where cluster = $1 and spec ->> 'strategy' = 'test' and phase = 'Succeeded' and snapshot is not null
           and ($2::text is null or (namespace, name) = ($2, $3)) group by 1",
    )
    .bind(cluster)
    .bind(claim.map(ClaimKey::namespace))
    .bind(claim.map(ClaimKey::name))
    .fetch_all(db)
    .await?;
    let known = rows.into_iter().filter_map(|(id, at)| Some((id.parse::<SnapshotId>().ok()?, at)));
    Ok(known.filter(|(id, _)| id.kind() != SnapshotKind::Dump).collect())
}
