//! Moves under work: who has which, what each step has found, and how it ended.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgtenant_model::{Move, MoveMethod, MovePhase};
use serde_json::Value;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::event::{from_json_name, json_name};
use crate::moves::{MoveRow, move_columns, tell};
use crate::restore::announce;
use crate::{LedgerError, Result};

/// A move that this replica works on.
#[derive(Debug, Clone)]
pub struct MoveWork {
    /// As people see it.
    pub view: Move,
    /// The claim, as it was when the move was asked for.
    pub claim: Uuid,
    /// How whoever asked for it wants it to be done; none: as it is possible.
    pub wanted: Option<MoveMethod>,
    /// What the engine knows of a copy that follows, from when it was made.
    pub following: Option<Value>,
    /// It is cancelled then, if nobody has said yes.
    pub waits_until: Option<DateTime<Utc>>,
    /// What it ends as; none: that is not decided.
    pub outcome: Option<MovePhase>,
    /// What is told in the end.
    pub ending: Option<String>,
    /// Somebody wants it to end with all as it was.
    pub cancel: bool,
    /// Since then nobody can write.
    pub closed_at: Option<DateTime<Utc>>,
    /// Failed tries of the present step.
    pub attempts: i32,
    /// The fencing token.
    pub fence: i64,
}

/// Takes a move to cluster `to` that is due and that nobody holds.
///
/// # Errors
/// The ledger did not answer.
pub async fn take_move(db: &mut PgConnection, to: &str, lease: Duration) -> Result<Option<MoveWork>> {
    let row = sqlx::query(concat!(
        "with due as (
             select id as due_id from moves
             where target = $1 and due_at <= now() and (lease_until is null or lease_until < now())
               and (finished_at is null or kept_until is not null)
             order by due_at limit 1 for update skip locked)
         update moves set lease_until = now() + $2 * interval '1 second', fence = fence + 1,
                attempts = attempts + (lease_until is not null)::int
         from due where id = due_id returning claim, wanted, following, waits_until, outcome, ending, cancel, closed_at, attempts, fence, ",
        move_columns!()
    ))
    .bind(to)
    .bind(lease.as_secs_f64())
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let view: MoveRow = sqlx::FromRow::from_row(&row)?;
    let (outcome, wanted): (Option<String>, Option<String>) = (row.try_get("outcome")?, row.try_get("wanted")?);
    Ok(Some(MoveWork {
        view: view.try_into()?,
        claim: row.try_get("claim")?,
        wanted: wanted.map(|method| from_json_name("way to move", method)).transpose()?,
        following: row.try_get("following")?,
        waits_until: row.try_get("waits_until")?,
        outcome: outcome.map(|phase| from_json_name("move phase", phase)).transpose()?,
        ending: row.try_get("ending")?,
        cancel: row.try_get("cancel")?,
        closed_at: row.try_get("closed_at")?,
        attempts: row.try_get("attempts")?,
        fence: row.try_get("fence")?,
    }))
}

