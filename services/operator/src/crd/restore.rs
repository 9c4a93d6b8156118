//! `PostgresqlRestore`: a request to bring a database back. Only its shape so far: no controller answers it yet.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
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
}

/// What a database comes back from.
#[derive(Debug, Clone, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.snapshot), has(self.time), has(self.latest) && self.latest].filter(x, x).size() == 1")
    .message("name exactly one of snapshot, time and latest: true"))]
pub struct RestoreSource {
    /// A snapshot's name, as `rds:shared-2026-11-20-02-14`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
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
}

/// How far a restore has come.
#[derive(Debug, Clone, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreResourceStatus {
    /// Requested, Approved, Preparing, Copying, Verifying, Switching, CleaningUp, Succeeded, Failed, Cancelled or Rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Complete`, and one for each step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
