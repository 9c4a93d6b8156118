//! Restores under work: who has which, what each step has left, and how it ended.

use std::time::Duration;

use pgtenant_model::{EventKind, PutAside, RestorePhase, RestoreProgress, SnapshotId, Verification};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::event::json_name;
use crate::restore::{announce, tell};
use crate::restore_row::{RestoreRow, restore_columns};
use crate::{LedgerError, Result, StoredRestore};

/// A restore that this replica works on.
#[derive(Debug, Clone)]
pub struct RestoreWork {
    /// As it was when it was taken.
    pub restore: StoredRestore,
    /// The fencing token.
    pub fence: i64,
}

/// Whether a restore of cluster `$1` is begun already, or may be. What nobody waits for is not begun while somebody waits.
macro_rules! may_begin {
    ($at_once:literal) => {
        concat!(
            "phase <> 'Approved' or cancel or not scheduled and ",
            $at_once,
            " > (select count(*) from restores where cluster = $1 and not scheduled
                    and phase in ('Preparing', 'Copying', 'Verifying', 'Switching'))
             or scheduled and not ",
            crate::restore_work::somebody_waits!("$1")
        )
    };
}

/// Whether somebody waits for a restore of a cluster, and not for ever: one that is stuck keeps nothing else from being done.
macro_rules! somebody_waits {
    ($cluster:literal) => {
        concat!(
            "exists (select from restores waiting where waiting.cluster = ",
            $cluster,
            " and waiting.spec ->> 'strategy' <> 'test' and waiting.phase_since > now() - interval '6 hours'
                     and waiting.phase in ('Approved', 'Preparing', 'Copying', 'Verifying', 'Switching'))"
        )
    };
}
pub(crate) use somebody_waits;

/// Takes a restore of `cluster` that is due and that nobody holds, unless `at_once` of them are worked on. None is begun while so many
/// are between their beginning and their clean-up, waiting or not: each may have a copy of the cluster, which costs money. Where
/// whoever had it is gone, as one that was killed, that was a failed try.
///
/// # Errors
/// The ledger did not answer.
pub async fn take_restore(
    db: &mut PgConnection,
    cluster: &str,
    holder: Uuid,
    lease: Duration,
    at_once: u8,
) -> Result<Option<RestoreWork>> {
    let row = sqlx::query(concat!(
        "with due as (
             select id as due_id from restores
             where cluster = $1 and due_at <= now() and (lease_until is null or lease_until < now())
               and (finished_at is null and phase <> 'Requested' or undo_asked_by is not null
                    or before_name is not null and before_until <= now())
               and (scheduled or $4 > (select count(*) from restores where cluster = $1 and lease_until >= now() and not scheduled))
               and (",
        may_begin!("$4"),
        ")
             order by due_at limit 1 for update skip locked)
         update restores set lease_holder = $2, lease_until = now() + $3 * interval '1 second', fence = fence + 1,
                attempts = attempts + (lease_holder is not null)::int
         from due where id = due_id returning fence, ",
        restore_columns!()
    ))
    .bind(cluster)
    .bind(holder)
    .bind(lease.as_secs_f64())
    .bind(i64::from(at_once))
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let restore: RestoreRow = sqlx::FromRow::from_row(&row)?;
    Ok(Some(RestoreWork { restore: restore.try_into()?, fence: row.try_get("fence")? }))
}

