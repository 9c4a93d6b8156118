//! The authorities of RDS, from a real server over HTTP.
#![expect(clippy::unwrap_used, reason = "helpers of tests are no tests to clippy")]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use pgtenant_rds::CaBundle;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

type Answer = Arc<Mutex<(StatusCode, Vec<u8>)>>;

fn authority() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

/// A server that answers for region `eu-west-1` what it was told last, and the address with the region left open.
async fn server() -> (String, Answer) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let answer: Answer = Arc::new(Mutex::new((StatusCode::NOT_FOUND, Vec::new())));
    let app = Router::new().route("/{region}", get(reply)).with_state(Arc::clone(&answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/{{region}}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, answer)
}

async fn reply(State(answer): State<Answer>, Path(region): Path<String>) -> (StatusCode, Vec<u8>) {
    assert_eq!(region, "eu-west-1");
    answer.lock().unwrap().clone()
}

fn say(answer: &Answer, status: StatusCode, body: impl Into<Vec<u8>>) {
    *answer.lock().unwrap() = (status, body.into());
}

fn bundle(url: &str, directory: &tempfile::TempDir) -> CaBundle {
    CaBundle::new("eu-west-1", url, Some(directory.path().join("cache")))
}

fn only_file(directory: &tempfile::TempDir) -> std::path::PathBuf {
    let files: Vec<_> = std::fs::read_dir(directory.path().join("cache")).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "nothing half-written is left: {files:?}");
    files[0].clone()
}

fn lines(pem: &str) -> Vec<&str> {
    pem.lines().map(str::trim_end).collect()
}

#[tokio::test]
async fn the_bundle_is_fetched_kept_and_outlives_its_source() {
    let (url, answer) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = url.replace("{region}", "eu-west-1");
    let fault = CaBundle::new("cn-north-1", &elsewhere, None).pem().await.unwrap_err().to_string();
    assert!(fault.contains("404") && fault.ends_with("name them in tls.caFile or tls.caSecretRef"), "{fault}");

    let (one, two) = (authority(), authority());
    say(&answer, StatusCode::OK, format!("comments go\n{one}{two}"));
    let first = bundle(&url, &directory);
    let pem = first.pem().await.unwrap();
    let (mut found, mut served) = (lines(&pem), lines(&one));
    served.extend(lines(&two));
    found.sort_unstable();
    served.sort_unstable();
    assert_eq!(found, served);
    say(&answer, StatusCode::OK, format!("{two}{one}"));
    let again = tempfile::tempdir().unwrap();
    assert_eq!(bundle(&url, &again).pem().await.unwrap(), pem, "in another order they are the same to tenants");

    // Nothing is asked again for a day, by this process and by the next one.
    say(&answer, StatusCode::INTERNAL_SERVER_ERROR, "");
    assert_eq!(first.pem().await.unwrap(), pem);
    assert_eq!(bundle(&url, &directory).pem().await.unwrap(), pem);
}

#[tokio::test]
async fn what_is_broken_never_replaces_what_was_good() {
    let (url, answer) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let good = authority();
    say(&answer, StatusCode::OK, good.clone());
    let pem = bundle(&url, &directory).pem().await.unwrap();
    let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(90_000);
    let truncated = good[..good.len() / 2].to_owned();
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    let huge = "x".repeat(2 << 20);
    for (status, broken) in [
        (StatusCode::OK, String::new()),
        (StatusCode::OK, truncated),
        (StatusCode::OK, format!("{good}{nonsense}")),
        (StatusCode::OK, huge),
        (StatusCode::FOUND, authority()),
        (StatusCode::SERVICE_UNAVAILABLE, authority()),
    ] {
        let file = std::fs::File::options().write(true).open(only_file(&directory)).unwrap();
        file.set_modified(yesterday).unwrap();
        say(&answer, status, broken.clone());
        assert_eq!(bundle(&url, &directory).pem().await.unwrap(), pem, "{status} {broken:.40}");
        assert_eq!(std::fs::read_to_string(only_file(&directory)).unwrap(), pem);
    }

    // A new one is taken.
    let file = std::fs::File::options().write(true).open(only_file(&directory)).unwrap();
    file.set_modified(yesterday).unwrap();
    let new = authority();
    say(&answer, StatusCode::OK, new.clone());
    assert_eq!(lines(&bundle(&url, &directory).pem().await.unwrap()), lines(&new));

    // A file that somebody has spoilt is as none.
    std::fs::write(only_file(&directory), "spoilt").unwrap();
    assert_eq!(lines(&bundle(&url, &directory).pem().await.unwrap()), lines(&new));
}

#[tokio::test]
async fn without_a_place_for_the_file_it_is_in_memory() {
    let (url, answer) = server().await;
    say(&answer, StatusCode::OK, authority());
    let nowhere = CaBundle::new("eu-west-1", &url, Some("/proc/none".into()));
    let pem = nowhere.pem().await.unwrap();
    say(&answer, StatusCode::OK, "");
    assert_eq!(nowhere.pem().await.unwrap(), pem);
}

#[tokio::test]
async fn where_the_address_was_never_reached_those_of_the_program_are_used() {
    let (url, answer) = server().await;
    let directory = tempfile::tempdir().unwrap();
    let bundle = bundle(&url, &directory);
    let shipped = bundle.pem().await.unwrap();
    assert_eq!(shipped.matches("BEGIN CERTIFICATE").count(), 3, "RSA 2048, RSA 4096 and ECC 384");
    assert!(!directory.path().join("cache").exists(), "they are not taken for those that were fetched");
    for region in ["eu-central-1", "us-east-1", "ap-southeast-4", "il-central-1"] {
        let other = CaBundle::new(region, "http://127.0.0.1:1/{region}", None).pem().await.unwrap();
        assert!(other.matches("BEGIN CERTIFICATE").count() == 3 && other != shipped, "{region}");
    }
    say(&answer, StatusCode::OK, authority());
    let fresh = CaBundle::new("eu-west-1", &url, None);
    assert_ne!(fresh.pem().await.unwrap(), shipped, "what is published comes first");
}
