//! Who asks, and what they may do: authorisation as proof.
//!
//! [`authenticate`] stands before every route under `/v1` and puts a [`Caller`] on the request. A caller, or the [`Rights`] of
//! somebody who came through Slack, is asked for a proof ([`Readable`], [`Changeable`], [`Platform`], [`Scope`]), which only
//! this module can make and which [`crate::store`] asks for wherever it touches the ledger.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use pgtenant_ledger::{Actor, Token, TokenRole};
use pgtenant_model::{ClaimKey, InvalidField, check_label};
use secrecy::SecretString;
use tracing::Span;
use uuid::Uuid;

use crate::ApiState;
use crate::observe::{RequestId, record_claim};
use crate::problem::{FORBIDDEN, INTERNAL, Problem, Result, UNAUTHENTICATED};

/// A request with a valid token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    token: Arc<Token>,
    secret: SecretString,
    rights: Rights,
}

/// What somebody may do, through whichever door they came, and in whose name it is written down.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    role: TokenRole,
    /// None: everywhere.
    namespaces: Option<Vec<String>>,
    actor: Actor,
    /// As `this token`, for people.
    whose: &'static str,
}

/// Proof that the caller may read in this namespace.
#[derive(Debug, Clone)]
pub(crate) struct Readable {
    namespace: String,
}

/// Proof that the caller may change what is in this namespace.
#[derive(Debug, Clone)]
pub(crate) struct Changeable {
    readable: Readable,
    scope: Scope,
    actor: Actor,
}

/// Proof that the caller may do what only the platform team may.
#[derive(Debug, Clone)]
pub(crate) struct Platform {
    actor: Actor,
}

/// The namespaces that a list may show.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    namespaces: Option<Vec<String>>,
}

impl Caller {
    fn new(token: Arc<Token>, secret: SecretString, request_id: String) -> Self {
        let everywhere = token.role == TokenRole::Platform;
        let rights = Rights {
            role: token.role,
            namespaces: (!everywhere).then(|| token.namespaces.clone()),
            actor: Actor { name: format!("token:{}", token.name), request_id: Some(request_id) },
            whose: "this token",
        };
        Self { token, secret, rights }
    }

    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    /// To look the token up again while a stream is open.
    pub(crate) fn secret(&self) -> &SecretString {
        &self.secret
    }

    pub(crate) fn token_id(&self) -> Uuid {
        self.token.id
    }

    /// See [`Rights::is_platform`].
    pub(crate) fn is_platform(&self) -> bool {
        self.rights.is_platform()
    }

    /// See [`Rights::may_read`].
    pub(crate) fn may_read(&self, namespace: &str) -> Result<Readable> {
        self.rights.may_read(namespace)
    }

    /// See [`Rights::may_change`].
    pub(crate) fn may_change(&self, namespace: &str) -> Result<Changeable> {
        self.rights.may_change(namespace)
    }

    /// See [`Rights::platform`].
    pub(crate) fn platform(&self) -> Result<Platform> {
        self.rights.platform()
    }

    /// See [`Rights::scope`].
    pub(crate) fn scope(&self) -> Scope {
        self.rights.scope()
    }

    /// What the caller may read, narrowed to one namespace where that is given.
    ///
    /// # Errors
    /// 404 as [`Caller::may_read`].
    pub(crate) fn scope_of(&self, namespace: Option<&str>) -> Result<Scope> {
        namespace.map_or_else(|| Ok(self.scope()), |namespace| Ok(self.may_read(namespace)?.scope()))
    }
}

impl Rights {
    /// Those of a person in Slack, whose request was proven to come from there and whom the settings know, as `actor`.
    pub(crate) fn of_slack(
        role: TokenRole,
        namespaces: Option<Vec<String>>,
        actor: String,
        request_id: String,
    ) -> Self {
        let actor = Actor { name: actor, request_id: Some(request_id) };
        Self { role, namespaces, actor, whose: "you in this channel" }
    }

    /// Whether it is somebody of the platform team, wherever they ask from.
    pub(crate) fn is_platform(&self) -> bool {
        self.role == TokenRole::Platform
    }

