//! Back from what RDS keeps. RDS is played, with its states; behind the endpoint of what it restores is a real server, a clone of the
//! cluster as it was when the snapshot was taken.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use pgtenant_tests::{
    Api, Credential, Place, Serve, SiteOptions, TIERS, can, connect, eventually, rows, soon, superuser_sql, try_sql,
};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;

use crate::aurora::{Amazon, MASTER_PASSWORD, MASTER_SECRET};
use crate::shop::over;

pub(crate) const SNAPSHOT: &str = "rds:shared-2026-11-20-02-14";
const PATIENCE: Duration = Duration::from_secs(90);

/// A claim on an Aurora cluster, a snapshot of which was taken before somebody made a mistake.
pub(crate) struct Kept {
    pub(crate) amazon: Amazon,
    pub(crate) serve: Serve,
    /// A superuser of the server behind what is restored.
    clone: PgConnectOptions,
    clone_port: u16,
    /// When the snapshot was taken.
    at: DateTime<Utc>,
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl Kept {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With further lines of the cluster.
    pub(crate) async fn with(further: &str) -> Self {
        let cluster = format!("restores = {{ rds = {{ securityGroupIds = [\"sg-c0ffee\"], maxAcu = 4 }} }}\n{further}");
        let options = |options| SiteOptions { lease: "3s".to_owned(), cluster, backups: true, ..options };
        let mut amazon = Amazon::with(json!({}), options).await;
        amazon.rds.settle_by_itself();
        amazon.rds.add_cluster("shared", 1);
        amazon.rds.set("shared", "MasterUserSecret.SecretArn", MASTER_SECRET);
        amazon.rds.set("shared", "MasterUsername", "postgres_master");
        amazon.rds.set("shared", "VpcSecurityGroups.VpcSecurityGroupMembership.1.VpcSecurityGroupId", "sg-0a1b2c3d");
        let serve = amazon.serve_with("first", &[]).await;
        serve.api().ready("aurora", "db").await;
        let admin = Credential::read(&amazon.site.secrets, "aurora", "db", "admin");
        can(
            &admin,
            "create table orders (id bigint generated always as identity primary key, item text not null);
             insert into orders (item) select 'item ' || n from generate_series(1, 500) n",
        )
        .await;
        let (clone, clone_port) = clone(&mut amazon).await;
        let at = Utc::now() + TimeDelta::seconds(1);
        amazon.rds.add_snapshot("shared", SNAPSHOT, &text(at), true);
        can(&admin, "drop table orders").await;
        let kept = Self { amazon, serve, clone, clone_port, at };
        eventually("the snapshot is of the past", PATIENCE, || async {
            if Utc::now() > kept.at { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        kept
    }

    pub(crate) fn api(&self) -> Api {
        self.serve.api()
    }

    fn credential(&self, tier: &str) -> Credential {
        Credential::read(&self.amazon.site.secrets, "aurora", "db", tier)
    }

    async fn request(&self, spec: Value) -> Value {
        self.api().post("/v1/namespaces/aurora/databases/db/restores", spec).await.expect(202).json
    }

    async fn approve(&self, restore: &Value) {
        let id = restore["id"].as_str().unwrap();
        // The answer may be cut off.
        self.api().try_send("POST", &format!("/v1/restores/{id}/approve"), &[], None).await.ok();
    }

    async fn restored(&self, spec: Value) -> Value {
        let restore = self.request(spec).await;
        self.approve(&restore).await;
        over(&self.api(), restore["id"].as_str().unwrap()).await
    }

    /// Begins a restore whose copy is being made, and never comes up.
    async fn is_made(&self) -> String {
        let restore = self.request(json!({"from": {"snapshot": SNAPSHOT}})).await;
        self.approve(&restore).await;
        soon("it is being made", || async {
            let clusters = self.amazon.rds.clusters();
            if clusters.len() == 2 { Ok(()) } else { Err(format!("{clusters:?}")) }
        })
        .await;
        restore["id"].as_str().unwrap().to_owned()
    }

    async fn orders(&self) -> Vec<String> {
        let superuser = Place::of(&self.amazon.own.cluster).superuser;
        rows(&superuser, Some("aurora-db"), "select count(*)::text from orders").await
    }

    /// What RDS was asked for, with the form of the call.
    fn asked(&self, action: &str) -> Vec<pgtenant_testkit::RdsFields> {
        let calls = self.amazon.rds.calls().into_iter();
        calls.filter(|call| call.action == action).map(|call| call.parameters).collect()
    }

    pub(crate) async fn only_the_cluster_is_there(&self) {
        soon("no copy is left", || async {
            self.amazon.rds.settle();
            let clusters = self.amazon.rds.clusters();
            if clusters == ["shared"] { Ok(()) } else { Err(format!("{clusters:?}")) }
        })
        .await;
    }
}

/// The standby becomes a server of its own, with all that the primary has by now.
async fn clone(amazon: &mut Amazon) -> (PgConnectOptions, u16) {
    let primary = Place::of(&amazon.own.cluster).superuser;
    let end = rows(&primary, None, "select pg_current_wal_lsn()::text").await.remove(0);
    let standby = amazon.own.cluster.standby().unwrap();
    let (superuser, port) = (standby.superuser(), standby.port());
    let behind = format!("select (pg_last_wal_replay_lsn() < '{end}'::pg_lsn)::text");
    soon("the standby has all", || async {
        let behind = rows(&superuser, None, &behind).await.remove(0);
        if behind == "false" { Ok(()) } else { Err("it is behind".to_owned()) }
    })
    .await;
    standby.promote().await.unwrap();
    let handle = tokio::runtime::Handle::current();
    let set = superuser.clone();
    amazon.rds.restores_are_at("localhost", port, move |_, login, password| {
        let (set, sql) = (set.clone(), format!("alter role \"{login}\" password '{password}'"));
        handle.spawn(async move { superuser_sql(&set, None, &sql).await });
    });
    (superuser, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_database_comes_back_from_a_snapshot_and_from_a_point_in_time() {
    let kept = Kept::new().await;
    let before = kept.credential("admin");
    let listed = kept.api().list("/v1/namespaces/aurora/databases/db/snapshots").await;
    assert_eq!(listed[0]["id"], SNAPSHOT, "{listed:?}");
    let done = kept.restored(json!({"from": {"snapshot": SNAPSHOT}})).await;
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &json!(SNAPSHOT)), "{done}");
    assert!(done["message"].as_str().unwrap().contains("is as it was in the snapshot"), "{done}");
    assert_eq!(kept.orders().await, ["500"]);
    assert_eq!(kept.credential("admin"), before, "no new password");
    kept.only_the_cluster_is_there().await;

    // What was asked of RDS.
    let made = kept.asked("RestoreDBClusterFromSnapshot");
    let name = made[0]["DBClusterIdentifier"].clone();
    assert!(made.len() == 1 && name.starts_with("pgtenant-restore-"), "{made:?}");
    assert_eq!(made[0]["SnapshotIdentifier"], SNAPSHOT);
    assert_eq!((made[0]["EngineVersion"].as_str(), made[0]["DeletionProtection"].as_str()), ("16.6", "false"));
    assert_eq!(made[0]["VpcSecurityGroupIds.VpcSecurityGroupId.1"], "sg-c0ffee");
    let tags: Vec<_> =
        made[0].iter().filter(|(path, _)| path.starts_with("Tags.")).map(|(_, tag)| tag.as_str()).collect();
    assert_eq!(tags, ["pgtenant:restore", done["id"].as_str().unwrap(), "pgtenant:cluster", "shared"]);
    let instance = kept.asked("CreateDBInstance");
    assert!(instance.len() == 1 && instance[0]["PubliclyAccessible"] == "false", "{instance:?}");
    for (action, field) in [("DeleteDBInstance", "DBInstanceIdentifier"), ("DeleteDBCluster", "DBClusterIdentifier")] {
        let deleted = kept.asked(action);
        assert!(deleted.len() == 1 && deleted[0]["SkipFinalSnapshot"] == "true", "{deleted:?}");
        assert!(deleted[0][field].starts_with(&name), "{deleted:?}");
    }
    let passwords: Vec<String> = kept
        .asked("ModifyDBCluster")
        .into_iter()
        .filter_map(|mut form| {
            assert_eq!(form["DBClusterIdentifier"], name, "the cluster's own login keeps its password");
            form.remove("MasterUserPassword")
        })
        .collect();
    let ledger =
        kept.amazon.site.ledger_rows("select steps::text from restores union all select message from events").await;
    for password in &passwords {
        let told = ledger.iter().any(|row| row.contains(password)) || kept.serve.running.stderr().contains(password);
        assert!(!told && password != MASTER_PASSWORD && password.len() > 20);
    }

    // Nobody else gets in where the copy was: the clone is as it was left.
    for tier in ["read", "write", "admin"] {
        let credential = Credential { port: kept.clone_port, ..kept.credential(tier) };
        let refused = connect(&credential).await.unwrap_err().to_string();
        assert!(refused.contains("not permitted to log in"), "{refused}");
    }
    let open =
        "select rolname::text from pg_roles where rolcanlogin and not rolsuper and rolname not like 'pgtenant\\_job%'";
    assert_eq!(rows(&kept.clone, None, open).await, ["postgres_master"]);

    // As it was at a time that is nearer than the snapshot.
    can(&kept.credential("admin"), "delete from orders").await;
    kept.amazon.rds.set("shared", "EarliestRestorableTime", "2026-11-01T00:00:00Z");
    kept.amazon.rds.set("shared", "LatestRestorableTime", &text(Utc::now() + TimeDelta::seconds(5)));
    let time = text(Utc::now());
    let done = kept.restored(json!({"from": {"time": time}})).await;
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &json!(format!("rds:at:{time}"))), "{done}");
    assert_eq!(kept.orders().await, ["500"]);
    let made = kept.asked("RestoreDBClusterToPointInTime");
    assert_eq!((made.len(), made[0]["RestoreToTime"].as_str()), (1, time.as_str()), "{made:?}");
    assert_eq!(made[0]["SourceDBClusterIdentifier"], "shared");
    kept.only_the_cluster_is_there().await;

    // It can not be known whose it is.
    superuser_sql(&kept.clone, None, "comment on database \"aurora-db\" is null").await;
    let done = kept.restored(json!({"from": {"snapshot": SNAPSHOT}})).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    assert!(done["message"].as_str().unwrap().contains("was not aurora/db's"), "{done}");
    kept.only_the_cluster_is_there().await;

    // It vanishes before it is used.
    let restore = kept.request(json!({"from": {"snapshot": SNAPSHOT}})).await;
    kept.amazon.rds.delete_snapshot(SNAPSHOT);
    kept.approve(&restore).await;
    let done = over(&kept.api(), restore["id"].as_str().unwrap()).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    assert!(done["message"].as_str().unwrap().contains("is not there"), "{done}");
    kept.only_the_cluster_is_there().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_loaded_in_place_and_into_a_database_of_its_own() {
    let kept = Kept::new().await;
    let before = TIERS.map(|tier| kept.credential(tier));
    can(&kept.credential("admin"), "create table after_it as select 1 as n").await;
    let done = kept.restored(json!({"from": {"snapshot": SNAPSHOT}, "strategy": "copy", "copyName": "old"})).await;
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &json!(SNAPSHOT)), "{done}");
    kept.only_the_cluster_is_there().await;
    kept.api().is_ready("aurora", "old").await;
    let old = Credential::of(&kept.amazon.site.secrets, "aurora", "old");
    try_sql(&old[0], "select 1 / (count(*) = 500)::int from orders").await.unwrap();
    try_sql(&old[1], "insert into orders (item) values ('new')").await.unwrap();
    assert!(old.iter().zip(&before).all(|(old, own)| old.password != own.password), "it has passwords of its own");
    let own = kept.credential("write");
    try_sql(&own, "insert into after_it values (2)").await.unwrap();
    assert_eq!(try_sql(&own, "select from orders").await, Err("42P01".to_owned()), "the database is as it was");

    let done = kept.restored(json!({"from": {"snapshot": SNAPSHOT}, "strategy": "replace"})).await;
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &json!(SNAPSHOT)), "{done}");
    kept.only_the_cluster_is_there().await;
    assert_eq!(kept.orders().await, ["500"]);
    try_sql(&own, "insert into orders (item) values ('new')").await.unwrap();
    assert_eq!(try_sql(&own, "select from after_it").await, Err("42P01".to_owned()), "it was made after the snapshot");
    assert_eq!(TIERS.map(|tier| kept.credential(tier)), before, "no new password");
    kept.api().is_ready("aurora", "db").await;

    // What was there was dumped first.
    let safety = done["message"].as_str().unwrap().rsplit(' ').next().unwrap();
    let done = kept.restored(json!({"from": {"snapshot": safety}, "strategy": "replace"})).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    try_sql(&own, "select 1 / (count(*) = 2)::int from after_it").await.unwrap();
    assert_eq!(kept.asked("RestoreDBClusterFromSnapshot").len(), 2, "a dump needs no copy of the cluster");
}

