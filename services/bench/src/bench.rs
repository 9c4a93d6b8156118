//! What all sections work with.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use pgtenant_model::EventKind;
use serde::Serialize;

use crate::api::{Api, Claim, Events};
use crate::error::{BenchError, Result};
use crate::floor::Worker;
use crate::lab::{DEFAULT, Lab};
use crate::process;

/// Clients that post at the same time.
pub(crate) const CLIENTS: usize = 16;
/// A claim that takes longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// One claim through pgtenant. Everything in milliseconds from the beginning of the POST.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ClaimSample {
    pub(crate) claim: String,
    /// Until the answer 201 was there.
    pub(crate) posted: f64,
    /// Until the event `Ready` was there.
    pub(crate) ready: f64,
}

/// Many claims at once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Burst {
    pub(crate) count: usize,
    /// From the first POST to the last `Ready`.
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    pub(crate) claims: Vec<ClaimSample>,
}

/// Processes under measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processes {
    pub(crate) pgtenant: u32,
    pub(crate) primary: Option<u32>,
    pub(crate) standby: Option<u32>,
    pub(crate) ledger: Option<u32>,
}

/// Processor time in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct CpuTimes {
    pub(crate) pgtenant: f64,
    pub(crate) primary: f64,
    pub(crate) standby: f64,
    pub(crate) ledger: f64,
    /// The benchmark's own: the floor's client, and pgtenant's users.
    pub(crate) bench: f64,
}

impl Processes {
    pub(crate) fn cpu(&self) -> CpuTimes {
        let server = |pid: Option<u32>| pid.map_or(0.0, process::cpu_with_children) * 1e3;
        CpuTimes {
            pgtenant: process::cpu(self.pgtenant).own * 1e3,
            primary: server(self.primary),
            standby: server(self.standby),
            ledger: server(self.ledger),
            bench: process::cpu(std::process::id()).own * 1e3,
        }
    }
}

impl CpuTimes {
    /// What was used from `before` until `self`, for each of `claims`.
    pub(crate) fn since(self, before: Self, claims: usize) -> Self {
        let each = |now: f64, then: f64| rate(1, rate(claims, 1.0)) * (now - then);
        Self {
            pgtenant: each(self.pgtenant, before.pgtenant),
            primary: each(self.primary, before.primary),
            standby: each(self.standby, before.standby),
            ledger: each(self.ledger, before.ledger),
            bench: each(self.bench, before.bench),
        }
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            pgtenant: self.pgtenant + other.pgtenant,
            primary: self.primary + other.primary,
            standby: self.standby + other.standby,
            ledger: self.ledger + other.ledger,
            bench: self.bench + other.bench,
        }
    }
}

/// The servers, and the control plane as its users see it.
pub(crate) struct Bench<'a> {
    pub(crate) processes: Processes,
    pub(crate) lab: &'a Lab,
    pub(crate) api: Api,
    pub(crate) events: Events,
    pub(crate) progress: &'a (dyn Fn(&str) + Sync),
}

impl Bench<'_> {
    pub(crate) fn say(&self, text: &str) {
        (self.progress)(text);
    }

    /// From the POST to `Ready`.
    pub(crate) async fn claim(&self, claim: &Claim) -> Result<ClaimSample> {
        self.claim_on(DEFAULT, claim).await
    }

    /// As [`Bench::claim`], on this cluster.
    pub(crate) async fn claim_on(&self, cluster: &str, claim: &Claim) -> Result<ClaimSample> {
        let ready = self.events.expect(claim, EventKind::Ready);
        let begun = Instant::now();
        self.api.create(claim, cluster).await?;
        let posted = millis(begun, Instant::now());
        let ready = millis(begun, ready.within(PATIENCE).await?);
        Ok(ClaimSample { claim: claim.to_string(), posted, ready })
    }

    /// All at once, through [`CLIENTS`] clients.
    pub(crate) async fn burst(&self, claims: &[Claim]) -> Result<Burst> {
        let begun = Instant::now();
        let posts = stream::iter(claims).map(|claim| async move {
            let arrival = self.events.expect(claim, EventKind::Ready);
            let at = Instant::now();
            self.api.create(claim, DEFAULT).await?;
            Ok::<_, BenchError>((claim, at, millis(at, Instant::now()), arrival))
        });
        let posted: Vec<_> = posts.buffer_unordered(CLIENTS).try_collect().await?;
        let mut last = begun;
        let mut samples = Vec::new();
        for (claim, at, posted, arrival) in posted {
            let ready = arrival.within(PATIENCE).await?;
            last = last.max(ready);
            samples.push(ClaimSample { claim: claim.to_string(), posted, ready: millis(at, ready) });
        }
        let seconds = millis(begun, last) / 1e3;
        Ok(Burst { count: claims.len(), seconds, per_second: rate(claims.len(), seconds), claims: samples })
    }

    /// Removes claims, and waits until nothing of them is left.
    pub(crate) async fn remove(&self, claims: &[Claim]) -> Result<()> {
        let removals = stream::iter(claims).map(|claim| async move {
            let gone = self.events.expect(claim, EventKind::Deleted);
            self.api.remove(claim).await?;
            gone.within(PATIENCE).await
        });
        removals.buffer_unordered(CLIENTS).try_for_each(|_| async { Ok(()) }).await
    }

    /// Removes what the floor made.
    pub(crate) async fn remove_floor(&self, names: &[String]) -> Result<()> {
        let workers = self.workers(2).await?;
        let halves = [0, 1].map(|half| names.iter().skip(half).step_by(2));
        let remove = |worker: Worker, names: std::iter::StepBy<std::iter::Skip<std::slice::Iter<'_, String>>>| {
            let names: Vec<String> = names.cloned().collect();
            async move {
                for name in &names {
                    worker.remove(name).await?;
                }
                worker.stop().await;
                Ok::<_, BenchError>(())
            }
        };
        let removals = workers.into_iter().zip(halves).map(|(worker, names)| remove(worker, names));
        futures::future::try_join_all(removals).await.map(drop)
    }

    pub(crate) async fn workers(&self, count: usize) -> Result<Vec<Worker>> {
        let mut workers = Vec::new();
        for _ in 0..count {
            workers.push(Worker::start(&self.lab.primary, &self.lab.provisioner).await?);
        }
        Ok(workers)
    }

    /// Lets the servers finish what earlier work left, so that both sides begin alike: dirty pages are written, and the
    /// standby has caught up.
    pub(crate) async fn quiet(&self) -> Result<()> {
        const LAG: &str = "select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 0)::bigint
                             from pg_stat_replication";
        /// What writes itself even at rest is less.
        const NEAR: i64 = 100_000;
        let session = self.lab.ledger.connect(&self.lab.ledger_superuser, "postgres").await?;
        session.batch("CHECKPOINT").await?;
        session.close().await;
        let session = self.lab.primary.connect(&self.lab.superuser, "postgres").await?;
        session.batch("CHECKPOINT").await?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let row = session.client().query_one(LAG, &[]).await.map_err(BenchError::postgres("ask for the lag"))?;
            if row.get::<_, i64>(0) < NEAR {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        session.close().await;
        Ok(())
    }
}

pub(crate) fn millis(from: Instant, to: Instant) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "counts of claims")]
pub(crate) fn rate(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}
