//! Clusters of each kind that a lab runs: attached, and followed through a failover.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use pgtenant_lab::{Binaries, Lab, LabKind, LabOptions, Lifetime};
use pgtenant_tests::{
    Api, Cli, Credential, Folder, PgBouncer, Place, Site, SiteOptions, binary, can, connect, eventually, measured,
    rows, run, run_within, superuser_sql, unique,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection};

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A lab that a control plane is attached to.
pub(crate) struct Cluster {
    pub(crate) lab: Lab,
    /// It outlives whoever has brought it up.
    detached: bool,
    _folder: Folder,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.detached {
            let dir = self.lab.dir().display().to_string();
            Cli::new().command(&["lab", "down", "--remove", "--yes", "--dir", &dir]).output().ok();
        }
    }
}

impl Cluster {
    pub(crate) async fn up(kind: LabKind) -> Self {
        Self::up_with(kind, false).await
    }

    /// With PgBouncer in front.
    async fn pooled(kind: LabKind) -> Self {
        let cluster = Self::up_with(kind, true).await;
        PgBouncer::prepare(&cluster.lab).await;
        cluster
    }

    async fn up_with(kind: LabKind, pgbouncer: bool) -> Self {
        let folder = Folder::new("topology");
        let binaries = Binaries::locate(None).unwrap_or_else(|error| panic!("{error}; run `.ci/postgres`"));
        let options = LabOptions::new(folder.join("lab"), kind, binaries);
        let health_program = Some(binary().to_path_buf());
        let options = LabOptions { lifetime: Lifetime::Bound, fsync: false, health_program, pgbouncer, ..options };
        let mut lab = Lab::create(options).unwrap();
        lab.up(|_| {}).await.unwrap();
        Self { lab, detached: false, _folder: folder }
    }

    /// Brought up by a command, so that nodes may be killed and started by others: PostgreSQL takes a process for running until its
    /// parent has taken note of its end.
    pub(crate) async fn detached(kind: LabKind) -> Self {
        Self::detached_with(kind, &[]).await
    }

    /// The same with further flags of the command.
    pub(crate) async fn detached_with(kind: LabKind, flags: &[&str]) -> Self {
        let folder = Folder::new("drill");
        let dir = folder.join("lab");
        let dir_name = dir.display().to_string();
        let up = ["lab", "up", "--topology", kind.name(), "--dir", &dir_name];
        run_within(Cli::new().command(&[&up[..], flags].concat()), PATIENCE).await.expect(0);
        let lab = Lab::open(&dir, Binaries::locate(None).unwrap(), Lifetime::Detached).unwrap();
        Self { lab, detached: true, _folder: folder }
    }

    /// As the topology names a node.
    pub(crate) fn host(&self, name: &str) -> String {
        let (_, port) = self.lab.nodes().into_iter().find(|(node, _)| node == name).unwrap();
        format!("localhost:{port}")
    }

    fn hosts(&self) -> Vec<String> {
        self.lab.nodes().iter().map(|(_, port)| format!("localhost:{port}")).collect()
    }

    /// A superuser, on the primary.
    pub(crate) async fn superuser(&self) -> PgConnectOptions {
        let primary = self.lab.primary().await.expect("a primary");
        let (_, port) = self.lab.nodes().into_iter().find(|(node, _)| *node == primary).unwrap();
        self.lab.login(port)
    }

    /// As the settings describe it. The tool's password is in the site's file `tool.password`.
    fn described(&self, site: &Site) -> String {
        let file = site.path().join("tool.password");
        let of_tool = |password: &SecretString| fs::write(&file, password.expose_secret()).unwrap();
        let (hosts, write) = (self.hosts(), self.lab.endpoints().write);
        let topology = match self.lab.kind() {
            LabKind::Streaming => format!("streaming = {{ hosts = {hosts:?} }}"),
            LabKind::Repmgr => format!("repmgr = {{ hosts = {hosts:?}, pgpool = {:?} }}", write[0]),
            LabKind::Haproxy => {
                // All nodes are on one host here, so the port is that of the first one's service.
                let (read, health) = (self.lab.endpoints().read, &self.lab.health_urls()[0]);
                let port = health.rsplit(':').next().unwrap();
                let [write, read] = [&write[0], &read[0]];
                format!("haproxy = {{ write = {write:?}, read = {read:?}, hosts = {hosts:?}, healthPort = {port} }}")
            }
            LabKind::Patroni => {
                of_tool(self.lab.password());
                let urls = self.lab.patroni_urls();
                format!("patroni = {{ urls = {urls:?}, username = \"postgres\", passwordFile = {file:?} }}")
            }
            LabKind::PgAutoFailover => {
                of_tool(self.lab.service_password());
                let monitor = self.lab.monitor_uri().unwrap();
                format!("pgAutoFailover = {{ monitor = {monitor:?}, passwordFile = {file:?} }}")
            }
        };
        let pool = self.lab.endpoints().pool.unwrap_or_default();
        let pool = pool.split_once(':').map(|(host, port)| format!("pgbouncer = {{ host = {host:?}, port = {port} }}"));
        format!("topology = {{ {topology} }}\n{}", pool.unwrap_or_default())
    }

