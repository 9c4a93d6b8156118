//! Moves to another cluster: who asks for one, and who says yes when it is known what it costs.

use chrono::{DateTime, Utc};
use pgtenant_model::{ClaimKey, ClaimSpec, EventKind, InvalidField, Move, MoveMethod, MovePhase};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::check::check_new;
use crate::event::{from_json_name, json_name};
use crate::refused::Result;
use crate::restore::announce;
use crate::wish::locked;
use crate::{Actor, LedgerError, NewEvent, Refused, Wish, append_event, write_audit};

#[derive(sqlx::FromRow)]
pub(crate) struct MoveRow {
    id: Uuid,
    namespace: String,
    name: String,
    source: String,
    target: String,
    method: Option<String>,
    phase: String,
    message: Option<String>,
    bytes: Option<i64>,
    tables: Option<i64>,
    expected_gap: Option<f64>,
    gap: Option<f64>,
    requested_by: String,
    confirmed_by: Option<String>,
    kept_until: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

/// The columns of [`MoveRow`], for `select` and `returning`.
macro_rules! move_columns {
    () => {
        "id, namespace, name, source, target, method, phase, message, bytes, tables, expected_gap, gap, requested_by, confirmed_by, \
         kept_until, created_at, finished_at"
    };
}
pub(crate) use move_columns;

impl TryFrom<MoveRow> for Move {
    type Error = LedgerError;

    fn try_from(row: MoveRow) -> Result<Self, LedgerError> {
        Ok(Self {
            id: row.id,
            namespace: row.namespace,
            name: row.name,
            from: row.source,
            to: row.target,
            method: row.method.map(|method| from_json_name("way to move", method)).transpose()?,
            phase: from_json_name("move phase", row.phase)?,
            message: row.message,
            bytes: row.bytes.and_then(|bytes| bytes.try_into().ok()),
            tables: row.tables.and_then(|tables| tables.try_into().ok()),
            expected_gap_seconds: row.expected_gap,
            gap_seconds: row.gap,
            kept_until: row.kept_until,
            requested_by: row.requested_by,
            confirmed_by: row.confirmed_by,
            created_at: row.created_at,
            finished_at: row.finished_at,
        })
    }
}

/// Asks for a move, `by` replication or dump, or (none) as it is possible; it is rehearsed, and then somebody has to
/// [say yes](confirm_move). The same wish again returns the one that is open.
///
/// # Errors
/// See [`Refused`]: the other cluster has to take the claim as it would take a new one, and to have the same stores.
pub async fn request_move(
    db: &mut PgConnection,
    key: &ClaimKey,
    to: &str,
    by: Option<MoveMethod>,
    actor: &Actor,
) -> Result<Move> {
    let claim = locked(db, key).await?.ok_or_else(|| Refused::NotFound(key.clone()))?;
    match claim.wish {
        Wish::Present => {}
        Wish::Retained => return Err(Refused::Retained(claim.key)),
        Wish::Absent => return Err(Refused::Deleting(claim.key)),
    }
    match open_move(db, claim.id).await? {
        Some(open) if open.to == to => return Ok(open),
        Some(_) => return Err(Refused::MoveOpen(claim.key)),
        None => {}
    }
    if restores(db, claim.id).await? {
        return Err(Refused::RestoreOpen(claim.key));
    }
    let from = &claim.spec.cluster;
    if from == to {
        return Err(Refused::Invalid(vec![InvalidField::new("to", format!("it is on cluster {to:?} already"))]));
    }
    let there = ClaimSpec { cluster: to.to_owned(), ..claim.spec.clone() };
    check_new(db, key, &there, true).await?;
    check_stores(db, from, to).await?;
    let row: MoveRow = sqlx::query_as(concat!(
        "insert into moves (id, claim, namespace, name, source, target, requested_by, wanted) values ($1, $2, $3, $4, $5, $6, $7, $8) returning ",
        move_columns!()
    ))
    .bind(Uuid::now_v7())
    .bind(claim.id)
    .bind(key.namespace())
    .bind(key.name())
    .bind(from)
    .bind(to)
    .bind(&actor.name)
    .bind(by.as_ref().map(json_name))
    .fetch_one(&mut *db)
    .await?;
    let asked = Move::try_from(row)?;
    record(db, &asked, "database.move", "its move was asked for", actor).await?;
    Ok(asked)
}

/// Credentials stay where applications look for them.
async fn check_stores(db: &mut PgConnection, from: &str, to: &str) -> Result<()> {
    let (here, there) = (crate::cluster(db, from).await?, crate::cluster(db, to).await?);
    let same = here.zip(there).is_some_and(|(here, there)| here.spec.stores == there.spec.stores);
    if same {
        return Ok(());
    }
    let why = format!("cluster {to:?} has other stores than {from:?}: applications would not find their credentials");
    Err(Refused::Invalid(vec![InvalidField::new("to", why)]))
}

async fn restores(db: &mut PgConnection, claim: Uuid) -> Result<bool> {
    let open = "select exists (select from restores where claim = $1
                               and (finished_at is null and spec ->> 'strategy' <> 'test' or undo_asked_by is not null))";
    Ok(sqlx::query_scalar(open).bind(claim).fetch_one(db).await?)
}

