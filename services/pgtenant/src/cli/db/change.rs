//! `pgtenant db update`, `release` and `rotate`.

use clap::{Args, ValueEnum};
use pgtenant_model::{ClaimKey, Database, Operation};
use serde_json::{Map, Value, json};

use super::spec::ModeArg;
use super::wait::{Goal, WaitArgs, wait};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Outcome, Result};
use crate::cli::http::{Client, Reply};
use crate::cli::name::{Target, database_path};

/// Arguments of `pgtenant db update`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "What is not named stays as it is.

Examples:
  pgtenant db update idp-dev/my-db --mode protected
  pgtenant db update idp-dev/my-db --schema reporting --schema audit
  pgtenant db update idp-dev/my-db --no-extensions --no-connection-limit")]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    target: Target,
    /// What removing the claim does
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// The schemas beside public, all of them
    #[arg(long = "schema", value_name = "NAME", value_delimiter = ',', conflicts_with = "no_schemas")]
    schemas: Vec<String>,
    /// No schema beside public
    #[arg(long)]
    no_schemas: bool,
    /// The extensions, all of them
    #[arg(long = "extension", value_name = "NAME", value_delimiter = ',', conflicts_with = "no_extensions")]
    extensions: Vec<String>,
    /// No extensions
    #[arg(long)]
    no_extensions: bool,
    /// Connections that each role may have at once
    #[arg(long, value_name = "N", conflicts_with = "no_connection_limit")]
    connection_limit: Option<i32>,
    /// No limit of connections
    #[arg(long)]
    no_connection_limit: bool,
    /// The Slack channel that hears what becomes of it
    #[arg(long, value_name = "CHANNEL", conflicts_with = "no_slack_channel")]
    slack_channel: Option<String>,
    /// No channel of its own: those that are linked to the namespace
    #[arg(long)]
    no_slack_channel: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

impl UpdateArgs {
    fn patch(&self) -> Map<String, Value> {
        let mut patch = Map::new();
        if let Some(mode) = self.mode {
            patch.insert("mode".to_owned(), mode.as_str().into());
        }
        if self.no_schemas || !self.schemas.is_empty() {
            patch.insert("schemas".to_owned(), self.schemas.clone().into());
        }
        if self.no_extensions || !self.extensions.is_empty() {
            patch.insert("extensions".to_owned(), self.extensions.clone().into());
        }
        if self.no_connection_limit || self.connection_limit.is_some() {
            patch.insert("connectionLimit".to_owned(), self.connection_limit.into());
        }
        if self.no_slack_channel || self.slack_channel.is_some() {
            patch.insert("slackChannel".to_owned(), self.slack_channel.clone().into());
        }
        patch
    }
}

pub(super) async fn update(context: &Context, args: &UpdateArgs) -> Result<Outcome> {
    let key = args.target.key()?;
    let patch = args.patch();
    if patch.is_empty() {
        return Err(CliError::usage("nothing to change").hint("`pgtenant db update --help` lists what can be changed"));
    }
    let client = context.client()?;
    let before = client.get(&database_path(&key), &[]).await?;
    let reply = client.patch(&database_path(&key), before.etag.as_deref(), &patch).await?;
    let generation = reply.read::<Database>()?.generation;
    let waits = args.wait.waits(context, false) && reply.operation.is_some();
    if !context.out.is_for_machines() {
        context.out.line(format!("{key} {}", if reply.operation.is_some() { "changed" } else { "unchanged" }))?;
    } else if !waits {
        context.out.document(&reply.document()?)?;
    }
    if !waits {
        return Ok(Outcome::Done);
    }
    let goal = Goal::Settled { operation: reply.operation, generation };
    let outcome = wait(context, &client, &key, goal).await?;
    if outcome == Outcome::Done {
        let reply = client.get(&database_path(&key), &[]).await?;
        if context.out.is_for_machines() {
            context.out.document(&reply.document()?)?;
        } else {
            context.out.line(format!("{key} is {}", reply.read::<Database>()?.state.as_str()))?;
        }
    }
    Ok(outcome)
}

/// Arguments of `pgtenant db release`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Nothing is dropped. Define it again, or adopt it, to take it back with the same passwords.

Examples:
  pgtenant db release idp-dev/my-db
  pgtenant db list --state Retained")]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn release(context: &Context, args: &ReleaseArgs) -> Result<Outcome> {
    let key = args.target.key()?;
    let client = context.client()?;
    let path = [&database_path(&key)[..], &["release"]].concat();
    let reply = client.post(&path, &[], None::<&()>).await?;
    let words = ("released", "is kept, and not managed any more");
    settle(context, &client, &key, &reply, args.wait.waits(context, false), words).await
}

/// Arguments of `pgtenant db rotate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "New credentials are in every store before the old ones end; open sessions go on.

Examples:
  pgtenant db rotate idp-dev/my-db
  pgtenant db rotate idp-dev/my-db --tier read --tier write")]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    target: Target,
    /// Only this tier; more than once for several [default: all]
    #[arg(long = "tier", value_enum, value_delimiter = ',')]
    tiers: Vec<TierArg>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// `--tier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TierArg {
    /// SELECT
    Read,
    /// SELECT, INSERT, UPDATE, DELETE, TRUNCATE
    Write,
    /// Owns what is in the database
    Admin,
}

impl TierArg {
    /// The tier.
    pub(super) fn tier(self) -> pgtenant_model::Tier {
        match self {
            Self::Read => pgtenant_model::Tier::Read,
            Self::Write => pgtenant_model::Tier::Write,
            Self::Admin => pgtenant_model::Tier::Admin,
        }
    }
}

pub(super) async fn rotate(context: &Context, args: &RotateArgs) -> Result<Outcome> {
    let key = args.target.key()?;
    let client = context.client()?;
    let path = [&database_path(&key)[..], &["credentials", "rotate"]].concat();
    let tiers: Vec<&str> = args.tiers.iter().map(|tier| tier.tier().as_str()).collect();
    let body = (!tiers.is_empty()).then(|| json!({"tiers": tiers}));
    let reply = client.post(&path, &[], body.as_ref()).await?;
    let words = ("gets new passwords", "has new passwords");
    settle(context, &client, &key, &reply, args.wait.waits(context, false), words).await
}

/// Says what was begun, waits for it where asked, says what was done. The answer is an operation.
pub(super) async fn settle(
    context: &Context,
    client: &Client,
    key: &ClaimKey,
    reply: &Reply,
    waits: bool,
    (begun, done): (&str, &str),
) -> Result<Outcome> {
    let machine = context.out.is_for_machines();
    if !machine {
        context.out.line(format!("{key} {begun}"))?;
    } else if !waits {
        context.out.document(&reply.document()?)?;
    }
    if !waits {
        return Ok(Outcome::Done);
    }
    let Operation { id, .. } = reply.read()?;
    let outcome = wait(context, client, key, Goal::Operation(id)).await?;
    if outcome == Outcome::Done {
        if machine {
            let reply = client.get(&["v1", "operations", &id.to_string()], &[]).await?;
            context.out.document(&reply.document()?)?;
        } else {
            context.out.line(format!("{key} {done}"))?;
        }
    }
    Ok(outcome)
}
