//! `pgtenant-bench`: pgtenant against the same SQL by hand, in one run, interleaved, on servers of its own.
//!
//! It says what it found, with aims met or missed, and fails only where something does not work: a benchmark, not a
//! timed test.

mod api;
mod args;
mod bench;
mod burst;
mod connect;
mod error;
mod first_use;
mod floor;
mod idle;
mod kubernetes;
mod lab;
mod latency;
mod machine;
mod metrics;
mod pace;
mod process;
mod report;
mod restores;
mod rotation;
mod run;
mod sampler;
mod serve;
mod stats;
mod stores;
mod verdict;

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Args, Section, Sizes};
use crate::bench::Bench;
use crate::error::{BenchError, Result};
use crate::lab::{Described, Lab};
use crate::machine::Machine;
use crate::pace::Pace;
use crate::report::Report;

fn main() -> ExitCode {
    let args = Args::parse();
    // Only the first one counts, and this is the first.
    rustls::crypto::ring::default_provider().install_default().ok();
    let run = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match run {
        Ok(runtime) => runtime.block_on(run_all(&args)),
        Err(error) => Err(BenchError::io("start", "the runtime")(error)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            writeln!(std::io::stderr(), "pgtenant-bench: {}", report::chain(&error)).ok();
            ExitCode::FAILURE
        }
    }
}

/// Whether everything worked.
async fn run_all(args: &Args) -> Result<bool> {
    let begun = Instant::now();
    let say = |text: &str| say(begun, text);
    let binary = serve::binary(args.pgtenant.as_deref())?;
    let folder = lab::folder(&args.place())?;
    let mut sizes = args.sizes();
    fit(args, &mut sizes, folder.path(), &say)?;
    let (load, stolen) = (machine::load(), process::stolen());
    let result = tokio::select! {
        result = with_servers(args, &sizes, &binary, folder.path(), &say) => result,
        () = stopped() => Err(BenchError::Interrupted),
    };
    say("removing what was made");
    clear(&folder.keep()).await?;
    let mut report = result?;
    report.load = load;
    report.stolen = process::stolen() - stolen;
    report.took = begun.elapsed().as_secs_f64();
    report.verdicts = verdict::judge(&report);
    write_json(&args.json, &report)?;
    let mut out = std::io::stdout().lock();
    let text = format!("{}\nraw samples: {}\n", report.text(), args.json.display());
    out.write_all(text.as_bytes()).map_err(BenchError::io("write to", "standard output"))?;
    Ok(report.latency.is_none_or(|latency| latency.first_use_failures.is_empty()))
}

async fn with_servers(
    args: &Args,
    sizes: &Sizes,
    binary: &Path,
    folder: &Path,
    say: &(impl Fn(&str) + Sync),
) -> Result<Report> {
    let postgresql = pgtenant_lab::Binaries::locate(None)?;
    let machine = Machine::describe(&args.place(), serve::version(binary).await, postgresql.version());
    let mut report = Report::new(args.quick, machine);
    if args.wants(Section::Latency) || args.wants(Section::Burst) || args.wants(Section::Idle) {
        let folder = part(folder, "files")?;
        on_files(args, sizes, binary, &folder, &mut report, say).await?;
        clear(&folder).await?;
    }
    if args.wants(Section::Kubernetes) {
        let folder = part(folder, "kubernetes")?;
        report.kubernetes = Some(kubernetes::measure(args, sizes, binary, &folder, say).await?);
        clear(&folder).await?;
    }
    if args.wants(Section::Stores) {
        let folder = part(folder, "stores")?;
        report.stores = Some(stores::measure(args, sizes, binary, &folder, say).await?);
        clear(&folder).await?;
    }
    if args.wants(Section::Rotation) {
        let folder = part(folder, "rotation")?;
        report.rotation = Some(rotation::measure(args, sizes, binary, &folder, say).await?);
        clear(&folder).await?;
    }
    if args.wants(Section::Restores) {
        let folder = part(folder, "restores")?;
        report.restores = Some(restores::measure(args, sizes, binary, &folder, say).await?);
    }
    Ok(report)
}

/// A folder for some of the servers, which all may pass.
fn part(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    let made = std::fs::DirBuilder::new().mode(0o711).create(&path);
    made.map_err(BenchError::io("make", &path))?;
    Ok(path)
}

