//! An application as rotations have to bear it: it reads its credential again and again, and keeps sessions.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgtenant_tests::{Credential, connect, sqlstate};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

/// An application reads its credential again when it has had it for so long.
const READ_AGAIN: Duration = Duration::from_millis(500);
/// For so long what was read is good.
pub(super) const OVERLAP: Duration = Duration::from_secs(3);

/// What applications have to bear.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) logins: AtomicUsize,
    pub(super) refused: Mutex<Vec<String>>,
    /// Logins that took so long on a busy machine that the credential was older than the overlap when it was looked at.
    pub(super) late: AtomicUsize,
    /// Sessions that ended although no server did.
    pub(super) ended: Mutex<Vec<String>>,
    /// The primary is being replaced: what can not be reached, or ends, does so for that.
    pub(super) failover: AtomicBool,
    /// Since then every claim's credential has led to the new primary.
    pub(super) failed_over: Mutex<Option<Instant>>,
    pub(super) stop: AtomicBool,
}

impl Tally {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn fails(&self) -> bool {
        self.failover.load(Ordering::Relaxed)
    }

    /// Whether a credential was read before it led to the new primary.
    fn leads_to_the_former(&self, read: Instant) -> bool {
        self.failed_over.lock().unwrap().is_some_and(|since| read < since)
    }
}

/// An application of one tier: many logins, each with what it has read a moment ago, and sessions that it keeps.
pub(super) struct Application<'a> {
    pub(super) secrets: PathBuf,
    pub(super) namespace: &'a str,
    pub(super) name: String,
    pub(super) tier: &'static str,
    pub(super) tally: &'a Tally,
}

impl Application<'_> {
    pub(super) async fn run(&self) {
        let mut credential = (Credential::read(&self.secrets, self.namespace, &self.name, self.tier), Instant::now());
        let mut kept: Vec<(String, PgConnection)> = Vec::new();
        let mut tables = 0;
        while !self.tally.stopped() {
            if credential.1.elapsed() > READ_AGAIN {
                credential = (Credential::read(&self.secrets, self.namespace, &self.name, self.tier), Instant::now());
            }
            let during_failover = self.tally.fails();
            let login = credential.0.username.clone();
            match connect(&credential.0).await {
                Ok(mut session) => {
                    self.tally.logins.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = self.work(&mut session, &mut tables).await
                        && !during_failover
                        && !self.tally.fails()
                    {
                        self.refuse(format!("{login} works: {error}"));
                    }
                    // One session of each credential is kept.
                    if kept.last().is_none_or(|(of, _)| *of != credential.0.password) {
                        kept.push((credential.0.password.clone(), session));
                    } else {
                        session.close().await.ok();
                    }
                }
                Err(error) if sqlstate(&error).starts_with("28") && credential.1.elapsed() > OVERLAP => {
                    self.tally.late.fetch_add(1, Ordering::Relaxed);
                    drop(error);
                }
                Err(error) if error.as_database_error().is_some() && sqlstate(&error).starts_with("28") => {
                    self.refuse(format!("{login} logs in: {error}"));
                }
                Err(error) if during_failover || self.tally.fails() => drop(error),
                Err(error) if self.tally.leads_to_the_former(credential.1) => drop(error),
                Err(error) => self.refuse(format!("{login}: {error}")),
            }
            self.keep(&mut kept).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn refuse(&self, what: String) {
        self.tally.refused.lock().unwrap().push(what);
    }

    async fn work(&self, session: &mut PgConnection, tables: &mut usize) -> Result<(), sqlx::Error> {
        let sql = match self.tier {
            "admin" => {
                *tables += 1;
                format!("create table t{tables}_{:08x} (n int)", rand::random::<u32>())
            }
            "write" => "insert into items values (1)".to_owned(),
            _ => "select count(*) from items".to_owned(),
        };
        session.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop)
    }

    /// Every kept session is still good.
    async fn keep(&self, kept: &mut Vec<(String, PgConnection)>) {
        let during_failover = self.tally.fails();
        let mut good = Vec::new();
        for (of, mut session) in kept.drain(..) {
            match session.execute("select 1").await {
                Ok(_) => good.push((of, session)),
                Err(_) if during_failover || self.tally.fails() => {}
                Err(error) => self.tally.ended.lock().unwrap().push(format!("{} {}: {error}", self.name, self.tier)),
            }
        }
        *kept = good;
    }
}
