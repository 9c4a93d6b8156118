//! Asks the ledger for what objects wish, and takes it back. No transaction is held across a call to the API server.

use chrono::Utc;
use kube::ResourceExt as _;
use pgtenant_ledger::{
    Actor, LedgerError, Refused, StoredRestore, cancel_restore, request_restore_of_object, within_deadline,
};

use super::FINALIZER;
use super::decide::{Refusal, Step, Wished, refusal};
use crate::context::Context;
use crate::crd::PostgresqlRestore;
use crate::error::Result;
use crate::object::{add_finalizer, require_live};

/// Does a step. Returns the restore as it is then, and why it was refused, if it was.
pub(super) async fn apply(
    step: Step,
    object: &PostgresqlRestore,
    found: Option<StoredRestore>,
    context: &Context,
) -> Result<(Option<StoredRestore>, Option<Refusal>)> {
    match step {
        Step::Keep => Ok((found, None)),
        Step::Refuse(refusal) => Ok((None, Some(refusal))),
        Step::Ask(wished) => Ok(match ask(&wished, object, context).await? {
            Ok(restore) => (Some(restore), None),
            Err(refused) => (None, Some(refusal(&refused, object, Utc::now()))),
        }),
    }
}

/// The finalizer comes first: from the moment the restore is written down there is something to cancel. An object that would be
/// refused gets none. Where the finalizer is there the object may be an old one that is gone by now.
async fn ask(wished: &Wished, object: &PostgresqlRestore, context: &Context) -> Result<Result<StoredRestore, Refused>> {
    if object.finalizers().iter().any(|one| one == FINALIZER) {
        require_live(object, context).await?;
    } else {
        if let Err(refused) = request(wished, object, context, false).await? {
            return Ok(Err(refused));
        }
        add_finalizer(object, FINALIZER, context).await?;
    }
    request(wished, object, context, true).await
}

/// Without `commit`: what would come of it.
async fn request(
    Wished { key, spec }: &Wished,
    object: &PostgresqlRestore,
    context: &Context,
    commit: bool,
) -> Result<Result<StoredRestore, Refused>> {
    let uid = object.uid().unwrap_or_default();
    let written = async {
        let mut tx = context.ledger.begin().await?;
        match request_restore_of_object(&mut tx, key, spec, &uid, &actor(object)).await {
            Ok(restore) => {
                let done = if commit { tx.commit().await } else { tx.rollback().await };
                done.map_err(LedgerError::from)?;
                Ok(Ok(restore))
            }
            Err(Refused::Ledger(error)) => Err(error),
            Err(refused) => Ok(Err(refused)),
        }
    };
    Ok(within_deadline(written).await?)
}

/// The object is being deleted: its restore ends with all as it was, where that is still possible.
pub(super) async fn cancel(restore: &StoredRestore, object: &PostgresqlRestore, context: &Context) -> Result<()> {
    if restore.cancel || !restore.view.phase.can_be_cancelled() {
        return Ok(());
    }
    let written = async {
        let mut tx = context.ledger.begin().await?;
        match cancel_restore(&mut tx, restore.view.id, &actor(object)).await {
            Ok(_) => Ok(tx.commit().await.map_err(LedgerError::from)?),
            Err(Refused::Ledger(error)) => Err(error),
            // It has begun to switch meanwhile.
            Err(_) => Ok(()),
        }
    };
    Ok(within_deadline(written).await?)
}

fn actor(object: &PostgresqlRestore) -> Actor {
    Actor::new(format!("kubernetes:{}/{}", object.namespace().unwrap_or_default(), object.name_any()))
}
