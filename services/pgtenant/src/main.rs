//! pgtenant: databases with roles and credentials on shared PostgreSQL clusters, by self-service.
//!
//! One binary: the control plane and the command line that speaks to it.

mod cli;
mod compose;
mod config;
mod dev;
mod serve;
mod signals;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
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
