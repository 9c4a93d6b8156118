//! The clusters that this replica works on: those of the ledger, as they are described there now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgtenant_ledger::{Ledger, LedgerError, clusters, within_deadline};
use pgtenant_model::{ClusterSpec, ClusterStatus, History, HostPort, InvalidField};
use pgtenant_secrets::Access;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// A description that was announced while nobody listened is read after this time.
const LOOK: Duration = Duration::from_secs(30);
const LEDGER_RETRY: Duration = Duration::from_millis(500);
/// A request waits so long for a cluster that was described a moment ago: a laden machine takes a second to read the ledger.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(crate) struct Roster {
    known: watch::Sender<Known>,
    /// Another description was announced, or is asked for.
    changed: Notify,
}

/// What the looks at the ledger have found.
#[derive(Debug, Default)]
struct Known {
    /// Those whose description can be used here, by name.
    clusters: BTreeMap<String, Arc<Cluster>>,
    /// The last look that was begun, and the last that came to its end: they are numbered from 1.
    begun: u64,
    ended: u64,
}

/// A cluster was not taken up in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica is still taking it up; try again in a few seconds")]
pub(crate) struct Late;

/// What the ledger knows of a cluster's data, and of its members, unless it is described in another way since.
fn last_seen(one: &pgtenant_ledger::Cluster) -> (Option<History>, Vec<HostPort>) {
    let status = &one.status.0;
    let members = status.members.iter().filter(|_| status.observed_at >= Some(one.updated_at));
    (status.history.clone(), members.filter_map(|member| member.host.parse().ok()).collect())
}

