//! A primary and the connections to it: at most eight, each with deadlines on both sides.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use pgtenant_model::SslMode;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Config;
use tokio_postgres::config::ChannelBinding;

use crate::error::{PostgresError, ProofError};
use crate::session::{Live, Session};
use crate::tls::{self, Connector};

/// Connections to the maintenance database, and as many to tenants' databases. Nobody who holds one of the first waits
/// for another of the first, nor the like with the second, so that no two wait for each other.
const CONNECTIONS_OF_A_KIND: usize = 4;

/// How long more than one idle connection is kept: a burst uses them again at once.
const SPARE_IDLE: Duration = Duration::from_secs(2);

/// How a server is reached.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The primary.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured; never in clear text.
    pub sslmode: SslMode,
    /// The certificate authority, PEM; none: this machine's trust store.
    pub ca: Option<String>,
    /// The provisioner's login.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    /// The database in which it works when it is in no tenant's.
    pub maintenance_database: String,
    /// As `pg_stat_activity` shows it.
    pub application_name: String,
    /// Limits of time.
    pub timeouts: Timeouts,
}

/// Limits of time. The server's own `statement_timeout` is a second below the client's: a commit that waits for a
/// synchronous standby is ended by none of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, TLS and authentication together.
    pub connect: Duration,
    /// A batch.
    pub statement: Duration,
    /// `CREATE DATABASE` and `DROP DATABASE`.
    pub database: Duration,
    /// A lock, on the server.
    pub lock: Duration,
    /// How long an idle maintenance connection is kept.
    pub idle: Duration,
    /// How long a caller waits for one of the connections to come free.
    pub queue: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            statement: Duration::from_secs(30),
            database: Duration::from_secs(120),
            lock: Duration::from_secs(3),
            idle: Duration::from_secs(30),
            queue: Duration::from_secs(30),
        }
    }
}

/// A primary. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    options: ServerOptions,
    tls: Connector,
    maintenance: Arc<Semaphore>,
    others: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    idle: Mutex<Idle>,
    clock: Mutex<Option<(DateTime<Utc>, Instant)>>,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last is at the end.
    sessions: Vec<(Live, Instant)>,
    swept: bool,
}

/// Counted for as long as it lives.
pub(crate) struct Counted {
    open: Arc<AtomicUsize>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who logs in to which database.
struct Login<'a> {
    what: String,
    database: &'a str,
    username: &'a str,
    password: &'a SecretString,
    statement_timeout: Duration,
}

