//! REST as a client sees it.

use std::sync::Once;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::eventually;

/// A client with a token, or without one.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    token: Option<String>,
    client: Client,
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
    /// The body, where it is JSON; null otherwise.
    pub json: Value,
    /// What was asked, for messages.
    asked: String,
}

impl Api {
    /// `base` is as `http://127.0.0.1:8080`. Clients belong to the runtime that makes them.
    pub fn new(base: &str, token: Option<&str>) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider().install_default().ok();
        });
        let client = Client::builder().timeout(Duration::from_secs(40)).no_proxy().build().expect("a client");
        Self { base: base.to_owned(), token: token.map(str::to_owned), client }
    }

    /// With a client that trusts what it has to.
    pub(crate) fn over(client: Client, base: &str, token: Option<&str>) -> Self {
        Self { base: base.to_owned(), token: token.map(str::to_owned), client }
    }

    /// The same control plane with another token.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// `http://HOST:PORT`
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The token, where there is one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A request that is not sent yet.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request; `Err` where no answer came.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.request(method, path);
        let typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if let Some(body) = body {
            request = request.body(body.to_string());
            if !typed {
                request = request.header("content-type", "application/json");
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let json = serde_json::from_str(&text).unwrap_or_default();
        Ok(Answer { status, headers, text, json, asked: format!("{method} {path}") })
    }

    /// Sends a request.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let answer = self.try_send(method, path, headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
    }

    /// GET
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    /// POST with a body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[], Some(&body)).await
    }

    /// POST without a body.
    pub async fn ask(&self, path: &str) -> Answer {
        self.send("POST", path, &[], None).await
    }

    /// PATCH with a merge patch.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send("PATCH", path, &[("content-type", "application/merge-patch+json")], Some(&body)).await
    }

    /// DELETE
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None).await
    }

    /// Asks for a standard database.
    pub async fn create(&self, namespace: &str, name: &str) -> Value {
        self.create_with(namespace, json!({"name": name})).await
    }

    /// Asks for a database; `body` is that of the POST.
    pub async fn create_with(&self, namespace: &str, body: Value) -> Value {
        let path = format!("/v1/namespaces/{namespace}/databases");
        eventually(&format!("{path} takes {body}"), Duration::from_secs(60), || async {
            match self.post(&path, body.clone()).await {
                // As the answer says: nothing was changed, come again.
                busy if busy.status == 503 => Err(busy.text),
                other => Ok(other),
            }
        })
        .await
        .expect(201)
        .json
    }

    /// A Ready standard database.
    pub async fn ready(&self, namespace: &str, name: &str) -> Value {
        self.ready_with(namespace, json!({"name": name})).await
    }

    /// A Ready database; `body` is that of the POST.
    pub async fn ready_with(&self, namespace: &str, body: Value) -> Value {
        let made = self.create_with(namespace, body).await;
        self.is_ready(namespace, made["name"].as_str().expect("a name")).await
    }

    /// Waits until the spec that is there now is made true.
    pub async fn is_ready(&self, namespace: &str, name: &str) -> Value {
        self.comes_to(namespace, name, "Ready at its generation", |db| {
            db["state"] == "Ready" && db["observedGeneration"] == db["generation"]
        })
        .await
    }

    /// Waits until the database is in this state.
    pub async fn is_in(&self, namespace: &str, name: &str, state: &str) -> Value {
        self.comes_to(namespace, name, state, |db| db["state"] == state).await
    }

    /// Waits until the database's JSON is as wished.
    pub async fn comes_to(&self, namespace: &str, name: &str, what: &str, wish: impl Fn(&Value) -> bool) -> Value {
        let path = database(namespace, name);
        eventually(&format!("{namespace}/{name}: {what}"), Duration::from_secs(60), || async {
            let answer = self.get(&path).await;
            if answer.status == 200 && wish(&answer.json) {
                return Ok(answer.json);
            }
            Err(answer.text)
        })
        .await
    }

    /// Waits until nothing of the claim is left in the ledger.
    pub async fn is_gone(&self, namespace: &str, name: &str) {
        let path = database(namespace, name);
        eventually(&format!("{namespace}/{name} is gone"), Duration::from_secs(60), || async {
            let answer = self.get(&path).await;
            if answer.status == 404 { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }

    /// Waits for an operation's end and returns it.
    pub async fn finished(&self, id: &str) -> Value {
        eventually(&format!("operation {id} ends"), Duration::from_secs(60), || async {
            let operation = self.get(&format!("/v1/operations/{id}")).await.expect(200).json;
            if operation["finishedAt"].is_null() { Err(operation.to_string()) } else { Ok(operation) }
        })
        .await
    }

    /// All entries of a list, page by page.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{cursor}")).await.expect(200).json;
            all.extend(page["items"].as_array().expect("items").iter().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("{sign}cursor={next}"),
                None => return all,
            }
        }
    }
}

impl Answer {
    /// Panics unless it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert!(self.status == status, "{} was answered {}, not {status}: {}", self.asked, self.status, self.text);
        self
    }

    /// A header's text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Panics unless it is an RFC 9457 problem of this kind; returns its detail.
    #[track_caller]
    pub fn problem(self, status: u16, slug: &str) -> String {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{}", answer.text);
        assert_eq!(answer.json["type"], format!("https://pgtenant.io/problems/{slug}"), "{}", answer.text);
        assert_eq!(answer.json["status"], status, "{}", answer.text);
        for key in ["title", "detail", "instance", "requestId"] {
            assert!(answer.json[key].as_str().is_some_and(|text| !text.is_empty()), "no {key}: {}", answer.text);
        }
        assert_eq!(answer.json["requestId"], answer.header("x-request-id"));
        answer.json["detail"].as_str().unwrap_or_default().to_owned()
    }
}

fn database(namespace: &str, name: &str) -> String {
    format!("/v1/namespaces/{namespace}/databases/{name}")
}
