//! Settings that are not in the value.

use super::*;

const READER: &str = "arn:aws:iam::210987654321:role/reader";

#[tokio::test]
async fn settings_that_change_are_brought_into_effect() {
    let fake = FakeSecretsManager::start().await;
    let entry = entry("one");
    let rounds = [
        json!({"tags": {"team": "a", "cost": "1"}}),
        json!({"kmsKeyId": "alias/one", "replicaRegions": ["eu-west-2", "eu-west-3"], "readers": [READER], "tags": {"team": "b"}}),
        json!({"kmsKeyId": "alias/two", "replicaRegions": ["eu-west-3"], "readers": [READER]}),
        json!({}),
    ];
    for round in rounds {
        let store = store_with(fake.url(), round.clone());
        if fake.secret(NAME).is_some() {
            // It is seen in a listing, and the password is not replaced for it.
            fake.change(NAME, |secret| {
                secret.tags.insert("somebody".to_owned(), "else".to_owned());
            });
            let held = store.get(&entry.0, Some(id(&entry.1))).await.unwrap();
            assert!(matches!(held, Held::Blemished(_)), "{round}: {held:?}");
        }
        put(&store, &entry).await.unwrap();
        let secret = fake.secret(NAME).unwrap();
        let key = round["kmsKeyId"].as_str();
        assert!(secret.kms_key.as_deref() == key || secret.kms_key.as_deref() == Some("alias/aws/secretsmanager"));
        let regions: Vec<&str> =
            round["replicaRegions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(secret.copies.keys().map(String::as_str).collect::<Vec<_>>(), regions, "{round}");
        let readers = secret.policy.as_ref().map(|policy| policy["Statement"][0]["Principal"]["AWS"].clone());
        assert_eq!(readers.unwrap_or(Value::Null), round["readers"], "{round}");
        for key in ["team", "cost"] {
            assert_eq!(secret.tags.get(key).map(String::as_str), round["tags"][key].as_str(), "{round}: {key}");
        }
        assert_eq!(secret.versions.len(), 1);
        assert!(is_unread(&store_with(fake.url(), round.clone()), &entry).await, "{round}");
        if round != json!({"tags": {"team": "a", "cost": "1"}}) {
            assert_eq!(secret.tags["somebody"], "else", "tags of others stay");
        }
    }
}

#[tokio::test]
async fn a_policy_lets_readers_read_and_nobody_else() {
    let fake = FakeSecretsManager::start().await;
    put(&store_with(fake.url(), json!({ "readers": [READER] })), &entry("one")).await.unwrap();
    let policy = fake.secret(NAME).unwrap().policy.unwrap();
    let statement = &policy["Statement"][0];
    assert_eq!(statement["Principal"], json!({ "AWS": [READER] }));
    assert_eq!(statement["Action"], json!(["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]));
    assert_eq!(policy["Statement"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_copy_that_failed_is_said_and_made_again() {
    let fake = FakeSecretsManager::start().await;
    let (entry, settings) = (entry("one"), json!({"replicaRegions": ["eu-west-2"]}));
    let store = store_with(fake.url(), settings.clone());
    put(&store, &entry).await.unwrap();
    fake.change(NAME, |secret| {
        secret.copies.insert("eu-west-2".to_owned(), "Failed".to_owned());
        secret.tags.remove("pgtenant.io/settings");
    });
    put(&store_with(fake.url(), settings), &entry).await.unwrap();
    assert_eq!(fake.secret(NAME).unwrap().copies["eu-west-2"], "InProgress");
}
