//! Whether somebody else has changed what we wrote, told from `metadata` alone: Secrets are watched without their data.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use pgtenant_model::{CA_KEY, CREDENTIAL_KEYS, CredentialTarget, POOL_KEYS, READ_KEYS, RELOADER, STORE_MANAGER};

/// Whether one of our keys is missing or belongs to somebody else, or a label or the annotation is not as we wrote it. Keys that
/// were added are nobody's business. That the authority's key or one of those for reading or of the pooler was removed can not be seen, since not every
/// Secret has them: the periodic look finds that.
pub(crate) fn tampered(metadata: &ObjectMeta, target: &CredentialTarget) -> bool {
    let label = |key: &str| metadata.labels.as_ref().and_then(|all| all.get(key));
    let labelled = target.labels().iter().all(|(key, value)| label(key).is_some_and(|found| found == value));
    let reloaded = metadata.annotations.as_ref().is_some_and(|all| all.contains_key(RELOADER));
    if !labelled || !reloaded {
        return true;
    }
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    let has = |entry: &ManagedFieldsEntry, key: &str| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0["f:data"].get(format!("f:{key}")).is_some())
    };
    let ours = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(STORE_MANAGER);
    let missing = |key: &str| !entries.iter().filter(ours).any(|entry| has(entry, key));
    let taken = |key: &str| entries.iter().filter(|entry| !ours(entry)).any(|entry| has(entry, key));
    let some_have = || READ_KEYS.into_iter().chain(POOL_KEYS).chain([CA_KEY]);
    CREDENTIAL_KEYS.iter().any(|key| missing(key) || taken(key)) || some_have().any(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
    use serde_json::json;

    fn target() -> CredentialTarget {
        CredentialTarget::of_role("shop", "shop-orders-read").unwrap()
    }

    fn entry(manager: &str, keys: &[&str]) -> ManagedFieldsEntry {
        let data: serde_json::Map<_, _> = keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect();
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            fields_v1: Some(FieldsV1(json!({"f:data": data, "f:metadata": {}}))),
            ..ManagedFieldsEntry::default()
        }
    }

    fn secret(entries: Vec<ManagedFieldsEntry>) -> ObjectMeta {
        let labels = target().labels().map(|(key, value)| (key.to_owned(), value.to_owned()));
        ObjectMeta {
            managed_fields: Some(entries),
            labels: Some(labels.into()),
            annotations: Some([(RELOADER.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        }
    }

    fn is_tampered(entries: Vec<ManagedFieldsEntry>) -> bool {
        tampered(&secret(entries), &target())
    }

    #[test]
    fn a_mark_that_is_missing_or_another_one_is_seen() {
        let whole = secret(vec![entry(STORE_MANAGER, &CREDENTIAL_KEYS)]);
        assert!(!tampered(&whole, &target()));
        assert!(tampered(&ObjectMeta { labels: None, ..whole.clone() }, &target()));
        assert!(tampered(&ObjectMeta { annotations: None, ..whole.clone() }, &target()));
        for (key, _) in target().labels() {
            let mut changed = whole.clone();
            changed.labels.as_mut().unwrap().insert(key.to_owned(), "other".to_owned());
            assert!(tampered(&changed, &target()), "{key}");
        }
    }

    #[test]
    fn another_hand_is_told_from_ours() {
        let ours = |keys: &[&str]| entry(STORE_MANAGER, keys);
        assert!(!is_tampered(vec![ours(&CREDENTIAL_KEYS)]));
        assert!(!is_tampered(vec![ours(&CREDENTIAL_KEYS), entry("kubectl", &["theirs"])]), "a key of their own");
        assert!(is_tampered(vec![ours(&CREDENTIAL_KEYS[1..])]), "one was removed");
        assert!(is_tampered(vec![ours(&CREDENTIAL_KEYS[1..]), entry("kubectl", &["username"])]), "one was changed");
        assert!(is_tampered(vec![ours(&CREDENTIAL_KEYS), entry("kubectl", &[CA_KEY])]), "the authority was changed");
        for (key, what) in [("readUri", "tenants would read elsewhere"), ("poolUri", "tenants would log in elsewhere")]
        {
            assert!(is_tampered(vec![ours(&CREDENTIAL_KEYS), entry("kubectl", &[key])]), "{what}");
        }
        assert!(is_tampered(Vec::new()), "nobody knows who wrote it");
    }
}
