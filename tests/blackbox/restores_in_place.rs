//! Strategy `replace`: the database is emptied and filled in place, and nothing that was there is lost.

use pgtenant_tests::{SiteOptions, can, connect, superuser_sql, try_sql};
use serde_json::{Value, json};

use crate::shop::{PATIENCE, Shop, over};

fn replace(snapshot: &str) -> Value {
    json!({"from": {"snapshot": snapshot}, "strategy": "replace"})
}

impl Shop {
    /// A database with a snapshot, and with something that was made after it.
    async fn with_a_mistake(options: SiteOptions) -> (Self, String) {
        let shop = Self::open_with(SiteOptions { backups: true, lease: "3s".to_owned(), ..options }).await;
        shop.stock("data").await;
        let snapshot = shop.dump("data").await;
        shop.mistake().await;
        (shop, snapshot)
    }

    async fn mistake(&self) {
        let admin = self.credential("data", "admin");
        can(&admin, "drop table lines cascade; create table after_it (n int); insert into after_it values (1)").await;
    }

    async fn is_as_in_the_snapshot(&self, place: &str) {
        assert_eq!(
            (self.count("data", "orders").await, self.count("data", "lines").await),
            (Ok(500), Ok(500)),
            "{place}"
        );
        self.count("data", "after_it").await.expect_err(place);
        let write = self.credential("data", "write");
        try_sql(&write, "insert into orders (item) values ('new'); delete from orders where item = 'new'")
            .await
            .unwrap();
    }

