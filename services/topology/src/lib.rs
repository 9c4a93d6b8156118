//! Shared clusters: where the primary is, and how healthy the members are.
//!
//! A [`Topology`] remembers the primary and asks the members again when somebody finds that it moved. At rest it holds no
//! connection; one that is kept to be told of changes is its owner's ([`Topology::listen`]).

mod aurora;
mod auto_failover;
mod haproxy;
mod health;
mod kind;
mod observation;
mod patroni;
mod probe;
mod pushes;
mod repmgr;
mod streaming;
mod told;
mod topology;

pub use aurora::Aurora;
pub use health::{Health, HealthProbe, HealthRole};
pub use kind::{NotSwitched, SwitchoverWish};
pub use observation::Observation;
pub use probe::{ProbeOptions, ToolLogin};
pub use pushes::Pushes;
pub use topology::{NoPrimary, Source, Topology};
