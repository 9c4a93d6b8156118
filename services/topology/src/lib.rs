//! Shared clusters: where the primary is, and how healthy the members are.
//!
//! A [`Topology`] remembers the primary and asks the members again when somebody finds that it moved. At rest it holds no
//! connection.

mod observation;
mod streaming;
mod topology;

pub use observation::Observation;
pub use streaming::{ProbeOptions, StreamingProbe};
pub use topology::{NoPrimary, Topology};
