//! `pgtenant db create`.

use clap::Args;
use pgtenant_model::Database;

use super::spec::SpecArgs;
use super::wait::{Goal, WaitArgs, wait};
use crate::cli::context::Context;
use crate::cli::error::{Outcome, Result};
use crate::cli::name::{Target, database_path};
use crate::cli::output::note;

/// Arguments of `pgtenant db create`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The same again changes nothing. On a terminal the command waits until the database can be used.

Examples:
  pgtenant db create idp-dev/my-db
  pgtenant db create idp-dev/my-db --mode protected --schema reporting --extension pgcrypto
  pgtenant db create -n idp-dev my-db --wait --timeout 2m --output json"
)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(context: &Context, args: &CreateArgs) -> Result<Outcome> {
    let key = args.target.key()?;
    let client = context.client()?;
    let mut body = args.spec.fields();
    body.insert("name".to_owned(), key.name().into());
    let reply = client.post(&["v1", "namespaces", key.namespace(), "databases"], &[], Some(&body)).await?;
    let database: Database = reply.read()?;
    let word = match (reply.status, reply.operation) {
        (201, _) => "created",
        (_, Some(_)) => "taken back",
        (_, None) => "unchanged",
    };
    let waits = args.wait.waits(context, false);
    if !context.out.is_for_machines() {
        context.out.line(format!("{key} {word}"))?;
    } else if !waits {
        context.out.document(&reply.document()?)?;
    }
    if !waits {
        return Ok(Outcome::Done);
    }
    let goal = Goal::Settled { operation: reply.operation, generation: database.generation };
    let outcome = wait(context, &client, &key, goal).await?;
    if outcome != Outcome::Done {
        return Ok(outcome);
    }
    let reply = client.get(&database_path(&key), &[]).await?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
    } else {
        let database: Database = reply.read()?;
        let place = database.endpoint.map(|e| format!(" on {}:{}", e.host, e.port)).unwrap_or_default();
        context.out.line(format!("{key} is {}: database {}{place}", database.state.as_str(), database.database))?;
        if context.is_interactive() {
            note(&format!("hint: `pgtenant db connect {key}` opens psql, `pgtenant db get {key}` shows all of it"));
        }
    }
    Ok(Outcome::Done)
}
