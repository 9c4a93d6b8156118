//! Gauges, idle connections, and deleting what has been kept long enough.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use metrics::gauge;
use pgtenant_ledger::{
    BackupAge, Ledger, LedgerError, OpenRestores, PastDrill, PgConnection, backup_ages, count_by_state, last_drills,
    open_restores_by_phase, queue_length, within_deadline,
};
use pgtenant_model::{DatabaseState, RestorePhase, RestoreStrategy};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::roster::Roster;

const GAUGES: Duration = Duration::from_secs(5);
const PRUNING: Duration = Duration::from_secs(3600);
/// Where a restore that is not over can be.
const OPEN_PHASES: [RestorePhase; 7] = [
    RestorePhase::Requested,
    RestorePhase::Approved,
    RestorePhase::Preparing,
    RestorePhase::Copying,
    RestorePhase::Verifying,
    RestorePhase::Switching,
    RestorePhase::CleaningUp,
];

const STRATEGIES: [RestoreStrategy; 4] =
    [RestoreStrategy::Swap, RestoreStrategy::Replace, RestoreStrategy::Copy, RestoreStrategy::Test];

pub(crate) async fn run(ledger: &Ledger, roster: &Roster, stop: &CancellationToken) {
    let mut dumped = BTreeSet::new();
    let mut ticks = tokio::time::interval(GAUGES);
    let mut pruned = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let clusters = roster.all();
        for cluster in &clusters {
            #[expect(clippy::cast_precision_loss, reason = "at most eight")]
            let connections = cluster.connections() as f64;
            gauge!("pgtenant_cluster_connections", "cluster" => cluster.name.clone()).set(connections);
        }
        ledger.trim().await;
        gauge!("pgtenant_ledger_connections").set(f64::from(ledger.connections()));
        if let Err(error) = within_deadline(counts(ledger, &clusters)).await {
            tracing::debug!(error = ?error, "gauges not read");
        }
        match within_deadline(ages(ledger, &clusters)).await {
            Ok(found) => {
                // A gauge can not be taken back: of a database that is gone it is no number, which is above and below no limit.
                for gone in dumped.difference(&found).cloned().collect::<Vec<_>>() {
                    set_ages(gone, f64::NAN, f64::NAN);
                }
                dumped = found;
            }
            Err(error) => tracing::debug!(error = ?error, "the ages of dumps are not read"),
        }
        if pruned.elapsed() > PRUNING {
            pruned = Instant::now();
            match ledger.prune().await {
                Ok(rows) => tracing::debug!(rows, "pruned the ledger"),
                Err(error) => tracing::warn!(error = ?error, "the ledger was not pruned"),
            }
        }
    }
}

/// A cluster, a tenant and a claim.
type Place = (String, String, String);

/// How old the dumps of each database are, on clusters that keep dumps. Of a database without one: its own age.
async fn ages(ledger: &Ledger, clusters: &[Arc<Cluster>]) -> Result<BTreeSet<Place>, LedgerError> {
    let names: Vec<_> = clusters.iter().filter(|one| one.dumps.is_some()).map(|one| one.name.clone()).collect();
    if names.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (found, now) = (backup_ages(&mut *ledger.acquire().await?, &names).await?, Utc::now());
    let age = |at: Option<DateTime<Utc>>, made: DateTime<Utc>| (now - at.unwrap_or(made)).as_seconds_f64();
    let each = found.into_iter().map(|one| {
        let BackupAge { cluster, namespace, name, created_at, dumped_at, verified_at } = one;
        let place = (cluster, namespace, name);
        set_ages(place.clone(), age(dumped_at, created_at), age(verified_at, created_at));
        place
    });
    Ok(each.collect())
}

fn set_ages((cluster, namespace, name): Place, dumped: f64, verified: f64) {
    let labels = [("cluster", cluster), ("namespace", namespace), ("database", name)];
    gauge!("pgtenant_backup_age_seconds", &labels).set(dumped);
    gauge!("pgtenant_backup_verified_age_seconds", &labels).set(verified);
}

/// What the last drill of each cluster that was ever drilled has shown.
#[expect(clippy::cast_precision_loss, reason = "no drill takes 2^52 ms")]
async fn drilled(db: &mut PgConnection, clusters: &[Arc<Cluster>]) -> Result<(), LedgerError> {
    let names: Vec<_> = clusters.iter().map(|one| one.name.clone()).collect();
    for PastDrill { cluster, drill, .. } in last_drills(db, &names).await? {
        let label = [("cluster", cluster)];
        gauge!("pgtenant_cluster_drill_passed", &label).set(f64::from(u8::from(drill.passed)));
        gauge!("pgtenant_cluster_drill_age_seconds", &label).set((Utc::now() - drill.stopped_at).as_seconds_f64());
        gauge!("pgtenant_cluster_drill_gap_seconds", &label).set(drill.writes.longest_gap_ms as f64 / 1000.0);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows stay far below 2^52")]
async fn counts(ledger: &Ledger, clusters: &[Arc<Cluster>]) -> Result<(), LedgerError> {
    let mut db = ledger.acquire().await?;
    let counts = count_by_state(&mut db).await?;
    // A state that no claim has is 0: otherwise the gauge would keep its last number.
    let none =
        clusters.iter().flat_map(|one| DatabaseState::ALL.map(|state| (one.name.clone(), state.as_str().to_owned())));
    for (cluster, state) in none.filter(|(cluster, state)| !counts.iter().any(|(c, s, _)| c == cluster && s == state)) {
        gauge!("pgtenant_claims", "cluster" => cluster, "state" => state).set(0.0);
    }
    for (cluster, state, count) in counts {
        gauge!("pgtenant_claims", "cluster" => cluster, "state" => state).set(count as f64);
    }
    gauge!("pgtenant_queue_length").set(queue_length(&mut db).await? as f64);
    drilled(&mut db, clusters).await?;
    let open = open_restores_by_phase(&mut db).await?;
    let every = OPEN_PHASES.into_iter().flat_map(|phase| STRATEGIES.map(|strategy| (phase, strategy)));
    for (cluster, (phase, strategy)) in clusters.iter().flat_map(|one| every.clone().map(|each| (&one.name, each))) {
        let same = |one: &&OpenRestores| (&one.cluster, one.phase, one.strategy) == (cluster, phase, strategy);
        let (count, longest) = open.iter().find(same).map_or((0, 0.0), |one| (one.count, one.longest));
        let [phase, strategy] = [format!("{phase:?}"), format!("{strategy:?}").to_lowercase()];
        let labels = [("cluster", cluster.clone()), ("phase", phase), ("strategy", strategy)];
        gauge!("pgtenant_restores", &labels).set(count as f64);
        gauge!("pgtenant_restore_phase_seconds", &labels).set(longest);
    }
    Ok(())
}
