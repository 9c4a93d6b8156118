//! `pgtenant cluster move`: a database on another cluster.

use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use pgtenant_model::{ClaimKey, Move, MoveMethod, MovePhase, Span};
use serde_json::json;

use super::confirm::confirm;
use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::http::Client;
use super::name::Target;
use super::output::note;

/// Between looks at how far it is.
const LOOK: Duration = Duration::from_millis(300);
/// As a shell says that a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Arguments of `pgtenant cluster move`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "First it is prepared, while applications go on: where that is possible a copy on the other cluster follows the database by
logical replication; else a copy is made for a try, compared and dropped. That says for how long nobody will be able to
connect, and you are asked. Then everybody is kept out until the rest is there and compared. Names, roles and passwords
stay; credentials get the new address. What was on the former cluster is kept there, closed, as after a restore.

Examples:
  pgtenant cluster move shop/orders --to eu-west
  pgtenant cluster move shop/orders --to eu-west --yes --max-gap 30s
  pgtenant cluster move shop/orders --to eu-west --by dump
  pgtenant cluster move shop/orders --cancel"
)]
pub(super) struct MoveArgs {
    #[command(flatten)]
    target: Target,
    /// The cluster that it is to be on
    #[arg(long, value_name = "CLUSTER", required_unless_present = "cancel")]
    to: Option<String>,
    /// How it gets there [default: by replication where that is possible, else by dump]
    #[arg(long, value_enum, value_name = "WAY")]
    by: Option<By>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Say no by yourself where nobody could connect for longer, as 30s
    #[arg(long, value_name = "TIME")]
    max_gap: Option<Span>,
    /// Cancel the move that waits for a yes
    #[arg(long, conflicts_with_all = ["to", "by", "yes", "max_gap"])]
    cancel: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum By {
    /// A copy follows the database while applications go on; they wait for the last changes
    Replication,
    /// A copy is made while nobody can connect
    Dump,
}

impl From<By> for MoveMethod {
    fn from(by: By) -> Self {
        match by {
            By::Replication => Self::Replication,
            By::Dump => Self::Dump,
        }
    }
}

/// A database's move, over REST.
struct Moves<'a> {
    client: &'a Client,
    key: &'a ClaimKey,
}

impl Moves<'_> {
    fn path<'s>(&'s self, end: &'s [&'s str]) -> Vec<&'s str> {
        let database = ["v1", "namespaces", self.key.namespace(), "databases", self.key.name(), "move"];
        database.into_iter().chain(end.iter().copied()).collect()
    }

    async fn post(&self, end: &[&str], body: &serde_json::Value) -> Result<Move> {
        Ok(self.client.post(&self.path(end), &[], Some(body)).await?.read()?)
    }

    async fn last(&self) -> Result<Move> {
        Ok(self.client.get(&self.path(&[]), &[]).await?.read()?)
    }

    async fn answer(&self, word: &str, one: &Move) -> Result<Move> {
        self.post(&[word], &json!({"id": one.id})).await
    }

    /// Until it is in one of the phases where nothing happens by itself. The control plane may be away for a while.
    async fn follow(&self, one: &Move, waits: bool) -> Result<Move> {
        let spinner = ProgressBar::new_spinner();
        spinner.enable_steady_tick(Duration::from_millis(100));
        loop {
            match self.client.get(&self.path(&[]), &[]).await {
                Ok(reply) => {
                    let now: Move = reply.read()?;
                    let rests = now.phase.is_over() || waits && now.phase == MovePhase::Waiting;
                    if now.id != one.id || rests {
                        spinner.finish_and_clear();
                        return Ok(now);
                    }
                    let message = now.message.unwrap_or_default();
                    spinner.set_message(format!("{}: {:?} {message}", self.key, now.phase));
                }
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

pub(super) async fn run(context: &Context, args: &MoveArgs) -> Result<Outcome> {
    let (client, key) = (context.client()?, args.target.key()?);
    let moves = Moves { client: &client, key: &key };
    let work = async {
        match &args.to {
            Some(to) => go(context, &moves, to, args).await,
            None => {
                let last = moves.last().await?;
                let cancelled = moves.answer("cancel", &last).await?;
                told(context, &moves.follow(&cancelled, false).await?)
            }
        }
    };
    tokio::select! {
        ended = work => ended,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            note(&format!("the move of {key} goes on without you as far as it was confirmed; --cancel ends one that waits"));
            Ok(Outcome::Status(INTERRUPTED))
        }
    }
}

async fn go(context: &Context, moves: &Moves<'_>, to: &str, args: &MoveArgs) -> Result<Outcome> {
    let asked = moves.post(&[], &json!({"to": to, "by": args.by.map(MoveMethod::from)})).await?;
    let rehearsed = moves.follow(&asked, true).await?;
    if rehearsed.phase != MovePhase::Waiting {
        return told(context, &rehearsed);
    }
    let expected = rehearsed.expected_gap_seconds.unwrap_or_default();
    let answer = match &args.max_gap {
        Some(most) if expected > most.duration().as_secs_f64() => Err(CliError::failed(format!(
            "{}: nobody could connect for about {expected:.1} s, and --max-gap is {most}",
            moves.key
        ))),
        _ => {
            let message = rehearsed.message.clone().unwrap_or_default();
            confirm(context, args.yes, &format!("{}: {message}. Move it from {} to {to}?", moves.key, rehearsed.from))
        }
    };
    if let Err(error) = answer {
        moves.answer("cancel", &rehearsed).await?;
        return Err(error);
    }
    let confirmed = moves.answer("confirm", &rehearsed).await?;
    told(context, &moves.follow(&confirmed, false).await?)
}

/// How it ended.
fn told(context: &Context, one: &Move) -> Result<Outcome> {
    let Move { namespace, name, phase, message, .. } = one;
    let text = format!("{namespace}/{name}: {}", message.as_deref().unwrap_or_default());
    if *phase == MovePhase::Failed {
        return Err(CliError::failed(text));
    }
    if context.out.is_for_machines() {
        context.out.document(&serde_json::to_value(one).map_err(std::io::Error::from)?)?;
    } else {
        context.out.line(text)?;
    }
    Ok(Outcome::Done)
}
