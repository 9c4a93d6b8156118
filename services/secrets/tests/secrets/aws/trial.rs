//! Secrets Manager is tried: nothing is left, and a refusal names the action and the policy.

use pgtenant_testkit::Trouble;

use super::*;

const TRIAL: &str = "customer/pgtenant-preflight/pgtenant-preflight-trial-read";

#[tokio::test]
async fn the_whole_life_of_a_secret_is_tried_and_nothing_is_left() {
    let fake = FakeSecretsManager::start().await;
    let settings = json!({"kmsKeyId": "alias/one", "replicaRegions": ["eu-west-2"], "recoveryWindowDays": 30,
        "readers": ["arn:aws:iam::210987654321:role/reader"]});
    let store = store_with(fake.url(), settings);
    assert_eq!(store.try_out().await.unwrap(), format!("{TRIAL} was written, read and removed"));
    for operation in
        ["CreateSecret", "PutSecretValue", "GetSecretValue", "DeleteSecret", "RestoreSecret", "ListSecrets"]
    {
        assert!(fake.count(operation) > 0, "{operation}");
    }
    assert_eq!(fake.secret(TRIAL), None, "for good, not within 30 days");
    let (_, store) =
        (store, super::store_with(pgtenant_testkit::moto().await.url(), json!({"name": unique("trial") + "/{role}"})));
    store.try_out().await.unwrap();
}

#[tokio::test]
async fn a_refusal_names_the_action_and_what_was_made_before_is_removed() {
    for operation in ["CreateSecret", "PutSecretValue", "GetSecretValue", "ListSecrets", "RestoreSecret"] {
        let (fake, store) = begun().await;
        fake.order(operation, Trouble::Deny, 1);
        let text = store.try_out().await.unwrap_err().explain();
        for part in [&format!("secretsmanager:{operation}"), "AccessDenied", "pgtenant aws iam-policy"] {
            assert!(text.contains(part), "no {part}: {text}");
        }
        assert_eq!(fake.secret(TRIAL), None, "after {operation} was refused");
    }
    let (fake, store) = begun().await;
    fake.order("DeleteSecret", Trouble::Deny, 100);
    let text = store.try_out().await.unwrap_err().explain();
    assert!(text.contains("secretsmanager:DeleteSecret"), "{text}");
    // The next one removes what that one could not, or a killed process has left.
    assert!(fake.secret(TRIAL).is_some());
    let (other, again) = begun().await;
    other.change(TRIAL, |secret| *secret = fake.secret(TRIAL).unwrap());
    again.try_out().await.unwrap();
    assert_eq!(other.secret(TRIAL), None);
}
