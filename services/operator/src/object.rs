//! Writing to objects: server-side apply, each part by its own field manager, so that nobody's fields are lost.

use std::time::Duration;

use kube::api::{ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::context::{Context, MANAGER};
use crate::crd::{PostgresqlCluster, PostgresqlDatabase};
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
pub(crate) trait Target: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug {
    fn api(&self, client: Client) -> Api<Self>;
}

impl Target for PostgresqlDatabase {
    fn api(&self, client: Client) -> Api<Self> {
        namespaced(self, client)
    }
}

impl Target for PostgresqlCluster {
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
fn head<K: Target>(object: &K) -> Value {
    json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": object.name_any(), "namespace": object.namespace(), "uid": object.uid()},
    })
}

/// The UID of the `PostgresqlDatabase` of this name that is there now. Asked by a list, which is allowed anyway; where there is no
/// definition the list fails, and nothing is known of objects.
pub(crate) async fn live_uid(namespace: &str, name: &str, context: &Context) -> Result<Option<String>> {
    let api: Api<PostgresqlDatabase> = Api::namespaced(context.client.clone(), namespace);
    let named = ListParams::default().fields(&format!("metadata.name={name}"));
    Ok(ask(api.list_metadata(&named)).await?.items.first().and_then(|object| object.uid()))
}

/// Adds our finalizer where it is not there.
pub(crate) async fn add_finalizer<K: Target>(object: &K, name: &str, context: &Context) -> Result<()> {
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
pub(crate) async fn remove_finalizer<K: Target>(object: &K, name: &str, context: &Context) -> Result<()> {
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
pub(crate) async fn put_status<K: Target, S: Serialize>(
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
