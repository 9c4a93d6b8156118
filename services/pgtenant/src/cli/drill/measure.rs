//! The drill itself: clients at work, the primary stopped, and what they saw.

use std::time::Duration;

use chrono::Utc;
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

/// How long clients are watched before anything is stopped, and how long one answer may take then.
const BASELINE: Duration = Duration::from_secs(3);
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
}

/// Runs the drill; the picture is of the same. None: the clients were not answered before, and nothing was stopped.
pub(super) async fn measure(
    site: &Site,
    database: &Database,
    means: &mut Means,
    args: &DrillArgs,
) -> Result<Option<(Drill, String)>> {
    let mut diary = Diary { origin: Instant::now(), events: Vec::new() };
    let begin = |options: &PulseOptions, beat| Pulse::begin(options.clone(), beat, diary.origin);
    let unmeasured = |error| CliError::failed(format!("no client can be begun: {error}"));
    Pulse::run(&database.admin, PULSE_TABLE).await.map_err(unmeasured)?;
    let writer = begin(&database.write, Beat::Write).map_err(unmeasured)?;
    let reader = begin(&database.read, Beat::Read).map_err(unmeasured)?;
    diary.note(format!("clients are at work, through {} and {}", hosts(&database.write), hosts(&database.read)));
    sleep(BASELINE).await;
    if [&writer, &reader].iter().any(|client| !is_steady(&client.record())) {
        return Ok(None);
    }
    let synchronous = writer.is_synchronous().await.map_err(unmeasured)?;

    diary.note(format!("{} is the primary, and will {}", site.primary, means.words()));
    let (stopped, stopped_at) = (diary.origin.elapsed(), Utc::now());
    let deadline = Instant::now() + args.rto.max(args.recover);
    means.stop(site).await?;
    diary.note("it is stopped");
    if let Some(promoted) = means.promote().await {
        diary.note(format!("{} was promoted by hand", promoted?));
    }
    let (_, claims_again, primary) = join3(
        answered_after(&writer, stopped, deadline),
        served_again(site, database, diary.origin, deadline),
        another_primary(site, deadline),
    )
    .await;
    for (client, what) in [(&writer, "a write"), (&reader, "a read")] {
        if let Some(at) = client.record().first_after(stopped + gap_after(&client.record(), stopped)) {
            diary.events.push((at, format!("{what} is answered again")));
        }
    }
    if let Some(at) = claims_again {
        diary.events.push((at, "the control plane has changed a database again".to_owned()));
    }
    match means.start().await {
        Some(Ok(())) => diary.note("the former primary is started"),
        Some(Err(problem)) => diary.note(format!("the former primary does not start: {problem}")),
        None => {}
    }
    let recovered = site.recovered(deadline.max(Instant::now())).await.then(|| diary.origin.elapsed());
    if recovered.is_some() {
        diary.note("every member is back");
    }
    sleep(AFTERMATH).await;
    let end = diary.origin.elapsed();
    [&writer, &reader].iter().for_each(|client| client.end());
    let (writes, reads) = (writer.record(), reader.record());
    let written = writer.written().await.ok();
    let lost =
        written.map(|there| writes.acknowledged.iter().filter(|(id, _)| there.binary_search(id).is_err()).count());

    diary.events.sort_by_key(|(at, _)| *at);
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
        stopped_at,
        means: means.kind(),
        former_primary: site.primary.clone(),
        primary,
        synchronous,
        writes: client(&database.write, &writes),
        reads: client(&database.read, &reads),
        lost: lost.map(|lost| lost as u64),
        claims_again_ms: claims_again.map(span),
        recovered_ms: recovered.map(span),
        rto_ms: u64::try_from(args.rto.as_millis()).unwrap_or(u64::MAX),
        recover_ms: u64::try_from(args.recover.as_millis()).unwrap_or(u64::MAX),
        passed: false,
        problems: Vec::new(),
        events: diary.events.iter().map(|(at, what)| DrillEvent { at_ms: since(*at), what: what.clone() }).collect(),
    };
    drill.problems = shortfalls(&drill);
    drill.passed = drill.problems.is_empty();
    let picture = Picture { drill: &drill, stopped, end, writes: &writes, reads: &reads }.svg();
    Ok(Some((drill, picture)))
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

/// Whether a client was answered all the time, and nothing has failed once it was let in.
fn is_steady(record: &Record) -> bool {
    let first = record.acknowledged.first().map(|(_, at)| *at);
    first.is_some_and(|first| record.errors.iter().all(|(at, _)| *at <= first))
}

/// From the stop to the end of the gap that it made.
fn gap_after(record: &Record, stopped: Duration) -> Duration {
    let last = record.acknowledged.last().map_or(stopped, |(_, at)| *at);
    let (gap, began) = record.longest_gap(stopped, last);
    (began + gap).saturating_sub(stopped + Duration::from_millis(1))
}

/// Waits until a client that was cut off is answered again.
async fn answered_after(client: &Pulse, stopped: Duration, deadline: Instant) {
    let cut_off = |record: &Record| record.errors.iter().any(|(at, _)| *at > stopped);
    let wait = async {
        loop {
            let record = client.record();
            let failed = record.errors.iter().map(|(at, _)| *at).filter(|at| *at > stopped).max();
            if cut_off(&record) && failed.is_some_and(|at| record.first_after(at).is_some()) {
                return;
            }
            sleep(LOOK).await;
        }
    };
    timeout(deadline.saturating_duration_since(Instant::now()), wait).await.ok();
}

async fn served_again(site: &Site, database: &Database, origin: Instant, deadline: Instant) -> Option<Duration> {
    site.serves_again(database, deadline).await.then(|| origin.elapsed())
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
