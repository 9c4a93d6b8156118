//! pgpool-II in front of a lab's nodes, as tenants meet it: their logins come and go, and pgpool is told of none of them.

use std::time::{Duration, Instant};

use pgtenant_lab::{Lab, LabKind, LabOptions};
use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::folder;
use crate::ha::{DEADLINE, options, ports};

async fn one_node(dir: &std::path::Path) -> Lab {
    let mut lab = Lab::create(LabOptions { nodes: Some(1), ..options(dir, LabKind::Repmgr) }).expect("a lab");
    lab.up(|_| {}).await.expect("up");
    lab
}

/// To the first node itself.
async fn execute(lab: &Lab, sql: &str) {
    let mut connection = lab.login(lab.nodes()[0].1).connect().await.expect("the node");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Through pgpool.
fn tenant(lab: &Lab, password: &str) -> PgConnectOptions {
    let [port] = ports(&lab.endpoints().write)[..] else { panic!("one endpoint: {:?}", lab.endpoints()) };
    lab.login(port).username("shop-write").password(password).database("shop")
}

async fn who(options: PgConnectOptions) -> sqlx::Result<String> {
    let mut connection: PgConnection = options.connect().await?;
    let user = sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut connection).await?;
    // As a client ends in good order: other sessions pgpool would not keep anyway.
    connection.close().await?;
    Ok(user)
}

