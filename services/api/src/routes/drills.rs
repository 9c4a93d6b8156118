//! Drills: fail-over that was tried.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use pgtenant_ledger::PastDrill;
use pgtenant_model::Drill;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::clusters::ClusterPath;
use crate::ApiState;
use crate::answer::{Answer, Begun, begin};
use crate::caller::Caller;
use crate::document::{Forbidden, NotFound};
use crate::extract::{NoQuery, Path, Post, Query};
use crate::page::Page;
use crate::problem::{Problem, Result};
use crate::store;

/// A drill that was run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PastDrill)]
pub(crate) struct DrillView {
    /// Its id.
    id: Uuid,
    /// The cluster.
    cluster: String,
    /// Who ran it.
    requested_by: String,
    /// When it was written down.
    created_at: DateTime<Utc>,
    #[serde(flatten)]
    drill: Drill,
}

impl From<PastDrill> for DrillView {
    fn from(past: PastDrill) -> Self {
        let PastDrill { id, cluster, requested_by, created_at, drill } = past;
        Self { id, cluster, requested_by, created_at, drill: drill.0 }
    }
}

/// Write a drill down
///
/// `pgtenant cluster drill` does so when it has run one: the control plane stops no server. The last 100 of a cluster are kept. For
/// platform tokens.
#[utoipa::path(
    post, path = "/v1/clusters/{cluster}/drills", operation_id = "recordDrill", tag = "clusters", params(ClusterPath),
    request_body = Drill,
    responses(
        (status = 201, description = "It is written down.", body = DrillView),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn create(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
    Post { body, attempt }: Post<Drill>,
) -> Result<Response> {
    let may = caller.platform()?;
    let problems = body.invalid();
    if !problems.is_empty() {
        return Err(Problem::invalid(problems));
    }
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let cluster = store::cluster(change.db(), &caller.scope(), &path.cluster).await?;
    let past = store::add_drill(change.db(), &may, &cluster.name, &body).await?;
    change.commit(Answer::new(StatusCode::CREATED, &DrillView::from(past))?).await
}

/// List drills
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/drills", operation_id = "listDrills", tag = "clusters", params(ClusterPath),
    description = "The last 100 of a cluster, the newest first. For platform tokens.",
    responses(
        (status = 200, description = "All of them on one page.", body = Page<DrillView>),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
) -> Result<Json<Page<DrillView>>> {
    let may = caller.platform()?;
    let mut db = state.ledger().acquire().await?;
    let cluster = store::cluster(&mut db, &caller.scope(), &path.cluster).await?;
    let past = store::drills(&mut db, &may, &cluster.name).await?;
    Ok(Json(Page::whole(past.into_iter().map(DrillView::from).collect())))
}
