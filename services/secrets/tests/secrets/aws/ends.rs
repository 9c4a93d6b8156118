//! What is in a secret after it was written, changed by others, removed: as AWS really holds it.

use std::time::Duration;

use pgtenant_secrets::Removal;
use pgtenant_testkit::Trouble;
use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn a_secret_is_what_tenants_know() {
    let (fake, store) = begun().await;
    let entry = entry("one");
    put(&store, &entry).await.unwrap();
    let calls: Vec<String> = fake.calls().into_iter().map(|call| call.operation).collect();
    assert_eq!(calls, ["CreateSecret", "DescribeSecret"]);
    let secret = fake.secret(NAME).unwrap();
    let document: Value = serde_json::from_str(secret.text().unwrap()).unwrap();
    for (key, value) in [("username", "ns-db-read"), ("password", "one"), ("endpoint", "db1.example"), ("port", "5433")]
    {
        assert_eq!(document[key], value);
    }
    for key in ["database", "sslmode", "uri", "ca.crt"] {
        assert!(document[key].is_string(), "{key}");
    }
    for (key, value) in tags("db") {
        assert_eq!(secret.tags.get(&key), Some(&value));
    }
    assert_eq!(secret.current(), Some(id(&entry.1).to_string().as_str()));
    assert_eq!((secret.kms_key, secret.policy, secret.copies.len()), (None, None, 0));
}

#[tokio::test]
async fn the_same_again_makes_no_second_version() {
    let (fake, store) = begun().await;
    let entry = entry("one");
    for _ in 0..3 {
        put(&store, &entry).await.unwrap();
        put(&super::store(&fake), &entry).await.unwrap();
    }
    assert_eq!(fake.secret(NAME).unwrap().versions.len(), 1);
    assert_eq!(fake.count("PutSecretValue"), 0);
}

#[tokio::test]
async fn a_value_of_before_is_made_current_again() {
    let (fake, store) = begun().await;
    let wanted = entry("one");
    let current = || fake.secret(NAME).unwrap().current().unwrap().to_owned();
    put(&store, &wanted).await.unwrap();
    let right = current();
    // Somebody else puts another one there, and then two more, after which ours has no stage left and is not shown.
    for theirs in [&["a"][..], &["b", "c"]] {
        for id in theirs {
            fake.change(NAME, |secret| secret.put(&id.repeat(32), "theirs"));
        }
        assert!(matches!(read(&store, &wanted.0).await, Held::Broken(_)));
        put(&store, &wanted).await.unwrap();
        assert_eq!(current(), right);
        let Held::Credential(there) = read(&store, &wanted.0).await else { panic!("no credential") };
        assert_eq!(there.password.expose_secret(), "one");
    }
    // A rotation and back.
    put(&store, &entry("two")).await.unwrap();
    assert_ne!(current(), right);
    put(&store, &wanted).await.unwrap();
    assert_eq!(current(), right);
}

#[tokio::test]
async fn the_same_content_in_another_version_is_put_right() {
    let (fake, store) = begun().await;
    let entry = entry("one");
    put(&store, &entry).await.unwrap();
    fake.change(NAME, |secret| {
        let text = secret.text().unwrap().to_owned();
        secret.put(&"e".repeat(32), &text);
    });
    let Held::Blemished(there) = read(&store, &entry.0).await else { panic!("it would be read at every look") };
    assert_eq!(there.password.expose_secret(), "one");
    put(&store, &entry).await.unwrap();
    assert!(is_unread(&store, &entry).await);
}

#[tokio::test]
async fn a_name_that_is_scheduled_for_deletion_is_restored_and_used_again() {
    let (fake, store) = begun().await;
    let first = entry("one");
    put(&store, &first).await.unwrap();
    store.delete_many(std::slice::from_ref(&first.0), Removal::Usual).await.unwrap();
    assert_eq!(fake.secret(NAME).unwrap().recovery_window_days, Some(7));
    assert!(matches!(read(&store, &first.0).await, Held::Missing));
    assert!(!is_unread(&store, &first).await);

    // By a process that knows nothing of it, and to which AWS does not show at once that it is restored.
    let refusal = "You can't perform this operation on the secret because it was marked for deletion.";
    fake.order("PutSecretValue", Trouble::Refuse("InvalidRequestException", refusal.to_owned()), 2);
    let second = entry("two");
    put(&super::store(&fake), &second).await.unwrap();
    assert!(fake.orders_are_done());
    let secret = fake.secret(NAME).unwrap();
    assert_eq!((secret.recovery_window_days, secret.current()), (None, Some(id(&second.1).to_string().as_str())));
    // By the one that has removed it.
    store.delete_many(std::slice::from_ref(&first.0), Removal::Usual).await.unwrap();
    put(&store, &first).await.unwrap();
    assert!(is_unread(&store, &first).await);
}

