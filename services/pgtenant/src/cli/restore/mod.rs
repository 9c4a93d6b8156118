//! `pgtenant restore`.

mod act;
mod all;
mod list;
mod request;
mod show;
mod watch;

use clap::Subcommand;

use super::context::Context;
use super::error::{Outcome, Result};

/// `pgtenant restore …`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum RestoreCommand {
    /// Ask for a database as it was, and watch it come back
    Request(request::RequestArgs),
    /// Bring back every database of a cluster that was lost
    All(all::AllArgs),
    /// List restores
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show a restore: how far it is, what was compared, and until when it can be undone
    #[command(visible_alias = "describe")]
    Get(show::GetArgs),
    /// Say yes to a restore
    Approve(act::ApproveArgs),
    /// Say no to a restore
    Reject(act::RejectArgs),
    /// Watch a restore to its end
    Watch(watch::WatchArgs),
    /// End a restore with all as it was
    Cancel(act::CancelArgs),
    /// Bring back the database that a restore has put aside
    Undo(act::UndoArgs),
}

pub(super) async fn run(context: &Context, command: RestoreCommand) -> Result<Outcome> {
    match command {
        RestoreCommand::Request(args) => request::run(context, &args).await,
        RestoreCommand::All(args) => all::run(context, &args).await,
        RestoreCommand::List(args) => list::run(context, &args).await,
        RestoreCommand::Get(args) => show::run(context, &args).await,
        RestoreCommand::Approve(args) => act::approve(context, &args).await,
        RestoreCommand::Reject(args) => act::reject(context, &args).await,
        RestoreCommand::Watch(args) => watch::run(context, &args).await,
        RestoreCommand::Cancel(args) => act::cancel(context, &args).await,
        RestoreCommand::Undo(args) => act::undo(context, &args).await,
    }
}

/// A time after RFC 3339.
fn instant(text: &str) -> std::result::Result<chrono::DateTime<chrono::Utc>, String> {
    text.parse()
        .map_err(|_| "write it as 2026-11-20T03:00:00Z, or with an offset: 2026-11-20T04:00:00+01:00".to_owned())
}
