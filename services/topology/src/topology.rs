//! The remembered primary, and when to ask again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgtenant_aws::Aws;
use pgtenant_model::{History, HostPort};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

use crate::aurora::{Aurora, Depth};
use crate::auto_failover::AutoFailover;
use crate::haproxy::Haproxy;
use crate::kind::Kind;
use crate::patroni::Patroni;
use crate::repmgr::Repmgr;
use crate::streaming::Streaming;
use crate::{NotSwitched, Observation, ProbeOptions, Pushes, SwitchoverWish};

/// Where a topology is read from, without a login. Clones are the same.
#[derive(Debug, Clone)]
pub struct Source {
    kind: Arc<dyn Kind>,
    aurora: Option<Aurora>,
    /// What is known of where the data comes from.
    history: Arc<Mutex<Option<History>>>,
}

impl Source {
    /// As a cluster's spec has it. Nothing is asked yet.
    #[must_use]
    pub fn new(spec: &pgtenant_model::Topology, aws: &Aws) -> Self {
        use pgtenant_model::Topology as Spec;
        let kind: Arc<dyn Kind> = match spec {
            Spec::Streaming(spec) => Arc::new(Streaming { hosts: spec.hosts.clone() }),
            Spec::Repmgr(spec) => Arc::new(Repmgr::new(spec)),
            Spec::Haproxy(spec) => Arc::new(Haproxy::new(spec)),
            Spec::Patroni(spec) => Arc::new(Patroni::new(spec)),
            Spec::PgAutoFailover(spec) => Arc::new(AutoFailover::new(spec)),
            Spec::Aurora(spec) => return Aurora::new(spec, aws).into(),
        };
        Self { kind, aurora: None, history: Arc::default() }
    }

    /// What is known from before, or from another replica, of where the data comes from.
    pub fn remember(&self, history: &History) {
        let mut known = lock(&self.history);
        let both = known.take().map_or_else(|| history.clone(), |known| known.and(history.clone()));
        *known = Some(both);
    }

    /// Members that were known before, or that another replica knows.
    pub fn remember_members(&self, members: &[HostPort]) {
        self.kind.remember(members);
    }

    /// The Aurora cluster, where it is one.
    #[must_use]
    pub fn aurora(&self) -> Option<&Aurora> {
        self.aurora.as_ref()
    }
}

impl From<Aurora> for Source {
    fn from(aurora: Aurora) -> Self {
        Self { kind: Arc::new(aurora.clone()), aurora: Some(aurora), history: Arc::default() }
    }
}

/// A shared cluster's members. Clones are the same topology.
#[derive(Debug, Clone)]
pub struct Topology {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: Source,
    options: ProbeOptions,
    state: Mutex<State>,
    /// Whoever holds it asks the members; the others wait, and take what was found.
    turn: Arc<tokio::sync::Mutex<()>>,
    seen: watch::Sender<Option<Arc<Observation>>>,
}

#[derive(Debug, Default)]
struct State {
    primary: Option<HostPort>,
    /// Grows when the remembered primary is called wrong: what was asked before that is not remembered.
    epoch: u64,
    /// How many probes were begun, and which of them was the last to end.
    begun: u64,
    ended: u64,
    ended_at: Option<Instant>,
    /// Probes without a primary, since the last one with.
    failures: u32,
}

/// No member takes writes, or more than one does.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .observation.problem.as_deref().unwrap_or("no primary"))]
pub struct NoPrimary {
    /// What was seen.
    pub observation: Arc<Observation>,
}