#[tokio::test]
async fn removing_for_good_leaves_nothing_and_no_window() {
    let fake = FakeSecretsManager::start().await;
    let store = store_with(fake.url(), json!({"recoveryWindowDays": 30, "replicaRegions": ["eu-west-2", "eu-west-3"]}));
    let entry = entry("one");
    let target = std::slice::from_ref(&entry.0);
    put(&store, &entry).await.unwrap();
    store.delete_many(target, Removal::Usual).await.unwrap();
    let secret = fake.secret(NAME).unwrap();
    assert_eq!((secret.recovery_window_days, secret.copies.len()), (Some(30), 0));
    store.delete_many(target, Removal::Final).await.unwrap();
    assert!(fake.secret(NAME).is_none());
    put(&store, &entry).await.unwrap();
    assert_eq!(fake.secret(NAME).unwrap().copies.len(), 2);
    store.delete_many(target, Removal::Final).await.unwrap();
    assert!(fake.secret(NAME).is_none());
}

#[tokio::test]
async fn what_is_not_ours_is_neither_read_nor_written_nor_deleted() {
    let entry = entry("ours");
    for what in ["without tags", "of another", "scheduled"] {
        let (fake, store) = begun().await;
        fake.change(NAME, |secret| {
            secret.put(&"a".repeat(32), "theirs");
            secret.tags.insert("team".to_owned(), "theirs".to_owned());
            match what {
                "of another" => secret.tags.extend(tags("other")),
                "scheduled" => secret.recovery_window_days = Some(7),
                _ => {}
            }
        });
        let before = fake.secret(NAME);
        let errors = [put(&store, &entry).await.unwrap_err(), store.get(&entry.0, None).await.unwrap_err()];
        let expected = store.get(&entry.0, Some(id(&entry.1))).await.unwrap_err();
        for error in errors.into_iter().chain([expected]) {
            assert!(matches!(error.fault, Fault::Foreign(_)), "{what}: {error:?}");
            for part in [NAME, "managed-by=pgtenant", "claim=db", "give it another name"] {
                assert!(error.explain().contains(part), "{what}: {}", error.explain());
            }
        }
        for removal in [Removal::Usual, Removal::Final] {
            store.delete_many(std::slice::from_ref(&entry.0), removal).await.unwrap();
        }
        assert_eq!(fake.secret(NAME), before, "{what}");
        assert_eq!(fake.count("GetSecretValue"), 0, "{what}");
    }
}

#[tokio::test]
async fn values_that_are_no_credential_are_said_without_quoting_them() {
    let (fake, store) = begun().await;
    let entry = entry("ours");
    put(&store, &entry).await.unwrap();
    let long = "hunter2".repeat(10_000);
    for (number, text) in ["hunter2", "{\"password\": \"hunter2\"}", "", &long].into_iter().enumerate() {
        fake.change(NAME, |secret| secret.put(&format!("{number:032}"), text));
        let Held::Broken(why) = read(&store, &entry.0).await else { panic!("{text:?} is a credential") };
        assert!(!why.contains("hunter2"), "{why}");
    }
    put(&store, &entry).await.unwrap();
    assert!(matches!(read(&store, &entry.0).await, Held::Credential(_)));
    let all = format!("{store:?} {entry:?} {:?}", fake.secret(NAME));
    assert!(!all.contains("ours\""), "{all}");
}

/// Kills a write at each of its calls, before and after that took effect, and goes on as another process.
#[tokio::test]
async fn a_write_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let settings = json!({"kmsKeyId": "alias/new", "replicaRegions": ["eu-west-2"],
        "readers": ["arn:aws:iam::210987654321:role/reader"], "tags": {"team": "a"}});
    // One that is scheduled for deletion and has older settings takes every call that there is.
    let calls = [
        "CreateSecret",
        "DescribeSecret",
        "RestoreSecret",
        "PutSecretValue",
        "UpdateSecret",
        "ReplicateSecretToRegions",
        "PutResourcePolicy",
        "TagResource",
    ];
    for operation in calls {
        for trouble in [Trouble::Ignore, Trouble::LoseAnswer] {
            let fake = FakeSecretsManager::start().await;
            let old = store_with(fake.url(), json!({}));
            let (first, second) = (entry("one"), entry("two"));
            put(&old, &first).await.unwrap();
            old.delete_many(std::slice::from_ref(&first.0), Removal::Usual).await.unwrap();

            fake.order(operation, trouble.clone(), 1);
            let cut_off = store_with(fake.url(), settings.clone());
            tokio::select! {
                written = put(&cut_off, &second) => panic!("{operation} was not called: {written:?}"),
                () = fake.hung(1) => {}
            }
            let next = store_with(fake.url(), settings.clone());
            timeout(Duration::from_secs(20), put(&next, &second)).await.unwrap().unwrap();
            let secret = fake.secret(NAME).unwrap();
            assert_eq!(secret.current(), Some(id(&second.1).to_string().as_str()), "{operation} {trouble:?}");
            assert_eq!((secret.recovery_window_days, secret.versions.len()), (None, 2), "{operation} {trouble:?}");
            assert_eq!(secret.kms_key.as_deref(), Some("alias/new"));
            assert!(
                secret.copies.contains_key("eu-west-2") && secret.policy.is_some() && secret.tags.contains_key("team")
            );
            assert!(is_unread(&next, &second).await, "{operation} {trouble:?}");
        }
    }
}
