//! `pgtenant config`.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::context::Context;
use super::error::{Outcome, Result};
use super::output::{Paint, Table, note};
use crate::config::{Effective, Problem, SettingsArgs, check, load};

/// `pgtenant config …`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the settings that are in effect and where each came from, and check them
    Check(CheckArgs),
}

/// Arguments of `pgtenant config check`: those of `serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit status 1 when something can not be used; secrets are not shown.

Examples:
  pgtenant config check
  pgtenant config check --config ./pgtenant.toml --output json
  PGTENANT_LOG__FORMAT=json pgtenant config check --listen 0.0.0.0:8080")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Serialize)]
struct Checked<'a> {
    file: Option<String>,
    ok: bool,
    settings: Vec<Effective>,
    problems: &'a [Problem],
    warnings: &'a [Problem],
}

pub(super) fn run(context: &Context, command: &ConfigCommand) -> Result<Outcome> {
    let ConfigCommand::Check(CheckArgs { settings }) = command;
    let mut loaded = load(settings, std::env::vars_os());
    check(&mut loaded);
    let checked = Checked {
        file: loaded.file.as_ref().map(|file| file.display().to_string()),
        ok: loaded.problems.is_empty(),
        settings: loaded.effective(),
        problems: &loaded.problems,
        warnings: &loaded.warnings,
    };
    if context.out.is_for_machines() {
        context.out.document(&checked)?;
    } else {
        print(context, &checked)?;
    }
    Ok(if checked.ok { Outcome::Done } else { Outcome::Failed })
}

fn print(context: &Context, checked: &Checked<'_>) -> Result<()> {
    let out = &context.out;
    match &checked.file {
        Some(file) => out.line(format!("Settings file: {file}\n"))?,
        None => out.line(format!("Settings file: none ({} is not there)\n", crate::config::DEFAULT_FILE))?,
    }
    let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
    for Effective { key, value, source } in &checked.settings {
        let value = value.clone().unwrap_or_else(|| "-".to_owned());
        let source = if source.is_empty() { "not set" } else { source };
        table.row([key.clone(), value, source.to_owned()]);
    }
    out.table(&table, "")?;
    for warning in checked.warnings {
        note(&format!("{} {warning}", out.paint("warning:", Paint::Busy)));
    }
    for problem in checked.problems {
        note(&format!("{} {problem}", out.paint("error:", Paint::Bad)));
    }
    out.line(match checked.problems.len() {
        0 => "\nThe settings can be used.".to_owned(),
        1 => "\nThe settings can not be used: 1 problem.".to_owned(),
        n => format!("\nThe settings can not be used: {n} problems."),
    })?;
    Ok(())
}
