//! Changing, removing, releasing, taking over, rotating.

use axum::http::Method;
use serde_json::{Value, json};

use crate::world::{DATABASES, Reply, World};

async fn patch(world: &World, body: Value, headers: &[(&str, &str)]) -> Reply {
    world.ask_with(&world.tenant, Method::PATCH, &format!("{DATABASES}/a"), Some(body), headers).await
}

#[tokio::test]
async fn a_patch_is_a_merge_patch() {
    let world = World::new().await;
    world.make("a").await;
    let merge = [("content-type", "application/merge-patch+json; charset=utf-8")];
    let reply = patch(&world, json!({"mode": "protected", "schemas": ["x"]}), &merge).await.expect(200);
    assert_eq!(reply.header("etag"), "\"2\"");
    assert_ne!(reply.header("pgtenant-operation"), "");
    let reply = patch(&world, json!({"schemas": null, "connectionLimit": 3}), &[]).await.expect(200);
    assert_eq!((&reply.json["mode"], &reply.json["schemas"]), (&json!("protected"), &json!([])));
    let same = patch(&world, json!({"connectionLimit": 3}), &[]).await.expect(200);
    assert_eq!((same.header("etag"), same.header("pgtenant-operation")), ("\"3\"", ""));
    for (body, field) in [
        (json!({"cluster": "closed"}), "cluster"),
        (json!({"cluster": "a\u{0}"}), "cluster"),
        (json!({"schemas": ["pg_x"]}), "schemas[0]"),
        (json!({"name": "b"}), "name"),
        (json!({"connectionLimit": "3"}), "connectionLimit"),
    ] {
        let reply = patch(&world, body, &[]).await.expect_problem(422, "invalid-fields");
        assert_eq!(reply.json["errors"][0]["field"], field);
    }
    assert_eq!(world.count("select generation from claims").await, 3);
}

#[tokio::test]
async fn a_change_of_what_was_not_read_is_refused() {
    let world = World::new().await;
    world.make("a").await;
    let path = format!("{DATABASES}/a");
    patch(&world, json!({"connectionLimit": 1}), &[("if-match", "\"1\"")]).await.expect(200);
    for stale in ["\"1\"", "W/\"2\"", "\"x\"", "\"1\", \"3\""] {
        let headers = [("if-match", stale)];
        let refused = patch(&world, json!({"connectionLimit": 2}), &headers).await;
        refused.expect_problem(412, "precondition-failed");
        let refused = world.ask_with(&world.tenant, Method::DELETE, &path, None, &headers).await;
        refused.expect_problem(412, "precondition-failed");
        let release = format!("{path}/release");
        let refused = world.ask_with(&world.tenant, Method::POST, &release, None, &headers).await;
        refused.expect_problem(412, "precondition-failed");
    }
    patch(&world, json!({"connectionLimit": 2}), &[("if-match", "2")]).await.expect_problem(400, "invalid-header");
    patch(&world, json!({"connectionLimit": 2}), &[("if-match", "*")]).await.expect(200);
    patch(&world, json!({"connectionLimit": 3}), &[("if-match", "\"2\", \"3\"")]).await.expect(200);
    let missing = format!("{DATABASES}/missing");
    let reply = world.ask_with(&world.tenant, Method::DELETE, &missing, None, &[("if-match", "\"1\"")]).await;
    reply.expect_problem(404, "not-found");
}

