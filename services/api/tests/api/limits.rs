//! Limits, and what is logged.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::http::Method;
use pgtenant_api::ApiSettings;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::world::{DATABASES, World};

#[tokio::test]
async fn a_token_that_asks_too_much_is_told_to_wait() {
    let world = World::with(ApiSettings { rate_per_second: 1, rate_burst: 3, ..ApiSettings::default() }).await;
    for _ in 0..3 {
        world.get(&world.tenant, "/v1/whoami").await.expect(200);
    }
    let reply = world.get(&world.tenant, "/v1/whoami").await.expect_problem(429, "too-many-requests");
    assert!(reply.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=2).contains(&seconds)), "{reply:?}");
    world.get(&world.foreign, "/v1/whoami").await.expect(200);
    world.get("", "/healthz").await.expect(200);
}

#[tokio::test]
async fn guessing_tokens_is_slow() {
    let world = World::with(ApiSettings { failures_per_second: 1, failures_burst: 2, ..ApiSettings::default() }).await;
    let wrong = format!("pgt_{}", "0".repeat(64));
    for _ in 0..2 {
        world.get(&wrong, "/v1/whoami").await.expect_problem(401, "unauthenticated");
    }
    world.get(&wrong, "/v1/whoami").await.expect_problem(429, "too-many-requests");
    world.get("", "/v1/whoami").await.expect_problem(401, "unauthenticated");
    world.get(&world.tenant, "/v1/whoami").await.expect(200);
}

#[tokio::test]
async fn requests_beyond_the_limit_are_turned_away() {
    let world = World::with(ApiSettings { max_in_flight: 1, ..ApiSettings::default() }).await;
    let hanging = json!({"claims": [{"namespace": "team", "name": "hangs"}]});
    let mut busy = Box::pin(world.post(&world.tenant, "/v1/plan", hanging));
    let asked = async {
        while world.planner.asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { _ = &mut busy => panic!("it hangs"), () = asked => {} }
    let reply = world.get(&world.tenant, "/v1/whoami").await.expect_problem(503, "overloaded");
    assert_eq!(reply.header("retry-after"), "1");
    world.get("", "/readyz").await.expect(200);
    drop(busy);
    world.get(&world.tenant, "/v1/whoami").await.expect(200);
}

#[tokio::test]
async fn a_token_that_sends_slowly_leaves_places_to_others() {
    let settings = ApiSettings { max_in_flight: 3, max_in_flight_per_token: 2, ..ApiSettings::default() };
    let world = World::with(settings).await;
    let hanging = || world.post(&world.viewer, "/v1/plan", json!({"claims": [{"namespace": "team", "name": "hangs"}]}));
    let mut busy = Box::pin(futures::future::join(hanging(), hanging()));
    let both = async {
        while world.planner.asked.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { _ = &mut busy => panic!("they hang"), () = both => {} }
    world.get(&world.viewer, "/v1/whoami").await.expect_problem(429, "too-many-requests");
    world.get(&world.tenant, "/v1/whoami").await.expect(200);
    drop(busy);
    world.get(&world.viewer, "/v1/whoami").await.expect(200);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn the_log_names_the_claim_and_no_secret() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
    // For the whole process: what other tests log is there as well, under other ids and with other tokens.
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    let world = World::new().await;
    let body = json!({"name": "ci", "role": "viewer", "namespaces": ["team"]});
    let made = world.post(&world.platform, "/v1/tokens", body).await.expect(201);
    let path = format!("{DATABASES}/my-db?secret=hunter2");
    world.ask_with(&world.tenant, Method::GET, &path, None, &[("x-request-id", "find-me")]).await.expect(400);
    world.get(&world.tenant, &format!("{DATABASES}/my-db")).await.expect(404);
    let breaks = json!({"claims": [{"namespace": "team", "name": "breaks"}]});
    let broken = world.post(&world.tenant, "/v1/plan", breaks).await.expect(500);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for wanted in [
        "find-me",
        "\"token\":\"tenant\"",
        "\"claim\":\"my-db\"",
        "\"namespace\":\"team\"",
        "an internal matter",
        "latency_ms",
        "\"path\":\"/v1/namespaces/{namespace}/databases/{name}\"",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
    let id = broken.header("x-request-id");
    let causes = text.lines().filter(|line| line.contains(id) && line.contains("an internal matter"));
    assert_eq!(causes.count(), 1, "logged once");
    for secret in [&world.tenant, &world.platform, "hunter2", made.json["secret"].as_str().unwrap()] {
        assert!(!text.contains(secret), "{secret}");
    }
}
