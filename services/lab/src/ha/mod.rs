//! Highly available clusters of every kind, for real, on this machine: what `pgtenant lab` runs, and what tests break.
//!
//! Each kind is in a file of its own, and does what its users do with the programs that they have. What all share is in
//! [`site`] (the folder), [`server`] (a PostgreSQL) and [`processes`] (what runs).

mod auto_failover;
mod haproxy;
mod keepalived;
mod kind;
mod look;
mod options;
mod patroni;
mod pgpool;
mod pool;
mod processes;
mod repmgr;
mod rotate;
mod server;
mod site;
mod state;
mod status;
mod streaming;

use std::fs;
use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::binaries::Binaries;
use crate::converge::Progress;
use crate::error::{Error, Result};
use crate::files;
use crate::lock::FolderLock;
use crate::pgbouncer::{self, PGBOUNCER};
use server::POSTGRES;
use site::Site;
use state::State;

pub use kind::LabKind;
pub use options::LabOptions;
pub use site::Lifetime;
pub use status::{LabAdmin, LabEndpoints, LabNode, LabPooler, LabRole, LabService, LabStatus};

/// For what is stopped at once.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// In this order: nothing restarts what was stopped, and nothing is without what it needs to stop.
const STOP_ORDER: [&[&str]; 4] = [
    &["keepalived", "pgbouncer", "haproxy", "pgpool", "health", "repmgrd"],
    &["patroni", "pg_autoctl"],
    &[POSTGRES],
    &["etcd"],
];
/// More are of no use on one machine.
const MOST_NODES: u16 = 9;

/// A highly available cluster on this machine: TLS and SCRAM only, loopback only, not as root.
///
/// What it is made of is in its folder, and what runs is found by command lines: any process may open it and go on, whatever
/// happened to the one before. Failures are noticed sooner than the kinds' own settings would have it: within 2 to 6 s.
#[derive(Debug)]
pub struct Lab {
    site: Site,
}

impl Lab {
    /// Makes the folder, or takes the lab that is there. Nothing is started yet. Packages that are missing are named.
    pub fn create(options: LabOptions) -> Result<Self> {
        let LabOptions { dir, kind, nodes, binaries, lifetime, fsync, health_program, pgbouncer, keepalived } = options;
        kind.require_packages(&binaries, pgbouncer)?;
        if pgbouncer {
            pgbouncer::locate()?;
        }
        if keepalived {
            keepalived::require(kind)?;
        }
        require_ours(&dir)?;
        files::make_dir(&dir, 0o711, None)?;
        let dir = fs::canonicalize(&dir).map_err(Error::io("find", &dir))?;
        let _lock = FolderLock::take(&dir)?;
        let mut state = match State::read(&dir)? {
            Some(state) if state.kind != kind => {
                return Err(Error::OtherKind { dir, found: state.kind.name(), wanted: kind.name() });
            }
            Some(state) => state,
            None => State::new(kind, fsync, None),
        };
        if let Some(nodes) = nodes.filter(|nodes| !state.nodes.is_empty() && usize::from(*nodes) != state.nodes.len()) {
            return Err(Error::Unsuited {
                what: format!("the lab in {} has {} nodes, not {nodes}", dir.display(), state.nodes.len()),
                instead: format!("`pgtenant lab scale {nodes}` changes that"),
            });
        }
        state.health_program = health_program.or(state.health_program);
        state.pgbouncer |= pgbouncer;
        if keepalived && state.network.is_none() {
            keepalived::require_new(&state, &dir)?;
            state.network = Some(keepalived::free_network()?);
        }
        if state.nodes.is_empty() {
            state.nodes = (1..=nodes.unwrap_or_else(|| kind.usual_nodes()).clamp(1, MOST_NODES)).collect();
        }
        state.write(&dir)?;
        Ok(Self { site: Site::open(&dir, state, binaries, lifetime)? })
    }

    /// The kind of the folder's lab; `None` where there is none.
    pub fn kind_of(dir: &Path) -> Result<Option<LabKind>> {
        Ok(State::read(dir)?.map(|state| state.kind))
    }

