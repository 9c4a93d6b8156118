//! What the ledger announces.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgNotification, PgPool};

use crate::{LedgerError, Result, SIGN_OF_LIFE};

/// A silent connection is asked for a sign of life after this time.
const SILENCE: Duration = Duration::from_secs(30);

/// Something that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// On which channel.
    pub channel: String,
    /// What was said there.
    pub payload: String,
}

impl From<PgNotification> for Announcement {
    fn from(heard: PgNotification) -> Self {
        Self { channel: heard.channel().to_owned(), payload: heard.payload().to_owned() }
    }
}

/// A connection of its own that hears what is announced.
#[derive(Debug)]
pub struct Listener {
    inner: PgListener,
}

impl Listener {
    pub(crate) async fn new(pool: &PgPool, channels: &[&str]) -> Result<Self> {
        let mut inner = PgListener::connect_with(pool).await?;
        // The listener must not hold back a pool that is being closed.
        inner.ignore_pool_close_event(true);
        inner.listen_all(channels.iter().copied()).await?;
        Ok(Self { inner })
    }

    /// Waits for the next announcement, and returns it with what else was announced until then.
    ///
    /// # Errors
    /// The connection is gone, or says nothing any more. What was announced meanwhile is not heard: make another one, then
    /// look for yourself.
    pub async fn recv(&mut self) -> Result<Vec<Announcement>> {
        loop {
            match tokio::time::timeout(SILENCE, self.inner.try_recv()).await {
                Ok(Ok(Some(first))) => {
                    let mut heard = vec![first.into()];
                    while let Some(next) = self.inner.next_buffered() {
                        heard.push(next.into());
                    }
                    return Ok(heard);
                }
                Ok(Ok(None)) => return Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()).into()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {}
            }
            let alive = sqlx::query("select 1").execute(&mut self.inner);
            match tokio::time::timeout(SIGN_OF_LIFE, alive).await {
                Ok(answer) => answer.map(|_| ())?,
                Err(_) => return Err(LedgerError::Deadline(SIGN_OF_LIFE)),
            }
        }
    }
}
