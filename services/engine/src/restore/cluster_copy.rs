//! From what RDS keeps: a copy of the whole cluster is made of a snapshot or at a point in time, read by the control plane alone, and
//! deleted. Each step of RDS takes minutes; it is asked how far it is, and nobody waits with a lease in hand.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pgtenant_model::{ClaimKey, SnapshotId, SnapshotKind};
use pgtenant_postgres::{Server, ServerOptions, generate_password, shut_logins};
use pgtenant_rds::{Cluster as RdsCluster, ClusterSnapshot, Copy, CopyName, CopyState, Origin, Rds, RdsFault, Removal};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::choose::time_of;
use super::live::Live;
use super::machine::Restoring;
use super::source::Source;
use super::trouble::Trouble;
use crate::aurora::AuroraWork;
use crate::cluster::Cluster;

/// What the names of automatic snapshots begin with, and is left out of a snapshot's id.
const AUTOMATIC: &str = "rds:";
/// Between two questions how far RDS is: a tenth of the time that it took so far, within these.
const ASK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A copy that takes longer will not come up: one of tens of terabytes takes hours.
const COPY_WITHIN: TimeDelta = TimeDelta::hours(12);
/// A new master password is in effect after this time, or something is wrong. It takes RDS less than a minute.
const PASSWORD_WITHIN: Duration = Duration::from_secs(300);
/// Failed tries to remove a copy after which the restore ends, and the copy is left to the sweep.
const TRIES_TO_REMOVE: i32 = 3;

/// The copy of the cluster that a restore makes, written down before it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterCopy {
    /// When it was decided on.
    pub(super) since: DateTime<Utc>,
}

/// The id of a snapshot that RDS keeps.
pub(super) fn id_of(snapshot: &ClusterSnapshot) -> Option<SnapshotId> {
    let name = snapshot.identifier.strip_prefix(AUTOMATIC).unwrap_or(&snapshot.identifier);
    SnapshotId::new(SnapshotKind::Rds, name).ok()
}

impl Cluster {
    fn rds(&self) -> Result<(&AuroraWork, &Rds), Trouble> {
        let work =
            self.aurora().ok_or_else(|| Trouble::last("the cluster is not one of Aurora: RDS keeps nothing of it"))?;
        Ok((work, work.aurora.rds()))
    }

    /// As RDS describes it now, or did last.
    async fn described_by_rds(&self) -> Result<std::sync::Arc<RdsCluster>, Trouble> {
        let (work, _) = self.rds()?;
        let found = match work.aurora.last() {
            Some(cluster) => Some(cluster),
            None => work.aurora.describe().await?,
        };
        found.ok_or_else(|| Trouble::again("RDS has no such cluster, so its network and parameters are not known"))
    }
}

impl Restoring {
    fn copy_name(&self) -> CopyName {
        CopyName::of(self.work.restore.view.id)
    }

    /// What is written down of the copy before anything is asked of RDS; none: the snapshot is none that RDS keeps.
    pub(super) fn copy_to_make(&self, snapshot: &SnapshotId) -> Option<ClusterCopy> {
        (snapshot.kind() == SnapshotKind::Rds).then(|| ClusterCopy { since: Utc::now() })
    }