    pub(crate) async fn place(&self) -> Place {
        Place { hosts: self.hosts(), ca: self.lab.ca_file(), superuser: self.superuser().await }
    }

    /// A control plane beside it.
    pub(crate) async fn site(&self) -> Site {
        self.site_with(SiteOptions::shared().await).await
    }

    /// The same with other options; its clusters are this one.
    pub(crate) async fn site_with(&self, options: SiteOptions) -> Site {
        let clusters = vec![("default".to_owned(), self.place().await)];
        let site = Site::new(SiteOptions { clusters, ..options }).await;
        let topology = self.described(&site);
        let text = fs::read_to_string(&site.config).unwrap();
        let line = |line| if str::starts_with(line, "topology = ") { topology.as_str() } else { line };
        fs::write(&site.config, text.lines().map(line).collect::<Vec<_>>().join("\n")).unwrap();
        site
    }

    /// An application runs this with the URI that it has, which may be that of a server that is gone.
    pub(crate) async fn psql(&self, credential: &Credential, sql: &str) -> Result<(), String> {
        let mut psql = Command::new("psql");
        psql.env("PGSSLROOTCERT", self.lab.ca_file()).env("PGCONNECT_TIMEOUT", "5");
        psql.args(["-qc", sql]).arg(&credential.uri);
        let ran = run(psql).await;
        if ran.status == 0 { Ok(()) } else { Err(ran.stderr) }
    }
}

/// Waits until the control plane has seen the cluster like that.
pub(crate) async fn seen(api: &Api, what: &str, holds: impl Fn(&Value, &[Value]) -> bool) -> Value {
    eventually(what, PATIENCE, || async {
        let told = api.get("/v1/clusters/default/topology").await.expect(200).json;
        let members = told["members"].as_array().unwrap();
        if holds(&told, members) { Ok(told) } else { Err(told.to_string()) }
    })
    .await
}

