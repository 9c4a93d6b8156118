//! A restore from the moment it is taken: one phase after the other, each written down before the next begins.

use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use metrics::counter;
use pgtenant_ledger::{
    Claim, LedgerError, RestoreWork, StepDone, StoredRestore, Wish, claim, end_restore, makes_room, renew_restore,
    retry_restore, step_done, within_deadline,
};
use pgtenant_model::{ClaimKey, RestorePhase, RestoreStrategy};
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;

use super::cluster_copy::ClusterCopy;
use super::trouble::{Kind, Trouble, worn_out};
use super::{choose, load};
use crate::Inner;
use crate::cluster::Cluster;
use crate::lease::Lease;

/// A restore under work.
pub(super) struct Restoring {
    pub(super) engine: Arc<Inner>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) lease: Lease,
    pub(super) work: RestoreWork,
}

/// What the steps leave for those after them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Steps {
    /// The claim that gets the data, where that was made for it.
    pub(super) copy: Option<uuid::Uuid>,
    /// Nothing was in its database before.
    pub(super) empty: bool,
    /// The server that the copy was made on.
    pub(super) copied_on: String,
    /// With strategy replace: the dump of what was there.
    pub(super) safety: Option<pgtenant_model::SnapshotId>,
    /// With strategy replace: from here on it may be that nothing is there any more.
    pub(super) emptying: bool,
    /// With strategy replace: nothing was there any more, and something is loaded.
    pub(super) emptied: bool,
    /// With strategy replace: from here on it may be that somebody is in the database again.
    pub(super) opening: bool,
    /// With strategy replace: each tier was let in again, and has logged in.
    pub(super) tried: bool,
    /// With strategy replace: why what was there is brought back.
    pub(super) back: Option<String>,
    /// The copy of the whole cluster that is read, from before it is there.
    pub(super) cluster_copy: Option<ClusterCopy>,
    /// What is told in the end, while cleaning up has its own things to tell.
    pub(super) ending: Option<String>,
    /// What could not be brought back so far.
    pub(super) left_out: Vec<pgtenant_model::LeftOut>,
}

/// What comes after a step.
pub(super) enum Next {
    /// The next one.
    Go(Box<StoredRestore>),
    /// Nothing, or nothing now.
    Over,
}

/// Works on a restore until it is over, has to wait, or is another replica's.
pub(super) async fn attend(engine: Arc<Inner>, cluster: Arc<Cluster>, work: RestoreWork, since: Instant) {
    let view = &work.restore.view;
    let span = tracing::info_span!("restore", id = %view.id, claim = %format!("{}/{}", view.namespace, view.name));
    let lease = Lease::new(since, engine.settings.lease);
    let mut one = Restoring { engine, cluster, lease, work };
    async {
        loop {
            let ended = tokio::select! {
                biased;
                next = one.next() => Some(next),
                cancelled = one.keep() => {
                    if cancelled.is_none() {
                        counter!("pgtenant_fenced_total").increment(1);
                        tracing::warn!("another replica has taken the restore; this one stops");
                        return;
                    }
                    None
                }
            };
            match ended {
                Some(Ok(Next::Go(restore))) => one.work.restore = *restore,
                Some(Ok(Next::Over)) => return,
                Some(Err(error)) => {
                    tracing::warn!(error = ?error, "not written down; the lease runs out and the step is done again");
                    return;
                }
                // What was under way is dropped with the future; the next step leaves all as it was.
                None => one.work.restore.cancel = true,
            }
        }
    }
    .instrument(span)
    .await;
}

impl Restoring {
    pub(super) fn phase(&self) -> RestorePhase {
        self.work.restore.view.phase
    }

    pub(super) fn key(&self) -> Result<ClaimKey, Trouble> {
        Ok(self.work.restore.key()?)
    }

    pub(super) fn steps(&self) -> Result<Steps, Trouble> {
        let read = serde_json::from_value(self.work.restore.steps.clone());
        read.map_err(|error| Trouble::last(format!("what the former steps have left can not be read: {error}")))
    }

    /// The claim that gets the data.
    pub(super) fn target(&self) -> Result<ClaimKey, Trouble> {
        let view = &self.work.restore.view;
        let name = match (view.spec.strategy, &view.spec.copy_name) {
            (RestoreStrategy::Copy, Some(name)) => name,
            _ => &view.name,
        };
        ClaimKey::new(&view.namespace, name).map_err(|error| Trouble::last(error.to_string()))
    }

    /// The claim as it is now, whichever it is.
    pub(super) async fn claim(&self, key: &ClaimKey) -> Result<Option<Claim>, Trouble> {
        let read = async { claim(&mut *self.engine.ledger.acquire().await?, key).await };
        Ok(within_deadline(read).await?)
    }

