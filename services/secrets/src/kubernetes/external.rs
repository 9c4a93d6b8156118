//! The store `externalSecret`: a manifest from which the External Secrets Operator makes the Secret.
//!
//! The resource is `external-secrets.io/v1` `ExternalSecret`, as of External Secrets Operator 0.16.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use pgtenant_model::{Credential, CredentialTarget, ExternalSecretStore, RELOADER, STORE_MANAGER};
use serde_json::{Value, json};

use super::may::Rule;
use super::{KubernetesFault, Objects, TRIES, ask, is_marked, labels};
use crate::{Fault, Held};

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

    /// The External Secrets Operator takes a Secret of this name over, whoever has made it, unless something else owns it. One of
    /// ours may go on as the operator's, where the cluster had the store `kubernetes` before.
    async fn check_no_secret(&self, target: &CredentialTarget) -> Result<(), Fault> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), target.key.namespace());
        let Some(secret) = ask(api.get_metadata_opt(&target.role())).await? else { return Ok(()) };
        let made_by_it = |owner: &OwnerReference| owner.kind == "ExternalSecret" && owner.name == target.role();
        if is_marked(&secret.metadata, target) || secret.metadata.owner_references.iter().flatten().any(made_by_it) {
            return Ok(());
        }
        Err(Fault::Foreign(
            "a Secret of this name is there, which neither pgtenant nor an ExternalSecret has made".to_owned(),
        ))
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
    const FIELD: &str = "spec/dataFrom";
    const RULE: Rule = Rule { group: "external-secrets.io", resource: "externalsecrets", installed: Some("v1") };

    type Object = DynamicObject;

    fn client(&self) -> &Client {
        &self.client
    }

    fn api(&self, target: &CredentialTarget) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), target.key.namespace(), &self.resource)
    }

    async fn write(&self, target: &CredentialTarget, _: &Credential) -> Result<(), Fault> {
        let api = self.api(target);
        let mut object = DynamicObject::new(&target.role(), &self.resource).data(json!({"spec": self.wanted(target)}));
        object.metadata.labels = Some(labels(target));
        for _ in 0..TRIES {
            let written = match self.find(target).await? {
                None => {
                    self.check_no_secret(target).await?;
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
