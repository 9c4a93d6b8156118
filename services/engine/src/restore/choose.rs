//! What there is to restore from, and which of it a wish means.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use pgtenant_model::{ClaimKey, RestorePoint, Snapshot, SnapshotId, SnapshotKind};
use pgtenant_rds::ClusterSnapshot;

use super::cluster_copy::id_of;
use super::scratch_server;
use super::trouble::Trouble;
use crate::cluster::Cluster;

/// A log archive is some minutes behind; while it is no more than this, it catches up. Of RDS, about five minutes:
/// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-pitr.html>.
pub(super) const BEHIND: TimeDelta = TimeDelta::minutes(15);

/// What the name of a point in time begins with, where that of a snapshot would be. No source has a snapshot of such a name: at RDS a
/// colon is only behind `rds` and `awsbackup`, and at pgBackRest nowhere.
const AT: &str = "at:";

/// The id that stands for the whole cluster as it was at `time`, to the second.
pub(super) fn id_of_time(kind: SnapshotKind, time: DateTime<Utc>) -> Option<SnapshotId> {
    SnapshotId::new(kind, format!("{AT}{}", time.to_rfc3339_opts(SecondsFormat::Secs, true))).ok()
}

/// The time that an id stands for; none: it is of a snapshot.
pub(super) fn time_of(id: &SnapshotId) -> Option<DateTime<Utc>> {
    id.name().strip_prefix(AT)?.parse().ok()
}

/// Why it is not known what a database can be restored from.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotsError {
    /// Nobody works on the cluster here.
    #[error("this replica does not work on the cluster; see its status")]
    Unknown,
    /// A place where snapshots are kept did not answer.
    #[error("{0}")]
    Unreachable(String),
}

/// What the claim's database can be restored from, newest first. `made` is when the claim was.
pub(super) async fn snapshots(
    cluster: &Cluster,
    key: &ClaimKey,
    made: Option<DateTime<Utc>>,
) -> Result<Vec<Snapshot>, SnapshotsError> {
    let mut all = of_cluster(cluster, made).await?;
    all.extend(of_dumps(cluster, key).await?);
    all.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.at));
    Ok(all)
}

/// The same, of those that a wish may mean: whoever names a snapshot does not depend on what else is kept where.
pub(super) async fn candidates(
    cluster: &Cluster,
    key: &ClaimKey,
    made: Option<DateTime<Utc>>,
    point: &RestorePoint,
) -> Result<Vec<Snapshot>, SnapshotsError> {
    match point.snapshot.as_ref().map(SnapshotId::kind) {
        None => snapshots(cluster, key, made).await,
        Some(SnapshotKind::Dump) => of_dumps(cluster, key).await,
        Some(SnapshotKind::Rds | SnapshotKind::PgBackRest) => of_cluster(cluster, made).await,
    }
}

async fn of_dumps(cluster: &Cluster, key: &ClaimKey) -> Result<Vec<Snapshot>, SnapshotsError> {
    let Some(dumps) = &cluster.dumps else { return Ok(Vec::new()) };
    let listing = dumps.list(&cluster.name, key).await;
    let listing = listing.map_err(|error| SnapshotsError::Unreachable(error.explain()))?;
    for broken in &listing.broken {
        tracing::warn!(claim = %key, id = %broken.id, "a dump can not be used: {}", broken.error.explain());
    }
    Ok(listing.dumps.iter().filter_map(|dump| dump.snapshot()).collect())
}

/// What is kept of the whole cluster, newest first. Where one claim is meant that was made at `made`, what is older does not
/// contain its database, unless an earlier claim had one of the same name.
pub(super) async fn of_cluster(
    cluster: &Cluster,
    made: Option<DateTime<Utc>>,
) -> Result<Vec<Snapshot>, SnapshotsError> {
    let older = |at| made.is_some_and(|made| at < made).then_some(false);
    if let Some(repository) = &cluster.backrest {
        let all = scratch_server::snapshots(repository).await;
        let mut all = all.map_err(|error| SnapshotsError::Unreachable(error.to_string()))?;
        all.iter_mut().for_each(|one| one.contains = older(one.at));
        all.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.at));
        return Ok(all);
    }
    let Some(work) = cluster.aurora() else { return Ok(Vec::new()) };
    let identifier = work.aurora.spec().cluster_identifier.to_ascii_lowercase();
    let found = match work.aurora.rds().snapshots(&identifier).await {
        Ok(found) => found,
        Err(fault) if fault.silent() || fault.is("Throttling") => {
            return Err(SnapshotsError::Unreachable(format!("{fault}; {}", fault.advice())));
        }
        // A role that may not list them, as of an earlier policy, does not keep anybody from the dumps.
        Err(fault) => {
            tracing::warn!(cluster = cluster.name, "snapshots of RDS are left out: {fault}; {}", fault.advice());
            return Ok(Vec::new());
        }
    };
    let location = format!("RDS, {} in {}", identifier, work.aurora.spec().region);
    let snapshot = |one: &ClusterSnapshot| {
        let at = one.at.filter(|_| one.is_available())?;
        let contains = older(at);
        let size = one.gibibytes.map(|size| u64::from(size) << 30);
        Some(Snapshot { id: id_of(one)?, at, size, contains, verified_at: None, location: location.clone() })
    };
    let mut all: Vec<_> = found.iter().filter_map(snapshot).collect();
    all.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.at));
    Ok(all)
}