/// The sections that share servers.
async fn on_files(
    args: &Args,
    sizes: &Sizes,
    binary: &Path,
    folder: &Path,
    report: &mut Report,
    say: &(impl Fn(&str) + Sync),
) -> Result<()> {
    let lab = Lab::start(folder, Described::files(), say).await?;
    let pace = Pace::of(binary, &lab, &args.set).await?;
    run::on(args, binary, lab, say, async |bench| measure(args, sizes, bench, pace, report).await).await
}

async fn measure(args: &Args, sizes: &Sizes, bench: &Bench<'_>, pace: Pace, report: &mut Report) -> Result<()> {
    if args.wants(Section::Latency) {
        report.latency = Some(latency::measure(bench, sizes).await?);
    }
    if args.wants(Section::Burst) {
        report.burst = Some(burst::measure(bench, sizes).await?);
    }
    if args.wants(Section::Idle) {
        report.idle = Some(idle::measure(bench, sizes, pace).await?);
    }
    Ok(())
}

/// Leaves out what there is no room for. A database takes 7.5 MB, on the primary and on the standby.
fn fit(args: &Args, sizes: &mut Sizes, folder: &Path, say: &impl Fn(&str)) -> Result<()> {
    const DATABASE: u64 = 15_500_000;
    /// Empty servers and their logs.
    const SERVERS: u64 = 4_000_000_000;
    let need = |claims: usize| SERVERS + DATABASE * claims as u64;
    // Two databases and their logs on two servers, and a dump of files.
    let restored = if args.wants(Section::Restores) { sizes.restored_mib * 6 * (1 << 20) / 15_500_000 } else { 0 };
    let free = machine::free_space(folder);
    let all = sizes.idle.len();
    if args.wants(Section::Idle) {
        sizes.idle.retain(|size| need(*size) < free);
    }
    let applied = if args.wants(Section::Kubernetes) { 2 * sizes.applied } else { 0 };
    let stores = if args.wants(Section::Stores) { 4 * (sizes.warm_up + sizes.stores) } else { 0 };
    // A few more by hand, and new ones, which come at most as fast as a paced rotation goes on.
    let rotated = if args.wants(Section::Rotation) { sizes.rotated * 5 / 4 + sizes.probes } else { 0 };
    let rest = [2 * (sizes.warm_up + sizes.claims), 2 * sizes.burst, applied, stores, rotated, restored];
    let idle = if args.wants(Section::Idle) { sizes.idle.as_slice() } else { &[] };
    let most = rest.into_iter().chain(idle.iter().copied()).max().unwrap_or_default();
    let gb = |bytes: u64| bytes / 1_000_000_000 + 1;
    if need(most) > free || (args.wants(Section::Idle) && sizes.idle.is_empty()) {
        let (need, free) = (gb(need(most)), free / 1_000_000_000);
        let text =
            format!("{} has {free} GB free, and {need} GB are needed; choose another with --disk", folder.display());
        return Err(BenchError::Serve(text));
    }
    if sizes.idle.len() < all {
        let left: Vec<String> = sizes.idle.iter().map(ToString::to_string).collect();
        say(&format!("there is no room for more claims at rest than {}", left.join(", ")));
    }
    say(&format!("up to {} GB will be used in {}", gb(need(most)), folder.display()));
    Ok(())
}

/// Servers that were just dropped are ending, and may still write.
async fn clear(path: &Path) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        match std::fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > until => return Err(BenchError::io("remove", path)(error)),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn stopped() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

fn write_json(path: &Path, report: &Report) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(BenchError::io("make", parent))?;
    }
    let mut text = serde_json::to_vec_pretty(report).map_err(BenchError::text("write the samples"))?;
    text.push(b'\n');
    std::fs::write(path, text).map_err(BenchError::io("write", path))
}

/// Progress goes to standard error, so that standard output has the result alone.
fn say(begun: Instant, text: &str) {
    let mut err = std::io::stderr().lock();
    let (dim, plain) = if err.is_terminal() { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
    writeln!(err, "{dim}{:6.1} s{plain}  {text}", begun.elapsed().as_secs_f64()).ok();
}