/// The move of a claim that is not over.
pub(crate) async fn open_move(db: &mut PgConnection, claim: Uuid) -> Result<Option<Move>> {
    let query = concat!("select ", move_columns!(), " from moves where claim = $1 and finished_at is null");
    let row: Option<MoveRow> = sqlx::query_as(query).bind(claim).fetch_optional(db).await?;
    Ok(row.map(Move::try_from).transpose()?)
}

/// A move from or to a cluster that has closed its database, or that a copy follows which is on it: whoever changes nothing on the cluster
/// from then on leaves it closed, and its servers' log kept.
///
/// # Errors
/// The ledger did not answer.
pub async fn closing_move(db: &mut PgConnection, cluster: &str) -> Result<Option<Move>, LedgerError> {
    let row: Option<MoveRow> = sqlx::query_as(concat!(
        "select ",
        move_columns!(),
        " from moves where $1 in (source, target) and finished_at is null and (phase in ('Moving', 'CleaningUp') or method = 'Replication') order by id limit 1"
    ))
    .bind(cluster)
    .fetch_optional(db)
    .await?;
    row.map(Move::try_from).transpose()
}

/// The newest move of a database of this name.
///
/// # Errors
/// The ledger did not answer.
pub async fn last_move(db: &mut PgConnection, key: &ClaimKey) -> Result<Option<Move>, LedgerError> {
    let row: Option<MoveRow> = sqlx::query_as(concat!(
        "select ",
        move_columns!(),
        " from moves where namespace = $1 and name = $2 order by id desc limit 1"
    ))
    .bind(key.namespace())
    .bind(key.name())
    .fetch_optional(db)
    .await?;
    row.map(Move::try_from).transpose()
}

/// Says yes to a move that was rehearsed, and waits for it. Said again, it changes nothing.
///
/// # Errors
/// [`Refused::NoMove`] where there is no such move of this claim; [`Refused::MoveNotWaiting`].
pub async fn confirm_move(db: &mut PgConnection, key: &ClaimKey, id: Uuid, actor: &Actor) -> Result<Move> {
    let found = locked_move(db, key, id).await?;
    match found.phase {
        MovePhase::Waiting => {}
        MovePhase::Moving | MovePhase::CleaningUp | MovePhase::Succeeded if found.confirmed_by.is_some() => {
            return Ok(found);
        }
        phase => return Err(Refused::MoveNotWaiting { key: key.clone(), phase }),
    }
    let row: MoveRow = sqlx::query_as(concat!(
        "update moves set phase = 'Moving', confirmed_by = $2, due_at = now(), attempts = 0, message = null where id = $1 returning ",
        move_columns!()
    ))
    .bind(id)
    .bind(&actor.name)
    .fetch_one(&mut *db)
    .await?;
    let confirmed = Move::try_from(row)?;
    record(db, &confirmed, "database.moveConfirmed", "its move was confirmed", actor).await?;
    Ok(confirmed)
}

/// Wants a move to end with all as it was. Nobody could write meanwhile only for as long as it was rehearsed.
///
/// # Errors
/// [`Refused::NoMove`]; [`Refused::MoveNotWaiting`] when it is too late.
pub async fn cancel_move(db: &mut PgConnection, key: &ClaimKey, id: Uuid, actor: &Actor) -> Result<Move> {
    let found = locked_move(db, key, id).await?;
    match found.phase {
        MovePhase::Cancelled => return Ok(found),
        MovePhase::Rehearsing | MovePhase::Waiting => {}
        phase => return Err(Refused::MoveNotWaiting { key: key.clone(), phase }),
    }
    sqlx::query("update moves set cancel = true, due_at = now() where id = $1").bind(id).execute(&mut *db).await?;
    record(db, &found, "database.moveCancelled", "its move was cancelled", actor).await?;
    Ok(found)
}

async fn locked_move(db: &mut PgConnection, key: &ClaimKey, id: Uuid) -> Result<Move> {
    let row: Option<MoveRow> = sqlx::query_as(concat!(
        "select ",
        move_columns!(),
        " from moves where id = $1 and namespace = $2 and name = $3 for update"
    ))
    .bind(id)
    .bind(key.namespace())
    .bind(key.name())
    .fetch_optional(db)
    .await?;
    row.map(Move::try_from).transpose()?.ok_or_else(|| Refused::NoMove(key.clone()))
}

async fn record(db: &mut PgConnection, one: &Move, action: &str, what: &str, actor: &Actor) -> Result<()> {
    let Move { id, namespace, name, from, to, .. } = one;
    let detail = json!({"move": id, "from": from, "to": to});
    write_audit(db, actor, action, (Some(namespace), Some(name)), &detail).await?;
    announce(db, *id).await?;
    let message = format!("{namespace}/{name}: {what} by {}", actor.name);
    Ok(tell(db, one, message).await?)
}

/// Makes an event of what became of a move.
pub(crate) async fn tell(db: &mut PgConnection, one: &Move, message: String) -> Result<(), LedgerError> {
    let Move { id, namespace, name, from, to, phase, .. } = one;
    let detail = json!({"move": id, "from": from, "to": to, "phase": json_name(phase)});
    let event = NewEvent { kind: EventKind::Updated, namespace: Some(namespace), name, message, detail };
    append_event(db, event).await
}
