//! Seen from outside: metrics, probes, logs, settings, a graceful end.

use std::fs;
use std::time::Duration;

use pgtenant_tests::{Cli, Site, SiteOptions, superuser_sql, unique};
use serde_json::{Value, json};

use crate::shared::{self, Plane};

#[tokio::test]
async fn metrics_tell_time_to_ready_queue_retries_drift_connections_and_build() {
    let plane = Plane::start(SiteOptions::shared().await).await;
    let (api, namespace) = (plane.api(), unique("metrics"));
    api.ready(&namespace, "db").await;
    superuser_sql(&plane.site.superuser, None, &format!("alter role \"{namespace}-db-read\" connection limit 1")).await;
    pgtenant_tests::soon("the limit is put back", || async {
        let sql = format!("select rolconnlimit::text from pg_roles where rolname = '{namespace}-db-read'");
        let limit = pgtenant_tests::rows(&plane.site.superuser, None, &sql).await;
        if limit == ["-1"] { Ok(()) } else { Err(format!("{limit:?}")) }
    })
    .await;
    superuser_sql(&plane.site.superuser, None, &format!("create database \"{namespace}-foreign\"")).await;
    api.create(&namespace, "foreign").await;
    api.is_in(&namespace, "foreign", "Failed").await;
    api.ask(&format!("/v1/namespaces/{namespace}/databases/db/credentials/rotate")).await.expect(202);
    api.is_ready(&namespace, "db").await;
    let wanted = [
        "pgtenant_build_info{version=",
        "pgtenant_time_to_ready_seconds_bucket{",
        "pgtenant_time_to_ready_seconds_sum{",
        "pgtenant_claims{",
        "pgtenant_queue_length ",
        "pgtenant_cluster_connections{",
        "pgtenant_ledger_connections ",
        "pgtenant_retries_total{",
        "pgtenant_drift_repaired_total{",
        "pgtenant_credentials_rotated_total ",
        "pgtenant_looks_total{",
        "pgtenant_http_requests_total{",
        "pgtenant_http_request_duration_seconds_bucket{",
        "# TYPE pgtenant_time_to_ready_seconds histogram",
        "# HELP pgtenant_time_to_ready_seconds",
    ];
    pgtenant_tests::soon("every metric is there", || async {
        let answer = api.get("/metrics").await.expect(200);
        assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
        let missing: Vec<_> = wanted.iter().filter(|name| !answer.text.contains(**name)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("missing: {missing:?}")) }
    })
    .await;
    assert!(plane.serve.metric("pgtenant_cluster_connections").await <= 8.0, "at most 8 connections to the cluster");
    let text = api.get("/metrics").await.text;
    assert!(!text.contains(&namespace), "a tenant's name is no label: it would grow without bound");
    let health = api.get("/healthz").await.expect(200).json;
    assert_eq!((&health["status"], health["version"].is_string()), (&json!("ok"), true));
    let ready = api.get("/readyz").await.expect(200).json;
    assert_eq!(ready["parts"], json!(["ledger", "engine"]));
}

