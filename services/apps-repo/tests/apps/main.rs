//! The apps folder and a real ledger.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a helper fails the test")]

mod follow;
mod guard;
mod refusals;
mod sync;
mod world;
