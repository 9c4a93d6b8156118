//! The HTTP client: one base URL, one token, bounded time and size, retries where they are safe.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, IF_MATCH, RETRY_AFTER};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use uuid::Uuid;

use super::error::Problem;
use super::{HttpError, Reply};
use crate::cli::error::CliError;

/// Far above any page of a list.
const MAX_BODY: usize = 32 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a client is made from.
#[derive(Debug)]
pub(crate) struct ClientOptions {
    /// The base URL, as `http://127.0.0.1:8080`.
    pub(crate) url: String,
    /// The bearer token.
    pub(crate) token: SecretString,
    /// Time for each request.
    pub(crate) timeout: Duration,
}

/// Speaks to one control plane.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    timeout: Duration,
}

/// A request that can be sent more than once.
struct Request<'a> {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<(&'a str, Vec<u8>)>,
    /// Whether doing it twice is the same as doing it once.
    repeatable: bool,
}

impl Client {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The URL or the token can not be used.
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, CliError> {
        let base = base_url(&options.url)?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", options.token.expose_secret())).map_err(|_| {
            CliError::failed("the token has characters that no token has")
                .hint("PGTENANT_TOKEN must be the token alone, as pgt_ and 64 hexadecimal digits")
        })?;
        value.set_sensitive(true);
        let http = reqwest::Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]))
            .user_agent(concat!("pgtenant/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT.min(options.timeout))
            // A redirect could lead the token elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| CliError::failed(format!("can not set up HTTP: {error}")))?;
        Ok(Self { http, base, timeout: options.timeout })
    }

    /// The same, with no more than this for each request.
    pub(crate) fn with_timeout_up_to(&self, longest: Duration) -> Self {
        Self { timeout: self.timeout.min(longest), ..self.clone() }
    }

    /// The base URL.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// GET; repeated where the failure may pass.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub(crate) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Reply, HttpError> {
        self.send(Request { repeatable: true, ..self.request(Method::GET, path, query) }).await
    }

    /// POST under an `Idempotency-Key`, which makes repeating it safe.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub(crate) async fn post(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&impl Serialize>,
    ) -> Result<Reply, HttpError> {
        let mut request = self.request(Method::POST, path, query);
        if let Ok(key) = HeaderValue::from_str(&Uuid::now_v7().to_string()) {
            request.headers.insert("idempotency-key", key);
            request.repeatable = true;
        }
        if let Some(body) = body {
            request.body = Some(("application/json", encode(&request.url, body)?));
        }
        self.send(request).await
    }

    /// PATCH with a merge patch of what was read under `etag`.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub(crate) async fn patch(
        &self,
        path: &[&str],
        etag: Option<&str>,
        body: &impl Serialize,
    ) -> Result<Reply, HttpError> {
        let mut request = self.request(Method::PATCH, path, &[]);
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            request.headers.insert(IF_MATCH, etag);
        }
        request.body = Some(("application/merge-patch+json", encode(&request.url, body)?));
        self.send(request).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub(crate) async fn delete(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Reply, HttpError> {
        self.send(self.request(Method::DELETE, path, query)).await
    }

    /// Opens a stream: the answer's head, without a time limit for the rest.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub(super) async fn open(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        headers: HeaderMap,
    ) -> Result<reqwest::Response, HttpError> {
        let url = self.url(path, query);
        let sent = self.http.get(url.clone()).headers(headers).send();
        let response = tokio::time::timeout(self.timeout, sent)
            .await
            .map_err(|_| HttpError::Timeout { url: url.to_string(), after: self.timeout })?
            .map_err(|error| HttpError::from_reqwest(&error, &url, self.timeout))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = read_body(response, &url, self.timeout).await?;
        Err(refusal(&url, status, &body))
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> Request<'static> {
        let url = self.url(path, query);
        Request { method, url, headers: HeaderMap::new(), body: None, repeatable: false }
    }

    async fn send(&self, request: Request<'_>) -> Result<Reply, HttpError> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            let (error, wait) = match self.send_once(&request).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => failed,
            };
            if !request.repeatable || tries >= TRIES || !error.is_transient() {
                return Err(error);
            }
            // Up to half more, so that commands that failed together do not come back together.
            let jitter = f64::from(Uuid::new_v4().as_bytes()[0]) / 512.0;
            tokio::time::sleep(wait.unwrap_or(pause).min(LONGEST_PAUSE).mul_f64(1.0 + jitter)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            tries += 1;
        }
    }

    /// The reply, or the failure and how long the control plane asks to wait.
    async fn send_once(&self, request: &Request<'_>) -> Result<Reply, (HttpError, Option<Duration>)> {
        let url = &request.url;
        let mut builder = self
            .http
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone())
            .timeout(self.timeout);
        if let Some((kind, body)) = &request.body {
            builder = builder.header(CONTENT_TYPE, *kind).body(body.clone());
        }
        let response =
            builder.send().await.map_err(|error| (HttpError::from_reqwest(&error, url, self.timeout), None))?;
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (operation, etag) = (header("pgtenant-operation").and_then(|id| id.parse().ok()), header("etag"));
        let wait = header(RETRY_AFTER.as_str()).and_then(|s| s.parse().ok()).map(Duration::from_secs);
        let body = read_body(response, url, self.timeout).await.map_err(|error| (error, None))?;
        if status.is_success() {
            return Ok(Reply { url: url.to_string(), status: status.as_u16(), operation, etag, body });
        }
        Err((refusal(url, status.as_u16(), &body), wait))
    }
}

