//! The clusters that this replica works on: those of the ledger, as they are described there now.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgtenant_ledger::{Ledger, LedgerError, clusters, within_deadline};
use pgtenant_model::{ClusterSpec, ClusterStatus, InvalidField};
use pgtenant_secrets::Access;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// A description that was announced while nobody listened is read after this time.
const LOOK: Duration = Duration::from_secs(30);
const LEDGER_RETRY: Duration = Duration::from_millis(500);

/// Clusters by name.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    clusters: RwLock<BTreeMap<String, Arc<Cluster>>>,
    /// Another description was announced.
    changed: Notify,
}

/// A cluster under work.
struct Worked {
    spec: ClusterSpec,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Roster {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Cluster>> {
        self.clusters.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Cluster>> {
        self.clusters.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Work was announced.
    pub(crate) fn wake(&self) {
        self.all().iter().for_each(|cluster| cluster.wake.notify_one());
    }

    /// Restores or dumps were announced.
    pub(crate) fn wake_restores(&self) {
        self.all().iter().for_each(|cluster| cluster.restores.notify_one());
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
            let read = async { clusters(&mut *ledger.acquire().await?).await };
            let wait = match within_deadline(read).await {
                Ok(found) => {
                    let described = found.into_iter().map(|cluster| (cluster.name, cluster.spec.0)).collect();
                    self.end_others(&mut worked, &described).await;
                    for (name, spec) in
                        described.into_iter().filter(|(name, _)| !worked.contains_key(name)).collect::<Vec<_>>()
                    {
                        match Cluster::new(name.clone(), spec.clone(), access.clone()) {
                            Ok(cluster) => {
                                let cluster = Arc::new(cluster);
                                self.write().insert(name.clone(), Arc::clone(&cluster));
                                let stop = stop.child_token();
                                let task = tokio::spawn(work(cluster, stop.clone()));
                                worked.insert(name, Worked { spec, stop, task });
                            }
                            Err(fault) => report(ledger, &name, &fault).await,
                        }
                    }
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
        gone.iter().for_each(|name| _ = self.write().remove(name));
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Arc<Cluster>>> {
        self.clusters.write().unwrap_or_else(PoisonError::into_inner)
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
