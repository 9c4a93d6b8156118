//! `pgtenant plan`.

use std::path::{Path, PathBuf};

use clap::Args;
use pgtenant_apps_repo::{Limits, Scan};
use pgtenant_model::{PlanReport, PlanRequest};

use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::http::Client;
use super::output::{Paint, note};
use super::report;

/// Claims that the control plane plans in one request.
const MOST_CLAIMS: usize = 1000;

/// Arguments of `pgtenant plan`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "DIR has {namespace}/{application}/{application.yaml,values.yaml}: an apps folder, or the folder \
                        `apps/` of an apps repository. Nothing is changed.

Exit status: 0 planned, 1 a problem, and with --exit-code 3 when there are changes.

Examples:
  pgtenant plan -f apps/
  pgtenant plan -f apps/ --exit-code
  pgtenant plan -f apps/ --sql > plan.sql
  pgtenant plan -f apps/ --output json"
)]
pub(super) struct PlanArgs {
    /// The apps folder
    #[arg(short = 'f', long = "folder", value_name = "DIR")]
    folder: PathBuf,
    /// Exit with status 3 when anything would change
    #[arg(long)]
    exit_code: bool,
    /// Print the statements
    #[arg(long)]
    sql: bool,
}

pub(super) async fn run(context: &Context, args: &PlanArgs) -> Result<Outcome> {
    let client = context.client()?;
    let scan = read(&args.folder)?;
    let request = pgtenant_apps_repo::to_plan_request(&scan);
    let reply = ask(&client, &request).await?;
    let report: PlanReport = reply.read()?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
    } else {
        context.out.line(report::render(&report, args.sql, &context.out))?;
    }
    let faulty = print_problems(context, &scan);
    Ok(match (faulty || report.has_problems(), report.has_changes() && args.exit_code) {
        (true, _) => Outcome::Failed,
        (false, true) => Outcome::Changes,
        (false, false) => Outcome::Done,
    })
}

/// Reads an apps folder.
///
/// # Errors
/// It is no folder.
pub(super) fn read(folder: &Path) -> Result<Scan> {
    check_folder(folder)?;
    Ok(pgtenant_apps_repo::scan(folder, &Limits::default()))
}

/// That it is a folder.
///
/// # Errors
/// It is none.
pub(super) fn check_folder(folder: &Path) -> Result<()> {
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(CliError::usage(format!("{} is not a folder", folder.display()))
            .hint("name the folder that holds {namespace}/{application}/values.yaml")),
        Err(error) => Err(CliError::failed(format!("can not read {}: {error}", folder.display()))),
    }
}

/// Prints what is wrong in the folder. Whether anything is.
pub(super) fn print_problems(context: &Context, scan: &Scan) -> bool {
    for line in pgtenant_apps_repo::render_problems(&scan.problems).lines() {
        note(&format!("{} {line}", context.out.paint("error:", Paint::Bad)));
    }
    if !scan.problems.is_empty() && !scan.is_complete() {
        note("hint: what is in broken files is left as it is, and nothing is removed while a file is broken");
    }
    !scan.problems.is_empty()
}

/// Asks for the plan.
///
/// # Errors
/// More claims than a request holds, and what the control plane answers.
pub(super) async fn ask(client: &Client, request: &PlanRequest) -> Result<super::http::Reply> {
    if request.claims.len() > MOST_CLAIMS {
        return Err(CliError::failed(format!(
            "the folder has {} databases; at most {MOST_CLAIMS} are planned at once",
            request.claims.len()
        ))
        .hint("plan a part of it, as one namespace's folder in a folder of its own"));
    }
    Ok(client.post(&["v1", "plan"], &[], Some(request)).await?)
}