    /// The lab of a folder.
    pub fn open(dir: &Path, binaries: Binaries, lifetime: Lifetime) -> Result<Self> {
        let missing = || Error::NoLab { dir: dir.to_path_buf() };
        let state = State::read(dir)?.ok_or_else(missing)?;
        let dir = fs::canonicalize(dir).map_err(Error::io("find", dir))?;
        Ok(Self { site: Site::open(&dir, state, binaries, lifetime)? })
    }

    /// Starts what does not run, and makes what is not there. Call it again at any time: it goes on where an interrupted one was,
    /// and brings killed nodes back. `progress` gets short sentences for the user.
    pub async fn up(&mut self, mut progress: impl FnMut(&str) + Send) -> Result<()> {
        let _lock = self.site.lock()?;
        if let Some(place) = self.site.relocated() {
            let dir = self.site.dir.display();
            progress(&format!("the servers' user can not reach {dir}: their data is in {}", place.display()));
        }
        self.up_locked(&mut progress).await
    }

    async fn up_locked(&mut self, progress: Progress<'_>) -> Result<()> {
        let site = &mut self.site;
        match site.state.kind {
            LabKind::Streaming => streaming::up(site, progress).await,
            LabKind::Patroni => patroni::up(site, progress).await,
            LabKind::PgAutoFailover => auto_failover::up(site, progress).await,
            LabKind::Repmgr => pgpool::up(site, progress).await,
            LabKind::Haproxy => haproxy::up(site, progress).await,
        }?;
        pool::up(site, progress).await
    }

    /// SIGKILL to all processes of a node at once, as if its machine lost power, or to `haproxy` or `pgbouncer`. They are gone afterwards.
    pub async fn kill(&mut self, node: &str) -> Result<()> {
        let _lock = self.site.lock()?;
        let name = self.place(node)?;
        keepalived::unplug(&self.site, &name)?;
        processes::kill(&self.site.home(&name)).await
    }

    /// Starts a node, which takes part again when this returns, rewound or copied anew where that was needed; or `haproxy` or `pgbouncer`.
    pub async fn start(&mut self, node: &str, mut progress: impl FnMut(&str) + Send) -> Result<()> {
        let _lock = self.site.lock()?;
        let name = self.place(node)?;
        let site = &mut self.site;
        match name.as_str() {
            haproxy::HAPROXY | keepalived::FIRST | keepalived::SECOND => {
                return haproxy::start_haproxy(site, &mut progress).await;
            }
            PGBOUNCER => return pool::start(site, &mut progress).await,
            _ => {}
        }
        match site.state.kind {
            LabKind::Streaming => streaming::start(site, &name, &mut progress).await,
            LabKind::Patroni => patroni::start(site, &name, &mut progress).await,
            LabKind::PgAutoFailover => auto_failover::start(site, &name, &mut progress).await,
            LabKind::Repmgr => pgpool::start(site, &name, &mut progress).await,
            LabKind::Haproxy => haproxy::start(site, &name, &mut progress).await,
        }?;
        pool::rejoin(site, &name, &mut progress).await
    }

    /// Makes a standby the primary, by hand: only for [`LabKind::Streaming`], where nothing else does.
    pub async fn promote(&mut self, node: &str, mut progress: impl FnMut(&str) + Send) -> Result<()> {
        let _lock = self.site.lock()?;
        let name = self.node(node)?;
        let site = &mut self.site;
        match site.state.kind {
            LabKind::Streaming => streaming::promote(site, &name, &mut progress).await,
            kind => Err(Error::Unsuited {
                what: format!("a lab of kind {kind} promotes by itself"),
                instead: "kill the primary (`pgtenant lab kill NODE`), or ask the kind's own tool for a switchover"
                    .to_owned(),
            }),
        }
    }

