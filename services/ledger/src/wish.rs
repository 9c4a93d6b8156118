//! Wishes: what doors write down. Each is checked, stored, audited and announced in the caller's transaction.

use pgtenant_model::{ClaimKey, ClaimSpec, DatabaseState, EventKind, Mode, Operation, OperationKind, Source};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::check::{check_cluster, check_generation, check_immutable, check_new, other_door, taken};
use crate::claim::{ClaimRow, claim_columns};
use crate::event::json_name;
use crate::operation::{begin_operation, give_up_before};
use crate::refused::Result;
use crate::{Actor, Claim, NewEvent, Refused, Wish, announce_to_all, append_event, write_audit};

/// A wish that was written down, and the claim as it is now.
#[derive(Debug, Clone)]
pub struct Written {
    /// The claim after the wish.
    pub claim: Claim,
    /// The request; none where the claim was like that already.
    pub operation: Option<Operation>,
}

/// Asks for a database. The same wish again changes nothing; a Retained one is taken back with its passwords.
///
/// # Errors
/// See [`Refused`].
pub async fn create(
    db: &mut PgConnection,
    key: &ClaimKey,
    spec: &ClaimSpec,
    source: (Source, Option<&str>),
    actor: &Actor,
) -> Result<Written> {
    let found = match locked(db, key).await? {
        None => match insert(db, key, spec, source, false, actor).await {
            // Made by another request between the two statements.
            Err(refused @ Refused::Exists(_)) => locked(db, key).await?.ok_or(refused)?,
            other => return other,
        },
        Some(claim) => claim,
    };
    let spec = &found.follow(spec);
    match found {
        claim if claim.wish == Wish::Retained => take_back(db, claim, spec, source, false, actor).await,
        claim if claim.wish == Wish::Absent => Err(Refused::Deleting(claim.key)),
        claim if claim.source != source.0 => other_door(claim),
        claim if claim.spec != *spec => Err(Refused::Exists(claim.key)),
        claim => Ok(Written { claim, operation: None }),
    }
}

/// Takes back a Retained database. `foreign`: also takes over a database of that name that is nobody's, whose data may be
/// anybody's.
///
/// # Errors
/// See [`Refused`].
pub async fn adopt(
    db: &mut PgConnection,
    key: &ClaimKey,
    spec: &ClaimSpec,
    source: Source,
    foreign: bool,
    actor: &Actor,
) -> Result<Written> {
    match locked(db, key).await? {
        None => insert(db, key, spec, (source, None), foreign, actor).await,
        Some(claim) if claim.wish == Wish::Absent => Err(Refused::Deleting(claim.key)),
        Some(claim) if claim.wish == Wish::Retained => {
            let spec = claim.follow(spec);
            take_back(db, claim, &spec, (source, None), foreign, actor).await
        }
        Some(claim) if claim.source != source => other_door(claim),
        // A claim that failed because the database is not ours is allowed to take it now.
        Some(claim) => {
            let spec = &claim.follow(spec);
            check_cluster(db, key, spec).await?;
            check_immutable(&claim, spec)?;
            let before = claim.clone();
            let foreign = foreign || claim.adopt;
            let claim = store_spec(db, claim, spec, foreign).await?;
            record(db, &before, claim, OperationKind::Adopt, actor).await
        }
    }
}

/// Changes a claim's spec. `expected` is the generation that the caller has read.
///
/// # Errors
/// See [`Refused`].
pub async fn update(
    db: &mut PgConnection,
    key: &ClaimKey,
    change: impl FnOnce(&ClaimSpec) -> ClaimSpec,
    source: Source,
    expected: Option<i64>,
    actor: &Actor,
) -> Result<Written> {
    let claim = managed(db, key, source, expected).await?;
    let spec = claim.follow(&change(&claim.spec));
    if claim.spec == spec {
        return Ok(Written { claim, operation: None });
    }
    check_cluster(db, key, &spec).await?;
    check_immutable(&claim, &spec)?;
    let before = claim.clone();
    let adopt = claim.adopt;
    let claim = store_spec(db, claim, &spec, adopt).await?;
    record(db, &before, claim, OperationKind::Update, actor).await
}

/// Removes a standard claim with its database, roles and credentials.
///
/// # Errors
/// [`Refused::Protected`], and the others.
pub async fn remove(
    db: &mut PgConnection,
    key: &ClaimKey,
    source: Source,
    expected: Option<i64>,
    actor: &Actor,
) -> Result<Written> {
    let claim = match managed(db, key, source, expected).await {
        Err(Refused::Deleting(_)) => {
            let claim = locked(db, key).await?.ok_or_else(|| Refused::NotFound(key.clone()))?;
            return Ok(Written { claim, operation: None });
        }
        other => other?,
    };
    if claim.spec.mode == Mode::Protected {
        return Err(Refused::Protected(claim.key));
    }
    let before = claim.clone();
    let claim = set_wish(db, claim, Wish::Absent, false).await?;
    record(db, &before, claim, OperationKind::Delete, actor).await
}

