//! Strategy `copy`: a claim is made for the snapshot, once, and the database that it is of stays as it is.

use pgtenant_tests::{SiteOptions, can, files_below, rows, superuser_sql, try_sql};
use serde_json::{Value, json};

use crate::shop::{PATIENCE, Shop, over};

fn copy(name: &str) -> Value {
    json!({"from": {"latest": true}, "strategy": "copy", "copyName": name})
}

/// A database, and all by which it would be seen that it is not the same any more.
struct Original {
    shop: Shop,
    oid: Vec<String>,
    passwords: Vec<u8>,
}

impl Original {
    async fn new() -> Self {
        let options = SiteOptions { backups: true, lease: "3s".to_owned(), ..SiteOptions::shared().await };
        let shop = Shop::open_with(options).await;
        shop.stock("data").await;
        shop.dump("data").await;
        can(&shop.credential("data", "admin"), "drop table lines cascade; create table after_it as select 1 as n")
            .await;
        let mut original = Self { shop, oid: Vec::new(), passwords: Vec::new() };
        (original.oid, original.passwords) = (original.oid().await, original.passwords());
        original
    }

    async fn oid(&self) -> Vec<String> {
        let sql = format!("select oid::text from pg_database where datname = '{}'", self.shop.database("data"));
        rows(&self.shop.plane.site.superuser, None, &sql).await
    }

    fn passwords(&self) -> Vec<u8> {
        let secrets = &self.shop.plane.site.secrets;
        let own = format!("{}-data-", self.shop.namespace);
        let files = files_below(secrets).into_iter().filter(|file| file.contains(&own));
        files.flat_map(|file| std::fs::read(secrets.join(file)).unwrap()).collect()
    }

    async fn is_untouched(&self, place: &str) {
        assert_eq!(self.oid().await, self.oid, "{place}");
        assert_eq!(self.passwords(), self.passwords, "{place}");
        assert_eq!(self.shop.count("data", "after_it").await, Ok(1), "{place}");
        self.shop.count("data", "lines").await.expect_err(place);
        let written = "insert into after_it values (2); delete from after_it where n = 2";
        try_sql(&self.shop.credential("data", "write"), written).await.unwrap();
    }

    /// The claims of the namespace beside the original.
    async fn others(&self) -> Vec<String> {
        let claims = self.shop.api().list(&format!("/v1/namespaces/{}/databases", self.shop.namespace)).await;
        let names = claims.iter().map(|claim| claim["name"].as_str().unwrap().to_owned());
        names.filter(|name| name != "data").collect()
    }

    /// Whatever a claim of this name has on the server and in stores.
    async fn traces(&self, name: &str) -> Vec<String> {
        let database = self.shop.database(name);
        let sql = format!(
            "select datname::text from pg_database where starts_with(datname, '{database}')
             union all select rolname::text from pg_roles where starts_with(rolname, '{database}')"
        );
        let mut found = rows(&self.shop.plane.site.superuser, None, &sql).await;
        found.extend(files_below(&self.shop.plane.site.secrets).into_iter().filter(|file| file.contains(&database)));
        found
    }

    async fn is_copied_once_though_killed_at(&mut self, points: &[&str]) {
        let mut made = Vec::new();
        for (round, point) in points.iter().enumerate() {
            let name = format!("old-{round:02}");
            self.shop.again("killed", Some(&format!("kill@{point}"))).await;
            let shop = &mut self.shop;
            let restore = shop.request("data", copy(&name)).await;
            let id = restore["id"].as_str().unwrap().to_owned();
            // The answer may be cut off.
            shop.api().try_send("POST", &format!("/v1/restores/{id}/approve"), &[], None).await.ok();
            shop.plane.serve.running.end(PATIENCE).await;
            shop.plane.serve = shop.plane.site.serve("after").await;
            shop.plane.serve.is_ready().await;
            let done = over(&shop.api(), &id).await;
            assert_eq!(done["phase"], "Succeeded", "{point}: {done}");
            shop.api().is_ready(&shop.namespace, &name).await;
            assert_eq!(
                (shop.count(&name, "orders").await, shop.count(&name, "lines").await),
                (Ok(500), Ok(500)),
                "{point}"
            );
            shop.count(&name, "after_it").await.expect_err(point);
            let written = try_sql(&shop.credential(&name, "write"), "insert into orders (item) values ('new')").await;
            assert_eq!(written, Ok(()), "{point}");
            shop.nothing_beside().await;
            let events = shop.plane.site.events(&shop.namespace, &name).await;
            assert_eq!(events.iter().filter(|event| event["type"] == "Created").count(), 1, "{point}: {events:?}");
            made.push(name);
            assert_eq!(self.others().await, made, "{point}");
            self.is_untouched(point).await;
        }
    }
}

