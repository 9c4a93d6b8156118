//! Databases that are copied: restores, dumps, tries of dumps, and moves to another cluster, as the ledger's queue has them.

mod choose;
mod cluster_copy;
mod dump;
mod following;
mod following_end;
mod leftovers;
mod live;
mod load;
mod machine;
mod moving;
mod moving_end;
mod moving_steps;
mod prepare;
mod rds_backups;
mod replace;
mod schedule;
mod scratch_server;
mod source;
mod switch;
mod test_restores;
mod trouble;
mod verify;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgtenant_ledger::{
    BackupWork, LedgerError, MoveWork, RestoreWork, claim, next_backup, next_move, next_restore, take_backup,
    take_move, take_restore, tested, within_deadline,
};
use pgtenant_model::{ClaimKey, Snapshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Inner;
use crate::cluster::Cluster;
use crate::roster::PATIENCE;

pub use choose::SnapshotsError;
pub(crate) use leftovers::Leftovers;

/// A sleep ends at the latest after this time, whatever the ledger said: a lost NOTIFY costs no more.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const LEDGER_RETRY: Duration = Duration::from_millis(500);

/// What was taken, and a moment before the ledger granted its lease.
enum Job {
    Restore(Box<RestoreWork>, Instant),
    Backup(Box<BackupWork>, Instant),
    Move(Box<MoveWork>, Instant),
}

impl Inner {
    /// What a claim's database can be restored from, newest first.
    pub(crate) async fn snapshots(&self, cluster: &str, key: &ClaimKey) -> Result<Vec<Snapshot>, SnapshotsError> {
        let cluster = self.described(cluster).await?;
        let read = within_deadline(async { claim(&mut *self.ledger.acquire().await?, key).await });
        let found = read.await.map_err(|error| SnapshotsError::Unreachable(error.to_string()))?;
        let all = choose::snapshots(&cluster, key, found.map(|claim| claim.created_at)).await?;
        self.with_tests(&cluster, Some(key), all).await
    }

    /// What is kept of a whole cluster, newest first.
    pub(crate) async fn cluster_snapshots(&self, cluster: &str) -> Result<Vec<Snapshot>, SnapshotsError> {
        let cluster = self.described(cluster).await?;
        let all = choose::of_cluster(&cluster, None).await?;
        self.with_tests(&cluster, None, all).await
    }

    async fn described(&self, cluster: &str) -> Result<Arc<Cluster>, SnapshotsError> {
        let found = self.roster.find(cluster, PATIENCE).await;
        found.map_err(|late| SnapshotsError::Unreachable(late.to_string()))?.ok_or(SnapshotsError::Unknown)
    }

    /// With when each that is of the whole cluster was last restored for a test.
    async fn with_tests(
        &self,
        cluster: &Cluster,
        key: Option<&ClaimKey>,
        mut all: Vec<Snapshot>,
    ) -> Result<Vec<Snapshot>, SnapshotsError> {
        let read = within_deadline(async { tested(&mut *self.ledger.acquire().await?, &cluster.name, key).await });
        let tested = read.await.map_err(|error| SnapshotsError::Unreachable(error.to_string()))?;
        for (id, at) in tested {
            all.iter_mut().filter(|one| one.id == id).for_each(|one| one.verified_at = Some(at));
        }
        Ok(all)
    }

    /// Takes restores and dumps of one cluster, and moves to it, until `stop`. What is under way then is left: its lease runs out, and whoever takes
    /// it next does the step again.
    pub(crate) async fn restores(self: &Arc<Self>, cluster: &Arc<Cluster>, stop: &CancellationToken) {
        let mut running = JoinSet::new();
        let (engine, one, until) = (Arc::clone(self), Arc::clone(cluster), stop.clone());
        running.spawn(async move { schedule::run(&engine, &one, &until).await });
        while !stop.is_cancelled() {
            let taken = within_deadline(self.take(cluster)).await;
            let nap = match taken {
                Ok(jobs) if jobs.is_empty() => self.nap(cluster).await,
                Ok(jobs) => {
                    for job in jobs {
                        running.spawn(Arc::clone(self).attend(Arc::clone(cluster), job));
                    }
                    Duration::ZERO
                }
                Err(error) => {
                    tracing::warn!(cluster = cluster.name, error = ?error, "the ledger does not answer");
                    LEDGER_RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = cluster.restores.notified() => {}
                Some(ended) = running.join_next(), if !running.is_empty() => log_panic(ended),
                () = tokio::time::sleep(nap) => {}
            }
        }
        running.shutdown().await;
    }

    async fn take(&self, cluster: &Cluster) -> Result<Vec<Job>, LedgerError> {
        let (since, lease, at_once) = (Instant::now(), self.settings.lease, cluster.spec.restores.at_once);
        let mut db = self.ledger.acquire().await?;
        let restore = take_restore(&mut db, &cluster.name, self.holder, lease, at_once).await?;
        let backup = take_backup(&mut db, &cluster.name, self.holder, lease, at_once).await?;
        let moving = take_move(&mut db, &cluster.name, lease).await?;
        let restore = restore.map(|work| Job::Restore(Box::new(work), since));
        let moving = moving.map(|work| Job::Move(Box::new(work), since));
        let backup = backup.map(|work| Job::Backup(Box::new(work), since));
        Ok(restore.into_iter().chain(backup).chain(moving).collect())
    }

    /// How long nothing will be due.
    async fn nap(&self, cluster: &Cluster) -> Duration {
        let due = within_deadline(async {
            let mut db = self.ledger.acquire().await?;
            let (restore, backup, moving) = (
                next_restore(&mut db, &cluster.name, cluster.spec.restores.at_once).await?,
                next_backup(&mut db, &cluster.name, cluster.spec.restores.at_once).await?,
                next_move(&mut db, &cluster.name).await?,
            );
            Ok(restore.into_iter().chain(backup).chain(moving).min())
        });
        match due.await {
            Ok(due) => due.unwrap_or(LONGEST_SLEEP).clamp(Duration::from_millis(100), LONGEST_SLEEP),
            Err(_) => LEDGER_RETRY,
        }
    }

    async fn attend(self: Arc<Self>, cluster: Arc<Cluster>, job: Job) {
        match job {
            Job::Restore(work, since) => machine::attend(self, cluster, *work, since).await,
            Job::Backup(work, since) => dump::attend(self, cluster, *work, since).await,
            Job::Move(work, since) => moving::attend(self, cluster, *work, since).await,
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(error = ?error, "a restore panicked; its lease runs out and the step is done again");
    }
}