impl Server {
    /// Sets up TLS; connects to nothing yet.
    ///
    /// # Errors
    /// The CA file can not be read or holds no certificate.
    pub fn new(options: ServerOptions) -> Result<Self, PostgresError> {
        let tls = tls::connector(options.sslmode, options.ca.as_deref())?;
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                tls,
                maintenance: Arc::new(Semaphore::new(CONNECTIONS_OF_A_KIND)),
                others: Arc::new(Semaphore::new(CONNECTIONS_OF_A_KIND)),
                open: Arc::default(),
                idle: Mutex::default(),
                clock: Mutex::default(),
            }),
        })
    }

    /// How the server is reached.
    #[must_use]
    pub fn options(&self) -> &ServerOptions {
        &self.inner.options
    }

    /// Connections that are open or being opened now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.open.load(Ordering::Relaxed)
    }

    /// A session of the provisioner in the maintenance database; it is used again after it is dropped.
    ///
    /// # Errors
    /// No connection came free, or the server does not let the provisioner in.
    pub async fn maintenance(&self) -> Result<Session, PostgresError> {
        let options = self.options();
        let what = "connect to the maintenance database".to_owned();
        let permit = self.permit(&self.inner.maintenance, &what).await?;
        while let Some((live, _)) = { self.inner.idle().sessions.pop() } {
            if live.is_usable() {
                return Ok(Session::pooled(live, permit, &self.inner));
            }
        }
        let login = Login {
            what,
            database: &options.maintenance_database,
            username: &options.username,
            password: &options.password,
            // Batches set a lower one for themselves.
            statement_timeout: options.timeouts.database,
        };
        let live = self.connect(login, None).await?;
        Ok(Session::pooled(live, permit, &self.inner))
    }

    /// A session of the provisioner in `database`, closed when it is dropped.
    ///
    /// # Errors
    /// No connection came free, or the server does not let the provisioner in.
    pub async fn inside(&self, database: &str) -> Result<Session, PostgresError> {
        let options = self.options();
        let what = format!("connect to database {database:?}");
        let permit = self.permit(&self.inner.others, &what).await?;
        let login = Login {
            what,
            database,
            username: &options.username,
            password: &options.password,
            statement_timeout: options.timeouts.statement,
        };
        Ok(Session::single(self.connect(login, Some(permit)).await?))
    }

    /// A real login of a tier: proves the password and CONNECT. Drop the session before waiting for another.
    ///
    /// # Errors
    /// Says whether the password is wrong, or right and something else in the way, or nothing is known of it.
    pub async fn prove(&self, database: &str, login: &str, password: &SecretString) -> Result<Session, ProofError> {
        self.log_in(database, login, password).await.map_err(|error| ProofError::new(login, error))
    }

    /// A session of another login, closed when it is dropped.
    ///
    /// # Errors
    /// No connection came free, or the server does not let it in.
    pub async fn log_in(&self, database: &str, login: &str, password: &SecretString) -> Result<Session, PostgresError> {
        let what = format!("log in to database {database:?} as {login:?}");
        let permit = self.permit(&self.inner.others, &what).await?;
        let statement_timeout = self.options().timeouts.statement;
        let credential = Login { what, database, username: login, password, statement_timeout };
        self.connect(credential, Some(permit)).await.map(Session::single)
    }

    async fn permit(&self, semaphore: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, PostgresError> {
        let after = self.options().timeouts.queue;
        let permit = tokio::time::timeout(after, Arc::clone(semaphore).acquire_owned()).await;
        // The semaphore is never closed, so this is the deadline.
        permit.ok().and_then(Result::ok).ok_or_else(|| PostgresError::Busy {
            what: what.to_owned(),
            limit: CONNECTIONS_OF_A_KIND,
            after,
        })
    }

    async fn connect(&self, login: Login<'_>, permit: Option<OwnedSemaphorePermit>) -> Result<Live, PostgresError> {
        self.inner.open.fetch_add(1, Ordering::Relaxed);
        let counted = Counted { open: Arc::clone(&self.inner.open), _permit: permit };
        let config = self.config(&login);
        let after = self.options().timeouts.connect;
        match tokio::time::timeout(after, config.connect(self.inner.tls.clone())).await {
            Ok(Ok((client, connection))) => Ok(Live::new(client, connection, counted, self.options().timeouts.clone())),
            Ok(Err(error)) => Err(PostgresError::new(login.what, &error)),
            Err(_) => Err(PostgresError::Deadline { what: login.what, after }),
        }
    }

    fn config(&self, login: &Login<'_>) -> Config {
        let options = self.options();
        let second = Duration::from_secs(1);
        let statement_timeout = login.statement_timeout.saturating_sub(second).max(second);
        let mut config = Config::new();
        config
            .host(&options.host)
            .port(options.port)
            .dbname(login.database)
            .user(login.username)
            .password(login.password.expose_secret())
            .application_name(&options.application_name)
            .ssl_mode(tls::encryption(&options.host))
            .channel_binding(ChannelBinding::Prefer)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(30))
            // Given here, a setting beats ALTER ROLE SET and ALTER DATABASE SET, which a tenant may use. The planner thinks
            // that looking costs much, as it does not know how short the lists are; compiling the query would take 2 s.
            .options(format!(
                "-c search_path=pg_catalog,pg_temp -c statement_timeout={} -c lock_timeout={} \
                 -c idle_in_transaction_session_timeout={} -c default_transaction_read_only=off \
                 -c default_transaction_isolation=read\\ committed -c client_min_messages=warning \
                 -c jit=off -c plan_cache_mode=force_generic_plan",
                statement_timeout.as_millis(),
                options.timeouts.lock.as_millis(),
                options.timeouts.statement.as_millis(),
            ));
        config
    }

    pub(crate) fn saw_clock(&self, clock: DateTime<Utc>) {
        *lock(&self.inner.clock) = Some((clock, Instant::now()));
    }

    /// The server's clock as it is now, or a little earlier; none: it was never asked.
    pub(crate) fn clock(&self) -> Option<DateTime<Utc>> {
        (*lock(&self.inner.clock)).map(|(clock, seen)| clock + seen.elapsed())
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { options, open, .. } = self;
        f.debug_struct("Server").field("options", options).field("open", open).finish_non_exhaustive()
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        lock(&self.idle)
    }

    /// Keeps a session for the next caller, and sees to it that it is closed when none comes.
    pub(crate) fn park(self: &Arc<Self>, live: Live) {
        let mut idle = self.idle();
        idle.sessions.push((live, Instant::now()));
        if !std::mem::replace(&mut idle.swept, true) {
            let inner = Arc::downgrade(self);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(SPARE_IDLE / 2).await;
                    let Some(inner) = inner.upgrade() else { return };
                    if !inner.sweep() {
                        return;
                    }
                }
            });
        }
    }

    /// Closes what has been idle for too long; false: nothing is left to watch.
    fn sweep(&self) -> bool {
        let mut idle = self.idle();
        let last = idle.sessions.len().saturating_sub(1);
        let mut index = 0;
        idle.sessions.retain(|(live, since)| {
            let limit = if index == last { self.options.timeouts.idle } else { SPARE_IDLE };
            index += 1;
            live.is_usable() && since.elapsed() < limit
        });
        idle.swept = !idle.sessions.is_empty();
        idle.swept
    }
}

/// No code panics while it holds one of these locks, and their contents are valid at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
