//! What is taken from a request, and the problems of what can not be taken.

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use pgtenant_model::{InvalidField, check_label};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::ApiState;
use crate::problem::{
    BODY_TOO_LARGE, INVALID_FIELDS, INVALID_HEADER, INVALID_QUERY, MALFORMED_JSON, NOT_FOUND, Problem, REQUEST_TIMEOUT,
    Result, UNSUPPORTED_MEDIA_TYPE,
};

/// The parts of a path; one that does not fit names nothing.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value)).map_err(|rejection| match rejection {
            PathRejection::FailedToDeserializePathParams(error) => Problem::new(&NOT_FOUND, error.body_text()),
            other => Problem::internal(other),
        })
    }
}

/// The parameters after `?`.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|axum::extract::Query(value)| Self(value)).map_err(
            |rejection: QueryRejection| {
                let text = rejection.body_text();
                Problem::new(&INVALID_QUERY, text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text))
            },
        )
    }
}

/// No parameters: any is refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoQuery {}

/// A DNS label as a query parameter.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Label(pub(crate) String);

impl TryFrom<String> for Label {
    type Error = String;

    fn try_from(value: String) -> Result<Self, Self::Error> {
        match check_label("value", &value) {
            Ok(()) => Ok(Self(value)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The request that a POST is, for `Idempotency-Key`.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// The key, where there is one.
    pub(crate) key: Option<String>,
    /// Of method, path, query and body.
    pub(crate) digest: Vec<u8>,
}

/// A POST with a JSON body.
pub(crate) struct Post<T> {
    pub(crate) body: T,
    pub(crate) attempt: Attempt,
}

/// A POST whose body may be left out.
pub(crate) struct PostOptional<T> {
    pub(crate) body: Option<T>,
    pub(crate) attempt: Attempt,
}

impl<T: DeserializeOwned> FromRequest<ApiState> for Post<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self> {
        let (attempt, headers, bytes) = attempt(request, state).await?;
        check_media_type(&headers, &["application/json"])?;
        Ok(Self { body: parse(&bytes)?, attempt })
    }
}

impl<T: DeserializeOwned> FromRequest<ApiState> for PostOptional<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self> {
        let (attempt, headers, bytes) = attempt(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self { body: None, attempt });
        }
        check_media_type(&headers, &["application/json"])?;
        Ok(Self { body: Some(parse(&bytes)?), attempt })
    }
}

async fn attempt(request: Request, state: &ApiState) -> Result<(Attempt, HeaderMap, Bytes)> {
    let (parts, bytes) = read(request, state).await?;
    let digest = Sha256::new()
        .chain_update(parts.method.as_str())
        .chain_update(" ")
        .chain_update(parts.uri.to_string())
        .chain_update("\n")
        .chain_update(&bytes)
        .finalize()
        .to_vec();
    let key = idempotency_key(&parts.headers)?;
    Ok((Attempt { key, digest }, parts.headers, bytes))
}

/// The body of a PATCH.
pub(crate) struct MergePatch<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<ApiState> for MergePatch<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self> {
        check_media_type(request.headers(), &["application/merge-patch+json", "application/json"])?;
        let (_, bytes) = read(request, state).await?;
        parse(&bytes).map(Self)
    }
}

/// `If-Match`: the generations that the caller is content with; none: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IfMatch(pub(crate) Option<Vec<i64>>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        let mut tags = Vec::new();
        for value in parts.headers.get_all(header::IF_MATCH) {
            let fault = || Problem::new(&INVALID_HEADER, "If-Match: send the ETag as it was answered, or `*`");
            let text = value.to_str().map_err(|_| fault())?.trim();
            if text == "*" {
                return Ok(Self(None));
            }
            for tag in text.split(',').map(str::trim) {
                let weak = tag.strip_prefix("W/");
                let inner = weak.unwrap_or(tag).strip_prefix('"').and_then(|t| t.strip_suffix('"'));
                let inner = inner.filter(|t| !t.contains('"')).ok_or_else(fault)?;
                // A weak tag never matches, nor does one that is no generation; -1 is no claim's generation.
                let generation = inner.parse().ok().filter(|n: &i64| n.to_string() == inner);
                tags.push(generation.filter(|_| weak.is_none()).unwrap_or(-1));
            }
        }
        Ok(Self(if tags.is_empty() { None } else { Some(tags) }))
    }
}

