//! A stream of server-sent events.

use std::time::Duration;

use serde_json::Value;

use crate::Api;

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    response: reqwest::Response,
    buffer: String,
    ended: bool,
}

impl Stream {
    /// Opens `/v1/events…`; panics where that is refused.
    pub async fn open(api: &Api, path: &str) -> Self {
        let response = api.request("GET", path).timeout(Duration::from_secs(300)).send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "GET {path}");
        let kind = response.headers()["content-type"].to_str().unwrap_or_default().to_owned();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        Self { response, buffer: String::new(), ended: false }
    }

    /// The next event as its JSON, with `sseId` and `sseEvent` as they were on the wire. None: nothing came for so long, or
    /// the stream has ended.
    pub async fn next(&mut self, patience: Duration) -> Option<Value> {
        tokio::time::timeout(patience, self.read()).await.ok().flatten()
    }

    /// Whether the server has ended it.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Waits for an event that is as wished; those before it are passed over.
    pub async fn until(&mut self, what: &str, wish: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Vec::new();
        loop {
            let Some(event) = self.next(Duration::from_secs(30)).await else {
                panic!("no event within 30 s: {what}; came before: {seen:#?}");
            };
            if wish(&event) {
                return event;
            }
            seen.push(event);
        }
    }

    async fn read(&mut self) -> Option<Value> {
        loop {
            if let Some((message, rest)) = self.buffer.split_once("\n\n") {
                let (message, rest) = (message.to_owned(), rest.to_owned());
                self.buffer = rest;
                if let Some(event) = parse(&message) {
                    return Some(event);
                }
                continue;
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.buffer.push_str(&String::from_utf8_lossy(&bytes)),
                Ok(None) | Err(_) => {
                    self.ended = true;
                    return None;
                }
            }
        }
    }
}

fn parse(message: &str) -> Option<Value> {
    let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let mut event: Value = serde_json::from_str(field("data")?).expect("events are JSON");
    event["sseId"] = field("id").into();
    event["sseEvent"] = field("event").into();
    Some(event)
}
