//! repmgr: repmgrd on each node promotes a standby when the primary is gone.

use std::time::Duration;

use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;

use crate::converge::Progress;
use crate::error::Result;
use crate::files;
use crate::ha::processes;
use crate::ha::server::{POSTGRES, bounded};
use crate::ha::site::{ASK_DEADLINE, Daemon, Lifetime, Site};
use crate::ha::status::{LabRole, Told};
use crate::ha::streaming;
use crate::process::AtTheEnd;

const REPMGRD: &str = "repmgrd";
/// Login and database of repmgr; it wants a superuser.
const REPMGR: &str = "repmgr";
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// The primary first; the others follow it.
pub(crate) async fn up(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    if site.primary().await.is_none() {
        let best = streaming::newest(site).await?;
        start_primary(site, &best, progress).await?;
    }
    for name in site.nodes() {
        start(site, &name, progress).await?;
    }
    Ok(())
}

/// Beside a running primary it follows that, as `repmgr node rejoin` or `standby clone` does it.
pub(crate) async fn start(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    match site.primary().await {
        Some(primary) if primary != name => follow(site, name, &primary, progress).await?,
        Some(_) => {}
        None => start_primary(site, name, progress).await?,
    }
    start_repmgrd(site, name, progress).await
}

/// The other nodes' tables are told that it is gone.
pub(crate) async fn forget(site: &mut Site, name: &str) -> Result<()> {
    let Some(primary) = site.primary().await else { return Ok(()) };
    let id = format!("--node-id={}", id(name));
    repmgr(site, &primary, &["standby", "unregister", &id]).await?;
    let slot = format!("repmgr_slot_{}", self::id(name));
    let sql = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT active"
    );
    site.execute(&primary, sql).await
}

/// As `repmgr cluster show` says it: `ID,AVAILABILITY,RECOVERY`.
pub(crate) async fn told(site: &Site) -> Vec<Told> {
    let mut shown = String::new();
    for name in site.nodes() {
        if site.runs(&name, POSTGRES) {
            // It fails where a node is dead, and prints all the same.
            shown = repmgr(site, &name, &["cluster", "show", "--csv"]).await.unwrap_or_else(|error| error.to_string());
            break;
        }
    }
    let told = |name: String| {
        let prefix = format!("{},", id(&name));
        let line = shown.lines().find_map(|line| line.trim().strip_prefix(&prefix));
        let role = match line {
            _ if !site.runs(&name, POSTGRES) => LabRole::Down,
            Some("0,0") => LabRole::Primary,
            Some("0,1") => LabRole::Standby,
            _ => LabRole::Changing,
        };
        Told { words: format!("cluster show: {}", line.unwrap_or("-")), name, role }
    };
    site.nodes().into_iter().map(told).collect()
}

async fn start_primary(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    prepare(site, name)?;
    if !site.has_data(name) {
        progress(&format!("creating PostgreSQL {} ({name})", site.binaries.version()));
        site.create(name).await?;
    }
    progress(&format!("starting {name} on port {}", site.port(name)));
    site.start_server(name).await?;
    if site.is_standby(name) {
        return Ok(());
    }
    site.set_login(name, REPMGR, "SUPERUSER REPLICATION", &site.replication).await?;
    if !has_database(site, name).await? {
        site.execute(name, format!("CREATE DATABASE {REPMGR} OWNER {REPMGR}")).await?;
    }
    repmgr(site, name, &["primary", "register", "--force"]).await.map(drop)
}

async fn has_database(site: &Site, name: &str) -> Result<bool> {
    let mut connection = site.connect(name).await?;
    let sql = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    bounded(name, sqlx::query_scalar(sql).bind(REPMGR).fetch_one(&mut connection)).await
}

async fn follow(site: &mut Site, name: &str, primary: &str, progress: Progress<'_>) -> Result<()> {
    prepare(site, name)?;
    if site.ask(site.port(name)).await.is_some_and(|said| said.standby && said.streams) {
        return Ok(());
    }
    processes::stop(&site.home(name), &[REPMGRD, POSTGRES], STOP_PATIENCE).await?;
    site.reap();
    wait_until_registered(site, primary).await?;
    if site.has_data(name) && !site.is_standby(name) {
        rejoin(site, name, primary, progress).await?;
    }
    if !site.has_data(name) {
        progress(&format!("copying {primary} to {name}"));
        let port = site.port(primary).to_string();
        let from =
            ["-h", "localhost", "-p", &port, "-U", REPMGR, "-d", REPMGR, "standby", "clone", "--fast-checkpoint"];
        repmgr(site, name, &from).await?;
    }
    progress(&format!("starting {name} on port {}", site.port(name)));
    site.start_server(name).await?;
    repmgr(site, name, &["standby", "register", "--force"]).await?;
    let port = site.port(name);
    let streams = async |site: &Site| site.ask(port).await.is_some_and(|said| said.streams);
    site.wait_for((name, POSTGRES), DEADLINE, &format!("{name} did not stream"), streams).await
}

