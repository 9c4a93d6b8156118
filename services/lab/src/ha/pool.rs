//! PgBouncer in front of a lab, whatever its kind.
//!
//! PgBouncer takes one host after the other and never asks who is the primary, so it is given one address that leads there. Kind `haproxy`
//! has that; for the others HAProxy is started as well, which asks Patroni, or a health service on each node.

use std::time::Duration;

use crate::converge::Progress;
use crate::error::Result;
use crate::files;
use crate::ha::kind::LabKind;
use crate::ha::site::{Daemon, Site};
use crate::ha::{haproxy, processes};
use crate::pgbouncer::{self, CONF, LOGINS, PGBOUNCER};
use crate::process::AtTheEnd;

const DEADLINE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// The nodes run.
pub(crate) async fn up(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    if !site.state.pgbouncer {
        return Ok(());
    }
    if site.state.kind != LabKind::Haproxy {
        haproxy::start_front(site, progress).await?;
    }
    start(site, progress).await
}

/// After a node was started.
pub(crate) async fn rejoin(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    if site.state.pgbouncer && site.state.kind != LabKind::Haproxy {
        haproxy::rejoin_front(site, name, progress).await?;
    }
    Ok(())
}

/// What is in front of the nodes, and can be killed and started by itself.
pub(crate) fn in_front(site: &Site) -> Vec<&'static str> {
    let mut all =
        if site.state.pgbouncer || site.state.kind == LabKind::Haproxy { haproxy::homes(site) } else { Vec::new() };
    all.extend(site.state.pgbouncer.then_some(PGBOUNCER));
    all
}

/// Logins are looked up once a superuser has made the function for that: `pgtenant` does so.
pub(crate) async fn start(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    site.prepare(PGBOUNCER, &[PGBOUNCER])?;
    let (home, port) = (site.home(PGBOUNCER), site.port(PGBOUNCER));
    let (host, write) = haproxy::address(site);
    let text = pgbouncer::settings(&home, &format!("{host}:{write}"), port)?;
    write_logins(site)?;
    let conf = home.join(CONF);
    if !site.runs(PGBOUNCER, PGBOUNCER) || files::read_if_there(&conf)?.as_ref() != Some(&text) {
        processes::stop(&home, &[PGBOUNCER], STOP_PATIENCE).await?;
        progress(&format!("starting PgBouncer on port {port}"));
        site.write(PGBOUNCER, CONF, &text, 0o600)?;
        let program = site.in_reach(&pgbouncer::locate()?, PGBOUNCER, &home)?;
        let daemon =
            Daemon { name: PGBOUNCER, program, args: vec![conf.display().to_string()], at_the_end: AtTheEnd::Kill };
        site.start(PGBOUNCER, &daemon, &[port])?;
    }
    let answers = async |_: &Site| pgbouncer::answers("localhost", port).await;
    site.wait_for((PGBOUNCER, PGBOUNCER), DEADLINE, "PgBouncer did not answer", answers).await
}

/// It knows its own password of now. Connections that it has go on.
pub(crate) fn reload(site: &Site) -> Result<()> {
    write_logins(site)?;
    processes::reload(&site.home(PGBOUNCER), PGBOUNCER);
    Ok(())
}

fn write_logins(site: &Site) -> Result<()> {
    site.write(PGBOUNCER, LOGINS, &pgbouncer::logins(&site.secret(PGBOUNCER)?), 0o600)
}
