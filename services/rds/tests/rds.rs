//! RDS on the wire, played where moto differs from it.
#![expect(clippy::unwrap_used, reason = "helpers of tests are no tests to clippy")]

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use pgtenant_aws::{Aws, StandIn};
use pgtenant_model::{AuroraTopology, Environment};
use pgtenant_rds::{Facts, Rds, Registered, Step, Wanted, actions, next_step};
use pgtenant_testkit::FakeRds;
use serde_json::json;

fn aws(url: &str) -> Aws {
    let [url, region, access_key_id, secret_access_key] = [url, "us-east-1", "any", "any"].map(str::to_owned);
    Aws::stand_in(StandIn { url, region, access_key_id, secret_access_key })
}

async fn fake() -> (FakeRds, Rds) {
    let fake = FakeRds::start("db.example", 5432).await;
    let rds = Rds::new(&aws(fake.url()), "eu-west-1");
    (fake, rds)
}

fn topology(change: serde_json::Value) -> AuroraTopology {
    let mut spec = json!({"region": "eu-west-1", "clusterIdentifier": "shared"});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn create() -> AuroraTopology {
    topology(json!({"create": {
        "minAcu": 0.5, "maxAcu": 16, "instances": 2, "subnetGroup": "private", "securityGroupIds": ["sg-0a1b2c3d"],
    }}))
}

fn now() -> DateTime<Utc> {
    "2026-07-01T12:00:00Z".parse().unwrap()
}

fn wanted(topology: &AuroraTopology) -> Wanted {
    Wanted::new(topology, Environment::Production, now()).unwrap()
}

/// Takes the steps that come next, one after another, until RDS is at work or all is done.
async fn step(rds: &Rds, wanted: &Wanted) -> Option<Step> {
    let found = rds.cluster(&wanted.identifier).await.unwrap();
    let step = next_step(wanted, found.as_ref());
    if let Some(step) = &step {
        rds.take_step(step, wanted, found.as_ref()).await.unwrap();
    }
    step
}

#[tokio::test]
async fn a_cluster_is_described() {
    let (fake, rds) = fake().await;
    assert_eq!(rds.cluster("shared").await.unwrap(), None);
    fake.add_cluster("shared", 1);
    fake.set("shared", "PendingModifiedValues.EngineVersion", "16.8");
    fake.set_instance("shared-2", "CertificateDetails.ValidTill", "2026-08-01T00:00:00Z");
    let cluster = rds.cluster("shared").await.unwrap().unwrap();
    assert_eq!(
        (cluster.endpoint.as_deref(), cluster.port, cluster.status.as_str()),
        (Some("db.example"), Some(5432), "available")
    );
    assert_eq!((cluster.writer(), cluster.has_readers(), cluster.major()), (Some("shared-1"), true, Some(16)));
    assert_eq!(cluster.pending, ["EngineVersion 16.8"]);
    assert!(!cluster.can_pause());
    fake.set("shared", "ServerlessV2ScalingConfiguration.MinCapacity", "0.0");
    assert!(rds.cluster("shared").await.unwrap().unwrap().can_pause());
    let instances = rds.instances("shared").await.unwrap();
    assert_eq!(instances.len(), 2);
    assert_eq!(instances[1].certificate_until.unwrap().to_rfc3339(), "2026-08-01T00:00:00+00:00");
    assert_eq!(instances[0].endpoint, Some(("db.example".to_owned(), 5432)));
}

#[tokio::test]
async fn refusals_name_what_is_missing_and_throttling_is_waited_out() {
    let (fake, rds) = fake().await;
    fake.add_cluster("shared", 0);
    fake.throttle("DescribeDBClusters", 1);
    assert!(rds.cluster("shared").await.unwrap().is_some());
    assert_eq!(fake.actions(), ["DescribeDBClusters"; 2], "the SDK tries again");
    fake.deny("DescribeDBClusters");
    let fault = rds.cluster("shared").await.unwrap_err();
    assert!(!fault.silent());
    assert_eq!(fault.advice(), "allow rds:DescribeDBClusters for the role that pgtenant has");
    assert!(
        fault.to_string().contains("is not authorized to perform: rds:DescribeDBClusters (AccessDenied)"),
        "{fault}"
    );

    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let fault = Rds::new(&aws(&url), "eu-west-1").cluster("shared").await.unwrap_err();
    assert!(fault.silent(), "{fault}");
}

#[tokio::test]
async fn a_cluster_is_made_step_by_step() {
    let (fake, rds) = fake().await;
    let topology = create();
    let wanted = wanted(&topology);
    assert_eq!(step(&rds, &wanted).await, Some(Step::MakeCluster));
    let call = fake.calls().into_iter().find(|call| call.action == "CreateDBCluster").unwrap();
    let expected = [
        ("BackupRetentionPeriod", "35"),
        ("CopyTagsToSnapshot", "true"),
        ("DBClusterIdentifier", "shared"),
        ("DBClusterParameterGroupName", "pgtenant-shared"),
        ("DBSubnetGroupName", "private"),
        ("DeletionProtection", "true"),
        ("EnableCloudwatchLogsExports.member.1", "postgresql"),
        ("EnableIAMDatabaseAuthentication", "true"),
        ("Engine", "aurora-postgresql"),
        ("ManageMasterUserPassword", "true"),
        ("MasterUsername", "postgres"),
        ("PreferredBackupWindow", "00:00-02:00"),
        ("PreferredMaintenanceWindow", "sun:03:30-sun:04:30"),
        ("ServerlessV2ScalingConfiguration.MaxCapacity", "16.0"),
        ("ServerlessV2ScalingConfiguration.MinCapacity", "0.5"),
        ("StorageEncrypted", "true"),
        ("Tags.Tag.1.Key", "managed-by"),
        ("Tags.Tag.1.Value", "pgtenant"),
        ("Tags.Tag.2.Key", "environment"),
        ("Tags.Tag.2.Value", "production"),
        ("VpcSecurityGroupIds.VpcSecurityGroupId.1", "sg-0a1b2c3d"),
    ];
    assert_eq!(call.parameters, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let group = fake.calls().into_iter().find(|call| call.action == "CreateDBClusterParameterGroup").unwrap();
    assert_eq!(group.parameters["DBParameterGroupFamily"], "aurora-postgresql16");

    assert_eq!(step(&rds, &wanted).await, Some(Step::Wait), "it is being made");
    fake.settle();
    let both = ["shared-1", "shared-2"].map(String::from).to_vec();
    assert_eq!(step(&rds, &wanted).await, Some(Step::MakeInstances(both)));
    assert_eq!(step(&rds, &wanted).await, Some(Step::Finish));
    assert_eq!(step(&rds, &wanted).await, None);
    fake.settle();
    let cluster = rds.cluster("shared").await.unwrap().unwrap();
    let parameters = rds.parameters("pgtenant-shared").await.unwrap();
    assert_eq!(wanted.drift(&cluster, Some(&parameters)), [], "what was made is as described");
    assert!(fake.actions().iter().all(|action| !action.starts_with("Delete")));
}

#[tokio::test]
async fn a_killed_replica_and_a_second_one_make_one_cluster() {
    let (fake, rds) = fake().await;
    let wanted = wanted(&create());
    // Two replicas have seen that there is none.
    rds.take_step(&Step::MakeCluster, &wanted, None).await.unwrap();
    let made = fake.get("shared", "DbClusterResourceId");
    rds.take_step(&Step::MakeCluster, &wanted, None).await.unwrap();
    assert_eq!(fake.get("shared", "DbClusterResourceId"), made, "it was not replaced");
    fake.settle();
    // The first is killed after the first instance.
    let one = Step::MakeInstances(vec!["shared-1".to_owned()]);
    rds.take_step(&one, &wanted, None).await.unwrap();
    rds.take_step(&one, &wanted, None).await.unwrap();
    assert_eq!(step(&rds, &wanted).await, Some(Step::MakeInstances(vec!["shared-2".to_owned()])));
    assert_eq!(step(&rds, &wanted).await, Some(Step::Finish));
    // What somebody removes later is shown and not made again.
    fake.set("shared", "DBClusterMembers.DBClusterMember.2.DBInstanceIdentifier", "");
    fake.set("shared", "DBClusterMembers.DBClusterMember.2.IsClusterWriter", "");
    assert_eq!(step(&rds, &wanted).await, None);
    let cluster = rds.cluster("shared").await.unwrap().unwrap();
    let drift = wanted.drift(&cluster, None);
    assert_eq!((drift[0].setting.as_str(), drift[0].wanted.as_str(), drift[0].found.as_str()), ("instances", "2", "1"));
}

#[tokio::test]
async fn a_cluster_of_somebody_else_gets_no_instances() {
    let (fake, rds) = fake().await;
    fake.add_cluster("shared", 0);
    assert_eq!(step(&rds, &wanted(&create())).await, None);
    assert_eq!(fake.actions(), ["DescribeDBClusters"]);
}

#[tokio::test]
async fn the_backup_window_alone_is_mended() {
    let (fake, rds) = fake().await;
    let topology = create();
    let summer = wanted(&topology);
    rds.take_step(&Step::MakeCluster, &summer, None).await.unwrap();
    let winter = Wanted::new(&topology, Environment::Production, "2026-12-01T00:00:00Z".parse().unwrap()).unwrap();
    let cluster = rds.cluster("shared").await.unwrap().unwrap();
    let drift = winter.drift(&cluster, None);
    assert!(drift.iter().any(|one| one.setting == "backup window" && one.mend.ends_with("=01:00-03:00")), "{drift:?}");
    rds.move_backup_window(&winter).await.unwrap();
    assert_eq!(fake.get("shared", "PreferredBackupWindow").as_deref(), Some("01:00-03:00"));
    let modified = fake.calls().into_iter().find(|call| call.action == "ModifyDBCluster").unwrap();
    let keys: Vec<_> = modified.parameters.keys().map(String::as_str).collect();
    assert_eq!(keys, ["ApplyImmediately", "DBClusterIdentifier", "PreferredBackupWindow"]);
}

#[tokio::test]
async fn findings_tell_what_would_bite() {
    let (fake, rds) = fake().await;
    fake.add_cluster("shared", 0);
    fake.set("shared", "ServerlessV2ScalingConfiguration.MinCapacity", "0");
    fake.set("shared", "PreferredMaintenanceWindow", "sun:03:30-sun:04:30");
    fake.set("shared", "PendingModifiedValues.EngineVersion", "16.8");
    fake.set_instance("shared-1", "CertificateDetails.ValidTill", "2026-07-20T00:00:00Z");
    fake.plan_maintenance("db-upgrade", "Aurora PostgreSQL 16.8");
    let cluster = rds.cluster("shared").await.unwrap().unwrap();
    let facts = Facts {
        instances: rds.instances("shared").await.unwrap(),
        parameters: Some(rds.parameters("default.aurora-postgresql16").await.unwrap()),
        maintenance: rds.maintenance(cluster.arn.as_deref().unwrap()).await.unwrap(),
        cluster,
    };
    let said: Vec<String> =
        facts.findings(Environment::Staging, false, now()).iter().map(ToString::to_string).collect();
    let expected = [
        "topology.aurora: there are no readers",
        "topology.aurora: the minimum is 0 ACU: the cluster pauses",
        "tls: rds.force_ssl is 0",
        "topology.aurora: deletion protection is off",
        "environment: RDS keeps snapshots for 1 days, the environment wants 35",
        "topology.aurora: RDS has maintenance to do (db-upgrade: Aurora PostgreSQL 16.8)",
        "topology.aurora: RDS makes these changes within sun:03:30-sun:04:30 (UTC): EngineVersion 16.8",
        "tls: the certificate of instance shared-1 by rds-ca-rsa2048-g1 ends on 2026-07-20",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said} / {expected}");
    }
    let proxied = facts.findings(Environment::Staging, true, now());
    assert!(proxied.iter().any(|one| one.message.contains("never pauses")), "{proxied:?}");
    // From 17 on encryption is forced unless somebody has switched it off.
    let mut later = facts;
    later.cluster.engine_version = Some("17.4".to_owned());
    assert!(later.findings(Environment::Dev, false, now()).iter().all(|one| !one.message.contains("force_ssl")));
}

#[tokio::test]
async fn a_proxy_learns_secrets_and_keeps_those_of_others() {
    let (fake, rds) = fake().await;
    let secrets: BTreeSet<String> = ["arn:a", "arn:b"].map(String::from).into();
    assert_eq!(rds.register_secrets("door", &secrets).await.unwrap(), Registered::NoProxy);
    fake.add_proxy("door", &["arn:foreign"]);
    assert_eq!(rds.register_secrets("door", &secrets).await.unwrap(), Registered::Changed);
    assert_eq!(fake.proxy_secrets("door"), ["arn:foreign", "arn:a", "arn:b"]);
    assert_eq!(rds.register_secrets("door", &secrets).await.unwrap(), Registered::Same);
    assert_eq!(rds.register_secrets("door", &BTreeSet::new()).await.unwrap(), Registered::Changed);
    assert_eq!(fake.proxy_secrets("door"), ["arn:foreign"]);

    fake.set_proxy("door", "Status", "modifying");
    assert_eq!(rds.register_secrets("door", &secrets).await.unwrap(), Registered::Busy);
    fake.set_proxy("door", "Status", "available");
    let many: BTreeSet<String> = (0..200).map(|number| format!("arn:{number:03}")).collect();
    assert_eq!(rds.register_secrets("door", &many).await.unwrap(), Registered::Full(1));
    assert_eq!(fake.proxy_secrets("door").len(), 200);
    let modified = || fake.actions().iter().filter(|action| *action == "ModifyDBProxy").count();
    let before = modified();
    assert_eq!(rds.register_secrets("door", &many).await.unwrap(), Registered::Full(1));
    assert_eq!(modified(), before, "there is nothing to change");
}

#[tokio::test]
async fn a_proxy_of_nobody_else_keeps_its_last_secret() {
    let (fake, rds) = fake().await;
    fake.add_proxy("door", &[]);
    let secrets = BTreeSet::from(["arn:a".to_owned()]);
    assert_eq!(rds.register_secrets("door", &secrets).await.unwrap(), Registered::Changed);
    assert_eq!(rds.register_secrets("door", &BTreeSet::new()).await.unwrap(), Registered::Same);
    assert_eq!(fake.proxy_secrets("door"), ["arn:a"]);
}

/// What is asked of RDS is what the list of permissions names, and nothing that it names is needless.
#[tokio::test]
async fn the_permissions_are_those_that_are_used() {
    let (fake, rds) = fake().await;
    let mut topology = create();
    topology.proxy = Some("door".to_owned());
    let wanted = wanted(&topology);
    step(&rds, &wanted).await;
    fake.settle();
    while step(&rds, &wanted).await.is_some() {}
    rds.move_backup_window(&wanted).await.unwrap();
    let cluster = rds.cluster("shared").await.unwrap().unwrap();
    rds.instances("shared").await.unwrap();
    rds.parameters("pgtenant-shared").await.unwrap();
    rds.maintenance(cluster.arn.as_deref().unwrap()).await.unwrap();
    rds.snapshots("shared").await.unwrap();
    fake.add_proxy("door", &[]);
    rds.register_secrets("door", &BTreeSet::from(["arn:a".to_owned()])).await.unwrap();
    let used: BTreeSet<String> = fake.actions().iter().map(|action| format!("rds:{action}")).collect();
    assert_eq!(actions(&topology), used.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(actions(&create()).iter().all(|action| !action.contains("Prox")));
    assert!(actions(&self::topology(json!({}))).iter().all(|action| action.starts_with("rds:Describe")));
}
