//! pg_auto_failover: a monitor that decides, and a keeper on each node.

use std::time::Duration;

use serde::Deserialize;

use crate::converge::Progress;
use crate::error::{Error, Result};
use crate::ha::site::{Daemon, Site};
use crate::ha::status::{LabRole, Told};
use crate::process::AtTheEnd;

pub(crate) const MONITOR: &str = "monitor";
const KEEPER: &str = "pg_autoctl";
/// Of the monitor's database, and of the logins that the extension makes without a password.
const DATABASE: &str = "pg_auto_failover";
const MONITOR_LOGIN: &str = "autoctl_node";
const NODE_LOGINS: [&str; 2] = ["pgautofailover_monitor", "pgautofailover_replicator"];
const DEADLINE: Duration = Duration::from_secs(120);
/// Written when a folder is made as a whole: `create` is done again where it was interrupted.
const CREATED: &str = "created";
/// In milliseconds. As shipped: 5,000, 5,000, 2, 2,000, 20,000, 30,000 and 10,000.
const HEALTH_CHECKS: [(&str, &str); 7] = [
    ("pgautofailover.health_check_period", "1000"),
    ("pgautofailover.health_check_timeout", "1000"),
    ("pgautofailover.health_check_max_retries", "1"),
    ("pgautofailover.health_check_retry_delay", "200"),
    ("pgautofailover.node_considered_unhealthy_timeout", "3000"),
    ("pgautofailover.primary_demote_timeout", "3000"),
    ("pgautofailover.startup_grace_period", "3000"),
];
/// pg_auto_failover would take a quarter of the machine for each server.
const MODEST: [(&str, &str); 3] = [("shared_buffers", "64MB"), ("work_mem", "4MB"), ("maintenance_work_mem", "64MB")];

/// The monitor, then the first node, then the others as its copies.
pub(crate) async fn up(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    start_monitor(site, progress).await?;
    let nodes = site.nodes();
    let made = nodes.iter().any(|name| site.home(name).join(CREATED).exists());
    if !made && let Some(first) = nodes.first() {
        create_first(site, first, progress).await?;
    }
    // Those that are there take part together: each may wait for another one.
    let (known, new): (Vec<_>, Vec<_>) = nodes.iter().partition(|name| site.home(name).join(CREATED).exists());
    for name in &known {
        launch(site, name, progress).await?;
    }
    for name in known {
        wait_until_part(site, name).await?;
    }
    for name in new {
        start(site, name, progress).await?;
    }
    Ok(())
}

/// The keeper itself rewinds or copies.
pub(crate) async fn start(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    start_monitor(site, progress).await?;
    if !site.home(name).join(CREATED).exists() {
        prepare(site, name)?;
        progress(&format!("copying the primary to {name}"));
        create(site, name).await?;
    }
    launch(site, name, progress).await?;
    wait_until_part(site, name).await
}

/// The monitor is told that the node does not come back; nodes that are left do not wait for it.
pub(crate) async fn forget(site: &mut Site, name: &str) -> Result<()> {
    let uri = monitor_uri(site);
    let args = ["drop", "node", "--monitor", &uri, "--formation", "default", "--name", name, "--force", "--wait", "0"];
    autoctl(site, MONITOR, &args).await.map(drop)
}

/// As `pg_autoctl show state` says it.
pub(crate) async fn told(site: &Site) -> Vec<Told> {
    let states = states(site).await;
    let told = |name: String| {
        let seen = states.iter().find(|state| state.name == name);
        let words = seen.map_or_else(|| "the monitor does not know it".to_owned(), State::words);
        let role = match seen {
            _ if !site.runs(&name, KEEPER) => LabRole::Down,
            Some(state) if state.is_settled() => state.role(),
            _ => LabRole::Changing,
        };
        Told { name, role, words }
    };
    site.nodes().into_iter().map(told).collect()
}

/// For keepers and `pg_autoctl`, without the password.
pub(crate) fn monitor_uri(site: &Site) -> String {
    let ca = site.authority.certificate_file();
    let (port, ca) = (site.port(MONITOR), ca.display());
    format!("postgres://{MONITOR_LOGIN}@localhost:{port}/{DATABASE}?sslmode=verify-full&sslrootcert={ca}")
}

#[derive(Debug, Deserialize)]
struct State {
    #[serde(rename = "nodename")]
    name: String,
    health: i32,
    #[serde(rename = "current_group_state")]
    current: String,
    #[serde(rename = "assigned_group_state")]
    assigned: String,
}

impl State {
    fn is_settled(&self) -> bool {
        self.current == self.assigned && self.health == 1 && matches!(self.role(), LabRole::Primary | LabRole::Standby)
    }

    fn role(&self) -> LabRole {
        match self.current.as_str() {
            "single" | "primary" | "wait_primary" | "join_primary" | "apply_settings" => LabRole::Primary,
            "secondary" => LabRole::Standby,
            _ => LabRole::Changing,
        }
    }

    fn words(&self) -> String {
        let Self { name: _, health, current, assigned } = self;
        let health = if *health == 1 { "" } else { ", unhealthy" };
        if current == assigned { format!("{current}{health}") } else { format!("{current} to {assigned}{health}") }
    }
}

