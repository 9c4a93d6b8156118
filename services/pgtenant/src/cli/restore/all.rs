//! `pgtenant restore all`: every database of a cluster that was lost.

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
before the time that you name, which is the moment of the loss. The command can be repeated: one that was restored
since then is left alone, and one whose restore is under way is waited for. What is Retained is left out, and named.

Exit status: 0 all are restored, 1 some are not.

Examples:
  pgtenant restore all --cluster default --time 2026-11-20T03:00:00Z
  pgtenant restore all --cluster default --time 2026-11-20T03:00:00Z --yes --output json"
)]
pub(in crate::cli) struct AllArgs {
    /// The cluster
    #[arg(long, value_name = "NAME", default_value = "default")]
    cluster: String,
    /// The moment of the loss, or shortly before it: of each database the newest snapshot before it
    #[arg(long, value_name = "TIME", value_parser = super::instant)]
    time: DateTime<Utc>,
    /// Do not ask, and approve each
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(context: &Context, args: &AllArgs) -> Result<Outcome> {
    let client = context.client()?;
    let databases: Vec<Database> = read(client.list(&["v1", "databases"], &[("cluster", &args.cluster)], None).await?)?;
    let restores: Vec<Restore> = read(client.list(&["v1", "restores"], &[], None).await?)?;
    let (wanted, others): (Vec<&Database>, Vec<&Database>) =
        databases.iter().partition(|one| one.state != DatabaseState::Retained && one.state != DatabaseState::Deleting);
    for one in &others {
        note(&format!("{}/{}: left out: it is {}", one.namespace, one.name, json_word(one.state)));
    }
    let tasks: Vec<(&Database, Option<&Restore>)> = wanted
        .iter()
        .filter_map(|one| match Task::of(one, &restores, args.time) {
            Task::None => None,
            Task::Follow(open) => Some((*one, Some(open))),
            Task::Ask => Some((*one, None)),
        })
        .collect();
    let question = format!(
        "{} databases of cluster {} become as they were before {}; {} were restored since and are left alone. What is there \
         now is put aside. Go on?",
        tasks.len(),
        args.cluster,
        time(args.time),
        wanted.len() - tasks.len(),
    );
    confirm(context, args.yes, &question)?;
    let restoring = tasks.iter().map(|(one, open)| restore(&client, one, *open, args.time));
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
        return Err(CliError::failed(format!("{failed} of {} are not restored", tasks.len())).hint(hint));
    }
    if !context.out.is_for_machines() {
        context.out.line(format!("{} databases of cluster {} are restored", tasks.len(), args.cluster))?;
    }
    Ok(Outcome::Done)
}

/// What there is to do for a database.
enum Task<'a> {
    /// It has what it should have.
    None,
    /// Such a restore is open.
    Follow(&'a Restore),
    Ask,
}

impl<'a> Task<'a> {
    /// By the restores of the database since the loss.
    fn of(database: &Database, restores: &'a [Restore], since: DateTime<Utc>) -> Self {
        let brings_back = |one: &&Restore| {
            let comes_back = [RestoreStrategy::Swap, RestoreStrategy::Replace].contains(&one.spec.strategy);
            comes_back && one.undone_at.is_none() && one.created_at > since
        };
        let of_it = |one: &&Restore| (&one.namespace, &one.name) == (&database.namespace, &database.name);
        let mut all = restores.iter().filter(of_it).filter(brings_back);
        match all.clone().find(|one| !one.phase.is_over()) {
            Some(open) => Self::Follow(open),
            None if all.any(|one| one.phase == RestorePhase::Succeeded) => Self::None,
            None => Self::Ask,
        }
    }
}

/// Asks, says yes, and waits for the end. One that is open is gone on with; somebody else's waits for somebody else's yes.
async fn restore(
    client: &Client,
    database: &Database,
    open: Option<&Restore>,
    time: DateTime<Utc>,
) -> (String, Result<(Restore, Document)>) {
    let name = format!("{}/{}", database.namespace, database.name);
    let restored = async {
        let spec = RestoreSpec {
            from: RestorePoint { snapshot: None, time: Some(time), latest: false },
            strategy: RestoreStrategy::Swap,
            copy_name: None,
            reason: Some("all databases of a cluster that was lost".to_owned()),
        };
        let asked = match open {
            Some(open) => open.clone(),
            None => {
                let key = ClaimKey::new(&database.namespace, &database.name);
                let key = key.map_err(|error| CliError::failed(error.to_string()))?;
                let path: Vec<&str> = database_path(&key).into_iter().chain(["restores"]).collect();
                client.post(&path, &[], Some(&spec)).await?.read()?
            }
        };
        let id = asked.id.to_string();
        if asked.phase == RestorePhase::Requested {
            if asked.spec != spec {
                let problem =
                    CliError::failed(format!("restore {id}, of {}, waits to be approved", asked.requested_by));
                return Err(problem.hint(format!("`pgtenant restore approve {id}`, or reject it and repeat this")));
            }
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
