//! From a pgBackRest repository: a server is made of a backup on this machine, which only this process and its user reach, is read, and
//! goes. Where another replica goes on with the restore, it makes a server of its own.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pgtenant_model::{ClaimKey, InvalidField, Snapshot, SnapshotId, SnapshotKind, SslMode};
use pgtenant_postgres::{Server, ServerOptions, Timeouts};
use pgtenant_snapshots::pgbackrest::{Backup, PgBackRestError, Repository, Scratch, Target};

use super::choose::{BEHIND, id_of_time, time_of};
use super::live::Live;
use super::machine::Restoring;
use super::source::Source;
use super::trouble::{Kind, Trouble};
use crate::cluster::Cluster;

/// A backup each day, made within a window of two hours.
const OLDEST: TimeDelta = TimeDelta::hours(26);
/// Between two looks for more of the log.
const LOG: Duration = Duration::from_secs(20);
/// Failed tries to remove a server after which the restore ends, and it is left to the sweep.
const TRIES_TO_REMOVE: i32 = 3;

fn id_of(backup: &Backup) -> Option<SnapshotId> {
    SnapshotId::new(SnapshotKind::PgBackRest, &backup.label).ok()
}

/// The backups, as what a database can be restored from.
pub(super) async fn snapshots(repository: &Repository) -> Result<Vec<Snapshot>, PgBackRestError> {
    let location = format!("pgBackRest, stanza {}", repository.spec().stanza);
    let snapshot = |one: &Backup| {
        let (id, location) = (id_of(one)?, location.clone());
        Some(Snapshot { id, at: one.at, size: Some(one.stored), contains: None, verified_at: None, location })
    };
    Ok(repository.backups().await?.iter().filter_map(snapshot).collect())
}

/// The instant itself, where there is a backup from before it: the log leads on from there.
pub(super) async fn point_in_time(
    repository: &Repository,
    time: DateTime<Utc>,
) -> Result<Option<Snapshot>, PgBackRestError> {
    let before = repository.backups().await?.into_iter().any(|one| one.at <= time);
    let location = format!("pgBackRest, stanza {} at that time", repository.spec().stanza);
    let one = |id| Snapshot { id, at: time, size: None, contains: None, verified_at: None, location };
    Ok(id_of_time(SnapshotKind::PgBackRest, time).filter(|_| before).map(one))
}

impl Restoring {
    fn scratch(&self) -> Result<(&Repository, Scratch), Trouble> {
        let missing =
            || Trouble::last("the cluster has no backups.pgbackrest: nothing can be restored from a repository");
        let repository = self.cluster.backrest.as_ref().ok_or_else(missing)?;
        Ok((repository, Scratch::new(repository, self.work.restore.view.id)?))
    }

    /// Restores the backup, unless that is done. It may take hours; the lease is renewed meanwhile, and whoever takes the restore over
    /// ends what is still at work here.
    pub(super) async fn make_scratch_server(&self, snapshot: &SnapshotId) -> Result<(), Trouble> {
        if snapshot.kind() != SnapshotKind::PgBackRest {
            return Ok(());
        }
        let (repository, scratch) = self.scratch()?;
        let (backup, target) = meant(repository.backups().await?, snapshot)?;
        let faults = &self.engine.settings.faults;
        faults.reach("before:restore-scratch").await;
        scratch.restore(&backup, &target).await?;
        faults.reach("after:restore-scratch").await;
        Ok(())
    }

    /// Opens the database on the server.
    pub(super) async fn open_scratch_server(&self, key: &ClaimKey, snapshot: &SnapshotId) -> Result<Source, Trouble> {
        self.make_scratch_server(snapshot).await?;
        let (repository, scratch) = self.scratch()?;
        let socket = match scratch.start().await {
            Err(PgBackRestError::LogEnds) => return Err(log_ends(snapshot)),
            started => started?,
        };
        self.engine.settings.faults.reach("after:start-scratch").await;
        let server = Server::new(ServerOptions {
            host: socket.to_string_lossy().into_owned(),
            port: 5432,
            // Of no effect on a socket.
            sslmode: SslMode::Require,
            ca: None,
            username: repository.spec().superuser.clone(),
            password: String::new().into(),
            maintenance_database: "postgres".to_owned(),
            application_name: "pgtenant restore".to_owned(),
            timeouts: Timeouts::default(),
        })?;
        let (what, jobs) = (format!("the backup {snapshot}"), usize::from(self.cluster.spec.restores.jobs));
        let id = self.work.restore.view.id;
        Live { engine: &self.engine, server: &server, key, id, jobs, recovered: true, what: &what }.open().await
    }

