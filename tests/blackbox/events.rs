//! The stream of events.

use std::time::Duration;

use pgtenant_tests::{Stream, unique};
use serde_json::{Value, json};

use crate::shared;

fn is(event: &Value, kind: &str, namespace: &str, name: &str) -> bool {
    event["type"] == kind && event["namespace"] == namespace && event["name"] == name
}

#[tokio::test]
async fn the_life_of_a_claim_is_told_as_it_happens_and_again_from_any_point() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("told"));
    let mut stream = Stream::open(&api, &format!("/v1/events?namespace={namespace}")).await;
    api.create(&namespace, "db").await;
    let created = stream.until("Created", |event| is(event, "Created", &namespace, "db")).await;
    let ready = stream.until("Ready", |event| is(event, "Ready", &namespace, "db")).await;
    for event in [&created, &ready] {
        assert_eq!(event["sseId"], event["id"].to_string(), "{event}");
        assert_eq!(event["sseEvent"], event["type"], "{event}");
        assert!(event["at"].is_string() && event["message"].is_string() && event["detail"].is_object(), "{event}");
    }
    assert!(ready["id"].as_i64() > created["id"].as_i64());
    let path = format!("/v1/namespaces/{namespace}/databases/db");
    api.patch(&path, json!({"connectionLimit": 3})).await.expect(200);
    stream.until("Updated", |event| is(event, "Updated", &namespace, "db")).await;
    stream.until("Ready again", |event| is(event, "Ready", &namespace, "db")).await;
    api.ask(&format!("{path}/credentials/rotate")).await.expect(202);
    for _tier in 0..3 {
        stream.until("CredentialRotated", |event| is(event, "CredentialRotated", &namespace, "db")).await;
    }
    api.is_ready(&namespace, "db").await;
    api.delete(&path).await.expect(202);
    stream.until("Deleting", |event| is(event, "Deleting", &namespace, "db")).await;
    stream.until("Deleted", |event| is(event, "Deleted", &namespace, "db")).await;

    // A client that was away goes on where it was.
    let request = api.request("GET", &format!("/v1/events?namespace={namespace}"));
    let answer = request.header("last-event-id", created["id"].to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut replay = Stream::open(&api, &format!("/v1/events?namespace={namespace}&after={}", created["id"])).await;
    let next = replay.next(Duration::from_secs(10)).await.expect("what was missed");
    assert_eq!(next["id"], ready["id"]);
    api.send("GET", "/v1/events", &[("last-event-id", "soon")], None).await.problem(400, "invalid-header");
}

#[tokio::test]
async fn nobody_hears_of_other_tenants() {
    let plane = shared::calm().await;
    let (mine, other) = (unique("mine"), unique("other"));
    let tenant = plane.api_of("tenant", &[&mine]).await;
    let mut stream = Stream::open(&tenant, "/v1/events").await;
    plane.api().ready(&other, "db").await;
    plane.api().create(&mine, "db").await;
    let first = stream.next(Duration::from_secs(20)).await.expect("an event");
    assert!(is(&first, "Created", &mine, "db"), "{first}");
    let mut replay = Stream::open(&tenant, "/v1/events?after=0").await;
    while let Some(event) = replay.next(Duration::from_millis(500)).await {
        assert_eq!(event["namespace"], mine, "{event}");
    }
    tenant.get(&format!("/v1/events?namespace={other}")).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_client_is_told_when_it_has_everything_from_before() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("told"));
    api.ready(&namespace, "db").await;
    let path = format!("/v1/events?namespace={namespace}&after=0");
    let mut answer = api.request("GET", &path).send().await.unwrap();
    let mut text = String::new();
    // The request's own time limit ends it.
    while !text.contains("\n: caught-up\n\n") {
        let chunk = answer.chunk().await.expect("a stream that goes on").expect("a stream that goes on");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let before = text.split(": caught-up").next().unwrap();
    assert!(before.contains("event: Created") && before.contains("event: Ready"), "{text}");
    let mut news = Stream::open(&api, &format!("/v1/events?namespace={namespace}")).await;
    api.delete(&format!("/v1/namespaces/{namespace}/databases/db")).await.expect(202);
    news.until("Deleted", |event| is(event, "Deleted", &namespace, "db")).await;
}
