//! What pgtenant must be allowed to do at RDS.

use pgtenant_model::AuroraTopology;

use crate::snapshot::TAKEN_PREFIX;

const ALWAYS: &[&str] = &[
    "rds:DescribeDBClusterParameters",
    "rds:DescribeDBClusterSnapshots",
    "rds:DescribeDBClusters",
    "rds:DescribeDBInstances",
    "rds:DescribePendingMaintenanceActions",
];
const CREATE: &[&str] = &[
    "rds:AddTagsToResource",
    "rds:CreateDBCluster",
    "rds:CreateDBClusterParameterGroup",
    "rds:CreateDBInstance",
    "rds:DescribeDBEngineVersions",
    "rds:ModifyDBCluster",
    "rds:ModifyDBClusterParameterGroup",
];
const COPY: &str = "cluster:pgtenant-restore-*";
const COPY_INSTANCE: &str = "db:pgtenant-restore-*";
const PROXY: &[&str] = &["rds:DescribeDBProxies", "rds:ModifyDBProxy"];

/// The permissions at RDS that a topology needs, sorted. What RDS does itself when it makes a cluster (network interfaces, the
/// key, the master secret) is not among them; `docs/aurora.md` has it.
#[must_use]
pub fn actions(topology: &AuroraTopology) -> Vec<&'static str> {
    let mut actions = ALWAYS.to_vec();
    if topology.create.is_some() {
        actions.extend(CREATE);
    }
    if topology.proxy.is_some() {
        actions.extend(PROXY);
    }
    actions.sort_unstable();
    actions
}

/// Permissions that are for some things alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// For the statement.
    pub name: &'static str,
    /// Sorted.
    pub actions: Vec<&'static str>,
    /// Ends of ARNs: kind and name, as `cluster:pgtenant-restore-*`.
    pub resources: Vec<String>,
}

/// The permissions for the copies that restores make, and with `takes_snapshots` for snapshots of pgtenant's own. What can be changed
/// and deleted is what pgtenant has made, by its name. Which kinds of things a call is about:
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonrds.html>.
#[must_use]
pub fn permissions(topology: &AuroraTopology, takes_snapshots: bool) -> Vec<Permission> {
    let cluster = format!("cluster:{}", topology.cluster_identifier.to_ascii_lowercase());
    let permission = |name, actions: &[&'static str], resources: &[&str]| Permission {
        name,
        actions: actions.to_vec(),
        resources: resources.iter().map(|one| (*one).to_owned()).collect(),
    };
    let mut all = vec![
        permission(
            "RdsRestore",
            &["rds:RestoreDBClusterFromSnapshot", "rds:RestoreDBClusterToPointInTime"],
            &[COPY, &cluster, "cluster-snapshot:*", "cluster-pg:*", "og:*", "subgrp:*"],
        ),
        permission("RdsCopyInstance", &["rds:CreateDBInstance"], &[COPY, COPY_INSTANCE, "og:*", "pg:*", "subgrp:*"]),
        permission(
            "RdsCopy",
            &["rds:AddTagsToResource", "rds:DeleteDBCluster", "rds:DeleteDBInstance", "rds:ModifyDBCluster"],
            &[COPY, COPY_INSTANCE],
        ),
    ];
    if takes_snapshots {
        all.push(permission(
            "RdsSnapshot",
            &["rds:AddTagsToResource", "rds:CreateDBClusterSnapshot", "rds:DeleteDBClusterSnapshot"],
            &[&cluster, &format!("cluster-snapshot:{TAKEN_PREFIX}*")],
        ));
    }
    all
}
