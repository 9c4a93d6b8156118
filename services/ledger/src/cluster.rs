//! Shared clusters and what was last seen of them.

use chrono::{DateTime, Utc};
use pgtenant_model::{ClusterSpec, ClusterStatus};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::Result;

/// A shared cluster.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// As the platform team describes it.
    pub spec: Json<ClusterSpec>,
    /// As it was last seen.
    pub status: Json<ClusterStatus>,
    /// When the spec last changed.
    pub updated_at: DateTime<Utc>,
}

/// One cluster.
///
/// # Errors
/// The ledger did not answer.
pub async fn cluster(db: &mut PgConnection, name: &str) -> Result<Option<Cluster>> {
    Ok(sqlx::query_as("select name, spec, status, updated_at from clusters where name = $1")
        .bind(name)
        .fetch_optional(db)
        .await?)
}

/// Every cluster, by name.
///
/// # Errors
/// The ledger did not answer.
pub async fn clusters(db: &mut PgConnection) -> Result<Vec<Cluster>> {
    Ok(sqlx::query_as("select name, spec, status, updated_at from clusters order by name").fetch_all(db).await?)
}

/// Makes the clusters those of the settings. One that is no longer there is forgotten unless it has claims; the
/// names of those that have are returned.
///
/// # Errors
/// The ledger did not answer.
pub async fn put_clusters(db: &mut PgConnection, specs: &[(String, ClusterSpec)]) -> Result<Vec<String>> {
    for (name, spec) in specs {
        sqlx::query(
            "insert into clusters (name, spec) values ($1, $2)
             on conflict (name) do update set spec = excluded.spec, updated_at = now()
             where clusters.spec <> excluded.spec",
        )
        .bind(name)
        .bind(Json(spec))
        .execute(&mut *db)
        .await?;
    }
    let names: Vec<&str> = specs.iter().map(|(name, _)| name.as_str()).collect();
    sqlx::query(
        "delete from clusters where name <> all($1)
         and not exists (select from claims where claims.cluster = clusters.name)",
    )
    .bind(&names)
    .execute(&mut *db)
    .await?;
    Ok(sqlx::query_scalar("select name from clusters where name <> all($1) order by name")
        .bind(&names)
        .fetch_all(db)
        .await?)
}

/// Writes down what was seen of a cluster; returns what was there before. Of several replicas that see the same change
/// one gets the earlier status, the others the new one.
///
/// # Errors
/// The ledger did not answer, or there is no such cluster.
pub async fn set_cluster_status(db: &mut PgConnection, name: &str, status: &ClusterStatus) -> Result<ClusterStatus> {
    let before: Json<ClusterStatus> = sqlx::query_scalar("select status from clusters where name = $1 for update")
        .bind(name)
        .fetch_one(&mut *db)
        .await?;
    sqlx::query("update clusters set status = $2 where name = $1").bind(name).bind(Json(status)).execute(db).await?;
    Ok(before.0)
}
