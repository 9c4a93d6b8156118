//! pgpool-II in front of nodes that repmgr keeps: clients have one endpoint, which is always the primary.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::time::timeout;

use crate::config::quote;
use crate::converge::Progress;
use crate::error::{Error, Result};
use crate::files;
use crate::ha::processes;
use crate::ha::repmgr::{self, DEADLINE};
use crate::ha::server::POSTGRES;
use crate::ha::site::{Daemon, Site};
use crate::process::AtTheEnd;

/// The program, its folder, and the login by which it looks at the nodes.
pub(crate) const PGPOOL: &str = "pgpool";
/// The other login, with which it changes by turns.
const OTHER: &str = "pgpool_b";
/// It reads `pg_stat_replication`, and nothing of anybody.
const PRIVILEGE: &str = "pg_monitor";
const PCP: &str = "pgpool/pcp";
const CONF: &str = "pgpool.conf";
const ASK_DEADLINE: Duration = Duration::from_secs(5);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Who comes in without TLS is refused before a password is asked for. pgpool needs the password itself to log in with it: so
/// nothing is kept there that would have to follow every login that comes and goes.
const HBA: &str = "hostssl all all 127.0.0.1/32 password\nhostssl all all ::1/128 password\n";

/// The nodes, then pgpool.
pub(crate) async fn up(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    repmgr::up(site, progress).await?;
    start_pgpool(site, progress).await?;
    for name in site.nodes() {
        wait_until_attached(site, &name).await?;
    }
    Ok(())
}

/// The node is in use again when pgpool has taken it back.
pub(crate) async fn start(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    repmgr::start(site, name, progress).await?;
    if site.primary().await.is_none() {
        return Ok(());
    }
    start_pgpool(site, progress).await?;
    wait_until_attached(site, name).await
}

async fn start_pgpool(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    site.prepare(PGPOOL, &[PGPOOL, PCP])?;
    let text = configuration(site)?;
    let known = files::read_if_there(&site.home(PGPOOL).join(CONF))?;
    if site.runs(PGPOOL, PGPOOL) && known.as_ref() == Some(&text) {
        return Ok(());
    }
    // A node can be added to a running pgpool, and never be taken away.
    processes::stop(&site.home(PGPOOL), &[PGPOOL], STOP_PATIENCE).await?;
    let primary = site.primary().await.ok_or_else(no_primary)?;
    let login = login(site);
    make_login(site, &primary, login).await?;
    let port = site.port(PGPOOL);
    progress(&format!("starting pgpool on port {port}"));
    site.write(PGPOOL, "pool_hba.conf", HBA, 0o600)?;
    // Empty: nobody may give it orders over PCP, and it looks up no password.
    site.write(PGPOOL, "pcp.conf", "", 0o600)?;
    site.write(PGPOOL, "pool_passwd", "", 0o600)?;
    site.write(PGPOOL, CONF, &text, 0o600)?;
    let file = |name: &str| site.home(PGPOOL).join(name).display().to_string();
    let words = ["-f", &file(CONF), "-a", &file("pool_hba.conf"), "-F", &file("pcp.conf"), "-n", "-D"];
    let args = words.map(str::to_owned).to_vec();
    let daemon = Daemon { name: PGPOOL, program: "/usr/sbin/pgpool".into(), args, at_the_end: AtTheEnd::Interrupt };
    site.start(PGPOOL, &daemon, &[port, site.port(PCP)])?;
    let writable = async |site: &Site| site.ask(port).await.is_some_and(|said| !said.standby);
    site.wait_for((PGPOOL, PGPOOL), DEADLINE, "pgpool did not lead to the primary", writable).await
}

/// It takes a node back by itself, when it sees that streams.
async fn wait_until_attached(site: &mut Site, name: &str) -> Result<()> {
    let port = site.port(name).to_string();
    let attached = async |site: &Site| {
        let nodes = timeout(ASK_DEADLINE, pool_nodes(site)).await;
        nodes.is_ok_and(|nodes| nodes.unwrap_or_default().iter().any(|(node, status)| *node == port && status == "up"))
    };
    site.wait_for((PGPOOL, PGPOOL), DEADLINE, &format!("pgpool did not take {name} back"), attached).await
}

/// Port and status of each, as pgpool sees them.
async fn pool_nodes(site: &Site) -> sqlx::Result<Vec<(String, String)>> {
    let mut connection = site.login(site.port(PGPOOL)).connect().await?;
    let rows = sqlx::raw_sql("SHOW pool_nodes").fetch_all(&mut connection).await?;
    connection.close().await?;
    rows.iter().map(|row| Ok((row.try_get("port")?, row.try_get("status")?))).collect()
}

fn login(site: &Site) -> &'static str {
    if site.state.pgpool_login.as_deref() == Some(OTHER) { OTHER } else { PGPOOL }
}

async fn make_login(site: &Site, primary: &str, login: &str) -> Result<()> {
    site.set_login(primary, login, "", &site.secret(login)?).await?;
    site.execute(primary, format!("GRANT {PRIVILEGE} TO {login}")).await?;
    // Whoever attaches the nodes may take it from PUBLIC.
    site.execute(primary, format!("GRANT CONNECT ON DATABASE postgres TO {login}")).await
}

