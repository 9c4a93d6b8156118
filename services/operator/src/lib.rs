//! Kubernetes as a door: claims and clusters as custom resources.
//!
//! Like every door it writes wishes into the ledger and shows what became of them; it never touches a tenant's cluster or a
//! secret. One replica leads and reconciles; webhooks are answered by all, and the work itself is shared through the ledger.
//!
//! Without Kubernetes nothing here runs.

mod cluster;
mod context;
pub mod convert;
pub mod crd;
mod database;
mod error;
mod events;
mod heard;
mod lead;
mod object;
mod restore;
mod retry;
mod tamper;
mod time;
mod watch;
mod webhook;

use std::path::Path;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Config};

pub use error::OperatorError;
pub use kube::Client;
pub use lead::{Settings, run};
pub use webhook::{Target, WebhookSettings, install};

use error::Result;
use object::ask;

/// A client of the API server: of `kubeconfig`, or of the Pod's ServiceAccount, or of `KUBECONFIG`.
///
/// # Errors
/// None of them can be used. Nothing is connected.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let fault = |error| OperatorError::Kubernetes(kube::Error::from(error));
            let file = Kubeconfig::read_from(path).map_err(fault)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(fault)?
        }
        None => Config::infer().await.map_err(kube::Error::InferConfig)?,
    };
    Ok(Client::try_from(config)?)
}

/// Makes a namespace that is not there.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn ensure_namespace(client: &Client, name: &str) -> Result<()> {
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    let api: Api<Namespace> = Api::all(client.clone());
    match ask(api.create(&PostParams::default(), &namespace)).await {
        Err(error) if error.code() == Some(409) => Ok(()),
        other => other.map(drop),
    }
}
