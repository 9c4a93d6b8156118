//! The life of a claim: the only place that joins hands.
//!
//! The engine is level-triggered. It reads what is wished, looks at what is there and does the difference; killing it at
//! any instant loses nothing, since the next look finds what is left to do. Any number of replicas share one ledger.

mod attend;
mod cluster;
mod credentials;
mod failure;
mod fault;
mod housekeeping;
mod lease;
mod outcome;
mod planner;
mod reconcile;
mod schedule;
mod settings;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use pgtenant_ledger::Ledger;
use pgtenant_model::{ClusterSpec, InvalidField, PlanReport, PlanRequest};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attend::Attendant;
use crate::cluster::Cluster;
use crate::schedule::Schedule;
use crate::watch::Watch;

pub use fault::Faults;
pub use planner::PlanError;
pub use settings::EngineSettings;

/// One replica's engine.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    settings: EngineSettings,
    clusters: BTreeMap<String, Arc<Cluster>>,
    holder: Uuid,
    planning: Semaphore,
}

impl Engine {
    /// An engine for `clusters`. Nothing is connected.
    ///
    /// # Errors
    /// A store of a cluster that can not be used.
    pub fn new(
        ledger: Ledger,
        clusters: Vec<(String, ClusterSpec)>,
        settings: EngineSettings,
    ) -> Result<Self, InvalidField> {
        let clusters = clusters
            .into_iter()
            .map(|(name, spec)| Ok((name.clone(), Arc::new(Cluster::new(name, spec)?))))
            .collect::<Result<_, InvalidField>>()?;
        let planning = Semaphore::new(planner::AT_ONCE);
        Ok(Self { inner: Arc::new(Inner { ledger, settings, clusters, holder: Uuid::new_v4(), planning }) })
    }

    /// Works until `stop`; then the claims under work are finished, for as long as the settings' grace allows.
    pub async fn run(&self, stop: CancellationToken) {
        let inner = &self.inner;
        let mut tasks = JoinSet::new();
        let wakes = inner.clusters.values().map(|cluster| Arc::clone(&cluster.wake)).collect::<Vec<_>>();
        for cluster in inner.clusters.values() {
            let (engine, one, cluster) = (Arc::clone(inner), stop.clone(), Arc::clone(cluster));
            tasks.spawn(async move { engine.schedule(cluster, &one).await });
        }
        for cluster in inner.clusters.values() {
            let (engine, one, cluster) = (Arc::clone(inner), stop.clone(), Arc::clone(cluster));
            tasks.spawn(async move {
                Watch { ledger: &engine.ledger, cluster: &cluster, settings: &engine.settings }.run(&one).await;
            });
        }
        let (engine, one) = (Arc::clone(inner), stop.clone());
        tasks.spawn(async move { schedule::listen(&engine.ledger, &wakes, &one).await });
        let (engine, one) = (Arc::clone(inner), stop);
        tasks.spawn(async move { housekeeping::run(&engine.ledger, &engine.clusters, &one).await });
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(error = ?error, "a part of the engine panicked");
            }
        }
    }

    /// What would change, as the engine would do it now. Nothing is written.
    ///
    /// # Errors
    /// A cluster that can not be looked at.
    pub async fn plan(&self, request: PlanRequest, scope: Option<Vec<String>>) -> Result<PlanReport, PlanError> {
        planner::plan(&self.inner, request, scope).await
    }
}

impl Inner {
    async fn schedule(self: Arc<Self>, cluster: Arc<Cluster>, stop: &CancellationToken) {
        let schedule = Schedule {
            ledger: &self.ledger,
            cluster: &cluster.name,
            settings: &self.settings,
            holder: self.holder,
            wake: &cluster.wake,
        };
        schedule
            .run(stop, |taken| {
                let attendant = Attendant { engine: Arc::clone(&self), cluster: Arc::clone(&cluster) };
                async move { attendant.attend(taken).await }
            })
            .await;
    }
}
