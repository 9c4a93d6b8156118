//! Amazon RDS as pgtenant needs it: an Aurora cluster is described, made where there is none, and compared with its
//! description. Nothing is ever deleted.

mod actions;
mod bundle;
mod client;
mod cluster;
mod fault;
mod findings;
mod make;
mod proxy;
mod wanted;
mod window;

pub use actions::actions;
pub use bundle::{CaBundle, NoBundle};
pub use client::Rds;
pub use cluster::{Capacity, Cluster, ClusterMember, Instance, Maintenance, MasterSecret, Parameters};
pub use fault::RdsFault;
pub use findings::Facts;
pub use make::{Step, next_step};
pub use proxy::{MOST_SECRETS, PROXY_AUTHORITY, Registered};
pub use wanted::{Wanted, backup_retention};
pub use window::backup_window;
