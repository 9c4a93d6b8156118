//! Tokens: made, listed, revoked, expired.

use std::time::Duration;

use axum::http::Method;
use pgtenant_api::ApiSettings;
use serde_json::json;

use crate::world::{DATABASES, World, eventually};

#[tokio::test]
async fn a_token_works_until_it_is_revoked() {
    let world = World::with(ApiSettings { token_ttl: Duration::from_secs(600), ..ApiSettings::default() }).await;
    let body = json!({"name": "ci", "role": "tenant", "namespaces": ["team"], "expiresInSeconds": 3600});
    let made = world.post(&world.platform, "/v1/tokens", body).await.expect(201);
    let (secret, id) = (made.json["secret"].as_str().unwrap(), made.json["id"].as_str().unwrap());
    assert_eq!(made.json["role"], "tenant");
    world.post(secret, DATABASES, json!({"name": "a"})).await.expect(201);
    let me = world.get(secret, "/v1/whoami").await.expect(200).json;
    assert_eq!((&me["id"], &me["name"], &me["namespaces"]), (&json!(id), &json!("ci"), &json!(["team"])));

    let list = world.get(&world.platform, "/v1/tokens").await.expect(200);
    assert_eq!(list.json["items"].as_array().unwrap().len(), 5);
    assert!(!list.text.contains("pgt_") && !list.text.contains("hash"));

    let path = format!("/v1/tokens/{id}");
    world.ask(secret, Method::DELETE, &path, None).await.expect_problem(403, "forbidden");
    let gone = world.ask(&world.platform, Method::DELETE, &path, None).await.expect(204);
    assert_eq!(gone.text, "");
    world.get(secret, DATABASES).await.expect_problem(401, "unauthenticated");
    world.ask(&world.platform, Method::DELETE, &path, None).await.expect(204);
    for id in ["x", "00000000-0000-0000-0000-000000000000"] {
        let path = format!("/v1/tokens/{id}");
        world.ask(&world.platform, Method::DELETE, &path, None).await.expect_problem(404, "not-found");
    }
    let actions = world.get(&world.platform, "/v1/audit").await.json;
    let actions: Vec<_> = actions["items"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["token.revoke", "database.create", "token.create"]);
}

#[tokio::test]
async fn a_revocation_elsewhere_is_felt_after_a_moment() {
    let world = World::with(ApiSettings { token_ttl: Duration::from_millis(300), ..ApiSettings::default() }).await;
    world.get(&world.tenant, DATABASES).await.expect(200);
    world.execute("update tokens set revoked_at = now() where name = 'tenant'").await;
    eventually("401", async || world.get(&world.tenant, DATABASES).await.status == 401).await;
}

#[tokio::test]
async fn a_token_that_has_expired_is_none() {
    let world = World::with(ApiSettings { token_ttl: Duration::from_secs(600), ..ApiSettings::default() }).await;
    let body = json!({"name": "ci", "role": "viewer", "namespaces": ["team"], "expiresInSeconds": 1});
    let made = world.post(&world.platform, "/v1/tokens", body).await.expect(201);
    let secret = made.json["secret"].as_str().unwrap();
    world.get(secret, DATABASES).await.expect(200);
    eventually("401", async || world.get(secret, DATABASES).await.status == 401).await;
}

#[tokio::test]
async fn a_token_must_make_sense() {
    let world = World::new().await;
    for (body, field) in [
        (json!({"name": "", "role": "platform"}), "name"),
        (json!({"name": "a\u{0}", "role": "platform"}), "name"),
        (json!({"name": "a\nb", "role": "platform"}), "name"),
        (json!({"name": "a".repeat(65), "role": "platform"}), "name"),
        (json!({"name": "a", "role": "root"}), "role"),
        (json!({"name": "a", "role": "platform", "namespaces": ["x"]}), "namespaces"),
        (json!({"name": "a", "role": "tenant"}), "namespaces"),
        (json!({"name": "a", "role": "tenant", "namespaces": ["*"]}), "namespaces[0]"),
        (json!({"name": "a", "role": "tenant", "namespaces": ["x"], "expiresInSeconds": 0}), "expiresInSeconds"),
        (json!({"name": "a", "role": "tenant", "namespaces": ["x"], "expiresInSeconds": i64::MAX}), "expiresInSeconds"),
    ] {
        let reply = world.post(&world.platform, "/v1/tokens", body.clone()).await;
        let reply = reply.expect_problem(422, "invalid-fields");
        assert_eq!(reply.json["errors"][0]["field"], field, "{body}");
    }
    assert_eq!(world.count("select count(*) from tokens").await, 4);
}
