//! What a request is answered that can not be fulfilled: RFC 9457 problems with stable types.
//!
//! A [`Problem`] travels as an extension of its response; [`crate::observe`] adds the request's id and writes the body,
//! and logs the source, once.

use std::error::Error;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pgtenant_ledger::{LedgerError, Refused};
use pgtenant_model::InvalidField;
use serde::Serialize;

use crate::PlanError;

/// Begins every `type`.
pub const PROBLEM_BASE: &str = "https://pgtenant.io/problems/";

/// A kind of problem. Its slug and status do not change between versions.
#[derive(Debug, PartialEq, Eq)]
pub struct ProblemType {
    /// Ends the `type`.
    pub slug: &'static str,
    /// HTTP status.
    pub status: u16,
    /// `title`: the same for every occurrence.
    pub title: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

macro_rules! problem_types {
    ($($name:ident = $status:literal $slug:literal $title:literal $advice:literal;)*) => {
        $(pub(crate) static $name: ProblemType =
            ProblemType { slug: $slug, status: $status, title: $title, advice: $advice };)*
        /// Every kind of problem that the door answers, by status.
        pub static PROBLEMS: &[&ProblemType] = &[$(&$name),*];
    };
}

problem_types! {
    MALFORMED_JSON = 400 "malformed-json" "The body is not JSON"
        "Mend the body at the line and column that `detail` names.";
    INVALID_QUERY = 400 "invalid-query" "A query parameter can not be used"
        "See `errors` or `detail`; parameters that the operation does not know are refused as well.";
    INVALID_CURSOR = 400 "invalid-cursor" "The cursor can not be used"
        "Pass `nextCursor` of the page before unchanged, or leave `cursor` out to begin again.";
    INVALID_HEADER = 400 "invalid-header" "A header can not be used"
        "See `detail` for the header and what it may hold.";
    BAD_REQUEST = 400 "bad-request" "The request can not be understood"
        "See `detail`.";
    UNAUTHENTICATED = 401 "unauthenticated" "A valid token is needed"
        "Send `Authorization: Bearer <token>` with a token that has not expired and was not revoked.";
    INVALID_SIGNATURE = 401 "invalid-signature" "The request is not signed by Slack"
        "Set the app's signing secret, and look at the clocks; a request counts once.";
    FORBIDDEN = 403 "forbidden" "The token may not do this"
        "Use a token whose role allows it, or ask the platform team.";
    NOT_FOUND = 404 "not-found" "There is no such thing"
        "Check the names; what lies in namespaces that the token has no access to is not there for it.";
    NO_SUCH_ROUTE = 404 "no-such-route" "There is no such path"
        "See `/docs` for the paths.";
    METHOD_NOT_ALLOWED = 405 "method-not-allowed" "The path does not know this method"
        "Use one of the methods in the `Allow` header.";
    REQUEST_TIMEOUT = 408 "request-timeout" "The request took too long to arrive"
        "Send it again, over a faster connection or with a smaller body.";
    DATABASE_EXISTS = 409 "database-exists" "The database exists with another spec"
        "Change it with PATCH, or choose another name.";
    NAME_TAKEN = 409 "name-taken" "Another claim owns the database's name"
        "Choose another name: `{namespace}-{name}` has one owner on each cluster.";
    OTHER_DOOR = 409 "other-door" "The database is managed through another door"
        "Change it there, or release it there first.";
    BEING_REMOVED = 409 "being-removed" "The database is being removed"
        "Try again when it is gone.";
    RETAINED = 409 "retained" "The database is kept without being managed"
        "Define it again or adopt it first.";
    PROTECTED = 409 "protected" "The database is protected"
        "Switch its mode to `standard` first, or release it to keep the database.";
    SWITCHED_BY_HAND = 409 "switched-by-hand" "Nobody can be asked to switch this cluster over"
        "Do what `detail` says.";
    SWITCHOVER_UNDER_WAY = 409 "switchover-under-way" "Another switchover is under way"
        "Wait for its end: `GET /v1/clusters/{cluster}/switchover`.";
    MOVE_OPEN = 409 "move-open" "The database is being moved to another cluster"
        "Wait for its end, or cancel it: `GET /v1/namespaces/{namespace}/databases/{name}/move`.";
    MOVE_NOT_WAITING = 409 "move-not-waiting" "It is too early or too late for that"
        "Read the move again: only one in phase `Waiting` is confirmed.";
    NOT_REFUSED = 409 "not-refused" "There is nothing like that to accept"
        "Read `refused` of the cluster's topology again.";
    QUOTA_EXCEEDED = 409 "quota-exceeded" "The namespace has as many databases as it may have"
        "Remove one that is not needed, or ask the platform team for a higher limit.";
    RESTORE_OPEN = 409 "restore-open" "A restore of the database is under way"
        "Wait for its end, or cancel it.";
    RESTORE_OVER = 409 "restore-over" "It is too late for that"
        "Read the restore again: its phase says what can still be done.";
    NOTHING_ASIDE = 409 "nothing-aside" "There is nothing to go back to"
        "Ask for a restore from a snapshot; `before` of a restore says what it can be undone to, and until when.";
    TOO_MANY_RESTORES = 409 "too-many-restores" "The namespace has as many restores as it may have"
        "Try again when one of them is over.";
    PRECONDITION_FAILED = 412 "precondition-failed" "It has changed since it was read"
        "Read it again and repeat the change with the new `ETag` in `If-Match`.";
    BODY_TOO_LARGE = 413 "body-too-large" "The body is too large"
        "Send less; `detail` has the limit.";
    UNSUPPORTED_MEDIA_TYPE = 415 "unsupported-media-type" "The body has a media type that is not understood"
        "Send JSON with a fitting `Content-Type`.";
    INVALID_FIELDS = 422 "invalid-fields" "A field can not be used"
        "See `errors`: each entry names a field and what is allowed.";
    IDEMPOTENCY_KEY_REUSED = 422 "idempotency-key-reused" "The Idempotency-Key belongs to another request"
        "Use a new key for each new request; a repetition must be the same to the byte.";
    TOO_MANY_REQUESTS = 429 "too-many-requests" "Too many requests"
        "Wait for the seconds in `Retry-After`.";
    INTERNAL = 500 "internal" "Something went wrong"
        "Tell the platform team the `requestId`; the log has the cause.";
    LEDGER_UNAVAILABLE = 503 "ledger-unavailable" "The control plane's own database does not answer"
        "Repeat the request after the seconds in `Retry-After`; nothing was changed.";
    CLUSTER_UNREACHABLE = 503 "cluster-unreachable" "A cluster does not answer"
        "Repeat the request later; the cluster's page and events say when it is back.";
    OVERLOADED = 503 "overloaded" "Too many requests are being answered"
        "Repeat the request after the seconds in `Retry-After`.";
    NOT_READY = 503 "not-ready" "A part of the control plane is down"
        "See `errors` for the part.";
    TIMEOUT = 504 "timeout" "The answer took too long"
        "Repeat the request; with an `Idempotency-Key` it is safe to do so.";
}

impl ProblemType {
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The full `type`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{PROBLEM_BASE}{}", self.slug)
    }
}

