//! Clusters, and what the platform team does with them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pgtenant_ledger as ledger;
use pgtenant_ledger::{Cluster, PastDrill, PgConnection, Rotating};
use pgtenant_model::{Drill, History, Move, Switchover, check_label};

use crate::caller::{Platform, Scope};
use crate::problem::{MOVE_OPEN, Problem, RESTORE_OPEN, Result};

/// For how many claims of a cluster new passwords were asked for, one claim each `pace`.
pub(crate) async fn rotate_cluster(
    db: &mut PgConnection,
    may: &Platform,
    cluster: &str,
    pace: Duration,
) -> Result<u64> {
    Ok(ledger::rotate_cluster(db, cluster, pace, may.actor()).await?)
}

/// Asks for another password of the control plane's own login; says when.
pub(crate) async fn ask_for_login(db: &mut PgConnection, may: &Platform, cluster: &str) -> Result<DateTime<Utc>> {
    Ok(ledger::ask_for_login(db, cluster, may.actor()).await?)
}

/// Asks for another primary; of a wish that is open already it returns that.
pub(crate) async fn ask_for_switchover(
    db: &mut PgConnection,
    may: &Platform,
    cluster: &str,
    to: Option<&str>,
) -> Result<Switchover> {
    Ok(ledger::ask_for_switchover(db, cluster, to, may.actor()).await?)
}

/// A person says that this is right; false: it is not what is refused.
pub(crate) async fn accept_history(
    db: &mut PgConnection,
    may: &Platform,
    cluster: &str,
    seen: &History,
) -> Result<bool> {
    Ok(ledger::accept_history(db, cluster, seen, may.actor()).await?)
}

/// The newest wish for another primary.
pub(crate) async fn last_switchover(
    db: &mut PgConnection,
    _may: &Platform,
    cluster: &str,
) -> Result<Option<Switchover>> {
    Ok(ledger::last_switchover(db, cluster).await?)
}

/// Not while a restore or a move has closed a database: it would stay closed.
pub(crate) async fn begin_maintenance(
    db: &mut PgConnection,
    may: &Platform,
    cluster: &str,
    reason: &str,
) -> Result<()> {
    if let Some(id) = ledger::restore_in_place(db, cluster).await? {
        let why =
            format!("restore {id} fills a database in place, which would be closed until the end of the maintenance");
        return Err(Problem::new(&RESTORE_OPEN, why));
    }
    if let Some(Move { namespace, name, .. }) = ledger::closing_move(db, cluster).await? {
        let why = format!("{namespace}/{name} is being moved, and would be closed until the end of the maintenance");
        return Err(Problem::new(&MOVE_OPEN, why));
    }
    Ok(ledger::begin_maintenance(db, cluster, reason, may.actor()).await?)
}

pub(crate) async fn end_maintenance(db: &mut PgConnection, may: &Platform, cluster: &str) -> Result<bool> {
    Ok(ledger::end_maintenance(db, cluster, may.actor()).await?)
}

pub(crate) async fn add_drill(
    db: &mut PgConnection,
    may: &Platform,
    cluster: &str,
    drill: &Drill,
) -> Result<PastDrill> {
    Ok(ledger::add_drill(db, cluster, drill, may.actor()).await?)
}

pub(crate) async fn drills(db: &mut PgConnection, _may: &Platform, cluster: &str) -> Result<Vec<PastDrill>> {
    Ok(ledger::drills(db, cluster).await?)
}

pub(crate) async fn rotating(db: &mut PgConnection, _may: &Platform, cluster: &str) -> Result<Rotating> {
    Ok(ledger::rotating(db, cluster).await?)
}

/// Clusters of which the caller may have databases.
pub(crate) async fn clusters(db: &mut PgConnection, may: &Scope) -> Result<Vec<Cluster>> {
    let all = ledger::clusters(db).await?;
    Ok(all.into_iter().filter(|cluster| serves(cluster, may)).collect())
}

pub(crate) async fn cluster(db: &mut PgConnection, may: &Scope, name: &str) -> Result<Cluster> {
    let missing = || Problem::not_found(format!("cluster {name:?}"));
    check_label("cluster", name).map_err(|_| missing())?;
    let found = ledger::cluster(db, name).await?;
    found.filter(|cluster| serves(cluster, may)).ok_or_else(missing)
}

fn serves(cluster: &Cluster, may: &Scope) -> bool {
    let mut mine = may.namespaces().unwrap_or_default().iter();
    may.namespaces().is_none() || mine.any(|namespace| cluster.spec.allows_namespace(namespace))
}
