//! Which claim is looked at when: wishes at once, retries at their time, periodic looks at an even pace.

use std::time::{Duration, Instant};

use pgtenant_ledger::{
    CLUSTERS_CHANNEL, Ledger, LedgerError, RESTORES_CHANNEL, SWITCHOVERS_CHANNEL, Take, WORK_CHANNEL, Work, next_due,
    take, within_deadline,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::EngineSettings;
use crate::cluster::Cluster;
use crate::roster::Roster;

/// A sleep ends at the latest after this time, whatever the ledger said: a lost NOTIFY costs no more.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const LEDGER_RETRY: Duration = Duration::from_millis(500);
/// A replica from which a store can not be reached leaves work to the others for so long, who may be able to.
const HEAD_START: Duration = Duration::from_secs(2);

/// Work that was taken, and a moment before the ledger granted its lease.
pub(crate) struct Taken {
    pub(crate) work: Work,
    pub(crate) since: Instant,
}

/// One cluster's queue in this replica.
pub(crate) struct Schedule<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) cluster: &'a Cluster,
    pub(crate) settings: &'a EngineSettings,
    pub(crate) holder: Uuid,
}

impl Schedule<'_> {
    /// Takes work and hands it to `attend`, at most `concurrency` claims at once, until `stop`. Then it waits for the
    /// claims under work, `grace` at the longest.
    pub(crate) async fn run<F>(&self, stop: &CancellationToken, attend: impl Fn(Taken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut running = JoinSet::new();
        let mut pace = Pace::new(self.settings.looks_per_second);
        while !stop.is_cancelled() {
            let free = self.settings.concurrency - running.len();
            let taken = if free == 0 { Ok(Vec::new()) } else { within_deadline(self.take(free, &mut pace)).await };
            let full = running.len() == self.settings.concurrency;
            let nap = match taken {
                Ok(taken) if taken.is_empty() && !full => self.nap(&pace).await,
                Ok(taken) => {
                    let all = taken.len() == free;
                    for one in taken {
                        running.spawn(attend(one));
                    }
                    if all { LONGEST_SLEEP } else { Duration::ZERO }
                }
                Err(error) => {
                    tracing::warn!(cluster = self.cluster.name, error = ?error, "the ledger does not answer");
                    LEDGER_RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                // With every place taken only a free place matters; the wake-up stays stored until then.
                () = self.cluster.wake.notified(), if running.len() < self.settings.concurrency => {}
                Some(ended) = running.join_next(), if !running.is_empty() => log_panic(ended),
                () = tokio::time::sleep(nap) => {}
            }
            while let Some(ended) = running.try_join_next() {
                log_panic(ended);
            }
        }
        let rest = async {
            while let Some(ended) = running.join_next().await {
                log_panic(ended);
            }
        };
        if tokio::time::timeout(self.settings.grace, rest).await.is_err() {
            tracing::warn!(cluster = self.cluster.name, "stopped with claims under work; their leases run out");
        }
    }

    /// Wishes and retries, and a periodic look when it is time for one.
    async fn take(&self, free: usize, pace: &mut Pace) -> Result<Vec<Taken>, LedgerError> {
        let since = Instant::now();
        let mut db = self.ledger.acquire().await?;
        let wanted = |urgent, limit: usize| Take {
            holder: self.holder,
            limit: i64::try_from(limit).unwrap_or(1),
            urgent,
            lease: self.settings.lease,
            head_start: self.head_start(),
        };
        let mut taken = Vec::new();
        // Wishes go first, but not for ever: a look that had no place for long gets one.
        for urgent in if pace.is_late(since) { [false, true] } else { [true, false] } {
            if urgent {
                let wishes = take(&mut db, &self.cluster.name, wanted(true, free - taken.len())).await?;
                pace.pass(wishes.len());
                taken.extend(wishes);
            } else if taken.len() < free && pace.ready(since) && !self.cluster.sleeps() {
                pace.spend(since);
                taken.extend(take(&mut db, &self.cluster.name, wanted(false, 1)).await?);
            }
        }
        Ok(taken.into_iter().map(|work| Taken { work, since }).collect())
    }

    fn head_start(&self) -> Duration {
        if self.cluster.is_cut_off() { HEAD_START } else { Duration::ZERO }
    }

    /// How long nothing will be due.
    async fn nap(&self, pace: &Pace) -> Duration {
        let due = async { next_due(&mut *self.ledger.acquire().await?, &self.cluster.name).await };
        match within_deadline(due).await {
            Ok((urgent, look)) => {
                let look = look.filter(|_| !self.cluster.sleeps());
                let look = look.map(|wait| wait.max(pace.wait(Instant::now())));
                let next = urgent.into_iter().chain(look).min().unwrap_or(LONGEST_SLEEP);
                (next + self.head_start()).clamp(Duration::from_millis(20), LONGEST_SLEEP)
            }
            Err(_) => LEDGER_RETRY,
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = ?error, "a claim's work panicked; its lease runs out and it is tried again");
    }
}

/// At most so many looks a second, evenly spread: time that was not used is not saved up.
#[derive(Debug)]
struct Pace {
    step: Duration,
    next: Option<Instant>,
    /// Wishes and retries since the last look.
    passed: usize,
}

/// So many wishes and retries go before a look that is late; where looks may be many a second, each would be late at each free place, and
/// what people wait for would never have its turn.
const WISHES_A_LOOK: usize = 9;
/// They may take long: a look that waits for longer than this waits for no more of them.
const LATEST_LOOK: Duration = Duration::from_secs(10);

impl Pace {
    fn new(per_second: f64) -> Self {
        let step = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::from_secs(3600));
        Self { step, next: None, passed: 0 }
    }

    fn ready(&self, now: Instant) -> bool {
        self.wait(now).is_zero()
    }

    fn wait(&self, now: Instant) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// Nobody has looked for several times as long as should lie between two looks, and wishes have had their share.
    fn is_late(&self, now: Instant) -> bool {
        let waited = self.next.map_or(Duration::ZERO, |next| now.saturating_duration_since(next));
        waited > 10 * self.step && (self.passed >= WISHES_A_LOOK || waited > LATEST_LOOK)
    }

    fn pass(&mut self, wishes: usize) {
        self.passed += wishes;
    }

    fn spend(&mut self, now: Instant) {
        self.next = Some(now + self.step);
        self.passed = 0;
    }
}

