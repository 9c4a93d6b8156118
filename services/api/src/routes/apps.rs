//! What is wrong in the apps folder.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::ApiState;
use crate::caller::Caller;
use crate::extract::{NoQuery, Query};
use crate::page::Page;
use crate::problem::Result;
use crate::store;

/// A fault in a file of the apps folder.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppsProblem {
    /// The file, relative to the apps folder.
    file: String,
    /// Line, from 1; 0 where the whole file is meant.
    line: i32,
    /// The key's path, as `postgresqlDatabases[0].mode`; empty where there is none.
    key: String,
    /// What is wrong and what is allowed.
    message: String,
}

/// List faults in the apps folder
#[utoipa::path(
    get, path = "/v1/apps/problems", operation_id = "listAppsProblems", tag = "apps",
    description = "Those of the last scan, by file and line. While a file is broken, its claims stay as they were.",
    responses((status = 200, description = "All of them on one page.", body = Page<AppsProblem>)),
)]
pub(crate) async fn problems(
    caller: Caller,
    State(state): State<ApiState>,
    _: Query<NoQuery>,
) -> Result<Json<Page<AppsProblem>>> {
    let mut db = state.ledger().acquire().await?;
    let found = store::apps_problems(&mut db, &caller.scope()).await?;
    let show = |pgtenant_ledger::AppsProblem { file, line, key, message }| AppsProblem { file, line, key, message };
    Ok(Json(Page::whole(found.into_iter().map(show).collect())))
}
