//! Stored credentials as applications read them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Every tier.
pub const TIERS: [&str; 3] = ["read", "write", "admin"];

/// The secret document of one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The login.
    pub username: String,
    /// Its password.
    pub password: String,
    /// The host.
    pub endpoint: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// As libpq's.
    pub sslmode: String,
    /// For libpq.
    pub uri: String,
    /// PEM.
    pub ca: String,
}

impl Credential {
    /// Where a file store keeps it.
    pub fn file(secrets: &Path, namespace: &str, name: &str, tier: &str) -> PathBuf {
        secrets.join(format!("customer/{namespace}/{namespace}-{name}-{tier}.json"))
    }

    /// Reads one from a file store.
    pub fn read(secrets: &Path, namespace: &str, name: &str, tier: &str) -> Self {
        Self::try_read(secrets, namespace, name, tier).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Reads one from a file store; `Err` says why that is not possible.
    pub fn try_read(secrets: &Path, namespace: &str, name: &str, tier: &str) -> Result<Self, String> {
        let path = Self::file(secrets, namespace, name, tier);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    /// Reads one from a file store, as it is good at PgBouncer.
    pub fn pooled(secrets: &Path, namespace: &str, name: &str, tier: &str) -> Self {
        let text = fs::read_to_string(Self::file(secrets, namespace, name, tier)).expect("a document");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let [endpoint, port, uri] = ["poolEndpoint", "poolPort", "poolUri"]
            .map(|key| json[key].as_str().unwrap_or_else(|| panic!("no {key}")).to_owned());
        Self { endpoint, port: port.parse().expect("a port"), uri, ..Self::read(secrets, namespace, name, tier) }
    }

    /// All three of a database, in the order of [`TIERS`].
    pub fn of(secrets: &Path, namespace: &str, name: &str) -> [Self; 3] {
        TIERS.map(|tier| Self::read(secrets, namespace, name, tier))
    }

    /// Reads a document; `Err` says what is missing in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let get = |key: &str| json[key].as_str().map(str::to_owned).ok_or_else(|| format!("no text at {key}"));
        Ok(Self {
            username: get("username")?,
            password: get("password")?,
            endpoint: get("endpoint")?,
            port: get("port")?.parse().map_err(|_| "port is no port".to_owned())?,
            database: get("database")?,
            sslmode: get("sslmode")?,
            uri: get("uri")?,
            ca: get("ca.crt")?,
        })
    }
}

/// Every file below a store's folder, relative to it.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(relative) = path.strip_prefix(folder) {
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
