//! Topology `aurora`: RDS is played, the servers behind its endpoints are real.
#![expect(clippy::unwrap_used, reason = "helpers of tests are no tests to clippy")]

use std::time::Duration;

use pgtenant_aws::{Aws, StandIn};
use pgtenant_model::{AuroraTopology, HostPort, MemberRole, SslMode};
use pgtenant_testkit::{FakeRds, cluster, pair};
use pgtenant_topology::{Aurora, ProbeOptions, Source, Topology};
use secrecy::SecretString;
use tokio::net::TcpListener;

const PASSWORD: &str = "Only-of-this-test";
const SOON: Duration = Duration::from_secs(30);

fn options(username: &str, password: &SecretString, ca: String) -> ProbeOptions {
    ProbeOptions {
        username: username.to_owned(),
        password: password.clone(),
        database: "postgres".to_owned(),
        sslmode: SslMode::VerifyFull,
        ca: Some(ca),
        tool: None,
        connect_timeout: ProbeOptions::CONNECT_TIMEOUT,
    }
}

async fn aurora(fake: &FakeRds) -> Aurora {
    let spec = serde_json::json!({"region": "eu-west-1", "clusterIdentifier": "Shared"});
    let spec: AuroraTopology = serde_json::from_value(spec).unwrap();
    let [url, region, access_key_id, secret_access_key] = [fake.url(), "us-east-1", "any", "any"].map(str::to_owned);
    let stand_in = StandIn { url, region, access_key_id, secret_access_key };
    Aurora::new(&spec, &Aws::stand_in(stand_in))
}

/// RDS with nothing behind the endpoint `port` leads to, and a topology that can not log in anywhere.
async fn unconnected(port: u16) -> (FakeRds, Aurora, Topology) {
    let fake = FakeRds::start("localhost", port).await;
    let aurora = aurora(&fake).await;
    let options = options("nobody", &PASSWORD.into(), cluster().await.ca_pem());
    let topology = Topology::new(&Source::from(aurora.clone()), options);
    (fake, aurora, topology)
}

fn at(port: u16) -> HostPort {
    HostPort { host: "localhost".to_owned(), port }
}

#[tokio::test]
async fn the_endpoint_is_the_primary_and_rds_is_asked_once_a_look() {
    let server = cluster().await;
    let login = server.fresh_login("looker", "NOCREATEDB").await;
    let fake = FakeRds::start("localhost", server.port()).await;
    fake.add_cluster("shared", 0);
    let aurora = aurora(&fake).await;
    let options = options(&login.username, &login.password, server.ca_pem());
    let topology = Topology::new(&Source::from(aurora.clone()), options);
    assert_eq!(topology.hosts(), [], "nothing is known yet");

    assert_eq!(topology.primary().await.unwrap(), at(server.port()));
    let seen = topology.observe().await;
    assert_eq!((seen.problem.as_deref(), seen.version.as_deref()), (None, Some(server.version())));
    let resource = fake.get("shared", "DbClusterResourceId").unwrap();
    assert_eq!(seen.identity, Some(format!("eu-west-1/shared/{resource}")));
    assert_eq!((seen.members[0].host.as_str(), seen.members[0].role), ("shared-1", MemberRole::Primary));
    assert_eq!(seen.members[0].message.as_deref(), Some("no readers: the reader endpoint leads here"));
    assert_eq!((topology.hosts(), topology.read_host()), (vec![at(server.port())], None));
    assert_eq!(fake.actions(), ["DescribeDBClusters", "DescribeDBInstances", "DescribeDBClusters"]);

    fake.add_cluster("shared", 1);
    topology.observe().await;
    assert_eq!(topology.read_host(), Some(at(server.port())));
    assert_eq!(fake.actions().iter().filter(|action| *action == "DescribeDBInstances").count(), 2, "members changed");

    // RDS is out of reach or refuses: what is known serves.
    fake.deny("DescribeDBClusters");
    let seen = topology.observe().await;
    assert_eq!((seen.primary.clone(), seen.members.len()), (Some(at(server.port())), 2));
    assert_eq!(aurora.fault().unwrap().action(), "rds:DescribeDBClusters");
    fake.allow_everything();
    topology.observe().await;
    assert!(aurora.fault().is_none());
}

