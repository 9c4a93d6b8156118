//! Clusters of each kind that a lab runs: attached by what their tool says alone, and followed through a failover.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use pgtenant_lab::{Binaries, Lab, LabKind, LabOptions, Lifetime};
use pgtenant_tests::{Credential, Folder, Place, Site, SiteOptions, can, connect, eventually, measured, run, unique};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

/// A lab, and the member that is its primary.
struct Cluster {
    lab: Lab,
    _folder: Folder,
}

impl Cluster {
    async fn up(kind: LabKind) -> Self {
        let folder = Folder::new("topology");
        let binaries = Binaries::locate(None).unwrap_or_else(|error| panic!("{error}; run `.ci/postgres`"));
        let options = LabOptions::new(folder.join("lab"), kind, binaries);
        let mut lab = Lab::create(LabOptions { lifetime: Lifetime::Bound, fsync: false, ..options }).unwrap();
        lab.up(|_| {}).await.unwrap();
        Self { lab, _folder: folder }
    }

    fn port(&self, name: &str) -> u16 {
        self.lab.nodes().into_iter().find(|(node, _)| node == name).map(|(_, port)| port).unwrap()
    }

    /// As the settings describe it.
    fn described(&self, site: &Site) -> String {
        if let Some(monitor) = self.lab.monitor_uri() {
            let file = site.path().join("monitor.password");
            fs::write(&file, self.lab.service_password().expose_secret()).unwrap();
            return format!("topology = {{ pgAutoFailover = {{ monitor = {monitor:?}, passwordFile = {file:?} }} }}");
        }
        format!("topology = {{ patroni = {{ urls = {:?} }} }}", self.lab.patroni_urls())
    }

    /// A control plane beside it.
    async fn site(&self) -> Site {
        let primary = self.lab.primary().await.expect("a primary");
        let hosts = self.lab.nodes().iter().map(|(_, port)| format!("localhost:{port}")).collect();
        let place = Place { hosts, ca: self.lab.ca_file(), superuser: self.lab.login(self.port(&primary)) };
        let options = SiteOptions::shared().await;
        let site = Site::new(SiteOptions { clusters: vec![("default".to_owned(), place)], ..options }).await;
        let topology = self.described(&site);
        let text = fs::read_to_string(&site.config).unwrap();
        let line = |line| if str::starts_with(line, "topology = ") { topology.as_str() } else { line };
        fs::write(&site.config, text.lines().map(line).collect::<Vec<_>>().join("\n")).unwrap();
        site
    }
}

fn messages(topology: &Value) -> Vec<&str> {
    topology["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["message"].as_str().unwrap_or_default())
        .collect()
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

async fn lives_through_a_failover(kind: LabKind, said: [&str; 2]) {
    let mut cluster = Cluster::up(kind).await;
    let site = cluster.site().await;
    let serve = site.serve("serve").await;
    serve.is_ready().await;
    let (api, namespace) = (serve.api(), unique("failover"));
    api.ready(&namespace, "orders").await;
    let admin = Credential::read(&site.secrets, &namespace, "orders", "admin");
    can(&admin, "create table orders (id int primary key)").await;
    let ports: Vec<String> = cluster.lab.nodes().iter().map(|(_, port)| format!(":{port}")).collect();
    assert!(ports.iter().all(|port| admin.uri.contains(port)), "every member is in {}", admin.uri);
    // The tool names a synchronous standby some seconds after the cluster is up.
    eventually("the tool is quoted", PATIENCE, || async {
        let told = api.get("/v1/clusters/default/topology").await.expect(200).json;
        let words = messages(&told).join(" | ");
        if said.iter().all(|said| words.contains(said)) { Ok(()) } else { Err(told.to_string()) }
    })
    .await;

    // The primary dies; who asks in this moment is served by the next one, and what was acknowledged is there.
    let write = Credential::read(&site.secrets, &namespace, "orders", "write");
    let mut acknowledged = 0;
    while acknowledged < 20 {
        can(&write, &format!("insert into orders values ({acknowledged})")).await;
        acknowledged += 1;
    }
    let killed = cluster.lab.primary().await.unwrap();
    cluster.lab.kill(&killed).await.unwrap();
    let begun = Instant::now();
    api.create(&namespace, "asked-meanwhile").await;
    eventually("the application writes with what it has", PATIENCE, || async {
        let mut psql = Command::new("psql");
        psql.env("PGSSLROOTCERT", cluster.lab.ca_file()).env("PGCONNECT_TIMEOUT", "5");
        psql.args(["-qc", "insert into orders values (-1) on conflict do nothing"]).arg(&write.uri);
        let ran = run(psql).await;
        if ran.status == 0 { Ok(()) } else { Err(ran.stderr) }
    })
    .await;
    let gap = begun.elapsed();
    eventually("the new claim is Ready", PATIENCE, || async {
        let found = api.get(&format!("/v1/namespaces/{namespace}/databases/asked-meanwhile")).await;
        if found.json["state"] == "Ready" { Ok(()) } else { Err(found.text) }
    })
    .await;
    measured(&format!(
        "{kind:?}: an application writes again {:.1} s after the kill, and pgtenant has made a database after {:.1} s",
        gap.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    ));
    let mut db = connect(&Credential::read(&site.secrets, &namespace, "orders", "read")).await.unwrap();
    let found: i64 = sqlx::query_scalar("select count(*) from orders where id >= 0").fetch_one(&mut db).await.unwrap();
    assert_eq!(found, acknowledged, "no acknowledged write is lost");
    drop(db);
    let dead = json!(format!("localhost:{}", cluster.port(&killed)));
    eventually("it is seen", PATIENCE, || async {
        let told = api.get("/v1/clusters/default/topology").await.expect(200).json;
        let member = told["members"].as_array().unwrap().iter().find(|member| member["host"] == dead);
        let is_down = member.is_some_and(|member| member["role"] == "unreachable");
        if is_down && told["primary"].is_string() && told["primary"] != dead { Ok(()) } else { Err(told.to_string()) }
    })
    .await;

    // It comes back as a standby, and the URLs of the others were enough.
    cluster.lab.start(&killed, |_| {}).await.unwrap();
    eventually("it is a standby", PATIENCE, || async {
        let told = api.get("/v1/clusters/default/topology").await.expect(200).json;
        let nodes = cluster.lab.nodes().len();
        let standbys = told["members"].as_array().unwrap().iter().filter(|member| member["role"] == "standby").count();
        if standbys == nodes - 1 { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    api.is_ready(&namespace, "orders").await;
    cluster.lab.down(|_| {}).await.unwrap();
}
