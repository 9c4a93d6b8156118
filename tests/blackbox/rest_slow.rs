//! REST under requests that take long, on either side.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pgtenant_tests::{Site, SiteOptions, unique};
use serde_json::json;

use crate::shared;

#[tokio::test]
async fn what_is_being_removed_can_be_asked_for_again_when_it_is_gone() {
    let site = Site::new(SiteOptions { look: "10m".to_owned(), ..SiteOptions::shared().await }).await;
    let namespace = unique("leaving");
    let serve = site.serve_with("serve", &[("PGTENANT_FAULT", "stall=4s@before:drop-database")]).await;
    serve.is_ready().await;
    let api = serve.api();
    api.ready(&namespace, "db").await;
    let path = format!("/v1/namespaces/{namespace}/databases");
    let asked = api.delete(&format!("{path}/db")).await.expect(202).json;
    assert_eq!(api.get(&format!("{path}/db")).await.json["state"], "Deleting");
    let again = api.delete(&format!("{path}/db")).await.expect(202).json;
    assert_eq!(again["id"], asked["id"], "the same operation");
    api.patch(&format!("{path}/db"), json!({"connectionLimit": 3})).await.problem(409, "being-removed");
    api.post(&path, json!({"name": "db"})).await.problem(409, "being-removed");
    api.ask(&format!("{path}/db/adopt")).await.problem(409, "being-removed");
    api.ask(&format!("{path}/db/release")).await.problem(409, "being-removed");
    api.ask(&format!("{path}/db/credentials/rotate")).await.problem(409, "being-removed");
    api.is_gone(&namespace, "db").await;
    api.ready(&namespace, "db").await;
}

/// Sends a beginning of a request and nothing more; returns what came back until the server closed the connection.
fn dawdle(url: &str, beginning: &str) -> (String, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(beginning.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server closes the connection");
    (answer, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_too_slowly_is_told_and_cut_off() {
    let plane = shared::calm().await;
    let (url, token) = (plane.serve.url.clone(), plane.site.token.clone());
    let body = format!(
        "POST /v1/plan HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\nConnection: close\r\n\r\n{{\"claims\":"
    );
    let other = url.clone();
    let headers = tokio::task::spawn_blocking(move || dawdle(&other, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "));
    let body = tokio::task::spawn_blocking(move || dawdle(&url, &body));
    let (headers, body) = (headers.await.unwrap(), body.await.unwrap());
    assert!(headers.1 < Duration::from_secs(45), "{headers:?}");
    assert!(!headers.0.contains("200 OK"), "{headers:?}");
    assert!(body.0.starts_with("HTTP/1.1 408") && body.0.contains("request-timeout"), "{body:?}");
    assert!(body.1 < Duration::from_secs(45), "{body:?}");
    plane.api().get("/healthz").await.expect(200);
}
