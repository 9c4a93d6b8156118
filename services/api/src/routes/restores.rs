//! Back from a snapshot: ask, say yes or no, follow, cancel, undo.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use pgtenant_ledger::{Decision, RestoreFilter};
use pgtenant_model::{Restore, RestorePhase, RestoreSpec};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::DatabasePath;
use super::takeover::NoFields;
use crate::ApiState;
use crate::answer::{Answer, Begun, begin};
use crate::caller::Caller;
use crate::document::{Conflict, Forbidden, NotFound};
use crate::extract::{Attempt, Label, NoQuery, Path, Post, PostOptional, Query};
use crate::page::{Limit, Page, decode};
use crate::problem::Result;
use crate::store;

/// Ask for a restore
///
/// The database as it was in a snapshot. `swap`: it is loaded beside the live one, compared, and takes its place in a moment; the
/// former one is kept for a time, and `undo` brings it back. `copy`: it becomes another database. Roles and passwords stay as they are. It waits for somebody to
/// approve it, if the cluster's rules say so.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/databases/{name}/restores", operation_id = "requestRestore",
    tag = "restores", params(DatabasePath), request_body = RestoreSpec,
    responses(
        (status = 202, description = "Written down.", body = Restore,
         headers(("Location" = String, description = "The restore's path."))),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn request(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
    Post { body, attempt }: Post<RestoreSpec>,
) -> Result<Response> {
    let may = caller.may_change(&path.namespace)?;
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let restore = store::request_restore(change.db(), &may, &path.name, &body).await?;
    let location = format!("/v1/restores/{}", restore.id);
    change.commit(Answer::new(StatusCode::ACCEPTED, &restore)?.location(location)).await
}

/// Which restores to list; every field that is given narrows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RestoresQuery {
    /// Only those of this tenant.
    #[param(value_type = String, required = false, min_length = 1, max_length = 63,
            pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    namespace: Option<Label>,
    /// Only those of databases of this name.
    #[param(value_type = String, required = false, min_length = 1, max_length = 63,
            pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    name: Option<Label>,
    /// Only those in this phase.
    phase: Option<RestorePhase>,
    /// Entries a page.
    #[serde(default)]
    #[param(value_type = i64, required = false, minimum = 1, maximum = 500, default = 100)]
    limit: Limit,
    /// `nextCursor` of the page before.
    #[param(max_length = 512, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// List restores
#[utoipa::path(
    get, path = "/v1/restores", operation_id = "listRestores", tag = "restores",
    description = "Across all namespaces that the token may read, newest first, a page at a time.",
    params(RestoresQuery),
    responses(
        (status = 200, description = "A page.", body = Page<Restore>), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    Query(query): Query<RestoresQuery>,
) -> Result<Json<Page<Restore>>> {
    let RestoresQuery { namespace, name, phase, limit, cursor } = query;
    let scope = caller.scope_of(namespace.as_ref().map(|one| &*one.0))?;
    let before = decode::<Uuid>(cursor.as_deref())?;
    let wanted = RestoreFilter { namespaces: None, name: name.as_ref().map(|one| &*one.0), phase, before };
    let mut db = state.ledger().acquire().await?;
    let found = store::restores(&mut db, &scope, wanted, limit.rows()).await?;
    Ok(Json(Page::of(found, limit, |restore| restore.id, |restore| restore)))
}

/// A restore in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct RestorePath {
    /// As the answer to the request has it.
    #[param(example = "01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11")]
    id: Uuid,
}

/// Read a restore
#[utoipa::path(
    get, path = "/v1/restores/{id}", operation_id = "getRestore", tag = "restores",
    description = "How far it is, what was compared, and until when it can be undone.", params(RestorePath),
    responses(
        (status = 200, description = "The restore.", body = Restore), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn read(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<RestorePath>,
    _: Query<NoQuery>,
) -> Result<Json<Restore>> {
    let mut db = state.ledger().acquire().await?;
    Ok(Json(store::restore(&mut db, &caller.scope(), path.id).await?))
}

/// What is wanted of a restore.
enum Act {
    Decide(Decision),
    Cancel,
    Undo,
}

async fn act(state: &ApiState, caller: &Caller, id: Uuid, attempt: Attempt, act: Act) -> Result<Response> {
    let mut change = match begin(state, caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let found = store::restore(change.db(), &caller.scope(), id).await?;
    let may = caller.may_change(&found.namespace)?;
    let restore = match act {
        Act::Decide(decision) => store::decide_restore(change.db(), &may, id, decision, caller.is_platform()).await?,
        Act::Cancel => store::cancel_restore(change.db(), &may, id).await?,
        Act::Undo => store::undo_restore(change.db(), &may, id, caller.is_platform()).await?,
    };
    change.commit(Answer::new(StatusCode::OK, &restore)?).await
}

/// Approve a restore
///
/// It begins. In production, unless the cluster's rules say otherwise, somebody of the platform team has to who has not asked for
/// it. Approved again, nothing changes.
#[utoipa::path(
    post, path = "/v1/restores/{id}/approve", operation_id = "approveRestore", tag = "restores", params(RestorePath),
    responses(
        (status = 200, description = "It is approved.", body = Restore),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn approve(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<RestorePath>,
    _: Query<NoQuery>,
    PostOptional { attempt, .. }: PostOptional<NoFields>,
) -> Result<Response> {
    act(&state, &caller, path.id, attempt, Act::Decide(Decision::Approve)).await
}

/// Reject a restore
#[utoipa::path(
    post, path = "/v1/restores/{id}/reject", operation_id = "rejectRestore", tag = "restores", params(RestorePath),
    description = "Nothing becomes of a restore that waits to be approved.",
    responses(
        (status = 200, description = "It is rejected.", body = Restore),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn reject(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<RestorePath>,
    _: Query<NoQuery>,
    PostOptional { attempt, .. }: PostOptional<NoFields>,
) -> Result<Response> {
    act(&state, &caller, path.id, attempt, Act::Decide(Decision::Reject)).await
}

/// Cancel a restore
#[utoipa::path(
    post, path = "/v1/restores/{id}/cancel", operation_id = "cancelRestore", tag = "restores", params(RestorePath),
    description = "It ends with all as it was; possible until it switches.",
    responses(
        (status = 200, description = "It is being cancelled.", body = Restore),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn cancel(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<RestorePath>,
    _: Query<NoQuery>,
    PostOptional { attempt, .. }: PostOptional<NoFields>,
) -> Result<Response> {
    act(&state, &caller, path.id, attempt, Act::Cancel).await
}

/// Undo a restore
///
/// The database that the restore has put aside takes its place again, with all that was in it then. What was written since the
/// restore is put aside in turn, and kept as long. `undoneAt` says when it is done.
#[utoipa::path(
    post, path = "/v1/restores/{id}/undo", operation_id = "undoRestore", tag = "restores", params(RestorePath),
    responses(
        (status = 200, description = "It is being undone.", body = Restore),
        (status = 403, response = Forbidden), (status = 404, response = NotFound), (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn undo(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<RestorePath>,
    _: Query<NoQuery>,
    PostOptional { attempt, .. }: PostOptional<NoFields>,
) -> Result<Response> {
    act(&state, &caller, path.id, attempt, Act::Undo).await
}