    /// Holds the lease; returns when somebody wants the restore to be cancelled, and it can be, or (none) another replica has it.
    async fn keep(&self) -> Option<()> {
        let restore = &self.work.restore;
        let cancellable = self.phase().can_be_cancelled() && restore.outcome.is_none() && !restore.cancel;
        let renew = |length| {
            let (ledger, work) = (self.engine.ledger.clone(), self.work.clone());
            async move {
                let cancel = renew_restore(&mut *ledger.acquire().await?, &work, length).await?;
                Ok((cancel && cancellable).then_some(()))
            }
        };
        self.lease.keep(renew).await
    }

    /// What nobody waits for takes room that it gives back soon.
    async fn unless_room_is_made(&self, trouble: Trouble) -> Result<Trouble, LedgerError> {
        let made = async { makes_room(&mut *self.engine.ledger.acquire().await?, &self.cluster.name).await };
        let made = !self.work.restore.scheduled && within_deadline(made).await?;
        Ok(if made { Trouble::wait(format!("{}; a test ends to make room", trouble.message)) } else { trouble })
    }

    /// Whether the claim is not to be there any more.
    async fn is_gone(&self) -> bool {
        let Ok(key) = self.key() else { return false };
        let wanted = |claim: &Claim| claim.id == self.work.restore.claim && claim.wish == Wish::Present;
        self.claim(&key).await.is_ok_and(|found| !found.as_ref().is_some_and(wanted))
    }

    async fn next(&self) -> Result<Next, LedgerError> {
        match self.step().await {
            Ok(next) => Ok(next),
            Err(trouble) => self.failed(trouble).await,
        }
    }

    async fn step(&self) -> Result<Next, Trouble> {
        let restore = &self.work.restore;
        if self.phase().is_over() {
            return self.after().await;
        }
        if restore.outcome.is_some() {
            return Box::pin(self.clean_up()).await;
        }
        if restore.cancel && self.phase().can_be_cancelled() {
            return self.decide(RestorePhase::Cancelled, "cancelled: all is as it was").await;
        }
        if let Some(trouble) = worn_out(restore.attempts)
            && !self.may_be_switched().await
        {
            return Err(trouble);
        }
        // Each on the heap: what they await is nested deeply, and would be on the stack at once.
        match self.phase() {
            RestorePhase::Requested | RestorePhase::Approved => Box::pin(self.begin()).await,
            RestorePhase::Preparing => Box::pin(self.prepare()).await,
            RestorePhase::Copying => Box::pin(self.copy()).await,
            RestorePhase::Verifying => Box::pin(self.verify()).await,
            RestorePhase::Switching => Box::pin(self.switch()).await,
            RestorePhase::CleaningUp
            | RestorePhase::Succeeded
            | RestorePhase::Failed
            | RestorePhase::Cancelled
            | RestorePhase::Rejected => self.decide(RestorePhase::Failed, "it ended without an outcome").await,
        }
    }

    /// Decides which snapshot is meant.
    async fn begin(&self) -> Result<Next, Trouble> {
        let key = self.key()?;
        let found = self.claim(&key).await?.filter(|claim| claim.id == self.work.restore.claim);
        if found.as_ref().is_none_or(|claim| claim.wish != Wish::Present) {
            return Err(Trouble::last(format!("the claim {key} is not there any more")));
        }
        let (from, now) = (&self.work.restore.view.spec.from, Utc::now());
        let made = found.as_ref().map(|claim| claim.created_at);
        let chosen = match choose::point_in_time(&self.cluster, from, made, now).await? {
            Some(instant) => instant,
            None => {
                let all = choose::candidates(&self.cluster, &key, made, from).await;
                choose::choose(all.map_err(|error| Trouble::again(error.to_string()))?, from, now)?
            }
        };
        let message = format!("{} from {} is made ready", chosen.id, chosen.at.format("%Y-%m-%d %H:%M:%S UTC"));
        let cluster_copy = self.copy_to_make(&chosen.id);
        let steps = Steps { cluster_copy, ..Steps::default() };
        let done = StepDone { snapshot: Some(chosen.id), ..StepDone::new(RestorePhase::Preparing, message) };
        self.done(StepDone { output: to_json(&steps)?, ..done }).await
    }

