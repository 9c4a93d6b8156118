//! What is seen of a cluster while nobody asks: its primary, what would bite later, and what a killed process left.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::{OptionFuture, join3};
use metrics::gauge;
use pgtenant_ledger::{
    ClaimFilter, Ledger, LedgerError, LoginWish, NewEvent, append_event, claims, cluster, login_wish, look_soon,
    retry_now, set_cluster_status, within_deadline,
};
use pgtenant_model::{ClaimKey, ClusterStatus, EventKind, InvalidField, Member, MemberRole, ProvisionerStatus};
use pgtenant_postgres::{
    Session, claims_on_cluster, drop_half_made, drop_roles_put_aside, extension_problems, half_made, preflight,
};
use rand::RngExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::EngineSettings;
use crate::aurora::Told;
use crate::cluster::Cluster;
use crate::failure::{Cause, Failure};
use crate::provisioner::Kept;
use crate::proxy::Proxy;
use crate::switchover::Switchovers;

/// After a change of the primary every credential is looked at within this time, since it may name the endpoint.
const SPREAD_AFTER_FAILOVER: Duration = Duration::from_secs(10);
/// An unchanged status is written again after this time, so that `observedAt` is never older.
const STATUS_AGE: Duration = Duration::from_secs(60);
/// How often a cluster is looked at that can not be used, at first: somebody waits for it, and may have just mended it. For how
/// long.
const TROUBLE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How often the provisioner's login and the CA are read again.
const LOGIN_AGE: Duration = Duration::from_secs(60);
/// How often a password is tried to be replaced that a person has to mend first.
const LOGIN_RETRY: Duration = Duration::from_secs(3600);
/// How often the cluster is checked for what would bite later, and for what is left on it.
const INSPECTION: Duration = Duration::from_secs(300);
/// How many databases without a claim are told of one by one.
const MOST_UNCLAIMED: usize = 20;

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
    inspected: Option<Instant>,
    login_read: Option<Instant>,
    /// Since when it can not be used.
    trouble: Option<Instant>,
    preflight: Vec<InvalidField>,
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
    /// Until the next look, which is after about `usual`, or sooner. With jitter, so that replicas do not look together.
    fn wait(&mut self, usual: Duration) -> Duration {
        let in_trouble = self.written.as_ref().is_some_and(|(status, _)| status.primary.is_none());
        let since = in_trouble.then(|| *self.trouble.get_or_insert_with(Instant::now));
        self.trouble = since;
        let fresh = since.is_some_and(|since| since.elapsed() < TROUBLE.1);
        let wait = if fresh { usual.min(TROUBLE.0) } else { usual };
        wait.mul_f64(rand::rng().random_range(0.9..=1.1))
    }
}

