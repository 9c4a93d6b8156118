//! A database's life.

use axum::http::Method;
use serde_json::json;

use crate::world::{DATABASES, World};

#[tokio::test]
async fn a_database_is_asked_for() {
    let world = World::new().await;
    let body = json!({"name": "my-db", "schemas": ["reporting"], "extensions": ["pgcrypto"], "connectionLimit": 20,
                      "slackChannel": "#orders"});
    let made = world.post(&world.tenant, DATABASES, body.clone()).await.expect(201);
    assert_eq!(made.header("location"), "/v1/namespaces/team/databases/my-db");
    assert_eq!(made.header("etag"), "\"1\"");
    for (field, value) in [
        ("namespace", json!("team")),
        ("name", json!("my-db")),
        ("mode", json!("standard")),
        ("cluster", json!("default")),
        ("schemas", json!(["reporting"])),
        ("extensions", json!(["pgcrypto"])),
        ("connectionLimit", json!(20)),
        ("slackChannel", json!("#orders")),
        ("generation", json!(1)),
        ("observedGeneration", json!(0)),
        ("state", json!("Pending")),
        ("source", json!("api")),
        ("conditions", json!([])),
        ("database", json!("team-my-db")),
        ("endpoint", json!(null)),
    ] {
        assert_eq!(made.json[field], value, "{field}");
    }
    assert_eq!(made.json["roles"]["write"]["role"], "team-my-db-write");

    let operation = world.get(&world.tenant, &format!("/v1/operations/{}", made.header("pgtenant-operation"))).await;
    assert_eq!((&operation.json["kind"], &operation.json["state"]), (&json!("create"), &json!("Pending")));
    assert_eq!(operation.json["requestedBy"], "token:tenant");

    let again = world.post(&world.tenant, DATABASES, body).await.expect(200);
    assert_eq!(again.json["generation"], 1);
    assert_eq!(again.header("pgtenant-operation"), "");
    world.post(&world.tenant, DATABASES, json!({"name": "my-db"})).await.expect_problem(409, "database-exists");

    let read = world.get(&world.tenant, made.header("location")).await.expect(200);
    assert_eq!((read.header("etag"), &read.json), ("\"1\"", &made.json));
    assert_eq!(read.header("cache-control"), "no-store");
}

#[tokio::test]
async fn the_same_wish_at_the_same_time_is_one_wish() {
    let world = World::new().await;
    let wishes = (0..8).map(|_| world.post(&world.tenant, DATABASES, json!({"name": "a"})));
    let mut statuses: Vec<u16> =
        futures::future::join_all(wishes).await.into_iter().map(|reply| reply.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201]);
    assert_eq!(world.count("select count(*) from operations").await, 1);
}