async fn read(request: Request, state: &ApiState) -> Result<(Parts, Bytes)> {
    let settings = state.settings();
    let limit = settings.body_limit;
    let too_large = || Problem::new(&BODY_TOO_LARGE, format!("at most {limit} bytes are allowed"));
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(settings.body_timeout, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok((parts, bytes)),
        // Too long, or the connection is gone and nobody reads the answer.
        Ok(Err(_)) => Err(too_large()),
        Err(_elapsed) => Err(Problem::plain(&REQUEST_TIMEOUT)),
    }
}

fn check_media_type(headers: &HeaderMap, allowed: &[&str]) -> Result<()> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let only = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
    let media_type = only.and_then(|text| text.split(';').next()).map(str::trim).unwrap_or_default();
    if allowed.iter().any(|a| a.eq_ignore_ascii_case(media_type)) {
        return Ok(());
    }
    Err(Problem::new(&UNSUPPORTED_MEDIA_TYPE, format!("send `Content-Type: {}`", allowed.join("` or `"))))
}

/// 400 with line and column for what is not JSON, 422 with the field for what does not fit.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => "body".to_owned(),
            path => path,
        };
        fault(error.inner(), &path)
    })?;
    deserializer.end().map_err(|error| fault(&error, "body"))?;
    Ok(value)
}

fn fault(error: &serde_json::Error, path: &str) -> Problem {
    match error.classify() {
        serde_json::error::Category::Data => {
            Problem::fields(&INVALID_FIELDS, vec![InvalidField::new(path, error.to_string())])
        }
        _ => Problem::new(&MALFORMED_JSON, format!("{error} (in {path})")),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| {
        (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) && values.next().is_none()
    });
    let fault = || Problem::new(&INVALID_HEADER, "Idempotency-Key: send one, of 1 to 255 visible ASCII characters");
    key.map(|key| Some(key.to_owned())).ok_or_else(fault)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use pgtenant_model::ClaimPatch;

    use super::*;

    async fn if_match(values: &[&'static str]) -> Result<Option<Vec<i64>>> {
        let mut request = Request::new(axum::body::Body::empty());
        for value in values {
            request.headers_mut().append(header::IF_MATCH, HeaderValue::from_static(value));
        }
        let (mut parts, _) = request.into_parts();
        IfMatch::from_request_parts(&mut parts, &()).await.map(|tags| tags.0)
    }

    #[tokio::test]
    async fn entity_tags_are_read_strictly() {
        assert_eq!(if_match(&[]).await.unwrap(), None);
        assert_eq!(if_match(&["*"]).await.unwrap(), None);
        assert_eq!(if_match(&["\"7\""]).await.unwrap(), Some(vec![7]));
        assert_eq!(if_match(&["\"7\", \"8\"", "\"9\""]).await.unwrap(), Some(vec![7, 8, 9]));
        for never in ["W/\"7\"", "\"07\"", "\"+7\"", "\"\"", "\"x\""] {
            assert_eq!(if_match(&[never]).await.unwrap(), Some(vec![-1]), "{never}");
        }
        for bad in ["7", "\"7", "", "\"7\" \"8\"", "*, \"7\""] {
            assert_eq!(if_match(&[bad]).await.unwrap_err().kind.status, 400, "{bad}");
        }
    }

    #[test]
    fn bad_bodies_name_the_place() {
        let problem = parse::<ClaimPatch>(b"{\"schemas\": [\"a\", 5]}").unwrap_err();
        assert_eq!((problem.kind.status, &*problem.errors[0].field), (422, "schemas[1]"));
        let problem = parse::<ClaimPatch>(b"{\n  \"schemas\": [\"a\",}").unwrap_err();
        assert_eq!(problem.kind.slug, "malformed-json");
        assert!(problem.detail.contains("line 2 column"), "{}", problem.detail);
        let problem = parse::<ClaimPatch>(b"{\"colour\": 1}").unwrap_err();
        assert_eq!((problem.kind.status, &*problem.errors[0].field), (422, "colour"));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body = format!("{{\"schemas\": {deep}}}");
        assert!(parse::<ClaimPatch>(body.as_bytes()).unwrap_err().kind.status < 500);
        assert_eq!(parse::<ClaimPatch>(b"{} {}").unwrap_err().kind.status, 400);
        assert_eq!(parse::<ClaimPatch>(b"{\"mode\":\"standard\",\"mode\":null}").unwrap_err().kind.status, 422);
    }
}