/// By turns, since a node at which pgpool can not log in is a dead one to it: a changed password would take out all of them.
pub(crate) async fn rotate(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    // What an interrupted one has left undone.
    start_pgpool(site, progress).await?;
    let before = login(site);
    let next = if before == PGPOOL { OTHER } else { PGPOOL };
    let primary = site.primary().await.ok_or_else(no_primary)?;
    site.forget_secret(next)?;
    make_login(site, &primary, next).await?;
    for name in site.nodes().into_iter().filter(|name| site.runs(name, POSTGRES)).collect::<Vec<_>>() {
        let options = site.login(site.port(&name)).username(next).password(site.secret(next)?.expose_secret());
        // Standbys get to know it a little later.
        let let_in = async |_: &Site| {
            let attempt = timeout(ASK_DEADLINE, async { options.connect().await?.close().await }).await;
            matches!(attempt, Ok(Ok(())))
        };
        site.wait_for((&name, POSTGRES), DEADLINE, &format!("{name} did not let {next} in"), let_in).await?;
    }
    site.state.pgpool_login = Some(next.to_owned());
    site.state.write(&site.dir)?;
    site.write(PGPOOL, CONF, &configuration(site)?, 0o600)?;
    progress(&format!("pgpool looks with login {next} now"));
    wait_until_reloaded(site).await?;
    site.execute(&primary, format!("DROP OWNED BY {before}")).await?;
    site.execute(&primary, format!("DROP ROLE {before}")).await?;
    site.forget_secret(before)
}

/// Until each of its processes that log in somewhere has said that it has read the configuration again.
async fn wait_until_reloaded(site: &mut Site) -> Result<()> {
    let log = site.log_file(PGPOOL, PGPOOL);
    let before = fs::read(&log).unwrap_or_default().len();
    processes::reload(&site.home(PGPOOL), PGPOOL);
    let reloaded = async |site: &Site| {
        let text = fs::read(&log).unwrap_or_default();
        let since = String::from_utf8_lossy(text.get(before..).unwrap_or_default()).into_owned();
        let said = |who: &str| {
            let mut lines = since.lines().filter(|line| line.contains("LOG:  reloading config file"));
            lines.any(|line| line.contains(&format!(": {who} pid ")))
        };
        let mut checks = (0..site.nodes().len()).map(|number| format!("health_check{number}"));
        checks.all(|check| said(&check)) && said("sr_check_worker")
    };
    site.wait_for((PGPOOL, PGPOOL), DEADLINE, "pgpool did not read its configuration again", reloaded).await
}

fn no_primary() -> Error {
    Error::Unsuited {
        what: "pgpool has no primary to look for".to_owned(),
        instead: "`pgtenant lab up` brings it back".to_owned(),
    }
}

/// What differs from pgpool's own settings has its reason in `docs/lab.md`.
fn configuration(site: &Site) -> Result<String> {
    let login = login(site);
    let password = site.secret(login)?;
    let home = site.home(PGPOOL);
    let file = |name: &str| quote(&home.join(name).to_string_lossy());
    let mut text = format!(
        "# Written at each start; changes are lost.
backend_clustering_mode = 'streaming_replication'
listen_addresses = 'localhost'
port = {port}
unix_socket_directories = ''
pcp_listen_addresses = 'localhost'
pcp_port = {pcp}
pcp_socket_dir = {dir}
wd_ipc_socket_dir = {dir}
work_dir = {dir}
logdir = {dir}
pid_file_name = {pid}
log_destination = 'stderr'
num_init_children = 64
# It asks for 64 MB of shared memory otherwise, for a cache that is off.
memqcache_total_size = 1MB
memqcache_max_num_cache = 1000

ssl = on
ssl_cert = {certificate}
ssl_key = {key}
ssl_ca_cert = {authority}
enable_pool_hba = on
pool_passwd = 'pool_passwd'
allow_clear_text_frontend_auth = on

# A kept session is given to whoever has the password of the time when it began, and to nobody else.
connection_cache = off
max_pool = 1
# What a client has written, it reads.
load_balance_mode = off

# Ended sessions are not taken for a server that is shut down.
failover_on_backend_shutdown = off
failover_on_backend_error = off
search_primary_node_timeout = 0
auto_failback = on
auto_failback_interval = 1
connect_timeout = 2000
health_check_period = 1
health_check_timeout = 3
health_check_max_retries = 1
health_check_retry_delay = 1
health_check_database = 'postgres'
health_check_user = '{login}'
health_check_password = {password}
sr_check_period = 1
sr_check_database = 'postgres'
sr_check_user = '{login}'
sr_check_password = {password}
",
        port = site.port(PGPOOL),
        pcp = site.port(PCP),
        dir = quote(&home.to_string_lossy()),
        pid = file("pgpool.pid"),
        certificate = file("server.crt"),
        key = file("server.key"),
        authority = file("ca.crt"),
        password = quote(password.expose_secret()),
    );
    for (number, name) in site.nodes().iter().enumerate() {
        let port = site.port(name);
        let _ = write!(
            text,
            "
backend_hostname{number} = 'localhost'
backend_port{number} = {port}
backend_weight{number} = 1
backend_flag{number} = 'ALLOW_TO_FAILOVER'
backend_application_name{number} = '{name}'
"
        );
    }
    Ok(text)
}
