//! `pgtenant health`: what a load balancer hears of each node.

use std::path::Path;
use std::time::{Duration, Instant};

use pgtenant_lab::{Binaries, Lab, LabKind, LabOptions, Lifetime};
use pgtenant_tests::{Cli, Folder, Running, eventually};
use reqwest::{Client, Method};
use serde_json::Value;
use sqlx::ConnectOptions as _;

const PATIENCE: Duration = Duration::from_secs(30);

/// A running `pgtenant health`.
struct Service {
    url: String,
    process: Running,
    http: Client,
}

impl Service {
    async fn start(folder: &Folder, name: &str, dsn: &str, further: &[&str]) -> Self {
        let password = folder.join("health.password");
        std::fs::write(&password, "least\n").unwrap();
        let mut command = Cli::new().command(&["health", "--listen", "127.0.0.1:0", "--dsn", dsn, "--password-file"]);
        command.arg(password).args(further);
        let process = Running::spawn(&command, folder.path(), name);
        let ready = |_: &str, err: &str| err.lines().find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
        let url = process.find("a line `ready`", PATIENCE, ready).await;
        rustls::crypto::ring::default_provider().install_default().ok();
        Self { url, process, http: Client::builder().no_proxy().build().unwrap() }
    }

    async fn ask(&self, method: Method, path: &str) -> (u16, Value) {
        let answer = self.http.request(method, format!("{}{path}", self.url)).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    /// Status of `/primary`, `/standby` and `/health`.
    async fn statuses(&self) -> [u16; 3] {
        let mut all = [0; 3];
        for (status, path) in all.iter_mut().zip(["/primary", "/standby", "/health"]) {
            *status = self.ask(Method::OPTIONS, path).await.0;
        }
        all
    }

    async fn expect(&self, wanted: [u16; 3]) {
        let look = async || {
            let found = self.statuses().await;
            if found == wanted { Ok(()) } else { Err(format!("{found:?}; {}", self.process.said())) }
        };
        eventually(&format!("{wanted:?}"), PATIENCE, look).await;
    }
}

fn dsn(port: u16, ca: &Path) -> String {
    format!("postgresql://health@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={}", ca.display())
}

#[tokio::test]
async fn each_node_says_what_it_is_through_a_failover() {
    let folder = Folder::new("health");
    let binaries = Binaries::locate(None).unwrap();
    let options = LabOptions {
        lifetime: Lifetime::Bound,
        fsync: false,
        ..LabOptions::new(folder.join("lab"), LabKind::Streaming, binaries)
    };
    let mut lab = Lab::create(options).unwrap();
    lab.up(|_| {}).await.unwrap();
    let ports: Vec<u16> = lab.nodes().iter().map(|(_, port)| *port).collect();
    let mut admin = lab.login(ports[0]).connect().await.unwrap();
    sqlx::raw_sql("CREATE ROLE health LOGIN PASSWORD 'least'").execute(&mut admin).await.unwrap();
    let ca = lab.ca_file();
    let first = Service::start(&folder, "first", &dsn(ports[0], &ca), &["--deadline", "1s"]).await;
    let second =
        Service::start(&folder, "second", &dsn(ports[1], &ca), &["--deadline", "1s", "--max-lag", "10s"]).await;

    first.expect([200, 503, 200]).await;
    second.expect([503, 200, 200]).await;
    let (status, body) = second.ask(Method::GET, "/standby").await;
    assert_eq!((status, &body["role"], &body["timeline"]), (200, &"standby".into(), &1.into()), "{body}");
    assert_eq!(first.ask(Method::GET, "/other").await.0, 404);
    assert_eq!(first.ask(Method::POST, "/primary").await.0, 405);

    lab.kill("node-1").await.unwrap();
    first.expect([503, 503, 503]).await;
    // Nobody knows how old it is, once it receives nothing.
    second.expect([503, 503, 200]).await;
    lab.promote("node-2", |_| {}).await.unwrap();
    second.expect([200, 503, 200]).await;
    lab.start("node-1", |_| {}).await.unwrap();
    first.expect([503, 200, 200]).await;
    assert_eq!(first.ask(Method::GET, "/standby").await.1["timeline"], 2);
}

#[tokio::test]
async fn a_server_that_hangs_is_503_after_the_deadline() {
    let folder = Folder::new("health-hangs");
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dsn = format!("postgresql://health@localhost:{}/postgres", silent.local_addr().unwrap().port());
    let service = Service::start(&folder, "silent", &dsn, &["--deadline", "300ms"]).await;
    let start = Instant::now();
    let (status, body) = service.ask(Method::GET, "/health").await;
    assert_eq!((status, &body["message"]), (503, &"no answer within 300ms".into()), "{body}");
    assert!(start.elapsed() < PATIENCE);
}
