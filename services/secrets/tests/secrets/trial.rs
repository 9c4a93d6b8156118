//! A store of files is tried: nothing is left, and what it can not do is told.

use std::fs;
use std::path::Path;

use pgtenant_secrets::SecretStore as _;
use tempfile::TempDir;

use crate::{store, tree};

const TRIAL: &str = "customer/pgtenant-preflight/pgtenant-preflight-trial-read.json";

/// All that is there but the directory that every credential is in.
fn files(root: &Path) -> Vec<String> {
    tree(root).into_iter().filter(|path| path != "customer").collect()
}

#[tokio::test]
async fn a_credential_of_nobody_is_written_read_and_removed() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("made");
    let works = store(&root).try_out().await.unwrap();
    assert_eq!(works, format!("{TRIAL} was written, read and removed"));
    assert_eq!(files(&root), [] as [&str; 0]);

    // What a killed process has left goes with the next trial.
    fs::create_dir_all(root.join(TRIAL).parent().unwrap()).unwrap();
    fs::write(root.join(TRIAL), "half of a docu").unwrap();
    store(&root).try_out().await.unwrap();
    assert_eq!(files(&root), [] as [&str; 0]);

    // Somebody else's file is in the way of the directory.
    fs::remove_dir(root.join("customer")).unwrap();
    fs::write(root.join("customer"), "").unwrap();
    let text = store(&root).try_out().await.unwrap_err().explain();
    assert!(text.contains(&format!("store \"file\" can not write {TRIAL}")) && text.contains("; move away"), "{text}");
    assert_eq!(fs::read_to_string(root.join("customer")).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_trials_at_once_begin_again_where_they_disturb_each_other() {
    let dir = TempDir::new().unwrap();
    let (one, other) = (store(dir.path()), store(dir.path()));
    for _ in 0..20 {
        let (first, second) = tokio::join!(one.try_out(), other.try_out());
        first.unwrap();
        second.unwrap();
        assert_eq!(files(dir.path()), [] as [&str; 0]);
    }
}
