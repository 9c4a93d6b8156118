//! HAProxy in front of nodes that repmgr keeps, with a health service on each node: one address for writes, one for reads.
//!
//! Where a lab of another kind has a pooler, that has the same in front of its nodes: a pooler needs one address.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use crate::converge::Progress;
use crate::error::{Error, Result};
use crate::files;
use crate::ha::keepalived;
use crate::ha::kind::LabKind;
use crate::ha::patroni;
use crate::ha::processes;
use crate::ha::repmgr::{self, DEADLINE};
use crate::ha::server::POSTGRES;
use crate::ha::site::{Daemon, Site};
use crate::process::AtTheEnd;

/// The program, its folder, and its port for writes.
pub(crate) const HAPROXY: &str = "haproxy";
/// Its port for reads.
pub(crate) const READ: &str = "haproxy/read";
/// The service of each node, and its login, which has no privilege.
pub(crate) const HEALTH: &str = "health";
const CONF: &str = "haproxy.cfg";
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// The nodes, then what tells their roles, then HAProxy.
pub(crate) async fn up(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    // What is missing is said before anything is started.
    health_program(site)?;
    repmgr::up(site, progress).await?;
    start_front(site, progress).await
}

/// What tells the roles of nodes that run, and HAProxy.
pub(crate) async fn start_front(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    for name in site.nodes() {
        start_health(site, &name, progress).await?;
    }
    start_haproxy(site, progress).await
}

/// The node is in use again when HAProxy has seen it.
pub(crate) async fn start(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    repmgr::start(site, name, progress).await?;
    rejoin_front(site, name, progress).await
}

/// A node that was started is in use again.
pub(crate) async fn rejoin_front(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    start_health(site, name, progress).await?;
    if site.primary().await.is_none() {
        return Ok(());
    }
    start_haproxy(site, progress).await
}

/// The health service of a node.
pub(crate) fn health_url(site: &Site, name: &str) -> String {
    format!("http://localhost:{}", site.port(&health_port(name)))
}

/// Where HAProxy shows what it sees.
pub(crate) fn stats_url(site: &Site, home: &str) -> String {
    format!("http://localhost:{}", site.port(&stats_port(home)))
}

fn health_port(name: &str) -> String {
    format!("{name}/health")
}

/// pgtenant itself, where the servers' user can run it.
fn health_program(site: &Site) -> Result<PathBuf> {
    let program = site.state.health_program.clone().filter(|program| program.is_file());
    let program = program.ok_or_else(|| Error::Unsuited {
        what: "this kind of lab needs the program `pgtenant` for `pgtenant health`".to_owned(),
        instead: "start it again with `pgtenant lab up`, which brings itself".to_owned(),
    })?;
    site.in_reach(&program, "pgtenant", site.homes())
}

/// One after the other, each with the password that is now: HAProxy asks twice before it takes a node out.
pub(crate) async fn restart_health(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    for name in site.nodes().into_iter().filter(|name| site.runs(name, HEALTH)).collect::<Vec<_>>() {
        processes::stop(&site.home(&name), &[HEALTH], STOP_PATIENCE).await?;
        start_health(site, &name, progress).await?;
    }
    Ok(())
}

/// Patroni itself answers for a node's health.
async fn start_health(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    if site.state.kind == LabKind::Patroni {
        return Ok(());
    }
    let port = health_port(name);
    site.prepare(name, &[name, &port])?;
    let port = site.port(&port);
    if !site.runs(name, HEALTH) {
        if let Some(primary) = site.primary().await {
            site.set_login(&primary, HEALTH, "", &site.secret(HEALTH)?).await?;
            // Whoever attaches the nodes may take it from PUBLIC.
            site.execute(&primary, format!("GRANT CONNECT ON DATABASE postgres TO {HEALTH}")).await?;
        }
        progress(&format!("starting the health service of {name} on port {port}"));
    }
    let password_file = site.home(name).join("health.password").display().to_string();
    site.write(name, "health.password", site.secret(HEALTH)?.expose_secret(), 0o600)?;
    // TLS comes from the environment.
    let dsn = format!("postgresql://{HEALTH}@localhost:{}/postgres?sslmode=verify-full", site.port(name));
    let listen = format!("127.0.0.1:{port}");
    let args = [HEALTH, "--listen", &listen, "--dsn", &dsn, "--password-file", &password_file];
    let args = args.map(str::to_owned).to_vec();
    let daemon = Daemon { name: HEALTH, program: health_program(site)?, args, at_the_end: AtTheEnd::Terminate };
    site.start(name, &daemon, &[port])?;
    let client = site.http(HEALTH)?;
    let answers = async |site: &Site| {
        let answer = client.get(format!("{}/health", health_url(site, name))).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    };
    site.wait_for((name, HEALTH), DEADLINE, &format!("the health service of {name} did not answer"), answers).await
}

