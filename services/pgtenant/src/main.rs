//! pgtenant: databases with roles and credentials on shared PostgreSQL clusters, by self-service.
//!
//! One binary: the control plane and the command line that speaks to it.

mod cli;
mod config;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Only fails where another provider was installed before, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run()
}
