//! Whether RDS keeps what a restore needs: it should make a snapshot each night, and a log to go to any time. Where it has not, and
//! the settings say so, one is asked for.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pgtenant_model::InvalidField;
use pgtenant_rds::{Cluster as RdsCluster, ClusterSnapshot, RdsFault, TAKEN_PREFIX};

use super::trouble::Trouble;
use crate::cluster::Cluster;

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(300);
/// A snapshot each day, made at any moment of a window of two hours.
const OLDEST_SNAPSHOT: TimeDelta = TimeDelta::hours(26);
/// RDS is about 5 minutes behind: <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-pitr.html>.
const FURTHEST_BEHIND: TimeDelta = TimeDelta::minutes(30);

/// What RDS keeps of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// When the newest snapshot was made that can be restored from; none: there is none.
    newest: Option<DateTime<Utc>>,
    /// The newest that RDS has made by itself.
    automatic: Option<DateTime<Utc>>,
    /// A snapshot is being made.
    under_way: bool,
    /// To what time the cluster can be restored.
    until: Option<DateTime<Utc>>,
    /// When the cluster was made.
    made: Option<DateTime<Utc>>,
}

impl Kept {
    fn of(cluster: &RdsCluster, snapshots: &[ClusterSnapshot]) -> Self {
        let available = || snapshots.iter().filter(|one| one.is_available());
        Self {
            newest: available().filter_map(|one| one.at).max(),
            automatic: available().filter(|one| one.automatic).filter_map(|one| one.at).max(),
            under_way: snapshots.iter().any(|one| one.status == "creating"),
            until: cluster.restorable_until,
            made: cluster.created_at,
        }
    }

    /// Whether a snapshot should be there that is not.
    fn lacks_one(&self, now: DateTime<Utc>) -> bool {
        let old = |at: Option<DateTime<Utc>>| at.is_none_or(|at| now - at > OLDEST_SNAPSHOT);
        !self.under_way && old(self.newest) && old(self.made)
    }

    fn findings(&self, now: DateTime<Utc>) -> Vec<InvalidField> {
        let mut findings = Vec::new();
        let mut say = |text: String| findings.push(InvalidField::new("backups", text));
        let since = |at: Option<DateTime<Utc>>| match at {
            Some(at) => format!("the newest is of {}", at.format("%Y-%m-%d %H:%M UTC")),
            None => "there is none".to_owned(),
        };
        let young = self.made.is_some_and(|made| now - made <= OLDEST_SNAPSHOT);
        if !young && self.automatic.is_none_or(|at| now - at > OLDEST_SNAPSHOT) {
            say(format!(
                "RDS has made no automatic snapshot in the last day ({}): look at BackupRetentionPeriod and at the cluster's events",
                since(self.automatic)
            ));
        }
        match self.until {
            Some(until) if now - until > FURTHEST_BEHIND => say(format!(
                "the cluster can be restored only to {}: RDS is far behind with its log",
                until.format("%Y-%m-%d %H:%M UTC")
            )),
            _ => {}
        }
        findings
    }

    /// For a preflight.
    pub(crate) fn describe(&self) -> String {
        let at = |at: Option<DateTime<Utc>>| {
            at.map_or_else(|| "none".to_owned(), |at| at.format("%Y-%m-%d %H:%M UTC").to_string())
        };
        format!("newest snapshot: {}; any time until: {}", at(self.newest), at(self.until))
    }
}

impl Cluster {
    /// What RDS keeps of it, and what is wrong with that; none: it is no cluster of RDS.
    pub(crate) async fn kept_by_rds(&self) -> Result<Option<(Kept, Vec<InvalidField>)>, RdsFault> {
        Ok(self.look_at_rds().await?.map(|(kept, _)| {
            let findings = kept.findings(Utc::now());
            (kept, findings)
        }))
    }

