//! How a cluster is to be, and what differs.

use std::fmt;

use chrono::{DateTime, Utc};
use pgtenant_model::{AuroraCreate, AuroraTopology, Drift, Environment};

use crate::cluster::{Capacity, Cluster, Parameters};
use crate::window::{MAINTENANCE, backup_window};

/// Tag that says who made a cluster.
pub(crate) const MANAGED_BY: (&str, &str) = ("managed-by", "pgtenant");
/// Tag that says that a cluster was made with all its instances: one that is missing later was removed by somebody.
pub(crate) const COMPLETE: &str = "pgtenant.io/complete";

const LOG: &str = "postgresql";

/// A cluster as its description has it, at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its identifier.
    pub identifier: String,
    /// As described.
    pub create: AuroraCreate,
    /// What it is for.
    pub environment: Environment,
    /// Days for which snapshots and the log are kept.
    pub backup_retention: i32,
    /// In UTC, as `00:00-02:00`; it moves when the clocks do.
    pub backup_window: String,
}

/// Days for which RDS keeps snapshots of a cluster.
#[must_use]
pub fn backup_retention(environment: Environment) -> i32 {
    match environment {
        Environment::Production | Environment::Staging => 35,
        Environment::Test | Environment::Dev => 7,
    }
}

impl Wanted {
    /// None: pgtenant is not to make the cluster.
    #[must_use]
    pub fn new(topology: &AuroraTopology, environment: Environment, now: DateTime<Utc>) -> Option<Self> {
        let create = topology.create.clone()?;
        Some(Self {
            identifier: topology.cluster_identifier.to_ascii_lowercase(),
            create,
            environment,
            backup_retention: backup_retention(environment),
            backup_window: backup_window(now),
        })
    }

    /// Name of the parameter group that is made for the cluster.
    #[must_use]
    pub fn parameter_group(&self) -> String {
        format!("pgtenant-{}", self.identifier)
    }

    /// Identifiers of the instances: the first is the writer to begin with.
    #[must_use]
    pub fn instances(&self) -> Vec<String> {
        (1..=self.create.instances).map(|number| format!("{}-{number}", self.identifier)).collect()
    }

    pub(crate) fn capacity(&self) -> Capacity {
        Capacity { min: self.create.min_acu.into(), max: self.create.max_acu.into() }
    }

    pub(crate) fn log_exports() -> Vec<String> {
        vec![LOG.to_owned()]
    }