/// What the tool says, and what is said beside it.
fn words(members: &[Value]) -> String {
    let words = |member: &Value| format!("{} | {}", member["tool"], member["message"]);
    members.iter().map(words).collect::<Vec<_>>().join(" | ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_live_through_a_failover_of_patroni() {
    lives_through_a_failover(LabKind::Patroni, ["Patroni: leader, running", "Patroni: sync_standby, "]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_live_through_a_failover_of_pg_auto_failover() {
    let said = ["the monitor: primary; number_sync_standbys 0", "the monitor: secondary"];
    lives_through_a_failover(LabKind::PgAutoFailover, said).await;
}

/// repmgr has no word that pgtenant needs, and pgpool leads tenants to whichever is the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_live_through_a_failover_of_repmgr_behind_pgpool() {
    let said = ["repmgr.nodes is not seen: permission denied for schema repmgr (42501)", "GRANT pg_read_all_stats TO"];
    lives_through_a_failover(LabKind::Repmgr, said).await;
}

/// What the health service of the first node says is shown for each of them, since all are on one host, and decides nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_live_through_a_failover_behind_haproxy() {
    let said = ["the health service: primary", "the health service takes it for the primary"];
    lives_through_a_failover(LabKind::Haproxy, said).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_repmgr_says_is_seen_with_the_grants_that_the_guide_names() {
    let cluster = Cluster::up(LabKind::Repmgr).await;
    let site = cluster.site().await;
    let superuser = cluster.superuser().await;
    let grants =
        format!("GRANT USAGE ON SCHEMA repmgr TO \"{0}\"; GRANT SELECT ON repmgr.nodes TO \"{0}\"", site.provisioner);
    superuser_sql(&superuser, Some("repmgr"), &grants).await;
    superuser_sql(&superuser, None, &format!("GRANT pg_read_all_stats TO \"{}\"", site.provisioner)).await;
    let serve = site.serve("serve").await;
    serve.is_ready().await;
    let told = seen(&serve.api(), "every node's row", |_, members| {
        members.len() == 3
            && members
                .iter()
                .all(|member| member["tool"].as_str().is_some_and(|tool| tool.starts_with("repmgr: node-")))
    })
    .await;
    for member in told["members"].as_array().unwrap() {
        let standby = member["role"] == "standby";
        assert_eq!(member["sync"], if standby { json!("async") } else { Value::Null }, "{told}");
        assert_eq!(member["lagBytes"].is_number() && member["lagSeconds"].is_number(), standby, "{told}");
        assert_eq!((&member["saidBy"], &member["message"]), (&json!("the server"), &Value::Null), "{told}");
    }
    let text = Cli::of(&serve.url, &site.token).run(&["cluster", "topology", "default"]).await.expect(0).stdout;
    assert!(text.contains("async") && text.contains("repmgr: node-1, primary"), "{text}");
}

async fn lives_through_a_failover(kind: LabKind, said: [&str; 2]) {
    let mut cluster = Cluster::pooled(kind).await;
    let site = cluster.site().await;
    let serve = site.serve("serve").await;
    serve.is_ready().await;
    let (api, namespace) = (serve.api(), unique("failover"));
    api.ready(&namespace, "orders").await;
    let admin = Credential::read(&site.secrets, &namespace, "orders", "admin");
    can(&admin, "create table orders (id int primary key)").await;
    let endpoints = cluster.lab.endpoints().write;
    assert!(endpoints.iter().all(|endpoint| admin.uri.contains(endpoint)), "{endpoints:?} are in {}", admin.uri);
    if kind == LabKind::Haproxy {
        let stored = fs::read_to_string(Credential::file(&site.secrets, &namespace, "orders", "read")).unwrap();
        let stored: Value = serde_json::from_str(&stored).unwrap();
        let address = [&stored["readEndpoint"], &stored["readPort"]].map(|part| part.as_str().unwrap().to_owned());
        assert_eq!(vec![address.join(":")], cluster.lab.endpoints().read, "reads have an address of their own");
    }
    // The tool names a synchronous standby some seconds after the cluster is up.
    seen(&api, "the tool is quoted", |_, members| said.iter().all(|said| words(members).contains(said))).await;

    // The primary dies; who asks in this moment is served by the next one, and what was acknowledged is there.
    let write = Credential::read(&site.secrets, &namespace, "orders", "write");
    let mut acknowledged = 0;
    while acknowledged < 20 {
        can(&write, &format!("insert into orders values ({acknowledged})")).await;
        acknowledged += 1;
    }
    // Another one comes through the pool, and keeps its connection open.
    let pooled = Credential::pooled(&site.secrets, &namespace, "orders", "write");
    assert_eq!(Some(format!("localhost:{}", pooled.port)), cluster.lab.endpoints().pool);
    let mut session = connect(&pooled).await.unwrap();
    insert(&mut session, 1000).await.unwrap();
    acknowledged += 1;
    in_step(&cluster).await;
    let killed = cluster.lab.primary().await.unwrap();
    let begun = Instant::now();
    cluster.lab.kill(&killed).await.unwrap();
    api.create(&namespace, "asked-meanwhile").await;
    eventually("the application writes with what it has", PATIENCE, || {
        cluster.psql(&write, "insert into orders values (-1) on conflict do nothing")
    })
    .await;
    let gap = begun.elapsed();
    eventually("the application at the pool writes with what it has", PATIENCE, || {
        cluster.psql(&pooled, "insert into orders values (-2) on conflict do nothing")
    })
    .await;
    let pool_gap = begun.elapsed();
    // PgBouncer has kept the client whose server is gone: it was not told anything, and goes on.
    insert(&mut session, -3).await.unwrap();
    eventually("the new claim is Ready", PATIENCE, || async {
        let found = api.get(&format!("/v1/namespaces/{namespace}/databases/asked-meanwhile")).await;
        if found.json["state"] == "Ready" { Ok(()) } else { Err(found.text) }
    })
    .await;
    measured(&format!(
        "{kind:?}: an application writes again {:.1} s after the kill, through PgBouncer {:.1} s, and pgtenant has made a database after {:.1} s",
        gap.as_secs_f64(),
        pool_gap.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    ));
    // The stored endpoint may still be that of the server which is gone.
    let read = Credential::read(&site.secrets, &namespace, "orders", "read");
    let complete = format!("select 1 / (count(*) = {acknowledged})::int from orders where id >= 0");
    eventually("no acknowledged write is lost", PATIENCE, || cluster.psql(&read, &complete)).await;
    let dead = json!(cluster.host(&killed));
    seen(&api, "it is seen", |told, members| {
        let is_down = |member: &Value| member["host"] == dead && member["role"] == "unreachable";
        members.iter().any(is_down) && told["primary"].is_string() && told["primary"] != dead
    })
    .await;

    // It comes back as a standby, and the URLs of the others were enough.
    cluster.lab.start(&killed, |_| {}).await.unwrap();
    seen(&api, "it is a standby", |_, members| {
        members.iter().filter(|member| member["role"] == "standby").count() == cluster.lab.nodes().len() - 1
    })
    .await;
    api.is_ready(&namespace, "orders").await;
    cluster.lab.down(|_| {}).await.unwrap();
}

async fn insert(session: &mut PgConnection, id: i32) -> Result<(), String> {
    let done = sqlx::query("insert into orders values ($1)").bind(id).execute(session).await;
    done.map(drop).map_err(|error| error.to_string())
}

/// Where nobody waits for standbys, those that are behind would lose what was acknowledged: that is not what is tried here.
async fn in_step(cluster: &Cluster) {
    let primary = cluster.superuser().await;
    eventually("the standbys have everything", PATIENCE, || async {
        let sql = "select coalesce(bool_and(replay_lsn >= pg_current_wal_lsn()), false)::text from pg_stat_replication";
        let found = rows(&primary, None, sql).await;
        if found == ["true"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}
