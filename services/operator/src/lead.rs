//! One replica leads: it reconciles objects and keeps the webhooks' certificate. All of them answer the webhooks.

use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use chrono::Utc;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use pgtenant_ledger::Ledger;
use secrecy::ExposeSecret as _;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Retries};
use crate::crd::PostgresqlDatabase;
use crate::database::Known;
use crate::error::{OperatorError, Result};
use crate::heard::channels;
use crate::webhook::{Certificates, SECRET, WebhookSettings, serve, tell};
use crate::{cluster, database, events};

/// The Lease's name.
const LEASE: &str = "pgtenant";
/// A replica that does not renew for so long has lost it; in seconds.
const LEASE_SECONDS: u64 = 15;
/// It renews so long before the end; in seconds.
const GRACE_SECONDS: u64 = 5;
/// For giving the Lease back; another replica waits for its end otherwise.
const GIVE_BACK: Duration = Duration::from_secs(3);
/// How often the certificate is read again, should nothing be heard of it.
const CERTIFICATE: Duration = Duration::from_secs(60);
/// Until the API server has heard of a new authority, the former certificate is the one that it trusts.
const HEARSAY: Duration = Duration::from_secs(3);
/// After the API server did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// How this replica takes part.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The control plane's own namespace: of the Lease and of the webhooks' certificate.
    pub namespace: String,
    /// This replica, in the Lease and in Events; no other replica has it.
    pub identity: String,
    /// None: no webhooks are served; objects of former versions can not be read or written then.
    pub webhook: Option<WebhookSettings>,
}

/// Runs until `stop`. When this replica leads then, another one does a moment later.
pub async fn run(client: Client, ledger: Ledger, settings: Settings, stop: CancellationToken) {
    let identity = settings.identity.clone();
    let context = Arc::new(Context { client, ledger, identity, retries: Retries::default() });
    let answer = stop.run_until_cancelled(answer(&context, &settings, &stop));
    tokio::join!(answer, take_the_lead(&context, &settings, &stop));
}

