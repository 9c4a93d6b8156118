//! A folder: modes, links, kills, a full disk, many dumps, large ones.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use pgtenant_snapshots::{SnapshotError, Trust};
use tempfile::TempDir;

use crate::{CLUSTER, Pair, at, contract, facts, folder_store, key, new_id, noise, pieces, read, write};

/// Every path below `directory`, relative, with its mode.
fn tree(directory: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            found.insert(name, metadata.permissions().mode() & 0o7777);
            if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_folder_keeps_dumps() {
    let (dir, pair) = (TempDir::new().unwrap(), Pair::new());
    contract::holds(&folder_store(&dir.path().join("made/by/us"), &pair)).await;
}

#[tokio::test]
async fn what_is_there_is_for_pgtenant_alone() {
    let (dir, pair) = (TempDir::new().unwrap(), Pair::new());
    let made =
        write(&folder_store(dir.path(), &pair), &key("orders"), at("2026-11-22T02:00:00Z"), &[("data", b"x")]).await;
    let folder = format!("default/shop/orders/{}", made.id);
    let expected = [
        ("default".to_owned(), 0o700),
        ("default/shop".to_owned(), 0o700),
        ("default/shop/orders".to_owned(), 0o700),
        (folder.clone(), 0o700),
        (format!("{folder}/data.zst.age"), 0o600),
        (format!("{folder}/manifest.json"), 0o600),
    ];
    assert_eq!(tree(dir.path()), expected.into());
}

#[tokio::test]
async fn links_are_not_followed() {
    let (dir, pair, elsewhere) = (TempDir::new().unwrap(), Pair::new(), TempDir::new().unwrap());
    let dumps = folder_store(dir.path(), &pair);
    let orders = key("orders");
    let made = write(&dumps, &orders, at("2026-11-22T02:00:00Z"), &[("data", b"x")]).await;
    let folder = dir.path().join(format!("default/shop/orders/{}", made.id));

    // A part that is a link.
    let reader = dumps.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap();
    fs::rename(folder.join("data.zst.age"), elsewhere.path().join("part")).unwrap();
    symlink(elsewhere.path().join("part"), folder.join("data.zst.age")).unwrap();
    let error = crate::refusal(&reader, "data").await;
    assert!(error.contains("symbolic link"), "{error}");

    // A tenant's folder that is a link into another place.
    fs::create_dir(elsewhere.path().join("orders")).unwrap();
    symlink(elsewhere.path(), dir.path().join("default/linked")).unwrap();
    let linked = pgtenant_model::ClaimKey::new("linked", "orders").unwrap();
    let writer = dumps.begin(CLUSTER, &linked, "linked-orders", new_id(at("2026-11-22T02:00:00Z"))).await;
    let error = writer.unwrap().write("data", pieces(b"x")).await.unwrap_err();
    assert!(error.to_string().contains("symbolic links are not followed"), "{error}");
    assert!(dumps.list(CLUSTER, &linked).await.is_err());
    assert_eq!(tree(elsewhere.path()).len(), 2, "{:?}", tree(elsewhere.path()));
}

#[tokio::test]
async fn a_stream_that_breaks_off_leaves_no_part() {
    let (dir, pair) = (TempDir::new().unwrap(), Pair::new());
    let dumps = folder_store(dir.path(), &pair);
    let orders = key("orders");
    let writer = dumps.begin(CLUSTER, &orders, "shop-orders", new_id(at("2026-11-22T02:00:00Z"))).await;
    let writer = writer.unwrap();
    let cut = pieces(&noise(1 << 20)).chain(stream::iter([Err(io::Error::other("the server went away"))]));
    let error = writer.write("data", cut).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Source(_)) && error.explain().contains("the server went away"), "{error:?}");
    // Again, and whole; and one whose writer goes away.
    writer.write("data", pieces(b"whole")).await.unwrap();
    let endless = stream::repeat_with(|| Ok(Bytes::from(noise(100_000))));
    let gone = tokio::time::timeout(Duration::from_millis(100), writer.write("more", endless)).await;
    assert!(gone.is_err());
    let made = writer.finish(facts()).await.unwrap();
    assert_eq!(made.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["data"]);
    let reader = dumps.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap();
    assert_eq!(read(&reader, "data").await.unwrap(), b"whole");
    assert!(!tree(dir.path()).keys().any(|name| name.ends_with(".tmp")), "{:?}", tree(dir.path()));
}

/// Set in a copy of this program that a test has started: the directory to work in.
const CHILD: &str = "PGTENANT_SNAPSHOTS_TEST_DIR";

/// Not a test by itself: what [`a_killed_writer_leaves_nothing_that_is_listed`] kills.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let (pair, orders) = (Pair::new(), key("orders"));
    let dumps = folder_store(&directory, &pair);
    for second in 0.. {
        let at = at("2026-11-22T02:00:00Z") + chrono::TimeDelta::seconds(second);
        let data = noise(300_000);
        write(&dumps, &orders, at, &[("one", &data), ("two", &data)]).await;
    }
}

