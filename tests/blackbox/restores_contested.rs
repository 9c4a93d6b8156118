//! Somebody else is at the same database while it is restored: nothing of theirs is lost, and nothing is held for good.

use std::fs;

use pgtenant_tests::{SiteOptions, can, eventually, rows, soon, try_sql};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::shop::{PATIENCE, Shop};

/// A database with a dump, and something that was made after it.
async fn stocked() -> Shop {
    let options = SiteOptions { backups: true, lease: "3s".to_owned(), ..SiteOptions::shared().await };
    let shop = Shop::open_with(options).await;
    shop.stock("data").await;
    shop.dump("data").await;
    can(&shop.credential("data", "admin"), "drop table lines cascade; create table after_it as select 1 as n").await;
    shop
}

/// Nobody ends a superuser's session.
async fn somebody_in(shop: &Shop) -> PgConnection {
    shop.plane.site.superuser.clone().database(&shop.database("data")).connect().await.unwrap()
}

async fn says(shop: &Shop, restore: &Value, words: &str) {
    let path = format!("/v1/restores/{}", restore["id"].as_str().unwrap());
    eventually(&format!("it says {words:?}"), PATIENCE, || async {
        let now = shop.api().get(&path).await.expect(200).json;
        if now["message"].as_str().is_some_and(|text| text.contains(words)) { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
}

fn copy(name: &str) -> Value {
    json!({"from": {"latest": true}, "strategy": "copy", "copyName": name})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_back_that_is_blocked_holds_nothing_for_good() {
    let shop = stocked().await;
    let done = shop.restored("data", json!({"from": {"latest": true}})).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    let session = somebody_in(&shop).await;
    shop.api().ask(&format!("/v1/restores/{}/undo", done["id"].as_str().unwrap())).await.expect(200);
    says(&shop, &done, "somebody is connected").await;
    soon("it is open between two tries", || async { shop.count("data", "lines").await.map(drop) }).await;
    shop.api().delete(&shop.path("data")).await.expect(202);
    session.close().await.unwrap();
    shop.api().is_gone(&shop.namespace, "data").await;
    shop.nothing_beside().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_it_waits_for_who_may_still_write() {
    let shop = stocked().await;
    let mut session = somebody_in(&shop).await;
    let restore = shop.request("data", json!({"from": {"latest": true}, "strategy": "replace"})).await;
    shop.approve(&restore).await;
    says(&shop, &restore, "somebody is connected whose session pgtenant may not end: postgres").await;
    sqlx::query("insert into after_it values (2)").execute(&mut session).await.unwrap();
    session.close().await.unwrap();
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    shop.count("data", "after_it").await.expect_err("it is as in the snapshot");
    // What was written last is in the dump that was made first.
    let back = shop.restored("data", json!({"from": {"latest": true}, "strategy": "replace"})).await;
    assert_eq!((&back["phase"], shop.count("data", "after_it").await), (&json!("Succeeded"), Ok(2)), "{back}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_into_a_copy_before_it_is_filled_is_kept() {
    let mut shop = stocked().await;
    shop.again("stalled", Some("stall=4s@before:restore-to-Verifying")).await;
    let restore = shop.request("data", copy("old")).await;
    shop.approve(&restore).await;
    shop.plane.serve.is_at_fault_point().await;
    can(&shop.credential("old", "admin"), "create table quick as select 7 as n").await;
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(shop.count("old", "lines").await, Ok(500));
    shop.count("old", "quick").await.expect_err("it is as in the snapshot");
    let aside = done["before"]["database"].as_str().unwrap_or_else(|| panic!("nothing is kept: {done}"));
    assert!(done["message"].as_str().unwrap().contains(aside), "{done}");
    shop.api().ask(&format!("/v1/restores/{}/undo", done["id"].as_str().unwrap())).await.expect(200);
    soon("it is there again", || async {
        match shop.count("old", "quick").await? {
            1 => Ok(()),
            rows => Err(rows.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_of_the_same_name_is_not_the_one_that_was_made_for_a_copy() {
    let mut shop = stocked().await;
    shop.again("stalled", Some("stall=8s@before:restore-to-Verifying")).await;
    let restore = shop.request("data", copy("old")).await;
    shop.approve(&restore).await;
    shop.plane.serve.is_at_fault_point().await;
    shop.api().delete(&shop.path("old")).await.expect(202);
    shop.api().is_gone(&shop.namespace, "old").await;
    shop.api().ready(&shop.namespace, "old").await;
    can(&shop.credential("old", "admin"), "create table mine as select 7 as n").await;
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    assert!(done["message"].as_str().unwrap().contains("is not there any more"), "{done}");
    shop.api().is_ready(&shop.namespace, "old").await;
    assert_eq!(shop.count("old", "mine").await, Ok(1));
    shop.nothing_beside().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_that_the_server_refuses_keeps_nothing_closed() {
    let mut shop = stocked().await;
    shop.plane.serve.stop().await;
    // It is on the list, and only a superuser may make it.
    let text = fs::read_to_string(&shop.plane.site.config).unwrap();
    fs::write(&shop.plane.site.config, text.replace("\"pg_trgm\"]", "\"pg_trgm\", \"pageinspect\"]")).unwrap();
    shop.plane.serve = shop.plane.site.serve("allowed").await;
    shop.plane.serve.is_ready().await;
    shop.api().patch(&shop.path("data"), json!({"extensions": ["pageinspect"]})).await.expect(200);
    shop.api().is_in(&shop.namespace, "data", "Degraded").await;
    let done = shop.restored("data", json!({"from": {"latest": true}, "strategy": "replace"})).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(shop.count("data", "lines").await, Ok(500));
    let inserted = try_sql(&shop.credential("data", "write"), "insert into orders (item) values ('new')").await;
    assert_eq!(inserted, Ok(()));
    let held = format!("select name from claims where namespace = '{}' and held_by is not null", shop.namespace);
    assert!(rows(&shop.plane.site.ledger, None, &held).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_the_control_plane_each_time_is_given_up() {
    let shop = stocked().await;
    let restore = shop.request("data", json!({"from": {"latest": true}})).await;
    let id = restore["id"].as_str().unwrap();
    shop.plane.site.ledger_rows(&format!("update restores set attempts = 12 where id = '{id}' returning name")).await;
    shop.approve(&restore).await;
    let done = shop.over(&restore).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    assert!(done["message"].as_str().unwrap().contains("whoever worked on it was ended"), "{done}");
    assert_eq!(shop.count("data", "after_it").await, Ok(1), "all is as it was");
}
