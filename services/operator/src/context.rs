//! What every part of the door works with.

use futures::{Stream, StreamExt as _};
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};
use pgtenant_ledger::Ledger;

use crate::error::OperatorError;
use crate::retry::Retries;

/// Who writes, in `metadata.managedFields`.
pub(crate) const MANAGER: &str = "pgtenant-operator";
/// Who says so, in Events.
pub(crate) const CONTROLLER: &str = "pgtenant.io/operator";

/// Shared by the controllers of one replica.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) ledger: Ledger,
    /// This replica.
    pub(crate) identity: String,
    pub(crate) retries: Retries,
}

impl Context {
    /// A try came to no end: tells of it, and says when the next one is.
    pub(crate) fn retry<K: Resource<DynamicType = ()>>(
        &self,
        kind: &'static str,
        object: &K,
        error: &OperatorError,
    ) -> Action {
        count(kind, "failed");
        let wait = self.retries.failed(&object.uid().unwrap_or_default());
        let name = ObjectRef::from_obj(object);
        match error {
            OperatorError::Stale => tracing::debug!(object = %name, "has changed meanwhile"),
            error => tracing::warn!(object = %name, error = error as &dyn std::error::Error, ?wait, "trying again"),
        }
        Action::requeue(wait)
    }
}

/// A reconciliation of an object of `kind` has ended.
pub(crate) fn count(kind: &'static str, result: &'static str) {
    metrics::counter!("pgtenant_kubernetes_reconciles_total", "kind" => kind, "result" => result).increment(1);
}

/// What a controller tells of one object.
type Reconciled<K> = Result<(ObjectRef<K>, Action), controller::Error<OperatorError, watcher::Error>>;

/// Drives a controller. That objects of `kind` are not heard of any more is told once for each outage; what else goes wrong was
/// told by [`Context::retry`].
pub(crate) async fn drive<K: Resource<DynamicType = ()>>(
    kind: &'static str,
    reconciled: impl Stream<Item = Reconciled<K>> + Send,
) {
    let mut reconciled = std::pin::pin!(reconciled);
    let mut outage = false;
    while let Some(result) = reconciled.next().await {
        match result {
            Ok(_) => outage = false,
            Err(controller::Error::QueueError(error)) if !outage => {
                outage = true;
                tracing::warn!(kind, error = &error as &dyn std::error::Error, "objects are not watched");
            }
            Err(error) => tracing::debug!(kind, error = &error as &dyn std::error::Error, "not reconciled"),
        }
    }
}
