//! `PostgresqlDatabase`, version v1beta1: as chart 0.5.0 renders it.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::database::default_cluster;
use super::rules;
use super::status::DatabaseStatus;

/// A database with roles and credentials on a shared cluster.
#[derive(Debug, Clone, PartialEq, Eq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[kube(
    group = "pgtenant.io",
    version = "v1beta1",
    kind = "PostgresqlDatabase",
    plural = "postgresqldatabases",
    singular = "postgresqldatabase",
    shortname = "pgdb",
    category = "pgtenant",
    namespaced,
    status = "DatabaseStatus",
    derive = "PartialEq",
    deprecated = "pgtenant.io/v1beta1 PostgresqlDatabase is deprecated; use pgtenant.io/v1, with mode in place of deletionProtection",
    doc = "A database on a shared PostgreSQL cluster. Use version v1.",
    printcolumn(name = "Protected", type_ = "boolean", json_path = ".spec.deletionProtection"),
    printcolumn(name = "Database", type_ = "string", json_path = ".status.database"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = rules::label(),
    validation = rules::length(),
    validation = rules::cluster_stays()
)]
pub struct PostgresqlDatabaseSpec {
    /// Whether removing this object keeps the database, its roles and its stored credentials.
    #[serde(default)]
    pub deletion_protection: bool,
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
