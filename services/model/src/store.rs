//! Where the credentials of a cluster's databases are written, as the platform team describes it.

use std::collections::BTreeMap;
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
    /// Secrets in AWS Secrets Manager.
    AwsSecretsManager(AwsSecretsManagerStore),
}

/// Secrets in AWS Secrets Manager. Who pgtenant is there, the SDK's default chain says: IRSA, Pod Identity, a profile or the
/// environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsSecretsManagerStore {
    /// The secret's name; `{namespace}` and `{role}` are filled in.
    #[serde(default = "credential_name")]
    pub name: String,
    /// The region; default: the one of the environment or the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// For so many days a removed secret can be had back: 7 to 30.
    #[serde(default = "recovery_window")]
    #[schemars(range(min = 7, max = 30))]
    pub recovery_window_days: u8,
    /// The key that encrypts it: an id, an ARN or an alias; default: `aws/secretsmanager`, which other accounts can not use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// Further regions that hold a copy.
    #[serde(default)]
    pub replica_regions: Vec<String>,
    /// ARNs of roles, users or accounts, of other accounts as well, that may read each secret: its resource policy.
    #[serde(default)]
    pub readers: Vec<String>,
    /// Further tags, as for cost allocation.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Default for AwsSecretsManagerStore {
    fn default() -> Self {
        Self {
            name: credential_name(),
            region: None,
            recovery_window_days: recovery_window(),
            kms_key_id: None,
            replica_regions: Vec::new(),
            readers: Vec::new(),
            tags: BTreeMap::new(),
        }
    }
}

fn recovery_window() -> u8 {
    7
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
    /// Whether both would write the same files, Secrets or secrets.
    pub(crate) fn same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one == other,
            // One that names no region has the environment's, which may be the other's.
            (Self::AwsSecretsManager(one), Self::AwsSecretsManager(other)) => {
                let unsaid = one.region.is_none() || other.region.is_none();
                one.name == other.name && (unsaid || one.region == other.region)
            }
            (Self::Kubernetes(_) | Self::ExternalSecret(_), Self::Kubernetes(_) | Self::ExternalSecret(_)) => true,
            _ => false,
        }
    }

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
            Self::AwsSecretsManager(store) => store.problems(),
        }
    }
}

/// Tags that pgtenant writes itself: a further one may not be named so.
pub const SECRET_TAGS: [&str; 5] = ["managed-by", "namespace", "claim", "tier", "pgtenant.io/settings"];

impl AwsSecretsManagerStore {
    /// The limits are those of Secrets Manager: 50 tags; names of ASCII letters, digits and `/_+=.@-`.
    fn problems(&self) -> Vec<InvalidField> {
        let at = |field: &str, message: String| InvalidField::new(format!("awsSecretsManager.{field}"), message);
        let mut problems: Vec<_> = template_problem("awsSecretsManager.name", &self.name).into_iter().collect();
        let plain = self.name.replace("{namespace}", "").replace("{role}", "");
        if let Some(stray) = plain.chars().find(|c| !c.is_ascii_alphanumeric() && !"/_+=.@-".contains(*c)) {
            problems
                .push(at("name", format!("{stray:?} can not be in a secret's name: use letters, digits and /_+=.@-")));
        }
        if !(7..=30).contains(&self.recovery_window_days) {
            problems.push(at("recoveryWindowDays", format!("{} is not from 7 to 30", self.recovery_window_days)));
        }
        for (index, region) in self.replica_regions.iter().chain(&self.region).enumerate() {
            if region.is_empty() || !region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
                let field = if index < self.replica_regions.len() {
                    format!("replicaRegions[{index}]")
                } else {
                    "region".to_owned()
                };
                problems.push(at(&field, format!("{region:?} is not a region, as eu-west-1")));
            }
        }
        for (index, reader) in self.readers.iter().enumerate() {
            if !reader.starts_with("arn:") || reader.contains(['*', '"', ' ']) {
                problems.push(at(
                    &format!("readers[{index}]"),
                    format!("{reader:?} is not the ARN of a role, user or account"),
                ));
            }
        }
        if self.tags.len() > 50 - SECRET_TAGS.len() {
            problems.push(at("tags", format!("at most {}", 50 - SECRET_TAGS.len())));
        }
        for tag in self.tags.keys() {
            if tag.is_empty() || tag.starts_with("aws:") || SECRET_TAGS.contains(&tag.as_str()) {
                problems.push(at("tags", format!("{tag:?} can not be set: it is empty, AWS's own or pgtenant's")));
            }
        }
        problems
    }
}

fn template_problem(field: &str, template: &str) -> Option<InvalidField> {
    let fits = template.contains("{role}") && template.split('/').all(|part| part != "..");
    (!fits).then(|| InvalidField::new(field, "must contain {role} and no `..`"))
}
