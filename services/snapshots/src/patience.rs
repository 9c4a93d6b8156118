//! How long and how often something is tried.

use std::time::Duration;

use rand::RngExt as _;

use crate::SnapshotError;

/// How often a request is tried, and how long is waited in between.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Tries of a request; and of going on with a download that breaks off, without a byte more.
    pub tries: u32,
    /// The first wait is at most this long, each further one twice the one before.
    pub first: Duration,
    /// No wait is longer.
    pub longest: Duration,
    /// A request whose other end says nothing for so long has failed.
    pub silence: Duration,
}

impl Default for Patience {
    /// 5 tries in about 10 s; two minutes of silence, in which 8 MiB go through a slow line.
    fn default() -> Self {
        Self {
            tries: 5,
            first: Duration::from_millis(400),
            longest: Duration::from_secs(10),
            silence: Duration::from_secs(120),
        }
    }
}

impl Patience {
    /// Waits after the try `number`, from 1: an even part of what is due, so that many do not come back in the same moment.
    pub(crate) async fn wait(&self, number: u32) {
        let due = self.first.saturating_mul(1 << number.saturating_sub(1).min(16)).min(self.longest);
        let part = rand::rng().random_range(0.5..=1.0);
        tokio::time::sleep(due.mul_f64(part)).await;
    }

    /// Tries `call` until it works, fails for good, or has been tried often enough.
    pub(crate) async fn retry<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, SnapshotError>
    where
        F: Future<Output = Result<T, SnapshotError>>,
    {
        let mut number = 1;
        loop {
            match call().await {
                Err(error) if error.is_retryable() && number < self.tries => {
                    tracing::debug!(error = %error, number, "tried without success, and tried again");
                    self.wait(number).await;
                    number += 1;
                }
                result => return result,
            }
        }
    }
}
