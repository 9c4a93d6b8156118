//! Bearer tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use pgtenant_ledger::{NewToken, Token, TokenRole};
use pgtenant_model::{InvalidField, check_label};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::ApiState;
use crate::answer::{Answer, Begun, begin, begin_plain};
use crate::caller::Caller;
use crate::document::{Forbidden, NotFound};
use crate::extract::{NoQuery, Path, Post, Query};
use crate::page::Page;
use crate::problem::{Problem, Result};
use crate::store;

const MOST_NAMESPACES: usize = 100;
/// Ten years.
const LONGEST: i64 = 315_360_000;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = TokenRole)]
pub(crate) enum Role {
    /// Everything.
    Platform,
    /// Everything in its namespaces.
    Tenant,
    /// Reads in its namespaces.
    Viewer,
}

impl From<TokenRole> for Role {
    fn from(role: TokenRole) -> Self {
        match role {
            TokenRole::Platform => Self::Platform,
            TokenRole::Tenant => Self::Tenant,
            TokenRole::Viewer => Self::Viewer,
        }
    }
}

/// A token, without the secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Token)]
pub(crate) struct TokenView {
    /// Names the token where it is revoked.
    id: Uuid,
    /// For people; part of `token:{name}` in the audit.
    name: String,
    /// What it may do.
    role: Role,
    /// Where; empty for `platform`.
    namespaces: Vec<String>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it ends; none: never.
    expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    revoked_at: Option<DateTime<Utc>>,
}

impl From<Token> for TokenView {
    fn from(token: Token) -> Self {
        let Token { id, name, role, namespaces, created_at, expires_at, revoked_at } = token;
        Self { id, name, role: role.into(), namespaces, created_at, expires_at, revoked_at }
    }
}

/// A token that was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedToken)]
pub(crate) struct CreatedToken {
    #[serde(flatten)]
    token: TokenView,
    /// The token itself, for `Authorization: Bearer`. It is shown once and not stored: null where the answer is repeated
    /// under an `Idempotency-Key`; revoke the token then and make another.
    #[schema(required = true, pattern = "^pgt_[0-9a-f]{64}$")]
    secret: Option<String>,
}

/// A token to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"name": "ci", "role": "tenant", "namespaces": ["idp-dev"], "expiresInSeconds": 7_776_000}))]
pub(crate) struct NewTokenBody {
    /// For people.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
    name: String,
    /// What it may do.
    role: Role,
    /// Where: none for `platform`, at least one for the others.
    #[serde(default)]
    #[schema(max_items = 100)]
    namespaces: Vec<String>,
    /// Time until it ends; no value: it does not end by itself.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 315_360_000_i64)]
    expires_in_seconds: Option<i64>,
}

impl NewTokenBody {
    fn check(self, now: DateTime<Utc>) -> Result<NewToken> {
        let Self { name, role, namespaces, expires_in_seconds } = self;
        let mut problems = Vec::new();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._@-".contains(&b);
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || name.len() > 64 || !name.bytes().all(plain) {
            let message = "use 1 to 64 of a-z, A-Z, 0-9, `.`, `_`, `@` and `-`, with a letter or digit first";
            problems.push(InvalidField::new("name", message));
        }
        if (role == Role::Platform) != namespaces.is_empty() || namespaces.len() > MOST_NAMESPACES {
            let message = "none for the role platform, 1 to 100 for the others";
            problems.push(InvalidField::new("namespaces", message));
        }
        for (index, namespace) in namespaces.iter().take(MOST_NAMESPACES).enumerate() {
            if let Err(error) = check_label("namespace", namespace) {
                problems.push(InvalidField::new(format!("namespaces[{index}]"), error.to_string()));
            }
        }
        if expires_in_seconds.is_some_and(|seconds| !(1..=LONGEST).contains(&seconds)) {
            problems.push(InvalidField::new("expiresInSeconds", format!("is outside of 1 to {LONGEST}")));
        }
        if !problems.is_empty() {
            return Err(Problem::invalid(problems));
        }
        let role = match role {
            Role::Platform => TokenRole::Platform,
            Role::Tenant => TokenRole::Tenant,
            Role::Viewer => TokenRole::Viewer,
        };
        let expires_at = expires_in_seconds.map(|seconds| now + TimeDelta::seconds(seconds));
        Ok(NewToken { name, role, namespaces, expires_at })
    }
}

/// Make a token
#[utoipa::path(
    post, path = "/v1/tokens", operation_id = "createToken", tag = "tokens", request_body = NewTokenBody,
    description = "The answer has the secret, once. For platform tokens.",
    responses(
        (status = 201, description = "The token.", body = CreatedToken), (status = 403, response = Forbidden),
    ),
)]
pub(crate) async fn create(
    caller: Caller,
    State(state): State<ApiState>,
    _: Query<NoQuery>,
    Post { body, attempt }: Post<NewTokenBody>,
) -> Result<Response> {
    let may = caller.platform()?;
    let new = body.check(Utc::now())?;
    let mut change = match begin(&state, &caller, attempt).await? {
        Begun::Fresh(change) => change,
        Begun::Replay(answer) => return Ok(answer),
    };
    let (token, secret) = store::create_token(change.db(), &may, new).await?;
    let mut created = CreatedToken { token: token.into(), secret: None };
    let stored = Answer::new(StatusCode::CREATED, &created)?.content;
    created.secret = Some(secret.expose_secret().to_owned());
    let answer = Answer::new(StatusCode::CREATED, &created)?;
    change.commit_storing(answer, stored).await
}

/// List tokens
#[utoipa::path(
    get, path = "/v1/tokens", operation_id = "listTokens", tag = "tokens",
    description = "All that were ever made, the newest first, without their secrets. For platform tokens.",
    responses(
        (status = 200, description = "All of them on one page.", body = Page<TokenView>),
        (status = 403, response = Forbidden),
    ),
)]
pub(crate) async fn list(
    caller: Caller,
    State(state): State<ApiState>,
    _: Query<NoQuery>,
) -> Result<Json<Page<TokenView>>> {
    let may = caller.platform()?;
    let mut db = state.ledger().acquire().await?;
    let tokens = store::tokens(&mut db, &may).await?;
    Ok(Json(Page::whole(tokens.into_iter().map(TokenView::from).collect())))
}

/// A token in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct TokenPath {
    /// The token's id.
    #[param(example = "01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11")]
    id: Uuid,
}

/// Revoke a token
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", operation_id = "revokeToken", tag = "tokens", params(TokenPath),
    description = "At once where the request was answered, within two seconds on other replicas. For platform tokens.",
    responses(
        (status = 204, description = "It is revoked."),
        (status = 403, response = Forbidden), (status = 404, response = NotFound),
    ),
)]
pub(crate) async fn revoke(
    caller: Caller,
    State(state): State<ApiState>,
    Path(path): Path<TokenPath>,
    _: Query<NoQuery>,
) -> Result<StatusCode> {
    let may = caller.platform()?;
    let mut change = begin_plain(&state, &caller).await?;
    store::revoke_token(change.db(), &may, path.id).await?;
    change.commit_silently().await?;
    state.tokens.clear();
    Ok(StatusCode::NO_CONTENT)
}

/// Read the token in use
#[utoipa::path(
    get, path = "/v1/whoami", operation_id = "whoAmI", tag = "tokens",
    description = "Whose token this is and what it may do.",
    responses((status = 200, description = "The token, without its secret.", body = TokenView)),
)]
pub(crate) async fn whoami(caller: Caller, _: Query<NoQuery>) -> Json<TokenView> {
    Json(caller.token().clone().into())
}
