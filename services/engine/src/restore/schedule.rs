//! Dumps by the schedule, the end of old ones, and what is left of jobs that are over.

use std::time::Duration;

use chrono::Utc;
use metrics::gauge;
use pgtenant_ledger::{
    Actor, DueBackup, LedgerError, Refused, due_backups, forget_removed, open_jobs, removed_before, request_backup,
    set_backup_at, within_deadline,
};
use pgtenant_model::{BackupSpec, ClaimKey, SnapshotId};
use pgtenant_postgres::{
    BesideKind, Job, beside, drop_beside, end_job, jobs, moves_here, server_version, unfollow, unpublish,
};
use pgtenant_snapshots::{Dumps, SnapshotError, retention};
use tokio_util::sync::CancellationToken;

use super::trouble::Trouble;
use super::verify::FREE;
use super::{leftovers, rds_backups, scratch_server, test_restores};
use crate::Inner;
use crate::cluster::Cluster;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(5);
/// Claims that are asked for in one transaction.
const AT_ONCE: i64 = 100;
/// Between two looks for what was left behind.
const SWEEP: Duration = Duration::from_secs(900);
/// A dump that was begun so long ago and has no manifest was given up.
const UNFINISHED: chrono::TimeDelta = chrono::TimeDelta::days(8);

