//! Kubernetes beside the rest: the client, and how this replica takes part.

use std::path::{Path, PathBuf};

use pgtenant_operator::{Client, Settings, Target, WebhookSettings, connect};
use rand::RngExt as _;

use crate::config::KubernetesSettings;

/// Where a Pod finds its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// An API server, and what is done there.
pub(crate) struct Kubernetes {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
}

impl Kubernetes {
    /// As the settings have it; none where Kubernetes is not used. Nothing is connected.
    ///
    /// # Errors
    /// Which setting is missing, or which kubeconfig can not be used.
    pub(crate) async fn of(settings: &KubernetesSettings) -> Result<Option<Self>> {
        let KubernetesSettings {
            enabled,
            kubeconfig,
            namespace,
            webhook_listen,
            webhook_service,
            webhook_url,
            webhook_tls_dir,
        } = settings.clone();
        if !enabled {
            return Ok(None);
        }
        let namespace = namespace.map_or_else(own_namespace, Ok)?;
        let target = match webhook_url {
            Some(url) => Target::Url(url),
            None => Target::Service { namespace: namespace.clone(), name: webhook_service },
        };
        let webhook = WebhookSettings { listen: webhook_listen, target, tls_dir: webhook_tls_dir };
        Self::new(kubeconfig, namespace, webhook).await.map(Some)
    }

    /// # Errors
    /// The kubeconfig can not be used.
    pub(crate) async fn new(kubeconfig: Option<PathBuf>, namespace: String, webhook: WebhookSettings) -> Result<Self> {
        let client = connect(kubeconfig.as_deref()).await.map_err(|error| hint(&error, kubeconfig.as_deref()))?;
        let settings = Settings { namespace, identity: identity(), webhook: Some(webhook) };
        Ok(Self { client, settings })
    }
}

fn hint(error: &pgtenant_operator::OperatorError, kubeconfig: Option<&Path>) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    match kubeconfig {
        Some(path) => format!("kubernetes.kubeconfig: {} can not be used: {text}", path.display()),
        None => format!("no Kubernetes: {text}\nhint: set kubernetes.kubeconfig, or kubernetes.enabled = false"),
    }
}

fn own_namespace() -> Result<String> {
    let variable = std::env::var("POD_NAMESPACE").ok().filter(|text| !text.is_empty());
    match variable.map_or_else(|| std::fs::read_to_string(NAMESPACE_FILE), Ok) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(_) => Err("kubernetes.namespace must be set outside of a Pod".into()),
    }
}

/// The host's name, which in a Pod is the Pod's, and something that no other process on it has.
fn identity() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}-{:08x}", rand::rng().random::<u32>())
}
