//! A number that a server is asked for, again and again.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::connect::{Dial, Login, Session};
use crate::error::{BenchError, Result};

/// Connections of everybody but the superuser, who is the one that asks.
pub(crate) const CONNECTIONS: &str = "select count(*) from pg_stat_activity
     where backend_type = 'client backend' and usename <> session_user";

/// How often takes of a claim were granted, ever: each look is one.
pub(crate) const TAKES: &str = "select coalesce(sum(fence), 0)::bigint from claims";

/// A question under way.
pub(crate) struct Sampler {
    stop: CancellationToken,
    task: JoinHandle<Result<Vec<(f64, f64)>>>,
}

impl Sampler {
    /// Asks `sql` for one bigint each `every`, on a connection of its own.
    pub(crate) async fn start(
        dial: &Dial,
        login: &Login,
        database: &str,
        sql: &'static str,
        every: Duration,
    ) -> Result<Self> {
        let session = dial.connect(login, database).await?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(ask(session, sql, every, stop.clone()));
        Ok(Self { stop, task })
    }

    /// `(seconds since the start, answer)`.
    pub(crate) async fn stop(self) -> Result<Vec<(f64, f64)>> {
        self.stop.cancel();
        self.task.await.map_err(BenchError::text("sample a server"))?
    }
}

async fn ask(session: Session, sql: &str, every: Duration, stop: CancellationToken) -> Result<Vec<(f64, f64)>> {
    let doing = || BenchError::postgres("sample");
    let statement = session.client().prepare(sql).await.map_err(doing())?;
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begun = Instant::now();
    let mut samples = Vec::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let row = session.client().query_one(&statement, &[]).await.map_err(doing())?;
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let value = row.get::<_, i64>(0) as f64;
        samples.push((begun.elapsed().as_secs_f64(), value));
    }
    session.close().await;
    Ok(samples)
}