/// What a claim under removal has in stores is removed for good: they are not to keep it for a while.
///
/// # Errors
/// The ledger did not answer.
pub async fn purge(db: &mut PgConnection, key: &ClaimKey) -> Result<()> {
    sqlx::query("update claims set purge = true where namespace = $1 and name = $2 and wish = 'absent'")
        .bind(key.namespace())
        .bind(key.name())
        .execute(db)
        .await?;
    Ok(())
}

/// The definition is gone: a standard claim is removed, a protected one becomes Retained. So does one whose definition said
/// protected at last, as `last` has it, even if that was never written down.
///
/// # Errors
/// See [`Refused`].
pub async fn withdraw(
    db: &mut PgConnection,
    key: &ClaimKey,
    source: Source,
    last: Option<Mode>,
    actor: &Actor,
) -> Result<Written> {
    if last != Some(Mode::Protected) {
        match remove(db, key, source, None, actor).await {
            Err(Refused::Protected(_)) => {}
            other => return other,
        }
    }
    let claim = managed(db, key, source, None).await?;
    let before = claim.clone();
    let claim = set_wish(db, claim, Wish::Retained, false).await?;
    record(db, &before, claim, OperationKind::Release, actor).await
}

/// Keeps the database, its roles and credentials, and stops managing them. Any door may ask for it.
///
/// # Errors
/// See [`Refused`].
pub async fn release(db: &mut PgConnection, key: &ClaimKey, expected: Option<i64>, actor: &Actor) -> Result<Written> {
    let claim = locked(db, key).await?.ok_or_else(|| Refused::NotFound(key.clone()))?;
    check_generation(&claim, expected)?;
    match claim.wish {
        Wish::Retained => Ok(Written { claim, operation: None }),
        Wish::Absent => Err(Refused::Deleting(claim.key)),
        Wish::Present => {
            let before = claim.clone();
            let claim = set_wish(db, claim, Wish::Retained, true).await?;
            record(db, &before, claim, OperationKind::Release, actor).await
        }
    }
}

pub(crate) async fn locked(db: &mut PgConnection, key: &ClaimKey) -> Result<Option<Claim>> {
    let row: Option<ClaimRow> = sqlx::query_as(concat!(
        "select ",
        claim_columns!(),
        " from claims where namespace = $1 and name = $2 for update"
    ))
    .bind(key.namespace())
    .bind(key.name())
    .fetch_optional(db)
    .await?;
    Ok(row.map(Claim::try_from).transpose()?)
}

/// The claim, locked, if this door may change it.
async fn managed(db: &mut PgConnection, key: &ClaimKey, source: Source, expected: Option<i64>) -> Result<Claim> {
    let claim = locked(db, key).await?.ok_or_else(|| Refused::NotFound(key.clone()))?;
    match claim.wish {
        Wish::Retained => Err(Refused::Retained(claim.key)),
        Wish::Absent => Err(Refused::Deleting(claim.key)),
        Wish::Present if claim.source != source => other_door(claim),
        Wish::Present => check_generation(&claim, expected).map(|()| claim),
    }
}

async fn insert(
    db: &mut PgConnection,
    key: &ClaimKey,
    spec: &ClaimSpec,
    (source, source_ref): (Source, Option<&str>),
    adopt: bool,
    actor: &Actor,
) -> Result<Written> {
    check_new(db, key, spec, true).await?;
    let row: Option<ClaimRow> = sqlx::query_as(concat!(
        "insert into claims (id, namespace, name, cluster, database, source, source_ref, mode, schemas, extensions,
                             connection_limit, slack_channel, adopt)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         on conflict do nothing returning ",
        claim_columns!()
    ))
    .bind(Uuid::now_v7())
    .bind(key.namespace())
    .bind(key.name())
    .bind(&spec.cluster)
    .bind(key.database())
    .bind(source.as_str())
    .bind(source_ref)
    .bind(spec.mode.as_str())
    .bind(&spec.schemas)
    .bind(&spec.extensions)
    .bind(spec.connection_limit)
    .bind(&spec.slack_channel)
    .bind(adopt)
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Err(taken(db, key, spec).await?) };
    let claim = Claim::try_from(row)?;
    let kind = if adopt { OperationKind::Adopt } else { OperationKind::Create };
    record_new(db, Value::Null, claim, kind, actor).await
}