    async fn is_as_before(&self, place: &str) {
        assert_eq!(
            (self.count("data", "orders").await, self.count("data", "after_it").await),
            (Ok(500), Ok(1)),
            "{place}"
        );
        self.count("data", "lines").await.expect_err(place);
        try_sql(&self.credential("data", "write"), "insert into after_it values (2); delete from after_it where n = 2")
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_replaced_in_place_and_what_was_there_is_in_a_dump() {
    let (shop, snapshot) = Shop::with_a_mistake(SiteOptions::shared().await).await;
    let admin = shop.credential("data", "admin");
    can(&admin, "create schema more; create table more.t (n int); select lo_create(77)").await;
    let done = shop.restored("data", replace(&snapshot)).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(done["report"]["logins"].as_array().unwrap().len(), 3, "{done}");
    assert!(done["before"].is_null() && done["message"].as_str().unwrap().contains("dump:"), "{done}");
    shop.is_as_in_the_snapshot("replaced").await;
    assert_eq!(shop.credential("data", "admin"), admin, "no new password");
    try_sql(&admin, "select lo_get(77)").await.expect_err("it was made after the snapshot");
    shop.api().is_ready(&shop.namespace, "data").await;
    shop.nothing_beside().await;
    // What was there before is the newest snapshot.
    let back = shop.restored("data", json!({"from": {"latest": true}, "strategy": "replace"})).await;
    assert_eq!(back["phase"], "Succeeded", "{back}");
    shop.is_as_before("replaced back").await;
    try_sql(&admin, "select lo_get(77); table more.t").await.unwrap();
}

/// What a restore in place comes through.
const POINTS: [&str; 12] = [
    "before:restore-to-Copying",
    "after:restore-to-Copying",
    "before:restore-to-Verifying",
    "after:restore-to-Verifying",
    "before:restore-to-Switching",
    "after:restore-to-Switching",
    "after:emptied",
    "after:filled",
    "before:restore-to-CleaningUp",
    "after:restore-to-CleaningUp",
    "before:restore-to-Preparing",
    "after:restore-to-Preparing",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_it_is_replaced_once_and_opened_again() {
    let (mut shop, snapshot) = Shop::with_a_mistake(SiteOptions::shared().await).await;
    let admin = shop.credential("data", "admin");
    for point in POINTS {
        shop.again("killed", Some(&format!("kill@{point}"))).await;
        let restore = shop.request("data", replace(&snapshot)).await;
        let id = restore["id"].as_str().unwrap().to_owned();
        // The answer may be cut off.
        shop.api().try_send("POST", &format!("/v1/restores/{id}/approve"), &[], None).await.ok();
        shop.plane.serve.running.end(PATIENCE).await;
        shop.plane.serve = shop.plane.site.serve("after").await;
        shop.plane.serve.is_ready().await;
        let done = over(&shop.api(), &id).await;
        assert_eq!(done["phase"], "Succeeded", "{point}: {done}");
        shop.is_as_in_the_snapshot(point).await;
        assert_eq!(shop.credential("data", "admin"), admin, "{point}");
        shop.nothing_beside().await;
        shop.mistake().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_is_on_nobody_is_let_in_and_when_it_is_cancelled_all_is_as_it_was() {
    let (mut shop, snapshot) = Shop::with_a_mistake(SiteOptions::shared().await).await;
    for phase in ["Copying", "Verifying", "Switching"] {
        shop.again("stalled", Some(&format!("stall=60s@before:restore-to-{phase}"))).await;
        let mut session = connect(&shop.credential("data", "write")).await.unwrap();
        let restore = shop.request("data", replace(&snapshot)).await;
        shop.approve(&restore).await;
        shop.plane.serve.is_at_fault_point().await;
        let closed = phase != "Copying";
        assert_eq!(sqlx::query("select 1").execute(&mut session).await.is_err(), closed, "{phase}");
        assert_eq!(connect(&shop.credential("data", "read")).await.is_err(), closed, "{phase}");
        let id = restore["id"].as_str().unwrap();
        shop.api().ask(&format!("/v1/restores/{id}/cancel")).await.expect(200);
        let done = shop.over(&restore).await;
        assert_eq!(done["phase"], "Cancelled", "{phase}: {done}");
        shop.is_as_before(phase).await;
        shop.nothing_beside().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_writes_before_it_is_written_down_that_it_is_done() {
    let (mut shop, snapshot) = Shop::with_a_mistake(SiteOptions::shared().await).await;
    shop.again("stalled", Some("stall=3s@before:restore-to-CleaningUp")).await;
    let restore = shop.request("data", replace(&snapshot)).await;
    shop.approve(&restore).await;
    shop.plane.serve.is_at_fault_point().await;
    for tier in ["read", "write", "admin"] {
        assert!(connect(&shop.credential("data", tier)).await.is_err(), "what {tier} writes would go with another try");
    }
    assert_eq!(shop.over(&restore).await["phase"], "Succeeded");
    shop.is_as_in_the_snapshot("opened").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_released_meanwhile_is_filled_and_open() {
    let (mut shop, snapshot) = Shop::with_a_mistake(SiteOptions::shared().await).await;
    shop.again("stalled", Some("stall=3s@after:emptied")).await;
    let restore = shop.request("data", replace(&snapshot)).await;
    shop.approve(&restore).await;
    shop.plane.serve.is_at_fault_point().await;
    shop.api().ask(&format!("{}/release", shop.path("data"))).await.expect(202);
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    shop.is_as_in_the_snapshot("released").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_breaks_when_all_is_emptied_brings_back_what_was_there() {
    let (mut shop, snapshot) = Shop::with_a_mistake(SiteOptions::shared().await).await;
    shop.again("stalled", Some("stall=2s@after:emptied")).await;
    let restore = shop.request("data", replace(&snapshot)).await;
    shop.approve(&restore).await;
    shop.plane.serve.is_at_fault_point().await;
    let folder = shop.plane.site.path().join("backups/default").join(&shop.namespace).join("data");
    std::fs::remove_file(folder.join(snapshot.strip_prefix("dump:").unwrap()).join("data-00000.zst.age")).unwrap();
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    assert!(done["message"].as_str().unwrap().contains("as it was before, from dump:"), "{done}");
    shop.is_as_before("brought back").await;
    shop.api().is_ready(&shop.namespace, "data").await;
    shop.nothing_beside().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_emptied_is_left_as_it_is() {
    let (shop, snapshot) = Shop::with_a_mistake(SiteOptions::shared().await).await;
    let database = format!("{}-data", shop.namespace);
    for (made, gone, why) in [
        (
            "create view of_somebody_else as select * from orders",
            "drop view of_somebody_else",
            "drops what depends on it",
        ),
        ("create schema dba create table of_somebody_else (n int)", "drop schema dba cascade", "can not be read whole"),
    ] {
        superuser_sql(&shop.plane.site.superuser, Some(&database), made).await;
        let done = shop.restored("data", replace(&snapshot)).await;
        assert_eq!(done["phase"], "Failed", "{done}");
        let message = done["message"].as_str().unwrap();
        for part in ["of_somebody_else", why, "as it was"] {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
        shop.is_as_before("nothing was removed").await;
        superuser_sql(&shop.plane.site.superuser, Some(&database), gone).await;
    }
}
