//! What a database can be restored from.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use pgtenant_model::{InvalidField, Operation, Snapshot, SnapshotId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::DatabasePath;
use super::clusters::ClusterPath;
use super::takeover::NoFields;
use crate::answer::{Answer, Begun, begin};
use crate::caller::Caller;
use crate::document::{Conflict, Forbidden, NotFound};
use crate::extract::{NoQuery, Path, PostOptional, Query};
use crate::page::Page;
use crate::problem::{CLUSTER_UNREACHABLE, Problem, Result};
use crate::store;
use crate::{ApiState, SnapshotsError};

/// List the snapshots of a database
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}/databases/{name}/snapshots", operation_id = "listSnapshots",
    tag = "restores", description = "What it can be restored from, newest first, as it is kept there now.",
    params(DatabasePath),
    responses(
        (status = 200, description = "All of them on one page.", body = Page<Snapshot>),
        (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
) -> Result<Json<Page<Snapshot>>> {
    let may = caller.may_read(&path.namespace)?;
    let mut db = state.ledger().acquire().await?;
    let claim = store::claim(&mut db, &may, &path.name).await?;
    drop(db);
    let found = state.parts.planner.snapshots(claim.spec.cluster, claim.key).await;
    Ok(Json(Page::whole(found.map_err(unreachable)?)))
}

fn unreachable(error: SnapshotsError) -> Problem {
    let problem = Problem::new(&CLUSTER_UNREACHABLE, error.to_string());
    match error {
        SnapshotsError::Unknown => problem,
        SnapshotsError::Unreachable { .. } => problem.retry_after(5),
    }
}

/// List the snapshots of a cluster
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/snapshots", operation_id = "listClusterSnapshots", tag = "clusters",
    description = "What is kept of the whole cluster, newest first: for platform tokens, since every tenant's data are in it. Dumps are \
                   of one database each, and in its own list.",
    params(ClusterPath),
    responses(
        (status = 200, description = "All of them on one page.", body = Page<Snapshot>),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn of_cluster(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
) -> Result<Json<Page<Snapshot>>> {
    caller.platform()?;
    let mut db = state.ledger().acquire().await?;
    let cluster = store::cluster(&mut db, &caller.scope(), &path.cluster).await?;
    drop(db);
    let found = state.parts.planner.cluster_snapshots(cluster.name).await;
    Ok(Json(Page::whole(found.map_err(unreachable)?)))
}

/// Dump a database now
///
/// A logical backup: compressed, encrypted, and kept where the cluster's `backups.dumps` says. Follow the operation; its message
/// names the snapshot when it is there. Asked again while one is under way, the answer is the same operation.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/databases/{name}/snapshots", operation_id = "createSnapshot",
    tag = "restores", params(DatabasePath),
    responses(
        (status = 202, description = "It is being made.", body = Operation,
         headers(("Pgtenant-Operation" = String, description = "The operation's id."))),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn create(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
    PostOptional { attempt, .. }: PostOptional<NoFields>,
) -> Result<Response> {
    let may = caller.may_change(&path.namespace)?;
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let operation = store::request_backup(change.db(), &may, &path.name, None).await?;
    let answer = Answer::new(StatusCode::ACCEPTED, &operation)?.operation(Some(operation.id));
    change.commit(answer).await
}

/// A snapshot in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct SnapshotPath {
    /// The tenant.
    #[param(min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "idp-dev")]
    namespace: String,
    /// The claim's name; `{namespace}-{name}` has at most 55 bytes.
    #[param(min_length = 1, max_length = 53, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "my-db")]
    name: String,
    /// As the list of snapshots names it.
    #[param(
        min_length = 6,
        max_length = 270,
        pattern = "^(dump|rds|pgbackrest):[A-Za-z0-9_][A-Za-z0-9._:-]*$",
        example = "dump:20261120T021405Z-1a2b3c4d"
    )]
    snapshot: String,
}

/// Try a snapshot
///
/// It is restored beside the database, compared with what it should hold, and dropped. The list of snapshots says then when it was
/// found whole. Follow the operation.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/databases/{name}/snapshots/{snapshot}/verify",
    operation_id = "verifySnapshot", tag = "restores", params(SnapshotPath),
    responses(
        (status = 202, description = "It is being tried.", body = Operation,
         headers(("Pgtenant-Operation" = String, description = "The operation's id."))),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn verify(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<SnapshotPath>,
    _: Query<NoQuery>,
    PostOptional { attempt, .. }: PostOptional<NoFields>,
) -> Result<Response> {
    let may = caller.may_change(&path.namespace)?;
    let snapshot: SnapshotId = path.snapshot.parse().map_err(|error: pgtenant_model::InvalidSnapshotId| {
        Problem::invalid(vec![InvalidField::new("snapshot", error.to_string())])
    })?;
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let operation = store::request_backup(change.db(), &may, &path.name, Some(&snapshot)).await?;
    let answer = Answer::new(StatusCode::ACCEPTED, &operation)?.operation(Some(operation.id));
    change.commit(answer).await
}
