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
mod tamper;
mod time;
mod webhook;

use std::path::Path;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

pub use error::OperatorError;
pub use kube::Client;
pub use lead::{Settings, run};
pub use webhook::{Target, WebhookSettings, install};

use error::Result;

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
