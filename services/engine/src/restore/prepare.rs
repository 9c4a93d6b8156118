//! Before anything is copied: the claim that gets the data, the tools, the room.

use pgtenant_ledger::{Claim, Refused, StepDone, Wish, create, step_done, within_deadline};
use pgtenant_model::{
    ClaimKey, Condition, ConditionStatus, DatabaseState, Mode, OperationKind, RestorePhase, RestoreStrategy, Source,
};
use pgtenant_postgres::{Server, databases_bytes};

use super::machine::{Next, Restoring, Steps};
use super::trouble::{Kind, Trouble};
use crate::cluster::Cluster;

impl Restoring {
    /// Makes sure that the copy can be made.
    pub(super) async fn prepare(&self) -> Result<Next, Trouble> {
        let target = self.target()?;
        if self.work.restore.view.spec.strategy == RestoreStrategy::Copy {
            let steps = self.steps()?;
            if steps.copy.is_none() {
                return self.claim_copy(&target, steps).await;
            }
        }
        let claim = self.present(&target).await?;
        if claim.roles.is_none() || claim.state == DatabaseState::Provisioning {
            return Err(not_made(&claim));
        }
        if self.replaces() {
            super::dump::dumps(&self.cluster)?;
        }
        let server = self.cluster.server().await?;
        let version = self.engine.tools_for(&server).await?;
        if !self.replaces() && self.cluster.spec.restores.storage_bytes.is_some() {
            // Soon, as far as it is known: what was deleted since the snapshot is not.
            let sizes = databases_bytes(&mut server.maintenance().await?).await?;
            let now = sizes.get(&self.key()?.database()).copied().unwrap_or_default();
            check_room(&self.cluster, &server, now).await?;
        }
        self.make_cluster_copy().await?;
        self.make_scratch_server(self.snapshot()?).await?;
        let message = format!("tables are copied, with pg_restore of PostgreSQL {version}");
        self.done(StepDone::new(RestorePhase::Copying, message)).await
    }

    /// The claim, which must be there to get the data. One that was released meanwhile keeps its data, and gets these too.
    pub(super) async fn present(&self, key: &ClaimKey) -> Result<Claim, Trouble> {
        let meant = if *key == self.key()? { Some(self.work.restore.claim) } else { self.steps()?.copy };
        // Somebody may have removed it, and made another one of its name.
        let found = self.claim(key).await?.filter(|claim| claim.wish != Wish::Absent && Some(claim.id) == meant);
        found.ok_or_else(|| Trouble::last(format!("the claim {key} is not there any more")))
    }

    /// Asks for the new database that gets the data, as the door would. It goes again when the restore comes to nothing.
    async fn claim_copy(&self, target: &ClaimKey, steps: Steps) -> Result<Next, Trouble> {
        let spec = self.present(&self.key()?).await?.spec;
        let spec = pgtenant_model::ClaimSpec { mode: Mode::Standard, ..spec };
        let actor = pgtenant_ledger::Actor::new(format!("restore:{}", self.work.restore.view.id));
        let made = within_deadline(async {
            let mut tx = self.engine.ledger.begin().await?;
            let made = match create(&mut tx, target, &spec, (Source::Api, None), &actor).await {
                // Not one that is taken back: what is in it would go.
                Ok(written) if written.operation.as_ref().is_some_and(|one| one.kind == OperationKind::Create) => {
                    written.claim.id
                }
                Ok(_) => return Ok(Err(format!("there is a database {target} already: choose another copyName"))),
                Err(Refused::Ledger(error)) => return Err(error),
                Err(refused) => return Ok(Err(refused.to_string())),
            };
            let steps = Steps { copy: Some(made), ..steps };
            let output = serde_json::to_value(&steps).unwrap_or_default();
            let done = StepDone::new(RestorePhase::Preparing, format!("the database {target} is made"));
            let restore = step_done(&mut tx, &self.work, &StepDone { output, ..done }).await?;
            tx.commit().await?;
            Ok(Ok(restore))
        });
        let restore = made.await?.map_err(Trouble::last)?;
        Ok(Next::Go(Box::new(restore)))
    }
}

/// The data must fit, where it is known how much does.
pub(super) async fn check_room(cluster: &Cluster, server: &Server, needed: u64) -> Result<(), Trouble> {
    let Some(limit) = cluster.spec.restores.storage_bytes else { return Ok(()) };
    let used: u64 = databases_bytes(&mut server.maintenance().await?).await?.values().sum();
    if used.saturating_add(needed) <= limit {
        return Ok(());
    }
    let message = format!(
        "there is no room: the cluster's databases have {used} bytes, the copy takes about {needed}, and restores.storageBytes is \
         {limit}; drop what is not needed, or ask the platform team"
    );
    Err(Trouble { message, kind: Kind::NoRoom })
}

/// Why the claim that gets the data has no database yet.
fn not_made(claim: &Claim) -> Trouble {
    let key = &claim.key;
    let refused = |one: &&Condition| one.kind == "Ready" && one.status == ConditionStatus::False;
    match claim.conditions.iter().find(refused) {
        Some(why) if why.reason == "NotOurs" => {
            Trouble::last(format!("the database {key} can not be made: {}", why.message))
        }
        Some(why) if claim.state == DatabaseState::Failed => {
            Trouble::again(format!("the database {key} is not made: {}", why.message))
        }
        _ => Trouble::wait(format!("the database {key} is being made")),
    }
}
