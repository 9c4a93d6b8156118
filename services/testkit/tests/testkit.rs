//! The servers that other crates' tests run on.

use pgtenant_testkit::{cluster, cluster_of, fresh_database, kubernetes, own_kubernetes, pair, unique};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};

async fn ask(options: &PgConnectOptions, sql: &'static str) -> String {
    let mut connection = options.connect().await.expect("a login");
    let answer = sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("an answer");
    connection.close().await.expect("a close");
    answer
}

#[tokio::test]
async fn tests_of_one_process_share_a_server() {
    let (first, second) = tokio::join!(cluster(), cluster());
    assert!(std::ptr::eq(first, second));
    assert_eq!(ask(&first.superuser().options, "SHOW server_version_num").await[..2], first.major().to_string());
}

#[tokio::test]
async fn a_provisioner_is_no_superuser() {
    let login = cluster().await.fresh_provisioner().await;
    let sql =
        "SELECT format('%s %s %s', rolsuper, rolcreatedb, rolcreaterole) FROM pg_roles WHERE rolname = current_user";
    assert_eq!(ask(&login.options, sql).await, "f t t");
}

#[tokio::test]
async fn a_fresh_database_is_empty_and_of_its_own() {
    let (first, second) = tokio::join!(fresh_database("ledger"), fresh_database("ledger"));
    let name = ask(&first, "SELECT current_database()::text").await;
    assert!(name.starts_with("ledger-"), "{name}");
    assert_ne!(name, ask(&second, "SELECT current_database()::text").await);
    assert_ne!(unique("a"), unique("a"));
}

#[tokio::test]
async fn a_standby_is_there_when_it_is_asked_for() {
    let server = cluster().await;
    let (first, second) = tokio::join!(server.standby(), server.standby());
    assert_eq!(first.get_port(), second.get_port());
    assert_eq!(ask(&first, "SELECT pg_is_in_recovery()::text").await, "true");
    assert_eq!(server.hosts().await.len(), 2);
}

#[tokio::test]
async fn a_pair_can_be_torn_down() {
    let mut pair = pair().await;
    pair.primary().kill().await;
    pair.promote_standby().await.expect("a promotion");
    assert_eq!(ask(&pair.superuser(), "SELECT pg_is_in_recovery()::text").await, "false");
}

#[tokio::test]
async fn every_supported_version_runs() {
    for major in pgtenant_testkit::SUPPORTED_VERSIONS {
        let server = cluster_of(major).await;
        let login = server.fresh_provisioner().await;
        assert_eq!(ask(&login.options, "SHOW server_version_num").await[..2], major.to_string());
    }
}

#[tokio::test]
async fn a_shared_kubernetes_and_one_of_ones_own_are_two() {
    let (first, second) = tokio::join!(kubernetes(), kubernetes());
    assert!(std::ptr::eq(first, second));
    let mut own = own_kubernetes().await;
    assert_ne!(own.url(), first.url());
    own.stop().await.expect("a stop");
    assert!(own.pids().is_empty());
    assert_eq!(first.pids().len(), 3);
}
