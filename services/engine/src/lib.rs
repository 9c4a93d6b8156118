//! The life of a claim: the only place that joins hands.
//!
//! The engine is level-triggered. It reads what is wished, looks at what is there and does the difference; killing it at
//! any instant loses nothing, since the next look finds what is left to do. Any number of replicas share one ledger.

mod attend;
mod aurora;
mod cluster;
mod credentials;
mod failure;
mod fault;
mod housekeeping;
mod keep;
mod lease;
mod login;
mod outcome;
mod planner;
mod preflight;
mod progress;
mod provisioner;
mod proxy;
mod reconcile;
mod restore;
mod roles;
mod roster;
mod schedule;
mod settings;
mod switchover;
mod watch;

use std::sync::Arc;

use pgtenant_ledger::Ledger;
use pgtenant_model::{ClaimKey, ClusterSpec, InvalidField, PlanReport, PlanRequest, Snapshot};
use pgtenant_postgres::transfer::Tools;
use pgtenant_secrets::{Access, Stores};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attend::Attendant;
use crate::cluster::Cluster;
use crate::roster::Roster;
use crate::schedule::Schedule;
use crate::watch::Watch;

pub use fault::Faults;
pub use planner::PlanError;
pub use preflight::TrialError;
pub use restore::SnapshotsError;
pub use settings::EngineSettings;

/// One replica's engine.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    access: Access,
    settings: EngineSettings,
    roster: Roster,
    holder: Uuid,
    planning: Semaphore,
    /// The programs of PostgreSQL on this machine.
    tools: Tools,
}

impl Engine {
    /// An engine for the clusters that the ledger describes. Nothing is connected.
    #[must_use]
    pub fn new(ledger: Ledger, access: Access, settings: EngineSettings) -> Self {
        let (roster, planning) = (Roster::default(), Semaphore::new(planner::AT_ONCE));
        let (holder, tools) = (Uuid::new_v4(), Tools::find(&settings.tools));
        Self { inner: Arc::new(Inner { ledger, access, settings, roster, holder, planning, tools }) }
    }

    /// Works until `stop`; then the claims under work are finished, for as long as the settings' grace allows.
    pub async fn run(&self, stop: CancellationToken) {
        let inner = &self.inner;
        let mut tasks = JoinSet::new();
        let (engine, one) = (Arc::clone(inner), stop.clone());
        tasks.spawn(async move {
            let work = |cluster, stop| Arc::clone(&engine).work(cluster, stop);
            engine.roster.run(&engine.ledger, &engine.access, &one, work).await;
        });
        let (engine, one) = (Arc::clone(inner), stop.clone());
        tasks.spawn(async move { schedule::listen(&engine.ledger, &engine.roster, &one).await });
        let (engine, one) = (Arc::clone(inner), stop);
        tasks.spawn(async move { housekeeping::run(&engine.ledger, &engine.roster, &one).await });
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

    /// What a claim's database can be restored from, newest first.
    ///
    /// # Errors
    /// Nobody works on the cluster here, or a place where snapshots are kept does not answer.
    pub async fn snapshots(&self, cluster: &str, key: &ClaimKey) -> Result<Vec<Snapshot>, SnapshotsError> {
        self.inner.snapshots(cluster, key).await
    }
}

impl Engine {
    /// What is kept of a whole cluster, newest first.
    ///
    /// # Errors
    /// Nobody works on the cluster here, or a place where snapshots are kept does not answer.
    pub async fn cluster_snapshots(&self, cluster: &str) -> Result<Vec<Snapshot>, SnapshotsError> {
        self.inner.cluster_snapshots(cluster).await
    }
}

/// What makes a cluster's description unusable, apart from what its spec says of itself. Nothing is connected.
///
/// # Errors
/// Names the field.
pub fn check_cluster(spec: &ClusterSpec, access: &Access) -> Result<(), InvalidField> {
    Stores::from_specs("stores", &spec.stores, access)?;
    Stores::from_specs("formerStores", &spec.former_stores, access)?;
    cluster::dumps(spec, access).map(drop)
}

impl Inner {
    /// All that is done with one cluster.
    async fn work(self: Arc<Self>, cluster: Arc<Cluster>, stop: CancellationToken) {
        let watch = Watch { ledger: &self.ledger, cluster: &cluster, settings: &self.settings };
        let schedule =
            Schedule { ledger: &self.ledger, cluster: &cluster, settings: &self.settings, holder: self.holder };
        let attend = |taken| {
            let attendant = Attendant { engine: Arc::clone(&self), cluster: Arc::clone(&cluster) };
            async move { attendant.attend(taken).await }
        };
        tokio::join!(watch.run(&stop), schedule.run(&stop, attend), self.restores(&cluster, &stop));
    }
}
