//! A database is moved by logical replication: a copy follows it while applications go on, and they wait for the last changes alone.

use std::path::PathBuf;
use std::time::Duration;

use pgtenant_tests::{Own, SiteOptions, eventually, measured, rows, run_script, superuser_sql, try_sql};
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;

use crate::moves::{Application, Two};
use crate::shop::PATIENCE;

/// Where `.ci/postgres-tools` has put `pg_dump` and `pg_restore` 18.
fn tools() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Some(cache.or_else(home).unwrap_or_default().join("pgtenant/postgresql-tools/18/bin"))
}

const LOGICAL: [(&str, &str); 1] = [("wal_level", "logical")];

/// Two clusters of these versions whose provisioner may do what `bootstrap --logical-replication` gives it, and a database that can be
/// followed.
struct Pair {
    two: Two,
    here: Own,
}

impl Pair {
    async fn new(from: u32, to: u32) -> Self {
        let (here, there) = (Own::of_major(from, &LOGICAL).await, Own::of_major(to, &LOGICAL).await);
        let options = SiteOptions { tools: tools(), ..SiteOptions::on(here.place()).await };
        let two = Two::of(here.place(), there, options).await;
        let mut pair = Self { two, here };
        pair.bootstrap().await;
        // Sessions that are open act as before.
        pair.two.shop.again("bootstrapped", None).await;
        pair.two.shop.api().ready(&pair.two.shop.namespace, "data").await;
        pair.run(
            "create table orders (id bigint generated always as identity primary key, item text not null);
             create table lines (order_id bigint references orders, n int check (n > 0), primary key (order_id, n));
             create index on lines (n);
             create table ticks (n bigint generated always as identity primary key);
             insert into orders (item) select 'item ' || n from generate_series(1, 500) n;
             insert into lines select id, 1 + id % 7 from orders;
             create table parts (id int, at date, primary key (id, at)) partition by range (at);
             create table parts_1 partition of parts for values from ('2026-01-01') to ('2027-01-01');
             insert into parts values (1, '2026-02-03');
             create view totals as select order_id, sum(n) from lines group by 1;
             create function count_up() returns trigger language plpgsql as
               'begin insert into ticks default values; return new; end';
             create trigger count_up after insert on parts for each row execute function count_up()",
        )
        .await;
        pair
    }

    /// Has the provisioner act as the group that the script makes, as its logins do.
    async fn bootstrap(&self) {
        let site = &self.two.shop.plane.site;
        let (password, script) = (site.path().join("prov_a.password"), site.path().join("bootstrap.sql"));
        for own in [&self.here, &self.two.other] {
            let cluster = &own.cluster;
            let version = cluster.version();
            let args = ["cluster", "bootstrap", "--logical-replication", "--postgres-version", version];
            let login = ["--login", "prov_a", "--password-file", &password.to_string_lossy()];
            let printed = site.cli().run(&[&args[..], &login].concat()).await.expect(0).stdout;
            std::fs::write(&script, printed).unwrap();
            run_script(&cluster.superuser(), cluster.superuser_password(), &cluster.ca_file(), &script);
            let name = &site.provisioner;
            let sql = format!(
                "grant pgtenant to \"{name}\"; alter role \"{name}\" nocreatedb nocreaterole; alter role \"{name}\" set role = pgtenant"
            );
            superuser_sql(&cluster.superuser(), None, &sql).await;
        }
    }

    async fn allow(&self, replication: &str) {
        superuser_sql(&self.two.superuser("default"), None, &format!("alter role pgtenant {replication}")).await;
    }

    async fn fill(&self, mib: usize) {
        let rows = mib * 1024;
        let text = "repeat(md5(n::text), 31)";
        self.run(&format!(
            "create table filled (id bigint primary key, text text not null);
             alter table filled alter column text set storage external;
             insert into filled select n, {text} from generate_series(1, {rows}) n;
             create index on filled (left(text, 20))"
        ))
        .await;
    }

