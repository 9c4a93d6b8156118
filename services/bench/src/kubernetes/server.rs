//! The API server as its users see it: objects over REST, and a watch of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Method, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::api::Claim;
use crate::bench::{CLIENTS, PATIENCE, millis};
use crate::error::{BenchError, Result};

const ALL: &str = "/apis/pgtenant.io/v1/postgresqldatabases";
/// What `kubectl apply` writes down of what it has applied.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What the control plane holds an object with, once it has a claim.
pub(super) const FINALIZER: &str = "pgtenant.io/database";

/// REST as the administrator.
#[derive(Clone)]
pub(crate) struct ApiServer {
    http: reqwest::Client,
    url: String,
    token: SecretString,
}

/// How often something was asked for, by verb and resource.
pub(super) type Requests = BTreeMap<String, f64>;

/// What the API server says of an object that was made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) uid: String,
    pub(super) generation: i64,
}

impl ApiServer {
    pub(crate) fn new(server: &pgtenant_lab::Kubernetes) -> Result<Self> {
        let text = read(&server.kubeconfig())?;
        let config: Value = serde_json::from_str(&text).map_err(BenchError::text("read the kubeconfig"))?;
        let token = config["users"][0]["user"]["token"].as_str().unwrap_or_default().to_owned();
        let ca = reqwest::Certificate::from_pem(server.ca_pem().as_bytes());
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .tls_certs_only([ca.map_err(BenchError::text("use the API server's authority"))?])
            .build()
            .map_err(BenchError::text("make an HTTP client"))?;
        Ok(Self { http, url: server.url().to_owned(), token: token.into() })
    }

