//! On real servers. What is in `every_version` runs on all supported versions, the rest on one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can not go on has failed")]

mod drift;
mod every_version;
mod exchange;
mod fences;
mod hostile;
mod lookup;
mod own_login;
mod servers;
mod transfer;
mod trial;
mod world;
