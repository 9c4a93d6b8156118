//! Restores: who asks for one, who says yes, and who wants it to end or its way back.

use pgtenant_model::{
    Approval, ClaimKey, EventKind, InvalidField, Restore, RestorePhase, RestoreSpec, RestoreStrategy,
};
use serde_json::json;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::event::json_name;
use crate::moves::open_move;
use crate::refused::Result;
use crate::restore_row::{RestoreRow, StoredRestore, restore_columns, restore_of_object};
use crate::restore_work::make_room;
use crate::wish::locked;
use crate::{Actor, Claim, NewEvent, RESTORES_CHANNEL, Refused, Wish, append_event, write_audit};

/// Restores of a namespace that are not over: whoever asks a thousand times has asked for nothing more.
const MOST_OPEN: i64 = 50;

/// Asks for a restore; whoever approves it lets it begin. Where nobody has to, it begins.
///
/// # Errors
/// See [`Refused`].
pub async fn request_restore(
    db: &mut PgConnection,
    key: &ClaimKey,
    spec: &RestoreSpec,
    actor: &Actor,
) -> Result<StoredRestore> {
    let claim = restorable(db, key, spec).await?;
    insert(db, &claim, spec, None, actor).await
}

/// Asks for the restore that an object of Kubernetes wishes for, by its UID; the one that it has asked for already, where it has.
///
/// # Errors
/// See [`Refused`].
pub async fn request_restore_of_object(
    db: &mut PgConnection,
    key: &ClaimKey,
    spec: &RestoreSpec,
    object: &str,
    actor: &Actor,
) -> Result<StoredRestore> {
    // The claim is locked: whoever asks for the same object meanwhile waits here, and finds what was written.
    let claim = restorable(db, key, spec).await?;
    match restore_of_object(db, object).await? {
        Some(asked) => Ok(asked),
        None => insert(db, &claim, spec, Some(object), actor).await,
    }
}

/// The claim, locked, if it can be restored as `spec` says.
async fn restorable(db: &mut PgConnection, key: &ClaimKey, spec: &RestoreSpec) -> Result<Claim> {
    let problems = spec.problems(key);
    if !problems.is_empty() {
        return Err(Refused::Invalid(problems));
    }
    present(db, key).await
}

async fn insert(
    db: &mut PgConnection,
    claim: &Claim,
    spec: &RestoreSpec,
    object: Option<&str>,
    actor: &Actor,
) -> Result<StoredRestore> {
    let key = &claim.key;
    if spec.strategy != RestoreStrategy::Test && open_move(db, claim.id).await?.is_some() {
        return Err(Refused::MoveOpen(key.clone()));
    }
    let approval = approval(db, &claim.spec.cluster).await?;
    refuse_crowd(db, key.namespace()).await?;
    let phase = if approval == Approval::Nobody { RestorePhase::Approved } else { RestorePhase::Requested };
    let row: Option<RestoreRow> = sqlx::query_as(concat!(
        "insert into restores (id, claim, namespace, name, cluster, spec, phase, requested_by, object)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (claim, (spec ->> 'strategy' = 'test')) where finished_at is null do nothing returning ",
        restore_columns!()
    ))
    .bind(Uuid::now_v7())
    .bind(claim.id)
    .bind(key.namespace())
    .bind(key.name())
    .bind(&claim.spec.cluster)
    .bind(Json(spec))
    .bind(json_name(phase))
    .bind(&actor.name)
    .bind(object)
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Err(Refused::RestoreOpen(key.clone())) };
    let restore = StoredRestore::try_from(row)?;
    begins(db, &restore).await?;
    let what = format!("a restore of {key} was asked for by {}", actor.name);
    record(db, &restore, EventKind::RestoreRequested, "restore.request", what, actor).await?;
    Ok(restore)
}

/// The claim, locked, if it is to be there.
async fn present(db: &mut PgConnection, key: &ClaimKey) -> Result<Claim> {
    let claim = locked(db, key).await?.ok_or_else(|| Refused::NotFound(key.clone()))?;
    match claim.wish {
        Wish::Present => Ok(claim),
        Wish::Retained => Err(Refused::Retained(claim.key)),
        Wish::Absent => Err(Refused::Deleting(claim.key)),
    }
}

async fn approval(db: &mut PgConnection, cluster: &str) -> Result<Approval> {
    let found = crate::cluster(db, cluster).await?;
    let found = found.ok_or_else(|| {
        Refused::Invalid(vec![InvalidField::new("cluster", format!("there is no cluster {cluster:?}"))])
    })?;
    Ok(found.spec.0.restores.approval(found.spec.0.environment))
}

