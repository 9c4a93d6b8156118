//! The happy ways, on moto.

use pgtenant_secrets::Removal;
use secrecy::ExposeSecret as _;

use super::*;
use crate::{targets, tiers};

/// Names of one's own on a moto that others use as well.
async fn place(settings: Value) -> (AwsSecrets, String) {
    let prefix = unique("moto");
    let mut settings = settings;
    settings["name"] = json!(format!("{prefix}/{{namespace}}/{{role}}"));
    (store_with(pgtenant_testkit::moto().await.url(), settings), prefix)
}

#[tokio::test]
async fn a_credential_is_written_read_changed_removed_and_taken_back() {
    let (store, prefix) = place(json!({})).await;
    store.reach().await.unwrap();
    let entries = tiers("ns", "db", "one");
    assert_eq!(store.location(&entries[0].0), format!("{prefix}/ns/ns-db-read"));
    assert!(matches!(read(&store, &entries[0].0).await, Held::Missing));
    store.put_many(&entries).await.unwrap();
    for (target, credential) in &entries {
        let Held::Credential(there) = read(&store, target).await else { panic!("no credential") };
        assert!(pgtenant_secrets::same(&there, credential));
        assert!(is_unread(&store, &(target.clone(), credential.clone())).await);
    }
    let other =
        store_with(pgtenant_testkit::moto().await.url(), json!({"name": format!("{prefix}/{{namespace}}/{{role}}")}));
    assert!(is_unread(&other, &entries[1]).await, "from a listing");
    let changed = tiers("ns", "db", "two");
    other.put_many(&changed).await.unwrap();
    assert!(!is_unread(&other, &entries[1]).await);
    // And back: the version is there already.
    other.put_many(&entries).await.unwrap();
    let Held::Credential(there) = read(&other, &entries[1].0).await else { panic!("no credential") };
    assert_eq!(there.password.expose_secret(), "one");

    store.delete_many(&targets(&entries), Removal::Usual).await.unwrap();
    store.delete_many(&targets(&entries), Removal::Usual).await.unwrap();
    assert!(matches!(read(&store, &entries[0].0).await, Held::Missing));
    store.put_many(&changed).await.unwrap();
    let Held::Credential(there) = read(&store, &entries[0].0).await else { panic!("no credential") };
    assert_eq!(there.password.expose_secret(), "two");
    store.delete_many(&targets(&entries), Removal::Final).await.unwrap();
    assert!(matches!(read(&store, &entries[0].0).await, Held::Missing));
}

#[tokio::test]
async fn settings_are_taken() {
    let all = json!({"kmsKeyId": "alias/pgtenant", "replicaRegions": ["eu-west-2"],
        "readers": ["arn:aws:iam::210987654321:role/reader"], "tags": {"team": "a"}});
    let (store, _) = place(all).await;
    let entry = entry("one");
    put(&store, &entry).await.unwrap();
    assert!(is_unread(&store, &entry).await);
    let Held::Credential(there) = read(&store, &entry.0).await else { panic!("not as it should be") };
    assert_eq!(there.password.expose_secret(), "one");
    store.delete_many(std::slice::from_ref(&entry.0), Removal::Usual).await.unwrap();
    assert!(matches!(read(&store, &entry.0).await, Held::Missing));
}