#[tokio::test]
async fn every_line_of_the_log_about_a_claim_names_it_in_json() {
    let plane = shared::calm().await;
    let (api, namespace) = (plane.api(), unique("log"));
    api.ready(&namespace, "db").await;
    // The log's line follows the event.
    let about = pgtenant_tests::soon("the engine says what it does with a claim", || async {
        let raw = plane.serve.running.stderr();
        let whole = raw.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let about: Vec<Value> = whole
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}")))
            .filter(|line: &Value| line.to_string().contains(&namespace))
            .collect();
        let engine = about.iter().any(|line| line["target"].as_str().is_some_and(|target| target.contains("engine")));
        if engine { Ok(about) } else { Err(format!("{about:#?}")) }
    })
    .await;
    for line in &about {
        let claim = line["span"]["claim"].as_str().or(line["claim"].as_str()).unwrap_or_default();
        assert!(
            claim == format!("{namespace}/db") || claim == "db" || line["span"]["namespace"] == namespace,
            "{line}"
        );
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn sigterm_finishes_what_is_under_way_and_takes_nothing_new() {
    let options = SiteOptions::shared().await;
    let level = "info,pgtenant=debug,sqlx=debug".to_owned();
    let site = Site::new(SiteOptions { look: "10m".to_owned(), level, ..options }).await;
    let mut serve = site.serve_with("serve", &[("PGTENANT_FAULT", "stall=2s@after:store")]).await;
    serve.is_ready().await;
    let namespace = unique("term");
    serve.api().create(&namespace, "under-way").await;
    serve
        .running
        .find("it is at work", Duration::from_secs(20), |_, log| log.contains("fault point").then_some(()))
        .await;
    let begun = std::time::Instant::now();
    let status = serve.stop().await;
    assert_eq!(status.code(), Some(0), "{}", serve.running.said());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let states = site.ledger_rows("select state || coalesce(lease_until > now(), false) from claims").await;
    assert_eq!(states, ["Readyfalse"], "the claim under way was finished, and its lease given back");
    pgtenant_tests::works_for_an_application(&site.secrets, &namespace, "under-way").await;
}

#[tokio::test]
async fn config_check_names_the_place_of_each_problem_and_shows_no_secret() {
    let site = Site::new(SiteOptions::shared().await).await;
    let config = site.config.to_string_lossy().into_owned();
    let fine = site.cli().run(&["config", "check", "--config", &config]).await.expect(0);
    assert!(fine.stdout.contains("can be used") && fine.stdout.contains("look.interval"), "{}", fine.stdout);

    let cli = Cli::new().env("PGTENANT_LOG__FORMAT", "text").env("PGTENANT_LEDGER__PASSWORD", "do-not-show-this");
    let json = cli.run(&["config", "check", "--config", &config, "--listen", "127.0.0.1:1", "-o", "json"]).await;
    let shown = json.json();
    let source = |key: &str| {
        let settings = shown["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == key).unwrap()["source"].as_str().unwrap().to_owned()
    };
    assert_eq!(source("log.format"), "PGTENANT_LOG__FORMAT");
    assert_eq!(source("listen"), "--listen");
    assert!(source("look.interval").starts_with(&config), "{}", source("look.interval"));
    assert!(!json.stdout.contains("do-not-show-this"), "{}", json.stdout);

    let broken = site.path().join("broken.toml");
    fs::write(
        &broken,
        "listen = \"nowhere\"\n[log]\nformat = \"xml\"\n[look]\nintervall = \"5m\"\n[ledger]\nurl = \"mysql://x\"\n",
    )
    .unwrap();
    let broken = broken.to_string_lossy().into_owned();
    for command in [&["config", "check"][..], &["serve"]] {
        let args = [command, &["--config", &*broken]].concat();
        let done = Cli::new().run(&args).await;
        assert_ne!(done.status, 0);
        for part in [":1", "listen", ":3", "log.format", ":5", "intervall", "ledger.url"] {
            assert!(done.stderr.contains(part), "{args:?}: no {part}: {}", done.stderr);
        }
    }
    let missing = Cli::new().run(&["serve", "--config", "/no/such/file.toml"]).await;
    assert!(missing.status != 0 && missing.stderr.contains("/no/such/file.toml"), "{}", missing.stderr);
}

#[tokio::test]
async fn a_wish_in_the_first_moment_of_a_new_control_plane_is_taken_or_has_to_come_again() {
    let site = Site::new(SiteOptions::shared().await).await;
    let namespace = unique("first");
    let serve = site.serve("first").await;
    let answer = serve.api().post(&format!("/v1/namespaces/{namespace}/databases"), json!({"name": "db"})).await;
    assert!([201, 503].contains(&answer.status), "{}: {}", answer.status, answer.text);
}
