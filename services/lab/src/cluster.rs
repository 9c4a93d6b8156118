//! A primary and a standby under one folder.
//!
//! ```text
//! cluster.json         ports and superuser, so that they stay
//! lock                 held while a process has the cluster open
//! superuser.password   0600
//! ca.crt ca.key        the authority of the servers' certificates
//! nodes/node-{1,2}/    one server each; `nodes` may be a link, see `Cluster::relocated`
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::distr::{Alphanumeric, SampleString};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::control;
use crate::error::{Error, Result};
use crate::files;
use crate::lock::FolderLock;
use crate::node::{Node, NodeOptions};
use crate::place;
use crate::ports::free_port;
use crate::tls::CertificateAuthority;

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// All is kept under it. The caller makes the folders above it such that all may pass (0711), or else see
    /// [`Cluster::relocated`].
    pub dir: PathBuf,
    /// The programs. A cluster that another version made is opened with that version's, if they are installed and these were not
    /// named by the user.
    pub binaries: Binaries,
    /// Of the first and the second server. `None`: as before, and at first any that is free.
    pub ports: [Option<u16>; 2],
    /// Whether there is to be a standby.
    pub standby: bool,
    /// `false`: faster, and a crash of the machine may lose the data.
    pub fsync: bool,
    /// Further settings for both servers, which win over the lab's own.
    pub extra_conf: Vec<(String, String)>,
    /// Name of the superuser; an existing cluster keeps its own.
    pub superuser: String,
}

impl ClusterOptions {
    /// With a standby, with fsync, superuser `postgres`.
    pub fn new(dir: impl Into<PathBuf>, binaries: Binaries) -> Self {
        let superuser = "postgres".to_owned();
        let (ports, extra_conf) = ([None, None], Vec::new());
        Self { dir: dir.into(), binaries, ports, standby: true, fsync: true, extra_conf, superuser }
    }
}

/// A running primary and its standby. Dropping it ends both.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) dir: PathBuf,
    pub(crate) nodes: [Node; 2],
    pub(crate) primary: usize,
    pub(crate) standby: bool,
    authority: Arc<CertificateAuthority>,
    password: SecretString,
    place: place::Place,
    version: String,
    _lock: FolderLock,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    id: String,
    superuser: String,
    ports: [u16; 2],
}

impl Cluster {
    /// Opens the cluster of the folder, or makes one, and starts it as [`Cluster::start`] does. `progress` gets short sentences for the
    /// user.
    pub async fn open_or_create(options: ClusterOptions, mut progress: impl FnMut(&str) + Send) -> Result<Self> {
        let mut cluster = Self::open(options)?;
        if let Some(place) = cluster.relocated() {
            progress(&format!(
                "the servers' user can not reach {}: their data is in {}",
                cluster.dir.display(),
                place.display()
            ));
        }
        for orphan in &cluster.place.orphans {
            progress(&format!("{} is left of an earlier cluster of this folder and no longer used", orphan.display()));
        }
        cluster.converge(&mut progress).await?;
        Ok(cluster)
    }

    /// Brings the cluster to what it should be, from whatever it is in: starts what does not run; where both servers were primaries,
    /// the one with the newer timeline stays and the other is copied anew from it; a standby that can not follow is copied anew.
    /// Call it again at any time, such as after a failover.
    pub async fn start(&mut self, mut progress: impl FnMut(&str) + Send) -> Result<()> {
        self.converge(&mut progress).await
    }

    /// Adds the standby, if there is none yet.
    pub async fn start_standby(&mut self, mut progress: impl FnMut(&str) + Send) -> Result<()> {
        self.standby = true;
        self.converge(&mut progress).await
    }

    /// Stops the primary first, so that the standby gets all of its log, then the standby.
    pub async fn stop(&mut self) -> Result<()> {
        self.nodes[self.primary].stop().await?;
        self.nodes[1 - self.primary].stop().await
    }

    /// Stops the primary if it runs, and makes the standby the primary. [`Cluster::start`] then makes a standby of the old one.
    pub async fn promote_standby(&mut self) -> Result<()> {
        let other = 1 - self.primary;
        if !self.nodes[other].is_running() || !self.nodes[other].is_standby() {
            return Err(Error::NoStandby { dir: self.dir.clone() });
        }
        self.nodes[self.primary].stop().await?;
        self.nodes[other].promote().await?;
        self.primary = other;
        Ok(())
    }

    /// Stops the servers and removes all that is under the cluster's folder, and what is kept elsewhere for it.
    pub async fn destroy(mut self) -> Result<()> {
        self.stop().await?;
        files::remove_dir(&self.place.nodes)?;
        files::remove_dir(&self.dir)
    }

    /// The primary as of the last start or promotion through this.
    pub fn primary(&mut self) -> &mut Node {
        &mut self.nodes[self.primary]
    }

