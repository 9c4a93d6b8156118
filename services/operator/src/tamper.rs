//! Whether somebody else has changed what we wrote, told from `metadata.managedFields` alone: Secrets are watched without
//! their data.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

/// Who writes Secrets, as the store `kubernetes` does.
const WRITER: &str = "pgtenant";
/// Keys that every Secret has.
const KEYS: [&str; 7] = ["username", "password", "endpoint", "port", "database", "sslmode", "uri"];

/// With this reloaders find it.
const RELOADER: &str = "reloader.stakater.com/match";
const TIER: &str = "pgtenant.io/tier";

/// Whether one of our keys is missing, or belongs to somebody else, or a label or the annotation is not there. Keys that were
/// added are nobody's business.
pub(crate) fn tampered(metadata: &ObjectMeta) -> bool {
    let marked = metadata.annotations.as_ref().is_some_and(|all| all.contains_key(RELOADER))
        && metadata.labels.as_ref().is_some_and(|all| all.contains_key(TIER));
    if !marked {
        return true;
    }
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    let has = |entry: &ManagedFieldsEntry, key: &str| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0["f:data"].get(format!("f:{key}")).is_some())
    };
    let ours = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(WRITER);
    let missing = |key: &str| !entries.iter().filter(ours).any(|entry| has(entry, key));
    let taken = |key: &str| entries.iter().filter(|entry| !ours(entry)).any(|entry| has(entry, key));
    KEYS.iter().any(|key| missing(key) || taken(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
    use serde_json::json;

    fn entry(manager: &str, keys: &[&str]) -> ManagedFieldsEntry {
        let data: serde_json::Map<_, _> = keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect();
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            fields_v1: Some(FieldsV1(json!({"f:data": data, "f:metadata": {}}))),
            ..ManagedFieldsEntry::default()
        }
    }

    fn secret(entries: Vec<ManagedFieldsEntry>) -> ObjectMeta {
        let mark = |key: &str, value: &str| Some([(key.to_owned(), value.to_owned())].into());
        let (labels, annotations) = (mark(TIER, "read"), mark(RELOADER, "true"));
        ObjectMeta { managed_fields: Some(entries), labels, annotations, ..ObjectMeta::default() }
    }

    #[test]
    fn a_mark_that_is_missing_is_seen() {
        let whole = secret(vec![entry(WRITER, &KEYS)]);
        assert!(tampered(&ObjectMeta { labels: None, ..whole.clone() }));
        assert!(tampered(&ObjectMeta { annotations: None, ..whole }));
    }

    #[test]
    fn another_hand_is_told_from_ours() {
        assert!(!tampered(&secret(vec![entry(WRITER, &KEYS)])));
        assert!(!tampered(&secret(vec![entry(WRITER, &KEYS), entry("kubectl", &["theirs"])])), "a key of their own");
        assert!(tampered(&secret(vec![entry(WRITER, &KEYS[1..])])), "one was removed");
        assert!(tampered(&secret(vec![entry(WRITER, &KEYS[1..]), entry("kubectl", &["username"])])), "one was changed");
        assert!(tampered(&ObjectMeta::default()), "nobody knows who wrote it");
    }
}
