//! Kubernetes, as far as credentials need it: Secrets, and manifests of the External Secrets Operator.

mod external;
mod fault;
mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::{Api, Client};
use pgtenant_model::{CredentialTarget, SecretRef};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::{Action, Fault, StoreError};

pub use external::ExternalSecrets;
pub use fault::KubernetesFault;
pub use secret::KubernetesSecrets;

/// Who writes what the stores keep, in `metadata.managedFields`.
const MANAGER: &str = "pgtenant";
/// Of every object that a store has made; its value is [`MANAGER`].
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The claim's name, on every object that a store has made.
const CLAIM: &str = "pgtenant.io/claim";
/// The tier, on every object that a store has made.
const TIER: &str = "pgtenant.io/tier";
/// With this annotation Stakater's Reloader starts a workload anew that mounts the Secret and asks for it.
const RELOADER: &str = "reloader.stakater.com/match";

/// An API server that has not answered by then is away: the engine's lease is 15 s.
const DEADLINE: Duration = Duration::from_secs(8);

/// What stores and references to secrets reach the outside with.
#[derive(Clone, Default)]
pub struct Access {
    kubernetes: Option<Client>,
}

impl Access {
    /// With Kubernetes.
    #[must_use]
    pub fn with_kubernetes(client: Client) -> Self {
        Self { kubernetes: Some(client) }
    }

    pub(crate) fn kubernetes(&self) -> Result<Client, String> {
        self.kubernetes.clone().ok_or_else(|| "needs Kubernetes: set kubernetes.enabled".to_owned())
    }

    /// The values of a Secret that are text.
    ///
    /// # Errors
    /// There is no such Secret, or no Kubernetes.
    pub async fn read(&self, secret: &SecretRef) -> Result<BTreeMap<String, SecretString>, StoreError> {
        let at = |fault: Fault| fault.at("kubernetes", Action::Read, format!("{}/{}", secret.namespace, secret.name));
        let client = self.kubernetes().map_err(|why| at(Fault::Broken(why)))?;
        let api: Api<Secret> = Api::namespaced(client, &secret.namespace);
        let found = ask(api.get(&secret.name)).await.map_err(at)?;
        let values = found.data.unwrap_or_default().into_iter();
        let text = |(key, value): (String, k8s_openapi::ByteString)| {
            let bytes = Zeroizing::new(value.0);
            Some((key, SecretString::from(std::str::from_utf8(&bytes).ok()?)))
        };
        Ok(values.filter_map(text).collect())
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("kubernetes", &self.kubernetes.is_some()).finish()
    }
}

/// Waits for the API server as long as it can be of use.
async fn ask<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Fault> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => answer.map_err(|error| Fault::Kubernetes(KubernetesFault::Said(Box::new(error)))),
        Err(_) => Err(Fault::Kubernetes(KubernetesFault::Silent(DEADLINE))),
    }
}

/// `{namespace}/{role}`.
fn location(target: &CredentialTarget) -> String {
    format!("{}/{}", target.key.namespace(), target.role())
}

fn labels(target: &CredentialTarget) -> BTreeMap<String, String> {
    let Claim { name, tier } = Claim::of(target);
    [(MANAGED_BY, MANAGER.to_owned()), (CLAIM, name), (TIER, tier)].map(|(key, value)| (key.to_owned(), value)).into()
}

/// What the labels of an object say of whose it is.
struct Claim {
    name: String,
    tier: String,
}

impl Claim {
    fn of(target: &CredentialTarget) -> Self {
        Self { name: target.key.name().to_owned(), tier: target.tier.as_str().to_owned() }
    }
}

/// Whether labels and annotation are as they were written.
fn is_marked(meta: &ObjectMeta, target: &CredentialTarget) -> bool {
    let has = |found: &Option<BTreeMap<String, String>>, key: &str, value: &str| {
        found.as_ref().and_then(|all| all.get(key)).is_some_and(|text| text == value)
    };
    labels(target).iter().all(|(key, value)| has(&meta.labels, key, value))
}

/// Nothing that somebody else has made is ever read, overwritten or deleted. Ours is what has our labels; where those were
/// taken away, what we have written `field` of, as the API server notes.
fn check_ours(meta: &ObjectMeta, kind: &str, field: &str, target: &CredentialTarget) -> Result<(), Fault> {
    let wrote = |entry: &ManagedFieldsEntry| {
        let pointer = format!("/f:{}", field.replace('/', "/f:"));
        entry.manager.as_deref() == Some(MANAGER)
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer(&pointer).is_some())
    };
    if is_marked(meta, target) || meta.managed_fields.iter().flatten().any(wrote) {
        return Ok(());
    }
    let Claim { name, tier } = Claim::of(target);
    Err(Fault::Foreign(format!(
        "a {kind} of this name is there, without the labels {MANAGED_BY}={MANAGER}, {CLAIM}={name} and {TIER}={tier}"
    )))
}
