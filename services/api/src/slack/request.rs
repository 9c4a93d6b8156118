//! A request of Slack: proven to be its own, read whole, and never dealt with twice.

use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Json, http::StatusCode};
use chrono::Utc;
use pgtenant_ledger::{LedgerError, LedgerTransaction, slack_first_sight, slack_savepoint, undo_to_slack_savepoint};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::signature::{NotSlack, Stamp};
use crate::ApiState;
use crate::caller::address;
use crate::observe::RequestId;
use crate::problem::{
    BAD_REQUEST, BODY_TOO_LARGE, INVALID_SIGNATURE, NO_SUCH_ROUTE, OVERLOADED, Problem, REQUEST_TIMEOUT, Result,
};

/// Slack's own are some 10 KiB.
const MOST_BYTES: usize = 100 * 1024;
/// Slack waits for 3 s: <https://docs.slack.dev/interactivity/handling-user-interaction#acknowledgment_response>.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_millis(2500);

/// A request that Slack has signed.
#[derive(Debug)]
pub(super) struct Signed {
    /// The fields of the form.
    fields: Vec<(String, String)>,
    /// To know the request again.
    signature: String,
    /// Slack says that it sends it again.
    retry: bool,
    pub(super) request_id: String,
    /// Among all requests that are answered.
    _place: OwnedSemaphorePermit,
}

impl Signed {
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }
}

/// A request to the door, if it is Slack's. Until that is proven it takes no place of those who have a token.
pub(super) async fn receive(state: &ApiState, request: Request) -> Result<Signed> {
    // As if there were no such path: nobody is told what is set here.
    let slack = state.slack.as_ref().ok_or_else(|| Problem::plain(&NO_SUCH_ROUTE))?;
    let peer = address(&request);
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let (parts, body) = request.into_parts();
    let disbelieved = |why| match state.limits.failure(peer) {
        Ok(()) => refused(why),
        Err(too_many) => too_many,
    };
    let timestamp = header(&parts.headers, "x-slack-request-timestamp");
    let stamp = Stamp::read(timestamp, header(&parts.headers, "x-slack-signature"), Utc::now()).map_err(disbelieved)?;
    let receiving = slack.receiving.try_acquire().map_err(|_| Problem::plain(&OVERLOADED).retry_after(1))?;
    let too_large = |_| Problem::new(&BODY_TOO_LARGE, format!("at most {MOST_BYTES} bytes are allowed"));
    let read =
        tokio::time::timeout(state.settings().body_timeout.min(ANSWER_LIMIT), axum::body::to_bytes(body, MOST_BYTES));
    let body = read.await.map_err(|_| Problem::plain(&REQUEST_TIMEOUT))?.map_err(too_large)?;
    let signature = stamp.prove(&slack.settings.signing_secret, &body).map_err(disbelieved)?;
    drop(receiving);
    Ok(Signed {
        fields: form_urlencoded::parse(&body).into_owned().collect(),
        signature,
        retry: parts.headers.contains_key("x-slack-retry-num"),
        request_id,
        _place: state.limits.in_flight()?,
    })
}

/// Exactly one value; otherwise none that could be right.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let mut values = headers.get_all(name).iter();
    let only = values.next().filter(|_| values.next().is_none());
    only.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn refused(why: NotSlack) -> Problem {
    tracing::warn!(%why, "a request to the paths of Slack was refused");
    Problem::new(&INVALID_SIGNATURE, why.to_string())
}

/// A transaction in which a request is dealt with, to be ended by [`settle`]; none: it was before, and Slack does not know.
///
/// The very same request again is Slack's own retry, which is answered and does nothing; without Slack saying so it is a replay.
pub(super) async fn begin(state: &ApiState, signed: &Signed) -> Result<Option<LedgerTransaction>> {
    let mut tx = state.ledger().begin().await?;
    match (slack_first_sight(&mut tx, &format!("request:{}", signed.signature)).await?, signed.retry) {
        (true, _) => {
            slack_savepoint(&mut tx).await?;
            Ok(Some(tx))
        }
        (false, true) => Ok(None),
        (false, false) => Err(refused(NotSlack::Replayed)),
    }
}

/// Ends what [`begin`] has begun. What was refused is undone, and can not be sent again by somebody else at a better time; what has
/// failed half-way is not taken for done.
pub(super) async fn settle<T>(mut tx: LedgerTransaction, done: Result<T>) -> Result<T> {
    match &done {
        Ok(_) => {}
        Err(problem) if problem.kind.status < 500 => undo_to_slack_savepoint(&mut tx).await?,
        Err(_) => return done,
    }
    tx.commit().await.map_err(LedgerError::from)?;
    done
}

/// Notes a request that changes nothing, as [`begin`]; false: it was here before.
pub(super) async fn note(state: &ApiState, signed: &Signed) -> Result<bool> {
    let Some(tx) = begin(state, signed).await? else { return Ok(false) };
    tx.commit().await.map_err(LedgerError::from)?;
    Ok(true)
}

/// 200 without anything in it.
pub(super) fn silence() -> Response {
    StatusCode::OK.into_response()
}

/// 200 with what Slack is to show.
pub(super) fn shown(answer: Value) -> Response {
    Json(answer).into_response()
}

pub(super) fn malformed(what: &str) -> Problem {
    Problem::new(&BAD_REQUEST, format!("this is no {what} as Slack sends it"))
}
