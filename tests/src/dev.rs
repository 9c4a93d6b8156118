//! `pgtenant dev`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::{Api, Apps, Cli, Folder, Running};

/// Two clusters are made before `ready`, one of them of several servers and what keeps them.
const START: Duration = Duration::from_secs(180);

/// A development environment that is up.
#[derive(Debug)]
pub struct Dev {
    /// The process.
    pub running: Running,
    /// `--dir`.
    pub dir: PathBuf,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// The platform token.
    pub token: String,
    /// The cluster's CA.
    pub ca: PathBuf,
    /// What standard output says from the line `ready` on.
    pub greeting: String,
    /// Holds the folder that was made for it.
    _folder: Option<Folder>,
}

impl Dev {
    /// In a fresh folder, on any port.
    pub async fn fresh() -> Self {
        let folder = Folder::new("dev");
        let mut dev = Self::start(&folder.join("data")).await;
        dev._folder = Some(folder);
        dev
    }

    /// In a fresh folder, on any port, with a Kubernetes API server.
    pub async fn with_kubernetes() -> Self {
        let folder = Folder::new("dev");
        let mut dev = Self::start_with(&folder.join("data"), &["--kubernetes"]).await;
        dev._folder = Some(folder);
        dev
    }

    /// In a fresh folder, on any port, with a Kubernetes API server and dumps of every database.
    pub async fn with_kubernetes_and_backups() -> Self {
        let folder = Folder::new("dev");
        let mut dev = Self::start_with(&folder.join("data"), &["--kubernetes", "--backups"]).await;
        dev._folder = Some(folder);
        dev
    }

    /// In a fresh folder, on any port, with dumps of every database.
    pub async fn with_backups() -> Self {
        let folder = Folder::new("dev");
        let mut dev = Self::start_with(&folder.join("data"), &["--backups"]).await;
        dev._folder = Some(folder);
        dev
    }

    /// In this folder, on any port.
    pub async fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[]).await
    }

    /// In this folder, on any port, with further flags.
    pub async fn start_with(dir: &Path, flags: &[&str]) -> Self {
        let logs = dir.parent().expect("a folder for logs").to_path_buf();
        let name = format!("dev-{:08x}", rand::random::<u32>());
        let mut command = Self::command(dir, 0);
        command.args(flags);
        Self::up(Running::spawn(&command, &logs, &name), dir).await
    }

    /// Waits until it is up.
    pub async fn up(running: Running, dir: &Path) -> Self {
        running.line("ready", START).await;
        // The greeting is written at once.
        let greeting = running.find("the end of the greeting", START, |out, _| {
            let begin = out.find("ready")?;
            out[begin..].contains("\n  stop").then(|| out[begin..].to_owned())
        });
        let greeting = greeting.await;
        let variable = |name: &str| variable(dir, name);
        let (url, token, ca) = (variable("PGTENANT_URL"), variable("PGTENANT_TOKEN"), variable("PGTENANT_CA"));
        Self { running, dir: dir.to_path_buf(), url, token, ca: ca.into(), greeting, _folder: None }
    }

    /// The command that starts it. Port 0: any.
    pub fn command(dir: &Path, port: u16) -> Command {
        let mut command = Cli::new().command(&["dev", "--listen", &format!("127.0.0.1:{port}"), "--dir"]);
        command.arg(dir);
        command
    }

    /// A variable of `DIR/env`.
    pub fn variable(&self, name: &str) -> String {
        variable(&self.dir, name)
    }

    /// A client with the platform token.
    pub fn api(&self) -> Api {
        Api::new(&self.url, Some(&self.token))
    }

    /// The command line with the variables of `DIR/env`.
    pub fn cli(&self) -> Cli {
        Cli::of(&self.url, &self.token).env("PGTENANT_CA", &self.ca).env("PGTENANT_SECRETS_DIR", self.secrets())
    }

    /// The apps folder.
    pub fn apps(&self) -> Apps {
        Apps::new(self.dir.join("apps"))
    }

    /// The file store.
    pub fn secrets(&self) -> PathBuf {
        self.dir.join("secrets")
    }

    /// Ctrl-C, and waits for the end.
    pub async fn interrupt(&mut self) -> ExitStatus {
        self.running.signal(Signal::INT);
        self.running.end(Duration::from_secs(40)).await
    }

    /// The port that REST is served on.
    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Ports of the PostgreSQL servers: of the ledger, and two of the cluster.
    pub fn server_ports(&self) -> Vec<u16> {
        let nodes = ["ledger/nodes/node-1", "cluster/nodes/node-1", "cluster/nodes/node-2"];
        nodes.iter().map(|node| port_in(&self.dir.join(node).join("server.conf"))).collect()
    }

    /// Login of the cluster's superuser, on its primary as it was made.
    pub fn superuser(&self) -> PgConnectOptions {
        let password = fs::read_to_string(self.dir.join("cluster/superuser.password")).expect("a password");
        PgConnectOptions::new_without_pgpass()
            .host("localhost")
            .port(self.server_ports()[1])
            .username("postgres")
            .password(password.trim())
            .database("postgres")
            .ssl_mode(PgSslMode::VerifyFull)
            .ssl_root_cert(&self.ca)
    }
}

fn variable(dir: &Path, name: &str) -> String {
    let text = fs::read_to_string(dir.join("env")).expect("DIR/env");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name} in DIR/env: {text}")).trim_matches('\'').to_owned()
}

fn port_in(conf: &Path) -> u16 {
    let text = fs::read_to_string(conf).expect("a server's configuration");
    let port = text.lines().find_map(|line| line.strip_prefix("port = ")?.parse().ok());
    port.expect("a port")
}
