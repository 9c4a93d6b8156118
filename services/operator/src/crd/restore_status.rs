//! What became of a restore that was asked for: what people and `kubectl wait` look for. All of it is in `pgtenant restore get`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The status of a `PostgresqlRestore`.
#[derive(Debug, Clone, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreResourceStatus {
    /// Requested, Approved, Preparing, Copying, Verifying, Switching, CleaningUp, Succeeded, Failed, Cancelled or Rejected; none:
    /// it could not be asked for yet, and the condition `Complete` says what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// For people: what it does or waits for, or how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Approved`: somebody said yes, or nobody has to. `Complete`: it has succeeded. `Failed`: it is over, and has not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Its name for REST and the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The snapshot that the wish came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// How much is copied, written at each percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<RestoreProgressStatus>,
    /// What was compared, when that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<RestoreReportStatus>,
    /// The database that was put aside: until it is dropped the restore can be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<PutAsideStatus>,
    /// When it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// When it was undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone_at: Option<Time>,
}

/// How much is copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreProgressStatus {
    /// Of bytes, or of tables where bytes are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<i64>,
    /// Bytes of tables that are copied.
    pub bytes: i64,
    /// Of so many, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// Tables that are copied.
    pub tables: i64,
    /// Of so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables_total: Option<i64>,
}

/// What the comparison of the copy with the snapshot came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReportStatus {
    /// Tables, views, functions and all else that has a definition.
    pub objects: i64,
    /// Tables whose rows were counted and whose content was summed up.
    pub tables: i64,
    /// Their rows.
    pub rows: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Sequences.
    pub sequences: i64,
    /// Large objects.
    pub large_objects: i64,
    /// Logins that were tried.
    pub logins: i64,
    /// How much differs, which stops a restore before anything is switched.
    pub differences: i64,
    /// How much could not be brought back.
    pub left_out: i64,
    /// The first of both, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// A database that was put aside.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PutAsideStatus {
    /// Its name now.
    pub database: String,
    /// It is dropped then.
    pub until: Time,
}
