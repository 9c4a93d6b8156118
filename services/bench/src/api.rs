//! pgtenant as its users see it: REST, and the stream of events.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use pgtenant_model::{Event, EventKind};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::{BenchError, Result};

/// A claim of this run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Claim {
    /// The `number`th of a section; twenty share a namespace.
    pub(crate) fn of(section: &str, number: usize) -> Self {
        Self { namespace: format!("bench-{section}{:03}", number / 20), name: format!("c{number:05}") }
    }

    pub(crate) fn database(&self) -> String {
        format!("{}-{}", self.namespace, self.name)
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How far a cluster is with its new passwords.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Rotating {
    /// Claims that wait for them.
    pub(crate) left: usize,
    /// Those of them whose last try has failed.
    pub(crate) failing: usize,
}

async fn rotating(path: String, answer: reqwest::Response) -> Result<Rotating> {
    answer.json().await.map_err(|error| BenchError::Http(path, error))
}

/// REST with a token.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    url: String,
    token: SecretString,
}

impl Api {
    pub(crate) fn new(port: u16, token: &SecretString) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(32)
            .tcp_nodelay(true)
            .build()
            .map_err(BenchError::text("make an HTTP client"))?;
        Ok(Self { http, url: format!("http://127.0.0.1:{port}"), token: token.clone() })
    }

    /// Returns when it was answered 201.
    pub(crate) async fn create(&self, claim: &Claim, cluster: &str) -> Result<()> {
        let path = format!("/v1/namespaces/{}/databases", claim.namespace);
        let body = serde_json::json!({"name": claim.name, "mode": "standard", "cluster": cluster});
        self.send(Method::POST, &path, Some(body)).await.map(drop)
    }

    /// Returns when it was answered 202.
    pub(crate) async fn remove(&self, claim: &Claim) -> Result<()> {
        let path = format!("/v1/namespaces/{}/databases/{}", claim.namespace, claim.name);
        self.send(Method::DELETE, &path, None).await.map(drop)
    }

    /// Returns when it was answered 202: the database is kept, and not managed any more.
    pub(crate) async fn release(&self, claim: &Claim) -> Result<()> {
        let path = format!("/v1/namespaces/{}/databases/{}/release", claim.namespace, claim.name);
        self.send(Method::POST, &path, None).await.map(drop)
    }

    /// New passwords for every claim of a cluster, as fast as they can be, or at a pace. Says how many claims wait for them.
    pub(crate) async fn rotate(&self, cluster: &str, per_minute: Option<u32>) -> Result<usize> {
        let path = format!("/v1/clusters/{cluster}/rotate");
        let body = serde_json::json!({"perMinute": per_minute});
        let answer = self.send(Method::POST, &path, Some(body)).await?;
        Ok(rotating(path, answer).await?.left)
    }

    /// How many claims of a cluster wait for new passwords.
    pub(crate) async fn rotation(&self, cluster: &str) -> Result<Rotating> {
        let path = format!("/v1/clusters/{cluster}/rotation");
        let answer = self.send(Method::GET, &path, None).await?;
        rotating(path, answer).await
    }

    /// Begins a dump; its operation.
    pub(crate) async fn dump(&self, claim: &Claim) -> Result<String> {
        let path = format!("/v1/namespaces/{}/databases/{}/snapshots", claim.namespace, claim.name);
        self.word(Method::POST, &path, None, "id").await
    }

    /// The state of an operation.
    pub(crate) async fn operation(&self, id: &str) -> Result<String> {
        self.word(Method::GET, &format!("/v1/operations/{id}"), None, "state").await
    }

    /// Asks for a new database `copy` of the newest dump; the restore's id.
    pub(crate) async fn restore(&self, claim: &Claim, copy: &str) -> Result<String> {
        let path = format!("/v1/namespaces/{}/databases/{}/restores", claim.namespace, claim.name);
        let body = serde_json::json!({"from": {"latest": true}, "strategy": "copy", "copyName": copy});
        self.word(Method::POST, &path, Some(body), "id").await
    }

    /// How far a restore is.
    pub(crate) async fn restore_phase(&self, id: &str) -> Result<String> {
        self.word(Method::GET, &format!("/v1/restores/{id}"), None, "phase").await
    }

    /// A field of the answer that is a word.
    async fn word(&self, method: Method, path: &str, body: Option<serde_json::Value>, field: &str) -> Result<String> {
        let answer = self.send(method, path, body).await?;
        let json: serde_json::Value = answer.json().await.map_err(|error| BenchError::Http(path.to_owned(), error))?;
        Ok(json.get(field).and_then(|value| value.as_str()).unwrap_or_default().to_owned())
    }

    /// Prometheus' text format.
    pub(crate) async fn metrics(&self) -> Result<String> {
        let answer = self.send(Method::GET, "/metrics", None).await?;
        answer.text().await.map_err(|error| BenchError::Http("/metrics".to_owned(), error))
    }

    async fn send(&self, method: Method, path: &str, body: Option<serde_json::Value>) -> Result<reqwest::Response> {
        let what = || format!("{method} {path}");
        loop {
            let request = self.http.request(method.clone(), format!("{}{path}", self.url));
            let request = request.bearer_auth(self.token.expose_secret()).timeout(Duration::from_secs(60));
            let request = match &body {
                Some(body) => request.json(body),
                None => request,
            };
            let answer = request.send().await.map_err(|error| BenchError::Http(what(), error))?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            if status == StatusCode::TOO_MANY_REQUESTS {
                let header = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
                let wait = header.and_then(|text| text.parse().ok()).unwrap_or(1);
                tokio::time::sleep(Duration::from_secs(wait)).await;
                continue;
            }
            let body = answer.text().await.unwrap_or_default();
            return Err(BenchError::Refused { request: what(), status: status.as_u16(), body });
        }
    }
}

