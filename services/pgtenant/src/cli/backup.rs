//! `pgtenant backup`: what a database can be restored from.

use chrono::Utc;
use clap::{Args, Subcommand};
use pgtenant_model::{ClaimKey, Operation, Snapshot, SnapshotId};
use uuid::Uuid;

use super::context::Context;
use super::db::wait::{Goal, WaitArgs, wait};
use super::error::{Outcome, Result};
use super::http::{Client, Reply};
use super::name::{Target, database_path};
use super::output::{Table, age, time};
use super::read;

/// `pgtenant backup …`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum BackupCommand {
    /// Dump a database now
    #[command(after_help = "Compressed, encrypted, and kept where the cluster's `backups.dumps` says.

Examples:
  pgtenant backup create idp-dev/my-db
  pgtenant backup create idp-dev/my-db --no-wait")]
    Create(BackupArgs),
    /// List what a database can be restored from
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  pgtenant backup list idp-dev/my-db
  pgtenant backup list idp-dev/my-db --output json
  pgtenant backup list --cluster default"
    )]
    List(ListArgs),
    /// Restore a snapshot for a try: beside the database, compared, and dropped
    #[command(after_help = "Examples:
  pgtenant backup verify idp-dev/my-db
  pgtenant backup verify idp-dev/my-db --snapshot dump:20261120T021405Z-1a2b3c4d")]
    Verify {
        #[command(flatten)]
        backup: BackupArgs,
        /// This one, as `pgtenant backup list` names it [default: the newest one]
        #[arg(long, value_name = "SNAPSHOT")]
        snapshot: Option<SnapshotId>,
    },
}

/// A database, or a whole cluster.
#[derive(Debug, Clone, Args)]
pub(super) struct ListArgs {
    /// The database, as NAMESPACE/NAME, or NAME with -n
    #[arg(value_name = "NS/NAME", required_unless_present = "cluster")]
    name: Option<String>,
    /// The namespace, where it does not stand before the name
    #[arg(short, long, value_name = "NS", requires = "name")]
    namespace: Option<String>,
    /// What is kept of this cluster as a whole, in the place of one database
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    cluster: Option<String>,
}

/// A database, and whether to wait.
#[derive(Debug, Clone, Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(context: &Context, command: BackupCommand) -> Result<Outcome> {
    let client = context.client()?;
    match command {
        BackupCommand::Create(BackupArgs { target, wait }) => {
            let key = target.key()?;
            let reply = client.post(&snapshots_path(&key), &[], None::<&()>).await?;
            settle(context, &client, &key, &reply, wait, "is being dumped").await
        }
        BackupCommand::List(ListArgs { cluster: Some(cluster), .. }) => {
            let nothing = format!("Nothing is kept of the cluster {cluster} as a whole.");
            list(context, &client, &["v1", "clusters", &cluster, "snapshots"], &nothing).await
        }
        BackupCommand::List(ListArgs { name, namespace, .. }) => {
            let key = Target { name: name.unwrap_or_default(), namespace }.key()?;
            let nothing = format!("There is nothing that {key} could be restored from.");
            list(context, &client, &snapshots_path(&key), &nothing).await
        }
        BackupCommand::Verify { backup: BackupArgs { target, wait }, snapshot } => {
            let key = target.key()?;
            let snapshot = match snapshot {
                Some(snapshot) => snapshot,
                None => newest(&client, &key).await?,
            };
            let id = snapshot.to_string();
            let path: Vec<&str> = snapshots_path(&key).into_iter().chain([id.as_str(), "verify"]).collect();
            let reply = client.post(&path, &[], None::<&()>).await?;
            settle(context, &client, &key, &reply, wait, &format!("{snapshot} is being tried")).await
        }
    }
}

fn snapshots_path(key: &ClaimKey) -> Vec<&str> {
    database_path(key).into_iter().chain(["snapshots"]).collect()
}

async fn newest(client: &Client, key: &ClaimKey) -> Result<SnapshotId> {
    let all: Vec<Snapshot> = read(client.whole_list(&snapshots_path(key)).await?)?;
    let newest = all.into_iter().filter(|one| one.contains != Some(false)).max_by_key(|one| one.at);
    newest.map(|one| one.id).ok_or_else(|| {
        super::error::CliError::failed(format!("there is no snapshot of {key}"))
            .hint(format!("`pgtenant backup create {key}` makes one"))
    })
}

/// Waits for the end of what was asked for, and prints how it ended.
async fn settle(
    context: &Context,
    client: &Client,
    key: &ClaimKey,
    reply: &Reply,
    waits: WaitArgs,
    begun: &str,
) -> Result<Outcome> {
    let operation: Operation = reply.read()?;
    if !waits.waits(context, true) {
        if context.out.is_for_machines() {
            context.out.document(&reply.document()?)?;
        } else {
            context.out.line(format!("{key}: {begun}; pgtenant operation get {}", operation.id))?;
        }
        return Ok(Outcome::Done);
    }
    let outcome = wait(context, client, key, Goal::Operation(operation.id)).await?;
    if outcome == Outcome::Done {
        tell(context, client, key, operation.id).await?;
    }
    Ok(outcome)
}

async fn tell(context: &Context, client: &Client, key: &ClaimKey, id: Uuid) -> Result<()> {
    let reply = client.get(&["v1", "operations", &id.to_string()], &[]).await?;
    if context.out.is_for_machines() {
        context.out.document(&reply.document()?)?;
    } else {
        let operation: Operation = reply.read()?;
        context.out.line(format!("{key}: {}", operation.message.unwrap_or_default()))?;
    }
    Ok(())
}

async fn list(context: &Context, client: &Client, path: &[&str], nothing: &str) -> Result<Outcome> {
    let items = client.whole_list(path).await?;
    if context.out.is_for_machines() {
        context.out.document(&items)?;
        return Ok(Outcome::Done);
    }
    let now = Utc::now();
    let mut table = Table::new(&["SNAPSHOT", "AT", "AGE", "SIZE", "VERIFIED", "WHERE"]).optional(&["WHERE"]);
    for Snapshot { id, at, size, contains, verified_at, location } in read::<Snapshot>(items)? {
        if contains == Some(false) {
            continue;
        }
        table.row([
            id.to_string(),
            time(at),
            age(at, now),
            size.map(|bytes| indicatif::HumanBytes(bytes).to_string()).unwrap_or_default(),
            verified_at.map(|at| format!("{} ago", age(at, now))).unwrap_or_default(),
            location,
        ]);
    }
    context.out.table(&table, nothing)?;
    Ok(Outcome::Done)
}
