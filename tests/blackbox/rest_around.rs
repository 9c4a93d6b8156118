//! REST around databases: plans, clusters, audit, tokens, limits, documents.

use std::time::Duration;

use pgtenant_tests::{Site, SiteOptions, Stream, repository, rows, soon, superuser_sql, unique};
use serde_json::{Value, json};

use crate::shared;

#[tokio::test]
async fn a_plan_tells_text_and_sql_and_does_nothing() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("plan"));
    api.ready(&namespace, "there").await;
    let claims = json!([
        {"namespace": namespace, "name": "there"},
        {"namespace": namespace, "name": "new", "schemas": ["reporting"]},
        {"namespace": namespace, "name": "bad name"},
    ]);
    let report = api.post("/v1/plan", json!({"claims": claims})).await.expect(200).json;
    let plans = report["claims"].as_array().unwrap();
    let actions: Vec<&str> = plans.iter().map(|plan| plan["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["none", "create", "refuse"], "{report}");
    assert!(!plans[2]["problems"].as_array().unwrap().is_empty());
    let sql: Vec<&str> =
        plans[1]["changes"].as_array().unwrap().iter().map(|change| change["sql"].as_str().unwrap()).collect();
    let sql = sql.join("\n");
    for part in ["CREATE DATABASE", "CREATE ROLE", "ALTER DEFAULT PRIVILEGES FOR ROLE", "reporting"] {
        assert!(sql.contains(part), "no {part}: {sql}");
    }
    assert!(!sql.contains("SCRAM-SHA-256$"), "verifiers are left out: {sql}");
    api.get(&format!("/v1/namespaces/{namespace}/databases/new")).await.problem(404, "not-found");
}

#[tokio::test]
async fn clusters_can_be_read_with_their_servers() {
    let plane = shared::calm().await;
    let api = plane.api();
    let seen = soon("the cluster was seen", || async {
        let cluster = api.get("/v1/clusters/default").await.expect(200).json;
        if cluster["primary"].is_null() { Err(cluster.to_string()) } else { Ok(cluster) }
    })
    .await;
    let place = pgtenant_tests::Place::shared().await;
    assert_eq!(seen["primary"], place.hosts[0]);
    assert_eq!(seen["version"], pgtenant_testkit_version().await);
    assert_eq!(api.list("/v1/clusters").await.len(), 1);
    let topology = api.get("/v1/clusters/default/topology").await.expect(200).json;
    assert_eq!(topology["members"][0]["role"], "primary", "{topology}");
    let preflight = api.get("/v1/clusters/default/preflight").await.expect(200).json;
    assert!(preflight["problems"].is_array() && preflight["ok"].is_boolean(), "{preflight}");
    api.get("/v1/clusters/none").await.problem(404, "not-found");
    api.ask("/v1/clusters/none/preflight").await.problem(404, "not-found");
    assert!(!seen.to_string().contains(&plane.site.provisioner_password));
}

/// What a failover leaves that has undone a removal.
#[tokio::test]
async fn a_database_that_nobody_claims_any_more_is_told_of_and_kept() {
    let site = Site::new(SiteOptions::shared().await).await;
    let namespace = unique("undone");
    let database = format!("{namespace}-db");
    let create = format!("create database \"{database}\" owner \"{}\"", site.provisioner);
    superuser_sql(&site.superuser, None, &create).await;
    let comment = format!("comment on database \"{database}\" is 'pgtenant: {namespace}/db'");
    superuser_sql(&site.superuser, None, &comment).await;
    let serve = site.serve("serve").await;
    serve.is_ready().await;
    let api = serve.api();
    let told = format!("database \"{database}\" says that it is of claim {namespace}/db");
    soon("the preflight tells of it", || async {
        let preflight = api.get("/v1/clusters/default/preflight").await.expect(200).json;
        if preflight["problems"].to_string().contains(&told.replace('"', "\\\"")) {
            Ok(())
        } else {
            Err(preflight.to_string())
        }
    })
    .await;
    let there = format!("select datname from pg_database where datname = '{database}'");
    assert_eq!(rows(&site.superuser, None, &there).await, [database]);
}

async fn pgtenant_testkit_version() -> String {
    let place = pgtenant_tests::Place::shared().await;
    let version = pgtenant_tests::rows(&place.superuser, None, "select current_setting('server_version')").await;
    version[0].split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn the_audit_says_who_did_what_in_which_request() {
    let plane = shared::calm().await;
    let namespace = unique("audit");
    let api = plane.api_of("tenant", &[&namespace]).await;
    let who = api.get("/v1/whoami").await.expect(200).json["name"].as_str().unwrap().to_owned();
    let path = format!("/v1/namespaces/{namespace}/databases");
    let made = api.send("POST", &path, &[("x-request-id", "ci-42_a")], Some(&json!({"name": "db"}))).await.expect(201);
    assert_eq!(made.header("x-request-id"), "ci-42_a");
    api.is_ready(&namespace, "db").await;
    api.delete(&format!("{path}/db")).await.expect(202);
    let lines = api.list(&format!("/v1/audit?namespace={namespace}&limit=1")).await;
    let actions: Vec<&str> = lines.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["database.delete", "database.create"], "the newest first");
    assert!(lines.iter().all(|line| line["actor"] == format!("token:{who}")), "{lines:?}");
    assert_eq!(lines[1]["requestId"], "ci-42_a");
    assert_eq!(lines[1]["name"], "db");
    api.get("/v1/audit?namespace=somebody-else").await.problem(404, "not-found");
}

#[tokio::test]
async fn tokens_reach_as_far_as_their_role_and_namespaces() {
    let plane = shared::calm().await;
    let (mine, other) = (unique("mine"), unique("other"));
    let platform = plane.api();
    platform.ready(&mine, "db").await;
    platform.ready(&other, "db").await;
    let (tenant, viewer) = (plane.api_of("tenant", &[&mine]).await, plane.api_of("viewer", &[&mine]).await);
    let path = |namespace: &str| format!("/v1/namespaces/{namespace}/databases/db");
    for api in [&tenant, &viewer] {
        api.get(&path(&mine)).await.expect(200);
        // What is there for others is not told from what is not there at all.
        let there = api.get(&path(&other)).await.problem(404, "not-found");
        let nowhere = api.get(&path("nowhere")).await.problem(404, "not-found");
        assert_eq!(there.replace(&other, "?"), nowhere.replace("nowhere", "?"));
        let seen = api.list("/v1/databases").await;
        assert!(!seen.is_empty() && seen.iter().all(|db| db["namespace"] == mine), "{seen:?}");
        api.get(&format!("/v1/databases?namespace={other}")).await.problem(404, "not-found");
        api.get("/v1/clusters/default/topology").await.problem(403, "forbidden");
        api.get("/v1/tokens").await.problem(403, "forbidden");
        api.post("/v1/tokens", json!({"name": "x", "role": "platform"})).await.problem(403, "forbidden");
        let cluster = api.get("/v1/clusters/default").await.expect(200);
        assert!(cluster.json["spec"].is_null() && !cluster.text.contains("passwordFile"), "{}", cluster.text);
        let claims = json!({"claims": [{"namespace": other, "name": "db"}]});
        api.post("/v1/plan", claims).await.problem(403, "forbidden");
        for (method, tail) in
            [("DELETE", ""), ("POST", "/release"), ("POST", "/credentials/rotate"), ("POST", "/adopt")]
        {
            api.send(method, &format!("{}{tail}", path(&other)), &[], None).await.problem(404, "not-found");
        }
    }
    viewer.patch(&path(&mine), json!({"connectionLimit": 1})).await.problem(403, "forbidden");
    viewer.delete(&path(&mine)).await.problem(403, "forbidden");
    viewer.post(&format!("/v1/namespaces/{mine}/databases"), json!({"name": "x"})).await.problem(403, "forbidden");
    viewer.ask(&format!("{}/credentials/rotate", path(&mine))).await.problem(403, "forbidden");
    tenant.patch(&path(&mine), json!({"connectionLimit": 1})).await.expect(200);
    let operation = tenant.delete(&path(&mine)).await.expect(202).json["id"].as_str().unwrap().to_owned();
    viewer.finished(&operation).await;
    plane.api_of("viewer", &[&other]).await.get(&format!("/v1/operations/{operation}")).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_token_ends_when_it_expires_or_is_revoked_and_so_does_its_stream() {
    let plane = shared::calm().await;
    let api = plane.api();
    let made = api
        .post("/v1/tokens", json!({"name": unique("short"), "role": "platform", "expiresInSeconds": 3}))
        .await
        .expect(201);
    let short = api.with_token(made.json["secret"].as_str());
    short.get("/v1/whoami").await.expect(200);
    let made = api.post("/v1/tokens", json!({"name": unique("revoked"), "role": "platform"})).await.expect(201);
    let secret = made.json["secret"].as_str().unwrap().to_owned();
    let revoked = api.with_token(Some(&secret));
    let mut stream = Stream::open(&revoked, "/v1/events").await;
    let id = made.json["id"].as_str().unwrap();
    api.send("DELETE", &format!("/v1/tokens/{id}"), &[], None).await.expect(204);
    for (what, ended) in [("revoked", &revoked), ("expired", &short)] {
        let answer = soon(what, || async {
            let answer = ended.get("/v1/whoami").await;
            if answer.status == 401 { Ok(answer) } else { Err(answer.text) }
        })
        .await;
        assert!(answer.header("www-authenticate").contains("invalid_token"), "{:?}", answer.headers);
        answer.problem(401, "unauthenticated");
    }
    while stream.next(Duration::from_secs(40)).await.is_some() {}
    assert!(stream.has_ended(), "a stream goes on after its token has ended");
    let listed = api.list("/v1/tokens").await;
    assert!(listed.iter().any(|token| token["id"] == id && !token["revokedAt"].is_null()), "{listed:?}");
    assert!(!json!(listed).to_string().contains(&secret), "a secret is shown once");

    let nobody = api.with_token(None);
    let answer = nobody.get("/v1/databases").await;
    assert!(answer.header("www-authenticate").starts_with("Bearer"), "{:?}", answer.headers);
    answer.problem(401, "unauthenticated");
    api.with_token(Some(&format!("pgt_{}", "0".repeat(64)))).get("/v1/databases").await.problem(401, "unauthenticated");
    api.with_token(Some("x")).get("/v1/databases").await.problem(401, "unauthenticated");
    for open in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"] {
        let status = nobody.get(open).await.status;
        assert!(status < 400, "{open}: {status}");
    }
}

#[tokio::test]
async fn a_token_that_asks_too_often_is_told_to_wait_and_no_other_is() {
    let site = Site::new(SiteOptions::shared().await).await;
    let limits = [("PGTENANT_API__RATE_LIMIT", "1"), ("PGTENANT_API__RATE_BURST", "20")];
    let plane = shared::Plane { serve: site.serve_with("serve", &limits).await, site };
    plane.serve.is_ready().await;
    let (hasty, other) = (plane.api_of("platform", &[]).await, plane.api_of("platform", &[]).await);
    let answers = futures::future::join_all((0..60).map(|_| hasty.get("/v1/whoami"))).await;
    let refused = answers.into_iter().find(|answer| answer.status == 429).expect("60 requests at once are too many");
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{:?}", refused.headers);
    refused.problem(429, "too-many-requests");
    other.get("/v1/whoami").await.expect(200);
}

#[tokio::test]
async fn the_served_document_is_the_committed_one_and_its_page_needs_no_internet() {
    let plane = shared::calm().await;
    let served = plane.api().get("/openapi.json").await.expect(200).json;
    let text = std::fs::read_to_string(repository().join("openapi/openapi.json")).unwrap();
    let committed: Value = serde_json::from_str(&text).unwrap();
    assert!(served == committed, "openapi/openapi.json is not what is served: make generate");
    let base = plane.serve.url.clone();
    let page = plane.api().get("/docs/").await.expect(200).text;
    let links: Vec<&str> =
        page.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css")).collect();
    assert!(!links.is_empty(), "{page}");
    for link in links {
        assert!(!link.contains("//"), "{link} is on another machine");
        let path = link.trim_start_matches("./").trim_start_matches("/docs/");
        let found = plane.api().get(&format!("/docs/{path}")).await;
        assert_eq!(found.status, 200, "{base}/docs/{path}");
    }
}
