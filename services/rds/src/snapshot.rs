//! Snapshots of a cluster: those that RDS makes by itself, and those that somebody has asked for.

use std::collections::BTreeMap;

use aws_sdk_rds::types::{self, Tag};
use chrono::{DateTime, Utc};

use crate::client::Rds;
use crate::cluster::{tags, text, time};
use crate::fault::RdsFault;
use crate::wanted::MANAGED_BY;

/// With what the name of every snapshot begins that pgtenant takes: IAM lets it delete no other.
pub const TAKEN_PREFIX: &str = "pgtenant-snapshot-";
/// A cluster has 35 automatic ones at most and an account 100 manual ones, unless its quota was raised; a page has 100.
const MOST_PAGES: usize = 50;

/// What `DescribeDBClusterSnapshots` says of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterSnapshot {
    /// As RDS spells it: `rds:shared-2026-11-20-02-14` for an automatic one.
    pub identifier: String,
    /// As `available`, `creating`.
    pub status: String,
    /// Whether RDS has made it by itself.
    pub automatic: bool,
    /// The instant that it shows.
    pub at: Option<DateTime<Utc>>,
    /// As `16.6`.
    pub engine_version: Option<String>,
    /// GiB of the cluster's volume; none: RDS does not say, as for Aurora it may not.
    pub gibibytes: Option<u32>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl ClusterSnapshot {
    /// Whether a cluster can be made of it.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.status == "available"
    }

    /// Whether pgtenant has taken it.
    #[must_use]
    pub fn is_taken_by_pgtenant(&self) -> bool {
        self.identifier.starts_with(TAKEN_PREFIX) && self.tags.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1)
    }
}

impl From<&types::DbClusterSnapshot> for ClusterSnapshot {
    fn from(said: &types::DbClusterSnapshot) -> Self {
        Self {
            identifier: text(said.db_cluster_snapshot_identifier()),
            status: text(said.status()),
            automatic: said.snapshot_type() == Some("automated"),
            at: said.snapshot_create_time().and_then(time),
            engine_version: said.engine_version.clone(),
            // Aurora says 0 or 1, since its volume grows by itself.
            gibibytes: said.allocated_storage().and_then(|size| u32::try_from(size).ok()).filter(|size| *size > 1),
            tags: tags(said.tag_list()),
        }
    }
}

impl Rds {
    /// All snapshots of a cluster, whoever made them. `rds:DescribeDBClusterSnapshots`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn snapshots(&self, cluster: &str) -> Result<Vec<ClusterSnapshot>, RdsFault> {
        let (mut found, mut marker) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let request = self.client().await.describe_db_cluster_snapshots().db_cluster_identifier(cluster);
            let asked = request.set_marker(marker.take()).send().await;
            let answer = asked.map_err(|error| RdsFault::new("DescribeDBClusterSnapshots", &error));
            let answer = match answer {
                Err(fault) if fault.is("DBClusterNotFoundFault") => return Ok(found),
                answer => answer?,
            };
            found.extend(answer.db_cluster_snapshots().iter().map(ClusterSnapshot::from));
            marker = answer.marker().filter(|marker| !marker.is_empty()).map(ToOwned::to_owned);
            if marker.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// Asks for a snapshot; one of that name that is there already is left. `rds:CreateDBClusterSnapshot`, `rds:AddTagsToResource`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn take_snapshot(&self, cluster: &str, name: &str) -> Result<(), RdsFault> {
        let tag = Tag::builder().key(MANAGED_BY.0).value(MANAGED_BY.1).build();
        let request = self.client().await.create_db_cluster_snapshot().db_cluster_identifier(cluster);
        let asked = request.db_cluster_snapshot_identifier(name).tags(tag).send().await;
        match asked.map_err(|error| RdsFault::new("CreateDBClusterSnapshot", &error)) {
            Err(fault) if !fault.is("DBClusterSnapshotAlreadyExistsFault") => Err(fault),
            _ => Ok(()),
        }
    }

    /// Deletes a snapshot that pgtenant has taken. `rds:DeleteDBClusterSnapshot`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn delete_snapshot(&self, snapshot: &ClusterSnapshot) -> Result<(), RdsFault> {
        if !snapshot.is_taken_by_pgtenant() {
            return Ok(());
        }
        let request = self.client().await.delete_db_cluster_snapshot();
        let asked = request.db_cluster_snapshot_identifier(&snapshot.identifier).send().await;
        match asked.map_err(|error| RdsFault::new("DeleteDBClusterSnapshot", &error)) {
            Err(fault) if !fault.is("DBClusterSnapshotNotFoundFault") => Err(fault),
            _ => Ok(()),
        }
    }
}
