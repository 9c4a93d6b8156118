//! The settings of `serve` and `migrate`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pgtenant_model::ClusterSpec;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::slack::SlackSection;
use super::value::parse_size;

/// Everything that can be set; see [`super::field::FIELDS`] for meanings and defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// What REST is served on.
    pub(crate) listen: SocketAddr,
    /// The control plane's own database.
    pub(crate) ledger: LedgerSettings,
    /// The log.
    pub(crate) log: LogSettings,
    /// The apps folder.
    pub(crate) apps: AppsSettings,
    /// Kubernetes.
    pub(crate) kubernetes: KubernetesSettings,
    /// The periodic look.
    pub(crate) look: LookSettings,
    /// Work on claims.
    pub(crate) work: WorkSettings,
    /// REST.
    pub(crate) api: ApiLimits,
    /// Slack.
    pub(crate) slack: SlackSection,
    /// Stopping.
    pub(crate) shutdown: ShutdownSettings,
    /// Shared clusters by name.
    #[serde(skip)]
    pub(crate) clusters: BTreeMap<String, ClusterSpec>,
}

/// The control plane's own database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LedgerSettings {
    /// Without a password. None only where nothing was set, which the check of the settings reports.
    pub(crate) url: Option<String>,
    /// See [`LedgerSettings::password_file`].
    pub(crate) password: Option<SecretString>,
    /// Its first line is the password.
    pub(crate) password_file: Option<PathBuf>,
    /// Of the pool.
    pub(crate) max_connections: u32,
}

/// The log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSettings {
    /// Text or JSON.
    pub(crate) format: LogFormat,
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub(crate) level: String,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The apps folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppsSettings {
    /// None: no folder is followed.
    pub(crate) dir: Option<PathBuf>,
    /// Between two readings without a notice.
    #[serde(deserialize_with = "duration")]
    pub(crate) rescan: Duration,
    /// Claims that may vanish at once.
    pub(crate) max_removals: usize,
    /// `max_removals` does not count.
    pub(crate) allow_mass_removal: bool,
}

/// Kubernetes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KubernetesSettings {
    /// Whether there is any.
    pub(crate) enabled: bool,
    /// None: the Pod's ServiceAccount, or `KUBECONFIG`.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The control plane's own; none: the Pod's.
    pub(crate) namespace: Option<String>,
    /// Of the webhooks.
    pub(crate) webhook_listen: SocketAddr,
    /// In the control plane's namespace.
    pub(crate) webhook_service: String,
    /// In place of the Service.
    pub(crate) webhook_url: Option<String>,
    /// None: pgtenant makes its own certificate.
    pub(crate) webhook_tls_dir: Option<PathBuf>,
}

/// The periodic look.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LookSettings {
    /// Between two looks at a claim.
    #[serde(deserialize_with = "duration")]
    pub(crate) interval: Duration,
    /// Looks a second and cluster.
    pub(crate) max_per_second: f64,
}

/// Work on claims.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkSettings {
    /// Claims of a cluster at once.
    pub(crate) concurrency: usize,
    /// Of a claim under work.
    #[serde(deserialize_with = "duration")]
    pub(crate) lease: Duration,
    /// Between two looks at a cluster's members.
    #[serde(deserialize_with = "duration")]
    pub(crate) watch: Duration,
    /// Has `pg_dump` and `pg_restore`.
    pub(crate) postgresql_dir: Option<PathBuf>,
}

/// Limits of REST.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiLimits {
    /// Bytes.
    #[serde(deserialize_with = "size")]
    pub(crate) body_limit: usize,
    /// Until a request is answered.
    #[serde(deserialize_with = "duration")]
    pub(crate) request_timeout: Duration,
    /// Requests a second and token.
    pub(crate) rate_limit: u32,
    /// Requests at once and token.
    pub(crate) rate_burst: u32,
}

/// Stopping.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShutdownSettings {
    /// For work under way.
    #[serde(deserialize_with = "duration")]
    pub(crate) grace: Duration,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| serde::de::Error::custom("not a number of bytes"))
}

impl LedgerSettings {
    /// The password, from its file where there is one.
    ///
    /// # Errors
    /// Which file can not be read.
    pub(crate) fn password(&self) -> Result<Option<SecretString>, UnreadableSecret> {
        match &self.password_file {
            None => Ok(self.password.clone()),
            Some(path) => super::secret::read(path).map(Some),
        }
    }
}

pub(crate) use super::secret::UnreadableSecret;
