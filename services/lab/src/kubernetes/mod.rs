//! A Kubernetes API server on this machine.
//!
//! ```text
//! kubernetes.json      the port, so that it stays
//! lock                 held while a process has it open
//! ca.crt ca.key        the authority of the API server's certificate
//! *.token *.key        the administrator's and the controllers' tokens, the key of ServiceAccounts; 0600
//! kubeconfig           the administrator's, 0600
//! nodes/kubernetes/    the servers' own folder, 0700: etcd's data and socket, logs; `nodes` may be a link, see
//!                      `Kubernetes::relocated`
//! ```

mod binaries;
mod flags;
mod http;
mod state;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::error::{Error, Result};
use crate::files;
use crate::lock::FolderLock;
use crate::part::{POLL, Part};
use crate::place;
use crate::ports;
use crate::process::Runner;
use crate::tls::CertificateAuthority;
use state::{Secrets, State};

pub use binaries::KubernetesBinaries;

const API_SERVER: &str = "kube-apiserver";
/// 3 s on an idle machine; replaying a large log of etcd is the slowest start.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// For what is being answered. The API server would wait for over a minute for clients that keep a connection.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// One of an earlier run that was just killed has its port for longer than it can be seen among the processes.
const PORT_PATIENCE: Duration = Duration::from_secs(3);
/// etcd closes its files.
const ETCD_STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What a Kubernetes is made of.
#[derive(Debug, Clone)]
pub struct KubernetesOptions {
    /// All is kept under it. The caller makes the folders above it such that all may pass (0711), or else see
    /// [`Kubernetes::relocated`].
    pub dir: PathBuf,
    /// The programs.
    pub binaries: KubernetesBinaries,
    /// Of the API server. `None`: as before, and at first any that is free.
    pub port: Option<u16>,
    /// `false`: faster, and a crash of the machine may lose the data.
    pub fsync: bool,
    /// Whether [`Kubernetes::audit_log`] is written.
    pub audit: bool,
}

impl KubernetesOptions {
    /// On any port, with fsync, without an audit log.
    pub fn new(dir: impl Into<PathBuf>, binaries: KubernetesBinaries) -> Self {
        Self { dir: dir.into(), binaries, port: None, fsync: true, audit: false }
    }
}

/// A running API server with RBAC, CRDs and ServiceAccount tokens, its etcd, and the controllers that end namespaces and collect
/// what has lost its owner. There are no nodes: no pod ever runs.
///
/// TLS only, on 127.0.0.1 only. etcd has no port: its socket is in a folder that nobody but the servers' user may enter, so that
/// Secrets are read through the API server alone. All of it ends with this process, also when that is killed; dropping it ends
/// it too.
#[derive(Debug)]
pub struct Kubernetes {
    dir: PathBuf,
    home: PathBuf,
    port: u16,
    url: String,
    secrets: Secrets,
    authority: CertificateAuthority,
    place: place::Place,
    runner: Runner,
    probe: http::Probe,
    // They are dropped in this order.
    controller_manager: Part,
    api_server: Part,
    etcd: Part,
    _lock: FolderLock,
}

impl Kubernetes {
    /// Opens the Kubernetes of the folder, or makes one, and starts it. It goes on where it was: same objects, port, authority and
    /// tokens. `progress` gets short sentences for the user.
    pub async fn open_or_create(options: KubernetesOptions, mut progress: impl FnMut(&str) + Send) -> Result<Self> {
        let mut kubernetes = Self::open(options)?;
        if let Some(place) = kubernetes.relocated() {
            let dir = kubernetes.dir.display();
            progress(&format!("the servers' user can not reach {dir}: their data is in {}", place.display()));
        }
        for part in [&kubernetes.controller_manager, &kubernetes.api_server, &kubernetes.etcd] {
            part.settle_earlier().await?;
        }
        progress(&format!("starting Kubernetes on port {}", kubernetes.port));
        kubernetes.start().await?;
        Ok(kubernetes)
    }

    /// Starts what does not run, and waits until the API server is ready.
    pub async fn start(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        if !self.etcd.is_running() {
            let socket = self.etcd_socket();
            // etcd would not start beside the one of a killed etcd.
            files::remove_file(&socket)?;
            files::remove_file(&self.home.join(flags::PEER_SOCKET))?;
            self.etcd.start()?;
            while !socket.exists() {
                self.etcd.wait_more(deadline).await?;
            }
        }
        self.start_api_server().await?;
        self.controller_manager.start()
    }

    /// Stops all of it, the API server before its etcd.
    pub async fn stop(&mut self) -> Result<()> {
        self.controller_manager.stop(STOP_PATIENCE).await?;
        self.api_server.stop(STOP_PATIENCE).await?;
        self.etcd.stop(ETCD_STOP_PATIENCE).await
    }

    /// SIGKILL to all of it, as a crash would be; [`Kubernetes::start`] brings it back.
    pub fn kill(&mut self) {
        for part in [&mut self.controller_manager, &mut self.api_server, &mut self.etcd] {
            part.kill();
        }
    }

    /// SIGKILL to the API server; it is gone afterwards.
    pub fn kill_api_server(&mut self) {
        self.api_server.kill();
    }

