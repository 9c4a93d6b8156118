//! Local clusters, as `pgtenant dev` and other crates' tests use them.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use pgtenant_lab::{Binaries, CertificateAuthority, Cluster, ClusterOptions, Error};
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Executor};

use crate::{DEADLINE, folder, helper, killed_when_up};

fn options(dir: &Path) -> ClusterOptions {
    let binaries = Binaries::locate(None).expect("PostgreSQL: run .ci/postgres");
    ClusterOptions { fsync: false, ..ClusterOptions::new(dir.join("postgresql"), binaries) }
}

fn single(dir: &Path) -> ClusterOptions {
    ClusterOptions { standby: false, ..options(dir) }
}

async fn open(options: ClusterOptions) -> Cluster {
    Cluster::open_or_create(options, |_| {}).await.expect("a cluster")
}

async fn refused(options: ClusterOptions) -> Error {
    Cluster::open_or_create(options, |_| {}).await.expect_err("it is refused")
}

async fn run(login: &PgConnectOptions, sql: &'static str) {
    let mut connection = login.connect().await.expect("a login");
    connection.execute(sql).await.expect("executed");
    connection.close().await.expect("a close");
}

async fn ask(login: &PgConnectOptions, sql: &'static str) -> sqlx::Result<String> {
    let mut connection = login.connect().await?;
    let answer = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(answer)
}

