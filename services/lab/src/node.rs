//! One PostgreSQL server in a folder, on a port.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::binaries::Binaries;
use crate::config::{self, Settings};
use crate::control;
use crate::error::{Error, Result};
use crate::files;
use crate::initdb;
use crate::ports;
use crate::postmaster::{self, POLL, Status};
use crate::process::{AtTheEnd, Runner, last_lines};
use crate::tls::CertificateAuthority;

/// Crash recovery of a large cluster is the slowest start.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// A killed server's children let go of its shared memory only when they notice, normally at once.
const ORPHANS_DEADLINE: Duration = Duration::from_secs(15);
const LOG_LINES: usize = 15;

/// What a server is made of.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Shown in logs, in the process list and in `pg_stat_replication`: `[a-z0-9-]`.
    pub name: String,
    /// The server's own folder: data, configuration, certificate, logs.
    pub dir: PathBuf,
    /// On `localhost` only.
    pub port: u16,
    /// The programs.
    pub binaries: Binaries,
    /// `false`: faster, and a crash of the machine may lose the data.
    pub fsync: bool,
    /// Further settings, which win over the lab's own.
    pub extra_conf: Vec<(String, String)>,
    /// Name of the superuser that is made.
    pub superuser: String,
    /// Its password.
    pub password: SecretString,
}

/// A server: TLS and SCRAM only, on loopback only. It ends with this process, also when that is killed; dropping it ends it too.
///
/// A data folder with `standby.signal` starts as a standby, any other as a primary.
#[derive(Debug)]
pub struct Node {
    options: NodeOptions,
    authority: Arc<CertificateAuthority>,
    runner: Runner,
    data: PathBuf,
    child: Option<Child>,
    primary_port: Option<u16>,
}

impl Node {
    /// Makes the folder; nothing runs yet.
    pub fn new(mut options: NodeOptions, authority: Arc<CertificateAuthority>) -> Result<Self> {
        let account = Account::for_servers()?;
        let binaries = options.binaries.dir();
        if let Some(account) = &account
            && let Some(blocked) = account.blocked_on_the_way_to(binaries)?
        {
            return Err(Error::Unreachable { user: account.name.clone(), blocked, dir: binaries.to_path_buf() });
        }
        files::make_dir(&options.dir, 0o700, account.as_ref())?;
        files::make_dir(&options.dir.join("log"), 0o700, account.as_ref())?;
        // Servers of an earlier run are known by this path.
        options.dir = fs::canonicalize(&options.dir).map_err(Error::io("find", &options.dir))?;
        let runner = Runner { account, dir: options.dir.clone(), env: Vec::new() };
        let data = options.dir.join("data");
        Ok(Self { options, authority, runner, data, child: None, primary_port: None })
    }

    /// As it was given.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// On `localhost`.
    pub fn port(&self) -> u16 {
        self.options.port
    }

    /// The data folder (`PGDATA`).
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Whether there is data.
    pub fn exists(&self) -> bool {
        self.data.join("PG_VERSION").exists()
    }

    /// Whether it is a standby, running or not; a promotion from outside counts.
    pub fn is_standby(&self) -> bool {
        self.data.join("standby.signal").exists()
    }

    /// Its replication slot on a primary.
    pub fn slot(&self) -> String {
        format!("pgtenant_{}", self.options.name.replace('-', "_"))
    }

    /// Login of the superuser to database `postgres`, `verify-full`.
    pub fn superuser(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("localhost")
            .port(self.options.port)
            .username(&self.options.superuser)
            .password(self.options.password.expose_secret())
            .database("postgres")
            .ssl_mode(PgSslMode::VerifyFull)
            .ssl_root_cert(self.authority.certificate_file())
    }

    /// Makes an empty primary. What was in the data folder is removed.
    pub async fn init(&mut self) -> Result<()> {
        let fresh = self.clear().await?;
        let NodeOptions { binaries, fsync, superuser, password, .. } = &self.options;
        initdb::run(&self.runner, binaries, &fresh, superuser, password, *fsync).await?;
        self.primary_port = None;
        self.take(&fresh)
    }