fn encode(url: &Url, body: &impl Serialize) -> Result<Vec<u8>, HttpError> {
    serde_json::to_vec(body)
        .map_err(|error| HttpError::Unexpected { url: url.to_string(), cause: format!("not sent: {error}") })
}

async fn read_body(mut response: reqwest::Response, url: &Url, timeout: Duration) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| HttpError::from_reqwest(&error, url, timeout))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(HttpError::TooLarge { url: url.to_string(), limit: MAX_BODY });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn refusal(url: &Url, status: u16, body: &[u8]) -> HttpError {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if !problem.title.is_empty() || !problem.detail.is_empty() => {
            HttpError::Problem(Box::new(Problem { status, ..problem }))
        }
        _ => {
            let text = String::from_utf8_lossy(body);
            let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let text = line.chars().filter(|c| !c.is_control()).take(200).collect();
            HttpError::Status { url: url.to_string(), status, text }
        }
    }
}

fn base_url(text: &str) -> Result<Url, CliError> {
    let fault = |why: &str| {
        CliError::usage(format!("{text:?} is not the URL of a control plane: {why}"))
            .hint("set PGTENANT_URL (or --url) as http://127.0.0.1:8080")
    };
    let url = Url::parse(text).map_err(|error| fault(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(fault("it must begin with http:// or https:// and a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not quoted: there may be a password in it.
        return Err(CliError::usage("the URL of the control plane must have no user and no password in it")
            .hint("a token goes into PGTENANT_TOKEN"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(fault("it must not have a query or a fragment"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        for good in
            ["http://127.0.0.1:8080", "https://pg.example/", "https://pg.example/behind/proxy", "http://[::1]:1"]
        {
            assert!(base_url(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:8080", "ftp://x", "http://u:hunter2@x", "http://x/?a=b", "http://x/#a"] {
            let text = base_url(bad).unwrap_err().render();
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn paths_are_segments() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::new(&ClientOptions {
            url: "https://pg.example/behind/".into(),
            token: SecretString::from("t"),
            timeout: Duration::from_secs(1),
        })
        .unwrap();
        let url = client.url(&["v1", "operations", "a/b?c"], &[("state", "Ready now")]);
        assert_eq!(url.as_str(), "https://pg.example/behind/v1/operations/a%2Fb%3Fc?state=Ready+now");
    }

    #[test]
    fn what_is_no_problem_document_is_quoted_in_part() {
        let url = Url::parse("http://x/").unwrap();
        let error = refusal(&url, 502, b"\n<html>Bad\x1b[31m Gateway</html>\n");
        assert_eq!(error.to_string(), "http://x/ answered 502: <html>Bad[31m Gateway</html>");
        assert!(error.is_transient());
    }
}
