//! `pgtenant restore request`.

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use pgtenant_model::{
    ClaimKey, Restore, RestorePhase, RestorePoint, RestoreSpec, RestoreStrategy, Snapshot, SnapshotId,
};

use super::watch::{Until, watch};
use crate::cli::confirm::confirm;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Outcome, Result};
use crate::cli::http::Client;
use crate::cli::name::{Target, database_path};
use crate::cli::output::{age, note, time};
use crate::cli::read;

/// Arguments of `pgtenant restore request`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The snapshot is loaded beside the database, compared with what it should hold, and takes its place in a moment.
Roles and passwords stay as they are. The former database is kept for some days: `pgtenant restore undo` brings it
back. A restore that somebody else has to approve waits for that.

Examples:
  pgtenant restore request idp-dev/my-db
  pgtenant restore request idp-dev/my-db --time 2026-11-20T03:00:00Z --reason 'a script deleted the orders'
  pgtenant restore request idp-dev/my-db --snapshot dump:20261120T021405Z-1a2b3c4d --yes
  pgtenant restore request idp-dev/my-db --strategy copy --copy-name my-db-old
  pgtenant restore request idp-dev/my-db --strategy test     # is the snapshot good?"
)]
pub(in crate::cli) struct RequestArgs {
    #[command(flatten)]
    target: Target,
    /// This snapshot, as `pgtenant backup list` names it [default: the newest one]
    #[arg(long, value_name = "SNAPSHOT", conflicts_with_all = ["time", "latest"])]
    snapshot: Option<SnapshotId>,
    /// As it was then: the newest snapshot before it, or the instant itself where the source can do that
    #[arg(long, value_name = "TIME", conflicts_with = "latest", value_parser = super::instant)]
    time: Option<DateTime<Utc>>,
    /// The newest snapshot, which is the default
    #[arg(long)]
    latest: bool,
    /// What becomes of the database that is there now
    #[arg(long, value_enum, default_value_t, value_name = "STRATEGY")]
    strategy: Strategy,
    /// With --strategy copy: the name of the new database
    #[arg(long, value_name = "NAME", required_if_eq("strategy", "copy"))]
    copy_name: Option<String>,
    /// Why, for whoever approves it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask, and approve it
    #[arg(short, long)]
    yes: bool,
    /// Only ask for it: neither approve it nor wait for its end
    #[arg(long, conflicts_with = "yes")]
    no_wait: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Strategy {
    /// It takes the place of the live one, which is kept for a while
    #[default]
    Swap,
    /// The live one is dumped, emptied and filled; nobody can connect meanwhile
    Replace,
    /// It becomes another database
    Copy,
    /// It is compared with the snapshot and dropped: the live one is not touched
    Test,
}

impl RequestArgs {
    fn spec(&self) -> RestoreSpec {
        let Self { snapshot, time, latest, strategy, copy_name, reason, .. } = self;
        let latest = *latest || (snapshot.is_none() && time.is_none());
        RestoreSpec {
            from: RestorePoint { snapshot: snapshot.clone(), time: *time, latest },
            strategy: match strategy {
                Strategy::Swap => RestoreStrategy::Swap,
                Strategy::Replace => RestoreStrategy::Replace,
                Strategy::Copy => RestoreStrategy::Copy,
                Strategy::Test => RestoreStrategy::Test,
            },
            copy_name: copy_name.clone(),
            reason: reason.clone(),
        }
    }
}

pub(super) async fn run(context: &Context, args: &RequestArgs) -> Result<Outcome> {
    let key = args.target.key()?;
    let client = context.client()?;
    let asks = !args.yes && !args.no_wait && context.is_interactive();
    let mut spec = args.spec();
    let chosen = find(&client, &key, &spec.from).await?;
    if let Some(newest) = chosen.as_ref().filter(|_| spec.from.latest) {
        // What is newest now, and not what is when it begins: the schedule may dump the mistake meanwhile.
        spec.from = RestorePoint { snapshot: Some(newest.id.clone()), time: None, latest: false };
    }
    if asks {
        let what = describe(&key, &spec, chosen.as_ref());
        confirm(context, false, &format!("{what}\nGo on?"))?;
    }
    let path: Vec<&str> = database_path(&key).into_iter().chain(["restores"]).collect();
    let reply = client.post(&path, &[], Some(&spec)).await?;
    let restore: Restore = reply.read()?;
    if !context.out.is_for_machines() {
        note(&format!("restore {} was asked for", restore.id));
    }
    let approves = args.yes || asks;
    if !approves {
        if context.out.is_for_machines() {
            context.out.document(&reply.document()?)?;
        } else {
            context.out.line(waits(&restore))?;
        }
        return Ok(Outcome::Done);
    }
    if restore.phase == RestorePhase::Requested {
        let approved = client.post(&["v1", "restores", &restore.id.to_string(), "approve"], &[], None::<&()>).await;
        if let Err(error) = approved {
            note(&error.to_string());
            context.out.line(waits(&restore))?;
            return Ok(Outcome::Done);
        }
    }
    watch(context, &client, restore.id, Until::Over).await
}

fn waits(restore: &Restore) -> String {
    let id = restore.id;
    match restore.phase {
        RestorePhase::Requested => format!("it waits to be approved: pgtenant restore approve {id}"),
        _ => format!("it is under way: pgtenant restore watch {id}"),
    }
}

/// The snapshot that is meant; none before a time that the cluster may be had back to.
async fn find(client: &Client, key: &ClaimKey, point: &RestorePoint) -> Result<Option<Snapshot>> {
    let path: Vec<&str> = database_path(key).into_iter().chain(["snapshots"]).collect();
    let snapshots: Vec<Snapshot> = read(client.whole_list(&path).await?)?;
    let found = chosen(snapshots, point);
    if found.is_none() && point.time.is_none() {
        let none = CliError::failed(format!("there is no such snapshot of {key}"));
        return Err(none.hint(format!("`pgtenant backup list {key}` shows what there is")));
    }
    Ok(found)
}

/// What would happen, for a yes.
fn describe(key: &ClaimKey, spec: &RestoreSpec, chosen: Option<&Snapshot>) -> String {
    let now = Utc::now();
    let kept = chosen.map(|one| format!("{} ({} ago, {})", time(one.at), age(one.at, now), one.id));
    let was = match (spec.from.time, kept) {
        (Some(at), Some(kept)) => {
            format!("{key} as it was at {}, where the cluster can be had back to that, or else at {kept},", time(at))
        }
        (Some(at), None) => format!("{key} as it was at {}, if the cluster can be had back to that,", time(at)),
        (None, kept) => format!("{key} as it was at {}", kept.unwrap_or_default()),
    };
    match (spec.strategy, &spec.copy_name) {
        (RestoreStrategy::Copy, Some(name)) => format!("{was} becomes a new database, {}/{name}.", key.namespace()),
        (RestoreStrategy::Replace, _) => format!(
            "{was} is loaded into the database that is there now, after that is dumped and emptied. Applications can not \
             connect until it is done. The dump brings back what is there now."
        ),
        (RestoreStrategy::Test, _) => {
            format!("{was} is loaded beside what is there now, compared, and dropped. Nobody notices.")
        }
        _ => format!(
            "{was} takes the place of what is there now. Applications are cut off for a moment and connect again. What is \
             there now is put aside, and can be brought back."
        ),
    }
}

/// The one that the control plane will take.
fn chosen(snapshots: Vec<Snapshot>, point: &RestorePoint) -> Option<Snapshot> {
    let RestorePoint { snapshot, time, .. } = point;
    let fits =
        |one: &Snapshot| snapshot.as_ref().is_none_or(|id| *id == one.id) && time.is_none_or(|time| one.at <= time);
    // One that is named may be known better by whoever names it.
    let may = |one: &Snapshot| snapshot.is_some() || one.contains != Some(false);
    snapshots.into_iter().filter(may).filter(fits).max_by_key(|one| one.at)
}
