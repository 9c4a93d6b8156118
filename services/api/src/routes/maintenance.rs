//! Maintenance: somebody works on a cluster, and nothing else is changed on it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use pgtenant_model::InvalidField;
use serde::Deserialize;
use utoipa::ToSchema;

use super::clusters::{ClusterPath, ClusterView};
use crate::ApiState;
use crate::answer::{Answer, Begun, begin, begin_plain};
use crate::caller::Caller;
use crate::document::{Conflict, Forbidden, NotFound};
use crate::extract::{NoQuery, Path, Post, Query};
use crate::problem::{Problem, Result};
use crate::store;

/// Bytes of a reason.
const LONGEST_REASON: usize = 500;

/// Why nothing is to be changed on a cluster.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewMaintenance, example = json!({"reason": "upgrade to PostgreSQL 17"}))]
pub(crate) struct NewMaintenance {
    /// For those whose databases wait.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Begin a maintenance
///
/// From now on nothing new is begun on the cluster: what is asked for waits, says why, and goes on by itself afterwards. Claims under work
/// end within seconds, a dump or a copy that is under way when it is done; restores wait at their next step. Databases are used as ever.
/// Said again, the reason is another one. For platform tokens.
#[utoipa::path(
    post, path = "/v1/clusters/{cluster}/maintenance", operation_id = "beginMaintenance", tag = "clusters", params(ClusterPath),
    request_body = NewMaintenance,
    responses(
        (status = 200, description = "The cluster.", body = ClusterView),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn start(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
    Post { body, attempt }: Post<NewMaintenance>,
) -> Result<Response> {
    let may = caller.platform()?;
    let reason = body.reason.trim();
    if reason.is_empty() || reason.len() > LONGEST_REASON || reason.contains(char::is_control) {
        let message = format!("say why in 1 to {LONGEST_REASON} bytes, on one line");
        return Err(Problem::invalid(vec![InvalidField::new("reason", message)]));
    }
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let cluster = store::cluster(change.db(), &caller.scope(), &path.cluster).await?;
    store::begin_maintenance(change.db(), &may, &cluster.name, reason).await?;
    let cluster = store::cluster(change.db(), &caller.scope(), &path.cluster).await?;
    change.commit(Answer::new(StatusCode::OK, &ClusterView::of(cluster, &caller))?).await
}

/// End a maintenance
#[utoipa::path(
    delete, path = "/v1/clusters/{cluster}/maintenance", operation_id = "endMaintenance", tag = "clusters", params(ClusterPath),
    description = "What has waited goes on at once; every claim is looked at within a minute, and its logins are proven. For platform tokens.",
    responses(
        (status = 204, description = "There is none any more."),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn end(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
) -> Result<StatusCode> {
    let may = caller.platform()?;
    let mut change = begin_plain(&state, &caller).await?;
    let cluster = store::cluster(change.db(), &caller.scope(), &path.cluster).await?;
    store::end_maintenance(change.db(), &may, &cluster.name).await?;
    change.commit_silently().await?;
    Ok(StatusCode::NO_CONTENT)
}
