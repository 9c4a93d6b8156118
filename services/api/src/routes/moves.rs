//! A database on another cluster: ask, see what it costs, say yes or no.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use pgtenant_model::{Move, MoveMethod};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::DatabasePath;
use crate::ApiState;
use crate::answer::{Answer, Begun, begin};
use crate::caller::Caller;
use crate::document::{Conflict, Forbidden, NotFound};
use crate::extract::{Attempt, Label, NoQuery, Path, Post, Query};
use crate::problem::{Problem, Result};
use crate::store;

/// Where a database is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = MoveRequest, example = json!({"to": "eu-west"}))]
pub(crate) struct MoveRequest {
    /// The other cluster.
    #[schema(value_type = String, min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    to: Label,
    /// How; without it by replication where that is possible, and else by dump.
    #[serde(default)]
    by: Option<MoveMethod>,
}

/// Which move is meant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = MoveAnswer, example = json!({"id": "01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11"}))]
pub(crate) struct MoveAnswer {
    /// As the answer to the request has it: so that nothing else is confirmed than what was seen.
    id: Uuid,
}

/// Ask for a move to another cluster
///
/// It is rehearsed first, while applications go on: a copy is made on the other cluster, compared and dropped. Then it waits for a yes,
/// with the time for which nobody will be able to connect; after an hour without one it is cancelled. For platform tokens.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/databases/{name}/move", operation_id = "requestMove", tag = "databases",
    params(DatabasePath), request_body = MoveRequest,
    responses(
        (status = 202, description = "Written down.", body = Move),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn request(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
    Post { body: MoveRequest { to, by }, attempt }: Post<MoveRequest>,
) -> Result<Response> {
    let may = caller.platform()?;
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let asked = store::request_move(change.db(), &may, &path.key()?, &to.0, by).await?;
    change.commit(Answer::new(StatusCode::ACCEPTED, &asked)?).await
}

/// See how a move goes
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}/databases/{name}/move", operation_id = "getMove", tag = "databases",
    description = "The last one that was asked for. For platform tokens.", params(DatabasePath),
    responses(
        (status = 200, description = "The move.", body = Move),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn read(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
) -> Result<Json<Move>> {
    let may = caller.platform()?;
    let key = path.key()?;
    let mut db = state.ledger().acquire().await?;
    let found = store::last_move(&mut db, &may, &key).await?;
    found.map(Json).ok_or_else(|| Problem::not_found(format!("move of database {key}")))
}

/// What is said to a move that was rehearsed.
enum Say {
    Yes,
    No,
}

async fn answer(
    state: &ApiState,
    caller: &Caller,
    path: &DatabasePath,
    (id, attempt): (Uuid, Attempt),
    say: Say,
) -> Result<Response> {
    let may = caller.platform()?;
    let mut change = match begin(state, caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let key = path.key()?;
    let now = match say {
        Say::Yes => store::confirm_move(change.db(), &may, &key, id).await?,
        Say::No => store::cancel_move(change.db(), &may, &key, id).await?,
    };
    change.commit(Answer::new(StatusCode::ACCEPTED, &now)?).await
}

/// Say yes to a move
///
/// From now on nobody can connect until it is on the other cluster, or, where that comes to nothing, where it was. For platform tokens.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/databases/{name}/move/confirm", operation_id = "confirmMove", tag = "databases",
    params(DatabasePath), request_body = MoveAnswer,
    responses(
        (status = 202, description = "It begins.", body = Move),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn confirm(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
    Post { body: MoveAnswer { id }, attempt }: Post<MoveAnswer>,
) -> Result<Response> {
    answer(&state, &caller, &path, (id, attempt), Say::Yes).await
}

/// Cancel a move
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/databases/{name}/move/cancel", operation_id = "cancelMove", tag = "databases",
    description = "Before it was confirmed; all is as it was. For platform tokens.",
    params(DatabasePath), request_body = MoveAnswer,
    responses(
        (status = 202, description = "It is cleaned up.", body = Move),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn cancel(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
    Post { body: MoveAnswer { id }, attempt }: Post<MoveAnswer>,
) -> Result<Response> {
    answer(&state, &caller, &path, (id, attempt), Say::No).await
}