/// Waits for the answer.
async fn expect(login: &PgConnectOptions, sql: &'static str, wanted: &str) {
    let start = Instant::now();
    loop {
        let answer = ask(login, sql).await;
        if answer.as_ref().is_ok_and(|answer| answer == wanted) {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{sql}: {answer:?}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned()
}

const WRITABLE: &str = "SELECT (NOT pg_is_in_recovery())::text";
const ROWS: &str = "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t";

#[tokio::test]
async fn logs_in_with_verified_tls_and_scram_and_not_otherwise() {
    let dir = folder();
    let mut cluster = open(single(dir.path())).await;
    let login = cluster.superuser();

    let sql = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(ask(&login, sql).await.expect("TLS"), "TLSv1.3");
    let sql = "SELECT string_agg(DISTINCT type || ' ' || auth_method, ', ') FROM pg_hba_file_rules";
    assert_eq!(ask(&login, sql).await.expect("rules"), "hostssl scram-sha-256");
    let sql = "SELECT left(rolpassword, 14) FROM pg_authid WHERE rolname = current_user";
    assert_eq!(ask(&login, sql).await.expect("a verifier"), "SCRAM-SHA-256$");
    let sql = "SELECT current_setting('data_checksums') || current_setting('wal_log_hints')";
    assert_eq!(ask(&login, sql).await.expect("settings"), "onon");

    let plain = ask(&login.clone().ssl_mode(PgSslMode::Disable), WRITABLE).await.expect_err("plaintext");
    assert_eq!(code(&plain), "28000", "{plain}");
    let wrong = ask(&login.clone().password("wrong"), WRITABLE).await.expect_err("a wrong password");
    assert_eq!(code(&wrong), "28P01", "{wrong}");
    let stranger = CertificateAuthority::open_or_create(&dir.path().join("stranger")).expect("another authority");
    let unverified = login.clone().ssl_root_cert(stranger.certificate_file());
    assert!(matches!(ask(&unverified, WRITABLE).await, Err(sqlx::Error::Tls(_) | sqlx::Error::Io(_))));

    let password = cluster.superuser_password().expose_secret().to_owned();
    let pid = cluster.primary().pid().expect("a process");
    for file in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains(&password), "the password is in {file}");
    }
    for secret in ["superuser.password", "ca.key"] {
        let mode = fs::metadata(dir.path().join("postgresql").join(secret)).expect("the file").mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
}

#[tokio::test]
async fn the_servers_do_not_run_as_root() {
    let dir = folder();
    let mut cluster = open(single(dir.path())).await;
    let pid = cluster.primary().pid().expect("a process");
    let server = fs::metadata(format!("/proc/{pid}")).expect("the process").uid();
    let me = fs::metadata("/proc/self").expect("this process").uid();
    assert_ne!(server, 0);
    assert!(me == 0 || me == server);
    assert!(cluster.relocated().is_none());
}

#[tokio::test]
async fn a_killed_server_comes_back_with_all_it_confirmed() {
    let dir = folder();
    let mut cluster = open(single(dir.path())).await;
    let login = cluster.superuser();
    run(&login, "CREATE TABLE t AS SELECT 1 AS n").await;
    cluster.primary().kill().await;
    assert!(!cluster.primary().is_running());
    ask(&login, ROWS).await.expect_err("nobody answers");
    cluster.start(|_| {}).await.expect("a start");
    assert_eq!(ask(&login, ROWS).await.expect("an answer"), "1");
}

#[tokio::test]
async fn a_standby_follows_takes_over_and_the_old_primary_follows_it() {
    let dir = folder();
    let mut cluster = open(options(dir.path())).await;
    let first = cluster.superuser();
    let second = cluster.standby().expect("a standby").superuser();
    run(&first, "CREATE TABLE t AS SELECT 1 AS n").await;
    expect(&second, ROWS, "1").await;
    assert_eq!(ask(&second, WRITABLE).await.expect("an answer"), "false");
    expect(&first, "SELECT string_agg(slot_name || active, ',') FROM pg_replication_slots", "pgtenant_node_2true")
        .await;

    cluster.primary().kill().await;
    cluster.promote_standby().await.expect("a promotion");
    assert_eq!(cluster.superuser().get_port(), second.get_port());
    run(&second, "INSERT INTO t VALUES (2)").await;

    cluster.start(|_| {}).await.expect("a convergence");
    assert_eq!(ask(&first, WRITABLE).await.expect("an answer"), "false");
    run(&second, "INSERT INTO t VALUES (3)").await;
    expect(&first, ROWS, "1 2 3").await;
}

#[tokio::test]
async fn opened_again_after_a_failover_only_the_newer_primary_is_writable() {
    let dir = folder();
    let mut cluster = open(options(dir.path())).await;
    let hosts = cluster.hosts();
    run(&cluster.superuser(), "CREATE TABLE t AS SELECT 1 AS n").await;
    let second = cluster.standby().expect("a standby").superuser();
    expect(&second, ROWS, "1").await;
    cluster.promote_standby().await.expect("a promotion");
    run(&second, "INSERT INTO t VALUES (2)").await;
    cluster.stop().await.expect("a stop");
    drop(cluster);

    let mut said = Vec::new();
    let again = Cluster::open_or_create(options(dir.path()), |line| said.push(line.to_owned())).await;
    let mut cluster = again.expect("the cluster");
    assert_eq!(cluster.hosts(), hosts);
    assert_eq!(cluster.superuser().get_port(), second.get_port());
    let first = cluster.standby().expect("a standby").superuser();
    expect(&first, ROWS, "1 2").await;
    assert_eq!(ask(&first, WRITABLE).await.expect("an answer"), "false");
    assert!(said.iter().any(|line| line == "copying node-2 to node-1"), "{said:?}");

    cluster.stop().await.expect("a stop");
    drop(cluster);
    let mut said = Vec::new();
    let again = Cluster::open_or_create(options(dir.path()), |line| said.push(line.to_owned())).await;
    assert_eq!(again.expect("the cluster").superuser().get_port(), second.get_port());
    assert!(said.iter().all(|line| line.starts_with("starting ")), "nothing is copied without need: {said:?}");
}

#[tokio::test]
async fn a_broken_standby_is_copied_anew() {
    let dir = folder();
    let mut cluster = open(options(dir.path())).await;
    let standby = cluster.standby().expect("a standby");
    let login = standby.superuser();
    standby.stop().await.expect("a stop");
    fs::remove_file(standby.data().join("global/pg_control")).expect("the control file");
    cluster.start(|_| {}).await.expect("a convergence");
    expect(&login, WRITABLE, "false").await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let dir = folder();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let error = refused(ClusterOptions { ports: [Some(port), None], ..single(dir.path()) }).await;
    assert!(matches!(error, Error::PortInUse { port: named, .. } if named == port), "{error}");
    drop(taken);
    open(single(dir.path())).await;
}

#[tokio::test]
async fn data_of_another_version_is_refused() {
    let dir = folder();
    let mut cluster = open(single(dir.path())).await;
    let version = cluster.primary().data().join("PG_VERSION");
    cluster.stop().await.expect("a stop");
    drop(cluster);
    fs::write(version, "9\n").expect("written");
    let error = refused(single(dir.path())).await;
    assert!(error.to_string().contains("install postgresql-9, or choose another --dir"), "{error}");
}

#[tokio::test]
async fn data_of_another_version_is_opened_with_that_version_where_it_is_installed() {
    let dir = folder();
    let default = options(dir.path()).binaries.major();
    let other = if default == 14 { 16 } else { 14 };
    let binaries = Binaries::of_major(other).expect("another version: run .ci/postgres-versions");
    let cluster = open(ClusterOptions { binaries, ..single(dir.path()) }).await;
    drop(cluster);
    let cluster = open(single(dir.path())).await;
    assert!(cluster.version().starts_with(&other.to_string()), "{}", cluster.version());
}

/// `pgtenant dev` does all this on a runtime with several threads.
#[test]
fn a_cluster_can_be_sent_to_another_thread() {
    fn sendable<T: Send>(_: &T) {}
    let dir = folder();
    sendable(&Cluster::open_or_create(options(dir.path()), |_| {}));
    fn shareable<T: Send + Sync>() {}
    shareable::<Cluster>();
    shareable::<Error>();
}

#[tokio::test]
async fn a_setting_that_stops_the_server_is_shown_from_its_log() {
    let dir = folder();
    let extra_conf = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = refused(ClusterOptions { extra_conf, ..single(dir.path()) }).await;
    assert!(error.to_string().contains("unrecognized configuration parameter \"no_such_setting\""), "{error}");
}

#[tokio::test]
async fn a_folder_is_for_one_process_at_a_time() {
    let dir = folder();
    let cluster = open(single(dir.path())).await;
    let error = refused(single(dir.path())).await;
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    drop(cluster);
    open(single(dir.path())).await;
}

#[test]
fn a_folder_without_servers_is_named_with_what_to_install() {
    let dir = folder();
    let error = Binaries::locate(Some(dir.path())).expect_err("nothing is there");
    assert!(error.to_string().contains("apt-get install postgresql"), "{error}");
    assert!(error.to_string().contains("PGTENANT_PG_BIN"), "{error}");
}

#[tokio::test]
async fn data_moves_to_where_the_servers_user_can_reach_it() {
    if fs::metadata("/proc/self").expect("this process").uid() != 0 {
        return; // The servers run as who made the folder, who can enter it.
    }
    let dir = folder();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).expect("a folder");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("a mode");

    let cluster = open(single(&closed)).await;
    let place = cluster.relocated().expect("another place").to_path_buf();
    assert!(place.starts_with("/var/lib/pgtenant"), "{}", place.display());
    assert_eq!(fs::read_link(closed.join("postgresql/nodes")).expect("a link"), place);
    run(&cluster.superuser(), "CREATE TABLE t AS SELECT 1 AS n").await;
    drop(cluster);
    let cluster = open(single(&closed)).await;
    assert_eq!(cluster.relocated(), Some(place.as_path()));
    assert_eq!(ask(&cluster.superuser(), ROWS).await.expect("an answer"), "1");
    cluster.destroy().await.expect("removed");
    assert!(!place.exists());
}

#[tokio::test]
#[ignore = "not a test: the process that the next one kills"]
async fn helper_that_runs_until_it_is_killed() {
    let dir = helper::dir();
    let cluster = open(options(&dir)).await;
    run(&cluster.superuser(), "CREATE TABLE t AS SELECT 1 AS n").await;
    helper::is_up(&dir).await;
}

#[tokio::test]
async fn servers_end_with_a_killed_process_and_the_next_goes_on() {
    let dir = folder();
    killed_when_up("postgresql::helper_that_runs_until_it_is_killed", dir.path()).await;
    let start = Instant::now();
    let nodes = dir.path().join("postgresql/nodes");
    let pid_files = ["node-1", "node-2"].map(|node| nodes.join(node).join("data/postmaster.pid"));
    while pid_files.iter().any(|file| file.exists()) {
        assert!(start.elapsed() < DEADLINE, "the servers still run");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let mut cluster = open(options(dir.path())).await;
    assert_eq!(ask(&cluster.superuser(), ROWS).await.expect("an answer"), "1");
    let standby = cluster.standby().expect("a standby").superuser();
    expect(&standby, ROWS, "1").await;
}
