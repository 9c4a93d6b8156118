//! What became of a claim: small, since every change of it goes to everyone who watches.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The status of a `PostgresqlDatabase`, the same in every version.
#[derive(Debug, Clone, Default, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// In one word: Pending, Provisioning, Ready, Degraded, Failed, Deleting or Retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and one for each part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The database's name on the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Where to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointStatus>,
    /// The roles, and where their credentials are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<RolesStatus>,
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// For reading and writing.
    pub host: String,
    /// Port of `host`.
    pub port: i32,
    /// For reading only, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_host: Option<String>,
    /// Port of `readHost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_port: Option<i32>,
}

/// The three roles.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct RolesStatus {
    /// SELECT.
    pub read: RoleResourceStatus,
    /// Changes rows.
    pub write: RoleResourceStatus,
    /// Owns.
    pub admin: RoleResourceStatus,
}

/// A role, and where its credential is; never what it is.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleResourceStatus {
    /// The role that owns and is granted.
    pub role: String,
    /// The login that the stored credential names.
    pub login: String,
    /// The Secret in this namespace that holds the credential, where the cluster writes Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// When the password was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_at: Option<Time>,
    /// Other places that hold the credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StoreStatus>,
}

/// A place that holds a credential.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct StoreStatus {
    /// The kind of store.
    pub store: String,
    /// The credential's name in it.
    pub location: String,
}