    pub(crate) fn maintenance_window() -> &'static str {
        MAINTENANCE
    }

    pub(crate) fn environment_name(&self) -> &'static str {
        match self.environment {
            Environment::Production => "production",
            Environment::Staging => "staging",
            Environment::Test => "test",
            Environment::Dev => "dev",
        }
    }

    fn security_groups(&self) -> Vec<String> {
        let mut groups = self.create.security_group_ids.clone();
        groups.sort();
        groups.dedup();
        groups
    }

    /// What of `found` is not as wanted, and how a person mends it. What the description leaves open is not compared.
    #[must_use]
    pub fn drift(&self, found: &Cluster, parameters: Option<&Parameters>) -> Vec<Drift> {
        let mut list = Differences::default();
        self.of_capacity(found, &mut list);
        self.of_backups(found, &mut list);
        self.of_network(found, &mut list);
        self.of_security(found, parameters, &mut list);
        list.0
    }

    fn of_capacity(&self, found: &Cluster, list: &mut Differences) {
        let wanted = self.capacity();
        let bounds = |capacity: &Capacity| format!("{} to {} ACU", capacity.min, capacity.max);
        let call = format!(
            "ModifyDBCluster ServerlessV2ScalingConfiguration={{MinCapacity={},MaxCapacity={}}}",
            wanted.min, wanted.max
        );
        let is = found.capacity.as_ref().map_or_else(|| "not Serverless v2".to_owned(), bounds);
        list.compare("minAcu and maxAcu", bounds(&wanted), is, call);
        let count = usize::from(self.create.instances);
        let call = if found.members.len() < count {
            format!("CreateDBInstance for each that is missing, with DBInstanceClass={}", crate::make::CLASS)
        } else {
            "DeleteDBInstance for each that is too many, none of them the writer".to_owned()
        };
        list.compare("instances", count, found.members.len(), call);
        if let Some(version) = &self.create.engine_version {
            // `16` stands for any minor version of it.
            let is = found.engine_version.clone().unwrap_or_default();
            let same = is == *version || is.strip_prefix(version.as_str()).is_some_and(|rest| rest.starts_with('.'));
            let is = if same { version.clone() } else { is };
            list.compare("engineVersion", version, is, format!("ModifyDBCluster EngineVersion={version}"));
        }
    }

    fn of_backups(&self, found: &Cluster, list: &mut Differences) {
        let days = self.backup_retention;
        let is = found.backup_retention.map_or_else(|| "nothing".to_owned(), |days| days.to_string());
        list.compare("backup retention in days", days, is, format!("ModifyDBCluster BackupRetentionPeriod={days}"));
        let window = &self.backup_window;
        let is = found.backup_window.clone().unwrap_or_default();
        list.compare("backup window", window, is, format!("ModifyDBCluster PreferredBackupWindow={window}"));
        let on = "ModifyDBCluster CopyTagsToSnapshot=true";
        list.compare("tags on snapshots", true, found.copies_tags, on.to_owned());
        let on = "ModifyDBCluster DeletionProtection=true";
        list.compare("deletion protection", true, found.deletion_protection, on.to_owned());
        let missing = !found.log_exports.iter().any(|log| log == LOG);
        let call = format!("ModifyDBCluster CloudwatchLogsExportConfiguration={{EnableLogTypes=[{LOG}]}}");
        list.compare("log exports", LOG, if missing { "none of it" } else { LOG }, call);
    }

    fn of_network(&self, found: &Cluster, list: &mut Differences) {
        const ANEW: &str = "a new cluster: RDS can not change it";
        if let Some(group) = &self.create.subnet_group {
            // RDS keeps names of subnet groups in lower case.
            let group = group.to_ascii_lowercase();
            list.compare("subnetGroup", &group, found.subnet_group.clone().unwrap_or_default(), ANEW.to_owned());
        }
        let groups = self.security_groups();
        if !groups.is_empty() {
            let call = format!("ModifyDBCluster VpcSecurityGroupIds=[{}]", groups.join(","));
            list.compare("securityGroupIds", groups.join(", "), found.security_groups.join(", "), call);
        }
    }

    fn of_security(&self, found: &Cluster, parameters: Option<&Parameters>, list: &mut Differences) {
        const SNAPSHOT: &str = "a snapshot that is restored as a new cluster: RDS can not change it";
        list.compare("encryption", true, found.encrypted, SNAPSHOT.to_owned());
        if let Some(key) = &self.create.kms_key_id {
            let is = found.kms_key.clone().unwrap_or_default();
            // A key is told by its id or its ARN, and described by its ARN; which key an alias means, RDS does not say.
            let same = key.starts_with("alias/") || key.contains(":alias/") || is == *key;
            let is = if same || is.ends_with(&format!("/{key}")) { key.clone() } else { is };
            list.compare("kmsKeyId", key, is, SNAPSHOT.to_owned());
        }
        let on = "ModifyDBCluster EnableIAMDatabaseAuthentication=true";
        list.compare("IAM authentication", true, found.iam_authentication, on.to_owned());
        let master = found.master_secret.is_some();
        list.compare(
            "master login kept by RDS",
            true,
            master,
            "ModifyDBCluster ManageMasterUserPassword=true".to_owned(),
        );
        let group = self.parameter_group();
        // Another major version needs a group of another family, so of another name.
        let of_later_version = |name: &String| name.starts_with(&format!("{group}-"));
        let is = found.parameter_group.clone().unwrap_or_default();
        let is = if of_later_version(&is) { group.clone() } else { is };
        let call = format!("ModifyDBCluster DBClusterParameterGroupName={group}");
        list.compare("parameter group", &group, is, call);
        if let Some(force) = parameters.and_then(|known| known.force_ssl) {
            let call = format!("ModifyDBClusterParameterGroup of {group}: rds.force_ssl=1");
            list.compare("rds.force_ssl", true, force, call);
        }
    }
}

#[derive(Default)]
struct Differences(Vec<Drift>);