/// The body of a problem, as in RFC 9457.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// What kind of problem it is; stable, for machines.
    #[serde(rename = "type")]
    #[schema(format = "uri", example = "https://pgtenant.io/problems/not-found")]
    pub(crate) kind: String,
    /// The same for every problem of this type.
    #[schema(example = "There is no such thing")]
    pub(crate) title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 404)]
    pub(crate) status: u16,
    /// What is wrong this time, and what to do.
    #[schema(example = "there is no database idp-dev/my-db")]
    pub(crate) detail: String,
    /// The path that was asked.
    #[schema(example = "/v1/namespaces/idp-dev/databases/my-db")]
    pub(crate) instance: String,
    /// Finds the request in log and audit; also in the header `X-Request-Id`.
    #[schema(example = "01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11")]
    pub(crate) request_id: String,
    /// Fields that can not be used, or parts that do not work.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) errors: Vec<InvalidField>,
}

/// An answer to a request that can not be fulfilled.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) kind: &'static ProblemType,
    pub(crate) detail: String,
    pub(crate) errors: Vec<InvalidField>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// For the log; never shown.
    pub(crate) source: Option<Arc<dyn Error + Send + Sync>>,
}

pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    pub(crate) fn new(kind: &'static ProblemType, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), headers: Vec::new(), source: None }
    }

    /// One whose detail is what to do.
    pub(crate) fn plain(kind: &'static ProblemType) -> Self {
        Self::new(kind, kind.advice)
    }

    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(&NOT_FOUND, format!("there is no {what}"))
    }

    pub(crate) fn invalid(errors: Vec<InvalidField>) -> Self {
        Self::fields(&INVALID_FIELDS, errors)
    }

    pub(crate) fn fields(kind: &'static ProblemType, errors: Vec<InvalidField>) -> Self {
        let detail = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Self { errors, ..Self::new(kind, detail) }
    }

    pub(crate) fn internal(source: impl Error + Send + Sync + 'static) -> Self {
        Self::plain(&INTERNAL).caused_by(source)
    }

    pub(crate) fn caused_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }

    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The body, for this request.
    pub(crate) fn body(&self, instance: &str, request_id: &str) -> ProblemBody {
        ProblemBody {
            kind: self.kind.uri(),
            title: self.kind.title,
            status: self.kind.status,
            detail: self.detail.clone(),
            instance: instance.to_owned(),
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
        }
    }

    /// For an answer with an error status that some library made.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::plain(&UNAUTHENTICATED),
            403 => Self::plain(&FORBIDDEN),
            404 => Self::plain(&NO_SUCH_ROUTE),
            405 => Self::plain(&METHOD_NOT_ALLOWED),
            408 => Self::plain(&REQUEST_TIMEOUT),
            413 => Self::plain(&BODY_TOO_LARGE),
            415 => Self::plain(&UNSUPPORTED_MEDIA_TYPE),
            400..=499 => Self::new(&BAD_REQUEST, status.canonical_reason().unwrap_or("bad request")),
            _ => Self::plain(&INTERNAL),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        for (name, value) in &self.headers {
            response.headers_mut().insert(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        if error.is_outage() {
            return Self::plain(&LEDGER_UNAVAILABLE).retry_after(2).caused_by(error);
        }
        Self::internal(error)
    }
}

