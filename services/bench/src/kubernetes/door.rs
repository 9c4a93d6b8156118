//! Many claims at once: as objects, and over REST. The control plane, the cluster and the stores are the same, so that what
//! differs is the door.

use std::time::Instant;

use serde::Serialize;

use super::Place;
use super::server::{Requests, Seen, apply_all, each};
use crate::api::Claim;
use crate::args::Sizes;
use crate::bench::{Burst, ClaimSample, CpuTimes, millis, rate};
use crate::error::Result;
use crate::process;

/// Each side, before the first round.
const WARM_UP: usize = 5;

/// Raw samples of every round.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Door {
    pub(crate) rounds: Vec<Round>,
}

/// Both sides of a round.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) objects: Side,
    pub(crate) rest: Side,
}

/// One side of a round.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    pub(crate) burst: Burst,
    /// Requests that the API server has answered, for each claim.
    pub(crate) requests: Requests,
    /// Processor milliseconds for each claim.
    pub(crate) cpu: CpuTimes,
    pub(crate) servers: ServerTimes,
}

/// Processor milliseconds of what Kubernetes consists of.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ServerTimes {
    pub(crate) api_server: f64,
    pub(crate) etcd: f64,
}

impl Round {
    /// How much longer it takes with objects.
    pub(crate) fn ratio(&self) -> f64 {
        self.objects.burst.seconds / self.rest.burst.seconds
    }
}

pub(super) async fn measure(place: &Place<'_>, sizes: &Sizes) -> Result<Door> {
    let mut door = Door::default();
    let of = |side: &str, numbers: std::ops::Range<usize>| -> Vec<Claim> {
        numbers.map(|number| Claim::of(side, number)).collect()
    };
    let (first, others) = (0..WARM_UP, WARM_UP..WARM_UP + sizes.rounds * sizes.applied);
    place.server.make_namespaces(&[of("k", 0..others.end), of("r", 0..others.end)].concat()).await?;
    for round in [first].into_iter().chain((0..sizes.rounds).map(|round| {
        let from = WARM_UP + round * sizes.applied;
        from..from + sizes.applied
    })) {
        let warm_up = round.start == 0;
        if !warm_up {
            tokio::time::sleep(sizes.forget).await;
            let number = door.rounds.len() + 1;
            place.bench.say(&format!(
                "kubernetes: round {number} of {}, {} claims of each side",
                sizes.rounds,
                round.len()
            ));
        }
        let (objects, rest) = (of("k", round.clone()), of("r", round));
        let measured = if door.rounds.len() % 2 == 0 {
            let rest = place.side(&rest, false).await?;
            Round { objects: place.side(&objects, true).await?, rest }
        } else {
            let objects = place.side(&objects, true).await?;
            Round { rest: place.side(&rest, false).await?, objects }
        };
        if !warm_up {
            place.bench.say(&format!("kubernetes: {:.2} times as long with objects; removing", measured.ratio()));
            door.rounds.push(measured);
        }
        let mut watch = place.server.watch().await?;
        let deletions = objects.iter().map(|claim| place.server.delete(claim));
        futures::future::try_join_all(deletions).await?;
        place.bench.remove(&rest).await?;
        watch.until(Seen::Gone, &objects).await?;
    }
    Ok(door)
}

impl Place<'_> {
    async fn side(&self, claims: &[Claim], as_objects: bool) -> Result<Side> {
        self.bench.quiet().await?;
        let requests = self.server.requests().await?;
        let (cpu, servers) = (self.bench.processes.cpu(), self.times());
        let burst = if as_objects { self.burst(claims).await? } else { self.bench.burst(claims).await? };
        let (cpu, now) = (self.bench.processes.cpu().since(cpu, claims.len()), self.times());
        let count = rate(claims.len(), 1.0);
        let servers = ServerTimes {
            api_server: (now.api_server - servers.api_server) / count,
            etcd: (now.etcd - servers.etcd) / count,
        };
        let requests = each(&requests, &self.server.requests().await?, count);
        Ok(Side { burst, requests, cpu, servers })
    }

    /// As [`crate::bench::Bench::burst`]; from the first request to the last object that a watch shows as Ready.
    async fn burst(&self, claims: &[Claim]) -> Result<Burst> {
        let mut watch = self.server.watch().await?;
        let begun = Instant::now();
        let posted = apply_all(&self.server, claims).await?;
        let ready = watch.until(Seen::Ready, claims).await?;
        let last = ready.values().copied().fold(begun, Instant::max);
        let sample = |(claim, at, posted): &(Claim, Instant, f64)| {
            let ready = ready.get(claim).map_or(f64::NAN, |ready| millis(*at, *ready));
            ClaimSample { claim: claim.to_string(), posted: *posted, ready }
        };
        let seconds = millis(begun, last) / 1e3;
        let claims: Vec<_> = posted.iter().map(sample).collect();
        Ok(Burst { count: claims.len(), seconds, per_second: rate(claims.len(), seconds), claims })
    }

    fn times(&self) -> ServerTimes {
        let of = |pid: u32| process::cpu(pid).own * 1e3;
        ServerTimes { api_server: of(self.api_server), etcd: of(self.etcd) }
    }
}
