//! Dumps in real places: folders, S3 as moto plays it, a WebDAV server; and what goes wrong there.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are no tests to clippy")]

mod contract;
mod crypt;
mod folder;
mod forged;
mod peer;
mod s3;
mod webdav;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt as _, stream};
use pgtenant_model::{ClaimKey, DumpPlace, DumpSpec, FolderPlace};
use pgtenant_snapshots::{
    Access, DumpFacts, DumpId, DumpReader, Dumps, Manifest, Patience, SnapshotError, TableEntry, generate_identity,
};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

const CLUSTER: &str = "default";

/// A pair of keys, the private one in a file.
struct Pair {
    dir: TempDir,
    public: String,
}

impl Pair {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (secret, public) = generate_identity();
        let file = dir.path().join("backup.key");
        fs::write(&file, format!("# public key: {public}\n{}\n", secret.expose_secret())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Self { dir, public }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("backup.key")
    }
}

/// As nobody would wait in production, so that faults are over soon.
fn patience() -> Patience {
    let (first, longest) = (Duration::from_millis(5), Duration::from_millis(20));
    Patience { tries: 4, first, longest, silence: Duration::from_secs(20) }
}

fn access() -> Access {
    Access { patience: patience(), ..Access::default() }
}

fn spec(to: DumpPlace, recipients: &[&Pair], identity: Option<&Pair>) -> DumpSpec {
    let recipients = recipients.iter().map(|pair| pair.public.clone()).collect();
    DumpSpec::new(to, recipients, identity.map(Pair::file))
}

fn in_folder(directory: &Path) -> DumpPlace {
    DumpPlace::Folder(FolderPlace { directory: directory.to_owned() })
}

fn folder_store(directory: &Path, pair: &Pair) -> Dumps {
    Dumps::new(&spec(in_folder(directory), &[pair], Some(pair)), &access()).unwrap()
}

fn key(name: &str) -> ClaimKey {
    ClaimKey::new("shop", name).unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn new_id(at: DateTime<Utc>) -> DumpId {
    DumpId::new(at, &mut rand::rng())
}

fn pieces(bytes: &[u8]) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let pieces: Vec<_> = bytes.chunks(10_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces)
}

fn facts() -> DumpFacts {
    let table = TableEntry { schema: "public".into(), name: "orders".into(), rows: 3, bytes: 8192 };
    DumpFacts { server_version: 150_018, pg_dump_major: 18, tables: vec![table] }
}

/// Writes a whole dump.
async fn write(dumps: &Dumps, key: &ClaimKey, at: DateTime<Utc>, parts: &[(&str, &[u8])]) -> Manifest {
    let writer = dumps.begin(CLUSTER, key, &key.database(), new_id(at)).await.unwrap();
    let parts = parts.iter().map(|(part, bytes)| writer.write(part, pieces(bytes)));
    for part in futures::future::join_all(parts).await {
        part.unwrap();
    }
    writer.finish(facts()).await.unwrap()
}

async fn read(reader: &DumpReader, part: &str) -> io::Result<Vec<u8>> {
    let mut stream = reader.read(part).map_err(io::Error::from)?;
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all)
}

/// The error that reading a part ends with.
async fn refusal(reader: &DumpReader, part: &str) -> String {
    let Err(error) = read(reader, part).await else { panic!("part {part} was read") };
    SnapshotError::of(&error).unwrap_or_else(|| panic!("{error:?}")).explain()
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    SmallRng::seed_from_u64(NOISES.fetch_add(1, Ordering::Relaxed)).fill_bytes(&mut noise);
    noise
}

static NOISES: AtomicU64 = AtomicU64::new(0);
