//! The certificate over time: the leading replica makes it anew, the API server is told to trust it, and every replica serves
//! what it finds.

use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use chrono::Utc;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use super::certificate::Certificates;
use super::target::{Target, tell};
use super::{SECRET, WebhookSettings, serve};
use crate::context::Context;
use crate::error::{OperatorError, Result};
use crate::retry::patiently;

/// A certificate is made anew when it would not hold for so long.
const RENEWAL: Duration = Duration::from_secs(30 * 86400);
/// Until every API server has heard of an authority that one of them was told of.
const HEARSAY: Duration = Duration::from_secs(3);
/// How often the certificate is read again, should nothing be heard of it.
const LOOK: Duration = Duration::from_secs(60);

/// Serves the webhooks with the certificate that is there, and with another one as soon as there is one.
pub(crate) async fn answer(context: &Context, namespace: &str, webhook: &WebhookSettings, stop: &CancellationToken) {
    let present = || present(&context.client, namespace, webhook);
    let (mut known, config) = patiently("the webhooks have no certificate yet", present).await;
    let tls = RustlsConfig::from_config(Arc::new(config));
    let reload = async {
        let mut changes = std::pin::pin!(changes(&context.client, namespace, webhook));
        loop {
            changed(&mut changes).await;
            let (found, config) = patiently("the webhooks' new certificate can not be used", present).await;
            if !found.same(&known) {
                tls.reload_from_config(Arc::new(config));
                known = found;
            }
        }
    };
    let serving = serve(webhook.listen, tls.clone(), context.ledger.clone(), stop.clone());
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::error!(error = &error as &dyn std::error::Error, "the webhooks are not served");
        },
        () = reload => {}
    }
}

/// What is to be served now: nothing that the API server would not take.
async fn present(client: &Client, namespace: &str, webhook: &WebhookSettings) -> Result<(Certificates, ServerConfig)> {
    let found = match &webhook.tls_dir {
        Some(dir) => Certificates::read(dir)?,
        None => Certificates::find(client, namespace)
            .await?
            .as_ref()
            .and_then(Certificates::of)
            .filter(|found| found.holds(&webhook.target.names(), Utc::now()))
            .ok_or_else(|| {
                OperatorError::Certificate(format!("Secret {namespace}/{SECRET} holds none for its names"))
            })?,
    };
    let config = found.config()?;
    Ok((found, config))
}

/// Makes the certificate anew in time, and tells the API server of it: at once, and when it was told otherwise. For one replica.
pub(crate) async fn keep_certificate(context: Arc<Context>, namespace: String, webhook: WebhookSettings) {
    // Whoever else makes the certificate tells the API server of it, too.
    if webhook.tls_dir.is_some() {
        return std::future::pending().await;
    }
    let mut changes = std::pin::pin!(changes(&context.client, &namespace, &webhook));
    let mut known = None;
    loop {
        let kept = patiently("the webhooks' certificate is not kept", || {
            keep(&context.client, &namespace, &webhook.target, known.as_ref())
        });
        known = Some(kept.await);
        changed(&mut changes).await;
    }
}

/// `former`: what was there before; its authority stays trusted where the Secret was lost.
async fn keep(
    client: &Client,
    namespace: &str,
    target: &Target,
    former: Option<&Certificates>,
) -> Result<Certificates> {
    let (names, now) = (target.names(), Utc::now());
    let secret = Certificates::find(client, namespace).await?;
    let found = secret.as_ref().and_then(Certificates::of).filter(|found| found.config().is_ok());
    match found {
        Some(found) if found.holds(&names, now + RENEWAL) => {
            tell(client, target, &found.trusted).await?;
            Ok(found)
        }
        found => {
            let before = found.as_ref().or(former);
            let made = Certificates::make(&names, now, before)?;
            // Trusted before anybody serves it.
            tell(client, target, &made.trusted).await?;
            if before.is_some() {
                tokio::time::sleep(HEARSAY).await;
            }
            made.put(client, namespace, secret.as_ref()).await?;
            tracing::info!("the webhooks have a new certificate");
            Ok(made)
        }
    }
}

/// That somebody has written or removed the Secret with the certificate. Nothing is heard of files.
fn changes(client: &Client, namespace: &str, webhook: &WebhookSettings) -> impl Stream<Item = ()> + Send + use<> {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={SECRET}"));
    let written = |event: Result<watcher::Event<_>, _>| async move {
        use watcher::Event::{Apply, Delete, InitApply};
        matches!(event, Ok(Apply(_) | InitApply(_) | Delete(_))).then_some(())
    };
    let made_here = webhook.tls_dir.is_none();
    let watched = made_here.then(|| watcher(api, config).default_backoff().filter_map(written));
    futures::stream::iter(watched).flatten().chain(futures::stream::pending())
}

/// Returns when there is something to be read, and now and then.
async fn changed(changes: &mut (impl Stream<Item = ()> + Unpin)) {
    // That nothing was heard is no fault.
    tokio::time::timeout(LOOK, changes.next()).await.ok();
}
