//! Patroni on each node, and one etcd that they agree through.

use std::time::Duration;

use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::converge::Progress;
use crate::error::Result;
use crate::ha::processes;
use crate::ha::server::{REPLICATOR, START_DEADLINE, WAL_KEEP};
use crate::ha::site::{Daemon, SUPERUSER, Site};
use crate::ha::status::{LabRole, Told};
use crate::process::AtTheEnd;

const ETCD: &str = "etcd";
const PATRONI: &str = "patroni";
/// Of etcd, and of a node that has its data; a copy takes longer.
const DEADLINE: Duration = Duration::from_secs(120);
/// A leader that is gone is noticed when its key ends. Patroni's own setting is 30 s.
const TTL_SECONDS: u64 = 6;
/// Two of them and the pause between two looks are not to be longer than the key lasts.
const RETRY_SECONDS: u64 = 2;
const LOOP_SECONDS: u64 = 2;

/// The first node makes the cluster; the others copy it. One that was made starts as a whole, since not every node may become the
/// leader: with synchronous replication only those that have everything may.
pub(crate) async fn up(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    start_etcd(site, progress).await?;
    let nodes = site.nodes();
    if let Some(first) = nodes.first().filter(|_| !nodes.iter().any(|name| site.has_data(name))) {
        launch(site, first, progress)?;
        wait_until_part(site, first).await?;
    }
    for name in &nodes {
        launch(site, name, progress)?;
    }
    for name in &nodes {
        wait_until_part(site, name).await?;
    }
    wait_until_one_may_follow(site).await
}

/// Patroni itself rewinds or copies.
pub(crate) async fn start(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    start_etcd(site, progress).await?;
    launch(site, name, progress)?;
    wait_until_part(site, name).await?;
    wait_until_one_may_follow(site).await
}

/// Has each Patroni take the passwords that are now.
pub(crate) async fn reload(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    for name in site.nodes().into_iter().filter(|name| site.runs(name, PATRONI)).collect::<Vec<_>>() {
        progress(&format!("Patroni of {name} reads its configuration again"));
        site.write(&name, "patroni.yml", &configuration(site, &name).to_string(), 0o600)?;
        processes::reload(&site.home(&name), PATRONI);
        wait_until_part(site, &name).await?;
    }
    Ok(())
}

/// As a running Patroni's `/cluster` says it.
pub(crate) async fn told(site: &Site) -> Vec<Told> {
    let members = members(site).await;
    let told = |name: String| {
        let member = members.iter().find(|member| member.name == name);
        let Some(Member { role, state, .. }) = member.filter(|_| site.runs(&name, PATRONI)) else {
            return Told { name, role: LabRole::Down, words: "Patroni does not run".to_owned() };
        };
        let running = matches!(state.as_str(), "running" | "streaming");
        let is = match role.as_str() {
            _ if !running => LabRole::Changing,
            "leader" => LabRole::Primary,
            _ => LabRole::Standby,
        };
        Told { name, role: is, words: format!("{role}, {state}") }
    };
    site.nodes().into_iter().map(told).collect()
}

/// REST API of each node.
pub(crate) fn urls(site: &Site) -> Vec<String> {
    site.nodes().iter().map(|name| url(site, name)).collect()
}

pub(crate) fn etcd_url(site: &Site) -> String {
    format!("https://localhost:{}", site.port(ETCD))
}

#[derive(Deserialize)]
struct Cluster {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    role: String,
    state: String,
}

async fn start_etcd(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    site.prepare(ETCD, &[ETCD, "etcd/peer"])?;
    if !site.runs(ETCD, ETCD) {
        progress(&format!("starting etcd on port {}", site.port(ETCD)));
    }
    let (port, peer) = (site.port(ETCD), site.port("etcd/peer"));
    let file = |name: &str| site.home(ETCD).join(name).display().to_string();
    let mut args = vec![
        format!("--data-dir={}", file("data")),
        "--name=default".to_owned(),
        format!("--listen-client-urls=https://127.0.0.1:{port}"),
        format!("--advertise-client-urls={}", etcd_url(site)),
        format!("--cert-file={}", file("server.crt")),
        format!("--key-file={}", file("server.key")),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
        "--logger=zap".to_owned(),
        "--log-outputs=stderr".to_owned(),
    ];
    args.extend((!site.state.fsync).then(|| "--unsafe-no-fsync".to_owned()));
    let daemon = Daemon { name: ETCD, program: "/usr/bin/etcd".into(), args, at_the_end: AtTheEnd::Kill };
    site.start(ETCD, &daemon, &[port, peer])?;
    let client = site.http(PATRONI)?;
    let answers = async |site: &Site| {
        let answer = client.get(format!("{}/health", etcd_url(site))).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    };
    site.wait_for((ETCD, ETCD), START_DEADLINE, "etcd was not ready", answers).await
}

fn launch(site: &mut Site, name: &str, progress: Progress<'_>) -> Result<()> {
    let rest = rest(name);
    site.prepare(name, &[name, &rest])?;
    if site.runs(name, PATRONI) {
        return Ok(());
    }
    progress(&format!(
        "starting Patroni of {name}: PostgreSQL on port {}, REST on {}",
        site.port(name),
        site.port(&rest)
    ));
    let text = configuration(site, name).to_string();
    // JSON is YAML, too.
    site.write(name, "patroni.yml", &text, 0o600)?;
    let args = vec!["/usr/bin/patroni".to_owned(), site.home(name).join("patroni.yml").display().to_string()];
    let daemon = Daemon { name: PATRONI, program: "/usr/bin/python3".into(), args, at_the_end: AtTheEnd::Terminate };
    site.start(name, &daemon, &[site.port(name), site.port(&rest)])
}

