//! HAProxy in front of a lab's nodes: it asks the health service of each, and leads writes and reads apart.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use pgtenant_lab::{Lab, LabKind, LabOptions};
use sqlx::postgres::{PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use crate::folder;
use crate::ha::{DEADLINE, options, pgtenant, ports};

async fn is_standby(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection).await
}

async fn node_of(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("SHOW cluster_name").fetch_one(connection).await.expect("a node's name")
}

async fn session(lab: &Lab, port: u16) -> PgConnection {
    lab.login(port).connect().await.expect("a session through HAProxy")
}

#[tokio::test]
async fn writes_and_reads_are_led_apart_and_sessions_follow_roles() {
    let dir = folder();
    let mut lab = Lab::create(options(dir.path(), LabKind::Haproxy)).expect("a lab");
    lab.up(|_| {}).await.expect("up");
    let ([write], [read]) = (&ports(&lab.endpoints().write)[..], &ports(&lab.endpoints().read)[..]) else {
        panic!("one endpoint each: {:?}", lab.endpoints())
    };
    let mut readers = Vec::new();
    for _ in 0..4 {
        assert!(!is_standby(&mut session(&lab, *write).await).await.expect("an answer"));
        let mut reader = session(&lab, *read).await;
        assert!(is_standby(&mut reader).await.expect("an answer"));
        readers.push((node_of(&mut reader).await, reader));
    }
    // `leastconn` has given each standby some.
    let of = |name: &str| readers.iter().filter(|(node, _)| node == name).count();
    let names: Vec<String> = lab.nodes().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().map(|name| of(name)).collect::<Vec<_>>(), [0, 2, 2]);
    let plain =
        lab.login(*write).ssl_mode(PgSslMode::Disable).connect().await.expect_err("TLS is the servers' to ask for");
    assert!(plain.to_string().contains("no encryption"), "{plain}");

    lab.kill("node-1").await.expect("a kill");
    let start = Instant::now();
    let promoted = loop {
        match lab.primary().await {
            Some(primary) => break primary,
            None => assert!(start.elapsed() < DEADLINE, "nobody was promoted: {:#?}", lab.status().await),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for (node, reader) in &mut readers {
        // Sessions for reads do not stay at what takes writes now; those elsewhere are left alone.
        while *node == promoted && is_standby(reader).await.is_ok() {
            assert!(start.elapsed() < DEADLINE, "a session for reads has stayed at {promoted}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if *node != promoted {
            assert!(is_standby(reader).await.expect("it goes on"));
        }
    }
    // It has told HAProxy by now that it is no standby; that it is the primary comes with the same answers.
    loop {
        match lab.login(*write).connect().await {
            Ok(mut writer) => {
                assert_eq!(node_of(&mut writer).await, promoted);
                break;
            }
            Err(error) => assert!(start.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn the_health_login_has_no_privilege_and_its_program_may_be_anywhere() {
    let dir = folder();
    // Only this user may go there, as to a folder of root's.
    let hidden = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(hidden.path(), Permissions::from_mode(0o700)).expect("a mode");
    let program = hidden.path().join("pgtenant");
    std::os::unix::fs::symlink(pgtenant(), &program).expect("a link");
    let options = LabOptions { nodes: Some(1), health_program: Some(program), ..options(dir.path(), LabKind::Haproxy) };
    let mut lab = Lab::create(options).expect("a lab");
    lab.up(|_| {}).await.expect("up");
    let mut connection = session(&lab, ports(&lab.endpoints().write)[0]).await;
    let sql = "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls \
               OR EXISTS (SELECT FROM pg_auth_members WHERE member = oid) FROM pg_roles WHERE rolname = 'health'";
    let more: bool = sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect("its role");
    assert!(!more);
    connection.close().await.expect("a close");
    assert_eq!(lab.health_urls().len(), 1);
    let root = std::fs::metadata(lab.dir()).expect("the lab's folder").uid() == 0;
    assert_eq!(lab.dir().join("nodes/pgtenant").exists(), root, "it is copied for another user");
}
