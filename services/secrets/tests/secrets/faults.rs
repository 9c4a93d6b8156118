//! Kills, writers at the same time, full disks, missing permissions.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgtenant_model::Tier;
use pgtenant_secrets::{Removal, SecretStore, same};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::{made, store, target, targets, temporaries, tiers, tree};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_deleters_at_once_leave_whole_documents() {
    let dir = TempDir::new().unwrap();
    let target = target("ns", "db", Tier::Read);
    let mut tasks = Vec::new();
    for worker in 0..8 {
        // Stores of their own, as other processes have them.
        let (store, target) = (store(dir.path()), target.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..40 {
                if worker % 4 == 3 {
                    store.delete_many(std::slice::from_ref(&target), Removal::Usual).await.unwrap();
                } else {
                    let credential = made(&target, &format!("{worker}-{round}").repeat(50));
                    store.put_many(&[(target.clone(), credential)]).await.unwrap();
                }
                if let Some(read) = store.get(&target, None).await.unwrap().credential() {
                    let uri = read.uri.expose_secret();
                    assert!(uri.contains(read.password.expose_secret()), "parts of two documents");
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let store = store(dir.path());
    store.put_many(&[(target.clone(), made(&target, "last"))]).await.unwrap();
    assert_eq!(store.get(&target, None).await.unwrap().credential().unwrap().password.expose_secret(), "last");
    assert_eq!(tree(dir.path()).len(), 3, "{:?}", tree(dir.path()));
}

/// Set in a copy of this program that a test has started: the directory to work in.
const CHILD: &str = "PGTENANT_SECRETS_TEST_DIR";

/// Not a test by itself: what [`killed_writers_leave_whole_documents`] kills.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let store = store(&directory);
    for round in 0.. {
        let entries = tiers("ns", "db", &round.to_string().repeat(20));
        store.put_many(&entries).await.unwrap();
        if round % 5 == 4 {
            store.delete_many(&targets(&entries), Removal::Usual).await.unwrap();
        }
    }
}

fn writer(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::child_that_writes_until_it_is_killed"])
        .env(CHILD, directory)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn killed_writers_leave_whole_documents() {
    let dir = TempDir::new().unwrap();
    let store = store(dir.path());
    let admin = target("ns", "db", Tier::Admin);
    let mut leftovers = 0;
    for round in 0..40_u64 {
        let mut children = [writer(dir.path()), writer(dir.path())];
        let deadline = Instant::now() + Duration::from_secs(30);
        while store.get(&admin, None).await.unwrap().credential().is_none_or(|c| c.password.expose_secret() == "mine") {
            assert!(Instant::now() < deadline, "the children write nothing");
        }
        // Not to wait for something, but to kill at another instant in each round.
        tokio::time::sleep(Duration::from_micros(5_000 + 613 * round)).await;
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        leftovers += temporaries(dir.path()).len();
        for tier in Tier::ALL {
            if let Some(read) = store.get(&target("ns", "db", tier), None).await.unwrap().credential() {
                assert!(read.uri.expose_secret().contains(read.password.expose_secret()));
            }
        }
        let entries = tiers("ns", "db", "mine");
        if round % 2 == 0 {
            store.put_many(&entries).await.unwrap();
            assert!(temporaries(dir.path()).is_empty(), "{:?}", tree(dir.path()));
        } else {
            store.delete_many(&targets(&entries), Removal::Usual).await.unwrap();
            assert_eq!(tree(dir.path()), BTreeSet::from(["customer".to_owned()]));
        }
    }
    assert!(leftovers > 0, "no kill hit a writer at work; the test proves nothing");
}

/// A file system of a few blocks; needs root.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"]).arg(dir.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_says_so() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    };
    let root = disk.0.path();
    let store = store(root);
    let old = tiers("ns", "db", "old");
    store.put_many(&old).await.unwrap();
    let ballast = root.join("ballast");
    assert!(fs::write(&ballast, vec![0; 1 << 20]).is_err());

    let error = store.put_many(&tiers("ns", "db", "new")).await.unwrap_err();
    assert!(error.explain().contains("free space"), "{}", error.explain());
    for (target, credential) in &old {
        assert!(same(credential, store.get(target, None).await.unwrap().credential().unwrap()));
    }
    store.put_many(&old).await.unwrap();
    assert!(temporaries(root).is_empty(), "{:?}", tree(root));
    fs::remove_file(ballast).unwrap();
    store.put_many(&tiers("ns", "db", "new")).await.unwrap();
}

const UNREADABLE: &str = "faults::an_unreadable_directory_is_an_error_and_not_a_missing_credential";

/// Root may read everything, so the test runs itself again as somebody else.
#[test]
fn an_unreadable_directory_is_an_error_and_not_a_missing_credential() {
    if let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(without_permissions(&directory));
        fs::write(directory.join("proven"), "").unwrap();
        return;
    }
    let everybody = fs::Permissions::from_mode(0o777);
    let dir = tempfile::Builder::new().permissions(everybody.clone()).tempdir().unwrap();
    fs::set_permissions(dir.path(), everybody).unwrap();
    // A copy where anybody can run it.
    let program = dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        command
    } else {
        Command::new(&program)
    };
    let Ok(child) = command.args(["--exact", UNREADABLE]).env(CHILD, dir.path()).output() else {
        eprintln!("skipped: root, and no setpriv");
        return;
    };
    let said = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && dir.path().join("proven").exists(), "{said:?}");
}

async fn without_permissions(directory: &Path) {
    let base = directory.join("store");
    fs::DirBuilder::new().mode(0o700).create(&base).unwrap();
    let store = store(&base);
    let entries = tiers("ns", "db", "p");
    store.put_many(&entries).await.unwrap();
    let target = &entries[0].0;
    let allow = |place: &Path, mode| fs::set_permissions(place, fs::Permissions::from_mode(mode)).unwrap();
    for (place, mode) in [("customer/ns", 0o000), ("customer", 0o000), ("", 0o000), ("customer/ns", 0o500)] {
        let place = base.join(place);
        allow(&place, mode);
        if mode == 0 {
            let error = store.get(target, None).await.unwrap_err();
            assert!(error.explain().contains("give the user"), "{}", error.explain());
        }
        let error = store.put_many(&tiers("ns", "db", "q")).await.unwrap_err();
        assert!(error.explain().contains("give the user"), "{}", error.explain());
        assert!(store.delete_many(std::slice::from_ref(target), Removal::Usual).await.is_err());
        allow(&place, 0o700);
        assert!(store.get(target, None).await.unwrap().credential().is_some());
    }
    allow(&base.join("customer/ns/ns-db-read.json"), 0o000);
    assert!(store.get(target, None).await.unwrap_err().explain().contains("give the user"));
}
