//! The login that makes databases and roles, and where its password is.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{InvalidField, Span};

/// The login that makes databases and roles: CREATEDB and CREATEROLE, not superuser. Its password comes from exactly one of
/// `passwordFile`, `secretRef` and `awsSecret`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provisioner {
    /// The login's name; default: key `username` of the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file on the control plane's machine whose first line is the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub password_file: Option<PathBuf>,
    /// A Kubernetes Secret with the keys `username` and `password`, of type `kubernetes.io/basic-auth` for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// A secret in AWS Secrets Manager: JSON with the keys `username` and `password`. Where it does not exist and the topology
    /// is `aurora`, pgtenant makes the provisioner with the cluster's master login and writes it there. With `idleUsername` and
    /// `idlePassword` of a second login pgtenant can replace the passwords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_secret: Option<AwsSecretRef>,
    /// With `awsSecret`: its password is replaced when it is older than this, as `30d`; none: when somebody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub rotate_every: Option<Span>,
    /// The database in which it works when it is in no tenant's.
    #[serde(default = "maintenance_database")]
    pub database: String,
}

/// A secret in AWS Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsSecretRef {
    /// The secret's name or ARN.
    pub name: String,
    /// The region; default: the one of the environment or the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl fmt::Display for AwsSecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AWS secret {}", self.name)
    }
}

/// A Kubernetes Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// The Secret's name.
    pub name: String,
    /// The Secret's namespace.
    pub namespace: String,
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}/{}", self.namespace, self.name)
    }
}

impl Provisioner {
    /// A login whose password is the first line of a file.
    #[must_use]
    pub fn from_file(username: impl Into<String>, password_file: PathBuf) -> Self {
        let (username, password_file) = (Some(username.into()), Some(password_file));
        let database = maintenance_database();
        Self { username, password_file, secret_ref: None, aws_secret: None, rotate_every: None, database }
    }

    /// The secret in which pgtenant may replace the password: not where the settings say who logs in.
    #[must_use]
    pub fn kept_secret(&self) -> Option<&AwsSecretRef> {
        self.aws_secret.as_ref().filter(|_| self.username.is_none())
    }

    pub(crate) fn problem(&self) -> Option<InvalidField> {
        let sources = [self.password_file.is_some(), self.secret_ref.is_some(), self.aws_secret.is_some()];
        match sources.into_iter().filter(|named| *named).count() {
            0 => Some(InvalidField::new("provisioner", "name passwordFile, secretRef or awsSecret")),
            1 if self.password_file.is_some() && self.username.is_none() => {
                Some(InvalidField::new("provisioner.username", "missing"))
            }
            1 if self.rotate_every.is_some() && self.kept_secret().is_none() => {
                let why = "needs awsSecret, and no username: the secret says which of its two logins is in use";
                Some(InvalidField::new("provisioner.rotateEvery", why))
            }
            1 => None,
            _ => {
                Some(InvalidField::new("provisioner", "name one of passwordFile, secretRef and awsSecret, not several"))
            }
        }
    }
}

fn maintenance_database() -> String {
    "postgres".to_owned()
}
