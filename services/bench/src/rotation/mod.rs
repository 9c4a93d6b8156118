//! New passwords for every claim of a cluster: as fast as they can be, against the same statements by hand, and at a pace,
//! with what new claims see of it.
//!
//! The cluster is rotated three times. The first time makes the second logins, which no later one does, while new claims are
//! made; the second is measured; the third is paced to take twice as long, again with new claims. Between them it is made to
//! seem that the last one was an hour ago. The locking of former logins is not in it, on either side: that comes when the
//! overlap is over.

mod floor;
mod text;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::api::Claim;
use crate::args::{Args, Sizes};
use crate::bench::{Bench, ClaimSample, CpuTimes, PATIENCE, rate};
use crate::error::{BenchError, Result};
use crate::lab::{DEFAULT, Described, Lab};
use crate::run;

pub(crate) use text::{details, judge};

/// Claims that are posted at a time while growing.
const STEP: usize = 200;
/// How often it is asked how far a rotation is.
const LOOK: Duration = Duration::from_millis(100);
/// Between two new claims.
const PAUSE: Duration = Duration::from_millis(250);
/// A paced rotation takes so many times as long as one that is not.
const SLOWER: f64 = 2.0;
/// A claim of the floor is rotated so many times: its databases need not be as many.
const AGAIN: usize = 20;

/// Raw samples.
#[derive(Debug, Serialize)]
pub(crate) struct Rotation {
    claims: usize,
    grown_per_second: f64,
    /// The first, which makes the second logins.
    first: Pass,
    unpaced: Pass,
    paced: Pass,
    /// Before and after `unpaced`, half of the claims each.
    floor: Vec<Pass>,
    /// A claim each so many milliseconds, in the paced one.
    pace: f64,
    /// New claims, one after the other: with nothing else to do, and during these rotations.
    new_at_rest: Vec<ClaimSample>,
    new_in_first: Vec<ClaimSample>,
    new_in_paced: Vec<ClaimSample>,
}

/// Every claim once.
#[derive(Debug, Clone, Serialize)]
struct Pass {
    claims: usize,
    seconds: f64,
    /// Processor milliseconds for each claim.
    cpu: CpuTimes,
}

impl Pass {
    fn per_second(&self) -> f64 {
        rate(self.claims, self.seconds)
    }

    /// Percent of a core that the control plane took.
    fn core(&self) -> f64 {
        self.cpu.pgtenant / 10.0 * self.per_second()
    }
}

pub(crate) async fn measure(
    args: &Args,
    sizes: &Sizes,
    binary: &Path,
    folder: &Path,
    say: &(impl Fn(&str) + Sync),
) -> Result<Rotation> {
    let lab = Lab::start(folder, Described::files(), say).await?;
    run::on(args, binary, lab, say, async |bench| on(bench, sizes, folder).await).await
}

async fn on(bench: &Bench<'_>, sizes: &Sizes, folder: &Path) -> Result<Rotation> {
    let claims = sizes.rotated;
    bench.say(&format!("rotation: growing to {claims} claims"));
    let begun = Instant::now();
    let all: Vec<Claim> = (0..claims).map(|number| Claim::of("p", number)).collect();
    for some in all.chunks(STEP) {
        bench.burst(some).await?;
    }
    let grown_per_second = rate(claims, begun.elapsed().as_secs_f64());
    let by_hand = floor::Floor::grow(bench, folder, claims.div_ceil(AGAIN)).await?;
    bench.quiet().await?;
    let mut new = (0..).map(|number| Claim::of("n", number));
    let mut new_at_rest = Vec::new();
    for claim in new.by_ref().take(sizes.probes) {
        new_at_rest.push(bench.claim(&claim).await?);
        tokio::time::sleep(PAUSE).await;
    }

    bench.say("rotation: the first, which makes the second logins");
    let (first, new_in_first) = pass(bench, None, new.by_ref()).await?;

    let mut floor = vec![by_hand.rotate(bench, claims / 2).await?];
    an_hour_ago(bench).await?;
    bench.say("rotation: as fast as it can be");
    let (unpaced, _) = pass(bench, None, std::iter::empty()).await?;
    floor.push(by_hand.rotate(bench, claims - claims / 2).await?);

    an_hour_ago(bench).await?;
    let per_minute = per_minute(&unpaced);
    let pace = 60_000.0 / f64::from(per_minute);
    bench.say(&format!("rotation: a claim each {pace:.0} ms"));
    let (paced, new_in_paced) = pass(bench, Some(per_minute), new).await?;
    by_hand.stop().await;
    Ok(Rotation {
        claims,
        grown_per_second,
        first,
        unpaced,
        paced,
        floor,
        pace,
        new_at_rest,
        new_in_first,
        new_in_paced,
    })
}

/// A pace at which a rotation takes [`SLOWER`] times as long.
fn per_minute(unpaced: &Pass) -> u32 {
    let wanted = (unpaced.per_second() * 60.0 / SLOWER).clamp(1.0, 60_000.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 60000")]
    let whole = wanted as u32;
    whole
}

/// Rotates the cluster, and makes the claims of `new` meanwhile, one after the other.
async fn pass(
    bench: &Bench<'_>,
    per_minute: Option<u32>,
    new: impl Iterator<Item = Claim>,
) -> Result<(Pass, Vec<ClaimSample>)> {
    bench.quiet().await?;
    let before = bench.processes.cpu();
    let begun = Instant::now();
    let claims = bench.api.rotate(DEFAULT, per_minute).await?;
    let done = tokio_util::sync::CancellationToken::new();
    let rotated = async {
        let seconds = until_nothing_is_left(bench, begun).await?;
        let cpu = bench.processes.cpu().since(before, claims);
        done.cancel();
        Ok(Pass { claims, seconds, cpu })
    };
    let made = async {
        let mut samples = Vec::new();
        for claim in new {
            if done.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                break;
            }
            samples.push(bench.claim(&claim).await?);
        }
        Ok(samples)
    };
    futures::future::try_join(rotated, made).await
}

/// Returns how many seconds after `begun`.
async fn until_nothing_is_left(bench: &Bench<'_>, begun: Instant) -> Result<f64> {
    loop {
        let rotating = bench.api.rotation(DEFAULT).await?;
        if rotating.left == 0 {
            return Ok(begun.elapsed().as_secs_f64());
        }
        if begun.elapsed() > 2 * PATIENCE {
            return Err(not_done(rotating.failing));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn not_done(failing: usize) -> BenchError {
    BenchError::Serve(format!("a rotation does not come to its end; {failing} claims fail"))
}

/// Makes it seem that the last rotation was an hour ago, so that another one waits for nobody. Former logins are left as they are.
async fn an_hour_ago(bench: &Bench<'_>) -> Result<()> {
    const SQL: &str = "
        update claims set keep_at = null, credentials = (
            select jsonb_object_agg(tier, known || jsonb_build_object('formerSince', now() - interval '1 hour'))
            from jsonb_each(credentials) as of_tier (tier, known))";
    let lab = bench.lab;
    let session = lab.ledger.connect(&lab.ledger_superuser, "pgtenant").await?;
    session.batch(SQL).await?;
    session.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paced_rotation_takes_twice_as_long() {
        let pass = |claims, seconds| Pass { claims, seconds, cpu: CpuTimes::default() };
        assert_eq!(per_minute(&pass(1000, 50.0)), 600);
        assert_eq!(per_minute(&pass(1, 1e6)), 1);
        assert_eq!(per_minute(&pass(1_000_000, 1.0)), 60_000);
    }
}
