//! `pgtenant cluster accept`: the data that is there is right.

use clap::Args;
use pgtenant_model::History;
use serde::Deserialize;
use serde_json::json;

use super::confirm::confirm;
use super::context::Context;
use super::error::{CliError, Outcome, Result};

/// Arguments of `pgtenant cluster accept`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "After a restore of the whole cluster its timeline may be an earlier one, and after a move its system identifier another.
pgtenant takes that for a server that was left behind, and writes nothing until somebody says that it is right. What was
written to the other one since then is not there; claims are made again on this one.

Examples:
  pgtenant cluster accept default
  pgtenant cluster accept default --yes"
)]
pub(super) struct AcceptArgs {
    /// The cluster
    name: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Deserialize)]
struct Seen {
    history: Option<History>,
    refused: Option<History>,
}

pub(super) async fn run(context: &Context, AcceptArgs { name, yes }: &AcceptArgs) -> Result<Outcome> {
    let client = context.client()?;
    let Seen { history, refused } = client.get(&["v1", "clusters", name, "topology"], &[]).await?.read()?;
    let Some(refused) = refused else {
        return Err(CliError::failed(format!("cluster {name}: there is nothing to accept"))
            .hint(format!("pgtenant cluster topology {name} shows the servers")));
    };
    let describe = |one: &History| format!("system identifier {}, timeline {}", one.system, one.timeline);
    let before = history.as_ref().map(|history| format!("It was {}. ", describe(history))).unwrap_or_default();
    let question =
        format!("Cluster {name} is {} now. {before}Is that right, and may pgtenant write to it?", describe(&refused));
    confirm(context, *yes, &question)?;
    let body = json!({"system": refused.system, "timeline": refused.timeline});
    let reply = client.post(&["v1", "clusters", name, "accept"], &[], Some(&body)).await?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
    } else {
        context.out.line(format!("cluster {name}: pgtenant goes on with {}", describe(&refused)))?;
    }
    Ok(Outcome::Done)
}
