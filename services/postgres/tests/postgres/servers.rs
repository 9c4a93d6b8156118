//! Connections, logins, preflight.

use std::time::{Duration, Instant};

use pgtenant_model::{ClaimKey, SslMode, Tier};
use pgtenant_postgres::{
    ErrorClass, PostgresError, ProofError, Refusal, Server, ServerOptions, Timeouts, claims_on_cluster,
    generate_password, half_made, observe, plan, plan_drop, preflight,
};
use pgtenant_testkit::{cluster, cluster_of, unique};
use sqlx::ConnectOptions;

use crate::world::World;

const READ: Tier = Tier::Read;

fn server_with(world: &World, change: impl FnOnce(&mut ServerOptions)) -> Result<Server, PostgresError> {
    let mut options = world.server.options().clone();
    change(&mut options);
    Server::new(options)
}

#[tokio::test]
async fn a_login_says_what_is_known_of_its_password() {
    let world = World::new().await;
    let tenant = world.tenant();
    tenant.create().await;
    let (d, read) = (tenant.database(), tenant.role(READ));
    let password = &tenant.passwords[&READ];
    let prove = || world.server.prove(&d, &read, password);
    prove().await.unwrap();

    let wrong = generate_password(&mut rand::rng());
    let error = world.server.prove(&d, &read, &wrong).await.unwrap_err();
    assert!(matches!(error, ProofError::WrongPassword { .. }), "{error}");
    let error = world.server.prove(&d, "nobody", password).await.unwrap_err();
    assert!(matches!(error, ProofError::WrongPassword { .. }), "{error}");

    for (sql, undo) in [
        (
            format!("REVOKE CONNECT ON DATABASE \"{d}\" FROM \"{read}\""),
            format!("GRANT CONNECT ON DATABASE \"{d}\" TO \"{read}\""),
        ),
        (format!("ALTER ROLE \"{read}\" NOLOGIN"), format!("ALTER ROLE \"{read}\" LOGIN")),
        (
            format!("ALTER DATABASE \"{d}\" ALLOW_CONNECTIONS false"),
            format!("ALTER DATABASE \"{d}\" ALLOW_CONNECTIONS true"),
        ),
    ] {
        world.sql("postgres", &sql).await;
        let error = prove().await.unwrap_err();
        assert!(matches!(error, ProofError::NotAllowed { .. }), "{sql}: {error}");
        assert_eq!(error.password_is_right(), Some(true));
        world.sql("postgres", &undo).await;
    }

    world.sql("postgres", &format!("ALTER ROLE \"{read}\" CONNECTION LIMIT 1")).await;
    let only = tenant.options(READ).connect().await.unwrap();
    let error = prove().await.unwrap_err();
    assert!(matches!(error, ProofError::Full { .. }), "{error}");
    drop(only);
    world.sql("postgres", &format!("ALTER ROLE \"{read}\" VALID UNTIL '2001-01-01'")).await;
    assert_eq!(prove().await.unwrap_err().password_is_right(), Some(false));
    assert_eq!(world.server.prove("nowhere", &read, password).await.unwrap_err().password_is_right(), Some(false));
}