/// What the making, reading and deleting of a copy comes through.
const POINTS: [&str; 9] = [
    "before:make-cluster-copy",
    "after:make-cluster-copy",
    "before:make-copy-instance",
    "after:make-copy-instance",
    "after:restore-to-Copying",
    "before:restore-to-Verifying",
    "after:restore-to-Verifying",
    "before:remove-cluster-copy",
    "after:remove-cluster-copy",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_one_copy_is_made_and_none_is_left() {
    let mut kept = Kept::new().await;
    for (round, point) in (1..).zip(POINTS) {
        kept.serve.stop().await;
        kept.serve = kept.amazon.serve_with("killed", &[("PGTENANT_FAULT", &format!("kill@{point}"))]).await;
        let restore = kept.request(json!({"from": {"snapshot": SNAPSHOT}})).await;
        kept.approve(&restore).await;
        kept.serve.running.end(PATIENCE).await;
        kept.serve = kept.amazon.serve_with("after", &[]).await;
        let done = over(&kept.api(), restore["id"].as_str().unwrap()).await;
        assert_eq!(done["phase"], "Succeeded", "{point}: {done}");
        assert_eq!(kept.orders().await, ["500"], "{point}");
        assert_eq!(kept.asked("RestoreDBClusterFromSnapshot").len(), round, "{point}");
        assert_eq!(kept.asked("CreateDBInstance").len(), round, "{point}");
        kept.only_the_cluster_is_there().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_can_not_be_deleted_is_told_of_and_deleted_when_it_can_be() {
    let mut kept = Kept::new().await;
    kept.amazon.rds.deny("DeleteDBCluster");
    let done = kept.restored(json!({"from": {"snapshot": SNAPSHOT}})).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    let message = done["message"].as_str().unwrap();
    assert!(message.contains("is as it was") && message.contains("costs money and could not be deleted"), "{message}");
    let left = "pgtenant_restore_leftovers";
    eventually("it is counted", PATIENCE, || async {
        let count = kept.serve.metric(left).await;
        if count == 1.0 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    eventually("it is in the status", PATIENCE, || async {
        let told = kept.api().get("/v1/clusters/default/preflight").await.expect(200).text;
        if told.contains("costs money") && told.contains("allow rds:DeleteDBCluster") { Ok(()) } else { Err(told) }
    })
    .await;
    let events = kept.amazon.site.ledger_rows("select message from events where kind = 'ClusterChanged'").await;
    assert_eq!(events.iter().filter(|one| one.contains("could not be deleted")).count(), 1, "{events:?}");
    kept.amazon.rds.allow_everything();
    eventually("it is deleted", PATIENCE, || async {
        kept.amazon.rds.settle();
        let (clusters, count) = (kept.amazon.rds.clusters(), kept.serve.metric(left).await);
        if clusters == ["shared"] && count == 0.0 { Ok(()) } else { Err(format!("{clusters:?} {count}")) }
    })
    .await;

    // Cancelled while RDS makes it: all is as it was, and it goes.
    kept.amazon.rds.deny("CreateDBInstance");
    let id = kept.is_made().await;
    kept.api().ask(&format!("/v1/restores/{id}/cancel")).await.expect(200);
    assert_eq!(over(&kept.api(), &id).await["phase"], "Cancelled");
    kept.only_the_cluster_is_there().await;

    // It costs money, and so does not wait for a server that is down.
    let id = kept.is_made().await;
    kept.amazon.own.cluster.primary().kill().await;
    kept.api().ask(&format!("/v1/restores/{id}/cancel")).await.expect(200);
    kept.only_the_cluster_is_there().await;
    let path = format!("/v1/restores/{id}");
    assert_eq!(kept.api().get(&path).await.expect(200).json["phase"], "CleaningUp");
    kept.amazon.own.cluster.primary().start().await.unwrap();
    assert_eq!(over(&kept.api(), &id).await["phase"], "Cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_taken_where_rds_has_made_none() {
    let cluster = "backups = { rds = { ensure = true, tryEvery = \"0s\" }, keep = \"7d\" }".to_owned();
    let amazon = Amazon::with(json!({}), |options| SiteOptions { cluster, ..options }).await;
    amazon.rds.settle_by_itself();
    // The cluster is some days old.
    amazon.rds.add_cluster("shared", 1);
    amazon.rds.set("shared", "MasterUserSecret.SecretArn", MASTER_SECRET);
    amazon.rds.set("shared", "LatestRestorableTime", &text(Utc::now() - TimeDelta::hours(2)));
    amazon.rds.add_snapshot("shared", "somebodys-own", "2026-01-01T00:00:00Z", false);
    amazon.rds.add_snapshot("shared", "pgtenant-snapshot-shared-2026-01-02", "2026-01-02T00:00:00Z", false);
    amazon.rds.set_snapshot("pgtenant-snapshot-shared-2026-01-02", "TagList.Tag.1.Key", "managed-by");
    amazon.rds.set_snapshot("pgtenant-snapshot-shared-2026-01-02", "TagList.Tag.1.Value", "pgtenant");
    let (one, _two) = (amazon.serve_with("one", &[]).await, amazon.serve_with("two", &[]).await);
    let today = format!("pgtenant-snapshot-shared-{}", Utc::now().format("%Y-%m-%d"));
    soon("a snapshot is taken", || async {
        let there = amazon.rds.snapshots();
        if there.contains(&today) { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    // Started again, it looks again.
    drop(one);
    let one = amazon.serve_with("again", &[]).await;
    soon("the one that was kept long enough is gone", || async {
        let there = amazon.rds.snapshots();
        if there == [today.as_str(), "somebodys-own"] { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    assert!(amazon.count("CreateDBClusterSnapshot") <= 2, "at most once for each replica");
    soon("the ages are measured: a new snapshot, and a log of two hours ago", || async {
        let age = one.metric("pgtenant_cluster_backup_age_seconds").await;
        if (7000.0..9000.0).contains(&age) { Ok(()) } else { Err(age.to_string()) }
    })
    .await;
    soon("it is told", || async {
        let told = one.api().get("/v1/clusters/default/preflight").await.expect(200).text;
        let both = told.contains("has made no automatic snapshot") && told.contains("far behind with its log");
        if both { Ok(()) } else { Err(told) }
    })
    .await;
    let tried = one.api().ask("/v1/clusters/default/preflight").await.expect(200).json;
    let line = tried["checks"].as_array().unwrap().iter().find(|line| line["check"] == "snapshots");
    assert!(line.is_some_and(|line| line["message"].as_str().unwrap().contains("newest snapshot: 20")), "{tried}");

    let listed = one.api().list("/v1/clusters/default/snapshots").await;
    let ids: Vec<_> = listed.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [format!("rds:{today}").as_str(), "rds:somebodys-own"]);
    let secret = format!("pgt_{}", "7".repeat(64));
    amazon.site.add_token("tenant", "tenant", &["aurora"], &secret).await;
    one.api().with_token(Some(&secret)).get("/v1/clusters/default/snapshots").await.problem(403, "forbidden");
}