/// What the making of a claim and of a copy comes through.
const MAKING: [&str; 9] = [
    "before:restore-to-Preparing",
    "after:restore-to-Preparing",
    "before:create-database",
    "after:roles",
    "after:inside",
    "before:restore-to-Copying",
    "after:restore-to-Copying",
    "before:restore-to-Verifying",
    "after:restore-to-Verifying",
];

/// What the copy comes through that takes the place of the claim's empty database.
const EXCHANGING: [&str; 8] = [
    "before:restore-to-Switching",
    "after:restore-to-Switching",
    "after:hold-off",
    "after:end-sessions",
    "before:exchange",
    "after:exchange",
    "before:restore-to-CleaningUp",
    "after:restore-to-CleaningUp",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_is_made_one_claim_is_there_with_the_data() {
    Original::new().await.is_copied_once_though_killed_at(&MAKING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_is_exchanged_one_claim_is_there_with_the_data() {
    Original::new().await.is_copied_once_though_killed_at(&EXCHANGING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_the_claim_that_was_made_for_it_goes() {
    let mut original = Original::new().await;
    for (stall, made) in [
        ("stall=60s@before:restore-to-Preparing", false),
        ("stall=2s@before:create-database", true),
        ("stall=60s@before:restore-to-Copying", true),
        ("stall=60s@before:restore-to-Verifying", true),
        ("stall=60s@before:restore-to-Switching", true),
    ] {
        original.shop.again("stalled", Some(stall)).await;
        let shop = &original.shop;
        let restore = shop.request("data", copy("old")).await;
        shop.approve(&restore).await;
        shop.plane.serve.is_at_fault_point().await;
        assert_eq!(original.others().await.len(), usize::from(made), "{stall}");
        let id = restore["id"].as_str().unwrap();
        shop.api().ask(&format!("/v1/restores/{id}/cancel")).await.expect(200);
        let done = shop.over(&restore).await;
        assert_eq!(done["phase"], "Cancelled", "{stall}: {done}");
        shop.api().is_gone(&shop.namespace, "old").await;
        shop.nothing_beside().await;
        assert_eq!(original.traces("old").await, [] as [&str; 0], "{stall}");
        original.is_untouched(stall).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_there_is_never_taken_for_a_copy() {
    let original = Original::new().await;
    let shop = &original.shop;
    let superuser = &shop.plane.site.superuser;
    shop.api().ready(&shop.namespace, "kept").await;
    can(&shop.credential("kept", "admin"), "create table precious as select 1 as n").await;
    shop.api().ask(&format!("{}/release", shop.path("kept"))).await.expect(202);
    shop.api().is_in(&shop.namespace, "kept", "Retained").await;
    let (kept, theirs) = (shop.database("kept"), shop.database("theirs"));
    superuser_sql(superuser, None, &format!("create database \"{theirs}\"")).await;
    superuser_sql(superuser, Some(&theirs), "create table precious as select 1 as n").await;
    for (name, database) in [("kept", kept), ("theirs", theirs)] {
        let done = shop.restored("data", copy(name)).await;
        assert_eq!(done["phase"], "Failed", "{done}");
        let message = done["message"].as_str().unwrap();
        assert!(message.contains(&database) || message.contains("choose another copyName"), "{message}");
        assert_eq!(rows(superuser, Some(&database), "select n::text from precious").await, ["1"], "{name}");
        shop.nothing_beside().await;
        original.is_untouched(name).await;
    }
    shop.api().is_in(&shop.namespace, "kept", "Retained").await;
    shop.api().is_gone(&shop.namespace, "theirs").await;
}
