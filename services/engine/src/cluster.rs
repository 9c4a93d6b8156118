//! One shared cluster as this replica knows it: its primary, its connections, its stores.

mod reach;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use pgtenant_model::{ClusterSpec, History, HostPort, InvalidField, Maintenance, StoreSpec};
use pgtenant_postgres::{Server, ServerOptions, Timeouts};
use pgtenant_secrets::{Access, Stores};
use pgtenant_snapshots::Dumps;
use pgtenant_snapshots::pgbackrest::Repository;
use pgtenant_topology::{Observation, ProbeOptions, Pushes, Source, SwitchoverWish, Topology};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::aurora::AuroraWork;
use crate::failure::Cause;
use crate::login::Login;
use crate::restore::Leftovers;

/// After somebody began to use a cluster that pauses when nobody does, looks may come along for this time. A use within twice of it
/// does not make it longer, so that looks do not keep the cluster awake for one another.
const AWAKE: Duration = Duration::from_secs(60);

fn is_awake(woken: Option<Instant>, now: Instant) -> bool {
    woken.is_some_and(|since| now < since + AWAKE)
}

fn used(woken: Option<Instant>, now: Instant) -> Option<Instant> {
    let fresh = woken.is_none_or(|since| since + AWAKE * 2 < now);
    if fresh { Some(now) } else { woken }
}

/// A shared cluster under work.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) spec: ClusterSpec,
    pub(crate) stores: Stores,
    /// Stores that are to hold nothing any more.
    pub(crate) former: Option<Former>,
    pub(crate) wake: Arc<Notify>,
    /// A restore or a dump was asked for.
    pub(crate) restores: Notify,
    /// Another primary is wished for.
    pub(crate) switchovers: Notify,
    /// The cluster's status is not what it was a moment ago.
    pub(crate) look: Notify,
    /// Where dumps of its databases are kept.
    pub(crate) dumps: Option<Dumps>,
    /// Where backups of all of it are kept.
    pub(crate) backrest: Option<Repository>,
    pub(crate) access: Access,
    /// Held while somebody tries it.
    pub(crate) trial: Arc<tokio::sync::Mutex<()>>,
    source: Source,
    aurora: Option<AuroraWork>,
    /// When somebody began to use a cluster that sleeps.
    woken: Mutex<Option<Instant>>,
    /// Made when the cluster is first needed: the password may come later than the control plane.
    parts: Mutex<Option<Parts>>,
    /// What is wrong with what RDS keeps of it.
    kept: Mutex<Vec<InvalidField>>,
    /// What the newest of each kind shows that is kept of the whole of it.
    kept_at: Mutex<BTreeMap<&'static str, DateTime<Utc>>>,
    /// Copies of it that are left of restores.
    leftovers: Mutex<Leftovers>,
    /// The server refused the login: it may have been changed there and where it is read from.
    refused: AtomicBool,
    /// A store did not answer this replica when it was last asked.
    cut_off: AtomicBool,
    maintenance: Mutex<Option<Maintenance>>,
}

/// Where dumps of the cluster's databases are kept; nothing is connected.
pub(crate) fn dumps(spec: &ClusterSpec, access: &Access) -> Result<Option<Dumps>, InvalidField> {
    let wanted = spec.backups.as_ref().and_then(|backups| backups.dumps.as_ref());
    let access = pgtenant_snapshots::Access { aws: access.aws().clone(), ..pgtenant_snapshots::Access::default() };
    wanted.map(|spec| Dumps::new(spec, &access)).transpose()
}

/// Stores that are to hold nothing any more.
#[derive(Debug)]
pub(crate) struct Former {
    pub(crate) stores: Stores,
    /// Of their description: a claim that was cleaned for another list is cleaned again.
    pub(crate) digest: String,
}

#[derive(Debug, Clone)]
struct Parts {
    topology: Topology,
    login: Arc<Login>,
    server: Option<(HostPort, Server)>,
    /// The member behind a name that leads to whichever is the writer.
    writer: Option<String>,
}

impl Former {
    fn new(specs: &[StoreSpec], access: &Access) -> Result<Option<Self>, InvalidField> {
        if specs.is_empty() {
            return Ok(None);
        }
        let stores = Stores::from_specs("formerStores", specs, access)?;
        let text = serde_json::to_string(specs).unwrap_or_default();
        Ok(Some(Self { stores, digest: hex::encode(&Sha256::digest(text)[..8]) }))
    }
}

impl Cluster {
    /// Those that hold credentials, and those that may still.
    pub(crate) fn all_stores(&self) -> impl Iterator<Item = &Stores> {
        std::iter::once(&self.stores).chain(self.former.as_ref().map(|former| &former.stores))
    }

