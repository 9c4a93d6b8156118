//! What every part of the door works with.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt as _};
use pgtenant_ledger::Ledger;
use rand::RngExt as _;

use crate::error::OperatorError;

/// Who writes, in `metadata.managedFields`.
pub(crate) const MANAGER: &str = "pgtenant-operator";
/// Who says so, in Events.
pub(crate) const CONTROLLER: &str = "pgtenant.io/operator";

/// The first wait after a failure, and the longest.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(120));

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

/// How often each object was tried in vain, for the wait before the next try. Holds only objects that fail.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    counts: Mutex<HashMap<String, i32>>,
}

impl Retries {
    /// Exponential with jitter, so that many objects that failed together do not come back together.
    pub(crate) fn failed(&self, uid: &str) -> Duration {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid.to_owned()).or_default();
        let ceiling = WAIT.0.mul_f64(2_f64.powi(*count)).min(WAIT.1);
        *count = (*count + 1).min(12);
        ceiling.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    pub(crate) fn succeeded(&self, uid: &str) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// Looked at again around `wait` from now, should nothing be heard until then.
pub(crate) fn again(wait: Duration) -> Action {
    Action::requeue(wait.mul_f64(rand::rng().random_range(0.8..=1.2)))
}

/// A reconciliation of an object of `kind` has ended.
pub(crate) fn count(kind: &'static str, result: &'static str) {
    metrics::counter!("pgtenant_kubernetes_reconciles_total", "kind" => kind, "result" => result).increment(1);
}
