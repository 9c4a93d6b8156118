//! What is seen of a cluster while nobody asks: its primary, what would bite later, and what a killed process left.

mod inspect;
mod pace;
mod pushed;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::{OptionFuture, join4};
use metrics::gauge;
use pgtenant_ledger::{
    Ledger, LedgerError, LoginWish, NewEvent, append_event, cluster, login_wish, look_soon, retry_now,
    set_cluster_status, within_deadline,
};
use pgtenant_model::{ClusterStatus, EventKind, InvalidField, Member, MemberRole, ProvisionerStatus};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::EngineSettings;
use crate::aurora::Told;
use crate::cluster::Cluster;
use crate::failure::Cause;
use crate::provisioner::Kept;
use crate::proxy::Proxy;
use crate::switchover::Switchovers;
use crate::watch::pace::Pace;

/// After a change of the primary every credential is looked at within this time, since it may name the endpoint.
const SPREAD_AFTER_FAILOVER: Duration = Duration::from_secs(10);
/// An unchanged status is written again after this time, so that `observedAt` is never older.
const STATUS_AGE: Duration = Duration::from_secs(60);
/// Between two looks, whatever is seen meanwhile.
const SHORTEST: Duration = Duration::from_millis(250);
/// How often the provisioner's login and the CA are read again.
const LOGIN_AGE: Duration = Duration::from_secs(60);
/// How often a password is tried to be replaced that a person has to mend first.
const LOGIN_RETRY: Duration = Duration::from_secs(3600);
/// How often the cluster is checked for what would bite later, and for what is left on it.
const INSPECTION: Duration = Duration::from_secs(300);

/// One cluster's watch in this replica.
pub(crate) struct Watch<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) cluster: &'a Cluster,
    pub(crate) settings: &'a EngineSettings,
}

/// What was last written, and when.
#[derive(Default)]
struct Memory {
    written: Option<(ClusterStatus, Instant)>,
    /// The primary that was seen last, whether it could be written down or not.
    seen: Option<String>,
    inspected: Option<Instant>,
    login_read: Option<Instant>,
    pace: Pace,
    preflight: Vec<InvalidField>,
    max_connections: Option<u32>,
    /// What RDS said, and when.
    told: Option<(Told, Instant)>,
    /// The identity of the cluster that was there, once the ledger was asked for it.
    identity: Option<Option<String>>,
    /// When the own logins are kept again, and when somebody had asked for another password by the last time.
    login_kept: Option<(Instant, Option<DateTime<Utc>>)>,
    login_problem: Option<InvalidField>,
    provisioner: Option<ProvisionerStatus>,
    /// Half-made databases that nobody claimed at the last inspection.
    orphans: Vec<String>,
}

impl Memory {
    /// Whether it can not be used.
    fn in_trouble(&self) -> bool {
        self.written.as_ref().is_some_and(|(status, _)| status.primary.is_none())
    }
}

