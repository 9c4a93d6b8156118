//! Answers to changes: stored under the `Idempotency-Key` in the transaction of the change.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pgtenant_ledger::{Idempotency, LedgerError, LedgerTransaction, PgConnection, begin_idempotent, finish_idempotent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::ApiState;
use crate::caller::Caller;
use crate::extract::Attempt;
use crate::problem::{IDEMPOTENCY_KEY_REUSED, Problem, Result};

const OPERATION: HeaderName = HeaderName::from_static("pgtenant-operation");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What a change is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content: Content,
}

/// The part of an answer that is stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) body: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<Uuid>,
}

impl Answer {
    pub(crate) fn new(status: StatusCode, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_value(body).map_err(Problem::internal)?;
        Ok(Self { status, content: Content { body, ..Content::default() } })
    }

    pub(crate) fn location(mut self, location: String) -> Self {
        self.content.location = Some(location);
        self
    }

    pub(crate) fn etag(mut self, generation: i64) -> Self {
        self.content.generation = Some(generation);
        self
    }

    pub(crate) fn operation(mut self, id: Option<Uuid>) -> Self {
        self.content.operation = id;
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let Content { body, location, generation, operation } = self.content;
        let mut response = (self.status, Json(body)).into_response();
        let values = [
            (header::LOCATION, location),
            (header::ETAG, generation.map(|n| format!("\"{n}\""))),
            (OPERATION, operation.map(|id| id.to_string())),
        ];
        for (name, value) in values {
            if let Some(value) = value.and_then(|v| HeaderValue::from_str(&v).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// A transaction that ends with an answer. Dropped, it leaves nothing behind, not even the key.
pub(crate) struct Change {
    transaction: LedgerTransaction,
    token: Uuid,
    key: Option<String>,
}

/// A change that may go on, or the answer that was given to it before.
pub(crate) enum Begun {
    Fresh(Change),
    Replay(Response),
}

/// Begins a change that a POST asks for.
pub(crate) async fn begin(state: &ApiState, caller: &Caller, attempt: Attempt) -> Result<Begun> {
    let Attempt { key, digest } = attempt;
    let mut change = Change { transaction: state.ledger().begin().await?, token: caller.token_id(), key };
    let Some(key) = &change.key else { return Ok(Begun::Fresh(change)) };
    match begin_idempotent(&mut change.transaction, change.token, key, &digest).await? {
        Idempotency::Fresh => Ok(Begun::Fresh(change)),
        Idempotency::Mismatch => Err(Problem::plain(&IDEMPOTENCY_KEY_REUSED)),
        Idempotency::Replay { status, response } => {
            let status = StatusCode::from_u16(status).map_err(Problem::internal)?;
            let content = serde_json::from_value(response).map_err(Problem::internal)?;
            let mut response = Answer { status, content }.into_response();
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(Begun::Replay(response))
        }
    }
}

/// Begins a change that is not a POST.
pub(crate) async fn begin_plain(state: &ApiState, caller: &Caller) -> Result<Change> {
    Ok(Change { transaction: state.ledger().begin().await?, token: caller.token_id(), key: None })
}

impl Change {
    pub(crate) fn db(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Makes the change and its answer last, together.
    pub(crate) async fn commit(self, answer: Answer) -> Result<Response> {
        let stored = answer.content.clone();
        self.commit_storing(answer, stored).await
    }

    /// Makes a change last that is not a POST and whose answer has no content.
    pub(crate) async fn commit_silently(self) -> Result<()> {
        Ok(self.transaction.commit().await.map_err(LedgerError::from)?)
    }

    /// As [`Change::commit`]; a repetition is answered `stored`, which leaves out what must not be written down.
    pub(crate) async fn commit_storing(mut self, answer: Answer, stored: Content) -> Result<Response> {
        if let Some(key) = &self.key {
            let stored = serde_json::to_value(stored).map_err(Problem::internal)?;
            finish_idempotent(&mut self.transaction, self.token, key, answer.status.as_u16(), &stored).await?;
        }
        self.transaction.commit().await.map_err(LedgerError::from)?;
        Ok(answer.into_response())
    }
}
