//! What one server is, for a load balancer that asks every second.

use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Row};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::probe::{reason, state};

/// Nothing in it that a login without privileges may not ask (14 to 18). A standby that has replayed all that it has received is not
/// behind, however long ago the last commit was.
const QUESTION: &str = concat!(
    "SELECT in_recovery, ",
    state!(),
    "EXISTS (SELECT FROM pg_stat_wal_receiver) AS streaming,
       CASE WHEN NOT in_recovery OR pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
            ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp())
       END::float8 AS lag
  FROM (SELECT pg_is_in_recovery() AS in_recovery) AS state"
);

/// What a server says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HealthRole {
    /// It takes writes.
    Primary,
    /// It is in recovery.
    Standby,
    /// It is no standby, and all transactions are read-only.
    ReadOnly,
    /// It did not answer.
    Unknown,
}

/// A server, at one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// What it is.
    pub role: HealthRole,
    /// Of its log.
    pub timeline: Option<i32>,
    /// How far a standby is behind what it has received. None where it receives nothing: nobody knows then.
    pub lag_seconds: Option<f64>,
    /// Whether a standby gets anything.
    pub streaming: bool,
    /// Why it is not what it was asked for.
    pub message: Option<String>,
}

impl Health {
    fn silent(message: String) -> Self {
        let (role, timeline, lag_seconds, streaming) = (HealthRole::Unknown, None, None, false);
        Self { role, timeline, lag_seconds, streaming, message: Some(message) }
    }

    /// Whether it answers at all.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.role != HealthRole::Unknown
    }

    /// Whether writes may go there.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.role == HealthRole::Primary
    }

    /// Whether reads may go there that may be as old as this; none: as old as they come.
    #[must_use]
    pub fn is_standby(&self, max_lag: Option<Duration>) -> bool {
        let fresh = |limit: Duration| self.lag_seconds.is_some_and(|lag| lag <= limit.as_secs_f64());
        self.role == HealthRole::Standby && max_lag.is_none_or(fresh)
    }
}

/// Asks one server, over one connection that is kept, and made again when it broke.
#[derive(Debug)]
pub struct HealthProbe {
    options: PgConnectOptions,
    deadline: Duration,
    connection: Mutex<Option<PgConnection>>,
}

impl HealthProbe {
    /// Nothing is connected yet. The login needs no privilege beyond CONNECT.
    #[must_use]
    pub fn new(options: PgConnectOptions, deadline: Duration) -> Self {
        let options = options.application_name("pgtenant health").disable_statement_logging();
        Self { options, deadline, connection: Mutex::new(None) }
    }

    /// Asks the server; it is [`HealthRole::Unknown`] where it has not answered by the deadline.
    pub async fn look(&self) -> Health {
        match timeout(self.deadline, self.ask()).await {
            Err(_) => Health::silent(format!("no answer within {:?}", self.deadline)),
            Ok(Err(error)) => Health::silent(reason(&error)),
            Ok(Ok(health)) => health,
        }
    }

    /// A connection that fails, or that is being asked when the deadline comes, is not used again.
    async fn ask(&self) -> sqlx::Result<Health> {
        let mut slot = self.connection.lock().await;
        if let Some(mut kept) = slot.take()
            && let Ok(health) = question(&mut kept).await
        {
            *slot = Some(kept);
            return Ok(health);
        }
        let mut fresh = self.options.connect().await?;
        let health = question(&mut fresh).await?;
        *slot = Some(fresh);
        Ok(health)
    }
}

async fn question(connection: &mut PgConnection) -> sqlx::Result<Health> {
    let row = sqlx::raw_sql(QUESTION).fetch_one(connection).await?;
    let (in_recovery, read_only): (bool, bool) = (row.try_get("in_recovery")?, row.try_get("read_only")?);
    let streaming: bool = row.try_get("streaming")?;
    let role = match (in_recovery, read_only) {
        (true, _) => HealthRole::Standby,
        (false, true) => HealthRole::ReadOnly,
        (false, false) => HealthRole::Primary,
    };
    let lag: Option<f64> = row.try_get("lag")?;
    let lag_seconds = if in_recovery && !streaming { None } else { lag };
    let message = (role == HealthRole::ReadOnly).then(|| "default_transaction_read_only is on".to_owned());
    Ok(Health { role, timeline: row.try_get("timeline")?, lag_seconds, streaming, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standby(lag_seconds: Option<f64>) -> Health {
        let (role, timeline, streaming) = (HealthRole::Standby, Some(1), lag_seconds.is_some());
        Health { role, timeline, lag_seconds, streaming, message: None }
    }

    #[test]
    fn a_standby_is_as_fresh_as_it_is_asked_to_be() {
        let limit = Some(Duration::from_secs(10));
        assert!(standby(Some(10.0)).is_standby(limit));
        assert!(!standby(Some(10.1)).is_standby(limit));
        // Nobody knows how old it is.
        assert!(!standby(None).is_standby(limit));
        assert!(standby(None).is_standby(None));
        assert!(!standby(Some(0.0)).is_primary());
        assert!(!Health::silent("no".to_owned()).answers());
    }
}
