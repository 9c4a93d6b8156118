//! A client as an application is one: it writes or reads all the time, connects again when it is cut off, and notes what it sees.
//! With it a drill measures for how long applications are without their database.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgtenant_model::{HostPort, SslMode};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::config::ChannelBinding;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use crate::error::{PostgresError, chain};
use crate::tls::{self, Connector};

/// What pulses write to and read from: ids from 1, each once. The admin tier makes it in `public`.
pub const PULSE_TABLE: &str =
    "create table if not exists pgtenant_drill (id bigint primary key); truncate pgtenant_drill";

/// From the answer to one beat to the next beat.
const PACE: Duration = Duration::from_millis(20);
/// After every host was tried in vain.
const RETRY: Duration = Duration::from_millis(50);
/// Whoever takes longer is given up: TCP, TLS and authentication.
const CONNECT: Duration = Duration::from_secs(2);
/// And so is a beat; it is not known then whether it was written.
const BEAT: Duration = Duration::from_secs(2);
/// Different errors that are kept.
const MOST_ERRORS: usize = 20;

/// What the client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Inserts a row, in a transaction of its own.
    Write,
    /// Selects.
    Read,
}

/// How the client reaches its database: what a stored credential says.
#[derive(Debug, Clone)]
pub struct PulseOptions {
    /// The hosts of the URI. Of several the writable one is taken (`target_session_attrs=read-write`).
    pub hosts: Vec<HostPort>,
    /// How TLS is checked.
    pub sslmode: SslMode,
    /// The certificate authority, PEM; none: this machine's trust store.
    pub ca: Option<String>,
    /// The login.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    /// The database.
    pub database: String,
}

/// What a client has seen, in times since the drill's beginning.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Beats that were answered: the id that was written, 0 for reads, and when.
    pub acknowledged: Vec<(i64, Duration)>,
    /// Beats and connections that failed.
    pub failures: u64,
    /// When the last of them failed.
    pub failed_at: Option<Duration>,
    /// What was said, each text once with when it was first said.
    pub errors: Vec<(Duration, String)>,
}

impl Record {
    /// The longest time from one answer to the next between `from` and `to`, and when it began. What is still without an answer at
    /// `to` counts.
    #[must_use]
    pub fn longest_gap(&self, from: Duration, to: Duration) -> (Duration, Duration) {
        let before = self.acknowledged.iter().map(|(_, at)| *at).take_while(|at| *at <= from).last().unwrap_or(from);
        let within = self.acknowledged.iter().map(|(_, at)| *at).filter(|at| *at > from && *at < to);
        let mut last = before;
        let mut longest = (Duration::ZERO, before);
        for at in within.chain([to]) {
            let gap = at.saturating_sub(last);
            if gap > longest.0 {
                longest = (gap, last);
            }
            last = at;
        }
        longest
    }

    /// Times without an answer that are longer than `least`, each with when it began, the first one not among them.
    #[must_use]
    pub fn gaps(&self, least: Duration, end: Duration) -> Vec<(Duration, Duration)> {
        let times: Vec<Duration> = self.acknowledged.iter().map(|(_, at)| *at).chain([end]).collect();
        let pairs = times.windows(2).map(|pair| (pair[0], pair[1].saturating_sub(pair[0])));
        pairs.filter(|(_, gap)| *gap > least).collect()
    }

    /// The first answer after `from`.
    #[must_use]
    pub fn first_after(&self, from: Duration) -> Option<Duration> {
        self.acknowledged.iter().map(|(_, at)| *at).find(|at| *at > from)
    }

    fn fail(&mut self, at: Duration, text: String) {
        self.failures += 1;
        self.failed_at = Some(at);
        if self.errors.len() < MOST_ERRORS && !self.errors.iter().any(|(_, known)| *known == text) {
            self.errors.push((at, text));
        }
    }
}

/// A client at work. It ends when this is dropped.
pub struct Pulse {
    options: PulseOptions,
    connector: Connector,
    record: Arc<Mutex<Record>>,
    task: AbortHandle,
}

impl Pulse {
    /// Begins at once; times count from `origin`.
    ///
    /// # Errors
    /// TLS can not be set up.
    pub fn begin(options: PulseOptions, beat: Beat, origin: Instant) -> Result<Self, PostgresError> {
        let connector = tls::connector(options.sslmode, options.ca.as_deref())?;
        let record = Arc::<Mutex<Record>>::default();
        let work =
            Work { options: options.clone(), connector: connector.clone(), beat, record: Arc::clone(&record), origin };
        let task = tokio::spawn(work.run()).abort_handle();
        Ok(Self { options, connector, record, task })
    }

    /// What was seen so far.
    #[must_use]
    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Ends it; what is on its way is answered to nobody.
    pub fn end(&self) {
        self.task.abort();
    }

    /// Runs statements once, as this login.
    ///
    /// # Errors
    /// No host takes them.
    pub async fn run(options: &PulseOptions, sql: &str) -> Result<(), PostgresError> {
        let connector = tls::connector(options.sslmode, options.ca.as_deref())?;
        texts(options, &connector, sql).await.map(drop)
    }

    /// Whether commits wait for a standby: the primary's `synchronous_standby_names` is not empty, and the login's
    /// `synchronous_commit` not `off` or `local`.
    ///
    /// # Errors
    /// No host answers.
    pub async fn is_synchronous(&self) -> Result<bool, PostgresError> {
        let sql = "select current_setting('synchronous_standby_names') <> ''
                   and current_setting('synchronous_commit') not in ('off', 'local')";
        Ok(texts(&self.options, &self.connector, sql).await?.iter().any(|text| text == "t"))
    }