/// When a restore of `cluster` is next due; one that can not be begun yet is not, and is told of when another one has ended.
///
/// # Errors
/// The ledger did not answer.
pub async fn next_restore(db: &mut PgConnection, cluster: &str, at_once: u8) -> Result<Option<Duration>> {
    let due: Option<f64> = sqlx::query_scalar(concat!(
        "select extract(epoch from min(greatest(due_at, lease_until,
                    case when finished_at is not null and undo_asked_by is null then before_until end)) - now())::float8
         from restores
         where cluster = $1 and (finished_at is null and phase <> 'Requested' or undo_asked_by is not null
                                 or before_name is not null)
           and (",
        may_begin!("$2"),
        ")"
    ))
    .bind(cluster)
    .bind(i64::from(at_once))
    .fetch_one(db)
    .await?;
    Ok(due.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

/// Holds the lease for longer; says whether somebody wants it to be cancelled.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it.
pub async fn renew_restore(db: &mut PgConnection, work: &RestoreWork, lease: Duration) -> Result<bool> {
    let cancel: Option<bool> = sqlx::query_scalar(
        "update restores set lease_until = now() + $3 * interval '1 second' where id = $1 and fence = $2
         returning cancel",
    )
    .bind(work.restore.view.id)
    .bind(work.fence)
    .bind(lease.as_secs_f64())
    .fetch_optional(db)
    .await?;
    cancel.ok_or_else(|| fenced(work))
}

/// Has the tests end that the schedule has asked for: somebody waits for a restore of the cluster.
pub(crate) async fn make_room(db: &mut PgConnection, cluster: &str) -> Result<()> {
    let ended = "update restores set cancel = true, due_at = now()
                 where cluster = $1 and scheduled and finished_at is null and outcome is null";
    sqlx::query(ended).bind(cluster).execute(db).await?;
    Ok(())
}

/// Whether something that nobody waits for still has a copy on the cluster, or a server or a cluster of its own: it goes soon.
///
/// # Errors
/// The ledger did not answer.
pub async fn makes_room(db: &mut PgConnection, cluster: &str) -> Result<bool> {
    Ok(sqlx::query_scalar(
        "select exists (select from restores where cluster = $1 and scheduled and finished_at is null)
             or exists (select from backups where cluster = $1 and kind = 'verify' and begun and not finished)",
    )
    .bind(cluster)
    .fetch_one(db)
    .await?)
}

/// How much is copied, for people.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it.
pub async fn note_progress(db: &mut PgConnection, work: &RestoreWork, progress: &RestoreProgress) -> Result<()> {
    let done = sqlx::query("update restores set progress = $3 where id = $1 and fence = $2")
        .bind(work.restore.view.id)
        .bind(work.fence)
        .bind(Json(progress))
        .execute(&mut *db)
        .await?;
    fenced_unless(done.rows_affected(), work)?;
    announce(db, work.restore.view.id).await
}

/// The step that was done, and where the restore is with that.
#[derive(Debug, Clone)]
pub struct StepDone {
    /// The phase that begins now.
    pub phase: RestorePhase,
    /// What the step has left, as further keys of [`StoredRestore::steps`].
    pub output: Value,
    /// The snapshot that the wish came to, where that is known now.
    pub snapshot: Option<SnapshotId>,
    /// What was compared, where that was done.
    pub report: Option<Verification>,
    /// The database that was put aside, where one was.
    pub before: Option<PutAside>,
    /// For people: what it does now.
    pub message: String,
    /// What it ends as, where that is decided.
    pub outcome: Option<RestorePhase>,
    /// It is open again what it ends as.
    pub undecided: bool,
}

impl StepDone {
    /// A step that leaves nothing but where the restore is.
    #[must_use]
    pub fn new(phase: RestorePhase, message: impl Into<String>) -> Self {
        Self {
            phase,
            output: Value::Object(serde_json::Map::new()),
            snapshot: None,
            report: None,
            before: None,
            message: message.into(),
            outcome: None,
            undecided: false,
        }
    }
}

/// Writes down what a step has left, together with the phase that begins with it.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it: nothing is written.
pub async fn step_done(db: &mut PgConnection, work: &RestoreWork, done: &StepDone) -> Result<StoredRestore> {
    let row: Option<RestoreRow> = sqlx::query_as(concat!(
        "update restores set phase = $3, phase_since = case when phase = $3 then phase_since else now() end,
                steps = steps || $4, snapshot = coalesce($5, snapshot),
                report = coalesce($6, report), before_name = coalesce($7, before_name),
                before_until = coalesce($8, before_until), message = $9, attempts = 0,
                outcome = case when $11 then null else coalesce($10, outcome) end
         where id = $1 and fence = $2 returning ",
        restore_columns!()
    ))
    .bind(work.restore.view.id)
    .bind(work.fence)
    .bind(json_name(done.phase))
    .bind(&done.output)
    .bind(done.snapshot.as_ref().map(ToString::to_string))
    .bind(done.report.as_ref().map(Json))
    .bind(done.before.as_ref().map(|before| &before.database))
    .bind(done.before.as_ref().map(|before| before.until))
    .bind(&done.message)
    .bind(done.outcome.map(json_name))
    .bind(done.undecided)
    .fetch_optional(&mut *db)
    .await?;
    let restore: StoredRestore = row.ok_or_else(|| fenced(work))?.try_into()?;
    announce(db, restore.view.id).await?;
    tell(db, &restore, EventKind::RestoreProgressed, done.message.clone()).await?;
    Ok(restore)
}

/// The step is done again after `next`: this try of it has `failed`, or it waits for something that is under way, which is none.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it: nothing is written.
pub async fn retry_restore(
    db: &mut PgConnection,
    work: &RestoreWork,
    message: &str,
    next: Duration,
    failed: bool,
) -> Result<()> {
    let done = sqlx::query(
        "update restores set message = $3, attempts = attempts + $5::int, due_at = now() + $4 * interval '1 second',
                lease_holder = null, lease_until = null
         where id = $1 and fence = $2",
    )
    .bind(work.restore.view.id)
    .bind(work.fence)
    .bind(message)
    .bind(next.as_secs_f64())
    .bind(i32::from(failed))
    .execute(&mut *db)
    .await?;
    fenced_unless(done.rows_affected(), work)?;
    announce(db, work.restore.view.id).await
}

/// The end of a restore; what it leaves aside is looked at when its time has come.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it: nothing is written.
pub async fn end_restore(
    db: &mut PgConnection,
    work: &RestoreWork,
    phase: RestorePhase,
    message: &str,
) -> Result<StoredRestore> {
    let row: Option<RestoreRow> = sqlx::query_as(concat!(
        "update restores set phase = $3, phase_since = now(), message = $4, finished_at = now(), lease_holder = null, lease_until = null,
                due_at = coalesce(before_until, now()), attempts = 0
         where id = $1 and fence = $2 returning ",
        restore_columns!()
    ))
    .bind(work.restore.view.id)
    .bind(work.fence)
    .bind(json_name(phase))
    .bind(message)
    .fetch_optional(&mut *db)
    .await?;
    let restore: StoredRestore = row.ok_or_else(|| fenced(work))?.try_into()?;
    announce(db, restore.view.id).await?;
    tell(db, &restore, EventKind::RestoreEnded, message.to_owned()).await?;
    Ok(restore)
}

/// What became of the database that was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside<'a> {
    /// It has taken its place again, and this was put aside for it.
    Undone(&'a PutAside),
    /// It was not gone back to, and is kept for as long as was said.
    Stays,
    /// It is there no more.
    Gone,
}

/// Writes down what became of the database that was put aside.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it: nothing is written.
pub async fn aside_done(db: &mut PgConnection, work: &RestoreWork, aside: Aside<'_>, message: &str) -> Result<()> {
    let other = if let Aside::Undone(other) = aside { Some(other) } else { None };
    let row: Option<RestoreRow> = sqlx::query_as(concat!(
        "update restores set before_name = case when $6 then before_name else $3 end,
                before_until = case when $6 then before_until else $4 end, message = $5, undo_asked_by = null, attempts = 0,
                undone_at = case when $3::text is not null then now() else undone_at end,
                due_at = coalesce($4, case when $6 then before_until end, now()), lease_holder = null, lease_until = null
         where id = $1 and fence = $2 returning ",
        restore_columns!()
    ))
    .bind(work.restore.view.id)
    .bind(work.fence)
    .bind(other.map(|other| &other.database))
    .bind(other.map(|other| other.until))
    .bind(message)
    .bind(aside == Aside::Stays)
    .fetch_optional(&mut *db)
    .await?;
    let restore: StoredRestore = row.ok_or_else(|| fenced(work))?.try_into()?;
    announce(db, restore.view.id).await?;
    tell(db, &restore, EventKind::RestoreEnded, message.to_owned()).await
}

/// Keeps everybody from working on a claim until it is [let go](let_go), for as long as that may take: whoever holds it may be killed, and
/// goes on. False: somebody works on it now, or it is not to be there any more.
///
/// # Errors
/// The ledger did not answer.
pub async fn hold_claim(db: &mut PgConnection, claim: Uuid, restore: Uuid) -> Result<bool> {
    let done = sqlx::query(
        "update claims set held_by = $2, fence = fence + 1
         where id = $1 and wish <> 'absent' and (lease_until is null or lease_until < now())
           and (held_by is null or held_by = $2)",
    )
    .bind(claim)
    .bind(restore)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Lets everybody work on the claim that `restore` holds, if it holds one, and has it looked at at once.
///
/// # Errors
/// The ledger did not answer.
pub async fn let_go(db: &mut PgConnection, restore: Uuid) -> Result<()> {
    let done = sqlx::query(
        "update claims set held_by = null, urgent = true, due_at = now(), proven_at = null where held_by = $1",
    )
    .bind(restore)
    .execute(&mut *db)
    .await?;
    if done.rows_affected() == 0 { Ok(()) } else { crate::announce(db, true, None).await }
}

/// Restores, dumps and tries of a cluster that may still need a database beside a claim's, or a login of their own.
///
/// # Errors
/// The ledger did not answer.
pub async fn open_jobs(db: &mut PgConnection, cluster: &str) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select id from restores where cluster = $1 and (finished_at is null or before_name is not null)
         union all select operation from backups where cluster = $1 and not finished
         union all select id from moves where $1 in (source, target) and (finished_at is null or kept_until is not null)",
    )
    .bind(cluster)
    .fetch_all(db)
    .await?)
}

/// Those of `restores` that the ledger knows, and whether each is over, whatever it has put aside.
///
/// # Errors
/// The ledger did not answer.
pub async fn restores_over(db: &mut PgConnection, restores: &[Uuid]) -> Result<Vec<(Uuid, bool)>> {
    let over = sqlx::query_as("select id, finished_at is not null from restores where id = any($1)");
    Ok(over.bind(restores).fetch_all(db).await?)
}

fn fenced_unless(rows: u64, work: &RestoreWork) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(fenced(work)) }
}

fn fenced(work: &RestoreWork) -> LedgerError {
    LedgerError::Fenced(format!("restore {}", work.restore.view.id))
}
