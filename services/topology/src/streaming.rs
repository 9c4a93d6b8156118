//! A primary and streaming standbys: every host is asked what it is.

use chrono::Utc;
use futures::future::join_all;
use pgtenant_model::HostPort;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::Observation;
use crate::observation::{Answer, Asked};
use crate::probe::{ProbeOptions, reason, state};

/// Hosts of which one is writable.
#[derive(Debug, Clone)]
pub struct StreamingProbe {
    hosts: Vec<HostPort>,
    options: ProbeOptions,
}

/// One round trip, and nothing in it that a login without privileges may not ask (14 to 18).
const QUESTION: &str = concat!(
    "SELECT in_recovery, ",
    state!(),
    "CASE WHEN in_recovery
            THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')
            ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')
       END::bigint AS position,
       CASE WHEN in_recovery
            THEN pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')
       END::bigint AS received,
       EXISTS (SELECT FROM pg_stat_wal_receiver) AS streaming,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS started,
       current_setting('server_version') AS version
  FROM (SELECT pg_is_in_recovery() AS in_recovery) AS state"
);

impl StreamingProbe {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(hosts: Vec<HostPort>, options: ProbeOptions) -> Self {
        Self { hosts, options }
    }

    /// Every member.
    #[must_use]
    pub fn hosts(&self) -> &[HostPort] {
        &self.hosts
    }

    /// Asks every host at once. All of them are waited for, up to the timeout: whether there are two primaries is known only
    /// then.
    pub async fn observe(&self) -> Observation {
        let asked: Vec<Asked> =
            join_all(self.hosts.iter().map(|host| async { (host.clone(), self.ask(host).await) })).await;
        Observation::of(&asked, Utc::now())
    }

    async fn ask(&self, host: &HostPort) -> Result<Answer, String> {
        let row = self.options.ask(host, QUESTION).await?;
        answer(&row).map_err(|error| reason(&error))
    }
}

fn answer(row: &PgRow) -> Result<Answer, sqlx::Error> {
    let version: String = row.try_get("version")?;
    Ok(Answer {
        in_recovery: row.try_get("in_recovery")?,
        read_only: row.try_get("read_only")?,
        timeline: row.try_get("timeline")?,
        position: row.try_get("position")?,
        received: row.try_get("received")?,
        streaming: row.try_get("streaming")?,
        system: row.try_get("system")?,
        started: row.try_get("started")?,
        // Distributions add their own, as in `15.18 (Debian 15.18-0+deb12u1)`.
        version: version.split(' ').next().unwrap_or_default().to_owned(),
    })
}
