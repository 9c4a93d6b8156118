//! pgtenant: databases with roles and credentials on shared PostgreSQL clusters, by self-service.
//!
//! One binary: the control plane and the command line that speaks to it.

mod attach;
mod cli;
mod compose;
mod config;
mod dev;
mod kubernetes;
mod serve;
mod signals;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
    no_core_dumps();
    // Only fails where another provider was installed before, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run()
}

/// The fault point of `PGTENANT_FAULT`, for tests.
///
/// # Errors
/// It can not be read.
fn faults() -> Result<pgtenant_engine::Faults, pgtenant_model::InvalidField> {
    pgtenant_engine::Faults::parse(&std::env::var("PGTENANT_FAULT").unwrap_or_default())
}

/// Passwords are in this process's memory for moments: none of them is to end in a file of a crash.
fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // A lower limit is always allowed; where it is not, the system's own setting holds.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
