//! `Idempotency-Key`.

use axum::http::Method;
use serde_json::json;

use crate::world::{DATABASES, Reply, World};

async fn post(world: &World, path: &str, body: serde_json::Value, key: &str) -> Reply {
    let headers = [("idempotency-key", key)];
    world.ask_with(&world.tenant, Method::POST, path, Some(body), &headers).await
}

#[tokio::test]
async fn a_repetition_is_answered_as_before() {
    let world = World::new().await;
    let first = post(&world, DATABASES, json!({"name": "a"}), "k1").await.expect(201);
    assert_eq!(first.header("idempotent-replayed"), "");
    let second = post(&world, DATABASES, json!({"name": "a"}), "k1").await.expect(201);
    assert_eq!(second.header("idempotent-replayed"), "true");
    assert_eq!(first.json, second.json);
    for header in ["location", "etag", "pgtenant-operation"] {
        assert_eq!(first.header(header), second.header(header));
        assert_ne!(first.header(header), "");
    }
    let rotate = format!("{DATABASES}/a/credentials/rotate");
    let one = post(&world, &rotate, json!({"tiers": ["read"]}), "k2").await.expect(202);
    let two = post(&world, &rotate, json!({"tiers": ["read"]}), "k2").await.expect(202);
    assert_eq!(one.json, two.json);
    assert_eq!(world.count("select generation from claims").await, 2, "rotated once");
}

#[tokio::test]
async fn a_key_is_for_one_request() {
    let world = World::new().await;
    post(&world, DATABASES, json!({"name": "a"}), "k").await.expect(201);
    post(&world, DATABASES, json!({"name": "b"}), "k").await.expect_problem(422, "idempotency-key-reused");
    let elsewhere = "/v1/namespaces/team-b/databases";
    post(&world, elsewhere, json!({"name": "a"}), "k").await.expect_problem(422, "idempotency-key-reused");
    let other = [("idempotency-key", "k")];
    let path = "/v1/namespaces/other/databases";
    let reply = world.ask_with(&world.foreign, Method::POST, path, Some(json!({"name": "b"})), &other).await;
    reply.expect(201);
}

#[tokio::test]
async fn what_was_refused_can_be_asked_again() {
    let world = World::new().await;
    world.make("a").await;
    let body = json!({"name": "a", "connectionLimit": 5});
    post(&world, DATABASES, body.clone(), "k").await.expect_problem(409, "database-exists");
    assert_eq!(world.count("select count(*) from idempotency_keys").await, 0);
    let path = format!("{DATABASES}/a");
    world.ask(&world.tenant, Method::PATCH, &path, Some(json!({"connectionLimit": 5}))).await.expect(200);
    post(&world, DATABASES, body, "k").await.expect(200);
}

#[tokio::test]
async fn repetitions_at_the_same_time_have_one_effect() {
    let world = World::new().await;
    world.make("a").await;
    let rotate = format!("{DATABASES}/a/credentials/rotate");
    let all = (0..6).map(|_| post(&world, &rotate, json!({"tiers": ["read"]}), "k"));
    let replies = futures::future::join_all(all).await;
    assert!(replies.iter().all(|reply| reply.status == 202 && reply.json == replies[0].json), "{replies:?}");
    assert_eq!(replies.iter().filter(|reply| reply.header("idempotent-replayed") == "true").count(), 5);
    assert_eq!(world.count("select generation from claims").await, 2);
}

#[tokio::test]
async fn keys_are_checked() {
    let world = World::new().await;
    for key in ["", "a b", &"k".repeat(256), "a\tb"] {
        post(&world, DATABASES, json!({"name": "a"}), key).await.expect_problem(400, "invalid-header");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    let reply = world.ask_with(&world.tenant, Method::POST, DATABASES, Some(json!({"name": "a"})), &twice).await;
    reply.expect_problem(400, "invalid-header");
    post(&world, DATABASES, json!({"name": "a"}), &"k".repeat(255)).await.expect(201);
    let plan = json!({"claims": [{"namespace": "team", "name": "x"}]});
    post(&world, "/v1/plan", plan, "k").await.expect(200);
}

#[tokio::test]
async fn a_tokens_secret_is_not_stored() {
    let world = World::new().await;
    let make = async || {
        let body = Some(json!({"name": "ci", "role": "viewer", "namespaces": ["team"]}));
        let headers = [("idempotency-key", "k")];
        world.ask_with(&world.platform, Method::POST, "/v1/tokens", body, &headers).await.expect(201)
    };
    let first = make().await;
    let secret = first.json["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("pgt_"));
    let second = make().await;
    assert_eq!((&second.json["id"], &second.json["secret"]), (&first.json["id"], &json!(null)));
    assert_eq!(second.header("idempotent-replayed"), "true");
    let stored: String = sqlx::query_scalar(
        "select coalesce(string_agg(response::text, ''), '') || (select string_agg(detail::text, '') from audit)
         from idempotency_keys",
    )
    .fetch_one(&mut *world.ledger.acquire().await.unwrap())
    .await
    .unwrap();
    assert!(stored.contains("viewer") && !stored.contains(&secret), "{stored}");
}