#[tokio::test]
async fn what_can_not_be_asked_names_the_field() {
    let world = World::new().await;
    let long = "a".repeat(54);
    for (body, field) in [
        (json!({"name": "My_DB"}), "name"),
        (json!({"name": "a\"b"}), "name"),
        (json!({"name": "a;drop table claims"}), "name"),
        (json!({"name": "../../etc"}), "name"),
        (json!({"name": "a\u{0}b"}), "name"),
        (json!({"name": "ünï"}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": long}), "name"),
        (json!({"name": 5}), "name"),
        (json!({"name": "a", "cluster": "a\u{0}"}), "cluster"),
        (json!({"name": "a", "cluster": "nowhere"}), "cluster"),
        (json!({"name": "a", "schemas": ["ok", "public"]}), "schemas[1]"),
        (json!({"name": "a", "schemas": ["a\u{0}"]}), "schemas[0]"),
        (json!({"name": "a", "extensions": ["adminpack"]}), "extensions[0]"),
        (json!({"name": "a", "connectionLimit": 0}), "connectionLimit"),
        (json!({"name": "a", "connectionLimit": 1e30}), "connectionLimit"),
        (json!({"name": "a", "connectionLimit": 4_294_967_297_i64}), "connectionLimit"),
        (json!({"name": "a", "slackChannel": "#a, #b"}), "slackChannel"),
        (json!({"name": "a", "slackChannel": "a\u{0}"}), "slackChannel"),
        (json!({"name": "a", "mode": "Protected"}), "mode"),
        (json!({"name": "a", "colour": 1}), "colour"),
        (json!([]), "body"),
    ] {
        let reply = world.post(&world.tenant, DATABASES, body.clone()).await.expect_problem(422, "invalid-fields");
        assert_eq!(reply.json["errors"][0]["field"], field, "{body}: {reply:?}");
    }
    assert_eq!(world.count("select count(*) from claims").await, 0);
}

#[tokio::test]
async fn paths_that_can_name_nothing_are_not_found() {
    let world = World::new().await;
    for name in ["A", "a%22b", "a%3Bb", "..%2F..%2Fetc", "%00", "%C3%BC", "%FF", &"a".repeat(64), &"a".repeat(54)] {
        for (method, tail) in [("GET", ""), ("DELETE", ""), ("GET", "/credentials"), ("POST", "/release")] {
            let path = format!("{DATABASES}/{name}{tail}");
            world.ask(&world.platform, method.parse().unwrap(), &path, None).await.expect_problem(404, "not-found");
        }
        let path = format!("/v1/namespaces/{name}/databases");
        let status = world.get(&world.platform, &path).await.status.as_u16();
        assert_eq!(status, if name == "a".repeat(54) { 200 } else { 404 }, "{name}");
    }
}

#[tokio::test]
async fn a_namespace_has_as_many_as_it_may_have() {
    let world = World::new().await;
    let wishes =
        ["a", "b", "c", "d", "e", "f", "g"].map(|name| world.post(&world.tenant, DATABASES, json!({"name": name})));
    let replies = futures::future::join_all(wishes).await;
    let (made, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 201);
    assert!(refused.iter().all(|reply| reply.problem() == "quota-exceeded"), "{refused:?}");
    assert_eq!((made.len(), refused.len()), (5, 2));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.make(name).await;
    }
    world.post(&world.foreign, "/v1/namespaces/other/databases", json!({"name": "x"})).await.expect(201);
    for path in [DATABASES, "/v1/databases"] {
        let mut names = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = world.get(&world.tenant, &format!("{path}?limit=2{cursor}")).await.expect(200).json;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(names, ["a", "b", "c"], "{path}");
    }
    let all = world.get(&world.platform, "/v1/databases").await.json;
    assert_eq!(all["items"].as_array().unwrap().len(), 4);
    for (query, count) in [
        ("state=Pending", 4),
        ("state=Retained", 0),
        ("namespace=other", 1),
        ("cluster=closed", 0),
        ("cluster=default", 4),
    ] {
        let reply = world.get(&world.platform, &format!("/v1/databases?{query}")).await.expect(200);
        assert_eq!(reply.json["items"].as_array().unwrap().len(), count, "{query}");
    }
    world.get(&world.tenant, "/v1/databases?namespace=other").await.expect_problem(404, "not-found");
    let forged = "WyJhXHUwMDAwIiwiYiJd"; // ["a\u0000","b"]
    for (query, slug) in [
        ("cursor=!", "invalid-cursor"),
        (&format!("cursor={forged}"), "invalid-cursor"),
        ("limit=0", "invalid-query"),
        ("limit=501", "invalid-query"),
        ("limit=99999999999999999999", "invalid-query"),
        ("limit=1&limit=2", "invalid-query"),
        ("state=ready", "invalid-query"),
        ("cluster=%00", "invalid-query"),
        ("namespace=A", "invalid-query"),
        ("colour=1", "invalid-query"),
        ("state=%FF", "invalid-query"),
    ] {
        world.get(&world.platform, &format!("/v1/databases?{query}")).await.expect_problem(400, slug);
    }
}

#[tokio::test]
async fn an_operation_is_its_tenants() {
    let world = World::new().await;
    world.make("a").await;
    let id = sqlx::query_scalar::<_, sqlx::types::Uuid>("select id from operations")
        .fetch_one(&mut *world.ledger.acquire().await.unwrap())
        .await
        .unwrap();
    let path = format!("/v1/operations/{id}");
    world.ask(&world.viewer, Method::GET, &path, None).await.expect(200);
    world.get(&world.foreign, &path).await.expect_problem(404, "not-found");
    for id in ["x", "00000000-0000-0000-0000-000000000000", "%00"] {
        world.get(&world.platform, &format!("/v1/operations/{id}")).await.expect_problem(404, "not-found");
    }
}
