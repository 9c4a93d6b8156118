//! A control plane that answers what it was told to, and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::Value;

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// The answer goes on for ever, as a stream of events does.
    open: bool,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        let body = serde_json::to_string(body).unwrap();
        Self { status, headers: vec![("content-type", "application/json".into())], body, open: false }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), open: false }
    }

    pub(crate) fn events(body: &str) -> Self {
        Self { status: 200, headers: vec![("content-type", "text/event-stream".into())], body: body.into(), open: true }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// As `GET /v1/databases?limit=500`.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

#[derive(Default)]
struct Script {
    answers: HashMap<String, VecDeque<Answer>>,
    asked: Vec<Asked>,
}

/// A played control plane; it ends with the process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let (sender, receiver) = std::sync::mpsc::channel();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&script));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        Self { address: receiver.recv().unwrap(), script }
    }

    /// From now on `line` (as `GET /v1/databases`, with or without a query) is answered by these, one after the other;
    /// the last one again and again.
    pub(crate) fn on<const N: usize>(&self, line: &str, answers: [Answer; N]) -> &Self {
        self.script.lock().unwrap().answers.insert(line.to_owned(), answers.into());
        self
    }

    /// Everything that was asked, but for events.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let script = self.script.lock().unwrap();
        script.asked.iter().filter(|asked| !asked.line.contains("/v1/events")).cloned().collect()
    }

    /// The streams of events that were opened.
    pub(crate) fn streams(&self) -> Vec<String> {
        let script = self.script.lock().unwrap();
        let lines = script.asked.iter().map(|asked| asked.line.clone());
        lines.filter(|line| line.contains("/v1/events")).collect()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    /// The only request of this method.
    pub(crate) fn only(&self, method: &str) -> Asked {
        let mut found = self.asked();
        found.retain(|asked| asked.line.starts_with(method));
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let line = format!("{} {}", parts.method, parts.uri);
    let path = format!("{} {}", parts.method, parts.uri.path());
    let found = {
        let mut script = script.lock().unwrap();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        script.asked.push(Asked { line: line.clone(), headers: parts.headers, body });
        let key = if script.answers.contains_key(&line) { line } else { path };
        script
            .answers
            .get_mut(&key)
            .map(|queue| if queue.len() > 1 { queue.pop_front().unwrap() } else { queue.front().unwrap().clone() })
    };
    let Some(Answer { status, headers, body, open }) = found else {
        let problem = crate::documents::problem(404, "not-found", "nothing was said of this");
        return Response::builder().status(StatusCode::NOT_FOUND).body(Body::from(problem.to_string())).unwrap();
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let body = if open {
        let first = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(body))]);
        Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
    } else {
        Body::from(body)
    };
    response.body(body).unwrap()
}
