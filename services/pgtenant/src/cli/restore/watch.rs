//! `pgtenant restore watch`: a restore to its end, with a bar of what is copied.

use std::time::Duration;

use chrono::Utc;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pgtenant_model::{Restore, RestorePhase};
use tokio::time::Instant;
use uuid::Uuid;

use super::show::describe;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Outcome, Result};
use crate::cli::http::{Client, HttpError};
use crate::cli::operation::json_word;
use crate::cli::output::{age, note};

/// Between looks.
const LOOK: Duration = Duration::from_millis(300);
/// A restore of a large database takes hours.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
/// As a shell says that a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Arguments of `pgtenant restore watch`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit status: 0 it has succeeded, 1 it has not.

Examples:
  pgtenant restore watch 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11
  pgtenant restore watch 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11 --output json")]
pub(in crate::cli) struct WatchArgs {
    /// The restore
    id: Uuid,
}

pub(super) async fn run(context: &Context, args: &WatchArgs) -> Result<Outcome> {
    watch(context, &context.client()?, args.id, Until::Over).await
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The restore is over.
    Over,
    /// It is undone.
    Undone,
}

impl Until {
    fn reached(self, restore: &Restore) -> bool {
        match self {
            Self::Over => restore.phase.is_over(),
            Self::Undone => restore.undone_at.is_some(),
        }
    }
}

/// Waits, shows how it goes, prints how it ended.
///
/// # Errors
/// It has not succeeded, or the control plane does not let us look.
pub(super) async fn watch(context: &Context, client: &Client, id: Uuid, until: Until) -> Result<Outcome> {
    let bar = Bar::new();
    let deadline = Instant::now() + context.given_timeout().unwrap_or(LONGEST);
    let ended = tokio::select! {
        ended = look(client, id, until, &bar) => ended,
        () = tokio::time::sleep_until(deadline) => {
            Err(CliError::failed(format!("the restore is not over yet; `pgtenant restore watch {id}` goes on")))
        }
        signal = tokio::signal::ctrl_c() => {
            signal?;
            bar.bar.finish_and_clear();
            note(&format!("it goes on without you; `pgtenant restore watch {id}` shows how"));
            return Ok(Outcome::Status(INTERRUPTED));
        }
    };
    bar.bar.finish_and_clear();
    let (restore, document) = ended?;
    if context.out.is_for_machines() {
        context.out.document(&document)?;
    } else {
        context.out.line(describe(&restore, &context.out))?;
    }
    match restore.phase {
        RestorePhase::Succeeded => Ok(Outcome::Done),
        RestorePhase::Failed => Err(CliError::failed("the restore has failed")),
        phase => Err(CliError::failed(format!("the restore was {}", json_word(phase).to_lowercase()))),
    }
}

async fn look(client: &Client, id: Uuid, until: Until, bar: &Bar) -> Result<(Restore, crate::cli::http::Document)> {
    loop {
        match client.get(&["v1", "restores", &id.to_string()], &[]).await {
            Ok(reply) => {
                let restore: Restore = reply.read()?;
                if until.reached(&restore) {
                    return Ok((restore, reply.document()?));
                }
                bar.show(&restore);
            }
            Err(error) if error.is_transient() || matches!(error, HttpError::Connect { .. }) => {
                bar.say(&format!("the control plane does not answer: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A bar on a terminal; elsewhere a line for each phase.
struct Bar {
    bar: ProgressBar,
    last: std::sync::Mutex<String>,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {elapsed}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, last: std::sync::Mutex::default() }
    }

    fn show(&self, restore: &Restore) {
        let progress = &restore.progress;
        self.bar.set_length(progress.bytes_total.unwrap_or(progress.bytes));
        self.bar.set_position(progress.bytes);
        let tables = progress.tables_total.map(|all| format!(" {}/{all} tables", progress.tables));
        let rest = progress.estimated_end.map(|end| format!(", done in {}", age(Utc::now(), end)));
        let phase = json_word(restore.phase);
        let (tables, rest) = (tables.as_deref().unwrap_or_default(), rest.as_deref().unwrap_or_default());
        self.bar.set_message(format!("{phase}{tables}{rest}"));
        self.say(&match &restore.message {
            Some(message) => format!("{phase}: {message}"),
            None => phase,
        });
    }

    fn say(&self, line: &str) {
        let Ok(mut last) = self.last.lock() else { return };
        if self.bar.is_hidden() && *last != line {
            note(line);
        }
        line.clone_into(&mut last);
    }
}