    /// Whether there could be anything that may be changed.
    pub(crate) fn may_change_anything(&self) -> bool {
        self.role != TokenRole::Viewer
    }

    /// # Errors
    /// 404, whether there is such a namespace or not.
    pub(crate) fn may_read(&self, namespace: &str) -> Result<Readable> {
        if !self.scope().contains(Some(namespace)) || check_label("namespace", namespace).is_err() {
            return Err(Problem::not_found(format!("namespace {namespace:?} for {}", self.whose)));
        }
        Ok(Readable { namespace: namespace.to_owned() })
    }

    /// # Errors
    /// 404 as [`Rights::may_read`]; 403 for who may only read.
    pub(crate) fn may_change(&self, namespace: &str) -> Result<Changeable> {
        let readable = self.may_read(namespace)?;
        match self.role {
            TokenRole::Platform | TokenRole::Tenant => {
                Ok(Changeable { readable, scope: self.scope(), actor: self.actor.clone() })
            }
            TokenRole::Viewer => Err(Problem::new(&FORBIDDEN, format!("{} may only read", self.whose))),
        }
    }

    /// # Errors
    /// 403.
    pub(crate) fn platform(&self) -> Result<Platform> {
        if self.is_platform() && self.namespaces.is_none() {
            return Ok(Platform { actor: self.actor.clone() });
        }
        Err(Problem::new(&FORBIDDEN, "this is for tokens of the platform team"))
    }

    /// All that may be read.
    pub(crate) fn scope(&self) -> Scope {
        Scope { namespaces: self.namespaces.clone() }
    }
}

impl Readable {
    /// The list of this namespace alone.
    pub(crate) fn scope(&self) -> Scope {
        Scope { namespaces: Some(vec![self.namespace.clone()]) }
    }

    /// The claim that a path names.
    ///
    /// # Errors
    /// 404 for a name that no claim can have.
    pub(crate) fn key(&self, name: &str) -> Result<ClaimKey> {
        let key = ClaimKey::new(&*self.namespace, name)
            .map_err(|error| Problem::not_found(format!("database {}/{name}: {error}", self.namespace)))?;
        record_claim(key.namespace(), key.name());
        Ok(key)
    }

    /// The claim that a body names.
    ///
    /// # Errors
    /// 422 for a name that no claim can have.
    pub(crate) fn new_key(&self, name: &str) -> Result<ClaimKey> {
        let key = ClaimKey::new(&*self.namespace, name)
            .map_err(|error| Problem::invalid(vec![InvalidField::new("name", error.to_string())]))?;
        record_claim(key.namespace(), key.name());
        Ok(key)
    }
}

impl Changeable {
    pub(crate) fn readable(&self) -> &Readable {
        &self.readable
    }

    /// All that the caller may read.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn actor(&self) -> &Actor {
        &self.actor
    }
}

impl Platform {
    pub(crate) fn actor(&self) -> &Actor {
        &self.actor
    }
}

impl Scope {
    /// None: everything.
    pub(crate) fn namespaces(&self) -> Option<&[String]> {
        self.namespaces.as_deref()
    }

    pub(crate) fn contains(&self, namespace: Option<&str>) -> bool {
        match (&self.namespaces, namespace) {
            (None, _) => true,
            (Some(mine), Some(namespace)) => mine.iter().any(|n| n == namespace),
            (Some(_), None) => false,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        // Absent only where a route was put outside of `authenticate`.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Problem::plain(&INTERNAL))
    }
}

/// Lets only requests with a valid token through, and not too many of each.
pub(crate) async fn authenticate(State(state): State<ApiState>, mut request: Request, next: Next) -> Result<Response> {
    let _place = state.limits.in_flight()?;
    let Some(secret) = bearer(request.headers()) else {
        return Err(unauthenticated("Bearer realm=\"pgtenant\"", "send `Authorization: Bearer <token>`"));
    };
    let found = match secret {
        Some(secret) => state.tokens.find(state.ledger(), &secret).await?.map(|token| (token, secret)),
        None => None,
    };
    let Some((token, secret)) = found else {
        state.limits.failure(address(&request))?;
        let challenge = "Bearer realm=\"pgtenant\", error=\"invalid_token\"";
        return Err(unauthenticated(challenge, "the token is unknown, expired or revoked"));
    };
    Span::current().record("token", &*token.name);
    state.limits.request(token.id)?;
    let _own_place = state.limits.in_flight_of(token.id)?;
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    request.extensions_mut().insert(Caller::new(token, secret, request_id));
    Ok(next.run(request).await)
}

/// None: nobody says who they are. `Some(None)`: what is said can not be a token.
fn bearer(headers: &HeaderMap) -> Option<Option<SecretString>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return Some(None);
    }
    let secret = value.to_str().ok().and_then(|text| {
        let (scheme, secret) = text.split_once(' ')?;
        let digits = secret.trim().strip_prefix("pgt_")?;
        let shaped = digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        (scheme.eq_ignore_ascii_case("bearer") && shaped).then(|| SecretString::from(secret.trim()))
    });
    Some(secret)
}