    async fn look_at_rds(&self) -> Result<Option<(Kept, Vec<ClusterSnapshot>)>, RdsFault> {
        let Some(work) = self.aurora() else { return Ok(None) };
        let identifier = work.aurora.spec().cluster_identifier.to_ascii_lowercase();
        let Some(cluster) = work.aurora.rds().cluster(&identifier).await? else { return Ok(None) };
        let snapshots = work.aurora.rds().snapshots(&identifier).await?;
        Ok(Some((Kept::of(&cluster, &snapshots), snapshots)))
    }
}

/// Measures what RDS keeps, takes a snapshot where one is lacking and the settings say so, and removes those that were taken here and
/// kept long enough.
pub(super) async fn keep(cluster: &Cluster) -> Result<(), Trouble> {
    let (Some(work), Some((kept, snapshots))) = (cluster.aurora(), cluster.look_at_rds().await?) else { return Ok(()) };
    let now = Utc::now();
    // Where there is none, the cluster's own age: it grows until there is one.
    for (kind, at) in [("snapshot", kept.newest.or(kept.made)), ("log", kept.until.or(kept.made))] {
        cluster.kept_at().extend(at.map(|at| (kind, at)));
    }
    *cluster.kept() = kept.findings(now);
    if !cluster.spec.backups.as_ref().is_some_and(|backups| backups.rds.as_ref().is_some_and(|rds| rds.ensure)) {
        return Ok(());
    }
    let (rds, identifier) = (work.aurora.rds(), work.aurora.spec().cluster_identifier.to_ascii_lowercase());
    if kept.lacks_one(now) {
        // Of the day, so that of two replicas one makes it.
        let name = format!("{TAKEN_PREFIX}{identifier}-{}", now.format("%Y-%m-%d"));
        rds.take_snapshot(&identifier, &name).await?;
        tracing::info!(cluster = cluster.name, name, "RDS has made no snapshot in the last day: asked for one");
    }
    let keep = TimeDelta::from_std(cluster.spec.keep_backups()).unwrap_or(TimeDelta::MAX);
    for old in snapshots.iter().filter(|one| one.is_taken_by_pgtenant() && one.is_available()) {
        // The newest of all stays, however old it is.
        if old.at.is_some_and(|at| now - at > keep) && old.at != kept.newest {
            rds.delete_snapshot(old).await?;
            tracing::info!(
                cluster = cluster.name,
                name = old.identifier,
                "a snapshot was kept long enough and is removed"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hour)
    }

    fn snapshot(hour: i64, automatic: bool) -> ClusterSnapshot {
        ClusterSnapshot { at: Some(at(hour)), automatic, status: "available".to_owned(), ..ClusterSnapshot::default() }
    }

    fn kept(made: i64, snapshots: &[ClusterSnapshot]) -> Kept {
        let cluster =
            RdsCluster { created_at: Some(at(made)), restorable_until: Some(at(100)), ..RdsCluster::default() };
        Kept::of(&cluster, snapshots)
    }

    #[test]
    fn a_snapshot_is_lacking_after_a_day_without_one() {
        assert!(!kept(0, &[snapshot(80, true)]).lacks_one(at(100)));
        assert!(kept(0, &[snapshot(73, true)]).lacks_one(at(100)));
        assert!(kept(0, &[]).lacks_one(at(100)));
        assert!(!kept(90, &[]).lacks_one(at(100)), "the cluster is of today");
        let creating = ClusterSnapshot { status: "creating".to_owned(), ..snapshot(100, false) };
        assert!(!kept(0, &[creating]).lacks_one(at(100)), "it is being made");
    }

    #[test]
    fn what_rds_does_not_make_by_itself_is_told() {
        let told = |kept: &Kept, now| kept.findings(now).into_iter().map(|one| one.message).collect::<Vec<_>>();
        assert!(told(&kept(0, &[snapshot(90, true)]), at(100)).is_empty());
        let manual = told(&kept(0, &[snapshot(90, false)]), at(100));
        assert!(manual.len() == 1 && manual[0].contains("there is none"), "{manual:?}");
        let behind = told(&kept(0, &[snapshot(100, true)]), at(101));
        assert!(behind.len() == 1 && behind[0].contains("far behind"), "{behind:?}");
    }
}
