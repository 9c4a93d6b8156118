//! `PostgresqlDatabase`, version v1: a claim.

use kube::{CustomResource, KubeSchema};
use pgtenant_model::{ClaimSpec, Mode};
use serde::{Deserialize, Serialize};

use super::rules;
use super::status::DatabaseStatus;

/// A database with roles and credentials on a shared cluster.
#[derive(Debug, Clone, PartialEq, Eq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[kube(
    group = "pgtenant.io",
    version = "v1",
    kind = "PostgresqlDatabase",
    plural = "postgresqldatabases",
    singular = "postgresqldatabase",
    shortname = "pgdb",
    category = "pgtenant",
    namespaced,
    status = "DatabaseStatus",
    derive = "PartialEq",
    doc = "A database on a shared PostgreSQL cluster, with a read, a write and an admin role, whose credentials are in Secrets beside it.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", description = "What removing this object does: standard drops the database, protected keeps it"),
    printcolumn(name = "Database", type_ = "string", json_path = ".status.database", description = "The database's name on the cluster"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "Pending, Provisioning, Ready, Degraded, Failed, Deleting or Retained"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint.host", description = "Where to connect", priority = 1),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster", description = "The shared cluster", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why it is, or is not, Ready", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = rules::label(),
    validation = rules::length(),
    validation = rules::cluster_stays()
)]
pub struct PostgresqlDatabaseSpec {
    /// What removing this object does. `standard` drops the database, its roles and its stored credentials; `protected`
    /// keeps all of them.
    #[serde(default)]
    pub mode: Mode,
    /// The PostgresqlCluster that holds the database. Can not be changed once the database is there.
    #[serde(default = "default_cluster")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub cluster: String,
    /// Schemas beside `public` that get the same grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63), regex(pattern = "^[a-z_][a-z0-9_]*$")))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::schemas())]
    pub schemas: Vec<String>,
    /// Extensions; the cluster's allow-list decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9_-]+$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub extensions: Vec<String>,
    /// Connections that each role may have at once; none: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub connection_limit: Option<i32>,
    /// The Slack channel that hears what becomes of it, as `#orders` or by its id; it must be linked to the namespace. None:
    /// every channel that is linked to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 81), regex(pattern = r"^#?[^\s#,;]{1,80}$"))]
    pub slack_channel: Option<String>,
}

pub(crate) fn default_cluster() -> String {
    ClaimSpec::default().cluster
}

impl From<&PostgresqlDatabaseSpec> for ClaimSpec {
    fn from(spec: &PostgresqlDatabaseSpec) -> Self {
        let PostgresqlDatabaseSpec { mode, cluster, schemas, extensions, connection_limit, slack_channel } =
            spec.clone();
        Self { mode, cluster, schemas, extensions, connection_limit, slack_channel }
    }
}
