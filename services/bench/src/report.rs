//! What is printed: the aims first, then what lies behind them.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use crate::burst::Bursts;
use crate::idle::{Idle, PROJECTED};
use crate::latency::Latency;
use crate::machine::Machine;
use crate::metrics::Step;
use crate::stats::{median, quantile};

/// Everything of a run, as it is written to the JSON file.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) at: chrono::DateTime<chrono::Utc>,
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) latency: Option<Latency>,
    pub(crate) burst: Option<Bursts>,
    pub(crate) idle: Option<Idle>,
    /// Seconds of processor time that the host gave to others during the run.
    pub(crate) stolen: f64,
    pub(crate) took: f64,
}

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

/// An error and all its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

impl Report {
    /// Fills the verdicts from the samples.
    pub(crate) fn judge(&mut self) {
        let mut verdicts = Vec::new();
        if let Some(latency) = &self.latency {
            verdicts.extend(judge_latency(latency));
        }
        if let Some(burst) = &self.burst {
            verdicts.extend(judge_burst(burst));
        }
        if let Some(idle) = &self.idle {
            verdicts.extend(judge_idle(idle));
        }
        self.verdicts = verdicts;
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let machine = &self.machine;
        let _ = writeln!(
            text,
            "{} · {} · {}\n{} · {} cores · {:.1} GB · Linux {} · {}",
            machine.pgtenant,
            format_args!("PostgreSQL {}", machine.postgresql),
            machine.rustc,
            machine.cpu,
            machine.cores,
            machine.memory,
            machine.kernel,
            machine.filesystem,
        );
        let _ =
            writeln!(text, "took {:.0} s; the host took {:.1} s of processor time for others", self.took, self.stolen);
        if self.quick {
            text.push_str("a smoke run: these figures are no measurement\n");
        }
        let _ = writeln!(text, "\n{}", self.verdict_table());
        if let Some(latency) = &self.latency {
            text.push_str(&latency_details(latency));
        }
        if let Some(burst) = &self.burst {
            text.push_str(&burst_details(burst));
        }
        if let Some(idle) = &self.idle {
            text.push_str(&idle_details(idle));
        }
        text
    }

