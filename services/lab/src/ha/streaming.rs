//! A primary and standbys that stream from it, each with a slot. Nobody promotes by himself.

use std::time::Duration;

use sqlx::Row;

use crate::control;
use crate::control::History;
use crate::converge::Progress;
use crate::error::{Error, Result};
use crate::ha::processes;
use crate::ha::server::{POSTGRES, REPLICATOR, bounded};
use crate::ha::site::Site;
use crate::ha::status::{LabRole, Told};

/// How long a standby that has its data may take until it streams, before it is copied anew.
const FOLLOW_DEADLINE: Duration = Duration::from_secs(15);
/// For a fresh copy, after which nothing is left to try.
const FRESH_DEADLINE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// The primary first. Where none runs, the node with the newest history is it.
pub(crate) async fn up(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    let primary = match site.primary().await {
        Some(running) => running,
        None => {
            let best = newest(site).await?;
            start_alone(site, &best, progress).await?;
            best
        }
    };
    for name in site.nodes().into_iter().filter(|name| *name != primary) {
        follow(site, &name, &primary, progress).await?;
    }
    Ok(())
}

/// Beside a running primary it follows that, rewound or copied anew where need be; else it starts as what it was.
pub(crate) async fn start(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    match site.primary().await {
        Some(primary) if primary == name => Ok(()),
        Some(primary) => follow(site, name, &primary, progress).await,
        None if site.has_data(name) => {
            site.prepare(name, &[name])?;
            site.configure(name, None, &[])?;
            progress(&format!("starting {name} on port {}", site.port(name)));
            site.start_server(name).await
        }
        None => Err(Error::Unsuited {
            what: format!("{name} has no data, and no primary runs to copy"),
            instead: "start the primary first, or all: `pgtenant lab up`".to_owned(),
        }),
    }
}

/// Stops the primary, if one runs, and makes this standby the primary; the other standbys follow it.
pub(crate) async fn promote(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    let said = site.ask(site.port(name)).await;
    if !said.is_some_and(|said| said.standby) {
        return Err(Error::Unsuited {
            what: format!("{name} is no running standby"),
            instead: "`pgtenant lab status` shows the standbys".to_owned(),
        });
    }
    if let Some(primary) = site.primary().await {
        progress(&format!("stopping {primary}"));
        processes::stop(&site.home(&primary), &[POSTGRES], STOP_PATIENCE).await?;
    }
    progress(&format!("promoting {name}"));
    promote_server(site, name).await?;
    for other in site.nodes().into_iter().filter(|other| other != name) {
        if site.runs(&other, POSTGRES) {
            follow(site, &other, name, progress).await?;
        }
    }
    Ok(())
}

/// The slot of a node that goes would keep the primary's log.
pub(crate) async fn forget(site: &mut Site, name: &str) -> Result<()> {
    let Some(primary) = site.primary().await else { return Ok(()) };
    let slot = Site::slot(name);
    let sql =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active";
    let mut connection = site.connect(&primary).await?;
    bounded(&primary, sqlx::query(sql).bind(slot).execute(&mut connection)).await.map(drop)
}

/// As the servers say it: `pg_is_in_recovery`, and the primary's `pg_stat_replication`.
pub(crate) async fn told(site: &Site) -> Vec<Told> {
    let replication = replication(site).await.unwrap_or_default();
    let mut told = Vec::new();
    for name in site.nodes() {
        let (role, words) = match site.ask(site.port(&name)).await {
            None => (LabRole::Down, "no answer".to_owned()),
            Some(said) if !said.standby => (LabRole::Primary, "primary".to_owned()),
            Some(_) => {
                let seen = replication.iter().find(|(node, _)| *node == name);
                (LabRole::Standby, seen.map_or_else(|| "not streaming".to_owned(), |(_, state)| state.clone()))
            }
        };
        told.push(Told { name, role, words });
    }
    told
}

async fn replication(site: &Site) -> Result<Vec<(String, String)>> {
    let Some(primary) = site.primary().await else { return Ok(Vec::new()) };
    let sql = "SELECT application_name, state || ', ' || sync_state FROM pg_stat_replication";
    let mut connection = site.connect(&primary).await?;
    let rows = bounded(&primary, sqlx::raw_sql(sql).fetch_all(&mut connection)).await?;
    Ok(rows.iter().filter_map(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?))).collect())
}

