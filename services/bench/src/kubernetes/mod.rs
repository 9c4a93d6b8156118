//! Kubernetes: what the door costs where claims are objects, and what objects cost at rest.
//!
//! On servers of its own: an API server with its etcd, a ledger, a primary and a standby. Credentials go into Secrets,
//! whichever door a claim has come through.

mod door;
mod rest;
mod server;
mod text;

use std::path::Path;

use pgtenant_lab::{Kubernetes as Server, KubernetesBinaries, KubernetesOptions, free_port};
use pgtenant_operator::{Target, connect, ensure_namespace, install};
use serde::Serialize;

use crate::api::{Api, Events};
use crate::args::{Args, Sizes};
use crate::bench::{Bench, Processes};
use crate::error::{BenchError, Result};
use crate::lab::{Described, KubernetesSection, Lab};
use crate::serve::Serve;

pub(crate) use door::{Door, Round};
pub(crate) use rest::Rest;
pub(crate) use server::ApiServer;
pub(crate) use text::details;

/// The control plane's own namespace.
const NAMESPACE: &str = "pgtenant-system";

/// Raw samples.
#[derive(Debug, Serialize)]
pub(crate) struct Kubernetes {
    pub(crate) door: Door,
    pub(crate) rest: Vec<Rest>,
}

/// Where it is measured.
struct Place<'a> {
    bench: Bench<'a>,
    server: ApiServer,
    api_server: u32,
    etcd: u32,
}

pub(crate) async fn measure(
    args: &Args,
    sizes: &Sizes,
    binary: &Path,
    folder: &Path,
    say: &(impl Fn(&str) + Sync),
) -> Result<Kubernetes> {
    let binaries = KubernetesBinaries::locate()?;
    let mut kubernetes =
        Server::open_or_create(KubernetesOptions::new(folder.join("kubernetes"), binaries), say).await?;
    let section = prepare(&kubernetes).await?;
    let mut lab = Lab::start(folder, Described::kubernetes(section), say).await?;
    let result = on(args, sizes, binary, &mut lab, &kubernetes, say).await;
    if let Some(log) = &args.log {
        std::fs::copy(lab.log_file(), log).map_err(BenchError::io("write", log))?;
    }
    lab.stop().await?;
    kubernetes.stop().await?;
    result
}

/// What a chart installs, for a control plane on this machine.
pub(crate) async fn prepare(kubernetes: &Server) -> Result<KubernetesSection> {
    let address = format!("127.0.0.1:{}", free_port());
    let section = KubernetesSection {
        enabled: true,
        kubeconfig: kubernetes.kubeconfig(),
        namespace: NAMESPACE.to_owned(),
        webhook_url: format!("https://{address}"),
        webhook_listen: address,
    };
    let client = connect(Some(&section.kubeconfig)).await?;
    ensure_namespace(&client, NAMESPACE).await?;
    install(&client, &Target::Url(section.webhook_url.clone())).await?;
    Ok(section)
}

async fn on(
    args: &Args,
    sizes: &Sizes,
    binary: &Path,
    lab: &mut Lab,
    kubernetes: &Server,
    say: &(impl Fn(&str) + Sync),
) -> Result<Kubernetes> {
    let [primary, standby, ledger] = lab.postmasters();
    let [etcd, api_server, ..] = kubernetes.pids()[..] else {
        return Err(BenchError::Serve("the API server has ended".to_owned()));
    };
    let server = ApiServer::new(kubernetes)?;
    let serve = Serve::start(binary, lab, &args.set).await?;
    let api = Api::new(lab.port, &lab.token)?;
    let events = Events::open(&api).await?;
    let processes = Processes { pgtenant: serve.pid(), primary, standby, ledger };
    let bench = Bench { processes, lab, api, events, progress: say };
    let place = Place { bench, server, api_server, etcd };
    let measured = async {
        rest::leads(&place.bench.api).await?;
        let door = door::measure(&place, sizes).await?;
        rest::template(&place).await?;
        Ok::<_, BenchError>(door)
    };
    let door = measured.await;
    if door.is_err() {
        say(&format!("the last lines of its log:\n{}", serve.last_words()));
    }
    serve.stop().await?;
    let door = door?;
    let rest = rest::measure(&place, sizes, binary, &args.set).await?;
    Ok(Kubernetes { door, rest })
}