async fn wait_until_part(site: &mut Site, name: &str) -> Result<()> {
    let takes_part = async |site: &Site| {
        let members = members(site).await;
        let me = members.iter().find(|member| member.name == name);
        let state = me.is_some_and(|me| matches!(me.state.as_str(), "running" | "streaming"));
        match site.ask(site.port(name)).await {
            Some(said) => state && (!said.standby || said.streams),
            None => false,
        }
    };
    site.wait_for((name, PATRONI), DEADLINE, &format!("{name} did not take part"), takes_part).await
}

/// Until the leader has named a synchronous standby, which takes a round or two, nobody may take its place.
async fn wait_until_one_may_follow(site: &mut Site) -> Result<()> {
    let Some(name) = site.nodes().into_iter().find(|name| site.runs(name, PATRONI)) else { return Ok(()) };
    let named = async |site: &Site| {
        let members = members(site).await;
        let running = members.iter().filter(|member| matches!(member.state.as_str(), "running" | "streaming")).count();
        running < 2 || members.iter().any(|member| member.role == "sync_standby")
    };
    site.wait_for((&name, PATRONI), DEADLINE, "no standby became a synchronous one", named).await
}

async fn members(site: &Site) -> Vec<Member> {
    let Ok(client) = site.http(PATRONI) else { return Vec::new() };
    for name in site.nodes().into_iter().filter(|name| site.runs(name, PATRONI)) {
        let answer = client.get(format!("{}/cluster", url(site, &name))).send().await;
        if let Ok(answer) = answer
            && let Ok(Cluster { members }) = answer.json().await
        {
            return members;
        }
    }
    Vec::new()
}

/// The port of its REST API.
pub(crate) fn rest(name: &str) -> String {
    format!("{name}/rest")
}

fn url(site: &Site, name: &str) -> String {
    format!("https://localhost:{}", site.port(&rest(name)))
}

/// Everything that Patroni is told; what is under `bootstrap` counts only when the cluster is made.
fn configuration(site: &Site, name: &str) -> Value {
    let home = site.home(name);
    let file = |file: &str| home.join(file).display().to_string();
    let (port, rest) = (site.port(name), site.port(&rest(name)));
    let (password, replication) = (site.password.expose_secret(), site.replication.expose_secret());
    let login = |user: &str, password: &str| json!({ "username": user, "password": password, "sslmode": "verify-full", "sslrootcert": file("ca.crt") });
    let mut initdb = vec![json!({"encoding": "UTF8"}), json!({"locale": "C.UTF-8"}), json!("data-checksums")];
    initdb.extend([json!({"auth-host": "scram-sha-256"}), json!({"auth-local": "scram-sha-256"})]);
    let hba: Vec<String> = crate::config::hba(&[REPLICATOR]).lines().map(str::to_owned).collect();
    json!({
        "scope": "lab",
        "name": name,
        "restapi": {
            "listen": format!("127.0.0.1:{rest}"),
            "connect_address": format!("localhost:{rest}"),
            "certfile": file("server.crt"),
            "keyfile": file("server.key"),
            "authentication": { "username": SUPERUSER, "password": password },
        },
        "ctl": { "cacert": file("ca.crt") },
        "etcd3": { "hosts": [format!("localhost:{}", site.port(ETCD))], "protocol": "https", "cacert": file("ca.crt") },
        "bootstrap": {
            "dcs": {
                "ttl": TTL_SECONDS,
                "loop_wait": LOOP_SECONDS,
                "retry_timeout": RETRY_SECONDS,
                "synchronous_mode": true,
                "postgresql": {
                    "use_pg_rewind": true,
                    "use_slots": true,
                    // Of a node's own parameters it does not take this one.
                    "parameters": { "wal_keep_size": WAL_KEEP },
                },
            },
            "initdb": initdb,
        },
        "postgresql": {
            "listen": format!("localhost:{port}"),
            "connect_address": format!("localhost:{port}"),
            "data_dir": site.data(name).display().to_string(),
            "bin_dir": site.binaries.dir().display().to_string(),
            "pgpass": file("pgpass.patroni"),
            "use_unix_socket": false,
            "use_unix_socket_repl": false,
            "remove_data_directory_on_rewind_failure": true,
            "remove_data_directory_on_diverged_timelines": true,
            "authentication": {
                "superuser": login(SUPERUSER, password),
                "replication": login(REPLICATOR, replication),
                "rewind": login(SUPERUSER, password),
            },
            "pg_hba": hba,
            "parameters": parameters(site, &file),
        },
    })
}

fn parameters(site: &Site, file: &dyn Fn(&str) -> String) -> Value {
    json!({
        "unix_socket_directories": "",
        "dynamic_shared_memory_type": "mmap",
        "ssl": "on",
        "ssl_cert_file": file("server.crt"),
        "ssl_key_file": file("server.key"),
        "ssl_ca_file": file("ca.crt"),
        "password_encryption": "scram-sha-256",
        "max_slot_wal_keep_size": "1GB",
        "fsync": if site.state.fsync { "on" } else { "off" },
        "logging_collector": "on",
        "log_directory": file("log"),
        "log_filename": "postgresql-%H.log",
        "log_rotation_age": "1h",
        "log_rotation_size": 0,
        "log_truncate_on_rotation": "on",
    })
}
