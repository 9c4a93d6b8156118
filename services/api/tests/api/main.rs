//! The door over a real ledger.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod access;
mod changes;
mod databases;
mod errors;
mod events;
mod idempotency;
mod limits;
mod reading;
mod slack;
mod sockets;
mod tokens;
mod world;
