//! What is printed: the aims first, then what lies behind them.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use crate::bench::{CpuTimes, rate};
use crate::burst::Bursts;
use crate::idle::Idle;
use crate::kubernetes::Kubernetes;
use crate::latency::Latency;
use crate::machine::Machine;
use crate::metrics::Step;
use crate::restores::Restores;
use crate::rotation::Rotation;
use crate::stats::median;
use crate::stores::Stores;
use crate::verdict::Verdict;

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
    pub(crate) kubernetes: Option<Kubernetes>,
    pub(crate) stores: Option<Stores>,
    pub(crate) rotation: Option<Rotation>,
    pub(crate) restores: Option<Restores>,
    /// Load averages before the run.
    pub(crate) load: String,
    /// Seconds of processor time that the host gave to others during the run.
    pub(crate) stolen: f64,
    pub(crate) took: f64,
}

/// An error and all its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

impl Report {
    /// Nothing is measured yet.
    pub(crate) fn new(quick: bool, machine: Machine) -> Self {
        Self {
            at: chrono::Utc::now(),
            quick,
            machine,
            verdicts: Vec::new(),
            latency: None,
            burst: None,
            idle: None,
            kubernetes: None,
            stores: None,
            rotation: None,
            restores: None,
            load: String::new(),
            stolen: 0.0,
            took: 0.0,
        }
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
        let _ = writeln!(
            text,
            "took {:.0} s; load before it {}; the host took {:.1} s of processor time",
            self.took, self.load, self.stolen
        );
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
        if let Some(kubernetes) = &self.kubernetes {
            text.push_str(&crate::kubernetes::details(kubernetes));
        }
        if let Some(stores) = &self.stores {
            text.push_str(&crate::stores::details(stores));
        }
        if let Some(rotation) = &self.rotation {
            text.push_str(&crate::rotation::details(rotation));
        }
        if let Some(restores) = &self.restores {
            text.push_str(&crate::restores::details(restores));
        }
        text
    }

    fn verdict_table(&self) -> Table {
        let mut table = new_table(&["", "result", "aim", "", "pgtenant", "floor"]);
        for verdict in &self.verdicts {
            let met = match verdict {
                Verdict { aim, .. } if aim.is_empty() => "",
                Verdict { met: true, .. } => "met",
                Verdict { met: false, .. } => "MISSED",
            };
            let Verdict { what, shown, aim, pgtenant, floor, .. } = verdict;
            table.add_row([what, shown, aim, met, pgtenant, floor]);
        }
        table
    }
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
    let _ = writeln!(text, "processor ms for each claim");
    let mut table = new_table(&["", "pgtenant", "primary", "standby", "ledger", "benchmark", "together"]);
    for (what, rounds) in [("pgtenant", &burst.pgtenant_cpu), ("floor", &burst.floor_cpu)] {
        let of = |value: fn(&CpuTimes) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
        let parts = [of(|c| c.pgtenant), of(|c| c.primary), of(|c| c.standby), of(|c| c.ledger), of(|c| c.bench)];
        let all = parts.into_iter().chain([parts.iter().sum()]).map(|ms| format!("{ms:.1}"));
        table.add_row(std::iter::once(what.to_owned()).chain(all));
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
            minutes(idle.pace.full_look(rate(size.claims, 1.0))),
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

pub(crate) fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(Cell::new));
    for (column, text) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        let words = ["", "floor", "pgtenant", "step"].contains(text)
            || text.starts_with("requests to")
            || text.starts_with("new claims");
        column.set_cell_alignment(if words { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}

pub(crate) fn minutes(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}
