//! What is answered when something is wrong.

use std::time::Duration;

use axum::body::Body;
use axum::http::Method;
use pgtenant_api::ApiSettings;
use pgtenant_ledger::Ledger;
use serde_json::json;

use crate::world::{DATABASES, World, eventually, operations, request};

#[tokio::test]
async fn every_error_is_a_problem() {
    let world = World::new().await;
    for path in ["/", "/v1", "/v2/databases", "/v1/databases/", "/v1/namespaces/team", "/%00"] {
        world.get(&world.platform, path).await.expect_problem(404, "no-such-route");
    }
    world.get(&world.platform, "/v1/namespaces//databases").await.expect_problem(404, "not-found");
    for method in ["TRACE", "PUT", "OPTIONS", "QUERY", "DELETE"] {
        let reply = world.ask(&world.platform, method.parse().unwrap(), "/v1/databases", None).await;
        let reply = reply.expect_problem(405, "method-not-allowed");
        assert_eq!(reply.header("allow"), "GET,HEAD", "{method}");
    }
    let reply = world.ask(&world.tenant, Method::PUT, DATABASES, None).await.expect_problem(405, "method-not-allowed");
    let mut allowed: Vec<_> = reply.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    let head = world.ask(&world.tenant, Method::HEAD, &format!("{DATABASES}/missing"), None).await.expect(404);
    assert_eq!(head.text, "");
}

#[tokio::test]
async fn odd_methods_are_refused_on_every_path() {
    let world = World::new().await;
    for (path, ..) in operations() {
        let path = path.replace(['{', '}'], "");
        for method in ["TRACE", "PUT", "FOO"] {
            let reply = world.ask(&world.platform, method.parse().unwrap(), &path, None).await;
            let reply = reply.expect_problem(405, "method-not-allowed");
            assert_ne!(reply.header("allow"), "", "{path}");
        }
    }
}

