//! What pgtenant works with, on this machine: PostgreSQL clusters (a primary, and a standby that streams from it, with TLS and
//! SCRAM only), a Kubernetes API server, and moto in the place of Amazon.
//!
//! `pgtenant dev` and the tests run on these. [`Cluster`] and [`Kubernetes`] are what callers want; each keeps everything under
//! one folder, and goes on where it was when it is opened again. A cluster never lets two of its servers be writable.
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
mod ha;
mod initdb;
mod kubernetes;
mod lock;
mod moto;
mod node;
mod part;
mod pgbouncer;
mod place;
mod ports;
mod postmaster;
mod process;
mod reach;
mod tls;

pub use binaries::{Binaries, SUPPORTED_VERSIONS};
pub use cluster::{Cluster, ClusterOptions};
pub use error::{Error, Result};
pub use ha::{
    Lab, LabAdmin, LabEndpoints, LabKind, LabNode, LabOptions, LabPooler, LabRole, LabService, LabStatus, Lifetime,
};
pub use kubernetes::{Kubernetes, KubernetesBinaries, KubernetesOptions};
pub use moto::{Moto, MotoProgram};
pub use node::{Node, NodeOptions};
pub use pgbouncer::{PgBouncer, PgBouncerOptions};
pub use ports::free_port;
pub use tls::{CertificateAuthority, IssuedCertificate};
