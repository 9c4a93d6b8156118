//! PostgreSQL clusters on this machine: a primary, and a standby that streams from it, with TLS and SCRAM only.
//!
//! `pgtenant dev` and the tests run on these. [`Cluster`] is what callers want; it keeps everything under one folder, goes on
//! where it was when it is opened again, and never lets two of its servers be writable.
//!
//! Started by root, the servers run as user `postgres` (or `nobody`), since PostgreSQL refuses root. They end with this
//! process, even when it is killed: the kernel tells them (`setpriv --pdeathsig`).

mod account;
mod binaries;
mod cluster;
mod config;
mod control;
mod converge;
mod error;
mod files;
mod node;
mod place;
mod ports;
mod postmaster;
mod process;
mod tls;

pub use binaries::{Binaries, SUPPORTED_VERSIONS};
pub use cluster::{Cluster, ClusterOptions};
pub use error::{Error, Result};
pub use node::{Node, NodeOptions};
pub use ports::free_port;
pub use tls::{CertificateAuthority, IssuedCertificate};
