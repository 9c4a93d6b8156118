//! A Kubernetes API server beside the rest, so that `kubectl apply` can be tried without a cluster.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pgtenant_lab::{Kubernetes as Lab, KubernetesBinaries, KubernetesOptions, free_port};
use pgtenant_ledger::{EVENTS_CHANNEL, Ledger, events_after};
use pgtenant_operator::{Client, Target, WebhookSettings, ensure_namespace, install};

use super::Result;
use super::folder::Folder;
use crate::kubernetes::Kubernetes;

/// The control plane's own namespace there.
const NAMESPACE: &str = "pgtenant-system";
/// Events that are read at a time.
const PAGE: i64 = 500;

/// Starts it, with the definitions and webhooks in place; returns it and the door to it.
pub(super) async fn start(folder: &Folder, progress: impl FnMut(&str) + Send) -> Result<(Lab, Kubernetes)> {
    let binaries = KubernetesBinaries::locate()?;
    let lab = Lab::open_or_create(KubernetesOptions::new(folder.root().join("kubernetes"), binaries), progress).await?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let target = Target::Url(format!("https://{listen}"));
    let webhook = WebhookSettings { listen, target: target.clone(), tls_dir: None };
    let door = Kubernetes::new(Some(lab.kubeconfig()), NAMESPACE.to_owned(), webhook).await?;
    ensure_namespace(&door.client, NAMESPACE).await?;
    install(&door.client, &target).await?;
    Ok((lab, door))
}

/// Makes the namespace of every claim: here nobody else does, and the other doors' claims need theirs, too.
pub(super) async fn follow_namespaces(client: Client, ledger: Ledger) {
    let mut made = BTreeSet::new();
    let mut last = 0;
    loop {
        if let Ok(mut listener) = ledger.listen(&[EVENTS_CHANNEL]).await {
            loop {
                if let Err(error) = make_namespaces(&client, &ledger, &mut made, &mut last).await {
                    tracing::warn!(%error, "a namespace was not made");
                }
                if listener.recv().await.is_err() {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn make_namespaces(client: &Client, ledger: &Ledger, made: &mut BTreeSet<String>, last: &mut i64) -> Result<()> {
    loop {
        let events = async { events_after(&mut *ledger.acquire().await?, *last, None, PAGE).await };
        let events = events.await?;
        for event in &events {
            if let Some(namespace) = &event.namespace
                && !made.contains(namespace)
            {
                ensure_namespace(client, namespace).await?;
                made.insert(namespace.clone());
            }
            *last = event.id;
        }
        if events.is_empty() {
            return Ok(());
        }
    }
}
