//! What is found in the store.

use pgtenant_model::Snapshot;

use crate::{DumpId, Manifest, SnapshotError, Verified};

/// A dump that is whole.
#[derive(Debug, Clone)]
pub struct Dump {
    /// What is in it.
    pub manifest: Manifest,
    /// When it was restored for a try; none: never.
    pub verified: Option<Verified>,
    /// Where it is kept, for people.
    pub location: String,
}

/// A dump whose manifest can not be used.
#[derive(Debug)]
pub struct BrokenDump {
    /// Its name.
    pub id: DumpId,
    /// Why.
    pub error: SnapshotError,
}

/// The dumps of a claim.
#[derive(Debug, Default)]
pub struct Listing {
    /// Newest first.
    pub dumps: Vec<Dump>,
    /// Newest first.
    pub broken: Vec<BrokenDump>,
}

/// What a writer that was killed has left, or one that is at work writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its name.
    pub id: DumpId,
    /// Bytes that are there of it.
    pub bytes: u64,
}

/// Whether dumps that are made now can be opened here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// With the private key of this recipient.
    With(String),
    /// There is no identity file: dumps are made and not sealed, and opened elsewhere.
    NoIdentity,
    /// The identity file has private keys, and none of a recipient.
    NotARecipient {
        /// Their public keys.
        held: Vec<String>,
    },
}

impl Dump {
    /// As people see it in a list.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot {
            id: self.manifest.id.snapshot().ok()?,
            at: self.manifest.at,
            size: Some(self.manifest.stored_bytes),
            contains: Some(true),
            verified_at: self.verified.as_ref().map(|verified| verified.at),
            location: self.location.clone(),
        })
    }
}
