//! Where credentials go.
//!
//! A [`SecretStore`] keeps the document of one role; [`Stores`] is the list of a cluster, in which every store holds every
//! credential. Order matters to whoever calls: a first credential is stored before
//! PostgreSQL knows it, one that takes another's place after it was proven.
//!
//! Stores know nothing of leases and fences: the caller checks its own just before it writes. No error and no `Debug` of this
//! crate shows a password.

mod access;
mod aws;
mod credential;
mod document;
mod file;
mod findings;
mod kubernetes;
mod store;
mod stores;
mod text;
mod trial;

pub use access::Access;
pub use aws::{
    AwsFault, AwsLogin, AwsSecrets, IdleLogin, PolicyOptions, control_plane_policy, external_secrets_policy,
    login_policy,
};
pub use credential::{Login, credential, fingerprint, same, uri, version};
pub use file::FileSecrets;
pub use findings::{Findings, Found};
pub use kubernetes::{ExternalSecrets, KubernetesFault, KubernetesSecrets};
pub use store::{Action, BoxFuture, Fault, Held, Removal, SecretStore, StoreError};
pub use stores::{StoreErrors, Stores};