/// The instant that a wish names, where the cluster can be had as it was then: nearer to what is meant than any snapshot before it.
/// None: it is for [`choose`].
pub(super) async fn point_in_time(
    cluster: &Cluster,
    point: &RestorePoint,
    made: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Option<Snapshot>, Trouble> {
    let Some(time) = point.time.filter(|time| *time <= now && made.is_none_or(|made| made <= *time)) else {
        return Ok(None);
    };
    if let Some(repository) = &cluster.backrest {
        return Ok(scratch_server::point_in_time(repository, time).await?);
    }
    let Some(work) = cluster.aurora() else { return Ok(None) };
    let Some(found) = work.aurora.describe().await? else { return Ok(None) };
    let (Some(from), Some(until)) = (found.restorable_from, found.restorable_until) else { return Ok(None) };
    if until < time && now - until < BEHIND {
        let message =
            format!("RDS can bring the cluster back as it was until {until}; it is waited until that is {time}");
        return Err(Trouble::later(message, std::time::Duration::from_secs(20)));
    }
    let location = format!("RDS, {} in {} at that time", found.identifier, work.aurora.spec().region);
    let one = |id| Snapshot { id, at: time, size: None, contains: None, verified_at: None, location };
    Ok(id_of_time(SnapshotKind::Rds, time).filter(|_| (from..=until).contains(&time)).map(one))
}

/// The snapshot that is meant.
pub(super) fn choose(mut all: Vec<Snapshot>, point: &RestorePoint, now: DateTime<Utc>) -> Result<Snapshot, Trouble> {
    let RestorePoint { snapshot, time, latest: _ } = point;
    all.retain(|one| one.at <= now);
    if let Some(wanted) = snapshot {
        // Also one from before the claim was made: somebody may know better.
        let found = all.into_iter().find(|one| one.id == *wanted);
        return found.ok_or_else(|| Trouble::last(format!("the snapshot {wanted} is not there, or not any more")));
    }
    all.retain(|one| one.contains != Some(false));
    let before = all.into_iter().filter(|one| time.is_none_or(|time| one.at <= time)).max_by_key(|one| one.at);
    before.ok_or_else(|| match time {
        Some(time) => Trouble::last(format!("there is no snapshot of the database from before {time}")),
        None => Trouble::last("there is no snapshot of the database"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(hour)
    }

    fn snapshot(hour: i64, contains: Option<bool>) -> Snapshot {
        let id = format!("dump:{hour}").parse().unwrap();
        Snapshot { id, at: at(hour), size: None, contains, verified_at: None, location: String::new() }
    }

    fn chosen(point: &RestorePoint) -> Result<String, String> {
        let all = vec![snapshot(3, None), snapshot(1, Some(true)), snapshot(4, Some(false)), snapshot(99, None)];
        choose(all, point, at(10)).map(|one| one.id.to_string()).map_err(|trouble| trouble.message)
    }

    #[test]
    fn the_newest_before_the_time_is_meant() {
        let latest = RestorePoint { snapshot: None, time: None, latest: true };
        assert_eq!(chosen(&latest).unwrap(), "dump:3", "not what lacks the database, nor what is yet to come");
        let time = |hour| RestorePoint { snapshot: None, time: Some(at(hour)), latest: false };
        assert_eq!(chosen(&time(2)).unwrap(), "dump:1");
        assert_eq!(chosen(&time(3)).unwrap(), "dump:3");
        assert!(chosen(&time(0)).unwrap_err().contains("before"));
    }

    #[test]
    fn a_point_in_time_has_a_name_as_snapshots_have() {
        let time = "2026-11-20T03:00:00.7Z".parse().unwrap();
        let id = id_of_time(SnapshotKind::Rds, time).unwrap();
        assert_eq!(id.to_string(), "rds:at:2026-11-20T03:00:00Z");
        let read: SnapshotId = id.to_string().parse().unwrap();
        assert_eq!(time_of(&read).unwrap().to_rfc3339(), "2026-11-20T03:00:00+00:00");
        assert_eq!(time_of(&"rds:before-the-upgrade".parse().unwrap()), None);
    }

    #[test]
    fn a_snapshot_that_has_vanished_is_named() {
        let point = |id: &str| RestorePoint { snapshot: Some(id.parse().unwrap()), time: None, latest: false };
        assert_eq!(chosen(&point("dump:1")).unwrap(), "dump:1");
        assert!(chosen(&point("dump:2")).unwrap_err().contains("dump:2"));
    }
}
