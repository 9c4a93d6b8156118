//! Secrets that somebody else has changed or removed: their claim is looked at, and the engine puts them right.

use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use pgtenant_ledger::{look_now, within_deadline};
use pgtenant_model::{CLAIM_LABEL, CredentialTarget, MANAGED_BY, STORE_MANAGER};

use crate::context::Context;
use crate::tamper::tampered;

/// Watches for as long as this replica leads. What was removed while nobody watched is found by the periodic look.
pub(crate) async fn watch_secrets(context: Arc<Context>, secrets: Api<PartialObjectMeta<Secret>>) {
    let config = watcher::Config::default().labels(&format!("{MANAGED_BY}={STORE_MANAGER},{CLAIM_LABEL}"));
    let mut events = std::pin::pin!(watcher(secrets, config).default_backoff());
    let mut outage = false;
    while let Some(event) = events.next().await {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let (secret, removed) = match event {
            Ok(Apply(secret) | InitApply(secret)) => (secret, false),
            Ok(Delete(secret)) => (secret, true),
            Ok(Init) => continue,
            Ok(InitDone) => {
                outage = false;
                continue;
            }
            Err(error) if !outage => {
                outage = true;
                tracing::warn!(error = &error as &dyn std::error::Error, "Secrets are not watched");
                continue;
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "Secrets are not watched");
                continue;
            }
        };
        let of_role = CredentialTarget::of_role(&secret.namespace().unwrap_or_default(), &secret.name_any());
        if let Some(target) = of_role.filter(|target| removed || tampered(&secret.metadata, target)) {
            look_at(&target, &context).await;
        }
    }
}

async fn look_at(CredentialTarget { key, tier }: &CredentialTarget, context: &Context) {
    match within_deadline(async { look_now(&mut *context.ledger.acquire().await?, key).await }).await {
        Ok(true) => tracing::info!(claim = %key, %tier, "a Secret was changed by somebody else"),
        Ok(false) => {}
        Err(error) => tracing::warn!(claim = %key, error = &error as &dyn std::error::Error, "not looked at now"),
    }
}
