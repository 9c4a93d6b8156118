//! Probes, metrics, and this document. No token is needed.

use std::sync::LazyLock;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pgtenant_model::InvalidField;
use serde::Serialize;
use utoipa::ToSchema;

use crate::document::NotReady;
use crate::problem::{NOT_READY, Problem, Result};
use crate::{ApiState, Check};

/// How long parts are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process is alive.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// As `0.1.0`.
    version: String,
}

/// Is it alive?
#[utoipa::path(
    get, path = "/healthz", operation_id = "getHealth", tag = "health", security(()),
    description = "Says that the process answers; no part is asked.",
    responses((status = 200, description = "It is.", body = Health)),
)]
pub(crate) async fn healthz(State(state): State<ApiState>) -> Json<Health> {
    Json(Health { status: "ok", version: state.settings().version.clone() })
}

/// Every part works.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// `ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// The parts that were asked.
    #[schema(example = json!(["ledger", "engine"]))]
    parts: Vec<String>,
}

/// Is it ready?
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadiness", tag = "health", security(()),
    description = "Asks the ledger and every other part; one that is down is named.",
    responses((status = 200, description = "It is.", body = Readiness), (status = 503, response = NotReady)),
)]
pub(crate) async fn readyz(State(state): State<ApiState>) -> Result<Json<Readiness>> {
    let ledger = async {
        let problem = (!state.ledger().answers().await).then(|| "does not answer".to_owned());
        Check { part: "ledger".to_owned(), problem }
    };
    let others = async {
        let late = Check { part: "checks".to_owned(), problem: Some("did not answer in time".to_owned()) };
        tokio::time::timeout(PATIENCE, (state.parts.readiness)()).await.unwrap_or_else(|_| vec![late])
    };
    let (ledger, others) = tokio::join!(ledger, others);
    let checks: Vec<Check> = std::iter::once(ledger).chain(others).collect();
    let down = checks.iter().filter_map(|check| Some(InvalidField::new(&check.part, check.problem.as_ref()?)));
    let down: Vec<_> = down.collect();
    if down.is_empty() {
        return Ok(Json(Readiness { status: "ready", parts: checks.into_iter().map(|check| check.part).collect() }));
    }
    Err(Problem::fields(&NOT_READY, down).retry_after(2))
}

/// Metrics
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "health", security(()),
    description = "In Prometheus' text format.",
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(state): State<ApiState>) -> Response {
    let text = (state.parts.metrics)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

static DOCUMENT: LazyLock<String> = LazyLock::new(crate::openapi_json);

/// This document
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenApi", tag = "health", security(()),
    description = "The OpenAPI document of this server; `/docs` shows it to people.",
    responses((status = 200, description = "The document.", body = Object)),
)]
pub(crate) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}
