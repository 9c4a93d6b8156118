//! What becomes of dumps in time.

use std::fs;
use std::path::{Path, PathBuf};

use pgtenant_tests::{eventually, soon};

use crate::shop::{PATIENCE, Shop};

/// Every dump that is under a folder, at any depth.
fn dumps(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    if folders.is_empty() {
        return vec![folder.to_owned()];
    }
    folders.iter().flat_map(|folder| dumps(folder)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dumps_of_a_removed_database_go_when_they_were_kept_long_enough() {
    let mut shop = Shop::open().await;
    for name in ["gone", "fresh", "there"] {
        shop.stock(name).await;
        shop.dump(name).await;
    }
    for name in ["gone", "fresh"] {
        shop.api().delete(&shop.path(name)).await.expect(202);
        shop.api().is_gone(&shop.namespace, name).await;
    }
    shop.plane.serve.stop().await;
    let site = &shop.plane.site;
    // A year ago.
    let folder = site.config.with_file_name("backups").join("default").join(&shop.namespace);
    let dump = dumps(&folder.join("gone")).remove(0);
    let (_, end) = dump.file_name().unwrap().to_str().unwrap().split_once('T').unwrap();
    fs::rename(&dump, dump.with_file_name(format!("20200101T{end}"))).unwrap();
    site.ledger_rows(
        "update claims_removed set removed_at = now() - interval '1 year' where name = 'gone' returning name",
    )
    .await;
    shop.plane.serve = site.serve("a year later").await;
    soon("the dumps of what was removed are gone", || async {
        let left = dumps(&folder);
        let of = |name: &str| {
            left.iter().filter(|dump| dump.starts_with(folder.join(name)) && **dump != folder.join(name)).count()
        };
        let counts = (of("gone"), of("fresh"), of("there"));
        if counts == (0, 1, 1) { Ok(()) } else { Err(format!("{counts:?} {left:?}")) }
    })
    .await;
    soon("they are forgotten", || async {
        let left = shop.plane.site.ledger_rows("select name from claims_removed").await;
        if left == ["fresh"] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_is_dumped_and_tried_and_is_due_again_the_next_night() {
    let shop = Shop::open().await;
    shop.stock("data").await;
    let (site, ns) = (&shop.plane.site, &shop.namespace);
    let due =
        format!("select (backup_at - now() between '0' and '25 hours')::text from claims where namespace = '{ns}'");
    let planned = || async {
        let planned = site.ledger_rows(&due).await;
        if planned == ["true"] { Ok(()) } else { Err(format!("{planned:?}")) }
    };
    soon("its night is known", planned).await;
    assert!(shop.api().list(&format!("{}/snapshots", shop.path("data"))).await.is_empty(), "nothing before that");
    let night = format!("update claims set backup_at = now() where namespace = '{ns}' returning name");
    site.ledger_rows(&night).await;
    eventually("it is dumped, and the dump restored for a try", PATIENCE, || async {
        let listed = shop.api().list(&format!("{}/snapshots", shop.path("data"))).await;
        if listed.len() == 1 && listed[0]["verifiedAt"].is_string() { Ok(()) } else { Err(format!("{listed:?}")) }
    })
    .await;
    soon("the next night is known", planned).await;
    eventually("the age of the good one is measured", PATIENCE, || async {
        let metrics = shop.api().get("/metrics").await.expect(200).text;
        let mut of_it =
            metrics.lines().filter(|line| line.starts_with("pgtenant_backup_verified_age") && line.contains(ns));
        let age = of_it.next().and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        if age.is_some_and(|age| age < 600.0) { Ok(()) } else { Err(format!("{age:?}")) }
    })
    .await;
    assert!(shop.plane.serve.metric("pgtenant_backups_total").await >= 2.0, "a dump and its try");
    let audit = shop.api().list(&format!("/v1/audit?namespace={ns}")).await;
    let asked = audit.iter().filter(|one| one["actor"] == "schedule").count();
    assert_eq!(asked, 2, "{audit:?}");
}
