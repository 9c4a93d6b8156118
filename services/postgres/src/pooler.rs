//! PgBouncer as tenants find it, tried from outside: whether it answers, whom it knows, and how it lends connections.

use std::time::Duration;

use pgtenant_model::{HostPort, SslMode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, SslMode as Encryption};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::error::PostgresError;
use crate::tls::{self, Connector};
use crate::verifier::generate_password;

/// Another client's connection may have been lent in between: so often is it tried whether two clients share one.
const TRIES: usize = 3;

/// Where PgBouncer is, and how it is reached.
#[derive(Debug, Clone)]
pub struct PoolerOptions {
    /// Where tenants are led.
    pub address: HostPort,
    /// How they check its certificate.
    pub sslmode: SslMode,
    /// The authority that they are given, PEM; none: this machine's trust store.
    pub ca: Option<String>,
    /// For each connection, and for each answer.
    pub patience: Duration,
}

/// A PgBouncer.
#[derive(Clone)]
pub struct Pooler {
    options: PoolerOptions,
    tls: Connector,
}

/// What PgBouncer knows of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It has asked for it, and there is none for it.
    Nobody,
    /// It was asked for a password, and has refused that.
    Refused,
}

/// What a client of the pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lent {
    /// The server takes writes.
    pub primary: bool,
    /// PgBouncer came to it over TLS.
    pub tls: bool,
    /// A second client had the same connection while the first one was connected.
    pub shared: bool,
}

impl Pooler {
    /// Sets up TLS; connects to nothing yet.
    ///
    /// # Errors
    /// The authority is no certificate.
    pub fn new(options: PoolerOptions) -> Result<Self, PostgresError> {
        let tls = tls::connector(options.sslmode, options.ca.as_deref())?;
        Ok(Self { options, tls })
    }

    /// What it knows of a login, which is asked for with a password that nobody has.
    ///
    /// # Errors
    /// It does not answer, its certificate is not right, or it could not ask the servers.
    pub async fn knows(&self, login: &str, database: &str) -> Result<Known, PostgresError> {
        let word = generate_password(&mut rand::rng());
        match self.connect(login, &word, database).await {
            // SQLSTATE is 08P01 for all that PgBouncer itself refuses, so its words tell them apart.
            Err(PostgresError::Server { message, .. }) if message == "no such user" => Ok(Known::Nobody),
            Err(PostgresError::Server { message, .. }) if message.contains("authentication failed") => {
                Ok(Known::Refused)
            }
            Err(error) => Err(error),
            // It asks nobody for a password.
            Ok(_) => Err(PostgresError::Answer {
                what: self.what(login),
                reason: "it was let in with a wrong password".to_owned(),
            }),
        }
    }

    /// Whether it goes on with a client that has no TLS.
    pub async fn takes_clear_text(&self, login: &str, database: &str) -> bool {
        let mut config = self.config(login, database);
        config.ssl_mode(Encryption::Disable);
        let attempt = timeout(self.options.patience, config.connect(NoTls)).await;
        let said = attempt.map(|result| result.err().and_then(|error| error.as_db_error().cloned()));
        // Any other answer, such as that a password is missing, is one to a client that it talks to.
        said.is_ok_and(|said| said.is_some_and(|said| said.message() != "SSL required"))
    }

    /// Logs in twice, and looks at what is lent.
    ///
    /// # Errors
    /// It is not let in, or a statement does not go through.
    pub async fn lends(&self, login: &str, password: &SecretString, database: &str) -> Result<Lent, PostgresError> {
        let first = self.connect(login, password, database).await?;
        let (mut pid, primary, tls) = self.transaction(&first).await?;
        let second = self.connect(login, password, database).await?;
        let mut shared = false;
        for round in 0..TRIES {
            let client = if round % 2 == 0 { &second } else { &first };
            let other = match self.transaction(client).await {
                Ok((other, ..)) => other,
                // Each keeps a connection of its own, and there are no more.
                Err(PostgresError::Deadline { .. }) => break,
                Err(error) => return Err(error),
            };
            shared |= other == std::mem::replace(&mut pid, other.clone());
        }
        Ok(Lent { primary, tls, shared })
    }

    /// Its server's process, whether that takes writes, and whether it was reached over TLS.
    async fn transaction(&self, session: &Open) -> Result<(String, bool, bool), PostgresError> {
        const LOOK: &str =
            "SELECT pg_backend_pid(), NOT pg_is_in_recovery(), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let what = || "look at what PgBouncer lends".to_owned();
        let ask = async {
            session.client.simple_query("BEGIN READ ONLY").await?;
            let answer = session.client.simple_query(LOOK).await?;
            session.client.simple_query("COMMIT").await?;
            Ok::<_, tokio_postgres::Error>(answer)
        };
        let after = self.options.patience;
        let answer = timeout(after, ask).await.map_err(|_| PostgresError::Deadline { what: what(), after })?;
        let answer = answer.map_err(|error| PostgresError::new(what(), &error))?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some([row.get(0), row.get(1), row.get(2)]),
            _ => None,
        });
        let [Some(pid), Some(writable), Some(tls)] = row.unwrap_or_default() else {
            return Err(PostgresError::Answer { what: what(), reason: "it is not a row of three".to_owned() });
        };
        Ok((pid.to_owned(), writable == "t", tls == "t"))
    }

    async fn connect(&self, login: &str, password: &SecretString, database: &str) -> Result<Open, PostgresError> {
        let mut config = self.config(login, database);
        config.password(password.expose_secret()).ssl_mode(tls::encryption(&self.options.address.host));
        let after = self.options.patience;
        let (client, connection) = timeout(after, config.connect(self.tls.clone()))
            .await
            .map_err(|_| PostgresError::Deadline { what: self.what(login), after })?
            .map_err(|error| PostgresError::new(self.what(login), &error))?;
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Open { client, task: task.abort_handle() })
    }

    /// Without settings: PgBouncer refuses `options`.
    fn config(&self, login: &str, database: &str) -> Config {
        let HostPort { host, port } = &self.options.address;
        let mut config = Config::new();
        config.host(host).port(*port).dbname(database).user(login).application_name("pgtenant");
        config.channel_binding(ChannelBinding::Disable);
        config
    }

    fn what(&self, login: &str) -> String {
        format!("log in to PgBouncer at {} as {login:?}", self.options.address)
    }
}

impl std::fmt::Debug for Pooler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pooler").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A client that goes with this.
struct Open {
    client: Client,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}
