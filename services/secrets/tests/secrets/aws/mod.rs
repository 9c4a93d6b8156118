//! Secrets of AWS Secrets Manager: the happy ways on moto, the others on a fake that answers as AWS documents it.

mod ends;
mod faults;
mod listing;
mod moto;
mod policy;
mod settings;
mod trial;

use pgtenant_aws::{Aws, StandIn};
use pgtenant_model::{AwsSecretsManagerStore, Credential, CredentialTarget, Tier};
use pgtenant_secrets::{Access, AwsSecrets, Fault, Held, SecretStore as _, StoreError, fingerprint, version};
use pgtenant_testkit::{FakeSecretsManager, unique};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Entry, made, target};

fn access(url: &str) -> Access {
    let stand_in = StandIn {
        url: url.to_owned(),
        region: "eu-west-1".to_owned(),
        access_key_id: "test".to_owned(),
        secret_access_key: "test".to_owned(),
    };
    Access::default().with_aws(Aws::stand_in(stand_in))
}

fn spec(spec: Value) -> AwsSecretsManagerStore {
    serde_json::from_value(spec).unwrap()
}

/// A store as another process has it: it knows nothing.
fn store_with(url: &str, settings: Value) -> AwsSecrets {
    AwsSecrets::new(&access(url), spec(settings))
}

fn store(fake: &FakeSecretsManager) -> AwsSecrets {
    store_with(fake.url(), json!({}))
}

/// One that has looked for the secret and found none, and knows that.
async fn begun() -> (FakeSecretsManager, AwsSecrets) {
    let fake = FakeSecretsManager::start().await;
    let store = store(&fake);
    (fake, store)
}

fn entry(password: &str) -> Entry {
    let target = target("ns", "db", Tier::Read);
    let credential = made(&target, password);
    (target, credential)
}

const NAME: &str = "customer/ns/ns-db-read";

fn id(credential: &Credential) -> Uuid {
    version(credential, &fingerprint(&credential.password))
}

async fn put(store: &AwsSecrets, entry: &Entry) -> Result<(), StoreError> {
    store.put_many(std::slice::from_ref(entry)).await
}

async fn read(store: &AwsSecrets, target: &CredentialTarget) -> Held {
    store.get(target, None).await.unwrap()
}

/// What is expected of the store, without reading it.
async fn is_unread(store: &AwsSecrets, entry: &Entry) -> bool {
    matches!(store.get(&entry.0, Some(id(&entry.1))).await.unwrap(), Held::Unread)
}

fn tags(claim: &str) -> [(String, String); 4] {
    [("managed-by", "pgtenant"), ("namespace", "ns"), ("claim", claim), ("tier", "read")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}
