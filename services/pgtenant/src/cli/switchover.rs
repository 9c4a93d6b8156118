//! `pgtenant cluster switchover`: another primary.

use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use pgtenant_model::{OperationState, Switchover};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::confirm::confirm;
use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::http::Client;
use super::output::note;

/// Between looks at how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// The control plane gives up after two minutes, and a replica that was ended is followed by another one after a minute.
const PATIENCE: Duration = Duration::from_secs(240);
/// As a shell says that a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Arguments of `pgtenant cluster switchover`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Patroni or the monitor of pg_auto_failover is asked once, and the servers are watched until another one is the
primary. Writes fail for some seconds; applications connect again with what they have. Of other kinds of clusters it says
what a person does.

Examples:
  pgtenant cluster switchover default
  pgtenant cluster switchover default --to db2.example:5432 --yes"
)]
pub(super) struct SwitchoverArgs {
    /// The cluster
    name: String,
    /// The standby that is to be the primary, as `pgtenant cluster topology` names it [default: whichever the cluster's tool chooses]
    #[arg(long, value_name = "MEMBER")]
    to: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
}

#[derive(Deserialize)]
struct Seen {
    primary: Option<String>,
}

pub(super) async fn run(context: &Context, args: &SwitchoverArgs) -> Result<Outcome> {
    let SwitchoverArgs { name, to, yes, no_wait } = args;
    let client = context.client()?;
    let Seen { primary } = client.get(&["v1", "clusters", name, "topology"], &[]).await?.read()?;
    let primary = primary.map_or_else(|| "it has no primary".to_owned(), |host| format!("{host} is the primary"));
    let next = to.as_deref().unwrap_or("another member");
    let question = format!("Cluster {name}: {primary}. Have {next} take its place? Writes fail for some seconds.");
    confirm(context, *yes, &question)?;

    let body = to.as_ref().map_or_else(|| json!({}), |to| json!({"to": to}));
    let reply = client.post(&["v1", "clusters", name, "switchover"], &[], Some(&body)).await?;
    let asked: Switchover = reply.read()?;
    if *no_wait {
        return told(context, &asked, format!("cluster {name}: another primary is asked for"));
    }
    let spinner = ProgressBar::new_spinner().with_message(format!("cluster {name}: waiting for the next primary"));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let ended = tokio::select! {
        ended = follow(&client, &asked) => ended,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            spinner.finish_and_clear();
            note(&format!("the switchover of {name} goes on without you; pgtenant cluster topology {name} shows the primary"));
            return Ok(Outcome::Status(INTERRUPTED));
        }
    };
    spinner.finish_and_clear();
    let ended = ended?;
    let message = ended.message.clone().unwrap_or_default();
    if ended.state == OperationState::Succeeded {
        return told(context, &ended, format!("cluster {name}: {message}"));
    }
    Err(CliError::failed(format!("cluster {name}: {message}"))
        .hint(format!("pgtenant cluster topology {name} shows the servers")))
}

fn told(context: &Context, switchover: &Switchover, text: String) -> Result<Outcome> {
    if context.out.is_for_machines() {
        context.out.document(&serde_json::to_value(switchover).map_err(std::io::Error::from)?)?;
    } else {
        context.out.line(text)?;
    }
    Ok(Outcome::Done)
}

/// Until it has ended. The control plane may be away for a while: its ledger may be on the cluster that is switched over.
pub(super) async fn follow(client: &Client, asked: &Switchover) -> Result<Switchover> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.get(&["v1", "clusters", &asked.cluster, "switchover"], &[]).await {
            Ok(reply) => {
                let now: Switchover = reply.read()?;
                if now.id != asked.id || now.finished_at.is_some() {
                    return Ok(now);
                }
            }
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() > deadline {
            return Err(CliError::failed(format!("cluster {}: nobody says how it ended", asked.cluster)));
        }
        tokio::time::sleep(LOOK).await;
    }
}
