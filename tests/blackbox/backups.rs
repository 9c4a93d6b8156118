//! What becomes of dumps in time.

use std::fs;
use std::path::{Path, PathBuf};

use pgtenant_tests::soon;

use crate::shop::Shop;

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
