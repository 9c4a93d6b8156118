//! A rotation by hand: a verifier and one `ALTER ROLE` for each tier, in one round trip; three logins; three files that outlive
//! a power failure. Nothing is looked at before, and nothing is written down.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::spawn_blocking;

use super::Pass;
use crate::bench::Bench;
use crate::connect::Login;
use crate::error::{BenchError, Result};
use crate::floor::{TIERS, Worker};

/// Each has a maintenance connection and at most one other: eight, as pgtenant may have.
const WORKERS: usize = 4;
/// A document of pgtenant's has about as many bytes.
const DOCUMENT: usize = 2000;

/// Databases, each with its roles and their second logins, and who rotates them.
pub(super) struct Floor {
    names: Vec<String>,
    workers: Vec<Worker>,
    folder: PathBuf,
}

impl Floor {
    pub(super) async fn grow(bench: &Bench<'_>, folder: &Path, count: usize) -> Result<Self> {
        let names: Vec<String> = (0..count).map(|number| format!("floor-p-{number:05}")).collect();
        let workers = bench.workers(WORKERS).await?;
        let folder = folder.join("floor");
        fs::create_dir_all(&folder).map_err(BenchError::io("make", &folder))?;
        let floor = Self { names, workers, folder };
        floor.make().await?;
        Ok(floor)
    }

    async fn make(&self) -> Result<()> {
        let made = self.each(self.names.clone(), async |worker, name| {
            worker.claim(name).await?;
            let logins = TIERS.map(|tier| {
                let (role, login) = (format!("{name}-{tier}"), format!("{name}-{tier}-b"));
                format!(r#"CREATE ROLE "{login}" NOLOGIN IN ROLE "{role}"; ALTER ROLE "{login}" SET role = "{role}";"#)
            });
            worker.maintenance.batch(&logins.concat()).await
        });
        made.await
    }

    /// Every claim in turn, until there were `count`.
    pub(super) async fn rotate(&self, bench: &Bench<'_>, count: usize) -> Result<Pass> {
        bench.quiet().await?;
        let names: Vec<String> = self.names.iter().cycle().take(count).cloned().collect();
        let (begun, before) = (Instant::now(), bench.processes.cpu());
        // A role is not changed by two at once: PostgreSQL refuses that.
        for once in names.chunks(self.names.len().max(1)) {
            self.each(once.to_vec(), async |worker, name| self.one(worker, name).await).await?;
        }
        let (seconds, cpu) = (begun.elapsed().as_secs_f64(), bench.processes.cpu().since(before, count));
        Ok(Pass { claims: count, seconds, cpu })
    }

    pub(super) async fn stop(self) {
        for worker in self.workers {
            worker.stop().await;
        }
    }

    /// All workers, as long as there are names.
    async fn each(&self, names: Vec<String>, work: impl AsyncFn(&Worker, &str) -> Result<()>) -> Result<()> {
        let queue: Mutex<VecDeque<String>> = Mutex::new(names.into());
        let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
        let drain = async |worker| {
            while let Some(name) = next() {
                work(worker, &name).await?;
            }
            Ok(())
        };
        futures::future::try_join_all(self.workers.iter().map(drain)).await.map(drop)
    }

    async fn one(&self, worker: &Worker, name: &str) -> Result<()> {
        let passwords = TIERS.map(|_| SecretString::from(Alphanumeric.sample_string(&mut rand::rng(), 40)));
        let logins = TIERS.map(|tier| format!("{name}-{tier}-b"));
        let both = || logins.iter().zip(&passwords);
        let statements = both().map(|(login, password)| {
            let verifier = postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes());
            format!(r#"ALTER ROLE "{login}" LOGIN PASSWORD '{verifier}';"#)
        });
        worker.maintenance.batch(&statements.collect::<String>()).await?;
        for (login, password) in both() {
            let login = Login { user: login.clone(), password: password.clone() };
            worker.dial.connect(&login, name).await?.close().await;
        }
        let files = both().map(|(login, password)| {
            let (path, text) = (self.folder.join(login), format!("{:1$}", password.expose_secret(), DOCUMENT));
            spawn_blocking(move || write(&path, text.as_bytes()))
        });
        for written in futures::future::join_all(files).await {
            written.map_err(BenchError::text("write a file"))??;
        }
        let folder = self.folder.clone();
        let synced = spawn_blocking(move || {
            File::open(&folder).and_then(|folder| folder.sync_all()).map_err(BenchError::io("sync", &folder))
        });
        synced.await.map_err(BenchError::text("sync a folder"))?
    }
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    let beside = path.with_extension("tmp");
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&beside, path)).map_err(BenchError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{self, Described, Lab};

    #[tokio::test]
    async fn a_claim_is_rotated_by_hand() {
        let folder = lab::folder(&std::env::temp_dir()).unwrap();
        let lab = Lab::start(folder.path(), Described::files(), |_| {}).await.unwrap();
        let worker = Worker::start(&lab.primary, &lab.provisioner).await.unwrap();
        let floor = Floor { names: vec!["floor-x".into()], workers: vec![worker], folder: folder.path().to_owned() };
        floor.make().await.unwrap();
        for _ in 0..2 {
            floor.one(&floor.workers[0], "floor-x").await.unwrap();
        }
        let session = lab.primary.connect(&lab.superuser, "postgres").await.unwrap();
        let count = "select count(*) from pg_authid where rolname like 'floor-x-%-b' and rolcanlogin
                     and rolpassword is not null";
        assert_eq!(session.client().query_one(count, &[]).await.unwrap().get::<_, i64>(0), 3);
        assert!(folder.path().join("floor-x-read-b").is_file());
        floor.stop().await;
        lab.stop().await.unwrap();
    }
}
