//! Shared clusters.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use pgtenant_ledger::Cluster;
use pgtenant_model::{
    CheckResult, ClusterSpec, ClusterStatus, Drift, Endpoint, Environment, History, InvalidField, Limits, Maintenance,
    Member, PgBouncer, PreflightCheck, ProvisionerStatus,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::takeover::NoFields;
use crate::caller::Caller;
use crate::document::{Forbidden, NotFound};
use crate::extract::{NoQuery, Path, PostOptional, Query};
use crate::page::Page;
use crate::problem::{CLUSTER_UNREACHABLE, OVERLOADED, Problem, Result};
use crate::store;
use crate::{ApiState, TrialError};

/// Seconds after which another preflight may have ended.
const TRIAL_PAUSE: u64 = 10;

/// A cluster in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ClusterPath {
    /// The cluster's name.
    #[param(min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "default")]
    pub(crate) cluster: String,
}

/// A shared cluster.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Cluster)]
pub(crate) struct ClusterView {
    /// Its name.
    name: String,
    /// Who described it: `settings` or `kubernetes`.
    source: &'static str,
    /// What it is for.
    environment: Environment,
    /// What tenants are given to connect to, where that is set; otherwise it follows from the topology.
    endpoint: Option<Endpoint>,
    /// The pooler that credentials of the read and write tier name as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pgbouncer: Option<PgBouncer>,
    /// PostgreSQL's version, as `15.18`.
    version: Option<String>,
    /// Extensions that claims may ask for.
    allowed_extensions: Vec<String>,
    /// Upper bounds.
    limits: Limits,
    /// Why no claim can be served, if so.
    problem: Option<String>,
    /// Nothing is changed on it at the moment, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance: Option<Maintenance>,
    /// When it was last seen.
    observed_at: Option<DateTime<Utc>>,
    /// When its description last changed.
    updated_at: DateTime<Utc>,
    /// The writable host, `host:port`; for platform tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    primary: Option<String>,
    /// The control plane's own login, where pgtenant can replace its password; for platform tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    provisioner: Option<ProvisionerStatus>,
    /// The whole description; for platform tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<ClusterSpec>,
}

impl ClusterView {
    pub(crate) fn of(cluster: Cluster, caller: &Caller) -> Self {
        let Cluster { name, source, spec, status, updated_at, maintenance, .. } = cluster;
        let (spec, status) = (spec.0, status.0);
        let ClusterStatus { primary, version, problem, provisioner, observed_at, .. } = status;
        Self {
            name,
            source: source.as_str(),
            environment: spec.environment,
            endpoint: spec.endpoint.clone(),
            pgbouncer: spec.pgbouncer.clone(),
            version,
            allowed_extensions: spec.allowed_extensions.clone(),
            limits: spec.limits.clone(),
            problem,
            maintenance: maintenance.map(|it| it.0),
            observed_at,
            updated_at,
            primary: primary.filter(|_| caller.is_platform()),
            provisioner: provisioner.filter(|_| caller.is_platform()),
            spec: Some(spec).filter(|_| caller.is_platform()),
        }
    }
}

/// List clusters
#[utoipa::path(
    get, path = "/v1/clusters", operation_id = "listClusters", tag = "clusters",
    description = "Those on which the token may have databases.",
    responses((status = 200, description = "All of them on one page.", body = Page<ClusterView>)),
)]
pub(crate) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    _: Query<NoQuery>,
) -> Result<Json<Page<ClusterView>>> {
    let mut db = state.ledger().acquire().await?;
    let clusters = store::clusters(&mut db, &caller.scope()).await?;
    Ok(Json(Page::whole(clusters.into_iter().map(|cluster| ClusterView::of(cluster, &caller)).collect())))
}

