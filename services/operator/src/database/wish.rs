//! Writes wishes into the ledger, each in a transaction of its own. None is held across a call to the API server.

use kube::{Resource as _, ResourceExt as _};
use pgtenant_ledger::{self as ledger, Actor, Claim, LedgerError, Refused, Written, within_deadline};
use pgtenant_model::Source;

use super::FINALIZER;
use super::decide::{Refusal, Step, Wished, is_of};
use crate::context::Context;
use crate::crd::PostgresqlDatabase;
use crate::error::{OperatorError, Result};
use crate::object::{add_finalizer, require_live};

const DOOR: Source = Source::Kubernetes;

/// Does a step. Returns the claim as it is then, and why the wish was refused, if it was.
pub(super) async fn apply(
    step: Step,
    object: &PostgresqlDatabase,
    found: Option<Claim>,
    context: &Context,
) -> Result<(Option<Claim>, Option<Refusal>)> {
    let written = match step {
        Step::Keep => return Ok((found, None)),
        Step::Refuse(refusal) => return Ok((found, Some(refusal))),
        Step::Create(wished) => create(&wished, object, context).await,
        Step::Update(wished) => update(&wished, object, found.as_ref(), context).await,
    };
    match written {
        Ok(claim) => Ok((Some(claim), None)),
        Err(Failed::Refused(refused)) => Ok((found, Some(Refusal::from(&refused)))),
        Err(Failed::Operator(error)) => Err(error),
    }
}

enum Failed {
    /// For the object's condition.
    Refused(Refused),
    /// To be tried again.
    Operator(OperatorError),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Ledger(error) => Self::Operator(error.into()),
            refused => Self::Refused(refused),
        }
    }
}

impl From<OperatorError> for Failed {
    fn from(error: OperatorError) -> Self {
        Self::Operator(error)
    }
}

impl From<LedgerError> for Failed {
    fn from(error: LedgerError) -> Self {
        Self::Operator(error.into())
    }
}

/// The finalizer comes first: from the moment the claim is written down there is something to clean up. An object that would
/// be refused gets none. Where the finalizer is there the object may be an old one, whose claim was just removed.
async fn create(wished: &Wished, object: &PostgresqlDatabase, context: &Context) -> Result<Claim, Failed> {
    if !object.finalizers().iter().any(|one| one == FINALIZER) {
        let Wished { key, spec } = wished;
        let allowed = async { Ok(ledger::check(&mut *context.ledger.acquire().await?, key, spec, DOOR).await) };
        within_deadline(allowed).await??;
        add_finalizer(object, FINALIZER, context).await?;
    } else {
        require_live(object, context).await?;
    }
    write(wished, object, context, true).await
}

/// Where another object of this name was written down, this one has to be there now.
async fn update(
    wished: &Wished,
    object: &PostgresqlDatabase,
    found: Option<&Claim>,
    context: &Context,
) -> Result<Claim, Failed> {
    if !found.is_some_and(|claim| is_of(claim, object)) {
        require_live(object, context).await?;
    }
    write(wished, object, context, false).await
}

async fn write(
    Wished { key, spec }: &Wished,
    object: &PostgresqlDatabase,
    context: &Context,
    new: bool,
) -> Result<Claim, Failed> {
    let uid = object.uid().unwrap_or_default();
    let generation = object.meta().generation.unwrap_or_default();
    let written = async {
        let mut tx = context.ledger.begin().await?;
        let actor = actor(object);
        let wish = if new {
            ledger::create(&mut tx, key, spec, (DOOR, Some(&uid)), &actor).await
        } else {
            ledger::update(&mut tx, key, |_| spec.clone(), DOOR, None, &actor).await
        };
        let Written { mut claim, .. } = match wish {
            Ok(written) => written,
            Err(refused) => return Ok(Err(Failed::from(refused))),
        };
        if !ledger::note_definition(&mut tx, claim.id, &uid, generation).await? {
            return Ok(Err(Failed::Operator(OperatorError::Stale)));
        }
        tx.commit().await.map_err(LedgerError::from)?;
        (claim.source_ref, claim.source_generation) = (Some(uid.clone()), Some(generation));
        Ok(Ok(claim))
    };
    within_deadline(written).await?
}

/// The object is being deleted: a standard claim is removed, a protected one is kept. None where somebody else was faster.
pub(super) async fn withdraw(found: &Claim, object: &PostgresqlDatabase, context: &Context) -> Result<Option<Claim>> {
    // One that was restored from a backup and is deleted before it was written down has a UID that the ledger does not know.
    if !is_of(found, object) {
        require_live(object, context).await?;
    }
    let written = async {
        let mut tx = context.ledger.begin().await?;
        // What it says last counts, even where nobody was there to write it down, or it was refused.
        let wish = ledger::withdraw(&mut tx, &found.key, DOOR, Some(object.spec.mode), &actor(object)).await;
        match wish {
            Ok(Written { claim, .. }) if claim.source_ref == found.source_ref => {
                tx.commit().await.map_err(LedgerError::from)?;
                Ok(Ok(Some(claim)))
            }
            Err(Refused::Ledger(error)) => Err(error),
            Err(Refused::NotFound(_)) => Ok(Ok(None)),
            // Released, taken by another door, or written down for another object since it was read.
            Ok(_) | Err(_) => Ok(Err(OperatorError::Stale)),
        }
    };
    within_deadline(written).await?
}

fn actor(object: &PostgresqlDatabase) -> Actor {
    Actor::new(format!("kubernetes:{}/{}", object.namespace().unwrap_or_default(), object.name_any()))
}
