//! Every kind of lab lives through what a cluster does: up, fail-over, the old primary's return, scaling, an end without traces.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgtenant_lab::{Binaries, Error, Lab, LabKind, LabOptions, LabRole, Lifetime};
use secrecy::ExposeSecret as _;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};

use crate::{folder, helper, killed_when_up};

/// Generous: both cores may be at work for other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);
const TRY_DEADLINE: Duration = Duration::from_secs(5);

pub(crate) fn options(dir: &Path, kind: LabKind) -> LabOptions {
    let binaries = Binaries::locate(None).expect("PostgreSQL: run .ci/postgres");
    let health_program = (kind == LabKind::Haproxy).then(pgtenant);
    let options = LabOptions::new(dir.join("lab"), kind, binaries);
    LabOptions { lifetime: Lifetime::Bound, fsync: false, health_program, ..options }
}

/// With PgBouncer in front.
fn pooled(dir: &Path, kind: LabKind) -> LabOptions {
    LabOptions { pgbouncer: true, health_program: Some(pgtenant()), ..options(dir, kind) }
}

/// The program that answers for a node's health.
pub(crate) fn pgtenant() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    // target/debug/deps/lab-…
    let built = test.ancestors().nth(2).expect("cargo's layout").join("pgtenant");
    let program = std::env::var_os("PGTENANT_TEST_BINARY").map_or(built, PathBuf::from);
    assert!(program.exists(), "{} is not built: run `cargo build -p pgtenant` (make test does)", program.display());
    program
}

pub(crate) fn ports(endpoints: &[String]) -> Vec<u16> {
    endpoints.iter().map(|endpoint| endpoint.rsplit(':').next().expect("a port").parse().expect("a number")).collect()
}

