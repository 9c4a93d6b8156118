//! A lab's folder, and what every kind does in it.
//!
//! ```text
//! lab.json             kind, nodes and ports, so that they stay
//! lock                 held while something is changed
//! *.password           0600
//! ca.crt ca.key        the authority of the servers' certificates
//! nodes/*/             one for each node, and for each service beside them; `nodes` may be a link, see `place.rs`
//! ```

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep};

use crate::account::Account;
use crate::binaries::Binaries;
use crate::config;
use crate::error::{Error, Result};
use crate::files;
use crate::ha::keepalived;
use crate::ha::processes;
use crate::ha::state::State;
use crate::lock::FolderLock;
use crate::part::POLL;
use crate::place;
use crate::ports;
use crate::process::{AtTheEnd, Runner, last_lines};
use crate::reach;
use crate::tls::{CertificateAuthority, LOOPBACK};

/// Name of the superuser.
pub(crate) const SUPERUSER: &str = "postgres";
/// Its password's file.
pub(crate) const SUPERUSER_FILE: &str = "superuser";
/// File of the password of the logins by which servers reach each other.
pub(crate) const REPLICATION: &str = "replication";
const LOG_LINES: usize = 15;
/// For what is asked while it may be dying.
pub(crate) const ASK_DEADLINE: Duration = Duration::from_secs(3);
/// For programs that leave something behind when they are killed.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How long what a lab starts goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is stopped: `pgtenant lab`.
    Detached,
    /// Until this process ends, in whatever way, or the [`crate::Lab`] is dropped: tests and `pgtenant dev`.
    Bound,
}

/// A program that is to stay. It is started in the folder of its node, and told of that in its arguments.
pub(crate) struct Daemon {
    /// As [`processes`] knows it.
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) at_the_end: AtTheEnd,
}

/// An open lab.
#[derive(Debug)]
pub(crate) struct Site {
    /// Without symbolic links.
    pub(crate) dir: PathBuf,
    pub(crate) state: State,
    pub(crate) binaries: Binaries,
    pub(crate) lifetime: Lifetime,
    pub(crate) authority: CertificateAuthority,
    /// The superuser's.
    pub(crate) password: SecretString,
    /// That of the logins by which servers reach each other.
    pub(crate) replication: SecretString,
    place: place::Place,
    account: Option<Account>,
    /// Node, program, process.
    children: Vec<(String, &'static str, Child)>,
}

impl Site {
    /// Nothing is started here.
    pub(crate) fn open(dir: &Path, state: State, binaries: Binaries, lifetime: Lifetime) -> Result<Self> {
        let account = Account::for_servers()?;
        let place = place::place(dir, &state.id, account.as_ref())?;
        let authority = CertificateAuthority::open_or_create(dir)?;
        let (password, replication) = (secret(dir, SUPERUSER_FILE)?, secret(dir, REPLICATION)?);
        let dir = dir.to_path_buf();
        let children = Vec::new();
        Ok(Self { dir, state, binaries, lifetime, authority, password, replication, place, account, children })
    }

    /// For a change, while which no other process changes the lab; what others changed before is seen.
    pub(crate) fn lock(&mut self) -> Result<FolderLock> {
        let lock = FolderLock::take(&self.dir)?;
        self.reap();
        let gone = || Error::NoLab { dir: self.dir.clone() };
        self.state = State::read(&self.dir)?.ok_or_else(gone)?;
        self.read_secrets()?;
        Ok(lock)
    }

    /// A password that is made once and kept: that of a login which only some kinds have.
    pub(crate) fn secret(&self, of: &str) -> Result<SecretString> {
        secret(&self.dir, of)
    }

    /// It is made anew when it is asked for again.
    pub(crate) fn forget_secret(&self, of: &str) -> Result<()> {
        files::remove_file(&password_file(&self.dir, of))
    }

    /// The password that comes after it: kept until it has taken its place.
    pub(crate) fn next_secret(&self, of: &str) -> Result<SecretString> {
        secret(&self.dir, &format!("{of}.next"))
    }

    /// The next password is the password.
    pub(crate) fn adopt_secret(&mut self, of: &str) -> Result<()> {
        let (next, path) = (password_file(&self.dir, &format!("{of}.next")), password_file(&self.dir, of));
        fs::rename(next, &path).map_err(Error::io("put in place", &path))?;
        self.read_secrets()
    }

    fn read_secrets(&mut self) -> Result<()> {
        self.password = secret(&self.dir, SUPERUSER_FILE)?;
        self.replication = secret(&self.dir, REPLICATION)?;
        Ok(())
    }

    /// libpq's password file for each node and service.
    pub(crate) fn write_password_files(&self) -> Result<()> {
        let entries = fs::read_dir(self.homes()).map_err(Error::io("read", self.homes()))?.flatten();
        let names =
            entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok());
        names.into_iter().try_for_each(|name| self.write_password_file(&name))
    }

