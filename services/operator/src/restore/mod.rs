//! Restores: what a `PostgresqlRestore` wishes is asked of the ledger, once, and how far it is goes into its status.
//!
//! A reconciliation reads from the top: dereference, decide (pure), apply, status (pure), write it. The object is a request and
//! nothing more: whoever may make one in a namespace has asked, and has not approved. Deleting it cancels what can be cancelled,
//! and touches no data.

mod ask;
mod decide;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::StreamExt as _;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};
use pgtenant_ledger::{StoredRestore, restore_of_object, within_deadline};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::context::{Context, count, drive};
use crate::crd::PostgresqlRestore;
use crate::error::{OperatorError, Result};
use crate::events;
use crate::heard::{Freed, RestoresHeard};
use crate::object::{add_finalizer, put_status, remove_finalizer};
use crate::retry::again;
use crate::watch::watched;
use decide::{Refusal, decide, is_waiting, waits_until};

/// What holds an object for as long as its restore can be cancelled.
const FINALIZER: &str = "pgtenant.io/restore";
/// In metrics.
const KIND: &str = "PostgresqlRestore";
/// Objects under work at once: a few round trips to the ledger and the API server each.
const AT_ONCE: u16 = 4;
/// Nothing was heard of a restore under way for so long: it is looked at.
const SILENCE: Duration = Duration::from_secs(60);
/// After a refusal that may end; its end is announced, mostly.
const REFUSED: Duration = Duration::from_secs(300);
/// Objects that are let go on at once: of a thousand that wait for the same, one gets it.
const LET_GO: usize = 10;

/// Runs for ever. `writer` is filled for those who look objects up.
pub(crate) async fn run(
    context: Arc<Context>,
    heard: RestoresHeard,
    writer: Writer<PostgresqlRestore>,
    listed: CancellationToken,
) {
    let store = writer.as_reader();
    let objects = store.clone();
    let moved = heard.restores.flat_map(move |id| futures::stream::iter(of_restore(&objects, id)));
    let objects = store.clone();
    let freed = heard.freed.flat_map(move |freed| futures::stream::iter(held_up(&objects, &freed)));
    let controller = Controller::for_stream(watched(&context, writer, listed), store)
        .with_config(Config::default().concurrency(AT_ONCE))
        .reconcile_on(moved)
        .reconcile_on(freed)
        .reconcile_all_on(heard.all);
    drive(KIND, controller.run(reconcile, retry, context)).await;
}

async fn reconcile(object: Arc<PostgresqlRestore>, context: Arc<Context>) -> Result<Action> {
    let uid = object.uid().unwrap_or_default();
    let found = within_deadline(async { restore_of_object(&mut *context.ledger.acquire().await?, &uid).await }).await?;
    if object.meta().deletion_timestamp.is_some() {
        return clean_up(&object, found, &context).await;
    }
    let asked = found.is_some();
    let (restore, refusal) = ask::apply(decide(&object, found.as_ref()), &object, found, &context).await?;
    if let Some(restore) = restore {
        // What was just asked for has it.
        if asked {
            hold(&object, &restore, &context).await?;
        }
        let status = status::status(&object, &restore, Utc::now());
        put_status(&*object, object.status.as_ref(), &status, &context).await?;
        context.retries.succeeded(&uid);
        count(KIND, "done");
        return Ok(if restore.view.phase.is_over() { Action::await_change() } else { again(SILENCE) });
    }
    let Some(refusal) = refusal else { return Ok(Action::await_change()) };
    refuse(&object, &refusal, &context).await
}

/// Holds the object for as long as there is something to cancel: one whose restore is over goes without anybody's help.
async fn hold(object: &PostgresqlRestore, restore: &StoredRestore, context: &Context) -> Result<()> {
    if restore.view.phase.can_be_cancelled() {
        add_finalizer(object, FINALIZER, context).await
    } else {
        remove_finalizer(object, FINALIZER, context).await
    }
}

async fn refuse(object: &PostgresqlRestore, refusal: &Refusal, context: &Context) -> Result<Action> {
    let now = Utc::now();
    remove_finalizer(object, FINALIZER, context).await?;
    let status = status::refused(object, refusal, now);
    let Refusal { reason, message, last } = refusal;
    if put_status(object, object.status.as_ref(), &status, context).await? {
        events::refused(object, reason, message, context).await;
    }
    context.retries.succeeded(&object.uid().unwrap_or_default());
    count(KIND, "refused");
    if *last {
        return Ok(Action::await_change());
    }
    let left = (waits_until(object) - now).to_std().unwrap_or_default();
    Ok(again(REFUSED.min(left.max(Duration::from_secs(1)))))
}

/// Cancels what can be cancelled, and lets go of the object at once: whatever happens to the restore is in the ledger.
async fn clean_up(object: &PostgresqlRestore, found: Option<StoredRestore>, context: &Context) -> Result<Action> {
    if object.finalizers().iter().any(|one| one == FINALIZER) {
        if let Some(restore) = &found {
            ask::cancel(restore, object, context).await?;
        }
        remove_finalizer(object, FINALIZER, context).await?;
    }
    context.retries.succeeded(&object.uid().unwrap_or_default());
    Ok(Action::await_change())
}

fn retry(object: Arc<PostgresqlRestore>, error: &OperatorError, context: Arc<Context>) -> Action {
    context.retry(KIND, &*object, error)
}

/// The object of a restore, where one has asked for it and knows so.
fn of_restore(store: &Store<PostgresqlRestore>, id: Uuid) -> Option<ObjectRef<PostgresqlRestore>> {
    let id = id.to_string();
    let is_it = |object: &PostgresqlRestore| {
        object.status.as_ref().is_some_and(|status| status.id.as_deref() == Some(id.as_str()))
    };
    store.find(is_it).map(|object| ObjectRef::from_obj(&*object))
}

/// Objects that could not be asked for, and perhaps can be now; those that have waited for longest.
fn held_up(store: &Store<PostgresqlRestore>, freed: &Freed) -> Vec<ObjectRef<PostgresqlRestore>> {
    let is_held_up = |object: &Arc<PostgresqlRestore>| {
        let waits_for_this = match freed {
            Freed::Claim(key) => {
                object.spec.database == key.name() && object.namespace().as_deref() == Some(key.namespace())
            }
            Freed::Turn => {
                let conditions = object.status.iter().flat_map(|status| &status.conditions);
                conditions.into_iter().any(|one| one.reason == "TooManyRestores")
            }
        };
        waits_for_this && is_waiting(object)
    };
    let mut found: Vec<_> = store.state().into_iter().filter(is_held_up).collect();
    found.sort_by_key(|object| object.meta().creation_timestamp.as_ref().map(|time| time.0));
    found.iter().take(LET_GO).map(|object| ObjectRef::from_obj(&**object)).collect()
}
