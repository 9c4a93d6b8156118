//! What an application needs to log in.

use secrecy::SecretString;

use crate::{ClaimKey, SslMode, Tier};

/// Whose credential it is: enough to name it in any store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialTarget {
    /// The claim.
    pub key: ClaimKey,
    /// The tier.
    pub tier: Tier,
}

impl CredentialTarget {
    /// `{namespace}-{name}-{tier}`.
    #[must_use]
    pub fn role(&self) -> String {
        self.key.role(self.tier)
    }
}

/// The keys that every secret document has.
pub const CREDENTIAL_KEYS: [&str; 7] = ["username", "password", "endpoint", "port", "database", "sslmode", "uri"];
/// The key that one has where the cluster's authority is known.
pub const CA_KEY: &str = "ca.crt";
/// The keys that the read tier's has beside them where the cluster has an endpoint for reading.
pub const READ_KEYS: [&str; 3] = ["readEndpoint", "readPort", "readUri"];
/// The keys that those of the read and write tier have where there is a pooler. Not the admin tier's: migrations need a session.
pub const POOL_KEYS: [&str; 3] = ["poolEndpoint", "poolPort", "poolUri"];

/// The secret document of one role. `Debug` shows no password.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The login.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    /// Host for reading and writing.
    pub endpoint: String,
    /// Port of `endpoint`.
    pub port: u16,
    /// The database.
    pub database: String,
    /// As libpq's `sslmode`.
    pub sslmode: SslMode,
    /// A libpq connection URI with user, password and every host.
    pub uri: SecretString,
    /// The certificate authority, PEM, where one is known.
    pub ca_crt: Option<String>,
    /// Where the same login reads from standbys, which may be behind.
    pub read: Option<Address>,
    /// Where the same login shares connections with others, a transaction at a time.
    pub pool: Option<Address>,
}

/// Another place where a credential is good, beside its own endpoint.
#[derive(Debug, Clone)]
pub struct Address {
    /// A host.
    pub endpoint: String,
    /// Port of `endpoint`.
    pub port: u16,
    /// A libpq connection URI with user and password.
    pub uri: SecretString,
}
