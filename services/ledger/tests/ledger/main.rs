//! The ledger on a real server: who may work on what, and in which order things become visible.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod clusters;
mod events;
mod hosts;
mod restore_objects;
mod restores;
mod rotation;
mod slack;
mod test_restores;
mod work;
mod world;
