//! Drills of clusters: the last ones of each.

use chrono::{DateTime, Utc};
use pgtenant_model::Drill;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{Actor, Result, write_audit};

/// Kept of each cluster.
const KEPT: i64 = 100;

/// A drill that was run.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct PastDrill {
    /// Its id.
    pub id: Uuid,
    /// Of which cluster.
    pub cluster: String,
    /// Who ran it, as `token:ops`.
    pub requested_by: String,
    /// When it was written down.
    pub created_at: DateTime<Utc>,
    /// What was seen.
    pub drill: Json<Drill>,
}

/// [`PastDrill`]'s columns.
macro_rules! columns {
    () => {
        "id, cluster, requested_by, created_at, drill"
    };
}

/// Writes a drill down, and forgets the oldest ones of the cluster.
///
/// # Errors
/// The ledger did not answer.
pub async fn add_drill(db: &mut PgConnection, cluster: &str, drill: &Drill, actor: &Actor) -> Result<PastDrill> {
    let insert =
        concat!("insert into drills (id, cluster, requested_by, drill) values ($1, $2, $3, $4) returning ", columns!());
    let written = sqlx::query_as(insert)
        .bind(Uuid::now_v7())
        .bind(cluster)
        .bind(&actor.name)
        .bind(Json(drill))
        .fetch_one(&mut *db)
        .await?;
    sqlx::query("delete from drills where id in (select id from drills where cluster = $1 order by created_at desc, id desc offset $2)")
        .bind(cluster)
        .bind(KEPT)
        .execute(&mut *db)
        .await?;
    let detail = serde_json::json!({"cluster": cluster, "means": drill.means, "passed": drill.passed});
    write_audit(db, actor, "cluster.drill", (None, Some(cluster)), &detail).await?;
    Ok(written)
}

/// The drills of a cluster that are kept, the newest first.
///
/// # Errors
/// The ledger did not answer.
pub async fn drills(db: &mut PgConnection, cluster: &str) -> Result<Vec<PastDrill>> {
    let query = concat!("select ", columns!(), " from drills where cluster = $1 order by created_at desc, id desc");
    Ok(sqlx::query_as(query).bind(cluster).fetch_all(db).await?)
}

/// The last drill of each of these clusters that was drilled.
///
/// # Errors
/// The ledger did not answer.
pub async fn last_drills(db: &mut PgConnection, clusters: &[String]) -> Result<Vec<PastDrill>> {
    let query = concat!(
        "select distinct on (cluster) ",
        columns!(),
        " from drills where cluster = any($1) order by cluster, created_at desc, id desc"
    );
    Ok(sqlx::query_as(query).bind(clusters).fetch_all(db).await?)
}