    /// Makes the copy, one call at a time; returns when it takes connections.
    pub(super) async fn make_cluster_copy(&self) -> Result<(), Trouble> {
        let Some(ClusterCopy { since }) = self.steps()?.cluster_copy else { return Ok(()) };
        let (_, rds) = self.cluster.rds()?;
        let (name, id, faults) = (self.copy_name(), self.work.restore.view.id, &self.engine.settings.faults);
        let doing = match rds.copy_state(&name, id).await? {
            CopyState::Ready(_) => return Ok(()),
            CopyState::Broken(why) => return Err(Trouble::last(why)),
            CopyState::Busy(status) => status,
            CopyState::Missing => {
                let source = self.cluster.described_by_rds().await?;
                let copy = self.copy_of(&source, rds).await?;
                faults.reach("before:make-cluster-copy").await;
                rds.make_copy(&copy).await?;
                faults.reach("after:make-cluster-copy").await;
                "creating".to_owned()
            }
            CopyState::WithoutInstance => {
                let source = self.cluster.described_by_rds().await?;
                faults.reach("before:make-copy-instance").await;
                rds.make_copy_instance(&self.copy_of(&source, rds).await?).await?;
                faults.reach("after:make-copy-instance").await;
                "creating (instance)".to_owned()
            }
        };
        if Utc::now() - since > COPY_WITHIN {
            return Err(Trouble::last(format!("{name}, the copy of the cluster, is still {doing:?} after half a day")));
        }
        let message = format!("RDS makes {name}, a copy of the cluster: {doing}; that takes some minutes");
        Err(Trouble::later(message, pause(since, Utc::now())))
    }

    async fn copy_of<'a>(&self, source: &'a RdsCluster, rds: &Rds) -> Result<Copy<'a>, Trouble> {
        let snapshot = self.snapshot()?;
        let origin = match time_of(snapshot) {
            Some(time) => Origin::Time(time),
            None => {
                let all = rds.snapshots(&source.identifier).await?;
                let found = all.into_iter().find(|one| id_of(one).as_ref() == Some(snapshot) && one.is_available());
                let vanished = || Trouble::last(format!("the snapshot {snapshot} is not there any more"));
                let found = found.ok_or_else(vanished)?;
                Origin::Snapshot(found.identifier, found.engine_version)
            }
        };
        let rules = &self.cluster.spec.restores.rds;
        Ok(Copy {
            name: self.copy_name(),
            restore: self.work.restore.view.id,
            of: source,
            origin,
            security_groups: rules.security_group_ids.clone(),
            max_acu: rules.max_acu.into(),
        })
    }

    /// Opens the database on the copy: with a master password that is in this process alone, after every other login was shut.
    pub(super) async fn open_cluster_copy(&self, key: &ClaimKey, snapshot: &SnapshotId) -> Result<Source, Trouble> {
        let (_, rds) = self.cluster.rds()?;
        let (name, id) = (self.copy_name(), self.work.restore.view.id);
        let copy = match rds.copy_state(&name, id).await? {
            CopyState::Ready(copy) => copy,
            CopyState::Busy(status) => return Err(Trouble::later(format!("RDS calls {name} {status:?}"), ASK.1 / 10)),
            CopyState::Broken(why) => return Err(Trouble::last(why)),
            CopyState::Missing | CopyState::WithoutInstance => {
                return Err(Trouble::last(format!(
                    "somebody has deleted {name}, the copy of the cluster, or its instance"
                )));
            }
        };
        let password = generate_password(&mut rand::rng());
        rds.set_copy_password(&name, &password).await?;
        let server = self.log_in_to_copy(&copy, password).await?;
        let mut session = server.maintenance().await?;
        let open = shut_logins(&mut session).await?;
        drop(session);
        if !open.is_empty() {
            // Whoever reads the restore's message need not know the names of others.
            tracing::warn!(copy = %name, logins = open.join(", "), "these logins could not be shut on the copy");
            return Err(Trouble::last(format!(
                "the copy is not read, since {} logins could not be shut on it: the control plane's log names them; make the \
                 cluster's master login able to change them (GRANT … WITH ADMIN OPTION), or drop them",
                open.len()
            )));
        }
        let (what, jobs) = (format!("the snapshot {snapshot}"), usize::from(self.cluster.spec.restores.jobs));
        Live { engine: &self.engine, server: &server, key, id, jobs, recovered: true, what: &what }.open().await
    }

    /// Waits until the new password is in effect.
    async fn log_in_to_copy(&self, copy: &RdsCluster, password: SecretString) -> Result<Server, Trouble> {
        let incomplete = || Trouble::again(format!("RDS tells no endpoint or no master login of {}", copy.identifier));
        let (host, port) = copy.endpoint.clone().zip(copy.port).ok_or_else(incomplete)?;
        let server = Server::new(ServerOptions {
            host,
            port,
            // As every cluster of RDS: its authorities are known, so whoever answers is it.
            sslmode: pgtenant_model::SslMode::VerifyFull,
            ca: self.cluster.authorities().await?,
            username: copy.master_username.clone().ok_or_else(incomplete)?,
            password,
            maintenance_database: self.cluster.spec.provisioner.database.clone(),
            application_name: "pgtenant restore".to_owned(),
            timeouts: self.cluster.timeouts(),
        })?;
        let begun = Instant::now();
        loop {
            match server.maintenance().await {
                Ok(_) => return Ok(server),
                Err(error) if begun.elapsed() > PASSWORD_WITHIN => return Err(error.into()),
                Err(error) => tracing::debug!("the copy does not let the master login in yet: {error}"),
            }
            tokio::time::sleep((begun.elapsed() / 10).clamp(ASK.0, ASK.1)).await;
        }
    }

    /// Deletes the copy. What can not be deleted now is told, and left to the sweep, which tries it again and counts it.
    pub(super) async fn remove_cluster_copy(&self) -> Result<Option<String>, Trouble> {
        if self.steps()?.cluster_copy.is_none() {
            return Ok(None);
        }
        let Ok((_, rds)) = self.cluster.rds() else { return Ok(None) };
        let (name, attempts) = (self.copy_name(), self.work.restore.attempts);
        self.engine.settings.faults.reach("before:remove-cluster-copy").await;
        let removed = rds.remove_copy(&name, self.work.restore.view.id).await;
        self.engine.settings.faults.reach("after:remove-cluster-copy").await;
        match removed {
            Ok(Removal::Done) => Ok(None),
            Ok(Removal::Busy(status)) => {
                Err(Trouble::later(format!("{name} is {status:?}, and is deleted when RDS takes that"), ASK.1 / 3))
            }
            Err(fault) if attempts < TRIES_TO_REMOVE => {
                Err(Trouble::again(format!("{name} is not deleted: {fault}; {}", fault.advice())))
            }
            Err(fault) => {
                self.cluster.leave_copy();
                Ok(Some(format!(
                    "{name}, the copy of the cluster, costs money and could not be deleted: {fault}; it is tried again"
                )))
            }
        }
    }
}

