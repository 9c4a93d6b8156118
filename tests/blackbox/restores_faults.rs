//! What happens to a restore when something beneath it fails: disks, connections, servers, people.

use std::time::Duration;

use pgtenant_tests::{Own, Place, SiteOptions, SmallDisk, can, eventually, rows, skipped, soon, superuser_sql};
use serde_json::{Value, json};

use crate::shop::{PATIENCE, Shop};

/// Slow enough to be met on the way.
const SLOW: &str = "restores.bytesPerSecond = 4194304";

fn latest() -> Value {
    json!({"from": {"latest": true}})
}

fn has_moved_some(restore: &Value) -> bool {
    let progress = &restore["progress"];
    progress["bytes"].as_u64() > Some(0) && progress["bytes"].as_u64() < progress["bytesTotal"].as_u64()
}

/// How many sessions of jobs were ended.
async fn cut_off(place: &Place, namespace: &str) -> usize {
    let sql = format!(
        "select pg_terminate_backend(pid)::text from pg_stat_activity
         where usename like 'pgtenant_job%' and starts_with(datname, '{namespace}-')"
    );
    rows(&place.superuser, None, &sql).await.len()
}

/// Ends the sessions of a job, and those of its next try, unless it was done before that.
async fn cut_off_twice(place: &Place, shop: &Shop, job: &str) {
    let cuts = std::sync::atomic::AtomicUsize::new(0);
    let count = || cuts.load(std::sync::atomic::Ordering::Relaxed);
    eventually("it is cut off", PATIENCE, || async {
        if cut_off(place, &shop.namespace).await > 0 {
            cuts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let over = !shop.api().get(job).await.expect(200).json["finishedAt"].is_null();
        if count() >= 2 || over { Ok(()) } else { Err("nobody is connected".to_owned()) }
    })
    .await;
    assert!(count() > 0, "nothing was cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_cost_time_and_nothing_else() {
    let place = Place::shared().await;
    let shop = Shop::open_with(SiteOptions {
        backups: true,
        cluster: SLOW.to_owned(),
        ..SiteOptions::on(place.clone()).await
    })
    .await;
    shop.stock("data").await;
    shop.fill("data", 12).await;
    let begun = shop.api().ask(&format!("{}/snapshots", shop.path("data"))).await.expect(202).json;
    let operation = format!("/v1/operations/{}", begun["id"].as_str().unwrap());
    cut_off_twice(&place, &shop, &operation).await;
    let dumped = shop.api().finished(begun["id"].as_str().unwrap()).await;
    assert_eq!(dumped["state"], "Succeeded", "{dumped}");

    let restore = shop.request("data", latest()).await;
    shop.approve(&restore).await;
    shop.reaches(&restore, "Copying", has_moved_some).await;
    cut_off_twice(&place, &shop, &format!("/v1/restores/{}", restore["id"].as_str().unwrap())).await;
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(done["progress"]["bytes"], done["progress"]["bytesTotal"], "{done}");
    assert_eq!((shop.count("data", "big").await, shop.count("data", "lines").await), (Ok(12 << 10), Ok(500)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_on_the_way_is_followed_to_the_next_one() {
    let mut own = Own::start(true, &[("max_wal_size", "256MB")]).await;
    let options = SiteOptions { backups: true, cluster: SLOW.to_owned(), ..SiteOptions::on(own.place()).await };
    let mut shop = Shop::open_with(options).await;
    shop.stock("data").await;
    shop.fill("data", 12).await;
    shop.dump("data").await;
    let before = shop.credential("data", "admin");
    can(&before, "drop table big").await;

    let restore = shop.request("data", latest()).await;
    shop.approve(&restore).await;
    shop.reaches(&restore, "Copying", has_moved_some).await;
    own.cluster.primary().kill().await;
    own.cluster.promote_standby().await.unwrap();
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(shop.credential("data", "admin").password, before.password, "no new password");
    eventually("the endpoint is the new primary's", PATIENCE, || async { shop.count("data", "big").await.map(drop) })
        .await;
    assert_eq!((shop.count("data", "big").await, shop.count("data", "lines").await), (Ok(12 << 10), Ok(500)));

    // It dies after all was compared: what is there on the next one may lack the end of it, and is not switched to.
    own.cluster.start(|_| {}).await.unwrap();
    shop.plane.serve.stop().await;
    let stall = [("PGTENANT_FAULT", "stall=8s@after:restore-to-Switching")];
    shop.plane.serve = shop.plane.site.serve_with("stalled", &stall).await;
    shop.plane.serve.is_ready().await;
    let restore = shop.request("data", latest()).await;
    shop.approve(&restore).await;
    shop.reaches(&restore, "Switching", |_| true).await;
    own.cluster.primary().kill().await;
    own.cluster.promote_standby().await.unwrap();
    shop.reaches(&restore, "Copying", |now| now["message"].as_str().unwrap().contains("made again")).await;
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    eventually("the endpoint is the new primary's", PATIENCE, || async { shop.count("data", "big").await.map(drop) })
        .await;
    assert_eq!((shop.count("data", "big").await, shop.count("data", "lines").await), (Ok(12 << 10), Ok(500)));

    // It dies while nobody can connect, and just after the exchange: what the next one has of that is opened, or gone on with.
    for point in ["before:exchange", "after:exchange"] {
        own.cluster.start(|_| {}).await.unwrap();
        shop.again("stalled", Some(&format!("stall=4s@{point}"))).await;
        let dump = shop.dump("data").await;
        can(&shop.credential("data", "admin"), "truncate lines").await;
        let restore = shop.request("data", json!({"from": {"snapshot": dump}})).await;
        shop.approve(&restore).await;
        shop.plane.serve.is_at_fault_point().await;
        own.cluster.primary().kill().await;
        own.cluster.promote_standby().await.unwrap();
        let done = shop.over(&restore).await;
        assert_eq!(done["phase"], "Succeeded", "{point}: {done}");
        eventually("the endpoint is the new primary's", PATIENCE, || async {
            match shop.count("data", "lines").await? {
                500 => Ok(()),
                lines => Err(format!("{point}: {lines} lines")),
            }
        })
        .await;
        assert_eq!(shop.credential("data", "admin").password, before.password, "{point}: no new password");
        shop.api().is_ready(&shop.namespace, "data").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filled_in_place_it_is_filled_again_where_the_primary_is_another_one_before_anybody_is_let_in() {
    let mut own = Own::start(true, &[]).await;
    let options = SiteOptions { backups: true, ..SiteOptions::on(own.place()).await };
    let mut shop = Shop::open_with(options).await;
    shop.stock("data").await;
    shop.dump("data").await;
    can(&shop.credential("data", "admin"), "truncate lines").await;
    shop.again("stalled", Some("stall=4s@before:restore-to-CleaningUp")).await;
    let restore = shop.request("data", json!({"from": {"latest": true}, "strategy": "replace"})).await;
    shop.approve(&restore).await;
    shop.plane.serve.is_at_fault_point().await;
    own.cluster.primary().kill().await;
    own.cluster.promote_standby().await.unwrap();
    // As a standby that was behind: it has only some of it.
    let standby = own.place().superuser;
    superuser_sql(&standby, Some(&shop.database("data")), "truncate lines").await;
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    eventually("the endpoint is the new primary's", PATIENCE, || async { shop.count("data", "lines").await.map(drop) })
        .await;
    assert_eq!(shop.count("data", "lines").await, Ok(500));
    shop.api().is_ready(&shop.namespace, "data").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_ledger_a_restore_waits_and_goes_on() {
    let mut own = Own::start(false, &[]).await;
    let options = SiteOptions {
        backups: true,
        cluster: SLOW.to_owned(),
        lease: "3s".to_owned(),
        ledger: own.place(),
        ..SiteOptions::shared().await
    };
    let shop = Shop::open_with(options).await;
    shop.stock("data").await;
    shop.fill("data", 12).await;
    shop.dump("data").await;
    let restore = shop.request("data", latest()).await;
    shop.approve(&restore).await;
    shop.reaches(&restore, "Copying", has_moved_some).await;
    own.cluster.stop().await.unwrap();
    // Longer than the lease: whoever works on it must have stopped.
    tokio::time::sleep(Duration::from_secs(4)).await;
    own.cluster.start(|_| {}).await.unwrap();
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!((shop.count("data", "big").await, shop.count("data", "lines").await), (Ok(12 << 10), Ok(500)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_server_is_said_and_the_copy_is_made_when_there_is_room() {
    let mut own = Own::start(false, &[]).await;
    own.cluster.stop().await.unwrap();
    let Some(disk) = SmallDisk::mount(&own.cluster.primary().data().join("base"), "200m") else {
        return skipped("a_full_disk_of_the_server_is_said_and_the_copy_is_made_when_there_is_room: mount needs root");
    };
    own.cluster.start(|_| {}).await.unwrap();
    let shop = Shop::open_with(SiteOptions { backups: true, ..SiteOptions::on(own.place()).await }).await;
    shop.stock("data").await;
    shop.fill("data", 24).await;
    shop.dump("data").await;
    shop.is_tried("data").await;
    let size = "select (sum(pg_database_size(oid)) / 1048576)::bigint::text from pg_database";
    let used: u64 = rows(&own.place().superuser, None, size).await[0].parse().unwrap();
    // An empty database fits, and not what comes into it.
    disk.resize(&format!("{}m", used + 16));
    let restore = shop.request("data", latest()).await;
    shop.approve(&restore).await;
    shop.reaches(&restore, "Copying", |now| {
        let message = now["message"].as_str().unwrap_or_default();
        message.contains("No space left on device") || message.contains("53100")
    })
    .await;
    assert_eq!(shop.count("data", "big").await, Ok(24 << 10), "the database itself is as it was");
    disk.resize("400m");
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!((shop.count("data", "big").await, shop.count("data", "lines").await), (Ok(24 << 10), Ok(500)));
    drop(shop);
    own.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_dumps_is_said_and_the_dump_is_made_when_there_is_room() {
    let shop = Shop::open().await;
    shop.stock("data").await;
    shop.fill("data", 12).await;
    let incompressible = "create table noise as select gen_random_uuid() as id, gen_random_uuid() as more from generate_series(1, 40000)";
    can(&shop.credential("data", "admin"), incompressible).await;
    let Some(disk) = SmallDisk::mount(&shop.plane.site.path().join("backups"), "256k") else {
        return skipped("a_full_disk_of_dumps_is_said_and_the_dump_is_made_when_there_is_room: mount needs root");
    };
    let begun = shop.api().ask(&format!("{}/snapshots", shop.path("data"))).await.expect(202).json;
    let path = format!("/v1/operations/{}", begun["id"].as_str().unwrap());
    soon("it is said", || async {
        let now = shop.api().get(&path).await;
        let said = now.text.to_lowercase().contains("no space") || now.text.contains("os error 28");
        if said { Ok(()) } else { Err(now.text) }
    })
    .await;
    disk.resize("64m");
    let done = shop.api().finished(begun["id"].as_str().unwrap()).await;
    assert_eq!(done["state"], "Succeeded", "{done}");
    let restored = shop.restored("data", latest()).await;
    assert_eq!(
        (&restored["phase"], shop.count("data", "noise").await),
        (&json!("Succeeded"), Ok(40_000)),
        "{restored}"
    );
}

#[tokio::test]
async fn who_has_said_yes_may_leave() {
    let cluster = "environment = \"production\"".to_owned();
    let shop = Shop::open_with(SiteOptions { backups: true, cluster, ..SiteOptions::shared().await }).await;
    shop.stock("data").await;
    shop.dump("data").await;
    let (name, body) = ("leaves", json!({"name": "leaves", "role": "platform", "namespaces": []}));
    let made = shop.api().post("/v1/tokens", body).await.expect(201).json;
    let leaving = shop.api().with_token(made["secret"].as_str());
    let restore = shop.request("data", latest()).await;
    let path = format!("/v1/restores/{}", restore["id"].as_str().unwrap());
    leaving.ask(&format!("{path}/approve")).await.expect(200);
    shop.api().send("DELETE", &format!("/v1/tokens/{}", made["id"].as_str().unwrap()), &[], None).await.expect(204);
    leaving.ask(&format!("{path}/cancel")).await.problem(401, "unauthenticated");
    let done = shop.over(&restore).await;
    assert_eq!((&done["phase"], &done["decidedBy"]), (&json!("Succeeded"), &json!(format!("token:{name}"))), "{done}");

    // Nobody who is left may say yes but somebody new: it waits.
    let waiting = shop.request("data", latest()).await;
    let path = format!("/v1/restores/{}", waiting["id"].as_str().unwrap());
    shop.api().ask(&format!("{path}/approve")).await.problem(403, "forbidden");
    assert_eq!(shop.api().get(&path).await.json["phase"], "Requested");
    shop.plane.api_of("platform", &[]).await.ask(&format!("{path}/approve")).await.expect(200);
    assert_eq!(shop.over(&waiting).await["phase"], "Succeeded");
}