    /// Stops the server and removes it. What stays is told, and left to the sweep.
    pub(super) async fn remove_scratch_server(&self) -> Result<Option<String>, Trouble> {
        if self.work.restore.view.snapshot.as_ref().is_none_or(|one| one.kind() != SnapshotKind::PgBackRest) {
            return Ok(None);
        }
        let Ok((_, scratch)) = self.scratch() else { return Ok(None) };
        self.engine.settings.faults.reach("before:remove-scratch").await;
        let removed = scratch.remove().await;
        self.engine.settings.faults.reach("after:remove-scratch").await;
        match removed {
            Ok(()) => Ok(None),
            Err(error) if self.work.restore.attempts < TRIES_TO_REMOVE => Err(error.into()),
            Err(error) => {
                self.cluster.leave_copy();
                Ok(Some(format!("the server that was made for it is still there: {error}; it is tried again")))
            }
        }
    }
}

/// Where the time has just been, the next of the log is waited for; started again, the server goes on where it was.
fn log_ends(snapshot: &SnapshotId) -> Trouble {
    match time_of(snapshot) {
        Some(time) if Utc::now() - time < BEHIND => Trouble::later(
            format!("the log in the repository ends before {time}; it is waited for the next of it"),
            LOG,
        ),
        _ => PgBackRestError::LogEnds.into(),
    }
}

/// The backup from which the restore begins, and where it ends.
fn meant(all: Vec<Backup>, snapshot: &SnapshotId) -> Result<(Backup, Target), Trouble> {
    let time = time_of(snapshot);
    let found = all.into_iter().rev().find(|one| match time {
        Some(time) => one.at <= time,
        None => one.label == snapshot.name(),
    });
    let found = found.ok_or_else(|| Trouble::last(format!("the backup {snapshot} is not there any more")))?;
    let target = time.map_or_else(|| Target::Backup(found.label.clone()), Target::Time);
    Ok((found, target))
}

/// Notes how old the newest backup is, and tells where that is too old: the host that has the data makes them.
pub(super) async fn look(cluster: &Cluster) -> Result<(), Trouble> {
    let Some(repository) = &cluster.backrest else { return Ok(()) };
    let (newest, now) = (repository.backups().await?.into_iter().map(|one| one.at).max(), Utc::now());
    cluster.kept_at().extend(newest.map(|newest| ("pgbackrest", newest)));
    *cluster.kept() = findings(newest, now).into_iter().chain(cluster.untested()).collect();
    Ok(())
}

fn findings(newest: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Vec<InvalidField> {
    let text = match newest {
        Some(at) if now - at <= OLDEST => return Vec::new(),
        Some(at) => format!("the newest backup in the repository is of {}", at.format("%Y-%m-%d %H:%M UTC")),
        None => "there is no backup in the repository".to_owned(),
    };
    vec![InvalidField::new(
        "backups.pgbackrest",
        format!("{text}: `pgbackrest backup` is for the cluster's own hosts to run"),
    )]
}

impl Cluster {
    /// What is in the repository, for a preflight.
    pub(crate) async fn kept_by_pgbackrest(&self) -> Option<Result<(String, Vec<InvalidField>), PgBackRestError>> {
        let repository = self.backrest.as_ref()?;
        let told = |all: Vec<Backup>| {
            let newest = all.iter().map(|one| one.at).max();
            let at = newest.map_or_else(|| "none".to_owned(), |at| at.format("%Y-%m-%d %H:%M UTC").to_string());
            let findings = findings(newest, Utc::now()).into_iter().chain(self.untested()).collect();
            (format!("{} backups in the repository; the newest: {at}", all.len()), findings)
        };
        Some(repository.backups().await.map(told))
    }
}

impl From<PgBackRestError> for Trouble {
    fn from(error: PgBackRestError) -> Self {
        match error {
            PgBackRestError::Full(_) => Self { kind: Kind::NoRoom, ..Self::last(error.to_string()) },
            _ if error.is_retryable() => Self::again(error.to_string()),
            _ => Self::last(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_reached_from_the_backup_before_it() {
        let at = |hour: i64| DateTime::UNIX_EPOCH + TimeDelta::hours(hour);
        let backup = |hour: i64| Backup { label: format!("of-{hour}"), at: at(hour), stored: 1, size: 1, major: 15 };
        let all = || vec![backup(1), backup(5), backup(9)];
        let time = |hour| meant(all(), &id_of_time(SnapshotKind::PgBackRest, at(hour)).unwrap());
        let (found, target) = time(7).unwrap();
        assert_eq!((found.label.as_str(), target), ("of-5", Target::Time(at(7))));
        assert!(time(0).is_err());
        let (found, target) = meant(all(), &"pgbackrest:of-1".parse().unwrap()).unwrap();
        assert_eq!((found.label.as_str(), target), ("of-1", Target::Backup("of-1".to_owned())));
        assert!(meant(all(), &"pgbackrest:of-2".parse().unwrap()).unwrap_err().message.contains("not there"));
    }

    #[test]
    fn an_old_backup_is_told() {
        let now = Utc::now();
        assert!(findings(Some(now - TimeDelta::hours(25)), now).is_empty());
        assert!(findings(Some(now - TimeDelta::hours(27)), now)[0].message.contains("the newest backup"));
        assert!(findings(None, now)[0].message.contains("there is no backup"));
    }
}
