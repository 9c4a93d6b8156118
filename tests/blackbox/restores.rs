//! Back from a snapshot.

use pgtenant_tests::{Cli, Credential, Dev, Folder, SiteOptions, TIERS, can, rows, soon, try_sql};
use serde_json::json;

use crate::shop::{PATIENCE, Shop, next_second, over};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_dev_a_new_user_has_a_table_back_with_one_command() {
    let folder = Folder::new("restores");
    let mut dev = Dev::start_with(&folder.join("data"), &["--backups"]).await;
    let cli = dev.cli();
    let psql = async |sql: &str| cli.run(&["db", "connect", "demo/orders", "--tier", "admin", "--", "-c", sql]).await;
    psql("create table kept (n int)").await.expect(0);
    psql("insert into kept select generate_series(1, 100)").await.expect(0);
    soon("a first dump by itself", || async {
        let found = dev.api().list("/v1/namespaces/demo/databases/orders/snapshots").await;
        if found.is_empty() { Err("no dump".to_owned()) } else { Ok(()) }
    })
    .await;
    cli.run(&["backup", "create", "demo/orders"]).await.expect(0);
    let before = TIERS.map(|tier| Credential::read(&dev.secrets(), "demo", "orders", tier));

    psql("drop table kept").await.expect(0);
    let done = cli.run(&["restore", "request", "demo/orders", "--yes"]).await.expect(0);
    for told in ["Succeeded", "all as in the snapshot", "To go back", "orders-before-"] {
        assert!(done.stdout.contains(told), "{told}: {}", done.stdout);
    }
    psql("select 1 / (count(*) = 100)::int from kept").await.expect(0);
    assert_eq!(TIERS.map(|tier| Credential::read(&dev.secrets(), "demo", "orders", tier)), before, "no new password");
    let files =
        std::process::Command::new("grep").args(["-rla", "create table kept"]).arg(dev.dir.join("backups")).output();
    assert!(files.unwrap().stdout.is_empty(), "nothing of it is in clear");
    dev.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_brings_all_back_keeps_what_was_there_and_can_be_undone() {
    let shop = Shop::open().await;
    shop.stock("data").await;
    let snapshot = shop.dump("data").await;
    let listed = shop.api().list(&format!("{}/snapshots", shop.path("data"))).await;
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &json!(snapshot)), "{listed:?}");
    assert_eq!(listed[0]["contains"], true);
    let admin = shop.credential("data", "admin");
    can(&admin, "drop table lines cascade; delete from orders where id > 10; create table after_it (n int)").await;

    let restore = shop.request("data", json!({"from": {"latest": true}, "reason": "a mistake"})).await;
    assert_eq!((&restore["phase"], &restore["strategy"]), (&json!("Requested"), &json!("swap")));
    let path = format!("{}/restores", shop.path("data"));
    shop.api().post(&path, json!({"from": {"latest": true}})).await.problem(409, "restore-open");
    shop.approve(&restore).await;
    shop.approve(&restore).await;
    let done = shop.over(&restore).await;
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &json!(snapshot)), "{done}");
    let report = &done["report"];
    assert_eq!(
        (&report["rows"], &report["tables"], &report["differences"]),
        (&json!(1000), &json!(2), &json!([])),
        "{done}"
    );
    assert_eq!(report["logins"].as_array().unwrap().len(), 3, "{done}");
    assert_eq!((shop.count("data", "orders").await, shop.count("data", "many").await.unwrap() > 0), (Ok(500), true));
    shop.count("data", "after_it").await.expect_err("it was made after the snapshot");
    assert_eq!(shop.credential("data", "admin"), admin, "no new password");
    try_sql(&shop.credential("data", "write"), "insert into orders (item) values ('new')").await.unwrap();
    let db = shop.api().is_ready(&shop.namespace, "data").await;
    assert_eq!(db["generation"], 1, "{db}");
    let before = done["before"]["database"].as_str().unwrap().to_owned();
    shop.only_beside(&[before.as_str()]).await;

    let id = done["id"].as_str().unwrap();
    shop.api().ask(&format!("/v1/restores/{id}/cancel")).await.problem(409, "restore-over");
    shop.api().ask(&format!("/v1/restores/{id}/undo")).await.expect(200);
    let undone = soon("it is undone", || async {
        let restore = shop.api().get(&format!("/v1/restores/{id}")).await.json;
        if restore["undoneAt"].is_string() { Ok(restore) } else { Err(restore.to_string()) }
    })
    .await;
    assert_eq!((shop.count("data", "orders").await, shop.count("data", "after_it").await), (Ok(10), Ok(0)));
    assert!(undone["before"]["database"].as_str().unwrap().contains("-after-"), "{undone}");
    shop.api().is_ready(&shop.namespace, "data").await;

    // All of it goes with the claim.
    shop.api().delete(&shop.path("data")).await.expect(202);
    shop.api().is_gone(&shop.namespace, "data").await;
    shop.nothing_beside().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_a_database_of_its_own() {
    let shop = Shop::open().await;
    shop.stock("data").await;
    shop.dump("data").await;
    can(&shop.credential("data", "admin"), "drop table lines cascade").await;
    let spec = json!({"from": {"latest": true}, "strategy": "copy", "copyName": "old"});
    let done = shop.restored("data", spec.clone()).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(shop.count("old", "lines").await, Ok(500));
    shop.count("data", "lines").await.expect_err("the database is as it was");
    shop.api().is_ready(&shop.namespace, "old").await;
    shop.nothing_beside().await;
    assert!(done["before"].is_null(), "{done}");
    let again = shop.restored("data", spec).await;
    assert_eq!(again["phase"], "Failed", "{again}");
    assert!(again["message"].as_str().unwrap().contains("choose another copyName"), "{again}");
    assert_eq!(shop.count("old", "lines").await, Ok(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_command_line_a_time_means_the_dump_before_it() {
    let shop = Shop::open().await;
    let cli = Cli::of(&shop.plane.serve.url, &shop.plane.site.token);
    let name = format!("{}/data", shop.namespace);
    let at = async |time: &str| cli.run(&["restore", "request", &name, "--time", time, "--yes"]).await;
    shop.stock("data").await;
    let too_early = next_second().await;
    let first = shop.dump("data").await;
    let between = next_second().await;
    can(&shop.credential("data", "admin"), "delete from lines; create table between (n int)").await;
    let second = shop.dump("data").await;
    let after = next_second().await;
    can(&shop.credential("data", "admin"), "drop table orders cascade").await;

    let done = at(&between).await.expect(0);
    assert!(done.stdout.contains(&first) && done.stdout.contains("Succeeded"), "{}", done.stdout);
    assert_eq!(shop.count("data", "lines").await, Ok(500));
    shop.count("data", "between").await.expect_err("it was made after that time");
    let done = at(&after).await.expect(0);
    assert!(done.stdout.contains(&second), "{}", done.stdout);
    assert_eq!((shop.count("data", "lines").await, shop.count("data", "between").await), (Ok(0), Ok(0)));

    let none = at(&too_early).await.expect(1);
    let told = format!("{}{}", none.stdout, none.stderr);
    for said in
        ["there is no snapshot of the database from before", &too_early.replace('T', " ").replace('Z', ""), "as it was"]
    {
        assert!(told.contains(said), "{said}: {told}");
    }
    assert_eq!((shop.count("data", "lines").await, shop.count("data", "between").await), (Ok(0), Ok(0)));
    let odd = at("yesterday").await.expect(2);
    assert!(odd.stderr.contains("--time"), "{}", odd.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_do_what() {
    let options = SiteOptions { backups: true, ..SiteOptions::shared().await };
    let cluster = format!("environment = \"production\"\n{}", options.cluster);
    let shop = Shop::open_with(SiteOptions { cluster, ..options }).await;
    shop.stock("data").await;
    shop.dump("data").await;
    let tenant = shop.plane.api_of("tenant", &[&shop.namespace]).await;
    let (viewer, stranger) =
        (shop.plane.api_of("viewer", &[&shop.namespace]).await, shop.plane.api_of("tenant", &["elsewhere"]).await);
    let (list, spec) = (format!("{}/restores", shop.path("data")), json!({"from": {"latest": true}}));
    viewer.post(&list, spec.clone()).await.problem(403, "forbidden");
    stranger.post(&list, spec.clone()).await.problem(404, "not-found");
    stranger.get(&format!("{}/snapshots", shop.path("data"))).await.problem(404, "not-found");
    tenant.get(&format!("{}/snapshots", shop.path("data"))).await.expect(200);

    let restore = tenant.post(&list, spec.clone()).await.expect(202).json;
    let path = format!("/v1/restores/{}", restore["id"].as_str().unwrap());
    assert!(stranger.list("/v1/restores").await.is_empty());
    for verb in ["", "/approve", "/cancel", "/reject", "/undo"] {
        let answer =
            if verb.is_empty() { stranger.get(&path).await } else { stranger.ask(&format!("{path}{verb}")).await };
        answer.problem(404, "not-found");
    }
    viewer.get(&path).await.expect(200);
    viewer.ask(&format!("{path}/cancel")).await.problem(403, "forbidden");
    let told = tenant.ask(&format!("{path}/approve")).await.problem(403, "forbidden");
    assert!(told.contains("does not approve it"), "{told}");
    shop.api().ask(&format!("{path}/reject")).await.expect(200);
    shop.api().ask(&format!("{path}/approve")).await.problem(409, "restore-over");
    assert_eq!(shop.api().get(&path).await.json["phase"], "Rejected");

    // The platform team's own wish needs another person, too.
    let own = shop.request("data", spec.clone()).await;
    let path = format!("/v1/restores/{}", own["id"].as_str().unwrap());
    shop.api().ask(&format!("{path}/approve")).await.problem(403, "forbidden");
    shop.plane.api_of("platform", &[]).await.ask(&format!("{path}/approve")).await.expect(200);
    assert_eq!(shop.over(&own).await["phase"], "Succeeded");
}

#[tokio::test]
async fn what_can_not_be_meant_is_refused_with_the_field() {
    let shop = Shop::open().await;
    shop.api().ready(&shop.namespace, "data").await;
    let path = format!("{}/restores", shop.path("data"));
    for (spec, field) in [
        (json!({"from": {}}), "from"),
        (json!({"from": {"latest": true, "time": "2026-01-01T00:00:00Z"}}), "from"),
        (json!({"from": {"latest": true}, "strategy": "copy"}), "copyName"),
        (json!({"from": {"latest": true}, "copyName": "x"}), "copyName"),
        (json!({"from": {"latest": true}, "reason": "x".repeat(1001)}), "reason"),
    ] {
        let told = shop.api().post(&path, spec.clone()).await.problem(422, "invalid-fields");
        assert!(told.contains(field), "{spec}: {told}");
    }
    for spec in [json!({"from": {"snapshot": "dump:../x"}}), json!({"from": {"latest": true}, "strategy": "magic"})] {
        let answer = shop.api().post(&path, spec.clone()).await;
        assert!([400, 422].contains(&answer.status), "{spec}: {}", answer.text);
    }
    // Nothing was ever dumped.
    let none = shop.restored("data", json!({"from": {"latest": true}})).await;
    assert_eq!(none["phase"], "Failed");
    assert!(none["message"].as_str().unwrap().contains("no snapshot"), "{none}");
    let vanished = shop.restored("data", json!({"from": {"snapshot": "dump:20260101T000000Z-00000000"}})).await;
    assert!(vanished["message"].as_str().unwrap().contains("is not there"), "{vanished}");
}

/// What the copying, comparing and exchanging of a restore comes through.
const POINTS: [&str; 16] = [
    "before:restore-to-Preparing",
    "after:restore-to-Preparing",
    "before:restore-to-Copying",
    "after:restore-to-Copying",
    "before:restore-to-Verifying",
    "after:restore-to-Verifying",
    "before:restore-to-Switching",
    "after:restore-to-Switching",
    "before:hold-off",
    "after:hold-off",
    "before:end-sessions",
    "after:end-sessions",
    "before:exchange",
    "after:exchange",
    "before:restore-to-CleaningUp",
    "after:restore-to-CleaningUp",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_it_goes_on_and_does_each_thing_once() {
    let options = SiteOptions { backups: true, lease: "3s".to_owned(), ..SiteOptions::shared().await };
    let mut shop = Shop::open_with(options).await;
    shop.stock("data").await;
    shop.dump("data").await;
    let admin = shop.credential("data", "admin");
    for point in POINTS {
        can(&admin, "create table if not exists after_it (n int)").await;
        shop.again("killed", Some(&format!("kill@{point}"))).await;
        let restore = shop.request("data", json!({"from": {"latest": true}})).await;
        let id = restore["id"].as_str().unwrap().to_owned();
        // The answer may be cut off.
        shop.api().try_send("POST", &format!("/v1/restores/{id}/approve"), &[], None).await.ok();
        shop.plane.serve.running.end(PATIENCE).await;
        shop.plane.serve = shop.plane.site.serve("after").await;
        shop.plane.serve.is_ready().await;
        let done = over(&shop.api(), &id).await;
        assert_eq!(done["phase"], "Succeeded", "{point}: {done}");
        assert_eq!(shop.count("data", "orders").await, Ok(500), "{point}");
        shop.count("data", "after_it").await.expect_err(point);
        assert_eq!(shop.credential("data", "admin"), admin, "{point}");
        // Dropped, so that the next one begins with nothing beside.
        let before = done["before"]["database"].as_str().unwrap();
        shop.only_beside(&[before]).await;
        shop.plane.site.ledger_rows("update restores set before_until = now(), due_at = now() returning ''").await;
        shop.nothing_beside().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_at_any_point_before_the_switch_all_is_as_it_was() {
    let options = SiteOptions { backups: true, lease: "3s".to_owned(), ..SiteOptions::shared().await };
    let mut shop = Shop::open_with(options).await;
    shop.stock("data").await;
    shop.dump("data").await;
    can(&shop.credential("data", "admin"), "create table after_it (n int)").await;
    let never_begun = shop.request("data", json!({"from": {"latest": true}})).await;
    let path = format!("/v1/restores/{}", never_begun["id"].as_str().unwrap());
    assert_eq!(shop.api().ask(&format!("{path}/cancel")).await.expect(200).json["phase"], "Cancelled");
    for phase in ["Preparing", "Copying", "Verifying", "Switching"] {
        shop.again("stalled", Some(&format!("stall=60s@before:restore-to-{phase}"))).await;
        let restore = shop.request("data", json!({"from": {"latest": true}})).await;
        shop.approve(&restore).await;
        let id = restore["id"].as_str().unwrap();
        shop.plane.serve.is_at_fault_point().await;
        shop.api().ask(&format!("/v1/restores/{id}/cancel")).await.expect(200);
        let done = shop.over(&restore).await;
        assert_eq!(done["phase"], "Cancelled", "{phase}: {done}");
        assert_eq!(shop.count("data", "after_it").await, Ok(0), "{phase}");
        // A try of the dump may be under way.
        shop.nothing_beside().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_is_not_what_it_says_is_never_switched_to() {
    let shop = Shop::open().await;
    shop.stock("data").await;
    let snapshot = shop.dump("data").await;
    let folder = shop.plane.site.path().join("backups/default").join(&shop.namespace).join("data");
    let part = folder.join(snapshot.strip_prefix("dump:").unwrap()).join("data-00000.zst.age");
    let whole = std::fs::read(&part).unwrap();
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 1;
    std::fs::write(&part, broken).unwrap();
    let done = shop.restored("data", json!({"from": {"latest": true}})).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    assert!(done["message"].as_str().unwrap().contains("as it was"), "{done}");
    let asked = shop.api().ask(&format!("{}/snapshots/{snapshot}/verify", shop.path("data"))).await.expect(202).json;
    let tried = shop.api().finished(asked["id"].as_str().unwrap()).await;
    assert_eq!(tried["state"], "Failed", "{tried}");
    // It vanishes.
    std::fs::remove_file(&part).unwrap();
    let done = shop.restored("data", json!({"from": {"latest": true}})).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    assert_eq!(shop.count("data", "orders").await, Ok(500));
    shop.nothing_beside().await;
    // And is there again.
    std::fs::write(&part, whole).unwrap();
    assert_eq!(shop.restored("data", json!({"from": {"latest": true}})).await["phase"], "Succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_tenants_code_makes_under_the_login_of_a_job_keeps_nothing_from_ending() {
    let shop = Shop::open().await;
    shop.stock("data").await;
    let hostile = "create function leaves(n int) returns boolean language plpgsql as $$ begin
                       if session_user like 'pgtenant_job%' then
                           perform set_config('role', 'none', false);
                           execute 'create table if not exists left_behind (n int)';
                       end if;
                       return true; end $$;
                   create table traps (n int check (leaves(n))); insert into traps values (1)";
    can(&shop.credential("data", "admin"), hostile).await;
    shop.dump("data").await;
    let done = shop.restored("data", json!({"from": {"latest": true}})).await;
    assert!(["Succeeded", "Failed"].contains(&done["phase"].as_str().unwrap()), "{done}");
    assert_eq!(shop.count("data", "traps").await, Ok(1));
    let login = "select rolname::text from pg_roles where rolname like 'pgtenant_job%' and exists (select from \
                 pg_auth_members a join pg_roles r on r.oid = a.roleid where a.member = pg_roles.oid and starts_with(r.rolname, '";
    let sql = format!("{login}{}-'))", shop.namespace);
    soon("no login is left", || async {
        let left = rows(&shop.plane.site.superuser, None, &sql).await;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