/// It runs when this returns, and has found the primary.
pub(crate) async fn start_haproxy(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    if keepalived::address(site).is_some() {
        return keepalived::up(site, progress).await;
    }
    site.prepare(HAPROXY, &[HAPROXY, READ, &stats_port(HAPROXY)])?;
    let ports = [HAPROXY, READ, &stats_port(HAPROXY)].map(|port| site.port(port));
    if !is_up_to_date(site, HAPROXY)? {
        progress(&format!("starting HAProxy: writes on port {}, reads on {}", ports[0], ports[1]));
        let daemon = prepare_start(site, HAPROXY).await?;
        site.start(HAPROXY, &daemon, &ports)?;
    }
    wait_until_settled(site, HAPROXY).await
}

/// Whether it runs with the configuration that it should have.
pub(crate) fn is_up_to_date(site: &Site, home: &str) -> Result<bool> {
    let known = files::read_if_there(&site.home(home).join(CONF))?;
    Ok(site.runs(home, HAPROXY) && known.as_ref() == Some(&configuration(site, home)))
}

/// Ends what runs, and writes the configuration that it is to be started with.
pub(crate) async fn prepare_start(site: &Site, home: &str) -> Result<Daemon> {
    processes::stop(&site.home(home), &[HAPROXY], STOP_PATIENCE).await?;
    site.write(home, CONF, &configuration(site, home), 0o600)?;
    let args = vec!["-db".to_owned(), "-f".to_owned(), site.home(home).join(CONF).display().to_string()];
    Ok(Daemon { name: HAPROXY, program: "/usr/sbin/haproxy".into(), args, at_the_end: AtTheEnd::Terminate })
}

/// Until it has asked each server that runs.
pub(crate) async fn wait_until_settled(site: &mut Site, home: &str) -> Result<()> {
    let client = site.http(HAPROXY)?;
    let settled = async |site: &Site| {
        let running: Vec<String> = site.nodes().into_iter().filter(|name| site.runs(name, POSTGRES)).collect();
        let answer = async { client.get(format!("{}/;csv", stats_url(site, home))).send().await?.text().await }.await;
        answer.is_ok_and(|text| is_settled(&text, &running))
    };
    site.wait_for((home, HAPROXY), DEADLINE, "HAProxy did not find one primary, and else standbys", settled).await
}

/// Where writes go; the servers' certificates name it.
pub(crate) fn address(site: &Site) -> (String, u16) {
    match keepalived::address(site) {
        Some(address) => (address.to_string(), keepalived::WRITE),
        None => ("127.0.0.1".to_owned(), site.port(HAPROXY)),
    }
}

/// Folders of each HAProxy.
pub(crate) fn homes(site: &Site) -> Vec<&'static str> {
    if keepalived::address(site).is_some() { keepalived::MACHINES.to_vec() } else { vec![HAPROXY] }
}

/// Of the port where it tells what it sees.
pub(crate) fn stats_port(home: &str) -> String {
    format!("{home}/stats")
}

