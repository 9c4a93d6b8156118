//! Shared clusters and what was last seen of them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgtenant_model::{ClusterSpec, ClusterStatus, History, Maintenance};
use serde_json::json;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{Actor, CLUSTERS_CHANNEL, LedgerError, Result, SWITCHOVERS_CHANNEL, look_soon, write_audit};

/// Who described a cluster; nobody else changes or removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterSource {
    /// The settings of `serve`.
    Settings,
    /// A `PostgresqlCluster` resource.
    Kubernetes,
}

impl ClusterSource {
    /// `settings` or `kubernetes`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Kubernetes => "kubernetes",
        }
    }
}

impl TryFrom<String> for ClusterSource {
    type Error = LedgerError;

    fn try_from(value: String) -> Result<Self> {
        match value.as_str() {
            "settings" => Ok(Self::Settings),
            "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(LedgerError::Unknown { what: "cluster source", value }),
        }
    }
}

/// A shared cluster.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Who described it.
    #[sqlx(try_from = "String")]
    pub source: ClusterSource,
    /// As the platform team describes it.
    pub spec: Json<ClusterSpec>,
    /// As it was last seen.
    pub status: Json<ClusterStatus>,
    /// When the spec last changed.
    pub updated_at: DateTime<Utc>,
    /// Nobody describes it any more, and it has claims left: it takes no new ones.
    pub removing: bool,
    /// Nothing is changed on it at the moment.
    pub maintenance: Option<Json<Maintenance>>,
}

/// [`Cluster`]'s columns.
macro_rules! columns {
    () => {
        "select name, source, spec, status, updated_at, removing, maintenance from clusters "
    };
}

/// One cluster.
///
/// # Errors
/// The ledger did not answer.
pub async fn cluster(db: &mut PgConnection, name: &str) -> Result<Option<Cluster>> {
    Ok(sqlx::query_as(concat!(columns!(), "where name = $1")).bind(name).fetch_optional(db).await?)
}

/// Every cluster, by name.
///
/// # Errors
/// The ledger did not answer.
pub async fn clusters(db: &mut PgConnection) -> Result<Vec<Cluster>> {
    Ok(sqlx::query_as(concat!(columns!(), "order by name")).fetch_all(db).await?)
}

/// Makes the clusters of the settings these. One that is no longer there is forgotten unless it has claims; the names of
/// those that have are returned.
///
/// # Errors
/// The ledger did not answer.
pub async fn put_clusters(db: &mut PgConnection, specs: &[(String, ClusterSpec)]) -> Result<Vec<String>> {
    for (name, spec) in specs {
        if put_cluster(db, name, spec, ClusterSource::Settings).await? == PutCluster::OtherSource {
            tracing::error!(
                cluster = name,
                "a PostgresqlCluster of this name is there; the one of the settings is not used"
            );
        }
    }
    let names: Vec<&str> = specs.iter().map(|(name, _)| name.as_str()).collect();
    let gone: Vec<String> =
        sqlx::query_scalar("select name from clusters where source = 'settings' and name <> all($1) order by name")
            .bind(&names)
            .fetch_all(&mut *db)
            .await?;
    let mut left = Vec::new();
    for name in gone {
        if remove_cluster(db, &name, ClusterSource::Settings).await? > 0 {
            left.push(name);
        }
    }
    Ok(left)
}

/// What became of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutCluster {
    /// It is new, or another one than before.
    Changed,
    /// It was like that already.
    Same,
    /// Somebody else has described a cluster of this name; nothing was changed.
    OtherSource,
}

/// Describes a cluster.
///
/// # Errors
/// The ledger did not answer.
pub async fn put_cluster(
    db: &mut PgConnection,
    name: &str,
    spec: &ClusterSpec,
    source: ClusterSource,
) -> Result<PutCluster> {
    let done = sqlx::query(
        "insert into clusters (name, spec, source) values ($1, $2, $3)
         on conflict (name) do update set spec = excluded.spec, removing = false,
                updated_at = case when clusters.spec = excluded.spec then clusters.updated_at else now() end
         where (clusters.spec <> excluded.spec or clusters.removing) and clusters.source = excluded.source",
    )
    .bind(name)
    .bind(Json(spec))
    .bind(source.as_str())
    .execute(&mut *db)
    .await?;
    if done.rows_affected() == 1 {
        announce_clusters(db).await?;
        return Ok(PutCluster::Changed);
    }
    let owner: String =
        sqlx::query_scalar("select source from clusters where name = $1").bind(name).fetch_one(db).await?;
    Ok(if owner == source.as_str() { PutCluster::Same } else { PutCluster::OtherSource })
}

/// Forgets a cluster of `source`, unless it has claims, or one is being moved from or to it; returns how many these are. It takes no new
/// ones from then on.
///
/// # Errors
/// The ledger did not answer.
pub async fn remove_cluster(db: &mut PgConnection, name: &str, source: ClusterSource) -> Result<i64> {
    let done = sqlx::query(
        "delete from clusters where name = $1 and source = $2
         and not exists (select from claims where claims.cluster = clusters.name)
         and not exists (select from moves where clusters.name in (moves.source, moves.target) and finished_at is null)",
    )
    .bind(name)
    .bind(source.as_str())
    .execute(&mut *db)
    .await?;
    if done.rows_affected() == 1 {
        announce_clusters(db).await?;
        return Ok(0);
    }
    sqlx::query("update clusters set removing = true where name = $1 and source = $2 and not removing")
        .bind(name)
        .bind(source.as_str())
        .execute(&mut *db)
        .await?;
    Ok(sqlx::query_scalar(
        "select (select count(*) from claims where claims.cluster = clusters.name)
              + (select count(*) from moves where clusters.name in (moves.source, moves.target) and finished_at is null)
         from clusters where clusters.name = $1 and clusters.source = $2",
    )
    .bind(name)
    .bind(source.as_str())
    .fetch_optional(db)
    .await?
    .unwrap_or(0))
}