    /// Makes a standby of a running primary, with a slot that [`Self::slot`] names and that exists there. What was in the data
    /// folder is removed.
    pub async fn init_standby_of(&mut self, primary: &Node) -> Result<()> {
        let program = self.options.binaries.program("pg_basebackup")?;
        let fresh = self.clear().await?;
        self.follow(primary);
        self.write_files()?;
        let mut args = vec![
            format!("--pgdata={}", fresh.display()),
            format!("--dbname={}", self.conninfo(primary.port())),
            format!("--slot={}", self.slot()),
        ];
        args.extend("--wal-method=stream --checkpoint=fast --no-password".split_whitespace().map(str::to_owned));
        args.extend((!self.options.fsync).then(|| "--no-sync".to_owned()));
        self.runner.run(&program, args).await?;
        // `--write-recovery-conf` would fix the primary's port in the data folder; `server.conf` has the one of today.
        files::write(&fresh.join("standby.signal"), b"", 0o600, self.runner.account.as_ref())?;
        self.take(&fresh)
    }

    /// From the next start on, stream from this primary, if this is a standby.
    pub fn follow(&mut self, primary: &Node) {
        self.primary_port = Some(primary.port());
    }

    /// Starts it and waits until it accepts connections. A server that an earlier run left here is ended first.
    pub async fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        control::require_same_version(&self.data, &self.options.binaries)?;
        postmaster::settle_earlier(&self.data).await?;
        self.require_port()?;
        self.write_files()?;
        let orphans = Instant::now() + ORPHANS_DEADLINE;
        loop {
            self.spawn()?;
            match self.wait_until_ready().await {
                Err(Error::Start { log, .. })
                    if log.contains("pre-existing shared memory") && Instant::now() < orphans =>
                {
                    sleep(Duration::from_millis(200)).await;
                }
                Err(error) => {
                    // Somebody was faster.
                    self.require_port()?;
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Stops it: sessions are ended and what they had not committed is undone (fast); if that takes over 20 s, at once (immediate).
    pub async fn stop(&mut self) -> Result<()> {
        let steps = [(Signal::INT, 20), (Signal::QUIT, 5), (Signal::KILL, 5)];
        for (signal, seconds) in steps {
            let Some(child) = &self.child else { return Ok(()) };
            postmaster::send(child.id().cast_signed(), signal);
            self.wait_until_ended(Duration::from_secs(seconds)).await;
        }
        match &self.child {
            None => Ok(()),
            Some(child) => Err(Error::StillRunning { pid: child.id().cast_signed(), dir: self.data.clone() }),
        }
    }

    /// SIGKILL, as a crash would be.
    pub async fn kill(&mut self) {
        if let Some(child) = &self.child {
            postmaster::send(child.id().cast_signed(), Signal::KILL);
            self.wait_until_ended(Duration::from_secs(10)).await;
        }
    }

    /// Makes a running standby a primary, and waits until it is.
    pub async fn promote(&mut self) -> Result<()> {
        let data = self.data.display().to_string();
        let args = ["promote", "--wait", "--timeout=60", "--silent", "--pgdata", &data];
        self.runner.run(&self.options.binaries.program("pg_ctl")?, args).await?;
        self.primary_port = None;
        Ok(())
    }

    /// Whether the server that this started still runs.
    pub fn is_running(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
        }
        self.child.is_some()
    }

    /// Process id of the server that this started.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The last lines of what it logged.
    pub fn log_end(&self) -> String {
        let paths = [Some(self.start_log()), files::newest(&self.options.dir.join("log"))];
        let texts = paths.into_iter().flatten().map(|path| fs::read(path).unwrap_or_default());
        let ends = texts.map(|text| last_lines(&String::from_utf8_lossy(&text), LOG_LINES));
        ends.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn settle_earlier(&mut self) -> Result<()> {
        if self.is_running() { Ok(()) } else { postmaster::settle_earlier(&self.data).await }
    }

    pub(crate) async fn history(&self) -> Result<control::History> {
        control::history(&self.runner, &self.options.binaries, &self.data).await
    }

    /// Ends a server on the data, removes the data, and returns where the new data is to be made.
    async fn clear(&mut self) -> Result<PathBuf> {
        self.stop().await?;
        self.settle_earlier().await?;
        let fresh = self.options.dir.join("data.new");
        files::remove_dir(&self.data)?;
        files::remove_dir(&fresh)?;
        Ok(fresh)
    }

    /// Data takes its place when it is whole: what was interrupted is not there.
    fn take(&self, fresh: &Path) -> Result<()> {
        fs::rename(fresh, &self.data).map_err(Error::io("put in place", &self.data))
    }

    /// Configuration, and a new certificate, so that none ever comes to its end.
    fn write_files(&self) -> Result<()> {
        let NodeOptions { name, dir, port, binaries: _, fsync, extra_conf, superuser, password } = &self.options;
        let primary = self.primary_port.map(|port| (self.conninfo(port), self.slot()));
        let settings = Settings { name, dir, port: *port, fsync: *fsync, primary, extra: extra_conf };
        let issued = self.authority.issue_for_loopback()?;
        let write = |name: &str, content: &str, mode| {
            files::write(&dir.join(name), content.as_bytes(), mode, self.runner.account.as_ref())
        };
        write("server.conf", &config::server(&settings)?, 0o600)?;
        write("pg_hba.conf", &config::hba(&[superuser]), 0o600)?;
        write("pgpass", &config::pgpass(superuser, password.expose_secret()), 0o600)?;
        write("ca.crt", self.authority.certificate(), 0o644)?;
        write("server.key", issued.key.expose_secret(), 0o600)?;
        write("server.crt", &issued.certificate, 0o644)
    }

    /// How this node reaches its primary; the password is in the password file.
    fn conninfo(&self, port: u16) -> String {
        let file = |name: &str| self.options.dir.join(name).to_string_lossy().into_owned();
        config::conninfo(&[
            ("host", "localhost"),
            ("port", &port.to_string()),
            ("user", &self.options.superuser),
            ("passfile", &file("pgpass")),
            ("sslmode", "verify-full"),
            ("sslrootcert", &file("ca.crt")),
            ("application_name", &self.options.name),
        ])
    }

    fn spawn(&mut self) -> Result<()> {
        let log = self.start_log();
        files::write(&log, b"", 0o600, self.runner.account.as_ref())?;
        let output = OpenOptions::new().append(true).open(&log).map_err(Error::io("open", &log))?;
        let program = self.options.binaries.program("postgres")?;
        self.child =
            Some(self.runner.spawn_bound(&program, [Path::new("-D"), &self.data], output, AtTheEnd::Interrupt)?);
        Ok(())
    }

    fn require_port(&self) -> Result<()> {
        ports::require_free(self.options.port, &format!("PostgreSQL {}", self.options.name))
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        let reason = loop {
            if !self.is_running() {
                break "it ended".to_owned();
            }
            if self.pid().is_some_and(|pid| postmaster::status(&self.data, pid) == Status::Ready) {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.stop().await?;
                break format!("not ready after {} s", START_DEADLINE.as_secs());
            }
            sleep(POLL).await;
        };
        Err(Error::Start { node: self.options.name.clone(), reason, log: self.log_end() })
    }

    async fn wait_until_ended(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.is_running() && Instant::now() < deadline {
            sleep(POLL).await;
        }
    }

    /// What is said before the server's log begins.
    fn start_log(&self) -> PathBuf {
        self.options.dir.join("start.log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            postmaster::send(child.id().cast_signed(), Signal::INT);
            // Only so that no zombie stays; nobody waits for it.
            let _ = std::thread::Builder::new().spawn(move || child.wait());
        }
    }
}
