//! The primary of each kind of cluster dies while all of it is under way: claims, a restore, new passwords. All of it ends well.

use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use pgtenant_lab::LabKind;
use pgtenant_tests::{Api, Credential, SiteOptions, TIERS, can, eventually, measured, rows, soon};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::shared::Plane;
use crate::shop::Shop;
use crate::topologies::{Cluster, seen};

const PATIENCE: Duration = Duration::from_secs(180);
const CLAIMS: usize = 50;
/// So that the restore is still copying when the primary dies.
const MIB: usize = 24;

/// A control plane at work on a cluster.
struct AtWork {
    cluster: Cluster,
    shop: Shop,
    /// What was asked for while the primary was there.
    names: Vec<String>,
    restore: Value,
    rotation: String,
    /// Of the claim that gets new passwords.
    before: [Credential; TIERS.len()],
}

impl AtWork {
    async fn begin(kind: LabKind) -> Self {
        let cluster = Cluster::up(kind).await;
        // A look at each claim costs three logins: with one a second, looks are all that two cores do.
        let (lease, look) = ("5s".to_owned(), "5s".to_owned());
        let mut options = SiteOptions { backups: true, lease, look, ..SiteOptions::shared().await };
        // Where no commit is lost, the control plane's own ledger is on the same cluster.
        if matches!(kind, LabKind::Patroni | LabKind::PgAutoFailover) {
            options.ledger = cluster.place().await;
        }
        let site = cluster.site_with(options).await;
        let serve = site.serve("serve").await;
        serve.is_ready().await;
        let shop = Shop::of(Plane { site, serve });
        shop.stock("data").await;
        shop.fill("data", MIB).await;
        shop.dump("data").await;
        shop.is_tried("data").await;
        let api = shop.api();
        api.ready(&shop.namespace, "turned").await;
        let before = Credential::of(&shop.plane.site.secrets, &shop.namespace, "turned");

        let restore = shop.request("data", json!({"from": {"latest": true}, "strategy": "swap"})).await;
        shop.approve(&restore).await;
        let names: Vec<String> = (0..CLAIMS).map(|number| format!("db-{number:02}")).collect();
        join_all(names.iter().map(|name| api.create(&shop.namespace, name))).await;
        let turn = api.ask(&format!("{}/credentials/rotate", shop.path("turned"))).await.expect(202).json;
        let rotation = turn["id"].as_str().unwrap().to_owned();
        Self { cluster, shop, names, restore, rotation, before }
    }

    /// As SIGKILL of everything on its machine; who is not replaced by himself is replaced by a person.
    async fn lose_the_primary(&mut self) -> String {
        let lab = &mut self.cluster.lab;
        let killed = lab.primary().await.expect("a primary");
        lab.kill(&killed).await.unwrap();
        if lab.kind() == LabKind::Streaming {
            let (next, _) = lab.nodes().into_iter().find(|(node, _)| *node != killed).unwrap();
            lab.promote(&next, |_| {}).await.unwrap();
        }
        killed
    }

    async fn claims(&self) -> Result<Vec<Value>, String> {
        list(&self.shop.api(), &format!("/v1/namespaces/{}/databases?limit=100", self.shop.namespace)).await
    }

    async fn some_are_made(&self) {
        soon("some are made, and some are not", || async {
            let ready = self.claims().await?.iter().filter(|db| db["state"] == "Ready").count();
            if ready >= 5 { Ok(()) } else { Err(format!("{ready} are Ready")) }
        })
        .await;
    }

    /// And none at the server that is gone.
    async fn all_are_ready(&self, killed: &str) {
        let gone = self.cluster.host(killed);
        let right = |db: &&Value| {
            let (host, port) = (&db["endpoint"]["host"], &db["endpoint"]["port"]);
            db["state"] == "Ready" && format!("{}:{port}", host.as_str().unwrap_or_default()) != gone
        };
        eventually("every claim is Ready", PATIENCE, || async {
            let all = self.claims().await?;
            match all.iter().find(|db| !right(db)) {
                None if all.len() == CLAIMS + 2 => Ok(()),
                other => Err(format!("{} claims, {other:?}", all.len())),
            }
        })
        .await;
    }

    async fn restore_and_rotation_end_well(&self) {
        let restored = self.shop.over(&self.restore).await;
        assert_eq!(restored["phase"], "Succeeded", "{restored}");
        let path = format!("/v1/operations/{}", self.rotation);
        let turned = eventually("the rotation ends", PATIENCE, || async {
            let now = self.shop.api().try_send("GET", &path, &[], None).await.map_err(|error| error.to_string())?;
            if now.json["finishedAt"].is_string() { Ok(now.json) } else { Err(now.text) }
        })
        .await;
        assert_eq!(turned["state"], "Succeeded", "{turned}");
        let now = Credential::of(&self.shop.plane.site.secrets, &self.shop.namespace, "turned");
        for (now, before) in now.iter().zip(&self.before) {
            assert_ne!(now.password, before.password, "{}", now.username);
        }
    }

