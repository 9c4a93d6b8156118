//! Writing to objects: server-side apply, each part by its own field manager, so that nobody's fields are lost.

use std::time::Duration;

use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::context::{Context, MANAGER};
use crate::crd::{PostgresqlCluster, PostgresqlDatabase, PostgresqlRestore};
use crate::error::{OperatorError, Result};

/// An API server that has not answered by then is away.
const DEADLINE: Duration = Duration::from_secs(15);

/// Waits for the API server as long as it can be of use.
pub(crate) async fn ask<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(OperatorError::Silent(DEADLINE.as_secs())),
    }
}

/// An object that can be applied to: cluster-scoped or in a namespace.
pub(crate) trait Applied: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug {
    fn api(&self, client: Client) -> Api<Self>;
}

impl Applied for PostgresqlDatabase {
    fn api(&self, client: Client) -> Api<Self> {
        namespaced(self, client)
    }
}

impl Applied for PostgresqlRestore {
    fn api(&self, client: Client) -> Api<Self> {
        namespaced(self, client)
    }
}

impl Applied for PostgresqlCluster {
    fn api(&self, client: Client) -> Api<Self> {
        Api::all(client)
    }
}

fn namespaced<K>(object: &K, client: Client) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client, &object.namespace().unwrap_or_default())
}

/// Names the very object, so that none of the same name is touched, nor made.
fn head<K: Applied>(object: &K) -> Value {
    json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": object.name_any(), "namespace": object.namespace(), "uid": object.uid()},
    })
}

/// The object of this name that is there now, without its spec. Asked by a list, which is allowed anyway; where there is no
/// definition the list fails, and nothing is known of objects.
pub(crate) async fn live<K>(api: &Api<K>, name: &str) -> Result<Option<PartialObjectMeta<K>>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    Ok(ask(api.list_metadata(&named)).await?.items.pop())
}

/// Asks whether this very object is there, as it was read but for its status. Whoever has known only an old one for long, cut off
/// from the API server, must not write over what a later one wishes.
pub(crate) async fn require_live<K: Applied>(object: &K, context: &Context) -> Result<()> {
    let found = live(&object.api(context.client.clone()), &object.name_any()).await?;
    let same = |found: &PartialObjectMeta<K>| {
        found.metadata.uid == object.uid() && found.metadata.generation == object.meta().generation
    };
    if found.as_ref().is_some_and(same) { Ok(()) } else { Err(OperatorError::Stale) }
}

/// Adds our finalizer where it is not there.
pub(crate) async fn add_finalizer<K: Applied>(object: &K, name: &str, context: &Context) -> Result<()> {
    if object.finalizers().iter().any(|one| one == name) {
        return Ok(());
    }
    let mut patch = head(object);
    patch["metadata"]["finalizers"] = json!([name]);
    let apply = PatchParams::apply(MANAGER).force();
    match ask(object.api(context.client.clone()).patch(&object.name_any(), &apply, &Patch::Apply(&patch))).await {
        Err(error) if matches!(error.code(), Some(404 | 409)) => Err(OperatorError::Stale),
        other => other.map(drop),
    }
}

/// Takes our finalizer away, whoever has put it there: a tool that restores objects from a backup owns what it writes, and
/// server-side apply would leave that alone.
pub(crate) async fn remove_finalizer<K: Applied>(object: &K, name: &str, context: &Context) -> Result<()> {
    let others: Vec<_> = object.finalizers().iter().filter(|one| *one != name).collect();
    if others.len() == object.finalizers().len() {
        return Ok(());
    }
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": others}});
    let by_us = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match ask(object.api(context.client.clone()).patch(&object.name_any(), &by_us, &Patch::Merge(&patch))).await {
        Err(error) if error.code() == Some(404) => Ok(()),
        Err(error) if error.code() == Some(409) => Err(OperatorError::Stale),
        other => other.map(drop),
    }
}

/// Writes the status if it is another one; says whether it was.
pub(crate) async fn put_status<K: Applied, S: Serialize>(
    object: &K,
    before: Option<&S>,
    status: &S,
    context: &Context,
) -> Result<bool> {
    let text = |status| serde_json::to_value(status).unwrap_or_default();
    let status = text(status);
    if before.map(text).as_ref() == Some(&status) {
        return Ok(false);
    }
    let mut patch = head(object);
    patch["status"] = status;
    let apply = PatchParams::apply(MANAGER).force();
    let api = object.api(context.client.clone());
    match ask(api.patch_status(&object.name_any(), &apply, &Patch::Apply(&patch))).await {
        // Gone, or another object by now: there is nobody to be told.
        Err(error) if error.code() == Some(404) => Ok(false),
        Err(error) if error.code() == Some(409) => Err(OperatorError::Stale),
        other => other.map(|_| true),
    }
}
