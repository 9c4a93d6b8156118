//! An Aurora cluster as RDS describes it.

use std::collections::BTreeMap;

use aws_sdk_rds::types;
use chrono::{DateTime, Utc};

use crate::wanted::MANAGED_BY;

/// What `DescribeDBClusters` says of one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cluster {
    /// As RDS spells it: lower case.
    pub identifier: String,
    /// Tells it from another one that had its name before, as `cluster-ABCDEFGHIJKL`.
    pub resource_id: Option<String>,
    /// Its ARN.
    pub arn: Option<String>,
    /// As `available`, `creating`, `failing-over`.
    pub status: String,
    /// When it was made.
    pub created_at: Option<DateTime<Utc>>,
    /// Host of the cluster endpoint: it leads to the writer.
    pub endpoint: Option<String>,
    /// Host of the reader endpoint: it leads to the readers, or to the writer where there are none.
    pub reader_endpoint: Option<String>,
    /// Port of both.
    pub port: Option<u16>,
    /// As `16.6`.
    pub engine_version: Option<String>,
    /// Its instances.
    pub members: Vec<ClusterMember>,
    /// None: no Serverless v2.
    pub capacity: Option<Capacity>,
    /// The master login.
    pub master_username: Option<String>,
    /// The first instant that it can be restored to.
    pub restorable_from: Option<DateTime<Utc>>,
    /// The last instant that it can be restored to: some minutes ago.
    pub restorable_until: Option<DateTime<Utc>>,
    /// The secret that RDS keeps for the master login.
    pub master_secret: Option<MasterSecret>,
    /// Whether it can not be deleted before this is switched off.
    pub deletion_protection: bool,
    /// Name of its parameter group.
    pub parameter_group: Option<String>,
    /// Name of its subnet group.
    pub subnet_group: Option<String>,
    /// Identifiers of its security groups, sorted.
    pub security_groups: Vec<String>,
    /// In UTC, as `00:00-02:00`.
    pub backup_window: Option<String>,
    /// In UTC, as `sun:03:30-sun:04:30`.
    pub maintenance_window: Option<String>,
    /// Days for which snapshots and the log are kept.
    pub backup_retention: Option<i32>,
    /// Logs that go to CloudWatch, sorted.
    pub log_exports: Vec<String>,
    /// Whether the storage is encrypted.
    pub encrypted: bool,
    /// ARN of the key.
    pub kms_key: Option<String>,
    /// Whether IAM can log in.
    pub iam_authentication: bool,
    /// Whether snapshots get its tags.
    pub copies_tags: bool,
    /// Whether minor versions are installed without being asked for.
    pub upgrades_itself: bool,
    /// Changes that RDS has accepted and not made yet, as `EngineVersion 16.8`.
    pub pending: Vec<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// An instance of a cluster, as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMember {
    /// The instance's identifier.
    pub instance: String,
    /// Whether it takes writes.
    pub writer: bool,
}

/// Bounds of Serverless v2, in Aurora capacity units.
#[derive(Debug, Clone, PartialEq)]
pub struct Capacity {
    /// At least; 0: it pauses when nobody is connected.
    pub min: f64,
    /// At most.
    pub max: f64,
}

/// Where RDS keeps the master login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterSecret {
    /// Its ARN in Secrets Manager.
    pub arn: String,
    /// As `active`, `creating`, `rotating`, `impaired`.
    pub status: String,
}

/// What `DescribeDBInstances` says of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance {
    /// Its identifier.
    pub identifier: String,
    /// As `available`, `creating`, `rebooting`.
    pub status: String,
    /// As `db.serverless`.
    pub class: String,
    /// Its own host and port.
    pub endpoint: Option<(String, u16)>,
    /// Name of the authority of its certificate, as `rds-ca-rsa2048-g1`.
    pub ca: Option<String>,
    /// Until when its certificate is valid.
    pub certificate_until: Option<DateTime<Utc>>,
}

/// Settings of a parameter group that matter to pgtenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// `rds.force_ssl`; none: RDS does not say.
    pub force_ssl: Option<bool>,
}

/// Work of RDS on a cluster that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    /// As `db-upgrade`, `system-update`.
    pub action: String,
    /// What RDS says of it.
    pub description: String,
    /// When it is done, if that is settled.
    pub applies_at: Option<DateTime<Utc>>,
}

impl Cluster {
    /// The instance that takes writes.
    #[must_use]
    pub fn writer(&self) -> Option<&str> {
        self.members.iter().find(|member| member.writer).map(|member| member.instance.as_str())
    }

    /// Whether it has an instance that only reads.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.members.iter().any(|member| !member.writer)
    }

    /// Whether pgtenant has made it.
    #[must_use]
    pub fn is_made_by_pgtenant(&self) -> bool {
        self.tags.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1)
    }

    /// Whether it pauses when nobody is connected.
    #[must_use]
    pub fn can_pause(&self) -> bool {
        self.capacity.as_ref().is_some_and(|capacity| capacity.min == 0.0)
    }

    /// The major version, as 16.
    #[must_use]
    pub fn major(&self) -> Option<u32> {
        self.engine_version.as_ref()?.split('.').next()?.parse().ok()
    }
}

