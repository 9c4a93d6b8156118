//! On real servers. What is in `every_version` runs on all supported versions, the rest on one.

mod every_version;
mod world;
