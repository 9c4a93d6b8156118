//! How connections to a cluster are secured.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::SecretRef;

/// How connections are secured, by the control plane and by tenants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSpec {
    /// As libpq's `sslmode`.
    #[serde(default)]
    pub sslmode: SslMode,
    /// A file with the certificate authority, PEM; neither this nor `caSecretRef`: the machine's own trust store, and no
    /// `ca.crt` for tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ca_file: Option<PathBuf>,
    /// A Kubernetes Secret whose key `ca.crt` is the certificate authority, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
}

/// libpq's `sslmode`, without the modes that allow clear text.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Encrypted, not authenticated.
    Require,
    /// The certificate's issuer is checked.
    VerifyCa,
    /// The certificate's issuer and host name are checked.
    #[default]
    VerifyFull,
}

impl SslMode {
    /// As libpq spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}
