//! `pgtenant migrate values`: an apps folder that was written for older charts.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use pgtenant_apps_repo::{AppsProblem, CHART, ChartVersion, FilePlan, FileState, Limits, Migration, WriteError};
use serde_json::{Value, json};

use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::output::{Paint, note};
use super::plan::check_folder;

/// Arguments of `pgtenant migrate values`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "DIR has {namespace}/{application}/{application.yaml,values.yaml}: an apps folder, or the folder \
                  `apps/` of an apps repository. The control plane is not asked. Without --write nothing is changed: \
                  the change is printed for `git apply`, with names as seen from the working folder if DIR is in it, \
                  and else from DIR.

What becomes of values.yaml:
  tenantDatabases: (chart 0.4.1)   ->  postgresqlDatabases:
  deletionProtection: true         ->  mode: protected
  roleDeletionPolicy: Orphan       ->  mode: protected
  dbDeletionPolicy: Orphan         ->  mode: protected
  none of these three              ->  mode: standard

A field that is not written counts as the older charts took it: deletionProtection as false, both policies as Delete. \
An entry without any of them is left as it is, and standard. Where the fields of an entry do not agree, the safer mode \
is chosen, and a note with file and line says so. Two lists in one file become one, unless they share a name.

In application.yaml of the chart idp-postgresql, helm.chartVersion is set where it is 0.x. Both files of an \
application change or neither, since an older chart does not know `mode`, and would take every database for unprotected.

All else stays as it is, to the byte: comments, order, quotes, line breaks. A file that has to change and has anchors, \
aliases, merge keys, several documents or tabs is refused. What comes out is read again as the control plane would, \
and compared with what the file meant before; where that differs nothing is written. A second run finds nothing to do.

Exit status: 0 done, 1 a file was refused or could not be written, and with --exit-code 3 when there are changes.

Examples:
  pgtenant migrate values -f apps/
  pgtenant migrate values -f apps/ > values.patch && git apply --check values.patch
  pgtenant migrate values -f apps/ --write
  pgtenant migrate values -f apps/ --exit-code --output json"
)]
pub(crate) struct ValuesArgs {
    /// The apps folder
    #[arg(short = 'f', long = "folder", value_name = "DIR")]
    folder: PathBuf,
    /// Write the files, each at once or not at all, after all were looked at
    #[arg(long)]
    write: bool,
    /// The version of the chart from now on
    #[arg(long, value_name = "VERSION", default_value = "1.0.0")]
    chart_version: ChartVersion,
    /// Exit with status 3 when anything would change
    #[arg(long, conflicts_with = "write")]
    exit_code: bool,
}

pub(super) fn run(context: &Context, args: &ValuesArgs) -> Result<Outcome> {
    check_folder(&args.folder)?;
    let plan = pgtenant_apps_repo::plan_migration(&args.folder, &Limits::default(), &args.chart_version);
    let write = args.write && !plan.incomplete;
    print_remarks(context, &plan);
    let done = if write { plan.write().map_err(half_done)? } else { Vec::new() };
    if context.out.is_for_machines() {
        context.out.document(&document(&plan, write, &prefix(&args.folder)))?;
    } else if write {
        for file in done {
            context.out.line(format!("changed {}", visible(&file)))?;
        }
    } else {
        print_diff(context, &plan, &prefix(&args.folder))?;
    }
    note(&summary(&plan, args.write, write));
    let changes = plan.count(FileState::Changes) > 0;
    let faulty = plan.count(FileState::Refused) > 0 || !plan.problems.is_empty();
    Ok(match (faulty, changes && args.exit_code) {
        (true, _) => Outcome::Failed,
        (false, true) => Outcome::Changes,
        (false, false) => Outcome::Done,
    })
}

/// Standard output holds the difference and nothing else, so that it can be applied.
fn print_diff(context: &Context, plan: &Migration, prefix: &str) -> Result<()> {
    let diff: String = plan.files.iter().map(|file| file.diff(prefix)).collect();
    match diff.strip_suffix('\n') {
        Some(diff) => Ok(context.out.line(diff)?),
        None => Ok(()),
    }
}

