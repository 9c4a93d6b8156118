//! Slack as it documents itself: the part of the Web API that pgtenant calls, checks of all that is sent there, and the signed
//! requests that Slack sends when people type, press and fill in.
//!
//! What Slack would refuse is refused as it would, and noted as a fault besides: see [`FakeSlack::faults`].

mod check;
mod people;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use state::World;

pub use people::SlackRequest;
pub use state::{SlackText, SlackView};

const TOKEN: &str = "xoxb-1234-played";
const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// What a call meets with.
#[derive(Debug, Clone)]
pub enum SlackDisturbance {
    /// 429 with `Retry-After` of so many seconds; nothing is done.
    Limit(u64),
    /// `ok: false` with this error; nothing is done.
    Refuse(&'static str),
    /// 500; nothing is done.
    Break,
    /// It is done, and no answer comes.
    LoseAnswer,
    /// It is done, and answered after this time.
    Slow(Duration),
}

/// A call that was made.
#[derive(Debug, Clone)]
pub struct SlackCall {
    /// As `chat.postMessage`.
    pub method: String,
    /// What it was called with.
    pub body: Value,
    /// When.
    pub at: Instant,
}

/// A Slack of one's own. It ends with the runtime that started it.
#[derive(Debug, Clone)]
pub struct FakeSlack {
    url: String,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    world: Mutex<World>,
}

impl Inner {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeSlack {
    /// With these channels, in which the app's bot is.
    pub async fn start(channels: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| panic!("no port: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no port: {error}"));
        let inner = Arc::new(Inner { world: Mutex::new(World::new(channels)) });
        let app = Router::new()
            .route("/api/{method}", post(call))
            .route("/respond/{id}", post(respond))
            .with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url: format!("http://{address}"), inner }
    }

    /// Where the Web API is.
    pub fn api_url(&self) -> String {
        format!("{}/api/", self.url)
    }

    /// Of the bot.
    pub fn token(&self) -> &'static str {
        TOKEN
    }

    /// With which requests are signed.
    pub fn signing_secret(&self) -> &'static str {
        SECRET
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.inner.world()
    }

    /// The next `times` calls of this method meet with it; of `METHOD CHANNEL`, those that concern this channel.
    pub fn disturb(&self, method: &str, disturbance: SlackDisturbance, times: usize) {
        let mut world = self.world();
        let orders = world.orders.entry(method.to_owned()).or_default();
        orders.extend(std::iter::repeat_n(disturbance, times));
    }

    /// Answers with so many messages at most when a channel is read.
    pub fn set_page(&self, page: usize) {
        self.world().page = page;
    }

    /// Somebody else says something in a channel.
    pub fn chatter(&self, channel: &str) {
        self.world().chatter(channel);
    }

    /// Answers nothing but 503 while it is.
    pub fn set_down(&self, down: bool) {
        self.world().down = down;
    }

    /// What Slack would have refused, or warned of; a test looks that there is nothing at its end.
    pub fn faults(&self) -> Vec<String> {
        self.world().faults.clone()
    }

    /// Every call that was understood, in their order.
    pub fn calls(&self) -> Vec<SlackCall> {
        self.world().calls.clone()
    }

    /// How many calls of this method were made.
    pub fn count(&self, method: &str) -> usize {
        self.world().calls.iter().filter(|call| call.method == method).count()
    }

    /// Messages of a channel, those in threads included, in their order.
    pub fn messages(&self, channel: &str) -> Vec<SlackText> {
        self.world().channels.get(channel).cloned().unwrap_or_default()
    }

    /// Windows that were opened, in their order.
    pub fn views(&self) -> Vec<SlackView> {
        self.world().views.values().cloned().collect()
    }

    /// What people were answered alone, after the answer to their request.
    pub fn responses(&self) -> Vec<Value> {
        self.world().responses.clone()
    }

    /// Forgets a message, as somebody may delete it.
    pub fn delete(&self, channel: &str, ts: &str) {
        self.world().channels.entry(channel.to_owned()).or_default().retain(|message| message.ts != ts);
    }
}

/// The channel of a call in JSON.
fn channel(body: &Bytes) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    json["channel"].as_str().unwrap_or_default().to_owned()
}

type Orders = BTreeMap<String, VecDeque<SlackDisturbance>>;

async fn call(
    Shared(inner): Shared<Arc<Inner>>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let disturbance = {
        let mut world = inner.world();
        if world.down {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let of_channel = format!("{method} {}", channel(&body));
        let next = |orders: &mut Orders, key: &str| orders.get_mut(key).and_then(VecDeque::pop_front);
        next(&mut world.orders, &of_channel).or_else(|| next(&mut world.orders, &method))
    };
    match &disturbance {
        Some(SlackDisturbance::Limit(seconds)) => {
            let wait = [(header::RETRY_AFTER, seconds.to_string())];
            let body = json!({"ok": false, "error": "ratelimited"}).to_string();
            return (StatusCode::TOO_MANY_REQUESTS, wait, body).into_response();
        }
        Some(SlackDisturbance::Refuse(error)) => return json_answer(&json!({"ok": false, "error": error})),
        Some(SlackDisturbance::Break) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => {}
    }
    let answer = inner.world().call(&method, &headers, &body);
    match disturbance {
        Some(SlackDisturbance::LoseAnswer) => std::future::pending().await,
        Some(SlackDisturbance::Slow(time)) => {
            tokio::time::sleep(time).await;
            json_answer(&answer)
        }
        _ => json_answer(&answer),
    }
}

async fn respond(
    Shared(inner): Shared<Arc<Inner>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut world = inner.world();
    if world.down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let known = world.response_urls.get_mut(&id).is_some_and(|left| {
        *left = left.saturating_sub(1);
        *left > 0
    });
    if !known || !state::is_json(&headers) {
        world.faults.push(format!("response_url {id}: not known, used too often, or not JSON"));
        return StatusCode::NOT_FOUND.into_response();
    }
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let problems = check::message(&message);
    world.faults.extend(problems.into_iter().map(|problem| format!("response_url: {problem}")));
    world.responses.push(message);
    "ok".into_response()
}

fn json_answer(answer: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], answer.to_string()).into_response()
}
