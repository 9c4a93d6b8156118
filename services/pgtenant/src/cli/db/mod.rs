//! `pgtenant db`.

mod adopt;
mod change;
pub(super) mod connect;
mod create;
mod delete;
mod get;
mod list;
mod psql;
mod spec;
pub(super) mod wait;

use clap::Subcommand;

use super::context::Context;
use super::error::{Outcome, Result};

/// `pgtenant db …`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum DbCommand {
    /// List databases
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show a database: how it is, why, and where its credentials are
    #[command(visible_alias = "describe")]
    Get(get::GetArgs),
    /// Ask for a database, and wait until it can be used
    Create(create::CreateArgs),
    /// Change a database
    Update(change::UpdateArgs),
    /// Drop a standard database with its roles and credentials
    #[command(visible_alias = "rm")]
    Delete(delete::DeleteArgs),
    /// Keep a database with its roles and credentials, and stop managing it
    Release(change::ReleaseArgs),
    /// Take over an existing database, or take back one that was kept
    Adopt(adopt::AdoptArgs),
    /// Replace passwords
    Rotate(change::RotateArgs),
    /// Open psql in a database
    #[command(visible_alias = "psql")]
    Connect(connect::ConnectArgs),
}

pub(super) async fn run(context: &Context, command: DbCommand) -> Result<Outcome> {
    match command {
        DbCommand::List(args) => list::run(context, &args).await,
        DbCommand::Get(args) => get::run(context, &args).await,
        DbCommand::Create(args) => create::run(context, &args).await,
        DbCommand::Update(args) => change::update(context, &args).await,
        DbCommand::Delete(args) => delete::run(context, &args).await,
        DbCommand::Release(args) => change::release(context, &args).await,
        DbCommand::Adopt(args) => adopt::run(context, &args).await,
        DbCommand::Rotate(args) => change::rotate(context, &args).await,
        DbCommand::Connect(args) => connect::run(context, &args).await,
    }
}
