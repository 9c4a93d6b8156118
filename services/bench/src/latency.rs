//! One claim after the other: by hand, through pgtenant, by hand, …

use std::time::Duration;

use serde::Serialize;

use crate::api::Claim;
use crate::args::Sizes;
use crate::bench::{Bench, ClaimSample};
use crate::error::Result;
use crate::first_use;
use crate::floor::FloorSample;
use crate::metrics::{Scrape, Step};

/// Connections of the last claim are gone by then, on the server too.
const PAUSE: Duration = Duration::from_millis(20);

/// Raw samples.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) floor: Vec<FloorSample>,
    pub(crate) pgtenant: Vec<ClaimSample>,
    /// Tries that failed and were made again.
    pub(crate) failed_tries: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) first_uses: usize,
    /// What went wrong in them.
    pub(crate) first_use_failures: Vec<String>,
}

pub(crate) async fn measure(bench: &Bench<'_>, sizes: &Sizes) -> Result<Latency> {
    let [worker] = <[_; 1]>::try_from(bench.workers(1).await?).unwrap_or_else(|_| unreachable!("one was asked for"));
    let failed_before = bench.events.failures();
    let mut made = Vec::new();
    let mut latency = Latency::default();
    bench.quiet().await?;
    let mut before = Scrape::default();
    for number in 0..sizes.warm_up + sizes.claims {
        if number == sizes.warm_up {
            bench.say(&format!("latency: {} claims of each side, interleaved", sizes.claims));
            before = Scrape::parse(&bench.api.metrics().await?);
        }
        let (claim, by_hand) = (Claim::of("l", number), format!("floor-l-{number:05}"));
        let measured = number >= sizes.warm_up;
        let uses = measured && number % sizes.first_use_every == 0;
        // Whoever comes second finds the machine as the first one left it, so they take turns.
        for through_pgtenant in [number % 2 == 1, number % 2 == 0] {
            tokio::time::sleep(PAUSE).await;
            if through_pgtenant {
                let sample = bench.claim(&claim).await?;
                if uses {
                    latency.use_at_once(bench, &claim).await;
                }
                if measured {
                    latency.pgtenant.push(sample);
                }
            } else {
                let sample = worker.claim(&by_hand).await?;
                if measured {
                    latency.floor.push(sample);
                }
            }
        }
        made.push((claim, by_hand));
    }
    let after = Scrape::parse(&bench.api.metrics().await?);
    latency.steps = after.steps_since(&before);
    latency.failed_tries = bench.events.failures() - failed_before;
    worker.stop().await;
    bench.say("latency: removing");
    let (claims, by_hand): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    bench.remove(&claims).await?;
    bench.remove_floor(&by_hand).await?;
    Ok(latency)
}

impl Latency {
    /// In the moment in which the event has arrived.
    async fn use_at_once(&mut self, bench: &Bench<'_>, claim: &Claim) {
        self.first_uses += 1;
        if let Err(error) = first_use::works(bench.lab, claim).await {
            self.first_use_failures.push(crate::report::chain(&error));
        }
    }
}