/// Tries the write endpoints until one does it, as a client with a list of hosts would. One that was given up may be done later.
async fn write(lab: &Lab, sql: &'static str) {
    let start = Instant::now();
    let ports = ports(&lab.endpoints().write);
    for port in ports.iter().cycle() {
        let work = async {
            let mut connection = lab.login(*port).connect().await?;
            sqlx::raw_sql(sql).execute(&mut connection).await?;
            connection.close().await
        };
        match tokio::time::timeout(TRY_DEADLINE, work).await {
            Ok(Ok(())) => return,
            other => assert!(start.elapsed() < DEADLINE, "{sql}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn rows(lab: &Lab, port: u16) -> Option<i64> {
    let mut connection: PgConnection = lab.login(port).connect().await.ok()?;
    sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut connection).await.ok()
}

/// The role as which PgBouncer looks up others: the only one that it knows while nobody has made it the function for that.
async fn make_pool_login(lab: &Lab) {
    let pooler = lab.pooler().expect("a password").expect("a pooler");
    let (_, port) = lab.nodes().into_iter().next().expect("a node");
    let mut connection = lab.login(port).connect().await.expect("the first primary");
    let verifier = postgres_protocol::password::scram_sha_256(pooler.password.expose_secret().as_bytes());
    let sql = format!("CREATE ROLE {} LOGIN PASSWORD '{verifier}'; GRANT SELECT ON t TO {0}", pooler.login);
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.expect("a role");
}

/// Waits until clients of the pool are at the primary, and see so many rows.
async fn through_the_pool(lab: &Lab, wanted: i64) {
    let start = Instant::now();
    loop {
        let pooler = lab.pooler().expect("a password").expect("a pooler");
        let options = lab.login(pooler.port).username(pooler.login).password(pooler.password.expose_secret());
        let work = async {
            let mut connection = options.connect().await?;
            let sql = "SELECT pg_is_in_recovery(), count(*) FROM t";
            let found: (bool, i64) = sqlx::query_as(sql).fetch_one(&mut connection).await?;
            Ok::<_, sqlx::Error>(found)
        };
        let found = tokio::time::timeout(TRY_DEADLINE, work).await;
        if matches!(found, Ok(Ok((false, rows))) if rows == wanted) {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{found:?} through the pool; {:#?}", lab.status().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until every node has so many rows.
async fn everywhere(lab: &Lab, wanted: i64) {
    let start = Instant::now();
    for (name, port) in lab.nodes() {
        loop {
            let found = rows(lab, port).await;
            if found == Some(wanted) {
                break;
            }
            assert!(start.elapsed() < DEADLINE, "{name} has {found:?} rows, not {wanted}; {:#?}", lab.status().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Waits until the kind's own tool sees one primary and for the rest standbys.
async fn whole(lab: &Lab, nodes: usize) -> String {
    let start = Instant::now();
    loop {
        let status = lab.status().await;
        let of = |role| status.nodes.iter().filter(|node| node.role == role).count();
        // With Patroni nobody may take the leader's place before it has named a synchronous standby.
        let one_may =
            lab.kind() != LabKind::Patroni || status.nodes.iter().any(|node| node.said.starts_with("sync_standby"));
        if status.nodes.len() == nodes && of(LabRole::Primary) == 1 && of(LabRole::Standby) == nodes - 1 && one_may {
            let primary = status.nodes.iter().find(|node| node.role == LabRole::Primary);
            return primary.expect("one").name.clone();
        }
        assert!(start.elapsed() < DEADLINE, "not whole: {status:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[expect(clippy::print_stdout, reason = "runners collect what tests measure")]
fn measured(what: &str) {
    println!("  measured: lab {what}");
}

/// All that follows goes with these; here, what is connected is made to connect again.
async fn new_passwords(lab: &mut Lab) {
    let start = Instant::now();
    let port = lab.nodes()[0].1;
    let old = (lab.login(port), lab.service_password().expose_secret().to_owned());
    lab.rotate(None, |_| {}).await.expect("new passwords");
    measured(&format!("{} had new passwords after {:?}", lab.kind(), start.elapsed()));
    let error = old.0.connect().await.expect_err("the old password is over");
    assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("28P01"), "{error}");
    assert_ne!(old.1, lab.service_password().expose_secret());
    for (_, port) in lab.nodes() {
        lab.login(port).connect().await.expect("the new one");
    }
    write(lab, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await;
    write(lab, "INSERT INTO t VALUES (0) ON CONFLICT DO NOTHING").await;
    everywhere(lab, 2).await;
    write(lab, "DELETE FROM t WHERE n = 0").await;
    everywhere(lab, 1).await;
}

/// One lab for all of it: each takes seconds of both cores.
async fn lives_through_it(options: LabOptions, manual: bool) {
    let kind = options.kind;
    let mut lab = Lab::create(options).expect("a lab");
    let start = Instant::now();
    lab.up(|_| {}).await.expect("up");
    let count = lab.nodes().len();
    measured(&format!("{kind} with {count} nodes was up after {:?}", start.elapsed()));
    let primary = whole(&lab, count).await;
    let mut said = Vec::new();
    lab.up(|line| said.push(line.to_owned())).await.expect("up again");
    assert!(said.is_empty(), "what runs is left alone: {said:?}");

    write(&lab, "CREATE TABLE IF NOT EXISTS t (n int PRIMARY KEY); INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING")
        .await;
    everywhere(&lab, 1).await;
    make_pool_login(&lab).await;
    through_the_pool(&lab, 1).await;
    new_passwords(&mut lab).await;
    through_the_pool(&lab, 1).await;
    whole(&lab, count).await;
    let start = Instant::now();
    lab.kill(&primary).await.expect("a kill");
    let status = lab.status().await;
    let dead = status.nodes.iter().find(|node| node.name == primary).expect("the node");
    assert!(!dead.running && dead.processes.is_empty(), "{dead:?}");
    if manual {
        let other = lab.nodes().into_iter().map(|(name, _)| name).find(|name| *name != primary);
        lab.promote(&other.expect("a standby"), |_| {}).await.expect("a promotion");
    }
    write(&lab, "INSERT INTO t VALUES (2) ON CONFLICT DO NOTHING").await;
    measured(&format!("{kind} took writes again {:?} after the primary was killed", start.elapsed()));
    through_the_pool(&lab, 2).await;
    measured(&format!("{kind} answered through PgBouncer {:?} after the primary was killed", start.elapsed()));
    lab.kill("pgbouncer").await.expect("a kill");
    let pgbouncer = lab.status().await.services.into_iter().find(|service| service.name == "pgbouncer");
    assert!(!pgbouncer.expect("a service").running);
    lab.start("pgbouncer", |_| {}).await.expect("a start");
    through_the_pool(&lab, 2).await;

    let start = Instant::now();
    let mut said = Vec::new();
    lab.start(&primary, |line| said.push(line.to_owned())).await.expect("a start");
    assert!(!said.iter().any(|line| line.starts_with("copying")), "it is rewound: {said:?}");
    everywhere(&lab, 2).await;
    let promoted = whole(&lab, count).await;
    assert_ne!(promoted, primary);
    measured(&format!("{kind} had the old primary back after {:?}", start.elapsed()));

    let more = u16::try_from(count).expect("few") + 1;
    let start = Instant::now();
    lab.scale(more, |_| {}).await.expect("one more");
    write(&lab, "INSERT INTO t VALUES (3) ON CONFLICT DO NOTHING").await;
    everywhere(&lab, 3).await;
    whole(&lab, count + 1).await;
    measured(&format!("{kind} had one more node after {:?}", start.elapsed()));
    lab.scale(more - 1, |_| {}).await.expect("one less");
    whole(&lab, count).await;
    write(&lab, "INSERT INTO t VALUES (4) ON CONFLICT DO NOTHING").await;
    everywhere(&lab, 4).await;
    through_the_pool(&lab, 4).await;

    let start = Instant::now();
    lab.down(|_| {}).await.expect("down");
    measured(&format!("{kind} was down after {:?}", start.elapsed()));
    assert_eq!(lab.running(), Vec::<String>::new());
    lab.up(|_| {}).await.expect("up");
    whole(&lab, count).await;
    everywhere(&lab, 4).await;
    through_the_pool(&lab, 4).await;
    let dir = lab.dir().to_path_buf();
    lab.remove(|_| {}).await.expect("removed");
    assert!(!dir.exists());
}

#[tokio::test]
async fn streaming() {
    let dir = folder();
    lives_through_it(pooled(dir.path(), LabKind::Streaming), true).await;
}

#[tokio::test]
async fn patroni() {
    let dir = folder();
    lives_through_it(pooled(dir.path(), LabKind::Patroni), false).await;
}

#[tokio::test]
async fn pg_auto_failover() {
    let dir = folder();
    lives_through_it(pooled(dir.path(), LabKind::PgAutoFailover), false).await;
}

#[tokio::test]
async fn repmgr() {
    let dir = folder();
    lives_through_it(pooled(dir.path(), LabKind::Repmgr), false).await;
}

#[tokio::test]
async fn haproxy() {
    let dir = folder();
    lives_through_it(pooled(dir.path(), LabKind::Haproxy), false).await;
}

#[tokio::test]
#[ignore = "not a test: the process that the next one kills"]
async fn helper_that_runs_until_it_is_killed() {
    let dir = helper::dir();
    let mut lab =
        Lab::create(LabOptions { lifetime: Lifetime::Detached, ..options(&dir, LabKind::Streaming) }).expect("a lab");
    // The first line after the first server is up.
    let said = |line: &str| {
        if line.starts_with("copying") {
            std::fs::write(dir.join("up"), "").expect("written");
        }
    };
    lab.up(said).await.expect("up");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_up_is_gone_on_with() {
    let dir = folder();
    killed_when_up("ha::helper_that_runs_until_it_is_killed", dir.path()).await;
    let mut lab = Lab::create(options(dir.path(), LabKind::Streaming)).expect("the lab");
    assert!(lab.running().contains(&"node-1".to_owned()), "the detached primary has outlived its maker");
    lab.up(|_| {}).await.expect("up");
    whole(&lab, 2).await;
}

/// With a standby that nothing reaches any more, and that is asked first.
#[tokio::test]
async fn the_standby_that_has_received_most_is_known() {
    let dir = folder();
    let three = LabOptions { nodes: Some(3), ..options(dir.path(), LabKind::Streaming) };
    let mut lab = Lab::create(three).expect("a lab");
    lab.up(|_| {}).await.expect("up");
    let primary = whole(&lab, 3).await;
    let mut standbys = lab.nodes();
    standbys.retain(|(name, _)| *name != primary);
    let [(_, behind), (ahead, port)] = &standbys[..] else { panic!("{standbys:?}") };

    let mut connection = lab.login(*behind).connect().await.expect("a standby");
    for sql in ["ALTER SYSTEM SET primary_conninfo = 'host=none.invalid'", "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(sql).execute(&mut connection).await.expect("done");
    }
    let start = Instant::now();
    while sqlx::query("SELECT FROM pg_stat_wal_receiver")
        .fetch_optional(&mut connection)
        .await
        .expect("asked")
        .is_some()
    {
        assert!(start.elapsed() < DEADLINE, "it still receives");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    write(&lab, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").await;
    while rows(&lab, *port).await != Some(1000) {
        assert!(start.elapsed() < DEADLINE, "{ahead} has not received it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lab.kill(&primary).await.expect("a kill");
    assert_eq!(lab.most_advanced().await.as_ref(), Some(ahead));
    lab.remove(|_| {}).await.expect("removed");
}

#[tokio::test]
async fn what_can_not_be_done_says_what_can() {
    let dir = folder();
    let binaries = Binaries::locate(None).expect("PostgreSQL: run .ci/postgres");
    let error = Lab::open(&dir.path().join("none"), binaries, Lifetime::Bound).expect_err("there is none");
    assert!(error.to_string().contains("`pgtenant lab up"), "{error}");
    std::fs::create_dir(dir.path().join("lab")).expect("a folder");
    std::fs::write(dir.path().join("lab/thesis.txt"), "").expect("a file");
    let error = Lab::create(options(dir.path(), LabKind::Streaming)).expect_err("it is not a lab's");
    assert!(matches!(error, Error::NotALab { .. }), "{error}");

    std::fs::remove_file(dir.path().join("lab/thesis.txt")).expect("removed");
    let one = LabOptions { nodes: Some(1), ..options(dir.path(), LabKind::Streaming) };
    let mut lab = Lab::create(one).expect("a lab");
    let error = Lab::create(options(dir.path(), LabKind::Patroni)).expect_err("another kind");
    assert!(matches!(error, Error::OtherKind { .. }), "{error}");
    let error = lab.kill("node-7").await.expect_err("no such node");
    assert!(error.to_string().ends_with("hint: it has node-1"), "{error}");
    let error = lab.scale(0, |_| {}).await.expect_err("none");
    assert!(matches!(error, Error::Unsuited { .. }), "{error}");
}