#[tokio::test]
async fn there_are_never_more_than_eight_connections() {
    let world = World::new().await;
    let queue = Duration::from_millis(200);
    let server = server_with(&world, |options| {
        options.timeouts = Timeouts { queue, ..Timeouts::default() };
    })
    .unwrap();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(server.maintenance().await.unwrap());
        sessions.push(server.inside("postgres").await.unwrap());
    }
    assert_eq!(server.connections(), 8);
    for result in [server.maintenance().await, server.inside("postgres").await] {
        let error = result.unwrap_err();
        assert!(matches!(error, PostgresError::Busy { limit: 4, .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Transient);
    }
    drop(sessions);
    // Used again, not opened again; then closed but for one.
    let kept = server.maintenance().await.unwrap();
    assert!(kept.is_open());
    drop(kept);
    until("one is left", || server.connections() == 1).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let world = World::new().await;
    let idle = Duration::from_millis(100);
    let server = server_with(&world, |options| options.timeouts = Timeouts { idle, ..Timeouts::default() });
    let server = server.unwrap();
    drop(server.maintenance().await.unwrap());
    assert_eq!(server.connections(), 1);
    until("none is left", || server.connections() == 0).await;
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_connection_that_was_ended_is_not_used_again() {
    let world = World::new().await;
    let key = ClaimKey::new(unique("ns"), "db").unwrap();
    let name = unique("ended");
    let server = server_with(&world, |options| options.application_name = name.clone()).unwrap();
    let mut session = server.maintenance().await.unwrap();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'");
    world.sql("postgres", &end).await;
    let error = observe(&server, &mut session, &key, &key.database(), &[]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Moved, "{error}");
    drop(session);
    let mut session = server.maintenance().await.unwrap();
    observe(&server, &mut session, &key, &key.database(), &[]).await.unwrap();
    drop(session);
    world.sql("postgres", &end).await;
    until("it is noticed", || server.connections() == 0).await;
    let mut session = server.maintenance().await.unwrap();
    observe(&server, &mut session, &key, &key.database(), &[]).await.unwrap();
}

#[tokio::test]
async fn nobody_waits_longer_than_the_deadline() {
    // Takes connections and never says a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::new().await;
    let connect = Duration::from_millis(100);
    let server = server_with(&world, |options| {
        options.port = port;
        options.timeouts = Timeouts { connect, ..Timeouts::default() };
    });
    let error = server.unwrap().maintenance().await.unwrap_err();
    assert!(matches!(error, PostgresError::Deadline { .. }), "{error}");
    drop(listener);
    let server = server_with(&world, |options| options.port = port).unwrap();
    let error = server.maintenance().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Moved, "{error}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn tls_is_checked_as_far_as_it_is_asked_for() {
    let world = World::new().await;
    let own = world.server.options().ca.clone();
    let another = Some(cluster_of(16).await.ca_pem());
    // Leads to 127.0.0.1 by way of inet_aton, and is not in the certificate.
    let misnamed = "0x7f000001";
    let connect = async |sslmode, host: &str, ca: &Option<String>| {
        let server = server_with(&world, |options| {
            options.sslmode = sslmode;
            options.host = host.to_owned();
            options.ca = ca.clone();
        });
        server?.maintenance().await.map(|_| ())
    };

    connect(SslMode::VerifyFull, "localhost", &own).await.unwrap();
    connect(SslMode::VerifyCa, misnamed, &own).await.unwrap();
    connect(SslMode::Require, misnamed, &another).await.unwrap();
    for (sslmode, host, ca) in [
        (SslMode::VerifyFull, misnamed, &own),
        (SslMode::VerifyFull, "localhost", &another),
        (SslMode::VerifyCa, "localhost", &another),
    ] {
        let error = connect(sslmode, host, ca).await.unwrap_err();
        assert!(error.advice().is_some_and(|text| text.contains("CA")), "{sslmode:?} {host}: {error}");
    }
    let none = Some("not PEM".to_owned());
    let error = connect(SslMode::VerifyFull, "localhost", &none).await.unwrap_err();
    assert!(error.to_string().contains("no PEM certificate"), "{error}");
    assert_eq!(error.class(), ErrorClass::Refused);
}

#[tokio::test]
async fn a_standby_is_told_from_a_primary() {
    let world = World::new().await;
    let standby = cluster().await.standby().await;
    let server = server_with(&world, |options| options.port = standby.get_port()).unwrap();
    let key = ClaimKey::new(unique("ns"), "db").unwrap();
    let mut session = loop {
        // The login may not have arrived there yet.
        if let Ok(session) = server.maintenance().await {
            break session;
        }
    };
    let error = observe(&server, &mut session, &key, &key.database(), &[]).await.unwrap_err();
    assert_eq!((error.class(), matches!(error, PostgresError::Standby { .. })), (ErrorClass::Moved, true));
    let tenant = world.tenant_of(key);
    let plan = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap();
    let error = pgtenant_postgres::apply(&server, &mut session, &plan, &pgtenant_postgres::Unfenced, &|_| {}).await;
    assert_eq!(error.as_ref().unwrap_err().sqlstate(), Some("25006"));
    assert_eq!(error.unwrap_err().class(), ErrorClass::Moved);
}

#[tokio::test]
async fn a_ledger_can_be_rebuilt_from_the_cluster() {
    let world = World::new().await;
    let (made, half) = (world.tenant(), world.tenant());
    made.create().await;
    let mut plan = plan(&half.with_passwords(), &half.observe().await).unwrap();
    plan.batches.truncate(1);
    half.apply(&plan).await.unwrap();
    let mut session = world.server.maintenance().await.unwrap();
    let claims = claims_on_cluster(&mut session).await.unwrap();
    assert!(claims.contains(&made.desired.key) && !claims.contains(&half.desired.key));
    let names = half_made(&mut session).await.unwrap();
    assert!(names.contains(&half.database()) && !names.contains(&made.database()));
    half.drop().await;
}

#[tokio::test]
async fn a_database_that_somebody_closed_is_not_taken_for_a_half_made_one() {
    let world = World::new().await;
    let mut tenant = world.tenant();
    let d = tenant.database();
    world.sql("postgres", &format!("CREATE DATABASE \"{d}\"")).await;
    world.sql(&d, "CREATE TABLE precious (); ALTER TABLE precious OWNER TO pgtenant").await;
    world.sql("postgres", &format!("ALTER DATABASE \"{d}\" OWNER TO pgtenant")).await;
    world.sql("postgres", &format!("ALTER DATABASE \"{d}\" ALLOW_CONNECTIONS false")).await;
    let refusal = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap_err();
    assert!(matches!(refusal, Refusal::Occupied { .. }), "{refusal}");
    assert!(plan_drop(&tenant.desired.key, &tenant.observe().await).unwrap().is_empty());
    let mut session = world.server.maintenance().await.unwrap();
    assert!(!half_made(&mut session).await.unwrap().contains(&d));
    // Whoever asks for it gets it with what is in it.
    tenant.desired.adopt = true;
    let taken = plan(&tenant.with_passwords(), &tenant.observe().await).unwrap();
    tenant.apply(&taken).await.unwrap();
    tenant.repair().await;
    tenant.sql(READ, "SELECT FROM precious").await.unwrap();
}

#[tokio::test]
async fn a_preflight_says_what_would_bite() {
    let world = World::new().await;
    let mut session = world.server.maintenance().await.unwrap();
    assert_eq!(preflight(&mut session).await.unwrap(), []);

    let plain = cluster().await.fresh_login("plain", "CREATEDB").await;
    world.sql("postgres", &format!("GRANT CONNECT ON DATABASE postgres TO \"{}\"", plain.username)).await;
    let server = server_with(&world, |options| {
        options.username = plain.username.clone();
        options.password = plain.password.clone();
    });
    let mut session = server.unwrap().maintenance().await.unwrap();
    let problems = preflight(&mut session).await.unwrap();
    let says = |text: &str| problems.iter().any(|problem| problem.message.contains(text));
    assert!(says("lacks CREATEROLE") && says("let it act as a group") && !says("lacks CREATEDB"), "{problems:?}");
    world.sql("postgres", &format!("REVOKE CONNECT ON DATABASE postgres FROM \"{}\"", plain.username)).await;
}

#[tokio::test]
async fn a_superuser_can_be_the_provisioner() {
    let world = World::new().await.as_superuser();
    let mut session = world.server.maintenance().await.unwrap();
    let problems = preflight(&mut session).await.unwrap();
    assert!(problems.iter().any(|problem| problem.message.contains("is a superuser")), "{problems:?}");
    drop(session);
    let tenant = world.tenant();
    tenant.create().await;
    let (d, read) = (tenant.database(), tenant.role(READ));
    tenant.sql(Tier::Admin, "CREATE TABLE t ()").await.unwrap();
    world.sql(&d, &format!("ALTER ROLE \"{read}\" SUPERUSER REPLICATION; REVOKE ALL ON t FROM \"{read}\"")).await;
    tenant.repair().await;
    tenant.sql(READ, "SELECT FROM t").await.unwrap();
    tenant.drop().await;
}
