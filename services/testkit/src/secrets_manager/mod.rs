//! AWS Secrets Manager as AWS documents it, where moto differs or can not be told to: names that are scheduled for deletion,
//! versions that are there already, throttling, refusals, answers that are lost, reads that lag behind.
//!
//! It speaks JSON 1.1 over HTTP as the SDK does. What is not used by pgtenant is not played.

mod state;
mod trouble;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use state::Secrets;
use trouble::Orders;

pub use state::{FakeSecret, FakeVersion};
pub use trouble::Trouble;

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// As `CreateSecret`.
    pub operation: String,
    /// The secret that it names.
    pub secret: Option<String>,
}

/// A Secrets Manager of one's own. It ends with the runtime that started it.
#[derive(Debug, Clone)]
pub struct FakeSecretsManager {
    url: String,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    world: Mutex<World>,
    /// Calls that get no answer.
    hung: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct World {
    now: Secrets,
    /// As it was before the last change.
    before: Secrets,
    orders: Orders,
    log: Vec<Call>,
}

/// A refusal: the code and the message.
type Refused = (&'static str, String);

impl FakeSecretsManager {
    /// On any free port of this machine.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| panic!("no port: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no port: {error}"));
        let inner = Arc::new(Inner { world: Mutex::default(), hung: watch::Sender::new(0) });
        let app = Router::new().route("/", post(answer)).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url: format!("http://{address}"), inner }
    }

    /// The endpoint.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.inner.world()
    }

    /// The next `times` calls of this operation meet with it; orders for one operation are worked off in their order.
    pub fn order(&self, operation: &str, trouble: Trouble, times: usize) {
        self.world().orders.add(operation, trouble, times);
    }

    /// Whether all that was ordered has happened.
    pub fn orders_are_done(&self) -> bool {
        self.world().orders.is_empty()
    }

    /// Every call since the last [`FakeSecretsManager::forget_calls`], in their order.
    pub fn calls(&self) -> Vec<Call> {
        self.world().log.clone()
    }

    /// How many of these calls were of this operation.
    pub fn count(&self, operation: &str) -> usize {
        self.world().log.iter().filter(|call| call.operation == operation).count()
    }

    /// Begins the log anew.
    pub fn forget_calls(&self) {
        self.world().log.clear();
    }

    /// Waits until this many calls in all have got no answer, and never will.
    pub async fn hung(&self, calls: usize) {
        let mut hung = self.inner.hung.subscribe();
        // The sender lives as long as this.
        hung.wait_for(|count| *count >= calls).await.map(drop).unwrap_or_default();
    }

    /// The secret of this name as it really is.
    pub fn secret(&self, name: &str) -> Option<FakeSecret> {
        self.world().now.get(name).cloned()
    }

    /// What somebody else does to a secret, which is made where there is none.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut FakeSecret)) {
        let mut world = self.world();
        world.before = world.now.clone();
        change(world.now.entry(name));
    }

    /// Removes all, as moto does when it ends.
    pub fn forget_secrets(&self) {
        self.world().now = Secrets::default();
    }
}

impl Inner {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    fn perform(&mut self, operation: &str, input: &Value) -> Result<Value, Refused> {
        let mut next = self.now.clone();
        let answer = next.perform(operation, input)?;
        if next != self.now {
            self.before = std::mem::replace(&mut self.now, next);
        }
        Ok(answer)
    }
}

async fn answer(Shared(inner): Shared<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix("secretsmanager.").unwrap_or_default();
    let Ok(input) = serde_json::from_slice::<Value>(&body) else {
        return reply(Err(("SerializationException", "not JSON".to_owned())));
    };
    let (result, silent) = {
        let mut world = inner.world();
        let secret = input["SecretId"].as_str().or(input["Name"].as_str()).map(ToOwned::to_owned);
        world.log.push(Call { operation: operation.to_owned(), secret: secret.clone() });
        match world.orders.next(operation) {
            None => (world.perform(operation, &input), false),
            Some(Trouble::Refuse(code, message)) => (Err((code, message)), false),
            Some(Trouble::Throttle) => (Err(("ThrottlingException", "Rate exceeded".to_owned())), false),
            Some(Trouble::Deny) => {
                (Err(("AccessDeniedException", trouble::denied(operation, secret.as_deref()))), false)
            }
            Some(Trouble::Ignore) => (Ok(Value::Null), true),
            Some(Trouble::LoseAnswer) => (world.perform(operation, &input), true),
            Some(Trouble::Stale) => (world.before.clone().perform(operation, &input), false),
        }
    };
    if silent {
        inner.hung.send_modify(|count| *count += 1);
        std::future::pending::<()>().await;
    }
    reply(result)
}

fn reply(result: Result<Value, Refused>) -> Response {
    let (status, body) = match result {
        Ok(body) => (StatusCode::OK, body),
        Err((code, message)) => {
            let status = if code == "InternalServiceError" {
                StatusCode::INTERNAL_SERVER_ERROR
            } else {
                StatusCode::BAD_REQUEST
            };
            (status, json!({"__type": code, "message": message}))
        }
    };
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body.to_string()).into_response()
}
