//! The control plane put together: doors, engine and ledger in one process.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use pgtenant_api::{ApiParts, ApiSettings, ApiState, Check, Planner};
use pgtenant_aws::Aws;
use pgtenant_engine::{Engine, EngineSettings, check_cluster};
use pgtenant_ledger::{Ledger, put_clusters};
use pgtenant_model::{ClaimKey, ClusterSpec, InvalidField, PlanReport, PlanRequest, PreflightCheck, Snapshot};
use pgtenant_secrets::Access;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::Kubernetes;
use crate::telemetry;

/// How long REST waits for the ledger at the start; after that it answers, and `/readyz` says what is not there.
const PREPARATION: Duration = Duration::from_secs(2);

/// What a control plane is made of.
pub(crate) struct ControlPlane {
    pub(crate) ledger: Ledger,
    pub(crate) clusters: Vec<(String, ClusterSpec)>,
    pub(crate) engine: EngineSettings,
    pub(crate) api: ApiSettings,
    pub(crate) apps: Option<(PathBuf, pgtenant_apps_repo::Settings)>,
    pub(crate) kubernetes: Option<Kubernetes>,
    pub(crate) aws: Aws,
    pub(crate) listener: TcpListener,
}

impl ControlPlane {
    /// Serves until `stop`. REST answers within two seconds, whether the ledger does or not.
    ///
    /// # Errors
    /// A cluster's settings that can not be used.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), InvalidField> {
        let Self { ledger, clusters, engine, api, apps, kubernetes, aws, listener } = self;
        let access =
            kubernetes.as_ref().map_or_else(Access::default, |one| Access::with_kubernetes(one.client.clone()));
        let access = access.with_aws(aws);
        clusters.iter().try_for_each(|(_, spec)| check_cluster(spec, &access))?;
        let engine = Engine::new(ledger.clone(), access, engine);
        let prepared = Arc::new(AtomicBool::new(false));
        let state = ApiState::new(ApiParts {
            ledger: ledger.clone(),
            planner: Arc::new(EnginePlanner(engine.clone())),
            metrics: Arc::new(telemetry::render),
            readiness: readiness(Arc::clone(&prepared)),
            settings: api,
            shutdown: stop.clone(),
        });
        let ready = CancellationToken::new();
        let background = async {
            tokio::select! {
                () = prepare(&ledger, &clusters) => prepared.store(true, Ordering::Relaxed),
                () = stop.cancelled() => return,
            }
            ready.cancel();
            let follow = async {
                if let Some((root, settings)) = apps {
                    pgtenant_apps_repo::follow(root, ledger.clone(), settings, stop.clone()).await;
                }
            };
            let operate = async {
                if let Some(kubernetes) = kubernetes {
                    operate(kubernetes, &ledger, &stop).await;
                }
            };
            tokio::join!(engine.run(stop.clone()), follow, operate);
        };
        let serve = async {
            // Early requests wait in the socket's queue, so that the first start of all refuses none for want of a cluster.
            tokio::time::timeout(PREPARATION, ready.cancelled()).await.ok();
            pgtenant_api::serve(listener, state.clone()).await;
        };
        let events = pgtenant_api::follow_events(state.clone());
        let slack = pgtenant_api::run_slack(state.clone());
        tokio::join!(serve, background, events, slack);
        // A connection that somebody still holds is not waited for long.
        tokio::time::timeout(Duration::from_secs(5), ledger.close()).await.ok();
        Ok(())
    }
}

/// A fault at one object must not take the other doors and the engine with it.
async fn operate(Kubernetes { client, settings }: Kubernetes, ledger: &Ledger, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let run = pgtenant_operator::run(client.clone(), ledger.clone(), settings.clone(), stop.clone());
        if let Err(error) = tokio::spawn(run).await {
            tracing::error!(error = ?error, "the Kubernetes door panicked; it begins anew");
            tokio::time::timeout(Duration::from_secs(5), stop.cancelled()).await.ok();
        }
    }
}

/// Brings the ledger up to date, for as long as that takes.
async fn prepare(ledger: &Ledger, clusters: &[(String, ClusterSpec)]) {
    loop {
        let prepared = async {
            ledger.migrate().await?;
            let mut tx = ledger.begin().await?;
            for left in put_clusters(&mut tx, clusters).await? {
                tracing::warn!(cluster = left, "is not in the settings any more, and has claims: they are left alone");
            }
            Ok::<_, pgtenant_ledger::LedgerError>(tx.commit().await?)
        };
        match prepared.await {
            Ok(()) => return,
            Err(error) => tracing::warn!(error = ?error, "the ledger can not be used yet"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn readiness(prepared: Arc<AtomicBool>) -> pgtenant_api::Readiness {
    Arc::new(move || {
        let problem = (!prepared.load(Ordering::Relaxed)).then(|| "the ledger was not reached yet".to_owned());
        Box::pin(async move { vec![Check { part: "engine".to_owned(), problem }] })
    })
}

struct EnginePlanner(Engine);

impl Planner for EnginePlanner {
    fn plan(
        &self,
        request: PlanRequest,
        scope: Option<Vec<String>>,
    ) -> BoxFuture<'static, Result<PlanReport, pgtenant_api::PlanError>> {
        let engine = self.0.clone();
        Box::pin(async move {
            engine.plan(request, scope).await.map_err(|error| match error {
                pgtenant_engine::PlanError::Cluster { cluster, message } => {
                    pgtenant_api::PlanError::Unreachable { cluster, source: message.into() }
                }
                pgtenant_engine::PlanError::Ledger(error) => pgtenant_api::PlanError::Ledger(error),
            })
        })
    }

    fn preflight(
        &self,
        cluster: String,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Vec<PreflightCheck>, pgtenant_api::TrialError>> {
        let engine = self.0.clone();
        Box::pin(async move {
            engine.preflight(&cluster, limit).await.map_err(|error| match error {
                pgtenant_engine::TrialError::Unknown => pgtenant_api::TrialError::Unknown,
                pgtenant_engine::TrialError::Late => pgtenant_api::TrialError::Late,
                pgtenant_engine::TrialError::Busy => pgtenant_api::TrialError::Busy,
            })
        })
    }

    fn snapshots(
        &self,
        cluster: String,
        key: ClaimKey,
    ) -> BoxFuture<'static, Result<Vec<Snapshot>, pgtenant_api::SnapshotsError>> {
        let engine = self.0.clone();
        Box::pin(async move { engine.snapshots(&cluster, &key).await.map_err(unknown) })
    }

    fn cluster_snapshots(
        &self,
        cluster: String,
    ) -> BoxFuture<'static, Result<Vec<Snapshot>, pgtenant_api::SnapshotsError>> {
        let engine = self.0.clone();
        Box::pin(async move { engine.cluster_snapshots(&cluster).await.map_err(unknown) })
    }
}

fn unknown(error: pgtenant_engine::SnapshotsError) -> pgtenant_api::SnapshotsError {
    match error {
        pgtenant_engine::SnapshotsError::Unknown => pgtenant_api::SnapshotsError::Unknown,
        pgtenant_engine::SnapshotsError::Unreachable(message) => pgtenant_api::SnapshotsError::Unreachable { message },
    }
}