impl NoPrimary {
    /// For whoever knows without a look why there can be none.
    #[must_use]
    pub fn because(problem: impl Into<String>) -> Self {
        Self { observation: Arc::new(Observation::without_primary(problem.into())) }
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Topology {
    /// A topology whose members are asked with these options. Nothing is connected yet.
    #[must_use]
    pub fn new(source: &Source, options: ProbeOptions) -> Self {
        let (state, turn) = (Mutex::default(), Arc::default());
        let (seen, _) = watch::channel(None);
        Self { inner: Arc::new(Inner { source: source.clone(), options, state, turn, seen }) }
    }

    /// Every host that takes connections of tenants who want to write: what a connection URI lists.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostPort> {
        self.inner.source.kind.hosts()
    }

    /// The address that leads to whichever is the primary, where something in front of the servers has one: tenants are given this.
    #[must_use]
    pub fn endpoint(&self) -> Option<HostPort> {
        self.inner.source.kind.endpoint()
    }

    /// The one host for whoever wants to read, where there is such a host.
    #[must_use]
    pub fn read_host(&self) -> Option<HostPort> {
        self.inner.source.kind.read_host()
    }

    /// Asks whoever decides for another primary, once. Who the primary is then, looks tell: it may take a while, and it may come to
    /// nothing.
    ///
    /// # Errors
    /// Nobody can be asked, or it was refused.
    pub async fn switch_over(&self, wish: &SwitchoverWish) -> Result<(), NotSwitched> {
        self.inner.source.kind.switch_over(&self.inner.options, wish).await
    }

    /// Asks to be told of changes, where there is somebody who tells: the monitor of pg_auto_failover. None: nobody does.
    ///
    /// # Errors
    /// Why nobody can be asked now.
    pub async fn listen(&self) -> Result<Option<Pushes>, String> {
        self.inner.source.kind.listen(&self.inner.options).await
    }

    /// The writable host: the remembered one, or else whoever says so now.
    ///
    /// Callers at the same time share one probe, and what a look finds meanwhile is theirs at once. Probes are paced, 250 ms growing
    /// to 2 s while there is no primary, so calling in a loop is fine. A primary is remembered until [`Topology::invalidate`] or an [`Topology::observe`] that finds another.
    ///
    /// # Errors
    /// What was seen instead, after one probe.
    pub async fn primary(&self) -> Result<HostPort, NoPrimary> {
        let asked = self.inner.state().begun;
        let jitter = rand::random_range(0.75..1.25);
        let mut seen = self.subscribe();
        let turn = loop {
            if let Some(primary) = self.inner.state().primary.clone() {
                return Ok(primary);
            }
            let turn = Arc::clone(&self.inner.turn).lock_owned().await;
            seen.mark_unchanged();
            let pause = {
                let state = self.inner.state();
                if let Some(primary) = &state.primary {
                    return Ok(primary.clone());
                }
                if let Some(observation) = self.last().filter(|o| state.ended > asked && o.primary.is_none()) {
                    return Err(NoPrimary { observation });
                }
                let since = state.ended_at.map(|at| at.elapsed());
                since.map_or(Duration::ZERO, |since| pause(state.failures, jitter).saturating_sub(since))
            };
            if pause.is_zero() {
                break turn;
            }
            // Whoever looks at the members is not to wait for the pause of those who need the primary.
            drop(turn);
            tokio::time::timeout(pause, seen.changed()).await.ok();
        };
        let observation = self.probe(turn, Depth::Work).await;
        observation.primary.clone().ok_or(NoPrimary { observation })
    }

    /// As [`Topology::primary`], again and again for at most `limit`.
    ///
    /// # Errors
    /// What was seen last.
    pub async fn wait(&self, limit: Duration) -> Result<HostPort, NoPrimary> {
        let until = Instant::now() + limit;
        loop {
            match tokio::time::timeout_at(until, self.primary()).await {
                Ok(Ok(primary)) => return Ok(primary),
                Ok(Err(error)) if Instant::now() >= until => return Err(error),
                Ok(Err(_)) => {}
                Err(_) => {
                    let observation = self.last().filter(|last| last.primary.is_none());
                    let observation = observation.unwrap_or_else(|| unknown("they did not answer in time"));
                    return Err(NoPrimary { observation });
                }
            }
        }
    }

    /// Forgets the primary if it is `host`: call this when it answered 25006 or closed the connection.
    pub fn invalidate(&self, host: &HostPort) {
        let mut state = self.inner.state();
        if state.primary.as_ref() == Some(host) {
            state.primary = None;
            state.epoch += 1;
        }
    }

    /// Asks every member, whatever is remembered; servers that pause when nobody is connected are left asleep. It is the only way
    /// in which a split brain is noticed while the remembered primary works, so a periodic look should call it.
    pub async fn observe(&self) -> Arc<Observation> {
        let asked = self.inner.state().begun;
        let turn = Arc::clone(&self.inner.turn).lock_owned().await;
        let shared = self.inner.state().ended > asked;
        match self.last().filter(|_| shared) {
            Some(observation) => observation,
            None => self.probe(turn, Depth::Look).await,
        }
    }

    /// What was seen last.
    #[must_use]
    pub fn last(&self) -> Option<Arc<Observation>> {
        self.inner.seen.borrow().clone()
    }

    /// Follows what is seen, for a status or to wait.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Observation>>> {
        self.inner.seen.subscribe()
    }