async fn take_back(
    db: &mut PgConnection,
    claim: Claim,
    spec: &ClaimSpec,
    (source, source_ref): (Source, Option<&str>),
    adopt: bool,
    actor: &Actor,
) -> Result<Written> {
    check_cluster(db, &claim.key, spec).await?;
    check_immutable(&claim, spec)?;
    let before = claim.clone();
    sqlx::query(
        "update claims set source = $2, source_ref = $3, source_generation = null, wish = 'present', released = false,
                state = 'Pending'
         where id = $1",
    )
    .bind(claim.id)
    .bind(source.as_str())
    .bind(source_ref)
    .execute(&mut *db)
    .await?;
    let claim = store_spec(db, claim, spec, adopt).await?;
    record(db, &before, claim, OperationKind::Adopt, actor).await
}

async fn store_spec(db: &mut PgConnection, claim: Claim, spec: &ClaimSpec, adopt: bool) -> Result<Claim> {
    let row: ClaimRow = sqlx::query_as(concat!(
        "update claims set mode = $2, schemas = $3, extensions = $4, connection_limit = $5, slack_channel = $6, adopt = $7,
                generation = generation + 1, urgent = true, due_at = now(), attempts = 0, wished_at = now()
         where id = $1 returning ",
        claim_columns!()
    ))
    .bind(claim.id)
    .bind(spec.mode.as_str())
    .bind(&spec.schemas)
    .bind(&spec.extensions)
    .bind(spec.connection_limit)
    .bind(&spec.slack_channel)
    .bind(adopt)
    .fetch_one(db)
    .await?;
    Ok(row.try_into()?)
}

async fn set_wish(db: &mut PgConnection, claim: Claim, wish: Wish, released: bool) -> Result<Claim> {
    let state = match wish {
        Wish::Present => DatabaseState::Pending,
        Wish::Retained => DatabaseState::Retained,
        Wish::Absent => DatabaseState::Deleting,
    };
    let row: ClaimRow = sqlx::query_as(concat!(
        "update claims set wish = $2, released = $3, state = $4, generation = generation + 1, rotate = '{}', rotate_at = null,
                observed_generation = case when $2 = 'retained' then generation + 1 else observed_generation end,
                urgent = true, due_at = now(), attempts = 0, wished_at = now()
         where id = $1 returning ",
        claim_columns!()
    ))
    .bind(claim.id)
    .bind(json_name(wish))
    .bind(released)
    .bind(state.as_str())
    .fetch_one(db)
    .await?;
    Ok(row.try_into()?)
}

pub(crate) async fn record(
    db: &mut PgConnection,
    before: &Claim,
    claim: Claim,
    kind: OperationKind,
    actor: &Actor,
) -> Result<Written> {
    record_new(db, json!(before.spec), claim, kind, actor).await
}

/// The operation, the audit and the event of a wish.
async fn record_new(
    db: &mut PgConnection,
    before: Value,
    claim: Claim,
    kind: OperationKind,
    actor: &Actor,
) -> Result<Written> {
    let key = &claim.key;
    let done = claim.wish == Wish::Retained;
    let operation = begin_operation(db, kind, key, claim.id, claim.generation, actor, done).await?;
    if claim.wish != Wish::Present {
        give_up_before(db, claim.id, claim.generation, kind).await?;
    }
    let action = format!("database.{}", json_name(kind));
    let detail = json!({
        "before": before, "after": claim.spec, "source": claim.source, "operation": operation.id,
        "rotate": claim.rotate,
    });
    let target = (Some(key.namespace()), Some(key.name()));
    write_audit(db, actor, &action, target, &detail).await?;
    announce_to_all(db, claim.wish != Wish::Retained, Some(&claim)).await?;
    let (event, message) = match kind {
        OperationKind::Create => (EventKind::Created, "claimed"),
        OperationKind::Delete => (EventKind::Deleting, "is being removed"),
        OperationKind::Release => (EventKind::Retained, "is kept, and not managed any more"),
        OperationKind::Adopt => (EventKind::Updated, "is being taken over"),
        OperationKind::Rotate => (EventKind::Updated, "gets new passwords"),
        OperationKind::Update | OperationKind::Backup | OperationKind::Verify => (EventKind::Updated, "was changed"),
    };
    let event = NewEvent {
        kind: event,
        namespace: Some(key.namespace()),
        name: key.name(),
        message: format!("{key} {message}, by {}", actor.name),
        detail: json!({"operation": operation.id, "generation": claim.generation}),
    };
    append_event(db, event).await?;
    Ok(Written { claim, operation: Some(operation) })
}
