//! Credentials: where they are, never what they are.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use pgtenant_model::{Database, Endpoint, InvalidField, Operation, Roles, Tier};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::DatabasePath;
use crate::ApiState;
use crate::answer::{Answer, Begun, begin};
use crate::caller::Caller;
use crate::document::{Conflict, Forbidden, NotFound};
use crate::extract::{NoQuery, Path, PostOptional, Query};
use crate::problem::{Problem, Result};
use crate::store;

/// Where the credentials of a database are.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Credentials {
    /// The tenant.
    namespace: String,
    /// The claim's name.
    name: String,
    /// The database's name on the cluster.
    database: String,
    /// Where to connect; none until the cluster was seen.
    endpoint: Option<Endpoint>,
    /// Per tier the role, the login, and every place that holds its credential.
    roles: Roles,
}

/// Find the credentials of a database
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}/databases/{name}/credentials", operation_id = "getCredentials",
    tag = "credentials", description = "Where they are, never what they are.", params(DatabasePath),
    responses(
        (status = 200, description = "Where the credentials are.", body = Credentials),
        (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn read(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
) -> Result<Json<Credentials>> {
    let may = caller.may_read(&path.namespace)?;
    let mut db = state.ledger().acquire().await?;
    let claim = store::claim(&mut db, &may, &path.name).await?;
    let Database { namespace, name, database, endpoint, roles, .. } = claim.database();
    Ok(Json(Credentials { namespace, name, database, endpoint, roles }))
}

/// Which passwords to replace.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"tiers": ["read"]}))]
pub(crate) struct Rotation {
    /// Tiers that get a new password.
    #[schema(min_items = 1, max_items = 3)]
    tiers: Vec<Tier>,
}

/// Replace passwords
///
/// Without a body those of all tiers. New credentials are in every store before the old ones end; a session that is open
/// is not ended by it.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/databases/{name}/credentials/rotate", operation_id = "rotateCredentials",
    tag = "credentials", params(DatabasePath), request_body = Option<Rotation>,
    responses(
        (status = 202, description = "They are being replaced.", body = Operation,
         headers(("Pgtenant-Operation" = String, description = "The operation's id."))),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn rotate(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
    PostOptional { body, attempt }: PostOptional<Rotation>,
) -> Result<Response> {
    let may = caller.may_change(&path.namespace)?;
    let tiers = body.map_or_else(|| Tier::ALL.to_vec(), |rotation| rotation.tiers);
    if tiers.is_empty() || tiers.len() > Tier::ALL.len() {
        let message = "list 1 to 3 of read, write and admin, or send no body for all";
        return Err(Problem::invalid(vec![InvalidField::new("tiers", message)]));
    }
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let operation = store::rotate(change.db(), &may, &path.name, &tiers).await?;
    let answer = Answer::new(StatusCode::ACCEPTED, &operation)?.operation(Some(operation.id));
    change.commit(answer).await
}
