//! A control plane on servers of its own, for as long as something is measured on it.

use std::path::Path;

use crate::api::{Api, Events};
use crate::args::Args;
use crate::bench::{Bench, Processes};
use crate::error::{BenchError, Result};
use crate::lab::Lab;
use crate::serve::Serve;

/// Starts `pgtenant serve` on `lab`, does `work` with it, and stops both.
pub(crate) async fn on<T>(
    args: &Args,
    binary: &Path,
    mut lab: Lab,
    say: &(impl Fn(&str) + Sync),
    work: impl AsyncFnOnce(&Bench<'_>) -> Result<T>,
) -> Result<T> {
    let [primary, standby, ledger] = lab.postmasters();
    say("starting pgtenant");
    let serve = Serve::start(binary, &lab, &args.set).await?;
    let processes = Processes { pgtenant: serve.pid(), primary, standby, ledger };
    let measured = async {
        let api = Api::new(lab.port, &lab.token)?;
        let events = Events::open(&api).await?;
        work(&Bench { processes, lab: &lab, api, events, progress: say }).await
    };
    let measured = measured.await;
    if measured.is_err() {
        say(&format!("the last lines of its log:\n{}", serve.last_words()));
    }
    let stopped = serve.stop().await;
    if let Some(log) = &args.log {
        std::fs::copy(lab.log_file(), log).map_err(BenchError::io("write", log))?;
    }
    lab.stop().await?;
    let measured = measured?;
    stopped.map(|()| measured)
}