#[tokio::test]
async fn a_failover_is_followed() {
    let mut servers = pair().await;
    let superuser = servers.superuser();
    let (username, password) = (superuser.get_username().to_owned(), servers.superuser_password().clone());
    let ca = std::fs::read_to_string(servers.ca_file()).unwrap();
    let (old, new) = (servers.primary().port(), servers.standby().unwrap().port());
    let fake = FakeRds::start("localhost", old).await;
    fake.add_cluster("shared", 1);
    let topology = Topology::new(&Source::from(aurora(&fake).await), options(&username, &password, ca));
    assert_eq!(topology.primary().await.unwrap(), at(old));

    servers.primary().kill().await;
    fake.begin_failover("shared");
    let seen = topology.observe().await;
    let problem = seen.problem.clone().unwrap();
    assert!(problem.contains("did not answer") && problem.contains("a failover is under way"), "{problem}");
    assert_eq!(seen.members[0].message.as_deref(), Some("failover in progress"));

    // The name leads to the new writer before it takes writes.
    fake.set("shared", "Port", &new.to_string());
    let problem = topology.observe().await.problem.clone().unwrap();
    assert!(problem.contains("leads to an instance that does not take writes"), "{problem}");

    servers.standby().unwrap().promote().await.unwrap();
    fake.fail_over("shared", "shared-2", "localhost", new);
    assert_eq!(topology.wait(SOON).await.unwrap(), at(new));
    let seen = topology.last().unwrap();
    let roles: Vec<_> = seen.members.iter().map(|member| (member.host.as_str(), member.role)).collect();
    assert_eq!(roles, [("shared-1", MemberRole::Standby), ("shared-2", MemberRole::Primary)]);
}

#[tokio::test]
async fn a_cluster_that_is_not_there_says_why() {
    let (fake, aurora, topology) = unconnected(1).await;
    let error = topology.primary().await.unwrap_err().to_string();
    assert_eq!(error, "RDS has no cluster \"Shared\" in eu-west-1");
    assert!(aurora.is_missing());

    fake.add_cluster("shared", 1);
    fake.set("shared", "Status", "creating");
    fake.set("shared", "DBClusterMembers.DBClusterMember.1.DBInstanceIdentifier", "");
    let seen = topology.observe().await;
    let problem = seen.problem.clone().unwrap();
    assert!(problem.contains("did not answer") && problem.contains("since 2026-11-20 02:14 UTC"), "{problem}");

    fake.deny("DescribeDBClusters");
    let (fake, _, topology) = unconnected(1).await;
    fake.deny("DescribeDBClusters");
    let problem = topology.observe().await.problem.clone().unwrap();
    assert!(problem.ends_with("What to do: allow rds:DescribeDBClusters for the role that pgtenant has"), "{problem}");
}

#[tokio::test]
async fn a_sleeping_cluster_is_not_woken_by_looks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (fake, aurora, topology) = unconnected(port).await;
    fake.add_cluster("shared", 1);
    fake.set("shared", "ServerlessV2ScalingConfiguration.MinCapacity", "0");
    for _ in 0..3 {
        assert_eq!(topology.observe().await.primary, Some(at(port)));
    }
    assert_eq!(topology.primary().await.unwrap(), at(port), "known from the look");
    let usual = ProbeOptions::CONNECT_TIMEOUT;
    assert_eq!(aurora.patience(usual), Duration::from_secs(40));

    // Somebody found that it is not writable: now it is asked.
    topology.invalidate(&at(port));
    let asking = tokio::spawn(async move { topology.primary().await });
    let (first, _) = listener.accept().await.unwrap();
    drop(first);
    assert!(asking.await.unwrap().is_err());
    assert!(
        tokio::time::timeout(Duration::from_millis(1), listener.accept()).await.is_err(),
        "nothing was waiting: the looks made no connection"
    );

    fake.set("shared", "ServerlessV2ScalingConfiguration.MinCapacity", "0.5");
    aurora.describe().await.unwrap();
    assert_eq!(aurora.patience(usual), usual);
}

#[tokio::test]
async fn facts_cost_two_calls_and_a_refusal_leaves_the_rest() {
    let (fake, aurora, _) = unconnected(1).await;
    assert!(aurora.facts().await.is_none());
    fake.add_cluster("shared", 1);
    aurora.describe().await.unwrap();
    let before = fake.actions().len();
    fake.deny("DescribePendingMaintenanceActions");
    let (facts, faults) = aurora.facts().await.unwrap();
    assert_eq!(fake.actions()[before..], ["DescribeDBClusterParameters", "DescribePendingMaintenanceActions"]);
    assert_eq!((facts.instances.len(), facts.parameters.is_some(), faults.len()), (2, true, 1));
    assert_eq!(faults[0].action(), "rds:DescribePendingMaintenanceActions");
}
