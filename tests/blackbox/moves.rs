//! A database is moved to another cluster: rehearsed, confirmed, done; and all is as it was wherever that comes to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pgtenant_tests::{
    Cli, Credential, Own, Place, SiteOptions, TIERS, connect, eventually, measured, rows, superuser_sql, try_sql,
    works_for_an_application,
};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;

use crate::shop::{PATIENCE, Shop};

/// A database on `default`, and another cluster beside it.
pub(crate) struct Two {
    pub(crate) shop: Shop,
    pub(crate) other: Own,
    here: Place,
}

impl Two {
    async fn new() -> Self {
        let here = Place::shared().await;
        let two = Self::of(here.clone(), Own::start(false, &[]).await, SiteOptions::on(here).await).await;
        two.shop.stock("data").await;
        two
    }

    /// Without a database.
    pub(crate) async fn of(here: Place, other: Own, options: SiteOptions) -> Self {
        let mut options = SiteOptions { lease: "3s".to_owned(), ..options };
        options.clusters.push(("other".to_owned(), other.place()));
        Self { shop: Shop::open_with(options).await, other, here }
    }

    pub(crate) fn cli(&self) -> Cli {
        let plane = &self.shop.plane;
        Cli::of(&plane.serve.url, &plane.site.token)
    }

    pub(crate) fn target(&self) -> String {
        format!("{}/data", self.shop.namespace)
    }

    pub(crate) fn path(&self) -> String {
        format!("{}/move", self.shop.path("data"))
    }

    pub(crate) async fn ask(&self, to: &str) -> Value {
        self.shop.api().post(&self.path(), json!({"to": to})).await.expect(202).json
    }

    pub(crate) async fn answer(&self, word: &str, one: &Value) {
        let path = format!("{}/{word}", self.path());
        self.shop.api().post(&path, json!({"id": one["id"]})).await.expect(202);
    }

    /// Waits until the last move is in one of these phases.
    pub(crate) async fn is_in(&self, phases: &[&str]) -> Value {
        eventually(&format!("the move is in {phases:?}"), PATIENCE, || async {
            let now = self.shop.api().try_send("GET", &self.path(), &[], None).await.map_err(|e| e.to_string())?;
            let there = phases.iter().any(|phase| now.json["phase"] == *phase);
            if there { Ok(now.json) } else { Err(now.text) }
        })
        .await
    }

    pub(crate) fn superuser(&self, cluster: &str) -> PgConnectOptions {
        if cluster == "other" { self.other.place().superuser } else { self.here.superuser.clone() }
    }

    /// Databases and roles of the namespace on a cluster, and logins of jobs for them.
    async fn on(&self, cluster: &str) -> Vec<String> {
        let sql = format!(
            "select datname::text from pg_database where starts_with(datname, '{0}-')
             union all select rolname::text from pg_roles where starts_with(rolname, '{0}-')
             union all select m.rolname::text from pg_auth_members a join pg_roles m on m.oid = a.member
                       join pg_roles r on r.oid = a.roleid where m.rolname like 'pgtenant_job%' and starts_with(r.rolname, '{0}-')
             order by 1",
            self.shop.namespace
        );
        let mut found = rows(&self.superuser(cluster), None, &sql).await;
        found.dedup();
        found
    }