    pub(crate) fn new(name: String, spec: ClusterSpec, access: Access) -> Result<Self, InvalidField> {
        let stores = Stores::from_specs("stores", &spec.stores, &access)?;
        let former = Former::new(&spec.former_stores, &access)?;
        let dumps = dumps(&spec, &access)?;
        let backrest = spec.backups.as_ref().and_then(|backups| backups.pgbackrest.as_ref()).map(Repository::new);
        let source = Source::new(&spec.topology, access.aws());
        let aurora = source.aurora().map(AuroraWork::new);
        Ok(Self {
            source,
            aurora,
            woken: Mutex::default(),
            name,
            spec,
            stores,
            former,
            wake: Arc::default(),
            restores: Notify::new(),
            switchovers: Notify::new(),
            look: Notify::new(),
            dumps,
            backrest,
            access,
            trial: Arc::default(),
            parts: Mutex::default(),
            kept: Mutex::default(),
            kept_at: Mutex::default(),
            leftovers: Mutex::default(),
            refused: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            maintenance: Mutex::default(),
        })
    }

    /// What the ledger knows of where the data comes from: another replica may have seen more, and a person may have said what is right.
    pub(crate) fn remember(&self, history: Option<&History>) {
        history.into_iter().for_each(|history| self.source.remember(history));
    }

    /// Members that were seen before, by whichever replica.
    pub(crate) fn remember_members(&self, members: &[HostPort]) {
        self.source.remember_members(members);
    }