type Waiting = HashMap<(Claim, EventKind), oneshot::Sender<Instant>>;

/// The stream of events, open since before the first claim.
pub(crate) struct Events {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Option<Waiting>>,
    /// Messages of `Failed` events.
    failures: Mutex<Vec<String>>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Events {
    pub(crate) async fn open(api: &Api) -> Result<Self> {
        let request = api.http.get(format!("{}/v1/events", api.url)).bearer_auth(api.token.expose_secret());
        let answer = request.send().await.map_err(|error| BenchError::Http("/v1/events".to_owned(), error))?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.text().await.unwrap_or_default();
            return Err(BenchError::Refused { request: "/v1/events".to_owned(), status: status.as_u16(), body });
        }
        let shared = Arc::new(Shared { waiting: Mutex::new(Some(HashMap::new())), ..Shared::default() });
        let reader = tokio::spawn(read(answer, Arc::clone(&shared)));
        Ok(Self { shared, reader })
    }

    /// The moment at which the next such event of the claim arrives. Call it before the request that causes it.
    pub(crate) fn expect(&self, claim: &Claim, kind: EventKind) -> Arrival {
        let (sender, receiver) = oneshot::channel();
        if let Some(waiting) = lock(&self.shared.waiting).as_mut() {
            waiting.insert((claim.clone(), kind), sender);
        }
        Arrival { claim: claim.clone(), receiver, shared: Arc::clone(&self.shared) }
    }

    /// How many tries failed so far.
    pub(crate) fn failures(&self) -> usize {
        lock(&self.shared.failures).len()
    }
}

/// An event that is waited for.
pub(crate) struct Arrival {
    claim: Claim,
    receiver: oneshot::Receiver<Instant>,
    shared: Arc<Shared>,
}

impl Arrival {
    pub(crate) async fn within(self, limit: Duration) -> Result<Instant> {
        let problem = match tokio::time::timeout(limit, self.receiver).await {
            Ok(Ok(at)) => return Ok(at),
            Ok(Err(_)) => "the stream of events ended".to_owned(),
            Err(_) => format!("nothing after {} s", limit.as_secs()),
        };
        let failures = lock(&self.shared.failures);
        let last = failures.last().map(|message| format!("; the last failure was: {message}")).unwrap_or_default();
        Err(BenchError::Claim { claim: self.claim.to_string(), message: problem + &last })
    }
}

/// Ends with the stream; whoever waits then is told so.
async fn read(answer: reqwest::Response, shared: Arc<Shared>) {
    let mut chunks = answer.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        let now = Instant::now();
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            // An event's data is one line, since JSON has no line breaks here.
            let event = line.strip_prefix(b"data:").and_then(|json| serde_json::from_slice::<Event>(json).ok());
            if let Some(event) = event {
                take(&shared, event, now);
            }
        }
    }
    lock(&shared.waiting).take();
}

fn take(shared: &Shared, event: Event, at: Instant) {
    let Event { kind, namespace: Some(namespace), name, message, .. } = event else { return };
    let claim = Claim { namespace, name };
    if kind == EventKind::Failed {
        lock(&shared.failures).push(format!("{claim}: {message}"));
    }
    let waiting = lock(&shared.waiting).as_mut().and_then(|waiting| waiting.remove(&(claim, kind)));
    if let Some(sender) = waiting {
        // Whoever asked may have given up.
        sender.send(at).ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