/// Servers count as up until their first check has ended. The lines are of each server in each of the two proxies.
fn is_settled(csv: &str, nodes: &[String]) -> bool {
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
    let at = |name: &str| names.iter().position(|known| *known == name).unwrap_or(usize::MAX);
    let (proxy, server, status, check) = (at("pxname"), at("svname"), at("status"), at("check_status"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let up = |of: &str, node: &String| {
        let row = rows.iter().find(|row| row.get(proxy) == Some(&of) && row.get(server) == Some(&node.as_str()))?;
        let checked = row.get(check).is_some_and(|check| !matches!(*check, "" | "INI"));
        checked.then(|| row.get(status).is_some_and(|status| *status == "UP"))
    };
    let roles: Option<Vec<(bool, bool)>> =
        nodes.iter().map(|node| Some((up("write", node)?, up("read", node)?))).collect();
    roles.is_some_and(|roles| {
        roles.iter().filter(|(write, _)| *write).count() == 1 && roles.iter().all(|(write, read)| write != read)
    })
}

/// TLS is the servers' own: HAProxy passes it through. What it is told has its reason in `docs/lab.md`.
fn configuration(site: &Site, home: &str) -> String {
    let stats = site.port(&stats_port(home));
    let own = keepalived::own(site, home);
    let (write, read) = match &own {
        Some(own) => (own.bind(keepalived::WRITE), own.bind(keepalived::READ)),
        None => (format!("127.0.0.1:{}", site.port(HAPROXY)), format!("127.0.0.1:{}", site.port(READ))),
    };
    let (global, alive) = own.map(|own| (own.global, own.alive)).unwrap_or_default();
    let mut text = format!(
        "# Written at each start; changes are lost.
global
    maxconn 400
{global}
defaults
    mode tcp
    timeout connect 2s
    timeout check 3s
    # Sessions may rest; peers that are gone are noticed by keepalives.
    timeout client 24h
    timeout server 24h
    option clitcpka
    option srvtcpka

listen stats
    bind 127.0.0.1:{stats}
    mode http
    timeout client 10s
    stats enable
    stats uri /
{alive}"
    );
    // With `first`, writes go to one node even if two were writable.
    let patroni = site.state.kind == LabKind::Patroni;
    let standby = if patroni { "replica" } else { "standby" };
    let tls = if patroni { format!(" {}", tls(site)) } else { String::new() };
    for (name, bind, balance, path) in [("write", write, "first", "primary"), ("read", read, "leastconn", standby)] {
        let _ = write!(
            text,
            "
listen {name}
    bind {bind}
    balance {balance}
    option httpchk OPTIONS /{path}
    http-check expect status 200
    default-server check inter 1s fall 2 rise 1 on-marked-down shutdown-sessions{tls}
"
        );
        for node in site.nodes() {
            let health = if patroni { patroni::rest(&node) } else { health_port(&node) };
            let (port, health) = (site.port(&node), site.port(&health));
            let _ = writeln!(text, "    server {node} 127.0.0.1:{port} port {health}");
        }
    }
    text
}

/// Patroni is asked over TLS alone.
fn tls(site: &Site) -> String {
    let authority = site.home(HAPROXY).join("ca.crt");
    format!("check-ssl verify required verifyhost localhost check-sni localhost ca-file \"{}\"", authority.display())
}

#[cfg(test)]
mod tests {
    use super::is_settled;

    #[test]
    fn a_server_that_was_not_asked_yet_is_not_taken_for_one_that_is_well() {
        let csv = |rows: &[(&str, &str, &str, &str)]| {
            let line = |(proxy, server, status, check): &(&str, &str, &str, &str)| {
                format!("{proxy},{server},0,{status},1,{check},\n")
            };
            let head = "# pxname,svname,qcur,status,weight,check_status,\n".to_owned();
            head + &rows.iter().map(line).collect::<String>()
        };
        let nodes = ["node-1".to_owned(), "node-2".to_owned()];
        let well = [
            ("write", "node-1", "UP", "L7OK"),
            ("write", "node-2", "DOWN", "L7STS"),
            ("write", "BACKEND", "UP", ""),
            ("read", "node-1", "DOWN", "L7STS"),
            ("read", "node-2", "UP", "L7OK"),
        ];
        assert!(is_settled(&csv(&well), &nodes));
        let mut begun = well;
        begun[1] = ("write", "node-2", "UP", "INI");
        assert!(!is_settled(&csv(&begun), &nodes));
        let mut two = well;
        two[1] = ("write", "node-2", "UP", "L7OK");
        assert!(!is_settled(&csv(&two), &nodes));
        assert!(!is_settled(&csv(&well[..4]), &nodes));
        assert!(!is_settled("", &nodes));
    }
}