async fn refuse_crowd(db: &mut PgConnection, namespace: &str) -> Result<()> {
    let open: i64 = sqlx::query_scalar(
        "select count(*) from restores where namespace = $1 and finished_at is null and not scheduled",
    )
    .bind(namespace)
    .fetch_one(db)
    .await?;
    let limit = MOST_OPEN;
    if open < limit { Ok(()) } else { Err(Refused::TooManyRestores { namespace: namespace.to_owned(), limit }) }
}

/// A yes or a no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Approve,
    /// No.
    Reject,
}

/// Says yes or no to a restore that waits for it. `platform`: of the platform team. A yes to what is under way or done already
/// changes nothing.
///
/// # Errors
/// See [`Refused`].
pub async fn decide_restore(
    db: &mut PgConnection,
    id: Uuid,
    decision: Decision,
    platform: bool,
    actor: &Actor,
) -> Result<StoredRestore> {
    let restore = locked_restore(db, id).await?;
    let (phase, approved) = (restore.view.phase, restore.view.decided_by.is_some());
    match (decision, phase) {
        (_, RestorePhase::Requested) => {}
        (Decision::Approve, RestorePhase::Failed | RestorePhase::Cancelled | RestorePhase::Rejected) => {
            return Err(Refused::RestoreOver { id, phase });
        }
        (Decision::Approve, _) if approved => return Ok(restore),
        (Decision::Reject, RestorePhase::Rejected) => return Ok(restore),
        (_, phase) => return Err(Refused::RestoreOver { id, phase }),
    }
    if decision == Decision::Approve {
        may_approve(db, &restore, platform, actor).await?;
    }
    let to = match decision {
        Decision::Approve => RestorePhase::Approved,
        Decision::Reject => RestorePhase::Rejected,
    };
    let row: RestoreRow = sqlx::query_as(concat!(
        "update restores set phase = $2, phase_since = now(), decided_by = $3, due_at = now(), finished_at = case when $4 then now() end
         where id = $1 returning ",
        restore_columns!()
    ))
    .bind(id)
    .bind(json_name(to))
    .bind(&actor.name)
    .bind(to.is_over())
    .fetch_one(&mut *db)
    .await?;
    let restore = StoredRestore::try_from(row)?;
    begins(db, &restore).await?;
    let (kind, action, word) = match decision {
        Decision::Approve => (EventKind::RestoreApproved, "restore.approve", "approved"),
        Decision::Reject => (EventKind::RestoreEnded, "restore.reject", "rejected"),
    };
    let what = format!("the restore of {} was {word} by {}", restore.key()?, actor.name);
    record(db, &restore, kind, action, what, actor).await?;
    Ok(restore)
}

/// What nobody waits for ends where somebody waits from now on.
async fn begins(db: &mut PgConnection, restore: &StoredRestore) -> Result<()> {
    let Restore { phase, spec, cluster, .. } = &restore.view;
    if *phase == RestorePhase::Approved && spec.strategy != RestoreStrategy::Test {
        make_room(db, cluster).await?;
    }
    Ok(())
}

/// Whether somebody may let a restore have its way with the database, there and back.
async fn may_approve(db: &mut PgConnection, restore: &StoredRestore, platform: bool, actor: &Actor) -> Result<()> {
    let own = restore.view.requested_by == actor.name;
    if approval(db, &restore.view.cluster).await? != Approval::Other || (platform && !own) {
        return Ok(());
    }
    Err(Refused::NotYours(if own {
        "who asks for a restore on this cluster does not approve it: another person of the platform team has to"
    } else {
        "a restore on this cluster is approved by the platform team"
    }))
}

/// Wants a restore to end with all as it was. One that nobody has begun ends at once.
///
/// # Errors
/// [`Refused::RestoreOver`] when it is too late.
pub async fn cancel_restore(db: &mut PgConnection, id: Uuid, actor: &Actor) -> Result<StoredRestore> {
    let restore = locked_restore(db, id).await?;
    let phase = restore.view.phase;
    if phase == RestorePhase::Cancelled || restore.cancel {
        return Ok(restore);
    }
    if !phase.can_be_cancelled() {
        return Err(Refused::RestoreOver { id, phase });
    }
    let row: RestoreRow = sqlx::query_as(concat!(
        "update restores set cancel = true, due_at = now(),
                phase = case when phase = 'Requested' then 'Cancelled' else phase end,
                phase_since = case when phase = 'Requested' then now() else phase_since end,
                finished_at = case when phase = 'Requested' then now() end
         where id = $1 returning ",
        restore_columns!()
    ))
    .bind(id)
    .fetch_one(&mut *db)
    .await?;
    let restore = StoredRestore::try_from(row)?;
    let what = format!("the restore of {} was cancelled by {}", restore.key()?, actor.name);
    record(db, &restore, EventKind::RestoreEnded, "restore.cancel", what, actor).await?;
    Ok(restore)
}