/// Without the owner of a taken name: that is told only to those who may see it.
impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let kind = match refused {
            Refused::Ledger(error) => return error.into(),
            Refused::Invalid(fields) => return Self::invalid(fields),
            Refused::NotFound(_) => &NOT_FOUND,
            Refused::Exists(_) => &DATABASE_EXISTS,
            Refused::NameTaken { .. } => &NAME_TAKEN,
            Refused::OtherDoor { .. } => &OTHER_DOOR,
            Refused::Deleting(_) => &BEING_REMOVED,
            Refused::Retained(_) => &RETAINED,
            Refused::Protected(_) => &PROTECTED,
            Refused::Changed { .. } => &PRECONDITION_FAILED,
            Refused::Quota { .. } => &QUOTA_EXCEEDED,
            Refused::NoRestore(_) => &NOT_FOUND,
            Refused::RestoreOpen(_) => &RESTORE_OPEN,
            Refused::RestoreOver { .. } => &RESTORE_OVER,
            Refused::NothingAside(_) => &NOTHING_ASIDE,
            Refused::TooManyRestores { .. } => &TOO_MANY_RESTORES,
            Refused::MoveOpen(_) => &MOVE_OPEN,
            Refused::NoMove(_) => &NOT_FOUND,
            Refused::MoveNotWaiting { .. } => &MOVE_NOT_WAITING,
            Refused::NotYours(_) => &FORBIDDEN,
        };
        Self::new(kind, refused.to_string())
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Invalid(fields) => Self::invalid(fields),
            PlanError::Unreachable { .. } => {
                Self::new(&CLUSTER_UNREACHABLE, error.to_string()).retry_after(5).caused_by(error)
            }
            PlanError::Ledger(error) => error.into(),
            PlanError::Internal(_) => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique_and_statuses_are_errors() {
        let mut slugs: Vec<_> = PROBLEMS.iter().map(|p| p.slug).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), PROBLEMS.len());
        assert!(PROBLEMS.iter().all(|p| (400..600).contains(&p.status) && p.advice.ends_with('.')));
        assert!(PROBLEMS.is_sorted_by_key(|p| p.status));
    }

    #[test]
    fn the_owner_of_a_taken_name_is_not_told() {
        let problem = Problem::from(Refused::NameTaken {
            database: "a-b-c".into(),
            cluster: "default".into(),
            owner: "secret-team/c".into(),
        });
        assert!(!problem.detail.contains("secret-team"), "{}", problem.detail);
    }
}