    /// Every password that is stored logs in, also those that were there before the new ones, and what was restored is whole.
    async fn all_is_of_use(&self) {
        let Shop { plane, namespace } = &self.shop;
        assert_eq!(self.shop.count("data", "big").await, Ok((MIB << 10) as i64));
        assert_eq!(self.shop.count("data", "lines").await, Ok(500));
        let every = self.names.iter().map(String::as_str).chain(["data", "turned"]);
        let work = |name| works(Credential::of(&plane.site.secrets, namespace, name));
        stream::iter(every).for_each_concurrent(3, work).await;
        for former in &self.before {
            self.cluster.psql(former, "select 1").await.unwrap();
        }
    }

    /// Exactly what the claims are made of is there, and what the restore has put aside.
    async fn nothing_is_left(&self) {
        let namespace = &self.shop.namespace;
        let claims = || self.names.iter().map(String::as_str).chain(["data", "turned"]);
        let mut wanted: Vec<String> = claims().map(|name| format!("database {namespace}-{name}")).collect();
        for tier in TIERS {
            wanted.extend(claims().map(|name| format!("login {namespace}-{name}-{tier}")));
            wanted.push(format!("login {namespace}-turned-{tier}-b"));
        }
        wanted.sort();
        let sql = format!(
            "select 'database ' || datname from pg_database
             where starts_with(datname, '{namespace}-') and datname !~ '^{namespace}-data-before-[0-9a-f]{{8}}$'
             union all select 'login ' || rolname from pg_roles
             where starts_with(rolname, '{namespace}-') or rolname like 'pgtenant\\_job%'"
        );
        let superuser = self.cluster.superuser().await;
        eventually("nothing is left over, and nothing lacks", PATIENCE, || async {
            let mut found = rows(&superuser, None, &sql).await;
            found.sort();
            if found == wanted { Ok(()) } else { Err(differences(&found, &wanted)) }
        })
        .await;
    }

    /// Every node is a part of the cluster again, and new work is done.
    async fn goes_on(mut self, killed: &str) {
        self.cluster.lab.start(killed, |_| {}).await.unwrap();
        let api = self.shop.api();
        seen(&api, "all but one are standbys that follow", |_, members| {
            let follows = |member: &&Value| member["role"] == "standby" && member["lagSeconds"].is_number();
            members.iter().filter(follows).count() == self.cluster.lab.nodes().len() - 1
        })
        .await;
        api.ready(&self.shop.namespace, "after").await;
        self.cluster.lab.down(|_| {}).await.unwrap();
    }
}

/// As [`Api::list`]; `Err` where the ledger has no primary for the moment, too.
async fn list(api: &Api, path: &str) -> Result<Vec<Value>, String> {
    let answer = api.try_send("GET", path, &[], None).await.map_err(|error| error.to_string())?;
    let items = answer.json["items"].as_array().filter(|_| answer.status == 200);
    items.cloned().ok_or(answer.text)
}

/// As `works_for_an_application`, with one login of each tier: with 52 claims more take minutes on a laden machine.
async fn works([read, write, admin]: [Credential; TIERS.len()]) {
    let may = |what: &str| {
        let rights =
            [("'worked', 'select'", "table"), ("'worked', 'insert'", "table"), ("'public', 'create'", "schema")];
        let each = rights.map(|(on, kind)| format!("has_{kind}_privilege({on})::int::text"));
        format!("do $$ begin assert {} = '{what}'; end $$", each.join(" || "))
    };
    can(&admin, &format!("create table worked (n int); {}", may("111"))).await;
    can(&write, &format!("insert into worked values (1); {}", may("110"))).await;
    can(&read, &format!("select 1 / count(*)::int from worked; {}", may("100"))).await;
}

fn differences(found: &[String], wanted: &[String]) -> String {
    let without = |all: &[String], others: &[String]| -> Vec<String> {
        all.iter().filter(|one| !others.contains(one)).cloned().collect()
    };
    format!("left over: {:?}; lacking: {:?}", without(found, wanted), without(wanted, found))
}

async fn all_ends_well(kind: LabKind) {
    // Each alone is all that two cores do.
    static ONE: Mutex<()> = Mutex::const_new(());
    let _one = ONE.lock().await;
    let mut at_work = AtWork::begin(kind).await;
    at_work.some_are_made().await;
    let begun = Instant::now();
    let killed = at_work.lose_the_primary().await;
    at_work.all_are_ready(&killed).await;
    let ready = begun.elapsed();
    at_work.restore_and_rotation_end_well().await;
    measured(&format!(
        "{kind:?}: {CLAIMS} claims, a restore and new passwords under way; every claim Ready {:.1} s after the kill, all of it done after {:.1} s",
        ready.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    ));
    at_work.all_is_of_use().await;
    at_work.nothing_is_left().await;
    at_work.goes_on(&killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_streaming() {
    all_ends_well(LabKind::Streaming).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_patroni() {
    all_ends_well(LabKind::Patroni).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_pg_auto_failover() {
    all_ends_well(LabKind::PgAutoFailover).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_repmgr() {
    all_ends_well(LabKind::Repmgr).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_haproxy() {
    all_ends_well(LabKind::Haproxy).await;
}