    fn write_password_file(&self, name: &str) -> Result<()> {
        let replication = self.replication.expose_secret();
        let mut logins = config::pgpass(SUPERUSER, self.password.expose_secret());
        for user in self.state.kind.logins() {
            logins.push_str(&config::pgpass(user, replication));
        }
        self.write(name, "pgpass", &logins, 0o600)
    }

    /// Folder of all nodes and services.
    pub(crate) fn homes(&self) -> &Path {
        &self.place.nodes
    }

    /// As [`crate::Cluster::relocated`].
    pub(crate) fn relocated(&self) -> Option<&Path> {
        self.place.relocated.then_some(self.place.nodes.as_path())
    }

    /// Folder of a node or service.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.place.nodes.join(name)
    }

    /// `node-1` and so on.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.state.nodes.iter().map(|number| format!("node-{number}")).collect()
    }

    /// The port that was taken for it; 0 before [`Site::prepare`].
    pub(crate) fn port(&self, of: &str) -> u16 {
        self.state.ports.get(of).copied().unwrap_or_default()
    }

    /// Makes the folder, takes a port for each of `ports`, and writes what every program there needs: certificate, authority,
    /// libpq's password file.
    pub(crate) fn prepare(&mut self, name: &str, ports: &[&str]) -> Result<()> {
        let home = self.home(name);
        files::make_dir(&home, 0o700, self.account.as_ref())?;
        files::make_dir(&home.join("log"), 0o700, self.account.as_ref())?;
        for port in ports {
            let taken: Vec<u16> = self.state.ports.values().copied().collect();
            let fresh =
                || std::iter::repeat_with(ports::free_port).find(|port| !taken.contains(port)).unwrap_or_default();
            self.state.ports.entry((*port).to_owned()).or_insert_with(fresh);
        }
        self.state.write(&self.dir)?;
        let moves = keepalived::address(self).map(|address| address.to_string());
        let names: Vec<&str> = LOOPBACK.into_iter().chain(moves.as_deref()).collect();
        let issued = self.authority.issue(&names)?;
        self.write(name, "ca.crt", self.authority.certificate(), 0o644)?;
        self.write(name, "server.key", issued.key.expose_secret(), 0o600)?;
        self.write(name, "server.crt", &issued.certificate, 0o644)?;
        self.write_password_file(name)
    }

    /// Forgets a node, with its data.
    pub(crate) fn forget(&mut self, name: &str) -> Result<()> {
        self.state.nodes.retain(|number| format!("node-{number}") != name);
        self.state.ports.retain(|port, _| port != name && !port.starts_with(&format!("{name}/")));
        self.state.write(&self.dir)?;
        files::remove_dir(&self.home(name))
    }

    /// A file in a node's folder, of the servers' user.
    pub(crate) fn write(&self, name: &str, file: &str, content: &str, mode: u32) -> Result<()> {
        files::write(&self.home(name).join(file), content.as_bytes(), mode, self.account.as_ref())
    }

    /// Whoever speaks libpq there verifies servers, and finds passwords, without being told.
    pub(crate) fn runner(&self, name: &str) -> Runner {
        let home = self.home(name);
        let file = |file: &str| home.join(file).to_string_lossy().into_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let env = vec![
            ("PATH", format!("{}:/usr/sbin:/usr/bin:{path}", self.binaries.dir().display())),
            ("PGPASSFILE", file("pgpass")),
            ("PGSSLMODE", "verify-full".to_owned()),
            ("PGSSLROOTCERT", file("ca.crt")),
            ("PGCONNECT_TIMEOUT", "5".to_owned()),
            // pg_autoctl reaches its own server by these, and keeps what it knows of its processes there.
            ("PGHOST", "localhost".to_owned()),
            ("PGUSER", SUPERUSER.to_owned()),
            ("XDG_RUNTIME_DIR", home.to_string_lossy().into_owned()),
        ];
        Runner { account: self.account.clone(), dir: home, env }
    }

    /// Number and group of the servers' user, where that is another one.
    pub(crate) fn account(&self) -> Option<(u32, u32)> {
        self.account.as_ref().map(|account| (account.uid, account.gid))
    }

    /// A program of this name that the servers' user can run; where it has to be copied, into `dir`.
    pub(crate) fn in_reach(&self, program: &Path, name: &str, dir: &Path) -> Result<PathBuf> {
        reach::program(program, name, self.account.as_ref(), dir)
    }

    /// For what `program` tells over HTTP; it trusts the lab's authority alone.
    pub(crate) fn http(&self, program: &'static str) -> Result<reqwest::Client> {
        let failed = |source| Error::Request { program, source };
        // Only fails where another provider was installed before, which does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(self.authority.certificate().as_bytes()).map_err(failed)?;
        let client = reqwest::Client::builder().tls_certs_only([authority]).no_proxy().timeout(ASK_DEADLINE);
        client.build().map_err(failed)
    }

    /// Whether this program runs there, or is about to.
    pub(crate) fn runs(&self, name: &str, program: &str) -> bool {
        processes::of(&self.home(name)).iter().any(|process| process.is(program))
    }

    /// Starts a program unless it runs. Ports that it is to listen on have to be free.
    pub(crate) fn start(&mut self, name: &str, daemon: &Daemon, ports: &[u16]) -> Result<()> {
        self.start_with(&self.runner(name), name, daemon, ports)
    }

    /// The same for what needs root until it runs.
    pub(crate) fn start_as_root(&mut self, name: &str, daemon: &Daemon, ports: &[u16]) -> Result<()> {
        self.start_with(&Runner { account: None, ..self.runner(name) }, name, daemon, ports)
    }

    fn start_with(&mut self, runner: &Runner, name: &str, daemon: &Daemon, ports: &[u16]) -> Result<()> {
        self.reap();
        if self.runs(name, daemon.name) {
            return Ok(());
        }
        for port in ports {
            ports::require_free(*port, &format!("{} of {name}", daemon.name))?;
        }
        let log = self.log_file(name, daemon.name);
        files::write(&log, b"", 0o600, self.account.as_ref())?;
        let output = OpenOptions::new().append(true).open(&log).map_err(Error::io("open", &log))?;
        let child = match self.lifetime {
            Lifetime::Bound => runner.spawn_bound(&daemon.program, &daemon.args, output, daemon.at_the_end)?,
            Lifetime::Detached => runner.spawn_detached(&daemon.program, &daemon.args, output)?,
        };
        self.children.push((name.to_owned(), daemon.name, child));
        Ok(())
    }

    /// Waits for a state, for as long as the program runs; `what` did not happen where it does not come about.
    pub(crate) async fn wait_for(
        &mut self,
        (name, program): (&str, &'static str),
        patience: Duration,
        what: &str,
        mut reached: impl AsyncFnMut(&Self) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            if reached(self).await {
                return Ok(());
            }
            self.reap();
            let log = || self.log_end(name, program);
            // What was started here is known better than by a look: the look sees nothing at the moment when a program begins.
            let known = self.children.iter().any(|(of, started, _)| of == name && *started == program);
            if !known && !self.runs(name, program) {
                return Err(Error::Part { program, what: format!("of {name} has ended"), log: log() });
            }
            if Instant::now() > deadline {
                let log = format!("the log of {program} ends with:\n{}", log());
                return Err(Error::Late { what: what.to_owned(), seconds: patience.as_secs(), log });
            }
            sleep(POLL).await;
        }
    }

    /// Forgets children that have ended. Until then the kernel keeps their numbers, and PostgreSQL takes those for running servers.
    pub(crate) fn reap(&mut self) {
        self.children.retain_mut(|(_, _, child)| matches!(child.try_wait(), Ok(None)));
    }

    /// The last lines of what it said.
    pub(crate) fn log_end(&self, name: &str, program: &str) -> String {
        let files = [Some(self.log_file(name, program)), files::newest(&self.home(name).join("log"))];
        let texts = files.into_iter().flatten().map(|file| fs::read(file).unwrap_or_default());
        let ends = texts.map(|text| last_lines(&String::from_utf8_lossy(&text), LOG_LINES));
        ends.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
    }

    /// Removes everything; nothing runs any more.
    pub(crate) fn remove(&self) -> Result<()> {
        files::remove_dir(&self.place.nodes)?;
        files::remove_dir(&self.dir)
    }

    /// What a program there says.
    pub(crate) fn log_file(&self, name: &str, program: &str) -> PathBuf {
        self.home(name).join(format!("{program}.log"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Bound {
            let deadline = std::time::Instant::now() + END_PATIENCE;
            while processes::end_tidily(&self.place.nodes) && std::time::Instant::now() < deadline {
                std::thread::sleep(POLL);
                self.reap();
            }
            while processes::kill_once(&self.place.nodes).is_some() {
                std::thread::sleep(POLL);
                self.reap();
            }
        }
    }
}

/// A password that is made once and kept.
fn secret(dir: &Path, of: &str) -> Result<SecretString> {
    let path = password_file(dir, of);
    if let Some(known) = files::read_if_there(&path)?.filter(|text| !text.is_empty()) {
        return Ok(known.into());
    }
    let password = Alphanumeric.sample_string(&mut rand::rng(), 32);
    files::write(&path, password.as_bytes(), 0o600, None)?;
    Ok(password.into())
}

fn password_file(dir: &Path, of: &str) -> PathBuf {
    dir.join(format!("{of}.password"))
}
