//! The store `externalSecret`: a manifest from which the External Secrets Operator makes the Secret.
//!
//! The resource is `external-secrets.io/v1` `ExternalSecret`, as of External Secrets Operator 0.16.

use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use pgtenant_model::{Credential, CredentialTarget, ExternalSecretStore, RELOADER, STORE_MANAGER};
use serde_json::{Value, json};

use super::{KubernetesFault, Objects, ask, check_ours, is_marked, labels};
use crate::{Fault, Held};

/// Tries at a manifest that somebody else changes between reading and writing it.
const TRIES: usize = 4;

/// The store `externalSecret`. It holds no credential: it says where another store has it.
#[derive(Clone)]
pub struct ExternalSecrets {
    client: Client,
    resource: ApiResource,
    spec: ExternalSecretStore,
}

impl std::fmt::Debug for ExternalSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalSecrets").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl ExternalSecrets {
    /// Nothing is read or written.
    #[must_use]
    pub fn new(client: Client, spec: ExternalSecretStore) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("external-secrets.io", "v1", "ExternalSecret"));
        Self { client, resource, spec }
    }

    fn api(&self, target: &CredentialTarget) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), target.key.namespace(), &self.resource)
    }

    async fn find(&self, target: &CredentialTarget) -> Result<Option<DynamicObject>, Fault> {
        let found = ask(self.api(target).get_opt(&target.role())).await?;
        if let Some(object) = &found {
            check_ours(&object.metadata, "ExternalSecret", "spec/dataFrom", target)?;
        }
        Ok(found)
    }

    /// What this store wishes to be in the manifest; the operator adds defaults to it.
    fn wanted(&self, target: &CredentialTarget) -> Value {
        let ExternalSecretStore { cluster_secret_store, remote_key, refresh_interval } = &self.spec;
        let key = remote_key.replace("{namespace}", target.key.namespace()).replace("{role}", &target.role());
        json!({
            "refreshInterval": refresh_interval,
            "secretStoreRef": {"kind": "ClusterSecretStore", "name": cluster_secret_store},
            "target": {
                "name": target.role(),
                "creationPolicy": "Owner",
                "deletionPolicy": "Retain",
                "template": {"metadata": {"annotations": {RELOADER: "true"}}, "mergePolicy": "Merge"},
            },
            "dataFrom": [{"extract": {"key": key}}],
        })
    }
}

impl Objects for ExternalSecrets {
    const KIND: &str = "externalSecret";

    fn client(&self) -> &Client {
        &self.client
    }

    async fn write(&self, target: &CredentialTarget, _: &Credential) -> Result<(), Fault> {
        let api = self.api(target);
        let mut object = DynamicObject::new(&target.role(), &self.resource).data(json!({"spec": self.wanted(target)}));
        object.metadata.labels = Some(labels(target));
        for _ in 0..TRIES {
            let written = match self.find(target).await? {
                None => {
                    let by_us = PostParams { field_manager: Some(STORE_MANAGER.to_owned()), ..PostParams::default() };
                    ask(api.create(&by_us, &object)).await
                }
                Some(found) => {
                    object.metadata.uid = found.metadata.uid;
                    object.metadata.resource_version = found.metadata.resource_version;
                    let apply = PatchParams::apply(STORE_MANAGER).force();
                    ask(api.patch(&target.role(), &apply, &Patch::Apply(&object))).await
                }
            };
            match written {
                Ok(_) => return Ok(()),
                Err(Fault::Kubernetes(fault)) if fault.code() == Some(409) => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::Kubernetes(KubernetesFault::Contended))
    }

    async fn read(&self, target: &CredentialTarget) -> Result<Held, Fault> {
        let right = |object: &DynamicObject| {
            is_marked(&object.metadata, target) && contains(&object.data["spec"], &self.wanted(target))
        };
        Ok(if self.find(target).await?.as_ref().is_some_and(right) { Held::Reference } else { Held::Missing })
    }

    async fn remove(&self, target: &CredentialTarget) -> Result<(), Fault> {
        let found = match self.find(target).await {
            // Never ours to remove, and not in the way.
            Ok(None) | Err(Fault::Foreign(_)) => return Ok(()),
            // Where the operator is not installed there is no manifest.
            Err(Fault::Kubernetes(fault)) if fault.code() == Some(404) => return Ok(()),
            other => other?,
        };
        let uid = found.and_then(|object| object.metadata.uid);
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let exactly = DeleteParams { preconditions, ..DeleteParams::default() };
        match ask(self.api(target).delete(&target.role(), &exactly)).await {
            Err(Fault::Kubernetes(fault)) if fault.code() != Some(404) => Err(Fault::Kubernetes(fault)),
            _ => Ok(()),
        }
    }
}

/// Whether all that is wanted is there; lists are to be equal in length.
fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|one| contains(one, value)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(one, value)| contains(one, value))
        }
        _ => found == wanted,
    }
}