async fn announce_clusters(db: &mut PgConnection) -> Result<()> {
    sqlx::query("select pg_notify($1, '')").bind(CLUSTERS_CHANNEL).execute(db).await?;
    Ok(())
}

/// Writes down what was seen of a cluster, and when, by the ledger's clock; returns what was there before. Of several replicas that see the same change
/// one gets the earlier status, the others the new one. An identity stays until another one is seen, and so does what is known of where the
/// data comes from.
///
/// # Errors
/// The ledger did not answer, or there is no such cluster.
pub async fn set_cluster_status(db: &mut PgConnection, name: &str, status: &ClusterStatus) -> Result<ClusterStatus> {
    let before: Json<ClusterStatus> = sqlx::query_scalar("select status from clusters where name = $1 for update")
        .bind(name)
        .fetch_one(&mut *db)
        .await?;
    let known = before.0.history.clone();
    let history = match (known, status.history.clone()) {
        (Some(known), Some(seen)) => Some(known.and(seen)),
        (known, seen) => known.or(seen),
    };
    let status = ClusterStatus { history, ..status.clone() };
    sqlx::query(
        "update clusters set status = jsonb_strip_nulls(jsonb_build_object('identity', status -> 'identity'))
                || $2 || jsonb_build_object('observedAt', now())
         where name = $1",
    )
    .bind(name)
    .bind(Json(&status))
    .execute(db)
    .await?;
    Ok(before.0)
}

/// A person says that the data of the server that takes writes is right; says whether it was that of `seen` which is refused.
///
/// # Errors
/// The ledger did not answer.
pub async fn accept_history(db: &mut PgConnection, name: &str, seen: &History, actor: &Actor) -> Result<bool> {
    let done = sqlx::query(
        "update clusters set status = jsonb_set(status, '{history}',
                jsonb_build_object('system', $2::text, 'timeline', $3::int, 'acceptedAt', now()))
         where name = $1 and status #>> '{refused,system}' = $2 and status #> '{refused,timeline}' = to_jsonb($3::int)",
    )
    .bind(name)
    .bind(&seen.system)
    .bind(seen.timeline)
    .execute(&mut *db)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    write_audit(db, actor, "cluster.accept", (None, Some(name)), &json!(seen)).await?;
    sqlx::query("select pg_notify($1, $2)").bind(SWITCHOVERS_CHANNEL).bind(name).execute(db).await?;
    Ok(true)
}

/// After a maintenance every claim is looked at within this time.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(60);

/// A restore that has closed a database, and fills it in place: whoever changes nothing on the cluster from then on leaves it closed.
///
/// # Errors
/// The ledger did not answer.
pub async fn restore_in_place(db: &mut PgConnection, cluster: &str) -> Result<Option<Uuid>> {
    let query = "select id from restores where cluster = $1 and spec ->> 'strategy' = 'replace' and finished_at is null
                 and phase not in ('Requested', 'Approved') order by id limit 1";
    Ok(sqlx::query_scalar(query).bind(cluster).fetch_optional(db).await?)
}

/// From now on nothing is changed on a cluster. Said again, it is for another reason, since the same time.
///
/// # Errors
/// The ledger did not answer.
pub async fn begin_maintenance(db: &mut PgConnection, cluster: &str, reason: &str, actor: &Actor) -> Result<()> {
    sqlx::query(
        "update clusters set maintenance = jsonb_build_object(
            'since', coalesce(maintenance -> 'since', to_jsonb(now())), 'reason', $2::text, 'requestedBy', $3::text)
         where name = $1",
    )
    .bind(cluster)
    .bind(reason)
    .bind(&actor.name)
    .execute(&mut *db)
    .await?;
    let detail = json!({"cluster": cluster, "reason": reason});
    write_audit(db, actor, "cluster.maintenance.begin", (None, Some(cluster)), &detail).await?;
    announce_clusters(db).await
}

/// Work goes on: every claim is looked at within a minute, and proven. Says whether there was a maintenance.
///
/// # Errors
/// The ledger did not answer.
pub async fn end_maintenance(db: &mut PgConnection, cluster: &str, actor: &Actor) -> Result<bool> {
    let ended = sqlx::query("update clusters set maintenance = null where name = $1 and maintenance is not null")
        .bind(cluster)
        .execute(&mut *db)
        .await?;
    if ended.rows_affected() == 0 {
        return Ok(false);
    }
    let detail = json!({"cluster": cluster});
    write_audit(db, actor, "cluster.maintenance.end", (None, Some(cluster)), &detail).await?;
    look_soon(db, cluster, LOOKED_AT_WITHIN).await?;
    announce_clusters(db).await?;
    Ok(true)
}
