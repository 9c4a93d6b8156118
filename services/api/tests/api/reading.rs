//! Plans, clusters, audit, faults of the apps folder.

use axum::http::Method;
use pgtenant_api::ApiSettings;
use pgtenant_ledger::set_cluster_status;
use pgtenant_model::{ClusterStatus, InvalidField, Member, MemberRole};
use serde_json::json;

use crate::world::{DATABASES, World};

#[tokio::test]
async fn a_plan_is_within_the_tokens_reach() {
    let world = World::new().await;
    let plan = |namespace: &str| json!({"claims": [{"namespace": namespace, "name": "a", "mode": "protected"}]});
    let reply = world.post(&world.tenant, "/v1/plan", plan("team")).await.expect(200);
    assert_eq!(reply.json["claims"][0]["action"], "create");
    let scope = world.planner.asked.lock().unwrap().pop().unwrap().1;
    assert_eq!(scope, Some(vec!["team".to_owned(), "team-b".to_owned()]));
    world.post(&world.tenant, "/v1/plan", plan("other")).await.expect_problem(403, "forbidden");
    let mut adopt = plan("team");
    adopt["adopt"] = json!(true);
    world.post(&world.tenant, "/v1/plan", adopt.clone()).await.expect_problem(403, "forbidden");
    assert!(world.planner.asked.lock().unwrap().is_empty());
    world.post(&world.platform, "/v1/plan", adopt).await.expect(200);
    assert_eq!(world.planner.asked.lock().unwrap().pop().unwrap().1, None);
    world.post(&world.platform, "/v1/plan", plan("Not A Label")).await.expect(200);

    let claim = json!({"namespace": "team", "name": "a"});
    for body in [
        json!({"claims": vec![claim.clone(); 1001]}),
        json!({"claims": [{"namespace": "team", "name": "a\u{0}"}]}),
        json!({"claims": [{"namespace": "team", "name": "a".repeat(254)}]}),
        json!({"claims": [{"namespace": "team", "name": "a", "schemas": vec!["x"; 33]}]}),
        json!({"claims": [{"namespace": "team", "name": "a", "connectionLimit": 0}]}),
        json!({"claims": [{"namespace": "team"}]}),
        json!({"claims": [claim], "x": 1}),
        json!({}),
    ] {
        world.post(&world.platform, "/v1/plan", body).await.expect_problem(422, "invalid-fields");
    }
}

