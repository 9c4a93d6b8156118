//! A PostgreSQL server of a lab: its files, its start, and what it says of itself.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;

use crate::config::{self, Settings};
use crate::control;
use crate::error::{Error, Result};
use crate::files;
use crate::ha::processes;
use crate::ha::site::{ASK_DEADLINE, Daemon, SUPERUSER, Site};
use crate::ha::verifier;
use crate::initdb;
use crate::postmaster;
use crate::process::AtTheEnd;

pub(crate) const POSTGRES: &str = "postgres";
/// The login by which standbys stream.
pub(crate) const REPLICATOR: &str = "replicator";
/// Crash recovery is the slowest start.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(60);
/// A server that was just promoted has no slots for those that are to follow it. Each checkpoint until then, as `DROP DATABASE` makes one,
/// would take from it the log that they lack.
pub(crate) const WAL_KEEP: &str = "1GB";
const SQL_DEADLINE: Duration = Duration::from_secs(30);

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) standby: bool,
    /// Of a standby: whether it gets anything.
    pub(crate) streams: bool,
}

impl Site {
    /// `PGDATA`.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.home(name).join("data")
    }

    /// Whether there is data.
    pub(crate) fn has_data(&self, name: &str) -> bool {
        self.data(name).join("PG_VERSION").exists()
    }

    /// Whether the data is a standby's, running or not.
    pub(crate) fn is_standby(&self, name: &str) -> bool {
        self.data(name).join("standby.signal").exists()
    }

    /// The node's slot on a primary.
    pub(crate) fn slot(name: &str) -> String {
        format!("lab_{}", name.replace('-', "_"))
    }

    /// Login of the superuser to database `postgres`, `verify-full`.
    pub(crate) fn login(&self, port: u16) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("localhost")
            .port(port)
            .username(SUPERUSER)
            .password(self.password.expose_secret())
            .database("postgres")
            .ssl_mode(PgSslMode::VerifyFull)
            .ssl_root_cert(self.authority.certificate_file())
            .application_name("pgtenant lab")
    }

    /// `None`: no answer.
    pub(crate) async fn ask(&self, port: u16) -> Option<Said> {
        let question = async {
            let mut connection = self.login(port).connect().await?;
            let sql =
                "SELECT pg_is_in_recovery(), EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')";
            let answer: (bool, bool) = sqlx::query_as(sql).fetch_one(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(answer)
        };
        let (standby, streams) = timeout(ASK_DEADLINE, question).await.ok()?.ok()?;
        Some(Said { standby, streams })
    }

    /// The first node that takes writes.
    pub(crate) async fn primary(&self) -> Option<String> {
        for name in self.nodes() {
            if self.ask(self.port(&name)).await.is_some_and(|said| !said.standby) {
                return Some(name);
            }
        }
        None
    }

    /// Of several that have received as much, the first.
    pub(crate) async fn most_advanced(&self) -> Option<String> {
        let mut best: Option<(i64, String)> = None;
        for name in self.nodes() {
            let Some(received) = self.received(self.port(&name)).await else { continue };
            if best.as_ref().is_none_or(|(most, _)| received > *most) {
                best = Some((received, name));
            }
        }
        best.map(|(_, name)| name)
    }

    /// How far a standby has the primary's log, in bytes from its beginning: received, or replayed where it has received none since it
    /// started. None: no standby, or no answer.
    async fn received(&self, port: u16) -> Option<i64> {
        let question = async {
            let mut connection = self.login(port).connect().await?;
            let sql = "SELECT pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')::bigint \
                       WHERE pg_is_in_recovery()";
            let received: Option<Option<i64>> = sqlx::query_scalar(sql).fetch_optional(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(received.flatten())
        };
        timeout(ASK_DEADLINE, question).await.ok()?.ok()?
    }

    /// Runs statements as the superuser.
    pub(crate) async fn execute(&self, name: &str, sql: String) -> Result<()> {
        let work = async {
            // What is logged of a statement is its whole text, which may have a verifier in it.
            let mut connection = self.login(self.port(name)).disable_statement_logging().connect().await?;
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
            connection.close().await
        };
        bounded(name, work).await
    }

    /// Makes the login unless it is there. Its password is set in either case.
    pub(crate) async fn set_login(
        &self,
        name: &str,
        login: &str,
        attributes: &str,
        password: &SecretString,
    ) -> Result<()> {
        let verifier = verifier(password);
        let sql = format!(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{login}') THEN CREATE ROLE {login}; END IF; END $$; \
             ALTER ROLE {login} LOGIN {attributes} PASSWORD '{}'",
            verifier.as_str()
        );
        self.execute(name, sql).await
    }

    /// For several questions to one server.
    pub(crate) async fn connect(&self, name: &str) -> Result<PgConnection> {
        bounded(name, self.login(self.port(name)).connect()).await
    }

    /// Makes an empty primary. What was in the data folder is removed.
    pub(crate) async fn create(&self, name: &str) -> Result<()> {
        let fresh = self.clear(name).await?;
        let runner = self.runner(name);
        initdb::run(&runner, &self.binaries, &fresh, SUPERUSER, &self.password, self.state.fsync).await?;
        self.take(name)
    }

    /// Copies a running server. Data takes its place when it is whole; what was there is removed.
    pub(crate) async fn copy(&self, name: &str, primary: &str) -> Result<()> {
        let fresh = self.clear(name).await?;
        let mut args = vec![
            format!("--pgdata={}", fresh.display()),
            format!("--dbname={}", self.conninfo(name, primary, REPLICATOR)),
            format!("--slot={}", Self::slot(name)),
        ];
        args.extend("--wal-method=stream --checkpoint=fast --no-password".split_whitespace().map(str::to_owned));
        args.extend((!self.state.fsync).then(|| "--no-sync".to_owned()));
        self.runner(name).run(&self.binaries.program("pg_basebackup")?, args).await?;
        self.mark_standby(name, "data.new")?;
        self.take(name)
    }

    /// Makes the past of a stopped server that of a running primary.
    pub(crate) async fn rewind(&self, name: &str, primary: &str) -> Result<()> {
        // Until its first checkpoint, what pg_rewind reads of a promoted server is of before the promotion.
        self.execute(primary, "CHECKPOINT".to_owned()).await?;
        let args = [
            format!("--target-pgdata={}", self.data(name).display()),
            // It reads the source's files, which takes a superuser.
            format!("--source-server={} dbname=postgres", self.conninfo(name, primary, SUPERUSER)),
        ];
        self.runner(name).run(&self.binaries.program("pg_rewind")?, args).await?;
        self.mark_standby(name, "data")
    }

    /// It starts as a standby.
    pub(crate) fn mark_standby(&self, name: &str, data: &str) -> Result<()> {
        self.write(name, &format!("{data}/standby.signal"), "", 0o600)
    }

    /// `server.conf` and `pg_hba.conf`. Data that was copied from another node takes these, from beside it.
    pub(crate) fn configure(&self, name: &str, primary: Option<&str>, extra: &[(&str, String)]) -> Result<()> {
        let primary = primary.map(|primary| (self.conninfo(name, primary, REPLICATOR), Self::slot(name)));
        // pg_rewind wants whole pages of its source, durable or not.
        let all = [("full_page_writes", "on".to_owned()), ("wal_keep_size", WAL_KEEP.to_owned())];
        let extra: Vec<_> = all.iter().chain(extra).map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (dir, port) = (self.home(name), self.port(name));
        let settings = Settings { name, dir: &dir, port, fsync: self.state.fsync, primary, extra: &extra };
        self.write(name, "server.conf", &config::server(&settings)?, 0o600)?;
        self.write(name, "pg_hba.conf", &config::hba(self.state.kind.replication_users()), 0o600)
    }

    /// Starts what is in the data folder, and waits until it answers.
    pub(crate) async fn start_server(&mut self, name: &str) -> Result<()> {
        let data = self.data(name);
        control::require_same_version(&data, &self.binaries)?;
        if !self.runs(name, POSTGRES) {
            postmaster::settle_earlier(&data).await?;
        }
        let daemon = Daemon {
            name: POSTGRES,
            program: self.binaries.program(POSTGRES)?,
            args: vec!["-D".to_owned(), data.to_string_lossy().into_owned()],
            at_the_end: AtTheEnd::Interrupt,
        };
        let port = self.port(name);
        self.start(name, &daemon, &[port])?;
        let answers = async |site: &Self| site.ask(port).await.is_some();
        self.wait_for((name, POSTGRES), START_DEADLINE, &format!("PostgreSQL of {name} did not answer"), answers).await
    }

    /// How one node reaches another's server; the password is in the password file.
    pub(crate) fn conninfo(&self, name: &str, other: &str, user: &str) -> String {
        let file = |file: &str| self.home(name).join(file).to_string_lossy().into_owned();
        config::conninfo(&[
            ("host", "localhost"),
            ("port", &self.port(other).to_string()),
            ("user", user),
            ("passfile", &file("pgpass")),
            ("sslmode", "verify-full"),
            ("sslrootcert", &file("ca.crt")),
            ("application_name", name),
        ])
    }

    /// Removes the data, and ends what an interrupted run left making it. Where the new data is to be made.
    async fn clear(&self, name: &str) -> Result<PathBuf> {
        let home = self.home(name);
        processes::kill(&home).await?;
        files::remove_dir(&home.join("data"))?;
        files::remove_dir(&home.join("data.new"))?;
        Ok(home.join("data.new"))
    }

    fn take(&self, name: &str) -> Result<()> {
        let data = self.data(name);
        std::fs::rename(self.home(name).join("data.new"), &data).map_err(Error::io("put in place", data))
    }
}

pub(crate) async fn bounded<T>(name: &str, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    let timed_out = |_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    let result = timeout(SQL_DEADLINE, work).await.map_err(timed_out).and_then(|result| result);
    result.map_err(|source| Error::Sql { node: name.to_owned(), source })
}
