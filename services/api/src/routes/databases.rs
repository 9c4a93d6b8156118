//! Databases: make, read, list, change, remove.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pgtenant_ledger::Written;
use pgtenant_model::{ClaimPatch, ClaimSpec, Database, DatabaseState, Mode, Operation, OperationKind, check_label};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{DatabasePath, NamespacePath};
use crate::ApiState;
use crate::answer::{Answer, Begun, begin, begin_plain};
use crate::caller::{Caller, Scope};
use crate::document::{Conflict, Forbidden, NotFound, PreconditionFailed};
use crate::extract::{IfMatch, Label, MergePatch, NoQuery, Path, Post, Query};
use crate::page::{Limit, Page, decode};
use crate::problem::{INVALID_CURSOR, Problem, Result};
use crate::store::{self, Wanted};

/// A database that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "my-db", "mode": "standard"}))]
pub(crate) struct NewDatabase {
    /// The claim's name within its namespace; `{namespace}-{name}` has at most 55 bytes.
    #[schema(min_length = 1, max_length = 53, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "my-db")]
    name: String,
    /// What removing the claim does.
    #[serde(default)]
    mode: Mode,
    /// The shared cluster that holds the database. Can not be changed later.
    #[serde(default = "default_cluster")]
    cluster: String,
    /// Schemas beside `public` that get the same grants.
    #[serde(default)]
    schemas: Vec<String>,
    /// Extensions; the cluster's allow-list decides.
    #[serde(default)]
    extensions: Vec<String>,
    /// Connections that each role may have at once; no value: no limit.
    #[serde(default)]
    connection_limit: Option<i32>,
    /// The Slack channel that hears what becomes of it, as `#orders` or by its id; it must be linked to the namespace. No value:
    /// every channel that is linked to it.
    #[serde(default)]
    slack_channel: Option<String>,
}

fn default_cluster() -> String {
    ClaimSpec::default().cluster
}

impl NewDatabase {
    fn into_parts(self) -> (String, ClaimSpec) {
        let Self { name, mode, cluster, schemas, extensions, connection_limit, slack_channel } = self;
        (name, ClaimSpec { mode, cluster, schemas, extensions, connection_limit, slack_channel })
    }
}

/// Ask for a database
///
/// The same wish again changes nothing and is answered 200; a Retained database is taken back with its passwords.
/// The answer comes before the work is done: follow `state`, the operation in `Pgtenant-Operation`, or the events.
#[utoipa::path(
    post, path = "/v1/namespaces/{namespace}/databases", operation_id = "createDatabase", tag = "databases",
    params(NamespacePath), request_body = NewDatabase,
    responses(
        (status = 201, description = "Written down; the work has begun.", body = Database, headers(
            ("Location" = String, description = "The database's path."),
            ("ETag" = String, description = "Its generation, for `If-Match`."),
            ("Pgtenant-Operation" = String, description = "The operation that makes it."))),
        (status = 200, description = "It is there already with this spec, or was Retained and is taken back.",
         body = Database, headers(("ETag" = String, description = "Its generation, for `If-Match`."))),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
        (status = 409, response = Conflict),
    ),
)]
pub(crate) async fn create(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<NamespacePath>,
    _: Query<NoQuery>,
    Post { body, attempt }: Post<NewDatabase>,
) -> Result<Response> {
    let may = caller.may_change(&path.namespace)?;
    let (name, spec) = body.into_parts();
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let Written { claim, operation } = store::create(change.db(), &may, &name, &spec).await?;
    let made = operation.as_ref().is_some_and(|operation| operation.kind == OperationKind::Create);
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    let answer = Answer::new(status, &claim.database())?
        .location(format!("/v1/namespaces/{}/databases/{name}", path.namespace))
        .etag(claim.generation)
        .operation(operation.map(|operation| operation.id));
    change.commit(answer).await
}

/// Read a database
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}/databases/{name}", operation_id = "getDatabase", tag = "databases",
    description = "A claim and what became of it.", params(DatabasePath),
    responses(
        (status = 200, description = "The database.", body = Database,
         headers(("ETag" = String, description = "Its generation, for `If-Match`."))),
        (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn read(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
) -> Result<Response> {
    let may = caller.may_read(&path.namespace)?;
    let mut db = state.ledger().acquire().await?;
    let claim = store::claim(&mut db, &may, &path.name).await?;
    Ok(Answer::new(StatusCode::OK, &claim.database())?.etag(claim.generation).into_response())
}

/// Change a database
///
/// A JSON merge patch (RFC 7396): a field that is absent stays, `null` goes back to its default, a list is replaced as
/// a whole. A patch that changes nothing does not make a new generation.
#[utoipa::path(
    patch, path = "/v1/namespaces/{namespace}/databases/{name}", operation_id = "updateDatabase", tag = "databases",
    params(DatabasePath),
    request_body(content(
        (ClaimPatch = "application/merge-patch+json"),
        (ClaimPatch = "application/json"),
    )),
    responses(
        (status = 200, description = "Written down; the work has begun.", body = Database, headers(
            ("ETag" = String, description = "Its generation now."),
            ("Pgtenant-Operation" = String, description = "The operation, if anything changes."))),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
        (status = 409, response = Conflict), (status = 412, response = PreconditionFailed),
    ),
)]
pub(crate) async fn update(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    _: Query<NoQuery>,
    condition: IfMatch,
    MergePatch(patch): MergePatch<ClaimPatch>,
) -> Result<Response> {
    let may = caller.may_change(&path.namespace)?;
    let mut change = begin_plain(&state, &caller).await?;
    let Written { claim, operation } = store::update(change.db(), &may, &path.name, patch, &condition).await?;
    let answer = Answer::new(StatusCode::OK, &claim.database())?
        .etag(claim.generation)
        .operation(operation.map(|operation| operation.id));
    change.commit(answer).await
}

