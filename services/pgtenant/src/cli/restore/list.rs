//! `pgtenant restore list`.

use chrono::Utc;
use clap::Args;
use pgtenant_model::Restore;

use crate::cli::context::Context;
use crate::cli::error::{Outcome, Result};
use crate::cli::operation::json_word;
use crate::cli::output::{Table, age};
use crate::cli::read;

/// Arguments of `pgtenant restore list`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  pgtenant restore list
  pgtenant restore list -n idp-dev --phase Requested")]
pub(in crate::cli) struct ListArgs {
    /// Only this namespace
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// Only those in this phase, as `Requested`: what waits to be approved
    #[arg(long, value_name = "PHASE")]
    phase: Option<String>,
}

pub(super) async fn run(context: &Context, args: &ListArgs) -> Result<Outcome> {
    let mut query = Vec::new();
    query.extend(args.namespace.as_deref().map(|namespace| ("namespace", namespace)));
    query.extend(args.phase.as_deref().map(|phase| ("phase", phase)));
    let items = context.client()?.list(&["v1", "restores"], &query, Some(500)).await?;
    if context.out.is_for_machines() {
        context.out.document(&items)?;
        return Ok(Outcome::Done);
    }
    let now = Utc::now();
    let mut table = Table::new(&["ID", "DATABASE", "PHASE", "STRATEGY", "SNAPSHOT", "BY", "AGE", "MESSAGE"])
        .optional(&["SNAPSHOT", "STRATEGY", "BY"]);
    for restore in read::<Restore>(items)? {
        let Restore { id, namespace, name, phase, spec, snapshot, requested_by, created_at, message, .. } = restore;
        table.row([
            id.to_string(),
            format!("{namespace}/{name}"),
            json_word(phase),
            json_word(spec.strategy),
            snapshot.map(|id| id.to_string()).unwrap_or_default(),
            requested_by,
            age(created_at, now),
            message.unwrap_or_default().replace('\n', " "),
        ]);
    }
    context.out.table(&table, "There are no restores.")?;
    Ok(Outcome::Done)
}