#[tokio::test]
async fn bodies_are_checked() {
    let world = World::new().await;
    let send = async |body: Body, headers: &[(&str, &str)]| {
        world.send(request(&world.tenant, Method::POST, DATABASES, body, headers)).await
    };
    let json = [("content-type", "application/json")];
    let reply = send("{\n \"name\": \"a\",,}".into(), &json).await.expect_problem(400, "malformed-json");
    assert!(reply.text.contains("line 2 column"), "{reply:?}");
    send("".into(), &json).await.expect_problem(400, "malformed-json");
    send("{\"name\": \"a\"} x".into(), &json).await.expect_problem(400, "malformed-json");
    send(vec![0xff, 0xfe].into(), &json).await.expect_problem(400, "malformed-json");
    send("{\"name\": \"\\ud800\"}".into(), &json).await.expect_problem(400, "malformed-json");
    send("[".repeat(50_000).into(), &json).await.expect(422);
    send(format!("{{\"name\": {}", "[".repeat(50_000)).into(), &json).await.expect(422);
    send("{\"name\": \"a\", \"name\": \"b\"}".into(), &json).await.expect_problem(422, "invalid-fields");
    send("null".into(), &json).await.expect_problem(422, "invalid-fields");
    for media_type in ["", "text/plain", "application/merge-patch+json", "application/jsonx", "json"] {
        send("{\"name\": \"a\"}".into(), &[("content-type", media_type)])
            .await
            .expect_problem(415, "unsupported-media-type");
    }
    send("{\"name\": \"a\"}".into(), &[]).await.expect_problem(415, "unsupported-media-type");
    let twice = [json[0], json[0]];
    send("{\"name\": \"a\"}".into(), &twice).await.expect_problem(415, "unsupported-media-type");
    send("{\"name\": \"a\"}".into(), &[("content-type", "Application/JSON; charset=utf-8")]).await.expect(201);

    let big = format!("{{\"name\": \"{}\"}}", "a".repeat(300_000));
    send(big.clone().into(), &json).await.expect_problem(413, "body-too-large");
    let chunks = big.into_bytes().chunks(1000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>();
    send(Body::from_stream(futures::stream::iter(chunks)), &json).await.expect_problem(413, "body-too-large");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let world = World::with(ApiSettings { body_timeout: Duration::from_millis(50), ..ApiSettings::default() }).await;
    let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let slow = request(&world.tenant, Method::POST, DATABASES, never, &[("content-type", "application/json")]);
    world.send(slow).await.expect_problem(408, "request-timeout");
}

#[tokio::test]
async fn what_goes_wrong_inside_stays_inside() {
    let settings = ApiSettings { request_timeout: Duration::from_secs(2), ..ApiSettings::default() };
    let world = World::with(settings).await;
    for (name, status, slug) in [
        ("panics", 500, "internal"),
        ("breaks", 500, "internal"),
        ("unreachable", 503, "cluster-unreachable"),
        ("away", 503, "ledger-unavailable"),
        ("hangs", 504, "timeout"),
    ] {
        let body = json!({"claims": [{"namespace": "team", "name": name}]});
        let reply = world.post(&world.tenant, "/v1/plan", body).await.expect_problem(status, slug);
        for secret in ["bug", "10.0.0.7", "internal matter"] {
            assert!(!reply.text.contains(secret), "{reply:?}");
        }
        assert_eq!(reply.header("retry-after").is_empty(), status != 503, "{reply:?}");
    }
}

#[tokio::test]
async fn a_ledger_that_is_down_is_said() {
    let world = World::new().await;
    let nowhere = sqlx::postgres::PgConnectOptions::new().host("127.0.0.1").port(1);
    let tokens = [&world.platform, &world.tenant, &world.viewer, &world.foreign].map(Clone::clone);
    let settings = ApiSettings { request_timeout: Duration::from_secs(8), ..ApiSettings::default() };
    let down = World::over(Ledger::new(nowhere, 2), settings, tokens);
    let reply = down.get(&down.tenant, DATABASES).await.expect_problem(503, "ledger-unavailable");
    assert_eq!(reply.header("retry-after"), "2");
    assert!(!reply.text.contains("127.0.0.1"), "{reply:?}");
    down.get("", "/healthz").await.expect(200);
    let reply = down.get("", "/readyz").await.expect_problem(503, "not-ready");
    assert_eq!(reply.json["errors"][0]["field"], "ledger");
}

#[tokio::test]
async fn probes_name_the_part_that_is_down() {
    let world = World::new().await;
    assert_eq!(world.get("", "/healthz").await.expect(200).json["status"], "ok");
    // On a busy machine the ledger may take longer than the second that it is given.
    let ready = async || world.get("", "/readyz").await;
    eventually("ready", async || ready().await.json["parts"] == json!(["ledger", "engine"])).await;
    *world.down.lock().unwrap() = Some("no cluster can be reached".to_owned());
    let down = json!([{"field": "engine", "message": "no cluster can be reached"}]);
    eventually("not ready", async || ready().await.expect_problem(503, "not-ready").json["errors"] == down).await;
}

#[tokio::test]
async fn a_request_has_an_id() {
    let world = World::new().await;
    let with = async |id: &str| {
        let body = Some(json!({"name": "a"}));
        world.ask_with(&world.tenant, Method::POST, DATABASES, body, &[("x-request-id", id)]).await
    };
    assert_eq!(with("ci-42").await.header("x-request-id"), "ci-42");
    assert_eq!(world.count("select count(*) from audit where request_id = 'ci-42'").await, 1);
    for odd in ["a b", "a;b", &"a".repeat(65), "\""] {
        let reply = with(odd).await;
        assert_eq!(reply.header("x-request-id").len(), 36, "{reply:?}");
    }
}

#[tokio::test]
async fn the_document_and_its_page_need_no_internet() {
    let world = World::new().await;
    let document = world.get("", "/openapi.json").await.expect(200);
    assert_eq!(document.json, pgtenant_api::openapi());
    assert_eq!(document.text, pgtenant_api::openapi_json());
    let to = world.get("", "/docs").await;
    assert_eq!((to.status.as_u16(), to.header("location")), (303, "/docs/"));
    let page = world.get("", "/docs/").await.expect(200);
    let script = world.get("", "/docs/swagger-initializer.js").await.expect(200);
    assert!(script.text.contains("/openapi.json"), "{}", script.text);
    for text in [page.text, script.text] {
        assert!(!text.contains("https://") && !text.contains("http://"), "{text}");
    }
    for file in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js"] {
        world.get("", &format!("/docs/{file}")).await.expect(200);
    }
    world.get("", "/docs/../../etc/passwd").await.expect(404);
    assert_eq!(world.get("", "/metrics").await.expect(200).text, "pgtenant_build_info 1\n");
}