#[tokio::test]
async fn a_killed_writer_leaves_nothing_that_is_listed() {
    let (dir, pair, orders) = (TempDir::new().unwrap(), Pair::new(), key("orders"));
    let dumps = folder_store(dir.path(), &pair);
    let (mut whole, mut halves) = (0, 0);
    for round in 0..15_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "folder::child_that_writes_until_it_is_killed"])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while dumps.list(CLUSTER, &orders).await.unwrap().dumps.is_empty() {
            assert!(Instant::now() < deadline, "the child writes nothing");
        }
        // Not to wait for something, but to kill at another instant in each round.
        tokio::time::sleep(Duration::from_micros(3_000 + 2_713 * round)).await;
        child.kill().unwrap();
        child.wait().unwrap();

        let listed = dumps.list(CLUSTER, &orders).await.unwrap();
        assert!(listed.broken.is_empty(), "{:?}", listed.broken);
        for dump in &listed.dumps {
            assert_eq!(dump.manifest.parts.len(), 2);
            for part in &dump.manifest.parts {
                let file = format!("{}/{}.zst.age", dump.location, part.name);
                assert_eq!(fs::metadata(file).unwrap().len(), part.stored_bytes);
            }
            whole += 1;
            dumps.remove(CLUSTER, &orders, dump.manifest.id).await.unwrap();
        }
        for left in dumps.unfinished(CLUSTER, &orders, at("2027-01-01T00:00:00Z")).await.unwrap() {
            halves += 1;
            dumps.remove(CLUSTER, &orders, left.id).await.unwrap();
        }
        assert_eq!(tree(dir.path()).len(), 3, "{:?}", tree(dir.path()));
    }
    assert!(halves > 0, "no kill hit a writer at work; the test proves nothing");
    println!(
        "  measured: 15 kills of a writer left {whole} whole dumps and {halves} unfinished ones, none listed half"
    );
}

/// A file system of some pages; needs root.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"]).arg(dir.path());
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
async fn a_full_disk_is_said_and_leaves_nothing_half() {
    let Some(disk) = SmallDisk::mount() else {
        println!("  SKIPPED: mounting a small file system needs root");
        return;
    };
    let (pair, orders) = (Pair::new(), key("orders"));
    let dumps = folder_store(disk.0.path(), &pair);
    let made = write(&dumps, &orders, at("2026-11-21T02:00:00Z"), &[("data", b"small")]).await;
    let before = tree(disk.0.path());
    let writer = dumps.begin(CLUSTER, &orders, "shop-orders", new_id(at("2026-11-22T02:00:00Z"))).await;
    let writer = writer.unwrap();
    // More would come, for ever: what has no room is not waited for.
    let endless = stream::repeat_with(|| Ok(Bytes::from(noise(100_000))));
    let error = writer.write("data", endless).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Full { .. }) && error.explain().contains("make room"), "{error:?}");
    // With the place's answer there, a stream that gives nothing more is not waited for either.
    writer.abandon().await.unwrap();
    assert_eq!(tree(disk.0.path()), before);
    let reader = dumps.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap();
    assert_eq!(read(&reader, "data").await.unwrap(), b"small");
}

#[tokio::test]
async fn a_thousand_dumps_are_listed() {
    let (dir, pair, orders) = (TempDir::new().unwrap(), Pair::new(), key("orders"));
    let dumps = folder_store(dir.path(), &pair);
    for number in 0..1000 {
        let at = at("2026-01-01T02:00:00Z") + chrono::TimeDelta::hours(number);
        let writer = dumps.begin(CLUSTER, &orders, "shop-orders", new_id(at)).await.unwrap();
        writer.finish(facts()).await.unwrap();
    }
    let start = Instant::now();
    let listed = dumps.list(CLUSTER, &orders).await.unwrap().dumps;
    let took = start.elapsed();
    assert_eq!(listed.len(), 1000);
    assert!(listed.is_sorted_by(|a, b| a.manifest.at > b.manifest.at));
    println!("  measured: 1,000 dumps in a folder are listed in {} ms", took.as_millis());
    assert!(took < Duration::from_secs(20));
}

/// Kilobytes of memory that this process has had at most.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Not a test by itself: others in this process would be measured too.
#[tokio::test]
async fn child_that_writes_and_reads_200_megabytes() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let (pair, orders) = (Pair::new(), key("orders"));
    let dumps = folder_store(&directory, &pair);
    let before = peak();
    let writer = dumps.begin(CLUSTER, &orders, "shop-orders", new_id(at("2026-11-22T02:00:00Z"))).await;
    let writer = writer.unwrap();
    let start = Instant::now();
    let stream = stream::iter((0..200).map(|_| Ok(Bytes::from(noise(1 << 20)))));
    writer.write("data", stream).await.unwrap();
    let wrote = start.elapsed();
    let made = writer.finish(facts()).await.unwrap();
    let start = Instant::now();
    let reader = dumps.open(CLUSTER, &orders, made.id, Trust::Sealed).await.unwrap();
    let mut stream = reader.read("data").unwrap();
    let mut length = 0;
    while let Some(piece) = stream.next().await {
        length += piece.unwrap().len();
    }
    assert_eq!(length, 200 << 20);
    let (read, more) = (start.elapsed(), (peak() - before) / 1024);
    assert!(more < 40, "it took {more} MiB");
    let stored = made.stored_bytes >> 20;
    println!(
        "  measured: 200 MiB ({stored} MiB stored) written in {} ms and read in {} ms, with {more} MiB of memory",
        wrote.as_millis(),
        read.as_millis()
    );
    fs::write(directory.join("proven"), "").unwrap();
}

#[tokio::test]
async fn a_large_part_takes_little_memory() {
    let dir = TempDir::new().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "folder::child_that_writes_and_reads_200_megabytes", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && dir.path().join("proven").exists(), "{said}");
    said.lines().filter(|line| line.contains("measured")).for_each(|line| println!("{line}"));
}