    /// Starts the API server, on the port of before, and waits until it is ready.
    pub async fn start_api_server(&mut self) -> Result<()> {
        if self.api_server.is_running() {
            return Ok(());
        }
        let deadline = Instant::now() + PORT_PATIENCE;
        while let Err(error) = ports::require_free(self.port, API_SERVER) {
            if Instant::now() > deadline {
                return Err(error);
            }
            sleep(POLL).await;
        }
        self.secrets.hand_over(&self.home, &self.url, &self.authority, self.runner.account.as_ref())?;
        self.api_server.start()?;
        let ready = self.wait_for_api_server().await;
        if ready.is_err() {
            // Somebody was faster.
            ports::require_free(self.port, API_SERVER)?;
        }
        ready
    }

    /// Stops the API server's time (SIGSTOP): connections stay, and nothing is answered.
    pub async fn pause_api_server(&self) -> Result<()> {
        self.api_server.pause().await
    }

    /// Lets the API server go on.
    pub fn resume_api_server(&self) {
        self.api_server.send(Signal::CONT);
    }

    /// Forgets the past, as a cluster does after some minutes: watches and lists that go on from any resource version that a client
    /// has are answered with 410 Gone. Watches that are open are cut: for the API server to forget what it remembers itself, it is
    /// killed and started again.
    pub async fn forget_history(&mut self) -> Result<()> {
        self.api_server.kill();
        let forgotten = http::compact(&self.etcd_socket()).await;
        self.start_api_server().await?;
        forgotten
    }

    /// Refuses when a part of it does not run, saying what that logged last.
    pub fn require_running(&mut self) -> Result<()> {
        self.etcd.require_running()?;
        self.api_server.require_running()?;
        self.controller_manager.require_running()
    }

    /// The administrator's (`system:masters`), for kubectl, Helm and other clients on this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Writes a kubeconfig (0600) for whoever has this token.
    pub fn write_kubeconfig(&self, file: &Path, token: &str) -> Result<()> {
        let text = state::kubeconfig(&self.url, &self.authority, token);
        files::write(file, text.as_bytes(), 0o600, None)
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// On 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate that clients need, PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.certificate()
    }

    /// Process ids of etcd, the API server and the controllers, of those that run.
    pub fn pids(&self) -> Vec<u32> {
        [&self.etcd, &self.api_server, &self.controller_manager].into_iter().filter_map(Part::pid).collect()
    }

    /// Every request that was answered, one `audit.k8s.io/v1` Event a line; for the servers' user and root.
    pub fn audit_log(&self) -> PathBuf {
        self.home.join(flags::AUDIT_LOG)
    }

    /// As [`crate::Cluster::relocated`].
    pub fn relocated(&self) -> Option<&Path> {
        self.place.relocated.then_some(self.place.nodes.as_path())
    }

    /// Nothing is started here.
    fn open(options: KubernetesOptions) -> Result<Self> {
        let KubernetesOptions { dir, binaries, port, fsync, audit } = options;
        files::make_dir(&dir, 0o711, None)?;
        let dir = fs::canonicalize(&dir).map_err(Error::io("find", &dir))?;
        let lock = FolderLock::take(&dir)?;
        let account = Account::for_servers()?;
        binaries.require_reachable(account.as_ref())?;
        let State { id, port } = State::load_or_create(&dir, port)?;
        let secrets = Secrets::load_or_create(&dir)?;
        let authority = CertificateAuthority::open_or_create(&dir)?;
        let place = place::place(&dir, &id, account.as_ref())?;
        let home = place.nodes.join("kubernetes");
        files::make_dir(&home, 0o700, account.as_ref())?;

        let url = format!("https://127.0.0.1:{port}");
        let probe = http::Probe::new(&authority, &url, secrets.admin.clone())?;
        let runner = Runner { account, dir: home.clone(), env: Vec::new() };
        let part = |name, program, args| Part::new(name, program, args, runner.clone());
        let KubernetesBinaries { etcd, kube_apiserver, kube_controller_manager, kubectl: _, helm: _ } = binaries;
        let etcd = part("etcd", etcd, flags::etcd(&home, fsync));
        let api_server = part(API_SERVER, kube_apiserver, flags::api_server(&home, port, audit));
        if audit {
            files::write(
                &home.join(flags::AUDIT_POLICY_FILE),
                flags::AUDIT_POLICY.as_bytes(),
                0o600,
                runner.account.as_ref(),
            )?;
        }
        let args = flags::controller_manager(&home);
        let controller_manager = part("kube-controller-manager", kube_controller_manager, args);
        let kubernetes = Self {
            dir,
            home,
            port,
            url,
            secrets,
            authority,
            place,
            runner,
            probe,
            controller_manager,
            api_server,
            etcd,
            _lock: lock,
        };
        kubernetes.write_kubeconfig(&kubernetes.kubeconfig(), kubernetes.secrets.admin.expose_secret())?;
        Ok(kubernetes)
    }

    async fn wait_for_api_server(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.probe.is_ready().await {
            // Without etcd, the API server would go on trying; what ended first is the reason.
            self.etcd.require_running()?;
            self.api_server.wait_more(deadline).await?;
        }
        Ok(())
    }

    fn etcd_socket(&self) -> PathBuf {
        self.home.join(flags::ETCD_SOCKET)
    }
}