/// When a move to cluster `to` is next due.
///
/// # Errors
/// The ledger did not answer.
pub async fn next_move(db: &mut PgConnection, to: &str) -> Result<Option<Duration>> {
    let due: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from min(greatest(due_at, lease_until)) - now())::float8 from moves
         where target = $1 and (finished_at is null or kept_until is not null)",
    )
    .bind(to)
    .fetch_one(db)
    .await?;
    Ok(due.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

/// Holds the lease for longer; says whether somebody wants it to be cancelled.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it.
pub async fn renew_move(db: &mut PgConnection, work: &MoveWork, lease: Duration) -> Result<bool> {
    let cancel: Option<bool> = sqlx::query_scalar(
        "update moves set lease_until = now() + $3 * interval '1 second' where id = $1 and fence = $2 returning cancel",
    )
    .bind(work.view.id)
    .bind(work.fence)
    .bind(lease.as_secs_f64())
    .fetch_optional(db)
    .await?;
    cancel.ok_or_else(|| fenced(work))
}

/// What a step has found, beside where the move is with that.
#[derive(Debug, Clone, Default)]
pub struct MoveStep {
    /// Bytes of tables.
    pub bytes: Option<u64>,
    /// Tables.
    pub tables: Option<u64>,
    /// How it is done.
    pub method: Option<MoveMethod>,
    /// What is known of a copy that follows from now on.
    pub following: Option<Value>,
    /// It is cancelled after this time, if nobody has said yes.
    pub waits: Option<Duration>,
    /// Seconds for which nobody will be able to write.
    pub expected_gap: Option<f64>,
    /// Seconds for which nobody could write.
    pub gap: Option<f64>,
    /// What it ends as, where that is decided.
    pub outcome: Option<MovePhase>,
    /// When it goes on, where somebody has to say something before; none: at once.
    pub due: Option<Duration>,
}

/// Writes down what a step has found, together with the phase that begins with it. Where that is only due later, the lease is given back.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it, or it is decided already that it ends otherwise: nothing is written.
pub async fn move_done(
    db: &mut PgConnection,
    work: &MoveWork,
    phase: MovePhase,
    message: &str,
    step: &MoveStep,
) -> Result<()> {
    let row: Option<MoveRow> = sqlx::query_as(concat!(
        "update moves set phase = $3, message = $4, bytes = coalesce($5, bytes), tables = coalesce($6, tables),
                expected_gap = coalesce($7, expected_gap), gap = coalesce($8, gap), outcome = coalesce($9, outcome),
                ending = case when $9 is null then ending else $4 end, attempts = 0, method = coalesce($11, method),
                waits_until = coalesce(now() + $12 * interval '1 second', waits_until), following = coalesce($13, following),
                due_at = now() + coalesce($10, 0) * interval '1 second', lease_until = case when $10 is null then lease_until end
         where id = $1 and fence = $2 and coalesce(outcome = $9, true) returning ",
        move_columns!()
    ))
    .bind(work.view.id)
    .bind(work.fence)
    .bind(json_name(phase))
    .bind(message)
    .bind(step.bytes.and_then(|bytes| i64::try_from(bytes).ok()))
    .bind(step.tables.and_then(|tables| i64::try_from(tables).ok()))
    .bind(step.expected_gap)
    .bind(step.gap)
    .bind(step.outcome.map(json_name))
    .bind(step.due.map(|due| due.as_secs_f64()))
    .bind(step.method.as_ref().map(json_name))
    .bind(step.waits.map(|waits| waits.as_secs_f64()))
    .bind(&step.following)
    .fetch_optional(&mut *db)
    .await?;
    let done: Move = row.ok_or_else(|| fenced(work))?.try_into()?;
    announce(db, done.id).await?;
    tell(db, &done, format!("{}/{}: {message}", done.namespace, done.name)).await
}

/// Tells people how far it is.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it: nothing is written.
pub async fn note_move(db: &mut PgConnection, work: &MoveWork, message: &str) -> Result<()> {
    let noted = sqlx::query("update moves set message = $3 where id = $1 and fence = $2 and phase = $4")
        .bind(work.view.id)
        .bind(work.fence)
        .bind(message)
        .bind(json_name(work.view.phase))
        .execute(&mut *db)
        .await?;
    if noted.rows_affected() == 1 { announce(db, work.view.id).await } else { Err(fenced(work)) }
}

/// From now on nobody can write; said again, it is since the first time.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it: nothing is written.
pub async fn note_closed(db: &mut PgConnection, work: &MoveWork) -> Result<DateTime<Utc>> {
    let closed =
        "update moves set closed_at = coalesce(closed_at, now()) where id = $1 and fence = $2 returning closed_at";
    let at = sqlx::query_scalar(closed).bind(work.view.id).bind(work.fence).fetch_optional(db).await?;
    at.ok_or_else(|| fenced(work))
}

/// The claim is on the other cluster from now on, and is looked at there at once. False: it is not held by this move, is not where the
/// move has found it, or is released or removed meanwhile. Its definition may go on naming the cluster that it was on.
///
/// # Errors
/// The ledger did not answer.
pub async fn claim_has_moved(db: &mut PgConnection, work: &MoveWork) -> Result<bool> {
    let done = sqlx::query(
        "update claims set cluster = $3, moved_from = array_append(array_remove(moved_from, $3), $2), held_by = null,
                generation = generation + 1, urgent = true, due_at = now(), attempts = 0, proven_at = null, wished_at = now(),
                state = 'Pending'
         where id = $1 and cluster = $2 and held_by = $4 and wish = 'present'",
    )
    .bind(work.claim)
    .bind(&work.view.from)
    .bind(&work.view.to)
    .bind(work.view.id)
    .execute(&mut *db)
    .await?;
    crate::announce(db, true, None).await?;
    Ok(done.rows_affected() == 1)
}

/// The step is done again after `next`: this try of it has `failed`, or it waits for something that is under way, which is none.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it: nothing is written.
pub async fn retry_move(
    db: &mut PgConnection,
    work: &MoveWork,
    message: &str,
    next: Duration,
    failed: bool,
) -> Result<()> {
    let done = sqlx::query(
        // Where somebody has just said yes, it goes on at once.
        "update moves set message = case when phase = $6 then $3 else message end, attempts = attempts + $5::int,
                due_at = case when phase = $6 then now() + $4 * interval '1 second' else now() end, lease_until = null
         where id = $1 and fence = $2",
    )
    .bind(work.view.id)
    .bind(work.fence)
    .bind(message)
    .bind(next.as_secs_f64())
    .bind(i32::from(failed))
    .bind(json_name(work.view.phase))
    .execute(&mut *db)
    .await?;
    if done.rows_affected() == 1 { announce(db, work.view.id).await } else { Err(fenced(work)) }
}

/// The end of a move; what it leaves on the former cluster is looked at when its time has come.
///
/// # Errors
/// [`LedgerError::Fenced`] when another replica has taken it: nothing is written.
pub async fn end_move(
    db: &mut PgConnection,
    work: &MoveWork,
    phase: MovePhase,
    message: &str,
    kept_until: Option<DateTime<Utc>>,
) -> Result<()> {
    let row: Option<MoveRow> = sqlx::query_as(concat!(
        "update moves set phase = $3, message = $4, finished_at = coalesce(finished_at, now()), kept_until = $5,
                due_at = coalesce($5, now()), lease_until = null, attempts = 0
         where id = $1 and fence = $2 returning ",
        move_columns!()
    ))
    .bind(work.view.id)
    .bind(work.fence)
    .bind(json_name(phase))
    .bind(message)
    .bind(kept_until)
    .fetch_optional(&mut *db)
    .await?;
    let ended: Move = row.ok_or_else(|| fenced(work))?.try_into()?;
    announce(db, ended.id).await?;
    tell(db, &ended, format!("{}/{}: {message}", ended.namespace, ended.name)).await
}

fn fenced(work: &MoveWork) -> LedgerError {
    LedgerError::Fenced(format!("the move of {}/{}", work.view.namespace, work.view.name))
}
