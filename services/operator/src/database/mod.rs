//! Databases: what a `PostgresqlDatabase` wishes goes into the ledger, and what became of it goes into its status.
//!
//! A reconciliation reads from the top: dereference, decide (pure), apply, status (pure), write it. Cleaning up never
//! validates, so that a bad spec does not stand in the way of its own deletion.

mod decide;
mod secrets;
mod status;
mod sweep;
#[cfg(test)]
mod tests;
mod wish;

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::StreamExt as _;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};
use pgtenant_ledger::{Claim, Wish, claim, within_deadline};
use pgtenant_model::ClaimKey;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, count, drive};
use crate::crd::PostgresqlDatabase;
use crate::error::{OperatorError, Result};
use crate::events;
use crate::heard::Heard;
use crate::object::{add_finalizer, put_status, remove_finalizer};
use crate::retry::again;
use crate::watch::watched;
use decide::{Ending, Refusal, Step, decide, ending, is_held};
use status::{nothing_to_tell, status};

pub(crate) use secrets::watch_secrets;
pub(crate) use sweep::sweep;

/// What holds an object until its database is gone, or kept without it.
const FINALIZER: &str = "pgtenant.io/database";
/// In metrics.
const KIND: &str = "PostgresqlDatabase";
/// Objects under work at once: a few round trips to the ledger and the API server each.
const AT_ONCE: u16 = 8;
/// Nothing was heard of a claim under work for so long: it is looked at.
const SILENCE: Duration = Duration::from_secs(30);
/// After a refusal; its end is announced, mostly.
const REFUSED: Duration = Duration::from_secs(300);

/// Runs for ever. `writer` is filled for those who look objects up.
pub(crate) async fn run(
    context: Arc<Context>,
    heard: Heard,
    writer: Writer<PostgresqlDatabase>,
    listed: CancellationToken,
) {
    let store = writer.as_reader();
    let claims = heard.claims.map(|key| ObjectRef::new(key.name()).within(key.namespace()));
    let objects = store.clone();
    let held_up = heard.ended.flat_map(move |key| futures::stream::iter(held_up(&objects, &key)));
    let controller = Controller::for_stream(watched(&context, writer, listed), store)
        .with_config(Config::default().concurrency(AT_ONCE))
        .reconcile_on(claims)
        .reconcile_on(held_up)
        .reconcile_all_on(heard.all);
    drive(KIND, controller.run(reconcile, retry, context)).await;
}

async fn reconcile(object: Arc<PostgresqlDatabase>, context: Arc<Context>) -> Result<Action> {
    let found = dereference(&object, &context).await?;
    if object.meta().deletion_timestamp.is_some() {
        return clean_up(&object, found, &context).await;
    }
    let step = decide(&object, found.as_ref());
    let new = matches!(step, Step::Create(_));
    let (claim, refusal) = wish::apply(step, &object, found, &context).await?;
    if let (Some(claim), None) = (&claim, &refusal)
        && let Some(wait) = nothing_to_tell(&object, claim, Utc::now())
    {
        return Ok(Action::requeue(wait));
    }
    // Somebody took it away.
    if !new && claim.as_ref().is_some_and(|claim| is_held(claim, &object)) {
        add_finalizer(&*object, FINALIZER, &context).await?;
    }
    let status = status(&object, claim.as_ref(), refusal.as_ref(), Utc::now());
    if put_status(&*object, object.status.as_ref(), &status, &context).await?
        && let Some(Refusal { reason, message }) = &refusal
    {
        events::refused(&*object, reason, message, &context).await;
    }
    context.retries.succeeded(&object.uid().unwrap_or_default());
    count(KIND, if refusal.is_some() { "refused" } else { "done" });
    Ok(match refusal {
        Some(_) => again(REFUSED),
        None if claim.as_ref().is_some_and(settled) => Action::await_change(),
        None => again(SILENCE),
    })
}

/// What the ledger has of this name; nothing where the name can not be a claim's.
async fn dereference(object: &PostgresqlDatabase, context: &Context) -> Result<Option<Claim>> {
    let Ok(key) = ClaimKey::new(object.namespace().unwrap_or_default(), object.name_any()) else { return Ok(None) };
    Ok(within_deadline(async { claim(&mut *context.ledger.acquire().await?, &key).await }).await?)
}

/// Lets go of the object when nothing is left to be done for it.
async fn clean_up(object: &PostgresqlDatabase, found: Option<Claim>, context: &Context) -> Result<Action> {
    if !object.finalizers().iter().any(|one| one == FINALIZER) {
        return Ok(Action::await_change());
    }
    let claim = match ending(found) {
        Ending::Withdraw(claim) => wish::withdraw(&claim, object, context).await?,
        Ending::Wait(claim) => Some(*claim),
        Ending::Done => None,
    };
    let Some(claim) = claim.filter(|claim| claim.wish == Wish::Absent) else {
        remove_finalizer(object, FINALIZER, context).await?;
        context.retries.succeeded(&object.uid().unwrap_or_default());
        return Ok(Action::await_change());
    };
    let status = status(object, Some(&claim), None, Utc::now());
    put_status(object, object.status.as_ref(), &status, context).await?;
    Ok(again(SILENCE))
}

fn settled(claim: &Claim) -> bool {
    claim.wish == Wish::Retained || (claim.observed_generation >= claim.generation && claim.attempts == 0)
}

fn retry(object: Arc<PostgresqlDatabase>, error: &OperatorError, context: Arc<Context>) -> Action {
    context.retry(KIND, &*object, error)
}

/// Objects without a claim that were perhaps refused since `ended` had their name, or filled their namespace's quota.
fn held_up(store: &Store<PostgresqlDatabase>, ended: &ClaimKey) -> Vec<ObjectRef<PostgresqlDatabase>> {
    let database = ended.database();
    let is_held_up = |object: &Arc<PostgresqlDatabase>| {
        let namespace = object.namespace().unwrap_or_default();
        let has_claim = object.status.as_ref().is_some_and(|status| status.database.is_some());
        let may_go_on = namespace == ended.namespace() || format!("{namespace}-{}", object.name_any()) == database;
        !has_claim && may_go_on
    };
    store.state().iter().filter(|object| is_held_up(object)).map(|object| ObjectRef::from_obj(&**object)).collect()
}
