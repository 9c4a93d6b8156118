//! `pgtenant operation`.

use chrono::Utc;
use clap::Subcommand;
use pgtenant_model::Operation;
use uuid::Uuid;

use super::context::Context;
use super::error::{Outcome, Result};
use super::output::{Output, Paint, age, time};

/// `pgtenant operation …`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum OperationCommand {
    /// Show a request and how far it has come
    #[command(after_help = "Examples:
  pgtenant operation get 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11")]
    Get {
        /// Its id, as in the header Pgtenant-Operation
        id: Uuid,
    },
}

pub(super) async fn run(context: &Context, command: OperationCommand) -> Result<Outcome> {
    let OperationCommand::Get { id } = command;
    let reply = context.client()?.get(&["v1", "operations", &id.to_string()], &[]).await?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
    } else {
        context.out.line(describe(&reply.read()?, &context.out))?;
    }
    Ok(Outcome::Done)
}

/// The JSON name of a unit variant.
pub(super) fn json_word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn describe(operation: &Operation, out: &Output) -> String {
    let Operation { id, kind, state, namespace, name, step, message, requested_by, created_at, finished_at } =
        operation;
    let now = Utc::now();
    let state = json_word(state);
    let mut lines = vec![
        ("Id", id.to_string()),
        ("Database", format!("{namespace}/{name}")),
        ("Kind", json_word(kind)),
        ("State", out.paint(&state, Paint::of_word(&state))),
        ("Step", step.clone().unwrap_or_default()),
        ("Message", message.clone().unwrap_or_default()),
        ("Asked by", requested_by.clone()),
        ("Asked", format!("{} ({} ago)", time(*created_at), age(*created_at, now))),
    ];
    if let Some(at) = finished_at {
        lines.push(("Finished", format!("{} ({} ago)", time(*at), age(*at, now))));
    }
    fields(&lines)
}

/// `Key:  value` lines with the values under each other; those without a value are left out.
pub(super) fn fields(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 3;
    let shown = lines.iter().filter(|(_, value)| !value.is_empty());
    let shown = shown.map(|(key, value)| {
        let value = value.replace('\n', &format!("\n{:width$}", ""));
        format!("{:width$}{value}", format!("{key}:"))
    });
    shown.collect::<Vec<_>>().join("\n")
}
