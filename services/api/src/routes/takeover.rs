//! Releasing a database and taking one over.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pgtenant_model::{ClaimSpec, Operation, PlanReport, PlanRequest, PlannedClaim, Source};
use serde::Deserialize;
use utoipa::IntoParams;

use super::DatabasePath;
use crate::ApiState;
use crate::answer::{Answer, Begun, begin};
use crate::caller::{Caller, Changeable};
use crate::document::{Conflict, Forbidden, NotFound, PreconditionFailed};
use crate::extract::{IfMatch, NoQuery, Path, PostOptional, Query};
use crate::problem::Result;
use crate::store;

/// A body without fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoFields {}

/// Release a database
///
/// Database, roles and stored credentials are kept and no longer managed; the state becomes Retained. Works for either
/// mode and for claims of every door. Define the claim again, or adopt it, to take it back with the same passwords.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/databases/{name}/release", operation_id = "releaseDatabase",
    tag = "databases", params(DatabasePath),
    responses(
        (status = 202, description = "It is Retained.", body = Operation,
         headers(("Pgtenant-Operation" = String, description = "The operation's id."))),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
        (status = 409, response = Conflict), (status = 412, response = PreconditionFailed),
    ),
)]
pub(crate) async fn release(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
    condition: IfMatch,
    PostOptional { attempt, .. }: PostOptional<NoFields>,
) -> Result<Response> {
    let may = caller.may_change(&path.namespace)?;
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let operation = store::release(change.db(), &may, &path.name, &condition).await?;
    let answer = Answer::new(StatusCode::ACCEPTED, &operation)?.operation(Some(operation.id));
    change.commit(answer).await
}

/// How to take over.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AdoptQuery {
    /// Only tell what would be changed.
    #[serde(default)]
    #[param(value_type = bool, required = false, default = false)]
    dry_run: bool,
}

/// Take over a database
///
/// Takes back a Retained database, or takes over one that exists on the cluster under the claim's name and is nobody's.
/// The second is for platform tokens: it may hold anybody's data. The body is the claim's spec; without one it is the
/// Retained claim's, or the default. With `dryRun=true` nothing is done and the answer is the plan.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/databases/{name}/adopt", operation_id = "adoptDatabase",
    tag = "databases", params(DatabasePath, AdoptQuery), request_body = Option<ClaimSpec>,
    responses(
        (status = 200, description = "`dryRun`: what would be changed.", body = PlanReport),
        (status = 202, description = "It is being taken over.", body = Operation,
         headers(("Pgtenant-Operation" = String, description = "The operation's id."))),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn adopt(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    Query(query): Query<AdoptQuery>,
    PostOptional { body, attempt }: PostOptional<ClaimSpec>,
) -> Result<Response> {
    let may = caller.may_change(&path.namespace)?;
    if query.dry_run {
        return dry_run(&state, &may, path, body).await;
    }
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let operation = store::adopt(change.db(), &may, &path.name, body).await?;
    let answer = Answer::new(StatusCode::ACCEPTED, &operation)?.operation(Some(operation.id));
    change.commit(answer).await
}

async fn dry_run(
    state: &ApiState,
    may: &Changeable,
    DatabasePath { namespace, name }: DatabasePath,
    spec: Option<ClaimSpec>,
) -> Result<Response> {
    let store::Adoption { spec, foreign } = {
        let mut db = state.ledger().acquire().await?;
        store::adoption(&mut db, may, &name, spec).await?
    };
    let ClaimSpec { mode, cluster, schemas, extensions, connection_limit, slack_channel } = spec;
    let scope = Some(vec![namespace.clone()]);
    let cluster = Some(cluster);
    let claim = PlannedClaim { namespace, name, mode, cluster, schemas, extensions, connection_limit, slack_channel };
    let request = PlanRequest { claims: vec![claim], source: Source::Api, complete: false, adopt: foreign };
    Ok(Json(state.parts.planner.plan(request, scope).await?).into_response())
}