fn unauthenticated(challenge: &'static str, detail: &str) -> Problem {
    Problem::new(&UNAUTHENTICATED, detail).header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// The peer of the connection: a header such as `X-Forwarded-For` can be made up.
pub(crate) fn address(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip())
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn caller(role: TokenRole, namespaces: &[&str]) -> Caller {
        let token = Token {
            id: Uuid::now_v7(),
            name: "ci".into(),
            role,
            namespaces: namespaces.iter().map(ToString::to_string).collect(),
            created_at: Utc::now(),
            expires_at: None,
            revoked_at: None,
        };
        Caller::new(Arc::new(token), SecretString::from("x"), "r".into())
    }

    fn status<T: std::fmt::Debug>(result: Result<T>) -> u16 {
        result.map_or_else(|problem| problem.kind.status, |_| 200)
    }

    #[test]
    fn each_role_has_its_reach() {
        let platform = caller(TokenRole::Platform, &[]);
        let tenant = caller(TokenRole::Tenant, &["a"]);
        let viewer = caller(TokenRole::Viewer, &["a"]);
        for (caller, read, change, foreign, all) in
            [(&platform, 200, 200, 200, 200), (&tenant, 200, 200, 404, 403), (&viewer, 200, 403, 404, 403)]
        {
            assert_eq!(status(caller.may_read("a")), read);
            assert_eq!(status(caller.may_change("a")), change);
            assert_eq!(status(caller.may_read("b")), foreign);
            assert_eq!(status(caller.may_change("b")), foreign);
            assert_eq!(status(caller.platform()), all);
            assert_eq!(status(caller.may_read("A\0")), 404);
        }
        assert!(platform.scope().contains(None));
        assert!(!tenant.scope().contains(None) && !tenant.scope().contains(Some("b")));
    }

    #[test]
    fn a_person_of_the_platform_team_has_no_more_reach_in_a_tenants_channel() {
        let rights = |namespaces: Option<&[&str]>| {
            let namespaces = namespaces.map(|all| all.iter().map(ToString::to_string).collect());
            Rights::of_slack(TokenRole::Platform, namespaces, "slack:U0ALICE".into(), "r".into())
        };
        let within = rights(Some(&["a"]));
        assert!(within.is_platform() && within.may_change("a").is_ok());
        assert_eq!((status(within.may_read("b")), status(within.platform())), (404, 403));
        assert_eq!(within.may_change("a").unwrap().actor().name, "slack:U0ALICE");
        assert!(rights(None).may_change("b").is_ok());
        assert_eq!(status(rights(Some(&[])).may_read("a")), 404);
    }

    #[test]
    fn only_one_well_formed_token_is_looked_up() {
        let header = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(|secret| secret.is_some())
        };
        let good = format!("bearer pgt_{}", "0".repeat(64));
        assert_eq!(header(&[]), None);
        assert_eq!(header(&[&good]), Some(true));
        for bad in ["Bearer", "Bearer x", "Basic pgt_0", "Bearer pgt_' or 1=1", "pgt_"] {
            assert_eq!(header(&[bad]), Some(false), "{bad}");
        }
        assert_eq!(header(&[&good, &good]), Some(false));
    }
}
