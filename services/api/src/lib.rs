//! REST: a door. It takes wishes, checks who wishes them, and writes them into the ledger; it never touches a tenant's
//! cluster or a secret.
//!
//! The contract is `openapi/openapi.json`, which is generated from the handlers. Every error is a problem of
//! [`PROBLEMS`].

mod answer;
mod caller;
mod document;
mod events;
mod extract;
mod limit;
mod observe;
mod page;
mod patient;
mod problem;
mod routes;
mod serve;
mod slack;
mod state;
mod store;
mod token_cache;

use axum::Router;
use axum::middleware::from_fn_with_state;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

pub use events::follow_events;
pub use problem::{PROBLEM_BASE, PROBLEMS, ProblemType};
pub use serve::serve;
pub use slack::{SLACK_API_URL, SlackChannel, SlackPace, SlackSettings, SlackUnlisted, SlackUser, run_slack};
pub use state::{
    ApiParts, ApiSettings, ApiState, Check, PlanError, Planner, Readiness, RenderMetrics, SnapshotsError, TrialError,
};

use document::Document;
use problem::{NO_SUCH_ROUTE, Problem};
use routes::{
    apps, audit, clusters, credentials, databases, drills, events as stream, health, maintenance, moves, operations,
    plan, restores, rotation, snapshots, switchover, takeover, tokens,
};

/// Every path, with all limits around it. [`serve`] serves it on a socket.
pub fn router(state: ApiState) -> Router {
    let authenticate = from_fn_with_state(state.clone(), caller::authenticate);
    let protected = Router::from(versioned()).route_layer(authenticate);
    // `none`: otherwise the page asks a public server whether the document is valid.
    let docs = SwaggerUi::new("/docs").config(Config::from("/openapi.json").validator_url("none"));
    Router::from(open())
        .merge(protected)
        .merge(docs)
        .fallback(async || Problem::plain(&NO_SUCH_ROUTE))
        .layer(from_fn_with_state(state.clone(), observe::observe))
        .with_state(state)
}

/// The OpenAPI document; [`openapi_json`] is how it is published.
#[must_use]
pub fn openapi() -> serde_json::Value {
    let router = OpenApiRouter::with_openapi(Document::openapi()).merge(open()).merge(versioned());
    document::finish(router.into_openapi())
}

/// The OpenAPI document as it is written to `openapi/openapi.json`.
#[must_use]
pub fn openapi_json() -> String {
    let mut text = serde_json::to_string_pretty(&openapi()).unwrap_or_default();
    text.push('\n');
    text
}

/// Paths that need no token: those of Slack are signed.
fn open() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::openapi))
        .routes(routes!(slack::commands))
        .routes(routes!(slack::interactions))
}

/// Paths that need one.
fn versioned() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(databases::list, databases::create))
        .routes(routes!(databases::read, databases::update, databases::remove))
        .routes(routes!(takeover::release))
        .routes(routes!(takeover::adopt))
        .routes(routes!(credentials::read))
        .routes(routes!(credentials::rotate))
        .routes(routes!(databases::list_all))
        .routes(routes!(snapshots::list, snapshots::create))
        .routes(routes!(snapshots::verify))
        .routes(routes!(snapshots::of_cluster))
        .routes(routes!(restores::request))
        .routes(routes!(restores::list))
        .routes(routes!(restores::read))
        .routes(routes!(restores::approve))
        .routes(routes!(restores::reject))
        .routes(routes!(restores::cancel))
        .routes(routes!(restores::undo))
        .routes(routes!(moves::request, moves::read))
        .routes(routes!(moves::confirm))
        .routes(routes!(moves::cancel))
        .routes(routes!(plan::plan))
        .routes(routes!(clusters::list))
        .routes(routes!(clusters::read))
        .routes(routes!(clusters::topology))
        .routes(routes!(clusters::preflight, clusters::try_out))
        .routes(routes!(switchover::switch_over, switchover::read))
        .routes(routes!(switchover::accept))
        .routes(routes!(drills::list, drills::create))
        .routes(routes!(maintenance::start, maintenance::end))
        .routes(routes!(rotation::rotate))
        .routes(routes!(rotation::read))
        .routes(routes!(rotation::rotate_provisioner))
        .routes(routes!(operations::read))
        .routes(routes!(stream::stream))
        .routes(routes!(audit::list))
        .routes(routes!(apps::problems))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::whoami))
}
