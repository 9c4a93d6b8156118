//! A copy of a cluster, for one restore: made from a snapshot or at a point in time, read, and deleted.
//!
//! Its name follows from the restore's id, so whoever does a step again, after a kill or beside another replica, finds what was made.

use std::fmt;

use aws_sdk_rds::primitives::DateTime as AwsTime;
use aws_sdk_rds::types::{ServerlessV2ScalingConfiguration, Tag};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use crate::client::Rds;
use crate::cluster::{Capacity, Cluster};
use crate::fault::RdsFault;
use crate::make::CLASS;

/// Tag that names the restore a copy was made for.
pub const RESTORE_TAG: &str = "pgtenant:restore";
/// Tag that names the cluster a copy is of, as RDS has it.
const CLUSTER_TAG: &str = "pgtenant:cluster";
/// With what every copy's name begins: IAM lets pgtenant delete nothing else.
const PREFIX: &str = "pgtenant-restore-";
const ENGINE: &str = "aurora-postgresql";
/// A page has 100 clusters; more than this an account does not have without a quota of its own.
const MOST_PAGES: usize = 50;

/// The name of a copy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyName(String);

impl CopyName {
    /// Of the copy that restore `id` makes: `pgtenant-restore-` and the last 12 digits of the id, which are random where the first
    /// are the time.
    #[must_use]
    pub fn of(id: Uuid) -> Self {
        let id = id.simple().to_string();
        Self(format!("{PREFIX}{}", &id[20..]))
    }

    /// As RDS has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The copy's only instance.
    #[must_use]
    pub fn instance(&self) -> String {
        format!("{}-1", self.0)
    }
}

impl fmt::Display for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a copy shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A snapshot's identifier, and the version of the server that made it.
    Snapshot(String, Option<String>),
    /// The cluster as it was then.
    Time(DateTime<Utc>),
}

/// A copy as it is to be.
#[derive(Debug, Clone)]
pub struct Copy<'a> {
    /// Its name.
    pub name: CopyName,
    /// The restore.
    pub restore: Uuid,
    /// What it is a copy of: network, key and parameters are the same.
    pub of: &'a Cluster,
    /// What it shows.
    pub origin: Origin,
    /// Who may reach it; empty: who may reach the cluster.
    pub security_groups: Vec<String>,
    /// The most it may take.
    pub max_acu: f64,
}

/// How far a copy is.
#[derive(Debug, Clone, PartialEq)]
pub enum CopyState {
    /// There is none.
    Missing,
    /// The cluster is there and takes an instance.
    WithoutInstance,
    /// RDS is at work: what RDS calls it.
    Busy(String),
    /// It takes connections.
    Ready(Box<Cluster>),
    /// It will not become ready, or is not of this restore.
    Broken(String),
}

/// What became of a copy that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, or RDS deletes it by now.
    Done,
    /// RDS is at work on it, and does not take the call: what RDS calls it.
    Busy(String),
}

/// Statuses of clusters and instances from which nothing comes back by itself:
/// <https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/accessing-monitoring.html>.
const LOST: [&str; 14] = [
    "cloning-failed",
    "deleting",
    "failed",
    "inaccessible-encryption-credentials",
    "incompatible-network",
    "incompatible-option-group",
    "incompatible-parameters",
    "incompatible-restore",
    "insufficient-capacity",
    "migration-failed",
    "restore-error",
    "stopped",
    "stopping",
    "storage-full",
];

