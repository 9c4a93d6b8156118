//! What claims cost while nobody changes anything, at several sizes, and a line through them.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::api::Claim;
use crate::args::Sizes;
use crate::bench::{Bench, rate};
use crate::error::{BenchError, Result};
use crate::metrics::Scrape;
use crate::pace::Pace;
use crate::process::{self, Memory};
use crate::sampler::{CONNECTIONS, Sampler, TAKES};
use crate::stats::{Line, median, steepest};

/// The size that the aims are set for.
pub(crate) const PROJECTED: f64 = 10_000.0;
/// Claims that are posted at a time while growing.
const STEP: usize = 200;
const LOOK_AT_TAKES: Duration = Duration::from_millis(50);
const LOOK_AT_CONNECTIONS: Duration = Duration::from_millis(100);

/// Raw samples of every size, and what follows.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) pace: Pace,
    pub(crate) sizes: Vec<Size>,
    /// For [`PROJECTED`] claims.
    pub(crate) projection: Projection,
}

/// One size at rest.
#[derive(Debug, Serialize)]
pub(crate) struct Size {
    pub(crate) claims: usize,
    pub(crate) grown_per_second: f64,
    pub(crate) window: f64,
    /// Percent of one core, of pgtenant itself.
    pub(crate) cpu: f64,
    /// Percent of one core, of the primary's and the ledger's connections that ended in the window.
    pub(crate) primary_cpu: f64,
    pub(crate) ledger_cpu: f64,
    pub(crate) memory: Memory,
    pub(crate) looks: f64,
    pub(crate) looks_per_second: f64,
    pub(crate) most_looks_in_a_second: f64,
    pub(crate) looks_by_metrics: f64,
    /// Median, and the most that was seen.
    pub(crate) connections: (f64, f64),
    pub(crate) primary_connections: Vec<(f64, f64)>,
    pub(crate) standby_connections: Vec<(f64, f64)>,
    pub(crate) ledger_connections: Vec<(f64, f64)>,
    pub(crate) takes: Vec<(f64, f64)>,
}

/// What lines through the sizes say.
#[derive(Debug, Serialize)]
pub(crate) struct Projection {
    pub(crate) cpu: f64,
    pub(crate) cpu_line: Line,
    pub(crate) memory: f64,
    pub(crate) memory_line: Line,
    pub(crate) connections: f64,
    pub(crate) full_look: f64,
}

pub(crate) async fn measure(bench: &Bench<'_>, sizes: &Sizes, pace: Pace) -> Result<Idle> {
    let mut measured: Vec<Size> = Vec::new();
    let mut there = 0;
    for wanted in &sizes.idle {
        bench.say(&format!("idle: growing to {wanted} claims"));
        let begun = Instant::now();
        let claims: Vec<Claim> = (there..*wanted).map(|number| Claim::of("i", number)).collect();
        for some in claims.chunks(STEP) {
            bench.burst(some).await?;
        }
        let grown_per_second = rate(claims.len(), begun.elapsed().as_secs_f64());
        there = *wanted;
        long_ago(bench, pace, there).await?;
        bench.quiet().await?;
        bench.say(&format!("idle: {} s to settle, {} s to measure", sizes.settle.as_secs(), sizes.window.as_secs()));
        tokio::time::sleep(sizes.settle).await;
        measured.push(at_rest(bench, there, sizes.window, grown_per_second).await?);
    }
    let projection = project(&measured, pace);
    Ok(Idle { pace, sizes: measured, projection })
}

/// Makes it seem that the claims were made long ago: each was last looked at at some moment within one full look.
/// Otherwise nothing would be looked at for the first minutes, and then all at the pace of their making.
async fn long_ago(bench: &Bench<'_>, pace: Pace, claims: usize) -> Result<()> {
    let lab = bench.lab;
    let full = pace.full_look(rate(claims, 1.0));
    let session = lab.ledger.connect(&lab.ledger_superuser, "pgtenant").await?;
    let sql = format!(
        "update claims set due_at = now() + interval '1 second' * ({} - random() * {full})
         where not urgent and wish = 'present';
         notify pgtenant_work",
        pace.interval
    );
    session.batch(&sql).await?;
    session.close().await;
    Ok(())
}