/// A node that is no standby was a primary; the newest of those, or else of the standbys. Without data, the first.
pub(crate) async fn newest(site: &Site) -> Result<String> {
    let mut best: Option<(bool, History, String)> = None;
    for name in site.nodes().into_iter().filter(|name| site.has_data(name)) {
        let history = control::history(&site.runner(&name), &site.binaries, &site.data(&name)).await?;
        let candidate = (!site.is_standby(&name), history, name);
        if best.as_ref().is_none_or(|best| (candidate.0, candidate.1) > (best.0, best.1)) {
            best = Some(candidate);
        }
    }
    let first = || site.nodes().into_iter().next().unwrap_or_default();
    Ok(best.map_or_else(first, |(_, _, name)| name))
}

async fn start_alone(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    site.prepare(name, &[name])?;
    site.configure(name, None, &[])?;
    if !site.has_data(name) {
        progress(&format!("creating PostgreSQL {} ({name})", site.binaries.version()));
        site.create(name).await?;
    }
    progress(&format!("starting {name} on port {}", site.port(name)));
    site.start_server(name).await?;
    if site.is_standby(name) {
        progress(&format!("promoting {name}: there is no primary"));
        promote_server(site, name).await?;
    }
    site.set_login(name, REPLICATOR, "REPLICATION", &site.replication).await
}

async fn promote_server(site: &Site, name: &str) -> Result<()> {
    let data = site.data(name).to_string_lossy().into_owned();
    let args = ["promote", "--wait", "--timeout=60", "--silent", "--pgdata", &data];
    site.runner(name).run(&site.binaries.program("pg_ctl")?, args).await.map(drop)
}

/// Makes a node stream from a running primary, with as little copying as that takes.
async fn follow(site: &mut Site, name: &str, primary: &str, progress: Progress<'_>) -> Result<()> {
    site.prepare(name, &[name])?;
    site.configure(name, Some(primary), &[])?;
    make_slot(site, name, primary).await?;
    let running = site.runs(name, POSTGRES);
    if running && !site.is_standby(name) {
        // Two writable servers must not run.
        processes::stop(&site.home(name), &[POSTGRES], STOP_PATIENCE).await?;
    }
    if site.has_data(name) && resume(site, name, primary, progress).await? {
        return Ok(());
    }
    processes::stop(&site.home(name), &[POSTGRES], STOP_PATIENCE).await?;
    progress(&format!("copying {primary} to {name}"));
    site.copy(name, primary).await?;
    progress(&format!("starting {name} on port {}", site.port(name)));
    site.start_server(name).await?;
    if streams(site, name, FRESH_DEADLINE).await {
        return Ok(());
    }
    let (node, seconds) = (name.to_owned(), FRESH_DEADLINE.as_secs());
    Err(Error::NotStreaming { node, seconds, log: site.log_end(name, POSTGRES) })
}

/// With the data that is there. Whether it streams.
async fn resume(site: &mut Site, name: &str, primary: &str, progress: Progress<'_>) -> Result<bool> {
    if !site.is_standby(name) {
        progress(&format!("rewinding {name} to the history of {primary}"));
        if let Err(error) = site.rewind(name, primary).await {
            progress(&format!("{name} can not be rewound: {error}"));
            return Ok(false);
        }
    }
    if site.runs(name, POSTGRES) {
        site.execute(name, "SELECT pg_reload_conf()".to_owned()).await?;
    } else {
        progress(&format!("starting {name} on port {}", site.port(name)));
        if let Err(error) = site.start_server(name).await {
            progress(&format!("{name} does not start with the data it has: {error}"));
            return Ok(false);
        }
    }
    Ok(streams(site, name, FOLLOW_DEADLINE).await)
}

async fn make_slot(site: &Site, name: &str, primary: &str) -> Result<()> {
    let sql = "SELECT pg_create_physical_replication_slot($1::text::name, true) \
               WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::text)";
    let mut connection = site.connect(primary).await?;
    bounded(primary, sqlx::query(sql).bind(Site::slot(name)).execute(&mut connection)).await.map(drop)
}

async fn streams(site: &mut Site, name: &str, patience: Duration) -> bool {
    let port = site.port(name);
    let reached = async |site: &Site| site.ask(port).await.is_some_and(|said| said.streams);
    site.wait_for((name, POSTGRES), patience, "it does not stream", reached).await.is_ok()
}
