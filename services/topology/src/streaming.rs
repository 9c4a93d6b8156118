//! A primary and streaming standbys: every host is asked what it is.

use chrono::Utc;
use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use pgtenant_model::{HostPort, SyncState};
use serde::Deserialize;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::Observation;
use crate::aurora::Depth;
use crate::kind::Kind;
use crate::observation::{Answer, Asked, Follower};
use crate::probe::{ProbeOptions, reason, state};

/// Hosts of which one is writable.
#[derive(Debug)]
pub(crate) struct Streaming {
    pub(crate) hosts: Vec<HostPort>,
}

impl Kind for Streaming {
    fn hosts(&self) -> Vec<HostPort> {
        self.hosts.clone()
    }

    fn observe<'a>(&'a self, options: &'a ProbeOptions, _: Depth) -> BoxFuture<'a, Observation> {
        ask_servers(&self.hosts, options).boxed()
    }
}

/// One round trip, and nothing in it that a login without privileges may not ask (14 to 18). Who streams from a server is shown to
/// everybody by its name; how commits wait for it is shown to `pg_read_all_stats`, and so is the name that a standby streams by where that
/// is not `cluster_name`.
const QUESTION: &str = concat!(
    "SELECT in_recovery, ",
    state!(),
    "CASE WHEN in_recovery
            THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')
            ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')
       END::bigint AS position,
       CASE WHEN in_recovery AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
            WHEN in_recovery THEN ceil(extract(epoch FROM now() - pg_last_xact_replay_timestamp()))
       END::bigint AS lag,
       EXISTS (SELECT FROM pg_stat_wal_receiver) AS streaming,
       coalesce((SELECT substring(conninfo FROM '(?:^| )application_name=''?([^ '']+)') FROM pg_stat_wal_receiver),
                nullif(current_setting('cluster_name'), ''), 'walreceiver') AS streams_as,
       (SELECT coalesce(json_agg(json_build_object('name', application_name, 'sync', sync_state)), '[]')
          FROM pg_stat_replication)::text AS followers,
       CASE WHEN NOT pg_has_role('pg_read_all_stats', 'USAGE') THEN quote_ident(current_user) END AS blind,
       (SELECT system_identifier FROM pg_control_system()) AS system,
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS started,
       current_setting('server_version') AS version
  FROM (SELECT pg_is_in_recovery() AS in_recovery) AS state"
);

/// Asks every host at once, and draws the conclusions.
pub(crate) async fn ask_servers(hosts: &[HostPort], options: &ProbeOptions) -> Observation {
    Observation::of(&ask_each(hosts, options).await, Utc::now())
}

/// Asks every host at once. All of them are waited for, up to the timeout: whether there are two primaries is known only then.
pub(crate) async fn ask_each(hosts: &[HostPort], options: &ProbeOptions) -> Vec<Asked> {
    join_all(hosts.iter().map(|host| async move { (host.clone(), ask(host, options).await) })).await
}

async fn ask(host: &HostPort, options: &ProbeOptions) -> Result<Answer, String> {
    let row = options.ask(host, QUESTION).await?;
    answer(&row).map_err(|error| reason(&error))
}

/// As the server has it.
#[derive(Deserialize)]
struct Sender {
    name: Option<String>,
    sync: Option<SyncState>,
}

fn answer(row: &PgRow) -> Result<Answer, sqlx::Error> {
    let version: String = row.try_get("version")?;
    let followers: String = row.try_get("followers")?;
    // A state that a later server may invent is not known here.
    let followers: Vec<Sender> = serde_json::from_str(&followers).unwrap_or_default();
    Ok(Answer {
        in_recovery: row.try_get("in_recovery")?,
        read_only: row.try_get("read_only")?,
        timeline: row.try_get("timeline")?,
        position: row.try_get("position")?,
        lag: row.try_get("lag")?,
        streaming: row.try_get("streaming")?,
        streams_as: row.try_get("streams_as")?,
        followers: followers
            .into_iter()
            .map(|Sender { name, sync }| Follower { name: name.unwrap_or_default(), sync })
            .collect(),
        blind: row.try_get("blind")?,
        system: row.try_get("system")?,
        started: row.try_get("started")?,
        // Distributions add their own, as in `15.18 (Debian 15.18-0+deb12u1)`.
        version: version.split(' ').next().unwrap_or_default().to_owned(),
    })
}
