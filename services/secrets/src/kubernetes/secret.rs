//! The store `kubernetes`: a Secret named as the role, in the claim's namespace.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use pgtenant_model::{Credential, CredentialTarget, RELOADER, STORE_MANAGER, SslMode};
use secrecy::{ExposeSecret as _, SecretString};

use super::may::Rule;
use super::{KubernetesFault, Objects, TRIES, ask, is_marked, labels};
use crate::{Fault, Held, document};

const TYPE: &str = "Opaque";

/// The store `kubernetes`. Any number of processes may write to it: each write names the version that it was made from.
#[derive(Clone)]
pub struct KubernetesSecrets {
    client: Client,
}

impl std::fmt::Debug for KubernetesSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KubernetesSecrets")
    }
}

impl KubernetesSecrets {
    /// Nothing is read or written.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Takes all of our fields, whoever has them now, and only if nothing has changed since `found` was read.
    async fn replace(&self, api: &Api<Secret>, secret: &Secret, found: Secret) -> Result<(), Fault> {
        let mut secret = secret.clone();
        secret.metadata.uid = found.metadata.uid;
        secret.metadata.resource_version = found.metadata.resource_version;
        let name = secret.metadata.name.clone().unwrap_or_default();
        ask(api.patch(&name, &PatchParams::apply(STORE_MANAGER).force(), &Patch::Apply(&secret))).await.map(drop)
    }
}

impl Objects for KubernetesSecrets {
    const KIND: &str = "kubernetes";
    const FIELD: &str = "data/username";
    const RULE: Rule = Rule { group: "", resource: "secrets", installed: None };

    type Object = Secret;

    fn client(&self) -> &Client {
        &self.client
    }

    fn api(&self, target: &CredentialTarget) -> Api<Secret> {
        Api::namespaced(self.client.clone(), target.key.namespace())
    }

    /// Creates first: most often there is none yet, and then that is all.
    async fn write(&self, target: &CredentialTarget, credential: &Credential) -> Result<(), Fault> {
        let api = self.api(target);
        let secret = manifest(target, credential);
        let by_us = PostParams { field_manager: Some(STORE_MANAGER.to_owned()), ..PostParams::default() };
        for _ in 0..TRIES {
            match ask(api.create(&by_us, &secret)).await {
                Ok(_) => return Ok(()),
                Err(Fault::Kubernetes(fault)) if fault.code() == Some(409) => {}
                Err(fault) => return Err(fault),
            }
            let Some(found) = self.find(target).await? else { continue };
            if !can_be_changed(&found) {
                self.remove(target).await?;
                continue;
            }
            match self.replace(&api, &secret, found).await {
                Err(Fault::Kubernetes(fault)) if matches!(fault.code(), Some(404 | 409)) => {}
                result => return result,
            }
        }
        Err(Fault::Kubernetes(KubernetesFault::Contended))
    }

    async fn read(&self, target: &CredentialTarget) -> Result<Held, Fault> {
        Ok(self.find(target).await?.map_or(Held::Missing, |secret| held(secret, target)))
    }
}

fn manifest(target: &CredentialTarget, credential: &Credential) -> Secret {
    let data = document::fields(credential);
    let bytes = |(key, value): (&str, &secrecy::SecretString)| {
        (key.to_owned(), ByteString(value.expose_secret().as_bytes().to_vec()))
    };
    Secret {
        metadata: ObjectMeta {
            name: Some(target.role()),
            namespace: Some(target.key.namespace().to_owned()),
            labels: Some(labels(target)),
            annotations: Some([(RELOADER.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some(data.iter().map(|(key, value)| bytes((key, value))).collect()),
        ..Secret::default()
    }
}

/// The API server lets nobody change these.
fn can_be_changed(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE) && secret.immutable != Some(true)
}

fn is_as_written(secret: &Secret, target: &CredentialTarget) -> bool {
    let reloaded = secret.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(RELOADER));
    is_marked(&secret.metadata, target) && reloaded && can_be_changed(secret)
}

fn held(secret: Secret, target: &CredentialTarget) -> Held {
    let whole = is_as_written(&secret, target);
    let data: BTreeMap<String, Vec<u8>> =
        secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    let password = data.get("password").and_then(|bytes| std::str::from_utf8(bytes).ok()).map(SecretString::from);
    match (document::from_fields(data), password) {
        (Ok(credential), _) if whole => Held::Credential(credential),
        (Ok(credential), _) => Held::Blemished(credential),
        // An application may have the password: a key that was lost beside it is no reason for another one.
        (Err(_), Some(password)) => Held::Blemished(Credential {
            username: target.role(),
            password,
            endpoint: String::new(),
            port: 0,
            database: target.key.database(),
            sslmode: SslMode::VerifyFull,
            uri: SecretString::from(""),
            ca_crt: None,
            read: None,
            pool: None,
        }),
        (Err(why), None) => Held::Broken(why),
    }
}
