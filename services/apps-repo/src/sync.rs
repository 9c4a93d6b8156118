//! Writes into the ledger what a scan says, each claim in a transaction of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use pgtenant_ledger::{self as ledger, AppsProblem, DoorClaim, Ledger, LedgerError, Wish};
use pgtenant_model::Source;
use tokio::time::Instant;

use crate::difference::{Belief, Difference, Doubt, Guard, compare};
use crate::problem::order;
use crate::scan::Scan;
use crate::step::{Ran, run};

/// What has to be seen twice and changes nothing for a database: with this between.
const SECOND_LOOK: Duration = Duration::from_millis(300);
/// Another replica is writing: it is done soon.
const OTHERS_TURN: Duration = Duration::from_millis(500);
/// A database that is being removed before it can be made again: first wait, doubled each time.
const REMOVAL: Duration = Duration::from_millis(500);
const MAX_REMOVAL: Duration = Duration::from_secs(30);

/// What a sync has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synced {
    /// Claims that were made, taken back, changed or moved to another file.
    pub written: usize,
    /// Claims that were removed, or became Retained because they are protected.
    pub withdrawn: usize,
    /// Every problem, those of the scan included.
    pub problems: Vec<AppsProblem>,
    /// When to scan and sync again, if not at the next change.
    pub look_again: Option<Duration>,
}

/// Brings the ledger to what scans say, one after another, and remembers what needs further looks.
#[derive(Debug)]
pub struct Syncer {
    guard: Guard,
    rest: Duration,
    removals: Waiting,
    others: Waiting,
    logged: BTreeSet<(String, i32, String, String)>,
    backoff: Duration,
}

impl Syncer {
    /// A syncer that has seen nothing yet. Before a database is removed, or loses its protection, nothing may have
    /// changed in the folder for as long as `rest`.
    #[must_use]
    pub fn new(guard: Guard, rest: Duration) -> Self {
        let (removals, others) = (Waiting::default(), Waiting::default());
        Self { guard, rest, removals, others, logged: BTreeSet::new(), backoff: REMOVAL }
    }

    /// Writes the difference between `scan` and the ledger. Nothing is written where there is none. Removals are
    /// written by a later call whose scan has lost the same definitions, when the folder has come to rest. `changed`:
    /// when a change in it was last heard of, asked after the scan.
    ///
    /// # Errors
    /// The ledger did not answer. What was written by then stays written; the next call does the rest.
    pub async fn sync(
        &mut self,
        ledger: &Ledger,
        scan: &Scan,
        now: Instant,
        changed: Option<Instant>,
    ) -> Result<Synced, LedgerError> {
        // One replica at a time: the turn lasts until this transaction ends.
        let mut turn = ledger.begin().await?;
        if !ledger::try_door_turn(&mut turn, Source::Apps).await? {
            return Ok(Synced { look_again: Some(OTHERS_TURN), ..Synced::default() });
        }
        let claims = ledger::door_claims(&mut turn, Source::Apps).await?;
        let difference = self.compare(&claims, scan, now, changed);
        let mut synced = Synced { problems: scan.problems.clone(), ..Synced::default() };
        synced.problems.extend(difference.problems);
        let mut refused = false;
        for step in difference.steps {
            match run(ledger, step).await? {
                Ran::Written => synced.written += 1,
                Ran::Withdrawn => synced.withdrawn += 1,
                Ran::Nothing => {}
                Ran::Refused(problems) => {
                    synced.problems.extend(problems);
                    refused = true;
                }
            }
        }
        synced.problems.sort_by(|a, b| order(a).cmp(&order(b)));
        if ledger::apps_problems(&mut turn).await? != synced.problems {
            ledger::replace_apps_problems(&mut turn, &synced.problems).await?;
        }
        turn.commit().await?;
        self.log(&synced.problems);
        // What was refused may be possible when a removal is done: a name or a place in the quota is free then.
        let removing = synced.withdrawn > 0 || claims.iter().any(|claim| claim.wish == Wish::Absent);
        let unsettled = scan.unsettled.then_some(SECOND_LOOK);
        let again = self.after_removal(refused && removing);
        let looks = [self.removals.wait(now), self.others.wait(now), again, unsettled];
        synced.look_again = looks.into_iter().flatten().min();
        Ok(synced)
    }

    /// Compares, and believes what exactly so has looked gone for a while: otherwise somebody is still at work.
    fn compare<'a>(
        &mut self,
        claims: &'a [DoorClaim],
        scan: &'a Scan,
        now: Instant,
        changed: Option<Instant>,
    ) -> Difference<'a> {
        let difference = compare(claims, scan, self.guard, Belief::default());
        let (removals, others) = difference.doubts.iter().cloned().partition(Doubt::matters);
        let (settled, rest) = (!scan.unsettled, self.rest);
        let at_rest = |since: Instant| since.max(changed.unwrap_or(since)) + rest;
        let belief = Belief {
            removals: self.removals.confirms(removals, settled, now, at_rest),
            others: self.others.confirms(others, settled, now, |since| since + SECOND_LOOK),
        };
        if belief == Belief::default() { difference } else { compare(claims, scan, self.guard, belief) }
    }

    fn after_removal(&mut self, waits: bool) -> Option<Duration> {
        let wait = self.backoff;
        self.backoff = if waits { (wait * 2).min(MAX_REMOVAL) } else { REMOVAL };
        waits.then_some(wait)
    }

    /// Each problem once when it is new, and once when it is solved.
    fn log(&mut self, problems: &[AppsProblem]) {
        let now: BTreeSet<_> = problems.iter().map(owned).collect();
        for (file, line, key, message) in now.difference(&self.logged) {
            tracing::warn!(%file, line, %key, "{message}");
        }
        for (file, line, key, message) in self.logged.difference(&now) {
            tracing::info!(%file, line, %key, "solved: {message}");
        }
        self.logged = now;
    }
}

/// Doubts that are not believed yet.
#[derive(Debug, Default)]
struct Waiting {
    doubts: BTreeSet<Doubt>,
    /// Since when there are these and no others, and from when on they are believed.
    times: Option<(Instant, Instant)>,
}

impl Waiting {
    /// Whether these doubts, and no others, have stood until `ripe(since)`.
    fn confirms(
        &mut self,
        doubts: BTreeSet<Doubt>,
        settled: bool,
        now: Instant,
        ripe: impl Fn(Instant) -> Instant,
    ) -> bool {
        let since = self.times.filter(|_| settled && doubts == self.doubts).map_or(now, |(since, _)| since);
        let ripe = ripe(since);
        let confirmed = !doubts.is_empty() && settled && now >= ripe;
        self.times = (!doubts.is_empty() && !confirmed).then_some((since, ripe));
        self.doubts = doubts;
        confirmed
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        self.times.map(|(_, ripe)| ripe.saturating_duration_since(now))
    }
}

fn owned(problem: &AppsProblem) -> (String, i32, String, String) {
    let AppsProblem { file, line, key, message } = problem.clone();
    (file, line, key, message)
}
