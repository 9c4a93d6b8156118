//! What the door needs from the rest of the control plane.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use pgtenant_ledger::Ledger;
use pgtenant_model::{ClaimKey, InvalidField, PlanReport, PlanRequest, PreflightCheck, Snapshot};
use tokio_util::sync::CancellationToken;

use crate::events::EventHub;
use crate::limit::Limits;
use crate::slack::{Slack, SlackSettings};
use crate::token_cache::TokenCache;

/// Answers what a request would change, and tries clusters. The engine is one.
pub trait Planner: Send + Sync + 'static {
    /// The plan of `request`. Where `scope` is given, nothing outside of these namespaces is looked at or told;
    /// the claims of the request are within it.
    fn plan(
        &self,
        request: PlanRequest,
        scope: Option<Vec<String>>,
    ) -> BoxFuture<'static, Result<PlanReport, PlanError>>;

    /// What claims need of a cluster, tried now. It answers within `limit`.
    fn preflight(
        &self,
        cluster: String,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Vec<PreflightCheck>, TrialError>>;

    /// What a claim's database can be restored from, newest first.
    fn snapshots(&self, cluster: String, key: ClaimKey) -> BoxFuture<'static, Result<Vec<Snapshot>, SnapshotsError>>;

    /// What is kept of a whole cluster, newest first.
    fn cluster_snapshots(&self, cluster: String) -> BoxFuture<'static, Result<Vec<Snapshot>, SnapshotsError>>;
}

/// Why it is not known what a database can be restored from.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotsError {
    /// Nobody works on the cluster here, since its description can not be used.
    #[error("the cluster's description can not be used here")]
    Unknown,
    /// A place where snapshots are kept did not answer.
    #[error("{message}")]
    Unreachable {
        /// Which place, and what to do.
        message: String,
    },
}

/// Why a cluster was not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialError {
    /// Nobody works on it here, since its description can not be used.
    Unknown,
    /// It was described a moment ago, and nobody works on it yet.
    Late,
    /// Somebody else tries it.
    Busy,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The request can not be planned.
    #[error("the request can not be planned")]
    Invalid(Vec<InvalidField>),
    /// A cluster did not answer in time.
    #[error("cluster {cluster:?} can not be reached")]
    Unreachable {
        /// Its name.
        cluster: String,
        /// What it answered; for the log.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] pgtenant_ledger::LedgerError),
    /// Anything else; for the log.
    #[error("the plan could not be made")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A part of the control plane and whether it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// As `engine`.
    pub part: String,
    /// Why it does not work; none: it does.
    pub problem: Option<String>,
}

/// Renders the metrics in Prometheus' text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Asks parts beside the ledger whether they work. Must answer within a second or two.
pub type Readiness = Arc<dyn Fn() -> BoxFuture<'static, Vec<Check>> + Send + Sync>;

/// How the door is set. Each limit has a default that suits a control plane of some thousand claims.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// As `0.1.0`.
    pub version: String,
    /// Bytes that a request's body may have.
    pub body_limit: usize,
    /// Time in which a request's body must have arrived.
    pub body_timeout: Duration,
    /// Time in which a request is answered (streams: begins to be answered).
    pub request_timeout: Duration,
    /// Requests that are answered at the same time, of all tokens together.
    pub max_in_flight: usize,
    /// Requests a second that each token may make in the long run.
    pub rate_per_second: u32,
    /// Requests that a token may make at once.
    pub rate_burst: u32,
    /// Wrong tokens a second that an address may try in the long run.
    pub failures_per_second: u32,
    /// Wrong tokens that an address may try at once.
    pub failures_burst: u32,
    /// For how long a token is believed without asking the ledger: a revocation takes as long to be felt.
    pub token_ttl: Duration,
    /// Between two comments on a silent stream of events.
    pub sse_keep_alive: Duration,
    /// Streams that a token may have open at the same time.
    pub sse_per_token: usize,
    /// Requests of a token that are answered at the same time: no token takes all places of [`Self::max_in_flight`].
    pub max_in_flight_per_token: usize,
    /// Connections that are served at the same time.
    pub max_connections: usize,
    /// Time in which a connection must have sent the headers of a request.
    pub header_timeout: Duration,
    /// Time for which a client may take nothing of its answer before it is cut off.
    pub write_timeout: Duration,
    /// Time that open requests are given when the control plane stops.
    pub shutdown_grace: Duration,
    /// Slack; none: there is none. Spawn [`crate::run_slack`] beside the server.
    pub slack: Option<SlackSettings>,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            body_limit: 256 * 1024,
            body_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(30),
            max_in_flight: 512,
            max_in_flight_per_token: 64,
            rate_per_second: 100,
            rate_burst: 500,
            failures_per_second: 10,
            failures_burst: 100,
            token_ttl: Duration::from_secs(2),
            sse_keep_alive: Duration::from_secs(15),
            sse_per_token: 10,
            max_connections: 2048,
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(10),
            slack: None,
        }
    }
}

/// What [`ApiState`] is made from.
#[derive(Clone)]
pub struct ApiParts {
    /// The control plane's own database.
    pub ledger: Ledger,
    /// Answers `POST /v1/plan` and `adopt?dryRun=true`.
    pub planner: Arc<dyn Planner>,
    /// Answers `/metrics`.
    pub metrics: RenderMetrics,
    /// Parts beside the ledger that `/readyz` asks.
    pub readiness: Readiness,
    /// Limits, and Slack.
    pub settings: ApiSettings,
    /// Ends streams of events and [`crate::serve`].
    pub shutdown: CancellationToken,
}

/// What every request sees. A clone is the same state.
#[derive(Clone)]
pub struct ApiState {
    pub(crate) parts: Arc<ApiParts>,
    pub(crate) tokens: Arc<TokenCache>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) events: Arc<EventHub>,
    pub(crate) slack: Option<Arc<Slack>>,
}

impl ApiState {
    /// Does no I/O. Spawn [`crate::follow_events`] beside the server, or no stream of events begins.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        Self {
            tokens: Arc::new(TokenCache::new(parts.settings.token_ttl)),
            limits: Arc::new(Limits::new(&parts.settings)),
            events: Arc::new(EventHub::new()),
            slack: parts.settings.slack.clone().map(|settings| Arc::new(Slack::new(settings))),
            parts: Arc::new(parts),
        }
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.parts.ledger
    }

    pub(crate) fn settings(&self) -> &ApiSettings {
        &self.parts.settings
    }
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState").field("settings", self.settings()).finish_non_exhaustive()
    }
}