impl Rds {
    /// How far the copy `name` of restore `id` is. `rds:DescribeDBClusters`, `rds:DescribeDBInstances`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn copy_state(&self, name: &CopyName, id: Uuid) -> Result<CopyState, RdsFault> {
        let Some(cluster) = self.cluster(name.as_str()).await? else { return Ok(CopyState::Missing) };
        if !is_copy_of(&cluster, id) {
            return Ok(CopyState::Broken(format!("the cluster {name} is there and was not made for this restore")));
        }
        if LOST.contains(&cluster.status.as_str()) {
            return Ok(CopyState::Broken(format!("RDS calls the cluster {name} {:?}", cluster.status)));
        }
        if cluster.status != "available" {
            return Ok(CopyState::Busy(cluster.status));
        }
        let instances = self.instances(name.as_str()).await?;
        Ok(match instances.first().map(|one| one.status.as_str()) {
            None => CopyState::WithoutInstance,
            Some("available") if cluster.endpoint.is_some() => CopyState::Ready(Box::new(cluster)),
            Some(status) if LOST.contains(&status) => {
                CopyState::Broken(format!("RDS calls the instance of {name} {status:?}"))
            }
            Some(status) => CopyState::Busy(format!("{status} (instance)")),
        })
    }

    /// Begins to make the copy's cluster; nothing happens where it is there. `rds:RestoreDBClusterFromSnapshot` or
    /// `rds:RestoreDBClusterToPointInTime`, `rds:AddTagsToResource`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn make_copy(&self, copy: &Copy<'_>) -> Result<(), RdsFault> {
        match &copy.origin {
            Origin::Snapshot(snapshot, version) => self.of_snapshot(copy, snapshot, version.as_deref()).await,
            Origin::Time(at) => self.at_time(copy, *at).await,
        }
    }

    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_RestoreDBClusterFromSnapshot.html>: without a key, what is made
    /// of an encrypted snapshot has the snapshot's.
    async fn of_snapshot(&self, copy: &Copy<'_>, snapshot: &str, version: Option<&str>) -> Result<(), RdsFault> {
        let of = copy.of;
        // A group of parameters is of one major version; the snapshot may be older than an upgrade.
        let same_major = version.is_none_or(|version| version.split('.').next() == of.major_text());
        let request = self.client().await.restore_db_cluster_from_snapshot();
        let request = request
            .db_cluster_identifier(copy.name.as_str())
            .snapshot_identifier(snapshot)
            .engine(ENGINE)
            .set_engine_version(version.map(ToOwned::to_owned))
            .set_db_subnet_group_name(of.subnet_group.clone())
            .set_vpc_security_group_ids(Some(copy.groups()).filter(|groups| !groups.is_empty()))
            .set_db_cluster_parameter_group_name(of.parameter_group.clone().filter(|_| same_major))
            .set_kms_key_id(of.kms_key.clone().filter(|_| of.encrypted))
            .serverless_v2_scaling_configuration(copy.scaling())
            .deletion_protection(false)
            .copy_tags_to_snapshot(false)
            .enable_iam_database_authentication(false)
            .set_tags(Some(copy.tags()));
        made_or_there(request.send().await.map_err(|error| RdsFault::new("RestoreDBClusterFromSnapshot", &error)))
    }

    /// <https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_RestoreDBClusterToPointInTime.html>.
    async fn at_time(&self, copy: &Copy<'_>, at: DateTime<Utc>) -> Result<(), RdsFault> {
        let of = copy.of;
        let request = self.client().await.restore_db_cluster_to_point_in_time();
        let request = request
            .db_cluster_identifier(copy.name.as_str())
            .source_db_cluster_identifier(&of.identifier)
            .restore_to_time(AwsTime::from_millis(at.timestamp_millis()))
            .set_db_subnet_group_name(of.subnet_group.clone())
            .set_vpc_security_group_ids(Some(copy.groups()).filter(|groups| !groups.is_empty()))
            .set_db_cluster_parameter_group_name(of.parameter_group.clone())
            .set_kms_key_id(of.kms_key.clone().filter(|_| of.encrypted))
            .serverless_v2_scaling_configuration(copy.scaling())
            .deletion_protection(false)
            .copy_tags_to_snapshot(false)
            .enable_iam_database_authentication(false)
            .set_tags(Some(copy.tags()));
        made_or_there(request.send().await.map_err(|error| RdsFault::new("RestoreDBClusterToPointInTime", &error)))
    }

    /// Begins to make the copy's instance, which no public address leads to. `rds:CreateDBInstance`, `rds:AddTagsToResource`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn make_copy_instance(&self, copy: &Copy<'_>) -> Result<(), RdsFault> {
        let request = self.client().await.create_db_instance();
        let request = request
            .db_cluster_identifier(copy.name.as_str())
            .db_instance_identifier(copy.name.instance())
            .db_instance_class(CLASS)
            .engine(ENGINE)
            .publicly_accessible(false)
            .set_tags(Some(copy.tags()));
        made_or_there(request.send().await.map_err(|error| RdsFault::new("CreateDBInstance", &error)))
    }

    /// Gives the copy's master login a password of its own; RDS is at work for some seconds then. `rds:ModifyDBCluster`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn set_copy_password(&self, name: &CopyName, password: &SecretString) -> Result<(), RdsFault> {
        let request = self.client().await.modify_db_cluster().db_cluster_identifier(name.as_str());
        let request = request.master_user_password(password.expose_secret()).apply_immediately(true);
        request.send().await.map(drop).map_err(|error| RdsFault::new("ModifyDBCluster", &error))
    }

    /// All copies of the cluster `of` that there are. `rds:DescribeDBClusters`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn copies(&self, of: &str) -> Result<Vec<Cluster>, RdsFault> {
        let (mut found, mut marker) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let asked = self.client().await.describe_db_clusters().set_marker(marker.take()).send().await;
            let answer = asked.map_err(|error| RdsFault::new("DescribeDBClusters", &error))?;
            found.extend(answer.db_clusters().iter().map(Cluster::from));
            marker = answer.marker().filter(|marker| !marker.is_empty()).map(ToOwned::to_owned);
            if marker.is_none() {
                break;
            }
        }
        found.retain(|one| one.restore().is_some() && one.tags.get(CLUSTER_TAG).is_some_and(|tag| tag == of));
        Ok(found)
    }

    /// Deletes the copy `name` of restore `id`, without a last snapshot: its instance first, without which the cluster can be deleted
    /// (<https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_DeleteDBCluster.html>). A cluster of that name that was not made for
    /// the restore is left alone. `rds:DescribeDBClusters`, `rds:DescribeDBInstances`, `rds:DeleteDBInstance`, `rds:DeleteDBCluster`.
    ///
    /// # Errors
    /// RDS refused or did not answer.
    pub async fn remove_copy(&self, name: &CopyName, id: Uuid) -> Result<Removal, RdsFault> {
        let Some(cluster) = self.cluster(name.as_str()).await?.filter(|one| is_copy_of(one, id)) else {
            return Ok(Removal::Done);
        };
        for instance in self.instances(name.as_str()).await?.iter().filter(|one| one.status != "deleting") {
            let request = self.client().await.delete_db_instance().db_instance_identifier(&instance.identifier);
            let asked = request.skip_final_snapshot(true).send().await;
            match asked.map_err(|error| RdsFault::new("DeleteDBInstance", &error)) {
                Err(fault) if fault.is("InvalidDBInstanceState") => {
                    return Ok(Removal::Busy(format!("{} (instance)", instance.status)));
                }
                Err(fault) if !fault.is("DBInstanceNotFound") => return Err(fault),
                _ => {}
            }
        }
        if cluster.status == "deleting" {
            return Ok(Removal::Done);
        }
        let request = self.client().await.delete_db_cluster().db_cluster_identifier(name.as_str());
        let asked = request.skip_final_snapshot(true).send().await;
        match asked.map_err(|error| RdsFault::new("DeleteDBCluster", &error)) {
            Err(fault) if fault.is("InvalidDBClusterStateFault") => Ok(Removal::Busy(cluster.status)),
            Err(fault) if !fault.is("DBClusterNotFoundFault") => Err(fault),
            _ => Ok(Removal::Done),
        }
    }
}

