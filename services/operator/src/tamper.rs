//! Whether somebody else has changed what we wrote, told from `metadata.managedFields` alone: Secrets are watched without
//! their data.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// Who writes Secrets, as the store `kubernetes` does.
const WRITER: &str = "pgtenant";
/// Keys that every Secret has.
const KEYS: [&str; 7] = ["username", "password", "endpoint", "port", "database", "sslmode", "uri"];

/// Whether one of our keys is missing, or belongs to somebody else. Keys that were added are nobody's business.
pub(crate) fn tampered(metadata: &ObjectMeta) -> bool {
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    let data = |entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        entry.fields_v1.as_ref().map_or(Value::Null, |fields| fields.0["f:data"].clone())
    };
    let has = |entry, key: &str| data(entry).get(format!("f:{key}")).is_some();
    let ours = |entry: &&_| entry_is_ours(entry);
    let missing = |key: &&str| !entries.iter().filter(ours).any(|entry| has(entry, key));
    let taken = |key: &&str| entries.iter().filter(|entry| !ours(entry)).any(|entry| has(entry, key));
    KEYS.iter().any(|key| missing(&key) || taken(&key))
}

fn entry_is_ours(entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(WRITER)
}