#[tokio::test]
async fn a_standard_database_is_removed_and_a_protected_one_is_not() {
    let world = World::new().await;
    world.make("a").await;
    let path = format!("{DATABASES}/a");
    patch(&world, json!({"mode": "protected"}), &[]).await.expect(200);
    world.ask(&world.tenant, Method::DELETE, &path, None).await.expect_problem(409, "protected");
    patch(&world, json!({"mode": "standard"}), &[]).await.expect(200);
    let first = world.ask(&world.tenant, Method::DELETE, &path, None).await.expect(202);
    assert_eq!(
        (&first.json["kind"], first.json["id"].as_str().unwrap()),
        (&json!("delete"), first.header("pgtenant-operation"))
    );
    let second = world.ask(&world.tenant, Method::DELETE, &path, None).await.expect(202);
    assert_eq!(first.json, second.json);
    assert_eq!(world.get(&world.tenant, &path).await.json["state"], "Deleting");
    patch(&world, json!({"mode": "standard"}), &[]).await.expect_problem(409, "being-removed");
    world.post(&world.tenant, DATABASES, json!({"name": "a"})).await.expect_problem(409, "being-removed");
    world.ask(&world.tenant, Method::DELETE, &format!("{DATABASES}/b"), None).await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn a_released_database_is_taken_back() {
    let world = World::new().await;
    world.make("a").await;
    let path = format!("{DATABASES}/a");
    let release = format!("{path}/release");
    let first = world.ask(&world.tenant, Method::POST, &release, None).await.expect(202);
    assert_eq!((&first.json["kind"], &first.json["state"]), (&json!("release"), &json!("Succeeded")));
    let second = world.post(&world.tenant, &release, json!({})).await.expect(202);
    assert_eq!(first.json, second.json);
    assert_eq!(world.get(&world.tenant, &path).await.json["state"], "Retained");
    patch(&world, json!({"mode": "protected"}), &[]).await.expect_problem(409, "retained");
    world.ask(&world.tenant, Method::DELETE, &path, None).await.expect_problem(409, "retained");
    world
        .ask(&world.tenant, Method::POST, &format!("{path}/credentials/rotate"), None)
        .await
        .expect_problem(409, "retained");
    let back = world.post(&world.tenant, DATABASES, json!({"name": "a", "mode": "protected"})).await.expect(200);
    assert_eq!((&back.json["state"], &back.json["mode"]), (&json!("Pending"), &json!("protected")));
    assert_ne!(back.header("pgtenant-operation"), "");

    world.ask(&world.tenant, Method::POST, &release, None).await.expect(202);
    let adopted = world.ask(&world.tenant, Method::POST, &format!("{path}/adopt"), None).await.expect(202);
    assert_eq!(adopted.json["kind"], "adopt");
    assert_eq!(world.get(&world.tenant, &path).await.json["mode"], "protected", "as it was");
}

#[tokio::test]
async fn only_the_platform_takes_over_what_is_nobodys() {
    let world = World::new().await;
    let path = format!("{DATABASES}/old/adopt");
    for query in ["", "?dryRun=true"] {
        let path = format!("{path}{query}");
        world.ask(&world.tenant, Method::POST, &path, None).await.expect_problem(403, "forbidden");
    }
    let plan = world.ask(&world.platform, Method::POST, &format!("{path}?dryRun=true"), None).await.expect(200);
    assert_eq!(plan.json["claims"][0]["database"], "team-old");
    let (request, scope) = world.planner.asked.lock().unwrap().pop().unwrap();
    assert!(request.adopt && !request.complete);
    assert_eq!(scope, Some(vec!["team".to_owned()]));
    assert_eq!(world.count("select count(*) from claims").await, 0);
    let adopted = world.post(&world.platform, &path, json!({"mode": "protected"})).await.expect(202);
    assert_eq!(adopted.json["id"].as_str().unwrap(), adopted.header("pgtenant-operation"));
    assert_eq!(world.get(&world.tenant, &format!("{DATABASES}/old")).await.json["mode"], "protected");
    world.post(&world.platform, &path, json!({"cluster": "a\u{0}"})).await.expect_problem(422, "invalid-fields");
    world
        .ask(&world.platform, Method::POST, &format!("{path}?dryRun=maybe"), None)
        .await
        .expect_problem(400, "invalid-query");
}

#[tokio::test]
async fn passwords_are_replaced_and_never_shown() {
    let world = World::new().await;
    world.make("a").await;
    let path = format!("{DATABASES}/a/credentials");
    let found = world.get(&world.viewer, &path).await.expect(200);
    assert_eq!(found.json["roles"]["read"]["login"], "team-a-read");
    let rotate = format!("{path}/rotate");
    let reply = world.post(&world.tenant, &rotate, json!({"tiers": ["read"]})).await.expect(202);
    assert_eq!(reply.json["kind"], "rotate");
    assert_eq!(world.count("select cardinality(rotate)::bigint from claims").await, 1);
    world.ask(&world.tenant, Method::POST, &rotate, None).await.expect(202);
    assert_eq!(world.count("select cardinality(rotate)::bigint from claims").await, 3);
    for body in
        [json!({"tiers": []}), json!({"tiers": ["root"]}), json!({"tiers": "read"}), json!({}), json!([1]), json!(null)]
    {
        world.post(&world.tenant, &rotate, body).await.expect_problem(422, "invalid-fields");
    }
    world
        .post(&world.tenant, &format!("{DATABASES}/b/credentials/rotate"), json!({"tiers": ["read"]}))
        .await
        .expect_problem(404, "not-found");
}

#[tokio::test]
async fn another_doors_database_is_read_and_not_changed() {
    let world = World::new().await;
    world.make("a").await;
    world.execute("update claims set source = 'apps'").await;
    let path = format!("{DATABASES}/a");
    assert_eq!(world.get(&world.tenant, &path).await.expect(200).json["source"], "apps");
    patch(&world, json!({"connectionLimit": 1}), &[]).await.expect_problem(409, "other-door");
    world.ask(&world.tenant, Method::DELETE, &path, None).await.expect_problem(409, "other-door");
    world.post(&world.tenant, DATABASES, json!({"name": "a"})).await.expect_problem(409, "other-door");
    world.ask(&world.tenant, Method::POST, &format!("{path}/release"), None).await.expect(202);
    world.post(&world.tenant, DATABASES, json!({"name": "a"})).await.expect(200);
}
