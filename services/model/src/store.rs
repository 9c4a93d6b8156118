//! Where the credentials of a cluster's databases are written, as the platform team describes it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{InvalidField, check_label};

/// A place where credentials are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StoreSpec {
    /// JSON files, mode 0600.
    File(FileStore),
    /// Secrets in the claims' namespaces, named as the roles.
    Kubernetes(KubernetesStore),
    /// Manifests of the External Secrets Operator in the claims' namespaces, which fills Secrets from another store of the
    /// list. It holds no credential itself.
    ExternalSecret(ExternalSecretStore),
}

/// Secrets in the claims' namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubernetesStore {}

/// `ExternalSecret` resources (`external-secrets.io/v1`), which make Secrets named as the roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalSecretStore {
    /// The `ClusterSecretStore` that reads the other store.
    #[serde(default = "external_store")]
    pub cluster_secret_store: String,
    /// The credential's name in the other store; `{namespace}` and `{role}` are filled in.
    #[serde(default = "credential_name")]
    pub remote_key: String,
    /// How often it is read again, as `1h` or `30s`.
    #[serde(default = "external_refresh")]
    pub refresh_interval: String,
}

fn external_store() -> String {
    "aws-secrets".to_owned()
}

fn external_refresh() -> String {
    "1h".to_owned()
}

/// JSON files below a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileStore {
    /// An absolute path on the control plane's machine.
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// The file's path below `directory`, without `.json`; `{namespace}` and `{role}` are filled in.
    #[serde(default = "credential_name")]
    pub name: String,
}

fn credential_name() -> String {
    "customer/{namespace}/{role}".to_owned()
}

impl StoreSpec {
    /// Fields below `stores[…]`.
    pub(crate) fn problems(&self) -> Vec<InvalidField> {
        match self {
            Self::File(FileStore { directory, name }) => {
                let absolute = (!directory.is_absolute()).then(|| {
                    let message = format!("{} is not an absolute path", directory.display());
                    InvalidField::new("file.directory", message)
                });
                absolute.into_iter().chain(template_problem("file.name", name)).collect()
            }
            Self::Kubernetes(KubernetesStore {}) => Vec::new(),
            Self::ExternalSecret(ExternalSecretStore { cluster_secret_store, remote_key, refresh_interval }) => {
                let store = check_label("clusterSecretStore", cluster_secret_store)
                    .err()
                    .map(|error| InvalidField::new("externalSecret.clusterSecretStore", error.to_string()));
                let digits = refresh_interval.trim_end_matches(['h', 'm', 's']);
                let plain = digits.len() + 1 == refresh_interval.len() && digits.parse::<u32>().is_ok();
                let interval = (!plain).then(|| {
                    let message = format!("{refresh_interval:?} is not a number and one of h, m and s, as 1h");
                    InvalidField::new("externalSecret.refreshInterval", message)
                });
                let key = template_problem("externalSecret.remoteKey", remote_key);
                store.into_iter().chain(key).chain(interval).collect()
            }
        }
    }
}

fn template_problem(field: &str, template: &str) -> Option<InvalidField> {
    let fits = template.contains("{role}") && template.split('/').all(|part| part != "..");
    (!fits).then(|| InvalidField::new(field, "must contain {role} and no `..`"))
}