impl Watch<'_> {
    /// Watches until `stop`.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let mut memory = Memory::default();
        let proxy = Proxy::of(self.ledger, self.cluster);
        // Of Aurora RDS is asked, which answers only so often.
        let leaderless = if self.cluster.aurora().is_some() { pace::UNWELL } else { pace::LEADERLESS };
        let looks = async {
            loop {
                self.look(&mut memory, proxy.as_ref()).await;
                let wait = memory.pace.wait(self.settings.watch_interval, leaderless);
                let known = memory.seen.clone();
                tokio::time::sleep(SHORTEST.min(wait)).await;
                // Whoever works on claims finds a new primary first, and whoever asks for a look is answered by it.
                let called = async {
                    tokio::select! {
                        () = self.cluster.look.notified() => {}
                        () = self.cluster.sees_another_primary(known) => {}
                    }
                };
                timeout(wait.saturating_sub(SHORTEST), called).await.ok();
            }
        };
        let registering = OptionFuture::from(proxy.as_ref().map(|proxy| proxy.keep(self.settings.watch_interval)));
        let switchovers = Switchovers { ledger: self.ledger, cluster: self.cluster };
        let listening = pushed::listen(self.cluster);
        stop.run_until_cancelled(join4(looks, registering, switchovers.run(), listening)).await;
        gauge!("pgtenant_cluster_split_brain", "cluster" => self.cluster.name.clone()).set(0.0);
    }

    async fn look(&self, memory: &mut Memory, proxy: Option<&Proxy<'_>>) {
        self.learn(memory).await;
        let unmade = self.make(memory).await;
        self.read_login(memory).await;
        let mut status = match self.cluster.observe().await {
            Ok(observation) => observation.status(),
            Err(cause) => ClusterStatus { problem: Some(cause.to_string()), ..ClusterStatus::default() },
        };
        memory.seen.clone_from(&status.primary);
        // Also of what can not be written down: the ledger may be on the same cluster.
        memory.pace.note(&status);
        if status.primary.is_none() {
            status.problem = unmade.or(status.problem);
        }
        self.ask_rds(memory).await;
        let left_alone = self.cluster.is_in_maintenance();
        if !left_alone {
            self.keep_own_login(memory).await;
        }
        let due = memory.inspected.is_none_or(|at| at.elapsed() > INSPECTION);
        if status.primary.is_some() && due && !left_alone && !self.cluster.sleeps() {
            match self.inspect(memory).await {
                Ok(()) => memory.inspected = Some(Instant::now()),
                Err(failure) => {
                    tracing::warn!(
                        cluster = self.cluster.name,
                        step = failure.step,
                        "inspection: {}",
                        failure.message()
                    );
                }
            }
        }
        gauge!("pgtenant_cluster_split_brain", "cluster" => self.cluster.name.clone())
            .set(u8::from(status.split_brain));
        status.preflight.clone_from(&memory.preflight);
        status.max_connections = memory.max_connections;
        status.preflight.extend(memory.login_problem.clone());
        status.provisioner.clone_from(&memory.provisioner);
        if let Some((told, _)) = &memory.told {
            status.preflight.extend(told.preflight.iter().cloned());
            status.drift.clone_from(&told.drift);
        }
        status.preflight.extend(self.cluster.findings_of_restores());
        status.preflight.extend(proxy.map(Proxy::findings).unwrap_or_default());
        let known = memory.written.as_ref();
        if known.is_some_and(|(before, at)| same(before, &status) && at.elapsed() < STATUS_AGE) {
            return;
        }
        match self.record(&status).await {
            Ok(()) => {
                memory.identity = memory.identity.take().map(|before| status.identity.clone().or(before));
                memory.written = Some((status, Instant::now()));
            }
            Err(error) => tracing::warn!(cluster = self.cluster.name, error = ?error, "status not written"),
        }
    }

    /// While nobody is written to: what a person has said, or another replica has seen.
    async fn learn(&self, memory: &Memory) {
        if !memory.in_trouble() && memory.written.is_some() {
            return;
        }
        let read = async { cluster(&mut *self.ledger.acquire().await?, &self.cluster.name).await };
        match within_deadline(read).await {
            Ok(known) => self.cluster.remember(known.and_then(|known| known.status.0.history).as_ref()),
            Err(error) => tracing::warn!(cluster = self.cluster.name, error = ?error, "the ledger does not answer"),
        }
    }

    /// Goes on with making the cluster, where that is wanted; tells why it can not.
    async fn make(&self, memory: &mut Memory) -> Option<String> {
        self.cluster.aurora()?;
        if memory.identity.is_none() {
            let read = async { cluster(&mut *self.ledger.acquire().await?, &self.cluster.name).await };
            match read.await {
                Ok(known) => memory.identity = Some(known.and_then(|known| known.status.0.identity)),
                // A cluster that was there is not to be made anew because that is not known.
                Err(error) => {
                    tracing::warn!(cluster = self.cluster.name, error = ?error, "the ledger does not answer");
                    return None;
                }
            }
        }
        self.cluster.make(memory.identity.clone().flatten().as_deref()).await
    }

    /// Asks RDS at the pace of inspections: nobody connects to the cluster for it.
    async fn ask_rds(&self, memory: &mut Memory) {
        if memory.told.as_ref().is_none_or(|(_, at)| at.elapsed() > INSPECTION)
            && let Some(told) = self.cluster.ask_rds().await
        {
            memory.told = Some((told, Instant::now()));
        }
    }

    /// Reads the login again when it is old, when it was refused, and more often while the cluster can not be used.
    async fn read_login(&self, memory: &mut Memory) {
        let older = |than: Duration| memory.login_read.is_none_or(|at| at.elapsed() > than);
        let (old, refused) = (older(LOGIN_AGE), self.cluster.take_login_refused());
        let due = refused || old || (memory.in_trouble() && older(pace::UNWELL.0));
        if !due {
            return;
        }
        if let Some(aurora) = self.cluster.aurora().filter(|_| refused || memory.in_trouble()) {
            aurora.doubt_login();
        }
        memory.login_read = Some(Instant::now());
        let changed = match self.cluster.refresh().await {
            Ok(changed) => changed,
            // What can not be read now does not undo what was read before.
            Err(cause) if old => {
                return tracing::warn!(
                    cluster = self.cluster.name,
                    "the provisioner's login was not read again: {cause}"
                );
            }
            Err(_) => return,
        };
        if changed {
            // What failed for it would wait for minutes.
            let again = async { retry_now(&mut *self.ledger.acquire().await?, &self.cluster.name).await };
            if let Err(error) = again.await {
                tracing::warn!(cluster = self.cluster.name, error = ?error, "claims are not tried again now");
            }
        }
    }

    /// Does what is due with the control plane's own logins, when somebody asks and otherwise once a minute.
    async fn keep_own_login(&self, memory: &mut Memory) {
        if self.cluster.spec.provisioner.kept_secret().is_none() || memory.in_trouble() {
            return;
        }
        let read = async { login_wish(&mut *self.ledger.acquire().await?, &self.cluster.name).await };
        let Ok(Some(LoginWish { asked_at: asked, now, seen })) = read.await else { return };
        let fresh = memory.login_kept.is_some_and(|(again, before)| Instant::now() < again && before == asked);
        let turned_elsewhere = seen.is_some() && seen != memory.provisioner;
        if turned_elsewhere {
            self.use_own_login().await;
        } else if fresh {
            return;
        }
        memory.login_kept = Some((Instant::now() + LOGIN_AGE, asked));
        match self.cluster.keep_own_login(asked, now).await {
            Ok(kept) => {
                memory.login_problem = None;
                // Another replica is at it: until the next look the status that is written here is the one of before.
                memory.login_kept = memory.login_kept.filter(|_| kept.is_some());
                let Some(Kept { status, turned }) = kept else { return };
                let before = memory.provisioner.replace(status);
                if turned {
                    self.tell_of_turn(memory).await;
                } else if before != memory.provisioner {
                    self.use_own_login().await;
                }
            }
            Err(cause) => {
                tracing::warn!(cluster = self.cluster.name, "the provisioner's password was not replaced: {cause}");
                // A person has to do something, and asks again; until then a cluster that pauses is not kept awake.
                if matches!(cause, Cause::Settings(_)) {
                    memory.login_kept = Some((Instant::now() + LOGIN_RETRY, asked));
                }
                memory.login_problem = Some(InvalidField::new("provisioner", cause.to_string()));
            }
        }
    }

    async fn tell_of_turn(&self, memory: &mut Memory) {
        let (name, login) = (self.cluster.name.as_str(), memory.provisioner.as_ref().map(|one| one.login.clone()));
        let message = format!("cluster {name}: the control plane logs in as {} now", login.unwrap_or_default());
        tracing::info!(cluster = name, "{message}");
        let event = NewEvent { kind: EventKind::ClusterChanged, namespace: None, name, message, detail: json!({}) };
        let written = async { append_event(&mut *self.ledger.acquire().await?, event).await };
        if let Err(error) = written.await {
            tracing::warn!(cluster = name, error = ?error, "event not written");
        }
        self.use_own_login().await;
    }

    async fn use_own_login(&self) {
        if let Err(cause) = self.cluster.refresh().await {
            tracing::warn!(cluster = self.cluster.name, "the provisioner's login was not read again: {cause}");
        }
    }

    /// Writes the status; a change of the primary is an event, and every claim is looked at soon.
    async fn record(&self, status: &ClusterStatus) -> Result<(), LedgerError> {
        let name = self.cluster.name.as_str();
        let mut tx = self.ledger.begin().await?;
        let before = set_cluster_status(&mut tx, name, status).await?;
        self.cluster.remember(before.history.as_ref());
        let known = before.observed_at.is_some();
        let writer = |status: &ClusterStatus| {
            let mut members = status.members.iter().filter(|member| member.role == MemberRole::Primary);
            members.next().map(|member| member.host.clone())
        };
        // A name that leads to whichever is the writer stays.
        if let (Some(old), Some(new)) = (writer(&before), writer(status))
            && old != new
            && before.primary == status.primary
        {
            let message = format!("cluster {name}: the writer is {new}, before it was {old}");
            tracing::warn!(cluster = name, "{message}");
            let detail = json!({"before": old, "after": new});
            let event = NewEvent { kind: EventKind::ClusterChanged, namespace: None, name, message, detail };
            append_event(&mut tx, event).await?;
        }
        if known && before.primary != status.primary {
            if status.primary.is_some() {
                look_soon(&mut tx, name, SPREAD_AFTER_FAILOVER).await?;
            }
            let message = match (&before.primary, &status.primary) {
                (Some(old), Some(new)) => format!("cluster {name}: the primary is {new}, before it was {old}"),
                (None, Some(new)) => format!("cluster {name}: {new} is the primary"),
                (_, None) => format!(
                    "cluster {name}: no primary: {}",
                    status.problem.as_deref().unwrap_or("no host answers as one")
                ),
            };
            tracing::warn!(cluster = name, "{message}");
            let detail = json!({"before": before.primary, "after": status.primary, "problem": status.problem,
                                "splitBrain": status.split_brain});
            let event = NewEvent { kind: EventKind::ClusterChanged, namespace: None, name, message, detail };
            append_event(&mut tx, event).await?;
        }
        Ok(tx.commit().await?)
    }
}

/// Whether two looks saw the same, apart from the time and how far standbys are behind.
fn same(a: &ClusterStatus, b: &ClusterStatus) -> bool {
    let member = |m: &Member| (m.host.clone(), m.role, m.timeline, m.sync, m.tool.clone(), m.is_well());
    let members = |s: &ClusterStatus| s.members.iter().map(member).collect::<Vec<_>>();
    a.primary == b.primary
        && a.version == b.version
        && a.problem == b.problem
        && a.preflight == b.preflight
        && a.drift == b.drift
        && a.max_connections == b.max_connections
        && a.identity == b.identity
        && (&a.history, &a.refused) == (&b.history, &b.refused)
        && a.provisioner == b.provisioner
        && members(a) == members(b)
}