    /// Writes down what a step has left.
    pub(super) async fn done(&self, mut done: StepDone) -> Result<Next, Trouble> {
        if let (RestorePhase::CleaningUp, Some(output)) = (done.phase, done.output.as_object_mut()) {
            output.insert("ending".to_owned(), done.message.clone().into());
        }
        self.engine.settings.faults.reach(&format!("before:restore-to-{:?}", done.phase)).await;
        let written = within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            let restore = step_done(&mut tx, &self.work, &done).await?;
            tx.commit().await?;
            Ok(restore)
        })
        .await?;
        tracing::info!(phase = ?done.phase, "{}", done.message);
        self.engine.settings.faults.reach(&format!("after:restore-to-{:?}", done.phase)).await;
        Ok(Next::Go(Box::new(written)))
    }

    /// Decides how it ends; what it has left is cleaned up first.
    pub(super) async fn decide(&self, outcome: RestorePhase, message: &str) -> Result<Next, Trouble> {
        let done = StepDone::new(RestorePhase::CleaningUp, message);
        self.done(StepDone { outcome: Some(outcome), ..done }).await
    }

    /// How it ended, for people: while it is cleaned up, other things are told as well.
    pub(super) fn ending(&self) -> Result<String, Trouble> {
        let told = || self.work.restore.view.message.clone().unwrap_or_default();
        Ok(self.steps()?.ending.unwrap_or_else(told))
    }

    /// Removes what was needed only for this.
    async fn clean_up(&self) -> Result<Next, Trouble> {
        if let Some(next) = self.fill_again_if_moved().await? {
            return Ok(next);
        }
        if let Some(next) = self.switch_again_if_moved().await? {
            return Ok(next);
        }
        // Each for itself: what costs money does not wait for a cluster that is down.
        let beside = load::clean_up(self).await;
        let left = [self.remove_cluster_copy().await, self.remove_scratch_server().await];
        beside?;
        let [copy, scratch] = left;
        let left = [copy?, scratch?];
        if let Some(next) = self.try_tiers().await? {
            return Ok(next);
        }
        let outcome = self.work.restore.outcome.unwrap_or(RestorePhase::Failed);
        let message = left.into_iter().flatten().fold(self.ending()?, |message, left| format!("{message}; {left}"));
        let ended = within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            let ended = end_restore(&mut tx, &self.work, outcome, &message).await?;
            tx.commit().await?;
            Ok(ended)
        });
        let ended = ended.await?;
        self.count(outcome);
        tracing::info!(phase = ?ended.view.phase, "{message}");
        Ok(Next::Over)
    }

    /// A test by the schedule is one of the backups that are good or not.
    fn count(&self, outcome: RestorePhase) {
        let cluster = self.cluster.name.clone();
        if !self.work.restore.scheduled {
            counter!("pgtenant_restores_total", "cluster" => cluster, "outcome" => format!("{outcome:?}")).increment(1);
        } else if outcome != RestorePhase::Cancelled {
            let result = if outcome == RestorePhase::Succeeded { "succeeded" } else { "failed" };
            counter!("pgtenant_backups_total", "cluster" => cluster, "kind" => "test", "result" => result).increment(1);
        }
    }

    /// A try that came to nothing: another one later, or the end.
    async fn failed(&self, trouble: Trouble) -> Result<Next, LedgerError> {
        let attempts = self.work.restore.attempts;
        if trouble.kind == Kind::LeaseLost {
            return Ok(Next::Over);
        }
        let trouble = if trouble.kind == Kind::NoRoom { self.unless_room_is_made(trouble).await? } else { trouble };
        let cleaning = self.work.restore.outcome.is_some() || self.phase().is_over();
        if !trouble.is_waiting() {
            tracing::warn!(phase = ?self.phase(), attempts, "{}", trouble.message);
        }
        if trouble.is_final(attempts) && !cleaning && !self.may_be_switched().await {
            // A test by the schedule that can not be made says nothing of the backup.
            let pointless = self.work.restore.scheduled && (trouble.kind == Kind::NoRoom || self.is_gone().await);
            let outcome = if pointless { RestorePhase::Cancelled } else { RestorePhase::Failed };
            let message = format!("{}; the database is as it was", trouble.message);
            return match self.decide(outcome, &message).await {
                Ok(next) => Ok(next),
                // Tried again when the lease has run out.
                Err(_) => Ok(Next::Over),
            };
        }
        let next = trouble.next_try(attempts);
        within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            retry_restore(&mut tx, &self.work, &trouble.message, next, !trouble.is_waiting()).await?;
            Ok(tx.commit().await?)
        })
        .await?;
        Ok(Next::Over)
    }
}

pub(super) fn to_json(value: &impl Serialize) -> Result<serde_json::Value, Trouble> {
    serde_json::to_value(value).map_err(|error| Trouble::last(format!("can not be written down: {error}")))
}
