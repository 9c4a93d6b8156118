//! The drill itself: clients at work, the primary stopped, and what they saw.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::join3;
use pgtenant_model::{Drill, DrillClient, DrillEvent, HostPort};
use pgtenant_postgres::{Beat, PULSE_TABLE, Pulse, PulseOptions, Record};
use tokio::time::{Instant, sleep, timeout};

use super::DrillArgs;
use super::means::Means;
use super::picture::Picture;
use super::site::{Database, Site};
use crate::cli::error::{CliError, Result};
use crate::cli::output::note;

/// How long clients have to be answered without a failure before anything is stopped, and how long they may take to get there.
const BASELINE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);
/// What is waited for is looked at this often.
const LOOK: Duration = Duration::from_millis(20);
/// How long clients are watched after all is over.
const AFTERMATH: Duration = Duration::from_secs(1);

/// What happened, in times since the beginning.
struct Diary {
    origin: Instant,
    events: Vec<(Duration, String)>,
}

impl Diary {
    fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        note(&format!("{:6.1} s  {what}", self.origin.elapsed().as_secs_f64()));
        self.events.push((self.origin.elapsed(), what));
    }

    /// What was stopped is started again; none: nobody here does that.
    fn started(&mut self, started: Option<Result<()>>, at: Duration) {
        let what = match started {
            Some(Ok(())) => "the former primary is started".to_owned(),
            Some(Err(problem)) => format!("the former primary does not start: {problem}"),
            None => return,
        };
        note(&format!("{:6.1} s  {what}", at.as_secs_f64()));
        self.events.push((at, what));
    }
}

/// The clients of a drill.
struct Clients {
    writer: Pulse,
    reader: Pulse,
}

impl Clients {
    fn begin(database: &Database, origin: Instant) -> Result<Self> {
        let begin = |options: &PulseOptions, beat| Pulse::begin(options.clone(), beat, origin).map_err(unmeasured);
        Ok(Self { writer: begin(&database.write, Beat::Write)?, reader: begin(&database.read, Beat::Read)? })
    }

    /// Waits until both were answered for a while without a failure.
    async fn are_steady(&self, origin: Instant) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            sleep(10 * LOOK).await;
            let now = origin.elapsed();
            if [&self.writer, &self.reader].iter().all(|client| is_steady(&client.record(), now)) {
                return true;
            }
        }
        false
    }
}

fn unmeasured(error: impl std::fmt::Display) -> CliError {
    CliError::failed(format!("no client can be begun: {error}"))
}

/// What came of the stop.
struct Outcome {
    stopped: Duration,
    stopped_at: DateTime<Utc>,
    synchronous: bool,
    primary: Option<String>,
    claims_again: Option<Duration>,
    recovered: Option<Duration>,
    /// What went wrong with the drill itself.
    problems: Vec<String>,
}

/// Runs the drill; the picture is of the same. None: the clients were not answered before, and nothing was stopped.
pub(super) async fn measure(
    site: &Site,
    database: &Database,
    means: &mut Means,
    args: &DrillArgs,
) -> Result<Option<(Drill, String)>> {
    let mut diary = Diary { origin: Instant::now(), events: Vec::new() };
    Pulse::run(&database.admin, PULSE_TABLE).await.map_err(unmeasured)?;
    let clients = Clients::begin(database, diary.origin)?;
    diary.note(format!("clients are at work, through {} and {}", hosts(&database.write), hosts(&database.read)));
    if !clients.are_steady(diary.origin).await {
        return Ok(None);
    }
    let synchronous = clients.writer.is_synchronous().await.map_err(unmeasured)?;
    let outcome = fail_over(site, database, (&clients, synchronous), means, args, &mut diary).await;
    sleep(AFTERMATH).await;
    Ok(Some(conclude(site, database, &clients, means, args, diary, outcome).await))
}

/// Stops the primary, and whatever happens then, starts it again.
async fn fail_over(
    site: &Site,
    database: &Database,
    (clients, synchronous): (&Clients, bool),
    means: &mut Means,
    args: &DrillArgs,
    diary: &mut Diary,
) -> Outcome {
    diary.note(format!("{} is the primary, and will {}", site.primary, means.words()));
    let (stopped, stopped_at, origin) = (diary.origin.elapsed(), Utc::now(), diary.origin);
    let deadline = Instant::now() + args.rto.max(args.recover);
    let mut outcome = Outcome {
        stopped,
        stopped_at,
        synchronous,
        primary: None,
        claims_again: None,
        recovered: None,
        problems: Vec::new(),
    };
    let mut is_stopped = true;
    match means.stop(site).await {
        Ok(()) => diary.note("it is stopped"),
        Err(problem) => {
            outcome.problems.push(format!("it was not stopped as it should be: {problem}"));
            is_stopped = false;
        }
    }
    if is_stopped {
        match means.promote().await {
            Some(Ok(promoted)) => diary.note(format!("{promoted} was promoted by hand")),
            Some(Err(problem)) => outcome.problems.push(format!("nobody was promoted by hand: {problem}")),
            None => {}
        }
        let start_again = async {
            answered_after(&clients.writer, stopped, deadline).await;
            (means.start().await, origin.elapsed())
        };
        let again = async { site.serves_again(database, deadline).await.then(|| origin.elapsed()) };
        let ((started, at), claims_again, primary) = join3(start_again, again, another_primary(site, deadline)).await;
        (outcome.claims_again, outcome.primary) = (claims_again, primary);
        diary.started(started, at);
        if let Some(at) = claims_again {
            diary.events.push((at, "the control plane has changed a database again".to_owned()));
        }
    } else {
        let started = means.start().await;
        diary.started(started, origin.elapsed());
    }
    if site.recovered(deadline).await {
        outcome.recovered = Some(origin.elapsed());
        diary.note("every member is back");
    }
    outcome
}