impl Differences {
    fn compare<W: fmt::Display, F: fmt::Display>(&mut self, setting: &str, wanted: W, found: F, mend: String) {
        let (wanted, found) = (wanted.to_string(), found.to_string());
        if wanted != found {
            self.0.push(Drift { setting: setting.to_owned(), wanted, found, mend });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::cluster::{ClusterMember, MasterSecret};

    fn wanted() -> Wanted {
        let topology = serde_json::json!({
            "region": "eu-west-1", "clusterIdentifier": "Shared", "create": {
                "minAcu": 0.5, "maxAcu": 16, "engineVersion": "16", "subnetGroup": "Private",
                "securityGroupIds": ["sg-22222222", "sg-11111111"], "kmsKeyId": "0000-1111",
            },
        });
        let now = DateTime::from_timestamp(1_780_000_000, 0).unwrap();
        Wanted::new(&serde_json::from_value(topology).unwrap(), Environment::Production, now).unwrap()
    }

    fn as_wanted() -> (Cluster, Parameters) {
        let member = |number: u32| ClusterMember { instance: format!("shared-{number}"), writer: number == 1 };
        let cluster = Cluster {
            engine_version: Some("16.6".to_owned()),
            members: vec![member(1), member(2)],
            capacity: Some(Capacity { min: 0.5, max: 16.0 }),
            master_secret: Some(MasterSecret { arn: "arn".to_owned(), status: "active".to_owned() }),
            deletion_protection: true,
            parameter_group: Some("pgtenant-shared".to_owned()),
            subnet_group: Some("private".to_owned()),
            security_groups: vec!["sg-11111111".to_owned(), "sg-22222222".to_owned()],
            backup_window: Some(wanted().backup_window),
            backup_retention: Some(35),
            log_exports: vec!["instance".to_owned(), "postgresql".to_owned()],
            encrypted: true,
            kms_key: Some("arn:aws:kms:eu-west-1:1:key/0000-1111".to_owned()),
            iam_authentication: true,
            copies_tags: true,
            ..Cluster::default()
        };
        (cluster, Parameters { force_ssl: Some(true) })
    }

    type Break = (&'static str, fn(&mut Cluster, &mut Parameters));

    const BREAKS: [Break; 15] = [
        ("minAcu and maxAcu", |c, _| c.capacity = None),
        ("instances", |c, _| c.members.truncate(1)),
        ("engineVersion", |c, _| c.engine_version = Some("160.1".to_owned())),
        ("backup retention in days", |c, _| c.backup_retention = Some(1)),
        ("backup window", |c, _| c.backup_window = None),
        ("tags on snapshots", |c, _| c.copies_tags = false),
        ("deletion protection", |c, _| c.deletion_protection = false),
        ("log exports", |c, _| c.log_exports.clear()),
        ("subnetGroup", |c, _| c.subnet_group = Some("default".to_owned())),
        ("securityGroupIds", |c, _| c.security_groups.truncate(1)),
        ("encryption", |c, _| c.encrypted = false),
        ("kmsKeyId", |c, _| c.kms_key = Some("arn:aws:kms:eu-west-1:1:key/2222".to_owned())),
        ("IAM authentication", |c, _| c.iam_authentication = false),
        ("parameter group", |c, _| c.parameter_group = Some("default.aurora-postgresql16".to_owned())),
        ("rds.force_ssl", |_, p| p.force_ssl = Some(false)),
    ];

    #[test]
    fn another_major_version_has_another_group() {
        let (mut cluster, parameters) = as_wanted();
        cluster.parameter_group = Some("pgtenant-shared-17".to_owned());
        assert_eq!(wanted().drift(&cluster, Some(&parameters)), []);
    }

    proptest! {
        /// What differs is named, and nothing else is.
        #[test]
        fn drift_is_what_was_changed(broken in proptest::collection::btree_set(0..BREAKS.len(), 0..BREAKS.len())) {
            let (mut cluster, mut parameters) = as_wanted();
            broken.iter().for_each(|index| (BREAKS[*index].1)(&mut cluster, &mut parameters));
            let expected: BTreeSet<&str> = broken.iter().map(|index| BREAKS[*index].0).collect();
            let drift = wanted().drift(&cluster, Some(&parameters));
            prop_assert_eq!(drift.iter().map(|one| one.setting.as_str()).collect::<BTreeSet<_>>(), expected);
            prop_assert!(drift.iter().all(|one| one.wanted != one.found && !one.mend.is_empty()));
        }
    }
}
