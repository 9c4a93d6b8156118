//! What is told of a cluster without being asked for.
//!
//! It is no more than a reason to look: what a cluster is like, looks alone say.

use std::time::Duration;

use pgtenant_model::HostPort;
use sqlx::postgres::{PgListener, PgPoolOptions};

use crate::probe::{ProbeOptions, reason};

/// A connection that was silent for so long is asked for a sign of life: one that was cut off is not told so.
const SILENCE: Duration = Duration::from_secs(60);

/// A connection over which a server tells of changes.
pub struct Pushes {
    listener: PgListener,
    concerns: Box<dyn Fn(&str) -> bool + Send + Sync>,
    patience: Duration,
}

impl Pushes {
    /// Listens on one channel of a server to the payloads that `concerns` is true of. It takes no privilege beyond CONNECT.
    pub(crate) async fn new(
        host: &HostPort,
        options: &ProbeOptions,
        channel: &str,
        concerns: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let patience = options.connect_timeout;
        // A listener takes its connection from a pool. This one has no other, and no task that would wake up for it.
        let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = pool.acquire_timeout(patience).connect_lazy_with(options.connect_options(host));
        let listen = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.ignore_pool_close_event(true);
            listener.eager_reconnect(false);
            listener.listen(channel).await?;
            Ok(listener)
        };
        match tokio::time::timeout(2 * patience, listen).await {
            Ok(Ok(listener)) => Ok(Self { listener, concerns: Box::new(concerns), patience }),
            Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => Err(format!("no answer within {patience:?}")),
            Ok(Err(error)) => Err(reason(&error)),
        }
    }

    /// Returns when the cluster has changed, once for all that has been told by then.
    ///
    /// # Errors
    /// Why nothing is heard any more. What was told meanwhile nobody has heard: listen anew, and look.
    pub async fn next(&mut self) -> Result<(), String> {
        loop {
            match tokio::time::timeout(SILENCE, self.listener.try_recv()).await {
                Ok(Ok(Some(heard))) => {
                    let mut concerns = (self.concerns)(heard.payload());
                    while let Some(heard) = self.listener.next_buffered() {
                        concerns |= (self.concerns)(heard.payload());
                    }
                    if concerns {
                        return Ok(());
                    }
                }
                Ok(Ok(None)) => return Err("the connection was closed".to_owned()),
                Ok(Err(error)) => return Err(reason(&error)),
                Err(_) => self.is_alive().await?,
            }
        }
    }

    async fn is_alive(&mut self) -> Result<(), String> {
        let asked = sqlx::raw_sql("SELECT 1").execute(&mut self.listener);
        match tokio::time::timeout(self.patience, asked).await {
            Ok(answer) => answer.map(drop).map_err(|error| reason(&error)),
            Err(_) => Err(format!("no sign of life within {:?}", self.patience)),
        }
    }
}

impl std::fmt::Debug for Pushes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pushes").finish_non_exhaustive()
    }
}
