//! `pgtenant db list`.

use chrono::Utc;
use clap::{Args, ValueEnum};
use pgtenant_model::{Database, DatabaseState};

use crate::cli::context::Context;
use crate::cli::error::{Outcome, Result};
use crate::cli::output::{Table, age};
use crate::cli::read;

/// Arguments of `pgtenant db list`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  pgtenant db list
  pgtenant db list -n idp-dev
  pgtenant db list --all --state Failed
  pgtenant db list --output json")]
pub(crate) struct ListArgs {
    /// Only this namespace
    #[arg(short, long, value_name = "NS", conflicts_with = "all")]
    namespace: Option<String>,
    /// All namespaces that the token may read, which is the default
    #[arg(short = 'A', long)]
    all: bool,
    /// Only those in this state
    #[arg(long, value_enum, ignore_case = true)]
    state: Option<State>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum State {
    Pending,
    Provisioning,
    Ready,
    Degraded,
    Failed,
    Deleting,
    Retained,
}

impl State {
    fn wanted(self) -> DatabaseState {
        match self {
            Self::Pending => DatabaseState::Pending,
            Self::Provisioning => DatabaseState::Provisioning,
            Self::Ready => DatabaseState::Ready,
            Self::Degraded => DatabaseState::Degraded,
            Self::Failed => DatabaseState::Failed,
            Self::Deleting => DatabaseState::Deleting,
            Self::Retained => DatabaseState::Retained,
        }
    }
}

pub(super) async fn run(context: &Context, args: &ListArgs) -> Result<Outcome> {
    let mut query = Vec::new();
    if let Some(state) = args.state {
        query.push(("state", state.wanted().as_str()));
    }
    let client = context.client()?;
    let items = match &args.namespace {
        Some(namespace) => client.list(&["v1", "namespaces", namespace, "databases"], &query, None).await?,
        None => client.list(&["v1", "databases"], &query, None).await?,
    };
    if context.out.is_for_machines() {
        context.out.document(&items)?;
        return Ok(Outcome::Done);
    }
    let now = Utc::now();
    let mut table = Table::new(&["NAMESPACE", "NAME", "STATE", "MODE", "CLUSTER", "SOURCE", "AGE", "MESSAGE"])
        .optional(&["SOURCE", "CLUSTER", "MODE", "AGE"]);
    for database in read::<Database>(items)? {
        let message = trouble(&database);
        let Database { namespace, name, state, mode, cluster, source, created_at, .. } = database;
        table.row([
            namespace,
            name,
            state.as_str().to_owned(),
            mode.to_string(),
            cluster,
            source.to_string(),
            age(created_at, now),
            message,
        ]);
    }
    context.out.table(&table, "There are no databases.")?;
    Ok(Outcome::Done)
}

/// Why it is not Ready, in a line.
fn trouble(database: &Database) -> String {
    let quiet = matches!(database.state, DatabaseState::Ready | DatabaseState::Pending | DatabaseState::Retained);
    let ready = database.conditions.iter().find(|condition| condition.kind == "Ready");
    ready.filter(|_| !quiet).map(|condition| condition.message.replace('\n', " ")).unwrap_or_default()
}
