//! Topology `streaming` against real servers, and against hosts that misbehave.
#![expect(clippy::unwrap_used, reason = "helpers of tests are no tests to clippy")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use pgtenant_aws::Aws;
use pgtenant_model::{History, HostPort, MemberRole, SslMode, StreamingTopology, SyncState};
use pgtenant_testkit::{cluster_of, pair};
use pgtenant_topology::{Observation, ProbeOptions, Source, Topology};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use tokio::net::{TcpListener, TcpStream};

const PASSWORD: &str = "Only-of-this-test";
const SOON: Duration = Duration::from_secs(30);

fn host(text: &str) -> HostPort {
    text.parse().unwrap()
}

fn options(ca: Option<String>) -> ProbeOptions {
    ProbeOptions {
        username: "looker".to_owned(),
        password: PASSWORD.into(),
        database: "postgres".to_owned(),
        sslmode: SslMode::VerifyFull,
        ca,
        tool: None,
        connect_timeout: ProbeOptions::CONNECT_TIMEOUT,
    }
}

fn pem(file: &std::path::Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

fn topology(hosts: &[String], options: ProbeOptions) -> Topology {
    let hosts = hosts.iter().map(|h| host(h)).collect();
    let spec = pgtenant_model::Topology::Streaming(StreamingTopology { hosts });
    Topology::new(&Source::new(&spec, &Aws::default()), options)
}

async fn run(login: &PgConnectOptions, sql: &str) {
    let mut connection = login.connect().await.unwrap();
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    connection.close().await.unwrap();
}

/// A primary and a standby, and a topology that asks them as a login without privileges.
async fn pair_and_topology() -> (pgtenant_lab::Cluster, Topology) {
    let cluster = pair().await;
    run(&cluster.superuser(), &format!("CREATE ROLE looker LOGIN PASSWORD '{PASSWORD}'")).await;
    let topology = topology(&cluster.hosts(), options(Some(pem(&cluster.ca_file()))));
    until(&topology, "the standby has the login", |o| o.members.iter().all(|m| m.role != MemberRole::Unreachable))
        .await;
    (cluster, topology)
}

async fn until(topology: &Topology, what: &str, holds: impl Fn(&Observation) -> bool) -> Arc<Observation> {
    let deadline = Instant::now() + SOON;
    loop {
        let seen = topology.observe().await;
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn members_are_seen_without_privileges_and_no_connection_is_kept() {
    let (mut cluster, topology) = pair_and_topology().await;
    let seen = until(&topology, "the standby streams", |o| {
        let standby = o.members.iter().find(|m| m.role == MemberRole::Standby);
        standby.is_some_and(|m| !m.message.as_deref().unwrap_or_default().contains("not streaming"))
    })
    .await;
    let primary = host(&format!("localhost:{}", cluster.primary().port()));
    assert_eq!((seen.primary.as_ref(), seen.problem.as_deref()), (Some(&primary), None));
    assert_eq!(seen.version.as_deref(), Some(cluster.version()));
    assert!(seen.members.iter().all(|m| m.timeline == Some(1)), "{seen:?}");
    let standby = seen.members.iter().find(|m| m.role == MemberRole::Standby).unwrap();
    assert!(standby.lag_bytes.is_some() && standby.lag_seconds.is_some(), "{standby:?}");
    assert_eq!((standby.sync, standby.said_by.as_deref()), (None, Some("the server")), "the login may not see it");
    let blind = seen.members.iter().find_map(|m| m.message.as_deref().filter(|_| m.role == MemberRole::Primary));
    assert!(blind.is_some_and(|message| message.ends_with("GRANT pg_read_all_stats TO looker")), "{blind:?}");
    run(&cluster.superuser(), "GRANT pg_read_all_stats TO looker").await;
    until(&topology, "what the GRANT shows", |o| {
        let standby = o.members.iter().find(|m| m.role == MemberRole::Standby);
        let told = o.members.iter().any(|m| m.role == MemberRole::Primary && m.message.is_some());
        standby.is_some_and(|m| m.sync == Some(SyncState::Async)) && !told
    })
    .await;
    assert_eq!(topology.primary().await.unwrap(), primary);
    assert_eq!(topology.subscribe().borrow().as_ref().unwrap().status().primary, Some(primary.to_string()));

    for login in [cluster.superuser(), cluster.standby().unwrap().superuser()] {
        let deadline = Instant::now() + SOON;
        let mut connection = login.connect().await.unwrap();
        loop {
            let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'looker'";
            let count: i64 = connection.fetch_one(query).await.unwrap().get(0);
            if count == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{count} connections are left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    // Whoever can not get in reads why, and nothing secret.
    let wrong = ProbeOptions { password: "wrong-secret".into(), ..options(Some(pem(&cluster.ca_file()))) };
    let wrong = self::topology(&cluster.hosts(), wrong);
    let problem = wrong.primary().await.unwrap_err().to_string();
    assert_eq!(problem.matches("(28P01)").count(), 2, "{problem}");
    let untrusted = self::topology(&cluster.hosts(), options(None));
    let untrusted = untrusted.primary().await.unwrap_err();
    assert!(untrusted.to_string().contains("certificate"), "{untrusted}");
    for text in [problem, format!("{wrong:?} {topology:?} {untrusted:?}")] {
        assert!(!text.contains("secret") && !text.contains(PASSWORD), "{text}");
    }
}

#[tokio::test]
async fn a_failover_is_followed() {
    let (mut cluster, topology) = pair_and_topology().await;
    let old = topology.primary().await.unwrap();
    cluster.primary().kill().await;
    assert_eq!(topology.primary().await.unwrap(), old, "remembered until somebody complains");
    topology.invalidate(&host("elsewhere:1"));
    assert_eq!(topology.primary().await.unwrap(), old, "complaints of another host do not count");
    topology.invalidate(&old);
    let error = topology.primary().await.unwrap_err().to_string();
    let standby = host(&format!("localhost:{}", cluster.standby().unwrap().port()));
    assert!(error.contains(&format!("{old} did not answer: ")), "{error}");
    assert!(error.contains(&format!("{standby} is a standby")), "{error}");

    // Many wait while the standby is promoted; all get it.
    let waiters: Vec<_> = (0..50)
        .map(|_| {
            let topology = topology.clone();
            tokio::spawn(async move { topology.wait(SOON).await })
        })
        .collect();
    cluster.standby().unwrap().promote().await.unwrap();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap(), standby);
    }
    let seen = topology.last().unwrap();
    let promoted = seen.members.iter().find(|m| m.role == MemberRole::Primary).unwrap();
    assert_eq!(promoted.timeline, Some(2), "known at once, before the next checkpoint");

    // The old one comes back as a standby.
    cluster.start(|_| {}).await.unwrap();
    let seen = until(&topology, "the old primary follows", |o| {
        o.members.iter().any(|m| m.host == old.to_string() && m.role == MemberRole::Standby)
    })
    .await;
    assert_eq!(seen.primary, Some(standby));
}

#[tokio::test]
async fn a_stranger_is_no_primary_until_a_person_says_so() {
    let cluster = pair().await;
    run(&cluster.superuser(), &format!("CREATE ROLE looker LOGIN PASSWORD '{PASSWORD}'")).await;
    let hosts = vec![host(&cluster.hosts()[0])];
    let source = Source::new(&pgtenant_model::Topology::Streaming(StreamingTopology { hosts }), &Aws::default());
    let topology = Topology::new(&source, options(Some(pem(&cluster.ca_file()))));
    topology.primary().await.unwrap();
    let here = topology.last().unwrap().history.clone().unwrap();

    // As after a restart, when what was there before is read from the ledger.
    let source = Source::new(
        &pgtenant_model::Topology::Streaming(StreamingTopology { hosts: topology.hosts() }),
        &Aws::default(),
    );
    source.remember(&History { system: "1".to_owned(), timeline: 1, accepted_at: None });
    let topology = Topology::new(&source, options(Some(pem(&cluster.ca_file()))));
    let refused = topology.primary().await.unwrap_err();
    assert!(
        refused.to_string().contains(&format!("its system identifier is {}, before it was 1", here.system)),
        "{refused}"
    );
    assert_eq!((refused.observation.split_brain, refused.observation.refused.as_ref()), (true, Some(&here)));

    source.remember(&History { accepted_at: Some(Utc::now()), ..here.clone() });
    topology.primary().await.unwrap();
    // What somebody else has seen before that does not undo it.
    source.remember(&History { system: "1".to_owned(), timeline: 9, accepted_at: None });
    let seen = topology.observe().await;
    assert!(seen.primary.is_some() && !seen.split_brain, "{seen:?}");
}

#[tokio::test]
async fn a_split_brain_stops_everything_and_all_down_says_so() {
    let (mut cluster, topology) = pair_and_topology().await;
    let (one, two) = (cluster.hosts()[0].clone(), cluster.hosts()[1].clone());
    let old = topology.primary().await.unwrap();
    cluster.standby().unwrap().promote().await.unwrap();
    let seen = topology.observe().await;
    assert_eq!(seen.primary, None);
    let problem = seen.problem.clone().unwrap();
    assert!(problem.starts_with("split brain: "), "{problem}");
    assert!(problem.contains(&format!("{one} (timeline 1)")), "{problem}");
    assert!(problem.contains(&format!("{two} (timeline 2)")), "{problem}");
    // It is not remembered any more, though nobody complained.
    assert_eq!(topology.primary().await.unwrap_err().to_string(), problem);

    cluster.primary().stop().await.unwrap();
    assert_eq!(topology.wait(SOON).await.unwrap(), host(&two));

    cluster.standby().unwrap().kill().await;
    topology.invalidate(&host(&two));
    topology.invalidate(&old);
    let error = topology.wait(Duration::from_millis(1500)).await.unwrap_err().to_string();
    assert!(error.starts_with("no host is writable: "), "{error}");
    assert!(error.contains(&one) && error.contains(&two), "{error}");
}

/// A host that accepts connections and does as told; counts them.
async fn misbehaving(then: impl Fn(TcpStream) + Send + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let accepted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::SeqCst);
            then(stream);
        }
    });
    (address, count)
}

