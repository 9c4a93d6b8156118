//! Copies of a cluster, and servers on this machine, whose restore is over: a replica may have been killed before it removed one, or
//! RDS has refused.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::gauge;
use pgtenant_ledger::{NewEvent, append_event, restores_over, within_deadline};
use pgtenant_model::{EventKind, InvalidField};
use pgtenant_rds::{CopyName, Rds, Removal};
use pgtenant_snapshots::pgbackrest::{Repository, Scratch};
use serde_json::json;
use uuid::Uuid;

use super::trouble::Trouble;
use crate::Inner;
use crate::cluster::Cluster;

/// Between two looks while nothing is left, and while something is.
const LOOK: (Duration, Duration) = (Duration::from_secs(900), Duration::from_secs(30));

/// Copies that are left of restores that are over.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// Why each is still there, by its name.
    left: BTreeMap<String, String>,
    /// A restore has just left one.
    due: bool,
}

impl Cluster {
    /// A restore has left its copy to the sweep, which looks at once.
    pub(super) fn leave_copy(&self) {
        self.leftovers().due = true;
    }

    /// After how long it is looked again.
    pub(super) fn leftovers_due(&self) -> Duration {
        let leftovers = self.leftovers();
        match (leftovers.due, leftovers.left.is_empty()) {
            (true, _) => Duration::ZERO,
            (false, true) => LOOK.0,
            (false, false) => LOOK.1,
        }
    }

    /// What is left, and what is wrong with what RDS keeps, for the status.
    pub(crate) fn findings_of_restores(&self) -> Vec<InvalidField> {
        let told = |(name, why): (&String, &String)| {
            InvalidField::new(
                "restores",
                format!("{name}, made for a restore that is over, is there and costs money: {why}"),
            )
        };
        self.leftovers().left.iter().map(told).chain(self.kept().iter().cloned()).collect()
    }
}

/// Deletes copies whose restores are over, counts those that stay, and tells of them.
pub(super) async fn sweep(engine: &Inner, cluster: &Cluster) -> Result<(), Trouble> {
    if let Some(repository) = &cluster.backrest {
        let left = sweep_servers(engine, repository).await?;
        tell(engine, cluster, left).await;
        return Ok(());
    }
    let Some(work) = cluster.aurora() else { return Ok(()) };
    let rds = work.aurora.rds();
    let mut copies = rds.copies(&work.aurora.spec().cluster_identifier.to_ascii_lowercase()).await?;
    copies.retain(|copy| copy.status != "deleting");
    let ids: Vec<Uuid> = copies.iter().filter_map(pgtenant_rds::Cluster::restore).collect();
    let mut left = BTreeMap::new();
    if !ids.is_empty() {
        // After the look: what is made from here on is none of what was seen.
        let known = within_deadline(async { restores_over(&mut *engine.ledger.acquire().await?, &ids).await }).await?;
        for id in ids {
            let over = known.iter().find(|(known, _)| *known == id).map(|(_, over)| *over);
            left.extend(remove(rds, id, over).await);
        }
    }
    tell(engine, cluster, left).await;
    Ok(())
}

/// Removes servers of restores that are over from this machine, and says which stay.
async fn sweep_servers(engine: &Inner, repository: &Repository) -> Result<BTreeMap<String, String>, Trouble> {
    let (ids, mut left) = (Scratch::all(repository)?, BTreeMap::new());
    if ids.is_empty() {
        return Ok(left);
    }
    let known = within_deadline(async { restores_over(&mut *engine.ledger.acquire().await?, &ids).await }).await?;
    for id in ids {
        let why = match known.iter().find(|(known, _)| *known == id) {
            Some((_, false)) => continue,
            // It may be another control plane's.
            None => format!("restore {id} is not in this ledger; remove it, if no other pgtenant uses the folder"),
            Some((_, true)) => match Scratch::new(repository, id)?.remove().await {
                Ok(()) => continue,
                Err(error) => error.to_string(),
            },
        };
        left.insert(repository.spec().scratch.join(id.simple().to_string()).display().to_string(), why);
    }
    Ok(left)
}

/// The copy and why it stays; none: it is needed, or deleted now.
async fn remove(rds: &Rds, id: Uuid, over: Option<bool>) -> Option<(String, String)> {
    let name = CopyName::of(id);
    let why = match over {
        Some(false) => return None,
        // It may be another control plane's.
        None => format!("restore {id} is not in this ledger; delete it, if no other pgtenant works on the cluster"),
        Some(true) => match rds.remove_copy(&name, id).await {
            Ok(Removal::Done) => {
                tracing::info!(%name, "the copy of a restore that is over is deleted");
                return None;
            }
            Ok(Removal::Busy(status)) => format!("RDS calls it {status:?}"),
            Err(fault) => format!("{fault}. What to do: {}", fault.advice()),
        },
    };
    Some((name.to_string(), why))
}

/// Counts what is left; what was not known before is an event.
async fn tell(engine: &Inner, cluster: &Cluster, left: BTreeMap<String, String>) {
    let name = cluster.name.as_str();
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    gauge!("pgtenant_restore_leftovers", "cluster" => name.to_owned()).set(left.len() as f64);
    let now = Leftovers { left: left.clone(), due: false };
    let before = std::mem::replace(&mut *cluster.leftovers(), now).left;
    for (copy, why) in left.iter().filter(|(copy, _)| !before.contains_key(*copy)) {
        let message = format!("cluster {name}: {copy}, made for a restore that is over, could not be deleted: {why}");
        tracing::warn!(cluster = name, "{message}");
        let detail = json!({"copy": copy});
        let event = NewEvent { kind: EventKind::ClusterChanged, namespace: None, name, message, detail };
        let written = async { append_event(&mut *engine.ledger.acquire().await?, event).await };
        if let Err(error) = within_deadline(written).await {
            tracing::warn!(cluster = name, error = ?error, "event not written");
        }
    }
    for copy in before.keys().filter(|copy| !left.contains_key(*copy)) {
        tracing::info!(cluster = name, copy, "a copy that was left is gone");
    }
}
