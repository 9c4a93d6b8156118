//! `pgtenant restore get`.

use chrono::Utc;
use clap::Args;
use pgtenant_model::{Restore, RestorePhase, Verification};
use uuid::Uuid;

use crate::cli::context::Context;
use crate::cli::error::{Outcome, Result};
use crate::cli::operation::{fields, json_word};
use crate::cli::output::{Output, Paint, age, time, until};

/// Arguments of `pgtenant restore get`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  pgtenant restore get 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11")]
pub(in crate::cli) struct GetArgs {
    /// The restore
    id: Uuid,
}

pub(super) async fn run(context: &Context, args: &GetArgs) -> Result<Outcome> {
    let reply = context.client()?.get(&["v1", "restores", &args.id.to_string()], &[]).await?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
    } else {
        context.out.line(describe(&reply.read()?, &context.out))?;
    }
    Ok(Outcome::Done)
}

/// All of a restore, for people.
pub(super) fn describe(restore: &Restore, out: &Output) -> String {
    let Restore { id, namespace, name, spec, snapshot, phase, message, report, before, undone_at, .. } = restore;
    let now = Utc::now();
    let word = json_word(phase);
    let strategy = json_word(spec.strategy);
    let undo = before.as_ref().filter(|_| *phase == RestorePhase::Succeeded && undone_at.is_none());
    let mut lines = vec![
        ("Id", id.to_string()),
        ("Database", format!("{namespace}/{name}")),
        ("Phase", out.paint(&word, Paint::of_word(&word))),
        ("Message", message.clone().unwrap_or_default()),
        ("Snapshot", snapshot.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("Strategy", spec.copy_name.as_ref().map_or(strategy.clone(), |name| format!("{strategy} to {name}"))),
        ("Reason", spec.reason.clone().unwrap_or_default()),
        ("Asked", format!("{} by {}", time(restore.created_at), restore.requested_by)),
        ("Decided by", restore.decided_by.clone().unwrap_or_default()),
    ];
    if let Some(at) = restore.finished_at {
        let took = age(restore.created_at, at);
        lines.push(("Finished", format!("{} ({} ago), after {took}", time(at), age(at, now))));
    }
    if let Some(at) = undone_at {
        lines.push(("Undone", time(*at)));
    }
    lines.extend(report.as_ref().map(|report| ("Compared", told(report))));
    if let Some(before) = undo {
        let kept = format!("{}, kept until {} ({})", before.database, time(before.until), until(before.until, now));
        lines.push(("Put aside", kept));
        lines.push(("To go back", format!("pgtenant restore undo {id}")));
    }
    fields(&lines)
}

fn told(report: &Verification) -> String {
    let Verification { objects, tables, rows, sequences, large_objects, logins, differences, left_out, .. } = report;
    let mut lines = vec![format!(
        "{objects} objects, {tables} tables with {rows} rows, {sequences} sequences, {large_objects} large objects, {} \
         logins: {}",
        logins.len(),
        if differences.is_empty() { "all as in the snapshot" } else { "not as in the snapshot" },
    )];
    lines.extend(differences.iter().map(|one| format!("differs: {}: {}", one.object, one.message)));
    lines.extend(left_out.iter().map(|one| format!("left out: {}: {}; {}", one.object, one.reason, one.remedy)));
    lines.join("\n")
}