async fn at_rest(bench: &Bench<'_>, claims: usize, window: Duration, grown_per_second: f64) -> Result<Size> {
    let Bench { lab, processes, .. } = bench;
    let ask = |dial, login, database, sql, every| Sampler::start(dial, login, database, sql, every);
    let primary = ask(&lab.primary, &lab.superuser, "postgres", CONNECTIONS, LOOK_AT_CONNECTIONS).await?;
    let standby = ask(&lab.standby, &lab.superuser, "postgres", CONNECTIONS, LOOK_AT_CONNECTIONS).await?;
    let ledger = ask(&lab.ledger, &lab.ledger_superuser, "postgres", CONNECTIONS, LOOK_AT_CONNECTIONS).await?;
    let takes = ask(&lab.ledger, &lab.ledger_superuser, "pgtenant", TAKES, LOOK_AT_TAKES).await?;
    let before = Scrape::parse(&bench.api.metrics().await?);
    let children = |pid: Option<u32>| pid.map_or(0.0, |pid| process::cpu(pid).children);
    let begun = Instant::now();
    let cpu_before = (process::cpu(processes.pgtenant).own, children(processes.primary), children(processes.ledger));
    tokio::time::sleep(window).await;
    let cpu_after = (process::cpu(processes.pgtenant).own, children(processes.primary), children(processes.ledger));
    let window = begun.elapsed().as_secs_f64();
    let memory = process::memory(processes.pgtenant);
    let after = Scrape::parse(&bench.api.metrics().await?);
    let takes = takes.stop().await?;
    let (primary, standby, ledger) = (primary.stop().await?, standby.stop().await?, ledger.stop().await?);
    let looks = takes.last().map_or(0.0, |last| last.1) - takes.first().map_or(0.0, |first| first.1);
    let percent = |seconds: f64| seconds / window * 100.0;
    let all: Vec<f64> = primary.iter().zip(&standby).zip(&ledger).map(|((p, s), l)| p.1 + s.1 + l.1).collect();
    if memory.resident == 0.0 {
        return Err(BenchError::Serve("ended by itself".to_owned()));
    }
    Ok(Size {
        claims,
        grown_per_second,
        window,
        cpu: percent(cpu_after.0 - cpu_before.0),
        primary_cpu: percent(cpu_after.1 - cpu_before.1),
        ledger_cpu: percent(cpu_after.2 - cpu_before.2),
        memory,
        looks,
        looks_per_second: looks / window,
        most_looks_in_a_second: steepest(&takes, 1.0),
        looks_by_metrics: after.total("pgtenant_looks_total") - before.total("pgtenant_looks_total"),
        connections: (median(&all), all.iter().copied().fold(0.0, f64::max)),
        primary_connections: primary,
        standby_connections: standby,
        ledger_connections: ledger,
        takes,
    })
}

/// Below the size at which looks come as often as they may, each claim adds looks; from there on it adds none. So what
/// claims themselves cost shows only above it, and where fewer than two sizes lie there, what a look costs counts.
fn project(sizes: &[Size], pace: Pace) -> Projection {
    let claims = |size: &Size| rate(size.claims, 1.0);
    let at_pace: Vec<_> = sizes
        .iter()
        .filter(|size| claims(size) >= pace.interval * pace.per_second)
        .map(|size| (claims(size), size.cpu))
        .collect();
    let by_looks = || Line::through(&sizes.iter().map(|size| (size.looks_per_second, size.cpu)).collect::<Vec<_>>());
    let cpu_line = match at_pace.len() {
        0 | 1 => Line { slope: 0.0, intercept: by_looks().at(pace.per_second.min(PROJECTED / pace.interval)) },
        _ => Line::through(&at_pace),
    };
    let line = |value: fn(&Size) -> f64| {
        Line::through(&sizes.iter().map(|size| (claims(size), value(size))).collect::<Vec<_>>())
    };
    let memory_line = line(|size| size.memory.resident);
    Projection {
        cpu: cpu_line.at(PROJECTED),
        cpu_line,
        memory: memory_line.at(PROJECTED),
        memory_line,
        connections: line(|size| size.connections.0).at(PROJECTED),
        full_look: pace.full_look(PROJECTED),
    }
}
