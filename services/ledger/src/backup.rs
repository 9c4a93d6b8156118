//! Dumps of one database, and tries to restore one: each is an operation, and work.

use std::time::Duration;

use pgtenant_model::{ClaimKey, EventKind, Operation, OperationKind, SnapshotId};
use serde_json::json;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::event::{from_json_name, json_name};
use crate::operation::begin_operation;
use crate::wish::locked;
use crate::{
    Actor, LedgerError, NewEvent, RESTORES_CHANNEL, Refused, Result, Wish, append_event, operation, write_audit,
};

/// A dump to make, or one to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupWork {
    /// The operation that people see.
    pub operation: Uuid,
    /// [`OperationKind::Backup`] or [`OperationKind::Verify`].
    pub kind: OperationKind,
    /// The claim.
    pub claim: Uuid,
    /// Who it is.
    pub key: ClaimKey,
    /// What is to be tried.
    pub snapshot: Option<SnapshotId>,
    /// Failed tries.
    pub attempts: i32,
    /// The fencing token.
    pub fence: i64,
    /// It was begun, and is to wait until a restore is over that somebody waits for.
    pub room: bool,
}

/// Asks for a dump of a database, or for a try of `snapshot`. One that waits already is that one; so is a try that is under way. A dump
/// that is under way is not: it may show less than what is there when somebody asks.
///
/// # Errors
/// See [`Refused`].
pub async fn request_backup(
    db: &mut PgConnection,
    key: &ClaimKey,
    snapshot: Option<&SnapshotId>,
    actor: &Actor,
) -> Result<Operation, Refused> {
    let claim = locked(db, key).await?.ok_or_else(|| Refused::NotFound(key.clone()))?;
    match claim.wish {
        Wish::Present => {}
        Wish::Retained => return Err(Refused::Retained(claim.key)),
        Wish::Absent => return Err(Refused::Deleting(claim.key)),
    }
    let kind = if snapshot.is_some() { OperationKind::Verify } else { OperationKind::Backup };
    let open: Option<Uuid> = sqlx::query_scalar(
        "select operation from backups
         where claim = $1 and kind = $2 and snapshot is not distinct from $3 and not finished and (fence = 0 or $3 is not null)",
    )
    .bind(claim.id)
    .bind(json_name(kind))
    .bind(snapshot.map(ToString::to_string))
    .fetch_optional(&mut *db)
    .await?;
    if let Some(open) = open
        && let Some(operation) = operation(db, open).await?
    {
        return Ok(operation);
    }
    let operation = begin_operation(db, kind, key, claim.id, claim.generation, actor, false).await?;
    sqlx::query(
        "insert into backups (operation, kind, claim, namespace, name, cluster, snapshot)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(operation.id)
    .bind(json_name(kind))
    .bind(claim.id)
    .bind(key.namespace())
    .bind(key.name())
    .bind(&claim.spec.cluster)
    .bind(snapshot.map(ToString::to_string))
    .execute(&mut *db)
    .await?;
    let action = format!("database.{}", json_name(kind));
    let detail = json!({"operation": operation.id, "snapshot": snapshot});
    write_audit(db, actor, &action, (Some(key.namespace()), Some(key.name())), &detail).await?;
    sqlx::query("select pg_notify($1, $2)").bind(RESTORES_CHANNEL).bind("").execute(db).await?;
    Ok(operation)
}

/// Whether a try has to wait: somebody waits for a restore.
macro_rules! has_to_wait {
    ($cluster:literal) => {
        concat!("(kind = 'verify' and ", crate::restore_work::somebody_waits!($cluster), ")")
    };
}

/// Takes a dump or a try of `cluster` that is due and that nobody holds, unless `at_once` of them are under way. A try that has to wait is
/// taken only to be [put back](put_back_backup).
///
/// # Errors
/// The ledger did not answer.
pub async fn take_backup(
    db: &mut PgConnection,
    cluster: &str,
    holder: Uuid,
    lease: Duration,
    at_once: u8,
) -> Result<Option<BackupWork>> {
    let row = sqlx::query(concat!(
        "with due as (
             select operation as due_id from backups
             where cluster = $1 and not finished and due_at <= now() and (lease_until is null or lease_until < now())
               and $4 > (select count(*) from backups where cluster = $1 and not finished and lease_until >= now())
               and (begun or not ",
        has_to_wait!("$1"),
        ")
             order by due_at limit 1 for update skip locked),
         begun as (update operations set state = 'Running' from due where id = due_id)
         update backups set lease_holder = $2, lease_until = now() + $3 * interval '1 second', fence = fence + 1,
                begun = true, attempts = attempts + (lease_holder is not null)::int
         from due where operation = due_id
         returning operation, kind, claim, namespace, name, snapshot, attempts, fence, ",
        has_to_wait!("$1"),
        " as room"
    ))
    .bind(cluster)
    .bind(holder)
    .bind(lease.as_secs_f64())
    .bind(i64::from(at_once))
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (namespace, name): (String, String) = (row.try_get("namespace")?, row.try_get("name")?);
    let key = ClaimKey::new(namespace, name);
    let snapshot: Option<String> = row.try_get("snapshot")?;
    let snapshot = snapshot
        .map(|text| text.parse::<SnapshotId>().map_err(|_| LedgerError::Unknown { what: "snapshot", value: text }));
    Ok(Some(BackupWork {
        operation: row.try_get("operation")?,
        kind: from_json_name("operation kind", row.try_get("kind")?)?,
        claim: row.try_get("claim")?,
        key: key.map_err(|error| LedgerError::Unknown { what: "claim", value: error.value })?,
        snapshot: snapshot.transpose()?,
        attempts: row.try_get("attempts")?,
        fence: row.try_get("fence")?,
        room: row.try_get("room")?,
    }))
}

/// When a dump or a try of `cluster` is next due; none while `at_once` of them are under way: the end of one is told of.
///
/// # Errors
/// The ledger did not answer.
pub async fn next_backup(db: &mut PgConnection, cluster: &str, at_once: u8) -> Result<Option<Duration>> {
    let due: Option<f64> = sqlx::query_scalar(concat!(
        "select extract(epoch from min(greatest(due_at, lease_until)) - now())::float8 from backups
         where cluster = $1 and not finished and (begun or not ",
        has_to_wait!("$1"),
        ") and (lease_until >= now()
                or $2 > (select count(*) from backups where cluster = $1 and not finished and lease_until >= now()))"
    ))
    .bind(cluster)
    .bind(i64::from(at_once))
    .fetch_one(db)
    .await?;
    Ok(due.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

/// Holds the lease for longer; says whether it is to wait until a restore is over that somebody waits for.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it.
pub async fn renew_backup(db: &mut PgConnection, work: &BackupWork, lease: Duration) -> Result<bool> {
    let room: Option<bool> = sqlx::query_scalar(concat!(
        "update backups b set lease_until = now() + $3 * interval '1 second' where operation = $1 and fence = $2
         returning ",
        has_to_wait!("b.cluster")
    ))
    .bind(work.operation)
    .bind(work.fence)
    .bind(lease.as_secs_f64())
    .fetch_optional(db)
    .await?;
    room.ok_or_else(|| fenced(work))
}

/// Gives a try back of which nothing is left: it is begun anew when it may be.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it.
pub async fn put_back_backup(db: &mut PgConnection, work: &BackupWork) -> Result<()> {
    let done = sqlx::query(
        "update backups set begun = false, lease_holder = null, lease_until = null, due_at = now()
         where operation = $1 and fence = $2",
    );
    fenced_unless(done.bind(work.operation).bind(work.fence).execute(db).await?.rows_affected(), work)
}

/// What came of a try: done, given up, or tried again after `next`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupEnd {
    /// This is the dump that was made, or that was tried.
    Done(SnapshotId),
    /// It fails until somebody does something.
    GivenUp,
    /// It is tried again after this time.
    Again(Duration),
}

/// Writes down what came of a try.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it: nothing is written.
pub async fn end_backup(db: &mut PgConnection, work: &BackupWork, end: &BackupEnd, message: &str) -> Result<()> {
    let (state, snapshot, next) = match end {
        BackupEnd::Done(snapshot) => ("Succeeded", Some(snapshot.to_string()), None),
        BackupEnd::GivenUp => ("Failed", None, None),
        BackupEnd::Again(next) => ("Running", None, Some(next.as_secs_f64())),
    };
    let done = sqlx::query(
        "update backups set finished = $3::float8 is null, snapshot = coalesce($4, snapshot), attempts = attempts + 1,
                due_at = now() + coalesce($3, 0) * interval '1 second', lease_holder = null, lease_until = null
         where operation = $1 and fence = $2",
    )
    .bind(work.operation)
    .bind(work.fence)
    .bind(next)
    .bind(snapshot)
    .execute(&mut *db)
    .await?;
    fenced_unless(done.rows_affected(), work)?;
    sqlx::query(
        "update operations set state = $2, message = $3, finished_at = case when $2 <> 'Running' then now() end
         where id = $1",
    )
    .bind(work.operation)
    .bind(state)
    .bind(message)
    .execute(&mut *db)
    .await?;
    if *end == BackupEnd::GivenUp {
        append_event(db, failure(work, message)).await?;
    }
    Ok(())
}

fn failure<'a>(work: &'a BackupWork, message: &str) -> NewEvent<'a> {
    let what = match work.kind {
        OperationKind::Verify => "a dump could not be restored for a try",
        _ => "no dump could be made",
    };
    NewEvent {
        kind: EventKind::BackupFailed,
        namespace: Some(work.key.namespace()),
        name: work.key.name(),
        message: format!("{}: {what}: {message}", work.key),
        detail: json!({"operation": work.operation, "kind": work.kind, "snapshot": work.snapshot}),
    }
}

fn fenced_unless(rows: u64, work: &BackupWork) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(fenced(work)) }
}

fn fenced(work: &BackupWork) -> LedgerError {
    LedgerError::Fenced(format!("operation {}", work.operation))
}
