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
/// How often the Secret is read again, should nothing be heard of it.
const LOOK: Duration = Duration::from_secs(60);
/// How often files are read again, of which nothing is heard.
const FILES: Duration = Duration::from_secs(5);

/// Serves the webhooks with the certificate that is there, and with another one as soon as there is one.
pub(crate) async fn answer(context: &Context, namespace: &str, webhook: &WebhookSettings, stop: &CancellationToken) {
    let present = || present(&context.client, namespace, webhook);
    let (mut known, config) = patiently("the webhooks have no certificate yet", present).await;
    let tls = RustlsConfig::from_config(Arc::new(config));
    let reload = async {
        let mut changes = std::pin::pin!(changes(&context.client, namespace, webhook));
        loop {
            changed(&mut changes, webhook).await;
            let (found, config) = patiently("the webhooks' new certificate can not be used", present).await;
            if !found.same(&known) {
                tls.reload_from_config(Arc::new(config));
                known = found;
            }
        }
    };
    let serve = || serve(webhook.listen, tls.clone(), context.ledger.clone(), stop.clone());
    tokio::select! {
        () = patiently("the webhooks are not served", serve) => {}
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
    let (client, names) = (&context.client, webhook.target.names());
    let mut changes = std::pin::pin!(changes(client, &namespace, &webhook));
    let mut former: Option<Certificates> = None;
    loop {
        let read = || Certificates::find(client, &namespace);
        let secret = patiently("the webhooks' certificate can not be read", read).await;
        let found = secret.as_ref().and_then(Certificates::of).filter(|found| found.holds(&names, Utc::now()));
        let kept = match found {
            Some(found) if found.holds(&names, Utc::now() + RENEWAL) => found,
            // Where the Secret was spoilt, the former authority stays trusted.
            found => renew(client, &namespace, &webhook.target, found.or(former)).await,
        };
        let tell = || tell(client, &webhook.target, &kept.trusted);
        patiently("the API server is not told of the webhooks' certificate", tell).await;
        former = Some(kept);
        changed(&mut changes, &webhook).await;
    }
}

/// Makes one, which is trusted before anybody serves it. Returns another one where somebody else was faster.
async fn renew(client: &Client, namespace: &str, target: &Target, former: Option<Certificates>) -> Certificates {
    let names = target.names();
    let make = || std::future::ready(Certificates::make(&names, Utc::now(), former.as_ref()));
    let made = patiently("the webhooks' certificate can not be made", make).await;
    let tell = || tell(client, target, &made.trusted);
    patiently("the API server is not told of the webhooks' certificate", tell).await;
    if former.is_some() {
        tokio::time::sleep(HEARSAY).await;
    }
    let write = || async {
        let secret = Certificates::find(client, namespace).await?;
        let others = secret.as_ref().and_then(Certificates::of);
        if let Some(found) = others.filter(|found| found.holds(&names, Utc::now() + RENEWAL)) {
            return Ok(found);
        }
        made.put(client, namespace, secret.as_ref()).await?;
        tracing::info!("the webhooks have a new certificate");
        Ok(made.clone())
    };
    patiently("the webhooks' certificate can not be written", write).await
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
async fn changed(changes: &mut (impl Stream<Item = ()> + Unpin), webhook: &WebhookSettings) {
    let look = if webhook.tls_dir.is_some() { FILES } else { LOOK };
    // That nothing was heard is no fault.
    tokio::time::timeout(look, changes.next()).await.ok();
}
