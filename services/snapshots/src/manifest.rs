//! What is in a dump: `manifest.json`, and `verified.json` beside it.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use pgtenant_model::ClaimKey;
use serde::{Deserialize, Serialize};

use crate::object::check_part;
use crate::{DumpId, SnapshotError};

/// The format that is written.
pub(crate) const FORMAT: u32 = 1;
/// The longest manifest: about 100,000 tables.
pub(crate) const MOST_BYTES: usize = 16 << 20;
const SHA256_DIGITS: usize = 64;

/// What is in a dump. It holds no row, but the names of tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// Its name.
    pub id: DumpId,
    /// The shared cluster.
    pub cluster: String,
    /// The tenant.
    pub namespace: String,
    /// The claim.
    pub name: String,
    /// The database on the cluster.
    pub database: String,
    /// What it shows: the database as it was then, to the second.
    pub at: DateTime<Utc>,
    /// As `server_version_num` has it: 150018.
    pub server_version: u32,
    /// The major version of the `pg_dump` that wrote the schema.
    pub pg_dump_major: u32,
    /// Public keys that it is encrypted for.
    pub recipients: Vec<String>,
    /// Its parts, by name.
    pub parts: Vec<PartEntry>,
    /// Tables that are in it.
    pub tables: Vec<TableEntry>,
    /// Bytes of all parts before compression.
    pub plain_bytes: u64,
    /// Bytes of all parts as they are stored.
    pub stored_bytes: u64,
    /// Who wrote it; none: somebody who held no private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Seal>,
}

/// A part of a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartEntry {
    /// Its name.
    pub name: String,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// Bytes as they are stored.
    pub stored_bytes: u64,
    /// Of the bytes as they are stored, in hexadecimal digits.
    pub sha256: String,
}

/// A table that is in a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TableEntry {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Its bytes on the server.
    pub bytes: u64,
}

/// Says that a holder of a private key wrote a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seal {
    /// The public key of that private key.
    pub by: String,
    /// HMAC-SHA-256 of the manifest without this seal, in hexadecimal digits.
    pub mac: String,
}

/// What whoever writes a dump knows of it at its end.
#[derive(Debug, Clone, Default)]
pub struct DumpFacts {
    /// As `server_version_num` has it.
    pub server_version: u32,
    /// Of `pg_dump`.
    pub pg_dump_major: u32,
    /// Tables that are in it.
    pub tables: Vec<TableEntry>,
}

/// That a dump was restored for a try, and found whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verified {
    /// 1.
    pub format: u32,
    /// The dump.
    pub id: DumpId,
    /// When.
    pub at: DateTime<Utc>,
    /// By whom or what, for people.
    pub by: String,
}

/// The little that every format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u64,
}

impl Manifest {
    /// Reads what is at `location` and is to be the manifest of this dump.
    pub(crate) fn decode(
        bytes: &[u8],
        location: &str,
        cluster: &str,
        key: &ClaimKey,
        id: DumpId,
    ) -> Result<Self, SnapshotError> {
        let manifest: Self = decode(bytes, location)?;
        match manifest.problem(cluster, key, id) {
            None => Ok(manifest),
            Some(what) => Err(SnapshotError::corrupt(location, what)),
        }
    }

    fn problem(&self, cluster: &str, key: &ClaimKey, id: DumpId) -> Option<String> {
        if (self.cluster.as_str(), self.namespace.as_str(), self.name.as_str(), self.id)
            != (cluster, key.namespace(), key.name(), id)
        {
            return Some(format!("it is of {}/{}/{}/{}", self.cluster, self.namespace, self.name, self.id));
        }
        if self.at != self.id.at() {
            return Some(format!("it is of {}, and its name of {}", self.at, self.id.at()));
        }
        let mut names = HashSet::new();
        for PartEntry { name, sha256, .. } in &self.parts {
            if let Err(error) = check_part(name) {
                return Some(error.to_string());
            }
            if !names.insert(name) {
                return Some(format!("it has two parts {name:?}"));
            }
            let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if sha256.len() != SHA256_DIGITS || !sha256.bytes().all(digit) {
                return Some(format!("the SHA-256 of part {name:?} is none"));
            }
        }
        let sum = |size: fn(&PartEntry) -> u64| self.parts.iter().map(size).try_fold(0, u64::checked_add);
        if sum(|part| part.plain_bytes) != Some(self.plain_bytes)
            || sum(|part| part.stored_bytes) != Some(self.stored_bytes)
        {
            return Some("its sizes are not the sums of its parts' sizes".to_owned());
        }
        None
    }

    /// A part, by name.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&PartEntry> {
        self.parts.iter().find(|part| part.name == name)
    }
}

impl Verified {
    pub(crate) fn decode(bytes: &[u8], location: &str, id: DumpId) -> Result<Self, SnapshotError> {
        let verified: Self = decode(bytes, location)?;
        if verified.id != id {
            return Err(SnapshotError::corrupt(location, format!("it is of {}", verified.id)));
        }
        Ok(verified)
    }
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8], location: &str) -> Result<T, SnapshotError> {
    let corrupt = |error: serde_json::Error| SnapshotError::corrupt(location, error.to_string());
    // First, since a newer format may have fields that this one does not know.
    let AnyFormat { format } = serde_json::from_slice(bytes).map_err(corrupt)?;
    if format > u64::from(FORMAT) {
        return Err(SnapshotError::Newer { location: location.to_owned(), format, known: FORMAT });
    }
    if format != u64::from(FORMAT) {
        return Err(SnapshotError::corrupt(location, format!("there is no format {format}")));
    }
    serde_json::from_slice(bytes).map_err(corrupt)
}
