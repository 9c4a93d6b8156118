//! A claim under work is held by a lease; when the lease is lost the work stops by itself.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pgtenant_ledger::{LedgerError, within_deadline};

/// Until when this replica may act for a claim.
///
/// The clock is the process's own and monotonic: it goes on while the process is stopped, so a replica that wakes
/// up after its lease finds it over, and does nothing more.
#[derive(Debug)]
pub(crate) struct Lease {
    until: Mutex<Instant>,
    length: Duration,
}

impl Lease {
    /// `since` is a moment before the ledger granted the lease.
    pub(crate) fn new(since: Instant, length: Duration) -> Self {
        Self { until: Mutex::new(since + length), length }
    }

    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Renews at each third of the lease. Returns none when another replica has it, and what `renew` says when it says something;
    /// never while it is ours and nothing is said. A ledger that does not answer is asked again: the lease runs out by itself.
    pub(crate) async fn keep<T, F>(&self, renew: impl Fn(Duration) -> F) -> Option<T>
    where
        F: Future<Output = Result<Option<T>, LedgerError>>,
    {
        loop {
            tokio::time::sleep(self.length / 3).await;
            let since = Instant::now();
            match within_deadline(renew(self.length)).await {
                Ok(said) => {
                    *self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = since + self.length;
                    if said.is_some() {
                        return said;
                    }
                }
                Err(LedgerError::Fenced(_)) => return None,
                Err(error) => tracing::warn!(error = ?error, "lease not renewed"),
            }
        }
    }
}

impl pgtenant_postgres::Fence for Lease {
    fn remaining(&self) -> Option<Duration> {
        self.until().checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}