async fn states(site: &Site) -> Vec<State> {
    let uri = monitor_uri(site);
    let text = autoctl(site, MONITOR, &["show", "state", "--json", "--monitor", &uri]).await.unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

async fn start_monitor(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    site.prepare(MONITOR, &[MONITOR])?;
    if site.runs(MONITOR, KEEPER) {
        return Ok(());
    }
    let settings: Vec<_> =
        HEALTH_CHECKS.iter().chain(&MODEST).map(|(name, value)| (*name, (*value).to_owned())).collect();
    site.configure(MONITOR, None, &settings)?;
    let created = site.home(MONITOR).join(CREATED).exists();
    if !created {
        progress(&format!("creating the monitor on port {}", site.port(MONITOR)));
        site.create(MONITOR).await?;
        let (data, port) = (data(site, MONITOR), site.port(MONITOR).to_string());
        let mut args = vec!["create", "monitor", "--pgdata", &data, "--pgport", &port, "--hostname", "localhost"];
        let tls = tls(site, MONITOR);
        args.extend(tls.iter().map(String::as_str));
        autoctl(site, MONITOR, &args).await?;
        autoctl(site, MONITOR, &["config", "set", "postgresql.listen_addresses", "localhost", "--pgdata", &data])
            .await?;
    }
    progress(&format!("starting the monitor on port {}", site.port(MONITOR)));
    run(site, MONITOR)?;
    let port = site.port(MONITOR);
    let answers = async |site: &Site| site.ask(port).await.is_some();
    site.wait_for((MONITOR, KEEPER), DEADLINE, "the monitor did not answer", answers).await?;
    if !created {
        site.set_login(MONITOR, MONITOR_LOGIN, "", &site.replication).await?;
        site.write(MONITOR, CREATED, "", 0o600)?;
    }
    Ok(())
}

async fn create_first(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    prepare(site, name)?;
    progress(&format!("creating PostgreSQL {} ({name})", site.binaries.version()));
    site.create(name).await?;
    create(site, name).await?;
    launch(site, name, progress).await?;
    let port = site.port(name);
    let writable = async |site: &Site| site.ask(port).await.is_some_and(|said| !said.standby);
    site.wait_for((name, KEEPER), DEADLINE, &format!("{name} did not take writes"), writable).await?;
    // The extension would have these come in by trust.
    let [health, replication] = NODE_LOGINS;
    site.set_login(name, health, "", &site.replication).await?;
    site.set_login(name, replication, "SUPERUSER REPLICATION", &site.replication).await
}

/// What `create` finds in place: configuration, certificate, passwords.
fn prepare(site: &mut Site, name: &str) -> Result<()> {
    site.prepare(name, &[name])?;
    let settings: Vec<_> = MODEST.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    site.configure(name, None, &settings)
}

/// What a killed server had begun is brought to its end before the keeper looks: that would start it on a Unix socket alone, and
/// there is none.
async fn recover(site: &Site, name: &str) -> Result<()> {
    let data = site.data(name);
    if site.is_standby(name) || !data.join("postmaster.pid").exists() {
        return Ok(());
    }
    let text = data.display().to_string();
    let args = ["--single", "-D", text.as_str(), "template1"];
    site.runner(name).run(&site.binaries.program("postgres")?, args).await.map(drop)
}

/// Registers the node; it becomes a copy of the primary, or the first one.
async fn create(site: &mut Site, name: &str) -> Result<()> {
    let (data, port, uri) = (data(site, name), site.port(name).to_string(), monitor_uri(site));
    let mut args = vec!["create", "postgres", "--pgdata", &data, "--pgport", &port, "--name", name, "--monitor", &uri];
    args.extend(
        "--pghost localhost --hostname localhost --listen localhost --username postgres --dbname postgres".split(' '),
    );
    let tls = tls(site, name);
    args.extend(tls.iter().map(String::as_str));
    autoctl(site, name, &args).await?;
    site.write(name, CREATED, "", 0o600)
}

async fn launch(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    if site.runs(name, KEEPER) {
        return Ok(());
    }
    prepare(site, name)?;
    recover(site, name).await?;
    progress(&format!("starting the keeper of {name}: PostgreSQL on port {}", site.port(name)));
    run(site, name)
}

fn run(site: &mut Site, name: &str) -> Result<()> {
    let args = vec!["run".to_owned(), "--pgdata".to_owned(), data(site, name)];
    let daemon = Daemon { name: KEEPER, program: "/usr/bin/pg_autoctl".into(), args, at_the_end: AtTheEnd::Terminate };
    let port = site.port(name);
    site.start(name, &daemon, &[port])
}

async fn wait_until_part(site: &mut Site, name: &str) -> Result<()> {
    let takes_part = async |site: &Site| {
        let states = states(site).await;
        let settled = states.iter().any(|state| state.name == name && state.is_settled());
        settled && site.ask(site.port(name)).await.is_some_and(|said| !said.standby || said.streams)
    };
    site.wait_for((name, KEEPER), DEADLINE, &format!("{name} did not take part"), takes_part).await
}

async fn autoctl(site: &Site, name: &str, args: &[&str]) -> Result<String> {
    site.runner(name).run("/usr/bin/pg_autoctl".as_ref(), args).await.map_err(|error| match error {
        Error::Command { program, output } => {
            let what = args.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            Error::Command { program: format!("{program} {what}"), output }
        }
        other => other,
    })
}

/// The lab writes `pg_hba.conf` itself: what the extension would write there is `trust`.
fn tls(site: &Site, name: &str) -> Vec<String> {
    let file = |file: &str| site.home(name).join(file).display().to_string();
    let words = ["--skip-pg-hba", "--ssl-mode", "verify-full", "--ssl-ca-file"].map(str::to_owned);
    let files =
        [file("ca.crt"), "--server-cert".to_owned(), file("server.crt"), "--server-key".to_owned(), file("server.key")];
    words.into_iter().chain(files).collect()
}

fn data(site: &Site, name: &str) -> String {
    site.data(name).display().to_string()
}