/// How long nobody asks, when it was begun at `since`.
fn pause(since: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    ((now - since).to_std().unwrap_or_default() / 10).clamp(ASK.0, ASK.1)
}

impl From<RdsFault> for Trouble {
    fn from(fault: RdsFault) -> Self {
        let lasting = ["DBClusterSnapshotNotFoundFault", "InvalidRestoreFault", "InvalidParameterValue"];
        let message = format!("{fault}. What to do: {}", fault.advice());
        if lasting.iter().any(|code| fault.is(code)) { Self::last(message) } else { Self::again(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_automatic_snapshot_is_named_without_what_rds_puts_before_it() {
        let of = |identifier: &str| {
            id_of(&ClusterSnapshot { identifier: identifier.to_owned(), ..ClusterSnapshot::default() }).unwrap()
        };
        assert_eq!(of("rds:shared-2026-11-20-02-14").to_string(), "rds:shared-2026-11-20-02-14");
        assert_eq!(of("before-the-upgrade").to_string(), "rds:before-the-upgrade");
        assert_eq!(time_of(&of("before-the-upgrade")), None);
    }

    #[test]
    fn rds_is_asked_seldomer_the_longer_it_takes() {
        let now = Utc::now();
        let ago = |seconds| pause(now - chrono::TimeDelta::seconds(seconds), now);
        assert_eq!(ago(0), Duration::from_millis(500));
        assert_eq!(ago(100), Duration::from_secs(10));
        assert_eq!(ago(7200), Duration::from_secs(30));
        assert_eq!(ago(-5), Duration::from_millis(500), "another replica's clock is ahead");
    }
}