impl Watch<'_> {
    /// Watches until `stop`.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let mut memory = Memory::default();
        let proxy = Proxy::of(self.ledger, self.cluster);
        let looks = async {
            loop {
                self.look(&mut memory, proxy.as_ref()).await;
                let wait = memory.wait(self.settings.watch_interval);
                // Whoever asks for a look is answered by it, or waits no longer than otherwise.
                let _ = tokio::time::timeout(wait, self.cluster.look.notified()).await;
            }
        };
        let registering = OptionFuture::from(proxy.as_ref().map(|proxy| proxy.keep(self.settings.watch_interval)));
        let switchovers = Switchovers { ledger: self.ledger, cluster: self.cluster };
        stop.run_until_cancelled(join3(looks, registering, switchovers.run())).await;
    }

    async fn look(&self, memory: &mut Memory, proxy: Option<&Proxy<'_>>) {
        self.learn(memory).await;
        let unmade = self.make(memory).await;
        self.read_login(memory).await;
        let mut status = match self.cluster.observe().await {
            Ok(observation) => observation.status(),
            Err(cause) => ClusterStatus { problem: Some(cause.to_string()), ..ClusterStatus::default() },
        };
        if status.primary.is_none() {
            status.problem = unmade.or(status.problem);
        }
        self.ask_rds(memory).await;
        self.keep_own_login(memory).await;
        let due = memory.inspected.is_none_or(|at| at.elapsed() > INSPECTION);
        if status.primary.is_some() && due && !self.cluster.sleeps() {
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
        if memory.trouble.is_none() && memory.written.is_some() {
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

    /// Reads the login again when it is old, when it was refused, and at each look while the cluster can not be used.
    async fn read_login(&self, memory: &mut Memory) {
        let old = memory.login_read.is_none_or(|at| at.elapsed() > LOGIN_AGE);
        let refused = self.cluster.take_login_refused();
        if !refused && memory.trouble.is_none() && !old {
            return;
        }
        if let Some(aurora) = self.cluster.aurora().filter(|_| refused || memory.trouble.is_some()) {
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
        if self.cluster.spec.provisioner.kept_secret().is_none() || memory.trouble.is_some() {
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

    /// Preflight, and the half-made databases that a process left which was killed after its claim was gone. Such a
    /// database never had a connection, so there is nothing in it to lose; it has to be there at two inspections. Roles of
    /// removed claims that could not be dropped then are dropped when they can be.
    async fn inspect(&self, memory: &mut Memory) -> Result<(), Failure> {
        let server = self.cluster.server().await.map_err(Failure::at("inspect"))?;
        let mut session = server.maintenance().await.map_err(Failure::at("inspect"))?;
        memory.preflight = preflight(&mut session).await.map_err(Failure::at("inspect"))?;
        let extensions = extension_problems(&mut session, &self.cluster.spec.allowed_extensions).await;
        let extensions = extensions.map_err(Failure::at("inspect"))?.into_values();
        memory.preflight.extend(extensions.map(|problem| InvalidField::new("allowedExtensions", problem)));
        memory.preflight.extend(self.unclaimed(&mut session).await.map_err(Failure::at("inspect"))?);
        for role in drop_roles_put_aside(&mut session).await.map_err(Failure::at("inspect"))? {
            tracing::info!(cluster = self.cluster.name, role, "dropped a role of a removed claim, which was put aside");
        }
        self.drop_half_made(session, memory).await.map_err(Failure::at("inspect"))
    }

    /// Databases with the comment of a claim that the ledger does not have. They are only told of: a failover to a standby
    /// that was behind has undone their removal, or the ledger is not the one that they were made with.
    async fn unclaimed(&self, session: &mut Session) -> Result<Vec<InvalidField>, Cause> {
        // Asked before the cluster, and claim by claim after it: what is made or removed meanwhile is not told of.
        let known = self.claims().await?;
        let mut left = claims_on_cluster(session).await?;
        left.retain(|key| !known.contains(key));
        let mut left = left.into_iter();
        let mut problems = Vec::new();
        while problems.len() < MOST_UNCLAIMED
            && let Some(key) = left.next()
        {
            if !self.claimed(&key.database()).await? {
                problems.push(InvalidField::new(
                    "databases",
                    format!(
                        "database {:?} says that it is of claim {key}, which is not in the ledger: its removal may have \
                         been undone by a failover. Create the claim, which takes over what is there, and remove it \
                         again if it is not needed",
                        key.database()
                    ),
                ));
            }
        }
        if left.len() > 0 {
            problems.push(InvalidField::new("databases", format!("and up to {} more like these", left.len())));
        }
        Ok(problems)
    }

    /// Every claim on the cluster.
    async fn claims(&self) -> Result<BTreeSet<ClaimKey>, LedgerError> {
        const PAGE: i64 = 500;
        let mut keys = BTreeSet::new();
        let mut last: Option<ClaimKey> = None;
        let mut db = self.ledger.acquire().await?;
        loop {
            let after = last.as_ref().map(|key| (key.namespace(), key.name()));
            let filter = ClaimFilter { cluster: Some(&self.cluster.name), after, ..ClaimFilter::default() };
            let page = claims(&mut db, &filter, PAGE).await?;
            let Some(end) = page.last() else { return Ok(keys) };
            last = Some(end.key.clone());
            keys.extend(page.into_iter().map(|claim| claim.key));
        }
    }

    /// Drops databases that were half made, and that nobody claims, at this inspection and the last one.
    async fn drop_half_made(&self, mut session: Session, memory: &mut Memory) -> Result<(), Cause> {
        let mut orphans = Vec::new();
        for database in half_made(&mut session).await? {
            let claimed = async { Ok::<_, Cause>(self.claimed(&database).await?) };
            if !memory.orphans.contains(&database) {
                if !claimed.await? {
                    orphans.push(database);
                }
            } else if drop_half_made(&mut session, &database, claimed).await? {
                tracing::warn!(
                    cluster = self.cluster.name,
                    database,
                    "dropped a half-made database that nobody claims"
                );
            }
        }
        memory.orphans = orphans;
        Ok(())
    }

    async fn claimed(&self, database: &str) -> Result<bool, LedgerError> {
        let mut db = self.ledger.acquire().await?;
        pgtenant_ledger::owner_of(&mut db, &self.cluster.name, database)
            .await
            .map(|owner: Option<ClaimKey>| owner.is_some())
    }
}

/// Whether two looks saw the same, apart from the time and how far standbys are behind.
fn same(a: &ClusterStatus, b: &ClusterStatus) -> bool {
    let member = |m: &Member| (m.host.clone(), m.role, m.timeline, m.sync, m.tool.clone());
    let members = |s: &ClusterStatus| s.members.iter().map(member).collect::<Vec<_>>();
    a.primary == b.primary
        && a.version == b.version
        && a.problem == b.problem
        && a.preflight == b.preflight
        && a.drift == b.drift
        && a.identity == b.identity
        && (&a.history, &a.refused) == (&b.history, &b.refused)
        && a.provisioner == b.provisioner
        && members(a) == members(b)
}