#[tokio::test]
async fn clusters_are_shown_to_those_who_may_use_them() {
    let world = World::new().await;
    let status = ClusterStatus {
        primary: Some("db1:5432".into()),
        version: Some("15.18".into()),
        members: vec![Member { timeline: Some(1), ..Member::new("db1:5432", MemberRole::Primary) }],
        problem: None,
        max_connections: None,
        preflight: vec![InvalidField::new("max_connections", "is 100; raise it")],
        drift: Vec::new(),
        identity: None,
        split_brain: false,
        history: None,
        refused: None,
        provisioner: None,
        observed_at: Some("2026-11-20T03:00:00Z".parse().unwrap()),
    };
    set_cluster_status(&mut world.ledger.acquire().await.unwrap(), "default", &status).await.unwrap();
    let names = async |token: &str| {
        let list = world.get(token, "/v1/clusters").await.expect(200);
        let names: Vec<_> = list.json["items"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
        (names, list.text)
    };
    assert_eq!(names(&world.platform).await.0, ["closed", "default"]);
    assert_eq!(names(&world.tenant).await.0, ["closed", "default"]);
    let (seen, text) = names(&world.foreign).await;
    assert_eq!(seen, ["default"]);
    for inside in ["db1", "provisioner", "/var/lib", "team"] {
        assert!(!text.contains(inside), "{inside}: {text}");
    }
    world.get(&world.foreign, "/v1/clusters/closed").await.expect_problem(404, "not-found");
    for name in ["nowhere", "%00", "A"] {
        world.get(&world.platform, &format!("/v1/clusters/{name}")).await.expect_problem(404, "not-found");
    }
    let cluster = world.get(&world.platform, "/v1/clusters/default").await.expect(200).json;
    assert_eq!((&cluster["primary"], &cluster["version"]), (&json!("db1:5432"), &json!("15.18")));
    assert_eq!(cluster["spec"]["provisioner"]["username"], "provisioner");
    let topology = world.get(&world.platform, "/v1/clusters/default/topology").await.expect(200).json;
    assert_eq!((&topology["cluster"], &topology["members"][0]["role"]), (&json!("default"), &json!("primary")));
    let preflight = world.get(&world.platform, "/v1/clusters/default/preflight").await.expect(200).json;
    assert_eq!((&preflight["ok"], &preflight["problems"][0]["field"]), (&json!(false), &json!("max_connections")));
    for path in ["/v1/clusters/default/topology", "/v1/clusters/default/preflight"] {
        world.get(&world.tenant, path).await.expect_problem(403, "forbidden");
    }
    assert_eq!(world.get(&world.platform, "/v1/clusters/closed/preflight").await.json["ok"], false, "not seen yet");
}

#[tokio::test]
async fn a_cluster_is_tried_by_the_platform_team_alone_and_within_the_requests_time() {
    let world = World::new().await;
    let path = |cluster: &str| format!("/v1/clusters/{cluster}/preflight");
    for token in [&world.tenant, &world.viewer] {
        world.ask(token, Method::POST, &path("default"), None).await.expect_problem(403, "forbidden");
    }
    assert!(world.planner.tried.lock().unwrap().is_empty(), "nothing was tried for them");
    let tried = world.ask(&world.platform, Method::POST, &path("default"), None).await.expect(200).json;
    let check = json!({"check": "roles", "result": "Failed", "message": "default lets nobody make roles"});
    assert_eq!(tried, json!({"cluster": "default", "ok": false, "checks": [check]}));
    let (cluster, limit) = world.planner.tried.lock().unwrap()[0].clone();
    assert!(cluster == "default" && limit < ApiSettings::default().request_timeout, "{limit:?}");
    let busy = world.ask(&world.platform, Method::POST, &path("closed"), None).await;
    assert_eq!(busy.header("retry-after"), "10");
    busy.expect_problem(503, "overloaded");
    world.ask(&world.platform, Method::POST, &path("nowhere"), None).await.expect_problem(404, "not-found");
}

#[tokio::test]
async fn the_audit_is_read_from_its_end() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.make(name).await;
    }
    world.post(&world.foreign, "/v1/namespaces/other/databases", json!({"name": "x"})).await.expect(201);
    let first = world.get(&world.tenant, "/v1/audit?limit=2").await.expect(200).json;
    let names = |page: &serde_json::Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&first), ["c", "b"]);
    assert_eq!(first["items"][0]["actor"], "token:tenant");
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = world.get(&world.tenant, &format!("/v1/audit?limit=2&cursor={cursor}")).await.expect(200).json;
    assert_eq!((names(&second), &second["nextCursor"]), (vec!["a".to_owned()], &json!(null)));
    assert_eq!(names(&world.get(&world.platform, "/v1/audit?namespace=other").await.json), ["x"]);
    world.get(&world.tenant, "/v1/audit?namespace=other").await.expect_problem(404, "not-found");
    world.get(&world.tenant, "/v1/audit?cursor=WzFd").await.expect_problem(400, "invalid-cursor");
}

#[tokio::test]
async fn faults_of_the_apps_folder_are_shown_to_their_tenant() {
    let world = World::new().await;
    world
        .execute(
            "insert into apps_problems values ('team/orders/values.yaml', 3, 'postgresqlDatabases[0].mode', 'x'),
             ('other/a/values.yaml', 1, '', 'y'), ('team', 0, '', 'z'), ('', 0, '', 'the folder')",
        )
        .await;
    let files = async |token: &str| {
        let list = world.get(token, "/v1/apps/problems").await.expect(200).json;
        list["items"].as_array().unwrap().iter().map(|e| e["file"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(files(&world.tenant).await, ["team", "team/orders/values.yaml"]);
    assert_eq!(files(&world.foreign).await, ["other/a/values.yaml"]);
    assert_eq!(files(&world.platform).await.len(), 4);
    world.get(&world.platform, &format!("{DATABASES}?x=1")).await.expect_problem(400, "invalid-query");
}
