//! The apps folder and a real ledger.

mod follow;
mod guard;
mod refusals;
mod sync;
mod world;
