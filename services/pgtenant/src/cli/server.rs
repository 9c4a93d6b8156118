//! `dev`, `serve` and `migrate`: the commands that are the control plane.

use std::error::Error;

use super::error::{CliError, Outcome, Result};
use super::server_args::{DevArgs, MigrateArgs, ServeArgs};
use crate::config::{self, Settings, SettingsArgs};
use crate::{dev, serve};

pub(super) fn dev(args: DevArgs) -> Result<Outcome> {
    run(dev::run(args))
}

pub(super) fn serve(args: &ServeArgs) -> Result<Outcome> {
    run(serve::run(settings(&args.settings)?))
}

pub(super) fn migrate(args: &MigrateArgs) -> Result<Outcome> {
    run(serve::migrate(settings(&args.settings)?))
}

/// The settings, all of which can be used.
pub(super) fn settings(args: &SettingsArgs) -> Result<Settings> {
    config::load(args, std::env::vars_os()).settings().map_err(|invalid| {
        CliError::failed(format!("the settings can not be used:\n{invalid}"))
            .hint("`pgtenant config check` shows every setting and where it comes from")
    })
}

/// Of each worker. A restore in place from RDS is nested so deeply that, without optimisation, it needs more than the usual 2 MiB, and a
/// stack that overflows ends the process. What is not used of it takes no memory.
const STACK: usize = 8 << 20;

fn run(work: impl Future<Output = Result<(), Box<dyn Error>>>) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .build()
        .map_err(|error| CliError::failed(format!("can not start: {error}")))?;
    let result = runtime.block_on(work);
    // Nothing is waited for any more: what was under way has had its time.
    runtime.shutdown_background();
    match result {
        Ok(()) => Ok(Outcome::Done),
        Err(error) => Err(explain(&*error)),
    }
}

/// An error with its sources; what follows `hint:` in it is advice.
pub(super) fn explain(error: &(dyn Error + 'static)) -> CliError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    match text.split_once("\nhint: ") {
        Some((message, hint)) => CliError::failed(message).hint(hint),
        None => CliError::failed(text),
    }
}
