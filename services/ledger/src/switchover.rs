//! Wishes for another primary: who asked, which replica is at it, and how it ended.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgtenant_model::{OperationState, Switchover};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::event::{from_json_name, json_name};
use crate::{Actor, LedgerError, Result, SWITCHOVERS_CHANNEL, write_audit};

/// So many of a cluster are kept; the audit has all.
const KEPT: i64 = 100;

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    cluster: String,
    target: Option<String>,
    state: String,
    before: Option<String>,
    after: Option<String>,
    message: Option<String>,
    requested_by: String,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for Switchover {
    type Error = LedgerError;

    fn try_from(row: Row) -> Result<Self> {
        let Row { id, cluster, target: to, state, before, after, message, requested_by, created_at, finished_at } = row;
        let state = from_json_name("operation state", state)?;
        Ok(Self { id, cluster, to, state, before, after, message, requested_by, created_at, finished_at })
    }
}

/// [`Row`]'s columns.
macro_rules! columns {
    () => {
        "id, cluster, target, state, before, after, message, requested_by, created_at, finished_at"
    };
}

/// Asks for another primary. Where that is wished for already, the wish that is open is returned, whatever it is.
///
/// # Errors
/// The ledger did not answer, or there is no such cluster.
pub async fn ask_for_switchover(
    db: &mut PgConnection,
    cluster: &str,
    to: Option<&str>,
    actor: &Actor,
) -> Result<Switchover> {
    let asked: Option<Row> = sqlx::query_as(concat!(
        "insert into switchovers (id, cluster, target, requested_by) values ($1, $2, $3, $4)
         on conflict (cluster) where finished_at is null do nothing returning ",
        columns!()
    ))
    .bind(Uuid::now_v7())
    .bind(cluster)
    .bind(to)
    .bind(&actor.name)
    .fetch_optional(&mut *db)
    .await?;
    if let Some(asked) = asked {
        write_audit(db, actor, "cluster.switchover", (None, Some(cluster)), &json!({"to": to})).await?;
        sqlx::query("select pg_notify($1, $2)").bind(SWITCHOVERS_CHANNEL).bind(cluster).execute(db).await?;
        return asked.try_into();
    }
    last_switchover(db, cluster).await?.ok_or_else(|| LedgerError::Fenced(format!("the switchover of {cluster}")))
}

/// The newest wish for another primary of a cluster.
///
/// # Errors
/// The ledger did not answer.
pub async fn last_switchover(db: &mut PgConnection, cluster: &str) -> Result<Option<Switchover>> {
    let row: Option<Row> =
        sqlx::query_as(concat!("select ", columns!(), " from switchovers where cluster = $1 order by id desc limit 1"))
            .bind(cluster)
            .fetch_optional(db)
            .await?;
    row.map(Switchover::try_from).transpose()
}

/// Takes the open wish of a cluster for `lease`, unless another replica is at it.
///
/// # Errors
/// The ledger did not answer.
pub async fn take_switchover(db: &mut PgConnection, cluster: &str, lease: Duration) -> Result<Option<Switchover>> {
    // Nobody expects any more that it is done, and whoever waits has given up.
    sqlx::query(
        "update switchovers set state = 'Failed', message = 'no replica could do it within five minutes', finished_at = now()
         where cluster = $1 and finished_at is null and before is null and created_at < now() - interval '5 minutes'",
    )
    .bind(cluster)
    .execute(&mut *db)
    .await?;
    let row: Option<Row> = sqlx::query_as(concat!(
        "update switchovers set state = 'Running', taken_until = now() + $2 * interval '1 second'
         where cluster = $1 and finished_at is null and coalesce(taken_until < now(), true) returning ",
        columns!()
    ))
    .bind(cluster)
    .bind(lease.as_secs_f64())
    .fetch_optional(db)
    .await?;
    row.map(Switchover::try_from).transpose()
}

/// Writes down the primary before anybody is asked for another one: whoever finds that has to wait for what comes of it, and must not ask
/// again.
///
/// # Errors
/// The ledger did not answer, or another replica has begun.
pub async fn begin_switchover(db: &mut PgConnection, one: &Switchover, before: &str) -> Result<()> {
    let done =
        sqlx::query("update switchovers set before = $2 where id = $1 and before is null and finished_at is null")
            .bind(one.id)
            .bind(before)
            .execute(db)
            .await?;
    fence(done.rows_affected(), one)
}

/// The replica that has taken it is still at it.
///
/// # Errors
/// The ledger did not answer, or it is over.
pub async fn renew_switchover(db: &mut PgConnection, one: &Switchover, lease: Duration) -> Result<()> {
    let done = sqlx::query(
        "update switchovers set taken_until = now() + $2 * interval '1 second' where id = $1 and finished_at is null",
    )
    .bind(one.id)
    .bind(lease.as_secs_f64())
    .execute(db)
    .await?;
    fence(done.rows_affected(), one)
}

/// Writes down how it ended: with the primary that it is now, or without.
///
/// # Errors
/// The ledger did not answer, or it was over.
pub async fn end_switchover(db: &mut PgConnection, one: &Switchover, after: Option<&str>, message: &str) -> Result<()> {
    let state = if after.is_some() { OperationState::Succeeded } else { OperationState::Failed };
    let ended: Option<Option<String>> = sqlx::query_scalar(
        "update switchovers set state = $2, after = $3, message = $4, finished_at = now()
         where id = $1 and finished_at is null returning before",
    )
    .bind(one.id)
    .bind(json_name(state))
    .bind(after)
    .bind(message)
    .fetch_optional(&mut *db)
    .await?;
    fence(u64::from(ended.is_some()), one)?;
    sqlx::query(
        "delete from switchovers where id in (select id from switchovers where cluster = $1 order by id desc offset $2)",
    )
    .bind(&one.cluster)
    .bind(KEPT)
    .execute(&mut *db)
    .await?;
    let detail = json!({"to": one.to, "before": ended.flatten(), "after": after, "state": json_name(state)});
    write_audit(db, &Actor::new("engine"), "cluster.switchoverEnded", (None, Some(&one.cluster)), &detail).await
}

fn fence(rows: u64, one: &Switchover) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(LedgerError::Fenced(format!("the switchover of {}", one.cluster))) }
}
