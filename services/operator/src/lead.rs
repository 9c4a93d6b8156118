//! One replica leads: it reconciles objects and keeps the webhooks' certificate. All of them answer the webhooks.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use pgtenant_ledger::Ledger;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::events::Audience;
use crate::heard::Channels;
use crate::retry::{Retries, patiently};
use crate::watch::Known;
use crate::webhook::{WebhookSettings, answer, keep_certificate};
use crate::{cluster, database, events, restore};

/// The Lease's name.
const LEASE: &str = "pgtenant";
/// A replica that does not renew for so long has lost it; in seconds.
const LEASE_SECONDS: u64 = 15;
/// It renews so long before the end; in seconds.
const GRACE_SECONDS: u64 = 5;
/// For giving the Lease back; another replica waits for its end otherwise.
const GIVE_BACK: Duration = Duration::from_secs(3);
/// Before a replica leads again in which a part has panicked.
const PAUSE: Duration = Duration::from_secs(1);

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
    let answer = async {
        if let Some(webhook) = &settings.webhook {
            stop.run_until_cancelled(answer(&context, &settings.namespace, webhook, &stop)).await;
        }
    };
    tokio::join!(answer, take_the_lead(&context, &settings, &stop));
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
    let Channels { announcer, databases, restores, clusters, news } = Channels::new();
    let (known, writer) = Known::new();
    let (known_restores, restores_writer) = Known::new();
    let audience = Audience { databases: known.clone(), restores: known_restores.clone() };
    let secrets: Api<PartialObjectMeta<Secret>> = Api::all(context.client.clone());
    let ledger = context.ledger.clone();
    let context = || Arc::clone(context);
    // A task each: together they are too much for one stack.
    let mut parts = JoinSet::new();
    parts.spawn(async move { announcer.run(&ledger).await });
    parts.spawn(database::run(context(), databases, writer, known.listed.clone()));
    parts.spawn(database::watch_secrets(context(), secrets));
    parts.spawn(restore::run(context(), restores, restores_writer, known_restores.listed));
    parts.spawn(cluster::run(context(), clusters));
    parts.spawn(cluster::sweep(context()));
    parts.spawn(database::sweep(context(), known));
    parts.spawn(events::follow(context(), audience, news));
    if let Some(webhook) = settings.webhook.clone() {
        parts.spawn(keep_certificate(context(), settings.namespace.clone(), webhook));
    }
    if let Some(Err(error)) = parts.join_next().await {
        tracing::error!(error = ?error, "a part of the Kubernetes door panicked");
        tokio::time::sleep(PAUSE).await;
    }
}
