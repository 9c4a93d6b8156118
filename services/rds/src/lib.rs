//! Amazon RDS as pgtenant needs it: an Aurora cluster is described, made where there is none, and compared with its
//! description; copies of it are made from snapshots and at points in time. Nothing is ever deleted but such a copy, and
//! snapshots that pgtenant has taken.

mod actions;
mod bundle;
mod client;
mod cluster;
mod copy;
mod fault;
mod findings;
mod make;
mod proxy;
mod snapshot;
mod wanted;
mod window;

pub use actions::{Permission, actions, permissions};
pub use bundle::{CaBundle, NoBundle};
pub use client::Rds;
pub use cluster::{Capacity, Cluster, ClusterMember, Instance, Maintenance, MasterSecret, Parameters};
pub use copy::{Copy, CopyName, CopyState, Origin, RESTORE_TAG, Removal};
pub use fault::RdsFault;
pub use findings::Facts;
pub use make::{Step, next_step};
pub use proxy::{MOST_SECRETS, PROXY_AUTHORITY, Registered};
pub use snapshot::{ClusterSnapshot, TAKEN_PREFIX};
pub use wanted::{Wanted, backup_retention};
pub use window::backup_window;
