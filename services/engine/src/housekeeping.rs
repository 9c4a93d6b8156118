//! Gauges, idle connections, and deleting what has been kept long enough.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::gauge;
use pgtenant_ledger::{Ledger, LedgerError, count_by_state, queue_length, within_deadline};
use pgtenant_model::DatabaseState;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::roster::Roster;

const GAUGES: Duration = Duration::from_secs(5);
const PRUNING: Duration = Duration::from_secs(3600);

pub(crate) async fn run(ledger: &Ledger, roster: &Roster, stop: &CancellationToken) {
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
        if pruned.elapsed() > PRUNING {
            pruned = Instant::now();
            match ledger.prune().await {
                Ok(rows) => tracing::debug!(rows, "pruned the ledger"),
                Err(error) => tracing::warn!(error = ?error, "the ledger was not pruned"),
            }
        }
    }
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
    Ok(())
}
