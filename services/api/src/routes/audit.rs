//! Who did what.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use pgtenant_ledger::AuditEntry;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::ApiState;
use crate::caller::Caller;
use crate::document::NotFound;
use crate::extract::{Label, Query};
use crate::page::{Limit, Page, decode};
use crate::problem::Result;
use crate::store;

/// A line of the audit.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub(crate) struct AuditView {
    /// Grows with time.
    id: i64,
    /// When.
    at: DateTime<Utc>,
    /// Who, as `token:ci`.
    actor: String,
    /// What was done, as `database.create`.
    action: String,
    /// To which tenant.
    namespace: Option<String>,
    /// To which claim, token or cluster.
    name: Option<String>,
    /// In which request.
    request_id: Option<String>,
    /// Values before and after; never a password.
    #[schema(value_type = Object)]
    detail: serde_json::Value,
}

impl From<AuditEntry> for AuditView {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { id, at, actor, action, namespace, name, request_id, detail } = entry;
        Self { id, at, actor, action, namespace, name, request_id, detail }
    }
}

/// Which lines to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Only those of this tenant.
    #[param(value_type = String, required = false, min_length = 1, max_length = 63,
            pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    namespace: Option<Label>,
    /// Entries a page.
    #[serde(default)]
    #[param(value_type = i64, required = false, minimum = 1, maximum = 500, default = 100)]
    limit: Limit,
    /// `nextCursor` of the page before.
    #[param(max_length = 512, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// Read the audit
#[utoipa::path(
    get, path = "/v1/audit", operation_id = "listAudit", tag = "audit", params(AuditQuery),
    description = "The newest lines first, a page at a time: of all tenants and the platform itself for platform \
                   tokens, of their own namespaces for others.",
    responses(
        (status = 200, description = "A page.", body = Page<AuditView>), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditView>>> {
    let AuditQuery { namespace, limit, cursor } = query;
    let scope = caller.scope_of(namespace.as_ref().map(|n| &*n.0))?;
    let before = decode::<i64>(cursor.as_deref())?;
    let mut db = state.ledger().acquire().await?;
    let entries = store::audit(&mut db, &scope, before, limit.rows()).await?;
    Ok(Json(Page::of(entries, limit, |entry| entry.id, AuditView::from)))
}