/// Says what a person should know, file by file.
fn print_remarks(context: &Context, plan: &Migration) {
    let say = |label: &str, paint, problems: &[AppsProblem]| {
        for line in pgtenant_apps_repo::render_problems(problems).lines() {
            note(&format!("{} {line}", context.out.paint(label, paint)));
        }
    };
    say("error:", Paint::Bad, &plan.problems);
    for file in &plan.files {
        say("error:", Paint::Bad, &file.problems);
        say("note:", Paint::Busy, &file.noted());
    }
    say("note:", Paint::Busy, &plan.left_alone);
    if plan.files.is_empty() && !plan.incomplete {
        note(&format!(
            "note: there is no application of the chart {CHART}; DIR is the folder with {{namespace}}/{{application}}"
        ));
    }
}

/// What the working folder and DIR have between them, for names in differences.
fn prefix(folder: &Path) -> String {
    let within = || {
        let (folder, working) = (fs::canonicalize(folder).ok()?, std::env::current_dir().ok()?);
        let within = folder.strip_prefix(fs::canonicalize(working).ok()?).ok()?.to_str()?.to_owned();
        (!within.is_empty()).then(|| format!("{within}/"))
    };
    within().unwrap_or_default()
}

/// One line that counts.
fn summary(plan: &Migration, wanted: bool, written: bool) -> String {
    let [changes, same, refused, waiting] =
        [FileState::Changes, FileState::UpToDate, FileState::Refused, FileState::Waits].map(|state| plan.count(state));
    let files = if changes == 1 { "file" } else { "files" };
    let verb = if written { "changed" } else { "would change" };
    let are = if same == 1 { "is" } else { "are" };
    let waiting = match waiting {
        0 => String::new(),
        1 => ", 1 waits for another".to_owned(),
        more => format!(", {more} wait for others"),
    };
    let next = match (wanted, written) {
        (true, false) => "; nothing was written, because not all of the folder could be read",
        (false, _) if changes > 0 => "; run again with --write",
        _ => "",
    };
    format!("{changes} {files} {verb}, {same} {are} up to date, {refused} refused{waiting}{next}")
}

fn half_done(error: WriteError) -> CliError {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let failed = CliError::failed(format!("{}{cause}", visible(&error.to_string())));
    match &error.done[..] {
        [] => failed.hint("no file has been changed"),
        done => {
            let names: Vec<String> = done.iter().map(|name| visible(name)).collect();
            failed.hint(format!("these are changed already, and no other: {}", names.join(", ")))
        }
    }
}

fn document(plan: &Migration, written: bool, prefix: &str) -> Value {
    let files: Vec<Value> = plan.files.iter().map(|file| file_document(file, written, prefix)).collect();
    json!({
        "files": files,
        "problems": problems(&plan.problems),
        "leftAlone": problems(&plan.left_alone),
        "written": written,
    })
}

fn file_document(file: &FilePlan, written: bool, prefix: &str) -> Value {
    let state = match file.state {
        FileState::Changes if written => "changed",
        FileState::Changes => "changes",
        FileState::UpToDate => "upToDate",
        FileState::Refused => "refused",
        FileState::Waits => "waits",
    };
    let changes = match file.state {
        FileState::Changes => &file.changes[..],
        _ => &[],
    };
    let changes: Vec<Value> =
        changes.iter().map(|change| json!({"line": change.line, "message": change.message})).collect();
    json!({
        "file": file.file,
        "state": state,
        "changes": changes,
        "notes": problems(&file.noted()),
        "problems": problems(&file.problems),
        "diff": file.diff(prefix),
    })
}

/// A problem without a line is about the whole file.
fn problems(problems: &[AppsProblem]) -> Vec<Value> {
    let document = |problem: &AppsProblem| {
        let AppsProblem { file, line, key, message } = problem;
        json!({"file": file, "line": line, "key": key, "message": message})
    };
    problems.iter().map(document).collect()
}

/// Names in folders may hold anything; none of it shall reach the terminal.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}