/// Serves the webhooks, with whatever certificate there is at the time.
async fn answer(context: &Context, settings: &Settings, stop: &CancellationToken) {
    let Some(webhook) = &settings.webhook else { return };
    let certificates =
        patiently("the webhooks have no certificate yet", || certificates(context, settings, false, None)).await;
    let pem = |one: &Certificates| (one.certificate.clone().into_bytes(), one.key.expose_secret().as_bytes().to_vec());
    let (certificate, key) = pem(&certificates);
    let tls = match RustlsConfig::from_pem(certificate, key).await {
        Ok(tls) => tls,
        Err(error) => return tracing::error!(%error, "the webhooks' certificate can not be used"),
    };
    let reload = async {
        let mut known = certificates;
        let mut changes = std::pin::pin!(changes(context, settings));
        loop {
            changed(&mut changes).await;
            let Ok(found) = self::certificates(context, settings, false, Some(&known)).await else { continue };
            if !found.same(&known) {
                tokio::time::sleep(HEARSAY).await;
                let (certificate, key) = pem(&found);
                match tls.reload_from_pem(certificate, key).await {
                    Ok(()) => known = found,
                    Err(error) => tracing::error!(%error, "the webhooks' new certificate can not be used"),
                }
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

/// That somebody has written or removed the Secret with the certificate.
fn changes(context: &Context, settings: &Settings) -> impl Stream<Item = ()> + Send + use<> {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(context.client.clone(), &settings.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={SECRET}"));
    let made_here = settings.webhook.as_ref().is_some_and(|webhook| webhook.tls_dir.is_none());
    let written = |event: Result<watcher::Event<_>, _>| async move {
        matches!(event, Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_))).then_some(())
    };
    let watched = made_here.then(|| watcher(api, config).default_backoff().filter_map(written));
    futures::stream::iter(watched).flatten().chain(futures::stream::pending())
}

/// Returns when there is something to be read, and now and then.
async fn changed(changes: &mut (impl Stream<Item = ()> + Unpin)) {
    // That nothing was heard is no fault.
    tokio::time::timeout(CERTIFICATE, changes.next()).await.ok();
}

/// `former`: the authority that the API server trusts so far.
async fn certificates(
    context: &Context,
    settings: &Settings,
    renew: bool,
    former: Option<&Certificates>,
) -> Result<Certificates> {
    let Some(WebhookSettings { target, tls_dir, .. }) = &settings.webhook else {
        return Err(OperatorError::Certificate("no webhooks are served".to_owned()));
    };
    match tls_dir {
        Some(dir) => Certificates::read(dir),
        None => {
            let names = target.names();
            Certificates::of_secret(&context.client, &settings.namespace, &names, Utc::now(), renew, former).await
        }
    }
}

/// Leads whenever this replica has the Lease.
async fn take_the_lead(context: &Arc<Context>, settings: &Settings, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let Some(manager) = stop.run_until_cancelled(lease(context, settings)).await else { return };
        let (mut leads, task) = manager.watch().await;
        stop.run_until_cancelled(lead_while(&mut leads, context, settings)).await;
        // That nobody listens any more makes it give the Lease back.
        drop(leads);
        tokio::time::timeout(GIVE_BACK, task).await.ok();
    }
}

async fn lease(context: &Context, settings: &Settings) -> LeaseManager {
    patiently("the Lease can not be asked for", || async {
        Ok(LeaseManagerBuilder::new(context.client.clone(), LEASE)
            .with_namespace(&settings.namespace)
            .with_identity(&settings.identity)
            .with_duration(LEASE_SECONDS)
            .with_grace(GRACE_SECONDS)
            .build()
            .await?)
    })
    .await
}

/// Until nobody tells any more who leads.
async fn lead_while(leads: &mut Receiver<bool>, context: &Arc<Context>, settings: &Settings) {
    loop {
        if leads.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        tracing::info!("this replica leads");
        metrics::gauge!("pgtenant_kubernetes_leader").set(1.0);
        tokio::select! {
            _ = leads.wait_for(|leads| !*leads) => {}
            () = lead(context, settings) => {}
        }
        metrics::gauge!("pgtenant_kubernetes_leader").set(0.0);
        tracing::warn!("this replica does not lead any more");
    }
}

/// All that one replica does for all. Dropping it ends all of it; it ends by itself only after a fault of this program.
async fn lead(context: &Arc<Context>, settings: &Settings) {
    let (announcer, heard, clusters, news) = channels();
    let writer = reflector::store::Writer::<PostgresqlDatabase>::default();
    let known = Known { store: writer.as_reader(), listed: CancellationToken::new() };
    let secrets: Api<PartialObjectMeta<Secret>> = Api::all(context.client.clone());
    let (ledger, settings) = (context.ledger.clone(), settings.clone());
    let context = || Arc::clone(context);
    // A task each: together they are too much for one stack.
    let mut parts = JoinSet::new();
    parts.spawn(async move { announcer.run(&ledger).await });
    parts.spawn(database::run(context(), heard, writer, known.listed.clone()));
    parts.spawn(database::watch_secrets(context(), secrets));
    parts.spawn(cluster::run(context(), clusters));
    parts.spawn(database::sweep(context(), known.clone()));
    parts.spawn(events::follow(context(), known, news));
    parts.spawn(keep_certificate(context(), settings));
    if let Some(Err(error)) = parts.join_next().await {
        tracing::error!(error = ?error, "a part of the Kubernetes door panicked");
        tokio::time::sleep(RETRY).await;
    }
}

/// Makes the certificate anew in time, and tells the API server of it: at once, and when it was told otherwise.
async fn keep_certificate(context: Arc<Context>, settings: Settings) {
    let Some(WebhookSettings { target, tls_dir, .. }) = &settings.webhook else { return std::future::pending().await };
    // Whoever makes the certificate tells the API server of it, too.
    if tls_dir.is_some() {
        return std::future::pending().await;
    }
    let mut changes = std::pin::pin!(changes(&context, &settings));
    let mut known = None;
    loop {
        let kept = patiently("the webhooks' certificate is not kept", || async {
            let found = certificates(&context, &settings, true, known.as_ref()).await?;
            tell(&context.client, target, &found.trusted).await?;
            Ok(found)
        });
        known = Some(kept.await);
        changed(&mut changes).await;
    }
}

/// Tries until it succeeds.
async fn patiently<T, F: Future<Output = Result<T>>>(fault: &str, attempt: impl Fn() -> F) -> T {
    let mut told = false;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) if !told => {
                tracing::warn!(error = &error as &dyn std::error::Error, "{fault}");
                told = true;
            }
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "{fault}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
