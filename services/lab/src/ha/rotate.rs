//! New passwords for the logins that a lab itself has, while all of it runs.

use secrecy::SecretString;
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnection;

use crate::converge::Progress;
use crate::error::{Error, Result};
use crate::ha::kind::LabKind;
use crate::ha::server::bounded;
use crate::ha::site::{REPLICATION, SUPERUSER, SUPERUSER_FILE, Site};
use crate::ha::{Lab, auto_failover, haproxy, patroni, pgpool, pool, verifier};
use crate::pgbouncer::{LOGIN, PGBOUNCER};

/// SQLSTATE of a wrong password.
const WRONG_PASSWORD: &str = "28P01";

impl Lab {
    /// The logins that the lab has for itself.
    pub fn logins(&self) -> Vec<&'static str> {
        secrets(&self.site).into_iter().flat_map(|(_, logins)| logins).collect()
    }

    /// New passwords for all of the lab's own logins, or for one of [`Lab::logins`] and those that share its password. Standbys, tools
    /// and clients' sessions go on. Where it was interrupted, do it again.
    pub async fn rotate(&mut self, login: Option<&str>, mut progress: impl FnMut(&str) + Send) -> Result<()> {
        let _lock = self.site.lock()?;
        let wanted = |logins: &[&str]| login.is_none_or(|login| logins.contains(&login));
        let known = self.logins().join(", ");
        let chosen: Vec<_> = secrets(&self.site).into_iter().filter(|(_, logins)| wanted(logins)).collect();
        if chosen.is_empty() {
            let what = format!("the lab has no login {} of its own", login.unwrap_or_default());
            return Err(Error::Unsuited { what, instead: format!("it has {known}") });
        }
        for (file, logins) in chosen {
            progress(&format!("new password for {}", logins.join(", ")));
            match file {
                pgpool::PGPOOL => pgpool::rotate(&mut self.site, &mut progress).await?,
                PGBOUNCER => {
                    change(&mut self.site, file, &logins).await?;
                    pool::reload(&self.site)?;
                }
                haproxy::HEALTH => {
                    change(&mut self.site, file, &logins).await?;
                    haproxy::restart_health(&mut self.site, &mut progress).await?;
                }
                _ => {
                    change(&mut self.site, file, &logins).await?;
                    tell(&mut self.site, &mut progress).await?;
                }
            }
        }
        Ok(())
    }
}

/// Each password's file, and who has it.
fn secrets(site: &Site) -> Vec<(&'static str, Vec<&'static str>)> {
    let (kind, pgbouncer) = (site.state.kind, site.state.pgbouncer);
    let mut all = vec![(SUPERUSER_FILE, vec![SUPERUSER]), (REPLICATION, kind.logins().to_vec())];
    match kind {
        LabKind::Streaming | LabKind::Patroni | LabKind::PgAutoFailover | LabKind::Haproxy => {}
        LabKind::Repmgr => all.push((pgpool::PGPOOL, vec![pgpool::PGPOOL])),
    }
    if kind == LabKind::Haproxy || (pgbouncer && kind != LabKind::Patroni) {
        all.push((haproxy::HEALTH, vec![haproxy::HEALTH]));
    }
    if pgbouncer {
        all.push((PGBOUNCER, vec![LOGIN]));
    }
    all
}

/// The next password is kept before any server has it, so that none is lost.
async fn change(site: &mut Site, file: &'static str, logins: &[&str]) -> Result<()> {
    let next = site.next_secret(file)?;
    let mut primary = site.primary().await;
    if primary.is_none() && file == SUPERUSER_FILE {
        // An interrupted change.
        let before = std::mem::replace(&mut site.password, next.clone());
        primary = site.primary().await;
        site.password = before;
    }
    let primary = primary.ok_or_else(|| Error::Unsuited {
        what: "no password is changed while there is no primary".to_owned(),
        instead: "bring it back first: `pgtenant lab up`".to_owned(),
    })?;
    let monitor = (site.state.kind == LabKind::PgAutoFailover).then(|| auto_failover::MONITOR.to_owned());
    for server in monitor.into_iter().chain([primary]) {
        let mut connection = connect(site, &server, &next).await?;
        for login in logins {
            let sql = format!(
                "DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{login}') THEN \
                 ALTER ROLE {login} PASSWORD '{}'; END IF; END $$",
                verifier(&next).as_str()
            );
            bounded(&server, sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection)).await?;
        }
    }
    site.adopt_secret(file)?;
    site.write_password_files()
}

async fn connect(site: &Site, server: &str, next: &SecretString) -> Result<PgConnection> {
    use secrecy::ExposeSecret as _;
    let options = site.login(site.port(server)).disable_statement_logging();
    let attempt = bounded(server, options.clone().connect()).await;
    let wrong = |source: &sqlx::Error| {
        source.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == WRONG_PASSWORD)
    };
    match attempt {
        Err(Error::Sql { source, .. }) if wrong(&source) => {
            bounded(server, options.password(next.expose_secret()).connect()).await
        }
        other => other,
    }
}

/// Most look into libpq's password file each time.
async fn tell(site: &mut Site, progress: Progress<'_>) -> Result<()> {
    match site.state.kind {
        LabKind::Patroni => patroni::reload(site, progress).await,
        LabKind::Streaming | LabKind::PgAutoFailover | LabKind::Repmgr | LabKind::Haproxy => Ok(()),
    }
}
