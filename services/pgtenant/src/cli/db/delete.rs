//! `pgtenant db delete`.

use clap::Args;

use super::change::settle;
use super::wait::WaitArgs;
use crate::cli::confirm::confirm_word;
use crate::cli::context::Context;
use crate::cli::error::{Outcome, Result};
use crate::cli::name::{Target, database_path};

/// Arguments of `pgtenant db delete`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Sessions are ended, and the data is gone. A protected database is not deleted: change its mode first.

Examples:
  pgtenant db delete idp-dev/my-db
  pgtenant db delete idp-dev/my-db --yes --no-wait
  pgtenant db delete idp-dev/my-db --force"
)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    target: Target,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Stores that keep removed credentials for a while do not; for platform tokens
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(context: &Context, args: &DeleteArgs) -> Result<Outcome> {
    let key = args.target.key()?;
    let client = context.client()?;
    let warning =
        format!("This drops database {} with all its data, its three roles and their credentials.", key.database());
    let query: &[_] = if args.force { &[("force", "true")] } else { &[] };
    confirm_word(context, args.yes, &warning, &key.to_string())?;
    let reply = client.delete(&database_path(&key), query).await?;
    settle(context, &client, &key, &reply, args.wait.waits(context, true), ("is being deleted", "deleted")).await
}
