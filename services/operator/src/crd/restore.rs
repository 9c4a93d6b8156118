//! `PostgresqlRestore`: a request to bring a database back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::restore_status::RestoreResourceStatus;

/// A request to bring a database of this namespace back from a snapshot.
#[derive(Debug, Clone, PartialEq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[kube(
    group = "pgtenant.io",
    version = "v1",
    kind = "PostgresqlRestore",
    plural = "postgresqlrestores",
    singular = "postgresqlrestore",
    shortname = "pgrestore",
    category = "pgtenant",
    namespaced,
    status = "RestoreResourceStatus",
    derive = "PartialEq",
    doc = "A request to bring a database of this namespace back from a snapshot.",
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.database"),
    printcolumn(name = "Strategy", type_ = "string", json_path = ".spec.strategy"),
    printcolumn(
        name = "Snapshot",
        type_ = "string",
        json_path = ".status.snapshot",
        description = "The snapshot that the wish came to"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Requested waits for a yes; empty: it could not be asked for yet"
    ),
    printcolumn(
        name = "Percent",
        type_ = "integer",
        json_path = ".status.progress.percent",
        description = "How much is copied",
        priority = 1
    ),
    printcolumn(
        name = "Id",
        type_ = "string",
        json_path = ".status.id",
        description = "For pgtenant restore approve, get, cancel and undo",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Complete\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self == oldSelf").message("a restore can not be changed; ask for another one"),
    validation = Rule::new("(self.strategy == 'copy') == has(self.copyName)").message("copyName goes with strategy copy, and only with it")
)]
#[expect(clippy::duplicated_attributes, reason = "columns are of the same type")]
pub struct PostgresqlRestoreSpec {
    /// The name of the PostgresqlDatabase in this namespace.
    #[schemars(length(min = 1, max = 53), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub database: String,
    /// What it comes back from: exactly one.
    pub from: RestoreSource,
    /// How it comes back.
    #[serde(default)]
    pub strategy: RestoreStrategy,
    /// The name of the new database; with strategy `copy` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 53), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub copy_name: Option<String>,
    /// Why, for whoever approves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub reason: Option<String>,
}

/// What a database comes back from.
#[derive(Debug, Clone, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.snapshot), has(self.time), has(self.latest) && self.latest].filter(x, x).size() == 1")
    .message("name exactly one of snapshot, time and latest: true"))]
pub struct RestoreSource {
    /// A snapshot's name, as `rds:shared-2026-11-20-02-14`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 266), regex(pattern = "^(dump|rds|pgbackrest):[A-Za-z0-9_:][A-Za-z0-9._:-]*$"))]
    pub snapshot: Option<String>,
    /// A point in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// The newest that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<bool>,
}

/// How a database comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestoreStrategy {
    /// Loaded beside the live one, verified, then exchanged by renaming.
    #[default]
    Swap,
    /// A clean restore in place.
    Replace,
    /// A new database.
    Copy,
    /// Loaded beside the live one, verified, and dropped.
    Test,
}
