//! `pgtenant token`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::first_token;
use super::output::{Table, age, note, until};
use super::read;

/// `pgtenant token …`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is printed once, on standard output
    Create(CreateArgs),
    /// List tokens, without their secrets
    #[command(after_help = "Examples:\n  pgtenant token list\n  pgtenant token list --output json")]
    List,
    /// End a token at once
    #[command(after_help = "Examples:\n  pgtenant token revoke 01936f4c-7d0e-7b5a-9f43-5d1e6a0c2b11")]
    Revoke {
        /// Its id, as `pgtenant token list` shows it
        id: Uuid,
    },
    /// Make a platform token in the ledger itself, without a control plane: the first one
    Bootstrap(first_token::BootstrapArgs),
}

/// Arguments of `pgtenant token create`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  pgtenant token create --name ci --role tenant --namespace idp-dev --expires 90d
  pgtenant token create --name dashboard --role viewer --namespace idp-dev --namespace shop
  PGTENANT_TOKEN=$(pgtenant token create --name me --role platform --expires 1d)")]
pub(super) struct CreateArgs {
    /// For people; the audit shows token:NAME
    #[arg(long)]
    name: String,
    /// What it may do: everything, everything in its namespaces, or read in its namespaces
    #[arg(long, value_enum)]
    role: Role,
    /// A namespace in which it may do that; more than once for several
    #[arg(long = "namespace", short, value_name = "NS", required_if_eq_any([("role", "tenant"), ("role", "viewer")]))]
    namespaces: Vec<String>,
    /// Time until it ends, as 90d [default: it does not end by itself]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    expires: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Platform,
    Tenant,
    Viewer,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    id: Uuid,
    name: String,
    role: String,
    namespaces: Vec<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    secret: Option<String>,
}

pub(super) async fn run(context: &Context, command: TokenCommand) -> Result<Outcome> {
    match command {
        TokenCommand::Create(args) => create(context, args).await,
        TokenCommand::List => list(context).await,
        TokenCommand::Revoke { id } => {
            context.client()?.delete(&["v1", "tokens", &id.to_string()], &[]).await?;
            if context.out.is_for_machines() {
                // REST answers with nothing.
                context.out.document(&json!({"id": id, "revoked": true}))?;
            } else {
                note(&format!("token {id} revoked"));
            }
            Ok(Outcome::Done)
        }
        TokenCommand::Bootstrap(args) => first_token::run(context, args).await,
    }
}

async fn create(context: &Context, args: CreateArgs) -> Result<Outcome> {
    let CreateArgs { name, role, namespaces, expires } = args;
    if role == Role::Platform && !namespaces.is_empty() {
        return Err(CliError::usage("a platform token may do everything everywhere; it takes no --namespace"));
    }
    let role = match role {
        Role::Platform => "platform",
        Role::Tenant => "tenant",
        Role::Viewer => "viewer",
    };
    let mut body = json!({"name": name, "role": role, "namespaces": namespaces});
    if let Some(expires) = expires {
        body["expiresInSeconds"] = expires.as_secs().into();
    }
    let reply = context.client()?.post(&["v1", "tokens"], &[], Some(&body)).await?;
    let Token { id, secret, expires_at, .. } = reply.read()?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
        return Ok(Outcome::Done);
    }
    let Some(secret) = secret else {
        return Err(CliError::failed(format!("token {id} was made, but its secret was lost on the way"))
            .hint(format!("`pgtenant token revoke {id}`, then make another")));
    };
    let end =
        expires_at.map_or_else(|| "never ends by itself".to_owned(), |at| format!("ends {}", until(at, Utc::now())));
    note(&format!("token {id} ({name}, {role}) {end}; it is shown this once:"));
    context.out.line(secret)?;
    Ok(Outcome::Done)
}

async fn list(context: &Context) -> Result<Outcome> {
    let items = context.client()?.whole_list(&["v1", "tokens"]).await?;
    if context.out.is_for_machines() {
        context.out.document(&items)?;
        return Ok(Outcome::Done);
    }
    let now = Utc::now();
    let mut table = Table::new(&["ID", "NAME", "ROLE", "NAMESPACES", "AGE", "ENDS"]);
    for token in read::<Token>(items)? {
        let ends = match (token.revoked_at, token.expires_at) {
            (Some(_), _) => "revoked".to_owned(),
            (None, None) => "never".to_owned(),
            (None, Some(at)) if at <= now => "expired".to_owned(),
            (None, Some(at)) => until(at, now),
        };
        let namespaces = if token.namespaces.is_empty() { "*".to_owned() } else { token.namespaces.join(", ") };
        table.row([token.id.to_string(), token.name, token.role, namespaces, age(token.created_at, now), ends]);
    }
    context.out.table(&table, "There are no tokens.")?;
    Ok(Outcome::Done)
}
