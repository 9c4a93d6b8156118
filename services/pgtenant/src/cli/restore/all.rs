//! `pgtenant restore all`: every database of a cluster that was lost.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use futures::{StreamExt as _, stream};
use pgtenant_model::{
    ClaimKey, Database, DatabaseState, Restore, RestorePhase, RestorePoint, RestoreSpec, RestoreStrategy,
};

use crate::cli::confirm::confirm;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Outcome, Result};
use crate::cli::http::{Client, Document};
use crate::cli::name::database_path;
use crate::cli::operation::json_word;
use crate::cli::output::{note, time};
use crate::cli::read;

/// Restores that wait or are under way at the same time. The cluster's own limit says how many of them are worked on.
const AT_ONCE: usize = 8;
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `pgtenant restore all`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "For a cluster that is lost, when pgtenant has made its databases anew, empty: each of them gets back what it had
before the time that you name. One that was restored since then is left alone, so that the command can be repeated.

Exit status: 0 all are restored, 1 some are not.

Examples:
  pgtenant restore all --cluster default --time 2026-11-20T03:00:00Z
  pgtenant restore all --cluster default --time 2026-11-20T03:00:00Z --yes --output json"
)]
pub(in crate::cli) struct AllArgs {
    /// The cluster
    #[arg(long, value_name = "NAME", default_value = "default")]
    cluster: String,
    /// A time before the loss: of each database the newest snapshot before it
    #[arg(long, value_name = "TIME")]
    time: DateTime<Utc>,
    /// Do not ask, and approve each
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(context: &Context, args: &AllArgs) -> Result<Outcome> {
    let client = context.client()?;
    let databases: Vec<Database> = read(client.list(&["v1", "databases"], &[("cluster", &args.cluster)], None).await?)?;
    let restores: Vec<Restore> = read(client.list(&["v1", "restores"], &[], None).await?)?;
    let done: BTreeSet<(&str, &str)> = restores.iter().filter(|one| is_from(one, args.time)).map(key).collect();
    let wanted: Vec<&Database> = databases
        .iter()
        .filter(|one| one.state != DatabaseState::Retained && one.state != DatabaseState::Deleting)
        .filter(|one| !done.contains(&(one.namespace.as_str(), one.name.as_str())))
        .collect();
    let question = format!(
        "{} databases of cluster {} become as they were before {}; {} are left alone, as they were restored since or are \
         Retained. What is there now is put aside. Go on?",
        wanted.len(),
        args.cluster,
        time(args.time),
        databases.len() - wanted.len(),
    );
    confirm(context, args.yes, &question)?;
    let restoring = wanted.iter().map(|one| restore(&client, one, args.time));
    let mut ended = stream::iter(restoring).buffer_unordered(AT_ONCE);
    let (mut documents, mut failed) = (Vec::new(), 0);
    while let Some((name, result)) = ended.next().await {
        match result {
            Ok((restore, document)) => {
                failed += usize::from(restore.phase != RestorePhase::Succeeded);
                note(&format!("{name}: {}: {}", json_word(restore.phase), restore.message.unwrap_or_default()));
                documents.push(document);
            }
            Err(error) => {
                failed += 1;
                note(&format!("{name}: {error}"));
            }
        }
    }
    if context.out.is_for_machines() {
        context.out.document(&documents)?;
    }
    if failed > 0 {
        let hint = "see `pgtenant restore list`; the same command tries again those that are not restored";
        return Err(CliError::failed(format!("{failed} of {} are not restored", wanted.len())).hint(hint));
    }
    if !context.out.is_for_machines() {
        context.out.line(format!("{} databases of cluster {} are restored", wanted.len(), args.cluster))?;
    }
    Ok(Outcome::Done)
}

/// Whether it has brought back what was there before `time`, after that.
fn is_from(restore: &Restore, time: DateTime<Utc>) -> bool {
    restore.phase == RestorePhase::Succeeded
        && restore.created_at > time
        && restore.undone_at.is_none()
        && restore.spec.strategy != RestoreStrategy::Copy
}

fn key(restore: &Restore) -> (&str, &str) {
    (&restore.namespace, &restore.name)
}

/// Asks, says yes, and waits for the end.
async fn restore(client: &Client, database: &Database, time: DateTime<Utc>) -> (String, Result<(Restore, Document)>) {
    let name = format!("{}/{}", database.namespace, database.name);
    let restored = async {
        let key = ClaimKey::new(&database.namespace, &database.name);
        let key = key.map_err(|error| CliError::failed(error.to_string()))?;
        let path: Vec<&str> = database_path(&key).into_iter().chain(["restores"]).collect();
        let spec = RestoreSpec {
            from: RestorePoint { snapshot: None, time: Some(time), latest: false },
            strategy: RestoreStrategy::Swap,
            copy_name: None,
            reason: Some("all databases of a cluster that was lost".to_owned()),
        };
        let asked: Restore = client.post(&path, &[], Some(&spec)).await?.read()?;
        let id = asked.id.to_string();
        if asked.phase == RestorePhase::Requested {
            client.post(&["v1", "restores", &id, "approve"], &[], None::<&()>).await?;
        }
        loop {
            match client.get(&["v1", "restores", &id], &[]).await {
                Ok(reply) => {
                    let restore: Restore = reply.read()?;
                    if restore.phase.is_over() {
                        return Ok((restore, reply.document()?));
                    }
                }
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    (name, restored.await)
}