    /// Which of the writes are in the database.
    ///
    /// # Errors
    /// No host answers.
    pub async fn written(&self) -> Result<Vec<i64>, PostgresError> {
        let sql = "select id from pgtenant_drill order by id";
        let texts = texts(&self.options, &self.connector, sql).await?;
        Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }
}

/// Asked of the first host that answers.
async fn texts(options: &PulseOptions, connector: &Connector, sql: &str) -> Result<Vec<String>, PostgresError> {
    let mut why = String::from("no host is known");
    for host in &options.hosts {
        match timeout(10 * BEAT, ask(options, host, connector, sql)).await {
            Ok(Ok(texts)) => return Ok(texts),
            Ok(Err(text)) => why = text,
            Err(_) => why = format!("{host} did not answer"),
        }
    }
    Err(PostgresError::Setup { what: "the drill's own question".into(), reason: why })
}

impl std::fmt::Debug for Pulse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pulse").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.end();
    }
}

struct Work {
    options: PulseOptions,
    connector: Connector,
    beat: Beat,
    record: Arc<Mutex<Record>>,
    origin: Instant,
}

impl Work {
    async fn run(self) {
        let mut id = 0;
        loop {
            for host in &self.options.hosts {
                match connect(&self.options, host, &self.connector).await {
                    Ok(client) => self.beat_until_it_fails(&client, &mut id).await,
                    Err(text) => self.fail(text),
                }
            }
            sleep(RETRY).await;
        }
    }

    async fn beat_until_it_fails(&self, client: &Client, id: &mut i64) {
        loop {
            let sql = match self.beat {
                Beat::Write => {
                    // One that was sent and not answered may be there: its number is not used again.
                    *id += 1;
                    format!("insert into pgtenant_drill (id) values ({id})")
                }
                Beat::Read => "select max(id) from pgtenant_drill".to_owned(),
            };
            match timeout(BEAT, client.simple_query(&sql)).await {
                Ok(Ok(_)) => lock(&self.record).acknowledged.push((*id, self.origin.elapsed())),
                Ok(Err(error)) => return self.fail(chain(&error)),
                Err(_) => return self.fail(format!("no answer within {} s", BEAT.as_secs())),
            }
            sleep(PACE).await;
        }
    }

    fn fail(&self, text: String) {
        lock(&self.record).fail(self.origin.elapsed(), text);
    }
}

/// As libpq does with a URI of one host, or of several and `target_session_attrs=read-write`.
async fn connect(options: &PulseOptions, host: &HostPort, connector: &Connector) -> Result<Client, String> {
    let mut config = Config::new();
    config
        .host(&host.host)
        .port(host.port)
        .dbname(&options.database)
        .user(&options.username)
        .password(options.password.expose_secret())
        .application_name("pgtenant drill")
        .ssl_mode(tls::encryption(&host.host))
        .channel_binding(ChannelBinding::Prefer);
    let connected = timeout(CONNECT, config.connect(connector.clone())).await;
    let (client, connection) = connected
        .map_err(|_| format!("{host} did not let it in within {} s", CONNECT.as_secs()))?
        .map_err(|error| format!("{host}: {}", chain(&error)))?;
    tokio::spawn(connection);
    if options.hosts.len() > 1 {
        let read_only = timeout(CONNECT, rows(&client, "show transaction_read_only")).await;
        match read_only.map_err(|_| format!("{host} did not answer within {} s", CONNECT.as_secs()))?? {
            answer if answer == ["off"] => {}
            _ => return Err(format!("{host} is not writable")),
        }
    }
    Ok(client)
}

async fn ask(options: &PulseOptions, host: &HostPort, connector: &Connector, sql: &str) -> Result<Vec<String>, String> {
    rows(&connect(options, host, connector).await?, sql).await
}

/// The first column of a query's rows.
async fn rows(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let answer = client.simple_query(sql).await.map_err(|error| chain(&error))?;
    let text = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(answer.into_iter().filter_map(text).collect())
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: &[u64]) -> Record {
        let acknowledged = at.iter().map(|at| (1, Duration::from_millis(*at))).collect();
        Record { acknowledged, ..Record::default() }
    }

    #[test]
    fn the_longest_gap_is_from_answer_to_answer() {
        let gap = |at: &[u64], from, to| {
            let (gap, begun) = record(at).longest_gap(Duration::from_millis(from), Duration::from_millis(to));
            (gap.as_millis(), begun.as_millis())
        };
        // From the last answer before the primary was stopped.
        assert_eq!(gap(&[10, 20, 520, 540], 30, 600), (500, 20));
        // No answer came any more.
        assert_eq!(gap(&[10, 20], 30, 1000), (980, 20));
        assert_eq!(gap(&[], 30, 1000), (970, 30));
        // What was slow before that is not counted.
        assert_eq!(gap(&[10, 900, 910], 905, 920), (10, 900));
        assert_eq!(record(&[10, 40]).first_after(Duration::from_millis(10)), Some(Duration::from_millis(40)));
    }

    #[test]
    fn errors_are_kept_once_each() {
        let mut record = Record::default();
        (0..100).for_each(|n| record.fail(Duration::from_secs(n), format!("error {}", n % 30)));
        assert_eq!((record.failures, record.errors.len()), (100, MOST_ERRORS));
    }
}
