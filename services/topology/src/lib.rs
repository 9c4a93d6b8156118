//! Shared clusters: where the primary is, and how healthy the members are.
//!
//! A [`Topology`] remembers the primary and asks the members again when somebody finds that it moved. At rest it holds no
//! connection.

mod aurora;
mod health;
mod observation;
mod probe;
mod streaming;
mod topology;

pub use aurora::Aurora;
pub use health::{Health, HealthProbe, HealthRole};
pub use observation::Observation;
pub use probe::ProbeOptions;
pub use streaming::StreamingProbe;
pub use topology::{NoPrimary, Source, Topology};