    /// Asks the members on a task of its own: a caller with a short deadline does not stop what others wait for.
    async fn probe(&self, turn: OwnedMutexGuard<()>, depth: Depth) -> Arc<Observation> {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            let observation = inner.probe(depth).await;
            drop(turn);
            observation
        });
        task.await.unwrap_or_else(|error| unknown(&error.to_string()))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether the primary has the data that was there, and what is known from now on.
    fn judge(&self, observation: &mut Observation) {
        let Some(seen) = observation.history.take().filter(|_| observation.primary.is_some()) else { return };
        let mut known = lock(&self.source.history);
        let why = known.as_ref().and_then(|known| known.refuses(&seen));
        if let Some(why) = why {
            observation.history = Some(seen);
            observation.refuse(&why);
            return;
        }
        let now = History { accepted_at: known.as_ref().and_then(|known| known.accepted_at), ..seen };
        observation.history = Some(now.clone());
        *known = Some(now);
    }

    async fn probe(&self, depth: Depth) -> Arc<Observation> {
        let (probe, epoch) = {
            let mut state = self.state();
            state.begun += 1;
            (state.begun, state.epoch)
        };
        let mut observation = self.source.kind.observe(&self.options, depth).await;
        self.judge(&mut observation);
        let observation = Arc::new(observation);
        let before = self.seen.send_replace(Some(Arc::clone(&observation)));
        report(before.as_deref(), &observation);
        let mut state = self.state();
        state.ended = probe;
        state.ended_at = Some(Instant::now());
        match &observation.primary {
            Some(_) => state.failures = 0,
            None => state.failures = state.failures.saturating_add(1),
        }
        if state.epoch == epoch {
            state.primary.clone_from(&observation.primary);
        }
        observation
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line in the log for each change.
fn report(before: Option<&Observation>, now: &Observation) {
    let primary = |o: &Observation| o.primary.as_ref().map(ToString::to_string);
    let before = before.map(|o| (primary(o), o.problem.is_some()));
    if before == Some((primary(now), now.problem.is_some())) {
        return;
    }
    match (&now.primary, &now.problem) {
        (Some(host), _) => tracing::info!(%host, "the cluster's primary"),
        (None, Some(problem)) => tracing::warn!(problem, "the cluster has no primary"),
        (None, None) => {}
    }
}

fn unknown(why: &str) -> Arc<Observation> {
    Arc::new(Observation::without_primary(format!("nothing is known of the cluster's hosts: {why}")))
}

/// From the end of a probe to the begin of the next; `jitter` is about 1.
fn pause(failures: u32, jitter: f64) -> Duration {
    let doubled = SHORTEST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_PAUSE).mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_two_seconds() {
        let pauses: Vec<u128> = (0..7).map(|n| pause(n, 1.0).as_millis()).collect();
        assert_eq!(pauses, [250, 250, 500, 1000, 2000, 2000, 2000]);
        assert_eq!(pause(u32::MAX, 0.75).as_millis(), 1500);
    }
}
