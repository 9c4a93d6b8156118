//! What is kept is restored for a test, by the schedule and when somebody asks, and every restore that somebody waits for goes first.

use std::fs;

use pgtenant_tests::{Api, Own, SiteOptions, can, eventually, rows, soon};
use serde_json::{Value, json};

use crate::backrest::{Kept, open_window, pgbackrest};
use crate::restores_rds::{Kept as KeptByRds, SNAPSHOT};
use crate::shop::{PATIENCE, Shop, over};

/// The tests of a cluster, newest first.
async fn tests(api: &Api) -> Vec<Value> {
    let all = api.list("/v1/restores").await;
    all.into_iter().filter(|one| one["strategy"] == "test").collect()
}

/// The last of so many tests, when it is over.
async fn tested(api: &Api, count: usize) -> Value {
    let id = eventually("a test is asked for", PATIENCE, || async {
        let tests = tests(api).await;
        if tests.len() == count { Ok(tests[0]["id"].as_str().unwrap().to_owned()) } else { Err(format!("{tests:?}")) }
    })
    .await;
    over(api, &id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_tested_by_the_schedule_and_makes_room_for_a_restore() {
    let mut kept = Kept::tried("7d").await;
    kept.back_up().await;
    let backup = kept.backup().await;
    can(&kept.admin(), "delete from orders where id > 10").await;
    // Started again, it looks, and has a backup to test.
    kept.serve.stop().await;
    kept.serve = kept.site.serve_with("tests", &[("PGTENANT_FAULT", "stall=600s@before:restore-to-Verifying")]).await;
    kept.serve.is_ready().await;
    kept.serve.is_at_fault_point().await;
    let test = tests(&kept.api()).await.remove(0);
    let told = (&test["phase"], &test["requestedBy"], &test["snapshot"]);
    assert_eq!(told, (&json!("Copying"), &json!("schedule"), &json!(backup)), "{test}");

    // Of the same database, which nobody has to wait for.
    let done = kept.restored(json!({"from": {"snapshot": backup}})).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(kept.orders().await, ["300"]);
    assert_eq!(tested(&kept.api(), 1).await["phase"], "Cancelled");
    kept.nothing_is_left().await;
    assert_eq!(beside(&kept).await, ["2"], "it and what the restore has put aside");

    // The next night, killed on the way.
    kept.serve.stop().await;
    let sql = "update restores set created_at = created_at - interval '1 day' where scheduled returning id::text";
    kept.site.ledger_rows(sql).await;
    can(&kept.admin(), "delete from orders where id > 20").await;
    kept.serve = kept.site.serve_with("killed", &[("PGTENANT_FAULT", "kill@after:restore-to-Verifying")]).await;
    kept.serve.running.end(PATIENCE).await;
    kept.serve = kept.site.serve("again").await;
    kept.serve.is_ready().await;
    let done = tested(&kept.api(), 2).await;
    assert_eq!((&done["phase"], &done["before"]), (&json!("Succeeded"), &Value::Null), "{done}");
    assert!(done["message"].as_str().unwrap().contains("300 rows are as in the snapshot"), "{done}");
    assert_eq!(done["report"]["differences"], json!([]), "{done}");
    assert_eq!(kept.orders().await, ["20"], "nothing has become of the database");
    kept.nothing_is_left().await;
    assert_eq!(beside(&kept).await, ["2"]);
    let listed = kept.api().list("/v1/namespaces/vault/databases/db/snapshots").await;
    assert!(listed[0]["verifiedAt"].is_string(), "{listed:?}");

    // Nobody is told of it as of a restore, and the next one is due in a week.
    let events = format!("select kind from events where detail ->> 'restore' = '{}'", done["id"].as_str().unwrap());
    assert_eq!(kept.site.ledger_rows(&events).await, Vec::<String>::new());
    kept.serve.stop().await;
    kept.serve = kept.site.serve("later").await;
    kept.serve.is_ready().await;
    soon("the age of the test is measured", || async {
        let metrics = kept.api().get("/metrics").await.expect(200).text;
        let of_it = |line: &str| line.starts_with("pgtenant_cluster_backup_age") && line.contains("tested");
        if metrics.lines().any(of_it) { Ok(()) } else { Err(metrics) }
    })
    .await;
    assert_eq!(tests(&kept.api()).await.len(), 2);
    kept.own.cluster.stop().await.ok();
}

/// How many databases there are of the claim.
async fn beside(kept: &Kept) -> Vec<String> {
    let databases = "select count(*)::text from pg_database where datname ~ '^vault-db'";
    rows(&kept.site.superuser, None, databases).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_lacks_a_database_is_told_as_a_backup_that_fails() {
    let mut kept = Kept::tried("7d").await;
    pgbackrest(kept.folder.path(), kept.owner, &["--type=full", "backup"]);
    kept.api().ready("vault", "db").await;
    // As old as the ledger believes, it should be in the backup.
    kept.site.ledger_rows("update claims set created_at = now() - interval '1 day' returning name").await;
    kept.serve.stop().await;
    kept.serve = kept.site.serve("tests").await;
    kept.serve.is_ready().await;
    let done = tested(&kept.api(), 1).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    let sql = "select message from events where kind = 'BackupFailed' and namespace is null and name = 'default'";
    let events = kept.site.ledger_rows(sql).await;
    assert!(events.len() == 1 && events[0].contains("for a test"), "the platform team is told: {events:?}");
    kept.nothing_is_left().await;
    kept.own.cluster.stop().await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_rds_is_tested_on_a_copy_of_the_cluster() {
    let further = format!("backups.schedule = {:?}\nbackups.rds = {{ tryEvery = \"7d\" }}", open_window());
    let mut kept = KeptByRds::with(&further).await;
    assert_eq!(tests(&kept.api()).await, Vec::<Value>::new(), "there was nothing to test");
    kept.serve.stop().await;
    kept.serve = kept.amazon.serve_with("tests", &[]).await;
    let done = tested(&kept.api(), 1).await;
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &json!(SNAPSHOT)), "{done}");
    assert!(done["message"].as_str().unwrap().contains("500 rows are as in the snapshot"), "{done}");
    kept.only_the_cluster_is_there().await;
    let listed = kept.api().list("/v1/clusters/default/snapshots").await;
    assert!(listed[0]["verifiedAt"].is_string(), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_since_the_snapshot_needs_its_room_again() {
    let own = Own::start(false, &[]).await;
    let cluster = "restores = { storageBytes = 1099511627776 }".to_owned();
    let mut shop = Shop::open_with(SiteOptions { cluster, backups: true, ..SiteOptions::on(own.place()).await }).await;
    shop.stock("store").await;
    shop.fill("store", 64).await;
    shop.dump("store").await;
    shop.is_tried("store").await;
    can(&shop.credential("store", "admin"), "drop table big").await;
    let used = rows(&shop.plane.site.superuser, None, "select sum(pg_database_size(oid))::text from pg_database").await;
    let limit = used[0].parse::<u64>().unwrap() + (48 << 20);
    let settings = fs::read_to_string(&shop.plane.site.config).unwrap();
    fs::write(&shop.plane.site.config, settings.replace("1099511627776", &limit.to_string())).unwrap();
    shop.again("little room", None).await;
    let done = shop.restored("store", json!({"from": {"latest": true}})).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    assert!(done["message"].as_str().unwrap().contains("there is no room"), "{done}");
    shop.nothing_beside().await;
    assert_eq!(shop.count("store", "orders").await, Ok(500), "it is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wants_to_know_has_a_snapshot_tested() {
    let shop = Shop::open().await;
    shop.stock("store").await;
    let dump = shop.dump("store").await;
    let oid = format!("select oid::text from pg_database where datname = '{}'", shop.database("store"));
    let before = rows(&shop.plane.site.superuser, None, &oid).await;
    let done = shop.restored("store", json!({"from": {"snapshot": dump}, "strategy": "test"})).await;
    assert_eq!((&done["phase"], &done["before"]), (&json!("Succeeded"), &Value::Null), "{done}");
    assert_eq!(rows(&shop.plane.site.superuser, None, &oid).await, before, "it is the same database");
    shop.nothing_beside().await;
    let listed = shop.api().list(&format!("{}/snapshots", shop.path("store"))).await;
    assert!(listed[0]["verifiedAt"].is_string(), "{listed:?}");
    let copied = json!({"from": {"latest": true}, "strategy": "test", "copyName": "other"});
    shop.api().post(&format!("{}/restores", shop.path("store")), copied).await.problem(422, "invalid-fields");

    // A dump that is not what it says.
    let folder = shop.plane.site.path().join("backups").join("default").join(&shop.namespace).join("store");
    let found = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let largest = fs::read_dir(found)
        .unwrap()
        .map(|one| one.unwrap().path())
        .filter(|one| one.extension().is_some_and(|end| end == "age"));
    let largest = largest.max_by_key(|one| fs::metadata(one).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let done = shop.restored("store", json!({"from": {"snapshot": dump}, "strategy": "test"})).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    shop.nothing_beside().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_is_tried_makes_room_for_a_restore() {
    let cluster = "restores = { bytesPerSecond = 1048576, approval = \"nobody\" }".to_owned();
    let options = SiteOptions { cluster, backups: true, lease: "3s".to_owned(), ..SiteOptions::shared().await };
    let mut shop = Shop::open_with(options).await;
    shop.stock("small").await;
    shop.dump("small").await;
    shop.again("stalls", Some("stall=600s@before:restore-to-Verifying")).await;
    shop.stock("large").await;
    shop.fill("large", 12).await;
    let dump = shop.dump("large").await;
    let is_copied = |beside: &[String]| beside.iter().any(|one| one.contains("-large-restore-"));
    let asked = shop.api().post(&format!("{}/snapshots/{dump}/verify", shop.path("large")), json!({})).await;
    let operation = format!("/v1/operations/{}", asked.expect(202).json["id"].as_str().unwrap());
    soon("it is copied for the try", || async {
        let beside = shop.beside().await;
        if is_copied(&beside) { Ok(()) } else { Err(format!("{beside:?}")) }
    })
    .await;
    let restore = shop.request("small", json!({"from": {"latest": true}})).await;
    shop.plane.serve.is_at_fault_point().await;
    eventually("the copy for the try is dropped", PATIENCE, || async {
        let beside = shop.beside().await;
        if is_copied(&beside) { Err(format!("{beside:?}")) } else { Ok(()) }
    })
    .await;
    let state = shop.api().get(&operation).await.expect(200).json;
    assert_eq!(state["state"], "Running", "{state}");
    shop.again("goes on", None).await;
    assert_eq!(shop.over(&restore).await["phase"], "Succeeded");
    eventually("the try is done", PATIENCE, || async {
        let state = shop.api().get(&operation).await.expect(200).json;
        if state["state"] == "Succeeded" { Ok(()) } else { Err(state.to_string()) }
    })
    .await;
}