/// What is in the table is held against what was acknowledged, and all of it is put into words and a picture.
async fn conclude(
    site: &Site,
    database: &Database,
    Clients { writer, reader }: &Clients,
    means: &Means,
    args: &DrillArgs,
    mut diary: Diary,
    outcome: Outcome,
) -> (Drill, String) {
    let (stopped, end) = (outcome.stopped, diary.origin.elapsed());
    [writer, reader].iter().for_each(|client| client.end());
    let (writes, reads) = (writer.record(), reader.record());
    for (record, what) in [(&writes, "a write"), (&reads, "a read")] {
        if let Some(at) = record.first_after(stopped + gap_after(record, stopped)) {
            diary.events.push((at, format!("{what} is answered again")));
        }
    }
    diary.events.sort_by_key(|(at, _)| *at);
    let written = writer.written().await.ok();
    let missing =
        |there: Vec<i64>| writes.acknowledged.iter().filter(|(id, _)| there.binary_search(id).is_err()).count();
    let since = |at: Duration| millis(at) - millis(stopped);
    let span = |at: Duration| u64::try_from(since(at)).unwrap_or(0);
    let client = |options: &PulseOptions, record: &Record| {
        let (gap, began) = record.longest_gap(stopped, end);
        DrillClient {
            endpoint: hosts(options),
            answered: record.acknowledged.len() as u64,
            failed: record.failures,
            longest_gap_ms: u64::try_from(gap.as_millis()).unwrap_or(u64::MAX),
            gap_began_ms: since(began),
        }
    };
    let mut drill = Drill {
        stopped_at: outcome.stopped_at,
        means: means.kind(),
        former_primary: site.primary.clone(),
        primary: outcome.primary,
        synchronous: outcome.synchronous,
        writes: client(&database.write, &writes),
        reads: client(&database.read, &reads),
        lost: written.map(|there| missing(there) as u64),
        claims_again_ms: outcome.claims_again.map(span),
        recovered_ms: outcome.recovered.map(span),
        rto_ms: u64::try_from(args.rto.as_millis()).unwrap_or(u64::MAX),
        recover_ms: u64::try_from(args.recover.as_millis()).unwrap_or(u64::MAX),
        passed: false,
        problems: outcome.problems,
        events: diary.events.iter().map(|(at, what)| DrillEvent { at_ms: since(*at), what: what.clone() }).collect(),
    };
    drill.problems.extend(shortfalls(&drill));
    drill.passed = drill.problems.is_empty();
    let picture = Picture { drill: &drill, stopped, end, writes: &writes, reads: &reads }.svg();
    (drill, picture)
}

/// What fell short.
fn shortfalls(drill: &Drill) -> Vec<String> {
    let mut problems = Vec::new();
    let seconds = super::report::seconds;
    if drill.writes.longest_gap_ms > drill.rto_ms {
        problems.push(format!(
            "no write was answered for {}, and {} is the target",
            seconds(drill.writes.longest_gap_ms),
            seconds(drill.rto_ms)
        ));
    }
    match drill.recovered_ms {
        None => problems.push(format!("not every member was back within {}", seconds(drill.recover_ms))),
        Some(took) if took > drill.recover_ms => problems.push(format!(
            "every member was back after {}, and {} is the target",
            seconds(took),
            seconds(drill.recover_ms)
        )),
        Some(_) => {}
    }
    if drill.claims_again_ms.is_none() {
        problems.push("the control plane did not change a database again".to_owned());
    }
    if drill.primary.is_none() {
        problems.push("no other primary was found".to_owned());
    }
    match drill.lost {
        Some(lost) if lost > 0 && drill.synchronous => {
            problems.push(format!("{lost} acknowledged writes are lost although replication is synchronous"));
        }
        None => problems.push("nobody could be asked which writes are there".to_owned()),
        Some(_) => {}
    }
    problems
}

fn hosts(options: &PulseOptions) -> String {
    options.hosts.iter().map(HostPort::to_string).collect::<Vec<_>>().join(",")
}

fn millis(at: Duration) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

/// Whether a client was answered for a while, and nothing has failed meanwhile.
fn is_steady(record: &Record, now: Duration) -> bool {
    let since = now.saturating_sub(BASELINE);
    let first = record.acknowledged.first().is_some_and(|(_, at)| *at <= since);
    let failed = record.failed_at.is_some_and(|at| at >= since);
    first && !failed && record.longest_gap(since, now).0 < BASELINE / 2
}

/// From the stop to the end of the gap that it made.
fn gap_after(record: &Record, stopped: Duration) -> Duration {
    let last = record.acknowledged.last().map_or(stopped, |(_, at)| *at);
    let (gap, began) = record.longest_gap(stopped, last);
    (began + gap).saturating_sub(stopped + Duration::from_millis(1))
}

/// Waits until a client that was cut off is answered again.
async fn answered_after(client: &Pulse, stopped: Duration, deadline: Instant) {
    let wait = async {
        loop {
            let record = client.record();
            let failed = record.failed_at.filter(|at| *at > stopped);
            if failed.is_some_and(|at| record.first_after(at).is_some()) {
                return;
            }
            sleep(LOOK).await;
        }
    };
    timeout(deadline.saturating_duration_since(Instant::now()), wait).await.ok();
}

async fn another_primary(site: &Site, deadline: Instant) -> Option<String> {
    loop {
        let primary = site.current_primary().await.filter(|primary| *primary != site.primary);
        if primary.is_some() || Instant::now() > deadline {
            return primary;
        }
        sleep(10 * LOOK).await;
    }
}