impl From<&types::DbCluster> for Cluster {
    fn from(said: &types::DbCluster) -> Self {
        let capacity = said.serverless_v2_scaling_configuration();
        let master = said.master_user_secret();
        let mut security_groups: Vec<String> = said
            .vpc_security_groups()
            .iter()
            .filter_map(|group| group.vpc_security_group_id().map(ToOwned::to_owned))
            .collect();
        security_groups.sort();
        let mut log_exports = said.enabled_cloudwatch_logs_exports().to_vec();
        log_exports.sort();
        Self {
            identifier: text(said.db_cluster_identifier()),
            resource_id: said.db_cluster_resource_id.clone(),
            arn: said.db_cluster_arn.clone(),
            status: text(said.status()),
            created_at: said.cluster_create_time().and_then(time),
            endpoint: said.endpoint.clone().filter(|host| !host.is_empty()),
            reader_endpoint: said.reader_endpoint.clone().filter(|host| !host.is_empty()),
            port: said.port().and_then(|port| u16::try_from(port).ok()),
            engine_version: said.engine_version.clone(),
            members: said.db_cluster_members().iter().map(ClusterMember::from).collect(),
            capacity: capacity.and_then(|c| Some(Capacity { min: c.min_capacity()?, max: c.max_capacity()? })),
            master_username: said.master_username.clone(),
            restorable_from: said.earliest_restorable_time().and_then(time),
            restorable_until: said.latest_restorable_time().and_then(time),
            master_secret: master.and_then(|secret| {
                Some(MasterSecret { arn: secret.secret_arn()?.to_owned(), status: text(secret.secret_status()) })
            }),
            deletion_protection: said.deletion_protection().unwrap_or_default(),
            parameter_group: said.db_cluster_parameter_group.clone(),
            subnet_group: said.db_subnet_group.clone(),
            security_groups,
            backup_window: said.preferred_backup_window.clone(),
            maintenance_window: said.preferred_maintenance_window.clone(),
            backup_retention: said.backup_retention_period(),
            log_exports,
            encrypted: said.storage_encrypted().unwrap_or_default(),
            kms_key: said.kms_key_id.clone(),
            iam_authentication: said.iam_database_authentication_enabled().unwrap_or_default(),
            copies_tags: said.copy_tags_to_snapshot().unwrap_or_default(),
            upgrades_itself: said.auto_minor_version_upgrade().unwrap_or_default(),
            pending: said.pending_modified_values().map(pending).unwrap_or_default(),
            tags: tags(said.tag_list()),
        }
    }
}

impl From<&types::DbClusterMember> for ClusterMember {
    fn from(said: &types::DbClusterMember) -> Self {
        Self { instance: text(said.db_instance_identifier()), writer: said.is_cluster_writer().unwrap_or_default() }
    }
}

impl From<&types::DbInstance> for Instance {
    fn from(said: &types::DbInstance) -> Self {
        let endpoint = said.endpoint();
        Self {
            identifier: text(said.db_instance_identifier()),
            status: text(said.db_instance_status()),
            class: text(said.db_instance_class()),
            endpoint: endpoint.and_then(|at| Some((at.address()?.to_owned(), u16::try_from(at.port()?).ok()?))),
            ca: said.ca_certificate_identifier.clone(),
            certificate_until: said.certificate_details().and_then(|known| known.valid_till()).and_then(time),
        }
    }
}

impl From<&types::PendingMaintenanceAction> for Maintenance {
    fn from(said: &types::PendingMaintenanceAction) -> Self {
        Self {
            action: text(said.action()),
            description: text(said.description()),
            applies_at: said.current_apply_date().and_then(time),
        }
    }
}

fn pending(said: &types::ClusterPendingModifiedValues) -> Vec<String> {
    let version = said.engine_version().map(|version| format!("EngineVersion {version}"));
    let retention = said.backup_retention_period().map(|days| format!("BackupRetentionPeriod {days}"));
    let iam = said.iam_database_authentication_enabled().map(|on| format!("IAMDatabaseAuthenticationEnabled {on}"));
    let storage = said.storage_type().map(|kind| format!("StorageType {kind}"));
    [version, retention, iam, storage].into_iter().flatten().collect()
}

/// Tags by their keys.
pub(crate) fn tags(said: &[types::Tag]) -> BTreeMap<String, String> {
    let tag = |tag: &types::Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    said.iter().filter_map(tag).collect()
}

pub(crate) fn text(said: Option<&str>) -> String {
    said.unwrap_or_default().to_owned()
}

pub(crate) fn time(said: &aws_sdk_rds::primitives::DateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(said.secs(), said.subsec_nanos())
}
