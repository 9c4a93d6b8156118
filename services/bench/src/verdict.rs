//! The aims, and what came of them.

use serde::Serialize;

use crate::burst::Bursts;
use crate::idle::{Idle, PROJECTED, Size};
use crate::kubernetes::Kubernetes;
use crate::latency::Latency;
use crate::report::{Report, minutes};
use crate::stats::{median, quantile};

/// One aim and what came of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) shown: String,
    pub(crate) aim: String,
    pub(crate) met: bool,
    pub(crate) pgtenant: String,
    pub(crate) floor: String,
}

/// Every aim of the sections that were run.
pub(crate) fn judge(report: &Report) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    verdicts.extend(report.latency.iter().flat_map(judge_latency));
    verdicts.extend(report.burst.iter().flat_map(judge_burst));
    verdicts.extend(report.idle.iter().flat_map(judge_idle));
    verdicts.extend(report.kubernetes.iter().flat_map(judge_kubernetes));
    verdicts.extend(report.stores.iter().flat_map(crate::stores::judge));
    verdicts.extend(report.rotation.iter().flat_map(crate::rotation::judge));
    verdicts.extend(report.restores.iter().flat_map(crate::restores::judge));
    verdicts
}

fn judge_latency(latency: &Latency) -> Vec<Verdict> {
    let pgtenant: Vec<f64> = latency.pgtenant.iter().map(|sample| sample.ready).collect();
    let floor: Vec<f64> = latency.floor.iter().map(|sample| sample.total).collect();
    let row = |what: &str, share: f64, aim: f64| {
        let (mine, theirs) = (quantile(&pgtenant, share), quantile(&floor, share));
        Verdict {
            what: what.to_owned(),
            value: mine / theirs,
            shown: format!("{:.2} ×", mine / theirs),
            aim: if aim.is_finite() { format!("≤ {aim} ×") } else { String::new() },
            met: mine / theirs <= aim,
            pgtenant: format!("{mine:.1} ms"),
            floor: format!("{theirs:.1} ms"),
        }
    };
    let failures = latency.first_use_failures.len();
    let first_use = Verdict {
        what: "first use fails".to_owned(),
        value: count(failures),
        shown: failures.to_string(),
        aim: "0".to_owned(),
        met: failures == 0,
        pgtenant: format!("of {}", latency.first_uses),
        floor: String::new(),
    };
    vec![row("claim to Ready, median", 0.5, 1.25), row("claim to Ready, p95", 0.95, f64::INFINITY), first_use]
}

fn judge_burst(burst: &Bursts) -> Vec<Verdict> {
    // All claims over all seconds: a round that was slow counts for as long as it took.
    let mine: f64 = burst.pgtenant.iter().map(|round| round.seconds).sum();
    let theirs: f64 = burst.floor.iter().map(|round| round.seconds).sum();
    let claims = count(burst.pgtenant.iter().map(|round| round.count).sum());
    let most = |rounds: &[Vec<(f64, f64)>]| rounds.iter().flatten().map(|sample| sample.1).fold(0.0, f64::max);
    let each = burst.pgtenant.first().map_or(0, |round| round.count);
    vec![
        Verdict {
            what: format!("rate of {each} claims at once"),
            value: theirs / mine,
            shown: format!("{:.2} ×", theirs / mine),
            aim: "≥ 0.9 ×".to_owned(),
            met: theirs / mine >= 0.9,
            pgtenant: format!("{:.1} /s", claims / mine),
            floor: format!("{:.1} /s", claims / theirs),
        },
        Verdict {
            what: "connections to the cluster".to_owned(),
            value: most(&burst.pgtenant_connections),
            shown: format!("{:.0}", most(&burst.pgtenant_connections)),
            aim: "≤ 8".to_owned(),
            met: most(&burst.pgtenant_connections) <= 8.0,
            pgtenant: String::new(),
            floor: format!("{:.0}", most(&burst.floor_connections)),
        },
    ]
}

fn judge_idle(idle: &Idle) -> Vec<Verdict> {
    let largest = idle.sizes.last();
    let at_largest = |value: fn(&Size) -> String| largest.map(value).unwrap_or_default();
    let row = |what: &str, value: f64, shown: String, aim: &str, most: f64, measured: String| Verdict {
        what: format!("{what}, {PROJECTED} claims"),
        value,
        shown,
        aim: aim.to_owned(),
        met: value <= most,
        pgtenant: format!("{measured} at {}", largest.map_or(0, |size| size.claims)),
        floor: String::new(),
    };
    let projection = &idle.projection;
    let burst = idle.sizes.iter().map(|size| size.most_looks_in_a_second).fold(0.0, f64::max);
    vec![
        row(
            "idle: a core",
            projection.cpu,
            format!("{:.1} %", projection.cpu),
            "≤ 5 %",
            5.0,
            at_largest(|size| format!("{:.1} %", size.cpu)),
        ),
        row(
            "idle: memory",
            projection.memory,
            format!("{:.0} MB", projection.memory),
            "≤ 150 MB",
            150.0,
            at_largest(|size| format!("{:.0} MB", size.memory.resident)),
        ),
        row(
            "idle: connections",
            projection.connections,
            format!("{:.0}", projection.connections),
            "≤ 5",
            5.0,
            at_largest(|size| format!("{:.0}", size.connections.0)),
        ),
        Verdict {
            what: "looks in any one second".to_owned(),
            value: burst,
            shown: format!("{burst:.0}"),
            aim: format!("≤ {:.0}", (idle.pace.per_second + 1.0).ceil()),
            met: burst <= (idle.pace.per_second + 1.0).ceil(),
            pgtenant: format!("full look of {PROJECTED}: {}", minutes(projection.full_look)),
            floor: String::new(),
        },
    ]
}

fn judge_kubernetes(Kubernetes { door, .. }: &Kubernetes) -> Vec<Verdict> {
    let of = |value: fn(&crate::kubernetes::Round) -> f64| median(&door.rounds.iter().map(value).collect::<Vec<_>>());
    let (ratio, each) =
        (of(crate::kubernetes::Round::ratio), door.rounds.first().map_or(0, |one| one.rest.burst.count));
    vec![Verdict {
        what: format!("{each} objects until Ready"),
        value: ratio,
        shown: format!("{ratio:.2} ×"),
        aim: "≤ 1.15 ×".to_owned(),
        met: ratio <= 1.15,
        pgtenant: format!("{:.1} s", of(|round| round.objects.burst.seconds)),
        floor: format!("REST {:.1} s", of(|round| round.rest.burst.seconds)),
    }]
}

#[expect(clippy::cast_precision_loss, reason = "counts of claims")]
fn count(number: usize) -> f64 {
    number as f64
}
