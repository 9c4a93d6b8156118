//! Who may do what.

use axum::http::Method;
use serde_json::{Value, json};

use crate::world::{DATABASES, World, operations, request};

/// Answers to tokens of other tenants that are theirs alone: these are filtered, not refused.
const FILTERED: &[&str] =
    &["/v1/apps/problems", "/v1/audit", "/v1/clusters", "/v1/databases", "/v1/events", "/v1/restores", "/v1/whoami"];

/// A request that would be answered 2xx with the right token.
fn good_body(path: &str, method: &Method) -> Option<Value> {
    match (method.as_str(), path) {
        ("POST", "/v1/namespaces/{namespace}/databases") => Some(json!({"name": "fresh"})),
        ("POST", "/v1/namespaces/{namespace}/databases/{name}/restores") => Some(json!({"from": {"latest": true}})),
        ("PATCH", _) => Some(json!({"connectionLimit": 7})),
        ("POST", "/v1/plan") => Some(json!({"claims": [{"namespace": "team", "name": "a"}]})),
        ("POST", "/v1/clusters/{cluster}/maintenance") => Some(json!({"reason": "an upgrade"})),
        ("POST", "/v1/clusters/{cluster}/drills") => Some(json!({
            "stoppedAt": "2026-11-20T02:14:07Z", "means": "kill", "formerPrimary": "db1:5432", "synchronous": true,
            "writes": {"endpoint": "db:5432", "answered": 1, "failed": 0, "longestGapMs": 1, "gapBeganMs": 0},
            "reads": {"endpoint": "db:5432", "answered": 1, "failed": 0, "longestGapMs": 1, "gapBeganMs": 0},
            "rtoMs": 1, "recoverMs": 1, "passed": true, "problems": [], "events": []
        })),
        ("POST", "/v1/clusters/{cluster}/accept") => Some(json!({"system": "1", "timeline": 1})),
        ("POST", "/v1/namespaces/{namespace}/databases/{name}/move") => Some(json!({"to": "other"})),
        ("POST", path) if path.contains("/move/") => Some(json!({"id": "01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11"})),
        ("POST", "/v1/tokens") => Some(json!({"name": "t", "role": "platform"})),
        _ => None,
    }
}

async fn concrete(world: &World, path: &str) -> String {
    let operation = world.ledger.acquire().await.unwrap();
    let mut db = operation;
    let id: sqlx::types::Uuid = match path {
        "/v1/operations/{id}" => sqlx::query_scalar("select id from operations").fetch_one(&mut *db).await.unwrap(),
        _ if path.starts_with("/v1/restores/{id}") => sqlx::query_scalar(
            "with made as (insert into restores (id, claim, namespace, name, cluster, spec, phase, requested_by)
                 select gen_random_uuid(), id, namespace, name, cluster, '{\"from\": {\"latest\": true}}', 'Requested', 'x'
                 from claims on conflict do nothing returning id)
             select id from made union all select id from restores limit 1",
        )
        .fetch_one(&mut *db)
        .await
        .unwrap(),
        _ => sqlx::query_scalar("select id from tokens where name = 'viewer'").fetch_one(&mut *db).await.unwrap(),
    };
    path.replace("{namespace}", "team")
        .replace("{name}", "mine")
        .replace("{cluster}", "closed")
        .replace("{snapshot}", "dump:one")
        .replace("{id}", &id.to_string())
}

#[tokio::test]
async fn every_route_asks_for_a_token() {
    let world = World::new().await;
    world.make("mine").await;
    let mut open = Vec::new();
    for (path, method, _) in operations() {
        let uri = concrete(&world, &path).await;
        for token in ["", "pgt_0", &format!("pgt_{}", "0".repeat(64)), &world.tenant[1..], &world.tenant.to_uppercase()]
        {
            let reply = world.ask(token, method.clone(), &uri, good_body(&path, &method)).await;
            if !path.starts_with("/v1/") {
                open.push(path.clone());
                assert_ne!(reply.status.as_u16(), 401, "{path}");
                continue;
            }
            let reply = reply.expect_problem(401, "unauthenticated");
            assert!(reply.header("www-authenticate").starts_with("Bearer "), "{method} {path}: {reply:?}");
        }
    }
    open.dedup();
    let expected = ["/healthz", "/metrics", "/openapi.json", "/readyz", "/slack/commands", "/slack/interactions"];
    assert_eq!(open, expected, "nothing else is open");
    assert_eq!(world.count("select count(*) from claims").await, 1);
    assert_eq!(world.count("select generation from claims").await, 1);
}

