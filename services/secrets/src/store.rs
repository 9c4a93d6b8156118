//! One place that keeps credentials, and what can go wrong with it.

use std::fmt;
use std::io;
use std::pin::Pin;

use pgtenant_model::{Credential, CredentialTarget};
use uuid::Uuid;

use crate::aws::AwsFault;
use crate::kubernetes::KubernetesFault;
use crate::trial;

/// A future of a trait that is used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place that keeps credentials.
///
/// Every call can be repeated: putting what is there already changes nothing, deleting what is not there is done. Dropping a
/// future does not undo what it has begun, and may leave it half way: call again.
pub trait SecretStore: Send + Sync + fmt::Debug {
    /// The kind in one word, as in a cluster's spec: `file`.
    fn kind(&self) -> &'static str;

    /// The credential's name in this store, as `customer/idp-dev/idp-dev-my-db-read.json`. It is no secret.
    fn location(&self, target: &CredentialTarget) -> String;

    /// Writes all of `entries`, each completely or not at all. When it returns `Ok` they outlive a power failure.
    ///
    /// # Errors
    /// The first that could not be written; others may have been.
    fn put_many<'a>(&'a self, entries: &'a [(CredentialTarget, Credential)]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Reads one. A store for which reading is dear and which can tell otherwise that it holds the [`version`](crate::version)
    /// `expected` answers [`Held::Unread`]; whoever needs the password does not say what is expected.
    ///
    /// # Errors
    /// [`Fault::Broken`] when something is there that is no credential; any other fault says that the store did not answer, and
    /// nothing of what it holds.
    fn get<'a>(
        &'a self,
        target: &'a CredentialTarget,
        expected: Option<Uuid>,
    ) -> BoxFuture<'a, Result<Held, StoreError>>;

    /// What AWS calls a credential that is there; none: it is not, or this is no store of AWS.
    ///
    /// # Errors
    /// The store did not answer.
    fn arn<'a>(&'a self, _: &'a CredentialTarget) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Whether the store itself is there. Asked before a credential that is missing is believed to be lost: a volume that
    /// is not mounted has lost none.
    ///
    /// # Errors
    /// It is not.
    fn reach(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Tries what claims will need of the store, and leaves no trace. Says what works.
    ///
    /// # Errors
    /// What it can not do.
    fn try_out(&self) -> BoxFuture<'_, Result<String, StoreError>> {
        Box::pin(trial::write_read_remove(self))
    }

    /// Removes all of `targets`, durably.
    ///
    /// # Errors
    /// The first that could not be removed; others may have been.
    fn delete_many<'a>(
        &'a self,
        targets: &'a [CredentialTarget],
        removal: Removal,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// What is in a store under one name.
#[derive(Debug, Clone)]
pub enum Held {
    /// Nothing.
    Missing,
    /// A credential.
    Credential(Credential),
    /// One whose password can be told, and around which something is not as the store keeps it: it is to be written again.
    Blemished(Credential),
    /// As it should be; the credential itself is in another store of the list.
    Reference,
    /// The version that was expected; it was not read.
    Unread,
    /// Something else, and why it is no credential.
    Broken(String),
}

impl Held {
    /// The credential, where there is one.
    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        match self {
            Self::Credential(credential) | Self::Blemished(credential) => Some(credential),
            Self::Missing | Self::Reference | Self::Unread | Self::Broken(_) => None,
        }
    }
}

/// How a credential is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// So that it can be had back for a while, where the store knows such a thing.
    Usual,
    /// For good.
    Final,
}

/// What a store was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Write a credential.
    Write,
    /// Read one.
    Read,
    /// Remove one.
    Delete,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Delete => "delete",
        })
    }
}

/// A store that could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("store {store:?} can not {action} {location}")]
pub struct StoreError {
    /// The store's kind.
    pub store: &'static str,
    /// What it was asked to do.
    pub action: Action,
    /// The credential's name in the store.
    pub location: String,
    /// Why.
    #[source]
    pub fault: Fault,
}

/// Why a store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Something is there that is no credential. The text quotes nothing of it.
    #[error("it is not a credential: {0}")]
    Broken(String),
    /// Something of that name is there that is somebody else's. It is not touched.
    #[error("{0}")]
    Foreign(String),
    /// What is read is not what was written a moment ago.
    #[error("what is read is not what was written")]
    Changed,
    /// Kubernetes refused, or did not answer.
    #[error("{}", .0.text())]
    Kubernetes(KubernetesFault),
    /// Amazon refused, or did not answer.
    #[error("{}", .0.text())]
    Aws(AwsFault),
    /// The operating system refused.
    #[error("{step}")]
    Io {
        /// At which step.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl Fault {
    pub(crate) fn io(step: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::Io { step, source: errno.into() }
    }

    /// Whether the store said nothing: it, or the way to it, is out of order.
    #[must_use]
    pub fn silent(&self) -> bool {
        match self {
            Self::Kubernetes(fault) => fault.silent(),
            Self::Aws(fault) => fault.silent(),
            Self::Broken(_) | Self::Foreign(_) | Self::Changed | Self::Io { .. } => false,
        }
    }

    pub(crate) fn at(self, store: &'static str, action: Action, location: String) -> StoreError {
        StoreError { store, action, location, fault: self }
    }
}

impl StoreError {
    /// What a person can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        let source = match &self.fault {
            Fault::Io { source, .. } => source,
            Fault::Broken(_) => return "a new password replaces it",
            Fault::Foreign(_) => return "remove it or give it another name; it is never overwritten",
            Fault::Changed => return "see who else writes there, and whether the store keeps what it is given",
            Fault::Kubernetes(fault) => return fault.advice(),
            Fault::Aws(fault) => return fault.advice(),
        };
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space where the store's directory is",
            io::ErrorKind::PermissionDenied => {
                "give the user that runs pgtenant read, write and search permission on the store's directories"
            }
            io::ErrorKind::ReadOnlyFilesystem => "mount the store's file system for writing",
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                "move away what is in the place of the store's file or directory; symbolic links are not followed"
            }
            _ => "look at the store's directory and its file system",
        }
    }

    /// What it could not do and why, in one line.
    #[must_use]
    pub fn what(&self) -> String {
        match &self.fault {
            Fault::Io { step, source } => format!("{self}: {step}: {source}"),
            fault => format!("{self}: {fault}"),
        }
    }

    /// What, why, and what to do, in one line.
    #[must_use]
    pub fn explain(&self) -> String {
        format!("{}; {}", self.what(), self.advice())
    }
}
