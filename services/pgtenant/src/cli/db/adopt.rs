//! `pgtenant db adopt`.

use clap::Args;
use pgtenant_model::PlanReport;

use super::change::settle;
use super::spec::SpecArgs;
use super::wait::WaitArgs;
use crate::cli::confirm::confirm;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Outcome, Result};
use crate::cli::name::{Target, database_path};
use crate::cli::output::note;
use crate::cli::report;

/// Arguments of `pgtenant db adopt`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "First prints what would be changed in the database, and asks.

Examples:
  pgtenant db adopt idp-dev/my-db
  pgtenant db adopt idp-dev/legacy --mode protected --dry-run
  pgtenant db adopt idp-dev/legacy --mode protected --yes")]
pub(crate) struct AdoptArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    spec: SpecArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only print what would be changed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(context: &Context, args: &AdoptArgs) -> Result<Outcome> {
    let key = args.target.key()?;
    let client = context.client()?;
    let path = [&database_path(&key)[..], &["adopt"]].concat();
    let fields = args.spec.fields();
    let body = (!fields.is_empty()).then_some(&fields);
    let reply = client.post(&path, &[("dryRun", "true")], body).await?;
    let plan: PlanReport = reply.read()?;
    let machine = context.out.is_for_machines();
    if !machine {
        context.out.line(report::render(&plan, false, &context.out))?;
    } else if args.dry_run {
        context.out.document(&reply.document()?)?;
    } else {
        note(&report::render(&plan, false, &context.out));
    }
    if plan.has_problems() {
        return Err(CliError::failed(format!("{key} can not be adopted")));
    }
    if args.dry_run {
        return Ok(Outcome::Done);
    }
    confirm(context, args.yes, &format!("Adopt {key}?"))?;
    let reply = client.post(&path, &[], body).await?;
    settle(context, &client, &key, &reply, args.wait.waits(context, false), ("is being adopted", "adopted")).await
}