fn keep(stream: TcpStream) {
    tokio::spawn(async move {
        let _held = stream;
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn a_silent_host_holds_up_no_longer_than_its_deadline() {
    let (mut cluster, _) = pair_and_topology().await;
    let (silent, count) = misbehaving(keep).await;
    let hosts = [silent.to_string(), format!("localhost:{}", cluster.primary().port())];
    let limit = Duration::from_millis(1500);
    let options = ProbeOptions { connect_timeout: limit, ..options(Some(pem(&cluster.ca_file()))) };
    let topology = topology(&hosts, options);

    // The first caller gives up early; the probe goes on and serves the others, all of them alone.
    let hasty = tokio::time::timeout(Duration::from_millis(100), topology.primary()).await;
    assert!(hasty.is_err());
    let started = Instant::now();
    let callers = (0..50).map(|_| {
        let topology = topology.clone();
        tokio::spawn(async move { topology.primary().await.map(|h| h.to_string()) })
    });
    for caller in callers.collect::<Vec<_>>() {
        assert_eq!(caller.await.unwrap().unwrap(), hosts[1]);
    }
    assert!(started.elapsed() < limit + Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let silent = &topology.last().unwrap().members[0];
    assert_eq!(silent.message.as_deref(), Some("no answer within 1.5s"));
}

#[tokio::test]
async fn probes_are_paced_and_shared_while_there_is_no_primary() {
    let (address, count) = misbehaving(drop).await;
    let topology = topology(&[address.to_string()], options(None));
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let topology = topology.clone();
            tokio::spawn(async move { topology.wait(Duration::from_secs(3)).await })
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err().to_string();
        assert!(error.contains(&format!("{address} did not answer: ")), "{error}");
    }
    // At 0, 0.25, 0.5, 1 and 2 s after one another, a quarter more or less; at most one more is under way.
    let count = count.load(Ordering::SeqCst);
    assert!((3..=6).contains(&count), "{count} probes");
}

#[tokio::test]
async fn a_look_does_not_wait_for_the_pause_of_others_and_ends_it() {
    let (address, count) = misbehaving(drop).await;
    let topology = topology(&[address.to_string()], options(None));
    topology.wait(Duration::from_secs(3)).await.unwrap_err();
    let before = count.load(Ordering::SeqCst);
    let started = Instant::now();
    let (primary, seen) = tokio::join!(topology.primary(), topology.observe());
    assert!(primary.is_err() && seen.primary.is_none());
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    assert_eq!(count.load(Ordering::SeqCst), before + 1, "one probe for both");
}

#[tokio::test]
async fn every_supported_version_answers_a_plain_login() {
    for major in pgtenant_testkit::SUPPORTED_VERSIONS {
        let server = cluster_of(major).await;
        let login = server.fresh_login("looker", "NOCREATEDB").await;
        let options = ProbeOptions {
            username: login.username.clone(),
            password: login.password.clone(),
            ..options(Some(server.ca_pem()))
        };
        let seen = topology(&server.hosts().await, options).observe().await;
        assert_eq!(seen.problem, None);
        assert_eq!(seen.version.as_deref(), Some(server.version()));
        assert_eq!(seen.members[0].timeline, Some(1), "{seen:?}");
        // These versions come without pg_basebackup: what a standby is asked besides is at least allowed.
        let allowed = "SELECT pg_control_checkpoint(), pg_control_recovery(), pg_last_wal_replay_lsn(), \
                       pg_last_wal_receive_lsn()";
        run(&login.options, allowed).await;
    }
}
