//! Own connections to one database: as many at once as jobs, without limits of time on statements that move data.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio_postgres::config::ChannelBinding;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use crate::error::{PostgresError, chain};
use crate::server::ServerOptions;
use crate::session::Parameter;
use crate::tls::{self, Connector};

/// Given when the connection is made, a setting beats `ALTER ROLE SET` and `ALTER DATABASE SET`. Rows have the same text on
/// both sides, and nothing ends a session that works for hours: that the other side is gone is seen by the keepalives.
pub(super) const SETTINGS: &str = "-c search_path=pg_catalog,pg_temp -c statement_timeout=0 -c lock_timeout=0 \
     -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c default_transaction_read_only=off \
     -c default_transaction_deferrable=off -c default_transaction_isolation=read\\ committed \
     -c client_min_messages=warning -c jit=off -c row_security=off -c synchronize_seqscans=off \
     -c standard_conforming_strings=on -c transform_null_equals=off -c quote_all_identifiers=off \
     -c DateStyle=ISO,YMD -c IntervalStyle=postgres -c TimeZone=UTC -c extra_float_digits=3 -c bytea_output=hex \
     -c xmloption=content -c lc_monetary=C -c synchronous_commit=off";

/// Settings that not every version has.
const LATER_SETTINGS: &str = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
     WHERE name = 'transaction_timeout'";

/// Seconds without a sign of life after which the other side is asked for one.
pub(super) const KEEPALIVE_IDLE: u64 = 10;
/// Seconds between two questions.
pub(super) const KEEPALIVE_INTERVAL: u64 = 5;
/// Questions without an answer after which the connection is given up.
pub(super) const KEEPALIVE_COUNT: u32 = 3;
/// What was sent is acknowledged in this time, or the connection is given up.
pub(super) const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

const PREPARE: &str = "prepare a session";

/// Who connects to which database.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) options: ServerOptions,
    pub(super) database: String,
    tls: Tls,
}

#[derive(Clone)]
struct Tls(Connector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Access {
    pub(super) fn new(options: &ServerOptions, database: &str) -> Result<Self, PostgresError> {
        let tls = Tls(tls::connector(options.sslmode, options.ca.as_deref())?);
        Ok(Self { options: options.clone(), database: database.to_owned(), tls })
    }

    /// Connects, and runs `setup`.
    pub(super) async fn open(&self, setup: &str) -> Result<Wire, PostgresError> {
        let what = || format!("connect to database {:?} as {:?}", self.database, self.options.username);
        let after = self.options.timeouts.connect;
        let connecting = tokio::time::timeout(after, self.config().connect(self.tls.0.clone())).await;
        let (client, connection) = match connecting {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(PostgresError::new(what(), &error)),
            Err(_) => return Err(PostgresError::Deadline { what: what(), after }),
        };
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %chain(&error), "connection ended");
            }
        });
        let wire = Wire { client, task: task.abort_handle() };
        wire.prepare(setup).await?;
        Ok(wire)
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .host(&self.options.host)
            .port(self.options.port)
            .dbname(&self.database)
            .user(&self.options.username)
            .password(self.options.password.expose_secret())
            .application_name(&self.options.application_name)
            .ssl_mode(tls::encryption(&self.options.host))
            .channel_binding(ChannelBinding::Prefer)
            .keepalives_idle(Duration::from_secs(KEEPALIVE_IDLE))
            .keepalives_interval(Duration::from_secs(KEEPALIVE_INTERVAL))
            .keepalives_retries(KEEPALIVE_COUNT)
            .tcp_user_timeout(ACKNOWLEDGED_WITHIN)
            .options(SETTINGS);
        config
    }
}

/// A connection. When it is dropped it is closed, whatever it was doing.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) client: Client,
    task: AbortHandle,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    async fn prepare(&self, setup: &str) -> Result<(), PostgresError> {
        // Apart: together they would be one transaction, in which a query was before its isolation is set.
        let (later, setup) = tokio::join!(self.run(PREPARE, LATER_SETTINGS), self.run(PREPARE, setup));
        later.and(setup)
    }

    /// As it was when it was opened: a tenant's functions may have run on it, and may have set what they liked.
    async fn renew(&self, setup: &str) -> Result<(), PostgresError> {
        let (discarded, prepared) = tokio::join!(self.run(PREPARE, "DISCARD ALL"), self.prepare(setup));
        discarded.and(prepared)
    }

    /// Sends statements in one message.
    pub(super) async fn run(&self, what: &str, sql: &str) -> Result<(), PostgresError> {
        self.client.batch_execute(sql).await.map_err(|error| PostgresError::new(what, &error))
    }

    /// The first column of the last row that a message of statements gives.
    pub(super) async fn text(&self, what: &str, sql: &str) -> Result<String, PostgresError> {
        let messages = self.client.simple_query(sql).await.map_err(|error| PostgresError::new(what, &error))?;
        let row = messages.into_iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        row.ok_or_else(|| PostgresError::Answer { what: what.to_owned(), reason: "there is no row in it".into() })
    }

    /// Runs a query of one column of JSON.
    pub(super) async fn documents<T: DeserializeOwned>(
        &self,
        what: &str,
        query: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<T>, PostgresError> {
        let rows = self.client.query_typed(query, parameters).await;
        let rows = rows.map_err(|error| PostgresError::new(what, &error))?;
        let read = |row: &tokio_postgres::Row| {
            let text: &str = row.try_get(0).map_err(|error| PostgresError::new(what, &error))?;
            serde_json::from_str(text)
                .map_err(|error| PostgresError::Answer { what: what.to_owned(), reason: error.to_string() })
        };
        rows.iter().map(read).collect()
    }
}

/// Sessions that are made when they are needed, as many as jobs, and used again.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) access: Access,
    setup: String,
    /// Whether a session is made as new before it is used again.
    renewed: bool,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Wire>>,
}

impl Pool {
    /// All sessions are in one transaction each, which `setup` begins.
    pub(super) fn in_transactions(access: Access, setup: String, jobs: usize) -> Arc<Self> {
        Self::new(access, setup, jobs, false)
    }

    /// Sessions are as new for each use.
    pub(super) fn renewed(access: Access, setup: String, jobs: usize) -> Arc<Self> {
        Self::new(access, setup, jobs, true)
    }

    fn new(access: Access, setup: String, jobs: usize, renewed: bool) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(jobs.max(1)));
        Arc::new(Self { access, setup, renewed, permits, idle: Mutex::default() })
    }

    /// One of the sessions, when one is free.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Lease, PostgresError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        // The semaphore is never closed.
        let permit =
            permit.map_err(|error| PostgresError::Setup { what: "sessions".into(), reason: error.to_string() })?;
        loop {
            let idle = self.idle().pop();
            let wire = match idle {
                Some(wire) if wire.client.is_closed() => continue,
                Some(wire) if self.renewed && wire.renew(&self.setup).await.is_err() => continue,
                Some(wire) => wire,
                None => self.access.open(&self.setup).await?,
            };
            return Ok(Lease { pool: Arc::clone(self), wire, _permit: permit });
        }
    }

    /// Closes those that are not in use.
    pub(super) fn close_idle(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Wire>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session in use. It is closed when it is dropped, unless it is given back.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Pool>,
    pub(super) wire: Wire,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// For the next one who needs it: it is as it was when it was taken.
    pub(super) fn give_back(self) {
        let Self { pool, wire, _permit } = self;
        pool.idle().push(wire);
    }
}