/// Waits until the server has no session of the tenant, whose client has gone.
async fn none_is_kept(lab: &Lab) {
    let start = Instant::now();
    let mut connection = lab.login(lab.nodes()[0].1).connect().await.expect("the node");
    loop {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'";
        let kept: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("an answer");
        if kept == 0 {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "pgpool keeps {kept} sessions");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn logins_that_come_later_get_in_and_changed_passwords_count_at_once() {
    let dir = folder();
    let lab = one_node(dir.path()).await;
    // Not `postgres`, of which pgpool keeps no sessions whatever it is told.
    execute(&lab, "CREATE DATABASE shop").await;
    execute(&lab, r#"CREATE ROLE "shop-write" LOGIN PASSWORD 'first'"#).await;
    assert_eq!(who(tenant(&lab, "first")).await.expect("in at once"), "shop-write");
    // A session that pgpool kept would let the old password in, and refuse the new one.
    none_is_kept(&lab).await;

    let plain = who(tenant(&lab, "first").ssl_mode(PgSslMode::Disable)).await.expect_err("refused without TLS");
    assert!(plain.to_string().contains("client authentication failed"), "{plain}");
    let wrong = who(tenant(&lab, "wrong")).await.expect_err("refused");
    assert!(wrong.to_string().contains("authentication failed"), "{wrong}");

    execute(&lab, r#"ALTER ROLE "shop-write" PASSWORD 'second'"#).await;
    assert_eq!(who(tenant(&lab, "second")).await.expect("the new one at once"), "shop-write");
    who(tenant(&lab, "first")).await.expect_err("the old one is over");
    execute(&lab, r#"ALTER ROLE "shop-write" NOLOGIN"#).await;
    who(tenant(&lab, "second")).await.expect_err("it may not log in any more");
}

#[tokio::test]
async fn ended_sessions_do_not_take_a_server_out() {
    let dir = folder();
    let lab = one_node(dir.path()).await;
    execute(&lab, "CREATE DATABASE shop").await;
    execute(&lab, r#"CREATE ROLE "shop-write" LOGIN PASSWORD 'first'"#).await;
    let mut session = tenant(&lab, "first").connect().await.expect("a session");
    execute(&lab, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = 'shop'").await;
    sqlx::raw_sql("SELECT 1").execute(&mut session).await.expect_err("the session has ended");
    // At once, and not after a fail-over.
    assert_eq!(who(tenant(&lab, "first")).await.expect("the next one"), "shop-write");
    let other = tenant(&lab, "first").connect().await.expect("one that is gone with its database");
    execute(&lab, "DROP DATABASE shop WITH (FORCE)").await;
    assert_eq!(who(tenant(&lab, "first").database("postgres")).await.expect("another database"), "shop-write");
    drop(other);
}

#[tokio::test]
async fn one_node_becomes_three() {
    let dir = folder();
    let mut lab = one_node(dir.path()).await;
    execute(&lab, "CREATE TABLE t (n int)").await;
    let endpoint = lab.endpoints().write;
    lab.scale(3, |_| {}).await.expect("three nodes");
    assert_eq!(lab.endpoints().write, endpoint, "clients go where they went");
    for (_, port) in lab.nodes() {
        let mut standby = lab.login(port).connect().await.expect("a node");
        let sql = "SELECT pg_wal_replay_pause() WHERE pg_is_in_recovery()";
        sqlx::raw_sql(sql).execute(&mut standby).await.expect("it falls behind");
    }
    let through = || async { lab.login(ports(&endpoint)[0]).connect().await.expect("through pgpool") };
    // Where reads were spread, each session would have a node of its own for them.
    for n in 1..=20 {
        let mut connection = through().await;
        sqlx::query("INSERT INTO t VALUES ($1)").bind(n).execute(&mut connection).await.expect("a write");
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut connection).await.expect("a read");
        assert_eq!(seen, i64::from(n), "what was written is read");
    }
    let mut connection = through().await;
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    let standbys: i64 = sqlx::query_scalar(streaming).fetch_one(&mut connection).await.expect("an answer");
    assert_eq!(standbys, 2);
}

#[tokio::test]
async fn pgpool_looks_with_as_little_as_it_needs() {
    let dir = folder();
    let lab = one_node(dir.path()).await;
    let mut connection = lab.login(lab.nodes()[0].1).connect().await.expect("the node");
    let sql = "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls, \
               ARRAY(SELECT roleid::regrole::text FROM pg_auth_members WHERE member = oid) \
               FROM pg_roles WHERE rolname = 'pgpool'";
    let found: (bool, Vec<String>) = sqlx::query_as(sql).fetch_one(&mut connection).await.expect("its role");
    assert_eq!(found, (false, vec!["pg_monitor".to_owned()]));

    // What `status` says to paste leads through pgpool, too.
    let psql = format!("{} -Atc 'select 6 * 7'", lab.status().await.admin.psql);
    let pasted = std::process::Command::new("bash").args(["-c", &psql]).output().expect("bash");
    assert_eq!(String::from_utf8_lossy(&pasted.stdout), "42\n", "{}", String::from_utf8_lossy(&pasted.stderr));
}

#[tokio::test]
async fn new_passwords_end_no_session_and_can_be_gone_on_with() {
    let dir = folder();
    let mut lab = one_node(dir.path()).await;
    execute(&lab, "CREATE DATABASE shop").await;
    execute(&lab, r#"CREATE ROLE "shop-write" LOGIN PASSWORD 'first'"#).await;
    let mut session = tenant(&lab, "first").connect().await.expect("a session");
    let pool = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'pgpool%'";
    for expected in ["pgpool_b", "pgpool"] {
        lab.rotate(Some("pgpool"), |_| {}).await.expect("a new password");
        let mut connection = lab.login(lab.nodes()[0].1).connect().await.expect("the node");
        let logins: Vec<String> = sqlx::query_scalar(pool).fetch_all(&mut connection).await.expect("logins");
        assert_eq!(logins, [expected], "by turns, and the one before is gone");
        let alive: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut session).await.expect("the session goes on");
        assert_eq!(alive, 1);
    }
    // As if the process had been killed when the server had the next password already.
    std::fs::write(lab.dir().join("superuser.next.password"), "kept-before").expect("written");
    execute(&lab, "ALTER ROLE postgres PASSWORD 'kept-before'").await;
    lab.rotate(Some("postgres"), |_| {}).await.expect("it is gone on with");
    execute(&lab, "SELECT 1").await;
    assert_eq!(lab.password().expose_secret(), "kept-before");
    let error = lab.rotate(Some("nobody"), |_| {}).await.expect_err("no such login");
    assert!(error.to_string().ends_with("it has postgres, repmgr, pgpool"), "{error}");
}
