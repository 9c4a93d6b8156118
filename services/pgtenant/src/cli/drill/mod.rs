//! `pgtenant cluster drill`: the primary is stopped, and clients such as a tenant has measure what comes of it.

mod means;
mod measure;
mod picture;
mod report;
mod site;

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use pgtenant_model::{Drill, DrillClient};
use serde::Deserialize;

use self::means::Means;
use self::site::Site;
use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::output::{Table, age, note};
use super::{confirm, read};

/// The cluster, or the control plane, is not as it should be before anything is stopped.
const UNHEALTHY: Outcome = Outcome::Status(1);
/// It took longer than it may, or something was lost that may not be.
const OVER_TARGET: Outcome = Outcome::Status(2);
/// Nothing here can stop the primary.
const NO_MEANS: Outcome = Outcome::Status(3);

/// As a shell says that a program ended by Ctrl-C.
const INTERRUPTED: Outcome = Outcome::Status(130);

/// Arguments of `pgtenant cluster drill`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "A database is made for the drill. A writing and a reading client log in to it with the credentials and through the
endpoint that a tenant has; then the primary is stopped, and they measure for how long nobody answers them. Afterwards
the database is removed, and the result is kept: `pgtenant cluster drills NAME`.

The primary is stopped by
  a lab     SIGKILL to everything of its node, which is started again (--lab, or the lab in its usual folder if the
            cluster's servers are its nodes)
  else      the topology's own switchover, where it has one: nothing is killed
  else      commands of yours, with --i-mean-it: --stop-with and --start-with, which find the server in PGTENANT_HOST
            and PGTENANT_PORT

Exit status: 0 passed; 1 not healthy before; 2 longer than --rto or --recover, or writes were lost that may not be;
3 nothing here can stop the primary.

Examples:
  pgtenant cluster drill default
  pgtenant cluster drill default --rto 30s --svg drill.svg
  pgtenant cluster drill default --i-mean-it --stop-with 'ssh \"$PGTENANT_HOST\" sudo systemctl kill -s KILL postgresql' \\
      --start-with 'ssh \"$PGTENANT_HOST\" sudo systemctl start postgresql'"
)]
pub(super) struct DrillArgs {
    /// The cluster
    name: String,
    /// Within which time writes have to go on
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration, value_name = "TIME")]
    rto: Duration,
    /// Within which time every member has to be back
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration, value_name = "TIME")]
    recover: Duration,
    /// The namespace in which a database is made for the drill
    #[arg(long, default_value = "pgtenant-drill", value_name = "NAMESPACE")]
    namespace: String,
    /// The directory of the file store; where it is not given a Secret is read, by KUBECONFIG
    #[arg(long, env = "PGTENANT_SECRETS_DIR", value_name = "DIR")]
    secrets_dir: Option<PathBuf>,
    /// The folder of the lab that the cluster is
    #[arg(long, env = "PGTENANT_LAB", value_name = "DIR")]
    lab: Option<PathBuf>,
    /// A shell command that stops the primary
    #[arg(long, requires = "i_mean_it", value_name = "COMMAND")]
    stop_with: Option<String>,
    /// A shell command that starts it again
    #[arg(long, requires = "stop_with", value_name = "COMMAND")]
    start_with: Option<String>,
    /// The cluster is no lab, and its primary is stopped all the same
    #[arg(long)]
    i_mean_it: bool,
    /// Write a picture of the timeline here
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(context: &Context, args: &DrillArgs) -> Result<Outcome> {
    let client = context.client()?;
    let site = match Site::wait_until_healthy(client, &args.name).await {
        Ok(site) => site,
        Err(problem) => return Ok(say(&problem.hint("nothing was stopped"), UNHEALTHY)),
    };
    let mut means = match Means::find(args, &site) {
        Ok(means) => means,
        Err(problem) => return Ok(say(&problem, NO_MEANS)),
    };
    if !means.is_lab() {
        let warning = format!(
            "{} of cluster {} will {}, and its applications will notice.",
            site.primary,
            args.name,
            means.words()
        );
        confirm::confirm_word(context, args.yes, &warning, &args.name)?;
    }
    let database = match site.make_database(context, args).await {
        Ok(database) => database,
        Err(problem) => return Ok(say(&problem.hint("nothing was stopped"), UNHEALTHY)),
    };
    let measured = tokio::select! {
        measured = measure::measure(&site, &database, &mut means, args) => measured,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            note("interrupted: what was stopped is started again");
            if let Some(Err(problem)) = means.start().await {
                note(&format!("warning: it does not start: {problem}"));
            }
            site.remove(&database.key).await.ok();
            return Ok(INTERRUPTED);
        }
    };
    if let Err(problem) = site.remove(&database.key).await {
        note(&format!("warning: database {} stays: {problem}", database.key));
    }
    let Some((drill, picture)) = measured? else {
        let problem = CliError::failed("the clients were not answered all the time before anything was stopped");
        return Ok(say(&problem.hint("nothing was stopped"), UNHEALTHY));
    };
    finish(context, args, &site, &drill, &picture).await
}

async fn finish(context: &Context, args: &DrillArgs, site: &Site, drill: &Drill, picture: &str) -> Result<Outcome> {
    if let Some(file) = &args.svg {
        std::fs::write(file, picture)
            .map_err(|error| CliError::failed(format!("can not write {}: {error}", file.display())))?;
    }
    if let Err(problem) = site.write_down(drill).await {
        note(&format!("warning: the control plane has not written the drill down: {problem}"));
    }
    if context.out.is_for_machines() {
        context.out.document(drill)?;
    } else {
        context.out.line(report::text(&args.name, drill))?;
    }
    Ok(if drill.passed { Outcome::Done } else { OVER_TARGET })
}

fn say(problem: &CliError, outcome: Outcome) -> Outcome {
    note(problem.render().trim_end());
    outcome
}

/// What is listed of a drill.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Past {
    stopped_at: DateTime<Utc>,
    writes: DrillClient,
    lost: Option<u64>,
    recovered_ms: Option<u64>,
    passed: bool,
    problems: Vec<String>,
}

/// `pgtenant cluster drills`.
pub(super) async fn list(context: &Context, name: &str) -> Result<Outcome> {
    let items = context.client()?.whole_list(&["v1", "clusters", name, "drills"]).await?;
    if context.out.is_for_machines() {
        context.out.document(&items)?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&["RUN", "RESULT", "WRITES AGAIN", "MEMBERS BACK", "LOST", "PROBLEMS"]);
    for drill in read::<Past>(items)? {
        let result = if drill.passed { "passed" } else { "failed" };
        table.row([
            format!("{} ago", age(drill.stopped_at, Utc::now())),
            result.to_owned(),
            report::seconds(drill.writes.longest_gap_ms),
            drill.recovered_ms.map_or_else(|| "-".to_owned(), report::seconds),
            drill.lost.map_or_else(|| "?".to_owned(), |lost| lost.to_string()),
            drill.problems.join("; "),
        ]);
    }
    context.out.table(&table, "There was no drill yet: `pgtenant cluster drill` runs one.")?;
    Ok(Outcome::Done)
}
