//! One question to one server, on a connection of its own.

use std::path::Path;
use std::time::Duration;

use pgtenant_model::{HostPort, SslMode};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgRow, PgSslMode};
use sqlx::{ConnectOptions, Connection};

/// How a tool beside the servers lets somebody in, where that is not in a file.
#[derive(Debug, Clone)]
pub struct ToolLogin {
    /// None: the topology's description says it.
    pub username: Option<String>,
    /// Its password.
    pub password: SecretString,
}

/// How members are asked.
#[derive(Debug, Clone)]
pub struct ProbeOptions {
    /// The login; it needs no privilege beyond CONNECT.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    /// The database to connect to.
    pub database: String,
    /// As libpq's `sslmode`.
    pub sslmode: SslMode,
    /// The certificate authority, PEM; none: the machine's own trust store.
    pub ca: Option<String>,
    /// How long one host may take to connect and answer; see [`ProbeOptions::CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// For the tool that the topology is told by, where it wants one and no file has it.
    pub tool: Option<ToolLogin>,
}

impl ProbeOptions {
    /// Long enough for a busy host on a far network, short enough to find another one soon.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
}

/// Why a server is not known to have done what it was told.
#[derive(Debug)]
pub(crate) enum Unheard {
    /// It has not.
    Not(String),
    /// It may have.
    Perhaps(String),
}

/// For a goodbye, so that the server logs no lost connection.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

impl ProbeOptions {
    /// The one row that answers `question`, or why there is none, within the timeout.
    pub(crate) async fn ask(&self, host: &HostPort, question: &'static str) -> Result<PgRow, String> {
        let limit = self.connect_timeout;
        let answer = tokio::time::timeout(limit, self.ask_patiently(host, question)).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }

    async fn ask_patiently(&self, host: &HostPort, question: &'static str) -> Result<PgRow, String> {
        let mut connection = self.connect_options(host).connect().await.map_err(|e| reason(&e))?;
        let row = sqlx::raw_sql(question).fetch_one(&mut connection).await.map_err(|e| reason(&e));
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close()).await;
        });
        row
    }

    /// Has one server do something, within the timeout, or says why it did not. Whether it was done is not known where nothing came back.
    pub(crate) async fn tell(&self, host: &HostPort, statement: &'static str, values: &[&str]) -> Result<(), Unheard> {
        let limit = self.connect_timeout;
        let connecting = tokio::time::timeout(limit, self.connect_options(host).connect()).await;
        let mut connection = connecting
            .map_err(|_| Unheard::Not(format!("no answer within {limit:?}")))?
            .map_err(|error| Unheard::Not(reason(&error)))?;
        let query = values.iter().fold(sqlx::query(statement), |query, value| query.bind(*value));
        let told = match tokio::time::timeout(limit, query.execute(&mut connection)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error @ sqlx::Error::Database(_))) => Err(Unheard::Not(reason(&error))),
            Ok(Err(error)) => Err(Unheard::Perhaps(reason(&error))),
            Err(_) => Err(Unheard::Perhaps(format!("no answer within {limit:?}"))),
        };
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close()).await;
        });
        told
    }

    pub(crate) fn connect_options(&self, host: &HostPort) -> PgConnectOptions {
        let ProbeOptions { username, password, database, sslmode, ca, connect_timeout: _, tool: _ } = self;
        let options = PgConnectOptions::new_without_pgpass()
            .host(&host.host)
            .port(host.port)
            .username(username)
            .password(password.expose_secret())
            .database(database)
            .ssl_mode(match sslmode {
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyCa => PgSslMode::VerifyCa,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            })
            .application_name("pgtenant topology")
            .disable_statement_logging();
        match ca {
            Some(pem) => options.ssl_root_cert_from_pem(pem.clone().into_bytes()),
            None => options,
        }
    }
}

/// The first line of a file, where a password is.
pub(crate) async fn first_line(file: &Path) -> Result<SecretString, String> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned().into())
}

/// For people, in one line.
pub(crate) fn reason(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Database(error) => match error.code() {
            Some(code) => format!("{} ({code})", error.message()),
            None => error.message().to_owned(),
        },
        other => other.to_string(),
    }
}

/// Columns `read_only` and `timeline` of a question about a server of which `in_recovery` is known.
///
/// A primary's timeline is in the name of its log file; the control file has it only after the checkpoint that follows a promotion.
macro_rules! state {
    () => {
        "current_setting('transaction_read_only') = 'on' AS read_only,
       CASE WHEN in_recovery
            THEN (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)
                    FROM pg_control_checkpoint() c, pg_control_recovery() r)
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
       END AS timeline, "
    };
}
pub(crate) use state;
