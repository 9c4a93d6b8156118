//! What storing credentials costs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgtenant_secrets::{Removal, SecretStore};
use tempfile::TempDir;

use crate::{store, targets, tiers};

/// One file made durable by hand: the least that a file system asks for.
fn floor(directory: &Path) {
    let mut file = fs::File::create(directory.join("floor.tmp")).unwrap();
    file.write_all(&[b'x'; 600]).unwrap();
    file.sync_all().unwrap();
    fs::rename(directory.join("floor.tmp"), directory.join("floor")).unwrap();
    fs::File::open(directory).unwrap().sync_all().unwrap();
}

/// In `PGTENANT_BENCH_DIR` or else here: `cargo test -p pgtenant-secrets --release -- --ignored --nocapture cost`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn cost_of_three_tiers() {
    let directory = std::env::var_os("PGTENANT_BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = TempDir::new_in(fs::canonicalize(directory).unwrap()).unwrap();
    let store = store(dir.path());
    let mut times: Vec<(&str, Vec<Duration>)> = Vec::new();
    for round in 0..100 {
        let mut clock = Instant::now();
        let mut took = |what| {
            match times.iter_mut().find(|(name, _)| *name == what) {
                Some((_, times)) => times.push(clock.elapsed()),
                None => times.push((what, vec![clock.elapsed()])),
            }
            clock = Instant::now();
        };
        let entries = tiers("ns", &format!("db{round}"), &round.to_string());
        let fresh = tiers(&format!("ns{round}"), "db", "x");
        floor(dir.path());
        took("floor: one file by hand");
        store.put_many(&entries).await.unwrap();
        took("put");
        store.put_many(&entries).await.unwrap();
        took("put of what is there");
        store.get(&entries[0].0, None).await.unwrap();
        took("get of one");
        store.delete_many(&targets(&entries), Removal::Usual).await.unwrap();
        took("delete");
        for entry in &entries {
            store.put_many(std::slice::from_ref(entry)).await.unwrap();
        }
        took("put, one after the other");
        store.put_many(&fresh).await.unwrap();
        took("put into a new namespace");
    }
    println!("three tiers, median of 100:");
    for (what, mut times) in times {
        times.sort();
        println!("{what:>30} {:?}", times[times.len() / 2]);
    }
    let started = Instant::now();
    let mut tasks = Vec::new();
    for number in 0..200 {
        let store = store.clone();
        let entries = tiers("many", &format!("db{number}"), "x");
        tasks.push(tokio::spawn(async move { store.put_many(&entries).await.unwrap() }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    println!("{:>30} {:?}", "200 claims at once", started.elapsed());
}