/// Remove a database
///
/// Its roles and stored credentials go with it, and open sessions are ended. A protected database is not removed: switch
/// its mode first, or release it. Asked again while it is being removed, the answer is the same operation.
#[utoipa::path(
    delete, path = "/v1/namespaces/{namespace}/databases/{name}", operation_id = "deleteDatabase", tag = "databases",
    params(DatabasePath, RemoveQuery),
    responses(
        (status = 202, description = "It is being removed.", body = Operation,
         headers(("Pgtenant-Operation" = String, description = "The operation's id."))),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
        (status = 409, response = Conflict), (status = 412, response = PreconditionFailed),
    ),
)]
pub(crate) async fn remove(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<DatabasePath>,
    Query(RemoveQuery { force }): Query<RemoveQuery>,
    condition: IfMatch,
) -> Result<Response> {
    let may = caller.may_change(&path.namespace)?;
    let force = force.then(|| caller.platform()).transpose()?;
    let mut change = begin_plain(&state, &caller).await?;
    let operation = store::remove(change.db(), &may, &path.name, &condition, force.as_ref()).await?;
    let answer = Answer::new(StatusCode::ACCEPTED, &operation)?.operation(Some(operation.id));
    change.commit(answer).await
}

/// How to remove a database.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveQuery {
    /// Stores that keep a removed credential for a while do not: it is gone for good. For platform tokens.
    #[serde(default)]
    #[param(required = false, default = false)]
    force: bool,
}

/// Which databases of a namespace to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct NamespaceQuery {
    /// Only those in this state.
    state: Option<DatabaseState>,
    /// Entries a page.
    #[serde(default)]
    #[param(value_type = i64, required = false, minimum = 1, maximum = 500, default = 100)]
    limit: Limit,
    /// `nextCursor` of the page before.
    #[param(max_length = 512, pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// List the databases of a namespace
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}/databases", operation_id = "listNamespaceDatabases", tag = "databases",
    description = "By name, a page at a time.", params(NamespacePath, NamespaceQuery),
    responses(
        (status = 200, description = "A page.", body = Page<Database>), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<NamespacePath>,
    Query(query): Query<NamespaceQuery>,
) -> Result<Json<Page<Database>>> {
    let scope = caller.may_read(&path.namespace)?.scope();
    page(&state, &scope, query.state, None, query.cursor.as_deref(), query.limit).await
}

/// Which databases to list; every field that is given narrows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DatabasesQuery {
    /// Only those in this state.
    state: Option<DatabaseState>,
    /// Only those on this cluster.
    #[param(value_type = String, required = false, min_length = 1, max_length = 63,
            pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    cluster: Option<Label>,
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

/// List databases
#[utoipa::path(
    get, path = "/v1/databases", operation_id = "listDatabases", tag = "databases",
    description = "Across all namespaces that the token may read, by namespace and name, a page at a time.",
    params(DatabasesQuery),
    responses(
        (status = 200, description = "A page.", body = Page<Database>), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn list_all(
    caller: Caller,
    State(state): State<ApiState>,
    Query(query): Query<DatabasesQuery>,
) -> Result<Json<Page<Database>>> {
    let DatabasesQuery { state: wanted, cluster, namespace, limit, cursor } = query;
    let scope = caller.scope_of(namespace.as_ref().map(|n| &*n.0))?;
    page(&state, &scope, wanted, cluster.as_ref().map(|c| &*c.0), cursor.as_deref(), limit).await
}

async fn page(
    state: &ApiState,
    scope: &Scope,
    wanted: Option<DatabaseState>,
    cluster: Option<&str>,
    cursor: Option<&str>,
    limit: Limit,
) -> Result<Json<Page<Database>>> {
    let place = decode::<(String, String)>(cursor)?;
    // A cursor that was made up may hold anything.
    if place.iter().any(|(a, b)| check_label("", a).is_err() || check_label("", b).is_err()) {
        return Err(Problem::plain(&INVALID_CURSOR));
    }
    let after = place.as_ref().map(|(namespace, name)| (&**namespace, &**name));
    let mut db = state.ledger().acquire().await?;
    let claims = store::claims(&mut db, scope, Wanted { cluster, state: wanted, after }, limit.rows()).await?;
    let place = |claim: &pgtenant_ledger::Claim| (claim.key.namespace().to_owned(), claim.key.name().to_owned());
    Ok(Json(Page::of(claims, limit, place, |claim| claim.database())))
}