    /// Connections to the primary, found anew if it has moved. There are none while somebody works on the cluster.
    pub(crate) async fn server(&self) -> Result<Server, Cause> {
        if let Some(maintenance) = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(Cause::Maintenance { cluster: self.name.clone(), maintenance });
        }
        self.server_to_read().await
    }

    /// The same for whoever changes nothing, also while somebody works on the cluster.
    pub(crate) async fn server_to_read(&self) -> Result<Server, Cause> {
        let (topology, login) = self.parts().await?;
        self.note_use();
        let primary = topology.primary().await?;
        let mut parts = self.lock();
        let known = parts.as_ref().and_then(|parts| parts.server.as_ref());
        if let Some((_, server)) = known.filter(|(host, _)| *host == primary) {
            return Ok(server.clone());
        }
        let server = Server::new(ServerOptions {
            host: primary.host.clone(),
            port: primary.port,
            sslmode: self.spec.tls.sslmode,
            ca: login.ca.clone(),
            username: login.username.clone(),
            password: login.password.clone(),
            maintenance_database: self.spec.provisioner.database.clone(),
            application_name: "pgtenant".to_owned(),
            timeouts: self.timeouts(),
        })?;
        // Where the login was read anew meanwhile, this server is good for one use and not kept.
        if let Some(parts) = parts.as_mut().filter(|parts| Arc::ptr_eq(&parts.login, &login)) {
            parts.server = Some((primary, server.clone()));
        }
        Ok(server)
    }

    /// The members as they are now; [`Cluster::server`] waits for the same answer.
    pub(crate) async fn observe(&self) -> Result<Arc<Observation>, Cause> {
        let seen = self.parts().await?.0.observe().await;
        self.note_writer(&seen);
        Ok(seen)
    }

    /// Asks to be told of changes, where there is somebody who tells; why not, where that fails.
    pub(crate) async fn listen(&self) -> Result<Option<Pushes>, String> {
        let (topology, _) = self.parts().await.map_err(|cause| cause.to_string())?;
        topology.listen().await
    }

    /// Asks whoever decides for another primary, once; tells why not.
    pub(crate) async fn switch_over(&self, wish: &SwitchoverWish) -> Result<(), String> {
        let (topology, _) = self.parts().await.map_err(|cause| cause.to_string())?;
        topology.switch_over(wish).await.map_err(|refused| refused.to_string())
    }

    /// Connections to a member that is not the writer any more are let go of, where the name they were made by stays.
    fn note_writer(&self, seen: &Observation) {
        let Some(aurora) = self.source.aurora() else { return };
        let writer = aurora.last().and_then(|cluster| cluster.writer().map(ToOwned::to_owned));
        let mut parts = self.lock();
        let Some(parts) = parts.as_mut().filter(|_| seen.primary.is_some() && writer.is_some()) else { return };
        if parts.writer != writer && parts.writer.is_some() {
            tracing::warn!(cluster = self.name, before = parts.writer, now = writer, "the writer is another one");
            parts.server = None;
        }
        parts.writer = writer;
    }

    /// What is done for the cluster at AWS, where it is one of Aurora.
    pub(crate) fn aurora(&self) -> Option<&AuroraWork> {
        self.aurora.as_ref()
    }

    /// Whether it pauses when nobody is connected, and nobody had work for it in the last minute: then looks that nobody asked for
    /// are put off, since each would wake it.
    pub(crate) fn sleeps(&self) -> bool {
        let can_pause = self.source.aurora().is_some_and(|aurora| aurora.can_pause());
        can_pause && !is_awake(*self.woken(), Instant::now())
    }

    pub(crate) fn kept(&self) -> MutexGuard<'_, Vec<InvalidField>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn kept_at(&self) -> MutexGuard<'_, BTreeMap<&'static str, DateTime<Utc>>> {
        self.kept_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn leftovers(&self) -> MutexGuard<'_, Leftovers> {
        self.leftovers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_use(&self) {
        let mut woken = self.woken();
        *woken = used(*woken, Instant::now());
    }

    fn woken(&self) -> MutexGuard<'_, Option<Instant>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        let usual = Timeouts::default();
        match self.source.aurora().filter(|aurora| aurora.can_pause()) {
            Some(aurora) => Timeouts { connect: aurora.patience(usual.connect), idle: Duration::ZERO, ..usual },
            None => usual,
        }
    }

    /// `server` is not the primary any more, or does not answer: the next call finds it anew.
    pub(crate) fn moved(&self, server: &Server) {
        let mut parts = self.lock();
        let Some(Parts { topology, server: current, .. }) = parts.as_mut() else { return };
        let known = current.take_if(|(_, known)| {
            (&known.options().host, known.options().port) == (&server.options().host, server.options().port)
        });
        if let Some((host, _)) = known {
            topology.invalidate(&host);
            // Others wait for the next one, too, and somebody has to look until it is there.
            self.look.notify_one();
        }
    }

    /// Open connections to the cluster.
    pub(crate) fn connections(&self) -> usize {
        let parts = self.lock();
        parts.as_ref().and_then(|p| p.server.as_ref()).map_or(0, |(_, server)| server.connections())
    }

    /// Somebody works on the cluster from now on, or does not any more.
    pub(crate) fn set_maintenance(&self, maintenance: Option<Maintenance>) {
        *self.maintenance.lock().unwrap_or_else(PoisonError::into_inner) = maintenance;
    }

    /// Whether somebody works on the cluster.
    pub(crate) fn is_in_maintenance(&self) -> bool {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The server has refused the control plane's own login.
    pub(crate) fn login_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether the stores can be reached from here, as a look has just found.
    pub(crate) fn note_cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }

    /// Whether a store did not answer this replica when it was last asked.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Whether the login was refused since this was last asked.
    pub(crate) fn take_login_refused(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }

    /// Reads the login and the CA again; where they have changed, what was made with the former ones is let go of. Says whether
    /// they have.
    pub(crate) async fn refresh(&self) -> Result<bool, Cause> {
        let login = self.login().await?;
        let mut parts = self.lock();
        let changed = parts.as_ref().is_some_and(|parts| !parts.login.same(&login));
        if changed {
            tracing::info!(cluster = self.name, "the provisioner's login or the CA has changed");
            *parts = None;
        }
        Ok(changed)
    }

    /// Returns when somebody has found another primary than this, or none in its place.
    pub(crate) async fn sees_another_primary(&self, known: Option<String>) {
        let another = |seen: &Option<Arc<Observation>>| {
            let primary = |seen: &Arc<Observation>| seen.primary.as_ref().map(ToString::to_string);
            seen.as_ref().is_some_and(|seen| primary(seen) != known)
        };
        if let Ok((topology, _)) = self.parts().await
            && topology.subscribe().wait_for(another).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    async fn parts(&self) -> Result<(Topology, Arc<Login>), Cause> {
        let made = |parts: &Option<Parts>| parts.as_ref().map(|one| (one.topology.clone(), Arc::clone(&one.login)));
        if let Some(made) = made(&self.lock()) {
            return Ok(made);
        }
        let login = Arc::new(self.login().await?);
        let mut parts = self.lock();
        if let Some(made) = made(&parts) {
            return Ok(made);
        }
        let options = ProbeOptions {
            username: login.username.clone(),
            password: login.password.clone(),
            database: self.spec.provisioner.database.clone(),
            sslmode: self.spec.tls.sslmode,
            ca: login.ca.clone(),
            connect_timeout: ProbeOptions::CONNECT_TIMEOUT,
            tool: login.tool.clone(),
        };
        let topology = Topology::new(&self.source, options);
        *parts = Some(Parts { topology: topology.clone(), login: Arc::clone(&login), server: None, writer: None });
        Ok((topology, login))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Parts>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_along_and_do_not_keep_a_cluster_awake() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(!is_awake(None, start));
        let mut woken = used(None, start);
        assert!(is_awake(woken, at(59)));
        // A look that was begun in time and ends late begins no new minute.
        woken = used(woken, at(59));
        woken = used(woken, at(61));
        assert!(!is_awake(woken, at(62)));
        // Work later on does.
        woken = used(woken, at(121));
        assert!(is_awake(woken, at(122)) && !is_awake(woken, at(181)));
    }
}
