//! Logs and metrics of a serving process.
//!
//! One filter for all layers, none for a single one: `tracing::enabled!`, which sqlx calls for each statement, leaves the
//! answer of a layer's own filter behind, and the next event of that thread is lost by it (tokio-rs/tracing#2519).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Level;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// From a healthy claim (a tenth of a second) to one that waits for a human.
const BUCKETS: [f64; 12] = [0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Everything that `/metrics` answers, in Prometheus' text format.
pub(crate) fn render() -> String {
    METRICS.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Logs to standard error; `filter` as of `RUST_LOG`.
///
/// # Errors
/// The filter can not be read.
pub(crate) fn to_stderr(format: LogFormat, filter: &str) -> Result<(), Box<dyn std::error::Error>> {
    let registry = tracing_subscriber::registry().with(EnvFilter::try_new(filter)?);
    let layer = fmt::layer().with_writer(Forgiving(io::stderr));
    match format {
        LogFormat::Text => registry.with(layer).try_init()?,
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_span_list(false)).try_init()?,
    }
    install_metrics()
}

/// Logs to a file, and warnings to standard error as well.
///
/// # Errors
/// The file can not be written.
pub(crate) fn to_file(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| format!("can not write the log {}: {error}", path.display()))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let to_file = fmt::layer().with_ansi(false).with_writer(Mutex::new(file));
    let to_terminal =
        fmt::layer().with_writer(Forgiving(io::stderr).with_max_level(Level::WARN)).without_time().with_target(false);
    tracing_subscriber::registry().with(filter).with(to_file).with(to_terminal).try_init()?;
    install_metrics()
}

fn install_metrics() -> Result<(), Box<dyn std::error::Error>> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .install_recorder()?;
    metrics::gauge!("pgtenant_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    describe();
    let upkeep = METRICS.get_or_init(|| handle).clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(30));
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(())
}

fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("pgtenant_build_info", "1, with the version as a label");
    describe_gauge!("pgtenant_claims", "Claims by cluster and state");
    describe_gauge!("pgtenant_queue_length", "Claims that are due and that nobody works on");
    describe_gauge!("pgtenant_cluster_connections", "Open connections to a cluster, of this replica");
    describe_gauge!(
        "pgtenant_cluster_split_brain",
        "1 where nothing is written, since more than one server may take writes"
    );
    describe_gauge!("pgtenant_cluster_push_connected", "1 while the cluster's monitor tells this replica of changes");
    describe_counter!("pgtenant_cluster_pushes_total", "Changes that the cluster's monitor has told this replica");
    describe_gauge!("pgtenant_ledger_connections", "Open connections to the ledger, of this replica");
    describe_histogram!(
        "pgtenant_time_to_ready_seconds",
        Unit::Seconds,
        "From the wish to the moment at which every tier logs in"
    );
    describe_counter!("pgtenant_retries_total", "Failed tries by step and reason");
    describe_counter!("pgtenant_drift_repaired_total", "Changes made by hand that were put back");
    describe_counter!("pgtenant_credentials_rotated_total", "New passwords in place of earlier ones");
    describe_counter!("pgtenant_fenced_total", "Claims that another replica took from this one");
    describe_counter!("pgtenant_looks_total", "Looks at claims by result");
}

/// A writer that does not panic when nobody reads any more.
struct Forgiving<W>(fn() -> W);

impl<'a, W: Write + 'a> fmt::MakeWriter<'a> for Forgiving<W> {
    type Writer = Quiet<W>;

    fn make_writer(&'a self) -> Self::Writer {
        Quiet((self.0)())
    }
}

struct Quiet<W>(W);

impl<W: Write> Write for Quiet<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).or(Ok(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().or(Ok(()))
    }
}