#[tokio::test]
async fn every_route_keeps_other_tenants_out() {
    let world = World::new().await;
    world.make("mine").await;
    world.execute("insert into apps_problems values ('team/orders/values.yaml', 1, '', 'x')").await;
    let ledger_before = world.count("select sum(generation)::bigint from claims").await;
    for (path, method, operation) in operations().into_iter().filter(|(path, ..)| path.starts_with("/v1/")) {
        let uri = concrete(&world, &path).await;
        if path == "/v1/events" {
            continue; // events.rs: a stream shows only what the token may read
        }
        let reply = world.ask(&world.foreign, method.clone(), &uri, good_body(&path, &method)).await;
        let status = reply.status.as_u16();
        if FILTERED.contains(&path.as_str()) {
            assert_eq!(status, 200, "{method} {path}: {reply:?}");
            assert!(!reply.text.contains("team"), "{method} {path}: {reply:?}");
            continue;
        }
        assert!([403, 404].contains(&status), "{method} {path}: {reply:?}");
        reply.problem();
        assert!(operation["responses"][status.to_string()].is_object(), "{method} {path}: {status} is documented");
    }
    assert_eq!(world.count("select sum(generation)::bigint from claims").await, ledger_before);
    assert_eq!(world.count("select count(*) from tokens where revoked_at is not null").await, 0);
}

#[tokio::test]
async fn what_a_tenant_has_can_not_be_told_from_what_is_not_there() {
    let world = World::new().await;
    world.make("mine").await;
    let mut answers = Vec::new();
    for name in ["mine", "nothing"] {
        let path = format!("{DATABASES}/{name}");
        let mut reply = world.get(&world.foreign, &path).await.expect_problem(404, "not-found").json;
        reply["instance"] = Value::Null;
        reply["requestId"] = Value::Null;
        answers.push(reply);
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_viewer_reads_and_changes_nothing() {
    let world = World::new().await;
    world.make("mine").await;
    for (path, method, _) in operations().into_iter().filter(|(path, ..)| path.starts_with("/v1/")) {
        if path == "/v1/events" || path == "/v1/plan" {
            continue;
        }
        let uri = concrete(&world, &path).await;
        let reply = world.ask(&world.viewer, method.clone(), &uri, good_body(&path, &method)).await;
        let platform = path.starts_with("/v1/tokens") || path.contains("{cluster}/") || path.ends_with("/move");
        let wanted = if platform || method != Method::GET { 403 } else { 200 };
        assert_eq!(reply.status.as_u16(), wanted, "{method} {path}: {reply:?}");
    }
    assert_eq!(world.count("select generation from claims").await, 1);
    world.post(&world.viewer, "/v1/plan", json!({"claims": [{"namespace": "team", "name": "a"}]})).await.expect(200);
}

#[tokio::test]
async fn a_name_that_is_taken_does_not_tell_its_owner() {
    let world = World::new().await;
    // `team-b` + `c` and `team` + `b-c` mean one database.
    world.post(&world.platform, "/v1/namespaces/other-b/databases", json!({"name": "c"})).await.expect(201);
    let path = "/v1/namespaces/other/databases";
    let reply = world.post(&world.foreign, path, json!({"name": "b-c"})).await.expect_problem(409, "name-taken");
    assert!(!reply.text.contains("other-b/c"), "{reply:?}");
    let reply = world.post(&world.platform, path, json!({"name": "b-c"})).await.expect_problem(409, "name-taken");
    assert!(reply.text.contains("its owner is other-b/c"), "{reply:?}");
    world.post(&world.tenant, "/v1/namespaces/team-b/databases", json!({"name": "c"})).await.expect(201);
    let reply = world.post(&world.tenant, DATABASES, json!({"name": "b-c"})).await.expect_problem(409, "name-taken");
    assert!(reply.text.contains("team-b/c"), "both are the tenant's: {reply:?}");
}

#[tokio::test]
async fn two_authorizations_are_none() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.foreign);
    let twice = request(&world.platform, Method::GET, "/v1/tokens", "", &[("authorization", &bearer)]);
    world.send(twice).await.expect_problem(401, "unauthenticated");
}