    fn verdict_table(&self) -> Table {
        let mut table = new_table(&["", "result", "aim", "", "pgtenant", "floor"]);
        for verdict in &self.verdicts {
            let met = if verdict.met { "met" } else { "MISSED" };
            let Verdict { what, shown, aim, pgtenant, floor, .. } = verdict;
            table.add_row([what, shown, aim, met, pgtenant, floor]);
        }
        table
    }
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
            aim: if aim.is_finite() { format!("≤ {aim} ×") } else { "–".to_owned() },
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
    let at_largest = |value: fn(&crate::idle::Size) -> String| largest.map(value).unwrap_or_default();
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

fn latency_details(latency: &Latency) -> String {
    let mut text = String::from("\none claim after the other, median ms\n");
    let of =
        |value: fn(&crate::floor::FloorSample) -> f64| median(&latency.floor.iter().map(value).collect::<Vec<_>>());
    let mut table = new_table(&["floor", "ms", "pgtenant", "ms"]);
    let posted = median(&latency.pgtenant.iter().map(|sample| sample.posted).collect::<Vec<_>>());
    let rest = median(&latency.pgtenant.iter().map(|sample| sample.ready - sample.posted).collect::<Vec<_>>());
    let mut mine = vec![("POST answered".to_owned(), posted), ("from there to Ready".to_owned(), rest)];
    mine.extend(step_rows(&latency.steps));
    let theirs = [
        ("three verifiers", of(|s| s.verifiers)),
        ("roles", of(|s| s.roles)),
        ("create database", of(|s| s.create_database)),
        ("grants, open", of(|s| s.open)),
        ("connect", of(|s| s.connect)),
        ("inside", of(|s| s.inside)),
        ("three logins", of(|s| s.logins)),
    ];
    for index in 0..theirs.len().max(mine.len()) {
        let left = theirs.get(index).map(|(what, ms)| ((*what).to_owned(), format!("{ms:.1}"))).unwrap_or_default();
        let right = mine.get(index).map(|(what, ms)| (what.clone(), format!("{ms:.1}"))).unwrap_or_default();
        table.add_row([left.0, left.1, right.0, right.1]);
    }
    let _ = writeln!(text, "{table}");
    if latency.failed_tries > 0 {
        let _ = writeln!(text, "tries that failed and were made again: {}", latency.failed_tries);
    }
    for failure in &latency.first_use_failures {
        let _ = writeln!(text, "first use failed: {failure}");
    }
    text
}

fn burst_details(burst: &Bursts) -> String {
    let mut text = String::from("\nclaims at once, by round\n");
    let mut table =
        new_table(&["round", "pgtenant /s", "floor /s", "ratio", "POST median ms", "floor's claim median ms"]);
    for (index, (mine, theirs)) in burst.pgtenant.iter().zip(&burst.floor).enumerate() {
        let posted = median(&mine.claims.iter().map(|sample| sample.posted).collect::<Vec<_>>());
        let by_hand = median(&theirs.claims.iter().map(|sample| sample.total).collect::<Vec<_>>());
        table.add_row([
            (index + 1).to_string(),
            format!("{:.1}", mine.per_second),
            format!("{:.1}", theirs.per_second),
            format!("{:.2}", mine.per_second / theirs.per_second),
            format!("{posted:.1}"),
            format!("{by_hand:.1}"),
        ]);
    }
    let _ = writeln!(text, "{table}");
    if !burst.steps.is_empty() {
        let mut table = new_table(&["step", "mean ms", "times"]);
        for Step { step, count, mean_ms } in &burst.steps {
            table.add_row([step.clone(), format!("{mean_ms:.1}"), format!("{count:.0}")]);
        }
        let _ = writeln!(text, "{table}");
    }
    if burst.failed_tries > 0 {
        let _ = writeln!(text, "tries that failed and were made again: {}", burst.failed_tries);
    }
    text
}

fn idle_details(idle: &Idle) -> String {
    let mut text = format!(
        "\nat rest; each claim is looked at every {}, at most {} looks a second\n",
        minutes(idle.pace.interval),
        idle.pace.per_second
    );
    let mut table = new_table(&[
        "claims",
        "grown /s",
        "core %",
        "primary's %",
        "ledger's %",
        "RSS MB",
        "peak MB",
        "connections",
        "most",
        "looks /s",
        "most in 1 s",
        "full look",
    ]);
    for size in &idle.sizes {
        table.add_row([
            size.claims.to_string(),
            format!("{:.1}", size.grown_per_second),
            format!("{:.2}", size.cpu),
            format!("{:.1}", size.primary_cpu),
            format!("{:.1}", size.ledger_cpu),
            format!("{:.1}", size.memory.resident),
            format!("{:.1}", size.memory.peak),
            format!("{:.0}", size.connections.0),
            format!("{:.0}", size.connections.1),
            format!("{:.2}", size.looks_per_second),
            format!("{:.0}", size.most_looks_in_a_second),
            minutes(idle.pace.full_look(count(size.claims))),
        ]);
    }
    let _ = writeln!(text, "{table}");
    let _ = writeln!(
        text,
        "each thousand claims more: {:+.2} % of a core, {:+.1} MB",
        idle.projection.cpu_line.slope * 1e3,
        idle.projection.memory_line.slope * 1e3
    );
    text
}

fn step_rows(steps: &[Step]) -> Vec<(String, f64)> {
    steps.iter().map(|step| (format!("  {} (mean)", step.step), step.mean_ms)).collect()
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(Cell::new));
    for (column, text) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        let words = ["", "floor", "pgtenant", "step"].contains(text);
        column.set_cell_alignment(if words { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}

fn minutes(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

#[expect(clippy::cast_precision_loss, reason = "counts of claims")]
fn count(number: usize) -> f64 {
    number as f64
}