    /// Namespaces that are there already are left alone.
    pub(crate) async fn make_namespaces<'a>(&self, claims: impl IntoIterator<Item = &'a Claim>) -> Result<()> {
        let names: HashSet<&str> = claims.into_iter().map(|claim| claim.namespace.as_str()).collect();
        let posts = stream::iter(names).map(|name| async move {
            let made = self.post("/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
            match made {
                Err(BenchError::Refused { status: 409, .. }) => Ok(()),
                other => other.map(drop),
            }
        });
        posts.buffer_unordered(CLIENTS).try_collect().await
    }

    /// As `kubectl apply` makes what is not there yet.
    pub(super) async fn apply(&self, claim: &Claim, mode: &str, finalizers: &[&str]) -> Result<Made> {
        let mut object = json!({
            "apiVersion": "pgtenant.io/v1", "kind": "PostgresqlDatabase",
            "metadata": {"name": claim.name, "namespace": claim.namespace, "annotations": {}},
            "spec": {"mode": mode},
        });
        let text = format!("{object}\n");
        object["metadata"]["annotations"][APPLIED] = json!(text);
        if !finalizers.is_empty() {
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        let path = format!("/apis/pgtenant.io/v1/namespaces/{}/postgresqldatabases", claim.namespace);
        let made = self.post(&path, object).await?;
        let uid = made["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        Ok(Made { uid, generation: made["metadata"]["generation"].as_i64().unwrap_or_default() })
    }

    pub(super) async fn delete(&self, claim: &Claim) -> Result<()> {
        let Claim { namespace, name } = claim;
        let path = format!("/apis/pgtenant.io/v1/namespaces/{namespace}/postgresqldatabases/{name}");
        self.send(Method::DELETE, &path, None).await.map(drop)
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        json_of(path, self.send(Method::GET, path, None).await?).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Result<Value> {
        json_of(path, self.send(Method::POST, path, Some(body)).await?).await
    }

    /// What was asked of it so far. Watches are left out: each is counted when it ends.
    pub(super) async fn requests(&self) -> Result<Requests> {
        let answer = self.send(Method::GET, "/metrics", None).await?;
        let text = answer.text().await.map_err(|error| BenchError::Http("/metrics".to_owned(), error))?;
        Ok(requests(&text))
    }

    /// Everything that happens to databases from now on.
    pub(super) async fn watch(&self) -> Result<Watch> {
        let list = self.get(&format!("{ALL}?limit=1")).await?;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let path = format!("{ALL}?watch=1&timeoutSeconds=3600&resourceVersion={version}");
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(self.token.expose_secret());
        let answer = request.send().await.map_err(|error| BenchError::Http(path.clone(), error))?;
        let answer = answered(path, answer).await?;
        let (sender, news) = mpsc::unbounded_channel();
        Ok(Watch { news, reader: tokio::spawn(follow(answer, sender)) })
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Response> {
        let what = || format!("{method} {path}");
        let request = self.http.request(method.clone(), format!("{}{path}", self.url));
        let request = request.bearer_auth(self.token.expose_secret()).timeout(Duration::from_secs(60));
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = request.send().await.map_err(|error| BenchError::Http(what(), error))?;
        answered(what(), answer).await
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(BenchError::io("read", path))
}

async fn answered(request: String, answer: Response) -> Result<Response> {
    let status = answer.status();
    if status.is_success() || status == StatusCode::ACCEPTED {
        return Ok(answer);
    }
    let body = answer.text().await.unwrap_or_default();
    Err(BenchError::Refused { request, status: status.as_u16(), body })
}

async fn json_of(path: &str, answer: Response) -> Result<Value> {
    answer.json().await.map_err(|error| BenchError::Http(path.to_owned(), error))
}

fn requests(text: &str) -> Requests {
    let mut counts = Requests::new();
    for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let Some((labels, count)) = line.rsplit_once(' ') else { continue };
        let label = |name: &str| {
            let start = labels.find(&format!("{name}=\""))? + name.len() + 2;
            labels[start..].split('"').next()
        };
        let (Some(verb), Some(resource)) = (label(",verb").or(label("{verb")), label(",resource")) else { continue };
        if verb == "WATCH" || verb == "CONNECT" {
            continue;
        }
        let part = label("subresource").filter(|part| !part.is_empty()).map(|part| format!("/{part}"));
        let refused = label("code").filter(|code| !code.starts_with('2')).map(|code| format!(" ({code})"));
        let key = format!("{verb} {resource}{}{}", part.unwrap_or_default(), refused.unwrap_or_default());
        *counts.entry(key).or_default() += count.parse::<f64>().unwrap_or_default();
    }
    counts
}

/// What was asked for between the two, for each of `claims`; what is asked for less than once in ten is left out.
pub(super) fn each(before: &Requests, after: &Requests, claims: f64) -> Requests {
    let grown = |(key, now): (&String, &f64)| (key.clone(), (now - before.get(key).unwrap_or(&0.0)) / claims);
    after.iter().map(grown).filter(|(_, count)| *count >= 0.1).collect()
}

/// All of them, between the two.
pub(super) fn all(before: &Requests, after: &Requests) -> f64 {
    after.values().sum::<f64>() - before.values().sum::<f64>()
}

/// What a watch has shown of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Its present generation is true.
    Ready,
    /// It is kept, and not managed any more.
    Released,
    /// There is no such object any more.
    Gone,
}

/// A watch, open since before the first object.
pub(super) struct Watch {
    news: mpsc::UnboundedReceiver<(Claim, Seen, Instant)>,
    reader: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Watch {
    /// When each of these was seen so first.
    pub(super) async fn until(&mut self, seen: Seen, claims: &[Claim]) -> Result<HashMap<Claim, Instant>> {
        let wanted: HashSet<&Claim> = claims.iter().collect();
        let mut found = HashMap::new();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while found.len() < wanted.len() {
            let problem = match tokio::time::timeout_at(deadline, self.news.recv()).await {
                Ok(Some((claim, what, at))) => {
                    if what == seen && wanted.contains(&claim) {
                        found.entry(claim).or_insert(at);
                    }
                    continue;
                }
                Ok(None) => "the watch ended".to_owned(),
                Err(_) => format!("not seen {seen:?} after {} s", PATIENCE.as_secs()),
            };
            let missing = wanted.into_iter().find(|claim| !found.contains_key(*claim));
            let claim = missing.map(ToString::to_string).unwrap_or_default();
            return Err(BenchError::Claim { claim, message: problem });
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    generation: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    observed_generation: Option<i64>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
}

/// Ends with the watch, or with whoever reads it.
async fn follow(answer: Response, news: mpsc::UnboundedSender<(Claim, Seen, Instant)>) {
    let mut chunks = answer.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        let now = Instant::now();
        let from = buffer.len();
        buffer.extend_from_slice(&chunk);
        let Some(end) = buffer[from..].iter().rposition(|byte| *byte == b'\n') else { continue };
        let rest = buffer.split_off(from + end + 1);
        for line in buffer.split(|byte| *byte == b'\n') {
            let Ok(Line { kind, object }) = serde_json::from_slice(line) else { continue };
            let seen = if kind == "DELETED" { Some(Seen::Gone) } else { object.seen() };
            let Object { metadata: Metadata { name, namespace, .. }, .. } = object;
            if let Some(seen) = seen
                && news.send((Claim { namespace, name }, seen, now)).is_err()
            {
                return;
            }
        }
        buffer = rest;
    }
}

impl Object {
    fn seen(&self) -> Option<Seen> {
        let Status { observed_generation, conditions } = &self.status;
        let ready = conditions.iter().find(|one| one.kind == "Ready")?;
        if ready.reason == "Released" {
            return Some(Seen::Released);
        }
        (ready.status == "True" && *observed_generation == Some(self.metadata.generation)).then_some(Seen::Ready)
    }
}

/// Objects that are made at the same time, by as many clients as post claims over REST. In milliseconds, how long each took.
pub(super) async fn apply_all(server: &ApiServer, claims: &[Claim]) -> Result<Vec<(Claim, Instant, f64)>> {
    let posts = stream::iter(claims).map(|claim| async move {
        let at = Instant::now();
        server.apply(claim, "standard", &[]).await?;
        Ok::<_, BenchError>((claim.clone(), at, millis(at, Instant::now())))
    });
    posts.buffer_unordered(CLIENTS).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_verb_and_resource() {
        let text = "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"secrets\",\
                    scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 3\n\
                    apiserver_request_total{code=\"200\",group=\"pgtenant.io\",resource=\"postgresqldatabases\",\
                    scope=\"resource\",subresource=\"status\",verb=\"APPLY\",version=\"v1\"} 2\n\
                    apiserver_request_total{code=\"0\",resource=\"secrets\",subresource=\"\",verb=\"WATCH\"} 7\n";
        let found = requests(text);
        let expected = [("APPLY postgresqldatabases/status", 2.0), ("POST secrets", 3.0)];
        assert_eq!(found, expected.map(|(key, count)| (key.to_owned(), count)).into());
        assert_eq!(each(&Requests::new(), &found, 2.0)["POST secrets"], 1.5);
        assert_eq!(all(&Requests::new(), &found), 5.0);
    }
}
