//! Another primary of a cluster, and whether the one that is there is the right one.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use pgtenant_ledger::Cluster;
use pgtenant_model::{ClusterStatus, History, InvalidField, Switchover};
use serde::Deserialize;
use utoipa::ToSchema;

use super::clusters::ClusterPath;
use crate::ApiState;
use crate::answer::{Answer, Begun, begin};
use crate::caller::Caller;
use crate::document::{Conflict, Forbidden, NotFound};
use crate::extract::{NoQuery, Path, Post, PostOptional, Query};
use crate::problem::{NOT_REFUSED, Problem, Result, SWITCHED_BY_HAND, SWITCHOVER_UNDER_WAY};
use crate::store;

/// Which member is to be the primary.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = SwitchoverRequest, example = json!({"to": "db2.example:5432"}))]
pub(crate) struct SwitchoverRequest {
    /// A standby, as the topology names it; none: whichever the cluster's tool chooses.
    #[schema(max_length = 261)]
    to: Option<String>,
}

/// Switch a cluster over
///
/// The tool that keeps the cluster available is asked once for another primary; `GET` of the same path has what came of it. Writes fail
/// for some seconds. Where nobody can be asked, the answer says what a person does. For platform tokens.
#[utoipa::path(
    post, path = "/v1/clusters/{cluster}/switchover", operation_id = "switchOver", tag = "clusters",
    params(ClusterPath), request_body = Option<SwitchoverRequest>,
    responses(
        (status = 202, description = "It is wished for.", body = Switchover),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn switch_over(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
    PostOptional { body, attempt }: PostOptional<SwitchoverRequest>,
) -> Result<Response> {
    let may = caller.platform()?;
    let SwitchoverRequest { to } = body.unwrap_or_default();
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let Cluster { name, spec, status, .. } = store::cluster(change.db(), &caller.scope(), &path.cluster).await?;
    if let Some(how) = spec.0.topology.switched_by_hand() {
        return Err(Problem::new(&SWITCHED_BY_HAND, how));
    }
    if let Some(to) = &to {
        check(to, &status.0)?;
    }
    let asked = store::ask_for_switchover(change.db(), &may, &name, to.as_deref()).await?;
    if asked.to != to || asked.finished_at.is_some() {
        return Err(Problem::new(
            &SWITCHOVER_UNDER_WAY,
            format!("another switchover of cluster {name:?} is under way"),
        ));
    }
    change.commit(Answer::new(StatusCode::ACCEPTED, &asked)?).await
}

/// Whether it is a member beside the primary, as the cluster was last seen.
fn check(to: &str, seen: &ClusterStatus) -> Result<()> {
    let others: Vec<&str> = seen
        .members
        .iter()
        .map(|member| member.host.as_str())
        .filter(|host| seen.primary.as_deref() != Some(*host))
        .collect();
    if others.contains(&to) {
        return Ok(());
    }
    let message = match others.as_slice() {
        [] => "there is no standby".to_owned(),
        some => format!("is none of the standbys, which are {}", some.join(", ")),
    };
    Err(Problem::invalid(vec![InvalidField::new("to", message)]))
}

/// Where the data comes from that is right.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = AcceptedHistory, example = json!({"system": "7460113300000000000", "timeline": 1}))]
pub(crate) struct Accepted {
    /// As `refused` of the topology has it.
    #[schema(max_length = 20)]
    system: String,
    /// As `refused` of the topology has it.
    timeline: i32,
}

/// Say that a cluster's data is right
///
/// Where the server that takes writes has another history than the one that was there, nothing is written to it until a person says that
/// it is right, as after a restore. Repeat what `refused` of the topology says, so that nothing else is accepted. For platform tokens.
#[utoipa::path(
    post, path = "/v1/clusters/{cluster}/accept", operation_id = "acceptHistory", tag = "clusters",
    params(ClusterPath), request_body = Accepted,
    responses(
        (status = 200, description = "It is what counts from now on.", body = History),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn accept(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
    Post { body: Accepted { system, timeline }, attempt }: Post<Accepted>,
) -> Result<Response> {
    let may = caller.platform()?;
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let Cluster { name, .. } = store::cluster(change.db(), &caller.scope(), &path.cluster).await?;
    let history = History { system, timeline, accepted_at: None };
    if !store::accept_history(change.db(), &may, &name, &history).await? {
        return Err(Problem::new(&NOT_REFUSED, format!("no such history of cluster {name:?} is refused now")));
    }
    change.commit(Answer::new(StatusCode::OK, &history)?).await
}

/// See what came of a switchover
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/switchover", operation_id = "getSwitchover", tag = "clusters",
    description = "The last one that was asked for. For platform tokens.", params(ClusterPath),
    responses(
        (status = 200, description = "The switchover.", body = Switchover),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn read(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<ClusterPath>,
    _: Query<NoQuery>,
) -> Result<Json<Switchover>> {
    let may = caller.platform()?;
    let mut db = state.ledger().acquire().await?;
    let Cluster { name, .. } = store::cluster(&mut db, &caller.scope(), &path.cluster).await?;
    let found = store::last_switchover(&mut db, &may, &name).await?;
    found.map(Json).ok_or_else(|| Problem::not_found(format!("switchover of cluster {name:?}")))
}