/// Makes the past of a node that was the primary that of the one which is it now. Data of which that can not be made are removed.
async fn rejoin(site: &mut Site, name: &str, primary: &str, progress: Progress<'_>) -> Result<()> {
    progress(&format!("rejoining {name} to {primary}"));
    // Until its first checkpoint, what pg_rewind reads of a promoted server is of before the promotion.
    site.execute(primary, "CHECKPOINT".to_owned()).await?;
    let source = format!("{} dbname={REPMGR}", site.conninfo(name, primary, REPMGR));
    // Its own place is one in /tmp, which any other lab's node of this name would have, too.
    let archive = format!("--config-archive-dir={}", site.home(name).display());
    let rejoined = repmgr(site, name, &["node", "rejoin", "-d", &source, "--force-rewind", &archive]).await;
    if rejoined.is_err() || site.lifetime == Lifetime::Bound {
        // What repmgr starts would outlive this process.
        processes::stop(&site.home(name), &[POSTGRES], STOP_PATIENCE).await?;
    }
    if let Err(error) = rejoined {
        progress(&format!("{name} can not be rejoined: {error}"));
        files::remove_dir(&site.data(name))?;
    }
    Ok(())
}

/// A promoted server takes writes a moment before repmgr has written down that it is the primary.
async fn wait_until_registered(site: &mut Site, primary: &str) -> Result<()> {
    let port = site.port(primary);
    let sql = "SELECT EXISTS (SELECT FROM repmgr.nodes WHERE node_name = $1 AND type = 'primary' AND active)";
    let registered = async |site: &Site| {
        let asked = async {
            let mut connection = site.login(port).database(REPMGR).connect().await?;
            let known = sqlx::query_scalar::<_, bool>(sql).bind(primary).fetch_one(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(known)
        };
        timeout(ASK_DEADLINE, asked).await.is_ok_and(|known| known.unwrap_or(false))
    };
    site.wait_for((primary, POSTGRES), DEADLINE, &format!("repmgr did not register {primary} as primary"), registered)
        .await
}

fn prepare(site: &mut Site, name: &str) -> Result<()> {
    site.prepare(name, &[name])?;
    site.configure(name, None, &[("shared_preload_libraries", REPMGR.to_owned())])?;
    let text = configuration(site, name);
    site.write(name, "repmgr.conf", &text, 0o600)
}

async fn start_repmgrd(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    if site.runs(name, REPMGRD) {
        return Ok(());
    }
    progress(&format!("starting repmgrd of {name}"));
    let conf = site.home(name).join("repmgr.conf").display().to_string();
    let args = vec!["-f".to_owned(), conf, "--daemonize=false".to_owned(), "--no-pid-file".to_owned()];
    let program = site.binaries.dir().join(REPMGRD);
    site.start(name, &Daemon { name: REPMGRD, program, args, at_the_end: AtTheEnd::Terminate }, &[])
}

async fn repmgr(site: &Site, name: &str, args: &[&str]) -> Result<String> {
    let conf = site.home(name).join("repmgr.conf").display().to_string();
    let args = ["-f", &conf].into_iter().chain(args.iter().copied());
    site.runner(name).run(&site.binaries.dir().join(REPMGR), args).await
}

fn id(name: &str) -> &str {
    name.trim_start_matches("node-")
}

fn configuration(site: &Site, name: &str) -> String {
    let home = site.home(name).display().to_string();
    // TLS and password come from the environment, which is the server's, too.
    let port = site.port(name);
    let conninfo =
        format!("host=localhost port={port} user={REPMGR} dbname={REPMGR} connect_timeout=2 application_name={name}");
    let bin = site.binaries.dir().display();
    format!(
        "node_id={id}
node_name='{name}'
conninfo='{conninfo}'
data_directory='{home}/data'
pg_bindir='{bin}'
passfile='{home}/pgpass'
use_replication_slots=yes
failover=automatic
promote_command='{bin}/repmgr standby promote -f {home}/repmgr.conf'
follow_command='{bin}/repmgr standby follow -f {home}/repmgr.conf --upstream-node-id=%n'
monitor_interval_secs=1
reconnect_attempts=2
reconnect_interval=1
",
        id = id(name)
    )
}