/// Wants the database back that a restore has put aside. `platform`: of the platform team. The live database is exchanged, as by the
/// restore itself: it takes somebody who may approve that.
///
/// # Errors
/// [`Refused::NothingAside`] when there is none; [`Refused::RestoreOpen`] while another restore is under way;
/// [`Refused::NotYours`].
pub async fn undo_restore(db: &mut PgConnection, id: Uuid, platform: bool, actor: &Actor) -> Result<StoredRestore> {
    let restore = locked_restore(db, id).await?;
    if restore.undo_asked_by.is_some() || restore.view.undone_at.is_some() {
        return Ok(restore);
    }
    let kept = restore.view.before.as_ref().is_some_and(|before| before.until > chrono::Utc::now());
    if restore.view.phase != RestorePhase::Succeeded || !kept {
        return Err(Refused::NothingAside(id));
    }
    may_approve(db, &restore, platform, actor).await?;
    let key = restore.key()?;
    let claim = present(db, &key).await?;
    if claim.spec.cluster != restore.view.cluster {
        return Err(Refused::NothingAside(id));
    }
    if open_move(db, claim.id).await?.is_some() {
        return Err(Refused::MoveOpen(key));
    }
    let open: bool = sqlx::query_scalar(
        "select exists (select from restores where claim = $1 and finished_at is null and spec ->> 'strategy' <> 'test')",
    )
    .bind(claim.id)
    .fetch_one(&mut *db)
    .await?;
    if open {
        return Err(Refused::RestoreOpen(key));
    }
    let row: RestoreRow = sqlx::query_as(concat!(
        "update restores set undo_asked_by = $2, due_at = now(), attempts = 0, message = null where id = $1 returning ",
        restore_columns!()
    ))
    .bind(id)
    .bind(&actor.name)
    .fetch_one(&mut *db)
    .await?;
    let restore = StoredRestore::try_from(row)?;
    let what = format!("{} is to be as it was before its restore, asked for by {}", key, actor.name);
    record(db, &restore, EventKind::RestoreRequested, "restore.undo", what, actor).await?;
    Ok(restore)
}

async fn locked_restore(db: &mut PgConnection, id: Uuid) -> Result<StoredRestore> {
    let row: Option<RestoreRow> =
        sqlx::query_as(concat!("select ", restore_columns!(), " from restores where id = $1 for update"))
            .bind(id)
            .fetch_optional(db)
            .await?;
    row.map(StoredRestore::try_from).transpose()?.ok_or(Refused::NoRestore(id))
}

async fn record(
    db: &mut PgConnection,
    restore: &StoredRestore,
    kind: EventKind,
    action: &str,
    message: String,
    actor: &Actor,
) -> Result<()> {
    let Restore { id, namespace, name, spec, .. } = &restore.view;
    let detail = json!({"restore": id, "spec": spec});
    write_audit(db, actor, action, (Some(namespace), Some(name)), &detail).await?;
    announce(db, *id).await?;
    Ok(tell(db, restore, kind, message).await?)
}

/// Makes an event of what became of a restore. Of a test by the schedule there is one only when it has failed, and it is of the cluster.
pub(crate) async fn tell(
    db: &mut PgConnection,
    restore: &StoredRestore,
    kind: EventKind,
    message: String,
) -> crate::Result<()> {
    let Restore { id, namespace, name, cluster, phase, snapshot, spec, .. } = &restore.view;
    if restore.scheduled {
        if *phase != RestorePhase::Failed {
            return Ok(());
        }
        let snapshot = snapshot.as_ref().or(spec.from.snapshot.as_ref());
        let what = snapshot.map_or_else(|| "a backup".to_owned(), ToString::to_string);
        let message = format!("{cluster}: {namespace}/{name} could not be restored from {what} for a test: {message}");
        let detail = json!({"restore": id, "kind": "test", "snapshot": snapshot});
        let event = NewEvent { kind: EventKind::BackupFailed, namespace: None, name: cluster, message, detail };
        return append_event(db, event).await;
    }
    let mut detail = json!({"restore": id, "phase": phase});
    if let Some(object) = &restore.object {
        detail["object"] = json!(object);
    }
    append_event(db, NewEvent { kind, namespace: Some(namespace), name, message, detail }).await
}

/// Tells every replica that something is to be done for a restore, or has become of it.
pub(crate) async fn announce(db: &mut PgConnection, id: Uuid) -> crate::Result<()> {
    sqlx::query("select pg_notify($1, $2)").bind(RESTORES_CHANNEL).bind(id.to_string()).execute(db).await?;
    Ok(())
}