/// Asks for what is due until `stop`.
pub(super) async fn run(engine: &Inner, cluster: &Cluster, stop: &CancellationToken) {
    let (mut swept, mut looked, mut kept) = (None::<tokio::time::Instant>, None, None);
    loop {
        if let Some(spec) = cluster.spec.backups.as_ref().filter(|_| cluster.dumps.is_some())
            && let Err(error) = within_deadline(ask(engine, cluster, spec)).await
        {
            tracing::warn!(cluster = cluster.name, error = ?error, "dumps that are due were not asked for");
        }
        if swept.is_none_or(|at| at.elapsed() > SWEEP) {
            match sweep(engine, cluster).await {
                Ok(()) => swept = Some(tokio::time::Instant::now()),
                Err(trouble) => tracing::debug!(cluster = cluster.name, "not swept: {}", trouble.message),
            }
            if let Err(trouble) = prune_removed(engine, cluster).await {
                tracing::warn!(cluster = cluster.name, "dumps of removed claims stay: {}", trouble.message);
            }
        }
        if looked.is_none_or(|at: tokio::time::Instant| at.elapsed() >= cluster.leftovers_due()) {
            match leftovers::sweep(engine, cluster).await {
                Ok(()) => looked = Some(tokio::time::Instant::now()),
                Err(trouble) => tracing::debug!(cluster = cluster.name, "not swept: {}", trouble.message),
            }
        }
        if kept.is_none_or(|at: tokio::time::Instant| at.elapsed() > rds_backups::LOOK) {
            for looked in [rds_backups::keep(cluster).await, scratch_server::look(cluster).await] {
                if let Err(trouble) = looked {
                    tracing::warn!(cluster = cluster.name, "what is kept of it was not looked at: {}", trouble.message);
                }
            }
            if let Err(trouble) = test_restores::ask(engine, cluster).await {
                tracing::warn!(cluster = cluster.name, "no test of a backup was asked for: {}", trouble.message);
            }
            measure(cluster);
            kept = Some(tokio::time::Instant::now());
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Ages grow also while nobody answers who could tell of something newer.
fn measure(cluster: &Cluster) {
    let now = Utc::now();
    for (kind, at) in cluster.kept_at().iter() {
        let labels = [("cluster", cluster.name.clone()), ("kind", (*kind).to_owned())];
        gauge!("pgtenant_cluster_backup_age_seconds", &labels).set((now - *at).as_seconds_f64().max(0.0));
    }
}

async fn ask(engine: &Inner, cluster: &Cluster, spec: &BackupSpec) -> Result<(), LedgerError> {
    let mut tx = engine.ledger.begin().await?;
    let actor = Actor::new("schedule");
    let at_once = spec.dumps.as_ref().is_some_and(|dumps| dumps.first_at_once);
    for DueBackup { claim, key, first, dumped } in due_backups(&mut tx, &cluster.name, AT_ONCE).await? {
        // The cluster's name is part of it: the same database on two clusters is not dumped at the same time.
        let next = spec.schedule.next(Utc::now(), &format!("{}/{key}", cluster.name));
        set_backup_at(&mut tx, claim, next).await?;
        if !first || (at_once && !dumped) {
            match request_backup(&mut tx, &key, None, &actor).await {
                Ok(_) => {}
                Err(Refused::Ledger(error)) => return Err(error),
                Err(refused) => tracing::debug!(claim = %key, "not dumped: {refused}"),
            }
        }
    }
    Ok(tx.commit().await?)
}

/// Removes dumps that were kept long enough, and what writers that were killed have left.
pub(super) async fn prune(cluster: &Cluster, dumps: &Dumps, key: &ClaimKey) -> Result<(), SnapshotError> {
    let keep = cluster.spec.keep_backups();
    let listing = dumps.list(&cluster.name, key).await?;
    let kept: Vec<_> = listing
        .dumps
        .iter()
        .map(|dump| retention::Kept { id: dump.manifest.id, verified: dump.verified.is_some() })
        .collect();
    for id in retention::to_remove(&kept, keep, Utc::now()) {
        dumps.remove(&cluster.name, key, id).await?;
        tracing::info!(claim = %key, %id, "a dump was kept long enough and is removed");
    }
    for left in dumps.unfinished(&cluster.name, key, Utc::now() - UNFINISHED).await? {
        dumps.remove(&cluster.name, key, left.id).await?;
        tracing::info!(claim = %key, id = %left.id, "a dump that was never finished is removed");
    }
    Ok(())
}

/// Removes the dumps of claims that were removed as long ago as dumps are kept: all of them are older. A claim of that name that is there
/// again keeps them.
async fn prune_removed(engine: &Inner, cluster: &Cluster) -> Result<(), Trouble> {
    let Some(dumps) = &cluster.dumps else { return Ok(()) };
    let keep = chrono::TimeDelta::from_std(cluster.spec.keep_backups()).ok();
    let Some(before) = keep.and_then(|keep| Utc::now().checked_sub_signed(keep)) else { return Ok(()) };
    let name = &cluster.name;
    let gone = within_deadline(async { removed_before(&mut *engine.ledger.acquire().await?, name, before).await });
    for key in gone.await? {
        let removed = dumps.remove_before(name, &key, before).await?;
        tracing::info!(claim = %key, removed, "the dumps of a claim that was removed were kept long enough and are removed");
        within_deadline(async { forget_removed(&mut *engine.ledger.acquire().await?, name, &key).await }).await?;
    }
    Ok(())
}

/// Has the dump tried that was just made, where none was tried for long enough.
pub(super) async fn try_in_turn(
    engine: &Inner,
    cluster: &Cluster,
    dumps: &Dumps,
    key: &ClaimKey,
    newest: &SnapshotId,
) -> Result<(), Trouble> {
    let Some(spec) = cluster.spec.backups.as_ref().and_then(|spec| spec.dumps.as_ref()) else { return Ok(()) };
    let every = spec.try_every.duration();
    if every.is_zero() {
        return Ok(());
    }
    let listing = dumps.list(&cluster.name, key).await?;
    let last = listing.dumps.iter().filter_map(|dump| dump.verified.as_ref().map(|verified| verified.at)).max();
    if last.is_some_and(|at| at + every > Utc::now()) {
        return Ok(());
    }
    let asked = within_deadline(async {
        let mut tx = engine.ledger.begin().await?;
        match request_backup(&mut tx, key, Some(newest), &Actor::new("schedule")).await {
            Ok(_) => Ok(tx.commit().await?),
            Err(Refused::Ledger(error)) => Err(error),
            Err(_) => Ok(()),
        }
    });
    Ok(asked.await?)
}

/// Drops the logins and copies of jobs that are over: a replica that was killed may have left them.
async fn sweep(engine: &Inner, cluster: &Cluster) -> Result<(), Trouble> {
    if cluster.sleeps() {
        return Ok(());
    }
    let server = cluster.server().await?;
    let mut session = server.maintenance().await?;
    let (logins, copies, moves) =
        (jobs(&mut session).await?, beside(&mut session).await?, moves_here(&mut session).await?);
    if logins.is_empty() && copies.is_empty() && moves.is_empty() {
        return Ok(());
    }
    // After the look: what is made from here on is none of what was seen.
    let open = within_deadline(async { open_jobs(&mut *engine.ledger.acquire().await?, &cluster.name).await }).await?;
    let version = server_version(&mut session).await?;
    // First: a slot keeps the log of the whole server, and a database that follows can not be dropped.
    for id in moves.iter().filter(|id| !open.contains(id)) {
        tracing::info!(cluster = cluster.name, %id, "what followed for a move that is over is removed");
        let removed = async {
            unfollow(&server, *id).await?;
            unpublish(&server, *id, None).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(cluster = cluster.name, %id, %error, "what followed for a move that is over stays");
        }
    }
    let over = |one: &&pgtenant_postgres::Beside| one.kind == BesideKind::Copy && !open.contains(&one.restore);
    for one in copies.iter().filter(over) {
        tracing::info!(cluster = cluster.name, database = one.database, "the copy of a job that is over is dropped");
        if let Err(error) = drop_beside(&server, &mut session, one, &FREE).await {
            tracing::warn!(cluster = cluster.name, database = one.database, %error, "the copy of a job that is over stays");
        }
    }
    for login in logins.iter().filter(|login| !open.iter().any(|id| login.starts_with(&Job::name(*id)))) {
        tracing::info!(cluster = cluster.name, login, "the login of a job that is over is dropped");
        if let Err(error) = end_job(&server, &mut session, version, login).await {
            tracing::warn!(cluster = cluster.name, login, %error, "the login of a job that is over stays");
        }
    }
    Ok(())
}