/// A cluster under work.
struct Worked {
    spec: ClusterSpec,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Roster {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Cluster>> {
        self.known.borrow().clusters.get(name).cloned()
    }

    /// The cluster, also where it was described a moment ago. None: there is none that can be used here.
    pub(crate) async fn find(&self, name: &str, limit: Duration) -> Result<Option<Arc<Cluster>>, Late> {
        let mut known = self.known.subscribe();
        // The look that is under way may have read the ledger before the description was there.
        let asked = known.borrow().begun;
        let settled = |known: &Known| known.clusters.contains_key(name) || known.ended > asked;
        if !settled(&known.borrow()) {
            self.look();
        }
        let known = timeout(limit, known.wait_for(settled)).await.map_err(|_| Late)?.map_err(|_| Late)?;
        Ok(known.clusters.get(name).cloned())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Cluster>> {
        self.known.borrow().clusters.values().cloned().collect()
    }

    /// Work was announced.
    pub(crate) fn wake(&self) {
        self.all().iter().for_each(|cluster| cluster.wake.notify_one());
    }

    /// Restores or dumps were announced.
    pub(crate) fn wake_restores(&self) {
        self.all().iter().for_each(|cluster| cluster.restores.notify_one());
    }

    /// Another primary of a cluster is wished for, or a person has said that the one that is there is right.
    pub(crate) fn wake_switchovers(&self) {
        for cluster in self.all() {
            cluster.switchovers.notify_one();
            cluster.look.notify_one();
        }
    }

    /// Descriptions were announced.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// Keeps one `work` running for each cluster, until `stop`; one whose description has changed is ended, which finishes
    /// its claims under work, and begun anew.
    pub(crate) async fn run<F>(
        &self,
        ledger: &Ledger,
        access: &Access,
        stop: &CancellationToken,
        work: impl Fn(Arc<Cluster>, CancellationToken) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut worked = BTreeMap::<String, Worked>::new();
        while !stop.is_cancelled() {
            self.known.send_modify(|known| known.begun += 1);
            let read = async { clusters(&mut *ledger.acquire().await?).await };
            let wait = match within_deadline(read).await {
                Ok(found) => {
                    let seen: BTreeMap<_, _> = found.iter().map(|one| (one.name.clone(), last_seen(one))).collect();
                    let paused: BTreeMap<_, _> =
                        found.iter().map(|one| (one.name.clone(), one.maintenance.clone().map(|it| it.0))).collect();
                    let described = found.into_iter().map(|cluster| (cluster.name, cluster.spec.0)).collect();
                    for cluster in self.all() {
                        cluster.set_maintenance(paused.get(&cluster.name).cloned().flatten());
                    }
                    self.end_others(&mut worked, &described).await;
                    for (name, spec) in
                        described.into_iter().filter(|(name, _)| !worked.contains_key(name)).collect::<Vec<_>>()
                    {
                        match Cluster::new(name.clone(), spec.clone(), access.clone()) {
                            Ok(cluster) => {
                                if let Some((history, members)) = seen.get(&name) {
                                    cluster.remember(history.as_ref());
                                    cluster.remember_members(members);
                                }
                                cluster.set_maintenance(paused.get(&name).cloned().flatten());
                                let cluster = Arc::new(cluster);
                                self.known
                                    .send_modify(|known| _ = known.clusters.insert(name.clone(), Arc::clone(&cluster)));
                                let stop = stop.child_token();
                                let task = tokio::spawn(work(cluster, stop.clone()));
                                worked.insert(name, Worked { spec, stop, task });
                            }
                            Err(fault) => report(ledger, &name, &fault).await,
                        }
                    }
                    self.known.send_modify(|known| known.ended = known.begun);
                    LOOK
                }
                Err(error) => {
                    tracing::warn!(error = ?error, "the clusters can not be read from the ledger");
                    LEDGER_RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.end_others(&mut worked, &BTreeMap::new()).await;
    }

    /// Ends the work on clusters that are not described like that any more.
    async fn end_others(&self, worked: &mut BTreeMap<String, Worked>, described: &BTreeMap<String, ClusterSpec>) {
        let same = |name: &String, one: &Worked| described.get(name) == Some(&one.spec) && !one.task.is_finished();
        let gone: Vec<String> =
            worked.iter().filter(|(name, one)| !same(name, one)).map(|(name, _)| name.clone()).collect();
        let ended: Vec<_> = gone.iter().filter_map(|name| worked.remove(name)).collect();
        ended.iter().for_each(|one| one.stop.cancel());
        for one in ended {
            if let Err(error) = one.task.await {
                tracing::error!(error = ?error, "the work on a cluster panicked");
            }
        }
        self.known.send_modify(|known| known.clusters.retain(|name, _| !gone.contains(name)));
    }
}

/// Says in the cluster's status why this replica does not work on it.
async fn report(ledger: &Ledger, name: &str, fault: &InvalidField) {
    tracing::error!(cluster = name, "can not be used: {fault}");
    let status = ClusterStatus { problem: Some(fault.to_string()), ..ClusterStatus::default() };
    let written: Result<(), LedgerError> = within_deadline(async {
        pgtenant_ledger::set_cluster_status(&mut *ledger.acquire().await?, name, &status).await.map(drop)
    })
    .await;
    if let Err(error) = written {
        tracing::warn!(cluster = name, error = ?error, "status not written");
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn a_name_is_settled_by_a_look_that_began_after_it_was_asked_for() {
        let roster = Roster::default();
        let begin = || roster.known.send_modify(|known| known.begun += 1);
        let end = || roster.known.send_modify(|known| known.ended = known.begun);
        begin();
        let mut found = pin!(roster.find("new", Duration::MAX));
        assert!(poll!(&mut found).is_pending(), "nobody has read the ledger yet");
        end();
        assert!(poll!(&mut found).is_pending(), "it may have been described since the ledger was read");
        let mut looked = pin!(roster.changed.notified());
        assert!(poll!(&mut looked).is_ready(), "a look is asked for");
        begin();
        end();
        assert!(matches!(found.await, Ok(None)));
        assert!(matches!(roster.find("new", Duration::ZERO).await, Err(Late)));
    }
}
