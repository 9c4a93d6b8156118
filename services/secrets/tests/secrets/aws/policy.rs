//! The least IAM policies name what is called, all of it and nothing else.

use std::collections::BTreeSet;

use pgtenant_secrets::{PolicyOptions, Removal, control_plane_policy, external_secrets_policy};

use super::*;

const OPTIONS: PolicyOptions<'static> = PolicyOptions { account: "123456789012", region: "eu-west-1" };

fn named(statements: &[Value]) -> BTreeSet<String> {
    let actions = statements.iter().flat_map(|statement| statement["Action"].as_array().unwrap());
    let actions = actions.filter_map(|action| action.as_str()?.strip_prefix("secretsmanager:"));
    actions.map(ToOwned::to_owned).collect()
}

/// Everything that a store can be asked to do.
async fn everything(fake: &FakeSecretsManager, settings: &Value) -> BTreeSet<String> {
    let (first, second) = (entry("one"), entry("two"));
    let target = std::slice::from_ref(&first.0);
    let store = store_with(fake.url(), settings.clone());
    store.reach().await.unwrap();
    put(&store, &first).await.unwrap();
    put(&store, &second).await.unwrap();
    put(&store, &first).await.unwrap();
    read(&store, &first.0).await;
    assert!(is_unread(&store_with(fake.url(), settings.clone()), &first).await);
    store.delete_many(target, Removal::Usual).await.unwrap();
    put(&store, &first).await.unwrap();
    // Other settings, and back.
    let other = json!({"tags": {"other": "tag"}, "kmsKeyId": "alias/other"});
    put(&store_with(fake.url(), other), &first).await.unwrap();
    put(&store, &first).await.unwrap();
    store.delete_many(target, Removal::Final).await.unwrap();
    store.try_out().await.unwrap();
    fake.calls().into_iter().map(|call| call.operation).collect()
}

#[tokio::test]
async fn the_control_planes_policy_names_every_call_and_no_other() {
    let fake = FakeSecretsManager::start().await;
    let settings = json!({"kmsKeyId": "alias/one", "replicaRegions": ["eu-west-2"], "tags": {"team": "a"},
        "readers": ["arn:aws:iam::210987654321:role/reader"]});
    let called = everything(&fake, &settings).await;
    assert_eq!(called, named(&control_plane_policy(&spec(settings), OPTIONS)));

    // Where fewer things are set, fewer are allowed.
    let fake = FakeSecretsManager::start().await;
    let called = everything(&fake, &json!({})).await;
    let mut allowed = named(&control_plane_policy(&spec(json!({})), OPTIONS));
    assert!(allowed.remove("RemoveRegionsFromReplication"), "for copies that earlier settings have made");
    assert_eq!(called, allowed);
    assert!(!called.contains("PutResourcePolicy") && !called.contains("ReplicateSecretToRegions"));
}

#[test]
fn the_operators_policy_only_reads() {
    let named = named(&external_secrets_policy(&spec(json!({})), OPTIONS));
    assert_eq!(named, BTreeSet::from(["DescribeSecret".to_owned(), "GetSecretValue".to_owned()]));
}
