//! Many claims at once: through pgtenant, and by hand with as many connections as it may have.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::api::Claim;
use crate::args::Sizes;
use crate::bench::{Bench, Burst, CpuTimes, millis, rate};
use crate::error::Result;
use crate::floor::{FloorSample, Worker};
use crate::metrics::{Scrape, Step};
use crate::sampler::{CONNECTIONS, Sampler};

/// Each has a maintenance connection and at most one other: eight.
const WORKERS: usize = 4;
const LOOK_AT_CONNECTIONS: Duration = Duration::from_millis(20);

/// Raw samples of every round.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Bursts {
    pub(crate) floor: Vec<FloorBurst>,
    pub(crate) pgtenant: Vec<Burst>,
    pub(crate) failed_tries: usize,
    pub(crate) steps: Vec<Step>,
    /// `(seconds, connections to the primary)` of each round, as the server sees them.
    pub(crate) floor_connections: Vec<Vec<(f64, f64)>>,
    pub(crate) pgtenant_connections: Vec<Vec<(f64, f64)>>,
    /// Processor time for each claim, of each round.
    pub(crate) floor_cpu: Vec<CpuTimes>,
    pub(crate) pgtenant_cpu: Vec<CpuTimes>,
}

/// Many claims by hand.
#[derive(Debug, Serialize)]
pub(crate) struct FloorBurst {
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    pub(crate) claims: Vec<FloorSample>,
}

pub(crate) async fn measure(bench: &Bench<'_>, sizes: &Sizes) -> Result<Bursts> {
    let mut bursts = Bursts::default();
    let failed_before = bench.events.failures();
    let before = Scrape::parse(&bench.api.metrics().await?);
    for round in 0..sizes.rounds {
        tokio::time::sleep(sizes.forget).await;
        bench.say(&format!("burst: round {} of {}, {} claims of each side", round + 1, sizes.rounds, sizes.burst));
        let numbers = round * sizes.burst..(round + 1) * sizes.burst;
        let claims: Vec<Claim> = numbers.clone().map(|number| Claim::of("b", number)).collect();
        let by_hand: Vec<String> = numbers.map(|number| format!("floor-b-{number:05}")).collect();
        for through_pgtenant in [round % 2 == 1, round % 2 == 0] {
            bench.quiet().await?;
            let lab = bench.lab;
            let sampler =
                Sampler::start(&lab.primary, &lab.superuser, "postgres", CONNECTIONS, LOOK_AT_CONNECTIONS).await?;
            let before = bench.processes.cpu();
            if through_pgtenant {
                bursts.pgtenant.push(bench.burst(&claims).await?);
                bursts.pgtenant_cpu.push(bench.processes.cpu().since(before, sizes.burst));
                bursts.pgtenant_connections.push(sampler.stop().await?);
            } else {
                bursts.floor.push(floor(bench, &by_hand).await?);
                bursts.floor_cpu.push(bench.processes.cpu().since(before, sizes.burst));
                bursts.floor_connections.push(sampler.stop().await?);
            }
        }
        bench.say("burst: removing");
        if round + 1 == sizes.rounds {
            let after = Scrape::parse(&bench.api.metrics().await?);
            bursts.steps = after.steps_since(&before);
        }
        bench.remove(&claims).await?;
        bench.remove_floor(&by_hand).await?;
    }
    bursts.failed_tries = bench.events.failures() - failed_before;
    Ok(bursts)
}

async fn floor(bench: &Bench<'_>, names: &[String]) -> Result<FloorBurst> {
    let workers = bench.workers(WORKERS).await?;
    let queue: Mutex<VecDeque<&String>> = Mutex::new(names.iter().collect());
    let begun = Instant::now();
    let work = workers.iter().map(|worker| drain(worker, &queue));
    let samples = futures::future::try_join_all(work).await?;
    let seconds = millis(begun, Instant::now()) / 1e3;
    for worker in workers {
        worker.stop().await;
    }
    let claims = samples.into_iter().flatten().collect();
    Ok(FloorBurst { seconds, per_second: rate(names.len(), seconds), claims })
}

async fn drain(worker: &Worker, queue: &Mutex<VecDeque<&String>>) -> Result<Vec<FloorSample>> {
    let mut samples = Vec::new();
    loop {
        let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
        let Some(name) = next else { return Ok(samples) };
        samples.push(worker.claim(name).await?);
    }
}
