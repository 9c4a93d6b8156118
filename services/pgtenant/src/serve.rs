//! `pgtenant serve` and `pgtenant migrate`: the control plane beside clusters that are there already.

use std::path::PathBuf;
use std::time::Duration;

use pgtenant_api::ApiSettings;
use pgtenant_apps_repo::Guard;
use pgtenant_aws::Aws;
use pgtenant_engine::EngineSettings;
use pgtenant_ledger::Ledger;
use secrecy::ExposeSecret as _;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;

use crate::compose::ControlPlane;
use crate::config::{Settings, each_host};
use crate::kubernetes::Kubernetes;
use crate::telemetry;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(settings: Settings) -> Result<()> {
    telemetry::to_stderr(settings.log.format, &settings.log.level)?;
    let stop = crate::signals::on_stop();
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| format!("can not listen on {}: {error}\nhint: set `listen`", settings.listen))?;
    tracing::info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "serving");
    if !settings.listen.ip().is_loopback() {
        tracing::warn!("bearer tokens travel in clear text: put TLS before this port, as an ingress does");
    }
    let plane = ControlPlane {
        ledger: ledger(&settings)?,
        clusters: settings.clusters.clone().into_iter().collect(),
        engine: engine(&settings)?,
        api: api(&settings)?,
        apps: apps(&settings),
        kubernetes: Kubernetes::of(&settings.kubernetes).await?,
        aws: Aws::default(),
        listener,
    };
    Ok(plane.run(stop).await?)
}

/// Brings the ledger up to date and ends.
pub(crate) async fn migrate(settings: Settings) -> Result<()> {
    let ledger = ledger(&settings)?;
    tokio::time::timeout(Duration::from_secs(300), ledger.migrate()).await??;
    Ok(())
}

/// Connects to nothing yet.
pub(crate) fn ledger(settings: &Settings) -> Result<Ledger> {
    let ledger = &settings.ledger;
    let password = ledger.password()?;
    let host = |url: String| {
        let options: PgConnectOptions = url.parse().map_err(|error| format!("ledger.url: {error}"))?;
        let options = options.application_name("pgtenant");
        Ok::<_, String>(match &password {
            Some(password) => options.password(password.expose_secret()),
            None => options,
        })
    };
    let mut hosts = each_host(ledger.url.as_deref().unwrap_or_default()).into_iter().map(host);
    let first = hosts.next().ok_or("ledger.url names no host")??;
    Ok(Ledger::on_hosts(first, hosts.collect::<Result<_, _>>()?, ledger.max_connections))
}

fn engine(settings: &Settings) -> Result<EngineSettings> {
    Ok(EngineSettings {
        look_interval: settings.look.interval,
        looks_per_second: settings.look.max_per_second,
        concurrency: settings.work.concurrency,
        lease: settings.work.lease,
        watch_interval: settings.work.watch,
        grace: settings.shutdown.grace,
        tools: settings.work.postgresql_dir.iter().cloned().collect(),
        faults: crate::faults()?,
    })
}

fn api(settings: &Settings) -> Result<ApiSettings> {
    let limits = &settings.api;
    Ok(ApiSettings {
        body_limit: limits.body_limit,
        request_timeout: limits.request_timeout,
        rate_per_second: limits.rate_limit,
        rate_burst: limits.rate_burst,
        shutdown_grace: settings.shutdown.grace,
        slack: settings.slack.settings()?,
        ..ApiSettings::default()
    })
}

fn apps(settings: &Settings) -> Option<(PathBuf, pgtenant_apps_repo::Settings)> {
    let apps = &settings.apps;
    let guard = Guard { max_removals: apps.max_removals, allow_mass_removal: apps.allow_mass_removal };
    let follow = pgtenant_apps_repo::Settings { rescan: apps.rescan, guard, ..pgtenant_apps_repo::Settings::default() };
    apps.dir.clone().map(|dir| (dir, follow))
}
