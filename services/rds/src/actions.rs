//! What pgtenant must be allowed to do at RDS.

use pgtenant_model::AuroraTopology;

const ALWAYS: &[&str] = &[
    "rds:DescribeDBClusterParameters",
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
