//! `pgtenant dev --topology`: a highly available cluster in the place of a primary and a standby.

use pgtenant_tests::{Cli, Dev, Folder, eventually, works_for_an_application};
use serde_json::Value;

use crate::topologies::{PATIENCE, seen};

/// The one key of the cluster's topology.
async fn kind(dev: &Dev) -> String {
    let cluster = dev.api().get("/v1/clusters/default").await.expect(200).json;
    let topology: &Value = &cluster["spec"]["topology"];
    topology.as_object().unwrap().keys().next().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patroni_is_switched_over_and_goes_on_after_a_restart() {
    let folder = Folder::new("dev-topology");
    let dir = folder.join("data");
    let mut dev = Dev::start_with(&dir, &["--topology", "patroni"]).await;
    dev.api().is_ready("demo", "orders").await;
    assert_eq!(kind(&dev).await, "patroni");
    works_for_an_application(&dev.secrets(), "demo", "orders").await;
    seen(&dev.api(), "a synchronous standby", |_, members| members.iter().any(|member| member["sync"] == "sync")).await;
    let said = dev.cli().run(&["cluster", "switchover", "default", "--yes"]).await.expect(0).stdout;
    assert!(said.contains("is the primary after"), "{said}");
    dev.interrupt().await;

    let mut again = Dev::start(&dir).await;
    assert_eq!(kind(&again).await, "patroni", "what is there goes on");
    // The endpoint that is stored follows the primary.
    eventually("the database is there", PATIENCE, || async {
        let credential = pgtenant_tests::Credential::read(&again.secrets(), "demo", "orders", "read");
        pgtenant_tests::connect(&credential).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    again.interrupt().await;
    let other = ["dev", "--topology", "streaming", "--listen", "127.0.0.1:0", "--dir"];
    let refused = Cli::new().run(&[&other[..], &[dir.to_str().unwrap()]].concat()).await.expect(1).stderr;
    assert!(refused.contains("patroni"), "{refused}");
}

async fn serves_a_claim(wanted: &str, described: &str) {
    let folder = Folder::new("dev-topology");
    let mut dev = Dev::start_with(&folder.join("data"), &["--topology", wanted]).await;
    dev.api().is_ready("demo", "orders").await;
    assert_eq!(kind(&dev).await, described);
    works_for_an_application(&dev.secrets(), "demo", "orders").await;
    dev.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streaming_serves_a_claim() {
    serves_a_claim("streaming", "streaming").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repmgr_serves_a_claim() {
    serves_a_claim("repmgr", "repmgr").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_serves_a_claim() {
    serves_a_claim("haproxy", "haproxy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_auto_failover_serves_a_claim() {
    serves_a_claim("pg-auto-failover", "pgAutoFailover").await;
}