    /// Waits until it is known what it costs, however large it is.
    async fn waits(&self) -> Value {
        eventually("it waits for a yes", Duration::from_secs(900), || async {
            let now = self.two.shop.api().try_send("GET", &self.two.path(), &[], None).await;
            let now = now.map_err(|error| error.to_string())?;
            if now.json["phase"] == "Waiting" { Ok(now.json) } else { Err(now.text) }
        })
        .await
    }

    /// What the rehearsal of a dump says.
    async fn gap_by_dump(&self) -> f64 {
        let target = self.two.target();
        let asked = self.two.shop.api().post(&self.two.path(), json!({"to": "other", "by": "Dump"})).await;
        asked.expect(202);
        let waiting = self.waits().await;
        self.two.cli().run(&["cluster", "move", &target, "--cancel"]).await.expect(0);
        waiting["expectedGapSeconds"].as_f64().unwrap()
    }

    /// Versions print definitions differently, so that a copy's can not be compared with them: the database's own are.
    async fn changed_definitions_are_not_lost(&self) {
        let asked = self.ask("other").await;
        self.waits().await;
        self.run("create or replace view totals as select order_id, sum(n) + 0 as sum from lines group by 1").await;
        self.two.answer("confirm", &asked).await;
        let failed = self.two.is_in(&["Failed"]).await;
        let message = failed["message"].as_str().unwrap();
        assert!(message.contains("definitions were changed since the copy was made"), "{failed}");
        let closed = "select coalesce(closed_at::text, 'never') from moves where finished_at is not null order by id desc limit 1";
        assert_eq!(self.two.shop.plane.site.ledger_rows(closed).await, ["never"]);
        self.nothing_is_left().await;
    }

    /// As the admin tier.
    async fn run(&self, sql: &str) {
        try_sql(&self.two.shop.credential("data", "admin"), sql).await.unwrap();
    }

    /// Slots, publications, subscriptions and origins that are left on either side.
    async fn left(&self) -> Vec<String> {
        let everywhere = "select 'slot ' || slot_name from pg_replication_slots
             union all select 'subscription ' || subname from pg_subscription
             union all select 'origin ' || roname from pg_replication_origin
             union all select 'login ' || rolname from pg_roles where rolname like 'pgtenant_job%'";
        let mut left = Vec::new();
        for place in [self.here.place(), self.two.other.place()] {
            left.extend(rows(&place.superuser, None, everywhere).await);
            let databases = "select datname::text from pg_database where datname like 'shop%' and datallowconn";
            for database in rows(&place.superuser, None, databases).await {
                let published = "select 'publication ' || pubname from pg_publication";
                left.extend(rows(&place.superuser, Some(&database), published).await);
            }
        }
        left
    }

