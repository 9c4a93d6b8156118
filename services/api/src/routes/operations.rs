//! Requests and how far they have come.

use axum::Json;
use axum::extract::State;
use pgtenant_model::Operation;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::ApiState;
use crate::caller::Caller;
use crate::document::NotFound;
use crate::extract::{NoQuery, Path, Query};
use crate::problem::{Problem, Result};
use crate::store;

/// An operation in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct OperationPath {
    /// As in `Pgtenant-Operation`.
    #[param(example = "01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11")]
    id: Uuid,
}

/// Read an operation
#[utoipa::path(
    get, path = "/v1/operations/{id}", operation_id = "getOperation", tag = "operations",
    description = "How far a request has come. Kept for 30 days after its end.", params(OperationPath),
    responses(
        (status = 200, description = "The operation.", body = Operation), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn read(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<OperationPath>,
    _: Query<NoQuery>,
) -> Result<Json<Operation>> {
    let mut db = state.ledger().acquire().await?;
    let found = store::operation(&mut db, &caller.scope(), path.id).await?;
    found.map(Json).ok_or_else(|| Problem::not_found(format!("operation {}", path.id)))
}