/// Read a cluster
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}", operation_id = "getCluster", tag = "clusters",
    description = "How it is described and how it is.", params(ClusterPath),
    responses(
        (status = 200, description = "The cluster.", body = ClusterView), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn read(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
) -> Result<Json<ClusterView>> {
    let mut db = state.ledger().acquire().await?;
    let cluster = store::cluster(&mut db, &caller.scope(), &path.cluster).await?;
    Ok(Json(ClusterView::of(cluster, &caller)))
}

/// The servers of a cluster, as they were last seen.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClusterTopology)]
pub(crate) struct TopologyView {
    /// The cluster.
    cluster: String,
    /// The writable host, `host:port`.
    primary: Option<String>,
    /// PostgreSQL's version, as `15.18`.
    version: Option<String>,
    /// Every server.
    members: Vec<Member>,
    /// Why no claim can be served, if so.
    problem: Option<String>,
    /// More than one server takes writes, or the one that does has not the data that was there: nothing is written.
    split_brain: bool,
    /// Where its data comes from, as it was last seen to be right.
    history: Option<History>,
    /// Where the data of the server comes from that takes writes and is not written to for that: `POST …/accept` says that it is right.
    refused: Option<History>,
    /// Where a cluster that is described with `create` is not as described: what a person may do, and pgtenant does not.
    drift: Vec<Drift>,
    /// When it was seen; none: not yet.
    observed_at: Option<DateTime<Utc>>,
}

/// See the servers of a cluster
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/topology", operation_id = "getClusterTopology", tag = "clusters",
    description = "Which server is the primary, and how the others follow. For platform tokens.", params(ClusterPath),
    responses(
        (status = 200, description = "The servers.", body = TopologyView),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn topology(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
) -> Result<Json<TopologyView>> {
    caller.platform()?;
    let mut db = state.ledger().acquire().await?;
    let Cluster { name, status, .. } = store::cluster(&mut db, &caller.scope(), &path.cluster).await?;
    let ClusterStatus { primary, version, members, problem, split_brain, history, refused, drift, observed_at, .. } =
        status.0;
    let cluster = name;
    Ok(Json(TopologyView {
        cluster,
        primary,
        version,
        members,
        problem,
        split_brain,
        history,
        refused,
        drift,
        observed_at,
    }))
}

/// What would bite later.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClusterPreflight)]
pub(crate) struct PreflightView {
    /// The cluster.
    cluster: String,
    /// It was seen, can serve claims, and nothing was found.
    ok: bool,
    /// Each with how to mend it.
    problems: Vec<InvalidField>,
    /// When it was seen; none: not yet.
    observed_at: Option<DateTime<Utc>>,
}

/// Check a cluster
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/preflight", operation_id = "getClusterPreflight", tag = "clusters",
    description = "What of the server would bite later, and how to mend it. For platform tokens.", params(ClusterPath),
    responses(
        (status = 200, description = "What was found.", body = PreflightView),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn preflight(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
) -> Result<Json<PreflightView>> {
    caller.platform()?;
    let mut db = state.ledger().acquire().await?;
    let Cluster { name, status, .. } = store::cluster(&mut db, &caller.scope(), &path.cluster).await?;
    let ClusterStatus { problem, preflight, observed_at, .. } = status.0;
    let problems: Vec<_> =
        problem.map(|problem| InvalidField::new("cluster", problem)).into_iter().chain(preflight).collect();
    let ok = problems.is_empty() && observed_at.is_some();
    Ok(Json(PreflightView { cluster: name, ok, problems, observed_at }))
}

/// What claims need of a cluster, as it was tried just now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClusterTrial)]
pub(crate) struct TrialView {
    /// The cluster.
    cluster: String,
    /// Every check has passed, without a warning.
    ok: bool,
    /// In the order in which they were begun. What needs something that has failed is not among them.
    checks: Vec<PreflightCheck>,
}

/// Try a cluster
///
/// Every capability that claims will need is tried now, and leaves no trace: the login, TLS, the clock, roles, SET ROLE, a database,
/// extensions, the standbys, and a credential in each store. It answers before the request's time is over; what has not ended by then
/// has failed. One at a time: another one waits, and is answered 503 when that takes too long. For platform tokens.
#[utoipa::path(
    post, path = "/v1/clusters/{cluster}/preflight", operation_id = "tryCluster", tag = "clusters", params(ClusterPath),
    responses(
        (status = 200, description = "What works and what does not.", body = TrialView),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn try_out(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
    _: PostOptional<NoFields>,
) -> Result<Json<TrialView>> {
    // Before the request's own time is over.
    let end = Instant::now() + state.settings().request_timeout.mul_f64(0.9);
    caller.platform()?;
    let mut db = state.ledger().acquire().await?;
    let Cluster { name, .. } = store::cluster(&mut db, &caller.scope(), &path.cluster).await?;
    drop(db);
    let limit = end.saturating_duration_since(Instant::now());
    let tried = state.parts.planner.preflight(name.clone(), limit).await;
    let checks = tried.map_err(|error| match error {
        TrialError::Unknown => Problem::new(
            &CLUSTER_UNREACHABLE,
            "its description can not be used here: `GET /v1/clusters/{cluster}` has the problem",
        ),
        TrialError::Late => {
            Problem::new(&CLUSTER_UNREACHABLE, "the control plane is still taking it up").retry_after(TRIAL_PAUSE)
        }
        TrialError::Busy => Problem::new(&OVERLOADED, format!("another preflight of cluster {name:?} is under way"))
            .retry_after(TRIAL_PAUSE),
    })?;
    let ok = checks.iter().all(|check| check.result == CheckResult::Passed);
    Ok(Json(TrialView { cluster: name, ok, checks }))
}
