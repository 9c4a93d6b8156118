//! Around every request: its id, its span, its deadline, its metrics, and the body of a problem.

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tracing::{Instrument, Span, debug, error, field, info};
use uuid::Uuid;

use crate::ApiState;
use crate::problem::{INTERNAL, Problem, TIMEOUT};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names the request in the answer, the log and the audit.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// The outermost layer.
pub(crate) async fn observe(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let instance = request.uri().path().to_owned();
    let span = tracing::info_span!(
        "request", %method, path = route, request_id = id,
        token = field::Empty, namespace = field::Empty, claim = field::Empty,
    );
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = answer(&state, request, next).instrument(span.clone()).await;
    if let Some(problem) = problem_of(&mut response) {
        span.in_scope(|| log_source(&problem));
        let with_body = method != Method::HEAD;
        write_body(&mut response, &problem, &instance, &id, with_body);
    }
    add_headers(response.headers_mut(), &route, &id);
    let status = response.status();
    span.in_scope(|| log_end(&route, status, begun.elapsed()));
    measure(&method, route, status, begun.elapsed());
    response
}

/// The answer within the deadline, even if the handler panics.
async fn answer(state: &ApiState, request: Request, next: Next) -> Response {
    let handler = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(state.settings().request_timeout, handler).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let message = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message");
            error!(panic = message, "a handler panicked");
            Problem::plain(&INTERNAL).into_response()
        }
        Err(_elapsed) => Problem::plain(&TIMEOUT).into_response(),
    }
}

/// The caller's id if it is sane, so that nothing odd gets into logs; otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| {
        let sane = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=64).contains(&id.len()) && id.bytes().all(sane)
    });
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn problem_of(response: &mut Response) -> Option<Problem> {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return Some(problem);
    }
    let status = response.status();
    (status.is_client_error() || status.is_server_error()).then(|| Problem::of_status(status))
}

fn write_body(response: &mut Response, problem: &Problem, instance: &str, id: &str, with_body: bool) {
    *response.status_mut() = problem.kind.status();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    *response.body_mut() = match serde_json::to_vec(&problem.body(instance, id)) {
        Ok(json) if with_body => Body::from(json),
        _ => Body::empty(),
    };
}

fn add_headers(headers: &mut HeaderMap, route: &str, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if route.starts_with("/v1/") {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

fn log_source(problem: &Problem) {
    if let Some(source) = &problem.source {
        error!(problem = problem.kind.slug, error = %chain(source.as_ref()), "a request failed");
    } else {
        debug!(problem = problem.kind.slug, detail = problem.detail, "a request was refused");
    }
}

fn log_end(route: &str, status: StatusCode, took: Duration) {
    let (status, latency_ms) = (status.as_u16(), took.as_secs_f64() * 1e3);
    // Probes and scrapes come every few seconds.
    if route.starts_with("/v1/") {
        info!(status, latency_ms, "answered");
    } else {
        debug!(status, latency_ms, "answered");
    }
}

fn measure(method: &Method, path: String, status: StatusCode, took: Duration) {
    // Methods are free text on the wire; labels must be few.
    let method = match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let labels = [("method", method.to_owned()), ("path", path), ("status", status.as_str().to_owned())];
    metrics::counter!("pgtenant_http_requests_total", &labels).increment(1);
    metrics::histogram!("pgtenant_http_request_duration_seconds", &labels).record(took.as_secs_f64());
}

/// Puts the claim on every line that is logged for this request.
pub(crate) fn record_claim(namespace: &str, name: &str) {
    Span::current().record("namespace", namespace).record("claim", name);
}

/// An error and all its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_request_ids_are_replaced() {
        let with = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            request_id(&headers)
        };
        assert_eq!(with(b"ci-42_a"), "ci-42_a");
        for odd in [&b"a b"[..], b"", b"\"", b"a\tb", &[b'a'; 65], "ä".as_bytes()] {
            assert!(with(odd).parse::<Uuid>().is_ok(), "{odd:?}");
        }
    }
}
