//! Kubernetes, as far as credentials need it: Secrets, and manifests of the External Secrets Operator.

mod external;
mod fault;
mod may;
mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client, Resource};
use pgtenant_model::{Credential, CredentialTarget, STORE_MANAGER};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use self::may::{Rule, VERBS};
use crate::{Action, BoxFuture, Fault, Held, Removal, SecretStore, StoreError};

pub use external::ExternalSecrets;
pub use fault::KubernetesFault;
pub use secret::KubernetesSecrets;

/// An API server that has not answered by then is away: the engine's lease is 15 s.
const DEADLINE: Duration = Duration::from_secs(8);

/// Waits for the API server as long as it can be of use.
pub(crate) async fn ask<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Fault> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => answer.map_err(|error| Fault::Kubernetes(KubernetesFault::Said(Box::new(error)))),
        Err(_) => Err(Fault::Kubernetes(KubernetesFault::Silent(DEADLINE))),
    }
}

/// Tries at an object that somebody else changes between reading and writing it.
const TRIES: usize = 4;

/// A store that has one object for each role, named as the role, in the claim's namespace.
trait Objects: fmt::Debug + Send + Sync {
    /// The store's name.
    const KIND: &str;
    /// A field that is written into every object.
    const FIELD: &str;
    /// Its objects, as a role names them.
    const RULE: Rule;

    type Object: Resource + DeserializeOwned + Clone + fmt::Debug + Send + Sync;

    fn client(&self) -> &Client;

    fn api(&self, target: &CredentialTarget) -> Api<Self::Object>;

    /// Makes the object, or puts it right.
    fn write(
        &self,
        target: &CredentialTarget,
        credential: &Credential,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    fn read(&self, target: &CredentialTarget) -> impl Future<Output = Result<Held, Fault>> + Send;

    /// The object, if it is ours.
    fn find(&self, target: &CredentialTarget) -> impl Future<Output = Result<Option<Self::Object>, Fault>> + Send {
        async move {
            let found = ask(self.api(target).get_opt(&target.role())).await?;
            if let Some(object) = &found {
                check_ours(object.meta(), Self::FIELD, target)?;
            }
            Ok(found)
        }
    }

    /// Never touches one that is not ours, nor minds it.
    fn remove(&self, target: &CredentialTarget) -> impl Future<Output = Result<(), Fault>> + Send {
        async move {
            for _ in 0..TRIES {
                let found = match self.find(target).await {
                    Ok(Some(found)) => found.meta().clone(),
                    Ok(None) | Err(Fault::Foreign(_)) => return Ok(()),
                    // The kind of object is not installed: there is none.
                    Err(Fault::Kubernetes(fault)) if fault.code() == Some(404) => return Ok(()),
                    Err(fault) => return Err(fault),
                };
                let ObjectMeta { uid, resource_version, .. } = found;
                let preconditions = Some(Preconditions { uid, resource_version });
                let exactly = DeleteParams { preconditions, ..DeleteParams::default() };
                match ask(self.api(target).delete(&target.role(), &exactly)).await {
                    Err(Fault::Kubernetes(fault)) if fault.code() == Some(404) => return Ok(()),
                    Err(Fault::Kubernetes(fault)) if fault.code() == Some(409) => {}
                    other => return other.map(drop),
                }
            }
            Err(Fault::Kubernetes(KubernetesFault::Contended))
        }
    }
}

/// Writes and removals go to their end, all of them, so that a fault of one leaves no other at work behind the caller's back.
impl<T: Objects> SecretStore for T {
    fn kind(&self) -> &'static str {
        T::KIND
    }

    fn location(&self, target: &CredentialTarget) -> String {
        format!("{}/{}", target.key.namespace(), target.role())
    }

    fn put_many<'a>(&'a self, entries: &'a [(CredentialTarget, Credential)]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let writes = entries.iter().map(|(target, credential)| async move {
                self.write(target, credential)
                    .await
                    .map_err(|fault| fault.at(T::KIND, Action::Write, self.location(target)))
            });
            join_all(writes).await.into_iter().collect()
        })
    }

    fn get<'a>(
        &'a self,
        target: &'a CredentialTarget,
        _expected: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Held, StoreError>> {
        Box::pin(async move {
            self.read(target).await.map_err(|fault| fault.at(T::KIND, Action::Read, self.location(target)))
        })
    }

    fn reach(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let answer = ask(self.client().apiserver_version()).await;
            answer.map(drop).map_err(|fault| fault.at(T::KIND, Action::Read, "the API server".to_owned()))
        })
    }

    /// Claims' namespaces are not here to be tried in, so the API server is asked what it would allow in any of them.
    fn try_out(&self) -> BoxFuture<'_, Result<String, StoreError>> {
        Box::pin(async move {
            let what = T::RULE;
            let refused = |fault: Fault| fault.at(T::KIND, Action::Write, format!("{what} in every namespace"));
            let lacking = what.lacking(self.client()).await.map_err(refused)?;
            if lacking.is_empty() {
                return Ok(format!("RBAC allows to {} {what} in every namespace", VERBS.join(", ")));
            }
            let message = format!("RBAC does not allow to {}", lacking.join(", "));
            Err(refused(Fault::Kubernetes(KubernetesFault::Lacking(message))))
        })
    }

    fn delete_many<'a>(
        &'a self,
        targets: &'a [CredentialTarget],
        _removal: Removal,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let removals = targets.iter().map(|target| async move {
                self.remove(target).await.map_err(|fault| fault.at(T::KIND, Action::Delete, self.location(target)))
            });
            join_all(removals).await.into_iter().collect()
        })
    }
}

fn labels(target: &CredentialTarget) -> BTreeMap<String, String> {
    target.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Whether the labels are as they were written.
fn is_marked(meta: &ObjectMeta, target: &CredentialTarget) -> bool {
    let label = |key: &str| meta.labels.as_ref().and_then(|all| all.get(key));
    target.labels().iter().all(|(key, value)| label(key).is_some_and(|found| found == value))
}

/// Nothing that somebody else has made is ever read, overwritten or deleted. Ours is what has our labels; where those were
/// taken away, what we have written `field` of, as the API server notes.
fn check_ours(meta: &ObjectMeta, field: &str, target: &CredentialTarget) -> Result<(), Fault> {
    let wrote = |entry: &ManagedFieldsEntry| {
        let pointer = format!("/f:{}", field.replace('/', "/f:"));
        entry.manager.as_deref() == Some(STORE_MANAGER)
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer(&pointer).is_some())
    };
    if is_marked(meta, target) || meta.managed_fields.iter().flatten().any(wrote) {
        return Ok(());
    }
    let labels = target.labels().map(|(key, value)| format!("{key}={value}")).join(", ");
    Err(Fault::Foreign(format!("one of this name is there, without the labels {labels}")))
}