    async fn nothing_is_left(&self) {
        eventually("nothing follows any more", PATIENCE, || async {
            let left = self.left().await;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }

    async fn ask(&self, to: &str) -> Value {
        let asked = self.two.shop.api().post(&self.two.path(), json!({"to": to, "by": "Replication"})).await;
        asked.expect(202).json
    }

    async fn is_whole_on(&self, cluster: &str, passwords: &[String]) {
        self.two.is_on(cluster, passwords).await;
        for (table, rows) in [("orders", 500), ("lines", 500), ("parts", 1), ("totals", 500)] {
            assert_eq!(self.two.shop.count("data", table).await, Ok(rows), "{table}");
        }
        // Sequences, triggers and foreign keys are there, and work.
        let before = self.two.shop.count("data", "ticks").await.unwrap();
        self.run("insert into parts values (2, '2026-03-04'); delete from parts where id = 2").await;
        assert_eq!(self.two.shop.count("data", "ticks").await, Ok(before + 1));
        self.run("insert into orders (item) values ('new'); delete from orders where item = 'new'").await;
        let admin = self.two.shop.credential("data", "admin");
        assert_eq!(try_sql(&admin, "insert into lines values (0, 1)").await, Err("23503".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_version_is_reached_while_applications_go_on() {
    let pair = Pair::new(16, 18).await;
    let two = &pair.two;
    // With `PGTENANT_TEST_MIB=2048` it is measured what that is worth: by dump it takes as long as the copy.
    let mib: usize = std::env::var("PGTENANT_TEST_MIB").map_or(1, |mib| mib.parse().unwrap());
    pair.fill(mib).await;
    let by_dump = pair.gap_by_dump().await;
    pair.changed_definitions_are_not_lost().await;
    let (passwords, application) = (two.passwords(), Application::start(two));
    application.writes_more().await;
    let asked = pair.ask("other").await;
    let waiting = pair.waits().await;
    assert_eq!(waiting["method"], "Replication", "{waiting}");
    // A connection that is cut is made again, and what is changed while somebody thinks about it comes along.
    let cut = "select pg_terminate_backend(active_pid)::text from pg_replication_slots where active_pid is not null";
    assert_eq!(rows(&two.superuser("default"), None, cut).await, ["true"]);
    pair.run("update orders set item = 'changed' where id <= 100; delete from lines where order_id > 400").await;
    pair.run("insert into lines select id, 3 from orders where id > 400").await;
    application.writes_more().await;
    two.answer("confirm", &asked).await;
    let done = two.is_in(&["Succeeded"]).await;
    application.writes_more().await;
    let written = application.stop().await;
    pair.is_whole_on("other", &passwords).await;
    let changed = "select count(*)::text from orders where item = 'changed'";
    let database = two.shop.database("data");
    assert_eq!(rows(&two.superuser("other"), Some(&database), changed).await, ["100"]);
    let found = u64::try_from(two.shop.count("data", "ticks").await.unwrap()).unwrap();
    assert!(found >= written, "{} of {written} acknowledged writes are lost", written - found);
    let (expected, gap) = (done["expectedGapSeconds"].as_f64().unwrap(), done["gapSeconds"].as_f64().unwrap());
    measured(&format!(
        "move by replication, 16 to 18, {mib} MiB: said {expected:.1} s, nobody could connect for {gap:.1} s (by dump it would be {by_dump:.1} s), \
         0 of {written} writes lost"
    ));
    pair.nothing_is_left().await;
}

/// What a move by replication comes through.
const POINTS: [&str; 8] = [
    "after:move-to-Rehearsing",
    "before:move-to-Waiting",
    "after:move-to-Waiting",
    "after:move-closed",
    "after:move-copied",
    "after:move-take-place",
    "after:move-claim",
    "after:move-put-aside",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_a_copy_goes_on_following() {
    let mut pair = Pair::new(18, 18).await;
    let passwords = pair.two.passwords();
    let (mut here, mut there) = ("default", "other");
    for point in POINTS {
        pair.two.shop.again("killed", Some(&format!("kill@{point}"))).await;
        let asked = pair.ask(there).await;
        let confirm = format!("{}/confirm", pair.two.path());
        let api = pair.two.shop.api();
        let ended = pair.two.shop.plane.serve.running.end(PATIENCE);
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
        pair.two.shop.plane.serve = pair.two.shop.plane.site.serve("after").await;
        pair.two.shop.plane.serve.is_ready().await;
        if pair.two.is_in(&["Waiting", "Succeeded", "Failed"]).await["phase"] == "Waiting" {
            pair.two.answer("confirm", &asked).await;
        }
        let done = pair.two.is_in(&["Succeeded", "Failed"]).await;
        assert_eq!(done["phase"], "Succeeded", "{point}: {done}");
        assert_eq!(done["method"], "Replication", "{point}");
        pair.is_whole_on(there, &passwords).await;
        pair.nothing_is_left().await;
        pair.two.let_time_pass().await;
        pair.two.nothing_on(here).await;
        (here, there) = (there, here);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_can_not_follow_it_is_said_why() {
    let mut pair = Pair::new(18, 18).await;
    pair.ask("other").await;
    pair.two.is_in(&["Waiting"]).await;
    let kept = "select (subconninfo like '%options=''-crow_security=off''%')::text from pg_subscription";
    assert_eq!(rows(&pair.two.superuser("other"), None, kept).await, ["true"]);
    // A standby that takes the place of the copy's server may lack some of it.
    pair.two.other.cluster.stop().await.unwrap();
    pair.two.other.cluster.start(|_| {}).await.unwrap();
    let failed = pair.two.is_in(&["Failed"]).await;
    assert!(failed["message"].as_str().unwrap().contains("is another one than the copy was made on"), "{failed}");
    pair.nothing_is_left().await;

    let (two, passwords) = (&pair.two, pair.two.passwords());
    let target = two.target();
    let refused = async |why: &str| {
        let by = ["cluster", "move", &target, "--to", "other", "--yes", "--by", "replication"];
        let said = two.cli().run(&by).await.expect(1).stderr;
        assert!(said.contains(why) && said.contains("it is where it was"), "{said}");
        pair.nothing_is_left().await;
    };
    pair.allow("noreplication").await;
    refused("cluster bootstrap --logical-replication").await;
    pair.allow("replication").await;
    pair.run("create table keyless (n int)").await;
    refused("table public.keyless has neither a primary key nor another replica identity").await;
    // Without a wish it is done by dump, and that is said.
    let asked = two.shop.api().post(&two.path(), json!({"to": "other"})).await.expect(202).json;
    let waiting = two.is_in(&["Waiting"]).await;
    assert_eq!(waiting["method"], "Dump");
    assert!(waiting["message"].as_str().unwrap().contains("by dump, since table public.keyless"), "{waiting}");
    two.answer("cancel", &asked).await;
    two.is_in(&["Cancelled"]).await;
    pair.run("drop table keyless").await;

    // What follows is taken away again.
    let asked = pair.ask("other").await;
    two.is_in(&["Waiting"]).await;
    assert_eq!(pair.left().await.len(), 6, "slot, publication, subscription, origin, two logins");
    two.answer("cancel", &asked).await;
    two.is_in(&["Cancelled"]).await;
    pair.nothing_is_left().await;

    // As after a failover, where the new primary has no slot.
    pair.ask("other").await;
    two.is_in(&["Waiting"]).await;
    let drop = "select pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null;
                select pg_drop_replication_slot(slot_name) from pg_replication_slots";
    eventually("the slot is dropped", PATIENCE, || async {
        let mut db = two.superuser("default").connect().await.map_err(|error| error.to_string())?;
        sqlx::raw_sql(drop).execute(&mut db).await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    let failed = two.is_in(&["Failed"]).await;
    assert!(failed["message"].as_str().unwrap().contains("its replication slot is gone"), "{failed}");
    pair.nothing_is_left().await;

    // A definition that is changed meanwhile: nobody is kept out for it.
    pair.ask("other").await;
    two.is_in(&["Waiting"]).await;
    pair.run("alter table orders add column note text; insert into orders (item, note) values ('x', 'y')").await;
    pair.run("delete from orders where item = 'x'; alter table orders drop column note").await;
    let failed = two.is_in(&["Failed"]).await;
    assert!(failed["message"].as_str().unwrap().contains("a change could not be made to the copy"), "{failed}");
    assert_eq!(failed["gapSeconds"], Value::Null);
    pair.nothing_is_left().await;
    two.nothing_on("other").await;
    pair.is_whole_on("default", &passwords).await;

    // Who removes the claim does not wait for it.
    pair.ask("other").await;
    two.is_in(&["Waiting"]).await;
    two.shop.api().delete(&two.shop.path("data")).await.expect(202);
    two.is_in(&["Cancelled"]).await;
    pair.nothing_is_left().await;
}