    pub(crate) async fn nothing_on(&self, cluster: &str) {
        eventually(&format!("nothing is on {cluster}"), PATIENCE, || async {
            let left = self.on(cluster).await;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }

    pub(crate) fn passwords(&self) -> Vec<String> {
        TIERS.map(|tier| self.shop.credential("data", tier).password).into()
    }

    /// It is on this cluster, whole, with the same passwords, and works.
    pub(crate) async fn is_whole_on(&self, cluster: &str, passwords: &[String]) {
        self.is_on(cluster, passwords).await;
        assert_eq!(self.shop.count("data", "orders").await, Ok(500));
        assert_eq!(self.shop.count("data", "lines").await, Ok(500));
        works_for_an_application(&self.shop.plane.site.secrets, &self.shop.namespace, "data").await;
    }

    pub(crate) async fn is_on(&self, cluster: &str, passwords: &[String]) {
        self.shop.api().is_ready(&self.shop.namespace, "data").await;
        let claim = self.shop.api().get(&self.shop.path("data")).await.expect(200).json;
        assert_eq!(claim["cluster"], cluster);
        assert_eq!(self.passwords(), passwords);
        let port = self.superuser(cluster).get_port();
        assert!(TIERS.iter().all(|tier| self.shop.credential("data", tier).port == port));
    }

    /// What was kept is dropped as if its time had come.
    pub(crate) async fn let_time_pass(&self) {
        let sql = "update moves set kept_until = now(), due_at = now() where kept_until is not null returning ''";
        self.shop.plane.site.ledger_rows(sql).await;
    }
}

/// An application that writes one row after the other with what the store has, and counts what was acknowledged.
pub(crate) struct Application {
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Application {
    pub(crate) fn start(two: &Two) -> Self {
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, ended) = (Arc::clone(&written), Arc::clone(&stop));
        let (secrets, namespace) = (two.shop.plane.site.secrets.clone(), two.shop.namespace.clone());
        let task = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                if let Ok(credential) = Credential::try_read(&secrets, &namespace, "data", "write")
                    && let Ok(mut db) = connect(&credential).await
                {
                    while !ended.load(Ordering::Relaxed)
                        && sqlx::query("insert into ticks default values").execute(&mut db).await.is_ok()
                    {
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { written, stop, task }
    }

    pub(crate) async fn writes_more(&self) {
        let before = self.written.load(Ordering::Relaxed);
        eventually("the application writes", PATIENCE, || async {
            if self.written.load(Ordering::Relaxed) > before { Ok(()) } else { Err("nothing".to_owned()) }
        })
        .await;
    }

    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.written.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_goes_with_all_that_it_has_and_comes_back() {
    let two = Two::new().await;
    let admin = two.shop.credential("data", "admin");
    try_sql(&admin, "create table ticks (n bigint generated always as identity)").await.unwrap();
    let (passwords, application) = (two.passwords(), Application::start(&two));
    application.writes_more().await;
    let said = two.cli().run(&["cluster", "move", &two.target(), "--to", "other", "--yes"]).await.expect(0).stdout;
    assert!(said.contains("it is on other; nobody could connect for"), "{said}");
    application.writes_more().await;
    let written = application.stop().await;
    two.is_whole_on("other", &passwords).await;
    let found = usize::try_from(two.shop.count("data", "ticks").await.unwrap()).unwrap() as u64;
    assert!(found >= written, "{} of {written} acknowledged writes are lost", written - found);
    let done = two.is_in(&["Succeeded"]).await;
    let (expected, gap) = (done["expectedGapSeconds"].as_f64().unwrap(), done["gapSeconds"].as_f64().unwrap());
    measured(&format!("move: said {expected:.1} s, nobody could connect for {gap:.1} s, 0 of {written} writes lost"));

    // What was there is kept, and nobody of the tenant comes in.
    let left = two.on("default").await;
    assert!(left.iter().any(|name| name.contains("-before-")), "{left:?}");
    assert_eq!(try_sql(&admin, "select 1").await, Err("3D000".to_owned()));
    // Its definition may go on naming the cluster that it was made on.
    let path = format!("/v1/namespaces/{}/databases", two.shop.namespace);
    two.shop.api().post(&path, json!({"name": "data", "cluster": "default"})).await.expect(200);
    let patched = two.shop.api().patch(&two.shop.path("data"), json!({"connectionLimit": 9})).await;
    assert!(patched.status < 300, "{}", patched.text);

    two.cli().run(&["cluster", "move", &two.target(), "--to", "default", "--yes"]).await.expect(0);
    two.is_whole_on("default", &passwords).await;
    two.let_time_pass().await;
    two.nothing_on("other").await;
    eventually("what was kept is gone", PATIENCE, || async {
        let left = two.on("default").await;
        if left.iter().any(|name| name.contains("-before-")) { Err(format!("{left:?}")) } else { Ok(()) }
    })
    .await;
    two.is_whole_on("default", &passwords).await;
}

/// What a move comes through.
const POINTS: [&str; 7] = [
    "before:move-to-Waiting",
    "after:move-to-Waiting",
    "after:move-closed",
    "after:move-copied",
    "after:move-take-place",
    "after:move-claim",
    "after:move-put-aside",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_it_goes_on() {
    let mut two = Two::new().await;
    let passwords = two.passwords();
    let (mut here, mut there) = ("default", "other");
    for point in POINTS {
        two.shop.again("killed", Some(&format!("kill@{point}"))).await;
        let asked = two.ask(there).await;
        let confirm = format!("{}/confirm", two.path());
        // The answers may be cut off.
        let api = two.shop.api();
        let ended = two.shop.plane.serve.running.end(PATIENCE);
        let confirmed = async {
            loop {
                api.try_send("POST", &confirm, &[], Some(&json!({"id": asked["id"]}))).await.ok();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            _ = ended => {}
            () = confirmed => {}
        }
        two.shop.plane.serve = two.shop.plane.site.serve("after").await;
        two.shop.plane.serve.is_ready().await;
        if two.is_in(&["Waiting", "Succeeded"]).await["phase"] == "Waiting" {
            two.answer("confirm", &asked).await;
        }
        two.is_in(&["Succeeded"]).await;
        two.is_whole_on(there, &passwords).await;
        two.let_time_pass().await;
        two.nothing_on(here).await;
        (here, there) = (there, here);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_comes_to_nothing_all_is_as_it_was() {
    let two = Two::new().await;
    let (api, path, passwords) = (two.shop.api(), two.path(), two.passwords());
    for (body, status) in [(json!({"to": "default"}), 422), (json!({"to": "nowhere"}), 422), (json!({"to": "-"}), 422)]
    {
        let answer = api.post(&path, body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
    }
    let tenant = two.shop.plane.api_of("tenant", &[&two.shop.namespace]).await;
    tenant.post(&path, json!({"to": "other"})).await.expect(403);
    api.get(&path).await.expect(404);

    // It is somebody's already.
    let superuser = two.superuser("other");
    let database = two.shop.database("data");
    superuser_sql(&superuser, None, &format!("create database \"{database}\"")).await;
    let refused = two.cli().run(&["cluster", "move", &two.target(), "--to", "other", "--yes"]).await.expect(1).stderr;
    assert!(refused.contains("is not this claim's"), "{refused}");
    two.is_whole_on("default", &passwords).await;
    superuser_sql(&superuser, None, &format!("drop database \"{database}\"")).await;
    two.nothing_on("other").await;

    // Too long, without a terminal, and no.
    let too_long = ["cluster", "move", &two.target(), "--to", "other", "--yes", "--max-gap", "1s"];
    let refused = two.cli().run(&too_long).await.expect(1).stderr;
    assert!(refused.contains("--max-gap is 1s"), "{refused}");
    assert_eq!(two.is_in(&["Cancelled"]).await["gapSeconds"], Value::Null);
    two.cli().run(&["cluster", "move", &two.target(), "--to", "other"]).await.expect(2);
    two.is_in(&["Cancelled"]).await;
    let asked = two.ask("other").await;
    two.is_in(&["Waiting"]).await;
    assert_eq!(two.ask("other").await["id"], asked["id"], "the same wish");
    two.shop
        .api()
        .post(&format!("{}/restores", two.shop.path("data")), json!({"from": {"latest": true}}))
        .await
        .problem(409, "move-open");
    works_for_an_application(&two.shop.plane.site.secrets, &two.shop.namespace, "data").await;
    two.cli().run(&["cluster", "move", &two.target(), "--cancel"]).await.expect(0);
    two.is_in(&["Cancelled"]).await;
    api.post(&format!("{path}/confirm"), json!({"id": asked["id"]})).await.problem(409, "move-not-waiting");
    two.nothing_on("other").await;
    two.is_whole_on("default", &passwords).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_kept_out_for_long_where_the_other_cluster_is_lost() {
    let mut two = Two::new().await;
    let passwords = two.passwords();
    two.shop.again("stalled", Some("stall=5s@after:move-closed")).await;
    let asked = two.ask("other").await;
    two.is_in(&["Waiting"]).await;
    two.answer("confirm", &asked).await;
    two.shop.plane.serve.is_at_fault_point().await;
    let maintenance = json!({"reason": "an upgrade"});
    two.shop.api().post("/v1/clusters/other/maintenance", maintenance).await.problem(409, "move-open");
    // Nobody can write while it is under way, and the other cluster goes away.
    try_sql(&two.shop.credential("data", "write"), "insert into orders (item) values ('x')").await.unwrap_err();
    two.other.cluster.stop().await.unwrap();
    let over = two.is_in(&["CleaningUp"]).await;
    assert!(over["message"].as_str().unwrap().contains("it is where it was"), "{over}");
    two.is_whole_on("default", &passwords).await;
    two.other.cluster.start(|_| {}).await.unwrap();
    let done = two.is_in(&["Failed"]).await;
    assert!(done["message"].as_str().unwrap().contains("it is where it was"), "{done}");
    assert_eq!(done["gapSeconds"], Value::Null, "{done}");
    two.nothing_on("other").await;
    two.is_whole_on("default", &passwords).await;
}
