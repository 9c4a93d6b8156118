//! Back from a pgBackRest repository: the real program, real archives, and servers that are made of them and go.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use pgtenant_tests::{Credential, can, eventually, files_below, rows, try_sql};
use serde_json::{Value, json};

use crate::backrest::{Kept, archived, processes_of};
use crate::shop::{PATIENCE, next_second, over};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_database_comes_back_from_a_backup_and_from_a_time_after_it() {
    let mut kept = Kept::new().await;
    kept.back_up().await;
    let listed = kept.api().list("/v1/namespaces/vault/databases/db/snapshots").await;
    let label = listed[0]["id"].as_str().unwrap().to_owned();
    assert!(label.starts_with("pgbackrest:") && listed[0]["size"].as_u64().unwrap() > 0, "{listed:?}");
    assert_eq!(kept.api().list("/v1/clusters/default/snapshots").await.len(), 1);
    let tried = kept.api().ask("/v1/clusters/default/preflight").await.expect(200).json;
    let line = tried["checks"].as_array().unwrap().iter().find(|line| line["check"] == "pgbackrest");
    assert!(line.is_some_and(|line| line["message"].as_str().unwrap().contains("1 backups")), "{tried}");

    // More, a time, and a mistake, which is in the archive.
    can(&kept.admin(), "insert into orders (item) select 'later' from generate_series(1, 200)").await;
    let time = next_second().await;
    can(&kept.admin(), "drop table orders").await;
    archived(&kept).await;

    let done = kept.restored(json!({"from": {"time": time}})).await;
    let id = json!(format!("pgbackrest:at:{time}"));
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &id), "{done}");
    assert_eq!(kept.orders().await, ["500"]);
    kept.nothing_is_left().await;
    let done = kept.restored(json!({"from": {"snapshot": label}})).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(kept.orders().await, ["300"]);
    let left_out = done["report"]["leftOut"].to_string();
    assert!(left_out.contains("cache") && left_out.contains("unlogged"), "{left_out}");
    kept.nothing_is_left().await;

    // The archive is not there yet.
    can(&kept.admin(), "truncate orders").await;
    let time = next_second().await;
    let restore = kept.request(json!({"from": {"time": time}})).await;
    can(&kept.admin(), "insert into orders (item) values ('after it')").await;
    archived(&kept).await;
    let done = over(&kept.api(), restore["id"].as_str().unwrap()).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(kept.orders().await, ["0"]);

    // Killed on the way, what runs is used again or ended, and goes.
    for point in [
        "before:restore-scratch",
        "after:restore-scratch",
        "after:start-scratch",
        "before:restore-to-Verifying",
        "before:remove-scratch",
        "after:remove-scratch",
    ] {
        kept.serve.stop().await;
        kept.serve = kept.site.serve_with("killed", &[("PGTENANT_FAULT", &format!("kill@{point}"))]).await;
        kept.serve.is_ready().await;
        let restore = kept.request(json!({"from": {"snapshot": label}})).await;
        kept.serve.running.end(PATIENCE).await;
        kept.serve = kept.site.serve("after").await;
        kept.serve.is_ready().await;
        let done = over(&kept.api(), restore["id"].as_str().unwrap()).await;
        assert_eq!(done["phase"], "Succeeded", "{point}: {done}");
        assert_eq!(kept.orders().await, ["300"], "{point}");
        kept.nothing_is_left().await;
    }
    assert!(kept.serve.metric("pgtenant_cluster_backup_age_seconds").await > 0.0);

    // A server that nobody has removed of a restore that is over goes with the next look.
    let over = kept.site.ledger_rows("select id::text from restores limit 1").await.remove(0);
    kept.serve.stop().await;
    let left = kept.folder.join("scratch").join(over.replace('-', ""));
    fs::create_dir(&left).unwrap();
    kept.serve = kept.site.serve("again").await;
    eventually("it is removed", PATIENCE, || async {
        if left.exists() { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await;

    // One that is not there any more.
    kept.serve.is_ready().await;
    let done = kept.restored(json!({"from": {"snapshot": "pgbackrest:20200101-000000F"}})).await;
    assert_eq!(done["phase"], "Failed", "{done}");
    assert!(done["message"].as_str().unwrap().contains("is not there"), "{done}");
    kept.own.cluster.stop().await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_loaded_in_place_and_into_a_database_of_its_own() {
    let mut kept = Kept::new().await;
    kept.back_up().await;
    let (backup, secrets) = (kept.backup().await, kept.site.secrets.clone());
    let before = Credential::of(&secrets, "vault", "db");
    can(&kept.admin(), "drop table orders; create table after_it as select 1 as n").await;
    let done = kept.restored(json!({"from": {"snapshot": backup}, "strategy": "copy", "copyName": "old"})).await;
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &json!(backup)), "{done}");
    kept.nothing_is_left().await;
    kept.api().is_ready("vault", "old").await;
    let old = Credential::of(&secrets, "vault", "old");
    try_sql(&old[0], "select 1 / (count(*) = 300)::int from orders").await.unwrap();
    try_sql(&old[1], "insert into orders (item) values ('new')").await.unwrap();
    assert!(old.iter().zip(&before).all(|(old, own)| old.password != own.password), "it has passwords of its own");
    try_sql(&before[1], "insert into after_it values (2)").await.unwrap();
    assert_eq!(try_sql(&before[1], "select from orders").await, Err("42P01".to_owned()), "the database is as it was");

    let done = kept.restored(json!({"from": {"snapshot": backup}, "strategy": "replace"})).await;
    assert_eq!((&done["phase"], &done["snapshot"]), (&json!("Succeeded"), &json!(backup)), "{done}");
    kept.nothing_is_left().await;
    assert_eq!(kept.orders().await, ["300"]);
    try_sql(&before[1], "insert into orders (item) values ('new')").await.unwrap();
    assert_eq!(try_sql(&before[1], "select from after_it").await, Err("42P01".to_owned()), "it came after the backup");
    assert_eq!(Credential::of(&secrets, "vault", "db"), before, "no new password");
    kept.api().is_ready("vault", "db").await;
    kept.own.cluster.stop().await.ok();
}

/// pgBackRest waits for the rest of a file of the repository until this is dropped.
struct Stuck {
    file: PathBuf,
    aside: PathBuf,
}

impl Stuck {
    /// In the largest file of the only backup.
    fn new(kept: &Kept, backup: &str) -> Self {
        let label = backup.strip_prefix("pgbackrest:").unwrap();
        let data = kept.folder.join("repository/backup/main").join(label).join("pg_data");
        let files = files_below(&data).into_iter().map(|file| data.join(file));
        let file = files.max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
        let stuck = Self { aside: kept.folder.join("aside"), file };
        fs::rename(&stuck.file, &stuck.aside).unwrap();
        assert!(Command::new("mkfifo").arg(&stuck.file).status().unwrap().success());
        chown(&stuck.file, Some(kept.owner.0), Some(kept.owner.1)).unwrap();
        stuck
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        fs::rename(&self.aside, &self.file).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_while_the_server_is_made_nothing_of_it_is_left() {
    let mut kept = Kept::new().await;
    kept.back_up().await;
    let (backup, scratch) = (kept.backup().await, kept.folder.join("scratch"));
    can(&kept.admin(), "delete from orders where id > 10").await;
    let spec = json!({"from": {"snapshot": backup}});
    let cancelled = async |kept: &Kept, restore: &Value| {
        let id = restore["id"].as_str().unwrap();
        kept.api().ask(&format!("/v1/restores/{id}/cancel")).await.expect(200);
        let done = over(&kept.api(), id).await;
        assert_eq!(done["phase"], "Cancelled", "{done}");
        kept.nothing_is_left().await;
        assert_eq!(kept.orders().await, ["10"], "it is as it was");
        let databases =
            rows(&kept.site.superuser, None, "select datname::text from pg_database where datname ~ '^vault-'").await;
        assert_eq!(databases, ["vault-db"]);
        kept.api().is_ready("vault", "db").await;
    };
    // pgBackRest is at it.
    let stuck = Stuck::new(&kept, &backup);
    let restore = kept.request(spec.clone()).await;
    eventually("pgBackRest copies files", PATIENCE, || async {
        let running = processes_of(&scratch);
        if running.iter().any(|one| one.contains("restore:local")) { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await;
    cancelled(&kept, &restore).await;
    drop(stuck);
    // The server has just come up.
    kept.serve.stop().await;
    kept.serve = kept.site.serve_with("stalled", &[("PGTENANT_FAULT", "stall=60s@after:start-scratch")]).await;
    kept.serve.is_ready().await;
    let restore = kept.request(spec.clone()).await;
    kept.serve.is_at_fault_point().await;
    assert!(!processes_of(&scratch).is_empty(), "a server runs");
    cancelled(&kept, &restore).await;
    // Nothing is in the way of the next one.
    let done = kept.restored(spec).await;
    assert_eq!(done["phase"], "Succeeded", "{done}");
    assert_eq!(kept.orders().await, ["300"]);
    kept.nothing_is_left().await;
    kept.own.cluster.stop().await.ok();
}