    /// The standby, or the server that can be one; `None` if the cluster is to have none.
    pub fn standby(&mut self) -> Option<&mut Node> {
        self.standby.then(|| &mut self.nodes[1 - self.primary])
    }

    /// Login of the superuser to database `postgres` on the primary, `verify-full`.
    pub fn superuser(&self) -> PgConnectOptions {
        self.nodes[self.primary].superuser()
    }

    /// The superuser's password.
    pub fn superuser_password(&self) -> &SecretString {
        &self.password
    }

    /// `localhost:PORT` of each server, the first one first, whichever is the primary.
    pub fn hosts(&self) -> Vec<String> {
        let count = if self.standby { 2 } else { 1 };
        let mut nodes: Vec<&Node> = self.nodes.iter().collect();
        if !self.standby {
            nodes.rotate_left(self.primary);
        }
        nodes.into_iter().take(count).map(|node| format!("localhost:{}", node.port())).collect()
    }

    /// The root certificate that clients need.
    pub fn ca_file(&self) -> PathBuf {
        self.authority.certificate_file()
    }

    /// The authority that signs the servers' certificates; it may sign others of this machine.
    pub fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// PostgreSQL's version, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the data lies when the servers' user may not pass through a folder above the cluster's (`/root`, for one): a folder
    /// under `/var/lib/pgtenant` then, to which `nodes` is a link. Tell the user.
    pub fn relocated(&self) -> Option<&Path> {
        self.place.relocated.then_some(self.place.nodes.as_path())
    }

    /// Nothing is started here.
    fn open(options: ClusterOptions) -> Result<Self> {
        let dir = &options.dir;
        files::make_dir(dir, 0o711, None)?;
        let dir = fs::canonicalize(dir).map_err(Error::io("find", dir))?;
        let lock = FolderLock::take(&dir)?;
        let account = Account::for_servers()?;
        let (state, password) = load_or_create(&dir, &options)?;
        let authority = Arc::new(CertificateAuthority::open_or_create(&dir)?);
        let place = place::place(&dir, &state.id, account.as_ref())?;
        let names = ["node-1", "node-2"];
        let binaries = fitting_binaries(options.binaries, &names.map(|name| place.nodes.join(name).join("data")))?;
        if options.standby {
            binaries.program("pg_basebackup")?;
        }
        let version = binaries.version().to_owned();
        let node = |index: usize| {
            let options = NodeOptions {
                name: names[index].to_owned(),
                dir: place.nodes.join(names[index]),
                port: state.ports[index],
                binaries: binaries.clone(),
                fsync: options.fsync,
                extra_conf: options.extra_conf.clone(),
                superuser: state.superuser.clone(),
                password: password.clone(),
            };
            Node::new(options, authority.clone())
        };
        let nodes = [node(0)?, node(1)?];
        let standby = options.standby;
        Ok(Self { dir, nodes, primary: 0, standby, authority, password, place, version, _lock: lock })
    }
}

/// The password is written first: a cluster that is known has one.
fn load_or_create(dir: &Path, options: &ClusterOptions) -> Result<(State, SecretString)> {
    let (path, password_path) = (dir.join("cluster.json"), dir.join("superuser.password"));
    let mut random = rand::rng();
    let (mut state, password) = match files::read_if_there(&path)? {
        Some(text) => {
            let state = serde_json::from_str(&text).map_err(|source| Error::Damaged { path: path.clone(), source })?;
            let password = fs::read_to_string(&password_path).map_err(Error::io("read", &password_path))?;
            (state, password)
        }
        None => {
            let password = Alphanumeric.sample_string(&mut random, 32);
            files::write(&password_path, password.as_bytes(), 0o600, None)?;
            let first = free_port();
            let second = std::iter::repeat_with(free_port).find(|port| *port != first).unwrap_or(first + 1);
            let id = Alphanumeric.sample_string(&mut random, 8).to_ascii_lowercase();
            (State { id, superuser: options.superuser.clone(), ports: [first, second] }, password)
        }
    };
    for (port, chosen) in state.ports.iter_mut().zip(options.ports) {
        *port = chosen.unwrap_or(*port);
    }
    let text = serde_json::to_string_pretty(&state).map_err(|source| Error::Damaged { path: path.clone(), source })?;
    files::write(&path, text.as_bytes(), 0o644, None)?;
    Ok((state, password.into()))
}

/// The version that made the data, where that is there and nobody asked for another.
fn fitting_binaries(given: Binaries, data: &[PathBuf]) -> Result<Binaries> {
    for folder in data {
        let Some(major) = control::data_version(folder)?.filter(|major| *major != given.major()) else {
            continue;
        };
        let other = if given.chosen() { None } else { Binaries::of_major(major).ok() };
        return match other {
            Some(other) => Ok(other),
            None => Err(Error::VersionMismatch { dir: folder.clone(), data: major, server: given.major() }),
        };
    }
    Ok(given)
}
