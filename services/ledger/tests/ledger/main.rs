//! The ledger on a real server: who may work on what, and in which order things become visible.

mod events;
mod work;
mod world;
