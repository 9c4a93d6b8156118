//! `pgtenant restore approve`, `reject`, `cancel` and `undo`.

use clap::Args;
use pgtenant_model::Restore;
use uuid::Uuid;

use super::watch::{Until, watch};
use crate::cli::confirm::confirm;
use crate::cli::context::Context;
use crate::cli::error::{Outcome, Result};
use crate::cli::http::Client;

/// Arguments of `pgtenant restore approve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  pgtenant restore approve 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11
  pgtenant restore approve 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11 --wait")]
pub(in crate::cli) struct ApproveArgs {
    /// The restore
    id: Uuid,
    /// Watch it to its end
    #[arg(long)]
    wait: bool,
}

/// Arguments of `pgtenant restore reject`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  pgtenant restore reject 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11")]
pub(in crate::cli) struct RejectArgs {
    /// The restore
    id: Uuid,
}

/// Arguments of `pgtenant restore cancel`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Possible until it switches: then it ends by itself, and `undo` brings the former database back.

Examples:
  pgtenant restore cancel 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11"
)]
pub(in crate::cli) struct CancelArgs {
    /// The restore
    id: Uuid,
}

/// Arguments of `pgtenant restore undo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "What was written since the restore is put aside in turn, and kept as long.

Examples:
  pgtenant restore undo 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11
  pgtenant restore undo 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11 --yes")]
pub(in crate::cli) struct UndoArgs {
    /// The restore
    id: Uuid,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn approve(context: &Context, args: &ApproveArgs) -> Result<Outcome> {
    let client = context.client()?;
    if !args.wait {
        return act(context, &client, args.id, "approve", "is approved").await;
    }
    client.post(&["v1", "restores", &args.id.to_string(), "approve"], &[], None::<&()>).await?;
    watch(context, &client, args.id, Until::Over).await
}

pub(super) async fn reject(context: &Context, args: &RejectArgs) -> Result<Outcome> {
    act(context, &context.client()?, args.id, "reject", "is rejected").await
}

pub(super) async fn cancel(context: &Context, args: &CancelArgs) -> Result<Outcome> {
    act(context, &context.client()?, args.id, "cancel", "is being cancelled").await
}

pub(super) async fn undo(context: &Context, args: &UndoArgs) -> Result<Outcome> {
    let client = context.client()?;
    let id = args.id.to_string();
    let restore: Restore = client.get(&["v1", "restores", &id], &[]).await?.read()?;
    let question = format!(
        "{}/{} becomes as it was before the restore; what was written since is put aside. Go on?",
        restore.namespace, restore.name
    );
    confirm(context, args.yes, &question)?;
    if args.no_wait {
        return act(context, &client, args.id, "undo", "is being undone").await;
    }
    client.post(&["v1", "restores", &id, "undo"], &[], None::<&()>).await?;
    watch(context, &client, args.id, Until::Undone).await
}

async fn act(context: &Context, client: &Client, id: Uuid, verb: &str, done: &str) -> Result<Outcome> {
    let reply = client.post(&["v1", "restores", &id.to_string(), verb], &[], None::<&()>).await?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
    } else {
        context.out.line(format!("restore {id} {done}"))?;
    }
    Ok(Outcome::Done)
}