/// Wakes every cluster's schedule when work was announced, and the roster when a cluster was described; connects again when
/// the ledger went away.
pub(crate) async fn listen(ledger: &Ledger, roster: &Roster, stop: &CancellationToken) {
    let listening = async {
        loop {
            match ledger.listen(&[WORK_CHANNEL, CLUSTERS_CHANNEL, RESTORES_CHANNEL, SWITCHOVERS_CHANNEL]).await {
                Ok(mut listener) => {
                    // Nobody knows what was announced before the listener was there, so everyone looks once.
                    roster.look();
                    roster.wake();
                    loop {
                        match listener.recv().await {
                            Ok(heard) => {
                                if heard.iter().any(|one| one.channel == CLUSTERS_CHANNEL) {
                                    roster.look();
                                }
                                if heard.iter().any(|one| one.channel == RESTORES_CHANNEL) {
                                    roster.wake_restores();
                                }
                                if heard.iter().any(|one| one.channel == SWITCHOVERS_CHANNEL) {
                                    roster.wake_switchovers();
                                }
                                if heard.iter().any(|one| one.channel == WORK_CHANNEL) {
                                    roster.wake();
                                }
                            }
                            Err(error) => {
                                tracing::warn!(error = ?error, "the ledger's announcements stopped");
                                break;
                            }
                        }
                    }
                }
                Err(error) => tracing::debug!(error = ?error, "the ledger's announcements are not heard"),
            }
            tokio::time::sleep(LEDGER_RETRY).await;
        }
    };
    tokio::select! {
        () = listening => {}
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_spread_without_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(2.0);
        assert!(pace.ready(start));
        pace.spend(start);
        assert!(!pace.ready(start + Duration::from_millis(499)));
        let later = start + Duration::from_secs(60);
        assert!(pace.ready(later));
        pace.spend(later);
        assert!(!pace.ready(later + Duration::from_millis(499)), "idle time is not saved up");
        assert_eq!(pace.wait(later), Duration::from_millis(500));
    }

    #[test]
    fn looks_do_not_take_every_place_where_they_may_be_many() {
        let start = Instant::now();
        let mut pace = Pace::new(1000.0);
        pace.spend(start);
        let later = start + Duration::from_secs(2);
        assert!(!pace.is_late(later), "no wish has had a turn");
        pace.pass(WISHES_A_LOOK);
        assert!(pace.is_late(later));
        pace.spend(later);
        assert!(!pace.is_late(later + Duration::from_secs(2)));
        assert!(
            pace.is_late(later + Duration::from_secs(11)),
            "wishes that take long do not keep looks from their turn"
        );
    }
}
