//! `pgtenant audit`.

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Deserialize;

use super::context::Context;
use super::error::{Outcome, Result};
use super::output::{Table, time};
use super::read;

/// Arguments of `pgtenant audit`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "The newest lines come first.

Examples:
  pgtenant audit
  pgtenant audit -n idp-dev --limit 500
  pgtenant audit --limit 1000 --output json")]
pub(super) struct AuditArgs {
    /// Only this namespace
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// How many lines at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    limit: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    at: DateTime<Utc>,
    actor: String,
    action: String,
    namespace: Option<String>,
    name: Option<String>,
}

pub(super) async fn run(context: &Context, args: &AuditArgs) -> Result<Outcome> {
    let query: Vec<(&str, &str)> = args.namespace.iter().map(|ns| ("namespace", ns.as_str())).collect();
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let items = context.client()?.list(&["v1", "audit"], &query, Some(most)).await?;
    if context.out.is_for_machines() {
        context.out.document(&items)?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&["TIME", "ACTOR", "ACTION", "TARGET"]);
    for Entry { at, actor, action, namespace, name } in read(items)? {
        let target: Vec<String> = [namespace, name].into_iter().flatten().collect();
        table.row([time(at), actor, action, target.join("/")]);
    }
    context.out.table(&table, "Nothing was done yet.")?;
    Ok(Outcome::Done)
}