    /// Adds nodes, or takes standbys away with their data, the last ones first.
    pub async fn scale(&mut self, nodes: u16, mut progress: impl FnMut(&str) + Send) -> Result<()> {
        let _lock = self.site.lock()?;
        if nodes == 0 || nodes > MOST_NODES {
            return Err(Error::Unsuited {
                what: format!("a lab can not have {nodes} nodes"),
                instead: format!("it has 1 to {MOST_NODES}; `pgtenant lab down` stops all of them"),
            });
        }
        while self.site.state.nodes.len() > usize::from(nodes) {
            self.remove_one(&mut progress).await?;
        }
        while self.site.state.nodes.len() < usize::from(nodes) {
            let unused = (1..).find(|number| !self.site.state.nodes.contains(number)).unwrap_or_default();
            self.site.state.nodes.push(unused);
        }
        self.site.state.nodes.sort_unstable();
        self.site.state.write(&self.site.dir)?;
        self.up_locked(&mut progress).await
    }

    async fn remove_one(&mut self, progress: Progress<'_>) -> Result<()> {
        let primary = self.site.primary().await.ok_or_else(|| Error::Unsuited {
            what: "no node is taken away while there is no primary".to_owned(),
            instead: "bring it back first: `pgtenant lab up`".to_owned(),
        })?;
        let names = self.site.nodes();
        let Some(name) = names.iter().rev().find(|name| **name != primary) else { return Ok(()) };
        progress(&format!("taking {name} away"));
        stop(&self.site.home(name)).await?;
        let site = &mut self.site;
        match site.state.kind {
            LabKind::Streaming => streaming::forget(site, name).await?,
            LabKind::Patroni => {}
            LabKind::PgAutoFailover => auto_failover::forget(site, name).await?,
            LabKind::Repmgr | LabKind::Haproxy => repmgr::forget(site, name).await?,
        }
        site.forget(name)
    }

    /// Stops everything; data and ports stay.
    pub async fn down(&mut self, mut progress: impl FnMut(&str) + Send) -> Result<()> {
        let _lock = self.site.lock()?;
        self.down_locked(&mut progress).await
    }

    /// Stops everything, and removes the folder.
    pub async fn remove(mut self, mut progress: impl FnMut(&str) + Send) -> Result<()> {
        let _lock = self.site.lock()?;
        self.down_locked(&mut progress).await?;
        progress(&format!("removing {}", self.site.dir.display()));
        self.site.remove()
    }

    async fn down_locked(&mut self, progress: Progress<'_>) -> Result<()> {
        let running = self.running();
        if !running.is_empty() {
            progress(&format!("stopping {}", running.join(", ")));
        }
        stop(self.site.homes()).await?;
        keepalived::remove(&self.site)
    }

    /// `node-1`, or `1`.
    fn node(&self, given: &str) -> Result<String> {
        among(given, self.site.nodes())
    }

    /// The same, or one of those in front of the nodes.
    fn place(&self, given: &str) -> Result<String> {
        let mut known = self.site.nodes();
        known.extend(pool::in_front(&self.site).into_iter().map(str::to_owned));
        among(given, known)
    }
}

fn among(given: &str, known: Vec<String>) -> Result<String> {
    let wanted = [given.to_owned(), format!("node-{given}")];
    let found = known.iter().find(|name| wanted.contains(name)).cloned();
    found.ok_or_else(|| Error::NoSuchNode { name: given.to_owned(), known: known.join(", ") })
}

async fn stop(dir: &Path) -> Result<()> {
    for programs in STOP_ORDER {
        processes::stop(dir, programs, STOP_PATIENCE).await?;
    }
    // What was being made.
    processes::kill(dir).await
}

/// A folder that has something else in it must not be taken, since `remove` would delete it.
fn require_ours(dir: &Path) -> Result<()> {
    let foreign = |name: &std::ffi::OsStr| name != "lock";
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut others = entries.filter(|entry| foreign(&entry.file_name()));
    if others.next().is_some() && State::read(dir)?.is_none() {
        return Err(Error::NotALab { dir: dir.to_path_buf() });
    }
    Ok(())
}

/// What the server keeps of a password: the password itself is sent nowhere.
fn verifier(password: &SecretString) -> Zeroizing<String> {
    use secrecy::ExposeSecret as _;
    Zeroizing::new(postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes()))
}