impl Cluster {
    /// The restore that it was made for; none: it is no copy.
    #[must_use]
    pub fn restore(&self) -> Option<Uuid> {
        let id = self.tags.get(RESTORE_TAG)?.parse().ok()?;
        (self.identifier == CopyName::of(id).0).then_some(id)
    }

    fn major_text(&self) -> Option<&str> {
        self.engine_version.as_ref()?.split('.').next()
    }
}

impl Copy<'_> {
    fn groups(&self) -> Vec<String> {
        if self.security_groups.is_empty() { self.of.security_groups.clone() } else { self.security_groups.clone() }
    }

    fn scaling(&self) -> ServerlessV2ScalingConfiguration {
        // The least that does not pause: a copy is worked on from its first to its last moment.
        let capacity = Capacity { min: 0.5, max: self.max_acu };
        ServerlessV2ScalingConfiguration::builder().min_capacity(capacity.min).max_capacity(capacity.max).build()
    }

    fn tags(&self) -> Vec<Tag> {
        let pairs = [(RESTORE_TAG, self.restore.to_string()), (CLUSTER_TAG, self.of.identifier.clone())];
        pairs.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
    }
}

fn is_copy_of(cluster: &Cluster, id: Uuid) -> bool {
    cluster.restore() == Some(id)
}

/// Another replica may have been first.
fn made_or_there<T>(result: Result<T, RdsFault>) -> Result<(), RdsFault> {
    match result {
        Err(fault) if !fault.is("DBClusterAlreadyExistsFault") && !fault.is("DBInstanceAlreadyExists") => Err(fault),
        _ => Ok(()),
    }
}
